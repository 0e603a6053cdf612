/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tg_call.c - one request to the Bot API: JSON out, its answer in words of ours.
 */
#include "channel/telegram/tg.h"

#define TREE_FACTOR 16                      /* arena bytes for a byte of JSON */
#define BACKOFF_US (500 * US_PER_MS)        /* after the first failure, then doubled */
#define BACKOFF_MAX_US (60 * US_PER_S)

void
tg_call_drop(struct call *c)
{
	fetch_cancel(c->op);
	c->op = NULL;
	buf_free(&c->in);
	buf_free(&c->out);
}

static void
on_data(void *arg, struct fetch_op *op, struct str bytes)
{
	struct call *c = arg;

	(void)op;
	buf_str(&c->in, bytes);
}

static void
on_done(void *arg, struct fetch_op *op, const struct fetch_result *r)
{
	struct call *c = arg;
	struct buf in = c->in;          /* done() may free the call */
	struct arena ar = ARENA_INIT(in.max * TREE_FACTOR);
	struct answer a = { .why = str_z(r->why), .sent = r->sent };
	const struct json *v = NULL;

	(void)op;
	c->op = NULL;
	buf_init(&c->in, in.max);
	if (r->err == OK && in.err == OK && json_parse(&ar, buf_view(&in), &v, NULL) == OK) {
		a.result = json_at(v, "result");
		a.ok = json_bool(v, "ok", false) && a.result;
		a.code = (unsigned)json_i64(v, "error_code", r->status);
		a.why = json_str(v, "description", S("no reason given"));
		a.retry_s = json_i64(v, "parameters.retry_after", 0);
		a.moved_to = json_i64(v, "parameters.migrate_to_chat_id", 0);
	} else if (r->err == OK || r->err == ERR_LIMIT) {
		a.code = r->status == 200 ? 0 : r->status;
		if (a.code == 0 && ar.err != ERR_NOMEM && in.err != ERR_NOMEM)
			a.unreadable = buf_view(&in);
		a.why = S("the answer cannot be read");
	}
	if (a.code >= 400 && a.code < 500)
		a.sent = false;
	c->done(c, &a);
	arena_free(&ar);
	buf_free(&in);
}

/* Begins a request. */
struct jw *
tg_post(struct call *c)
{
	buf_reset(&c->out);
	jw_init(&c->w, &c->out);
	jw_obj(&c->w);
	return &c->w;
}

/* base + before + token + after: an address that holds the token, to be wiped. */
void
tg_address(struct tg *tg, struct buf *url, const char *before, const char *after)
{
	struct config *cf = tg->a->config;
	struct str base = config_str(cf, "telegram.api_base");
	struct str token = secret_reveal(config_secret(cf, "telegram.bot_token"));

	while (base.n && base.p[base.n - 1] == '/')
		base.n--;
	buf_fmt(url, "%.*s%s%.*s/%s", STR_ARG(base), before, STR_ARG(token), after);
}

/* Ends and sends it. once: libcurl may not repeat it by itself on a connection that proves dead. */
FALLIBLE
tg_api(struct call *c, const char *method, bool once, int64_t total_us,
    void (*done)(struct call *, const struct answer *))
{
	static const struct fetch_cb cb = { NULL, on_data, on_done };
	static const char *const headers[] = { "Content-Type: application/json", NULL };
	struct buf url = BUF_INIT(4096);
	enum err e;

	tg_address(c->tg, &url, "/bot", method);
	jw_end_obj(&c->w);
	e = jw_done(&c->w) == OK ? url.err : c->out.err;
	if (e == OK) {
		struct fetch_req req = { .method = "POST", .url = url.p, .headers = headers,
		    .body_take = &c->out, .idle_us = total_us, .total_us = total_us,
		    .body_max = c->in.max, .once = once };

		c->done = done;
		e = fetch_start(c->tg->a->fetch, &req, &cb, c, &c->op);
	}
	secret_wipe(url.p, url.n);
	buf_free(&url);
	return e;
}

/* How long to wait before asking again what has failed as often before. */
int64_t
tg_wait_us(const struct answer *r, int64_t failures)
{
	if (r->retry_s > 0 && r->retry_s < 86400)
		return r->retry_s * US_PER_S;
	if (r->code == 401 || r->code == 404 || failures > 6)
		return BACKOFF_MAX_US;
	return BACKOFF_US << failures;
}

