/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * hmac.c - HMAC over the two hashes of sha2.c.
 *
 * H((key ^ outer) || H((key ^ inner) || data)), the key filled up with zeros to
 * a block. Both hashes take in their key at once, so the key itself is not kept.
 * The second half is the first with the other hash: a table of functions would
 * be longer than what it saves.
 */
#include "crypto/hmac.h"

/* RFC 2104's ipad and opad. */
#define INNER 0x36u
#define OUTER 0x5cu

static void
flip(unsigned char *p, size_t n, unsigned bits)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)(p[i] ^ bits);
}

void
hmac256_init(struct hmac256 *m, const void *key, size_t n)
{
	unsigned char pad[SHA256_BLOCK] = { 0 };

	if (n > sizeof(pad)) {
		sha256_init(&m->inner);
		sha256_update(&m->inner, key, n);
		sha256_final(&m->inner, pad);
	} else if (n > 0) {
		memcpy(pad, key, n);
	}
	flip(pad, sizeof(pad), INNER);
	sha256_init(&m->inner);
	sha256_update(&m->inner, pad, sizeof(pad));
	flip(pad, sizeof(pad), INNER ^ OUTER);
	sha256_init(&m->outer);
	sha256_update(&m->outer, pad, sizeof(pad));
	secret_wipe(pad, sizeof(pad));
}

void
hmac256_update(struct hmac256 *m, const void *p, size_t n)
{
	sha256_update(&m->inner, p, n);
}

void
hmac256_final(struct hmac256 *m, unsigned char tag[SHA256_SIZE])
{
	sha256_final(&m->inner, tag);
	sha256_update(&m->outer, tag, SHA256_SIZE);
	sha256_final(&m->outer, tag);
}

void
hmac512_init(struct hmac512 *m, const void *key, size_t n)
{
	unsigned char pad[SHA512_BLOCK] = { 0 };

	if (n > sizeof(pad)) {
		sha512_init(&m->inner);
		sha512_update(&m->inner, key, n);
		sha512_final(&m->inner, pad);
	} else if (n > 0) {
		memcpy(pad, key, n);
	}
	flip(pad, sizeof(pad), INNER);
	sha512_init(&m->inner);
	sha512_update(&m->inner, pad, sizeof(pad));
	flip(pad, sizeof(pad), INNER ^ OUTER);
	sha512_init(&m->outer);
	sha512_update(&m->outer, pad, sizeof(pad));
	secret_wipe(pad, sizeof(pad));
}

void
hmac512_update(struct hmac512 *m, const void *p, size_t n)
{
	sha512_update(&m->inner, p, n);
}

void
hmac512_final(struct hmac512 *m, unsigned char tag[SHA512_SIZE])
{
	sha512_final(&m->inner, tag);
	sha512_update(&m->outer, tag, SHA512_SIZE);
	sha512_final(&m->outer, tag);
}

bool
hmac_equal(const void *a, const void *b, size_t n)
{
	const unsigned char *x = a, *y = b;
	unsigned differs = 0;

	for (size_t i = 0; i < n; i++)
		differs |= x[i] ^ y[i];
	return differs == 0;
}
