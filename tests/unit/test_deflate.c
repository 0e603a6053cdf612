/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_deflate.c - compression, read back by zlib itself. What WebSocket makes of raw
 * streams is in test_ws.c.
 */
#include "base/deflate.h"
#include "test.h"

#include <zlib.h>

/* Text that compresses; with chance in it that does not. */
static void
fill(struct buf *b, size_t n, bool chance)
{
	for (uint32_t i = 1; b->n < n && b->err == OK; i = i * 1664525u + 1013904223u)
		buf_putc(b, chance ? (char)(i >> 24) : "lorem ipsum "[(i >> 24) % 12]);
}

static void
check_gzip(size_t n)
{
	struct buf in = BUF_INIT(n), out = BUF_INIT(n), back = BUF_INIT(n + 1);
	char *room;
	size_t made;

	fill(&in, n, false);
	room = buf_room(&out, n);
	made = room && in.err == OK ? deflate_gzip(buf_view(&in), room) : 0;
	CHECK((made > 0 && made < n) || FAULTED());
	if (made && buf_room(&back, n)) {
		z_stream z = { .next_in = (unsigned char *)room, .avail_in = (uInt)made, .next_out = (unsigned char *)back.p,
		    .avail_out = (uInt)n };

		if (inflateInit2(&z, 15 + 16) == Z_OK) {        /* a head and a checksum, or it is none */
			CHECK(inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == n && z.avail_in == 0);
			CHECK(memcmp(back.p, in.p, n) == 0);
			inflateEnd(&z);
		}
	}
	buf_free(&in);
	buf_free(&out);
	buf_free(&back);
}

TEST(gzip)
{
	for (size_t n = 200; n < 300000; n = n * 3 + 1)
		check_gzip(n);
}

/* Where nothing is gained, nothing is written, and never beyond the room. */
TEST(not_shorter)
{
	struct buf in = BUF_INIT(5000);
	char out[5000];

	fill(&in, 5000, true);
	CHECK(in.err != OK || deflate_gzip(buf_view(&in), out) == 0);
	CHECK(deflate_gzip(S("short"), out) == 0 && deflate_gzip(STR_NONE, out) == 0 && deflate_raw(S("ab"), out, 15) == 0);
	buf_free(&in);
}

TEST(pieces)
{
	struct buf in = BUF_INIT(20000), raw = BUF_INIT(20000), back = BUF_INIT(40000);
	struct inflater *f = NULL;
	struct str rest;
	size_t made, n;
	enum err e = OK;

	fill(&in, 20000, false);
	made = in.err == OK && buf_room(&raw, in.n) ? deflate_raw(buf_view(&in), raw.p, DEFLATE_BITS_MAX) : 0;
	CHECK(made > 0 || FAULTED());
	CHECK_OK(inflater_new(&f));
	for (size_t at = 0; f && at < made && e == OK; at += 7)
		for (rest = str_sub(str_make(raw.p, made), at, 7), n = 3; e == OK && (rest.n || n == 3);) {
			char out[3];

			n = sizeof(out);
			e = inflater_step(f, &rest, out, &n);
			buf_put(&back, out, n);
		}
	CHECK_OK(e);
	if (f && made && e == OK) {
		rest = S(DEFLATE_TAIL);
		n = sizeof((char[64]){ 0 });
		CHECK_OK(inflater_step(f, &rest, (char[64]){ 0 }, &n));
		CHECK(inflater_between(f) && !inflater_ended(f));
		CHECK(back.err != OK || str_eq(buf_view(&back), buf_view(&in)));
		rest = S("\xff\xff\xff\xff");
		n = 8;
		CHECK(inflater_step(f, &rest, (char[8]){ 0 }, &n) == ERR_PARSE || FAULTED());
	}
	inflater_free(f);
	inflater_free(NULL);
	buf_free(&in);
	buf_free(&raw);
	buf_free(&back);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(gzip);
	RUN(not_shorter);
	RUN(pieces);
	return TEST_END();
}
