/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fuzz_json.c - what parses prints, parses again and prints the same; no read may crash. */
#include "json_print.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
read_all(const struct json *v)
{
	int64_t i;
	double f = json_f64(v, "", 0);

	/* Whatever is an exact integer is the same number as a double. */
	if (json_to_i64(v, &i) == OK && (double)i != f)
		abort();
	for (const struct json *c = v->first; c; c = c->next)
		read_all(c);
}

static void
print(struct buf *b, const struct json *v)
{
	struct jw w;

	jw_init(&w, b);
	json_print(&w, v);
	if (jw_done(&w) != OK)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = ARENA_INIT(64u << 20);
	struct buf one = BUF_INIT(64u << 20), two = BUF_INIT(64u << 20);
	struct str text = str_make((const char *)data, size);
	struct json_error e = { 0, 0, 0, NULL };
	const struct json *v, *again;

	if (json_parse(&a, text, &v, &e) == OK) {
		read_all(v);
		json_at(v, "a.0.b"); /* only that it comes back */
		print(&one, v);
		if (json_parse(&a, buf_view(&one), &again, NULL) != OK)
			abort();
		print(&two, again);
		if (!str_eq(buf_view(&one), buf_view(&two)))
			abort();
	} else if (!e.what || e.line == 0 || e.column == 0 || e.offset > size) {
		abort();
	}
	/* Any bytes at all make a string that our parser reads back. */
	buf_reset(&one);
	json_quote(&one, text);
	arena_reset(&a);
	if (json_parse(&a, buf_view(&one), &v, NULL) != OK ||
	    (utf8_valid(text) && !str_eq(v->s, text)))
		abort();
	buf_free(&one);
	buf_free(&two);
	arena_free(&a);
	return 0;
}
