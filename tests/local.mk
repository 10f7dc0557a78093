if TESTS_ENABLED
TEST_LIBS = $(CMOCKA_LIBS)
AM_CFLAGS += $(CMOCKA_CFLAGS)
include tests/base/local.mk
include tests/mime/local.mk
include tests/objstore/local.mk
include tests/fscache/local.mk
include tests/crypt/local.mk
include tests/obox/local.mk
include tests/metacache/local.mk
include tests/sim/local.mk
include tests/imap/local.mk
include tests/pop3/local.mk
include tests/lmtp/local.mk
include tests/daemon/local.mk
include tests/crash/local.mk
include tests/ctl/local.mk
include tests/system/local.mk
include tests/cluster/local.mk
include tests/bench/local.mk
include tests/fuzz/local.mk
endif
