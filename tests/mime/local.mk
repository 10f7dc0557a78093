# Tests of mime
