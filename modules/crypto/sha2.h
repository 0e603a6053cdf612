/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sha2.h - SHA-256 and SHA-512 (FIPS 180-4, RFC 6234).
 *
 *   struct sha256 h;
 *   sha256_init(&h); sha256_update(&h, p, n); …; sha256_final(&h, digest);
 *
 * What is hashed may be secret: all that is kept of it is in the struct, which
 * its final wipes; one that is given up before that is the caller's to wipe.
 */
#ifndef BLUFIO_SHA2_H
#define BLUFIO_SHA2_H

#include "base/base.h"

#define SHA256_SIZE 32u         /* bytes of a digest */
#define SHA256_BLOCK 64u        /* bytes worked on at a time; what HMAC pads its key to */

struct sha256 {
	uint32_t state[8];
	uint64_t n;                   /* bytes so far; the standard ends at 2^61 of them */
	uint32_t w[64];               /* what the block at work was spread into */
	unsigned char block[SHA256_BLOCK]; /* the n % SHA256_BLOCK newest */
};
void sha256_init(struct sha256 *h);
void sha256_update(struct sha256 *h, const void *p, size_t n);
/* Wipes h: the next use begins with sha256_init. */
void sha256_final(struct sha256 *h, unsigned char out[SHA256_SIZE]);

#define SHA512_SIZE 64u
#define SHA512_BLOCK 128u

/* As above with words of 64 bits. */
struct sha512 {
	uint64_t state[8];
	uint64_t n;                   /* bytes so far; the standard ends far beyond 2^64 */
	uint64_t w[80];
	unsigned char block[SHA512_BLOCK];
};
void sha512_init(struct sha512 *h);
void sha512_update(struct sha512 *h, const void *p, size_t n);
void sha512_final(struct sha512 *h, unsigned char out[SHA512_SIZE]);

#endif
