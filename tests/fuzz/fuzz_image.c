/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_image.c - a picture has pixels, and what was said of a part of it is not
 * taken back when more of it is seen.
 */
#include "base/image.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Looks at a copy of exactly that size, so that one byte more is noticed. */
static enum err
probe(const uint8_t *data, size_t n, struct image *im)
{
	char *copy = malloc(n + 1);
	enum err e;

	if (!copy)
		abort();
	if (n)
		memcpy(copy + 1, data, n);
	*im = (struct image){ IMAGE_NONE, 0, 0 };
	e = image_probe(str_make(copy + 1, n), im);
	free(copy);
	assert(e == OK || e == ERR_PARSE || e == ERR_LIMIT);
	if (e == OK && im->type != IMAGE_NONE)
		assert(im->width > 0 && im->height > 0);
	else
		assert(im->type == IMAGE_NONE && im->width == 0 && im->height == 0);
	return e;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image whole, part;
	enum err e = probe(data, size, &whole);

	for (size_t n = 0; n < size && n < 512; n++) {
		enum err early = probe(data, n, &part);

		if (early == ERR_LIMIT)         /* it is one: that stays */
			assert(e != OK || whole.type != IMAGE_NONE);
		else if (early == ERR_PARSE)
			assert(e == ERR_PARSE);
		else if (part.type != IMAGE_NONE)
			assert(e == OK && part.type == whole.type && part.width == whole.width &&
			    part.height == whole.height);
		else if (n >= IMAGE_SIGNATURE_MAX)
			assert(e == OK && whole.type == IMAGE_NONE);
	}
	return 0;
}
