/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * metrics.h - what the agent counts about itself (metrics.c), and how an exporter
 * reads it.
 *
 * A family has one cell a series; a series is a combination of label values, and
 * those come from fixed sets: never a user, a chat, a conversation. All of them
 * are there from the start, at 0.
 */
#ifndef BLUFIO_METRICS_H
#define BLUFIO_METRICS_H

#include "base/base.h"

#define METRIC_CELLS 384                /* metrics.c checks that the families fit */
#define METRIC_CHANNELS_MAX 8           /* as many as an agent has */
#define METRIC_MODELS_MAX 32            /* names of models; the others are counted together as "other" */
#define METRIC_MODEL_MAX 128            /* bytes of such a name */
#define METRIC_BOUNDS 12                /* of a histogram; above the last there is one bucket more */
#define METRIC_UNKNOWN INT64_MIN        /* a gauge that this system does not tell */

enum metric {
	METRIC_MESSAGES,        /* channel */
	METRIC_TURNS,           /* outcome */
	METRIC_DELIVERIES,      /* enum metric_delivery */
	METRIC_TOKENS,          /* model, enum metric_tokens */
	METRIC_COST,            /* model */
	METRIC_CALLS,           /* enum llm_class */
	METRIC_ERRORS,          /* enum metric_error */
	METRIC_REQUESTS,        /* the first digit of the answer's status, less 1 */
	METRIC_LIMITS,          /* enum metric_limit */
	METRIC_COMPACTIONS,     /* enum metric_compaction */
	METRIC_UNASKED,         /* enum metric_unasked */
	METRIC_PROMPTS, METRIC_OVERHEAD,        /* enum tier, less 1 */
	METRIC_RESPONSE, METRIC_FIRST_TOKEN, METRIC_CALL, METRIC_TOOL, METRIC_COMMIT,   /* histograms */
	METRIC_CONNECTIONS,     /* enum metric_connection: a gauge that the gateway keeps */
	/* taken by metrics_gather */
	METRIC_SESSIONS, METRIC_QUEUES, METRIC_CACHE,
	METRIC_RESIDENT, METRIC_FDS, METRIC_FDS_MAX, METRIC_CPU, METRIC_START, METRIC_BUILD,
	METRIC_COUNT
};
enum metric_delivery { DELIVERY_SENT, DELIVERY_RETRIED, DELIVERY_FAILED, DELIVERY_COUNT };
enum metric_tokens { TOKENS_INPUT, TOKENS_OUTPUT, TOKENS_CACHE_READ, TOKENS_CACHE_WRITE, TOKENS_COUNT };
enum metric_compaction { COMPACTION_ARITHMETIC, COMPACTION_MODEL, COMPACTION_FAILED, COMPACTION_COUNT };
enum metric_error { METRIC_ERR_STORAGE, METRIC_ERR_MODEL, METRIC_ERR_TOOL, METRIC_ERR_DELIVERY, METRIC_ERR_COUNT };
enum metric_unasked { UNASKED_JOB, UNASKED_MISSED, UNASKED_SAID, UNASKED_SILENT, UNASKED_FAILED, UNASKED_COUNT };

enum { REQUEST_CLASSES = 5 };
enum metric_connection { CONNECTION_KNOWN, CONNECTION_STRANGER, CONNECTION_COUNT };
/* Limits of the gateway: whatever reaches one is refused, answered so, or loses its connection. */
enum metric_limit {
	REACHED_CONNECTIONS, REACHED_DESCRIPTORS, REACHED_PEER, REACHED_STRANGERS,      /* by one more connection */
	REACHED_HEAD_TIME, REACHED_BODY_TIME, REACHED_IDLE_TIME, REACHED_WRITE_TIME, REACHED_SOCKET_TIME,
	REACHED_HEAD_BYTES, REACHED_BODY_BYTES, REACHED_OUTPUT_BYTES, REACHED_SOCKET_MESSAGES, REACHED_RATE, REACHED_COUNT
};

/* In struct agent; all zero is a good beginning. */
struct metrics {
	int64_t now[METRIC_CELLS];
	int64_t owed[METRIC_CELLS];     /* by the running transaction */
	bool owes;
	char models[METRIC_MODELS_MAX][METRIC_MODEL_MAX];       /* the first is "other" */
	size_t n_models;                /* without it */
};

/* ---- counting ---------------------------------------------------------------- */

struct agent;
struct usage;
/* It has happened, whatever becomes of this loop turn's transaction: a call was made, a tool ran. */
void metrics_count(struct agent *a, enum metric m, size_t series);
void metrics_time(struct agent *a, enum metric m, int64_t us);
/* A gauge is now at n. */
void metrics_level(struct agent *a, enum metric m, size_t series, int64_t n);
/* It has happened when this loop turn's transaction is committed: a row says so. */
void metrics_owe(struct agent *a, enum metric m, size_t series);
void metrics_owe_time(struct agent *a, enum metric m, int64_t us);
void metrics_owe_message(struct agent *a, struct str channel);
void metrics_owe_usage(struct agent *a, const char *model, const struct usage *u, int64_t nano);
/* Of a turn's prompt so many tokens were neither the person's words nor history. */
void metrics_owe_prompt(struct agent *a, size_t tier, int64_t overhead);
/* agent.c: the transaction is committed, or it never was. */
void metrics_committed(struct agent *a);
void metrics_undone(struct agent *a);
/* agent.c: the models that the configuration and the provider name get series of their own. Again after a
 * reload; what has one keeps it. */
void metrics_models(struct agent *a);

/* ---- reading ------------------------------------------------------------------- */

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_INFO };
enum metric_label {
	LABEL_NONE, LABEL_CHANNEL, LABEL_OUTCOME, LABEL_DELIVERY, LABEL_MODEL, LABEL_KIND, LABEL_CLASS, LABEL_ERROR,
	LABEL_UNASKED, LABEL_QUEUE, LABEL_VERSION, LABEL_CODE, LABEL_LIMIT, LABEL_CREDENTIAL, LABEL_COMPACTION,
	LABEL_TIER
};
struct metric_family {
	const char *name;               /* without _total, _info, _bucket … */
	enum metric_type type;
	const char *unit;               /* what the name ends in, or NULL */
	unsigned decimals;              /* of a value: 9 when it counts nano-dollars */
	enum metric_label labels[2];
	const int64_t *bounds;          /* of a histogram: METRIC_BOUNDS of them, in us */
	size_t at;                      /* its first cell */
	const char *help;
};
const struct metric_family *metrics_family(enum metric m);
size_t metrics_series(const struct agent *a, enum metric m);
const char *metrics_label_name(enum metric_label l);
/* What the label says of a series. */
struct str metrics_label(const struct agent *a, enum metric m, enum metric_label l, size_t series);
int64_t metrics_value(const struct agent *a, enum metric m, size_t series);
/* Observations in the i-th bucket alone, i up to METRIC_BOUNDS; and their sum in us. */
int64_t metrics_bucket(const struct agent *a, enum metric m, size_t i);
int64_t metrics_sum(const struct agent *a, enum metric m);
void metrics_gather(struct agent *a);   /* looks at what is not counted: queues, the process */
int64_t metrics_resident(void);         /* bytes of memory of this process, or METRIC_UNKNOWN */

#endif
