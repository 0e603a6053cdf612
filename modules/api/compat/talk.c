/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * talk.c - a request put to the agent: a turn of the channel "gateway".
 *
 * Clients of this API tell the whole conversation every time, and have no name for it. What
 * stands behind the last answer is new; all before it is in our rows already, if we can find
 * them. A name (Blufio-Session, prompt_cache_key, safety_identifier, user) finds them by
 * itself. Without one the digest of what was told finds the message that had the same before
 * it, and its reply has to be the one that the client shows.
 *
 *   found, nothing was said since        the conversation goes on
 *   found, but it went on otherwise      a branch: a copy of its rows up to there
 *   not found, or the answer was edited  a new one, whose history is what the client tells
 *
 * The same told again is no news: while it is worked on, and when nobody was there to take
 * the answer or the client says that it tries again, it waits for the one answer there is.
 * Else another answer is wanted, and the one before leaves the history (or stays in the
 * conversation that is branched from).
 */
#include "api/compat/compat.h"

#define DIGEST_CHARS (2 * SHA256_SIZE)
#define NAME_CHARS 16                   /* of a named conversation, in its chat */
#define SYSTEM_MAX (256u << 10)         /* bytes of a client's instructions: with the agent's own they fit a prompt */

/* No buffer: without memory two names would be the same. */
static void
hex(const unsigned char digest[SHA256_SIZE], char *out, size_t chars)
{
	for (size_t i = 0; i < chars / 2; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* Of the first n messages, inside this credential and this name. */
static void
digest_of(const struct request *r, const struct ask *q, size_t n, char out[DIGEST_CHARS + 1])
{
	unsigned char digest[SHA256_SIZE];
	struct sha256 h;

	sha256_init(&h);
	sha256_update(&h, &r->who.id, sizeof(r->who.id));
	sha256_update(&h, q->session.p, q->session.n + 1);
	sha256_update(&h, q->previous.p, q->previous.n + 1);
	for (size_t i = 0; i < n; i++) {
		sha256_update(&h, q->messages[i].role, 1);
		sha256_update(&h, q->messages[i].content.p, q->messages[i].content.n + 1);
	}
	sha256_final(&h, digest);
	hex(digest, out, DIGEST_CHARS);
}

/* The results of a client's tools in a content, as a member of its options. */
static void
put_results(struct jw *w, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
	const struct json *list = NULL;
	size_t n = 0;

	if (json_parse(&ar, content, &list, NULL) == OK)
		for (const struct json *b = list->first; b; b = b->next) {
			if (!str_eqz(json_str(b, "type", STR_NONE), "tool_result"))
				continue;
			if (n++ == 0) {
				jw_key(w, "results");
				jw_arr(w);
			}
			jw_obj(w);
			jw_kstr(w, "id", json_str(b, "tool_use_id", STR_NONE));
			jw_kstr(w, "content", json_str(b, "content", STR_NONE));
			jw_end_obj(w);
		}
	if (n)
		jw_end_arr(w);
	if (ar.err != OK)
		w->b->err = ar.err;
	arena_free(&ar);
}

/* All text of a content. */
static void
put_texts(struct buf *out, struct str content, const char *between)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
	const struct json *list = NULL;

	if (json_parse(&ar, content, &list, NULL) == OK)
		for (const struct json *b = list->first; b; b = b->next)
			if (str_eqz(json_str(b, "type", STR_NONE), "text")) {
				buf_puts(out, out->n ? between : "");
				buf_str(out, json_str(b, "text", STR_NONE));
			}
	if (ar.err != OK)
		out->err = ar.err;
	arena_free(&ar);
}

/* ---- what is there already -------------------------------------------------------------- */

struct talk {                           /* a request that is being placed */
	struct request *r;
	struct ask *q;
	bool named;
	int64_t session;                /* where it goes on; 0: nowhere yet */
	int64_t from, upto;             /* a branch: of that conversation, up to that message */
	struct buf text, options;
	struct attachment files[ATTACHMENTS_MAX];
	size_t n_files;
	char digest[DIGEST_CHARS + 1];
};

struct seen {                           /* an earlier message */
	bool running, told;
	enum turn_outcome outcome;
	struct buf reply;               /* or the text so far */
};

static void
take_turn(void *arg, const struct turn_row *row)
{
	struct turn_row *out = arg;

	out->outcome = row->outcome;
	out->round = row->round;
}

/* Looks at a message of this credential; r is about it then. False: it is not there. */
static bool
look(struct talk *k, int64_t id, struct seen *out, enum err *e)
{
	struct request *r = k->r;
	struct str running;
	struct turn_row row = { .outcome = OUTCOME_ANSWERED };
	int64_t turn = 0;
	bool done = false, found;

	*out = (struct seen){ .told = true, .outcome = OUTCOME_ANSWERED, .reply = BUF_INIT(REPLY_MAX * 2) };
	if (!attend_message(r, id))
		return false;
	*e = attend_look(r, false, &running, &out->reply, &done);
	out->running = !done;
	if (*e == OK && !done)
		buf_str(&out->reply, running);
	if (*e == OK && done)
		*e = store_inbound_turn(r->a->db, id, &turn);
	if (*e == OK && turn) {         /* else a word like /help */
		buf_reset(&out->reply);
		*e = store_reply(r->a->db, turn, &out->reply, &found, &out->told);
	}
	if (*e == OK && turn)
		*e = store_turn_get(r->a->db, turn, take_turn, &row);
	out->outcome = row.outcome;
	return *e == OK;
}

static void
take_id(void *arg, const struct inbound_row *row)
{
	*(int64_t *)arg = row->id;
}

/* Was something said in r's conversation after message id? */
static enum err
went_on(const struct request *r, int64_t id, struct turn_row *tip, bool *yes)
{
	const struct session *s = session_get(r->a, r->session);
	int64_t next = 0;
	bool queued;
	enum err e = store_session_tip(r->a->db, r->session, tip);

	if (e == OK)
		e = store_inbound_next(r->a->db, r->session, take_id, &next, &queued);
	*yes = tip->inbound > id || next > id || (s && s->turn && s->turn->inbound > id);
	return e;
}

/* Goes on behind message id, which r is about. */
static enum err
go_on_after(struct talk *k, int64_t id)
{
	struct turn_row tip;
	bool yes;
	enum err e = went_on(k->r, id, &tip, &yes);

	if (yes) {
		k->from = k->r->session;
		k->upto = id;
	} else {
		k->session = k->r->session;
	}
	return e;
}

/* Another answer to message id, which r is about. */
static enum err
answer_again(struct talk *k, int64_t id)
{
	struct turn_row tip;
	bool yes;
	enum err e = went_on(k->r, id, &tip, &yes);

	if (k->named || (!yes && tip.inbound < id)) {
		k->session = k->r->session;
		if (e == OK && tip.inbound == id && k->q->req.n_messages > 1)   /* else the same words were said twice */
			e = store_messages_void(k->r->a->db, tip.id);
	} else {
		k->from = k->r->session;
		k->upto = id - 1;
	}
	return e;
}

/* Is theirs what the client has of ours? It may have hung up in the middle. */
static bool
is_shown(struct str ours, struct str theirs)
{
	ours = str_trim(ours);
	theirs = str_trim(theirs);
	return str_eq(ours, theirs) || (theirs.n && str_starts(ours, theirs));
}

#define USE_START "{\"type\":\"tool_use\""
#define RESULT_START "{\"type\":\"tool_result\""

/* By the messages before the last answer, and that answer. */
static enum err
find_by_digest(struct talk *k)
{
	size_t n = k->q->req.n_messages;
	bool calls = str_find(k->q->messages[n - 2].content, S(USE_START)) != SIZE_MAX;
	struct buf shown = BUF_INIT(REQUEST_MAX);
	struct id_list ids = { NULL, 0, OK };
	char digest[DIGEST_CHARS + 1];
	enum err e;

	digest_of(k->r, k->q, n - 2, digest);
	put_texts(&shown, k->q->messages[n - 2].content, "");
	e = store_inbound_digest(k->r->a->db, str_z(digest), id_list_add, &ids);
	e = e != OK ? e : ids.err != OK ? ids.err : shown.err;
	for (size_t i = 0; i < ids.n && e == OK && !k->session && !k->from; i++) {
		struct seen seen;

		if (look(k, ids.p[i], &seen, &e) && calls == (seen.outcome == OUTCOME_CALLS) &&
		    is_shown(buf_view(&seen.reply), buf_view(&shown)))
			e = go_on_after(k, ids.p[i]);
		buf_free(&seen.reply);
	}
	free(ids.p);
	buf_free(&shown);
	return e;
}

static bool
is_retry(const struct request *r)
{
	int64_t n;

	return str_i64(http_field(request_head(r), "x-stainless-retry-count"), 1, INT64_MAX, &n) == OK;
}

/* The same told again: *attended when r waits for the answer that there is, or is to be. */
static enum err
find_twin(struct talk *k, bool *attended)
{
	struct id_list ids = { NULL, 0, OK };
	struct seen seen = { .reply = BUF_INIT(0) };
	enum err e = store_inbound_digest(k->r->a->db, str_z(k->digest), id_list_add, &ids);

	if (e == OK)
		e = ids.err;
	if (e == OK && ids.n && look(k, ids.p[0], &seen, &e)) {
		bool failed = seen.outcome == OUTCOME_FAILED || seen.outcome == OUTCOME_NO_BUDGET || seen.outcome == OUTCOME_SET_ASIDE;

		*attended = seen.running || (!failed && (!seen.told || is_retry(k->r)));
		if (!*attended && failed && k->named)
			k->session = k->r->session;
		else if (!*attended)    /* what a failed one had done stays known */
			e = failed ? go_on_after(k, ids.p[0]) : answer_again(k, ids.p[0]);
	}
	free(ids.p);
	buf_free(&seen.reply);
	return e;
}

/* An Idempotency-Key that came before: *attended, or answered with an error. */
static enum err
find_key(struct talk *k, struct str dedup, bool *attended, bool *refused)
{
	struct id_list ids = { NULL, 0, OK };
	int64_t known = 0;
	enum err e = store_inbound_known(k->r->a->db, S("gateway"), dedup, &known);

	if (e == OK && known)
		e = store_inbound_digest(k->r->a->db, str_z(k->digest), id_list_add, &ids);
	for (size_t i = 0; i < ids.n && !*attended; i++)
		*attended = ids.p[i] == known && attend_message(k->r, known);
	*refused = e == OK && known && !*attended;
	free(ids.p);
	return e != OK ? e : ids.err;
}

/* ---- where it goes -------------------------------------------------------------------------- */

/* The conversation before what is new, as the client tells it. Files are not kept of it. */
static enum err
seed(struct talk *k)
{
	struct buf b = BUF_INIT(REQUEST_MAX);
	enum err e = OK;

	for (size_t i = 0; i + 1 < k->q->req.n_messages && e == OK; i++) {
		const struct llm_message *m = &k->q->messages[i];
		struct arena ar = ARENA_INIT(JSON_TREE_MAX(m->content.n));
		const struct json *list = NULL;

		buf_reset(&b);
		e = json_parse(&ar, m->content, &list, NULL);
		for (const struct json *p = e == OK ? list->first : NULL; p; p = p->next) {
			buf_putc(&b, b.n ? ',' : '[');
			if (json_at(p, "source"))
				buf_fmt(&b, "{\"type\":\"text\",\"text\":\"(A %s was here.)\"}",
				    str_eqz(json_str(p, "type", STR_NONE), "image") ? "picture" : "document");
			else
				buf_str(&b, p->raw);
		}
		buf_putc(&b, ']');
		arena_free(&ar);
		if (e == OK)
			e = b.err != OK ? b.err : store_message_add(k->r->a->db, k->session, (int64_t)i + 1, 0, m->role, buf_view(&b));
	}
	buf_free(&b);
	return e;
}

/* A new conversation of the chat r->chat, unless it is there. */
static enum err
open_session(struct talk *k, struct str sender, struct str name)
{
	struct request *r = k->r;
	const struct target to = { S("gateway"), str_z(r->chat), STR_NONE, STR_NONE };
	int64_t user;
	enum err e = store_session_known(r->a->db, r->a->name, &to, &k->session);

	if (e != OK || k->session)
		return e;
	e = store_user_for(r->a->db, to.channel, sender, name, &user);
	if (e == OK)
		e = store_session_find(r->a->db, r->a->name, &to, user, &k->session);
	if (e == OK)
		e = k->from ? store_session_branch(r->a->db, k->from, k->upto, k->session) : seed(k);
	return e;
}

static void
take_system(void *arg, const struct inbound_row *row)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(row->options.n));
	const struct json *o;

	if (row->options.n && json_parse(&ar, row->options, &o, NULL) == OK)
		snprintf(arg, NAME_CHARS + 1, "%.*s", STR_ARG(json_str(o, "system", STR_NONE)));
	arena_free(&ar);
}

/* The client's instructions stand behind the agent's own where the conversation begins; others than those come
 * with the message. *news: these are. mark: by what they are known the next time. */
static enum err
place_system(struct talk *k, char mark[NAME_CHARS + 1], bool *news)
{
	struct agent *a = k->r->a;
	struct str system = k->q->req.system;
	struct buf prompt = BUF_INIT(1u << 20);
	char told[NAME_CHARS + 1] = "";
	unsigned char digest[SHA256_SIZE];
	struct turn_row tip;
	struct sha256 h;
	enum err e = store_session_prompt(a->db, k->session, &prompt);

	*news = false;
	sha256_init(&h);
	sha256_update(&h, system.p, system.n);
	sha256_final(&h, digest);
	hex(digest, mark, NAME_CHARS);
	if (e == ERR_NOTFOUND) {
		e = agent_prompt(a, &prompt);
		buf_puts(&prompt, prompt.n && system.n ? "\n\n" : "");
		buf_str(&prompt, system);
		e = e != OK ? e : prompt.err != OK ? prompt.err : store_session_set_prompt(a->db, k->session, buf_view(&prompt));
	} else if (e == OK && system.n) {
		e = store_session_tip(a->db, k->session, &tip);
		if (e == OK && tip.inbound)
			e = store_inbound_get(a->db, tip.inbound, take_system, told);
		*news = e == OK && (tip.inbound ? strcmp(told, mark) != 0 : !str_ends(buf_view(&prompt), system));
	}
	buf_free(&prompt);
	return e;
}

static enum err
write_options(struct talk *k)
{
	const struct llm_request *q = &k->q->req;
	struct buf said = BUF_INIT(REQUEST_MAX);
	char mark[NAME_CHARS + 1];
	bool news;
	enum err e = place_system(k, mark, &news);
	struct jw w;

	jw_init(&w, &k->options);
	jw_obj(&w);
	jw_kz(&w, "system", mark);
	if (news) {
		buf_fmt(&said, "(The program that you talk to has new instructions:)\n%.*s", STR_ARG(q->system));
		jw_kstr(&w, "instructions", buf_view(&said));
	}
	put_results(&w, q->messages[q->n_messages - 1].content);
	if (q->tools.n)
		jw_kraw(&w, "tools", q->tools);
	if (q->max_tokens)
		jw_ki64(&w, "max_tokens", q->max_tokens);
	if (q->stop.n)
		jw_kraw(&w, "stop", q->stop);
	if (q->schema.n)
		jw_kraw(&w, "schema", q->schema);
	if (q->effort.n)
		jw_kstr(&w, "effort", q->effort);
	if (q->no_tools)
		jw_kbool(&w, "no_tools", true);
	if (q->one_call)
		jw_kbool(&w, "one_call", true);
	jw_end_obj(&w);
	if (e == OK)
		e = said.err != OK ? said.err : jw_done(&w);
	buf_free(&said);
	return e;
}

/* ---- the answer -------------------------------------------------------------------------------- */

static bool
streams(const struct request *r)
{
	return compat_of(r)->ask.stream;
}

/* More of the text. False: it does not begin with what the client has. */
static bool
say(struct request *r, struct str text, bool whole)
{
	struct str rest = str_sub(text, r->said, text.n);

	if (!streams(r))
		return true;
	if (text.n < r->said)
		return !whole;          /* it was begun anew and may get there yet */
	if ((whole || r->anew) && attend_hash(TEXT_HASH_EMPTY, str_sub(text, 0, r->said)) != r->hash)
		return false;
	r->anew = false;
	r->said = text.n;
	r->hash = attend_hash(r->hash, rest);
	reply_text(r, rest);
	return true;
}

/* The answer is called by the message. */
static void
take_name(struct request *r)
{
	snprintf(compat_of(r)->id, sizeof(compat_of(r)->id), "%lld", (long long)r->inbound);
}

static void
lost(struct request *r)
{
	r->ref[0] = '\0';
	reply_fail(r, 502, "begun_anew", S("the answer was begun anew, in other words than those that were sent"));
}

static void
begin(struct request *r, struct str running)
{
	take_name(r);
	reply_wait(r);
	(void)say(r, running, false);
}

static void
on_partial(struct request *r, const struct partial *p)
{
	r->turn = p->turn;
	if (p->what == PARTIAL_RESTART)
		r->anew = r->said > 0;
	else if (p->what == PARTIAL_TEXT && !say(r, p->text, false))
		lost(r);
}

/* A call of the client's tools, as a block. */
static void
put_call(void *arg, const struct step_row *s)
{
	struct buf *out = arg;

	if (s->state != STEP_CLIENT)
		return;
	buf_puts(out, out->n ? "," USE_START ",\"id\":" : "[" USE_START ",\"id\":");
	json_quote(out, s->call_id);
	buf_puts(out, ",\"name\":");
	json_quote(out, s->name);
	buf_fmt(out, ",\"input\":%.*s}", STR_ARG(s->input));
}

static void
done(struct request *r, struct str text)
{
	struct compat *c = compat_of(r);
	struct answer a = { .text = text, .finish = FINISH_STOP };
	struct turn_row row = { .outcome = OUTCOME_ANSWERED };
	int64_t turn = 0;
	enum err e = store_inbound_turn(r->a->db, r->inbound, &turn);

	if (e == OK && turn)
		e = store_turn_get(r->a->db, turn, take_turn, &row);
	if (e == OK && turn)
		e = store_cost_turn(r->a->db, turn, &a.usage);
	if (e == OK && row.outcome == OUTCOME_CALLS)
		e = store_steps(r->a->db, turn, row.round, put_call, &c->calls);
	buf_puts(&c->calls, c->calls.n ? "]" : "");
	a.blocks = buf_view(&c->calls);
	e = e != OK ? e : c->calls.err;
	take_name(r);
	switch (row.outcome) {
	case OUTCOME_NO_BUDGET:
		reply_fail(r, 429, "insufficient_quota", text);
		return;
	case OUTCOME_FAILED: case OUTCOME_SET_ASIDE:
		reply_fail(r, 502, "agent_failed", text);
		return;
	case OUTCOME_REFUSED:
		a.finish = FINISH_FILTER;
		break;
	case OUTCOME_LENGTH:
		a.finish = FINISH_LENGTH;
		break;
	case OUTCOME_CALLS:
		a.finish = FINISH_CALLS;
		break;
	case OUTCOME_STOPPED:
		if (r->answer && r->a->paused) {        /* it is to be answered when that is lifted */
			reply_fail(r, 503, "paused", text);
			return;
		}
		break;
	case OUTCOME_NONE: case OUTCOME_ANSWERED: case OUTCOME_COUNT:
		break;
	}
	if (e != OK)
		reply_fail(r, 503, "storage", S("the answer cannot be read now"));
	else if (!say(r, a.text, true) && row.outcome != OUTCOME_REFUSED)   /* what was said before a refusal is void, but said */
		lost(r);
	else
		reply_done(r, &a);
}

static void
stopping(struct request *r)
{
	attend_done(r, S("Stopping."));
}

/* ---- the request --------------------------------------------------------------------------------- */

/* The chat of a named conversation. */
static void
name_chat(struct request *r, struct str name)
{
	unsigned char digest[SHA256_SIZE];
	char chars[NAME_CHARS + 1];
	struct sha256 h;

	sha256_init(&h);
	sha256_update(&h, name.p, name.n);
	sha256_final(&h, digest);
	hex(digest, chars, NAME_CHARS);
	snprintf(r->chat, sizeof(r->chat), "%lld/oai:%s", (long long)r->who.id, chars);
}

/* "resp_12", the message that it answered. */
static bool
find_previous(struct talk *k, enum err *e)
{
	struct str id = k->q->previous;
	struct seen seen = { .reply = BUF_INIT(0) };
	int64_t n;
	bool found = str_starts(id, S("resp_")) && str_i64(str_sub(id, 5, id.n), 1, INT64_MAX, &n) == OK && look(k, n, &seen, e);

	if (found)
		*e = go_on_after(k, n);
	buf_free(&seen.reply);
	return found || *e != OK;
}

/* Stores the message where it belongs. */
static void
put(struct talk *k, struct str key)
{
	struct request *r = k->r;
	struct inbound in = { .text = buf_view(&k->text), .digest = str_z(k->digest), .attachments = k->files,
	    .n_attachments = k->n_files, .kind = r->answer ? INBOUND_BATCH : INBOUND_MESSAGE };
	struct str user = k->q->user.n <= 64 && str_find(k->q->user, S("/")) == SIZE_MAX ? k->q->user : STR_NONE;
	char sender[192], dedup[192];
	enum err e = attend_name(r, key, r->ref, sizeof(r->ref));

	r->inbound = r->turn = 0;       /* it was about others */
	snprintf(sender, sizeof(sender), "%lld/%.*s", (long long)r->who.id, STR_ARG(user));
	snprintf(dedup, sizeof(dedup), "%lld/%s", (long long)r->who.id, r->ref);
	if (k->session && !attend_session(r, k->session))
		e = ERR_NOTFOUND;
	else if (!k->session && k->named && !k->from)
		name_chat(r, k->q->session);
	else if (!k->session)
		snprintf(r->chat, sizeof(r->chat), "%lld/%s", (long long)r->who.id, r->ref);
	if (e == OK && !k->session)
		e = open_session(k, str_z(sender), user.n ? user : S("a program"));
	if (e == OK)
		e = write_options(k);
	in.options = buf_view(&k->options);
	in.sender = str_z(sender);
	in.sender_name = user.n ? user : S("a program");
	in.dedup = str_z(dedup);
	agent_wrote(r->a, e);           /* half a conversation is none */
	if (e == OK)
		attend_put(r, &in);
	else
		request_failed(r, e);
}

static void
place(struct talk *k, struct str key)
{
	struct request *r = k->r;
	struct ask *q = k->q;
	char name[24], dedup[192] = "";
	bool attended = false, refused = false;
	enum err e = key.n ? attend_name(r, key, name, sizeof(name)) : OK;

	if (key.n)
		snprintf(dedup, sizeof(dedup), "%lld/%s", (long long)r->who.id, name);
	if (e == OK && key.n)
		e = find_key(k, str_z(dedup), &attended, &refused);
	else if (e == OK)
		e = find_twin(k, &attended);
	if (e == OK && q->previous.n && !attended && !refused && !k->session && !k->from && !find_previous(k, &e)) {
		r->inbound = 0;
		request_error(r, 404, "not_found", "previous_response_id", NULL, "there is no such response");
	} else if (e != OK) {
		agent_wrote(r->a, e);
		request_failed(r, e);
	} else if (refused) {
		request_error(r, 409, "idempotency_mismatch", NULL, NULL, "this Idempotency-Key came with another message before");
	} else if (attended) {
		attend_join(r);
	} else {
		if (!k->named && !q->previous.n && !k->session && !k->from && q->req.n_messages > 2)
			e = find_by_digest(k);
		if (e == OK)
			put(k, key);
		else
			request_failed(r, e);
	}
}

/* Pictures and documents of a content become attachments. False: there are too many. */
static bool
take_files(struct talk *k, struct arena *ar, struct str content)
{
	const struct json *list = NULL;

	if (json_parse(ar, content, &list, NULL) != OK)
		return true;            /* the arena says it */
	for (const struct json *b = list->first; b; b = b->next) {
		struct str data = json_str(b, "source.data", STR_NONE);
		struct buf coded = BUF_INIT(content.n * 2 + 16);

		if (!json_at(b, "source"))
			continue;
		if (k->n_files == ATTACHMENTS_MAX)
			return false;
		if (str_eqz(json_str(b, "source.type", STR_NONE), "text")) {
			enc_base64(&coded, data.p, data.n);
			data = arena_str(ar, buf_view(&coded));
			if (coded.err != OK)
				ar->err = coded.err;
		}
		k->files[k->n_files++] = (struct attachment){ .name = json_str(b, "title", STR_NONE), .data = data,
		    .kind = str_eqz(json_str(b, "type", STR_NONE), "image") ? ATTACHMENT_IMAGE : ATTACHMENT_DOCUMENT };
		buf_free(&coded);
	}
	return true;
}

/* A tool of the client that has the name of one of the agent's; empty: none. */
static struct str
clash(struct request *r, struct arena *ar, struct str tools)
{
	const struct json *list = NULL;

	if (tools.n && json_parse(ar, tools, &list, NULL) == OK)
		for (const struct json *t = list->first; t; t = t->next)
			if (bus_find(r->a, json_str(t, "name", STR_NONE)))
				return json_str(t, "name", STR_NONE);
	return STR_NONE;
}

void
talk_run(struct request *r)
{
	static const struct attend waits = { streams, begin, on_partial, done, stopping };
	struct compat *c = compat_of(r);
	struct ask q = c->ask;          /* what it was said with is not kept while its answer is made */
	struct talk k = { .r = r, .q = &q, .named = q.session.n > 0, .text = BUF_INIT(REQUEST_MAX), .options = BUF_INIT(REQUEST_MAX) };
	const char *param = c->shape == &chat_shape ? "messages" : "input";
	struct str key, last = q.messages[q.req.n_messages - 1].content, twice;
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(q.req.tools.n) + JSON_TREE_MAX(last.n) * 2);
	bool few;

	arena_init(&c->ask.ar, 0);
	request_wait(r, &waits);
	put_texts(&k.text, last, "\n");
	few = take_files(&k, &ar, last);
	twice = clash(r, &ar, q.req.tools);
	digest_of(r, &q, q.req.n_messages, k.digest);
	if (ar.err != OK || k.text.err != OK)
		request_failed(r, ERR_NOMEM);
	else if (twice.n)
		request_error(r, 400, "invalid_request", "tools", NULL, "%.*s is a tool that the agent has itself", STR_ARG(twice));
	else if (!few)
		request_error(r, 400, "invalid_request", param, NULL, "a message has at most %d pictures and files", ATTACHMENTS_MAX);
	else if (str_trim(buf_view(&k.text)).n == 0 && k.n_files == 0 && str_find(last, S(RESULT_START)) == SIZE_MAX)
		request_error(r, 400, "invalid_request", param, NULL, "nothing is said");
	else if (k.text.n > MESSAGE_MAX || q.req.system.n > SYSTEM_MAX)
		request_error(r, 400, "invalid_request", param, NULL, "a message has at most %u bytes, the system text %u", MESSAGE_MAX,
		    SYSTEM_MAX);
	else if (attend_key(r, &key))
		place(&k, key);
	arena_free(&ar);
	arena_free(&q.ar);
	buf_free(&k.text);
	buf_free(&k.options);
}
