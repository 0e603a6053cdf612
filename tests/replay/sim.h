/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sim.h - a world for the daemon's own objects: a clock that moves only when the
 * loop would wait, a network of scripted peers, a record of all that was said.
 *
 * clock.c, net.c and work.c define what base/clock.c, base/ev_epoll.c,
 * base/fetch.c and base/work.c define; linked before libblufio.a they take their
 * place. The peers (telegram.c, claude.c) and the day (day.c) are above them.
 *
 * True time is microseconds since 00:00 of the day a script begins with. What
 * the daemon reads as UTC and as monotonic time is true time and a skew each,
 * which a script may change. An answer of the world to what the daemon did comes
 * at least a microsecond later, so all events of one instant are in one loop turn.
 */
#ifndef BLUFIO_TESTS_SIM_H
#define BLUFIO_TESTS_SIM_H

#include "scratch.h"

#define SIM_DAY_US (86400 * US_PER_S)
#define SIM_FD 0                        /* the number under which the world is watched: nobody else uses it */
#define SIM_SPINS_MAX 20000             /* loop turns in which time stands still: more is a loop that spins */

/* ---- clock.c: time, chance, what is due --------------------------------------- */

struct sim_event {                      /* embed; zero-initialise */
	int64_t at;
	void (*fn)(void *arg);
	void *arg;
	struct sim_event *next, **prev; /* prev != NULL: scheduled */
};
struct exchange;
struct sim {
	int64_t now;                    /* true time */
	int64_t base;                   /* UTC of true time 0 */
	int64_t utc_skew, mono_skew;
	struct sim_event *events;       /* by time, then in the order they were scheduled */
	uint64_t seed, world_seed;      /* the daemon's chance, the world's */
	unsigned spins;
	int64_t begun;                  /* true time at the start */
	void (*watch)(struct exchange *x);      /* sees each request as it is made; may be NULL */
	bool feeding;                   /* answers come from a record, not from peers */
	struct buf record;              /* lines; max 0: nothing is recorded */
	const char *broken;             /* the first rule that the daemon broke; NULL: none */
};
extern struct sim sim;

void sim_begin(int64_t base, int64_t now, uint64_t seed, size_t record_max);
void sim_end(void);
void sim_at(struct sim_event *e, int64_t at);   /* e->fn, e->arg are set; schedules anew */
void sim_cancel(struct sim_event *e);
void sim_run_due(void);
unsigned sim_chance(unsigned n);                /* the world's dice: 0 .. n - 1 */
void sim_stamp(char out[32]);                   /* "0+12:00:00.000000" */
int64_t sim_stamp_parse(struct str s);          /* -1: none */
void sim_note(const char *fmt, ...) PRINTF(1, 2);       /* one line of the record, with its time */
void sim_broken(const char *rule);

/* ---- net.c: requests out, answers in --------------------------------------------- */

enum piece_kind { PIECE_SENT, PIECE_HEAD, PIECE_DATA, PIECE_END, PIECE_FAIL };
struct piece {
	enum piece_kind kind;
	int64_t after;                  /* the piece before it, or the request */
	unsigned status;                /* HEAD */
	enum err err;                   /* FAIL */
	bool sent;
	size_t from, n;                 /* into bytes: headers, data or the reason */
};
struct exchange {
	int64_t number;
	struct fetch_op *op;
	const struct peer *peer;
	bool repeatable;                /* libcurl would repeat it on its own: kept connection, not "once" */
	bool arrived;                   /* the peer has seen it */
	struct str what;                /* "getUpdates", "/v1/messages" */
	struct buf url, headers, body;
	struct sim_event event;         /* the request's arrival, then the next piece's */
	struct sim_event held;          /* the peer's own (a long poll) */
	struct buf bytes;
	struct piece *pieces;
	size_t n_pieces, next_piece;
	bool due;                       /* the next piece waits for a paused reader */
	void *state;                    /* the peer's */
	struct exchange *next, **prev;
};
struct peer {
	const char *host;
	void (*request)(struct exchange *x);    /* it has arrived */
	void (*over)(struct exchange *x);       /* ended, failed or given up: x is freed after it */
};
extern const struct peer telegram_peer, claude_peer;

void net_head(struct exchange *x, int64_t after, unsigned status, const char *headers);
void net_data(struct exchange *x, int64_t after, struct str bytes);
void net_end(struct exchange *x, int64_t after);
void net_fail(struct exchange *x, int64_t after, enum err err, bool sent, const char *why);
/* The connection closed without an answer: repeated by libcurl where that is its habit, else a failure. */
void net_reset(struct exchange *x, int64_t after);
bool net_feed(struct str line, const char **problem);   /* one "<" line of a record, now */
size_t net_open(const struct peer *p, const char *what);        /* exchanges not ended; what NULL: any */

/* ---- telegram.c ------------------------------------------------------------------------- */

#define TELEGRAM_TOKEN "123456789:AAsimulated-token-of-a-simulated-bot_00"
#define GROUP_CHAT (-1001)
#define STRANGERS 50                    /* users from here on are not in the list of those allowed */

struct telegram {
	int64_t update;                 /* the id of the next update */
	int64_t down_until;             /* no connection until then */
	int64_t silent_until;           /* connections, but never an answer */
	int64_t deaf_until;             /* getUpdates fails from the next one on */
	int64_t limit_until, limit_s;   /* sends get 429 with retry_after limit_s until then */
	int64_t lose, fail, reset, refuse;      /* of the next so many sends: the receipt, with 500, the connection, with 403 */
	unsigned chaos;                 /* of 1000 sends so many meet one of the first three */
	int64_t refused;                /* requests that were wrong */
	int64_t sends, tries;           /* messages that came to be; that were to be */
};
extern struct telegram telegram;
void telegram_begin(void);
void telegram_end(void);
int64_t telegram_chat(unsigned user);
/* The user's message id. */
int64_t telegram_say(unsigned user, bool group, struct str text);
void telegram_edit(unsigned user, struct str text);     /* corrects the user's newest message */
void telegram_press_stop(unsigned user);                /* the button under the newest draft */
size_t telegram_updates(void);                          /* not confirmed yet */
/* The i-th of them, as JSON. */
const char *telegram_update(size_t i, int64_t *id);
/* Messages of the bot, as they stand now, whose text contains part; the last one's text in *last (may be NULL). */
size_t telegram_count(int64_t chat, struct str part, struct str *last);
/* Those of them that do not say they may be repeats. */
size_t telegram_count_sure(int64_t chat, struct str part);
/* Does the bot's message with a stand before the one with b? */
bool telegram_before(int64_t chat, struct str a, struct str b);
void telegram_forget(void);             /* all messages: for long runs */

/* ---- claude.c --------------------------------------------------------------------------------- */

struct claude {
	int64_t down_until;
	int64_t fail, fail_status, retry_after_s;       /* the next so many calls; retry-after when >= 0 */
	int64_t cut;                    /* the next so many answers end in the middle */
	struct str garble;              /* the next answer's events, a byte each, in any order (fuzz_turn.c) */
	unsigned chaos;                 /* of 1000 calls so many fail in one way or another */
	int64_t calls, answers;         /* requests that came; answers that were complete */
	int64_t values;                 /* of them: answers that had to be a value */
	int64_t nano;                   /* what is on the bill, those that broke off too */
	int64_t input, output;          /* tokens billed, of complete and of cut answers */
	int64_t refused;
};
extern struct claude claude;
void claude_begin(void);

/* ---- day.c ----------------------------------------------------------------------------------------- */

enum wish { WISH_NONE, WISH_RESTART, WISH_CRASH, WISH_DRAIN, WISH_STOP };
struct day {
	struct scratch sc;
	struct agent *a;                /* NULL: not running */
	const char *env[4];             /* of its configuration */
	struct db *witness;             /* reads what is committed; NULL while no agent runs */
	const struct db_ops *real;
	struct db_ops ops;              /* real's, with ways to fail */
	bool dead;                      /* nothing can be written any more */
	int64_t fail_commits;           /* the next so many */
	enum wish wish;                 /* for the end of the loop turn */
	int64_t rise_at;                /* WISH_STOP: when it starts again */
	struct sim_event rise, line;
	const char *jump;               /* what the line "jump" does */
	struct str rest;                /* lines of the script or record to come */
	bool over;                      /* the line "end" was reached */
	int64_t asked;                  /* requests made to the model */
};
extern struct day day;

/* durability: "power" or "process". */
FALLIBLE day_begin(const char *toml, const char *durability);
void day_end(void);
FALLIBLE day_up(void);
void day_down(bool killed);
/* One loop turn that waits until then at most; wishes are fulfilled after it. */
FALLIBLE day_turn(int64_t until);
FALLIBLE day_run(int64_t until);
/* The lines "12:00:00 user 1 says hello", "+2.5 restart" … up to one that says "end". */
FALLIBLE day_script(const char *text);
/* The same from a record, whose answers take the place of the peers; sim.feeding is set before day_begin. */
FALLIBLE day_feed(struct str record);
void day_command(struct str line);      /* one line without its time, now */
void day_tables(struct buf *out, bool meta);
int64_t day_one(const char *sql);       /* of the committed state; sql is static; -1: it failed */

#endif
