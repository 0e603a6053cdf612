/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * net.c - fetch.h with scripted peers behind it.
 *
 * A request becomes an exchange. It arrives at its peer after UPLINK_US (not at
 * all, when it was cancelled before), and the peer lays out its answer as pieces
 * with times: head, data, end or failure. What base/fetch.c promises holds here:
 * no callback from inside fetch_start, none after a cancel or on_done; limits of
 * body, idle and total time; pause holds data back; "once" and libcurl's habit of
 * repeating a request on a kept connection that proves dead.
 *
 * Every request and every piece that reaches the daemon is a line of the record.
 * When a record is fed back, peers are not asked: its own lines are the answers.
 */
#include "replay/sim.h"

#include <strings.h>

#define UPLINK_US (10 * US_PER_MS)
#define RESUME_US 1                     /* from the end of a pause to the data held back */

struct fetch {
	struct ev *ev;
	struct fetch_op *ops;
	size_t running;
};
struct fetch_op {
	struct fetch *f;
	struct fetch_op *next, **prev;
	struct exchange *x;
	struct fetch_cb cb;
	void *arg;
	bool sent, paused, done;
	unsigned status;
	size_t head_from, head_n;       /* in the exchange's bytes */
	size_t got, body_max;
	int64_t idle_us, total_us;
	struct ev_timer idle, total;
};

static struct exchange *exchanges;      /* oldest first */
static int64_t numbers;
static const struct peer *const peers[] = { &telegram_peer, &claude_peer };
static bool kept[ARRAY_LEN(peers)];     /* a connection to it is kept */

/* ---- the end of both sides ------------------------------------------------------------ */

static void
op_free(struct fetch_op *op)
{
	ev_timer_cancel(op->f->ev, &op->idle);
	ev_timer_cancel(op->f->ev, &op->total);
	*op->prev = op->next;
	if (op->next)
		op->next->prev = op->prev;
	op->f->running--;
	free(op);
}

static void
exchange_free(struct exchange *x)
{
	sim_cancel(&x->event);
	sim_cancel(&x->held);
	if (x->arrived && !sim.feeding)
		x->peer->over(x);
	*x->prev = x->next;
	if (x->next)
		x->next->prev = x->prev;
	buf_free(&x->url);
	buf_free(&x->headers);
	buf_free(&x->body);
	buf_free(&x->bytes);
	free(x->pieces);
	free(x);
}

static void
finish(struct fetch_op *op, enum err e, const char *why)
{
	const struct fetch_result r = { e, op->status, op->sent, e == OK ? "" : why };
	struct exchange *x = op->x;

	op->done = true;
	op->cb.on_done(op->arg, op, &r);
	op_free(op);
	exchange_free(x);
}

static void
idle_due(void *arg)
{
	struct fetch_op *op = arg;

	sim_note("#%lld = nothing for %lld s", (long long)op->x->number, (long long)(op->idle_us / US_PER_S));
	finish(op, ERR_TIMEOUT, "the peer stopped answering");
}

static void
total_due(void *arg)
{
	struct fetch_op *op = arg;

	sim_note("#%lld = not finished within %lld s", (long long)op->x->number, (long long)(op->total_us / US_PER_S));
	finish(op, ERR_TIMEOUT, "the peer did not finish in time");
}

static void
touch(struct fetch_op *op)
{
	op->sent = true;                /* base/fetch.c: from the connection on, whatever comes */
	if (!op->paused)
		ev_timer_in(op->f->ev, &op->idle, op->idle_us);
}

/* ---- pieces in ---------------------------------------------------------------------------- */

/* One piece reaches the daemon; x may be gone afterwards. */
static void
deliver(struct exchange *x, const struct piece *p)
{
	struct fetch_op *op = x->op;
	struct str bytes = str_sub(buf_view(&x->bytes), p->from, p->n);
	struct buf quoted = BUF_INIT(64u << 20);

	json_quote(&quoted, bytes);
	switch (p->kind) {
	case PIECE_SENT:
		sim_note("#%lld < sent", (long long)x->number);
		touch(op);
		break;
	case PIECE_HEAD:
		sim_note("#%lld < head %u %s", (long long)x->number, p->status, buf_z(&quoted));
		touch(op);
		op->status = p->status;
		op->head_from = p->from;
		op->head_n = p->n;
		if (op->cb.on_head)
			op->cb.on_head(op->arg, op, op->status);
		break;
	case PIECE_DATA:
		sim_note("#%lld < data %s", (long long)x->number, buf_z(&quoted));
		touch(op);
		if (bytes.n > op->body_max - op->got) {
			finish(op, ERR_LIMIT, "the answer is too long");
			break;
		}
		op->got += bytes.n;
		if (op->cb.on_data)
			op->cb.on_data(op->arg, op, bytes);
		break;
	case PIECE_END:
		sim_note("#%lld < end", (long long)x->number);
		for (size_t i = 0; i < ARRAY_LEN(peers); i++)
			kept[i] = kept[i] || peers[i] == x->peer;
		finish(op, OK, "");
		break;
	case PIECE_FAIL:
		sim_note("#%lld < fail %d %d %s", (long long)x->number, (int)p->err, p->sent, buf_z(&quoted));
		op->sent = op->sent || p->sent;
		for (size_t i = 0; i < ARRAY_LEN(peers); i++)
			kept[i] = kept[i] && peers[i] != x->peer;
		finish(op, p->err, buf_z(&x->bytes) + p->from);
		break;
	}
	buf_free(&quoted);
}

static void
piece_due(void *arg)
{
	struct exchange *x = arg;
	int64_t number = x->number;
	struct piece p = x->pieces[x->next_piece];

	if (x->op->paused && p.kind == PIECE_DATA) {
		x->due = true;
		return;
	}
	x->next_piece++;
	deliver(x, &p);
	for (x = exchanges; x && x->number != number; x = x->next)
		continue;
	if (x && x->next_piece < x->n_pieces)
		sim_at(&x->event, sim.now + x->pieces[x->next_piece].after);
}

static void
add(struct exchange *x, struct piece p, struct str bytes)
{
	struct piece *grown = realloc(x->pieces, (x->n_pieces + 1) * sizeof(*grown));

	if (grown == NULL)
		abort();
	x->pieces = grown;
	p.from = x->bytes.n;
	p.n = bytes.n;
	buf_str(&x->bytes, bytes);
	buf_putc(&x->bytes, '\0');
	grown[x->n_pieces++] = p;
	if (x->n_pieces == x->next_piece + 1 && x->event.prev == NULL) {
		x->event.fn = piece_due;
		sim_at(&x->event, sim.now + p.after);
	}
}

void
net_head(struct exchange *x, int64_t after, unsigned status, const char *headers)
{
	add(x, (struct piece){ .kind = PIECE_HEAD, .after = after, .status = status }, str_z(headers));
}

void
net_data(struct exchange *x, int64_t after, struct str bytes)
{
	add(x, (struct piece){ .kind = PIECE_DATA, .after = after }, bytes);
}

void
net_end(struct exchange *x, int64_t after)
{
	add(x, (struct piece){ .kind = PIECE_END, .after = after }, STR_NONE);
}

void
net_fail(struct exchange *x, int64_t after, enum err err, bool sent, const char *why)
{
	add(x, (struct piece){ .kind = PIECE_FAIL, .after = after, .err = err, .sent = sent }, str_z(why));
}

static void
arrive(void *arg)
{
	struct exchange *x = arg;

	x->arrived = true;
	x->peer->request(x);
	if (x->n_pieces == 0 || x->pieces[0].kind != PIECE_FAIL || x->pieces[0].sent)
		deliver(x, &(struct piece){ .kind = PIECE_SENT });
}

void
net_reset(struct exchange *x, int64_t after)
{
	if (!x->repeatable) {
		net_fail(x, after, ERR_CLOSED, true, "the peer closed the connection without an answer");
		return;
	}
	x->repeatable = false;
	x->event.fn = arrive;
	sim_at(&x->event, sim.now + after);
}

size_t
net_open(const struct peer *p, const char *what)
{
	size_t n = 0;

	for (const struct exchange *x = exchanges; x; x = x->next)
		n += x->peer == p && (what == NULL || str_eqz(x->what, what));
	return n;
}

/* ---- a record fed back ------------------------------------------------------------------------ */

/* `#7 < data "…"` */
bool
net_feed(struct str line, const char **problem)
{
	static const char *const kinds[] = { "sent", "head", "data", "end", "fail" };
	struct arena ar = ARENA_INIT(64u << 20);
	struct piece p = { .kind = PIECE_SENT };
	const struct json *text = NULL;
	struct str word;
	struct exchange *x = exchanges;
	int64_t number, a, b;

	*problem = "a line of the record that makes no sense";
	(void)str_cut(&line, ' ', &word);
	if (word.n < 2 || str_i64(str_sub(word, 1, word.n), 1, INT64_MAX, &number) != OK)
		return false;
	(void)str_cut(&line, ' ', &word);
	(void)str_cut(&line, ' ', &word);
	while (p.kind <= PIECE_FAIL && !str_eqz(word, kinds[p.kind]))
		p.kind++;
	if (p.kind > PIECE_FAIL)
		return false;
	if (p.kind == PIECE_HEAD) {
		(void)str_cut(&line, ' ', &word);
		if (str_i64(word, 100, 999, &a) != OK)
			return false;
		p.status = (unsigned)a;
	} else if (p.kind == PIECE_FAIL) {
		struct str second;

		(void)str_cut(&line, ' ', &word);
		(void)str_cut(&line, ' ', &second);
		if (str_i64(word, 1, ERR_COUNT - 1, &a) != OK || str_i64(second, 0, 1, &b) != OK)
			return false;
		p.err = (enum err)a;
		p.sent = b != 0;
	}
	if (p.kind != PIECE_SENT && p.kind != PIECE_END && json_parse(&ar, line, &text, NULL) != OK)
		return false;
	while (x && x->number != number)
		x = x->next;
	*problem = "an answer to a request that is not there";
	if (x) {
		p.from = x->bytes.n;
		p.n = text ? text->s.n : 0;
		buf_str(&x->bytes, text ? text->s : STR_NONE);
		buf_putc(&x->bytes, '\0');
		deliver(x, &p);
	}
	arena_free(&ar);
	return x != NULL;
}

/* ---- fetch.h ------------------------------------------------------------------------------------- */

static void
world_ready(void *arg, int fd, unsigned events)
{
	(void)arg, (void)fd, (void)events;
	sim_run_due();
}

enum err
fetch_new(struct ev *ev, const char *user_agent, struct fetch **out)
{
	struct fetch *f = calloc(1, sizeof(*f));
	enum err e = f ? ev_fd_set(ev, SIM_FD, EV_READ, world_ready, f) : ERR_NOMEM;

	(void)user_agent;
	if (e != OK) {
		free(f);
		return e;
	}
	f->ev = ev;
	memset(kept, 0, sizeof(kept));
	if (exchanges == NULL && sim.now == sim.begun)
		numbers = 0;
	*out = f;
	return OK;
}

void
fetch_free(struct fetch *f)
{
	if (f == NULL)
		return;
	while (f->ops)
		fetch_cancel(f->ops);
	ev_fd_del(f->ev, SIM_FD);
	free(f);
}

static enum err
peer_of(const char *url, const struct peer **out, struct str *path)
{
	struct url u;
	enum err e = url_parse(str_z(url), &u);

	if (e == OK && !u.tls && !url_is_loopback(&u))
		e = ERR_DENIED;
	if (e != OK)
		return e;
	*path = u.path;
	for (size_t i = 0; i < ARRAY_LEN(peers); i++)
		if (str_eqz(u.host, peers[i]->host)) {
			*out = peers[i];
			return OK;
		}
	return ERR_NOTFOUND;
}

static void
take_body(struct exchange *x, const struct fetch_req *req)
{
	size_t n = 1;

	while (req->body_from && n) {
		char *room = buf_room(&x->body, 65536);

		if (room == NULL || body_read(req->body_from, room, 65536, &n) != OK)
			abort();
		x->body.n += n;
	}
	if (req->body_from)
		body_free(req->body_from);
	else
		buf_str(&x->body, req->body_take ? buf_view(req->body_take) : req->body);
	if (req->body_take)
		buf_free(req->body_take);
	if (x->body.err != OK)
		abort();
}

enum err
fetch_start(struct fetch *f, const struct fetch_req *req, const struct fetch_cb *cb, void *arg,
    struct fetch_op **out)
{
	const struct peer *peer = NULL;
	struct exchange *x, **p = &exchanges;
	struct fetch_op *op;
	struct str path = STR_NONE, word;
	enum err e = peer_of(req->url, &peer, &path);

	if (e != OK)
		return e;
	if (f->running >= FETCH_OPS_MAX)
		return ERR_LIMIT;
	x = calloc(1, sizeof(*x));
	op = calloc(1, sizeof(*op));
	if (x == NULL || op == NULL)
		abort();
	buf_init(&x->url, 4096);
	buf_init(&x->headers, 65536);
	buf_init(&x->body, REQUEST_MAX);
	buf_init(&x->bytes, 64u << 20);
	buf_puts(&x->url, req->url);
	for (const char *const *h = req->headers; h && *h; h++)
		buf_fmt(&x->headers, "%s\n", *h);
	take_body(x, req);
	/* a token is a part of Telegram's paths, and nothing for a record */
	for (x->what = path; peer == &telegram_peer && str_chr(x->what, '/') != SIZE_MAX;)
		(void)str_cut(&x->what, '/', &word);
	if (x->what.n)
		x->what = str_sub(buf_view(&x->url), x->url.n - x->what.n, x->what.n);
	x->number = ++numbers;
	x->peer = peer;
	x->op = op;
	x->event = (struct sim_event){ .fn = arrive, .arg = x };
	x->held.arg = x;
	for (size_t i = 0; i < ARRAY_LEN(peers); i++)
		x->repeatable = x->repeatable || (peers[i] == peer && kept[i] && !req->once && !req->no_reuse);
	while (*p)
		p = &(*p)->next;
	x->prev = p;
	*p = x;
	*op = (struct fetch_op){ .f = f, .next = f->ops, .prev = &f->ops, .x = x, .cb = *cb, .arg = arg,
	    .body_max = req->body_max ? req->body_max : FETCH_BODY_MAX,
	    .idle_us = req->idle_us ? req->idle_us : FETCH_IDLE_US,
	    .total_us = req->total_us ? req->total_us : FETCH_TOTAL_US };
	ev_timer_init(&op->idle, idle_due, op);
	ev_timer_init(&op->total, total_due, op);
	if (op->next)
		op->next->prev = &op->next;
	f->ops = op;
	f->running++;
	ev_timer_in(f->ev, &op->total, op->total_us);
	sim_note("#%lld > %s %s%s %.*s%s %s", (long long)x->number, peer->host, req->method,
	    x->repeatable ? " (may be repeated)" : "", STR_ARG(x->what), req->once ? " once" : "", buf_z(&x->body));
	if (sim.watch)
		sim.watch(x);
	if (!sim.feeding)
		sim_at(&x->event, sim.now + UPLINK_US);
	*out = op;
	return OK;
}

void
fetch_cancel(struct fetch_op *op)
{
	struct exchange *x = op ? op->x : NULL;

	if (op == NULL || op->done)
		return;
	sim_note("#%lld = cancelled", (long long)x->number);
	op_free(op);
	exchange_free(x);
}

void
fetch_pause(struct fetch_op *op, bool paused)
{
	if (op->done || op->paused == paused)
		return;
	op->paused = paused;
	if (paused) {
		ev_timer_cancel(op->f->ev, &op->idle);
		return;
	}
	if (op->sent)
		touch(op);
	if (op->x->due) {
		op->x->due = false;
		sim_at(&op->x->event, sim.now + RESUME_US);
	}
}

struct str
fetch_header(const struct fetch_op *op, const char *name)
{
	struct str rest = str_sub(buf_view(&op->x->bytes), op->head_from, op->head_n), line, key, found = STR_NONE;

	while (rest.n > 0) {
		(void)str_cut(&rest, '\n', &line);
		if (str_cut(&line, ':', &key) && str_ieq(key, str_z(name)))
			found = str_trim(line);
	}
	return found;
}

size_t
fetch_running(const struct fetch *f)
{
	return f->running;
}

const char *
fetch_version(void)
{
	return "simulated";
}
