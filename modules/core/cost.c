/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cost.c - the ledger: the one door to a provider's bill.
 *
 * Before a call the most that it may cost is reserved: its prompt at an upper bound
 * of tokens and the dearest of the prices that may apply, its answer at max_tokens,
 * which is lowered first to what the caps leave. Spent and reserved together never
 * exceed a cap. After it the row becomes one of the ledger, at what the provider
 * says it used; a call that was cut is booked from what is known, never below what
 * may have been billed, and marked as estimated. What was running when the process
 * died is found as a reservation and booked the same way.
 *
 * All is integer nano-dollars (1 USD per million tokens is 1000 a token); days and
 * months are UTC. A model without a price is refused with the line that would price
 * it: what cannot be counted is not spent.
 */
#include "core.h"

#define COST_CUT_TOKENS 256            /* of an answer that may be on the way when it is cut */
#define COST_CUT_RATE 128              /* tokens a second: no model that thinks unseen is faster */

FALLIBLE
cost_model(struct agent *a, const char *model, struct model_info *out, struct fail *f)
{
	static const struct { const char *key; size_t field; } prices[] = {
		{ "pricing.*.input", offsetof(struct model_info, in) },
		{ "pricing.*.output", offsetof(struct model_info, out) },
		{ "pricing.*.cache_write_5m", offsetof(struct model_info, write_5m) },
		{ "pricing.*.cache_write_1h", offsetof(struct model_info, write_1h) },
		{ "pricing.*.cache_read", offsetof(struct model_info, read) },
		{ "pricing.*.context_window", offsetof(struct model_info, window) },
		{ "pricing.*.max_output", offsetof(struct model_info, max_output) },
	};
	/* one that is not in the table is taken for the least that is sold */
	struct model_info m = { .id = NULL, .max_output = 64000, .cache_min = 4096, .images_max = 100,
	    .in = -1, .out = -1, .write_5m = -1, .write_1h = -1, .read = -1, .band_factor = 1, .flags = MODEL_PDF };
	const struct provider *p = provider_of(a, str_z(model));
	const struct provider_ops *ops = p->feature->provider;
	bool own = provider_model(p, str_z(model)).n < strlen(model);   /* NAME/x: what NAME says of all of its models */
	int64_t v;

	for (const struct model_info *k = ops->models; k && k->id; k++)
		if (str_eqz(provider_model(p, str_z(model)), k->id))
			m = *k;
	if (own && ops->describe)
		ops->describe(a->config, str_z(p->name), &m);
	for (size_t i = 0; i < ARRAY_LEN(prices); i++)
		if (config_wild(a->config, prices[i].key, str_z(model), &v)) {
			memcpy((char *)&m + prices[i].field, &v, sizeof(v));
			if (i < 5)
				m.band_above = 0;   /* an own price has no second band */
		}
	if (m.in < 0 || m.out < 0) {
		char key[96] = "";

		if (ops->default_model_key)
			provider_key(p, ops->default_model_key, key);
		return fail_set(f, ERR_NOTFOUND, "model \"%s\" has no price, so its cost cannot be"
		    " bounded; next: add to the configuration\n[pricing.\"%s\"]\ninput = 2.00\n"
		    "output = 10.00\n(US dollars per million tokens)%s%s%s, or choose another with /model or"
		    " `blufio config set %s …`", model, model, own ? "; in [providers." : "", own ? p->name : "",
		    own ? "] the same two lines price all of its models" : "", key);
	}
	/* unsaid cache prices are the usual multiples of the input price */
	if (m.write_5m < 0)
		m.write_5m = own ? m.in : m.in * 5 / 4;
	if (m.write_1h < 0)
		m.write_1h = own ? m.in : m.in * 2;
	if (m.read < 0)
		m.read = own ? m.in : m.in / 10;        /* others' discount is not known */
	if (m.window)
		m.flags |= MODEL_WINDOW;
	else
		m.window = 200000;
	m.id = model;
	*out = m;
	return OK;
}

int64_t
cost_of(const struct model_info *m, const struct usage *u)
{
	const int64_t part[][2] = { { u->input, m->in }, { u->output, m->out }, { u->cache_read, m->read },
	    { u->write_5m, m->write_5m }, { u->write_1h, m->write_1h } };
	int64_t prompt = u->input + u->cache_read + u->write_5m + u->write_1h, sum = 0, one;

	for (size_t i = 0; i < ARRAY_LEN(part); i++)
		if (mul_i64(part[i][0], part[i][1], &one) || add_i64(sum, one, &sum))
			return INT64_MAX;
	return m->band_above && prompt > m->band_above && mul_i64(sum, m->band_factor, &sum) ? INT64_MAX : sum;
}

void
cost_usd(int64_t nano, char out[32])
{
	snprintf(out, 32, "$%lld.%04lld", (long long)(nano / 1000000000),
	    (long long)(nano % 1000000000 / 100000));
}

static const char *
feature_name(enum cost_feature f)
{
	static const char *const names[] = { "message", "tool", "compaction", "extraction", "heartbeat", "job", "api", "batch",
	    "delegate" };

	return names[f];
}

/* ---- caps ------------------------------------------------------------------------------------- */

static const struct cap {
	const char *key;                /* unset: no such cap */
	const char *what;
	const char *feature;            /* "": all of them */
	bool month, own;                /* of a month, else a day; of one person */
} caps[] = {
	{ "cost.daily_budget_usd", "today's budget", "", false, false },
	{ "cost.monthly_budget_usd", "this month's budget", "", true, false },
	{ "cost.user_daily_usd", "your budget for today", "", false, true },
	{ "jobs.daily_usd", "today's budget for jobs", "job", false, false },
	{ "batch.daily_usd", "today's budget for batches", "batch", false, false },
	{ "heartbeat.daily_usd", "today's budget for heartbeats", "heartbeat", false, false },
	{ "heartbeat.monthly_usd", "this month's budget for heartbeats", "heartbeat", true, false },
};

static enum err
look(struct agent *a, const struct cap *c, int64_t user, struct cost_room *r)
{
	enum err e;

	r->cap = config_i64(a->config, c->key);
	r->from = clock_day_start(clock_us());
	r->to = r->from + US_PER_DAY;
	if (c->month)
		clock_month(clock_us(), &r->from, &r->to);
	e = store_spent(a->db, r->from, r->to, str_z(c->feature), c->own ? user : 0, &r->spent);
	return e != OK ? e : store_reserved(a->db, str_z(c->feature), c->own ? user : 0, &r->reserved);
}

static bool
is_set(struct agent *a, const struct cap *c)
{
	return strcmp(config_origin(a->config, c->key), "not set") != 0;
}

static bool
applies(struct agent *a, const struct cap *c, const char *feature, int64_t user)
{
	return is_set(a, c) && (c->feature[0] == '\0' || strcmp(c->feature, feature) == 0) &&
	    (!c->own || user);
}

FALLIBLE
cost_cap(struct agent *a, size_t i, struct cost_room *r)
{
	if (i >= ARRAY_LEN(caps))
		return ERR_NOTFOUND;
	*r = (struct cost_room){ .key = caps[i].key, .what = caps[i].what };
	return caps[i].own || !is_set(a, &caps[i]) ? OK : look(a, &caps[i], 0, r);
}

int64_t
cost_today(struct agent *a)
{
	struct cost_room r;

	return look(a, &caps[0], 0, &r) == OK ? r.spent : 0;
}

static enum err
unreadable(struct agent *a, enum err e, struct fail *f)
{
	return fail_set(f, e, "the ledger cannot be read (%s), so nothing is spent; next: `blufio status`", a->db->why);
}

static enum err
refuse(const struct cap *c, const struct cost_room *r, int64_t need, struct fail *f)
{
	char spent[32], cap[32], left[32], wanted[32];
	int64_t enough;

	if (add_i64(r->spent, need, &enough) || enough < 2 * r->cap)
		enough = 2 * r->cap;
	cost_usd(r->spent, spent);
	cost_usd(r->cap, cap);
	cost_usd(need, wanted);
	clock_span(r->to - clock_us(), left);
	if (r->cap == 0)
		return fail_set(f, ERR_LIMIT, "Nothing may be spent: %s is $0. To allow it: `blufio config set %s 1`, then"
		    " `blufio reload`.", c->what, c->key);
	return fail_set(f, ERR_LIMIT, "%c%s %s: %s spent of %s%s%s. It resets at 00:00 UTC%s, in %s."
	    " To raise it now: `blufio config set %s %lld`, then `blufio reload`.", c->what[0] - 'a' + 'A', c->what + 1,
	    r->spent >= r->cap ? "is used up" : "does not reach", spent, cap, r->spent >= r->cap ? "" : ", and this may cost ",
	    r->spent >= r->cap ? "" : wanted, c->month ? " on the first" : "", left, c->key,
	    (long long)(enough / 1000000000 + 1));
}

static enum err
refuse_paused(struct fail *f)
{
	return fail_set(f, ERR_LIMIT, "I am paused: nothing is asked of a model. /resume (or `blufio resume`) lifts it.");
}

FALLIBLE
cost_left(struct agent *a, enum cost_feature feature, int64_t *nano, struct fail *f)
{
	*nano = INT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
		struct cost_room r;
		enum err e;

		if (!applies(a, &caps[i], feature_name(feature), 0))
			continue;
		e = look(a, &caps[i], 0, &r);
		if (e != OK)
			return unreadable(a, e, f);
		if (r.spent >= r.cap) {
			e = refuse(&caps[i], &r, 0, f);
			return r.cap ? e : ERR_DENIED;
		}
		if (r.cap - r.spent < *nano)
			*nano = r.cap - r.spent;
	}
	return a->paused ? refuse_paused(f) : OK;
}

/* ---- reserve ---------------------------------------------------------------------------------- */

/* What a prompt of so many tokens costs at most: all of it might be written to the cache. */
static int64_t
prompt_most(const struct model_info *m, int64_t tokens, bool hour)
{
	struct usage u = { 0 };

	*(hour && m->write_1h > m->in ? &u.write_1h : m->write_5m > m->in ? &u.write_5m : &u.input) = tokens;
	return cost_of(m, &u);
}

static int64_t
answer_price(const struct model_info *m, int64_t prompt)
{
	return m->band_above && prompt > m->band_above ? m->out * m->band_factor : m->out;
}

/* How much of the answer every cap leaves room for; ERR_LIMIT when less than the least, ERR_BUSY when only what others
 * have reserved is in the way. */
static enum err
fit(struct agent *a, struct cost_order *o, struct fail *f)
{
	int64_t least = o->answer < LLM_ANSWER_MIN ? o->answer : LLM_ANSWER_MIN, need;
	int64_t prompt = prompt_most(o->model, o->input, o->hour), price = answer_price(o->model, o->input);
	bool busy = false;

	if (prompt == INT64_MAX || mul_i64(least, price, &need) || add_i64(need, prompt, &need))
		return fail_set(f, ERR_LIMIT, "The price of model %s is beyond all bounds; next: correct [pricing.\"%s\"].",
		    o->model->id, o->model->id);
	for (size_t i = 0; i < ARRAY_LEN(caps) && need > 0; i++) {
		struct cost_room r;
		int64_t left;
		enum err e;

		if (!applies(a, &caps[i], feature_name(o->feature), o->user))
			continue;
		e = look(a, &caps[i], o->user, &r);
		if (e != OK)
			return unreadable(a, e, f);
		left = r.cap - r.spent;
		o->again = r.to;
		if (need > left)
			return refuse(&caps[i], &r, need, f);
		left -= r.reserved;
		if (need > left)
			busy = true;
		else if (price && (left - prompt) / price < o->answer)
			o->answer = (left - prompt) / price;
	}
	return busy ? fail_set(f, ERR_BUSY, "other calls have reserved what is left of the budget") : OK;
}

FALLIBLE
cost_reserve(struct agent *a, struct cost_order *o, int64_t *id, struct fail *f)
{
	int64_t wanted = o->answer, answer, most;
	struct reservation_row r = { .at = clock_us(), .feature = str_z(feature_name(o->feature)), .session = o->session,
	    .turn = o->turn, .user = o->user, .provider = str_z(provider_of(a, str_z(o->model->id))->name), .model = str_z(o->model->id),
	    .intended = str_z(o->intended ? o->intended : o->model->id), .input = o->input, .hour = o->hour };
	enum err e;

	e = a->paused ? refuse_paused(f) : fit(a, o, f);
	if (e != OK)
		return e;
	if (o->answer < wanted)
		log_info("cost", "the answer may have %lld tokens instead of %lld: the budget leaves no more", (long long)o->answer,
		    (long long)wanted);
	r.answer = o->answer;
	most = prompt_most(o->model, o->input, o->hour);
	if (mul_i64(o->answer, answer_price(o->model, o->input), &answer) || add_i64(most, answer, &r.nano))
		return fail_set(f, ERR_LIMIT, "The price of model %s is beyond all bounds.", o->model->id);
	e = store_reserve(a->db, &r, id);
	return e == OK ? OK : fail_set(f, e, "the ledger cannot be written (%s), so nothing is spent; next: `blufio status`",
	    a->db->why);
}

/* ---- settle ----------------------------------------------------------------------------------- */

struct settling {
	struct agent *a;
	const struct usage *usage;
	bool known;
	/* what becomes of it */
	struct usage booked;
	int64_t nano, session, user;
	char feature[16];
	bool estimated;
	int64_t received;               /* bytes of an answer that were on disk when the process died */
	bool died;
	struct str request_id;
	enum err err;
};

/* Nobody said what a call that was cut has cost: all its prompt when not even its beginning came, and for the answer
 * whichever is most of what came, what was counted, and what a fast model writes in the time it had. */
static void
estimate(struct settling *s, const struct reservation_row *r, const struct model_info *m)
{
	int64_t seconds = (clock_us() - r->at) / US_PER_S, most = COST_CUT_TOKENS + seconds * COST_CUT_RATE;
	int64_t received = llm_tokens_estimate((size_t)s->received);

	if (s->died && most < received + COST_CUT_TOKENS + COST_CUT_RATE)
		most = received + COST_CUT_TOKENS + COST_CUT_RATE;
	if (s->died && strchr(m->id, '/'))      /* who is not known may be ten times as fast */
		most = r->answer;
	if (seconds < 0 || seconds > US_PER_DAY / US_PER_S) /* the clock was set back, or this took too long to say */
		most = r->answer;
	if (s->booked.input + s->booked.cache_read + s->booked.write_5m + s->booked.write_1h == 0)
		*(r->hour && m->write_1h > m->in ? &s->booked.write_1h : m->write_5m > m->in ? &s->booked.write_5m : &s->booked.input) =
		    r->input;
	if (s->booked.output < most)
		s->booked.output = most < r->answer ? most : r->answer;
	s->estimated = true;
}

static void
settle(void *arg, const struct reservation_row *r)
{
	struct settling *s = arg;
	struct model_info m;
	struct fail f = FAIL_INIT;
	char model[128];
	bool priced;

	snprintf(model, sizeof(model), "%.*s", STR_ARG(r->model));
	priced = cost_model(s->a, model, &m, &f) == OK; /* it was when it was asked */
	s->booked = *s->usage;
	s->session = r->session;
	s->user = r->user;
	snprintf(s->feature, sizeof(s->feature), "%.*s", STR_ARG(r->feature));
	if (!s->known && priced)
		estimate(s, r, &m);
	s->nano = priced ? cost_of(&m, &s->booked) : r->nano;
	s->estimated |= !priced;
	if (s->nano > r->nano) {
		/* impossible by the provider's own rules: no ledger is put out of order by it */
		if (s->known)
			log_error("cost", "%s says that a call had %lld + %lld tokens; more than %lld + %lld it cannot have had, and no"
			    " more is booked", model, (long long)(s->booked.input + s->booked.cache_read + s->booked.write_5m +
			    s->booked.write_1h), (long long)s->booked.output, (long long)r->input, (long long)r->answer);
		s->nano = r->nano;
		s->estimated = true;
	}
	s->err = store_cost_add(s->a->db, r, &s->booked, s->nano, s->estimated, s->request_id);
	if (s->err == OK)
		metrics_owe_usage(s->a, model, &s->booked, s->nano);
}

/* 80 % of a cap is told once in its day or month, where the next call was made that is of a conversation. */
static enum err
warn(struct agent *a, const char *feature, int64_t session, int64_t user)
{
	struct buf b = BUF_INIT(256);
	enum err e = OK;

	for (size_t i = 0; i < ARRAY_LEN(caps) && e == OK; i++) {
		char key[80], spent[32], cap[32];
		struct cost_room r;
		int64_t told;

		if (!applies(a, &caps[i], feature, user))
			continue;
		e = look(a, &caps[i], user, &r);
		if (e != OK || r.cap == 0 || r.spent < r.cap / 5 * 4)
			continue;
		snprintf(key, sizeof(key), caps[i].own ? "warned.%s.%lld" : "warned.%s", caps[i].key, (long long)user);
		e = store_meta_get(a->db, key, 0, &told);
		if (e != OK || told == r.from)
			continue;
		cost_usd(r.spent, spent);
		cost_usd(r.cap, cap);
		log_warn("cost", "80 %% of %s is used: %s of %s", caps[i].what, spent, cap);
		buf_reset(&b);
		buf_fmt(&b, "80 %% of %s is used: %s of %s. /cost shows what for.", caps[i].what, spent, cap);
		e = session_say(a, session, buf_view(&b));
		if (e == OK)
			e = store_meta_set(a->db, key, r.from);
	}
	buf_free(&b);
	return e == ERR_NOTFOUND ? OK : e;      /* it was erased meanwhile */
}

static const struct usage nothing;

static enum err
book(struct settling *s, int64_t id)
{
	enum err e = store_reservation_get(s->a->db, id, settle, s);

	if (e == OK)
		e = s->err;
	return e == OK ? store_reservation_end(s->a->db, id) : e;
}

FALLIBLE
cost_settle(struct agent *a, int64_t id, const struct usage *u, bool known, struct str request_id)
{
	struct settling s = { .a = a, .usage = u ? u : &nothing, .known = known, .request_id = request_id };
	enum err e = book(&s, id);

	return e == OK && s.nano && s.session ? warn(a, s.feature, s.session, s.user) : e;
}

FALLIBLE
cost_release(struct agent *a, int64_t id)
{
	return store_reservation_end(a->db, id);
}

/* Nothing runs when memory is built from the rows: whatever was asked before was cut. Of 80 % the next call tells: the
 * outbox is not there yet. */
FALLIBLE
cost_load(struct agent *a)
{
	struct id_list ids = { NULL, 0, OK };
	int64_t paused = 0;
	enum err e = store_meta_get(a->db, "paused", 0, &paused);

	a->paused = paused != 0;
	if (e == OK)
		e = store_reservations(a->db, id_list_add, &ids);
	if (e == OK)
		e = ids.err;
	for (size_t i = 0; i < ids.n && e == OK; i++) {
		struct settling s = { .a = a, .usage = &nothing, .died = true };

		e = store_reservation_received(a->db, ids.p[i], &s.received);
		if (e == OK)
			e = book(&s, ids.p[i]);
	}
	free(ids.p);
	return e;
}

FALLIBLE
cost_pause(struct agent *a, bool paused)
{
	enum err e = store_meta_set(a->db, "paused", paused ? clock_us() : 0);
	struct session *s;
	size_t it = 0;

	if (e != OK)
		return e;
	a->paused = paused;
	log_info("cost", paused ? "paused: nothing is asked of a model" : "goes on");
	if (!paused) {
		jobs_wake(a);
		return heartbeat_load(a);
	}
	compact_drop(a, 0);
	heartbeat_stop(a);
	for (size_t i = 0; i < a->n_channels; i++)
		if (a->channels[i].feature->channel->paused)
			a->channels[i].feature->channel->paused(a->channels[i].self);
	while (sessions_next(a, &it, &s))
		if (s->turn && s->turn->state == TURN_STREAM)
			turn_stop(s->turn, false);
	return OK;
}
