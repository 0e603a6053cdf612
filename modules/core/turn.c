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
 * table of what it does in each state). The steps below are straight-line; the
 * callbacks at the bottom only record what happened and schedule the driver;
 * turn_run is the driver and the only place that knows stop, deadline and drain.
 *
 * Nothing here waits for a write: a failed one sticks in the transaction, the
 * commit fails, and memory is rebuilt from the rows (agent_wrote).
 */
#include "core.h"

#include <assert.h>

#define TURN_STEPS_MAX 64               /* steps of one driver run: more means a loop */
#define COUNT_MARGIN 20                 /* a twentieth: what the provider counts is "an estimate", as it says */
#define PROMPT_MOST 10000000            /* tokens: no window is that large; who says so is not believed */
#define ROUTE_FRESH 300                 /* tokens of a usual message, */
#define ROUTE_ANSWER 500                /* and of a usual answer, for the router's sums */
#define CONDITIONAL_MAX (512u << 10)    /* bytes of what stands behind a message: all rules anew, all notes */
#define BUDGET_AGAIN_US (500 * US_PER_MS)       /* when others have reserved what is left */
#define INTERRUPTED "interrupted: the agent was stopped while this tool ran; it was not run again, and whether it took" \
	" effect is unknown"
#define OUT_OF_MEMORY "I ran out of memory while preparing the request. Please send it again."

enum step { NEXT, WAIT };

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

static void
save(struct turn *t)
{
	const struct turn_row row = { .id = t->id, .next_at = t->next_at, .round = t->round,
	    .attempt = t->attempt, .deaths = t->deaths, .state = t->state, .outcome = t->outcome,
	    .told = t->told, .waiting = t->waiting };

	agent_wrote(t->a, store_turn_save(t->a->db, &row));
}

static void
go(struct turn *t, enum turn_state state)
{
	log_debug("turn", "%s -> %s", turn_state_name(t->state), turn_state_name(state));
	t->state = state;
	save(t);
}

/* A round is over: whatever kills us now, it was not what this message did before. Asking (again)
 * is no progress, or a message that kills while it is answered would never be counted. */
static void
progress(struct turn *t)
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

static void
partial(struct turn *t, enum partial_what what, struct str delta, struct str tool)
{
	const struct channel *c = agent_channel(t->a, t->s->to.channel);
	const struct partial p = { what, t->id, t->s->id, target(t), buf_view(&t->answer), delta, tool,
	    str_z(t->ref) };

	if (c && c->feature->channel->partial)
		c->feature->channel->partial(c->self, &p);
}

static struct str
round_text(const struct turn *t)
{
	return str_sub(buf_view(&t->answer), t->round_from, t->answer.n);
}

static void
append(struct turn *t, const char *role, struct str content)
{
	agent_wrote(t->a, store_message_add(t->a->db, t->s->id, t->s->next_seq++, t->id, role, content));
}

/* [blocks{"type":"text","text":…}]; blocks end with a comma, or there are none; blank text is left out. */
static void
append_blocks(struct turn *t, const char *role, struct str blocks, struct str text)
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
		append(t, role, buf_view(&b));
	buf_free(&b);
}

static void
append_text(struct turn *t, const char *role, struct str text)
{
	append_blocks(t, role, STR_NONE, text);
}

static void
tools_free(struct turn *t)
{
	for (size_t i = 0; i < t->n_tools; i++) {
		struct tool_run *r = &t->tools[i];

		effect_cancel(&r->start);
		invocation_cancel(r->inv);
		free(r->name);
		free(r->output);
	}
	free(t->tools);
	t->tools = NULL;
	t->n_tools = 0;
}

/* The provider is asked no more how large the request is. */
static void
count_drop(struct turn *t)
{
	if (t->counting)
		provider_of(t->a, str_z(t->model))->feature->provider->cancel(t->counting);
	t->counting = NULL;
}

static void
context_drop(struct turn *t)
{
	if (t->context)
		context_free(t->context);
	free(t->context);
	t->context = NULL;
}

/* ---- admission: at most max_sessions conversations work at once ------------------------ */

static void
unqueue(struct turn *t)
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
static bool
admit(struct turn *t)
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
	unqueue(t);
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

static enum step
wait_for_admission(struct turn *t)
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
		save(t);
	}
	if (!t->told) {
		t->told = true;
		save(t);
		buf_fmt(&b, "I am busy with %zu other conversation%s. Your message is kept and will be"
		    " answered as soon as one ends.", ts->n_running, ts->n_running == 1 ? "" : "s");
		agent_wrote(t->a, outbox_put(t->a, OUTBOX_NOTICE, t->s->id, t->id, &to,
		    buf_view(&b), STR_NONE));
		buf_free(&b);
	}
	return WAIT;
}

/* ---- what its call costs -------------------------------------------------------------------- */

/* u: what is known; final: by the provider's last word. */
static void
settle(struct turn *t, const struct usage *u, bool final, struct str request_id)
{
	if (t->reservation)
		agent_wrote(t->a, cost_settle(t->a, t->reservation, u, final, request_id));
	t->reservation = 0;
}

static void
release(struct turn *t)
{
	if (t->reservation)
		agent_wrote(t->a, cost_release(t->a, t->reservation));
	t->reservation = 0;
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
static enum step
conclude(struct turn *t, enum turn_outcome outcome, struct str text)
{
	const struct target to = target(t);
	struct buf reply = BUF_INIT(2 * REPLY_MAX);
	enum err e;

	llm_cancel(t->call, NULL);
	t->call = NULL;
	tools_free(t);
	count_drop(t);
	context_drop(t);
	effect_cancel(&t->ask);
	ev_timer_cancel(t->a->ev, &t->timer);
	ev_timer_cancel(t->a->ev, &t->deadline);
	unqueue(t);
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
	partial(t, PARTIAL_END, STR_NONE, STR_NONE);
	t->outcome = outcome;
	metrics_owe(t->a, METRIC_TURNS, outcome);
	progress(t);
	go(t, TURN_REPLY);
	show_notes(t, &reply);
	e = outbox_put(t->a, OUTBOX_REPLY, t->s->id, t->id, &to, buf_view(&reply), str_z(t->ref));
	agent_wrote(t->a, e);
	buf_free(&reply);
	log_info("turn", "%s after %lld round%s", turn_outcome_name(outcome), (long long)t->round + 1,
	    t->round ? "s" : "");
	return WAIT;
}

/* What a job asks for, without what stands in front of it for the model. */
static struct str
job_text(struct str text)
{
	size_t at = str_find(text, S("\n\n"));

	return str_sub(text, at == SIZE_MAX ? 0 : at + 2, text.n);
}

static void
remind(void *arg, const struct inbound_row *r)
{
	buf_str(arg, job_text(r->text));
}

/* Of a job that cannot be asked at least the text is told. */
static enum step
conclude_fail(struct turn *t, enum turn_outcome outcome, const struct fail *f)
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
	next = conclude(t, outcome, t->job ? buf_view(&b) : str_z(f->text));
	buf_free(&b);
	return next;
}

/* A message whose attachments are refused must not stay in the history, where it would spoil every
 * request to come. */
static enum step
leave_out(struct turn *t, struct fail *f)
{
	struct fail whole = FAIL_INIT;

	agent_wrote(t->a, store_messages_void(t->a->db, t->id));
	IGNORE(fail_set(&whole, f->err, "%s This message was left out of the conversation, so you can go on without"
	    " it.", f->text));
	return conclude_fail(t, OUTCOME_FAILED, &whole);
}

/* ---- PREPARE ------------------------------------------------------------------------------ */

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
	classify(k->t, k->t->job ? job_text(r->text) : r->text);
	if (text.err != OK)
		agent_wrote(k->t->a, text.err);
	else if (!k->empty)
		append_blocks(k->t, "user", buf_view(&k->blocks), buf_view(&text));
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
			append(t, "system", buf_view(&json));
	}
	agent_wrote(t->a, e);
	buf_free(&text);
	buf_free(&json);
}

static enum step
step_prepare(struct turn *t)
{
	struct agent *a = t->a;
	struct taking k = { t, BUF_INIT(REQUEST_MAX), BUF_INIT(REPLY_MAX), false };
	enum step next = NEXT;

	if (a->phase == AGENT_DRAINING)
		return WAIT;            /* stays resumable */
	if (!gathered(t)) {
		if (t->waiting) {       /* a late part of its album: meanwhile others go first */
			unqueue(t);
			save(t);
			turns_wake(a);
		}
		return WAIT;
	}
	if (!admit(t))
		return wait_for_admission(t);
	agent_wrote(a, session_prompt(t->s));
	if (append_message(t, &k)) {
		append_conditional(t);
		go(t, TURN_CALL);
	}
	else
		next = conclude(t, OUTCOME_FAILED, buf_view(&k.notes));
	buf_free(&k.blocks);
	buf_free(&k.notes);
	return next;
}

/* ---- CALL ----------------------------------------------------------------------------------- */

static void
wait_until(struct turn *t, int64_t at)
{
	t->next_at = at;
	save(t);
	ev_timer_in(t->a->ev, &t->timer, at - clock_us());
}

static void on_text(void *arg, struct str delta);
static void on_result(void *arg, const struct llm_result *r);

/* Nobody refused anything: memory or descriptors are short, or a file went after the request was rendered. The next
 * try renders it anew. */
static void
log_turn(const struct turn *t)
{
	log_ids(t->s->id, t->id, t->trace.id);
}

void
turn_log(struct agent *a, int64_t id)
{
	const struct turn *t = turn_get(a, id);

	if (t)
		log_turn(t);
}

static void
failed_to_ask(struct turn *t, enum err e)
{
	t->result = (struct llm_result){ .class = LLM_RETRY,
	    .retry_after_us = -1, .detail = str_z(err_str(e)) };
	t->result_set = true;
	ev_defer(t->a->ev, &t->run);
}

/* After the commit: the one place where a model is asked. */
static void
ask(struct effect *eff)
{
	static const struct llm_sink sink = { on_text, on_result };
	struct turn *t = CONTAINER(eff, struct turn, ask);
	enum err e;

	log_turn(t);
	e = llm_start(t->a, &t->context->request, &sink, t, &t->call);
	context_drop(t);
	if (e != OK)
		failed_to_ask(t, e);
	if (!t->begun || t->restart_owed)       /* after the question: hints wait, answers should not */
		partial(t, t->restart_owed ? PARTIAL_RESTART : PARTIAL_BEGIN, STR_NONE, STR_NONE);
	t->begun = true;
	t->restart_owed = false;
	log_ids(0, 0, NULL);
}

/* The models that stand there without being asked for are Claude's: with another default provider all tiers are its. */
const char *
turn_tier_model(struct agent *a, enum tier tier)
{
	static const char *const keys[] = { NULL, "routing.simple_model", "routing.standard_model", "routing.complex_model" };
	struct str id = config_str(a->config, keys[tier]);

	return id.n && (config_has(a->config, keys[tier]) || provider_of(a, id) == a->provider) ? id.p : llm_model(a);
}

/* The router's choice for a new message; empty: it has none. */
static void
route(struct turn *t)
{
	struct agent *a = t->a;
	struct session *s = t->s;
	struct model_info info[TIER_COUNT];
	struct router_case c = { .need = s->tier ? s->tier : TIER_STANDARD, .prefix = s->prompt_tokens, .fresh = ROUTE_FRESH,
	    .output = ROUTE_ANSWER, .turns = ROUTER_TURNS };
	struct router_choice choice;
	struct cost_room room;
	struct fail f = FAIL_INIT;

	snprintf(t->intended, sizeof(t->intended), "%s", turn_tier_model(a, c.need));
	for (enum tier i = TIER_SIMPLE; i < TIER_COUNT; i++) {
		if (cost_model(a, turn_tier_model(a, i), &info[i], &f) != OK || (t->attachments && info[i].images_max == 0))
			continue;
		c.models[i] = &info[i];
		if (strcmp(s->prompt_model, info[i].id) == 0) {
			c.now = i;
			c.cached[i] = s->cached_until > clock_us() && s->prompt_seq > s->history_seq ? s->prompt_tokens : 0;
		}
	}
	if (cost_cap(a, 0, &room) == OK && room.cap > 0) {
		c.cap = room.cap;
		c.left = room.cap - room.spent - room.reserved;
	}
	for (int i = t->lower; i > 0 && c.need > TIER_SIMPLE; i--)
		c.need--;
	router_choose(&c, &choice);
	if (t->lower)                   /* by the budget, whatever the caches hold */
		choice = (struct router_choice){ .tier = c.models[c.need] ? c.need : choice.tier, .move = choice.move, .lowered = true,
		    .stay = -1, .go = -1 };
	if (choice.tier == TIER_NONE)
		return;
	snprintf(t->wanted, sizeof(t->wanted), "%s", turn_tier_model(a, choice.tier));
	t->lowered = choice.lowered;
	buf_reset(&t->why);
	router_why(&t->verdict, &choice, &t->why);
}

/* The model that should answer: the conversation's own, the one for all, or the router's. A turn keeps its model. */
static void
want_model(struct turn *t)
{
	struct agent *a = t->a;
	struct str force = config_str(a->config, "routing.force_model");

	t->wanted[0] = '\0';
	if (t->s->model[0])
		snprintf(t->wanted, sizeof(t->wanted), "%s", t->s->model);
	else if (force.n)
		snprintf(t->wanted, sizeof(t->wanted), "%.*s", STR_ARG(force));
	else if (t->round && t->s->prompt_model[0] && !t->lower)
		snprintf(t->wanted, sizeof(t->wanted), "%s", t->s->prompt_model);
	else if (config_bool(a->config, "routing.enabled") && !a->provider->feature->provider->offline &&
	    config_str(a->config, "routing.simple_model").n &&
	    strcmp(turn_tier_model(a, TIER_SIMPLE), turn_tier_model(a, TIER_COMPLEX)) != 0)
		route(t);
	if (t->wanted[0] == '\0')
		snprintf(t->wanted, sizeof(t->wanted), "%s", llm_model(a));
	if (t->intended[0] == '\0')
		snprintf(t->intended, sizeof(t->intended), "%s", t->wanted);
}

/* Which model is asked: the one that should be, or one that stands in. ERR_BUSY: in a moment. */
static enum err
choose_model(struct turn *t, struct fail *f)
{
	struct agent *a = t->a;
	const char *model;
	const struct provider *p;
	int64_t wait;
	char span[32];

	want_model(t);
	model = provider_choose(a, t->wanted, t->avoid | t->refused);
	if (model == NULL && t->avoid) {        /* all have failed this call: once more, from the first */
		t->avoid = 0;
		model = provider_choose(a, t->wanted, t->refused);
	}
	p = provider_of(a, str_z(t->wanted));
	if (model) {
		if (strcmp(t->model, model) != 0)
			t->counted = 0;         /* another counts otherwise */
		snprintf(t->model, sizeof(t->model), "%s", model);
		return OK;
	}
	wait = provider_wait(a, t->wanted);
	if (t->patience == 0)
		t->patience = clock_mono_us() + BREAKER_WAIT_US;
	if (clock_mono_us() + wait <= t->patience) {
		wait_until(t, clock_us() + (wait > BUDGET_AGAIN_US ? wait : BUDGET_AGAIN_US));
		return ERR_BUSY;
	}
	clock_span(wait > US_PER_S ? wait : US_PER_S, span);
	return fail_set(f, ERR_IO, "The model provider %s does not answer (%s)%s. I try again in %s; please send your message"
	    " again then. /cost, /rules and /help work meanwhile.", p->name, p->health.problem,
	    config_argv(a->config, "providers.fallback") ? ", nor do those that could stand in" : "", span);
}

/* Thinking is bound to the model that thought it. */
static void
drop_strange_thinking(struct turn *t)
{
	struct session *s = t->s;

	if (s->prompt_model[0] == '\0' || strcmp(s->prompt_model, t->model) == 0 || s->thinking_seq == s->next_seq)
		return;
	s->thinking_seq = s->next_seq;
	agent_wrote(t->a, store_session_drop_thinking(t->a->db, s->id, s->next_seq));
}

/* Renders the request; ERR_* becomes a sentence, ERR_DENIED says that this message is what is refused. */
static enum err
prepare_call(struct turn *t, struct model_info *m, struct fail *f)
{
	struct agent *a = t->a;
	char trace[TRACE_HEADER_SIZE];
	enum err e = choose_model(t, f);

	if (e == OK)
		e = cost_model(a, t->model, m, f);
	if (e != OK)
		return e;
	drop_strange_thinking(t);
	t->context = calloc(1, sizeof(*t->context));
	if (t->context == NULL)
		return fail_set(f, ERR_NOMEM, OUT_OF_MEMORY);
	e = context_render(a, t->s->id, m, false, t->context, f);
	if (e != OK) {
		free(t->context);
		t->context = NULL;
		if (e == ERR_LIMIT && f->text[0])
			return ERR_DENIED;      /* what came with the message is too much */
		return e == ERR_NOMEM ? fail_set(f, e, OUT_OF_MEMORY) :
		    fail_set(f, e, "I could not prepare the request (%s). Send /new to start a fresh"
		    " conversation.", err_str(e));
	}
	if (t->context->request.max_tokens > m->max_output)
		t->context->request.max_tokens = m->max_output;
	if (trace_header(&t->trace, trace) == OK)
		t->context->request.trace = arena_str(&t->context->arena, str_z(trace));
	t->estimate = t->counted > 0 ? t->counted : t->context->estimated_input;
	if (t->counted <= 0 && t->estimate > m->window)
		t->estimate = m->window;        /* more is never asked, so more is never booked */
	return OK;
}

static void
on_counted(void *arg, int64_t tokens)
{
	struct turn *t = arg;

	t->counting = NULL;
	t->counted = tokens > 0 ? tokens : -1;
	ev_defer(t->a->ev, &t->run);
}

/* The provider is asked how large the request is; true: the answer is awaited. It costs nothing and changes nothing, so
 * it needs no commit before it. */
static bool
count(struct turn *t)
{
	const struct provider *p = provider_of(t->a, str_z(t->model));
	const struct provider_ops *ops = p->feature->provider;

	if (t->counted || ops->count == NULL || t->a->paused)
		return false;
	if (ops->count(p->self, &t->context->request, on_counted, t, &t->counting) != OK)
		t->counted = -1;        /* then the estimate has to do */
	return t->counting != NULL;
}

/* A large request, or one with a file whose size nobody can guess, is counted before it is made. */
static bool
count_first(struct turn *t, const struct model_info *m)
{
	return (t->estimate > LLM_COUNT_ABOVE || t->estimate > m->window - m->window / 10 || t->context->documents) && count(t);
}

/* Question and answer share the model's window. What does not fit into it, or into the budget of a request, although what
 * was before it has been condensed, is the message itself. Of what nobody can guess only what was counted is refused. */
static enum err
fit_window(struct turn *t, const struct model_info *m, struct fail *f)
{
	int64_t *answer = &t->context->request.max_tokens, room = m->window - t->estimate;
	int64_t least = *answer < LLM_ANSWER_MIN ? *answer : LLM_ANSWER_MIN, budget = config_i64(t->a->config, "context.budget");

	if (room < least && t->counted > 0)
		return fail_set(f, ERR_DENIED, "With this message a request would have %lld tokens; %s takes %lld. Send it in parts,"
		    " or choose a model that takes more with /model.", (long long)t->estimate, m->id, (long long)m->window);
	if (t->estimate > budget && (t->counted > 0 || !t->context->documents))
		return fail_set(f, ERR_DENIED, "With this message a request would have about %lld tokens; it may have %lld. Send it in"
		    " parts, or allow more: `blufio config set context.budget %lld`, then `blufio reload`.", (long long)t->estimate,
		    (long long)budget, (long long)(t->estimate / 10000 + 1) * 10000);
	if (*answer > room && room >= least) {
		log_info("turn", "the answer may have %lld tokens instead of %lld", (long long)room, (long long)*answer);
		*answer = room;
	}
	if (m->band_above && t->estimate > m->band_above)
		log_info("turn", "about %lld tokens: beyond %lld %s costs %lld times as much", (long long)t->estimate,
		    (long long)m->band_above, m->id, (long long)m->band_factor);
	return OK;
}

/* If so many tokens are too much, what was before the message is condensed; once a round, because then the newest is left.
 * true: render again. */
static bool
condense(struct turn *t, const struct model_info *m, int64_t tokens)
{
	if (t->condensed > t->round || !compact_now(t->s, m, tokens))
		return false;
	t->condensed = t->round + 1;
	t->counted = t->counted > 0 ? 0 : t->counted;
	return true;
}

/* What of the request cannot come from the provider's cache, which rate limits mostly do not count: the last answer
 * and all behind it; everything when there is none. */
static int64_t
uncached(const struct turn *t)
{
	const struct llm_request *r = &t->context->request;
	size_t bytes = 0;

	for (size_t i = r->n_messages; i-- > 0 && !r->messages[i].media;) {
		bytes += r->messages[i].content.n;
		if (strcmp(r->messages[i].role, "assistant") == 0)
			return llm_tokens(t->a, t->model, bytes);
	}
	return t->estimate;
}

/* The most that the call may cost is set aside, and its answer made as short as that takes. What does not fit by a guess
 * is counted first. */
static enum err
reserve(struct turn *t, const struct model_info *m, struct fail *f)
{
	struct llm_request *r = &t->context->request;
	struct cost_order o = { .feature = t->batch ? COST_BATCH : t->job ? COST_JOB : t->round ? COST_TOOL : COST_MESSAGE,
	    .session = t->s->id, .turn = t->id, .user = t->s->user, .model = m, .intended = t->intended, .hour = r->hour,
	    .answer = r->max_tokens, .input = t->context->most_input };
	enum err e;

	if (t->counted > 0)             /* nearly what will be billed */
		o.input = t->counted + t->counted / COUNT_MARGIN + COUNT_MARGIN;
	e = cost_reserve(t->a, &o, &t->reservation, f);
	t->hour = r->hour;
	r->max_tokens = o.answer;
	r->reservation = t->reservation;
	return e;
}

/* Is there a smaller model that the budget may still allow? */
static bool
can_lower(const struct turn *t)
{
	return t->why.n && !t->a->paused && t->lower < TIER_COMPLEX - TIER_SIMPLE &&
	    strcmp(t->model, turn_tier_model(t->a, TIER_SIMPLE)) != 0;
}

/* This model (alone, or all of its provider) will not do for this call. Is there another to ask? */
static bool
elsewhere(struct turn *t, unsigned *mask, bool alone)
{
	*mask |= provider_failed(t->a, t->wanted, t->model, alone);
	return provider_choose(t->a, t->wanted, t->avoid | t->refused) != NULL;
}

/* Asks, unless the provider's rate limits say that it would be in vain. */
static enum step
go_asking(struct turn *t, const struct model_info *m)
{
	struct agent *a = t->a;
	struct step_row step = { .state = STEP_RUNNING, .name = str_z(t->model), .estimate = t->estimate, .input = buf_view(&t->why) };
	int64_t input = uncached(t), wait = llm_limits_wait(a, t->model, input);
	struct fail f = FAIL_INIT;
	char span[32];
	enum err e;

	clock_span(wait, span);
	if (wait > LLM_RETRY_AFTER_MAX_US && elsewhere(t, &t->avoid, false)) {
		context_drop(t);
		return NEXT;
	}
	if (wait > LLM_RETRY_AFTER_MAX_US) {
		IGNORE(fail_set(&f, ERR_BUSY, "The model provider's rate limit is used up for the next %s. Please send your"
		    " message again then.", span));
		return conclude_fail(t, OUTCOME_FAILED, &f);
	}
	if (wait > 0) {
		log_info("turn", "waits %s for the provider's rate limit", span);
		context_drop(t);
		wait_until(t, clock_us() + wait);
		return WAIT;
	}
	e = reserve(t, m, &f);
	if ((e == ERR_LIMIT || e == ERR_BUSY) && count(t)) {
		context_drop(t);
		return WAIT;
	}
	if (e == ERR_BUSY) {
		log_info("turn", "waits: %s", f.text);
		context_drop(t);
		wait_until(t, clock_us() + BUDGET_AGAIN_US);
		return WAIT;
	}
	if (e == ERR_LIMIT && can_lower(t)) {
		t->lower++;
		context_drop(t);
		return NEXT;
	}
	if (e != OK)
		return conclude_fail(t, e == ERR_LIMIT ? OUTCOME_NO_BUDGET : OUTCOME_FAILED, &f);
	llm_limits_take(a, t->model, input);
	agent_wrote(a, store_step_add(a->db, t->id, t->round, &step, &t->model_step));
	t->bytes = t->context->bytes;
	t->own_bytes = t->context->own_bytes;
	t->file_tokens = t->context->file_tokens;
	t->round_from = t->answer.n;
	t->result_set = false;
	t->saved_at = ev_now(a->ev);
	go(t, TURN_STREAM);
	agent_after(a, &t->ask);
	return WAIT;
}

static enum step
step_call(struct turn *t)
{
	struct fail f = FAIL_INIT;
	struct model_info m;
	int64_t now = clock_us();
	enum err e;

	if (!admit(t))
		return wait_for_admission(t);
	if (t->counting)
		return WAIT;
	if (t->next_at > now + LLM_RETRY_AFTER_MAX_US + LLM_LIMIT_JITTER_US)
		t->next_at = now;       /* the clock was set back: no wait is that long */
	if (t->next_at > now) {
		ev_timer_in(t->a->ev, &t->timer, t->next_at - now);
		return WAIT;
	}
	if (t->round >= TURN_ROUNDS_MAX)
		return conclude(t, OUTCOME_FAILED, S("(I stopped here: this took too many rounds of tools."
		    " Send \"go on\" to continue.)"));
	e = prepare_call(t, &m, &f);
	if (e == ERR_BUSY)
		return WAIT;
	if (e == OK && condense(t, &m, t->estimate)) {
		context_drop(t);
		return NEXT;
	}
	if (e == OK && count_first(t, &m)) {
		context_drop(t);        /* the provider has its copy; it is rendered again then */
		return WAIT;
	}
	if (e == OK)
		e = fit_window(t, &m, &f);
	if (e == ERR_DENIED)
		return leave_out(t, &f);
	if (e != OK)
		return conclude_fail(t, OUTCOME_FAILED, &f);
	return go_asking(t, &m);
}

/* ---- STREAM ----------------------------------------------------------------------------------- */

static void
step_over(struct turn *t, enum step_state state, bool failed, struct str note)
{
	agent_wrote(t->a, store_step_set(t->a->db, t->model_step, state, failed, note));
	t->model_step = 0;
}

/* Has the program a tool of this name? */
static bool
is_clients(const struct json *options, struct str name)
{
	const struct json *tools = json_at(options, "tools"), *tool = tools ? tools->first : NULL;

	while (tool && !str_eq(json_str(tool, "name", STR_NONE), name))
		tool = tool->next;
	return tool != NULL;
}

/* Rows and structs for the tool calls of the finished answer; false when there are none. */
static bool
plan_tools(struct turn *t, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n) + JSON_TREE_MAX(t->options.n));
	const struct json *blocks = NULL, *options = NULL;
	enum err e = json_parse(&ar, content, &blocks, NULL);
	int64_t n = 0, id;

	if (e == OK && t->options.n)
		e = json_parse(&ar, buf_view(&t->options), &options, NULL);
	for (const struct json *b = e == OK ? blocks->first : NULL; b && e == OK; b = b->next) {
		const struct json *input = json_at(b, "input");
		const struct step_row step = { .idx = n + 1, .tool = true,
		    .state = is_clients(options, json_str(b, "name", STR_NONE)) ? STEP_CLIENT : STEP_PENDING,
		    .name = json_str(b, "name", STR_NONE), .call_id = json_str(b, "id", STR_NONE),
		    .input = input ? input->raw : S("{}") };

		if (!str_eqz(json_str(b, "type", STR_NONE), "tool_use"))
			continue;
		e = store_step_add(t->a->db, t->id, t->round, &step, &id);
		if (++n > TOOL_CALLS_MAX && e == OK)
			e = store_step_set(t->a->db, id, STEP_DONE, true,
			    S("not run: too many calls in one answer; make it again if it is still needed"));
	}
	arena_free(&ar);
	agent_wrote(t->a, e);
	return n > 0;                   /* the driver loads them from the rows, as a start does */
}

/* What the provider counted makes the next bound tight: this prompt, and at most this answer. */
static void
remember_size(struct turn *t, const struct usage *u)
{
	struct session *s = t->s;
	int64_t prompt = u->input + u->cache_read + u->write_5m + u->write_1h;

	/* not said, or not to be believed: the next bound is the bytes' */
	s->prompt_tokens = !t->result.usage_known || prompt <= 0 || prompt > PROMPT_MOST ? 0 : prompt + u->output;
	s->prompt_seq = s->next_seq;
	snprintf(s->prompt_model, sizeof(s->prompt_model), "%s", t->model);
	s->cached_until = t->result.usage_known ? clock_us() + (t->hour ? 3600 : 300) * US_PER_S : 0;
	agent_wrote(t->a, store_session_prompt_size(t->a->db, s->id, s->prompt_tokens, s->prompt_seq, str_z(t->model), s->cached_until));
	if (s->prompt_tokens == 0)
		return;
	if (t->file_tokens == 0)
		llm_counted(t->a, t->model, t->bytes, prompt);
	if (t->bytes > 0 && prompt > t->file_tokens)    /* the same bytes a token throughout */
		metrics_owe_prompt(t->a, s->tier, (int64_t)((double)(prompt - t->file_tokens) * (double)t->own_bytes / (double)t->bytes));
}

static enum step
answered(struct turn *t)
{
	struct llm_result *r = &t->result;
	enum llm_stop stop = r->stop;
	struct provider *p = provider_of(t->a, str_z(t->wanted));
	struct fail f = FAIL_INIT;

	progress(t);
	if (strcmp(t->model, t->wanted) != 0)
		t->missed = p;          /* the rounds to come keep to the one that answered */
	if (r->content.n > 2 && stop != LLM_STOP_REFUSAL)   /* "[]" is nothing to keep */
		append(t, "assistant", r->content);
	remember_size(t, &r->usage);
	if (stop == LLM_STOP_TOOLS && plan_tools(t, r->content)) {
		agent_wrote(t->a, store_turn_answer(t->a->db, t->id, buf_view(&t->answer), STR_NONE));
		go(t, TURN_TOOLS);
		return NEXT;
	}
	switch (stop) {
	case LLM_STOP_PAUSE:            /* server-side work goes on: send it back unchanged */
		t->round++;
		agent_wrote(t->a, store_turn_answer(t->a->db, t->id, buf_view(&t->answer), STR_NONE));
		go(t, TURN_CALL);
		return NEXT;
	case LLM_STOP_REFUSAL:
		agent_wrote(t->a, store_messages_void(t->a->db, t->id));
		buf_reset(&t->answer);
		IGNORE(fail_set(&f, ERR_DENIED, "(The model declined to answer this%s%.*s%s The exchange was left out of the"
		    " conversation, so you can go on with something else.)", r->detail.n ? ": " : "",
		    STR_ARG(utf8_prefix(r->detail, 300)), str_ends(r->detail, S(".")) ? "" : "."));
		return conclude(t, OUTCOME_REFUSED, str_z(f.text));
	case LLM_STOP_MAX_TOKENS:
		if (t->options.n)
			return conclude(t, OUTCOME_LENGTH, STR_NONE);
		return conclude(t, OUTCOME_ANSWERED, S("(The answer reached its length limit. Send \"go on\""
		    " to continue.)"));
	case LLM_STOP_WINDOW:
		if (t->options.n)
			return conclude(t, OUTCOME_LENGTH, STR_NONE);
		return conclude(t, OUTCOME_ANSWERED, S("(This conversation has filled the model's memory."
		    " Send /new to start a fresh one.)"));
	case LLM_STOP_NONE: case LLM_STOP_END: case LLM_STOP_TOOLS: case LLM_STOP_SEQUENCE:
		break;
	}
	return conclude(t, OUTCOME_ANSWERED, STR_NONE);
}

/* What a failed call is told as: cause, and what to do about it. */
static void
explain(struct turn *t, struct fail *f)
{
	const struct llm_result *r = &t->result;
	const struct provider *p = provider_of(t->a, str_z(t->model));
	struct buf near = BUF_INIT(512);
	const char *what = "";
	char wait[32], key[96];

	switch (r->class) {
	case LLM_BAD_KEY:
		provider_key(p, p->feature->provider->api_key, key);
		IGNORE(fail_set(f, ERR_DENIED, "The model provider refused the API key (%s: %.*s). Its owner can set a new one with"
		    " `blufio config set %s -`, then `blufio reload`.", p->name, STR_ARG(r->detail), key));
		return;
	case LLM_BILLING:
		what = "The model provider refuses for want of credit or because of a spending limit there."
		    " Check the account's billing page, then send the message again.";
		break;
	case LLM_BAD_MODEL:
		model_nearest(t->a, str_z(t->model), &near);
		provider_key(p, p->feature->provider->default_model_key, key);
		IGNORE(fail_set(f, ERR_NOTFOUND, "The model provider does not know the model %s. Names that are like it: %s."
		    " Choose one with /model, or for all with `blufio config set %s …`, then"
		    " `blufio reload`.", t->model, buf_z(&near), key));
		buf_free(&near);
		return;
	case LLM_TOO_LARGE:
		what = "This conversation has become too large for the model. Send /new to start a fresh one.";
		break;
	case LLM_RETRY:
		if (r->retry_after_us > LLM_RETRY_AFTER_MAX_US) {
			clock_span(r->retry_after_us, wait);
			IGNORE(fail_set(f, ERR_BUSY, "The model provider asks to wait %s (%.*s). Please send your"
			    " message again then.", wait, STR_ARG(r->detail)));
			return;
		}
		IGNORE(fail_set(f, ERR_IO, "I could not get an answer from the model after %lld tries (%s%s%.*s)."
		    " Your message is stored; please send it again in a while. /cost, /rules and /help work meanwhile.",
		    (long long)t->attempt, p->name, r->detail.n ? ": " : "", STR_ARG(r->detail)));
		return;
	case LLM_OK: case LLM_THINKING: case LLM_BAD_REQUEST: case LLM_GONE:
		IGNORE(fail_set(f, ERR_PROTO, "The model provider refused the request (%.*s). If it happens again,"
		    " send /new to start a fresh conversation.", STR_ARG(r->detail)));
		return;
	}
	IGNORE(fail_set(f, ERR_DENIED, "%s", what));
}

static enum step
not_answered(struct turn *t)
{
	struct llm_result *r = &t->result;
	struct fail f = FAIL_INIT;
	struct model_info m;
	bool thinking = r->class == LLM_THINKING && t->s->thinking_seq < t->s->next_seq;
	bool again = r->class == LLM_RETRY && r->retry_after_us <= LLM_RETRY_AFTER_MAX_US, other = false;

	t->attempt++;
	log_warn("turn", "model call failed (try %lld, status %u): %.*s%s%.*s", (long long)t->attempt, r->status,
	    STR_ARG(r->detail), r->request_id.n ? " request " : "", STR_ARG(r->request_id));
	if (r->class == LLM_BAD_KEY || r->class == LLM_BILLING || r->class == LLM_BAD_MODEL)
		other = elsewhere(t, &t->refused, r->class == LLM_BAD_MODEL);
	else if (r->class == LLM_RETRY && (t->attempt >= FALLBACK_AFTER || !again))
		other = elsewhere(t, &t->avoid, false);
	if (other)
		snprintf(t->cause, sizeof(t->cause), "%.*s", STR_ARG(utf8_prefix(r->detail, sizeof(t->cause) - 1)));
	if (((again || other) && t->attempt < LLM_ATTEMPTS_MAX) || thinking) {
		int64_t wait = thinking || other ? 0 : llm_backoff_us((unsigned)t->attempt, r->retry_after_us);

		if (thinking) {         /* once: from here on the history goes without them */
			t->s->thinking_seq = t->s->next_seq;
			agent_wrote(t->a, store_session_drop_thinking(t->a->db, t->s->id, t->s->next_seq));
		}
		t->restart_owed = t->answer.n > t->round_from;
		buf_cut(&t->answer, t->round_from);
		t->next_at = clock_us() + wait;
		t->state = TURN_CALL;   /* no step forward: deaths stay */
		save(t);
		return NEXT;
	}
	buf_cut(&t->answer, t->round_from);
	if (r->class == LLM_TOO_LARGE && cost_model(t->a, t->model, &m, &f) == OK && condense(t, &m, m.window)) {
		t->state = TURN_CALL;
		save(t);
		return NEXT;
	}
	explain(t, &f);
	if (t->attachments && t->round == 0 && (r->class == LLM_BAD_REQUEST || r->class == LLM_TOO_LARGE))
		return leave_out(t, &f);
	return conclude_fail(t, OUTCOME_FAILED, &f);
}

static enum step
step_stream(struct turn *t)
{
	struct llm_result *r = &t->result;

	if (!t->result_set)
		return WAIT;
	t->result_set = false;
	if (t->answer.err == ERR_NOMEM && r->class == LLM_OK) {         /* what earlier rounds said is there */
		t->answer.err = OK;
		r->class = LLM_RETRY;
		r->detail = S("out of memory");
	} else if (t->answer.err != OK) {       /* more text than a reply may have */
		r->class = LLM_BAD_REQUEST;
		r->detail = S("the answer is longer than a reply may be");
		buf_reset(&t->answer);
	}
	if (r->billed)
		settle(t, &r->usage, r->usage_known, r->request_id);
	else
		release(t);
	step_over(t, STEP_DONE, r->class != LLM_OK, r->class == LLM_OK ? STR_NONE : r->detail);
	if (r->class != LLM_OK)
		return not_answered(t);
	return answered(t);
}

/* ---- TOOLS --------------------------------------------------------------------------------------- */

static void
on_tool(void *arg, struct invocation *inv, enum err err, struct str output)
{
	struct tool_run *r = arg;

	(void)inv;
	r->inv = NULL;
	r->failed = err != OK;
	r->output = malloc(output.n + 1);
	if (r->output) {
		if (output.n)
			memcpy(r->output, output.p, output.n);
		r->output[output.n] = '\0';
	} else {
		agent_wrote(r->t->a, ERR_NOMEM);        /* or the turn would wait for it */
	}
	r->t->tool_done = true;
	ev_defer(r->t->a->ev, &r->t->run);
}

/* After the commit that says "running": the one place where a tool is started. */
static void
start_tool(struct effect *eff)
{
	struct tool_run *r = CONTAINER(eff, struct tool_run, start);
	struct turn *t = r->t;
	enum err e;

	log_turn(t);
	partial(t, PARTIAL_TOOL, STR_NONE, str_z(r->name));
	e = bus_invoke(t->a, str_z(r->name), str_z(r->input), t->s->id, t->id, on_tool, r, &r->inv);
	if (e == ERR_NOTFOUND)
		on_tool(r, NULL, e, S("there is no tool of this name"));
	else if (e != OK)
		on_tool(r, NULL, e, str_z(err_str(e)));
	log_ids(0, 0, NULL);
}

static void
load_tool(void *arg, const struct step_row *s)
{
	struct turn *t = arg;
	struct tool_run *grown, *r;
	size_t n = s->name.n + s->call_id.n + s->input.n + 3;

	if (!s->tool)
		return;
	grown = realloc(t->tools, (t->n_tools + 1) * sizeof(*grown));
	if (grown == NULL)
		goto nomem;
	t->tools = grown;
	r = &grown[t->n_tools];
	memset(r, 0, sizeof(*r));
	r->name = malloc(n);
	r->output = s->state >= STEP_DONE ? malloc(s->output.n + 1) : NULL;
	if (r->name == NULL || (s->state >= STEP_DONE && r->output == NULL)) {
		free(r->name);
		free(r->output);
		goto nomem;
	}
	r->call_id = r->name + snprintf(r->name, n, "%.*s", STR_ARG(s->name)) + 1;
	r->input = r->call_id + snprintf(r->call_id, s->call_id.n + 1, "%.*s", STR_ARG(s->call_id)) + 1;
	snprintf(r->input, s->input.n + 1, "%.*s", STR_ARG(s->input));
	if (r->output)
		snprintf(r->output, s->output.n + 1, "%.*s", STR_ARG(s->output));
	r->step = s->id;
	r->state = s->state;
	r->failed = s->failed;
	r->t = t;
	r->start.run = start_tool;
	t->n_tools++;
	return;
nomem:
	agent_wrote(t->a, ERR_NOMEM);
}

/* One user message with every result, in the order of the calls. */
static void
append_results(struct turn *t)
{
	struct buf b = BUF_INIT(REQUEST_MAX);
	struct jw w;

	jw_init(&w, &b);
	jw_arr(&w);
	for (size_t i = 0; i < t->n_tools; i++) {
		struct tool_run *r = &t->tools[i];
		const char *text = r->output ? r->output : "the result was lost: out of memory";

		if (r->state == STEP_INTERRUPTED)
			text = INTERRUPTED;
		else if (r->state == STEP_CLIENT)
			text = "not asked for: the answer was stopped";
		jw_obj(&w);
		jw_kz(&w, "type", "tool_result");
		jw_kz(&w, "tool_use_id", r->call_id);
		jw_kz(&w, "content", text);
		if (r->failed || r->state == STEP_INTERRUPTED || r->state == STEP_CLIENT)
			jw_kbool(&w, "is_error", true);
		jw_end_obj(&w);
	}
	jw_end_arr(&w);
	if (jw_done(&w) != OK)
		agent_wrote(t->a, ERR_NOMEM);
	else
		append(t, "user", buf_view(&b));
	buf_free(&b);
}

static enum step
step_tools(struct turn *t)
{
	size_t open = 0, clients = 0;

	if (!admit(t))
		return wait_for_admission(t);
	if (t->n_tools == 0) {
		agent_wrote(t->a, store_steps(t->a->db, t->id, t->round, load_tool, t));
		for (size_t i = 0; i < t->n_tools; i++)
			if (t->tools[i].state == STEP_RUNNING)
				t->tools[i].state = STEP_INTERRUPTED;   /* turn_load said so in the row */
	}
	for (size_t i = 0; i < t->n_tools; i++) {
		struct tool_run *r = &t->tools[i];

		if (r->state == STEP_PENDING) {
			r->state = STEP_RUNNING;
			agent_wrote(t->a, store_step_set(t->a->db, r->step, STEP_RUNNING, false, STR_NONE));
			agent_after(t->a, &r->start);
		} else if (r->state == STEP_RUNNING && r->output) {
			r->state = STEP_DONE;
			agent_wrote(t->a, store_step_set(t->a->db, r->step, STEP_DONE, r->failed, str_z(r->output)));
		}
		open += r->state == STEP_RUNNING;
		clients += r->state == STEP_CLIENT;
	}
	if (open)
		return WAIT;
	if (clients)                    /* their results come with the program's next message, ours stand in their rows */
		return conclude(t, OUTCOME_CALLS, STR_NONE);
	append_results(t);
	tools_free(t);
	progress(t);
	t->round++;
	go(t, TURN_CALL);
	return NEXT;
}

/* ---- REPLY, DONE ------------------------------------------------------------------------------------ */

static enum step
step_reply(struct turn *t)
{
	if (!t->delivered)
		return WAIT;
	agent_wrote(t->a, store_inbound_set(t->a->db, t->inbound, INBOUND_DONE));
	go(t, TURN_DONE);
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
			settle(t, &t->result.usage, t->result.usage_known, t->result.request_id);
		else if (asked && !t->result_set)
			settle(t, &seen, false, STR_NONE);
		else
			release(t);
		t->result_set = false;
		step_over(t, STEP_INTERRUPTED, true, S("stopped"));
		if (!t->stop_new && str_trim(round_text(t)).n)
			append_text(t, "assistant", str_trim(round_text(t)));
	} else if (t->state == TURN_TOOLS && t->n_tools) {
		for (size_t i = 0; i < t->n_tools; i++)
			if (t->tools[i].state < STEP_DONE) {
				t->tools[i].state = STEP_INTERRUPTED;
				agent_wrote(t->a, store_step_set(t->a->db, t->tools[i].step, STEP_INTERRUPTED, true,
				    STR_NONE));
			}
		if (!t->stop_new)
			append_results(t);
	}
	return conclude(t, OUTCOME_STOPPED, note);
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
	case TURN_PREPARE: return step_prepare(t);
	case TURN_CALL: return step_call(t);
	case TURN_STREAM: return step_stream(t);
	case TURN_TOOLS: return step_tools(t);
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
	log_turn(t);
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
on_text(void *arg, struct str delta)
{
	struct turn *t = arg;

	size_t from = t->answer.n;

	if (from == t->round_from && from > 0)
		buf_puts(&t->answer, "\n\n");     /* between what two rounds said */
	buf_str(&t->answer, delta);
	partial(t, PARTIAL_TEXT, str_sub(buf_view(&t->answer), from, t->answer.n), STR_NONE);
	if (ev_now(t->a->ev) - t->saved_at >= PARTIAL_SAVE_US) {
		t->saved_at = ev_now(t->a->ev);
		agent_wrote(t->a, store_turn_partial(t->a->db, t->id, round_text(t)));
	}
}

static void
on_result(void *arg, const struct llm_result *r)
{
	struct turn *t = arg;
	size_t detail = 0, request = 0;

	t->call = NULL;
	t->result = *r;
	buf_reset(&t->result_text);
	buf_str(&t->result_text, r->content);
	detail = t->result_text.n;
	buf_str(&t->result_text, r->detail);
	request = t->result_text.n;
	buf_str(&t->result_text, r->request_id);
	if (t->result_text.err != OK) {
		t->result = (struct llm_result){ .class = LLM_RETRY, .retry_after_us = -1,
		    .detail = S("out of memory"), .usage = r->usage, .usage_known = r->usage_known, .billed = r->billed };
	} else {
		t->result.content = str_make(t->result_text.p, detail);
		t->result.detail = str_make(t->result_text.p + detail, request - detail);
		t->result.request_id = str_make(t->result_text.p + request, t->result_text.n - request);
	}
	t->result_set = true;
	ev_defer(t->a->ev, &t->run);
}

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
	t->ask.run = ask;
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
	tools_free(t);
	count_drop(t);
	context_drop(t);
	effect_cancel(&t->begin);
	effect_cancel(&t->ask);
	ev_defer_cancel(&t->run);
	ev_timer_cancel(t->a->ev, &t->timer);
	ev_timer_cancel(t->a->ev, &t->deadline);
	unqueue(t);
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
		save(t);
	}
	agent_wrote(a, store_steps_interrupt(a->db, t->id));
	if (after_death && t->deaths >= TURN_DEATHS_MAX) {
		log_error("turn", "message %lld set aside: it was being worked on at %d deaths in a row",
		    (long long)t->inbound, TURN_DEATHS_MAX);
		agent_wrote(a, store_outbox_give_up(a->db, t->id));
		(void)conclude(t, OUTCOME_SET_ASIDE, S("(I set this message aside: I was stopped three times in a"
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
			(void)admit(l.t);       /* refused, it waits as when it arrived */
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
