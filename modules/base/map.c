/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * map.c - bytes -> pointer: an array sorted by key, keys copied.
 *
 * Keys come from strangers (chat ids, addresses). A sorted array has no keys
 * that collide, needs no hash and no secret, and is walked in a stable order.
 * A lookup compares log2(n) keys; a put or delete moves the entries behind it,
 * which for the thousands that a map here holds is less than one system call.
 */
#include "base/base.h"

#define CAP_MIN ((size_t)16)

struct entry {
	char *key;
	size_t n;
	void *value;
};

struct map {
	struct entry *entries;  /* NULL until the first put */
	size_t count, cap, max;
};

enum err
map_new(struct map **out, size_t max_entries)
{
	struct map *m = calloc(1, sizeof(*m));

	if (!m)
		return ERR_NOMEM;
	m->max = max_entries;
	*out = m;
	return OK;
}

void
map_free(struct map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->count; i++)
		free(m->entries[i].key);
	free(m->entries);
	free(m);
}

/* The entry with key, or NULL; *at is its place or the one where it would go. */
static struct entry *
find(const struct map *m, struct str key, size_t *at)
{
	size_t from = 0, to = m->count;

	while (from < to) {
		size_t i = from + (to - from) / 2;
		int order = str_cmp(str_make(m->entries[i].key, m->entries[i].n), key);

		*at = i;
		if (order == 0)
			return &m->entries[i];
		if (order < 0)
			from = i + 1;
		else
			to = i;
	}
	*at = from;
	return NULL;
}

static enum err
grow(struct map *m)
{
	size_t cap = m->cap ? m->cap : CAP_MIN / 2, bytes;
	struct entry *entries;

	if (mul_size(cap, 2 * sizeof(*entries), &bytes))
		return ERR_LIMIT;
	entries = realloc(m->entries, bytes);
	if (!entries)
		return ERR_NOMEM;
	m->entries = entries;
	m->cap = cap * 2;
	return OK;
}

enum err
map_put(struct map *m, struct str key, void *value)
{
	size_t at, bytes;
	struct entry *old = find(m, key, &at);
	enum err e = OK;
	char *copy;

	if (old) {
		old->value = value;
		return OK;
	}
	if (m->count >= m->max || add_size(key.n, 1, &bytes))
		return ERR_LIMIT;
	if (m->count == m->cap)
		e = grow(m);
	if (e != OK)
		return e;
	copy = malloc(bytes);
	if (!copy)
		return ERR_NOMEM;
	if (key.n)
		memcpy(copy, key.p, key.n);
	memmove(m->entries + at + 1, m->entries + at, (m->count++ - at) * sizeof(*m->entries));
	m->entries[at] = (struct entry){ copy, key.n, value };
	return OK;
}

void *
map_get(const struct map *m, struct str key)
{
	size_t at;
	const struct entry *e = find(m, key, &at);

	return e ? e->value : NULL;
}

void *
map_del(struct map *m, struct str key)
{
	size_t at;
	struct entry *e = find(m, key, &at);
	void *value;

	if (!e)
		return NULL;
	value = e->value;
	free(e->key);
	memmove(e, e + 1, (--m->count - at) * sizeof(*e));
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
	const struct entry *e;

	if (*it >= m->count)
		return false;
	e = &m->entries[(*it)++];
	if (key)
		*key = str_make(e->key, e->n);
	if (value)
		*value = e->value;
	return true;
}
