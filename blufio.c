/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* blufio.c - main(): argv -> command table; nothing else. */
#include "blufio.h"

#include <signal.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

static int cmd_help(const struct command_env *env, int argc, char **argv);

static const struct command commands[] = {
	{ "serve", "", "run the agent: channels, model, control socket", cmd_serve, true },
	{ "shell", "[--chat NAME]", "talk in the terminal (through the daemon when one runs)", cmd_shell, true },
	{ "status", "[--json]", "what the daemon is doing; exit 0 running, 3 not", cmd_status, false },
	{ "config", "get KEY | set KEY VALUE|- | validate [FILE] | show [--origin] | keys [--markdown]",
	  "read, change and check the configuration", cmd_config, false },
	{ "pair", "[CODE | --gateway [NAME] [--device]]",
	  "let a person in by the code the bot gave (without: list), or make a key of the gateway", cmd_pair, false },
	{ "cost", "[--json]", "what was spent today and this month, by model and purpose", cmd_cost, false },
	{ "pause", "", "stop every call to a model, over restarts too", cmd_pause, false },
	{ "resume", "", "lift the pause", cmd_pause, false },
	{ "log", "[LEVEL]", "show or set the daemon's log level until its next start", cmd_log, false },
	{ "reload", "", "make the daemon read its configuration again", cmd_reload, false },
	{ "stop", "", "stop the daemon; running conversations may finish first", cmd_stop, false },
	{ "dump", "[--at-rest]", "the state in memory as JSON, for diagnosis", cmd_dump, false },
	{ "version", "", "version, features and libraries", cmd_version, false },
	{ "help", "", "this text", cmd_help, false },
};

int
cmd_version(const struct command_env *env, int argc, char **argv)
{
	(void)env;
	(void)argc;
	(void)argv;
	printf("blufio %s\nfeatures:", BLUFIO_VERSION);
	for (size_t i = 0; features[i]; i++)
		printf(" %s", features[i]->name);
	printf("\nevent loop: %s\nchildren: %s%s%s\nlibcurl: %s\n", ev_backend(), spawner_system(),
	    spawner_lacks()[0] ? "; absent: " : "", spawner_lacks(), fetch_version());
	for (size_t i = 0; features[i]; i++)
		if (features[i]->kind == FEATURE_STORAGE)
			printf("%s: %s\n", features[i]->name, features[i]->storage->version());
	return EXIT_OK;
}

static int
cmd_help(const struct command_env *env, int argc, char **argv)
{
	(void)env;
	(void)argc;
	(void)argv;
	printf("usage: blufio [--config FILE] COMMAND\n\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		printf("  %-8s %s%s%s\n", commands[i].name, commands[i].summary,
		    commands[i].usage[0] ? "\n           " : "", commands[i].usage);
	printf("\nConfiguration: --config FILE, else $BLUFIO_CONFIG, else the first of ./blufio.toml,\n"
	    "$XDG_CONFIG_HOME/blufio/blufio.toml (~/.config), /etc/blufio/blufio.toml.\n"
	    "BLUFIO__SECTION__KEY in the environment overrides it; docs/CONFIG.md has every key.\n"
	    "Exit codes: 0 done, 3 no daemon runs, 64 usage, 70 internal, 74 input/output, 78 configuration.\n");
	return EXIT_OK;
}

static const struct command *
find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int
unknown(const char *name)
{
	const struct command *near = NULL;
	unsigned best = 3;

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		unsigned d = str_distance(str_z(name), str_z(commands[i].name));

		if (d < best) {
			best = d;
			near = &commands[i];
		}
	}
	fprintf(stderr, "blufio: unknown command \"%s\"; next: `blufio %s`\n", name, near ? near->name : "help");
	return EXIT_USAGE;
}

int
main(int argc, char **argv)
{
	struct spawner spawner = { -1, -1 };
	struct command_env env = { .spawner = &spawner };
	const struct command *cmd;
	struct fail f = FAIL_INIT;
	int at = 1, kept = 0, code;

	signal(SIGPIPE, SIG_IGN);       /* a peer that left is an error of the write, not our end */
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, 1);        /* one thread does the work: arenas for the others are waste */
	/* what is large goes back at once; left alone, the threshold grows with the first large message,
	 * and the heap keeps 3.7 MB after three messages of a megabyte */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
	if (at < argc && strcmp(argv[at], "--config") == 0) {
		if (at + 2 >= argc) {
			fprintf(stderr, "usage: blufio --config FILE COMMAND; next: `blufio help`\n");
			return EXIT_USAGE;
		}
		env.config_path = argv[at + 1];
		at += 2;
	}
	if (at >= argc || strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0)
		return at >= argc ? (cmd_help(&env, 0, NULL), EXIT_USAGE) : cmd_help(&env, 0, NULL);
	if (strcmp(argv[at], "--version") == 0)
		return cmd_version(&env, 0, NULL);
	cmd = find(argv[at]);
	if (cmd == NULL)
		return unknown(argv[at]);
	/* before configuration and environment are read: children come from a process that never saw a secret */
	if (cmd->spawner && spawner_start(&spawner, &f) != OK) {
		fprintf(stderr, "blufio: %s\n", f.text);
		return EXIT_INTERNAL;
	}
	for (int i = at; i < argc; i++) {
		if (i > at && strcmp(argv[i], "--json") == 0)
			env.json = true;
		else if (i > at && i + 1 < argc && strcmp(argv[i], "--config") == 0)
			env.config_path = argv[++i];
		else
			argv[at + kept++] = argv[i];
	}
	code = cmd->run(&env, kept, argv + at);
	if (cmd->spawner)
		spawner_stop(&spawner);
	log_close();
	if (fflush(stdout) != 0 && code == EXIT_OK)
		code = EXIT_IO;
	return code;
}
