/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * markup.h - Markdown as models write it, for channels: cutting a long text
 * into pieces, and rendering a piece as the HTML subset of chat services
 * (b i s code pre a blockquote).
 *
 * Both functions are pure: the same text and limit always give the same
 * pieces, so a channel that remembers how many pieces were delivered can go on
 * after a restart. Texts must be valid UTF-8.
 */
#ifndef BLUFIO_MARKUP_H
#define BLUFIO_MARKUP_H

#include "base/base.h"

#define MARKUP_COLUMNS_MAX 20
#define MARKUP_DEPTH_MAX 16
#define MARKUP_PIECE_MIN 256          /* smallest max_units accepted (room for a reopened fence) */

struct markup_fence {
	struct str run;         /* the marks that opened it; empty: no fence is open */
	struct str info;        /* its language word */
};
/* A walk over the pieces of a text; the text is borrowed for as long. */
struct markup_split {
	struct str rest;        /* not handed out yet */
	size_t max;             /* UTF-16 units of a piece */
	size_t max_blocks;      /* lines of a piece that are not blank, a fence counting as one; 0: any number */
	struct markup_fence fence;      /* that rest begins in */
};
void markup_split_init(struct markup_split *it, struct str md, size_t max_units);
/* The next piece replaces what is in the buffer; false at the end. A piece has at least one
 * visible character and at most max_units; it is cut at a paragraph, line, sentence, word or code
 * point, in this order of liking; a code fence that is cut is closed and reopened. A failed
 * allocation is sticky in piece. */
bool markup_next(struct markup_split *it, struct buf *piece);

/* Appends md so that no table has more than MARKUP_COLUMNS_MAX columns (a wider one becomes preformatted) and
 * nothing is nested deeper than MARKUP_DEPTH_MAX. Text within these limits stays as it is. */
void markup_tame(struct buf *out, struct str md);

/* Appends md as HTML: tags balanced, everything else escaped, whatever md holds. What is seen of
 * it has at most utf8_units(md) units, and a visible character when md has one. */
void markup_html(struct buf *out, struct str md);

#endif
