noinst_LIBRARIES += %reldir%/libadmin.a
%canon_reldir%_libadmin_a_SOURCES = \
	%reldir%/admin.c %reldir%/admin-private.h \
	%reldir%/admin-forward.c \
	%reldir%/admin-mailbox.c \
	%reldir%/admin-message.c \
	%reldir%/admin-node.c \
	%reldir%/admin-upkeep.c
