/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * map.c - bytes -> pointer, open addressing, keys copied.
 *
 * Keys may come from strangers (chat ids, JSON names), and somebody who can
 * choose keys that collide turns every lookup into a walk over the whole
 * table. So the hash is SipHash-1-3 under a random key per map: without that
 * key collisions cannot be prepared.
 *
 * Collisions go to the next free slot (linear probing). Deleting shifts the
 * rest of the run back instead of leaving a tombstone, so a map that lives for
 * months and sees endless coming and going does not fill with graves and never
 * needs a rehash for them. The table is a power of two, at most 3/4 full; it
 * grows until the maximum number of entries given at birth and never shrinks.
 *
 * Invariant: every used slot is reachable from its home slot without passing
 * an empty one.
 */
#include "base/base.h"

#include <assert.h>

#define SLOTS_MIN ((size_t)16)

struct slot {
	char *key;              /* NULL: the slot is empty */
	size_t n;
	uint64_t hash;
	void *value;
};

struct map {
	struct slot *slots;     /* NULL until the first put */
	size_t size;            /* number of slots: 0 or a power of two */
	size_t count;
	size_t max;
	uint64_t seed[2];
};

static uint64_t
rotl(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void
sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

/* SipHash-1-3. The order of bytes in a word follows the machine: hashes stay in here. */
static uint64_t
hash(const struct map *m, struct str s)
{
	uint64_t v[4] = {
		m->seed[0] ^ 0x736f6d6570736575u, m->seed[1] ^ 0x646f72616e646f6du,
		m->seed[0] ^ 0x6c7967656e657261u, m->seed[1] ^ 0x7465646279746573u
	};
	uint64_t last = (uint64_t)s.n << 56, word;
	size_t i = 0;

	for (; s.n - i >= 8; i += 8) {
		memcpy(&word, s.p + i, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	for (unsigned shift = 0; i < s.n; i++, shift += 8)
		last |= (uint64_t)(unsigned char)s.p[i] << shift;
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int round = 0; round < 3; round++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

enum err
map_new(struct map **out, size_t max_entries)
{
	struct map *m = calloc(1, sizeof(*m));
	enum err e;

	if (!m)
		return ERR_NOMEM;
	m->max = max_entries;
	e = rand_bytes(m->seed, sizeof(m->seed));
	if (e != OK) {
		free(m);
		return e;
	}
	*out = m;
	return OK;
}

void
map_free(struct map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->size; i++)
		free(m->slots[i].key);
	free(m->slots);
	free(m);
}

/* The slot that holds key, or the empty one where it would go. The table has an empty slot. */
static size_t
locate(const struct map *m, struct str key, uint64_t h)
{
	size_t mask = m->size - 1, i = (size_t)h & mask;

	for (; m->slots[i].key; i = (i + 1) & mask) {
		if (m->slots[i].hash == h && str_eq(str_make(m->slots[i].key, m->slots[i].n), key))
			break;
	}
	return i;
}

static enum err
grow(struct map *m)
{
	size_t size = SLOTS_MIN, bytes;
	struct slot *slots;

	if (m->size && mul_size(m->size, 2, &size))
		return ERR_LIMIT;
	if (mul_size(size, sizeof(*slots), &bytes))
		return ERR_LIMIT;
	slots = calloc(1, bytes);
	if (!slots)
		return ERR_NOMEM;
	for (size_t i = 0; i < m->size; i++) {
		size_t at = (size_t)m->slots[i].hash & (size - 1);

		if (!m->slots[i].key)
			continue;
		while (slots[at].key)
			at = (at + 1) & (size - 1);
		slots[at] = m->slots[i];
	}
	free(m->slots);
	m->slots = slots;
	m->size = size;
	return OK;
}

enum err
map_put(struct map *m, struct str key, void *value)
{
	uint64_t h = hash(m, key);
	size_t at, bytes;
	char *copy;

	if (m->size) {
		at = locate(m, key, h);
		if (m->slots[at].key) {
			m->slots[at].value = value;
			return OK;
		}
	}
	if (m->count >= m->max || add_size(key.n, 1, &bytes))
		return ERR_LIMIT;
	/* size is a multiple of 16, so size / 4 is exact */
	if (m->count >= m->size / 4 * 3) {
		enum err e = grow(m);

		if (e != OK)
			return e;
	}
	copy = malloc(bytes);
	if (!copy)
		return ERR_NOMEM;
	if (key.n)
		memcpy(copy, key.p, key.n);
	copy[key.n] = '\0';
	at = locate(m, key, h);
	m->slots[at].key = copy;
	m->slots[at].n = key.n;
	m->slots[at].hash = h;
	m->slots[at].value = value;
	m->count++;
	return OK;
}

void *
map_get(const struct map *m, struct str key)
{
	return m->size ? m->slots[locate(m, key, hash(m, key))].value : NULL;
}

void *
map_del(struct map *m, struct str key)
{
	size_t mask = m->size - 1, hole, i;
	void *value;

	if (m->size == 0)
		return NULL;
	hole = locate(m, key, hash(m, key));
	if (!m->slots[hole].key)
		return NULL;
	value = m->slots[hole].value;
	free(m->slots[hole].key);
	/* An entry of the run may move back into the hole unless its home lies after the hole. */
	for (i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
		size_t home = (size_t)m->slots[i].hash & mask;

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		m->slots[hole] = m->slots[i];
		hole = i;
	}
	memset(&m->slots[hole], 0, sizeof(m->slots[hole]));
	assert(m->count > 0);
	m->count--;
	return value;
}

size_t
map_count(const struct map *m)
{
	return m->count;
}

bool
map_next(const struct map *m, size_t *it, struct str *key, void **value)
{
	while (*it < m->size) {
		const struct slot *s = &m->slots[(*it)++];

		if (!s->key)
			continue;
		if (key)
			*key = str_make(s->key, s->n);
		if (value)
			*value = s->value;
		return true;
	}
	return false;
}
