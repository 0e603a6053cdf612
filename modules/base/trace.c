/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * trace.c - traceparent (W3C Trace Context): the name under which one piece of work
 * is known to all who take part in it.
 *
 *   00-<32 digits: of the trace>-<16 digits: of who asks>-<2 digits: flags>
 *
 * All digits are lower-case hex, neither id is all zero. Of a version that is not
 * known only this much is read, and what follows it has to begin with a dash; ff is
 * no version. Flags are passed on, not acted upon: nothing is sampled here.
 */
#include "base/base.h"

#define SPAN 16u                /* digits of who asks */
#define VERSION_00 55u          /* length of the whole */
#define FLAGS_KNOWN 0x03u       /* sampled, random; others may mean what we do not do */

/* The next n digits of *s and the dash behind them, if one is wanted; false: not so. */
static bool
take(struct str *s, size_t n, bool dash, struct str *digits)
{
	bool zero = true;

	*digits = str_sub(*s, 0, n);
	for (size_t i = 0; i < digits->n; i++) {
		if (hex_digit(digits->p[i]) < 0 || (digits->p[i] >= 'A' && digits->p[i] <= 'F'))
			return false;
		zero = zero && digits->p[i] == '0';
	}
	if (digits->n != n || (zero && n > 2) || (dash && (s->n == n || s->p[n] != '-')))
		return false;
	*s = str_sub(*s, n + dash, s->n);
	return true;
}

enum err
trace_parse(struct str header, struct trace *out)
{
	struct str rest = header, version, id, span, flags;

	if (!take(&rest, 2, true, &version) || str_eqz(version, "ff") || !take(&rest, sizeof(out->id) - 1, true, &id) ||
	    !take(&rest, SPAN, true, &span) || !take(&rest, 2, false, &flags) ||
	    (rest.n && (str_eqz(version, "00") || rest.p[0] != '-')))
		return ERR_PARSE;
	snprintf(out->id, sizeof(out->id), "%.*s", STR_ARG(id));
	out->flags = (unsigned)(hex_digit(flags.p[0]) << 4 | hex_digit(flags.p[1])) & FLAGS_KNOWN;
	return OK;
}

/* So many digits of chance; an id is never all zero. */
static enum err
digits(char *out, size_t size)
{
	unsigned char bytes[SPAN] = { 0 };
	struct buf hex = BUF_INIT(2 * sizeof(bytes));
	enum err e = rand_bytes(bytes, size / 2);

	bytes[0] |= 1;
	enc_hex(&hex, bytes, size / 2);
	e = e != OK ? e : hex.err;
	snprintf(out, size, "%s", buf_z(&hex));
	buf_free(&hex);
	return e;
}

enum err
trace_new(struct trace *out)
{
	out->flags = 0;
	return digits(out->id, sizeof(out->id));
}

enum err
trace_header(const struct trace *t, char out[TRACE_HEADER_SIZE])
{
	char span[SPAN + 1];
	enum err e = digits(span, sizeof(span));

	snprintf(out, TRACE_HEADER_SIZE, "00-%s-%s-%02x", t->id, span, t->flags & FLAGS_KNOWN);
	return e;
}
