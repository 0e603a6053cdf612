/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * messages.c - POST /v1/messages: something said to the agent, and its answer
 *
 * A message's id is that of its row; who waits for its answer is gateway/attend.c's business.
 *
 * An event's id is "MESSAGE-BYTES-HASH": how much of the text the client has, and
 * which. One that comes back with it goes on behind that, if the text still begins
 * so; a text that was begun anew (a restart of the model's answer or of the daemon)
 * is told from its start, behind an event "restart".
 */
#include "channel/gateway/gateway.h"

#define RETRY S("retry: 2000\n\n")      /* a client that lost its stream comes back so soon, ms */

/* ---- the answer -------------------------------------------------------------------------- */

/* The conversation of that id, if it is this credential's; else answers 404. */
static bool
find_session(struct request *r, struct str id)
{
	int64_t n;

	if (str_i64(id, 1, INT64_MAX, &n) == OK && attend_session(r, n))
		return true;
	request_error(r, 404, "not_found", "session_id", "GET /v1/sessions lists yours", "there is no such conversation");
	return false;
}

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
	if (jw_done(&w) != OK || id.err != OK)
		conn_drop(r->c);        /* it comes back and goes on */
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

	if (r->said > text.n || r->anew || (again && r->hash != attend_hash(TEXT_HASH_EMPTY, str_sub(text, 0, r->said)))) {
		r->anew = false;
		r->said = 0;
		r->hash = TEXT_HASH_EMPTY;
		event(r, "restart", NULL, STR_NONE);
	}
	rest = str_sub(text, r->said, text.n);
	if (rest.n == 0)
		return;
	r->hash = attend_hash(r->hash, rest);
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

	if (wants_stream(r) && !r->stream)
		request_stream(r, RETRY);
	say_answer(r, &b, text, !r->stream);
	if (!r->stream) {
		request_answer_buf(r, 200, OK, &b);
	} else {
		catch_up(r, text, true);
		buf_fmt(&id, "%lld-%zu-%08x", (long long)r->inbound, r->said + 1, r->hash);      /* behind the text */
		if (b.err == OK && id.err == OK) {
			request_event(r, buf_view(&id), "message_stop", buf_view(&b));
			request_end(r);
		} else {
			conn_drop(r->c);
		}
	}
	buf_free(&b);
	buf_free(&id);
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

static void
begin(struct request *r, struct str running)
{
	request_stream(r, RETRY);
	if (running.n)
		catch_up(r, running, true);
}

/* What is stopped says so where it is awaited; this says only that the word was heard. */
static void
stopping(struct request *r)
{
	struct buf b = BUF_INIT(256);

	say_answer(r, &b, S("Stopping."), !r->on_socket);
	if (r->on_socket) {
		socket_say(r, "done", STR_NONE, buf_view(&b));
		request_end(r);
	} else {
		request_answer_buf(r, 200, OK, &b);
	}
	buf_free(&b);
}

static const struct attend waits = { wants_stream, begin, on_partial, finish, stopping };

/* ---- POST /v1/messages ---------------------------------------------------------------------- */

static void
post_message(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	const struct json *o = request_object(r, &ar, r->on_socket ? "type content session_id? user? sender_id?"
	    " idempotency_key?" : "content session_id? user? sender_id?");
	struct str key = STR_NONE, user, session;
	char sender[192], dedup[192];
	struct inbound in = { .sender = STR_NONE };
	enum err e;

	if (!o) {
		arena_free(&ar);
		return;
	}
	in.text = json_str(o, "content", STR_NONE);
	user = json_str(o, "user", json_str(o, "sender_id", STR_NONE));
	session = json_str(o, "session_id", STR_NONE);
	request_wait(r, &waits);
	if (str_trim(in.text).n == 0) {
		request_error(r, 400, "invalid_request", "content", NULL, "content is empty");
	} else if (in.text.n > MESSAGE_MAX) {
		request_error(r, 413, "too_large", "content", NULL, "content has more than %u bytes", MESSAGE_MAX);
	} else if (user.n > 64 || str_find(user, S("/")) != SIZE_MAX) {
		request_error(r, 400, "invalid_request", "user", NULL, "user has at most 64 bytes and no slash");
	} else if (r->on_socket && (key = json_str(o, "idempotency_key", STR_NONE)).n > ATTEND_KEY_MAX) {
		request_error(r, 400, "invalid_request", "idempotency_key", NULL, "idempotency_key has at most %d bytes", ATTEND_KEY_MAX);
	} else if ((r->on_socket || attend_key(r, &key)) && (session.n == 0 || find_session(r, session))) {
		e = attend_name(r, key, r->ref, sizeof(r->ref));
		if (session.n == 0)
			snprintf(r->chat, sizeof(r->chat), "%lld/%s", (long long)r->who.id, r->ref);
		snprintf(sender, sizeof(sender), "%lld/%.*s", (long long)r->who.id, STR_ARG(user));
		snprintf(dedup, sizeof(dedup), "%lld/%s", (long long)r->who.id, r->ref);
		in.sender = str_z(sender);
		in.sender_name = user.n ? user : S("a program");
		in.dedup = str_z(dedup);
		if (e == OK)
			attend_put(r, &in);
		else
			request_failed(r, e);
	}
	arena_free(&ar);
}

/* ---- GET /v1/messages/{id} -------------------------------------------------------------------- */

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
	int64_t n;

	request_wait(r, &waits);
	if (str_i64(id, 1, INT64_MAX, &n) == OK && attend_message(r, n))
		return true;
	request_error(r, 404, "not_found", NULL, NULL, "there is no such message");
	return false;
}

static void
get_message(struct request *r)
{
	struct buf reply = BUF_INIT(REPLY_MAX * 2);
	struct str running;
	bool done = false;
	enum err e;

	if (!find_message(r, request_segment(r, 0)))
		return;
	read_position(r, http_field(request_head(r), "last-event-id"));
	if (wants_stream(r)) {
		attend_turn(r, false);
	} else if ((e = attend_look(r, false, &running, &reply, &done)) != OK) {
		request_failed(r, e);
	} else if (done) {
		attend_done(r, buf_view(&reply));
	} else {
		request_answer(r, 202, S("{\"status\":\"running\"}"));
	}
	buf_free(&reply);
}

/* ---- conversations -------------------------------------------------------------------------------- */

static bool
list_session(void *arg, const struct session_list_row *row)
{
	struct list *l = arg;
	const struct session *s = session_get(l->r->a, row->id);
	struct str user = row->user, key;

	if (!list_item(l, row->id))
		return false;
	str_cut(&user, '/', &key);
	jw_ki64(&l->w, "created_at", row->created_at / US_PER_S);
	jw_ki64(&l->w, "updated_at", row->updated_at / US_PER_S);
	jw_kstr(&l->w, "user", user);
	jw_kz(&l->w, "state", s && s->turn ? "running" : "idle");
	jw_end_obj(&l->w);
	return true;
}

static void
get_sessions(struct request *r)
{
	struct list l;
	char own[24];

	snprintf(own, sizeof(own), "%lld/", (long long)r->who.id);
	if (list_begin(&l, r, "sessions", true))
		list_answer(&l, store_session_list(r->a->db, "gateway", r->who.scopes & SCOPE_ADMIN ? STR_NONE : str_z(own), &l.page,
		    list_session, &l));
	buf_free(&l.b);
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
	bool room = true;

	if (m->kind == MESSAGE_SAID)
		put_text(&text, m->content);
	if (text.n && (room = list_item(l, m->seq))) {  /* no text: tool calls and their results; what compaction says again */
		jw_kstr(&l->w, "role", m->role);
		jw_kstr(&l->w, "content", buf_view(&text));
		jw_ki64(&l->w, "created_at", m->created_at / US_PER_S);
		jw_end_obj(&l->w);
	}
	buf_free(&text);
	return room;
}

static void
get_messages(struct request *r)
{
	struct list l;

	if (!find_session(r, request_segment(r, 0)))
		return;
	if (list_begin(&l, r, "messages", false))
		list_answer(&l, store_message_page(r->a->db, r->session, &l.page, list_message, &l));
	buf_free(&l.b);
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
		request_failed(r, e);
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
		attend_turn(r, false);
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
