noinst_LIBRARIES += %reldir%/libmetacache.a
%canon_reldir%_libmetacache_a_SOURCES = \
	%reldir%/journal-store.c \
	%reldir%/metacache.c %reldir%/metacache.h %reldir%/metacache-private.h \
	%reldir%/dump.c \
	%reldir%/node.c \
	%reldir%/operate.c \
	%reldir%/piece.c \
	%reldir%/registry.c \
	%reldir%/takeover.c \
	%reldir%/watch.c
