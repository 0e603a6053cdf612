/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * arena.c - a region with a cap; everything in it is freed together.
 *
 * A parsed document or the scratch memory of one step is many small objects
 * with one lifetime. They are cut from chunks that double from CHUNK_MIN to
 * CHUNK_MAX; an object bigger than the next chunk gets one to itself. Nothing
 * is freed alone, so nothing can dangle inside and nothing is forgotten.
 *
 * The cap counts what was handed out, not what was allocated, so the same
 * input meets the same limit on every machine and in every build.
 *
 * Memory checkers cannot see objects inside a chunk. Under AddressSanitizer,
 * or with -DARENA_DEBUG (for valgrind), every object is a chunk of exactly its
 * own size: one byte too far is then found.
 */
#include "base/base.h"

#include <assert.h>

#define CHUNK_MIN ((size_t)1 << 10)
#define CHUNK_MAX ((size_t)64 << 10)

#if defined(__has_feature)
#define FEATURE(x) __has_feature(x)
#else
#define FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(ARENA_DEBUG) || FEATURE(address_sanitizer)
enum { EXACT = 1 };
#else
enum { EXACT = 0 };
#endif

struct arena_chunk {
	struct arena_chunk *next;
	size_t used, cap;
	max_align_t data[];
};

void
arena_init(struct arena *a, size_t max)
{
	*a = (struct arena)ARENA_INIT(max);
}

void
arena_reset(struct arena *a)
{
	while (a->head) {
		struct arena_chunk *next = a->head->next;

		free(a->head);
		a->head = next;
	}
	a->used = 0;
	a->err = OK;
}

void
arena_free(struct arena *a)
{
	arena_reset(a);
}

/* A chunk with room for n bytes, put where later small objects find the most room. */
static struct arena_chunk *
add_chunk(struct arena *a, size_t n)
{
	size_t cap = a->head ? a->head->cap * 2 : CHUNK_MIN, bytes;
	struct arena_chunk *c, **link = &a->head;

	if (cap > CHUNK_MAX)
		cap = CHUNK_MAX;
	if (EXACT || cap < n)
		cap = n;
	if (add_size(sizeof(*c), cap, &bytes) || !(c = malloc(bytes))) {
		a->err = ERR_NOMEM;
		return NULL;
	}
	if (a->head && a->head->cap - a->head->used > cap - n)
		link = &a->head->next;
	*c = (struct arena_chunk){ .next = *link, .cap = cap };
	*link = c;
	return c;
}

/* align is a power of two: 1 for text, so that short strings lie side by side. */
static void *
take(struct arena *a, size_t n, size_t align)
{
	struct arena_chunk *c = a->head;
	size_t counted = n ? n : 1, total, at;

	if (a->err != OK)
		return NULL;
	if (add_size(a->used, counted, &total) || total > a->max) {
		a->err = ERR_LIMIT;
		return NULL;
	}
	/* An oversized or exact chunk may end unaligned: then at lies beyond its cap. */
	at = c ? (c->used + align - 1) & ~(align - 1) : 0;
	if (!c || at > c->cap || c->cap - at < counted) {
		c = add_chunk(a, counted);
		at = 0;
		if (!c)
			return NULL;
	}
	assert(at + counted <= c->cap);
	c->used = at + counted;
	a->used = total;
	return memset((char *)c->data + at, 0, counted);
}

void *
arena_alloc(struct arena *a, size_t n)
{
	return take(a, n, _Alignof(max_align_t));
}

void *
arena_array(struct arena *a, size_t count, size_t size)
{
	size_t n;

	if (mul_size(count, size, &n)) {
		if (a->err == OK)
			a->err = ERR_LIMIT;
		return NULL;
	}
	return arena_alloc(a, n);
}

/* The bytes of s and a NUL, or NULL. Memory is handed out zeroed, so the NUL is there already. */
static char *
copy(struct arena *a, struct str s)
{
	char *p = take(a, s.n < SIZE_MAX ? s.n + 1 : s.n, 1);

	if (p && s.n)
		memcpy(p, s.p, s.n);
	return p;
}

struct str
arena_str(struct arena *a, struct str s)
{
	char *p = copy(a, s);

	return p ? str_make(p, s.n) : STR_NONE;
}

char *
arena_z(struct arena *a, struct str s)
{
	static char none[1];    /* what a failed copy is: the empty text */
	char *p = copy(a, s);

	none[0] = '\0';
	return p ? p : none;
}

struct str
arena_fmt(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	char *p = NULL;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n >= 0)
		p = take(a, (size_t)n + 1, 1);
	else if (a->err == OK)
		a->err = ERR_LIMIT;     /* longer than an int can count */
	if (!p)
		return STR_NONE;
	va_start(ap, fmt);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return str_make(p, (size_t)n);
}
