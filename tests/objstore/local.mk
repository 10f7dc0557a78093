check_PROGRAMS += %reldir%/t_objstore
TESTS += %reldir%/t_objstore
%canon_reldir%_t_objstore_LDADD = $(OBJSTORE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
