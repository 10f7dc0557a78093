check_LIBRARIES += %reldir%/libcluster.a
%canon_reldir%_libcluster_a_SOURCES = %reldir%/cluster.c %reldir%/cluster.h
CLUSTER_LIBS = %reldir%/libcluster.a $(METACACHE_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
check_PROGRAMS += %reldir%/t_nodes %reldir%/t_takeover %reldir%/t_sim
TESTS += %reldir%/t_nodes %reldir%/t_takeover %reldir%/t_sim
%canon_reldir%_t_nodes_LDADD = $(CLUSTER_LIBS)
%canon_reldir%_t_takeover_LDADD = $(CLUSTER_LIBS)
%canon_reldir%_t_sim_LDADD = $(CLUSTER_LIBS)
