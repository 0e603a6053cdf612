/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * toml.h - TOML 1.0.0: arena parser; every node knows its place in the source,
 * so that `config set` can change one value and keep the rest of the file.
 *
 * Strings are copies in the arena: the tree does not need the text any longer,
 * only its offsets refer to it. CRLF inside a string is read as LF. Integers
 * and floats that do not fit 64 bits are errors. Nesting (parts of keys and of
 * headers, arrays, inline tables) deeper than TOML_DEPTH_MAX is ERR_LIMIT.
 */
#ifndef BLUFIO_TOML_H
#define BLUFIO_TOML_H

#include "base.h"

#define TOML_DEPTH_MAX 64

enum toml_type {
	TOML_STRING, TOML_INTEGER, TOML_FLOAT, TOML_BOOL,
	TOML_DATETIME, TOML_DATETIME_LOCAL, TOML_DATE_LOCAL, TOML_TIME_LOCAL,
	TOML_ARRAY, TOML_TABLE
};

struct toml {
	enum toml_type type;
	struct str key;               /* name inside its table; empty for root and array items */
	struct str s;                 /* TOML_STRING: the text; date-times: normalised RFC 3339 text
	                               * (T, Z, three to nine digits of fraction or none) */
	int64_t i;                    /* TOML_INTEGER */
	double f;                     /* TOML_FLOAT */
	bool boolean;
	struct toml *first, *last, *next;
	size_t count;
	unsigned line, column;        /* of the key, the header or the array item, 1-based */
	unsigned vline, vcolumn;      /* of the value */
	size_t off, len;              /* the value's bytes in the source; for a [table] the brackets and
	                               * what they hold; for one only named on the way, that name */
	size_t key_off;               /* where the key starts; of a dotted key, its own part */
	size_t end;                   /* for a [table]: offset just past its last own key/value line and
	                               * its line end (header line when empty); root: 0 if none */
	bool header;                  /* table made by a [header], or item made by a [[header]] */
	bool inline_table;            /* { … }: closed */
	bool array_of_tables;         /* made by [[header]]: the array and each of its items */
	bool dotted;                  /* table named on the way by a dotted key: gets no header */
};

struct toml_error {
	unsigned line, column;        /* 1-based; column in bytes */
	char what[160];               /* lower case, no trailing dot, quotes the offending text */
};

FALLIBLE toml_parse(struct arena *a, struct str text, struct toml **root, struct toml_error *e);
struct toml *toml_get(const struct toml *table, struct str key);     /* NULL when absent */
const char *toml_type_name(enum toml_type t);                        /* "string", "integer" … */

#endif
