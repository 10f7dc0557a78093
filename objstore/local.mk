noinst_LIBRARIES += %reldir%/libobjstore.a
%canon_reldir%_libobjstore_a_SOURCES = \
	%reldir%/fault.c \
	%reldir%/http.c %reldir%/http.h %reldir%/http-private.h \
	%reldir%/http-timer.c \
	%reldir%/http-transfer.c \
	%reldir%/mem.c \
	%reldir%/objstore.c %reldir%/objstore.h \
	%reldir%/open.c \
	%reldir%/policy.c %reldir%/policy.h \
	%reldir%/posix.c \
	%reldir%/probe.c %reldir%/probe.h %reldir%/probe-private.h \
	%reldir%/probe-checks.c \
	%reldir%/probe-result.c \
	%reldir%/s3.c %reldir%/s3-private.h \
	%reldir%/s3-answer.c \
	%reldir%/s3-call.c \
	%reldir%/s3-cred.c %reldir%/s3-cred.h \
	%reldir%/s3-cred-parse.c \
	%reldir%/s3-multi.c \
	%reldir%/s3-op.c \
	%reldir%/s3-sign.c %reldir%/s3-sign.h \
	%reldir%/s3-xml.c %reldir%/s3-xml.h \
	%reldir%/sproxyd.c %reldir%/sproxyd-private.h \
	%reldir%/sproxyd-answer.c \
	%reldir%/sproxyd-call.c \
	%reldir%/sproxyd-connector.c \
	%reldir%/sproxyd-many.c \
	%reldir%/sproxyd-op.c \
	%reldir%/sproxyd-text.c %reldir%/sproxyd-text.h
if LIBS3
%canon_reldir%_libobjstore_a_SOURCES += %reldir%/libs3.c %reldir%/libs3-call.c %reldir%/libs3-private.h
endif
