/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * conn.c - one connection of the gateway: bytes to requests, answers to bytes.
 *
 * Requests are handled one after another. While one is in work what follows is
 * read ahead up to GATEWAY_IN_MAX and no further. Every wait has an end: for a
 * head, for a body, between requests, and for a client that takes no bytes.
 * A client that has said all it will say (it shut its side) still gets its answer.
 */
#include "channel/gateway/gateway.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_io(void *arg, int fd, unsigned events);

static void
tell_connections(struct gateway *g)
{
	metrics_level(g->a, METRIC_CONNECTIONS, CONNECTION_KNOWN, (int64_t)g->n_known);
	metrics_level(g->a, METRIC_CONNECTIONS, CONNECTION_STRANGER, (int64_t)(g->n_conns - g->n_known));
}

void
conn_known(struct conn *c)
{
	c->g->n_known += !c->known;
	c->known = true;
	tell_connections(c->g);
}

void
conn_free(struct conn *c)
{
	struct gateway *g = c->g;

	if (c->socket)
		socket_free(c);
	if (c->req)
		request_free(c->req);
	ev_fd_del(g->a->ev, c->fd);
	close(c->fd);
	ev_timer_cancel(g->a->ev, &c->timer);
	ev_timer_cancel(g->a->ev, &c->stall);
	ev_defer_cancel(&c->reap);
	ev_defer_cancel(&c->go);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	else
		g->tail = c->prev;
	g->n_conns--;
	g->n_known -= c->known;
	tell_connections(g);
	http_free(&c->http);
	buf_free(&c->in);
	buf_free(&c->out);
	free(c);
}

static void
on_reap(void *arg)
{
	conn_free(arg);
}

void
conn_drop(struct conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	ev_fd_del(c->g->a->ev, c->fd);
	ev_defer(c->g->a->ev, &c->reap);
}

void
conn_limit(struct conn *c, enum metric_limit l)
{
	if (!c->dead)
		metrics_count(c->g->a, METRIC_LIMITS, l);
	conn_drop(c);
}

static void
watch(struct conn *c)
{
	bool takes = !c->ends && c->out.n <= GATEWAY_OUT_HIGH && (!c->req || c->in.n < GATEWAY_IN_MAX);
	unsigned events = (!c->eof && (takes || c->lingers) ? EV_READ : 0u) | (c->out.n ? EV_WRITE : 0u);

	if (c->dead)
		return;
	if (events == 0)
		ev_fd_del(c->g->a->ev, c->fd);
	else if (ev_fd_set(c->g->a->ev, c->fd, events, on_io, c) != OK)
		conn_drop(c);
}

/* All is said. One that is closed while bytes of its client are unread is reset, and the client loses what it has
 * not read: so it is closed when the client has done so, or a little later. */
static void
linger(struct conn *c)
{
	if (c->eof || shutdown(c->fd, SHUT_WR) != 0) {
		conn_drop(c);
		return;
	}
	c->lingers = true;
	ev_timer_in(c->g->a->ev, &c->timer, GATEWAY_LINGER_US);
}

void
conn_flush(struct conn *c)
{
	struct agent *a = c->g->a;

	while (c->out.n && !c->dead) {
		ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);

		if (n > 0) {
			buf_drop(&c->out, (size_t)n);
			ev_timer_cancel(a->ev, &c->stall);
		} else if (errno == EINTR) {
			continue;
		} else {
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				conn_drop(c);
			break;
		}
	}
	if (c->out.err == ERR_LIMIT)
		conn_limit(c, REACHED_OUTPUT_BYTES);
	else if (c->out.err != OK)
		conn_drop(c);
	else if (c->ends && c->out.n == 0 && !c->lingers && !c->dead)
		linger(c);
	if (c->out.n == 0)
		buf_free(&c->out);
	if (c->out.n && !c->stall.prev)
		ev_timer_in(a->ev, &c->stall, GATEWAY_WRITE_US);
	if (c->out.n < GATEWAY_OUT_HIGH / 4) {
		if (c->in.n && (!c->req || c->socket) && !c->dead && !c->ends)  /* what it asked while it took nothing */
			ev_defer(a->ev, &c->go);
		if (c->req)
			request_pause(c->req, false);
		for (struct request *r = c->socket ? c->socket->subs : NULL; r; r = r->next)
			request_pause(r, false);
	}
	watch(c);
}

static void
on_time(void *arg)
{
	struct conn *c = arg;

	if (c->lingers) {
		conn_drop(c);
		return;
	}
	if (c->socket) {
		socket_tick(c);
		return;
	}
	if (c->req && !c->req->answered) {      /* the body did not come */
		metrics_count(c->req->a, METRIC_LIMITS, c->timed);
		c->req->closes = true;
		request_error(c->req, 408, "timeout", NULL, NULL, "the request's body did not arrive within %lld s",
		    (long long)(GATEWAY_BODY_US / US_PER_S));
		return;
	}
	conn_limit(c, c->timed);                /* idle, or a head that takes for ever: nobody to answer */
}

static void
on_stall(void *arg)
{
	conn_limit(arg, REACHED_WRITE_TIME);
}

static void
time_for(struct conn *c, enum metric_limit l, int64_t us)
{
	c->timed = l;
	ev_timer_in(c->g->a->ev, &c->timer, us);
}

/* Takes requests from what has been read, until one is in work or more bytes are needed. */
static void
pump(struct conn *c)
{
	struct str in = buf_view(&c->in), body;
	size_t before = in.n;
	struct ev *ev = c->g->a->ev;

	while (!c->dead && !c->ends && c->out.n <= GATEWAY_OUT_HIGH && !(c->req && (c->req->running || c->req->answered))) {
		enum http_event e = http_next(&c->http, &in, &body);

		if (e == HTTP_MORE) {
			if (!c->req && !http_idle(&c->http) && !c->in_head) {
				c->in_head = true;
				time_for(c, REACHED_HEAD_TIME, GATEWAY_HEAD_US);
			}
			break;
		}
		if (e == HTTP_BAD || e == HTTP_HEAD) {
			c->in_head = false;
			if (!c->req)            /* else its body is what is bad */
				c->req = request_new(c);
			if (!c->req) {
				conn_drop(c);
				break;
			}
		}
		if (e == HTTP_BAD && (c->http.status == 413 || c->http.status == 414 || c->http.status == 431))
			metrics_count(c->g->a, METRIC_LIMITS, c->http.status == 413 ? REACHED_BODY_BYTES : REACHED_HEAD_BYTES);
		if (e == HTTP_BAD) {
			c->req->closes = true;
			request_error(c->req, c->http.status, "invalid_request", NULL, NULL, "%s", c->http.why);
		} else if (e == HTTP_HEAD) {
			time_for(c, REACHED_BODY_TIME, GATEWAY_BODY_US);
			if (request_admit(c->req) && c->http.req.expect_continue &&
			    (c->http.req.chunked || c->http.req.content_length > 0)) {
				http_put_status(&c->out, 100);
				http_put_end(&c->out);
				conn_flush(c);
			}
		} else if (c->req && e == HTTP_BODY) {
			buf_str(&c->req->body, body);
			if (c->req->who.hashed)
				sha256_update(&c->req->sha, body.p, body.n);
			if (c->req->body.err == ERR_LIMIT)
				request_too_large(c->req);
		} else if (c->req) {            /* else the end of one that was answered by its head */
			ev_timer_cancel(ev, &c->timer);
			c->req->running = true;
			request_run(c->req);
		}
	}
	buf_drop(&c->in, before - in.n);
	if (c->eof && c->req && !c->req->running && !c->req->answered && !c->dead)
		request_error(c->req, 400, "invalid_request", NULL, NULL, "the request ended before its body did");
	if (c->eof && c->req && c->req->call) { /* a call that nobody waits for costs no more */
		conn_drop(c);
	} else if (c->eof && !c->req) { /* nothing more is asked, but what was answered still goes */
		c->ends = true;
		conn_flush(c);
	} else {
		watch(c);
	}
}

static void
on_go(void *arg)
{
	struct conn *c = arg;

	if (c->socket)
		socket_pump(c);
	else
		pump(c);
	if (c->in.p && c->in.n == 0 && c->in.err == OK) {        /* whoever has nothing unread needs no buffer */
		buf_free(&c->g->spare);
		c->g->spare = c->in;
		buf_init(&c->in, c->in.max);
	}
}

/* The request is answered; the connection takes the next one, or ends. */
void
conn_next(struct conn *c)
{
	struct request *r = c->req;

	if (r->closes || c->eof || c->g->stopping)
		c->ends = true;
	c->req = NULL;
	request_free(r);
	time_for(c, REACHED_IDLE_TIME, GATEWAY_IDLE_US);
	if (!c->ends)
		ev_defer(c->g->a->ev, &c->go);
	conn_flush(c);
}

static void
on_read(struct conn *c)
{
	char *room;
	ssize_t n;

	if (!c->in.p) {
		c->in = c->g->spare;
		buf_init(&c->g->spare, c->in.max);
	}
	room = buf_room(&c->in, GATEWAY_READ);
	n = room ? read(c->fd, room, GATEWAY_READ) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (n < 0 || !room || (n == 0 && c->lingers)) {
		conn_drop(c);
		return;
	}
	if (c->lingers)
		return;
	if (n == 0)
		c->eof = true;
	c->in.n += (size_t)n;
	on_go(c);
	if (c->in.n == 0)               /* most connections are silent most of the time */
		buf_free(&c->in);
}

static void
on_io(void *arg, int fd, unsigned events)
{
	struct conn *c = arg;

	(void)fd;
	if ((events & EV_READ) && !c->eof)
		on_read(c);
	if (!c->dead && (events & EV_WRITE))
		conn_flush(c);
}

/* The oldest without a request in work, so without a whole head: of those without a credential, of one peer, of all. */
static struct conn *
oldest(const struct gateway *g, bool strangers, const char *peer)
{
	struct conn *c = g->conns;

	while (c && (c->req || c->dead || (strangers && c->known) || (peer && strcmp(peer, c->peer) != 0)))
		c = c->next;
	return c;
}

static bool
evict(struct gateway *g, enum metric_limit l, struct conn *c)
{
	metrics_count(g->a, METRIC_LIMITS, l);
	if (c)
		conn_free(c);
	return c != NULL;
}

/* May there be one more? At a limit another makes room for it. */
static bool
make_room(struct gateway *g, int fd, const char *peer, bool local)
{
	size_t same = 0;

	for (struct conn *c = local ? NULL : g->conns; c; c = c->next)
		same += strcmp(c->peer, peer) == 0;
	if (same >= g->conns_max / GATEWAY_PEER_PART)
		return evict(g, REACHED_PEER, oldest(g, false, peer));
	if (g->n_conns - g->n_known >= g->conns_max / GATEWAY_STRANGERS_PART)
		return evict(g, REACHED_STRANGERS, oldest(g, true, NULL));
	if (g->n_conns >= g->conns_max || fd >= g->fd_end)
		return evict(g, fd >= g->fd_end ? REACHED_DESCRIPTORS : REACHED_CONNECTIONS,
		    oldest(g, true, NULL) ? oldest(g, true, NULL) : oldest(g, false, NULL));
	return true;
}

/* The same under the number that one which made room left: the last ones are for other work. */
static int
lower(int fd)
{
	int low = fcntl(fd, F_DUPFD, 0);

	close(fd);
	return low;
}

/* Takes fd. */
void
conn_new(const struct listener *l, int fd, const char *peer, bool local)
{
	struct gateway *g = l->g;
	struct conn *c = make_room(g, fd, peer, local) ? calloc(1, sizeof(*c)) : NULL;

	if (c && fd >= g->fd_end)
		fd = lower(fd);
	if (!c || fd < 0 || fd >= g->fd_end || fd_nonblock(fd) != OK || fd_cloexec(fd) != OK) {
		log_debug("gateway", "a connection of %s was refused", peer);    /* a crowd would fill the log; it is counted */
		free(c);
		if (fd >= 0)
			close(fd);
		return;
	}
	c->g = g;
	c->at = l;
	c->local = local;
	c->fd = fd;
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	http_init(&c->http, BODY_MAX_FILES);    /* a route may take less */
	buf_init(&c->in, GATEWAY_IN_MAX + GATEWAY_READ);
	buf_init(&c->out, GATEWAY_OUT_MAX);
	ev_timer_init(&c->timer, on_time, c);
	ev_timer_init(&c->stall, on_stall, c);
	ev_defer_init(&c->reap, on_reap, c);
	ev_defer_init(&c->go, on_go, c);
	c->prev = g->tail;
	*g->tail = c;
	g->tail = &c->next;
	g->n_conns++;
	tell_connections(g);
	time_for(c, REACHED_HEAD_TIME, GATEWAY_HEAD_US);
	watch(c);
}
