noinst_LIBRARIES += %reldir%/libmime.a
%canon_reldir%_libmime_a_SOURCES = \
	%reldir%/mime.c \
	%reldir%/mime.h
