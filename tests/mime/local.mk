check_PROGRAMS += %reldir%/mime_dump
%canon_reldir%_mime_dump_LDADD = $(MIME_LIBS)
