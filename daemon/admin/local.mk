noinst_LIBRARIES += %reldir%/libadmin.a
%canon_reldir%_libadmin_a_SOURCES = \
	%reldir%/admin.c %reldir%/admin-private.h \
	%reldir%/admin-mailbox.c \
	%reldir%/admin-message.c \
	%reldir%/admin-upkeep.c
