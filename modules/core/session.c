/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * session.c - conversations: who speaks, in which order, and the control words.
 *
 * A conversation is (agent, channel, chat, thread). Its messages are answered one
 * after another in the order they were stored; conversations run side by side.
 * A session struct exists only while one of its messages is unanswered; the rest
 * is rows. Control words act here, before any queue, whatever state a turn is in.
 */
#include "core.h"

struct sessions {
	struct map *by_id;
	struct map *traces;             /* of messages whose turn has yet to begin: inbound row -> struct trace */
	bool overflow;                  /* more sessions have work than may be loaded */
};

static struct str
id_key(const int64_t *id)
{
	return str_make((const char *)id, sizeof(*id));
}

/* ---- loading and forgetting ---------------------------------------------------------- */

static void
session_free(struct session *s)
{
	(void)map_del(s->a->sessions->by_id, id_key(&s->id));
	turn_free(s->turn);
	free(s->names);
	free(s);
}

/* Copies of three views in one block; the target's views point into it. */
static char *
target_copy(const struct target *from, struct target *to)
{
	char *block = malloc(from->channel.n + from->chat.n + from->thread.n + 1), *p = block;
	const struct str *in[] = { &from->channel, &from->chat, &from->thread };
	struct str *out[] = { &to->channel, &to->chat, &to->thread };

	if (block == NULL)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(in); i++) {
		if (in[i]->n)
			memcpy(p, in[i]->p, in[i]->n);
		*out[i] = str_make(p, in[i]->n);
		p += in[i]->n;
	}
	to->reply_to = STR_NONE;
	return block;
}

static void
fill(void *arg, const struct session_row *r)
{
	struct session *s = arg;

	s->user = r->user;
	s->history_seq = r->history_seq;
	s->thinking_seq = r->thinking_seq;
	s->next_seq = r->next_seq;
	s->names = target_copy(&r->to, &s->to);
	snprintf(s->model, sizeof(s->model), "%.*s", STR_ARG(r->model));
	s->prompt_tokens = r->prompt_tokens;
	s->prompt_seq = r->prompt_seq;
	snprintf(s->prompt_model, sizeof(s->prompt_model), "%.*s", STR_ARG(r->prompt_model));
	s->cached_until = r->cached_until;
	s->tier = r->tier > TIER_NONE && r->tier < TIER_COUNT ? (enum tier)r->tier : TIER_NONE;
}

struct session *
session_get(struct agent *a, int64_t id)
{
	return map_get(a->sessions->by_id, id_key(&id));
}

FALLIBLE
session_open(struct agent *a, int64_t id, struct session **out)
{
	struct session *s = session_get(a, id);
	enum err e;

	if (s == NULL) {
		s = calloc(1, sizeof(*s));
		if (s == NULL)
			return ERR_NOMEM;
		s->id = id;
		s->a = a;
		e = store_session_get(a->db, id, fill, s);
		if (e == OK && s->names == NULL)
			e = ERR_NOMEM;
		if (e == OK)
			e = map_put(a->sessions->by_id, id_key(&s->id), s);
		if (e != OK) {
			free(s->names);
			free(s);
			return e;
		}
	}
	*out = s;
	return OK;
}

/* Without memory for it the turn gets a new one. */
static void
keep_trace(struct agent *a, int64_t inbound, const struct trace *t)
{
	struct trace *copy = t ? malloc(sizeof(*copy)) : NULL;

	if (copy == NULL)
		return;
	*copy = *t;
	if (map_put(a->sessions->traces, id_key(&inbound), copy) != OK)
		free(copy);
}

void
session_trace(struct agent *a, int64_t inbound, struct trace *out)
{
	struct trace *t = map_del(a->sessions->traces, id_key(&inbound));

	if (t)
		*out = *t;
	else
		IGNORE(trace_new(out)); /* a name for logs: an unlucky one does no harm */
	free(t);
}

void
session_close(struct session *s)
{
	if (s->turn == NULL)
		session_free(s);
}

/* It has the rules in force in it, so none of them is told beside a message. */
FALLIBLE
session_prompt(struct session *s)
{
	struct buf prompt = BUF_INIT(1u << 20);
	int64_t told, rules;
	enum err e = store_session_prompt(s->a->db, s->id, &prompt);

	if (e == ERR_NOTFOUND) {
		e = agent_prompt(s->a, &prompt);
		if (e == OK)
			e = rules_prompt(s->a, s->user, &prompt);
		if (e == OK)
			e = store_session_rules(s->a->db, s->id, &told, &rules);
		if (e == OK)
			e = store_session_rules_told(s->a->db, s->id, rules);
		if (e == OK)
			e = store_session_set_prompt(s->a->db, s->id, buf_view(&prompt));
		context_check(s->a, prompt.n);
	}
	buf_free(&prompt);
	return e;
}

static void
take_next(void *arg, const struct inbound_row *r)
{
	*(int64_t *)arg = r->id;
}

/* The oldest unanswered message becomes a turn; none: the session is forgotten. */
static enum err
session_advance(struct session *s)
{
	int64_t inbound = 0;
	bool found = false;
	enum err e;

	if (s->turn)
		return OK;
	e = store_inbound_next(s->a->db, s->id, take_next, &inbound, &found);
	if (e == OK && found)
		e = turn_start(s, inbound);
	if (s->turn == NULL)
		session_free(s);
	return e;
}

void
session_turn_over(struct session *s)
{
	struct agent *a = s->a;

	turn_free(s->turn);
	s->turn = NULL;
	compact_between(s);
	agent_wrote(a, session_advance(s));
	if (a->sessions->overflow)
		agent_wrote(a, sessions_load(a));
}

size_t
sessions_loaded(struct agent *a)
{
	return map_count(a->sessions->by_id);
}

bool
sessions_next(struct agent *a, size_t *it, struct session **out)
{
	struct str key;
	void *value;

	if (!map_next(a->sessions->by_id, it, &key, &value))
		return false;
	*out = value;
	return true;
}

FALLIBLE
sessions_new(struct agent *a)
{
	a->sessions = calloc(1, sizeof(*a->sessions));
	if (a->sessions == NULL)
		return ERR_NOMEM;
	return map_new(&a->sessions->by_id, SESSIONS_LOADED_MAX + 1) != OK ? ERR_NOMEM :
	    map_new(&a->sessions->traces, SESSIONS_LOADED_MAX);
}

void
sessions_clear(struct agent *a)
{
	struct session *s;
	struct str inbound;
	void *trace;
	size_t it = 0;

	while (a->sessions && a->sessions->by_id && sessions_next(a, &it, &s)) {
		session_free(s);
		it = 0;
	}
	it = 0;
	while (a->sessions && a->sessions->traces && map_next(a->sessions->traces, &it, &inbound, &trace)) {
		free(map_del(a->sessions->traces, inbound));
		it = 0;
	}
}

void
sessions_free(struct agent *a)
{
	sessions_clear(a);
	if (a->sessions) {
		map_free(a->sessions->by_id);
		map_free(a->sessions->traces);
	}
	free(a->sessions);
	a->sessions = NULL;
}

void
id_list_add(void *arg, int64_t id)
{
	struct id_list *l = arg;
	int64_t *grown = realloc(l->p, (l->n + 1) * sizeof(*grown));

	if (grown == NULL) {
		l->err = ERR_NOMEM;
		return;
	}
	l->p = grown;
	l->p[l->n++] = id;
}

FALLIBLE
sessions_load(struct agent *a)
{
	struct id_list ids = { NULL, 0, OK };
	enum err e = store_inbound_sessions(a->db, SESSIONS_LOADED_MAX, id_list_add, &ids);
	struct session *s;

	if (e == OK)
		e = ids.err;
	a->sessions->overflow = ids.n >= SESSIONS_LOADED_MAX;
	for (size_t i = 0; i < ids.n && e == OK; i++) {
		if (sessions_loaded(a) >= SESSIONS_LOADED_MAX) {
			a->sessions->overflow = true;
			break;
		}
		e = session_open(a, ids.p[i], &s);
		if (e == OK)
			e = session_advance(s);
	}
	free(ids.p);
	return e;
}

/* ---- control words --------------------------------------------------------------------------- */

static const char help_text[] =
    "I am your personal agent: write to me as you would to a person.\n\n"
    "/stop ends what I am doing now.\n"
    "/new starts a fresh conversation.\n"
    "/model shows which model answers here, and lets you choose another.\n"
    "/opus, /sonnet and /haiku choose one by name; /why tells why the last answer came from its model.\n"
    "/history shows what was said here, also what I have in mind only in short; /history 50 shows more of it.\n"
    "/rules shows what you told me once and for all, and changes it.\n"
    "/jobs shows what I do at its time; /job adds and removes.\n"
    "/cost shows what was spent.\n"
    "/pause stops every call to a model, /resume lifts it.\n"
    "/help shows this.";

static void
say(struct agent *a, int64_t session, const struct target *to, struct str text)
{
	agent_wrote(a, outbox_put(a, OUTBOX_NOTICE, session, 0, to, text, STR_NONE));
}

static void
control_new_history(struct agent *a, int64_t id, const struct target *to)
{
	struct session *s;
	enum err e = session_open(a, id, &s);

	if (e == OK) {
		compact_drop(a, id);
		e = store_session_new_history(a->db, id, s->next_seq);
		if (e == OK)
			e = store_session_compact_try(a->db, id, 0, 0, 0);
		s->history_seq = s->next_seq;
		if (s->turn)
			turn_stop(s->turn, true);
		session_close(s);
	}
	agent_wrote(a, e);
	say(a, id, to, S("A fresh conversation. What I knew from the last one stays on disk but no longer"
	    " takes part."));
}

static void
control_stop(struct agent *a, int64_t id, const struct target *to)
{
	struct session *s = session_get(a, id);

	if (s && s->turn && s->turn->state < TURN_REPLY)
		turn_stop(s->turn, false);      /* its reply says so */
	else
		say(a, id, to, S("Nothing is running."));
}

/* A word that starts with '/', and nothing else; only /model and /history take something after it, on the same line, and
 * /rules and /job. "/stop now please" is a message. */
static bool
is_control(struct str text, struct str *word, struct str *arg)
{
	*arg = text;
	(void)str_cut(arg, ' ', word);
	if (word->n < 2 || word->n > 33 || word->p[0] != '/')
		return false;
	for (size_t i = 1; i < word->n; i++)
		if (!((word->p[i] >= 'a' && word->p[i] <= 'z') || word->p[i] == '_'))
			return false;
	*arg = str_trim(*arg);
	return arg->n == 0 || str_eqz(*word, "/rules") || str_eqz(*word, "/job") ||
	    ((str_eqz(*word, "/model") || str_eqz(*word, "/history")) && arg->n <= 100 && str_find(*arg, S("\n")) == SIZE_MAX);
}

static void
control_cost(struct agent *a, int64_t session, const struct target *to)
{
	struct buf json = BUF_INIT(1u << 20), text = BUF_INIT(64u << 10);
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(1u << 20));
	const struct json *report;
	struct jw w;
	enum err e;

	jw_init(&w, &json);
	e = cost_report(a, &w);
	if (e == OK)
		e = jw_done(&w);
	if (e == OK)
		e = json_parse(&ar, buf_view(&json), &report, NULL);
	if (e == OK)
		cost_text(report, &text);
	say(a, session, to, e == OK && text.err == OK ? buf_view(&text) : S("The ledger cannot be read now."));
	arena_free(&ar);
	buf_free(&json);
	buf_free(&text);
}

static void
control_why(struct agent *a, int64_t session, const struct target *to)
{
	struct buf model = BUF_INIT(256), why = BUF_INIT(4096), b = BUF_INIT(8192);

	agent_wrote(a, store_session_why(a->db, session, &model, &why));
	if (model.n == 0)
		buf_puts(&b, "No model was asked here yet.");
	else
		buf_fmt(&b, "The last answer came from %s%s%s.", buf_z(&model), why.n ? ": " : "", buf_z(&why));
	say(a, session, to, buf_view(&b));
	buf_free(&model);
	buf_free(&why);
	buf_free(&b);
}

static void
control(struct agent *a, int64_t session, int64_t user, const struct target *to, struct str word, struct str arg)
{
	struct buf b = BUF_INIT(REPLY_MAX);

	if (str_eqz(word, "/stop")) {
		control_stop(a, session, to);
	} else if (str_eqz(word, "/new")) {
		control_new_history(a, session, to);
	} else if (str_eqz(word, "/model")) {
		model_word(a, session, to, arg);
	} else if (str_eqz(word, "/opus") || str_eqz(word, "/sonnet") || str_eqz(word, "/haiku")) {
		model_word(a, session, to, str_sub(word, 1, word.n));
	} else if (str_eqz(word, "/why")) {
		control_why(a, session, to);
	} else if (str_eqz(word, "/rules") || str_eqz(word, "/history") || str_eqz(word, "/jobs") || str_eqz(word, "/job")) {
		if (str_eqz(word, "/rules"))
			rules_word(a, user, arg, &b);
		else if (str_eqz(word, "/history"))
			agent_wrote(a, compact_history(a, session, arg, &b));
		else
			jobs_word(a, session, user, arg, &b);
		say(a, session, to, buf_view(&b));
	} else if (str_eqz(word, "/cost")) {
		control_cost(a, session, to);
	} else if (str_eqz(word, "/pause") || str_eqz(word, "/resume")) {
		agent_wrote(a, cost_pause(a, str_eqz(word, "/pause")));
		say(a, session, to, a->paused ? S("Paused: nothing is asked of a model, for anybody, until /resume.")
		    : S("I go on."));
	} else if (str_eqz(word, "/help") || str_eqz(word, "/start")) {
		say(a, session, to, str_z(help_text));
	} else {
		buf_fmt(&b, "I do not know the command %.*s. /help shows what there is.", STR_ARG(word));
		say(a, session, to, buf_view(&b));
	}
	buf_free(&b);
}

/* ---- messages in ------------------------------------------------------------------------------- */

static enum err
queue(struct agent *a, int64_t session)
{
	struct session *s = session_get(a, session);
	enum err e;

	if (s == NULL && sessions_loaded(a) >= SESSIONS_LOADED_MAX) {
		a->sessions->overflow = true;   /* stays on disk until another ends */
		return OK;
	}
	e = session_open(a, session, &s);
	return e != OK ? e : session_advance(s);
}

/* The rows of what came with the message; an album's parts are held together for a while. */
static enum err
attach(struct agent *a, const struct inbound *in, int64_t id)
{
	enum err e = OK;

	for (size_t i = 0; i < in->n_attachments && e == OK; i++)
		e = store_attachment_add(a->db, id, in->to.channel, in->position, &in->attachments[i]);
	if (e == OK && in->n_attachments)
		media_want(a, id);
	return e;
}

/* A new part of an album that is still being gathered joins the row that stands for it. */
static enum err
join_album(struct agent *a, const struct inbound *in, int64_t album)
{
	enum err e = store_album_join(a->db, album, str_trim(in->text), clock_us() + ALBUM_QUIET_US);

	if (e == OK)
		e = attach(a, in, album);
	if (e == OK)
		turn_gathered(a, album);        /* it looks again how long to wait */
	return e;
}

FALLIBLE
inbound_seen(struct agent *a, const struct inbound *in, bool *fresh)
{
	int64_t user, session, id = 0;
	enum err e = store_user_for(a->db, in->to.channel, in->sender, in->sender_name, &user);

	if (e == OK)
		e = store_session_find(a->db, a->name, &in->to, user, &session);
	if (e == OK)
		e = store_inbound_add(a->db, session, in, INBOUND_DONE, &id);
	if (e == OK && id != 0)
		metrics_owe_message(a, in->to.channel);
	agent_wrote(a, e);
	*fresh = e == OK && id != 0;
	return e;
}

FALLIBLE
inbound_put(struct agent *a, const struct inbound *in, bool *fresh)
{
	struct str text = str_trim(in->text), word, arg;
	bool at_once = is_control(text, &word, &arg) && in->n_attachments == 0;
	int64_t user, session, album = 0, id = 0;
	enum err e;

	if ((text.n == 0 && in->n_attachments == 0 && in->options.n == 0) || in->text.n > MESSAGE_MAX ||
	    in->n_attachments > ATTACHMENTS_MAX)
		return ERR_LIMIT;
	e = store_user_for(a->db, in->to.channel, in->sender, in->sender_name, &user);
	if (e == OK)
		e = store_session_find(a->db, a->name, &in->to, user, &session);
	if (e == OK && in->album.n)
		e = store_album_find(a->db, session, in->album, &album);
	if (e == OK)
		e = store_inbound_add(a->db, session, in, at_once || album ? INBOUND_DONE : INBOUND_QUEUED, &id);
	if (e == OK && id != 0)
		metrics_owe_message(a, in->to.channel);
	if (e == OK && id != 0 && album)
		e = join_album(a, in, album);
	else if (e == OK && id != 0 && at_once)
		control(a, session, user, &in->to, word, arg);
	else if (e == OK && id != 0) {
		if (in->album.n)
			e = store_inbound_hold(a->db, id, clock_us() + ALBUM_QUIET_US);
		if (e == OK)
			e = attach(a, in, id);
		keep_trace(a, id, in->trace);
		if (e == OK)
			e = queue(a, session);
	}
	agent_wrote(a, e);
	if (e == OK)
		*fresh = id != 0;
	return e;
}

struct putting { struct agent *a; struct str dedup, text; enum err err; };

static void
put_asked(void *arg, const struct session_row *r)
{
	struct putting *p = arg;
	const struct inbound in = { .to = r->to, .dedup = p->dedup, .text = p->text, .kind = INBOUND_JOB };
	int64_t id;

	p->err = store_inbound_add(p->a->db, r->id, &in, INBOUND_QUEUED, &id);
}

FALLIBLE
session_ask(struct agent *a, int64_t id, struct str dedup, struct str text)
{
	struct putting p = { a, dedup, text, OK };
	enum err e = store_session_get(a->db, id, put_asked, &p);

	if (e == OK)
		e = p.err;
	return e == OK ? queue(a, id) : e;
}

static void
put_said(void *arg, const struct session_row *r)
{
	struct putting *p = arg;

	p->err = outbox_put(p->a, OUTBOX_NOTICE, r->id, 0, &r->to, p->text, STR_NONE);
}

FALLIBLE
session_say(struct agent *a, int64_t id, struct str text)
{
	struct putting p = { a, STR_NONE, text, OK };
	enum err e = store_session_get(a->db, id, put_said, &p);

	return e == OK ? p.err : e;
}

FALLIBLE
inbound_edit(struct agent *a, const struct target *to, struct str ref, struct str text, bool *applied)
{
	int64_t session = 0;
	enum err e;

	if (str_trim(text).n == 0 || text.n > MESSAGE_MAX)
		return ERR_LIMIT;
	e = store_session_known(a->db, a->name, to, &session);
	if (e == OK && session == 0) {
		*applied = false;
		return OK;
	}
	if (e == OK)
		e = store_inbound_edit(a->db, session, ref, text, applied);
	agent_wrote(a, e);
	return e;
}

FALLIBLE
session_moved(struct agent *a, struct str channel, struct str from, struct str to)
{
	bool changed = false;
	enum err e = store_chat_moved(a->db, channel, from, to, &changed);

	agent_wrote(a, e);
	if (changed)            /* names stand everywhere in memory; it happens once in a group's life */
		agent_load_again(a);
	return e;
}

void
session_stop(struct agent *a, const struct target *to)
{
	int64_t id = 0;
	struct session *s;

	agent_wrote(a, store_session_known(a->db, a->name, to, &id));
	s = id ? session_get(a, id) : NULL;
	if (s && s->turn)
		turn_stop(s->turn, false);
}

/* ---- who may speak ------------------------------------------------------------------------------- */

bool
access_paired(struct agent *a, struct str channel, struct str sender)
{
	bool paired = false;

	agent_wrote(a, store_paired(a->db, channel, sender, &paired));
	return paired;
}

/* 8 of 31 signs (no 0 O 1 I L): 39 bits, alive for ten minutes. */
static enum err
new_code(char code[16])
{
	static const char signs[] = "23456789ABCDEFGHJKMNPQRSTUVWXYZ";
	unsigned char r[8];
	enum err e = rand_bytes(r, sizeof(r));

	if (e != OK)
		return e;
	for (size_t i = 0, k = 0; i < sizeof(r); i++) {
		if (i == 4)
			code[k++] = '-';
		code[k++] = signs[r[i] % (sizeof(signs) - 1)];
		code[k] = '\0';
	}
	return OK;
}

FALLIBLE
access_offer(struct agent *a, struct str channel, struct str sender, struct str name, char code[16], bool *told)
{
	int64_t now = clock_us(), hour = 0;
	bool open = false;
	enum err e = store_pairing_open(a->db, channel, sender, now, &open);

	if (e == OK)
		e = store_pairing_count(a->db, now - 3600 * US_PER_S, &hour);
	if (e == OK && (open || hour >= STRANGERS_HOUR_MAX)) {
		*told = false;
		return OK;
	}
	if (e == OK)
		e = new_code(code);
	if (e == OK)
		e = store_pairing_add(a->db, str_z(code), channel, sender, utf8_prefix(name, 64), now + PAIR_CODE_US);
	agent_wrote(a, e);
	if (e == OK)
		*told = true;
	return e;
}

FALLIBLE
pair_code(struct agent *a, struct str code, struct buf *told, struct fail *f)
{
	struct pairing p = { BUF_INIT(256), BUF_INIT(256), BUF_INIT(256) };
	char clean[16] = "";
	size_t n = 0;
	enum err e;

	for (size_t i = 0; i < code.n && n < 9; i++) {   /* "k7qm2p9d" is K7QM-2P9D */
		char c = code.p[i];

		if (c == '-' || c == ' ')
			continue;
		if (n == 4)
			clean[n++] = '-';
		clean[n++] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
	}
	e = store_pairing_take(a->db, str_make(clean, n), clock_us(), &p);
	if (e == ERR_NOTFOUND) {
		e = fail_set(f, e, "no open pairing code \"%.*s\": codes live for 10 minutes; next: send the bot"
		    " any message to get a new one, `blufio pair` lists the open ones", STR_ARG(code));
		goto out;
	}
	if (e == OK)
		e = store_pair(a->db, buf_view(&p.channel), buf_view(&p.sender), buf_view(&p.name));
	if (e == OK) {
		const struct target to = { buf_view(&p.channel), buf_view(&p.sender), STR_NONE, STR_NONE };

		e = outbox_put(a, OUTBOX_NOTICE, 0, 0, &to, S("You are paired now. Write to me whenever you like;"
		    " /help shows the commands."), STR_NONE);
		buf_fmt(told, "paired %s %s (%s)", buf_z(&p.channel), buf_z(&p.sender), buf_z(&p.name));
	}
	agent_wrote(a, e);
	if (e != OK)
		e = fail_set(f, e, "the pairing could not be stored (%s); next: `blufio status`", a->db->why);
out:
	buf_free(&p.channel);
	buf_free(&p.sender);
	buf_free(&p.name);
	return e;
}
