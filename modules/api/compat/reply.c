/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * reply.c - the answer on its way: whole, or a stream that begins with its first text.
 */
#include "api/compat/compat.h"

static void
begin(struct request *r)
{
	if (r->stream)
		return;
	request_stream(r, STR_NONE);
	compat_of(r)->shape->begin(r);
}

static void
on_wait(void *arg)
{
	struct request *r = arg;

	begin(r);
	request_comment(r, "keep-alive");
}

void
reply_wait(struct request *r)
{
	ev_timer_init(&r->timer, on_wait, r);
	if (compat_of(r)->ask.stream)
		ev_timer_in(r->a->ev, &r->timer, GATEWAY_PING_US);
}

void
reply_text(struct request *r, struct str delta)
{
	if (!compat_of(r)->ask.stream || delta.n == 0)
		return;
	begin(r);
	compat_of(r)->shape->text(r, delta);
}

void
reply_done(struct request *r, const struct answer *a)
{
	const struct compat *c = compat_of(r);
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX);

	if (c->ask.stream) {
		begin(r);
		c->shape->end(r, a);
		request_end(r);
		return;
	}
	c->shape->whole(r, a, &b);
	request_answer_buf(r, 200, OK, &b);
	buf_free(&b);
}

void
reply_fail(struct request *r, int status, const char *code, struct str message)
{
	struct buf b = BUF_INIT(64u << 10);
	char text[1024];

	snprintf(text, sizeof(text), "%.*s", STR_ARG(utf8_prefix(message, sizeof(text) - 1)));
	if (!r->stream) {
		request_error(r, status, code, NULL, NULL, "%s", text);
		return;
	}
	request_error_json(r, &b, status, code, NULL, NULL, text);
	if (b.err == OK)
		compat_of(r)->shape->fail(r, buf_view(&b));
	else
		conn_drop(r->c);
	buf_free(&b);
	request_end(r);
}

void
reply_usage(struct jw *w, const struct usage *u, const char *in, const char *out)
{
	int64_t prompt = u->input + u->cache_read + u->write_5m + u->write_1h;
	char details[64];

	jw_obj(w);
	jw_ki64(w, in, prompt);
	snprintf(details, sizeof(details), "%s_details", in);
	jw_key(w, details);
	jw_obj(w);
	jw_ki64(w, "cached_tokens", u->cache_read);
	jw_ki64(w, "cache_write_tokens", u->write_5m + u->write_1h);
	jw_end_obj(w);
	jw_ki64(w, out, u->output);
	snprintf(details, sizeof(details), "%s_details", out);
	jw_key(w, details);
	jw_obj(w);
	jw_ki64(w, "reasoning_tokens", 0);
	jw_end_obj(w);
	jw_ki64(w, "total_tokens", prompt + u->output);
	jw_end_obj(w);
}
