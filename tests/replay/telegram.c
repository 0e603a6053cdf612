/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * telegram.c - a small strict Telegram: people, chats, updates, messages.
 *
 * It refuses what the real one refuses and counts that in telegram.refused: a test
 * whose daemon was right ends with 0. An update is handed out until a getUpdates
 * with a higher offset confirms it. A message exists from the moment its request
 * has arrived, whatever becomes of the receipt: that is what makes a repeat visible.
 */
#include "replay/sim.h"

#define LATENCY_US (30 * US_PER_MS)
#define REFUSED_CONNECTION_US (20 * US_PER_MS)
#define BOT "sim_bot"

struct telegram telegram;

struct message { int64_t id, chat; bool bot; char *text; };
struct update { int64_t id; char *json; };

static struct message *messages;
static size_t n_messages, cap_messages;
static struct update updates[4096];
static size_t n_updates;
static struct exchange *polling;        /* the getUpdates that is held */
static int64_t poll_offset;             /* and what it wants */
static int64_t next_message, newest_draft[64];
static int64_t chats[64];               /* that somebody has written in */

static char *
copy(struct str s)
{
	char *p = malloc(s.n + 1);

	if (p == NULL)
		abort();
	memcpy(p, s.n ? s.p : "", s.n);
	p[s.n] = '\0';
	return p;
}

/* ---- answers -------------------------------------------------------------------------- */

static void
answer(struct exchange *x, unsigned status, struct str body)
{
	net_head(x, LATENCY_US, status, "content-type: application/json\n");
	net_data(x, 0, body);
	net_end(x, 0);
}

static void PRINTF(2, 3)
answer_ok(struct exchange *x, const char *fmt, ...)
{
	struct buf b = BUF_INIT(64u << 20);
	va_list ap;

	va_start(ap, fmt);
	buf_puts(&b, "{\"ok\":true,\"result\":");
	buf_vfmt(&b, fmt, ap);
	buf_putc(&b, '}');
	va_end(ap);
	answer(x, 200, buf_view(&b));
	buf_free(&b);
}

static void
answer_error(struct exchange *x, unsigned code, const char *why, int64_t retry_s)
{
	struct buf b = BUF_INIT(4096);

	buf_fmt(&b, "{\"ok\":false,\"error_code\":%u,\"description\":\"%s\"", code, why);
	if (retry_s)
		buf_fmt(&b, ",\"parameters\":{\"retry_after\":%lld}", (long long)retry_s);
	buf_putc(&b, '}');
	answer(x, code, buf_view(&b));
	buf_free(&b);
}

/* The daemon did what it must not do. */
static void
wrong(struct exchange *x, const char *why)
{
	telegram.refused++;
	sim_note("#%lld REFUSED %s", (long long)x->number, why);
	answer_error(x, 400, why, 0);
}

/* ---- people and their messages ------------------------------------------------------------ */

int64_t
telegram_chat(unsigned user)
{
	return 1000 + (int64_t)user;
}

static struct message *
message_add(int64_t chat, bool bot, struct str text)
{
	if (n_messages == cap_messages) {
		cap_messages = cap_messages ? cap_messages * 2 : 256;
		messages = realloc(messages, cap_messages * sizeof(*messages));
		if (messages == NULL)
			abort();
	}
	for (size_t i = 0; i < ARRAY_LEN(chats) && chats[i] != chat; i++)
		if (chats[i] == 0) {
			chats[i] = chat;
			break;
		}
	messages[n_messages] = (struct message){ ++next_message, chat, bot, copy(text) };
	return &messages[n_messages++];
}

static struct message *
message_get(int64_t chat, int64_t id)
{
	for (size_t i = n_messages; i-- > 0;)
		if (messages[i].chat == chat && messages[i].id == id)
			return &messages[i];
	return NULL;
}

static bool
chat_known(int64_t chat)
{
	for (size_t i = 0; i < ARRAY_LEN(chats); i++)
		if (chats[i] == chat && chat)
			return true;
	return false;
}

static void poll_answer(void *arg);

static void
update_add(struct str json)
{
	if (n_updates == ARRAY_LEN(updates))
		abort();
	updates[n_updates++] = (struct update){ telegram.update++, copy(json) };
	if (polling && updates[n_updates - 1].id >= poll_offset)
		poll_answer(polling);
}

static void
message_json(struct jw *w, unsigned user, bool group, int64_t id, struct str text)
{
	jw_obj(w);
	jw_ki64(w, "message_id", id);
	jw_ki64(w, "date", (sim.base + sim.now) / US_PER_S);
	jw_key(w, "chat");
	jw_obj(w);
	jw_ki64(w, "id", group ? GROUP_CHAT : telegram_chat(user));
	jw_kz(w, "type", group ? "supergroup" : "private");
	jw_end_obj(w);
	jw_key(w, "from");
	jw_obj(w);
	jw_ki64(w, "id", telegram_chat(user));
	jw_kbool(w, "is_bot", false);
	jw_kz(w, "first_name", user < STRANGERS ? "Somebody" : "Stranger");
	jw_end_obj(w);
	jw_kstr(w, "text", text);
	jw_end_obj(w);
}

static void
message_update(const char *kind, unsigned user, bool group, int64_t id, struct str text)
{
	struct buf b = BUF_INIT(8u << 20);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_ki64(&w, "update_id", telegram.update);
	jw_key(&w, kind);
	message_json(&w, user, group, id, text);
	jw_end_obj(&w);
	if (jw_done(&w) != OK)
		abort();
	update_add(buf_view(&b));
	buf_free(&b);
}

int64_t
telegram_say(unsigned user, bool group, struct str text)
{
	struct buf b = BUF_INIT(4u << 20);
	int64_t id;

	if (group)
		buf_puts(&b, "@" BOT " ");
	buf_str(&b, text);
	id = message_add(group ? GROUP_CHAT : telegram_chat(user), false, buf_view(&b))->id;
	message_update("message", user, group, id, buf_view(&b));
	buf_free(&b);
	return id;
}

void
telegram_edit(unsigned user, struct str text)
{
	for (size_t i = n_messages; i-- > 0;)
		if (messages[i].chat == telegram_chat(user) && !messages[i].bot) {
			free(messages[i].text);
			messages[i].text = copy(text);
			message_update("edited_message", user, false, messages[i].id, text);
			return;
		}
}

void
telegram_press_stop(unsigned user)
{
	struct buf b = BUF_INIT(4096);

	if (user >= ARRAY_LEN(newest_draft) || newest_draft[user] == 0)
		return;
	buf_fmt(&b, "{\"update_id\":%lld,\"stopped_message_generation\":{\"chat\":{\"id\":%lld,\"type\":\"private\"},"
	    "\"draft_id\":%lld}}", (long long)telegram.update, (long long)telegram_chat(user),
	    (long long)newest_draft[user]);
	update_add(buf_view(&b));
	buf_free(&b);
}

/* ---- getUpdates ------------------------------------------------------------------------------ */

static void
poll_answer(void *arg)
{
	struct exchange *x = arg;
	const struct json *v = NULL;
	struct arena ar = ARENA_INIT(1u << 20);
	struct buf b = BUF_INIT(64u << 20);
	int64_t limit = 100;

	if (json_parse(&ar, buf_view(&x->body), &v, NULL) == OK)
		limit = json_i64(v, "limit", 100);
	arena_free(&ar);
	sim_cancel(&x->held);
	polling = NULL;
	buf_putc(&b, '[');
	for (size_t i = 0; i < n_updates && (int64_t)i < limit; i++)
		if (updates[i].id >= poll_offset)
			buf_fmt(&b, "%s%s", b.n > 1 ? "," : "", updates[i].json);
	buf_putc(&b, ']');
	answer_ok(x, "%s", buf_z(&b));
	buf_free(&b);
}

static void
updates_drop(size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(updates[i].json);
	memmove(updates, updates + n, (n_updates - n) * sizeof(updates[0]));
	n_updates -= n;
}

static void
get_updates(struct exchange *x, const struct json *v)
{
	int64_t offset = json_i64(v, "offset", 0), wait = json_i64(v, "timeout", 0);
	size_t confirmed = 0;

	if (sim.now < telegram.deaf_until) {
		answer_error(x, 502, "Bad Gateway", 0);
		return;
	}
	if (polling) {
		answer_error(x, 409, "Conflict: terminated by other getUpdates request", 0);
		return;
	}
	while (confirmed < n_updates && updates[confirmed].id < offset)
		confirmed++;
	updates_drop(confirmed);
	x->held.fn = poll_answer;
	polling = x;
	poll_offset = offset;
	if (n_updates)
		poll_answer(x);
	else
		sim_at(&x->held, sim.now + wait * US_PER_S);
}

size_t
telegram_updates(void)
{
	return n_updates;
}

const char *
telegram_update(size_t i, int64_t *id)
{
	*id = updates[i].id;
	return updates[i].json;
}

/* ---- what the bot sends ------------------------------------------------------------------------- */

/* Tags of the HTML mode, opened and closed in order; NULL: well. */
static const char *
html_broken(struct str s)
{
	static const char *const tags[] = { "b", "i", "u", "s", "a", "code", "pre", "blockquote" };
	const char *open[32];
	size_t depth = 0;

	for (struct str head, rest = s; str_cut(&rest, '<', &head);) {
		bool close = rest.n && rest.p[0] == '/';
		struct str tag, name;
		const char *known = NULL;

		if (close)
			rest = str_sub(rest, 1, rest.n);
		if (!str_cut(&rest, '>', &tag))
			return "Bad Request: can't parse entities: unclosed tag";
		(void)str_cut(&tag, ' ', &name);
		for (size_t i = 0; i < ARRAY_LEN(tags); i++)
			known = str_eqz(name, tags[i]) ? tags[i] : known;
		if (known == NULL || (close && (depth == 0 || open[depth - 1] != known)) ||
		    (!close && depth == ARRAY_LEN(open)))
			return "Bad Request: can't parse entities: unexpected tag";
		if (close)
			depth--;
		else
			open[depth++] = known;
	}
	return depth ? "Bad Request: can't parse entities: tag is not closed" : NULL;
}

/* What is wrong with a text to be shown; NULL: nothing. */
static const char *
text_broken(const struct json *v, struct str text, bool draft)
{
	struct str mode = json_str(v, "parse_mode", STR_NONE);
	size_t max = json_at(v, "rich_message") ? 32768 : 4096;

	if (!draft && str_trim(text).n == 0)
		return "Bad Request: message text is empty";
	if (!utf8_valid(text) || str_chr(text, '\0') != SIZE_MAX)
		return "Bad Request: strings must be encoded in UTF-8";
	if (utf8_units(text) > max)
		return "Bad Request: message is too long";
	if (mode.n && !str_eqz(mode, "HTML"))
		return "Bad Request: unsupported parse_mode";
	return mode.n ? html_broken(text) : NULL;
}

/* The faults that a send meets instead of having an effect. Those that are counted spare hints. */
static bool
meets_fault(struct exchange *x, bool hint)
{
	unsigned dice = telegram.chaos ? sim_chance(1000) : 1000;

	if (telegram.limit_until > sim.now) {
		answer_error(x, 429, "Too Many Requests", telegram.limit_s);
	} else if (telegram.refuse > 0 && !hint) {
		telegram.refuse--;
		answer_error(x, 403, "Forbidden: bot was blocked by the user", 0);
	} else if ((telegram.fail > 0 && !hint) || dice < telegram.chaos / 3) {
		telegram.fail -= telegram.fail > 0 && !hint;
		answer_error(x, 500, "Internal Server Error", 0);
	} else if ((telegram.reset > 0 && !hint) || dice < telegram.chaos / 3 * 2) {
		telegram.reset -= telegram.reset > 0 && !hint;
		net_reset(x, LATENCY_US);
	} else {
		return false;
	}
	return true;
}

static bool
receipt_lost(struct exchange *x)
{
	if (telegram.lose <= 0 && !(telegram.chaos && sim_chance(1000) < telegram.chaos / 3))
		return false;
	telegram.lose -= telegram.lose > 0;
	net_fail(x, LATENCY_US, ERR_CLOSED, true, "api.telegram.org closed the connection");
	return true;
}

static void
send_message(struct exchange *x, const struct json *v)
{
	int64_t chat = json_i64(v, "chat_id", 0), to = json_i64(v, "reply_parameters.message_id", 0);
	struct str text = json_str(v, "text", json_str(v, "rich_message.markdown", STR_NONE));
	const char *why = text_broken(v, text, false);

	telegram.tries++;
	if (!chat_known(chat))
		why = "Bad Request: chat not found";
	else if (to && !message_get(chat, to) && !json_bool(v, "reply_parameters.allow_sending_without_reply", false))
		why = "Bad Request: message to be replied not found";
	if (why) {
		wrong(x, why);
	} else if (!meets_fault(x, false)) {
		const struct message *m = message_add(chat, true, text);

		telegram.sends++;
		if (!receipt_lost(x))
			answer_ok(x, "{\"message_id\":%lld,\"date\":%lld,\"chat\":{\"id\":%lld}}", (long long)m->id,
			    (long long)((sim.base + sim.now) / US_PER_S), (long long)chat);
	}
}

static void
edit_message(struct exchange *x, const struct json *v)
{
	int64_t chat = json_i64(v, "chat_id", 0), id = json_i64(v, "message_id", 0);
	struct str text = json_str(v, "text", json_str(v, "rich_message.markdown", STR_NONE));
	const char *why = text_broken(v, text, false);
	struct message *m = message_get(chat, id);

	if (m == NULL || !m->bot)
		why = "Bad Request: message to edit not found";
	if (why) {
		wrong(x, why);
	} else if (!meets_fault(x, false)) {
		bool same = str_eqz(text, m->text);

		free(m->text);
		m->text = copy(text);
		if (receipt_lost(x))
			return;
		if (same)
			answer_error(x, 400, "Bad Request: message is not modified", 0);
		else
			answer_ok(x, "{\"message_id\":%lld,\"date\":0,\"chat\":{\"id\":%lld}}", (long long)id, (long long)chat);
	}
}

static void
send_draft(struct exchange *x, const struct json *v)
{
	int64_t chat = json_i64(v, "chat_id", 0), id = json_i64(v, "draft_id", 0);
	const char *why = text_broken(v, json_str(v, "text", STR_NONE), true);

	if (chat < 0)
		answer_error(x, 400, "Bad Request: TEXTDRAFT_PEER_INVALID", 0);
	else if (why || id == 0 || !chat_known(chat))
		wrong(x, why ? why : id == 0 ? "Bad Request: draft_id is zero" : "Bad Request: chat not found");
	else if (!meets_fault(x, true)) {
		if (chat - 1000 < (int64_t)ARRAY_LEN(newest_draft))
			newest_draft[chat - 1000] = id;
		answer_ok(x, "true");
	}
}

static void
chat_action(struct exchange *x, const struct json *v)
{
	if (!str_eqz(json_str(v, "action", STR_NONE), "typing") || !chat_known(json_i64(v, "chat_id", 0)))
		wrong(x, "Bad Request: wrong parameter action in request");
	else if (!meets_fault(x, true))
		answer_ok(x, "true");
}

static void
get_me(struct exchange *x, const struct json *v)
{
	(void)v;
	answer_ok(x, "{\"id\":123456789,\"is_bot\":true,\"first_name\":\"Sim\",\"username\":\"" BOT "\"}");
}

static void
set_commands(struct exchange *x, const struct json *v)
{
	const struct json *list = json_at(v, "commands");

	for (const struct json *c = list ? list->first : NULL; c; c = c->next)
		if (json_str(c, "command", STR_NONE).n == 0 || json_str(c, "description", STR_NONE).n == 0) {
			wrong(x, "Bad Request: BOT_COMMAND_INVALID");
			return;
		}
	answer_ok(x, "true");
}

/* ---- requests --------------------------------------------------------------------------------------- */

static const struct method {
	const char *name, *wanted, *allowed;    /* with blanks around each word */
	void (*run)(struct exchange *x, const struct json *v);
} methods[] = {
	{ "getMe", "", "", get_me },
	{ "setMyCommands", "commands", " commands ", set_commands },
	{ "getUpdates", "timeout", " offset limit timeout allowed_updates ", get_updates },
	{ "sendMessage", "text", " chat_id text message_thread_id reply_parameters parse_mode reply_markup "
	    "link_preview_options ", send_message },
	{ "sendRichMessage", "rich_message", " chat_id rich_message message_thread_id reply_parameters reply_markup ",
	    send_message },
	{ "editMessageText", "message_id", " chat_id message_id text rich_message message_thread_id parse_mode "
	    "reply_markup link_preview_options ", edit_message },
	{ "sendMessageDraft", "draft_id", " chat_id draft_id text message_thread_id parse_mode can_stop keep_on_stop ",
	    send_draft },
	{ "sendChatAction", "action", " chat_id action message_thread_id ", chat_action },
};

static const char *
members_broken(const struct method *m, const struct json *v)
{
	char word[80];

	for (const struct json *k = v->first; k; k = k->next) {
		snprintf(word, sizeof(word), " %.*s ", STR_ARG(utf8_prefix(k->key, 70)));
		if (!strstr(m->allowed, word))
			return "Bad Request: a parameter that does not exist";
	}
	return m->wanted[0] && !json_at(v, m->wanted) ? "Bad Request: a parameter is missing" : NULL;
}

static void
request(struct exchange *x)
{
	struct arena ar = ARENA_INIT(64u << 20);
	const struct json *v = NULL;
	const struct method *m = NULL;

	if (sim.now < telegram.down_until) {
		net_fail(x, REFUSED_CONNECTION_US, ERR_CLOSED, false, "cannot connect to api.telegram.org");
		return;
	}
	if (sim.now < telegram.silent_until)
		return;
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		m = str_eqz(x->what, methods[i].name) ? &methods[i] : m;
	if (str_find(buf_view(&x->url), S("/bot" TELEGRAM_TOKEN "/")) == SIZE_MAX || m == NULL)
		wrong(x, "Not Found");
	else if (json_parse(&ar, buf_view(&x->body), &v, NULL) != OK || v->type != JSON_OBJECT)
		wrong(x, "Bad Request: the body is no JSON object");
	else if (members_broken(m, v))
		wrong(x, members_broken(m, v));
	else
		m->run(x, v);
	arena_free(&ar);
}

static void
over(struct exchange *x)
{
	if (polling == x)
		polling = NULL;
}

const struct peer telegram_peer = { "api.telegram.org", request, over };

/* ---- what tests ask --------------------------------------------------------------------------------- */

size_t
telegram_count(int64_t chat, struct str part, struct str *last)
{
	size_t n = 0;

	for (size_t i = 0; i < n_messages; i++)
		if (messages[i].bot && messages[i].chat == chat &&
		    str_find(str_z(messages[i].text), part) != SIZE_MAX) {
			n++;
			if (last)
				*last = str_z(messages[i].text);
		}
	return n;
}

size_t
telegram_count_sure(int64_t chat, struct str part)
{
	size_t n = 0;

	for (size_t i = 0; i < n_messages; i++)
		n += messages[i].bot && messages[i].chat == chat && str_find(str_z(messages[i].text), part) != SIZE_MAX &&
		    str_find(str_z(messages[i].text), S("This may be a repeat")) == SIZE_MAX;
	return n;
}

bool
telegram_before(int64_t chat, struct str a, struct str b)
{
	bool seen = false;

	for (size_t i = 0; i < n_messages; i++) {
		if (!messages[i].bot || messages[i].chat != chat)
			continue;
		if (str_find(str_z(messages[i].text), b) != SIZE_MAX)
			return seen;
		seen = seen || str_find(str_z(messages[i].text), a) != SIZE_MAX;
	}
	return false;
}

void
telegram_forget(void)
{
	for (size_t i = 0; i < n_messages; i++)
		free(messages[i].text);
	free(messages);
	messages = NULL;
	n_messages = cap_messages = 0;
}

void
telegram_end(void)
{
	telegram_forget();
	updates_drop(n_updates);
}

void
telegram_begin(void)
{
	telegram_end();
	telegram = (struct telegram){ .update = 500000 };
	next_message = 0;
	memset(newest_draft, 0, sizeof(newest_draft));
	memset(chats, 0, sizeof(chats));
}
