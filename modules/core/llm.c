/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * llm.c - one model call: the stream assembled block by block, and the rules
 * for asking again.
 *
 * A provider adapter translates its wire into llm_feed_* calls; this file turns
 * them into the visible text (relayed at once) and, at the end, into the JSON
 * array of content blocks that will be replayed byte for byte in later
 * requests. Only complete blocks are kept: a thinking block without its
 * signature or a tool call whose input was cut must never be replayed or run.
 * Tool calls count only when the model stopped in order to make them. What the
 * provider's own tools did (server_tool_use and its result, citations) is kept
 * as it came: a paused answer has to go back unchanged, and later thinking is
 * bound to it. Blocks of kinds that are not known are passed over.
 *
 * The sink's done() is called once, from the loop, never from inside a feed
 * that a cancel could race with: llm_feed_end defers it.
 */
#include "core.h"

#define SCALE_BYTES_MIN (8 << 10)       /* of a prompt by which tokens are reckoned */
#define SCALE_BYTES_KEPT (256 << 10)    /* so much of the past counts */
#define SCALE_MOST 8                    /* bytes a token: who counts fewer tokens is not believed */
#define TOKENS_MAX 1000000000           /* of one count: a sum of money stays far from 2^63 */

enum block_kind {
	BLOCK_SKIP, BLOCK_TEXT, BLOCK_THINKING, BLOCK_TOOL,
	BLOCK_RAW,                      /* complete when it starts: redacted thinking, results of server tools */
	BLOCK_SERVER_TOOL,              /* the same, but for an input that arrives in pieces */
	BLOCK_COMPACTION                /* the provider's own summary, for those who ask for it */
};

struct block {
	size_t index;                   /* the provider's */
	enum block_kind kind;
	bool complete;
	struct buf data;                /* text, thinking, or the input's JSON */
	struct buf extra;               /* signature; citations; the block's start; or tool id and name */
	size_t id_len;
};

struct llm_call {
	struct agent *a;
	struct provider *p;
	struct llm_sink sink;
	void *arg;
	void *op;                       /* the provider's */
	char model[64];
	struct block *blocks;
	size_t n_blocks;
	struct usage usage;
	bool usage_final;
	enum llm_stop stop;
	size_t text_bytes, other_bytes; /* received so far, for estimates */
	int64_t asked_at;               /* monotonic */
	bool probe;                     /* of an open breaker (provider.c) */
	bool spoke;                     /* something of the answer came */
	bool unsent;                    /* the question never reached the provider */
	enum err err;                   /* sticky: out of memory, too many blocks */
	bool ended;
	enum llm_class class;
	unsigned status;
	int64_t retry_after_us;
	struct buf detail, request_id, content;
	struct ev_defer done;
};

static void
call_free(struct llm_call *c)
{
	for (size_t i = 0; i < c->n_blocks; i++) {
		buf_free(&c->blocks[i].data);
		buf_free(&c->blocks[i].extra);
	}
	free(c->blocks);
	buf_free(&c->detail);
	buf_free(&c->request_id);
	buf_free(&c->content);
	ev_defer_cancel(&c->done);
	c->a->llm_calls--;
	free(c);
}

/* ---- rate limits: kept as they come, so that the next call does not run into them ------------ */

/* "claude-opus-5-5" -> "claude-opus": models of one name share their limits. Each "NAME/x" has its own. */
struct str
llm_family(struct str model)
{
	size_t n = 0;

	if (str_chr(model, '/') != SIZE_MAX)
		return str_sub(model, 0, LLM_FAMILY_MAX - 1);
	while (n < model.n && n < LLM_FAMILY_MAX - 1 && !(model.p[n] >= '0' && model.p[n] <= '9'))
		n++;
	while (n > 0 && model.p[n - 1] == '-')
		n--;
	return str_sub(model, 0, n);
}

/* The family's pool; when it has none, *oldest is the one to be given up for it. */
static struct llm_pool *
pool_of(struct agent *a, const char *model, struct llm_pool **oldest)
{
	struct str name = llm_family(str_z(model));

	*oldest = a->pools;
	for (size_t i = 0; i < LLM_POOLS_MAX; i++) {
		struct llm_pool *p = &a->pools[i];

		if (p->fed_at && str_eqz(name, p->family))
			return p;
		if (p->fed_at < (*oldest)->fed_at)
			*oldest = p;
	}
	return NULL;
}

void
llm_feed_limits(struct llm_call *c, const struct llm_limit l[LLM_LIMITS])
{
	struct llm_pool *oldest, *p = pool_of(c->a, c->model, &oldest);
	int64_t now = clock_mono_us();

	if (p == NULL)
		p = oldest;
	*p = (struct llm_pool){ .fed_at = now > 0 ? now : 1 };
	snprintf(p->family, sizeof(p->family), "%.*s", STR_ARG(llm_family(str_z(c->model))));
	for (size_t i = 0; i < LLM_LIMITS; i++) {
		p->of[i] = l[i];
		if (add_i64(now, l[i].reset_us, &p->of[i].reset_us))
			p->of[i].reset_us = INT64_MAX;
	}
}

/* The provider's own word for when to come again is better than the time at which a limit is whole again. */
static void
limits_end(struct agent *a, const char *model, int64_t in_us)
{
	struct llm_pool *oldest, *p = pool_of(a, model, &oldest);
	int64_t at;

	for (size_t i = 0; p && i < LLM_LIMITS; i++)
		if (!add_i64(clock_mono_us(), in_us, &at) && p->of[i].reset_us > at)
			p->of[i].reset_us = at;
}

int64_t
llm_limits_wait(struct agent *a, const char *model, int64_t input)
{
	const int64_t need[LLM_LIMITS] = { [LIMIT_REQUESTS] = 1, [LIMIT_TOKENS] = input, [LIMIT_INPUT] = input,
	    [LIMIT_OUTPUT] = 1 };
	struct llm_pool *oldest, *p = pool_of(a, model, &oldest);
	int64_t now = clock_mono_us(), wait = 0;

	for (size_t i = 0; p && i < LLM_LIMITS; i++) {
		const struct llm_limit *l = &p->of[i];

		if (l->remaining < 0 || l->remaining >= need[i] || l->reset_us <= now)
			continue;
		if (l->limit >= 0 && need[i] > l->limit)
			continue;       /* no wait makes it fit: the provider shall say so itself */
		if (l->reset_us - now > wait)
			wait = l->reset_us - now;
	}
	return wait ? wait + rand_u32() % LLM_LIMIT_JITTER_US : 0;
}

void
llm_limits_take(struct agent *a, const char *model, int64_t input)
{
	const int64_t taken[LLM_LIMITS] = { 1, input, input, 0 };
	struct llm_pool *oldest, *p = pool_of(a, model, &oldest);

	for (size_t i = 0; p && i < LLM_LIMITS; i++)
		if (p->of[i].remaining >= 0)
			p->of[i].remaining = p->of[i].remaining > taken[i] ? p->of[i].remaining - taken[i] : 0;
}

/* ---- assembling ------------------------------------------------------------------- */

static struct block *
block_at(struct llm_call *c, size_t index)
{
	for (size_t i = c->n_blocks; i-- > 0;)
		if (c->blocks[i].index == index)
			return &c->blocks[i];
	return NULL;
}

static void
take_count(int64_t *to, int64_t tokens)
{
	if (tokens >= 0)
		*to = tokens < TOKENS_MAX ? tokens : TOKENS_MAX;
}

void
llm_feed_usage(struct llm_call *c, const struct usage *u, bool final)
{
	take_count(&c->usage.input, u->input);
	take_count(&c->usage.output, u->output);
	take_count(&c->usage.cache_read, u->cache_read);
	take_count(&c->usage.write_5m, u->write_5m);
	take_count(&c->usage.write_1h, u->write_1h);
	c->usage_final = final;
}

void
llm_feed_block(struct llm_call *c, size_t index, struct str type, struct str id, struct str name, struct str raw)
{
	struct block *b, *grown;

	if (c->err != OK || c->ended)
		return;
	if (c->n_blocks == LLM_BLOCKS_MAX) {
		c->err = ERR_LIMIT;
		return;
	}
	grown = realloc(c->blocks, (c->n_blocks + 1) * sizeof(*grown));
	if (grown == NULL) {
		c->err = ERR_NOMEM;
		return;
	}
	c->blocks = grown;
	b = &grown[c->n_blocks++];
	memset(b, 0, sizeof(*b));
	b->index = index;
	buf_init(&b->data, REPLY_MAX);
	buf_init(&b->extra, REPLY_MAX);
	if (str_eqz(type, "text")) {
		b->kind = BLOCK_TEXT;
	} else if (str_eqz(type, "thinking")) {
		b->kind = BLOCK_THINKING;
	} else if (str_eqz(type, "redacted_thinking") || str_ends(type, S("_tool_result"))) {
		b->kind = BLOCK_RAW;
		buf_str(&b->extra, raw);
	} else if (str_eqz(type, "server_tool_use") && id.n) {
		b->kind = BLOCK_SERVER_TOOL;
		buf_str(&b->extra, raw);
	} else if (str_eqz(type, "compaction")) {
		b->kind = BLOCK_COMPACTION;
	} else if (str_eqz(type, "tool_use") && id.n && name.n) {
		b->kind = BLOCK_TOOL;
		b->id_len = id.n;
		buf_str(&b->extra, id);
		buf_str(&b->extra, name);
	} /* anything else is passed over without harm */
	if (b->extra.err != OK)
		c->err = b->extra.err;
}

static void
feed(struct llm_call *c, size_t index, enum block_kind kind, struct str s, bool extra)
{
	struct block *b = block_at(c, index);
	struct buf *to;

	if (b == NULL || b->kind != kind || b->complete || c->err != OK || c->ended)
		return;
	if (!c->spoke && s.n)
		metrics_time(c->a, METRIC_FIRST_TOKEN, clock_mono_us() - c->asked_at);
	c->spoke |= s.n > 0;
	to = extra ? &b->extra : &b->data;
	buf_str(to, s);
	if (to->err != OK)
		c->err = to->err;
}

void
llm_feed_text(struct llm_call *c, size_t index, struct str delta)
{
	struct block *b = block_at(c, index);

	if (b == NULL || b->kind != BLOCK_TEXT || b->complete || delta.n == 0)
		return;
	c->text_bytes += delta.n;
	if (c->text_bytes > REPLY_MAX)
		c->err = ERR_LIMIT;
	feed(c, index, BLOCK_TEXT, delta, false);
	if (c->err == OK && !c->ended)
		c->sink.text(c->arg, delta);
}

void
llm_feed_thinking(struct llm_call *c, size_t index, struct str delta)
{
	c->other_bytes += delta.n;
	feed(c, index, BLOCK_THINKING, delta, false);
}

void
llm_feed_signature(struct llm_call *c, size_t index, struct str signature)
{
	feed(c, index, BLOCK_THINKING, signature, true);
}

void
llm_feed_input(struct llm_call *c, size_t index, struct str json_piece)
{
	c->other_bytes += json_piece.n;
	feed(c, index, BLOCK_TOOL, json_piece, false);
	feed(c, index, BLOCK_SERVER_TOOL, json_piece, false);
}

void
llm_feed_citation(struct llm_call *c, size_t index, struct str json)
{
	struct block *b = block_at(c, index);

	if (json.n == 0)
		return;
	if (b && b->extra.n)
		feed(c, index, BLOCK_TEXT, S(","), true);
	feed(c, index, BLOCK_TEXT, json, true);
}

void
llm_feed_compaction(struct llm_call *c, size_t index, struct str text)
{
	feed(c, index, BLOCK_COMPACTION, text, false);
}

void
llm_feed_block_end(struct llm_call *c, size_t index)
{
	struct block *b = block_at(c, index);
	struct arena ar = ARENA_INIT(b ? JSON_TREE_MAX(b->data.n) : 0);
	const struct json *input;

	if (b == NULL || b->complete)
		return;
	b->complete = true;
	if (b->kind == BLOCK_THINKING && b->extra.n == 0)
		b->complete = false;    /* a lost signature is a 400 later */
	if (b->kind == BLOCK_TOOL && b->data.n == 0)
		buf_puts(&b->data, "{}");
	if (b->kind == BLOCK_TOOL || (b->kind == BLOCK_SERVER_TOOL && b->data.n)) {
		if (json_parse(&ar, buf_view(&b->data), &input, NULL) != OK || input->type != JSON_OBJECT)
			b->complete = false;
		if (b->data.err != OK || ar.err != OK)
			c->err = ERR_NOMEM;     /* not the model's fault: never a call left out */
	}
	arena_free(&ar);
}

void
llm_feed_stop(struct llm_call *c, enum llm_stop stop, struct str detail)
{
	c->stop = stop;
	buf_reset(&c->detail);
	buf_str(&c->detail, detail);
}

/* The member "id" (or the like) of a block that is kept as it came. */
static bool
raw_names(const struct block *b, const char *member, struct str id)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(b->extra.n));
	const struct json *j;
	bool same = json_parse(&ar, buf_view(&b->extra), &j, NULL) == OK && str_eq(json_str(j, member, STR_NONE), id);

	arena_free(&ar);
	return same;
}

/* The start of the block with the input that came after it. One without a result may be replayed only when
 * the provider goes on with it: the answer was paused, or waits for a tool of ours. */
static void
write_server_tool(struct jw *w, const struct llm_call *c, const struct block *b)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(b->extra.n));
	const struct json *j;
	bool wanted = c->stop == LLM_STOP_PAUSE || c->stop == LLM_STOP_TOOLS;

	if (json_parse(&ar, buf_view(&b->extra), &j, NULL) == OK) {
		for (size_t i = 0; i < c->n_blocks && !wanted; i++)
			wanted = c->blocks[i].kind == BLOCK_RAW && c->blocks[i].complete &&
			    raw_names(&c->blocks[i], "tool_use_id", json_str(j, "id", STR_NONE));
		if (wanted)
			jw_obj(w);
		for (const struct json *m = wanted ? j->first : NULL; m; m = m->next) {
			jw_key_str(w, m->key);
			jw_raw(w, str_eqz(m->key, "input") && b->data.n ? buf_view(&b->data) : m->raw);
		}
		if (wanted)
			jw_end_obj(w);
	}
	arena_free(&ar);
}

static void
write_block(struct jw *w, const struct llm_call *c, const struct block *b)
{
	struct str extra = buf_view(&b->extra);

	if (!b->complete && b->kind != BLOCK_TEXT)
		return;
	switch (b->kind) {
	case BLOCK_SKIP:
		return;
	case BLOCK_TEXT:
		if (str_trim(buf_view(&b->data)).n == 0)
			return;         /* blank text blocks are refused in requests */
		jw_obj(w);
		jw_kz(w, "type", "text");
		jw_kstr(w, "text", buf_view(&b->data));
		if (extra.n) {
			jw_key(w, "citations");
			jw_arr(w);
			jw_raw(w, extra);
			jw_end_arr(w);
		}
		break;
	case BLOCK_THINKING:
		jw_obj(w);
		jw_kz(w, "type", "thinking");
		jw_kstr(w, "thinking", buf_view(&b->data));
		jw_kstr(w, "signature", extra);
		break;
	case BLOCK_RAW:
		jw_raw(w, extra);
		return;
	case BLOCK_SERVER_TOOL:
		write_server_tool(w, c, b);
		return;
	case BLOCK_COMPACTION:
		jw_obj(w);
		jw_kz(w, "type", "compaction");
		jw_kstr(w, "content", buf_view(&b->data));
		break;
	case BLOCK_TOOL:
		if (c->stop != LLM_STOP_TOOLS)
			return;
		jw_obj(w);
		jw_kz(w, "type", "tool_use");
		jw_kstr(w, "id", str_sub(extra, 0, b->id_len));
		jw_kstr(w, "name", str_sub(extra, b->id_len, extra.n));
		jw_kraw(w, "input", buf_view(&b->data));
		break;
	}
	jw_end_obj(w);
}

static void
note_health(struct provider_health *h, const struct llm_result *r, struct str problem)
{
	h->calls++;
	h->failing = r->class != LLM_OK;
	if (h->failing) {
		h->failures++;
		snprintf(h->problem, sizeof(h->problem), "%.*s", STR_ARG(utf8_prefix(problem, sizeof(h->problem) - 1)));
	} else {
		h->answered_at = clock_us();
	}
}

static bool
is_thinking(const struct block *b)
{
	return b->kind == BLOCK_THINKING || (b->kind == BLOCK_RAW && raw_names(b, "type", S("redacted_thinking")));
}

/* Of a call that was cut, or of which nobody says: what was received, or the count the stream gave. */
static void
estimate_cut(const struct llm_call *c, struct usage *u)
{
	int64_t got = llm_tokens_estimate(c->text_bytes + c->other_bytes);

	*u = c->usage;
	if (u->output < got)
		u->output = got;
}

static void
call_done(void *arg)
{
	struct llm_call *c = arg;
	struct llm_result r = { .class = c->class, .stop = c->stop, .usage = c->usage,
	    .usage_known = c->usage_final && c->class == LLM_OK, .retry_after_us = c->retry_after_us, .status = c->status };
	const struct provider_ops *ops = c->p->feature->provider;
	bool whole = c->stop == LLM_STOP_PAUSE || c->stop == LLM_STOP_TOOLS;
	size_t end, at;
	struct jw w;

	buf_reset(&c->content);
	jw_init(&w, &c->content);
	jw_arr(&w);
	end = c->content.n;
	for (size_t i = 0; i < c->n_blocks && c->class == LLM_OK; i++) {
		at = c->content.n;
		write_block(&w, c, &c->blocks[i]);
		if (c->content.n > at && (whole || !is_thinking(&c->blocks[i])))
			end = c->content.n;
	}
	if (c->content.n > end)         /* an answer may not end in thinking when it is sent back */
		buf_cut(&c->content, end);
	jw_end_arr(&w);
	if (jw_done(&w) != OK && c->err == OK)
		c->err = ERR_NOMEM;
	if (c->err != OK && c->class == LLM_OK) {
		r.class = c->err == ERR_NOMEM ? LLM_RETRY : LLM_BAD_REQUEST;
		buf_reset(&c->detail);
		buf_fmt(&c->detail, "the answer could not be held in memory (%s)", err_str(c->err));
	}
	/* what was refused costs nothing: by its status, or before a word was said */
	r.billed = !c->unsent && (c->status == 0 || c->status / 100 == 2) &&
	    (c->stop != LLM_STOP_REFUSAL || c->spoke || ops->bills_refusals);
	if (c->class == LLM_OK && !c->usage_final)
		estimate_cut(c, &r.usage);      /* whole, but nobody says what it took */
	note_health(&c->p->health, &r, buf_view(&c->detail));
	metrics_count(c->a, METRIC_CALLS, r.class);
	metrics_time(c->a, METRIC_CALL, clock_mono_us() - c->asked_at);
	if (r.class != LLM_OK)
		metrics_count(c->a, METRIC_ERRORS, METRIC_ERR_MODEL);
	r.content = buf_view(&c->content);
	r.detail = buf_view(&c->detail);
	r.request_id = buf_view(&c->request_id);
	c->sink.done(c->arg, &r);
	call_free(c);
}

void
llm_feed_unsent(struct llm_call *c)
{
	c->unsent = true;
}

void
llm_feed_end(struct llm_call *c, enum llm_class class, unsigned status, int64_t retry_after_us,
    struct str detail, struct str request_id)
{
	if (c->ended)
		return;
	c->ended = true;
	c->op = NULL;                   /* the provider frees its own side */
	c->class = class;
	c->status = status;
	c->retry_after_us = retry_after_us;
	provider_ended(c->p, c->probe, class == LLM_OK, class == LLM_RETRY && status != 429);
	if (status == 429 && retry_after_us >= 0)
		limits_end(c->a, c->model, retry_after_us);
	if (class != LLM_OK) {
		size_t n;

		buf_reset(&c->detail);
		buf_str(&c->detail, utf8_prefix(detail, 300));
		n = secret_scrub(c->detail.p, c->detail.n);
		buf_cut(&c->detail, n);
		estimate_cut(c, &c->usage);
	}
	buf_str(&c->request_id, utf8_prefix(request_id, 100));
	ev_defer(c->a->ev, &c->done);
}

/* ---- asking ------------------------------------------------------------------------------ */

FALLIBLE
llm_start(struct agent *a, const struct llm_request *r, const struct llm_sink *sink, void *arg, struct llm_call **out)
{
	struct llm_call *c;
	enum err e;

	if (r->reservation == 0)
		return ERR_DENIED;      /* money is spent through cost.c or not at all */
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return ERR_NOMEM;
	c->a = a;
	a->llm_calls++;
	snprintf(c->model, sizeof(c->model), "%s", r->model);
	c->sink = *sink;
	c->arg = arg;
	c->retry_after_us = -1;
	c->asked_at = clock_mono_us();
	buf_init(&c->detail, 4096);
	buf_init(&c->request_id, 256);
	buf_init(&c->content, REQUEST_MAX);
	ev_defer_init(&c->done, call_done, c);
	c->p = provider_of(a, str_z(r->model));
	e = c->p->feature->provider->call(c->p->self, r, c, &c->op);
	if (e != OK) {
		call_free(c);
		return e;
	}
	c->probe = provider_asked(c->p);
	*out = c;
	return OK;
}

void
llm_cancel(struct llm_call *c, struct usage *seen)
{
	if (c == NULL)
		return;
	if (c->op)
		c->p->feature->provider->cancel(c->op);
	if (seen)
		estimate_cut(c, seen);
	if (!c->ended)
		provider_ended(c->p, c->probe, false, false);
	metrics_count(c->a, METRIC_CALLS, LLM_GONE);
	call_free(c);
}

void
llm_pause(struct llm_call *c, bool paused)
{
	if (c && c->op)
		c->p->feature->provider->pause(c->op, paused);
}

int64_t
llm_retry_after(struct str ms, struct str s)
{
	struct str said = ms.n ? ms : s;
	char text[32], *end;
	double d;

	if (said.n == 0 || said.n >= sizeof(text))
		return -1;
	memcpy(text, said.p, said.n);
	text[said.n] = '\0';
	d = strtod(text, &end);
	return *end == '\0' && d >= 0 && d < 1e6 ? (int64_t)(d * (ms.n ? 1e3 : 1e6) + 0.5) : -1;
}

/* SDK policy: Retry-After when sane, else 0.5 s doubled up to 8 s, less up to a quarter of jitter. */
int64_t
llm_backoff_us(unsigned attempt, int64_t retry_after_us)
{
	int64_t wait = LLM_BACKOFF_US;

	if (retry_after_us >= 0 && retry_after_us <= LLM_RETRY_AFTER_MAX_US)
		return retry_after_us;
	while (attempt-- > 1 && wait < LLM_BACKOFF_MAX_US)
		wait *= 2;
	if (wait > LLM_BACKOFF_MAX_US)
		wait = LLM_BACKOFF_MAX_US;
	return wait - (int64_t)(rand_u32() % 256) * wait / 1024;
}

/* About 3.5 bytes of English a token with today's tokenizers; rounded up. */
int64_t
llm_tokens_estimate(size_t bytes)
{
	return (int64_t)((bytes * 2 + 6) / 7);
}

/* Tokenizers differ within a family, so each model has its own. */
static bool
is_scale_of(const struct llm_scale *s, const char *model)
{
	return s->model[0] && strncmp(s->model, model, sizeof(s->model) - 1) == 0;
}

int64_t
llm_tokens(const struct agent *a, const char *model, size_t bytes)
{
	for (const struct llm_scale *s = a->scales; s < &a->scales[LLM_SCALES_MAX]; s++)
		if (is_scale_of(s, model))
			return (int64_t)((double)bytes * s->tokens / s->bytes) + 1;
	return llm_tokens_estimate(bytes);
}

/* Short prompts say little: what a provider puts around them weighs too much. */
void
llm_counted(struct agent *a, const char *model, int64_t bytes, int64_t tokens)
{
	struct llm_scale *s = a->scales;

	if (bytes < SCALE_BYTES_MIN || tokens < bytes / SCALE_MOST || tokens > bytes)
		return;
	while (s < &a->scales[LLM_SCALES_MAX - 1] && s->model[0] && !is_scale_of(s, model))
		s++;
	if (!is_scale_of(s, model)) {
		*s = (struct llm_scale){ .bytes = 0 };
		snprintf(s->model, sizeof(s->model), "%s", model);
	}
	if (s->bytes > SCALE_BYTES_KEPT) {
		s->bytes /= 2;
		s->tokens /= 2;
	}
	s->bytes += (double)bytes;
	s->tokens += (double)tokens;
}

const char *
llm_model(struct agent *a)
{
	return a->provider->model;
}

int64_t
llm_max_tokens(struct agent *a, const struct provider *p)
{
	const char *key = p->feature->provider->max_tokens_key;
	int64_t v = 8192;

	if (key && !config_wild(a->config, key, str_z(p->name), &v) && !p->feature->provider->instances)
		v = config_i64(a->config, key);
	return v;
}
