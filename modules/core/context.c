/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * context.c - rows -> request.
 *
 * Prompt caches match a byte prefix, so the order is fixed: tools (sorted,
 * rendered once), then the system text this history began with, then the
 * history exactly as it was sent and received, append-only, then the newest
 * user message. Nothing that changes from call to call (a time, a counter)
 * stands in front of anything that does not.
 *
 * Whatever subset of rows survived, the result obeys the API: the first message
 * is the user's, every tool_use is answered in the next message and every
 * tool_result answers one, no empty message. In an undamaged history none of
 * these repairs changes a byte.
 */
#include "core.h"

#define CONTEXT_ARENA (REQUEST_MAX + (8u << 20))
#define INTERRUPTED "[{\"type\":\"tool_result\",\"tool_use_id\":"

struct entry {
	int64_t seq;
	const char *role;
	struct str content;
	bool uses, results;             /* holds tool_use / tool_result blocks */
};
struct rows {
	struct arena *ar;
	struct entry *e;
	size_t n, cap;
	int64_t thinking_seq;           /* before it, thinking blocks are left out */
	enum err err;
};

/* Our writer puts "type" first and escapes quotes inside strings, so these bytes occur only as a block's start. */
static bool
has_block(struct str content, const char *start)
{
	return str_find(content, str_z(start)) != SIZE_MAX;
}
#define USE_START "{\"type\":\"tool_use\""
#define RESULT_START "{\"type\":\"tool_result\""

/* The blocks of a stored content. One that cannot be read for want of memory is not damaged: then
 * there is no request, instead of one that has been "repaired". */
static const struct json *
blocks_of(struct rows *r, struct arena *tmp, struct str content)
{
	const struct json *v = NULL;
	enum err e = json_parse(tmp, content, &v, NULL);

	if (e == ERR_NOMEM)
		r->err = e;
	return e == OK && v->type == JSON_ARRAY ? v->first : NULL;
}

/* Rebuilds a content array from the blocks that keep() wants; same bytes for each. */
static struct str
filter(struct rows *r, struct str content, bool (*keep)(struct rows *r, const struct json *block, struct str arg),
    struct str arg)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(content.n));
	struct buf out = BUF_INIT(content.n + 16);
	const struct json *blocks = blocks_of(r, &tmp, content);
	struct str s = STR_NONE;
	size_t kept = 0;

	if (blocks) {
		buf_putc(&out, '[');
		for (const struct json *b = blocks; b; b = b->next)
			if (keep(r, b, arg)) {
				if (kept++)
					buf_putc(&out, ',');
				buf_str(&out, b->raw);
			}
		buf_putc(&out, ']');
		if (out.err != OK)
			r->err = out.err;
		else if (kept)
			s = arena_str(r->ar, buf_view(&out));
	}
	buf_free(&out);
	arena_free(&tmp);
	return s;
}

static bool
not_thinking(struct rows *r, const struct json *b, struct str arg)
{
	struct str type = json_str(b, "type", STR_NONE);

	(void)r, (void)arg;
	return !str_eqz(type, "thinking") && !str_eqz(type, "redacted_thinking");
}

/* Is id among the tool_use / tool_result blocks of content? */
static bool
names_id(struct rows *r, struct str content, const char *type, const char *member, struct str id)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(content.n));
	bool found = false;

	for (const struct json *b = blocks_of(r, &tmp, content); b && !found; b = b->next)
		found = str_eqz(json_str(b, "type", STR_NONE), type) &&
		    str_eq(json_str(b, member, STR_NONE), id);
	arena_free(&tmp);
	return found;
}

static bool
answers_a_use(struct rows *r, const struct json *b, struct str uses)
{
	return !str_eqz(json_str(b, "type", STR_NONE), "tool_result") ||
	    (uses.n && names_id(r, uses, "tool_use", "id", json_str(b, "tool_use_id", STR_NONE)));
}

static bool
collect(void *arg, const struct message_row *m)
{
	struct rows *r = arg;
	struct entry *e;
	struct str content = m->content;

	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 64;
		struct entry *grown = arena_array(r->ar, cap, sizeof(*grown));

		if (grown == NULL)
			return false;
		if (r->n)
			memcpy(grown, r->e, r->n * sizeof(*grown));
		r->e = grown;
		r->cap = cap;
	}
	if (m->seq < r->thinking_seq && str_eqz(m->role, "assistant")) {
		content = filter(r, content, not_thinking, STR_NONE);
		if (content.n == 0)
			return r->err == OK;
	} else {
		content = arena_str(r->ar, content);
	}
	e = &r->e[r->n++];
	e->seq = m->seq;
	e->role = str_eqz(m->role, "assistant") ? "assistant" : "user";
	e->content = content;
	e->uses = has_block(content, USE_START);
	e->results = has_block(content, RESULT_START);
	return r->ar->err == OK;
}

/* A user message in front of (or merged into) e that answers what nobody answered. */
static struct str
missing_results(struct rows *r, struct str uses, struct str given)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(uses.n));
	struct buf out = BUF_INIT(REQUEST_MAX);
	struct str s = STR_NONE, id;

	for (const struct json *b = blocks_of(r, &tmp, uses); b; b = b->next) {
		id = json_str(b, "id", STR_NONE);
		if (!str_eqz(json_str(b, "type", STR_NONE), "tool_use") ||
		    (given.n && names_id(r, given, "tool_result", "tool_use_id", id)))
			continue;
		buf_puts(&out, out.n ? "," RESULT_START ",\"tool_use_id\":" : INTERRUPTED);
		json_quote(&out, id);
		buf_puts(&out, ",\"content\":\"interrupted: no result was recorded\",\"is_error\":true}");
	}
	if (out.n) {
		/* results come first in their message, then what it already held */
		if (given.n > 2) {
			buf_putc(&out, ',');
			buf_str(&out, str_sub(given, 1, given.n));
		} else {
			buf_putc(&out, ']');
		}
		if (out.err != OK)
			r->err = out.err;
		else
			s = arena_str(r->ar, buf_view(&out));
	}
	buf_free(&out);
	arena_free(&tmp);
	return s;
}

static void
emit(struct llm_message *out, size_t *n, const char *role, struct str content)
{
	out[*n].role = role;
	out[(*n)++].content = content;
}

/* Rows -> messages under the API's rules; out has room for 2 n entries. */
static size_t
repair(struct rows *r, struct llm_message *out)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct entry *e = &r->e[i];
		const struct entry *before = n && i ? &r->e[i - 1] : NULL;
		bool user = strcmp(e->role, "user") == 0;
		struct str open = before && before->uses && strcmp(out[n - 1].role, "assistant") == 0 ?
		    before->content : STR_NONE;
		struct str content = e->content, fixed;

		if (n == 0 && !user)
			continue;
		if (user && e->results)
			content = filter(r, content, answers_a_use, open);
		if (open.n) {
			fixed = missing_results(r, open, user ? content : STR_NONE);
			if (fixed.n && user)
				content = fixed;
			else if (fixed.n)
				emit(out, &n, "user", fixed);
		}
		if (content.n)
			emit(out, &n, e->role, content);
	}
	if (n && r->n && r->e[r->n - 1].uses && strcmp(out[n - 1].role, "assistant") == 0) {
		struct str fixed = missing_results(r, r->e[r->n - 1].content, STR_NONE);

		if (fixed.n)
			emit(out, &n, "user", fixed);
	}
	return n;
}

FALLIBLE
context_render(struct agent *a, int64_t session, const char *model, bool drop_thinking, struct context *out)
{
	struct session *s = session_get(a, session);
	struct rows r = { .ar = &out->arena };
	struct buf system = BUF_INIT(1u << 20);
	struct llm_message *messages;
	enum err e;
	size_t bytes;

	if (s == NULL)
		return ERR_NOTFOUND;
	arena_init(&out->arena, CONTEXT_ARENA);
	r.thinking_seq = drop_thinking ? INT64_MAX : s->thinking_seq;
	e = store_session_prompt(a->db, session, &system);
	if (e == ERR_NOTFOUND)
		e = OK;
	if (e == OK)
		e = store_messages(a->db, session, s->history_seq, collect, &r);
	if (e == OK && r.n > HISTORY_MESSAGES_MAX) {
		r.e += r.n - HISTORY_MESSAGES_MAX;
		r.n = HISTORY_MESSAGES_MAX;
	}
	messages = arena_array(&out->arena, 2 * r.n + 1, sizeof(*messages));
	if (e == OK && messages)
		out->request.n_messages = repair(&r, messages);
	out->request.model = arena_z(&out->arena, str_z(model));
	out->request.max_tokens = llm_max_tokens(a);
	out->request.system = arena_str(&out->arena, buf_view(&system));
	out->request.messages = messages;
	out->request.tools = bus_tools_json(a);
	buf_free(&system);
	if (e == OK)
		e = r.err != OK ? r.err : out->arena.err;
	if (e == OK && out->request.n_messages == 0)
		e = ERR_NOTFOUND;
	if (e != OK) {
		arena_free(&out->arena);
		return e;
	}
	bytes = out->request.system.n + out->request.tools.n;
	for (size_t i = 0; i < out->request.n_messages; i++)
		bytes += messages[i].content.n;
	out->estimated_input = llm_tokens_estimate(bytes);
	return OK;
}

void
context_free(struct context *c)
{
	arena_free(&c->arena);
}
