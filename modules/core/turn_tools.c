/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * turn_tools.c - TOOLS: the calls of an answer, run, each marked before it begins, and their results as one message.
 */
#include "turn.h"

void
turn_tools_free(struct turn *t)
{
	for (size_t i = 0; i < t->n_tools; i++) {
		struct tool_run *r = &t->tools[i];

		effect_cancel(&r->start);
		invocation_cancel(r->inv);
		free(r->name);
		free(r->output);
	}
	free(t->tools);
	t->tools = NULL;
	t->n_tools = 0;
}

/* Has the program a tool of this name? */
static bool
is_clients(const struct json *options, struct str name)
{
	const struct json *tools = json_at(options, "tools"), *tool = tools ? tools->first : NULL;

	while (tool && !str_eq(json_str(tool, "name", STR_NONE), name))
		tool = tool->next;
	return tool != NULL;
}

/* Rows and structs for the tool calls of the finished answer; false when there are none. */
bool
turn_plan_tools(struct turn *t, struct str content)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(content.n) + JSON_TREE_MAX(t->options.n));
	const struct json *blocks = NULL, *options = NULL;
	enum err e = json_parse(&ar, content, &blocks, NULL);
	int64_t n = 0, id;

	if (e == OK && t->options.n)
		e = json_parse(&ar, buf_view(&t->options), &options, NULL);
	for (const struct json *b = e == OK ? blocks->first : NULL; b && e == OK; b = b->next) {
		const struct json *input = json_at(b, "input");
		const struct step_row step = { .idx = n + 1, .tool = true,
		    .state = is_clients(options, json_str(b, "name", STR_NONE)) ? STEP_CLIENT : STEP_PENDING,
		    .name = json_str(b, "name", STR_NONE), .call_id = json_str(b, "id", STR_NONE),
		    .input = input ? input->raw : S("{}") };

		if (!str_eqz(json_str(b, "type", STR_NONE), "tool_use"))
			continue;
		e = store_step_add(t->a->db, t->id, t->round, &step, &id);
		if (++n > TOOL_CALLS_MAX && e == OK)
			e = store_step_set(t->a->db, id, STEP_DONE, true,
			    S("not run: too many calls in one answer; make it again if it is still needed"));
	}
	arena_free(&ar);
	agent_wrote(t->a, e);
	return n > 0;                   /* the driver loads them from the rows, as a start does */
}

static void
on_tool(void *arg, struct invocation *inv, enum err err, struct str output)
{
	struct tool_run *r = arg;

	(void)inv;
	r->inv = NULL;
	r->failed = err != OK;
	r->output = malloc(output.n + 1);
	if (r->output) {
		if (output.n)
			memcpy(r->output, output.p, output.n);
		r->output[output.n] = '\0';
	} else {
		agent_wrote(r->t->a, ERR_NOMEM);        /* or the turn would wait for it */
	}
	r->t->tool_done = true;
	ev_defer(r->t->a->ev, &r->t->run);
}

/* After the commit that says "running": the one place where a tool is started. */
static void
start_tool(struct effect *eff)
{
	struct tool_run *r = CONTAINER(eff, struct tool_run, start);
	struct turn *t = r->t;
	enum err e;

	turn_log_ids(t);
	turn_show(t, PARTIAL_TOOL, STR_NONE, str_z(r->name));
	e = bus_invoke(t->a, str_z(r->name), str_z(r->input), t->s->id, t->id, on_tool, r, &r->inv);
	if (e == ERR_NOTFOUND)
		on_tool(r, NULL, e, S("there is no tool of this name"));
	else if (e != OK)
		on_tool(r, NULL, e, str_z(err_str(e)));
	log_ids(0, 0, NULL);
}

static void
load_tool(void *arg, const struct step_row *s)
{
	struct turn *t = arg;
	struct tool_run *grown, *r;
	size_t n = s->name.n + s->call_id.n + s->input.n + 3;

	if (!s->tool)
		return;
	grown = realloc(t->tools, (t->n_tools + 1) * sizeof(*grown));
	if (grown == NULL)
		goto nomem;
	t->tools = grown;
	r = &grown[t->n_tools];
	memset(r, 0, sizeof(*r));
	r->name = malloc(n);
	r->output = s->state >= STEP_DONE ? malloc(s->output.n + 1) : NULL;
	if (r->name == NULL || (s->state >= STEP_DONE && r->output == NULL)) {
		free(r->name);
		free(r->output);
		goto nomem;
	}
	r->call_id = r->name + snprintf(r->name, n, "%.*s", STR_ARG(s->name)) + 1;
	r->input = r->call_id + snprintf(r->call_id, s->call_id.n + 1, "%.*s", STR_ARG(s->call_id)) + 1;
	snprintf(r->input, s->input.n + 1, "%.*s", STR_ARG(s->input));
	if (r->output)
		snprintf(r->output, s->output.n + 1, "%.*s", STR_ARG(s->output));
	r->step = s->id;
	r->state = s->state;
	r->failed = s->failed;
	r->t = t;
	r->start.run = start_tool;
	t->n_tools++;
	return;
nomem:
	agent_wrote(t->a, ERR_NOMEM);
}

/* One user message with every result, in the order of the calls. */
void
turn_append_results(struct turn *t)
{
	struct buf b = BUF_INIT(REQUEST_MAX);
	struct jw w;

	jw_init(&w, &b);
	jw_arr(&w);
	for (size_t i = 0; i < t->n_tools; i++) {
		struct tool_run *r = &t->tools[i];
		const char *text = r->output ? r->output : "the result was lost: out of memory";

		if (r->state == STEP_INTERRUPTED)
			text = INTERRUPTED;
		else if (r->state == STEP_CLIENT)
			text = "not asked for: the answer was stopped";
		jw_obj(&w);
		jw_kz(&w, "type", "tool_result");
		jw_kz(&w, "tool_use_id", r->call_id);
		jw_kz(&w, "content", text);
		if (r->failed || r->state == STEP_INTERRUPTED || r->state == STEP_CLIENT)
			jw_kbool(&w, "is_error", true);
		jw_end_obj(&w);
	}
	jw_end_arr(&w);
	if (jw_done(&w) != OK)
		agent_wrote(t->a, ERR_NOMEM);
	else
		turn_append(t, "user", buf_view(&b));
	buf_free(&b);
}

enum step
turn_tools(struct turn *t)
{
	size_t open = 0, clients = 0;

	if (!turn_admit(t))
		return turn_wait_admission(t);
	if (t->n_tools == 0) {
		agent_wrote(t->a, store_steps(t->a->db, t->id, t->round, load_tool, t));
		for (size_t i = 0; i < t->n_tools; i++)
			if (t->tools[i].state == STEP_RUNNING)
				t->tools[i].state = STEP_INTERRUPTED;   /* turn_load said so in the row */
	}
	for (size_t i = 0; i < t->n_tools; i++) {
		struct tool_run *r = &t->tools[i];

		if (r->state == STEP_PENDING) {
			r->state = STEP_RUNNING;
			agent_wrote(t->a, store_step_set(t->a->db, r->step, STEP_RUNNING, false, STR_NONE));
			agent_after(t->a, &r->start);
		} else if (r->state == STEP_RUNNING && r->output) {
			r->state = STEP_DONE;
			agent_wrote(t->a, store_step_set(t->a->db, r->step, STEP_DONE, r->failed, str_z(r->output)));
		}
		open += r->state == STEP_RUNNING;
		clients += r->state == STEP_CLIENT;
	}
	if (open)
		return WAIT;
	if (clients)                    /* their results come with the program's next message, ours stand in their rows */
		return turn_conclude(t, OUTCOME_CALLS, STR_NONE);
	turn_append_results(t);
	turn_tools_free(t);
	turn_progressed(t);
	t->round++;
	turn_go(t, TURN_CALL);
	return NEXT;
}
