/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fuzz_toml.c - every error has a place and clean words; every place lies in the text. */
#include "base/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(const struct toml *t, size_t size, unsigned depth)
{
	size_t n = 0;

	if (depth > TOML_DEPTH_MAX || t->off > size || t->len > size - t->off ||
	    t->key_off > size || t->end > size || t->line == 0 || t->column == 0)
		abort();
	if (t->type == TOML_STRING && !utf8_valid(t->s))
		abort();
	for (const struct toml *c = t->first; c; c = c->next, n++) {
		if (t->type == TOML_TABLE && toml_get(t, c->key) != c)
			abort();
		check(c, size, depth + 1);
	}
	if (n != t->count)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = ARENA_INIT(64u << 20);
	struct toml_error e = { 0, 0, "" };
	struct toml *root;

	if (toml_parse(&a, str_make((const char *)data, size), &root, &e) == OK) {
		check(root, size, 0);
	} else {
		if (e.line == 0 || e.column == 0 || !e.what[0] || !utf8_valid(str_z(e.what)))
			abort();
		for (const char *c = e.what; *c; c++)
			if ((unsigned char)*c < 0x20 || *c == 0x7F)
				abort();
	}
	arena_free(&a);
	return 0;
}
