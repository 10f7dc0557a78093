noinst_LIBRARIES += %reldir%/libmime.a
%canon_reldir%_libmime_a_SOURCES = \
	%reldir%/address.c \
	%reldir%/bodystructure.c \
	%reldir%/charset.c \
	%reldir%/cte.c \
	%reldir%/date.c \
	%reldir%/decode.c \
	%reldir%/envelope.c \
	%reldir%/header.c \
	%reldir%/imapstring.c \
	%reldir%/mime-private.h \
	%reldir%/mime.h \
	%reldir%/names.c \
	%reldir%/params.c \
	%reldir%/prepend.c \
	%reldir%/parser.c \
	%reldir%/partinfo.c \
	%reldir%/preview.c \
	%reldir%/search.c \
	%reldir%/subject.c \
	%reldir%/summary.c \
	%reldir%/token.c \
	%reldir%/utf8.c
