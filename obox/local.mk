noinst_LIBRARIES += %reldir%/libobox.a
%canon_reldir%_libobox_a_SOURCES = \
	%reldir%/body.c \
	%reldir%/bundle.c \
	%reldir%/cache.h %reldir%/cached.c \
	%reldir%/columns.c \
	%reldir%/compact.c \
	%reldir%/change.c \
	%reldir%/cluster.h \
	%reldir%/tail.c \
	%reldir%/many.c \
	%reldir%/owner.c \
	%reldir%/check.c \
	%reldir%/dump.c \
	%reldir%/gc.c \
	%reldir%/journal.h %reldir%/journal.c %reldir%/journal-file.c %reldir%/journal-private.h %reldir%/journal-replay.c \
	%reldir%/list.c \
	%reldir%/load.c \
	%reldir%/log-show.c \
	%reldir%/mbox.c \
	%reldir%/mobj.c \
	%reldir%/msgin.c %reldir%/msgin-private.h %reldir%/msgin-pass.c \
	%reldir%/obox.c %reldir%/obox.h %reldir%/obox-private.h \
	%reldir%/operate.c \
	%reldir%/pack.c \
	%reldir%/rebuild.c \
	%reldir%/recover.c \
	%reldir%/upkeep.c \
	%reldir%/record.c \
	%reldir%/save.c \
	%reldir%/scrub.c \
	%reldir%/state.c \
	%reldir%/summary.c \
	%reldir%/upload.c \
	%reldir%/user.c \
	%reldir%/view.c
