/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tg.h - what the files of the Telegram adapter share: the channel's state, and one
 * request to the Bot API with its answer. Contracts stand beside the declarations.
 */
#ifndef BLUFIO_TELEGRAM_TG_H
#define BLUFIO_TELEGRAM_TG_H

#include "blufio.h"

#define ME "telegram"
#define ID_SIZE 24                          /* an int64 as text */
#define CALL_US (30 * US_PER_S)             /* from connect to answer */
#define HINT_US (10 * US_PER_S)             /* live text: the reply may be waiting for its end */
#define BODY_MAX (1u << 20)                 /* a request; its answer, which has the message again */
#define REF_UNKNOWN (-1)                    /* "?": a placeholder that may be there */
#define PRESS_TEXT_MAX 64                   /* bytes of a button's datum */

enum poll_state { POLL_STARTING, POLL_POLLING, POLL_BACKOFF, POLL_UNAUTHORIZED, POLL_CONFLICT };

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

static inline bool
has(struct str s, const char *word)
{
	return str_find(s, str_z(word)) != SIZE_MAX;
}

static inline struct str
id_text(char out[ID_SIZE], int64_t id)
{
	snprintf(out, ID_SIZE, "%lld", (long long)id);
	return str_z(out);
}

static inline int64_t
id_of(struct str s)
{
	int64_t id = str_eqz(s, "?") ? REF_UNKNOWN : 0;

	IGNORE(str_i64(s, INT64_MIN, INT64_MAX, &id));  /* what is no number is no id */
	return id;
}

/* ---- tg_call.c ---- */

void tg_call_drop(struct call *c);                /* cancels it; its buffers are empty */
struct jw *tg_post(struct call *c);               /* begins a request: write its members */
/* Ends and sends it. once: libcurl may not repeat it by itself on a connection that proves dead. */
FALLIBLE tg_api(struct call *c, const char *method, bool once, int64_t total_us,
    void (*done)(struct call *, const struct answer *));
/* base + before + token + after: an address that holds the token, to be wiped. */
void tg_address(struct tg *tg, struct buf *url, const char *before, const char *after);
/* How long to wait before asking again what has failed as often before. */
int64_t tg_wait_us(const struct answer *r, int64_t failures);

/* ---- tg_talk.c: struct channel_ops ---- */

void tg_send(void *self, const struct outbox_item *item);
void tg_partial(void *self, const struct partial *p);
/* The button under a draft. One of an earlier turn says nothing about this one. */
void tg_stop(struct tg *tg, const struct json *stop);
void tg_talks_moved(struct tg *tg, int64_t from, int64_t to);
void tg_talks_free(struct tg *tg);

/* ---- tg_file.c: struct channel_ops ---- */

void tg_fetch(void *self, const struct attachment *at);
void tg_fetch_cancel(void *self, int64_t id);
void tg_downloads_free(struct tg *tg);

#endif
