/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * secret.c - values that must not be seen, and the scrubbing of texts.
 *
 * Keys and tokens leak through what is written about them: an error that
 * quotes a URL, a server that echoes a header. Guessing what looks like a
 * secret misses some and mangles others. So the exact values are known here:
 * whoever holds a secret holds it in a struct secret, and the list of all of
 * them is applied to every text that leaves through log_* and fail_set.
 *
 * The list is the module's one global: scrubbing has to reach every secret
 * from anywhere, with no object at hand. It belongs to the main thread. The
 * node carries the bytes, so that registering is one allocation and a value
 * exists only once in memory; it is wiped before it is freed.
 *
 * Invariant of the scrubbing: after it no byte of any registered value that
 * occurred in the text is left, even where two values overlap.
 */
#include "base/base.h"

#include <assert.h>

#define SCRUB_MIN 4u            /* shorter values would blank out half of every text */
#define MASK "***"              /* shorter than any scrubbed value: texts never grow */

struct secret_node {
	struct secret_node *next;
	size_t n;
	char bytes[];
};

static struct secret_node *registered;

void
secret_wipe(void *p, size_t n)
{
	volatile unsigned char *bytes = p;

	/* Stores through a volatile pointer may not be left out, though nobody reads them. */
	for (size_t i = 0; i < n; i++)
		bytes[i] = 0;
}

enum err
secret_set(struct secret *s, struct str value)
{
	struct secret_node *node;
	size_t bytes;

	if (add_size(sizeof(*node) + 1, value.n, &bytes))
		return ERR_LIMIT;
	node = malloc(bytes);
	if (!node)
		return ERR_NOMEM;
	node->n = value.n;
	if (value.n)
		memcpy(node->bytes, value.p, value.n);
	node->bytes[value.n] = '\0';
	node->next = registered;
	registered = node;
	s->p = node->bytes;
	s->n = value.n;
	return OK;
}

void
secret_free(struct secret *s)
{
	struct secret_node **link = &registered, *node;

	if (!s->p)
		return;
	while (*link && (*link)->bytes != s->p)
		link = &(*link)->next;
	assert(*link);
	node = *link;
	*link = node->next;
	secret_wipe(node->bytes, node->n);
	free(node);
	s->p = NULL;
	s->n = 0;
}

struct str
secret_reveal(const struct secret *s)
{
	return str_make(s->p, s->n);
}

/* Length of the longest registered value that stands at the front of s; 0 for none. Of a text
 * that was cut, its end may be the beginning of a value. */
static size_t
longest_at(struct str s, bool was_cut)
{
	size_t longest = 0;

	for (const struct secret_node *node = registered; node; node = node->next) {
		struct str v = str_make(node->bytes, node->n);
		size_t n = v.n < s.n ? v.n : s.n;

		if (v.n >= SCRUB_MIN && n > longest &&
		    (str_starts(s, v) || (was_cut && str_starts(v, s))))
			longest = n;
	}
	return longest;
}

static size_t
scrub(char *text, size_t n, bool was_cut)
{
	size_t from = 0, to = 0;

	while (from < n) {
		size_t end = from + longest_at(str_make(text + from, n - from), was_cut);

		if (end == from) {
			text[to++] = text[from++];
			continue;
		}
		/* A value that begins inside this one may reach beyond it. */
		for (size_t i = from + 1; i < end; i++) {
			size_t other = i + longest_at(str_make(text + i, n - i), was_cut);

			if (other > end)
				end = other;
		}
		if (end - from >= SCRUB_MIN) {
			memcpy(text + to, MASK, sizeof(MASK) - 1);
			to += sizeof(MASK) - 1;
		}
		from = end;
	}
	return to;
}

size_t
secret_scrub(char *text, size_t n)
{
	return scrub(text, n, false);
}

size_t
secret_fmt(char *out, size_t size, const char *fmt, va_list ap)
{
	int n = vsnprintf(out, size, fmt, ap);
	bool was_cut = n < 0 || (size_t)n >= size;

	n = (int)scrub(out, was_cut ? size - 1 : (size_t)n, was_cut);
	out[n] = '\0';
	return (size_t)n;
}
