/* settings - one table of options makes the parser, the defaults, the print
 * of what is in force and the reference page.
 *
 * A file reads  key = value  /  name title { ... }  /  include("file")  with
 * # comments; an include is relative to the file it stands in.  Every value
 * is checked while the file is read, so each complaint has its file and line.
 * Knows nothing of what the options mean.
 *
 * Units:   sizes are octets ("64K", "100M", "2G": powers of 1024); times are
 *          kept in milliseconds ("250ms", "30s", "10m", "12h", "7d", "2w"; a
 *          bare number is seconds).
 * Threads: one load at a time in a process (libconfuse's lexer is global);
 *          what was loaded is plain data.
 * Blocks:  on the disk while loading. */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum set_type {
	SET_END,
	SET_STRING,	/* char * */
	SET_LIST,	/* struct set_list */
	SET_UINT,	/* uint64_t */
	SET_SIZE,	/* uint64_t, octets */
	SET_TIME,	/* uint64_t, milliseconds */
	SET_BOOL,	/* bool */
	SET_CHOICE,	/* unsigned: index into choices */
	SET_SECTION,	/* a struct at off, described by sub */
	SET_SECTIONS	/* struct set_sections: any number, each with a title */
};

struct set_list { char **v; size_t n; };
struct set_sections { void *v; size_t n; };	/* n structs of sub_size bytes, in file order */
/* What every struct of a SET_SECTIONS begins with. */
struct set_head {
	char *name;		/* the title */
	char *file;		/* where it stands */
	unsigned line;
};

/* One row; a table ends with SET_END.  Sections do not nest. */
struct set_opt {
	const char *name;
	enum set_type type;
	size_t off;			/* of the field in the caller's struct */
	const char *def;		/* as it would be written in a file; lists: one value or "" for none */
	uint64_t min, max;		/* of numbers, sizes (octets) and times (ms); both 0 = any */
	const char *const *choices;	/* SET_CHOICE: NULL-terminated */
	const struct set_opt *sub;
	size_t sub_size;
	const char *doc;		/* sentences for the reference page */
	const char *doc_def;		/* the default there, when def depends on the build */
};

/* Reads path into out (a zeroed struct), defaults filled in.  0, or
 * ERR_INVALID with one "file:line: text" line for each mistake in complaints
 * (out then holds what could be read).  Free with settings_free either way. */
int settings_load(const struct set_opt *table, const char *path, void *out, struct buf *complaints);
/* The same from a text; name stands for the file in complaints and includes. */
int settings_parse(const struct set_opt *table, const char *name, const char *text, void *out, struct buf *complaints);
void settings_free(const struct set_opt *table, void *out);
/* Appends settings as a file that reads back the same.  changed: only what differs from the defaults. */
void settings_print(const struct set_opt *table, const void *in, bool changed, struct buf *out);
/* Appends the reference of all options as man(7) source. */
void settings_doc(const struct set_opt *table, struct buf *out);

/* 0, or -1 when text is not a size, a time or is out of range. */
int settings_parse_size(const char *text, uint64_t *out_r);
int settings_parse_time(const char *text, uint64_t *ms_r);
void settings_add_size(struct buf *out, uint64_t octets);	/* "64K" */
void settings_add_time(struct buf *out, uint64_t ms);		/* "7d" */
/* The entry of names (NULL-terminated) nearest to word, or NULL when none is near enough to suggest. */
const char *settings_nearest(const char *word, const char *const *names);
#endif
