/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * anthropic.c - Claude through the Messages API, always streaming.
 *
 * Version header 2026-10-21: no sampling fields, no prefill, no forced tool
 * choice, no `thinking` field at all (the 5.5 models think adaptively when it is
 * left out; what they thought is replayed verbatim from the rows). Two cache
 * breakpoints: the end of the static zone (system), and the automatic one that
 * the server moves to the newest block; a third where the newest answer and what
 * follows it are more blocks than a breakpoint looks back over. Unknown events, blocks, deltas and
 * fields are passed over.
 *
 * A stream is complete only with message_stop; anything else is an incomplete
 * answer and is asked for again by the rules of turn.c. After message_stop the
 * exchange is detached from its call, so that the answer goes on at once while
 * the connection finishes and returns to the pool.
 *
 * Two smaller questions are plain HTTP: how many tokens a request has, and which
 * models there are. They are free, and their failure is nobody's: no number, no
 * list.
 */
#include "blufio.h"

#include "base/sse.h"

#define ANTHROPIC_VERSION "2026-10-21"
#define PLAIN_MAX (1u << 20)            /* bytes of an answer that is no stream: a page of models, an error */
#define PAGE "100"                      /* models of one page */
#define PAGES_MAX 10
#define EVENT_ARENA_MAX (16u << 20)
#define LOOKBACK 20                     /* blocks in which a breakpoint finds what is cached, its own included */
#define TRACE "traceparent: "
#define SLOWEST_US 10                   /* a byte, of a large body: a side question may take that long on top */

struct op;
struct anthropic {
	struct agent *a;
	struct op *ops;                 /* exchanges in flight, detached ones too */
};
struct op {
	struct anthropic *p;
	struct llm_call *call;          /* NULL once ended, and for plain questions */
	struct fetch_op *fetch;
	struct sse sse;
	struct arena ar;                /* reset for every event */
	struct buf body;                /* of an answer that is no stream */
	char trace[sizeof(TRACE) + TRACE_HEADER_SIZE];  /* a header; "" none */
	unsigned status;
	bool hour;                      /* what it writes to the cache is kept that long */
	bool input_said;                /* by a usage block: without it nothing is known of the bill */
	/* plain questions: who takes the answer (NULL: there is none), and whom it is for */
	void (*plain)(struct op *op, const struct json *answer);
	llm_count_fn *count;
	llm_list_fn *list;
	void *arg;
	struct buf models;              /* what earlier pages said */
	unsigned pages;
	struct op *next, **prev;
};

static struct op *
op_new(struct anthropic *p)
{
	struct op *op = calloc(1, sizeof(*op));

	if (op == NULL)
		return NULL;
	op->p = p;
	sse_init(&op->sse);
	arena_init(&op->ar, EVENT_ARENA_MAX);
	buf_init(&op->body, PLAIN_MAX);
	buf_init(&op->models, PLAIN_MAX);
	op->next = p->ops;
	op->prev = &p->ops;
	if (op->next)
		op->next->prev = &op->next;
	p->ops = op;
	return op;
}

static void
op_free(struct op *op)
{
	fetch_cancel(op->fetch);
	*op->prev = op->next;
	if (op->next)
		op->next->prev = op->prev;
	sse_free(&op->sse);
	arena_free(&op->ar);
	buf_free(&op->body);
	buf_free(&op->models);
	free(op);
}

/* Log lines are of its trace. */
static void
log_op(const struct op *op)
{
	char id[sizeof(((struct trace *)0)->id)];

	snprintf(id, sizeof(id), "%.32s", op->trace + sizeof(TRACE "00-") - 1);
	log_ids(0, 0, op->trace[0] ? id : NULL);
}

/* ---- the answer ------------------------------------------------------------------------- */

static void
end(struct op *op, enum llm_class class, int64_t retry_after_us, struct str detail)
{
	struct llm_call *call = op->call;

	if (call == NULL)
		return;
	op->call = NULL;
	if (op->fetch)
		fetch_pause(op->fetch, false);  /* nobody is left who would resume it */
	llm_feed_end(call, class, op->status, retry_after_us, detail,
	    op->fetch ? fetch_header(op->fetch, "request-id") : STR_NONE);
}

static void
on_usage(struct op *op, const struct json *u, bool final)
{
	struct usage v;
	int64_t writes = json_i64(u, "cache_creation_input_tokens", -1);

	v.input = json_i64(u, "input_tokens", -1);
	v.output = json_i64(u, "output_tokens", -1);
	v.cache_read = json_i64(u, "cache_read_input_tokens", -1);
	v.write_5m = json_i64(u, "cache_creation.ephemeral_5m_input_tokens", -1);
	v.write_1h = json_i64(u, "cache_creation.ephemeral_1h_input_tokens", -1);
	if (writes >= 0 && v.write_5m < 0 && v.write_1h < 0) {  /* message_delta has the sum alone: all is of one life */
		v.write_5m = op->hour ? 0 : writes;
		v.write_1h = op->hour ? writes : 0;
	}
	op->input_said |= v.input >= 0;
	llm_feed_usage(op->call, &v, final && op->input_said && v.output >= 0);
}

static void
on_block_delta(struct op *op, size_t index, const struct json *d)
{
	struct str type = json_str(d, "type", STR_NONE);

	if (str_eqz(type, "text_delta"))
		llm_feed_text(op->call, index, json_str(d, "text", STR_NONE));
	else if (str_eqz(type, "input_json_delta"))
		llm_feed_input(op->call, index, json_str(d, "partial_json", STR_NONE));
	else if (str_eqz(type, "thinking_delta"))
		llm_feed_thinking(op->call, index, json_str(d, "thinking", STR_NONE));
	else if (str_eqz(type, "signature_delta"))
		llm_feed_signature(op->call, index, json_str(d, "signature", STR_NONE));
	else if (str_eqz(type, "citations_delta") && json_at(d, "citation"))
		llm_feed_citation(op->call, index, json_at(d, "citation")->raw);
	else if (str_eqz(type, "compaction_delta"))
		llm_feed_compaction(op->call, index, json_str(d, "content", STR_NONE));
}

static void
on_block_start(struct op *op, size_t index, const struct json *b)
{
	llm_feed_block(op->call, index, json_str(b, "type", STR_NONE), json_str(b, "id", STR_NONE),
	    json_str(b, "name", STR_NONE), b ? b->raw : STR_NONE);
	/* a block may start with content already in it */
	llm_feed_text(op->call, index, json_str(b, "text", STR_NONE));
	llm_feed_thinking(op->call, index, json_str(b, "thinking", STR_NONE));
	llm_feed_signature(op->call, index, json_str(b, "signature", STR_NONE));
	if (str_eqz(json_str(b, "type", STR_NONE), "compaction"))
		llm_feed_compaction(op->call, index, json_str(b, "content", STR_NONE));
	for (const struct json *k = json_at(b, "citations") ? json_at(b, "citations")->first : NULL; k; k = k->next)
		llm_feed_citation(op->call, index, k->raw);
}

static void
on_stop(struct op *op, const struct json *delta)
{
	static const struct { const char *name; enum llm_stop stop; } reasons[] = {
		{ "end_turn", LLM_STOP_END }, { "tool_use", LLM_STOP_TOOLS },
		{ "max_tokens", LLM_STOP_MAX_TOKENS }, { "stop_sequence", LLM_STOP_SEQUENCE },
		{ "pause_turn", LLM_STOP_PAUSE }, { "refusal", LLM_STOP_REFUSAL },
		{ "model_context_window_exceeded", LLM_STOP_WINDOW },
	};
	struct str reason = json_str(delta, "stop_reason", STR_NONE);

	if (reason.n == 0)
		return;
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (str_eqz(reason, reasons[i].name)) {
			llm_feed_stop(op->call, reasons[i].stop, json_str(delta, "stop_details.explanation",
			    json_str(delta, "stop_details.category", STR_NONE)));
			return;
		}
	log_op(op);
	log_warn("anthropic", "unknown stop_reason %.*s taken as the end of the answer", STR_ARG(reason));
	log_ids(0, 0, NULL);
	llm_feed_stop(op->call, LLM_STOP_END, STR_NONE);
}

static enum llm_class
class_of_type(struct str type)
{
	if (str_eqz(type, "authentication_error") || str_eqz(type, "permission_error"))
		return LLM_BAD_KEY;
	if (str_eqz(type, "billing_error"))
		return LLM_BILLING;
	if (str_eqz(type, "not_found_error"))
		return LLM_BAD_MODEL;
	if (str_eqz(type, "request_too_large"))
		return LLM_TOO_LARGE;
	if (str_eqz(type, "invalid_request_error"))
		return LLM_BAD_REQUEST;
	return LLM_RETRY;               /* overloaded, api, timeout, rate limit, new ones */
}

static void
on_event(void *arg, struct str type, struct str data, struct str id)
{
	struct op *op = arg;
	const struct json *ev;
	size_t index;

	(void)type;                     /* always equals data.type */
	(void)id;
	if (op->call == NULL)
		return;
	arena_reset(&op->ar);
	if (json_parse(&op->ar, data, &ev, NULL) != OK) {
		end(op, LLM_RETRY, -1, S("the provider sent an event that is not JSON"));
		return;
	}
	type = json_str(ev, "type", STR_NONE);
	index = (size_t)json_i64(ev, "index", 0);
	if (str_eqz(type, "content_block_delta")) {
		on_block_delta(op, index, json_at(ev, "delta"));
	} else if (str_eqz(type, "content_block_start")) {
		on_block_start(op, index, json_at(ev, "content_block"));
	} else if (str_eqz(type, "content_block_stop")) {
		llm_feed_block_end(op->call, index);
	} else if (str_eqz(type, "message_start")) {
		on_usage(op, json_at(ev, "message.usage"), false);
	} else if (str_eqz(type, "message_delta")) {
		on_usage(op, json_at(ev, "usage"), true);
		on_stop(op, json_at(ev, "delta"));
	} else if (str_eqz(type, "message_stop")) {
		end(op, LLM_OK, -1, STR_NONE);
	} else if (str_eqz(type, "error")) {
		end(op, class_of_type(json_str(ev, "error.type", STR_NONE)), -1,
		    json_str(ev, "error.message", S("the provider reported an error")));
	}
}

/* ---- errors ---------------------------------------------------------------------------------- */

static enum llm_class
class_of_status(const struct op *op, struct str type, struct str message)
{
	struct str should = fetch_header(op->fetch, "x-should-retry");
	bool retry = op->status == 408 || op->status == 409 || op->status == 429 || op->status >= 500;

	if (str_eqz(should, "true"))
		return LLM_RETRY;
	if (retry)
		return !str_eqz(should, "false") ? LLM_RETRY : op->status == 429 ? LLM_BILLING : LLM_BAD_REQUEST;
	if (op->status == 400 && str_find(message, S("thinking")) != SIZE_MAX &&
	    str_find(message, S("signature")) != SIZE_MAX)
		return LLM_THINKING;
	if (op->status == 400 && str_find(message, S("prompt is too long")) != SIZE_MAX)
		return LLM_TOO_LARGE;
	if (op->status == 400 && str_find(message, S("credit balance")) != SIZE_MAX)
		return LLM_BILLING;
	if (op->status == 413)
		return LLM_TOO_LARGE;
	if (op->status == 401)
		return LLM_BAD_KEY;
	return type.n ? class_of_type(type) : LLM_BAD_REQUEST;
}

/* What it answers may be cut or no JSON at all: then NULL. */
static const struct json *
plain_body(struct op *op)
{
	const struct json *body;

	arena_reset(&op->ar);
	return json_parse(&op->ar, buf_view(&op->body), &body, NULL) == OK ? body : NULL;
}

static void
on_http_error(struct op *op)
{
	const struct json *body = plain_body(op);
	struct str message;
	char fallback[64];

	snprintf(fallback, sizeof(fallback), "HTTP status %u", op->status);
	message = json_str(body, "error.message", str_z(fallback));
	end(op, class_of_status(op, json_str(body, "error.type", STR_NONE), message),
	    llm_retry_after(fetch_header(op->fetch, "retry-after-ms"), fetch_header(op->fetch, "retry-after")), message);
}

/* The limits of this model's pool. A reset is a time of the provider's clock: its own Date makes it a span.
 * Both may be cut to whole seconds, so that it may be one more. */
static void
feed_limits(struct op *op)
{
	static const char *const names[LLM_LIMITS] = { "requests", "tokens", "input-tokens", "output-tokens" };
	struct llm_limit l[LLM_LIMITS];
	int64_t date, reset;

	if (clock_parse(fetch_header(op->fetch, "date"), &date) != OK)
		date = clock_us();
	for (size_t i = 0; i < LLM_LIMITS; i++) {
		static const char *const leaf[] = { "limit", "remaining", "reset" };
		struct str said[3];

		for (size_t k = 0; k < 3; k++) {
			char name[64];

			snprintf(name, sizeof(name), "anthropic-ratelimit-%s-%s", names[i], leaf[k]);
			said[k] = fetch_header(op->fetch, name);
		}
		l[i] = (struct llm_limit){ -1, -1, 0 };
		if (str_i64(said[1], 0, INT64_MAX, &l[i].remaining) != OK || clock_parse(said[2], &reset) != OK)
			l[i].remaining = -1;
		else if (reset >= date)
			l[i].reset_us = reset - date + US_PER_S;
		if (str_i64(said[0], 0, INT64_MAX, &l[i].limit) != OK)
			l[i].limit = -1;
	}
	llm_feed_limits(op->call, l);
}

static void
on_head(void *arg, struct fetch_op *f, unsigned status)
{
	struct op *op = arg;

	(void)f;
	op->status = status;
	if (op->call)
		feed_limits(op);
}

static void
on_data(void *arg, struct fetch_op *f, struct str bytes)
{
	struct op *op = arg;

	(void)f;
	if (op->status != 200 || op->plain) {
		buf_str(&op->body, str_sub(bytes, 0, PLAIN_MAX - op->body.n));
		return;
	}
	if (op->call && sse_feed(&op->sse, bytes, on_event, op) != OK)
		end(op, LLM_RETRY, -1, S("the provider's event stream broke a limit"));
}

static void
on_done(void *arg, struct fetch_op *f, const struct fetch_result *r)
{
	struct op *op = arg;

	(void)f;
	if (op->call) {
		if (r->err != OK && !r->sent)
			llm_feed_unsent(op->call);
		if (r->err != OK)
			end(op, LLM_RETRY, -1, str_z(r->why));
		else if (op->status != 200)
			on_http_error(op);
		else
			end(op, LLM_RETRY, -1, S("the answer ended before it was complete"));
	}
	op->fetch = NULL;               /* freed by fetch after this call */
	if (op->plain) {
		log_op(op);
		if (r->err != OK || op->status != 200)
			log_info("anthropic", "no answer to a side question: status %u %s", op->status, r->why);
		log_ids(0, 0, NULL);
		op->plain(op, r->err == OK && op->status == 200 ? plain_body(op) : NULL);
	}
	if (op->fetch == NULL)          /* else it goes on with another page */
		op_free(op);
}

/* ---- the question -------------------------------------------------------------------------------- */

static void
write_cache_control(struct jw *w, const struct llm_request *r)
{
	if (r->once)
		return;
	jw_key(w, "cache_control");
	jw_obj(w);
	jw_kz(w, "type", "ephemeral");
	if (r->hour)
		jw_kz(w, "ttl", "1h");
	jw_end_obj(w);
}

/* A reference to a file becomes its bytes, put there while the request is sent. */
static enum err
write_media(struct jw *w, struct body *b, struct agent *a, const struct json *block)
{
	struct str type = json_str(block, "source.media_type", STR_NONE);
	bool text = str_eqz(type, "text/plain");
	const struct json *title = json_at(block, "title");
	struct buf path = BUF_INIT(4096);
	enum err e = media_path(a, json_str(block, "source.hash", STR_NONE), &path);

	jw_obj(w);
	jw_kstr(w, "type", json_str(block, "type", STR_NONE));
	jw_key(w, "source");
	jw_obj(w);
	jw_kz(w, "type", text ? "text" : "base64");
	jw_kstr(w, "media_type", type);
	jw_kz(w, "data", "");
	if (e == OK)
		body_insert(b, 1, path.p, text ? BODY_JSON : BODY_BASE64);
	jw_end_obj(w);
	if (title)
		jw_kraw(w, "title", title->raw);
	jw_end_obj(w);
	buf_free(&path);
	return e;
}

static enum err
write_blocks(struct jw *w, struct body *b, struct agent *a, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
	const struct json *blocks = NULL;
	enum err e = json_parse(&ar, content, &blocks, NULL);

	jw_key(w, "content");
	jw_arr(w);
	for (const struct json *k = e == OK ? blocks->first : NULL; k && e == OK; k = k->next) {
		if (str_eqz(json_str(k, "source.type", STR_NONE), "media"))
			e = write_media(w, b, a, k);
		else
			jw_raw(w, k->raw);
	}
	jw_end_arr(w);
	arena_free(&ar);
	return e;
}

/* The newest answer, when with all behind it the automatic breakpoint cannot see the end of the request before;
 * SIZE_MAX: it can. */
static size_t
find_mark(const struct llm_request *r)
{
	size_t i = r->n_messages, n = 1;        /* a system message may be the last */

	while (i > 0 && !r->once) {
		struct str rest = r->messages[--i].content;

		/* at least as many as there are: inputs of tools may hold such bytes too, strings cannot */
		for (size_t at; (at = str_find(rest, S("{\"type\":\""))) != SIZE_MAX; n++)
			rest = str_sub(rest, at + 1, rest.n);
		if (r->messages[i].role[0] == 'a')
			return n >= LOOKBACK ? i : SIZE_MAX;
	}
	return SIZE_MAX;
}

/* The answer with a breakpoint on its first block that may have one. */
static enum err
write_marked(struct jw *w, const struct llm_request *r, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
	const struct json *blocks = NULL;
	enum err e = json_parse(&ar, content, &blocks, NULL);
	bool marked = false;

	jw_key(w, "content");
	jw_arr(w);
	for (const struct json *k = e == OK ? blocks->first : NULL; k; k = k->next) {
		struct str type = json_str(k, "type", STR_NONE);

		if (marked || (!str_eqz(type, "text") && !str_eqz(type, "tool_use"))) {
			jw_raw(w, k->raw);
			continue;
		}
		marked = true;
		jw_obj(w);
		for (const struct json *m = k->first; m; m = m->next) {
			jw_key_str(w, m->key);
			jw_raw(w, m->raw);
		}
		write_cache_control(w, r);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	arena_free(&ar);
	return e;
}

/* What the request asks for beyond its words. Without tools there is nothing to choose. */
static void
write_wishes(struct jw *w, const struct llm_request *r)
{
	if (r->tools.n && (r->no_tools || r->one_call)) {
		jw_key(w, "tool_choice");
		jw_obj(w);
		jw_kz(w, "type", r->no_tools ? "none" : "auto");
		if (!r->no_tools)
			jw_kbool(w, "disable_parallel_tool_use", true);
		jw_end_obj(w);
	}
	if (r->stop.n)
		jw_kraw(w, "stop_sequences", r->stop);
	if (!r->effort.n && !r->schema.n)
		return;
	jw_key(w, "output_config");
	jw_obj(w);
	if (r->effort.n)
		jw_kstr(w, "effort", r->effort);
	if (r->schema.n) {
		jw_key(w, "format");
		jw_obj(w);
		jw_kz(w, "type", "json_schema");
		jw_kraw(w, "schema", r->schema);
		jw_end_obj(w);
	}
	jw_end_obj(w);
}

static enum err
write_body(struct body *b, struct agent *a, const struct llm_request *r, bool counting)
{
	size_t mark = find_mark(r);
	struct jw w;
	enum err e = OK;

	jw_init(&w, &b->text);
	jw_obj(&w);
	jw_kz(&w, "model", strncmp(r->model, "anthropic/", 10) == 0 ? r->model + 10 : r->model);
	if (!counting) {
		jw_ki64(&w, "max_tokens", r->max_tokens);
		jw_kbool(&w, "stream", true);
	}
	write_cache_control(&w, r);
	if (r->tools.n)
		jw_kraw(&w, "tools", r->tools);
	write_wishes(&w, r);
	if (r->system.n) {
		jw_key(&w, "system");
		jw_arr(&w);
		jw_obj(&w);
		jw_kz(&w, "type", "text");
		jw_kstr(&w, "text", r->system);
		write_cache_control(&w, r);
		jw_end_obj(&w);
		jw_end_arr(&w);
	}
	jw_key(&w, "messages");
	jw_arr(&w);
	for (size_t i = 0; i < r->n_messages && e == OK; i++) {
		jw_obj(&w);
		jw_kz(&w, "role", r->messages[i].role);
		if (i == mark)
			e = write_marked(&w, r, r->messages[i].content);
		else if (r->messages[i].media)
			e = write_blocks(&w, b, a, r->messages[i].content);
		else
			jw_kraw(&w, "content", r->messages[i].content);
		jw_end_obj(&w);
	}
	jw_end_arr(&w);
	jw_end_obj(&w);
	return e != OK ? e : jw_done(&w);
}

/* Read for every call: a new key or address works from the next call on. */
static enum err
write_address(const struct config *c, const char *path, struct buf *url, struct buf *key)
{
	struct str base = config_str(c, "anthropic.base_url");
	const struct secret *secret = config_secret(c, "anthropic.api_key");

	while (str_ends(base, S("/")))
		base.n--;
	buf_str(url, base);
	buf_puts(url, path);
	buf_puts(key, "x-api-key: ");
	if (secret)
		buf_str(key, secret_reveal(secret));
	return url->err != OK ? url->err : key->err;
}

/* body NULL: a GET. Takes what is in body. A call may take long and must not be sent twice: it would be
 * billed twice and booked once. */
static enum err
send(struct op *op, const char *path, struct body *body)
{
	static const struct fetch_cb cb = { on_head, on_data, on_done };
	struct buf url = BUF_INIT(2048), key = BUF_INIT(1024);
	enum err e = write_address(op->p->a->config, path, &url, &key);

	if (e == OK) {
		const char *headers[] = { "content-type: application/json", "anthropic-version: " ANTHROPIC_VERSION, key.p,
		    op->trace[0] ? op->trace : NULL, NULL };
		const struct fetch_req req = { .method = body ? "POST" : "GET", .url = url.p, .headers = headers,
		    .body_from = body, .idle_us = op->plain ? 0 : LLM_IDLE_US, .once = !op->plain,
		    .total_us = op->plain ? LLM_PLAIN_US + (body ? (int64_t)body_size(body) * SLOWEST_US : 0) : 0,
		    .body_max = op->plain ? PLAIN_MAX : 256u << 20 };

		e = fetch_start(op->p->a->fetch, &req, &cb, op, &op->fetch);
	}
	if (key.p)
		secret_wipe(key.p, key.n);
	buf_free(&url);
	buf_free(&key);
	return e;
}

static enum err
post(struct op *op, const char *path, const struct llm_request *r, void **out)
{
	struct body body;
	enum err e;

	if (r->trace.n)
		snprintf(op->trace, sizeof(op->trace), TRACE "%.*s", STR_ARG(r->trace));
	body_init(&body, REQUEST_MAX);
	e = write_body(&body, op->p->a, r, op->plain != NULL);
	if (e == OK)
		e = send(op, path, &body);
	body_free(&body);
	if (e != OK)
		op_free(op);
	else
		*out = op;
	return e;
}

static enum err
anthropic_call(void *self, const struct llm_request *r, struct llm_call *call, void **out)
{
	struct op *op = op_new(self);

	if (op == NULL)
		return ERR_NOMEM;
	op->call = call;
	op->hour = r->hour;
	return post(op, "/v1/messages", r, out);
}

static void
on_counted(struct op *op, const struct json *answer)
{
	op->count(op->arg, json_i64(answer, "input_tokens", -1));
}

static enum err
anthropic_count(void *self, const struct llm_request *r, llm_count_fn *fn, void *arg, void **out)
{
	struct op *op = op_new(self);

	if (op == NULL)
		return ERR_NOMEM;
	op->plain = on_counted;
	op->count = fn;
	op->arg = arg;
	return post(op, "/v1/messages/count_tokens", r, out);
}

/* Goes into an address as it is: anything unusual ends the list instead. */
static bool
is_plain_id(struct str id)
{
	for (size_t i = 0; i < id.n; i++)
		if (!((id.p[i] >= 'a' && id.p[i] <= 'z') || (id.p[i] >= 'A' && id.p[i] <= 'Z') ||
		    (id.p[i] >= '0' && id.p[i] <= '9') || id.p[i] == '-' || id.p[i] == '.' || id.p[i] == '_'))
			return false;
	return id.n > 0 && id.n <= 128;
}

/* A page joins the list; with the last one, or without an answer, it is handed over. */
static void
on_models(struct op *op, const struct json *answer)
{
	const struct json *data = json_at(answer, "data");
	struct str last = json_str(answer, "last_id", STR_NONE);
	char path[256];

	for (const struct json *m = data ? data->first : NULL; m; m = m->next) {
		struct str id = json_str(m, "id", STR_NONE);

		if (!is_plain_id(id))
			continue;
		buf_puts(&op->models, op->models.n ? ",[" : "[[");
		json_quote(&op->models, id);
		buf_putc(&op->models, ',');
		json_quote(&op->models, json_str(m, "display_name", id));
		buf_putc(&op->models, ']');
	}
	if (json_bool(answer, "has_more", false) && is_plain_id(last) && ++op->pages < PAGES_MAX) {
		snprintf(path, sizeof(path), "/v1/models?limit=" PAGE "&after_id=%.*s", STR_ARG(last));
		buf_reset(&op->body);
		if (send(op, path, NULL) == OK)
			return;
	}
	if (op->models.n)
		buf_putc(&op->models, ']');
	op->list(op->arg, answer && op->models.err == OK ? buf_view(&op->models) : STR_NONE);
}

static enum err
anthropic_list(void *self, llm_list_fn *fn, void *arg, void **out)
{
	struct op *op = op_new(self);
	enum err e;

	if (op == NULL)
		return ERR_NOMEM;
	op->plain = on_models;
	op->list = fn;
	op->arg = arg;
	e = send(op, "/v1/models?limit=" PAGE, NULL);
	if (e != OK)
		op_free(op);
	else
		*out = op;
	return e;
}

static void
anthropic_cancel(void *op)
{
	op_free(op);
}

static void
anthropic_pause(void *arg, bool paused)
{
	struct op *op = arg;

	fetch_pause(op->fetch, paused);
}

static bool
anthropic_configured(const struct config *c, struct fail *why)
{
	if (config_secret(c, "anthropic.api_key"))
		return true;
	IGNORE(fail_set(why, ERR_CONFIG, "no Anthropic API key: anthropic.api_key is not set and the"
	    " environment has no ANTHROPIC_API_KEY; next: `blufio config set anthropic.api_key -`"));
	return false;
}

static enum err
anthropic_start(struct agent *a, const char *name, void **self, struct fail *f)
{
	struct anthropic *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return fail_set(f, ERR_NOMEM, "anthropic: out of memory");
	(void)name;
	p->a = a;
	*self = p;
	return OK;
}

static void
anthropic_free(void *self)
{
	struct anthropic *p = self;

	if (p == NULL)
		return;
	while (p->ops)
		op_free(p->ops);
	free(p);
}

/* State of 2026-11. What a model takes as `thinking` is here for whoever sends one: left out, it thinks as it
 * was made to. Haiku 5.5 can be told not to think at low effort only, so here it counts as one that cannot. */
#define K 1000
#define M (1000 * K)
#define ALL MODEL_PDF
#define OLD (ALL | MODEL_DISABLED | MODEL_BUDGET)                       /* up to 4.6 */
#define NEW (ALL | MODEL_ADAPTIVE | MODEL_SILENT)                       /* from 4.7 on */
#define SYS (NEW | MODEL_SYSTEM_TURNS)
#define TOP (SYS | MODEL_BOUND)                                         /* 5.5, and Fable from 5.1 on */
static const struct model_info models[] = {
	/*                     window  answer   min  pics    in    out  5 min   1 h   read  band  x  flags */
	{ "claude-sonnet-5-5",    M, 128 * K,  512, 600,  2000, 10000,  2500,  4000,  100,     0, 1, TOP | MODEL_BETWEEN_TOOLS },
	{ "claude-sonnet-5",      M, 128 * K, 1024, 600,  2000, 10000,  2500,  4000,  200,     0, 1, NEW | MODEL_DISABLED },
	{ "claude-sonnet-4-6",    M,  64 * K, 1024, 600,  3000, 15000,  3750,  6000,  300,     0, 1, OLD },
	{ "claude-opus-5-5",      M, 128 * K,  512, 600,  4000, 20000,  5000,  8000,  200,     0, 1, TOP },
	{ "claude-opus-5",        M, 128 * K,  512, 600,  5000, 25000,  6250, 10000,  500,     0, 1, SYS | MODEL_DISABLED },
	{ "claude-opus-4-8",      M, 128 * K, 1024, 600,  5000, 25000,  6250, 10000,  500,     0, 1, SYS | MODEL_DISABLED },
	{ "claude-opus-4-7",      M, 128 * K, 2048, 600,  5000, 25000,  6250, 10000,  500,     0, 1, NEW | MODEL_DISABLED },
	{ "claude-opus-4-6",      M, 128 * K, 4096, 600,  5000, 25000,  6250, 10000,  500,     0, 1, OLD },
	{ "claude-opus-4-5", 200 * K, 64 * K, 4096, 100,  5000, 25000,  6250, 10000,  500,     0, 1, OLD },
	{ "claude-haiku-5-5",     M, 128 * K,  512, 600,   100,   500,   125,   200,   10, 100 * K, 5, TOP },
	{ "claude-haiku-4-5", 200 * K, 64 * K, 4096, 100, 1000,  5000,  1250,  2000,  100,     0, 1, OLD },
	{ "claude-haiku-4-5-20251001", 200 * K, 64 * K, 4096, 100, 1000, 5000, 1250, 2000, 100, 0, 1, OLD },
	{ "claude-fable-5-2",     M, 128 * K,  512, 600,  8000, 40000, 10000, 16000,  200,     0, 1, TOP },
	{ "claude-fable-5-1",     M, 128 * K,  512, 600, 10000, 50000, 12500, 20000,  250,     0, 1, TOP },
	{ "claude-fable-5",       M, 128 * K,  512, 600, 10000, 50000, 12500, 20000, 1000,     0, 1, SYS },
	{ .id = NULL },
};
#undef K
#undef M
#undef ALL
#undef OLD
#undef NEW
#undef SYS
#undef TOP

static const struct config_key keys[] = {
	{ .name = "anthropic.api_key", .type = CONFIG_SECRET, .env = "ANTHROPIC_API_KEY",
	  .help = "API key for Claude." },
	{ .name = "anthropic.base_url", .type = CONFIG_URL, .dflt = "https://api.anthropic.com",
	  .help = "Base address of the Messages API; http:// only for this machine." },
	{ .name = "anthropic.default_model", .type = CONFIG_STRING, .dflt = "claude-sonnet-5-5",
	  .help = "Exact model id. A model that blufio has no price for needs a [pricing.\"id\"] table." },
	{ .name = "anthropic.max_tokens", .type = CONFIG_INT, .dflt = "16384", .min = 1, .max = 128000,
	  .help = "Upper bound of one answer in tokens, thinking included." },
	{ .name = NULL },
};

static const struct provider_ops ops = {
	.models = models,
	.default_model_key = "anthropic.default_model",
	.max_tokens_key = "anthropic.max_tokens",
	.api_key = "anthropic.api_key",
	.configured = anthropic_configured,
	.start = anthropic_start,
	.free = anthropic_free,
	.call = anthropic_call,
	.count = anthropic_count,
	.list = anthropic_list,
	.cancel = anthropic_cancel,
	.pause = anthropic_pause,
};

const struct feature anthropic_feature = {
	.name = "anthropic",
	.kind = FEATURE_PROVIDER,
	.summary = "Claude through the Messages API",
	.keys = keys,
	.provider = &ops,
};
