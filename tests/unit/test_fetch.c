/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_fetch.c - the HTTP client against a server that lives on the same loop.
 *
 * One loop for both sides makes the order of things certain: the server sends
 * the next piece when the client's callback says that it has the one before.
 * The path of a request chooses what the server does (see respond()). It uses
 * sendto and recvfrom because faults are not injected into these: it is not
 * what is tested here.
 */
#include "base/fetch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

#define WAIT_US (10 * US_PER_S)
#define BIG ((size_t)1 << 20)

/* ---- the server -------------------------------------------------------------- */

struct server {
	struct ev *ev;
	int fd;
	unsigned port;
	struct conn *conns, *held;            /* held: the last one told to wait */
	int accepted, requests;
};
struct conn {
	struct server *s;
	struct conn *next;
	int fd;
	size_t served;                        /* requests answered on this connection */
	struct buf in, out;
	bool close_after;
};

static void
conn_close(struct conn *c)
{
	struct conn **p;

	for (p = &c->s->conns; *p != c; p = &(*p)->next)
		continue;
	*p = c->next;
	if (c->s->held == c)
		c->s->held = NULL;
	ev_fd_del(c->s->ev, c->fd);
	close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
	free(c);
}

static void conn_ready(void *arg, int fd, unsigned events);

static void
conn_send(struct conn *c, const char *text)
{
	buf_puts(&c->out, text);
	if (ev_fd_set(c->s->ev, c->fd, EV_READ | EV_WRITE, conn_ready, c) != OK)
		conn_close(c);
}

static void
conn_reset(struct conn *c)
{
	struct linger now = { 1, 0 };

	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	conn_close(c);
}

static void
respond(struct conn *c, struct str method, struct str path, struct str body)
{
	char head[200];
	int i;

	c->s->requests++;
	c->served++;
	if (str_eqz(path, "/hello")) {
		conn_send(c, "HTTP/1.1 200 OK\r\nX-One: 1\r\nx-two:  b \r\nX-TWO: c\r\n"
		    "Content-Length: 5\r\n\r\nhello");
	} else if (str_eqz(path, "/echo")) {
		snprintf(head, sizeof(head), "HTTP/1.1 201 Made\r\nX-Method: %.*s\r\n"
		    "Content-Length: %zu\r\n\r\n", STR_ARG(method), body.n);
		buf_puts(&c->out, head);
		buf_str(&c->out, body);
		conn_send(c, "");
	} else if (str_eqz(path, "/stream")) {
		c->s->held = c;
		conn_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
	} else if (str_eqz(path, "/hold")) {
		c->s->held = c;
	} else if (str_eqz(path, "/drop")) {
		conn_close(c);
	} else if (str_eqz(path, "/reset")) {
		c->s->held = c;
		conn_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
	} else if (str_eqz(path, "/big")) {
		snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", BIG);
		buf_puts(&c->out, head);
		for (size_t n = 0; n < BIG; n += 16)
			buf_puts(&c->out, "0123456789abcdef");
		conn_send(c, "");
	} else if (str_eqz(path, "/interim")) {
		conn_send(c, "HTTP/1.1 100 Continue\r\n\r\n"
		    "HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n"
		    "HTTP/1.1 404 No\r\nX-Real: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
		    "2\r\nno\r\n0\r\nX-Two: trailer\r\n\r\n");
	} else if (str_eqz(path, "/headers")) {
		buf_puts(&c->out, "HTTP/1.1 204 None\r\n");
		for (i = 0; i < 2 * FETCH_HEADER_MAX; i++) {
			snprintf(head, sizeof(head), "X-%d: %d\r\n", i, i);
			buf_puts(&c->out, head);
		}
		conn_send(c, "\r\n");
	} else {
		c->close_after = true;
		conn_send(c, "SSH-2.0-nonsense\r\n");
	}
}

/* Takes one whole request out of c->in, if there is one. */
static void
conn_parse(struct conn *c)
{
	struct str all = buf_view(&c->in), head, body, method, line, key;
	size_t end = str_find(all, S("\r\n\r\n")), need;
	int64_t length = 0;

	if (end == SIZE_MAX) {
		if (all.n && (unsigned char)all.p[0] == 0x16) {   /* a TLS greeting */
			buf_reset(&c->in);
			c->close_after = true;
			conn_send(c, "HTTP/1.1 400 Bad\r\n\r\n");
		}
		return;
	}
	head = str_sub(all, 0, end);
	str_cut(&head, ' ', &method);
	str_cut(&head, ' ', &line);
	while (head.n) {
		struct str l;

		str_cut(&head, '\n', &l);
		if (str_cut(&l, ':', &key) && str_ieq(key, S("Content-Length")) &&
		    str_i64(str_trim(l), 0, 1 << 30, &length) != OK)
			length = 0;
		CHECK(!str_ieq(key, S("Expect")) && !str_ieq(key, S("Accept-Encoding")));
	}
	need = end + 4 + (size_t)length;
	if (all.n < need)
		return;
	body = str_sub(all, end + 4, (size_t)length);
	c->in.n = 0;                          /* the client waits for the answer: nothing follows */
	respond(c, method, line, body);
}

static void
conn_ready(void *arg, int fd, unsigned events)
{
	struct conn *c = arg;
	char *room;
	ssize_t n;

	if ((events & EV_WRITE) && c->out.n > 0) {
		n = sendto(fd, c->out.p, c->out.n, MSG_NOSIGNAL, NULL, 0);
		if (n > 0)
			buf_drop(&c->out, (size_t)n);
		if ((n < 0 && errno != EAGAIN) || (c->out.n == 0 && c->close_after)) {
			conn_close(c);
			return;
		}
	}
	if (ev_fd_set(c->s->ev, fd, EV_READ | (c->out.n ? EV_WRITE : 0u), conn_ready, c) != OK) {
		conn_close(c);
		return;
	}
	if (!(events & EV_READ))
		return;
	room = buf_room(&c->in, 65536);
	n = room ? recvfrom(fd, room, 65536, 0, NULL, NULL) : -1;
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			conn_close(c);
		return;
	}
	c->in.n += (size_t)n;
	conn_parse(c);
}

static void
server_ready(void *arg, int fd, unsigned events)
{
	struct server *s = arg;
	struct conn *c = calloc(1, sizeof(*c));
	int got = accept(fd, NULL, NULL);
	int small = 16 << 10;                 /* so that a client that does not read is felt */

	(void)events;
	setsockopt(got, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (c == NULL || got < 0 || fd_nonblock(got) != OK ||
	    ev_fd_set(s->ev, got, EV_READ, conn_ready, c) != OK) {
		free(c);
		if (got >= 0)
			close(got);
		return;
	}
	s->accepted++;
	c->s = s;
	c->fd = got;
	buf_init(&c->in, 4 * BIG);
	buf_init(&c->out, 4 * BIG);
	c->next = s->conns;
	s->conns = c;
}

static void
server_close(struct server *s)
{
	while (s->conns)
		conn_close(s->conns);
	if (s->fd >= 0) {
		ev_fd_del(s->ev, s->fd);
		close(s->fd);
	}
	s->fd = -1;
}

static bool
server_open(struct server *s, struct ev *ev)
{
	struct sockaddr_in in;
	socklen_t n = sizeof(in);

	memset(s, 0, sizeof(*s));
	s->ev = ev;
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	memset(&in, 0, sizeof(in));
	in.sin_family = AF_INET;
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&in, n) != 0 || listen(s->fd, 64) != 0 ||
	    getsockname(s->fd, (struct sockaddr *)&in, &n) != 0 ||
	    ev_fd_set(ev, s->fd, EV_READ, server_ready, s) != OK) {
		server_close(s);
		return false;
	}
	s->port = ntohs(in.sin_port);
	return true;
}

/* ---- the client ------------------------------------------------------------------- */

struct rig {
	struct ev *ev;
	struct server s;
	struct fetch *f;
};
enum at { NEVER, AT_HEAD, AT_DATA, AT_DONE };
struct call {
	struct rig *r;
	struct fetch_op *op;
	struct buf body;
	int heads, datas, dones;
	unsigned head_status;
	struct fetch_result res;
	char why[256], two[32];
	enum at cancel, pause;
	struct call *also_cancel, *also_start;
	bool feed;                            /* each piece makes the server send the next */
	size_t pieces;
};

static bool call_start(struct call *c, const char *path, struct fetch_req *req);

static void
act_at(struct call *c, enum at now)
{
	struct fetch_req req = { .method = "GET" };

	if (c->pause == now)
		fetch_pause(c->op, true);
	if (c->also_cancel) {
		fetch_cancel(c->also_cancel->op);
		c->also_cancel = NULL;
	}
	if (c->also_start) {
		CHECK(call_start(c->also_start, "/hello", &req));
		c->also_start = NULL;
	}
	if (c->cancel == now)
		fetch_cancel(c->op);
}

static void
on_head(void *arg, struct fetch_op *op, unsigned status)
{
	struct call *c = arg;

	CHECK(op == c->op && c->datas == 0 && c->dones == 0);
	c->heads++;
	c->head_status = status;
	act_at(c, AT_HEAD);
}

static void
on_data(void *arg, struct fetch_op *op, struct str bytes)
{
	struct call *c = arg;
	struct conn *held = c->r->s.held;

	CHECK(op == c->op && c->heads == 1 && c->dones == 0);
	c->datas++;
	buf_str(&c->body, bytes);
	if (c->feed && held && c->pieces > 0)
		conn_send(held, --c->pieces ? "4\r\nmore\r\n" : "0\r\n\r\n");
	act_at(c, AT_DATA);
}

static void
on_done(void *arg, struct fetch_op *op, const struct fetch_result *res)
{
	struct call *c = arg;

	CHECK(op == c->op);
	c->dones++;
	c->res = *res;
	snprintf(c->why, sizeof(c->why), "%s", res->why);
	snprintf(c->two, sizeof(c->two), "%.*s", STR_ARG(fetch_header(op, "X-Two")));
	act_at(c, AT_DONE);
	c->op = NULL;
}

static const struct fetch_cb callbacks = { on_head, on_data, on_done };

static void
call_init(struct call *c, struct rig *r)
{
	memset(c, 0, sizeof(*c));
	c->r = r;
	buf_init(&c->body, 4 * BIG);
}

/* path: of our server, or a whole URL. */
static bool
call_start(struct call *c, const char *path, struct fetch_req *req)
{
	char url[200];
	enum err e;

	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", c->r->s.port, path);
	req->url = path[0] == '/' ? url : path;
	e = fetch_start(c->r->f, req, &callbacks, c, &c->op);
	CHECK_OK(e);
	CHECK(c->dones == 0);
	return e == OK;
}

static bool
rig_up(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	r->s.fd = -1;
	CHECK_OK(ev_new(&r->ev));
	if (r->ev == NULL)
		return false;
	CHECK_OK(fetch_new(r->ev, "test/1", &r->f));
	if (r->f) {
		if (server_open(&r->s, r->ev))
			return true;
		CHECK(r->s.fd >= 0);
	}
	fetch_free(r->f);
	ev_free(r->ev);
	return false;
}

static void
rig_down(struct rig *r)
{
	fetch_free(r->f);
	server_close(&r->s);
	ev_free(r->ev);
}

static void
spin(struct rig *r, int64_t us)
{
	int64_t end = clock_mono_us() + us;

	while (clock_mono_us() < end)
		if (ev_once(r->ev, 5 * US_PER_MS) != OK)
			return;
}

/* Turns until *what reaches n; long faults end by the time limit. */
static void
until(struct rig *r, const int *what, int n)
{
	int64_t end = clock_mono_us() + (FAULTED() ? US_PER_S : WAIT_US);

	while (*what < n && clock_mono_us() < end)
		if (ev_once(r->ev, 20 * US_PER_MS) != OK)
			return;
	CHECK(*what >= n);
}

/* Starts, waits for the end. */
static void
call(struct call *c, const char *path, struct fetch_req *req)
{
	c->heads = c->datas = c->dones = 0;
	buf_reset(&c->body);
	if (call_start(c, path, req))
		until(c->r, &c->dones, 1);
}

/* ---- tests ----------------------------------------------------------------------------- */

TEST(get_and_headers)
{
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "GET" };
	int i;

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	for (i = 0; i < 5; i++) {             /* one connection does for all */
		call(&c, "/hello", &req);
		CHECK(c.dones == 1 && c.heads == 1 && c.res.err == OK && c.res.sent);
		CHECK(c.res.status == 200 && c.head_status == 200 && c.why[0] == '\0');
		CHECK_STR(buf_view(&c.body), "hello");
		CHECK(strcmp(c.two, "c") == 0);
	}
	CHECK(r.s.accepted == 1 && r.s.requests == 5);
	call(&c, "/interim", &req);
	CHECK(c.heads == 1 && c.head_status == 404 && c.res.status == 404 && c.res.err == OK);
	CHECK_STR(buf_view(&c.body), "no");
	CHECK(c.two[0] == '\0');              /* trailers are not headers */
	call(&c, "/headers", &req);
	CHECK(c.res.err == OK && c.res.status == 204 && c.datas == 0);
	CHECK(fetch_running(r.f) == 0 && fetch_version()[0] != '\0');
	buf_free(&c.body);
	rig_down(&r);
}

TEST(bodies_and_methods)
{
	static const char *const headers[] = { "Content-Type: text/x", "X-A: b", NULL };
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "POST", .headers = headers, .body = S("payload") };
	struct buf big = BUF_INIT(BIG + 8);   /* where libcurl would begin to ask with Expect */
	size_t i;

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	call(&c, "/echo", &req);
	CHECK(c.res.err == OK && c.res.status == 201);
	CHECK_STR(buf_view(&c.body), "payload");
	req.method = "PUT";
	call(&c, "/echo", &req);
	CHECK_STR(buf_view(&c.body), "payload");
	req.method = "POST";
	req.body = STR_NONE;
	call(&c, "/echo", &req);
	CHECK(c.res.err == OK && c.body.n == 0);
	req.method = "DELETE";
	call(&c, "/echo", &req);
	CHECK(c.res.err == OK && c.res.status == 201);
	for (i = 0; i <= BIG / 8; i++)
		buf_puts(&big, "12345678");
	req.method = "POST";
	req.body_take = &big;
	if (big.err == OK) {
		call(&c, "/echo", &req);
		CHECK(big.p == NULL && big.n == 0);
		CHECK(c.body.n == BIG + 8 && str_starts(buf_view(&c.body), S("1234567812")));
	}
	buf_free(&big);
	buf_free(&c.body);
	rig_down(&r);
}

TEST(stream_piece_by_piece)
{
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "GET" };

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	c.feed = true;
	c.pieces = 5;                         /* the server never sends ahead of on_data */
	call(&c, "/stream", &req);
	CHECK(c.res.err == OK && c.datas == 5);
	CHECK_STR(buf_view(&c.body), "onemoremoremoremore");
	buf_free(&c.body);
	rig_down(&r);
}

TEST(pause_and_resume)
{
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "GET", .idle_us = US_PER_S };
	size_t before;
	enum at at;

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	for (at = AT_HEAD; at <= AT_DATA; at++) {
		c.pause = at;
		c.heads = c.datas = c.dones = 0;
		buf_reset(&c.body);
		if (!call_start(&c, "/big", &req))
			break;
		until(&r, at == AT_HEAD ? &c.heads : &c.datas, 1);
		before = c.body.n;
		spin(&r, 200 * US_PER_MS);
		CHECK(r.s.conns && r.s.conns->out.n > 0);     /* the server feels it (until the kernel's buffers have grown) */
		spin(&r, US_PER_S);     /* longer than idle: a pause is not idleness */
		CHECK(c.body.n == before && c.dones == 0 && before < BIG);
		c.pause = NEVER;
		if (c.op) {
			fetch_pause(c.op, false);
			CHECK(c.body.n == before);            /* not from inside fetch_pause */
			until(&r, &c.dones, 1);
			CHECK(c.res.err == OK && c.body.n == BIG);
		}
	}
	if (c.op)
		fetch_cancel(c.op);
	buf_free(&c.body);
	rig_down(&r);
}

TEST(cancel_anywhere)
{
	struct rig r;
	struct call c, other, late;
	struct fetch_req req = { .method = "GET" };
	enum at at;

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	call_init(&other, &r);
	call_init(&late, &r);
	for (at = AT_HEAD; at <= AT_DONE; at++) {
		c.cancel = at;
		c.heads = c.datas = c.dones = 0;
		if (!call_start(&c, "/hello", &req))
			break;
		until(&r, at == AT_HEAD ? &c.heads : at == AT_DATA ? &c.datas : &c.dones, 1);
		spin(&r, 30 * US_PER_MS);
		CHECK(c.heads == 1 && c.datas == (at > AT_HEAD) && c.dones == (at == AT_DONE));
		CHECK(fetch_running(r.f) == 0);
	}
	c.cancel = NEVER;                     /* before libcurl has heard of it, and after */
	c.heads = c.dones = 0;
	if (call_start(&c, "/hello", &req))
		fetch_cancel(c.op);
	if (call_start(&c, "/hold", &req)) {
		spin(&r, 30 * US_PER_MS);
		fetch_cancel(c.op);
	}
	spin(&r, 30 * US_PER_MS);
	CHECK(c.heads == 0 && c.dones == 0 && fetch_running(r.f) == 0);
	if (call_start(&other, "/hold", &req)) {      /* from a callback of another op */
		c.also_cancel = &other;
		c.also_start = &late;
		call(&c, "/hello", &req);
		until(&r, &late.dones, 1);
		CHECK(c.res.err == OK && other.dones == 0 && late.res.err == OK);
	}
	CHECK(fetch_running(r.f) == 0);
	fetch_cancel(NULL);
	c.dones = other.dones = 0;            /* fetch_free cancels what runs */
	if (call_start(&c, "/hold", &req))
		spin(&r, 10 * US_PER_MS);
	CHECK(call_start(&other, "/hello", &req));
	buf_free(&late.body);
	rig_down(&r);
	CHECK(c.dones == 0 && other.dones == 0);
	buf_free(&c.body);
	buf_free(&other.body);
}

TEST(timeouts)
{
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "GET", .idle_us = 80 * US_PER_MS };
	int64_t start;
	uint64_t turns;

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	start = clock_mono_us();
	turns = ev_turns(r.ev);
	call(&c, "/hold", &req);
	CHECK(c.res.err == ERR_TIMEOUT && c.res.sent && c.res.status == 0);
	CHECK(clock_mono_us() - start >= 80 * US_PER_MS);
	CHECK(strcmp(c.why, "127.0.0.1 stopped answering (no byte for 1 s)") == 0 || FAULTED());
	CHECK(ev_turns(r.ev) - turns < 40);   /* and slept meanwhile */
	call(&c, "/stream", &req);            /* in mid-body too */
	CHECK(c.res.err == ERR_TIMEOUT && c.res.status == 200 && c.datas == 1);
	req.idle_us = 0;
	req.total_us = 80 * US_PER_MS;
	call(&c, "/stream", &req);
	CHECK(c.res.err == ERR_TIMEOUT && c.res.sent);
	CHECK(strcmp(c.why, "127.0.0.1 did not finish within 1 s") == 0 || FAULTED());
	req.total_us = 0;
	call(&c, "/hello", &req);             /* no timer is left behind */
	turns = ev_turns(r.ev);
	if (!FAULTED() && ev_once(r.ev, 0) == OK && ev_once(r.ev, 100 * US_PER_MS) == OK)
		CHECK(ev_now(r.ev) - start > 100 * US_PER_MS && ev_turns(r.ev) - turns == 2);
	CHECK(c.res.err == OK && fetch_running(r.f) == 0);
	buf_free(&c.body);
	rig_down(&r);
}

/* A label of 64 letters, one more than a name may have: no resolver asks for it. */
#define LABEL "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffgggggggghhhhhhhh"

TEST(failures)
{
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "POST", .body = S("x") };
	char url[64];

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	call(&c, "/drop", &req);
	CHECK(c.res.err == ERR_CLOSED && c.res.sent && c.heads == 0 && c.res.status == 0);
	CHECK(strcmp(c.why, "127.0.0.1 closed the connection without an answer") == 0 || FAULTED());
	c.heads = c.datas = c.dones = 0;
	if (call_start(&c, "/reset", &req)) {
		until(&r, &c.datas, 1);
		if (r.s.held)
			conn_reset(r.s.held);
		until(&r, &c.dones, 1);
	}
	CHECK(c.res.err == ERR_CLOSED && c.res.sent && c.heads == 1 && c.res.status == 200);
	call(&c, "/nonsense", &req);
	CHECK(c.res.err == ERR_PROTO && c.res.sent);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/s3cret", r.s.port);
	call(&c, url, &req);
	CHECK(c.res.err == ERR_PROTO && !c.res.sent);
	CHECK(strcmp(c.why, "TLS with 127.0.0.1 failed") == 0 || FAULTED());
	req.body_max = BIG - 1;
	call(&c, "/big", &req);
	CHECK(c.res.err == ERR_LIMIT && c.res.status == 200 && c.body.n < BIG);
	req.body_max = BIG;
	call(&c, "/big", &req);
	CHECK(c.res.err == OK && c.body.n == BIG);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/s3cret", r.s.port);
	server_close(&r.s);
	call(&c, url, &req);                  /* refused */
	CHECK(c.res.err == ERR_CLOSED && !c.res.sent && c.heads == 0);
	CHECK(strcmp(c.why, "cannot connect to 127.0.0.1") == 0 || FAULTED());
	call(&c, "https://" LABEL "/s3cret", &req);
	CHECK(c.res.err == ERR_NOTFOUND && !c.res.sent);
	CHECK(strcmp(c.why, "cannot resolve " LABEL) == 0 || FAULTED());
	buf_free(&c.body);
	rig_down(&r);
}

/* What fetch.h says of no_reuse: libcurl repeats on a kept connection, and only there. */
TEST(kept_connection_dies)
{
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "POST", .body = S("x") };

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	call(&c, "/echo", &req);
	call(&c, "/drop", &req);
	CHECK(c.res.err == ERR_CLOSED && c.res.sent && r.s.requests == 3);
	call(&c, "/echo", &req);
	req.no_reuse = true;
	call(&c, "/drop", &req);
	CHECK(c.res.err == ERR_CLOSED && c.res.sent && r.s.requests == 5);
	req.no_reuse = false;                 /* closed by the server while nobody looked */
	call(&c, "/echo", &req);
	while (r.s.conns)
		conn_close(r.s.conns);
	call(&c, "/echo", &req);
	CHECK(c.res.err == OK && r.s.requests == 7);
	buf_free(&c.body);
	rig_down(&r);
}

TEST(refused_at_once)
{
	static const struct { const char *method, *url, *header; enum err want; } bad[] = {
		{ "GET", "http://example.com/", NULL, ERR_DENIED },
		{ "GET", "http://127.0.0.1.example.com/", NULL, ERR_DENIED },
		{ "GET", "http://localhost@example.com/", NULL, ERR_PARSE },
		{ "GET", "https://user:pw@example.com/", NULL, ERR_PARSE },
		{ "GET", "http://example.com#@localhost/", NULL, ERR_PARSE },
		{ "GET", "ftp://localhost/x", NULL, ERR_PARSE },
		{ "GET", "file:///etc/passwd", NULL, ERR_PARSE },
		{ "GET", "gopher://localhost/", NULL, ERR_PARSE },
		{ "GET", "nonsense", NULL, ERR_PARSE },
		{ "GET", "", NULL, ERR_PARSE },
		{ "GET", "http://localhost:99999/", NULL, ERR_PARSE },
		{ "GET", "http://localhost/\r\nX: y", NULL, ERR_PARSE },
		{ "GET /x", "http://localhost/", NULL, ERR_PARSE },
		{ "GET", "http://localhost/", "X: y\r\nZ: w", ERR_DENIED },
	};
	const char *headers[2] = { NULL, NULL };
	struct rig r;
	struct call c;
	struct fetch_req req = { .headers = headers };
	struct buf body = BUF_INIT(100);
	enum err e;
	size_t i;

	if (!rig_up(&r))
		return;
	call_init(&c, &r);
	buf_puts(&body, "kept");
	req.body_take = &body;
	for (i = 0; i < ARRAY_LEN(bad) && body.err == OK; i++) {
		req.method = bad[i].method;
		req.url = bad[i].url;
		headers[0] = bad[i].header;
		e = fetch_start(r.f, &req, &callbacks, &c, &c.op);
		CHECK_ERR(e, bad[i].want);
		if (e != bad[i].want && !FAULTED())
			printf("  %s\n", bad[i].url);
		CHECK(c.op == NULL && fetch_running(r.f) == 0);
		CHECK_STR(buf_view(&body), "kept");   /* not taken */
	}
	spin(&r, 0);
	CHECK(c.dones == 0);
	buf_free(&body);
	rig_down(&r);
}

TEST(many_at_once)
{
	static struct call c[64];
	struct rig r;
	struct fetch_req req = { .method = "GET" };
	int i, ok = 0;

	if (!rig_up(&r))
		return;
	for (i = 0; i < 64; i++) {
		call_init(&c[i], &r);
		if (call_start(&c[i], "/hello", &req))
			ok++;
	}
	CHECK(ok == 64 && fetch_running(r.f) == 64);
	for (i = 0; i < 64; i++) {
		if (c[i].op)
			until(&r, &c[i].dones, 1);
		CHECK(c[i].res.err == OK && c[i].body.n == 5);
	}
	fetch_free(r.f);
	for (i = 0; i < 64; i++)
		buf_free(&c[i].body);
	server_close(&r.s);
	ev_free(r.ev);
}

/* Connections in use do not count among those that are kept. */
TEST(kept_while_many_wait)
{
	static struct call held[40];
	struct rig r;
	struct call c;
	struct fetch_req req = { .method = "GET" };

	if (!rig_up(&r))
		return;
	for (size_t i = 0; i < ARRAY_LEN(held) && !FAULTED(); i++) {
		call_init(&held[i], &r);
		call_start(&held[i], "/hold", &req);
		until(&r, &r.s.requests, (int)i + 1);
	}
	call_init(&c, &r);
	for (int i = 0; i < 3; i++)
		call(&c, "/hello", &req);
	CHECK(r.s.accepted == (int)ARRAY_LEN(held) + 1 || FAULTED());
	fetch_free(r.f);
	buf_free(&c.body);
	for (size_t i = 0; i < ARRAY_LEN(held); i++)
		buf_free(&held[i].body);
	server_close(&r.s);
	ev_free(r.ev);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	/* A proxy of the environment must not stand between us and our server. */
	unsetenv("https_proxy");
	unsetenv("HTTPS_PROXY");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	RUN(get_and_headers);
	RUN(bodies_and_methods);
	RUN(stream_piece_by_piece);
	RUN(pause_and_resume);
	RUN(cancel_anywhere);
	RUN(timeouts);
	RUN(failures);
	RUN(kept_connection_dies);
	RUN(refused_at_once);
	RUN(many_at_once);
	RUN(kept_while_many_wait);
	return TEST_END();
}
