/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * lineedit.c - a line editor for the terminal, driven by bytes.
 *
 * Three buffers: what was typed but not understood yet (an escape sequence or a
 * UTF-8 character may arrive in pieces), the line, and the drawing. Every byte
 * run ends in one redraw of one screen row: a line wider than the window
 * scrolls sideways, because rows that wrap cannot be taken away reliably when
 * the window changes its size or other text is printed above.
 *
 * The line is valid UTF-8 always and the cursor stands on a character's first
 * byte: only whole characters go in, and moves step over whole ones. Control
 * bytes never enter it, except line breaks and tabs of a paste, which are drawn
 * as one cell each.
 *
 * The terminal is raw only while a line is edited. Output processing stays on,
 * so that text printed by others needs no carriage returns.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "core/lineedit.h"

#define PENDING_MAX LINEEDIT_LINE_MAX   /* typed ahead */
#define PROMPT_MAX 128
#define SEQUENCE_MAX 32                 /* bytes of an escape sequence; longer ones are noise */
#define DRAW_MAX 65536                  /* bytes of one screen row */
#define COLUMNS_DEFAULT 80
#define HISTORY_ENTRY_MAX 16384         /* a longer line (a pasted document) is not remembered */
#define HISTORY_BYTES_MAX (LINEEDIT_HISTORY_MAX * (HISTORY_ENTRY_MAX + 1))
#define BREAK_BYTE 0x1e                 /* a line break inside an entry of the file */
#define BREAK_SIGN "\xe2\x86\xb5"       /* a pasted line break as it is drawn */

struct lineedit {
	int in_fd, out_fd;
	bool tty, raw, active, hidden, paste;
	bool cr;                        /* the newest pasted control byte was CR */
	struct termios cooked;          /* as it was before */
	struct buf pending, line, draw;
	size_t cursor, left;            /* bytes into line: cursor, first one drawn */
	char prompt[PROMPT_MAX];
	char *history[LINEEDIT_HISTORY_MAX];
	size_t n_history, at;           /* at: which one is shown; n_history = none, the line itself */
	struct buf kept;                /* that line itself, while the history is looked at */
};

/* ---- characters -------------------------------------------------------------- */

static size_t
next_at(struct str s, size_t i)
{
	size_t len = 0;

	if (i < s.n)
		(void)utf8_decode(str_sub(s, i, s.n), &len);
	return i + len;
}

static size_t
prev_at(struct str s, size_t i)
{
	if (i > 0)
		i--;
	while (i > 0 && ((unsigned char)s.p[i] & 0xc0) == 0x80)
		i--;
	return i;
}

/* Cells of a character: roughly East Asian Width; marks that combine take none. */
static size_t
cells(struct str s, size_t i)
{
	static const uint32_t wide[][2] = {
		{ 0x1100, 0x115f }, { 0x2e80, 0xa4cf }, { 0xac00, 0xd7a3 }, { 0xf900, 0xfaff },
		{ 0xfe30, 0xfe6f }, { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 }, { 0x1f300, 0x1f64f },
		{ 0x1f680, 0x1faff }, { 0x20000, 0x3fffd }
	};
	size_t len, k;
	uint32_t c = utf8_decode(str_sub(s, i, s.n), &len);

	if ((c >= 0x300 && c <= 0x36f) || (c >= 0x200b && c <= 0x200f) ||
	    (c >= 0xfe00 && c <= 0xfe0f))
		return 0;
	for (k = 0; k < ARRAY_LEN(wide); k++)
		if (c >= wide[k][0] && c <= wide[k][1])
			return 2;
	return 1;
}

static size_t
width(struct str s)
{
	size_t i, w = 0;

	for (i = 0; i < s.n; i = next_at(s, i))
		w += cells(s, i);
	return w;
}

/* Words are what stands between blanks. */
static size_t
word_left(struct str s, size_t i)
{
	while (i > 0 && (unsigned char)s.p[i - 1] <= ' ')
		i--;
	while (i > 0 && (unsigned char)s.p[i - 1] > ' ')
		i--;
	return i;
}

static size_t
word_right(struct str s, size_t i)
{
	while (i < s.n && (unsigned char)s.p[i] <= ' ')
		i++;
	while (i < s.n && (unsigned char)s.p[i] > ' ')
		i++;
	return i;
}

/* ---- the screen ------------------------------------------------------------------ */

static void
emit(struct lineedit *le, struct str s)
{
	/* A terminal that went away shows itself where the owner reads. */
	IGNORE(fd_write_all(le->out_fd, s.p, s.n));
}

static size_t
columns(const struct lineedit *le)
{
	struct winsize ws;

	return ioctl(le->out_fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : COLUMNS_DEFAULT;
}

/* Draws the row: prompt, and the part of the line around the cursor that fits. */
static void
redraw(struct lineedit *le)
{
	struct str line = buf_view(&le->line);
	size_t cols = columns(le), used = width(str_z(le->prompt)), room, i, w, first;

	if (!le->active || le->hidden)
		return;
	room = cols > used + 2 ? cols - used - 1 : 1;
	for (first = le->cursor, w = 0; first > 0; first = i) {
		i = prev_at(line, first);
		if ((w += cells(line, i)) > room - 1)
			break;
	}
	if (le->left < first || le->left > le->cursor)
		le->left = first;
	buf_reset(&le->draw);
	buf_fmt(&le->draw, "\r%s", le->prompt);
	for (i = le->left, w = 0; i < line.n && w + cells(line, i) <= room; i = next_at(line, i)) {
		w += cells(line, i);
		if (line.p[i] == '\n')
			buf_puts(&le->draw, BREAK_SIGN);
		else if (line.p[i] == '\t')
			buf_putc(&le->draw, ' ');
		else
			buf_str(&le->draw, str_sub(line, i, next_at(line, i) - i));
	}
	w = used + width(str_sub(line, le->left, le->cursor - le->left));
	buf_puts(&le->draw, "\x1b[K\r");
	if (w)
		buf_fmt(&le->draw, "\x1b[%zuC", w);
	emit(le, buf_view(&le->draw));
}

static enum err
set_raw(struct lineedit *le, bool raw)
{
	struct termios t = le->cooked;

	if (raw == le->raw)
		return OK;
	if (raw) {
		t.c_iflag &= ~(tcflag_t)(IXON | ICRNL | INLCR | ISTRIP);
		t.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
		t.c_cc[VMIN] = 1;
		t.c_cc[VTIME] = 0;
	}
	/* Not TCSAFLUSH: what was typed ahead counts. */
	if (le->tty && tcsetattr(le->in_fd, TCSADRAIN, &t) != 0)
		return err_errno(errno);
	le->raw = raw;
	emit(le, raw ? S("\x1b[?2004h") : S("\x1b[?2004l"));     /* bracketed paste */
	return OK;
}

/* ---- editing ----------------------------------------------------------------------- */

/* Replaces bytes from..to of the line and puts the cursor behind what is new. */
static bool
splice(struct lineedit *le, size_t from, size_t to, struct str with)
{
	struct buf *b = &le->line;
	size_t tail = b->n - to;

	if (with.n > to - from && !buf_room(b, with.n - (to - from))) {
		b->err = OK;            /* full: the line stays as it is */
		emit(le, S("\a"));
		return false;
	}
	if (b->n)
		memmove(b->p + from + with.n, b->p + to, tail);
	if (with.n)
		memcpy(b->p + from, with.p, with.n);
	b->n = from + with.n + tail;
	le->cursor = from + with.n;
	return true;
}

static void
show_history(struct lineedit *le, size_t at)
{
	if (at > le->n_history || at == le->at)
		return;
	if (le->at == le->n_history) {
		buf_reset(&le->kept);
		buf_str(&le->kept, buf_view(&le->line));
		if (le->kept.err != OK) {       /* better no history than a lost line */
			emit(le, S("\a"));
			return;
		}
	}
	if (splice(le, 0, le->line.n, at < le->n_history ? str_z(le->history[at]) : buf_view(&le->kept)))
		le->at = at;
}

static void
remember(struct lineedit *le, struct str line)
{
	char *copy;

	if (line.n == 0 || line.n > HISTORY_ENTRY_MAX ||
	    (le->n_history && str_eqz(line, le->history[le->n_history - 1])))
		return;
	copy = malloc(line.n + 1);
	if (!copy)
		return;                 /* a history with a gap is no failure */
	memcpy(copy, line.p, line.n);
	copy[line.n] = '\0';
	if (le->n_history == LINEEDIT_HISTORY_MAX) {
		free(le->history[0]);
		memmove(le->history, le->history + 1, (LINEEDIT_HISTORY_MAX - 1) * sizeof(char *));
		le->n_history--;
	}
	le->history[le->n_history++] = copy;
}

/* Ends the line: the terminal is given back before the owner hears of it. */
static void
finish(struct lineedit *le, enum lineedit_event event, lineedit_fn *fn, void *arg)
{
	struct buf line = le->line;

	le->cursor = event == LINEEDIT_LINE ? line.n : le->cursor;
	redraw(le);
	if (!le->hidden)
		emit(le, event == LINEEDIT_INTERRUPT ? S("^C\n") : S("\n"));
	le->active = false;
	IGNORE(set_raw(le, false));     /* nothing can be done, and the event counts */
	buf_init(&le->line, LINEEDIT_LINE_MAX);
	if (event == LINEEDIT_LINE)
		remember(le, buf_view(&line));
	fn(arg, event, buf_view(&line));
	buf_free(&line);
}

static void
cut(struct lineedit *le, size_t from, size_t to)
{
	(void)splice(le, from, to, STR_NONE);   /* shortening cannot fail */
}

/* One control byte. */
static void
do_control(struct lineedit *le, char c, lineedit_fn *fn, void *arg)
{
	struct str line = buf_view(&le->line);
	size_t at = le->cursor;

	switch (c) {
	case '\r': case '\n': finish(le, LINEEDIT_LINE, fn, arg); break;
	case 0x01: le->cursor = 0; break;                               /* Ctrl-A */
	case 0x02: le->cursor = prev_at(line, at); break;               /* B */
	case 0x03: finish(le, LINEEDIT_INTERRUPT, fn, arg); break;      /* C */
	case 0x04:                                                      /* D */
		if (line.n == 0)
			finish(le, LINEEDIT_EOF, fn, arg);
		else
			cut(le, at, next_at(line, at));
		break;
	case 0x05: le->cursor = line.n; break;                          /* E */
	case 0x06: le->cursor = next_at(line, at); break;               /* F */
	case 0x08: case 0x7f: cut(le, prev_at(line, at), at); break;    /* H, Backspace */
	case 0x0b: cut(le, at, line.n); break;                          /* K */
	case 0x0c: emit(le, S("\x1b[H\x1b[2J")); break;                 /* L */
	case 0x0e: show_history(le, le->at + 1); break;                 /* N */
	case 0x10: show_history(le, le->at ? le->at - 1 : 0); break;    /* P */
	case 0x15: cut(le, 0, at); break;                               /* U */
	case 0x17: cut(le, word_left(line, at), at); break;             /* W */
	default: break;
	}
}

/* What "ESC [ params final" or "ESC O final" asks for. */
static void
do_sequence(struct lineedit *le, struct str params, char final)
{
	static const char tilde[] = "H?.F??HF"; /* 1~ Home, 3~ Delete, 4~ End, 7~ Home, 8~ End */
	struct str line = buf_view(&le->line);
	bool word = str_ends(params, S(";5")) || str_ends(params, S(";3"));     /* Ctrl, Alt */
	size_t at = le->cursor;

	if (final == '~' && params.n == 3)
		le->paste = str_eqz(params, "200");
	if (le->paste)
		return;
	if (final == '~' && params.n == 1 && params.p[0] >= '1' && params.p[0] <= '8')
		final = tilde[params.p[0] - '1'];
	switch (final) {
	case 'A': show_history(le, le->at ? le->at - 1 : 0); break;
	case 'B': show_history(le, le->at + 1); break;
	case 'C': le->cursor = word ? word_right(line, at) : next_at(line, at); break;
	case 'D': le->cursor = word ? word_left(line, at) : prev_at(line, at); break;
	case 'H': le->cursor = 0; break;
	case 'F': le->cursor = line.n; break;
	case '.': cut(le, at, next_at(line, at)); break;
	default: break;
	}
}

/* ---- bytes ------------------------------------------------------------------------- */

/* Each take_ function uses up the start of s and says how much; 0 when more bytes are needed. */

static size_t
take_escape(struct lineedit *le, struct str s)
{
	struct str line = buf_view(&le->line);
	size_t i = 2, at = le->cursor;

	if (s.n < 2)
		return 0;
	if (s.p[1] == '[' || s.p[1] == 'O') {
		while (i < s.n && i < SEQUENCE_MAX && s.p[i] >= 0x20 && s.p[i] < 0x40)
			i++;
		if (i == s.n)
			return 0;
		do_sequence(le, str_sub(s, 2, i - 2), s.p[i]);
		return i + 1;
	}
	if (s.p[1] == 'b' && !le->paste)
		le->cursor = word_left(line, at);
	else if (s.p[1] == 'f' && !le->paste)
		le->cursor = word_right(line, at);
	return s.p[1] == 0x1b ? 1 : 2;
}

/* Pasted line breaks and tabs belong to the line; other control bytes do not. */
static size_t
take_pasted_control(struct lineedit *le, struct str s)
{
	struct str before = str_sub(buf_view(&le->line), 0, le->cursor);

	if (s.p[0] == '\t')
		(void)splice(le, le->cursor, le->cursor, S("\t"));
	else if (s.p[0] == '\n' && le->cr && str_ends(before, S("\n")))
		;                       /* the second half of CR LF */
	else if (s.p[0] == '\r' || s.p[0] == '\n')
		(void)splice(le, le->cursor, le->cursor, S("\n"));
	le->cr = s.p[0] == '\r';
	return 1;
}

static size_t
take_character(struct lineedit *le, struct str s)
{
	unsigned char c = (unsigned char)s.p[0];
	size_t len, need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	if (utf8_decode(s, &len) != UTF8_BAD)
		(void)splice(le, le->cursor, le->cursor, str_sub(s, 0, len));
	else if (len == s.n && len < need && c >= 0xc2 && c <= 0xf4)
		return 0;
	return len;             /* what can never become valid is dropped */
}

enum err
lineedit_feed(struct lineedit *le, struct str bytes, lineedit_fn *fn, void *arg)
{
	size_t used = 1, at = 0;
	struct str s;
	enum err e;

	buf_str(&le->pending, bytes);
	e = le->pending.err;
	le->pending.err = OK;
	while (le->active && at < le->pending.n && used > 0) {
		s = str_sub(buf_view(&le->pending), at, le->pending.n);
		if (s.p[0] == 0x1b) {
			used = take_escape(le, s);
		} else if ((unsigned char)s.p[0] >= 0x20 && s.p[0] != 0x7f) {
			used = take_character(le, s);
		} else if (le->paste) {
			used = take_pasted_control(le, s);
		} else {
			used = 1;
			do_control(le, s.p[0], fn, arg);
		}
		at += used;
	}
	buf_drop(&le->pending, at);
	redraw(le);
	return e;
}

/* ---- life -------------------------------------------------------------------------------- */

enum err
lineedit_new(int in_fd, int out_fd, struct lineedit **out)
{
	struct lineedit *le = calloc(1, sizeof(*le));

	if (!le)
		return ERR_NOMEM;
	le->in_fd = in_fd;
	le->out_fd = out_fd;
	le->tty = tcgetattr(in_fd, &le->cooked) == 0;
	buf_init(&le->pending, PENDING_MAX);
	buf_init(&le->line, LINEEDIT_LINE_MAX);
	buf_init(&le->kept, LINEEDIT_LINE_MAX);
	buf_init(&le->draw, DRAW_MAX);
	*out = le;
	return OK;
}

void
lineedit_free(struct lineedit *le)
{
	size_t i;

	if (!le)
		return;
	lineedit_hide(le);
	IGNORE(set_raw(le, false));     /* the terminal is gone, then */
	for (i = 0; i < le->n_history; i++)
		free(le->history[i]);
	buf_free(&le->pending);
	buf_free(&le->line);
	buf_free(&le->kept);
	buf_free(&le->draw);
	free(le);
}

enum err
lineedit_prompt(struct lineedit *le, const char *prompt)
{
	enum err e = set_raw(le, true);

	if (e != OK)
		return e;
	snprintf(le->prompt, sizeof(le->prompt), "%s", prompt);
	buf_reset(&le->line);
	buf_reset(&le->kept);
	le->cursor = le->left = 0;
	le->at = le->n_history;
	le->active = true;
	le->hidden = le->paste = false;
	redraw(le);
	return OK;
}

void
lineedit_hide(struct lineedit *le)
{
	if (le->active && !le->hidden)
		emit(le, S("\r\x1b[K"));
	le->hidden = true;
}

void
lineedit_show(struct lineedit *le)
{
	le->hidden = false;
	redraw(le);
}

/* One line of the file is one entry; a line break inside it is BREAK_BYTE there. */
enum err
lineedit_history_load(struct lineedit *le, const char *path, struct fail *f)
{
	struct buf text = BUF_INIT(HISTORY_BYTES_MAX);
	struct fail why = FAIL_INIT;
	struct str rest, line;
	size_t i;
	enum err e = file_read(path, HISTORY_BYTES_MAX, &text, &why);

	for (i = 0; i < text.n; i++)    /* whatever else wrote that file: no control byte gets in */
		if ((unsigned char)text.p[i] < 0x20 && text.p[i] != '\n' && text.p[i] != BREAK_BYTE)
			text.p[i] = ' ';
	rest = buf_view(&text);
	while (e == OK && rest.n) {
		(void)str_cut(&rest, '\n', &line);
		for (i = 0; i < line.n; i++)
			if (line.p[i] == BREAK_BYTE)
				text.p[line.p - text.p + (ptrdiff_t)i] = '\n';
		if (utf8_valid(line))
			remember(le, line);
	}
	le->at = le->n_history;
	buf_free(&text);
	if (e == ERR_NOTFOUND)
		return OK;
	return e == OK ? OK : fail_set(f, e, "%s", why.text);
}

enum err
lineedit_history_save(const struct lineedit *le, const char *path, struct fail *f)
{
	struct buf text = BUF_INIT(HISTORY_BYTES_MAX);
	const char *p;
	size_t i;
	enum err e;

	for (i = 0; i < le->n_history; i++) {
		for (p = le->history[i]; *p; p++)
			buf_putc(&text, *p == '\n' ? BREAK_BYTE : *p);
		buf_putc(&text, '\n');
	}
	e = text.err == OK ? file_replace(path, buf_view(&text), 0600, f) :
	    fail_set(f, text.err, "%s: %s", path, err_str(text.err));
	buf_free(&text);
	return e;
}
