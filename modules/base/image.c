/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * image.c - type and size of PNG, JPEG, GIF and WebP pictures from their first
 * bytes.
 *
 * Nothing is decoded. A model is billed by pixels and refuses types it does not
 * know, so both have to be known before a picture is sent; and what a sender
 * calls it proves nothing. The formats are
 *
 *   PNG   signature, chunk IHDR: 4 bytes width, 4 bytes height, big-endian
 *   JPEG  FF D8, segments "FF type length ..."; the one of a SOF type has
 *         precision, height, width
 *   GIF   "GIF87a" or "GIF89a", the logical screen: width, height, little-endian
 *   WebP  "RIFF" size "WEBP", then one of three kinds of chunk
 *
 * Each reader is given bytes that have its signature and looks at a field only
 * after it has seen that head reaches so far: less is ERR_LIMIT, never a guess.
 */
#include "base/image.h"

static uint32_t
byte_at(struct str s, size_t i)
{
	return (unsigned char)s.p[i];
}

static uint32_t
be16(struct str s, size_t i)
{
	return byte_at(s, i) << 8 | byte_at(s, i + 1);
}

static uint32_t
be32(struct str s, size_t i)
{
	return be16(s, i) << 16 | be16(s, i + 2);
}

static uint32_t
le16(struct str s, size_t i)
{
	return byte_at(s, i + 1) << 8 | byte_at(s, i);
}

static uint32_t
le24(struct str s, size_t i)
{
	return byte_at(s, i + 2) << 16 | le16(s, i);
}

static uint32_t
le32(struct str s, size_t i)
{
	return le16(s, i + 2) << 16 | le16(s, i);
}

static bool
has(struct str s, size_t i, struct str what)
{
	return str_eq(str_sub(s, i, what.n), what);
}

/* ---- the formats --------------------------------------------------------------- */

static enum err
read_png(struct str s, struct image *im)
{
	if (s.n < 24)
		return ERR_LIMIT;
	im->width = be32(s, 16);
	im->height = be32(s, 20);
	/* The specification keeps both below 2^31. */
	return has(s, 8, S("\0\0\0\x0DIHDR")) && !((im->width | im->height) >> 31) ? OK : ERR_PARSE;
}

static enum err
read_gif(struct str s, struct image *im)
{
	if (s.n < 10)
		return ERR_LIMIT;
	im->width = le16(s, 6);
	im->height = le16(s, 8);
	return OK;
}

/* SOF0 to SOF15; three types among them are something else (DHT, JPG, DAC). */
static bool
is_sof(uint32_t type)
{
	return type >= 0xC0 && type <= 0xCF && type != 0xC4 && type != 0xC8 && type != 0xCC;
}

static enum err
read_jpeg(struct str s, struct image *im)
{
	size_t at = 2;

	for (;;) {
		uint32_t type = 0xFF, length;

		if (at < s.n && byte_at(s, at) != 0xFF)
			return ERR_PARSE;
		/* Any number of FF may stand before a type. */
		while (at < s.n && (type = byte_at(s, at)) == 0xFF)
			at++;
		if (at == s.n)
			return ERR_LIMIT;
		at++;
		if (type == 0x01)       /* TEM, the one type here that has no length */
			continue;
		/* Tables and application data come before the size; no second start, no end, no scan. */
		if (type < 0xC0 || (type >= 0xD0 && type <= 0xDA))
			return ERR_PARSE;
		if (s.n - at < 2)
			return ERR_LIMIT;
		length = be16(s, at);   /* counts itself */
		if (length < (is_sof(type) ? 8 : 2))
			return ERR_PARSE;
		if (is_sof(type))
			break;
		if (length > s.n - at)
			return ERR_LIMIT;
		at += length;
	}
	if (s.n - at < 7)
		return ERR_LIMIT;
	im->height = be16(s, at + 3);
	im->width = be16(s, at + 5);
	return OK;
}

static enum err
read_webp(struct str s, struct image *im)
{
	bool lossless = has(s, 12, S("VP8L"));
	uint32_t bits;

	if (s.n < (lossless ? 25 : 30))
		return ERR_LIMIT;
	if (has(s, 12, S("VP8 "))) {
		/* A key frame (bit 0 clear) and its start code; the upper two bits are a scale. */
		if ((byte_at(s, 20) & 1) || !has(s, 23, S("\x9D\x01\x2A")))
			return ERR_PARSE;
		im->width = le16(s, 26) & 0x3FFF;
		im->height = le16(s, 28) & 0x3FFF;
	} else if (lossless) {
		bits = le32(s, 21);
		if (byte_at(s, 20) != 0x2F || bits >> 29)       /* signature, version */
			return ERR_PARSE;
		im->width = (bits & 0x3FFF) + 1;
		im->height = (bits >> 14 & 0x3FFF) + 1;
	} else if (has(s, 12, S("VP8X"))) {
		im->width = le24(s, 24) + 1;
		im->height = le24(s, 27) + 1;
		if ((uint64_t)im->width * im->height > UINT32_MAX)      /* the specification's limit */
			return ERR_PARSE;
	} else {
		return ERR_PARSE;
	}
	return OK;
}

/* ---- the answer ---------------------------------------------------------------- */

static enum image_type
type_of(struct str s)
{
	if (str_starts(s, S("\x89PNG\r\n\x1A\n")))
		return IMAGE_PNG;
	if (str_starts(s, S("\xFF\xD8\xFF")))
		return IMAGE_JPEG;
	if (str_starts(s, S("GIF87a")) || str_starts(s, S("GIF89a")))
		return IMAGE_GIF;
	if (str_starts(s, S("RIFF")) && has(s, 8, S("WEBP")))
		return IMAGE_WEBP;
	return IMAGE_NONE;
}

enum err
image_probe(struct str head, struct image *out)
{
	struct image im = { type_of(head), 0, 0 };
	enum err e = OK;

	switch (im.type) {
	case IMAGE_NONE:
		*out = im;
		return OK;
	case IMAGE_PNG:
		e = read_png(head, &im);
		break;
	case IMAGE_JPEG:
		e = read_jpeg(head, &im);
		break;
	case IMAGE_GIF:
		e = read_gif(head, &im);
		break;
	case IMAGE_WEBP:
		e = read_webp(head, &im);
		break;
	}
	if (e == OK && (im.width == 0 || im.height == 0))
		e = ERR_PARSE;
	if (e == OK)
		*out = im;
	return e;
}

const char *
image_mime(enum image_type type)
{
	switch (type) {
	case IMAGE_PNG:
		return "image/png";
	case IMAGE_JPEG:
		return "image/jpeg";
	case IMAGE_GIF:
		return "image/gif";
	case IMAGE_WEBP:
		return "image/webp";
	case IMAGE_NONE:
		break;
	}
	return "application/octet-stream";
}
