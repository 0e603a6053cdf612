/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tg_talk.c - what is said on Telegram: live text while an answer grows, then the reply.
 *
 * A talk is what is said in answer to one message. Its calls go out one after
 * another, so the reply arrives last and knows what became of a placeholder. Live
 * text is hints: private chats get drafts, others a placeholder that is edited:
 * "?" is committed as its id before it goes.
 *
 * The reply is cut into pieces by a pure function of its text and way, so part
 * and way are all there is to remember ("html+2": as HTML behind two rich pieces,
 * because Telegram refused the third). Edits can be repeated harmlessly; sends
 * cannot: when one may have arrived, outbox.c marks the row and the next begins
 * with REPEAT. A send has a new connection: on a kept one libcurl may repeat it.
 */
#include "channel/telegram/tg.h"
#include "core/markup.h"

#define SHOWN_MAX 4096                      /* UTF-16 units of one message */
#define RICH_MAX 32768                      /* the same of a rich message, and its blocks */
#define RICH_BLOCKS_MAX 480
#define REPEAT "(This may be a repeat: I was interrupted while sending it.)\n\n"
#define LIVE_BYTES 4000                     /* of a longer text the end is shown */
#define TYPING_US (4 * US_PER_S)           /* a chat action is shown for five */
#define TICK_US (500 * US_PER_MS)           /* a draft may change as often */
#define EDIT_GAP_US (1200 * US_PER_MS)
#define DRAFT_REFRESH_US (25 * US_PER_S)    /* a draft lasts 30 s */
#define THINKING_US (3 * US_PER_S)          /* without text until now: show that work goes on */
#define HINT_FAILURES 3                     /* live text pauses as after so many failures */

/* How a text is sent. A reply that is refused goes the next way, up to WAY_PLAIN. */
enum way { WAY_RICH, WAY_HTML, WAY_PLAIN, WAY_DRAFT };
static const char *const way_names[] = { "rich", "html", "plain" };
#define WAY_SIZE 32

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
	int64_t rich;           /* pieces that went as rich messages before way was taken */
	bool editing, last;
};

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
	tg_call_drop(&t->call);
	tg_call_drop(&t->action);
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
	struct jw *w = tg_post(&t->call);

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
	return tg_api(&t->call, method, ref == 0 && way != WAY_DRAFT, t->item.id ? CALL_US : HINT_US,
	    t->item.id ? reply_answered : live_answered);
}

/* A reply whose placeholder was on its way is stored as one in doubt. A talk that has seen its turn end knows better by
 * now: nothing of it is there. */
static bool
is_first(const struct talk *t)
{
	return t->ended && t->ref != REF_UNKNOWN && t->item.attempts == 0;
}

/* Sends the piece that is due, by edit of the placeholder when there is one. */
static void
reply_step(struct talk *t)
{
	struct buf piece = BUF_INIT(BODY_MAX), text = BUF_INIT(BODY_MAX), tame = BUF_INIT(2 * REPLY_MAX);
	struct markup_split split;
	enum err e;

	t->editing = t->item.part == 0 && t->ref > 0;
	if (t->way == WAY_RICH || t->rich)
		markup_tame(&tame, buf_view(&t->text));
	markup_split_init(&split, t->way == WAY_RICH || t->rich ? buf_view(&tame) : buf_view(&t->text),
	    RICH_MAX - strlen(REPEAT));
	split.max_blocks = RICH_BLOCKS_MAX;
	for (int64_t k = 0; k <= t->item.part; k++) {
		if (t->way != WAY_RICH && k == t->rich) {
			split.max = SHOWN_MAX - strlen(REPEAT);
			split.max_blocks = 0;
		}
		(void)markup_next(&split, &piece);
	}
	if (t->item.repeated && !t->editing && !is_first(t))
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

/* The way as it stands in the row. */
static struct str
way_text(const struct talk *t, char out[WAY_SIZE])
{
	snprintf(out, WAY_SIZE, t->rich ? "%s+%lld" : "%s", way_names[t->way], (long long)t->rich);
	return str_z(out);
}

static void
way_read(struct talk *t, struct str format)
{
	struct str name;

	str_cut(&format, '+', &name);
	t->rich = 0;
	for (enum way k = WAY_RICH; k <= WAY_PLAIN; k++)
		if (str_eqz(name, way_names[k]))
			t->way = k;
	if (t->way != WAY_RICH && format.n)
		IGNORE(str_i64(format, 1, INT32_MAX, &t->rich));        /* what we did not write is none */
}

static void
reply_answered(struct call *c, const struct answer *r)
{
	struct talk *t = CONTAINER(c, struct talk, call);
	struct agent *a = c->tg->a;
	bool lost = t->editing && (has(r->why, "to edit not found") ||
	    has(r->why, "can't be edited"));
	bool done = r->ok || (t->editing && has(r->why, "message is not modified"));
	char id[ID_SIZE], to[ID_SIZE], format[WAY_SIZE];

	if (r->moved_to && r->moved_to != t->chat) {
		id_text(id, t->chat);
		t->chat = r->moved_to;
		agent_wrote(a, session_moved(a, S(ME), str_z(id), id_text(to, t->chat)));
		outbox_retry(a, t->item.id, 0, t->item.part == 0 && is_first(t) ? DOUBT_NONE : DOUBT_AS_BEFORE,
		    way_text(t, format), S("the group has a new id"));
		talk_free(t);
		return;
	}
	if (lost || (!done && t->way < WAY_PLAIN && (r->code == 400 || (r->code == 404 && t->way == WAY_RICH)))) {
		c->tg->no_rich = c->tg->no_rich || r->code == 404;
		if (!lost && t->way == WAY_RICH)
			t->rich = t->item.part; /* what is there stays; the rest is cut for the next way */
		t->way = lost ? t->way : t->way + 1;
		t->ref = lost ? 0 : t->ref;
		reply_step(t);          /* there is another way to say the same */
		return;
	}
	id_text(id, t->editing ? t->ref : json_i64(r->result, "message_id", 0));
	if (done && t->last) {
		outbox_done(a, t->item.id, str_z(id));
	} else if (done) {              /* the parts that follow go the same way */
		outbox_part_done(a, t->item.id, str_z(id), t->item.part + 1, way_text(t, format));
	} else if (r->code == 400 || r->code == 403 || r->code == 413) {
		outbox_fail(a, t->item.id, r->why);
	} else {                        /* repeating an edit does no harm */
		outbox_retry(a, t->item.id, tg_wait_us(r, t->item.attempts),
		    r->sent && !t->editing ? DOUBT_MAYBE_SENT : DOUBT_AS_BEFORE, way_text(t, format), r->why);
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
		t->quiet_until = ev_now(c->tg->a->ev) + tg_wait_us(r, HINT_FAILURES);
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
	w = tg_post(&t->action);
	jw_ki64(w, "chat_id", t->chat);
	if (t->thread)
		jw_ki64(w, "message_thread_id", t->thread);
	jw_kz(w, "action", "typing");
	IGNORE(tg_api(&t->action, "sendChatAction", false, HINT_US, typing_answered));    /* a hint */
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

void
tg_send(void *self, const struct outbox_item *item)
{
	struct tg *tg = self;
	int64_t turn = item->kind == OUTBOX_REPLY ? item->turn : 0;
	struct talk *t = talk_get(tg, turn, &item->to, item->edit_ref);

	if (!t) {
		outbox_retry(tg->a, item->id, US_PER_S, DOUBT_AS_BEFORE, item->format, S("out of memory"));
		return;
	}
	t->item = *item;
	talk_set_text(t, item->text);
	buf_reset(&t->buttons);
	buf_str(&t->buttons, item->buttons);
	t->way = tg->no_rich || !config_bool(tg->a->config, "telegram.rich") ? WAY_HTML : WAY_RICH;
	way_read(t, item->format);
	if (!t->call.op)                /* else the answer to live text goes on here */
		reply_step(t);
}

void
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

void
tg_stop(struct tg *tg, const struct json *stop)
{
	int64_t turn = json_i64(stop, "draft_id", 0), chat = json_i64(stop, "chat.id", 0);
	char to[ID_SIZE], thread[ID_SIZE];

	for (struct talk *t = tg->talks; t && turn; t = t->next)
		if (t->turn == turn && t->chat == chat && !t->ended)
			session_stop(tg->a, &(struct target){ S(ME), id_text(to, chat),
			    t->thread ? id_text(thread, t->thread) : STR_NONE, STR_NONE });
}

void
tg_talks_moved(struct tg *tg, int64_t from, int64_t to)
{
	for (struct talk *t = tg->talks; t; t = t->next)
		if (t->chat == from)
			t->chat = to;
}

void
tg_talks_free(struct tg *tg)
{
	while (tg->talks)
		talk_free(tg->talks);
}
