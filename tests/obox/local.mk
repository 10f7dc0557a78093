check_PROGRAMS += %reldir%/t_obox
TESTS += %reldir%/t_obox
%canon_reldir%_t_obox_LDADD = $(OBOX_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
check_PROGRAMS += %reldir%/read_message
%canon_reldir%_read_message_LDADD = $(OPENSSL_LIBS) $(SODIUM_LIBS) $(ZSTD_LIBS)
TESTS += %reldir%/t_format.sh
EXTRA_DIST += %reldir%/t_format.sh %reldir%/vectors
