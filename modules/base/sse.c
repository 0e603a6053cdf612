/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sse.c - event-stream splitter (server-sent events, client side).
 *
 * Bytes come in pieces of any size, cut anywhere: inside a BOM, a CRLF, a code
 * point. Three small states carry over from one piece to the next: how much of
 * a BOM has been seen, whether the last byte was a CR (its LF may still come),
 * and the unfinished line. A line that lies whole inside a piece is read where
 * it is; only a line cut by the end of a piece is copied.
 *
 * The id of an event counts from its blank line on, even if the event has no
 * data and is dropped: hence id_pending and id are two buffers. The bytes are
 * handed on as they came; whoever reads the data validates its UTF-8.
 */
#include "base/sse.h"

#define LINE_MAX_BYTES (SSE_EVENT_MAX + 16) /* the longest field name, ": " and the data */

static const char bom_bytes[3] = "\xEF\xBB\xBF";

void
sse_init(struct sse *s)
{
	*s = (struct sse){ .retry_ms = -1 };
	buf_init(&s->line, LINE_MAX_BYTES);
	buf_init(&s->data, SSE_EVENT_MAX);
	buf_init(&s->type, SSE_NAME_MAX);
	buf_init(&s->id, SSE_NAME_MAX);
	buf_init(&s->id_pending, SSE_NAME_MAX);
}

static void
each_buf(struct sse *s, void (*fn)(struct buf *b))
{
	struct buf *all[] = { &s->line, &s->data, &s->type, &s->id, &s->id_pending };

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		fn(all[i]);
}

void
sse_free(struct sse *s)
{
	each_buf(s, buf_free);
}

void
sse_reset(struct sse *s)
{
	each_buf(s, buf_reset);
	s->cr = s->started = s->have_data = false;
	s->bom = 0;
	s->retry_ms = -1;
	s->err = OK;
}

static void
set(struct buf *b, struct str value)
{
	buf_reset(b);
	buf_str(b, value);
}

static void
dispatch(struct sse *s, sse_fn *fn, void *arg)
{
	set(&s->id, buf_view(&s->id_pending));
	if (s->have_data && s->id.err == OK)
		fn(arg, s->type.n ? buf_view(&s->type) : S("message"),
		    buf_view(&s->data), buf_view(&s->id));
	buf_reset(&s->data);
	buf_reset(&s->type);
	s->have_data = false;
}

static void
field(struct sse *s, struct str name, struct str value)
{
	int64_t ms;

	if (str_eqz(name, "data")) {
		if (s->have_data)
			buf_putc(&s->data, '\n');
		buf_str(&s->data, value);
		s->have_data = true;
	} else if (str_eqz(name, "event")) {
		set(&s->type, value);
	} else if (str_eqz(name, "id") && str_chr(value, '\0') == SIZE_MAX) {
		set(&s->id_pending, value);
	} else if (str_eqz(name, "retry") && str_chr(value, '-') == SIZE_MAX) {
		if (str_i64(value, 0, INT64_MAX, &ms) == OK)
			s->retry_ms = ms;
	}
}

static void
take_line(struct sse *s, struct str line, sse_fn *fn, void *arg)
{
	struct str name;

	if (line.n == 0) {
		dispatch(s, fn, arg);
		return;
	}
	if (str_cut(&line, ':', &name) && line.n && line.p[0] == ' ')
		line = str_sub(line, 1, line.n);
	if (name.n)             /* a line that starts with a colon is a comment */
		field(s, name, line);
}

/* Eats the BOM, or gives back to the line what only looked like one. */
static struct str
skip_bom(struct sse *s, struct str bytes)
{
	while (!s->started && bytes.n) {
		if (bytes.p[0] == bom_bytes[s->bom]) {
			bytes = str_sub(bytes, 1, bytes.n);
			s->started = ++s->bom == sizeof(bom_bytes);
		} else {
			buf_put(&s->line, bom_bytes, s->bom);
			s->started = true;
		}
	}
	return bytes;
}

enum err
sse_feed(struct sse *s, struct str bytes, sse_fn *fn, void *arg)
{
	struct str rest = skip_bom(s, bytes), line;

	while (s->err == OK && rest.n) {
		size_t n = s->cr && rest.p[0] == '\n';

		rest = str_sub(rest, n, rest.n);        /* the LF of a CRLF cut in two */
		for (n = 0; n < rest.n && rest.p[n] != '\n' && rest.p[n] != '\r'; n++)
			;
		line = str_sub(rest, 0, n);
		s->cr = n < rest.n && rest.p[n] == '\r';
		if (s->line.n || n == rest.n) {
			buf_str(&s->line, line);
			line = buf_view(&s->line);
		}
		if (n < rest.n && s->line.err == OK) {
			take_line(s, line, fn, arg);
			buf_reset(&s->line);
		}
		rest = str_sub(rest, n + 1, rest.n);
		/* The buffers are sticky; the stream fails with the first of them. */
		s->err = s->line.err ? s->line.err : s->data.err ? s->data.err :
		    s->type.err ? s->type.err : s->id.err ? s->id.err : s->id_pending.err;
	}
	return s->err;
}
