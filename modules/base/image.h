/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* image.h - what kind of picture some bytes are, and how many pixels it has. */
#ifndef BLUFIO_IMAGE_H
#define BLUFIO_IMAGE_H

#include "base.h"

#define IMAGE_HEAD_MAX ((size_t)256 << 10)  /* enough: cameras put a preview before a JPEG's size */
#define IMAGE_SIGNATURE_MAX 12u             /* bytes after which the type is known */

enum image_type { IMAGE_NONE, IMAGE_PNG, IMAGE_JPEG, IMAGE_GIF, IMAGE_WEBP };
struct image {
	enum image_type type;
	uint32_t width, height;       /* as stored: a JPEG's orientation is not applied */
};
/* head: the first IMAGE_HEAD_MAX bytes of the file, or all of a smaller one. OK with IMAGE_NONE (and
 * 0 by 0) when it is no such picture. ERR_PARSE: it is one, but damaged or without pixels.
 * ERR_LIMIT: it is one, and its size lies beyond head; was that the whole file, it is cut short.
 * More bytes never change an OK or an ERR_PARSE, once IMAGE_SIGNATURE_MAX are there. */
FALLIBLE image_probe(struct str head, struct image *out);
/* "image/png" and the like; for IMAGE_NONE "application/octet-stream". */
const char *image_mime(enum image_type type);

#endif
