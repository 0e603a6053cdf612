/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * echo_route.c - routes that no release has, for tests alone: linked into build/tests/e2e/blufio-echo.
 *
 *   GET /         a WebSocket, without a credential, on which every message comes back as it came:
 *                 the listener and base/ws as they are, for the conformance clients of others
 *   POST /engine  {"hex"}: what base/http by itself makes of these octets, to compare the listener with:
 *                 {"heads", "closes", "status"}: requests it saw, was one the last by its own word, the refusal
 */
#include "channel/gateway/gateway.h"

#define ECHO_MAX (17u << 20)         /* the clients go up to 16 MiB */

static void
on_message(struct conn *c, enum ws_event e, struct str payload)
{
	if (ws_put(&c->socket->ws, &c->out, e, payload) != OK)
		conn_drop(c);
}

static void
get_echo(struct request *r)
{
	struct conn *c = r->c;
	unsigned bits;

	socket_open(r, NULL);
	if (!c->socket)
		return;
	bits = c->socket->ws.bits;
	ws_free(&c->socket->ws);
	ws_init(&c->socket->ws, ECHO_MAX, bits, &c->g->pool);
	c->socket->message = on_message;
	c->out.max = 2 * ECHO_MAX;
}

static void
post_engine(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	const struct json *o = request_object(r, &ar, "hex");
	struct buf octets = BUF_INIT(BODY_MAX_API), answer = BUF_INIT(256);
	struct str in, body;
	struct http h;
	enum http_event e;
	bool closes = false;
	int heads = 0;

	http_init(&h, BODY_MAX_API);
	if (o && dec_hex(json_str(o, "hex", STR_NONE), &octets) != OK) {
		request_error(r, 400, "invalid_request", "hex", NULL, "not hex");
	} else if (o) {
		in = buf_view(&octets);
		while ((e = http_next(&h, &in, &body)) != HTTP_MORE && e != HTTP_BAD && !(closes && e == HTTP_END))
			if (e == HTTP_HEAD) {
				heads++;
				closes = !h.req.keep_alive;
			}
		buf_fmt(&answer, "{\"heads\":%d,\"closes\":%s,\"status\":%d}", heads, closes ? "true" : "false",
		    e == HTTP_BAD ? h.status : 0);
		request_answer(r, 200, buf_view(&answer));
	}
	http_free(&h);
	buf_free(&octets);
	buf_free(&answer);
	arena_free(&ar);
}

static const struct route routes[] = {
	{ "GET", "/", SCOPE_OPEN, get_echo, "WebSocket: every message comes back" },
	{ "POST", "/engine", SCOPE_OPEN, post_engine, "What the HTTP engine makes of octets" },
	{ NULL, NULL, 0, NULL, NULL }
};
extern const struct feature echo_route_feature;
const struct feature echo_route_feature = {
	.name = "echo_route", .kind = FEATURE_API, .routes = routes, .summary = "routes for tests alone"
};
