/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * batch.c - requests that are answered in time: POST and GET /v1/batch, GET /v1/batch/{id}
 *
 * A batch is up to ITEMS_MAX requests of POST /v1/chat/completions; each is a row. All are
 * read before any is stored, so a batch with a mistake is refused whole. Then this file is
 * the client: it asks a few at a time, in the name of the credential that left them, with
 * a request that no connection waits for (r->answer). What comes back ends the row, in the
 * transaction that books what it cost.
 *
 *   BATCH_WAITS  --asked-->  BATCH_RUNS  --answer-->  BATCH_DONE, BATCH_FAILED
 *        ^                        |
 *        +-- paused, a cap, the provider for now, a start
 *
 * A death loses the answer that was under way and no other: the start asks for it again, and
 * the call that was cut stands in the ledger by estimate (cost.c). An item of the agent has an
 * Idempotency-Key, so it finds the turn that goes on, or that has ended. One that was asked
 * LLM_ATTEMPTS_MAX times and was never answered fails; from the third time on it begins with
 * nothing beside it, so that a death is its own.
 */
#include "api/compat/compat.h"

#define ITEMS_MAX 100u
#define OPEN_MAX 1000                   /* items of a credential that are not answered */
#define RUNNING_MAX 4u                  /* asked at once: fewer than agent.max_sessions and PASS_CALLS_MAX, for people come first */
#define ANSWER_MAX (5u << 20)           /* bytes of a response: a page of a list has room for one */
#define ALONE_TRIES 2                   /* begun so often without an end */
#define LIFE_US (35 * US_PER_DAY) /* the caps of a whole month were no help */
#define LOOK_US (2 * US_PER_S)          /* while something waits */

struct item {
	struct conn c;                  /* of nobody: what its request looks at */
	struct batches *of;
	struct request *r;
	struct batch_item_row row;      /* without its texts */
	int64_t room;                   /* what the caps left when it was asked */
	bool asked, over;
	int status;                     /* of one that is only read, 0: nothing is wrong */
	struct buf said;
	struct item *next;
};
struct batches {
	struct gateway *g;
	struct item *running;           /* also those that are over, until reap */
	size_t n;
	bool full;                      /* what runs is in the way of the next: until one of it ends, or a while */
	struct ev_timer look;
	struct ev_defer reap;
};

/* ---- a request of nobody's ------------------------------------------------------------------- */

static void
item_free(struct item *it)
{
	if (it->r)
		request_free(it->r);
	http_free(&it->c.http);
	buf_free(&it->said);
	free(it);
}

/* As if it had come through a connection. NULL: no memory. */
static struct item *
item_new(struct batches *b, const struct batch_item_row *row, const struct principal *who,
    void (*answer)(struct request *r, int status, struct str body))
{
	struct item *it = calloc(1, sizeof(*it));
	struct buf head = BUF_INIT(512);
	struct str in, none;

	if (!it)
		return NULL;
	it->of = b;
	it->row = *row;
	it->row.request = it->row.answer = STR_NONE;
	it->c.g = b->g;
	it->c.fd = -1;
	buf_init(&it->said, 64u << 10);
	http_init(&it->c.http, 0);
	/* by its round a turn that ended without an answer is told from the one that is to be asked now */
	buf_fmt(&head, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: batch-%lld-%lld\r\n\r\n",
	    (long long)row->id, (long long)row->round);
	in = buf_view(&head);
	if (head.err == OK && http_next(&it->c.http, &in, &none) == HTTP_HEAD)
		it->r = request_new(&it->c);
	buf_free(&head);
	if (it->r) {
		it->r->answer = answer;
		it->r->running = true;
		it->r->who = *who;
		buf_init(&it->r->body, BODY_MAX_FILES);
		buf_str(&it->r->body, row->request);
	}
	if (!it->r || it->r->body.err != OK) {
		item_free(it);
		return NULL;
	}
	return it;
}

/* ---- asking ------------------------------------------------------------------------------------ */

/* The error inside of a body, and its code. */
static struct str
error_of(struct arena *ar, struct str body, struct str *code)
{
	const struct json *o = NULL, *e = json_parse(ar, body, &o, NULL) == OK ? json_at(o, "error") : NULL;

	*code = json_str(e, "code", STR_NONE);
	return e ? e->raw : STR_NONE;
}

/* Not an answer for good: it is asked again. */
static enum err
put_off(struct item *it, struct str code, struct str why)
{
	struct agent *a = it->of->g->a;
	struct batch_item_row row = it->row;
	int64_t now = clock_us(), wait = it->r->wait_s ? it->r->wait_s * US_PER_S : -1;
	bool stopped = str_eqz(code, "paused"), quota = str_eqz(code, "insufficient_quota");

	row.round += quota || stopped;
	quota = quota && !a->paused;
	row.state = BATCH_WAITS;
	row.answer = why;
	if (str_eqz(code, "timeout")) {         /* it is still being answered */
		row.tries = 0;
		row.answer = STR_NONE;
	} else if (quota) {
		row.next_at = clock_day_start(now) + US_PER_DAY;
	} else {
		it->of->full = it->of->full || !it->asked;
		row.next_at = a->paused ? now : now + (it->asked ? llm_backoff_us((unsigned)row.tries, wait) :
		    wait > US_PER_S ? wait - US_PER_S : 0);
	}
	return store_batch_item_put(a->db, &row, quota ? it->room : -1);
}

static void
on_answer(struct request *r, int status, struct str body)
{
	struct item *it = CONTAINER(r->c, struct item, c);
	struct agent *a = it->of->g->a;
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(64u << 10));
	struct str code = STR_NONE, error = status == 200 ? STR_NONE : error_of(&ar, body, &code);
	bool again = status == 429 || status == 503 || status == 504;
	enum err e;

	if (str_eqz(code, "insufficient_quota"))
		again = again && clock_us() - it->row.created_at < LIFE_US;
	else if (status != 504)
		again = again && it->row.tries < LLM_ATTEMPTS_MAX;
	if (status == 200 && body.n > ANSWER_MAX)
		error = S("{\"message\":\"the answer is too long to be kept\",\"type\":\"server_error\",\"param\":null,"
		    "\"code\":\"too_large\"}");
	if (ar.err != OK || (status != 200 && error.n == 0))
		e = ERR_NOMEM;                  /* the row stays as it is: it is asked again when memory is made anew */
	else if (again)
		e = put_off(it, code, error);
	else
		e = store_batch_item_ends(a->db, &it->row, error.n ? BATCH_FAILED : BATCH_DONE, error.n ? error : body);
	agent_wrote(a, e);
	arena_free(&ar);
	it->over = true;
	ev_defer(a->ev, &it->of->reap);
}

/* It fails without being asked. */
static enum err
fail(struct agent *a, const struct batch_item_row *row, const char *code, const char *why)
{
	struct buf b = BUF_INIT(1024);
	enum err e;

	buf_fmt(&b, "{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"%s\"}", why, code);
	e = b.err != OK ? b.err : store_batch_item_ends(a->db, row, BATCH_FAILED, buf_view(&b));
	buf_free(&b);
	return e;
}

struct next {                           /* an item to be asked */
	struct batch_item_row row;
	struct buf request;
	bool found, holds;
};

static void
take_item(void *arg, const struct batch_item_row *row)
{
	struct next *n = arg;

	n->found = true;
	n->row = *row;
	n->row.answer = STR_NONE;
	buf_str(&n->request, row->request);
	n->row.request = buf_view(&n->request);
}

static void
take_key(void *arg, const struct api_key_row *k)
{
	struct next *n = arg;

	n->holds = k->revoked_at == 0 && (k->expires_at == 0 || k->expires_at > clock_us());
}

static enum err
ask(struct batches *b, const struct batch_item_row *row, int64_t room)
{
	const struct principal who = { .id = row->key, .scopes = SCOPE_CHAT };
	struct item *it = item_new(b, row, &who, on_answer);

	if (!it)
		return ERR_NOMEM;
	it->room = room;
	it->next = b->running;
	b->running = it;
	b->n++;
	if (post_read(it->r, &chat_shape))
		post_run(it->r);
	if (it->over)
		return OK;
	it->asked = true;
	it->row.tries++;
	it->row.state = BATCH_RUNS;
	return store_batch_item_put(b->g->a->db, &it->row, -1);
}

/* The next one; *more: there may be another. */
static enum err
ask_next(struct batches *b, int64_t room, bool *more)
{
	struct agent *a = b->g->a;
	struct next n = { .request = BUF_INIT(BODY_MAX_FILES) };
	enum err e = store_batch_next(a->db, clock_us(), room, take_item, &n);

	*more = n.found && (n.row.tries < ALONE_TRIES || b->n == 0);
	if (e == OK && *more)
		e = store_api_key_get(a->db, n.row.key, take_key, &n);
	if (e == OK)
		e = n.request.err;
	if (e == OK && *more && !n.holds)
		e = fail(a, &n.row, "invalid_api_key", "the credential that asked for this was revoked, or its time is over");
	else if (e == OK && *more && n.row.tries >= LLM_ATTEMPTS_MAX)
		e = fail(a, &n.row, "set_aside", "this was begun five times, and each time interrupted before its answer");
	else if (e == OK && *more)
		e = ask(b, &n.row, room);
	buf_free(&n.request);
	return e;
}

/* Asks what may be asked. */
static void
look(struct batches *b)
{
	struct agent *a = b->g->a;
	struct fail f = FAIL_INIT;
	int64_t room = 0, waiting = 0;
	bool more = true;
	enum err e;

	if (a->phase != AGENT_READY || a->write_failed)
		return;                         /* load looks again */
	e = store_batch_open(a->db, 0, &waiting);
	if (e == OK && waiting) {
		e = cost_left(a, COST_BATCH, &room, &f);
		more = e == OK;
		if (e == ERR_LIMIT || e == ERR_DENIED)
			e = OK;
		while (e == OK && more && !b->full && b->n < RUNNING_MAX)
			e = ask_next(b, room, &more);
		ev_timer_in(a->ev, &b->look, LOOK_US);
	}
	agent_wrote(a, e);
}

static void
on_look(void *arg)
{
	struct batches *b = arg;

	b->full = false;
	look(b);
}

static void
on_reap(void *arg)
{
	struct batches *b = arg;

	for (struct item **at = &b->running, *it; (it = *at);) {
		if (!it->over) {
			at = &it->next;
			continue;
		}
		*at = it->next;
		b->n--;
		b->full = b->full && !it->asked;
		item_free(it);
	}
	look(b);
}

/* ---- for the gateway ----------------------------------------------------------------------------- */

static FALLIBLE
batches_start(struct gateway *g, void **self)
{
	struct batches *b = calloc(1, sizeof(*b));

	if (!b)
		return ERR_NOMEM;
	b->g = g;
	ev_timer_init(&b->look, on_look, b);
	ev_defer_init(&b->reap, on_reap, b);
	*self = b;
	return OK;
}

static void
batches_load(void *self)
{
	struct batches *b = self;

	agent_wrote(b->g->a, store_batches_load(b->g->a->db));
	ev_timer_in(b->g->a->ev, &b->look, 0);
}

static void
drop_all(struct batches *b)
{
	struct item *it;

	ev_timer_cancel(b->g->a->ev, &b->look);
	ev_defer_cancel(&b->reap);
	while ((it = b->running)) {
		b->running = it->next;
		item_free(it);
	}
	b->n = 0;
	b->full = false;
}

static void
batches_reset(void *self)
{
	struct batches *b = self;

	if (b->g->a->phase != AGENT_STOPPED)    /* else what runs is booked by free */
		drop_all(b);
}

/* Turns end by themselves. */
static void
batches_paused(void *self)
{
	struct batches *b = self;

	for (struct item *it = b->running; it; it = it->next)
		if (compat_of(it->r)->ask.req.reservation) {
			pass_drop(it->r);
			reply_fail(it->r, 503, "paused", S("paused"));
		}
}

static void
batches_free(void *self)
{
	drop_all(self);
	free(self);
}

static const struct api_ops ops = { batches_start, batches_load, batches_reset, batches_paused, batches_free };

/* ---- POST ------------------------------------------------------------------------------------------- */

static void
on_read(struct request *r, int status, struct str body)
{
	struct item *it = CONTAINER(r->c, struct item, c);

	it->status = status;
	buf_str(&it->said, body);
}

/* What is wrong with item number i, as the whole request's error. */
static void
refuse(struct request *r, const struct item *it, size_t i)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(it->said.n));
	const struct json *o = NULL;
	struct str param;
	char name[96];

	if (json_parse(&ar, buf_view(&it->said), &o, NULL) != OK || it->status == 503) {
		request_failed(r, ERR_NOMEM);
	} else {
		param = json_str(o, "error.param", STR_NONE);
		snprintf(name, sizeof(name), "items[%zu]%s%.*s", i, param.n ? "." : "", STR_ARG(utf8_prefix(param, 64)));
		request_error(r, 400, "invalid_request", name, NULL, "%s: %.*s", name, STR_ARG(json_str(o, "error.message", STR_NONE)));
	}
	arena_free(&ar);
}

/* Would it be taken as a request? false: answered. */
static bool
check(struct request *r, struct str request, size_t i)
{
	const struct batch_item_row row = { .request = request };
	struct item *it = item_new(r->c->g->api_self, &row, &r->who, on_read);
	bool good = it && post_read(it->r, &chat_shape), stream = good && compat_of(it->r)->ask.stream;
	char name[48];

	snprintf(name, sizeof(name), "items[%zu].stream", i);
	if (!it)
		request_failed(r, ERR_NOMEM);
	else if (!good)
		refuse(r, it, i);
	else if (stream)
		request_error(r, 400, "invalid_request", name, NULL, "%s: what is answered later is no stream", name);
	if (it)
		item_free(it);
	return good && !stream;
}

/* Members that all answers have, but for the id. */
static void
put_batch(struct jw *w, const struct batch_row *b)
{
	jw_kz(w, "status", b->completed_at ? "completed" : "processing");
	jw_ki64(w, "total_items", b->total);
	jw_ki64(w, "completed_items", b->done);
	jw_ki64(w, "failed_items", b->failed);
	jw_ktime(w, "created_at", b->created_at);
	jw_ktime(w, "completed_at", b->completed_at);
	list_put_id(w, "api_key_id", b->key);
}

static void
accepted(struct request *r, int64_t id)
{
	struct buf b = BUF_INIT(1024);
	struct batch_row row;
	enum err e = store_batch_get(r->a->db, id, r->who.id, &row);
	struct jw w;

	if (e == OK) {
		jw_init(&w, &b);
		jw_obj(&w);
		list_put_id(&w, "id", id);
		put_batch(&w, &row);
		jw_end_obj(&w);
		e = jw_done(&w);
	}
	request_answer_buf(r, 202, e, &b);
	buf_free(&b);
}

static enum err
store(struct request *r, const struct json *items, struct str name, struct str digest, int64_t *id)
{
	struct batches *b = r->c->g->api_self;
	int64_t number = 0;
	enum err e = store_batch_add(r->a->db, r->who.id, name, digest, (int64_t)items->count, id);

	for (const struct json *v = items->first; v && e == OK; v = v->next)
		e = store_batch_item_add(r->a->db, *id, number++, v->raw);
	agent_wrote(r->a, e);
	ev_timer_in(r->a->ev, &b->look, 0);
	return e;
}

static void
put(struct request *r, const struct json *items, struct str key)
{
	struct fail f = FAIL_INIT;
	char name[24] = "", digest[SECRET_HASH_SIZE];
	int64_t id = 0, open = 0, room;
	bool same = false;
	enum err e = key.n ? attend_name(r, key, name, sizeof(name)) : OK;

	store_secret_hash(request_body(r), digest);
	if (e == OK)
		e = store_batch_known(r->a->db, r->who.id, str_z(name), str_z(digest), &id, &same);
	if (e == OK)
		e = store_batch_open(r->a->db, r->who.id, &open);
	if (e != OK) {
		request_failed(r, e);
	} else if (id && !same) {
		request_error(r, 409, "idempotency_mismatch", NULL, "use a new Idempotency-Key for another batch",
		    "this Idempotency-Key came with another batch before");
	} else if (!id && open + (int64_t)items->count > OPEN_MAX) {
		r->wait_s = 60;
		request_error(r, 429, "rate_limit", NULL, NULL, "%lld items of this credential wait to be answered; there may be %d",
		    (long long)open, OPEN_MAX);
	} else if (!id && cost_left(r->a, COST_BATCH, &room, &f) == ERR_DENIED) {
		request_error(r, 403, "forbidden", NULL, NULL, "%s", f.text);
	} else {
		e = id ? OK : store(r, items, str_z(name), str_z(digest), &id);
		if (e == OK)
			accepted(r, id);
		else
			request_failed(r, e);
	}
}

static void
post_batch(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(request_body(r).n));
	const struct json *o = request_object(r, &ar, "items:a"), *items = o ? json_get(o, S("items")) : NULL;
	struct str key;
	size_t i = 0;
	bool good = items != NULL;

	if (good && (items->count == 0 || items->count > ITEMS_MAX)) {
		good = false;
		request_error(r, 400, "invalid_request", "items", NULL, "items has to have 1 to %u requests; here are %zu", ITEMS_MAX,
		    items->count);
	}
	for (const struct json *v = good ? items->first : NULL; v && good; v = v->next)
		good = check(r, v->raw, i++);
	if (good && attend_key(r, &key))
		put(r, items, key);
	arena_free(&ar);
}

/* ---- GET --------------------------------------------------------------------------------------------- */

/* Whose batches are shown: 0 all. */
static int64_t
reader(const struct request *r)
{
	return r->who.scopes & SCOPE_ADMIN ? 0 : r->who.id;
}

static bool
list_batch(void *arg, const struct batch_row *b)
{
	struct list *l = arg;

	if (!list_item(l, b->id))
		return false;
	put_batch(&l->w, b);
	jw_end_obj(&l->w);
	return true;
}

static void
get_batches(struct request *r)
{
	struct list l;

	if (list_begin(&l, r, "batches", true))
		list_answer(&l, store_batches(r->a->db, reader(r), &l.page, list_batch, &l));
	buf_free(&l.b);
}

static bool
list_one(void *arg, const struct batch_item_row *i)
{
	static const char *const states[] = { "pending", "running", "completed", "failed" };
	struct list *l = arg;

	if (!list_item(l, i->id))
		return false;
	jw_ki64(&l->w, "index", i->number);
	jw_kz(&l->w, "status", states[i->state]);
	jw_kraw(&l->w, "response", i->state == BATCH_DONE ? i->answer : STR_NONE);
	jw_kraw(&l->w, "error", i->state == BATCH_FAILED ? i->answer : STR_NONE);
	jw_end_obj(&l->w);
	return true;
}

/* Why nothing, or not all of it, is asked now. */
static void
put_waiting(struct list *l, const struct batch_row *b)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(64u << 10));
	struct buf why = BUF_INIT(64u << 10);
	const struct json *o = NULL;
	struct fail f = FAIL_INIT;
	int64_t room;
	enum err e = b->completed_at ? OK : cost_left(l->r->a, COST_BATCH, &room, &f);

	if (!b->completed_at && e == OK && store_batch_why(l->r->a->db, b->id, &why) == OK && why.n &&
	    json_parse(&ar, buf_view(&why), &o, NULL) == OK)
		jw_kstr(&l->w, "waiting", json_str(o, "message", STR_NONE));
	else
		jw_kz(&l->w, "waiting", e == OK ? NULL : f.text);
	buf_free(&why);
	arena_free(&ar);
}

static void
get_batch(struct request *r)
{
	struct batch_row b;
	struct list l;
	int64_t id;
	enum err e = str_i64(request_segment(r, 0), 1, INT64_MAX, &id) != OK ? ERR_NOTFOUND :
	    store_batch_get(r->a->db, id, reader(r), &b);

	if (e == ERR_NOTFOUND) {
		request_error(r, 404, "not_found", NULL, NULL, "there is no such batch");
	} else if (e != OK) {
		request_failed(r, e);
	} else {
		if (list_begin(&l, r, "items", false)) {
			e = store_batch_items(r->a->db, id, &l.page, list_one, &l);
			list_close(&l);
			list_put_id(&l.w, "id", id);
			put_batch(&l.w, &b);
			put_waiting(&l, &b);
			list_answer(&l, e);
		}
		buf_free(&l.b);
	}
}

static const struct route routes[] = {
	{ "POST", "/v1/batch", SCOPE_CHAT | ROUTE_FILES, post_batch, "Up to 100 requests of Chat Completions, answered in time" },
	{ "GET", "/v1/batch", SCOPE_CHAT, get_batches, "The batches, newest first" },
	{ "GET", "/v1/batch/{id}", SCOPE_CHAT, get_batch, "One of them, and what became of each of its items" },
	{ NULL, NULL, 0, NULL, NULL }
};
const struct feature batch_feature = {
	.name = "batch", .kind = FEATURE_API, .routes = routes, .api = &ops, .summary = "/v1/batch: requests that are answered in time"
};
