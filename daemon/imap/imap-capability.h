/* imap-capability - what Culver's IMAP server says of itself.
 *
 * One list for the gate (before the login) and the engine (after it), so that
 * both agree.  The gate adds what depends on the connection behind
 * IMAP_CAPS_BEFORE: " STARTTLS", " LOGINDISABLED", " AUTH=PLAIN"...
 * RFC 9051 section 6.1.1: every capability that holds after the login may be
 * announced only then; RFC 7889: APPENDLIMIT carries the limit in octets. */
#ifndef DAEMON_IMAP_IMAP_CAPABILITY_H
#define DAEMON_IMAP_IMAP_CAPABILITY_H

#define IMAP_CAPS_BEFORE "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE IDLE"

/* Followed by " APPENDLIMIT=<octets>". */
#define IMAP_CAPS_AFTER \
	"IMAP4rev1 IMAP4rev2 LITERAL+ ID ENABLE IDLE NAMESPACE UNSELECT UIDPLUS MOVE CHILDREN " \
	"SPECIAL-USE CREATE-SPECIAL-USE LIST-EXTENDED LIST-STATUS STATUS=SIZE ESEARCH SEARCHRES WITHIN " \
	"CONDSTORE QRESYNC BINARY MULTIAPPEND SAVEDATE PREVIEW"

#endif
