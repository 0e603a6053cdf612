/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fuzz_markup.c - any text splits into bounded pieces and renders as balanced HTML. */
#include "core/markup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool ok)
{
	if (!ok)
		abort();
}

/* Tags nest: a stack of their first letters; visible units are bounded. */
static void
check(struct str md, struct buf *out)
{
	char stack[64];
	size_t depth = 0, units = 0, end;
	struct str h;

	buf_reset(out);
	markup_html(out, md);
	h = buf_view(out);
	for (size_t i = 0; i < h.n; i++) {
		if (h.p[i] == '<') {
			end = str_chr(str_sub(h, i, h.n), '>');
			must(end != SIZE_MAX && depth < 63);
			if (h.p[i + 1] == '/')
				must(depth > 0 && stack[--depth] == h.p[i + 2]);
			else
				stack[depth++] = h.p[i + 1];
			i += end;
			continue;
		}
		must(h.p[i] != '>' && h.p[i] != '"');
		if (h.p[i] == '&')
			i += str_chr(str_sub(h, i, h.n), ';');
		units += ((unsigned char)h.p[i] & 0xC0) != 0x80;
		units += (unsigned char)h.p[i] >= 0xF0;
	}
	must(depth == 0 && units <= utf8_units(md));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf md = BUF_INIT(1 << 22), piece = BUF_INIT(1 << 22), html = BUF_INIT(1 << 24);
	struct markup_split it;
	size_t max = MARKUP_PIECE_MIN + (size ? data[0] : 0u), pieces = 0;

	utf8_clean(&md, str_make((const char *)data, size));
	check(buf_view(&md), &html);
	markup_split_init(&it, buf_view(&md), max);
	while (markup_next(&it, &piece)) {
		must(piece.n > 0 && utf8_units(buf_view(&piece)) <= max && pieces++ <= md.n);
		must(str_trim(buf_view(&piece)).n > 0);
		check(buf_view(&piece), &html);
	}
	buf_free(&md);
	buf_free(&piece);
	buf_free(&html);
	return 0;
}
