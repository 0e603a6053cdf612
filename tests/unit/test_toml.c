/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_toml.c - TOML: the conformance lists, places in the source, error texts. */
#include "test.h"

#include "base/json.h"
#include "base/toml.h"

#include <math.h>

#define DOC_MAX ((size_t)4 << 20)

/* Parses text with a fresh arena; the caller frees a. */
static struct toml *
parse(struct arena *a, struct str text, struct toml_error *e)
{
	struct toml *root = NULL;

	arena_init(a, DOC_MAX);
	IGNORE(toml_parse(a, text, &root, e)); /* NULL says it */
	return root;
}

/* ---- conformance -------------------------------------------------------------- */

static bool same(const struct toml *t, const struct json *want);

static bool
same_float(double f, struct str want)
{
	char z[64];
	double w;

	snprintf(z, sizeof(z), "%.*s", STR_ARG(want));
	w = strtod(z, NULL);
	return (isnan(f) && isnan(w)) || (f == w && signbit(f) == signbit(w));
}

static bool
same_scalar(const struct toml *t, struct str type, struct str want)
{
	static const char *const types[] = { "string", "integer", "float", "bool", "datetime",
		"datetime-local", "date-local", "time-local", "array", "table" };
	int64_t i;

	if (!str_eqz(type, types[t->type]))
		return false;
	switch (t->type) {
	case TOML_INTEGER:
		return str_i64(want, INT64_MIN, INT64_MAX, &i) == OK && i == t->i;
	case TOML_FLOAT:
		return same_float(t->f, want);
	case TOML_BOOL:
		return str_eqz(want, t->boolean ? "true" : "false");
	case TOML_STRING:
	case TOML_DATETIME:
	case TOML_DATETIME_LOCAL:
	case TOML_DATE_LOCAL:
	case TOML_TIME_LOCAL:
		return str_eq(t->s, want);
	case TOML_ARRAY:
	case TOML_TABLE:
		return false;
	}
	return false;
}

static bool
same_children(const struct toml *t, const struct json *want)
{
	const struct toml *item = t->first;

	if (t->count != want->count)
		return false;
	for (const struct json *w = want->first; w; w = w->next) {
		const struct toml *c = t->type == TOML_TABLE ? toml_get(t, w->key) : item;

		if (!c || !same(c, w))
			return false;
		item = item->next;
	}
	return true;
}

static bool
same(const struct toml *t, const struct json *want)
{
	const struct json *type = json_get(want, S("type")), *v = json_get(want, S("value"));

	if (json_is(type, JSON_STRING) && json_is(v, JSON_STRING) && want->count == 2)
		return same_scalar(t, type->s, v->s);
	if (json_is(want, JSON_ARRAY) ? t->type != TOML_ARRAY : t->type != TOML_TABLE)
		return false;
	return same_children(t, want);
}

static bool
valid_case(const char *path, struct str toml)
{
	struct buf text = BUF_INIT(DOC_MAX);
	struct arena a, ja = ARENA_INIT(DOC_MAX);
	struct toml_error e = { 0, 0, "" };
	const struct json *want;
	struct toml *root = parse(&a, toml, &e);
	char other[1200];
	bool good = false;

	snprintf(other, sizeof(other), "%.*s.json", (int)strlen(path) - 5, path);
	if (root && file_read(other, DOC_MAX, &text, NULL) == OK &&
	    json_parse(&ja, buf_view(&text), &want, NULL) == OK)
		good = same(root, want);
	if (!good && !FAULTED())
		printf("  %s:%u:%u: %s\n", path, e.line, e.column, e.what);
	buf_free(&text);
	arena_free(&ja);
	arena_free(&a);
	return good;
}

static bool
invalid_case(const char *path, struct str toml)
{
	struct arena a;
	struct toml_error e = { 0, 0, "" };
	bool good = !parse(&a, toml, &e) && e.line > 0 && e.column > 0 && e.what[0] &&
	    utf8_valid(str_z(e.what));

	if (!good && !FAULTED())
		printf("  %s: accepted, or no place (%u:%u)\n", path, e.line, e.column);
	arena_free(&a);
	return good;
}

TEST(conformance)
{
	const char *dir = test_data("toml");
	struct buf list = BUF_INIT(DOC_MAX), text = BUF_INIT(DOC_MAX);
	char root[1024], path[1100];
	unsigned valid = 0, invalid = 0;
	struct str rest, line;

	if (!dir) {
		SKIP("no toml conformance data");
		return;
	}
	snprintf(root, sizeof(root), "%s", dir);
	snprintf(path, sizeof(path), "%s/files-toml-1.0.0", root);
	CHECK_OK(file_read(path, DOC_MAX, &list, NULL));
	rest = buf_view(&list);
	while (rest.n && !FAULTED()) {
		str_cut(&rest, '\n', &line);
		if (!str_ends(line, S(".toml")))
			continue;
		snprintf(path, sizeof(path), "%s/%.*s", root, STR_ARG(line));
		buf_reset(&text);
		CHECK_OK(file_read(path, DOC_MAX, &text, NULL));
		if (str_starts(line, S("valid/")))
			valid += valid_case(path, buf_view(&text));
		else
			invalid += invalid_case(path, buf_view(&text));
	}
	if (!FAULTED())
		printf("toml 1.0.0: %u valid, %u invalid\n", valid, invalid);
	CHECK(valid == 210);
	CHECK(invalid == 499);
	buf_free(&list);
	buf_free(&text);
}

/* ---- places ------------------------------------------------------------------- */

/* The node at a dotted path (array indexes are numbers), or NULL. */
static const struct toml *
at(const struct toml *t, const char *path)
{
	struct str rest = str_z(path), step;
	int64_t i;

	for (bool more = true; t && more; ) {
		more = str_cut(&rest, '.', &step);
		if (t->type != TOML_ARRAY) {
			t = toml_get(t, step);
		} else if (str_i64(step, 0, 100, &i) == OK) {
			for (t = t->first; t && i; i--)
				t = t->next;
		}
	}
	return t;
}

/* The value at path is `source`, its key stands at line:column, itself at vline:vcolumn. */
static void
check_place(struct str text, const struct toml *root, const char *path, const char *source,
    unsigned line, unsigned column, unsigned vline, unsigned vcolumn)
{
	const struct toml *t = at(root, path);

	CHECK(t != NULL);
	if (!t)
		return;
	CHECK_STR(str_sub(text, t->off, t->len), source);
	CHECK(t->line == line && t->column == column);
	CHECK(t->vline == vline && t->vcolumn == vcolumn);
	if (t->key.n && !t->header)
		CHECK(str_eq(str_sub(text, t->key_off, t->key.n), t->key));
}

TEST(places)
{
	struct str text = S("top = 1 # one\n"           /* line 1 */
	    "\ta.b . cc  =  '''\nx'''  \n"                 /* 2 */
	    "arr = [ 1,\n\t[2], {k = 0x1F} ]\n"            /* 4 */
	    "\n"
	    "  [ t . u ] # head\r\n"                       /* 7 */
	    "  when = 2020-01-01 00:00:00z\r\n"
	    "\n# tail\n"                                   /* 9 */
	    "[[list]]\nn = -1\n[[list]]\n[t]\n"            /* 11 */
	    "last = { x.y = true, z = \"\" }");            /* 15 */
	struct arena a;
	struct toml_error e;
	struct toml *root = parse(&a, text, &e);
	const struct toml *t;

	if (root) {
		check_place(text, root, "top", "1", 1, 1, 1, 7);
		check_place(text, root, "a.b.cc", "'''\nx'''", 2, 8, 2, 15);
		check_place(text, root, "a", "a", 2, 2, 2, 2);
		check_place(text, root, "arr", "[ 1,\n\t[2], {k = 0x1F} ]", 4, 1, 4, 7);
		check_place(text, root, "arr.1", "[2]", 5, 2, 5, 2);
		check_place(text, root, "arr.1.0", "2", 5, 3, 5, 3);
		check_place(text, root, "arr.2.k", "0x1F", 5, 8, 5, 12);
		check_place(text, root, "t.u", "[ t . u ]", 7, 3, 7, 3);
		check_place(text, root, "t.u.when", "2020-01-01 00:00:00z", 8, 3, 8, 10);
		check_place(text, root, "list.0.n", "-1", 12, 1, 12, 5);
		check_place(text, root, "list.1", "[[list]]", 13, 1, 13, 1);
		check_place(text, root, "t", "[t]", 14, 1, 14, 1);
		check_place(text, root, "t.last.x.y", "true", 15, 12, 15, 16);
		check_place(text, root, "t.last.z", "\"\"", 15, 22, 15, 26);
		/* Where a new line would go: behind the last own line, before comments. */
		CHECK(root->end == str_find(text, S("\n  [ t")));
		CHECK((t = at(root, "t.u")) && t->header);
		CHECK(t && t->end == str_find(text, S("\n# tail")));
		CHECK(t && str_sub(text, t->key_off, 1).p[0] == 'u');
		CHECK((t = at(root, "list.1")) && t->end == str_find(text, S("[t]")) &&
		    t->array_of_tables);
		CHECK((t = at(root, "t")) && t->end == text.n && t->header && !t->inline_table);
		CHECK((t = at(root, "t.last")) && t->inline_table && !t->header && t->count == 2);
		CHECK((t = at(root, "list")) && t->array_of_tables && t->count == 2);
		CHECK((t = at(root, "a.b")) && !t->header && t->end == 0);
		CHECK_STR(at(root, "t.u.when")->s, "2020-01-01T00:00:00Z");
	} else {
		CHECK(FAULTED());
	}
	arena_free(&a);
}

TEST(root_end)
{
	static const struct { const char *text; size_t end; } cases[] = {
		{ "", 0 }, { "# c\n[t]\na=1\n", 0 }, { "a=1", 3 }, { "\n a=1 # c\n# d\n", 10 },
		{ "\xEF\xBB\xBF" "a=1\r\n[b]", 8 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct arena a;
		struct toml_error e;
		struct toml *root = parse(&a, str_z(cases[i].text), &e);

		CHECK(root && root->end == cases[i].end);
		arena_free(&a);
	}
}

/* ---- errors --------------------------------------------------------------------- */

static void
check_error(struct str text, unsigned line, unsigned column, const char *what)
{
	struct arena a = ARENA_INIT(DOC_MAX);
	struct toml_error e = { 0, 0, "" };
	struct toml *root = NULL;

	CHECK_ERR(toml_parse(&a, text, &root, &e), ERR_PARSE);
	CHECK(root == NULL);
	if (!FAULTED()) {
		CHECK_STR(str_z(e.what), what);
		CHECK(e.line == line && e.column == column);
	}
	arena_free(&a);
}

TEST(errors)
{
	check_error(S("a = 1\nnaem \"x\"\n"), 2, 6, "expected '=' after key \"naem\"");
	check_error(S("a ="), 1, 4, "expected a value, found the end of the file");
	check_error(S("a = yes"), 1, 5, "\"yes\" is not a value (text needs quotes)");
	check_error(S("a = 1 b = 2"), 1, 7, "unexpected \"b\" after the value");
	check_error(S("a = 1\nb.c = 2\nb = 3"), 3, 1, "\"b\" is already set (line 2)");
	check_error(S("[t]\n[t]"), 2, 2, "\"t\" is already a table (line 1)");
	check_error(S("[t]\n[[t]]"), 2, 3, "\"t\" is not an array of tables (line 1)");
	check_error(S("a = {}\n[a.b]"), 2, 2,
	    "\"a\" is an inline table and cannot be extended (line 1)");
	check_error(S("[a.b]\n[a]\nb.c = 1"), 3, 1,
	    "\"b\" is a table with its own header (line 1)");
	check_error(S("a = 0x8000000000000000"), 1, 5,
	    "the integer 0x8000000000000000 does not fit into 64 bits");
	check_error(S("a = 1e999"), 1, 5, "the number 1e999 is too large");
	check_error(S("a = 1__0"), 1, 5, "an underscore must stand between digits in 1__0");
	check_error(S("a = 2021-02-29"), 1, 5, "\"2021-02-29\" is not a date or time");
	check_error(S("a = \"x\\q\""), 1, 7, "unknown escape \\q (write \\\\ for a backslash)");
	check_error(S("a = '''\nb\n\xC3"), 3, 1, "ill-formed UTF-8");
	check_error(S("a = '''\nb\n"), 1, 5, "string without its closing quotes");
	check_error(S("\xEF\xBB\xBF\0"), 1, 1, "expected a key, found a control character");
	/* A long or odd key is cut at a character and stays on one line. */
	check_error(S("\"1234567890123456789012345678901234567\\n\xC3\xA9\xC3\xA9\" 1"), 1, 47,
	    "expected '=' after key \"1234567890123456789012345678901234567?\xC3\xA9\"");
}

/* head, then open n times, then close n times. */
static enum err
nest(const char *head, const char *open, const char *close, unsigned n)
{
	struct buf b = BUF_INIT(100000);
	struct arena a = ARENA_INIT(DOC_MAX);
	struct toml *root;
	enum err e;

	buf_puts(&b, head);
	for (unsigned i = 0; i < n; i++)
		buf_puts(&b, open);
	for (unsigned i = 0; i < n; i++)
		buf_puts(&b, close);
	e = b.err != OK ? b.err : toml_parse(&a, buf_view(&b), &root, NULL);
	arena_free(&a);
	buf_free(&b);
	return e;
}

TEST(limits)
{
	struct arena tiny = ARENA_INIT(300);
	struct toml *root = NULL;

	CHECK_OK(nest("a=", "[", "]", TOML_DEPTH_MAX));
	CHECK_ERR(nest("a=", "[", "]", TOML_DEPTH_MAX + 1), ERR_LIMIT);
	CHECK_ERR(nest("[t]\na=", "[", "]", TOML_DEPTH_MAX), ERR_LIMIT);
	CHECK_ERR(nest("a=", "{a=", "}", 2 * TOML_DEPTH_MAX), ERR_LIMIT);
	CHECK_ERR(nest("a=1\nb", ".b", "", TOML_DEPTH_MAX), ERR_LIMIT);
	CHECK_ERR(nest("[b", ".b", "", TOML_DEPTH_MAX), ERR_LIMIT);
	CHECK_ERR(nest("a=", "1", "", 1000), ERR_LIMIT);
	CHECK_ERR(toml_parse(&tiny, S("a=1\nb=2\nc=3\n"), &root, NULL), ERR_LIMIT);
	CHECK(root == NULL);
	arena_free(&tiny);
}

TEST(odds)
{
	struct arena a;
	struct toml_error e;
	const double big = 12345678901234567890.5;      /* a bare constant is wider where floats are x87's */
	struct toml *root = parse(&a, S("s = \"\"\"a\r\nb\\\r\n  c\"\"\"\nt = 07:08:09.1234567891\n"
	    "x = [ # c\n 1, # d\n]\ni = 12345678901234567890.5\n[p.q.r]\n[p]\nq.z = 1\n"), &e);

	if (root) {
		CHECK_STR(at(root, "s")->s, "a\nbc");
		CHECK_STR(at(root, "t")->s, "07:08:09.123456789");
		CHECK(at(root, "x")->count == 1 && at(root, "i")->f == big);
		CHECK(at(root, "p.q.z") != NULL);       /* q was only named on the way: may grow */
		CHECK(toml_get(NULL, S("s")) == NULL && toml_get(at(root, "s"), S("s")) == NULL);
		CHECK_STR(str_z(toml_type_name(TOML_TIME_LOCAL)), "local time");
	} else {
		CHECK(FAULTED());
	}
	arena_free(&a);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(conformance);
	RUN(places);
	RUN(root_end);
	RUN(errors);
	RUN(limits);
	RUN(odds);
	return TEST_END();
}
