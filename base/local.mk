noinst_LIBRARIES += %reldir%/libbase.a
%canon_reldir%_libbase_a_SOURCES = \
	%reldir%/ban.h \
	%reldir%/b64.c %reldir%/b64.h \
	%reldir%/buf.c %reldir%/buf.h \
	%reldir%/clock.c %reldir%/clock.h \
	%reldir%/err.c %reldir%/err.h \
	%reldir%/hmap.c %reldir%/hmap.h \
	%reldir%/io.c %reldir%/io.h \
	%reldir%/log.c %reldir%/log.h \
	%reldir%/mem.c %reldir%/mem.h \
	%reldir%/seqset.c %reldir%/seqset.h \
	%reldir%/settings.c %reldir%/settings.h %reldir%/settings-private.h \
	%reldir%/settings-value.c \
	%reldir%/wake.c %reldir%/wake.h
