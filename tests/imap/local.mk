IMAP_HARNESS = %reldir%/harness.c %reldir%/harness.h

check_PROGRAMS += %reldir%/t_scripts
TESTS += %reldir%/t_scripts
%canon_reldir%_t_scripts_SOURCES = %reldir%/t_scripts.c %reldir%/script.c %reldir%/script.h $(IMAP_HARNESS)
%canon_reldir%_t_scripts_LDADD = $(IMAP_LIBS) $(TEST_LIBS)

EXTRA_DIST += %reldir%/scripts
