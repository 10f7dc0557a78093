noinst_LIBRARIES += %reldir%/libseal.a
%canon_reldir%_libseal_a_SOURCES = \
	%reldir%/keys.c \
	%reldir%/seal.c %reldir%/seal.h %reldir%/seal-private.h
