/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * deflate.h - compression: the messages of a WebSocket and the answers of HTTP.
 *
 * No state outlives what it is for: a compressor its one call, an inflater its one
 * stream. Memory is asked of calloc, where tests can refuse it.
 */
#ifndef BLUFIO_DEFLATE_H
#define BLUFIO_DEFLATE_H

#include "base.h"

#define DEFLATE_BITS_MIN 9u     /* zlib writes no raw stream for a smaller window */
#define DEFLATE_BITS_MAX 15u
#define DEFLATE_TAIL "\0\0\xFF\xFF"     /* what a flushed raw stream ends with, as RFC 7692 leaves it away */
#define DEFLATE_TAIL_SIZE 4u

/* Compresses into out, which has in.n bytes: how many were used; 0: no memory, or it would not be shorter.
 * A raw stream is flushed and without its tail, its window has bits at most. */
size_t deflate_raw(struct str in, char *out, unsigned bits);
size_t deflate_gzip(struct str in, char *out);

/* A raw stream, in pieces, about 44 KB. */
struct inflater;
FALLIBLE inflater_new(struct inflater **out);
void inflater_free(struct inflater *f);         /* NULL ok */
/* Takes from the front of *in, writes up to *n bytes to out and says in *n how many: call again while there is more in
 * *in, or while it was all of them. ERR_PARSE: this is no such stream; ERR_NOMEM. */
FALLIBLE inflater_step(struct inflater *f, struct str *in, char *out, size_t *n);
/* The last block has ended; what follows begins anew. */
bool inflater_ended(const struct inflater *f);
/* It stands between two blocks, so nothing is cut off. */
bool inflater_between(const struct inflater *f);

#endif
