/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * attend.c - a request that waits for the answer to a message.
 *
 * A message is an inbound row of the channel "gateway". The conversation's chat is
 * "KEY/NAME": KEY is the credential's row, so nobody reaches another's conversation, and
 * no name a program sends is ever somebody of another channel. The turn answers to "ref",
 * by which the request that waits is found; whoever comes later finds the same turn by
 * the message's row. How an answer looks is the route family's business (struct attend).
 */
#include "channel/gateway/gateway.h"

#define NAME_BYTES 8                    /* of a conversation's random name */

/* ---- whose is it? --------------------------------------------------------------------- */

static bool
is_own(const struct request *r, struct str chat)
{
	struct str key;
	int64_t id;

	if (r->who.scopes & SCOPE_ADMIN)
		return true;
	str_cut(&chat, '/', &key);
	return str_i64(key, 1, INT64_MAX, &id) == OK && id == r->who.id;
}

static void
take_session(void *arg, const struct session_row *row)
{
	struct request *r = arg;

	if (!str_eqz(row->to.channel, "gateway") || !is_own(r, row->to.chat))
		return;
	r->session = row->id;
	snprintf(r->chat, sizeof(r->chat), "%.*s", STR_ARG(row->to.chat));
}

bool
attend_session(struct request *r, int64_t id)
{
	r->session = 0;
	return store_session_get(r->a->db, id, take_session, r) == OK && r->session;
}

static void
take_inbound(void *arg, const struct inbound_row *row)
{
	struct request *r = arg;

	r->session = row->session;
	r->created_at = row->received_at;
	snprintf(r->ref, sizeof(r->ref), "%.*s", STR_ARG(row->reply_to));
}

bool
attend_message(struct request *r, int64_t id)
{
	bool found = store_inbound_get(r->a->db, id, take_inbound, r) == OK && attend_session(r, r->session);

	r->inbound = found ? id : 0;
	return found;
}

/* ---- names and keys --------------------------------------------------------------------- */

enum err
attend_name(const struct request *r, struct str key, char *out, size_t size)
{
	unsigned char bytes[SHA256_SIZE];
	struct buf hex = BUF_INIT(2 * NAME_BYTES);
	struct sha256 h;
	enum err e = OK;

	if (key.n) {                    /* the same key of the same credential always has it */
		sha256_init(&h);
		sha256_update(&h, &r->who.id, sizeof(r->who.id));
		sha256_update(&h, key.p, key.n);
		sha256_final(&h, bytes);
	} else {
		e = rand_bytes(bytes, NAME_BYTES);
	}
	if (e == OK)
		enc_hex(&hex, bytes, NAME_BYTES);
	snprintf(out, size, "%s", buf_z(&hex));
	e = e != OK ? e : hex.err;
	buf_free(&hex);
	return e;
}

bool
attend_key(struct request *r, struct str *key)
{
	struct http_field f;
	size_t at = 0, n = 0;
	bool good = true;

	*key = STR_NONE;
	while (http_field_next(request_head(r), &at, &f))
		if (str_ieq(f.name, S("Idempotency-Key"))) {
			*key = f.value;
			good = good && n++ == 0 && f.value.n > 0 && f.value.n <= ATTEND_KEY_MAX;
		}
	for (size_t i = 0; i < key->n; i++)
		good = good && key->p[i] > ' ' && key->p[i] <= '~';
	if (!good)
		request_error(r, 400, "invalid_request", "Idempotency-Key", NULL, "Idempotency-Key is one field of 1 to %d"
		    " visible ASCII characters", ATTEND_KEY_MAX);
	return good;
}

/* FNV-1a, 32 bits: tells texts apart that were not made to look alike. */
uint32_t
attend_hash(uint32_t h, struct str more)
{
	for (size_t i = 0; i < more.n; i++)
		h = (h ^ (unsigned char)more.p[i]) * 16777619u;
	return h;
}

/* ---- the answer --------------------------------------------------------------------------- */

void
attend_done(struct request *r, struct str text)
{
	r->ref[0] = '\0';
	effect_cancel(&r->release);     /* the answer proves that the question is stored */
	r->stored = true;
	r->attend->done(r, text);
}

/* A notice that belongs to a turn ("I am busy …") is not its answer. */
void
attend_reply(struct request *r, const struct outbox_item *item)
{
	if (item->kind == OUTBOX_REPLY || item->turn == 0)
		attend_done(r, item->text);
}

static void
on_late(void *arg)
{
	struct request *r = arg;

	r->ref[0] = '\0';
	request_error(r, 504, "timeout", NULL, "GET /v1/messages/{turn_id} has the answer when it is there",
	    "the answer takes longer than gateway.reply_timeout; the work goes on");
}

enum err
attend_look(struct request *r, bool fresh, struct str *running, struct buf *reply, bool *done)
{
	struct session *s = session_get(r->a, r->session);
	int64_t turn = 0;
	enum err e = store_inbound_turn(r->a->db, r->inbound, &turn);

	*running = STR_NONE;
	*done = false;
	if (e == OK && s && s->turn && s->turn->inbound == r->inbound && s->turn->state < TURN_REPLY) {
		*running = buf_view(&s->turn->answer);
		r->turn = s->turn->id;
	} else if (e == OK && turn) {
		e = store_reply(r->a->db, turn, reply, done, NULL);
	} else if (e == OK && !fresh) { /* a word like /help has no turn, but a notice */
		e = store_notice(r->a->db, r->inbound, reply, done);
	}
	return e;
}

void
attend_turn(struct request *r, bool fresh)
{
	struct buf reply = BUF_INIT(REPLY_MAX * 2);
	bool done;
	struct str running;
	enum err e = attend_look(r, fresh, &running, &reply, &done);

	if (e != OK) {
		request_failed(r, e);
	} else if (done) {
		attend_done(r, buf_view(&reply));
	} else if (r->attend->streams(r)) {
		r->attend->begin(r, running);
	} else {
		ev_timer_init(&r->timer, on_late, r);
		ev_timer_in(r->a->ev, &r->timer, config_i64(r->a->config, "gateway.reply_timeout") * US_PER_S);
	}
	buf_free(&reply);
}

/* ---- a new message -------------------------------------------------------------------------- */

static void
on_stored(struct effect *e)
{
	struct request *r = CONTAINER(e, struct request, release);

	r->stored = true;
	attend_turn(r, true);
}

static void
on_heard(struct effect *e)
{
	struct request *r = CONTAINER(e, struct request, release);

	r->stored = true;
	r->attend->stopping(r);
}

static void
on_joined(struct effect *e)
{
	struct request *r = CONTAINER(e, struct request, release);

	r->stored = true;
	attend_turn(r, false);
}

void
attend_join(struct request *r)
{
	if (r->a->db->in_tx) {
		r->stored = false;
		r->release.run = on_joined;
		agent_after(r->a, &r->release);
	} else {
		attend_turn(r, false);
	}
}

struct same { struct request *r; const struct inbound *in; bool it_is; };

static void
is_same(void *arg, const struct inbound_row *row)
{
	struct same *s = arg;

	s->r->created_at = row->received_at;
	s->it_is = str_eq(s->in->text, row->text) && s->r->session == row->session;
}

void
attend_put(struct request *r, struct inbound *in)
{
	struct same same = { r, in, false };
	const struct session *s = session_get(r->a, r->session);
	bool fresh = false, stops = s && s->turn && s->turn->state < TURN_REPLY && str_eqz(str_trim(in->text), "/stop");
	enum err e;

	in->to.channel = S("gateway");
	in->to.chat = str_z(r->chat);
	in->to.reply_to = in->ref = str_z(r->ref);
	in->sent_at = clock_us();
	in->trace = request_trace(r);
	r->release.run = on_stored;
	e = store_inbound_known(r->a->db, in->to.channel, in->dedup, &r->inbound);
	if (e == OK && r->inbound == 0) {       /* else nothing is made for it, not even a conversation */
		e = inbound_put(r->a, in, &fresh);
		r->stored = !r->a->db->in_tx && !r->a->write_failed;
		if (e == OK)
			e = store_inbound_known(r->a->db, in->to.channel, in->dedup, &r->inbound);
	}
	if (e == OK)
		e = store_session_known(r->a->db, r->a->name, &in->to, &r->session);
	if (e == OK)
		e = store_inbound_get(r->a->db, r->inbound, is_same, &same);
	if (e != OK) {
		request_failed(r, e);
	} else if (!fresh && !same.it_is) {
		r->inbound = 0;
		request_error(r, 409, "idempotency_mismatch", NULL, "use a new Idempotency-Key for another message",
		    "this Idempotency-Key came with another message before");
	} else if (fresh && stops) {
		r->ref[0] = '\0';
		r->release.run = on_heard;
		agent_after(r->a, &r->release);
	} else if (fresh) {             /* begins when it is on the disk; a word like /help is answered in the same commit */
		agent_after(r->a, &r->release);
	} else {
		effect_cancel(&r->release);
		r->stored = true;       /* long ago */
		attend_turn(r, false);
	}
}
