/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_body.c - bodies of text and files: the same bytes for every size of the
 * reader's buffer, the promised length, and files that change or go away.
 */
#include "test.h"

#include "base/body.h"
#include "base/json.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 2046u             /* of body.c: lengths around it are where mistakes would be */
#define SMALL 65536u
#define PATHS 3

struct files {
	char dir[64], path[PATHS][80];
};

static bool
files_begin(struct files *d)
{
	snprintf(d->dir, sizeof(d->dir), "/tmp/blufio-body-XXXXXX");
	if (!mkdtemp(d->dir)) {
		CHECK(false);
		return false;
	}
	for (int i = 0; i < PATHS; i++)
		snprintf(d->path[i], sizeof(d->path[i]), "%s/%d", d->dir, i);
	return true;
}

static void
files_end(const struct files *d)
{
	for (int i = 0; i < PATHS; i++)
		(void)remove(d->path[i]);       /* not all of them exist every time */
	CHECK(rmdir(d->dir) == 0);
}

/* flags: O_TRUNC to write it anew, O_APPEND to let it grow. */
static bool
put_file(const char *path, int flags, struct str bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
	bool good = fd >= 0 && fd_write_all(fd, bytes.p, bytes.n) == OK;

	if (fd >= 0)
		close(fd);
	CHECK(good);
	return good;
}

/* Bytes of every kind that matters: for JSON quotes, controls, characters of 1 to 4 bytes. */
static void
fill(struct buf *out, size_t n, bool text)
{
	static const char *const parts[] = { "a", "\"", "\\", "\xC3\xA9", "\n", "\x01", "\xE2\x82\xAC", "\x7F",
	    "\xF0\x9F\x98\x80", "/", "z" };

	for (size_t i = 0; text && out->n < n && out->err == OK; i++) {
		const char *part = parts[i % ARRAY_LEN(parts)];

		buf_puts(out, strlen(part) <= n - out->n ? part : "x");
	}
	for (size_t i = 0; !text && i < n; i++)
		buf_putc(out, (char)(i * 131 + (i >> 8)));
}

static void
encode(struct buf *out, struct str s, enum body_encoding enc)
{
	struct buf quoted = BUF_INIT(SMALL);

	switch (enc) {
	case BODY_RAW:
		buf_str(out, s);
		break;
	case BODY_BASE64:
		enc_base64(out, s.p, s.n);
		break;
	case BODY_JSON:
		json_quote(&quoted, s);
		buf_str(out, str_sub(buf_view(&quoted), 1, quoted.n - 2));
		if (out->err == OK)
			out->err = quoted.err;
		break;
	}
	buf_free(&quoted);
}

/* Reads what is left with a buffer of n bytes; the first failure. */
static enum err
read_all(struct body *b, size_t n, struct buf *out)
{
	char *p = malloc(n);            /* of exactly that size: a checker sees one byte more */
	size_t got = 1;
	enum err e = p ? OK : ERR_NOMEM;

	while (e == OK && got > 0) {
		e = body_read(b, p, n, &got);
		if (e == OK) {
			CHECK(got <= n);
			buf_put(out, p, got);
			e = out->err;
		}
	}
	free(p);
	return e;
}

/* All of it, with every size of buffer, is want; and is as long as was promised. */
static void
check_body(struct body *b, struct str want, bool quick)
{
	static const size_t sizes[] = { 4096, 1, 2, 3, 7 };

	CHECK(body_size(b) == want.n);
	for (size_t i = 0; i < (quick ? 1 : ARRAY_LEN(sizes)) && !FAULTED(); i++) {
		struct buf got = BUF_INIT(SMALL);
		size_t more = 7;
		char c;

		CHECK_OK(read_all(b, sizes[i], &got));
		CHECK(str_eq(buf_view(&got), want));
		CHECK(got.n == body_size(b) && b->fd < 0);
		CHECK_OK(body_read(b, &c, 1, &more));
		CHECK(more == 0);
		body_rewind(b);
		buf_free(&got);
	}
}

/* {"a":"<file>"} of that length in that encoding. */
static void
check_one(const char *path, size_t n, enum body_encoding enc, bool quick)
{
	struct buf bytes = BUF_INIT(SMALL), want = BUF_INIT(SMALL);
	struct body b;

	body_init(&b, SMALL);
	fill(&bytes, n, enc == BODY_JSON);
	if (put_file(path, O_TRUNC, buf_view(&bytes))) {
		buf_puts(&b.text, "{\"a\":\"\"}");
		body_insert(&b, 2, path, enc);
		buf_puts(&want, "{\"a\":\"");
		encode(&want, buf_view(&bytes), enc);
		buf_puts(&want, "\"}");
		CHECK(b.text.err == OK && want.err == OK && bytes.err == OK);
		if (b.text.err == OK && want.err == OK)
			check_body(&b, buf_view(&want), quick);
	}
	body_free(&b);
	buf_free(&want);
	buf_free(&bytes);
}

/* Empty, short, and around the ends of one and two blocks. */
TEST(one_file)
{
	static const size_t lengths[] = { 0, 1, 2, 3, 4, 5, 100, BLOCK, 2 * BLOCK };
	struct files d;

	if (!files_begin(&d))
		return;
	for (enum body_encoding enc = BODY_RAW; enc <= BODY_JSON; enc++) {
		for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
			check_one(d.path[0], lengths[i], enc, false);
		/* Wherever the end of a block falls in a character. */
		for (size_t n = BLOCK - 4; n < BLOCK + 5 && !FAULTED(); n++)
			check_one(d.path[0], n, enc, true);
	}
	files_end(&d);
}

/* What stands at a place of a body: one of two files in an encoding, nothing, or a text. */
#define NOTHING 6
#define TEXT 7
#define KINDS 8

static void
check_mixture(const struct files *d, const struct str contents[2], const unsigned kinds[3])
{
	struct buf want = BUF_INIT(SMALL);
	struct body b;

	body_init(&b, SMALL);
	for (int place = 0; place < 3; place++) {
		unsigned kind = kinds[place], file = kind / 3;

		if (kind == TEXT) {
			buf_puts(&b.text, "text,");
			buf_puts(&want, "text,");
		} else if (kind != NOTHING) {
			body_insert(&b, 0, d->path[file], (enum body_encoding)(kind % 3));
			encode(&want, contents[file], (enum body_encoding)(kind % 3));
		}
	}
	CHECK(b.text.err == OK && want.err == OK);
	if (b.text.err == OK && want.err == OK)
		check_body(&b, buf_view(&want), false);
	body_free(&b);
	buf_free(&want);
}

TEST(mixtures)
{
	const struct str contents[2] = { S("caf\xC3\xA9 \"1\""), STR_NONE };
	struct files d;

	if (!files_begin(&d))
		return;
	if (put_file(d.path[0], O_TRUNC, contents[0]) && put_file(d.path[1], O_TRUNC, contents[1]))
		for (unsigned i = 0; i < KINDS * KINDS * 2 && !FAULTED(); i++)
			check_mixture(&d, contents,
			    (unsigned[]){ i / 2 % KINDS, i % 2 ? TEXT : NOTHING, i / 2 / KINDS });
	files_end(&d);
}

/* A JSON writer above, files that it knows nothing of: the whole is one document. */
TEST(json_writer)
{
	struct buf got = BUF_INIT(SMALL);
	struct arena ar = ARENA_INIT(SMALL);
	const struct json *j = NULL;
	struct files d;
	struct body b;
	struct jw w;

	if (!files_begin(&d))
		return;
	body_init(&b, SMALL);
	jw_init(&w, &b.text);
	if (put_file(d.path[0], O_TRUNC, S("\0\xFFy")) && put_file(d.path[1], O_TRUNC, S("a \"b\"\n"))) {
		jw_obj(&w);
		jw_kstr(&w, "data", S(""));
		body_insert(&b, 1, d.path[0], BODY_BASE64);
		jw_kstr(&w, "text", S("<>"));
		body_insert(&b, 2, d.path[1], BODY_JSON);
		jw_end_obj(&w);
		CHECK_OK(read_all(&b, 5, &got));
		if (!FAULTED()) {
			CHECK_OK(json_parse(&ar, buf_view(&got), &j, NULL));
			CHECK_STR(json_str(j, "data", STR_NONE), "AP95");
			CHECK_STR(json_str(j, "text", STR_NONE), "<a \"b\"\n>");
		}
	}
	body_free(&b);
	arena_free(&ar);
	buf_free(&got);
	files_end(&d);
}

/* ---- what goes wrong ------------------------------------------------------------- */

TEST(insert_refused)
{
	struct files d;
	struct body b;
	size_t got = 7;
	char c;

	if (!files_begin(&d))
		return;
	body_init(&b, SMALL);
	buf_puts(&b.text, "x");
	body_insert(&b, 0, d.path[0], BODY_RAW);
	CHECK_ERR(b.text.err, ERR_NOTFOUND);
	CHECK_ERR(body_read(&b, &c, 1, &got), ERR_NOTFOUND);
	CHECK(got == 7);                /* untouched */
	body_free(&b);
	body_insert(&b, 0, d.dir, BODY_RAW);
	CHECK_ERR(b.text.err, ERR_UNSUPPORTED);
	body_free(&b);
	if (mkfifo(d.path[0], 0600) == 0) {
		body_insert(&b, 0, d.path[0], BODY_JSON);
		CHECK_ERR(b.text.err, ERR_UNSUPPORTED);
	}
	body_free(&b);
	files_end(&d);
}

/* Ill-formed at the front, in the middle, at the end of a block and cut off at the end. */
TEST(not_utf8)
{
	static const size_t places[] = { 0, 100, BLOCK - 3, BLOCK - 1, BLOCK, BLOCK + 50 };
	struct files d;
	struct buf bytes = BUF_INIT(SMALL);

	if (!files_begin(&d))
		return;
	for (size_t i = 0; i < 2 * ARRAY_LEN(places) && !FAULTED(); i++) {
		struct body b;

		body_init(&b, SMALL);
		buf_reset(&bytes);
		fill(&bytes, places[i / 2], true);
		buf_puts(&bytes, i % 2 ? "\xF0\x9F\x98" : "\xFFzzzzzz");
		if (put_file(d.path[0], O_TRUNC, buf_view(&bytes))) {
			body_insert(&b, 0, d.path[0], BODY_JSON);
			CHECK_ERR(b.text.err, ERR_PARSE);
		}
		body_free(&b);
	}
	buf_free(&bytes);
	files_end(&d);
}

TEST(limits)
{
	struct files d;
	struct body b;

	if (!files_begin(&d))
		return;
	body_init(&b, SMALL);
	if (put_file(d.path[0], O_TRUNC, S("ab")) && put_file(d.path[1], O_TRUNC, S(""))) {
		for (int i = 0; i < BODY_FILES_MAX && b.text.err == OK; i++)
			body_insert(&b, 0, d.path[0], BODY_BASE64);
		CHECK_OK(b.text.err);
		CHECK(body_size(&b) == 4 * BODY_FILES_MAX);
		body_insert(&b, 0, d.path[0], BODY_BASE64);
		CHECK_ERR(b.text.err, ERR_LIMIT);
		body_free(&b);
		/* Sparse: it takes no room. */
		if (truncate(d.path[1], (off_t)(BODY_FILE_MAX + 1)) == 0) {
			body_insert(&b, 0, d.path[1], BODY_RAW);
			CHECK_ERR(b.text.err, ERR_LIMIT);
		}
	}
	body_free(&b);
	files_end(&d);
}

/* Reads some bytes of a body of one file of 3 blocks, has it changed, reads on, and tries again. */
enum change { GROWN, SHRUNK, GONE, SAME_SIZE };

static void
check_change(const struct files *d, enum body_encoding enc, enum change change, size_t before)
{
	struct buf bytes = BUF_INIT(SMALL), got = BUF_INIT(SMALL);
	char *p = malloc(SMALL);
	size_t n = 0, more = 7;
	struct body b;
	enum err e, want = ERR_IO;

	body_init(&b, SMALL);
	fill(&bytes, 3 * BLOCK, true);
	if (!p || !put_file(d->path[0], O_TRUNC, buf_view(&bytes)))
		goto out;
	body_insert(&b, 0, d->path[0], enc);
	buf_puts(&b.text, "tail");
	CHECK_OK(body_read(&b, p, before, &n));
	CHECK(n == before);
	switch (change) {
	case GROWN:
		put_file(d->path[0], O_APPEND, buf_view(&bytes));
		break;
	case SHRUNK:
		CHECK(truncate(d->path[0], 3 * BLOCK - 1) == 0);
		break;
	case GONE:
		CHECK(remove(d->path[0]) == 0);
		want = before ? OK : ERR_NOTFOUND;      /* an open file stays readable */
		break;
	case SAME_SIZE:
		buf_reset(&bytes);
		for (size_t i = 0; i < 3 * BLOCK; i++)
			buf_putc(&bytes, 'x');
		put_file(d->path[0], O_TRUNC, buf_view(&bytes));
		want = enc == BODY_JSON ? ERR_IO : OK;
		break;
	}
	e = read_all(&b, 1000, &got);
	if (!FAULTED())
		CHECK_ERR(e, want);
	CHECK(b.fd < 0 && got.n + before <= body_size(&b));
	if (before == 0 && e == ERR_IO && change != SAME_SIZE)
		CHECK(got.n == 0);      /* seen before anything was sent */
	if (e != OK && !FAULTED()) {
		CHECK_STR(str_z(b.files[b.file_at].path), d->path[0]);
		CHECK_ERR(body_read(&b, p, 1, &more), want);
		CHECK(more == 7);
		/* As it was, it can be sent. */
		buf_reset(&bytes);
		fill(&bytes, 3 * BLOCK, true);
		put_file(d->path[0], O_TRUNC, buf_view(&bytes));
		body_rewind(&b);
		buf_reset(&got);
		CHECK_OK(read_all(&b, 1000, &got));
		CHECK(got.n == body_size(&b));
	}
out:
	body_free(&b);
	free(p);
	buf_free(&got);
	buf_free(&bytes);
}

TEST(changes)
{
	struct files d;

	if (!files_begin(&d))
		return;
	for (enum body_encoding enc = BODY_RAW; enc <= BODY_JSON && !FAULTED(); enc++) {
		for (enum change c = GROWN; c <= SAME_SIZE && !FAULTED(); c++) {
			check_change(&d, enc, c, 0);
			check_change(&d, enc, c, 10);
		}
	}
	files_end(&d);
}

/* JSON of the same file size that is UTF-8 no longer: its length cannot be kept either. */
TEST(spoilt)
{
	struct files d;
	struct body b;
	size_t got;
	char p[8];

	if (!files_begin(&d))
		return;
	body_init(&b, SMALL);
	if (put_file(d.path[0], O_TRUNC, S("abc"))) {
		body_insert(&b, 0, d.path[0], BODY_JSON);
		put_file(d.path[0], O_TRUNC, S("ab\xFF"));
		if (!FAULTED())
			CHECK_ERR(body_read(&b, p, sizeof(p), &got), ERR_IO);
	}
	body_free(&b);
	files_end(&d);
}

/* One descriptor, none when nothing is read, never inherited; and little memory. */
TEST(thrift)
{
	struct buf bytes = BUF_INIT(SMALL);
	struct files d;
	struct body b;
	size_t got;
	char p[8];

	if (!files_begin(&d))
		return;
	body_init(&b, SMALL);
	for (int i = 0; i < 30000; i++)
		buf_putc(&bytes, '\x01');
	if (put_file(d.path[0], O_TRUNC, buf_view(&bytes))) {
		body_insert(&b, 0, d.path[0], BODY_JSON);
		CHECK(b.fd < 0 && b.block.p == NULL);
		CHECK_OK(body_read(&b, p, sizeof(p), &got));
		if (!FAULTED()) {
			CHECK(b.fd >= 0 && (fcntl(b.fd, F_GETFD) & FD_CLOEXEC) != 0);
			CHECK(b.block.cap + BLOCK <= 16384);
		}
		body_rewind(&b);
		CHECK(b.fd < 0 && b.block.p == NULL);
		CHECK_OK(body_read(&b, p, sizeof(p), &got));
	}
	body_free(&b);                  /* while it is open; valgrind --track-fds sees one left */
	CHECK(b.fd < 0);
	buf_free(&bytes);
	files_end(&d);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(one_file);
	RUN(mixtures);
	RUN(json_writer);
	RUN(insert_refused);
	RUN(not_utf8);
	RUN(limits);
	RUN(changes);
	RUN(spoilt);
	RUN(thrift);
	return TEST_END();
}
