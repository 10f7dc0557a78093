# Rules of bench/
noinst_PROGRAMS += %reldir%/bench_mime
%canon_reldir%_bench_mime_LDADD = $(MIME_LIBS)
