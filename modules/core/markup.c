/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * markup.c - Markdown cut into pieces and rendered as chat HTML.
 *
 * A subset of GitHub Flavored Markdown, read the way models mean it rather
 * than by the letter of CommonMark: fences may be indented by any amount, "*"
 * may touch punctuation. Nothing here can fail on input: what is not
 * understood is shown as it was written, escaped.
 *
 * Balance holds by construction. Blocks are a line machine with two flags
 * (quote open, fence open) which the end closes. Inside a run of text a first
 * pass pairs the delimiters on a stack: a closer takes the nearest opener of
 * its kind and drops every opener above it, so pairs nest; only paired
 * delimiters become tags in the second pass. Links and code spans are atoms
 * that both passes skip with the same functions.
 *
 * Cost: runs are bounded by the marks array, links by LINK_*_MAX, so a hostile
 * text costs a constant per byte, apart from searching the end of code spans.
 */
#include "core/markup.h"

#define FENCE_MAX 32                  /* a longer run of backticks is text, not a fence */
#define INFO_MAX 32                   /* bytes of a language word */
#define INDENT_MAX 32                 /* blanks kept before the first word of a piece */
#define MARKS_MAX 256                 /* delimiters paired in one paragraph; more stay literal */
#define LINK_TEXT_MAX 1024            /* bytes */
#define LINK_URL_MAX 2048
#define TABLE_COLUMNS_MAX 20

static const char *const link_schemes[] = { "http://", "https://", "tg://", "mailto:" };

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

/* A byte of a word; every byte of a non-ASCII character counts as one. */
static bool
is_word(char c)
{
	return !is_blank(c) && !is_punct(c);
}

/* How often s begins with c, from offset i. */
static size_t
run_of(struct str s, size_t i, char c)
{
	size_t n = i;

	while (n < s.n && s.p[n] == c)
		n++;
	return n - i;
}

/* The line at the head of *rest without its end; *rest moves behind it. */
static struct str
take_line(struct str *rest)
{
	struct str line;

	str_cut(rest, '\n', &line);
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

/* Does this line open a fence? Then *run is its run of marks and *info its first word. */
static bool
fence_opens(struct str line, struct str *run, struct str *info)
{
	struct str s = str_trim(line), word;
	size_t n;

	if (s.n < 3 || (s.p[0] != '`' && s.p[0] != '~'))
		return false;
	n = run_of(s, 0, s.p[0]);
	word = str_trim(str_sub(s, n, s.n));
	if (n < 3 || n > FENCE_MAX || (s.p[0] == '`' && str_chr(word, '`') != SIZE_MAX))
		return false;
	for (size_t i = 0; i < word.n; i++)
		if (is_blank(word.p[i]))
			word.n = i;
	*run = str_sub(s, 0, n);
	*info = word.n <= INFO_MAX ? word : STR_NONE;
	return true;
}

static bool
fence_closes(struct str line, struct str run)
{
	struct str s = str_trim(line);

	return s.n >= run.n && s.p[0] == run.p[0] && run_of(s, 0, run.p[0]) == s.n;
}

/* ---- pieces ------------------------------------------------------------------- */

void
markup_split_init(struct markup_split *it, struct str md, size_t max_units)
{
	*it = (struct markup_split){ .rest = md,
	    .max = max_units < MARKUP_PIECE_MIN ? MARKUP_PIECE_MIN : max_units };
}

/* A sentence ends before the blank at i. */
static bool
sentence_end(struct str s, size_t i)
{
	return i > 0 && (s.p[i - 1] == '.' || s.p[i - 1] == '!' || s.p[i - 1] == '?' ||
	    s.p[i - 1] == ':' || s.p[i - 1] == ';');
}

/* Where to cut a text that goes on behind window: the best-liked boundary that still fills a
 * third of it (a word needs only an eighth), else the code point where the window ends. The
 * offset is behind the boundary. Lines inside a fence are no paragraphs. */
static size_t
cut_at(struct str window, struct str fence)
{
	size_t para = 0, line = 0, sentence = 0, word = 0;
	struct str rest = window, l, info;

	while (rest.n) {
		size_t at = (size_t)(rest.p - window.p);

		if (str_trim(l = take_line(&rest)).n == 0 && fence.n == 0 && rest.n)
			para = (size_t)(rest.p - window.p);
		else if (fence.n && fence_closes(l, fence))
			fence = STR_NONE;
		else if (fence.n == 0 && fence_opens(l, &fence, &info))
			line = at > line ? at : line;    /* rather before a fence than inside it */
		if (rest.n && fence.n == 0)
			line = (size_t)(rest.p - window.p);
	}
	if (para >= window.n / 3 && para)
		return para;
	if (line < window.n / 3)                /* a fence fills it: any line then */
		for (size_t i = 0; i < window.n; i++)
			line = window.p[i] == '\n' ? i + 1 : line;
	if (line >= window.n / 3 && line)
		return line;
	for (size_t i = 0; i < window.n; i++)
		if (is_blank(window.p[i])) {
			word = i + 1;
			sentence = sentence_end(window, i) ? i + 1 : sentence;
		}
	if (sentence >= window.n / 3 && sentence)
		return sentence;
	return word >= window.n / 8 && word ? word : window.n;
}

/* The fence that is open after text, which begins inside *fence. */
static void
fence_after(struct str text, struct str *fence, struct str *info)
{
	while (text.n) {
		struct str l = take_line(&text);

		if (fence->n && fence_closes(l, *fence))
			*fence = *info = STR_NONE;
		else if (fence->n == 0)
			(void)fence_opens(l, fence, info);
	}
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
	if (it->fence.n && fence_closes(take_line(&rest), it->fence)) {
		it->fence = it->info = STR_NONE;        /* the piece before closed it already */
		it->rest = skip_blank_lines(rest);
	}
	if (it->rest.n == 0)
		return false;
	if (it->fence.n) {
		buf_str(piece, it->fence);
		buf_str(piece, it->info);
		buf_putc(piece, '\n');
		room -= it->fence.n + utf8_units(it->info) + 1;
	}
	part = utf8_prefix_units(it->rest, room);
	if (part.n < it->rest.n) {
		/* room for "\n```", should the cut fall inside a fence */
		whole = utf8_prefix_units(it->rest, room - FENCE_MAX - 1);
		part = str_sub(whole, 0, cut_at(whole, it->fence));
		if (str_trim(part).n == 0)
			part = whole;
	}
	it->rest = str_sub(it->rest, part.n, it->rest.n);
	fence_after(part, &it->fence, &it->info);
	while (part.n && is_blank(part.p[part.n - 1]))
		part.n--;
	buf_str(piece, part);
	if (it->fence.n && it->rest.n) {
		buf_putc(piece, '\n');
		buf_str(piece, it->fence);
	}
	return true;
}

/* ---- text inside a block ---------------------------------------------------------- */

struct html {
	struct buf *out;
	bool quote;             /* a blockquote is open */
	bool newline;           /* one is due before whatever comes next */
	bool shown;             /* something visible was written */
	struct str fence;       /* run of the open fence; empty: none */
	size_t growth;          /* units that tables may still add */
};

static void
put_text(struct html *h, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		h->shown = h->shown || !is_blank(s.p[i]);
		if (s.p[i] == '&')
			buf_puts(h->out, "&amp;");
		else if (s.p[i] == '<')
			buf_puts(h->out, "&lt;");
		else if (s.p[i] == '>')
			buf_puts(h->out, "&gt;");
		else if (s.p[i] == '"')
			buf_puts(h->out, "&quot;");
		else
			buf_putc(h->out, s.p[i]);
	}
}

/* The newline between lines, when one is due. */
static void
put_break(struct html *h)
{
	if (h->newline)
		buf_putc(h->out, '\n');
	h->newline = false;
}

enum atom_kind { ATOM_NONE, ATOM_LITERAL, ATOM_CODE, ATOM_LINK, ATOM_URL };
struct atom {
	enum atom_kind kind;
	size_t len;             /* bytes of the source */
	struct str text, url;
};

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
url_linkable(struct str url)
{
	for (size_t i = 0; i < ARRAY_LEN(link_schemes); i++)
		if (url.n > strlen(link_schemes[i]) &&
		    str_ieq(str_sub(url, 0, strlen(link_schemes[i])), str_z(link_schemes[i])))
			return true;
	return false;
}

/* "[text](url "title")" at i, where a '[' is. */
static struct atom
link_at(struct str s, size_t i)
{
	struct atom a = { ATOM_NONE, 0, STR_NONE, STR_NONE };
	size_t close = bracket_end(s, i + 1, '[', ']', LINK_TEXT_MAX), end;

	if (close == SIZE_MAX || close + 1 >= s.n || s.p[close + 1] != '(')
		return a;
	end = bracket_end(s, close + 2, '(', ')', LINK_URL_MAX);
	if (end == SIZE_MAX)
		return a;
	a.text = str_sub(s, i + 1, close - i - 1);
	a.url = str_trim(str_sub(s, close + 2, end - close - 2));
	for (size_t k = 0; k < a.url.n && a.url.p[0] != '<'; k++)
		if (is_blank(a.url.p[k]))
			a.url.n = k;                     /* a title follows */
	if (a.url.n > 2 && a.url.p[0] == '<' && a.url.p[a.url.n - 1] == '>')
		a.url = str_sub(a.url, 1, a.url.n - 2);
	a.kind = ATOM_LINK;
	a.len = end + 1 - i;
	return a;
}

/* "`code`" at i, or a run of backticks without a partner, which is text. */
static struct atom
code_at(struct str s, size_t i)
{
	size_t n = run_of(s, i, '`'), k = i + n, m;

	for (; k < s.n; k += m) {
		m = run_of(s, k, '`');
		if (m == n)
			return (struct atom){ ATOM_CODE, k + n - i, str_sub(s, i + n, k - i - n),
			    STR_NONE };
		m += m == 0;
	}
	return (struct atom){ ATOM_LITERAL, n, str_sub(s, i, n), STR_NONE };
}

/* What at i is read as one thing, delimiters inside it ignored. */
static struct atom
atom_at(struct str s, size_t i, bool links)
{
	struct atom a = { ATOM_NONE, 0, STR_NONE, STR_NONE };
	size_t end;

	if (s.p[i] == '\\' && i + 1 < s.n && (is_punct(s.p[i + 1]) || s.p[i + 1] == '\n'))
		return (struct atom){ ATOM_LITERAL, 2, str_sub(s, i + 1, 1), STR_NONE };
	if (s.p[i] == '`')
		return code_at(s, i);
	if (s.p[i] == '[' && links)
		return link_at(s, i);
	if (s.p[i] == '!' && i + 1 < s.n && s.p[i + 1] == '[' && links) {
		a = link_at(s, i + 1);                   /* a picture: shown as its link */
		a.len += a.kind == ATOM_LINK;
	} else if (s.p[i] == '<' && links) {
		end = bracket_end(s, i + 1, '<', '>', LINK_URL_MAX);
		a.url = a.text = end == SIZE_MAX ? STR_NONE : str_sub(s, i + 1, end - i - 1);
		if (url_linkable(a.url) && str_chr(a.url, ' ') == SIZE_MAX) {
			a.kind = ATOM_URL;
			a.len = end + 1 - i;
		}
	}
	return a;
}

enum mark_role { MARK_PENDING, MARK_LITERAL, MARK_OPEN, MARK_CLOSE };
struct mark {
	size_t off, len;
	char c;
	enum mark_role role;
};

/* Pairs the delimiter run s[off, off+n) with open ones; returns how much of it closed something. */
static size_t
close_marks(struct mark *m, size_t *count, size_t off, size_t n, char c)
{
	size_t left = n, k;

	while (left && *count < MARKS_MAX) {
		for (k = *count; k > 0; k--)
			if (m[k - 1].role == MARK_PENDING && m[k - 1].c == c &&
			    m[k - 1].len <= left)
				break;
		if (k == 0)
			break;
		m[k - 1].role = MARK_OPEN;
		for (size_t j = k; j < *count; j++)      /* crossed ones stay text */
			if (m[j].role == MARK_PENDING)
				m[j].role = MARK_LITERAL;
		m[*count] = (struct mark){ off + n - left, m[k - 1].len, c, MARK_CLOSE };
		left -= m[(*count)++].len;
	}
	return n - left;
}

/* First pass: which delimiters of s are pairs. Ascending offsets. */
static size_t
find_marks(struct str s, bool links, struct mark m[MARKS_MAX])
{
	size_t count = 0, n;

	for (size_t i = 0; i < s.n; i += n) {
		char c = s.p[i], before = ' ', after = ' ';
		size_t done = 0;

		n = atom_at(s, i, links).len;
		if (n)
			continue;
		n = 1;
		if (c != '*' && c != '_' && c != '~')
			continue;
		n = run_of(s, i, c);
		if (n > 3 || (c == '~' && n != 2))
			continue;
		if (i)
			before = s.p[i - 1];
		if (i + n < s.n)
			after = s.p[i + n];
		if (!is_blank(before) && (c != '_' || !is_word(after)))
			done = close_marks(m, &count, i, n, c);
		if (is_blank(after) || (c == '_' && is_word(before)))
			continue;
		for (size_t len; done < n && count < MARKS_MAX; done += len) {
			len = n - done >= 2 ? 2 : 1;
			m[count++] = (struct mark){ i + done, len, c, MARK_PENDING };
		}
	}
	return count;
}

static void
put_mark(struct html *h, const struct mark *m)
{
	const char *tag = m->c == '~' ? "s>" : m->len == 2 ? "b>" : "i>";

	buf_puts(h->out, m->role == MARK_OPEN ? "<" : "</");
	buf_puts(h->out, tag);
}

static void put_inline(struct html *h, struct str s, bool links);

static void
put_atom(struct html *h, const struct atom *a)
{
	struct str text = str_trim(a->text).n ? a->text : a->url;

	if (a->kind == ATOM_LITERAL) {
		put_text(h, a->text);
	} else if (a->kind == ATOM_CODE) {
		buf_puts(h->out, "<code>");
		put_text(h, a->text);
		buf_puts(h->out, "</code>");
	} else if (url_linkable(a->url)) {
		buf_puts(h->out, "<a href=\"");
		put_text(h, a->url);
		buf_puts(h->out, "\">");
		if (a->kind == ATOM_LINK && text.p == a->text.p)
			put_inline(h, text, false);
		else
			put_text(h, text);
		buf_puts(h->out, "</a>");
	} else {                                         /* a scheme not to be clicked: in words */
		put_inline(h, a->text, false);
		buf_puts(h->out, " (");
		put_text(h, a->url);
		buf_putc(h->out, ')');
	}
}

/* Second pass: text with its paired delimiters as tags. */
static void
put_inline(struct html *h, struct str s, bool links)
{
	struct mark marks[MARKS_MAX];
	size_t count = find_marks(s, links, marks), k = 0, n;

	for (size_t i = 0; i < s.n; i += n) {
		struct atom a = atom_at(s, i, links);

		n = a.kind == ATOM_NONE ? 1 : a.len;
		if (a.kind != ATOM_NONE) {
			put_atom(h, &a);
			continue;
		}
		if (k < count && marks[k].off == i) {
			n = marks[k].len;
			if (marks[k].role == MARK_OPEN || marks[k].role == MARK_CLOSE)
				put_mark(h, &marks[k]);
			else
				put_text(h, str_sub(s, i, n));
			k++;
			continue;
		}
		put_text(h, str_sub(s, i, 1));
	}
}

/* ---- tables --------------------------------------------------------------------------- */

/* "|---|:--:|": blanks, dashes, colons, pipes; at least one dash and one pipe. */
static bool
is_delimiter_row(struct str line)
{
	for (size_t i = 0; i < line.n; i++)
		if (!strchr("-:| \t", line.p[i]) || line.p[i] == '\0')
			return false;
	return str_chr(line, '-') != SIZE_MAX && str_chr(line, '|') != SIZE_MAX;
}

static bool
table_starts(struct str rest)
{
	struct str head = take_line(&rest);

	return str_chr(head, '|') != SIZE_MAX && is_delimiter_row(take_line(&rest));
}

/* The next cell of a row, trimmed; false at its end. "\|" does not separate. */
static bool
next_cell(struct str *row, struct str *cell)
{
	size_t i = 0;

	if (row->n == 0)
		return false;
	for (; i < row->n && row->p[i] != '|'; i++)
		i += row->p[i] == '\\' && i + 1 < row->n;
	*cell = str_trim(str_sub(*row, 0, i));
	*row = str_sub(*row, i + 1, row->n);
	return true;
}

static struct str
row_of(struct str line)
{
	struct str row = str_trim(line);

	return row.n && row.p[0] == '|' ? str_sub(row, 1, row.n) : row;
}

/* Writes a cell (h NULL: only measures), its marks dropped; the width in code points. */
static size_t
put_cell(struct html *h, struct str cell)
{
	size_t width = 0;

	for (size_t i = 0; i < cell.n; i++) {
		char c = cell.p[i];

		if (c == '`' || (c == '*' && run_of(cell, i, '*') >= 2)) {
			i += c == '*';
			continue;
		}
		if (c == '\\' && i + 1 < cell.n && cell.p[i + 1] == '|')
			c = cell.p[++i];
		width += ((unsigned char)c & 0xC0) != 0x80;
		if (h)
			put_text(h, str_make(&c, 1));
	}
	return width;
}

static void
put_fill(struct html *h, char c, size_t n)
{
	while (n-- > 0 && h->out->err == OK)
		buf_putc(h->out, c);
}

/* Lines of a table, aligned by width. The delimiter row becomes a ruler. */
static void
put_rows(struct html *h, struct str lines, const size_t *width, size_t columns)
{
	bool ruler = false;

	for (size_t r = 0; lines.n; r++) {
		struct str row = row_of(take_line(&lines)), cell;

		ruler = r == 1;
		put_break(h);
		for (size_t c = 0; c < columns; c++) {
			size_t used = 0;

			if (c)
				buf_puts(h->out, ruler ? "-+-" : " | ");
			if (next_cell(&row, &cell) && !ruler)
				used = put_cell(h, cell);
			if (c + 1 < columns || ruler)
				put_fill(h, ruler ? '-' : ' ', width[c] - used);
		}
		h->newline = true;
	}
}

/* A table at the head of *rest, as preformatted text; as it was written when aligning it would
 * add more than the allowance (or it is too wide to be read aligned). */
static void
put_table(struct html *h, struct str *rest)
{
	struct str lines = *rest, walk = *rest, cell;
	size_t width[TABLE_COLUMNS_MAX] = { 0 }, columns = 0, rows = 0, units = 0, line = 0, source;
	bool fits = true;

	for (struct str next = walk; walk.n; walk = next, rows++) {
		struct str l = take_line(&next), row = row_of(l);

		if (str_chr(l, '|') == SIZE_MAX)
			break;
		for (size_t c = 0, w; next_cell(&row, &cell) && fits; c++) {
			fits = c < TABLE_COLUMNS_MAX;
			if (!fits || rows == 1)
				continue;
			w = put_cell(NULL, cell);
			units += utf8_units(cell) - (w < utf8_units(cell) ? w : utf8_units(cell));
			width[c] = w > width[c] ? w : width[c];
			columns = c + 1 > columns ? c + 1 : columns;
		}
	}
	lines.n -= walk.n;
	*rest = walk;
	for (size_t c = 0; c < columns; c++)
		line += width[c] + 3;
	units += line * rows;
	source = utf8_units(lines);
	put_break(h);
	buf_puts(h->out, "<pre>");
	if (fits && units <= source + h->growth) {
		h->growth -= units > source ? units - source : 0;
		put_rows(h, lines, width, columns);
	} else {
		put_text(h, str_trim(lines));
	}
	buf_puts(h->out, "</pre>");
	h->newline = true;
}

/* ---- blocks ---------------------------------------------------------------------------- */

enum block { BLOCK_PLAIN, BLOCK_BLANK, BLOCK_RULE, BLOCK_HEADING, BLOCK_BULLET, BLOCK_NUMBER,
	BLOCK_FENCE, BLOCK_QUOTE };

static bool
is_rule(struct str s)
{
	size_t marks = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == s.p[0])
			marks++;
		else if (!is_blank(s.p[i]))
			return false;
	}
	return marks >= 3 && (s.p[0] == '-' || s.p[0] == '*' || s.p[0] == '_');
}

static enum block
block_of(struct str line)
{
	struct str s = str_trim(line), run, info;
	size_t n = 0;

	if (s.n == 0)
		return BLOCK_BLANK;
	if (s.p[0] == '>')
		return BLOCK_QUOTE;
	if (fence_opens(line, &run, &info))
		return BLOCK_FENCE;
	if (is_rule(s))
		return BLOCK_RULE;
	n = run_of(s, 0, '#');
	if (n >= 1 && n <= 6 && n < s.n && is_blank(s.p[n]))
		return BLOCK_HEADING;
	if (s.n > 2 && strchr("-*+", s.p[0]) && is_blank(s.p[1]))
		return BLOCK_BULLET;
	for (n = 0; n < s.n && s.p[n] >= '0' && s.p[n] <= '9';)
		n++;
	return n && n + 1 < s.n && (s.p[n] == '.' || s.p[n] == ')') && is_blank(s.p[n + 1]) ?
	    BLOCK_NUMBER : BLOCK_PLAIN;
}

static void
close_fence(struct html *h)
{
	if (h->fence.n)
		buf_puts(h->out, "</code></pre>");
	h->newline = h->newline || h->fence.n;
	h->fence = STR_NONE;
}

static void
open_fence(struct html *h, struct str line)
{
	struct str info = STR_NONE;
	bool plain = true;

	if (!fence_opens(line, &h->fence, &info))
		return;                 /* the caller has seen that it does */
	for (size_t i = 0; i < info.n; i++)
		plain = plain && (is_word(info.p[i]) || strchr("+-#._", info.p[i]));
	put_break(h);
	buf_puts(h->out, "<pre><code");
	if (info.n && plain) {
		buf_puts(h->out, " class=\"language-");
		buf_str(h->out, info);
		buf_putc(h->out, '"');
	}
	buf_putc(h->out, '>');
}

/* Opens or closes the quote around a line; *line loses its '>' marks. */
static void
set_quote(struct html *h, struct str *line)
{
	struct str s = str_trim(*line);
	bool quote = s.n && s.p[0] == '>' && (h->quote || h->fence.n == 0);

	while (quote && s.n && s.p[0] == '>') {
		*line = str_sub(s, s.n > 1 && s.p[1] == ' ' ? 2 : 1, s.n);
		s = str_trim(*line);
	}
	if (quote == h->quote)
		return;
	close_fence(h);
	if (quote)
		put_break(h);
	buf_puts(h->out, quote ? "<blockquote>" : "</blockquote>");
	h->newline = !quote;
	h->quote = quote;
}

/* A list item's mark: indentation, then a bullet or a box. The text that follows it. */
static struct str
put_bullet(struct html *h, struct str line)
{
	struct str s = str_trim(line);

	put_fill(h, ' ', (size_t)(s.p - line.p));
	s = str_trim(str_sub(s, 2, s.n));
	if (s.n > 4 && s.p[0] == '[' && s.p[2] == ']' && s.p[3] == ' ' && strchr(" xX", s.p[1])) {
		buf_puts(h->out, s.p[1] == ' ' ? "\u2610 " : "\u2611 ");
		return str_sub(s, 4, s.n);
	}
	buf_puts(h->out, "\u2022 ");
	return s;
}

/* One line outside fences and tables; a paragraph takes the plain lines after it along. */
static void
put_block(struct html *h, struct str line, struct str *rest)
{
	enum block kind = block_of(line);
	struct str s = str_trim(line), next = *rest, l;

	put_break(h);
	h->newline = true;
	if (kind == BLOCK_BLANK)
		return;
	if (kind == BLOCK_RULE) {
		buf_puts(h->out, "\u2014\u2014\u2014");
		h->shown = true;
		return;
	}
	if (kind == BLOCK_HEADING) {
		s = str_trim(str_sub(s, run_of(s, 0, '#'), s.n));
		while (s.n && s.p[s.n - 1] == '#')
			s.n--;
		buf_puts(h->out, "<b>");
		put_inline(h, str_trim(s), true);
		buf_puts(h->out, "</b>");
		return;
	}
	if (kind == BLOCK_BULLET)
		line = put_bullet(h, line);
	while (next.n && !h->quote && !table_starts(next)) {
		l = take_line(&next);
		if (block_of(l) != BLOCK_PLAIN)
			break;
		line.n = (size_t)(l.p + l.n - line.p);
		*rest = next;
	}
	put_inline(h, line, true);
}

void
markup_html(struct buf *out, struct str md)
{
	struct html h = { .out = out, .growth = MARKUP_GROWTH };
	struct str rest = md, line;
	size_t start = out->n;

	while (rest.n && out->err == OK) {
		if (h.fence.n == 0 && !h.quote && table_starts(rest)) {
			put_table(&h, &rest);
			continue;
		}
		line = take_line(&rest);
		set_quote(&h, &line);
		if (h.fence.n && fence_closes(line, h.fence)) {
			h.newline = false;
			close_fence(&h);
		} else if (h.fence.n) {
			put_break(&h);
			put_text(&h, line);
			h.newline = true;
		} else if (block_of(line) == BLOCK_FENCE) {
			open_fence(&h, line);
		} else {
			put_block(&h, line, &rest);
		}
	}
	close_fence(&h);
	if (h.quote)
		buf_puts(out, "</blockquote>");
	if (!h.shown && out->err == OK) {        /* only marks: then they are the text */
		buf_cut(out, start);
		put_text(&h, md);
	}
}
