/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * compat.c - the OpenAI API: POST /v1/chat/completions, POST /v1/responses, GET /v1/models
 *
 * The model "blufio" is the agent (compat/talk.c); the id of another model that has a
 * price is that model as it is (compat/pass.c). What a field of a request becomes stands
 * in compat/ask.c and docs/API.md.
 */
#include "api/compat/compat.h"

/* ---- models -------------------------------------------------------------------------------- */

static void
put_model(const struct request *r, struct jw *w, struct str id)
{
	jw_obj(w);
	jw_kstr(w, "id", id);
	jw_kz(w, "object", "model");
	jw_ki64(w, "created", r->a->started_at / US_PER_S);
	jw_kz(w, "owned_by", str_eqz(id, COMPAT_MODEL) ? COMPAT_MODEL : provider_of(r->a, id)->name);
	jw_end_obj(w);
}

/* The i-th model that can be asked for; the agent is the first. */
static bool
model_at(const struct request *r, size_t i, struct str *id)
{
	*id = S(COMPAT_MODEL);
	return i == 0 || model_priced(r->a, i - 1, id);
}

static bool
is_model(const struct request *r, struct str name)
{
	struct str id;

	for (size_t i = 0; model_at(r, i, &id); i++)
		if (str_eq(id, name))
			return true;
	return false;
}

static void
no_model(struct request *r, struct str name)
{
	struct buf near = BUF_INIT(512);

	model_nearest(r->a, name, &near);
	request_error(r, 404, "model_not_found", "model", NULL, "there is no model %.*s here; GET /v1/models lists them: "
	    COMPAT_MODEL ", and like it %s", STR_ARG(utf8_prefix(name, 128)), buf_z(&near));
	buf_free(&near);
}

static void
get_models(struct request *r)
{
	struct buf b = BUF_INIT(1u << 20);
	struct str id, other;
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "object", "list");
	jw_key(&w, "data");
	jw_arr(&w);
	for (size_t i = 0; model_at(r, i, &id); i++) {
		size_t k = 0;

		while (model_at(r, k, &other) && !str_eq(id, other))
			k++;
		if (k == i)             /* a price of the configuration may be that of a known model */
			put_model(r, &w, id);
	}
	jw_end_arr(&w);
	jw_end_obj(&w);
	request_answer_buf(r, 200, jw_done(&w), &b);
	buf_free(&b);
}

static void
get_model(struct request *r)
{
	struct buf b = BUF_INIT(4096);
	struct jw w;

	jw_init(&w, &b);
	put_model(r, &w, request_segment(r, 0));
	if (is_model(r, request_segment(r, 0)))
		request_answer_buf(r, 200, jw_done(&w), &b);
	else
		no_model(r, request_segment(r, 0));
	buf_free(&b);
}

/* ---- questions ------------------------------------------------------------------------------- */

/* Chat programs ask by themselves for a title, tags, the next question: that is not said to the agent. */
static bool
is_chore(const struct ask *q)
{
	static const char *const begins[] = {
		"### Task:\n",                                          /* Open WebUI */
		"Provide a concise, 5-word-or-less title for the conversation",         /* LibreChat */
		"Detect user language and write in the same language an extremely concise title for this conversation",
		"Create a concise, 3-5 word phrase as a header for the following query",        /* Open WebUI, before */
	};
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(q->messages[q->req.n_messages - 1].content.n));
	const struct json *blocks = NULL;
	bool found = false;

	if (json_parse(&ar, q->messages[q->req.n_messages - 1].content, &blocks, NULL) == OK)
		for (size_t i = 0; i < ARRAY_LEN(begins) && !found; i++)
			found = str_starts(str_trim(json_str(blocks, "0.text", STR_NONE)), str_z(begins[i]));
	arena_free(&ar);
	return found && q->req.tools.n == 0;
}

static void
drop(struct request *r)
{
	struct compat *c = compat_of(r);

	pass_drop(r);
	arena_free(&c->ask.ar);
	buf_free(&c->text);
	buf_free(&c->calls);
	free(c);
}

static void
post(struct request *r, const struct shape *shape)
{
	struct compat *c = calloc(1, sizeof(*c));

	if (!c) {
		request_failed(r, ERR_NOMEM);
		return;
	}
	c->r = r;
	c->shape = shape;
	buf_init(&c->text, REPLY_MAX);
	buf_init(&c->calls, REQUEST_MAX);
	r->own = c;
	r->drop = drop;
	if (!ask_read(r, &c->ask, shape == &responses_shape))
		return;
	buf_free(&r->body);
	snprintf(c->named, sizeof(c->named), "%.*s", STR_ARG(c->ask.model));
	snprintf(c->previous, sizeof(c->previous), "%.*s", STR_ARG(c->ask.previous));
	if (!is_model(r, c->ask.model))
		no_model(r, c->ask.model);
	else if (c->ask.previous.n && !str_eqz(c->ask.model, COMPAT_MODEL))
		request_error(r, 400, "invalid_request", "previous_response_id", NULL, "of a model as it is nothing is kept");
	else if (!str_eqz(c->ask.model, COMPAT_MODEL))
		pass_run(r, c->ask.model);
	else if (is_chore(&c->ask))
		pass_run(r, str_z(llm_model(r->a)));
	else
		talk_run(r);
}

static void
post_chat(struct request *r)
{
	post(r, &chat_shape);
}

static void
post_responses(struct request *r)
{
	post(r, &responses_shape);
}

static const struct route routes[] = {
	{ "POST", "/v1/chat/completions", SCOPE_CHAT | ROUTE_FILES, post_chat, "The OpenAI API: Chat Completions" },
	{ "POST", "/v1/responses", SCOPE_CHAT | ROUTE_FILES, post_responses, "The OpenAI API: Responses" },
	{ "GET", "/v1/models", SCOPE_CHAT | SCOPE_READ, get_models, "The agent, and the models that have a price" },
	{ "GET", "/v1/models/{id}", SCOPE_CHAT | SCOPE_READ, get_model, "One of them" },
	{ NULL, NULL, 0, NULL, NULL }
};
const struct feature compat_feature = {
	.name = "compat", .kind = FEATURE_API, .routes = routes, .summary = "/v1/chat/completions, /v1/responses, /v1/models"
};
