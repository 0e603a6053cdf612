/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_openai.c - what OpenAI-compatible servers send, as blocks, stops, usage and classes; what they are asked. */
#include "openai.h"
#include "scratch.h"
#include "test.h"

static struct heard h;

#define D(json) "data: " json "\n\n"
#define CHOICE(delta, finish) D("{\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}")
#define SAY(text) CHOICE("{\"content\":\"" text "\"}", "null")
#define PIECE(call) CHOICE("{\"tool_calls\":[" call "]}", "null")
#define STOP(reason) CHOICE("{}", "\"" reason "\"")
#define USAGE D("{\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":4,\"total_tokens\":24," \
	"\"prompt_tokens_details\":{\"cached_tokens\":5}}}")
#define DONE D("[DONE]")
#define HI "[{\"type\":\"text\",\"text\":\"Hi\"}]"

/* Plays body, whole and octet by octet; false when memory failed. */
static bool
play(struct ev *ev, struct str body, unsigned status, const char *const *headers, size_t piece)
{
	const struct answer in = { .status = status, .body = body, .piece = piece, .headers = headers };
	enum err e;

	openai_chance = 0;
	e = hear(ev, &in, &h);
	if (e == OK && !FAULTED()) {
		CHECK(h.done == 1);
		return true;
	}
	CHECK(FAULTED());
	return false;
}

TEST(stops)
{
	static const struct { const char *body; enum llm_class class; enum llm_stop stop; } table[] = {
		{ SAY("") SAY("Hi") STOP("stop") USAGE DONE, LLM_OK, LLM_STOP_END },
		{ SAY("Hi") STOP("length") USAGE DONE, LLM_OK, LLM_STOP_MAX_TOKENS },
		{ SAY("Hi") STOP("content_filter") USAGE DONE, LLM_OK, LLM_STOP_REFUSAL },
		{ SAY("Hi") STOP("STOP") USAGE DONE, LLM_OK, LLM_STOP_END },
		{ SAY("Hi") STOP("eos_token") USAGE DONE, LLM_OK, LLM_STOP_END },
		{ SAY("Hi") STOP("") USAGE DONE, LLM_OK, LLM_STOP_END },
		{ SAY("Hi") CHOICE("null", "null") USAGE DONE, LLM_OK, LLM_STOP_END },
		{ SAY("Hi") STOP("stop") USAGE, LLM_OK, LLM_STOP_END },                         /* no [DONE] */
		{ SAY("Hi") STOP("stop") USAGE "data: [DONE]", LLM_OK, LLM_STOP_END },          /* cut behind it */
		{ SAY("Hi") USAGE "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", LLM_OK, LLM_STOP_END },
		{ SAY("Hi") STOP("stop") USAGE DONE "data: no JSON after the end\n\n", LLM_OK, LLM_STOP_END },
		{ ": PROCESSING\n\n: x\r\n\r\ndata:{\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\r\n\r\n\r\n" STOP("stop") USAGE DONE,
		    LLM_OK, LLM_STOP_END },
		{ "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n"
		    USAGE DONE, LLM_OK, LLM_STOP_END },                                         /* no blank line */
		{ "event: thread.message\n" D("{\"content\":1}") "event: x\n" SAY("Hi") D("{\"choices\":[]}") D("{}") D("[]")
		    STOP("stop") USAGE DONE, LLM_OK, LLM_STOP_END },
		{ CHOICE("{\"content\":[{\"type\":\"text\",\"text\":\"H\"},{\"type\":\"text\",\"text\":\"i\"}]}", "null") STOP("stop") USAGE
		    DONE, LLM_OK, LLM_STOP_END },
		{ SAY("Hi"), LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") "data: {\"choi", LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") USAGE, LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") STOP("error") DONE, LLM_RETRY, LLM_STOP_NONE },
		{ "", LLM_RETRY, LLM_STOP_NONE },
		{ DONE, LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") D("not JSON") STOP("stop") DONE, LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") D("{\"error\":{\"code\":502,\"message\":\"m\"},\"choices\":[{\"delta\":{\"content\":\"\"},"
		    "\"finish_reason\":\"error\"}]}") DONE, LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") "event: error\n" D("{\"message\":\"m\"}") STOP("stop") DONE, LLM_RETRY, LLM_STOP_NONE },
		{ SAY("Hi") "event: error\n" D("words") STOP("stop") DONE, LLM_RETRY, LLM_STOP_NONE },
		{ D("{\"error\":\"words\"}") SAY("Hi") STOP("stop") DONE, LLM_RETRY, LLM_STOP_NONE },
		{ D("{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"m\"}}"), LLM_BAD_REQUEST, LLM_STOP_NONE },
		{ D("{\"error\":{\"code\":402,\"message\":\"m\"}}"), LLM_BILLING, LLM_STOP_NONE },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) * 2 && ev; i++) {
		const char *body = table[i / 2].body;

		if (play(ev, str_z(body), 200, NULL, i & 1)) {
			if (h.class != table[i / 2].class || (h.class == LLM_OK && h.stop != table[i / 2].stop))
				test_bad_at_(__FILE__, __LINE__, body);
			if (h.class == LLM_OK) {
				CHECK_STR(buf_view(&h.content), HI);
				CHECK_STR(buf_view(&h.text), "Hi");
				CHECK(h.usage_known && h.usage.input == 15 && h.usage.output == 4 && h.usage.cache_read == 5 &&
				    h.usage.write_5m == 0 && h.usage.write_1h == 0);
			}
		}
		heard_free(&h);
	}
	ev_free(ev);
}

/* Answered at once, though a stream was asked for. */
TEST(no_stream)
{
	static const char *const json[] = { "content-type", "application/json; charset=utf-8", NULL };
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	if (ev && play(ev, S("{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hi\",\"tool_calls\":[]},"
	    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}"), 200, json, 3)) {
		CHECK(h.class == LLM_OK && h.stop == LLM_STOP_END && h.usage_known && h.usage.input == 7);
		CHECK_STR(buf_view(&h.content), HI);
	}
	heard_free(&h);
	if (ev && play(ev, S("{\"error\":{\"message\":\"busy\",\"code\":\"503\"}}"), 200, json, 0))
		CHECK(h.class == LLM_RETRY && h.status == 503 && str_eqz(buf_view(&h.detail), "busy"));
	heard_free(&h);
	if (ev && play(ev, S("no JSON"), 200, json, 0))
		CHECK(h.class == LLM_RETRY);
	heard_free(&h);
	ev_free(ev);
}

TEST(usage)
{
#define SAID(usage) SAY("Hi") D("{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]," usage "}") DONE
	static const struct { const char *body; bool known; int64_t input, output, read; } table[] = {
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}"), true, 9, 2, 0 },       /* on the last chunk */
		{ SAID("\"usage\":null,\"x_groq\":{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}"), true, 9, 2, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"prompt_cache_hit_tokens\":4,"
		    "\"prompt_cache_miss_tokens\":5}"), true, 5, 2, 4 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":99}}"),
		    true, 0, 2, 9 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":-5}}"),
		    true, 9, 2, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":111}"), true, 9, 102, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":3}"), true, 9, 2, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":99999999999999999999999}"), false, 0, 1, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9000000000000000000}"), true, 9, 1000000000, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}"), false, 0, 1, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":0}"), false, 0, 1, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":-9,\"completion_tokens\":2}"), false, 0, 1, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":-2}"), false, 0, 1, 0 },
		{ SAID("\"usage\":{\"prompt_tokens\":9.5,\"completion_tokens\":\"2\"}"), false, 0, 1, 0 },
		{ SAID("\"usage\":[9,2]"), false, 0, 1, 0 },
		{ SAID("\"usage\":\"much\""), false, 0, 1, 0 },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		if (play(ev, str_z(table[i].body), 200, NULL, 0) && (h.class != LLM_OK || h.usage_known != table[i].known ||
		    h.usage.input != table[i].input || h.usage.output != table[i].output || h.usage.cache_read != table[i].read))
			test_bad_at_(__FILE__, __LINE__, table[i].body);
		heard_free(&h);
	}
	ev_free(ev);
}

TEST(tool_calls)
{
#define F(name, args) "\"function\":{\"name\":\"" name "\",\"arguments\":\"" args "\"}"
#define A(args) "\"function\":{\"arguments\":\"" args "\"}"
#define USE(id, name, input) "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"" name "\",\"input\":" input "}"
#define TWO "[" USE("call_one1", "a", "{\"x\":1}") "," USE("call_two2", "b", "{\"y\":2}") "]"
#define OWN "aaaaaaaaa"                 /* by chance */
#define OWN2 "baaaaaaaa"
	static const struct { const char *body, *content; } table[] = {
		/* pieces by index, one behind the other or mixed */
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "") "}") PIECE("{\"index\":0," A("{\\\"x\\\"") "}")
		    PIECE("{\"index\":0," A(":1}") "}") PIECE("{\"index\":1,\"id\":\"call_two2\"," F("b", "{\\\"y\\\":2}") "}")
		    STOP("tool_calls") DONE, TWO },
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "") "},{\"index\":1,\"id\":\"call_two2\"," F("b", "{") "}")
		    PIECE("{\"index\":1," A("\\\"y\\\":2}") "},{\"index\":0," A("{\\\"x\\\":1}") "}") STOP("stop") DONE, TWO },
		/* by id */
		{ PIECE("{\"id\":\"call_one1\"," F("a", "") "}") PIECE("{\"id\":\"call_two2\"," F("b", "{\\\"y\\\"") "}")
		    PIECE("{\"id\":\"call_one1\"," A("{\\\"x\\\":1}") "}") PIECE("{\"id\":\"call_two2\"," A(":2}") "}")
		    STOP("stop") DONE, TWO },
		/* by place, whole, in one chunk */
		{ PIECE("{\"id\":\"call_one1\"," F("a", "{\\\"x\\\":1}") "},{\"id\":\"call_two2\"," F("b", "{\\\"y\\\":2}") "}")
		    CHOICE("{}", "null") DONE, TWO },
		{ PIECE("{" F("a", "{\\\"x\\\"") "},{" F("b", "{") "}") PIECE("{" A(":1}") "},{" A("}") "}") DONE,
		    "[" USE(OWN, "a", "{\"x\":1}") "," USE(OWN2, "b", "{}") "]" },
		{ PIECE("{" F("a", "{}") "}") PIECE("{" F("b", "{\\\"y\\\":") "}") PIECE("{" A("2}") "}") DONE,
		    "[" USE(OWN, "a", "{}") "," USE(OWN2, "b", "{\"y\":2}") "]" },
		/* all of them counted as 0; names and ids repeated with each piece */
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "{\\\"x\\\":1}") "}")
		    PIECE("{\"index\":0,\"id\":\"call_two2\"," F("b", "{\\\"y\\\":2}") "}") STOP("stop") DONE, TWO },
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "{\\\"x\\\"") "}") PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", ":1}") "}")
		    PIECE("{\"index\":1,\"id\":\"call_two2\"," F("b", "{\\\"y\\\":2}") "}") STOP("stop") DONE, TWO },
		/* arguments as an object, or none */
		{ PIECE("{\"id\":\"call_one1\",\"function\":{\"name\":\"a\",\"arguments\":{\"x\":1}}}"
		    ",{\"id\":\"call_two2\",\"function\":{\"name\":\"b\",\"arguments\":{\"y\":2}}}") STOP("stop") DONE, TWO },
		{ PIECE("{\"index\":0,\"id\":\"call_one1\",\"function\":{\"name\":\"a\"}}") STOP("stop") DONE, "[" USE("call_one1", "a", "{}") "]" },
		/* ids that would come again, or that others refuse */
		{ PIECE("{\"index\":0,\"id\":\"call_0\"," F("a", "{}") "}") STOP("stop") DONE, "[" USE(OWN, "a", "{}") "]" },
		{ PIECE("{\"index\":0,\"id\":\"functions.a:0\"," F("functions.a", "{}") "}") STOP("stop") DONE,
		    "[" USE(OWN, "functions_a", "{}") "]" },
		{ PIECE("{\"index\":0,\"id\":\"call_same\"," F("a", "{}") "},{\"index\":1,\"id\":\"call_same\"," F("b", "{}") "}") STOP("stop")
		    DONE, "[" USE("call_same", "a", "{}") "," USE(OWN, "b", "{}") "]" },
		/* never run: cut, or without an object */
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "{") "}") STOP("length") DONE, "[]" },
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "{}") "}") STOP("content_filter") DONE, "[]" },
		{ PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "[1]") "},{\"index\":1,\"id\":\"call_two2\"," F("b", "{}") "}") STOP("stop") DONE,
		    "[" USE("call_two2", "b", "{}") "]" },
	};
	/* none that can be run: asked again */
	static const char *const again[] = {
		PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "[1]") "}") STOP("stop") DONE,
		SAY("Hi") PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "{\\\"x\\\":") "}") STOP("tool_calls") DONE,
		PIECE("{\"index\":0,\"id\":\"call_one1\"," F("", "{}") "}") STOP("stop") DONE, PIECE("{}") PIECE("null") STOP("stop") DONE,
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(again) && ev; i++) {
		if (play(ev, str_z(again[i]), 200, NULL, 0) && h.class != LLM_RETRY)
			test_bad_at_(__FILE__, __LINE__, again[i]);
		heard_free(&h);
	}
	for (size_t i = 0; i < ARRAY_LEN(table) * 2 && ev; i++) {
		if (play(ev, str_z(table[i / 2].body), 200, NULL, i & 1)) {
			bool any = strcmp(table[i / 2].content, "[]") != 0;

			if (h.class != LLM_OK || !str_eqz(buf_view(&h.content), table[i / 2].content) || (any && h.stop != LLM_STOP_TOOLS)) {
				test_bad_at_(__FILE__, __LINE__, table[i / 2].body);
				printf("  %.*s\n", STR_ARG(buf_view(&h.content)));
			}
		}
		heard_free(&h);
	}
	ev_free(ev);
}

/* More calls or pieces of thinking than there is room for: no answer, and nothing overflows. */
TEST(too_many)
{
	struct buf body = BUF_INIT(1u << 20);
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t n = CALLS_MAX; n <= CALLS_MAX + 1 && ev; n++) {
		buf_reset(&body);
		for (size_t i = 0; i < n; i++)
			buf_fmt(&body, PIECE("{\"index\":%zu,\"id\":\"call_%06zu\"," F("a", "{}") "}"), i, i);
		buf_puts(&body, STOP("tool_calls") DONE);
		if (play(ev, buf_view(&body), 200, NULL, 0))
			CHECK(h.class == (n > CALLS_MAX ? LLM_BAD_REQUEST : LLM_OK));
		heard_free(&h);
	}
	buf_reset(&body);
	for (size_t i = 0; i <= DETAILS_MAX; i++)
		buf_fmt(&body, CHOICE("{\"reasoning_details\":[{\"type\":\"t\",\"index\":%zu,\"text\":\"x\"}]}", "null"), i);
	buf_puts(&body, STOP("stop") DONE);
	if (ev && play(ev, buf_view(&body), 200, NULL, 0))
		CHECK(h.class == LLM_BAD_REQUEST);
	heard_free(&h);
	buf_free(&body);
	ev_free(ev);
}

/* Kept beside tool calls alone, in one block that names its provider. */
TEST(thinking)
{
#define THINK(field, text) CHOICE("{\"" field "\":\"" text "\"}", "null")
#define DETAIL(json) CHOICE("{\"reasoning\":\"x\",\"reasoning_details\":[" json "]}", "null")
#define CALLED PIECE("{\"index\":0,\"id\":\"call_one1\"," F("a", "{}") "}") STOP("tool_calls") DONE
#define KEPT(members) "[" USE("call_one1", "a", "{}") ",{\"type\":\"redacted_thinking\",\"provider\":\"host\"," members "}]"
	static const struct { const char *body, *content; } table[] = {
		{ THINK("reasoning_content", "a\\n") THINK("reasoning_content", "b") CALLED, KEPT("\"reasoning_content\":\"a\\nb\"") },
		{ THINK("reasoning", "a") CALLED, KEPT("\"reasoning\":\"a\"") },
		{ CHOICE("{\"reasoning\":\"a\",\"reasoning_content\":\"a\"}", "null") CALLED, KEPT("\"reasoning_content\":\"a\"") },
		{ THINK("reasoning_content", "a") SAY("Hi") STOP("stop") DONE, HI },
		{ THINK("reasoning_content", "") CALLED, "[" USE("call_one1", "a", "{}") "]" },
		{ DETAIL("{\"type\":\"reasoning.text\",\"index\":0,\"text\":\"a \",\"format\":\"f\"}")
		    DETAIL("{\"type\":\"reasoning.text\",\"index\":0,\"text\":\"b\",\"signature\":null,\"format\":\"f\"}")
		    DETAIL("{\"type\":\"reasoning.text\",\"index\":0,\"signature\":\"s\\\"format\\\":\"}")
		    DETAIL("{\"type\":\"reasoning.encrypted\",\"index\":1,\"data\":\"x\",\"id\":\"r\"}")
		    DETAIL("{\"type\":\"reasoning.summary\",\"summary\":\"s\"}") CALLED,
		    KEPT("\"reasoning_details\":[{\"type\":\"reasoning.text\",\"index\":0,\"text\":\"a b\",\"format\":\"f\","
		    "\"signature\":\"s\\\"format\\\":\"},{\"type\":\"reasoning.encrypted\",\"index\":1,\"data\":\"x\",\"id\":\"r\"},"
		    "{\"type\":\"reasoning.summary\",\"summary\":\"s\"}]") },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		if (play(ev, str_z(table[i].body), 200, NULL, i) && (h.class != LLM_OK || !str_eqz(buf_view(&h.content), table[i].content))) {
			test_bad_at_(__FILE__, __LINE__, table[i].body);
			printf("  %.*s\n", STR_ARG(buf_view(&h.content)));
		}
		heard_free(&h);
	}
	/* what is not kept counts all the same when the answer is cut */
	if (ev && play(ev, S(THINK("reasoning_content", "01234567890123456789")), 200, NULL, 0))
		CHECK(h.class == LLM_RETRY && h.usage.output == 6);
	heard_free(&h);
	if (ev && play(ev, S(CHOICE("{\"refusal\":\"I will\"}", "null") CHOICE("{\"refusal\":\" not.\"}", "\"stop\"") DONE), 200, NULL, 0))
		CHECK(h.class == LLM_OK && h.stop == LLM_STOP_REFUSAL && str_eqz(buf_view(&h.detail), "I will not."));
	heard_free(&h);
	ev_free(ev);
}

TEST(errors)
{
#define E(message) "{\"error\":{\"message\":\"" message "\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}"
	static const struct { unsigned status; const char *said; enum llm_class class; const char *detail; } table[] = {
		{ 400, E("max_tokens is not supported with this model"), LLM_BAD_REQUEST, "max_tokens is not supported with this model" },
		{ 401, "{\"error\":{\"message\":\"bad key\",\"code\":\"invalid_api_key\"}}", LLM_BAD_KEY, "bad key" },
		{ 401, "", LLM_BAD_KEY, "HTTP status 401" },
		{ 402, "{\"error\":{\"code\":402,\"message\":\"credits\"}}", LLM_BILLING, "credits" },
		{ 403, E("no"), LLM_BAD_KEY, "no" },
		{ 403, "{\"error\":{\"message\":\"input was flagged\",\"code\":403}}", LLM_BAD_REQUEST, "input was flagged" },
		{ 404, "{\"error\":{\"message\":\"model 'x' not found\"}}", LLM_BAD_MODEL, "model 'x' not found" },
		{ 404, "{\"error\":{\"message\":\"No endpoints found for x.\",\"code\":404}}", LLM_BAD_MODEL, "No endpoints found for x." },
		{ 404, "404 page not found", LLM_BAD_REQUEST, "HTTP status 404: is its base_url right?" },
		{ 400, E("Model Not Exist"), LLM_BAD_MODEL, "Model Not Exist" },
		{ 400, E("x is not a valid model ID"), LLM_BAD_MODEL, "x is not a valid model ID" },
		{ 400, "{\"error\":{\"message\":\"m\",\"code\":\"context_length_exceeded\"}}", LLM_TOO_LARGE, "m" },
		{ 400, E("This model's maximum context length is 4096 tokens"), LLM_TOO_LARGE, NULL },
		{ 400, "{\"error\":{\"code\":400,\"message\":\"m\",\"type\":\"exceed_context_size_error\"}}", LLM_TOO_LARGE, "m" },
		{ 413, "", LLM_TOO_LARGE, NULL },
		{ 400, E("The `reasoning_content` in the thinking mode must be passed back to the API."), LLM_THINKING, NULL },
		{ 400, E("property 'reasoning' is unsupported"), LLM_THINKING, NULL },
		{ 408, "", LLM_RETRY, NULL }, { 409, "", LLM_RETRY, NULL }, { 422, E("no"), LLM_BAD_REQUEST, "no" },
		{ 429, "{\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_exceeded\"}}", LLM_RETRY, "slow down" },
		{ 429, "{\"error\":{\"message\":\"q\",\"type\":\"insufficient_quota\"}}", LLM_BILLING, "q" },
		{ 500, "{\"error\":\"words\"}", LLM_RETRY, "words" },
		{ 502, "<html>", LLM_RETRY, "HTTP status 502" },
		{ 503, "{\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}", LLM_RETRY, "Loading model" },
		{ 500, "{\"detail\":\"d\"}", LLM_RETRY, "d" },
		{ 400, "{\"error\":{\"message\":\"Provider returned error\",\"code\":400,\"metadata\":{\"raw\":\"why\"}}}", LLM_BAD_REQUEST,
		    "Provider returned error: why" },
		{ 301, "", LLM_BAD_REQUEST, "HTTP status 301" },
	};
	static const char *const wait[] = { "retry-after-ms", "1500", "retry-after", "9", NULL }, *const never[] = { "x-should-retry",
	    "false", NULL }, *const again[] = { "x-should-retry", "true", NULL };
	static const struct { unsigned status; const char *const *headers; enum llm_class class; int64_t wait; } headed[] = {
		{ 429, wait, LLM_RETRY, 1500000 }, { 429, never, LLM_BILLING, -1 }, { 500, never, LLM_BAD_REQUEST, -1 },
		{ 400, again, LLM_RETRY, -1 },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		if (play(ev, str_z(table[i].said), table[i].status, NULL, 4) && (h.class != table[i].class || h.status != table[i].status ||
		    (table[i].detail && !str_eqz(buf_view(&h.detail), table[i].detail)))) {
			test_bad_at_(__FILE__, __LINE__, table[i].said);
			printf("  class %d: %.*s\n", (int)h.class, STR_ARG(buf_view(&h.detail)));
		}
		heard_free(&h);
	}
	for (size_t i = 0; i < ARRAY_LEN(headed) && ev; i++) {
		if (play(ev, S("{}"), headed[i].status, headed[i].headers, 0))
			CHECK(h.class == headed[i].class && h.retry_after_us == headed[i].wait);
		heard_free(&h);
	}
	/* inside a stream: its code is the status while nothing was said, and what was said costs */
	if (ev && play(ev, S(D("{\"error\":{\"code\":429,\"message\":\"m\"}}")), 200, wait, 0))
		CHECK(h.class == LLM_RETRY && h.status == 429 && h.retry_after_us == 1500000);
	heard_free(&h);
	if (ev && play(ev, S(SAY("Hi") D("{\"error\":{\"code\":429,\"message\":\"m\"}}")), 200, NULL, 0))
		CHECK(h.class == LLM_RETRY && h.status == 200 && h.usage.output == 1);
	heard_free(&h);
	ev_free(ev);
}

TEST(limits_of_headers)
{
	static const struct { const char *reset; int64_t us; } spans[] = {
		{ "6m0s", 360000000 }, { "7.66s", 7660000 }, { "20ms", 20000 }, { "1h2m3s", 3723000000 }, { "1d", 86400000000 }, { "0s", 0 },
		{ "", -1 }, { "soon", -1 }, { "5", -1 }, { "-1s", -1 }, { "1s2", -1 }, { "infs", -1 }, { "99999999999999999999999s", -1 },
		{ "1234567890123456789012345678901s", -1 },
	};
	static const char *const headers[] = { "x-ratelimit-limit-requests", "100", "x-ratelimit-remaining-requests", "0",
	    "x-ratelimit-reset-requests", "6m0s", "x-ratelimit-limit-tokens", "1000", "x-ratelimit-remaining-tokens", "900",
	    "x-ratelimit-reset-tokens", "3s", NULL };
	static const struct llm_message m = { "user", { "[]", 2 }, false };
	static const struct llm_sink sink = { heard_text, heard_done };
	const struct llm_request r = { .reservation = 1, .model = adapter_model, .messages = &m, .n_messages = 1 };
	struct agent a = { .providers = { { .feature = adapter } } };
	struct llm_call *c = NULL;
	struct fail f = FAIL_INIT;
	int64_t wait;

	for (size_t i = 0; i < ARRAY_LEN(spans); i++)
		if (span(str_z(spans[i].reset)) != spans[i].us)
			test_bad_at_(__FILE__, __LINE__, spans[i].reset);
	a.provider = a.providers;
	h = (struct heard){ .done = 0 };
	if (ev_new(&a.ev) == OK && ops.start(&a, "host", &a.providers[0].self, &f) == OK) {
		if (llm_start(&a, &r, &sink, &h, &c) == OK) {
			peer_fetch->headers = headers;
			peer_fetch->cb.on_head(peer_fetch->arg, peer_fetch, 200);
			wait = llm_limits_wait(&a, adapter_model, 1);           /* one of a hundred in six minutes, and jitter */
			CHECK(wait > 3000000 && wait < 6000000);
			CHECK(llm_limits_wait(&a, "host/another", 1) == 0);
			CHECK_STR(llm_family(str_z(adapter_model)), "host/some/model");
			llm_pause(c, true);
			CHECK(peer_fetch->paused);
			llm_cancel(c, NULL);
			CHECK(peer_fetch == NULL);
		}
		/* freed with an exchange in flight: after [DONE] nobody else knows of it */
		if (llm_start(&a, &r, &sink, &h, &c) == OK) {
			peer_fetch->cb.on_head(peer_fetch->arg, peer_fetch, 200);
			peer_fetch->cb.on_data(peer_fetch->arg, peer_fetch, S(SAY("Hi") STOP("stop") DONE));
			llm_cancel(c, NULL);
			CHECK(FAULTED() || peer_fetch != NULL);
		}
		ops.free(a.providers[0].self);
		CHECK(peer_fetch == NULL && h.done == 0);
	}
	buf_free(&peer_body);
	heard_free(&h);
	ev_free(a.ev);
}

/* ---- what is asked ------------------------------------------------------------------------ */

static void
asked(const struct llm_request *r, const char *want)
{
	struct agent a = { .config = NULL };
	struct oa p = { .a = &a, .name = "host" };
	struct buf all = BUF_INIT(65536);
	struct body b;
	char block[7];
	size_t n = 1;

	body_init(&b, 65536);
	if (oa_question(&b, &p, server_of(NULL, S("host")), r) == OK) {
		while (n && body_read(&b, block, sizeof(block), &n) == OK)
			buf_put(&all, block, n);
		if (!FAULTED() && !str_eqz(buf_view(&all), want)) {
			test_bad_at_(__FILE__, __LINE__, want);
			printf("  %.*s\n", STR_ARG(buf_view(&all)));
		}
	} else {
		CHECK(FAULTED());
	}
	body_free(&b);
	buf_free(&all);
}

TEST(question)
{
	static const char tool_turn[] = "[{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"Let me\"},"
	    "{\"type\":\"text\",\"text\":\" see.\"}," USE("call_1", "time_now", "{ \"a\":\"\\\"\"}") ","
	    "{\"type\":\"redacted_thinking\",\"provider\":\"host\",\"reasoning_content\":\"r\\n\"}]";
	static const char other_turn[] = "[" USE("call_2", "b", "{}") ",{\"type\":\"redacted_thinking\",\"provider\":\"elsewhere\","
	    "\"reasoning_content\":\"not yours\"}]";
#define M(role, content) { role, { content, sizeof(content) - 1 }, false }
	static const struct llm_message m[] = {
		M("user", "[{\"type\":\"text\",\"text\":\"one\"}]"), M("user", "[{\"type\":\"text\",\"text\":\"two\"}]"),
		M("system", "\"a \\\"rule\\\"\""), { "assistant", { tool_turn, sizeof(tool_turn) - 1 }, false },
		M("user", "[{\"type\":\"tool_result\",\"tool_use_id\":\"call_1\",\"content\":\"noon\"},{\"type\":\"tool_result\","
		    "\"tool_use_id\":\"call_x\",\"content\":\"gone\",\"is_error\":true},{\"type\":\"text\",\"text\":\"and?\"}]"),
		{ "assistant", { other_turn, sizeof(other_turn) - 1 }, false },
		M("assistant", "[{\"type\":\"server_tool_use\",\"id\":\"s\"}]"),
	};
#define BEGIN(model, max) "{\"model\":\"" model "\",\"" max "\":9,\"stream\":true"
#define STREAM ",\"stream_options\":{\"include_usage\":true}"
#define TOOLS ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"time_now\",\"description\":\"d\",\"parameters\":{\"type\": \"object\"}}}]"
#define MESSAGES(role) ",\"messages\":[{\"role\":\"" role "\",\"content\":\"be \\\"x\\\"\"},{\"role\":\"user\",\"content\":\"one\\n\\ntwo\"}," \
	"{\"role\":\"" role "\",\"content\":\"a \\\"rule\\\"\"},{\"role\":\"assistant\",\"content\":\"Let me see.\",\"reasoning_content\":\"r\\n\"," \
	"\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"time_now\",\"arguments\":\"{ \\\"a\\\":\\\"\\\\\\\"\\\"}\"}}]}," \
	"{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"noon\"},{\"role\":\"tool\",\"tool_call_id\":\"call_x\",\"content\":" \
	"\"Error: gone\"},{\"role\":\"user\",\"content\":\"and?\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_2\"," \
	"\"type\":\"function\",\"function\":{\"name\":\"b\",\"arguments\":\"{}\"}}]}]"
	struct llm_request r = { .reservation = 1, .model = "host/some/model", .max_tokens = 9, .system = S("be \"x\""), .messages = m,
	    .n_messages = ARRAY_LEN(m), .tools = S("[{\"name\":\"time_now\",\"description\":\"d\",\"input_schema\":{\"type\": \"object\"}}]") };

	asked(&r, BEGIN("some/model", "max_tokens") STREAM TOOLS MESSAGES("system") "}");
	openai_url = "https://api.openai.com/v1";
	asked(&r, BEGIN("some/model", "max_completion_tokens") STREAM TOOLS MESSAGES("developer") "}");
	openai_url = "https://api.deepseek.com";
	asked(&r, BEGIN("some/model", "max_tokens") STREAM TOOLS MESSAGES("system") ",\"thinking\":{\"type\":\"disabled\"}}");
	r.tools = S("[]");                      /* what it insists on is there */
	r.model = "hosted";
	r.system = STR_NONE;
	r.messages = m + 3;
	r.n_messages = 1;
	asked(&r, BEGIN("hosted", "max_tokens") STREAM ",\"messages\":[{\"role\":\"assistant\",\"content\":\"Let me see.\","
	    "\"reasoning_content\":\"r\\n\",\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"time_now\","
	    "\"arguments\":\"{ \\\"a\\\":\\\"\\\\\\\"\\\"}\"}}]}]}");
	openai_server = "plain";
	r.messages = m;
	r.schema = S("{\"type\":\"null\"}");          /* it has no word for what is asked for: the schema is told in ours */
	r.effort = S("low");
	r.no_tools = true;
	asked(&r, BEGIN("hosted", "max_tokens") ",\"messages\":[{\"role\":\"user\",\"content\":\"one\\n\\nAnswer with one JSON value and"
	    " nothing else. Its JSON Schema: {\\\"type\\\":\\\"null\\\"}\"}]}");
	openai_server = "openai";               /* without tools there is nothing to choose */
	r.one_call = true;
	r.stop = S("[\".\"]");
	asked(&r, BEGIN("hosted", "max_completion_tokens") STREAM ",\"stop\":[\".\"],\"reasoning_effort\":\"low\",\"response_format\":"
	    "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":{\"type\":\"null\"}}},\"messages\":[{\"role\":\"user\","
	    "\"content\":\"one\"}]}");
	openai_server = "plain";
	r.schema = r.effort = r.stop = STR_NONE;
	r.tools = STR_NONE;
	asked(&r, BEGIN("hosted", "max_tokens") ",\"messages\":[{\"role\":\"user\",\"content\":\"one\"}]}");
	openai_server = "";
	openai_url = "https://a.example/v1";
}

/* Files become bytes while the request is sent; with one of them the message has parts. */
TEST(question_with_files)
{
	char path[] = "/tmp/blufio-test-XXXXXX", content[1024];
	int fd = mkstemp(path);
	struct llm_message m = { "user", STR_NONE, true };
	const struct llm_request r = { .reservation = 1, .model = "m", .max_tokens = 9, .messages = &m, .n_messages = 1 };

	if (fd < 0 || fd_write_all(fd, "say \"hi\"\n", 9) != OK) {
		CHECK(FAULTED());
		goto out;
	}
#define FILE_OF(type, media, more) "{\"type\":\"" type "\",\"source\":{\"type\":\"media\",\"media_type\":\"" media "\",\"hash\":\"%s\"}" more "}"
	snprintf(content, sizeof(content), "[{\"type\":\"text\",\"text\":\"see\"}," FILE_OF("image", "image/png", "") ","
	    FILE_OF("document", "text/plain", ",\"title\":\"a\\\"b\"") "," FILE_OF("document", "application/pdf", "")
	    ",{\"type\":\"text\",\"text\":\"what?\"}]", path, path, path);
	m.content = str_z(content);
	asked(&r, BEGIN("m", "max_tokens") STREAM ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"},"
	    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,c2F5ICJoaSIK\"}},"
	    "{\"type\":\"text\",\"text\":\"a\\\"b:\\nsay \\\"hi\\\"\\n\"},"
	    "{\"type\":\"file\",\"file\":{\"filename\":\"document\",\"file_data\":\"data:application/pdf;base64,c2F5ICJoaSIK\"}},"
	    "{\"type\":\"text\",\"text\":\"what?\"}]}]}");
out:
	if (fd >= 0) {
		close(fd);
		(void)remove(path);
	}
}

/* ---- the list of models ---------------------------------------------------------------------- */

static struct buf listed = BUF_INIT(65536);
static int lists;

static void
on_list(void *arg, struct str models_json)
{
	(void)arg;
	lists++;
	buf_reset(&listed);
	buf_str(&listed, models_json);
}

TEST(list)
{
	static const struct { unsigned status; const char *body, *want; } table[] = {
		{ 200, "{\"object\":\"list\",\"data\":[{\"id\":\"a/b:c\"},{\"id\":\"has blank\"},{\"id\":\"\"},{\"id\":1},{\"id\":\"x\"}]}",
		    "[[\"host/a/b:c\",\"host/a/b:c\"],[\"host/x\",\"host/x\"]]" },
		{ 200, "{\"data\":[]}", "[]" },
		{ 200, "{\"data\":[{\"id\":", "" }, { 401, "{\"data\":[{\"id\":\"x\"}]}", "" }, { 200, "{}", "" },
	};
	struct agent a = { .providers = { { .feature = adapter } } };
	struct fail f = FAIL_INIT;
	void *op;

	lists = 0;
	a.provider = a.providers;
	if (ops.start(&a, "host", &a.providers[0].self, &f) != OK)
		return;
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		const struct fetch_result r = { .err = OK, .status = table[i].status, .sent = true, .why = "" };
		struct fetch_op *fo;

		if (ops.list(a.providers[0].self, on_list, NULL, &op) != OK)
			continue;
		CHECK_STR(str_z(peer_url), "GET https://a.example/v1/models");
		fo = peer_fetch;
		fo->cb.on_head(fo->arg, fo, table[i].status);
		fo->cb.on_data(fo->arg, fo, str_z(table[i].body));
		fo->cb.on_done(fo->arg, fo, &r);
		peer_fetch = NULL;
		free(fo);
		if (!FAULTED())
			CHECK_STR(buf_view(&listed), table[i].want);
	}
	if (ops.list(a.providers[0].self, on_list, NULL, &op) == OK)
		ops.cancel(op);
	CHECK(FAULTED() || lists == (int)ARRAY_LEN(table));
	ops.free(a.providers[0].self);
	buf_free(&listed);
	buf_free(&peer_body);
}

/* ---- instances, as the configuration has them --------------------------------------------------- */

TEST(instances)
{
	static const char toml[] = "[providers]\ndefault = \"ollama\"\n"
	    "[providers.ollama]\nbase_url = \"http://127.0.0.1:1/v1\"\nmodel = \"qwen3\"\ncontext_window = 9000\nimages = false\n"
	    "[providers.far]\nbase_url = \"https://a.example/v1\"\nmodel = \"m\"\ninput = 2\noutput = 10\nmax_tokens = 70000\n"
	    "[providers.dear]\nbase_url = \"https://api.openai.com/v1\"\nmodel = \"gpt\"\n"
	    "[providers.proxy]\nbase_url = \"http://localhost:2\"\nmodel = \"m\"\ninput = 3\noutput = 4\ncache_read = 0.5\n"
	    "[pricing.\"dear/gpt\"]\ninput = 8\noutput = 40\n";
	static const struct { const char *model; int64_t in, out, read, write, window, most, images; unsigned flags; } want[] = {
		{ "ollama/anything:8b", 0, 0, 0, 0, 9000, 64000, 0, MODEL_WINDOW },
		{ "far/m", 2000, 10000, 2000, 2000, 200000, 70000, 100, 0 },
		{ "dear/gpt", 8000, 40000, 8000, 8000, 200000, 64000, 100, MODEL_PDF | MODEL_SYSTEM_TURNS },
		{ "proxy/m", 3000, 4000, 500, 3000, 200000, 64000, 100, 0 },
		{ "claude-sonnet-5-5", 2000, 10000, 100, 2500, 1000000, 128000, 600, 0 },
	};
	const struct feature *openai = feature_find(FEATURE_PROVIDER, S("openai")), *claude = feature_find(FEATURE_PROVIDER, S("anthropic"));
	struct scratch sc;
	struct model_info m;
	struct fail f = FAIL_INIT;

	if (openai && claude && scratch_begin(&sc, toml, "echo") == OK) {
		static const char *const names[] = { "ollama", "far", "dear", "proxy" };

		for (size_t i = 0; i < ARRAY_LEN(names); i++) {
			sc.a.providers[i] = (struct provider){ .feature = openai };
			snprintf(sc.a.providers[i].name, sizeof(sc.a.providers[i].name), "%s", names[i]);
		}
		sc.a.providers[4] = (struct provider){ .feature = claude, .name = "anthropic" };
		sc.a.n_providers = 5;
		providers_read(&sc.a);
		CHECK_STR(str_z(sc.a.providers[0].model), "ollama/qwen3");
		for (size_t i = 0; i < ARRAY_LEN(want) && !FAULTED(); i++) {
			CHECK_OK(cost_model(&sc.a, want[i].model, &m, &f));
			if (m.in != want[i].in || m.out != want[i].out || m.read != want[i].read || m.write_5m != want[i].write ||
			    m.window != want[i].window || m.max_output != want[i].most || m.images_max != want[i].images ||
			    (i < 4 && m.flags != want[i].flags))
				test_bad_at_(__FILE__, __LINE__, want[i].model);
		}
		CHECK(provider_of(&sc.a, S("claude-opus-5-5")) == &sc.a.providers[4]);
		CHECK(provider_of(&sc.a, S("nobody/x")) == &sc.a.providers[0] && provider_of(&sc.a, S("far/")) == &sc.a.providers[0]);
		/* what the default provider prices has its name in front; another's model is none of its */
		CHECK(FAULTED() || cost_model(&sc.a, "gpt", &m, &f) == ERR_NOTFOUND);
		fail_clear(&f);
		CHECK(FAULTED() || cost_model(&sc.a, "dear/gpt-2", &m, &f) == ERR_NOTFOUND);
		CHECK(FAULTED() || (strstr(f.text, "[pricing.\"dear/gpt-2\"]\ninput = ") && strstr(f.text, "in [providers.dear] the same two") &&
		    strstr(f.text, "config set providers.dear.model")));
	} else {
		CHECK(FAULTED());
	}
	scratch_end(&sc);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(stops);
	RUN(no_stream);
	RUN(usage);
	RUN(tool_calls);
	RUN(too_many);
	RUN(thinking);
	RUN(errors);
	RUN(limits_of_headers);
	RUN(question);
	RUN(question_with_files);
	RUN(list);
	RUN(instances);
	log_close();
	return TEST_END();
}
