# Tests of imap
