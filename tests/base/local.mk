check_PROGRAMS += %reldir%/t_base
TESTS += %reldir%/t_base
%canon_reldir%_t_base_LDADD = $(BASE_LIBS) $(TEST_LIBS)
