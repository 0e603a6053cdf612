/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * http.h - the server side of HTTP/1.1 (RFC 9110, 9112): bytes in, requests
 * out; answers put into a buffer; no I/O.
 *
 * Strict, so that no other reader of the same octets can see other requests in
 * them: only CRLF ends a line, no folding, no blank before a colon, one Host,
 * one Content-Length of digits alone or one "chunked", never both. The answer
 * to anything else is one error, after which nothing is read any more.
 */
#ifndef BLUFIO_HTTP_H
#define BLUFIO_HTTP_H

#include "base.h"

#define HTTP_HEAD_MAX (16u << 10)   /* octets of request line and fields; beyond: 431 (or 414) */
#define HTTP_TARGET_MAX (8u << 10)  /* octets of the request target; beyond: 414 */
#define HTTP_METHOD_MAX 32u         /* no registered method is longer; beyond: 501 */
#define HTTP_FIELDS_MAX 100u        /* fields of a head; beyond: 431 */
#define HTTP_BLANK_MAX 4u           /* empty lines before a request: some clients end a body so */
#define HTTP_EXTRA_MAX (4u << 10)   /* octets of chunk extensions and trailer fields of a request */
#define HTTP_CHUNK_DIGITS_MAX 16u   /* what 64 bits take */

struct http_field {
	struct str name, value;
};

/* Views into the parser: valid from HTTP_HEAD until the call after HTTP_END. */
struct http_request {
	struct str method, target;
	struct str path;            /* of target, still encoded; "*" for OPTIONS alone */
	struct str query;           /* what follows the first '?' */
	struct str host;            /* of an absolute target, else the Host field; may be empty */
	struct str fields;          /* the field lines; read by the functions below */
	int minor;                  /* HTTP/1.minor: 0 or 1 */
	int64_t content_length;     /* -1: no such field */
	bool chunked;
	bool keep_alive;            /* false: nothing after this request is read */
	bool expect_continue;       /* wants "100 Continue" before it sends the body */
	bool upgrade_websocket;     /* a GET that asks for it; its other fields are not looked at */
};

enum http_event { HTTP_MORE, HTTP_HEAD, HTTP_BODY, HTTP_END, HTTP_BAD };

enum http_state {
	HTTP_AT_IDLE, HTTP_AT_HEAD, HTTP_AT_BODY, HTTP_AT_SIZE, HTTP_AT_CRLF, HTTP_AT_TRAILER,
	HTTP_AT_END, HTTP_AT_LAST, HTTP_AT_BAD
};

struct http {
	struct http_request req;
	int status;                 /* after HTTP_BAD: the answer's status … */
	const char *why;            /* … and a sentence for its body */
	/* the parser's own */
	enum http_state state;
	bool cr;                    /* the last octet of a line so far was a CR */
	unsigned blanks, n_fields;
	uint32_t seen;              /* which of the fields that come once have come */
	size_t line;                /* where the current line begins in head */
	const char *read_at;        /* where head was when the request line was read */
	size_t extra_n;             /* of HTTP_EXTRA_MAX */
	uint64_t left;              /* octets of the body or chunk still to come */
	uint64_t room;              /* octets of body that may still be announced */
	uint64_t body_max;
	struct buf head, extra;     /* extra: a line between chunks */
};
void http_init(struct http *h, uint64_t body_max);
void http_free(struct http *h);
/*
 * Takes what it needs from the front of *in and says what it found; call until HTTP_MORE.
 * HTTP_BODY gives a view into *in. After HTTP_END the next call forgets the request and begins
 * the next one: a caller that is still busy does not call (and one that upgrades never again:
 * the rest of *in is the new protocol's). HTTP_BAD stays; h->status and h->why say what to
 * answer before closing.
 */
enum http_event http_next(struct http *h, struct str *in, struct str *body);
/* Nothing of a next request has come: the connection may be closed without a word. */
bool http_idle(const struct http *h);

/* ---- reading a request ----------------------------------------------------- */

/* The fields in order: *at starts at 0; false at the end. */
bool http_field_next(const struct http_request *r, size_t *at, struct http_field *out);
/* The value of the one field of that name. STR_NONE when there is none, or more than one. */
struct str http_field(const struct http_request *r, const char *name);
/* The value of the one cookie of that name. STR_NONE when there is none, or more than one. */
struct str http_cookie(const struct http_request *r, const char *name);
/* Was it sent to a name or number of this machine ("localhost:3000", "127.0.0.1", "[::1]")? */
bool http_to_loopback(const struct http_request *r);
/* Is token (case ignored) an element of the comma-separated lists of that name? */
bool http_list_has(const struct http_request *r, const char *name, const char *token);
/* How well offer ("text/event-stream", "gzip") suits the fields of that name (Accept,
 * Accept-Encoding): its q in thousandths, 0 is a refusal, -1 when there is no such field. The
 * most specific element counts; parameters other than q do not. */
int http_accepts(const struct http_request *r, const char *name, const char *offer);
/* Appends the decoded value of the query's parameter. ERR_NOTFOUND; ERR_PARSE for a bad escape or
 * a parameter given twice; ERR_LIMIT also when out cannot hold the longest name before it. */
FALLIBLE http_query(struct str query, const char *name, struct buf *out);
/* Is every parameter one of names ("limit order")? ERR_NOTFOUND with another one's name appended to out, as far as it can be
 * read and has room. */
FALLIBLE http_query_known(struct str query, const char *names, struct buf *out);
/* Appends the decoded path. ERR_PARSE unless it begins with '/', is UTF-8 without control
 * characters, has no segment "." or "..", and no '/' or '\' that was encoded. */
FALLIBLE http_path_decode(struct str path, struct buf *out);

/* ---- writing an answer: errors stick in the buffer -------------------------- */

const char *http_reason(int status);                        /* "" when unknown */
void http_put_status(struct buf *b, int status);            /* the status line */
/* ERR_PARSE when the value holds a control character; the name is the program's own. */
void http_put_field(struct buf *b, const char *name, struct str value);
void http_put_number(struct buf *b, const char *name, uint64_t value);
void http_put_date(struct buf *b, int64_t us);              /* the Date field */
void http_put_end(struct buf *b);                           /* the empty line */
void http_put_chunk(struct buf *b, struct str data);        /* empty data puts nothing */
void http_put_last_chunk(struct buf *b);

#endif
