noinst_LIBRARIES += %reldir%/libpop3.a
%canon_reldir%_libpop3_a_SOURCES = \
	%reldir%/pop3.c %reldir%/pop3-private.h \
	%reldir%/pop3-parse.c
