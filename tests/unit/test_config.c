/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_config.c - keys, values, messages, precedence and edits of the configuration. */
#include "core/config.h"
#include "test.h"

#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static const char *
in_dir(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

/* Writes a file with plain calls: the fixture, not what is tested. */
static const char *
with_file(const char *name, const char *text, unsigned mode)
{
	const char *path = in_dir(name);
	FILE *f;

	remove(path);
	f = fopen(path, "w");
	if (!f)
		return path;
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
	return path;
}

static const char *const no_env[] = { NULL };

static enum err
load(struct config **c, const char *text, const char *const *env, struct fail *f)
{
	return config_load(c, with_file("a.toml", text, 0600), env, f);
}

/* The text is refused, and the message holds each of the parts. */
static void
refused(int line, const char *text, const char *part, const char *part2)
{
	struct fail f = FAIL_INIT;
	enum err e = config_check(str_z(text), "b.toml", &f);

	if (e == ERR_CONFIG && strstr(f.text, part) && strstr(f.text, part2))
		return;
	test_bad_at_(__FILE__, line, text);
	if (!FAULTED())
		printf("  got: %s (%s)\n", f.text, err_str(e));
}
#define REFUSED(text, part, part2) refused(__LINE__, text, part, part2)

TEST(defaults)
{
	static const char *const env[] = { "HOME=/home/u", NULL };
	struct config *c = NULL;
	struct fail f = FAIL_INIT;

	CHECK_OK(load(&c, "", env, &f));
	if (!c)
		return;
	CHECK_STR(config_str(c, "agent.name"), "blufio");
	CHECK(config_i64(c, "agent.max_sessions") == 10);
	CHECK(config_i64(c, "agent.drain_timeout") == 25);
	CHECK(config_i64(c, "cost.daily_budget_usd") == 1000000000);
	CHECK_STR(config_str(c, "storage.database_path"), "/home/u/.local/share/blufio/blufio.db");
	CHECK_STR(config_str(c, "storage.durability"), "power");
	CHECK(!config_has(c, "agent.name"));
	CHECK(config_str(c, "log.file").n == 0);
	CHECK(strcmp(config_origin(c, "agent.name"), "default") == 0);
	config_free(c);
	c = NULL;
	CHECK_OK(load(&c, "", no_env, &f));
	if (!c)
		return;
	CHECK_STR(config_str(c, "storage.database_path"), "/var/lib/blufio/blufio.db");
	config_free(c);
}

TEST(values_and_origin)
{
	static const char *const env[] = { "HOME=/home/u", "BLUFIO__AGENT__NAME=env",
	    "BLUFIO__LOG__LEVEL=", "BLUFIO__AGNET__NAME=x", NULL };
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	char want[300];
	int64_t v = 0;

	CHECK_OK(load(&c, "[agent]\nname = \"file\"\nmax_sessions = 3\nsystem_prompt_file = \"p.md\"\n"
	    "[log]\nlevel = \"debug\"\nfile = \"~/l\"\n[cost]\ndaily_budget_usd = 0.123456789\n"
	    "[pricing.\"claude-x.1\"]\ninput = \"3.001\"\noutput = 15\ncontext_window = 1000\n",
	    env, &f));
	if (!c)
		return;
	CHECK_STR(config_str(c, "agent.name"), "env");
	CHECK(strcmp(config_origin(c, "agent.name"), "BLUFIO__AGENT__NAME") == 0);
	CHECK(config_i64(c, "agent.max_sessions") == 3 && config_has(c, "agent.max_sessions"));
	snprintf(want, sizeof(want), "%s:3", in_dir("a.toml"));
	CHECK(strcmp(config_origin(c, "agent.max_sessions"), want) == 0);
	CHECK_STR(config_str(c, "agent.system_prompt_file"), in_dir("p.md"));
	CHECK_STR(config_str(c, "log.level"), "debug");         /* an empty variable is none */
	CHECK_STR(config_str(c, "log.file"), "/home/u/l");
	CHECK(config_i64(c, "cost.daily_budget_usd") == 123456789);
	CHECK(config_wild(c, "pricing.*.input", S("claude-x.1"), &v) && v == 3001);
	CHECK(config_wild(c, "pricing.*.output", S("claude-x.1"), &v) && v == 15000);
	CHECK(config_wild(c, "pricing.*.context_window", S("claude-x.1"), &v) && v == 1000);
	CHECK(!config_wild(c, "pricing.*.max_output", S("claude-x.1"), &v));
	CHECK(!config_wild(c, "pricing.*.input", S("claude-x"), &v));
	config_free(c);
}

TEST(unknown_names)
{
	REFUSED("[agent]\nnaem = 1\n", "b.toml:2:1: unknown key \"agent.naem\" in [agent]",
	    "did you mean \"name\"? next: `blufio config keys`");
	REFUSED("[agent]\ndaily_budget_usd = 1\n", "b.toml:2:1: ", "\"cost.daily_budget_usd\"");
	REFUSED("[agent]\nzzzzzzzz = 1\n", "unknown key \"agent.zzzzzzzz\" in [agent]; next:", "keys");
	REFUSED("\n[agnet]\nname = \"x\"\n", "unknown section [agnet]", "did you mean [agent]?");
	REFUSED("name = \"x\"\n", "unknown key \"name\" outside of any section", "\"agent.name\"");
	REFUSED("[pricing.claude-4.5]\ninput = 1\n", "unknown key \"pricing.claude-4.5\"", "in quotes");
	REFUSED("[pricing.x]\ninputs = 1\n", "in [pricing.x]", "did you mean \"input\"?");
	REFUSED("agent = 3\n", "b.toml:1:1: agent is a section", "[agent]");
	REFUSED("[[agent]]\nname = \"x\"\n", "agent is a section", "[agent]");
	REFUSED("[nowhere]\nport = 1\n", "b.toml:1:", "nowhere");
	REFUSED("[\"a\\u001bb\"]\n", "unknown section [a?b]", "next");
}

TEST(wrong_values)
{
	REFUSED("[agent]\nmax_sessions = \"ten\"\n",
	    "b.toml:2:16: agent.max_sessions wants a whole number from 1 to 4096, got \"ten\"",
	    "example: max_sessions = 10");
	REFUSED("[agent]\nmax_sessions = 0\n", "from 1 to 4096, got 0", "example");
	REFUSED("[agent]\nmax_sessions = 4097\n", "from 1 to 4096, got 4097", "example");
	REFUSED("[cost]\ndaily_budget_usd = 1000000.01\n", "from 0.00 to 1000000.00", "got 1000000.01");
	REFUSED("[agent]\nname = true\n", "wants a string", "got true; example: name = \"blufio\"");
	REFUSED("[agent]\nname = \"\"\n", "1 to 63 bytes", "got \"\"");
	REFUSED("[agent.name]\nx = 1\n", "wants a string", "got a section");
	REFUSED("[agent]\nsystem_prompt = \"a\\u0000b\"\n", "wants a string", "got");
	REFUSED("[log]\nlevel = \"loud\"\n", "one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
	    "got \"loud\"");
	REFUSED("[cost]\ndaily_budget_usd = -1\n", "US dollars", "got -1");
	REFUSED("[cost]\ndaily_budget_usd = \"1e3\"\n", "US dollars",
	    "example: daily_budget_usd = 1.00");
	REFUSED("[cost]\ndaily_budget_usd = 1.0000000001\n", "at most 9 decimals", "got 1.0000000001");
	REFUSED("[cost]\ndaily_budget_usd = inf\n", "US dollars", "got inf");
	REFUSED("[pricing.\"m.1\"]\ninput = \"0.0001\"\n", "pricing.\"m.1\".input wants", "3 decimals");
	REFUSED("[providers]\ndefault = \"nobody\"\n", "b.toml:2: providers.default names \"nobody\"",
	    "it has:");
	REFUSED("[agent]\nname = \n", "b.toml:2:", "next: correct that line");
}

TEST(provider_names)
{
	struct fail f = FAIL_INIT;
	char text[128];
	size_t i;

	for (i = 0; features[i]; i++) {
		if (!features[i]->provider || features[i]->provider->instances)
			continue;
		snprintf(text, sizeof(text), "[providers]\ndefault = \"%s\"\n", features[i]->name);
		CHECK_OK(config_check(str_z(text), "b.toml", &f));
	}
}

static bool
have(const char *name)
{
	const struct config_key *k;
	struct str segment;

	return config_key_find(str_z(name), &k, &segment, NULL) == OK;
}

TEST(secrets)
{
	static const char *const env[] = { "ANTHROPIC_API_KEY=sk-plain-0001", NULL };
	static const char *const env2[] = { "ANTHROPIC_API_KEY=sk-plain-0001",
	    "BLUFIO__ANTHROPIC__API_KEY=sk-named-0002", NULL };
	static const char *const bad[] = { "ANTHROPIC_API_KEY=sk-with blank-0003", NULL };
	const char *file = "[anthropic]\napi_key = \"sk-f\\u0069le-0004\"\n";
	struct config *c = NULL;
	struct fail f = FAIL_INIT;

	if (!have("anthropic.api_key")) {
		SKIP("no anthropic in this build");
		return;
	}
	CHECK_OK(load(&c, "[anthropic]\napi_key = \"\"\n", env, &f));
	if (c)
		CHECK_STR(secret_reveal(config_secret(c, "anthropic.api_key")), "sk-plain-0001");
	config_free(c);
	c = NULL;
	CHECK_OK(load(&c, file, env, &f));
	if (c)
		CHECK_STR(secret_reveal(config_secret(c, "anthropic.api_key")), "sk-file-0004");
	config_free(c);
	c = NULL;
	CHECK_OK(load(&c, file, env2, &f));
	if (c)
		CHECK_STR(secret_reveal(config_secret(c, "anthropic.api_key")), "sk-named-0002");
	config_free(c);
	c = NULL;
	CHECK_OK(load(&c, "", no_env, &f));
	if (c)
		CHECK(config_secret(c, "anthropic.api_key") == NULL);
	config_free(c);
	CHECK_ERR(load(&c, "", bad, &f), ERR_CONFIG);
	CHECK(strstr(f.text, "ANTHROPIC_API_KEY: anthropic.api_key holds a blank"));
	CHECK(!strstr(f.text, "0003"));
	REFUSED("[anthropic]\napi_key = 12345\n", "not shown", "example: api_key = \"");
	fail_clear(&f);
	CHECK_ERR(config_check(S("[anthropic]\napi_key = sk-bare-0005\n"), "b.toml", &f), ERR_CONFIG);
	CHECK(!strstr(f.text, "0005") && !strstr(f.text, "sk-"));
	CHECK(FAULTED() || strstr(f.text, "b.toml:2:"));
	REFUSED("[anthropic]\nbase_url = \"http://example.com\"\n",
	    "must begin with https://", "localhost");
	REFUSED("[anthropic]\nbase_url = \"ftp://example.com\"\n", "an https:// address", "got");
	c = NULL;
	CHECK_OK(load(&c, "[anthropic]\nbase_url = \"http://127.0.0.1:80/\"\n", no_env, &f));
	if (c)
		CHECK_STR(config_str(c, "anthropic.base_url"), "http://127.0.0.1:80");
	config_free(c);
}

TEST(ids)
{
	static const char *const env[] = { "BLUFIO__TELEGRAM__ALLOWED_USERS=5, -6", NULL };
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	const int64_t *ids = NULL;

	if (!have("telegram.allowed_users")) {
		SKIP("no telegram in this build");
		return;
	}
	CHECK_OK(load(&c, "[telegram]\nallowed_users = [1, \"22\"]\n", no_env, &f));
	if (c)
		CHECK(config_ids(c, "telegram.allowed_users", &ids) == 2 && ids[0] == 1 && ids[1] == 22);
	config_free(c);
	c = NULL;
	CHECK_OK(load(&c, "[telegram]\nallowed_users = [1]\n", env, &f));
	if (c)
		CHECK(config_ids(c, "telegram.allowed_users", &ids) == 2 && ids[0] == 5 && ids[1] == -6);
	config_free(c);
	REFUSED("[telegram]\nallowed_users = [1,\n \"@name\"]\n",
	    "b.toml:3:2: telegram.allowed_users holds \"@name\": only numeric ids count",
	    "registered by somebody else; next: write to the bot");
	REFUSED("[telegram]\nallowed_users = 7\n", "a list of numeric ids", "example");
	REFUSED("[telegram]\nallowed_users = [1.5]\n", "a list of numeric ids", "got 1.5");
}

TEST(files)
{
	char missing[128], env_config[160], env_xdg[128], env_home[128];
	const char *const env[] = { env_config, NULL }, *const env2[] = { env_xdg, env_home, NULL };
	struct config_files cf;
	struct arena ar = ARENA_INIT(65536);
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	struct buf text = BUF_INIT(4096);

	snprintf(missing, sizeof(missing), "%s/missing.toml", dir);
	CHECK_ERR(config_load(&c, missing, no_env, &f), ERR_CONFIG);
	CHECK(strstr(f.text, missing) && strstr(f.text, "next: "));
	fail_clear(&f);
	CHECK_ERR(config_load(&c, dir, no_env, &f), ERR_CONFIG);
	CHECK(strstr(f.text, "it is a directory"));
	fail_clear(&f);
	snprintf(env_config, sizeof(env_config), "BLUFIO_CONFIG=%s", missing);
	CHECK_ERR(config_load(&c, NULL, env, &f), ERR_CONFIG);
	CHECK(strstr(f.text, missing));
	fail_clear(&f);
	snprintf(env_xdg, sizeof(env_xdg), "XDG_CONFIG_HOME=%s", dir);
	snprintf(env_home, sizeof(env_home), "HOME=%s", dir);
	mkdir(in_dir("blufio"), 0700);
	with_file("blufio/blufio.toml", "[agent]\nname = \"found\"\n", 0600);
	CHECK_OK(config_load(&c, NULL, env2, &f));
	if (c) {
		CHECK_STR(config_str(c, "agent.name"), "found");
		CHECK(strcmp(config_path(c), in_dir("blufio/blufio.toml")) == 0);
		config_searched(c, &text);
		CHECK(strstr(buf_z(&text), "blufio.toml\n") && strstr(buf_z(&text), "/etc/blufio/"));
	}
	config_free(c);
	remove(in_dir("blufio/blufio.toml"));
	remove(in_dir("blufio"));
	if (config_locate(&ar, NULL, env2 + 1, &cf) == OK)
		CHECK(!cf.found && str_ends(str_z(cf.path), S("/.config/blufio/blufio.toml")));
	arena_free(&ar);
	buf_free(&text);
}

/* What `config set` would make of a text: "!" and the reason when it is refused. */
static void
edited(int line, const char *before, const char *name, const char *value, const char *after)
{
	const struct config_key *k;
	struct str segment, old;
	struct fail f = FAIL_INIT;
	struct buf toml = BUF_INIT(4096), out = BUF_INIT(1 << 20);
	enum err e = config_key_find(str_z(name), &k, &segment, &f);

	if (e == OK)
		e = config_value_text(k, segment, str_z(value), &toml, &f);
	if (e == OK)
		e = config_edit(str_z(before), "b.toml", k, segment, buf_view(&toml), &out, &old, &f);
	if (e == OK)
		e = config_check(buf_view(&out), "b.toml", &f);
	if (!FAULTED() && (after[0] == '!' ? e == OK || !strstr(f.text, after + 1) :
	    e != OK || strcmp(buf_z(&out), after) != 0)) {
		test_bad_at_(__FILE__, line, before);
		printf("  got: %s\n%s\n", f.text, buf_z(&out));
	}
	buf_free(&toml);
	buf_free(&out);
}
#define EDIT(before, name, value, after) edited(__LINE__, before, name, value, after)

TEST(edits)
{
	EDIT("# a\n[agent] # b\n  name = 'x' # c\nmax_sessions=3\n", "agent.name", "y\"z",
	    "# a\n[agent] # b\n  name = \"y\\\"z\" # c\nmax_sessions=3\n");
	EDIT("[agent]\n  name = \"x\" # c\n\n# end\n[log]\nlevel = \"info\"\n", "agent.max_sessions", "7",
	    "[agent]\n  name = \"x\" # c\n  max_sessions = 7\n\n# end\n[log]\nlevel = \"info\"\n");
	EDIT("[agent]\n[log]\n", "agent.max_sessions", "7", "[agent]\nmax_sessions = 7\n[log]\n");
	EDIT("[agent]\nname = \"x\"", "agent.max_sessions", "7",
	    "[agent]\nname = \"x\"\nmax_sessions = 7\n");
	EDIT("[agent]", "agent.max_sessions", "7", "[agent]\nmax_sessions = 7\n");
	EDIT("", "agent.max_sessions", "7", "[agent]\nmax_sessions = 7\n");
	EDIT("[log]\r\nlevel = \"info\"\r\n", "agent.max_sessions", "7",
	    "[log]\r\nlevel = \"info\"\r\n\r\n[agent]\r\nmax_sessions = 7\r\n");
	EDIT("agent = { name = \"x\" }\n", "agent.max_sessions", "7",
	    "agent = { name = \"x\", max_sessions = 7 }\n");
	EDIT("agent = {}\n", "agent.max_sessions", "7", "agent = { max_sessions = 7 }\n");
	EDIT("agent.name = \"x\" # c\nlog.level = \"info\"\n", "agent.max_sessions", "7",
	    "agent.name = \"x\" # c\nlog.level = \"info\"\nagent.max_sessions = 7\n");
	EDIT("[pricing.a]\ninput = 1\n", "pricing.claude-4.5.input", "3",
	    "[pricing.a]\ninput = 1\n\n[pricing.\"claude-4.5\"]\ninput = 3.00\n");
	EDIT("[pricing]\n\"b.1\".input = 1\n", "pricing.b.1.output", "2.5",
	    "[pricing]\n\"b.1\".input = 1\n\"b.1\".output = 2.50\n");
	EDIT("pricing = { a.input = 1 }\n", "pricing.a.output", "2",
	    "pricing = { a.input = 1, a.output = 2.00 }\n");
	EDIT("pricing = { a = { input = 1 } }\n", "pricing.b.output", "2",
	    "pricing = { a = { input = 1 }, b.output = 2.00 }\n");
	EDIT("[agent]\nsystem_prompt = \"\"\"\na\nb\"\"\"\n", "agent.system_prompt", "c\nd",
	    "[agent]\nsystem_prompt = \"c\\nd\"\n");
	EDIT("[agent]\nmax_sessions = \"ten\"\n", "agent.max_sessions", "10",
	    "[agent]\nmax_sessions = 10\n");
	EDIT("", "agent.max_sessions", "0", "!from 1 to 4096, got 0");
	EDIT("", "agent.max_sessions", "1\nevil = 2", "!got 1?evil = 2");
	EDIT("[agent\n", "agent.max_sessions", "1", "!b.toml:1:");
	EDIT("", "agent.naem", "1", "!did you mean \"agent.name\"?");
	EDIT("", "providers.default", "nobody", "!which is no provider of this build");
}

TEST(show_round_trip)
{
	static const char text[] = "[agent]\nname = \"a\\\"b\"\n[cost]\ndaily_budget_usd = \"0.50\"\n"
	    "[pricing.\"m.1\"]\ninput = \"1.25\"\n";
	struct config *c = NULL;
	struct fail f = FAIL_INIT;
	const struct config_value *v;
	struct buf out = BUF_INIT(4096);

	CHECK_OK(load(&c, text, no_env, &f));
	for (v = c ? config_values(c) : NULL; v; v = v->next) {
		if (!v->given)
			continue;
		config_name(v->key, v->segment, &out);
		buf_puts(&out, " = ");
		config_value_put(v, false, &out);
		buf_putc(&out, '\n');
	}
	CHECK_STR(buf_view(&out), "agent.name = \"a\\\"b\"\ncost.daily_budget_usd = 0.50\n"
	    "pricing.\"m.1\".input = 1.25\n");
	config_free(c);
	buf_free(&out);
}

TEST(table_is_sound)
{
	const struct config_key *k, *other;
	struct fail f = FAIL_INIT;
	struct buf text = BUF_INIT(4096), name = BUF_INIT(256);
	struct str leaf;
	size_t i, j;

	for (i = 0; (k = config_key_at(i)); i++) {
		for (j = 0; j < i && (other = config_key_at(j)); j++)
			CHECK(strcmp(k->name, other->name) != 0);
		CHECK(k->help && k->help[0]);
		if (k->retired || k->type == CONFIG_SECRET)
			continue;
		/* The example every error shows must be right. */
		config_name(k, S("x.1"), &name);
		(void)config_split(str_z(k->name), &leaf);
		buf_fmt(&text, "[%.*s]\n%.*s = %s\n", (int)(name.n - leaf.n - 1), buf_z(&name),
		    STR_ARG(leaf), config_example(k));
		CHECK_OK(config_check(buf_view(&text), k->name, &f));
		if (f.err != OK && !FAULTED())
			printf("%s\n", f.text);
		fail_clear(&f);
		buf_reset(&text);
		buf_reset(&name);
	}
	buf_free(&text);
	buf_free(&name);
}

int
main(int argc, char **argv)
{
	int code;

	snprintf(dir, sizeof(dir), "/tmp/test_config.%ld", (long)getpid());
	if (mkdir(dir, 0700) != 0)
		return 1;
	TEST_BEGIN(argc, argv);
	RUN(defaults);
	RUN(values_and_origin);
	RUN(unknown_names);
	RUN(wrong_values);
	RUN(provider_names);
	RUN(secrets);
	RUN(ids);
	RUN(files);
	RUN(edits);
	RUN(show_round_trip);
	RUN(table_is_sound);
	code = TEST_END();
	remove(in_dir("a.toml"));
	remove(dir);
	return code;
}
