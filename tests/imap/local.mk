IMAP_HARNESS = %reldir%/harness.c %reldir%/harness.h

check_PROGRAMS += %reldir%/t_scripts
TESTS += %reldir%/t_scripts
%canon_reldir%_t_scripts_SOURCES = %reldir%/t_scripts.c %reldir%/script.c %reldir%/script.h $(IMAP_HARNESS)
%canon_reldir%_t_scripts_LDADD = $(IMAP_LIBS) $(TEST_LIBS)

check_PROGRAMS += %reldir%/t_parse
TESTS += %reldir%/t_parse
%canon_reldir%_t_parse_SOURCES = %reldir%/t_parse.c $(IMAP_HARNESS)
%canon_reldir%_t_parse_LDADD = $(IMAP_LIBS) $(TEST_LIBS)

check_PROGRAMS += %reldir%/t_engine
TESTS += %reldir%/t_engine
%canon_reldir%_t_engine_SOURCES = %reldir%/t_engine.c $(IMAP_HARNESS)
%canon_reldir%_t_engine_LDADD = $(IMAP_LIBS) $(TEST_LIBS)

check_PROGRAMS += %reldir%/imap_bench
%canon_reldir%_imap_bench_SOURCES = %reldir%/imap_bench.c $(IMAP_HARNESS)
%canon_reldir%_imap_bench_LDADD = $(IMAP_LIBS)

EXTRA_DIST += %reldir%/scripts
