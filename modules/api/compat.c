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
	for (size_t i = 0; post_model_at(r, i, &id); i++) {
		size_t k = 0;

		while (post_model_at(r, k, &other) && !str_eq(id, other))
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
	if (post_is_model(r, request_segment(r, 0)))
		request_answer_buf(r, 200, jw_done(&w), &b);
	else
		post_no_model(r, request_segment(r, 0));
	buf_free(&b);
}

/* ---- questions ------------------------------------------------------------------------------- */

static void
chat(struct request *r)
{
	if (post_read(r, &chat_shape))
		post_run(r);
}

static void
responses(struct request *r)
{
	if (post_read(r, &responses_shape))
		post_run(r);
}

static const struct route routes[] = {
	{ "POST", "/v1/chat/completions", SCOPE_CHAT | ROUTE_FILES, chat, "The OpenAI API: Chat Completions" },
	{ "POST", "/v1/responses", SCOPE_CHAT | ROUTE_FILES, responses, "The OpenAI API: Responses" },
	{ "GET", "/v1/models", SCOPE_CHAT | SCOPE_READ, get_models, "The agent, and the models that have a price" },
	{ "GET", "/v1/models/{id}", SCOPE_CHAT | SCOPE_READ, get_model, "One of them" },
	{ NULL, NULL, 0, NULL, NULL }
};
const struct feature compat_feature = {
	.name = "compat", .kind = FEATURE_API, .routes = routes, .summary = "/v1/chat/completions, /v1/responses, /v1/models"
};
