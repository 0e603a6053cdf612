/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * lineedit.c - a line editor for the terminal, driven by bytes.
 *
 * Every byte run ends in one redraw of one screen row: a line wider than the
 * window scrolls sideways, because rows that wrap cannot be taken away reliably
 * when the window changes its size or other text is printed above.
 *
 * The line is valid UTF-8 always and the cursor stands on a character's first
 * byte. Control bytes never enter it, except line breaks and tabs of a paste,
 * which are drawn as one cell each.
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
#define HISTORY_BYTES_MAX ((LINEEDIT_HISTORY_MAX + 1) * (HISTORY_ENTRY_MAX + 1))
#define BREAK_BYTE 0x1e                 /* a line break inside an entry of the history */
#define BREAK_SIGN "\xe2\x86\xb5"       /* a pasted line break as it is drawn */

struct lineedit {
	int in_fd, out_fd;
	bool tty, raw, active, hidden, paste;
	bool cr;                        /* the newest pasted control byte was CR */
	struct termios cooked;          /* as it was before */
	struct buf pending, line, draw;
	size_t cursor;                  /* bytes into line */
	char prompt[PROMPT_MAX];
	struct buf history;             /* as in its file: one line an entry */
	size_t n_history;               /* entries */
	size_t at;                      /* where the one shown begins; at the end: line itself */
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

/* Draws the row: prompt, and the part of the line around the cursor that fits. */
static void
redraw(struct lineedit *le)
{
	struct str line = buf_view(&le->line);
	size_t cols = COLUMNS_DEFAULT, used = width(str_z(le->prompt)), room, i, w, first;
	struct winsize ws;

	if (!le->active || le->hidden)
		return;
	if (ioctl(le->out_fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col)
		cols = ws.ws_col;
	room = cols > used + 2 ? cols - used - 1 : 1;
	for (first = le->cursor, w = 0; first > 0; first = i) {
		i = prev_at(line, first);
		if ((w += cells(line, i)) > room - 1)
			break;
	}
	buf_reset(&le->draw);
	buf_fmt(&le->draw, "\r%s", le->prompt);
	for (i = first, w = 0; i < line.n && w + cells(line, i) <= room; i = next_at(line, i)) {
		w += cells(line, i);
		if (line.p[i] == '\n')
			buf_puts(&le->draw, BREAK_SIGN);
		else if (line.p[i] == '\t')
			buf_putc(&le->draw, ' ');
		else
			buf_str(&le->draw, str_sub(line, i, next_at(line, i) - i));
	}
	w = used + width(str_sub(line, first, le->cursor - first));
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

/* Where the entry before byte at of the history begins, and the one behind it. */
static size_t
older(const struct lineedit *le, size_t at)
{
	at = at ? at - 1 : 0;
	while (at > 0 && le->history.p[at - 1] != '\n')
		at--;
	return at;
}

static size_t
newer(const struct lineedit *le, size_t at)
{
	size_t n = str_chr(str_sub(buf_view(&le->history), at, le->history.n), '\n');

	return n == SIZE_MAX ? at : at + n + 1;
}

static void
show_history(struct lineedit *le, size_t at)
{
	struct str rest = str_sub(buf_view(&le->history), at, le->history.n), entry;
	size_t i;

	if (at == le->at)
		return;
	(void)str_cut(&rest, '\n', &entry);
	if (le->at == le->history.n) {
		buf_reset(&le->kept);
		buf_str(&le->kept, buf_view(&le->line));
	}
	if (le->kept.err != OK ||       /* better no history than a lost line */
	    !splice(le, 0, le->line.n, at < le->history.n ? entry : buf_view(&le->kept)))
		return;
	for (i = 0; i < le->line.n; i++)
		if (le->line.p[i] == BREAK_BYTE)
			le->line.p[i] = '\n';
	le->at = at;
}

/* What cannot be remembered is left out: a history with a gap is no failure. */
static void
remember(struct lineedit *le, struct str line)
{
	struct buf *h = &le->history;
	size_t i, begin = h->n, last = older(le, begin);
	struct str former, entry;

	if (line.n == 0 || line.n > HISTORY_ENTRY_MAX)
		return;
	for (i = 0; i < line.n; i++)
		buf_putc(h, line.p[i] == '\n' ? BREAK_BYTE : line.p[i]);
	buf_putc(h, '\n');
	former = str_sub(buf_view(h), last, begin - last);
	entry = str_sub(buf_view(h), begin, h->n);
	if (h->err != OK || str_eq(former, entry)) {
		buf_cut(h, begin);
		h->err = OK;
	} else if (++le->n_history > LINEEDIT_HISTORY_MAX) {
		buf_drop(h, newer(le, 0));
		le->n_history--;
	}
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

/* ---- keys -------------------------------------------------------------------------- */

enum act {
	NOTHING, ENTER, INTERRUPT, OLDER, NEWER, CLEAR, PASTE, PASTE_END,
	START, END, LEFT, RIGHT, WORD_LEFT, WORD_RIGHT,         /* where the cursor goes */
	CUT_START, CUT_END, CUT_LEFT, CUT_RIGHT, CUT_WORD       /* from the cursor up to there */
};

/* What terminals send, blanks between; cursor keys may come with 'O' instead of '['. */
static const struct {
	const char *bytes;
	enum act act;
} keys[] = {
	{ "\x01 \x1b[H \x1b[1~ \x1b[7~", START },
	{ "\x05 \x1b[F \x1b[4~ \x1b[8~", END },
	{ "\x02 \x1b[D", LEFT },
	{ "\x06 \x1b[C", RIGHT },
	{ "\x1b" "b \x1b[1;5D \x1b[1;3D", WORD_LEFT },
	{ "\x1b" "f \x1b[1;5C \x1b[1;3C", WORD_RIGHT },
	{ "\r \n", ENTER },
	{ "\x03", INTERRUPT },
	{ "\x10 \x1b[A", OLDER },
	{ "\x0e \x1b[B", NEWER },
	{ "\x0c", CLEAR },
	{ "\x1b[200~", PASTE },
	{ "\x1b[201~", PASTE_END },
	{ "\x15", CUT_START },
	{ "\x0b", CUT_END },
	{ "\x08 \x7f", CUT_LEFT },
	{ "\x04 \x1b[3~", CUT_RIGHT },
	{ "\x17", CUT_WORD },
};

static void
do_key(struct lineedit *le, struct str key, lineedit_fn *fn, void *arg)
{
	struct str line = buf_view(&le->line), rest, bytes = STR_NONE;
	size_t at = le->cursor, to = at, i;
	enum act act = NOTHING;

	for (i = 0; act == NOTHING && i < ARRAY_LEN(keys); i++)
		for (rest = str_z(keys[i].bytes); act == NOTHING && rest.n; ) {
			(void)str_cut(&rest, ' ', &bytes);
			act = str_eq(bytes, key) ? keys[i].act : NOTHING;
		}
	if (le->paste && act != PASTE_END)
		return;
	switch (act) {
	case START: case CUT_START: to = 0; break;
	case END: case CUT_END: to = line.n; break;
	case LEFT: case CUT_LEFT: to = prev_at(line, at); break;
	case RIGHT: case CUT_RIGHT: to = next_at(line, at); break;
	case WORD_LEFT: case CUT_WORD: to = word_left(line, at); break;
	case WORD_RIGHT: to = word_right(line, at); break;
	case ENTER: finish(le, LINEEDIT_LINE, fn, arg); return;
	case INTERRUPT: finish(le, LINEEDIT_INTERRUPT, fn, arg); return;
	case OLDER: show_history(le, older(le, le->at)); return;
	case NEWER: show_history(le, newer(le, le->at)); return;
	case CLEAR: emit(le, S("\x1b[H\x1b[2J")); return;
	case PASTE: case PASTE_END: le->paste = act == PASTE; return;
	case NOTHING: return;
	}
	if (str_eqz(key, "\x04") && line.n == 0)        /* Ctrl-D has two meanings */
		finish(le, LINEEDIT_EOF, fn, arg);
	else if (act >= CUT_START)
		(void)splice(le, at < to ? at : to, at < to ? to : at, STR_NONE);
	else
		le->cursor = to;
}

/* ---- bytes ------------------------------------------------------------------------- */

/* Each take_ function uses up the start of s and says how much; 0 when more bytes are needed. */

static size_t
take_key(struct lineedit *le, struct str s, lineedit_fn *fn, void *arg)
{
	char key[SEQUENCE_MAX + 1];
	size_t n = 1;

	if (s.p[0] == 0x1b) {
		if (s.n < 2)
			return 0;
		n = s.p[1] == 0x1b ? 1 : 2;
		if (s.p[1] == '[' || s.p[1] == 'O') {
			while (n < s.n && n < SEQUENCE_MAX && s.p[n] >= 0x20 && s.p[n] < 0x40)
				n++;
			if (n++ == s.n)
				return 0;
		}
	}
	memcpy(key, s.p, n);
	if (n == 3 && key[1] == 'O')
		key[1] = '[';
	do_key(le, str_make(key, n), fn, arg);
	return n;
}

/* A character, or a line break or tab of a paste: other control bytes do not belong to the line. */
static size_t
take_character(struct lineedit *le, struct str s)
{
	unsigned char c = (unsigned char)s.p[0];
	size_t len, need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
	bool lf_of_crlf = c == '\n' && le->cr;

	le->cr = c == '\r';
	if (utf8_decode(s, &len) == UTF8_BAD)
		return len == s.n && len < need && c >= 0xc2 && c <= 0xf4 ? 0 : len;
	s = c == '\r' ? S("\n") : str_sub(s, 0, len);
	if ((c >= 0x20 && c != 0x7f) || c == '\t' || (c <= '\r' && s.p[0] == '\n' && !lf_of_crlf))
		(void)splice(le, le->cursor, le->cursor, s);
	return len;             /* the rest is dropped, and what can never become valid */
}

enum err
lineedit_feed(struct lineedit *le, struct str bytes, lineedit_fn *fn, void *arg)
{
	size_t used = 1, at = 0;
	struct str s;
	bool control;
	enum err e;

	buf_str(&le->pending, bytes);
	e = le->pending.err;
	le->pending.err = OK;
	while (le->active && at < le->pending.n && used > 0) {
		s = str_sub(buf_view(&le->pending), at, le->pending.n);
		control = (unsigned char)s.p[0] < 0x20 || s.p[0] == 0x7f;
		if (s.p[0] == 0x1b || (control && !le->paste))
			used = take_key(le, s, fn, arg);
		else
			used = take_character(le, s);
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
	buf_init(&le->history, HISTORY_BYTES_MAX);
	*out = le;
	return OK;
}

void
lineedit_free(struct lineedit *le)
{
	if (!le)
		return;
	lineedit_hide(le);
	IGNORE(set_raw(le, false));     /* the terminal is gone, then */
	buf_free(&le->pending);
	buf_free(&le->line);
	buf_free(&le->kept);
	buf_free(&le->history);
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
	le->cursor = 0;
	le->at = le->history.n;
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
	for (rest = buf_view(&text); rest.n; ) {
		(void)str_cut(&rest, '\n', &line);
		if (utf8_valid(line))
			remember(le, line);
	}
	le->at = le->history.n;
	buf_free(&text);
	return e == OK || e == ERR_NOTFOUND ? OK : fail_set(f, e, "%s", why.text);
}

enum err
lineedit_history_save(const struct lineedit *le, const char *path, struct fail *f)
{
	return file_replace(path, buf_view(&le->history), 0600, f);
}
