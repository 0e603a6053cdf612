/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * turn_call.c - CALL and STREAM: which model is asked, whether it fits the window and the budget, the question itself
 * (after the commit that reserved what it may cost), and what its answer, or what came instead of one, leads to.
 */
#include "turn.h"

#define COUNT_MARGIN 20                 /* a twentieth: what the provider counts is "an estimate", as it says */
#define PROMPT_MOST 10000000            /* tokens: no window is that large; who says so is not believed */
#define ROUTE_FRESH 300                 /* tokens of a usual message, */
#define ROUTE_ANSWER 500                /* and of a usual answer, for the router's sums */
#define BUDGET_AGAIN_US (500 * US_PER_MS)       /* when others have reserved what is left */
#define OUT_OF_MEMORY "I ran out of memory while preparing the request. Please send it again."

/* The provider is asked no more how large the request is. */
void
turn_count_drop(struct turn *t)
{
	if (t->counting)
		provider_of(t->a, str_z(t->model))->feature->provider->cancel(t->counting);
	t->counting = NULL;
}

/* ---- what its call costs -------------------------------------------------------------------- */

/* u: what is known; final: by the provider's last word. */
void
turn_settle(struct turn *t, const struct usage *u, bool final, struct str request_id)
{
	if (t->reservation)
		agent_wrote(t->a, cost_settle(t->a, t->reservation, u, final, request_id));
	t->reservation = 0;
}

void
turn_release(struct turn *t)
{
	if (t->reservation)
		agent_wrote(t->a, cost_release(t->a, t->reservation));
	t->reservation = 0;
}

/* ---- CALL ----------------------------------------------------------------------------------- */

static void
wait_until(struct turn *t, int64_t at)
{
	t->next_at = at;
	turn_save(t);
	ev_timer_in(t->a->ev, &t->timer, at - clock_us());
}

static void
on_text(void *arg, struct str delta)
{
	struct turn *t = arg;
	size_t from = t->answer.n;

	if (from == t->round_from && from > 0)
		buf_puts(&t->answer, "\n\n");     /* between what two rounds said */
	buf_str(&t->answer, delta);
	turn_show(t, PARTIAL_TEXT, str_sub(buf_view(&t->answer), from, t->answer.n), STR_NONE);
	if (ev_now(t->a->ev) - t->saved_at >= PARTIAL_SAVE_US) {
		t->saved_at = ev_now(t->a->ev);
		agent_wrote(t->a, store_turn_partial(t->a->db, t->id, turn_round_text(t)));
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

/* Nobody refused anything: memory or descriptors are short, or a file went after the request was rendered. The next
 * try renders it anew. */
static void
failed_to_ask(struct turn *t, enum err e)
{
	t->result = (struct llm_result){ .class = LLM_RETRY,
	    .retry_after_us = -1, .detail = str_z(err_str(e)) };
	t->result_set = true;
	ev_defer(t->a->ev, &t->run);
}

/* After the commit: the one place where a model is asked. */
void
turn_ask(struct effect *eff)
{
	static const struct llm_sink sink = { on_text, on_result };
	struct turn *t = CONTAINER(eff, struct turn, ask);
	enum err e;

	turn_log_ids(t);
	e = llm_start(t->a, &t->context->request, &sink, t, &t->call);
	turn_context_drop(t);
	if (e != OK)
		failed_to_ask(t, e);
	if (!t->begun || t->restart_owed)       /* after the question: hints wait, answers should not */
		turn_show(t, t->restart_owed ? PARTIAL_RESTART : PARTIAL_BEGIN, STR_NONE, STR_NONE);
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
		turn_context_drop(t);
		return NEXT;
	}
	if (wait > LLM_RETRY_AFTER_MAX_US) {
		IGNORE(fail_set(&f, ERR_BUSY, "The model provider's rate limit is used up for the next %s. Please send your"
		    " message again then.", span));
		return turn_conclude_fail(t, OUTCOME_FAILED, &f);
	}
	if (wait > 0) {
		log_info("turn", "waits %s for the provider's rate limit", span);
		turn_context_drop(t);
		wait_until(t, clock_us() + wait);
		return WAIT;
	}
	e = reserve(t, m, &f);
	if ((e == ERR_LIMIT || e == ERR_BUSY) && count(t)) {
		turn_context_drop(t);
		return WAIT;
	}
	if (e == ERR_BUSY) {
		log_info("turn", "waits: %s", f.text);
		turn_context_drop(t);
		wait_until(t, clock_us() + BUDGET_AGAIN_US);
		return WAIT;
	}
	if (e == ERR_LIMIT && can_lower(t)) {
		t->lower++;
		turn_context_drop(t);
		return NEXT;
	}
	if (e != OK)
		return turn_conclude_fail(t, e == ERR_LIMIT ? OUTCOME_NO_BUDGET : OUTCOME_FAILED, &f);
	llm_limits_take(a, t->model, input);
	agent_wrote(a, store_step_add(a->db, t->id, t->round, &step, &t->model_step));
	t->bytes = t->context->bytes;
	t->own_bytes = t->context->own_bytes;
	t->file_tokens = t->context->file_tokens;
	t->round_from = t->answer.n;
	t->result_set = false;
	t->saved_at = ev_now(a->ev);
	turn_go(t, TURN_STREAM);
	agent_after(a, &t->ask);
	return WAIT;
}

enum step
turn_call(struct turn *t)
{
	struct fail f = FAIL_INIT;
	struct model_info m;
	int64_t now = clock_us();
	enum err e;

	if (!turn_admit(t))
		return turn_wait_admission(t);
	if (t->counting)
		return WAIT;
	if (t->next_at > now + LLM_RETRY_AFTER_MAX_US + LLM_LIMIT_JITTER_US)
		t->next_at = now;       /* the clock was set back: no wait is that long */
	if (t->next_at > now) {
		ev_timer_in(t->a->ev, &t->timer, t->next_at - now);
		return WAIT;
	}
	if (t->round >= TURN_ROUNDS_MAX)
		return turn_conclude(t, OUTCOME_FAILED, S("(I stopped here: this took too many rounds of tools."
		    " Send \"go on\" to continue.)"));
	e = prepare_call(t, &m, &f);
	if (e == ERR_BUSY)
		return WAIT;
	if (e == OK && condense(t, &m, t->estimate)) {
		turn_context_drop(t);
		return NEXT;
	}
	if (e == OK && count_first(t, &m)) {
		turn_context_drop(t);        /* the provider has its copy; it is rendered again then */
		return WAIT;
	}
	if (e == OK)
		e = fit_window(t, &m, &f);
	if (e == ERR_DENIED)
		return turn_leave_out(t, &f);
	if (e != OK)
		return turn_conclude_fail(t, OUTCOME_FAILED, &f);
	return go_asking(t, &m);
}

/* ---- STREAM ----------------------------------------------------------------------------------- */

void
turn_step_over(struct turn *t, enum step_state state, bool failed, struct str note)
{
	agent_wrote(t->a, store_step_set(t->a->db, t->model_step, state, failed, note));
	t->model_step = 0;
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

	turn_progressed(t);
	if (strcmp(t->model, t->wanted) != 0)
		t->missed = p;          /* the rounds to come keep to the one that answered */
	if (r->content.n > 2 && stop != LLM_STOP_REFUSAL)   /* "[]" is nothing to keep */
		turn_append(t, "assistant", r->content);
	remember_size(t, &r->usage);
	if (stop == LLM_STOP_TOOLS && turn_plan_tools(t, r->content)) {
		agent_wrote(t->a, store_turn_answer(t->a->db, t->id, buf_view(&t->answer), STR_NONE));
		turn_go(t, TURN_TOOLS);
		return NEXT;
	}
	switch (stop) {
	case LLM_STOP_PAUSE:            /* server-side work goes on: send it back unchanged */
		t->round++;
		agent_wrote(t->a, store_turn_answer(t->a->db, t->id, buf_view(&t->answer), STR_NONE));
		turn_go(t, TURN_CALL);
		return NEXT;
	case LLM_STOP_REFUSAL:
		agent_wrote(t->a, store_messages_void(t->a->db, t->id));
		buf_reset(&t->answer);
		IGNORE(fail_set(&f, ERR_DENIED, "(The model declined to answer this%s%.*s%s The exchange was left out of the"
		    " conversation, so you can go on with something else.)", r->detail.n ? ": " : "",
		    STR_ARG(utf8_prefix(r->detail, 300)), str_ends(r->detail, S(".")) ? "" : "."));
		return turn_conclude(t, OUTCOME_REFUSED, str_z(f.text));
	case LLM_STOP_MAX_TOKENS:
		if (t->options.n)
			return turn_conclude(t, OUTCOME_LENGTH, STR_NONE);
		return turn_conclude(t, OUTCOME_ANSWERED, S("(The answer reached its length limit. Send \"go on\""
		    " to continue.)"));
	case LLM_STOP_WINDOW:
		if (t->options.n)
			return turn_conclude(t, OUTCOME_LENGTH, STR_NONE);
		return turn_conclude(t, OUTCOME_ANSWERED, S("(This conversation has filled the model's memory."
		    " Send /new to start a fresh one.)"));
	case LLM_STOP_NONE: case LLM_STOP_END: case LLM_STOP_TOOLS: case LLM_STOP_SEQUENCE:
		break;
	}
	return turn_conclude(t, OUTCOME_ANSWERED, STR_NONE);
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
		turn_save(t);
		return NEXT;
	}
	buf_cut(&t->answer, t->round_from);
	if (r->class == LLM_TOO_LARGE && cost_model(t->a, t->model, &m, &f) == OK && condense(t, &m, m.window)) {
		t->state = TURN_CALL;
		turn_save(t);
		return NEXT;
	}
	explain(t, &f);
	if (t->attachments && t->round == 0 && (r->class == LLM_BAD_REQUEST || r->class == LLM_TOO_LARGE))
		return turn_leave_out(t, &f);
	return turn_conclude_fail(t, OUTCOME_FAILED, &f);
}

enum step
turn_stream(struct turn *t)
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
		turn_settle(t, &r->usage, r->usage_known, r->request_id);
	else
		turn_release(t);
	turn_step_over(t, STEP_DONE, r->class != LLM_OK, r->class == LLM_OK ? STR_NONE : r->detail);
	if (r->class != LLM_OK)
		return not_answered(t);
	return answered(t);
}
