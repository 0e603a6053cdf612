/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_http.c - requests of HTTP/1.1: conformance cases cut everywhere, every limit, answers. */
#include "test.h"

#include "base/http.h"
#include "base/json.h"

#define DOC_MAX ((size_t)8 << 20)
#define BODY_MAX 1000u

/* ---- what a connection sees ------------------------------------------------------- */

struct seen {
	struct buf text;        /* all events, whatever the cuts: see note() */
	struct buf bodies;
	unsigned heads, ends;
	int status;             /* 0: nothing was refused */
	bool over;              /* refused, or another protocol from here on */
};

static void
seen_reset(struct seen *s)
{
	buf_reset(&s->text);
	buf_reset(&s->bodies);
	s->heads = s->ends = 0;
	s->status = 0;
	s->over = false;
}

static void
seen_free(struct seen *s)
{
	buf_free(&s->text);
	buf_free(&s->bodies);
}

static void
note(struct seen *s, const struct http *h, enum http_event e, struct str body)
{
	const struct http_request *r = &h->req;

	switch (e) {
	case HTTP_MORE:
		break;
	case HTTP_HEAD:
		s->heads++;
		buf_fmt(&s->text, "%.*s %.*s ?%.*s @%.*s 1.%d length=%lld%s%s%s%s\n", STR_ARG(r->method),
		    STR_ARG(r->path), STR_ARG(r->query), STR_ARG(r->host), r->minor,
		    (long long)r->content_length, r->chunked ? " chunked" : "",
		    r->keep_alive ? "" : " close", r->expect_continue ? " expect" : "",
		    r->upgrade_websocket ? " websocket" : "");
		buf_str(&s->text, r->fields);
		break;
	case HTTP_BODY:
		CHECK(body.n > 0);
		buf_str(&s->text, body);
		buf_str(&s->bodies, body);
		break;
	case HTTP_END:
		s->ends++;
		/* Who answers late still reads the request. */
		buf_fmt(&s->text, "end of %.*s\n", STR_ARG(r->target));
		s->over = r->upgrade_websocket;
		break;
	case HTTP_BAD:
		buf_fmt(&s->text, "refused %d %s\n", h->status, h->why);
		s->status = h->status;
		s->over = true;
		break;
	}
}

static void
feed(struct http *h, struct str in, struct seen *s)
{
	struct str body;
	enum http_event e = HTTP_BODY;

	while (e != HTTP_MORE && !s->over) {
		e = http_next(h, &in, &body);
		note(s, h, e, body);
	}
	CHECK(s->over || in.n == 0);
	if (s->status == 0)
		return;
	in = S("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	CHECK(http_next(h, &in, &body) == HTTP_BAD && h->status == s->status);
}

static void
observe(struct str bytes, size_t cut, struct seen *s)
{
	struct http h;

	seen_reset(s);
	http_init(&h, BODY_MAX);
	if (cut == 0)           /* octet by octet */
		for (size_t i = 0; i < bytes.n; i++)
			feed(&h, str_sub(bytes, i, 1), s);
	feed(&h, cut ? str_sub(bytes, 0, cut) : STR_NONE, s);
	feed(&h, cut ? str_sub(bytes, cut, bytes.n) : STR_NONE, s);
	http_free(&h);
}

/* Whole, in two at every place, octet by octet: always the same. s is what came of it. */
static void
observe_all(struct str bytes, struct seen *s)
{
	struct seen other = { .text = BUF_INIT(DOC_MAX), .bodies = BUF_INIT(DOC_MAX) };

	observe(bytes, bytes.n, s);
	for (size_t cut = 0; cut < bytes.n && !FAULTED(); cut++) {
		observe(bytes, cut, &other);
		if (str_eq(buf_view(&s->text), buf_view(&other.text)))
			continue;
		CHECK(FAULTED());
		printf("cut at %zu: %.*s\nwhole: %.*s\n", cut, STR_ARG(buf_view(&other.text)),
		    STR_ARG(buf_view(&s->text)));
		break;
	}
	seen_free(&other);
}

/* ---- conformance --------------------------------------------------------------------- */

struct exception {
	const char *id, *why;
};

typedef bool case_fn(const struct json *c, struct seen *s, struct buf *bytes);

static unsigned
run_cases(const char *file, case_fn *fn)
{
	const char *path = test_data(file);
	struct buf text = BUF_INIT(DOC_MAX), bytes = BUF_INIT(DOC_MAX);
	struct seen s = { .text = BUF_INIT(DOC_MAX), .bodies = BUF_INIT(DOC_MAX) };
	struct arena a = ARENA_INIT(DOC_MAX);
	unsigned cases = 0;
	struct str rest, line;

	if (!path) {
		SKIP("no conformance data");
		return UINT32_MAX;
	}
	CHECK_OK(file_read(path, DOC_MAX, &text, NULL));
	rest = buf_view(&text);
	while (rest.n && !FAULTED()) {
		const struct json *c = NULL;

		str_cut(&rest, '\n', &line);
		CHECK_OK(json_parse(&a, line, &c, NULL));
		buf_reset(&bytes);
		if (c && fn(c, &s, &bytes))
			cases++;
		arena_reset(&a);
	}
	if (!FAULTED())
		printf("%s: %u cases\n", file, cases);
	seen_free(&s);
	arena_free(&a);
	buf_free(&bytes);
	buf_free(&text);
	return cases;
}

static void
check_case(const struct json *c, bool good, const struct seen *s, const char *want)
{
	if (good || FAULTED())
		return;
	CHECK(good);
	printf("  %.*s: want %s, got: %.*s\n", STR_ARG(json_str(c, "id", STR_NONE)), want,
	    STR_ARG(buf_view(&s->text)));
}

static const char *
excepted(const struct json *c, const struct exception *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_find(json_str(c, "id", STR_NONE), str_z(list[i].id)) != SIZE_MAX)
			return list[i].why;
	return NULL;
}

static struct str
case_hex(const struct json *c, const char *member, struct buf *out)
{
	CHECK_OK(dec_hex(json_str(c, member, STR_NONE), out));
	return buf_view(out);
}

/* Other servers' tests leave out Host, which would refuse all of them alike. */
static void
add_hosts(struct buf *b)
{
	struct str version = S(" HTTP/1.1\r\n"), field = S("Host: a\r\n"), rest, head;
	size_t at = 0, n;

	while ((n = str_find(str_sub(buf_view(b), at, b->n), version)) != SIZE_MAX) {
		bool has = false;

		at += n + version.n;
		rest = str_sub(buf_view(b), at, b->n);
		head = str_sub(rest, 0, str_find(rest, S("\r\n\r\n")));
		for (bool more = true; more && !has;) {
			more = str_cut(&head, '\n', &rest);
			has = str_ieq(str_sub(rest, 0, 5), S("host:"));
		}
		if (has || !buf_room(b, field.n))
			continue;
		memmove(b->p + at + field.n, b->p + at, b->n - at);
		memcpy(b->p + at, field.p, field.n);
		b->n += field.n;
	}
}

static bool
llhttp_case(const struct json *c, struct seen *s, struct buf *bytes)
{
	static const struct exception stricter[] = {
		{ "No HTTP version", "HTTP/0.9 is not spoken" },
		{ "with RTSP", "another protocol" },
		{ "M-SEARCH", "\"*\" is for OPTIONS alone" },
		{ "chunked as last transfer-encoding (multiple", "no coding but chunked" },
	};
	static const struct exception later[] = {
		{ "Invalid method", "a method nobody knows is the router's matter" },
		{ "HTTP protocol and ANNOUNCE", "the same" },
	};
	struct str reason = json_str(c, "error_reason", STR_NONE);
	bool error = str_eqz(json_str(c, "verdict", STR_NONE), "error");

	if (!str_eqz(json_str(c, "type", STR_NONE), "request"))
		return false;
	case_hex(c, "hex", bytes);
	add_hosts(bytes);
	observe_all(buf_view(bytes), s);
	if (error && s->status == 0 && bytes->n && bytes->p[bytes->n - 1] != '\n') {
		/* A line is judged when it ends. */
		buf_puts(bytes, "\r\n");
		observe_all(buf_view(bytes), s);
	}
	if (error && s->status == 0 && s->heads == 0) {
		/* What contradicts another field is seen at the end of the head. */
		buf_puts(bytes, "\r\n");
		observe_all(buf_view(bytes), s);
	}
	if (str_starts(reason, S("Data after `Connection: close`")))
		check_case(c, s->ends == 1 && s->heads == 1 && s->status == 0, s, "the rest ignored");
	else if (str_starts(reason, S("Pause on CONNECT/Upgrade")))
		check_case(c, s->ends == 1 ? s->heads == 1 : s->status == 501 && s->heads == 0, s,
		    "a request that may upgrade, or CONNECT refused");
	else if (error && !excepted(c, later, ARRAY_LEN(later)))
		check_case(c, s->status != 0 && s->ends == 0, s, "refused");
	else if (!error && excepted(c, stricter, ARRAY_LEN(stricter)))
		check_case(c, s->status != 0, s, "refused, because we are stricter");
	else
		check_case(c, s->status == 0 && s->heads >= 1, s, "a request");
	return true;
}

TEST(llhttp)
{
	CHECK(run_cases("http/llhttp.jsonl", llhttp_case) >= 80);
}

static bool
pico_case(const struct json *c, struct seen *s, struct buf *bytes)
{
	struct str kind = json_str(c, "kind", STR_NONE), want = json_str(c, "verdict", STR_NONE);
	bool chunked = str_eqz(kind, "chunked"), good;

	if (str_eqz(kind, "response"))
		return false;
	if (chunked)
		buf_puts(bytes, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	if (str_eqz(kind, "headers"))
		buf_puts(bytes, "GET / HTTP/1.1\r\n");
	observe_all(case_hex(c, "hex", bytes), s);
	if (str_eqz(want, "error"))
		good = s->status != 0 && s->ends == 0;
	else if (s->status != 0)        /* ffffffffffffffff octets: not incomplete but too many */
		good = json_i64(c, "lenient", 0) == 1 || (chunked && s->status == 413);
	else if (str_eqz(want, "incomplete"))
		good = s->ends == 0;
	else if (chunked && json_i64(c, "consume_trailer", 1) == 0)
		good = s->heads == 1;   /* without the empty line we wait for trailer fields */
	else
		good = s->ends == 1;
	if (good && s->status == 0 && json_get(c, S("decoded_hex"))) {
		buf_reset(bytes);
		good = str_eq(case_hex(c, "decoded_hex", bytes), buf_view(&s->bodies));
	}
	check_case(c, good, s, "the verdict");
	return true;
}

TEST(picohttpparser)
{
	CHECK(run_cases("http/picohttpparser.jsonl", pico_case) >= 50);
}

static void
garden_verdict(const struct json *c, const char *hex, const char *expected, struct seen *s,
    struct buf *bytes)
{
	struct str want = json_str(c, expected, STR_NONE);
	bool good = true;

	if (!want.n)
		return;
	buf_reset(bytes);
	observe_all(case_hex(c, hex, bytes), s);
	if (str_eqz(want, "reject"))
		good = s->status != 0 && s->ends == 0;
	else if (str_eqz(want, "accept"))
		good = s->ends == 1;
	else if (str_eqz(want, "wait"))
		good = s->status == 0 && s->ends == 0;
	else                            /* either: we refuse, which is the safer half */
		good = s->status != 0 && s->ends == 0;
	check_case(c, good, s, expected);
}

static bool
garden_case(const struct json *c, struct seen *s, struct buf *bytes)
{
	garden_verdict(c, "hex", "expected", s, bytes);
	garden_verdict(c, "hex_with_host", "expected_with_host", s, bytes);
	return true;
}

TEST(smuggling)
{
	CHECK(run_cases("http/smuggling-garden.jsonl", garden_case) >= 45);
}

/* ---- rules ------------------------------------------------------------------------------- */

static void
check_text(const char *request, const char *want)
{
	struct seen s = { .text = BUF_INIT(DOC_MAX), .bodies = BUF_INIT(DOC_MAX) };
	struct str got, part;

	observe_all(str_z(request), &s);
	got = buf_view(&s.text);
	part = str_sub(got, 0, strlen(want));
	if (!FAULTED())
		CHECK_STR(part, want);
	seen_free(&s);
}

static void
check_refused(const char *request, int status)
{
	struct seen s = { .text = BUF_INIT(DOC_MAX), .bodies = BUF_INIT(DOC_MAX) };

	observe_all(str_z(request), &s);
	if ((s.status != status || s.ends) && !FAULTED()) {
		CHECK(s.status == status && !s.ends);
		printf("  want %d, got %d: %s\n", status, s.status, request);
	}
	seen_free(&s);
}

/* A request line and one field more (or "") around what matters. */
#define GET(line, fields) line " HTTP/1.1\r\nHost: a\r\n" fields "\r\n"

TEST(targets)
{
	check_text(GET("GET /a/b?c=d?e", ""), "GET /a/b ?c=d?e @a 1.1 length=-1\n");
	check_text(GET("GET //x?", ""), "GET //x ? @a 1.1");
	check_text(GET("GET http://B:8080/c?d", ""), "GET /c ?d @B:8080 1.1");
	check_text(GET("GET HTTPS://[::1]:9", ""), "GET / ? @[::1]:9 1.1");
	check_text(GET("GET http://b?q/x", ""), "GET / ?q/x @b 1.1");
	check_text(GET("OPTIONS *", ""), "OPTIONS * ? @a 1.1");
	check_text(GET("X!y /", ""), "X!y / ? @a 1.1");
	check_text(GET("GET /?a=[b]|^{}`", ""), "GET / ?a=[b]|^{}` @a");
	check_text("GET / HTTP/1.0\r\n\r\n", "GET / ? @ 1.0 length=-1 close\n");
	check_text("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / ? @ 1.1");
	check_text("GET / HTTP/1.1\r\nhOST: [fe80::1]:80\r\n\r\n", "GET / ? @[fe80::1]:80 1.1");

	check_refused(GET("GET *", ""), 400);
	check_refused(GET("OPTIONS **", ""), 400);
	check_refused(GET("GET a", ""), 400);
	check_refused(GET("GET a:80", ""), 400);
	check_refused(GET("CONNECT a:80", ""), 501);
	check_refused(GET("CONNECT /", ""), 501);
	check_refused(GET("GET ftp://a/", ""), 400);
	check_refused(GET("GET http:///", ""), 400);
	check_refused(GET("GET http://u@a/", ""), 400);
	check_refused(GET("GET http://a:b/", ""), 400);
	check_refused(GET("GET http://:80/", ""), 400);
	check_refused(GET("GET /#a", ""), 400);
	check_refused(GET("GET /?#a", ""), 400);
	check_refused(GET("GET /a\\b", ""), 400);
	check_refused(GET("GET /\x80", ""), 400);
	check_refused(GET("GET /\t", ""), 400);
	check_refused(GET("GET  /", ""), 400);
	check_refused(GET("GET / ", ""), 400);
	check_refused(GET(" GET /", ""), 400);
	check_refused(GET("G(T /", ""), 400);
	check_refused("GET /\r\n\r\n", 400);
	check_refused("GET / \r\n\r\n", 400);
	check_refused("GET / HTTP/1.1 \r\n", 400);
	check_refused("GET / http/1.1\r\n", 400);
	check_refused("GET / HTTP/1.10\r\n", 400);
	check_refused("GET / HTTP/1,1\r\n", 400);
	check_refused("GET / HTTP/2.0\r\n", 505);
	check_refused("GET / HTTP/1.2\r\n", 505);
	check_refused("GET / HTTP/0.9\r\n", 505);

	check_refused("GET / HTTP/1.1\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400);
	check_refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: []\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400);
	check_refused("GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", 400);
	check_refused("GET http://b/ HTTP/1.1\r\n\r\n", 400);
}

TEST(lines)
{
	check_text(GET("\r\nGET /", ""), "GET / ");
	check_text(GET("GET /", "A:b\r\nc:\t\x80 d \t\r\n"), "GET / ? @a 1.1 length=-1\nHost: a\r\nA:b\r\n");
	check_refused("\nGET / HTTP/1.1\r\n", 400);
	check_refused("\rGET / HTTP/1.1\r\n", 400);
	check_refused("\r\r\nGET / HTTP/1.1\r\n", 400);
	check_refused("GET / HTTP/1.1\n", 400);
	check_refused("GET / HTTP/1.1\r\r\n", 400);
	check_refused(GET("GET /", "A: b\n"), 400);
	check_refused(GET("GET /", "A: b\rC: d\r\n"), 400);
	check_refused(GET("GET /", "A: b\r\n c\r\n"), 400);
	check_refused(GET("GET /", "A : b\r\n"), 400);
	check_refused(GET("GET /", "A\t: b\r\n"), 400);
	check_refused(GET("GET /", " A: b\r\n"), 400);
	check_refused(GET("GET /", ": b\r\n"), 400);
	check_refused(GET("GET /", "A\r\n"), 400);
	check_refused(GET("GET /", "A\x80: b\r\n"), 400);
	check_refused(GET("GET /", "A: \x7F\r\n"), 400);
	check_refused(GET("GET /", "A: \x01\r\n"), 400);
	check_refused("GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
	/* Refused when it comes, not when the line ends. */
	check_refused("\x16\x03\x01", 400);
	check_refused("GET / HTTP/1.1\r\nA: \x01", 400);
}

#define POST(fields, body) GET("POST /", fields) body

TEST(framing)
{
	check_text(POST("Content-Length: 3\r\n", "abcGET"),
	    "POST / ? @a 1.1 length=3\nHost: a\r\nContent-Length: 3\r\nabcend of /\n");
	check_text(POST("Content-Length: 0\r\n", ""),
	    "POST / ? @a 1.1 length=0\nHost: a\r\nContent-Length: 0\r\nend of /\n");
	check_text(POST("Content-Length: 003\r\n", "abc"), "POST / ? @a 1.1 length=3\n");
	check_text(POST("transfer-encoding: CHUNKED\r\n",
	    "3;a;b=c;d=\"e\\\"\" ; f = g\r\nabc\r\nA\r\n0123456789\r\n00\r\nT: u\r\n\r\nGET"),
	    "POST / ? @a 1.1 length=-1 chunked\nHost: a\r\ntransfer-encoding: CHUNKED\r\n"
	    "abc0123456789end of /\n");

	check_refused(POST("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400);
	check_refused(POST("Content-Length: 3\r\ncontent-length: 4\r\n", "abc"), 400);
	check_refused(POST("Content-Length: 3, 3\r\n", "abc"), 400);
	check_refused(POST("Content-Length: +3\r\n", "abc"), 400);
	check_refused(POST("Content-Length: -3\r\n", "abc"), 400);
	check_refused(POST("Content-Length: -0\r\n", "abc"), 400);
	check_refused(POST("Content-Length: 0x3\r\n", "abc"), 400);
	check_refused(POST("Content-Length: 3 \xa0\r\n", "abc"), 400);
	check_refused(POST("Content-Length:\r\n", "abc"), 400);
	check_refused(POST("Content-Length: 9223372036854775808\r\n", "abc"), 413);
	check_refused(POST("Content-Length: 18446744073709551619\r\n", "abc"), 413);
	check_refused(POST("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400);
	check_refused(POST("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), 400);
	check_refused(POST("Transfer-Encoding: \r\nContent-Length: 3\r\n", "abc"), 400);
	check_refused(POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""), 400);
	check_refused(POST("Transfer-Encoding: chunked, chunked\r\n", ""), 501);
	check_refused(POST("Transfer-Encoding: gzip, chunked\r\n", ""), 501);
	check_refused(POST("Transfer-Encoding: chunked;a\r\n", ""), 501);
	check_refused(POST("Transfer-Encoding: identity\r\n", ""), 501);
	check_refused(POST("Transfer-Encoding:\r\n", ""), 501);
	check_refused(POST("Transfer-Encoding: \x0b" "chunked\r\n", ""), 400);
	check_refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

#define CHUNKED(body) POST("Transfer-Encoding: chunked\r\n", body)

TEST(chunks)
{
	check_refused(CHUNKED("\r\n"), 400);
	check_refused(CHUNKED("+3\r\nabc\r\n"), 400);
	check_refused(CHUNKED("-0\r\n\r\n"), 400);
	check_refused(CHUNKED("0x3\r\nabc\r\n"), 400);
	check_refused(CHUNKED(" 3\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3 \r\nabc\r\n"), 400);
	check_refused(CHUNKED("3_0\r\nabc\r\n"), 400);
	check_refused(CHUNKED("g\r\n"), 400);
	check_refused(CHUNKED("3\nabc\r\n"), 400);
	check_refused(CHUNKED("3\r\nabcd\r\n"), 400);
	check_refused(CHUNKED("3\r\nabc\n"), 400);
	check_refused(CHUNKED("3\r\nabc\r\r"), 400);
	check_refused(CHUNKED("3\r\nabc0\r\n"), 400);
	check_refused(CHUNKED("3\r\nabc\r\n\r\n"), 400);
	check_refused(CHUNKED("3;\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a=\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a \r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a=\"b\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a=\"b\\\"\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a=\"b\"c\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a\nb\r\nabc\r\n"), 400);
	check_refused(CHUNKED("3;a\r;b\r\nabc\r\n"), 400);
	check_refused(CHUNKED("0\r\nA\r\n\r\n"), 400);
	check_refused(CHUNKED("0\r\nA : b\r\n\r\n"), 400);
	check_refused(CHUNKED("0\r\nA: b\r\n c\r\n\r\n"), 400);
	check_refused(CHUNKED("0\r\n\n"), 400);
	/* 2^64 and 2^64 + 3 are not 0 and 3. */
	check_refused(CHUNKED("10000000000000000\r\n\r\n"), 400);
	check_refused(CHUNKED("10000000000000003\r\nabc\r\n"), 400);
	check_refused(CHUNKED("1\r\na\r\nffffffffffffffff\r\n"), 413);
}

TEST(connection)
{
	check_text(GET("GET /", "Connection: Close\r\n"), "GET / ? @a 1.1 length=-1 close\n");
	check_text(GET("GET /", "Connection: x,, close ,y\r\n"), "GET / ? @a 1.1 length=-1 close\n");
	check_text(GET("GET /", "Connection: x\r\nConnection: close\r\n"),
	    "GET / ? @a 1.1 length=-1 close\n");
	check_text(GET("GET /", "Connection: closed\r\n"), "GET / ? @a 1.1 length=-1\n");
	check_text("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / ? @ 1.0 length=-1\n");
	check_text("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
	    "GET / ? @ 1.0 length=-1 close\n");
	check_text(POST("Expect: 100-Continue\r\nContent-Length: 1\r\n", ""),
	    "POST / ? @a 1.1 length=1 expect\n");
	check_text(POST("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", ""),
	    "POST / ? @a 1.1 length=-1 chunked expect\n");
	check_text(POST("Expect: 100-continue\r\n", ""), "POST / ? @a 1.1 length=-1\n");
	check_text("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
	    "POST / ? @ 1.0 length=1 close\n");
	check_refused(POST("Expect: cake\r\n", ""), 417);
	check_refused(POST("Expect:\r\n", ""), 417);
	check_text(GET("GET /", "Connection: keep-alive, Upgrade\r\nUpgrade: x, WebSocket\r\n") "\x81\x00",
	    "GET / ? @a 1.1 length=-1 websocket\nHost: a\r\n"
	    "Connection: keep-alive, Upgrade\r\nUpgrade: x, WebSocket\r\nend of /\n");
	check_text(GET("GET /", "Upgrade: websocket\r\n"), "GET / ? @a 1.1 length=-1\n");
	check_text(GET("GET /", "Connection: upgrade\r\nUpgrade: h2c\r\n"), "GET / ? @a 1.1 length=-1\n");
	check_text(GET("POST /", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
	    "POST / ? @a 1.1 length=-1\n");
}

TEST(pipeline)
{
	struct str in = S(GET("GET /1", "") POST("Content-Length: 1\r\n", "x") "\r\n"
	    GET("GET /3", "Connection: close\r\n") GET("GET /4", "")), body;
	struct http h;

	check_text(GET("GET /1", "") POST("Content-Length: 1\r\n", "x") CHUNKED("1\r\ny\r\n0\r\n\r\n")
	    GET("GET /3", "Connection: close\r\n") GET("GET /4", "") "\x01",
	    "GET /1 ? @a 1.1 length=-1\nHost: a\r\nend of /1\n"
	    "POST / ? @a 1.1 length=1\nHost: a\r\nContent-Length: 1\r\nxend of /\n"
	    "POST / ? @a 1.1 length=-1 chunked\nHost: a\r\nTransfer-Encoding: chunked\r\nyend of /\n"
	    "GET /3 ? @a 1.1 length=-1 close\nHost: a\r\nConnection: close\r\nend of /3\n");
	/* No request after a refused one, and none made of its body. */
	check_text(GET("GET /1", "") "GET /2 HTTP/1.1\r\n\r\n" GET("GET /3", ""),
	    "GET /1 ? @a 1.1 length=-1\nHost: a\r\nend of /1\nrefused 400 There is no Host field.\n");

	/* While it waits a connection holds nothing; while it is answered, its head. */
	http_init(&h, BODY_MAX);
	CHECK(http_idle(&h) && h.head.p == NULL);
	CHECK(http_next(&h, &in, &body) == HTTP_HEAD || FAULTED());
	CHECK(!http_idle(&h));
	CHECK(http_next(&h, &in, &body) == HTTP_END || FAULTED());
	CHECK(h.head.p != NULL || FAULTED());
	if (!FAULTED())
		CHECK_STR(h.req.path, "/1");
	CHECK(http_next(&h, &in, &body) == HTTP_HEAD || FAULTED());
	CHECK(http_next(&h, &in, &body) == HTTP_BODY || FAULTED());
	CHECK(http_next(&h, &in, &body) == HTTP_END || FAULTED());
	body = STR_NONE;
	CHECK(http_next(&h, &body, &body) == HTTP_MORE || FAULTED());
	CHECK((http_idle(&h) && h.head.p == NULL && h.extra.p == NULL) || FAULTED());
	http_free(&h);
}

/* ---- limits -------------------------------------------------------------------------------- */

/* A text in which '~' stands for n times fill. */
static int
status_of(const char *text, const char *fill, size_t n, uint64_t body_max)
{
	struct seen s = { .text = BUF_INIT(DOC_MAX), .bodies = BUF_INIT(DOC_MAX) };
	struct buf b = BUF_INIT(DOC_MAX);
	struct str after = str_z(text), before;
	struct http h;
	int status;

	http_init(&h, body_max);
	str_cut(&after, '~', &before);
	buf_str(&b, before);
	while (n--)
		buf_puts(&b, fill);
	buf_str(&b, after);
	feed(&h, buf_view(&b), &s);
	status = s.status ? s.status : s.ends ? 0 : -1;
	http_free(&h);
	/* The same octet by octet. */
	http_init(&h, body_max);
	seen_reset(&s);
	for (size_t i = 0; i < b.n; i++)
		feed(&h, str_sub(buf_view(&b), i, 1), &s);
	CHECK(status == (s.status ? s.status : s.ends ? 0 : -1) || FAULTED());
	http_free(&h);
	seen_free(&s);
	buf_free(&b);
	return status;
}

static void
check_limit(const char *text, const char *fill, size_t max, int status)
{
	int at = status_of(text, fill, max, BODY_MAX), beyond = status_of(text, fill, max + 1, BODY_MAX);

	if (FAULTED())
		return;
	CHECK(at == 0 && beyond == status);
	if (at != 0 || beyond != status)
		printf("  %.40s…: %d at the limit, %d beyond\n", text, at, beyond);
}

TEST(limits)
{
	const char *head = "GET / HTTP/1.1\r\nHost: a\r\nB: ~\r\n\r\n";

	check_limit(head, "x", HTTP_HEAD_MAX - (strlen(head) - 1), 431);
	check_limit("GET /~ HTTP/1.1\r\nHost: a\r\n\r\n", "x", HTTP_TARGET_MAX - 1, 414);
	check_limit("GET /?~ HTTP/1.1\r\nHost: a\r\n\r\n", "x", HTTP_TARGET_MAX - 2, 414);
	check_limit("~ / HTTP/1.1\r\nHost: a\r\n\r\n", "X", HTTP_METHOD_MAX, 501);
	check_limit("GET / HTTP/1.1\r\nHost: a\r\n~\r\n", "A:\r\n", HTTP_FIELDS_MAX - 1, 431);
	check_limit("~GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n", HTTP_BLANK_MAX, 400);
	check_limit(CHUNKED("1;~\r\na\r\n0\r\n\r\n"), "x", HTTP_EXTRA_MAX - 1, 400);
	check_limit(CHUNKED("~0\r\n\r\n"), "1;xxxxxxx\r\na\r\n", HTTP_EXTRA_MAX / 8, 400);
	check_limit(CHUNKED("0\r\nT:~\r\n\r\n"), "x", HTTP_EXTRA_MAX - 2, 431);
	check_limit(CHUNKED("0\r\n~\r\n"), "T:xx\r\n", HTTP_EXTRA_MAX / 4, 431);
	check_limit(CHUNKED("1;xxx\r\na\r\n0\r\n~\r\n"), "T:xx\r\n", HTTP_EXTRA_MAX / 4 - 1, 431);
	check_limit(CHUNKED("~1\r\na\r\n0\r\n\r\n"), "0", HTTP_CHUNK_DIGITS_MAX - 1, 400);
	check_limit(CHUNKED("~0\r\n\r\n"), "2\r\nab\r\n", BODY_MAX / 2, 413);
	CHECK(status_of(GET("GET /", "") "~", "\r\n", HTTP_BLANK_MAX, 0) == 0 || FAULTED());

	/* Without an end of line: what is too long is refused before it ends. */
	CHECK(status_of("GET /~", "x", HTTP_HEAD_MAX - 5, 0) == -1 || FAULTED());
	CHECK(status_of("GET /~", "x", HTTP_HEAD_MAX - 4, 0) == 414 || FAULTED());
	CHECK(status_of("GET / HTTP/1.1\r\nA: ~", "x", HTTP_HEAD_MAX - 19, 0) == -1 || FAULTED());
	CHECK(status_of("GET / HTTP/1.1\r\nA: ~", "x", HTTP_HEAD_MAX - 18, 0) == 431 || FAULTED());
	CHECK(status_of(CHUNKED("1;~"), "x", (size_t)2 * HTTP_EXTRA_MAX, 10) == 400 || FAULTED());

	CHECK(status_of(POST("Content-Length: 5\r\n", "12345~"), "", 0, 5) == 0 || FAULTED());
	CHECK(status_of(POST("Content-Length: 5\r\n", "12345~"), "", 0, 4) == 413 || FAULTED());
	CHECK(status_of(POST("Content-Length: 0\r\n", "~"), "", 0, 0) == 0 || FAULTED());
	CHECK(status_of(POST("Content-Length: 9223372036854775807\r\n", "~"), "", 0, UINT64_MAX) == -1 ||
	    FAULTED());
	CHECK(status_of(CHUNKED("ffffffffffffffff\r\n~"), "", 0, UINT64_MAX) == -1 || FAULTED());
	CHECK(status_of(CHUNKED("0\r\n\r\n~"), "", 0, 0) == 0 || FAULTED());
	/* The body's limit counts each request by itself. */
	CHECK(status_of("~", CHUNKED("3\r\nabc\r\n0\r\n\r\n"), 5, 3) == 0 || FAULTED());
	CHECK(status_of("~", CHUNKED("0;xxxx\r\nA:bb\r\n\r\n"), HTTP_EXTRA_MAX, 3) == 0 || FAULTED());
}

/* ---- reading ------------------------------------------------------------------------------ */

TEST(fields)
{
	struct str in = S(GET("GET /", "A: 1\r\nb:  two \t words\t\r\nA: 2\r\nEmpty:\r\n"
	    "L: x, \"y, z\" ,,w\r\nl: \"q\\\", \", v\r\n")), body;
	struct http_field f;
	struct http h;
	size_t at = 0;
	unsigned n = 0;

	http_init(&h, 0);
	if (http_next(&h, &in, &body) != HTTP_HEAD) {
		CHECK(FAULTED());
		http_free(&h);
		return;
	}
	while (http_field_next(&h.req, &at, &f))
		n++;
	CHECK(n == 7);
	CHECK_STR(f.name, "l");
	CHECK_STR(http_field(&h.req, "B"), "two \t words");
	CHECK_STR(http_field(&h.req, "hOSt"), "a");
	CHECK(http_field(&h.req, "Empty").p != NULL && http_field(&h.req, "Empty").n == 0);
	CHECK(http_field(&h.req, "A").p == NULL);       /* which of the two? */
	CHECK(http_field(&h.req, "C").p == NULL);
	CHECK(http_field(&h.req, "Hos").p == NULL);
	CHECK(http_list_has(&h.req, "L", "X") && http_list_has(&h.req, "L", "w"));
	CHECK(http_list_has(&h.req, "L", "v") && http_list_has(&h.req, "A", "2"));
	CHECK(!http_list_has(&h.req, "L", "z\"") && !http_list_has(&h.req, "L", "y"));
	CHECK(!http_list_has(&h.req, "L", "") && !http_list_has(&h.req, "C", "x"));
	CHECK(!http_list_has(&h.req, "b", "two"));
	http_free(&h);
	for (int i = 0; i < 2; i++) {
		check_refused(GET("GET /", "Authorization: a\r\nauthorization: a\r\n"), 400);
		check_refused(GET("GET /", "Content-Type: a\r\nA: b\r\nContent-Type: c\r\n"), 400);
	}
}

static bool
cookie(const char *host, const char *fields, const char *want)
{
	struct buf b = BUF_INIT(1000);
	struct str in, body, value = STR_NONE;
	struct http h;
	bool near = false;

	buf_fmt(&b, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, fields);
	in = buf_view(&b);
	http_init(&h, 0);
	if (http_next(&h, &in, &body) == HTTP_HEAD) {
		value = http_cookie(&h.req, "sid");
		near = http_to_loopback(&h.req);
		CHECK(want ? str_eqz(value, want) && value.p : value.p == NULL);
	} else {
		CHECK(FAULTED());
	}
	http_free(&h);
	buf_free(&b);
	return near;
}

TEST(cookies)
{
	cookie("a", "", NULL);
	cookie("a", "Cookie: sid=1\r\n", "1");
	cookie("a", "Cookie: a=b; sid=1\r\n", "1");
	cookie("a", "Cookie: a=b;sid=1=2;c\r\n", "1=2");
	cookie("a", "Cookie: ;; sid= ;\r\n", "");
	cookie("a", "Cookie: \"a; sid=1; b\"\r\n", "1");
	cookie("a", "Cookie: sid\r\n", NULL);
	cookie("a", "Cookie: sid =1; SID=2; xsid=3; =4\r\n", NULL);
	cookie("a", "Cookie: sid=1; sid=1\r\n", NULL);
	cookie("a", "Cookie: sid=1; sid=\r\n", NULL);
	cookie("a", "Cookie: sid=1\r\nCookie: a=b\r\n", NULL);
}

TEST(loopback_names)
{
	static const char *const ours[] = { "localhost", "LocalHost:3000", "127.0.0.1", "127.0.0.2:80", "[::1]", "[::1]:3000" };
	static const char *const others[] = { "localhost.example", "example", "10.0.0.1", "127.0.0.1.example", "[::2]", "1270.0.0.1",
	    "localhost.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		CHECK(cookie(ours[i], "", NULL) || FAULTED());
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		CHECK(!cookie(others[i], "", NULL));
}

static int
accepts(const char *fields, const char *name, const char *offer)
{
	struct buf b = BUF_INIT(1000);
	struct str in, body;
	struct http h;
	int q = -2;

	buf_fmt(&b, "GET / HTTP/1.0\r\n%s\r\n", fields);
	in = buf_view(&b);
	http_init(&h, 0);
	if (http_next(&h, &in, &body) == HTTP_HEAD)
		q = http_accepts(&h.req, name, offer);
	http_free(&h);
	buf_free(&b);
	return q;
}

TEST(accepts)
{
	static const struct {
		const char *value, *offer;
		int q;
	} cases[] = {
		{ "text/event-stream", "text/event-stream", 1000 },
		{ "Text/Event-Stream;q=0.5", "text/event-stream", 500 },
		{ "text/html, */*;q=0.1", "text/event-stream", 100 },
		{ "*/*;q=0.8, text/*;q=0.25,text/event-stream ; q=0", "text/event-stream", 0 },
		{ "text/*;q=0.25, */*", "text/event-stream", 250 },
		{ "text/*;q=0, */*", "text/event-stream", 0 },
		{ "application/*", "text/event-stream", 0 },
		{ "text/event-streams", "text/event-stream", 0 },
		{ "text/plain;x=\", text/event-stream\"", "text/event-stream", 0 },
		{ "text/event-stream;charset=utf-8;Q=0.001", "text/event-stream", 1 },
		{ "text/event-stream;q=2, */*;q=0.5", "text/event-stream", 500 },
		{ "text/event-stream;q=0.1234", "text/event-stream", 0 },
		{ "text/event-stream;q=", "text/event-stream", 0 },
		{ "text/event-stream;q=1.001", "text/event-stream", 0 },
		{ "text/event-stream;q=1.", "text/event-stream", 1000 },
		{ "text/event-stream;q=0x5", "text/event-stream", 0 },
		{ "text/event-stream;q=0.x", "text/event-stream", 0 },
		{ "", "text/event-stream", 0 },
		{ ", ,;", "text/event-stream", 0 },
		{ "deflate, gzip;q=0.300", "gzip", 300 },
		{ "gzip;q=0, *", "gzip", 0 },
		{ "br, *;q=0.2", "gzip", 200 },
		{ "identity", "gzip", 0 },
		{ "*/*", "gzip", 0 },
		{ "*", "text/html", 0 },
	};
	char line[200];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int q;

		snprintf(line, sizeof(line), "Accept: %s\r\n", cases[i].value);
		q = accepts(line, "accept", cases[i].offer);
		if (q != cases[i].q && !FAULTED()) {
			CHECK(q == cases[i].q);
			printf("  %s for %s: %d\n", cases[i].value, cases[i].offer, q);
		}
	}
	CHECK(accepts("B: c\r\n", "Accept", "a/b") == -1 || FAULTED());
	CHECK(accepts("Accept: a/b;q=0\r\nAccept: c/d, a/*\r\n", "Accept", "a/b") == 0 || FAULTED());
	CHECK(accepts("Accept: a/b;q=0\r\nAccept: c/d, a/*\r\n", "Accept", "c/d") == 1000 || FAULTED());
}

static void
check_query(const char *query, enum err want, const char *value)
{
	struct buf b = BUF_INIT(100);
	enum err e;

	buf_puts(&b, "kept:");
	e = b.err == OK ? http_query(str_z(query), "a b", &b) : b.err;
	if (!FAULTED()) {
		CHECK_ERR(e, want);
		CHECK_STR(str_sub(buf_view(&b), 0, 5), "kept:");
		CHECK_STR(str_sub(buf_view(&b), 5, b.n), value);
	}
	buf_free(&b);
}

/* bad: the name that is in no "limit a b"; NULL when all are. */
static void
check_known(const char *query, const char *bad)
{
	struct buf b = BUF_INIT(8);
	enum err e = http_query_known(str_z(query), "limit ab", &b);

	if (!FAULTED()) {
		CHECK_ERR(e, bad ? ERR_NOTFOUND : OK);
		CHECK_STR(buf_view(&b), bad ? bad : "");
	}
	buf_free(&b);
}

static void
check_path(const char *path, const char *want)
{
	struct buf b = BUF_INIT(100);
	enum err e;

	buf_puts(&b, "/./");            /* what stands there already is not looked at */
	e = b.err == OK ? http_path_decode(str_z(path), &b) : b.err;
	if (!FAULTED()) {
		CHECK_ERR(e, want ? OK : ERR_PARSE);
		CHECK_STR(str_sub(buf_view(&b), 3, b.n), want ? want : "");
	}
	buf_free(&b);
}

TEST(decoding)
{
	check_query("x=1&a+b=c%20d+e%2b&y", OK, "c d e+");
	check_query("a%20b", OK, "");
	check_query("&&a+b==&", OK, "=");
	check_query("a+b=%zz", ERR_PARSE, "");
	check_query("a+b=%2", ERR_PARSE, "");
	check_query("%=1&a+b=c", ERR_PARSE, "");
	check_query("a+b=c&a%20b=c", ERR_PARSE, "");
	check_query("a=b", ERR_NOTFOUND, "");
	check_query("", ERR_NOTFOUND, "");
	check_query("a+b=0123456789012345678901234567890123456789012345678901234567890123456789"
	    "01234567890123456789012345", ERR_LIMIT, "");

	check_known("", NULL);
	check_known("&&", NULL);
	check_known("limit=1&ab=&limit", NULL);
	check_known("li%6dit=x%zz", NULL);
	check_known("ab=1&c=2&d=3", "c");
	check_known("a=1", "a");
	check_known("limitab", "limitab");
	check_known("limit ab", "limit ab");
	check_known("Limit=1", "Limit");
	check_known("%zz=1", "%zz");
	check_known("0123456789", "01234567");

	check_path("/", "/");
	check_path("/a%20b/c//%C3%A4+", "/a b/c//\xC3\xA4+");
	check_path("/.a/..b/c..", "/.a/..b/c..");
	check_path("/...", "/...");
	check_path("", NULL);
	check_path("*", NULL);
	check_path("a/b", NULL);
	check_path("/.", NULL);
	check_path("/..", NULL);
	check_path("/a/./b", NULL);
	check_path("/a/../b", NULL);
	check_path("/%2e%2E/b", NULL);
	check_path("/a/.%2e", NULL);
	check_path("/a%2Fb", NULL);
	check_path("/a%5cb", NULL);
	check_path("/a%00", NULL);
	check_path("/a%0a", NULL);
	check_path("/a%09", NULL);
	check_path("/a%7f", NULL);
	check_path("/a%ff", NULL);
	check_path("/a%c0%af", NULL);
	check_path("/a%", NULL);
	check_path("/a%4", NULL);
	check_path("/a%4g", NULL);
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void
check_field_refused(struct str value)
{
	struct buf b = BUF_INIT(1000);

	http_put_field(&b, "A", value);
	CHECK(b.err == ERR_PARSE || FAULTED());
	CHECK(b.n == 0 || FAULTED());
	buf_free(&b);
}

TEST(answers)
{
	struct buf b = BUF_INIT(1000);

	http_put_status(&b, 200);
	http_put_date(&b, INT64_C(784111777) * US_PER_S);
	http_put_field(&b, "Content-Type", S("text/plain;\tcharset=\xC3\xA4"));
	http_put_field(&b, "Empty", STR_NONE);
	http_put_number(&b, "Content-Length", UINT64_MAX);
	http_put_end(&b);
	http_put_chunk(&b, S("0123456789abcdef\r\n"));
	http_put_chunk(&b, STR_NONE);
	http_put_last_chunk(&b);
	if (!FAULTED())
		CHECK_STR(buf_view(&b), "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
		    "Content-Type: text/plain;\tcharset=\xC3\xA4\r\nEmpty: \r\n"
		    "Content-Length: 18446744073709551615\r\n\r\n"
		    "12\r\n0123456789abcdef\r\n\r\n0\r\n\r\n");
	buf_reset(&b);
	http_put_status(&b, 299);
	http_put_date(&b, INT64_C(1709251199) * US_PER_S);     /* a leap day's last second */
	http_put_date(&b, 0);
	http_put_date(&b, -1);
	if (!FAULTED())
		CHECK_STR(buf_view(&b), "HTTP/1.1 299 \r\nDate: Thu, 29 Feb 2024 23:59:59 GMT\r\n"
		    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nDate: Wed, 31 Dec 1969 23:59:59 GMT\r\n");
	buf_free(&b);
	CHECK(strcmp(http_reason(431), "Request Header Fields Too Large") == 0);
	CHECK(strcmp(http_reason(0), "") == 0);

	check_field_refused(S("b\r\nSet-Cookie: c"));
	check_field_refused(S("b\n"));
	check_field_refused(S("b\r"));
	check_field_refused(S("b\0"));
	check_field_refused(S("\x7F"));
}

/* What answers are put in chunks, requests are read from chunks: the one feeds the other. */
TEST(round_trip)
{
	struct seen s = { .text = BUF_INIT(DOC_MAX), .bodies = BUF_INIT(DOC_MAX) };
	struct buf b = BUF_INIT(DOC_MAX), want = BUF_INIT(DOC_MAX);

	buf_puts(&b, CHUNKED(""));
	for (size_t n = 0; n < 40; n++) {
		struct str piece = str_sub(S("The quick brown fox jumps\r\n0\r\n\r\nGET /"), 0, n);

		http_put_chunk(&b, piece);
		buf_str(&want, piece);
	}
	http_put_last_chunk(&b);
	observe_all(buf_view(&b), &s);
	CHECK(s.ends == 1 || FAULTED());
	CHECK(str_eq(buf_view(&want), buf_view(&s.bodies)) || FAULTED());
	seen_free(&s);
	buf_free(&b);
	buf_free(&want);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(llhttp);
	RUN(picohttpparser);
	RUN(smuggling);
	RUN(targets);
	RUN(lines);
	RUN(framing);
	RUN(chunks);
	RUN(connection);
	RUN(pipeline);
	RUN(limits);
	RUN(fields);
	RUN(cookies);
	RUN(loopback_names);
	RUN(accepts);
	RUN(decoding);
	RUN(answers);
	RUN(round_trip);
	return TEST_END();
}
