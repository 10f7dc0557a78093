check_PROGRAMS += %reldir%/t_seal
TESTS += %reldir%/t_seal
%canon_reldir%_t_seal_LDADD = $(CRYPT_ROOM_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
