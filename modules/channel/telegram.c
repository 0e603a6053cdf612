/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * telegram.c - Telegram bot: long poll in, rich or HTML messages out, live drafts.
 *
 * Intake. One getUpdates at a time. What it brings becomes rows in this loop
 * turn's transaction, and the next getUpdates, which is what acknowledges it to
 * Telegram, starts in an effect after the commit. The offset is the last update
 * in order of receipt plus one, whatever its number: after a week of silence
 * ids begin anew at random, so after six days without an update none is sent.
 * Nor is one at a start: what was not acknowledged comes again, and what is
 * stored already is known by its row. After a body that cannot be read updates
 * are asked for singly; one that stays unreadable is acknowledged and logged.
 *
 * Sending. A talk is what is said in answer to one message: live text, then the
 * reply. Its calls go out one after another, so the reply arrives last and knows
 * what became of a placeholder. Live text is hints: private chats get drafts,
 * others a placeholder that is edited: "?" is committed as its id before it goes.
 *
 * The reply is cut into pieces by a pure function of its text and way, so part
 * and way are all there is to remember. Edits can be repeated harmlessly; sends
 * cannot: when one may have arrived, outbox.c marks the row and the next begins
 * with REPEAT. Each has a new connection: on a kept one libcurl may repeat it.
 */
#include "blufio.h"
#include "core/markup.h"

#define ME "telegram"
#define ID_SIZE 24                          /* an int64 as text */
#define CALL_US (30 * US_PER_S)             /* from connect to answer */
#define HINT_US (10 * US_PER_S)             /* live text: the reply may be waiting for its end */
#define BODY_MAX (1u << 20)                 /* a request; its answer, which has the message again */
#define POLL_BODY_MAX (8u << 20)            /* a 5 MB update must pass */
#define TREE_FACTOR 16                      /* arena bytes for a byte of JSON */
#define POLL_SLACK_US (15 * US_PER_S)       /* beyond the server's own waiting time */
#define POLL_LIMIT 100
#define BACKOFF_US (500 * US_PER_MS)        /* after the first failure, then doubled */
#define BACKOFF_MAX_US (60 * US_PER_S)
#define SILENCE_US (6 * 24 * 3600 * US_PER_S) /* then update ids may begin anew */
#define POISON_TRIES 5
#define SHOWN_MAX 4096                      /* UTF-16 units of one message */
#define RICH_MAX 32768
#define REPEAT "(This may be a repeat: I was interrupted while sending it.)\n\n"
#define LIVE_BYTES 4000                     /* of a longer text the end is shown */
#define TYPING_US (4 * US_PER_S)           /* a chat action is shown for five */
#define TICK_US (500 * US_PER_MS)           /* a draft may change as often */
#define EDIT_GAP_US (1200 * US_PER_MS)
#define DRAFT_REFRESH_US (25 * US_PER_S)    /* a draft lasts 30 s */
#define THINKING_US (3 * US_PER_S)          /* without text until now: show that work goes on */
#define HINT_FAILURES 3                     /* live text pauses as after so many failures */
#define NAME_CHARS "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
#define REF_UNKNOWN (-1)                    /* "?": a placeholder that may be there */

enum poll_state { POLL_STARTING, POLL_POLLING, POLL_BACKOFF, POLL_UNAUTHORIZED, POLL_CONFLICT };
static const char *const poll_names[] = { "starting", "polling", "backoff", "unauthorized",
	"conflict" };

/* What Telegram said. Views are valid during the callback. */
struct answer {
	bool ok;
	bool sent;              /* not ok: it may have taken effect all the same */
	unsigned code;          /* of the refusal; 0: no answer */
	int64_t retry_s;        /* said with 429 */
	struct str why;
	struct str unreadable;  /* a complete response that is not an answer, or too big a one */
	const struct json *result;
};
/* One request at a time, and its answer. */
struct call {
	struct tg *tg;
	struct fetch_op *op;    /* NULL: none in flight */
	struct buf in, out;
	struct jw w;            /* writes out */
	void (*done)(struct call *c, const struct answer *r);
};
struct tg {
	struct agent *a;
	struct call poll;
	struct ev_timer poll_timer;
	struct effect poll_effect;
	enum poll_state state;
	char problem[256];
	unsigned failures, poison;      /* in a row */
	int64_t offset;         /* 0: none */
	int64_t seen_at;        /* UTC of the last update */
	int64_t seen_mono;      /* and monotonic: the first can be set, the second stops in a suspended machine */
	int64_t last_poll;      /* monotonic; 0: none yet */
	char username[64];      /* "" until getMe answered */
	bool greeted;           /* setMyCommands was sent */
	char album[ID_SIZE];    /* the last one answered with a notice */
	bool no_rich;           /* this server does not know rich messages */
	struct talk *talks;
};
/* How a text is sent. A reply that is refused goes the next way, up to WAY_PLAIN. */
enum way { WAY_RICH, WAY_HTML, WAY_PLAIN, WAY_DRAFT };
static const char *const way_names[] = { "rich", "html", "plain" };

struct talk {
	struct call call;
	struct talk *next;
	int64_t chat, thread, reply_to; /* 0: none */
	int64_t turn;           /* 0: a notice */
	int64_t ref;            /* the placeholder's id; 0: none */
	struct buf text;        /* of the reply; before, the end of what is visible */
	/* live text */
	struct ev_timer timer;
	struct effect show;
	struct call action;     /* "typing" */
	int64_t typed_at;
	bool draft;             /* else by edits of a placeholder */
	bool dirty;             /* text is newer than what was shown */
	bool ended;
	int64_t shown_at, quiet_until;
	/* the reply */
	struct outbox_item item;        /* id 0: not there yet; its views are void */
	enum way way;
	bool editing, last;
};

static const struct config_key keys[] = {
	{ .name = "telegram.bot_token", .type = CONFIG_SECRET,
	  .help = "The bot's token, as @BotFather gave it." },
	{ .name = "telegram.api_base", .type = CONFIG_URL, .dflt = "\"https://api.telegram.org\"",
	  .help = "Where the Bot API is; change it for a local Bot API server." },
	{ .name = "telegram.allowed_users", .type = CONFIG_IDS, .example = "[123456789]",
	  .help = "Numeric ids of the people the bot listens to, beside those paired." },
	{ .name = "telegram.partials", .type = CONFIG_ENUM, .choices = "draft|edit",
	  .dflt = "\"draft\"",
	  .help = "How a growing answer is shown: as a draft (private chats) or by edits." },
	{ .name = "telegram.rich", .type = CONFIG_BOOL, .dflt = "true",
	  .help = "Send rich messages (Bot API 10.1); false sends classic HTML messages." },
	{ .name = "telegram.poll_timeout", .type = CONFIG_SECONDS, .dflt = "50",
	  .min = 1, .max = 50,
	  .help = "How long Telegram may hold a poll open; a poll silent for 15 s more is cut." },
	{ .name = NULL }
};

static bool
has(struct str s, const char *word)
{
	return str_find(s, str_z(word)) != SIZE_MAX;
}

static struct str
id_text(char out[ID_SIZE], int64_t id)
{
	snprintf(out, ID_SIZE, "%lld", (long long)id);
	return str_z(out);
}

static int64_t
id_of(struct str s)
{
	int64_t id = str_eqz(s, "?") ? REF_UNKNOWN : 0;

	IGNORE(str_i64(s, INT64_MIN, INT64_MAX, &id));  /* what is no number is no id */
	return id;
}

/* ---- calls -------------------------------------------------------------------------- */

static void
call_drop(struct call *c)
{
	fetch_cancel(c->op);
	c->op = NULL;
	buf_free(&c->in);
	buf_free(&c->out);
}

static void
on_data(void *arg, struct fetch_op *op, struct str bytes)
{
	struct call *c = arg;

	(void)op;
	buf_str(&c->in, bytes);
}

static void
on_done(void *arg, struct fetch_op *op, const struct fetch_result *r)
{
	struct call *c = arg;
	struct buf in = c->in;          /* done() may free the call */
	struct arena ar = ARENA_INIT(in.max * TREE_FACTOR);
	struct answer a = { .why = str_z(r->why), .sent = r->sent };
	const struct json *v = NULL;

	(void)op;
	c->op = NULL;
	buf_init(&c->in, in.max);
	if (r->err == OK && in.err == OK && json_parse(&ar, buf_view(&in), &v, NULL) == OK) {
		a.result = json_at(v, "result");
		a.ok = json_bool(v, "ok", false) && a.result;
		a.code = (unsigned)json_i64(v, "error_code", r->status);
		a.why = json_str(v, "description", S("no reason given"));
		a.retry_s = json_i64(v, "parameters.retry_after", 0);
	} else if (r->err == OK || r->err == ERR_LIMIT) {
		a.code = r->status == 200 ? 0 : r->status;
		if (a.code == 0 && ar.err != ERR_NOMEM && in.err != ERR_NOMEM)
			a.unreadable = buf_view(&in);
		a.why = S("the answer cannot be read");
	}
	if (a.code >= 400 && a.code < 500)
		a.sent = false;
	c->done(c, &a);
	arena_free(&ar);
	buf_free(&in);
}

/* Begins a request. */
static struct jw *
post(struct call *c)
{
	buf_reset(&c->out);
	jw_init(&c->w, &c->out);
	jw_obj(&c->w);
	return &c->w;
}

/* Ends and sends it. once: libcurl may not repeat it by itself on a connection that proves dead. */
static FALLIBLE
api(struct call *c, const char *method, bool once, int64_t total_us,
    void (*done)(struct call *, const struct answer *))
{
	static const struct fetch_cb cb = { NULL, on_data, on_done };
	static const char *const headers[] = { "Content-Type: application/json", NULL };
	struct config *cf = c->tg->a->config;
	struct str base = config_str(cf, "telegram.api_base");
	struct str token = secret_reveal(config_secret(cf, "telegram.bot_token"));
	struct buf url = BUF_INIT(4096);
	enum err e;

	while (base.n && base.p[base.n - 1] == '/')
		base.n--;
	buf_fmt(&url, "%.*s/bot%.*s/%s", STR_ARG(base), STR_ARG(token), method);
	jw_end_obj(&c->w);
	e = jw_done(&c->w) == OK ? url.err : c->out.err;
	if (e == OK) {
		struct fetch_req req = { .method = "POST", .url = url.p, .headers = headers,
		    .body_take = &c->out, .idle_us = total_us, .total_us = total_us,
		    .body_max = c->in.max, .once = once };

		c->done = done;
		e = fetch_start(c->tg->a->fetch, &req, &cb, c, &c->op);
	}
	secret_wipe(url.p, url.n);
	buf_free(&url);
	return e;
}

/* How long to wait before asking again what has failed as often before. */
static int64_t
wait_us(const struct answer *r, int64_t failures)
{
	if (r->retry_s > 0 && r->retry_s < 86400)
		return r->retry_s * US_PER_S;
	if (r->code == 401 || r->code == 404 || failures > 6)
		return BACKOFF_MAX_US;
	return BACKOFF_US << failures;
}

/* ---- the reply ----------------------------------------------------------------------- */

static void
talk_free(struct talk *t)
{
	struct talk **p = &t->call.tg->talks;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	ev_timer_cancel(t->call.tg->a->ev, &t->timer);
	effect_cancel(&t->show);
	call_drop(&t->call);
	call_drop(&t->action);
	buf_free(&t->text);
	free(t);
}

static void reply_answered(struct call *c, const struct answer *r);
static void live_answered(struct call *c, const struct answer *r);

/* Sends text: as a draft, as a new message, or as what is to stand in message ref. */
static FALLIBLE
say(struct talk *t, enum way way, int64_t ref, struct str text)
{
	const char *method = ref ? "editMessageText" : way == WAY_RICH ? "sendRichMessage" :
	    way == WAY_DRAFT ? "sendMessageDraft" : "sendMessage";
	struct jw *w = post(&t->call);

	jw_ki64(w, "chat_id", t->chat);
	if (t->thread)
		jw_ki64(w, "message_thread_id", t->thread);
	if (way == WAY_DRAFT) {
		jw_ki64(w, "draft_id", t->turn);
		jw_kbool(w, "can_stop", true);
	} else if (ref) {
		jw_ki64(w, "message_id", ref);
	} else if (t->reply_to && t->item.part == 0) {
		jw_key(w, "reply_parameters");
		jw_obj(w);
		jw_ki64(w, "message_id", t->reply_to);
		jw_kbool(w, "allow_sending_without_reply", true);
		jw_end_obj(w);
	}
	if (way == WAY_RICH) {
		jw_key(w, "rich_message");
		jw_obj(w);
	}
	jw_kstr(w, way == WAY_RICH ? "markdown" : "text", text);
	if (way == WAY_RICH)
		jw_end_obj(w);
	if (way == WAY_HTML)
		jw_kz(w, "parse_mode", "HTML");
	return api(&t->call, method, ref == 0 && way != WAY_DRAFT, t->item.id ? CALL_US : HINT_US,
	    t->item.id ? reply_answered : live_answered);
}

/* Sends the piece that is due, by edit of the placeholder when there is one. */
static void
reply_step(struct talk *t)
{
	struct buf piece = BUF_INIT(BODY_MAX), text = BUF_INIT(BODY_MAX);
	struct markup_split split;
	/* A reply whose placeholder was on its way is stored as one in doubt. A talk that has seen
	 * its turn end knows better by now. */
	bool sure = t->ended && t->ref != REF_UNKNOWN && t->item.attempts == 0;
	enum err e;

	t->editing = t->item.part == 0 && t->ref > 0;
	markup_split_init(&split, buf_view(&t->text),
	    (t->way == WAY_RICH ? RICH_MAX : SHOWN_MAX) - strlen(REPEAT));
	for (int64_t k = 0; k <= t->item.part; k++)
		(void)markup_next(&split, &piece);
	if (t->item.repeated && !t->editing && !sure)
		buf_puts(&text, REPEAT);
	if (t->way == WAY_HTML)
		markup_html(&text, buf_view(&piece));
	else
		buf_str(&text, buf_view(&piece));
	e = t->text.err != OK ? t->text.err : piece.err != OK ? piece.err : text.err;
	t->last = !markup_next(&split, &piece);
	if (e == OK)
		e = say(t, t->way, t->editing ? t->ref : 0, buf_view(&text));
	buf_free(&piece);
	buf_free(&text);
	if (e != OK)
		reply_answered(&t->call, &(struct answer){ .why = str_z(err_str(e)) });
}

static void
reply_answered(struct call *c, const struct answer *r)
{
	struct talk *t = CONTAINER(c, struct talk, call);
	struct agent *a = c->tg->a;
	bool lost = t->editing && (has(r->why, "to edit not found") ||
	    has(r->why, "can't be edited"));
	bool done = r->ok || (t->editing && has(r->why, "message is not modified"));
	char id[ID_SIZE];

	if (lost || (!done && t->way < WAY_PLAIN &&
	    (r->code == 400 || (r->code == 404 && t->way == WAY_RICH)))) {
		c->tg->no_rich = c->tg->no_rich || r->code == 404;
		t->way = lost ? t->way : t->way + 1;
		t->ref = lost ? 0 : t->ref;
		reply_step(t);          /* there is another way to say the same */
		return;
	}
	id_text(id, t->editing ? t->ref : json_i64(r->result, "message_id", 0));
	if (done && t->last) {
		outbox_done(a, t->item.id, str_z(id));
	} else if (done) {              /* a rich message is never cut */
		outbox_part_done(a, t->item.id, str_z(id), t->item.part + 1, S("html"));
	} else if (r->code == 400 || r->code == 403 || r->code == 413) {
		outbox_fail(a, t->item.id, r->why);
	} else {                        /* repeating an edit does no harm */
		outbox_retry(a, t->item.id, wait_us(r, t->item.attempts),
		    r->sent && !t->editing, str_z(way_names[t->way]), r->why);
		t->item.id = 0;
		if (t->ended)
			return;         /* its row may not know the placeholder */
	}
	talk_free(t);
}

/* ---- live text ---------------------------------------------------------------------- */

static void
live_set_ref(struct talk *t, int64_t ref)
{
	char id[ID_SIZE];

	t->ref = ref;
	turn_set_ref(t->call.tg->a, t->turn, ref == REF_UNKNOWN ? S("?") :
	    ref ? id_text(id, ref) : STR_NONE);
}

static void
live_answered(struct call *c, const struct answer *r)
{
	struct talk *t = CONTAINER(c, struct talk, call);

	t->dirty = t->dirty || !r->ok;
	if (t->ref == REF_UNKNOWN && (r->ok || !r->sent))
		live_set_ref(t, json_i64(r->result, "message_id", 0));
	if (t->draft && (r->code == 400 || r->code == 404))
		t->draft = false;               /* not here, or not on this server */
	else if (!r->ok)
		t->quiet_until = ev_now(c->tg->a->ev) + wait_us(r, HINT_FAILURES);
	if (t->item.id)                 /* the reply has been waiting */
		reply_step(t);
}

/* Shows the text. A placeholder's "?" is on disk by now. */
static void
live_show(struct effect *effect)
{
	struct talk *t = CONTAINER(effect, struct talk, show);
	bool blank = str_trim(buf_view(&t->text)).n == 0 && !t->draft;

	t->shown_at = ev_now(t->call.tg->a->ev);
	t->dirty = say(t, t->draft ? WAY_DRAFT : WAY_PLAIN, t->ref > 0 ? t->ref : 0,
	    blank ? S("\u2026") : buf_view(&t->text)) != OK;
}

static void
typing_answered(struct call *c, const struct answer *r)
{
	(void)c;
	(void)r;                        /* a nicety: what becomes of it changes nothing */
}

static void
show_typing(struct talk *t, int64_t now)
{
	struct jw *w;

	if (t->action.op || now < t->quiet_until || now < t->typed_at + TYPING_US)
		return;
	t->typed_at = now;
	w = post(&t->action);
	jw_ki64(w, "chat_id", t->chat);
	if (t->thread)
		jw_ki64(w, "message_thread_id", t->thread);
	jw_kz(w, "action", "typing");
	IGNORE(api(&t->action, "sendChatAction", false, HINT_US, typing_answered));    /* a hint */
}

/* Twice a second: is there something to show? */
static void
live_tick(void *arg)
{
	struct talk *t = arg;
	struct agent *a = t->call.tg->a;
	int64_t now = ev_now(a->ev);
	bool text = t->dirty && str_trim(buf_view(&t->text)).n > 0;
	int64_t gap = !text ? DRAFT_REFRESH_US : t->ref ? EDIT_GAP_US : 0;

	ev_timer_in(a->ev, &t->timer, TICK_US);
	show_typing(t, now);
	if (t->call.op || t->show.list || now < t->quiet_until || t->ref == REF_UNKNOWN ||
	    now < t->shown_at + gap || (t->ref && !text))
		return;
	if (!t->draft && t->ref == 0)
		live_set_ref(t, REF_UNKNOWN);
	agent_after(a, &t->show);
}

/* ---- what the core asks for ------------------------------------------------------------ */

/* The talk of a turn, a new one when there is none; NULL: out of memory. */
static struct talk *
talk_get(struct tg *tg, int64_t turn, const struct target *to, struct str ref)
{
	struct talk *t = tg->talks;

	while (t && (turn == 0 || t->turn != turn))
		t = t->next;
	if (t || !(t = calloc(1, sizeof(*t))))
		return t;
	*t = (struct talk){ .next = tg->talks, .turn = turn, .chat = id_of(to->chat),
	    .thread = id_of(to->thread), .reply_to = id_of(to->reply_to), .ref = id_of(ref),
	    .call = { .tg = tg, .in = BUF_INIT(BODY_MAX), .out = BUF_INIT(BODY_MAX) },
	    .action = { .tg = tg, .in = BUF_INIT(4096), .out = BUF_INIT(4096) }, .typed_at = -TYPING_US,
	    .text = BUF_INIT(REPLY_MAX), .show = { .run = live_show },
	    .shown_at = ev_now(tg->a->ev) + THINKING_US - DRAFT_REFRESH_US };
	t->draft = t->chat > 0 && t->ref == 0 &&
	    str_eqz(config_str(tg->a->config, "telegram.partials"), "draft");
	ev_timer_init(&t->timer, live_tick, t);
	tg->talks = t;
	return t;
}

/* A NUL is refused in any text. */
static void
talk_set_text(struct talk *t, struct str text)
{
	buf_reset(&t->text);
	buf_str(&t->text, text);
	for (size_t i = 0; i < t->text.n; i++)
		if (t->text.p[i] == '\0')
			t->text.p[i] = ' ';
}

static void
tg_send(void *self, const struct outbox_item *item)
{
	struct tg *tg = self;
	int64_t turn = item->kind == OUTBOX_REPLY ? item->turn : 0;
	struct talk *t = talk_get(tg, turn, &item->to, item->edit_ref);

	if (!t) {
		outbox_retry(tg->a, item->id, US_PER_S, false, item->format, S("out of memory"));
		return;
	}
	t->item = *item;
	talk_set_text(t, item->text);
	t->way = tg->no_rich || !config_bool(tg->a->config, "telegram.rich") ||
	    utf8_units(item->text) > RICH_MAX - strlen(REPEAT) ? WAY_HTML : WAY_RICH;
	for (enum way k = WAY_RICH; k <= WAY_PLAIN; k++)
		if (str_eqz(item->format, way_names[k]))
			t->way = k;
	if (!t->call.op)                /* else the answer to live text goes on here */
		reply_step(t);
}

static void
tg_partial(void *self, const struct partial *p)
{
	struct tg *tg = self;
	struct talk *t = talk_get(tg, p->turn, &p->to, p->ref);
	size_t from = p->text.n > LIVE_BYTES ? p->text.n - LIVE_BYTES : 0;

	if (!t)
		return;
	if (p->what == PARTIAL_END) {
		t->ended = true;
		ev_timer_cancel(tg->a->ev, &t->timer);
		if (t->show.list && t->ref == REF_UNKNOWN)      /* promised, never sent */
			live_set_ref(t, 0);
		effect_cancel(&t->show);
		return;
	}
	if (t->text.n == 0)                     /* the first words at once */
		ev_timer_in(tg->a->ev, &t->timer, 0);
	if (p->what == PARTIAL_TEXT || p->what == PARTIAL_RESTART) {
		while (from && from < p->text.n && ((unsigned char)p->text.p[from] & 0xC0) == 0x80)
			from++;                 /* to the begin of a character */
		talk_set_text(t, str_sub(p->text, from, p->text.n));
		t->dirty = true;
	}
}

/* ---- intake ------------------------------------------------------------------------- */

static FALLIBLE
notice(struct tg *tg, const struct target *to, const char *text)
{
	return outbox_put(tg->a, OUTBOX_NOTICE, 0, 0, to, str_z(text), STR_NONE);
}

static bool
is_permitted(struct tg *tg, int64_t from, struct str sender)
{
	const int64_t *ids = NULL;
	size_t n = config_ids(tg->a->config, "telegram.allowed_users", &ids);

	for (size_t i = 0; i < n; i++)
		if (ids[i] == from)
			return true;
	return access_paired(tg->a, S(ME), sender);
}

static FALLIBLE
greet_stranger(struct tg *tg, const struct inbound *in)
{
	char code[16] = "", text[512];
	bool told = false;
	enum err e = access_offer(tg->a, S(ME), in->sender, in->sender_name, code, &told);

	if (e != OK || !told)
		return e;
	snprintf(text, sizeof(text), "Hello! I do not know you yet, so I will not answer.\n\n"
	    "Your Telegram id is %.*s, your pairing code is %s.\n\nThe owner of this bot lets you "
	    "in with:\n`blufio pair %s`\n\nThe code is good for ten minutes.",
	    STR_ARG(in->sender), code, code);
	return notice(tg, &in->to, text);
}

/* All texts of a rich message's blocks, a line each. */
static void
flatten(struct buf *out, const struct json *v)
{
	if (str_eqz(v->key, "type") || str_eqz(v->key, "url") || str_eqz(v->key, "language"))
		return;
	if (v->type == JSON_STRING)
		buf_str(out, v->s);
	for (const struct json *c = v->first; c; c = c->next)
		flatten(out, c);
	if (v->type == JSON_OBJECT && v->key.n == 0 && out->n && out->p[out->n - 1] != '\n')
		buf_putc(out, '\n');
}

/* Text without our name: "@me, what?" is "what?" and "/stop@me now" is "/stop now", which out
 * holds; elsewhere it stays. *called: it is in there, or text is a command to whoever listens. */
static struct str
without_me(const struct tg *tg, struct str text, struct buf *out, bool *called)
{
	size_t n = strlen(tg->username), at = 0, word = 0;
	bool command = text.n && text.p[0] == '/';

	while (at < text.n && !(text.p[at] == '@' && str_ieq(str_sub(text, at + 1, n),
	    str_z(tg->username)) && (at + 1 + n == text.n ||
	    str_chr(S(NAME_CHARS), text.p[at + 1 + n]) == SIZE_MAX)))
		at++;
	while (command && word < text.n && text.p[word] != ' ' && text.p[word] != '\n')
		word++;
	*called = at < text.n || (command && str_chr(str_sub(text, 0, word), '@') == SIZE_MAX);
	if (at > word || at == text.n)
		return text;
	buf_str(out, str_sub(text, 0, at));
	buf_str(out, str_sub(text, at + 1 + n, text.n));
	text = str_trim(buf_view(out));
	return text.n && (text.p[0] == ',' || text.p[0] == ':') ?
	    str_trim(str_sub(text, 1, text.n)) : text;
}

/* A message without text. An album is many messages and one notice. */
static FALLIBLE
take_textless(struct tg *tg, const struct json *m, const struct target *to, bool called)
{
	static const char *const kinds[] = { "photo", "document", "voice", "audio", "video",
	    "video_note", "animation", "sticker", "live_photo", "location", "venue", "contact",
	    "poll", "dice", "checklist", "story", "paid_media", "game" };
	struct str album = json_str(m, "media_group_id", STR_NONE);
	bool media = false;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		media = media || json_at(m, kinds[i]);
	if (!media && called)
		return notice(tg, to, "Yes? Write your question beside my name.");
	if (!media || (album.n && str_eqz(album, tg->album)))
		return OK;              /* service messages: somebody pinned, joined … */
	snprintf(tg->album, sizeof(tg->album), "%.*s", STR_ARG(album));
	return notice(tg, to, "I can only read text so far.");
}

/* A message from somebody we listen to. */
static FALLIBLE
take_permitted(struct tg *tg, const struct json *m, struct inbound *in, bool group, bool edited)
{
	struct buf flat = BUF_INIT(POLL_BODY_MAX), cut = BUF_INIT(POLL_BODY_MAX);
	struct str text = json_str(m, "text", json_str(m, "caption", STR_NONE));
	const struct json *rich = json_at(m, "rich_message.blocks");
	bool called, done = true;
	enum err e;

	if (text.n == 0 && rich)
		flatten(&flat, rich);
	in->text = without_me(tg, str_trim(text.n ? text : buf_view(&flat)), &cut, &called);
	e = flat.err != OK ? flat.err : cut.err;
	/* a topic's messages "reply" to its creation */
	called = called || (!json_at(m, "reply_to_message.forum_topic_created") &&
	    str_eqz(json_str(m, "reply_to_message.from.username", STR_NONE), tg->username));
	if (e != OK || (group && !called))
		goto out;
	if (edited && in->text.n && in->text.n <= MESSAGE_MAX)
		e = inbound_edit(tg->a, &in->to, in->ref, in->text, &done);
	else if (edited)
		done = false;
	else if (in->text.n > MESSAGE_MAX)
		e = notice(tg, &in->to, "That message is too long for me. "
		    "Please send it in parts of less than a megabyte.");
	else if (in->text.n)
		e = inbound_put(tg->a, in, &done);
	else
		e = take_textless(tg, m, &in->to, called);
	if (e == OK && !done)
		log_debug(ME, edited ? "a correction came too late" : "known already");
out:
	buf_free(&flat);
	buf_free(&cut);
	return e;
}

static FALLIBLE
take_message(struct tg *tg, int64_t update, const struct json *m, bool edited)
{
	char chat[ID_SIZE], thread[ID_SIZE], ref[ID_SIZE], sender[ID_SIZE], dedup[3 * ID_SIZE];
	bool group = !str_eqz(json_str(m, "chat.type", STR_NONE), "private");
	int64_t from = json_i64(m, "from.id", 0);
	struct inbound in = { .to = { S(ME), id_text(chat, json_i64(m, "chat.id", 0)), STR_NONE,
	    STR_NONE }, .ref = id_text(ref, json_i64(m, "message_id", 0)),
	    .sender = id_text(sender, from), .sent_at = json_i64(m, "date", 0) * US_PER_S,
	    .sender_name = json_str(m, "from.first_name", STR_NONE) };

	if (from == 0 || json_bool(m, "from.is_bot", false))
		return OK;
	if (json_at(m, "migrate_to_chat_id"))
		log_warn(ME, "a group became a supergroup: its conversation begins anew");
	if (json_bool(m, "is_topic_message", false))
		in.to.thread = id_text(thread, json_i64(m, "message_thread_id", 0));
	if (group)
		in.to.reply_to = in.ref;
	snprintf(dedup, sizeof(dedup), "%lld:%s:%s", (long long)update, chat, ref);
	in.dedup = str_z(dedup);
	if (is_permitted(tg, from, in.sender))
		return take_permitted(tg, m, &in, group, edited);
	return group || edited ? OK : greet_stranger(tg, &in);
}

/* The button under a draft. One of an earlier turn says nothing about this one. */
static void
take_stop(struct tg *tg, const struct json *stop)
{
	int64_t turn = json_i64(stop, "draft_id", 0), chat = json_i64(stop, "chat.id", 0);
	char to[ID_SIZE], thread[ID_SIZE];

	for (struct talk *t = tg->talks; t && turn; t = t->next)
		if (t->turn == turn && t->chat == chat && !t->ended)
			session_stop(tg->a, &(struct target){ S(ME), id_text(to, chat),
			    t->thread ? id_text(thread, t->thread) : STR_NONE, STR_NONE });
}

static FALLIBLE
take_update(struct tg *tg, int64_t id, const struct json *u)
{
	const struct json *v;

	if ((v = json_at(u, "message")))
		return take_message(tg, id, v, false);
	if ((v = json_at(u, "edited_message")))
		return take_message(tg, id, v, true);
	if ((v = json_at(u, "stopped_message_generation")))
		take_stop(tg, v);
	return OK;
}

/* ---- the poll ----------------------------------------------------------------------- */

/* A single update that cannot be read, again and again: acknowledged unread. */
static void
skip_poison(struct tg *tg, struct str body)
{
	struct str rest = str_sub(body, str_find(body, S("\"update_id\"")), body.n), head;
	int64_t id;

	str_cut(&rest, ':', &head);
	str_cut(&rest, ',', &head);
	if (str_i64(str_trim(head), 0, INT64_MAX - 1, &id) != OK)
		return;                 /* there is none: this is not Telegram */
	log_error(ME, "update %lld cannot be read and is skipped", (long long)id);
	tg->offset = id + 1;
	tg->poison = 0;
}

static void
poll_failed(struct tg *tg, const struct answer *r)
{
	enum poll_state state = POLL_BACKOFF;
	struct str why = r->why;

	if (r->code == 401 || r->code == 404) {
		state = POLL_UNAUTHORIZED;
		why = S("Telegram refuses the bot token; give a new one with `blufio config set "
		    "telegram.bot_token TOKEN` and restart");
	} else if (r->code == 409) {
		state = POLL_CONFLICT;
		why = has(why, "webhook") ? S("a webhook is set for this bot; remove it by opening "
		    "https://api.telegram.org/bot<token>/deleteWebhook once") :
		    S("another program polls with the same token; stop it, or give this bot its "
		    "own with `blufio config set telegram.bot_token TOKEN`");
	}
	snprintf(tg->problem, sizeof(tg->problem), "%.*s", STR_ARG(why));
	log_emit(state == tg->state ? LOG_DEBUG : LOG_WARN, ME, "no updates: %s", tg->problem);
	tg->state = state;
	if (r->unreadable.n && ++tg->poison > POISON_TRIES)
		skip_poison(tg, r->unreadable);
	ev_timer_in(tg->a->ev, &tg->poll_timer, wait_us(r, tg->failures++));
}

static void
poll_done(struct call *c, const struct answer *r)
{
	struct tg *tg = c->tg;
	enum err e = OK;

	if (!r->ok) {
		poll_failed(tg, r);
		return;
	}
	if (tg->username[0] == '\0') {          /* it was getMe */
		snprintf(tg->username, sizeof(tg->username), "%.*s",
		    STR_ARG(json_str(r->result, "username", S("?"))));
		log_info(ME, "this bot is @%s", tg->username);
	}
	for (const struct json *u = json_at(r->result, "0"); u && e == OK; u = u->next) {
		tg->offset = json_i64(u, "update_id", 0) + 1;
		tg->seen_at = clock_us();
		tg->seen_mono = ev_now(tg->a->ev);
		e = take_update(tg, tg->offset - 1, u);
		if (e == ERR_LIMIT) {   /* would be one again for ever */
			log_error(ME, "an update beyond a limit is skipped");
			e = OK;
		}
	}
	agent_wrote(tg->a, e);          /* our own trouble: all of them come again */
	if (tg->state != POLL_POLLING)
		log_info(ME, "polling");
	tg->state = POLL_POLLING;
	tg->problem[0] = '\0';
	tg->failures = tg->poison = 0;
	tg->last_poll = ev_now(tg->a->ev);
	/* an effect even when nothing came: a turn that fails to commit is reloaded first */
	agent_after(tg->a, &tg->poll_effect);
}

/* Asks for updates. Until getMe answered it comes first, failing like a poll does: without the
 * bot's name nobody can tell which messages of a group are meant for it. */
static void
poll_start(void *arg)
{
	struct tg *tg = arg;
	int64_t wait = config_i64(tg->a->config, "telegram.poll_timeout");
	const char *method = "getUpdates";
	struct jw *w = post(&tg->poll);
	enum err e;

	if (tg->username[0] == '\0') {
		method = "getMe";
	} else if (!tg->greeted) {
		method = "setMyCommands";
		tg->greeted = true;             /* a nicety: tried once */
		jw_kraw(w, "commands", S("[{\"command\":\"start\",\"description\":\"Say hello\"},"
		    "{\"command\":\"new\",\"description\":\"Begin a new conversation\"},"
		    "{\"command\":\"stop\",\"description\":\"Stop the running answer\"},"
		    "{\"command\":\"help\",\"description\":\"What I can do\"}]"));
	} else {
		if (tg->offset && clock_us() - tg->seen_at < SILENCE_US &&
		    ev_now(tg->a->ev) - tg->seen_mono < SILENCE_US)
			jw_ki64(w, "offset", tg->offset);
		jw_ki64(w, "limit", tg->poison ? 1 : POLL_LIMIT);
		jw_ki64(w, "timeout", wait);
		jw_kraw(w, "allowed_updates",
		    S("[\"message\",\"edited_message\",\"stopped_message_generation\"]"));
	}
	e = api(&tg->poll, method, false, wait * US_PER_S + POLL_SLACK_US, poll_done);
	if (e != OK)
		poll_failed(tg, &(struct answer){ .why = str_z(err_str(e)) });
}

static void
poll_after(struct effect *e)
{
	poll_start(CONTAINER(e, struct tg, poll_effect));
}

/* ---- the channel -------------------------------------------------------------------- */

static bool
tg_wanted(const struct config *c)
{
	return config_secret(c, "telegram.bot_token") != NULL;
}

static FALLIBLE
tg_start(struct agent *a, void **self, struct fail *f)
{
	struct str token = secret_reveal(config_secret(a->config, "telegram.bot_token"));
	size_t good = 0;
	struct tg *tg;

	/* digits ':' letters, digits, "_" and "-": it becomes a part of every URL */
	while (good < token.n && str_chr(S(NAME_CHARS ":-"), token.p[good]) != SIZE_MAX)
		good++;
	if (good < 37 || good < token.n || str_chr(token, ':') == SIZE_MAX)
		return fail_set(f, ERR_CONFIG, "telegram.bot_token (%s) is not a bot token: "
		    "wanted are digits, a colon and at least 35 letters, as @BotFather gave it; "
		    "set it with `blufio config set telegram.bot_token TOKEN`",
		    config_origin(a->config, "telegram.bot_token"));
	tg = calloc(1, sizeof(*tg));
	if (!tg)
		return fail_set(f, ERR_NOMEM, "telegram: out of memory");
	*tg = (struct tg){ .a = a, .poll_effect = { .run = poll_after }, .poll = { .tg = tg,
	    .in = BUF_INIT(POLL_BODY_MAX), .out = BUF_INIT(BODY_MAX) } };
	ev_timer_init(&tg->poll_timer, poll_start, tg);
	*self = tg;
	return OK;
}

static void
tg_stop_intake(void *self)
{
	struct tg *tg = self;

	call_drop(&tg->poll);
	tg->offset = 0;                 /* what was not committed comes again */
	ev_timer_cancel(tg->a->ev, &tg->poll_timer);
	effect_cancel(&tg->poll_effect);
}

static void
tg_reset(void *self)
{
	struct tg *tg = self;

	tg_stop_intake(tg);
	while (tg->talks)
		talk_free(tg->talks);
}

static void
tg_status(void *self, struct jw *w)
{
	struct tg *tg = self;

	jw_kz(w, "state", poll_names[tg->state]);
	if (tg->last_poll)
		jw_ki64(w, "last_poll_age_s", (ev_now(tg->a->ev) - tg->last_poll) / US_PER_S);
	jw_kz(w, "bot", tg->username);
	jw_kz(w, "detail", tg->problem);
}

static const struct channel_ops ops = {
	.wanted = tg_wanted, .start = tg_start, .load = poll_start, .stop_intake = tg_stop_intake,
	.reset = tg_reset, .free = free, .send = tg_send, .partial = tg_partial,
	.status = tg_status
};
const struct feature telegram_feature = {
	.name = "telegram", .kind = FEATURE_CHANNEL, .keys = keys, .channel = &ops,
	.summary = "Telegram bot: answers people and groups, streams drafts, sends rich messages"
};
