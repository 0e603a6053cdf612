/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * turn.h - what the steps of a turn share, between turn.c (the machine) and turn_prepare.c, turn_call.c and
 * turn_tools.c (its states).
 */
#ifndef CORE_TURN_H
#define CORE_TURN_H

#include "core.h"

enum step { NEXT, WAIT };               /* the next state at once, or when something happens */
#define INTERRUPTED "interrupted: the agent was stopped while this tool ran; it was not run again, and whether it took" \
	" effect is unknown"

/* turn.c */
void turn_save(struct turn *t);                      /* all but its texts */
void turn_go(struct turn *t, enum turn_state state);
/* Log lines are this turn's from here on. */
void turn_log_ids(const struct turn *t);
/* A round is over: whatever kills us now, it was not what this message did before. Asking (again)
 * is no progress, or a message that kills while it is answered would never be counted. */
void turn_progressed(struct turn *t);
/* Tells the channel what is being written or done, for those that show it. */
void turn_show(struct turn *t, enum partial_what what, struct str delta, struct str tool);
/* What was said since the last question. */
struct str turn_round_text(const struct turn *t);
/* A row of the history; content: a JSON array of blocks. */
void turn_append(struct turn *t, const char *role, struct str content);
/* [blocks{"type":"text","text":…}]; blocks end with a comma, or there are none; blank text is left out. */
void turn_append_blocks(struct turn *t, const char *role, struct str blocks, struct str text);
void turn_context_drop(struct turn *t);
void turn_unqueue(struct turn *t);
/* A message that saw two deaths runs alone, so that the third names the right one. */
bool turn_admit(struct turn *t);
enum step turn_wait_admission(struct turn *t);       /* its place in the queue; told once */
/* The reply goes to the outbox; text follows what was said in earlier rounds. */
enum step turn_conclude(struct turn *t, enum turn_outcome outcome, struct str text);
/* What a job asks for, without what stands in front of it for the model. */
struct str turn_job_text(struct str text);
/* Of a job that cannot be asked at least the text is told. */
enum step turn_conclude_fail(struct turn *t, enum turn_outcome outcome, const struct fail *f);
/* A message whose attachments are refused must not stay in the history, where it would spoil every
 * request to come. */
enum step turn_leave_out(struct turn *t, struct fail *f);

/* turn_prepare.c */
enum step turn_prepare(struct turn *t);

/* turn_call.c */
/* The provider is asked no more how large the request is. */
void turn_count_drop(struct turn *t);
/* u: what is known; final: by the provider's last word. */
void turn_settle(struct turn *t, const struct usage *u, bool final, struct str request_id);
void turn_release(struct turn *t);                   /* it was not asked, or is not billed */
/* After the commit: the one place where a model is asked. */
void turn_ask(struct effect *eff);
enum step turn_call(struct turn *t);
/* The row of the question that was asked. */
void turn_step_over(struct turn *t, enum step_state state, bool failed, struct str note);
enum step turn_stream(struct turn *t);

/* turn_tools.c */
void turn_tools_free(struct turn *t);
/* Rows and structs for the tool calls of the finished answer; false when there are none. */
bool turn_plan_tools(struct turn *t, struct str content);
/* One user message with every result, in the order of the calls. */
void turn_append_results(struct turn *t);
enum step turn_tools(struct turn *t);

#endif
