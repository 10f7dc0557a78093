# Tests of lmtp
