/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * core.h - what the core files share with one another and adapters do not see:
 * the rows (store.c) and the conversation and turn structs that mirror them. The
 * gateway and its routes and authentication are adapters with rows of their own.
 */
#ifndef BLUFIO_CORE_H
#define BLUFIO_CORE_H

#include "blufio.h"
#include "core/facts.h"
#include "core/router.h"

#define SCHEMA_VERSION 7

/* ---- rows (store.c) ------------------------------------------------------- */

struct session_row {
	int64_t id, user, history_seq, thinking_seq, next_seq;
	struct target to;               /* views valid during the call */
	struct str model;               /* its own; empty: the default */
	int64_t prompt_tokens, prompt_seq;
	struct str prompt_model;
	int64_t cached_until, tier;
};
struct inbound_row {
	int64_t id, session;
	struct str text, reply_to, sender;
	int64_t hold_until;             /* an album: more parts may come until then; 0: it is none */
	int64_t attachments;            /* how many */
	int64_t received_at;
	struct str options;
	enum inbound_kind kind;
};
struct batch_row { int64_t id, key, total, done, failed, created_at, completed_at; };     /* completed_at 0: not yet */
#define BATCH_KEEP_US (30 * US_PER_DAY)   /* of one that is complete */
enum batch_state { BATCH_WAITS, BATCH_RUNS, BATCH_DONE, BATCH_FAILED };
struct batch_item_row {
	int64_t id, batch, key, number, created_at;
	enum batch_state state;
	int64_t tries;                  /* begun so often */
	int64_t round;                  /* its turn ended so often with nothing but that it may not be asked now */
	int64_t next_at;                /* not before; 0: at any time */
	struct str request, answer;     /* answer: of one that waits why, else a response or an error */
};
struct job_row {
	int64_t id, session, user;
	struct str name;                /* as the configuration calls it; empty: a person added it */
	struct str schedule, text;
	bool report;                    /* what it missed is told, not done */
	int64_t due_at;                 /* 0: to be found */
};
struct heartbeat_item { int64_t due_at, tries; bool told; };  /* due_at 0: it has no time */
struct turn_row {
	int64_t id, session, inbound, next_at, round, attempt, deaths;
	enum turn_state state;
	enum turn_outcome outcome;
	bool told;                      /* was told to wait for admission */
	bool waiting;                   /* stands in the admission queue: not being worked on */
	struct str answer, ref;         /* visible text of finished rounds; the channel's placeholder */
};
struct step_row {
	int64_t id, idx, estimate;
	bool tool;
	enum step_state state;
	struct str name, call_id, input, output;
	bool failed;
};
enum attachment_state { ATTACHMENT_WANTED, ATTACHMENT_READY, ATTACHMENT_FAILED };
struct attachment_row {
	struct attachment at;
	int64_t inbound;
	enum attachment_state state;
	int64_t attempts, next_at;
	struct str channel;
	struct str hash;                /* its bytes, once they are here */
	struct str text;                /* transcript, or why it failed */
};
struct media_row {
	struct str type;                /* MIME, as its bytes say */
	int64_t bytes, width, height;   /* pixels; 0 for what is no picture */
	bool gone;                      /* beyond the quota: the row is the note that it was there */
};
enum message_kind { MESSAGE_SAID, MESSAGE_SUMMARY, MESSAGE_COPY };     /* the latter two made by compact.c */
struct message_row { int64_t seq, turn; enum message_kind kind; struct str role, content; int64_t created_at; };
struct session_list_row { int64_t id, created_at, updated_at; struct str chat, user; };
struct outbox_row {
	struct outbox_item item;
	enum outbox_state state;
	int64_t next_at, updated_at;
};
struct reservation_row {                /* of the most that a running call to a provider may cost */
	int64_t id, at;
	struct str feature;
	int64_t session, turn, user;    /* 0: none */
	struct str provider, model, intended;
	int64_t input, answer;          /* tokens at most */
	bool hour;                      /* it may write cache entries of one hour */
	int64_t nano;
};
#define API_KEY_PREFIX "blf_sk_"
#define API_KEY_BYTES 32u               /* of chance, written in hex behind it */
#define SECRET_HASH_SIZE 65             /* hex SHA-256, and NUL */
#define API_KEY_NAME_MAX 64u            /* bytes of what people call a key */
#define API_KEY_DEVICE_HEX 64u          /* digits of a public key */
#define API_KEYS_MAX 1000               /* not revoked: more are a program that forgets to */
enum api_key_kind { API_KEY_SECRET, API_KEY_DEVICE, API_KEY_TOKEN };   /* minted | a public key | gateway.bearer_token */
struct api_key_row {
	int64_t id;
	enum api_key_kind kind;
	struct str name;
	struct str hash;                /* hex SHA-256 of the secret; of a device its public key in hex */
	unsigned scopes;
	int64_t rate_per_minute;        /* 0: no limit */
	int64_t created_at, expires_at, revoked_at, used_at;   /* 0: never */
	int64_t minted_by;              /* row; 0: the owner, at the command line or in the configuration */
};
#define LOGINS_MAX 16                   /* of a credential and kind; then its oldest ends */
#define SESSION_US (12 * 3600 * US_PER_S)   /* of a browser: a working day */
#define TICKET_US (30 * US_PER_S)       /* a page asks for it when it is about to use it */
enum login_kind { LOGIN_SESSION, LOGIN_TICKET };        /* a browser's cookie | for one WebSocket, once */
struct login_row {
	int64_t id, key;                /* key: the credential it stands for */
	enum login_kind kind;
	int64_t session;                /* of a ticket, the browser session that asked for it; 0: a program did */
	int64_t expires_at;
	int64_t ends_at;                /* of what it opens; 0: with the credential */
};

/* Opens the schema: creates, migrates forward, refuses a newer one with a sentence. */
FALLIBLE store_migrate(struct db *db, const char *path, struct fail *f);
FALLIBLE store_meta_set(struct db *db, const char *key, int64_t value);
FALLIBLE store_meta_get(struct db *db, const char *key, int64_t dflt, int64_t *out);

FALLIBLE store_user_for(struct db *db, struct str channel, struct str sender, struct str name, int64_t *user);
FALLIBLE store_paired(struct db *db, struct str channel, struct str sender, bool *paired);
FALLIBLE store_pair(struct db *db, struct str channel, struct str sender, struct str name);
FALLIBLE store_pairing_add(struct db *db, struct str code, struct str channel, struct str sender, struct str name, int64_t expires);
/* A stranger's open offer, and how many were made since a time. */
FALLIBLE store_pairing_open(struct db *db, struct str channel, struct str sender, int64_t now, bool *open);
FALLIBLE store_pairing_count(struct db *db, int64_t since, int64_t *n);
/* The offer of a code that has not expired: channel, sender, name into out (NUL-separated); used up. */
struct pairing { struct buf channel, sender, name; };
FALLIBLE store_pairing_take(struct db *db, struct str code, int64_t now, struct pairing *out);
typedef void pairing_fn(void *arg, struct str code, struct str channel, struct str sender, struct str name, int64_t expires);
FALLIBLE store_pairing_list(struct db *db, int64_t now, pairing_fn *fn, void *arg);

FALLIBLE store_session_find(struct db *db, const char *agent, const struct target *to, int64_t user, int64_t *id);
FALLIBLE store_session_known(struct db *db, const char *agent, const struct target *to, int64_t *id);  /* 0 = none */
FALLIBLE store_session_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct session_row *r), void *arg);
FALLIBLE store_session_set_model(struct db *db, int64_t id, struct str model);
FALLIBLE store_session_prompt_size(struct db *db, int64_t id, int64_t tokens, int64_t seq, struct str model, int64_t cached_until);
FALLIBLE store_session_tier(struct db *db, int64_t id, int64_t tier);
/* Of the conversation's newest call: the model, and why it was that one. Empty: there was none. */
FALLIBLE store_session_why(struct db *db, int64_t id, struct buf *model, struct buf *why);
/* How long people paused before their newest messages of a history: pauses of up to short_us, and longer ones of up to
 * long_us; 20 at most are looked at. */
FALLIBLE store_session_pauses(struct db *db, int64_t id, int64_t from_seq, int64_t short_us, int64_t long_us, int64_t *n_short,
    int64_t *n_long);
FALLIBLE store_session_new_history(struct db *db, int64_t id, int64_t seq);
/* Tries to have a conversation summarised, since the last that succeeded: how many, when the next may be, and the seq up to
 * which rows were tried. */
FALLIBLE store_session_compact_state(struct db *db, int64_t id, int64_t *tries, int64_t *at, int64_t *seq);
FALLIBLE store_session_compact_try(struct db *db, int64_t id, int64_t tries, int64_t at, int64_t seq);
FALLIBLE store_session_drop_thinking(struct db *db, int64_t id, int64_t seq);  /* before seq; 0: from here back */
/* The system prompt this history began with: a changed one waits for the next history (ERR_NOTFOUND: none yet). */
FALLIBLE store_session_prompt(struct db *db, int64_t id, struct buf *out);
/* The newest change of the rules that its history was told, and the newest there is. */
struct rule_row { int64_t number; struct str text; bool removed; };
FALLIBLE store_session_rules(struct db *db, int64_t id, int64_t *seen, int64_t *newest);
FALLIBLE store_session_rules_told(struct db *db, int64_t id, int64_t change);
/* after 0: those in force, by number; else what changed since, in its order. */
FALLIBLE store_rules(struct db *db, int64_t user, int64_t after, void (*fn)(void *arg, const struct rule_row *r), void *arg);
FALLIBLE store_rules_count(struct db *db, int64_t user, int64_t *n);
FALLIBLE store_rule_add(struct db *db, int64_t user, struct str text, int64_t *number);
FALLIBLE store_rule_remove(struct db *db, int64_t user, int64_t number, bool *found);

/* Those that are not over, oldest first; session 0: of all conversations. */
FALLIBLE store_jobs(struct db *db, int64_t session, void (*fn)(void *arg, const struct job_row *j), void *arg);
FALLIBLE store_job_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct job_row *j), void *arg);
FALLIBLE store_jobs_due(struct db *db, int64_t now, int64_t limit, void (*fn)(void *arg, int64_t id), void *arg);
FALLIBLE store_jobs_next(struct db *db, int64_t *id, int64_t *due_at);     /* 0: none */
FALLIBLE store_jobs_count(struct db *db, int64_t user, int64_t *n);        /* not over; user 0: of all */
FALLIBLE store_job_add(struct db *db, const struct job_row *j, int64_t *id);
/* One that has a name is made, or changed: its next time is to be found when its schedule is another or it was over. */
FALLIBLE store_job_put(struct db *db, const struct job_row *j);
FALLIBLE store_job_due(struct db *db, int64_t id, int64_t due_at);         /* 0: it is over */
/* The time is taken: *fresh = false when it was before. */
FALLIBLE store_job_run(struct db *db, int64_t id, int64_t due_at, int64_t missed, bool *fresh);
FALLIBLE store_job_runs_expire(struct db *db, int64_t before, int64_t newest_kept);

/* What was done about an item of a checklist; ERR_NOTFOUND: nothing. Of one that comes daily *item is the newest of
 * them when due_at is -1. */
FALLIBLE store_heartbeat_item(struct db *db, const char *name, struct str item, int64_t due_at, struct heartbeat_item *out);
FALLIBLE store_heartbeat_item_put(struct db *db, const char *name, struct str item, const struct heartbeat_item *i);
FALLIBLE store_heartbeat_note_add(struct db *db, int64_t session, struct str text, bool shown);
/* What a conversation's model was not told yet; what its person was not shown yet. It becomes so, up to where fn returns
 * false. */
FALLIBLE store_heartbeat_notes(struct db *db, int64_t session, bool to_model, bool (*fn)(void *arg, struct str text), void *arg);
FALLIBLE store_session_set_prompt(struct db *db, int64_t id, struct str prompt);
FALLIBLE store_session_count(struct db *db, int64_t *n);

/* *id = 0 for a repeat. */
FALLIBLE store_inbound_add(struct db *db, int64_t session, const struct inbound *in, enum inbound_state state, int64_t *id);
/* The oldest queued message of a session; *found false when none. fn may be NULL. */
FALLIBLE store_inbound_next(struct db *db, int64_t session, void (*fn)(void *arg, const struct inbound_row *r), void *arg, bool *found);
FALLIBLE store_inbound_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct inbound_row *r), void *arg);
FALLIBLE store_inbound_known(struct db *db, struct str channel, struct str dedup, int64_t *id);   /* 0 = none */
FALLIBLE store_inbound_turn(struct db *db, int64_t id, int64_t *turn);     /* that answers it; 0 = none yet */
/* Messages with that digest, the newest first, 16 at most. */
FALLIBLE store_inbound_digest(struct db *db, struct str digest, void (*fn)(void *arg, int64_t id), void *arg);
/* Appends the reply of a turn, delivered or not; told (may be NULL): somebody took it. */
FALLIBLE store_reply(struct db *db, int64_t turn, struct buf *text, bool *found, bool *told);
/* Appends what was said to a message that has no turn: a word like /help. Nothing said is found, too. */
FALLIBLE store_notice(struct db *db, int64_t inbound, struct buf *text, bool *found);
/* A list is read from behind after (0: from its begin) until fn returns false. */
struct page { bool newest_first; int64_t after; };
/* The channel's conversations whose chat begins with prefix; user is how the channel calls the person. */
FALLIBLE store_session_list(struct db *db, const char *channel, struct str prefix, const struct page *p,
    bool (*fn)(void *arg, const struct session_list_row *r), void *arg);
/* The turn of the newest message of its running history: id, inbound, round, outcome; id 0: none. */
FALLIBLE store_session_tip(struct db *db, int64_t id, struct turn_row *out);
/* What was said in from, up to the turn of that message, becomes the history of to, which has none. */
FALLIBLE store_session_branch(struct db *db, int64_t from, int64_t inbound, int64_t to);
/* What was said in it goes, and nobody finds it again; what it cost stays. */
FALLIBLE store_session_erase(struct db *db, int64_t id);
FALLIBLE store_inbound_set(struct db *db, int64_t id, enum inbound_state state);
FALLIBLE store_inbound_edit(struct db *db, int64_t session, struct str ref, struct str text, bool *applied);
/* Sessions with queued messages, oldest first. */
FALLIBLE store_inbound_sessions(struct db *db, int64_t limit, void (*fn)(void *arg, int64_t session), void *arg);
/* Rewrites a chat's id everywhere: rows of a conversation that exists in both move to the new one. */
FALLIBLE store_chat_moved(struct db *db, struct str channel, struct str from, struct str to, bool *changed);
FALLIBLE store_inbound_queued(struct db *db, int64_t *n);
FALLIBLE store_inbound_expire(struct db *db, int64_t before, int64_t newest_kept);

/* Parts of an album: the row that stands for it and may still take one, 0 none. A part joins it:
 * its caption (when the album has none yet), and a longer wait for the next part. */
FALLIBLE store_album_find(struct db *db, int64_t session, struct str album, int64_t *inbound);
FALLIBLE store_album_join(struct db *db, int64_t inbound, struct str text, int64_t hold_until);
FALLIBLE store_inbound_hold(struct db *db, int64_t inbound, int64_t hold_until);

FALLIBLE store_attachment_add(struct db *db, int64_t inbound, struct str channel, int64_t position, const struct attachment *at);
/* inbound 0: all that are wanted, oldest first; else that message's, in its order */
FALLIBLE store_attachments(struct db *db, int64_t inbound, void (*fn)(void *arg, const struct attachment_row *r), void *arg);
/* The base64 that one which is wanted came as. */
FALLIBLE store_attachment_data(struct db *db, int64_t id, void (*fn)(void *arg, struct str data), void *arg);
FALLIBLE store_attachment_set(struct db *db, int64_t id, enum attachment_state state, struct str hash, struct str text);
FALLIBLE store_attachment_retry(struct db *db, int64_t id, int64_t attempts, int64_t next_at);
FALLIBLE store_attachments_drop(struct db *db, int64_t inbound, struct str why);   /* wanted -> failed */
FALLIBLE store_media_put(struct db *db, struct str hash, const struct media_row *m);
FALLIBLE store_media_get(struct db *db, struct str hash, void (*fn)(void *arg, const struct media_row *m), void *arg, bool *found);
/* Of all files, and of those that may go to make room (not keep, not what an unanswered message has). */
FALLIBLE store_media_bytes(struct db *db, struct str keep, int64_t *sum, int64_t *can_go);
/* The file to go first: the oldest that no running history holds, else the oldest; never one of a
 * message that is not answered yet, nor keep. hash empty: there is none. */
FALLIBLE store_media_oldest(struct db *db, struct str keep, struct buf *hash, int64_t *bytes);
FALLIBLE store_media_gone(struct db *db, struct str hash);
FALLIBLE store_media_use(struct db *db, struct str hash, int64_t session, int64_t seq);
/* Conversations whose running history holds it. */
FALLIBLE store_media_sessions(struct db *db, struct str hash, void (*fn)(void *arg, int64_t session), void *arg);

FALLIBLE store_turn_add(struct db *db, int64_t session, int64_t inbound, int64_t *id);
FALLIBLE store_turn_save(struct db *db, const struct turn_row *t);          /* all but the texts */
FALLIBLE store_turn_answer(struct db *db, int64_t id, struct str answer, struct str partial);
FALLIBLE store_turn_partial(struct db *db, int64_t id, struct str partial);
FALLIBLE store_turn_ref(struct db *db, int64_t id, struct str ref);
FALLIBLE store_turn_partial_bytes(struct db *db, int64_t id, int64_t *n);
FALLIBLE store_turns_open(struct db *db, void (*fn)(void *arg, int64_t id), void *arg);   /* oldest first */
FALLIBLE store_turn_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct turn_row *t), void *arg);
FALLIBLE store_turns_died(struct db *db);      /* deaths + 1 for every turn that was running */
FALLIBLE store_outbox_give_up(struct db *db, int64_t turn);   /* its undelivered replies fail */

FALLIBLE store_message_add(struct db *db, int64_t session, int64_t seq, int64_t turn, const char *role, struct str content);
FALLIBLE store_message_put(struct db *db, int64_t session, const struct message_row *m);
FALLIBLE store_messages_void(struct db *db, int64_t turn);  /* a refused turn leaves the history */
/* Rows of the session from seq on, in order; fn returns false to stop. And the newest of what was said, of all histories,
 * and how much that is. */
FALLIBLE store_messages(struct db *db, int64_t session, int64_t from_seq, bool (*fn)(void *arg, const struct message_row *m), void *arg);
FALLIBLE store_message_page(struct db *db, int64_t session, const struct page *p,
    bool (*fn)(void *arg, const struct message_row *m), void *arg);
FALLIBLE store_messages_count(struct db *db, int64_t session, int64_t *n);
FALLIBLE store_messages_said(struct db *db, int64_t session, int64_t newest, bool (*fn)(void *arg, const struct message_row *m), void *arg);

FALLIBLE store_step_add(struct db *db, int64_t turn, int64_t round, const struct step_row *s, int64_t *id);
FALLIBLE store_step_set(struct db *db, int64_t id, enum step_state state, bool failed, struct str output);
FALLIBLE store_steps(struct db *db, int64_t turn, int64_t round, void (*fn)(void *arg, const struct step_row *s), void *arg);
FALLIBLE store_steps_interrupt(struct db *db, int64_t turn);               /* running -> interrupted */

FALLIBLE store_outbox_add(struct db *db, enum outbox_kind kind, int64_t session, int64_t turn, const struct target *to,
    struct str text, struct str edit_ref, bool repeated, struct str buttons, int64_t *id);
FALLIBLE store_outbox_state(struct db *db, int64_t id, enum outbox_state state, int64_t next_at, struct str why);
FALLIBLE store_outbox_progress(struct db *db, int64_t id, int64_t part, struct str format, struct str external_id);
FALLIBLE store_outbox_retry(struct db *db, int64_t id, int64_t next_at, enum doubt doubt, struct str format, struct str why);
FALLIBLE store_outbox_interrupted(struct db *db);                          /* sending -> ready, repeated */
FALLIBLE store_outbox_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct outbox_row *r), void *arg);
FALLIBLE store_outbox_open(struct db *db, void (*fn)(void *arg, const struct outbox_row *r), void *arg);

FALLIBLE store_reserve(struct db *db, const struct reservation_row *r, int64_t *id);
FALLIBLE store_reservation_get(struct db *db, int64_t id, void (*fn)(void *arg, const struct reservation_row *r), void *arg);
FALLIBLE store_reservations(struct db *db, void (*fn)(void *arg, int64_t id), void *arg);
FALLIBLE store_reservation_end(struct db *db, int64_t id);
/* What its turn has of the answer on disk (a reply that is being written). */
FALLIBLE store_reservation_received(struct db *db, int64_t id, int64_t *bytes);
/* Sums of open reservations and of days from <= day < to; feature empty: of all; user 0: of all. */
FALLIBLE store_reserved(struct db *db, struct str feature, int64_t user, int64_t *nano);
FALLIBLE store_spent(struct db *db, int64_t from, int64_t to, struct str feature, int64_t user, int64_t *nano);
/* The row of the ledger that a reservation becomes, and its part of the day's sum. */
FALLIBLE store_cost_add(struct db *db, const struct reservation_row *r, const struct usage *u, int64_t nano, bool estimated,
    struct str request_id);
enum cost_by { COST_BY_NOTHING, COST_BY_MODEL, COST_BY_FEATURE, COST_BY_SESSION };
struct cost_line { struct str name; int64_t calls, nano, prompt, cached, output, estimated; };   /* tokens; calls estimated */
/* Lines of the ledger from <= at < to, the dearest first, 100 at most. */
FALLIBLE store_cost_report(struct db *db, enum cost_by by, int64_t from, int64_t to,
    void (*fn)(void *arg, const struct cost_line *l), void *arg);
FALLIBLE store_cost_turn(struct db *db, int64_t turn, struct usage *out);         /* the sum */

/* What a secret is stored and found as. */
void store_secret_hash(struct str secret, char out[SECRET_HASH_SIZE]);
bool store_api_key_name(struct str name);      /* may a key be called so? */
bool store_api_key_device(struct str public);  /* is it 64 lower-case hex digits? */
typedef void api_key_fn(void *arg, const struct api_key_row *k);
/* ERR_EXISTS: that hash is known (a revoked one too). Id, created_at, revoked_at and used_at are not read from k. */
FALLIBLE store_api_key_add(struct db *db, const struct api_key_row *k, int64_t *id);
/* The same with a secret made here: kind and hash are not read either. key gets it: the one time that it is seen. */
FALLIBLE store_api_key_mint(struct db *db, const struct api_key_row *k, struct buf *key, int64_t *id);
FALLIBLE store_api_key_find(struct db *db, struct str hash, api_key_fn *fn, void *arg);   /* revoked and expired too */
FALLIBLE store_api_key_get(struct db *db, int64_t id, api_key_fn *fn, void *arg);         /* as well */
FALLIBLE store_api_keys(struct db *db, api_key_fn *fn, void *arg);         /* all that are not revoked, oldest first */
FALLIBLE store_api_key_count(struct db *db, int64_t *n);                   /* of these */
FALLIBLE store_api_key_any(struct db *db, bool *any);                      /* is there one, or was there ever? */
FALLIBLE store_api_key_revoke(struct db *db, int64_t id);                  /* and all that it made; the first time counts */
/* Is it not revoked, and has login (0: none) not been ended? */
FALLIBLE store_api_key_holds(struct db *db, int64_t id, int64_t login, bool *holds);
FALLIBLE store_api_key_used(struct db *db, int64_t id, int64_t at);
/* *fresh = false for a nonce that this device has used. Those older than keep_us are forgotten. */

/* Batches of requests. name: by an Idempotency-Key, may be empty; digest: of what was sent. */
FALLIBLE store_batch_add(struct db *db, int64_t key, struct str name, struct str digest, int64_t total, int64_t *id);
FALLIBLE store_batch_item_add(struct db *db, int64_t batch, int64_t number, struct str request);
FALLIBLE store_batch_known(struct db *db, int64_t key, struct str name, struct str digest, int64_t *id, bool *same);   /* 0: none */
/* One, if it is of that key (0: of any); ERR_NOTFOUND. */
FALLIBLE store_batch_get(struct db *db, int64_t id, int64_t key, struct batch_row *out);
FALLIBLE store_batches(struct db *db, int64_t key, const struct page *p, bool (*fn)(void *arg, const struct batch_row *b), void *arg);
FALLIBLE store_batch_items(struct db *db, int64_t batch, const struct page *p,
    bool (*fn)(void *arg, const struct batch_item_row *i), void *arg);
/* Why the first of those that were put off waits; nothing: none was. */
FALLIBLE store_batch_why(struct db *db, int64_t batch, struct buf *out);
FALLIBLE store_batch_open(struct db *db, int64_t key, int64_t *n);         /* items; key 0: of all that do not run */
/* The next that may run, when the caps leave so much; fn is called if there is one. */
FALLIBLE store_batch_next(struct db *db, int64_t now, int64_t room, void (*fn)(void *arg, const struct batch_item_row *i), void *arg);
/* It runs, or waits: until next_at, or until the caps leave more than room (-1: for the time alone). */
FALLIBLE store_batch_item_put(struct db *db, const struct batch_item_row *i, int64_t room);
/* state: BATCH_DONE, BATCH_FAILED. With the last one its batch is complete. */
FALLIBLE store_batch_item_ends(struct db *db, const struct batch_item_row *i, enum batch_state state, struct str answer);
FALLIBLE store_batches_load(struct db *db);     /* none runs */
FALLIBLE store_batches_expire(struct db *db, int64_t before);

FALLIBLE store_nonce_add(struct db *db, int64_t device, struct str nonce, int64_t now, int64_t keep_us, bool *fresh);
/* Makes secret, which is seen this once; id and kind's limits as above. The oldest beyond LOGINS_MAX ends. */
FALLIBLE store_login_mint(struct db *db, const struct login_row *l, int64_t now, struct buf *secret, int64_t *id);
/* ERR_NOTFOUND: none that is good now. One that would be good for longer than its kind is was made before the clock
 * was set back: it counts no more. A ticket ends with the session that asked for it. */
FALLIBLE store_login_find(struct db *db, enum login_kind kind, struct str secret, int64_t now, struct login_row *out);
FALLIBLE store_login_end(struct db *db, int64_t id);
/* What a page has to show beside the cookie: made of it, so that it need not be kept, and tells nothing of it. */
void store_login_csrf(struct str secret, char out[SECRET_HASH_SIZE]);

/* ---- conversations and turns in memory ------------------------------------------- */

struct tool_run {                       /* one tool call of the current round */
	struct turn *t;
	int64_t step;                   /* row */
	enum step_state state;
	char *name, *call_id;           /* capability name as the model wrote it */
	char *input;                    /* JSON text */
	char *output;                   /* set with DONE or INTERRUPTED */
	bool failed;
	struct invocation *inv;
	struct effect start;
};

struct turn {
	struct agent *a;
	struct session *s;              /* owns this turn */
	int64_t id, inbound, next_at, round, attempt, deaths;
	enum turn_state state;
	enum turn_outcome outcome;
	int64_t received_at;            /* when its message was stored */
	int64_t hold_until;             /* of an album in PREPARE */
	int64_t attachments;            /* of its message */
	bool job;                       /* a schedule asks, not a person */
	bool batch;                     /* an item of one */
	bool told;
	bool slot;                      /* counts against max_sessions */
	bool waiting;                   /* stands in the admission queue */
	bool begun;                     /* channel was told PARTIAL_BEGIN */
	bool restart_owed;              /* text shown before a restart is void: tell the channel */
	/* what happened, recorded by callbacks, consumed by the driver */
	bool stop_wanted, stop_new, deadline_hit, delivered, result_set;
	bool running;                   /* inside the driver */
	bool tool_done;                 /* some tool finished since the driver last looked */
	struct llm_result result;       /* strings owned by result_text */
	struct buf result_text;
	struct buf answer;              /* all visible text so far */
	size_t round_from;              /* where the running round's text begins in it */
	char *ref;                      /* the channel's placeholder, NULL none */
	struct buf options;             /* of its message */
	char reply_to[64];              /* the message it answers, as its channel calls it; "" none */
	struct trace trace;             /* of its message while this process knows it, else a new one: no column */
	int64_t saved_at;               /* when partial text last reached the disk */
	int64_t model_step;             /* row of the running model call */
	int64_t reservation;            /* row of what it may cost */
	int64_t estimate;               /* its input tokens, estimated or counted */
	int64_t bytes, own_bytes, file_tokens;  /* as in its struct context */
	int64_t condensed;              /* the round whose request was too full for what was before it, plus 1 */
	int64_t counted;                /* what the provider counted; 0 not asked, -1 it could not say */
	void *counting;                 /* its question */
	char model[128];                /* the exact id of the model that is asked */
	char wanted[128];               /* of the one that should be, by the router or by choice */
	char intended[128];             /* of the one that its message alone would have */
	bool lowered;                   /* the router took a smaller one for the budget's sake */
	int lower;                      /* tiers that the budget takes off */
	bool hour;                      /* cached for an hour */
	struct buf why;                 /* this model, for people */
	struct router_verdict verdict;  /* of its message */
	/* places in the chain of providers that failed this call; that refuse it */
	unsigned avoid, refused;
	int64_t patience;               /* monotonic: until then it waits for one that may be asked again; 0: it did not have to */
	struct provider *missed;        /* another answered in its place, */
	char cause[160];                /* because of this */
	struct context *context;        /* between step_call and its effect */
	struct llm_call *call;
	struct tool_run *tools;
	size_t n_tools;
	struct effect begin;            /* after the light commit that stored the message */
	struct effect ask;
	struct ev_defer run;
	struct ev_timer timer;          /* next_at in CALL */
	struct ev_timer deadline;
	struct turn *wait_next, **wait_prev;   /* admission queue */
};

struct session {
	int64_t id, user, history_seq, thinking_seq, next_seq;
	struct target to;               /* strings owned: one block */
	char *names;
	char model[128];                /* of its own; "" is the default */
	/* what its provider last counted: all before prompt_seq has so many tokens, for that model; 0: not known */
	int64_t prompt_tokens, prompt_seq;
	char prompt_model[128];
	int64_t cached_until;           /* and its cache holds it until then */
	enum tier tier;                 /* that the newest message wants */
	struct turn *turn;              /* the one being worked on, or NULL */
	struct ev_defer next;           /* starts the next queued message */
	struct agent *a;
};

/* Ids collected from rows, for work that writes to the table they came from. Free p. */
struct id_list { int64_t *p; size_t n; enum err err; };
void id_list_add(void *list, int64_t id);   /* session.c */

/* session.c */
FALLIBLE sessions_new(struct agent *a);
void sessions_clear(struct agent *a);                /* memory only */
void sessions_free(struct agent *a);
FALLIBLE sessions_load(struct agent *a);             /* from rows, after turns */
struct session *session_get(struct agent *a, int64_t id);            /* loaded, or NULL */
FALLIBLE session_open(struct agent *a, int64_t id, struct session **out);   /* loads it */
/* The trace that inbound came with, or a new one. */
void session_trace(struct agent *a, int64_t inbound, struct trace *out);
void session_turn_over(struct session *s);           /* frees s->turn; the next message starts */
void session_close(struct session *s);               /* frees it unless it has a turn */
FALLIBLE session_prompt(struct session *s);          /* made and stored when its history has none yet */
size_t sessions_loaded(struct agent *a);
bool sessions_next(struct agent *a, size_t *it, struct session **out);
/* What a schedule asks for, as if it had been said in that conversation. */
FALLIBLE session_ask(struct agent *a, int64_t id, struct str dedup, struct str text);
FALLIBLE session_say(struct agent *a, int64_t id, struct str text);  /* a notice */
FALLIBLE pair_code(struct agent *a, struct str code, struct buf *told, struct fail *f);

/* turn.c */
FALLIBLE turns_new(struct agent *a);
void turns_free(struct agent *a);
FALLIBLE turns_load(struct agent *a, bool after_death);   /* open turns from rows */
FALLIBLE turn_start(struct session *s, int64_t inbound);  /* a new row in PREPARE */
void turn_free(struct turn *t);                      /* memory only; cancels what runs */
void turn_stop(struct turn *t, bool new_history);
void turn_delivered(struct agent *a, int64_t turn);  /* its reply is out, or never will be */
struct turn *turn_get(struct agent *a, int64_t id);
/* Log lines are this turn's from here to log_ids(0, 0, NULL). One that is not open: nothing happens. */
void turn_log(struct agent *a, int64_t id);
size_t turns_running(const struct agent *a);
size_t turns_waiting(const struct agent *a);
void turns_wake(struct agent *a);                    /* max_sessions may have grown */
const char *turn_tier_model(struct agent *a, enum tier tier);
/* Drain: are turns still on their way that would end by themselves? */
bool turns_busy(struct agent *a);

/* media.c */
FALLIBLE media_new(struct agent *a);
void media_clear(struct agent *a);                   /* memory only; cancels what runs */
void media_free(struct agent *a);
FALLIBLE media_load(struct agent *a);                /* what is wanted, from rows; sweeps files without a row */
void media_want(struct agent *a, int64_t inbound);   /* rows were added: begin */
void media_drop(struct agent *a, int64_t inbound);   /* its turn is over: nothing is wanted any more */
/* Is something of this message still on its way? turn_gathered() is called when it no longer is. */
bool media_pending(struct agent *a, int64_t inbound);
/* The message's attachments, in order, as blocks of message seq of a conversation, each with a comma
 * behind it; what cannot be read adds a sentence to notes. */
FALLIBLE media_blocks(struct agent *a, int64_t inbound, int64_t session, int64_t seq, struct buf *out, struct buf *notes);
void media_dump(struct agent *a, struct jw *w);      /* ids of what is wanted */
void turn_gathered(struct agent *a, int64_t inbound);/* turn.c */

/* outbox.c */
FALLIBLE outbox_new(struct agent *a);
void outbox_clear(struct agent *a);
void outbox_free(struct agent *a);
FALLIBLE outbox_load(struct agent *a);
bool outbox_has_turn(const struct agent *a, int64_t turn);
size_t outbox_waiting(const struct agent *a);
bool outbox_in_flight(const struct agent *a);
void outbox_dump(struct agent *a, struct jw *w);

/* model.c */
FALLIBLE models_new(struct agent *a);
void models_clear(struct agent *a);                  /* whoever waits for a list */
void models_free(struct agent *a);
/* "/model" and "/model WORD": which one answers here, which there are, another one. */
void model_word(struct agent *a, int64_t session, const struct target *to, struct str arg);
/* The i-th model that has a price; one may come twice. */
bool model_priced(struct agent *a, size_t i, struct str *id);
/* Appends up to three models that have a price and a name like this one. */
void model_nearest(struct agent *a, struct str like, struct buf *out);

/* jobs.c */
#define JOBS_MAX 50                     /* of a person */
#define JOB_BYTES_MAX 2000              /* of what it asks for */
#define JOB_LATE_US (300 * US_PER_S)    /* later than this it was missed */
#define JOB_RUNS_US (30 * US_PER_DAY)     /* its times are remembered so long, */
#define JOB_RUNS_NEWEST 1000            /* and the newest in any case */
/* The words of a configuration in force become rows; what is due is looked for. */
FALLIBLE jobs_load(struct agent *a);
void jobs_clear(struct agent *a);
void jobs_wake(struct agent *a);        /* something may be due that was not before */
void jobs_word(struct agent *a, int64_t session, int64_t user, struct str arg, struct buf *out);
void jobs_status(struct agent *a, struct jw *w);
FALLIBLE jobs_chat_check(struct str text, struct fail *f);
/* The conversation that "channel:chat" names; it and its person are made when they are not there. */
FALLIBLE jobs_chat(struct agent *a, struct str name, int64_t *session, int64_t *user);

/* heartbeat.c */
#define HEARTBEATS_MAX 32               /* people with a checklist */
#define HEARTBEAT_FILE_MAX (64u << 10)  /* bytes of a checklist */
#define HEARTBEAT_ITEMS_MAX 200         /* open items of it */
#define HEARTBEAT_ITEM_MAX 500          /* bytes of one */
#define HEARTBEAT_TRIES 3               /* calls for the same items */
#define HEARTBEAT_MESSAGE_MAX 4000      /* bytes of what is said */
#define HEARTBEAT_NOTES_MAX 20          /* that wait for the next answer */
#define HEARTBEAT_DAYS_KEPT 40          /* of an item that comes daily */
FALLIBLE heartbeat_new(struct agent *a);
void heartbeat_free(struct agent *a);
void heartbeat_clear(struct agent *a);  /* memory only; cancels what runs */
FALLIBLE heartbeat_load(struct agent *a);
void heartbeat_stop(struct agent *a);   /* the call that runs, if one does; it is booked */
/* Appends what was said to a conversation unasked: what its model does not know yet, up to most bytes in all, the rest
 * another time; what goes in front of an answer. */
FALLIBLE heartbeat_tell(struct agent *a, int64_t session, size_t most, struct buf *out);
FALLIBLE heartbeat_show(struct agent *a, int64_t session, struct buf *out);
void heartbeat_status(struct agent *a, struct jw *w);

/* rules.c */
#define RULES_MAX 50                    /* of a person: all stand in every prompt of theirs */
#define RULE_BYTES_MAX 1000
FALLIBLE rules_prompt(struct agent *a, int64_t user, struct buf *out);
/* Appends what changed since (seen > 0); were it more than most bytes, those that hold now. */
FALLIBLE rules_changes(struct agent *a, int64_t user, int64_t seen, size_t most, struct buf *out);
void rules_word(struct agent *a, int64_t user, struct str arg, struct buf *out);

/* compact.c */
struct compaction;
/* A turn of s is over, the next has not begun: what was condensed meanwhile takes its place, or is begun. */
void compact_between(struct session *s);
/* A request of so many tokens: if that is too much, what is before the newest message is condensed at once. true: it was,
 * render again. */
bool compact_now(struct session *s, const struct model_info *m, int64_t tokens);
void compact_drop(struct agent *a, int64_t session); /* 0: of all. It is not wanted any more; what was asked is booked */
void compact_clear(struct agent *a);                 /* memory only */
size_t compact_running(const struct agent *a);
/* "/history", "/history 50" */
FALLIBLE compact_history(struct agent *a, int64_t session, struct str arg, struct buf *out);

/* provider.c */
FALLIBLE providers_new(struct agent *a, struct fail *f);
void providers_free(struct agent *a);
void providers_read(struct agent *a);                /* the configuration is another */
FALLIBLE providers_check(const struct config *c, struct fail *f);      /* is every instance whole? */
void providers_moved(struct agent *a, struct buf *told);     /* instances that a fresh configuration has or lacks: at the next start */

/* llm.c */
const char *llm_model(struct agent *a);              /* the default model of the default provider */
int64_t llm_max_tokens(struct agent *a, const struct provider *p);
struct str llm_family(struct str model);             /* "claude-opus": its rate limits are shared */
int64_t llm_tokens_estimate(size_t bytes);           /* rough, for the ledger's estimates and for budgets of texts */
int64_t llm_tokens(const struct agent *a, const char *model, size_t bytes);  /* as its provider has counted lately */
/* So many tokens its provider counted for such a prompt. */
void llm_counted(struct agent *a, const char *model, int64_t bytes, int64_t tokens);

/* cost.c */
FALLIBLE cost_load(struct agent *a);                 /* settles what was running, before turns are loaded */

/* context.c */
size_t context_bytes(struct agent *a, const char *budget);   /* of text that such a budget of tokens allows */
/* Says in the log when what begins every request, with so many bytes of prompt, is more than its budget. */
void context_check(struct agent *a, size_t prompt);

/* agent.c */
FALLIBLE agent_prompt(struct agent *a, struct buf *out);   /* the system prompt in force */
/* control.c */
FALLIBLE control_new(struct agent *a, bool listen_too, struct fail *f);
void control_free(struct agent *a);
/* A client on a descriptor that is already connected (shell without a daemon). Takes fd. */
FALLIBLE control_attach(struct agent *a, int fd);
extern const struct channel_ops shell_channel;       /* control.c: conversations over the socket */
/* client.c: the command line's end. ERR_NOTFOUND: no daemon runs on this database. */
FALLIBLE client_connect(const struct config *c, int *fd, struct fail *f);
/* One request line, one answer line; *ok and the answer's tree in ar. Blocking, bounded by CLIENT_US. */
FALLIBLE client_request(int fd, struct str line, struct arena *ar, const struct json **answer, struct fail *f);
/* Loads the configuration and opens the log for a command; on failure prints it and returns its exit code. */
int command_config(const struct command_env *env, enum log_level level, struct config **out);
/* Prints "blufio: " and the reason; returns the exit code that fits. */
int command_failed(const struct fail *f);
int command_usage(const char *text);
FALLIBLE control_socket_path(const char *database_path, char *out, size_t n, struct fail *f);

#endif
