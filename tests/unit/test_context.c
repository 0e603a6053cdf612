/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_context.c - from rows to requests that the API accepts and that a prompt cache knows again. */
#include "scratch.h"
#include "test.h"

#define TEXT(t) "[{\"type\":\"text\",\"text\":\"" t "\"}]"
#define USE(id, input) "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"time_now\",\"input\":" input "}"
#define RESULT(id) "{\"type\":\"tool_result\",\"tool_use_id\":\"" id "\",\"content\":\"{}\"}"
#define THINKING "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"c2ln\"}"
#define REDACTED "{\"type\":\"redacted_thinking\",\"data\":\"eHl6\"}"

static const struct line { const char *role, *content; } day[] = {
	{ "user", TEXT("what time is it?") },
	{ "assistant", "[" THINKING ",{\"type\":\"text\",\"text\":\"I look.\"}," USE("t1", "{}") "," USE("t2",
	    "{ \"utc_offset_minutes\" : 60, \"note\":\"{\\\"type\\\":\\\"tool_result\\\"\" }") "]" },
	{ "user", "[" RESULT("t1") "," RESULT("t2") "]" },
	{ "assistant", "[" REDACTED "," USE("t3", "{}") "]" },
	{ "user", "[" RESULT("t3") "]" },
	{ "assistant", TEXT("noon \\u00e9\\/") },
	{ "user", TEXT("thanks") },
};

static struct scratch sc;
static struct session *s;

static enum err
begin(void)
{
	enum err e = scratch_begin(&sc, "", "echo");

	return e == OK ? scratch_session(&sc.a, "main", &s) : e;
}

static enum err
add(const char *role, const char *content)
{
	return store_message_add(sc.a.db, s->id, s->next_seq++, 1, role, str_z(content));
}

static enum err
add_day(void)
{
	enum err e = OK;

	for (size_t i = 0; i < ARRAY_LEN(day) && e == OK; i++)
		e = add(day[i].role, day[i].content);
	return e;
}

static enum err
render(bool drop_thinking, struct context *c)
{
	return context_render(&sc.a, s->id, &sc.a.provider->feature->provider->models[0], drop_thinking, c, NULL);
}

/* Renders, and says when that is not a request. Absent rows may leave nothing to send. */
static size_t
check_rules(int line, bool drop_thinking)
{
	struct context c;
	const char *why;
	size_t n;
	enum err e = render(drop_thinking, &c);

	if (e != OK) {
		if (e != ERR_NOTFOUND)
			test_bad_at_(__FILE__, line, err_str(e));
		return 0;
	}
	why = rules_broken(&c.request);
	if (why)
		test_bad_at_(__FILE__, line, why);
	n = c.request.n_messages;
	context_free(&c);
	return n;
}
#define CHECK_RULES(drop) check_rules(__LINE__, drop)

/* An undamaged history is sent as it is stored, and each request begins with the one before. */
TEST(whole)
{
	struct context c;

	CHECK_OK(begin());
	for (size_t i = 0; i < ARRAY_LEN(day) && !FAULTED(); i++) {
		CHECK_OK(add(day[i].role, day[i].content));
		if (i % 2 || FAULTED())
			continue;
		if (render(false, &c) != OK) {
			CHECK(FAULTED());
			continue;
		}
		CHECK(c.request.n_messages == i + 1);
		for (size_t k = 0; k <= i && k < c.request.n_messages; k++) {
			CHECK(strcmp(c.request.messages[k].role, day[k].role) == 0);
			CHECK_STR(c.request.messages[k].content, day[k].content);
		}
		CHECK(rules_broken(&c.request) == NULL);
		CHECK(str_eq(c.request.tools, bus_tools_json(&sc.a)) && c.request.max_tokens == 8192);
		CHECK(c.estimated_input > 0 && strcmp(c.request.model, "echo") == 0);
		context_free(&c);
	}
	scratch_end(&sc);
}

/* The prompt that a history began with goes with it; /new begins after the last row. */
TEST(prompt_and_new_history)
{
	struct context c;

	CHECK_OK(begin());
	if (!FAULTED() && add_day() == OK && store_session_set_prompt(sc.a.db, s->id, S("Be \"terse\".")) == OK &&
	    render(false, &c) == OK) {
		CHECK_STR(c.request.system, "Be \"terse\".");
		context_free(&c);
		s->history_seq = s->next_seq;
		CHECK_ERR(render(false, &c), ERR_NOTFOUND);
		CHECK_ERR(context_render(&sc.a, 999, &sc.a.provider->feature->provider->models[0], false, &c, NULL), ERR_NOTFOUND);
		CHECK_OK(add("user", TEXT("anew")));
		CHECK(FAULTED() || CHECK_RULES(false) == 1);
	}
	scratch_end(&sc);
}

/* Before thinking_seq the thinking goes, every other byte stays. */
TEST(thinking)
{
	struct context c;

	CHECK_OK(begin());
	if (!FAULTED() && add_day() == OK) {
		s->thinking_seq = 3;
		if (render(false, &c) == OK) {
			CHECK(c.request.n_messages == ARRAY_LEN(day));
			CHECK(str_find(c.request.messages[1].content, S("thinking")) == SIZE_MAX);
			CHECK(str_find(c.request.messages[1].content, S("{ \"utc_offset_minutes\" : 60")) != SIZE_MAX);
			CHECK_STR(c.request.messages[3].content, day[3].content);
			context_free(&c);
		}
		if (render(true, &c) == OK) {
			CHECK_STR(c.request.messages[3].content, "[" USE("t3", "{}") "]");
			CHECK(rules_broken(&c.request) == NULL);
			context_free(&c);
		}
	}
	if (!FAULTED() && add("assistant", "[" THINKING "]") == OK && add("user", TEXT("and?")) == OK) {
		/* nothing but thinking: the row is left out as a whole */
		CHECK(FAULTED() || CHECK_RULES(true) == ARRAY_LEN(day) + 1);
		CHECK(FAULTED() || CHECK_RULES(false) == ARRAY_LEN(day) + 2);
	}
	scratch_end(&sc);
}

/* Whatever rows are missing, what is left is a request or nothing. */
TEST(subsets)
{
	/* with faults each allocation is a run: fewer subsets then */
	size_t step = getenv("FAULT_AT") || getenv("FAULT_VERBOSE") ? 37 : 1, max = 0;

	CHECK_OK(begin());
	if (!FAULTED() && add_day() == OK && db_commit(sc.a.db) == OK)
		for (size_t mask = 0; mask < 1u << ARRAY_LEN(day) && !FAULTED(); mask += step) {
			size_t n;

			for (size_t i = 0; i < ARRAY_LEN(day); i++)
				if (!(mask >> i & 1))
					CHECK_OK(DB_EXEC(sc.a.db, "DELETE FROM messages WHERE seq = ?1", DBI(i + 1)));
			n = CHECK_RULES(false);
			max = n > max ? n : max;
			CHECK_RULES(true);
			db_rollback(sc.a.db);
		}
	CHECK(FAULTED() || step > 1 || max >= ARRAY_LEN(day));
	scratch_end(&sc);
}

/* What a stop leaves behind: calls nobody answered, in the middle and at the end. */
TEST(unanswered)
{
	struct context c;

	CHECK_OK(begin());
	if (!FAULTED() && add("user", TEXT("go")) == OK &&
	    add("assistant", "[" USE("a", "{}") "," USE("b", "{}") "]") == OK &&
	    add("user", "[" RESULT("b") "]") == OK && add("assistant", "[" USE("c", "{}") "]") == OK &&
	    render(false, &c) == OK) {
		CHECK(c.request.n_messages == 5 && rules_broken(&c.request) == NULL);
		if (c.request.n_messages == 5)
			CHECK_STR(c.request.messages[2].content, "[{\"type\":\"tool_result\",\"tool_use_id\":\"a\","
			    "\"content\":\"interrupted: no result was recorded\",\"is_error\":true}," RESULT("b") "]");
		context_free(&c);
	}
	if (!FAULTED() && add("user", TEXT("still there?")) == OK && add("user", "[" RESULT("c") "]") == OK &&
	    render(false, &c) == OK) {
		CHECK(c.request.n_messages == 5 && rules_broken(&c.request) == NULL);   /* the late one answers nothing */
		context_free(&c);
	}
	scratch_end(&sc);
}

/* A model may well call a tool with a long list of numbers: short values, many nodes. */
TEST(wide_input)
{
	struct buf b = BUF_INIT(1u << 20);

	buf_puts(&b, "[" THINKING ",{\"type\":\"tool_use\",\"id\":\"w\",\"name\":\"x\",\"input\":{\"n\":[0");
	for (int i = 0; i < 40000; i++)
		buf_puts(&b, ",0");
	buf_puts(&b, "]}}]");
	CHECK_OK(begin());
	if (!FAULTED() && b.err == OK && add("user", TEXT("go")) == OK && add("assistant", b.p) == OK) {
		CHECK(FAULTED() || CHECK_RULES(false) == 3);
		CHECK(FAULTED() || CHECK_RULES(true) == 3);
		CHECK_OK(add("user", "[" RESULT("w") "]"));
		CHECK(FAULTED() || CHECK_RULES(true) == 3);
	}
	scratch_end(&sc);
	buf_free(&b);
}

/* More rows than one request may have: the oldest stay out, whatever they cut apart. */
TEST(too_many_rows)
{
	struct context c;
	enum err e = begin();
	bool few = getenv("FAULT_AT") || getenv("FAULT_VERBOSE");

	CHECK_OK(e);
	for (int i = 0; i < HISTORY_MESSAGES_MAX / 2 + 3 && e == OK && !few; i++) {
		e = add("assistant", "[" USE("t", "{}") "]");
		if (e == OK)
			e = add("user", "[" RESULT("t") "]");
	}
	if (e == OK && !few)
		e = add("user", TEXT("enough"));
	if (e == OK && !few) {
		/* begins with "user": the cut left an orphaned result in front of its first assistant */
		CHECK_ERR(render(false, &c), OK);
		CHECK(rules_broken(&c.request) == NULL && c.request.n_messages <= HISTORY_MESSAGES_MAX);
		context_free(&c);
	}
	scratch_end(&sc);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(whole);
	RUN(prompt_and_new_history);
	RUN(thinking);
	RUN(subsets);
	RUN(unanswered);
	RUN(wide_input);
	RUN(too_many_rows);
	return TEST_END();
}
