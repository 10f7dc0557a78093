/* The log, readable: its segments with their records, oldest first.  What lies
 * between them and is void (load.c) is named as such, without its records:
 * nothing of it ever happened. */
#include "obox/obox-private.h"

#include <inttypes.h>

struct segment {
	char *key;
	unsigned char hash[32], prev[32];
	uint64_t seq;
	bool readable, member;
};

struct showing {
	struct obox *ob;
	struct segment *list;
	size_t n, cap;
};

static int note_segment(void *ctx, const struct objstore_list_item *item)
{
	struct showing *w = ctx;

	mem_grow(&w->list, &w->cap, w->n + 1, sizeof(*w->list));
	w->list[w->n++] = (struct segment){ .key = mem_strdup(item->key) };
	return 0;
}

static void read_heads(struct showing *w)
{
	size_t i;

	for (i = 0; i < w->n; i++) {
		struct segment *g = &w->list[i];
		struct buf plain = BUF_INIT(OBOX_BUNDLE_MAX);
		uint64_t epoch, first, count;
		const unsigned char *prev;
		struct err e = ERR_INIT;
		struct rd r;
		int rc = bundle_get(w->ob, g->key, &plain, g->hash, &e);

		r = rd_init(plain.data, plain.len);
		if (rc == 0 && segment_decode_head(&r, &g->seq, &epoch, &first, &count, &prev, &e) == 0) {
			memcpy(g->prev, prev, sizeof(g->prev));
			g->readable = true;
		}
		buf_free(&plain);
	}
}

/* From what root names back as far as there are segments; those that one cannot read end it: then nothing before them is judged. */
static void follow(struct showing *w, const unsigned char *want)
{
	size_t i = w->n;

	while (i-- > 0) {
		struct segment *g = &w->list[i];

		if (!g->readable) {
			for (i++; i-- > 0;)
				w->list[i].member = true;
			return;
		}
		g->member = !memcmp(g->hash, want, 32);
		if (g->member)
			want = g->prev;
	}
}

static int show(struct showing *w, const struct segment *g, uint64_t last, bool json, struct buf *out, struct err *err)
{
	const char *kind = g->seq > last ? "log segment that root does not name" : "void log segment";

	if (g->member)
		return obox_dump(w->ob, g->key, json, out, err);
	if (json)
		buf_addf(out, "{\"kind\": \"%s\", \"object\": \"%s\"}\n", kind, g->key);
	else
		buf_addf(out, "%s: %s: nothing of it is part of the log%s\n", kind, g->key,
			 g->seq > last ? " so far" : "; an owner who was taken over left it, or a taker who was overtaken");
	return 0;
}

static void showing_end(struct showing *w)
{
	while (w->n)
		free(w->list[--w->n].key);
	free(w->list);
}

int obox_log_show(struct obox *ob, const char *user, bool json, int (*fn)(void *ctx, const char *text, size_t len), void *ctx, struct err *err)
{
	char *prefix = obox_user_prefix(ob->prefix, user), *log = mem_printf("%slog/", prefix), etag[OBJ_ETAG_MAX];
	struct showing w = { .ob = ob };
	struct manifest man;
	bool root = root_get(ob, prefix, &man, etag, NULL) == 1;	/* before the list, so that what it names is there */
	int rc = objstore_each(ob->cfg.index_store, log, note_segment, &w, err);
	size_t i;

	if (rc == 0)
		read_heads(&w);
	if (root)
		follow(&w, man.log_hash);
	for (i = 0; rc == 0 && i < w.n; i++) {
		struct buf out = BUF_INIT(0);

		w.list[i].member |= !root;	/* who can say? */
		rc = show(&w, &w.list[i], root ? man.log_seq : UINT64_MAX, json, &out, err);
		if (rc == 0)
			rc = fn(ctx, buf_str(&out), out.len);
		buf_free(&out);
	}
	showing_end(&w);
	free(log);
	free(prefix);
	return rc;
}
