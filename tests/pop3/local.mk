# Tests of pop3
