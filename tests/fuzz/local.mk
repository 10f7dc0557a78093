# Tests of fuzz
