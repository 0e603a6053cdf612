/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_message.c - any JSON as a Telegram message: what is made of it is text that
 * may be sent on, with what others said on lines of its own; and any text within
 * the limits of rich messages.
 */
#include "channel/telegram/message.h"
#include "core/markup.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
check_message(struct str text)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(text.n));
	const struct json *m;
	struct tg_content c;

	tg_content_init(&c);
	if (json_parse(&ar, text, &m, NULL) == OK && tg_content_read(m, text.n % 2, "bot", &c) == OK) {
		assert(utf8_valid(buf_view(&c.text)) && utf8_valid(buf_view(&c.before)));
		assert(c.before.n == 0 || c.before.p[c.before.n - 1] == '\n');
		assert(!c.has_file || c.file.source.n > 0);
		for (struct str rest = buf_view(&c.before), line; rest.n;) {
			(void)str_cut(&rest, '\n', &line);
			assert(line.n && line.p[0] == '(' && line.p[line.n - 1] == ')');
		}
	}
	tg_content_free(&c);
	arena_free(&ar);
}

/* Taming twice is taming once, and a tame text is cut into pieces that hold its limits. */
static void
check_tame(struct str md)
{
	struct buf once = BUF_INIT(4 * md.n + 4096), twice = BUF_INIT(8 * md.n + 8192), piece = BUF_INIT(4 * md.n + 65536);
	struct markup_split it;

	markup_tame(&once, md);
	assert(once.err == OK);
	markup_tame(&twice, buf_view(&once));
	assert(twice.err == OK && str_eq(buf_view(&once), buf_view(&twice)));
	markup_split_init(&it, buf_view(&once), 300);
	it.max_blocks = 5;
	for (size_t pieces = 0; markup_next(&it, &piece); pieces++) {
		assert(piece.err == OK && utf8_units(buf_view(&piece)) <= 300);
		assert(pieces <= md.n + 1);
	}
	buf_free(&once);
	buf_free(&twice);
	buf_free(&piece);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct str text = str_make((const char *)data, n);

	check_message(text);
	if (utf8_valid(text))
		check_tame(text);
	return 0;
}
