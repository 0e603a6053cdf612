/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sha2.c - SHA-256 and SHA-512, as FIPS 180-4 writes them down.
 *
 * Names are the standard's (sections 4.1, 5.1, 6.2.2 and 6.4.2), so that the two
 * can be laid side by side; the second half of this file is the first with the
 * word, the rounds and the rotations of SHA-512. Words are put together from
 * bytes by shifts: neither the byte order of the machine nor the alignment of
 * the input matters. No branch and no table index depends on the data, so the
 * time taken tells its length only. The schedule of a block stands in the
 * struct, so that one wipe at the end is enough for what may be a secret.
 * Nothing here can fail, allocates or touches the system.
 */
#include "crypto/sha2.h"

/* The last block ends with the length in bits. */
#define LENGTH256_AT (SHA256_BLOCK - 8u)
#define LENGTH512_AT (SHA512_BLOCK - 16u)

/* ---- SHA-256 ------------------------------------------------------------------------ */

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t K256[64] = {
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
rotr32(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* Works one block into the state. */
static void
compress256(struct sha256 *s, const unsigned char *m)
{
	uint32_t *w = s->w, *state = s->state, a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (unsigned t = 0; t < 16; t++, m += 4)
		w[t] = (uint32_t)m[0] << 24 | (uint32_t)m[1] << 16 | (uint32_t)m[2] << 8 | m[3];
	for (unsigned t = 16; t < 64; t++) {
		uint32_t s0 = rotr32(w[t - 15], 7) ^ rotr32(w[t - 15], 18) ^ w[t - 15] >> 3;
		uint32_t s1 = rotr32(w[t - 2], 17) ^ rotr32(w[t - 2], 19) ^ w[t - 2] >> 10;

		w[t] = s1 + w[t - 7] + s0 + w[t - 16];
	}
	for (unsigned t = 0; t < 64; t++) {
		uint32_t S1 = rotr32(e, 6) ^ rotr32(e, 11) ^ rotr32(e, 25);
		uint32_t S0 = rotr32(a, 2) ^ rotr32(a, 13) ^ rotr32(a, 22);
		uint32_t t1 = h + S1 + ((e & f) ^ (~e & g)) + K256[t] + w[t];
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
			compress256(h, in);
			continue;
		}
		memcpy(h->block + held, in, take);
		if (held + take == SHA256_BLOCK)
			compress256(h, h->block);
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
	sha256_update(h, padding, LENGTH256_AT - held + (held < LENGTH256_AT ? 0 : SHA256_BLOCK));
	sha256_update(h, length, sizeof(length));
	for (unsigned i = 0; i < SHA256_SIZE; i++)
		out[i] = (unsigned char)(h->state[i / 4] >> (24 - 8 * (i % 4)));
	secret_wipe(h, sizeof(*h));
}

/* ---- SHA-512 ------------------------------------------------------------------------ */

/* The first 64 bits of the fractions of the cube roots of the first 80 primes. */
static const uint64_t K512[80] = {
	0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
	0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
	0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
	0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
	0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
	0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
	0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
	0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
	0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
	0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
	0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
	0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
	0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
	0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
	0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
	0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
	0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
	0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
	0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
	0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817
};

static uint64_t
rotr64(uint64_t x, unsigned n)
{
	return x >> n | x << (64 - n);
}

/* Works one block into the state. */
static void
compress512(struct sha512 *s, const unsigned char *m)
{
	uint64_t *w = s->w, *state = s->state, a = state[0], b = state[1], c = state[2], d = state[3];
	uint64_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (unsigned t = 0; t < 16; t++, m += 8)
		for (unsigned i = 0; i < 8; i++)        /* which shifts all of the old word out */
			w[t] = w[t] << 8 | m[i];
	for (unsigned t = 16; t < 80; t++) {
		uint64_t s0 = rotr64(w[t - 15], 1) ^ rotr64(w[t - 15], 8) ^ w[t - 15] >> 7;
		uint64_t s1 = rotr64(w[t - 2], 19) ^ rotr64(w[t - 2], 61) ^ w[t - 2] >> 6;

		w[t] = s1 + w[t - 7] + s0 + w[t - 16];
	}
	for (unsigned t = 0; t < 80; t++) {
		uint64_t S1 = rotr64(e, 14) ^ rotr64(e, 18) ^ rotr64(e, 41);
		uint64_t S0 = rotr64(a, 28) ^ rotr64(a, 34) ^ rotr64(a, 39);
		uint64_t t1 = h + S1 + ((e & f) ^ (~e & g)) + K512[t] + w[t];
		uint64_t t2 = S0 + ((a & b) ^ (a & c) ^ (b & c));

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
sha512_init(struct sha512 *h)
{
	/* The first 64 bits of the fractions of the square roots of the first 8 primes. */
	*h = (struct sha512){ .state = {
		0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
		0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179
	} };
}

void
sha512_update(struct sha512 *h, const void *p, size_t n)
{
	const unsigned char *in = p;
	size_t held = h->n % SHA512_BLOCK, take;

	h->n += n;
	for (; n > 0; in += take, n -= take, held = 0) {
		take = SHA512_BLOCK - held < n ? SHA512_BLOCK - held : n;
		if (take == SHA512_BLOCK) {
			compress512(h, in);
			continue;
		}
		memcpy(h->block + held, in, take);
		if (held + take == SHA512_BLOCK)
			compress512(h, h->block);
	}
}

void
sha512_final(struct sha512 *h, unsigned char out[SHA512_SIZE])
{
	static const unsigned char padding[SHA512_BLOCK] = { 0x80 };
	size_t held = h->n % SHA512_BLOCK;
	unsigned char length[16] = { 0 };

	/* 128 bits: what the multiplication by 8 shifts out of 64 stands before them. */
	length[7] = (unsigned char)(h->n >> 61);
	for (unsigned i = 0; i < 8; i++)
		length[8 + i] = (unsigned char)(h->n << 3 >> (56 - 8 * i));
	/* A one, zeros up to where the length stands: in this block, or in one more. */
	sha512_update(h, padding, LENGTH512_AT - held + (held < LENGTH512_AT ? 0 : SHA512_BLOCK));
	sha512_update(h, length, sizeof(length));
	for (unsigned i = 0; i < SHA512_SIZE; i++)
		out[i] = (unsigned char)(h->state[i / 8] >> (56 - 8 * (i % 8)));
	secret_wipe(h, sizeof(*h));
}
