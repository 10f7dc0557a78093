noinst_LIBRARIES += %reldir%/libmetacache.a
%canon_reldir%_libmetacache_a_SOURCES = \
	%reldir%/journal-store.c \
	%reldir%/journal-send.c %reldir%/journal-private.h \
	%reldir%/metacache.c %reldir%/metacache.h %reldir%/metacache-private.h \
	%reldir%/dump.c \
	%reldir%/node.c \
	%reldir%/operate.c \
	%reldir%/piece.c \
	%reldir%/registry.c \
	%reldir%/replay.c \
	%reldir%/takeover.c \
	%reldir%/watch.c

# The cache on disk, behind obox/cache.h: a library of its own, because only who has it needs SQLite.
noinst_LIBRARIES += %reldir%/libmetadisk.a
%canon_reldir%_libmetadisk_a_SOURCES = %reldir%/metadisk.c %reldir%/metadisk.h %reldir%/metadisk-private.h %reldir%/metadisk-db.c
