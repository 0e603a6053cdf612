/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * adapter.h - a provider's adapter with the network taken away: hear() plays an
 * answer to it, in pieces, and writes down what the agent would learn of it.
 * claude.h and openai.h bring the adapter itself, and what the configuration says.
 */
#ifndef BLUFIO_ADAPTER_H
#define BLUFIO_ADAPTER_H

#include "core/core.h"

static const struct feature *adapter;
static const char *adapter_name, *adapter_model;

struct fetch_op {
	struct fetch_cb cb;
	void *arg;
	const char *retry_after, *should_retry;
	const char *const *headers;     /* name, value, …, NULL */
	bool paused;
};
static struct fetch_op *peer_fetch;             /* the one that is open, or NULL */
static struct buf peer_body = BUF_INIT(REQUEST_MAX);
static char peer_url[256];                      /* of the newest request */

enum err
fetch_start(struct fetch *f, const struct fetch_req *req, const struct fetch_cb *cb, void *arg,
    struct fetch_op **out)
{
	struct fetch_op *op = calloc(1, sizeof(*op));
	char block[512];
	size_t n;

	(void)f;
	if (op == NULL)
		return ERR_NOMEM;
	buf_reset(&peer_body);
	snprintf(peer_url, sizeof(peer_url), "%s %s", req->method, req->url);
	while (req->body_from && body_read(req->body_from, block, sizeof(block), &n) == OK && n)
		buf_put(&peer_body, block, n);
	if (req->body_from)
		body_free(req->body_from);
	op->cb = *cb;
	op->arg = arg;
	*out = peer_fetch = op;
	return OK;
}

void
fetch_cancel(struct fetch_op *op)
{
	if (op && op == peer_fetch)
		peer_fetch = NULL;
	free(op);
}

struct str
fetch_header(const struct fetch_op *op, const char *name)
{
	for (size_t i = 0; op->headers && op->headers[i]; i += 2)
		if (strcmp(name, op->headers[i]) == 0)
			return str_z(op->headers[i + 1]);
	if (strcmp(name, "retry-after") == 0)
		return str_z(op->retry_after);
	if (strcmp(name, "x-should-retry") == 0)
		return str_z(op->should_retry);
	return strcmp(name, "request-id") == 0 ? S("req_1") : STR_NONE;
}

void
fetch_pause(struct fetch_op *op, bool paused)
{
	op->paused = paused;
}

/* Files live nowhere here: the hash is the path. */
enum err
media_path(struct agent *a, struct str hash, struct buf *path)
{
	(void)a;
	buf_str(path, hash);
	return path->err;
}

/* ---- what was heard ---------------------------------------------------------------- */

struct heard {
	int done;                       /* calls of the sink */
	enum llm_class class;
	enum llm_stop stop;
	unsigned status;
	int64_t retry_after_us;
	struct usage usage;
	bool usage_known;
	struct buf text, content, detail;
};

static void
heard_text(void *arg, struct str delta)
{
	buf_str(&((struct heard *)arg)->text, delta);
}

static void
heard_done(void *arg, const struct llm_result *r)
{
	struct heard *h = arg;

	h->done++;
	h->class = r->class;
	h->stop = r->stop;
	h->status = r->status;
	h->retry_after_us = r->retry_after_us;
	h->usage = r->usage;
	h->usage_known = r->usage_known;
	buf_str(&h->content, r->content);
	buf_str(&h->detail, r->detail);
}

static inline void
heard_free(struct heard *h)
{
	buf_free(&h->text);
	buf_free(&h->content);
	buf_free(&h->detail);
}

struct answer {
	unsigned status;
	struct str body;
	size_t piece;                   /* bytes of each piece; 0 = everything at once */
	const char *retry_after, *should_retry;
	const char *const *headers;     /* name, value, …, NULL */
	bool broken;                    /* the connection ends with an error */
};

/* Asks one question and plays an answer; what a is has ev and nothing else. */
static inline enum err
hear(struct ev *ev, const struct answer *in, struct heard *h)
{
	static const struct llm_message hello = { "user", { "[]", 2 }, false };
	static const struct llm_sink sink = { heard_text, heard_done };
	const struct llm_request req = { .reservation = 1, .model = adapter_model, .max_tokens = 100, .messages = &hello,
	    .n_messages = 1, .system = { "s", 1 } };
	struct agent a = { .ev = ev, .providers = { { .feature = adapter } } };
	struct fail f = FAIL_INIT;
	struct fetch_op *op;
	struct llm_call *call;
	struct str rest = in->body;
	size_t piece = in->piece ? in->piece : in->body.n;
	enum err e = adapter->provider->start(&a, adapter_name, &a.providers[0].self, &f);

	a.provider = a.providers;
	*h = (struct heard){ .text = BUF_INIT(REPLY_MAX), .content = BUF_INIT(REQUEST_MAX),
	    .detail = BUF_INIT(4096) };
	if (e != OK)
		return e;
	e = llm_start(&a, &req, &sink, h, &call);
	op = peer_fetch;
	if (e == OK) {
		const struct fetch_result r = { .err = in->broken ? ERR_CLOSED : OK, .status = in->status,
		    .sent = true, .why = in->broken ? "the connection broke" : "" };

		op->retry_after = in->retry_after;
		op->should_retry = in->should_retry;
		op->headers = in->headers;
		op->cb.on_head(op->arg, op, in->status);
		for (; rest.n; rest = str_sub(rest, piece, rest.n))
			op->cb.on_data(op->arg, op, str_sub(rest, 0, piece));
		op->cb.on_done(op->arg, op, &r);
		peer_fetch = NULL;
		free(op);
		e = ev_once(ev, 0);
		if (e != OK && !h->done)
			llm_cancel(call, NULL);
	}
	adapter->provider->free(a.providers[0].self);
	buf_free(&peer_body);
	return e;
}

#endif
