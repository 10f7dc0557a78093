# The code under test once more, with threads and clocks that the simulator decides about (interpose.h).
check_LIBRARIES += %reldir%/libundertest.a
%canon_reldir%_libundertest_a_SOURCES = $(obox_libobox_a_SOURCES) $(metacache_libmetacache_a_SOURCES) objstore/objstore.c \
	objstore/probe.c objstore/probe-checks.c objstore/probe-result.c
%canon_reldir%_libundertest_a_CPPFLAGS = $(AM_CPPFLAGS) -DCULVER_SIM -include $(top_srcdir)/%reldir%/interpose.h
check_PROGRAMS += %reldir%/culver-sim
%canon_reldir%_culver_sim_SOURCES = %reldir%/main.c %reldir%/sim.h %reldir%/interpose.h %reldir%/rnd.c %reldir%/sched.c %reldir%/threads.c \
	%reldir%/cache.c %reldir%/probing.c %reldir%/store.c %reldir%/trace.c %reldir%/world.c %reldir%/model.c %reldir%/model.h %reldir%/client.c
%canon_reldir%_culver_sim_CPPFLAGS = $(AM_CPPFLAGS) -DCULVER_SIM
%canon_reldir%_culver_sim_LDADD = %reldir%/libundertest.a crypt/libseal.a $(MIME_LIBS) $(ZSTD_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS) -lm
TESTS += %reldir%/t_sim.sh
EXTRA_DIST += %reldir%/t_sim.sh %reldir%/README.md
