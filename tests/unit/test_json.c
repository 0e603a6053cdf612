/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_json.c - JSON: parser, path reads, numbers, writer, and the conformance files. */
#include "test.h"

#include "json_print.h"

#include <dirent.h>
#include <float.h>
#include <math.h>

#define DOC_MAX ((size_t)32 << 20)

/* Parses text into a fresh arena, which the caller frees; NULL when it is refused. */
static const struct json *
parse(struct arena *a, struct str text)
{
	const struct json *v = NULL;

	arena_init(a, DOC_MAX);
	IGNORE(json_parse(a, text, &v, NULL)); /* NULL says it */
	return v;
}

static enum err
parse_err(struct str text, struct json_error *e)
{
	struct arena a = ARENA_INIT(DOC_MAX);
	const struct json *v = NULL;
	enum err err = json_parse(&a, text, &v, e);

	CHECK((err == OK) == (v != NULL));
	arena_free(&a);
	return err;
}

/* ---- parser and reads ---------------------------------------------------------- */

TEST(reads)
{
	struct str text = S(" {\"ok\":true, \"n\":-12, \"f\":1.5, \"s\":\"h\\u00e9\\n\","
	    "\"a\":[10,{\"b\":[null,\"x\"]}], \"dup\":1, \"dup\":2, \"a.b\":3, \"\":4} ");
	struct arena a;
	const struct json *v = parse(&a, text), *arr;

	if (v) {
		CHECK(json_is(v, JSON_OBJECT) && v->count == 9 && json_at(v, "") == v);
		CHECK(json_bool(v, "ok", false) && json_bool(v, "n", true));
		CHECK(json_i64(v, "n", 0) == -12 && json_i64(v, "f", 7) == 7);
		CHECK(json_i64(v, "ok", 7) == 7 && json_i64(v, "none", 7) == 7);
		CHECK(json_f64(v, "f", 0) == 1.5 && json_f64(v, "s", 2.0) == 2.0);
		CHECK_STR(json_str(v, "s", STR_NONE), "h\xC3\xA9\n");
		CHECK_STR(json_str(v, "n", S("default")), "default");
		CHECK_STR(json_str(v, "a.1.b.1", STR_NONE), "x");
		CHECK(json_is(json_at(v, "a.1.b.0"), JSON_NULL));
		CHECK(json_at(v, "a.2") == NULL && json_at(v, "a.x") == NULL);
		CHECK(json_at(v, "a.-1") == NULL && json_at(v, "s.0") == NULL);
		CHECK(json_at(NULL, "a") == NULL && json_get(NULL, S("a")) == NULL);
		CHECK(json_i64(v, "dup", 0) == 2);      /* the last one wins, both stay */
		CHECK(json_i64(json_get(v, S("a.b")), "", 0) == 3);
		CHECK(json_i64(json_get(v, S("")), "", 0) == 4);
		arr = json_get(v, S("a"));
		CHECK_STR(arr ? arr->raw : STR_NONE, "[10,{\"b\":[null,\"x\"]}]");
		CHECK_STR(json_at(v, "a.0")->raw, "10");
		CHECK(v->raw.p == text.p + 1 && v->raw.n == text.n - 2);
		/* Without escapes a string is a view of the input. */
		CHECK(json_at(v, "a.1.b.1")->s.p > text.p);
		CHECK(json_at(v, "a.1.b.1")->s.p < text.p + text.n);
	} else {
		CHECK(FAULTED());
	}
	arena_free(&a);
}

TEST(escapes)
{
	static const char all[] = "\"\\\"\\\\\\/\\b\\f\\n\\r\\t"
	    "\\u0041\\u00E9\\u20ac\\ud83d\\uDE00\\u0000z\"";
	struct arena a;
	const struct json *v = parse(&a, str_z(all));

	if (v)
		CHECK(str_eq(v->s, S("\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\0z")));
	else
		CHECK(FAULTED());
	arena_free(&a);
	CHECK_ERR(parse_err(S("\"\\ud800\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\ud800\\u0041\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\udc00\\ud800\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\ud83d\\udbff\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\ud83d\\ue000\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\u12g4\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\u123"), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\"), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\\\xC3\xA9\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"1234567\x1F" "abcdefgh\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"12345678\xC3" "abcdefgh\""), NULL), ERR_PARSE);
	CHECK_ERR(parse_err(S("\"\xED\xA0\x80\""), NULL), ERR_PARSE);
}

static void
check_error(const char *text, unsigned line, unsigned column, const char *what)
{
	struct json_error e = { 0, 0, 0, "" };

	CHECK_ERR(parse_err(str_z(text), &e), ERR_PARSE);
	if (FAULTED())
		return;
	CHECK(e.line == line && e.column == column);
	CHECK_STR(str_z(e.what), what);
}

TEST(errors)
{
	check_error("", 1, 1, "unexpected end: expected a value");
	check_error("{\n \"a\": tru}", 2, 7, "expected a value");
	check_error("[1,\n2,]", 2, 3, "expected a value");
	check_error("[1 2]", 1, 4, "expected ',' or ']'");
	check_error("{\"a\":1 \"b\"", 1, 8, "expected ',' or '}'");
	check_error("{\"a\" 1}", 1, 6, "expected ':' after a member name");
	check_error("{\"a\":1,}", 1, 8, "expected a member name in double quotes");
	check_error("[1]\n x", 2, 2, "text behind the value");
	check_error("[\"a\n\"]", 1, 4, "control character in a string");
	check_error("[\"ab\\x\"]", 1, 5, "unknown escape in a string");
	check_error("[\"ab\xFF\"]", 1, 5, "ill-formed UTF-8");
	check_error("[\"ab", 1, 2, "string without its closing quote");
	check_error("\xEF\xBB\xBF{}", 1, 1, "byte order mark before the value");
	check_error("[-]", 1, 3, "expected a digit");
	check_error("[01]", 1, 3, "expected ',' or ']'");
}

TEST(limits)
{
	char text[2 * JSON_DEPTH_MAX + 4], digits[JSON_NUMBER_MAX + 2];
	struct arena a = ARENA_INIT(200);
	const struct json *v = NULL;

	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	CHECK_OK(parse_err(str_make(text + 1, 2 * JSON_DEPTH_MAX), NULL));
	CHECK_ERR(parse_err(str_make(text, 2 * JSON_DEPTH_MAX + 2), NULL), ERR_LIMIT);
	memset(digits, '7', sizeof(digits));
	CHECK_OK(parse_err(str_make(digits, JSON_NUMBER_MAX), NULL));
	CHECK_ERR(parse_err(str_make(digits, JSON_NUMBER_MAX + 1), NULL), ERR_LIMIT);
	CHECK_ERR(json_parse(&a, S("[1,2,3,4]"), &v, NULL), ERR_LIMIT);
	CHECK(v == NULL);
	arena_free(&a);
}

/* ---- numbers -------------------------------------------------------------------- */

static bool
is_i64(const char *text, int64_t want)
{
	struct arena a;
	const struct json *v = parse(&a, str_z(text));
	int64_t i = 0;
	bool good = !v || (json_to_i64(v, &i) == OK && i == want);

	arena_free(&a);
	return good;
}

static bool
no_i64(const char *text)
{
	struct arena a;
	const struct json *v = parse(&a, str_z(text));
	int64_t i = 42;
	bool good = !v || (json_to_i64(v, &i) == ERR_PARSE && i == 42);

	arena_free(&a);
	return good;
}

TEST(integers)
{
	CHECK(is_i64("0", 0) && is_i64("-0", 0) && is_i64("0.000", 0) && is_i64("0e99999999", 0));
	CHECK(is_i64("9223372036854775807", INT64_MAX) && no_i64("9223372036854775808"));
	CHECK(is_i64("-9223372036854775808", INT64_MIN) && no_i64("-9223372036854775809"));
	CHECK(is_i64("9007199254740993", 9007199254740993));
	CHECK(is_i64("1.0", 1) && is_i64("1e3", 1000) && is_i64("12.50e+1", 125));
	CHECK(is_i64("1000e-3", 1) && is_i64("-0.0012E4", -12));
	CHECK(is_i64("1E18", 1000000000000000000));
	CHECK(is_i64("922337203685477580.7e1", INT64_MAX));
	CHECK(is_i64("100000000000000000000000e-23", 1));
	CHECK(no_i64("0.5") && no_i64("1e-1") && no_i64("125e-1"));
	CHECK(no_i64("1e19") && no_i64("1e999999999"));
	CHECK(no_i64("1e-999999999999999999999") && no_i64("\"1\"") && no_i64("null"));
	CHECK(json_to_i64(NULL, &(int64_t){ 0 }) == ERR_PARSE);
}

TEST(doubles)
{
	static const double values[] = { 0, 1, -1, 0.1, 1.0 / 3, 1e21, 1e22, 123456789012345678.0,
		5e-324, DBL_MIN, DBL_MAX, -DBL_MAX, 2.5, 100, 1e-7, 0.30000000000000004 };
	struct buf b = BUF_INIT(1000);

	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		struct arena a;
		struct jw w;
		const struct json *v;

		buf_reset(&b);
		jw_init(&w, &b);
		jw_f64(&w, values[i]);
		v = parse(&a, buf_view(&b));
		CHECK(json_f64(v, "", 99) == values[i]);
		arena_free(&a);
	}
	buf_free(&b);
}

/* ---- writer ---------------------------------------------------------------------- */

TEST(writer)
{
	struct buf b = BUF_INIT(10000);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kstr(&w, "s", S("q\" b\\ n\n\x01\x7F \xC3\xA9 \xFFz"));
	jw_kz(&w, "z", NULL);
	jw_ki64(&w, "i", INT64_MIN);
	jw_kbool(&w, "b", false);
	jw_kraw(&w, "raw", S("[1]"));
	jw_kraw(&w, "none", STR_NONE);
	jw_key_str(&w, S("k\t\0"));
	jw_arr(&w);
	jw_arr(&w);
	jw_end_arr(&w);
	jw_obj(&w);
	jw_end_obj(&w);
	jw_f64(&w, 0.1);
	jw_f64(&w, (double)NAN);
	jw_f64(&w, (double)INFINITY);
	jw_str(&w, STR_NONE);
	jw_null(&w);
	jw_end_arr(&w);
	jw_end_obj(&w);
	CHECK_OK(jw_done(&w));
	if (b.err == OK)
		CHECK_STR(buf_view(&b), "{\"s\":\"q\\\" b\\\\ n\\n\\u0001\x7F"
		    " \xC3\xA9 \xEF\xBF\xBDz\","
		    "\"z\":null,\"i\":-9223372036854775808,\"b\":false,\"raw\":[1],\"none\":null,"
		    "\"k\\t\\u0000\":[[],{},0.1,null,null,\"\",null]}");
	buf_free(&b);
}

TEST(writer_limits)
{
	struct buf b = BUF_INIT(10000), tiny = BUF_INIT(8);
	struct jw w;

	jw_init(&w, &b);
	for (int i = 0; i < JSON_DEPTH_MAX; i++)
		jw_arr(&w);
	CHECK(b.err == OK || FAULTED());
	jw_obj(&w);
	CHECK(b.err == ERR_LIMIT || FAULTED());
	jw_key(&w, "a");
	jw_null(&w);
	jw_end_obj(&w);
	for (int i = 0; i < JSON_DEPTH_MAX; i++)
		jw_end_arr(&w);
	CHECK_ERR(jw_done(&w), FAULTED() ? b.err : ERR_LIMIT);
	jw_init(&w, &tiny);
	jw_str(&w, S("longer than eight"));
	CHECK_ERR(jw_done(&w), FAULTED() ? tiny.err : ERR_LIMIT);
	buf_free(&b);
	buf_free(&tiny);
}

/* ---- round trips ------------------------------------------------------------------- */

static void
print(struct buf *b, const struct json *v)
{
	struct jw w;

	buf_reset(b);
	jw_init(&w, b);
	json_print(&w, v);
	CHECK_OK(jw_done(&w));
}

/* Parse, print, parse, print: the two prints are the same. */
static bool
stable(struct str text)
{
	struct buf one = BUF_INIT(DOC_MAX), two = BUF_INIT(DOC_MAX);
	struct arena a, a2 = ARENA_INIT(0);
	const struct json *v = parse(&a, text), *again;
	bool good = false;

	if (v) {
		print(&one, v);
		again = parse(&a2, buf_view(&one));
		print(&two, again);
		good = again && one.err == OK && str_eq(buf_view(&one), buf_view(&two));
	}
	arena_free(&a);
	arena_free(&a2);
	buf_free(&one);
	buf_free(&two);
	return good;
}

/* What came of the files of one folder, by the first letter of their names. */
struct tally {
	unsigned accepted[128], refused[128], unstable;
};

static bool
tally_dir(const char *sub, struct tally *t)
{
	const char *data = test_data(sub);
	struct buf text = BUF_INIT(DOC_MAX);
	char dir[1024], path[1400];
	struct dirent *d;
	DIR *f;

	memset(t, 0, sizeof(*t));
	if (!data) {
		SKIP("no conformance data");
		return false;
	}
	snprintf(dir, sizeof(dir), "%s", data);
	f = opendir(dir);
	while (f && (d = readdir(f))) {
		unsigned char kind = (unsigned char)d->d_name[0] & 127;

		if (!str_ends(str_z(d->d_name), S(".json")))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
		buf_reset(&text);
		CHECK_OK(file_read(path, DOC_MAX, &text, NULL));
		if (parse_err(buf_view(&text), NULL) != OK) {
			t->refused[kind]++;
			if (kind == 'y' && !FAULTED())
				printf("  refused: %s\n", d->d_name);
			continue;
		}
		t->accepted[kind]++;
		if (kind == 'n' && str_ends(str_z(sub), S("parsing")))
			printf("  accepted: %s\n", d->d_name);
		if (!stable(buf_view(&text)))
			t->unstable++;
	}
	if (f)
		closedir(f);
	buf_free(&text);
	return !FAULTED();
}

TEST(conformance_parsing)
{
	struct tally t;

	if (!tally_dir("json/test_parsing", &t))
		return;
	printf("json: %u accepted, %u refused; free choice: %u accepted, %u refused\n",
	    t.accepted['y'], t.refused['n'], t.accepted['i'], t.refused['i']);
	CHECK(t.accepted['y'] == 95 && t.refused['y'] == 0);
	CHECK(t.accepted['n'] == 0 && t.refused['n'] == 188);
	/* Ours: huge numbers are accepted; surrogates, bad UTF-8, a BOM, depth 500 are not. */
	CHECK(t.accepted['i'] == 10 && t.refused['i'] == 25);
	CHECK(t.unstable == 0);
}

TEST(conformance_transform)
{
	struct tally t;

	if (!tally_dir("json/test_transform", &t))
		return;
	CHECK(t.accepted['n'] + t.accepted['o'] + t.accepted['s'] == 16);
	CHECK(t.refused['s'] == 6);     /* lone surrogates, escaped and as bytes */
	CHECK(t.refused['n'] + t.refused['o'] == 0 && t.unstable == 0);
}

static bool
survives(struct str s)
{
	struct buf b = BUF_INIT(DOC_MAX);
	struct arena a;
	const struct json *v;
	bool good;

	json_quote(&b, s);
	v = parse(&a, buf_view(&b));
	good = json_is(v, JSON_STRING) && str_eq(v->s, s);
	arena_free(&a);
	buf_free(&b);
	return good;
}

TEST(naughty_strings)
{
	const char *path = test_data("utf8/blns.json");
	struct buf text = BUF_INIT(DOC_MAX);
	const struct json *v = NULL;
	struct arena a = ARENA_INIT(DOC_MAX);
	size_t n = 0;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	CHECK_OK(file_read(path, DOC_MAX, &text, NULL));
	CHECK_OK(json_parse(&a, buf_view(&text), &v, NULL));
	for (const struct json *s = v ? v->first : NULL; s && !FAULTED(); s = s->next)
		n += survives(s->s);
	CHECK(v && n == v->count && n > 500);
	arena_free(&a);
	buf_free(&text);
}

/* Every byte pair at every place of the eight-byte scan. */
TEST(quote_all_bytes)
{
	for (int c = 0; c < 128 && !FAULTED(); c++) {
		for (size_t at = 0; at < 10; at++) {
			char text[20];

			memset(text, 'x', sizeof(text));
			text[at] = (char)c;
			text[at + 1] = (char)(127 - c);
			CHECK(survives(str_make(text, 12)));
		}
	}
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(reads);
	RUN(escapes);
	RUN(errors);
	RUN(limits);
	RUN(integers);
	RUN(doubles);
	RUN(writer);
	RUN(writer_limits);
	RUN(conformance_parsing);
	RUN(conformance_transform);
	RUN(naughty_strings);
	RUN(quote_all_bytes);
	return TEST_END();
}
