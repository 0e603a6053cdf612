/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * outbox.c - replies on their way out.
 *
 *   READY --written "sending", committed--> SENDING --receipt--> SENT
 *     ^                                       |  \--never deliverable--> FAILED
 *     +--known not delivered, or maybe--------+
 *
 * A row is marked SENDING in the transaction before its send, so a row found
 * SENDING at a start may or may not have been delivered: it is sent again with a
 * first line that says so (the one window that a channel without idempotency
 * keys leaves open). Of one conversation only the oldest item is in flight;
 * conversations do not wait for one another. Memory holds ids and order; texts
 * stay in their rows until the moment of sending.
 */
#include "core.h"

struct item {
	struct agent *a;
	int64_t id, turn;
	int64_t due;                    /* monotonic: the row's next_at, which a clock that is set cannot move */
	enum outbox_state state;
	enum outbox_kind kind;
	bool parked;
	struct line *line;
	struct effect send;
	struct item *next;              /* in its line */
};
struct line {                           /* one conversation's items, oldest first */
	struct agent *a;
	struct item *head, **tail;
	struct ev_timer timer;          /* the head's due */
	struct str key;                 /* into the map's copy */
	struct target to;
	char *names;
};
struct outbox {
	struct map *lines;
	struct map *items;              /* by id */
};

const char *
outbox_state_name(enum outbox_state s)
{
	static const char *const names[] = { "ready", "sending", "sent", "failed" };

	return s < ARRAY_LEN(names) ? names[s] : "?";
}

static struct str
id_key(const int64_t *id)
{
	return str_make((const char *)id, sizeof(*id));
}

static struct item *
item_get(struct agent *a, int64_t id)
{
	return map_get(a->outbox->items, id_key(&id));
}

static void
line_key(struct buf *b, const struct target *to)
{
	buf_str(b, to->channel);
	buf_putc(b, '\0');
	buf_str(b, to->chat);
	buf_putc(b, '\0');
	buf_str(b, to->thread);
}

/* ---- sending ------------------------------------------------------------------------- */

static void
deliver(void *arg, const struct outbox_row *row)
{
	struct item *it = arg;
	const struct channel *c = agent_channel(it->a, row->item.to.channel);

	if (c)
		c->feature->channel->send(c->self, &row->item);
}

/* After the commit that says "sending". */
static void
on_send(struct effect *e)
{
	struct item *it = CONTAINER(e, struct item, send);
	struct agent *a = it->a;        /* the channel may end the item at once */

	agent_wrote(a, store_outbox_get(a->db, it->id, deliver, it));
}

static void
pump(struct line *l)
{
	struct item *it = l->head;

	if (it == NULL || it->state == OUTBOX_SENDING || it->parked)
		return;
	if (l->a->load_owed)
		return;                 /* the lines are about to be made anew: a send begun now would be one in doubt */
	if (agent_channel(l->a, l->to.channel) == NULL)
		return;                 /* the channel is not configured now: the row waits */
	if (it->due > ev_now(l->a->ev)) {
		ev_timer_at(l->a->ev, &l->timer, it->due);
		return;
	}
	it->state = OUTBOX_SENDING;
	agent_wrote(l->a, store_outbox_state(l->a->db, it->id, OUTBOX_SENDING, 0, STR_NONE));
	agent_after(l->a, &it->send);
}

static void
on_timer(void *arg)
{
	pump(arg);
}

/* ---- lines and items ---------------------------------------------------------------------- */

static enum err
line_open(struct agent *a, const struct target *to, struct line **out)
{
	struct buf key = BUF_INIT(4096);
	struct line *l;
	char *p;
	enum err e;

	line_key(&key, to);
	e = key.err;
	l = e == OK ? map_get(a->outbox->lines, buf_view(&key)) : NULL;
	if (l == NULL && e == OK) {
		l = calloc(1, sizeof(*l));
		p = l ? malloc(key.n) : NULL;
		if (p == NULL) {
			free(l);
			buf_free(&key);
			return ERR_NOMEM;
		}
		memcpy(p, key.p, key.n);
		l->a = a;
		l->names = p;
		l->key = str_make(p, key.n);
		l->to.channel = str_make(p, to->channel.n);
		l->to.chat = str_make(p + to->channel.n + 1, to->chat.n);
		l->to.thread = str_make(p + to->channel.n + to->chat.n + 2, to->thread.n);
		l->tail = &l->head;
		ev_timer_init(&l->timer, on_timer, l);
		e = map_put(a->outbox->lines, l->key, l);
		if (e != OK) {
			free(l->names);
			free(l);
		}
	}
	buf_free(&key);
	if (e == OK)
		*out = l;
	return e;
}

static void
line_free(struct line *l)
{
	(void)map_del(l->a->outbox->lines, l->key);
	ev_timer_cancel(l->a->ev, &l->timer);
	free(l->names);
	free(l);
}

static enum err
item_add(struct agent *a, const struct target *to, int64_t id, int64_t turn, enum outbox_kind kind,
    int64_t wait_us, struct line **line)
{
	struct item *it = calloc(1, sizeof(*it));
	enum err e = it ? line_open(a, to, line) : ERR_NOMEM;

	if (e == OK) {
		it->id = id;
		e = map_put(a->outbox->items, id_key(&it->id), it);
		if (e != OK && (*line)->head == NULL)
			line_free(*line);
	}
	if (e != OK) {
		free(it);
		return e;
	}
	it->a = a;
	it->turn = turn;
	it->kind = kind;
	it->state = OUTBOX_READY;
	it->due = ev_now(a->ev) + wait_us;
	it->line = *line;
	it->send.run = on_send;
	*(*line)->tail = it;
	(*line)->tail = &it->next;
	return OK;
}

/* A send is no longer under way: what would have put it in doubt may happen. */
static void
landed(struct agent *a)
{
	if (a->load_owed)
		agent_load_again(a);
}

/* The head is over: tell its turn, go on with the next. */
static void
item_over(struct item *it)
{
	struct agent *a = it->a;
	struct line *l = it->line;
	int64_t turn = it->kind == OUTBOX_REPLY ? it->turn : 0;

	effect_cancel(&it->send);
	(void)map_del(a->outbox->items, id_key(&it->id));
	l->head = it->next;
	if (l->head == NULL)
		l->tail = &l->head;
	free(it);
	landed(a);
	if (turn)
		turn_delivered(a, turn);
	if (l->head)
		pump(l);
	else
		line_free(l);
}

static enum err
put(struct agent *a, enum outbox_kind kind, int64_t session, int64_t turn, const struct target *to, struct str text,
    struct str edit_ref, struct str buttons)
{
	bool unknown = str_eqz(edit_ref, "?");  /* a placeholder whose receipt was lost */
	struct line *l;
	int64_t id;
	enum err e = store_outbox_add(a->db, kind, session, turn, to, text, unknown ? STR_NONE : edit_ref, unknown, buttons,
	    &id);

	if (e != OK || a->phase == AGENT_STARTING || a->phase == AGENT_STORAGE_FAILED)
		return e;               /* outbox_load comes later and finds the row */
	e = item_add(a, to, id, turn, kind, 0, &l);
	if (e != OK)
		return e;
	pump(l);
	return OK;
}

FALLIBLE
outbox_put(struct agent *a, enum outbox_kind kind, int64_t session, int64_t turn, const struct target *to,
    struct str text, struct str edit_ref)
{
	return put(a, kind, session, turn, to, text, edit_ref, STR_NONE);
}

FALLIBLE
outbox_put_buttons(struct agent *a, int64_t session, const struct target *to, struct str text, struct str buttons)
{
	return put(a, OUTBOX_NOTICE, session, 0, to, text, STR_NONE, buttons);
}

/* ---- what became of it ------------------------------------------------------------------------ */

void
outbox_part_done(struct agent *a, int64_t id, struct str external_id, int64_t part, struct str format)
{
	struct item *it = item_get(a, id);

	if (it == NULL)
		return;
	agent_wrote(a, store_outbox_progress(a->db, id, part, format, external_id));
	agent_after(a, &it->send);      /* stays SENDING: the next part follows its commit */
}

void
outbox_done(struct agent *a, int64_t id, struct str external_id)
{
	struct item *it = item_get(a, id);
	const struct turn *t;

	if (it == NULL)
		return;
	metrics_owe(a, METRIC_DELIVERIES, DELIVERY_SENT);
	t = it->kind == OUTBOX_REPLY ? turn_get(a, it->turn) : NULL;
	if (t)
		metrics_owe_time(a, METRIC_RESPONSE, clock_us() - t->received_at);
	agent_wrote(a, store_outbox_progress(a->db, id, 0, STR_NONE, external_id));
	agent_wrote(a, store_outbox_state(a->db, id, OUTBOX_SENT, 0, STR_NONE));
	item_over(it);
}

void
outbox_fail(struct agent *a, int64_t id, struct str why)
{
	struct item *it = item_get(a, id);

	if (it == NULL)
		return;
	turn_log(a, it->turn);
	log_warn("outbox", "reply %lld cannot be delivered: %.*s", (long long)id, STR_ARG(why));
	log_ids(0, 0, NULL);
	metrics_owe(a, METRIC_DELIVERIES, DELIVERY_FAILED);
	metrics_owe(a, METRIC_ERRORS, METRIC_ERR_DELIVERY);
	agent_wrote(a, store_outbox_state(a->db, id, OUTBOX_FAILED, 0, why));
	item_over(it);
}

void
outbox_retry(struct agent *a, int64_t id, int64_t delay_us, enum doubt doubt, struct str format, struct str why)
{
	struct item *it = item_get(a, id);

	if (it == NULL)
		return;
	turn_log(a, it->turn);
	if (delay_us > 0)
		log_info("outbox", "reply %lld again in %lld ms: %.*s", (long long)id, (long long)(delay_us / 1000),
		    STR_ARG(why));
	log_ids(0, 0, NULL);
	metrics_owe(a, METRIC_DELIVERIES, DELIVERY_RETRIED);
	it->state = OUTBOX_READY;
	if (delay_us < 0)
		delay_us = 0;
	it->due = ev_now(a->ev) + delay_us;
	agent_wrote(a, store_outbox_retry(a->db, id, clock_us() + delay_us, doubt, format, why));
	landed(a);
	pump(it->line);
}

void
outbox_park(struct agent *a, int64_t id)
{
	struct item *it = item_get(a, id);

	if (it == NULL)
		return;
	it->state = OUTBOX_READY;
	it->parked = true;
	agent_wrote(a, store_outbox_state(a->db, id, OUTBOX_READY, 0, S("nobody is there")));
	landed(a);
}

void
outbox_unpark(struct agent *a, const struct target *to)
{
	struct buf key = BUF_INIT(4096);
	struct line *l;

	line_key(&key, to);
	l = key.err == OK ? map_get(a->outbox->lines, buf_view(&key)) : NULL;
	buf_free(&key);
	if (l && l->head && l->head->parked) {
		l->head->parked = false;
		pump(l);
	}
}

/* ---- start, end, figures -------------------------------------------------------------------------- */

struct loading { struct agent *a; enum err err; };

static void
load_row(void *arg, const struct outbox_row *row)
{
	struct loading *ld = arg;
	/* what is left of the wait; were the clock set back since, all of it, and no more */
	int64_t now = clock_us(), wait = row->next_at - (now > row->updated_at ? now : row->updated_at);
	struct line *l;

	if (ld->err == OK)
		ld->err = item_add(ld->a, &row->item.to, row->item.id, row->item.turn, row->item.kind,
		    wait > 0 ? wait : 0, &l);
}

FALLIBLE
outbox_load(struct agent *a)
{
	struct loading ld = { a, OK };
	enum err e = store_outbox_interrupted(a->db);
	struct str key;
	void *l;
	size_t it = 0;

	if (e == OK)
		e = store_outbox_open(a->db, load_row, &ld);
	if (e == OK)
		e = ld.err;
	while (e == OK && map_next(a->outbox->lines, &it, &key, &l))
		pump(l);
	return e;
}

FALLIBLE
outbox_new(struct agent *a)
{
	struct outbox *o = calloc(1, sizeof(*o));

	if (o == NULL)
		return ERR_NOMEM;
	a->outbox = o;
	if (map_new(&o->lines, 1u << 20) != OK || map_new(&o->items, 1u << 20) != OK)
		return ERR_NOMEM;       /* outbox_free takes what there is */
	return OK;
}

void
outbox_clear(struct agent *a)
{
	struct str key;
	void *p;
	size_t it = 0;

	if (a->outbox == NULL)
		return;
	while (a->outbox->items && map_next(a->outbox->items, &it, &key, &p)) {
		struct item *i = p;

		effect_cancel(&i->send);
		(void)map_del(a->outbox->items, id_key(&i->id));
		free(i);
		it = 0;
	}
	for (it = 0; a->outbox->lines && map_next(a->outbox->lines, &it, &key, &p); it = 0)
		line_free(p);
}

void
outbox_free(struct agent *a)
{
	outbox_clear(a);
	if (a->outbox) {
		map_free(a->outbox->lines);
		map_free(a->outbox->items);
	}
	free(a->outbox);
	a->outbox = NULL;
}

size_t
outbox_waiting(const struct agent *a)
{
	return map_count(a->outbox->items);
}

static bool
any_item(const struct agent *a, bool (*is)(const struct item *it, int64_t arg), int64_t arg)
{
	struct str key;
	void *p;
	size_t it = 0;

	while (map_next(a->outbox->items, &it, &key, &p))
		if (is(p, arg))
			return true;
	return false;
}

static bool
is_sending(const struct item *it, int64_t arg)
{
	(void)arg;
	return it->state == OUTBOX_SENDING;
}

static bool
is_of_turn(const struct item *it, int64_t turn)
{
	return it->turn == turn && it->kind == OUTBOX_REPLY;
}

bool
outbox_in_flight(const struct agent *a)
{
	return any_item(a, is_sending, 0);
}

bool
outbox_has_turn(const struct agent *a, int64_t turn)
{
	return any_item(a, is_of_turn, turn);
}

/* Sorted by id, so that two dumps of the same state are equal. */
void
outbox_dump(struct agent *a, struct jw *w)
{
	struct str key;
	void *p;
	int64_t last = 0;

	for (;;) {
		struct item *least = NULL;
		size_t it = 0;

		while (map_next(a->outbox->items, &it, &key, &p))
			if (((struct item *)p)->id > last && (least == NULL || ((struct item *)p)->id < least->id))
				least = p;
		if (least == NULL)
			break;
		last = least->id;
		jw_obj(w);
		jw_ki64(w, "id", least->id);
		jw_ki64(w, "turn", least->turn);
		jw_kz(w, "state", outbox_state_name(least->state));
		jw_end_obj(w);
	}
}
