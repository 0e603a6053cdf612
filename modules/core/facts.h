/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * facts.h - what of a conversation must not be lost when it is shortened.
 *
 * A conversation in words: who speaks stands at the beginning of a line, and what follows up to the next such line is
 * theirs. What stands before the first of them is an earlier summary.
 */
#ifndef BLUFIO_FACTS_H
#define BLUFIO_FACTS_H

#include "base/base.h"

#define FACTS_USER "User: "
#define FACTS_PASTED "Pasted: "         /* by the person, but hardly in words of their own; facts_write says so */
#define FACTS_ASSISTANT "Assistant: "
#define FACTS_TOOL "Tool: "

/* Appends the lines of source that must not be lost and that summary does not say, in max bytes; n: how many. */
FALLIBLE facts_write(struct str source, struct str summary, size_t max, struct buf *out, size_t *n);
struct str facts_summary(struct str source);    /* the earlier summary that it begins with; empty: none */

/* ---- words (facts_words.c) ------------------------------------------------------------ */

enum {
	FACTS_STRONG = 1,       /* decided, promised, to be remembered, due */
	FACTS_OWN = 2,          /* one's own affairs, and how one always wants something */
	FACTS_FIRST = 4,        /* who speaks says what he does */
	FACTS_DATE = 8,
	FACTS_ASK = 16          /* at the beginning: wants to be told something */
};
/* Folded as by router_fold, a blank between them and behind the last; "_" is a blank, "." the end of a word. */
struct facts_words { unsigned mark; const char *words; };
extern const struct facts_words facts_words[];  /* words NULL ends it */

#endif
