check_PROGRAMS += %reldir%/t_conf %reldir%/t_auth %reldir%/t_node %reldir%/t_plumbing
TESTS += %reldir%/t_conf %reldir%/t_auth %reldir%/t_node %reldir%/t_plumbing %reldir%/t_culverd.py %reldir%/t_forward.py %reldir%/t_operate.py %reldir%/t_shared.py
%canon_reldir%_t_conf_LDADD = $(AUTH_LIBS) $(TEST_LIBS)
%canon_reldir%_t_auth_SOURCES = %reldir%/t_auth.c
%canon_reldir%_t_auth_LDADD = daemon/libdaemon.a $(AUTH_LIBS) $(TEST_LIBS)
%canon_reldir%_t_node_LDADD = $(DAEMON_LIBS) $(TEST_LIBS)
%canon_reldir%_t_plumbing_LDADD = daemon/libdaemon.a $(BASE_LIBS) $(TEST_LIBS)
EXTRA_DIST += %reldir%/t_culverd.py %reldir%/t_forward.py %reldir%/t_operate.py %reldir%/t_shared.py tests/lib/server.py tests/lib/store.py
