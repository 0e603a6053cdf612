/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * socket.c - WebSocket of the gateway: several messages on one connection.
 *
 * After the handshake a text frame is one JSON object either way. What a client
 * says that has an answer (message, resume) becomes a request of its own, with the
 * rights of the one that opened the socket, and its events are frames: the same
 * functions as for an event stream do the work. "seq" is what an event's id is
 * there: whoever comes back with the last one goes on behind it.
 */
#include "channel/gateway/gateway.h"

#include <assert.h>

#define TICK_US (30 * US_PER_S)         /* a whole one without a byte: a ping; two: the client is gone */
#define PROTOCOL "blufio"               /* offered beside a ticket, which is not one to speak */
#define SUBS_MAX 16                     /* messages in work on one socket */

static void
frame(struct conn *c, struct str json)
{
	if (c->dead || c->ends)
		return;
	if (ws_put(&c->socket->ws, &c->out, WS_TEXT, json) != OK)
		conn_drop(c);
	else
		conn_flush(c);
}

/* {"type":type} and the members of json, which is an object. */
void
socket_say(struct request *r, const char *type, struct str seq, struct str json)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "type", type);
	if (seq.n)
		jw_kstr(&w, "seq", seq);
	if (r->session && str_find(json, S("\"session_id\":")) == SIZE_MAX) {
		char id[24];

		snprintf(id, sizeof(id), "%lld", (long long)r->session);
		jw_kz(&w, "session_id", id);
	}
	if (json.n > 2) {
		buf_putc(&b, ',');
		buf_str(&b, str_sub(json, 1, json.n));
	} else {
		jw_end_obj(&w);
	}
	if (b.err != OK)
		conn_drop(r->c);
	else
		frame(r->c, buf_view(&b));
	buf_free(&b);
	if (r->c->out.n > GATEWAY_OUT_HIGH)
		request_pause(r, true);
}

static void
refuse(struct conn *c, const char *type, const char *param, const char *message)
{
	struct buf b = BUF_INIT(8192);

	request_error_json(c->req, &b, 400, type, param, NULL, message);
	socket_say(c->req, "error", STR_NONE, buf_view(&b));
	buf_free(&b);
}

static void
on_text(struct conn *c, struct str text)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(text.n));
	const struct json *o = NULL;
	struct request *r;
	struct str type;
	size_t n = 0;

	if (json_parse(&ar, text, &o, NULL) != OK || o->type != JSON_OBJECT) {
		if (ar.err == ERR_NOMEM)
			refuse(c, "overloaded", NULL, "no memory for the frame");
		else
			refuse(c, "invalid_request", NULL, "a frame has to be a JSON object");
		arena_free(&ar);
		return;
	}
	type = json_str(o, "type", STR_NONE);
	for (r = c->socket->subs; r; r = r->next)
		n++;
	if (str_eqz(type, "ping")) {
		socket_say(c->req, "pong", STR_NONE, STR_NONE);
	} else if (!str_eqz(type, "message") && !str_eqz(type, "stop") && !str_eqz(type, "resume")) {
		refuse(c, "invalid_request", "type", "type is one of message, stop, resume, ping");
	} else if (c->g->a->phase != AGENT_READY) {
		refuse(c, "unavailable", NULL, "blufio is stopping, or the storage does not work at the moment");
	} else if (n >= SUBS_MAX || !(r = request_new(c))) {
		if (n >= SUBS_MAX)
			metrics_count(c->g->a, METRIC_LIMITS, REACHED_SOCKET_MESSAGES);
		refuse(c, "overloaded", NULL, n < SUBS_MAX ? "no memory for the frame" : "too many messages are in work on this socket");
	} else {
		r->on_socket = true;
		r->running = true;
		r->who = c->req->who;
		r->route = c->req->route;
		r->next = c->socket->subs;
		c->socket->subs = r;
		buf_str(&r->body, text);
		if (r->body.err != OK)
			request_error(r, 503, "overloaded", NULL, "try again later", "no memory for the frame");
		else
			c->socket->run(r, type);
	}
	arena_free(&ar);
}

/* What has been read, frame by frame. */
void
socket_pump(struct conn *c)
{
	struct str in = buf_view(&c->in), payload;
	size_t before = in.n;
	enum ws_event e = WS_TEXT;

	c->socket->quiet = 0;
	if (c->req->held.n) {           /* the handshake's answer waits for its commit: frames come behind it */
		if (c->eof)
			conn_drop(c);
		return;
	}
	while (!c->dead && !c->ends && e != WS_MORE && c->out.n <= GATEWAY_OUT_HIGH) {
		e = ws_next(&c->socket->ws, &in, &payload);
		if (c->socket->message && (e == WS_TEXT || e == WS_BINARY))
			c->socket->message(c, e, payload);
		else if (e == WS_TEXT)
			on_text(c, payload);
		else if (e == WS_PING && ws_put(&c->socket->ws, &c->out, WS_PONG, payload) != OK)
			conn_drop(c);
		else if (e == WS_CLOSE || e == WS_BAD || e == WS_BINARY) {
			if (ws_put_close(&c->out, e == WS_BINARY ? 1003 : c->socket->ws.code, STR_NONE) != OK)
				conn_drop(c);
			c->ends = true;
		}
	}
	buf_drop(&c->in, before - in.n);
	if (c->eof)
		c->ends = true;
	conn_flush(c);
}

/* The next tick, no later than the end of what opened the socket. */
static void
arm(struct conn *c)
{
	const struct principal *who = &c->req->who;
	int64_t life = who->expires_at - clock_us();

	ev_timer_in(c->g->a->ev, &c->timer, who->expires_at && life < TICK_US ? (life > 0 ? life : 0) : TICK_US);
}

void
socket_tick(struct conn *c)
{
	const struct principal *who = &c->req->who;

	if (who->expires_at && who->expires_at <= clock_us()) {
		conn_drop(c);
		return;
	}
	if (c->socket->quiet >= 2) {
		conn_limit(c, REACHED_SOCKET_TIME);
		return;
	}
	if (c->socket->quiet++ && ws_put(&c->socket->ws, &c->out, WS_PING, STR_NONE) != OK)
		conn_drop(c);
	arm(c);
	conn_flush(c);
}

void
socket_free(struct conn *c)
{
	while (c->socket->subs)
		request_free(c->socket->subs);
	ws_free(&c->socket->ws);
	free(c->socket);
	c->socket = NULL;
}

static void
refuse_upgrade(struct request *r, int status, struct str fields, const char *message)
{
	struct buf b = BUF_INIT(1024);

	request_error_json(r, &b, status, "invalid_request", NULL, NULL, message);
	request_answer_raw(r, status, "application/json", fields, buf_view(&b));
	buf_free(&b);
}

/* The request stays with the connection: it knows who opened it. */
void
socket_open(struct request *r, void (*run)(struct request *r, struct str type))
{
	const struct http_request *h = request_head(r);
	struct buf accept = BUF_INIT(64), offers = BUF_INIT(HTTP_HEAD_MAX), deflate = BUF_INIT(256);
	struct conn *c = r->c;
	struct http_field f;
	unsigned bits;
	enum err e;

	for (size_t at = 0; http_field_next(h, &at, &f);)
		if (str_ieq(f.name, S("Sec-WebSocket-Extensions"))) {
			buf_puts(&offers, offers.n ? ", " : "");
			buf_str(&offers, f.value);
		}
	bits = ws_deflate_offer(buf_view(&offers), &deflate);
	if (!h->upgrade_websocket) {
		refuse_upgrade(r, 426, S("Upgrade: websocket\r\n"), "this address speaks WebSocket");
	} else if (!str_eqz(http_field(h, "sec-websocket-version"), "13")) {
		refuse_upgrade(r, 426, S("Sec-WebSocket-Version: 13\r\n"), "the version of WebSocket is 13");
	} else if ((e = ws_accept(http_field(h, "sec-websocket-key"), &accept)) == ERR_NOMEM) {
		request_error(r, 503, "overloaded", NULL, "try again later", "out of memory");
	} else if (e != OK) {
		refuse_upgrade(r, 400, STR_NONE, "Sec-WebSocket-Key is not base64 of 16 bytes");
	} else if (!(c->socket = calloc(1, sizeof(*c->socket)))) {
		request_failed(r, ERR_NOMEM);
	} else {
		ws_init(&c->socket->ws, BODY_MAX_API, bits, &c->g->pool);
		c->socket->run = run;
		r->status = 101;
		http_put_status(&r->held, r->status);
		http_put_date(&r->held, clock_us());
		http_put_field(&r->held, "X-Request-Id", str_z(r->id));
		http_put_field(&r->held, "Upgrade", S("websocket"));
		http_put_field(&r->held, "Connection", S("Upgrade"));
		http_put_field(&r->held, "Sec-WebSocket-Accept", buf_view(&accept));
		if (http_list_has(h, "Sec-WebSocket-Protocol", PROTOCOL))
			http_put_field(&r->held, "Sec-WebSocket-Protocol", S(PROTOCOL));
		if (bits)
			http_put_field(&r->held, "Sec-WebSocket-Extensions", buf_view(&deflate));
		http_put_end(&r->held);
		r->stream = true;
		if (r->held.err != OK || deflate.err != OK)
			conn_drop(c);
		else
			request_send_held(r);
		arm(c);
		ev_defer(r->a->ev, &c->go);     /* frames may have come with the handshake */
	}
	buf_free(&accept);
	buf_free(&offers);
	buf_free(&deflate);
}
