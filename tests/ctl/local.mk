# Tests of ctl
