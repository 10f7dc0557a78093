# Tests of objstore
