/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * blufio.h - the application's one header, in reading order: limits, features,
 * configuration, store, sessions and turns, model calls, capabilities, cost,
 * outbox, channels, agent, control, commands.
 *
 * Everything here lives on one thread. Objects that outlive a callback are
 * referred to by their row id (int64_t), never by pointer. Whatever a callback
 * writes to the database is committed at the end of its loop turn; whatever
 * cannot be taken back (asking a model, starting a tool, sending a text,
 * acknowledging an update) is put into a struct effect and runs after that
 * commit, or never, when the commit fails.
 */
#ifndef BLUFIO_H
#define BLUFIO_H

#include "base/base.h"
#include "base/db.h"
#include "base/ev.h"
#include "base/fetch.h"
#include "base/http.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/toml.h"
#include "base/work.h"
#include "core/metrics.h"

#define BLUFIO_VERSION "0.1.0"

/* ---- limits: every one has a name, and its reason ---------------------------- */

#define MESSAGE_MAX (1u << 20)          /* bytes of one incoming text: a 5 MB update is refused in words */
#define REPLY_MAX (1u << 20)            /* bytes of visible text of one turn */
#define REQUEST_MAX (32u << 20)         /* the API's own body limit */
#define TURN_ROUNDS_MAX 25              /* model calls in one turn: a loop of tools ends */
#define TURN_DEADLINE_US (1800 * US_PER_S)
#define TURN_DEATHS_MAX 3               /* then the message is set aside (PERS-03) */
#define LLM_ATTEMPTS_MAX 5              /* tries of one model call */
#define LLM_BACKOFF_US (500 * US_PER_MS)
#define LLM_BACKOFF_MAX_US (8 * US_PER_S)
#define LLM_RETRY_AFTER_MAX_US (120 * US_PER_S) /* a longer wait is told to the user instead */
#define LLM_LIMIT_JITTER_US (2 * US_PER_S) /* turns that wait for the same reset spread over this */
#define LLM_FAMILY_MAX 64
#define LLM_POOLS_MAX 8                 /* families of models whose rate limits are kept */
#define LLM_SCALES_MAX 8                /* models of which is known how they count */
#define LLM_IDLE_US (90 * US_PER_S)     /* no byte (the API pings) */
#define LLM_PLAIN_US (60 * US_PER_S)    /* a side question: how many tokens, which models */
#define LLM_COUNT_ABOVE 50000           /* tokens by estimate: such a request is counted before it is made */
#define LLM_ANSWER_MIN 1024             /* tokens: an answer that has no more room is not worth asking for */
#define LLM_BLOCKS_MAX 256              /* content blocks of one answer */
#define TOOL_CALLS_MAX 32               /* parallel tool calls of one answer */
#define TOOL_RESULT_MAX (64u << 10)     /* bytes of a tool's result kept for the model */
#define PARTIAL_SAVE_US US_PER_S        /* partial text reaches the disk at most once a second */
#define ATTACHMENTS_MAX 16              /* of one message; an album has at most ten */
#define ATTACHMENT_BYTES_MAX (20 << 20) /* what Telegram hands out; its base64 fits one request */
#define ATTACHMENT_TRIES 8              /* of bringing one */
#define ATTACHMENT_US (300 * US_PER_S)  /* of one try */
#define ATTACHMENTS_RUNNING_MAX 4       /* brought or transcribed at once; the others wait */
#define ALBUM_QUIET_US US_PER_S         /* after its newest part an album is complete */
#define IMAGE_PIXELS_MAX 8000           /* on a side: the API's limits on pictures */
#define IMAGE_PIXELS_MANY 2000          /* the same when a request has more than IMAGES_MANY */
#define IMAGES_MANY 20
#define TRANSCRIPT_MAX (256u << 10)     /* bytes of text that a voice message may become */
#define TRANSCRIBE_US (120 * US_PER_S)
#define BUTTONS_MAX 16                  /* of one notice */
#define MODELS_US (5 * US_PER_S)        /* /model waits so long for the provider's list */
#define MODELS_FRESH_US (3600 * US_PER_S)
#define MODELS_ASKS_MAX 64              /* conversations that wait for it; the next is told without */
#define SESSIONS_LOADED_MAX 4096        /* conversations with work in memory; more wait on disk */
#define HISTORY_MESSAGES_MAX 2000       /* rows of one request; mostly compaction comes first */
#define PAIR_CODE_US (600 * US_PER_S)   /* life of a pairing code */
#define STRANGERS_HOUR_MAX 20           /* unknown senders answered in an hour */
#define DEDUP_US (48 * 3600 * US_PER_S) /* repeats of an update are known this long */
#define DEDUP_NEWEST 128                /* and of the newest in any case: more than one poll can bring again */
#define CHECKPOINT_IDLE_US (300 * US_PER_MS) /* quiet time before the WAL is folded into the file */
#define WAL_BYTES_MAX (16 << 20)        /* then it is folded in on the loop, quiet or not: about 15 ms */
#define WAL_LOOK 64                     /* commits between two looks at its size */
#define STORAGE_RETRY_US US_PER_S       /* after a failed commit */

/* ---- features: a feature is a file (build/features.c is generated) ------------ */

enum feature_kind { FEATURE_CHANNEL, FEATURE_PROVIDER, FEATURE_STORAGE, FEATURE_TOOL, FEATURE_API, FEATURE_AUTH,
	FEATURE_OBSERVABILITY };

struct agent;
struct config;
struct channel_ops;
struct provider_ops;
struct capability;
struct config_key;
struct route;
struct auth_ops;
struct api_ops;

struct feature {
	const char *name;               /* the file's name */
	enum feature_kind kind;
	const char *summary;            /* one line */
	const struct config_key *keys;  /* ends with a NULL name; may be NULL */
	const struct channel_ops *channel;
	const struct provider_ops *provider;
	const struct db_ops *storage;
	const struct capability *capabilities;  /* ends with a NULL id */
	const struct route *routes;     /* ends with a NULL method: what the gateway answers */
	const struct api_ops *api;      /* of the one route family that works by itself */
	const struct auth_ops *auth;
};
extern const struct feature *const features[];      /* NULL-terminated, sorted by name */
const struct feature *feature_find(enum feature_kind kind, struct str name);  /* core/bus.c */

/* ---- config.c ------------------------------------------------------------------
 * One table of keys. A key name is "section.key"; "pricing.*.input" has a
 * wildcard segment. Values are looked up by name; asking for a name that is in
 * no table is a programming error (assert). */

enum config_type {
	CONFIG_STRING, CONFIG_SECRET, CONFIG_PATH, CONFIG_INT, CONFIG_BOOL,
	CONFIG_ENUM,        /* one of the words of .choices, separated by '|' */
	CONFIG_USD,         /* dollars, at most 9 decimals; value is nano-dollars */
	CONFIG_SECONDS,     /* integer seconds */
	CONFIG_IDS,         /* list of numeric ids */
	CONFIG_ARGV,        /* list of strings: a program and its arguments, or names */
	CONFIG_URL          /* http(s) base address; http only for loopback */
};
struct config_key {
	const char *name;
	enum config_type type;
	const char *dflt;               /* as it would stand in the file; NULL = no default */
	const char *choices;            /* CONFIG_ENUM */
	int64_t min, max;               /* numbers; both 0 = unbounded */
	const char *help;               /* one sentence for docs/CONFIG.md */
	const char *example;            /* for errors; may be NULL */
	const char *env;                /* plain variable that also sets it ("ANTHROPIC_API_KEY"); may be NULL */
	const char *retired;            /* not NULL: key of an earlier release; warns with this text */
	bool fixed;                     /* a reload leaves it as it is until the next start */
	FALLIBLE (*check)(struct str text, struct fail *f);     /* CONFIG_STRING, not empty: what else must hold; f says what does not */
};

/* Finds (path NULL: BLUFIO_CONFIG, then the search list), reads, checks. No file found is fine:
 * defaults and environment. env NULL = the process's environ. Warnings are logged.
 * On error f has file:line:column, the offending text, what is wanted and what to type. */
FALLIBLE config_load(struct config **out, const char *path, const char *const *env, struct fail *f);
/* The same checks for a text that is not yet a file (config set); name stands in messages. */
FALLIBLE config_check(struct str toml, const char *name, struct fail *f);
void config_free(struct config *c);
const char *config_path(const struct config *c);        /* the file in use; NULL when none */
/* The files looked for, one a line, for error texts. */
void config_searched(const struct config *c, struct buf *out);
bool config_has(const struct config *c, const char *key);       /* set by file or environment (not by default) */
/* STRING, PATH, ENUM, URL; NUL-terminated, alive as long as c; STR_NONE when unset */
struct str config_str(const struct config *c, const char *key);
const struct secret *config_secret(const struct config *c, const char *key); /* NULL when unset */
int64_t config_i64(const struct config *c, const char *key);    /* INT, SECONDS, USD (nano); BOOL as 0/1 */
bool config_bool(const struct config *c, const char *key);
size_t config_ids(const struct config *c, const char *key, const int64_t **ids);
/* A program and its arguments, NULL-terminated, at most PROC_ARGS_MAX of them; NULL when unset. */
const char *const *config_argv(const struct config *c, const char *key);
/* Is word (case ignored) in such a list? */
bool config_lists(const struct config *c, const char *key, struct str word);
/* A wildcard key: config_wild(c, "pricing.*.input", model, &v); false when unset. */
bool config_wild(const struct config *c, const char *key, struct str segment, int64_t *v);
/* Of texts and secrets; of a key without a wildcard the segment does not matter. */
struct str config_wild_str(const struct config *c, const char *key, struct str segment);
const struct secret *config_wild_secret(const struct config *c, const char *key, struct str segment);
/* The i-th segment that a wildcard key was given for. */
bool config_segment(const struct config *c, const char *key, size_t i, struct str *segment);
/* A line for each key with .fixed (none is a list) that has another value in fresh. */
void config_fixed(const struct config *now, const struct config *fresh, struct buf *names);
/* Where a value came from: "default", "blufio.toml:3", "BLUFIO__COST__DAILY_BUDGET_USD". */
const char *config_origin(const struct config *c, const char *key);
/* "blufio config set cost.daily_budget_usd 2" – the hint other errors end with. */

/* ---- store.c: the schema and every SQL statement of the program ------------------
 * Functions either return FALLIBLE or, for loads, call back once a row. Times
 * are UTC microseconds. A failed write is sticky in the transaction (db.h). */

struct store;                       /* is the open database; one per agent */

/* Where a text goes: the address of a conversation inside a channel. */
struct target {
	struct str channel;         /* feature name: "telegram", "shell" */
	struct str chat;            /* channel's own id as text */
	struct str thread;          /* topic; may be empty */
	struct str reply_to;        /* channel's message id to answer to; may be empty */
};

enum turn_state {
	TURN_PREPARE,   /* accepted; waits for its session's order and for admission */
	TURN_CALL,      /* about to ask the model, now or at next_at (back-off, rate limit) */
	TURN_STREAM,    /* the model was asked; its answer is arriving */
	TURN_TOOLS,     /* tool calls of the last answer are pending or running */
	TURN_REPLY,     /* the reply is in the outbox; its delivery is awaited */
	TURN_DONE,      /* over; outcome says how */
	TURN_STATE_COUNT
};
const char *turn_state_name(enum turn_state s);

enum turn_outcome {
	OUTCOME_NONE, OUTCOME_ANSWERED, OUTCOME_STOPPED, OUTCOME_FAILED,
	OUTCOME_REFUSED, OUTCOME_NO_BUDGET, OUTCOME_SET_ASIDE,
	OUTCOME_LENGTH,             /* a program's: the answer reached its limit */
	OUTCOME_CALLS,              /* a program's: it waits for the program's own tools */
	OUTCOME_COUNT
};
const char *turn_outcome_name(enum turn_outcome o);

/* STEP_CLIENT: a call of a tool that the asking program has; its result comes with a later message. */
enum step_state { STEP_PENDING, STEP_RUNNING, STEP_DONE, STEP_INTERRUPTED, STEP_CLIENT };
enum outbox_state { OUTBOX_READY, OUTBOX_SENDING, OUTBOX_SENT, OUTBOX_FAILED, OUTBOX_STATE_COUNT };
const char *outbox_state_name(enum outbox_state s);
enum inbound_state { INBOUND_QUEUED, INBOUND_TAKEN, INBOUND_DONE };
enum inbound_kind { INBOUND_MESSAGE, INBOUND_JOB, INBOUND_BATCH };   /* of a person; of a schedule: no word in it acts; of a batch */
enum outbox_kind { OUTBOX_REPLY, OUTBOX_NOTICE };   /* a notice belongs to no turn's REPLY state */


/* ---- session.c: conversations, their order, control words -------------------------- */

/* Something that came with a message. The channel brings its bytes when media.c asks for them. */
enum attachment_kind { ATTACHMENT_IMAGE, ATTACHMENT_DOCUMENT, ATTACHMENT_AUDIO };
struct attachment {
	int64_t id;                 /* its row; 0 in struct inbound */
	enum attachment_kind kind;  /* what the channel takes it for; what it is, its bytes decide */
	struct str source;          /* how the channel finds it again */
	struct str name;            /* of the file, as the sender called it; untrusted; may be empty */
	int64_t bytes;              /* as announced; 0 unknown */
	struct str data;            /* in struct inbound: base64 of the bytes, for a channel that is given them; may be empty */
};
/* One incoming message as a channel hands it over; all views borrowed. */
struct inbound {
	struct target to;           /* where its answer goes */
	struct str sender;          /* channel's numeric id of the person, as text */
	struct str sender_name;     /* for people; untrusted */
	struct str dedup;           /* unique within the channel: repeats are dropped for 48 h */
	struct str ref;             /* channel's id of this message within the chat (for edits); may be empty */
	struct str text;            /* valid UTF-8, at most MESSAGE_MAX bytes; blank only with attachments */
	int64_t sent_at;            /* by the channel's clock, us; 0 unknown */
	const struct attachment *attachments;   /* at most ATTACHMENTS_MAX */
	size_t n_attachments;
	struct str album;           /* messages of a chat that share it are parts of one; may be empty */
	int64_t position;           /* of this part among them */
	struct str options;         /* what a program asks for beside its words: JSON (api/compat/talk.c); may be empty */
	struct str digest;          /* of the conversation as the program told it; may be empty */
	const struct trace *trace;  /* of the request that brought it; NULL: its turn gets a new one */
	enum inbound_kind kind;
};
/* Stores the message in this loop turn's transaction and schedules its session; control words
 * (/stop, /new, /model, /help, /start) act at once. *fresh = false for a repeat (then nothing happened).
 * The channel may acknowledge only in an effect (after the commit). */
FALLIBLE inbound_put(struct agent *a, const struct inbound *in, bool *fresh);
/* Stores that it came, no more: the channel itself says what there is to say, in this transaction. Its text and
 * attachments may be empty. */
FALLIBLE inbound_seen(struct agent *a, const struct inbound *in, bool *fresh);
/* The sender corrected message ref: replaces the text when its turn has not begun; *applied tells. */
FALLIBLE inbound_edit(struct agent *a, const struct target *to, struct str ref, struct str text, bool *applied);
/* The channel has given a chat another id: its conversations, waiting messages and replies go on there. Where the
 * new chat already has a conversation of the same topic, that one goes on; what waits joins it. */
FALLIBLE session_moved(struct agent *a, struct str channel, struct str from, struct str to);
/* /stop by other means (the draft's stop button, Ctrl-C in shell): the session's running turn ends. */
void session_stop(struct agent *a, const struct target *to);
/* Is this sender paired (by `blufio pair`)? Configuration allowlists are the channel's own. */
bool access_paired(struct agent *a, struct str channel, struct str sender);
/* A stranger wrote: *told is false when he was told already or the hourly limit is reached; else
 * code holds a fresh pairing code ("K7QM-2P9D", 10 minutes) to be told. */
FALLIBLE access_offer(struct agent *a, struct str channel, struct str sender, struct str name,
    char code[16], bool *told);

/* ---- media.c: pictures, documents, voice ---------------------------------------------
 * An attachment is a row from the moment its message is stored: wanted, then ready or
 * failed. Its turn waits in PREPARE until none is wanted. Bytes live in files named by
 * their SHA-256 in <database>.media, up to storage.media_quota; rows hold references:
 *   {"type":"image","source":{"type":"media","media_type":"image/png","hash":"…"}}
 * and the same with "document", where "title" may stand beside source. The provider
 * puts the bytes in their place while the request is sent. */

/* For channels, after fetch() of channel_ops was called for attachment id. Bytes as they come:
 * anything but OK ends it (too much, disk full), the channel just stops. Then one media_end. */
FALLIBLE media_data(struct agent *a, int64_t id, struct str bytes);
/* OK: all bytes are there. Else why it failed, for people; again: it may work later, in wait_us
 * (-1: by the usual back-off). */
void media_end(struct agent *a, int64_t id, enum err e, struct str why, bool again, int64_t wait_us);
/* The bytes are a file of this machine already (a local Bot API server's): copied. Ends it. */
void media_take_file(struct agent *a, int64_t id, const char *path);
/* For providers: where the bytes of a hash are. */
FALLIBLE media_path(struct agent *a, struct str hash, struct buf *path);

/* ---- turn.c: the machine (its states' table: docs/DESIGN.md) -------------------------- */

/* What a channel learns while a turn runs. Hints, not facts: never written, never awaited. */
enum partial_what {
	PARTIAL_BEGIN,      /* the model is about to be asked: show that work goes on */
	PARTIAL_TEXT,       /* text grew; .text is all visible text so far, .delta what is new */
	PARTIAL_TOOL,       /* a tool runs; .tool is its id */
	PARTIAL_RESTART,    /* the text shown so far is void; it will come again */
	PARTIAL_END         /* no more partials of this turn (its reply, if any, follows by send) */
};
struct partial {
	enum partial_what what;
	int64_t turn, session;
	struct target to;
	struct str text, delta, tool;
	struct str ref;     /* what the channel stored with turn_set_ref, empty if nothing */
};
/* The channel's id of the message it shows partial text in. "?" is written (and committed)
 * before that message is sent, its id when known; survives restarts, is handed to send() as
 * edit_ref. Unknown turn: ignored. */
void turn_set_ref(struct agent *a, int64_t turn, struct str ref);
/* Back-pressure: the channel cannot take more text of this turn / can again. */
void turn_pause(struct agent *a, int64_t turn, bool paused);

/* ---- llm.c: provider-neutral request, stream assembly, retry classes --------------------- */

struct model_info {
	const char *id;             /* exact; ends a list when NULL; of a family the newest first */
	int64_t window, max_output; /* tokens */
	int64_t cache_min;          /* the shortest prefix that is cached, tokens */
	int64_t images_max;         /* pictures of one request; 0 = it takes none */
	/* nano-dollars per token: 1 USD per million tokens = 1000 */
	int64_t in, out, write_5m, write_1h, read;
	/* A second price band for prompts above band_above tokens (0 = none): its prices are the
	 * first band's times band_factor. */
	int64_t band_above, band_factor;
	unsigned flags;
};
enum {
	MODEL_PDF = 1,              /* takes PDFs */
	MODEL_SYSTEM_TURNS = 2,     /* takes role system in messages */
	/* what it takes as the type of `thinking` */
	MODEL_ADAPTIVE = 4, MODEL_BUDGET = 8, MODEL_DISABLED = 16, MODEL_BETWEEN_TOOLS = 32,
	MODEL_SILENT = 64,          /* its thinking comes empty unless a summary is asked for */
	MODEL_BOUND = 128,          /* its thinking is valid after the same prefix only, for it alone */
	MODEL_WINDOW = 256          /* its window is known: what is larger is refused, and costs nothing */
};

struct usage {
	int64_t input, output, cache_read, write_5m, write_1h;  /* tokens */
};
enum llm_stop {
	LLM_STOP_NONE, LLM_STOP_END, LLM_STOP_TOOLS, LLM_STOP_MAX_TOKENS, LLM_STOP_SEQUENCE,
	LLM_STOP_PAUSE, LLM_STOP_REFUSAL, LLM_STOP_WINDOW
};
struct llm_message {
	const char *role;
	struct str content;                 /* JSON array of blocks */
	bool media;                         /* some refer to files (media.c) */
};
struct llm_request {
	const char *model;
	int64_t max_tokens;
	struct str system;                  /* plain text */
	const struct llm_message *messages;
	size_t n_messages;
	/* tools are the registry's, sorted by id (bus_tools_json) */
	struct str tools;                   /* JSON array of {name, description, input_schema}; empty = none */
	bool hour;                          /* what is cached is kept for an hour, not five minutes */
	bool once;                          /* it will not come again: nothing is cached */
	int64_t reservation;                /* cost_reserve()'s: without one nothing is asked */
	struct str trace;                   /* traceparent, for the provider's log; may be empty */
	struct str stop;                    /* JSON array of texts that end the answer; empty = none */
	struct str schema;                  /* JSON Schema of the answer; empty = none */
	struct str effort;                  /* low, medium, high, xhigh, max; empty = the model's own */
	bool no_tools, one_call;            /* it may use none of them; one at a time */
};
/* How a failed call is to be treated. */
enum llm_class {
	LLM_OK, LLM_RETRY,                  /* transient: back off and ask again */
	LLM_BAD_KEY, LLM_BILLING, LLM_BAD_MODEL, LLM_TOO_LARGE,
	LLM_BAD_REQUEST,                    /* our mistake: told, not retried */
	LLM_THINKING,                       /* thinking blocks refused: ask once more without them */
	LLM_GONE                            /* cancelled */
};
struct llm_result {
	enum llm_class class;
	enum llm_stop stop;
	struct str content;                 /* JSON array of complete blocks, as to be replayed */
	struct usage usage;
	bool usage_known;                   /* usage is the provider's final word */
	bool billed;                        /* the provider may have begun: whatever failed, it costs */
	int64_t retry_after_us;             /* -1 = not said */
	unsigned status;
	struct str detail;                  /* provider's own words, scrubbed, short; why it refused */
	struct str request_id;
};
/* One of a provider's rate limits, as of an answer. */
enum { LIMIT_REQUESTS, LIMIT_TOKENS, LIMIT_INPUT, LIMIT_OUTPUT, LLM_LIMITS };
struct llm_limit {
	int64_t limit, remaining;           /* -1 = not said */
	int64_t reset_us;                   /* fed: from now; kept: monotonic time */
};
struct llm_pool {                           /* models that share their limits: a family, by its name */
	char family[LLM_FAMILY_MAX];
	int64_t fed_at;                     /* monotonic; 0 = free */
	struct llm_limit of[LLM_LIMITS];
};
struct llm_scale { char model[LLM_FAMILY_MAX]; double bytes, tokens; };   /* of its newest long prompts */
struct llm_call;                            /* one call in flight (core/llm.c) */
struct llm_sink {
	void (*text)(void *arg, struct str delta);
	void (*done)(void *arg, const struct llm_result *r);   /* once, from the loop; the call is freed after it */
};
typedef void llm_count_fn(void *arg, int64_t tokens);       /* -1: nobody knows */
typedef void llm_list_fn(void *arg, struct str models);     /* JSON [["id","name for people"],…]; empty: not to be had */
struct provider_ops {
	const struct model_info *models;    /* what is known with prices; NULL-id terminated */
	/* A wildcard key: each segment it is given for is an instance of this provider, named so. NULL: there is one. */
	const char *instances;
	/* Config keys of the default model, the longest answer, the key; of instances wildcards. */
	const char *default_model_key, *max_tokens_key, *api_key;
	/* Can it be used (each instance)? On false why names what is missing and how to give it. */
	bool (*configured)(const struct config *c, struct fail *why);
	/* What the configuration says of an instance's models; [pricing] goes before it. */
	void (*describe)(const struct config *c, struct str name, struct model_info *m);
	FALLIBLE (*start)(struct agent *a, const char *name, void **self, struct fail *f);      /* name lives as long */
	void (*free)(void *self);
	/* Begins the exchange; answers arrive through llm_feed_* on call. Sets *op for cancel/pause. */
	FALLIBLE (*call)(void *self, const struct llm_request *r, struct llm_call *call, void **op);
	/* How many input tokens r has; which models there are. May be NULL. Free of charge; fn is called
	 * once, from the loop, when op is gone already; never after cancel. */
	FALLIBLE (*count)(void *self, const struct llm_request *r, llm_count_fn *fn, void *arg, void **op);
	FALLIBLE (*list)(void *self, llm_list_fn *fn, void *arg, void **op);
	void (*cancel)(void *op);           /* no feed after it; frees op */
	void (*pause)(void *op, bool paused);
	bool offline;                       /* never leaves the machine; costs nothing */
	bool bills_refusals;                /* of which not a word was said, too */
};
/* How calls have gone since the start, for `status`. */
struct provider_health {
	int64_t calls, failures;
	int64_t answered_at;                /* the newest complete answer, UTC us; 0 none yet */
	bool failing;                       /* the newest call failed */
	char problem[160];                  /* its reason, scrubbed */
};
/* ---- provider.c: those in use ------------------------------------------------------------------- */

#define PROVIDERS_MAX 8
#define BREAKER_FAILURES 5                  /* calls in a row that failed: then it is not asked for a while */
#define BREAKER_OPEN_US (5 * US_PER_S)
#define BREAKER_OPEN_MAX_US (300 * US_PER_S)
#define BREAKER_WAIT_US (15 * US_PER_S)     /* a call waits so long in all for one to be tried; beyond, it is told */
#define FALLBACK_AFTER 2                    /* failures of a call before another provider gets it */
struct provider {
	const struct feature *feature;
	void *self;
	char name[32];                      /* of the feature, or of the instance */
	char model[128];                    /* its default model */
	struct provider_health health;
	int failures;                       /* in a row */
	int64_t open_for, open_until;       /* monotonic; open_for 0: it may be asked */
	bool probing;                       /* the one call that tries it runs */
	bool told;                          /* people know that another answers */
};
/* "NAME/x": NAME's; else whose table has it; else the default. */
struct provider *provider_of(struct agent *a, struct str model);
struct str provider_model(const struct provider *p, struct str model);      /* as it calls it itself */
/* A key of its ops, for people: its name in place of the wildcard. */
void provider_key(const struct provider *p, const char *key, char out[96]);
/* The model to ask instead of wanted: itself when it can be, else the first of providers.fallback that has a price and
 * can be. Bits of avoid are places in this chain (wanted is 0). NULL: none can. */
const char *provider_choose(struct agent *a, const char *wanted, unsigned avoid);
/* The places that a failure of model rules out: it alone, or all of its provider's. */
unsigned provider_failed(struct agent *a, const char *wanted, const char *model, bool alone);
int64_t provider_wait(struct agent *a, const char *wanted);        /* until one of the chain may be asked */
bool provider_ready(const struct provider *p);      /* may it be asked? */
bool provider_asked(struct provider *p);            /* is this the call that tries it? */
void provider_ended(struct provider *p, bool probe, bool good, bool its_fault);

FALLIBLE llm_start(struct agent *a, const struct llm_request *r, const struct llm_sink *sink, void *arg,
    struct llm_call **out);
void llm_cancel(struct llm_call *c, struct usage *seen);   /* NULL ok; *seen (may be NULL) = what is known so far */
void llm_pause(struct llm_call *c, bool paused);
/* For providers: what the stream said, in order. */
/* Last seen wins, field by field; -1 = not said. final: it is all that the call is billed for. */
void llm_feed_usage(struct llm_call *c, const struct usage *u, bool final);
void llm_feed_block(struct llm_call *c, size_t index, struct str type, struct str id, struct str name, struct str raw);
void llm_feed_text(struct llm_call *c, size_t index, struct str delta);
void llm_feed_thinking(struct llm_call *c, size_t index, struct str delta);
void llm_feed_signature(struct llm_call *c, size_t index, struct str signature);
void llm_feed_input(struct llm_call *c, size_t index, struct str json_piece);
void llm_feed_citation(struct llm_call *c, size_t index, struct str json);
void llm_feed_compaction(struct llm_call *c, size_t index, struct str text);
void llm_feed_block_end(struct llm_call *c, size_t index);
void llm_feed_stop(struct llm_call *c, enum llm_stop stop, struct str detail);
void llm_feed_unsent(struct llm_call *c);   /* nothing of the question can have reached the provider: it costs nothing */
/* Ends the call: LLM_OK after a complete message, else the class of failure. status 0: no answer came. */
void llm_feed_end(struct llm_call *c, enum llm_class class, unsigned status, int64_t retry_after_us,
    struct str detail, struct str request_id);
/* Of each answer, as soon as it begins. */
void llm_feed_limits(struct llm_call *c, const struct llm_limit l[LLM_LIMITS]);
/* How long a call with so many new input tokens has to wait for the provider's rate limits; 0: not at all. */
int64_t llm_limits_wait(struct agent *a, const char *model, int64_t input);
void llm_limits_take(struct agent *a, const char *model, int64_t input);    /* it is made: until its answer says better */
/* Of the headers retry-after-ms and retry-after (fractions are seen in the wild); -1 when absent or absurd. */
int64_t llm_retry_after(struct str ms, struct str s);
/* attempt 1.. -> wait before the next one, jitter included (reference: SDK policy). */
int64_t llm_backoff_us(unsigned attempt, int64_t retry_after_us);

/* ---- context.c: rows -> request ------------------------------------------------------------ */

struct context {
	struct arena arena;
	struct llm_request request;
	int64_t estimated_input;            /* tokens */
	int64_t most_input;                 /* of them: an upper bound, but for documents */
	bool documents;                     /* it holds PDFs that nobody has counted yet: their tokens cannot be guessed */
	int64_t bytes, file_tokens;         /* all but the files; these */
	int64_t own_bytes;                  /* of them: what is neither the person's nor history: prompt, tools, what is told beside */
};
/* Renders the session's history up to now. drop_thinking: without any thinking block. ERR_LIMIT with
 * a sentence when the model or the API would refuse it: too many or too large pictures, too many bytes. */
FALLIBLE context_render(struct agent *a, int64_t session, const struct model_info *model, bool drop_thinking,
    struct context *out, struct fail *f);
void context_free(struct context *c);

/* ---- bus.c: capabilities ---------------------------------------------------------------------- */

enum { CAP_HARMLESS = 1 };              /* reads nothing private, changes nothing */
struct invocation;
struct capability {
	const char *id;                     /* "time.now"; the model sees time_now */
	const char *description;
	const char *input;                  /* JSON Schema of the input, as text */
	const char *output;                 /* JSON Schema of the output */
	int64_t deadline_us;
	unsigned flags;
	/* Ends with invocation_done, at once or later. */
	void (*run)(struct invocation *inv, const struct json *input);
};
typedef void invoke_fn(void *arg, struct invocation *inv, enum err err, struct str output);
FALLIBLE bus_new(struct agent *a);
void bus_free(struct agent *a);
const struct capability *bus_find(struct agent *a, struct str id_or_tool_name);
struct str bus_tools_json(struct agent *a);   /* for the model: sorted, byte-stable */
/* One pipeline: permit, validate the input, run with a deadline, validate the output, account.
 * fn comes from the loop, once. output is JSON, or on error a sentence for the model. */
FALLIBLE bus_invoke(struct agent *a, struct str id, struct str input, int64_t session, int64_t turn,
    invoke_fn *fn, void *arg, struct invocation **out);
void invocation_cancel(struct invocation *inv);
void invocation_done(struct invocation *inv, enum err err, struct str output);
struct agent *invocation_agent(const struct invocation *inv);
int64_t invocation_session(const struct invocation *inv);

/* ---- cost.c: the ledger --------------------------------------------------------------------------- */

/* Price of a model, configuration first. ERR_NOTFOUND with the line that would price it. */
FALLIBLE cost_model(struct agent *a, const char *model, struct model_info *out, struct fail *f);
int64_t cost_of(const struct model_info *m, const struct usage *u);   /* nano-dollars */
enum cost_feature { COST_MESSAGE, COST_TOOL, COST_COMPACTION, COST_EXTRACTION, COST_HEARTBEAT, COST_JOB, COST_API, COST_BATCH,
	COST_DELEGATE };
struct cost_order {
	enum cost_feature feature;
	int64_t session, turn, user;    /* 0: of none */
	const struct model_info *model;
	const char *intended;           /* the model that was wanted; NULL: this one */
	int64_t input;                  /* tokens of the prompt: an upper bound */
	int64_t answer;                 /* max_tokens; lowered to what the caps leave */
	bool hour;                      /* may write cache entries of one hour */
	int64_t again;                  /* after ERR_LIMIT: when the cap that refused is new */
};
/* Before every call. ERR_LIMIT with what was spent, when it resets and how to raise it; ERR_BUSY when only what other
 * calls have reserved is in the way: it may fit in a moment. */
FALLIBLE cost_reserve(struct agent *a, struct cost_order *o, int64_t *id, struct fail *f);
/* What the caps leave to it, without what is reserved. ERR_LIMIT: nothing for now, or all is paused; ERR_DENIED: a cap is 0;
 * f has the sentence. */
FALLIBLE cost_left(struct agent *a, enum cost_feature feature, int64_t *nano, struct fail *f);
/* After it: known when u is the provider's final word, else it is what came before the call was cut (NULL: nothing). */
FALLIBLE cost_settle(struct agent *a, int64_t id, const struct usage *u, bool known, struct str request_id);
FALLIBLE cost_release(struct agent *a, int64_t id);                   /* it was never made, or is not billed */
/* Every call of every spender ends and none is made, over restarts, until it is lifted. */
FALLIBLE cost_pause(struct agent *a, bool paused);
struct cost_room { const char *key, *what; int64_t cap, spent, reserved, from, to; };  /* to 0: there is no such cap */
FALLIBLE cost_cap(struct agent *a, size_t i, struct cost_room *r);    /* the i-th cap; ERR_NOTFOUND behind the last */
/* cost_report.c: an object of caps, today and month; and the same in words. */
FALLIBLE cost_report(struct agent *a, struct jw *w);
void cost_text(const struct json *report, struct buf *out);
int64_t cost_today(struct agent *a);                                  /* nano-dollars since 00:00 UTC */
void cost_usd(int64_t nano, char out[32]);                            /* "$0.0123" */

/* ---- outbox.c: replies on their way out ------------------------------------------------------------ */

/* A row as its channel gets it. A reply is one row however many messages it becomes:
 * part and format are the channel's progress, kept in the row. */
struct outbox_item {
	int64_t id, turn, session;
	struct target to;
	struct str text;            /* Markdown as the model wrote it */
	struct str edit_ref;        /* id of the placeholder that the first part replaces; may be empty */
	struct str format;          /* channel's word for how it is being sent; empty at first */
	int64_t part;               /* parts already confirmed */
	bool repeated;              /* may have been sent before: its next part begins with a line that says so */
	int64_t attempts;
	enum outbox_kind kind;
	struct str buttons;         /* JSON [["label","/word"],…], at most BUTTONS_MAX; may be empty */
};
FALLIBLE outbox_put(struct agent *a, enum outbox_kind kind, int64_t session, int64_t turn,
    const struct target *to, struct str text, struct str edit_ref);
/* A notice with words to choose from: each is sent as if it had been typed. */
FALLIBLE outbox_put_buttons(struct agent *a, int64_t session, const struct target *to, struct str text, struct str buttons);
/* From the channel, after send() was called for item id. Each writes the row in this loop turn's
 * transaction; the next send() of that conversation comes after its commit. */
void outbox_part_done(struct agent *a, int64_t id, struct str external_id, int64_t part, struct str format); /* more parts follow */
void outbox_done(struct agent *a, int64_t id, struct str external_id);
/* Can it have arrived? DOUBT_NONE: nothing of it, whatever its row said before. */
enum doubt { DOUBT_AS_BEFORE, DOUBT_MAYBE_SENT, DOUBT_NONE };
void outbox_retry(struct agent *a, int64_t id, int64_t delay_us, enum doubt doubt, struct str format, struct str why);
void outbox_fail(struct agent *a, int64_t id, struct str why);          /* will never be deliverable */
/* Nobody is there to take it: it waits until outbox_unpark of its conversation. */
void outbox_park(struct agent *a, int64_t id);
void outbox_unpark(struct agent *a, const struct target *to);

/* ---- channels ------------------------------------------------------------------------------------------ */

struct channel_ops {
	/* Does the configuration ask for this channel? */
	bool (*wanted)(const struct config *c);
	FALLIBLE (*start)(struct agent *a, void **self, struct fail *f);
	/* Forget all state in memory, read it anew from rows, begin intake. Called after start
	 * and again after a failed commit. */
	void (*load)(void *self);
	void (*stop_intake)(void *self);     /* drain: no new messages; sending goes on */
	/* Drop everything in flight (before load, and at the end). No callback after it. */
	void (*reset)(void *self);
	void (*free)(void *self);
	/* Bring the bytes of an attachment: media_data, then media_end. Called once a try. */
	void (*fetch)(void *self, const struct attachment *at);
	void (*fetch_cancel)(void *self, int64_t id);   /* nothing more of it; no media_end */
	const char *transcribe_key;          /* CONFIG_ARGV key: what turns its voice messages into text; NULL none */
	/* Deliver one outbox item (its row is committed as sending): ends with one outbox_* call. */
	void (*send)(void *self, const struct outbox_item *item);
	void (*partial)(void *self, const struct partial *p);
	void (*paused)(void *self);          /* calls that it has made end; may be NULL */
	/* For `status`: members of an object already open: state, last_poll_age_s, detail … */
	void (*status)(void *self, struct jw *w);
};

/* ---- the gateway's routes and who may use them -------------------------------------------------------------
 * A feature brings a table of routes. The gateway (channel/gateway.c) reads the request,
 * finds the route, asks who it is from, checks the scope, and only then reads the body. */

/* SCOPE_OPEN wants no credential; beside another scope it does so only while nobody but this machine can reach the
 * gateway and prometheus.require_auth is off. ROUTE_FILES stands among a route's scopes: its body has up to
 * BODY_MAX_FILES. */
enum { SCOPE_CHAT = 1, SCOPE_READ = 2, SCOPE_TOOLS = 4, SCOPE_ADMIN = 8, SCOPE_ALL = 15, SCOPE_OPEN = 16,
	ROUTE_FILES = 32 };
#define BODY_MAX_API (2u << 20)         /* bytes of a request's body: a message of MESSAGE_MAX, escaped */
#define BODY_MAX_FILES (8u << 20)       /* the same where files come as base64: one of the largest that Claude takes */

/* Whoever a credential stands for. */
struct principal {
	int64_t id;                     /* row of api_keys; 0: nobody */
	unsigned scopes;
	int64_t login;                  /* row of logins: a browser's session; 0: none */
	int64_t expires_at;             /* 0: never */
	bool hashed;                    /* body_hash is what the body must have: the signature covers it */
	unsigned char body_hash[32];
};
struct request;                         /* being answered; see channel/gateway/gateway.h for what is inside */
struct route {
	const char *method, *path;      /* "/v1/sessions/{id}/messages": a segment in braces is any */
	unsigned scope;                 /* any of these suffices */
	void (*run)(struct request *r); /* once the body is there: answers now or later, once */
	const char *summary;            /* for /openapi.json */
};
struct agent *request_agent(const struct request *r);
const struct http_request *request_head(const struct request *r);
const struct principal *request_principal(const struct request *r);
struct str request_body(const struct request *r);
/* The body as an object with no member but those named ("content session_id?": ? may be absent), each a string
 * unless marked ("n:i" integer, "x:a" array, "x:b" boolean, "x:o" object). NULL: the error is answered. */
const struct json *request_object(struct request *r, struct arena *ar, const char *members);
struct str request_segment(const struct request *r, size_t i);  /* what stands for the i-th braces, decoded */
/* An answer of JSON. Of what was written in this loop turn nothing is told before it is committed: the answer waits
 * for it, and is 503 when the commit fails. */
void request_answer(struct request *r, int status, struct str json);
/* The same of another type. */
void request_answer_text(struct request *r, int status, const char *content_type, struct str body);
/* The JSON that b holds, unless e, or b's own error, says that it could not be made: then request_failed. */
void request_answer_buf(struct request *r, int status, enum err e, const struct buf *b);
/* 503, with what e means for who asked. */
void request_failed(struct request *r, enum err e);
/* The same for what changes with the program alone: clients keep it and ask whether theirs is still good (304). */
void request_answer_static(struct request *r, const char *content_type, struct str body);
/* The error shape. type is a word of docs/API.md; param and hint may be NULL. */
void request_error(struct request *r, int status, const char *type, const char *param, const char *hint,
    const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* The same with further fields, whole lines, in place of "Cache-Control: no-store". */
void request_answer_raw(struct request *r, int status, const char *type, struct str fields, struct str body);
/* What this request wrote ends credentials or sessions: with its commit all connections end that have one of them. */
void request_revokes(struct request *r);

/* The name of a browser's session. Of one that was opened by a name of this machine, where browsers have no TLS, the
 * cookie has neither the prefix, by which browsers keep neighbours' hands off it, nor Secure. */
#define SESSION_COOKIE "__Host-blufio_session"
#define SESSION_COOKIE_LOOPBACK "blufio_session"

struct auth_ops {
	FALLIBLE (*start)(struct agent *a, void **self, struct fail *f);
	void (*free)(void *self);
	/* Who sent it, by its head alone. ERR_AUTH: nobody we know (f says what is wrong), ERR_DENIED: a browser's
	 * session, but not a page that may use it, ERR_LIMIT: too many wrong tries or requests, *wait_s says how
	 * long. peer: the address it came from. */
	FALLIBLE (*check)(void *self, const struct http_request *r, struct str peer, struct principal *out,
	    int64_t *wait_s, struct fail *f);
};

/* ---- agent.c: start, loop turn, drain, recovery ----------------------------------------------------------- */

/* Something that cannot be taken back. Embed; zero-initialise. Runs after the commit of the
 * loop turn it was queued in; dropped when that commit fails. */
struct effect {
	void (*run)(struct effect *e);
	struct effect *next, **prev;
	struct effects *list;                /* not NULL means queued */
};
struct effects { struct effect *head, **tail; };

struct channel {                             /* a started channel */
	const struct feature *feature;
	void *self;
};
enum agent_phase { AGENT_STARTING, AGENT_READY, AGENT_STORAGE_FAILED, AGENT_DRAINING, AGENT_STOPPED };

struct agent {
	struct config *config;
	struct ev *ev;
	struct fetch *fetch;
	struct work *work;
	struct procs *procs;                 /* NULL when no spawner was started */
	struct db *db;
	enum agent_phase phase;
	int64_t started_at;                  /* UTC us */
	char name[64];
	/* owned by the named files */
	struct sessions *sessions;           /* session.c */
	struct turns *turns;                 /* turn.c */
	struct outbox *outbox;               /* outbox.c */
	struct media *media;                 /* media.c */
	struct models *models;               /* model.c */
	struct bus *bus;                     /* bus.c */
	struct compaction *compactions;      /* compact.c */
	struct control *control;             /* control.c */
	struct provider providers[PROVIDERS_MAX];    /* provider.c */
	size_t n_providers;
	struct provider *provider;           /* the default one */
	struct llm_pool pools[LLM_POOLS_MAX];        /* llm.c: rate limits */
	struct llm_scale scales[LLM_SCALES_MAX];
	size_t llm_calls;                    /* in flight */
	struct metrics metrics;              /* metrics.c */
	bool paused;                         /* cost.c: no model is asked */
	struct ev_timer jobs_timer;          /* jobs.c: for the next look at what is due */
	int64_t jobs_looked_at;              /* UTC */
	struct heartbeat *heartbeat;         /* heartbeat.c */
	struct channel channels[8];
	size_t n_channels;
	struct effects after;                /* wait for a durable commit */
	struct effects soon;                 /* wait for any commit */
	bool durable_owed;                   /* a light commit was made; effects still wait */
	bool write_failed;                   /* a statement of this loop turn failed: roll back, reload */
	struct effect load_again;
	bool load_owed;                 /* load_again waits for the sends under way */
	struct ev_defer again;               /* one more loop turn without waiting */
	struct ev_timer retry_timer, drain_timer, checkpoint_timer, housekeeping_timer;
	struct checkpoint *checkpoint;
	char *database_path;
	int lock_fd;
	int exit_code;
	char storage_problem[256];           /* words of the failed commit, "" when fine */
	uint64_t failed_commits;
};

/* Opens the database (lock, migrations), provider, channels, control socket; recovers. */
FALLIBLE agent_new(struct agent **out, struct config *config, const struct spawner *sp, bool with_channels, struct fail *f);
FALLIBLE agent_run(struct agent *a);         /* until drained; the exit code is in a->exit_code */
void agent_drain(struct agent *a);           /* first SIGTERM */
/* Reads the configuration again; told says what changed at once and what waits for a restart. */
FALLIBLE agent_reload(struct agent *a, struct buf *told, struct fail *f);
void agent_free(struct agent *a);            /* the configuration too */
void agent_after(struct agent *a, struct effect *e);        /* queue an effect */
/* Runs after the commit of this loop turn even if that commit is light: survives the death of
 * the process but not yet a power cut. Asking for it makes the commit light (no fdatasync): the
 * next loop turn, which follows at once, goes on and makes both durable. This is how a message is
 * on disk before anything works on it, for the price of one fdatasync. */
void agent_soon(struct agent *a, struct effect *e);
/* Memory is rebuilt from the rows after a commit, as soon as no send is under way: for the rare change that touches
 * all of it. What runs is taken up again as after a start. */
void agent_load_again(struct agent *a);
/* Every statement's result passes here: a failure undoes the loop turn and rebuilds memory from rows. */
void agent_wrote(struct agent *a, enum err e);
void effect_cancel(struct effect *e);                        /* queued or not */
const struct channel *agent_channel(struct agent *a, struct str name);   /* NULL when not running */
/* status.c. State in memory as JSON: compared by tests with what a fresh start loads. */
void status_dump(struct agent *a, struct buf *out);
void status_json(struct agent *a, struct buf *out);          /* CLI-02 */
/* systemd, without its library: "READY=1" …; does nothing when not asked. */
void notify_systemd(const char *text);

/* ---- commands: argv -> table (blufio.c) --------------------------------------------------------------------- */

struct command_env {                         /* what main hands to a command */
	struct spawner *spawner;             /* fd -1 when the command wants none */
	const char *config_path;             /* --config, or NULL */
	bool json;                           /* --json */
};
struct command {
	const char *name;
	const char *usage;                   /* arguments */
	const char *summary;
	int (*run)(const struct command_env *env, int argc, char **argv);  /* argv[0] is the command's name */
	bool spawner;                        /* fork the spawner before anything else */
};
int cmd_serve(const struct command_env *env, int argc, char **argv);
int cmd_shell(const struct command_env *env, int argc, char **argv);
int cmd_status(const struct command_env *env, int argc, char **argv);
int cmd_config(const struct command_env *env, int argc, char **argv);
int cmd_pair(const struct command_env *env, int argc, char **argv);
int cmd_log(const struct command_env *env, int argc, char **argv);
int cmd_stop(const struct command_env *env, int argc, char **argv);
int cmd_cost(const struct command_env *env, int argc, char **argv);
int cmd_pause(const struct command_env *env, int argc, char **argv);
int cmd_reload(const struct command_env *env, int argc, char **argv);
int cmd_dump(const struct command_env *env, int argc, char **argv);
int cmd_version(const struct command_env *env, int argc, char **argv);

#endif
