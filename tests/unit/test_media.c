/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_media.c - attachments from a channel to the request, in this process: a
 * channel that brings bytes as the test says, a provider that keeps what it is asked.
 */
#include "scratch.h"
#include "test.h"

#include <dirent.h>
#include <sys/stat.h>

#define WAIT_MS 20000

/* ---- the channel and the provider --------------------------------------------------------- */

static struct scratch sc;
static struct agent *a;
static int64_t asked[32];               /* attachments the channel was asked for */
static size_t n_asked;
static struct buf replies;              /* texts sent, a line each */
static struct buf request;              /* the newest: all messages, a line each */
static unsigned calls;
static bool refuse;                     /* the provider says 400 */
static bool hold;                       /* it does not answer yet */
static bool breaks;                     /* it cannot be asked, once: descriptors ran out */

static void
ch_load(void *self)
{
	(void)self;
}

static void
ch_fetch(void *self, const struct attachment *at)
{
	(void)self;
	if (n_asked < ARRAY_LEN(asked))
		asked[n_asked++] = at->id;
}

static void
ch_cancel(void *self, int64_t id)
{
	(void)self;
	(void)id;
}

static void
ch_send(void *self, const struct outbox_item *item)
{
	(void)self;
	buf_str(&replies, item->text);
	buf_putc(&replies, '\n');
	outbox_done(a, item->id, S("1"));
}

static const struct channel_ops channel = { .load = ch_load, .stop_intake = ch_load, .reset = ch_load,
    .free = ch_load, .send = ch_send, .fetch = ch_fetch, .fetch_cancel = ch_cancel };
static const struct feature channel_feature = { .name = "fake", .kind = FEATURE_CHANNEL, .channel = &channel };

struct op {
	struct llm_call *call;
	struct ev_timer timer;
};

static void
op_free(void *arg)
{
	struct op *op = arg;

	ev_timer_cancel(a->ev, &op->timer);
	free(op);
}

static void
answer(void *arg)
{
	struct op *op = arg;
	struct llm_call *c = op->call;

	if (hold) {
		ev_timer_in(a->ev, &op->timer, 20 * US_PER_MS);
		return;
	}
	op_free(op);
	if (refuse) {
		llm_feed_end(c, LLM_BAD_REQUEST, 400, -1, S("no"), STR_NONE);
		return;
	}
	llm_feed_block(c, 0, S("thinking"), STR_NONE, STR_NONE, STR_NONE);
	llm_feed_thinking(c, 0, S("hm"));
	llm_feed_signature(c, 0, S("sig"));
	llm_feed_block_end(c, 0);
	llm_feed_block(c, 1, S("text"), STR_NONE, STR_NONE, STR_NONE);
	llm_feed_text(c, 1, S("seen"));
	llm_feed_block_end(c, 1);
	llm_feed_stop(c, LLM_STOP_END, STR_NONE);
	llm_feed_end(c, LLM_OK, 200, -1, STR_NONE, STR_NONE);
}

static enum err
spy_call(void *self, const struct llm_request *r, struct llm_call *call, void **out)
{
	struct op *op = calloc(1, sizeof(*op));

	(void)self;
	if (!op)
		return ERR_NOMEM;
	if (breaks) {
		breaks = false;
		free(op);
		return ERR_LIMIT;
	}
	calls++;
	buf_reset(&request);
	for (size_t i = 0; i < r->n_messages; i++) {
		buf_str(&request, r->messages[i].content);
		buf_putc(&request, '\n');
	}
	op->call = call;
	ev_timer_init(&op->timer, answer, op);
	ev_timer_in(a->ev, &op->timer, 0);
	*out = op;
	return OK;
}

static void
spy_pause(void *op, bool paused)
{
	(void)op;
	(void)paused;
}

static const struct model_info models[] = {
	{ .id = "spy", .window = 1000000, .max_output = 1000, .band_factor = 1, .images_max = 3, .flags = MODEL_PDF }, { .id = NULL },
};
static const struct provider_ops spy_ops = { .models = models, .free = ch_load, .call = spy_call, .cancel = op_free,
    .pause = spy_pause, .offline = true };
static const struct feature spy = { .name = "spy", .kind = FEATURE_PROVIDER, .provider = &spy_ops };

/* ---- the agent --------------------------------------------------------------------------------- */

static bool
up(void)
{
	static const char *const env[] = { NULL };
	struct config *config;
	struct fail f = FAIL_INIT;
	enum err e = config_load(&config, sc.toml, env, &f);

	n_asked = 0;
	if (e == OK) {
		e = agent_new(&a, config, NULL, false, &f);
		if (e != OK) {
			a = NULL;
			config_free(config);
		}
	}
	if (e != OK) {
		CHECK(FAULTED());
		return false;
	}
	a->provider->feature->provider->free(a->provider->self);
	a->provider->feature = &spy;
	a->provider->self = a;
	providers_read(a);
	a->channels[a->n_channels++] = (struct channel){ &channel_feature, a };
	return true;
}

static bool
begin(const char *toml)
{
	char text[256];

	memset(&sc, 0, sizeof(sc));
	a = NULL;
	calls = 0;
	refuse = hold = breaks = false;
	buf_init(&replies, 1u << 20);
	buf_init(&request, 32u << 20);
	snprintf(text, sizeof(text), "%s[providers]\ndefault = \"echo\"\n[context]\nbudget = 1000000\n", toml);
	if (scratch_dir(&sc, text) == OK)
		return up();
	CHECK(FAULTED());
	return false;
}

static size_t
files(void)
{
	char path[128];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s.media", sc.path);
	d = opendir(path);
	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* A file that no row knows. */
static void
stray(void)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s.media/%064d", sc.path, 0);
	f = fopen(path, "w");
	CHECK(f || FAULTED());
	if (f)
		fclose(f);
}

/* Removes all files of the media folder; returns how many there were. */
static size_t
wipe(void)
{
	char path[512];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s.media", sc.path);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s.media/%s", sc.path, e->d_name);
			n += remove(path) == 0;
		}
	if (d)
		closedir(d);
	snprintf(path, sizeof(path), "%s.media", sc.path);
	(void)rmdir(path);              /* there may be none */
	return n;
}

static void
down(void)
{
	if (a)
		agent_free(a);
	a = NULL;
}

static void
finish(void)
{
	down();
	(void)wipe();
	scratch_dir_end(&sc);
	buf_free(&replies);
	buf_free(&request);
}

/* Turns the loop until *n reaches want. */
static bool
until(const size_t *n, size_t want)
{
	int64_t end = clock_mono_us() + WAIT_MS * US_PER_MS;

	while (*n < want && clock_mono_us() < end) {
		if (a->phase == AGENT_STORAGE_FAILED)
			ev_timer_in(a->ev, &a->retry_timer, 0);
		if (ev_once(a->ev, 50 * US_PER_MS) != OK)
			break;
		if (FAULTED() && clock_mono_us() > end - WAIT_MS * US_PER_MS + 300 * US_PER_MS)
			break;          /* an injected failure may end it otherwise */
	}
	CHECK(*n >= want || FAULTED());
	return *n >= want;
}

static bool
replied(const char *text)
{
	size_t n = replies.n;

	if (!until(&replies.n, n + 1) || !until(&replies.n, n + strlen(text)))
		return false;
	CHECK(FAULTED() || str_find(buf_view(&replies), str_z(text)) != SIZE_MAX);
	if (str_find(buf_view(&replies), str_z(text)) == SIZE_MAX)
		printf("  said: %s", buf_z(&replies));
	buf_reset(&replies);
	return true;
}

static size_t put_count;

static void
put_to(const char *chat, enum attachment_kind kind, const char *name, const char *text, const char *album)
{
	const struct attachment at = { .kind = kind, .source = S("file-1"), .name = str_z(name) };
	char dedup[32];
	struct inbound in = { .to = { S("fake"), str_z(chat), STR_NONE, STR_NONE }, .sender = S("7"), .sender_name = S("P"),
	    .text = str_z(text), .attachments = name ? &at : NULL, .n_attachments = name != NULL, .album = str_z(album),
	    .position = (int64_t)put_count };
	bool fresh;

	snprintf(dedup, sizeof(dedup), "%zu", put_count++);
	in.dedup = str_z(dedup);
	if (inbound_put(a, &in, &fresh) != OK)
		CHECK(FAULTED());
}

static void
put(enum attachment_kind kind, const char *name, const char *text, const char *album)
{
	put_to("7", kind, name, text, album);
}

/* Turns the loop until one more turn waits for a place. */
static void
until_waiting(size_t want)
{
	int64_t end = clock_mono_us() + WAIT_MS * US_PER_MS;

	while (turns_waiting(a) != want && clock_mono_us() < end && !FAULTED())
		if (ev_once(a->ev, 50 * US_PER_MS) != OK)
			break;
	CHECK(turns_waiting(a) == want || FAULTED());
}

static void
bring(int64_t id, const char *bytes, size_t n)
{
	size_t half = n / 2;

	if (media_data(a, id, str_make(bytes, half)) != OK || media_data(a, id, str_make(bytes + half, n - half)) != OK) {
		CHECK(FAULTED());
		return;
	}
	media_end(a, id, OK, STR_NONE, false, -1);
}

/* The head of a PNG, so many pixels wide and high. */
static size_t
png(char out[64], unsigned w, unsigned h)
{
	static const char head[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
	const unsigned size[] = { w, h };

	memset(out, 0, 64);
	memcpy(out, head, 16);
	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < 4; k++)
			out[16 + 4 * i + k] = (char)(size[i] >> (24 - 8 * k) & 255);
	memcpy(out + 24, "\x08\x02\0\0\0", 5);
	return 64;
}

static bool
has(const struct buf *b, const char *text)
{
	return str_find(buf_view(b), str_z(text)) != SIZE_MAX;
}

/* ---- tests ------------------------------------------------------------------------------------- */

TEST(picture)
{
	char p[64];
	size_t n = png(p, 40, 30);

	if (begin("")) {
		put(ATTACHMENT_IMAGE, "", "what is it?", NULL);
		if (until(&n_asked, 1)) {
			CHECK(calls == 0);
			bring(asked[0], p, n);
			if (replied("seen") && !FAULTED()) {
				CHECK(has(&request, "[{\"type\":\"image\",\"source\":{\"type\":\"media\",\"media_type\":"
				    "\"image/png\",\"hash\":\""));
				CHECK(has(&request, "\"}},{\"type\":\"text\",\"text\":\"what is it?\"}]\n"));
				CHECK(files() == 1);
			}
		}
	}
	finish();
}

/* Its parts come in any order of time; they stand in the order of their positions. */
TEST(album_is_one_message)
{
	char p[64];
	size_t n = png(p, 40, 30);

	if (begin("")) {
		put(ATTACHMENT_DOCUMENT, "a.txt", "", "al");
		put(ATTACHMENT_IMAGE, "", "two things", "al");
		if (until(&n_asked, 2)) {
			bring(asked[1], p, n);
			bring(asked[0], "hello text", 10);
			if (replied("seen") && !FAULTED()) {
				size_t doc = str_find(buf_view(&request), S("{\"type\":\"document\""));
				size_t image = str_find(buf_view(&request), S("{\"type\":\"image\""));

				CHECK(calls == 1 && doc < image && image != SIZE_MAX);
				CHECK(has(&request, "\"title\":\"a.txt\"") && has(&request, "two things"));
			}
			put(ATTACHMENT_IMAGE, "", "", "al");    /* a straggler is a message of its own */
			if (until(&n_asked, 3)) {
				bring(asked[2], p, n);
				if (replied("seen"))
					CHECK(calls == 2 || FAULTED());
			}
		}
	}
	finish();
}

TEST(what_it_is_not)
{
	static const struct { const char *name, *bytes; size_t n; const char *said; } bad[] = {
		{ "x.zip", "PK\3\4\0\1", 6, "\"x.zip\" could not be read: it is neither a picture" },
		{ "x.txt", "caf\xe9 is not UTF-8", 17, "neither a picture" },
		{ "x.png", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", 18, "the picture is damaged" },
		{ "x.txt", "", 0, "it is empty" },
	};
	char p[64];
	size_t n = png(p, 9000, 30);

	if (begin("")) {
		for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
			put(ATTACHMENT_DOCUMENT, bad[i].name, "", NULL);
			if (!until(&n_asked, i + 1))
				break;
			bring(asked[i], bad[i].bytes, bad[i].n);
			(void)replied(bad[i].said);
		}
		CHECK((calls == 0 && files() == 0) || FAULTED());
		n_asked = 0;
		put(ATTACHMENT_IMAGE, "", "with words", NULL);
		if (until(&n_asked, 1)) {
			bring(asked[0], p, n);
			if (replied("seen") && !FAULTED())      /* the words are answered, the model is told */
				CHECK(has(&request, "(A picture could not be read: the picture has 9000 x 30") &&
				    has(&request, "with words"));
		}
	}
	finish();
}

TEST(tries)
{
	if (begin("")) {
		put(ATTACHMENT_DOCUMENT, "a.txt", "", NULL);
		if (until(&n_asked, 1)) {
			CHECK(FAULTED() || media_data(a, asked[0], S("half")) == OK);
			media_end(a, asked[0], ERR_CLOSED, S("the line was cut"), true, 0);
			if (until(&n_asked, 2)) {
				media_end(a, asked[0] + 7, OK, STR_NONE, false, -1);    /* nobody's: ignored */
				bring(asked[1], "the whole", 9);
				if (replied("seen") && !FAULTED())
					CHECK(has(&request, "text/plain"));
			}
		}
		n_asked = 0;
		put(ATTACHMENT_DOCUMENT, "b.txt", "", NULL);
		for (size_t i = 0; i < ATTACHMENT_TRIES && until(&n_asked, i + 1); i++)
			media_end(a, asked[i], ERR_CLOSED, S("the line was cut"), true, 0);
		(void)replied("\"b.txt\" could not be read: the line was cut.");
		n_asked = 0;
		put(ATTACHMENT_DOCUMENT, "c.txt", "", NULL);
		if (until(&n_asked, 1)) {
			media_end(a, asked[0], ERR_NOTFOUND, S("it is no longer there"), false, -1);
			(void)replied("it is no longer there");
		}
	}
	finish();
}

TEST(too_large)
{
	static char megabyte[1u << 20];
	enum err e = OK;
	size_t i;

	if (begin("")) {
		put(ATTACHMENT_DOCUMENT, "a.txt", "", NULL);
		if (until(&n_asked, 1)) {
			for (i = 0; i < 30 && e == OK; i++)
				e = media_data(a, asked[0], str_make(megabyte, sizeof(megabyte)));
			CHECK((e == ERR_LIMIT && i == 21) || FAULTED());
			(void)replied("larger than 20 MB");
			CHECK(files() == 0 || FAULTED());
		}
	}
	finish();
}

/* A start and a failed commit load by the same function; here a file without a row is swept, too. */
TEST(load_in_the_middle)
{
	if (begin("")) {
		put(ATTACHMENT_DOCUMENT, "a.txt", "", NULL);
		if (until(&n_asked, 1)) {
			CHECK(FAULTED() || media_data(a, asked[0], S("half")) == OK);
			stray();
			agent_wrote(a, ERR_IO);
			if (until(&n_asked, 2)) {
				CHECK(files() == 1 || FAULTED());
				bring(asked[1], "the whole", 9);
				if (replied("seen"))
					CHECK(files() == 1 || FAULTED());
			}
		}
	}
	finish();
}

TEST(stopped_while_it_comes)
{
	if (begin("")) {
		put(ATTACHMENT_DOCUMENT, "a.txt", "", NULL);
		if (until(&n_asked, 1)) {
			put(ATTACHMENT_IMAGE, NULL, "/stop", NULL);
			(void)replied("(Stopped.)");
			CHECK(FAULTED() || !media_pending(a, 1));
			CHECK_ERR(media_data(a, asked[0], S("late")), ERR_CANCELLED);
		}
	}
	finish();
}

/* Sends one text file of n bytes and waits for its answer. */
static bool
send_file(const char *letter, size_t n)
{
	char *text = malloc(n + 1);
	bool good;

	if (!text)
		return false;
	memset(text, letter[0], n);
	n_asked = 0;
	put(ATTACHMENT_DOCUMENT, letter, "", NULL);
	good = until(&n_asked, 1);
	if (good)
		bring(asked[0], text, n);
	free(text);
	return good && replied("seen");
}

TEST(quota)
{
	if (begin("media_quota = 1\n")) {
		if (send_file("a", 400000) && send_file("b", 400000) && !FAULTED()) {
			CHECK(files() == 2 && has(&request, "\"title\":\"a\"") && has(&request, "sig"));
			/* a stands in the running history, but nothing older does not: it goes, with the thinking */
			if (send_file("c", 400000)) {
				CHECK(files() == 2);
				CHECK(has(&request, "(A document was here; it is no longer stored.)"));
				CHECK(!has(&request, "sig") && has(&request, "\"title\":\"b\"") && has(&request, "\"title\":\"c\""));
			}
			put(ATTACHMENT_IMAGE, NULL, "/new", NULL);
			(void)replied("A fresh conversation");
			if (send_file("d", 500000))     /* now b and c may go */
				CHECK(files() == 2 && has(&request, "\"title\":\"d\"") && !has(&request, "\"title\":\"b\""));
			n_asked = 0;
			put(ATTACHMENT_DOCUMENT, "e", "", NULL);
			if (until(&n_asked, 1)) {
				char *big = malloc(1100000);

				if (big) {
					memset(big, 'e', 1100000);
					bring(asked[0], big, 1100000);
					(void)replied("there is no room for it");
				}
				free(big);
			}
		}
	}
	finish();
}

/* What cannot fit whatever goes makes nothing go. */
TEST(too_large_for_the_quota)
{
	char *big = malloc(2100000);

	if (begin("media_quota = 2\n") && big) {
		if (send_file("a", 400000) && send_file("b", 400000) && send_file("c", 400000)) {
			n_asked = 0;
			put(ATTACHMENT_DOCUMENT, "e", "", NULL);
			if (until(&n_asked, 1)) {
				memset(big, 'e', 2100000);
				bring(asked[0], big, 2100000);
				(void)replied("there is no room for it");
			}
			put(ATTACHMENT_IMAGE, NULL, "and now?", NULL);
			if (replied("seen") && !FAULTED())
				CHECK(files() == 3 && has(&request, "\"title\":\"a\"") && has(&request, "sig"));
		}
	}
	free(big);
	finish();
}

/* Those that the worker has when their message is stopped give their places to the next. */
TEST(places_of_the_dropped)
{
	char p[64];
	size_t n = png(p, 40, 30);

	if (begin("")) {
		for (int i = 0; i < ATTACHMENTS_RUNNING_MAX; i++)
			put(ATTACHMENT_IMAGE, "", "", "al");
		if (until(&n_asked, ATTACHMENTS_RUNNING_MAX)) {
			put(ATTACHMENT_IMAGE, "", "second", NULL);
			for (size_t i = 0; i < ATTACHMENTS_RUNNING_MAX; i++)
				bring(asked[i], p, n);
			put(ATTACHMENT_IMAGE, NULL, "/stop", NULL);
			(void)replied("(Stopped.)");
			if (until(&n_asked, ATTACHMENTS_RUNNING_MAX + 1)) {
				bring(asked[ATTACHMENTS_RUNNING_MAX], p, n);
				(void)replied("seen");
			}
		}
	}
	finish();
}

/* The first in the queue for a place gets a late part of its album: the next one does not wait for its file. */
TEST(late_part_of_one_that_waits)
{
	char p[64];
	size_t n = png(p, 40, 30);

	if (begin("[agent]\nmax_sessions = 1\n")) {
		hold = true;
		put_to("1", ATTACHMENT_IMAGE, NULL, "busy", NULL);
		put_to("2", ATTACHMENT_IMAGE, "", "", "al");
		if (until(&n_asked, 1)) {
			bring(asked[0], p, n);
			until_waiting(1);
			put_to("3", ATTACHMENT_IMAGE, NULL, "me too", NULL);
			until_waiting(2);
			put_to("2", ATTACHMENT_IMAGE, "", "", "al");
			if (until(&n_asked, 2)) {
				CHECK(has(&replies, "I am busy") || FAULTED());
				buf_reset(&replies);
				hold = false;
				(void)replied("seen");
				(void)replied("seen");  /* that of chat 3 */
				CHECK(has(&request, "me too") || FAULTED());
				bring(asked[1], p, n);
				(void)replied("seen");
			}
		}
	}
	finish();
}

/* A failure of this machine is no refusal: the same message is asked again. */
TEST(cannot_be_asked_at_once)
{
	char p[64];
	size_t n = png(p, 40, 30);

	if (begin("")) {
		breaks = true;
		put(ATTACHMENT_IMAGE, "", "what is it?", NULL);
		if (until(&n_asked, 1)) {
			bring(asked[0], p, n);
			(void)replied("seen");
			CHECK((calls == 1 && has(&request, "what is it?")) || FAULTED());
		}
	}
	finish();
}

/* The files were deleted by somebody, or the database was restored alone. */
TEST(files_are_lost)
{
	if (begin("")) {
		if (send_file("a", 1000) && !FAULTED()) {
			CHECK(wipe() == 1);
			put(ATTACHMENT_IMAGE, NULL, "and now?", NULL);
			if (replied("seen"))
				CHECK(has(&request, "no longer stored") && !has(&request, "sig") && has(&request, "and now?"));
			if (send_file("a", 1000))       /* the same bytes again are there again */
				CHECK(files() == 1 && has(&request, "\"title\":\"a\""));
		}
	}
	finish();
}

TEST(more_than_the_model_takes)
{
	char p[64];
	size_t n = png(p, 40, 30);

	if (begin("")) {
		for (size_t i = 0; i < 4; i++) {
			p[60] = (char)i;
			put(ATTACHMENT_IMAGE, "", "one", NULL);
			if (!until(&n_asked, i + 1))
				break;
			bring(asked[i], p, n);
			(void)replied(i < 3 ? "seen" : "would hold 4 pictures; spy takes 3");
		}
		CHECK(calls == 3 || FAULTED());
		put(ATTACHMENT_IMAGE, NULL, "still there?", NULL);
		if (replied("seen") && !FAULTED())
			CHECK(calls == 4 && has(&request, "still there?"));
		refuse = true;
		n_asked = 0;
		put(ATTACHMENT_DOCUMENT, "a.txt", "read", NULL);
		if (until(&n_asked, 1)) {
			bring(asked[0], "text", 4);
			(void)replied("left out of the conversation");
		}
		refuse = false;
		put(ATTACHMENT_IMAGE, NULL, "go on", NULL);
		if (replied("seen") && !FAULTED())
			CHECK(!has(&request, "a.txt"));
	}
	finish();
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));
	RUN(picture);
	RUN(album_is_one_message);
	RUN(what_it_is_not);
	RUN(tries);
	RUN(too_large);
	RUN(load_in_the_middle);
	RUN(stopped_while_it_comes);
	RUN(quota);
	RUN(too_large_for_the_quota);
	RUN(places_of_the_dropped);
	RUN(late_part_of_one_that_waits);
	RUN(cannot_be_asked_at_once);
	RUN(files_are_lost);
	RUN(more_than_the_model_takes);
	log_close();
	return TEST_END();
}
