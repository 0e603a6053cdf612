/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * jobs.c - what is done at its time: /jobs, /job, and [jobs.NAME].
 *
 * A job is a row with a schedule, a text and the next time it is due. When that
 * has come, one transaction takes the time (job_runs has each once), puts the text
 * into its conversation as a message of kind INBOUND_JOB, and names the next time.
 * So whatever dies when, and wherever clocks go, a time is answered once; from
 * there on it is a turn like any other, paid as COST_JOB. Words like /stop in the
 * text are text: nothing that a job says or gets for an answer makes a job.
 *
 * Nothing stands in memory but a timer. It looks at least once a minute, because a
 * clock that is set moves no timer. Times that passed while nothing ran (or while
 * everything was paused) are done once, late, or told in a line.
 */
#include "core.h"
#include "core/cron.h"

#define LOOK_US (60 * US_PER_S)         /* also the grain of schedules: a job is due once a minute at most */
#define FIRES_MAX 100                   /* of one loop turn */
#define MISSED_MAX 1000                 /* counted; beyond, it is "more" */
#define CHAT_MAX 100                    /* bytes of "channel:chat" */
#define SHOWN_MAX 200                   /* bytes of a job's text in lists */

struct job {
	struct agent *a;
	int64_t id, session, due_at;
	bool report;
	struct cron cron;
	struct buf text;
	enum err err;
};

static void
take_job(void *arg, const struct job_row *r)
{
	struct job *j = arg;
	struct fail f = FAIL_INIT;

	j->session = r->session;
	j->due_at = r->due_at;
	j->report = r->report;
	if (cron_parse(r->schedule, &j->cron, &f) != OK) {
		log_error("jobs", "job %lld has a schedule that makes no sense, and ends: %s", (long long)r->id, f.text);
		j->due_at = 0;          /* and nothing in cron: never again */
	}
	buf_str(&j->text, r->text);
	j->err = j->text.err;
}

/* Free its text. */
static enum err
job_get(struct agent *a, int64_t id, struct job *out)
{
	enum err e;

	*out = (struct job){ .a = a, .id = id, .text = BUF_INIT(JOB_BYTES_MAX), .err = ERR_NOTFOUND };
	e = store_job_get(a->db, id, take_job, out);
	return e != OK ? e : out->err;
}

static int64_t
next(const struct cron *c, int64_t after)
{
	int64_t at = cron_next(c, after);

	return at == CRON_NEVER ? 0 : at;
}

/* ---- at its time --------------------------------------------------------------------------------- */

/* How many of its times have passed with this one. */
static int64_t
passed(const struct job *j, int64_t now)
{
	int64_t n = 1, at = j->due_at;

	while (n < MISSED_MAX && (at = cron_next(&j->cron, at)) <= now)
		n++;
	return n;
}

static void
say_times(struct buf *b, const struct job *j, int64_t n)
{
	char due[32];

	cron_local(j->due_at, due);
	buf_fmt(b, "job %lld, due %s", (long long)j->id, due);
	if (n > 1)
		buf_fmt(b, " and %s%lld time%s since", n == MISSED_MAX ? "more than " : "", (long long)n - 1, n == 2 ? "" : "s");
}

static enum err
ask(const struct job *j, int64_t now, int64_t n, bool late)
{
	struct buf b = BUF_INIT(JOB_BYTES_MAX + 512);
	char dedup[64], local[32];
	enum err e;

	cron_local(now, local);
	buf_puts(&b, "Scheduled ");
	say_times(&b, j, n);
	if (late)
		buf_fmt(&b, "; nothing ran then, and it is now %s", local);
	buf_puts(&b, ". Nobody writes now: this was asked for earlier, for this time.\n\n");
	buf_str(&b, buf_view(&j->text));
	snprintf(dedup, sizeof(dedup), "job:%lld:%lld", (long long)j->id, (long long)j->due_at);
	e = b.err != OK ? b.err : session_ask(j->a, j->session, str_z(dedup), buf_view(&b));
	buf_free(&b);
	return e;
}

static enum err
tell(const struct job *j, int64_t n)
{
	struct buf b = BUF_INIT(1024);
	struct str text = buf_view(&j->text), line;
	enum err e;

	(void)str_cut(&text, '\n', &line);
	buf_puts(&b, "Missed while nothing ran: ");
	say_times(&b, j, n);
	buf_fmt(&b, ": %.*s", STR_ARG(utf8_prefix(line, SHOWN_MAX)));
	e = b.err != OK ? b.err : session_say(j->a, j->session, buf_view(&b));
	buf_free(&b);
	return e;
}

static enum err
fire(struct agent *a, int64_t id, int64_t now)
{
	struct job j;
	enum err e = job_get(a, id, &j);
	bool late = now - j.due_at > JOB_LATE_US, fresh = false;
	int64_t n = 0;

	if (e == OK && j.due_at) {
		n = passed(&j, now);
		e = store_job_run(a->db, id, j.due_at, n, &fresh);
	}
	if (e == OK && fresh) {
		log_info("jobs", "job %lld is due%s", (long long)id, late && j.report ? ": missed, and told" : late ? ", late" : "");
		metrics_owe(a, METRIC_UNASKED, late && j.report ? UNASKED_MISSED : UNASKED_JOB);
		e = late && j.report ? tell(&j, n) : ask(&j, now, n, late);
	}
	if (e == OK)
		e = store_job_due(a->db, id, next(&j.cron, now));
	buf_free(&j.text);
	return e;
}

/* The times to come, by today's clock and zone; what is due already is left to be done. */
static enum err
plan(struct agent *a, int64_t now)
{
	struct id_list ids = { NULL, 0, OK };
	enum err e = store_jobs_due(a->db, INT64_MAX, INT64_MAX, id_list_add, &ids);

	if (e == OK)
		e = ids.err;
	for (size_t i = 0; i < ids.n && e == OK; i++) {
		struct job j;

		e = job_get(a, ids.p[i], &j);
		if (e == OK && (j.due_at == 0 || j.due_at > now) && next(&j.cron, now) != j.due_at)
			e = store_job_due(a->db, ids.p[i], next(&j.cron, now));
		buf_free(&j.text);
	}
	free(ids.p);
	return e;
}

static enum err
arm(struct agent *a)
{
	int64_t id, due, wait;
	enum err e = store_jobs_next(a->db, &id, &due);

	wait = due - clock_us();
	if (e != OK || id == 0)
		ev_timer_cancel(a->ev, &a->jobs_timer);
	else
		ev_timer_in(a->ev, &a->jobs_timer, wait > LOOK_US || a->paused ? LOOK_US : wait > 0 ? wait : 0);
	return e;
}

static void
look(void *arg)
{
	struct agent *a = arg;
	struct id_list ids = { NULL, 0, OK };
	int64_t now = clock_us();
	enum err e = OK;

	if (a->phase != AGENT_READY || a->write_failed)
		return;                         /* rows are taken up again by the next load */
	if (now < a->jobs_looked_at)            /* the clock was set back: what was far may be near */
		e = plan(a, now);
	a->jobs_looked_at = now;
	if (e == OK && !a->paused)
		e = store_jobs_due(a->db, now, FIRES_MAX, id_list_add, &ids);
	if (e == OK)
		e = ids.err;
	for (size_t i = 0; i < ids.n && e == OK; i++)
		e = fire(a, ids.p[i], now);
	free(ids.p);
	if (e == OK)
		e = arm(a);
	agent_wrote(a, e);
}

void
jobs_wake(struct agent *a)
{
	if (a->jobs_timer.fn)
		ev_timer_in(a->ev, &a->jobs_timer, 0);
}

void
jobs_clear(struct agent *a)
{
	ev_timer_cancel(a->ev, &a->jobs_timer);
}

/* ---- of the configuration ------------------------------------------------------------------------ */

FALLIBLE
jobs_chat_check(struct str text, struct fail *f)
{
	struct str chat = text, channel;

	if (!str_cut(&chat, ':', &channel) || channel.n == 0 || chat.n == 0 || text.n > CHAT_MAX || str_chr(text, ' ') != SIZE_MAX)
		return fail_set(f, ERR_PARSE, "\"%.*s\" names no channel and chat", STR_ARG(utf8_prefix(text, 60)));
	return str_eqz(channel, "shell") || feature_find(FEATURE_CHANNEL, channel) ? OK :
	    fail_set(f, ERR_PARSE, "\"%.*s\" is no channel of this build", STR_ARG(utf8_prefix(channel, 60)));
}

FALLIBLE
jobs_chat(struct agent *a, struct str name, int64_t *session, int64_t *user)
{
	struct target to = { .chat = name };
	enum err e;

	(void)str_cut(&to.chat, ':', &to.channel);
	e = store_user_for(a->db, to.channel, to.chat, STR_NONE, user);
	return e == OK ? store_session_find(a->db, a->name, &to, *user, session) : e;
}

/* Is everything there that a job of that name wants? */
static bool
whole(struct agent *a, struct str name)
{
	static const char *const keys[] = { "jobs.*.schedule", "jobs.*.prompt", "jobs.*.chat" };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (config_wild_str(a->config, keys[i], name).n == 0) {
			log_warn("jobs", "[jobs.%.*s] has no %s: it never runs; next: `blufio config set jobs.%.*s.%s …`", STR_ARG(name),
			    keys[i] + 7, STR_ARG(name), keys[i] + 7);
			return false;
		}
	return true;
}

static enum err
read_one(struct agent *a, struct str name)
{
	struct job_row r = { .name = name, .schedule = config_wild_str(a->config, "jobs.*.schedule", name),
	    .text = config_wild_str(a->config, "jobs.*.prompt", name),
	    .report = str_eqz(config_wild_str(a->config, "jobs.*.missed", name), "report") };
	enum err e = jobs_chat(a, config_wild_str(a->config, "jobs.*.chat", name), &r.session, &r.user);

	return e == OK ? store_job_put(a->db, &r) : e;
}

struct named { struct agent *a; struct id_list gone; };

static void
see_gone(void *arg, const struct job_row *r)
{
	struct named *n = arg;

	if (r->name.n && config_wild_str(n->a->config, "jobs.*.schedule", r->name).n == 0)
		id_list_add(&n->gone, r->id);
}

FALLIBLE
jobs_load(struct agent *a)
{
	struct named n = { a, { NULL, 0, OK } };
	struct str name;
	enum err e = store_jobs(a->db, 0, see_gone, &n);

	ev_timer_cancel(a->ev, &a->jobs_timer);         /* a reload finds it armed */
	ev_timer_init(&a->jobs_timer, look, a);
	if (e == OK)
		e = n.gone.err;
	for (size_t i = 0; i < n.gone.n && e == OK; i++)
		e = store_job_due(a->db, n.gone.p[i], 0);
	free(n.gone.p);
	for (size_t i = 0; e == OK && config_segment(a->config, "jobs.*.schedule", i, &name); i++)
		if (whole(a, name))
			e = read_one(a, name);
	a->jobs_looked_at = clock_us();
	if (e == OK)
		e = plan(a, a->jobs_looked_at);
	return e == OK ? arm(a) : e;
}

/* ---- /jobs, /job --------------------------------------------------------------------------------- */

struct listing { struct buf *out; size_t n; int64_t wanted; bool named, found; };

static void
list_job(void *arg, const struct job_row *r)
{
	struct listing *l = arg;
	struct str text = r->text, line;
	char due[32];
	bool more = str_cut(&text, '\n', &line) || line.n > SHOWN_MAX;

	cron_local(r->due_at, due);
	buf_fmt(l->out, "%s%lld. next %s", l->n++ ? "\n" : "", (long long)r->id, due);
	if (r->schedule.n && str_chr(r->schedule, ':') == SIZE_MAX)
		buf_fmt(l->out, ", `%.*s`", STR_ARG(r->schedule));
	if (r->name.n)
		buf_fmt(l->out, " (%.*s, of the configuration)", STR_ARG(r->name));
	buf_fmt(l->out, ": %.*s%s", STR_ARG(utf8_prefix(line, SHOWN_MAX)), more ? " …" : "");
}

static void
say_how(struct agent *a, struct buf *out)
{
	struct str zone = config_str(a->config, "agent.timezone");
	char now[32];

	cron_local(clock_us(), now);
	buf_fmt(out, "\n\nIt is %s%s%.*s. `/job add 0 9 * * 1-5 TEXT` (minute, hour, day, month, weekday) or `/job add @daily TEXT` adds"
	    " one, `/job at 2026-12-24 18:00 TEXT` does it once, `/job remove NUMBER` takes one away.", now, zone.n ? " in " : "",
	    STR_ARG(zone));
}

static void
show(struct agent *a, int64_t session, struct buf *out)
{
	struct listing l = { .out = out };

	agent_wrote(a, store_jobs(a->db, session, list_job, &l));
	if (l.n == 0)
		buf_puts(out, "There are no jobs here.");
	say_how(a, out);
}

static void
add(struct agent *a, int64_t session, int64_t user, struct str arg, bool once, struct buf *out)
{
	struct job_row r = { .session = session, .user = user, .text = arg };
	struct cron c = { 0 };
	struct fail f = FAIL_INIT;
	char due[32];
	int64_t n = 0, id = 0;
	enum err e = cron_take(&r.text, &c, &f);

	if (e == OK && once && c.year == 0)
		e = fail_set(&f, ERR_PARSE, "one moment is wanted, as in 2026-12-24 18:00");
	if (e != OK) {
		buf_fmt(out, "I do not understand when: %s.", f.text);
		say_how(a, out);
		return;
	}
	r.schedule = str_trim(str_sub(arg, 0, arg.n - r.text.n));
	r.due_at = next(&c, clock_us());
	e = store_jobs_count(a->db, user, &n);
	if (r.due_at == 0)
		buf_fmt(out, "%.*s is past.", STR_ARG(r.schedule));
	else if (r.text.n == 0)
		buf_puts(out, "What is to be done then? Say it behind the time.");
	else if (r.text.n > JOB_BYTES_MAX)
		buf_fmt(out, "A job's text has at most %d bytes; this one has %zu.", JOB_BYTES_MAX, r.text.n);
	else if (e == OK && n >= JOBS_MAX)
		buf_fmt(out, "You have %d jobs already; take one away first: /job remove NUMBER", JOBS_MAX);
	else if (e == OK && (e = store_job_add(a->db, &r, &id)) == OK) {
		cron_local(r.due_at, due);
		buf_fmt(out, "Job %lld: %s %s: %.*s", (long long)id, c.year ? "once," : "next", due,
		    STR_ARG(utf8_prefix(r.text, SHOWN_MAX)));
		e = arm(a);
	}
	agent_wrote(a, e);
}

static void
see_job(void *arg, const struct job_row *r)
{
	struct listing *l = arg;

	if (r->id == l->wanted) {
		l->found = true;
		l->named = r->name.n > 0;
	}
}

static void
take_away(struct agent *a, int64_t session, struct str arg, struct buf *out)
{
	struct listing l = { .out = out };
	enum err e;

	if (str_i64(arg, 1, INT64_MAX, &l.wanted) != OK) {
		buf_puts(out, "Which one? /job remove NUMBER, with a number that /jobs shows.");
		return;
	}
	e = store_jobs(a->db, session, see_job, &l);
	if (!l.found) {
		buf_fmt(out, "There is no job %lld here. /jobs shows those there are.", (long long)l.wanted);
	} else if (l.named) {
		buf_fmt(out, "Job %lld stands in the configuration; it goes when it is taken out there.", (long long)l.wanted);
	} else {
		e = store_job_due(a->db, l.wanted, 0);
		buf_fmt(out, "Job %lld is gone.", (long long)l.wanted);
	}
	agent_wrote(a, e);
}

void
jobs_word(struct agent *a, int64_t session, int64_t user, struct str arg, struct buf *out)
{
	struct str word;

	(void)str_cut(&arg, ' ', &word);
	arg = str_trim(arg);
	if (word.n == 0 || str_eqz(word, "list"))
		show(a, session, out);
	else if (str_eqz(word, "add") || str_eqz(word, "at"))
		add(a, session, user, arg, str_eqz(word, "at"), out);
	else if (str_eqz(word, "remove"))
		take_away(a, session, arg, out);
	else {
		buf_fmt(out, "I do not know `/job %.*s`.", STR_ARG(utf8_prefix(word, 40)));
		say_how(a, out);
	}
}

void
jobs_status(struct agent *a, struct jw *w)
{
	int64_t n = 0, id = 0, due = 0;
	char text[32];

	if (store_jobs_count(a->db, 0, &n) != OK || store_jobs_next(a->db, &id, &due) != OK)
		n = -1;
	jw_obj(w);
	jw_ki64(w, "count", n);
	if (id) {
		jw_ki64(w, "next", id);
		clock_iso(due, text);
		jw_kz(w, "next_at", text);
		cron_local(due, text);
		jw_kz(w, "next_local", text);
	}
	jw_end_obj(w);
}
