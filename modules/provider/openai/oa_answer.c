/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * oa_answer.c - the stream of a chat completion, as blocks; its errors, as classes.
 *
 * Servers agree on little. Pieces of a tool call belong together by index, else by
 * id, else by place. Usage may ride on any chunk, or on one without a choice. A
 * finish_reason that is not known is a stop; with tool calls a stop is for them. An
 * error may come under status 200. What is thought is counted as it comes and kept
 * whole only beside tool calls: then it has to go back.
 */
#include "oa.h"

#define ID_MIN 8u                       /* a shorter id is counted up and comes again in the next answer */
#define ID_OWN 9u                       /* letters and digits: every server takes that */
#define DETAIL_BYTES 300u               /* of what a server says for people */

enum { BLOCK_UNSAID, BLOCK_SAID, BLOCK_CALLS };         /* indexes for llm_feed_* */

static void
end(struct oa_op *op, enum llm_class class, int64_t retry_after_us, struct str detail)
{
	struct llm_call *call = op->call;

	if (call == NULL)
		return;
	op->call = NULL;
	fetch_pause(op->fetch, false);  /* nobody is left who would resume it */
	llm_feed_end(call, class, op->status, retry_after_us, detail, fetch_header(op->fetch, "x-request-id"));
}

/* What could not be held. true: all could. */
static bool
held(struct oa_op *op, const struct buf *b)
{
	if (b->err != OK)
		end(op, b->err == ERR_NOMEM ? LLM_RETRY : LLM_BAD_REQUEST, -1, b->err == ERR_NOMEM ? S("out of memory") :
		    S("the answer is larger than it may be"));
	return b->err == OK;
}

/* ---- the answer ------------------------------------------------------------------------- */

/* Counted and timed as part of the answer; its block never ends, so that it is not kept. */
static void
unsaid(struct oa_op *op, struct str s)
{
	if (!op->thought && s.n)
		llm_feed_block(op->call, BLOCK_UNSAID, S("thinking"), STR_NONE, STR_NONE, STR_NONE);
	op->thought |= s.n > 0;
	llm_feed_thinking(op->call, BLOCK_UNSAID, s);
}

static void
said(struct oa_op *op, struct str s)
{
	if (!op->said && s.n)
		llm_feed_block(op->call, BLOCK_SAID, S("text"), STR_NONE, STR_NONE, STR_NONE);
	op->said |= s.n > 0;
	llm_feed_text(op->call, BLOCK_SAID, s);
}

/* Of zero or nonsense nothing is believed. The total may hold thinking that the answer's count leaves out. */
static void
on_usage(struct oa_op *op, const struct json *u)
{
	int64_t prompt = json_i64(u, "prompt_tokens", -1), answer = json_i64(u, "completion_tokens", -1);
	int64_t total = json_i64(u, "total_tokens", -1);
	int64_t cached = json_i64(u, "prompt_tokens_details.cached_tokens", json_i64(u, "prompt_cache_hit_tokens", 0));

	if (total > prompt && total - prompt > answer)
		answer = total - prompt;
	if (prompt <= 0 || answer < 0 || (answer == 0 && (op->said || op->thought)))
		return;
	cached = cached < 0 ? 0 : cached < prompt ? cached : prompt;
	llm_feed_usage(op->call, &(const struct usage){ prompt - cached, answer, cached, 0, 0 }, true);
}

static void
on_finish(struct oa_op *op, struct str reason)
{
	static const struct { const char *name; enum llm_stop stop; } reasons[] = {
		{ "length", LLM_STOP_MAX_TOKENS }, { "content_filter", LLM_STOP_REFUSAL }, { "tool_calls", LLM_STOP_TOOLS },
	};

	if (reason.n == 0)
		return;
	if (str_eqz(reason, "error") || str_eqz(reason, "insufficient_system_resource")) {
		end(op, LLM_RETRY, -1, S("the provider broke its answer off"));
		return;
	}
	op->stop = LLM_STOP_END;
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (str_ieq(reason, str_z(reasons[i].name)))
			op->stop = reasons[i].stop;
}

/* The call that a piece belongs to; NULL: it begins another. Some servers count all calls as 0: another id with a name
 * is another call. So is a name where the arguments are whole already. */
static struct oa_piece *
piece_of(struct oa_op *op, const struct json *t, size_t place, size_t of)
{
	int64_t index = json_i64(t, "index", -1);
	struct str id = json_str(t, "id", STR_NONE), name = json_str(t, "function.name", STR_NONE);
	struct arena ar = ARENA_INIT(EVENT_ARENA_MAX);
	const struct json *whole;
	struct oa_piece *p = NULL;

	for (size_t i = op->n_calls; i-- > 0 && p == NULL && (index >= 0 || id.n);)
		if (index >= 0 ? op->calls[i].index == index : str_eq(buf_view(&op->calls[i].id), id))
			p = &op->calls[i];
	if (index < 0 && id.n == 0 && op->n_calls)
		p = of == 1 ? &op->calls[op->n_calls - 1] : place < op->n_calls ? &op->calls[place] : NULL;
	if (p && name.n && (id.n ? p->id.n && !str_eq(buf_view(&p->id), id) : index < 0 && p->args.n &&
	    json_parse(&ar, buf_view(&p->args), &whole, NULL) == OK))
		p = NULL;
	arena_free(&ar);
	return p;
}

static void
on_calls(struct oa_op *op, const struct json *calls)
{
	size_t place = 0;

	for (const struct json *t = calls ? calls->first : NULL; t && op->call; t = t->next, place++) {
		struct oa_piece *p = piece_of(op, t, place, calls->count);
		const struct json *args = json_at(t, "function.arguments");
		struct str more = json_is(args, JSON_STRING) ? args->s : json_is(args, JSON_OBJECT) ? args->raw : STR_NONE;

		if (p == NULL && op->n_calls == CALLS_MAX) {
			end(op, LLM_BAD_REQUEST, -1, S("the answer has too many tool calls"));
			return;
		}
		if (p == NULL) {
			p = &op->calls[op->n_calls++];
			*p = (struct oa_piece){ json_i64(t, "index", -1), BUF_INIT(4096), BUF_INIT(4096), BUF_INIT(REPLY_MAX) };
		}
		if (p->id.n == 0)
			buf_str(&p->id, json_str(t, "id", STR_NONE));
		if (p->name.n == 0)
			buf_str(&p->name, json_str(t, "function.name", STR_NONE));
		buf_str(&p->args, more);
		unsaid(op, more);
		if (held(op, &p->id) && held(op, &p->name))
			(void)held(op, &p->args);
	}
}

/* Details come in pieces: one member grows, the others are said once. */
static void
on_detail(struct oa_op *op, const struct json *j)
{
	int64_t index = json_i64(j, "index", -1);
	struct str type = json_str(j, "type", STR_NONE);
	struct oa_detail *d = op->n_details ? &op->details[op->n_details - 1] : NULL;
	struct buf key = BUF_INIT(4096);

	if (d == NULL || d->index != index || !str_eq(buf_view(&d->type), type)) {
		if (op->n_details == DETAILS_MAX) {
			end(op, LLM_BAD_REQUEST, -1, S("the answer thinks in too many pieces"));
			return;
		}
		d = &op->details[op->n_details++];
		*d = (struct oa_detail){ index, NULL, BUF_INIT(256), BUF_INIT(REPLY_MAX), BUF_INIT(REPLY_MAX) };
		buf_str(&d->type, type);
	}
	for (const struct json *m = j->first; m; m = m->next) {
		const char *grows = str_eqz(m->key, "text") ? "text" : str_eqz(m->key, "summary") ? "summary" :
		    str_eqz(m->key, "data") ? "data" : NULL;

		buf_reset(&key);
		json_quote(&key, m->key);
		buf_putc(&key, ':');
		if (grows && m->type == JSON_STRING) {
			d->member = grows;
			buf_str(&d->text, m->s);
		} else if (m->type != JSON_NULL && !str_eqz(m->key, "type") && !str_eqz(m->key, "index") &&
		    str_find(buf_view(&d->rest), buf_view(&key)) == SIZE_MAX) {
			buf_putc(&d->rest, ',');
			buf_str(&d->rest, buf_view(&key));
			buf_str(&d->rest, m->raw);
		}
	}
	if (held(op, &key) && held(op, &d->type) && held(op, &d->text))
		(void)held(op, &d->rest);
	buf_free(&key);
}

static void
on_delta(struct oa_op *op, const struct json *d)
{
	static const char *const fields[] = { "reasoning_content", "reasoning" };
	const struct json *content = json_at(d, "content"), *k = json_at(d, "reasoning_details");

	for (size_t i = 0; i < ARRAY_LEN(fields) && op->field == NULL; i++)
		if (json_str(d, fields[i], STR_NONE).n)
			op->field = fields[i];
	if (op->field) {
		buf_str(&op->thinking, json_str(d, op->field, STR_NONE));
		unsaid(op, json_str(d, op->field, STR_NONE));
	}
	for (k = k ? k->first : NULL; k && op->call; k = k->next)
		on_detail(op, k);
	if (op->call == NULL || !held(op, &op->thinking))
		return;
	said(op, json_str(d, "content", STR_NONE));
	for (k = json_is(content, JSON_ARRAY) ? content->first : NULL; k; k = k->next)
		said(op, json_str(k, "text", STR_NONE));
	if (op->refusal.n < DETAIL_BYTES)
		buf_str(&op->refusal, utf8_prefix(json_str(d, "refusal", STR_NONE), DETAIL_BYTES));
	if (held(op, &op->refusal))
		on_calls(op, json_at(d, "tool_calls"));
}

bool
oa_is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* An id that no other call of the conversation has: the server's, unless it is counted up or unusual. */
static void
settle_id(struct oa_op *op, struct oa_piece *p)
{
	unsigned char chance[ID_OWN];
	bool good = p->id.n >= ID_MIN && p->id.n <= 64;

	for (size_t i = 0; i < p->name.n; i++)
		if (!oa_is_plain(p->name.p[i]))
			p->name.p[i] = '_';
	for (size_t i = 0; i < p->id.n; i++)
		good = good && oa_is_plain(p->id.p[i]);
	for (const struct oa_piece *q = op->calls; q != p; q++)
		good = good && !str_eq(buf_view(&q->id), buf_view(&p->id));
	if (good)
		return;
	buf_reset(&p->id);
	if (rand_bytes(chance, sizeof(chance)) != OK)
		end(op, LLM_RETRY, -1, S("no random numbers"));
	for (size_t i = 0; i < ID_OWN && op->call; i++)
		buf_putc(&p->id, "abcdefghijklmnopqrstuvwxyz234567"[chance[i] % 32]);
	(void)held(op, &p->id);
}

/* {"type":"redacted_thinking","provider":NAME,"reasoning_content":…} */
static void
keep_thinking(struct oa_op *op)
{
	struct buf raw = BUF_INIT(2 * REQUEST_MAX);
	struct jw w;

	jw_init(&w, &raw);
	jw_obj(&w);
	jw_kz(&w, "type", "redacted_thinking");
	jw_kz(&w, "provider", op->p->name);
	if (op->n_details == 0)
		jw_kstr(&w, op->field, buf_view(&op->thinking));
	for (size_t i = 0; i < op->n_details; i++) {
		const struct oa_detail *d = &op->details[i];

		buf_puts(&raw, i ? ",{\"type\":" : ",\"reasoning_details\":[{\"type\":");
		json_quote(&raw, buf_view(&d->type));
		if (d->index >= 0)
			buf_fmt(&raw, ",\"index\":%lld", (long long)d->index);
		if (d->member) {
			buf_fmt(&raw, ",\"%s\":", d->member);
			json_quote(&raw, buf_view(&d->text));
		}
		buf_str(&raw, buf_view(&d->rest));
		buf_puts(&raw, i + 1 < op->n_details ? "}" : "}]");
	}
	jw_end_obj(&w);
	if (held(op, &raw)) {
		llm_feed_block(op->call, BLOCK_CALLS + op->n_calls, S("redacted_thinking"), STR_NONE, STR_NONE, buf_view(&raw));
		llm_feed_block_end(op->call, BLOCK_CALLS + op->n_calls);
	}
	buf_free(&raw);
}

static bool
can_run(const struct oa_piece *p)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(p->args.n));
	const struct json *args;
	bool good = p->name.n && (p->args.n == 0 || (json_parse(&ar, buf_view(&p->args), &args, NULL) == OK && args->type == JSON_OBJECT));

	arena_free(&ar);
	return good;
}

static void
whole(struct oa_op *op)
{
	enum llm_stop stop = op->stop ? op->stop : LLM_STOP_END;
	size_t bad = 0;

	while (bad < op->n_calls && !can_run(&op->calls[bad]))
		bad++;
	if (bad && bad == op->n_calls && (stop == LLM_STOP_END || stop == LLM_STOP_TOOLS)) {
		end(op, LLM_RETRY, -1, S("the model called a tool with what is no JSON"));      /* small ones do; the next time is better */
		return;
	}
	llm_feed_block_end(op->call, BLOCK_SAID);
	for (size_t i = 0; i < op->n_calls && op->call; i++) {
		struct oa_piece *p = &op->calls[i];

		settle_id(op, p);
		if (op->call == NULL)
			return;
		llm_feed_block(op->call, BLOCK_CALLS + i, S("tool_use"), buf_view(&p->id), buf_view(&p->name), STR_NONE);
		llm_feed_input(op->call, BLOCK_CALLS + i, buf_view(&p->args));
		llm_feed_block_end(op->call, BLOCK_CALLS + i);
	}
	if (op->n_calls && (op->thinking.n || op->n_details))
		keep_thinking(op);
	if (op->call == NULL)
		return;
	if (stop == LLM_STOP_END && op->n_calls)
		stop = LLM_STOP_TOOLS;
	else if (stop == LLM_STOP_END && op->refusal.n)
		stop = LLM_STOP_REFUSAL;
	llm_feed_stop(op->call, stop, buf_view(&op->refusal));
	end(op, LLM_OK, -1, STR_NONE);
}

void
oa_over(struct oa_op *op, const char *why)
{
	if (op->call && op->stop)
		whole(op);
	end(op, LLM_RETRY, -1, str_z(why));
}

/* A chunk, or a whole completion where a stream was asked for. */
void
oa_chunk(struct oa_op *op, const struct json *ev)
{
	const struct json *choice = json_at(ev, "choices.0"), *error = json_at(ev, "error");

	if (error && error->type != JSON_NULL) {
		oa_error(op, ev);
		return;
	}
	on_usage(op, json_at(ev, "x_groq.usage"));
	on_usage(op, json_at(ev, "usage"));
	on_delta(op, json_at(choice, "delta") ? json_at(choice, "delta") : json_at(choice, "message"));
	if (op->call)
		on_finish(op, json_str(choice, "finish_reason", STR_NONE));
}

void
oa_event(void *arg, struct str type, struct str data, struct str id)
{
	struct oa_op *op = arg;
	struct str line;

	(void)id;
	while (op->call && data.n && !str_starts(type, S("thread."))) {         /* the blank line between events may be missing */
		const struct json *ev;

		(void)str_cut(&data, '\n', &line);
		line = str_trim(line);
		arena_reset(&op->ar);
		if (line.n == 0)
			continue;
		if (str_eqz(line, "[DONE]")) {
			if (op->said || op->n_calls)
				whole(op);
			else
				oa_over(op, "the answer is empty");
		} else if (json_parse(&op->ar, line, &ev, NULL) != OK) {
			end(op, LLM_RETRY, -1, str_eqz(type, "error") ? line : S("the provider sent an event that is not JSON"));
		} else if (str_eqz(type, "error")) {
			oa_error(op, ev);
		} else {
			oa_chunk(op, ev);
		}
	}
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* What is said, in the words of the servers: the first that fits. status 0: whatever the status. */
static const struct { unsigned status; const char *words; enum llm_class class; } classes[] = {
	{ 401, "", LLM_BAD_KEY }, { 402, "", LLM_BILLING }, { 0, "insufficient_quota", LLM_BILLING },
	{ 413, "", LLM_TOO_LARGE }, { 0, "context_length", LLM_TOO_LARGE }, { 0, "context length", LLM_TOO_LARGE },
	{ 0, "context window", LLM_TOO_LARGE }, { 0, "exceed_context_size", LLM_TOO_LARGE },
	{ 400, "reasoning", LLM_THINKING },     /* what goes back is missing, or is not taken */
	{ 0, "model_not_found", LLM_BAD_MODEL }, { 400, "not a valid model", LLM_BAD_MODEL },
	{ 400, "Model Not Exist", LLM_BAD_MODEL }, { 404, "odel", LLM_BAD_MODEL }, { 404, "endpoints", LLM_BAD_MODEL },
	{ 403, "flagged", LLM_BAD_REQUEST }, { 403, "", LLM_BAD_KEY },
	{ 200, "authentication", LLM_BAD_KEY }, { 200, "invalid_request", LLM_BAD_REQUEST },
};

static enum llm_class
class_of(const struct oa_op *op, unsigned status, struct str said_of_it)
{
	struct str should = fetch_header(op->fetch, "x-should-retry");

	if (str_eqz(should, "true"))
		return LLM_RETRY;
	for (size_t i = 0; i < ARRAY_LEN(classes); i++)
		if ((classes[i].status == 0 || classes[i].status == status) && str_find(said_of_it, str_z(classes[i].words)) != SIZE_MAX)
			return classes[i].class;
	if (status != 200 && status != 408 && status != 409 && status != 429 && status < 500)
		return LLM_BAD_REQUEST;
	return !str_eqz(should, "false") ? LLM_RETRY : status == 429 ? LLM_BILLING : LLM_BAD_REQUEST;
}

/* {"error":{"message","type","code":"word" or number,…}}, {"error":"words"}, or what proxies say instead. Inside a stream
 * that has said nothing its code counts as the status. */
void
oa_error(struct oa_op *op, const struct json *e)
{
	const struct json *in = json_is(json_at(e, "error"), JSON_OBJECT) ? json_at(e, "error") : e;
	struct str code = json_str(in, "code", STR_NONE), upstream = json_str(in, "metadata.raw", STR_NONE);
	struct str message = json_str(in, "message", json_str(e, "error", json_str(e, "detail", STR_NONE)));
	struct buf all = BUF_INIT(1u << 20), detail = BUF_INIT(8192);
	int64_t status = json_i64(in, "code", 0);

	if (code.n && str_i64(code, 400, 599, &status) != OK)
		status = 0;
	if (status < 400 || status > 599)
		status = op->status;
	buf_fmt(&all, "%.*s %.*s %.*s %.*s", STR_ARG(json_str(in, "type", STR_NONE)), STR_ARG(code), STR_ARG(message),
	    STR_ARG(upstream));
	if (op->status == 200 && !op->said && !op->thought)
		op->status = (unsigned)status;
	if (message.n)
		buf_str(&detail, utf8_prefix(message, DETAIL_BYTES));
	else
		buf_fmt(&detail, "HTTP status %lld%s", (long long)status, status == 404 ? ": is its base_url right?" : "");
	if (upstream.n)
		buf_fmt(&detail, ": %.*s", STR_ARG(utf8_prefix(upstream, DETAIL_BYTES)));
	end(op, class_of(op, (unsigned)status, buf_view(&all)), llm_retry_after(fetch_header(op->fetch, "retry-after-ms"),
	    fetch_header(op->fetch, "retry-after")), buf_view(&detail));
	buf_free(&all);
	buf_free(&detail);
}

/* "6m0s", "7.66s", "20ms": microseconds; -1: it is none. */
static int64_t
span(struct str s)
{
	static const struct { const char *name; double us; } units[] = { { "ms", 1e3 }, { "s", 1e6 }, { "m", 60e6 }, { "h", 3600e6 },
	    { "d", 86400e6 } };
	char text[32], *p = text, *after;
	double sum = 0;

	if (s.n == 0 || s.n >= sizeof(text))
		return -1;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	while (*p) {
		double n = strtod(p, &after);
		size_t i = 0;

		while (i < ARRAY_LEN(units) && strncmp(after, units[i].name, strlen(units[i].name)) != 0)
			i++;
		if (after == p || i == ARRAY_LEN(units) || !(n >= 0 && n < 1e6))
			return -1;
		sum += n * units[i].us;
		p = after + strlen(units[i].name);
	}
	return (int64_t)sum;
}

/* Resets say when a limit is whole again, and it grows steadily: one request fits long before. */
void
oa_limits(struct oa_op *op)
{
	static const char *const names[] = { [LIMIT_REQUESTS] = "requests", [LIMIT_TOKENS] = "tokens" };
	struct llm_limit l[LLM_LIMITS] = { { -1, -1, 0 }, { -1, -1, 0 }, { -1, -1, 0 }, { -1, -1, 0 } };
	bool any = false;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char limit[64], left[64], reset[64];

		snprintf(limit, sizeof(limit), "x-ratelimit-limit-%s", names[i]);
		snprintf(left, sizeof(left), "x-ratelimit-remaining-%s", names[i]);
		snprintf(reset, sizeof(reset), "x-ratelimit-reset-%s", names[i]);
		l[i].reset_us = span(fetch_header(op->fetch, reset));
		if (str_i64(fetch_header(op->fetch, limit), 1, INT32_MAX, &l[i].limit) != OK)
			l[i].limit = -1;
		if (str_i64(fetch_header(op->fetch, left), 0, INT32_MAX, &l[i].remaining) != OK || l[i].reset_us < 0)
			l[i] = (struct llm_limit){ l[i].limit, -1, 0 };
		else if (i == LIMIT_REQUESTS && l[i].limit > l[i].remaining)
			l[i].reset_us /= l[i].limit - l[i].remaining;
		any = any || l[i].remaining >= 0;
	}
	if (any)
		llm_feed_limits(op->call, l);
}

void
oa_answer_free(struct oa_op *op)
{
	for (size_t i = 0; i < op->n_calls; i++) {
		buf_free(&op->calls[i].id);
		buf_free(&op->calls[i].name);
		buf_free(&op->calls[i].args);
	}
	for (size_t i = 0; i < op->n_details; i++) {
		buf_free(&op->details[i].type);
		buf_free(&op->details[i].text);
		buf_free(&op->details[i].rest);
	}
	buf_free(&op->thinking);
	buf_free(&op->refusal);
}
