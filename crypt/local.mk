noinst_LIBRARIES += %reldir%/libseal.a
%canon_reldir%_libseal_a_SOURCES = \
	%reldir%/seal.c \
	%reldir%/seal.h
