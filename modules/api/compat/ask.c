/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ask.c - a request of the OpenAI API, read into what the agent speaks.
 *
 * Two tables say of every field what becomes of it: honoured, of that type; or refused
 * unless it asks for nothing. What stands in neither is ignored (docs/API.md has the
 * same tables in words). Messages of one side that follow each other become one, results
 * of tools first in theirs, as the providers want them; system and developer messages
 * become the system text. Pictures and files come as data: addresses, nothing is fetched.
 */
#include "api/compat/compat.h"
#include "base/image.h"

enum rule {
	TEXT, ARRAY, OBJECT, BOOL, COUNT, ANY,  /* honoured: of that type; COUNT: from 1 on */
	NOTHING,                                /* refused, unless null, false, 0 or empty */
	ONE, TEXT_ALONE                         /* refused, unless 1; unless ["text"] */
};
struct field { const char *name; enum rule rule; const char *why; };

#define COMMON_FIELDS \
	{ "model", TEXT, NULL }, { "stream", BOOL, NULL }, { "stream_options", OBJECT, NULL }, { "tools", ARRAY, NULL }, \
	{ "tool_choice", ANY, NULL }, { "parallel_tool_calls", BOOL, NULL }, { "user", TEXT, NULL }, \
	{ "safety_identifier", TEXT, NULL }, { "prompt_cache_key", TEXT, NULL }, \
	{ "top_logprobs", NOTHING, "no probabilities are known" }

static const struct field chat_fields[] = {
	COMMON_FIELDS,
	{ "messages", ARRAY, NULL }, { "max_tokens", COUNT, NULL }, { "max_completion_tokens", COUNT, NULL },
	{ "stop", ANY, NULL }, { "response_format", OBJECT, NULL }, { "reasoning_effort", TEXT, NULL },
	{ "n", ONE, "one answer is given" }, { "logprobs", NOTHING, "no probabilities are known" },
	{ "logit_bias", NOTHING, "the models have no such thing" }, { "audio", NOTHING, "answers are text" },
	{ "modalities", TEXT_ALONE, "answers are text" }, { "web_search_options", NOTHING, "there is no such tool" },
	{ "functions", NOTHING, "send them as tools" }, { "function_call", NOTHING, "send functions as tools" },
};
static const struct field responses_fields[] = {
	COMMON_FIELDS,
	{ "input", ANY, NULL }, { "instructions", TEXT, NULL }, { "previous_response_id", TEXT, NULL },
	{ "max_output_tokens", COUNT, NULL }, { "reasoning", OBJECT, NULL }, { "text", OBJECT, NULL },
	{ "conversation", NOTHING, "name it by previous_response_id" }, { "background", NOTHING, "an answer is waited for" },
	{ "prompt", NOTHING, "no templates are stored here" },
};

struct reader {
	struct request *r;
	struct ask *q;
	const char *param;              /* where messages stand */
	bool bad;                       /* refused: all else is idle */
	bool nomem;
	const char *wrong;              /* the field, and what is wrong with it */
	char why[512];
	size_t cap;                     /* of q->messages */
	const char *role;               /* of the message being made; NULL: none */
	struct buf results, blocks, system;
};

static void refuse(struct reader *d, const char *param, const char *fmt, ...) PRINTF(3, 4);
static void
refuse(struct reader *d, const char *param, const char *fmt, ...)
{
	va_list ap;

	if (d->bad)
		return;
	d->bad = true;
	d->wrong = param;
	va_start(ap, fmt);
	(void)secret_fmt(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
}

/* ---- the tables ------------------------------------------------------------------------- */

static bool
asks_for_nothing(const struct json *v)
{
	return v->type == JSON_BOOL ? !v->boolean : v->type == JSON_NUMBER ? json_f64(v, "", 1) == 0 :
	    v->type == JSON_STRING ? v->s.n == 0 : v->count == 0;
}

static bool
fits(const struct json *v, enum rule rule)
{
	int64_t n;

	switch (rule) {
	case TEXT: return v->type == JSON_STRING;
	case ARRAY: return v->type == JSON_ARRAY;
	case OBJECT: return v->type == JSON_OBJECT;
	case BOOL: return v->type == JSON_BOOL;
	case COUNT: return v->type == JSON_NUMBER && json_to_i64(v, &n) == OK && n > 0;
	case ANY: return true;
	case NOTHING: return asks_for_nothing(v);
	case ONE: return v->type == JSON_NUMBER && json_to_i64(v, &n) == OK && n == 1;
	case TEXT_ALONE: return v->count == 0 || (v->count == 1 && str_eqz(v->first->s, "text"));
	}
	UNREACHABLE();
}

static void
check_fields(struct reader *d, const struct json *o, const struct field *f, size_t n)
{
	static const char *const types[] = { "a string", "an array", "an object", "true or false", "a whole number from 1 on" };

	for (; n-- > 0 && !d->bad; f++) {
		const struct json *v = json_get(o, str_z(f->name));

		if (!v || v->type == JSON_NULL || fits(v, f->rule))
			continue;
		if (f->why)
			refuse(d, f->name, "%s cannot be had here: %s", f->name, f->why);
		else
			refuse(d, f->name, "%s has to be %s", f->name, types[f->rule]);
	}
}

/* ---- messages ---------------------------------------------------------------------------- */

/* What was gathered becomes a message. */
static void
flush(struct reader *d)
{
	struct ask *q = d->q;
	size_t n = d->results.n + d->blocks.n;
	char *content;

	if (!d->role || d->bad)
		return;
	content = n ? arena_alloc(&q->ar, n + 2) : NULL;
	if (content) {                  /* ",{…},{…}" becomes "[{…},{…}]" */
		memcpy(content, d->results.p ? d->results.p : "", d->results.n);
		memcpy(content + d->results.n, d->blocks.p ? d->blocks.p : "", d->blocks.n);
		content[0] = '[';
		content[n] = ']';
	}
	if (q->req.n_messages == d->cap && n) {
		struct llm_message *grown = arena_array(&q->ar, d->cap = d->cap ? d->cap * 2 : 16, sizeof(*grown));

		if (grown && q->req.n_messages)
			memcpy(grown, q->messages, q->req.n_messages * sizeof(*grown));
		q->messages = grown;
	}
	if (d->results.err != OK || d->blocks.err != OK || (n && (!content || !q->messages)))
		d->bad = d->nomem = true;
	else if (n)
		q->messages[q->req.n_messages++] = (struct llm_message){ d->role, str_make(content, n + 1), false };
	if (q->req.n_messages > ASK_MESSAGES_MAX)
		refuse(d, d->param, "there are more than %d messages", (int)ASK_MESSAGES_MAX);
	buf_reset(&d->results);
	buf_reset(&d->blocks);
	d->role = NULL;
}

static void put_text(struct reader *d, struct str text);

static void
turn_to(struct reader *d, const char *role)
{
	if (d->role == role)
		return;
	flush(d);
	if (d->q->req.n_messages == 0 && !d->bad && role[0] == 'a') {       /* the API wants the user to speak first */
		d->role = "user";
		put_text(d, S("(The assistant speaks first.)"));
		flush(d);
	}
	d->role = role;
}

/* A blank text is no block. */
static void
put_text(struct reader *d, struct str text)
{
	if (str_trim(text).n == 0)
		return;
	buf_puts(&d->blocks, ",{\"type\":\"text\",\"text\":");
	json_quote(&d->blocks, text);
	buf_putc(&d->blocks, '}');
}

/* "data:image/png;base64,…" */
static bool
read_data(struct str url, struct str *type, struct str *data)
{
	struct str head;

	if (!str_starts(url, S("data:")))
		return false;
	*data = str_sub(url, 5, url.n);
	if (!str_cut(data, ',', &head) || !str_ends(head, S(";base64")))
		return false;
	str_cut(&head, ';', type);
	return true;
}

/* A picture or a document as a block: PDF as it is, text as text. */
static void
put_file(struct reader *d, struct str url, struct str name)
{
	static const char *const pictures[] = { "image/png", "image/jpeg", "image/gif", "image/webp" };
	struct str type = STR_NONE, data = STR_NONE;
	struct buf bytes = BUF_INIT(request_body(d->r).n);
	struct jw w = { &d->blocks, 1, false };
	struct image image = { .type = IMAGE_NONE };
	bool known = false, text;

	if (!read_data(url, &type, &data)) {
		refuse(d, d->param, "a picture or a file has to be a data: address (data:TYPE;base64,…): nothing is fetched");
		return;
	}
	if (str_eqz(type, "image/jpg"))
		type = S("image/jpeg");
	for (size_t i = 0; i < ARRAY_LEN(pictures); i++)
		known = known || str_eqz(type, pictures[i]);
	text = !known && str_starts(type, S("text/"));
	if (dec_base64(data, &bytes) != OK || bytes.n == 0)
		refuse(d, d->param, "the base64 of a picture or a file is damaged or empty");
	else if (known && (image_probe(buf_view(&bytes), &image) != OK || !str_eqz(type, image_mime(image.type))))
		refuse(d, d->param, "a picture is damaged, or not of the type %.*s", STR_ARG(type));
	else if (image.width > IMAGE_PIXELS_MAX || image.height > IMAGE_PIXELS_MAX)
		refuse(d, d->param, "a picture has more than %d pixels on a side", IMAGE_PIXELS_MAX);
	else if (str_eqz(type, "application/pdf") && !str_starts(buf_view(&bytes), S("%PDF-")))
		refuse(d, d->param, "a file is no PDF");
	else if (!known && !text && !str_eqz(type, "application/pdf"))
		refuse(d, d->param, "a file of the type %.*s cannot be read: PNG, JPEG, GIF, WebP, PDF or text", STR_ARG(type));
	else if (text && (!utf8_valid(buf_view(&bytes)) || str_trim(buf_view(&bytes)).n == 0))
		refuse(d, d->param, "a text file has to be UTF-8, and not blank");
	if (!text)
		buf_free(&bytes);       /* they were only looked at, and may be large */
	buf_putc(&d->blocks, ',');
	jw_obj(&w);
	jw_kz(&w, "type", known ? "image" : "document");
	jw_key(&w, "source");
	jw_obj(&w);
	jw_kz(&w, "type", text ? "text" : "base64");
	jw_kstr(&w, "media_type", text ? S("text/plain") : type);
	jw_kstr(&w, "data", text ? buf_view(&bytes) : data);
	jw_end_obj(&w);
	if (!known && name.n)
		jw_kstr(&w, "title", utf8_prefix(name, 128));
	jw_end_obj(&w);
	buf_free(&bytes);
}

/* One part of a content; both shapes' words for it. */
static void
put_part(struct reader *d, const struct json *p)
{
	struct str type = json_str(p, "type", STR_NONE), text = json_str(p, "text", json_str(p, "refusal", STR_NONE));
	const struct json *file = json_at(p, "file") ? json_at(p, "file") : p;
	bool user = d->role[0] == 'u';

	if (str_eqz(type, "text") || str_eqz(type, "input_text") || str_eqz(type, "output_text") || str_eqz(type, "refusal"))
		put_text(d, text);
	else if (user && (str_eqz(type, "image_url") || str_eqz(type, "input_image")))
		put_file(d, json_str(p, "image_url.url", json_str(p, "image_url", STR_NONE)), STR_NONE);
	else if (user && (str_eqz(type, "file") || str_eqz(type, "input_file")))
		put_file(d, json_str(file, "file_data", STR_NONE), json_str(file, "filename", STR_NONE));
	else
		refuse(d, d->param, "a content part of the type \"%.*s\" cannot be taken here", STR_ARG(utf8_prefix(type, 64)));
}

static void
put_content(struct reader *d, const struct json *content)
{
	if (!content || content->type == JSON_NULL)
		return;
	if (content->type == JSON_STRING)
		put_text(d, content->s);
	else if (content->type != JSON_ARRAY)
		refuse(d, d->param, "a content has to be a string or an array of parts");
	for (const struct json *p = content->type == JSON_ARRAY ? content->first : NULL; p && !d->bad; p = p->next)
		put_part(d, p);
}

/* All text of a content that may hold nothing else. */
static void
text_of(struct reader *d, const struct json *content, struct buf *out)
{
	if (json_is(content, JSON_STRING))
		buf_str(out, content->s);
	else if (content && content->type != JSON_ARRAY && content->type != JSON_NULL)
		refuse(d, d->param, "a content has to be a string or an array of parts");
	for (const struct json *p = json_is(content, JSON_ARRAY) ? content->first : NULL; p; p = p->next) {
		const struct json *text = json_get(p, S("text"));

		if (!json_is(text, JSON_STRING))
			refuse(d, d->param, "only parts of text can stand here");
		else
			buf_str(out, text->s);
	}
}

/* Providers take letters, digits, "_" and "-" in the id of a call. */
static void
put_id(struct buf *out, struct str id)
{
	buf_putc(out, '"');
	for (size_t i = 0; i < id.n; i++)
		buf_putc(out, (id.p[i] >= '0' && id.p[i] <= '9') || (id.p[i] >= 'a' && id.p[i] <= 'z') ||
		    (id.p[i] >= 'A' && id.p[i] <= 'Z') || id.p[i] == '-' ? id.p[i] : '_');
	buf_putc(out, '"');
}

static bool
is_name(struct str name)
{
	for (size_t i = 0; i < name.n; i++)
		if (!((name.p[i] >= '0' && name.p[i] <= '9') || (name.p[i] >= 'a' && name.p[i] <= 'z') ||
		    (name.p[i] >= 'A' && name.p[i] <= 'Z') || name.p[i] == '-' || name.p[i] == '_'))
			return false;
	return name.n > 0 && name.n <= 128;
}

static void
put_call(struct reader *d, struct str id, struct str name, struct str arguments)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(arguments.n + 16));
	struct buf b = BUF_INIT(REQUEST_MAX);
	const struct json *v;

	/* as deep as it will stand in its message */
	buf_fmt(&b, "[{\"input\":%.*s}]", STR_ARG(str_trim(arguments).n ? arguments : S("{}")));
	if (id.n == 0 || !is_name(name))
		refuse(d, d->param, "a call of a tool has to have an id and a name");
	else if (b.err != OK || json_parse(&ar, buf_view(&b), &v, NULL) != OK || !json_is(json_at(v, "0.input"), JSON_OBJECT))
		refuse(d, d->param, "the arguments of a call have to be the text of a JSON object");
	buf_puts(&d->blocks, ",{\"type\":\"tool_use\",\"id\":");
	put_id(&d->blocks, id);
	buf_fmt(&d->blocks, ",\"name\":\"%.*s\",", STR_ARG(name));
	buf_str(&d->blocks, str_sub(buf_view(&b), 2, b.n - 4));
	buf_putc(&d->blocks, '}');
	buf_free(&b);
	arena_free(&ar);
}

static void
put_result(struct reader *d, struct str id, const struct json *content)
{
	struct buf text = BUF_INIT(REQUEST_MAX), quoted = BUF_INIT(1024);

	turn_to(d, "user");
	put_id(&quoted, id);
	text_of(d, content, &text);
	if (id.n == 0)
		refuse(d, d->param, "the result of a tool has to name its call");
	else if (str_find(buf_view(&d->results), buf_view(&quoted)) != SIZE_MAX)
		refuse(d, d->param, "two results name the same call");
	buf_puts(&d->results, ",{\"type\":\"tool_result\",\"tool_use_id\":");
	buf_str(&d->results, buf_view(&quoted));
	buf_puts(&d->results, ",\"content\":");
	json_quote(&d->results, buf_view(&text));
	buf_putc(&d->results, '}');
	buf_free(&quoted);
	buf_free(&text);
}

static void
put_system(struct reader *d, const struct json *content)
{
	size_t before = d->system.n;

	buf_puts(&d->system, before ? "\n\n" : "");
	text_of(d, content, &d->system);
	if (d->system.n == before + 2)
		buf_cut(&d->system, before);
}

static void
read_message(struct reader *d, const struct json *m)
{
	struct str role = json_str(m, "role", STR_NONE);
	const struct json *content = json_get(m, S("content")), *calls = json_get(m, S("tool_calls"));

	if (str_eqz(role, "system") || str_eqz(role, "developer")) {
		put_system(d, content);
	} else if (str_eqz(role, "user")) {
		turn_to(d, "user");
		put_content(d, content);
	} else if (str_eqz(role, "tool")) {
		put_result(d, json_str(m, "tool_call_id", STR_NONE), content);
	} else if (str_eqz(role, "assistant")) {
		turn_to(d, "assistant");
		put_content(d, content);
		if (!content || content->type == JSON_NULL)
			put_text(d, json_str(m, "refusal", STR_NONE));
		for (const struct json *c = json_is(calls, JSON_ARRAY) ? calls->first : NULL; c && !d->bad; c = c->next)
			put_call(d, json_str(c, "id", STR_NONE), json_str(c, "function.name", STR_NONE),
			    json_str(c, "function.arguments", STR_NONE));
	} else {
		refuse(d, d->param, "a message has to have a role: system, developer, user, assistant or tool");
	}
}

static void
read_item(struct reader *d, const struct json *m)
{
	struct str type = json_str(m, "type", S("message")), id = json_str(m, "call_id", STR_NONE);

	if (str_eqz(type, "message")) {
		read_message(d, m);
	} else if (str_eqz(type, "function_call")) {
		turn_to(d, "assistant");
		put_call(d, id, json_str(m, "name", STR_NONE), json_str(m, "arguments", STR_NONE));
	} else if (str_eqz(type, "function_call_output")) {
		put_result(d, id, json_get(m, S("output")));
	} else if (!str_eqz(type, "reasoning")) {       /* that was its model's own business */
		refuse(d, d->param, "an item of the type \"%.*s\" cannot be taken here", STR_ARG(utf8_prefix(type, 64)));
	}
}

static void
read_messages(struct reader *d, const struct json *list, bool responses)
{
	struct ask *q = d->q;
	const char *param = d->param;

	if (responses && json_is(list, JSON_STRING)) {
		turn_to(d, "user");
		put_text(d, list->s);
	} else if (!json_is(list, JSON_ARRAY)) {
		refuse(d, param, "%s is missing", param);
	}
	for (const struct json *m = json_is(list, JSON_ARRAY) ? list->first : NULL; m && !d->bad; m = m->next)
		if (responses)
			read_item(d, m);
		else
			read_message(d, m);
	flush(d);
	if (!d->bad && q->req.n_messages == 0)
		refuse(d, param, "nothing is said in %s", param);
	else if (!d->bad && q->messages[q->req.n_messages - 1].role[0] == 'a')
		refuse(d, param, "the last message has to be the user's or a tool's: an answer that has been begun cannot be continued");
}

/* ---- tools and the rest --------------------------------------------------------------------- */

struct tool { struct str name, json; };

static int
by_name(const void *x, const void *y)
{
	return str_cmp(((const struct tool *)x)->name, ((const struct tool *)y)->name);
}

static void
read_tool(struct reader *d, const struct json *t, bool responses, struct tool *out)
{
	const struct json *f = responses ? t : json_get(t, S("function")), *schema = json_get(f, S("parameters"));
	struct buf b = BUF_INIT(REQUEST_MAX);
	struct jw w;

	out->name = json_str(f, "name", STR_NONE);
	if (!str_eqz(json_str(t, "type", STR_NONE), "function") || !is_name(out->name))
		refuse(d, "tools", "a tool has to be of the type \"function\" and to have a name of letters, digits, _ and -");
	if (schema && schema->type != JSON_NULL && !(json_is(schema, JSON_OBJECT) && (schema->count == 0 ||
	    str_eqz(json_str(schema, "type", STR_NONE), "object"))))
		refuse(d, "tools", "the parameters of %.*s have to be a schema of the type \"object\"", STR_ARG(out->name));
	jw_init(&w, &b);
	jw_obj(&w);
	jw_kstr(&w, "name", out->name);
	if (json_str(f, "description", STR_NONE).n)
		jw_kstr(&w, "description", json_str(f, "description", STR_NONE));
	jw_kraw(&w, "input_schema", schema && schema->count ? schema->raw : S("{\"type\":\"object\",\"properties\":{}}"));
	if (json_bool(f, "strict", false))
		jw_kbool(&w, "strict", true);
	jw_end_obj(&w);
	out->json = arena_str(&d->q->ar, buf_view(&b));
	if (b.err != OK)
		d->q->ar.err = b.err;
	buf_free(&b);
}

/* Sorted by name, so that the same tools are the same bytes. */
static void
read_tools(struct reader *d, const struct json *list, bool responses)
{
	struct tool tools[ASK_TOOLS_MAX];
	struct buf b = BUF_INIT(REQUEST_MAX);
	size_t n = 0;

	if (!list || list->count == 0)
		return;
	if (list->count > ASK_TOOLS_MAX)
		refuse(d, "tools", "there are more than %u tools", ASK_TOOLS_MAX);
	for (const struct json *t = list->first; t && !d->bad; t = t->next)
		read_tool(d, t, responses, &tools[n++]);
	if (d->bad)
		return;
	qsort(tools, n, sizeof(tools[0]), by_name);
	for (size_t i = 0; i < n; i++) {
		if (i && str_eq(tools[i].name, tools[i - 1].name))
			refuse(d, "tools", "two tools are called %.*s", STR_ARG(tools[i].name));
		buf_putc(&b, i ? ',' : '[');
		buf_str(&b, tools[i].json);
	}
	buf_putc(&b, ']');
	d->q->req.tools = arena_str(&d->q->ar, buf_view(&b));
	if (b.err != OK)
		d->q->ar.err = b.err;
	buf_free(&b);
}

static void
read_tool_choice(struct reader *d, const struct json *o)
{
	const struct json *choice = json_get(o, S("tool_choice"));
	struct llm_request *p = &d->q->req;

	p->one_call = !json_bool(o, "parallel_tool_calls", true);
	if (!choice || choice->type == JSON_NULL || str_eqz(choice->s, "auto"))
		return;
	p->no_tools = str_eqz(choice->s, "none");
	if (!p->no_tools)
		refuse(d, "tool_choice", "the models here cannot be made to use a tool: tool_choice is \"auto\" or \"none\"");
}

static void
read_stop(struct reader *d, const struct json *stop)
{
	struct buf b = BUF_INIT(REQUEST_MAX);
	const struct json *one;
	size_t n = 0;

	if (!stop || stop->type == JSON_NULL)
		return;
	for (one = stop->type == JSON_ARRAY ? stop->first : stop; one && !d->bad; one = one == stop ? NULL : one->next) {
		if (one->type != JSON_STRING || str_trim(one->s).n == 0 || n == ASK_STOPS_MAX)
			refuse(d, "stop", "stop has to be a string or an array of at most %u, none of them blank", ASK_STOPS_MAX);
		buf_putc(&b, n++ ? ',' : '[');
		json_quote(&b, one->s);
	}
	buf_putc(&b, ']');
	if (n)
		d->q->req.stop = arena_str(&d->q->ar, buf_view(&b));
	buf_free(&b);
}

static void
read_format(struct reader *d, const struct json *f, const char *param, const char *schema)
{
	struct str type = json_str(f, "type", S("text"));
	const struct json *s = json_at(f, schema);

	if (str_eqz(type, "json_schema") && json_is(s, JSON_OBJECT)) {
		d->q->req.schema = arena_str(&d->q->ar, s->raw);
	} else if (str_eqz(type, "json_object")) {      /* the providers have no such mode: it is asked for in words */
		buf_puts(&d->system, d->system.n ? "\n\n" : "");
		buf_puts(&d->system, "Answer with one JSON object and nothing else: no words around it, no code fence.");
	} else if (!str_eqz(type, "text")) {
		refuse(d, param, "%s has to be of the type text, json_object, or json_schema with a schema", param);
	}
}

static void
read_effort(struct reader *d, struct str effort, const char *param)
{
	static const char *const known[][2] = { { "none", "low" }, { "minimal", "low" }, { "low", "low" }, { "medium", "medium" },
	    { "high", "high" }, { "xhigh", "xhigh" }, { "max", "max" } };

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (str_eqz(effort, known[i][0]))
			d->q->req.effort = str_z(known[i][1]);
	if (effort.n && !d->q->req.effort.n)
		refuse(d, param, "the effort is one of none, minimal, low, medium, high, xhigh, max");
}

static void
read_all(struct reader *d, const struct json *o, bool responses)
{
	struct ask *q = d->q;
	struct str name;

	check_fields(d, o, responses ? responses_fields : chat_fields, responses ? ARRAY_LEN(responses_fields) : ARRAY_LEN(chat_fields));
	if (!d->bad && json_str(o, "model", STR_NONE).n == 0)
		refuse(d, "model", "model is missing");
	if (responses && !d->bad)
		put_system(d, json_get(o, S("instructions")));
	if (!d->bad)
		read_messages(d, json_get(o, responses ? S("input") : S("messages")), responses);
	read_tools(d, d->bad ? NULL : json_get(o, S("tools")), responses);
	read_tool_choice(d, o);
	read_stop(d, responses ? NULL : json_get(o, S("stop")));
	if (responses)
		read_format(d, json_at(o, "text.format"), "text", "schema");
	else
		read_format(d, json_get(o, S("response_format")), "response_format", "json_schema.schema");
	read_effort(d, json_str(o, responses ? "reasoning.effort" : "reasoning_effort", STR_NONE), responses ? "reasoning" :
	    "reasoning_effort");
	name = http_field(request_head(d->r), "blufio-session");
	name = name.n ? name : json_str(o, "prompt_cache_key", STR_NONE);
	q->user = json_str(o, "safety_identifier", json_str(o, "user", STR_NONE));
	q->session = arena_str(&q->ar, name.n ? name : q->user);
	q->user = arena_str(&q->ar, q->user);
	q->req.messages = q->messages;
	q->model = arena_str(&q->ar, json_str(o, "model", STR_NONE));
	q->previous = arena_str(&q->ar, json_str(o, "previous_response_id", STR_NONE));
	q->req.system = arena_str(&q->ar, buf_view(&d->system));
	q->req.max_tokens = json_i64(o, responses ? "max_output_tokens" : "max_completion_tokens", json_i64(o, "max_tokens", 0));
	q->stream = json_bool(o, "stream", false);
	q->include_usage = json_bool(o, "stream_options.include_usage", false);
	if (q->ar.err != OK || d->system.err != OK)
		d->bad = d->nomem = true;
}

bool
ask_read(struct request *r, struct ask *q, bool responses)
{
	struct arena tree = ARENA_INIT(JSON_TREE_MAX(request_body(r).n));
	struct reader d = { .r = r, .q = q, .param = responses ? "input" : "messages", .results = BUF_INIT(REQUEST_MAX),
	    .blocks = BUF_INIT(REQUEST_MAX), .system = BUF_INIT(REQUEST_MAX) };
	const struct json *o;

	arena_init(&q->ar, REQUEST_MAX * 2);
	o = request_object(r, &tree, NULL);
	if (o)
		read_all(&d, o, responses);
	buf_free(&d.results);
	buf_free(&d.blocks);
	buf_free(&d.system);
	arena_free(&tree);
	if (d.nomem)
		request_failed(r, ERR_NOMEM);
	else if (d.bad)
		request_error(r, 400, "invalid_request", d.wrong, NULL, "%s", d.why);
	return o && !d.bad;
}
