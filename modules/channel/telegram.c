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
 *
 * Files. A download is getFile, then the file itself, streamed to media.c; from
 * a local Bot API server it is a path. Neither URL is ever logged: they hold the
 * token.
 */
#include "blufio.h"
#include "channel/telegram/message.h"
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
#define RICH_MAX 32768                      /* the same of a rich message, and its blocks */
#define RICH_BLOCKS_MAX 480
#define DOWNLOAD_IDLE_US (60 * US_PER_S)
#define PRESS_TEXT_MAX 64                   /* bytes of a button's datum */
#define PRESSES_MAX 32                      /* being answered */
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
	int64_t moved_to;       /* the group has become another chat */
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
	char called[ID_SIZE];   /* the last one of a group that was meant for the bot */
	bool no_rich;           /* this server does not know rich messages */
	struct talk *talks;
	struct download *downloads;
	struct press *presses;
	size_t n_presses;
};
/* An attachment on its way: first getFile, then the file. */
struct download {
	struct call call;
	struct download *next;
	int64_t id;
	struct fetch_op *op;    /* of the file */
	unsigned status;
	bool full;              /* media.c wants no more */
};
/* The answer to a pressed button; what becomes of it changes nothing. */
struct press {
	struct call call;
	struct press *next;
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
	struct buf buttons;     /* under the reply: [["label","/word"],…]; empty: none */
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
	{ .name = "telegram.transcribe_command", .type = CONFIG_ARGV,
	  .example = "[\"/usr/local/bin/whisper\", \"{file}\"]",
	  .help = "What turns a voice message into text: it prints the text; {file} stands for the "
	  "recording, else it is the standard input." },
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
		a.moved_to = json_i64(v, "parameters.migrate_to_chat_id", 0);
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

/* base + before + token + after: an address that holds the token, to be wiped. */
static void
put_address(struct tg *tg, struct buf *url, const char *before, const char *after)
{
	struct config *cf = tg->a->config;
	struct str base = config_str(cf, "telegram.api_base");
	struct str token = secret_reveal(config_secret(cf, "telegram.bot_token"));

	while (base.n && base.p[base.n - 1] == '/')
		base.n--;
	buf_fmt(url, "%.*s%s%.*s/%s", STR_ARG(base), before, STR_ARG(token), after);
}

/* Ends and sends it. once: libcurl may not repeat it by itself on a connection that proves dead. */
static FALLIBLE
api(struct call *c, const char *method, bool once, int64_t total_us,
    void (*done)(struct call *, const struct answer *))
{
	static const struct fetch_cb cb = { NULL, on_data, on_done };
	static const char *const headers[] = { "Content-Type: application/json", NULL };
	struct buf url = BUF_INIT(4096);
	enum err e;

	put_address(c->tg, &url, "/bot", method);
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
	buf_free(&t->buttons);
	free(t);
}

static void reply_answered(struct call *c, const struct answer *r);
static void live_answered(struct call *c, const struct answer *r);

/* A row for each button. What is too long for Telegram is left out, never cut to another word. */
static void
put_buttons(struct jw *w, struct str buttons)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(buttons.n));
	const struct json *list = NULL;

	if (buttons.n == 0 || json_parse(&ar, buttons, &list, NULL) != OK)
		list = NULL;
	if (list) {
		jw_key(w, "reply_markup");
		jw_obj(w);
		jw_key(w, "inline_keyboard");
		jw_arr(w);
	}
	for (const struct json *b = list ? list->first : NULL; b; b = b->next) {
		struct str word = json_str(b, "1", STR_NONE);

		if (word.n == 0 || word.n > PRESS_TEXT_MAX) {
			log_warn(ME, "a button is left out: its word is longer than %d bytes", PRESS_TEXT_MAX);
			continue;
		}
		jw_arr(w);
		jw_obj(w);
		jw_kstr(w, "text", json_str(b, "0", word));
		jw_kstr(w, "callback_data", word);
		jw_end_obj(w);
		jw_end_arr(w);
	}
	if (list) {
		jw_end_arr(w);
		jw_end_obj(w);
	}
	arena_free(&ar);
}

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
	if (t->item.id && t->last)
		put_buttons(w, buf_view(&t->buttons));
	return api(&t->call, method, ref == 0 && way != WAY_DRAFT, t->item.id ? CALL_US : HINT_US,
	    t->item.id ? reply_answered : live_answered);
}

/* Sends the piece that is due, by edit of the placeholder when there is one. */
static void
reply_step(struct talk *t)
{
	struct buf piece = BUF_INIT(BODY_MAX), text = BUF_INIT(BODY_MAX), tame = BUF_INIT(2 * REPLY_MAX);
	struct markup_split split;
	/* A reply whose placeholder was on its way is stored as one in doubt. A talk that has seen
	 * its turn end knows better by now. */
	bool sure = t->ended && t->ref != REF_UNKNOWN && t->item.attempts == 0;
	enum err e;

	t->editing = t->item.part == 0 && t->ref > 0;
	if (t->way == WAY_RICH)
		markup_tame(&tame, buf_view(&t->text));
	markup_split_init(&split, t->way == WAY_RICH ? buf_view(&tame) : buf_view(&t->text),
	    (t->way == WAY_RICH ? RICH_MAX : SHOWN_MAX) - strlen(REPEAT));
	split.max_blocks = t->way == WAY_RICH ? RICH_BLOCKS_MAX : 0;
	for (int64_t k = 0; k <= t->item.part; k++)
		(void)markup_next(&split, &piece);
	if (t->item.repeated && !t->editing && !sure)
		buf_puts(&text, REPEAT);
	if (t->way == WAY_HTML)
		markup_html(&text, buf_view(&piece));
	else
		buf_str(&text, buf_view(&piece));
	e = t->text.err != OK ? t->text.err : piece.err != OK ? piece.err : tame.err != OK ? tame.err : text.err;
	t->last = !markup_next(&split, &piece);
	if (e == OK)
		e = say(t, t->way, t->editing ? t->ref : 0, buf_view(&text));
	buf_free(&piece);
	buf_free(&text);
	buf_free(&tame);
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
	char id[ID_SIZE], to[ID_SIZE];

	if (r->moved_to && r->moved_to != t->chat) {
		id_text(id, t->chat);
		t->chat = r->moved_to;
		agent_wrote(a, session_moved(a, S(ME), str_z(id), id_text(to, t->chat)));
		outbox_retry(a, t->item.id, 0, false, str_z(way_names[t->way]), S("the group has a new id"));
		talk_free(t);
		return;
	}
	/* a part that follows another has its way: another one would cut the text elsewhere */
	if (lost || (!done && t->way < WAY_PLAIN && (t->item.part == 0 || t->way != WAY_RICH) &&
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
	} else if (done) {              /* the parts that follow go the same way */
		outbox_part_done(a, t->item.id, str_z(id), t->item.part + 1, str_z(way_names[t->way]));
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
	    .text = BUF_INIT(REPLY_MAX), .buttons = BUF_INIT(BODY_MAX), .show = { .run = live_show },
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
	buf_reset(&t->buttons);
	buf_str(&t->buttons, item->buttons);
	t->way = tg->no_rich || !config_bool(tg->a->config, "telegram.rich") ? WAY_HTML : WAY_RICH;
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

/* What cannot be read is said: once for an album. */
static FALLIBLE
say_cannot(struct tg *tg, const struct json *m, const struct target *to, const char *why)
{
	struct str album = json_str(m, "media_group_id", STR_NONE);

	if (album.n && str_eqz(album, tg->album))
		return OK;
	snprintf(tg->album, sizeof(tg->album), "%.*s", STR_ARG(album));
	return notice(tg, to, why);
}

/* Is a group's message meant for the bot? The parts of an album follow the one that said so. */
static bool
is_called(struct tg *tg, const struct json *m, bool called)
{
	struct str album = json_str(m, "media_group_id", STR_NONE);

	/* a topic's messages "reply" to its creation */
	called = called || (!json_at(m, "reply_to_message.forum_topic_created") &&
	    str_eqz(json_str(m, "reply_to_message.from.username", STR_NONE), tg->username));
	if (called && album.n)
		snprintf(tg->called, sizeof(tg->called), "%.*s", STR_ARG(album));
	return called || (album.n && str_eqz(album, tg->called));
}

/* A message from somebody we listen to. */
static FALLIBLE
take_permitted(struct tg *tg, const struct json *m, struct inbound *in, bool group, bool edited)
{
	struct buf cut = BUF_INIT(POLL_BODY_MAX), whole = BUF_INIT(POLL_BODY_MAX);
	struct tg_content c;
	bool called, done = true;
	enum err e;

	tg_content_init(&c);
	e = tg_content_read(m, config_argv(tg->a->config, "telegram.transcribe_command") != NULL, tg->username, &c);
	in->text = without_me(tg, str_trim(buf_view(&c.text)), &cut, &called);
	called = is_called(tg, m, called);
	if (in->text.n && c.before.n) {
		buf_str(&whole, buf_view(&c.before));
		buf_str(&whole, in->text);
		in->text = buf_view(&whole);
	}
	in->attachments = c.has_file ? &c.file : NULL;
	in->n_attachments = c.has_file;
	if (c.has_file)
		in->album = json_str(m, "media_group_id", STR_NONE);
	e = e != OK ? e : cut.err != OK ? cut.err : whole.err;
	if (e != OK || (group && !called))
		goto out;
	if (edited && in->text.n && in->text.n <= MESSAGE_MAX)
		e = inbound_edit(tg->a, &in->to, in->ref, in->text, &done);
	else if (edited)
		done = false;
	else if (in->text.n > MESSAGE_MAX)
		e = notice(tg, &in->to, "That message is too long for me. "
		    "Please send it in parts of less than a megabyte.");
	else if (in->text.n || c.has_file)
		e = inbound_put(tg->a, in, &done);
	else if (called && !c.cannot && json_at(m, "text"))
		e = notice(tg, &in->to, "Yes? Write your question beside my name.");
	if (e == OK && c.cannot && !edited && done)
		e = say_cannot(tg, m, &in->to, c.cannot);
	if (e == OK && !done)
		log_debug(ME, edited ? "a correction came too late" : "known already");
out:
	tg_content_free(&c);
	buf_free(&cut);
	buf_free(&whole);
	return e;
}

/* The group is another chat from now on. */
static FALLIBLE
take_move(struct tg *tg, int64_t from, int64_t to)
{
	char a[ID_SIZE], b[ID_SIZE];

	log_info(ME, "a group became a supergroup: its conversations go on there");
	for (struct talk *t = tg->talks; t; t = t->next)
		if (t->chat == from)
			t->chat = to;
	return session_moved(tg->a, S(ME), id_text(a, from), id_text(b, to));
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
	    .position = json_i64(m, "message_id", 0),
	    .sender_name = json_str(m, "from.first_name", STR_NONE) };

	if (json_i64(m, "migrate_to_chat_id", 0) && !edited)
		return take_move(tg, json_i64(m, "chat.id", 0), json_i64(m, "migrate_to_chat_id", 0));
	if (from == 0 || json_bool(m, "from.is_bot", false))
		return OK;
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

static void
press_answered(struct call *c, const struct answer *r)
{
	struct press *p = CONTAINER(c, struct press, call), **at = &c->tg->presses;

	if (!r->ok)
		log_debug(ME, "a pressed button could not be answered: %.*s", STR_ARG(r->why));
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	c->tg->n_presses--;
	call_drop(c);
	free(p);
}

/* A button shows that it is busy until its press is answered. */
static void
answer_press(struct tg *tg, struct str id, const char *text)
{
	struct press *p = tg->n_presses < PRESSES_MAX ? calloc(1, sizeof(*p)) : NULL;
	struct jw *w;

	if (!p)
		return;                 /* Telegram ends it by itself after a while */
	*p = (struct press){ .call = { .tg = tg, .in = BUF_INIT(4096), .out = BUF_INIT(4096) }, .next = tg->presses };
	tg->presses = p;
	tg->n_presses++;
	w = post(&p->call);
	jw_kstr(w, "callback_query_id", id);
	if (*text)
		jw_kz(w, "text", text);
	if (api(&p->call, "answerCallbackQuery", false, HINT_US, press_answered) != OK)
		press_answered(&p->call, &(struct answer){ .why = S("out of memory") });
}

/* A pressed button says its word, as if the person had typed it. Anybody in a group can press. */
static FALLIBLE
take_press(struct tg *tg, const struct json *q)
{
	char chat[ID_SIZE], thread[ID_SIZE], sender[ID_SIZE], dedup[64];
	int64_t from = json_i64(q, "from.id", 0);
	struct str word = json_str(q, "data", STR_NONE), id = json_str(q, "id", STR_NONE);
	struct inbound in = { .to = { S(ME), id_text(chat, json_i64(q, "message.chat.id", 0)), STR_NONE, STR_NONE },
	    .sender = id_text(sender, from), .sender_name = json_str(q, "from.first_name", STR_NONE), .text = word,
	    .sent_at = 0 };
	bool permitted = is_permitted(tg, from, in.sender), fresh;

	answer_press(tg, id, permitted ? "" : "This is not for you.");
	if (!permitted || word.n == 0 || word.n > PRESS_TEXT_MAX || word.p[0] != '/' || json_i64(q, "message.chat.id", 0) == 0)
		return OK;
	if (json_bool(q, "message.is_topic_message", false))
		in.to.thread = id_text(thread, json_i64(q, "message.message_thread_id", 0));
	snprintf(dedup, sizeof(dedup), "callback:%.*s", STR_ARG(str_sub(id, 0, 40)));
	in.dedup = str_z(dedup);
	return inbound_put(tg->a, &in, &fresh);
}

static FALLIBLE
take_update(struct tg *tg, int64_t id, const struct json *u)
{
	const struct json *v;

	if ((v = json_at(u, "message")))
		return take_message(tg, id, v, false);
	if ((v = json_at(u, "edited_message")))
		return take_message(tg, id, v, true);
	if ((v = json_at(u, "callback_query")))
		return take_press(tg, v);
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
		    "{\"command\":\"model\",\"description\":\"Show or choose the model\"},"
		    "{\"command\":\"help\",\"description\":\"What I can do\"}]"));
	} else {
		if (tg->offset && clock_us() - tg->seen_at < SILENCE_US &&
		    ev_now(tg->a->ev) - tg->seen_mono < SILENCE_US)
			jw_ki64(w, "offset", tg->offset);
		jw_ki64(w, "limit", tg->poison ? 1 : POLL_LIMIT);
		jw_ki64(w, "timeout", wait);
		jw_kraw(w, "allowed_updates",
		    S("[\"message\",\"edited_message\",\"callback_query\",\"stopped_message_generation\"]"));
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

/* ---- files -------------------------------------------------------------------------- */

static void
download_free(struct download *d)
{
	struct download **at = &d->call.tg->downloads;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	fetch_cancel(d->op);
	call_drop(&d->call);
	free(d);
}

/* Ends it; media.c hears why unless it has lost interest. */
static void
download_end(struct download *d, enum err e, struct str why, bool again, int64_t wait)
{
	struct agent *a = d->call.tg->a;
	int64_t id = d->id;
	bool full = d->full;

	d->op = NULL;
	download_free(d);
	if (!full)
		media_end(a, id, e, why, again, wait);
}

static void
file_head(void *arg, struct fetch_op *op, unsigned status)
{
	(void)op;
	((struct download *)arg)->status = status;
}

static void
file_data(void *arg, struct fetch_op *op, struct str bytes)
{
	struct download *d = arg;

	(void)op;
	if (d->status == 200 && !d->full)
		d->full = media_data(d->call.tg->a, d->id, bytes) != OK;
}

static void
file_done(void *arg, struct fetch_op *op, const struct fetch_result *r)
{
	struct download *d = arg;
	bool again = r->err != OK || d->status == 429 || d->status >= 500;
	char why[64];

	(void)op;
	snprintf(why, sizeof(why), "Telegram answered %u", d->status);
	if (r->err == OK && d->status == 200)
		download_end(d, OK, STR_NONE, false, -1);
	else if (r->err == OK && d->status == 404)      /* its path has expired: getFile gives another */
		download_end(d, ERR_NOTFOUND, S("Telegram no longer has it"), true, -1);
	else
		download_end(d, r->err != OK ? r->err : ERR_PROTO, r->err != OK ? str_z(r->why) : str_z(why),
		    again && r->err != ERR_LIMIT, -1);
}

/* A local server says where the file lies. It is trusted to: it has the bot's messages anyway. */
static void
file_local(struct download *d, const char *path)
{
	struct agent *a = d->call.tg->a;
	struct url u;
	int64_t id = d->id;
	bool near = url_parse(config_str(a->config, "telegram.api_base"), &u) == OK && url_is_loopback(&u);

	d->full = true;
	download_end(d, OK, STR_NONE, false, -1);
	if (near && !strstr(path, "/../"))
		media_take_file(a, id, path);
	else
		media_end(a, id, ERR_DENIED, S("only a Bot API server of this machine may name a file"), false, -1);
}

static void
file_answered(struct call *c, const struct answer *r)
{
	static const struct fetch_cb cb = { file_head, file_data, file_done };
	struct download *d = CONTAINER(c, struct download, call);
	struct str path = json_str(r->result, "file_path", STR_NONE);
	struct buf url = BUF_INIT(8192), name = BUF_INIT(4096);
	enum err e;

	if (!r->ok || path.n == 0) {
		bool big = has(r->why, "too big");

		download_end(d, r->ok ? ERR_PROTO : ERR_NOTFOUND, big ? S("Telegram hands out 20 MB at most") :
		    r->ok ? S("Telegram does not say where it is") : r->why, !r->ok && (r->code < 400 || r->code == 429 ||
		    r->code >= 500), r->retry_s > 0 ? wait_us(r, 0) : -1);
		return;
	}
	buf_str(&name, path);
	if (path.p[0] == '/' && name.err == OK) {
		file_local(d, name.p);
		buf_free(&name);
		return;
	}
	buf_reset(&name);
	for (struct str rest = path, part; rest.n;) {
		bool more = str_cut(&rest, '/', &part);

		enc_url(&name, part);
		if (more)
			buf_putc(&name, '/');
	}
	put_address(c->tg, &url, "/file/bot", buf_z(&name));
	e = name.err != OK ? name.err : url.err;
	if (e == OK) {
		struct fetch_req req = { .method = "GET", .url = url.p, .idle_us = DOWNLOAD_IDLE_US,
		    .total_us = ATTACHMENT_US, .body_max = ATTACHMENT_BYTES_MAX + 1 };

		e = fetch_start(c->tg->a->fetch, &req, &cb, d, &d->op);
	}
	secret_wipe(url.p, url.n);
	buf_free(&url);
	buf_free(&name);
	if (e != OK)
		download_end(d, e, str_z(err_str(e)), e == ERR_NOMEM || e == ERR_LIMIT, -1);
}

static void
tg_fetch(void *self, const struct attachment *at)
{
	struct tg *tg = self;
	struct download *d = calloc(1, sizeof(*d));

	if (!d) {
		media_end(tg->a, at->id, ERR_NOMEM, S("out of memory"), true, -1);
		return;
	}
	*d = (struct download){ .call = { .tg = tg, .in = BUF_INIT(BODY_MAX), .out = BUF_INIT(4096) },
	    .next = tg->downloads, .id = at->id };
	tg->downloads = d;
	jw_kstr(post(&d->call), "file_id", at->source);
	if (api(&d->call, "getFile", false, CALL_US, file_answered) != OK)
		download_end(d, ERR_NOMEM, S("out of memory"), true, -1);
}

static void
tg_fetch_cancel(void *self, int64_t id)
{
	struct tg *tg = self;
	struct download *d = tg->downloads;

	while (d && d->id != id)
		d = d->next;
	if (d)
		download_free(d);
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
	while (tg->downloads)
		download_free(tg->downloads);
	while (tg->presses)
		press_answered(&tg->presses->call, &(struct answer){ .ok = true });
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
	.fetch = tg_fetch, .fetch_cancel = tg_fetch_cancel, .transcribe_key = "telegram.transcribe_command",
	.status = tg_status
};
const struct feature telegram_feature = {
	.name = "telegram", .kind = FEATURE_CHANNEL, .keys = keys, .channel = &ops,
	.summary = "Telegram bot: answers people and groups, streams drafts, sends rich messages"
};
