/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fuzz_context.c - whatever rows a conversation is left with, in whatever order,
 * the request made of them obeys the API, or there is none; and so does the one
 * made of what is left when they are condensed, once and again.
 *
 * Each byte of the input is a row (or drops the one before it); the first says
 * from which row on thinking stays. One database serves all inputs: an input is
 * a transaction that is rolled back.
 */
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROWS_MAX 64

static struct scratch sc;
static struct session *s;

static void
end(void)
{
	scratch_end(&sc);
}

static void
begin(void)
{
	log_set_level(LOG_ERROR);
	if (scratch_begin(&sc, "[context]\nbudget = 4000\n", "echo") != OK || scratch_session(&sc.a, "main", &s) != OK ||
	    db_commit(sc.a.db) != OK || atexit(end) != 0)
		abort();
}

static void
comma(struct buf *b)
{
	if (b->n > 1)
		buf_putc(b, ',');
}

/* An assistant's row: thinking, text and up to three calls, numbered by *calls. */
static void
assistant(struct buf *b, unsigned bits, unsigned *calls)
{
	if (bits & 1) {
		comma(b);
		buf_puts(b, bits & 2 ? "{\"type\":\"redacted_thinking\",\"data\":\"eA\"}" :
		    "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"c\"}");
	}
	if (bits & 4) {
		comma(b);
		buf_puts(b, "{\"type\":\"text\",\"text\":\"{\\\"type\\\":\\\"tool_use\\\"\"}");
	}
	for (unsigned n = bits >> 3 & 3; n; n--) {
		comma(b);
		buf_fmt(b, "{\"type\":\"tool_use\",\"id\":\"t%u\",\"name\":\"x\",\"input\":{\"x\":"
		    "{\"type\":\"tool_result\",\"tool_use_id\":\"t%u\"}}}", *calls, *calls);
		++*calls;
	}
	if (b->n == 1)
		buf_puts(b, "{\"type\":\"text\",\"text\":\"-\"}");
}

/* A user's row: results of some of the newest four calls, or text. */
static void
user(struct buf *b, unsigned bits, unsigned calls)
{
	for (unsigned i = 0; i < 4 && i < calls; i++)
		if (bits >> i & 1) {
			comma(b);
			buf_fmt(b, "{\"type\":\"tool_result\",\"tool_use_id\":\"t%u\",\"content\":\"%0*d\"}", calls - 1 - i,
			    i & 1 ? 900 : 1, 0);        /* some fill the window */
		}
	if (b->n == 1 || bits & 16) {
		comma(b);
		buf_puts(b, "{\"type\":\"text\",\"text\":\"hello\"}");
	}
}

static void
render(bool drop_thinking, bool system_turns)
{
	struct model_info m = sc.a.provider->feature->provider->models[0];
	struct context c;
	enum err e;
	const char *why;

	m.flags |= system_turns ? MODEL_SYSTEM_TURNS : 0;
	e = context_render(&sc.a, s->id, &m, drop_thinking, &c, NULL);
	if (e != OK && e != ERR_NOTFOUND)
		abort();
	if (e != OK)
		return;
	why = rules_broken(&c.request);
	if (why) {
		fprintf(stderr, "%s\n", why);
		for (size_t i = 0; i < c.request.n_messages; i++)
			fprintf(stderr, "%s %.*s\n", c.request.messages[i].role, STR_ARG(c.request.messages[i].content));
		abort();
	}
	for (size_t i = 0; !system_turns && i < c.request.n_messages; i++)
		if (c.request.messages[i].role[0] == 's')
			abort();
	for (size_t i = 0; drop_thinking && i < c.request.n_messages; i++)
		if (str_find(c.request.messages[i].content, S("\"signature\"")) != SIZE_MAX)
			abort();
	context_free(&c);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf b = BUF_INIT(1u << 16);
	unsigned calls = 0;

	if (s == NULL)
		begin();
	s->thinking_seq = size ? data[0] % ROWS_MAX : 0;
	for (size_t i = 1; i < size && i <= ROWS_MAX; i++) {
		unsigned bits = data[i];

		if (bits >= 0xC0) {             /* the row before is lost */
			if (DB_EXEC(sc.a.db, "DELETE FROM messages WHERE seq = ?1", DBI(i - 1)) != OK)
				abort();
			continue;
		}
		if (bits >= 0xB0) {
			if (store_message_add(sc.a.db, s->id, (int64_t)i, 1, "system", S("\"note\"")) != OK)
				abort();
			continue;
		}
		buf_reset(&b);
		buf_putc(&b, '[');
		if (bits & 0x20)
			user(&b, bits & 0x1F, calls);
		else
			assistant(&b, bits & 0x1F, &calls);
		buf_putc(&b, ']');
		if (store_message_add(sc.a.db, s->id, (int64_t)i, 1, bits & 0x20 ? "user" : "assistant",
		    buf_view(&b)) != OK)
			abort();
	}
	render(false, false);
	render(true, true);
	s->next_seq = ROWS_MAX + 1;
	for (int i = 0; i < 2; i++) {
		int64_t from = s->history_seq;
		bool done = compact_now(s, &sc.a.provider->feature->provider->models[0], 1 << 30);

		if (done != (s->history_seq > from) || sc.a.write_failed)
			abort();
		s->thinking_seq = s->history_seq;
		render(false, true);
	}
	s->history_seq = 0;
	db_rollback(sc.a.db);
	buf_free(&b);
	return 0;
}
