/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_lineedit.c - keys in, lines out; what is drawn is read back from a pipe. */
#include "core/lineedit.h"
#include "test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct seen {
	struct lineedit *le;
	struct buf text;        /* "line|", "EOF|", "^C:discarded|" */
	bool again;             /* prompt for the next line from inside the event */
};

static void
on_event(void *arg, enum lineedit_event event, struct str line)
{
	struct seen *s = arg;

	buf_puts(&s->text, event == LINEEDIT_EOF ? "EOF" : event == LINEEDIT_INTERRUPT ? "^C:" : "");
	buf_str(&s->text, line);
	buf_putc(&s->text, '|');
	if (s->again)
		CHECK_OK(lineedit_prompt(s->le, "> "));
}

static bool
begin(struct seen *s, int out_fd)
{
	enum err e;

	memset(s, 0, sizeof(*s));
	buf_init(&s->text, 1 << 22);
	e = lineedit_new(-1, out_fd, &s->le);
	CHECK_OK(e);
	if (e != OK)
		return false;
	s->again = true;
	CHECK_OK(lineedit_prompt(s->le, "> "));
	return true;
}

static void
end(struct seen *s)
{
	lineedit_free(s->le);
	buf_free(&s->text);
}

/* Feeds keys, once whole and once byte by byte: both must give want. */
static void
types(int line, const char *keys, size_t n, const char *want)
{
	struct seen s;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), mode;
	size_t i;

	for (mode = 0; mode < 2; mode++) {
		if (begin(&s, fd)) {
			for (i = 0; mode && i < n; i++)
				CHECK_OK(lineedit_feed(s.le, str_make(keys + i, 1), on_event, &s));
			if (!mode)
				CHECK_OK(lineedit_feed(s.le, str_make(keys, n), on_event, &s));
			if (strcmp(buf_z(&s.text), want) != 0) {
				test_bad_at_(__FILE__, line, want);
				if (!FAULTED())
					printf("  got: %s\n", buf_z(&s.text));
			}
			end(&s);
		}
	}
	if (fd >= 0)
		close(fd);
}
#define TYPES(keys, want) types(__LINE__, keys, sizeof(keys) - 1, want)

TEST(keys)
{
	TYPES("hello\r", "hello|");
	TYPES("ab\ncd\r", "ab|cd|");
	TYPES("helo\x1b[Dl\r", "hello|");
	TYPES("bc\x01" "a\x05" "d\r", "abcd|");
	TYPES("bc\x1b[Ha\x1b[Fd\x1bOHz\r", "zabcd|");
	TYPES("bc\x1b[1~a\x1b[4~d\r", "abcd|");
	TYPES("abc\x7f\x7f" "d\x08" "e\r", "ae|");
	TYPES("abc\x1b[D\x1b[D\x1b[3~\r", "ac|");
	TYPES("abc\x02\x02\x04\r", "ac|");
	TYPES("one two\x17six\r", "one six|");
	TYPES("one two\x1b" "b\x0b" "x\r", "one x|");
	TYPES("one two\x1b[1;5D\x1b[1;5D\x1b[1;5C!\r", "one! two|");
	TYPES("one\x1b[D\x15\r", "e|");
	TYPES("\x04", "EOF|");
	TYPES("ab\x03" "c\r", "^C:ab|c|");
	TYPES("\x7f\x1b[D\x1b[3~\x17\x15\x0bx\r", "x|");        /* nothing to edit: no harm */
	TYPES("a\x1b[99;99zb\x1bqc\x1b\x1b[Dd\x1a\x00\r", "abdc|");
}

TEST(characters)
{
	TYPES("a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z\x1b[D\x7f\x7f\r", "a\xc3\xa9z|");
	TYPES("\xc3\xa9\x1b[D\x1b[3~x\r", "x|");
	TYPES("a\xff\xc3(b\xed\xa0\x80\r", "a(b|");             /* ill-formed: dropped */
}

TEST(paste)
{
	TYPES("x\x1b[200~one\rtwo\r\nthree\t\x03\x1b[D4\x1b[201~y\r", "xone\ntwo\nthree\t4y|");
	TYPES("\x1b[200~q\x1b[201~\x03", "^C:q|");
}

TEST(history)
{
	char path[64];
	struct seen s;
	struct stat st;
	struct fail f = FAIL_INIT;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), i;
	char line[32];

	TYPES("one\rtwo\rtwo\r\x1b[A\x1b[A\r", "one|two|two|one|");
	TYPES("one\rdra\x1b[A\x1b[Bft\r", "one|draft|");
	TYPES("one\r\x1b[A!\r\x1b[A\x1b[A\x1b[A\r", "one|one!|one|");
	TYPES("\x1b[A\x1b[Bx\r", "x|");
	snprintf(path, sizeof(path), "/tmp/test_lineedit.%ld", (long)getpid());
	remove(path);
	if (begin(&s, fd)) {
		CHECK_OK(lineedit_history_load(s.le, path, &f));        /* no file is fine */
		for (i = 0; i < LINEEDIT_HISTORY_MAX + 3; i++) {
			snprintf(line, sizeof(line), "l%d\r", i);
			CHECK_OK(lineedit_feed(s.le, str_z(line), on_event, &s));
		}
		CHECK_OK(lineedit_feed(s.le, S("\x1b[200~a\\\nb\x1b[201~\r"), on_event, &s));
		CHECK_OK(lineedit_history_save(s.le, path, &f));
		end(&s);
	}
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	if (begin(&s, fd)) {
		CHECK_OK(lineedit_history_load(s.le, path, &f));
		CHECK_OK(lineedit_feed(s.le, S("\x1b[A\r\x1b[A\x1b[A\r"), on_event, &s));
		CHECK_STR(buf_view(&s.text), "a\\\nb|l502|");
		buf_reset(&s.text);
		for (i = 0; i < LINEEDIT_HISTORY_MAX + 9; i++)
			CHECK_OK(lineedit_feed(s.le, S("\x10"), on_event, &s));
		CHECK_OK(lineedit_feed(s.le, S("\r"), on_event, &s));
		CHECK(FAULTED() || str_starts(buf_view(&s.text), S("l")));
		end(&s);
	}
	remove(path);
	if (fd >= 0)
		close(fd);
}

/* What was written to the screen since the last call. */
static const char *
drawn(int fd, char *text, size_t n)
{
	size_t used = 0;
	ssize_t got;

	while (used < n - 1 && (got = read(fd, text + used, n - 1 - used)) > 0)
		used += (size_t)got;
	text[used] = '\0';
	return text;
}

TEST(screen)
{
	struct seen s;
	int p[2];
	char text[8192];

	if (pipe(p) != 0)
		return;
	CHECK_OK(fd_nonblock(p[0]));
	CHECK_OK(fd_nonblock(p[1]));
	if (begin(&s, p[1])) {
		CHECK(strstr(drawn(p[0], text, sizeof(text)), "\x1b[?2004h\r> \x1b[K\r\x1b[2C"));
		CHECK_OK(lineedit_feed(s.le, S("a\xe4\xb8\xad"), on_event, &s));
		CHECK(strstr(drawn(p[0], text, sizeof(text)), "\r> a\xe4\xb8\xad\x1b[K\r\x1b[5C"));
		lineedit_hide(s.le);
		CHECK(strcmp(drawn(p[0], text, sizeof(text)), "\r\x1b[K") == 0);
		CHECK_OK(lineedit_feed(s.le, S("b"), on_event, &s));
		CHECK(strcmp(drawn(p[0], text, sizeof(text)), "") == 0);
		lineedit_show(s.le);
		CHECK(strstr(drawn(p[0], text, sizeof(text)), "\r> a\xe4\xb8\xad" "b\x1b[K\r\x1b[6C"));
		/* 80 columns: a long line shows its end; Home shows its beginning again. */
		CHECK_OK(lineedit_feed(s.le, S("0123456789012345678901234567890123456789"
		    "0123456789012345678901234567890123456789XYZ"), on_event, &s));
		drawn(p[0], text, sizeof(text));
		CHECK(strstr(text, "XYZ\x1b[K") && !strstr(text, "\xe4\xb8\xad"));
		CHECK(FAULTED() || utf8_valid(str_z(text)));
		CHECK_OK(lineedit_feed(s.le, S("\x01"), on_event, &s));
		drawn(p[0], text, sizeof(text));
		CHECK(strstr(text, "\r> a\xe4\xb8\xad") && !strstr(text, "XYZ") && strstr(text, "\x1b[2C"));
		s.again = false;
		CHECK_OK(lineedit_feed(s.le, S("\rahead\r"), on_event, &s));
		CHECK(strstr(drawn(p[0], text, sizeof(text)), "\n\x1b[?2004l"));
		CHECK(!strstr(buf_z(&s.text), "ahead"));        /* waits for the next prompt */
		CHECK_OK(lineedit_prompt(s.le, "> "));
		CHECK_OK(lineedit_feed(s.le, STR_NONE, on_event, &s));
		CHECK(strstr(buf_z(&s.text), "|ahead|"));
		end(&s);
	}
	close(p[0]);
	close(p[1]);
}

TEST(limits)
{
	struct seen s;
	struct buf big = BUF_INIT(LINEEDIT_LINE_MAX);
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	while (big.err == OK && big.n < LINEEDIT_LINE_MAX - 16)
		buf_puts(&big, "0123456789abcdef");
	if (begin(&s, fd)) {
		CHECK_OK(lineedit_feed(s.le, buf_view(&big), on_event, &s));
		CHECK_OK(lineedit_feed(s.le, S("0123456789abcdef0123456789"), on_event, &s));
		CHECK_OK(lineedit_feed(s.le, S("\r"), on_event, &s));
		CHECK(s.text.n == LINEEDIT_LINE_MAX + 1);       /* full, and still a line */
		s.again = false;
		CHECK_OK(lineedit_feed(s.le, S("\r"), on_event, &s));
		CHECK_OK(lineedit_feed(s.le, buf_view(&big), on_event, &s));
		CHECK_ERR(lineedit_feed(s.le, S("0123456789abcdef0123456789"), on_event, &s), ERR_LIMIT);
		end(&s);
	}
	buf_free(&big);
	if (fd >= 0)
		close(fd);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(keys);
	RUN(characters);
	RUN(paste);
	RUN(history);
	RUN(screen);
	RUN(limits);
	return TEST_END();
}
