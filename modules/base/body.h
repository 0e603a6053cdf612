/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * body.h - a request body made of text and files, produced while it is sent: a
 * document of 20 MB costs a block of memory, not 27 MB of base64.
 *
 * The text is written like any other buffer (a JSON writer, say) into .text; a
 * file is inserted at the place where its bytes belong, in the encoding that
 * stands there. Its size is taken when it is inserted; a file that has another
 * one when it is read makes the read fail: a length was promised to the peer.
 */
#ifndef BLUFIO_BODY_H
#define BLUFIO_BODY_H

#include "base.h"

#define BODY_FILES_MAX 1024           /* inserted files */

enum body_encoding {
	BODY_RAW,
	BODY_BASE64,                  /* RFC 4648 §4, padded, no line breaks */
	BODY_JSON                     /* valid UTF-8, escaped as the inside of a JSON string */
};
struct body_file;
struct body {
	struct buf text;              /* the bytes around the files; its error is the body's */
	struct body_file *files;      /* in the order of .at */
	size_t n_files;
	/* reading */
	size_t text_at, file_at;      /* next byte of text, next file */
	int fd;                       /* the file being read, or -1 */
	/* … (carry of a block that did not fit the reader's buffer) */
};
void body_init(struct body *b, size_t text_max);
void body_free(struct body *b);
/* Inserts path (opened, measured and closed here; opened again when its turn comes) before the
 * text's last `back` bytes: after "data":"" has been written, back 1 puts it between the quotes.
 * Sticky in text.err: ERR_NOTFOUND and the like; ERR_PARSE for BODY_JSON that is not UTF-8. */
void body_insert(struct body *b, size_t back, const char *path, enum body_encoding enc);
/* Bytes of the whole, encoded. */
uint64_t body_size(const struct body *b);
/* The next bytes, at most n; *got 0 at the end. */
FALLIBLE body_read(struct body *b, char *p, size_t n, size_t *got);
void body_rewind(struct body *b);     /* reads from the start again */

#endif
