/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * metrics.c - the agent's counters, gauges and histograms.
 *
 * All are whole numbers in one array that is part of struct agent: a count is an
 * addition, nothing is allocated or looked up, and an exporter is a loop over the
 * table below. Money counts in nano-dollars, time in microseconds; the exporter
 * puts the point.
 *
 * There are two ways to count, and each call says which it is. What happened in
 * the world (a model was asked, a tool ran, a commit failed) counts at once:
 * nothing can undo it. What is true because a row says so (a message is stored, a
 * turn is over, tokens are booked) is owed by the running transaction: it is added
 * to a second array, which the end of the loop turn adds to the first after the
 * commit and clears after a rollback. So a message that is rolled back and comes
 * again counts once. The one commit in doubt, written but not synced, counts as
 * rolled back: a figure can be too low by what one failed sync held, never too
 * high. A start begins at 0, as Prometheus expects of a counter.
 */
#include "core.h"

#include <dirent.h>
#include <unistd.h>

enum { QUEUE_INBOUND, QUEUE_OUTBOX, QUEUE_ADMISSION, QUEUE_COUNT };

static const char *const deliveries[] = { "sent", "retried", "failed" };
static const char *const kinds[] = { "input", "output", "cache_read", "cache_write" };
static const char *const classes[] = { "ok", "retry", "bad_key", "billing", "bad_model", "too_large", "bad_request",
    "thinking", "cancelled" };
static const char *const errors[] = { "storage", "model", "tool", "delivery" };
static const char *const compactions[] = { "arithmetic", "model", "failed" };
static const char *const unasked[] = { "job", "job_missed", "heartbeat_said", "heartbeat_silent", "heartbeat_failed" };
static const char *const tiers[] = { "simple", "standard", "complex" };
static const char *const queues[] = { "inbound", "outbox", "admission" };
static const char *const codes[] = { "1xx", "2xx", "3xx", "4xx", "5xx" };
static const char *const limits[] = { "connections", "descriptors", "peer", "unauthenticated", "head_time", "body_time",
    "idle_time", "write_time", "socket_time", "head_bytes", "body_bytes", "output_bytes", "socket_messages", "rate" };
static const char *const credentials[] = { "shown", "none" };

#define MS US_PER_MS
#define S_ US_PER_S
static const int64_t bounds_answer[METRIC_BOUNDS] = { 100 * MS, 250 * MS, 500 * MS, 1 * S_, 2500 * MS, 5 * S_, 10 * S_,
    20 * S_, 40 * S_, 80 * S_, 160 * S_, 320 * S_ };
static const int64_t bounds_tool[METRIC_BOUNDS] = { 1 * MS, 5 * MS, 10 * MS, 50 * MS, 100 * MS, 500 * MS, 1 * S_,
    5 * S_, 10 * S_, 30 * S_, 60 * S_, 300 * S_ };
static const int64_t bounds_commit[METRIC_BOUNDS] = { 100, 250, 500, 1 * MS, 2500, 5 * MS, 10 * MS, 25 * MS, 50 * MS,
    100 * MS, 500 * MS, 2500 * MS };
#undef MS
#undef S_

/* Where each family's cells begin. */
#define HISTOGRAM_CELLS (METRIC_BOUNDS + 2)     /* a bucket a bound, one above, the sum */
enum {
	AT_MESSAGES = 0,
	AT_TURNS = AT_MESSAGES + METRIC_CHANNELS_MAX,
	AT_DELIVERIES = AT_TURNS + OUTCOME_COUNT,
	AT_TOKENS = AT_DELIVERIES + DELIVERY_COUNT,
	AT_COST = AT_TOKENS + METRIC_MODELS_MAX * TOKENS_COUNT,
	AT_CALLS = AT_COST + METRIC_MODELS_MAX,
	AT_ERRORS = AT_CALLS + LLM_GONE + 1,
	AT_COMPACTIONS = AT_ERRORS + METRIC_ERR_COUNT,
	AT_UNASKED = AT_COMPACTIONS + COMPACTION_COUNT,
	AT_PROMPTS = AT_UNASKED + UNASKED_COUNT,
	AT_OVERHEAD = AT_PROMPTS + TIER_COUNT - 1,
	AT_REQUESTS = AT_OVERHEAD + TIER_COUNT - 1,
	AT_LIMITS = AT_REQUESTS + REQUEST_CLASSES,
	AT_CONNECTIONS = AT_LIMITS + REACHED_COUNT,
	AT_RESPONSE = AT_CONNECTIONS + CONNECTION_COUNT,
	AT_FIRST_TOKEN = AT_RESPONSE + HISTOGRAM_CELLS,
	AT_CALL = AT_FIRST_TOKEN + HISTOGRAM_CELLS,
	AT_TOOL = AT_CALL + HISTOGRAM_CELLS,
	AT_COMMIT = AT_TOOL + HISTOGRAM_CELLS,
	AT_SESSIONS = AT_COMMIT + HISTOGRAM_CELLS,
	AT_QUEUES,
	AT_CACHE = AT_QUEUES + QUEUE_COUNT,
	AT_RESIDENT, AT_FDS, AT_FDS_MAX, AT_CPU, AT_START, AT_BUILD, AT_END
};
_Static_assert(AT_END <= METRIC_CELLS, "more series than cells");
_Static_assert(METRIC_CHANNELS_MAX == ARRAY_LEN(((struct agent *)0)->channels), "a channel has no series");
_Static_assert(ARRAY_LEN(classes) == LLM_GONE + 1, "a class of calls has no name");
_Static_assert(ARRAY_LEN(limits) == REACHED_COUNT, "a limit has no name");

static const struct metric_family families[METRIC_COUNT] = {
	[METRIC_MESSAGES] = { "blufio_messages", METRIC_COUNTER, NULL, 0, { LABEL_CHANNEL }, NULL, AT_MESSAGES,
	    "Messages that came and were stored; repeats do not count." },
	[METRIC_TURNS] = { "blufio_turns", METRIC_COUNTER, NULL, 0, { LABEL_OUTCOME }, NULL, AT_TURNS,
	    "Turns that ended, by how." },
	[METRIC_DELIVERIES] = { "blufio_deliveries", METRIC_COUNTER, NULL, 0, { LABEL_DELIVERY }, NULL, AT_DELIVERIES,
	    "Replies and notices handed to a channel, by what became of it." },
	[METRIC_TOKENS] = { "blufio_tokens", METRIC_COUNTER, NULL, 0, { LABEL_MODEL, LABEL_KIND }, NULL, AT_TOKENS,
	    "Tokens booked; input is what neither came from the cache nor went into it." },
	[METRIC_COST] = { "blufio_cost_dollars", METRIC_COUNTER, "dollars", 9, { LABEL_MODEL }, NULL, AT_COST,
	    "Money booked, in US dollars." },
	[METRIC_CALLS] = { "blufio_model_calls", METRIC_COUNTER, NULL, 0, { LABEL_CLASS }, NULL, AT_CALLS,
	    "Model calls that ended, by how." },
	[METRIC_ERRORS] = { "blufio_errors", METRIC_COUNTER, NULL, 0, { LABEL_ERROR }, NULL, AT_ERRORS,
	    "Failed commits, model calls, tools, and replies that cannot be delivered." },
	[METRIC_REQUESTS] = { "blufio_gateway_requests", METRIC_COUNTER, NULL, 0, { LABEL_CODE }, NULL, AT_REQUESTS,
	    "Requests of the gateway that are over, by the class of the answer's status." },
	[METRIC_LIMITS] = { "blufio_gateway_limits", METRIC_COUNTER, NULL, 0, { LABEL_LIMIT }, NULL, AT_LIMITS,
	    "How often a connection or request reached a limit of the gateway, by which." },
	[METRIC_CONNECTIONS] = { "blufio_gateway_connections", METRIC_GAUGE, NULL, 0, { LABEL_CREDENTIAL }, NULL, AT_CONNECTIONS,
	    "Open connections of the gateway, by whether a valid credential was shown on them." },
	[METRIC_COMPACTIONS] = { "blufio_compactions", METRIC_COUNTER, NULL, 0, { LABEL_COMPACTION }, NULL, AT_COMPACTIONS,
	    "Conversations condensed: without a model, with one, and tries that failed." },
	[METRIC_UNASKED] = { "blufio_unasked", METRIC_COUNTER, NULL, 0, { LABEL_UNASKED }, NULL, AT_UNASKED,
	    "What was done at its time: jobs run or told as missed, and what heartbeats came to." },
	[METRIC_PROMPTS] = { "blufio_prompts", METRIC_COUNTER, NULL, 0, { LABEL_TIER }, NULL, AT_PROMPTS,
	    "Prompts of turns that were answered and counted, by the tier of model that the message wants." },
	[METRIC_OVERHEAD] = { "blufio_prompt_overhead_tokens", METRIC_COUNTER, "tokens", 0, { LABEL_TIER }, NULL, AT_OVERHEAD,
	    "Tokens of those prompts that were neither the person's words nor history." },
	[METRIC_RESPONSE] = { "blufio_response_latency_seconds", METRIC_HISTOGRAM, "seconds", 6, { LABEL_NONE },
	    bounds_answer, AT_RESPONSE, "From a message's storing to its reply's delivery." },
	[METRIC_FIRST_TOKEN] = { "blufio_first_token_seconds", METRIC_HISTOGRAM, "seconds", 6, { LABEL_NONE },
	    bounds_answer, AT_FIRST_TOKEN, "From asking a model to the first piece of its answer." },
	[METRIC_CALL] = { "blufio_model_call_seconds", METRIC_HISTOGRAM, "seconds", 6, { LABEL_NONE }, bounds_answer,
	    AT_CALL, "From asking a model to the end of its answer; cancelled calls are left out." },
	[METRIC_TOOL] = { "blufio_tool_seconds", METRIC_HISTOGRAM, "seconds", 6, { LABEL_NONE }, bounds_tool, AT_TOOL,
	    "Runs of tools." },
	[METRIC_COMMIT] = { "blufio_commit_seconds", METRIC_HISTOGRAM, "seconds", 6, { LABEL_NONE }, bounds_commit,
	    AT_COMMIT, "Commits and syncs of the database, failed ones too." },
	[METRIC_SESSIONS] = { "blufio_active_sessions", METRIC_GAUGE, NULL, 0, { LABEL_NONE }, NULL, AT_SESSIONS,
	    "Conversations with an unanswered message." },
	[METRIC_QUEUES] = { "blufio_queue", METRIC_GAUGE, NULL, 0, { LABEL_QUEUE }, NULL, AT_QUEUES,
	    "What waits: messages behind another, replies on their way out, turns for a place." },
	[METRIC_CACHE] = { "blufio_cache_read_ratio", METRIC_GAUGE, "ratio", 6, { LABEL_NONE }, NULL, AT_CACHE,
	    "Share of all prompt tokens that came from the provider's cache." },
	[METRIC_RESIDENT] = { "process_resident_memory_bytes", METRIC_GAUGE, "bytes", 0, { LABEL_NONE }, NULL, AT_RESIDENT,
	    "Resident memory." },
	[METRIC_FDS] = { "process_open_fds", METRIC_GAUGE, NULL, 0, { LABEL_NONE }, NULL, AT_FDS, "Open descriptors." },
	[METRIC_FDS_MAX] = { "process_max_fds", METRIC_GAUGE, NULL, 0, { LABEL_NONE }, NULL, AT_FDS_MAX,
	    "How many descriptors may be open." },
	[METRIC_CPU] = { "process_cpu_seconds", METRIC_COUNTER, "seconds", 6, { LABEL_NONE }, NULL, AT_CPU,
	    "Processor time used." },
	[METRIC_START] = { "process_start_time_seconds", METRIC_GAUGE, "seconds", 6, { LABEL_NONE }, NULL, AT_START,
	    "When the agent started, since 1970." },
	[METRIC_BUILD] = { "blufio_build", METRIC_INFO, NULL, 0, { LABEL_VERSION }, NULL, AT_BUILD, "The running program." },
};

/* ---- counting -------------------------------------------------------------------- */

static void
add(struct agent *a, bool owed, enum metric m, size_t series, int64_t n)
{
	int64_t *cell = (owed ? a->metrics.owed : a->metrics.now) + families[m].at + series;

	if (add_i64(*cell, n, cell))
		*cell = INT64_MAX;
	a->metrics.owes |= owed;
}

/* A clock that was set back makes no negative time. */
static void
add_time(struct agent *a, bool owed, enum metric m, int64_t us)
{
	size_t i = 0;

	if (us < 0)
		us = 0;
	while (i < METRIC_BOUNDS && us > families[m].bounds[i])
		i++;
	add(a, owed, m, i, 1);
	add(a, owed, m, METRIC_BOUNDS + 1, us);
}

void
metrics_count(struct agent *a, enum metric m, size_t series)
{
	add(a, false, m, series, 1);
}

void
metrics_time(struct agent *a, enum metric m, int64_t us)
{
	add_time(a, false, m, us);
}

void
metrics_level(struct agent *a, enum metric m, size_t series, int64_t n)
{
	a->metrics.now[families[m].at + series] = n;
}

void
metrics_owe(struct agent *a, enum metric m, size_t series)
{
	add(a, true, m, series, 1);
}

void
metrics_owe_time(struct agent *a, enum metric m, int64_t us)
{
	add_time(a, true, m, us);
}

void
metrics_owe_message(struct agent *a, struct str channel)
{
	const struct channel *c = agent_channel(a, channel);

	if (c)
		add(a, true, METRIC_MESSAGES, (size_t)(c - a->channels), 1);
}

static size_t
model_series(const struct agent *a, const char *model)
{
	for (size_t i = 1; i <= a->metrics.n_models; i++)
		if (strcmp(a->metrics.models[i], model) == 0)
			return i;
	return 0;
}

void
metrics_owe_usage(struct agent *a, const char *model, const struct usage *u, int64_t nano)
{
	const int64_t n[TOKENS_COUNT] = { u->input, u->output, u->cache_read, u->write_5m + u->write_1h };
	size_t i = model_series(a, model);

	for (size_t k = 0; k < TOKENS_COUNT; k++)
		add(a, true, METRIC_TOKENS, i * TOKENS_COUNT + k, n[k]);
	add(a, true, METRIC_COST, i, nano);
}

void
metrics_owe_prompt(struct agent *a, size_t tier, int64_t overhead)
{
	tier = tier == TIER_NONE ? TIER_STANDARD : tier;
	add(a, true, METRIC_PROMPTS, tier - 1, 1);
	add(a, true, METRIC_OVERHEAD, tier - 1, overhead);
}

void
metrics_undone(struct agent *a)
{
	if (a->metrics.owes)
		memset(a->metrics.owed, 0, sizeof(a->metrics.owed));
	a->metrics.owes = false;
}

void
metrics_committed(struct agent *a)
{
	struct metrics *m = &a->metrics;

	for (size_t i = 0; m->owes && i < AT_END; i++)
		if (add_i64(m->now[i], m->owed[i], &m->now[i]))
			m->now[i] = INT64_MAX;
	metrics_undone(a);
}

static void
name_model(struct agent *a, struct str name)
{
	struct metrics *m = &a->metrics;
	char z[METRIC_MODEL_MAX];

	if (name.n == 0 || name.n >= sizeof(z) || m->n_models == METRIC_MODELS_MAX - 1)
		return;                 /* it is among the others */
	snprintf(z, sizeof(z), "%.*s", STR_ARG(name));
	if (model_series(a, z) == 0)
		memcpy(m->models[++m->n_models], z, sizeof(z));
}

void
metrics_models(struct agent *a)
{
	const char *const *others = config_argv(a->config, "providers.fallback");
	struct str segment;

	for (size_t i = 0; i < a->n_providers; i++)
		name_model(a, str_z(a->providers[i].model));
	for (; others && *others; others++)
		name_model(a, str_z(*others));
	for (size_t i = 0; config_segment(a->config, "pricing.*.input", i, &segment); i++)
		name_model(a, segment);
	for (size_t i = 0; i < a->n_providers; i++)
		for (const struct model_info *k = a->providers[i].feature->provider->models; k && k->id; k++)
			name_model(a, str_z(k->id));
}

/* ---- reading ------------------------------------------------------------------------ */

const struct metric_family *
metrics_family(enum metric m)
{
	return &families[m];
}

const char *
metrics_label_name(enum metric_label l)
{
	static const char *const names[] = { "", "channel", "outcome", "result", "model", "kind", "class", "class",
	    "what", "queue", "version", "code", "limit", "credential", "kind", "tier" };

	return names[l];
}

static size_t
label_values(const struct agent *a, enum metric_label l)
{
	switch (l) {
	case LABEL_NONE: case LABEL_VERSION: break;
	case LABEL_CHANNEL: return a->n_channels;
	case LABEL_OUTCOME: return OUTCOME_COUNT - 1;   /* none is no outcome */
	case LABEL_DELIVERY: return ARRAY_LEN(deliveries);
	case LABEL_MODEL: return a->metrics.n_models + 1;
	case LABEL_KIND: return ARRAY_LEN(kinds);
	case LABEL_CLASS: return ARRAY_LEN(classes);
	case LABEL_ERROR: return ARRAY_LEN(errors);
	case LABEL_UNASKED: return ARRAY_LEN(unasked);
	case LABEL_QUEUE: return ARRAY_LEN(queues);
	case LABEL_CODE: return ARRAY_LEN(codes);
	case LABEL_LIMIT: return ARRAY_LEN(limits);
	case LABEL_CREDENTIAL: return ARRAY_LEN(credentials);
	case LABEL_COMPACTION: return ARRAY_LEN(compactions);
	case LABEL_TIER: return ARRAY_LEN(tiers);
	}
	return 1;
}

size_t
metrics_series(const struct agent *a, enum metric m)
{
	return label_values(a, families[m].labels[0]) * label_values(a, families[m].labels[1]);
}

struct str
metrics_label(const struct agent *a, enum metric m, enum metric_label l, size_t series)
{
	size_t inner = label_values(a, families[m].labels[1]);
	size_t i = l == families[m].labels[0] ? series / inner : series % inner;

	switch (l) {
	case LABEL_NONE: break;
	case LABEL_CHANNEL: return str_z(a->channels[i].feature->name);
	case LABEL_OUTCOME: return str_z(turn_outcome_name((enum turn_outcome)(i + 1)));
	case LABEL_DELIVERY: return str_z(deliveries[i]);
	case LABEL_MODEL: return i ? str_z(a->metrics.models[i]) : S("other");
	case LABEL_KIND: return str_z(kinds[i]);
	case LABEL_CLASS: return str_z(classes[i]);
	case LABEL_ERROR: return str_z(errors[i]);
	case LABEL_UNASKED: return str_z(unasked[i]);
	case LABEL_QUEUE: return str_z(queues[i]);
	case LABEL_COMPACTION: return str_z(compactions[i]);
	case LABEL_TIER: return str_z(tiers[i]);
	case LABEL_VERSION: return S(BLUFIO_VERSION);
	case LABEL_CODE: return str_z(codes[i]);
	case LABEL_LIMIT: return str_z(limits[i]);
	case LABEL_CREDENTIAL: return str_z(credentials[i]);
	}
	return STR_NONE;
}

int64_t
metrics_value(const struct agent *a, enum metric m, size_t series)
{
	return a->metrics.now[families[m].at + (m == METRIC_TURNS) + series];
}

int64_t
metrics_bucket(const struct agent *a, enum metric m, size_t i)
{
	return a->metrics.now[families[m].at + i];
}

int64_t
metrics_sum(const struct agent *a, enum metric m)
{
	return a->metrics.now[families[m].at + METRIC_BOUNDS + 1];
}

/* ---- what is looked at, not counted ---------------------------------------------------- */

int64_t
metrics_resident(void)
{
	int64_t n = METRIC_UNKNOWN;
	char text[65];
	FILE *s = fopen("/proc/self/statm", "r");

	if (s == NULL)
		return n;               /* not Linux */
	if (fgets(text, sizeof(text), s)) {
		struct str rest = str_z(text), pages;

		(void)str_cut(&rest, ' ', &pages);
		(void)str_cut(&rest, ' ', &pages);
		if (str_i64(pages, 0, INT64_MAX / 65536, &n) == OK)
			n *= sysconf(_SC_PAGESIZE);
	}
	fclose(s);
	return n;
}

static int64_t
open_fds(void)
{
	int64_t n = -3;                 /* itself and the two dots */
	DIR *d = opendir("/proc/self/fd");

	if (d == NULL)
		return METRIC_UNKNOWN;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int64_t
cpu_us(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) != 0)
		return METRIC_UNKNOWN;
	return (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

/* In millionths. The sum is over all models. */
static int64_t
cache_ratio(const struct metrics *m)
{
	int64_t n[TOKENS_COUNT] = { 0 }, all;

	for (size_t i = 0; i <= m->n_models; i++)
		for (size_t k = 0; k < TOKENS_COUNT; k++)
			n[k] += m->now[AT_TOKENS + i * TOKENS_COUNT + k];
	all = n[TOKENS_INPUT] + n[TOKENS_CACHE_READ] + n[TOKENS_CACHE_WRITE];
	return all > 0 ? (int64_t)((double)n[TOKENS_CACHE_READ] * 1e6 / (double)all) : 0;
}

void
metrics_gather(struct agent *a)
{
	int64_t *now = a->metrics.now, queued;
	int64_t fds = sysconf(_SC_OPEN_MAX);

	now[AT_SESSIONS] = (int64_t)sessions_loaded(a);
	/* a reader is told what is known: a database that cannot be read is the errors' matter */
	now[AT_QUEUES + QUEUE_INBOUND] = store_inbound_queued(a->db, &queued) == OK ? queued : METRIC_UNKNOWN;
	now[AT_QUEUES + QUEUE_OUTBOX] = (int64_t)outbox_waiting(a);
	now[AT_QUEUES + QUEUE_ADMISSION] = (int64_t)turns_waiting(a);
	now[AT_CACHE] = cache_ratio(&a->metrics);
	now[AT_RESIDENT] = metrics_resident();
	now[AT_FDS] = open_fds();
	now[AT_FDS_MAX] = fds >= 0 ? fds : METRIC_UNKNOWN;
	now[AT_CPU] = cpu_us();
	now[AT_START] = a->started_at;
	now[AT_BUILD] = 1;
}
