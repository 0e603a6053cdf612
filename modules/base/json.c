/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * json.c - JSON (RFC 8259): arena parser, path reads, streaming writer.
 *
 * The parser is a loop, not a recursion: the open containers stand in an array
 * of JSON_DEPTH_MAX frames, so hostile nesting costs an error and no stack.
 * Each turn of the loop reads one value (start_value) and then whatever stands
 * between values (between: closing brackets, a comma, the next member's name).
 *
 * It sees every event of every stream, so it is built to touch each byte once:
 * strings are scanned eight bytes at a time for the few bytes that matter, and
 * a string without escapes is a view into the input, not a copy. UTF-8 needs
 * checking only in strings, for outside of them every byte above 0x7F is an
 * error already; a string of pure ASCII (the scan knows) skips that check. The
 * only allocation is the arena's: one node a value, one text a string with
 * escapes. A parent finds its last child through its frame, so nodes carry no
 * tail pointer.
 *
 * Numbers are checked against the grammar and kept as text. What asks for an
 * int64 gets it by exact decimal arithmetic (9007199254740993 and 1e3 are
 * right, 0.5 is an error); what asks for a double gets strtod. The process
 * never leaves the "C" locale, so the decimal point is a point.
 *
 * The writer never produces what the parser would refuse: ill-formed UTF-8
 * becomes U+FFFD, nan and inf become null, and nesting has the same limit.
 * Calls in the wrong order (an end without its begin) are bugs, and asserted.
 */
#include "base/json.h"

#include <assert.h>
#include <math.h>

/* ---- scanning strings ------------------------------------------------------ */

#define ONES 0x0101010101010101u
#define HIGHS 0x8080808080808080u

/* Does any byte of w stand below 0x20, or equal '"' or '\\'? (Bit Twiddling Hacks; a hit may
 * also colour bytes beside it, so the caller looks again byte by byte.) */
static inline uint64_t
has_special(uint64_t w)
{
	uint64_t q = w ^ (ONES * '"'), b = w ^ (ONES * '\\');

	return ((w - ONES * 0x20) & ~w & HIGHS) | ((q - ONES) & ~q & HIGHS) |
	    ((b - ONES) & ~b & HIGHS);
}

/* How many bytes from the start need no second look; *high gets a bit when any is not ASCII. */
static size_t
plain_run(const char *p, size_t n, uint64_t *high)
{
	size_t i = 0;

	while (n - i >= 8) {
		uint64_t w;

		memcpy(&w, p + i, 8);
		if (has_special(w))
			break;
		*high |= w & HIGHS;
		i += 8;
	}
	for (; i < n; i++) {
		unsigned char c = (unsigned char)p[i];

		if (c < 0x20 || c == '"' || c == '\\')
			break;
		*high |= c & 0x80u;
	}
	return i;
}

/* ---- parser ------------------------------------------------------------------ */

struct frame {
	struct json *node;
	struct json **tail;     /* where the next child is linked */
};

struct parser {
	struct arena *a;
	const char *start, *p, *end;
	enum err err;
	const char *what;
	const char *where;
	struct str key;         /* the name just read, for the next value */
	unsigned depth;
	bool fresh;             /* the innermost container was just opened */
	struct frame open[JSON_DEPTH_MAX];
};

static bool
fail(struct parser *p, enum err err, const char *where, const char *what)
{
	p->err = err;
	p->where = where;
	p->what = what;
	return false;
}

static bool
fail_memory(struct parser *p, const char *where)
{
	enum err e = p->a->err != OK ? p->a->err : ERR_NOMEM;

	return fail(p, e, where, e == ERR_LIMIT ? "document is too big" : "out of memory");
}

static void
blanks(struct parser *p)
{
	while (p->p < p->end &&
	    (*p->p == ' ' || *p->p == '\n' || *p->p == '\r' || *p->p == '\t'))
		p->p++;
}

static int
peek(const struct parser *p)
{
	return p->p < p->end ? (unsigned char)*p->p : -1;
}

/* Four hexadecimal digits at s, or -1. */
static int32_t
hex4(const char *s, const char *end)
{
	int32_t v = 0;

	if (end - s < 4)
		return -1;
	for (int i = 0; i < 4 && v >= 0; i++)
		v = hex_digit(s[i]) < 0 ? -1 : v * 16 + hex_digit(s[i]);
	return v;
}

/* The code point of the \u escape whose digits start at *s; *s ends behind it. */
static bool
unicode_escape(struct parser *p, const char **s, const char *end, uint32_t *cp)
{
	const char *escape = *s - 2;
	int32_t hi = hex4(*s, end), lo;

	if (hi < 0)
		return fail(p, ERR_PARSE, escape, "\\u needs four hexadecimal digits");
	*s += 4;
	*cp = (uint32_t)hi;
	if (hi < 0xD800 || hi > 0xDFFF)
		return true;
	lo = end - *s >= 6 && (*s)[0] == '\\' && (*s)[1] == 'u' ? hex4(*s + 2, end) : -1;
	if (hi > 0xDBFF || lo < 0xDC00 || lo > 0xDFFF)
		return fail(p, ERR_PARSE, escape, "\\u escape of a lone surrogate");
	*s += 6;
	*cp = 0x10000u + (((uint32_t)hi & 0x3FFu) << 10) + ((uint32_t)lo & 0x3FFu);
	return true;
}

/* Copies the text of raw (no quotes around it) into the arena with its escapes resolved. */
static bool
unescape(struct parser *p, struct str raw, struct str *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *s = raw.p, *end = raw.p + raw.n;
	char *text = arena_alloc(p->a, raw.n), *o = text;  /* no escape makes text longer */

	if (!text)
		return fail_memory(p, raw.p);
	while (s < end) {
		const char *slash = memchr(s, '\\', (size_t)(end - s)), *known;
		size_t n = (size_t)((slash ? slash : end) - s);
		uint32_t cp;

		memcpy(o, s, n);
		o += n;
		s += n;
		if (!slash)
			break;
		s += 2;         /* the scan saw to it that a byte follows the backslash */
		if (slash[1] == 'u') {
			if (!unicode_escape(p, &s, end, &cp))
				return false;
			o += utf8_encode(cp, o);
			continue;
		}
		known = memchr(from, slash[1], sizeof(from) - 1);
		if (!known)
			return fail(p, ERR_PARSE, slash, "unknown escape in a string");
		*o++ = to[known - from];
	}
	*out = str_make(text, (size_t)(o - text));
	return true;
}

/* The cursor stands on the opening quote. */
static bool
string(struct parser *p, struct str *out)
{
	const char *quote = p->p++;
	struct str raw;
	uint64_t high = 0;
	bool escapes = false;

	for (;;) {
		p->p += plain_run(p->p, (size_t)(p->end - p->p), &high);
		if (peek(p) == '"')
			break;
		if (peek(p) >= 0 && peek(p) < 0x20)
			return fail(p, ERR_PARSE, p->p, "control character in a string");
		if (p->end - p->p < 2)
			return fail(p, ERR_PARSE, quote, "string without its closing quote");
		escapes = true;
		p->p += 2;
	}
	raw = str_make(quote + 1, (size_t)(p->p - quote - 1));
	p->p++;
	if (high && utf8_run(raw) < raw.n)
		return fail(p, ERR_PARSE, raw.p + utf8_run(raw), "ill-formed UTF-8");
	*out = raw;
	return !escapes || unescape(p, raw, out);
}

static bool
digits(struct parser *p)
{
	const char *from = p->p;

	while (p->p < p->end && *p->p >= '0' && *p->p <= '9')
		p->p++;
	return p->p > from;
}

static bool
number(struct parser *p, struct str *out)
{
	const char *from = p->p;
	bool good = true;

	if (peek(p) == '-')
		p->p++;
	if (peek(p) == '0')
		p->p++;         /* a digit behind it is what the caller does not expect */
	else
		good = digits(p);
	if (good && peek(p) == '.') {
		p->p++;
		good = digits(p);
	}
	if (good && (peek(p) == 'e' || peek(p) == 'E')) {
		p->p++;
		if (peek(p) == '+' || peek(p) == '-')
			p->p++;
		good = digits(p);
	}
	if (!good)
		return fail(p, ERR_PARSE, p->p, "expected a digit");
	*out = str_make(from, (size_t)(p->p - from));
	if (out->n > JSON_NUMBER_MAX)
		return fail(p, ERR_LIMIT, from, "number is too long");
	return true;
}

static bool
word(struct parser *p, struct str w)
{
	if ((size_t)(p->end - p->p) < w.n || memcmp(p->p, w.p, w.n) != 0)
		return fail(p, ERR_PARSE, p->p, "expected a value");
	p->p += w.n;
	return true;
}

static bool
open_container(struct parser *p, struct json *v)
{
	if (p->depth == JSON_DEPTH_MAX)
		return fail(p, ERR_LIMIT, p->p, "nested too deeply");
	p->p++;
	p->open[p->depth++] = (struct frame){ v, &v->first };
	p->fresh = true;
	return true;
}

static bool
scalar(struct parser *p, struct json *v)
{
	switch (peek(p)) {
	case '"':
		v->type = JSON_STRING;
		return string(p, &v->s);
	case 't':
		v->type = JSON_BOOL;
		v->boolean = true;
		return word(p, S("true"));
	case 'f':
		v->type = JSON_BOOL;
		return word(p, S("false"));
	case 'n':
		return word(p, S("null"));
	default:
		v->type = JSON_NUMBER;
		if (peek(p) == '-' || (peek(p) >= '0' && peek(p) <= '9'))
			return number(p, &v->s);
		return fail(p, ERR_PARSE, p->p, p->p < p->end ? "expected a value" :
		    "unexpected end: expected a value");
	}
}

/* Reads a scalar whole, of a container the opening bracket, and links it into its parent. */
static bool
start_value(struct parser *p, struct json **root)
{
	struct json *v = arena_alloc(p->a, sizeof(*v));
	struct frame *top = p->depth ? &p->open[p->depth - 1] : NULL;

	if (!v)
		return fail_memory(p, p->p);
	v->key = p->key;
	p->key = STR_NONE;
	p->fresh = false;
	if (top) {
		*top->tail = v;
		top->tail = &v->next;
		top->node->count++;
	} else {
		*root = v;
	}
	v->raw.p = p->p;
	if (peek(p) == '{' || peek(p) == '[') {
		v->type = peek(p) == '{' ? JSON_OBJECT : JSON_ARRAY;
		return open_container(p, v);    /* raw.n follows when it closes */
	}
	if (!scalar(p, v))
		return false;
	v->raw.n = (size_t)(p->p - v->raw.p);
	return true;
}

static bool
member_name(struct parser *p)
{
	if (peek(p) != '"')
		return fail(p, ERR_PARSE, p->p, "expected a member name in double quotes");
	if (!string(p, &p->key))
		return false;
	blanks(p);
	if (peek(p) != ':')
		return fail(p, ERR_PARSE, p->p, "expected ':' after a member name");
	p->p++;
	return true;
}

/* What stands between two values. True when another value follows; false at the end of
 * the outermost one, or with the error set. */
static bool
between(struct parser *p)
{
	while (p->depth) {
		struct json *v = p->open[p->depth - 1].node;
		bool object = v->type == JSON_OBJECT;

		blanks(p);
		if (peek(p) == (object ? '}' : ']')) {
			p->p++;
			v->raw.n = (size_t)(p->p - v->raw.p);
			p->depth--;
			p->fresh = false;
			continue;
		}
		if (!p->fresh) {
			if (peek(p) != ',')
				return fail(p, ERR_PARSE, p->p, object ?
				    "expected ',' or '}'" : "expected ',' or ']'");
			p->p++;
			blanks(p);
		}
		if (object && !member_name(p))
			return false;
		blanks(p);
		return true;
	}
	return false;
}

static void
locate(const struct parser *p, struct json_error *e)
{
	const char *line = p->start;

	e->line = 1;
	for (const char *s = p->start; s < p->where; s++) {
		if (*s == '\n') {
			e->line++;
			line = s + 1;
		}
	}
	e->column = (unsigned)(p->where - line) + 1;
	e->offset = (size_t)(p->where - p->start);
	e->what = p->what;
}

enum err
json_parse(struct arena *a, struct str text, const struct json **out, struct json_error *e)
{
	struct parser p;        /* not zeroed: its frames are 2 kB that most texts never use */
	struct json *root = NULL;

	p.a = a;
	p.start = p.p = text.n ? text.p : "";
	p.end = p.start + text.n;
	p.err = OK;
	p.key = STR_NONE;
	p.depth = 0;
	p.fresh = false;
	if (str_starts(text, S("\xEF\xBB\xBF")))
		fail(&p, ERR_PARSE, p.p, "byte order mark before the value");
	blanks(&p);
	while (p.err == OK && start_value(&p, &root) && between(&p))
		;
	blanks(&p);
	if (p.err == OK && p.p < p.end)
		fail(&p, ERR_PARSE, p.p, "text behind the value");
	if (p.err == OK)
		*out = root;
	else if (e)
		locate(&p, e);
	return p.err;
}

/* ---- reading --------------------------------------------------------------------- */

const struct json *
json_get(const struct json *obj, struct str key)
{
	const struct json *found = NULL;

	if (!json_is(obj, JSON_OBJECT))
		return NULL;
	for (const struct json *m = obj->first; m; m = m->next)
		if (str_eq(m->key, key))
			found = m;
	return found;
}

static const struct json *
item(const struct json *v, struct str index)
{
	int64_t i;

	if (str_i64(index, 0, INT32_MAX, &i) != OK || (uint64_t)i >= v->count)
		return NULL;
	for (v = v->first; i > 0; i--)
		v = v->next;
	return v;
}

const struct json *
json_at(const struct json *v, const char *path)
{
	struct str rest = str_z(path), step;
	bool more = rest.n > 0;

	while (v && more) {
		more = str_cut(&rest, '.', &step);
		v = v->type == JSON_ARRAY ? item(v, step) : json_get(v, step);
	}
	return v;
}

bool
json_is(const struct json *v, enum json_type t)
{
	return v && v->type == t;
}

struct str
json_str(const struct json *v, const char *path, struct str dflt)
{
	v = json_at(v, path);
	return json_is(v, JSON_STRING) ? v->s : dflt;
}

bool
json_bool(const struct json *v, const char *path, bool dflt)
{
	v = json_at(v, path);
	return json_is(v, JSON_BOOL) ? v->boolean : dflt;
}

int64_t
json_i64(const struct json *v, const char *path, int64_t dflt)
{
	int64_t i;

	return json_to_i64(json_at(v, path), &i) == OK ? i : dflt;
}

/* A number's text with a NUL behind it. */
static bool
number_z(const struct json *v, char z[JSON_NUMBER_MAX + 1])
{
	if (!json_is(v, JSON_NUMBER) || v->s.n > JSON_NUMBER_MAX)
		return false;
	snprintf(z, JSON_NUMBER_MAX + 1, "%.*s", STR_ARG(v->s));
	return true;
}

double
json_f64(const struct json *v, const char *path, double dflt)
{
	char z[JSON_NUMBER_MAX + 1];

	return number_z(json_at(v, path), z) ? strtod(z, NULL) : dflt;
}

/*
 * The value is DIGITS * 10^exponent. When its digits do not end in a zero, it is
 * an integer unless the exponent is negative.
 */
enum err
json_to_i64(const struct json *v, int64_t *out)
{
	char z[JSON_NUMBER_MAX + 1], digits[JSON_NUMBER_MAX];
	size_t end, n = 0;
	int64_t exponent = 0, r;

	if (!number_z(v, z))
		return ERR_PARSE;
	end = strcspn(z, "eE");
	if (z[end])             /* a huge one is taken for the largest there is */
		exponent = (int32_t)fmax(fmin(strtod(z + end + 1, NULL), INT32_MAX), INT32_MIN);
	for (size_t i = 0; i < end; i++) {
		if (z[i] != '.')
			digits[n++] = z[i];
		else
			exponent -= (int64_t)(end - i - 1);
	}
	for (; n > 1 && digits[n - 1] == '0' && digits[n - 2] != '-'; n--)
		exponent++;
	if (str_i64(str_make(digits, n), INT64_MIN, INT64_MAX, &r) != OK)
		return ERR_PARSE;
	if (r != 0 && exponent < 0)
		return ERR_PARSE;
	for (; r != 0 && exponent > 0; exponent--)      /* at most 19 times */
		if (mul_i64(r, 10, &r))
			return ERR_PARSE;
	*out = r;
	return OK;
}

/* ---- writer ------------------------------------------------------------------------- */

void
jw_init(struct jw *w, struct buf *b)
{
	*w = (struct jw){ .b = b };
}

/* Before a value or a name: the comma that parts it from the one before. */
static void
begin(struct jw *w)
{
	if (w->comma)
		buf_putc(w->b, ',');
	w->comma = true;
}

/* Depth is counted on beyond the limit, so that the ends still match in a failed writer. */
static void
enter(struct jw *w, char bracket)
{
	begin(w);
	buf_putc(w->b, bracket);
	if (w->depth++ >= JSON_DEPTH_MAX && w->b->err == OK)
		w->b->err = ERR_LIMIT;
	w->comma = false;
}

static void
leave(struct jw *w, char bracket)
{
	assert(w->depth > 0);
	w->depth--;
	buf_putc(w->b, bracket);
	w->comma = true;
}

void
jw_obj(struct jw *w)
{
	enter(w, '{');
}

void
jw_end_obj(struct jw *w)
{
	leave(w, '}');
}

void
jw_arr(struct jw *w)
{
	enter(w, '[');
}

void
jw_end_arr(struct jw *w)
{
	leave(w, ']');
}

static void
escape(struct buf *b, unsigned char c)
{
	static const char hex[] = "0123456789abcdef", from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *known = c ? strchr(from, c) : NULL;
	char text[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

	if (known)
		text[1] = to[known - from];
	buf_put(b, text, known ? 2 : sizeof(text));
}

void
json_quote(struct buf *b, struct str s)
{
	buf_putc(b, '"');
	while (s.n && b->err == OK) {
		uint64_t high = 0;
		size_t n = plain_run(s.p, s.n, &high);

		if (high)
			utf8_clean(b, str_sub(s, 0, n));
		else
			buf_put(b, s.p, n);
		if (n < s.n)
			escape(b, (unsigned char)s.p[n++]);
		s = str_sub(s, n, s.n);
	}
	buf_putc(b, '"');
}

void
jw_key_str(struct jw *w, struct str key)
{
	begin(w);
	json_quote(w->b, key);
	buf_putc(w->b, ':');
	w->comma = false;
}

void
jw_key(struct jw *w, const char *key)
{
	jw_key_str(w, str_z(key));
}

void
jw_str(struct jw *w, struct str s)
{
	begin(w);
	json_quote(w->b, s);
}

void
jw_raw(struct jw *w, struct str json)
{
	begin(w);
	buf_str(w->b, json.n ? json : S("null"));
}

void
jw_null(struct jw *w)
{
	jw_raw(w, S("null"));
}

void
jw_z(struct jw *w, const char *z)
{
	if (z)
		jw_str(w, str_z(z));
	else
		jw_null(w);
}

void
jw_bool(struct jw *w, bool v)
{
	jw_raw(w, v ? S("true") : S("false"));
}

void
jw_i64(struct jw *w, int64_t v)
{
	begin(w);
	buf_fmt(w->b, "%lld", (long long)v);
}

void
jw_f64(struct jw *w, double v)
{
	char text[32];

	if (!isfinite(v)) {
		jw_null(w);
		return;
	}
	for (int precision = 1; precision <= 17; precision++) {
		snprintf(text, sizeof(text), "%.*g", precision, v);
		if (strtod(text, NULL) == v)    /* 17 digits always do */
			break;
	}
	jw_raw(w, str_z(text));
}

void
jw_kstr(struct jw *w, const char *key, struct str s)
{
	jw_key(w, key);
	jw_str(w, s);
}

void
jw_kz(struct jw *w, const char *key, const char *z)
{
	jw_key(w, key);
	jw_z(w, z);
}

void
jw_ktime(struct jw *w, const char *key, int64_t us)
{
	jw_key(w, key);
	if (us)
		jw_i64(w, us / US_PER_S);
	else
		jw_null(w);
}

void
jw_ki64(struct jw *w, const char *key, int64_t v)
{
	jw_key(w, key);
	jw_i64(w, v);
}

void
jw_kbool(struct jw *w, const char *key, bool v)
{
	jw_key(w, key);
	jw_bool(w, v);
}

void
jw_kraw(struct jw *w, const char *key, struct str json)
{
	jw_key(w, key);
	jw_raw(w, json);
}

enum err
jw_done(struct jw *w)
{
	assert(w->depth == 0);
	return w->b->err;
}
