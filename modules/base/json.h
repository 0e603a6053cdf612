/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * json.h - JSON (RFC 8259): arena parser, path get, streaming writer.
 *
 * Stated rules: input must be valid UTF-8 without BOM; nesting deeper than
 * JSON_DEPTH_MAX is ERR_LIMIT; of duplicate keys the last one wins in
 * json_get, all stay in order in the tree; a \u escape of a lone surrogate is
 * ERR_PARSE; numbers keep their source text, integers outside int64 and
 * fractions are reached as double; a number of more than JSON_NUMBER_MAX bytes
 * is ERR_LIMIT. Strings may hold NUL bytes. A string or name with escapes is
 * unescaped into the arena; one without borrows the input, as raw and the text
 * of numbers do: the input must outlive the tree.
 */
#ifndef BLUFIO_JSON_H
#define BLUFIO_JSON_H

#include "base.h"

#define JSON_DEPTH_MAX 128
#define JSON_NUMBER_MAX 1024    /* far more digits than a double can tell apart */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
	enum json_type type;
	bool boolean;
	struct str key;            /* member name when inside an object */
	struct str s;              /* JSON_STRING: the text; JSON_NUMBER: the source text */
	struct str raw;            /* this value's bytes in the source (borrowed from the input) */
	struct json *first, *next; /* children in order; next sibling */
	size_t count;              /* children */
};

/* The most that the tree of n bytes of text takes: "[0,0,0" is a node every two bytes. */
#define JSON_TREE_MAX(n) (((n) / 2 + 1) * sizeof(struct json) + (n) + 65536)

/* Where a parse failed: 1-based line and column (bytes), offset, and what was wrong. */
struct json_error {
	unsigned line, column;
	size_t offset;
	const char *what;
};

/* Parses exactly one value with nothing but blanks around it. The tree lives in the
 * arena and borrows text, see above. e may be NULL. */
FALLIBLE json_parse(struct arena *a, struct str text, const struct json **out,
    struct json_error *e);

/* Path of object keys and array indexes: "result.0.message.chat.id". "" is v itself.
 * Keys that hold a '.' are reached with json_get. NULL when absent (or v is NULL). */
const struct json *json_at(const struct json *v, const char *path);
const struct json *json_get(const struct json *obj, struct str key);
/* Typed reads with a default: wrong type or absent gives the default. */
struct str json_str(const struct json *v, const char *path, struct str dflt);
int64_t json_i64(const struct json *v, const char *path, int64_t dflt);
double json_f64(const struct json *v, const char *path, double dflt);
bool json_bool(const struct json *v, const char *path, bool dflt);
bool json_is(const struct json *v, enum json_type t);   /* NULL-safe */
/* Number -> int64 exactly (1.0 and 1e3 count; out of range or fraction is ERR_PARSE). */
FALLIBLE json_to_i64(const struct json *v, int64_t *out);

/* Streaming writer: commas and nesting are its own business; errors stick in the buf.
 * Invalid UTF-8 in strings is replaced by U+FFFD, so the output is always valid JSON. More
 * than JSON_DEPTH_MAX levels are ERR_LIMIT, so our parser reads it back. */
struct jw {
	struct buf *b;
	unsigned depth;
	bool comma;
};
void jw_init(struct jw *w, struct buf *b);
void jw_obj(struct jw *w);  void jw_end_obj(struct jw *w);
void jw_arr(struct jw *w);  void jw_end_arr(struct jw *w);
void jw_key(struct jw *w, const char *key);
void jw_key_str(struct jw *w, struct str key);
void jw_str(struct jw *w, struct str s);
void jw_z(struct jw *w, const char *z);         /* NULL writes null */
void jw_i64(struct jw *w, int64_t v);
void jw_f64(struct jw *w, double v);            /* shortest that reads back; nan/inf as null */
void jw_bool(struct jw *w, bool v);
void jw_null(struct jw *w);
void jw_raw(struct jw *w, struct str json);     /* already valid JSON; empty writes null */
/* key + value in one line */
void jw_kstr(struct jw *w, const char *key, struct str s);
void jw_kz(struct jw *w, const char *key, const char *z);
void jw_ki64(struct jw *w, const char *key, int64_t v);
void jw_ktime(struct jw *w, const char *key, int64_t us);     /* in seconds; null for 0, which is no time */
void jw_kbool(struct jw *w, const char *key, bool v);
void jw_kraw(struct jw *w, const char *key, struct str json);
FALLIBLE jw_done(struct jw *w);                 /* depth must be 0; the buf's sticky error */
/* Appends s as a quoted JSON string. */
void json_quote(struct buf *b, struct str s);

#endif
