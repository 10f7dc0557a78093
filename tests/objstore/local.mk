check_PROGRAMS += %reldir%/t_objstore
TESTS += %reldir%/t_objstore
%canon_reldir%_t_objstore_LDADD = $(OBJSTORE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
check_PROGRAMS += %reldir%/t_sproxyd
TESTS += %reldir%/t_sproxyd
%canon_reldir%_t_sproxyd_LDADD = $(OBJSTORE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
EXTRA_DIST += %reldir%/sproxyd-server.py
