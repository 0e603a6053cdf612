/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * system.c - /health, /v1/health, /v1/cost, /v1/tools and /openapi.json
 */
#include "channel/gateway/gateway.h"

static void
get_health(struct request *r)
{
	request_answer(r, 200, S("{\"status\":\"ok\"}"));
}

static bool
is_ready(const struct agent *a)
{
	return a->phase == AGENT_READY && !a->write_failed && !a->paused;
}

static void
get_ready(struct request *r)
{
	bool ready = is_ready(r->a);

	request_answer(r, ready ? 200 : 503, ready ? S("{\"status\":\"ready\"}") : r->a->paused ?
	    S("{\"status\":\"paused\"}") : S("{\"status\":\"unavailable\"}"));
}

/* What `blufio status --json` says, behind one word. */
static void
get_status(struct request *r)
{
	struct buf all = BUF_INIT(1u << 20), b = BUF_INIT(1u << 20);
	bool ready = is_ready(r->a);

	status_json(r->a, &all);
	buf_fmt(&b, "{\"status\":\"%s\",", ready ? "ok" : "unavailable");
	buf_str(&b, str_sub(buf_view(&all), 1, all.n));
	request_answer_buf(r, ready ? 200 : 503, all.err, &b);
	buf_free(&all);
	buf_free(&b);
}

static void
get_cost(struct request *r)
{
	struct buf b = BUF_INIT(1u << 20);
	struct jw w;
	enum err e;

	jw_init(&w, &b);
	e = cost_report(r->a, &w);
	request_answer_buf(r, 200, e != OK ? e : jw_done(&w), &b);
	buf_free(&b);
}

static void
get_tools(struct request *r)
{
	struct buf b = BUF_INIT(1u << 20);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_key(&w, "tools");
	jw_arr(&w);
	for (size_t i = 0; features[i]; i++)
		for (const struct capability *c = features[i]->capabilities; c && c->id; c++) {
			jw_obj(&w);
			jw_kz(&w, "name", c->id);
			jw_kz(&w, "description", c->description);
			jw_kraw(&w, "input_schema", str_z(c->input));
			jw_kbool(&w, "harmless", c->flags & CAP_HARMLESS);
			jw_end_obj(&w);
		}
	jw_end_arr(&w);
	jw_end_obj(&w);
	request_answer_buf(r, 200, jw_done(&w), &b);
	buf_free(&b);
}

static void
on_invoked(void *arg, struct invocation *inv, enum err err, struct str output)
{
	struct request *r = arg;
	struct buf b = BUF_INIT(TOOL_RESULT_MAX * 8);

	(void)inv;
	r->invocation = NULL;
	if (err == OK) {
		buf_fmt(&b, "{\"output\":%.*s}", STR_ARG(output));
		request_answer_buf(r, 200, OK, &b);
	} else {
		request_error(r, err == ERR_PARSE ? 400 : err == ERR_TIMEOUT ? 504 : 500, err == ERR_PARSE ? "invalid_request" :
		    "tool_failed", err == ERR_PARSE ? "input" : NULL, NULL, "%.*s", STR_ARG(output));
	}
	buf_free(&b);
}

static void
invoke_tool(struct request *r)
{
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(BODY_MAX_API));
	const struct json *o = request_object(r, &ar, "name input:o?"), *input;
	enum err e;

	if (o) {
		input = json_get(o, S("input"));
		e = bus_invoke(r->a, json_str(o, "name", STR_NONE), json_is(input, JSON_OBJECT) ? input->raw : S("{}"), 0, 0,
		    on_invoked, r, &r->invocation);
		if (e == ERR_NOTFOUND)
			request_error(r, 404, "not_found", "name", "GET /v1/tools lists them", "there is no such tool");
		else if (e == ERR_DENIED)
			request_error(r, 403, "forbidden", "name", NULL, "this tool may not be used so");
		else if (e != OK)
			request_failed(r, e);
	}
	arena_free(&ar);
}

/* ---- /openapi.json: the route tables, said once more ---------------------------------------- */

static void
put_operation(struct jw *w, const struct route *t)
{
	char method[16];
	size_t n = 0;

	for (; t->method[n] && n < sizeof(method) - 1; n++)
		method[n] = (char)(t->method[n] | 0x20);
	method[n] = '\0';
	jw_key(w, method);
	jw_obj(w);
	jw_kz(w, "summary", t->summary);
	jw_key(w, "parameters");
	jw_arr(w);
	for (const char *p = strchr(t->path, '{'); p; p = strchr(p + 1, '{')) {
		jw_obj(w);
		jw_kstr(w, "name", str_make(p + 1, strcspn(p + 1, "}")));
		jw_kz(w, "in", "path");
		jw_kbool(w, "required", true);
		jw_kraw(w, "schema", S("{\"type\":\"string\"}"));
		jw_end_obj(w);
	}
	jw_end_arr(w);
	if (t->scope == SCOPE_OPEN)
		jw_kraw(w, "security", S("[]"));
	jw_kraw(w, "responses", S("{\"default\":{\"description\":\"see docs/API.md\"}}"));
	jw_end_obj(w);
}

static void
get_openapi(struct request *r)
{
	struct buf b = BUF_INIT(1u << 20);
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "openapi", "3.1.0");
	jw_kraw(&w, "info", S("{\"title\":\"Blufio\",\"version\":\"" BLUFIO_VERSION "\"}"));
	jw_kraw(&w, "security", S("[{\"bearer\":[]}]"));
	jw_kraw(&w, "components", S("{\"securitySchemes\":{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"}}}"));
	jw_key(&w, "paths");
	jw_obj(&w);
	for (size_t i = 0; features[i]; i++)
		for (const struct route *t = features[i]->routes; t && t->method; t++) {
			bool first = true;

			for (const struct route *u = features[i]->routes; u != t; u++)
				first = first && strcmp(u->path, t->path) != 0;
			if (!first)
				continue;       /* stands with the first of its path */
			jw_key(&w, t->path);
			jw_obj(&w);
			for (const struct route *u = t; u->method; u++)
				if (strcmp(u->path, t->path) == 0)
					put_operation(&w, u);
			jw_end_obj(&w);
		}
	jw_end_obj(&w);
	jw_end_obj(&w);
	if (jw_done(&w) == OK)
		request_answer_static(r, "application/json", buf_view(&b));
	else
		request_failed(r, b.err);
	buf_free(&b);
}

static const struct route routes[] = {
	{ "GET", "/health", SCOPE_OPEN, get_health, "Is the process alive?" },
	{ "GET", "/ready", SCOPE_OPEN, get_ready, "Would a message be answered?" },
	{ "GET", "/v1/health", SCOPE_READ, get_status, "What the daemon says about itself" },
	{ "GET", "/v1/cost", SCOPE_READ, get_cost, "What was spent today and this month, by model, purpose and conversation" },
	{ "GET", "/v1/tools", SCOPE_READ, get_tools, "The tools that the agent has" },
	{ "POST", "/v1/tools/invoke", SCOPE_TOOLS, invoke_tool, "Runs one that is harmless" },
	{ "GET", "/openapi.json", SCOPE_OPEN, get_openapi, "This table" },
	{ NULL, NULL, 0, NULL, NULL }
};
const struct feature system_feature = {
	.name = "system", .kind = FEATURE_API, .routes = routes, .summary = "/health, /v1/health, /v1/cost, /v1/tools, /openapi.json"
};
