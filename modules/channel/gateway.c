/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * gateway.c - HTTP and WebSocket: the agent for programs, as one more channel
 *
 * Where it listens is in gateway/listener.c, connections in conn.c, requests in request.c;
 * what can be asked stands in the route tables of the features (modules/api/). A
 * message becomes an inbound row, its reply comes back by the turn: to the
 * request that waits for it, if it still does. One that went away finds the
 * answer in the conversation, so a reply is delivered when it is stored.
 *
 * There is no open mode: without a way to tell who asks (modules/auth/) it does
 * not start, and an address that others can reach has to be asked for twice.
 */
#include "channel/gateway/gateway.h"

#define ME "gateway"

static const struct config_key keys[] = {
	{ .name = "gateway.enabled", .type = CONFIG_BOOL, .dflt = "false",
	  .help = "Answer programs over HTTP: messages, conversations, an event stream." },
	{ .name = "gateway.host", .type = CONFIG_STRING, .dflt = "\"127.0.0.1\"", .fixed = true,
	  .help = "Address to listen on; one that others can reach needs gateway.allow_public. \"\" with a gateway.socket: none." },
	{ .name = "gateway.port", .type = CONFIG_INT, .dflt = "3000", .max = 65535, .fixed = true,
	  .help = "Port to listen on; 0 takes a free one and logs it." },
	{ .name = "gateway.socket", .type = CONFIG_PATH, .fixed = true, .example = "\"/run/blufio/http.sock\"",
	  .help = "Unix socket to listen on beside the address, for this user alone." },
	{ .name = "gateway.max_connections", .type = CONFIG_INT, .dflt = "1024", .min = 16, .max = 65536, .fixed = true,
	  .help = "Connections at a time; half of them may be without a credential, a quarter from one address elsewhere." },
	{ .name = "gateway.allow_public", .type = CONFIG_BOOL, .dflt = "false",
	  .help = "Listen on an address that others can reach, with a server that speaks TLS in front." },
	{ .name = "gateway.allowed_hosts", .type = CONFIG_ARGV, .example = "[\"agent.example.org\"]",
	  .help = "Further names (without port) that requests may be addressed to." },
	{ .name = "gateway.allowed_origins", .type = CONFIG_ARGV, .example = "[\"https://app.example.org\"]",
	  .help = "Origins of web pages that may use the gateway." },
	{ .name = "gateway.reply_timeout", .type = CONFIG_SECONDS, .dflt = "120", .min = 1, .max = 3600,
	  .help = "A request that waits so long for its answer is told to look later; the work goes on." },
	{ .name = NULL }
};

/* ---- the channel ------------------------------------------------------------------------- */

static bool
gw_wanted(const struct config *c)
{
	return config_bool(c, "gateway.enabled") || listener_metrics(c);
}

static void
gw_free(void *self)
{
	struct gateway *g = self;

	while (g->conns)
		conn_free(g->conns);
	listener_close(g);
	if (g->auth_self)
		g->auth->free(g->auth_self);
	if (g->api_self)
		g->api->free(g->api_self);
	buf_free(&g->spare);
	free(g);
}

static FALLIBLE
gw_start(struct agent *a, void **self, struct fail *f)
{
	struct gateway *g = calloc(1, sizeof(*g));
	enum err e;

	if (!g)
		return fail_set(f, ERR_NOMEM, "gateway: out of memory");
	g->a = a;
	g->tail = &g->conns;
	g->conns_max = (size_t)config_i64(a->config, "gateway.max_connections");
	buf_init(&g->spare, GATEWAY_IN_MAX + GATEWAY_READ);
	IGNORE(rand_bytes(&g->last_id, sizeof(g->last_id)));    /* ids need not be secret, only unlike those of the last run */
	for (size_t i = 0; features[i] && !g->auth; i++)
		g->auth = features[i]->auth;
	for (size_t i = 0; features[i] && !g->api; i++)
		g->api = features[i]->api;
	e = g->auth ? g->auth->start(a, &g->auth_self, f) :
	    fail_set(f, ERR_CONFIG, "this build cannot tell who asks: the gateway needs an auth feature; next: `make FEATURES="
	    "\"gateway keypair\"`, or `blufio config set gateway.enabled false`");
	if (e == OK && g->api && g->api->start(g, &g->api_self) != OK)
		e = fail_set(f, ERR_NOMEM, "gateway: out of memory");
	if (e == OK)
		e = listener_open(g, f);
	if (e != OK) {
		gw_free(g);
		return e;
	}
	*self = g;
	return OK;
}

static void
gw_load(void *self)
{
	struct gateway *g = self;

	if (!g->stopping)
		listener_begin(g);
	if (g->api)
		g->api->load(g->api_self);
}

static void
gw_stop_intake(void *self)
{
	struct gateway *g = self;
	struct conn *next;

	g->stopping = true;
	listener_stop(g);
	for (struct conn *c = g->conns; c; c = next) {
		next = c->next;
		if (!c->req)
			conn_drop(c);
	}
}

static void
cut_calls(struct gateway *g, bool paused)
{
	struct conn *next;

	for (struct conn *c = g->conns; c; c = next) {
		next = c->next;
		if (c->req && c->req->cut)
			c->req->cut(c->req, paused);
	}
}

/* The commit failed, or memory is made anew: what was not yet stored is answered so, the rest goes on waiting. */
static void
gw_reset(void *self)
{
	struct gateway *g = self;
	struct conn *next;

	if (g->a->phase != AGENT_STOPPED)       /* else they are booked as they go */
		cut_calls(g, false);
	for (struct conn *c = g->conns; c; c = next) {
		next = c->next;
		for (struct request *r = c->socket ? c->socket->subs : NULL, *more; r; r = more) {
			more = r->next;
			request_lost(r);
		}
		if (c->req)
			request_lost(c->req);
	}
	if (g->api)
		g->api->reset(g->api_self);
}

static void
gw_paused(void *self)
{
	struct gateway *g = self;

	cut_calls(g, true);
	if (g->api)
		g->api->paused(g->api_self);
}

/* Whoever waits for the turn (0: of none) that answers to this address. */
static bool
waits_for(const struct request *r, const struct target *to, int64_t turn)
{
	return (turn == 0 || r->turn == 0 || r->turn == turn) && !r->c->dead && !r->answered && r->ref[0] &&
	    str_eqz(to->reply_to, r->ref) && str_eqz(to->chat, r->chat);
}

/* The reply to whoever waits for it, or else more of its text; false when nobody does. */
static bool
tell(struct gateway *g, const struct target *to, const struct outbox_item *item, const struct partial *p)
{
	bool told = false;

	for (struct request *r = g->waiting, *more; r; r = more) {      /* one that is told goes, no other one does */
		more = r->wait_next;
		if (!waits_for(r, to, item ? item->turn : p->turn))
			continue;
		told = told || !r->c->eof;      /* it has said all; it may be gone as well */
		if (item)
			attend_reply(r, item);
		else
			r->attend->partial(r, p);
	}
	return told;
}

struct fetched { struct buf bytes; enum err err; };

static void
take_data(void *arg, struct str data)
{
	struct fetched *f = arg;

	f->err = dec_base64(data, &f->bytes);
}

/* The bytes came with the message and stand in its row. */
static void
gw_fetch(void *self, const struct attachment *at)
{
	const struct gateway *g = self;
	struct fetched f = { BUF_INIT(BODY_MAX_FILES), ERR_NOTFOUND };
	enum err e = store_attachment_data(g->a->db, at->id, take_data, &f);

	if (e == OK)
		e = f.err;
	if (e == OK)
		e = media_data(g->a, at->id, buf_view(&f.bytes));
	media_end(g->a, at->id, e, S("its bytes cannot be read"), e != ERR_PARSE, -1);
	buf_free(&f.bytes);
}

static void
gw_send(void *self, const struct outbox_item *item)
{
	struct gateway *g = self;

	outbox_done(g->a, item->id, tell(g, &item->to, item, NULL) ? S("told") : STR_NONE);
}

static void
gw_partial(void *self, const struct partial *p)
{
	(void)tell(self, &p->to, NULL, p);
}

static void
gw_status(void *self, struct jw *w)
{
	const struct gateway *g = self;

	for (size_t i = 0; i < g->n_listeners; i++)
		jw_kz(w, g->listeners[i].metrics_only ? "metrics" : g->listeners[i].is_unix ? "socket" : "address",
		    g->listeners[i].address);
	jw_ki64(w, "connections", (int64_t)g->n_conns);
}

static const struct channel_ops ops = {
	.wanted = gw_wanted, .start = gw_start, .load = gw_load, .stop_intake = gw_stop_intake, .reset = gw_reset,
	.free = gw_free, .fetch = gw_fetch, .send = gw_send, .partial = gw_partial, .paused = gw_paused, .status = gw_status
};
const struct feature gateway_feature = {
	.name = ME, .kind = FEATURE_CHANNEL, .keys = keys, .channel = &ops,
	.summary = "HTTP gateway: programs talk to the agent, with keys of their own"
};
