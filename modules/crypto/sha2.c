/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sha2.c - SHA-256, as FIPS 180-4 writes it down.
 *
 * Names are the standard's (sections 4.1.2, 5.1.1, 6.2.2), so that the two can
 * be laid side by side. Words are put together from bytes by shifts: neither
 * the byte order of the machine nor the alignment of the input matters. No
 * branch and no table index depends on the data, so the time taken tells its
 * length only. Nothing here can fail, allocates or touches the system.
 */
#include "crypto/sha2.h"

#define LENGTH_AT (SHA256_BLOCK - 8u)   /* the last block ends with the length in bits */

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

static uint32_t
rotr(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* Works one block into the state. */
static void
compress(uint32_t state[8], const unsigned char *m)
{
	uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (unsigned t = 0; t < 16; t++, m += 4)
		w[t] = (uint32_t)m[0] << 24 | (uint32_t)m[1] << 16 | (uint32_t)m[2] << 8 | m[3];
	for (unsigned t = 16; t < 64; t++) {
		uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
		uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;

		w[t] = s1 + w[t - 7] + s0 + w[t - 16];
	}
	for (unsigned t = 0; t < 64; t++) {
		uint32_t S1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
		uint32_t S0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
		uint32_t t1 = h + S1 + ((e & f) ^ (~e & g)) + K[t] + w[t];
		uint32_t t2 = S0 + ((a & b) ^ (a & c) ^ (b & c));

		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

void
sha256_init(struct sha256 *h)
{
	/* The first 32 bits of the fractions of the square roots of the first 8 primes. */
	*h = (struct sha256){ .state = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
	} };
}

void
sha256_update(struct sha256 *h, const void *p, size_t n)
{
	const unsigned char *in = p;
	size_t held = h->n % SHA256_BLOCK, take;

	h->n += n;
	for (; n > 0; in += take, n -= take, held = 0) {
		take = SHA256_BLOCK - held < n ? SHA256_BLOCK - held : n;
		if (take == SHA256_BLOCK) {
			compress(h->state, in);
			continue;
		}
		memcpy(h->block + held, in, take);
		if (held + take == SHA256_BLOCK)
			compress(h->state, h->block);
	}
}

void
sha256_final(struct sha256 *h, unsigned char out[SHA256_SIZE])
{
	static const unsigned char padding[SHA256_BLOCK] = { 0x80 };
	size_t held = h->n % SHA256_BLOCK;
	uint64_t bits = h->n * 8;
	unsigned char length[8];

	for (unsigned i = 0; i < 8; i++)
		length[i] = (unsigned char)(bits >> (56 - 8 * i));
	/* A one, zeros up to where the length stands: in this block, or in one more. */
	sha256_update(h, padding, (held < LENGTH_AT ? LENGTH_AT : LENGTH_AT + SHA256_BLOCK) - held);
	sha256_update(h, length, sizeof(length));
	for (unsigned i = 0; i < SHA256_SIZE; i++)
		out[i] = (unsigned char)(h->state[i / 4] >> (24 - 8 * (i % 4)));
	secret_wipe(h, sizeof(*h));
}
