/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * oa.h - what the files of the OpenAI adapter share: how servers differ, an
 * exchange, the question as bytes and the answer as blocks.
 */
#ifndef BLUFIO_OPENAI_OA_H
#define BLUFIO_OPENAI_OA_H

#include "base/sse.h"
#include "blufio.h"

#define EVENT_ARENA_MAX (16u << 20)
#define CALLS_MAX 64u                   /* tool calls of one answer; turn.c runs fewer */
#define DETAILS_MAX 32u                 /* reasoning_details of one answer */

struct oa_server {
	const char *name, *host;        /* as `server` says it; whose host ends so */
	bool completion_limit;          /* max_completion_tokens, not max_tokens */
	bool developer;                 /* that role, not system; anywhere, not first alone */
	bool usage;                     /* stream_options.include_usage */
	bool files;                     /* PDFs */
	bool insists;                   /* on the thinking before tool calls */
	bool choice;                    /* tool_choice; elsewhere whoever may call no tool is told of none */
	bool schema;                    /* response_format with a schema, parallel_tool_calls; elsewhere it is asked for in words */
	const char *effort;             /* its name for that; NULL: it has none */
};
struct oa {                             /* an instance */
	struct agent *a;
	const char *name;
	struct oa_op *ops;              /* exchanges in flight, detached ones too */
};
struct oa_piece { int64_t index; struct buf id, name, args; };  /* a tool call, as it grows */
struct oa_detail { int64_t index; const char *member; struct buf type, text, rest; };
struct oa_op {
	struct oa *p;
	struct llm_call *call;          /* NULL once ended, and for lists */
	struct fetch_op *fetch;
	struct sse sse;
	struct arena ar;                /* reset for every event */
	struct buf body;                /* of an answer that is no stream */
	unsigned status;
	bool plain;                     /* so is this one, asked for or not */
	llm_list_fn *list;              /* who wants it; NULL: it is a call's */
	void *arg;
	/* the answer so far */
	enum llm_stop stop;             /* NONE: not finished */
	bool said, thought;             /* blocks that were begun */
	const char *field;              /* its name for what it thinks */
	struct buf thinking, refusal;
	struct oa_piece calls[CALLS_MAX];
	struct oa_detail details[DETAILS_MAX];
	size_t n_calls, n_details;
	struct oa_op *next, **prev;
};

/* May it stand in a tool's name or id? The Messages API, to whose model a conversation may go, takes no more. */
bool oa_is_plain(char c);
/* oa_question.c: what is asked, as bytes. */
FALLIBLE oa_question(struct body *b, struct oa *p, const struct oa_server *s, const struct llm_request *r);
/* oa_answer.c: events of a stream; a completion, or an error (NULL: there is nothing to read), at once. */
void oa_event(void *op, struct str type, struct str data, struct str id);
void oa_chunk(struct oa_op *op, const struct json *ev);
void oa_error(struct oa_op *op, const struct json *e);
/* Nothing more comes: whole if it was finished, else why it is not. */
void oa_over(struct oa_op *op, const char *why);
void oa_limits(struct oa_op *op);       /* what its headers say of the rate limits */
void oa_answer_free(struct oa_op *op);

#endif
