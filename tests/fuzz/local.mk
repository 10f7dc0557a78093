# Fuzz targets.  In the ordinary build each is linked with replay.c and runs
# over tests/fuzz/corpus/<name>; with --enable-fuzzing it is a libFuzzer
# program.  A new one: two lines here (sources, libraries) and its name below.
fuzz_targets = %reldir%/fuzz_fscache %reldir%/fuzz_gate %reldir%/fuzz_imap %reldir%/fuzz_imap_session %reldir%/fuzz_lmtp %reldir%/fuzz_metacache %reldir%/fuzz_metadisk %reldir%/fuzz_mime %reldir%/fuzz_mime_text %reldir%/fuzz_node %reldir%/fuzz_obox %reldir%/fuzz_pop3 %reldir%/fuzz_s3_xml %reldir%/fuzz_settings %reldir%/fuzz_sproxyd
check_PROGRAMS += $(fuzz_targets)
EXTRA_DIST += %reldir%/corpus
if FUZZING
fuzz_main =
fuzz_link = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
else
fuzz_main = %reldir%/replay.c
fuzz_link = $(AM_LDFLAGS)
TESTS += $(fuzz_targets)
endif

%canon_reldir%_fuzz_fscache_SOURCES = %reldir%/fuzz_fscache.c $(fuzz_main)
%canon_reldir%_fuzz_fscache_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_fscache_LDADD = $(FSCACHE_LIBS) $(SODIUM_LIBS)

%canon_reldir%_fuzz_metacache_SOURCES = %reldir%/fuzz_metacache.c $(fuzz_main)
%canon_reldir%_fuzz_metacache_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_metacache_LDADD = $(METACACHE_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS)

%canon_reldir%_fuzz_metadisk_SOURCES = %reldir%/fuzz_metadisk.c $(fuzz_main)
%canon_reldir%_fuzz_metadisk_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_metadisk_LDADD = metacache/libmetadisk.a $(OBOX_LIBS) $(SQLITE_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS)

%canon_reldir%_fuzz_mime_SOURCES = %reldir%/fuzz_mime.c $(fuzz_main)
%canon_reldir%_fuzz_mime_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_mime_LDADD = $(MIME_LIBS)

%canon_reldir%_fuzz_mime_text_SOURCES = %reldir%/fuzz_mime_text.c $(fuzz_main)
%canon_reldir%_fuzz_mime_text_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_mime_text_LDADD = $(MIME_LIBS)

%canon_reldir%_fuzz_imap_SOURCES = %reldir%/fuzz_imap.c $(IMAP_HARNESS) $(fuzz_main)
%canon_reldir%_fuzz_imap_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_imap_LDADD = $(IMAP_LIBS)

%canon_reldir%_fuzz_imap_session_SOURCES = %reldir%/fuzz_imap_session.c $(IMAP_HARNESS) $(fuzz_main)
%canon_reldir%_fuzz_imap_session_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_imap_session_LDADD = $(IMAP_LIBS)

%canon_reldir%_fuzz_obox_SOURCES = %reldir%/fuzz_obox.c $(fuzz_main)
%canon_reldir%_fuzz_obox_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_obox_LDADD = $(OBOX_LIBS) $(OPENSSL_LIBS) $(SODIUM_LIBS)
%canon_reldir%_fuzz_lmtp_SOURCES = %reldir%/fuzz_lmtp.c tests/daemon/engine.h $(IMAP_HARNESS) $(fuzz_main)
%canon_reldir%_fuzz_lmtp_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_lmtp_LDADD = daemon/lmtp/liblmtp.a $(IMAP_LIBS)

%canon_reldir%_fuzz_pop3_SOURCES = %reldir%/fuzz_pop3.c tests/daemon/engine.h $(IMAP_HARNESS) $(fuzz_main)
%canon_reldir%_fuzz_pop3_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_pop3_LDADD = daemon/pop3/libpop3.a $(IMAP_LIBS)

%canon_reldir%_fuzz_settings_SOURCES = %reldir%/fuzz_settings.c $(fuzz_main)
%canon_reldir%_fuzz_settings_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_settings_LDADD = $(AUTH_LIBS)

%canon_reldir%_fuzz_gate_SOURCES = %reldir%/fuzz_gate.c $(fuzz_main)
%canon_reldir%_fuzz_gate_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_gate_LDADD = $(DAEMON_LIBS)

%canon_reldir%_fuzz_node_SOURCES = %reldir%/fuzz_node.c $(fuzz_main)
%canon_reldir%_fuzz_node_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_node_LDADD = $(DAEMON_LIBS)

%canon_reldir%_fuzz_s3_xml_SOURCES = %reldir%/fuzz_s3_xml.c $(fuzz_main)
%canon_reldir%_fuzz_s3_xml_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_s3_xml_LDADD = $(OBJSTORE_LIBS)

%canon_reldir%_fuzz_sproxyd_SOURCES = %reldir%/fuzz_sproxyd.c $(fuzz_main)
%canon_reldir%_fuzz_sproxyd_LDFLAGS = $(fuzz_link)
%canon_reldir%_fuzz_sproxyd_LDADD = $(OBJSTORE_LIBS) $(SODIUM_LIBS)
