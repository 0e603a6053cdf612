/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * body.c - a request body of text and files, encoded while it is read.
 *
 * A file is read in blocks. Each is encoded whole into .block, and readers are
 * served from there, however small their buffers; so no encoder has to stop in
 * the middle, and one block and its encoded form are all the memory a body
 * takes besides its text. Where a block ends is the encoder's affair: base64
 * wants a multiple of 3 bytes, JSON wants whole characters. Blocks are read by
 * position (pread), so what an encoder left over is simply read once more.
 *
 * The size is a promise made before the first byte is sent. It is checked when
 * a file is opened again, which finds most changes before anything of the file
 * was sent, and with every block, which finds a change under way; never is more
 * given out than was promised. A length that is right is all that is promised:
 * another content of the same length goes through.
 *
 * A BODY_JSON file is measured by reading it: the bytes are counted that the
 * same blocks will give later.
 */
#include "base/body.h"
#include "base/json.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 2046u                     /* bytes of a file; a multiple of 3 */
#define BLOCK_ENCODED (6u * BLOCK + 2)  /* every byte a \u00xx, and json_quote's quotes */
#define CHAR_PART 3u                    /* of a character that the end of a block cut off */

void
body_init(struct body *b, size_t text_max)
{
	*b = (struct body){ .text = BUF_INIT(text_max), .fd = -1, .block = BUF_INIT(BLOCK_ENCODED) };
}

static void
close_file(struct body *b)
{
	if (b->fd >= 0)
		close(b->fd);
	b->fd = -1;
}

void
body_rewind(struct body *b)
{
	close_file(b);
	buf_free(&b->block);
	b->text_at = b->file_at = b->block_at = 0;
	b->err = OK;
}

void
body_free(struct body *b)
{
	body_rewind(b);
	for (size_t i = 0; i < b->n_files; i++)
		free(b->files[i].path);
	free(b->files);
	buf_free(&b->text);
	body_init(b, b->text.max);
}

/* ---- one file ------------------------------------------------------------------ */

/* Opens path as .fd, at its start, and tells its size. */
static enum err
open_file(struct body *b, const char *path, uint64_t *size)
{
	struct stat st;
	enum err e = OK;

	do      /* O_NONBLOCK: opening a FIFO that nobody writes to must not hang. */
		b->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	while (b->fd < 0 && errno == EINTR);
	if (b->fd < 0)
		return err_errno(errno);
	if (fstat(b->fd, &st) != 0)
		e = err_errno(errno);
	else if (!S_ISREG(st.st_mode))
		e = ERR_UNSUPPORTED;
	else if ((uint64_t)st.st_size > BODY_FILE_MAX)
		e = ERR_LIMIT;
	else
		*size = (uint64_t)st.st_size;
	b->size = b->encoded = 0;
	return e;
}

/* Reads at .size until raw is full or the file ends. */
static enum err
read_raw(const struct body *b, char raw[BLOCK], size_t *n)
{
	size_t have = 0;

	while (have < BLOCK) {
		ssize_t r = pread(b->fd, raw + have, BLOCK - have, (off_t)(b->size + have));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(errno);
		if (r == 0)
			break;
		have += (size_t)r;
	}
	*n = have;
	return OK;
}

/* Fills .block with the next bytes of the open file and counts them; *end: these were the last. */
static enum err
next_block(struct body *b, enum body_encoding enc, bool *end)
{
	char raw[BLOCK];
	size_t n = 0, used;
	enum err e = read_raw(b, raw, &n);

	if (e != OK)
		return e;
	*end = n < BLOCK;
	used = n;
	buf_reset(&b->block);
	b->block_at = 0;
	switch (enc) {
	case BODY_RAW:
		buf_put(&b->block, raw, n);
		break;
	case BODY_BASE64:
		enc_base64(&b->block, raw, n);
		break;
	case BODY_JSON:
		used = utf8_run(str_make(raw, n));
		if (n - used > (*end ? 0 : CHAR_PART))
			return ERR_PARSE;
		json_quote(&b->block, str_make(raw, used));
		buf_cut(&b->block, b->block.n - 1);
		b->block_at = 1;        /* the inside of its quotes */
		break;
	}
	b->size += used;
	b->encoded += b->block.n - b->block_at;
	return b->block.err;
}

/* ---- building ------------------------------------------------------------------ */

static enum err
measure(struct body *b, struct body_file *f)
{
	bool end = f->enc != BODY_JSON;
	enum err e = open_file(b, f->path, &f->size);

	f->encoded = f->enc == BODY_RAW ? f->size : (f->size + 2) / 3 * 4;
	while (e == OK && !end) {
		e = next_block(b, f->enc, &end);
		/* It may grow faster than it is read. */
		if (e == OK && b->size > BODY_FILE_MAX)
			e = ERR_LIMIT;
		f->size = b->size;
		f->encoded = b->encoded;
	}
	body_rewind(b);
	return e;
}

void
body_insert(struct body *b, size_t back, const char *path, enum body_encoding enc)
{
	size_t n = strlen(path) + 1;
	struct body_file f = { .enc = enc }, *files;

	if (b->text.err != OK)
		return;
	assert(back <= b->text.n && b->fd < 0 && b->text_at == 0);
	f.at = b->text.n - back;
	assert(b->n_files == 0 || f.at >= b->files[b->n_files - 1].at);
	if (b->n_files == BODY_FILES_MAX) {
		b->text.err = ERR_LIMIT;
		return;
	}
	files = realloc(b->files, (b->n_files + 1) * sizeof(*files));
	if (files)
		b->files = files;
	f.path = files ? malloc(n) : NULL;
	if (!f.path) {
		b->text.err = ERR_NOMEM;
		return;
	}
	memcpy(f.path, path, n);
	b->text.err = measure(b, &f);
	files[b->n_files++] = f;        /* failed or not: .path is freed with the others */
}

uint64_t
body_size(const struct body *b)
{
	uint64_t sum = b->text.n;

	for (size_t i = 0; i < b->n_files; i++)
		sum += b->files[i].encoded;
	return sum;
}

/* ---- reading ------------------------------------------------------------------- */

/* The file at .file_at: opens it, or gets its next block and closes it behind the last. */
static enum err
step_file(struct body *b)
{
	const struct body_file *f = &b->files[b->file_at];
	uint64_t size;
	bool end;
	enum err e;

	if (b->fd < 0) {
		e = open_file(b, f->path, &size);
		return e == OK && size != f->size ? ERR_IO : e;
	}
	e = next_block(b, f->enc, &end);
	if (e != OK)
		return e == ERR_PARSE ? ERR_IO : e;     /* it was UTF-8 when it was inserted */
	if (end ? b->size != f->size || b->encoded != f->encoded : b->encoded > f->encoded)
		return ERR_IO;
	if (end) {
		close_file(b);
		b->file_at++;
	}
	return OK;
}

/* Copies the bytes of `from` that *at has not passed yet, at most n. */
static size_t
take(struct str from, size_t *at, char *p, size_t n)
{
	struct str s = str_sub(from, *at, n);

	if (s.n)
		memcpy(p, s.p, s.n);
	*at += s.n;
	return s.n;
}

enum err
body_read(struct body *b, char *p, size_t n, size_t *got)
{
	size_t done = 0;

	if (b->text.err != OK)
		return b->text.err;
	while (done < n && b->err == OK) {
		bool more = b->file_at < b->n_files;
		size_t until = more ? b->files[b->file_at].at : b->text.n;

		if (b->block_at < b->block.n)
			done += take(buf_view(&b->block), &b->block_at, p + done, n - done);
		else if (b->text_at < until)
			done += take(str_sub(buf_view(&b->text), 0, until), &b->text_at, p + done, n - done);
		else if (more)
			b->err = step_file(b);
		else
			break;
	}
	if (b->err != OK) {
		close_file(b);
		return b->err;
	}
	*got = done;
	return OK;
}
