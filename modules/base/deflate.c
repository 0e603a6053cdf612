/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * deflate.c - zlib, the one place that knows it.
 *
 * A compressor's memory and set-up follow from its window, so that is no larger than
 * what is compressed; the loop waits for it, so it takes the quickest level.
 */
#define ZLIB_CONST
#include "base/deflate.h"

#include <zlib.h>

#define LEVEL 1
#define GZIP 16                 /* added to the bits of a window: with head and checksum */
#define LOOKAHEAD 262u          /* of its window zlib does not use this much (MIN_LOOKAHEAD) */

struct inflater {
	z_stream z;
	bool ended;
};

/* Allocations go through our own objects, where the tests can make them fail. */
static void *
zlib_alloc(void *unused, unsigned count, unsigned size)
{
	(void)unused;
	return calloc(count, size);
}

static void
zlib_free(void *unused, void *p)
{
	(void)unused;
	free(p);
}

/* The bytes written, or 0; flush says how the stream ends. */
static size_t
squeeze(struct str in, char *out, unsigned bits, int wrap, int flush)
{
	z_stream z = { .zalloc = zlib_alloc, .zfree = zlib_free };
	bool done;
	int rc;

	if (in.n != (uInt)in.n)
		return 0;
	while (bits > DEFLATE_BITS_MIN && in.n + LOOKAHEAD <= (size_t)1 << (bits - 1))
		bits--;
	if (deflateInit2(&z, LEVEL, Z_DEFLATED, wrap ? (int)bits + wrap : -(int)bits, (int)bits - 7, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	z.next_in = (const unsigned char *)in.p;
	z.avail_in = (uInt)in.n;
	z.next_out = (unsigned char *)out;
	z.avail_out = (uInt)in.n;
	rc = deflate(&z, flush);
	/* with room to spare, all that was to be written is */
	done = rc == (flush == Z_FINISH ? Z_STREAM_END : Z_OK) && z.avail_in == 0 && z.avail_out > 0;
	deflateEnd(&z);
	return done ? in.n - z.avail_out : 0;
}

size_t
deflate_raw(struct str in, char *out, unsigned bits)
{
	size_t n = squeeze(in, out, bits, 0, Z_SYNC_FLUSH);

	return n ? n - DEFLATE_TAIL_SIZE : 0;
}

size_t
deflate_gzip(struct str in, char *out)
{
	return squeeze(in, out, DEFLATE_BITS_MAX, GZIP, Z_FINISH);
}

enum err
inflater_new(struct inflater **out)
{
	struct inflater *f = calloc(1, sizeof(*f));

	if (!f)
		return ERR_NOMEM;
	f->z.zalloc = zlib_alloc;
	f->z.zfree = zlib_free;
	if (inflateInit2(&f->z, -(int)DEFLATE_BITS_MAX) != Z_OK) {
		free(f);
		return ERR_NOMEM;
	}
	*out = f;
	return OK;
}

void
inflater_free(struct inflater *f)
{
	if (f)
		inflateEnd(&f->z);
	free(f);
}

enum err
inflater_step(struct inflater *f, struct str *in, char *out, size_t *n)
{
	uInt take = in->n < UINT16_MAX ? (uInt)in->n : UINT16_MAX, room = *n < UINT16_MAX ? (uInt)*n : UINT16_MAX;
	int rc;

	if (f->ended && in->n) {
		inflateReset(&f->z);
		f->ended = false;
	}
	f->z.next_in = (const unsigned char *)in->p;
	f->z.avail_in = take;
	f->z.next_out = (unsigned char *)out;
	f->z.avail_out = room;
	rc = inflate(&f->z, Z_NO_FLUSH);
	*in = str_sub(*in, take - f->z.avail_in, in->n);
	*n = room - f->z.avail_out;
	f->ended = rc == Z_STREAM_END;
	if (rc == Z_MEM_ERROR)
		return ERR_NOMEM;
	return rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR ? OK : ERR_PARSE;
}

bool
inflater_ended(const struct inflater *f)
{
	return f->ended;
}

bool
inflater_between(const struct inflater *f)
{
	return f->ended || f->z.data_type == 128;       /* no bits over, see inflate in zlib.h */
}
