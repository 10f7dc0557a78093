# Rules of bench/
noinst_PROGRAMS += %reldir%/bench_fscache %reldir%/bench_mime %reldir%/culverbench
%canon_reldir%_bench_fscache_LDADD = $(FSCACHE_LIBS) $(SODIUM_LIBS)
%canon_reldir%_bench_mime_LDADD = $(MIME_LIBS)
%canon_reldir%_culverbench_SOURCES = %reldir%/culverbench.c %reldir%/load.h %reldir%/load-gen.c %reldir%/load-imap.c %reldir%/load-lmtp.c \
	%reldir%/load-net.c %reldir%/load-other.c %reldir%/load-stat.c
%canon_reldir%_culverbench_LDADD = $(BASE_LIBS)
if MICROHTTPD
noinst_PROGRAMS += %reldir%/s3mem
%canon_reldir%_s3mem_CPPFLAGS = $(AM_CPPFLAGS) $(MICROHTTPD_CFLAGS)
%canon_reldir%_s3mem_LDADD = $(BASE_LIBS) $(MICROHTTPD_LIBS)
endif
EXTRA_DIST += %reldir%/run %reldir%/requests %reldir%/latency %reldir%/lab.py %reldir%/dovecot.conf.in %reldir%/README.md
