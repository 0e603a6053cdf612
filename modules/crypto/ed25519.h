/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ed25519.h - Ed25519 signatures (RFC 8032, the plain kind: no context, no prehash).
 *
 *   struct ed25519_key k;
 *   ed25519_key_init(&k, seed);             seed: 32 bytes from rand_bytes, or a file
 *   ed25519_sign(&k, msg, sig);
 *   secret_wipe(&k, sizeof(k));
 *   …
 *   e = ed25519_verify(public, msg, sig);
 *
 * Everything is bytes as the RFC orders them, on every machine. Nothing is
 * allocated or kept, only verifying can fail; arguments are borrowed for the call.
 * Neither the time that making a key or signing takes nor the memory it touches
 * depends on the seed. Copies of secrets are wiped; the struct is the caller's to wipe.
 */
#ifndef BLUFIO_ED25519_H
#define BLUFIO_ED25519_H

#include "base/base.h"

#define ED25519_SEED_SIZE 32u
#define ED25519_PUBLIC_SIZE 32u
#define ED25519_SIG_SIZE 64u

/* The key pair, in the form that signing needs. The public half belongs to the struct
 * because signing with another's public key would give the secret one away. */
struct ed25519_key {
	unsigned char public[ED25519_PUBLIC_SIZE];
	unsigned char scalar[32];     /* secret, as is the next */
	unsigned char prefix[32];
};
void ed25519_key_init(struct ed25519_key *k, const unsigned char seed[ED25519_SEED_SIZE]);
/* The same key and message give the same signature. sig may not lie inside msg. */
void ed25519_sign(const struct ed25519_key *k, struct str msg, unsigned char sig[ED25519_SIG_SIZE]);
/*
 * OK, or ERR_AUTH for whatever is wrong: sig is not of msg by public, a size is
 * not the one above, an encoding is not the one there is (coordinate of 2^255-19
 * or more, sign of a zero, S of the group's order or more), or public is a point
 * of small order, which signs anything. One signature has one encoding. The check
 * is RFC 8032's without the factor 8: R must be the very bytes of S*B - k*A.
 * Takes a time that depends on no secret, there being none.
 */
FALLIBLE ed25519_verify(struct str public, struct str msg, struct str sig);

#endif
