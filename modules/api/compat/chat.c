/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * chat.c - answers in the shape of Chat Completions.
 *
 * A stream is a chunk with the role, one for each piece of text, one for each call of a
 * tool, one with the reason of the end, one with the usage if that was asked for, [DONE].
 */
#include "api/compat/compat.h"

static const char *
reason(enum finish f)
{
	switch (f) {
	case FINISH_STOP: return "stop";
	case FINISH_LENGTH: return "length";
	case FINISH_CALLS: return "tool_calls";
	case FINISH_FILTER: return "content_filter";
	}
	UNREACHABLE();
}

static void
open_object(struct request *r, struct jw *w, struct buf *b, const char *object)
{
	const struct compat *c = compat_of(r);
	char id[64];

	snprintf(id, sizeof(id), "chatcmpl-%s", c->id);
	jw_init(w, b);
	jw_obj(w);
	jw_kz(w, "id", id);
	jw_kz(w, "object", object);
	jw_ki64(w, "created", r->created_at / US_PER_S);
	jw_kz(w, "model", c->named);
}

/* A line of the stream; one that could not be made ends it, so that no client takes half an answer for the whole. */
static void
put_line(struct request *r, enum err e, const struct buf *b)
{
	if (e != OK || b->err != OK)
		conn_drop(r->c);
	else
		request_event(r, STR_NONE, NULL, buf_view(b));
}

/* A chunk whose delta holds these members; finish NULL: more follows. */
static void
put_chunk(struct request *r, const struct buf *members, const char *finish)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX);
	struct jw w;

	open_object(r, &w, &b, "chat.completion.chunk");
	jw_key(&w, "choices");
	jw_arr(&w);
	jw_obj(&w);
	jw_ki64(&w, "index", 0);
	jw_key(&w, "delta");
	jw_obj(&w);
	buf_str(&b, buf_view(members));
	jw_end_obj(&w);
	jw_kraw(&w, "logprobs", STR_NONE);
	jw_kz(&w, "finish_reason", finish);
	jw_end_obj(&w);
	jw_end_arr(&w);
	if (compat_of(r)->ask.include_usage)
		jw_kraw(&w, "usage", STR_NONE);
	jw_end_obj(&w);
	put_line(r, members->err, &b);
	buf_free(&b);
}

static void
begin(struct request *r)
{
	struct buf b = BUF_INIT(64);

	buf_puts(&b, "\"role\":\"assistant\",\"content\":\"\"");
	put_chunk(r, &b, NULL);
	buf_free(&b);
}

static void
text(struct request *r, struct str delta)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX);

	buf_puts(&b, "\"content\":");
	json_quote(&b, delta);
	put_chunk(r, &b, NULL);
	buf_free(&b);
}

/* The calls, as "tool_calls":[…]; in a stream each has its index. Nothing for none. */
static void
put_calls(struct buf *out, struct str blocks, bool stream)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(blocks.n));
	const struct json *list = NULL;
	struct jw w;
	int64_t n = 0;

	if (json_parse(&ar, blocks, &list, NULL) != OK)
		list = NULL;
	for (const struct json *b = list ? list->first : NULL; b; b = b->next) {
		const struct json *input = json_at(b, "input");

		if (!str_eqz(json_str(b, "type", STR_NONE), "tool_use"))
			continue;
		buf_puts(out, n ? "," : "\"tool_calls\":[");
		jw_init(&w, out);
		jw_obj(&w);
		if (stream)
			jw_ki64(&w, "index", n);
		jw_kstr(&w, "id", json_str(b, "id", STR_NONE));
		jw_kz(&w, "type", "function");
		jw_key(&w, "function");
		jw_obj(&w);
		jw_kstr(&w, "name", json_str(b, "name", STR_NONE));
		jw_kstr(&w, "arguments", input ? input->raw : S("{}"));
		jw_end_obj(&w);
		jw_end_obj(&w);
		n++;
	}
	if (n)
		buf_putc(out, ']');
	if (ar.err != OK)
		out->err = ar.err;
	arena_free(&ar);
}

static void
end(struct request *r, const struct answer *a)
{
	struct buf b = BUF_INIT(GATEWAY_OUT_MAX);
	struct jw w;

	put_calls(&b, a->finish == FINISH_CALLS ? a->blocks : STR_NONE, true);
	if (b.n || b.err != OK)
		put_chunk(r, &b, NULL);
	buf_reset(&b);
	put_chunk(r, &b, reason(a->finish));
	if (compat_of(r)->ask.include_usage) {
		open_object(r, &w, &b, "chat.completion.chunk");
		jw_kraw(&w, "choices", S("[]"));
		jw_key(&w, "usage");
		reply_usage(&w, &a->usage, "prompt_tokens", "completion_tokens");
		jw_end_obj(&w);
		put_line(r, OK, &b);
	}
	request_event(r, STR_NONE, NULL, S("[DONE]"));
	buf_free(&b);
}

static void
fail(struct request *r, struct str error)
{
	request_event(r, STR_NONE, NULL, error);
}

static void
whole(struct request *r, const struct answer *a, struct buf *out)
{
	struct buf calls = BUF_INIT(GATEWAY_OUT_MAX);
	struct jw w;

	put_calls(&calls, a->finish == FINISH_CALLS ? a->blocks : STR_NONE, false);
	open_object(r, &w, out, "chat.completion");
	jw_key(&w, "choices");
	jw_arr(&w);
	jw_obj(&w);
	jw_ki64(&w, "index", 0);
	jw_key(&w, "message");
	jw_obj(&w);
	jw_kz(&w, "role", "assistant");
	if (a->text.n || !calls.n)
		jw_kstr(&w, "content", a->text);
	else
		jw_kraw(&w, "content", STR_NONE);
	jw_kraw(&w, "refusal", STR_NONE);
	if (calls.n) {
		buf_putc(out, ',');
		buf_str(out, buf_view(&calls));
	}
	jw_kraw(&w, "annotations", S("[]"));
	jw_end_obj(&w);
	jw_kraw(&w, "logprobs", STR_NONE);
	jw_kz(&w, "finish_reason", reason(a->finish));
	jw_end_obj(&w);
	jw_end_arr(&w);
	jw_key(&w, "usage");
	reply_usage(&w, &a->usage, "prompt_tokens", "completion_tokens");
	jw_kz(&w, "service_tier", "default");
	jw_end_obj(&w);
	if (jw_done(&w) != OK || calls.err != OK)
		out->err = ERR_NOMEM;
	buf_free(&calls);
}

const struct shape chat_shape = { begin, text, end, fail, whole };
