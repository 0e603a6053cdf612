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
#include <sys/socket.h>
#include <unistd.h>

static void on_io(void *arg, int fd, unsigned events);

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

static void
watch(struct conn *c)
{
	unsigned events = (!c->eof && !c->ends && c->out.n <= GATEWAY_OUT_HIGH && (!c->req || c->in.n < GATEWAY_IN_MAX) ? EV_READ : 0u) |
	    (c->out.n ? EV_WRITE : 0u);

	if (c->dead)
		return;
	if (events == 0)
		ev_fd_del(c->g->a->ev, c->fd);
	else if (ev_fd_set(c->g->a->ev, c->fd, events, on_io, c) != OK)
		conn_drop(c);
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
	if (c->out.err != OK || (c->ends && c->out.n == 0))
		conn_drop(c);
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

	if (c->socket) {
		socket_tick(c);
		return;
	}
	if (c->req && !c->req->answered) {      /* the body did not come */
		c->req->closes = true;
		request_error(c->req, 408, "timeout", NULL, NULL, "the request's body did not arrive within %lld s",
		    (long long)(GATEWAY_BODY_US / US_PER_S));
		return;
	}
	conn_drop(c);                           /* idle, or a head that takes for ever: nobody to answer */
}

static void
on_stall(void *arg)
{
	conn_drop(arg);
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
				ev_timer_in(ev, &c->timer, GATEWAY_HEAD_US);
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
		if (e == HTTP_BAD) {
			c->req->closes = true;
			request_error(c->req, c->http.status, "invalid_request", NULL, NULL, "%s", c->http.why);
		} else if (e == HTTP_HEAD) {
			ev_timer_in(ev, &c->timer, GATEWAY_BODY_US);
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
				request_error(c->req, 413, "too_large", NULL, NULL, "the body is too large");
		} else if (c->req) {            /* else the end of one that was answered by its head */
			ev_timer_cancel(ev, &c->timer);
			c->req->running = true;
			request_run(c->req);
		}
	}
	buf_drop(&c->in, before - in.n);
	if (c->eof && c->req && !c->req->running && !c->req->answered && !c->dead)
		request_error(c->req, 400, "invalid_request", NULL, NULL, "the request ended before its body did");
	if (c->eof && !c->ends && (!c->req || c->req->call))    /* a call that nobody waits for costs no more */
		conn_drop(c);
	else
		watch(c);
}

static void
on_go(void *arg)
{
	struct conn *c = arg;

	if (c->socket)
		socket_pump(c);
	else
		pump(c);
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
	ev_timer_in(c->g->a->ev, &c->timer, GATEWAY_IDLE_US);
	if (!c->ends)
		ev_defer(c->g->a->ev, &c->go);
	conn_flush(c);
}

static void
on_read(struct conn *c)
{
	char *room = buf_room(&c->in, 16384);
	ssize_t n = room ? read(c->fd, room, 16384) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (n < 0 || !room) {
		conn_drop(c);
		return;
	}
	if (n == 0)
		c->eof = true;
	c->in.n += (size_t)n;
	on_go(c);
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

/* One that has not said a whole request for longest makes room. */
static bool
make_room(struct gateway *g)
{
	for (struct conn *c = g->conns; c && g->n_conns >= g->conns_max; c = c->next)
		if (!c->req && !c->dead) {
			conn_free(c);
			return true;
		}
	return g->n_conns < g->conns_max;
}

/* Takes fd. */
void
conn_new(struct gateway *g, int fd, const char *peer)
{
	struct conn *c = make_room(g) ? calloc(1, sizeof(*c)) : NULL;

	if (!c || fd_nonblock(fd) != OK || fd_cloexec(fd) != OK) {
		log_warn("gateway", "a connection of %s was refused", peer);
		free(c);
		close(fd);
		return;
	}
	c->g = g;
	c->fd = fd;
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	http_init(&c->http, BODY_MAX_FILES);    /* a route may take less */
	buf_init(&c->in, GATEWAY_IN_MAX + 16384);
	buf_init(&c->out, GATEWAY_OUT_MAX);
	ev_timer_init(&c->timer, on_time, c);
	ev_timer_init(&c->stall, on_stall, c);
	ev_defer_init(&c->reap, on_reap, c);
	ev_defer_init(&c->go, on_go, c);
	c->prev = g->tail;
	*g->tail = c;
	g->tail = &c->next;
	g->n_conns++;
	ev_timer_in(g->a->ev, &c->timer, GATEWAY_HEAD_US);
	watch(c);
}
