/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * claude.c - a small strict Claude: streams answers, keeps the bill.
 *
 * The answer repeats the newest text of the user ("You said: …"), so that a test
 * finds which message a reply belongs to. Words in that text ask for more: #tools
 * (calls two tools first), #loop (calls one in every round), #slow (four
 * bytes a second), #long, #think, #empty, #refuse, #limit, #pause; #busy, #wait, #cut,
 * #error, #torn: the first try of the call fails in that way. A request that breaks the
 * rules of the Messages API is refused and counted in claude.refused.
 *
 * The bill is what was generated and had left when the connection ended, by the
 * same rough rule that the daemon uses for an answer that was cut.
 */
#include "replay/sim.h"

#define NANO_IN 2000                    /* claude-sonnet-5-5 */
#define NANO_OUT 10000
#define LATENCY_US (200 * US_PER_MS)
#define PIECE_US (50 * US_PER_MS)
#define SLOW_PIECE_US US_PER_S
#define PIECE_BYTES 24
#define SLOW_PIECE_BYTES 4              /* room for any character */
#define TRIES 64                        /* requests remembered: the same again is a new try */

struct claude claude;

static struct { uint64_t hash; int64_t n; } tries[TRIES];
static size_t next_try;

/* What has been laid out of one answer, and how much of it was delivered. */
struct answer {
	struct exchange *x;
	struct buf event;
	int64_t gap;
	int64_t input;
	size_t blocks, cut_after;       /* deltas, then the connection ends; 0: never */
	size_t deltas;
	bool cut;
	struct { size_t piece; int64_t bytes; } said[4096];     /* bytes of text in that piece */
	size_t n_said;
	int64_t output;
	size_t final;                   /* the piece that closes the bill */
};

/* ---- events ------------------------------------------------------------------------------ */

static void
put(struct answer *a, int64_t after, const char *name)
{
	struct buf b = BUF_INIT(8u << 20);

	buf_fmt(&b, "event: %s\ndata: %s\n\n", name, buf_z(&a->event));
	if (!a->cut)
		net_data(a->x, after, buf_view(&b));
	buf_free(&b);
	buf_reset(&a->event);
}

static void PRINTF(4, 5)
event(struct answer *a, int64_t after, const char *name, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_fmt(&a->event, "{\"type\":\"%s\"", name);
	buf_vfmt(&a->event, fmt, ap);
	buf_putc(&a->event, '}');
	va_end(ap);
	put(a, after, name);
}

static void
delta(struct answer *a, const char *kind, const char *member, struct str text, bool billed)
{
	if (a->cut)
		return;
	if (a->n_said == ARRAY_LEN(a->said))
		abort();
	a->said[a->n_said].piece = a->x->n_pieces;
	a->said[a->n_said++].bytes = billed ? (int64_t)text.n : 0;
	buf_fmt(&a->event, "{\"type\":\"content_block_delta\",\"index\":%zu,\"delta\":{\"type\":\"%s\",\"%s\":",
	    a->blocks, kind, member);
	json_quote(&a->event, text);
	buf_puts(&a->event, "}}");
	put(a, a->gap, "content_block_delta");
	if (a->cut_after && ++a->deltas == a->cut_after) {
		net_fail(a->x, a->gap, ERR_CLOSED, true, "api.anthropic.com closed the connection in mid-answer");
		a->cut = true;
	}
}

static void
block_end(struct answer *a)
{
	event(a, 0, "content_block_stop", ",\"index\":%zu", a->blocks++);
}

static void
say_text(struct answer *a, struct str text)
{
	event(a, 0, "content_block_start", ",\"index\":%zu,\"content_block\":{\"type\":\"text\",\"text\":\"\"}", a->blocks);
	while (text.n) {
		struct str part = utf8_prefix(text, a->gap == PIECE_US ? PIECE_BYTES : SLOW_PIECE_BYTES);

		delta(a, "text_delta", "text", part, true);
		text = str_sub(text, part.n, text.n);
	}
	block_end(a);
}

static void
think(struct answer *a)
{
	event(a, 0, "content_block_start", ",\"index\":%zu,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\","
	    "\"signature\":\"\"}", a->blocks);
	delta(a, "thinking_delta", "thinking", S("Let me see."), true);
	delta(a, "signature_delta", "signature", S("c2lnbmVk"), false);
	block_end(a);
}

static void
call_tool(struct answer *a, const char *name, struct str input)
{
	event(a, 0, "content_block_start", ",\"index\":%zu,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_%lld_%zu\","
	    "\"name\":\"%s\",\"input\":{}}", a->blocks, (long long)claude.calls, a->blocks, name);
	delta(a, "input_json_delta", "partial_json", str_sub(input, 0, input.n / 2), true);
	delta(a, "input_json_delta", "partial_json", str_sub(input, input.n / 2, input.n), true);
	block_end(a);
}

/* ---- the bill ------------------------------------------------------------------------------- */

static void
over(struct exchange *x)
{
	struct answer *a = x->state;
	int64_t bytes = 0;

	if (a == NULL)
		return;
	for (size_t i = 0; i < a->n_said; i++)
		if (a->said[i].piece < x->next_piece)
			bytes += a->said[i].bytes;
	if (x->next_piece > 1) {                /* message_start has left */
		bool whole = a->final && a->final < x->next_piece;
		int64_t output = whole ? a->output : (bytes * 2 + 6) / 7;

		claude.nano += a->input * NANO_IN + (output > 1 ? output : 1) * NANO_OUT;
		claude.input += whole ? a->input : 0;
		claude.output += !whole ? 0 : output > 1 ? output : 1;
		claude.answers += whole;
	}
	buf_free(&a->event);
	free(a);
	x->state = NULL;
}

/* ---- answers ----------------------------------------------------------------------------------- */

static void
begin(struct answer *a)
{
	net_head(a->x, LATENCY_US, 200, "content-type: text/event-stream\nrequest-id: req_sim\n");
	event(a, 0, "message_start", ",\"message\":{\"id\":\"msg_%lld\",\"type\":\"message\",\"role\":\"assistant\","
	    "\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":%lld,\"cache_creation_input_tokens\":0,"
	    "\"cache_read_input_tokens\":0,\"output_tokens\":1}}", (long long)claude.calls, (long long)a->input);
	event(a, 0, "ping", "%s", "");
}

static void
finish(struct answer *a, const char *stop)
{
	int64_t bytes = 0;

	for (size_t i = 0; i < a->n_said; i++)
		bytes += a->said[i].bytes;
	a->output = bytes / 3 + 1;
	event(a, a->gap, "message_delta", ",\"delta\":{\"stop_reason\":\"%s\"},\"usage\":{\"output_tokens\":%lld}", stop,
	    (long long)a->output);
	if (a->cut)
		return;
	a->final = a->x->n_pieces - 1;
	event(a, 0, "message_stop", "%s", "");
	net_end(a->x, 0);
}

static void
answer_error(struct exchange *x, unsigned status, const char *type, const char *why, int64_t retry_after_s)
{
	struct buf b = BUF_INIT(4096);
	char headers[128] = "content-type: application/json\nrequest-id: req_sim\n";

	if (retry_after_s >= 0)
		snprintf(headers + strlen(headers), sizeof(headers) - strlen(headers), "retry-after: %lld\n",
		    (long long)retry_after_s);
	buf_fmt(&b, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}", type, why);
	net_head(x, LATENCY_US, status, headers);
	net_data(x, 0, buf_view(&b));
	net_end(x, 0);
	buf_free(&b);
}

/* Fails the call in its first try when the text asks for it; so does the script, and chance. */
static bool
meets_fault(struct exchange *x, struct answer *a, struct str text, int64_t try)
{
	unsigned dice = claude.chaos ? sim_chance(1000) : 1000;
	unsigned kind = dice < claude.chaos ? 1 + sim_chance(5) : 0;

#define ASKED(word, k) ((try == 1 && str_find(text, S(word)) != SIZE_MAX) || kind == (k))
	if (sim.now < claude.down_until) {
		net_fail(x, LATENCY_US, ERR_CLOSED, false, "cannot connect to api.anthropic.com");
	} else if (claude.fail > 0) {
		claude.fail--;
		answer_error(x, (unsigned)claude.fail_status, claude.fail_status == 529 ? "overloaded_error" :
		    claude.fail_status == 429 ? "rate_limit_error" : "api_error", "as the script wants", claude.retry_after_s);
	} else if (ASKED("#busy", 1)) {
		answer_error(x, 529, "overloaded_error", "Overloaded", -1);
	} else if (ASKED("#wait", 2)) {
		answer_error(x, 429, "rate_limit_error", "slower, please", kind ? 5 : 20);
	} else if (ASKED("#torn", 3)) {
		net_fail(x, LATENCY_US, ERR_CLOSED, true, "api.anthropic.com closed the connection without an answer");
	} else if (ASKED("#error", 4)) {
		x->state = a;
		begin(a);
		event(a, 0, "error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}");
		net_end(x, 0);
	} else {
		if (ASKED("#cut", 5) || claude.cut > 0) {
			claude.cut -= claude.cut > 0;
			a->cut_after = 1 + sim_chance(2);
		}
		return false;
	}
#undef ASKED
	return true;
}

static void
garbled_event(struct answer *a, unsigned op, unsigned arg)
{
	static const char *const stops[] = { "end_turn", "tool_use", "max_tokens", "pause_turn", "refusal", "unheard_of" };
	static const char start[] = "content_block_start";

	switch (op) {
	case 0:
		event(a, a->gap, "message_start", ",\"message\":{\"usage\":{\"input_tokens\":%u,\"output_tokens\":1}}", arg);
		break;
	case 1:
		event(a, 0, start, ",\"index\":%zu,\"content_block\":{\"type\":\"text\",\"text\":\"\"}", a->blocks);
		break;
	case 2:
		event(a, 0, start, ",\"index\":%zu,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}", a->blocks);
		break;
	case 3:
		event(a, 0, start, ",\"index\":%zu,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_%lld_%zu\","
		    "\"name\":\"%s\",\"input\":{}}", a->blocks, (long long)claude.calls, a->x->n_pieces,
		    arg & 4 ? "text_count" : "no_such_tool");
		break;
	case 4: delta(a, "text_delta", "text", arg & 8 ? S(" ") : S("Word. "), true); break;
	case 5: delta(a, "thinking_delta", "thinking", S("Hm."), true); break;
	case 6: delta(a, "signature_delta", "signature", arg & 8 ? S("") : S("c2ln"), true); break;
	case 7:
		delta(a, "input_json_delta", "partial_json", arg & 8 ? S("{\"text\":") : arg & 4 ? S("\"x\"}") : S("{}"), true);
		break;
	case 8: block_end(a); break;
	case 9:
		event(a, 0, "message_delta", ",\"delta\":{\"stop_reason\":\"%s\"},\"usage\":{\"output_tokens\":%u}",
		    stops[arg % ARRAY_LEN(stops)], arg);
		break;
	case 10: event(a, 0, "message_stop", "%s", ""); break;
	case 11:
		event(a, 0, "error", ",\"error\":{\"type\":\"%s\"}", arg & 8 ? "invalid_request_error" : "api_error");
		break;
	case 12: event(a, 0, "ping", "%s", ""); break;
	case 13: a->cut_after = 1 + arg; break;
	case 14: event(a, a->gap, "content_block_delta", "%s", ""); break;
	case 15: net_data(a->x, a->gap, arg & 8 ? S("data: {\n\n") : S(": nothing\n\n")); break;
	}
}

/* What no server sends in this order, or perhaps one does: an event a byte. */
static void
reply_garbled(struct answer *a, struct str bytes)
{
	net_head(a->x, LATENCY_US, 200, "content-type: text/event-stream\n");
	for (size_t i = 0; i < bytes.n && !a->cut; i++) {
		unsigned byte = (unsigned char)bytes.p[i];

		a->blocks = byte >> 4 & 3;
		garbled_event(a, byte & 15, byte >> 4);
	}
	if (!a->cut)
		net_end(a->x, a->gap);
}

/* A value is wanted: what stands under "Due:" becomes the message. #silent: nothing is to be said; #garbage: no value;
 * #long: much is. */
static void
reply_value(struct answer *a, struct str text)
{
	struct buf b = BUF_INIT(1u << 20), message = BUF_INIT(1u << 20);
	size_t from = str_find(text, S("Due:\n- ")), to;
	bool silent = str_find(text, S("#silent")) != SIZE_MAX;

	text = str_sub(text, from == SIZE_MAX ? 0 : from + 5, text.n);
	to = str_find(text, S("\n\n"));
	buf_puts(&message, "You wanted: ");
	buf_str(&message, str_sub(text, 0, to == SIZE_MAX ? text.n : to));
	for (int i = 0; i < 100 && str_find(text, S("#long")) != SIZE_MAX; i++)
		buf_puts(&message, "\nAnd this, and that, and more.");
	buf_fmt(&b, "{\"notify\":%s,\"message\":", silent ? "false" : "true");
	json_quote(&b, silent ? STR_NONE : buf_view(&message));
	buf_putc(&b, '}');
	claude.values++;
	begin(a);
	say_text(a, str_find(text, S("#garbage")) != SIZE_MAX ? S("NO_HEARTBEAT") : buf_view(&b));
	finish(a, "end_turn");
	buf_free(&b);
	buf_free(&message);
}

static void
reply(struct answer *a, struct str text, int64_t round)
{
	struct buf b = BUF_INIT(1u << 20);
	bool tools = str_find(text, S("#tools")) != SIZE_MAX && round == 0, loop = str_find(text, S("#loop")) != SIZE_MAX;

	begin(a);
	if (str_find(text, S("#think")) != SIZE_MAX)
		think(a);
	if (tools || loop) {
		say_text(a, S("I have to look. "));
		call_tool(a, "text_count", S("{\"text\":\"one two\"}"));
		if (tools)
			call_tool(a, "time_now", S(""));
		finish(a, "tool_use");
	} else if (str_find(text, S("#empty")) != SIZE_MAX) {
		finish(a, "end_turn");
	} else if (str_find(text, S("#pause")) != SIZE_MAX && round == 0) {
		say_text(a, S("One moment."));
		finish(a, "pause_turn");
	} else {
		buf_puts(&b, "You said: ");
		for (size_t i = 0; i < text.n; i++)
			buf_putc(&b, text.p[i] == '#' ? '+' : text.p[i]);
		buf_putc(&b, '.');
		for (int i = 0; i < 400 && str_find(text, S("#long")) != SIZE_MAX; i++)
			buf_fmt(&b, "%sAnd line %d of **many**.", i % 10 ? " " : "\n\n", i);
		say_text(a, buf_view(&b));
		finish(a, str_find(text, S("#refuse")) != SIZE_MAX ? "refusal" :
		    str_find(text, S("#limit")) != SIZE_MAX ? "max_tokens" : "end_turn");
	}
	buf_free(&b);
}

/* ---- requests ------------------------------------------------------------------------------------- */

static int64_t
count_try(struct str body)
{
	uint64_t hash = 14695981039346656037u;

	for (size_t i = 0; i < body.n; i++)
		hash = (hash ^ (unsigned char)body.p[i]) * 1099511628211u;
	for (size_t i = 0; i < TRIES; i++)
		if (tries[i].hash == hash)
			return ++tries[i].n;
	tries[next_try].hash = hash;
	tries[next_try].n = 1;
	next_try = (next_try + 1) % TRIES;
	return 1;
}

/* The newest text of the user, and how many assistant messages stand after it. */
static struct str
newest_text(const struct json *list, int64_t *round)
{
	struct str text = STR_NONE;

	for (const struct json *m = list->first; m; m = m->next) {
		bool user = str_eqz(json_str(m, "role", STR_NONE), "user");
		const struct json *blocks = json_at(m, "content");

		if (str_eqz(json_str(m, "role", STR_NONE), "assistant"))
			++*round;
		for (const struct json *b = user && blocks ? blocks->first : NULL; b; b = b->next)
			if (str_eqz(json_str(b, "type", STR_NONE), "text")) {
				text = json_str(b, "text", STR_NONE);
				*round = 0;
			}
	}
	return text;
}

static const char *
request_broken(const struct exchange *x, const struct json *v, bool paused)
{
	static const char allowed[] = " model max_tokens stream cache_control tools output_config system messages ";
	static const char *const headers[] = { "content-type: application/json\n", "anthropic-version: 2026-10-21\n",
	    "x-api-key: sk-simulated-key\n" };
	const struct json *list = json_at(v, "messages");
	struct llm_message m[2 * HISTORY_MESSAGES_MAX + 1];
	struct llm_request r = { .messages = m };
	char word[40];

	for (size_t i = 0; i < ARRAY_LEN(headers); i++)
		if (str_find(buf_view(&x->headers), str_z(headers[i])) == SIZE_MAX)
			return "a header is missing";
	for (const struct json *k = v->first; k; k = k->next) {
		snprintf(word, sizeof(word), " %.*s ", STR_ARG(utf8_prefix(k->key, 30)));
		if (!strstr(allowed, word))
			return "a field that does not exist";
	}
	if (!str_eqz(json_str(v, "model", STR_NONE), "claude-sonnet-5-5") || json_i64(v, "max_tokens", 0) < 1 ||
	    !json_bool(v, "stream", false))
		return "model, max_tokens or stream";
	for (const struct json *k = list ? list->first : NULL; k && r.n_messages < ARRAY_LEN(m); k = k->next) {
		const struct json *content = json_at(k, "content");
		static const char *const roles[] = { "user", "assistant", "system" };
		size_t i = 0;

		while (i < ARRAY_LEN(roles) && !str_eqz(json_str(k, "role", STR_NONE), roles[i]))
			i++;
		if (i == ARRAY_LEN(roles))
			return "a role";
		m[r.n_messages++] = (struct llm_message){ .role = roles[i], .content = content ? content->raw : STR_NONE };
	}
	/* only an answer that was paused is sent back to be continued */
	if (r.n_messages && strcmp(m[r.n_messages - 1].role, "assistant") == 0 && !paused)
		return "the conversation ends with the assistant";
	if (json_at(v, "output_config") && (!str_eqz(json_str(v, "output_config.format.type", STR_NONE), "json_schema") ||
	    json_bool(v, "output_config.format.schema.additionalProperties", true) || json_at(v, "tools")))
		return "a schema that is none, or tools beside it";
	return rules_broken(&r);
}

/* How many tokens it has: asked when the money is short. */
static void
counted(struct exchange *x)
{
	struct buf b = BUF_INIT(64);

	buf_fmt(&b, "{\"input_tokens\":%lld}", (long long)x->body.n / 4);
	net_head(x, LATENCY_US, 200, "content-type: application/json\n");
	net_data(x, 0, buf_view(&b));
	net_end(x, 0);
	buf_free(&b);
}

static void
asked(struct exchange *x)
{
	struct arena ar = ARENA_INIT(256u << 20);
	const struct json *v = NULL;
	struct answer *a = calloc(1, sizeof(*a));
	const char *why;
	struct str text = STR_NONE;
	int64_t round = 0;

	if (a == NULL)
		abort();
	a->x = x;
	buf_init(&a->event, 8u << 20);
	claude.calls++;
	if (json_parse(&ar, buf_view(&x->body), &v, NULL) == OK && json_at(v, "messages"))
		text = newest_text(json_at(v, "messages"), &round);
	why = v ? request_broken(x, v, str_find(text, S("#pause")) != SIZE_MAX) : "no JSON";
	if (why) {
		claude.refused++;
		sim_broken(why);
		answer_error(x, 400, "invalid_request_error", why, -1);
	} else {
		a->gap = str_find(text, S("#slow")) != SIZE_MAX ? SLOW_PIECE_US : PIECE_US;
		a->input = (int64_t)x->body.n / 4;
		if (!meets_fault(x, a, text, count_try(buf_view(&x->body)))) {
			x->state = a;
			if (claude.garble.n)
				reply_garbled(a, claude.garble);
			else if (json_at(v, "output_config"))
				reply_value(a, text);
			else
				reply(a, text, round);
			claude.garble = STR_NONE;
		}
	}
	if (x->state != a) {
		buf_free(&a->event);
		free(a);
	}
	arena_free(&ar);
}

static void
request(struct exchange *x)
{
	if (str_eqz(x->what, "/v1/messages/count_tokens"))
		counted(x);
	else
		asked(x);
}

const struct peer claude_peer = { "api.anthropic.com", request, over };

void
claude_begin(void)
{
	claude = (struct claude){ .fail_status = 529, .retry_after_s = -1 };
	memset(tries, 0, sizeof(tries));
	next_try = 0;
}
