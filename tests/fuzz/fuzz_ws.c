/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_ws.c - however a stream is cut, the same events come out; no message is
 * above its limit; what is put comes back when read; any offer is answered or
 * declined. The first two bytes of the input choose limit, compression, cut, and
 * whether the rest is a stream or the payload of one compressed message.
 */
#include "base/ws.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes "event code payload;" for each event of bytes, given in pieces, up to a close. */
static void
read_all(struct ws *w, struct str bytes, size_t piece, struct buf *out)
{
	enum ws_event e = WS_MORE;
	struct str part, payload;

	while (bytes.n && e != WS_CLOSE && e != WS_BAD) {
		part = str_sub(bytes, 0, piece);
		bytes = str_sub(bytes, piece, bytes.n);
		while ((e = ws_next(w, &part, &payload)) != WS_MORE) {
			assert(payload.n <= (e & 8 ? WS_CONTROL_MAX : w->max));
			assert(e != WS_TEXT || utf8_valid(payload));
			buf_fmt(out, "%d %u ", (int)e, w->code);
			enc_hex(out, payload.p, payload.n);
			buf_putc(out, ';');
			if (e == WS_CLOSE || e == WS_BAD)
				break;
		}
		assert(part.n == 0);
	}
}

/* A frame of ours with the mask bit and a mask of zeroes is one a client could send. */
static void
check_put(struct str text, unsigned bits, struct ws_pool *pool)
{
	struct buf frame = BUF_INIT(1u << 24), sent = BUF_INIT(1u << 24);
	struct str in, payload;
	struct ws w;
	size_t head;

	ws_init(&w, 1u << 23, bits, pool);
	assert(ws_put(&w, &frame, WS_BINARY, text) == OK);
	head = (frame.p[1] & 0x7F) == 127 ? 10 : (frame.p[1] & 0x7F) == 126 ? 4 : 2;
	frame.p[1] = (char)(frame.p[1] | '\x80');
	buf_put(&sent, frame.p, head);
	buf_put(&sent, "\0\0\0\0", 4);
	buf_str(&sent, str_sub(buf_view(&frame), head, frame.n));
	in = buf_view(&sent);
	assert(ws_next(&w, &in, &payload) == WS_BINARY && str_eq(payload, text));
	ws_free(&w);
	buf_free(&frame);
	buf_free(&sent);
}

/* As a compressed message in two frames, with masks of zeroes; then a ping. */
static void
wrap(struct buf *out, struct str bytes, unsigned opcode)
{
	for (unsigned i = 0; i < 2; i++) {
		struct str part = str_sub(bytes, 0, i ? bytes.n : bytes.n / 2);
		unsigned char head[2] = { (unsigned char)(i ? 0x80 : 0x40 | opcode), 0xFF };

		if (part.n <= 0xFFFF)
			head[1] = part.n <= 125 ? (unsigned char)(0x80 | part.n) : 0xFE;
		bytes = str_sub(bytes, part.n, bytes.n);
		buf_put(out, head, 2);
		for (unsigned k = head[1] == 0xFF ? 8 : head[1] == 0xFE ? 2 : 0; k > 0; k--)
			buf_putc(out, (char)((uint64_t)part.n >> 8 * (k - 1)));
		buf_put(out, "\0\0\0\0", 4);
		buf_str(out, part);
	}
	buf_put(out, "\x89\x80....", 6);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = BUF_INIT(1u << 26), cut = BUF_INIT(1u << 26), frames = BUF_INIT(1u << 26);
	struct str bytes = str_make((const char *)data, size);
	struct ws_pool pool = { 0 };
	unsigned bits, choice = size ? data[0] : 0;
	size_t max = choice & 0x40 ? 70000 : 300, piece = size > 1 ? data[1] % 9u + 1 : 1;
	struct ws w;

	bytes = str_sub(bytes, 2, bytes.n);
	bits = ws_deflate_offer(bytes, &whole);
	assert((bits == 0) == (whole.n == 0) && (bits == 0 || (bits >= 9 && bits <= 15)));
	buf_reset(&whole);
	IGNORE(ws_accept(bytes, &whole));       /* mostly no key */
	buf_reset(&whole);

	bits = choice & 0x80 ? 9 + choice % 7 : 0;
	check_put(bytes, bits, &pool);
	if (choice & 0x20) {
		wrap(&frames, bytes, 1 + choice / 8 % 2);
		bytes = buf_view(&frames);
	}
	ws_init(&w, max, bits, &pool);
	read_all(&w, bytes, SIZE_MAX, &whole);
	ws_free(&w);
	ws_init(&w, max, bits, &pool);
	read_all(&w, bytes, piece, &cut);
	ws_free(&w);
	assert(str_eq(buf_view(&whole), buf_view(&cut)));
	assert(pool.inflaters == 0);
	buf_free(&whole);
	buf_free(&cut);
	buf_free(&frames);
	return 0;
}
