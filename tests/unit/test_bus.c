/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_bus.c - capabilities: which there are, what they accept, how a call ends.
 *
 * The registry is made of the build's table of features; this file brings a
 * table of its own, and bus.c with it.
 */
#define features test_features
#define turn_log t_turn_log
#include "core/bus.c"

#include "scratch.h"
#include "test.h"

/* ---- capabilities of the test, and a call of one ----------------------------------------- */

void t_turn_log(struct agent *a, int64_t id) { (void)a; (void)id; }

static struct invocation *held;         /* by "test.hold" */
static int ran;

static void
run_echo(struct invocation *inv, const struct json *input)
{
	struct str out = json_str(input, "out", S("{}"));

	ran++;
	invocation_done(inv, OK, out);
	invocation_done(inv, ERR_IO, S("a second end is none"));
}

static void
run_hold(struct invocation *inv, const struct json *input)
{
	(void)input;
	held = inv;
}

static void
run_large(struct invocation *inv, const struct json *input)
{
	static char big[TOOL_RESULT_MAX + 1];

	(void)input;
	memset(big, '1', sizeof(big));
	invocation_done(inv, OK, str_make(big, sizeof(big)));
}

static void
run_wide(struct invocation *inv, const struct json *input)
{
	struct buf b = BUF_INIT(TOOL_RESULT_MAX);

	(void)input;
	buf_puts(&b, "[0");
	while (b.n < TOOL_RESULT_MAX - 2 && b.err == OK)
		buf_puts(&b, ",0");
	buf_putc(&b, ']');
	invocation_done(inv, b.err, buf_view(&b));
	buf_free(&b);
}

#define ANY "{}"
static const struct capability caps[] = {
	{ "test.wide", "d", ANY, ANY, US_PER_S, CAP_HARMLESS, run_wide },
	{ "test.echo", "says \"out\"", "{\"type\":\"object\",\"properties\":{"
	    "\"n\":{\"type\":\"integer\",\"minimum\":-2,\"maximum\":3},\"s\":{\"type\":\"string\",\"maxLength\":3},"
	    "\"e\":{\"type\":\"string\",\"enum\":[\"a\",\"b\"]},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}},"
	    "\"o\":{\"type\":\"object\",\"required\":[\"x\"]},\"z\":{\"type\":\"null\"},\"f\":{\"type\":\"number\"},"
	    "\"out\":{\"type\":\"string\"}},\"required\":[\"n\"],\"additionalProperties\":false}",
	    "{\"type\":\"object\",\"properties\":{\"ok\":{\"type\":\"boolean\"}}}", US_PER_S, CAP_HARMLESS, run_echo },
	{ "test.hold", "d", ANY, NULL, 3000, CAP_HARMLESS, run_hold },
	{ "test.harm", "d", ANY, NULL, US_PER_S, 0, run_hold },
	{ "test.large", "d", ANY, NULL, US_PER_S, CAP_HARMLESS, run_large },
	{ .id = NULL },
};
static const struct feature test_feature = { .name = "test", .kind = FEATURE_TOOL, .capabilities = caps };
extern const struct feature basic_feature, echo_feature, sqlite_feature;
const struct feature *const features[] = { &test_feature, &echo_feature, &basic_feature, &sqlite_feature, NULL };

struct result {
	int n;
	enum err err;
	struct buf out;
};

static void
on_result(void *arg, struct invocation *inv, enum err err, struct str output)
{
	struct result *r = arg;

	(void)inv;
	r->n++;
	r->err = err;
	buf_reset(&r->out);
	buf_str(&r->out, output);
}

static struct scratch sc;
static struct result got;

static bool
begin(void)
{
	enum err e = scratch_begin(&sc, "", "echo");

	held = NULL;
	ran = 0;
	got = (struct result){ .out = BUF_INIT(TOOL_RESULT_MAX) };
	CHECK_OK(e);
	return e == OK;
}

static void
end(void)
{
	scratch_end(&sc);
	buf_free(&got.out);
}

/* Calls and turns the loop until the result is there. */
static enum err
call(const char *id, const char *input)
{
	struct invocation *inv;
	enum err e;
	int n = got.n;

	e = bus_invoke(&sc.a, str_z(id), str_z(input), 7, 8, on_result, &got, &inv);
	if (e != OK)
		return e;
	CHECK(got.n == n);              /* never from inside the call */
	for (int i = 0; i < 1000 && got.n == n; i++)
		if (ev_once(sc.a.ev, US_PER_S) != OK && FAULTED())
			break;
	CHECK(got.n == n + 1);
	return OK;
}

TEST(registry)
{
	struct str tools;
	struct scratch other;

	if (begin()) {
		tools = bus_tools_json(&sc.a);
		CHECK(str_starts(tools, S("[{\"name\":\"session_info\",\"description\":\"Facts about")));
		CHECK(str_find(tools, S("\"name\":\"text_count\"")) > str_find(tools, S("\"name\":\"test_wide\"")));
		CHECK(str_find(tools, S("{\"name\":\"test_hold\",\"description\":\"d\",\"input_schema\":{}},"
		    "{\"name\":\"test_large\"")) != SIZE_MAX);
		CHECK(bus_find(&sc.a, S("time.now")) == bus_find(&sc.a, S("time_now")));
		CHECK(bus_find(&sc.a, S("time.now")) != NULL && !bus_find(&sc.a, S("time-now")));
		CHECK(!bus_find(&sc.a, S("time.no")) && !bus_find(&sc.a, STR_NONE) && !bus_find(&sc.a, S("time\0now")));
		/* the same bytes in every process: they stand at the front of every prompt cache */
		if (scratch_begin(&other, "", "echo") == OK)
			CHECK(str_eq(tools, bus_tools_json(&other.a)));
		scratch_end(&other);
	}
	end();
}

TEST(refused_at_once)
{
	struct invocation *inv;

	if (begin()) {
		CHECK_ERR(bus_invoke(&sc.a, S("no.such"), S("{}"), 1, 1, on_result, &got, &inv), ERR_NOTFOUND);
		CHECK_ERR(bus_invoke(&sc.a, S("test_harm"), S("{}"), 1, 1, on_result, &got, &inv), ERR_DENIED);
		CHECK(got.n == 0 && sc.a.bus->running == NULL);
	}
	end();
}

TEST(inputs)
{
	static const struct { const char *input, *says; } table[] = {
		{ "{\"n\":3}", NULL }, { "{\"n\":-2.0}", NULL }, { "{\"n\":0,\"s\":\"abc\",\"e\":\"b\",\"l\":[true,false],"
		    "\"o\":{\"x\":1,\"y\":2},\"z\":null,\"f\":1.5}", NULL },
		{ "{}", "input: \"n\" is missing" }, { "{\"n\":\"1\"}", "n must be of type integer" },
		{ "{\"n\":1.5}", "n must be of type integer" }, { "{\"n\":4}", "n is out of range" },
		{ "{\"n\":-3}", "n is out of range" }, { "{\"n\":0,\"s\":\"abcd\"}", "s is too long" },
		{ "{\"n\":0,\"e\":\"c\"}", "e is not one of the allowed values" },
		{ "{\"n\":0,\"e\":1}", "e must be of type string" }, { "{\"n\":0,\"l\":[true,0]}", "l must be of type boolean" },
		{ "{\"n\":0,\"l\":{}}", "l must be of type array" }, { "{\"n\":0,\"o\":{}}", "o: \"x\" is missing" },
		{ "{\"n\":0,\"z\":0}", "z must be of type null" }, { "{\"n\":0,\"f\":\"1\"}", "f must be of type number" },
		{ "{\"n\":0,\"q\":0}", "input: \"q\" is not a known member" }, { "[]", "input must be of type object" },
		{ "{\"n\":", "the input is not a JSON object" }, { "", "the input is not a JSON object" },
	};

	if (begin())
		for (size_t i = 0; i < ARRAY_LEN(table) && call("test.echo", table[i].input) == OK && !FAULTED(); i++) {
			CHECK((got.err == OK) == (table[i].says == NULL));
			if (table[i].says)
				CHECK(got.err == ERR_PARSE && strstr(buf_z(&got.out), table[i].says));
			if (table[i].says && !strstr(buf_z(&got.out), table[i].says))
				printf("  got: %s\n  want: %s\n", buf_z(&got.out), table[i].says);
		}
	CHECK(FAULTED() || ran == 3);
	end();
}

TEST(outputs)
{
	if (begin()) {
		if (call("test_echo", "{\"n\":0,\"out\":\"{\\\"ok\\\":true}\"}") == OK && !FAULTED())
			CHECK(got.err == OK && str_eqz(buf_view(&got.out), "{\"ok\":true}"));
		if (call("test_echo", "{\"n\":0,\"out\":\"{\\\"ok\\\":1}\"}") == OK && !FAULTED())
			CHECK(got.err == ERR_PROTO && strstr(buf_z(&got.out), "against its own schema: ok must be"));
		if (call("test_echo", "{\"n\":0,\"out\":\"no JSON\"}") == OK && !FAULTED())
			CHECK(got.err == ERR_PROTO);
		if (call("test.large", "{}") == OK && !FAULTED())
			CHECK(got.err == ERR_LIMIT && str_eqz(buf_view(&got.out), "the result is too large"));
		/* as large as it may be, of the smallest values there are */
		if (call("test.wide", "{}") == OK && !FAULTED())
			CHECK(got.err == OK && got.out.n > TOOL_RESULT_MAX - 4);
		if (call("time_now", "{\"utc_offset_minutes\":60}") == OK && !FAULTED())
			CHECK(got.err == OK && strstr(buf_z(&got.out), "\"weekday\""));
		if (call("text_count", "{\"text\":\"one two\\u00a0three\\n\"}") == OK && !FAULTED())
			CHECK_STR(buf_view(&got.out), "{\"characters\":14,\"words\":3,\"lines\":1,\"bytes\":15}");
	}
	end();
}

/* A list of numbers as long as an input may be is an input, too. */
TEST(wide_input)
{
	struct buf b = BUF_INIT(1u << 20);

	buf_puts(&b, "{\"n\":1,\"l\":[true");
	for (int i = 0; i < 200; i++)
		buf_puts(&b, ",true,true,true,true,true,true,true,true,true,true");
	buf_puts(&b, "]}");
	if (begin() && b.err == OK && call("test_echo", buf_z(&b)) == OK && !FAULTED())
		CHECK(got.err == OK);
	buf_cut(&b, 0);
	for (int i = 0; i < 60000; i++)
		buf_puts(&b, i ? ",0" : "[0");
	buf_puts(&b, "]");
	if (!FAULTED() && b.err == OK && call("test.hold", buf_z(&b)) == OK)
		CHECK(got.err == ERR_TIMEOUT);  /* it was started */
	end();
	buf_free(&b);
}

TEST(ends)
{
	struct invocation *inv;

	if (begin()) {
		if (call("test.hold", "{}") == OK && !FAULTED())
			CHECK(got.err == ERR_TIMEOUT && strstr(buf_z(&got.out), "deadline"));
		got.n = 0;
		/* cancelled before it began, while it runs, and when it has just ended */
		if (bus_invoke(&sc.a, S("test.hold"), S("{}"), 1, 1, on_result, &got, &inv) == OK)
			invocation_cancel(inv);
		held = NULL;
		if (bus_invoke(&sc.a, S("test.hold"), S("{}"), 1, 1, on_result, &got, &inv) == OK) {
			if (ev_once(sc.a.ev, 0) == OK && !FAULTED()) {
				CHECK(held == inv && invocation_agent(inv) == &sc.a && invocation_session(inv) == 1);
				invocation_done(inv, OK, S("{}"));
			}
			if (got.n == 0)
				invocation_cancel(inv);
		}
		invocation_cancel(NULL);
		IGNORE(ev_once(sc.a.ev, 0));    /* a fault may have met it */
		IGNORE(ev_once(sc.a.ev, 5000));
		CHECK(got.n == 0 && sc.a.bus->running == NULL);
		/* one that still runs at the end goes with the bus */
		if (bus_invoke(&sc.a, S("test.hold"), S("{}"), 1, 1, on_result, &got, &inv) == OK)
			IGNORE(ev_once(sc.a.ev, 0));
	}
	end();
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(registry);
	RUN(refused_at_once);
	RUN(inputs);
	RUN(outputs);
	RUN(wide_input);
	RUN(ends);
	log_close();
	return TEST_END();
}
