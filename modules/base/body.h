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
#define BODY_FILE_MAX ((uint64_t)4 << 30) /* bytes of one; the sum of all cannot overflow */

enum body_encoding {
	BODY_RAW,
	BODY_BASE64,                  /* RFC 4648 §4, padded, no line breaks */
	BODY_JSON                     /* valid UTF-8, escaped as the inside of a JSON string */
};
struct body_file {
	char *path;
	enum body_encoding enc;
	size_t at;                    /* stands before this byte of the text */
	uint64_t size, encoded;       /* bytes in the file, bytes in the body */
};
struct body {
	struct buf text;              /* the bytes around the files; its error is the body's */
	struct body_file *files;      /* in the order of .at */
	size_t n_files;
	/* reading */
	size_t text_at, file_at;      /* next byte of text, next file */
	int fd;                       /* the file being read, or -1 */
	uint64_t size, encoded;       /* bytes of it read and encoded so far */
	struct buf block;             /* its newest encoded bytes */
	size_t block_at;              /* how many of them have been given out */
	enum err err;                 /* of the reading; sticky until it is rewound */
};
void body_init(struct body *b, size_t text_max);
void body_free(struct body *b);
/* Inserts path (opened, measured and closed here; opened again when its turn comes) before the
 * text's last `back` bytes: after "data":"" has been written, back 1 puts it between the quotes.
 * Files are inserted from front to back, and before the reading begins; text before a file stays.
 * A BODY_JSON file is read whole to be measured. Sticky in text.err: ERR_NOTFOUND and the like;
 * ERR_UNSUPPORTED for what is no regular file; ERR_LIMIT for too many or too large a file;
 * ERR_PARSE for BODY_JSON that is not UTF-8. */
void body_insert(struct body *b, size_t back, const char *path, enum body_encoding enc);
/* Bytes of the whole, encoded. */
uint64_t body_size(const struct body *b);
/* The next bytes, at most n; *got 0 at the end only (or when n is 0). ERR_IO when a file is not of
 * the size it had, or is BODY_JSON with another content; ERR_NOTFOUND and the like when it is gone.
 * .files[.file_at].path then names it. A failed reading can only be rewound. */
FALLIBLE body_read(struct body *b, char *p, size_t n, size_t *got);
void body_rewind(struct body *b);     /* reads from the start again */

#endif
