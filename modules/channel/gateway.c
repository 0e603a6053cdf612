/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * gateway.c - HTTP and WebSocket: the agent for programs, as one more channel
 *
 * One listener. Connections are in gateway/conn.c, requests in gateway/request.c;
 * what can be asked stands in the route tables of the features (modules/api/). A
 * message becomes an inbound row, its reply comes back by the turn: to the
 * request that waits for it, if it still does. One that went away finds the
 * answer in the conversation, so a reply is delivered when it is stored.
 *
 * There is no open mode: without a way to tell who asks (modules/auth/) it does
 * not start, and an address that others can reach has to be asked for twice.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "channel/gateway/gateway.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ME "gateway"
#define ACCEPT_PAUSE_US (100 * US_PER_MS)  /* when descriptors have run out */
#define BACKLOG 256
#define FDS_KEPT 32                     /* for storage and what we ask of others */

static const struct config_key keys[] = {
	{ .name = "gateway.enabled", .type = CONFIG_BOOL, .dflt = "false",
	  .help = "answer programs over HTTP: messages, conversations, an event stream" },
	{ .name = "gateway.host", .type = CONFIG_STRING, .dflt = "\"127.0.0.1\"",
	  .help = "address to listen on; one that others can reach needs gateway.allow_public" },
	{ .name = "gateway.port", .type = CONFIG_INT, .dflt = "3000", .max = 65535,
	  .help = "port to listen on; 0 takes a free one and logs it" },
	{ .name = "gateway.allow_public", .type = CONFIG_BOOL, .dflt = "false",
	  .help = "listen on an address that others can reach, with a server that speaks TLS in front" },
	{ .name = "gateway.allowed_hosts", .type = CONFIG_ARGV, .example = "[\"agent.example.org\"]",
	  .help = "further names (without port) that requests may be addressed to" },
	{ .name = "gateway.allowed_origins", .type = CONFIG_ARGV, .example = "[\"https://app.example.org\"]",
	  .help = "origins of web pages that may use the gateway" },
	{ .name = "gateway.reply_timeout", .type = CONFIG_SECONDS, .dflt = "120", .min = 1, .max = 3600,
	  .help = "a request that waits so long for its answer is told to look later; the work goes on" },
	{ .name = NULL }
};

static void on_accept(void *arg, int fd, unsigned events);

static void
listen_again(void *arg)
{
	struct gateway *g = arg;

	if (ev_fd_set(g->a->ev, g->fd, EV_READ, on_accept, g) != OK)
		ev_timer_in(g->a->ev, &g->again, ACCEPT_PAUSE_US);
}

static void
on_accept(void *arg, int fd, unsigned events)
{
	struct gateway *g = arg;
	struct sockaddr_storage from;
	socklen_t n = sizeof(from);
	int client = accept(fd, (struct sockaddr *)(void *)&from, &n), one = 1;
	char peer[64] = "?";

	(void)events;
	if (client < 0) {
		if (errno == EMFILE || errno == ENFILE) {
			ev_fd_del(g->a->ev, fd);
			ev_timer_in(g->a->ev, &g->again, ACCEPT_PAUSE_US);
		}
		return;
	}
	IGNORE(getnameinfo((struct sockaddr *)(void *)&from, n, peer, sizeof(peer), NULL, 0, NI_NUMERICHOST) == 0 ? OK : ERR_IO);
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	conn_new(g, client, peer);
}

/* Every connection is a descriptor: as many as the system gives, less those that are kept for other work. */
static void
raise_limit(struct gateway *g)
{
	struct rlimit l;

	g->conns_max = GATEWAY_CONNS_MAX;
	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < GATEWAY_CONNS_MAX + FDS_KEPT * 2) {
		l.rlim_cur = l.rlim_max < GATEWAY_CONNS_MAX + FDS_KEPT * 2 ? l.rlim_max : GATEWAY_CONNS_MAX + FDS_KEPT * 2;
		if (setrlimit(RLIMIT_NOFILE, &l) != 0)
			log_warn(ME, "the limit of open files cannot be raised: %s", strerror(errno));
	}
	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < GATEWAY_CONNS_MAX + FDS_KEPT * 2) {
		g->conns_max = l.rlim_cur > FDS_KEPT * 3 ? (size_t)l.rlim_cur - FDS_KEPT * 2 : FDS_KEPT;
		log_warn(ME, "at most %zu connections: the limit of open files is %llu", g->conns_max,
		    (unsigned long long)l.rlim_cur);
	}
}

static bool
is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24 == 127;
	return sa->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static enum err
listen_on(struct gateway *g, const struct config *c, struct fail *f)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE },
	    *found = NULL;
	struct sockaddr_storage bound;
	socklen_t n = sizeof(bound);
	char port[16];
	int64_t number = config_i64(c, "gateway.port");
	int one = 1;

	snprintf(g->host, sizeof(g->host), "%.*s", STR_ARG(config_str(c, "gateway.host")));
	snprintf(port, sizeof(port), "%lld", (long long)number);
	if (getaddrinfo(strcmp(g->host, "localhost") == 0 ? "127.0.0.1" : g->host, port, &hints, &found) != 0)
		return fail_set(f, ERR_CONFIG, "gateway.host is \"%s\" (%s): wanted is a numeric address such as 127.0.0.1 or ::1;"
		    " next: `blufio config set gateway.host 127.0.0.1`", g->host, config_origin(c, "gateway.host"));
	g->is_public = !is_loopback(found->ai_addr);
	if (g->is_public && !config_bool(c, "gateway.allow_public")) {
		freeaddrinfo(found);
		return fail_set(f, ERR_CONFIG, "gateway.host is %s (%s), which others can reach, and what they send would not be"
		    " encrypted. Put a server that speaks TLS in front and keep 127.0.0.1, or, if that is what you want:"
		    " `blufio config set gateway.allow_public true`", g->host, config_origin(c, "gateway.host"));
	}
	g->fd = socket(found->ai_family, SOCK_STREAM, 0);
	if (g->fd < 0 || fd_cloexec(g->fd) != OK || fd_nonblock(g->fd) != OK ||
	    setsockopt(g->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(g->fd, found->ai_addr, found->ai_addrlen) != 0 || listen(g->fd, BACKLOG) != 0 ||
	    getsockname(g->fd, (struct sockaddr *)(void *)&bound, &n) != 0) {
		int why = errno;

		freeaddrinfo(found);
		return fail_set(f, why == EADDRINUSE || why == EACCES || why == EADDRNOTAVAIL ? ERR_CONFIG : ERR_IO,
		    "the gateway cannot listen on %s port %s (%s); next: %s", g->host, port, strerror(why),
		    why == EADDRINUSE ? "find who has it with `ss -ltnp`, or `blufio config set gateway.port 3001`" :
		    why == EACCES ? "`blufio config set gateway.port 3000`: ports below 1024 are the system's" :
		    "`blufio config set gateway.host 127.0.0.1`");
	}
	freeaddrinfo(found);
	number = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port :
	    ((struct sockaddr_in *)(void *)&bound)->sin_port);
	snprintf(g->address, sizeof(g->address), strchr(g->host, ':') ? "[%s]:%lld" : "%s:%lld", g->host, (long long)number);
	return OK;
}

/* ---- the channel ------------------------------------------------------------------------- */

static bool
gw_wanted(const struct config *c)
{
	return config_bool(c, "gateway.enabled");
}

static void
gw_free(void *self)
{
	struct gateway *g = self;

	while (g->conns)
		conn_free(g->conns);
	ev_timer_cancel(g->a->ev, &g->again);
	if (g->fd >= 0) {
		ev_fd_del(g->a->ev, g->fd);
		close(g->fd);
	}
	if (g->auth_self)
		g->auth->free(g->auth_self);
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
	g->fd = -1;
	g->tail = &g->conns;
	ev_timer_init(&g->again, listen_again, g);
	for (size_t i = 0; features[i] && !g->auth; i++)
		g->auth = features[i]->auth;
	e = g->auth ? g->auth->start(a, &g->auth_self, f) :
	    fail_set(f, ERR_CONFIG, "this build cannot tell who asks: the gateway needs an auth feature; next: `make FEATURES="
	    "\"gateway keypair\"`, or `blufio config set gateway.enabled false`");
	if (e == OK)
		e = listen_on(g, a->config, f);
	if (e != OK) {
		gw_free(g);
		return e;
	}
	raise_limit(g);
	log_info(ME, "listening on %s", g->address);
	*self = g;
	return OK;
}

static void
gw_load(void *self)
{
	struct gateway *g = self;

	if (!g->stopping)
		listen_again(g);
}

static void
gw_stop_intake(void *self)
{
	struct gateway *g = self;
	struct conn *next;

	g->stopping = true;
	ev_timer_cancel(g->a->ev, &g->again);
	ev_fd_del(g->a->ev, g->fd);
	for (struct conn *c = g->conns; c; c = next) {
		next = c->next;
		if (!c->req)
			conn_drop(c);
	}
}

/* The commit failed, or memory is made anew: what was not yet stored is answered so, the rest goes on waiting. */
static void
gw_reset(void *self)
{
	struct gateway *g = self;
	struct conn *next;

	for (struct conn *c = g->conns; c; c = next) {
		next = c->next;
		for (struct request *r = c->socket ? c->socket->subs : NULL, *more; r; r = more) {
			more = r->next;
			request_lost(r);
		}
		if (c->req)
			request_lost(c->req);
	}
}

/* Whoever waits for the turn that answers to this address. */
static bool
waits_for(const struct request *r, const struct target *to)
{
	return !r->c->dead && !r->answered && r->ref[0] && str_eqz(to->reply_to, r->ref) && str_eqz(to->chat, r->chat);
}

/* The reply to whoever waits for it, or else more of its text; false when nobody does. */
static bool
tell(struct gateway *g, const struct target *to, const struct outbox_item *item, const struct partial *p)
{
	bool told = false;

	for (struct conn *c = g->conns; c; c = c->next) /* a dropped one goes at the end of the loop turn */
		for (struct request *r = c->socket ? c->socket->subs : c->req, *more; r; r = more) {
			more = r->next;
			if (!r->attend || !waits_for(r, to))
				continue;
			told = told || !c->eof; /* it has said all; it may be gone as well */
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

	jw_kz(w, "address", g->address);
	jw_ki64(w, "connections", (int64_t)g->n_conns);
}

static const struct channel_ops ops = {
	.wanted = gw_wanted, .start = gw_start, .load = gw_load, .stop_intake = gw_stop_intake, .reset = gw_reset,
	.free = gw_free, .fetch = gw_fetch, .send = gw_send, .partial = gw_partial, .status = gw_status
};
const struct feature gateway_feature = {
	.name = ME, .kind = FEATURE_CHANNEL, .keys = keys, .channel = &ops,
	.summary = "HTTP gateway: programs talk to the agent, with keys of their own"
};
