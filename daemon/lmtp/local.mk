noinst_LIBRARIES += %reldir%/liblmtp.a
%canon_reldir%_liblmtp_a_SOURCES = \
	%reldir%/lmtp.c %reldir%/lmtp.h %reldir%/lmtp-private.h \
	%reldir%/lmtp-deliver.c \
	%reldir%/lmtp-parse.c
