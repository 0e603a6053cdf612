/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * http.c - the server side of HTTP/1.1: bytes in, requests out.
 *
 *           +------------------- keep-alive -------------------+
 *           v                                                  |
 *         IDLE -> HEAD -> BODY -----------------------------> END -> LAST
 *                  |      ^  |                                 ^
 *                  |      |  +-> CRLF -+                       |
 *                  +----> SIZE <-------+                       |
 *                           +-------------> TRAILER -----------+
 *         any -> BAD
 *
 * Octets come in pieces of any size. A step takes octets from the input until
 * it has something to report, changes the state, or runs out; each octet is
 * looked at once, in order, so the cuts cannot change a verdict. Lines are
 * collected whole (a head in one buffer, a line between chunks in another) and
 * judged at their end, but an octet that no line may hold is refused when it
 * comes. Body octets are never copied.
 *
 * There is no table of fields: the head stays as it came, checked, and a look
 * for a field walks it. That is one allocation a request, and none for a
 * connection that waits: END keeps the head for whoever still answers, the
 * call after it frees it.
 *
 * Anything that two readers could take for different requests is refused, even
 * where the standard lets a server repair it (RFC 9112 §11.2): a refusal costs
 * a broken client its connection, a repair may cost somebody else his request.
 */
#include "base/http.h"

#define PORT_DIGITS_MAX 5u
#define LOOPBACK_MAX 64u        /* octets of a Host that may be this machine's; all its names are shorter */
#define HEAD_USUAL 511u         /* octets that most heads have room in */

static const char lone_cr_or_lf[] = "A line has to end with CR LF, and neither may stand alone.";

static enum http_event
bad(struct http *h, int status, const char *why)
{
	if (h->state == HTTP_AT_IDLE || h->state == HTTP_AT_HEAD)       /* half a head, whose views may be of an older buffer */
		h->req = (struct http_request){ .content_length = -1 };
	h->state = HTTP_AT_BAD;
	h->status = status;
	h->why = why;
	return HTTP_BAD;
}

/* ---- characters -------------------------------------------------------------- */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static bool
is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_token_char(char c)
{
	return is_alnum(c) || is_one_of(c, "!#$%&'*+-.^_`|~");
}

/* Of a registered name: unreserved, sub-delims and '%' (RFC 3986). */
static bool
is_name_char(char c)
{
	return is_alnum(c) || is_one_of(c, "-._~!$&'()*+,;=%");
}

static bool
is_path_char(char c)
{
	return is_name_char(c) || is_one_of(c, ":@/");
}

/* More than the standard has: browsers send some of these as they were typed. */
static bool
is_query_char(char c)
{
	return c > ' ' && c <= '~' && !is_one_of(c, "\"#<>\\");
}

static bool
is_ipv6_char(char c)
{
	return hex_digit((unsigned char)c) >= 0 || c == ':' || c == '.';
}

static bool
is_control(char c)
{
	unsigned char u = (unsigned char)c;

	return (u < ' ' && c != '\t') || u == 0x7F;
}

/* Length of the longest prefix whose characters are all of the kind. */
static size_t
run(struct str s, bool (*kind)(char c))
{
	size_t n = 0;

	while (n < s.n && kind(s.p[n]))
		n++;
	return n;
}

static bool
all(struct str s, bool (*kind)(char c))
{
	return run(s, kind) == s.n;
}

static bool
is_token(struct str s)
{
	return s.n && all(s, is_token_char);
}

static struct str
after(struct str s, size_t n)
{
	return str_sub(s, n, s.n);
}

/* ---- lines ------------------------------------------------------------------- */

/*
 * Moves octets to b until a line is whole; more than b may hold are refused with
 * the status. False: the input ran out, or h is bad.
 */
static bool
take_line(struct http *h, struct str *in, struct buf *b, int status)
{
	size_t n = 0, room = b->max - b->n;
	bool whole = false;

	while (n < in->n && !whole) {
		char c;

		while (!h->cr && n < in->n && n < room && !is_control(in->p[n]))
			n++;
		if (n == in->n)
			break;
		c = in->p[n++];
		if (n > room)
			bad(h, status, "A line or the head of the request is too long.");
		else if (h->cr != (c == '\n'))
			bad(h, 400, lone_cr_or_lf);
		else if (is_control(c) && c != '\r' && c != '\n')
			bad(h, 400, "There is a control character in a line.");
		if (h->state == HTTP_AT_BAD)
			return false;
		h->cr = c == '\r';
		whole = c == '\n';
	}
	buf_put(b, in->p, n);
	*in = after(*in, n);
	if (b->err != OK)
		bad(h, 503, "There is not enough memory.");
	return whole && b->err == OK;
}

/* The line at an offset of lines, without its CRLF. */
static struct str
line_at(struct str lines, size_t at)
{
	const char *p = lines.p + at, *end = memchr(p, '\r', lines.n - at);    /* every line has one, and it alone */

	return str_make(p, (size_t)(end - p));
}

/* ---- the request line -------------------------------------------------------- */

/* "name", "name:port", "[v6]" or "[v6]:port". */
static bool
is_authority(struct str s)
{
	size_t n = run(s, is_name_char);

	if (str_starts(s, S("["))) {
		n = run(after(s, 1), is_ipv6_char) + 1;
		if (n < 3 || n == s.n || s.p[n] != ']')
			return false;
		n++;
	}
	if (n == s.n)
		return true;
	s = after(s, n);
	return n && s.p[0] == ':' && s.n <= PORT_DIGITS_MAX + 1 && all(after(s, 1), is_digit);
}

static bool
read_target(struct http_request *r)
{
	struct str rest = r->target;

	if (str_eqz(rest, "*")) {
		r->path = rest;
		return str_eqz(r->method, "OPTIONS");
	}
	if (rest.p[0] != '/') {
		size_t scheme = str_ieq(str_sub(rest, 0, 7), S("http://")) ? 7 :
		    str_ieq(str_sub(rest, 0, 8), S("https://")) ? 8 : 0, n = scheme;

		while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
			n++;
		r->host = str_sub(rest, scheme, n - scheme);
		if (!scheme || !r->host.n || !is_authority(r->host))
			return false;
		rest = after(rest, n);
	}
	if (str_cut(&rest, '?', &r->path))
		r->query = rest;
	if (!r->path.n)
		r->path = S("/");
	return all(r->path, is_path_char) && all(r->query, is_query_char);
}

static void
read_request_line(struct http *h, struct str line)
{
	struct http_request *r = &h->req;
	bool two;

	*r = (struct http_request){ .content_length = -1 };
	two = str_cut(&line, ' ', &r->method) && str_cut(&line, ' ', &r->target);
	if (!two || !is_token(r->method) || !r->target.n || line.n != 8 ||
	    !str_starts(line, S("HTTP/")) || !is_digit(line.p[5]) || line.p[6] != '.' ||
	    !is_digit(line.p[7])) {
		bad(h, 400, "The request line is not \"METHOD TARGET HTTP/1.1\".");
		return;
	}
	r->minor = line.p[7] - '0';
	if (line.p[5] != '1' || r->minor > 1)
		bad(h, 505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
	else if (r->method.n > HTTP_METHOD_MAX || str_eqz(r->method, "CONNECT"))
		bad(h, 501, "This method is not known here.");
	else if (r->target.n > HTTP_TARGET_MAX)
		bad(h, 414, "The request target is too long.");
	else if (!read_target(r))
		bad(h, 400, "The request target is not a path or an http URL.");
}

/* ---- fields ------------------------------------------------------------------ */

static bool
read_field(struct str line, struct http_field *f)
{
	struct str value = line;

	if (!str_cut(&value, ':', &f->name) || !is_token(f->name))
		return false;
	f->value = str_trim(value);     /* controls are refused: what it trims is SP and HTAB */
	return true;
}

static void
check_field(struct http *h, struct str line)
{
	/* Two values of one of these, and two readers may choose differently. */
	static const char *const once[] = {
		"Authorization", "Content-Encoding", "Content-Length", "Content-Type", "Expect",
		"Host", "Last-Event-ID", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version",
		"Transfer-Encoding",
	};
	struct http_field f;

	if (!read_field(line, &f)) {
		bad(h, 400, "A field is not \"Name: value\".");
		return;
	}
	if (++h->n_fields > HTTP_FIELDS_MAX) {
		bad(h, 431, "There are too many fields.");
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(once); i++) {
		if (!str_ieq(f.name, str_z(once[i])))
			continue;
		if (h->seen & 1u << i)
			bad(h, 400, "A field that may come once came twice.");
		h->seen |= 1u << i;
	}
}

bool
http_field_next(const struct http_request *r, size_t *at, struct http_field *out)
{
	struct str line;

	if (*at >= r->fields.n)
		return false;
	line = line_at(r->fields, *at);
	*at += line.n + 2;
	str_cut(&line, ':', &out->name);        /* good ones all: they were checked as they came */
	out->value = str_trim(line);
	return true;
}

/* http_field_next for the fields of one name. */
static bool
next_of(const struct http_request *r, const char *name, size_t *at, struct str *value)
{
	struct str want = str_z(name), line;

	while (*at < r->fields.n) {
		line = line_at(r->fields, *at);
		*at += line.n + 2;
		if (line.n > want.n && line.p[want.n] == ':' && str_ieq(str_sub(line, 0, want.n), want)) {
			*value = str_trim(after(line, want.n + 1));
			return true;
		}
	}
	return false;
}

struct str
http_field(const struct http_request *r, const char *name)
{
	struct str value, second;
	size_t at = 0;

	if (!next_of(r, name, &at, &value) || next_of(r, name, &at, &second))
		return STR_NONE;
	return value;
}

struct str
http_cookie(const struct http_request *r, const char *name)
{
	struct str rest = http_field(r, "Cookie"), pair, key, value = STR_NONE;
	unsigned n = 0;

	while (rest.n) {
		str_cut(&rest, ';', &pair);
		pair = str_trim(pair);
		if (str_cut(&pair, '=', &key) && str_eqz(key, name)) {
			value = pair;
			n++;
		}
	}
	return n == 1 ? value : STR_NONE;
}

bool
http_to_loopback(const struct http_request *r)
{
	char text[LOOPBACK_MAX + sizeof("http://")];
	struct url u;

	snprintf(text, sizeof(text), "http://%.*s", STR_ARG(r->host));
	return r->host.n <= LOOPBACK_MAX && url_parse(str_z(text), &u) == OK && url_is_loopback(&u);
}

/* Cuts the next element, trimmed, from a list; a separator in a quoted string is none. */
static bool
next_element(struct str *list, char separator, struct str *element)
{
	bool quoted = false;
	size_t n = 0;

	if (!list->n)
		return false;
	for (; n < list->n && (quoted || list->p[n] != separator); n++) {
		if (list->p[n] == '"')
			quoted = !quoted;
		else if (quoted && list->p[n] == '\\' && n + 1 < list->n)
			n++;
	}
	*element = str_trim(str_sub(*list, 0, n));
	*list = after(*list, n + 1);
	return true;
}

bool
http_list_has(const struct http_request *r, const char *name, const char *token)
{
	struct str value, element;

	for (size_t at = 0; next_of(r, name, &at, &value);)
		while (next_element(&value, ',', &element))
			if (element.n && str_ieq(element, str_z(token)))
				return true;
	return false;
}

/* "0.5" is 500 thousandths; -1 when it is no weight (RFC 9110 §12.4.2). */
static int
read_weight(struct str s)
{
	int q = 0;

	if (!s.n || s.n > 5 || (s.n > 1 && s.p[1] != '.'))
		return -1;
	for (size_t i = 0; i < 5; i++) {
		if (i == 1)
			continue;
		if (i < s.n && !is_digit(s.p[i]))
			return -1;
		q = q * 10 + (i < s.n ? s.p[i] - '0' : 0);
	}
	return q <= 1000 ? q : -1;
}

/* How specifically a range names the offer: 0 not at all, 1 by wildcards, 2 by its type, 3. */
static int
specificity(struct str range, struct str offer)
{
	size_t slash = str_chr(offer, '/');

	if (str_ieq(range, offer))
		return 3;
	if (slash == SIZE_MAX)
		return str_eqz(range, "*");
	if (str_ends(range, S("/*")) &&
	    str_ieq(str_sub(range, 0, range.n - 1), str_sub(offer, 0, slash + 1)))
		return 2;
	return str_eqz(range, "*/*");
}

int
http_accepts(const struct http_request *r, const char *name, const char *offer)
{
	struct str value, element, range, parameter;
	int best = 0, answer = -1;

	for (size_t at = 0; next_of(r, name, &at, &value);) {
		answer = answer < 0 ? 0 : answer;
		while (next_element(&value, ',', &element)) {
			int fits, q = 1000;

			if (!next_element(&element, ';', &range))
				continue;
			fits = specificity(range, str_z(offer));
			while (next_element(&element, ';', &parameter))
				if (str_ieq(str_sub(parameter, 0, 2), S("q=")))
					q = read_weight(after(parameter, 2));
			if (fits > best && q >= 0) {
				best = fits;
				answer = q;
			}
		}
	}
	return answer;
}

/* ---- the head as a whole ----------------------------------------------------- */

static void
read_length(struct http *h, struct str value)
{
	if (!value.n || !all(value, is_digit))
		bad(h, 400, "Content-Length is not a number.");
	else if (str_i64(value, 0, INT64_MAX, &h->req.content_length) != OK ||
	    (uint64_t)h->req.content_length > h->body_max)
		bad(h, 413, "The body is too large.");
}

/* Where the body ends, if there is one (RFC 9112 §6.3). */
static void
read_framing(struct http *h)
{
	struct http_request *r = &h->req;
	struct str length = http_field(r, "Content-Length");
	struct str coding = http_field(r, "Transfer-Encoding");

	if (length.p && coding.p)
		bad(h, 400, "Content-Length and Transfer-Encoding exclude each other.");
	else if (coding.p && r->minor == 0)
		bad(h, 400, "HTTP/1.0 has no Transfer-Encoding.");
	else if (coding.p && !str_ieq(coding, S("chunked")))
		bad(h, 501, "The only Transfer-Encoding known here is \"chunked\".");
	else if (length.p)
		read_length(h, length);
	r->chunked = coding.p != NULL;
}

static void
read_host(struct http *h)
{
	struct str host = http_field(&h->req, "Host");

	if (!host.p && h->req.minor > 0)
		bad(h, 400, "There is no Host field.");
	else if (!is_authority(host))
		bad(h, 400, "The Host field is not a host.");
	else if (!h->req.host.p)
		h->req.host = host;
}

static void
read_connection(struct http *h)
{
	struct http_request *r = &h->req;
	struct str expect = http_field(r, "Expect");

	r->keep_alive = !http_list_has(r, "Connection", "close") &&
	    (r->minor > 0 || http_list_has(r, "Connection", "keep-alive"));
	if (r->minor == 0)              /* Expect and Upgrade came with HTTP/1.1 */
		return;
	if (expect.p && !str_ieq(expect, S("100-continue"))) {
		bad(h, 417, "The only expectation known here is \"100-continue\".");
		return;
	}
	r->expect_continue = expect.p && (r->chunked || r->content_length > 0);
	r->upgrade_websocket = str_eqz(r->method, "GET") &&
	    http_list_has(r, "Connection", "upgrade") && http_list_has(r, "Upgrade", "websocket");
}

/* The lines were good one by one; where the buffer has moved since, the views are made anew. */
static enum http_event
finish_head(struct http *h)
{
	struct str head = buf_view(&h->head), line = line_at(head, 0);

	h->state = HTTP_AT_BODY;        /* it is whole: whoever answers an error may look at it */
	if (head.p != h->read_at)
		read_request_line(h, line);
	h->req.fields = str_sub(head, line.n + 2, head.n - line.n - 4);
	read_host(h);
	if (h->state != HTTP_AT_BAD)
		read_framing(h);
	if (h->state != HTTP_AT_BAD)
		read_connection(h);
	if (h->state == HTTP_AT_BAD)
		return HTTP_BAD;
	h->left = h->req.content_length > 0 ? (uint64_t)h->req.content_length : 0;
	h->room = h->body_max;
	if (h->req.chunked)
		h->state = HTTP_AT_SIZE;
	return HTTP_HEAD;
}

/* ---- chunks ------------------------------------------------------------------ */

static struct str
skip_blanks(struct str s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = after(s, 1);
	return s;
}

/* Length of a token or a quoted string at the start of s; 0 when there is none. */
static size_t
word_length(struct str s)
{
	size_t n = 1;

	if (!str_starts(s, S("\"")))
		return run(s, is_token_char);
	for (; n < s.n && s.p[n] != '"'; n++)
		if (s.p[n] == '\\')
			n++;
	return n < s.n ? n + 1 : 0;
}

/* *( BWS ";" BWS name [ BWS "=" BWS value ] ): read to be refused when wrong, then dropped. */
static bool
is_extensions(struct str s)
{
	while (s.n) {
		struct str value;
		size_t n;

		s = skip_blanks(s);
		if (!str_starts(s, S(";")))
			return false;
		s = skip_blanks(after(s, 1));
		n = run(s, is_token_char);
		if (n == 0)
			return false;
		s = after(s, n);
		value = skip_blanks(s);
		if (!str_starts(value, S("=")))
			continue;
		s = skip_blanks(after(value, 1));
		n = word_length(s);
		if (n == 0)
			return false;
		s = after(s, n);
	}
	return true;
}

static enum http_event
count_extra(struct http *h, size_t n, int status)
{
	h->extra_n += n;
	if (h->extra_n > HTTP_EXTRA_MAX)
		return bad(h, status, "There are too many chunk extensions or trailer fields.");
	return HTTP_MORE;
}

static enum http_event
read_size(struct http *h, struct str line)
{
	size_t n = 0;
	int digit;

	h->left = 0;
	for (; n < line.n && (digit = hex_digit((unsigned char)line.p[n])) >= 0; n++) {
		if (n == HTTP_CHUNK_DIGITS_MAX)
			return bad(h, 400, "The size of a chunk has too many digits.");
		h->left = h->left << 4 | (unsigned)digit;
	}
	if (n == 0 || !is_extensions(after(line, n)))
		return bad(h, 400, "A chunk does not begin with its size.");
	if (h->left > h->room)
		return bad(h, 413, "The body is too large.");
	h->room -= h->left;
	h->state = h->left ? HTTP_AT_BODY : HTTP_AT_TRAILER;
	return count_extra(h, line.n - n, 400);
}

static enum http_event
step_size(struct http *h, struct str *in)
{
	enum http_event e;

	if (!take_line(h, in, &h->extra, 400))
		return HTTP_MORE;
	e = read_size(h, line_at(buf_view(&h->extra), 0));
	buf_reset(&h->extra);
	return e;
}

static enum http_event
step_crlf(struct http *h, struct str *in)
{
	for (; in->n; *in = after(*in, 1)) {
		if (in->p[0] != (h->cr ? '\n' : '\r'))
			return bad(h, 400, "A chunk does not end where its size says.");
		h->cr = !h->cr;
		if (!h->cr) {
			h->state = HTTP_AT_SIZE;
			*in = after(*in, 1);
			break;
		}
	}
	return HTTP_MORE;
}

static enum http_event
step_trailer(struct http *h, struct str *in)
{
	while (take_line(h, in, &h->extra, 431)) {
		struct str line = line_at(buf_view(&h->extra), 0);
		struct http_field f;

		if (!line.n) {
			h->state = HTTP_AT_END;
			return HTTP_END;
		}
		if (!read_field(line, &f))
			return bad(h, 400, "A trailer field is not \"Name: value\".");
		if (count_extra(h, line.n, 431) == HTTP_BAD)
			return HTTP_BAD;
		buf_reset(&h->extra);
	}
	return HTTP_MORE;
}

/* ---- the other steps --------------------------------------------------------- */

static enum http_event
step_idle(struct http *h, struct str *in)
{
	for (; in->n; *in = after(*in, 1)) {
		char c = in->p[0];

		if (!h->cr && c != '\r' && c != '\n') {
			h->state = HTTP_AT_HEAD;
			buf_room(&h->head, HEAD_USUAL); /* so that it seldom grows; a failure sticks */
			break;
		}
		if (h->cr != (c == '\n'))
			return bad(h, 400, lone_cr_or_lf);
		h->cr = c == '\r';
		if (h->cr && ++h->blanks > HTTP_BLANK_MAX)
			return bad(h, 400, "There are too many empty lines before the request.");
	}
	return HTTP_MORE;
}

static enum http_event
step_head(struct http *h, struct str *in)
{
	while (take_line(h, in, &h->head, h->line ? 431 : 414)) {
		struct str line = line_at(buf_view(&h->head), h->line);

		if (!line.n)
			return finish_head(h);
		if (h->line == 0) {
			h->read_at = h->head.p;
			read_request_line(h, line);
		} else
			check_field(h, line);
		if (h->state == HTTP_AT_BAD)
			return HTTP_BAD;
		h->line = h->head.n;
	}
	return HTTP_MORE;
}

static enum http_event
step_body(struct http *h, struct str *in, struct str *body)
{
	if (h->left && in->n) {
		*body = str_sub(*in, 0, h->left < in->n ? (size_t)h->left : in->n);
		*in = after(*in, body->n);
		h->left -= body->n;
		return HTTP_BODY;
	}
	if (h->left)
		return HTTP_MORE;
	h->state = h->req.chunked ? HTTP_AT_CRLF : HTTP_AT_END;
	return h->req.chunked ? HTTP_MORE : HTTP_END;
}

/* The request before this call is answered: its memory goes. */
static enum http_event
step_end(struct http *h)
{
	bool again = h->req.keep_alive;
	uint64_t body_max = h->body_max;

	http_free(h);
	http_init(h, body_max);
	h->state = again ? HTTP_AT_IDLE : HTTP_AT_LAST;
	return HTTP_MORE;
}

static enum http_event
step(struct http *h, struct str *in, struct str *body)
{
	switch (h->state) {
	case HTTP_AT_IDLE:
		return step_idle(h, in);
	case HTTP_AT_HEAD:
		return step_head(h, in);
	case HTTP_AT_BODY:
		return step_body(h, in, body);
	case HTTP_AT_SIZE:
		return step_size(h, in);
	case HTTP_AT_CRLF:
		return step_crlf(h, in);
	case HTTP_AT_TRAILER:
		return step_trailer(h, in);
	case HTTP_AT_END:
		return step_end(h);
	case HTTP_AT_LAST:              /* whatever comes after "close" is nobody's request */
		*in = after(*in, in->n);
		return HTTP_MORE;
	case HTTP_AT_BAD:
		return HTTP_BAD;
	}
	UNREACHABLE();
}

enum http_event
http_next(struct http *h, struct str *in, struct str *body)
{
	enum http_state before;
	enum http_event e;

	*body = STR_NONE;
	/* A step that found nothing to report but changed the state hands on to the next one. */
	do {
		before = h->state;
		e = step(h, in, body);
	} while (e == HTTP_MORE && h->state != before);
	return e;
}

bool
http_idle(const struct http *h)
{
	return h->state == HTTP_AT_IDLE;
}

void
http_init(struct http *h, uint64_t body_max)
{
	*h = (struct http){ .body_max = body_max, .why = "" };
	buf_init(&h->head, HTTP_HEAD_MAX);
	buf_init(&h->extra, HTTP_EXTRA_MAX + HTTP_CHUNK_DIGITS_MAX + 2);
}

void
http_free(struct http *h)
{
	buf_free(&h->head);
	buf_free(&h->extra);
}

/* ---- decoding ---------------------------------------------------------------- */

/* dec_url for a part of a query, where '+' is a blank. */
static enum err
decode_plus(struct str s, struct buf *out)
{
	enum err e = OK;

	for (bool more = true; more && e == OK;) {
		struct str part;

		more = str_cut(&s, '+', &part);
		e = dec_url(part, out);
		if (more)
			buf_putc(out, ' ');
	}
	return e == OK ? out->err : e;
}

enum err
http_query(struct str query, const char *name, struct buf *out)
{
	struct str pair, key, value = STR_NONE;
	size_t before = out->n;
	bool found = false;
	enum err e = OK;

	while (query.n && e == OK) {
		bool same;

		str_cut(&query, '&', &pair);
		str_cut(&pair, '=', &key);
		e = decode_plus(key, out);      /* the end of out serves to compare */
		same = e == OK && str_eqz(after(buf_view(out), before), name);
		buf_cut(out, before);
		if (same && found)
			e = ERR_PARSE;
		if (same)
			value = pair;
		found = found || same;
	}
	if (e == OK)
		e = found ? decode_plus(value, out) : ERR_NOTFOUND;
	if (e != OK)
		buf_cut(out, before);
	return e;
}

enum err
http_query_known(struct str query, const char *names, struct buf *out)
{
	struct buf name = BUF_INIT(HTTP_TARGET_MAX);
	struct str pair, key, known;
	bool found = true;

	while (query.n && found) {
		struct str rest = str_z(names);

		str_cut(&query, '&', &pair);
		str_cut(&pair, '=', &key);
		buf_reset(&name);
		if (decode_plus(key, &name) != OK) {    /* then as it was sent */
			buf_reset(&name);
			buf_str(&name, key);
		}
		for (found = key.n == 0; rest.n && !found;) {
			str_cut(&rest, ' ', &known);
			found = str_eq(buf_view(&name), known);
		}
	}
	if (!found)
		buf_str(out, utf8_prefix(buf_view(&name), out->max - out->n));
	buf_free(&name);
	return found ? OK : ERR_NOTFOUND;
}

static bool
is_plain_path(struct str path)
{
	struct str rest = path, segment;
	bool more = true;

	for (size_t i = 0; i < path.n; i++)
		if (is_control(path.p[i]) || path.p[i] == '\t' || path.p[i] == '\\')
			return false;
	while (more) {
		more = str_cut(&rest, '/', &segment);
		if (str_eqz(segment, ".") || str_eqz(segment, ".."))
			return false;
	}
	return utf8_valid(path);
}

enum err
http_path_decode(struct str path, struct buf *out)
{
	size_t before = out->n, encoded = 0, decoded = 0;
	struct str plain;
	enum err e = str_starts(path, S("/")) ? dec_url(path, out) : ERR_PARSE;

	if (e != OK)
		return e;
	plain = after(buf_view(out), before);
	for (size_t i = 0; i < path.n; i++)
		encoded += path.p[i] == '/';
	for (size_t i = 0; i < plain.n; i++)
		decoded += plain.p[i] == '/';
	if (encoded == decoded && is_plain_path(plain))
		return OK;
	buf_cut(out, before);
	return ERR_PARSE;
}

/* ---- answers ----------------------------------------------------------------- */

const char *
http_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{ 100, "Continue" }, { 101, "Switching Protocols" }, { 200, "OK" },
		{ 201, "Created" }, { 202, "Accepted" }, { 204, "No Content" },
		{ 206, "Partial Content" }, { 301, "Moved Permanently" }, { 302, "Found" },
		{ 303, "See Other" }, { 304, "Not Modified" }, { 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
		{ 402, "Payment Required" }, { 403, "Forbidden" }, { 404, "Not Found" },
		{ 405, "Method Not Allowed" }, { 406, "Not Acceptable" },
		{ 408, "Request Timeout" }, { 409, "Conflict" }, { 410, "Gone" },
		{ 411, "Length Required" }, { 412, "Precondition Failed" },
		{ 413, "Content Too Large" }, { 414, "URI Too Long" },
		{ 415, "Unsupported Media Type" }, { 416, "Range Not Satisfiable" },
		{ 417, "Expectation Failed" }, { 421, "Misdirected Request" },
		{ 422, "Unprocessable Content" }, { 426, "Upgrade Required" },
		{ 428, "Precondition Required" }, { 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" }, { 500, "Internal Server Error" },
		{ 501, "Not " "Implemented" }, { 502, "Bad Gateway" },
		{ 503, "Service Unavailable" }, { 504, "Gateway Timeout" },
		{ 505, "HTTP Version Not Supported" }, { 507, "Insufficient Storage" },
	};

	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "";
}

/* printf would be a tenth of a small answer's cost. */
static void
put_number(struct buf *b, uint64_t v)
{
	char text[20];
	size_t at = sizeof(text);

	do
		text[--at] = (char)('0' + v % 10);
	while (v /= 10);
	buf_put(b, text + at, sizeof(text) - at);
}

void
http_put_status(struct buf *b, int status)
{
	buf_puts(b, "HTTP/1.1 ");
	put_number(b, (uint64_t)status);
	buf_putc(b, ' ');
	buf_puts(b, http_reason(status));
	buf_puts(b, "\r\n");
}

void
http_put_field(struct buf *b, const char *name, struct str value)
{
	size_t n = strlen(name);
	char *at;

	for (size_t i = 0; i < value.n; i++)
		if (is_control(value.p[i]) && b->err == OK)
			b->err = ERR_PARSE;
	at = buf_room(b, n + value.n + 4);
	if (!at)
		return;
	memcpy(at, name, n);
	memcpy(at + n, ": ", 2);
	if (value.n)
		memcpy(at + n + 2, value.p, value.n);
	memcpy(at + n + 2 + value.n, "\r\n", 2);
	b->n += n + value.n + 4;
}

void
http_put_number(struct buf *b, const char *name, uint64_t value)
{
	buf_puts(b, name);
	buf_puts(b, ": ");
	put_number(b, value);
	buf_puts(b, "\r\n");
}

void
http_put_date(struct buf *b, int64_t us)
{
	static const char days[] = "ThuFriSatSunMonTueWed";     /* 1970 began with the first */
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char iso[32], line[] = "Date: ---, -- --- ---- --:--:-- GMT\r\n";

	clock_iso(us, iso);
	memcpy(line + 6, days + (clock_day_start(us) / US_PER_DAY % 7 + 7) % 7 * 3, 3);
	memcpy(line + 11, iso + 8, 2);
	memcpy(line + 14, months + ((iso[5] - '0') * 10 + iso[6] - '1') * 3, 3);
	memcpy(line + 18, iso, 4);
	memcpy(line + 23, iso + 11, 8);
	buf_puts(b, line);
}

void
http_put_end(struct buf *b)
{
	buf_puts(b, "\r\n");
}

void
http_put_chunk(struct buf *b, struct str data)
{
	if (!data.n)                    /* a chunk of no octets would end the body */
		return;
	buf_fmt(b, "%zx\r\n", data.n);
	buf_str(b, data);
	buf_puts(b, "\r\n");
}

void
http_put_last_chunk(struct buf *b)
{
	buf_puts(b, "0\r\n\r\n");
}
