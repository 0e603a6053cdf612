/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fuzz_sse.c - however a stream is cut, the same events come out. */
#include "base/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
on_event(void *arg, struct str type, struct str data, struct str id)
{
	struct buf *out = arg;

	enc_hex(out, type.p, type.n);
	buf_putc(out, '|');
	enc_hex(out, data.p, data.n);
	buf_putc(out, '|');
	enc_hex(out, id.p, id.n);
	buf_putc(out, ';');
}

/* The first byte of the input says how long the pieces are. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = BUF_INIT(64u << 20), cut = BUF_INIT(64u << 20);
	struct str bytes = str_make((const char *)data, size), rest;
	size_t piece = size ? data[0] % 7u + 1 : 1;
	struct sse s;
	int64_t retry;

	bytes = str_sub(bytes, 1, bytes.n);
	sse_init(&s);
	IGNORE(sse_feed(&s, bytes, on_event, &whole)); /* a long name is an error, the same below */
	retry = s.retry_ms;
	if (retry < -1)
		abort();
	sse_reset(&s);
	for (rest = bytes; rest.n; rest = str_sub(rest, piece, rest.n))
		if (sse_feed(&s, str_sub(rest, 0, piece), on_event, &cut) != OK)
			break;
	if (!str_eq(buf_view(&whole), buf_view(&cut)) || retry != s.retry_ms)
		abort();
	sse_free(&s);
	buf_free(&whole);
	buf_free(&cut);
	return 0;
}
