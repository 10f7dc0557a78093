include daemon/lmtp/local.mk
include daemon/pop3/local.mk

# All of culverd but main(), and the user database, which culverctl uses too.
noinst_LIBRARIES += %reldir%/libdaemon.a %reldir%/libauth.a
%canon_reldir%_libauth_a_SOURCES = \
	%reldir%/auth-db.c %reldir%/auth-db.h \
	%reldir%/auth-hash.c \
	%reldir%/conf.c %reldir%/conf.h \
	%reldir%/stores.c %reldir%/stores.h
%canon_reldir%_libdaemon_a_SOURCES = \
	%reldir%/auth.c \
	%reldir%/auth-cache.c %reldir%/auth-cache.h \
	%reldir%/chan.c %reldir%/chan.h \
	%reldir%/conn.h \
	%reldir%/deliver.c %reldir%/deliver.h \
	%reldir%/gate.c %reldir%/gate.h \
	%reldir%/gate-accept.c \
	%reldir%/gate-imap.c \
	%reldir%/gate-limit.c \
	%reldir%/gate-login.c \
	%reldir%/gate-pop3.c \
	%reldir%/gate-relay.c \
	%reldir%/gate-sandbox.c \
	%reldir%/gate-tls.c \
	%reldir%/lurk.c %reldir%/lurk.h %reldir%/loop.c %reldir%/loop.h \
	%reldir%/master.c %reldir%/master.h \
	%reldir%/master-child.c \
	%reldir%/master-listen.c \
	%reldir%/msg.c %reldir%/msg.h \
	%reldir%/node.h %reldir%/node-accept.c \
	%reldir%/node-link.c %reldir%/node-link.h \
	%reldir%/node-peer.c \
	%reldir%/node-proto.c \
	%reldir%/node-relay.c %reldir%/node-relay.h \
	%reldir%/node-serve.c \
	%reldir%/node-stream.c %reldir%/node-stream.h \
	%reldir%/notify.c \
	%reldir%/pool.c %reldir%/pool.h \
	%reldir%/proc.c %reldir%/proc.h \
	%reldir%/worker.c %reldir%/worker.h \
	%reldir%/worker-deliver.c \
	%reldir%/worker-known.c \
	%reldir%/worker-peer.c \
	%reldir%/session.h %reldir%/worker-session.c \
	%reldir%/worker-sessions.c

AUTH_LIBS = daemon/libauth.a $(BASE_LIBS) $(SQLITE_LIBS) $(CRYPT_LIBS)
DAEMON_LIBS = daemon/libdaemon.a daemon/imap/libimap.a daemon/lmtp/liblmtp.a daemon/pop3/libpop3.a daemon/admin/libadmin.a \
	daemon/libauth.a fscache/libfscache.a metacache/libmetadisk.a $(METACACHE_LIBS) $(OPENSSL_LIBS) $(SECCOMP_LIBS) $(SQLITE_LIBS) $(CRYPT_LIBS)

sbin_PROGRAMS += culverd
culverd_SOURCES = %reldir%/main.c
culverd_LDADD = $(DAEMON_LIBS)
