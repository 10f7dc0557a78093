noinst_LIBRARIES += %reldir%/libmetacache.a
%canon_reldir%_libmetacache_a_SOURCES = \
	%reldir%/journal-store.c \
	%reldir%/metacache.c %reldir%/metacache.h %reldir%/metacache-private.h \
	%reldir%/node.c \
	%reldir%/piece.c \
	%reldir%/takeover.c \
	%reldir%/watch.c
