/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * control.c - the control socket: how the command line speaks to the daemon,
 * and the channel "shell" on it.
 *
 * A Unix socket (0600, beside the database, the peer's uid checked), one JSON
 * object a line both ways. {"cmd":"status"} and its like get one answer. A
 * client that sends {"cmd":"chat","chat":"main"} becomes the terminal of that
 * conversation: it sends {"cmd":"message","id":…,"text":…}, gets {"type":"begin"},
 * "delta", "tool", "restart", "end" as hints and {"type":"reply"|"notice","item":N}
 * as facts, which it acknowledges with {"cmd":"ack","item":N}: only then is the
 * reply delivered. A reply that nobody is there to take waits (outbox_park).
 *
 * An answer that tells of something stored is held back until it is committed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE     /* struct ucred */
#endif
#include "core.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 64
#define LINE_MAX_BYTES (2u << 20)       /* one request: a message of MESSAGE_MAX, escaped */
#define OUT_MAX (8u << 20)              /* a client that reads this far behind is dropped */
#define OUT_HIGH (256u << 10)           /* above: the turn's stream is paused */
#define OUT_LOW (64u << 10)
#define ACCEPT_PAUSE_US (100 * US_PER_MS)  /* when descriptors have run out */

struct client {
	struct agent *a;
	int fd;
	struct buf in, out;
	struct buf held;                /* answers that wait for the commit */
	struct effect release;
	char *chat;                     /* not NULL: a terminal */
	struct str request;             /* id of the request being handled, echoed in its answer; may be empty */
	int64_t item;                   /* sent, not yet acknowledged; 0 none */
	int64_t paused_turn;
	bool dead;
	struct ev_defer reap, flush;    /* flush: one send for what a loop turn has to say */
	struct client *next, **prev;
};
struct control {
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct client *clients;
	size_t n;
	struct ev_timer again;          /* listens again after a pause */
};

/* ---- clients -------------------------------------------------------------------------- */

static void on_io(void *arg, int fd, unsigned events);

static void
client_free(struct client *c)
{
	struct agent *a = c->a;

	ev_fd_del(a->ev, c->fd);
	close(c->fd);
	effect_cancel(&c->release);
	ev_defer_cancel(&c->reap);
	ev_defer_cancel(&c->flush);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	a->control->n--;
	buf_free(&c->in);
	buf_free(&c->out);
	buf_free(&c->held);
	free(c->chat);
	free(c);
}

static void
on_reap(void *arg)
{
	struct client *c = arg;
	int64_t item = c->item, turn = c->paused_turn;
	struct agent *a = c->a;

	client_free(c);
	if (turn)
		turn_pause(a, turn, false);
	for (const struct client *other = a->control->clients; other; other = other->next)
		if (other->item == item)
			item = 0;       /* somebody else has it before him */
	if (item)                       /* it may have been read: told as a repeat to the next terminal */
		outbox_retry(a, item, 0, DOUBT_MAYBE_SENT, STR_NONE, S("the terminal went away"));
}

static void
client_drop(struct client *c)
{
	if (c->dead)
		return;
	c->dead = true;
	ev_fd_del(c->a->ev, c->fd);
	ev_defer(c->a->ev, &c->reap);
}

static void
client_watch(struct client *c)
{
	if (!c->dead && ev_fd_set(c->a->ev, c->fd, EV_READ | (c->out.n ? EV_WRITE : 0u), on_io, c) != OK)
		client_drop(c);
}

static void
client_flush(struct client *c)
{
	while (c->out.n && !c->dead) {
		ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);

		if (n > 0) {
			buf_drop(&c->out, (size_t)n);
		} else if (errno == EINTR) {
			continue;
		} else {
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				client_drop(c);
			break;
		}
	}
	if (c->out.err != OK)
		client_drop(c);
	if (c->paused_turn && c->out.n < OUT_LOW) {
		turn_pause(c->a, c->paused_turn, false);
		c->paused_turn = 0;
	}
	client_watch(c);
}

static void
on_flush(void *arg)
{
	client_flush(arg);
}

static void
on_release(struct effect *e)
{
	struct client *c = CONTAINER(e, struct client, release);

	buf_str(&c->out, buf_view(&c->held));
	buf_reset(&c->held);
	client_flush(c);
}

/* ---- answers ----------------------------------------------------------------------------- */

/* Answers keep the order of their requests: behind one that waits for its commit, all wait. */
static struct buf *
answers(struct client *c)
{
	return c->held.n ? &c->held : &c->out;
}

static void
answer_error(struct client *c, const char *what)
{
	struct buf *to = answers(c);
	struct jw w;

	jw_init(&w, to);
	jw_obj(&w);
	jw_kbool(&w, "ok", false);
	if (c->request.n)
		jw_kstr(&w, "id", c->request);
	jw_kz(&w, "error", what);
	jw_end_obj(&w);
	buf_putc(to, '\n');
}

static void
answer_raw(struct client *c, const char *key, struct str json)
{
	struct buf *to = answers(c);
	struct jw w;

	jw_init(&w, to);
	jw_obj(&w);
	jw_kbool(&w, "ok", true);
	jw_kraw(&w, key, json);
	jw_end_obj(&w);
	buf_putc(to, '\n');
}

/* Held until the commit of what it tells; without storage there is none to wait for. */
static void
answer_text(struct client *c, struct str text)
{
	struct buf *to = c->a->phase == AGENT_STORAGE_FAILED ? &c->out : &c->held;
	struct jw w;

	jw_init(&w, to);
	jw_obj(&w);
	jw_kbool(&w, "ok", true);
	if (c->request.n)
		jw_kstr(&w, "id", c->request);
	jw_kstr(&w, "text", text);
	jw_end_obj(&w);
	buf_putc(to, '\n');
	if (to == &c->held)
		agent_after(c->a, &c->release);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void
req_status(struct client *c, const struct json *r)
{
	struct buf b = BUF_INIT(1u << 20);

	(void)r;
	status_json(c->a, &b);
	answer_raw(c, "status", buf_view(&b));
	buf_free(&b);
}

static void
req_cost(struct client *c, const struct json *r)
{
	struct buf b = BUF_INIT(1u << 20);
	struct jw w;

	(void)r;
	jw_init(&w, &b);
	if (cost_report(c->a, &w) != OK || jw_done(&w) != OK)
		answer_error(c, "the ledger cannot be read now; next: `blufio status`");
	else
		answer_raw(c, "cost", buf_view(&b));
	buf_free(&b);
}

static void
req_pause(struct client *c, const struct json *r)
{
	bool pause = json_bool(r, "pause", true);

	agent_wrote(c->a, cost_pause(c->a, pause));
	answer_text(c, pause ? S("paused: nothing is asked of a model until `blufio resume`\n") : S("goes on\n"));
}

static void
req_dump(struct client *c, const struct json *r)
{
	struct buf b = BUF_INIT(16u << 20);

	(void)r;
	status_dump(c->a, &b);
	answer_raw(c, "dump", buf_view(&b));
	buf_free(&b);
}

static void
list_pairing(void *arg, struct str code, struct str channel, struct str sender, struct str name, int64_t expires)
{
	struct buf *b = arg;
	char left[32];

	clock_span(expires - clock_us(), left);
	buf_fmt(b, "%.*s  %.*s %.*s (%.*s), %s left\n", STR_ARG(code), STR_ARG(channel), STR_ARG(sender),
	    STR_ARG(name), left);
}

static void
req_pair(struct client *c, const struct json *r)
{
	struct str code = json_str(r, "code", STR_NONE);
	struct buf told = BUF_INIT(64u << 10);
	struct fail f = FAIL_INIT;

	if (code.n == 0) {
		if (store_pairing_list(c->a->db, clock_us(), list_pairing, &told) != OK)
			IGNORE(fail_set(&f, ERR_IO, "the pairing codes cannot be read; next: `blufio status`"));
		else if (told.n == 0)
			buf_puts(&told, "no open pairing codes; send the bot a message to get one\n");
	} else if (c->a->phase == AGENT_STORAGE_FAILED) {
		IGNORE(fail_set(&f, ERR_IO, "the storage does not work at the moment; nothing was stored; next:"
		    " `blufio status`"));
	} else if (pair_code(c->a, code, &told, &f) == OK) {
		buf_putc(&told, '\n');
	}
	if (f.err != OK)
		answer_error(c, f.text);
	else
		answer_text(c, buf_view(&told));
	buf_free(&told);
}

/* A credential of the gateway that may do everything: for whoever may use this socket, which is the owner. A key, or
 * a device, which keeps the private half of what is registered here. */
static void
req_pair_gateway(struct client *c, const struct json *r)
{
	const struct api_key_row k = { .name = json_str(r, "name", STR_NONE), .scopes = SCOPE_ALL,
	    .kind = json_at(r, "device") ? API_KEY_DEVICE : API_KEY_SECRET, .hash = json_str(r, "device", STR_NONE) };
	struct buf key = BUF_INIT(128);
	int64_t id, n = 0;
	enum err e = store_api_key_count(c->a->db, &n);
	const char *why = NULL;

	if (feature_find(FEATURE_CHANNEL, S("gateway")) == NULL)
		why = "this blufio was built without the gateway; next: `make FEATURES=\"telegram gateway\"`";
	else if (agent_channel(c->a, S("gateway")) == NULL)
		why = "the gateway does not run; next: `blufio config set gateway.enabled true`, then `blufio stop` and"
		    " `blufio serve`";
	else if (!store_api_key_name(k.name))
		why = "a key's name is a text of 1 to 64 bytes on one line; next: `blufio pair --gateway laptop`";
	else if (k.kind == API_KEY_DEVICE && !store_api_key_device(k.hash))
		why = "a device is its Ed25519 public key, as 64 lower-case hex digits";
	else if (e == OK && n >= API_KEYS_MAX)
		why = "there are as many keys as there may be; next: DELETE /v1/api-keys/{id} for one that is not used";
	else if (e != OK || c->a->phase == AGENT_STORAGE_FAILED)
		why = "the storage does not work at the moment; nothing was stored; next: `blufio status`";
	if (why) {
		answer_error(c, why);
		return;
	}
	if (k.kind == API_KEY_DEVICE) {
		e = store_api_key_add(c->a->db, &k, &id);
	} else {
		e = store_api_key_mint(c->a->db, &k, &key, &id);
		buf_putc(&key, '\n');
		if (e == OK)
			e = key.err;
	}
	if (e != ERR_EXISTS)
		agent_wrote(c->a, e);
	if (e == OK)
		answer_text(c, buf_view(&key));
	else if (e == ERR_EXISTS)
		answer_error(c, "this public key is or was registered; a device that comes back makes a new one");
	else
		answer_error(c, "the key could not be stored; next: `blufio status`");
	if (key.p)
		secret_wipe(key.p, key.cap);
	buf_free(&key);
}

static void
req_log(struct client *c, const struct json *r)
{
	enum log_level level;
	struct buf b = BUF_INIT(256);

	if (json_at(r, "level") == NULL) {
		buf_fmt(&b, "%s\n", log_level_name(log_get_level()));
		answer_text(c, buf_view(&b));
	} else if (log_level_parse(json_str(r, "level", STR_NONE), &level) != OK) {
		answer_error(c, "the log level is one of error, warn, info, debug, trace; next: `blufio log info`");
	} else {
		log_set_level(level);
		buf_fmt(&b, "log level is %s until the next start\n", log_level_name(level));
		answer_text(c, buf_view(&b));
	}
	buf_free(&b);
}

static void
req_stop(struct client *c, const struct json *r)
{
	(void)r;
	answer_text(c, S("stopping: running conversations may finish first\n"));
	agent_drain(c->a);
}

static void
req_reload(struct client *c, const struct json *r)
{
	struct buf told = BUF_INIT(4096);
	struct fail f = FAIL_INIT;

	(void)r;
	if (agent_reload(c->a, &told, &f) != OK)
		answer_error(c, f.text);
	else
		answer_text(c, buf_view(&told));
	buf_free(&told);
}

/* ---- the terminal of a conversation ------------------------------------------------------------ */

static struct target
chat_target(const char *chat)
{
	return (struct target){ S("shell"), str_z(chat), STR_NONE, STR_NONE };
}

static void
req_chat(struct client *c, const struct json *r)
{
	struct str chat = json_str(r, "chat", S("main"));
	struct target to;

	if (chat.n == 0 || chat.n > 64 || c->chat) {
		answer_error(c, "a chat has a name of 1 to 64 bytes, once a connection");
		return;
	}
	c->chat = malloc(chat.n + 1);
	if (c->chat == NULL) {
		client_drop(c);
		return;
	}
	memcpy(c->chat, chat.p, chat.n);
	c->chat[chat.n] = '\0';
	buf_fmt(answers(c), "{\"ok\":true,\"offline\":%s}\n", c->a->provider->feature->provider->offline ? "true" : "false");
	to = chat_target(c->chat);
	outbox_unpark(c->a, &to);
}

static void
req_message(struct client *c, const struct json *r)
{
	struct inbound in = { .to = chat_target(c->chat), .sender = S("local"), .sender_name = S("terminal"),
	    .dedup = json_str(r, "id", STR_NONE), .text = json_str(r, "text", STR_NONE), .sent_at = clock_us() };
	bool fresh;
	enum err e;

	in.ref = in.to.reply_to = in.dedup;     /* its answer says what it answers */
	if (c->chat == NULL || in.dedup.n == 0 || in.dedup.n > 64) {
		answer_error(c, "a message needs a chat and an id of at most 64 bytes");
		return;
	}
	if (c->a->phase != AGENT_READY) {
		answer_error(c, c->a->phase == AGENT_DRAINING ? "blufio is stopping; send it again after the next start"
		    : "the storage does not work at the moment; nothing was stored; next: `blufio status`");
		return;
	}
	if (str_trim(in.text).n == 0 || in.text.n > MESSAGE_MAX) {
		answer_error(c, "a message has 1 byte to 1 MB of text");
		return;
	}
	e = inbound_put(c->a, &in, &fresh);
	if (e == OK)
		answer_text(c, S("stored"));
	else
		answer_error(c, "the message could not be stored; next: `blufio status`");
}

static void
req_interrupt(struct client *c, const struct json *r)
{
	struct target to;

	(void)r;
	if (c->chat == NULL)
		return;
	to = chat_target(c->chat);
	session_stop(c->a, &to);
}

static void
req_ack(struct client *c, const struct json *r)
{
	int64_t item = json_i64(r, "item", 0);

	if (item == 0 || item != c->item)
		return;
	c->item = 0;
	outbox_done(c->a, item, STR_NONE);
}

static const struct { const char *name; void (*run)(struct client *c, const struct json *r); } requests[] = {
	{ "status", req_status }, { "pair", req_pair }, { "pair_gateway", req_pair_gateway }, { "log", req_log },
	{ "stop", req_stop }, { "cost", req_cost }, { "pause", req_pause },
	{ "reload", req_reload }, { "dump", req_dump }, { "chat", req_chat }, { "message", req_message },
	{ "interrupt", req_interrupt }, { "ack", req_ack },
};

static void
on_line(struct client *c, struct str line)
{
	struct arena ar = ARENA_INIT(LINE_MAX_BYTES * 4u);
	const struct json *r;
	struct str cmd;
	size_t i = 0;

	if (json_parse(&ar, line, &r, NULL) != OK) {
		answer_error(c, "not a JSON object on one line");
	} else {
		cmd = json_str(r, "cmd", STR_NONE);
		while (i < ARRAY_LEN(requests) && !str_eqz(cmd, requests[i].name))
			i++;
		c->request = json_str(r, "id", STR_NONE);
		if (i < ARRAY_LEN(requests))
			requests[i].run(c, r);
		else
			answer_error(c, "unknown cmd");
		c->request = STR_NONE;
	}
	arena_free(&ar);
}

static void
client_read(struct client *c)
{
	size_t eol;
	ssize_t n;
	char *room = buf_room(&c->in, 16384);

	if (room == NULL) {
		answer_error(c, "a request line is at most 2 MB");
		client_flush(c);
		client_drop(c);
		return;
	}
	n = read(c->fd, room, 16384);
	if (n <= 0) {
		if (n == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
			client_drop(c);
		return;
	}
	c->in.n += (size_t)n;
	while (!c->dead && (eol = str_chr(buf_view(&c->in), '\n')) != SIZE_MAX) {
		on_line(c, str_sub(buf_view(&c->in), 0, eol));
		buf_drop(&c->in, eol + 1);
	}
}

static void
on_io(void *arg, int fd, unsigned events)
{
	struct client *c = arg;

	(void)fd;
	if (events & EV_READ)
		client_read(c);
	if (!c->dead)
		client_flush(c);
}

FALLIBLE
control_attach(struct agent *a, int fd)
{
	struct client *c = a->control->n < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (c == NULL || fd_nonblock(fd) != OK || fd_cloexec(fd) != OK) {
		free(c);
		close(fd);
		return ERR_LIMIT;
	}
	c->a = a;
	c->fd = fd;
	buf_init(&c->in, LINE_MAX_BYTES + 16384);
	buf_init(&c->out, OUT_MAX);
	buf_init(&c->held, OUT_MAX);
	c->release.run = on_release;
	ev_defer_init(&c->reap, on_reap, c);
	ev_defer_init(&c->flush, on_flush, c);
	c->next = a->control->clients;
	c->prev = &a->control->clients;
	if (c->next)
		c->next->prev = &c->next;
	a->control->clients = c;
	a->control->n++;
	client_watch(c);
	return OK;
}

/* ---- the channel "shell" -------------------------------------------------------------------------- */

static enum err
shell_start(struct agent *a, void **self, struct fail *f)
{
	(void)f;
	*self = a;
	return OK;
}

/* To every terminal of the chat; the first acknowledgement is the delivery. */
/* The text, and the words that could be chosen as its last line. */
static void
text_with_words(const struct outbox_item *item, struct buf *out)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(item->buttons.n));
	const struct json *buttons;

	buf_str(out, item->text);
	if (item->buttons.n && json_parse(&ar, item->buttons, &buttons, NULL) == OK)
		for (const struct json *b = buttons->first; b; b = b->next) {
			buf_puts(out, b == buttons->first ? "\n\n" : "  ");
			buf_str(out, json_str(b, "1", STR_NONE));
		}
	arena_free(&ar);
}

static void
shell_send(void *self, const struct outbox_item *item)
{
	struct agent *a = self;
	struct buf text = BUF_INIT(item->text.n + item->buttons.n + 64);
	bool anybody = false;
	struct jw w;

	text_with_words(item, &text);
	agent_wrote(a, text.err);

	for (struct client *c = a->control->clients; c; c = c->next) {
		if (c->chat == NULL || c->dead || !str_eqz(item->to.chat, c->chat))
			continue;
		jw_init(&w, &c->out);
		jw_obj(&w);
		jw_kz(&w, "type", item->kind == OUTBOX_REPLY ? "reply" : "notice");
		jw_ki64(&w, "item", item->id);
		jw_ki64(&w, "turn", item->turn);
		jw_kstr(&w, "answers", item->to.reply_to);
		jw_kbool(&w, "repeated", item->repeated);
		jw_kstr(&w, "text", buf_view(&text));
		jw_end_obj(&w);
		buf_putc(&c->out, '\n');
		c->item = item->id;
		ev_defer(a->ev, &c->flush);
		anybody = true;
	}
	if (!anybody)
		outbox_park(a, item->id);
	buf_free(&text);
}

static void
shell_partial(void *self, const struct partial *p)
{
	static const char *const names[] = { "begin", "delta", "tool", "restart", "end" };
	struct agent *a = self;

	for (struct client *c = a->control->clients; c; c = c->next) {
		struct jw w;

		if (c->chat == NULL || c->dead || !str_eqz(p->to.chat, c->chat))
			continue;
		jw_init(&w, &c->out);
		jw_obj(&w);
		jw_kz(&w, "type", names[p->what]);
		jw_ki64(&w, "turn", p->turn);
		jw_kstr(&w, "answers", p->to.reply_to);
		if (p->what == PARTIAL_TEXT)
			jw_kstr(&w, "text", p->delta);
		if (p->what == PARTIAL_TOOL)
			jw_kstr(&w, "tool", p->tool);
		jw_end_obj(&w);
		buf_putc(&c->out, '\n');
		if (c->out.n > OUT_HIGH && c->paused_turn == 0) {
			c->paused_turn = p->turn;
			turn_pause(a, p->turn, true);
		}
		ev_defer(a->ev, &c->flush);
	}
}

static void
shell_load(void *self)
{
	struct agent *a = self;

	for (struct client *c = a->control->clients; c; c = c->next)
		if (c->chat) {
			const struct target to = chat_target(c->chat);

			outbox_unpark(a, &to);
		}
}

/* After a failed commit: what was promised to be stored was not. */
static void
shell_reset(void *self)
{
	struct agent *a = self;

	for (struct client *c = a->control->clients; c; c = c->next) {
		size_t lost = 0;

		for (size_t i = 0; i < c->held.n; i++)
			lost += c->held.p[i] == '\n';
		buf_reset(&c->held);
		for (; lost; lost--)    /* an answer for every request */
			answer_error(c, "the storage does not work at the moment: whether this was stored is not certain,"
			    " so wait for an answer before you send it again; next: `blufio status`");
		client_watch(c);
		c->item = 0;
		c->paused_turn = 0;
	}
}

static void
shell_nothing(void *self)
{
	(void)self;
}

static bool
shell_wanted(const struct config *c)
{
	(void)c;
	return true;
}

static void
shell_status(void *self, struct jw *w)
{
	struct agent *a = self;
	int64_t n = 0;

	for (const struct client *c = a->control->clients; c; c = c->next)
		n += c->chat != NULL;
	jw_ki64(w, "terminals", n);
}

const struct channel_ops shell_channel = {
	.wanted = shell_wanted, .start = shell_start, .load = shell_load, .stop_intake = shell_nothing,
	.reset = shell_reset, .free = shell_nothing, .send = shell_send, .partial = shell_partial,
	.status = shell_status,
};

/* ---- listening --------------------------------------------------------------------------------------- */

static bool
peer_ok(int fd)
{
#ifdef SO_PEERCRED
	struct ucred cred;
	socklen_t n = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) != 0)
		return false;
	return cred.uid == geteuid() || cred.uid == 0;
#else
	(void)fd;
	return true;                    /* the socket's mode 0600 is the check there */
#endif
}

static void on_accept(void *arg, int fd, unsigned events);

static void
listen_again(void *arg)
{
	struct agent *a = arg;

	if (ev_fd_set(a->ev, a->control->fd, EV_READ, on_accept, a) != OK)
		ev_timer_in(a->ev, &a->control->again, ACCEPT_PAUSE_US);
}

static void
on_accept(void *arg, int fd, unsigned events)
{
	struct agent *a = arg;
	int client = accept(fd, NULL, NULL);

	(void)events;
	if (client < 0) {
		if (errno == EMFILE || errno == ENFILE) {       /* would be ready again at once: look away a little */
			ev_fd_del(a->ev, fd);
			ev_timer_in(a->ev, &a->control->again, ACCEPT_PAUSE_US);
		}
		return;
	}
	if (!peer_ok(client)) {
		log_warn("control", "a connection of another user was refused");
		close(client);
		return;
	}
	if (control_attach(a, client) != OK)
		log_warn("control", "a connection was refused: %d are open", CLIENTS_MAX);
}

FALLIBLE
control_socket_path(const char *database_path, char *out, size_t n, struct fail *f)
{
	size_t max = sizeof(((struct sockaddr_un *)0)->sun_path);

	if ((size_t)snprintf(out, n, "%s.sock", database_path) >= max)
		return fail_set(f, ERR_CONFIG, "%s.sock is longer than a socket path may be (%zu bytes); next: `blufio"
		    " config set storage.database_path /a/shorter/path.db`", database_path, max - 1);
	return OK;
}

static enum err
listen_on(struct agent *a, struct fail *f)
{
	struct control *c = a->control;
	struct fail why = FAIL_INIT;
	enum err e = control_socket_path(a->database_path, c->path, sizeof(c->path), f);

	if (e != OK)
		return e;
	if (fd_listen(c->path, 16, &c->fd, &why) != OK)
		return fail_set(f, ERR_IO, "%s: cannot listen on the control socket (%s); next: `ls -ld` its directory and make"
		    " it writable", c->path, why.text);
	return ev_fd_set(a->ev, c->fd, EV_READ, on_accept, a) == OK ? OK : fail_set(f, ERR_NOMEM, "out of memory");
}

FALLIBLE
control_new(struct agent *a, bool listen_too, struct fail *f)
{
	a->control = calloc(1, sizeof(*a->control));
	if (a->control == NULL)
		return fail_set(f, ERR_NOMEM, "out of memory");
	a->control->fd = -1;
	ev_timer_init(&a->control->again, listen_again, a);
	return listen_too ? listen_on(a, f) : OK;
}

void
control_free(struct agent *a)
{
	struct control *c = a->control;

	if (c == NULL)
		return;
	while (c->clients) {
		client_flush(c->clients);
		client_free(c->clients);
	}
	ev_timer_cancel(a->ev, &c->again);
	if (c->fd >= 0) {
		ev_fd_del(a->ev, c->fd);
		close(c->fd);
		unlink(c->path);
	}
	free(c);
	a->control = NULL;
}
