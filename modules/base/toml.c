/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * toml.c - TOML 1.0.0: arena parser with places and helpful errors.
 *
 * The text is validated as UTF-8 once, then read by a cursor that only ever
 * moves forward. Nodes and errors are given offsets in the source, from which
 * place() counts lines and columns.
 *
 * The grammar is small; the rules about who may extend which table are not.
 * A table is one of four kinds, and that decides everything:
 *
 *   implicit   named on the way by a header ([a.b] makes a). A header of its
 *              own may still follow, once; dotted keys may enter it.
 *   header     has its own [header] or is an item of [[header]]. Dotted keys
 *              of another table may not enter it, a second header is an error.
 *   dotted     named on the way by a dotted key. Other dotted keys and headers
 *              of sub-tables may enter, but it gets no header of its own.
 *   inline     closed when its brace closes: nothing may enter.
 *
 * Of arrays only those made by [[header]] can be extended; passing one on the
 * way means its newest item.
 *
 * Strings are copied into the arena, so the tree does not need the text.
 */
#include "base/toml.h"

#include <errno.h>
#include <math.h>

#define NUMBER_MAX 512          /* bytes of one number */
#define QUOTE_MAX 24            /* bytes of offending text shown in an error */
#define KEY_MAX 40              /* bytes of a key or value shown in an error */
#define SHOW(s) STR_ARG(utf8_prefix((s), KEY_MAX))

struct parser {
	struct arena *a;
	struct str t;
	size_t start;           /* behind a byte order mark */
	size_t at;              /* the cursor */
	size_t mark, mark_line_start;   /* how far place() has counted lines */
	unsigned mark_line;
	unsigned depth;         /* of the value being read, counted from the root */
	struct toml_error *e;
	enum err err;
	char shown[QUOTE_MAX + 3];
};

struct key {
	struct str name;
	size_t off, len;
	unsigned line, column;
};

static bool fail(struct parser *p, enum err err, size_t off, const char *fmt, ...) PRINTF(4, 5);
static bool value(struct parser *p, struct toml *v);

/* ---- places and errors -------------------------------------------------------- */

/* Where off stands. Lines are counted on from the last place asked for. */
static struct key
place(struct parser *p, size_t off)
{
	if (off < p->mark || p->mark_line == 0) {
		p->mark = p->mark_line_start = p->start;
		p->mark_line = 1;
	}
	for (; p->mark < off; p->mark++) {
		if (p->t.p[p->mark] == '\n') {
			p->mark_line++;
			p->mark_line_start = p->mark + 1;
		}
	}
	return (struct key){ STR_NONE, off, 0, p->mark_line,
	    (unsigned)(off - p->mark_line_start) + 1 };
}

static bool
fail(struct parser *p, enum err err, size_t off, const char *fmt, ...)
{
	struct key k = place(p, off);
	struct toml_error *e = p->e;
	va_list ap;

	p->err = err;
	e->line = k.line;
	e->column = k.column;
	va_start(ap, fmt);
	vsnprintf(e->what, sizeof(e->what), fmt, ap);
	va_end(ap);
	/* One line of whole characters, whatever the file holds. */
	e->what[utf8_prefix(str_z(e->what), sizeof(e->what) - 4).n] = '\0';
	for (char *c = e->what; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7F)
			*c = '?';
	return false;
}

static bool
fail_memory(struct parser *p)
{
	enum err e = p->a->err != OK ? p->a->err : ERR_NOMEM;

	return fail(p, e, p->at, e == ERR_LIMIT ? "the file is too big" : "out of memory");
}

static int
peek_at(const struct parser *p, size_t ahead)
{
	return ahead < p->t.n - p->at ? (unsigned char)p->t.p[p->at + ahead] : -1;
}

static int
peek(const struct parser *p)
{
	return peek_at(p, 0);
}

static bool
control(int c)
{
	return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7F;
}

static bool
at_newline(const struct parser *p)
{
	return peek(p) == '\n' || peek(p) == '\r';
}

/* What stands at the cursor, quoted for an error. */
static const char *
found(struct parser *p)
{
	struct str rest = str_sub(p->t, p->at, p->t.n);
	size_t n = 1;

	if (peek(p) < 0)
		return "the end of the file";
	if (at_newline(p))
		return "the end of the line";
	if (control(peek(p)))
		return "a control character";
	while (n < rest.n && !memchr(" \t\r\n,]}=#", rest.p[n], 9))
		n++;
	rest = utf8_prefix(str_sub(rest, 0, n), QUOTE_MAX);
	snprintf(p->shown, sizeof(p->shown), "\"%.*s\"", STR_ARG(rest));
	return p->shown;
}

/* ---- blanks, comments, lines ---------------------------------------------------- */

static void
blanks(struct parser *p)
{
	while (peek(p) == ' ' || peek(p) == '\t')
		p->at++;
}

/* Steps over the line end at the cursor. */
static bool
newline(struct parser *p)
{
	if (peek(p) == '\r' && peek_at(p, 1) != '\n')
		return fail(p, ERR_PARSE, p->at, "carriage return without a line feed");
	p->at += peek(p) == '\r' ? 2 : 1;
	return true;
}

/* Blanks and a comment, up to the line end. */
static bool
trailer(struct parser *p)
{
	blanks(p);
	if (peek(p) != '#')
		return true;
	while (peek(p) >= 0 && !at_newline(p)) {
		if (control(peek(p)))
			return fail(p, ERR_PARSE, p->at, "control character in a comment");
		p->at++;
	}
	return true;
}

static bool
line_end(struct parser *p, const char *after)
{
	if (!trailer(p))
		return false;
	if (peek(p) < 0)
		return true;
	if (!at_newline(p))
		return fail(p, ERR_PARSE, p->at, "unexpected %s after %s", found(p), after);
	return newline(p);
}

/* Blanks, comments and line ends, as they may stand in an array. */
static bool
space(struct parser *p)
{
	while (trailer(p)) {
		if (!at_newline(p))
			return true;
		if (!newline(p))
			return false;
	}
	return false;
}

/* ---- strings -------------------------------------------------------------------- */

/* \uXXXX or \UXXXXXXXX; the cursor stands on the letter. */
static bool
unicode_escape(struct parser *p, struct buf *b)
{
	size_t n = peek(p) == 'u' ? 4 : 8;
	uint32_t cp = 0;
	char text[4];

	for (size_t k = 1; k <= n; k++) {
		int digit = hex_digit(peek_at(p, k));

		cp = digit < 0 ? UTF8_BAD : cp << 4 | (uint32_t)digit;
		if (digit < 0)
			break;
	}
	if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
		return fail(p, ERR_PARSE, p->at - 1,
		    "\\%c needs %zu hexadecimal digits that name a character", peek(p), n);
	buf_put(b, text, utf8_encode(cp, text));
	p->at += n + 1;
	return true;
}

/* The cursor stands on the backslash. */
static bool
escape(struct parser *p, bool multi, struct buf *b)
{
	static const char from[] = "\"\\bfnrt", to[] = "\"\\\b\f\n\r\t";
	size_t slash = p->at++;
	int c = peek(p);
	const char *known = c > 0 ? strchr(from, c) : NULL;

	if (known) {
		buf_putc(b, to[known - from]);
		p->at++;
		return true;
	}
	if (c == 'u' || c == 'U')
		return unicode_escape(p, b);
	if (!multi || (c != ' ' && c != '\t' && !at_newline(p)))
		return fail(p, ERR_PARSE, slash, "unknown escape \\%c (write \\\\ for a "
		    "backslash)", c >= 0 && c < 0x7F ? c : '?');
	/* At the end of a line it swallows that and all blanks up to the next text. */
	blanks(p);
	if (!at_newline(p))
		return fail(p, ERR_PARSE, slash, "a backslash before a blank must end its line");
	for (; at_newline(p); blanks(p))
		if (!newline(p))
			return false;
	return true;
}

/* From the opening quotes (at open, the cursor is behind them) to behind the closing ones. */
static bool
text(struct parser *p, char quote, bool multi, size_t open, struct buf *b)
{
	for (;;) {
		int c = peek(p);
		size_t run = 1;

		if (c == quote) {
			while (multi && run < 5 && peek_at(p, run) == quote)
				run++;
			p->at += run;
			if (!multi)
				return true;
			/* One or two quotes before the closing three are text. */
			buf_put(b, p->t.p + p->at - run, run < 3 ? run : run - 3);
			if (run >= 3)
				return true;
		} else if (c < 0 || (!multi && at_newline(p))) {
			return fail(p, ERR_PARSE, open, "string without its closing quote%s",
			    multi ? "s" : "");
		} else if (at_newline(p)) {
			if (!newline(p))
				return false;
			buf_putc(b, '\n');
		} else if (control(c)) {
			return fail(p, ERR_PARSE, p->at, "control character in a string");
		} else if (c == '\\' && quote == '"') {
			if (!escape(p, multi, b))
				return false;
		} else {
			buf_putc(b, (char)c);
			p->at++;
		}
	}
}

/* The cursor stands on the opening quote. A key may not have three of them. */
static bool
string(struct parser *p, bool key, struct str *out)
{
	char quote = (char)peek(p);
	bool multi = !key && peek_at(p, 1) == quote && peek_at(p, 2) == quote, good;
	struct buf b = BUF_INIT(p->t.n);
	size_t open = p->at;

	p->at += multi ? 3 : 1;
	/* A line end right behind the opening quotes is not part of the text. */
	good = (!multi || !at_newline(p) || newline(p)) && text(p, quote, multi, open, &b);
	if (good)
		*out = arena_str(p->a, buf_view(&b));
	if (good && (b.err != OK || p->a->err != OK))
		good = fail_memory(p);
	buf_free(&b);
	return good;
}

/* ---- numbers ----------------------------------------------------------------------- */

/* How many digits of the base stand at z. */
static size_t
digits(const char *z, int base)
{
	size_t n = 0;

	while (hex_digit(z[n]) >= 0 && hex_digit(z[n]) < base)
		n++;
	return n;
}

/* Copies the number without its underscores, each of which must stand between digits. */
static bool
strip(struct str s, int base, char out[NUMBER_MAX + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '_')
			out[n++] = s.p[i];
		else if (i == 0 || i + 1 == s.n || !digits(out + n - 1, base) ||
		    hex_digit(s.p[i + 1]) < 0 || hex_digit(s.p[i + 1]) >= base)
			return false;
		out[n] = '\0';
	}
	return true;
}

/* Is z digits [. digits] [e [+-] digits] without a leading zero, or inf or nan? */
static bool
float_shape(const char *z)
{
	size_t n = digits(z, 10);

	if (strcmp(z, "inf") == 0 || strcmp(z, "nan") == 0)
		return true;
	if (n == 0 || (n > 1 && *z == '0'))
		return false;
	z += n;
	if (*z == '.') {
		n = digits(++z, 10);
		z += n;
	}
	if (n > 0 && (*z == 'e' || *z == 'E')) {
		z += z[1] == '-' || z[1] == '+' ? 2 : 1;
		n = digits(z, 10);
		z += n;
	}
	return n > 0 && !*z;
}

static bool
number(struct parser *p, struct str s, struct toml *v)
{
	bool prefix = s.n > 2 && s.p[0] == '0' && memchr("xob", s.p[1], 3);
	int base = !prefix ? 10 : s.p[1] == 'x' ? 16 : s.p[1] == 'o' ? 8 : 2;
	char z[NUMBER_MAX + 1];
	const char *d;          /* behind the sign */
	size_t n;

	if (s.n > NUMBER_MAX)
		return fail(p, ERR_LIMIT, v->off, "the number is too long");
	if (!strip(prefix ? str_sub(s, 2, s.n) : s, base, z))
		return fail(p, ERR_PARSE, v->off, "an underscore must stand between digits in %.*s",
		    SHOW(s));
	d = z + (!prefix && (*z == '-' || *z == '+'));
	n = digits(d, base);
	if (n > 0 && !d[n] && (prefix || n == 1 || *d != '0')) {
		v->type = TOML_INTEGER;
		errno = 0;
		v->i = strtoll(z, NULL, base);
		return errno != ERANGE || fail(p, ERR_PARSE, v->off,
		    "the integer %.*s does not fit into 64 bits", SHOW(s));
	}
	if (prefix || !float_shape(d))
		return fail(p, ERR_PARSE, v->off, "\"%.*s\" is not a number", SHOW(s));
	v->type = TOML_FLOAT;
	v->f = strtod(z, NULL);
	return isfinite(v->f) || n == 0 ||
	    fail(p, ERR_PARSE, v->off, "the number %.*s is too large", SHOW(s));
}

/* ---- dates and times ----------------------------------------------------------------- */

/* Is s like the mask, in which 0 stands for any digit? */
static bool
like(struct str s, const char *mask)
{
	size_t i = 0;

	for (; i < s.n && mask[i]; i++)
		if (mask[i] == '0' ? s.p[i] < '0' || s.p[i] > '9' : s.p[i] != mask[i])
			return false;
	return i == s.n && !mask[i];
}

/* The number of the two digits at s.p[at]. */
static int
two(struct str s, size_t at)
{
	return (s.p[at] - '0') * 10 + s.p[at + 1] - '0';
}

static bool
is_date(struct str s)
{
	static const char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int century, year, month, leap;

	if (!like(s, "0000-00-00"))
		return false;
	century = two(s, 0);
	year = two(s, 2);
	month = two(s, 5);
	leap = month == 2 && (year ? year % 4 == 0 : century % 4 == 0);
	return month >= 1 && month <= 12 && two(s, 8) >= 1 && two(s, 8) <= days[month - 1] + leap;
}

static bool
is_time(struct str s)
{
	return like(s, "00:00:00") && two(s, 0) < 24 && two(s, 3) < 60 && two(s, 6) <= 60;
}

static bool
is_offset(struct str s)
{
	return like(s, "Z") || like(s, "z") || ((like(s, "+00:00") || like(s, "-00:00")) &&
	    two(s, 1) < 24 && two(s, 4) < 60);
}

/* All parts but the fraction have a fixed width. It gets three to nine digits; more are cut
 * off, as TOML demands. */
static bool
datetime(struct parser *p, struct str s, struct toml *v)
{
	struct str date = STR_NONE, time, rest = s;
	bool good = true;
	size_t n = 0;           /* of the fraction with its point */

	v->type = TOML_TIME_LOCAL;
	if (like(str_sub(s, 4, 1), "-")) {
		date = str_sub(s, 0, 10);
		v->type = s.n > 10 ? TOML_DATETIME_LOCAL : TOML_DATE_LOCAL;
		good = is_date(date) && (s.n <= 10 || strchr("Tt ", s.p[10]));
		rest = str_sub(s, 11, s.n);
	}
	time = str_sub(rest, 0, 8);
	rest = str_sub(rest, 8, rest.n);
	if (v->type != TOML_DATE_LOCAL)
		good = good && is_time(time);
	if (like(str_sub(rest, 0, 1), "."))
		for (n = 1; like(str_sub(rest, n, 1), "0"); )
			n++;
	if (n < rest.n) {
		good = good && v->type == TOML_DATETIME_LOCAL && is_offset(str_sub(rest, n, rest.n));
		v->type = TOML_DATETIME;
	}
	if (!good || n == 1)
		return fail(p, ERR_PARSE, v->off, "\"%.*s\" is not a date or time", SHOW(s));
	v->s = arena_fmt(p->a, "%.*s%s%.*s%.*s%s%.*s", STR_ARG(date), date.n && time.n ? "T" : "",
	    STR_ARG(time), STR_ARG(str_sub(rest, 0, n < 10 ? n : 10)), n == 2 ? "00" :
	    n == 3 ? "0" : "", STR_ARG(rest.n - n == 1 ? S("Z") : str_sub(rest, n, rest.n)));
	return p->a->err == OK || fail_memory(p);
}

/* ---- values ------------------------------------------------------------------------- */

/* Booleans, numbers, dates: a run of letters, digits and the signs they use. */
static bool
plain_value(struct parser *p, struct toml *v)
{
	static const char signs[] = "+-.:_0123456789";
	struct str rest = str_sub(p->t, p->at, p->t.n), s;
	size_t n = 0;

	while (n < rest.n && (memchr(signs, rest.p[n], sizeof(signs) - 1) ||
	    ((rest.p[n] | 0x20) >= 'a' && (rest.p[n] | 0x20) <= 'z'))) {
		n++;
		/* A date and its time may be parted by one blank. */
		if (n == 10 && rest.p[4] == '-' && like(str_sub(rest, 10, 4), " 00:"))
			n++;
	}
	if (n == 0)
		return fail(p, ERR_PARSE, p->at, "expected a value, found %s", found(p));
	s = str_sub(rest, 0, n);
	p->at += n;
	if (str_eqz(s, "true") || str_eqz(s, "false")) {
		v->type = TOML_BOOL;
		v->boolean = s.n == 4;
		return true;
	}
	if (like(str_sub(s, 0, 3), "00:") || like(str_sub(s, 0, 5), "0000-"))
		return datetime(p, s, v);
	if (memchr("+-0123456789", s.p[0], 12) || str_eqz(s, "inf") || str_eqz(s, "nan"))
		return number(p, s, v);
	return fail(p, ERR_PARSE, v->off, "\"%.*s\" is not a value (text needs quotes)", SHOW(s));
}

/* A node at the end of parent, placed at k, or NULL with the error set. */
static struct toml *
add(struct parser *p, struct toml *parent, const struct key *k, enum toml_type type)
{
	struct toml *t = arena_alloc(p->a, sizeof(*t));

	if (!t) {
		fail_memory(p);
		return NULL;
	}
	t->type = type;
	t->key = k->name;
	t->line = t->vline = k->line;
	t->column = t->vcolumn = k->column;
	t->key_off = t->off = k->off;
	t->len = k->len;
	if (parent->last)
		parent->last->next = t;
	else
		parent->first = t;
	parent->last = t;
	parent->count++;
	return t;
}

static bool
array(struct parser *p, struct toml *v)
{
	v->type = TOML_ARRAY;
	p->at++;
	while (space(p) && peek(p) != ']') {
		struct key here = place(p, p->at);
		struct toml *item = add(p, v, &here, TOML_STRING);

		if (!item || !value(p, item) || !space(p))
			return false;
		if (peek(p) == ']')
			break;
		if (peek(p) != ',')
			return fail(p, ERR_PARSE, p->at, "expected ',' or ']' in the array, "
			    "found %s", found(p));
		p->at++;
	}
	p->at++;
	return p->err == OK;
}

/* ---- keys ------------------------------------------------------------------------------ */

static bool
bare(int c)
{
	return (c >= '0' && c <= '9') || c == '-' || c == '_' ||
	    ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* One part of a key and the blanks behind it. */
static bool
key_part(struct parser *p, struct key *k)
{
	*k = place(p, p->at);
	if (peek(p) == '"' || peek(p) == '\'') {
		if (!string(p, true, &k->name))
			return false;
	} else {
		while (bare(peek(p)))
			p->at++;
		if (p->at == k->off)
			return fail(p, ERR_PARSE, p->at, "expected a key, found %s", found(p));
		k->name = arena_str(p->a, str_sub(p->t, k->off, p->at - k->off));
		if (p->a->err != OK)
			return fail_memory(p);
	}
	k->len = p->at - k->off;
	blanks(p);
	return true;
}

static bool
deeper(struct parser *p)
{
	if (p->depth == TOML_DEPTH_MAX)
		return fail(p, ERR_LIMIT, p->at, "nested deeper than %d levels", TOML_DEPTH_MAX);
	p->depth++;
	return true;
}

static bool
fail_taken(struct parser *p, const struct key *k, const struct toml *old, const char *why)
{
	return fail(p, ERR_PARSE, k->off, "\"%.*s\" %s (line %u)", SHOW(k->name), why, old->line);
}

/* The table that a header, or a dotted key, passes on its way; made when it is not there. */
static struct toml *
enter(struct parser *p, struct toml *t, const struct key *k, bool dotted)
{
	struct toml *child = toml_get(t, k->name);

	if (!child)
		child = add(p, t, k, TOML_TABLE);
	else if (child->type == TOML_ARRAY && child->array_of_tables && !dotted)
		child = child->last;
	else if (child->type != TOML_TABLE)
		fail_taken(p, k, child, "is not a table");
	else if (child->inline_table)
		fail_taken(p, k, child, "is an inline table and cannot be extended");
	else if (child->header && dotted)
		fail_taken(p, k, child, "is a table with its own header");
	if (p->err != OK)
		return NULL;
	child->dotted |= dotted;
	return child;
}

/* Reads a key with its dots: *k is its last part, *t becomes the table that holds that. */
static bool
key_path(struct parser *p, struct toml **t, struct key *k, bool dotted)
{
	while (deeper(p) && key_part(p, k)) {
		if (peek(p) != '.')
			return true;
		p->at++;
		blanks(p);
		*t = enter(p, *t, k, dotted);
		if (!*t)
			return false;
	}
	return false;
}

static bool
key_value(struct parser *p, struct toml *t)
{
	unsigned depth = p->depth;
	struct toml *v;
	struct key k, here;

	if (!key_path(p, &t, &k, true))
		return false;
	if (peek(p) != '=')
		return fail(p, ERR_PARSE, p->at, "expected '=' after key \"%.*s\"", SHOW(k.name));
	v = toml_get(t, k.name);
	if (v)
		return fail_taken(p, &k, v, "is already set");
	p->at++;
	blanks(p);
	v = add(p, t, &k, TOML_STRING);
	if (!v)
		return false;
	here = place(p, p->at);
	v->vline = here.line;
	v->vcolumn = here.column;
	p->depth--;             /* value() counts its own level */
	if (!value(p, v))
		return false;
	p->depth = depth;
	return true;
}

static bool
inline_table(struct parser *p, struct toml *v)
{
	v->type = TOML_TABLE;
	v->inline_table = true;
	p->at++;
	blanks(p);
	while (peek(p) != '}') {
		if (v->count) {
			if (peek(p) != ',')
				return fail(p, ERR_PARSE, p->at, "expected ',' or '}' in the "
				    "inline table, found %s", found(p));
			p->at++;
			blanks(p);
		}
		if (!key_value(p, v))
			return false;
		blanks(p);
	}
	p->at++;
	return true;
}

static bool
value(struct parser *p, struct toml *v)
{
	bool good;

	if (!deeper(p))
		return false;
	v->off = p->at;
	switch (peek(p)) {
	case '"':
	case '\'':
		v->type = TOML_STRING;
		good = string(p, false, &v->s);
		break;
	case '[':
		good = array(p, v);
		break;
	case '{':
		good = inline_table(p, v);
		break;
	default:
		good = plain_value(p, v);
		break;
	}
	v->len = p->at - v->off;
	p->depth--;
	return good;
}

/* ---- tables -------------------------------------------------------------------------------- */

/* The table that the header's last part k names. */
static struct toml *
define(struct parser *p, struct toml *t, const struct key *k, bool array_item)
{
	struct toml *child = toml_get(t, k->name);

	if (!child)
		child = add(p, t, k, array_item ? TOML_ARRAY : TOML_TABLE);
	else if (array_item && !child->array_of_tables)
		fail_taken(p, k, child, "is not an array of tables");
	else if (!array_item && child->type != TOML_TABLE)
		fail_taken(p, k, child, child->array_of_tables ? "is an array of tables" :
		    "is not a table");
	else if (!array_item && (child->header || child->inline_table || child->dotted))
		fail_taken(p, k, child, "is already a table");
	if (p->err != OK)
		return NULL;
	if (array_item) {
		struct key item = *k;

		child->array_of_tables = true;
		item.name = STR_NONE;
		child = add(p, child, &item, TOML_TABLE);
		if (!child)
			return NULL;
		child->array_of_tables = true;
	}
	child->header = true;
	child->key_off = k->off;
	return child;
}

/* The cursor stands on '['; *section becomes the table. */
static bool
header(struct parser *p, struct toml *root, struct toml **section)
{
	bool array_item = peek_at(p, 1) == '[';
	struct key here = place(p, p->at), k;
	struct toml *t = root;

	p->at += array_item ? 2 : 1;
	blanks(p);
	p->depth = 0;
	if (!key_path(p, &t, &k, false) || (array_item && !deeper(p)))  /* a level of its own */
		return false;
	if (peek(p) != ']' || (array_item && peek_at(p, 1) != ']'))
		return fail(p, ERR_PARSE, p->at, "expected '%s' after \"%.*s\", found %s",
		    array_item ? "]]" : "]", SHOW(k.name), found(p));
	p->at += array_item ? 2 : 1;
	t = define(p, t, &k, array_item);
	if (!t)
		return false;
	t->line = t->vline = here.line;
	t->column = t->vcolumn = here.column;
	t->off = here.off;
	t->len = p->at - here.off;
	if (!line_end(p, "the table header"))
		return false;
	t->end = p->at;
	*section = t;
	return true;
}

static bool
document(struct parser *p, struct toml *root)
{
	struct toml *section = root;

	while (p->at < p->t.n) {
		blanks(p);
		if (peek(p) == '[') {
			if (!header(p, root, &section))
				return false;
		} else if (peek(p) >= 0 && peek(p) != '#' && !at_newline(p)) {
			if (!key_value(p, section) || !line_end(p, "the value"))
				return false;
			section->end = p->at;
		} else if (!line_end(p, "a comment")) {
			return false;
		}
	}
	return true;
}

enum err
toml_parse(struct arena *a, struct str text, struct toml **root, struct toml_error *e)
{
	struct toml_error unused;
	struct parser p = { .a = a, .t = text, .e = e ? e : &unused };
	struct toml *t = arena_alloc(a, sizeof(*t));
	size_t good = utf8_run(text);

	if (!t) {
		fail_memory(&p);
		return p.err;
	}
	t->type = TOML_TABLE;
	t->line = t->column = t->vline = t->vcolumn = 1;
	if (str_starts(text, S("\xEF\xBB\xBF")))
		p.start = p.at = 3;
	if (good < text.n)
		fail(&p, ERR_PARSE, good, "ill-formed UTF-8");
	else if (document(&p, t))
		*root = t;
	return p.err;
}

struct toml *
toml_get(const struct toml *table, struct str key)
{
	if (!table || table->type != TOML_TABLE)
		return NULL;
	for (struct toml *t = table->first; t; t = t->next)
		if (str_eq(t->key, key))
			return t;
	return NULL;
}

const char *
toml_type_name(enum toml_type t)
{
	static const char *const names[] = { "string", "integer", "float", "boolean",
		"date-time", "local date-time", "local date", "local time", "array", "table" };

	return names[t];
}
