/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_config.c - configuration texts, and edits of them. The first byte
 * chooses a key. Whatever text passes the checks must pass them still after
 * `config set` of that key, and a second edit must find the first one's value.
 */
#include "core/config.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *
sample(const struct config_key *k)
{
	static char number[32];

	if (k->check)                   /* no text would do */
		return NULL;
	snprintf(number, sizeof(number), "%lld", (long long)(k->min > 7 ? k->min : k->max && k->max < 7 ? k->max : 7));
	switch (k->type) {
	case CONFIG_STRING: return strcmp(k->name, "providers.default") == 0 ? NULL : "a\"b\n#'\\";
	case CONFIG_SECRET: return "sk-\"fuzz'\\";
	case CONFIG_PATH: return "/a b";
	case CONFIG_INT: case CONFIG_SECONDS: return number;
	case CONFIG_BOOL: return "true";
	case CONFIG_ENUM: return NULL;
	case CONFIG_USD: return "1.5";
	case CONFIG_IDS: return "1,-2";
	case CONFIG_ARGV: return "[\"/a b\", \"\\\"\\\\{file}'\"]";
	case CONFIG_URL: return "https://example.com/x";
	}
	return NULL;
}

static void
edit_twice(struct str text, const struct config_key *k)
{
	struct buf value = BUF_INIT(4096), once = BUF_INIT(4u << 20), twice = BUF_INIT(4u << 20);
	struct str segment = config_is_wild(k) ? S("m.1\n\"") : STR_NONE, old = STR_NONE;
	struct fail f = FAIL_INIT;

	if (config_value_text(k, segment, str_z(sample(k)), &value, &f) != OK) {
		fprintf(stderr, "%s = %s: %s\n", k->name, sample(k), f.text);
		abort();
	}
	if (config_edit(text, "f", k, segment, buf_view(&value), &once, &old, &f) != OK)
		abort();
	if (once.n <= CONFIG_BYTES_MAX && config_check(buf_view(&once), "f", &f) != OK) {
		fprintf(stderr, "%s\n%.*s\n---\n%s\n", f.text, STR_ARG(text), buf_z(&once));
		abort();
	}
	if (config_edit(buf_view(&once), "f", k, segment, buf_view(&value), &twice, &old, &f) != OK)
		abort();
	assert(str_eq(old, buf_view(&value)));
	assert(str_eq(buf_view(&once), buf_view(&twice)));
	buf_free(&value);
	buf_free(&once);
	buf_free(&twice);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct config_key *k;
	struct fail f = FAIL_INIT;
	struct str text, segment;
	size_t n = 0;

	if (size < 1)
		return 0;
	log_set_level(LOG_ERROR);
	text = str_make((const char *)data + 1, size - 1);
	while (config_key_at(n))
		n++;
	k = config_key_at(data[0] % n);
	if (config_check(text, "f", &f) == OK && !k->retired && sample(k))
		edit_twice(text, k);
	fail_clear(&f);
	IGNORE(config_key_find(text, &k, &segment, &f));        /* any name may be typed */
	return 0;
}
