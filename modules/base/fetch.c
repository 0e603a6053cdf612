/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fetch.c - HTTP client on the loop; the one file that knows libcurl.
 *
 * libcurl's multi interface tells which sockets to watch and when to call it
 * next; both wishes go to ev as they come, so waiting costs nothing.
 *
 * libcurl calls back from its own depths (on_head and on_data run there), and
 * from there most of its functions may not be called. So the functions of this
 * file that a callback may use change fields of the op and no more; what must
 * be said to libcurl waits for pump(), a deferred call of the same turn:
 *
 *     fetch_start  --> OP_NEW      --pump--> added to the multi: OP_RUNNING
 *     fetch_pause  --> resume      --pump--> curl_easy_pause
 *     fetch_cancel --> OP_DEAD     --pump--> removed and freed
 *     op->err set  --> OP_RUNNING  --pump--> finished with that error
 *
 * An op leaves the list in op_free alone, which runs only from the loop's own
 * stack: pump() may walk the list while callbacks start and cancel ops.
 *
 * "sent" is the promise that lets a caller repeat a request without doing a
 * thing twice. libcurl announces the moment when the connection is ready and
 * the request about to be written; from then on sent is true, whatever comes.
 *
 * A quiet peer is found by our own timer, armed from that moment on and again
 * by every byte in either direction; before it, libcurl's connect timeout
 * rules. A paused op has no idle timer: then it is we who are quiet.
 */
#include "base/fetch.h"

#include <assert.h>
#include <curl/curl.h>
#include <strings.h>

#define CURL_MIN 0x075000             /* 7.80.0: the first to tell when a request is about to be written */
#define FETCH_CONNECTIONS 16L         /* idle connections kept for reuse */
#define FETCH_BUFFER (16L << 10)      /* libcurl's buffer per running op, each way */
#define FETCH_KEEPALIVE_S 60L         /* TCP keep-alive: first probe and spacing */
#define FETCH_HEAD_BYTES (64u << 10)  /* names and values of one response */
#define FETCH_MEND_US US_PER_S        /* from one try to replace a broken libcurl to the next */
#define FETCH_HOST_MAX 128            /* of a host name in messages */

_Static_assert(LIBCURL_VERSION_NUM >= CURL_MIN, "blufio needs libcurl 7.80.0 or newer (docs/DEPENDENCIES.md)");

enum op_state {
	OP_NEW,                       /* waits for pump() to give it to libcurl */
	OP_RUNNING,
	OP_DEAD                       /* cancelled or reported; no callback any more */
};

struct fetch_op {
	struct fetch *f;
	struct fetch_op *next, **prev;
	enum op_state state;
	CURL *easy;
	struct curl_slist *headers;
	struct buf body;              /* of the request */
	struct body from;             /* or this */
	bool streamed;
	struct buf head;              /* "Name: value\n" lines of the response */
	size_t head_count;
	bool head_done;               /* on_head was called; what follows are trailers */
	bool sent, once, paused, resume;
	unsigned status;
	size_t got, body_max;         /* bytes of the response's body */
	curl_off_t moved;             /* body bytes both ways, as last told */
	int64_t idle_us, total_us;
	struct ev_timer idle, total;
	struct fetch_cb cb;
	void *arg;
	enum err err;                 /* OK, or why we gave up on our own account */
	char host[FETCH_HOST_MAX];
	char why[FETCH_HOST_MAX + 128];
};

struct fetch {
	struct ev *ev;
	CURLM *multi;
	struct ev_timer timer;        /* when libcurl wants to be called */
	struct ev_defer pump;
	struct fetch_op *ops;         /* all, the dead until they are freed */
	size_t running;               /* without the dead */
	bool broken;                  /* libcurl ran out of memory in mid-work */
	char agent[];
};

/* ---- the life of an op ------------------------------------------------------ */

static void
op_free(struct fetch_op *op)
{
	struct fetch *f = op->f;

	op->state = OP_DEAD;          /* libcurl may still call progress() */
	ev_timer_cancel(f->ev, &op->idle);
	ev_timer_cancel(f->ev, &op->total);
	if (op->easy) {
		curl_multi_remove_handle(f->multi, op->easy);
		curl_easy_cleanup(op->easy);
	}
	curl_slist_free_all(op->headers);
	buf_free(&op->body);
	body_free(&op->from);
	buf_free(&op->head);
	if (op->prev) {
		*op->prev = op->next;
		if (op->next)
			op->next->prev = op->prev;
	}
	free(op);
}

/* Takes op out of service; its memory stays until op_free. */
static void
op_kill(struct fetch_op *op)
{
	assert(op->state != OP_DEAD && op->f->running > 0);
	op->state = OP_DEAD;
	op->f->running--;
	ev_timer_cancel(op->f->ev, &op->idle);
	ev_timer_cancel(op->f->ev, &op->total);
}

/* Reports and frees. Only from the loop, never below a libcurl call. */
static void
op_finish(struct fetch_op *op, enum err e)
{
	struct fetch_result r;

	op_kill(op);
	curl_multi_remove_handle(op->f->multi, op->easy);
	r.err = e;
	r.status = op->status;
	r.sent = op->sent;
	r.why = e == OK ? "" : op->why;
	op->cb.on_done(op->arg, op, &r);
	op_free(op);
}

/* What a CURLcode means to us and to people; the host stands between the texts. */
static const struct failure {
	CURLcode code;
	enum err err;
	const char *before, *after;
} failures[] = {
	{ CURLE_COULDNT_RESOLVE_HOST, ERR_NOTFOUND, "cannot resolve ", "" },
	{ CURLE_COULDNT_RESOLVE_PROXY, ERR_NOTFOUND, "cannot resolve the proxy for ", "" },
	{ CURLE_COULDNT_CONNECT, ERR_CLOSED, "cannot connect to ", "" },
	{ CURLE_OPERATION_TIMEDOUT, ERR_TIMEOUT, "cannot connect to ", " in time" },
	{ CURLE_SSL_CONNECT_ERROR, ERR_PROTO, "TLS with ", " failed" },
	{ CURLE_PEER_FAILED_VERIFICATION, ERR_PROTO,
	    "TLS with ", " failed: its certificate is not trusted" },
	{ CURLE_SSL_CACERT_BADFILE, ERR_CONFIG,
	    "TLS with ", " failed: this machine has no CA certificates" },
	{ CURLE_GOT_NOTHING, ERR_CLOSED, "", " closed the connection without an answer" },
	{ CURLE_SEND_ERROR, ERR_CLOSED, "", " closed the connection" },
	{ CURLE_RECV_ERROR, ERR_CLOSED, "", " closed the connection" },
	{ CURLE_PARTIAL_FILE, ERR_CLOSED, "", " closed the connection in mid-answer" },
	{ CURLE_HTTP2_STREAM, ERR_CLOSED, "", " broke off the HTTP/2 stream" },
	{ CURLE_HTTP2, ERR_CLOSED, "", " broke off the HTTP/2 connection" },
	{ CURLE_WEIRD_SERVER_REPLY, ERR_PROTO, "", " does not answer in HTTP" },
	{ CURLE_UNSUPPORTED_PROTOCOL, ERR_PROTO, "", " does not answer in HTTP" },
	{ CURLE_OUT_OF_MEMORY, ERR_NOMEM, "out of memory while talking to ", "" },
};

static void
op_end(struct fetch_op *op, CURLcode code)
{
	enum err e = op->err;
	size_t i;

	if (e == OK && code != CURLE_OK) {
		e = ERR_PROTO;
		/* libcurl's own text of a code names neither URL nor header. */
		snprintf(op->why, sizeof(op->why), "talking to %s failed: %s", op->host,
		    curl_easy_strerror(code));
		for (i = 0; i < ARRAY_LEN(failures); i++) {
			if (failures[i].code != code)
				continue;
			e = failures[i].err;
			snprintf(op->why, sizeof(op->why), "%s%s%s", failures[i].before,
			    op->host, failures[i].after);
		}
	}
	op_finish(op, e);
}

/* Marks a failure that we found below a libcurl call; pump() reports it. */
static void PRINTF(3, 4)
op_fail(struct fetch_op *op, enum err e, const char *fmt, ...)
{
	va_list ap;

	if (op->err != OK)
		return;
	op->err = e;
	va_start(ap, fmt);
	vsnprintf(op->why, sizeof(op->why), fmt, ap);
	va_end(ap);
	ev_defer(op->f->ev, &op->f->pump);
}

/* Limits in words, rounded up. */
#define SECONDS(us) (long long)(((us) + US_PER_S - 1) / US_PER_S)

static void
idle_due(void *arg)
{
	struct fetch_op *op = arg;

	op_fail(op, ERR_TIMEOUT, "%s stopped answering (no byte for %lld s)", op->host,
	    SECONDS(op->idle_us));
}

static void
total_due(void *arg)
{
	struct fetch_op *op = arg;

	op_fail(op, ERR_TIMEOUT, "%s did not finish within %lld s", op->host,
	    SECONDS(op->total_us));
}

/* A byte went by: the peer is not idle. */
static void
op_touch(struct fetch_op *op)
{
	if (op->state == OP_RUNNING && op->sent && !op->paused)
		ev_timer_in(op->f->ev, &op->idle, op->idle_us);
}

/* ---- called by libcurl for one op --------------------------------------------- */

/* The connection stands, the request is about to be written. */
static int
on_ready(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct fetch_op *op = arg;

	(void)ip, (void)local_ip, (void)port, (void)local_port;
	/* twice: a kept connection died without an answer, and the peer may have acted on it */
	if (op->state == OP_DEAD || (op->once && op->sent))
		return CURL_PREREQFUNC_ABORT;
	op->sent = true;
	op_touch(op);
	return CURL_PREREQFUNC_OK;
}

static int
progress(void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	struct fetch_op *op = arg;

	(void)dltotal;
	(void)ultotal;
	if (op->state == OP_DEAD)
		return 1;
	if (dlnow + ulnow != op->moved) {
		op->moved = dlnow + ulnow;
		op_touch(op);
	}
	return 0;
}

/* The next piece of a streamed body. */
static size_t
on_upload(char *p, size_t size, size_t count, void *arg)
{
	struct fetch_op *op = arg;
	size_t n = 0;
	enum err e;

	if (op->state == OP_DEAD || op->err != OK)
		return CURL_READFUNC_ABORT;
	e = body_read(&op->from, p, size * count, &n);
	if (e == OK)
		return n;
	op_fail(op, e, "a file that was being sent to %s cannot be read", op->host);
	return CURL_READFUNC_ABORT;
}

/* libcurl begins anew, on another connection: only before anything was answered. */
static int
on_rewind(void *arg, curl_off_t offset, int origin)
{
	struct fetch_op *op = arg;

	if (offset != 0 || origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	body_rewind(&op->from);
	return CURL_SEEKFUNC_OK;
}

/* The blank line: on_head, unless it ends an interim (1xx) head. */
static void
head_end(struct fetch_op *op)
{
	long code = 0;

	curl_easy_getinfo(op->easy, CURLINFO_RESPONSE_CODE, &code);
	if (code >= 100 && code < 200)
		return;
	op->status = (unsigned)code;
	op->head_done = true;
	if (op->cb.on_head)
		op->cb.on_head(op->arg, op, op->status);
}

/* One line of a head or a trailer, status line and blank line included. */
static size_t
on_header(char *p, size_t size, size_t count, void *arg)
{
	struct fetch_op *op = arg;
	size_t n = size * count;
	struct str line = str_trim(str_make(p, n));

	if (op->state == OP_DEAD)
		return 0;
	op->sent = true;
	op_touch(op);
	if (op->head_done)
		return n;
	if (line.n == 0) {
		head_end(op);
	} else if (str_starts(line, S("HTTP/"))) {
		buf_reset(&op->head);
		op->head_count = 0;
	} else if (op->head_count < FETCH_HEADER_MAX) {
		op->head_count++;
		buf_str(&op->head, line);
		buf_putc(&op->head, '\n');
		if (op->head.err != OK)
			op_fail(op, op->head.err, "the headers of %s are too long", op->host);
	}
	return op->state == OP_DEAD || op->err != OK ? 0 : n;
}

static size_t
on_body(char *p, size_t size, size_t count, void *arg)
{
	struct fetch_op *op = arg;
	size_t n = size * count;

	if (op->state == OP_DEAD || op->err != OK)
		return 0;
	if (op->paused)
		return CURL_WRITEFUNC_PAUSE;
	if (n > op->body_max - op->got) {
		op_fail(op, ERR_LIMIT, "the answer of %s is longer than %zu bytes", op->host,
		    op->body_max);
		return 0;
	}
	op->got += n;
	op_touch(op);
	if (op->cb.on_data && n > 0)
		op->cb.on_data(op->arg, op, str_make(p, n));
	return op->state == OP_DEAD ? 0 : n;
}

/* ---- libcurl and the loop -------------------------------------------------------- */

static struct fetch_op *
op_of(CURL *easy)
{
	char *op = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &op);
	return (struct fetch_op *)(void *)op;
}

/* Reports what libcurl has finished. */
static void
reap(struct fetch *f)
{
	struct fetch_op *op;
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(f->multi, &left)) != NULL) {
		op = op_of(msg->easy_handle);
		if (op && op->state == OP_RUNNING)
			op_end(op, msg->data.result);
	}
}

/* The failure of a transfer comes as its message, and what libcurl could lose
 * beyond that, the timers find. But a libcurl that had no memory for its own
 * tables leaves them half-made, and divides by zero when it meets them again. */
static void
act(struct fetch *f, curl_socket_t fd, int what)
{
	int running;

	if (f->broken)
		return;
	if (curl_multi_socket_action(f->multi, fd, what, &running) == CURLM_OUT_OF_MEMORY) {
		f->broken = true;
		ev_defer(f->ev, &f->pump);
	}
	reap(f);
}

static void
socket_ready(void *arg, int fd, unsigned events)
{
	act(arg, fd, ((events & EV_READ) ? CURL_CSELECT_IN : 0) |
	    ((events & EV_WRITE) ? CURL_CSELECT_OUT : 0));
}

static void
timer_due(void *arg)
{
	struct fetch *f = arg;

	if (f->broken)                /* there was no memory for a new one either */
		ev_defer(f->ev, &f->pump);
	else
		act(f, CURL_SOCKET_TIMEOUT, 0);
}

static int
socket_wish(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct fetch *f = arg;
	struct fetch_op *op;
	unsigned events = 0;
	enum err e;

	(void)socket_arg;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EV_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EV_WRITE;
	e = ev_fd_set(f->ev, fd, events, socket_ready, f);
	if (e == OK)
		return 0;
	/* To answer -1 here would make libcurl give up on every transfer for ever. */
	op = op_of(easy);
	if (op && op->state == OP_RUNNING)
		op_fail(op, e, "cannot watch the connection to %s", op->host);
	return 0;
}

static int
timer_wish(CURLM *multi, long ms, void *arg)
{
	struct fetch *f = arg;

	(void)multi;
	if (ms < 0)
		ev_timer_cancel(f->ev, &f->timer);
	else    /* from the true time, as libcurl counts: a call too early is a call too many */
		ev_timer_at(f->ev, &f->timer, clock_mono_us() + ms * US_PER_MS);
	return 0;
}

static void
op_add(struct fetch_op *op)
{
	op->state = OP_RUNNING;
	if (curl_multi_add_handle(op->f->multi, op->easy) != CURLM_OK)
		op_end(op, CURLE_OUT_OF_MEMORY);
}

static void
op_resume(struct fetch_op *op)
{
	CURLcode code;

	op->resume = false;
	if (op->paused)
		return;
	op_touch(op);
	/* This may deliver what libcurl holds back, and an op may die of that. */
	code = curl_easy_pause(op->easy, CURLPAUSE_CONT);
	if (op->state == OP_RUNNING && (code != CURLE_OK || op->err != OK))
		op_end(op, code);
}

static CURLM *
multi_new(struct fetch *f)
{
	CURLM *m = curl_multi_init();
	unsigned bad = 0;

	if (m == NULL)
		return NULL;
	bad |= (unsigned)curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, socket_wish);
	bad |= (unsigned)curl_multi_setopt(m, CURLMOPT_SOCKETDATA, f);
	bad |= (unsigned)curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, timer_wish);
	bad |= (unsigned)curl_multi_setopt(m, CURLMOPT_TIMERDATA, f);
	if (bad) {
		curl_multi_cleanup(m);
		return NULL;
	}
	return m;
}

/* Ends what runs in a broken multi and puts a new one in its place; false: not yet. */
static bool
mend(struct fetch *f)
{
	CURLM *fresh = multi_new(f);

	for (struct fetch_op *op = f->ops, *next; op; op = next) {
		next = op->next;
		if (op->state == OP_RUNNING)
			op_end(op, CURLE_OUT_OF_MEMORY);
	}
	if (fresh == NULL) {
		ev_timer_in(f->ev, &f->timer, FETCH_MEND_US);
		return false;
	}
	curl_multi_cleanup(f->multi);
	ev_timer_cancel(f->ev, &f->timer);
	f->multi = fresh;
	f->broken = false;
	return true;
}

static void
pump(void *arg)
{
	struct fetch *f = arg;
	struct fetch_op *op, *next;

	if (f->broken && !mend(f))
		return;
	/* libcurl counts those in use too; many long calls would cost each short one its connection. A number cannot be refused. */
	curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->running + FETCH_CONNECTIONS);
	for (op = f->ops; op; op = next) {
		next = op->next;
		if (op->state == OP_DEAD)
			op_free(op);
		else if (op->err != OK)
			op_end(op, CURLE_OK);
		else if (op->state == OP_NEW)
			op_add(op);
		else if (op->resume)
			op_resume(op);
	}
	reap(f);
}

/* ---- building a request ------------------------------------------------------------- */

/* Fills op->host. What url_parse lets pass, libcurl's parser reads in the same way (see enc.c). */
static enum err
url_check(struct fetch_op *op, const char *text, bool *tls)
{
	struct url u;
	enum err e = url_parse(str_z(text), &u);

	if (e != OK)
		return e;
	if (!u.tls && !url_is_loopback(&u))
		return ERR_DENIED;
	snprintf(op->host, sizeof(op->host), "%.*s", STR_ARG(u.host));
	*tls = u.tls;
	return OK;
}

static enum err
header_add(struct fetch_op *op, const char *line)
{
	struct curl_slist *more = curl_slist_append(op->headers, line);

	if (more == NULL)
		return ERR_NOMEM;
	op->headers = more;
	return OK;
}

static enum err
headers_build(struct fetch_op *op, const struct fetch_req *req)
{
	bool typed = false;
	enum err e = OK;

	for (const char *const *h = req->headers; h && *h && e == OK; h++) {
		if (strpbrk(*h, "\r\n") != NULL)
			return ERR_DENIED;        /* would end the line and begin another */
		if (strncasecmp(*h, "Content-Type:", 13) == 0)
			typed = true;
		e = header_add(op, *h);
	}
	/* libcurl adds both to a POST: one would be a lie, the other a delay. */
	if (e == OK && !typed)
		e = header_add(op, "Content-Type:");
	return e == OK ? header_add(op, "Expect:") : e;
}

/* Every option costs a call that can fail; the failures are added up in bad. */
#define SET(option, value) (bad |= (unsigned)curl_easy_setopt(op->easy, option, value))

static enum err
request_build(struct fetch_op *op, const struct fetch_req *req)
{
	struct str body = buf_view(req->body_take ? req->body_take : &op->body);
	const char *m = req->method;
	unsigned bad = 0;

	if (*m == '\0' || m[strspn(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] != '\0')
		return ERR_PARSE;
	SET(CURLOPT_URL, req->url);
	SET(CURLOPT_HTTPHEADER, op->headers);
	SET(CURLOPT_USERAGENT, &op->f->agent[0]);
	if (op->streamed) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_size(&op->from));
		SET(CURLOPT_READFUNCTION, on_upload);
		SET(CURLOPT_READDATA, op);
		SET(CURLOPT_SEEKFUNCTION, on_rewind);
		SET(CURLOPT_SEEKDATA, op);
		if (strcmp(m, "POST") != 0)
			SET(CURLOPT_CUSTOMREQUEST, m);
	} else if (body.n > 0 || strcmp(m, "POST") == 0) {
		/* Not copied by libcurl. A buffer to be taken changes its owner later,
		 * when nothing can fail any more; its bytes stay where they are. */
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
		SET(CURLOPT_POSTFIELDS, body.n ? body.p : "");
		if (strcmp(m, "POST") != 0)
			SET(CURLOPT_CUSTOMREQUEST, m);
	} else if (strcmp(m, "HEAD") == 0) {
		SET(CURLOPT_NOBODY, 1L);
	} else {
		SET(CURLOPT_HTTPGET, 1L);
		if (strcmp(m, "GET") != 0)
			SET(CURLOPT_CUSTOMREQUEST, m);
	}
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, op);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, op);
	SET(CURLOPT_NOPROGRESS, 0L);
	SET(CURLOPT_XFERINFOFUNCTION, progress);
	SET(CURLOPT_XFERINFODATA, op);
	SET(CURLOPT_PRIVATE, (char *)(void *)op);
	SET(CURLOPT_PREREQFUNCTION, on_ready);
	SET(CURLOPT_PREREQDATA, op);
	return bad ? ERR_NOMEM : OK;
}

static enum err
transport_build(struct fetch_op *op, const struct fetch_req *req, bool tls)
{
	int64_t connect_us = req->connect_us ? req->connect_us : FETCH_CONNECT_US;
	unsigned bad = 0;

	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_us / US_PER_MS + 1));
	SET(CURLOPT_FRESH_CONNECT, req->no_reuse ? 1L : 0L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, FETCH_KEEPALIVE_S);
	SET(CURLOPT_TCP_KEEPINTVL, FETCH_KEEPALIVE_S);
	SET(CURLOPT_BUFFERSIZE, FETCH_BUFFER);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, FETCH_BUFFER);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
#if LIBCURL_VERSION_NUM < 0x075500
	SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#else
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A resolver thread that hangs is left to itself, not waited for by the loop. */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	if (tls) {
		SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
		/* A libcurl without HTTP/2 refuses this and speaks 1.1. */
		curl_easy_setopt(op->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	} else {
		SET(CURLOPT_PROXY, "");       /* whatever the environment says */
		SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	}
	return bad ? ERR_NOMEM : OK;
}

/* ---- the interface --------------------------------------------------------------------- */

enum err
fetch_start(struct fetch *f, const struct fetch_req *req, const struct fetch_cb *cb, void *arg,
    struct fetch_op **out)
{
	struct fetch_op *op;
	bool tls = false;
	enum err e;

	assert(cb->on_done != NULL);
	if (f->running >= FETCH_OPS_MAX)
		return ERR_LIMIT;
	op = calloc(1, sizeof(*op));
	if (op == NULL)
		return ERR_NOMEM;
	op->f = f;
	op->cb = *cb;
	op->arg = arg;
	op->once = req->once;
	op->body_max = req->body_max ? req->body_max : FETCH_BODY_MAX;
	op->idle_us = req->idle_us ? req->idle_us : FETCH_IDLE_US;
	op->total_us = req->total_us ? req->total_us : FETCH_TOTAL_US;
	ev_timer_init(&op->idle, idle_due, op);
	ev_timer_init(&op->total, total_due, op);
	buf_init(&op->head, FETCH_HEAD_BYTES);
	buf_init(&op->body, req->body.n);
	body_init(&op->from, 0);
	e = url_check(op, req->url, &tls);
	if (e == OK && (op->easy = curl_easy_init()) == NULL)
		e = ERR_NOMEM;
	if (e == OK)
		e = headers_build(op, req);
	if (e == OK && req->body_take == NULL)
		buf_str(&op->body, req->body);
	if (e == OK)
		e = req->body_take ? req->body_take->err : op->body.err;
	if (e == OK && req->body_from) {
		e = req->body_from->text.err;
		op->streamed = true;
		op->from = *req->body_from;     /* taken for good below, when nothing can fail any more */
	}
	if (e == OK)
		e = request_build(op, req);
	if (e == OK)
		e = transport_build(op, req, tls);
	if (e != OK) {
		body_init(&op->from, 0);
		op_free(op);
		return e;
	}
	if (req->body_from)
		body_init(req->body_from, 0);
	if (req->body_take) {
		op->body = *req->body_take;
		buf_init(req->body_take, op->body.max);
	}
	op->next = f->ops;
	if (op->next)
		op->next->prev = &op->next;
	op->prev = &f->ops;
	f->ops = op;
	f->running++;
	ev_timer_in(f->ev, &op->total, op->total_us);
	ev_defer(f->ev, &f->pump);
	*out = op;
	return OK;
}

void
fetch_cancel(struct fetch_op *op)
{
	if (op == NULL || op->state == OP_DEAD)
		return;
	op_kill(op);
	ev_defer(op->f->ev, &op->f->pump);
}

void
fetch_pause(struct fetch_op *op, bool paused)
{
	if (op->state == OP_DEAD || op->paused == paused)
		return;
	op->paused = paused;
	if (paused) {
		ev_timer_cancel(op->f->ev, &op->idle);
		/* If libcurl does not stop here, on_body() stops it at the next byte. */
		if (op->state == OP_RUNNING)
			curl_easy_pause(op->easy, CURLPAUSE_RECV);
	} else {
		op->resume = true;
		ev_defer(op->f->ev, &op->f->pump);
	}
}

struct str
fetch_header(const struct fetch_op *op, const char *name)
{
	struct str rest = op->head_done ? buf_view(&op->head) : STR_NONE;
	struct str line, key, found = STR_NONE;

	while (rest.n > 0) {
		str_cut(&rest, '\n', &line);
		if (str_cut(&line, ':', &key) && str_ieq(key, str_z(name)))
			found = str_trim(line);
	}
	return found;
}

size_t
fetch_running(const struct fetch *f)
{
	return f->running;
}

const char *
fetch_version(void)
{
	return curl_version_info(CURLVERSION_NOW)->version;
}

enum err
fetch_new(struct ev *ev, const char *user_agent, struct fetch **out)
{
	size_t n = strlen(user_agent) + 1;
	struct fetch *f;

	if (curl_version_info(CURLVERSION_NOW)->version_num < CURL_MIN) {
		log_error("fetch", "this system's libcurl is %s; blufio needs 7.80.0 or newer", fetch_version());
		return ERR_UNSUPPORTED;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return ERR_NOMEM;
	f = calloc(1, sizeof(*f) + n);
	if (f == NULL) {
		curl_global_cleanup();
		return ERR_NOMEM;
	}
	f->ev = ev;
	memcpy(f->agent, user_agent, n);
	ev_timer_init(&f->timer, timer_due, f);
	ev_defer_init(&f->pump, pump, f);
	f->multi = multi_new(f);
	if (f->multi == NULL) {
		fetch_free(f);
		return ERR_NOMEM;
	}
	*out = f;
	return OK;
}

void
fetch_free(struct fetch *f)
{
	if (f == NULL)
		return;
	while (f->ops)
		op_free(f->ops);
	curl_multi_cleanup(f->multi);
	ev_timer_cancel(f->ev, &f->timer);
	ev_defer_cancel(&f->pump);
	free(f);
	curl_global_cleanup();
}
