noinst_LIBRARIES += %reldir%/libobjstore.a
%canon_reldir%_libobjstore_a_SOURCES = \
	%reldir%/objstore.c \
	%reldir%/objstore.h
