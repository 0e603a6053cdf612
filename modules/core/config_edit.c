/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_edit.c - changing one value in the text of a configuration file.
 *
 * A configuration belongs to the person who wrote it: its comments, order and
 * blanks stay. So the text is never printed anew from a tree; the parser tells
 * where things stand, and bytes are exchanged or inserted there:
 *
 *   the key is there              its value's bytes are exchanged
 *   its section is { inline }     before the closing brace
 *   its section is [a header]     a line after the section's last own line
 *   its section is dotted keys    the same, a dotted line
 *   no such section               a new [header] at the end of the file
 *
 * The caller checks the whole result before it replaces the file, so what this
 * file would get wrong is refused, not written.
 */
#include "core/config.h"

struct edit {
	struct str text, value;
	struct str segs[CONFIG_SEGMENTS_MAX];
	size_t n;                       /* segments */
	const char *newline;
	struct buf *out;
};

/* "the.key = value" from its part first on, and the text from byte at on. */
static void
assign(struct edit *ed, size_t first, const char *after, size_t at)
{
	config_join(ed->segs + first, ed->n - first, ed->out);
	buf_puts(ed->out, " = ");
	buf_str(ed->out, ed->value);
	buf_puts(ed->out, after);
	buf_str(ed->out, str_sub(ed->text, at, ed->text.n));
}

/* { a = 1 } -> { a = 1, b = 2 } */
static void
insert_inline(struct edit *ed, const struct toml *braces, size_t first)
{
	const struct toml *last = braces->last;
	size_t at;

	while (last && last->type == TOML_TABLE && !last->inline_table)
		last = last->last;      /* of a table made by dotted keys */
	at = last ? last->off + last->len : braces->off + 1;
	buf_str(ed->out, str_sub(ed->text, 0, at));
	buf_puts(ed->out, last ? ", " : " ");
	assign(ed, first, last ? "" : " ", at);
}

/* A line at the end of a section or of what stands before all sections, indented like its first. */
static void
insert_line(struct edit *ed, const struct toml *home, size_t first)
{
	size_t at = home->end, start = home->first ? home->first->key_off : home->key_off;
	bool open = at > 0 && ed->text.p[at - 1] != '\n';

	while (start > 0 && ed->text.p[start - 1] != '\n')
		start--;
	buf_str(ed->out, str_sub(ed->text, 0, at));
	buf_puts(ed->out, open ? ed->newline : "");
	for (; ed->text.p[start] == ' ' || ed->text.p[start] == '\t'; start++)
		buf_putc(ed->out, ed->text.p[start]);
	assign(ed, first, ed->newline, at);
}

static void
append_section(struct edit *ed)
{
	bool open = ed->text.n && ed->text.p[ed->text.n - 1] != '\n';

	buf_str(ed->out, ed->text);
	buf_puts(ed->out, open ? ed->newline : "");
	buf_puts(ed->out, ed->text.n ? ed->newline : "");
	buf_putc(ed->out, '[');
	config_join(ed->segs, ed->n - 1, ed->out);
	buf_fmt(ed->out, "]%s", ed->newline);
	assign(ed, ed->n - 1, ed->newline, ed->text.n);
}

/* Was this table, which has no header, made by [headers] below it and not by dotted keys? */
static bool
by_header(const struct toml *t)
{
	for (; t && t->type == TOML_TABLE && !t->inline_table; t = t->first)
		if (t->header)
			return true;
	return false;
}

static void
apply(struct edit *ed, const struct toml *root, struct str *old)
{
	const struct toml *t = root, *next, *home = root, *braces = NULL;
	size_t depth = 0, header = 0, inside = 0;       /* of t, of home, of braces */

	while (depth < ed->n && (next = toml_get(t, ed->segs[depth]))) {
		t = next;
		depth++;
		if (depth == ed->n || t->type != TOML_TABLE) {
			*old = str_sub(ed->text, t->off, t->len);
			buf_str(ed->out, str_sub(ed->text, 0, t->off));
			buf_str(ed->out, ed->value);
			buf_str(ed->out, str_sub(ed->text, t->off + t->len, ed->text.n));
			return;
		}
		if (t->header) {
			home = t;
			header = depth;
		} else if (t->inline_table) {
			braces = t;
			inside = depth;
		}
	}
	if (braces)
		insert_inline(ed, braces, inside);
	else if (t == home ? depth == ed->n - 1 : !by_header(t))
		insert_line(ed, home, header);
	else
		append_section(ed);
}

enum err
config_edit(struct str text, const char *name, const struct config_key *k, struct str segment,
    struct str value, struct buf *out, struct str *old, struct fail *f)
{
	struct edit ed = { .text = text, .value = value, .out = out };
	struct arena ar = ARENA_INIT(CONFIG_TREE_MAX);
	struct str was = STR_NONE;
	struct toml *root;
	struct toml_error te;
	enum err e;

	ed.n = config_segments(k, segment, ed.segs);
	ed.newline = str_find(text, S("\r\n")) != SIZE_MAX ? "\r\n" : "\n";
	e = toml_parse(&ar, text, &root, &te);
	if (e == OK) {
		apply(&ed, root, &was);
		e = out->err;
	}
	if (e == OK)
		*old = was;
	else if (e == ERR_PARSE)
		e = config_check(text, name, f);        /* says it in the usual words */
	else
		e = fail_set(f, e, "%s: %s", name, err_str(e));
	arena_free(&ar);
	return e;
}
