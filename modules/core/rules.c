/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * rules.c - standing instructions: /rules
 *
 * A rule belongs to a person and is a row, told to the model word for word. The
 * prompt of each new history has those that are in force; what changes while a
 * history runs is told beside the next message, so that nothing before it moves.
 */
#include "core.h"

#define HEADING "\n\nStanding instructions of the person you talk with. They hold always:\n"

struct writing { struct buf *out; size_t n; };

static void
list_rule(void *arg, const struct rule_row *r)
{
	struct writing *w = arg;

	buf_fmt(w->out, "%s%lld. %.*s", w->n++ ? "\n" : "", (long long)r->number, STR_ARG(r->text));
}

/* Appends to a prompt the rules in force. */
FALLIBLE
rules_prompt(struct agent *a, int64_t user, struct buf *out)
{
	struct buf list = BUF_INIT((RULES_MAX + 1) * (RULE_BYTES_MAX + 32));
	struct writing w = { &list, 0 };
	enum err e = store_rules(a->db, user, 0, list_rule, &w);

	if (e == OK && w.n) {
		buf_puts(out, HEADING);
		buf_str(out, buf_view(&list));
	}
	e = e != OK ? e : list.err;
	buf_free(&list);
	return e;
}

static void
tell_change(void *arg, const struct rule_row *r)
{
	struct writing *w = arg;

	if (w->n++)
		buf_putc(w->out, '\n');
	if (r->removed)
		buf_fmt(w->out, "Standing instruction %lld no longer holds.", (long long)r->number);
	else
		buf_fmt(w->out, "New standing instruction %lld, which holds from now on: %.*s", (long long)r->number,
		    STR_ARG(r->text));
}

FALLIBLE
rules_changes(struct agent *a, int64_t user, int64_t seen, size_t most, struct buf *out)
{
	struct writing w = { out, 0 };
	size_t from = out->n;
	enum err e = store_rules(a->db, user, seen, tell_change, &w);

	if (e != OK || out->n <= most)
		return e;
	buf_cut(out, from);
	buf_puts(out, "The standing instructions have changed. No other holds any longer than these:");
	return rules_prompt(a, user, out);
}

/* ---- /rules ------------------------------------------------------------------------------------- */

static void
show(struct agent *a, int64_t user, struct buf *out)
{
	struct writing w = { out, 0 };

	buf_puts(out, "Your standing instructions (the model is told them, in every conversation of yours):\n");
	agent_wrote(a, store_rules(a->db, user, 0, list_rule, &w));
	if (w.n == 0) {
		buf_reset(out);
		buf_puts(out, "There are no standing instructions.");
	}
	buf_puts(out, "\n\n/rules add TEXT adds one, /rules remove NUMBER takes one away.");
}

/* They stand in every request: is there room for one more? */
static bool
has_room(struct agent *a, int64_t user, struct str text, struct buf *out)
{
	struct buf prompt = BUF_INIT(2u << 20);
	enum err e = agent_prompt(a, &prompt);
	size_t most = context_bytes(a, "context.static_budget"), n;
	int64_t tokens;

	if (e == OK)
		e = rules_prompt(a, user, &prompt);
	n = prompt.n + text.n + bus_tools_json(a).n + (str_find(buf_view(&prompt), S(HEADING)) == SIZE_MAX ? sizeof(HEADING "1. ") :
	    sizeof("\n1. ")) - 1;
	buf_free(&prompt);
	agent_wrote(a, e);
	if (e != OK || n <= most)
		return e == OK;
	tokens = llm_tokens_estimate(n);
	buf_fmt(out, "There is no room for it: what begins every request (instructions, tools, standing instructions) would have about"
	    " %lld tokens and may have %lld. Take one away with /rules remove NUMBER, or allow more: `blufio config set"
	    " context.static_budget %lld`, then `blufio reload`.", (long long)tokens,
	    (long long)config_i64(a->config, "context.static_budget"), (long long)(tokens / 1000 + 1) * 1000);
	return false;
}

static void
add(struct agent *a, int64_t user, struct str text, struct buf *out)
{
	int64_t n = 0, number = 0;
	enum err e = store_rules_count(a->db, user, &n);

	if (text.n == 0)
		buf_puts(out, "What shall hold? /rules add TEXT");
	else if (text.n > RULE_BYTES_MAX)
		buf_fmt(out, "An instruction has at most %d bytes; this one has %zu.", RULE_BYTES_MAX, text.n);
	else if (e == OK && n >= RULES_MAX)
		buf_fmt(out, "There are %d standing instructions already; take one away first: /rules remove NUMBER", RULES_MAX);
	else if (e == OK && has_room(a, user, text, out) && (e = store_rule_add(a->db, user, text, &number)) == OK)
		buf_fmt(out, "From now on, and in every conversation of yours:\n%lld. %.*s", (long long)number, STR_ARG(text));
	agent_wrote(a, e);
}

static void
take_away(struct agent *a, int64_t user, struct str arg, struct buf *out)
{
	int64_t number;
	bool found = false;

	if (str_i64(arg, 1, INT64_MAX, &number) != OK) {
		buf_puts(out, "Which one? /rules remove NUMBER, with a number that /rules shows.");
		return;
	}
	agent_wrote(a, store_rule_remove(a->db, user, number, &found));
	buf_fmt(out, found ? "Instruction %lld no longer holds." : "There is no instruction %lld. /rules shows those there are.",
	    (long long)number);
}

void
rules_word(struct agent *a, int64_t user, struct str arg, struct buf *out)
{
	struct str word;

	(void)str_cut(&arg, ' ', &word);
	arg = str_trim(arg);
	if (word.n == 0 || str_eqz(word, "list"))
		show(a, user, out);
	else if (str_eqz(word, "add"))
		add(a, user, arg, out);
	else if (str_eqz(word, "remove"))
		take_away(a, user, arg, out);
	else
		buf_puts(out, "/rules shows your standing instructions, /rules add TEXT adds one, /rules remove NUMBER takes one"
		    " away.");
}
