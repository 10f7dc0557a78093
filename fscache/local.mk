noinst_LIBRARIES += %reldir%/libfscache.a
%canon_reldir%_libfscache_a_SOURCES = \
	%reldir%/catalogue.c \
	%reldir%/change.c \
	%reldir%/flight.c \
	%reldir%/fscache.c %reldir%/fscache.h %reldir%/fscache-private.h \
	%reldir%/get.c \
	%reldir%/keeper.c \
	%reldir%/policy.c \
	%reldir%/shard.c \
	%reldir%/space.c
