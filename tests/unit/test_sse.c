/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_sse.c - the event-stream splitter: conformance cases cut in three ways, limits. */
#include "test.h"

#include "base/json.h"
#include "base/sse.h"

#define DOC_MAX ((size_t)8 << 20)

/* Each event is written as "type|data|id;" in hexadecimal. */
static void
on_event(void *arg, struct str type, struct str data, struct str id)
{
	struct buf *out = arg;

	enc_hex(out, type.p, type.n);
	buf_putc(out, '|');
	enc_hex(out, data.p, data.n);
	buf_putc(out, '|');
	enc_hex(out, id.p, id.n);
	buf_putc(out, ';');
}

static void
expected(struct buf *out, const struct json *c)
{
	const struct json *events = json_get(c, S("events"));

	for (const struct json *e = events ? events->first : NULL; e; e = e->next)
		buf_fmt(out, "%.*s|%.*s|%.*s;", STR_ARG(json_str(e, "type_hex", STR_NONE)),
		    STR_ARG(json_str(e, "data_hex", STR_NONE)),
		    STR_ARG(json_str(e, "id_hex", STR_NONE)));
}

/* Feeds bytes in pieces of at most `piece`; s is used again and again, as a client would. */
static void
feed(struct sse *s, struct str bytes, size_t piece, struct buf *got)
{
	while (bytes.n) {
		CHECK_OK(sse_feed(s, str_sub(bytes, 0, piece), on_event, got));
		bytes = str_sub(bytes, piece, bytes.n);
	}
}

static bool
run_case(struct sse *s, const struct json *c)
{
	struct buf want = BUF_INIT(DOC_MAX), got = BUF_INIT(DOC_MAX), bytes = BUF_INIT(DOC_MAX);
	const struct json *chunks = json_get(c, S("chunks_hex"));
	bool good = true;

	expected(&want, c);
	for (int way = 0; way < 4; way++) {     /* as cut, whole, byte by byte, by three bytes */
		static const size_t pieces[] = { SIZE_MAX, SIZE_MAX, 1, 3 };

		buf_reset(&got);
		buf_reset(&bytes);
		sse_reset(s);
		for (const struct json *k = chunks ? chunks->first : NULL; k; k = k->next) {
			CHECK_OK(dec_hex(k->s, &bytes));
			if (way == 0) {
				feed(s, buf_view(&bytes), pieces[way], &got);
				buf_reset(&bytes);
			}
		}
		feed(s, buf_view(&bytes), pieces[way], &got);
		good = good && str_eq(buf_view(&want), buf_view(&got));
		if (json_get(c, S("retry_ms")))
			good = good && s->retry_ms == json_i64(c, "retry_ms", -2);
	}
	buf_free(&want);
	buf_free(&got);
	buf_free(&bytes);
	return good;
}

TEST(conformance)
{
	const char *path = test_data("sse/sse.jsonl");
	struct buf text = BUF_INIT(DOC_MAX);
	struct str rest, line;
	struct arena a = ARENA_INIT(DOC_MAX);
	struct sse s;
	unsigned cases = 0, good = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	sse_init(&s);
	CHECK_OK(file_read(path, DOC_MAX, &text, NULL));
	rest = buf_view(&text);
	while (rest.n && !FAULTED()) {
		const struct json *c = NULL;

		str_cut(&rest, '\n', &line);
		CHECK_OK(json_parse(&a, line, &c, NULL));
		/* A refused media type is the client's matter, not the splitter's. */
		if (c && !json_get(c, S("connection"))) {
			cases++;
			good += run_case(&s, c);
		}
		arena_reset(&a);
	}
	if (!FAULTED())
		printf("sse: %u of %u cases\n", good, cases);
	CHECK(cases >= 75 && good == cases);
	sse_free(&s);
	arena_free(&a);
	buf_free(&text);
}

static void
check_stream(const char *text, const char *want_hex, int64_t retry)
{
	struct buf got = BUF_INIT(1000);
	struct sse s;

	sse_init(&s);
	feed(&s, str_z(text), 2, &got);
	if (!FAULTED()) {
		CHECK_STR(buf_view(&got), want_hex);
		CHECK(s.retry_ms == retry);
	}
	sse_free(&s);
	buf_free(&got);
}

TEST(rules)
{
	/* Half a BOM is text: the field has another name. */
	check_stream("\xEF\xBB" "data:1\n\ndata:2\n\n", "6d657373616765|32|;", -1);
	check_stream("retry:20\nretry:-3\nretry:+4\nretry:5x\nretry:\nretry:-0\n", "", 20);
	check_stream("retry:99999999999999999999\n", "", -1);
	check_stream("retry:0\n", "", 0);
	/* An id counts from its blank line on, data or not; a type without data is forgotten. */
	check_stream("id:7\nevent:t\n\ndata\n\n", "6d657373616765||37;", -1);
	check_stream("id:7\ndata:x\n", "", -1);
	check_stream("data:a\rdata:b\r\rdata:c\r\n\r\n",
	    "6d657373616765|610a62|;6d657373616765|63|;", -1);
}

/* What a client that connects again would send: only ids of finished events count. */
TEST(last_id)
{
	struct buf got = BUF_INIT(1000);
	struct sse s;

	sse_init(&s);
	feed(&s, S("id:7\n\nid:8\ndata:x\n"), 2, &got);
	CHECK_STR(buf_view(&s.id), "7");
	CHECK(got.n == 0);
	feed(&s, S("\n"), 2, &got);
	CHECK_STR(buf_view(&s.id), "8");
	sse_free(&s);
	buf_free(&got);
}

static enum err
feed_long(struct sse *s, const char *field, size_t n, struct buf *got)
{
	struct buf b = BUF_INIT(SSE_EVENT_MAX + 100);
	char *room;
	enum err e;

	buf_puts(&b, field);
	room = buf_room(&b, n);
	if (room) {
		memset(room, 'x', n);
		b.n += n;
	}
	buf_puts(&b, "\n\n");
	e = b.err != OK ? b.err : sse_feed(s, buf_view(&b), on_event, got);
	buf_free(&b);
	return e;
}

TEST(limits)
{
	struct buf got = BUF_INIT(2 * SSE_EVENT_MAX + 100);
	struct sse s;
	size_t n;

	sse_init(&s);
	CHECK_OK(feed_long(&s, "data: ", SSE_EVENT_MAX, &got));
	n = got.n;
	CHECK(n == 2 * SSE_EVENT_MAX + 17 || FAULTED());
	CHECK_ERR(feed_long(&s, "data: ", SSE_EVENT_MAX + 1, &got), ERR_LIMIT);
	CHECK_ERR(sse_feed(&s, S("data: after\n\n"), on_event, &got), ERR_LIMIT);
	CHECK(got.n == n);
	sse_reset(&s);
	CHECK_OK(feed_long(&s, "data: ", 3, &got));
	CHECK_ERR(feed_long(&s, "id: ", SSE_NAME_MAX + 1, &got), ERR_LIMIT);
	sse_reset(&s);
	CHECK_ERR(feed_long(&s, "event:", SSE_NAME_MAX + 1, &got), ERR_LIMIT);
	sse_reset(&s);
	CHECK_OK(sse_feed(&s, S("data:1\n"), on_event, &got));
	CHECK_ERR(feed_long(&s, "data:", SSE_EVENT_MAX - 1, &got), ERR_LIMIT); /* the LF counts */
	sse_free(&s);
	buf_free(&got);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(conformance);
	RUN(rules);
	RUN(last_id);
	RUN(limits);
	return TEST_END();
}
