/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bus.c - the registry of capabilities and the one way to call them.
 *
 * A capability has an id, a description, an input and an output schema, a
 * deadline and flags; who provides it does not matter to its caller. bus_invoke
 * is the whole pipeline: find, permit, validate the input, run with a deadline,
 * validate the output, account. Its result always comes later, from the loop,
 * even when the capability answered at once, and exactly once.
 *
 * The model sees `time.now` as `time_now` (its names admit no dot). The list of
 * tools is sorted by id and rendered once, so that its bytes never move: it
 * stands at the very front of every prompt cache.
 */
#include "core.h"

#define CAPABILITIES_MAX 256
#define SCHEMA_ARENA (64u << 10)

struct bus {
	const struct capability *caps[CAPABILITIES_MAX];
	size_t n;
	struct buf tools;               /* JSON array for the model */
	struct invocation *running;
};

struct invocation {
	struct agent *a;
	const struct capability *cap;
	int64_t session, turn;
	invoke_fn *fn;
	void *arg;
	enum err err;
	int64_t begun_at;               /* monotonic; 0: it never ran */
	bool done;
	struct buf output;
	struct arena input;
	const struct json *tree;
	struct ev_defer start, finish;
	struct ev_timer deadline;
	struct invocation *next, **prev;
};

const struct feature *
feature_find(enum feature_kind kind, struct str name)
{
	for (size_t i = 0; features[i]; i++)
		if (features[i]->kind == kind && str_eqz(name, features[i]->name))
			return features[i];
	return NULL;
}

/* ---- schemas: the subset that built-in capabilities use (type, properties, required,
 * additionalProperties, items, enum, minimum, maximum, maxLength) ------------------- */

static bool
type_ok(const struct json *v, struct str type)
{
	int64_t whole;

	if (str_eqz(type, "integer"))
		return json_to_i64(v, &whole) == OK;
	switch (v->type) {
	case JSON_NULL: return str_eqz(type, "null");
	case JSON_BOOL: return str_eqz(type, "boolean");
	case JSON_NUMBER: return str_eqz(type, "number");
	case JSON_STRING: return str_eqz(type, "string");
	case JSON_ARRAY: return str_eqz(type, "array");
	case JSON_OBJECT: return str_eqz(type, "object");
	}
	UNREACHABLE();
}

static enum err check(const struct json *schema, const struct json *v, struct str where, struct fail *f);

static enum err
check_object(const struct json *schema, const struct json *v, struct str where, struct fail *f)
{
	const struct json *props = json_at(schema, "properties"), *required = json_at(schema, "required");
	bool closed = !json_bool(schema, "additionalProperties", true);
	enum err e = OK;

	for (const struct json *r = required ? required->first : NULL; r && e == OK; r = r->next)
		if (json_get(v, r->s) == NULL)
			e = fail_set(f, ERR_PARSE, "%.*s: \"%.*s\" is missing", STR_ARG(where), STR_ARG(r->s));
	for (const struct json *m = v->first; m && e == OK; m = m->next) {
		const struct json *p = props ? json_get(props, m->key) : NULL;

		if (p)
			e = check(p, m, m->key, f);
		else if (closed)
			e = fail_set(f, ERR_PARSE, "%.*s: \"%.*s\" is not a known member",
			    STR_ARG(where), STR_ARG(m->key));
	}
	return e;
}

static enum err
check(const struct json *schema, const struct json *v, struct str where, struct fail *f)
{
	struct str type = json_str(schema, "type", STR_NONE);
	const struct json *choices = json_at(schema, "enum"), *items = json_at(schema, "items");
	enum err e = OK;

	if (type.n && !type_ok(v, type))
		return fail_set(f, ERR_PARSE, "%.*s must be of type %.*s", STR_ARG(where), STR_ARG(type));
	if (choices) {
		const struct json *c = choices->first;

		while (c && !(c->type == v->type && str_eq(c->s, v->s)))
			c = c->next;
		if (c == NULL)
			return fail_set(f, ERR_PARSE, "%.*s is not one of the allowed values", STR_ARG(where));
	}
	if (v->type == JSON_NUMBER && (json_f64(v, "", 0) < json_f64(schema, "minimum", -1e308) ||
	    json_f64(v, "", 0) > json_f64(schema, "maximum", 1e308)))
		return fail_set(f, ERR_PARSE, "%.*s is out of range", STR_ARG(where));
	if (v->type == JSON_STRING && (int64_t)v->s.n > json_i64(schema, "maxLength", INT64_MAX))
		return fail_set(f, ERR_PARSE, "%.*s is too long", STR_ARG(where));
	if (v->type == JSON_OBJECT)
		return check_object(schema, v, where, f);
	for (const struct json *i = v->type == JSON_ARRAY && items ? v->first : NULL; i && e == OK; i = i->next)
		e = check(items, i, where, f);
	return e;
}

static enum err
validate(const char *schema, const struct json *v, const char *where, struct fail *f)
{
	struct arena ar = ARENA_INIT(SCHEMA_ARENA);
	const struct json *s;
	enum err e = schema ? json_parse(&ar, str_z(schema), &s, NULL) : OK;

	if (schema && e == OK)
		e = check(s, v, str_z(where), f);
	arena_free(&ar);
	return e;
}

/* ---- the registry ------------------------------------------------------------------------ */

static int
cap_cmp(const void *x, const void *y)
{
	const struct capability *const *a = x, *const *b = y;

	return strcmp((*a)->id, (*b)->id);
}

/* The model's name of a capability: dots become underscores. */
static bool
same_name(struct str name, const char *id)
{
	if (name.n != strlen(id))
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] != id[i] && !(name.p[i] == '_' && id[i] == '.'))
			return false;
	return true;
}

const struct capability *
bus_find(struct agent *a, struct str name)
{
	for (size_t i = 0; i < a->bus->n; i++)
		if (same_name(name, a->bus->caps[i]->id))
			return a->bus->caps[i];
	return NULL;
}

static enum err
render_tools(struct bus *b)
{
	struct jw w;

	buf_init(&b->tools, 1u << 20);
	if (b->n == 0)
		return OK;
	jw_init(&w, &b->tools);
	jw_arr(&w);
	for (size_t i = 0; i < b->n; i++) {
		char name[128];
		size_t n = strlen(b->caps[i]->id);

		for (size_t k = 0; k <= n && k < sizeof(name); k++)
			name[k] = b->caps[i]->id[k] == '.' ? '_' : b->caps[i]->id[k];
		jw_obj(&w);
		jw_kz(&w, "name", name);
		jw_kz(&w, "description", b->caps[i]->description);
		jw_kraw(&w, "input_schema", str_z(b->caps[i]->input));
		jw_end_obj(&w);
	}
	jw_end_arr(&w);
	return jw_done(&w);
}

struct str
bus_tools_json(struct agent *a)
{
	return buf_view(&a->bus->tools);
}

FALLIBLE
bus_new(struct agent *a)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return ERR_NOMEM;
	a->bus = b;
	for (size_t i = 0; features[i]; i++)
		for (const struct capability *c = features[i]->capabilities; c && c->id; c++) {
			if (b->n == CAPABILITIES_MAX)
				return ERR_LIMIT;
			b->caps[b->n++] = c;
		}
	qsort(b->caps, b->n, sizeof(b->caps[0]), cap_cmp);
	return render_tools(b);
}

void
bus_free(struct agent *a)
{
	if (a->bus == NULL)
		return;
	while (a->bus->running)
		invocation_cancel(a->bus->running);
	buf_free(&a->bus->tools);
	free(a->bus);
	a->bus = NULL;
}

/* ---- calling ---------------------------------------------------------------------------------- */

static void
invocation_free(struct invocation *inv)
{
	ev_defer_cancel(&inv->start);
	ev_defer_cancel(&inv->finish);
	ev_timer_cancel(inv->a->ev, &inv->deadline);
	*inv->prev = inv->next;
	if (inv->next)
		inv->next->prev = inv->prev;
	buf_free(&inv->output);
	arena_free(&inv->input);
	free(inv);
}

void
invocation_cancel(struct invocation *inv)
{
	if (inv)
		invocation_free(inv);
}

static void
finish(void *arg)
{
	struct invocation *inv = arg;
	struct arena ar = ARENA_INIT(JSON_TREE_MAX(inv->output.n));
	const struct json *out;
	struct fail f = FAIL_INIT;

	if (inv->output.err != OK && inv->err == OK) {
		inv->err = inv->output.err;
		buf_reset(&inv->output);
		buf_puts(&inv->output, "the result is too large");
	}
	if (inv->err == OK && (json_parse(&ar, buf_view(&inv->output), &out, NULL) != OK ||
	    validate(inv->cap->output, out, "output", &f) != OK)) {
		inv->err = ERR_PROTO;
		buf_reset(&inv->output);
		buf_fmt(&inv->output, "%s answered against its own schema: %s", inv->cap->id, f.text);
	}
	arena_free(&ar);
	if (inv->begun_at)
		metrics_time(inv->a, METRIC_TOOL, clock_mono_us() - inv->begun_at);
	if (inv->err != OK)
		metrics_count(inv->a, METRIC_ERRORS, METRIC_ERR_TOOL);
	turn_log(inv->a, inv->turn);
	if (inv->err != OK)
		log_info("bus", "%s failed: %s", inv->cap->id, err_str(inv->err));
	else
		log_debug("bus", "%s done, %zu bytes", inv->cap->id, inv->output.n);
	log_ids(0, 0, NULL);
	inv->fn(inv->arg, inv, inv->err, buf_view(&inv->output));
	invocation_free(inv);
}

void
invocation_done(struct invocation *inv, enum err err, struct str output)
{
	if (inv->done)
		return;
	inv->done = true;
	inv->err = err;
	buf_str(&inv->output, output);
	ev_timer_cancel(inv->a->ev, &inv->deadline);
	ev_defer(inv->a->ev, &inv->finish);
}

static void
on_deadline(void *arg)
{
	invocation_done(arg, ERR_TIMEOUT, S("it took longer than its deadline"));
}

static void
start(void *arg)
{
	struct invocation *inv = arg;
	struct fail f = FAIL_INIT;

	if (inv->tree == NULL || validate(inv->cap->input, inv->tree, "input", &f) != OK) {
		invocation_done(inv, ERR_PARSE, f.err != OK ? str_z(f.text) : S("the input is not a JSON object"));
		return;
	}
	ev_timer_in(inv->a->ev, &inv->deadline, inv->cap->deadline_us);
	inv->begun_at = clock_mono_us();
	inv->cap->run(inv, inv->tree);
}

FALLIBLE
bus_invoke(struct agent *a, struct str id, struct str input, int64_t session, int64_t turn, invoke_fn *fn, void *arg,
    struct invocation **out)
{
	const struct capability *cap = bus_find(a, id);
	struct invocation *inv;
	struct str copy;

	if (cap == NULL)
		return ERR_NOTFOUND;
	if (!(cap->flags & CAP_HARMLESS))
		return ERR_DENIED;      /* nothing else is permitted until there is a policy for it */
	inv = calloc(1, sizeof(*inv));
	if (inv == NULL)
		return ERR_NOMEM;
	inv->a = a;
	inv->cap = cap;
	inv->session = session;
	inv->turn = turn;
	inv->fn = fn;
	inv->arg = arg;
	buf_init(&inv->output, TOOL_RESULT_MAX);
	arena_init(&inv->input, input.n + JSON_TREE_MAX(input.n));
	ev_defer_init(&inv->start, start, inv);
	ev_defer_init(&inv->finish, finish, inv);
	ev_timer_init(&inv->deadline, on_deadline, inv);
	inv->next = a->bus->running;
	inv->prev = &a->bus->running;
	if (inv->next)
		inv->next->prev = &inv->next;
	a->bus->running = inv;
	copy = arena_str(&inv->input, input);
	if (json_parse(&inv->input, copy, &inv->tree, NULL) != OK)
		inv->tree = NULL;       /* told to the model by start() */
	ev_defer(a->ev, &inv->start);
	*out = inv;
	return OK;
}

struct agent *
invocation_agent(const struct invocation *inv)
{
	return inv->a;
}

int64_t
invocation_session(const struct invocation *inv)
{
	return inv->session;
}
