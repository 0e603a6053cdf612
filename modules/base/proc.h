/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * proc.h - children. A small spawner process, forked first thing in main
 * before configuration and environment are read, starts every child: clean
 * environment, all descriptors closed but the ones given, own process group,
 * rlimits, no-new-privileges; the spawner is a subreaper, so a child that
 * calls setsid still dies with its group's end. When the daemon dies, even by
 * kill -9, the spawner notices (its socket closes), kills every child and exits.
 *
 * Protocol: SOCK_SEQPACKET pair, one request or report a datagram, descriptors
 * by SCM_RIGHTS. The spawner is the parent (and on Linux the subreaper) of all it
 * starts, and signals a group only before it has waited for the group's leader:
 * no number can have been given to another process by then.
 */
#ifndef BLUFIO_PROC_H
#define BLUFIO_PROC_H

#include "ev.h"

#define PROC_ARGS_MAX 64              /* argv entries */
#define PROC_ARG_BYTES_MAX 32768      /* argv and environment together */
#define PROC_CHILDREN_MAX 64
#define PROC_ENV_MAX 64               /* environment entries */
#define PROC_INPUT_MAX (1u << 20)     /* bytes of input */
#define PROC_PATH "/usr/local/bin:/usr/bin:/bin"

struct spawner { int fd; int pid; };  /* what main keeps: the daemon's end, the spawner's id */
struct procs;                         /* the loop side */
struct proc;                          /* one running child */

/* Call before anything else; returns in the parent only. The child never returns. */
FALLIBLE spawner_start(struct spawner *s, struct fail *f);
void spawner_stop(struct spawner *s); /* closes the socket and waits for its end (it kills its children) */

struct proc_limits {                  /* 0 = the stated default */
	uint64_t cpu_s;               /* RLIMIT_CPU, 60 */
	uint64_t memory;              /* RLIMIT_AS bytes, 512 MB */
	uint64_t file_size;           /* RLIMIT_FSIZE bytes, 64 MB */
	uint64_t files;               /* RLIMIT_NOFILE, 64 */
	uint64_t processes;           /* RLIMIT_NPROC, left as it is */
};
struct proc_req {
	const char *const *argv;      /* argv[0] is an absolute path or looked up in /usr/local/bin:/usr/bin:/bin */
	const char *const *env;       /* "K=V", NULL-terminated; NULL = PATH, LANG=C.UTF-8 and HOME=/nonexistent only */
	const char *cwd;              /* NULL = "/" */
	struct str input;             /* written to the child's stdin, then closed (at most 1 MB); empty = /dev/null */
	int input_fd;                 /* > 2: becomes the child's stdin instead of input; the caller keeps its copy; else 0 */
	size_t output_max;            /* stdout and stderr each; beyond is dropped and flagged */
	int64_t deadline_us;          /* from start; 0 = 60 s; then TERM, 2 s later KILL, to the whole group */
	struct proc_limits limits;
};
struct proc_result {
	enum err err;                 /* OK: it ran and ended; ERR_TIMEOUT, ERR_NOTFOUND (no such program), ERR_CANCELLED … */
	int exit_code;                /* -1 when a signal ended it */
	int signal;                   /* 0 when it exited */
	struct str out, errs;         /* captured; valid during the callback */
	bool truncated;
	const char *why;              /* for people, never NULL; "" when err is OK */
};
typedef void proc_fn(void *arg, struct proc *p, const struct proc_result *r);

/* Ignores SIGPIPE for the process: a child may close its stdin while it is written to. */
FALLIBLE procs_new(struct ev *ev, const struct spawner *s, struct procs **out);
void procs_free(struct procs *ps);    /* kills and forgets all; callbacks are not called */
bool procs_alive(const struct procs *ps);    /* the spawner answers (its socket is open) */
FALLIBLE proc_start(struct procs *ps, const struct proc_req *req, proc_fn *fn, void *arg, struct proc **out);
void proc_kill(struct proc *p);       /* TERM, then KILL after 2 s; fn is still called (ERR_CANCELLED) */

/* ---- between proc.c and spawner.c ---------------------------------------------- */

/* A request: this head, then argc strings of argv, envc of the environment and the
 * working directory, each with its NUL. With PROC_START come two descriptors
 * (stdout, stderr) or three (stdin too; else it is /dev/null). */
enum proc_request_kind { PROC_START = 1, PROC_SIGNAL };
struct proc_request {
	uint32_t kind, argc, envc, signo;
	uint64_t id;
	struct proc_limits limits;    /* with the defaults put in */
};
#define PROC_REQUEST_MAX (sizeof(struct proc_request) + PROC_ARG_BYTES_MAX)

/* Reports. Every job ends with PROC_ENDED; PROC_FAILED comes before it when the
 * program was never reached, from the child itself. */
enum proc_report_kind { PROC_FAILED = 1, PROC_ENDED };
enum proc_stage { PROC_AT_FORK = 1, PROC_AT_SETUP, PROC_AT_CWD, PROC_AT_EXEC };
struct proc_report {
	uint32_t kind, stage;
	uint64_t id;
	int32_t value;                /* PROC_FAILED: errno; PROC_ENDED: wait status */
};

/* The system's part of the spawner (spawner_linux.c or spawner_posix.c, chosen by the Makefile). */
const char *spawner_system(void);     /* "linux" or "posix" */
const char *spawner_lacks(void);      /* the protection that is absent here, for people; "" when none */
/* In the new spawner: becomes a subreaper. */
void spawner_system_begin(void);
/* In a child, before exec: no new privileges; dies with its parent. */
FALLIBLE spawner_system_confine(int parent);
/* Kills every child of this process that is not among the known: those reparented to it. */
void spawner_system_kill_orphans(const int *known, size_t n);

#endif
