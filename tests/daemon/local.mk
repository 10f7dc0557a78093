# Tests of daemon
