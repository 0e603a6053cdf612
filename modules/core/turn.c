/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * turn.c - one message from its arrival to its delivered reply.
 *
 *   PREPARE --admitted--> CALL --asked--> STREAM --end--> REPLY --delivered--> DONE
 *                          ^  ^             |  |
 *                          |  +--retry------+  +--tool calls--> TOOLS
 *                          +-----------------all answered---------+
 *
 * The state, the round, the attempt, the placeholder and the partial text are
 * columns; a start rebuilds every open turn from its row (docs/DESIGN.md has the
 * table of what it does in each state). The steps are straight-line: PREPARE in
 * turn_prepare.c, CALL and STREAM in turn_call.c, TOOLS in turn_tools.c. The
 * callbacks only record what happened and schedule the driver; turn_run is the
 * driver and the only place that knows stop, deadline and drain.
 *
 * Nothing here waits for a write: a failed one sticks in the transaction, the
 * commit fails, and memory is rebuilt from the rows (agent_wrote).
 */
#include "turn.h"

#include <assert.h>

#define TURN_STEPS_MAX 64               /* steps of one driver run: more means a loop */

struct turns {
	struct map *by_id;
	struct turn *waiting, **waiting_tail;   /* for admission, oldest first */
	size_t n_waiting, n_running;
	struct turn *suspect;           /* runs alone: has seen two deaths */
};

const char *
turn_state_name(enum turn_state s)
{
	static const char *const names[] = { "PREPARE", "CALL", "STREAM", "TOOLS", "REPLY", "DONE" };

	return s < ARRAY_LEN(names) ? names[s] : "?";
}

const char *
turn_outcome_name(enum turn_outcome o)
{
	static const char *const names[] = { "none", "answered", "stopped", "failed", "refused",
	    "no_budget", "set_aside", "length", "calls" };

	return o < ARRAY_LEN(names) ? names[o] : "?";
}

/* ---- small helpers ------------------------------------------------------------------ */

void
turn_save(struct turn *t)
{
	const struct turn_row row = { .id = t->id, .next_at = t->next_at, .round = t->round,
	    .attempt = t->attempt, .deaths = t->deaths, .state = t->state, .outcome = t->outcome,
	    .told = t->told, .waiting = t->waiting };

	agent_wrote(t->a, store_turn_save(t->a->db, &row));
}

void
turn_go(struct turn *t, enum turn_state state)
{
	log_debug("turn", "%s -> %s", turn_state_name(t->state), turn_state_name(state));
	t->state = state;
	turn_save(t);
}


void
turn_log_ids(const struct turn *t)
{
	log_ids(t->s->id, t->id, t->trace.id);
}

void
turn_log(struct agent *a, int64_t id)
{
	const struct turn *t = turn_get(a, id);

	if (t)
		turn_log_ids(t);
}

/* A round is over: whatever kills us now, it was not what this message did before. Asking (again)
 * is no progress, or a message that kills while it is answered would never be counted. */
void
turn_progressed(struct turn *t)
{
	t->avoid = t->refused = 0;
	t->patience = 0;
	t->deaths = 0;
	t->attempt = 0;
	t->next_at = 0;
	if (t->counted > 0)
		t->counted = 0;         /* what could not be counted once is estimated for the rest of the turn */
}

static struct target
target(const struct turn *t)
{
	struct target to = t->s->to;

	to.reply_to = str_z(t->reply_to);
	return to;
}

void
turn_show(struct turn *t, enum partial_what what, struct str delta, struct str tool)
{
	const struct channel *c = agent_channel(t->a, t->s->to.channel);
	const struct partial p = { what, t->id, t->s->id, target(t), buf_view(&t->answer), delta, tool,
	    str_z(t->ref) };

	if (c && c->feature->channel->partial)
		c->feature->channel->partial(c->self, &p);
}

struct str
turn_round_text(const struct turn *t)
{
	return str_sub(buf_view(&t->answer), t->round_from, t->answer.n);
}

void
turn_append(struct turn *t, const char *role, struct str content)
{
	agent_wrote(t->a, store_message_add(t->a->db, t->s->id, t->s->next_seq++, t->id, role, content));
}

/* [blocks{"type":"text","text":…}]; blocks end with a comma, or there are none; blank text is left out. */
void
turn_append_blocks(struct turn *t, const char *role, struct str blocks, struct str text)
{
	struct buf b = BUF_INIT(REQUEST_MAX);

	buf_putc(&b, '[');
	if (str_trim(text).n) {
		buf_str(&b, blocks);
		buf_puts(&b, "{\"type\":\"text\",\"text\":");
		json_quote(&b, text);
		buf_putc(&b, '}');
	} else {
		buf_str(&b, str_sub(blocks, 0, blocks.n - 1));
	}
	buf_putc(&b, ']');
	if (b.err != OK)
		agent_wrote(t->a, b.err);
	else
		turn_append(t, role, buf_view(&b));
	buf_free(&b);
}

static void
append_text(struct turn *t, const char *role, struct str text)
{
	turn_append_blocks(t, role, STR_NONE, text);
}

void
turn_context_drop(struct turn *t)
{
	if (t->context)
		context_free(t->context);
	free(t->context);
	t->context = NULL;
}

/* ---- admission: at most max_sessions conversations work at once ------------------------ */

void
turn_unqueue(struct turn *t)
{
	struct turns *ts = t->a->turns;

	if (!t->waiting)
		return;
	*t->wait_prev = t->wait_next;
	if (t->wait_next)
		t->wait_next->wait_prev = t->wait_prev;
	else
		ts->waiting_tail = t->wait_prev;
	t->waiting = false;
	ts->n_waiting--;
}

/* The first in the queue looks whether it may go on; if so, it wakes the next. */
void
turns_wake(struct agent *a)
{
	if (a->turns->waiting)
		ev_defer(a->ev, &a->turns->waiting->run);
}

/* A message that saw two deaths runs alone, so that the third names the right one. */
bool
turn_admit(struct turn *t)
{
	struct turns *ts = t->a->turns;
	bool suspect = t->deaths >= TURN_DEATHS_MAX - 1;
	size_t limit = (size_t)config_i64(t->a->config, "agent.max_sessions");

	if (t->slot)
		return true;
	if (ts->n_running >= (suspect ? 1 : limit) || ts->suspect)
		return false;
	if (ts->waiting && ts->waiting != t)
		return false;           /* nobody passes those who came before */
	turn_unqueue(t);
	t->slot = true;
	ts->n_running++;
	if (suspect)
		ts->suspect = t;
	ev_timer_in(t->a->ev, &t->deadline, TURN_DEADLINE_US);     /* waiting does not count */
	turns_wake(t->a);                     /* there may be room for one more */
	return true;
}

static void
slot_release(struct turn *t)
{
	struct turns *ts = t->a->turns;

	if (t->slot)
		ts->n_running--;
	t->slot = false;
	if (ts->suspect == t)
		ts->suspect = NULL;
	turns_wake(t->a);                     /* even without a place: it may have been the one woken last */
}

enum step
turn_wait_admission(struct turn *t)
{
	struct turns *ts = t->a->turns;
	const struct target to = target(t);
	struct buf b = BUF_INIT(512);

	if (!t->waiting) {
		t->waiting = true;
		t->wait_next = NULL;
		t->wait_prev = ts->waiting_tail;
		*ts->waiting_tail = t;
		ts->waiting_tail = &t->wait_next;
		ts->n_waiting++;
		turn_save(t);
	}
	if (!t->told) {
		t->told = true;
		turn_save(t);
		buf_fmt(&b, "I am busy with %zu other conversation%s. Your message is kept and will be"
		    " answered as soon as one ends.", ts->n_running, ts->n_running == 1 ? "" : "s");
		agent_wrote(t->a, outbox_put(t->a, OUTBOX_NOTICE, t->s->id, t->id, &to,
		    buf_view(&b), STR_NONE));
		buf_free(&b);
	}
	return WAIT;
}

/* ---- the end of a turn -------------------------------------------------------------------- */

/* Once in an outage people are told that another model answers, and why. */
static void
tell_stand_in(struct turn *t)
{
	struct provider *p = t->missed;
	const char *cause = t->cause[0] || p == NULL ? t->cause : p->health.problem;

	if (p == NULL || (p->told && p != provider_of(t->a, str_z(t->model))))
		return;
	p->told = p != provider_of(t->a, str_z(t->model));
	buf_fmt(&t->answer, "\n\n(%s does not answer at the moment%s%s%s, so this is from %s.)", p->name, cause[0] ? " (" : "", cause,
	    cause[0] ? ")" : "", t->model);
}

/* Once a day people are told that the budget chose a smaller model. */
static void
tell_lowered(struct turn *t)
{
	int64_t today = clock_day_start(clock_us()), told = 0;

	if (!t->lowered)
		return;
	agent_wrote(t->a, store_meta_get(t->a->db, "lowered.told", 0, &told));
	if (told == today)
		return;
	agent_wrote(t->a, store_meta_set(t->a->db, "lowered.told", today));
	buf_fmt(&t->answer, "\n\n(Little of the budget is left, so this is from %s. /cost shows it; /opus and /sonnet choose all the"
	    " same.)", t->model);
}

/* What waits to be said to this person stands in front of the answer. */
static void
show_notes(struct turn *t, struct buf *reply)
{
	enum err e = t->job || t->outcome != OUTCOME_ANSWERED ? OK : heartbeat_show(t->a, t->s->id, reply);

	buf_str(reply, buf_view(&t->answer));
	agent_wrote(t->a, e != OK ? e : reply->err);
}

/* The reply goes to the outbox; text follows what was said in earlier rounds. */
enum step
turn_conclude(struct turn *t, enum turn_outcome outcome, struct str text)
{
	const struct target to = target(t);
	struct buf reply = BUF_INIT(2 * REPLY_MAX);
	enum err e;

	llm_cancel(t->call, NULL);
	t->call = NULL;
	turn_tools_free(t);
	turn_count_drop(t);
	turn_context_drop(t);
	effect_cancel(&t->ask);
	ev_timer_cancel(t->a->ev, &t->timer);
	ev_timer_cancel(t->a->ev, &t->deadline);
	turn_unqueue(t);
	slot_release(t);
	media_drop(t->a, t->inbound);
	if (text.n) {
		if (t->answer.n)
			buf_puts(&t->answer, "\n\n");
		buf_str(&t->answer, text);
	}
	if (str_trim(buf_view(&t->answer)).n == 0 && outcome != OUTCOME_LENGTH && outcome != OUTCOME_CALLS) {
		buf_reset(&t->answer);
		buf_puts(&t->answer, "(The model ended its answer without any text.)");
	}
	if (outcome == OUTCOME_ANSWERED) {
		tell_stand_in(t);
		tell_lowered(t);
	}
	if (t->answer.err == ERR_NOMEM)         /* half a sentence is none */
		agent_wrote(t->a, ERR_NOMEM);
	turn_show(t, PARTIAL_END, STR_NONE, STR_NONE);
	t->outcome = outcome;
	metrics_owe(t->a, METRIC_TURNS, outcome);
	turn_progressed(t);
	turn_go(t, TURN_REPLY);
	show_notes(t, &reply);
	e = outbox_put(t->a, OUTBOX_REPLY, t->s->id, t->id, &to, buf_view(&reply), str_z(t->ref));
	agent_wrote(t->a, e);
	buf_free(&reply);
	log_info("turn", "%s after %lld round%s", turn_outcome_name(outcome), (long long)t->round + 1,
	    t->round ? "s" : "");
	return WAIT;
}

/* What a job asks for, without what stands in front of it for the model. */
struct str
turn_job_text(struct str text)
{
	size_t at = str_find(text, S("\n\n"));

	return str_sub(text, at == SIZE_MAX ? 0 : at + 2, text.n);
}

static void
remind(void *arg, const struct inbound_row *r)
{
	buf_str(arg, turn_job_text(r->text));
}

/* Of a job that cannot be asked at least the text is told. */
enum step
turn_conclude_fail(struct turn *t, enum turn_outcome outcome, const struct fail *f)
{
	struct buf b = BUF_INIT(REPLY_MAX);
	enum step next;

	log_warn("turn", "%s: %s", turn_outcome_name(outcome), f->text);
	if (t->options.n && t->round == 0)      /* a program is told that its request failed: it did not happen */
		agent_wrote(t->a, store_messages_void(t->a->db, t->id));
	if (t->job) {
		agent_wrote(t->a, store_inbound_get(t->a->db, t->inbound, remind, &b));
		buf_fmt(&b, "\n\n(%s)", f->text);
		agent_wrote(t->a, b.err);
	}
	next = turn_conclude(t, outcome, t->job ? buf_view(&b) : str_z(f->text));
	buf_free(&b);
	return next;
}

/* A message whose attachments are refused must not stay in the history, where it would spoil every
 * request to come. */
enum step
turn_leave_out(struct turn *t, struct fail *f)
{
	struct fail whole = FAIL_INIT;

	agent_wrote(t->a, store_messages_void(t->a->db, t->id));
	IGNORE(fail_set(&whole, f->err, "%s This message was left out of the conversation, so you can go on without"
	    " it.", f->text));
	return turn_conclude_fail(t, OUTCOME_FAILED, &whole);
}

/* ---- REPLY, DONE ------------------------------------------------------------------------------------ */

static enum step
step_reply(struct turn *t)
{
	if (!t->delivered)
		return WAIT;
	agent_wrote(t->a, store_inbound_set(t->a->db, t->inbound, INBOUND_DONE));
	turn_go(t, TURN_DONE);
	return NEXT;
}

/* ---- stop and deadline -------------------------------------------------------------------------------- */

/* What was said so far stays, in the chat and (without its thinking) in the history. */
static enum step
interrupt(struct turn *t, struct str note)
{
	struct usage seen = { 0 };
	bool asked = t->call != NULL;

	if (t->state == TURN_STREAM) {
		llm_cancel(t->call, &seen);
		t->call = NULL;
		if (t->result_set && t->result.billed)  /* it ended in this very loop turn: what it cost is known */
			turn_settle(t, &t->result.usage, t->result.usage_known, t->result.request_id);
		else if (asked && !t->result_set)
			turn_settle(t, &seen, false, STR_NONE);
		else
			turn_release(t);
		t->result_set = false;
		turn_step_over(t, STEP_INTERRUPTED, true, S("stopped"));
		if (!t->stop_new && str_trim(turn_round_text(t)).n)
			append_text(t, "assistant", str_trim(turn_round_text(t)));
	} else if (t->state == TURN_TOOLS && t->n_tools) {
		for (size_t i = 0; i < t->n_tools; i++)
			if (t->tools[i].state < STEP_DONE) {
				t->tools[i].state = STEP_INTERRUPTED;
				agent_wrote(t->a, store_step_set(t->a->db, t->tools[i].step, STEP_INTERRUPTED, true,
				    STR_NONE));
			}
		if (!t->stop_new)
			turn_append_results(t);
	}
	return turn_conclude(t, OUTCOME_STOPPED, note);
}

/* ---- the driver -------------------------------------------------------------------------------------------- */

static enum step
step_one(struct turn *t)
{
	if (t->state < TURN_REPLY && t->stop_wanted)
		return interrupt(t, S("(Stopped.)"));
	if (t->state < TURN_REPLY && t->deadline_hit)
		return interrupt(t, S("(I stopped here: this took longer than 30 minutes.)"));
	switch (t->state) {
	case TURN_PREPARE: return turn_prepare(t);
	case TURN_CALL: return turn_call(t);
	case TURN_STREAM: return turn_stream(t);
	case TURN_TOOLS: return turn_tools(t);
	case TURN_REPLY: return step_reply(t);
	case TURN_DONE: case TURN_STATE_COUNT: break;
	}
	return WAIT;
}

static void
turn_run(void *arg)
{
	struct turn *t = arg;
	struct agent *a = t->a;
	enum step r = NEXT;

	assert(!t->running);
	if (a->write_failed)
		return;                 /* memory is about to be rebuilt */
	turn_log_ids(t);
	t->running = true;
	for (int i = 0; r == NEXT && t->state != TURN_DONE && !a->write_failed; i++) {
		assert(i < TURN_STEPS_MAX);
		r = step_one(t);
	}
	t->running = false;
	if (t->state == TURN_DONE && !a->write_failed)
		session_turn_over(t->s);        /* frees t */
	log_ids(0, 0, NULL);
}

/* ---- callbacks: record and schedule -------------------------------------------------------------------------- */

static void
on_deadline(void *arg)
{
	struct turn *t = arg;

	t->deadline_hit = true;
	ev_defer(t->a->ev, &t->run);
}

static void
on_begin(struct effect *e)
{
	struct turn *t = CONTAINER(e, struct turn, begin);

	ev_defer(t->a->ev, &t->run);
}

void
turn_gathered(struct agent *a, int64_t inbound)
{
	struct session *s;
	size_t it = 0;

	while (sessions_next(a, &it, &s))
		if (s->turn && s->turn->inbound == inbound)
			ev_defer(a->ev, &s->turn->run);
}

void
turn_stop(struct turn *t, bool new_history)
{
	if (t->state >= TURN_REPLY || (new_history && t->state == TURN_PREPARE))
		return;
	t->stop_wanted = true;
	t->stop_new = t->stop_new || new_history;
	ev_defer(t->a->ev, &t->run);
}

void
turn_delivered(struct agent *a, int64_t turn)
{
	struct turn *t = turn_get(a, turn);

	if (t == NULL || t->state != TURN_REPLY)
		return;
	t->delivered = true;
	ev_defer(a->ev, &t->run);
}

static enum err
set_ref(struct turn *t, struct str ref)
{
	char *copy = ref.n ? malloc(ref.n + 1) : NULL;

	if (ref.n && copy == NULL)
		return ERR_NOMEM;
	if (copy)
		snprintf(copy, ref.n + 1, "%.*s", STR_ARG(ref));
	free(t->ref);
	t->ref = copy;
	return OK;
}

void
turn_set_ref(struct agent *a, int64_t turn, struct str ref)
{
	struct turn *t = turn_get(a, turn);

	if (t == NULL || t->state >= TURN_REPLY)
		return;
	agent_wrote(a, set_ref(t, ref));
	agent_wrote(a, store_turn_ref(a->db, turn, ref));
}

void
turn_pause(struct agent *a, int64_t turn, bool paused)
{
	struct turn *t = turn_get(a, turn);

	if (t && t->call)
		llm_pause(t->call, paused);
}

/* ---- making, loading, freeing ------------------------------------------------------------------------------------ */

static struct str
id_key(const int64_t *id)
{
	return str_make((const char *)id, sizeof(*id));
}

struct turn *
turn_get(struct agent *a, int64_t id)
{
	return map_get(a->turns->by_id, id_key(&id));
}

static void
take_inbound(void *arg, const struct inbound_row *r)
{
	struct turn *t = arg;

	snprintf(t->reply_to, sizeof(t->reply_to), "%.*s", STR_ARG(r->reply_to));
	t->received_at = r->received_at;
	t->hold_until = r->hold_until;
	t->attachments = r->attachments;
	buf_str(&t->options, r->options);
	t->job = r->kind == INBOUND_JOB;
	t->batch = r->kind == INBOUND_BATCH;
}

static enum err
turn_new(struct session *s, int64_t id, int64_t inbound, struct turn **out)
{
	struct turn *t = calloc(1, sizeof(*t));
	enum err e;

	if (t == NULL)
		return ERR_NOMEM;
	t->inbound = inbound;
	buf_init(&t->options, REQUEST_MAX);
	e = store_inbound_get(s->a->db, inbound, take_inbound, t);
	if (e == OK)
		e = t->options.err;
	if (e != OK) {
		buf_free(&t->options);
		free(t);
		return e;
	}
	t->a = s->a;
	t->s = s;
	t->id = id;
	session_trace(t->a, inbound, &t->trace);
	buf_init(&t->answer, REPLY_MAX);
	buf_init(&t->result_text, REQUEST_MAX);
	buf_init(&t->why, 4096);
	t->begin.run = on_begin;
	t->ask.run = turn_ask;
	ev_defer_init(&t->run, turn_run, t);
	ev_timer_init(&t->timer, turn_run, t);
	ev_timer_init(&t->deadline, on_deadline, t);
	if (map_put(s->a->turns->by_id, id_key(&t->id), t) != OK) {
		buf_free(&t->options);
		free(t);
		return ERR_NOMEM;
	}
	s->turn = t;
	*out = t;
	return OK;
}

FALLIBLE
turn_start(struct session *s, int64_t inbound)
{
	struct turn *t;
	int64_t id;
	enum err e = store_turn_add(s->a->db, s->id, inbound, &id);

	if (e == OK)
		e = store_inbound_set(s->a->db, inbound, INBOUND_TAKEN);
	if (e == OK)
		e = turn_new(s, id, inbound, &t);
	if (e != OK)
		return e;
	/* the message is on disk before anything works on it: were it poison, the next start knows */
	agent_soon(s->a, &t->begin);
	return OK;
}

void
turn_free(struct turn *t)
{
	if (t == NULL)
		return;
	(void)map_del(t->a->turns->by_id, id_key(&t->id));
	llm_cancel(t->call, NULL);
	turn_tools_free(t);
	turn_count_drop(t);
	turn_context_drop(t);
	effect_cancel(&t->begin);
	effect_cancel(&t->ask);
	ev_defer_cancel(&t->run);
	ev_timer_cancel(t->a->ev, &t->timer);
	ev_timer_cancel(t->a->ev, &t->deadline);
	turn_unqueue(t);
	slot_release(t);
	buf_free(&t->answer);
	buf_free(&t->result_text);
	buf_free(&t->why);
	buf_free(&t->options);
	free(t->ref);
	free(t);
}

static void
recover(struct turn *t, bool after_death)
{
	struct agent *a = t->a;
	int64_t partial_bytes = 0;

	if (t->state == TURN_STREAM) {
		agent_wrote(a, store_turn_partial_bytes(a->db, t->id, &partial_bytes));
		t->restart_owed = partial_bytes > 0;    /* cost_load() has booked what was asked and never answered */
		agent_wrote(a, store_turn_partial(a->db, t->id, STR_NONE));
		t->state = TURN_CALL;
		turn_save(t);
	}
	agent_wrote(a, store_steps_interrupt(a->db, t->id));
	if (after_death && t->deaths >= TURN_DEATHS_MAX) {
		log_error("turn", "message %lld set aside: it was being worked on at %d deaths in a row",
		    (long long)t->inbound, TURN_DEATHS_MAX);
		agent_wrote(a, store_outbox_give_up(a->db, t->id));
		(void)turn_conclude(t, OUTCOME_SET_ASIDE, S("(I set this message aside: I was stopped three times in a"
		    " row while working on it. Send it again, perhaps in other words, if you still want it answered.)"));
	}
}

struct loading { struct agent *a; struct turn *t; enum err err; };

static void
load_row(void *arg, const struct turn_row *row)
{
	struct loading *l = arg;
	struct session *s;
	struct turn *t;

	l->err = session_open(l->a, row->session, &s);
	if (l->err == OK)
		l->err = s->turn ? ERR_CORRUPT : turn_new(s, row->id, row->inbound, &t);
	if (l->err != OK)
		return;
	t->state = row->state;
	t->outcome = row->outcome;
	t->round = row->round;
	t->attempt = row->attempt;
	t->next_at = row->next_at;
	t->deaths = row->deaths;
	t->told = row->told;
	buf_str(&t->answer, row->answer);
	t->round_from = t->answer.n;
	l->err = set_ref(t, row->ref) != OK ? ERR_NOMEM : t->answer.err;
	l->t = t;
}

FALLIBLE
turns_load(struct agent *a, bool after_death)
{
	struct id_list ids = { NULL, 0, OK };
	enum err e = store_turns_open(a->db, id_list_add, &ids);

	if (e == OK)
		e = ids.err;
	for (size_t i = 0; i < ids.n && e == OK; i++) {
		struct loading l = { a, NULL, OK };

		e = store_turn_get(a->db, ids.p[i], load_row, &l);
		if (e == OK)
			e = l.err;
		if (e != OK)
			break;
		if (l.t->state == TURN_CALL || l.t->state == TURN_STREAM || l.t->state == TURN_TOOLS)
			(void)turn_admit(l.t);       /* refused, it waits as when it arrived */
		recover(l.t, after_death);
		ev_defer(a->ev, &l.t->run);
	}
	free(ids.p);
	return e;
}

FALLIBLE
turns_new(struct agent *a)
{
	struct turns *ts = calloc(1, sizeof(*ts));

	if (ts == NULL || map_new(&ts->by_id, SESSIONS_LOADED_MAX) != OK) {
		free(ts);
		return ERR_NOMEM;
	}
	ts->waiting_tail = &ts->waiting;
	a->turns = ts;
	return OK;
}

void
turns_free(struct agent *a)
{
	if (a->turns)
		map_free(a->turns->by_id);
	free(a->turns);
	a->turns = NULL;
}

size_t
turns_running(const struct agent *a)
{
	return a->turns->n_running;
}

size_t
turns_waiting(const struct agent *a)
{
	return a->turns->n_waiting;
}

bool
turns_busy(struct agent *a)
{
	return a->turns->n_running > 0;
}
