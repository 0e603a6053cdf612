/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * list.c - lists in pages: what a request's query asks for, and the answer around the items.
 *
 *   if (list_begin(&l, r, "things", false))
 *           list_answer(&l, store_things(…, &l.page, put_thing, &l));
 *   buf_free(&l.b);
 *
 * put_thing calls list_item first and stops where that says that the page is full. A cursor is
 * the id of the last item, so it stays good whatever is added or removed meanwhile.
 */
#include "channel/gateway/gateway.h"

#define PAGE_MAX 1000                   /* items of one answer */
#define PAGE_USUAL 100
#define PAGE_BYTES (1u << 20)           /* or so many: the next item begins another one */
#define ITEM_BYTES (6u * REPLY_MAX + 1024u)     /* the longest text, escaped */

static bool
page_number(struct request *r, const char *name, int64_t max, int64_t *out)
{
	struct buf value = BUF_INIT(HTTP_TARGET_MAX);
	enum err e = http_query(request_head(r)->query, name, &value);
	bool good = e == ERR_NOTFOUND || (e == OK && str_i64(buf_view(&value), 1, max, out) == OK);

	buf_free(&value);
	if (!good)
		request_error(r, 400, "invalid_request", name, NULL, "%s has to be a whole number from 1 to %lld, given once", name,
		    (long long)max);
	return good;
}

bool
list_begin(struct list *l, struct request *r, const char *name, bool newest_first)
{
	struct str query = request_head(r)->query;
	struct buf word = BUF_INIT(64);
	bool good = http_query_known(query, "limit order after", &word) == OK;
	enum err e = ERR_NOTFOUND;

	*l = (struct list){ .r = r, .page.newest_first = newest_first, .left = PAGE_USUAL, .b = BUF_INIT(PAGE_BYTES + ITEM_BYTES) };
	if (!good)
		request_error(r, 400, "invalid_request", buf_z(&word), NULL, "%s is not known here: limit, order and after are",
		    buf_z(&word));
	else
		e = http_query(query, "order", &word);
	if (good && e == OK && (str_eqz(buf_view(&word), "asc") || str_eqz(buf_view(&word), "desc"))) {
		l->page.newest_first = str_eqz(buf_view(&word), "desc");
	} else if (good && e != ERR_NOTFOUND) {
		good = false;
		request_error(r, 400, "invalid_request", "order", NULL, "order is asc or desc, given once");
	}
	buf_free(&word);
	good = good && page_number(r, "limit", PAGE_MAX, &l->left) && page_number(r, "after", INT64_MAX, &l->page.after);
	jw_init(&l->w, &l->b);
	jw_obj(&l->w);
	jw_key(&l->w, name);
	jw_arr(&l->w);
	return good;
}

void
list_put_id(struct jw *w, const char *key, int64_t id)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)id);
	jw_kz(w, key, text);
}

bool
list_item(struct list *l, int64_t id)
{
	l->more = l->left == 0 || l->b.n >= PAGE_BYTES;
	if (l->more)
		return false;
	l->left--;
	l->last = id;
	jw_obj(&l->w);
	list_put_id(&l->w, "id", id);
	return true;
}

void
list_close(struct list *l)
{
	char next[24];

	l->closed = true;
	snprintf(next, sizeof(next), "%lld", (long long)l->last);
	jw_end_arr(&l->w);
	jw_kbool(&l->w, "has_more", l->more);
	jw_kz(&l->w, "next", l->more ? next : NULL);
}

void
list_answer(struct list *l, enum err e)
{
	if (!l->closed)
		list_close(l);
	jw_end_obj(&l->w);
	request_answer_buf(l->r, 200, e == OK ? jw_done(&l->w) : e, &l->b);
}
