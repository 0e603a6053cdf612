/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * buf.c - growable bytes with a maximum and a sticky error.
 *
 * A buffer is written by many small calls and checked once at the end. The
 * first failure (no memory, over the maximum) stays in .err; what was put
 * before it stays readable, each later put does nothing, so the text is always
 * a prefix of what was meant and never has a hole.
 *
 * Invariants: n <= max; p == NULL or cap > n and p[n] == NUL. The one byte for
 * the NUL is not counted in max. Growth doubles, so n bytes cost O(n) copying,
 * but never beyond max, so a limit is also a limit of memory.
 *
 * Shortening (buf_drop, buf_cut) works in spite of an error: it cannot fail,
 * and decoders use it to take back their half-done work.
 */
#include "base/base.h"

#include <assert.h>

#define BUF_CAP_MIN 64u         /* the first allocation */

void
buf_init(struct buf *b, size_t max)
{
	*b = (struct buf)BUF_INIT(max);
}

void
buf_free(struct buf *b)
{
	free(b->p);
	buf_init(b, b->max);
}

void
buf_reset(struct buf *b)
{
	b->n = 0;
	b->err = OK;
	if (b->p)
		b->p[0] = '\0';
}

/* Makes cap >= n + 1, where n <= max holds already. */
static bool
grow(struct buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : BUF_CAP_MIN;
	char *p;

	while (cap <= n)
		cap = cap > SIZE_MAX / 2 ? SIZE_MAX : cap * 2;
	if (cap - 1 > b->max)
		cap = b->max + 1;
	p = realloc(b->p, cap);
	if (!p) {
		b->err = ERR_NOMEM;
		return false;
	}
	b->p = p;
	b->cap = cap;
	return true;
}

char *
buf_room(struct buf *b, size_t n)
{
	assert(b->n <= b->max);
	if (b->err != OK)
		return NULL;
	if (n > b->max - b->n || b->n + n == SIZE_MAX) {
		b->err = ERR_LIMIT;
		return NULL;
	}
	if ((!b->p || b->cap - b->n - 1 < n) && !grow(b, b->n + n))
		return NULL;
	b->p[b->n] = '\0';
	/* A caller that fills the whole room finds its NUL in place. */
	b->p[b->n + n] = '\0';
	return b->p + b->n;
}

void
buf_put(struct buf *b, const void *p, size_t n)
{
	char *room;

	if (n == 0)
		return;
	room = b->err == OK && n < b->cap - b->n ? b->p + b->n : buf_room(b, n);
	if (!room)
		return;
	memcpy(room, p, n);
	room[n] = '\0';
	b->n += n;
}

void
buf_str(struct buf *b, struct str s)
{
	buf_put(b, s.p, s.n);
}

void
buf_puts(struct buf *b, const char *z)
{
	buf_put(b, z, strlen(z));
}

void
buf_putc(struct buf *b, char c)
{
	buf_put(b, &c, 1);
}

void
buf_vfmt(struct buf *b, const char *fmt, va_list ap)
{
	size_t spare = b->p ? b->cap - b->n : 0;        /* the NUL's place included */
	va_list again;
	char *room;
	int n;

	if (b->err != OK)
		return;
	va_copy(again, ap);
	n = vsnprintf(b->p ? b->p + b->n : NULL, spare, fmt, again);
	va_end(again);
	if (n >= 0 && (size_t)n < spare) {
		b->n += (size_t)n;
		return;
	}
	if (b->p)
		b->p[b->n] = '\0';      /* the part that found room is taken back */
	if (n < 0) {
		b->err = ERR_LIMIT;     /* longer than an int can count */
		return;
	}
	room = buf_room(b, (size_t)n);
	if (!room)
		return;
	vsnprintf(room, (size_t)n + 1, fmt, ap);
	b->n += (size_t)n;
}

void
buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(b, fmt, ap);
	va_end(ap);
}

void
buf_drop(struct buf *b, size_t n)
{
	if (n > b->n)
		n = b->n;
	if (n == 0)
		return;
	b->n -= n;
	memmove(b->p, b->p + n, b->n);
	b->p[b->n] = '\0';
}

void
buf_cut(struct buf *b, size_t n)
{
	if (n >= b->n)
		return;
	b->n = n;
	b->p[n] = '\0';
}

struct str
buf_view(const struct buf *b)
{
	return str_make(b->p, b->n);
}

const char *
buf_z(struct buf *b)
{
	if (!b->p)
		return "";
	/* After buf_room the caller counts n up by itself; the NUL follows here. */
	b->p[b->n] = '\0';
	return b->p;
}
