/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * compat.h - what the files of the OpenAI-compatible routes share.
 *
 * ask.c reads a request of either shape into a struct ask. pass.c puts it to a model as it
 * is, talk.c to the agent. What comes of it is a struct answer; chat.c and responses.c say
 * it in the shape that was asked for, and reply.c sends it, whole or as a stream.
 */
#ifndef BLUFIO_COMPAT_H
#define BLUFIO_COMPAT_H

#include "channel/gateway/gateway.h"

#define COMPAT_MODEL "blufio"           /* the id under which the agent is a model */
#define ASK_MESSAGES_MAX HISTORY_MESSAGES_MAX
#define ASK_TOOLS_MAX 128u              /* of the client; as many as the API it speaks has */
#define ASK_STOPS_MAX 16u
#define PASS_CALLS_MAX 32u              /* at once: a client that asks for more is told to wait */

enum finish { FINISH_STOP, FINISH_LENGTH, FINISH_CALLS, FINISH_FILTER };

/* A request. Messages are the agent's: a user's and an assistant's in turn, contents JSON arrays of blocks. */
struct ask {
	struct arena ar;                /* holds all of it */
	struct str model;
	struct str user;                /* who, inside the credential; may be empty */
	struct str session;             /* name of the conversation; may be empty */
	struct str previous;            /* previous_response_id */
	struct llm_message *messages;
	struct llm_request req;         /* without its model */
	bool stream, include_usage;
};

struct answer {
	struct str text;
	struct str blocks;              /* JSON array; its tool_use blocks are calls for the client */
	enum finish finish;
	struct usage usage;
};

/* The two shapes. */
struct shape {
	void (*begin)(struct request *r);                               /* of a stream */
	void (*text)(struct request *r, struct str delta);
	void (*end)(struct request *r, const struct answer *a);
	void (*fail)(struct request *r, struct str error);              /* in a stream: the error object */
	void (*whole)(struct request *r, const struct answer *a, struct buf *out);
};

/* What a request has in its .own. */
struct compat {
	struct request *r;
	struct ask ask;
	const struct shape *shape;
	char model[METRIC_MODEL_MAX];   /* that is asked; of the agent its own name */
	char id[48];                    /* of the answer, without its prefix */
	char named[METRIC_MODEL_MAX], previous[48];     /* what the answer repeats, when ask is gone */
	struct buf text;                /* of a pass-through, so far */
	struct buf calls;               /* of the client's tools: blocks */
	struct effect begin;
	void *counting;                 /* its tokens, before it is made; of the model's provider */
	char trace[TRACE_HEADER_SIZE];
	/* responses.c */
	int64_t seq;                    /* of the next event */
	bool in_message;                /* its item is open */
};
static inline struct compat *
compat_of(const struct request *r)
{
	return r->own;
}

/* post.c */
bool post_model_at(const struct request *r, size_t i, struct str *id);  /* that can be asked for; the agent is the first */
bool post_is_model(const struct request *r, struct str name);
void post_no_model(struct request *r, struct str name);         /* answers that it is not there */
bool post_read(struct request *r, const struct shape *shape);   /* false: what is wrong is answered */
void post_run(struct request *r);       /* what was read */

/* ask.c: false: what is wrong with it is answered. */
bool ask_read(struct request *r, struct ask *q, bool responses);

/* pass.c */
void pass_run(struct request *r, struct str model);
void pass_drop(struct request *r);      /* whoever asked is gone, or the daemon ends */

/* talk.c */
void talk_run(struct request *r);

/* reply.c */
void reply_text(struct request *r, struct str delta);   /* more of the answer */
void reply_done(struct request *r, const struct answer *a);
void reply_fail(struct request *r, int status, const char *code, struct str message);
/* A stream begins with its first text, or when so much time has passed: until then an error has a status of its own. */
void reply_wait(struct request *r);
void reply_usage(struct jw *w, const struct usage *u, const char *in, const char *out);

extern const struct shape chat_shape;           /* chat.c */
extern const struct shape responses_shape;      /* responses.c */

#endif
