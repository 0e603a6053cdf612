/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_router.c - any bytes have a tier, always the same; neither what is attached nor what went before makes it
 * cheaper; and a byte between the beginning and the end of a long message is not looked at.
 */
#include "core/router.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct router_verdict
classify(const struct router_message *m)
{
	struct router_verdict v, again;

	router_classify(m, &v);
	router_classify(m, &again);
	assert(v.tier > TIER_NONE && v.tier < TIER_COUNT && v.signs >> SIGN_COUNT == 0);
	assert(v.tier == again.tier && v.score == again.score && v.signs == again.signs);
	return v;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct router_message m = { .code = size && (data[0] & 1) };
	size_t n = size ? size - 1 : 0;
	char *copy = malloc(n + 1);     /* of its size, so that one byte more is noticed */
	struct router_verdict v, more;

	if (copy == NULL)
		abort();
	if (n)
		memcpy(copy, data + 1, n);
	m.text = str_make(copy, n);
	v = classify(&m);
	m.images = 1;
	more = classify(&m);
	assert(more.tier >= v.tier && more.tier >= TIER_STANDARD);
	m.images = 0;
	m.previous = TIER_COMPLEX;
	more = classify(&m);
	assert(more.tier >= v.tier);
	m.previous = TIER_NONE;
	if (n > ROUTER_LOOK) {
		copy[3 * ROUTER_LOOK / 4] ^= 1;
		more = classify(&m);
		assert(more.tier == v.tier && more.score == v.score && more.signs == v.signs);
	}
	free(copy);
	return 0;
}
