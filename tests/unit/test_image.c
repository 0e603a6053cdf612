/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_image.c - pictures by their first bytes: known sizes, every length of
 * head, every byte changed, and what is damaged.
 */
#include "test.h"

#include "base/image.h"

#define P(text) { "" text, sizeof(text) - 1 }

/* need: the answer is known from so many bytes on. */
static const struct picture {
	struct str bytes;
	enum image_type type;
	uint32_t width, height;
	size_t need;
} pictures[] = {
	/* a whole PNG of one pixel, and the head of a large one */
	{ P("\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1F\x15\xC4\x89"
	    "\0\0\0\x0DIDAT\x78\xDA\x63\x64\xF8\xCF\x50\x0F\0\x03\x86\x01\x80\x5A\x34\x7D\x6B"
	    "\0\0\0\0IEND\xAE\x42\x60\x82"), IMAGE_PNG, 1, 1, 24 },
	{ P("\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\x7F\xFF\xFF\xFF\0\x01\x02\x03\x08\x06\0\0\0"),
	    IMAGE_PNG, 0x7FFFFFFF, 0x010203, 24 },
	/* a whole GIF of one pixel, and an older head */
	{ P("GIF89a\x01\0\x01\0\x80\0\0\xFF\xFF\xFF\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;"),
	    IMAGE_GIF, 1, 1, 10 },
	{ P("GIF87a\x34\x12\x78\x56\0\0\0"), IMAGE_GIF, 0x1234, 0x5678, 10 },
	/* JFIF, a table, a baseline frame of 640 by 480 */
	{ P("\xFF\xD8\xFF\xE0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xFF\xDB\0\x04\0\x10"
	    "\xFF\xC0\0\x11\x08\x01\xE0\x02\x80\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xFF\xDA"),
	    IMAGE_JPEG, 640, 480, 35 },
	/* fill bytes, TEM, a comment with something like a frame in it, a Huffman table, arithmetic
	 * conditioning; then a progressive frame */
	{ P("\xFF\xD8\xFF\xFF\xFF\xFE\0\x0B\xFF\xC0\0\x0B\x08\0\x09\0\x09\xFF\x01\xFF\xC4\0\x03\0"
	    "\xFF\xCC\0\x02\xFF\xFF\xC2\0\x0B\x08\xFF\xFF\0\x01\x01\x01\x11\0"),
	    IMAGE_JPEG, 1, 65535, 38 },
	/* whole WebP files of one pixel, lossy and lossless; heads of larger ones */
	{ P("RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x30\x01\0\x9D\x01\x2A\x01\0\x01\0\x0E\xC0\xFE\x25\xA4\0"
	    "\x03\x70\0\0\0\0"), IMAGE_WEBP, 1, 1, 30 },
	{ P("RIFF\x1A\0\0\0WEBPVP8L\x0D\0\0\0\x2F\0\0\0\x10\x07\x10\x11\x11\x88\x88\xFE\x07\0"),
	    IMAGE_WEBP, 1, 1, 25 },
	{ P("RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x30\x01\0\x9D\x01\x2A\x80\x42\xE0\x81"), IMAGE_WEBP, 640, 480,
	    30 },
	{ P("RIFF\x1A\0\0\0WEBPVP8L\x0D\0\0\0\x2F\x7F\xC2\x77\x10"), IMAGE_WEBP, 640, 480, 25 },
	{ P("RIFF\x1A\0\0\0WEBPVP8X\x0A\0\0\0\x10\0\0\0\x7F\x02\0\xDF\x01\0"), IMAGE_WEBP, 640, 480, 30 },
};

/* Looks at a copy of exactly that size, so that a checker sees one byte more being read. */
static enum err
probe(struct str s, struct image *im)
{
	char *p = malloc(s.n + !s.n);
	enum err e = ERR_NOMEM;

	if (p) {
		if (s.n)
			memcpy(p, s.p, s.n);
		e = image_probe(str_make(p, s.n), im);
	}
	free(p);
	return e;
}

TEST(known)
{
	for (size_t i = 0; i < ARRAY_LEN(pictures) && !FAULTED(); i++) {
		const struct picture *p = &pictures[i];
		struct image im = { IMAGE_NONE, 7, 7 };

		CHECK_OK(probe(p->bytes, &im));
		if (im.type != p->type || im.width != p->width || im.height != p->height)
			printf("  picture %zu: type %d, %u x %u\n", i, (int)im.type, im.width, im.height);
		CHECK(im.type == p->type && im.width == p->width && im.height == p->height);
	}
}

/* Cut anywhere: nothing is known, then that it is one, then all. */
TEST(cut)
{
	static const size_t signature[] = { 0, 8, 3, 6, 12 };

	for (size_t i = 0; i < ARRAY_LEN(pictures) && !FAULTED(); i++) {
		const struct picture *p = &pictures[i];

		for (size_t n = 0; n <= p->bytes.n && !FAULTED(); n++) {
			struct image im = { IMAGE_GIF, 7, 7 };
			enum err e = probe(str_sub(p->bytes, 0, n), &im);

			if (FAULTED())
				continue;
			CHECK(e == (n >= signature[p->type] && n < p->need ? ERR_LIMIT : OK));
			if (n < signature[p->type])
				CHECK(im.type == IMAGE_NONE && im.width == 0 && im.height == 0);
			else if (n < p->need)   /* untouched */
				CHECK(im.type == IMAGE_GIF && im.width == 7 && im.height == 7);
			else
				CHECK(im.type == p->type && im.width == p->width && im.height == p->height);
		}
	}
}

/* Every bit of every byte: any answer, but one that makes sense, and no byte beyond the end. */
TEST(flipped)
{
	char *copy = malloc(128);

	CHECK(copy != NULL);
	for (size_t i = 0; i < ARRAY_LEN(pictures) && copy; i++) {
		struct str s = pictures[i].bytes;
		char *at = copy + 128 - s.n;    /* its end is the end of the block */

		CHECK(s.n <= 128);
		memcpy(at, s.p, s.n);
		for (size_t bit = 0; bit < 8 * s.n; bit++) {
			struct image im = { IMAGE_NONE, 7, 7 };
			enum err e;

			at[bit / 8] = (char)(at[bit / 8] ^ 1 << bit % 8);
			e = image_probe(str_make(at, s.n), &im);
			CHECK(e == OK || e == ERR_PARSE || e == ERR_LIMIT);
			CHECK(e != OK || (im.type == IMAGE_NONE) == (im.width == 0 || im.height == 0));
			at[bit / 8] = (char)(at[bit / 8] ^ 1 << bit % 8);
		}
	}
	free(copy);
}

TEST(damaged)
{
	static const struct str bad[] = {
		P("\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\0\0\0\0\0\0\0\x01"),
		P("\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\0\0\0\x01\0\0\0\0"),
		P("\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\x80\0\0\x01\0\0\0\x01"),
		P("\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\0\0\0\x01\x80\0\0\x01"),
		P("\x89PNG\r\n\x1A\n\0\0\0\x0CIHDR\0\0\0\x01\0\0\0\x01"),
		P("\x89PNG\r\n\x1A\n\0\0\0\x0DIDAT\0\0\0\x01\0\0\0\x01"),
		P("GIF89a\0\0\x01\0"),
		P("GIF89a\x01\0\0\0"),
		P("\xFF\xD8\xFF\xD9"),                                  /* ends before it began */
		P("\xFF\xD8\xFF\xD8"),
		P("\xFF\xD8\xFF\xDA\0\x08\x01\x01\0\0\x3F\0"),          /* a scan of no frame */
		P("\xFF\xD8\xFF\0"),
		P("\xFF\xD8\xFF\x02\0\x02"),                            /* a reserved type */
		P("\xFF\xD8\xFF\xD0\0\x02"),
		P("\xFF\xD8\xFF\xE0\0\x01"),                            /* shorter than its own length */
		P("\xFF\xD8\xFF\xE0\0\x03zz"),                          /* no FF where a segment begins */
		P("\xFF\xD8\xFF\xC0\0\x07\x08\0\x01\0\x01\x01"),
		P("\xFF\xD8\xFF\xC0\0\x0B\x08\0\0\0\x01\x01\x01\x11\0"),
		P("\xFF\xD8\xFF\xC0\0\x0B\x08\0\x01\0\0\x01\x01\x11\0"),
		P("RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x31\x01\0\x9D\x01\x2A\x01\0\x01\0"),   /* no key frame */
		P("RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x30\x01\0\x9D\x01\x2B\x01\0\x01\0"),
		P("RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x30\x01\0\x9D\x01\x2A\0\xC0\x01\0"),   /* 0 pixels, scaled */
		P("RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x30\x01\0\x9D\x01\x2A\x01\0\0\xC0"),
		P("RIFF\x1A\0\0\0WEBPVP8L\x0D\0\0\0\x2E\x7F\xC2\x77\x10"),
		P("RIFF\x1A\0\0\0WEBPVP8L\x0D\0\0\0\x2F\x7F\xC2\x77\x30"),               /* version 1 */
		P("RIFF\x1A\0\0\0WEBPVP8X\x0A\0\0\0\x10\0\0\0\xFF\xFF\0\xFF\xFF\0"),     /* 2^32 pixels */
		P("RIFF\x1A\0\0\0WEBPVP8Z\x0A\0\0\0\x10\0\0\0\x7F\x02\0\xDF\x01\0"),
	};

	for (size_t i = 0; i < ARRAY_LEN(bad) && !FAULTED(); i++) {
		struct image im = { IMAGE_GIF, 7, 7 };
		enum err e = probe(bad[i], &im);

		if (e != ERR_PARSE && !FAULTED())
			printf("  picture %zu: %s\n", i, err_str(e));
		CHECK_ERR(e, ERR_PARSE);
		CHECK(im.type == IMAGE_GIF && im.width == 7 && im.height == 7);
	}
}

/* The largest canvas that the specification allows is one. */
TEST(largest)
{
	struct image im = { IMAGE_NONE, 0, 0 };

	CHECK_OK(image_probe(S("RIFF\x1A\0\0\0WEBPVP8X\x0A\0\0\0\x10\0\0\0\xFF\xFF\0\xFE\xFF\0"), &im));
	CHECK(im.width == 65536 && im.height == 65535);
}

TEST(none)
{
	static const struct str others[] = {
		P(""), P("text"), P("%PDF-1.7\n"), P("BM\x36\0\0\0\0\0\0\0\x36\0\0\0"), P("GIF88a\x01\0\x01\0"),
		P("\x89PNG\n\x1A\n\0\0\0\0\x0DIHDR\0\0\0\x01\0\0\0\x01"), P("RIFF\x24\0\0\0WAVEfmt \x10\0\0\0"),
		P("\xFF\xD9\xFF\xE0\0\x10JFIF"), P("II*\0\x08\0\0\0"), P("<svg xmlns=''/>"),
	};

	for (size_t i = 0; i < ARRAY_LEN(others) && !FAULTED(); i++) {
		struct image im = { IMAGE_GIF, 7, 7 };

		CHECK_OK(probe(others[i], &im));
		CHECK(im.type == IMAGE_NONE && im.width == 0 && im.height == 0);
	}
}

/* A preview of the size that cameras make stands before the frame: it fits into IMAGE_HEAD_MAX. */
TEST(long_head)
{
	struct buf b = BUF_INIT(1 << 20);
	struct image im = { IMAGE_NONE, 0, 0 };

	buf_str(&b, S("\xFF\xD8"));
	for (int i = 0; i < 3; i++) {
		buf_str(&b, S("\xFF\xE1\xFF\xFF"));
		for (int k = 0; k < 0xFFFF - 2; k++)
			buf_putc(&b, '\xFF');
	}
	buf_str(&b, S("\xFF\xC1\0\x0B\x08\x12\x34\x56\x78\x01\x01\x11\0"));
	CHECK_OK(b.err);
	if (b.err == OK) {
		CHECK(b.n < IMAGE_HEAD_MAX);
		CHECK_OK(image_probe(buf_view(&b), &im));
		CHECK(im.type == IMAGE_JPEG && im.width == 0x5678 && im.height == 0x1234);
		CHECK_ERR(image_probe(str_sub(buf_view(&b), 0, 100000), &im), ERR_LIMIT);
	}
	buf_free(&b);
}

TEST(mime)
{
	CHECK_STR(str_z(image_mime(IMAGE_PNG)), "image/png");
	CHECK_STR(str_z(image_mime(IMAGE_JPEG)), "image/jpeg");
	CHECK_STR(str_z(image_mime(IMAGE_GIF)), "image/gif");
	CHECK_STR(str_z(image_mime(IMAGE_WEBP)), "image/webp");
	CHECK_STR(str_z(image_mime(IMAGE_NONE)), "application/octet-stream");
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(known);
	RUN(cut);
	RUN(flipped);
	RUN(damaged);
	RUN(largest);
	RUN(none);
	RUN(long_head);
	RUN(mime);
	return TEST_END();
}
