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
 * What is said is telegram/tg_talk.c's, files are tg_file.c's, what a message says
 * is read by message.c, a request is made by tg_call.c.
 */
#include "channel/telegram/message.h"
#include "channel/telegram/tg.h"

#define POLL_BODY_MAX (8u << 20)            /* a 5 MB update must pass */
#define POLL_SLACK_US (15 * US_PER_S)       /* beyond the server's own waiting time */
#define POLL_LIMIT 100
#define SILENCE_US (6 * 24 * 3600 * US_PER_S) /* then update ids may begin anew */
#define POISON_TRIES 5
#define PRESSES_MAX 32                      /* being answered */
#define NAME_CHARS "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"

static const char *const poll_names[] = { "starting", "polling", "backoff", "unauthorized",
	"conflict" };

/* The answer to a pressed button; what becomes of it changes nothing. */
struct press {
	struct call call;
	struct press *next;
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

/* All there is to answer is a sentence. Said once: a row knows the update when it comes again. */
static FALLIBLE
say_only(struct tg *tg, const struct json *m, struct inbound *in, const char *why)
{
	bool fresh;
	enum err e;

	in->text = STR_NONE;
	in->n_attachments = 0;
	e = inbound_seen(tg->a, in, &fresh);
	return e == OK && fresh ? say_cannot(tg, m, &in->to, why) : e;
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
		e = say_only(tg, m, in, "That message is too long for me. Please send it in parts of less than a megabyte.");
	else if (in->text.n || c.has_file) {
		e = inbound_put(tg->a, in, &done);
		if (e == OK && done && c.cannot)
			e = say_cannot(tg, m, &in->to, c.cannot);
	} else if (c.cannot)
		e = say_only(tg, m, in, c.cannot);
	else if (called && json_at(m, "text"))
		e = say_only(tg, m, in, "Yes? Write your question beside my name.");
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
	tg_talks_moved(tg, from, to);
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
	tg_call_drop(c);
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
	w = tg_post(&p->call);
	jw_kstr(w, "callback_query_id", id);
	if (*text)
		jw_kz(w, "text", text);
	if (tg_api(&p->call, "answerCallbackQuery", false, HINT_US, press_answered) != OK)
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

	bool old = json_i64(q, "message.date", 0) == 0;         /* then Telegram does not say which topic it is in */

	answer_press(tg, id, !permitted ? "This is not for you." : old ? "This is too old. Please ask again." : "");
	if (!permitted || old || word.n == 0 || word.n > PRESS_TEXT_MAX || word.p[0] != '/' || json_i64(q, "message.chat.id", 0) == 0)
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
		tg_stop(tg, v);
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
	ev_timer_in(tg->a->ev, &tg->poll_timer, tg_wait_us(r, tg->failures++));
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
	struct jw *w = tg_post(&tg->poll);
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
		    "{\"command\":\"jobs\",\"description\":\"What I do at its time\"},"
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
	e = tg_api(&tg->poll, method, false, wait * US_PER_S + POLL_SLACK_US, poll_done);
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

	tg_call_drop(&tg->poll);
	tg->offset = 0;                 /* what was not committed comes again */
	ev_timer_cancel(tg->a->ev, &tg->poll_timer);
	effect_cancel(&tg->poll_effect);
}

static void
tg_reset(void *self)
{
	struct tg *tg = self;

	tg_stop_intake(tg);
	tg_talks_free(tg);
	tg_downloads_free(tg);
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
