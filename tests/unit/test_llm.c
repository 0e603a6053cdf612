/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_llm.c - answers put together from their pieces, recorded ones too; how long to wait, what to estimate. */
#include "claude.h"
#include "scratch.h"
#include "test.h"

#include <dirent.h>

/* ---- the assembler alone: a provider that does nothing --------------------------------- */

static int cancelled;

static enum err
silent_call(void *self, const struct llm_request *r, struct llm_call *call, void **op)
{
	(void)self;
	(void)r;
	(void)call;
	*op = &cancelled;
	return OK;
}

static void
silent_cancel(void *op)
{
	++*(int *)op;
}

static const struct provider_ops silent_ops = { .call = silent_call, .cancel = silent_cancel };
static const struct feature silent = { .name = "silent", .kind = FEATURE_PROVIDER, .provider = &silent_ops };
static const struct llm_sink sink = { heard_text, heard_done };
static struct agent a;
static struct heard h;
static struct llm_call *c;

static bool
begin(void)
{
	const struct llm_request none = { .model = "m", .reservation = 1 };

	a = (struct agent){ .providers = { { .feature = &silent } } };
	a.provider = a.providers;
	h = (struct heard){ .text = BUF_INIT(REPLY_MAX), .content = BUF_INIT(REQUEST_MAX), .detail = BUF_INIT(4096) };
	c = NULL;
	cancelled = 0;
	if (ev_new(&a.ev) == OK && llm_start(&a, &none, &sink, &h, &c) == OK)
		return true;
	CHECK(FAULTED());
	return false;
}

static void
finish(void)
{
	heard_free(&h);
	ev_free(a.ev);
}

/* Ends the call; its result is in h then. */
static void
answered(enum llm_stop stop)
{
	llm_feed_stop(c, stop, STR_NONE);
	llm_feed_end(c, LLM_OK, 200, -1, STR_NONE, S("req_1"));
	CHECK(h.done == 0);             /* never from inside a feed */
	if (ev_once(a.ev, 0) != OK && !h.done)
		llm_cancel(c, NULL);
	CHECK(h.done == 1);
}

static void
block(size_t index, const char *type)
{
	llm_feed_block(c, index, str_z(type), S("id_1"), S("time_now"), S("{\"type\":\"redacted_thinking\"}"));
}

TEST(blocks_in_order)
{
	if (begin()) {
		block(0, "thinking");
		llm_feed_thinking(c, 0, S("a \"b"));
		llm_feed_signature(c, 0, S("si"));
		llm_feed_signature(c, 0, S("g"));
		llm_feed_block_end(c, 0);
		block(1, "redacted_thinking");
		llm_feed_block_end(c, 1);
		block(2, "from_the_future");
		llm_feed_text(c, 2, S("not text"));
		llm_feed_block_end(c, 2);
		block(3, "text");
		llm_feed_text(c, 3, S("one "));
		block(4, "tool_use");
		llm_feed_text(c, 3, S("two"));  /* blocks may overlap */
		llm_feed_block_end(c, 3);
		llm_feed_text(c, 3, S("late"));
		llm_feed_input(c, 4, S("{ \"a\":"));
		llm_feed_input(c, 4, S("1}"));
		llm_feed_block_end(c, 4);
		block(5, "tool_use");
		llm_feed_block_end(c, 5);       /* no input at all is {} */
		llm_feed_text(c, 77, S("of no block"));
		answered(LLM_STOP_TOOLS);
		CHECK(FAULTED() || (h.class == LLM_OK && h.stop == LLM_STOP_TOOLS && !h.usage_known));
		if (!FAULTED()) {
			CHECK_STR(buf_view(&h.content), "[{\"type\":\"thinking\",\"thinking\":\"a \\\"b\",\"signature\":\"sig\"},"
			    "{\"type\":\"redacted_thinking\"},{\"type\":\"text\",\"text\":\"one two\"},"
			    "{\"type\":\"tool_use\",\"id\":\"id_1\",\"name\":\"time_now\",\"input\":{ \"a\":1}},"
			    "{\"type\":\"tool_use\",\"id\":\"id_1\",\"name\":\"time_now\",\"input\":{}}]");
			CHECK_STR(buf_view(&h.text), "one two");
		}
	}
	finish();
}

/* What must never be replayed or run. */
TEST(left_out)
{
	if (begin()) {
		block(0, "thinking");           /* whole, but its signature was lost */
		llm_feed_thinking(c, 0, S("x"));
		llm_feed_block_end(c, 0);
		block(1, "thinking");           /* cut */
		llm_feed_signature(c, 1, S("sig"));
		block(2, "text");               /* empty, and blank: the API refuses both */
		llm_feed_block_end(c, 2);
		block(3, "text");
		llm_feed_text(c, 3, S("\n\n"));
		llm_feed_block_end(c, 3);
		block(4, "redacted_thinking");  /* cut */
		block(5, "tool_use");           /* its input is cut */
		llm_feed_input(c, 5, S("{\"a\":"));
		llm_feed_block_end(c, 5);
		block(6, "tool_use");           /* its input is no object */
		llm_feed_input(c, 6, S("[1]"));
		llm_feed_block_end(c, 6);
		block(7, "tool_use");           /* never ended */
		llm_feed_input(c, 7, S("{}"));
		llm_feed_block(c, 8, S("tool_use"), STR_NONE, S("x"), STR_NONE);
		llm_feed_block_end(c, 8);
		block(9, "text");               /* cut text is what the user saw */
		llm_feed_text(c, 9, S("half a sen"));
		answered(LLM_STOP_TOOLS);
		if (!FAULTED())
			CHECK_STR(buf_view(&h.content), "[{\"type\":\"text\",\"text\":\"half a sen\"}]");
	}
	finish();
}

/* A call is made only when the model stopped in order to make it. */
TEST(tools_need_their_stop)
{
	for (int stop = LLM_STOP_NONE; stop <= LLM_STOP_WINDOW; stop++) {
		if (begin()) {
			block(0, "tool_use");
			llm_feed_block_end(c, 0);
			answered((enum llm_stop)stop);
			CHECK(FAULTED() || (h.content.n > 2) == (stop == LLM_STOP_TOOLS));
		}
		finish();
	}
}

/* Long lists of short values make a large tree of a small text. */
TEST(wide_input)
{
	if (begin()) {
		block(0, "tool_use");
		llm_feed_input(c, 0, S("{\"n\":[0"));
		for (int i = 0; i < 20000; i++)
			llm_feed_input(c, 0, S(",0,0,0,0,0,0,0,0,0,0"));
		llm_feed_input(c, 0, S("]}"));
		llm_feed_block_end(c, 0);
		answered(LLM_STOP_TOOLS);
		CHECK(FAULTED() || h.content.n > 400000);
	}
	finish();
}

TEST(limits)
{
	static char big[REPLY_MAX / 2 + 1];

	memset(big, 'a', sizeof(big));
	if (begin()) {
		block(0, "text");
		llm_feed_text(c, 0, str_make(big, sizeof(big)));
		llm_feed_text(c, 0, str_make(big, sizeof(big)));
		answered(LLM_STOP_END);
		CHECK(FAULTED() || (h.class == LLM_BAD_REQUEST && h.detail.n > 0));
		CHECK(h.text.n <= sizeof(big));
	}
	finish();
	if (begin()) {
		for (size_t i = 0; i <= LLM_BLOCKS_MAX; i++)
			block(i, "text");
		answered(LLM_STOP_END);
		CHECK(FAULTED() || h.class == LLM_BAD_REQUEST);
	}
	finish();
}

/* A failed or cancelled call: what was received counts, if anything was accepted at all. */
TEST(usage)
{
	const struct usage first = { 100, 1, 20, -1, -1 }, later = { -1, 30, -1, 5, 7 };
	const struct usage huge = { INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX };
	struct usage seen = { 9, 9, 9, 9, 9 };

	if (begin()) {
		llm_feed_usage(c, &first, false);
		llm_feed_usage(c, &later, true);
		answered(LLM_STOP_END);
		CHECK(FAULTED() || (h.usage_known && h.usage.input == 100 && h.usage.output == 30 &&
		    h.usage.cache_read == 20 && h.usage.write_5m == 5 && h.usage.write_1h == 7));
	}
	finish();
	if (begin()) {
		llm_feed_usage(c, &first, false);
		block(0, "text");
		llm_feed_text(c, 0, S("0123456789012345678901234567890123456789"));
		llm_feed_end(c, LLM_RETRY, 200, 3, S("cut"), STR_NONE);
		llm_feed_end(c, LLM_OK, 200, -1, STR_NONE, STR_NONE);   /* the first end holds */
		if (ev_once(a.ev, 0) != OK && !h.done)
			llm_cancel(c, NULL);
		CHECK(FAULTED() || (h.class == LLM_RETRY && h.usage.input == 100 && h.usage.output == 12));
		CHECK(FAULTED() || (h.retry_after_us == 3 && str_eqz(buf_view(&h.detail), "cut")));
	}
	finish();
	if (begin()) {
		block(0, "thinking");
		llm_feed_thinking(c, 0, S("1234567"));
		llm_cancel(c, &seen);           /* what came is known, what went is not */
		CHECK(FAULTED() || (cancelled == 1 && seen.input == 0 && seen.output == 2));
	}
	finish();
	if (begin()) {
		llm_feed_usage(c, &first, false);
		block(0, "thinking");
		llm_feed_thinking(c, 0, S("12345678901234"));
		llm_cancel(c, &seen);
		CHECK(FAULTED() || (seen.input == 100 && seen.output == 4));
	}
	finish();
	if (begin()) {                          /* nonsense from a server must not wrap around */
		struct model_info m = { .in = 50000, .out = 50000, .write_5m = 50000, .write_1h = 50000,
		    .read = 50000, .band_above = 1, .band_factor = 5 };

		llm_feed_usage(c, &huge, true);
		llm_cancel(c, &seen);
		CHECK(seen.input > 0 && seen.input < 1 << 30 && cost_of(&m, &seen) > 0);
	}
	finish();
}

TEST(waits)
{
	static const struct { unsigned attempt; int64_t most; } table[] = {
		{ 1, 500000 }, { 2, 1000000 }, { 3, 2000000 }, { 4, 4000000 }, { 5, 8000000 }, { 6, 8000000 },
		{ 4000000000u, 8000000 },
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		for (int k = 0; k < 50; k++) {
			int64_t us = llm_backoff_us(table[i].attempt, -1);

			CHECK(us <= table[i].most && us > table[i].most - table[i].most / 4);
		}
	CHECK(llm_backoff_us(3, 0) == 0);
	CHECK(llm_backoff_us(1, 7 * US_PER_S) == 7 * US_PER_S);
	CHECK(llm_backoff_us(1, LLM_RETRY_AFTER_MAX_US) == LLM_RETRY_AFTER_MAX_US);
	CHECK(llm_backoff_us(1, LLM_RETRY_AFTER_MAX_US + 1) <= LLM_BACKOFF_US);
	CHECK(llm_tokens_estimate(0) == 0 && llm_tokens_estimate(1) == 1 && llm_tokens_estimate(7) == 2);
	CHECK(llm_tokens_estimate(35) == 10 && llm_tokens_estimate(REQUEST_MAX) == (REQUEST_MAX * 2 + 6) / 7);
}

/* What a provider has counted is how its model's texts are reckoned; what cannot be is not believed. */
TEST(scales)
{
	char model[32];
	const int64_t mib = 1 << 20;

	memset(a.scales, 0, sizeof(a.scales));
	CHECK(llm_tokens(&a, "x-1", 35000) == 10000 && llm_tokens(&a, "", 7) == 2);
	llm_counted(&a, "x-1", 8191, 4000);
	llm_counted(&a, "x-1", mib, mib + 1);
	llm_counted(&a, "x-1", mib, mib / 8 - 1);
	llm_counted(&a, "x-1", mib, -5);
	CHECK(llm_tokens(&a, "x-1", 35000) == 10000);
	llm_counted(&a, "x-1", 40000, 10000);
	CHECK(llm_tokens(&a, "x-1", 35000) == 8751 && llm_tokens(&a, "x-2", 35000) == 10000 && llm_tokens(&a, "x-10", 7) == 2);
	llm_counted(&a, "x-2", 20000, 10000);
	CHECK(llm_tokens(&a, "x-2", 100) == 51 && llm_tokens(&a, "x-1", 100) == 26);
	for (int i = 0; i < 20; i++)            /* another language than before: the past fades */
		llm_counted(&a, "x-1", 100000, 50000);
	CHECK(llm_tokens(&a, "x-1", 100000) > 49000);
	for (int i = 0; i < 3 * LLM_SCALES_MAX; i++) {
		snprintf(model, sizeof(model), "y-%d", i);
		llm_counted(&a, model, mib, mib / 2);
		CHECK(llm_tokens(&a, model, 100) == 51);
	}
	CHECK(llm_tokens(&a, "x-2", 100) == 51 && llm_tokens(&a, "y-8", 35000) == 10000);
	memset(a.scales, 0, sizeof(a.scales));
}

/* ---- the Anthropic adapter ----------------------------------------------------------------- */

#define EVENT(json) "event: x\ndata: " json "\n\n"
#define START EVENT("{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1," \
	"\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":3}}}")
#define TEXT EVENT("{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}") \
	EVENT("{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}") \
	EVENT("{\"type\":\"content_block_stop\",\"index\":0}")
#define STOP(reason) EVENT("{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"" reason "\"},\"usage\":{\"output_tokens\":4}}")
#define END EVENT("{\"type\":\"message_stop\"}")

TEST(claude_stops)
{
	static const struct { const char *body; enum llm_class class; enum llm_stop stop; } table[] = {
		{ START TEXT STOP("end_turn") END, LLM_OK, LLM_STOP_END },
		{ START TEXT STOP("max_tokens") END, LLM_OK, LLM_STOP_MAX_TOKENS },
		{ START TEXT STOP("pause_turn") END, LLM_OK, LLM_STOP_PAUSE },
		{ START TEXT STOP("model_context_window_exceeded") END, LLM_OK, LLM_STOP_WINDOW },
		{ START TEXT STOP("something_new") END, LLM_OK, LLM_STOP_END },
		{ START TEXT EVENT("{\"type\":\"new_event\",\"index\":0}") EVENT("{}") EVENT("[]") STOP("end_turn") END,
		    LLM_OK, LLM_STOP_END },
		{ START TEXT STOP("end_turn") END EVENT("no JSON after the end"), LLM_OK, LLM_STOP_END },
		{ START TEXT STOP("end_turn"), LLM_RETRY, LLM_STOP_END },
		{ START EVENT("not JSON") TEXT STOP("end_turn") END, LLM_RETRY, LLM_STOP_NONE },
		{ START EVENT("{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Over\"}}") END,
		    LLM_RETRY, LLM_STOP_NONE },
		{ "", LLM_RETRY, LLM_STOP_NONE },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		const struct answer in = { .status = 200, .body = str_z(table[i].body) };

		if (hear(ev, &in, &h) == OK && !FAULTED()) {
			if (h.class != table[i].class || h.stop != table[i].stop)
				test_bad_at_(__FILE__, __LINE__, table[i].body);
			if (h.class == LLM_OK) {
				CHECK_STR(buf_view(&h.content), "[{\"type\":\"text\",\"text\":\"Hi\"}]");
				CHECK(h.usage.input == 10 && h.usage.output == 4 && h.usage.write_5m == 7 &&
				    h.usage.cache_read == 3 && h.usage.write_1h == 0);
			}
		}
		heard_free(&h);
	}
	ev_free(ev);
}

/* What the provider's own tools did, and what stands beside it, goes back as it came. */
TEST(claude_server_blocks)
{
#define BLOCK(i, start) EVENT("{\"type\":\"content_block_start\",\"index\":" #i ",\"content_block\":" start "}")
#define DELTA(i, delta) EVENT("{\"type\":\"content_block_delta\",\"index\":" #i ",\"delta\":" delta "}")
#define DONE(i) EVENT("{\"type\":\"content_block_stop\",\"index\":" #i "}")
#define USE(id, rest) "{\"type\":\"server_tool_use\",\"id\":\"" id "\",\"name\":\"web_search\"" rest "}"
#define FOUND "{\"type\":\"web_search_tool_result\",\"tool_use_id\":\"s1\",\"content\":[{\"x\":[1 ,2],\"type\":\"web\"}]}"
	static const char body[] = START
	    BLOCK(0, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")     /* empty, signed */
	    DELTA(0, "{\"type\":\"signature_delta\",\"signature\":\"sig\"}") DONE(0)
	    BLOCK(1, USE("s1", ",\"input\":{},\"caller\":{\"type\":\"direct\"}"))
	    DELTA(1, "{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"q\\\":\"}")
	    DELTA(1, "{\"type\":\"input_json_delta\",\"partial_json\":\" 1}\"}") DONE(1)
	    BLOCK(2, FOUND) DONE(2)
	    BLOCK(3, "{\"type\":\"text\",\"text\":\"\",\"citations\":[]}")
	    DELTA(3, "{\"type\":\"text_delta\",\"text\":\"Hi\"}")
	    DELTA(3, "{\"type\":\"citations_delta\",\"citation\":{\"url\":\"u\" }}")
	    DELTA(3, "{\"type\":\"citations_delta\",\"citation\":{\"n\":2}}") DONE(3)
	    BLOCK(4, "{\"type\":\"fallback\",\"model\":\"x\"}") DONE(4)
	    BLOCK(5, "{\"type\":\"compaction\",\"content\":null}")
	    DELTA(5, "{\"type\":\"compaction_delta\",\"content\":\"sum\"}") DONE(5)
	    BLOCK(6, USE("s2", ",\"input\":{\"whole\":1}")) DONE(6)              /* nobody answered it */
	    BLOCK(7, USE("s3", ",\"input\":{}"))                                 /* cut */
	    DELTA(7, "{\"type\":\"input_json_delta\",\"partial_json\":\"{\"}") DONE(7)
	    BLOCK(8, "{\"type\":\"web_fetch_tool_result\",\"tool_use_id\":\"s3\"}");        /* never ended */
#define KEPT "[{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"sig\"}," \
	USE("s1", ",\"input\":{\"q\": 1},\"caller\":{\"type\":\"direct\"}") "," FOUND "," \
	"{\"type\":\"text\",\"text\":\"Hi\",\"citations\":[{\"url\":\"u\" },{\"n\":2}]}," \
	"{\"type\":\"compaction\",\"content\":\"sum\"}"
	static const struct { const char *stop, *content; } table[] = {
		{ STOP("pause_turn") END, KEPT "," USE("s2", ",\"input\":{\"whole\":1}") "]" },
		{ STOP("tool_use") END, KEPT "," USE("s2", ",\"input\":{\"whole\":1}") "]" },
		{ STOP("end_turn") END, KEPT "]" },
		{ STOP("max_tokens") END, KEPT "]" },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		struct buf whole = BUF_INIT(1u << 20);
		struct answer in = { .status = 200, .piece = i };

		buf_puts(&whole, body);
		buf_puts(&whole, table[i].stop);
		in.body = buf_view(&whole);
		if (hear(ev, &in, &h) == OK && !FAULTED()) {
			CHECK(h.class == LLM_OK);
			CHECK_STR(buf_view(&h.content), table[i].content);
			CHECK_STR(buf_view(&h.text), "Hi");
		}
		heard_free(&h);
		buf_free(&whole);
	}
	ev_free(ev);
}

/* Why it refused, in the provider's words when it gives any. */
TEST(claude_refusal)
{
#define REFUSED(details) START EVENT("{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\"," \
	"\"stop_details\":" details "},\"usage\":{\"output_tokens\":4}}") END
	static const struct { const char *body, *why; } table[] = {
		{ REFUSED("{\"type\":\"refusal\",\"category\":\"cyber\",\"explanation\":\"No.\"}"), "No." },
		{ REFUSED("{\"type\":\"refusal\",\"category\":\"cyber\",\"explanation\":null}"), "cyber" },
		{ REFUSED("{\"type\":\"refusal\",\"category\":null}"), "" },
		{ REFUSED("null"), "" },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		const struct answer in = { .status = 200, .body = str_z(table[i].body) };

		if (hear(ev, &in, &h) == OK && !FAULTED()) {
			CHECK(h.class == LLM_OK && h.stop == LLM_STOP_REFUSAL);
			CHECK_STR(buf_view(&h.detail), table[i].why);
		}
		heard_free(&h);
	}
	ev_free(ev);
}

TEST(claude_refuses)
{
#define SAID(type, text) "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" text "\"}}"
	static const struct { struct answer in; enum llm_class class; int64_t retry_after; } table[] = {
		{ { .status = 401, .body = { "", 0 } }, LLM_BAD_KEY, -1 },
		{ { .status = 403, .body = { SAID("permission_error", "m"), 62 } }, LLM_BAD_KEY, -1 },
		{ { .status = 429, .retry_after = "7" }, LLM_RETRY, 7000000 },
		{ { .status = 429, .retry_after = "0.5" }, LLM_RETRY, 500000 },
		{ { .status = 429, .retry_after = "Wed, 21 Oct 2026 07:28:00 GMT" }, LLM_RETRY, -1 },
		{ { .status = 429, .retry_after = "-3" }, LLM_RETRY, -1 },
		{ { .status = 429, .should_retry = "false" }, LLM_BILLING, -1 },
		{ { .status = 500 }, LLM_RETRY, -1 },
		{ { .status = 529, .should_retry = "false" }, LLM_BAD_REQUEST, -1 },
		{ { .status = 400, .should_retry = "true" }, LLM_RETRY, -1 },
		{ { .status = 400 }, LLM_BAD_REQUEST, -1 },
		{ { .status = 413 }, LLM_TOO_LARGE, -1 },
		{ { .status = 301 }, LLM_BAD_REQUEST, -1 },
		{ { .status = 200, .broken = true }, LLM_RETRY, -1 },
	};
	static const struct { const char *said; enum llm_class class; } words[] = {
		{ SAID("invalid_request_error", "messages.1: `thinking` block: invalid `signature`"), LLM_THINKING },
		{ SAID("invalid_request_error", "prompt is too long: 1 > 0"), LLM_TOO_LARGE },
		{ SAID("invalid_request_error", "Your credit balance is too low"), LLM_BILLING },
		{ SAID("billing_error", "x"), LLM_BILLING },
		{ SAID("not_found_error", "model: x"), LLM_BAD_MODEL },
		{ SAID("authentication_error", "x"), LLM_BAD_KEY },
		{ SAID("invalid_request_error", "x"), LLM_BAD_REQUEST },
	};
	struct ev *ev = NULL;

	CHECK_OK(ev_new(&ev));
	for (size_t i = 0; i < ARRAY_LEN(table) && ev; i++) {
		struct answer in = table[i].in;

		in.body = str_z(in.body.p);
		if (hear(ev, &in, &h) == OK && !FAULTED() &&
		    (h.class != table[i].class || h.retry_after_us != table[i].retry_after || h.usage_known)) {
			test_bad_at_(__FILE__, __LINE__, "a status");
			printf("  status %u: class %d, %lld\n", in.status, (int)h.class, (long long)h.retry_after_us);
		}
		heard_free(&h);
	}
	for (size_t i = 0; i < ARRAY_LEN(words) && ev; i++) {
		const struct answer in = { .status = 400, .body = str_z(words[i].said), .piece = 5 };

		if (hear(ev, &in, &h) == OK && !FAULTED() && h.class != words[i].class)
			test_bad_at_(__FILE__, __LINE__, words[i].said);
		heard_free(&h);
	}
	ev_free(ev);
}

/* The question itself: what stands in front never moves, what changes comes last. */
TEST(claude_request)
{
	static const struct llm_message m[] = { { "user", { "[1]", 3 }, false }, { "assistant", { "[ 2 ]", 5 }, false } };
	const struct llm_request r = { .reservation = 1, .model = "claude-x", .max_tokens = 9, .system = S("be \"x\""), .messages = m,
	    .n_messages = 2, .tools = S("[{}]") };
	struct body b;

	body_init(&b, 4096);
	if (write_body(&b, NULL, &r, false) == OK)
		CHECK_STR(buf_view(&b.text), "{\"model\":\"claude-x\",\"max_tokens\":9,\"stream\":true,"
		    "\"cache_control\":{\"type\":\"ephemeral\"},\"tools\":[{}],\"system\":[{\"type\":\"text\",\"text\":"
		    "\"be \\\"x\\\"\",\"cache_control\":{\"type\":\"ephemeral\"}}],\"messages\":[{\"role\":\"user\","
		    "\"content\":[1]},{\"role\":\"assistant\",\"content\":[ 2 ]}]}");
	body_free(&b);
}

/* Files become bytes while the request is sent; all else stays as it is stored. */
TEST(claude_request_with_files)
{
	char path[] = "/tmp/blufio-test-XXXXXX", content[512];
	int fd = mkstemp(path);
	struct llm_message m = { "user", STR_NONE, true };
	const struct llm_request r = { .reservation = 1, .model = "m", .max_tokens = 9, .messages = &m, .n_messages = 1 };
	struct buf all = BUF_INIT(4096);
	struct body b;
	char block[7];
	size_t n = 1;

	if (fd < 0 || fd_write_all(fd, "say \"hi\"\n", 9) != OK) {
		CHECK(FAULTED());
		goto out;
	}
	snprintf(content, sizeof(content), "[{\"type\":\"image\",\"source\":{\"type\":\"media\",\"media_type\":"
	    "\"image/png\",\"hash\":\"%s\"}}, {\"type\":\"document\",\"source\":{\"type\":\"media\",\"media_type\":"
	    "\"text/plain\",\"hash\":\"%s\"},\"title\":\"a\\\"b\"},{\"type\":\"text\",\"text\":\"what?\"}]", path, path);
	m.content = str_z(content);
	body_init(&b, 4096);
	if (write_body(&b, NULL, &r, false) == OK) {
		while (n && body_read(&b, block, sizeof(block), &n) == OK)
			buf_put(&all, block, n);
		CHECK(FAULTED() || body_size(&b) == all.n);
		if (!FAULTED())
			CHECK_STR(buf_view(&all), "{\"model\":\"m\",\"max_tokens\":9,\"stream\":true,\"cache_control\":"
			    "{\"type\":\"ephemeral\"},\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":"
			    "{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"c2F5ICJoaSIK\"}},{\"type\":\"document\","
			    "\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"say \\\"hi\\\"\\n\"},"
			    "\"title\":\"a\\\"b\"},{\"type\":\"text\",\"text\":\"what?\"}]}]}");
	}
	body_free(&b);
out:
	if (fd >= 0) {
		close(fd);
		(void)remove(path);
	}
	buf_free(&all);
}

/* The cancelled call of a provider: its exchange goes too. */
TEST(claude_cancel)
{
	static const struct llm_message m = { "user", { "[]", 2 }, false };
	const struct llm_request r = { .reservation = 1, .model = "claude-x", .messages = &m, .n_messages = 1 };
	struct fail f = FAIL_INIT;

	a = (struct agent){ .providers = { { .feature = &anthropic_feature } } };
	a.provider = a.providers;
	h = (struct heard){ .done = 0 };
	if (ev_new(&a.ev) == OK && ops.start(&a, "anthropic", &a.providers[0].self, &f) == OK) {
		if (llm_start(&a, &r, &sink, &h, &c) == OK) {
			llm_pause(c, true);
			CHECK(peer_fetch && peer_fetch->paused);
			llm_cancel(c, NULL);
			CHECK(peer_fetch == NULL);
		}
		/* freed with an exchange in flight: after message_stop nobody else knows of it */
		if (llm_start(&a, &r, &sink, &h, &c) == OK) {
			peer_fetch->cb.on_head(peer_fetch->arg, peer_fetch, 200);
			peer_fetch->cb.on_data(peer_fetch->arg, peer_fetch, S(START STOP("end_turn") END));
			llm_cancel(c, NULL);
			CHECK(peer_fetch != NULL);
		}
		ops.free(a.providers[0].self);
		CHECK(peer_fetch == NULL && h.done == 0);
	}
	buf_free(&peer_body);
	heard_free(&h);
	ev_free(a.ev);
}

/* ---- recorded streams ------------------------------------------------------------------------- */

static bool
is_tool(const struct heard *x)
{
	return str_find(buf_view(&x->content), S("\"tool_use\"")) != SIZE_MAX;
}

/* Whole, octet by octet, and cut off behind every event: only the whole one is an answer. */
static void
recorded(struct ev *ev, const char *name, struct str body)
{
	struct answer in = { .status = 200, .body = body };
	struct heard whole, other;
	size_t at = 0, n;

	CHECK_OK(hear(ev, &in, &whole));
	in.piece = 1;
	CHECK_OK(hear(ev, &in, &other));
	if (!FAULTED()) {
		if (whole.class != LLM_OK || other.class != LLM_OK)
			test_bad_at_(__FILE__, __LINE__, name);
		CHECK(str_eq(buf_view(&whole.content), buf_view(&other.content)));
		CHECK(str_eq(buf_view(&whole.text), buf_view(&other.text)) && whole.stop == other.stop);
		CHECK(whole.usage_known && whole.usage.input > 0);
		CHECK(is_tool(&whole) == (whole.stop == LLM_STOP_TOOLS));
		if (strstr(name, "refusal"))
			CHECK(whole.stop == LLM_STOP_REFUSAL);
		if (strstr(name, "incomplete"))
			CHECK(whole.stop == LLM_STOP_MAX_TOKENS && whole.text.n > 0);
	}
	heard_free(&other);
	in.piece = 0;
	while (!FAULTED() && (n = str_find(str_sub(body, at, body.n), S("\n\n"))) != SIZE_MAX) {
		at += n + 2;
		in.body = str_sub(body, 0, at);
		CHECK_OK(hear(ev, &in, &other));
		if (at < body.n && str_find(in.body, S("\"type\":\"message_stop\"")) == SIZE_MAX)
			CHECK(FAULTED() || other.class == LLM_RETRY);
		CHECK(FAULTED() || str_starts(buf_view(&whole.text), buf_view(&other.text)));
		heard_free(&other);
	}
	heard_free(&whole);
}

TEST(claude_recorded)
{
	const char *dir = test_data("anthropic");
	DIR *d = dir ? opendir(dir) : NULL;
	struct dirent *de;
	struct ev *ev = NULL;
	size_t n = 0;

	if (d == NULL) {
		SKIP("no recorded streams");
		return;
	}
	CHECK_OK(ev_new(&ev));
	while (ev && (de = readdir(d)) != NULL) {
		struct str name = str_z(de->d_name);
		struct buf body = BUF_INIT(1u << 20);
		struct fail f = FAIL_INIT;
		char path[1400];

		if (!str_ends(name, S(".txt")) && !str_ends(name, S(".sse")))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		CHECK_OK(file_read(path, 1u << 20, &body, &f));
		if (body.n && !str_ends(buf_view(&body), S("\n\n")))
			buf_puts(&body, "\n\n");        /* some lost their last newlines when they were kept */
		if (body.n && body.err == OK)
			recorded(ev, de->d_name, buf_view(&body));
		buf_free(&body);
		n++;
	}
	CHECK(FAULTED() || n > 0);
	closedir(d);
	ev_free(ev);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(blocks_in_order);
	RUN(left_out);
	RUN(tools_need_their_stop);
	RUN(wide_input);
	RUN(limits);
	RUN(usage);
	RUN(waits);
	RUN(scales);
	RUN(claude_stops);
	RUN(claude_server_blocks);
	RUN(claude_refusal);
	RUN(claude_refuses);
	RUN(claude_request);
	RUN(claude_request_with_files);
	RUN(claude_cancel);
	RUN(claude_recorded);
	log_close();
	return TEST_END();
}
