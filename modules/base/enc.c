/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * enc.c - text encodings: hex, base64, percent, and the parts of a URL.
 *
 * Encoders append to a buffer and cannot fail but by the buffer (sticky).
 * Decoders are strict: one byte string has exactly one accepted base64 form,
 * because what is accepted in two forms can be signed in one and used in the
 * other. On failure a decoder takes back what it appended.
 *
 * url_parse accepts less than the world's browsers do, on purpose. The URL
 * goes on to another parser (libcurl), and whatever two parsers may read
 * differently (user info, backslashes, blanks, control bytes, fragments,
 * percent signs in a host) is refused here, so that the host that was checked
 * is the host that is asked.
 *
 * No length below can overflow: input lies in memory, so it is at most half
 * the address space, and no encoding here more than triples it in one step
 * that is counted (enc_url goes byte by byte).
 */
#include "base/base.h"

#include <arpa/inet.h>

#define HOST_MAX 253u           /* the longest name DNS carries */

static const char hex_digits[] = "0123456789abcdef";
static const char base64_std[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ---- hex ------------------------------------------------------------------- */

void
enc_hex(struct buf *out, const void *p, size_t n)
{
	const unsigned char *in = p;

	for (size_t i = 0; i < n; i++) {
		char pair[2] = { hex_digits[in[i] >> 4], hex_digits[in[i] & 15] };

		buf_put(out, pair, 2);
	}
}

int
hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Appends the byte of the two digits at p. */
static bool
put_pair(struct buf *out, const char *p)
{
	int high = hex_digit(p[0]), low = hex_digit(p[1]);

	if (high < 0 || low < 0)
		return false;
	buf_putc(out, (char)(high << 4 | low));
	return true;
}

/* What a decoder returns: on failure out is as long as it was before. */
static enum err
finish(struct buf *out, size_t before, enum err e)
{
	if (e == OK)
		e = out->err;
	if (e != OK)
		buf_cut(out, before);
	return e;
}

enum err
dec_hex(struct str s, struct buf *out)
{
	size_t before = out->n;

	if (s.n % 2 != 0)
		return ERR_PARSE;
	for (size_t i = 0; i < s.n; i += 2)
		if (!put_pair(out, s.p + i))
			return finish(out, before, ERR_PARSE);
	return finish(out, before, OK);
}

/* ---- base64 ----------------------------------------------------------------- */

static void
encode64(struct buf *out, const unsigned char *in, size_t n, const char *alphabet, bool pad)
{
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t bits = (uint32_t)in[i] << 16;
		char quad[4];

		if (left > 1)
			bits |= (uint32_t)in[i + 1] << 8;
		if (left > 2)
			bits |= in[i + 2];
		quad[0] = alphabet[bits >> 18];
		quad[1] = alphabet[bits >> 12 & 63];
		quad[2] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
		quad[3] = left > 2 ? alphabet[bits & 63] : '=';
		buf_put(out, quad, left > 2 || pad ? 4 : left + 1);
	}
}

void
enc_base64(struct buf *out, const void *p, size_t n)
{
	encode64(out, p, n, base64_std, true);
}

void
enc_base64url(struct buf *out, const void *p, size_t n)
{
	encode64(out, p, n, base64_url, false);
}

/* s is without padding. */
static enum err
decode64(struct str s, const char *alphabet, struct buf *out)
{
	size_t before = out->n;
	uint32_t bits = 0;
	unsigned held = 0;              /* how many low bits of bits are not yet written */

	if (s.n % 4 == 1)
		return ERR_PARSE;
	for (size_t i = 0; i < s.n; i++) {
		const char *digit = memchr(alphabet, s.p[i], 64);

		if (!digit)
			return finish(out, before, ERR_PARSE);
		bits = (bits << 6 | (uint32_t)(digit - alphabet)) & 0xFFFF;
		held += 6;
		if (held >= 8) {
			held -= 8;
			buf_putc(out, (char)(bits >> held & 0xFF));
		}
	}
	/* Bits left over must be zero, else two texts would mean the same bytes. */
	return finish(out, before, bits & ((1u << held) - 1) ? ERR_PARSE : OK);
}

enum err
dec_base64(struct str s, struct buf *out)
{
	if (s.n % 4 != 0)
		return ERR_PARSE;
	/* At most two '='; any other stays and is refused as a digit. */
	for (int i = 0; i < 2 && str_ends(s, S("=")); i++)
		s.n--;
	return decode64(s, base64_std, out);
}

enum err
dec_base64url(struct str s, struct buf *out)
{
	return decode64(s, base64_url, out);
}

/* ---- percent encoding --------------------------------------------------------- */

static bool
is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

void
enc_url(struct buf *out, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		unsigned char u = (unsigned char)c;
		char escape[3] = { '%', "0123456789ABCDEF"[u >> 4], "0123456789ABCDEF"[u & 15] };

		if (is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~')
			buf_putc(out, c);
		else
			buf_put(out, escape, 3);
	}
}

enum err
dec_url(struct str s, struct buf *out)
{
	size_t before = out->n;
	struct str plain;

	while (str_cut(&s, '%', &plain)) {
		buf_str(out, plain);
		if (s.n < 2 || !put_pair(out, s.p))
			return finish(out, before, ERR_PARSE);
		s = str_sub(s, 2, s.n);
	}
	buf_str(out, plain);
	return finish(out, before, OK);
}

/* ---- URLs ----------------------------------------------------------------------- */

/* A literal address of the family: fills addr (4 or 16 bytes) when host is one. */
static bool
literal(int family, struct str host, unsigned char addr[16])
{
	char z[INET6_ADDRSTRLEN];

	if (host.n >= sizeof(z) || str_chr(host, '\0') != SIZE_MAX)
		return false;
	if (host.n)
		memcpy(z, host.p, host.n);
	z[host.n] = '\0';
	return inet_pton(family, z, addr) == 1;
}

static bool
is_name(struct str host)
{
	if (host.n == 0 || host.n > HOST_MAX || !is_alnum(host.p[0]))
		return false;
	for (size_t i = 0; i < host.n; i++) {
		char c = host.p[i];

		if (!is_alnum(c) && c != '-' && c != '.' && c != '_')
			return false;
		if (c == '.' && host.p[i - 1] == '.')
			return false;
	}
	return true;
}

/* authority is "host", "host:port", "[v6]" or "[v6]:port"; fills host and port. */
static enum err
parse_authority(struct str authority, struct url *u)
{
	unsigned char addr[16];
	struct str port = authority;
	bool has_port;
	int64_t number;

	if (str_starts(authority, S("["))) {
		size_t close = str_chr(authority, ']');

		if (close == SIZE_MAX)
			return ERR_PARSE;
		u->host = str_sub(authority, 1, close - 1);
		has_port = close + 1 < authority.n;
		if (!literal(AF_INET6, u->host, addr) || (has_port && authority.p[close + 1] != ':'))
			return ERR_PARSE;
		port = str_sub(authority, close + 2, authority.n);
	} else {
		has_port = str_cut(&port, ':', &u->host);
		if (!is_name(u->host))
			return ERR_PARSE;
	}
	if (!has_port)
		return OK;
	if (port.n > 5 || str_i64(port, 1, 65535, &number) != OK)
		return ERR_PARSE;
	u->port = (unsigned)number;
	return OK;
}

enum err
url_parse(struct str s, struct url *out)
{
	struct url u = { false, STR_NONE, 0, STR_NONE };
	size_t skip, end;
	enum err e;

	u.tls = str_ieq(str_sub(s, 0, 8), S("https://"));
	if (!u.tls && !str_ieq(str_sub(s, 0, 7), S("http://")))
		return ERR_PARSE;
	u.port = u.tls ? 443 : 80;
	skip = u.tls ? 8 : 7;
	s = str_sub(s, skip, s.n);
	end = str_chr(s, '/');
	u.path = end == SIZE_MAX ? str_sub(s, s.n, 0) : str_sub(s, end, s.n);
	for (size_t i = 0; i < u.path.n; i++) {
		char c = u.path.p[i];

		/* Blanks and control bytes end a request line; the others split parsers. */
		if (c <= ' ' || c > '~' || c == '#' || c == '\\')
			return ERR_PARSE;
	}
	e = parse_authority(str_sub(s, 0, s.n - u.path.n), &u);
	if (e != OK)
		return e;
	*out = u;
	return OK;
}

bool
url_is_loopback(const struct url *u)
{
	static const unsigned char loopback6[16] = { [15] = 1 };
	unsigned char addr[16];

	if (str_ieq(u->host, S("localhost")))
		return true;
	if (literal(AF_INET, u->host, addr))
		return addr[0] == 127;
	return literal(AF_INET6, u->host, addr) && memcmp(addr, loopback6, 16) == 0;
}
