/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cmd_daemon.c - serve, and the commands that speak to a running daemon:
 * status, pair, log, stop, reload, dump. None of them opens the database for
 * writing while a daemon lives.
 */
#include "core.h"
#include "crypto/ed25519.h"

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
	static const struct { const char *key, *words; } places[] = { { "address", " on" }, { "socket", " on" },
	    { "metrics", " metrics on" } };

	for (const struct json *c = channels ? channels->first : NULL; c; c = c->next) {
		struct str state = json_str(c, "state", STR_NONE), problem = json_str(c, "detail", STR_NONE);
		int64_t age = json_i64(c, "last_poll_age_s", -1);

		printf("  %.*s", STR_ARG(json_str(c, "name", STR_NONE)));
		if (state.n)
			printf(": %.*s", STR_ARG(state));
		if (age >= 0)
			printf(", last finished poll %lld s ago", (long long)age);
		for (size_t i = 0, n = 0; i < ARRAY_LEN(places); i++)
			if (json_at(c, places[i].key))
				printf("%s%s %.*s", n++ ? "," : ":", places[i].words, STR_ARG(json_str(c, places[i].key, STR_NONE)));
		if (json_at(c, "terminals"))
			printf(": %lld terminal(s)", (long long)json_i64(c, "terminals", 0));
		if (json_at(c, "connections"))
			printf(", %lld connection(s)", (long long)json_i64(c, "connections", 0));
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

/* "model: claude-sonnet-5-5 of anthropic, not asked (Overloaded), next try in 12 s" */
static void
print_provider(const char *what, const struct json *p)
{
	struct str problem = json_str(p, "problem", STR_NONE);

	printf("%s: %.*s of %.*s, %.*s", what, STR_ARG(json_str(p, "model", STR_NONE)), STR_ARG(json_str(p, "name", STR_NONE)),
	    STR_ARG(json_str(p, "state", STR_NONE)));
	if (problem.n)
		printf(" (%.*s)", STR_ARG(problem));
	if (json_i64(p, "next_try_s", -1) >= 0)
		printf(", next try in %lld s", (long long)json_i64(p, "next_try_s", 0));
	putchar('\n');
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
	putchar('\n');
	print_provider("model", json_at(s, "provider"));
	for (const struct json *p = json_at(s, "providers") ? json_at(s, "providers")->first : NULL; p; p = p->next)
		if (!str_eq(json_str(p, "name", STR_NONE), json_str(s, "provider.name", STR_NONE)))
			print_provider("beside it", p);
	print_limits(json_at(s, "provider.rate_limits"));
	if (json_bool(s, "cost.paused", false))
		printf("paused: nothing is asked of a model; next: `blufio resume`\n");
	printf("channels:\n");
	print_channels(json_at(s, "channels"));
	printf("conversations: %lld stored, %lld running of at most %lld, %lld waiting\n",
	    (long long)json_i64(s, "sessions.stored", 0), (long long)json_i64(s, "sessions.running", 0),
	    (long long)json_i64(s, "sessions.max", 0), (long long)json_i64(s, "sessions.waiting", 0));
	printf("compactions: %lld by a model, %lld without, %lld failed\n", (long long)json_i64(s, "compactions.model", 0),
	    (long long)json_i64(s, "compactions.arithmetic", 0), (long long)json_i64(s, "compactions.failed", 0));
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

/* {"cmd":…,"key":argument}, and a device */
static int
ask_for(const struct command_env *env, const char *cmd, const char *key, const char *value, struct str device)
{
	struct buf b = BUF_INIT(65536);
	struct jw w;
	int code;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kz(&w, "cmd", cmd);
	if (value)
		jw_kz(&w, key, value);
	if (device.n)
		jw_kstr(&w, "device", device);
	jw_end_obj(&w);
	code = jw_done(&w) == OK ? ask_daemon(env, buf_view(&b), show_text) : EXIT_USAGE;
	buf_free(&b);
	return code;
}

static int
ask_with(const struct command_env *env, const char *cmd, const char *key, const char *value)
{
	return ask_for(env, cmd, key, value, STR_NONE);
}

/* A device's private half as PKCS #8 in PEM (RFC 8410, 7468), which every library reads; its public half in hex. */
static FALLIBLE
make_device(struct buf *private, struct buf *public)
{
	static const unsigned char prefix[] = { 0x30, 0x2E, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x04, 0x22,
	    0x04, ED25519_SEED_SIZE };
	unsigned char der[sizeof(prefix) + ED25519_SEED_SIZE];
	struct ed25519_key k;
	enum err e = rand_bytes(der + sizeof(prefix), ED25519_SEED_SIZE);

	if (e == OK) {
		memcpy(der, prefix, sizeof(prefix));
		ed25519_key_init(&k, der + sizeof(prefix));
		enc_hex(public, k.public, sizeof(k.public));
		buf_puts(private, "-----BEGIN PRIVATE KEY-----\n");
		enc_base64(private, der, sizeof(der));
		buf_puts(private, "\n-----END PRIVATE KEY-----\n");
		e = private->err != OK ? private->err : public->err;
		secret_wipe(&k, sizeof(k));
	}
	secret_wipe(der, sizeof(der));
	return e;
}

static bool
is_file_name(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (str_chr(S("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-"), s.p[i]) == SIZE_MAX)
			return false;
	return s.n > 0 && s.n <= API_KEY_NAME_MAX;
}

/* First the file, so that nothing is registered whose private half is nowhere. */
static int
pair_device(const struct command_env *env, const char *name)
{
	struct buf private = BUF_INIT(256), public = BUF_INIT(API_KEY_DEVICE_HEX), path = BUF_INIT(4096);
	struct config *config;
	struct fail f = FAIL_INIT;
	enum err e;
	int code = command_config(env, LOG_ERROR, &config);

	if (code != EXIT_OK)
		return code;
	buf_fmt(&path, "%.*s.%s.key", STR_ARG(config_str(config, "storage.database_path")), name);
	config_free(config);
	e = path.err != OK ? path.err : make_device(&private, &public);
	if (e == OK)
		e = file_create(buf_z(&path), buf_view(&private), &f);
	if (e == ERR_EXISTS) {
		fail_clear(&f);
		e = fail_set(&f, e, "%s is there already, and may be a device's only key; next: another NAME, or `rm %s`", buf_z(&path),
		    buf_z(&path));
	}
	if (e != OK) {
		code = command_failed(&f);
	} else {
		code = ask_for(env, "pair_gateway", "name", name, buf_view(&public));
		if (code != EXIT_OK)
			unlink(buf_z(&path));
		else
			printf("%s\n", buf_z(&path));
	}
	if (private.p)
		secret_wipe(private.p, private.cap);
	buf_free(&private);
	buf_free(&public);
	buf_free(&path);
	return code;
}

int
cmd_pair(const struct command_env *env, int argc, char **argv)
{
	bool gateway = argc > 1 && strcmp(argv[1], "--gateway") == 0, device = false;
	const char *word = NULL;
	int code;

	for (int i = 1 + gateway; i < argc; i++) {
		if (gateway && !device && strcmp(argv[i], "--device") == 0)
			device = true;
		else if (word || argv[i][0] == '-')
			return command_usage("pair [CODE | --gateway [NAME] [--device]]");
		else
			word = argv[i];
	}
	if (!gateway)
		return ask_with(env, "pair", "code", word);
	if (word == NULL)
		word = "owner";
	if (device && !is_file_name(str_z(word)))
		return command_usage("pair --gateway NAME --device: a NAME of 1 to 64 letters, digits, '-' and '_', as a file has");
	code = device ? pair_device(env, word) : ask_with(env, "pair_gateway", "name", word);
	/* beside the key or the path, so that a script gets it alone */
	if (code == EXIT_OK && device)
		fprintf(stderr, "This device may do everything. Its private half is in that file and nowhere else; it signs what it\n"
		    "sends: docs/API.md has a client that does.\n");
	else if (code == EXIT_OK)
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
