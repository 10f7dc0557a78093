# Rules of the IMAP engine
noinst_LIBRARIES += %reldir%/libimap.a
%canon_reldir%_libimap_a_SOURCES = \
	%reldir%/append.c \
	%reldir%/arena.c %reldir%/arena.h \
	%reldir%/command.c \
	%reldir%/copy.c \
	%reldir%/date.c %reldir%/date.h \
	%reldir%/fetch-ahead.c \
	%reldir%/fetch-body.c \
	%reldir%/fetch-item.c \
	%reldir%/fetch-parse.c \
	%reldir%/fetch.c %reldir%/fetch.h \
	%reldir%/idle.c \
	%reldir%/imap-capability.h \
	%reldir%/imap.h \
	%reldir%/lex-data.c \
	%reldir%/lex.c %reldir%/lex.h \
	%reldir%/list-match.c %reldir%/list-match.h \
	%reldir%/list.c \
	%reldir%/mailbox.c \
	%reldir%/news.c \
	%reldir%/reader.c %reldir%/reader.h \
	%reldir%/response.c \
	%reldir%/search-eval.c \
	%reldir%/search-parse.c \
	%reldir%/search-text.c \
	%reldir%/search.c %reldir%/search.h \
	%reldir%/select.c \
	%reldir%/session.c \
	%reldir%/set.c \
	%reldir%/special.c %reldir%/special.h \
	%reldir%/status.c %reldir%/status.h \
	%reldir%/store.c \
	%reldir%/utf7.c %reldir%/utf7.h
