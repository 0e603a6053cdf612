/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * oa_question.c - a request as a chat completion's: the history's blocks become messages.
 *
 * Results of tools are messages of their own, right behind the calls. What was
 * thought before tool calls goes back to the provider that it came from; of one that
 * insists on it and cannot have it (another model made the calls) no thinking is
 * asked. All else that the Messages API has and this one lacks is left out.
 */
#include "oa.h"

struct writer {
	struct jw w;
	struct body *b;
	const struct oa *p;
	const struct oa_server *server;
	struct buf text;                /* of the user's message that is being written */
	bool open;                      /* it has parts already, because of a file */
	bool strange;                   /* thinking that the server insists on is missing */
	enum err err;
};

static void
part_end(struct writer *x)
{
	if (x->text.n == 0)
		return;
	jw_obj(&x->w);
	jw_kz(&x->w, "type", "text");
	jw_kstr(&x->w, "text", buf_view(&x->text));
	jw_end_obj(&x->w);
	buf_reset(&x->text);
}

/* Text alone is a string, which everybody understands. Messages that follow one another are one: many templates want
 * user and assistant in turns. */
static void
user_end(struct writer *x)
{
	if (x->open) {
		part_end(x);
		jw_end_arr(&x->w);
		jw_end_obj(&x->w);
	} else if (x->text.n) {
		jw_obj(&x->w);
		jw_kz(&x->w, "role", "user");
		jw_kstr(&x->w, "content", buf_view(&x->text));
		jw_end_obj(&x->w);
		buf_reset(&x->text);
	}
	x->open = false;
}

/* A reference to a file becomes its bytes, put there while the request is sent. */
static void
write_media(struct writer *x, const struct json *block)
{
	struct str type = json_str(block, "source.media_type", STR_NONE), title = json_str(block, "title", S("document"));
	bool text = str_eqz(type, "text/plain"), image = str_eqz(json_str(block, "type", STR_NONE), "image");
	struct buf path = BUF_INIT(4096), head = BUF_INIT(8192);
	enum err e = media_path(x->p->a, json_str(block, "source.hash", STR_NONE), &path);

	if (!x->open) {
		jw_obj(&x->w);
		jw_kz(&x->w, "role", "user");
		jw_key(&x->w, "content");
		jw_arr(&x->w);
	}
	x->open = true;
	part_end(x);
	buf_fmt(&head, text ? "%.*s:\n" : "data:%.*s;base64,", STR_ARG(text ? title : type));
	jw_obj(&x->w);
	jw_kz(&x->w, "type", text ? "text" : image ? "image_url" : "file");
	if (!text) {
		jw_key(&x->w, image ? "image_url" : "file");
		jw_obj(&x->w);
		if (!image)
			jw_kstr(&x->w, "filename", title);
	}
	jw_kstr(&x->w, text ? "text" : image ? "url" : "file_data", buf_view(&head));
	if (e == OK)
		body_insert(x->b, 1, path.p, text ? BODY_JSON : BODY_BASE64);
	if (!text)
		jw_end_obj(&x->w);
	jw_end_obj(&x->w);
	if (e == OK)
		e = head.err;
	if (x->err == OK)
		x->err = e;
	buf_free(&path);
	buf_free(&head);
}

static void
write_user(struct writer *x, const struct json *blocks)
{
	for (const struct json *k = blocks->first; k; k = k->next) {
		struct str type = json_str(k, "type", STR_NONE);
		struct buf result = BUF_INIT(REQUEST_MAX);

		if (str_eqz(type, "text")) {
			buf_puts(&x->text, x->text.n ? "\n\n" : "");
			buf_str(&x->text, json_str(k, "text", STR_NONE));
		} else if (str_eqz(json_str(k, "source.type", STR_NONE), "media")) {
			write_media(x, k);
		} else if (str_eqz(type, "tool_result")) {
			user_end(x);
			buf_puts(&result, json_bool(k, "is_error", false) ? "Error: " : "");
			buf_str(&result, json_str(k, "content", STR_NONE));
			jw_obj(&x->w);
			jw_kz(&x->w, "role", "tool");
			jw_kstr(&x->w, "tool_call_id", json_str(k, "tool_use_id", STR_NONE));
			jw_kstr(&x->w, "content", buf_view(&result));
			jw_end_obj(&x->w);
			if (x->err == OK)
				x->err = result.err;
		}
		buf_free(&result);
	}
}

static void
write_call(struct jw *w, const struct json *use)
{
	const struct json *input = json_at(use, "input");

	jw_obj(w);
	jw_kstr(w, "id", json_str(use, "id", STR_NONE));
	jw_kz(w, "type", "function");
	jw_key(w, "function");
	jw_obj(w);
	jw_kstr(w, "name", json_str(use, "name", STR_NONE));
	jw_kstr(w, "arguments", input ? input->raw : S("{}"));
	jw_end_obj(w);
	jw_end_obj(w);
}

/* Text, calls, and what this very provider thought before them. */
static void
write_assistant(struct writer *x, const struct json *blocks)
{
	struct buf text = BUF_INIT(REQUEST_MAX);
	const struct json *thought = NULL, *k;
	bool calls = false;

	for (k = blocks->first; k; k = k->next) {
		struct str type = json_str(k, "type", STR_NONE);

		buf_str(&text, str_eqz(type, "text") ? json_str(k, "text", STR_NONE) : STR_NONE);
		calls |= str_eqz(type, "tool_use");
		if (str_eqz(type, "redacted_thinking") && str_eqz(json_str(k, "provider", STR_NONE), x->p->name))
			thought = k;
	}
	if (text.n || calls) {
		user_end(x);
		jw_obj(&x->w);
		jw_kz(&x->w, "role", "assistant");
		jw_key(&x->w, "content");
		if (text.n)
			jw_str(&x->w, buf_view(&text));
		else
			jw_null(&x->w);
		for (k = thought ? thought->first : NULL; k; k = k->next)
			if (str_starts(k->key, S("reasoning"))) {
				jw_key_str(&x->w, k->key);
				jw_raw(&x->w, k->raw);
			}
		x->strange |= calls && thought == NULL;
		if (calls) {
			jw_key(&x->w, "tool_calls");
			jw_arr(&x->w);
			for (k = blocks->first; k; k = k->next)
				if (str_eqz(json_str(k, "type", STR_NONE), "tool_use"))
					write_call(&x->w, k);
			jw_end_arr(&x->w);
		}
		jw_end_obj(&x->w);
	}
	if (x->err == OK)
		x->err = text.err;
	buf_free(&text);
}

static void
write_system(struct writer *x, struct str json)
{
	user_end(x);
	jw_obj(&x->w);
	jw_kz(&x->w, "role", x->server->developer ? "developer" : "system");
	jw_kraw(&x->w, "content", json);
	jw_end_obj(&x->w);
}

static void
write_message(struct writer *x, const struct llm_message *m)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(m->content.n));
	const struct json *blocks = NULL;
	enum err e = m->role[0] == 's' ? OK : json_parse(&ar, m->content, &blocks, NULL);

	if (e != OK)
		x->err = e;
	else if (m->role[0] == 's')
		write_system(x, m->content);
	else if (m->role[0] == 'u')
		write_user(x, blocks);
	else
		write_assistant(x, blocks);
	arena_free(&ar);
}

static enum err
write_tools(struct jw *w, struct str tools)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(tools.n));
	const struct json *list = NULL;
	enum err e = tools.n ? json_parse(&ar, tools, &list, NULL) : OK;

	if (e == OK && list && list->count) {
		jw_key(w, "tools");
		jw_arr(w);
		for (const struct json *t = list->first; t; t = t->next) {
			const struct json *schema = json_at(t, "input_schema");

			jw_obj(w);
			jw_kz(w, "type", "function");
			jw_key(w, "function");
			jw_obj(w);
			jw_kstr(w, "name", json_str(t, "name", STR_NONE));
			jw_kstr(w, "description", json_str(t, "description", STR_NONE));
			jw_kraw(w, "parameters", schema ? schema->raw : S("{\"type\":\"object\"}"));
			jw_end_obj(w);
			jw_end_obj(w);
		}
		jw_end_arr(w);
	}
	arena_free(&ar);
	return e;
}

/* What the request asks for beyond its words: nothing that it does not, since every server refuses something else. */
static void
write_wishes(struct jw *w, const struct oa_server *s, const struct llm_request *r)
{
	if (r->no_tools && r->tools.n > 2 && s->choice)
		jw_kz(w, "tool_choice", "none");
	if (r->one_call && !r->no_tools && r->tools.n > 2 && s->schema)
		jw_kbool(w, "parallel_tool_calls", false);
	if (r->stop.n)
		jw_kraw(w, "stop", r->stop);
	if (r->effort.n && s->effort && strcmp(s->effort, "reasoning") == 0) {
		jw_key(w, s->effort);
		jw_obj(w);
		jw_kstr(w, "effort", r->effort);
		jw_end_obj(w);
	} else if (r->effort.n && s->effort) {
		jw_kstr(w, s->effort, r->effort);
	}
	if (r->schema.n && s->schema) {
		jw_key(w, "response_format");
		jw_obj(w);
		jw_kz(w, "type", "json_schema");
		jw_key(w, "json_schema");
		jw_obj(w);
		jw_kz(w, "name", "answer");
		jw_kraw(w, "schema", r->schema);
		jw_end_obj(w);
		jw_end_obj(w);
	}
}

FALLIBLE
oa_question(struct body *b, struct oa *p, const struct oa_server *s, const struct llm_request *r)
{
	struct writer x = { .b = b, .p = p, .server = s, .text = BUF_INIT(REQUEST_MAX) };
	struct buf system = BUF_INIT(REQUEST_MAX);
	size_t n = strlen(p->name);
	enum err e;

	json_quote(&system, r->system);
	jw_init(&x.w, &b->text);
	jw_obj(&x.w);
	jw_kz(&x.w, "model", strncmp(r->model, p->name, n) == 0 && r->model[n] == '/' ? r->model + n + 1 : r->model);
	jw_ki64(&x.w, s->completion_limit ? "max_completion_tokens" : "max_tokens", r->max_tokens);
	jw_kbool(&x.w, "stream", true);
	if (s->usage)
		jw_kraw(&x.w, "stream_options", S("{\"include_usage\":true}"));
	if (!r->no_tools || s->choice)
		x.err = write_tools(&x.w, r->tools);
	write_wishes(&x.w, s, r);
	jw_key(&x.w, "messages");
	jw_arr(&x.w);
	if (r->system.n)
		write_system(&x, buf_view(&system));
	for (size_t i = 0; i < r->n_messages && x.err == OK; i++)
		write_message(&x, &r->messages[i]);
	if (r->schema.n && !s->schema)
		buf_fmt(&x.text, "%sAnswer with one JSON value and nothing else. Its JSON Schema: %.*s", x.text.n ? "\n\n" : "",
		    STR_ARG(r->schema));
	user_end(&x);
	jw_end_arr(&x.w);
	if (x.strange && s->insists)
		jw_kraw(&x.w, "thinking", S("{\"type\":\"disabled\"}"));
	jw_end_obj(&x.w);
	e = x.err != OK ? x.err : x.text.err != OK ? x.text.err : system.err;
	buf_free(&x.text);
	buf_free(&system);
	return e != OK ? e : jw_done(&x.w);
}
