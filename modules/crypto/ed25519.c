/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ed25519.c - Ed25519 from the ground up: field, curve, scalars, signatures.
 *
 * Four layers, each of which uses only the one above it in this file:
 *
 *   fe   numbers modulo p = 2^255 - 19, ten digits of 26 bits;
 *   ge   points of -x^2 + y^2 = 1 + d x^2 y^2 as (X : Y : Z : T), x = X/Z,
 *        y = Y/Z, xy = T/Z. The addition of Hisil, Wong, Carter and Dawson (2008)
 *        is complete on this curve: no pair of points needs a case of its own;
 *   sc   numbers modulo the order L of the base point, words of 32 bits;
 *   and the three functions of RFC 8032 section 5.1.
 *
 * Only unsigned integers of 32 and 64 bits are used, and no multiplication wider
 * than 32 x 32: the same code runs everywhere. No branch and no index depends on
 * a scalar: each four bits of it pick their multiple by masks, out of all
 * sixteen. Verifying uses the same code, which costs it a little time and saves
 * a second way to multiply. There are no tables beyond the constants: the
 * multiples of a point are made anew for each use.
 *
 * Scalars, digests and the points they lead to are wiped by the function that
 * holds them; the field's numbers within a formula are not, for that would take
 * longer than the formula.
 */
#include "crypto/ed25519.h"

#include "crypto/sha2.h"

/* ---- fe: the field ------------------------------------------------------------------- */

#define DIGITS 10
#define DIGIT_BITS 26
#define DIGIT_MASK (((uint32_t)1 << DIGIT_BITS) - 1)
#define FOLD 608u                /* 2^260 = 32 * 2^255, which is 32 * 19 modulo p */
#define TOP_BITS 21              /* of the last digit belong to a number of 255 bits */
#define TOP_MASK (((uint32_t)1 << TOP_BITS) - 1)

/*
 * The value is the sum of v[i] 2^(26 i); many vectors stand for one number.
 * "Tight": digits up to 2^26 + 2^22, as fe_mul and fe_load leave them. Sums and
 * differences are not carried. fe_mul takes digits below 2^30, so the sum of a
 * difference and two tight ones is still good for it.
 */
struct fe {
	uint32_t v[DIGITS];
};

static const struct fe ZERO = { { 0 } }, ONE = { { 1 } };
static const struct fe D = { { /* -121665/121666 */
	0x35978a3, 0x2d37284, 0x18ab75e, 0x1350507, 0x000700a, 0x1de7a26, 0x0740797, 0x3f9ce33, 0x0ee2b6f, 0x01480db
} };
static const struct fe SQRT_M1 = { { /* 2^((p-1)/4) */
	0x20ea0b0, 0x386c9d2, 0x2478c4e, 0x01ab4bf, 0x32f4318, 0x37ef5e9, 0x0d00993, 0x37c2cad, 0x0804fc1, 0x00ae0c9
} };

static void
fe_add(struct fe *r, const struct fe *a, const struct fe *b)
{
	for (unsigned i = 0; i < DIGITS; i++)
		r->v[i] = a->v[i] + b->v[i];
}

/* b is tight, or the sum of two tight ones: 128 p, all of whose digits are larger, is added. */
static void
fe_sub(struct fe *r, const struct fe *a, const struct fe *b)
{
	r->v[0] = a->v[0] + 4 * (DIGIT_MASK + 1 - FOLD) - b->v[0];
	for (unsigned i = 1; i < DIGITS; i++)
		r->v[i] = a->v[i] + 4 * DIGIT_MASK - b->v[i];
}

/* r may be a or b. Sums of ten products below 2^60 and carries below 2^39 fit in 64 bits. */
static void
fe_mul(struct fe *r, const struct fe *a, const struct fe *b)
{
	uint64_t c[2 * DIGITS] = { 0 };

	/* Two digits of b at a time: that halves how often the sums are fetched and put back. */
	for (unsigned k = 0; k < DIGITS; k += 2) {
		uint64_t low = b->v[k], high = b->v[k + 1], last = 0;

		for (unsigned i = 0; i < DIGITS; i++) {
			c[i + k] += a->v[i] * low + last;
			last = a->v[i] * high;
		}
		c[k + DIGITS] += last;
	}
	for (unsigned i = DIGITS; i < 2 * DIGITS - 1; i++) {
		c[i + 1] += c[i] >> DIGIT_BITS;
		c[i - DIGITS] += FOLD * (c[i] & DIGIT_MASK);
	}
	c[DIGITS - 1] += FOLD * c[2 * DIGITS - 1];
	for (unsigned i = 0; i < DIGITS - 1; i++) {
		c[i + 1] += c[i] >> DIGIT_BITS;
		r->v[i] = (uint32_t)c[i] & DIGIT_MASK;
	}
	r->v[DIGITS - 1] = (uint32_t)c[DIGITS - 1] & DIGIT_MASK;
	/* What is above 2^260 may be wider than a digit: two of them take it. */
	c[0] = r->v[0] + FOLD * (c[DIGITS - 1] >> DIGIT_BITS);
	r->v[0] = (uint32_t)c[0] & DIGIT_MASK;
	r->v[1] += (uint32_t)(c[0] >> DIGIT_BITS);
}

/* r = a^(2^n) b; n is at least 1. */
static void
fe_sq_mul(struct fe *r, const struct fe *a, unsigned n, const struct fe *b)
{
	struct fe t = *a;

	for (unsigned i = 0; i < n; i++)
		fe_mul(&t, &t, &t);
	fe_mul(r, &t, b);
}

/* r = a^(2^252 - 3): the exponent is 250 ones, a zero and a one in binary. Runs of ones are
 * doubled, and lengthened by one where 250 itself has a one. */
static void
fe_pow(struct fe *r, const struct fe *a)
{
	struct fe t = *a;

	for (unsigned ones = 1, bit = 1u << 6; bit; bit >>= 1) {
		fe_sq_mul(&t, &t, ones, &t);
		ones *= 2;
		if (250 & bit) {
			fe_sq_mul(&t, &t, 1, a);
			ones++;
		}
	}
	fe_sq_mul(r, &t, 2, a);
}

/* r = a^(p - 2) = a^(8 (2^252 - 3) + 3), which is 1/a, and 0 for 0. */
static void
fe_invert(struct fe *r, const struct fe *a)
{
	struct fe t, cube;

	fe_sq_mul(&cube, a, 1, a);
	fe_pow(&t, a);
	fe_sq_mul(r, &t, 3, &cube);
}

static void
fe_negate(struct fe *r, const struct fe *a)
{
	fe_sub(r, &ZERO, a);
	fe_mul(r, r, &ONE);     /* tight again */
}

/* The lower 255 bits of s, least significant byte first. A digit begins at an even bit of a
 * byte, so it lies within four of them; the last within three. */
static void
fe_load(struct fe *r, const unsigned char s[32])
{
	for (unsigned i = 0; i < DIGITS; i++) {
		const unsigned char *p = s + i * DIGIT_BITS / 8;
		uint32_t n = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;

		if (i < DIGITS - 1)
			n |= (uint32_t)p[3] << 24;
		r->v[i] = n >> i * DIGIT_BITS % 8 & DIGIT_MASK;
	}
	r->v[DIGITS - 1] &= TOP_MASK;
}

/* Carries from digit to digit and returns what is above 2^255. */
static uint32_t
fe_carry(struct fe *a)
{
	uint32_t over;

	for (unsigned i = 0; i < DIGITS - 1; i++) {
		a->v[i + 1] += a->v[i] >> DIGIT_BITS;
		a->v[i] &= DIGIT_MASK;
	}
	over = a->v[DIGITS - 1] >> TOP_BITS;
	a->v[DIGITS - 1] &= TOP_MASK;
	return over;
}

/* The one encoding of a, below p, in 32 bytes. */
static void
fe_store(unsigned char s[32], const struct fe *a)
{
	struct fe t = *a, probe;

	for (unsigned i = 0; i < 2; i++) {
		uint32_t over = fe_carry(&t);

		t.v[0] += 19 * over;
	}
	/* Below 2^255 now. It is p or more when 19 more reach 2^255, and those 19 less 2^255 are -p. */
	probe = t;
	probe.v[0] += 19;
	t.v[0] += 19 * fe_carry(&probe);
	(void)fe_carry(&t);
	memset(s, 0, 32);
	for (unsigned i = 0; i < DIGITS; i++) {
		uint32_t n = t.v[i] << i * DIGIT_BITS % 8;

		for (unsigned at = i * DIGIT_BITS / 8, k = 0; k < 4 && at + k < 32; k++, n >>= 8)
			s[at + k] = (unsigned char)(s[at + k] | n);
	}
}

static bool
fe_equal(const struct fe *a, const struct fe *b)
{
	unsigned char x[32], y[32];

	fe_store(x, a);
	fe_store(y, b);
	return memcmp(x, y, sizeof(x)) == 0;
}

/* ---- ge: the curve ------------------------------------------------------------------- */

struct ge {
	struct fe x, y, z, t;
};

#define WINDOW_BITS 4
#define MULTIPLES (1u << WINDOW_BITS)
#define TERMS_MAX 2

static const struct ge NEUTRAL = { { { 0 } }, { { 1 } }, { { 1 } }, { { 0 } } };
static const struct ge BASE = {
	{ { 0x325d51a, 0x18b5823, 0x27b2c95, 0x1825496, 0x0692cc7,
	    0x375b717, 0x24e231f, 0x14ffb02, 0x2d3cd6e, 0x0085a4d } },
	{ { 0x2666658, 0x1999999, 0x2666666, 0x1999999, 0x2666666,      /* 4/5 */
	    0x1999999, 0x2666666, 0x1999999, 0x2666666, 0x0199999 } },
	{ { 1 } },
	{ { 0x1b7dda3, 0x3a2ace9, 0x12f56dd, 0x201dd45, 0x120f09f,
	    0x12af8df, 0x2a4e8e6, 0x1d9959b, 0x30fd78b, 0x019e1d7 } }
};

/* The way back from the four intermediates of both formulas. All sides of these products are
 * sums of at most one difference and two tight numbers. */
static void
ge_finish(struct ge *r, const struct fe *e, const struct fe *f, const struct fe *g, const struct fe *h)
{
	fe_mul(&r->x, e, f);
	fe_mul(&r->y, g, h);
	fe_mul(&r->z, f, g);
	fe_mul(&r->t, e, h);
}

static void
ge_add(struct ge *r, const struct ge *p, const struct ge *q)
{
	struct fe a, b, c, dd, e, f, g, h;

	fe_sub(&a, &p->y, &p->x);
	fe_sub(&e, &q->y, &q->x);
	fe_mul(&a, &a, &e);
	fe_add(&b, &p->y, &p->x);
	fe_add(&e, &q->y, &q->x);
	fe_mul(&b, &b, &e);
	fe_mul(&c, &p->t, &q->t);
	fe_mul(&c, &c, &D);
	fe_add(&c, &c, &c);
	fe_mul(&dd, &p->z, &q->z);
	fe_add(&dd, &dd, &dd);
	fe_sub(&e, &b, &a);
	fe_sub(&f, &dd, &c);
	fe_add(&g, &dd, &c);
	fe_add(&h, &b, &a);
	ge_finish(r, &e, &f, &g, &h);
}

static void
ge_double(struct ge *r, const struct ge *p)
{
	struct fe a, b, c, e, f, g, h;

	fe_mul(&a, &p->x, &p->x);
	fe_mul(&b, &p->y, &p->y);
	fe_mul(&c, &p->z, &p->z);
	fe_add(&c, &c, &c);
	fe_add(&h, &a, &b);
	fe_add(&e, &p->x, &p->y);
	fe_mul(&e, &e, &e);
	fe_sub(&e, &h, &e);
	fe_sub(&g, &a, &b);
	fe_add(&f, &c, &g);
	ge_finish(r, &e, &f, &g, &h);
}

/* r = a if mask is all ones, unchanged if it is 0; r was 0 before. */
static void
fe_pick(struct fe *r, const struct fe *a, uint32_t mask)
{
	for (unsigned i = 0; i < DIGITS; i++)
		r->v[i] |= mask & a->v[i];
}

/* r = multiples[n], without telling which. */
static void
ge_pick(struct ge *r, const struct ge multiples[MULTIPLES], uint32_t n)
{
	*r = (struct ge){ .x = ZERO };
	for (uint32_t i = 0; i < MULTIPLES; i++) {
		uint32_t here = -(((i ^ n) - 1) >> 31);      /* only 0 - 1 has the top bit */

		fe_pick(&r->x, &multiples[i].x, here);
		fe_pick(&r->y, &multiples[i].y, here);
		fe_pick(&r->z, &multiples[i].z, here);
		fe_pick(&r->t, &multiples[i].t, here);
	}
}

/* r = the sum of scalar[i] point[i] over n terms, which share the doublings. */
static void
ge_sum(struct ge *r, unsigned n, const unsigned char *const scalar[], const struct ge *const point[])
{
	struct ge multiples[TERMS_MAX][MULTIPLES], picked;

	for (unsigned k = 0; k < n; k++) {
		multiples[k][0] = NEUTRAL;
		for (unsigned i = 1; i < MULTIPLES; i++)
			ge_add(&multiples[k][i], &multiples[k][i - 1], point[k]);
	}
	*r = NEUTRAL;
	for (unsigned bit = 256; bit > 0;) {
		bit -= WINDOW_BITS;
		for (unsigned i = 0; i < WINDOW_BITS; i++)
			ge_double(r, r);
		for (unsigned k = 0; k < n; k++) {
			uint32_t byte = scalar[k][bit / 8];

			ge_pick(&picked, multiples[k], byte >> bit % 8 & (MULTIPLES - 1));
			ge_add(r, r, &picked);
		}
	}
	secret_wipe(&picked, sizeof(picked));
}

/* Section 5.1.2: y, and the lowest bit of x in the highest of the last byte. */
static void
affine_store(unsigned char s[32], const struct fe *x, const struct fe *y)
{
	unsigned char sx[32];

	fe_store(sx, x);
	fe_store(s, y);
	s[31] = (unsigned char)(s[31] | (sx[0] & 1) << 7);
}

static void
ge_store(unsigned char s[32], const struct ge *p)
{
	struct fe inverse, x, y;

	fe_invert(&inverse, &p->z);
	fe_mul(&x, &p->x, &inverse);
	fe_mul(&y, &p->y, &inverse);
	affine_store(s, &x, &y);
	secret_wipe(&inverse, sizeof(inverse));
}

/* r = scalar * BASE as bytes. */
static void
base_times(unsigned char out[32], const unsigned char scalar[32])
{
	struct ge p;

	ge_sum(&p, 1, (const unsigned char *const[]){ scalar }, (const struct ge *const[]){ &BASE });
	ge_store(out, &p);
	secret_wipe(&p, sizeof(p));
}

/* Section 5.1.3: false unless s is the one encoding of a point of the curve. Not for secrets. */
static bool
ge_load(struct ge *r, const unsigned char s[32])
{
	struct fe u, v, v3, check;
	unsigned char again[32];

	fe_load(&r->y, s);
	r->z = ONE;
	/* x^2 = u/v with u = y^2 - 1, v = d y^2 + 1. */
	fe_mul(&v, &r->y, &r->y);
	fe_sub(&u, &v, &ONE);
	fe_mul(&v, &v, &D);
	fe_add(&v, &v, &ONE);
	/* Its root, if there is one, is x = u v^3 (u v^7)^((p-5)/8), or that times sqrt(-1). */
	fe_sq_mul(&v3, &v, 1, &v);
	fe_sq_mul(&check, &v3, 1, &v);
	fe_mul(&check, &check, &u);
	fe_pow(&r->x, &check);
	fe_mul(&r->x, &r->x, &v3);
	fe_mul(&r->x, &r->x, &u);
	fe_sq_mul(&check, &r->x, 1, &v);
	if (!fe_equal(&check, &u)) {
		fe_add(&check, &check, &u);
		if (!fe_equal(&check, &ZERO))
			return false;
		fe_mul(&r->x, &r->x, &SQRT_M1);
	}
	affine_store(again, &r->x, &r->y);
	if (again[31] >> 7 != s[31] >> 7)
		fe_negate(&r->x, &r->x);
	fe_mul(&r->t, &r->x, &r->y);
	/* Not the same for a y of p or more, and for a sign where x is 0. */
	affine_store(again, &r->x, &r->y);
	return memcmp(again, s, sizeof(again)) == 0;
}

/* ---- sc: scalars ---------------------------------------------------------------------- */

#define WORDS 8

static const uint32_t L[WORDS] = { /* 2^252 + 27742317777372353535851937790883648493 */
	0x5cf5d3ed, 0x5812631a, 0xa2f79cd6, 0x14def9de, 0, 0, 0, 0x10000000
};

static void
sc_load(uint32_t *r, const unsigned char *s, unsigned words)
{
	for (unsigned i = 0; i < words; i++, s += 4)
		r[i] = s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 | (uint32_t)s[3] << 24;
}

/*
 * out = wide modulo L. Long division, a word at a time from the top: with a
 * remainder below L and the next word, v is below 2^32 L, and q = v / 2^252 is
 * v / L or one more, because L is that little above 2^252. So v - q L is the new
 * remainder, or that minus L. q is at most 2^32, so its product with a word of L and a carry
 * fits in 64 bits.
 */
static void
sc_reduce(unsigned char out[32], const uint32_t wide[2 * WORDS])
{
	uint32_t v[WORDS + 1] = { 0 }, below;
	uint64_t q, product, carry;

	for (unsigned w = 2 * WORDS; w-- > 0;) {
		memmove(v + 1, v, WORDS * sizeof(v[0]));
		v[0] = wide[w];
		q = (uint64_t)v[WORDS] << 4 | v[WORDS - 1] >> 28;
		carry = 0;
		for (unsigned i = 0; i < WORDS; i++) {
			product = q * L[i] + carry;
			carry = (product >> 32) + (v[i] < (uint32_t)product);
			v[i] -= (uint32_t)product;
		}
		v[WORDS] -= (uint32_t)carry;
		below = -(v[WORDS] >> 31);
		carry = 0;
		for (unsigned i = 0; i < WORDS; i++) {
			carry += (uint64_t)v[i] + (L[i] & below);
			v[i] = (uint32_t)carry;
			carry >>= 32;
		}
	}
	for (unsigned i = 0; i < 32; i++)
		out[i] = (unsigned char)(v[i / 4] >> (i % 4 * 8));
	secret_wipe(v, sizeof(v));
}

/* out = a b + c modulo L. */
static void
sc_mul_add(unsigned char out[32], const unsigned char a[32], const unsigned char b[32],
    const unsigned char c[32])
{
	uint32_t x[WORDS], y[WORDS], wide[2 * WORDS] = { 0 };
	uint64_t carry;

	sc_load(x, a, WORDS);
	sc_load(y, b, WORDS);
	sc_load(wide, c, WORDS);
	for (unsigned i = 0; i < WORDS; i++) {
		carry = 0;
		for (unsigned k = 0; k < WORDS; k++) {
			carry += (uint64_t)x[i] * y[k] + wide[i + k];
			wide[i + k] = (uint32_t)carry;
			carry >>= 32;
		}
		wide[i + WORDS] = (uint32_t)carry;
	}
	sc_reduce(out, wide);
	secret_wipe(x, sizeof(x));
	secret_wipe(y, sizeof(y));
	secret_wipe(wide, sizeof(wide));
}

/* out = SHA-512(a || b || msg) modulo L; a and b are of 32 bytes, b may be NULL for none. */
static void
sc_hash(unsigned char out[32], const unsigned char *a, const unsigned char *b, struct str msg)
{
	unsigned char digest[SHA512_SIZE];
	uint32_t wide[2 * WORDS];
	struct sha512 h;

	sha512_init(&h);
	sha512_update(&h, a, 32);
	sha512_update(&h, b, b ? 32 : 0);
	sha512_update(&h, msg.p, msg.n);
	sha512_final(&h, digest);
	sc_load(wide, digest, 2 * WORDS);
	sc_reduce(out, wide);
	secret_wipe(digest, sizeof(digest));
	secret_wipe(wide, sizeof(wide));
}

/* ---- keys and signatures --------------------------------------------------------------- */

void
ed25519_key_init(struct ed25519_key *k, const unsigned char seed[ED25519_SEED_SIZE])
{
	unsigned char digest[SHA512_SIZE];
	struct sha512 h;

	sha512_init(&h);
	sha512_update(&h, seed, ED25519_SEED_SIZE);
	sha512_final(&h, digest);
	/* A multiple of 8 from 2^254 on: section 5.1.5. */
	digest[0] &= 0xf8;
	digest[31] = (unsigned char)((digest[31] & 0x7f) | 0x40);
	memcpy(k->scalar, digest, sizeof(k->scalar));
	memcpy(k->prefix, digest + sizeof(k->scalar), sizeof(k->prefix));
	base_times(k->public, k->scalar);
	secret_wipe(digest, sizeof(digest));
}

void
ed25519_sign(const struct ed25519_key *k, struct str msg, unsigned char sig[ED25519_SIG_SIZE])
{
	unsigned char r[32], challenge[32];

	sc_hash(r, k->prefix, NULL, msg);
	base_times(sig, r);
	sc_hash(challenge, sig, k->public, msg);
	sc_mul_add(sig + 32, challenge, k->scalar, r);
	secret_wipe(r, sizeof(r));
}

enum err
ed25519_verify(struct str public, struct str msg, struct str sig)
{
	const unsigned char *a = (const unsigned char *)public.p, *r = (const unsigned char *)sig.p;
	unsigned char challenge[32], reduced[32];
	uint32_t wide[2 * WORDS] = { 0 };
	struct ge key, p;

	if (public.n != ED25519_PUBLIC_SIZE || sig.n != ED25519_SIG_SIZE || !ge_load(&key, a))
		return ERR_AUTH;
	sc_load(wide, r + 32, WORDS);
	sc_reduce(reduced, wide);
	if (memcmp(reduced, r + 32, sizeof(reduced)) != 0)
		return ERR_AUTH;
	/* 8 A has the neutral point's x only if A is of small order. */
	ge_double(&p, &key);
	ge_double(&p, &p);
	ge_double(&p, &p);
	if (fe_equal(&p.x, &ZERO))
		return ERR_AUTH;
	/* S B - k A, where -A is (-x, y). */
	sc_hash(challenge, r, a, msg);
	fe_negate(&key.x, &key.x);
	fe_negate(&key.t, &key.t);
	ge_sum(&p, 2, (const unsigned char *const[]){ r + 32, challenge },
	    (const struct ge *const[]){ &BASE, &key });
	ge_store(reduced, &p);
	return memcmp(reduced, r, sizeof(reduced)) == 0 ? OK : ERR_AUTH;
}
