/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * agent.c - the daemon: start, the end of each loop turn, recovery, drain.
 *
 * One loop turn is one transaction. turn_end commits what the turn's callbacks
 * wrote and only then runs the effects: everything that cannot be taken back
 * (asking a model, starting a tool, sending a text, acknowledging an update). If
 * a write or the commit fails, nothing has left the process: memory is thrown
 * away and load() rebuilds it from the rows, the same function that runs at
 * start-up, once a second until the storage works again.
 *
 * A light commit (agent_soon) puts a message on disk without waiting for the
 * platter before anything works on it; the next loop turn, which follows at
 * once, makes both durable with one fdatasync, and only then effects run.
 */
#include "core.h"
#include "core/cron.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HOUSEKEEPING_US (3600 * US_PER_S)
#define PROMPT_FILE_MAX (256u << 10)

struct checkpoint {
	struct work_job job;            /* first: CONTAINER */
	struct agent *a;
	const struct db_ops *ops;
	char *path;
	int64_t wal_pages, done_pages;
	uint64_t commits;               /* db->commits when it was queued */
	enum err err;
	bool running;
};

/* ---- effects ------------------------------------------------------------------------------ */

static void
effect_add(struct effects *l, struct effect *e)
{
	if (e->list)
		return;                 /* queued twice is queued once */
	e->list = l;
	e->next = NULL;
	e->prev = l->tail;
	*l->tail = e;
	l->tail = &e->next;
}

void
agent_after(struct agent *a, struct effect *e)
{
	effect_add(&a->after, e);
}

void
agent_soon(struct agent *a, struct effect *e)
{
	effect_add(&a->soon, e);
}

void
effect_cancel(struct effect *e)
{
	if (e->list == NULL)
		return;
	*e->prev = e->next;
	if (e->next)
		e->next->prev = e->prev;
	else
		e->list->tail = e->prev;
	e->list = NULL;
}

/* Runs those queued so far; what they queue waits for the next commit. */
static void
effects_run(struct effects *l)
{
	struct effects todo = { NULL, &todo.head };
	struct effect *e;

	while ((e = l->head)) {
		effect_cancel(e);
		effect_add(&todo, e);
	}
	while ((e = todo.head)) {
		effect_cancel(e);
		e->run(e);
	}
}

static void
effects_drop(struct effects *l)
{
	while (l->head)
		effect_cancel(l->head);
}

/* ---- channels --------------------------------------------------------------------------------- */

const struct channel *
agent_channel(struct agent *a, struct str name)
{
	for (size_t i = 0; i < a->n_channels; i++)
		if (str_eqz(name, a->channels[i].feature->name))
			return &a->channels[i];
	return NULL;
}

static const struct feature shell_feature = {
	.name = "shell", .kind = FEATURE_CHANNEL, .summary = "the terminal", .channel = &shell_channel,
};

static enum err
channel_start(struct agent *a, const struct feature *f, struct fail *fail)
{
	struct channel *c = &a->channels[a->n_channels];
	enum err e;

	if (a->n_channels == ARRAY_LEN(a->channels))
		return fail_set(fail, ERR_LIMIT, "more than %zu channels", ARRAY_LEN(a->channels));
	e = f->channel->start(a, &c->self, fail);
	if (e != OK)
		return e;
	c->feature = f;
	a->n_channels++;
	return OK;
}

/* ---- storage failed: drop memory, rebuild from rows ------------------------------------------------ */

static enum err load(struct agent *a, bool first);

static void
clear(struct agent *a)
{
	effects_drop(&a->after);
	effects_drop(&a->soon);
	a->durable_owed = a->load_owed = false;
	for (size_t i = 0; i < a->n_channels; i++)
		a->channels[i].feature->channel->reset(a->channels[i].self);
	if (a->sessions)
		sessions_clear(a);
	compact_clear(a);
	outbox_clear(a);
	media_clear(a);
	models_clear(a);
	jobs_clear(a);
	heartbeat_clear(a);
}

static void
storage_failed(struct agent *a)
{
	a->failed_commits++;
	metrics_undone(a);
	metrics_count(a, METRIC_ERRORS, METRIC_ERR_STORAGE);
	snprintf(a->storage_problem, sizeof(a->storage_problem), "%s", a->db->why[0] ? a->db->why : "out of memory");
	if (a->phase != AGENT_STORAGE_FAILED)   /* once, not every second */
		log_error("storage", "a write failed (%s): nothing of it left the process; the state is rebuilt from"
		    " the database, again every second; next: free space or permissions, `df -h %s`",
		    a->storage_problem, a->database_path);
	clear(a);
	if (a->phase == AGENT_DRAINING) {
		a->exit_code = EXIT_IO;
		ev_stop(a->ev);
		return;
	}
	a->phase = AGENT_STORAGE_FAILED;
	ev_timer_in(a->ev, &a->retry_timer, STORAGE_RETRY_US);
}

void
agent_wrote(struct agent *a, enum err e)
{
	if (e == OK || a->write_failed)
		return;
	a->write_failed = true;
	log_debug("storage", "this loop turn is undone: %s", err_str(e));
}

static void
on_load_again(struct effect *e)
{
	struct agent *a = CONTAINER(e, struct agent, load_again);

	a->load_owed = false;
	if (a->phase != AGENT_READY)
		return;                 /* the next start reads the rows */
	clear(a);
	if (load(a, false) != OK)
		storage_failed(a);
}

void
agent_load_again(struct agent *a)
{
	a->load_owed = true;
	if (!outbox_in_flight(a))
		agent_after(a, &a->load_again);
}

static void
on_retry(void *arg)
{
	struct agent *a = arg;
	enum err e = load(a, false);

	if (e == ERR_PROTO) {           /* a lock that could not be given back lasts as long as the process */
		log_error("storage", "%s cannot be used any more by this process (%s): it ends; next: `blufio serve`",
		    a->database_path, a->db->why);
		a->exit_code = EXIT_IO;
		ev_stop(a->ev);
	} else if (e != OK) {
		storage_failed(a);
	} else {
		log_info("storage", "works again");
	}
}

/* ---- the end of a loop turn --------------------------------------------------------------------------- */

static void
drained(struct agent *a)
{
	if (a->phase == AGENT_DRAINING && !turns_busy(a) && !a->llm_calls && !outbox_in_flight(a) && !a->after.head && !a->soon.head)
		ev_stop(a->ev);
}

/* Under a steady load the quiet moment never comes. */
static void
fold_wal(struct agent *a)
{
	int64_t wal, done;
	enum err e = a->db->ops->checkpoint(a->db->engine, true, &wal, &done);

	if (e != OK)                    /* the worker may be at it: the next look is soon */
		log_debug("storage", "the log could not be folded in now: %s", err_str(e));
}

static enum err
commit(struct agent *a)
{
	/* never twice in a row, or a steady stream of messages would keep effects waiting */
	bool light = a->soon.head && !a->durable_owed && a->phase == AGENT_READY;
	int64_t from = clock_mono_us();
	bool waited = a->db->in_tx || (a->durable_owed && !light);
	enum err e = OK;

	if (a->write_failed || a->db->refused) {        /* locks in disorder stay so, and who only reads hears of no write */
		db_rollback(a->db);
		return ERR_IO;
	}
	if (a->db->in_tx) {
		e = light ? db_commit_light(a->db) : db_commit(a->db);
		if (e == OK) {
			a->durable_owed = light;
			ev_timer_in(a->ev, &a->checkpoint_timer, CHECKPOINT_IDLE_US);
			if (a->db->commits % WAL_LOOK == 0 && a->db->ops->wal_bytes(a->db->engine) > WAL_BYTES_MAX)
				fold_wal(a);
		}
	} else if (a->durable_owed && !light) {
		e = db_sync(a->db);
		a->durable_owed = e != OK;
	}
	if (waited)
		metrics_time(a, METRIC_COMMIT, clock_mono_us() - from);
	return e;
}

static void
turn_end(void *arg)
{
	struct agent *a = arg;

	if (a->phase == AGENT_STORAGE_FAILED) {         /* only reads happen; effects would be lies */
		db_rollback(a->db);
		metrics_undone(a);
		a->write_failed = a->db->refused = false;
		effects_drop(&a->after);
		effects_drop(&a->soon);
		return;
	}
	if (commit(a) != OK) {
		a->write_failed = a->db->refused = false;
		storage_failed(a);
		return;
	}
	metrics_committed(a);
	effects_run(&a->soon);
	if (!a->durable_owed)
		effects_run(&a->after);
	if (a->db->in_tx || a->write_failed || a->after.head || a->soon.head)
		ev_defer(a->ev, &a->again);             /* an effect wrote: commit that too, without waiting */
	drained(a);
}

static void
on_again(void *arg)
{
	(void)arg;                                      /* the loop turns once more; turn_end does the work */
}

/* ---- folding the WAL into the file when it is quiet ---------------------------------------------------- */

static void
checkpoint_run(struct work_job *j)
{
	struct checkpoint *c = CONTAINER(j, struct checkpoint, job);

	c->err = c->ops->checkpoint_path(c->path, &c->wal_pages, &c->done_pages);
}

static void
checkpoint_done(struct work_job *j)
{
	struct checkpoint *c = CONTAINER(j, struct checkpoint, job);
	struct agent *a = c->a;

	c->running = false;
	if (c->err != OK)
		log_warn("storage", "checkpoint failed (%s); it is tried again", err_str(c->err));
	if (c->err != OK || c->done_pages < c->wal_pages || a->db->commits != c->commits)
		ev_timer_in(a->ev, &a->checkpoint_timer, c->err == OK ? CHECKPOINT_IDLE_US : 10 * US_PER_S);
}

static void
on_checkpoint(void *arg)
{
	struct agent *a = arg;
	struct checkpoint *c = a->checkpoint;

	if (a->phase == AGENT_STORAGE_FAILED || c->running)
		return;
	c->commits = a->db->commits;
	if (work_put(a->work, &c->job) == OK)
		c->running = true;
	else
		ev_timer_in(a->ev, &a->checkpoint_timer, US_PER_S);
}

static void
on_housekeeping(void *arg)
{
	struct agent *a = arg;

	ev_timer_in(a->ev, &a->housekeeping_timer, HOUSEKEEPING_US);
	if (a->phase == AGENT_READY) {
		agent_wrote(a, store_inbound_expire(a->db, clock_us() - DEDUP_US, DEDUP_NEWEST));
		agent_wrote(a, store_job_runs_expire(a->db, clock_us() - JOB_RUNS_US, JOB_RUNS_NEWEST));
		agent_wrote(a, store_batches_expire(a->db, clock_us() - BATCH_KEEP_US));
	}
}

/* ---- loading: the one way into a state ------------------------------------------------------------------ */

static void
replies_without_row(struct agent *a)
{
	struct session *s;
	size_t it = 0;

	while (sessions_next(a, &it, &s))
		if (s->turn && s->turn->state == TURN_REPLY && !outbox_has_turn(a, s->turn->id))
			turn_delivered(a, s->turn->id);
}

static enum err
load(struct agent *a, bool first)
{
	int64_t running = 0;
	bool died;
	enum err e = store_meta_get(a->db, "running", 0, &running);

	died = first && running != 0;
	a->write_failed = false;
	if (e == OK && died)
		e = store_turns_died(a->db);
	if (e == OK)                    /* also the probe that writing works */
		e = store_meta_set(a->db, "running", clock_us());
	if (e == OK)
		e = media_load(a);      /* first: turns ask what is pending */
	if (e == OK)
		e = cost_load(a);
	if (e == OK)
		e = turns_load(a, died);
	if (e == OK)
		e = sessions_load(a);
	if (e == OK)
		e = outbox_load(a);
	if (e == OK)
		replies_without_row(a);
	if (e == OK)
		e = jobs_load(a);
	if (e == OK)
		e = heartbeat_load(a);
	if (e == OK && a->write_failed)
		e = ERR_IO;
	if (e == OK)
		e = db_commit(a->db);
	if (e != OK) {
		db_rollback(a->db);
		a->write_failed = false;
		clear(a);
		return e;
	}
	if (died)
		log_warn("agent", "the last run ended without a clean stop; open work is taken up again");
	metrics_committed(a);
	a->phase = AGENT_READY;
	a->storage_problem[0] = '\0';
	ev_timer_in(a->ev, &a->checkpoint_timer, CHECKPOINT_IDLE_US);   /* what a killed run left in the WAL too */
	effects_run(&a->soon);
	effects_run(&a->after);
	for (size_t i = 0; i < a->n_channels; i++)
		a->channels[i].feature->channel->load(a->channels[i].self);
	return OK;
}

/* ---- start ----------------------------------------------------------------------------------------------- */

FALLIBLE
agent_prompt(struct agent *a, struct buf *out)
{
	struct str file = config_str(a->config, "agent.system_prompt_file");
	struct str text = config_str(a->config, "agent.system_prompt");
	struct fail f = FAIL_INIT;

	if (file.n) {
		struct buf b = BUF_INIT(PROMPT_FILE_MAX);
		bool ok = file_read(file.p, PROMPT_FILE_MAX, &b, &f) == OK && utf8_valid(buf_view(&b));

		if (ok)
			buf_str(out, str_trim(buf_view(&b)));
		else
			log_warn("agent", "the system prompt file is not readable text (%s): the inline prompt is"
			    " used", f.text[0] ? f.text : "invalid UTF-8");
		buf_free(&b);
		if (ok)
			return out->err;
	}
	if (text.n)
		buf_str(out, text);
	else
		buf_fmt(out, "You are %s, a personal assistant who talks with one person over chat. Be concise and"
		    " concrete, say when you are not sure, and use Markdown only where it helps.", a->name);
	return out->err;
}

/* The words of file.c, with what to do about it. */
static enum err
no_place(struct fail *f, enum err e)
{
	char why[sizeof(f->text)];

	snprintf(why, sizeof(why), "%s", f->text);
	fail_clear(f);
	return fail_set(f, e == ERR_NOTFOUND ? ERR_IO : e, "%s; next: mend that, or name another place with"
	    " `blufio config set storage.database_path /another/blufio.db`", why);
}

static enum err
open_storage(struct agent *a, struct fail *f)
{
	const struct feature *storage = NULL;
	struct str path = config_str(a->config, "storage.database_path");
	bool power = str_eqz(config_str(a->config, "storage.durability"), "power");
	char lock[4096], *slash;
	int holder = 0;
	enum err e;

	for (size_t i = 0; features[i] && !storage; i++)
		if (features[i]->kind == FEATURE_STORAGE)
			storage = features[i];
	if (storage == NULL)
		return fail_set(f, ERR_CONFIG, "this build has no storage adapter; next: `make FEATURES=\"… sqlite\"`");
	a->database_path = malloc(path.n + 1);
	if (a->database_path == NULL)
		return fail_set(f, ERR_NOMEM, "out of memory");
	snprintf(a->database_path, path.n + 1, "%.*s", STR_ARG(path));
	slash = strrchr(a->database_path, '/');
	if (slash && slash != a->database_path) {
		*slash = '\0';
		e = file_mkdirs(a->database_path, 0700, f);
		*slash = '/';
		if (e != OK)
			return no_place(f, e);
	}
	if ((size_t)snprintf(lock, sizeof(lock), "%s.lock", a->database_path) >= sizeof(lock))
		return fail_set(f, ERR_CONFIG, "storage.database_path is longer than %zu bytes; next: `blufio config"
		    " set storage.database_path /a/shorter/path.db`", sizeof(lock));
	e = file_lock(lock, &a->lock_fd, &holder, f);
	if (e == ERR_BUSY) {
		fail_clear(f);
		return fail_set(f, e, "%s is in use by another blufio (process %d); next: `blufio status` shows it,"
		    " `blufio stop` ends it", a->database_path, holder);
	}
	if (e != OK)
		return no_place(f, e);
	e = db_open(&a->db, storage->storage, a->database_path, false, power ? DB_POWER : DB_PROCESS, f);
	return e != OK ? e : store_migrate(a->db, a->database_path, f);
}

static enum err
open_channels(struct agent *a, bool with_channels, struct fail *f)
{
	enum err e = channel_start(a, &shell_feature, f);

	for (size_t i = 0; with_channels && features[i] && e == OK; i++)
		if (features[i]->kind == FEATURE_CHANNEL && features[i]->channel->wanted(a->config))
			e = channel_start(a, features[i], f);
	return e;
}

static void
on_term(void *arg)
{
	struct agent *a = arg;

	if (a->phase == AGENT_DRAINING || a->phase == AGENT_STORAGE_FAILED) {
		log_warn("agent", "%s: stopping at once", a->phase == AGENT_DRAINING ? "second signal" : "storage fails");
		if (a->phase == AGENT_STORAGE_FAILED)
			a->exit_code = EXIT_IO;
		a->phase = AGENT_DRAINING;
		ev_stop(a->ev);
		return;
	}
	agent_drain(a);
}

static void
on_drain_timeout(void *arg)
{
	struct agent *a = arg;

	log_warn("agent", "drain_timeout is over: %zu conversation(s) go on at the next start", turns_running(a));
	ev_stop(a->ev);
}

static void
on_hup(void *arg)
{
	(void)arg;
	IGNORE(log_reopen());           /* the old file stays in use when the new one cannot be made */
}

static enum err
open_loop(struct agent *a, const struct spawner *sp, struct fail *f)
{
	enum err e = ev_new(&a->ev);

	if (e == OK)
		e = fetch_new(a->ev, "blufio/" BLUFIO_VERSION, &a->fetch);
	if (e == OK)
		e = work_new(a->ev, &a->work);
	if (e == OK && sp && sp->fd >= 0)
		e = procs_new(a->ev, sp, &a->procs);
	if (e != OK)
		return fail_set(f, e, "cannot set up the event loop: %s", err_str(e));
	ev_timer_init(&a->retry_timer, on_retry, a);
	ev_timer_init(&a->drain_timer, on_drain_timeout, a);
	ev_timer_init(&a->checkpoint_timer, on_checkpoint, a);
	ev_timer_init(&a->housekeeping_timer, on_housekeeping, a);
	ev_defer_init(&a->again, on_again, a);
	a->load_again.run = on_load_again;
	ev_turn_end(a->ev, turn_end, a);
	return OK;
}

static enum err
open_core(struct agent *a, struct fail *f)
{
	enum err e = bus_new(a);

	if (e == OK)
		e = sessions_new(a);
	if (e == OK)
		e = turns_new(a);
	if (e == OK)
		e = outbox_new(a);
	if (e == OK)
		e = media_new(a);
	if (e == OK)
		e = models_new(a);
	a->checkpoint = e == OK ? calloc(1, sizeof(*a->checkpoint)) : NULL;
	if (a->checkpoint == NULL)
		return fail_set(f, e == OK ? ERR_NOMEM : e, "cannot start: %s", err_str(e == OK ? ERR_NOMEM : e));
	a->checkpoint->a = a;
	a->checkpoint->ops = a->db->ops;
	a->checkpoint->path = a->database_path;
	a->checkpoint->job.run = checkpoint_run;
	a->checkpoint->job.done = checkpoint_done;
	return OK;
}

FALLIBLE
agent_new(struct agent **out, struct config *config, const struct spawner *sp, bool with_channels, struct fail *f)
{
	struct agent *a = calloc(1, sizeof(*a));
	enum err e;

	if (a == NULL)
		return fail_set(f, ERR_NOMEM, "out of memory");
	a->config = config;
	a->lock_fd = -1;
	a->after.tail = &a->after.head;
	a->soon.tail = &a->soon.head;
	a->started_at = clock_us();
	snprintf(a->name, sizeof(a->name), "%.*s", STR_ARG(config_str(config, "agent.name")));
	e = cron_zone_use(config_str(config, "agent.timezone"), f);
	if (e == OK)
		e = open_loop(a, sp, f);
	if (e == OK)
		e = open_storage(a, f);
	if (e == OK)
		e = open_core(a, f);
	if (e == OK)
		e = providers_new(a, f);
	if (e == OK)
		metrics_models(a);
	if (e == OK)
		e = control_new(a, with_channels, f);
	if (e == OK)
		e = open_channels(a, with_channels, f);
	if (e == OK) {
		e = load(a, true);
		if (e != OK)
			e = fail_set(f, e, "%s: the stored state cannot be loaded (%s); next: `df -h %s`, then a"
			    " backup if the file is damaged", a->database_path, a->db->why[0] ? a->db->why : err_str(e),
			    a->database_path);
	}
	if (e != OK) {
		a->config = NULL;               /* stays the caller's */
		agent_free(a);
		return e;
	}
	*out = a;
	return OK;
}

static void
check_prompt(struct agent *a)
{
	struct buf prompt = BUF_INIT(PROMPT_FILE_MAX);

	if (agent_prompt(a, &prompt) == OK)
		context_check(a, prompt.n);
	buf_free(&prompt);
}

FALLIBLE
agent_run(struct agent *a)
{
	enum err e = ev_signal(a->ev, SIGTERM, on_term, a);

	if (e == OK)
		e = ev_signal(a->ev, SIGINT, on_term, a);
	if (e == OK)
		e = ev_signal(a->ev, SIGHUP, on_hup, a);
	if (e != OK)
		return e;
	ev_timer_in(a->ev, &a->housekeeping_timer, US_PER_S);
	check_prompt(a);
	notify_systemd("READY=1");
	log_info("agent", "ready: %s %s, model %s, %zu channel(s), database %s", a->name, BLUFIO_VERSION,
	    llm_model(a), a->n_channels, a->database_path);
	return ev_run(a->ev);
}

void
agent_drain(struct agent *a)
{
	if (a->phase == AGENT_DRAINING)
		return;
	log_info("agent", "stopping: %zu conversation(s) running", turns_running(a));
	notify_systemd("STOPPING=1");
	a->phase = AGENT_DRAINING;
	heartbeat_stop(a);
	for (size_t i = 0; i < a->n_channels; i++)
		a->channels[i].feature->channel->stop_intake(a->channels[i].self);
	ev_timer_in(a->ev, &a->drain_timer, config_i64(a->config, "agent.drain_timeout") * US_PER_S);
}

FALLIBLE
agent_reload(struct agent *a, struct buf *told, struct fail *f)
{
	struct config *fresh;
	enum log_level level;
	enum err e = config_load(&fresh, config_path(a->config), NULL, f);

	if (e == OK && (e = providers_check(fresh, f)) != OK)
		config_free(fresh);
	if (e != OK)
		return e;               /* the last good configuration stays in force */
	config_fixed(a->config, fresh, told);
	config_free(a->config);
	a->config = fresh;
	providers_read(a);
	providers_moved(a, told);
	metrics_models(a);
	check_prompt(a);
	if (log_level_parse(config_str(fresh, "log.level"), &level) == OK)
		log_set_level(level);
	for (size_t i = 0; i < a->n_channels; i++)
		if (!a->channels[i].feature->channel->wanted(fresh))
			buf_fmt(told, "%s ends at the next start\n", a->channels[i].feature->name);
	for (size_t i = 0; features[i]; i++)
		if (features[i]->kind == FEATURE_CHANNEL && features[i]->channel->wanted(fresh) &&
		    agent_channel(a, str_z(features[i]->name)) == NULL)
			buf_fmt(told, "%s starts at the next start\n", features[i]->name);
	buf_fmt(told, "configuration reloaded from %s\n", config_path(fresh) ? config_path(fresh) : "the environment");
	turns_wake(a);
	if (a->phase == AGENT_READY) {
		agent_wrote(a, jobs_load(a));
		agent_wrote(a, heartbeat_load(a));
	}
	log_info("agent", "configuration reloaded");
	return OK;
}

void
agent_free(struct agent *a)
{
	bool loaded = a->phase != AGENT_STARTING;

	a->phase = AGENT_STOPPED;
	if (a->outbox)
		clear(a);
	if (a->db)
		db_rollback(a->db);     /* what follows is committed: calls that end here are booked */
	for (size_t i = 0; i < a->n_channels; i++)
		a->channels[i].feature->channel->free(a->channels[i].self);
	a->n_channels = 0;
	control_free(a);
	if (a->sessions)
		sessions_free(a);
	if (a->turns)
		turns_free(a);
	outbox_free(a);
	bus_free(a);
	heartbeat_free(a);
	models_free(a);                 /* before the provider that was asked for the list */
	providers_free(a);
	if (a->db) {
		/* a clean stop is no death: what was running is not held against its message */
		if (loaded && (store_meta_set(a->db, "running", 0) != OK || db_commit(a->db) != OK))
			log_warn("storage", "the clean stop could not be recorded: %s", a->db->why);
	}
	work_free(a->work);
	db_close(a->db);
	procs_free(a->procs);
	media_free(a);
	fetch_free(a->fetch);
	ev_free(a->ev);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	config_free(a->config);
	free(a->checkpoint);
	free(a->database_path);
	free(a);
}

/* sd_notify(3) without its library: one datagram to $NOTIFY_SOCKET, or nothing. */
void
notify_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n < 2 || n >= sizeof(sun.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(sun.sun_path, path, n);
	if (path[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, strlen(text), 0, (const struct sockaddr *)(const void *)&sun,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_warn("agent", "systemd could not be told: %s", strerror(errno));
	close(fd);
}
