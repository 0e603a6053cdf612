/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * turn_prepare.c - PREPARE: a message becomes rows of the conversation, once all that belongs to it is there.
 */
#include "turn.h"

#define CONDITIONAL_MAX (512u << 10)    /* bytes of what stands behind a message: all rules anew, all notes */

static void
take_hold(void *arg, const struct inbound_row *r)
{
	struct turn *t = arg;

	t->hold_until = r->hold_until;
	t->attachments = r->attachments;
}

/* Is the message whole? An album may get another part, attachments may be on their way. */
static bool
gathered(struct turn *t)
{
	int64_t now = clock_us();

	if (t->hold_until) {
		agent_wrote(t->a, store_inbound_get(t->a->db, t->inbound, take_hold, t));
		if (t->hold_until > now && t->hold_until <= now + ALBUM_QUIET_US) {    /* else the clock was set back */
			ev_timer_in(t->a->ev, &t->timer, t->hold_until - now);
			return false;
		}
	}
	return !media_pending(t->a, t->inbound);
}

/* What tier of model the message wants; kept, so that a start finds it. */
static void
classify(struct turn *t, struct str text)
{
	const struct router_message m = { .text = text, .documents = (unsigned)t->attachments, .previous = t->s->tier };

	router_classify(&m, &t->verdict);
	t->s->tier = t->verdict.tier;
	agent_wrote(t->a, store_session_tier(t->a->db, t->s->id, t->s->tier));
}

struct taking { struct turn *t; struct buf blocks, notes; bool empty; };

static void
take_message(void *arg, const struct inbound_row *r)
{
	struct taking *k = arg;
	struct str notes = buf_view(&k->notes);
	struct buf text = BUF_INIT(MESSAGE_MAX + notes.n + 2);

	buf_str(&text, notes);
	if (notes.n && r->text.n)
		buf_putc(&text, '\n');
	buf_str(&text, r->text);
	k->empty = k->blocks.n == 0 && str_trim(r->text).n == 0;
	classify(k->t, k->t->job ? turn_job_text(r->text) : r->text);
	if (text.err != OK)
		agent_wrote(k->t->a, text.err);
	else if (!k->empty)
		turn_append_blocks(k->t, "user", buf_view(&k->blocks), buf_view(&text));
	buf_free(&text);
}

static void
put_result(struct buf *out, struct str id, struct str content, bool failed)
{
	buf_puts(out, "{\"type\":\"tool_result\",\"tool_use_id\":");
	json_quote(out, id);
	buf_puts(out, ",\"content\":");
	json_quote(out, content);
	buf_puts(out, failed ? ",\"is_error\":true}," : "},");
}

struct resuming { struct buf *out; const struct json *results; };

/* A call of the answer that waited: our own have their result, the program brings its own. */
static void
put_awaited(void *arg, const struct step_row *s)
{
	struct resuming *k = arg;
	const struct json *r = k->results ? k->results->first : NULL;

	if (!s->tool)
		return;
	while (r && !str_eq(json_str(r, "id", STR_NONE), s->call_id))
		r = r->next;
	if (s->state != STEP_CLIENT)
		put_result(k->out, s->call_id, s->state == STEP_INTERRUPTED ? str_z(INTERRUPTED) : s->output,
		    s->failed || s->state == STEP_INTERRUPTED);
	else if (r)
		put_result(k->out, s->call_id, json_str(r, "content", STR_NONE), false);
	else
		put_result(k->out, s->call_id, S("the program gave no result"), true);
}

/* What a program's message brings beside its words and files: results of its tools, and what it says of how to
 * answer, where that has changed: it stands here, so that nothing before it moves. */
static enum err
put_options(struct turn *t, struct buf *out)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(t->options.n));
	const struct json *o = NULL;
	enum err e = t->options.n ? json_parse(&ar, buf_view(&t->options), &o, NULL) : OK;
	struct str text = json_str(o, "instructions", STR_NONE);
	struct resuming k = { out, json_at(o, "results") };
	struct turn_row tip = { .id = 0 };

	if (e == OK)
		e = store_session_tip(t->a->db, t->s->id, &tip);
	if (e == OK && tip.outcome == OUTCOME_CALLS)
		e = store_steps(t->a->db, tip.id, tip.round, put_awaited, &k);
	else if (k.results)             /* of calls that only the program's own history has */
		for (const struct json *r = k.results->first; r; r = r->next)
			put_result(out, json_str(r, "id", STR_NONE), json_str(r, "content", STR_NONE), false);
	if (text.n) {
		buf_puts(out, "{\"type\":\"text\",\"text\":");
		json_quote(out, text);
		buf_puts(out, "},");
	}
	arena_free(&ar);
	return e != OK ? e : out->err;
}

/* The message joins the history; false when nothing of it can be read, k->notes says why. */
static bool
append_message(struct turn *t, struct taking *k)
{
	enum err e = put_options(t, &k->blocks);

	if (e == OK && t->attachments)
		e = media_blocks(t->a, t->inbound, t->s->id, t->s->next_seq, &k->blocks, &k->notes);
	if (e == OK)
		e = store_inbound_get(t->a->db, t->inbound, take_message, k);
	agent_wrote(t->a, e);
	return !k->empty;
}

/* What else the model has to know from here on: it stands behind the message and stays there. */
static void
append_conditional(struct turn *t)
{
	struct buf text = BUF_INIT(CONDITIONAL_MAX), json = BUF_INIT(6 * CONDITIONAL_MAX);
	size_t most = context_bytes(t->a, "context.conditional_budget");
	int64_t seen, newest;
	enum err e = store_session_rules(t->a->db, t->s->id, &seen, &newest);

	if (e == OK && newest > seen) {
		e = rules_changes(t->a, t->s->user, seen, most, &text);
		if (e == OK)
			e = store_session_rules_told(t->a->db, t->s->id, newest);
	}
	if (e == OK)
		e = heartbeat_tell(t->a, t->s->id, most, &text);
	if (e == OK && text.n) {
		json_quote(&json, buf_view(&text));
		e = text.err != OK ? text.err : json.err;
		if (e == OK)
			turn_append(t, "system", buf_view(&json));
	}
	agent_wrote(t->a, e);
	buf_free(&text);
	buf_free(&json);
}

enum step
turn_prepare(struct turn *t)
{
	struct agent *a = t->a;
	struct taking k = { t, BUF_INIT(REQUEST_MAX), BUF_INIT(REPLY_MAX), false };
	enum step next = NEXT;

	if (a->phase == AGENT_DRAINING)
		return WAIT;            /* stays resumable */
	if (!gathered(t)) {
		if (t->waiting) {       /* a late part of its album: meanwhile others go first */
			turn_unqueue(t);
			turn_save(t);
			turns_wake(a);
		}
		return WAIT;
	}
	if (!turn_admit(t))
		return turn_wait_admission(t);
	agent_wrote(a, session_prompt(t->s));
	if (append_message(t, &k)) {
		append_conditional(t);
		turn_go(t, TURN_CALL);
	}
	else
		next = turn_conclude(t, OUTCOME_FAILED, buf_view(&k.notes));
	buf_free(&k.blocks);
	buf_free(&k.notes);
	return next;
}
