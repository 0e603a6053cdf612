/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * toml.c - TOML 1.0.0: arena parser with places and helpful errors.
 *
 * The text is validated as UTF-8 once, then read by a cursor that only ever
 * moves forward. Every node notes where it stands in the source; an error is
 * given an offset, and its line and column are counted only then.
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

#define TOML_NUMBER_MAX 512     /* bytes of one number */
#define QUOTE_MAX 24            /* bytes of offending text shown in an error */

enum { DOTTED = 1 };            /* struct toml.internal */

struct parser {
	struct arena *a;
	struct str t;
	size_t start;           /* behind a byte order mark */
	size_t at;              /* the cursor */
	unsigned line;
	size_t line_start;
	unsigned depth;         /* of the value being read, counted from the root */
	struct toml_error *e;
	enum err err;
};

struct key {
	struct str name;
	size_t off, len;
	unsigned line, column;
};

static bool fail(struct parser *p, enum err err, size_t off, const char *fmt, ...) PRINTF(4, 5);
static bool value(struct parser *p, struct toml *v);

/* ---- errors ------------------------------------------------------------------ */

static bool
fail(struct parser *p, enum err err, size_t off, const char *fmt, ...)
{
	struct toml_error *e = p->e;
	size_t start = p->start, n;
	va_list ap;

	p->err = err;
	e->line = 1;
	for (size_t i = start; i < off; i++) {
		if (p->t.p[i] == '\n') {
			e->line++;
			start = i + 1;
		}
	}
	e->column = (unsigned)(off - start) + 1;
	va_start(ap, fmt);
	vsnprintf(e->what, sizeof(e->what), fmt, ap);
	va_end(ap);
	/* One line of whole characters, whatever the file holds. */
	n = utf8_prefix(str_z(e->what), sizeof(e->what) - 4).n;
	e->what[n] = '\0';
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

/* A key as errors show it. */
#define SHOW_MAX 40
#define SHOW(s) STR_ARG(utf8_prefix((s), SHOW_MAX))

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

struct shown {
	char text[QUOTE_MAX + 3];
};

/* What stands at the cursor, quoted for an error. */
static struct shown
found(const struct parser *p)
{
	struct str rest = str_sub(p->t, p->at, p->t.n);
	struct shown w;
	size_t n = 0;

	while (n < rest.n && !memchr(" \t\r\n,]}=#", rest.p[n], 9))
		n++;
	if (n == 0 && rest.n && rest.p[0] != '\n' && rest.p[0] != '\r')
		n = 1;
	rest = utf8_prefix(str_sub(rest, 0, n), QUOTE_MAX);
	if (n == 0 || control(peek(p)))
		snprintf(w.text, sizeof(w.text), "%s", n ? "a control character" :
		    peek(p) < 0 ? "the end of the file" : "the end of the line");
	else
		snprintf(w.text, sizeof(w.text), "\"%.*s\"", STR_ARG(rest));
	return w;
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
	if (peek(p) == '\r') {
		if (peek_at(p, 1) != '\n')
			return fail(p, ERR_PARSE, p->at, "carriage return without a line feed");
		p->at++;
	}
	p->at++;
	p->line++;
	p->line_start = p->at;
	return true;
}

static bool
at_newline(const struct parser *p)
{
	return peek(p) == '\n' || peek(p) == '\r';
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
		return fail(p, ERR_PARSE, p->at, "unexpected %s after %s", found(p).text, after);
	return newline(p);
}

/* Blanks, comments and line ends, as they may stand in an array. */
static bool
space(struct parser *p)
{
	for (;;) {
		if (!trailer(p))
			return false;
		if (!at_newline(p))
			return true;
		if (!newline(p))
			return false;
	}
}

/* ---- strings -------------------------------------------------------------------- */

/* Finds the text from the cursor, behind the opening quotes, to the closing ones. */
static bool
quoted(struct parser *p, char quote, bool multi, size_t open, struct str *raw)
{
	size_t from = p->at, run;

	while (peek(p) >= 0) {
		int c = peek(p);

		if (c == quote) {
			for (run = 1; multi && run < 5 && peek_at(p, run) == quote; run++)
				;
			p->at += run;
			if (!multi || run >= 3) {
				/* One or two quotes before the closing three are text. */
				*raw = str_sub(p->t, from, p->at - (multi ? 3 : 1) - from);
				return true;
			}
		} else if (at_newline(p)) {
			if (!multi)
				break;
			if (!newline(p))
				return false;
		} else if (control(c)) {
			return fail(p, ERR_PARSE, p->at, "control character in a string");
		} else {
			p->at++;
			if (c == '\\' && quote == '"' && (peek(p) == '"' || peek(p) == '\\'))
				p->at++;
		}
	}
	return fail(p, ERR_PARSE, open, "string without its closing quote%s", multi ? "s" : "");
}

/* A backslash at the end of a line swallows it and all blanks up to the next text. */
static bool
continuation(struct parser *p, struct str raw, size_t *i)
{
	size_t n = *i;
	bool line = false;

	while (n < raw.n && memchr(" \t\r\n", raw.p[n], 4))
		line |= raw.p[n++] == '\n';
	if (!line)
		return fail(p, ERR_PARSE, (size_t)(raw.p - p->t.p) + *i - 1,
		    "a backslash before a blank must end its line");
	*i = n;
	return true;
}

/* \uXXXX or \UXXXXXXXX; raw.p[*i] is the letter. */
static bool
unicode_escape(struct parser *p, struct str raw, size_t *i, char **o)
{
	size_t n = raw.p[*i] == 'u' ? 4 : 8;
	uint32_t cp = 0;
	bool good = raw.n - *i > n;

	for (size_t k = 1; good && k <= n; k++) {
		static const char hex[] = "0123456789abcdefABCDEF";
		const char *d = memchr(hex, raw.p[*i + k], sizeof(hex) - 1);

		good = d != NULL;
		if (good)
			cp = cp << 4 | (uint32_t)(d - hex < 16 ? d - hex : d - hex - 6);
	}
	if (!good || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
		return fail(p, ERR_PARSE, (size_t)(raw.p - p->t.p) + *i - 1,
		    "\\%c needs %zu hexadecimal digits that name a character", raw.p[*i], n);
	*o += utf8_encode(cp, *o);
	*i += n + 1;
	return true;
}

/* Copies raw into the arena, escapes resolved, CRLF as LF. */
static bool
unescape(struct parser *p, struct str raw, bool escapes, bool multi, struct str *out)
{
	static const char from[] = "\"\\bfnrt", to[] = "\"\\\b\f\n\r\t";
	char *text = arena_alloc(p->a, raw.n), *o = text;

	if (!text)
		return fail_memory(p);
	for (size_t i = 0; i < raw.n; ) {
		char c = raw.p[i++];
		const char *known;

		if (c == '\r')
			continue;
		if (c != '\\' || !escapes) {
			*o++ = c;
			continue;
		}
		c = i < raw.n ? raw.p[i] : ' ';
		known = memchr(from, c, sizeof(from) - 1);
		if (known) {
			*o++ = to[known - from];
			i++;
		} else if (c == 'u' || c == 'U') {
			if (!unicode_escape(p, raw, &i, &o))
				return false;
		} else if (multi && memchr(" \t\r\n", c, 4)) {
			if (!continuation(p, raw, &i))
				return false;
		} else {
			size_t off = (size_t)(raw.p - p->t.p) + i - 1;

			return fail(p, ERR_PARSE, off, "unknown escape \\%c (write \\\\ for a "
			    "backslash)", (unsigned char)c < 0x7F ? c : '?');
		}
	}
	*out = str_make(text, (size_t)(o - text));
	return true;
}

/* The cursor stands on the opening quote. A key may not have three of them. */
static bool
string(struct parser *p, bool key, struct str *out)
{
	char quote = (char)peek(p);
	bool multi = !key && peek_at(p, 1) == quote && peek_at(p, 2) == quote;
	size_t open = p->at;
	struct str raw;

	p->at += multi ? 3 : 1;
	/* A line end right behind the opening quotes is not part of the text. */
	if (multi && at_newline(p) && !newline(p))
		return false;
	return quoted(p, quote, multi, open, &raw) &&
	    unescape(p, raw, quote == '"', multi, out);
}

/* ---- numbers ----------------------------------------------------------------------- */

struct radix {
	char letter;
	int base;
	const char *digits;
};

/* Copies the number without its underscores, each of which must stand between digits. */
static bool
strip(struct str s, const char *digits, char out[TOML_NUMBER_MAX + 1])
{
	size_t n = 0, nd = strlen(digits);

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '_')
			out[n++] = s.p[i];
		else if (i == 0 || i + 1 == s.n || !memchr(digits, s.p[i - 1], nd) ||
		    !memchr(digits, s.p[i + 1], nd))
			return false;
	}
	out[n] = '\0';
	return true;
}

/* ERR_PARSE when z does not have the shape of an integer. */
static enum err
integer(const char *z, const struct radix *r, int64_t *out)
{
	const char *d = z + (r->base == 10 && (*z == '-' || *z == '+'));
	size_t n = strspn(d, r->digits);
	long long v;

	if (n == 0 || d[n] || (r->base == 10 && *d == '0' && n > 1))
		return ERR_PARSE;
	errno = 0;
	v = strtoll(z, NULL, r->base);
	if (errno == ERANGE)
		return ERR_LIMIT;
	*out = v;
	return OK;
}

/* Behind one digit or more at z; NULL when there is none, or z is NULL already. */
static const char *
digits(const char *z)
{
	size_t n = z ? strspn(z, "0123456789") : 0;

	return n ? z + n : NULL;
}

/* Is z [+-] digits [. digits] [e [+-] digits], without a leading zero? */
static bool
float_shape(const char *z)
{
	z += *z == '-' || *z == '+';
	if (*z == '0' && digits(z + 1))
		return false;
	z = digits(z);
	if (z && *z == '.')
		z = digits(z + 1);
	if (z && (*z == 'e' || *z == 'E')) {
		z++;
		z = digits(z + (*z == '-' || *z == '+'));
	}
	return z && !*z;
}

/* inf and nan with or without a sign. */
static bool
special_float(struct str s, double *out)
{
	bool negative = s.p[0] == '-';

	if (negative || s.p[0] == '+')
		s = str_sub(s, 1, s.n);
	if (!str_eqz(s, "inf") && !str_eqz(s, "nan"))
		return false;
	*out = s.p[0] == 'n' ? (double)NAN : negative ? -(double)INFINITY : (double)INFINITY;
	return true;
}

static bool
number(struct parser *p, struct str s, struct toml *v)
{
	static const struct radix radixes[] = {
		{ 'x', 16, "0123456789abcdefABCDEF" }, { 'o', 8, "01234567" }, { 'b', 2, "01" },
		{ 0, 10, "0123456789" },
	};
	const struct radix *r = radixes;
	char z[TOML_NUMBER_MAX + 1];
	enum err e;

	if (s.n > TOML_NUMBER_MAX)
		return fail(p, ERR_LIMIT, v->off, "the number is too long");
	while (r->letter && (s.n < 2 || s.p[0] != '0' || s.p[1] != r->letter))
		r++;
	if (!strip(r->letter ? str_sub(s, 2, s.n) : s, r->digits, z))
		return fail(p, ERR_PARSE, v->off, "an underscore must stand between digits in %.*s",
		    SHOW(s));
	v->type = TOML_INTEGER;
	e = integer(z, r, &v->i);
	if (e == ERR_LIMIT)
		return fail(p, ERR_PARSE, v->off, "the integer %.*s does not fit into 64 bits",
		    SHOW(s));
	if (e == OK)
		return true;
	if (r->letter || !float_shape(z))
		return fail(p, ERR_PARSE, v->off, "\"%.*s\" is not a number", SHOW(s));
	v->type = TOML_FLOAT;
	v->f = strtod(z, NULL);
	return isfinite(v->f) ||
	    fail(p, ERR_PARSE, v->off, "the number %.*s is too large", SHOW(s));
}

/* ---- dates and times ----------------------------------------------------------------- */

static bool
is_digit(struct str s, size_t i)
{
	return i < s.n && s.p[i] >= '0' && s.p[i] <= '9';
}

/* Cuts two digits (four of a year) and, if sep is set, that byte; the number must lie within
 * [min,max]. */
static bool
cut(struct str *s, unsigned min, unsigned max, char sep, unsigned *out)
{
	size_t n = max > 99 ? 4 : 2, all = n + (sep != 0);
	unsigned v = 0;

	if (s->n < all || (sep && s->p[n] != sep))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_digit(*s, i))
			return false;
		v = v * 10 + (unsigned)(s->p[i] - '0');
	}
	*s = str_sub(*s, all, s->n);
	*out = v;
	return v >= min && v <= max;
}

static bool
cut_date(struct str *s)
{
	static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	unsigned y, m, d, leap;

	if (!cut(s, 0, 9999, '-', &y) || !cut(s, 1, 12, '-', &m) || !cut(s, 1, 31, 0, &d))
		return false;
	leap = m == 2 && ((y % 4 == 0 && y % 100 != 0) || y % 400 == 0);
	return d <= days[m - 1] + leap;
}

/* The fraction gets three to nine digits; more are cut off, as TOML demands. */
static bool
cut_time(struct str *s, char fraction[11])
{
	unsigned part;
	size_t n = 1;

	if (!cut(s, 0, 23, ':', &part) || !cut(s, 0, 59, ':', &part) || !cut(s, 0, 60, 0, &part))
		return false;
	if (!s->n || s->p[0] != '.')
		return true;
	while (is_digit(*s, n))
		n++;
	snprintf(fraction, 11, "%.*s%s", (int)(n < 10 ? n : 10), s->p,
	    n == 2 ? "00" : n == 3 ? "0" : "");
	*s = str_sub(*s, n, s->n);
	return n > 1;
}

static bool
cut_offset(struct str *s)
{
	char sign = s->p[0];
	unsigned part;

	*s = str_sub(*s, 1, s->n);
	return sign == 'Z' || sign == 'z' ||
	    ((sign == '+' || sign == '-') && cut(s, 0, 23, ':', &part) && cut(s, 0, 59, 0, &part));
}

/* All parts but the fraction have a fixed width, so the normal form is cut from the source. */
static bool
datetime(struct parser *p, struct str s, struct toml *v)
{
	struct str date = STR_NONE, time, offset, rest = s;
	char fraction[11] = "";
	bool good = true;

	v->type = TOML_TIME_LOCAL;
	if (s.p[2] != ':') {
		good = cut_date(&rest);
		date = str_sub(s, 0, 10);
		v->type = rest.n ? TOML_DATETIME_LOCAL : TOML_DATE_LOCAL;
		if (good && rest.n)
			good = strchr("Tt ", rest.p[0]) != NULL;
		rest = str_sub(rest, 1, rest.n);
	}
	time = str_sub(rest, 0, 8);
	if (good && v->type != TOML_DATE_LOCAL)
		good = cut_time(&rest, fraction);
	offset = rest;
	if (good && v->type == TOML_DATETIME_LOCAL && rest.n) {
		v->type = TOML_DATETIME;
		good = cut_offset(&rest);
	}
	if (!good || rest.n)
		return fail(p, ERR_PARSE, v->off, "\"%.*s\" is not a date or time", SHOW(s));
	v->s = arena_fmt(p->a, "%.*s%s%.*s%s%.*s", STR_ARG(date), date.n && time.n ? "T" : "",
	    STR_ARG(time), fraction, STR_ARG(offset.n == 1 ? S("Z") : offset));
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
		if (n == 10 && rest.p[4] == '-' && rest.n > 13 && rest.p[10] == ' ' &&
		    is_digit(rest, 11) && is_digit(rest, 12) && rest.p[13] == ':')
			n++;
	}
	if (n == 0)
		return fail(p, ERR_PARSE, p->at, "expected a value, found %s", found(p).text);
	s = str_sub(rest, 0, n);
	p->at += n;
	if (str_eqz(s, "true") || str_eqz(s, "false")) {
		v->type = TOML_BOOL;
		v->boolean = s.n == 4;
		return true;
	}
	if (is_digit(s, 0) && is_digit(s, 1) && ((n > 2 && s.p[2] == ':') ||
	    (is_digit(s, 2) && is_digit(s, 3) && n > 4 && s.p[4] == '-')))
		return datetime(p, s, v);
	if (special_float(s, &v->f)) {
		v->type = TOML_FLOAT;
		return true;
	}
	if (is_digit(s, 0) || s.p[0] == '+' || s.p[0] == '-')
		return number(p, s, v);
	return fail(p, ERR_PARSE, v->off, "\"%.*s\" is not a value (text needs quotes)", SHOW(s));
}

static void
append(struct toml *parent, struct toml *child)
{
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
	parent->count++;
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
	append(parent, t);
	return t;
}

static struct key
place(const struct parser *p)
{
	return (struct key){ STR_NONE, p->at, 0, p->line, (unsigned)(p->at - p->line_start) + 1 };
}

static bool
array(struct parser *p, struct toml *v)
{
	v->type = TOML_ARRAY;
	p->at++;
	for (;;) {
		struct key here;
		struct toml *item;

		if (!space(p))
			return false;
		if (peek(p) == ']')
			break;
		here = place(p);
		item = add(p, v, &here, TOML_STRING);
		if (!item || !value(p, item) || !space(p))
			return false;
		if (peek(p) == ']')
			break;
		if (peek(p) != ',')
			return fail(p, ERR_PARSE, p->at, "expected ',' or ']' in the array, "
			    "found %s", found(p).text);
		p->at++;
	}
	p->at++;
	return true;
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
	*k = place(p);
	if (peek(p) == '"' || peek(p) == '\'') {
		if (!string(p, true, &k->name))
			return false;
	} else {
		while (bare(peek(p)))
			p->at++;
		if (p->at == k->off)
			return fail(p, ERR_PARSE, p->at, "expected a key, found %s", found(p).text);
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
	if (dotted)
		child->internal = DOTTED;
	return child;
}

static bool
key_value(struct parser *p, struct toml *t)
{
	unsigned depth = p->depth;
	struct toml *v;
	struct key k, here;

	while (deeper(p) && key_part(p, &k) && peek(p) == '.') {
		p->at++;
		blanks(p);
		t = enter(p, t, &k, true);
		if (!t)
			return false;
	}
	if (p->err != OK)
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
	here = place(p);
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
				    "inline table, found %s", found(p).text);
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
	else if (!array_item && (child->header || child->inline_table || child->internal))
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
	struct key here = place(p), k;
	struct toml *t = root;

	p->at += array_item ? 2 : 1;
	blanks(p);
	p->depth = 0;
	while (deeper(p) && key_part(p, &k) && peek(p) == '.') {
		p->at++;
		blanks(p);
		t = enter(p, t, &k, false);
		if (!t)
			return false;
	}
	if (p->err != OK)
		return false;
	if (array_item && !deeper(p))   /* the array is a level of its own */
		return false;
	if (peek(p) != ']' || (array_item && peek_at(p, 1) != ']'))
		return fail(p, ERR_PARSE, p->at, "expected '%s' after \"%.*s\", found %s",
		    array_item ? "]]" : "]", SHOW(k.name), found(p).text);
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

static bool
check_utf8(struct parser *p)
{
	size_t i = 0, len;

	if (utf8_valid(p->t))
		return true;
	while (i < p->t.n && utf8_decode(str_sub(p->t, i, p->t.n), &len) != UTF8_BAD)
		i += len;
	return fail(p, ERR_PARSE, i, "ill-formed UTF-8");
}

enum err
toml_parse(struct arena *a, struct str text, struct toml **root, struct toml_error *e)
{
	struct toml_error unused;
	struct parser p = { .a = a, .t = text, .line = 1, .e = e ? e : &unused };
	struct toml *t = arena_alloc(a, sizeof(*t));

	if (!t) {
		fail_memory(&p);
		return p.err;
	}
	t->type = TOML_TABLE;
	t->line = t->column = t->vline = t->vcolumn = 1;
	if (str_starts(text, S("\xEF\xBB\xBF")))
		p.start = p.at = p.line_start = 3;
	if (check_utf8(&p) && document(&p, t))
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
