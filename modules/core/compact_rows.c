/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * compact_rows.c - rows of a conversation in words, and the rows that a new history of it begins with.
 *
 * What stays as it is: the newest message and all that follows it, and exchanges before it as far as they are short. In a
 * turn that has grown too long by itself, its question and its newest rounds of tools. The others become words, for a
 * summary, for facts.c, or as they are when only the outputs of tools made them long.
 */
#include "core/compact.h"

#define TAIL_PERCENT 10                 /* of exchanges before the newest stay as they are, too */
#define FACTS_PERCENT 10
#define FACTS_TOKENS_MIN 1500           /* of them in a small room, but at most a quarter of it */
#define FRESH_PERCENT 20                /* not condensed before: with less it would not pay */
#define FRESH_HARD_PERCENT 2
#define FRESH_ROWS (HISTORY_MESSAGES_MAX / 4)   /* or so many */
#define TURN_PERCENT 50                 /* of a turn that goes on: more, and its own beginning is condensed */
#define RESULT_MIN 500                  /* bytes of a tool's output that stay in any case */
#define TOOL_SHORT 1000                 /* and of an old one */
#define PICTURE_TOKENS 1500
#define SHOWN 20                        /* messages that /history shows */
#define SHOWN_MAX 200
#define SHOWN_BYTES 1000                /* of each */

#define FACTS "Word for word from before:\n\n"
#define READ "I have that in mind."
#define RESULT_START "{\"type\":\"tool_result\""

/* ---- rows in words --------------------------------------------------------------------- */

struct telling {
	struct buf *out;
	const char *user, *assistant;
	size_t text_max, tool_max;      /* bytes; tool_max 0: nothing of tools */
};

static void
put_short(struct buf *out, struct str s, size_t max)
{
	struct str head = utf8_prefix(s, max / 4 * 3), tail = str_sub(s, s.n - max / 4, s.n);

	if (s.n <= max) {
		buf_str(out, s);
		return;
	}
	while (tail.n && ((unsigned char)tail.p[0] & 0xC0) == 0x80)
		tail = str_sub(tail, 1, tail.n);
	buf_fmt(out, "%.*s … (%zu bytes are left out here) … %.*s", STR_ARG(head), s.n - head.n - tail.n, STR_ARG(tail));
}

static void
tell_block(struct telling *t, const struct json *b)
{
	struct str type = json_str(b, "type", STR_NONE), text = json_str(b, "text", STR_NONE);
	const struct json *input = json_at(b, "input");

	if (str_eqz(type, "text")) {
		put_short(t->out, text, t->text_max);
	} else if (str_eqz(type, "image")) {
		buf_puts(t->out, "(a picture)");
	} else if (str_eqz(type, "document")) {
		buf_fmt(t->out, "(a document: %.*s)", STR_ARG(json_str(b, "title", S("without a name"))));
	} else if (t->tool_max && str_eqz(type, "tool_use")) {
		buf_fmt(t->out, "(uses %.*s: ", STR_ARG(json_str(b, "name", STR_NONE)));
		put_short(t->out, input ? input->raw : STR_NONE, t->tool_max);
		buf_putc(t->out, ')');
	} else if (t->tool_max && str_eqz(type, "tool_result")) {
		buf_puts(t->out, FACTS_TOOL);
		put_short(t->out, json_str(b, "content", S("(no text)")), t->tool_max);
	} else {
		return;
	}
	buf_putc(t->out, '\n');
}

/* Of a summary the first paragraph is ours, as is the answer to it. */
static void
tell_row(struct telling *t, const char *role, enum message_kind kind, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
	bool user = role[0] == 'u', summary = kind == MESSAGE_SUMMARY;
	const struct json *blocks = NULL;
	size_t at, from;

	if (role[0] != 's' && (user || !summary) && json_parse(&ar, content, &blocks, NULL) == ERR_NOMEM)
		t->out->err = ERR_NOMEM;        /* one that is damaged says nothing; this one does */
	for (const struct json *b = blocks ? blocks->first : NULL; b && summary; b = b->next) {
		struct str text = json_str(b, "text", STR_NONE);

		at = str_find(text, S("\n\n"));
		buf_fmt(t->out, "%.*s\n", STR_ARG(str_sub(text, at == SIZE_MAX ? text.n : at + 2, text.n)));
	}
	from = t->out->n;
	if (blocks && !summary && str_find(content, S(RESULT_START)) == SIZE_MAX)
		buf_puts(t->out, user ? t->user : t->assistant);
	at = t->out->n;
	for (const struct json *b = blocks && !summary ? blocks->first : NULL; b; b = b->next)
		tell_block(t, b);
	if (t->out->n == at)
		buf_cut(t->out, from);
	arena_free(&ar);
}

/* ---- what stays and what is condensed ------------------------------------------------------ */

static size_t
occurrences(struct str s, struct str of)
{
	size_t n = 0, at;

	for (; (at = str_find(s, of)) != SIZE_MAX; s = str_sub(s, at + of.n, s.n))
		n++;
	return n;
}

int64_t
compact_tokens(const struct compact_plan *p, size_t bytes)
{
	return llm_tokens(p->s->a, p->s->prompt_model, bytes);
}

static bool
take_row(void *arg, const struct message_row *m)
{
	struct compact_plan *p = arg;
	struct compact_row *r;

	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		struct compact_row *grown = arena_array(&p->ar, cap, sizeof(*grown));

		if (grown == NULL)
			return false;
		if (p->n)
			memcpy(grown, p->rows, p->n * sizeof(*grown));
		p->rows = grown;
		p->cap = cap;
	}
	r = &p->rows[p->n++];
	*r = (struct compact_row){ .seq = m->seq, .turn = m->turn, .at = m->created_at, .kind = m->kind,
	    .content = arena_str(&p->ar, m->content),
	    .role = str_eqz(m->role, "assistant") ? "assistant" : str_eqz(m->role, "system") ? "system" : "user" };
	r->tokens = compact_tokens(p, m->content.n) +
	    PICTURE_TOKENS * (int64_t)occurrences(m->content, S("\"source\":{\"type\":\"media\""));
	r->said = r->role[0] == 'u' && m->kind != MESSAGE_SUMMARY && str_find(m->content, S(RESULT_START)) == SIZE_MAX;
	return p->ar.err == OK;
}

void
compact_plan_free(struct compact_plan *p)
{
	arena_free(&p->ar);
	buf_free(&p->source);
}

FALLIBLE
compact_plan(struct compact_plan *p, struct session *s, int64_t room)
{
	struct buf prompt = BUF_INIT(1u << 20);
	enum err e = store_session_prompt(s->a->db, s->id, &prompt);

	*p = (struct compact_plan){ .s = s, .ar = ARENA_INIT(4 * (size_t)REQUEST_MAX), .room = room, .result_max = SIZE_MAX,
	    .source = BUF_INIT(2 * REQUEST_MAX) };
	p->fixed = compact_tokens(p, prompt.n + bus_tools_json(s->a).n);
	buf_free(&prompt);
	if (e == OK || e == ERR_NOTFOUND)
		e = store_messages(s->a->db, s->id, s->history_seq, take_row, p);
	return e != OK ? e : p->ar.err;
}

static void
sum_up(struct compact_plan *p)
{
	p->kept = p->fresh = 0;
	p->results = p->fresh_rows = 0;
	for (size_t i = 0; i < p->n; i++) {
		const struct compact_row *r = &p->rows[i];

		if (r->keep) {
			p->kept += r->tokens;
			p->results += occurrences(r->content, S(RESULT_START));
		} else if (r->kind != MESSAGE_SUMMARY) {
			p->fresh += r->tokens;
			p->fresh_rows++;
		}
	}
}

/* Of a turn that has become too long the question stays, and the newest rounds of tools. */
static void
cut_turn(struct compact_plan *p, size_t question)
{
	int64_t sum = 0;
	size_t from = 0;

	for (size_t i = p->n; i-- > question + 1;) {
		sum += p->rows[i].tokens;
		if (p->rows[i].role[0] == 'a' && p->rows[i - 1].role[0] != 'a' && (from == 0 || sum * 100 <= p->room * TAIL_PERCENT))
			from = i;
	}
	for (size_t i = question + 1; i < from; i++)
		p->rows[i].keep = false;
}

static void
tell_others(struct compact_plan *p)
{
	struct telling t = { &p->source, FACTS_USER, FACTS_ASSISTANT, REQUEST_MAX, TOOL_SHORT };

	for (size_t i = 0; i < p->n; i++)
		if (!p->rows[i].keep)
			tell_row(&t, p->rows[i].role, p->rows[i].kind, p->rows[i].content);
}

static int64_t
facts_tokens(const struct compact_plan *p)
{
	int64_t least = p->room / 4 < FACTS_TOKENS_MIN ? p->room / 4 : FACTS_TOKENS_MIN, most = p->room * FACTS_PERCENT / 100;

	return most > least ? most : least;
}

size_t
compact_facts_max(const struct compact_plan *p)
{
	return (size_t)facts_tokens(p) * 7 / 2;
}

/* What stays is too much by itself: it is cut, or nothing that is done to the others would make it fit. */
static bool
cut_kept(struct compact_plan *p, size_t newest)
{
	int64_t most = p->room * TURN_PERCENT / 100;

	cut_turn(p, newest);
	sum_up(p);
	if (p->results && p->kept > most) {
		p->result_max = (size_t)most * 3 / p->results;
		p->result_max = p->result_max < RESULT_MIN ? RESULT_MIN : p->result_max;
		p->fresh += p->kept - most;
		p->kept = most;
	}
	return p->fixed + p->kept + facts_tokens(p) <= p->room;
}

bool
compact_choose(struct compact_plan *p, bool hard)
{
	size_t newest = p->n, from;
	int64_t sum = 0;

	while (newest > 0 && !p->rows[newest - 1].said)
		newest--;
	if (newest-- == 0)
		return false;
	from = newest;
	for (size_t i = newest; i-- > 0 && p->rows[i].kind != MESSAGE_SUMMARY;) {
		sum += p->rows[i].tokens;
		if (sum * 100 > p->room * TAIL_PERCENT)
			break;
		from = p->rows[i].said ? i : from;
	}
	for (size_t i = from; i < p->n; i++)
		p->rows[i].keep = true;
	sum_up(p);
	if (hard && p->kept * 100 > p->room * TURN_PERCENT && !cut_kept(p, newest))
		return false;
	if (p->fresh * 100 < p->room * (hard ? FRESH_HARD_PERCENT : FRESH_PERCENT) && p->fresh_rows < FRESH_ROWS)
		return false;
	tell_others(p);
	return p->source.err == OK;
}

void
compact_keep_from(struct compact_plan *p, int64_t seq)
{
	for (size_t i = 0; i < p->n; i++)
		p->rows[i].keep = p->rows[i].seq >= seq;
	sum_up(p);
}

/* ---- the new history ------------------------------------------------------------------------- */

static enum err
put_row(struct compact_plan *p, const char *role, enum message_kind kind, int64_t turn, int64_t at, struct str content)
{
	const struct message_row m = { p->s->next_seq++, turn, kind, str_z(role), content, at };

	return store_message_put(p->s->a->db, p->s->id, &m);
}

static void
write_text(struct jw *w, const char *head, struct str text)
{
	struct buf b = BUF_INIT(REQUEST_MAX);

	buf_puts(&b, head);
	buf_str(&b, text);
	jw_obj(w);
	jw_kz(w, "type", "text");
	jw_kstr(w, "text", str_trim(buf_view(&b)));
	jw_end_obj(w);
	w->b->err = w->b->err != OK ? w->b->err : b.err;
	buf_free(&b);
}

/* Without thinking, with outputs of tools that are not too long, and its files in use by the copy. */
static enum err
copy_row(struct compact_plan *p, const struct compact_row *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(r->content.n));
	struct buf out = BUF_INIT(REQUEST_MAX), text = BUF_INIT(REQUEST_MAX);
	const struct json *blocks = NULL;
	struct jw w;
	enum err e = OK;

	if (r->role[0] == 's')
		return put_row(p, r->role, MESSAGE_COPY, r->turn, r->at, r->content);
	if (json_parse(&ar, r->content, &blocks, NULL) == ERR_NOMEM)
		e = ERR_NOMEM;          /* what is damaged is left behind */
	jw_init(&w, &out);
	jw_arr(&w);
	for (const struct json *b = blocks ? blocks->first : NULL; b && e == OK; b = b->next) {
		struct str type = json_str(b, "type", STR_NONE), result = json_str(b, "content", STR_NONE);

		if (str_eqz(type, "thinking") || str_eqz(type, "redacted_thinking"))
			continue;
		if (str_eqz(json_str(b, "source.type", STR_NONE), "media"))
			e = store_media_use(p->s->a->db, json_str(b, "source.hash", STR_NONE), p->s->id, p->s->next_seq);
		if (str_eqz(type, "tool_result") && result.n > p->result_max) {
			buf_reset(&text);
			put_short(&text, result, p->result_max);
			jw_obj(&w);
			jw_kz(&w, "type", "tool_result");
			jw_kstr(&w, "tool_use_id", json_str(b, "tool_use_id", STR_NONE));
			jw_kstr(&w, "content", buf_view(&text));
			if (json_bool(b, "is_error", false))
				jw_kbool(&w, "is_error", true);
			jw_end_obj(&w);
		} else {
			jw_raw(&w, b->raw);
		}
	}
	jw_end_arr(&w);
	if (e == OK)
		e = text.err != OK ? text.err : jw_done(&w);
	if (e == OK && out.n > 2)
		e = put_row(p, r->role, MESSAGE_COPY, r->turn, r->at, buf_view(&out));
	buf_free(&out);
	buf_free(&text);
	arena_free(&ar);
	return e;
}

/* What it begins with says how many messages it stands for, so that each is another one. */
static enum err
put_history(struct compact_plan *p, enum compact_how how, struct str text, struct str facts, int64_t tokens)
{
	static const char *const words[] = { [COMPACT_WHOLE] = ", without what tools said at length", [COMPACT_SUMMARY] = ", in short",
	    [COMPACT_FACTS] = ", but for what follows left out" };
	struct session *s = p->s;
	struct buf out = BUF_INIT(REQUEST_MAX);
	int64_t from = s->next_seq, at = clock_us(), n = 0;
	char head[256];
	struct jw w;
	enum err e = store_messages_count(s->a->db, s->id, &n);

	for (size_t i = 0; i < p->n; i++)
		n -= p->rows[i].keep;
	snprintf(head, sizeof(head), "What was said before in this conversation (%lld messages)%s.\n\n", (long long)n, words[how]);
	jw_init(&w, &out);
	jw_arr(&w);
	write_text(&w, head, text);
	if (facts.n)
		write_text(&w, FACTS, facts);
	jw_end_arr(&w);
	if (e == OK)
		e = jw_done(&w);
	for (size_t i = p->n; i-- > 0;)
		at = p->rows[i].keep ? p->rows[i].at : at;
	if (e == OK)
		e = put_row(p, "user", MESSAGE_SUMMARY, 0, at, buf_view(&out));
	if (e == OK)
		e = put_row(p, "assistant", MESSAGE_SUMMARY, 0, at, S("[{\"type\":\"text\",\"text\":\"" READ "\"}]"));
	for (size_t i = 0; i < p->n && e == OK; i++)
		if (p->rows[i].keep)
			e = copy_row(p, &p->rows[i]);
	buf_free(&out);
	if (e == OK)
		e = store_session_new_history(s->a->db, s->id, from);
	s->history_seq = s->prompt_seq = from;
	s->prompt_tokens = tokens;      /* an estimate: what the router reckons with, until the provider has counted */
	s->cached_until = 0;
	if (e == OK)
		e = store_session_prompt_size(s->a->db, s->id, tokens, from, str_z(s->prompt_model), 0);
	return e == OK ? session_prompt(s) : e;
}

bool
compact_begin(struct compact_plan *p, enum compact_how how, struct str text, struct str facts, int64_t before)
{
	struct agent *a = p->s->a;
	int64_t after = p->fixed + p->kept + compact_tokens(p, text.n + facts.n);

	if (after * 10 >= before * 9)
		return false;
	agent_wrote(a, put_history(p, how, text, facts, after));
	metrics_owe(a, METRIC_COMPACTIONS, how == COMPACT_SUMMARY ? COMPACTION_MODEL : COMPACTION_ARITHMETIC);
	log_info("compact", "%lld -> about %lld tokens, %s; %zu bytes of facts word for word", (long long)before, (long long)after,
	    how == COMPACT_SUMMARY ? "by a model" : "without a model", facts.n);
	return true;
}

/* ---- /history --------------------------------------------------------------------------------------- */

static bool
show_row(void *arg, const struct message_row *m)
{
	struct telling *t = arg;
	char iso[32];
	size_t from = t->out->n, at;

	clock_iso(m->created_at, iso);
	buf_fmt(t->out, "%s%.10s %.5s ", t->out->n ? "\n" : "", iso, iso + 11);
	at = t->out->n;
	tell_row(t, str_eqz(m->role, "user") ? "user" : str_eqz(m->role, "system") ? "system" : "assistant", m->kind, m->content);
	if (t->out->n == at)
		buf_cut(t->out, from);
	return true;
}

FALLIBLE
compact_history(struct agent *a, int64_t session, struct str arg, struct buf *out)
{
	struct telling t = { out, "You: ", "I: ", SHOWN_BYTES, 0 };
	int64_t n = SHOWN;
	enum err e;

	if (arg.n && str_i64(arg, 1, SHOWN_MAX, &n) != OK) {
		buf_fmt(out, "How many messages? /history 50 shows the newest 50, %d at most.", SHOWN_MAX);
		return OK;
	}
	e = store_messages_said(a->db, session, n, show_row, &t);
	if (e == OK && out->n == 0)
		buf_puts(out, "Nothing was said here yet.");
	return e;
}
