/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * hmac.h - HMAC-SHA-256 and HMAC-SHA-512 (RFC 2104; FIPS 198-1; vectors: RFC 4231).
 *
 *   struct hmac256 m;
 *   hmac256_init(&m, key, key_n); hmac256_update(&m, p, n); …; hmac256_final(&m, tag);
 *   if (!hmac_equal(tag, theirs, sizeof(tag))) …
 *
 * A key may have any length, none too; one longer than a block of the hash
 * counts as its digest. A shortened tag is the first bytes of the whole one.
 * Nothing fails, nothing is allocated, key and data are borrowed for the call.
 * Key material is wiped by final; a struct given up before is the caller's to wipe.
 */
#ifndef BLUFIO_HMAC_H
#define BLUFIO_HMAC_H

#include "crypto/sha2.h"

struct hmac256 {
	struct sha256 inner, outer;   /* each has taken in its padded key */
};
void hmac256_init(struct hmac256 *m, const void *key, size_t n);
void hmac256_update(struct hmac256 *m, const void *p, size_t n);
/* Wipes m: the next use begins with hmac256_init. */
void hmac256_final(struct hmac256 *m, unsigned char tag[SHA256_SIZE]);

struct hmac512 {
	struct sha512 inner, outer;
};
void hmac512_init(struct hmac512 *m, const void *key, size_t n);
void hmac512_update(struct hmac512 *m, const void *p, size_t n);
void hmac512_final(struct hmac512 *m, unsigned char tag[SHA512_SIZE]);

/* Are the n bytes the same? The time taken tells n only: for tags, tokens and digests of them. */
bool hmac_equal(const void *a, const void *b, size_t n);

#endif
