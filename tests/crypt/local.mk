# Tests of crypt
