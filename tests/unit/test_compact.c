/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_compact.c - what is found in a long conversation and must not be lost; and histories of every shape that are
 * condensed: valid, smaller, whole where they have to be.
 */
#include "scratch.h"
#include "test.h"

#define PLANTS_MAX 128
#define PLANTED 30

/* ---- facts among filler: tests/data/plants.tsv ----------------------------------------------- */

static struct plant { struct str who, keys, text; bool held; int missed; } plants[PLANTS_MAX];
static size_t n_plants;
static struct buf file = BUF_INIT(1u << 20);

static enum err
read_plants(void)
{
	struct fail f = FAIL_INIT;
	enum err e = file_read("tests/data/plants.tsv", 1u << 20, &file, &f);
	struct str rest = buf_view(&file), line, kind;

	n_plants = 0;
	for (size_t number = 1; e == OK && rest.n && n_plants < PLANTS_MAX; number++) {
		struct plant *p = &plants[n_plants];

		(void)str_cut(&rest, '\n', &line);
		if (line.n == 0 || line.p[0] == '#')
			continue;
		(void)str_cut(&line, '\t', &kind);
		(void)str_cut(&line, '\t', &p->who);
		(void)str_cut(&line, '\t', &p->keys);
		p->text = line;
		p->held = number % 3 == 0;
		p->missed = 0;
		n_plants++;
	}
	return e;
}

static bool
has_keys(struct str text, struct str keys)
{
	struct str key;

	while (keys.n) {
		(void)str_cut(&keys, '|', &key);
		if (str_find(text, key) == SIZE_MAX)
			return false;
	}
	return true;
}

static uint32_t seed;

static unsigned
chance(unsigned n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static const char *
pick(const char *const *words, size_t n)
{
	return words[chance((unsigned)n)];
}
#define PICK(words) pick(words, ARRAY_LEN(words))

/* What is said all day and need not be kept. */
static void
small_talk(struct buf *b, bool user)
{
	static const char *const topics[] = { "bread", "the weather", "old films", "gardens", "the sea", "trains", "music", "tea",
	    "cooking", "mountains", "cats", "sleep", "rain", "summer", "books", "walking" };
	static const char *const asks[] = { "Tell me something about %s and %s.", "What do people say about %s or %s?",
	    "Erzähl mir etwas über %s und %s.", "Is there a link between %s and %s?", "Parle-moi de %s et de %s." };
	static const char *const tells[] = { "Many people enjoy %s as much as %s.", "There is a lot to say about %s, and about %s too.",
	    "It is often said that %s goes well with %s.", "Some like %s, others would rather have %s.",
	    "A good way to think about %s is to compare it with %s." };
	char text[256];
	int lines = user ? 1 : 3 + (int)chance(5);

	for (int i = 0; i < lines; i++) {
		const char *one = PICK(topics), *two = PICK(topics);
		size_t k = chance((unsigned)ARRAY_LEN(asks)), n = 0;

		for (const char *p = user ? asks[k] : tells[k]; *p && n < sizeof(text) - 40; p++)
			if (p[0] == '%') {
				n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", one);
				one = two;
				p++;
			} else {
				text[n++] = *p;
			}
		buf_fmt(b, "%s%.*s", i ? " " : "", (int)n, text);
	}
}

static void
dry_facts(struct buf *b)
{
	static const char *const towns[] = { "Ashby", "Corvan", "Delmont", "Everly", "Fanwick", "Garlow", "Hestead" };
	static const char *const things[] = { "bridge", "harbour", "theatre", "town hall", "railway", "library" };

	for (int i = 0; i < 4; i++)
		buf_fmt(b, "%sIn %u the people of %s built a %s with %u rooms.", i ? " " : "", 1700 + chance(200), PICK(towns), PICK(things),
		    10 + chance(90));
}

static void
filler(struct buf *b, unsigned kind, unsigned i)
{
	static const char *const own[] = { "coffee", "garden", "bicycle", "sister", "office", "window", "kitchen", "shoes" };
	static const char *const states[] = { "cold", "broken", "green", "quiet", "better", "small", "heavy", "empty" };

	buf_puts(b, FACTS_USER);
	switch (kind) {
	case 0:
		small_talk(b, true);
		buf_puts(b, "\n" FACTS_ASSISTANT);
		small_talk(b, false);
		break;
	case 1:
		buf_puts(b, "Go on with the story of those towns.\n" FACTS_ASSISTANT);
		dry_facts(b);
		break;
	case 2:
		buf_fmt(b, "This is message number %u of the test, please confirm.\n" FACTS_ASSISTANT "You said: This is message number %u of"
		    " the test, please confirm.", i, i);
		break;
	case 3:
		buf_puts(b, "words please\n" FACTS_ASSISTANT);
		for (unsigned k = 1; k < 60; k++)
			buf_fmt(b, "w%u ", k);
		break;
	case 4:
		buf_fmt(b, "My %s is %s again and I have %s %s.\n" FACTS_ASSISTANT "I see.", PICK(own), PICK(states), PICK(states), PICK(own));
		break;
	case 5:
		buf_fmt(b, "My %s is not what it was, I like it %u times less.\n" FACTS_ASSISTANT "I see. Shall we talk about something else?",
		    i % 2 ? "coffee" : "garden", 2 + chance(8));
		break;
	case 6:
		buf_puts(b, "Sum this up. ");
		for (int k = 0; k < 3; k++)
			dry_facts(b);
		buf_puts(b, "\n" FACTS_ASSISTANT "It is about buildings.");
		break;
	default:
		buf_puts(b, "And in code?\n" FACTS_ASSISTANT "```\nfor (i = 0; i < 10; i++)\n\tput(i, value[i]);\n```\n" FACTS_TOOL
		    "{\"status\":200,\"owner\":\"Nobody\",\"size\":83122}");
		break;
	}
	buf_putc(b, '\n');
}

/* A conversation of so many exchanges with every third as a plant of its own, up to PLANTED. echo: what the person
 * says is said again. */
static size_t
conversation(struct buf *b, size_t exchanges, bool held, bool echo, struct plant *in[PLANTED])
{
	size_t n = 0, at = chance((unsigned)n_plants);

	for (size_t i = 0; i < exchanges; i++) {
		filler(b, chance(8), (unsigned)i);
		if (n == PLANTED || i * PLANTED / exchanges < n)
			continue;
		do
			at = (at + 1) % n_plants;
		while (plants[at].held != held && n < n_plants);
		in[n++] = &plants[at];
		if (str_eqz(plants[at].who, "user"))
			buf_fmt(b, FACTS_USER "%.*s\n" FACTS_ASSISTANT "%s%.*s\n", STR_ARG(plants[at].text), echo ? "You said: " : "All right.",
			    echo ? (int)plants[at].text.n : 0, plants[at].text.p);
		else
			buf_fmt(b, FACTS_USER "and then?\n" FACTS_ASSISTANT "%.*s\n", STR_ARG(plants[at].text));
	}
	return n;
}

TEST(plants)
{
	static const struct { size_t exchanges, max; } rooms[] = { { 60, 3500 }, { 300, 5000 }, { 1500, 5000 }, { 1500, 28000 } };
	int worst[2] = { PLANTED, PLANTED };
	long found[2] = { 0, 0 }, all[2] = { 0, 0 };

	CHECK_OK(read_plants());
	for (unsigned round = 0; round < 40 && n_plants > PLANTED && !FAULTED(); round++) {
		struct buf source = BUF_INIT(16u << 20), out = BUF_INIT(1u << 20);
		struct plant *in[PLANTED];
		bool held = round % 2;
		size_t n, facts = 0, max = rooms[round / 2 % ARRAY_LEN(rooms)].max;
		int there = 0;

		seed = round * 2654435761u + 1;
		n = conversation(&source, rooms[round / 2 % ARRAY_LEN(rooms)].exchanges, held, round / 8 % 2, in);
		CHECK_OK(facts_write(buf_view(&source), STR_NONE, max, &out, &facts));
		CHECK(out.n <= max && facts > 0);
		for (size_t i = 0; i < n; i++) {
			bool is = has_keys(buf_view(&out), in[i]->keys);

			there += is;
			in[i]->missed += !is;
		}
		found[held] += there;
		all[held] += (long)n;
		worst[held] = there < worst[held] ? there : worst[held];
		buf_free(&source);
		buf_free(&out);
	}
	for (size_t i = 0; i < n_plants; i++)
		if (plants[i].missed && getenv("VERBOSE"))
			printf("  %s missed %d times: %.*s\n", plants[i].held ? "held out" : "known", plants[i].missed, STR_ARG(plants[i].text));
	printf("  plants: %ld of %ld found, at least %d of %d; of those held out %ld of %ld, at least %d\n", found[0], all[0], worst[0],
	    PLANTED, found[1], all[1], worst[1]);
	CHECK(FAULTED() || (worst[0] >= 28 && worst[1] >= 28 && (found[0] + found[1]) * 100 >= (all[0] + all[1]) * 98));
	buf_free(&file);
}

/* What a summary says is not said again, unless a number or a name of it is another. */
TEST(what_a_summary_says)
{
	static const char source[] = FACTS_USER "It rains, so we'll go with the linen curtains, velvet ones are too dark.\n"
	    FACTS_ASSISTANT "You said: it rains, so we'll go with the linen curtains, velvet ones are too dark.\n"
	    FACTS_USER "We decided to rent the hall in Ashby for 350 crowns.\n"
	    FACTS_ASSISTANT "Which size are your skates?\n" FACTS_USER "42\n"
	    FACTS_USER "Remember that Dr. Weber comes at 14.30 on Monday. The rest of this is only there to"
	    " make this longer than it would be without it, and then some more of the same kind until it is really so very long that it has to be cut into two sentences or three.\n"
	    FACTS_USER "Is it true that penguins can jump?\n"
	    FACTS_TOOL "{\"password\":\"remember 4711\"}\n";
	static const struct { const char *summary, *has, *lacks; } cases[] = {
		{ "", "350 crowns", "4711" },
		{ "", "linen curtains", "You said" },
		{ "They talked about curtains at length, and which ones are too dark.", "linen curtains", "4711" },
		{ "As it rains they will go with linen curtains, velvet ones are dark.", "350", "linen" },
		{ "", "(asked: Which size are your skates?) 42", "penguins" },
		{ "", "Dr. Weber comes at 14.30 on Monday.\n", "4711" },
		{ "They decided on the hall in Ashby, and rent it for 350 crowns.", "Weber", "350" },
		{ "They decided on the hall in Ashby, and rent it for 340 crowns.", "350", "4711" },
		{ "They decided to rent the hall for 350 crowns.", "Ashby", "4711" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases) && !FAULTED(); i++) {
		struct buf out = BUF_INIT(4096);
		size_t n = 0;

		CHECK_OK(facts_write(str_z(source), str_z(cases[i].summary), 2000, &out, &n));
		if (!FAULTED() && (str_find(buf_view(&out), str_z(cases[i].has)) == SIZE_MAX ||
		    str_find(buf_view(&out), str_z(cases[i].lacks)) != SIZE_MAX)) {
			printf("  case %zu: %s\n", i, buf_z(&out));
			test_bad_at_(__FILE__, __LINE__, "what was kept");
		}
		buf_free(&out);
	}
}

/* What is said in words that hardly occur elsewhere outlives what is said all the time, however old it is. */
TEST(rare_words)
{
	static const char *const what[] = { "soup", "road", "window", "coffee", "garden", "office", "bicycle", "kitchen" };
	static const char *const how[] = { "cold", "empty", "green", "quiet", "heavy", "small", "broken", "better" };
	struct buf source = BUF_INIT(1u << 20), out = BUF_INIT(4096);
	size_t n = 0;

	buf_puts(&source, FACTS_USER "The spare key lies under the blue flowerpot.\n");
	seed = 5;
	for (int i = 0; i < 300; i++)
		buf_fmt(&source, FACTS_USER "The %s was %s, while the %s was %s.\n", PICK(what), PICK(how), PICK(what), PICK(how));
	CHECK_OK(facts_write(buf_view(&source), STR_NONE, 600, &out, &n));
	CHECK(FAULTED() || (has_keys(buf_view(&out), S("blue flowerpot"))));
	buf_free(&source);
	buf_free(&out);
}

/* Any bytes, any room. */
TEST(no_text)
{
	static const char bytes[] = "User: 12.\n\xE8\xAE\xB0\xE4\xBD\x8F Remember";

	for (unsigned round = 0; round < 300 && !FAULTED(); round++) {
		struct buf source = BUF_INIT(8192), out = BUF_INIT(1u << 20);
		size_t n = 0, max;

		seed = round;
		for (unsigned i = chance(4000); i > 0; i--)
			buf_putc(&source, chance(3) ? bytes[chance(sizeof(bytes) - 1)] : (char)chance(256));
		max = chance(3) ? chance(500) : 100000;
		CHECK_OK(facts_write(buf_view(&source), round % 2 ? buf_view(&source) : STR_NONE, max, &out, &n));
		CHECK(out.n <= max);
		buf_free(&source);
		buf_free(&out);
	}
}

/* ---- histories ------------------------------------------------------------------------------- */

static struct scratch sc;
static struct session *s;
static const struct model_info *model;

static bool
begin(void)
{
	if (scratch_begin(&sc, "[context]\nbudget = 6000\n", "echo") != OK || scratch_session(&sc.a, "main", &s) != OK ||
	    session_prompt(s) != OK) {
		CHECK(FAULTED());
		return false;
	}
	model = &sc.a.provider->feature->provider->models[0];
	return true;
}

static void add(const char *role, const char *fmt, ...) PRINTF(2, 3);

static void
add(const char *role, const char *fmt, ...)
{
	struct buf b = BUF_INIT(8u << 20);
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(&b, fmt, ap);
	va_end(ap);
	CHECK_OK(b.err);
	CHECK_OK(store_message_add(sc.a.db, s->id, s->next_seq, s->next_seq, role, buf_view(&b)));
	s->next_seq++;
	buf_free(&b);
}

#define TEXT(t) "[{\"type\":\"text\",\"text\":\"" t "\"}]"
#define THINKING "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"c2ln\"},"
#define PICTURE "[{\"type\":\"image\",\"source\":{\"type\":\"media\",\"media_type\":\"image/png\",\"hash\":\"ab\"}},{\"type\":\"text\",\"text\":\"look\"}]"

/* Exchanges of about n bytes. */
static void
talk(size_t exchanges, size_t n)
{
	for (size_t i = 0; i < exchanges; i++) {
		add("user", TEXT("question %zu %0*d"), i, (int)(n / 4), 0);
		add("assistant", "[" THINKING "{\"type\":\"text\",\"text\":\"answer %zu %0*d\"}]", i, (int)(n * 3 / 4), 0);
	}
}

static void
round_of_tools(const char *id, size_t n)
{
	add("assistant", "[" THINKING "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":\"read\",\"input\":{\"of\":\"%s\"}}]", id, id);
	add("user", "[{\"type\":\"tool_result\",\"tool_use_id\":\"%s\",\"content\":\"begins %0*d ends\",\"is_error\":true}]", id, (int)n, 0);
}

/* The request as it is now, in one text; its size. */
static int64_t
request(struct buf *out)
{
	struct context c;
	const char *why;
	int64_t n = 0;

	if (context_render(&sc.a, s->id, model, false, &c, NULL) != OK) {
		CHECK(FAULTED());
		return 0;
	}
	why = rules_broken(&c.request);
	if (why)
		printf("  %s\n", why);
	CHECK(why == NULL);
	buf_reset(out);
	for (size_t i = 0; i < c.request.n_messages; i++)
		buf_fmt(out, "%s%.*s\n", c.request.messages[i].role, STR_ARG(c.request.messages[i].content));
	n = c.estimated_input;
	context_free(&c);
	return n;
}

static int64_t
one(const char *sql)
{
	int64_t n = -1;

	return db_get_i64(sc.a.db, sql, NULL, 0, -1, &n) == OK ? n : -1;
}

#define HAS(text) (FAULTED() || str_find(buf_view(&b), S(text)) != SIZE_MAX)
#define LACKS(text) (FAULTED() || str_find(buf_view(&b), S(text)) == SIZE_MAX)

/* The newest stays as it is, the rest becomes what must not be lost, and what was there stays in its rows. */
TEST(a_history)
{
	struct buf b = BUF_INIT(8u << 20);
	int64_t before, rows, from;

	if (!begin())
		goto out;
	add("user", TEXT("Remember that my locker is number 4417.\\nNothing else."));
	talk(8, 2000);
	add("user", TEXT("what do you see?"));
	add("assistant", "[" THINKING "{\"type\":\"text\",\"text\":\"a \\u00e9 \\/ picture\"}]");
	add("user", PICTURE);
	CHECK_OK(store_media_put(sc.a.db, S("ab"), &(struct media_row){ .type = S("image/png") }));
	CHECK_OK(store_media_gone(sc.a.db, S("ab")));
	add("system", "\"a note\"");
	rows = s->next_seq - 1;
	before = request(&b);
	CHECK(!compact_now(s, model, 3000) && s->history_seq == 0);       /* half full is not full */
	CHECK(FAULTED() || compact_now(s, model, before));
	from = s->history_seq;
	CHECK(FAULTED() || (from == rows + 1 && request(&b) < before / 3));
	CHECK(HAS("my locker is number 4417") && HAS("I have that in mind."));
	CHECK(HAS("{\"type\":\"text\",\"text\":\"a \\u00e9 \\/ picture\"}") && HAS("a note") && HAS("no longer stored"));
	CHECK(LACKS("signature") && LACKS("assistant[{\"type\":\"text\",\"text\":\"answer 2"));
	CHECK(FAULTED() || one("SELECT count(*) FROM media_uses WHERE seq > 20") == 1);
	CHECK(FAULTED() || one("SELECT count(*) FROM messages WHERE kind = 0 AND void = 0") == rows);
	CHECK(FAULTED() || one("SELECT count(*) FROM sessions WHERE prompt IS NOT NULL AND history_seq > 20 AND prompt_tokens > 0") == 1);
	/* with so little it is not done again */
	CHECK(FAULTED() || (!compact_now(s, model, 6000) && s->history_seq == from));
	/* what memory says is what the rows say */
	CHECK(FAULTED() || one("SELECT max(seq) + 1 FROM messages") == s->next_seq);
out:
	buf_free(&b);
	scratch_end(&sc);
}

/* Old outputs of tools are shortened, and that may be all. */
TEST(outputs)
{
	struct buf b = BUF_INIT(8u << 20);
	int64_t before;

	if (!begin())
		goto out;
	add("user", TEXT("please read it"));
	round_of_tools("t1", 15000);
	add("assistant", TEXT("it says nothing"));
	add("user", TEXT("thanks"));
	before = request(&b);
	CHECK(FAULTED() || compact_now(s, model, 6000));
	CHECK(FAULTED() || request(&b) < before / 4);
	CHECK(HAS("User: please read it") && HAS("(uses read: {\\\"of\\\":\\\"t1\\\"})") && HAS("Tool: begins 0") && HAS("bytes are left out here"));
	CHECK(HAS("0 ends") && HAS("Assistant: it says nothing") && LACKS("tool_use"));
out:
	buf_free(&b);
	scratch_end(&sc);
}

/* One turn with many rounds: its question and its newest round stay; outputs that alone are too much are shortened. */
TEST(a_long_turn)
{
	struct buf b = BUF_INIT(8u << 20);

	if (!begin())
		goto out;
	talk(2, 400);
	add("user", TEXT("read all six"));
	for (size_t i = 0; i < 6; i++)
		round_of_tools((const char *[]){ "ta", "tb", "tc", "td", "te", "tf" }[i], 2500);
	CHECK(FAULTED() || compact_now(s, model, 6000));
	CHECK(FAULTED() || request(&b) < 3600);
	CHECK(HAS("user[{\"type\":\"text\",\"text\":\"read all six\"}]") && HAS("\"id\":\"tf\"") && LACKS("\"id\":\"ta\""));
	round_of_tools("tg", 40000);
	CHECK(FAULTED() || compact_now(s, model, 12000));
	CHECK(FAULTED() || request(&b) < 5100);
	CHECK(HAS("read all six") && HAS("\"id\":\"tg\"") && HAS("\"is_error\":true") && LACKS("signature"));
out:
	buf_free(&b);
	scratch_end(&sc);
}

/* What cannot be made to fit is left as it is. */
TEST(one_message)
{
	struct buf b = BUF_INIT(8u << 20);

	if (!begin())
		goto out;
	CHECK(!compact_now(s, model, 1000000) && s->history_seq == 0);    /* nothing at all */
	add("user", TEXT("%030000d"), 0);
	CHECK(!compact_now(s, model, 9000) && s->history_seq == 0);
	add("assistant", TEXT("so long"));
	add("user", TEXT("%030000d"), 0);
	CHECK(!compact_now(s, model, 18000) && s->history_seq == 0);
	add("assistant", TEXT("again"));
	add("user", TEXT("short"));
	CHECK(FAULTED() || compact_now(s, model, 18000));
	CHECK(FAULTED() || request(&b) < 3000);
out:
	buf_free(&b);
	scratch_end(&sc);
}

/* A window full of rows, and a price band below the budget. */
TEST(other_bounds)
{
	struct buf b = BUF_INIT(8u << 20);
	struct model_info dear;

	if (!begin())
		goto out;
	dear = *model;
	dear.band_above = 3000;
	talk(4, 2500);
	add("user", TEXT("and now?"));
	CHECK(FAULTED() || (!compact_now(s, model, 2700) && compact_now(s, &dear, 2700)));
	for (int i = 0; i < HISTORY_MESSAGES_MAX * 17 / 20 && !FAULTED(); i++)
		add(i % 2 ? "user" : "assistant", TEXT("%d"), i);
	CHECK(FAULTED() || (s->next_seq - s->history_seq > 1700 && compact_now(s, model, 3000)));
	CHECK(FAULTED() || (s->next_seq - s->history_seq < 200 && request(&b) < 2500));
out:
	buf_free(&b);
	scratch_end(&sc);
}

/* Fifty compactions: rules are as they were told, and what was said once is still there. */
TEST(fifty_times)
{
	static const char rule[] = "Answer in „at most“ 3 sentences;\ncall me \"Captain\" & <never> 'you'.";
	struct buf b = BUF_INIT(8u << 20), prompt = BUF_INIT(1u << 20);
	int64_t number;

	if (!begin())
		goto out;
	CHECK_OK(store_rule_add(sc.a.db, s->user, str_z(rule), &number));
	add("user", TEXT("I promised Amara to fix the piano stool by 14 May."));
	for (int i = 0; i < 50 && !FAULTED(); i++) {
		int64_t from = s->history_seq;

		talk(7, 2500);
		add("user", TEXT("My code number %d is %d, remember it."), i, 5000 + i);
		add("assistant", TEXT("yes"));
		add("user", TEXT("go on"));
		CHECK(FAULTED() || (compact_now(s, model, request(&b)) && s->history_seq > from && request(&b) < 3500));
	}
	CHECK(HAS("I promised Amara to fix the piano stool by 14 May.") && HAS("My code number 49 is 5049, remember it."));
	CHECK(HAS("My code number 0 is 5000"));
	CHECK_OK(store_session_prompt(sc.a.db, s->id, &prompt));
	CHECK(FAULTED() || str_find(buf_view(&prompt), str_z(rule)) != SIZE_MAX);
	CHECK(FAULTED() || one("SELECT count(*) FROM messages WHERE kind = 1") == 100);
out:
	buf_free(&b);
	buf_free(&prompt);
	scratch_end(&sc);
}

TEST(shown)
{
	struct buf b = BUF_INIT(8u << 20);

	if (!begin())
		goto out;
	CHECK_OK(compact_history(&sc.a, s->id, STR_NONE, &b));
	CHECK(HAS("Nothing was said here yet."));
	add("user", TEXT("the first thing"));
	talk(5, 4000);
	round_of_tools("t1", 100);
	add("assistant", TEXT("told"));
	add("user", TEXT("the last thing"));
	CHECK(FAULTED() || compact_now(s, model, 6000));
	buf_reset(&b);
	CHECK_OK(compact_history(&sc.a, s->id, S("30"), &b));
	CHECK(HAS(" You: the first thing\n") && HAS(" I: told\n") && HAS(" You: the last thing\n") && HAS("bytes are left out here"));
	CHECK(LACKS("in mind") && LACKS("tool") && (FAULTED() || b.n < 12000));
	CHECK(FAULTED() || str_find(str_sub(buf_view(&b), str_find(buf_view(&b), S("last thing")) + 1, b.n), S("last thing")) == SIZE_MAX);
	buf_reset(&b);
	CHECK_OK(compact_history(&sc.a, s->id, S("1"), &b));
	CHECK(HAS("the last thing") && LACKS("told"));
	buf_reset(&b);
	CHECK_OK(compact_history(&sc.a, s->id, S("all"), &b));
	CHECK(HAS("How many messages?"));
out:
	buf_free(&b);
	scratch_end(&sc);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));       /* a fault may have met it */
	RUN(plants);
	RUN(what_a_summary_says);
	RUN(rare_words);
	RUN(no_text);
	RUN(a_history);
	RUN(outputs);
	RUN(a_long_turn);
	RUN(one_message);
	RUN(other_bounds);
	RUN(fifty_times);
	RUN(shown);
	log_close();
	return TEST_END();
}
