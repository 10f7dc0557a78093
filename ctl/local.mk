bin_PROGRAMS += culverctl
culverctl_SOURCES = \
	%reldir%/client.c \
	%reldir%/cmd-cache.c \
	%reldir%/cmd-export.c \
	%reldir%/cmd-import.c \
	%reldir%/cmd-log.c \
	%reldir%/cmd-mailbox.c \
	%reldir%/cmd-node.c \
	%reldir%/cmd-scrub.c \
	%reldir%/cmd-store.c \
	%reldir%/cmd-store-bench.c \
	%reldir%/cmd-upkeep.c \
	%reldir%/cmd-user.c \
	%reldir%/ctl.h \
	%reldir%/culverctl.c \
	%reldir%/local.c \
	%reldir%/output.c \
	%reldir%/store.h
culverctl_LDADD = daemon/admin/libadmin.a daemon/libdaemon.a fscache/libfscache.a daemon/imap/libimap.a daemon/libauth.a $(METACACHE_LIBS) $(OPENSSL_LIBS) $(SQLITE_LIBS) $(CRYPT_LIBS) $(JANSSON_LIBS)
