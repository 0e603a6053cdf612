/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cmd_daemon.c - serve, and the commands that speak to a running daemon:
 * status, pair, log, stop, reload, dump. None of them opens the database for
 * writing while a daemon lives.
 */
#include "core.h"

#include <unistd.h>

/* ---- serve ---------------------------------------------------------------------------- */

static int
nothing_configured(const struct config *c, const struct fail *why)
{
	struct buf files = BUF_INIT(4096);

	config_searched(c, &files);
	fprintf(stderr, "blufio: %s\n", why->text);
	if (config_path(c) == NULL)
		fprintf(stderr, "no configuration file was found; looked for:\n%s"
		    "give it either the environment\n"
		    "  ANTHROPIC_API_KEY=…  BLUFIO__TELEGRAM__BOT_TOKEN=…  blufio serve\n"
		    "or a file:\n"
		    "  blufio config set anthropic.api_key -\n"
		    "  blufio config set telegram.bot_token -\n"
		    "  blufio serve\n"
		    "To try it without any key: blufio shell\n", buf_z(&files));
	buf_free(&files);
	return EXIT_CONFIG;
}

/* A model to think with and a way to be talked to. */
static int
check_configured(const struct config *c)
{
	const struct feature *p = feature_find(FEATURE_PROVIDER, config_str(c, "providers.default"));
	struct fail f = FAIL_INIT;
	bool channel = false, none = true;

	for (size_t i = 0; features[i]; i++)
		if (features[i]->kind == FEATURE_CHANNEL) {
			none = false;
			channel = channel || features[i]->channel->wanted(c);
		}
	if (p && !p->provider->configured(c, &f))
		return nothing_configured(c, &f);
	if (!channel && !none && config_path(c) == NULL) {
		IGNORE(fail_set(&f, ERR_CONFIG, "no channel is configured: telegram.bot_token is not set and the"
		    " environment has no BLUFIO__TELEGRAM__BOT_TOKEN"));
		return nothing_configured(c, &f);
	}
	return EXIT_OK;
}

static enum err
open_log(const struct config *c, struct fail *f)
{
	struct str format = config_str(c, "log.format"), file = config_str(c, "log.file");
	enum log_level level = LOG_INFO;

	if (log_level_parse(config_str(c, "log.level"), &level) != OK)
		level = LOG_INFO;       /* the configuration was checked already */
	log_close();
	return log_open(level, str_eqz(format, "json") ? LOG_JSON : str_eqz(format, "text") ? LOG_TEXT : LOG_AUTO,
	    file.n ? file.p : NULL, f);
}

int
cmd_serve(const struct command_env *env, int argc, char **argv)
{
	struct config *config;
	struct agent *a;
	struct fail f = FAIL_INIT;
	enum err e;
	int code = command_config(env, LOG_WARN, &config);

	(void)argv;
	if (code != EXIT_OK)
		return code;
	if (argc > 1)
		code = command_usage("serve");
	else
		code = check_configured(config);
	if (code != EXIT_OK) {
		config_free(config);
		return code;
	}
	if (open_log(config, &f) != OK || agent_new(&a, config, env->spawner, true, &f) != OK) {
		config_free(config);
		code = command_failed(&f);
		return code == EXIT_NOT_RUNNING ? EXIT_IO : code;       /* a file that is not there */
	}
	e = agent_run(a);
	if (e != OK)
		log_error("agent", "the event loop failed: %s; next: `blufio serve`", err_str(e));
	code = e == OK ? a->exit_code : EXIT_INTERNAL;
	log_info("agent", "stopped");
	agent_free(a);
	return code;
}

/* ---- status ------------------------------------------------------------------------------- */

static void
print_channels(const struct json *channels)
{
	for (const struct json *c = channels ? channels->first : NULL; c; c = c->next) {
		struct str state = json_str(c, "state", STR_NONE), problem = json_str(c, "detail", STR_NONE);
		int64_t age = json_i64(c, "last_poll_age_s", -1);

		printf("  %.*s", STR_ARG(json_str(c, "name", STR_NONE)));
		if (state.n)
			printf(": %.*s", STR_ARG(state));
		if (age >= 0)
			printf(", last finished poll %lld s ago", (long long)age);
		if (json_at(c, "terminals"))
			printf(": %lld terminal(s)", (long long)json_i64(c, "terminals", 0));
		if (problem.n)
			printf(" (%.*s)", STR_ARG(problem));
		putchar('\n');
	}
}

/* "rate limits of claude-opus: 12 of 1000 requests for 3 s, …" */
static void
print_limits(const struct json *families)
{
	for (const struct json *f = families ? families->first : NULL; f; f = f->next) {
		for (const struct json *l = f->first; l; l = l->next) {
			if (l == f->first)
				printf("rate limits of %.*s: ", STR_ARG(f->key));
			printf("%s%lld of %lld %.*s for %lld s", l == f->first ? "" : ", ", (long long)json_i64(l, "remaining", 0),
			    (long long)json_i64(l, "limit", 0), STR_ARG(l->key), (long long)json_i64(l, "reset_s", 0));
		}
		if (f->first)
			putchar('\n');
	}
}

static void
print_schedule(const struct json *s)
{
	const struct json *h = json_at(s, "heartbeat");
	char wait[32];

	if (json_i64(s, "jobs.next", 0))
		printf("jobs: %lld, next is job %lld on %.*s\n", (long long)json_i64(s, "jobs.count", 0),
		    (long long)json_i64(s, "jobs.next", 0), STR_ARG(json_str(s, "jobs.next_local", STR_NONE)));
	for (h = h ? h->first : NULL; h; h = h->next) {
		struct str problem = json_str(h, "problem", STR_NONE);

		clock_span(json_i64(h, "next_look_s", 0) * US_PER_S, wait);
		printf("heartbeat of %.*s: %.*s, %lld open, %lld due, next look in %s", STR_ARG(json_str(h, "chat", S("nobody"))),
		    STR_ARG(json_str(h, "state", STR_NONE)), (long long)json_i64(h, "open", 0), (long long)json_i64(h, "due", 0), wait);
		if (problem.n)
			printf(" (%.*s)", STR_ARG(problem));
		putchar('\n');
	}
}

static void
print_status(const struct json *s)
{
	char up[32], spent[32], cap[32];
	struct str problem = json_str(s, "storage.problem", STR_NONE), last = json_str(s, "last_error", STR_NONE);

	clock_span(json_i64(s, "uptime_secs", 0) * US_PER_S, up);
	cost_usd(json_i64(s, "cost.today_nano_usd", 0), spent);
	cost_usd(json_i64(s, "cost.daily_cap_nano_usd", 0), cap);
	printf("blufio %.*s: %.*s, up %s, process %lld\n", STR_ARG(json_str(s, "version", STR_NONE)),
	    STR_ARG(json_str(s, "state", STR_NONE)), up, (long long)json_i64(s, "pid", 0));
	printf("features:");
	for (const struct json *f = json_at(s, "features") ? json_at(s, "features")->first : NULL; f; f = f->next)
		printf(" %.*s", STR_ARG(f->s));
	printf("\nmodel: %.*s of %.*s, %.*s", STR_ARG(json_str(s, "provider.model", STR_NONE)),
	    STR_ARG(json_str(s, "provider.name", STR_NONE)), STR_ARG(json_str(s, "provider.state", STR_NONE)));
	if (json_str(s, "provider.problem", STR_NONE).n)
		printf(" (%.*s)", STR_ARG(json_str(s, "provider.problem", STR_NONE)));
	putchar('\n');
	print_limits(json_at(s, "provider.rate_limits"));
	if (json_bool(s, "cost.paused", false))
		printf("paused: nothing is asked of a model; next: `blufio resume`\n");
	printf("channels:\n");
	print_channels(json_at(s, "channels"));
	printf("conversations: %lld stored, %lld running of at most %lld, %lld waiting\n",
	    (long long)json_i64(s, "sessions.stored", 0), (long long)json_i64(s, "sessions.running", 0),
	    (long long)json_i64(s, "sessions.max", 0), (long long)json_i64(s, "sessions.waiting", 0));
	printf("queues: %lld message(s) in, %lld reply(s) out\n", (long long)json_i64(s, "queues.inbound", 0),
	    (long long)json_i64(s, "queues.outbox", 0));
	printf("memory: %lld KB resident\nspent today: %s of %s\n", (long long)json_i64(s, "memory_kb", 0), spent, cap);
	print_schedule(s);
	printf("database: %.*s (%.*s)\n", STR_ARG(json_str(s, "storage.path", STR_NONE)),
	    STR_ARG(json_str(s, "storage.durability", STR_NONE)));
	if (problem.n)
		printf("storage problem: %.*s\n", STR_ARG(problem));
	printf("last error: %.*s\n", STR_ARG(last.n ? last : S("none")));
}

/* Sends one request; on success calls show with the answer. */
static int
ask_daemon(const struct command_env *env, struct str line, void (*show)(const struct json *answer, bool json))
{
	struct arena ar = ARENA_INIT(64u << 20);
	const struct json *answer;
	struct config *config;
	struct fail f = FAIL_INIT;
	int fd = -1, code = command_config(env, LOG_ERROR, &config);

	if (code != EXIT_OK)
		return code;
	if (client_connect(config, &fd, &f) != OK || client_request(fd, line, &ar, &answer, &f) != OK)
		code = command_failed(&f);
	else
		show(answer, env->json);
	if (fd >= 0)
		close(fd);
	arena_free(&ar);
	config_free(config);
	return code;
}

static void
show_status(const struct json *answer, bool json)
{
	const struct json *s = json_at(answer, "status");

	if (json && s)
		printf("%.*s\n", STR_ARG(s->raw));
	else
		print_status(s);
}

static void
show_cost(const struct json *answer, bool json)
{
	const struct json *c = json_at(answer, "cost");
	struct buf b = BUF_INIT(64u << 10);

	cost_text(c, &b);
	printf("%.*s%s", STR_ARG(json && c ? c->raw : buf_view(&b)), json ? "\n" : "");
	buf_free(&b);
}

static void
show_text(const struct json *answer, bool json)
{
	(void)json;
	printf("%.*s", STR_ARG(json_str(answer, "text", STR_NONE)));
}

static void
show_dump(const struct json *answer, bool json)
{
	const struct json *d = json_at(answer, "dump");

	(void)json;
	if (d)
		printf("%.*s\n", STR_ARG(d->raw));
}

int
cmd_status(const struct command_env *env, int argc, char **argv)
{
	(void)argv;
	return argc > 1 ? command_usage("status [--json]") : ask_daemon(env, S("{\"cmd\":\"status\"}"), show_status);
}

/* {"cmd":…,"key":argument} */
static int
ask_with(const struct command_env *env, const char *cmd, const char *key, const char *value)
{
	struct buf b = BUF_INIT(65536);
	struct jw w;
	int code;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "cmd", cmd);
	if (value)
		jw_kz(&w, key, value);
	jw_end_obj(&w);
	code = jw_done(&w) == OK ? ask_daemon(env, buf_view(&b), show_text) : EXIT_USAGE;
	buf_free(&b);
	return code;
}

int
cmd_pair(const struct command_env *env, int argc, char **argv)
{
	bool gateway = argc > 1 && strcmp(argv[1], "--gateway") == 0;
	const char *word = argc > 1 + gateway ? argv[1 + gateway] : NULL;
	int code;

	if (argc > 2 + gateway || (word && word[0] == '-'))
		return command_usage("pair [CODE | --gateway [NAME]]");
	if (!gateway)
		return ask_with(env, "pair", "code", word);
	code = ask_with(env, "pair_gateway", "name", word ? word : "owner");
	if (code == EXIT_OK)            /* beside the key, so that a script gets it alone */
		fprintf(stderr, "This key may do everything and is shown this once. It goes into a header:\n"
		    "  Authorization: Bearer KEY\n");
	return code;
}

int
cmd_log(const struct command_env *env, int argc, char **argv)
{
	return argc > 2 ? command_usage("log [error|warn|info|debug|trace]")
	    : ask_with(env, "log", "level", argc > 1 ? argv[1] : NULL);
}

int
cmd_stop(const struct command_env *env, int argc, char **argv)
{
	(void)argv;
	return argc > 1 ? command_usage("stop") : ask_with(env, "stop", "", NULL);
}

int
cmd_cost(const struct command_env *env, int argc, char **argv)
{
	(void)argv;
	return argc > 1 ? command_usage("cost [--json]") : ask_daemon(env, S("{\"cmd\":\"cost\"}"), show_cost);
}

/* pause, resume */
int
cmd_pause(const struct command_env *env, int argc, char **argv)
{
	bool pause = strcmp(argv[0], "pause") == 0;

	return argc > 1 ? command_usage(argv[0]) : ask_daemon(env, pause ? S("{\"cmd\":\"pause\"}")
	    : S("{\"cmd\":\"pause\",\"pause\":false}"), show_text);
}

int
cmd_reload(const struct command_env *env, int argc, char **argv)
{
	(void)argv;
	return argc > 1 ? command_usage("reload") : ask_with(env, "reload", "", NULL);
}

/* ---- dump ---------------------------------------------------------------------------------- */

/* A database at rest: loaded as a start would, shown, and left as it was (nothing is run or committed
 * beyond what every start writes). */
static int
dump_at_rest(const struct command_env *env)
{
	struct buf b = BUF_INIT(16u << 20);
	struct config *config;
	struct agent *a;
	struct fail f = FAIL_INIT;
	int code = command_config(env, LOG_ERROR, &config);

	if (code != EXIT_OK)
		return code;
	if (agent_new(&a, config, NULL, false, &f) != OK) {
		config_free(config);
		return command_failed(&f);
	}
	status_dump(a, &b);
	printf("%s\n", buf_z(&b));
	buf_free(&b);
	agent_free(a);
	return EXIT_OK;
}

int
cmd_dump(const struct command_env *env, int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--at-rest") == 0)
		return dump_at_rest(env);
	return argc > 1 ? command_usage("dump [--at-rest]") : ask_daemon(env, S("{\"cmd\":\"dump\"}"), show_dump);
}
