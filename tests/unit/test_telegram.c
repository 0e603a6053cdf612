/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_telegram.c - the Telegram adapter alone, in a world of its own: network,
 * clock, timers, effects and the core are the few functions below, which write
 * down what they were asked as lines of one text.
 */
#define fetch_start t_fetch_start
#define fetch_cancel t_fetch_cancel
#define ev_timer_init t_ev_timer_init
#define ev_timer_at t_ev_timer_at
#define ev_timer_in t_ev_timer_in
#define ev_timer_cancel t_ev_timer_cancel
#define ev_now t_ev_now
#define clock_us t_clock_us
#define config_str t_config_str
#define config_secret t_config_secret
#define config_ids t_config_ids
#define config_bool t_config_bool
#define config_i64 t_config_i64
#define config_origin t_config_origin
#define inbound_put t_inbound_put
#define inbound_edit t_inbound_edit
#define inbound_seen t_inbound_seen
#define session_stop t_session_stop
#define access_paired t_access_paired
#define access_offer t_access_offer
#define outbox_put t_outbox_put
#define outbox_part_done t_outbox_part_done
#define outbox_done t_outbox_done
#define outbox_retry t_outbox_retry
#define outbox_fail t_outbox_fail
#define turn_set_ref t_turn_set_ref
#define agent_after t_agent_after
#define agent_wrote t_agent_wrote
#define effect_cancel t_effect_cancel
#define config_argv t_config_argv
#define media_data t_media_data
#define media_end t_media_end
#define media_take_file t_media_take_file
#define session_moved t_session_moved
#define telegram_feature t_telegram_feature
#include "channel/telegram.c"
#include "channel/telegram/tg_call.c"
#include "channel/telegram/tg_file.c"
#include "channel/telegram/tg_talk.c"

#include "test.h"

#define OPEN_MAX_ 32
struct fetch_op {
	char url[256];
	char body[16384];
	int64_t total_us;
	bool once;
	struct fetch_cb cb;
	void *arg;
};
static struct world {
	int64_t now;
	struct fetch_op *open[OPEN_MAX_];
	struct ev_timer *timers[64];
	struct effect *effects[64];
	struct effects mark;
	char lines[65536];
	bool broken, hears, full;
	const char *partials;
	bool rich;
	struct secret token;
	struct agent agent;
	struct tg *tg;
} w;

static void PRINTF(1, 2)
jot(const char *fmt, ...)
{
	size_t n = strlen(w.lines);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w.lines + n, sizeof(w.lines) - n, fmt, ap);
	va_end(ap);
}

/* ---- the world --------------------------------------------------------------- */

enum err
fetch_start(struct fetch *f, const struct fetch_req *req, const struct fetch_cb *cb, void *arg,
    struct fetch_op **out)
{
	struct fetch_op *op = calloc(1, sizeof(*op));

	(void)f;
	if (!op)
		return ERR_NOMEM;
	snprintf(op->url, sizeof(op->url), "%s", req->url);
	snprintf(op->body, sizeof(op->body), "%.*s", STR_ARG(buf_view(req->body_take)));
	buf_free(req->body_take);
	op->total_us = req->total_us;
	op->once = req->once;
	op->cb = *cb;
	op->arg = arg;
	for (size_t i = 0; i < OPEN_MAX_; i++)
		if (!w.open[i]) {
			*out = w.open[i] = op;
			return OK;
		}
	free(op);
	return ERR_LIMIT;
}

void
fetch_cancel(struct fetch_op *op)
{
	for (size_t i = 0; op && i < OPEN_MAX_; i++)
		if (w.open[i] == op)
			w.open[i] = NULL;
	free(op);
}

static struct fetch_op *
asked(const char *method)
{
	for (size_t i = 0; i < OPEN_MAX_; i++)
		if (w.open[i] && str_ends(str_z(w.open[i]->url), str_z(method)) &&
		    strrchr(w.open[i]->url, '/')[1] == method[0])
			return w.open[i];
	return NULL;
}

static bool
asks(const char *method, const char *part)
{
	struct fetch_op *op = asked(method);
	bool ok = op && strstr(op->body, part);

	if (!ok && !FAULTED())
		printf("  %s: %s\n", method, op ? op->body : "not asked");
	return ok;
}

static void
effects(void)
{
	for (size_t i = 0; i < 64; i++) {
		struct effect *e = w.effects[i];

		w.effects[i] = NULL;
		if (e) {
			e->list = NULL;
			e->run(e);
		}
	}
}

static void
fails(const char *method, enum err e, unsigned status, bool sent, const char *text)
{
	struct fetch_op *op = asked(method);
	struct fetch_result r = { .err = e, .status = status, .sent = sent, .why = "no route" };

	CHECK(op != NULL);
	for (size_t i = 0; op && i < OPEN_MAX_; i++)
		if (w.open[i] == op)
			w.open[i] = NULL;
	if (!op)
		return;
	op->cb.on_data(op->arg, op, str_z(text));
	op->cb.on_done(op->arg, op, &r);
	free(op);
}

static void
answer(const char *method, unsigned status, const char *text)
{
	fails(method, OK, status, true, text);
}

int64_t ev_now(const struct ev *ev) { (void)ev; return w.now; }
int64_t clock_us(void) { return w.now + 1000000 * US_PER_S; }
void ev_timer_init(struct ev_timer *t, ev_fn *fn, void *arg) { t->fn = fn; t->arg = arg; }
void ev_timer_in(struct ev *ev, struct ev_timer *t, int64_t us) { ev_timer_at(ev, t, w.now + us); }

void
ev_timer_at(struct ev *ev, struct ev_timer *t, int64_t at)
{
	ev_timer_cancel(ev, t);
	t->at = at;
	for (size_t i = 0; i < 64; i++)
		if (!w.timers[i]) {
			w.timers[i] = t;
			return;
		}
}

void
ev_timer_cancel(struct ev *ev, struct ev_timer *t)
{
	(void)ev;
	for (size_t i = 0; i < 64; i++)
		if (w.timers[i] == t)
			w.timers[i] = NULL;
}

/* Time goes by; loop turns as they come. */
static void
pass(int64_t us)
{
	int64_t end = w.now + us;

	for (;;) {
		struct ev_timer *t = NULL;

		for (size_t i = 0; i < 64; i++)
			if (w.timers[i] && w.timers[i]->at <= end && (!t || w.timers[i]->at < t->at))
				t = w.timers[i];
		if (!t)
			break;
		w.now = t->at > w.now ? t->at : w.now;
		ev_timer_cancel(NULL, t);
		t->fn(t->arg);
		effects();
	}
	w.now = end;
}

void
agent_after(struct agent *a, struct effect *e)
{
	(void)a;
	for (size_t i = 0; i < 64; i++)
		if (!w.effects[i]) {
			w.effects[i] = e;
			e->list = &w.mark;
			return;
		}
}

void
effect_cancel(struct effect *e)
{
	for (size_t i = 0; i < 64; i++)
		if (w.effects[i] == e)
			w.effects[i] = NULL;
	e->list = NULL;
}

struct str
config_str(const struct config *c, const char *key)
{
	(void)c;
	return str_eqz(str_z(key), "telegram.partials") ? str_z(w.partials) : S("http://localhost:1/");
}
const struct secret *config_secret(const struct config *c, const char *k) { (void)c; (void)k; return &w.token; }
bool config_bool(const struct config *c, const char *k) { (void)c; (void)k; return w.rich; }
int64_t config_i64(const struct config *c, const char *k) { (void)c; (void)k; return 50; }
const char *config_origin(const struct config *c, const char *k) { (void)c; (void)k; return "test"; }

size_t
config_ids(const struct config *c, const char *key, const int64_t **ids)
{
	static const int64_t list[] = { 7 };

	(void)c;
	(void)key;
	*ids = list;
	return 1;
}

const char *const *
config_argv(const struct config *c, const char *key)
{
	static const char *const argv[] = { "/bin/hear", NULL };

	(void)c;
	return w.hears && strcmp(key, "telegram.transcribe_command") == 0 ? argv : NULL;
}

enum err
media_data(struct agent *a, int64_t id, struct str bytes)
{
	(void)a;
	jot("data %lld %.*s\n", (long long)id, STR_ARG(bytes));
	return w.full ? ERR_LIMIT : OK;
}

void
media_end(struct agent *a, int64_t id, enum err e, struct str why, bool again, int64_t wait_us)
{
	(void)a;
	jot("end %lld %s%.*s%s %lld\n", (long long)id, e == OK ? "whole" : "", STR_ARG(why), again ? " again" : "",
	    (long long)(wait_us < 0 ? wait_us : wait_us / US_PER_S));
}

void
media_take_file(struct agent *a, int64_t id, const char *path)
{
	(void)a;
	jot("take %lld %s\n", (long long)id, path);
}

enum err
session_moved(struct agent *a, struct str channel, struct str from, struct str to)
{
	(void)a;
	(void)channel;
	jot("moved %.*s %.*s\n", STR_ARG(from), STR_ARG(to));
	return OK;
}

enum err
inbound_seen(struct agent *a, const struct inbound *in, bool *fresh)
{
	(void)a;
	*fresh = true;
	jot("seen [%.*s]\n", STR_ARG(in->dedup));
	return OK;
}

enum err
inbound_put(struct agent *a, const struct inbound *in, bool *fresh)
{
	(void)a;
	*fresh = true;
	jot("in %.*s/%.*s/%.*s %.*s [%.*s] %.*s\n", STR_ARG(in->to.chat), STR_ARG(in->to.thread),
	    STR_ARG(in->to.reply_to), STR_ARG(in->sender), STR_ARG(in->dedup), STR_ARG(in->text));
	for (size_t i = 0; i < in->n_attachments; i++)
		jot("  with %d %.*s \"%.*s\" %lld%s%.*s\n", (int)in->attachments[i].kind, STR_ARG(in->attachments[i].source),
		    STR_ARG(in->attachments[i].name), (long long)in->attachments[i].bytes, in->album.n ? " album " : "",
		    STR_ARG(in->album));
	return OK;
}

enum err
inbound_edit(struct agent *a, const struct target *to, struct str ref, struct str text, bool *applied)
{
	(void)a;
	(void)to;
	*applied = true;
	jot("edit %.*s %.*s\n", STR_ARG(ref), STR_ARG(text));
	return OK;
}

enum err
access_offer(struct agent *a, struct str channel, struct str sender, struct str name, char code[16], bool *told)
{
	(void)a;
	(void)channel;
	(void)name;
	snprintf(code, 16, "K7QM-2P9D");
	*told = true;
	jot("offer %.*s\n", STR_ARG(sender));
	return OK;
}

enum err
outbox_put(struct agent *a, enum outbox_kind kind, int64_t session, int64_t turn, const struct target *to,
    struct str text, struct str edit_ref)
{
	(void)a; (void)kind; (void)session; (void)turn; (void)edit_ref;
	jot("notice %.*s %.*s\n", STR_ARG(to->chat), STR_ARG(text));
	return OK;
}

bool access_paired(struct agent *a, struct str c, struct str sender) { (void)a; (void)c; return str_eqz(sender, "8"); }
void session_stop(struct agent *a, const struct target *to) { (void)a; jot("stop %.*s\n", STR_ARG(to->chat)); }
void turn_set_ref(struct agent *a, int64_t turn, struct str ref) { (void)a; jot("ref %d %.*s\n", (int)turn, STR_ARG(ref)); }
void outbox_fail(struct agent *a, int64_t id, struct str why) { (void)a; jot("fail %d %.*s\n", (int)id, STR_ARG(why)); }
void outbox_done(struct agent *a, int64_t id, struct str x) { (void)a; jot("done %d %.*s\n", (int)id, STR_ARG(x)); }

void
outbox_part_done(struct agent *a, int64_t id, struct str x, int64_t part, struct str format)
{
	(void)a;
	jot("part %d %.*s %d %.*s\n", (int)id, STR_ARG(x), (int)part, STR_ARG(format));
}

void
outbox_retry(struct agent *a, int64_t id, int64_t us, enum doubt doubt, struct str format, struct str why)
{
	(void)a;
	(void)why;
	jot("retry %d %s %.*s%s\n", (int)id, doubt == DOUBT_MAYBE_SENT ? "maybe" : "surely-not", STR_ARG(format),
	    us == 7 * US_PER_S ? " 7s" : "");
}

void agent_wrote(struct agent *a, enum err e) { (void)a; w.broken = w.broken || e != OK; }

/* ---- a running adapter ---------------------------------------------------------- */

#define TOKEN "123456:AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDD"
#define GETME "{\"ok\":true,\"result\":{\"id\":99,\"is_bot\":true,\"username\":\"my_bot\"}}"
#define SENT(id) "{\"ok\":true,\"result\":{\"message_id\":" #id "}}"
#define NO(code, why) "{\"ok\":false,\"error_code\":" #code ",\"description\":\"" why "\"}"
#define FLOOD "{\"ok\":false,\"error_code\":429,\"description\":\"x\",\"parameters\":{\"retry_after\":7}}"

/* Started and polling; false when that failed (only under injected faults). */
static bool
up(const char *partials, bool rich)
{
	void *self = NULL;
	struct fail f = FAIL_INIT;

	memset(&w, 0, sizeof(w));
	w.now = 10 * US_PER_S;
	w.partials = partials;
	w.rich = rich;
	if (secret_set(&w.token, S(TOKEN)) != OK)
		return false;
	if (tg_start(&w.agent, &self, &f) != OK) {
		secret_free(&w.token);
		return false;
	}
	w.tg = self;
	poll_start(self);
	if (asked("getMe"))
		answer("getMe", 200, GETME);
	effects();
	if (asked("setMyCommands"))
		answer("setMyCommands", 200, "{\"ok\":true,\"result\":true}");
	effects();
	if (w.tg->username[0] && asked("getUpdates"))
		return true;
	(tg_reset(self), free(self));
	secret_free(&w.token);
	return false;
}

static void
down(void)
{
	tg_reset(w.tg);
	free(w.tg);
	secret_free(&w.token);
	for (size_t i = 0; i < OPEN_MAX_; i++)
		CHECK(!w.open[i]);
	for (size_t i = 0; i < 64; i++)
		CHECK(!w.timers[i] && !w.effects[i]);
}

#define UP(partials, rich) do { if (!up(partials, rich)) { CHECK(FAULTED()); return; } } while (0)
#define SAID(z) do { CHECK_STR(str_z(w.lines), z); w.lines[0] = '\0'; } while (0)

/* One getUpdates answer; then the commit. */
static void
updates(const char *list)
{
	struct buf b = BUF_INIT(1 << 20);

	buf_fmt(&b, "{\"ok\":true,\"result\":[%s]}", list);
	answer("getUpdates", 200, buf_z(&b));
	buf_free(&b);
	effects();
}

#define PRIVATE(id, from, rest) "{\"update_id\":" #id ",\"message\":{\"message_id\":1" #id \
	",\"date\":5,\"chat\":{\"id\":" #from ",\"type\":\"private\"},\"from\":{\"id\":" #from \
	",\"first_name\":\"Ann\"}," rest "}}"
#define GROUP(id, rest) "{\"update_id\":" #id ",\"message\":{\"message_id\":1" #id \
	",\"chat\":{\"id\":-100,\"type\":\"supergroup\"},\"from\":{\"id\":7}," rest "}}"

static bool
starts_with(const char *token)
{
	struct fail f = FAIL_INIT;
	void *self = NULL;
	enum err e;

	memset(&w, 0, sizeof(w));
	if (secret_set(&w.token, str_z(token)) != OK)
		return false;
	e = tg_start(&w.agent, &self, &f);
	if (e == OK)
		(tg_reset(self), free(self));
	secret_free(&w.token);
	return e != ERR_CONFIG;
}

TEST(token)
{
	CHECK(starts_with(TOKEN) || FAULTED());
	CHECK(!starts_with("123456") && !starts_with("123:short"));
	CHECK(!starts_with("123456AAAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDD"));
	CHECK(!starts_with("123456:AAAAAAAAAABBBBBBBBBBCCCCCCCCCC/../DDDDDDD"));
}

TEST(intake)
{
	UP("draft", true);
	CHECK(asks("getUpdates", "{\"limit\":100,\"timeout\":50"));
	CHECK(asked("getUpdates") && asked("getUpdates")->total_us == 65 * US_PER_S);
	answer("getUpdates", 200, "{\"ok\":true,\"result\":[" PRIVATE(41, 7, "\"text\":\"hi \\u00e9\"") ","
	    "{\"update_id\":42,\"chat_boost\":{}}]}");
	CHECK(!asked("getUpdates"));            /* not before the commit */
	effects();
	SAID("in 7// 7 [41:7:141] hi \xc3\xa9\n");
	CHECK(asks("getUpdates", "\"offset\":43"));
	updates(PRIVATE(3, 8, "\"caption\":\"lower id\",\"photo\":[]"));
	SAID("in 8// 8 [3:8:13] lower id\n");
	CHECK(asks("getUpdates", "\"offset\":4,"));
	updates("{\"update_id\":5,\"edited_message\":{\"message_id\":15,\"chat\":{\"id\":7,\"type\":\"private\"},"
	    "\"from\":{\"id\":7},\"text\":\"corrected\"}}," PRIVATE(6, 7, "\"text\":\"/stop@my_bot now\""));
	SAID("edit 15 corrected\nin 7// 7 [6:7:16] /stop now\n");
	updates(PRIVATE(7, 7, "\"voice\":{}") "," PRIVATE(8, 7, "\"pinned_message\":{}") ","
	    PRIVATE(9, 7, "\"video\":{},\"media_group_id\":\"A\"") ","
	    PRIVATE(10, 7, "\"video\":{},\"media_group_id\":\"A\""));
	SAID("seen [7:7:17]\nnotice 7 I cannot listen to voice messages yet: my owner can set telegram.transcribe_command.\n"
	    "seen [9:7:19]\nnotice 7 I cannot watch videos.\nseen [10:7:110]\n");
	updates(PRIVATE(11, 7, "\"rich_message\":{\"blocks\":[{\"type\":\"paragraph\",\"text\":[\"a \","
	    "{\"type\":\"bold\",\"text\":\"b\"}]},{\"type\":\"paragraph\",\"text\":\"c\"}]}"));
	SAID("in 7// 7 [11:7:111] a b\nc\n");
	tg_reset(w.tg);                         /* after a failed commit all that is unconfirmed */
	poll_start(w.tg);
	CHECK(asks("getUpdates", "{\"limit\":100,") && !w.broken);
	down();
}

TEST(strangers_and_groups)
{
	UP("draft", true);
	updates(PRIVATE(1, 66, "\"text\":\"hi\""));
	CHECK(strstr(w.lines, "offer 66\nnotice 66 Hello!") && strstr(w.lines, "blufio pair K7QM-2P9D"));
	w.lines[0] = '\0';
	updates(GROUP(1, "\"text\":\"idle talk\"") "," GROUP(2, "\"text\":\"\xf0\x9f\x98\x80 hey @My_Bot!\","
	    "\"entities\":[{\"type\":\"mention\",\"offset\":7,\"length\":7}]") ","
	    GROUP(3, "\"text\":\"@my_bot, what?\",\"entities\":[{\"type\":\"mention\",\"offset\":0,\"length\":7}],"
	    "\"is_topic_message\":true,\"message_thread_id\":55") ","
	    GROUP(4, "\"text\":\"@my_bot2 x\",\"entities\":[{\"type\":\"mention\",\"offset\":0,\"length\":8}]") ","
	    GROUP(5, "\"text\":\"/help@other\"") "," GROUP(6, "\"text\":\"/help\"") ","
	    GROUP(7, "\"text\":\"yes\",\"reply_to_message\":{\"from\":{\"username\":\"my_bot\"}}") ","
	    GROUP(8, "\"text\":\"no\",\"reply_to_message\":{\"from\":{\"username\":\"my_bot\"},\"forum_topic_created\":{}}") ","
	    GROUP(9, "\"text\":\"@my_bot\"") "," GROUP(10, "\"text\":\"/stop@MY_bot\\nnow\""));
	SAID("in -100//12 7 [2:-100:12] \xf0\x9f\x98\x80 hey @My_Bot!\nin -100/55/13 7 [3:-100:13] what?\n"
	    "in -100//16 7 [6:-100:16] /help\nin -100//17 7 [7:-100:17] yes\n"
	    "seen [9:-100:19]\nnotice -100 Yes? Write your question beside my name.\nin -100//110 7 [10:-100:110] /stop\nnow\n");
	down();
}

TEST(recovery)
{
	UP("draft", true);
	fails("getUpdates", ERR_TIMEOUT, 0, true, "");
	CHECK(w.tg->state == POLL_BACKOFF);
	pass(400 * US_PER_MS);
	CHECK(!asked("getUpdates"));
	pass(200 * US_PER_MS);
	answer("getUpdates", 502, "<html>");
	pass(900 * US_PER_MS);
	CHECK(!asked("getUpdates"));
	pass(US_PER_S);
	answer("getUpdates", 409, NO(409, "terminated by other getUpdates request"));
	CHECK(w.tg->state == POLL_CONFLICT);
	pass(35 * US_PER_S);
	answer("getUpdates", 401, NO(401, "Unauthorized"));
	CHECK(w.tg->state == POLL_UNAUTHORIZED && !strstr(w.tg->problem, "AAAA"));
	pass(59 * US_PER_S);
	CHECK(!asked("getUpdates"));
	pass(2 * US_PER_S);
	answer("getUpdates", 429, FLOOD);
	pass(6900 * US_PER_MS);
	CHECK(!asked("getUpdates"));
	pass(US_PER_S);
	updates("");
	CHECK(w.tg->state == POLL_POLLING && w.tg->last_poll == w.now && asked("getUpdates"));
	/* silence: ids may have begun anew */
	updates(PRIVATE(500, 7, "\"text\":\"x\""));
	CHECK(asks("getUpdates", "\"offset\":501"));
	w.now += SILENCE_US;
	updates("");
	CHECK(asks("getUpdates", "{\"limit\":100,"));
	down();
}

TEST(poison)
{
	UP("draft", true);
	updates(PRIVATE(20, 7, "\"text\":\"x\""));
	CHECK(asks("getUpdates", "\"offset\":21,\"limit\":100"));
	answer("getUpdates", 200, "{\"ok\":true,\"result\":[{\"update_id\":30,\"message\":{\"text\":\"\xff");
	pass(70 * US_PER_S);
	CHECK(asks("getUpdates", "\"offset\":21,\"limit\":1,"));
	updates(PRIVATE(29, 7, "\"text\":\"a healthy one\""));
	for (int i = 0; i <= POISON_TRIES; i++) {
		CHECK(asks("getUpdates", i ? "\"offset\":30,\"limit\":1," : "\"offset\":30,\"limit\":100,"));
		answer("getUpdates", 200, "{\"ok\":true,\"result\":[{\"update_id\":30,\"message\":{\"text\":\"\xff");
		pass(70 * US_PER_S);
	}
	CHECK(asks("getUpdates", "\"offset\":31,\"limit\":100,"));
	down();
}

static void
deliver(const char *text, const char *edit_ref, const char *format, int64_t part, bool repeated)
{
	struct outbox_item it = { .id = 1, .turn = 5, .session = 2, .to = { S(ME), S("7"), STR_NONE, STR_NONE },
	    .text = str_z(text), .edit_ref = str_z(edit_ref), .format = str_z(format), .part = part,
	    .repeated = repeated };

	tg_send(w.tg, &it);
}

TEST(sending)
{
	char longer[12001];

	UP("draft", true);
	deliver("**hi**", "", "", 0, false);
	CHECK(asks("sendRichMessage", "{\"chat_id\":7,\"rich_message\":{\"markdown\":\"**hi**\"}}"));
	answer("sendRichMessage", 200, SENT(50));
	SAID("done 1 50\n");
	deliver("**hi**", "", "", 0, false);    /* rich, then HTML, then plain */
	answer("sendRichMessage", 400, NO(400, "Bad Request: too many blocks"));
	CHECK(asks("sendMessage", "\"text\":\"<b>hi</b>\",\"parse_mode\":\"HTML\""));
	answer("sendMessage", 400, NO(400, "Bad Request: can't parse entities: x"));
	CHECK(asks("sendMessage", "{\"chat_id\":7,\"text\":\"**hi**\"}"));
	answer("sendMessage", 400, NO(400, "Bad Request: something else"));
	SAID("fail 1 Bad Request: something else\n");
	deliver("x", "", "", 0, false);
	answer("sendRichMessage", 404, NO(404, "Not Found"));
	answer("sendMessage", 200, SENT(51));
	deliver("x", "", "", 0, false);         /* remembered */
	answer("sendMessage", 429, FLOOD);
	deliver("x", "", "html", 0, false);
	answer("sendMessage", 403, NO(403, "Forbidden: bot was blocked by the user"));
	deliver("x", "", "html", 0, false);
	answer("sendMessage", 502, "");
	deliver("x", "", "html", 0, false);
	fails("sendMessage", ERR_CLOSED, 0, false, "");
	deliver("x", "", "html", 0, false);
	fails("sendMessage", ERR_TIMEOUT, 0, true, "");
	SAID("done 1 51\nretry 1 surely-not html 7s\nfail 1 Forbidden: bot was blocked by the user\n"
	    "retry 1 maybe html\nretry 1 surely-not html\nretry 1 maybe html\n");
	deliver("x", "", "html", 0, true);
	CHECK(asks("sendMessage", "\"text\":\"(This may be a repeat"));
	answer("sendMessage", 200, SENT(52));
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	deliver(longer, "", "html", 0, false);
	answer("sendMessage", 200, SENT(53));
	deliver(longer, "", "html", 2, false);
	CHECK(asked("sendMessage") && strlen(asked("sendMessage")->body) < 12000 - 2 * 3950 + 60);
	answer("sendMessage", 200, SENT(54));
	SAID("done 1 52\npart 1 53 1 html\ndone 1 54\n");
	down();
}

TEST(editing)
{
	UP("edit", false);
	deliver("**x**", "33", "", 0, true);    /* an edit repeats harmlessly: no word about it */
	CHECK(asks("editMessageText", "{\"chat_id\":7,\"message_id\":33,\"text\":\"<b>x</b>\""));
	fails("editMessageText", ERR_TIMEOUT, 0, true, "");
	deliver("**x**", "33", "html", 0, false);
	answer("editMessageText", 400, NO(400, "Bad Request: message is not modified: x"));
	SAID("retry 1 surely-not html\ndone 1 33\n");
	deliver("**x**", "33", "html", 0, true);
	answer("editMessageText", 400, NO(400, "Bad Request: message to edit not found"));
	CHECK(asks("sendMessage", "repeat"));
	answer("sendMessage", 200, SENT(34));
	SAID("done 1 34\n");
	down();
}

static void
tell(enum partial_what what, const char *text, const char *chat)
{
	struct partial p = { .what = what, .turn = 5, .session = 2, .text = str_z(text),
	    .to = { S(ME), str_z(chat), S("55"), S("16") } };

	tg_partial(w.tg, &p);
}

TEST(drafts)
{
	UP("draft", true);
	tell(PARTIAL_BEGIN, "", "7");
	pass(THINKING_US - 1);
	CHECK(!asked("sendMessageDraft"));
	pass(TICK_US);
	CHECK(asks("sendMessageDraft",
	    "{\"chat_id\":7,\"message_thread_id\":55,\"draft_id\":5,\"can_stop\":true,\"text\":\"\"}"));
	tell(PARTIAL_TEXT, "Hel", "7");
	pass(US_PER_S);                         /* one in flight; its answer lets the next go */
	answer("sendMessageDraft", 429, FLOOD);
	pass(6 * US_PER_S);
	CHECK(!asked("sendMessageDraft"));
	pass(2 * US_PER_S);
	CHECK(asks("sendMessageDraft", "\"text\":\"Hel\"}"));
	answer("sendMessageDraft", 200, "{\"ok\":true,\"result\":true}");
	tell(PARTIAL_TEXT, "Hello", "7");
	pass(TICK_US);
	CHECK(asks("sendMessageDraft", "Hello"));
	answer("sendMessageDraft", 200, "{\"ok\":true,\"result\":true}");
	pass(20 * US_PER_S);
	CHECK(!asked("sendMessageDraft"));
	pass(6 * US_PER_S);                     /* refreshed */
	CHECK(asks("sendMessageDraft", "Hello"));
	updates("{\"update_id\":1,\"stopped_message_generation\":{\"chat\":{\"id\":7},\"draft_id\":4}},"
	    "{\"update_id\":2,\"stopped_message_generation\":{\"chat\":{\"id\":7},\"draft_id\":5}}");
	SAID("stop 7\n");
	tell(PARTIAL_END, "", "7");
	deliver("Hello!", "", "", 0, false);
	CHECK(!asked("sendRichMessage"));       /* the draft must not arrive after it */
	answer("sendMessageDraft", 200, "{\"ok\":true,\"result\":true}");
	CHECK(asks("sendRichMessage", "Hello!"));
	answer("sendRichMessage", 200, SENT(60));
	CHECK(!w.tg->talks);
	/* the first words are shown at once */
	tell(PARTIAL_BEGIN, "", "7");
	tell(PARTIAL_TEXT, "A", "7");
	pass(1);
	CHECK(asks("sendMessageDraft", "\"text\":\"A\"") && !asked("sendMessageDraft")->once);
	down();
}

TEST(placeholder)
{
	UP("edit", false);
	tell(PARTIAL_BEGIN, "", "-9");
	tell(PARTIAL_TEXT, "Hel", "-9");
	pass(1);
	SAID("ref 5 ?\n");
	CHECK(asks("sendMessage", "{\"chat_id\":-9,\"message_thread_id\":55,\"reply_parameters\":"
	    "{\"message_id\":16,\"allow_sending_without_reply\":true},\"text\":\"Hel\"}"));
	CHECK(asked("sendMessage") && asked("sendMessage")->once);
	answer("sendMessage", 200, SENT(77));
	SAID("ref 5 77\n");
	tell(PARTIAL_TEXT, "Hello", "-9");
	pass(2 * US_PER_S);
	CHECK(asks("editMessageText", "\"message_id\":77,\"text\":\"Hello\"}"));
	answer("editMessageText", 200, SENT(77));
	tell(PARTIAL_RESTART, "", "-9");
	pass(2 * US_PER_S);
	CHECK(!asked("editMessageText"));
	tell(PARTIAL_END, "", "-9");
	deliver("All", "77", "", 0, false);
	answer("editMessageText", 200, SENT(77));
	CHECK(!w.tg->talks);
	/* the end comes while the placeholder is on its way */
	tell(PARTIAL_TEXT, "A", "-9");
	pass(1);
	tell(PARTIAL_END, "", "-9");
	deliver("All", "", "", 0, true);        /* as outbox.c writes a "?" */
	answer("sendMessage", 200, SENT(78));
	CHECK(asks("editMessageText", "\"message_id\":78,\"text\":\"All\""));
	fails("editMessageText", ERR_CLOSED, 0, false, "");
	w.lines[0] = '\0';
	deliver("All", "", "html", 0, true);    /* its retry still knows the id */
	CHECK(asks("editMessageText", "\"message_id\":78"));
	answer("editMessageText", 200, SENT(78));
	SAID("done 1 78\n");
	CHECK(!w.tg->talks);
	/* the end comes before the placeholder left */
	tell(PARTIAL_TEXT, "A", "-9");
	if (w.tg->talks)
		live_tick(w.tg->talks);
	tell(PARTIAL_END, "", "-9");
	effects();
	deliver("All", "", "", 0, true);        /* surely no repeat */
	CHECK(asks("sendMessage", "\"text\":\"All\""));
	SAID("ref 5 ?\nref 5 \n");
	answer("sendMessage", 200, SENT(79));
	/* the placeholder surely did not arrive: no live text, no doubt */
	tell(PARTIAL_TEXT, "A", "-9");
	pass(1);
	answer("sendMessage", 429, FLOOD);
	tell(PARTIAL_END, "", "-9");
	deliver("All", "", "", 0, false);
	CHECK(asks("sendMessage", "\"text\":\"All\""));
	answer("sendMessage", 200, SENT(80));
	SAID("done 1 79\nref 5 ?\nref 5 \ndone 1 80\n");
	/* nobody knows whether it did */
	tell(PARTIAL_TEXT, "A", "-9");
	pass(1);
	fails("sendMessage", ERR_TIMEOUT, 0, true, "");
	tell(PARTIAL_END, "", "-9");
	deliver("All", "", "", 0, true);
	CHECK(asks("sendMessage", "repeat"));
	down();
}

TEST(draft_to_edit)
{
	struct buf b = BUF_INIT(1 << 20);

	UP("draft", true);
	tell(PARTIAL_TEXT, "A", "7");
	pass(1);
	answer("sendMessageDraft", 400, NO(400, "Bad Request: TEXTDRAFT_PEER_INVALID"));
	for (int i = 0; i < 5000; i++)
		buf_puts(&b, "\xf0\x9f\x98\x80");
	tell(PARTIAL_TEXT, buf_z(&b), "7");
	pass(TICK_US);
	SAID("ref 5 ?\n");
	CHECK(asked("sendMessage") && strlen(asked("sendMessage")->body) > 4000);
	if (w.tg->talks && b.err == OK) {
		CHECK(w.tg->talks->text.n == LIVE_BYTES);
		CHECK(utf8_valid(buf_view(&w.tg->talks->text)));
	}
	tell(PARTIAL_TEXT, "A", "7");
	if (w.tg->talks)
		CHECK_STR(buf_view(&w.tg->talks->text), "A");
	buf_free(&b);
	tg_reset(w.tg);
	CHECK(!w.tg->talks && !asked("sendMessage"));
	poll_start(w.tg);
	CHECK(asked("getUpdates"));
	down();
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	log_set_level(LOG_ERROR);
	RUN(token);
	RUN(intake);
	RUN(strangers_and_groups);
	RUN(recovery);
	RUN(poison);
	RUN(sending);
	RUN(editing);
	RUN(drafts);
	RUN(placeholder);
	RUN(draft_to_edit);
	return TEST_END();
}
