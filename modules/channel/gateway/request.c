/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * request.c - one request of the gateway: where it goes, whether it may, and its answer.
 *
 * By its head alone: a Host that is ours (else a page of another name that resolves
 * to us could speak to us: 421), no credential in the address, the route (404, 405
 * with Allow), an Origin we know, who it is from (401, 429), the scope (403). Only
 * then the body is read.
 *
 * What a request wrote is told after its commit: the answer is held until then.
 *
 * Only what answers a GET is compressed. The length of other answers, which may repeat
 * what was asked beside a secret (a new key), would tell of it to who sees but the length.
 */
#include "channel/gateway/gateway.h"
#include "base/deflate.h"

#include <assert.h>
#include <stdarg.h>

#define JSON_TYPE "application/json"
#define ETAG_BYTES 16u                  /* of a hash: they tell contents apart, not forgers */
#define HEAD_ROOM 480                   /* for the usual head of an answer */
#define ID_STEP 0x9E3779B97F4A7C15u     /* odd, so each id comes once; the golden ratio, so they look unlike */

struct request *
request_new(struct conn *c)
{
	struct request *r = calloc(1, sizeof(*r));
	uint64_t id = c->g->last_id += ID_STEP;

	if (!r)
		return NULL;
	r->c = c;
	r->a = c->g->a;
	IGNORE(trace_parse(http_field(request_head(r), "traceparent"), &r->trace)); /* none, or no good one: a message makes its own */
	for (size_t i = sizeof(r->id) - 1; i-- > 0; id >>= 4)
		r->id[i] = "0123456789abcdef"[id & 15];
	buf_init(&r->path, HTTP_TARGET_MAX);
	buf_init(&r->body, BODY_MAX_API);
	buf_init(&r->held, GATEWAY_OUT_MAX);
	sha256_init(&r->sha);
	r->stored = true;
	r->hash = TEXT_HASH_EMPTY;
	return r;
}

void
request_free(struct request *r)
{
	for (struct request **at = r->on_socket && r->c->socket ? &r->c->socket->subs : NULL; at && *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	if (r->status)
		metrics_count(r->a, METRIC_REQUESTS, (size_t)r->status / 100 - 1);
	if (r->wait_prev)
		*r->wait_prev = r->wait_next;
	if (r->wait_next)
		r->wait_next->wait_prev = r->wait_prev;
	ev_timer_cancel(r->a->ev, &r->timer);
	effect_cancel(&r->release);
	if (r->invocation)
		invocation_cancel(r->invocation);
	if (r->drop)
		r->drop(r);
	request_pause(r, false);
	buf_free(&r->path);
	buf_free(&r->body);
	buf_free(&r->held);
	free(r);
}

void
request_wait(struct request *r, const struct attend *attend)
{
	struct gateway *g = r->c->g;

	r->attend = attend;
	if (r->wait_prev)
		return;
	r->wait_next = g->waiting;
	r->wait_prev = &g->waiting;
	if (g->waiting)
		g->waiting->wait_prev = &r->wait_next;
	g->waiting = r;
}

void
request_revokes(struct request *r)
{
	r->revokes = true;
}

const struct trace *
request_trace(struct request *r)
{
	if (r->trace.id[0] == '\0')
		IGNORE(trace_new(&r->trace));   /* a name for logs: an unlucky one does no harm */
	return &r->trace;
}

struct agent *
request_agent(const struct request *r)
{
	return r->a;
}

const struct http_request *
request_head(const struct request *r)
{
	return &r->c->http.req;
}

const struct principal *
request_principal(const struct request *r)
{
	return &r->who;
}

struct str
request_body(const struct request *r)
{
	return buf_view(&r->body);
}

struct str
request_segment(const struct request *r, size_t i)
{
	return i < r->n_segments ? r->segments[i] : STR_NONE;
}

/* ---- answers ---------------------------------------------------------------------------- */

static void
put_head(struct request *r, struct buf *b, int status, const char *type, struct str fields)
{
	const struct http_request *h = request_head(r);
	struct str origin = http_field(h, "origin");

	r->status = status;
	http_put_status(b, status);
	http_put_date(b, clock_us());
	http_put_field(b, "X-Request-Id", str_z(r->id));
	if (type)
		http_put_field(b, "Content-Type", str_z(type));
	http_put_field(b, "X-Content-Type-Options", S("nosniff"));
	if (origin.n && config_lists(r->a->config, "gateway.allowed_origins", origin)) {
		http_put_field(b, "Access-Control-Allow-Origin", origin);
		http_put_field(b, "Vary", S("Origin"));
		http_put_field(b, "Access-Control-Expose-Headers", S("X-Request-Id, Retry-After"));
	}
	if (r->closes || !h->keep_alive || r->c->eof || r->c->g->stopping) {
		r->closes = true;
		http_put_field(b, "Connection", S("close"));
	} else if (h->minor == 0) {
		http_put_field(b, "Connection", S("keep-alive"));
	}
	buf_str(b, fields);
}

/* Has whoever sent it been shut out since? When that cannot be read, he has. */
static bool
is_shut_out(const struct request *r)
{
	bool holds = false;

	return r->who.id && (store_api_key_holds(r->a->db, r->who.id, r->who.login, &holds) != OK || !holds);
}

static void
on_release(struct effect *e)
{
	struct request *r = CONTAINER(e, struct request, release);
	struct conn *c = r->c;

	r->stored = true;
	for (struct conn *o = r->revokes ? c->g->conns : NULL; o; o = o->next)
		if (o->req && o->req != r && is_shut_out(o->req))
			conn_drop(o);
	if (r->held.n == 0)             /* what it waits for has yet to come */
		return;
	if (!c->out.p) {
		c->out = r->held;
		buf_init(&r->held, c->out.max);
	}
	buf_str(&c->out, buf_view(&r->held));
	buf_reset(&r->held);
	if (r->stream && !r->answered)
		conn_flush(c);
	else
		conn_next(c);
}

void
request_send_held(struct request *r)
{
	r->release.run = on_release;
	if (r->a->phase != AGENT_STORAGE_FAILED && (!r->stored || r->a->db->in_tx)) {
		r->stored = false;
		agent_after(r->a, &r->release);
	} else {
		on_release(&r->release);        /* while the storage fails nothing is written, so nothing is claimed */
	}
}

/* Could this be compressed? Then caches have to know that it depends on who asks. */
static bool
is_worth_gzip(const struct request *r, int status, const char *type, size_t n)
{
	return status == 200 && type && r->route && strcmp(r->route->method, "GET") == 0 && n >= GATEWAY_GZIP_MIN &&
	    n <= GATEWAY_GZIP_MAX && (strncmp(type, "text/", 5) == 0 || strncmp(type, "application/", 12) == 0);
}

static bool
wants_gzip(const struct request *r)
{
	int q = http_accepts(request_head(r), "Accept-Encoding", "gzip");

	return q > 0 && q >= http_accepts(request_head(r), "Accept-Encoding", "identity");
}

void
request_answer_raw(struct request *r, int status, const char *type, struct str fields, struct str body)
{
	bool head = str_eqz(request_head(r)->method, "HEAD"), worth = is_worth_gzip(r, status, type, body.n);
	struct buf zipped = BUF_INIT(GATEWAY_GZIP_MAX);

	assert(!r->answered);
	r->answered = true;
	ev_timer_cancel(r->a->ev, &r->timer);
	if (r->answer) {
		r->answer(r, status, body);
		return;
	}
	if (r->on_socket) {             /* only errors come this way */
		socket_say(r, "error", STR_NONE, body);
		request_free(r);
		return;
	}
	if (!r->running && (request_head(r)->chunked || request_head(r)->content_length > 0))
		r->closes = true;       /* nobody reads its body */
	buf_reset(&r->held);
	buf_room(&r->held, HEAD_ROOM + body.n); /* at once; a failure sticks */
	put_head(r, &r->held, status, body.n ? type : NULL, fields);
	if (worth)
		http_put_field(&r->held, "Vary", S("Accept-Encoding"));
	if (worth && wants_gzip(r) && buf_room(&zipped, body.n))
		zipped.n = deflate_gzip(body, zipped.p);
	if (zipped.n) {
		http_put_field(&r->held, "Content-Encoding", S("gzip"));
		body = buf_view(&zipped);
	}
	if (status != 204 && status != 304 && status >= 200)
		http_put_number(&r->held, "Content-Length", body.n);
	http_put_end(&r->held);
	if (!head)
		buf_str(&r->held, body);
	buf_free(&zipped);
	if (r->held.err != OK) {
		conn_drop(r->c);
		return;
	}
	request_send_held(r);
}

void
request_answer(struct request *r, int status, struct str json)
{
	request_answer_raw(r, status, JSON_TYPE, S("Cache-Control: no-store\r\n"), json);
}

void
request_answer_text(struct request *r, int status, const char *content_type, struct str body)
{
	request_answer_raw(r, status, content_type, S("Cache-Control: no-store\r\nVary: Accept\r\n"), body);
}

/* Routes of the OpenAI API: their clients read errors in its shape, those too that the head alone decides. */
static bool
is_openai(const struct request *r)
{
	static const char *const roots[] = { "/v1/chat/", "/v1/responses", "/v1/models" };
	bool found = false;

	for (size_t i = 0; i < ARRAY_LEN(roots) && !found; i++)
		found = str_starts(request_head(r)->path, str_z(roots[i]));
	return found;
}

/* All four members, always. */
static void
openai_error(const struct request *r, struct buf *out, int status, const char *type, const char *param, const char *hint,
    const char *message)
{
	const char *code = status == 401 ? "invalid_api_key" : strcmp(type, "rate_limit") == 0 ? "rate_limit_exceeded" : type;
	struct buf text = BUF_INIT(4096);
	struct jw w;

	buf_fmt(&text, hint ? "%s (%s)" : "%s", message, hint);
	if (r->inbound && status == 504)
		buf_fmt(&text, " turn_id: %lld", (long long)r->inbound);
	jw_init(&w, out);
	jw_obj(&w);
	jw_key(&w, "error");
	jw_obj(&w);
	jw_kstr(&w, "message", buf_view(&text));
	jw_kz(&w, "type", status == 429 ? code : status >= 500 ? "server_error" : status == 403 ? "permission_error" :
	    "invalid_request_error");
	jw_kz(&w, "param", param);
	jw_kz(&w, "code", code);
	jw_end_obj(&w);
	jw_end_obj(&w);
	buf_free(&text);
}

void
request_answer_static(struct request *r, const char *content_type, struct str body)
{
	unsigned char digest[SHA256_SIZE];
	struct buf weak = BUF_INIT(64), fields = BUF_INIT(256);
	const struct http_request *head = request_head(r);
	bool worth = is_worth_gzip(r, 200, content_type, body.n);
	const char *tag, *name = "If-None-Match";
	struct sha256 h;

	sha256_init(&h);
	sha256_update(&h, body.p, body.n);
	sha256_final(&h, digest);
	buf_puts(&weak, "W/\"");
	enc_hex(&weak, digest, ETAG_BYTES);
	buf_putc(&weak, '"');
	tag = buf_z(&weak) + 2;
	/* compressed it is other octets of the same content */
	buf_fmt(&fields, "Cache-Control: no-cache\r\nETag: %s\r\n", worth && wants_gzip(r) ? buf_z(&weak) : tag);
	if (weak.err != OK) {
		request_failed(r, weak.err);
	} else if (http_list_has(head, name, buf_z(&weak)) || http_list_has(head, name, tag) || http_list_has(head, name, "*")) {
		if (worth)
			buf_puts(&fields, "Vary: Accept-Encoding\r\n");
		request_answer_raw(r, 304, NULL, buf_view(&fields), STR_NONE);
	} else {
		request_answer_raw(r, 200, content_type, buf_view(&fields), body);
	}
	buf_free(&weak);
	buf_free(&fields);
}

void
request_error_json(struct request *r, struct buf *out, int status, const char *type, const char *param, const char *hint,
    const char *message)
{
	struct jw w;

	if (is_openai(r)) {
		openai_error(r, out, status, type, param, hint, message);
		return;
	}
	jw_init(&w, out);
	jw_obj(&w);
	jw_key(&w, "error");
	jw_obj(&w);
	jw_kz(&w, "type", type);
	jw_kz(&w, "message", message);
	if (param)
		jw_kz(&w, "param", param);
	if (hint)
		jw_kz(&w, "hint", hint);
	if (r->inbound) {               /* its message goes on */
		char id[24];

		snprintf(id, sizeof(id), "%lld", (long long)r->inbound);
		jw_kz(&w, "turn_id", id);
	}
	jw_kz(&w, "request_id", r->id);
	jw_end_obj(&w);
	jw_end_obj(&w);
}

static void
answer_error(struct request *r, int status, const char *type, const char *param, const char *hint, struct str fields,
    const char *message)
{
	struct buf b = BUF_INIT(64u << 10), all = BUF_INIT(4096);

	buf_str(&all, fields);
	if (r->wait_s)
		http_put_number(&all, "Retry-After", (uint64_t)r->wait_s);
	request_error_json(r, &b, status, type, param, hint, message);
	log_ids(0, 0, r->trace.id);
	if (status >= 500)
		log_warn("gateway", "%d to request %s: %s", status, r->id, message);
	else
		log_debug("gateway", "%d to request %s: %s", status, r->id, message);
	log_ids(0, 0, NULL);
	request_answer_raw(r, status, JSON_TYPE, buf_view(&all), buf_view(&b));
	buf_free(&all);
	buf_free(&b);
}

void
request_error(struct request *r, int status, const char *type, const char *param, const char *hint, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)secret_fmt(text, sizeof(text), fmt, ap);
	va_end(ap);
	answer_error(r, status, type, param, hint, S("Cache-Control: no-store\r\n"), text);
}

void
request_failed(struct request *r, enum err e)
{
	if (e == ERR_NOMEM || e == ERR_LIMIT)
		request_error(r, 503, "overloaded", NULL, "try again later", "no memory for this at the moment");
	else
		request_error(r, 503, "storage", NULL, "try again later", "the storage does not work at the moment (%s)", err_str(e));
}

void
request_answer_buf(struct request *r, int status, enum err e, const struct buf *b)
{
	if (e == OK)
		e = b->err;
	if (e == OK)
		request_answer(r, status, buf_view(b));
	else
		request_failed(r, e);
}

void
request_too_large(struct request *r)
{
	metrics_count(r->a, METRIC_LIMITS, REACHED_BODY_BYTES);
	request_error(r, 413, "too_large", NULL, NULL, "the body is too large: %zu bytes are the most", r->body.max);
}

void
request_lost(struct request *r)
{
	effect_cancel(&r->release);
	if (r->stored)
		return;
	r->stored = true;
	r->inbound = 0;
	r->ref[0] = '\0';
	r->answered = false;
	buf_reset(&r->held);
	if (r->stream && !r->on_socket)
		conn_drop(r->c);
	else
		request_error(r, 503, "storage", NULL, "try again later", "the storage does not work at the moment; whether"
		    " this was stored is not certain");
}

/* ---- event streams ------------------------------------------------------------------------- */

static void
rearm(struct request *r)
{
	int64_t silence = r->spoke_at + GATEWAY_PING_US - ev_now(r->a->ev), life = r->who.expires_at - clock_us();

	ev_timer_in(r->a->ev, &r->timer, r->who.expires_at && life < silence ? (life > 0 ? life : 0) : silence);
}

void
request_pause(struct request *r, bool paused)
{
	if (r->paused == paused || !(r->turn || r->call))
		return;
	r->paused = paused;
	if (r->call)
		llm_pause(r->call, paused);
	else
		turn_pause(r->a, r->turn, paused);
}

static void
stream_put(struct request *r, struct str bytes)
{
	if (r->c->dead)
		return;
	r->spoke_at = ev_now(r->a->ev);
	rearm(r);
	if (request_head(r)->minor == 0)
		buf_str(&r->c->out, bytes);
	else
		http_put_chunk(&r->c->out, bytes);
	conn_flush(r->c);
	if (r->c->out.n > GATEWAY_OUT_HIGH)
		request_pause(r, true);
}

/* When the stream has been silent for long enough, or its credential's time is over. */
static void
on_silence(void *arg)
{
	struct request *r = arg;

	if (r->who.expires_at && r->who.expires_at <= clock_us())
		conn_drop(r->c);
	else if (ev_now(r->a->ev) - r->spoke_at >= GATEWAY_PING_US)
		request_comment(r, "keep-alive");
	else
		rearm(r);
}

void
request_stream(struct request *r, struct str first)
{
	struct buf *b = &r->c->out;

	r->stream = true;
	if (r->on_socket)
		return;
	if (request_head(r)->minor == 0)
		r->closes = true;       /* its end is the connection's */
	put_head(r, b, 200, "text/event-stream", S("Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"));
	if (request_head(r)->minor > 0)
		http_put_field(b, "Transfer-Encoding", S("chunked"));
	http_put_end(b);
	ev_timer_cancel(r->a->ev, &r->timer);
	ev_timer_init(&r->timer, on_silence, r);
	stream_put(r, first);
}

void
request_comment(struct request *r, const char *text)
{
	struct buf b = BUF_INIT(256);

	buf_fmt(&b, ": %s\n\n", text);
	stream_put(r, buf_view(&b));
	buf_free(&b);
}

void
request_event(struct request *r, struct str id, const char *event, struct str json)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX);

	if (r->on_socket) {
		socket_say(r, strcmp(event, "text_delta") == 0 ? "delta" : strcmp(event, "message_stop") == 0 ? "done" : event, id,
		    json);
		return;
	}
	if (id.n)
		buf_fmt(&b, "id: %.*s\n", STR_ARG(id));
	if (event)
		buf_fmt(&b, "event: %s\n", event);
	buf_fmt(&b, "data: %.*s\n\n", STR_ARG(json));   /* JSON on one line */
	if (b.err != OK)
		conn_drop(r->c);
	else
		stream_put(r, buf_view(&b));
	buf_free(&b);
}

void
request_end(struct request *r)
{
	if (r->on_socket) {
		request_free(r);
		return;
	}
	if (r->c->dead)
		return;
	r->answered = true;
	if (request_head(r)->minor > 0)
		http_put_last_chunk(&r->c->out);
	conn_next(r->c);
}

/* ---- by the head alone ------------------------------------------------------------------------ */

/* The name of a Host or Origin without its port. */
static struct str
without_port(struct str host)
{
	size_t end = host.n;

	if (host.n && host.p[0] == '[')
		return str_sub(host, 0, str_chr(host, ']') == SIZE_MAX ? host.n : str_chr(host, ']') + 1);
	while (end > 0 && host.p[end - 1] != ':')
		end--;
	return end ? str_sub(host, 0, end - 1) : host;
}

static bool
is_our_host(const struct request *r, struct str host)
{
	struct str name = without_port(host);

	return str_ieq(name, S("localhost")) || str_eqz(name, "127.0.0.1") || str_eqz(name, "[::1]") ||
	    (name.n && str_ieq(name, str_z(r->c->at->host))) ||
	    (name.n > 2 && name.p[0] == '[' && str_ieq(str_sub(name, 1, name.n - 2), str_z(r->c->at->host))) ||
	    config_lists(r->a->config, "gateway.allowed_hosts", name);
}

/* A browser says from which page it asks. Ours is fine, others are listed. */
static bool
is_our_origin(const struct request *r, struct str origin)
{
	size_t at = str_find(origin, S("://"));

	return config_lists(r->a->config, "gateway.allowed_origins", origin) ||
	    (at != SIZE_MAX && str_ieq(str_sub(origin, at + 3, origin.n), request_head(r)->host));
}

/* Does the path fit "/v1/sessions/{id}"? Its segments are kept. */
static bool
fits(struct request *r, const char *pattern)
{
	const char *at = buf_z(&r->path);

	size_t n;

	for (r->n_segments = 0; *pattern && (*pattern == *at || *pattern == '{'); pattern++, at += n) {
		n = 1;
		if (*pattern != '{')
			continue;
		n = strcspn(at, "/");
		if (n == 0 || r->n_segments == GATEWAY_SEGMENTS_MAX)
			return false;
		r->segments[r->n_segments++] = str_make(at, n);
		pattern = strchr(pattern, '}');
	}
	return *pattern == *at;
}

/* Metrics that have an address of their own are there and not here; beside them is only what says that it lives. */
static bool
is_here(const struct request *r, const char *path)
{
	if (strcmp(path, "/metrics") == 0)
		return r->c->at->metrics_only || !r->c->g->metrics_apart;
	return !r->c->at->metrics_only || strcmp(path, "/health") == 0;
}

/* Finds the route; else says 404, or 405 with the methods that there are. */
static bool
find_route(struct request *r)
{
	struct str method = request_head(r)->method;
	struct buf allow = BUF_INIT(256);
	bool head = str_eqz(method, "HEAD");

	for (size_t i = 0; features[i]; i++)
		for (const struct route *t = features[i]->routes; t && t->method && !r->route; t++) {
			if (!is_here(r, t->path) || !fits(r, t->path))
				continue;
			if (str_eqz(method, t->method) || (head && strcmp(t->method, "GET") == 0))
				r->route = t;
			else
				buf_fmt(&allow, "%s%s", allow.n ? ", " : "", t->method);
		}
	if (r->route) {
		buf_free(&allow);
		return true;
	}
	if (allow.n) {
		struct str asked = http_field(request_head(r), "access-control-request-headers");
		struct buf fields = BUF_INIT(HTTP_HEAD_MAX + 1024);

		buf_puts(&allow, str_find(buf_view(&allow), S("GET")) != SIZE_MAX ? ", HEAD, OPTIONS" : ", OPTIONS");
		http_put_field(&fields, "Allow", buf_view(&allow));
		if (str_eqz(method, "OPTIONS") && http_field(request_head(r), "origin").n)
			buf_puts(&fields, "Access-Control-Allow-Methods: GET, POST, DELETE\r\nAccess-Control-Max-Age: 600\r\n");
		if (str_eqz(method, "OPTIONS") && asked.n)      /* of a page that may ask at all, whatever its library sends */
			http_put_field(&fields, "Access-Control-Allow-Headers", asked);
		if (str_eqz(method, "OPTIONS"))
			request_answer_raw(r, 204, NULL, buf_view(&fields), STR_NONE);
		else
			answer_error(r, 405, "method_not_allowed", NULL, "see /openapi.json", buf_view(&fields),
			    "this path has no such method");
		buf_free(&fields);
	} else {
		request_error(r, 404, "not_found", NULL, "see /openapi.json", "there is nothing at %s", buf_z(&r->path));
	}
	buf_free(&allow);
	return false;
}

static bool
has_credential_in_query(struct str query)
{
	static const char *const names[] = { "token", "access_token", "key", "api_key", "bearer_token", "ticket" };
	struct buf out = BUF_INIT(HTTP_TARGET_MAX);
	bool found = false;

	for (size_t i = 0; query.n && i < ARRAY_LEN(names) && !found; i++)
		found = http_query(query, names[i], &out) != ERR_NOTFOUND;
	buf_free(&out);
	return found;
}

/* What is open to whoever is on this machine is not open to the world; who came by another name came from elsewhere. */
static bool
is_guarded(const struct request *r)
{
	return r->c->at->is_public || config_bool(r->a->config, "gateway.allow_public") ||
	    config_bool(r->a->config, "prometheus.require_auth") ||
	    config_lists(r->a->config, "gateway.allowed_hosts", without_port(request_head(r)->host));
}

static bool
authenticate(struct request *r)
{
	const struct gateway *g = r->c->g;
	unsigned scope = r->route->scope & ~(unsigned)SCOPE_OPEN;
	struct fail f = FAIL_INIT;
	int64_t wait_s = 0;
	enum err e;

	if ((r->route->scope & SCOPE_OPEN) && (scope == 0 || !is_guarded(r)))
		return true;
	if (r->a->phase == AGENT_STORAGE_FAILED) {
		request_failed(r, ERR_IO);
		return false;
	}
	e = g->auth->check(g->auth_self, request_head(r), str_z(r->c->peer), &r->who, &wait_s, &f);
	if (e == OK)
		conn_known(r->c);
	if (e == ERR_LIMIT) {
		metrics_count(r->a, METRIC_LIMITS, REACHED_RATE);
		r->wait_s = wait_s;
		request_error(r, 429, "rate_limit", NULL, NULL, "%s", f.text[0] ? f.text : "too many requests");
	} else if (e == ERR_AUTH) {
		answer_error(r, 401, "unauthorized", NULL, "make a key with: blufio pair --gateway",
		    S("WWW-Authenticate: Bearer realm=\"blufio\"\r\n"), f.text[0] ? f.text : "a valid credential is wanted");
	} else if (e == ERR_DENIED) {
		request_error(r, 403, "forbidden", NULL, "see docs/API.md, \"Browsers\"", "%s", f.text);
	} else if (e != OK) {
		request_failed(r, e);
	} else if (scope && !(r->who.scopes & scope)) {
		request_error(r, 403, "forbidden", NULL, NULL, "this credential lacks the scope of this route");
	} else {
		if (r->a->db->in_tx) {  /* a signature that was seen: nothing is done on it before that is stored */
			r->stored = false;
			r->release.run = on_release;
			agent_after(r->a, &r->release);
		}
		return true;
	}
	return false;
}

static bool
admit(struct request *r)
{
	const struct http_request *h = request_head(r);
	struct str origin = http_field(h, "origin");
	bool reads = str_eqz(h->method, "GET") || str_eqz(h->method, "HEAD") || str_eqz(h->method, "OPTIONS");
	bool body = h->chunked || h->content_length > 0;
	struct str parameters, type;
	enum err e;

	if (!is_our_host(r, h->host))
		request_error(r, 421, "misdirected_request", NULL, "blufio config set gateway.allowed_hosts '[\"name\"]'",
		    "this server does not answer for that host name");
	else if (has_credential_in_query(h->query))
		request_error(r, 400, "invalid_request", NULL, "send it as: Authorization: Bearer KEY",
		    "a credential has no place in an address, where logs keep it");
	else if (str_eqz(h->target, "*"))
		request_answer_raw(r, 204, NULL, S("Allow: GET, HEAD, POST, DELETE, OPTIONS\r\n"), STR_NONE);
	else if ((e = http_path_decode(h->path, &r->path)) == ERR_NOMEM)
		request_error(r, 503, "overloaded", NULL, "try again later", "no memory for the request's path");
	else if (e != OK)
		request_error(r, 400, "invalid_request", NULL, NULL, "the path cannot be read");
	else if (!find_route(r))
		return false;
	else if (origin.n && (!reads || h->upgrade_websocket) && !is_our_origin(r, origin))
		request_error(r, 403, "forbidden", NULL, "blufio config set gateway.allowed_origins '[\"https://…\"]'",
		    "pages of that origin may not do this");
	else if (!authenticate(r))
		return false;
	else {
		parameters = http_field(h, "content-type");
		str_cut(&parameters, ';', &type);
		if (body && (reads || str_eqz(h->method, "DELETE"))) {
			request_error(r, 400, "invalid_request", NULL, NULL, "a %.*s has no body", STR_ARG(h->method));
			return false;
		}
		if (body && !str_ieq(str_trim(type), S(JSON_TYPE))) {
			request_error(r, 415, "unsupported_media_type", NULL, NULL, "the body has to be application/json");
			return false;
		}
		buf_init(&r->body, r->route->scope & ROUTE_FILES ? BODY_MAX_FILES : BODY_MAX_API);
		if (h->content_length > (int64_t)r->body.max) {
			request_too_large(r);
			return false;
		}
		return true;
	}
	return false;
}

bool
request_admit(struct request *r)
{
	bool admitted;

	log_ids(0, 0, r->trace.id);
	admitted = admit(r);
	log_ids(0, 0, NULL);
	return admitted;
}

void
request_run(struct request *r)
{
	unsigned char digest[SHA256_SIZE];

	if (r->body.err != OK) {
		request_failed(r, r->body.err);
		return;
	}
	if (r->who.hashed)
		sha256_final(&r->sha, digest);
	if (r->who.hashed && memcmp(digest, r->who.body_hash, sizeof(digest)) != 0)
		request_error(r, 401, "unauthorized", NULL, NULL, "the body is not the one that was signed");
	else if (r->a->phase != AGENT_READY && !(r->route->scope & SCOPE_OPEN))
		request_error(r, 503, "unavailable", NULL, "try again later", "%s", r->a->phase == AGENT_DRAINING ?
		    "blufio is stopping" : "the storage does not work at the moment");
	else {
		log_ids(0, 0, r->trace.id);
		r->route->run(r);
		log_ids(0, 0, NULL);
	}
}

/* ---- bodies ------------------------------------------------------------------------------------- */

static bool
is_type(const struct json *v, char type)
{
	int64_t n;

	switch (type) {
	case 'i': return v->type == JSON_NUMBER && json_to_i64(v, &n) == OK;
	case 'a': return v->type == JSON_ARRAY;
	case 'b': return v->type == JSON_BOOL;
	case 'o': return v->type == JSON_OBJECT;
	default: return v->type == JSON_STRING;
	}
}

static const char *
type_name(char type)
{
	return type == 'i' ? "an integer" : type == 'a' ? "an array" : type == 'b' ? "true or false" :
	    type == 'o' ? "an object" : "a string";
}

/* The next word of members: its name, its type, whether it may be absent. */
static bool
next_member(struct str *members, struct str *name, char *type, bool *optional)
{
	struct str word;

	if (members->n == 0)
		return false;
	str_cut(members, ' ', &word);
	*optional = str_ends(word, S("?"));
	word.n -= *optional;
	*type = 's';
	if (word.n > 2 && word.p[word.n - 2] == ':') {
		*type = word.p[word.n - 1];
		word.n -= 2;
	}
	*name = word;
	return true;
}

const struct json *
request_object(struct request *r, struct arena *ar, const char *members)
{
	const struct json *o = NULL, *v;
	struct json_error je = { 0 };
	enum err e = json_parse(ar, buf_view(&r->body), &o, &je);
	struct str rest, name;
	char key[64], type;
	bool optional, known;

	if (e != OK && ar->err != OK) {
		request_failed(r, ERR_NOMEM);
		return NULL;
	}
	if (e != OK) {
		request_error(r, 400, "invalid_json", NULL, NULL, "the body is not JSON: line %u, column %u: %s", je.line,
		    je.column, je.what ? je.what : err_str(e));
		return NULL;
	}
	if (o->type != JSON_OBJECT) {
		request_error(r, 400, "invalid_request", NULL, NULL, "the body has to be a JSON object");
		return NULL;
	}
	for (v = members ? o->first : NULL; v; v = v->next) {
		rest = str_z(members);
		for (known = false; !known && next_member(&rest, &name, &type, &optional);)
			known = str_eq(v->key, name);
		snprintf(key, sizeof(key), "%.*s", STR_ARG(utf8_prefix(v->key, sizeof(key) - 1)));
		if (!known) {
			request_error(r, 400, "invalid_request", key, "see /openapi.json", "%s is not known here", key);
			return NULL;
		}
		if (!is_type(v, type) && !(optional && v->type == JSON_NULL)) {
			request_error(r, 400, "invalid_request", key, NULL, "%s has to be %s", key, type_name(type));
			return NULL;
		}
	}
	rest = str_z(members);
	while (next_member(&rest, &name, &type, &optional))
		if (!optional && !json_get(o, name)) {
			snprintf(key, sizeof(key), "%.*s", STR_ARG(name));
			request_error(r, 400, "invalid_request", key, NULL, "%s is missing", key);
			return NULL;
		}
	return o;
}
