/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * responses.c - answers in the shape of the Responses API.
 *
 * The output is one message with the text, if there is any, and an item for each call of a
 * tool. In a stream each event has its number, and each item is opened, told and closed.
 */
#include "api/compat/compat.h"

static void
put_message(const struct request *r, struct jw *w, const char *status, const struct str *text)
{
	char id[64];

	snprintf(id, sizeof(id), "msg_%s", compat_of(r)->id);
	jw_obj(w);
	jw_kz(w, "id", id);
	jw_kz(w, "type", "message");
	jw_kz(w, "status", status);
	jw_kz(w, "role", "assistant");
	jw_key(w, "content");
	jw_arr(w);
	if (text) {
		jw_obj(w);
		jw_kz(w, "type", "output_text");
		jw_kstr(w, "text", *text);
		jw_kraw(w, "annotations", S("[]"));
		jw_kraw(w, "logprobs", S("[]"));
		jw_end_obj(w);
	}
	jw_end_arr(w);
	jw_end_obj(w);
}

static void
call_id(const struct request *r, int64_t n, char out[80])
{
	snprintf(out, 80, "fc_%s_%lld", compat_of(r)->id, (long long)n);
}

static void
put_call(const struct request *r, struct jw *w, const struct json *b, int64_t n, bool whole)
{
	const struct json *input = json_at(b, "input");
	char id[80];

	call_id(r, n, id);
	jw_obj(w);
	jw_kz(w, "id", id);
	jw_kz(w, "type", "function_call");
	jw_kz(w, "status", whole ? "completed" : "in_progress");
	jw_kstr(w, "call_id", json_str(b, "id", STR_NONE));
	jw_kstr(w, "name", json_str(b, "name", STR_NONE));
	jw_kstr(w, "arguments", whole && input ? input->raw : STR_NONE);
	jw_end_obj(w);
}

/* The next call among blocks, NULL at their end. */
static const struct json *
next_call(const struct json *b)
{
	while (b && !str_eqz(json_str(b, "type", STR_NONE), "tool_use"))
		b = b->next;
	return b;
}

static const struct json *
calls_of(const struct answer *a, struct arena *ar)
{
	const struct json *list = NULL;

	return a && a->finish == FINISH_CALLS && json_parse(ar, a->blocks, &list, NULL) == OK ? next_call(list->first) : NULL;
}

/* The response; a NULL: nothing of its output is there yet. */
static void
put_response(const struct request *r, struct jw *w, const struct answer *a)
{
	const struct compat *c = compat_of(r);
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(a ? a->blocks.n : 0));
	const struct json *call = calls_of(a, &ar);
	bool cut = a && (a->finish == FINISH_LENGTH || a->finish == FINISH_FILTER);
	char id[64];

	snprintf(id, sizeof(id), "resp_%s", c->id);
	jw_obj(w);
	jw_kz(w, "id", id);
	jw_kz(w, "object", "response");
	jw_ki64(w, "created_at", r->created_at / US_PER_S);
	jw_kz(w, "status", !a ? "in_progress" : cut ? "incomplete" : "completed");
	jw_kraw(w, "error", STR_NONE);
	jw_kraw(w, "incomplete_details", !cut ? STR_NONE : a->finish == FINISH_LENGTH ? S("{\"reason\":\"max_output_tokens\"}") :
	    S("{\"reason\":\"content_filter\"}"));
	jw_kraw(w, "instructions", STR_NONE);
	jw_kraw(w, "metadata", S("{}"));
	jw_kz(w, "model", c->named);
	jw_key(w, "output");
	jw_arr(w);
	if (a && (a->text.n || !call))
		put_message(r, w, cut ? "incomplete" : "completed", &a->text);
	for (int64_t n = 0; call; call = next_call(call->next))
		put_call(r, w, call, n++, true);
	jw_end_arr(w);
	jw_kbool(w, "parallel_tool_calls", !c->ask.req.one_call);
	jw_key(w, "previous_response_id");
	jw_z(w, c->previous[0] ? c->previous : NULL);
	jw_kz(w, "tool_choice", c->ask.req.no_tools ? "none" : "auto");
	jw_kraw(w, "tools", S("[]"));
	jw_kraw(w, "text", S("{\"format\":{\"type\":\"text\"}}"));
	jw_kraw(w, "temperature", STR_NONE);
	jw_kraw(w, "top_p", STR_NONE);
	jw_kz(w, "truncation", "disabled");
	jw_key(w, "usage");
	if (a)
		reply_usage(w, &a->usage, "input_tokens", "output_tokens");
	else
		jw_null(w);
	jw_end_obj(w);
	if (ar.err != OK)
		w->b->err = ar.err;
	arena_free(&ar);
}

/* ---- a stream ------------------------------------------------------------------------------- */

static void
open_event(struct request *r, struct jw *w, struct buf *b, const char *type)
{
	buf_init(b, GATEWAY_OUT_MAX);
	jw_init(w, b);
	jw_obj(w);
	jw_kz(w, "type", type);
	jw_ki64(w, "sequence_number", compat_of(r)->seq++);
}

static void
close_event(struct request *r, struct jw *w, const char *type)
{
	jw_end_obj(w);
	if (jw_done(w) != OK)
		conn_drop(r->c);
	else
		request_event(r, STR_NONE, type, buf_view(w->b));
	buf_free(w->b);
}

static void
tell_response(struct request *r, const char *type, const struct answer *a)
{
	struct buf b;
	struct jw w;

	open_event(r, &w, &b, type);
	jw_key(&w, "response");
	put_response(r, &w, a);
	close_event(r, &w, type);
}

/* Of the item that is number n of the output: what is told of it is under key. */
static void
tell_part(struct request *r, const char *type, int64_t n, const char *item, const char *key, struct str text)
{
	bool in_message = str_starts(str_z(item), S("msg_"));
	struct buf b;
	struct jw w;

	open_event(r, &w, &b, type);
	jw_kz(&w, "item_id", item);
	jw_ki64(&w, "output_index", n);
	if (in_message)
		jw_ki64(&w, "content_index", 0);
	if (strcmp(key, "part") == 0) {
		jw_key(&w, key);
		jw_obj(&w);
		jw_kz(&w, "type", "output_text");
		jw_kstr(&w, "text", text);
		jw_kraw(&w, "annotations", S("[]"));
		jw_kraw(&w, "logprobs", S("[]"));
		jw_end_obj(&w);
	} else {
		jw_kstr(&w, key, text);
		if (in_message)
			jw_kraw(&w, "logprobs", S("[]"));
	}
	close_event(r, &w, type);
}

static void
tell_message(struct request *r, const char *type, const char *status, const struct str *text)
{
	struct buf b;
	struct jw w;

	open_event(r, &w, &b, type);
	jw_ki64(&w, "output_index", 0);
	jw_key(&w, "item");
	put_message(r, &w, status, text);
	close_event(r, &w, type);
}

static void
tell_call(struct request *r, const char *type, const struct json *call, int64_t n, int64_t at, bool whole)
{
	struct buf b;
	struct jw w;

	open_event(r, &w, &b, type);
	jw_ki64(&w, "output_index", at);
	jw_key(&w, "item");
	put_call(r, &w, call, n, whole);
	close_event(r, &w, type);
}

static void
begin(struct request *r)
{
	tell_response(r, "response.created", NULL);
	tell_response(r, "response.in_progress", NULL);
}

static void
message_id(const struct request *r, char out[64])
{
	snprintf(out, 64, "msg_%s", compat_of(r)->id);
}

static void
open_message(struct request *r)
{
	char id[64];

	if (compat_of(r)->in_message)
		return;
	compat_of(r)->in_message = true;
	message_id(r, id);
	tell_message(r, "response.output_item.added", "in_progress", NULL);
	tell_part(r, "response.content_part.added", 0, id, "part", STR_NONE);
}

static void
text(struct request *r, struct str delta)
{
	char id[64];

	open_message(r);
	message_id(r, id);
	tell_part(r, "response.output_text.delta", 0, id, "delta", delta);
}

static void
end(struct request *r, const struct answer *a)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(a->blocks.n));
	const struct json *call = calls_of(a, &ar);
	bool cut = a->finish == FINISH_LENGTH || a->finish == FINISH_FILTER;
	int64_t at = 0;
	char id[80];

	if (a->text.n || !call) {
		open_message(r);
		message_id(r, id);
		tell_part(r, "response.output_text.done", 0, id, "text", a->text);
		tell_part(r, "response.content_part.done", 0, id, "part", a->text);
		tell_message(r, "response.output_item.done", cut ? "incomplete" : "completed", &a->text);
		at = 1;
	}
	for (int64_t n = 0; call; call = next_call(call->next), n++) {
		const struct json *input = json_at(call, "input");

		call_id(r, n, id);
		tell_call(r, "response.output_item.added", call, n, at + n, false);
		tell_part(r, "response.function_call_arguments.delta", at + n, id, "delta", input ? input->raw : S("{}"));
		tell_part(r, "response.function_call_arguments.done", at + n, id, "arguments", input ? input->raw : S("{}"));
		tell_call(r, "response.output_item.done", call, n, at + n, true);
	}
	if (ar.err != OK)
		conn_drop(r->c);        /* a call may be missing */
	tell_response(r, cut ? "response.incomplete" : "response.completed", a);
	arena_free(&ar);
}

/* {"error":{…}} becomes an event of its own. */
static void
fail(struct request *r, struct str error)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(error.n));
	const struct json *e = NULL;
	struct buf b;
	struct jw w;

	open_event(r, &w, &b, "error");
	if (json_parse(&ar, error, &e, NULL) == OK) {
		jw_kstr(&w, "code", json_str(e, "error.code", STR_NONE));
		jw_kstr(&w, "message", json_str(e, "error.message", STR_NONE));
		jw_kraw(&w, "param", json_at(e, "error.param") ? json_at(e, "error.param")->raw : STR_NONE);
	}
	close_event(r, &w, "error");
	arena_free(&ar);
}

static void
whole(struct request *r, const struct answer *a, struct buf *out)
{
	struct jw w;

	jw_init(&w, out);
	put_response(r, &w, a);
}

const struct shape responses_shape = { begin, text, end, fail, whole };
