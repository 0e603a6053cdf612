/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * telegram.c - Telegram bot: long poll in, rich or HTML messages out, live drafts.
 *
 * Intake. One getUpdates at a time. What it brings becomes rows in this loop
 * turn's transaction, the next offset among them, and the next getUpdates,
 * which is what acknowledges them to Telegram, starts in an effect after the
 * commit. The offset is the last update in order of receipt plus one, whatever
 * its number: after a week of silence ids begin anew at random, so after six
 * days without an update none is sent. Only a finished getUpdates counts as
 * life; each has a total deadline, so neither silence nor a drip keeps it.
 *
 * A body that cannot be read (broken JSON, too big) would come again for ever.
 * After POISON_TRIES of them updates are asked for one by one, which gets the
 * healthy ones through; one that fails alone as often is acknowledged unread,
 * with an error in the log.
 *
 * Delivery. An outbox item is cut into pieces by a pure function of its text
 * and format, so part and format are all there is to remember. A text that
 * fits goes as one rich message; refused, or longer, as HTML pieces; a piece
 * refused as HTML as plain text. Edits can be repeated harmlessly; sends cannot:
 * when one may have arrived, outbox.c marks the row and the next begins with REPEAT.
 *
 * Live text (struct live, one per running turn) is hints. Private chats get
 * drafts; elsewhere a placeholder message is sent and edited:
 *
 *   FIRST --"?" stored, committed, sent--> ASKED --id stored--> EDIT
 *
 * While a call of a live text is in flight the turn's delivery waits for its
 * outcome, so that the final text is the last to arrive and finds the placeholder.
 */
#include "blufio.h"
#include "core/markup.h"

#define ME S("telegram")
#define LOGNAME "telegram"
#define ID_SIZE 24                          /* an int64 as text */
#define CALL_US (30 * US_PER_S)             /* a send, from connect to answer */
#define HINT_US (10 * US_PER_S)             /* a draft, an edit of live text, an action */
#define BODY_MAX (64u << 10)                /* an answer to a send: the message comes back */
#define POST_MAX (1u << 20)                 /* a request */
#define POLL_BODY_MAX (8u << 20)            /* a 5 MB update must pass */
#define TREE_FACTOR 16                      /* arena bytes for a byte of JSON */
#define POLL_SLACK_US (15 * US_PER_S)       /* beyond the server's own waiting time */
#define POLL_LIMIT 100
#define POLL_FIRST_US (500 * US_PER_MS)     /* after the first failure */
#define POLL_BACKOFF_MAX_US (60 * US_PER_S)
#define CONFLICT_US (5 * US_PER_S)
#define CONFLICT_MAX_US (30 * US_PER_S)
#define UNAUTHORIZED_US (300 * US_PER_S)
#define SILENCE_US (6 * 24 * 3600 * US_PER_S) /* then update ids may begin anew */
#define POISON_TRIES 5
#define NARROW_POLLS 100                    /* updates taken singly after a poisoned batch */
#define FRESH_US (5 * US_PER_S)             /* a connection idle as long gets no send */
#define SHOWN_MAX 4096                      /* UTF-16 units of one message */
#define HTML_UNITS (SHOWN_MAX - MARKUP_GROWTH - 84)  /* leaves room for REPEAT */
#define RICH_UNITS (32768 - 168)
#define REPEAT "(This may be a repeat: I was interrupted while sending it.)\n\n"
#define LIVES_MAX 256
#define ACTION_US (4 * US_PER_S)            /* "typing" lasts 5 s */
#define DRAFT_GAP_US (500 * US_PER_MS)
#define DRAFT_REFRESH_US (25 * US_PER_S)    /* a draft lasts 30 s */
#define EDIT_GAP_US (1200 * US_PER_MS)
#define THINKING_US (3 * US_PER_S)          /* without text until now: show that work goes on */
#define QUIET_US (5 * US_PER_S)             /* pause of hints after a failure */
#define LINGER_US (600 * US_PER_S)          /* a placeholder's late id is kept for retries */

enum poll_state { POLL_STARTING, POLL_POLLING, POLL_BACKOFF, POLL_UNAUTHORIZED, POLL_CONFLICT };
static const char *const poll_names[] = {
	"starting", "polling", "backoff", "unauthorized", "conflict"
};

/* What Telegram said. Views are valid during the callback. */
struct answer {
	bool ok;
	bool unreadable;        /* a complete response that is not an answer, or too big a one */
	bool sent;              /* not ok: it may have taken effect all the same */
	unsigned code;          /* of the refusal; 0: no answer */
	int64_t retry_us;       /* said with 429; else 0 */
	struct str why, body;
	const struct json *result;
};
/* One request in flight at a time, embedded in its owner. */
struct call {
	struct tg *tg;
	struct fetch_op *op;    /* NULL: none in flight */
	struct buf body;
	bool fresh;             /* wants a new connection */
	bool once;              /* must not happen twice without our knowing */
	void (*done)(struct call *c, const struct answer *r);
};
struct tg {
	struct agent *a;
	struct call poll, setup, button;
	struct ev_timer poll_timer;
	struct effect poll_effect;
	enum poll_state state;
	char problem[256];
	bool stopped;
	unsigned failures, poison, narrow;
	int64_t offset;         /* -1: none */
	int64_t seen_at;        /* UTC of the last update */
	int64_t last_poll;      /* monotonic; 0: none yet */
	int64_t last_call;      /* monotonic end of the last call but polls */
	int64_t me;             /* the bot's id; 0 until getMe answered */
	char username[64];
	char album[ID_SIZE];    /* the last one answered with a notice */
	bool no_rich, no_drafts, no_can_stop;   /* refused by this server */
	struct live *lives;
	struct delivery *deliveries;
};
struct delivery {
	struct call call;
	struct delivery *next;
	struct arena mem;
	struct outbox_item item;        /* views are in mem */
	bool plain, editing, last, no_edit;
};
enum show { SHOW_DRAFT, SHOW_FIRST, SHOW_ASKED, SHOW_EDIT, SHOW_NONE };
struct live {
	struct call call, action;
	struct live *next;
	struct ev_timer timer;
	struct effect place;
	struct arena mem;
	struct target to;
	int64_t turn;
	enum show show;
	struct buf text;        /* tail of what is visible */
	bool dirty;             /* text is newer than what was shown */
	bool ended;
	char ref[ID_SIZE];      /* the placeholder: "" none, "?" perhaps one, its id */
	int64_t begun, shown_at, action_at, quiet_until;
	struct delivery *held;
};
/* A request's JSON. */
struct post { struct buf b; struct jw w; };

static const struct config_key keys[] = {
	{ .name = "telegram.bot_token", .type = CONFIG_SECRET,
	  .help = "The bot's token, as @BotFather gave it." },
	{ .name = "telegram.api_base", .type = CONFIG_URL, .dflt = "\"https://api.telegram.org\"",
	  .help = "Where the Bot API is; change it for a local Bot API server." },
	{ .name = "telegram.allowed_users", .type = CONFIG_IDS, .example = "[123456789]",
	  .help = "Numeric ids of the people the bot listens to, beside those paired." },
	{ .name = "telegram.partials", .type = CONFIG_ENUM, .dflt = "\"draft\"",
	  .choices = "draft|edit",
	  .help = "How a growing answer is shown: as a draft (private chats) or by edits." },
	{ .name = "telegram.rich", .type = CONFIG_BOOL, .dflt = "true",
	  .help = "Send rich messages (Bot API 10.1); false sends classic HTML messages." },
	{ .name = "telegram.poll_timeout", .type = CONFIG_SECONDS, .dflt = "50", .min = 1,
	  .max = 50,
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

/* base, 2 base, 4 base … up to max, a quarter of it by chance. */
static int64_t
backoff_us(int64_t base, int64_t max, int64_t n)
{
	int64_t us = n < 16 && base << n < max ? base << n : max;

	return us - us / 8 + (int64_t)rand_u32() % (us / 4);
}

/* ---- calls -------------------------------------------------------------------------- */

static void
call_init(struct call *c, struct tg *tg, size_t body_max)
{
	c->tg = tg;
	c->op = NULL;
	buf_init(&c->body, body_max);
}

static void
call_drop(struct call *c)
{
	fetch_cancel(c->op);
	c->op = NULL;
	buf_free(&c->body);
}

static void
read_answer(struct answer *out, struct arena *ar, const struct fetch_result *r)
{
	const struct json *v = NULL;
	struct answer a = { .body = out->body, .why = str_z(r->why), .sent = r->sent };
	bool whole = r->err == OK && json_parse(ar, out->body, &v, NULL) == OK &&
	    json_is(v, JSON_OBJECT);

	if (whole) {
		a.result = json_at(v, "result");
		a.ok = json_bool(v, "ok", false) && a.result;
		a.code = (unsigned)json_i64(v, "error_code", r->status);
		a.why = json_str(v, "description", S("no reason given"));
		a.retry_us = json_i64(v, "parameters.retry_after", 0);
		a.retry_us = (a.retry_us > 0 && a.retry_us < 86400 ? a.retry_us : 5) * US_PER_S;
	} else if (r->err == OK && r->status != 200) {
		a.code = r->status;
		a.why = S("no reason given");
	} else if (r->err == OK || r->err == ERR_LIMIT) {
		a.unreadable = ar->err != ERR_NOMEM;
		a.why = r->err == OK ? S("the answer is not JSON") : S("the answer is too big");
	}
	a.sent = a.sent || r->err == OK;
	*out = a;
}

static void
on_data(void *arg, struct fetch_op *op, struct str bytes)
{
	struct call *c = arg;

	(void)op;
	buf_str(&c->body, bytes);
}

static void
on_done(void *arg, struct fetch_op *op, const struct fetch_result *r)
{
	struct call *c = arg;
	struct fetch_result res = *r;
	struct buf body = c->body;      /* done() may free the call */
	struct arena ar = ARENA_INIT(body.max * TREE_FACTOR);
	struct answer a = { .body = buf_view(&body) };

	(void)op;
	c->op = NULL;
	buf_init(&c->body, body.max);
	if (c != &c->tg->poll)
		c->tg->last_call = ev_now(c->tg->a->ev);
	if (res.err == OK && body.err != OK) {
		res.err = body.err;
		res.sent = true;
		res.why = err_str(body.err);
	}
	read_answer(&a, &ar, &res);
	c->done(c, &a);
	arena_free(&ar);
	buf_free(&body);
}

static void
post_open(struct post *p)
{
	buf_init(&p->b, POST_MAX);
	jw_init(&p->w, &p->b);
	jw_obj(&p->w);
}

/* A request to a chat; reply: as an answer to the message that asked. */
static void
post_to(struct post *p, const struct target *to, bool reply)
{
	int64_t id;

	post_open(p);
	if (str_i64(to->chat, INT64_MIN, INT64_MAX, &id) == OK)
		jw_ki64(&p->w, "chat_id", id);
	if (str_i64(to->thread, 1, INT64_MAX, &id) == OK)
		jw_ki64(&p->w, "message_thread_id", id);
	if (reply && str_i64(to->reply_to, 1, INT64_MAX, &id) == OK) {
		jw_key(&p->w, "reply_parameters");
		jw_obj(&p->w);
		jw_ki64(&p->w, "message_id", id);
		jw_kbool(&p->w, "allow_sending_without_reply", true);
		jw_end_obj(&p->w);
	}
}

/* Closes and sends p (its memory is taken in any case). */
static FALLIBLE
api(struct call *c, const char *method, struct post *p, int64_t total_us,
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
	jw_end_obj(&p->w);
	e = jw_done(&p->w) == OK ? url.err : p->b.err;
	if (e == OK) {
		struct fetch_req req = { .method = "POST", .url = url.p, .headers = headers,
		    .body_take = &p->b, .idle_us = total_us, .total_us = total_us,
		    .body_max = c->body.max, .no_reuse = c->fresh,
		    .once = c->once };

		buf_reset(&c->body);
		c->done = done;
		e = fetch_start(c->tg->a->fetch, &req, &cb, c, &c->op);
	}
	secret_wipe(url.p, url.n);
	buf_free(&url);
	buf_free(&p->b);
	return e;
}

/* A send that must not happen twice unmarked: curl may not repeat it by itself, and a connection
 * that may have died idle is not used, for then there would be doubt without need. */
static void
want_fresh(struct call *c)
{
	c->once = true;
	c->fresh = ev_now(c->tg->a->ev) - c->tg->last_call > FRESH_US;
}

static void
ignore_answer(struct call *c, const struct answer *r)
{
	if (!r->ok)
		log_debug(LOGNAME, "refused: %.*s", STR_ARG(r->why));
	buf_free(&c->body);
}

/* ---- delivery ----------------------------------------------------------------------- */

static struct live *
live_find(struct tg *tg, int64_t turn)
{
	struct live *l = tg->lives;

	while (l && l->turn != turn)
		l = l->next;
	return l;
}

static void
delivery_free(struct delivery *d)
{
	struct delivery **p = &d->call.tg->deliveries;

	while (*p != d)
		p = &(*p)->next;
	*p = d->next;
	call_drop(&d->call);
	arena_free(&d->mem);
	free(d);
}

/* No message to this chat will ever arrive. */
static bool
chat_is_dead(const struct answer *r)
{
	static const char *const words[] = { "chat not found", "upgraded to a supergroup",
	    "not enough rights", "have no rights", "thread not found", "deactivated",
	    "PEER_ID_INVALID" };
	bool dead = r->code == 403;

	for (size_t i = 0; r->code == 400 && i < ARRAY_LEN(words); i++)
		dead = dead || has(r->why, words[i]);
	return dead;
}

/* Is there another way to say the same after this refusal? Then d is set to it. */
static bool
delivery_falls_back(struct delivery *d, const struct answer *r)
{
	bool rich = str_eqz(d->item.format, "rich");

	if (d->editing && (has(r->why, "to edit not found") || has(r->why, "can't be edited") ||
	    has(r->why, "MESSAGE_ID_INVALID")))
		return d->no_edit = true;
	if ((r->code != 400 && r->code != 404) || chat_is_dead(r))
		return false;
	if (rich) {
		d->call.tg->no_rich = d->call.tg->no_rich || r->code == 404;
		d->item.format = S("html");
		return true;
	}
	if (d->plain || r->code == 404)
		return false;
	return d->plain = true;
}

static void delivery_step(struct delivery *d);

static void
delivery_answered(struct call *c, const struct answer *r)
{
	struct delivery *d = CONTAINER(c, struct delivery, call);
	struct agent *a = c->tg->a;
	struct outbox_item *it = &d->item;
	int64_t delay = backoff_us(US_PER_S, POLL_BACKOFF_MAX_US, it->attempts);
	char id[ID_SIZE];
	bool done = r->ok || (d->editing && has(r->why, "message is not modified"));

	if (!done && delivery_falls_back(d, r)) {
		delivery_step(d);
		return;
	}
	if (done) {
		struct str ref = it->edit_ref;

		if (!d->editing)
			ref = id_text(id, json_i64(r->result, "message_id", 0));
		if (d->last)
			outbox_done(a, it->id, ref);
		else
			outbox_part_done(a, it->id, ref, it->part + 1, it->format);
	} else if (r->code == 429 || r->code == 401 || r->code == 404) {
		delay = r->code == 429 ? r->retry_us : POLL_BACKOFF_MAX_US;
		outbox_retry(a, it->id, delay, false, it->format, r->why);
	} else if (r->code >= 400 && r->code < 500) {
		log_warn(LOGNAME, "a message cannot be delivered: %.*s", STR_ARG(r->why));
		outbox_fail(a, it->id, r->why);
	} else {                        /* repeating an edit does no harm */
		outbox_retry(a, it->id, delay, r->sent && !d->editing, it->format, r->why);
	}
	delivery_free(d);
}

/* Telegram refuses a text with a NUL in it. */
static void
no_nul(struct buf *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->p[i] == '\0')
			b->p[i] = ' ';
}

/* The piece's members of the request, by format. */
static void
put_piece(struct post *p, const struct delivery *d, struct buf *piece)
{
	struct buf html = BUF_INIT(POST_MAX);

	if (str_eqz(d->item.format, "rich")) {
		jw_key(&p->w, "rich_message");
		jw_obj(&p->w);
		jw_kstr(&p->w, "markdown", buf_view(piece));
		jw_end_obj(&p->w);
	} else if (d->plain) {
		jw_kstr(&p->w, "text", buf_view(piece));
	} else {
		markup_html(&html, buf_view(piece));
		jw_kstr(&p->w, "text", buf_view(&html));
		jw_kz(&p->w, "parse_mode", "HTML");
		if (html.err != OK && p->b.err == OK)
			p->b.err = html.err;
	}
	buf_free(&html);
}

/* The piece number item.part into piece, with REPEAT when due; false when there is none. */
static bool
take_piece(struct delivery *d, struct buf *piece)
{
	struct outbox_item *it = &d->item;
	bool rich = str_eqz(it->format, "rich"), doubt = it->repeated, got = true;
	struct buf next = BUF_INIT(POST_MAX);
	struct markup_split split;

	markup_split_init(&split, it->text, rich ? RICH_UNITS : HTML_UNITS);
	for (int64_t k = 0; k <= it->part && got; k++)
		got = markup_next(&split, &next);
	doubt = doubt || (it->part == 0 && str_eqz(it->edit_ref, "?"));
	if (doubt && !d->editing)
		buf_puts(piece, REPEAT);
	buf_str(piece, buf_view(&next));
	no_nul(piece);
	if (next.err != OK)
		piece->err = next.err;
	d->last = !markup_next(&split, &next);
	buf_free(&next);
	return got;
}

/* Sends the piece that is due, by edit of the placeholder when there is one. */
static void
delivery_step(struct delivery *d)
{
	struct tg *tg = d->call.tg;
	struct outbox_item *it = &d->item;
	struct buf piece = BUF_INIT(POST_MAX);
	struct post p;
	int64_t ref = 0;
	enum err e;

	if (it->format.n == 0)
		it->format = !tg->no_rich && config_bool(tg->a->config, "telegram.rich") &&
		    utf8_units(it->text) <= RICH_UNITS ? S("rich") : S("html");
	d->editing = it->part == 0 && !d->no_edit &&
	    str_i64(it->edit_ref, 1, INT64_MAX, &ref) == OK;
	if (!take_piece(d, &piece)) {
		buf_free(&piece);
		outbox_fail(tg->a, it->id, S("the text is empty"));
		delivery_free(d);
		return;
	}
	post_to(&p, &it->to, it->part == 0 && !d->editing);
	if (d->editing)
		jw_ki64(&p.w, "message_id", ref);
	put_piece(&p, d, &piece);
	want_fresh(&d->call);
	e = piece.err;
	if (e != OK)
		buf_free(&p.b);
	else
		e = api(&d->call, d->editing ? "editMessageText" : str_eqz(it->format, "rich") ?
		    "sendRichMessage" : "sendMessage", &p, CALL_US, delivery_answered);
	buf_free(&piece);
	if (e == OK)
		return;
	outbox_retry(tg->a, it->id, US_PER_S, false, it->format, str_z(err_str(e)));
	delivery_free(d);
}

static struct target
target_copy(struct arena *ar, const struct target *t)
{
	return (struct target){ ME, arena_str(ar, t->chat), arena_str(ar, t->thread),
	    arena_str(ar, t->reply_to) };
}

/* The reply's row was written while its placeholder was on its way, hence with "?" or as repeated;
 * its live text has learnt since what became of it. */
static void
adopt_ref(struct delivery *d, const struct live *l)
{
	if (l->show == SHOW_DRAFT || str_eqz(str_z(l->ref), "?") || d->item.part > 0)
		return;
	d->item.edit_ref = arena_str(&d->mem, str_z(l->ref));
	d->item.repeated = d->item.repeated && d->item.attempts > 0;
}

static void
tg_send(void *self, const struct outbox_item *item)
{
	struct tg *tg = self;
	struct live *l = item->kind == OUTBOX_REPLY ? live_find(tg, item->turn) : NULL;
	struct delivery *d = calloc(1, sizeof(*d));

	if (!d) {
		outbox_retry(tg->a, item->id, US_PER_S, false, item->format, S("out of memory"));
		return;
	}
	call_init(&d->call, tg, BODY_MAX);
	d->next = tg->deliveries;
	tg->deliveries = d;
	arena_init(&d->mem, 2 * REPLY_MAX);
	d->item = *item;
	d->item.to = target_copy(&d->mem, &item->to);
	d->item.text = arena_str(&d->mem, item->text);
	d->item.edit_ref = arena_str(&d->mem, item->edit_ref);
	d->item.format = arena_str(&d->mem, item->format);
	if (d->mem.err != OK) {
		outbox_retry(tg->a, item->id, US_PER_S, false, item->format, S("out of memory"));
		delivery_free(d);
		return;
	}
	if (l && l->call.op) {
		l->held = d;            /* live_settle sends it */
		return;
	}
	if (l)
		adopt_ref(d, l);
	delivery_step(d);
}

/* ---- live text ---------------------------------------------------------------------- */

static void
live_free(struct live *l)
{
	struct tg *tg = l->call.tg;
	struct live **p = &tg->lives;

	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	call_drop(&l->call);
	call_drop(&l->action);
	ev_timer_cancel(tg->a->ev, &l->timer);
	effect_cancel(&l->place);
	buf_free(&l->text);
	arena_free(&l->mem);
	free(l);
}

/* When l has something to show next; INT64_MAX: only when something happens. */
static int64_t
live_due(const struct live *l)
{
	bool text = str_trim(buf_view(&l->text)).n > 0;

	if (l->call.op || l->show == SHOW_ASKED || l->show == SHOW_NONE)
		return INT64_MAX;
	if (l->show == SHOW_EDIT)
		return l->dirty && text ? l->shown_at + EDIT_GAP_US : INT64_MAX;
	if (l->show == SHOW_FIRST)
		return text ? l->begun : l->begun + THINKING_US;
	if (l->dirty)
		return l->shown_at + DRAFT_GAP_US;
	return l->shown_at ? l->shown_at + DRAFT_REFRESH_US : l->begun + THINKING_US;
}

static void
live_arm(struct live *l)
{
	int64_t at = live_due(l);

	at = l->action_at < at ? l->action_at : at;
	ev_timer_at(l->call.tg->a->ev, &l->timer, at > l->quiet_until ? at : l->quiet_until);
}

/* No hints to this chat for a while. */
static void
live_quiet(const struct live *of, int64_t us)
{
	struct tg *tg = of->call.tg;

	for (struct live *l = tg->lives; l; l = l->next)
		if (str_eq(l->to.chat, of->to.chat))
			l->quiet_until = ev_now(tg->a->ev) + us;
}

/* A call of l is over: on with what waited for it. */
static void
live_settle(struct live *l)
{
	struct delivery *d = l->held;

	buf_free(&l->call.body);
	l->held = NULL;
	if (!l->ended)
		live_arm(l);
	if (d)
		adopt_ref(d, l);
	if (l->ended && l->show == SHOW_DRAFT)
		live_free(l);           /* else it lingers: the row may still say "?" */
	if (d)
		delivery_step(d);
}

static void
live_shown(struct call *c, const struct answer *r)
{
	struct live *l = CONTAINER(c, struct live, call);

	l->dirty = l->dirty || !r->ok;  /* not shown: due again after the pause */
	if (r->code == 429) {
		live_quiet(l, r->retry_us);
	} else if (l->show == SHOW_DRAFT && r->code == 400 && has(r->why, "can_stop")) {
		c->tg->no_can_stop = l->dirty = true;
	} else if (l->show == SHOW_DRAFT &&
	    (r->code == 404 || has(r->why, "TEXTDRAFT_PEER_INVALID"))) {
		c->tg->no_drafts = c->tg->no_drafts || r->code == 404;
		l->show = SHOW_FIRST;
	} else if (l->show == SHOW_EDIT && r->code == 400 && !has(r->why, "not modified")) {
		l->show = SHOW_NONE;
	} else if (!r->ok) {
		live_quiet(l, QUIET_US);
	}
	live_settle(l);
}

static void
live_placed(struct call *c, const struct answer *r)
{
	struct live *l = CONTAINER(c, struct live, call);
	bool refused = r->code >= 400 && r->code < 500;

	if (r->ok) {
		id_text(l->ref, json_i64(r->result, "message_id", 0));
		l->show = SHOW_EDIT;
	} else if (refused || !r->sent) {
		l->ref[0] = '\0';
		l->show = refused && r->code != 429 ? SHOW_NONE : SHOW_FIRST;
		live_quiet(l, r->code == 429 ? r->retry_us : QUIET_US);
	} else {
		l->show = SHOW_NONE;    /* perhaps it is there: stays "?" */
	}
	turn_set_ref(c->tg->a, l->turn, str_z(l->ref));
	live_settle(l);
}

/* The placeholder, once its "?" is on disk. */
static void
live_place(struct effect *e)
{
	struct live *l = CONTAINER(e, struct live, place);
	struct post p;

	post_to(&p, &l->to, true);
	jw_kstr(&p.w, "text", str_trim(buf_view(&l->text)).n ? buf_view(&l->text) : S("\u2026"));
	want_fresh(&l->call);
	l->dirty = false;
	l->shown_at = ev_now(l->call.tg->a->ev);
	if (api(&l->call, "sendMessage", &p, CALL_US, live_placed) == OK)
		return;
	live_placed(&l->call, &(struct answer){ .why = S("out of memory") });
}

static void
live_show(struct live *l)
{
	struct tg *tg = l->call.tg;
	bool draft = l->show == SHOW_DRAFT;
	struct post p;
	int64_t ref;

	if (l->show == SHOW_FIRST) {
		l->show = SHOW_ASKED;
		snprintf(l->ref, sizeof(l->ref), "?");
		turn_set_ref(tg->a, l->turn, S("?"));
		agent_after(tg->a, &l->place);
		return;
	}
	post_to(&p, &l->to, false);
	if (draft)
		jw_ki64(&p.w, "draft_id", l->turn);
	else if (str_i64(str_z(l->ref), 1, INT64_MAX, &ref) == OK)
		jw_ki64(&p.w, "message_id", ref);
	jw_kstr(&p.w, "text", buf_view(&l->text));
	if (draft && !tg->no_can_stop)
		jw_kbool(&p.w, "can_stop", true);
	l->dirty = false;
	l->shown_at = ev_now(tg->a->ev);
	if (api(&l->call, draft ? "sendMessageDraft" : "editMessageText", &p, HINT_US,
	    live_shown) != OK)
		live_quiet(l, QUIET_US);
}

static void
live_acted(struct call *c, const struct answer *r)
{
	struct live *l = CONTAINER(c, struct live, action);

	if (r->code == 429)
		live_quiet(l, r->retry_us);
	buf_free(&c->body);
}

static void
live_tick(void *arg)
{
	struct live *l = arg;
	int64_t now = ev_now(l->call.tg->a->ev);
	struct post p;

	if (l->ended) {                 /* lingered long enough */
		live_free(l);
		return;
	}
	if (now >= l->action_at && now >= l->quiet_until) {
		l->action_at = now + ACTION_US;
		post_to(&p, &l->to, false);
		jw_kz(&p.w, "action", "typing");
		if (l->action.op)
			buf_free(&p.b);
		else    /* a hint: may fail */
			IGNORE(api(&l->action, "sendChatAction", &p, HINT_US, live_acted));
	}
	if (now >= live_due(l) && now >= l->quiet_until)
		live_show(l);
	live_arm(l);
}

static struct live *
live_new(struct tg *tg, const struct partial *p)
{
	struct live *l = calloc(1, sizeof(*l));
	bool private = p->to.chat.n && p->to.chat.p[0] != '-';
	struct str way = config_str(tg->a->config, "telegram.partials");

	if (!l)
		return NULL;
	call_init(&l->call, tg, BODY_MAX);
	call_init(&l->action, tg, BODY_MAX);
	ev_timer_init(&l->timer, live_tick, l);
	l->place.run = live_place;
	buf_init(&l->text, 4 * SHOWN_MAX);
	arena_init(&l->mem, 4096);
	l->to = target_copy(&l->mem, &p->to);
	l->turn = p->turn;
	l->begun = ev_now(tg->a->ev);
	l->show = private && str_eqz(way, "draft") && !tg->no_drafts ? SHOW_DRAFT : SHOW_FIRST;
	if (p->ref.n && p->ref.n < ID_SIZE) {           /* one of before a restart */
		memcpy(l->ref, p->ref.p, p->ref.n);
		l->show = str_eqz(p->ref, "?") ? SHOW_NONE : SHOW_EDIT;
	}
	l->next = tg->lives;
	tg->lives = l;
	if (l->mem.err == OK)
		return l;
	live_free(l);
	return NULL;
}

/* The last units of a text that is too long to be shown whole. */
static void
tail_text(struct buf *out, struct str text)
{
	size_t i = text.n, k, units = 0;

	for (; i > 0; i = k) {
		for (k = i - 1; k > 0 && ((unsigned char)text.p[k] & 0xC0) == 0x80;)
			k--;
		units += i - k == 4 ? 2 : 1;
		if (units >= SHOWN_MAX)
			break;
	}
	buf_reset(out);
	if (i)
		buf_puts(out, "\u2026");
	buf_str(out, str_sub(text, i, text.n));
	no_nul(out);
}

static void
live_end(struct live *l)
{
	l->ended = true;
	if (!l->call.op && !l->place.list) {
		live_free(l);
		return;
	}
	if (l->place.list) {            /* promised, not sent, never will be */
		effect_cancel(&l->place);
		l->ref[0] = '\0';
		turn_set_ref(l->call.tg->a, l->turn, STR_NONE);
	}
	ev_timer_in(l->call.tg->a->ev, &l->timer, LINGER_US);
}

static void
tg_partial(void *self, const struct partial *p)
{
	struct tg *tg = self;
	struct live *l = live_find(tg, p->turn);
	size_t n = 0;

	for (struct live *k = tg->lives; k; k = k->next)
		n++;
	if (!l && p->what != PARTIAL_END && n < LIVES_MAX)
		l = live_new(tg, p);
	if (!l || l->ended)
		return;
	switch (p->what) {
	case PARTIAL_END:
		live_end(l);
		return;
	case PARTIAL_TEXT:
		tail_text(&l->text, p->text);
		l->dirty = true;
		break;
	case PARTIAL_RESTART:
		buf_reset(&l->text);
		l->dirty = true;
		break;
	case PARTIAL_TOOL:              /* an empty draft shows the client's own "thinking" */
		l->dirty = l->dirty || l->text.n == 0;
		break;
	case PARTIAL_BEGIN:
		break;
	}
	live_arm(l);
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
	return access_paired(tg->a, ME, sender);
}

static FALLIBLE
greet_stranger(struct tg *tg, const struct json *m, const struct target *to, struct str sender)
{
	struct str name = json_str(m, "from.first_name", STR_NONE);
	char code[16] = "", text[512];
	bool told = false;
	enum err e = access_offer(tg->a, ME, sender, name, code, &told);

	if (e != OK || !told)
		return e;
	snprintf(text, sizeof(text), "Hello! I do not know you yet, so I will not answer.\n\n"
	    "Your Telegram id is %.*s, your pairing code is %s.\n\n"
	    "The owner of this bot lets you in with:\n`blufio pair %s`\n\n"
	    "The code is good for ten minutes.",
	    STR_ARG(sender), code, code);
	return notice(tg, to, text);
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
	if (v->type == JSON_OBJECT && v->key.n == 0 && json_get(v, S("type")) && out->n &&
	    out->p[out->n - 1] != '\n')
		buf_putc(out, '\n');
}

/* Does text begin with our name ("@me")? */
static bool
names_me(const struct tg *tg, struct str text)
{
	size_t n = strlen(tg->username);
	char after = text.n > n + 1 ? text.p[n + 1] : ' ';

	return n && text.n > n && text.p[0] == '@' && after != '_' &&
	    !(after >= '0' && after <= '9') && !((after | 32) >= 'a' && (after | 32) <= 'z') &&
	    str_ieq(str_sub(text, 1, n), str_z(tg->username));
}

/* "/cmd@name rest": the name's place in text; empty when there is none. */
static struct str
command_name(struct str text)
{
	size_t end = 0, at;

	while (end < text.n && text.p[end] != ' ' && text.p[end] != '\n')
		end++;
	at = text.n && text.p[0] == '/' ? str_chr(str_sub(text, 0, end), '@') : SIZE_MAX;
	return at == SIZE_MAX ? STR_NONE : str_sub(text, at, end - at);
}

/* In a group: is this message meant for the bot? */
static bool
is_addressed(const struct tg *tg, const struct json *m, struct str text)
{
	const struct json *list = json_at(m, json_at(m, "text") ? "entities" : "caption_entities");
	const struct json *reply = json_at(m, "reply_to_message");
	struct str name = command_name(text);

	if (text.n > 1 && text.p[0] == '/' && (text.p[1] | 32) >= 'a' && (text.p[1] | 32) <= 'z')
		return name.n == 0 || names_me(tg, name);
	/* a topic's messages "reply" to its creation */
	if (json_i64(reply, "from.id", 0) == tg->me && !json_at(reply, "forum_topic_created"))
		return true;
	for (const struct json *e = list ? list->first : NULL; e; e = e->next) {
		int64_t off = json_i64(e, "offset", 0);

		if (off >= 0 && str_eqz(json_str(e, "type", STR_NONE), "mention") && names_me(tg,
		    str_sub(text, utf8_prefix_units(text, (size_t)off).n, text.n)))
			return true;
		if (json_i64(e, "user.id", 0) == tg->me)
			return true;
	}
	return false;
}

static bool
has_media(const struct json *m)
{
	static const char *const kinds[] = { "photo", "document", "voice", "audio", "video",
	    "video_note", "animation", "sticker", "live_photo", "location", "venue", "contact",
	    "poll", "dice", "checklist", "story", "paid_media", "game" };

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (json_at(m, kinds[i]))
			return true;
	return false;
}

/* What the person wrote, without our name in front; out may hold it. */
static struct str
message_text(const struct tg *tg, const struct json *m, struct buf *out)
{
	struct str text = json_str(m, "text", json_str(m, "caption", STR_NONE)), name;
	const struct json *rich = json_at(m, "rich_message.blocks");

	if (text.n == 0 && rich)
		flatten(out, rich);
	text = str_trim(text.n == 0 ? buf_view(out) : text);
	name = command_name(text);
	if (names_me(tg, name)) {               /* "/stop@me now" -> "/stop now" */
		buf_str(out, str_make(text.p, (size_t)(name.p - text.p)));
		buf_str(out, str_sub(text, (size_t)(name.p - text.p) + name.n, text.n));
		return buf_view(out);
	}
	return text;
}

static struct str
strip_name(const struct tg *tg, struct str text)
{
	if (!names_me(tg, text))
		return text;
	text = str_trim(str_sub(text, strlen(tg->username) + 1, text.n));
	if (text.n && (text.p[0] == ',' || text.p[0] == ':'))
		text = str_trim(str_sub(text, 1, text.n));
	return text;
}

/* A message without text. An album is many messages and one notice. */
static FALLIBLE
take_textless(struct tg *tg, const struct json *m, const struct target *to, bool called)
{
	struct str album = json_str(m, "media_group_id", STR_NONE);

	if (!has_media(m))              /* service messages: somebody pinned, joined … */
		return called ? notice(tg, to, "Yes? Write your question beside my name.") : OK;
	if (album.n && str_eqz(album, tg->album))
		return OK;
	snprintf(tg->album, sizeof(tg->album), "%.*s", STR_ARG(str_sub(album, 0, ID_SIZE - 1)));
	return notice(tg, to, "I can only read text so far.");
}

static FALLIBLE
take_text(struct tg *tg, const struct inbound *in, bool edited)
{
	bool done = false;
	enum err e;

	if (in->text.n > MESSAGE_MAX)
		return edited ? OK : notice(tg, &in->to, "That message is too long for me. "
		    "Please send it in parts of less than a megabyte.");
	if (!edited)
		return inbound_put(tg->a, in, &done);
	e = inbound_edit(tg->a, &in->to, in->ref, in->text, &done);
	if (e == OK && !done)
		log_debug(LOGNAME, "a correction came too late");
	return e;
}

static FALLIBLE
take_message(struct tg *tg, int64_t update, const struct json *m, bool edited)
{
	char chat[ID_SIZE], thread[ID_SIZE], ref[ID_SIZE], sender[ID_SIZE], dedup[3 * ID_SIZE];
	struct str type = json_str(m, "chat.type", STR_NONE), text;
	bool group = !str_eqz(type, "private"), called = false;
	int64_t from = json_i64(m, "from.id", 0);
	struct buf hold = BUF_INIT(POLL_BODY_MAX);
	struct inbound in = { .sender_name = json_str(m, "from.first_name", STR_NONE) };
	enum err e = OK;

	if (from == 0 || json_bool(m, "from.is_bot", false) || str_eqz(type, "channel"))
		return OK;
	if (json_at(m, "migrate_to_chat_id"))
		log_warn(LOGNAME, "a group became a supergroup: its conversation begins anew");
	in.to = (struct target){ ME, id_text(chat, json_i64(m, "chat.id", 0)), STR_NONE, STR_NONE };
	if (json_bool(m, "is_topic_message", false))
		in.to.thread = id_text(thread, json_i64(m, "message_thread_id", 0));
	in.ref = id_text(ref, json_i64(m, "message_id", 0));
	if (group)
		in.to.reply_to = in.ref;
	in.sender = id_text(sender, from);
	snprintf(dedup, sizeof(dedup), "%lld:%s:%s", (long long)update, chat, ref);
	in.dedup = str_z(dedup);
	in.sent_at = json_i64(m, "date", 0) * US_PER_S;
	text = message_text(tg, m, &hold);
	if (group && !is_addressed(tg, m, text)) {
		e = OK;
	} else if (!is_permitted(tg, from, in.sender)) {
		e = group || edited ? OK : greet_stranger(tg, m, &in.to, in.sender);
	} else {
		in.text = strip_name(tg, text);
		called = in.text.n != text.n;
		e = hold.err;
		if (e == OK && in.text.n)
			e = take_text(tg, &in, edited);
		else if (e == OK && !edited)
			e = take_textless(tg, m, &in.to, called);
	}
	buf_free(&hold);
	return e;
}

/* The button under a draft. One of an earlier turn says nothing about this one. */
static void
take_stop(struct tg *tg, const struct json *stop)
{
	struct live *l = live_find(tg, json_i64(stop, "draft_id", 0));
	struct arena mem = ARENA_INIT(4096);
	struct target to;
	char chat[ID_SIZE];

	if (!l || l->ended || !str_eq(l->to.chat, id_text(chat, json_i64(stop, "chat.id", 0))))
		return;
	to = target_copy(&mem, &l->to);         /* l may end, and go, meanwhile */
	if (mem.err == OK)
		session_stop(tg->a, &to);
	arena_free(&mem);
}

static FALLIBLE
take_update(struct tg *tg, const struct json *u)
{
	int64_t id = json_i64(u, "update_id", 0);
	const struct json *v = json_at(u, "message");
	struct post p;

	if (v)
		return take_message(tg, id, v, false);
	if ((v = json_at(u, "edited_message")))
		return take_message(tg, id, v, true);
	if ((v = json_at(u, "stopped_message_generation")))
		take_stop(tg, v);
	if ((v = json_at(u, "callback_query")) && !tg->button.op) {
		/* a button of somebody else's making: just end its spinner */
		post_open(&p);
		jw_kstr(&p.w, "callback_query_id", json_str(v, "id", STR_NONE));
		IGNORE(api(&tg->button, "answerCallbackQuery", &p, HINT_US, ignore_answer));
	}
	return OK;
}

/* ---- the poll ----------------------------------------------------------------------- */

/* Stores where intake goes on; the next poll comes after the commit. */
static FALLIBLE
keep_offset(struct tg *tg)
{
	char text[2 * ID_SIZE];

	tg->seen_at = clock_us();
	snprintf(text, sizeof(text), "%lld %lld", (long long)tg->offset, (long long)tg->seen_at);
	return channel_state_set(tg->a, ME, S("offset"), str_z(text));
}

static void
load_offset(struct tg *tg)
{
	struct buf b = BUF_INIT(2 * ID_SIZE);
	struct str rest, head;
	int64_t offset, seen;

	tg->offset = -1;
	tg->seen_at = 0;
	/* absent or unreadable: Telegram sends what is unconfirmed, and repeats are known by row */
	IGNORE(channel_state_get(tg->a, ME, S("offset"), &b));
	rest = buf_view(&b);
	if (str_cut(&rest, ' ', &head) && str_i64(head, 0, INT64_MAX, &offset) == OK &&
	    str_i64(rest, 0, INT64_MAX, &seen) == OK) {
		tg->offset = offset;
		tg->seen_at = seen;
	}
	buf_free(&b);
}

static void
set_state(struct tg *tg, enum poll_state state, const char *problem, struct str why)
{
	enum log_level level = state == POLL_UNAUTHORIZED ? LOG_ERROR : LOG_WARN;

	snprintf(tg->problem, sizeof(tg->problem), "%s%.*s", problem, STR_ARG(why));
	if (state == POLL_POLLING && tg->state > POLL_POLLING)
		log_info(LOGNAME, "polling again");
	else if (state > POLL_POLLING)
		log_emit(state == tg->state ? LOG_DEBUG : level, LOGNAME, "getUpdates: %s",
		    tg->problem);
	tg->state = state;
}

/* A single update that cannot be read, again and again: acknowledged unread. */
static void
skip_poison(struct tg *tg, struct str body)
{
	size_t at = str_find(body, S("\"update_id\":"));
	struct str s = at == SIZE_MAX ? STR_NONE : str_trim(str_sub(body, at + 12, ID_SIZE));
	int64_t id;
	size_t n = 0;

	while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
		n++;
	if (str_i64(str_sub(s, 0, n), 0, INT64_MAX - 1, &id) != OK)
		id = tg->offset;
	log_error(LOGNAME, "update %lld cannot be read and is skipped", (long long)id);
	tg->offset = id < 0 ? -1 : id + 1;
	tg->poison = POISON_TRIES;
	IGNORE(keep_offset(tg));        /* sticky in the transaction; a failed commit reloads */
}

static void
poll_failed(struct tg *tg, const struct answer *r)
{
	int64_t delay = POLL_FIRST_US;

	if (tg->failures++)
		delay = backoff_us(US_PER_S, POLL_BACKOFF_MAX_US, tg->failures - 2);
	if (r->code == 401 || r->code == 404) {
		set_state(tg, POLL_UNAUTHORIZED, "Telegram refuses the bot token; give a new one "
		    "with `blufio config set telegram.bot_token TOKEN` and restart", STR_NONE);
		delay = UNAUTHORIZED_US;
	} else if (r->code == 409 && has(r->why, "webhook")) {
		set_state(tg, POLL_CONFLICT, "a webhook is set for this bot; remove it by opening "
		    "https://api.telegram.org/bot<token>/deleteWebhook once", STR_NONE);
		delay = CONFLICT_MAX_US;
	} else if (r->code == 409) {
		set_state(tg, POLL_CONFLICT, "another program polls with the same token; stop it, "
		    "or give this bot its own with `blufio config set telegram.bot_token TOKEN`",
		    STR_NONE);
		delay = backoff_us(CONFLICT_US, CONFLICT_MAX_US, tg->failures - 1);
	} else {
		set_state(tg, POLL_BACKOFF, "", r->why);
		delay = r->code == 429 ? r->retry_us : delay;
	}
	if (r->unreadable && ++tg->poison >= POISON_TRIES) {
		tg->narrow = NARROW_POLLS;
		if (tg->poison > 2 * POISON_TRIES)
			skip_poison(tg, r->body);
	}
	ev_timer_in(tg->a->ev, &tg->poll_timer, delay);
}

static void
poll_done(struct call *c, const struct answer *r)
{
	struct tg *tg = c->tg;
	size_t taken = 0;
	enum err e = OK;

	if (!r->ok || !json_is(r->result, JSON_ARRAY)) {
		poll_failed(tg, r);
		return;
	}
	for (const struct json *u = r->result->first; u && e == OK; u = u->next) {
		e = take_update(tg, u);
		if (e == ERR_LIMIT) {   /* would be one again for ever */
			log_error(LOGNAME, "an update beyond a limit is skipped");
			e = OK;
		}
		if (e == OK) {
			tg->offset = json_i64(u, "update_id", 0) + 1;
			taken++;
		}
	}
	if (taken && keep_offset(tg) != OK && e == OK)
		e = ERR_IO;
	if (e != OK) {                  /* our own trouble: what was not taken comes again */
		poll_failed(tg, &(struct answer){ .why = str_z(err_str(e)) });
		return;
	}
	tg->last_poll = ev_now(tg->a->ev);
	tg->failures = tg->poison = 0;
	tg->narrow -= tg->narrow > 0;
	set_state(tg, POLL_POLLING, "", STR_NONE);
	/* an effect even when nothing came: a turn that fails to commit is reloaded first */
	agent_after(tg->a, &tg->poll_effect);
}

static void
set_commands(struct tg *tg)
{
	static const char commands[] = "[{\"command\":\"start\",\"description\":\"Say hello\"},"
	    "{\"command\":\"new\",\"description\":\"Begin a new conversation\"},"
	    "{\"command\":\"stop\",\"description\":\"Stop the running answer\"},"
	    "{\"command\":\"help\",\"description\":\"What I can do\"}]";
	struct post p;

	post_open(&p);
	jw_kraw(&p.w, "commands", str_z(commands));
	if (!tg->setup.op)
		IGNORE(api(&tg->setup, "setMyCommands", &p, CALL_US, ignore_answer)); /* a nicety */
	else
		buf_free(&p.b);
}

static void poll_start(void *arg);

static void
me_done(struct call *c, const struct answer *r)
{
	struct tg *tg = c->tg;
	struct str name = json_str(r->result, "username", STR_NONE);

	if (!r->ok || json_i64(r->result, "id", 0) == 0) {
		poll_failed(tg, r);
		return;
	}
	tg->me = json_i64(r->result, "id", 0);
	snprintf(tg->username, sizeof(tg->username), "%.*s",
	    STR_ARG(str_sub(name, 0, sizeof(tg->username) - 1)));
	log_info(LOGNAME, "this bot is @%s", tg->username);
	if (!json_bool(r->result, "can_read_all_group_messages", true))
		log_debug(LOGNAME, "privacy mode: of groups only commands and replies arrive");
	tg->failures = 0;
	set_commands(tg);
	poll_start(tg);
}

/* Asks for updates. Until getMe answered it comes first, failing like a poll does: without the
 * bot's name nobody can tell which messages of a group are meant for it. */
static void
poll_start(void *arg)
{
	static const char kinds[] =
	    "[\"message\",\"edited_message\",\"callback_query\",\"stopped_message_generation\"]";
	struct tg *tg = arg;
	int64_t wait = config_i64(tg->a->config, "telegram.poll_timeout");
	struct post p;
	enum err e;

	if (tg->stopped || tg->poll.op)
		return;
	tg->poll.fresh = tg->failures > 0;
	post_open(&p);
	if (tg->me == 0) {
		e = api(&tg->poll, "getMe", &p, CALL_US, me_done);
	} else {
		if (tg->offset >= 0 && clock_us() - tg->seen_at < SILENCE_US)
			jw_ki64(&p.w, "offset", tg->offset);
		jw_ki64(&p.w, "limit", tg->narrow ? 1 : POLL_LIMIT);
		jw_ki64(&p.w, "timeout", wait);
		jw_kraw(&p.w, "allowed_updates", str_z(kinds));
		e = api(&tg->poll, "getUpdates", &p, wait * US_PER_S + POLL_SLACK_US, poll_done);
	}
	if (e != OK)
		poll_failed(tg, &(struct answer){ .why = str_z(err_str(e)) });
}

static void
poll_after(struct effect *e)
{
	poll_start(CONTAINER(e, struct tg, poll_effect));
}

/* ---- the channel -------------------------------------------------------------------- */

/* digits ':' 35 or more of [A-Za-z0-9_-] */
static bool
token_ok(struct str token)
{
	struct str id;
	size_t bad = 0;

	if (!str_cut(&token, ':', &id) || id.n == 0 || token.n < 35)
		return false;
	for (size_t i = 0; i < id.n; i++)
		bad += id.p[i] < '0' || id.p[i] > '9';
	for (size_t i = 0; i < token.n; i++)
		bad += !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-",
		    token.p[i]) || token.p[i] == '\0';
	return bad == 0;
}

static bool
tg_wanted(const struct config *c)
{
	return config_secret(c, "telegram.bot_token") != NULL;
}

static FALLIBLE
tg_start(struct agent *a, void **self, struct fail *f)
{
	struct tg *tg;

	if (!token_ok(secret_reveal(config_secret(a->config, "telegram.bot_token"))))
		return fail_set(f, ERR_CONFIG, "telegram.bot_token (%s) is not a bot token: "
		    "wanted are digits, a colon and at least 35 letters, as @BotFather gave it; "
		    "set it with `blufio config set telegram.bot_token TOKEN`",
		    config_origin(a->config, "telegram.bot_token"));
	tg = calloc(1, sizeof(*tg));
	if (!tg)
		return fail_set(f, ERR_NOMEM, "telegram: out of memory");
	tg->a = a;
	tg->offset = -1;
	call_init(&tg->poll, tg, POLL_BODY_MAX);
	call_init(&tg->setup, tg, BODY_MAX);
	call_init(&tg->button, tg, BODY_MAX);
	ev_timer_init(&tg->poll_timer, poll_start, tg);
	tg->poll_effect.run = poll_after;
	*self = tg;
	return OK;
}

static void
tg_load(void *self)
{
	struct tg *tg = self;

	load_offset(tg);
	tg->stopped = false;
	poll_start(tg);
}

static void
tg_stop_intake(void *self)
{
	struct tg *tg = self;

	tg->stopped = true;
	call_drop(&tg->poll);
	ev_timer_cancel(tg->a->ev, &tg->poll_timer);
	effect_cancel(&tg->poll_effect);
}

static void
tg_reset(void *self)
{
	struct tg *tg = self;

	tg_stop_intake(tg);
	call_drop(&tg->setup);
	call_drop(&tg->button);
	while (tg->lives)
		live_free(tg->lives);
	while (tg->deliveries)
		delivery_free(tg->deliveries);
}

static void
tg_free(void *self)
{
	tg_reset(self);
	free(self);
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
	.wanted = tg_wanted, .start = tg_start, .load = tg_load, .stop_intake = tg_stop_intake,
	.reset = tg_reset, .free = tg_free, .send = tg_send, .partial = tg_partial,
	.status = tg_status
};
const struct feature telegram_feature = {
	.name = "telegram", .kind = FEATURE_CHANNEL, .keys = keys, .channel = &ops,
	.summary = "Telegram bot: answers people and groups, streams drafts, sends rich messages"
};
