/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_anthropic.c - whatever a server answers and however it is cut, the same is
 * made of it; what is kept for the history obeys the API; what it costs has a sum.
 *
 * The first byte says how long the pieces are, the second which status they have.
 */
#include "claude.h"
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

/* A kept answer stands in later requests: between a question and results it must be legal. */
static void
check_content(const struct heard *h)
{
	struct llm_message m[3] = { { .role = "user", .content = S("[{\"type\":\"text\",\"text\":\"q\"}]") },
	    { .role = "assistant", .content = buf_view(&h->content) }, { .role = "user" } };
	struct llm_request r = { .messages = m, .n_messages = 2 };
	struct arena ar = ARENA_INIT(512u << 20);
	struct buf results = BUF_INIT(REQUEST_MAX);
	const struct json *blocks;

	must(json_parse(&ar, m[1].content, &blocks, NULL) == OK && blocks->type == JSON_ARRAY, "not an array");
	for (const struct json *b = blocks->first; b; b = b->next)
		if (rules_type(b, "tool_use")) {
			must(h->stop == LLM_STOP_TOOLS, "a call that was not to be made");
			if (rules_count(blocks, "tool_use", "id", json_str(b, "id", STR_NONE)) > 1)
				goto out;       /* two calls of one id: the server's own mistake */
			buf_puts(&results, results.n ? "," : "[");
			buf_puts(&results, "{\"type\":\"tool_result\",\"tool_use_id\":");
			json_quote(&results, json_str(b, "id", STR_NONE));
			buf_puts(&results, "}");
		}
	buf_puts(&results, "]");
	m[2].content = buf_view(&results);
	r.n_messages = results.n > 1 ? 3 : 2;
	if (blocks->count)
		must(rules_broken(&r) == NULL, rules_broken(&r));
out:
	buf_free(&results);
	arena_free(&ar);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned statuses[] = { 200, 200, 200, 400, 401, 404, 429, 529 };
	struct answer in = { .status = 200 };
	struct heard whole, cut;
	const struct model_info *model = models;

	if (size < 2)
		return 0;
	if (ev == NULL && (log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL) != OK || ev_new(&ev) != OK ||
	    atexit(end_of_run) != 0))
		abort();
	in.status = statuses[data[1] % ARRAY_LEN(statuses)];
	in.broken = data[1] & 0x80;
	in.body = str_make((const char *)data + 2, size - 2);
	must(hear(ev, &in, &whole) == OK && whole.done == 1, "not done once");
	in.piece = data[0] % 17 + 1u;
	must(hear(ev, &in, &cut) == OK && cut.done == 1, "not done once in pieces");
	must(whole.class == cut.class && whole.stop == cut.stop, "another end");
	must(str_eq(buf_view(&whole.content), buf_view(&cut.content)), "another content");
	must(str_eq(buf_view(&whole.text), buf_view(&cut.text)), "another text");
	must(memcmp(&whole.usage, &cut.usage, sizeof(whole.usage)) == 0, "another usage");
	must(in.status == 200 || whole.class != LLM_OK, "an error taken for an answer");
	if (whole.class == LLM_OK)
		check_content(&whole);
	for (; model->id; model++)
		must(cost_of(model, &whole.usage) >= 0, "a negative cost");
	heard_free(&whole);
	heard_free(&cut);
	return 0;
}
