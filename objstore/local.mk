noinst_LIBRARIES += %reldir%/libobjstore.a
%canon_reldir%_libobjstore_a_SOURCES = \
	%reldir%/fault.c \
	%reldir%/mem.c \
	%reldir%/objstore.c %reldir%/objstore.h \
	%reldir%/posix.c
