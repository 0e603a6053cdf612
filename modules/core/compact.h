/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * compact.h - what compact.c, which says when, and compact_rows.c, which says what, share with one another.
 */
#ifndef BLUFIO_COMPACT_H
#define BLUFIO_COMPACT_H

#include "core/core.h"

struct compact_row {
	int64_t seq, turn, at, tokens;
	enum message_kind kind;
	const char *role;
	struct str content;
	bool said;                      /* by the person, no results of tools */
	bool keep;
};
struct compact_plan {
	struct session *s;
	struct arena ar;
	struct compact_row *rows;
	size_t n, cap;
	int64_t room, fixed;            /* tokens of a request; of its prompt and tools */
	int64_t kept, fresh;            /* of the rows that stay; of the others that were not condensed before */
	size_t fresh_rows;              /* so many are these */
	size_t results, result_max;     /* of tools in the rows that stay: how many, bytes of each */
	struct buf source;              /* the others in words */
};

enum compact_how { COMPACT_WHOLE, COMPACT_SUMMARY, COMPACT_FACTS };

/* compact_rows.c */
/* The rows of its history; room: the most tokens that a request should have. Free it, whatever this returned. */
FALLIBLE compact_plan(struct compact_plan *p, struct session *s, int64_t room);
void compact_plan_free(struct compact_plan *p);
int64_t compact_tokens(const struct compact_plan *p, size_t bytes);     /* for the model that answered last */
/* Chooses what stays, and puts the others in words; false: too little is left to condense. hard: a request is full. */
bool compact_choose(struct compact_plan *p, bool hard);
void compact_keep_from(struct compact_plan *p, int64_t seq);    /* or is told from where on all stays */
size_t compact_facts_max(const struct compact_plan *p);         /* bytes of facts beside it */
/* The conversation goes on with this; false: it would not have become smaller than before, in tokens. */
bool compact_begin(struct compact_plan *p, enum compact_how how, struct str text, struct str facts, int64_t before);

#endif
