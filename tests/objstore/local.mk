check_PROGRAMS += %reldir%/t_objstore %reldir%/t_policy %reldir%/t_s3 %reldir%/t_s3_more %reldir%/t_s3_sign %reldir%/t_s3_text
TESTS += %reldir%/t_objstore %reldir%/t_policy %reldir%/t_s3 %reldir%/t_s3_more %reldir%/t_s3_sign %reldir%/t_s3_text %reldir%/t_store.py %reldir%/t_large.py
%canon_reldir%_t_objstore_LDADD = $(OBJSTORE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
%canon_reldir%_t_policy_LDADD = $(OBJSTORE_LIBS) $(TEST_LIBS)
%canon_reldir%_t_s3_LDADD = $(OBJSTORE_LIBS) $(TEST_LIBS)
%canon_reldir%_t_s3_more_LDADD = $(OBJSTORE_LIBS) $(TEST_LIBS)
%canon_reldir%_t_s3_sign_LDADD = $(OBJSTORE_LIBS) $(TEST_LIBS)
%canon_reldir%_t_s3_text_LDADD = $(OBJSTORE_LIBS) $(TEST_LIBS)
noinst_HEADERS += %reldir%/s3fix.h
EXTRA_DIST += %reldir%/s3server.py %reldir%/t_store.py %reldir%/t_large.py tests/lib/ceph-rgw
check_PROGRAMS += %reldir%/t_sproxyd
TESTS += %reldir%/t_sproxyd %reldir%/t_store_ring.py
%canon_reldir%_t_sproxyd_LDADD = $(OBJSTORE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
noinst_HEADERS += %reldir%/sproxydfix.h
EXTRA_DIST += %reldir%/sproxyd-server.py %reldir%/t_store_ring.py
if LIBS3
check_PROGRAMS += %reldir%/t_libs3
TESTS += %reldir%/t_libs3
%canon_reldir%_t_libs3_LDADD = $(OBJSTORE_LIBS) $(TEST_LIBS)
endif
