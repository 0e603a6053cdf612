/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_openai.c - whatever a server answers and however it is cut, the same is
 * made of it; what is kept for the history obeys the Messages API, and makes a
 * question that is JSON again; what it costs has a sum.
 *
 * The first byte says how long the pieces are, the second which status they have,
 * and whether it is a stream.
 */
#include "openai.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct ev *ev;

static void
end_of_run(void)
{
	ev_free(ev);
}

static void
must(bool true_always, const char *what)
{
	if (true_always)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

/* Every call is answered in the message behind it. */
static void
check_question(const struct llm_request *r)
{
	struct agent a = { .config = NULL };
	struct oa p = { .a = &a, .name = "host" };
	struct arena ar = ARENA_INIT(512u << 20);
	const struct json *q, *said = NULL;
	size_t open = 0;
	struct body b;

	body_init(&b, REQUEST_MAX);
	must(oa_question(&b, &p, server_of(NULL, S("host")), r) == OK, "no question");
	must(json_parse(&ar, buf_view(&b.text), &q, NULL) == OK, "a question that is no JSON");
	for (const struct json *m = json_at(q, "messages")->first; m; m = m->next) {
		if (str_eqz(json_str(m, "role", STR_NONE), "tool")) {
			const struct json *c = said->first;

			while (c && !str_eq(json_str(c, "id", STR_NONE), json_str(m, "tool_call_id", S("?"))))
				c = c->next;
			must(c != NULL && open-- > 0, "a result of no call");
			continue;
		}
		must(open == 0, "a call without a result");
		said = json_at(m, "tool_calls");
		open = said ? said->count : 0;
	}
	must(open == 0, "a call without a result at the end");
	body_free(&b);
	arena_free(&ar);
}

/* A kept answer stands in later requests, of this server and of others. */
static void
check_content(const struct heard *h)
{
	struct llm_message m[3] = { { .role = "user", .content = S("[{\"type\":\"text\",\"text\":\"q\"}]") },
	    { .role = "assistant", .content = buf_view(&h->content) }, { .role = "user" } };
	struct llm_request r = { .model = "host/m", .messages = m, .n_messages = 2 };
	struct arena ar = ARENA_INIT(512u << 20);
	struct buf results = BUF_INIT(REQUEST_MAX);
	const struct json *blocks;

	must(json_parse(&ar, m[1].content, &blocks, NULL) == OK && blocks->type == JSON_ARRAY, "not an array");
	for (const struct json *b = blocks->first; b; b = b->next)
		if (rules_type(b, "tool_use")) {
			must(h->stop == LLM_STOP_TOOLS, "a call that was not to be made");
			must(rules_count(blocks, "tool_use", "id", json_str(b, "id", STR_NONE)) == 1, "two calls of one id");
			buf_puts(&results, results.n ? "," : "[");
			buf_puts(&results, "{\"type\":\"tool_result\",\"tool_use_id\":");
			json_quote(&results, json_str(b, "id", STR_NONE));
			buf_puts(&results, ",\"content\":\"r\"}");
		} else {
			must(rules_type(b, "text") || h->stop == LLM_STOP_TOOLS, "thinking without a call");
		}
	buf_puts(&results, "]");
	m[2].content = buf_view(&results);
	r.n_messages = results.n > 1 ? 3 : 2;
	if (blocks->count) {
		must(rules_broken(&r) == NULL, rules_broken(&r));
		check_question(&r);
	}
	buf_free(&results);
	arena_free(&ar);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned statuses[] = { 200, 200, 200, 400, 401, 404, 429, 500 };
	static const char *const json[] = { "content-type", "application/json", "x-ratelimit-reset-tokens", "6m0s", NULL };
	const struct model_info m = { .in = 2000, .out = 10000, .read = 2000, .band_factor = 1 };
	struct answer in = { .status = 200 };
	struct heard all, cut;

	if (size < 2)
		return 0;
	if (ev == NULL && (log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL) != OK || ev_new(&ev) != OK ||
	    atexit(end_of_run) != 0))
		abort();
	in.status = statuses[data[1] % ARRAY_LEN(statuses)];
	in.broken = data[1] & 0x80;
	in.headers = data[1] & 0x40 ? json : NULL;
	in.body = str_make((const char *)data + 2, size - 2);
	openai_chance = 0;
	must(hear(ev, &in, &all) == OK && all.done == 1, "not done once");
	in.piece = data[0] % 17 + 1u;
	openai_chance = 0;
	must(hear(ev, &in, &cut) == OK && cut.done == 1, "not done once in pieces");
	must(all.class == cut.class && all.stop == cut.stop, "another end");
	must(str_eq(buf_view(&all.content), buf_view(&cut.content)), "another content");
	must(str_eq(buf_view(&all.text), buf_view(&cut.text)), "another text");
	must(memcmp(&all.usage, &cut.usage, sizeof(all.usage)) == 0, "another usage");
	must(in.status == 200 || all.class != LLM_OK, "an error taken for an answer");
	if (all.class == LLM_OK)
		check_content(&all);
	must(cost_of(&m, &all.usage) >= 0, "a negative cost");
	heard_free(&all);
	heard_free(&cut);
	return 0;
}
