/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * scratch.h - for tests of the core: a directory with a configuration file and a
 * database of its own, the smallest struct agent around them, and the rules that
 * the Messages API has for a list of messages.
 */
#ifndef BLUFIO_SCRATCH_H
#define BLUFIO_SCRATCH_H

#include "core/core.h"

#include <unistd.h>

struct scratch {
	char dir[64], toml[96], path[96];
	struct agent a;
};

/* Makes the directory and writes the file; database_path and no cost of waiting for disks added. */
static inline enum err
scratch_dir(struct scratch *s, const char *toml)
{
	FILE *file;
	int bad;

	snprintf(s->dir, sizeof(s->dir), "/tmp/blufio-test-XXXXXX");
	if (mkdtemp(s->dir) == NULL) {
		s->dir[0] = '\0';
		return ERR_IO;
	}
	snprintf(s->toml, sizeof(s->toml), "%s/a.toml", s->dir);
	snprintf(s->path, sizeof(s->path), "%s/a.db", s->dir);
	file = fopen(s->toml, "w");
	if (file == NULL)
		return ERR_IO;
	bad = fprintf(file, "[storage]\ndatabase_path = \"%s\"\ndurability = \"process\"\n%s", s->path,
	    toml) < 0;
	return fclose(file) != 0 || bad ? ERR_IO : OK;
}

static inline void
scratch_dir_end(struct scratch *s)
{
	static const char *const tails[] = { "a.toml", "a.db", "a.db-wal", "a.db-shm", "a.db.lock" };
	char path[128];

	if (s->dir[0] == '\0')
		return;
	for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
		snprintf(path, sizeof(path), "%s/%s", s->dir, tails[i]);
		(void)remove(path);     /* not all of them exist every time */
	}
	(void)rmdir(s->dir);
}

/* Configuration, database, loop, capabilities and sessions; provider is a feature's name. Call
 * scratch_end whatever this returned. */
static inline void
scratch_provider(struct agent *a, const struct feature *f)
{
	a->provider = a->providers;
	a->providers[0] = (struct provider){ .feature = f };
	if (f == NULL || a->config == NULL)     /* a fault has met the configuration */
		return;
	a->n_providers = 1;
	snprintf(a->providers[0].name, sizeof(a->providers[0].name), "%s", f->name);
	providers_read(a);
}

static inline enum err
scratch_begin(struct scratch *s, const char *toml, const char *provider)
{
	static const char *const env[] = { NULL };
	const struct feature *sqlite = feature_find(FEATURE_STORAGE, S("sqlite"));
	struct fail f = FAIL_INIT;
	enum err e;

	memset(s, 0, sizeof(*s));
	e = sqlite ? scratch_dir(s, toml) : ERR_UNSUPPORTED;
	if (e == OK)
		e = config_load(&s->a.config, s->toml, env, &f);
	if (e == OK)
		e = db_open(&s->a.db, sqlite->storage, s->path, false, DB_PROCESS, &f);
	if (e == OK)
		e = store_migrate(s->a.db, s->path, &f);
	if (e == OK)
		e = ev_new(&s->a.ev);
	if (e == OK)
		e = bus_new(&s->a);
	if (e == OK)
		e = sessions_new(&s->a);
	scratch_provider(&s->a, feature_find(FEATURE_PROVIDER, str_z(provider)));
	snprintf(s->a.name, sizeof(s->a.name), "test");
	return e == OK && s->a.provider->feature == NULL ? ERR_UNSUPPORTED : e;
}

static inline void
scratch_end(struct scratch *s)
{
	sessions_free(&s->a);
	bus_free(&s->a);
	ev_free(s->a.ev);
	db_close(s->a.db);
	config_free(s->a.config);
	scratch_dir_end(s);
}

/* A stored and loaded conversation. */
static inline enum err
scratch_session(struct agent *a, const char *chat, struct session **out)
{
	const struct target to = { S("shell"), str_z(chat), STR_NONE, STR_NONE };
	int64_t user, id;
	enum err e = store_user_for(a->db, to.channel, S("local"), S("Nobody"), &user);

	if (e == OK)
		e = store_session_find(a->db, a->name, &to, user, &id);
	return e == OK ? session_open(a, id, out) : e;
}

/* ---- what the API refuses ------------------------------------------------------ */

static inline bool
rules_type(const struct json *b, const char *type)
{
	return str_eqz(json_str(b, "type", STR_NONE), type);
}

static inline size_t
rules_count(const struct json *blocks, const char *type, const char *member, struct str id)
{
	size_t n = 0;

	for (const struct json *b = blocks ? blocks->first : NULL; b; b = b->next)
		n += rules_type(b, type) && (member == NULL || str_eq(json_str(b, member, STR_NONE), id));
	return n;
}

/* One block by itself; other: before it stood a block that is no tool_result. */
static inline const char *
rules_block(const struct json *b, bool user, const struct json *before, bool other)
{
	struct str id = json_str(b, "tool_use_id", STR_NONE);

	if (!json_is(b, JSON_OBJECT) || json_str(b, "type", STR_NONE).n == 0)
		return "a block without a type";
	if (rules_type(b, "text") && str_trim(json_str(b, "text", STR_NONE)).n == 0)
		return "a text block without text";
	if (rules_type(b, "thinking") && (user || json_str(b, "signature", STR_NONE).n == 0))
		return "thinking without a signature or of the user";
	if (rules_type(b, "tool_use") && (user || json_str(b, "id", STR_NONE).n == 0 ||
	    json_str(b, "name", STR_NONE).n == 0 || !json_is(json_at(b, "input"), JSON_OBJECT)))
		return "a tool_use that is not whole";
	if (!rules_type(b, "tool_result"))
		return NULL;
	if (!user || other)
		return "a tool_result that is not at the start of a user message";
	return rules_count(before, "tool_use", "id", id) == 1 ? NULL : "a tool_result that answers nothing";
}

/* NULL, or the rule that the request breaks. */
static inline const char *
rules_broken(const struct llm_request *r)
{
	struct arena ar = ARENA_INIT(512u << 20);
	const struct json *before = NULL, *m;
	const char *why = r->n_messages == 0 ? "no message" : NULL;
	bool was_user = true;

	for (size_t i = 0; i < r->n_messages && !why; i++, before = m) {
		bool user = strcmp(r->messages[i].role, "user") == 0, other = false;

		if (strcmp(r->messages[i].role, "system") == 0) {       /* behind the user's, before the model's or the end */
			if (i == 0 || !was_user || (i + 1 < r->n_messages && strcmp(r->messages[i + 1].role, "assistant") != 0))
				why = "a system message out of its place";
			else if (r->messages[i].content.n < 3 || r->messages[i].content.p[0] != '"')
				why = "a system message that is no text";
			m = before;
			continue;
		}
		if (!user && (i == 0 || strcmp(r->messages[i].role, "assistant") != 0))
			why = "the first message is not the user's, or a strange role";
		else if (json_parse(&ar, r->messages[i].content, &m, NULL) != OK || m->type != JSON_ARRAY)
			why = ar.err == ERR_NOMEM ? NULL : "content that is not a JSON array";
		else if (m->count == 0)
			why = "an empty message";
		if (why || ar.err != OK)
			break;
		for (const struct json *b = m->first; b && !why; b = b->next) {
			why = rules_block(b, user, was_user ? NULL : before, other);
			other = other || !rules_type(b, "tool_result");
		}
		for (const struct json *b = !was_user ? before->first : NULL; b && !why; b = b->next)
			if (rules_type(b, "tool_use") && (!user || rules_count(m, "tool_result", "tool_use_id",
			    json_str(b, "id", STR_NONE)) != 1))
				why = "a tool_use that the next message does not answer once";
		was_user = user;
	}
	if (!why && ar.err == OK && !was_user && rules_count(before, "tool_use", NULL, STR_NONE))
		why = "a tool_use at the end";
	arena_free(&ar);
	return why;
}

#endif
