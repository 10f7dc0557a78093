check_PROGRAMS += %reldir%/t_pop3
TESTS += %reldir%/t_pop3
%canon_reldir%_t_pop3_SOURCES = %reldir%/t_pop3.c tests/daemon/engine.h $(IMAP_HARNESS)
%canon_reldir%_t_pop3_LDADD = daemon/pop3/libpop3.a $(IMAP_LIBS) $(TEST_LIBS)
