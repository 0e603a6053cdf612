/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * openai.c - any server that speaks Chat Completions, as [providers.NAME], always streaming.
 *
 * History is kept in the blocks of the Messages API (context.c): oa_question.c makes
 * their messages of it, oa_answer.c blocks of their answers. What servers do
 * differently is a row of a table, found by the host and overridden by `server`.
 *
 * What a model thought before it called tools goes back to the same server, as it
 * came: some refuse the request without it. It is kept as a block of redacted
 * thinking that names its provider; whatever drops thinking drops it.
 *
 * Settings are read for every call: a new key or address works from the next one on.
 * An answer is whole with [DONE], or at its end once a finish_reason was seen; then
 * the exchange is detached from its call, as in anthropic.c.
 */
#include "openai/oa.h"

#define PLAIN_MAX (4u << 20)            /* bytes of an answer that is no stream */
#define IDLE_US (300 * US_PER_S)        /* without a byte: nobody pings here while a model thinks */
#define IDLE_LOCAL_US (900 * US_PER_S)  /* a small machine reads a long prompt */
#define LISTED_ID_MAX 90                /* bytes of a model's id that can be chosen */
#define NAMED "providers.*."

static const struct oa_server servers[] = {
	/*                              limit  role   usage  files  insists choice schema effort */
	{ "openai", "api.openai.com",   true,  true,  true,  true,  false, true,  true,  "reasoning_effort" },
	{ "openrouter", "openrouter.ai", false, false, true, true,  false, true,  true,  "reasoning" },
	{ "deepseek", "api.deepseek.com", false, false, true, false, true, false, false, "reasoning_effort" },
	{ "plain", NULL,                false, false, false, false, false, false, false, NULL },
	/* Ollama (which has no tool_choice), llama.cpp, Groq, vLLM … */
	{ "other", "",                  false, false, true,  false, false, false, true,  "reasoning_effort" },
};

static struct oa_op *
op_new(struct oa *p)
{
	struct oa_op *op = calloc(1, sizeof(*op));

	if (op == NULL)
		return NULL;
	op->p = p;
	sse_init(&op->sse);
	arena_init(&op->ar, EVENT_ARENA_MAX);
	buf_init(&op->body, PLAIN_MAX);
	buf_init(&op->thinking, REPLY_MAX);
	buf_init(&op->refusal, 4096);
	op->next = p->ops;
	op->prev = &p->ops;
	if (op->next)
		op->next->prev = &op->next;
	p->ops = op;
	return op;
}

static void
op_free(struct oa_op *op)
{
	fetch_cancel(op->fetch);
	*op->prev = op->next;
	if (op->next)
		op->next->prev = op->prev;
	oa_answer_free(op);
	sse_free(&op->sse);
	arena_free(&op->ar);
	buf_free(&op->body);
	free(op);
}

/* ---- settings --------------------------------------------------------------------------- */

static bool
is_local(const struct config *c, struct str name)
{
	struct url u;

	return url_parse(config_wild_str(c, NAMED "base_url", name), &u) == OK && !u.tls;
}

static const struct oa_server *
server_of(const struct config *c, struct str name)
{
	struct str wanted = config_wild_str(c, NAMED "server", name);
	const struct oa_server *s = servers;
	struct url u = { .tls = false };

	if (url_parse(config_wild_str(c, NAMED "base_url", name), &u) != OK)
		u.host = STR_NONE;
	while (s < &servers[ARRAY_LEN(servers) - 1] &&
	    (wanted.n ? !str_eqz(wanted, s->name) : s->host == NULL || !str_ends(u.host, str_z(s->host))))
		s++;
	return s;
}

/* ---- exchanges ------------------------------------------------------------------------------ */

static void
on_head(void *arg, struct fetch_op *f, unsigned status)
{
	struct oa_op *op = arg;

	op->status = status;
	op->plain = status != 200 || op->list || str_find(fetch_header(f, "content-type"), S("application/json")) != SIZE_MAX;
	if (op->call)
		oa_limits(op);
}

static void
on_data(void *arg, struct fetch_op *f, struct str bytes)
{
	struct oa_op *op = arg;

	(void)f;
	if (op->plain)
		buf_str(&op->body, str_sub(bytes, 0, PLAIN_MAX - op->body.n));
	else if (op->call && sse_feed(&op->sse, bytes, oa_event, op) != OK)
		oa_over(op, "the provider's event stream broke a limit");
}

/* Ids that can be typed and shown. */
static void
on_models(struct oa_op *op, const struct json *data)
{
	struct buf list = BUF_INIT(1u << 20), id = BUF_INIT(256);

	buf_putc(&list, '[');
	for (const struct json *m = data ? data->first : NULL; m; m = m->next) {
		struct str own = json_str(m, "id", STR_NONE);
		bool good = own.n > 0 && own.n <= LISTED_ID_MAX;

		for (size_t i = 0; i < own.n; i++)
			good = good && own.p[i] > ' ' && own.p[i] < 0x7f && !strchr("\"\\'`<>", own.p[i]);
		if (!good)
			continue;
		buf_reset(&id);
		buf_fmt(&id, "%s/%.*s", op->p->name, STR_ARG(own));
		buf_puts(&list, list.n > 1 ? ",[" : "[");
		json_quote(&list, buf_view(&id));
		buf_putc(&list, ',');
		json_quote(&list, buf_view(&id));
		buf_putc(&list, ']');
	}
	buf_putc(&list, ']');
	op->list(op->arg, data && list.err == OK && id.err == OK ? buf_view(&list) : STR_NONE);
	buf_free(&list);
	buf_free(&id);
}

static void
on_done(void *arg, struct fetch_op *f, const struct fetch_result *r)
{
	struct oa_op *op = arg;
	const struct json *body = NULL;

	(void)f;
	arena_reset(&op->ar);
	if (r->err == OK && op->plain && json_parse(&op->ar, buf_view(&op->body), &body, NULL) != OK)
		body = NULL;
	if (op->call && r->err == OK && op->status != 200)
		oa_error(op, body);
	else if (op->call && body)
		oa_chunk(op, body);
	else if (op->call && r->err == OK && !op->plain && sse_feed(&op->sse, S("\n\n"), oa_event, op) != OK) /* the last has no end */
		oa_over(op, "the provider's event stream broke a limit");
	if (op->call && r->err != OK && !r->sent)
		llm_feed_unsent(op->call);
	if (op->call)
		oa_over(op, r->err != OK ? r->why : "the answer ended before it was complete");
	op->fetch = NULL;               /* freed by fetch after this call */
	if (op->list) {
		if (r->err != OK || op->status != 200)
			log_info("openai", "%s does not list its models: status %u %s", op->p->name, op->status, r->why);
		on_models(op, op->status == 200 ? json_at(body, "data") : NULL);
	}
	op_free(op);
}

/* body NULL: a GET. Takes what is in body. A call must not be sent twice: it would be billed twice and booked once. */
static enum err
send(struct oa_op *op, const char *path, struct body *body, struct str trace)
{
	static const struct fetch_cb cb = { on_head, on_data, on_done };
	const struct config *c = op->p->a->config;
	struct str name = str_z(op->p->name);
	const struct secret *secret = config_wild_secret(c, NAMED "api_key", name);
	struct buf url = BUF_INIT(2048), key = BUF_INIT(1024), parent = BUF_INIT(128);
	enum err e;

	buf_str(&url, config_wild_str(c, NAMED "base_url", name));
	buf_puts(&url, path);
	if (secret) {
		buf_puts(&key, "authorization: Bearer ");
		buf_str(&key, secret_reveal(secret));
	}
	buf_fmt(&parent, "traceparent: %.*s", STR_ARG(trace));
	e = url.err != OK ? url.err : key.err != OK ? key.err : parent.err;
	if (e == OK) {
		const char *headers[4] = { "content-type: application/json" };
		size_t n = 1;
		const struct fetch_req req = { .method = body ? "POST" : "GET", .url = url.p, .headers = headers, .body_from = body,
		    .idle_us = is_local(c, name) ? IDLE_LOCAL_US : IDLE_US, .once = body != NULL,
		    .total_us = body ? TURN_DEADLINE_US : LLM_PLAIN_US, .body_max = body ? 256u << 20 : PLAIN_MAX };

		if (secret)
			headers[n++] = key.p;
		if (trace.n)
			headers[n] = parent.p;
		e = fetch_start(op->p->a->fetch, &req, &cb, op, &op->fetch);
	}
	if (key.p)
		secret_wipe(key.p, key.n);
	buf_free(&url);
	buf_free(&key);
	buf_free(&parent);
	return e;
}

static enum err
openai_call(void *self, const struct llm_request *r, struct llm_call *call, void **out)
{
	struct oa_op *op = op_new(self);
	struct body body;
	enum err e;

	if (op == NULL)
		return ERR_NOMEM;
	op->call = call;
	body_init(&body, REQUEST_MAX);
	e = oa_question(&body, op->p, server_of(op->p->a->config, str_z(op->p->name)), r);
	if (e == OK)
		e = send(op, "/chat/completions", &body, r->trace);
	body_free(&body);
	if (e != OK)
		op_free(op);
	else
		*out = op;
	return e;
}

static enum err
openai_list(void *self, llm_list_fn *fn, void *arg, void **out)
{
	struct oa_op *op = op_new(self);
	enum err e;

	if (op == NULL)
		return ERR_NOMEM;
	op->list = fn;
	op->arg = arg;
	e = send(op, "/models", NULL, STR_NONE);
	if (e != OK)
		op_free(op);
	else
		*out = op;
	return e;
}

static void
openai_cancel(void *op)
{
	op_free(op);
}

static void
openai_pause(void *arg, bool paused)
{
	struct oa_op *op = arg;

	fetch_pause(op->fetch, paused);
}

/* ---- instances --------------------------------------------------------------------------------- */

/* Is what the configuration has of that name an instance? */
static enum err
check_instance(const struct config *c, struct str name, struct fail *why)
{
	static const char *const needed[] = { "base_url", "model" };
	const struct feature *f = feature_find(FEATURE_PROVIDER, name);

	for (size_t i = 0; i < name.n; i++)
		if (!oa_is_plain(name.p[i]))
			return fail_set(why, ERR_CONFIG, "[providers.\"%.*s\"]: a name has letters, digits, - and _", STR_ARG(name));
	if (f && f->provider->instances == NULL)
		return fail_set(why, ERR_CONFIG, "[providers.%.*s]: %.*s is a provider of its own; next: give it another name",
		    STR_ARG(name), STR_ARG(name));
	for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
		char key[64];

		snprintf(key, sizeof(key), NAMED "%s", needed[i]);
		if (config_wild_str(c, key, name).n == 0)
			return fail_set(why, ERR_CONFIG, "[providers.%.*s] has no %s; next: `blufio config set providers.%.*s.%s …`",
			    STR_ARG(name), needed[i], STR_ARG(name), needed[i]);
	}
	return OK;
}

static bool
openai_configured(const struct config *c, struct fail *why)
{
	static const char *const parts[] = { NAMED "base_url", NAMED "model", NAMED "api_key" };
	struct str name;

	for (size_t k = 0; k < ARRAY_LEN(parts); k++)
		for (size_t i = 0; config_segment(c, parts[k], i, &name); i++)
			if (check_instance(c, name, why) != OK)
				return false;
	return true;
}

static void
openai_describe(const struct config *c, struct str name, struct model_info *m)
{
	const struct oa_server *s = server_of(c, name);
	int64_t images = 1;

	if (is_local(c, name))          /* unless it is said to cost something */
		m->in = m->out = 0;
	(void)config_wild(c, NAMED "input", name, &m->in);
	(void)config_wild(c, NAMED "output", name, &m->out);
	(void)config_wild(c, NAMED "cache_read", name, &m->read);
	(void)config_wild(c, NAMED "context_window", name, &m->window);
	(void)config_wild(c, NAMED "max_tokens", name, &m->max_output);
	(void)config_wild(c, NAMED "images", name, &images);
	if (!images)
		m->images_max = 0;
	m->flags = (s->files ? MODEL_PDF : 0u) | (s->developer ? MODEL_SYSTEM_TURNS : 0u);
}

static enum err
openai_start(struct agent *a, const char *name, void **self, struct fail *f)
{
	struct oa *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return fail_set(f, ERR_NOMEM, "%s: out of memory", name);
	p->a = a;
	p->name = name;
	*self = p;
	return OK;
}

static void
openai_free(void *self)
{
	struct oa *p = self;

	while (p->ops)
		op_free(p->ops);
	free(p);
}

#define TOKENS .type = CONFIG_INT, .min = 1, .max = 1000000000
#define PRICE(leaf, what) { .name = NAMED leaf, .type = CONFIG_USD, .max = 1000000000000000, .example = "\"0.50\"", \
	.help = "US dollars per million " what " of its models that have no [pricing.\"NAME/model\"]." }
static const struct config_key keys[] = {
	{ .name = NAMED "base_url", .type = CONFIG_URL, .example = "\"http://127.0.0.1:11434/v1\"",
	  .help = "Address of an OpenAI-compatible server, what stands before /chat/completions; http:// only for this machine." },
	{ .name = NAMED "api_key", .type = CONFIG_SECRET, .help = "Its key, sent as Authorization: Bearer; a local server needs none." },
	{ .name = NAMED "model", .type = CONFIG_STRING, .min = 1, .max = LISTED_ID_MAX, .example = "\"qwen3:8b\"",
	  .help = "The model it uses, as it calls it; elsewhere NAME/model." },
	{ .name = NAMED "max_tokens", TOKENS, .example = "8192",
	  .help = "Upper bound of one answer in tokens, thinking included; 8192 when unset." },
	{ .name = NAMED "context_window", TOKENS, .example = "32768", .help = "Tokens that fit into one request of its models; 200000 when"
	  " unset. Ollama has its own, OLLAMA_CONTEXT_LENGTH, and silently cuts what is longer: say the same number here." },
	{ .name = NAMED "images", .type = CONFIG_BOOL, .example = "false", .help = "Do its models look at pictures? Yes when unset." },
	PRICE("input", "input tokens; 0 for a server on this machine,"),
	PRICE("output", "output tokens; 0 for a server on this machine,"),
	PRICE("cache_read", "input tokens that it had in its cache, as input when unset,"),
	{ .name = NAMED "server", .type = CONFIG_ENUM, .choices = "openai|openrouter|deepseek|plain|other", .example = "\"openai\"",
	  .help = "Whose habits it has; found by its address when unset. plain: a stream without usage." },
	{ .name = NULL },
};

static const struct model_info models[] = { { .id = NULL } };

static const struct provider_ops ops = {
	.models = models,
	.instances = NAMED "base_url",
	.default_model_key = NAMED "model",
	.max_tokens_key = NAMED "max_tokens",
	.api_key = NAMED "api_key",
	.configured = openai_configured,
	.describe = openai_describe,
	.start = openai_start,
	.free = openai_free,
	.call = openai_call,
	.list = openai_list,
	.cancel = openai_cancel,
	.pause = openai_pause,
	.bills_refusals = true,
};

const struct feature openai_feature = {
	.name = "openai",
	.kind = FEATURE_PROVIDER,
	.summary = "any OpenAI-compatible server, as [providers.NAME]",
	.keys = keys,
	.provider = &ops,
};
