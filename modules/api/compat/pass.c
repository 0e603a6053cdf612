/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * pass.c - a request put to a model as it is: no conversation, no tools or words of the agent.
 *
 * It is paid for like everything else: what it may cost is reserved before, what it did cost is
 * booked after, also of a call whose client went away. Nothing is asked again: a failure before
 * the first text has a status that tells the client whether it may come again.
 */
#include "api/compat/compat.h"

#define PROMPT_TOKENS 1024              /* around all: what the provider says about tools itself */
#define MESSAGE_TOKENS 16
#define PICTURE_TOKENS 5000             /* the largest that is looked at */
#define DOCUMENT_TOKENS 5000
#define COUNT_MARGIN 20                 /* a twentieth: what the provider counts is "an estimate", as it says */

/* How many tokens it has at most: of text as many as bytes. Of a document nobody can tell: *documents, and some guess. */
static int64_t
most_input(const struct llm_request *q, bool *documents)
{
	size_t n = PROMPT_TOKENS + q->system.n + q->tools.n + q->schema.n;

	for (size_t i = 0; i < q->n_messages; i++) {
		struct str content = q->messages[i].content;
		struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n));
		const struct json *blocks = NULL;

		n += content.n + MESSAGE_TOKENS;
		if (str_find(content, S("\"base64\"")) != SIZE_MAX && json_parse(&ar, content, &blocks, NULL) == OK)
			for (const struct json *b = blocks->first; b; b = b->next) {
				size_t data = json_str(b, "source.data", STR_NONE).n;
				bool image = str_eqz(json_str(b, "type", STR_NONE), "image");

				if (data)
					n = n - data + (image ? PICTURE_TOKENS : DOCUMENT_TOKENS + data / 2);
				*documents = *documents || (data && !image);
			}
		arena_free(&ar);
	}
	return (int64_t)n;
}

static void
settle(struct request *r, const struct usage *u, bool final, struct str request_id)
{
	struct llm_request *q = &compat_of(r)->ask.req;

	if (q->reservation)
		agent_wrote(r->a, u ? cost_settle(r->a, q->reservation, u, final, request_id) : cost_release(r->a, q->reservation));
	q->reservation = 0;
}

void
pass_drop(struct request *r)
{
	struct usage seen = { 0 };
	struct compat *c = compat_of(r);

	effect_cancel(&c->begin);
	if (c->counting)
		provider_of(r->a, str_z(c->model))->feature->provider->cancel(c->counting);
	c->counting = NULL;
	if (r->call) {
		llm_cancel(r->call, &seen);
		r->call = NULL;
		settle(r, &seen, false, STR_NONE);
	}
	settle(r, NULL, false, STR_NONE);       /* it was never asked */
}

/* When memory is made anew cost_load books it. Of one that was never asked request_lost tells. */
static void
cut(struct request *r, bool paused)
{
	bool asked = r->call;

	if (compat_of(r)->ask.req.reservation == 0)
		return;
	if (!paused) {
		llm_cancel(r->call, NULL);
		r->call = NULL;
		compat_of(r)->ask.req.reservation = 0;
	}
	pass_drop(r);
	if ((asked || paused) && !r->c->dead)
		reply_fail(r, paused ? 429 : 503, paused ? "insufficient_quota" : "overloaded", paused ?
		    S("I am paused: nothing is asked of a model. /resume (or `blufio resume`) lifts it.") :
		    S("the answer was broken off; ask again"));
}

static void
on_text(void *arg, struct str delta)
{
	struct request *r = arg;

	buf_str(&compat_of(r)->text, delta);
	reply_text(r, delta);
}

static void
refused(struct request *r, const struct llm_result *res)
{
	struct buf near = BUF_INIT(512), b = BUF_INIT(2048);
	int64_t wait = res->retry_after_us;
	struct { int status; const char *code, *words; } e = { 503, "overloaded", "the model provider gives no answer now" };

	switch (res->class) {
	case LLM_RETRY:
		if (res->status == 429) {
			e.status = 429;
			e.code = "rate_limit";
			e.words = "the model provider's rate limit is used up";
		}
		r->wait_s = wait > 0 && wait < LLM_RETRY_AFTER_MAX_US * 10 ? (wait + US_PER_S - 1) / US_PER_S : 1;
		break;
	case LLM_BILLING:
		e.status = 402;
		e.code = "insufficient_quota";
		e.words = "the model provider refuses for want of credit, or because of a spending limit there";
		break;
	case LLM_BAD_MODEL:
		e.status = 404;
		e.code = "model_not_found";
		model_nearest(r->a, str_z(compat_of(r)->model), &near);
		e.words = "the model provider does not know this model; like it are";
		break;
	case LLM_TOO_LARGE:
		e.status = 400;
		e.code = "context_length_exceeded";
		e.words = "the conversation is too large for the model";
		break;
	case LLM_BAD_REQUEST: case LLM_THINKING:
		e.status = 400;
		e.code = "invalid_request";
		e.words = "the model provider refused the request";
		break;
	case LLM_OK: case LLM_BAD_KEY: case LLM_GONE:
		e.status = 502;
		e.code = "provider_refused";
		e.words = "the model provider refused this agent's key";
		break;
	}
	buf_fmt(&b, "%s (%.*s)", e.words, STR_ARG(near.n ? buf_view(&near) : res->detail));
	reply_fail(r, e.status, e.code, buf_view(&b));
	buf_free(&near);
	buf_free(&b);
}

static void
on_done(void *arg, const struct llm_result *res)
{
	static const enum finish ends[] = { [LLM_STOP_TOOLS] = FINISH_CALLS, [LLM_STOP_MAX_TOKENS] = FINISH_LENGTH,
	    [LLM_STOP_WINDOW] = FINISH_LENGTH, [LLM_STOP_REFUSAL] = FINISH_FILTER };
	struct request *r = arg;
	struct compat *c = compat_of(r);
	struct answer a = { buf_view(&c->text), res->content, ends[res->stop], res->usage };

	r->call = NULL;
	settle(r, res->billed ? &res->usage : NULL, res->usage_known, res->request_id);
	if (a.finish == FINISH_FILTER && a.text.n == 0)
		reply_text(r, a.text = res->detail);
	if (res->class != LLM_OK)
		refused(r, res);
	else if (c->text.err != OK)
		reply_fail(r, 503, "overloaded", S("no memory for the answer"));
	else
		reply_done(r, &a);
}

/* After the commit of what authenticated the request: the one place where a model is asked. */
static void
ask(struct effect *e)
{
	static const struct llm_sink sink = { on_text, on_done };
	struct compat *c = CONTAINER(e, struct compat, begin);
	struct request *r = c->r;
	enum err err = llm_start(r->a, &c->ask.req, &sink, r, &r->call);

	r->stored = true;
	arena_free(&c->ask.ar);         /* the provider has its copy */
	if (err != OK) {
		settle(r, NULL, false, STR_NONE);
		reply_fail(r, 503, "overloaded", str_z(err_str(err)));
	} else {
		reply_wait(r);
	}
}

static size_t
calls_running(const struct gateway *g)
{
	size_t n = 0;

	for (const struct conn *c = g->conns; c; c = c->next)
		n += c->req && c->req->call;
	return n;
}

/* counted: by the provider; 0: by bytes. */
static void
reserve(struct request *r, const struct model_info *m, int64_t counted)
{
	struct compat *c = compat_of(r);
	struct llm_request *q = &c->ask.req;
	struct fail f = FAIL_INIT;
	struct cost_order o = { .feature = r->answer ? COST_BATCH : COST_API, .model = m };
	size_t bytes = q->system.n + q->tools.n;
	int64_t wait, input;
	bool documents = false;
	enum err e = OK;

	for (size_t i = 0; i < q->n_messages; i++)
		bytes += q->messages[i].content.n;
	input = llm_tokens(r->a, c->model, bytes);
	wait = llm_limits_wait(r->a, c->model, input);
	if (wait == 0 && calls_running(r->c->g) < PASS_CALLS_MAX) {
		o.input = counted ? counted + counted / COUNT_MARGIN + COUNT_MARGIN : most_input(q, &documents);
		if ((m->flags & MODEL_WINDOW) && o.input > m->window)
			o.input = m->window;
		o.answer = q->max_tokens ? q->max_tokens : llm_max_tokens(r->a, provider_of(r->a, str_z(c->model)));
		if (o.answer > m->max_output)
			o.answer = m->max_output;
		e = cost_reserve(r->a, &o, &q->reservation, &f);
		q->max_tokens = o.answer;
	}
	if (e == ERR_BUSY) {
		r->wait_s = 1;
		request_error(r, 429, "rate_limit", NULL, NULL, "%s", f.text);
	} else if (e == ERR_LIMIT) {
		request_error(r, 429, "insufficient_quota", NULL, NULL, "%s", f.text);
	} else if (e != OK) {
		request_error(r, 503, "storage", NULL, NULL, "%s", f.text);
	} else if (wait > 0 || calls_running(r->c->g) >= PASS_CALLS_MAX) {
		r->wait_s = wait / US_PER_S + 1;
		request_error(r, 429, "rate_limit", NULL, NULL, wait > 0 ? "the model provider's rate limit is used up" :
		    "too many requests are being answered");
	} else {
		llm_limits_take(r->a, c->model, input);
		if (trace_header(request_trace(r), c->trace) == OK)
			q->trace = str_z(c->trace);
		r->stored = false;      /* until then a storage that fails takes the request with it */
		r->cut = cut;
		agent_after(r->a, &c->begin);
	}
}

static void
on_counted(void *arg, int64_t tokens)
{
	struct request *r = arg;
	struct fail f = FAIL_INIT;
	struct model_info m;

	compat_of(r)->counting = NULL;
	if (r->a->phase == AGENT_STORAGE_FAILED || cost_model(r->a, compat_of(r)->model, &m, &f) != OK)
		request_failed(r, ERR_IO);
	else
		reserve(r, &m, tokens > 0 ? tokens : 0);
}

void
pass_run(struct request *r, struct str model)
{
	struct compat *c = compat_of(r);
	struct llm_request *q = &c->ask.req;
	const struct provider *p = provider_of(r->a, model);
	bool documents = false;
	struct fail f = FAIL_INIT;
	struct model_info m;

	snprintf(c->model, sizeof(c->model), "%.*s", STR_ARG(model));
	snprintf(c->id, sizeof(c->id), "%s", r->id);
	r->created_at = clock_us();
	c->begin.run = ask;
	q->model = c->model;
	if (cost_model(r->a, c->model, &m, &f) != OK) {
		request_error(r, 404, "model_not_found", "model", NULL, "%s", f.text);
		return;
	}
	(void)most_input(q, &documents);
	if (!documents || r->a->paused || p->feature->provider->count == NULL ||
	    p->feature->provider->count(p->self, q, on_counted, r, &c->counting) != OK)
		reserve(r, &m, 0);
}
