check_PROGRAMS += %reldir%/t_lmtp
TESTS += %reldir%/t_lmtp
%canon_reldir%_t_lmtp_SOURCES = %reldir%/t_lmtp.c tests/daemon/engine.h $(IMAP_HARNESS)
%canon_reldir%_t_lmtp_LDADD = daemon/lmtp/liblmtp.a $(IMAP_LIBS) $(TEST_LIBS)
