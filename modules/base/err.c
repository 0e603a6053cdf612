/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * err.c - error codes in words, and the sentence a failure leaves behind.
 *
 * An enum err tells the program what to do next; a struct fail tells the
 * person. The deepest function that knows the subject (which file, which key,
 * which server) writes the sentence, and because the first one wins, callers
 * on the way up may add their own vaguer sentence without a test.
 *
 * A sentence may quote what came from outside, so it is scrubbed of registered
 * secrets before it is shortened. errno survives fail_set, so a caller can still
 * look at it.
 */
#include "base/base.h"

#include <errno.h>

#define SENTENCE_MAX 4096u      /* bytes before scrubbing and shortening */

const char *
err_str(enum err e)
{
	static const char *const text[ERR_COUNT] = {
		[OK] = "ok",
		[ERR_NOMEM] = "out of memory",
		[ERR_LIMIT] = "limit reached",
		[ERR_IO] = "input/output error",
		[ERR_FULL] = "no space left",
		[ERR_PARSE] = "malformed data",
		[ERR_PROTO] = "protocol violation",
		[ERR_AUTH] = "credential refused",
		[ERR_DENIED] = "not permitted",
		[ERR_NOTFOUND] = "not found",
		[ERR_BUSY] = "busy",
		[ERR_TIMEOUT] = "timed out",
		[ERR_CLOSED] = "connection closed",
		[ERR_CANCELLED] = "cancelled",
		[ERR_UNSUPPORTED] = "not supported",
		[ERR_CONFIG] = "configuration error",
		[ERR_CORRUPT] = "stored data is damaged",
		[ERR_EXISTS] = "already exists"
	};

	return (unsigned)e < ERR_COUNT ? text[e] : "unknown error";
}

enum err
err_errno(int errnum)
{
	/* A table and not a switch: some names share a value on some systems. */
	static const struct {
		int errnum;
		enum err e;
	} map[] = {
		{ ENOMEM, ERR_NOMEM }, { ENOSPC, ERR_FULL }, { EDQUOT, ERR_FULL },
		{ EFBIG, ERR_LIMIT }, { EMFILE, ERR_LIMIT }, { ENFILE, ERR_LIMIT },
		{ ENAMETOOLONG, ERR_LIMIT }, { ELOOP, ERR_LIMIT }, { E2BIG, ERR_LIMIT },
		{ EMLINK, ERR_LIMIT }, { ENOENT, ERR_NOTFOUND }, { ESRCH, ERR_NOTFOUND },
		{ EACCES, ERR_DENIED }, { EPERM, ERR_DENIED }, { EROFS, ERR_DENIED },
		{ EEXIST, ERR_EXISTS }, { EAGAIN, ERR_BUSY }, { EWOULDBLOCK, ERR_BUSY },
		{ EBUSY, ERR_BUSY }, { EADDRINUSE, ERR_BUSY }, { ETXTBSY, ERR_BUSY },
		{ ETIMEDOUT, ERR_TIMEOUT }, { EPIPE, ERR_CLOSED }, { ECONNRESET, ERR_CLOSED },
		{ ECONNABORTED, ERR_CLOSED }, { ENOTCONN, ERR_CLOSED },
		{ ECANCELED, ERR_CANCELLED }, { ENOSYS, ERR_UNSUPPORTED },
		{ EOPNOTSUPP, ERR_UNSUPPORTED }, { ENOTSUP, ERR_UNSUPPORTED }
	};

	for (size_t i = 0; i < ARRAY_LEN(map); i++) {
		if (map[i].errnum == errnum)
			return map[i].e;
	}
	return ERR_IO;
}

enum err
fail_set(struct fail *f, enum err e, const char *fmt, ...)
{
	char text[SENTENCE_MAX];
	int saved = errno;
	struct str s;
	va_list ap;

	if (!f || f->err != OK || e == OK)
		return e;
	f->err = e;
	va_start(ap, fmt);
	s = str_make(text, secret_fmt(text, sizeof(text), fmt, ap));
	va_end(ap);
	s = utf8_prefix(s, sizeof(f->text) - 1);
	memcpy(f->text, s.p, s.n);
	f->text[s.n] = '\0';
	errno = saved;
	return e;
}

void
fail_clear(struct fail *f)
{
	f->err = OK;
	f->text[0] = '\0';
}
