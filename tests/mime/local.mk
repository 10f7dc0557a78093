# Tests of mime
mime_tests = %reldir%/t_mime_date %reldir%/t_mime_decode %reldir%/t_mime_header %reldir%/t_mime_parser %reldir%/t_mime_search
check_PROGRAMS += $(mime_tests) %reldir%/mime_dump
TESTS += $(mime_tests) %reldir%/compare_dovecot.py
EXTRA_DIST += %reldir%/compare_dovecot.py %reldir%/dovecot.py tests/corpus docs/dovecot-differences.md docs/format-summary.md mime/README.md
noinst_HEADERS += %reldir%/mimetest.h
%canon_reldir%_t_mime_date_LDADD = $(MIME_LIBS) $(TEST_LIBS)
%canon_reldir%_t_mime_decode_LDADD = $(MIME_LIBS) $(TEST_LIBS)
%canon_reldir%_t_mime_header_LDADD = $(MIME_LIBS) $(TEST_LIBS)
%canon_reldir%_t_mime_parser_LDADD = $(MIME_LIBS) $(TEST_LIBS)
%canon_reldir%_t_mime_search_LDADD = $(MIME_LIBS) $(TEST_LIBS)
%canon_reldir%_mime_dump_LDADD = $(MIME_LIBS)
