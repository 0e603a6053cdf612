/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * messages.c - POST /v1/messages: something said to the agent, and its answer
 *
 * A message is an inbound row of the channel "gateway"; its id is that row's. The
 * conversation's chat is "KEY/NAME": KEY is the credential's row, so nobody reaches
 * another's conversation, and no name a program sends is ever somebody of another
 * channel. The turn answers to "ref", by which the request that waits is found.
 *
 * An event's id is "MESSAGE-BYTES-HASH": how much of the text the client has, and
 * which. One that comes back with it goes on behind that, if the text still begins
 * so; a text that was begun anew (a restart of the model's answer or of the daemon)
 * is told from its start, behind an event "restart".
 */
#include "channel/gateway/gateway.h"

#define KEY_MAX 255                     /* of Idempotency-Key */
#define NAME_BYTES 8                    /* of a conversation's random name */

/* ---- whose is it? --------------------------------------------------------------------- */

static bool
is_own(const struct request *r, struct str chat)
{
	struct str key;
	int64_t id;

	if (r->who.scopes & SCOPE_ADMIN)
		return true;
	str_cut(&chat, '/', &key);
	return str_i64(key, 1, INT64_MAX, &id) == OK && id == r->who.id;
}

static void
take_session(void *arg, const struct session_row *row)
{
	struct request *r = arg;

	if (!str_eqz(row->to.channel, "gateway") || !is_own(r, row->to.chat))
		return;
	r->session = row->id;
	snprintf(r->chat, sizeof(r->chat), "%.*s", STR_ARG(row->to.chat));
}

/* The conversation of that id, if it is this credential's; else answers 404. */
static bool
find_session(struct request *r, struct str id)
{
	int64_t n;

	r->session = 0;
	if (str_i64(id, 1, INT64_MAX, &n) == OK && store_session_get(r->a->db, n, take_session, r) == OK && r->session)
		return true;
	request_error(r, 404, "not_found", "session_id", "GET /v1/sessions lists yours", "there is no such conversation");
	return false;
}

/* ---- the answer -------------------------------------------------------------------------- */

static void
say_answer(struct request *r, struct buf *out, struct str text, bool when)
{
	char id[24], session[24];
	struct jw w;

	snprintf(id, sizeof(id), "%lld", (long long)r->inbound);
	snprintf(session, sizeof(session), "%lld", (long long)r->session);
	jw_init(&w, out);
	jw_obj(&w);
	jw_kz(&w, "id", id);
	jw_kstr(&w, "content", text);
	jw_kz(&w, "session_id", session);
	if (when)
		jw_ki64(&w, "created_at", r->created_at / US_PER_S);
	jw_end_obj(&w);
}

/* FNV-1a, 32 bits: tells texts apart that were not made to look alike. */
static uint32_t
hash_on(uint32_t h, struct str more)
{
	for (size_t i = 0; i < more.n; i++)
		h = (h ^ (unsigned char)more.p[i]) * 16777619u;
	return h;
}

static void
event(struct request *r, const char *name, const char *key, struct str value)
{
	struct buf b = BUF_INIT(REPLY_MAX * 8), id = BUF_INIT(64);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	if (key)
		jw_kstr(&w, key, value);
	jw_end_obj(&w);
	buf_fmt(&id, "%lld-%zu-%08x", (long long)r->inbound, r->said, r->hash);
	if (jw_done(&w) != OK)
		conn_drop(r->c);
	else
		request_event(r, buf_view(&id), name, buf_view(&b));
	buf_free(&b);
	buf_free(&id);
}

/* Tells what of text the client has not got; again: it may have another text. */
static void
catch_up(struct request *r, struct str text, bool again)
{
	struct str rest;

	if (r->said > text.n || r->anew || (again && r->hash != hash_on(TEXT_HASH_EMPTY, str_sub(text, 0, r->said)))) {
		r->anew = false;
		r->said = 0;
		r->hash = TEXT_HASH_EMPTY;
		event(r, "restart", NULL, STR_NONE);
	}
	rest = str_sub(text, r->said, text.n);
	if (rest.n == 0)
		return;
	r->hash = hash_on(r->hash, rest);
	r->said = text.n;
	event(r, "text_delta", "text", rest);
}

/* Asked for by name: whoever takes anything, or any text, gets JSON. */
static bool
wants_stream(const struct request *r)
{
	int q = http_accepts(request_head(r), "accept", "text/event-stream");

	return r->on_socket || (!str_eqz(request_head(r)->method, "HEAD") && q > http_accepts(request_head(r), "accept", "text/x-any") &&
	    q >= http_accepts(request_head(r), "accept", "application/json"));
}

static void
finish(struct request *r, struct str text)
{
	struct buf b = BUF_INIT(REPLY_MAX * 8), id = BUF_INIT(64);

	r->ref[0] = '\0';
	effect_cancel(&r->release);     /* the answer proves that the question is stored */
	r->stored = true;
	if (wants_stream(r) && !r->stream)
		request_stream(r);
	say_answer(r, &b, text, !r->stream);
	if (!r->stream) {
		request_answer(r, 200, buf_view(&b));
	} else {
		catch_up(r, text, true);
		buf_fmt(&id, "%lld-%zu-%08x", (long long)r->inbound, r->said + 1, r->hash);      /* behind the text */
		request_event(r, buf_view(&id), "message_stop", buf_view(&b));
		request_end(r);
	}
	buf_free(&b);
	buf_free(&id);
}

/* What is stopped says so where it is awaited; this says only that the word was heard. */
static void
stopping(struct request *r)
{
	struct buf b = BUF_INIT(256);

	r->ref[0] = '\0';
	say_answer(r, &b, S("Stopping."), true);
	if (r->on_socket) {
		socket_say(r, "done", STR_NONE, buf_view(&b));
		request_end(r);
	} else {
		request_answer(r, 200, buf_view(&b));
	}
	buf_free(&b);
}

static void
on_partial(struct request *r, const struct partial *p)
{
	r->turn = p->turn;
	if (!r->stream)
		return;
	if (r->on_socket && p->what == PARTIAL_BEGIN)
		socket_say(r, "typing", STR_NONE, STR_NONE);
	else if (r->on_socket && p->what == PARTIAL_TOOL)
		event(r, "tool", "name", p->tool);
	else if (p->what == PARTIAL_RESTART)
		r->anew = r->said > 0;
	else if (p->what == PARTIAL_TEXT)
		catch_up(r, p->text, false);
}

/* A notice that belongs to a turn ("I am busy …") is not its answer. */
static void
on_reply(struct request *r, const struct outbox_item *item)
{
	if (item->kind == OUTBOX_REPLY || item->turn == 0)
		finish(r, item->text);
}

static void
on_late(void *arg)
{
	struct request *r = arg;

	r->ref[0] = '\0';
	request_error(r, 504, "timeout", NULL, "GET /v1/messages/{turn_id} has the answer when it is there",
	    "the answer takes longer than gateway.reply_timeout; the work goes on");
}

/* The text of the running turn that answers it, and the reply when there is one. */
static enum err
look_up(struct request *r, bool fresh, struct str *running, struct buf *reply, bool *done)
{
	struct session *s = session_get(r->a, r->session);
	int64_t turn = 0;
	enum err e = store_inbound_turn(r->a->db, r->inbound, &turn);

	*running = STR_NONE;
	*done = false;
	if (e == OK && s && s->turn && s->turn->inbound == r->inbound && s->turn->state < TURN_REPLY) {
		*running = buf_view(&s->turn->answer);
		r->turn = s->turn->id;
	} else if (e == OK && turn) {
		e = store_reply(r->a->db, turn, reply, done);
	} else if (e == OK && !fresh) { /* a word like /help has no turn, but a notice */
		e = store_notice(r->a->db, r->inbound, reply, done);
	}
	return e;
}

/* Waits for the answer, or gives it when it is there. */
static void
attend(struct request *r, bool fresh)
{
	struct buf reply = BUF_INIT(REPLY_MAX * 2);
	bool done;
	struct str running;
	enum err e = look_up(r, fresh, &running, &reply, &done);

	if (e != OK) {
		request_error(r, 503, "storage", NULL, "try again later", "the storage does not work at the moment");
	} else {
		r->partial = on_partial;
		r->reply = on_reply;
		if (wants_stream(r)) {
			request_stream(r);
			if (!done && running.n)
				catch_up(r, running, true);
		} else if (!done) {
			ev_timer_init(&r->timer, on_late, r);
			ev_timer_in(r->a->ev, &r->timer, config_i64(r->a->config, "gateway.reply_timeout") * US_PER_S);
		}
		if (done)
			finish(r, buf_view(&reply));
	}
	buf_free(&reply);
}

/* ---- POST /v1/messages ---------------------------------------------------------------------- */

static enum err
random_name(char *out, size_t size)
{
	unsigned char bytes[NAME_BYTES];
	struct buf hex = BUF_INIT(2 * NAME_BYTES);
	enum err e = rand_bytes(bytes, sizeof(bytes));

	if (e == OK)
		enc_hex(&hex, bytes, sizeof(bytes));
	snprintf(out, size, "%s", buf_z(&hex));
	e = e != OK ? e : hex.err;
	buf_free(&hex);
	return e;
}

/* A name that the same key of the same credential always has. */
static enum err
name_of_key(const struct request *r, struct str key, char *out, size_t size)
{
	unsigned char digest[SHA256_SIZE];
	struct buf hex = BUF_INIT(2 * SHA256_SIZE);
	struct sha256 h;
	enum err e;

	sha256_init(&h);
	sha256_update(&h, &r->who.id, sizeof(r->who.id));
	sha256_update(&h, key.p, key.n);
	sha256_final(&h, digest);
	enc_hex(&hex, digest, 2 * NAME_BYTES);
	snprintf(out, size, "%s", buf_z(&hex));
	e = hex.err;
	buf_free(&hex);
	return e;
}

struct same { struct request *r; struct str text; int64_t session; bool it_is; };

static void
is_same(void *arg, const struct inbound_row *row)
{
	struct same *s = arg;

	s->r->created_at = row->received_at;
	s->it_is = str_eq(s->text, row->text) && s->session == row->session;
}

static void
take(struct request *r, struct inbound *in)
{
	struct same same = { r, in->text, 0, false };
	const struct session *s = session_get(r->a, r->session);
	bool fresh = false, stops = s && s->turn && s->turn->state < TURN_REPLY && str_eqz(str_trim(in->text), "/stop");
	enum err e = inbound_put(r->a, in, &fresh);

	r->stored = !r->a->db->in_tx && !r->a->write_failed;
	if (e == OK)
		e = store_inbound_known(r->a->db, in->to.channel, in->dedup, &r->inbound);
	if (e == OK)
		e = store_session_known(r->a->db, r->a->name, &in->to, &r->session);
	if (e == OK) {
		same.session = r->session;
		e = store_inbound_get(r->a->db, r->inbound, is_same, &same);
	}
	if (e != OK) {
		request_error(r, 503, "storage", NULL, "try again later", "the message could not be stored");
	} else if (!fresh && !same.it_is) {
		r->inbound = 0;
		request_error(r, 409, "idempotency_mismatch", NULL, "use a new Idempotency-Key for another message",
		    "this Idempotency-Key came with another message before");
	} else if (fresh && stops) {
		stopping(r);
	} else if (fresh) {
		r->partial = on_partial;
		r->reply = on_reply;    /* a word like /help is answered in the same commit */
		agent_after(r->a, &r->release);         /* begins when it is on the disk */
	} else {
		effect_cancel(&r->release);
		r->stored = true;       /* long ago */
		attend(r, false);
	}
}

static void
on_stored(struct effect *e)
{
	struct request *r = CONTAINER(e, struct request, release);

	r->stored = true;
	attend(r, true);
}

/* Empty when there is none; false when it cannot be one. */
static bool
read_key(const struct request *r, struct str *key)
{
	struct http_field f;
	size_t at = 0, n = 0;

	while (http_field_next(request_head(r), &at, &f))
		if (str_ieq(f.name, S("Idempotency-Key"))) {
			*key = f.value;
			if (n++ || f.value.n == 0 || f.value.n > KEY_MAX)
				return false;
		}
	for (size_t i = 0; i < key->n; i++)
		if (key->p[i] <= ' ' || key->p[i] > '~')
			return false;
	return true;
}

static void
post_message(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	const struct json *o = request_object(r, &ar, r->on_socket ? "type content session_id? user? sender_id?"
	    " idempotency_key?" : "content session_id? user? sender_id?");
	struct str key = STR_NONE, user, session;
	char sender[192], dedup[192];
	struct inbound in = { .to = { S("gateway"), STR_NONE, STR_NONE, STR_NONE }, .sent_at = clock_us() };
	enum err e = OK;

	if (!o) {
		arena_free(&ar);
		return;
	}
	in.text = json_str(o, "content", STR_NONE);
	user = json_str(o, "user", json_str(o, "sender_id", STR_NONE));
	session = json_str(o, "session_id", STR_NONE);
	if (str_trim(in.text).n == 0) {
		request_error(r, 400, "invalid_request", "content", NULL, "content is empty");
	} else if (in.text.n > MESSAGE_MAX) {
		request_error(r, 413, "too_large", "content", NULL, "content has more than %u bytes", MESSAGE_MAX);
	} else if (user.n > 64 || str_find(user, S("/")) != SIZE_MAX) {
		request_error(r, 400, "invalid_request", "user", NULL, "user has at most 64 bytes and no slash");
	} else if (r->on_socket && (key = json_str(o, "idempotency_key", STR_NONE)).n > KEY_MAX) {
		request_error(r, 400, "invalid_request", "idempotency_key", NULL, "idempotency_key has at most %d bytes", KEY_MAX);
	} else if (!r->on_socket && !read_key(r, &key)) {
		request_error(r, 400, "invalid_request", "Idempotency-Key", NULL, "Idempotency-Key is one field of 1 to %d"
		    " visible ASCII characters", KEY_MAX);
	} else if (session.n == 0 || find_session(r, session)) {
		e = key.n ? name_of_key(r, key, r->ref, sizeof(r->ref)) : random_name(r->ref, sizeof(r->ref));
		if (session.n == 0)
			snprintf(r->chat, sizeof(r->chat), "%lld/%s", (long long)r->who.id, r->ref);
		snprintf(sender, sizeof(sender), "%lld/%.*s", (long long)r->who.id, STR_ARG(user));
		snprintf(dedup, sizeof(dedup), "%lld/%s", (long long)r->who.id, r->ref);
		in.to.chat = str_z(r->chat);
		in.to.reply_to = in.ref = str_z(r->ref);
		in.sender = str_z(sender);
		in.sender_name = user.n ? user : S("a program");
		in.dedup = str_z(dedup);
		r->release.run = on_stored;
		if (e == OK)
			take(r, &in);
		else
			request_error(r, 503, "overloaded", NULL, "try again later", "%s", err_str(e));
	}
	arena_free(&ar);
}

/* ---- GET /v1/messages/{id} -------------------------------------------------------------------- */

static void
take_inbound(void *arg, const struct inbound_row *row)
{
	struct request *r = arg;

	r->session = row->session;
	r->created_at = row->received_at;
	snprintf(r->ref, sizeof(r->ref), "%.*s", STR_ARG(row->reply_to));
}

/* "12-345-89abcdef" of the same message: what the client has. */
static void
read_position(struct request *r, struct str last)
{
	struct str id, at;
	struct buf hash = BUF_INIT(4);
	int64_t n, said;

	str_cut(&last, '-', &id);
	str_cut(&last, '-', &at);
	if (str_i64(id, 1, INT64_MAX, &n) == OK && n == r->inbound && str_i64(at, 0, REPLY_MAX * 2, &said) == OK &&
	    dec_hex(last, &hash) == OK && hash.n == 4) {
		r->said = (size_t)said;
		r->hash = 0;
		for (size_t i = 0; i < 4; i++)
			r->hash = r->hash << 8 | (unsigned char)hash.p[i];
	}
	buf_free(&hash);
}

/* The message of that id, if it is this credential's; else answers 404. */
static bool
find_message(struct request *r, struct str id)
{
	int64_t session;

	if (str_i64(id, 1, INT64_MAX, &r->inbound) != OK ||
	    store_inbound_get(r->a->db, r->inbound, take_inbound, r) != OK) {
		r->inbound = 0;
		request_error(r, 404, "not_found", NULL, NULL, "there is no such message");
		return false;
	}
	session = r->session;
	r->session = 0;
	if (store_session_get(r->a->db, session, take_session, r) != OK || r->session == 0) {
		r->inbound = 0;
		request_error(r, 404, "not_found", NULL, NULL, "there is no such message");
		return false;
	}
	return true;
}

static void
get_message(struct request *r)
{
	struct buf reply = BUF_INIT(REPLY_MAX * 2);
	struct str running;
	bool done = false;

	if (!find_message(r, request_segment(r, 0)))
		return;
	read_position(r, http_field(request_head(r), "last-event-id"));
	if (wants_stream(r)) {
		attend(r, false);
	} else if (look_up(r, false, &running, &reply, &done) != OK) {
		request_error(r, 503, "storage", NULL, "try again later", "the storage does not work at the moment");
	} else if (done) {
		finish(r, buf_view(&reply));
	} else {
		request_answer(r, 202, S("{\"status\":\"running\"}"));
	}
	buf_free(&reply);
}

/* ---- conversations -------------------------------------------------------------------------------- */

struct list { struct request *r; struct jw w; };

static void
list_session(void *arg, const struct session_list_row *row)
{
	struct list *l = arg;
	const struct session *s = session_get(l->r->a, row->id);
	struct str user = row->user, key;
	char id[24];

	if (!is_own(l->r, row->chat))
		return;
	snprintf(id, sizeof(id), "%lld", (long long)row->id);
	str_cut(&user, '/', &key);
	jw_obj(&l->w);
	jw_kz(&l->w, "id", id);
	jw_ki64(&l->w, "created_at", row->created_at / US_PER_S);
	jw_ki64(&l->w, "updated_at", row->updated_at / US_PER_S);
	jw_kstr(&l->w, "user", user);
	jw_kz(&l->w, "state", s && s->turn ? "running" : "idle");
	jw_end_obj(&l->w);
}

static void
answer_list(struct request *r, struct list *l, struct buf *b, enum err e)
{
	jw_end_arr(&l->w);
	jw_end_obj(&l->w);
	if (e != OK || jw_done(&l->w) != OK)
		request_error(r, 503, "storage", NULL, "try again later", "this cannot be read now");
	else
		request_answer(r, 200, buf_view(b));
}

static void
get_sessions(struct request *r)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX / 2);
	struct list l = { r, { 0 } };

	jw_init(&l.w, &b);
	jw_obj(&l.w);
	jw_key(&l.w, "sessions");
	jw_arr(&l.w);
	answer_list(r, &l, &b, store_session_list(r->a->db, "gateway", list_session, &l));
	buf_free(&b);
}

/* The text of a stored content; what is no text is named. */
static void
put_text(struct buf *out, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
	const struct json *blocks = NULL;

	if (json_parse(&ar, content, &blocks, NULL) == OK)
		for (const struct json *b = blocks->first; b; b = b->next)
			if (str_eqz(json_str(b, "type", STR_NONE), "text"))
				buf_str(out, json_str(b, "text", STR_NONE));
	arena_free(&ar);
}

static bool
list_message(void *arg, const struct message_row *m)
{
	struct list *l = arg;
	struct buf text = BUF_INIT(REQUEST_MAX);
	char id[24];

	if (m->kind == MESSAGE_SAID)
		put_text(&text, m->content);
	if (text.n) {                   /* else tool calls and their results; what compaction says again */
		snprintf(id, sizeof(id), "%lld", (long long)m->seq);
		jw_obj(&l->w);
		jw_kz(&l->w, "id", id);
		jw_kstr(&l->w, "role", m->role);
		jw_kstr(&l->w, "content", buf_view(&text));
		jw_ki64(&l->w, "created_at", m->created_at / US_PER_S);
		jw_end_obj(&l->w);
	}
	buf_free(&text);
	return true;
}

static void
get_messages(struct request *r)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX / 2);
	struct list l = { r, { 0 } };

	if (!find_session(r, request_segment(r, 0)))
		return;
	jw_init(&l.w, &b);
	jw_obj(&l.w);
	jw_key(&l.w, "messages");
	jw_arr(&l.w);
	answer_list(r, &l, &b, store_messages(r->a->db, r->session, 0, list_message, &l));
	buf_free(&b);
}

static void
delete_session(struct request *r)
{
	const struct session *s;
	enum err e;

	if (!find_session(r, request_segment(r, 0)))
		return;
	s = session_get(r->a, r->session);
	if (s) {                        /* loaded means that something of it is in work or waits */
		request_error(r, 409, "busy", NULL, "POST /v1/sessions/{id}/stop first", "a message of it is being answered");
		return;
	}
	compact_drop(r->a, r->session);
	e = store_session_erase(r->a->db, r->session);
	agent_wrote(r->a, e);
	r->stored = false;
	if (e == OK)
		request_answer_raw(r, 204, NULL, STR_NONE, STR_NONE);
	else
		request_error(r, 503, "storage", NULL, "try again later", "the conversation could not be removed");
}

static void
stop_session(struct request *r)
{
	const struct session *s;
	bool running;

	if (!find_session(r, request_segment(r, 0)))
		return;
	s = session_get(r->a, r->session);
	running = s && s->turn && s->turn->state < TURN_REPLY;
	if (running)
		session_stop(r->a, &(struct target){ S("gateway"), str_z(r->chat), STR_NONE, STR_NONE });
	request_answer(r, 200, running ? S("{\"stopped\":true}") : S("{\"stopped\":false}"));
}

/* ---- GET /ws ---------------------------------------------------------------------------------------- */

static void
resume(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	const struct json *o = request_object(r, &ar, "type seq");
	struct str seq = json_str(o, "seq", STR_NONE), rest = seq, id;

	str_cut(&rest, '-', &id);
	if (o && find_message(r, id)) {
		read_position(r, seq);
		attend(r, false);
	}
	arena_free(&ar);
}

static void
stop(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	const struct json *o = request_object(r, &ar, "type session_id");

	if (o && find_session(r, json_str(o, "session_id", STR_NONE))) {
		session_stop(r->a, &(struct target){ S("gateway"), str_z(r->chat), STR_NONE, STR_NONE });
		request_end(r);         /* what it stops says so itself */
	}
	arena_free(&ar);
}

static void
on_frame(struct request *r, struct str type)
{
	if (str_eqz(type, "message"))
		post_message(r);
	else if (str_eqz(type, "resume"))
		resume(r);
	else
		stop(r);
}

static void
get_ws(struct request *r)
{
	socket_open(r, on_frame);
}

static const struct route routes[] = {
	{ "GET", "/ws", SCOPE_CHAT, get_ws, "WebSocket: messages and their answers as JSON frames" },
	{ "POST", "/v1/messages", SCOPE_CHAT, post_message, "Say something; the answer as JSON or as an event stream" },
	{ "GET", "/v1/messages/{id}", SCOPE_CHAT, get_message, "The answer to a message, or its stream from Last-Event-ID on" },
	{ "GET", "/v1/sessions", SCOPE_READ, get_sessions, "Your conversations" },
	{ "GET", "/v1/sessions/{id}/messages", SCOPE_READ, get_messages, "What was said in one" },
	{ "DELETE", "/v1/sessions/{id}", SCOPE_CHAT, delete_session, "Erases one" },
	{ "POST", "/v1/sessions/{id}/stop", SCOPE_CHAT, stop_session, "Stops the answer that is being made" },
	{ NULL, NULL, 0, NULL, NULL }
};
const struct feature messages_feature = {
	.name = "messages", .kind = FEATURE_API, .routes = routes, .summary = "/v1/messages and /v1/sessions"
};
