/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_http.c - however a connection is cut, the same requests come out; nothing comes after a
 * refusal; a body has the length that was announced; what is accepted keeps the rules.
 */
#include "base/http.h"

#define BODY_MAX 100000u
#define TEXT_MAX ((size_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool good)
{
	if (!good)
		abort();
}

static void
check_head(const struct http_request *r)
{
	struct http_field f;
	unsigned hosts = 0, framings = 0;
	size_t at = 0, n = 0;

	while (http_field_next(r, &at, &f)) {
		n++;
		hosts += str_ieq(f.name, S("host"));
		framings += str_ieq(f.name, S("content-length"));
		framings += str_ieq(f.name, S("transfer-encoding"));
		require(f.name.n && str_chr(f.name, ' ') == SIZE_MAX);
		require(str_chr(f.value, '\r') == SIZE_MAX && str_chr(f.value, '\n') == SIZE_MAX);
	}
	require(n <= HTTP_FIELDS_MAX && at == r->fields.n);
	require(hosts <= 1 && (hosts == 1 || r->minor == 0) && framings <= 1);
	require(framings == (r->chunked || r->content_length >= 0));
	require(r->content_length <= (int64_t)BODY_MAX && r->target.n <= HTTP_TARGET_MAX);
	require(r->path.n && str_chr(r->target, ' ') == SIZE_MAX);
}

/* What a caller would do with a request: none of it may depend on more than its text. */
static void
use_head(const struct http_request *r, struct buf *out)
{
	struct buf b = BUF_INIT(2 * HTTP_HEAD_MAX);
	struct trace trace;
	enum err e = http_path_decode(r->path, &b);

	require(e != OK || (str_starts(buf_view(&b), S("/")) && !str_ends(buf_view(&b), S("/.."))));
	buf_fmt(out, "%s %.*s ", err_str(e), STR_ARG(buf_view(&b)));
	buf_reset(&b);
	e = http_query(r->query, "a", &b);
	buf_fmt(out, "%s %.*s ", err_str(e), STR_ARG(buf_view(&b)));
	buf_reset(&b);
	e = http_query_known(r->query, "a limit", &b);
	require((e == OK) == (b.n == 0));
	buf_fmt(out, "%.*s %d ", STR_ARG(buf_view(&b)), trace_parse(http_field(r, "traceparent"), &trace));
	buf_free(&b);
	buf_fmt(out, "%d %d %d\n", http_accepts(r, "Accept", "text/event-stream"),
	    http_accepts(r, "Accept-Encoding", "gzip"), http_list_has(r, "Connection", "close"));
}

struct state {
	struct buf text;
	uint64_t body_n;
	bool in_body, bad;
};

static void
note(struct state *s, const struct http *h, enum http_event e, struct str body)
{
	const struct http_request *r = &h->req;

	require(!s->bad || e == HTTP_BAD);
	switch (e) {
	case HTTP_MORE:
		break;
	case HTTP_HEAD:
		require(!s->in_body);
		s->in_body = true;
		s->body_n = 0;
		check_head(r);
		buf_fmt(&s->text, "%.*s|%.*s|%.*s|%d|%lld|%d%d%d%d\n%.*s", STR_ARG(r->method),
		    STR_ARG(r->target), STR_ARG(r->host), r->minor, (long long)r->content_length,
		    r->chunked, r->keep_alive, r->expect_continue, r->upgrade_websocket,
		    STR_ARG(r->fields));
		use_head(r, &s->text);
		break;
	case HTTP_BODY:
		require(s->in_body && body.n);
		s->body_n += body.n;
		require(s->body_n <= BODY_MAX);
		buf_str(&s->text, body);
		break;
	case HTTP_END:
		require(s->in_body);
		s->in_body = false;
		require(r->chunked || s->body_n == 0 || s->body_n == (uint64_t)r->content_length);
		require(r->chunked || s->body_n > 0 || r->content_length <= 0);
		buf_fmt(&s->text, "\nend of %.*s\n", STR_ARG(r->target));
		break;
	case HTTP_BAD:
		require(h->status >= 400 && *h->why);
		if (!s->bad)
			buf_fmt(&s->text, "\n%d %s\n", h->status, h->why);
		s->bad = true;
		break;
	}
	require(h->head.n <= HTTP_HEAD_MAX && h->extra.n <= 2 * HTTP_EXTRA_MAX);
}

/* Each piece is a copy of its own: a view kept too long is a read of freed memory. */
static void
feed(struct http *h, struct str piece, struct state *s)
{
	char *copy = malloc(piece.n + 1);
	struct str in = str_make(copy, piece.n), body;
	enum http_event e = HTTP_BODY;
	bool was_bad = s->bad;

	require(copy != NULL);
	if (piece.n)
		memcpy(copy, piece.p, piece.n);
	while (e != HTTP_MORE && e != HTTP_BAD) {
		struct str before = in;

		e = http_next(h, &in, &body);
		require(in.n <= before.n && in.p + in.n == before.p + before.n);
		note(s, h, e, body);
	}
	require(in.n == 0 || e == HTTP_BAD);
	require(!was_bad || in.n == piece.n);
	free(copy);
}

/* Pieces of up to `most` octets, their lengths drawn from the octets themselves; 0: whole. */
static void
run(struct str bytes, size_t most, struct state *s)
{
	struct http h;
	uint32_t chance = 1;

	http_init(&h, BODY_MAX);
	while (bytes.n) {
		size_t n = bytes.n;

		chance = chance * 1664525u + 1013904223u + (unsigned char)bytes.p[0];
		if (most)
			n = (chance >> 16) % most + 1;
		feed(&h, str_sub(bytes, 0, n), s);
		bytes = str_sub(bytes, n, bytes.n);
	}
	http_free(&h);
}

/* The last octet of the input says how long the pieces may be. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state whole = { .text = BUF_INIT(TEXT_MAX) }, cut = { .text = BUF_INIT(TEXT_MAX) };
	struct str bytes = str_make((const char *)data, size);

	run(bytes, 0, &whole);
	run(bytes, size ? data[size - 1] % 32u + 1 : 1, &cut);
	require(str_eq(buf_view(&whole.text), buf_view(&cut.text)));
	require(whole.bad == cut.bad && whole.in_body == cut.in_body);
	buf_free(&whole.text);
	buf_free(&cut.text);
	return 0;
}
