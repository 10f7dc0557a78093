noinst_LIBRARIES += %reldir%/libobox.a
%canon_reldir%_libobox_a_SOURCES = \
	%reldir%/obox.c \
	%reldir%/obox.h
