/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * echo.c - the offline provider: repeats the newest user text, word by word.
 *
 * It exists so that the whole agent (channels, turns, storage, streaming) can be
 * tried and measured without a key or a network. It never answers in place of a
 * configured provider: it is used only when `providers.default = "echo"` says so,
 * or by `blufio shell` when nothing is configured at all, which labels it.
 */
#include "blufio.h"

struct echo { struct agent *a; };
struct echo_op {
	struct echo *owner;
	struct llm_call *call;
	struct buf text;
	struct ev_defer step;
	struct usage usage;
};

static void
op_free(struct echo_op *op)
{
	ev_defer_cancel(&op->step);
	buf_free(&op->text);
	free(op);
}

static void
answer(void *arg)
{
	struct echo_op *op = arg;
	struct llm_call *call = op->call;
	struct str rest = buf_view(&op->text), word;

	llm_feed_usage(call, &op->usage, true);
	llm_feed_block(call, 0, S("text"), STR_NONE, STR_NONE, STR_NONE);
	while (rest.n > 0) {            /* a word a delta, so that streaming is real */
		size_t n = str_chr(rest, ' ');

		word = n == SIZE_MAX ? rest : str_sub(rest, 0, n + 1);
		rest = str_sub(rest, word.n, rest.n);
		llm_feed_text(call, 0, word);
	}
	llm_feed_block_end(call, 0);
	llm_feed_stop(call, LLM_STOP_END, STR_NONE);
	op_free(op);
	llm_feed_end(call, LLM_OK, 200, -1, STR_NONE, STR_NONE);
}

/* The text blocks of the newest user message, and a word for each file. */
static void
newest_text(const struct llm_request *r, struct buf *out)
{
	struct arena ar = ARENA_INIT(REQUEST_MAX);
	const struct json *blocks;

	if (r->n_messages > 0 &&
	    json_parse(&ar, r->messages[r->n_messages - 1].content, &blocks, NULL) == OK)
		for (const struct json *b = blocks->first; b; b = b->next) {
			if (json_at(b, "source"))
				buf_fmt(out, "(%.*s) ", STR_ARG(json_str(b, "type", STR_NONE)));
			buf_str(out, json_str(b, "text", STR_NONE));
		}
	arena_free(&ar);
}

static enum err
echo_call(void *self, const struct llm_request *r, struct llm_call *call, void **out)
{
	struct echo *ec = self;
	struct echo_op *op = calloc(1, sizeof(*op));

	if (op == NULL)
		return ERR_NOMEM;
	op->owner = ec;
	op->call = call;
	buf_init(&op->text, REPLY_MAX);
	buf_puts(&op->text, "[offline echo] ");
	newest_text(r, &op->text);
	if (op->text.err != OK) {
		enum err e = op->text.err;

		op_free(op);
		return e;
	}
	for (size_t i = 0; i < r->n_messages; i++)
		op->usage.input += (int64_t)(r->messages[i].content.n / 4);
	op->usage.output = (int64_t)(op->text.n / 4 + 1);
	ev_defer_init(&op->step, answer, op);
	ev_defer(ec->a->ev, &op->step);
	*out = op;
	return OK;
}

static void
echo_cancel(void *op)
{
	op_free(op);
}

static void
echo_pause(void *op, bool paused)
{
	(void)op;
	(void)paused;                   /* the whole answer is one step */
}

static bool
echo_configured(const struct config *c, struct fail *why)
{
	(void)c;
	(void)why;
	return true;
}

static enum err
echo_start(struct agent *a, const char *name, void **self, struct fail *f)
{
	struct echo *ec = calloc(1, sizeof(*ec));

	if (ec == NULL)
		return fail_set(f, ERR_NOMEM, "echo: out of memory");
	(void)name;
	ec->a = a;
	*self = ec;
	return OK;
}

static void
echo_free(void *self)
{
	free(self);
}

static const struct model_info models[] = {
	{ .id = "echo", .window = 1000000, .max_output = 1000000, .images_max = 600, .flags = MODEL_PDF },
	{ .id = NULL },
};

static const struct provider_ops ops = {
	.models = models,
	.configured = echo_configured,
	.start = echo_start,
	.free = echo_free,
	.call = echo_call,
	.cancel = echo_cancel,
	.pause = echo_pause,
	.offline = true,
};

const struct feature echo_feature = {
	.name = "echo",
	.kind = FEATURE_PROVIDER,
	.summary = "offline provider that repeats what you say",
	.provider = &ops,
};
