/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * markup.c - Markdown cut into pieces and rendered as chat HTML.
 *
 * A subset of GitHub Flavored Markdown, read the way models mean it rather
 * than by the letter of CommonMark: fences may be indented by any amount, marks
 * inside a word ("2*3*4", "snake_case") are text. Nothing here can fail on
 * input: what is not understood is shown as it was written, escaped.
 *
 * Balance holds by construction. The text is always in one of four blocks, and
 * only enter() moves it from one to another, closing what it opened. Inside a
 * line a span is found whole, both its ends, before its tags are written; what
 * is between them is a text of its own.
 *
 * Cost: the search for a span's end is bounded by SPAN_MAX and LINK_*_MAX, so a
 * hostile text costs a constant per byte, apart from the end of code spans.
 */
#include "core/markup.h"

#define FENCE_MAX 32                  /* a longer run of backticks is text, not a fence */
#define INFO_MAX 32                   /* bytes of a language word */
#define INDENT_MAX 32                 /* blanks kept before the first word of a piece */
#define SPAN_MAX 2048                 /* bytes of something bold; what is longer stays text */
#define LINK_TEXT_MAX 1024
#define LINK_URL_MAX 2048
#define DEPTH_MAX 8                   /* spans in spans */

static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');   /* those of str_trim */
}

static bool
is_punct(char c)
{
	return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
	    (c >= '{' && c <= '~');
}

/* A letter or digit. Scripts written without spaces have bold words between others: ASCII only. */
static bool
is_word(char c)
{
	return (unsigned char)c < 0x80 && !is_blank(c) && !is_punct(c);
}

/* How often the byte at i is repeated from there on. */
static size_t
run_at(struct str s, size_t i)
{
	size_t n = i;

	while (n < s.n && s.p[n] == s.p[i])
		n++;
	return n - i;
}

/* The length of the word that s begins with. */
static size_t
word_len(struct str s)
{
	size_t n = 0;

	while (n < s.n && !is_blank(s.p[n]))
		n++;
	return n;
}

/* The line at the head of *rest without its end; *rest moves behind it. */
static struct str
take_line(struct str *rest)
{
	struct str line;

	str_cut(rest, '\n', &line);
	while (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

/* Does this line open a fence, or close the one that is open? Then *f is what holds behind it. */
static bool
fence_line(struct markup_fence *f, struct str line)
{
	struct str s = str_trim(line), info;
	size_t n = s.n && (s.p[0] == '`' || s.p[0] == '~') ? run_at(s, 0) : 0;

	if (f->run.n) {
		if (n < f->run.n || n < s.n || s.p[0] != f->run.p[0])
			return false;
		*f = (struct markup_fence){ STR_NONE, STR_NONE };
		return true;
	}
	info = str_trim(str_sub(s, n, s.n));
	if (n < 3 || n > FENCE_MAX || (s.p[0] == '`' && str_chr(info, '`') != SIZE_MAX))
		return false;
	info = str_sub(info, 0, word_len(info));
	f->run = str_sub(s, 0, n);
	f->info = info.n <= INFO_MAX ? info : STR_NONE;
	return true;
}

/* ---- pieces ------------------------------------------------------------------- */

void
markup_split_init(struct markup_split *it, struct str md, size_t max_units)
{
	*it = (struct markup_split){ .rest = md,
	    .max = max_units < MARKUP_PIECE_MIN ? MARKUP_PIECE_MIN : max_units };
}

enum cut { CUT_PARAGRAPH, CUT_LINE, CUT_CODE_LINE, CUT_SENTENCE, CUT_WORD, CUT_COUNT };

/* Where to cut a text that goes on behind window: the last boundary of the best-liked kind that
 * still fills a third of it (a word needs only an eighth), else the code point where the window
 * ends. The offset is behind the boundary. */
static size_t
cut_at(struct str window, struct markup_fence fence)
{
	size_t last[CUT_COUNT] = { 0 }, line = 0;

	for (size_t i = 0; i < window.n; i++) {
		if (!is_blank(window.p[i]))
			continue;
		last[CUT_WORD] = i + 1;
		if (i && strchr(".!?:;", window.p[i - 1]))
			last[CUT_SENTENCE] = i + 1;
		if (window.p[i] == '\n') {
			struct str l = str_sub(window, line, i - line);

			(void)fence_line(&fence, l);
			last[fence.run.n ? CUT_CODE_LINE : str_trim(l).n ? CUT_LINE :
			    CUT_PARAGRAPH] = i + 1;
			line = i + 1;
		}
	}
	for (enum cut k = 0; k < CUT_COUNT; k++)
		if (last[k] && last[k] >= window.n / (k == CUT_WORD ? 8 : 3))
			return last[k];
	return window.n;
}

/* The longest prefix, cut behind a line, with at most max lines that are not blank. */
static struct str
few_lines(struct str s, struct markup_fence fence, size_t max)
{
	struct str rest = s, line;
	size_t n = fence.run.n != 0;

	while (rest.n) {
		size_t at = s.n - rest.n;
		bool inside = fence.run.n != 0;

		line = take_line(&rest);
		(void)fence_line(&fence, line);
		n += !inside && str_trim(line).n;
		if (n > max)
			return str_sub(s, 0, at);
	}
	return s;
}

/* Drops blank lines at the head, not the (sane) indentation of the first visible one. */
static struct str
skip_blank_lines(struct str s)
{
	size_t at = 0, i;

	for (i = 0; i < s.n && is_blank(s.p[i]); i++)
		if (s.p[i] == '\n')
			at = i + 1;
	return str_sub(s, i == s.n || i - at > INDENT_MAX ? i : at, s.n);
}

bool
markup_next(struct markup_split *it, struct buf *piece)
{
	size_t room = it->max;
	struct str part, whole, rest;

	buf_reset(piece);
	it->rest = rest = skip_blank_lines(it->rest);
	if (it->fence.run.n && fence_line(&it->fence, take_line(&rest)))
		it->rest = skip_blank_lines(rest);      /* the piece before closed it already */
	if (it->rest.n == 0)
		return false;
	if (it->fence.run.n) {
		buf_str(piece, it->fence.run);
		buf_str(piece, it->fence.info);
		buf_putc(piece, '\n');
		room -= it->fence.run.n + utf8_units(it->fence.info) + 1;
	}
	part = utf8_prefix_units(it->rest, room);
	if (part.n < it->rest.n) {
		/* room for "\n```", should the cut fall inside a fence */
		whole = utf8_prefix_units(it->rest, room - FENCE_MAX - 1);
		part = str_sub(whole, 0, cut_at(whole, it->fence));
		if (str_trim(part).n == 0)
			part = whole;
	}
	if (it->max_blocks)
		part = few_lines(part, it->fence, it->max_blocks);
	it->rest = str_sub(it->rest, part.n, it->rest.n);
	for (rest = part; rest.n;)
		(void)fence_line(&it->fence, take_line(&rest));
	while (part.n && is_blank(part.p[part.n - 1]))
		part.n--;
	buf_str(piece, part);
	if (it->fence.run.n && it->rest.n) {
		buf_putc(piece, '\n');
		buf_str(piece, it->fence.run);
	}
	return true;
}

/* ---- limits of rich messages -------------------------------------------------------- */

/* Columns of a table's row; 0: it is none. */
static size_t
columns(struct str line)
{
	struct str s = str_trim(line);
	size_t n = 0;

	if (s.n < 2 || s.p[0] != '|' || s.p[s.n - 1] != '|')
		return 0;
	for (size_t i = 1; i < s.n; i++)
		n += s.p[i] == '|' && s.p[i - 1] != '\\';
	return n;
}

/* A line without what nests it too deeply: marks of quotes, steps of two blanks. */
static void
put_shallow(struct buf *out, struct str line)
{
	size_t quotes = 0, blanks = 0, i;

	for (i = 0; i < line.n && (line.p[i] == '>' || line.p[i] == ' ' || line.p[i] == '\t'); i++) {
		quotes += line.p[i] == '>';
		blanks = line.p[i] == '>' ? 0 : blanks + 1;     /* the first behind a mark belongs to it */
		if (quotes + blanks / 2 <= MARKUP_DEPTH_MAX)
			buf_putc(out, line.p[i]);
	}
	buf_str(out, str_sub(line, i, line.n));
	buf_putc(out, '\n');
}

void
markup_tame(struct buf *out, struct str md)
{
	struct markup_fence fence = { STR_NONE, STR_NONE };
	struct str rest = md, line, ahead;
	size_t wide;

	while (rest.n) {
		ahead = rest;
		wide = 0;
		while (!fence.run.n && ahead.n && columns(line = take_line(&ahead)) > 0)
			wide = columns(line) > wide ? columns(line) : wide;
		if (wide > MARKUP_COLUMNS_MAX) {
			buf_puts(out, "````\n");
			while (rest.n && columns(line = take_line(&(struct str){ rest.p, rest.n })) > 0) {
				buf_str(out, take_line(&rest));
				buf_putc(out, '\n');
			}
			buf_puts(out, "````\n");
			continue;
		}
		do {
			line = take_line(&rest);
			(void)fence_line(&fence, line);
			if (fence.run.n) {
				buf_str(out, line);
				buf_putc(out, '\n');
			} else {
				put_shallow(out, line);
			}
		} while (wide && rest.n && columns(take_line(&(struct str){ rest.p, rest.n })) > 0);
	}
	if (out->n && (md.n == 0 || md.p[md.n - 1] != '\n') && out->err == OK)
		buf_cut(out, out->n - 1);       /* the last line had no end */
}

/* ---- spans of a line -------------------------------------------------------------- */

enum block { BLOCK_TEXT, BLOCK_QUOTE, BLOCK_TABLE, BLOCK_CODE };
struct html {
	struct buf *out;
	enum block block;       /* that is open */
	bool newline;           /* one is due before whatever comes next */
	bool shown;             /* something visible was written */
	bool link;              /* inside one: it can hold no other */
	unsigned depth;
};
/* A part of a line that is more than a character. */
struct span {
	size_t len;             /* bytes of the source; 0: there is none */
	const char *tag;        /* NULL: text is shown as it is */
	struct str text, url;
};

static void
put_escaped(struct buf *out, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '&')
			buf_puts(out, "&amp;");
		else if (s.p[i] == '<')
			buf_puts(out, "&lt;");
		else if (s.p[i] == '>')
			buf_puts(out, "&gt;");
		else if (s.p[i] == '"')
			buf_puts(out, "&quot;");
		else
			buf_putc(out, s.p[i]);
	}
}

static void
put_text(struct html *h, struct str s)
{
	h->shown = h->shown || str_trim(s).n > 0;
	put_escaped(h->out, s);
}

/* From i behind an opening bracket to its partner; SIZE_MAX when there is none near. */
static size_t
bracket_end(struct str s, size_t i, char open, char close, size_t max)
{
	size_t depth = 1, end = i + max < s.n ? i + max : s.n;

	for (; i < end; i++) {
		if (s.p[i] == '\\')
			i++;
		else if (s.p[i] == open)
			depth++;
		else if (s.p[i] == close && --depth == 0)
			return i;
	}
	return SIZE_MAX;
}

static bool
is_linkable(struct str url)
{
	static const char *const schemes[] = { "http://", "https://", "tg://", "mailto:" };

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		if (url.n > strlen(schemes[i]) && word_len(url) == url.n &&
		    str_ieq(str_sub(url, 0, strlen(schemes[i])), str_z(schemes[i])))
			return true;
	return false;
}

/* "[text](url)"; of a picture, "![text](url)", the link is all that can be shown. */
static struct span
link_at(struct str s, size_t i)
{
	size_t open = i + (s.p[i] == '!'), close = SIZE_MAX, end = SIZE_MAX;
	struct str text, url;

	if (open < s.n && s.p[open] == '[')
		close = bracket_end(s, open + 1, '[', ']', LINK_TEXT_MAX);
	if (close != SIZE_MAX && close + 1 < s.n && s.p[close + 1] == '(')
		end = bracket_end(s, close + 2, '(', ')', LINK_URL_MAX);
	if (end == SIZE_MAX)
		return (struct span){ .len = 0 };
	text = str_sub(s, open + 1, close - open - 1);
	url = str_sub(s, close + 2, end - close - 2);
	if (str_trim(text).n == 0 || !is_linkable(url))
		return (struct span){ .len = 0 };
	return (struct span){ end + 1 - i, "a", text, url };
}

/* "`code`", or a run of backticks without a partner, which is text. */
static struct span
code_at(struct str s, size_t i)
{
	size_t n = run_at(s, i), m;

	for (size_t k = i + n; k < s.n; k += m) {
		m = run_at(s, k);
		if (s.p[k] == '`' && m == n)
			return (struct span){ k + n - i, "code", str_sub(s, i + n, k - i - n),
			    STR_NONE };
	}
	return (struct span){ .len = n, .text = str_sub(s, i, n) };
}

/* "**bold**", "*it*", "_it_", "~~gone~~": a run of marks ends at the next of its length, and one
 * of three may begin or end two spans at once. A run that has no partner is text. */
static struct span
emphasis_at(struct str s, size_t i)
{
	size_t n = run_at(s, i), len = n == 3 ? 2 : n, m;
	const char *tag = s.p[i] == '~' ? "s" : len == 2 ? "b" : "i";
	bool opens = n <= 3 && (s.p[i] != '~' || n == 2) && i + n < s.n && !is_blank(s.p[i + n]) &&
	    (i == 0 || !is_word(s.p[i - 1]));

	for (size_t k = i + n; opens && k < s.n && k < i + SPAN_MAX; k += m) {
		m = run_at(s, k);
		if (s.p[k] == s.p[i] && (m == len || m == 3) && !is_blank(s.p[k - 1]) &&
		    s.p[k - 1] != '\\' && (k + m == s.n || !is_word(s.p[k + m])))
			return (struct span){ k + m - i, tag,
			    str_sub(s, i + len, k + m - i - 2 * len), STR_NONE };
	}
	return (struct span){ .len = n, .text = str_sub(s, i, n) };
}

static struct span
span_at(const struct html *h, struct str s, size_t i)
{
	switch (h->depth < DEPTH_MAX ? s.p[i] : '\0') {
	case '\\':
		if (i + 1 < s.n && is_punct(s.p[i + 1]))
			return (struct span){ .len = 2, .text = str_sub(s, i + 1, 1) };
		break;
	case '`':
		return code_at(s, i);
	case '!': case '[':
		if (!h->link)
			return link_at(s, i);
		break;
	case '*': case '_': case '~':
		return emphasis_at(s, i);
	default:
		break;
	}
	return (struct span){ .len = 0 };
}

static void
put_line(struct html *h, struct str s)
{
	for (size_t i = 0; i < s.n;) {
		struct span a = span_at(h, s, i);

		if (a.tag == NULL) {
			put_text(h, a.len ? a.text : str_sub(s, i, 1));
		} else {
			buf_fmt(h->out, "<%s", a.tag);
			if (a.url.n) {
				buf_puts(h->out, " href=\"");
				put_escaped(h->out, a.url);
				buf_putc(h->out, '"');
			}
			buf_putc(h->out, '>');
			if (s.p[i] == '`') {
				put_text(h, a.text);
			} else {
				h->depth++;
				h->link = h->link || a.url.n;
				put_line(h, a.text);
				h->link = h->link && !a.url.n;
				h->depth--;
			}
			buf_fmt(h->out, "</%s>", a.tag);
		}
		i += a.len ? a.len : 1;
	}
}

/* ---- blocks ---------------------------------------------------------------------------- */

/* The newline between lines, when one is due. */
static void
put_break(struct html *h)
{
	if (h->newline)
		buf_putc(h->out, '\n');
	h->newline = false;
}

/* What follows is of this block. */
static void
enter(struct html *h, enum block block)
{
	static const char *const open[] = { "", "<blockquote>", "<pre>", "<pre><code" };
	static const char *const close[] = { "", "</blockquote>", "</pre>", "</code></pre>" };

	if (block == h->block)
		return;
	buf_puts(h->out, close[h->block]);
	if (block != BLOCK_TEXT)
		put_break(h);
	buf_puts(h->out, open[block]);
	h->block = block;
}

/* A line that opens or closes a fence; f is what holds behind it. */
static void
put_fence(struct html *h, const struct markup_fence *f)
{
	enter(h, f->run.n ? BLOCK_CODE : BLOCK_TEXT);
	h->newline = f->run.n == 0;
	if (f->info.n) {
		buf_puts(h->out, " class=\"language-");
		put_escaped(h->out, f->info);
		buf_putc(h->out, '"');
	}
	if (f->run.n)
		buf_putc(h->out, '>');
}

/* "|---|:--:|": blanks, dashes, colons, pipes; at least one dash and one pipe. */
static bool
is_delimiter_row(struct str line)
{
	for (size_t i = 0; i < line.n; i++)
		if (!strchr("-:| \t", line.p[i]) || line.p[i] == '\0')
			return false;
	return str_chr(line, '-') != SIZE_MAX && str_chr(line, '|') != SIZE_MAX;
}

/* A line of running text: a heading, an item of a list, or neither. */
static void
put_text_line(struct html *h, struct str line)
{
	struct str s = str_trim(line);
	size_t n = s.n && s.p[0] == '#' ? run_at(s, 0) : 0;

	if (n >= 1 && n <= 6 && n < s.n && is_blank(s.p[n])) {
		buf_puts(h->out, "<b>");
		put_line(h, str_trim(str_sub(s, n, s.n)));
		buf_puts(h->out, "</b>");
		return;
	}
	if (s.n > 2 && strchr("-*+", s.p[0]) && is_blank(s.p[1])) {
		put_text(h, str_sub(line, 0, (size_t)(s.p - line.p)));
		buf_puts(h->out, "\u2022 ");
		line = str_sub(s, 2, s.n);
	}
	put_line(h, line);
}

/* One line outside fences; next is the text behind it. Tables are shown as they were written,
 * in letters of one width. */
static void
put_block_line(struct html *h, struct str line, struct str next)
{
	struct str s = str_trim(line);

	if (s.n && s.p[0] == '>')
		enter(h, BLOCK_QUOTE);
	else if (str_chr(s, '|') != SIZE_MAX &&
	    (h->block == BLOCK_TABLE || is_delimiter_row(take_line(&next))))
		enter(h, BLOCK_TABLE);
	else
		enter(h, BLOCK_TEXT);
	put_break(h);
	while (h->block == BLOCK_QUOTE && s.n && s.p[0] == '>')
		s = str_trim(str_sub(s, 1, s.n));
	if (h->block == BLOCK_TABLE)
		put_text(h, line);
	else
		put_text_line(h, h->block == BLOCK_QUOTE ? s : line);
}

void
markup_html(struct buf *out, struct str md)
{
	struct html h = { .out = out };
	struct markup_fence fence = { STR_NONE, STR_NONE };
	struct str rest = md, line;
	size_t start = out->n;

	while (rest.n && out->err == OK) {
		line = take_line(&rest);
		if (fence_line(&fence, line)) {
			put_fence(&h, &fence);
			continue;
		}
		if (fence.run.n) {
			put_break(&h);
			put_text(&h, line);
		} else {
			put_block_line(&h, line, rest);
		}
		h.newline = true;
	}
	enter(&h, BLOCK_TEXT);
	if (!h.shown && out->err == OK) {        /* only marks: then they are the text */
		buf_cut(out, start);
		put_text(&h, md);
	}
}
