/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config_edit.c - changing one value in the text of a configuration file.
 *
 * A configuration belongs to the person who wrote it: its comments, order and
 * blanks stay. So the text is never printed anew from a tree; the parser tells
 * where things stand, and bytes are exchanged or inserted there:
 *
 *   the key is there              its value's bytes are exchanged
 *   its section is [a header]     a line after the section's last own line
 *   its section is { inline }     before the closing brace
 *   its section is dotted keys    a dotted line after the last of them
 *   no such section               a new [header] at the end of the file
 *
 * The caller checks the whole result before it replaces the file, so what this
 * file would get wrong is refused, not written.
 */
#include "core/config.h"

#define SEGMENTS_MAX 3                  /* of a key's name */
#define TREE_MAX (32u << 20)

struct edit {
	struct str text, value;
	struct buf *out;
	struct str segs[SEGMENTS_MAX];
	size_t n;                       /* segments */
	const char *newline;
};

static void
path_of(struct edit *ed, const struct config_key *k, struct str segment)
{
	struct str rest = str_z(k->name), head;

	while (rest.n && ed->n < SEGMENTS_MAX) {
		(void)str_cut(&rest, '.', &head);
		ed->segs[ed->n++] = str_eqz(head, "*") ? segment : head;
	}
}

/* Segments from..to as a dotted name. */
static void
dotted(struct edit *ed, size_t from, size_t to)
{
	size_t i;

	for (i = from; i < to; i++) {
		buf_puts(ed->out, i > from ? "." : "");
		config_segment_put(ed->segs[i], ed->out);
	}
}

static void
assignment(struct edit *ed, size_t from)
{
	dotted(ed, from, ed->n);
	buf_puts(ed->out, " = ");
	buf_str(ed->out, ed->value);
}

/* Everything from byte at on follows what was inserted. */
static void
rest(struct edit *ed, size_t at)
{
	buf_str(ed->out, str_sub(ed->text, at, ed->text.n));
}

static void
exchange(struct edit *ed, size_t off, size_t len)
{
	buf_str(ed->out, str_sub(ed->text, 0, off));
	buf_str(ed->out, ed->value);
	rest(ed, off + len);
}

/* A line of its own at byte at, which is the end or the beginning of a line; indented like the
 * line on which byte like stands. */
static void
insert_line(struct edit *ed, size_t at, size_t like, size_t from)
{
	size_t start = like, end;
	bool open = at > 0 && ed->text.p[at - 1] != '\n';

	while (start > 0 && ed->text.p[start - 1] != '\n')
		start--;
	for (end = start; end < like && (ed->text.p[end] == ' ' || ed->text.p[end] == '\t'); end++)
		;
	buf_str(ed->out, str_sub(ed->text, 0, at));
	if (open)
		buf_puts(ed->out, ed->newline);
	buf_str(ed->out, str_sub(ed->text, start, end - start));
	assignment(ed, from);
	if (!open || at == ed->text.n)
		buf_puts(ed->out, ed->newline);
	rest(ed, at);
}

/* The newest value of a table, looking into tables made by dotted keys. */
static const struct toml *
last_value(const struct toml *table)
{
	const struct toml *n = table->last;

	while (n && n->type == TOML_TABLE && !n->inline_table && n->last)
		n = n->last;
	return n;
}

/* { a = 1 } -> { a = 1, b = 2 } */
static void
insert_inline(struct edit *ed, const struct toml *table, size_t depth)
{
	const struct toml *last = last_value(table);
	size_t at = last ? last->off + last->len : table->off + 1;

	buf_str(ed->out, str_sub(ed->text, 0, at));
	buf_puts(ed->out, last ? ", " : " ");
	assignment(ed, depth);
	buf_puts(ed->out, last ? "" : " ");
	rest(ed, at);
}

static void
append_section(struct edit *ed)
{
	bool open = ed->text.n && ed->text.p[ed->text.n - 1] != '\n';

	buf_str(ed->out, ed->text);
	buf_puts(ed->out, open ? ed->newline : "");
	buf_puts(ed->out, ed->text.n ? ed->newline : "");
	buf_putc(ed->out, '[');
	dotted(ed, 0, ed->n - 1);
	buf_fmt(ed->out, "]%s", ed->newline);
	assignment(ed, ed->n - 1);
	buf_puts(ed->out, ed->newline);
}

/* The end of the line on which the newest value under a dotted table ends. */
static size_t
after_dotted(const struct edit *ed, const struct toml *table, size_t *like)
{
	const struct toml *n = last_value(table);
	size_t at;

	*like = n->key_off;
	for (at = n->off + n->len; at < ed->text.n && ed->text.p[at] != '\n'; at++)
		;
	return at < ed->text.n ? at + 1 : at;
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
	const struct toml *t = root, *next, *braces = NULL;
	size_t depth = 0, at, like;
	size_t header = 0, inside = 0;  /* depths of the nearest [header] or root, and of braces */

	while (depth < ed->n && (next = toml_get(t, ed->segs[depth]))) {
		t = next;
		depth++;
		if (depth == ed->n || t->type != TOML_TABLE) {
			*old = str_sub(ed->text, t->off, t->len);
			exchange(ed, t->off, t->len);
			return;
		}
		header = t->header ? depth : header;
		braces = t->inline_table ? t : braces;
		inside = t->inline_table ? depth : inside;
	}
	if (braces) {
		insert_inline(ed, braces, inside);
	} else if (t->header && depth == header && depth == ed->n - 1) {
		insert_line(ed, t->end, t->first ? t->first->key_off : t->key_off, depth);
	} else if (t != root && depth > header && t->last && !by_header(t)) {
		at = after_dotted(ed, t, &like);
		insert_line(ed, at, like, header);
	} else {
		append_section(ed);
	}
}

enum err
config_edit(struct str text, const char *name, const struct config_key *k, struct str segment,
    struct str value, struct buf *out, struct str *old, struct fail *f)
{
	struct edit ed = { .text = text, .value = value, .out = out };
	struct arena ar = ARENA_INIT(TREE_MAX);
	struct str was = STR_NONE;
	struct toml *root;
	struct toml_error te;
	enum err e;

	path_of(&ed, k, segment);
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
