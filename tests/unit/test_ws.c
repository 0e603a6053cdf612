/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_ws.c - WebSocket, server side: conformance cases cut in four ways, the
 * rules of frames and closes, limits, compression against zlib, negotiation.
 */
#define ZLIB_CONST
#include "test.h"

#include "base/json.h"
#include "base/ws.h"

#include <zlib.h>

#define DOC_MAX ((size_t)64 << 20)
#define BIG (16u << 20)

/* ---- the client's side --------------------------------------------------------- */

static uint32_t chance_state;

static uint32_t
chance(uint32_t below)
{
	chance_state = chance_state * 1664525u + 1013904223u;
	return (chance_state >> 8) % below;
}

/* A head and its mask, for n bytes that need not follow. */
static void
put_head(struct buf *b, unsigned first, uint64_t n)
{
	size_t more = n <= 125 ? 0 : n <= 0xFFFF ? 2 : 8;

	buf_putc(b, (char)first);
	buf_putc(b, (char)(0x80 | (more == 0 ? n : more == 2 ? 126 : 127)));
	for (size_t i = more; i > 0; i--)
		buf_putc(b, (char)(n >> 8 * (i - 1)));
	buf_puts(b, "\x37\xfa\x21\x3d");
}

static void
put_masked(struct buf *b, struct str payload)
{
	char *room = payload.n ? buf_room(b, payload.n) : NULL;

	for (size_t i = 0; room && i < payload.n; i++)
		room[i] = (char)(payload.p[i] ^ "\x37\xfa\x21\x3d"[i & 3]);
	b->n += room ? payload.n : 0;
}

static void
put_frame(struct buf *b, unsigned first, struct str payload)
{
	put_head(b, first, payload.n);
	put_masked(b, payload);
}

/* Takes one frame of the server from the front of *s: 0xNN its first byte; 0: none, or a bad one. */
static unsigned
take_frame(struct str *s, struct str *payload)
{
	const unsigned char *p = (const unsigned char *)s->p;
	uint64_t n = s->n < 2 ? UINT64_MAX : p[1];
	unsigned first = s->n ? p[0] : 0;
	size_t head = 2;

	if (n == 126 || n == 127) {
		size_t more = n == 126 ? 2 : 8;
		uint64_t least = n == 126 ? 126 : 65536;

		for (n = 0; head < 2 + more && head < s->n; head++)
			n = n << 8 | p[head];
		if (n < least)
			return 0;
	}
	if (s->n < head || n > s->n - head)
		return 0;
	*payload = str_sub(*s, head, (size_t)n);
	*s = str_sub(*s, head + (size_t)n, s->n);
	return first;
}

/* What one stream of the client made of the server, and what the server answered. */
struct peer {
	struct ws w;
	struct ws_pool pool;
	struct buf out, seen;        /* frames; "text HEX;" "pong HEX;" "close CODE HEX;" */
	enum ws_event last;
};

static void
peer_open(struct peer *p, size_t max, unsigned bits)
{
	*p = (struct peer){ .last = WS_MORE };
	ws_init(&p->w, max, bits, &p->pool);
	buf_init(&p->out, DOC_MAX);
	buf_init(&p->seen, DOC_MAX);
}

static void
peer_close(struct peer *p)
{
	ws_free(&p->w);
	CHECK(p->pool.inflaters == 0);
	buf_free(&p->out);
	buf_free(&p->seen);
}

static bool
peer_over(const struct peer *p)
{
	return p->last == WS_CLOSE || p->last == WS_BAD;
}

/* As a server would: echo, pong, and close for a close. */
static enum err
answer(struct peer *p, enum ws_event e, struct str payload)
{
	if (e == WS_TEXT || e == WS_BINARY)
		return ws_put(&p->w, &p->out, e, payload);
	if (e == WS_PING)
		return ws_put(&p->w, &p->out, WS_PONG, payload);
	return e == WS_PONG ? OK : ws_put_close(&p->out, p->w.code, STR_NONE);
}

static void
note_frames(struct peer *p)
{
	struct str rest = buf_view(&p->out), s = STR_NONE;

	while (rest.n) {
		unsigned first = take_frame(&rest, &s);
		const char *name = first == 0x81 ? "text" : first == 0x82 ? "binary" :
		    first == 0x8A ? "pong" : first == 0x88 ? "close" : NULL;

		CHECK(name != NULL);
		if (!name)
			break;
		buf_fmt(&p->seen, "%s ", name);
		enc_hex(&p->seen, s.p, s.n);
		buf_putc(&p->seen, ';');
	}
	buf_reset(&p->out);
}

/* Feeds bytes in pieces of `piece`; 0: of chance sizes. */
static void
feed(struct peer *p, struct str bytes, size_t piece)
{
	struct str part, payload;

	while (bytes.n && !peer_over(p)) {
		part = str_sub(bytes, 0, piece ? piece : 1 + chance(40));
		bytes = str_sub(bytes, part.n, bytes.n);
		while (!peer_over(p) && (p->last = ws_next(&p->w, &part, &payload)) != WS_MORE) {
			CHECK_OK(answer(p, p->last, payload));
		}
		CHECK(part.n == 0);
		note_frames(p);
	}
}

/* ---- conformance --------------------------------------------------------------- */

/* How a case is cut: as recorded, octet by octet, by chance, and all at once. */
enum way { AS_IS, OCTETS, CHANCE, AT_ONCE, WAYS };

static void
payload_of(const struct json *v, struct buf *out)
{
	unsigned char fill = 0;
	struct buf byte = BUF_INIT(16);

	if (json_get(v, S("fill"))) {
		CHECK_OK(dec_hex(json_str(v, "fill", STR_NONE), &byte));
		fill = byte.n ? (unsigned char)byte.p[0] : 0;
		for (int64_t i = json_i64(v, "len", 0); i > 0; i--)
			buf_putc(out, (char)fill);
	} else {
		CHECK_OK(dec_hex(json_str(v, "hex", STR_NONE), out));
	}
	buf_free(&byte);
}

static void
expected(const struct json *c, bool pauses, struct buf *out)
{
	const struct json *events = json_get(c, S("expect"));
	struct buf payload = BUF_INIT(DOC_MAX);

	for (const struct json *e = events ? events->first : NULL; e; e = e->next) {
		struct str kind = json_str(e, "event", STR_NONE);

		if (str_eqz(kind, "pause_survived")) {
			buf_puts(out, pauses ? "pause;" : "");
			continue;
		}
		if (str_eqz(kind, "message"))
			kind = json_i64(e, "binary", 0) ? S("binary") : S("text");
		buf_reset(&payload);
		payload_of(e, &payload);
		buf_fmt(out, "%.*s ", STR_ARG(kind));
		enc_hex(out, payload.p, payload.n);
		buf_putc(out, ';');
	}
	buf_free(&payload);
}

/* Only cases that speak of pauses have them noted; all at once there are none. */
static bool
has_pauses(const struct json *c, enum way way)
{
	return way != AT_ONCE && str_find(json_get(c, S("expect")) ?
	    json_get(c, S("expect"))->raw : STR_NONE, S("pause_survived")) != SIZE_MAX;
}

static void
play(struct peer *p, const struct json *c, enum way way)
{
	const struct json *steps = json_get(c, S("client"));
	struct buf frame = BUF_INIT(DOC_MAX), payload = BUF_INIT(DOC_MAX);

	for (const struct json *s = steps ? steps->first : NULL; s; s = s->next) {
		int64_t chop = json_i64(s, "chop", 0);

		if (json_get(s, S("pause_s"))) {
			if (has_pauses(c, way) && !peer_over(p))
				buf_puts(&p->seen, "pause;");
			continue;
		}
		CHECK(str_eqz(json_str(s, "send", STR_NONE), "frame"));
		buf_reset(&payload);
		payload_of(s, &payload);
		put_frame(&frame, (unsigned)(json_i64(s, "fin", 0) << 7 | json_i64(s, "rsv", 0) << 4 |
		    json_i64(s, "opcode", 0)), buf_view(&payload));
		if (way == AT_ONCE && s->next)
			continue;
		feed(p, buf_view(&frame), way == OCTETS ? 1 : way == CHANCE ? 0 :
		    way == AS_IS && chop > 0 ? (size_t)chop : SIZE_MAX);
		buf_reset(&frame);
	}
	buf_free(&frame);
	buf_free(&payload);
}

/* The close that ends what was seen: its code must be one of those named. A clean close is
 * the client's, answered; else the server has to fail the connection. */
static bool
closes_well(struct peer *p, const struct json *c, size_t events)
{
	const struct json *codes = json_at(c, "close.codes");
	bool clean = json_i64(c, "close.clean", -1) == 1, named = false;
	struct str close = str_sub(buf_view(&p->seen), events, p->seen.n);
	struct buf want = BUF_INIT(100);

	for (const struct json *k = codes ? codes->first : NULL; k; k = k->next) {
		int64_t code = 0;

		CHECK_OK(json_to_i64(k, &code));
		buf_reset(&want);
		buf_fmt(&want, "close %04x;", (unsigned)code);
		named = named || str_eq(close, buf_view(&want));
	}
	if (clean && str_eqz(close, "close ;"))         /* without a code, as the client's */
		named = p->w.code == WS_CODE_NONE;
	buf_free(&want);
	return named && p->last == (clean ? WS_CLOSE : WS_BAD);
}

static bool
run_case(const struct json *c)
{
	bool good = true;

	for (enum way way = AS_IS; way < WAYS; way++) {
		struct buf want = BUF_INIT(DOC_MAX);
		struct peer p;

		peer_open(&p, WS_MESSAGE_MAX, 0);
		play(&p, c, way);
		expected(c, has_pauses(c, way), &want);
		if (json_i64(c, "informational", 0))
			good = good && peer_over(&p);
		else
			good = good && str_starts(buf_view(&p.seen), buf_view(&want)) &&
			    closes_well(&p, c, want.n);
		if (!good && !FAULTED())
			printf("  case %.*s, way %d: saw %.200s\n",
			    STR_ARG(json_str(c, "id", STR_NONE)), (int)way, buf_z(&p.seen));
		peer_close(&p);
		buf_free(&want);
		if (!good)
			break;
	}
	return good;
}

TEST(conformance)
{
	const char *path = test_data("websocket/autobahn-1-7.jsonl");
	struct buf text = BUF_INIT(DOC_MAX);
	struct str rest, line;
	struct arena a = ARENA_INIT(DOC_MAX);
	unsigned cases = 0, good = 0, without = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	CHECK_OK(file_read(path, DOC_MAX, &text, NULL));
	rest = buf_view(&text);
	while (rest.n && !FAULTED()) {
		const struct json *c = NULL;

		str_cut(&rest, '\n', &line);
		CHECK_OK(json_parse(&a, line, &c, NULL));
		/* Where a frame was sent in pieces by hand the record lacks it: it begins with the
		 * pause. TEST(text_as_it_comes) has those. */
		if (c && json_at(c, "client.0.pause_s")) {
			without++;
		} else if (c) {
			cases++;
			good += run_case(c);
		}
		arena_reset(&a);
	}
	if (!FAULTED())
		printf("ws: %u of %u cases, %u recorded without their frames\n", good, cases, without);
	CHECK(cases >= 180 && good == cases && without <= 4);
	arena_free(&a);
	buf_free(&text);
}

/* ---- frames ------------------------------------------------------------------------- */

/* What these bytes lead to at once: "more", an event by name, or the code it is refused with. */
static void
check_bytes(size_t max, unsigned bits, struct str bytes, const char *want)
{
	static const char *const names[] = { [WS_MORE] = "more", [WS_TEXT] = "text",
		[WS_BINARY] = "binary", [WS_CLOSE] = "close", [WS_PING] = "ping", [WS_PONG] = "pong" };
	struct buf got = BUF_INIT(1000);
	struct str payload;
	struct ws_pool pool = { 0 };
	enum ws_event e;
	struct ws w;

	ws_init(&w, max, bits, &pool);
	e = ws_next(&w, &bytes, &payload);
	if (e == WS_BAD || e == WS_CLOSE)
		buf_fmt(&got, "%s%u", e == WS_BAD ? "" : "close ", w.code);
	else
		buf_puts(&got, names[e]);
	if (!FAULTED())
		CHECK_STR(buf_view(&got), want);
	if (e == WS_BAD || e == WS_CLOSE) {     /* for good, and it holds nothing */
		bytes = S("\x81\x80\1\2\3\4");
		CHECK(ws_next(&w, &bytes, &payload) == e && bytes.n == 0 && payload.n == 0);
		CHECK(!w.message.p && pool.inflaters == 0);
	}
	ws_free(&w);
	buf_free(&got);
}

TEST(heads)
{
	static const struct { const char *hex; unsigned bits; const char *want; } cases[] = {
		/* two bytes are enough to refuse */
		{ "8101", 0, "1002" }, { "8900", 0, "1002" },                   /* no mask */
		{ "81", 0, "more" }, { "8180", 0, "more" }, { "818001020304", 0, "text" },
		{ "828001020304", 0, "binary" }, { "898001020304", 0, "ping" },
		{ "8a8001020304", 0, "pong" }, { "888001020304", 0, "close 1005" },
		{ "c180", 0, "1002" }, { "a180", 0, "1002" }, { "9180", 0, "1002" },
		{ "c180", 15, "more" }, { "e180", 15, "1002" }, { "d180", 15, "1002" },
		{ "c980", 15, "1002" }, { "8080", 0, "1002" }, { "c080", 15, "1002" },
		{ "8380", 0, "1002" }, { "8780", 0, "1002" }, { "8b80", 0, "1002" }, { "8f80", 0, "1002" },
		{ "0980", 0, "1002" }, { "0880", 0, "1002" },                   /* control in fragments */
		{ "89fe", 0, "1002" }, { "89ff", 0, "1002" }, { "89fd", 0, "more" },
		/* a message within a message, rsv1 within one, a ping within one */
		{ "0180010203040180", 0, "1002" }, { "018001020304c080", 15, "1002" },
		{ "0180010203048080", 0, "more" }, { "0180010203048980" "01020304", 0, "ping" },
		{ "018001020304808001020304", 0, "text" },
		/* lengths: the shortest form, no sign */
		{ "82fe007d01020304", 0, "1002" }, { "82fe007e01020304", 0, "more" },
		{ "82ff000000000000ffff01020304", 0, "1002" },
		{ "82ff000000000001000001020304", 0, "more" },
		{ "82ff800000000000000001020304", 0, "1002" },
		{ "82ffffffffffffffffff01020304", 0, "1002" },
		/* a limit of 100000 */
		{ "82ff00000000000186a001020304", 0, "more" },
		{ "82ff00000000000186a101020304", 0, "1009" },
		{ "82ff7fffffffffffffff01020304", 0, "1009" },
		{ "c2ff00000000000186a101020304", 15, "more" },
		{ "c2ff000000000004000001020304", 15, "1009" },
		{ "c2ff7fffffffffffffff01020304", 15, "1009" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases) && !FAULTED(); i++) {
		struct buf bytes = BUF_INIT(100);

		CHECK_OK(dec_hex(str_z(cases[i].hex), &bytes));
		check_bytes(100000, cases[i].bits, buf_view(&bytes), cases[i].want);
		buf_free(&bytes);
	}
}

TEST(closes)
{
	/* The edges: may a client send it? */
	static const struct { unsigned code; bool good; } codes[] = {
		{ 0, false }, { 999, false }, { 1000, true }, { 1003, true }, { 1004, false },
		{ 1006, false }, { 1007, true }, { 1011, true }, { 1012, false }, { 1015, false },
		{ 1016, false }, { 2000, false }, { 2999, false }, { 3000, true }, { 3999, true },
		{ 4000, true }, { 4999, true }, { 5000, false }, { 65535, false },
	};
	struct buf frame = BUF_INIT(1000);

	for (size_t i = 0; i < ARRAY_LEN(codes) && !FAULTED(); i++) {
		unsigned code = codes[i].code;
		char body[2] = { (char)(code >> 8), (char)code }, want[32];

		buf_reset(&frame);
		put_frame(&frame, 0x88, str_make(body, 2));
		snprintf(want, sizeof(want), codes[i].good ? "close %u" : "1002", code);
		check_bytes(100, 0, buf_view(&frame), want);
	}
	buf_reset(&frame);
	put_frame(&frame, 0x88, S("\3"));
	check_bytes(100, 0, buf_view(&frame), "1002");
	buf_reset(&frame);
	put_frame(&frame, 0x88, S("\x03\xe8" "gr\xc3\xbc\xc3\x9f"));
	check_bytes(100, 0, buf_view(&frame), "close 1000");
	buf_reset(&frame);
	put_frame(&frame, 0x88, S("\x03\xe8" "gr\xc3"));
	check_bytes(100, 0, buf_view(&frame), "1007");
	buf_free(&frame);
}

/* Text is refused with the part that spoils it, within a frame or in fragments, and at its end
 * when a character is unfinished. */
TEST(text_as_it_comes)
{
	static const struct { const char *parts[4]; size_t bad; } cases[] = {
		{ { "\xce\xba\xe1\xbd\xb9", "\xf4\x90\x80\x80", "edited" }, 1 },
		{ { "\xce\xba\xe1\xbd\xb9\xf4", "\x90", "" }, 1 },
		{ { "\xf0", "\x9f", "\x98", "\x80" }, 4 },
		{ { "abc\xe2\x82", "\xacx\xe2", "\x82", "\xac" }, 4 },
		{ { "\xe0", "\x9f" }, 1 }, { { "\xed", "\xa0" }, 1 }, { { "\xf0", "\x8f" }, 1 },
		{ { "\xc0" }, 0 }, { { "\xff" }, 0 }, { { "\x80" }, 0 }, { { "\xf5" }, 0 },
		{ { "ok", "\xe2\x28" }, 1 }, { { "\xe2\x82", "a" }, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases) * 2 && !FAULTED(); i++) {
		const char *const *parts = cases[i / 2].parts;
		bool fragments = i % 2;
		struct buf frame = BUF_INIT(1000);
		size_t all = 0, n = 0;
		struct peer p;

		for (; n < 4 && parts[n]; n++)
			all += strlen(parts[n]);
		peer_open(&p, 1000, 0);
		if (!fragments)
			put_head(&frame, 0x81, all);
		for (size_t k = 0, at = 0; k < n; at += strlen(parts[k]), k++) {
			bool end = k + 1 == n;

			if (fragments)
				put_frame(&frame, (k ? 0u : 1u) | (end && cases[i / 2].bad >= n ? 0x80u : 0),
				    str_z(parts[k]));
			else    /* the mask goes on over the pieces */
				for (size_t j = 0; parts[k][j]; j++)
					buf_putc(&frame, (char)(parts[k][j] ^ "\x37\xfa\x21\x3d"[(at + j) & 3]));
			feed(&p, buf_view(&frame), SIZE_MAX);
			buf_reset(&frame);
			CHECK((p.last == WS_BAD) == (k >= cases[i / 2].bad) || FAULTED());
		}
		CHECK(p.last != WS_BAD || p.w.code == WS_CODE_DATA || FAULTED());
		CHECK(p.last == WS_BAD || str_starts(buf_view(&p.seen), S("text ")) || FAULTED());
		peer_close(&p);
		buf_free(&frame);
	}
	check_bytes(100, 0, S("\x81\x82\0\0\0\0\xe2\x82"), "1007");
	check_bytes(100, 0, S("\x01\x82\0\0\0\0\xe2\x82\x80\x80\0\0\0\0"), "1007");
	check_bytes(100, 0, S("\x01\x82\0\0\0\0\xe2\x82\x80\x81\0\0\0\0\xac"), "text");
}

/* A message of n bytes in fragments of `step`, and whether it came back. */
static void
check_size(size_t max, size_t n, size_t step, bool good)
{
	struct buf bytes = BUF_INIT(DOC_MAX), frames = BUF_INIT(DOC_MAX);
	char *room = buf_room(&bytes, n);
	struct str payload = STR_NONE, in;
	enum ws_event e;
	struct ws w;

	for (size_t i = 0; room && i < n; i++)
		room[i] = (char)chance(128);
	bytes.n = room ? n : 0;
	for (size_t at = 0; at < bytes.n; at += step)
		put_frame(&frames, (at ? 0u : 1u) | (bytes.n - at <= step ? 0x80u : 0),
		    str_sub(buf_view(&bytes), at, step));
	ws_init(&w, max, 0, NULL);
	in = buf_view(&frames);
	e = ws_next(&w, &in, &payload);
	if (!FAULTED()) {
		CHECK(e == (good ? WS_TEXT : WS_BAD) && w.message.n <= max);
		CHECK(good ? str_eq(payload, buf_view(&bytes)) : w.code == WS_CODE_SIZE);
	}
	CHECK(in.n == 0);
	if (good && !FAULTED())         /* what was given is gone with the next call */
		CHECK(ws_next(&w, &in, &payload) == WS_MORE && !w.message.p);
	ws_free(&w);
	buf_free(&bytes);
	buf_free(&frames);
}

TEST(limits)
{
	struct buf frames = BUF_INIT(DOC_MAX);
	struct str in, payload;
	enum ws_event e;
	struct ws w;

	CHECK(sizeof(struct ws) <= 320);
	check_size(1000, 1000, 1000, true);
	check_size(1000, 1001, 1001, false);
	check_size(1000, 1000, 7, true);
	check_size(1000, 1001, 7, false);
	check_size(0, 1, 1, false);
	check_size(WS_MESSAGE_MAX, WS_MESSAGE_MAX, 64, true);
	check_size(WS_MESSAGE_MAX, 128u << 10, 1, true);
	check_size(BIG, BIG, SIZE_MAX / 2, true);
	/* Empty fragments fill nothing, so they are counted: anew for each message. */
	for (unsigned i = 0; i < WS_FRAMES_MAX - 1; i++)
		put_frame(&frames, i == 0, STR_NONE);
	put_frame(&frames, 0x80, STR_NONE);
	ws_init(&w, 100, 0, NULL);
	in = buf_view(&frames);
	e = ws_next(&w, &in, &payload);
	CHECK((e == WS_TEXT && in.n == 0 && payload.n == 0) || FAULTED());
	buf_cut(&frames, frames.n ? frames.n - 6 : 0);
	put_frame(&frames, 0, STR_NONE);
	in = buf_view(&frames);
	e = ws_next(&w, &in, &payload);
	CHECK((e == WS_MORE && in.n == 0 && !w.message.p) || FAULTED());
	in = S("\x80\x80....");
	e = ws_next(&w, &in, &payload);
	CHECK((e == WS_BAD && w.code == WS_CODE_SIZE) || FAULTED());
	ws_free(&w);
	buf_free(&frames);
}

/* Nothing of one message is counted against the next. */
TEST(one_after_another)
{
	struct buf frames = BUF_INIT(1000);
	struct peer p;

	peer_open(&p, 10, 0);
	put_frame(&frames, 0x81, S("1234567"));
	put_frame(&frames, 0x81, S("89"));
	put_frame(&frames, 0x82, S("1234567890"));
	put_frame(&frames, 0x89, S("?\xe8"));
	put_frame(&frames, 0x81, S("123456"));
	put_frame(&frames, 0x81, S("\xff"));
	feed(&p, buf_view(&frames), 0);
	if (!FAULTED()) {
		CHECK_STR(buf_view(&p.seen), "text 31323334353637;text 3839;binary 31323334353637383930;"
		    "pong 3fe8;text 313233343536;close 03ef;");
	}
	peer_close(&p);
	/* A close of one byte is not made whole by what a ping left behind. */
	peer_open(&p, 10, 0);
	buf_reset(&frames);
	put_frame(&frames, 0x89, S("?\xe8"));
	put_frame(&frames, 0x88, S("\3"));
	feed(&p, buf_view(&frames), SIZE_MAX);
	if (!FAULTED())
		CHECK_STR(buf_view(&p.seen), "pong 3fe8;close 03ea;");
	peer_close(&p);
	buf_free(&frames);
}

/* ---- what the server writes ------------------------------------------------------------- */

TEST(put)
{
	static const struct { size_t n; const char *head; } cases[] = {
		{ 0, "8200" }, { 125, "827d" }, { 126, "827e007e" }, { 65535, "827effff" },
		{ 65536, "827f0000000000010000" },
	};
	static char bytes[65536];
	struct ws w;

	ws_init(&w, 100, 0, NULL);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf out = BUF_INIT(DOC_MAX), hex = BUF_INIT(100);
		size_t head = strlen(cases[i].head) / 2;

		CHECK_OK(ws_put(&w, &out, WS_BINARY, str_make(bytes, cases[i].n)));
		enc_hex(&hex, out.p, out.n < head ? out.n : head);
		if (!FAULTED()) {
			CHECK_STR(buf_view(&hex), cases[i].head);
			CHECK(out.n == head + cases[i].n);
		}
		buf_free(&out);
		buf_free(&hex);
	}
	ws_free(&w);
}

TEST(put_control)
{
	static char bytes[126];
	struct buf out = BUF_INIT(150), text = BUF_INIT(1000), other = BUF_INIT(1000);
	struct str rest, payload = STR_NONE;
	struct ws w;

	ws_init(&w, 100, 15, &(struct ws_pool){ 0 });
	CHECK_OK(ws_put(&w, &out, WS_PING, str_make(bytes, 125)));
	CHECK_ERR(ws_put(&w, &other, WS_PONG, str_make(bytes, 126)), ERR_LIMIT);
	CHECK(other.n == 0 && other.err == OK);
	CHECK(out.n == 127 || FAULTED());
	CHECK_ERR(ws_put(&w, &out, WS_TEXT, S("no room is left for this")), ERR_LIMIT);
	CHECK(out.n == 127 || FAULTED());       /* no half of it */

	buf_reset(&out);
	CHECK_OK(ws_put_close(&out, WS_CODE_NONE, S("not said")));
	CHECK_OK(ws_put_close(&out, 4000, S("so")));
	for (size_t i = 0; i < 122; i++)
		buf_putc(&text, 'x');
	buf_puts(&text, "\xc3\xa9");            /* one byte too many: the character goes */
	CHECK_OK(ws_put_close(&out, WS_CODE_SIZE, buf_view(&text)));
	rest = buf_view(&out);
	if (!FAULTED()) {
		CHECK(take_frame(&rest, &payload) == 0x88 && payload.n == 0);
		CHECK(take_frame(&rest, &payload) == 0x88 && str_eqz(payload, "\x0f\xa0so"));
		CHECK(take_frame(&rest, &payload) == 0x88 && payload.n == 2 + 122);
	}
	ws_free(&w);
	buf_free(&out);
	buf_free(&text);
	buf_free(&other);
}

/* ---- handshake ------------------------------------------------------------------------------ */

TEST(accept_key)
{
	static const char *const bad[] = { "", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ= ",
		"dGhlIHNhbXBsZSBub25jZTEy", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZTE=",
		" GhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==AAAA",
		"dGhlIHNhbXBsZSBub25jZTEydGhlIHNhbXBsZSBub25jZTEy" };
	struct buf out = BUF_INIT(100);

	CHECK_OK(ws_accept(S("dGhlIHNhbXBsZSBub25jZQ=="), &out));       /* RFC 6455 §1.3 */
	if (!FAULTED())
		CHECK_STR(buf_view(&out), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	buf_reset(&out);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_ERR(ws_accept(str_z(bad[i]), &out), ERR_PARSE);
	CHECK(out.n == 0);
	buf_free(&out);
}

TEST(negotiation)
{
	static const struct { const char *offer; unsigned bits; bool named; } cases[] = {
		{ "", 0, 0 }, { "   ", 0, 0 }, { ",", 0, 0 },
		{ "permessage-deflate", 15, 0 }, { "  permessage-deflate  ", 15, 0 },
		{ "permessage-deflate; client_max_window_bits", 15, 0 },        /* what browsers send */
		{ "permessage-deflate;client_max_window_bits=8", 15, 0 },
		{ "permessage-deflate; client_max_window_bits=15", 15, 0 },
		{ "permessage-deflate; client_max_window_bits=16", 0, 0 },
		{ "permessage-deflate; client_max_window_bits=7", 0, 0 },
		{ "permessage-deflate; client_max_window_bits=", 0, 0 },
		{ "permessage-deflate; client_max_window_bits=\"\"", 0, 0 },
		{ "permessage-deflate ; server_no_context_takeover ;\tclient_no_context_takeover", 15, 0 },
		{ "permessage-deflate; server_no_context_takeover=1", 0, 0 },
		{ "permessage-deflate; client_no_context_takeover=", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=9", 9, 1 },
		{ "permessage-deflate; server_max_window_bits=15", 15, 1 },
		{ "permessage-deflate; server_max_window_bits = \"10\"", 10, 1 },
		{ "permessage-deflate; server_max_window_bits=\"10", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=\"1\\0\"", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=8", 0, 0 },       /* zlib has no such */
		{ "permessage-deflate; server_max_window_bits=8, permessage-deflate", 15, 0 },
		{ "permessage-deflate; server_max_window_bits", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=09", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=+9", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=16", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=99999999999999999999", 0, 0 },
		{ "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10", 0, 0 },
		{ "permessage-deflate; server_no_context_takeover; server_no_context_takeover", 0, 0 },
		{ "permessage-deflate; unheard_of", 0, 0 }, { "permessage-deflate; x=1", 0, 0 },
		{ "permessage-deflate;", 0, 0 }, { "permessage-deflate junk", 0, 0 },
		{ "permessage-deflate; client_max_window_bits junk", 0, 0 },
		{ "permessage-deflate=1", 0, 0 }, { "permessage-deflates", 0, 0 },
		{ "x-webkit-deflate-frame", 0, 0 }, { "permessage-bzip2, permessage-deflate", 15, 0 },
		{ "x; a=\"permessage-deflate, permessage-deflate\"", 0, 0 },
		{ "x; a=\"b, permessage-deflate, c\"", 0, 0 },
		{ "x; a=\"b\\\", permessage-deflate\", permessage-deflate", 15, 0 },
		{ "permessage-deflate; unheard_of, permessage-deflate; server_max_window_bits=12", 12, 1 },
		{ "permessage-deflate; server_max_window_bits=11, permessage-deflate", 11, 1 },
		{ ", ,permessage-deflate,", 15, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf got = BUF_INIT(1000), want = BUF_INIT(1000);

		CHECK(ws_deflate_offer(str_z(cases[i].offer), &got) == cases[i].bits);
		if (cases[i].bits)
			buf_puts(&want, "permessage-deflate; server_no_context_takeover; "
			    "client_no_context_takeover");
		if (cases[i].named)
			buf_fmt(&want, "; server_max_window_bits=%u", cases[i].bits);
		if (!FAULTED())
			CHECK_STR(buf_view(&got), buf_z(&want));
		buf_free(&got);
		buf_free(&want);
	}
}

/* ---- compression ------------------------------------------------------------------------------ */

static void *
take_memory(void *unused, unsigned count, unsigned size)
{
	(void)unused;
	return calloc(count, size);
}

static void
give_memory(void *unused, void *p)
{
	(void)unused;
	free(p);
}

/* As a client deflates a message: flushed, and without the tail; or finished, as it is. */
static void
client_deflate(struct buf *out, struct str s, int level, int flush)
{
	z_stream z = { .zalloc = take_memory, .zfree = give_memory };
	size_t n = s.n + s.n / 8 + 100;
	char *room = buf_room(out, n);

	if (!room || deflateInit2(&z, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return;
	z.next_in = (const unsigned char *)s.p;
	z.avail_in = (uInt)s.n;
	z.next_out = (unsigned char *)room;
	z.avail_out = (uInt)n;
	CHECK(deflate(&z, flush) == (flush == Z_FINISH ? Z_STREAM_END : Z_OK) && z.avail_out);
	n -= z.avail_out;
	out->n += flush == Z_FINISH ? n : n - 4;
	deflateEnd(&z);
}

/* As a client with a window of so many bits inflates what the server sent: with the tail. */
static void
client_inflate(struct buf *out, struct str s, unsigned bits, size_t n)
{
	z_stream z = { .zalloc = take_memory, .zfree = give_memory };
	char *room = buf_room(out, n + 1);
	struct buf whole = BUF_INIT(DOC_MAX);

	buf_str(&whole, s);
	buf_put(&whole, "\0\0\xFF\xFF", 4);
	if (room && whole.err == OK && inflateInit2(&z, -(int)bits) == Z_OK) {
		z.next_in = (const unsigned char *)whole.p;
		z.avail_in = (uInt)whole.n;
		z.next_out = (unsigned char *)room;
		z.avail_out = (uInt)n + 1;
		CHECK(inflate(&z, Z_SYNC_FLUSH) == Z_OK && z.avail_in == 0);
		out->n += n + 1 - z.avail_out;
		inflateEnd(&z);
	}
	buf_free(&whole);
}

/* Text that compresses, from words at chance. */
static void
put_text(struct buf *b, size_t n)
{
	static const char *const words[] = { "{\"text\":\"", "stream ", "gr\xc3\xbc\xc3\x9f", "\"},", "0123456789 " };

	while (b->n < n && b->err == OK)
		buf_puts(b, words[chance(ARRAY_LEN(words))]);
	if (b->err == OK)
		buf_cut(b, utf8_prefix(buf_view(b), n).n);
}

/* There and back: the client's compression read, the server's read by zlib. */
static void
check_roundtrip(size_t size, unsigned bits, int level, size_t piece)
{
	struct buf text = BUF_INIT(DOC_MAX), packed = BUF_INIT(DOC_MAX), frame = BUF_INIT(DOC_MAX);
	struct buf out = BUF_INIT(DOC_MAX), back = BUF_INIT(DOC_MAX);
	struct str rest, part, payload = STR_NONE;
	struct ws_pool pool = { 0 };
	enum ws_event e = WS_MORE;
	unsigned first;
	struct ws w;

	put_text(&text, size);
	client_deflate(&packed, buf_view(&text), level, Z_SYNC_FLUSH);
	put_frame(&frame, 0x41, str_sub(buf_view(&packed), 0, packed.n / 2));
	put_frame(&frame, 0x80, str_sub(buf_view(&packed), packed.n / 2, packed.n));
	ws_init(&w, WS_MESSAGE_MAX, bits, &pool);
	for (rest = buf_view(&frame); rest.n && e == WS_MORE; rest = str_sub(rest, piece, rest.n)) {
		part = str_sub(rest, 0, piece);
		e = ws_next(&w, &part, &payload);
	}
	CHECK((e == WS_TEXT && str_eq(payload, buf_view(&text))) || FAULTED());
	CHECK(pool.inflaters == 0);
	CHECK_OK(ws_put(&w, &out, WS_TEXT, buf_view(&text)));
	rest = buf_view(&out);
	first = take_frame(&rest, &payload);
	if (first == 0xC1) {
		CHECK(text.n >= WS_DEFLATE_MIN && payload.n < text.n);
		client_inflate(&back, payload, bits, text.n);
		payload = buf_view(&back);
	} else {
		CHECK((first == 0x81 && text.n < WS_DEFLATE_MIN) || FAULTED());
	}
	CHECK(str_eq(payload, buf_view(&text)) || FAULTED());
	ws_free(&w);
	buf_free(&text);
	buf_free(&packed);
	buf_free(&frame);
	buf_free(&out);
	buf_free(&back);
}

TEST(deflate_roundtrip)
{
	static const size_t sizes[] = { 0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 40000 };

	for (size_t i = 0; i < ARRAY_LEN(sizes) && !FAULTED(); i++)
		for (unsigned bits = 9; bits <= 15; bits++)
			check_roundtrip(sizes[i], bits, (int)bits - 9, bits % 2 ? SIZE_MAX : 1);
	check_roundtrip(WS_MESSAGE_MAX, 15, 9, SIZE_MAX);
	check_roundtrip(WS_MESSAGE_MAX, 9, 0, 1000);
}

/* The client keeps no more than the window it asked for: what repeats farther back is not
 * used; and what does not get shorter goes out as it is. */
TEST(deflate_window)
{
	struct buf bytes = BUF_INIT(10000);

	for (size_t i = 0; i < 3000; i++)
		buf_putc(&bytes, (char)chance(256));
	for (size_t i = 0; i < 6000 && bytes.err == OK; i++)
		buf_putc(&bytes, bytes.p[i]);
	for (unsigned bits = 9; bits <= 15 && !FAULTED(); bits++) {
		struct buf out = BUF_INIT(20000), back = BUF_INIT(20000);
		struct str rest, payload = STR_NONE;
		struct ws_pool pool = { 0 };
		unsigned first;
		struct ws w;

		ws_init(&w, 100, bits, &pool);
		CHECK_OK(ws_put(&w, &out, WS_BINARY, buf_view(&bytes)));
		rest = buf_view(&out);
		first = take_frame(&rest, &payload);
		CHECK(first == (bits < 12 ? 0x82 : 0xC2) || FAULTED());
		if (first == 0xC2) {
			client_inflate(&back, payload, bits, bytes.n);
			CHECK(str_eq(buf_view(&back), buf_view(&bytes)) || FAULTED());
		}
		ws_free(&w);
		buf_free(&out);
		buf_free(&back);
	}
	buf_free(&bytes);
}

/* One compressed message, given as it stands, whole and octet by octet: HEX, or its code. */
static void
check_deflated(size_t max, unsigned first, struct str packed, const char *want)
{
	for (size_t piece = 1; piece && !FAULTED(); piece = piece == 1 ? SIZE_MAX : 0) {
		struct buf frame = BUF_INIT(DOC_MAX), got = BUF_INIT(1000);
		struct str rest, part, payload = STR_NONE;
		struct ws_pool pool = { 0 };
		enum ws_event e = WS_MORE;
		struct ws w;

		put_frame(&frame, first, packed);
		ws_init(&w, max, 15, &pool);
		for (rest = buf_view(&frame); rest.n && e == WS_MORE; rest = str_sub(rest, piece, rest.n)) {
			part = str_sub(rest, 0, piece);
			e = ws_next(&w, &part, &payload);
		}
		if (e == WS_BAD)
			buf_fmt(&got, "%u", w.code);
		else if (e == WS_MORE)
			buf_puts(&got, "more");
		else
			enc_hex(&got, payload.p, payload.n);
		if (!FAULTED())
			CHECK_STR(buf_view(&got), want);
		ws_free(&w);
		CHECK(pool.inflaters == 0);
		buf_free(&frame);
		buf_free(&got);
	}
}

TEST(deflate_rules)
{
	static const struct { unsigned first; const char *hex, *want; } cases[] = {
		/* RFC 7692 §7.2.3: one block, stored, a last block, two blocks, nothing */
		{ 0xC1, "f248cdc9c90700", "48656c6c6f" },
		{ 0xC1, "000500faff48656c6c6f00", "48656c6c6f" },
		{ 0xC1, "f348cdc9c9070000", "48656c6c6f" },
		{ 0xC1, "f248050000" "00ffffcac9c90700", "48656c6c6f" },
		{ 0xC1, "00", "" }, { 0xC2, "0200", "" },
		/* a last block alone; two of them, one after the other */
		{ 0xC1, "f348cdc9c90700", "48656c6c6f" },
		{ 0xC1, "f348cdc9c90700f348cdc9c90700", "48656c6c6f48656c6c6f" },
		{ 0xC1, "f200110000", "1007" },         /* refers to the message before: not agreed */
		{ 0xC1, "", "1007" }, { 0xC1, "f2", "1007" },
		{ 0xC1, "f248cdc9c9", "1007" }, { 0xC1, "000500faff48656c", "1007" },
		{ 0xC1, "000500fafe48656c6c6f00", "1007" },                     /* NLEN */
		{ 0xC1, "06", "1007" }, { 0xC1, "ffff", "1007" },               /* block type 3 */
		{ 0xC1, "f248cdc9c9070006", "1007" },                           /* and trailing */
		{ 0xC1, "f248cdc9c90700000000ffff", "1007" },                   /* tail not taken off */
		{ 0xC1, "000100feffff00", "1007" },     /* not UTF-8 */
		{ 0xC2, "000100feffff00", "ff" },
		{ 0xC1, "000100feffe200", "1007" },     /* half a character at the end */
		{ 0x41, "000100feffff", "1007" },       /* seen before the message ends */
		{ 0x41, "000100feffe2", "more" },
		{ 0x42, "000100feffff", "more" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases) && !FAULTED(); i++) {
		struct buf packed = BUF_INIT(100);

		CHECK_OK(dec_hex(str_z(cases[i].hex), &packed));
		check_deflated(1000, cases[i].first, buf_view(&packed), cases[i].want);
		buf_free(&packed);
	}
}

/* Every front of a message is one that was cut off. */
TEST(deflate_truncated)
{
	struct buf text = BUF_INIT(10000), packed = BUF_INIT(10000);

	put_text(&text, 300);
	client_deflate(&packed, buf_view(&text), 6, Z_SYNC_FLUSH);
	for (size_t n = 0; n < packed.n && !FAULTED(); n++)
		check_deflated(1000, 0xC1, str_sub(buf_view(&packed), 0, n), "1007");
	buf_free(&text);
	buf_free(&packed);
}

/* A message is measured while it is inflated: up to the limit, and no further. */
TEST(deflate_bomb)
{
	static const struct { size_t n, max; bool good; } cases[] = {
		{ 60000, 60000, true }, { 60001, 60000, false }, { 4u << 20, 60000, false },
		{ 1, 0, false }, { 0, 0, true }, { 4096, 4096, true }, { 4097, 4096, false },
		{ 4096, 4095, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases) && !FAULTED(); i++) {
		struct buf zeros = BUF_INIT(DOC_MAX), packed = BUF_INIT(DOC_MAX), frame = BUF_INIT(DOC_MAX);
		char *room = buf_room(&zeros, cases[i].n);
		struct str in, payload = STR_NONE;
		struct ws_pool pool = { 0 };
		enum ws_event e;
		struct ws w;

		if (room)
			memset(room, 0, cases[i].n);
		zeros.n = room ? cases[i].n : 0;
		client_deflate(&packed, buf_view(&zeros), 9, Z_SYNC_FLUSH);
		put_frame(&frame, 0xC2, buf_view(&packed));
		ws_init(&w, cases[i].max, 15, &pool);
		in = buf_view(&frame);
		e = ws_next(&w, &in, &payload);
		if (!FAULTED()) {
			CHECK(e == (cases[i].good ? WS_BINARY : WS_BAD));
			CHECK(cases[i].good ? payload.n == cases[i].n : w.code == WS_CODE_SIZE);
		}
		CHECK(pool.inflaters == 0);
		ws_free(&w);
		buf_free(&zeros);
		buf_free(&packed);
		buf_free(&frame);
	}
}

/* Inflaters are lent for the time of a message; the one too many is told to come later. */
TEST(deflate_pool)
{
	struct ws w[WS_INFLATERS_MAX + 1];
	struct ws_pool pool = { 0 };
	struct str in, payload;
	enum ws_event e;

	for (size_t i = 0; i < ARRAY_LEN(w); i++) {
		ws_init(&w[i], 1000, 15, &pool);
		in = S("\x41\x81\0\0\0\0\xf2");
		e = ws_next(&w[i], &in, &payload);
		CHECK(e == (i < WS_INFLATERS_MAX ? WS_MORE : WS_BAD) || FAULTED());
	}
	if (!FAULTED())
		CHECK(w[WS_INFLATERS_MAX].code == WS_CODE_LATER && pool.inflaters == WS_INFLATERS_MAX);
	ws_free(&w[WS_INFLATERS_MAX]);
	in = S("\x80\x86\0\0\0\0\x48\xcd\xc9\xc9\x07\0" "\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\0");
	e = ws_next(&w[0], &in, &payload);
	CHECK((e == WS_TEXT && str_eqz(payload, "Hello")) || FAULTED());
	CHECK(pool.inflaters < WS_INFLATERS_MAX);
	e = ws_next(&w[0], &in, &payload);
	CHECK((e == WS_TEXT && str_eqz(payload, "Hello")) || FAULTED());
	for (size_t i = 0; i < WS_INFLATERS_MAX; i++)
		ws_free(&w[i]);
	CHECK(pool.inflaters == 0);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(conformance);
	RUN(heads);
	RUN(closes);
	RUN(text_as_it_comes);
	RUN(limits);
	RUN(one_after_another);
	RUN(put);
	RUN(put_control);
	RUN(accept_key);
	RUN(negotiation);
	RUN(deflate_roundtrip);
	RUN(deflate_window);
	RUN(deflate_rules);
	RUN(deflate_truncated);
	RUN(deflate_bomb);
	RUN(deflate_pool);
	return TEST_END();
}
