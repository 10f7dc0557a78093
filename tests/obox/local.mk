check_PROGRAMS += %reldir%/t_obox
TESTS += %reldir%/t_obox
%canon_reldir%_t_obox_LDADD = $(OBOX_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
