/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * post.c - a request of the OpenAI API on its way: read, then put to the agent or to a model as it is.
 *
 * In two steps, because batch.c reads all of a batch before it asks for any of it.
 */
#include "api/compat/compat.h"

bool
post_model_at(const struct request *r, size_t i, struct str *id)
{
	*id = S(COMPAT_MODEL);
	return i == 0 || model_priced(r->a, i - 1, id);
}

bool
post_is_model(const struct request *r, struct str name)
{
	struct str id;

	for (size_t i = 0; post_model_at(r, i, &id); i++)
		if (str_eq(id, name))
			return true;
	return false;
}

void
post_no_model(struct request *r, struct str name)
{
	struct buf near = BUF_INIT(512);

	model_nearest(r->a, name, &near);
	request_error(r, 404, "model_not_found", "model", NULL, "there is no model %.*s here; GET /v1/models lists them: "
	    COMPAT_MODEL ", and like it %s", STR_ARG(utf8_prefix(name, 128)), buf_z(&near));
	buf_free(&near);
}

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

bool
post_read(struct request *r, const struct shape *shape)
{
	struct compat *c = calloc(1, sizeof(*c));

	if (!c) {
		request_failed(r, ERR_NOMEM);
		return false;
	}
	c->r = r;
	c->shape = shape;
	buf_init(&c->text, REPLY_MAX);
	buf_init(&c->calls, REQUEST_MAX);
	r->own = c;
	r->drop = drop;
	if (!ask_read(r, &c->ask, shape == &responses_shape))
		return false;
	buf_free(&r->body);
	snprintf(c->named, sizeof(c->named), "%.*s", STR_ARG(c->ask.model));
	snprintf(c->previous, sizeof(c->previous), "%.*s", STR_ARG(c->ask.previous));
	if (!post_is_model(r, c->ask.model))
		post_no_model(r, c->ask.model);
	else if (c->ask.previous.n && !str_eqz(c->ask.model, COMPAT_MODEL))
		request_error(r, 400, "invalid_request", "previous_response_id", NULL, "of a model as it is nothing is kept");
	else
		return true;
	return false;
}

void
post_run(struct request *r)
{
	struct compat *c = compat_of(r);

	if (!str_eqz(c->ask.model, COMPAT_MODEL))
		pass_run(r, c->ask.model);
	else if (is_chore(&c->ask))
		pass_run(r, str_z(llm_model(r->a)));
	else
		talk_run(r);
}
