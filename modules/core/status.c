/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * status.c - what the daemon says about itself: `blufio status` for people and
 * machines, `blufio dump` for tests.
 *
 * The dump is the state in memory in an order that depends on ids alone, so that
 * two processes with the same state print the same bytes: after a failed commit
 * it must equal what a fresh start loads from the same rows.
 */
#include "core.h"

#include <unistd.h>

/* CALL and STREAM are one place seen from outside: a start turns the second into the first and back. */
static const char *
place(enum turn_state s)
{
	return s == TURN_CALL || s == TURN_STREAM ? "model" : turn_state_name(s);
}

void
status_dump(struct agent *a, struct buf *out)
{
	struct jw w;
	int64_t last = 0;

	jw_init(&w, out);
	jw_obj(&w);
	jw_key(&w, "sessions");
	jw_arr(&w);
	for (;;) {                      /* sorted by id */
		struct session *least = NULL, *s;
		size_t it = 0;

		while (sessions_next(a, &it, &s))
			if (s->id > last && (least == NULL || s->id < least->id))
				least = s;
		if (least == NULL)
			break;
		last = least->id;
		jw_obj(&w);
		jw_ki64(&w, "id", least->id);
		jw_ki64(&w, "next_seq", least->next_seq);
		if (least->turn) {
			jw_ki64(&w, "turn", least->turn->id);
			jw_ki64(&w, "inbound", least->turn->inbound);
			jw_ki64(&w, "round", least->turn->round);
			jw_kz(&w, "place", place(least->turn->state));
		}
		jw_end_obj(&w);
	}
	jw_end_arr(&w);
	jw_key(&w, "outbox");
	jw_arr(&w);
	outbox_dump(a, &w);
	jw_end_arr(&w);
	jw_key(&w, "attachments");
	jw_arr(&w);
	media_dump(a, &w);
	jw_end_arr(&w);
	jw_end_obj(&w);
	IGNORE(jw_done(&w));            /* out carries the error */
}

static void
status_channels(struct agent *a, struct jw *w)
{
	jw_key(w, "channels");
	jw_arr(w);
	for (size_t i = 0; i < a->n_channels; i++) {
		jw_obj(w);
		jw_kz(w, "name", a->channels[i].feature->name);
		if (a->channels[i].feature->channel->status)
			a->channels[i].feature->channel->status(a->channels[i].self, w);
		jw_end_obj(w);
	}
	jw_end_arr(w);
}

static void
status_models(struct agent *a, struct jw *w)
{
	static const struct { unsigned flag; const char *name; } can[] = {
		{ MODEL_PDF, "pdf" }, { MODEL_SYSTEM_TURNS, "system_turns" }, { MODEL_ADAPTIVE, "thinking_adaptive" },
		{ MODEL_BUDGET, "thinking_enabled" }, { MODEL_DISABLED, "thinking_disabled" },
		{ MODEL_BETWEEN_TOOLS, "thinking_between_tools" }, { MODEL_SILENT, "thinking_silent" },
		{ MODEL_BOUND, "thinking_bound" },
	};
	static const struct { const char *name; size_t field; } figures[] = {
#define FIGURE(x) { #x, offsetof(struct model_info, x) }
		FIGURE(window), FIGURE(max_output), FIGURE(cache_min), FIGURE(images_max), FIGURE(in), FIGURE(out),
		FIGURE(write_5m), FIGURE(write_1h), FIGURE(read), FIGURE(band_above), FIGURE(band_factor),
#undef FIGURE
	};

	jw_key(w, "models");
	jw_obj(w);
	for (const struct model_info *m = a->provider->feature->provider->models; m && m->id; m++) {
		jw_key(w, m->id);
		jw_obj(w);
		for (size_t i = 0; i < ARRAY_LEN(figures); i++) {
			int64_t v;

			memcpy(&v, (const char *)m + figures[i].field, sizeof(v));
			jw_ki64(w, figures[i].name, v);
		}
		jw_key(w, "can");
		jw_arr(w);
		for (size_t i = 0; i < ARRAY_LEN(can); i++)
			if (m->flags & can[i].flag)
				jw_z(w, can[i].name);
		jw_end_arr(w);
		jw_end_obj(w);
	}
	jw_end_obj(w);
}

/* What is known of the provider's rate limits; one whose reset is past is whole again. */
static void
status_limits(struct agent *a, struct jw *w)
{
	static const char *const names[LLM_LIMITS] = { "requests", "tokens", "input_tokens", "output_tokens" };
	int64_t now = clock_mono_us();

	jw_key(w, "rate_limits");
	jw_obj(w);
	for (size_t i = 0; i < LLM_POOLS_MAX; i++) {
		const struct llm_pool *p = &a->pools[i];

		if (p->fed_at == 0)
			continue;
		jw_key(w, p->family);
		jw_obj(w);
		for (size_t k = 0; k < LLM_LIMITS; k++) {
			if (p->of[k].remaining < 0 || p->of[k].reset_us <= now)
				continue;
			jw_key(w, names[k]);
			jw_obj(w);
			jw_ki64(w, "limit", p->of[k].limit);
			jw_ki64(w, "remaining", p->of[k].remaining);
			jw_ki64(w, "reset_s", (p->of[k].reset_us - now) / US_PER_S + 1);
			jw_end_obj(w);
		}
		jw_end_obj(w);
	}
	jw_end_obj(w);
}

/* Members of an object. */
static void
status_health(const struct provider *p, struct jw *w)
{
	const struct provider_health *h = &p->health;
	int64_t wait = p->open_until - clock_mono_us();

	jw_kz(w, "name", p->name);
	jw_kz(w, "model", p->model);
	jw_kz(w, "state", p->open_for ? "not asked" : h->failing ? "failing" : h->calls ? "answering" : "not asked yet");
	jw_ki64(w, "next_try_s", p->open_for == 0 ? -1 : wait > 0 ? wait / US_PER_S + 1 : 0);
	jw_ki64(w, "calls", h->calls);
	jw_ki64(w, "failures", h->failures);
	jw_ki64(w, "last_answer_age_s", h->answered_at ? (clock_us() - h->answered_at) / US_PER_S : -1);
	jw_kz(w, "problem", h->failing ? h->problem : "");
}

static void
status_provider(struct agent *a, struct jw *w)
{
	jw_key(w, "provider");
	jw_obj(w);
	status_health(a->provider, w);
	status_limits(a, w);
	status_models(a, w);
	jw_end_obj(w);
	jw_key(w, "providers");
	jw_arr(w);
	for (size_t i = 0; i < a->n_providers; i++) {
		jw_obj(w);
		status_health(&a->providers[i], w);
		jw_end_obj(w);
	}
	jw_end_arr(w);
}

static const char *
phase_name(enum agent_phase p)
{
	static const char *const names[] = { "starting", "running", "storage failed", "stopping", "stopped" };

	return names[p];
}

void
status_json(struct agent *a, struct buf *out)
{
	int64_t sessions = 0, queued = 0, at = 0, resident = metrics_resident();
	const char *problem = log_last_problem(&at);
	char iso[32];
	struct jw w;

	if (store_session_count(a->db, &sessions) != OK || store_inbound_queued(a->db, &queued) != OK)
		sessions = queued = -1;
	jw_init(&w, out);
	jw_obj(&w);
	jw_kz(&w, "state", phase_name(a->phase));
	jw_kz(&w, "version", BLUFIO_VERSION);
	jw_ki64(&w, "pid", getpid());
	jw_ki64(&w, "uptime_secs", (clock_us() - a->started_at) / US_PER_S);
	jw_key(&w, "features");
	jw_arr(&w);
	for (size_t i = 0; features[i]; i++)
		jw_z(&w, features[i]->name);
	jw_end_arr(&w);
	status_provider(a, &w);
	status_channels(a, &w);
	jw_key(&w, "sessions");
	jw_obj(&w);
	jw_ki64(&w, "stored", sessions);
	jw_ki64(&w, "active", (int64_t)sessions_loaded(a));
	jw_ki64(&w, "running", (int64_t)turns_running(a));
	jw_ki64(&w, "waiting", (int64_t)turns_waiting(a));
	jw_ki64(&w, "max", config_i64(a->config, "agent.max_sessions"));
	jw_end_obj(&w);
	jw_key(&w, "queues");
	jw_obj(&w);
	jw_ki64(&w, "inbound", queued);
	jw_ki64(&w, "outbox", (int64_t)outbox_waiting(a));
	jw_end_obj(&w);
	jw_ki64(&w, "memory_kb", resident >= 0 ? resident / 1024 : -1);
	jw_key(&w, "cost");
	jw_obj(&w);
	jw_ki64(&w, "today_nano_usd", cost_today(a));
	jw_kbool(&w, "paused", a->paused);
	jw_ki64(&w, "daily_cap_nano_usd", config_i64(a->config, "cost.daily_budget_usd"));
	jw_end_obj(&w);
	jw_key(&w, "compactions");
	jw_obj(&w);
	for (size_t i = 0; i < COMPACTION_COUNT; i++)
		jw_ki64(&w, metrics_label(a, METRIC_COMPACTIONS, LABEL_COMPACTION, i).p, metrics_value(a, METRIC_COMPACTIONS, i));
	jw_ki64(&w, "running", (int64_t)compact_running(a));
	jw_end_obj(&w);
	jw_key(&w, "jobs");
	jobs_status(a, &w);
	jw_key(&w, "heartbeat");
	heartbeat_status(a, &w);
	jw_key(&w, "storage");
	jw_obj(&w);
	jw_kz(&w, "path", a->database_path);
	jw_kstr(&w, "durability", config_str(a->config, "storage.durability"));
	jw_ki64(&w, "commits", (int64_t)a->db->commits);
	jw_ki64(&w, "failed_commits", (int64_t)a->failed_commits);
	jw_kz(&w, "problem", a->storage_problem);
	jw_end_obj(&w);
	jw_kbool(&w, "spawner", a->procs && procs_alive(a->procs));
	jw_ki64(&w, "wakeups", (int64_t)ev_turns(a->ev));
	jw_kz(&w, "last_error", problem);
	if (problem[0]) {
		clock_iso(at, iso);
		jw_kz(&w, "last_error_at", iso);
	}
	jw_end_obj(&w);
	IGNORE(jw_done(&w));            /* out carries the error */
}

