/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * spawner.c - the small process that starts every child and outlives none.
 *
 * It is forked before the daemon has read a secret, so no child can find one in
 * memory it inherited. It knows nothing but a table of jobs on its stack: no
 * log, no loop of the daemon's.
 *
 * One job is one process group (and session) led by the process it forked. Its
 * life ends in reap(): the leader is dead but not yet waited for, so its number
 * still names its group, and the rest of the group is killed; then orphans are
 * killed, that is whatever the system has reparented to the spawner; then the
 * daemon is told. An orphan's children become orphans when it dies, and its
 * death wakes reap() again, so a tree of runaways is taken down layer by layer.
 *
 * The socket closing means that the daemon is gone, for whatever reason: then
 * everything is killed and the spawner exits. Terminal signals are ignored, or
 * Ctrl-C would kill it before the daemon had drained.
 *
 * A child that cannot reach its program says so on the spawner's socket by
 * itself; the socket is close-on-exec, so the program never has it.
 */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_MAX 3                               /* descriptors of one request */
#define STRINGS_MAX (PROC_ARGS_MAX + PROC_ENV_MAX + 3)
#define END_US US_PER_S                         /* to kill everything, then exit anyway */
#define STOP_US (3 * US_PER_S)                  /* spawner_stop waits, then kills it */
#define PAUSE_NS 5000000
#define SEND_S 1                                /* the daemon waits to hand over a request */
#define REPORT_TRIES 100
#define DESCRIPTORS_MAX 65536                   /* a limit on open files may be huge */

struct spawner_state {
	int sock;
	uint64_t ids[PROC_CHILDREN_MAX];        // jobs by the daemon's numbers; 0 = free
	int pids[PROC_CHILDREN_MAX];            // leaders of their groups; 0 = free
	union {                         // one datagram
		struct proc_request head;
		char bytes[PROC_REQUEST_MAX];
	} request;
	char *strings[STRINGS_MAX];     // argv, NULL, environment, NULL, cwd
	int fds[FDS_MAX];
	size_t n_fds;
};

/* ---- reports --------------------------------------------------------------------- */

/* Blocks when the daemon does not read; at most two reports a job are under way,
 * which any socket buffer holds. A report lost is a job the daemon waits for in
 * vain, so a passing trouble (no memory) is waited out. */
static void
report(int sock, enum proc_report_kind kind, uint64_t id, enum proc_stage stage, int value)
{
	const struct timespec pause = { 0, PAUSE_NS };
	struct proc_report r;
	int tries;

	memset(&r, 0, sizeof(r));       /* no stack bytes in the padding */
	r.kind = kind;
	r.stage = stage;
	r.id = id;
	r.value = value;
	for (tries = 0; tries < REPORT_TRIES; tries++) {
		if (send(sock, &r, sizeof(r), MSG_NOSIGNAL) >= 0)
			return;
		if (errno == EPIPE || errno == ECONNRESET)
			return;                 /* the daemon is gone: reading will tell */
		if (errno != EINTR)
			nanosleep(&pause, NULL);
	}
}

/* ---- the child's side, between fork and exec ------------------------------------------ */

static void
reset_signals(void)
{
	struct sigaction sa;
	sigset_t none;
	int i;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_DFL;
	sigemptyset(&sa.sa_mask);
	for (i = 1; i < 65; i++)
		sigaction(i, &sa, NULL);        /* fails for those nobody may change */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Lowers a limit for good; never above what we may have ourselves. Everybody may
 * lower the hard limit, but not every emulator knows (valgrind keeps its own):
 * there the soft one has to do. */
static int
limit(int what, uint64_t value)
{
	struct rlimit r;
	rlim_t hard;

	if (getrlimit(what, &r) != 0)
		return -1;
	hard = r.rlim_max;
	if (hard == RLIM_INFINITY || value < (uint64_t)hard)
		r.rlim_max = (rlim_t)value;
	r.rlim_cur = r.rlim_max;
	if (setrlimit(what, &r) == 0)
		return 0;
	r.rlim_max = hard;
	return setrlimit(what, &r);
}

static int
set_limits(const struct proc_limits *l)
{
	if (limit(RLIMIT_CORE, 0) != 0 || limit(RLIMIT_CPU, l->cpu_s) != 0 ||
	    limit(RLIMIT_FSIZE, l->file_size) != 0 || limit(RLIMIT_NOFILE, l->files) != 0)
		return -1;
#ifdef RLIMIT_NPROC
	if (l->processes != 0 && limit(RLIMIT_NPROC, l->processes) != 0)
		return -1;
#endif
	return limit(RLIMIT_AS, l->memory);     /* last: nothing of ours needs memory after it */
}

/* stdin, stdout, stderr. What came with the request lies above 2, because the
 * spawner keeps 0 to 2 open; everything above 2 closes on exec. */
static int
set_descriptors(const struct spawner_state *st)
{
	size_t i, first = st->n_fds == FDS_MAX ? 0 : 1;
	int null;

	for (i = 0; i < st->n_fds; i++)
		if (dup2(st->fds[i], (int)(i + first)) < 0)
			return -1;
	if (first == 0)
		return 0;
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return null < 0 ? -1 : dup2(null, 0);
}

/* A plain name is looked up in PROC_PATH, not in the caller's PATH. Returns the errno. */
static int
reach_program(char *const *argv, char *const *env)
{
	char path[PATH_MAX];
	const char *dir = PROC_PATH, *colon;
	int why = ENOENT, n;

	if (argv[0][0] == '/') {
		execve(argv[0], argv, env);
		return errno;
	}
	if (argv[0][0] == '\0' || strchr(argv[0], '/') != NULL)
		return ENOENT;
	for (; dir != NULL; dir = colon != NULL ? colon + 1 : NULL) {
		colon = strchr(dir, ':');
		n = colon != NULL ? (int)(colon - dir) : (int)strlen(dir);
		n = snprintf(path, sizeof(path), "%.*s/%s", n, dir, argv[0]);
		if (n < 0 || (size_t)n >= sizeof(path))
			return ENAMETOOLONG;
		execve(path, argv, env);
		if (errno != ENOENT && errno != ENOTDIR)
			why = errno;            /* found, but not to be run */
	}
	return why;
}

_Noreturn static void
child(const struct spawner_state *st, int parent)
{
	const struct proc_request *q = &st->request.head;
	char *const *argv = st->strings, *const *env = argv + q->argc + 1;
	const char *cwd = env[q->envc + 1];
	enum proc_stage stage = PROC_AT_SETUP;
	int why = 0;

	reset_signals();
	umask(077);
	if (setsid() < 0 || set_descriptors(st) < 0 || spawner_system_confine(parent) != OK ||
	    set_limits(&q->limits) != 0) {
		why = errno;
	} else if (chdir(cwd) != 0) {
		why = errno;
		stage = PROC_AT_CWD;
	} else {
		why = reach_program(argv, env);
		stage = PROC_AT_EXEC;
	}
	report(st->sock, PROC_FAILED, q->id, stage, why);
	_exit(127);
}

/* ---- requests ---------------------------------------------------------------------------- */

/* The index of the job, or PROC_CHILDREN_MAX. */
static size_t
find_id(const struct spawner_state *st, uint64_t id)
{
	size_t i = 0;

	while (i < PROC_CHILDREN_MAX && st->ids[i] != id)
		i++;
	return i;
}

static size_t
find_pid(const struct spawner_state *st, int pid)
{
	size_t i = 0;

	while (i < PROC_CHILDREN_MAX && st->pids[i] != pid)
		i++;
	return i;
}

/* The group, or the process alone while it has not yet made its group. */
static void
signal_group(int pid, int signo)
{
	if (kill(-pid, signo) != 0)
		kill(pid, signo);
}

/* Points st->strings into the request. False when the bytes do not add up. */
static bool
lay_out(struct spawner_state *st, size_t n)
{
	const struct proc_request *q = &st->request.head;
	char *p = st->request.bytes + sizeof(*q), *end = st->request.bytes + n, *nul;
	size_t want, i, k = 0;

	if (q->argc < 1 || q->argc > PROC_ARGS_MAX || q->envc > PROC_ENV_MAX || q->id == 0 ||
	    st->n_fds < 2)
		return false;
	want = (size_t)q->argc + q->envc + 1;
	for (i = 0; i < want; i++) {
		nul = p < end ? memchr(p, '\0', (size_t)(end - p)) : NULL;
		if (nul == NULL)
			return false;
		if (i == q->argc)
			st->strings[k++] = NULL;
		if (i == want - 1)
			st->strings[k++] = NULL;
		st->strings[k++] = p;
		p = nul + 1;
	}
	return p == end;
}

static void
start(struct spawner_state *st)
{
	const struct proc_request *q = &st->request.head;
	size_t free_job = find_id(st, 0);
	int parent = (int)getpid();
	pid_t pid = -1;

	errno = EAGAIN;
	if (free_job < PROC_CHILDREN_MAX)
		pid = fork();
	if (pid == 0)
		child(st, parent);
	if (pid < 0) {
		report(st->sock, PROC_FAILED, q->id, PROC_AT_FORK, errno);
		report(st->sock, PROC_ENDED, q->id, 0, 0);
		return;
	}
	st->ids[free_job] = q->id;
	st->pids[free_job] = (int)pid;
}

/* The descriptors that came with a datagram, into st->fds. */
static void
collect_descriptors(struct spawner_state *st, struct msghdr *m)
{
	struct cmsghdr *c;
	size_t i, n;
	int fd;

	st->n_fds = 0;
	for (c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (st->n_fds == FDS_MAX || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
				close(fd);
			else
				st->fds[st->n_fds++] = fd;
		}
	}
}

/* One datagram. False when the daemon is gone. */
static bool
take_request(struct spawner_state *st)
{
	const struct proc_request *q = &st->request.head;
	struct iovec v = { &st->request, sizeof(st->request) };
	union { struct cmsghdr align; char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))]; } ctl;
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.bytes,
	    .msg_controllen = sizeof(ctl.bytes) };
	size_t job;
	ssize_t n = recvmsg(st->sock, &m, 0);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n == 0)
		return false;
	collect_descriptors(st, &m);
	if ((size_t)n >= sizeof(*q) && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		job = find_id(st, q->id);
		if (q->kind == PROC_START && job == PROC_CHILDREN_MAX && lay_out(st, (size_t)n))
			start(st);
		else if (q->kind == PROC_SIGNAL && job < PROC_CHILDREN_MAX && q->id != 0)
			signal_group(st->pids[job], (int)q->signo);
	}
	while (st->n_fds > 0)
		close(st->fds[--st->n_fds]);
	return true;
}

/* ---- the spawner ----------------------------------------------------------------------------- */

/* Buries all the dead; see the top of the file for the order. False when there is
 * no child left. */
static bool
reap(struct spawner_state *st)
{
	struct { uint64_t id; int status; } ended[PROC_CHILDREN_MAX];
	siginfo_t si;
	size_t n = 0, i, job;
	bool any = false;
	int status, r;

	for (;;) {
		memset(&si, 0, sizeof(si));
		r = waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT);
		if (r != 0 || si.si_pid == 0 || n == PROC_CHILDREN_MAX)
			break;
		job = find_pid(st, (int)si.si_pid);
		if (job < PROC_CHILDREN_MAX)
			kill(-si.si_pid, SIGKILL);
		status = 0;
		waitpid(si.si_pid, &status, 0);
		any = true;
		if (job < PROC_CHILDREN_MAX) {
			ended[n].id = st->ids[job];
			ended[n++].status = status;
			st->ids[job] = 0;
			st->pids[job] = 0;
		}
	}
	if (any)
		spawner_system_kill_orphans(st->pids, PROC_CHILDREN_MAX);
	for (i = 0; i < n; i++)
		report(st->sock, PROC_ENDED, ended[i].id, 0, ended[i].status);
	return r == 0;
}

/* The daemon is gone: so is everything it asked for. */
static void
end_all(struct spawner_state *st)
{
	const struct timespec pause = { 0, PAUSE_NS };
	int64_t until = clock_mono_us() + END_US;
	size_t i;

	do {
		for (i = 0; i < PROC_CHILDREN_MAX; i++)
			if (st->pids[i] != 0)
				signal_group(st->pids[i], SIGKILL);
		spawner_system_kill_orphans(NULL, 0);
		if (!reap(st))
			break;
		nanosleep(&pause, NULL);
	} while (clock_mono_us() < until);
}

static void
on_child(int signo)
{
	(void)signo;                    /* its use is to interrupt pselect */
}

static void
prepare(int sock)
{
	static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2 };
	struct sigaction sa;
	sigset_t chld;
	long max = sysconf(_SC_OPEN_MAX);
	size_t i;
	int null, fd;

	reset_signals();
	memset(&sa, 0, sizeof(sa));
	sigemptyset(&sa.sa_mask);
	sa.sa_handler = SIG_IGN;
	for (i = 0; i < ARRAY_LEN(ignored); i++)
		sigaction(ignored[i], &sa, NULL);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);    /* open only while pselect waits */
	sa.sa_handler = on_child;
	sigaction(SIGCHLD, &sa, NULL);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0)
		dup2(null, 0);
	for (i = 1; i <= 2; i++)                /* taken, so that nothing else lands there */
		if (null >= 0 && fcntl((int)i, F_GETFD) < 0)
			dup2(null, (int)i);
	if (max < 0 || max > DESCRIPTORS_MAX)
		max = DESCRIPTORS_MAX;
	for (fd = 3; fd < (int)max; fd++)
		if (fd != sock)
			close(fd);
	spawner_system_begin();
}

_Noreturn static void
serve(int sock)
{
	struct spawner_state st = { .sock = sock };
	sigset_t open_mask;
	fd_set rd;
	bool alive = true;
	int r;

	prepare(sock);
	sigemptyset(&open_mask);
	while (alive) {
		reap(&st);
		FD_ZERO(&rd);
		FD_SET(sock, &rd);
		r = pselect(sock + 1, &rd, NULL, NULL, NULL, &open_mask);
		if (r > 0)
			alive = take_request(&st);
		else if (r < 0 && errno != EINTR)
			alive = false;
	}
	end_all(&st);
	close(sock);
	exit(0);        /* not _exit: what the libraries set up when they were loaded is theirs to free */
}

/* ---- the daemon's side --------------------------------------------------------------------------- */

/* A close-on-exec copy of *fd above 2 in its place, so that it can neither become
 * nor be mistaken for a standard stream. */
static FALLIBLE
lift(int *fd)
{
	int high = fcntl(*fd, F_DUPFD_CLOEXEC, 3);

	if (high < 0)
		return err_errno(errno);
	close(*fd);
	*fd = high;
	return OK;
}

enum err
spawner_start(struct spawner *s, struct fail *f)
{
	int pair[2] = { -1, -1 };
	const struct timeval patience = { SEND_S, 0 };
	pid_t pid = -1;
	enum err e = OK;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0)
		e = err_errno(errno);
	if (e == OK)
		e = lift(&pair[0]);
	if (e == OK)
		e = lift(&pair[1]);
	/* A spawner that reads nothing for so long is stuck. */
	if (e == OK && setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0)
		e = err_errno(errno);
	if (e == OK && pair[1] >= (int)FD_SETSIZE)
		e = ERR_LIMIT;          /* forked first, so this means hundreds of inherited files */
	if (e == OK) {
		pid = fork();
		if (pid < 0)
			e = err_errno(errno);
	}
	if (pid == 0) {
		close(pair[0]);
		serve(pair[1]);
	}
	if (pair[1] >= 0)
		close(pair[1]);
	if (e != OK) {
		if (pair[0] >= 0)
			close(pair[0]);
		return fail_set(f, e, "cannot start the spawner process: %s. `ulimit -a` shows "
		    "the limits on processes and open files", err_str(e));
	}
	s->fd = pair[0];
	s->pid = (int)pid;
	return OK;
}

void
spawner_stop(struct spawner *s)
{
	const struct timespec pause = { 0, PAUSE_NS };
	int64_t until = clock_mono_us() + STOP_US;
	pid_t r = 0;

	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	if (s->pid <= 0)
		return;
	while ((r = waitpid(s->pid, NULL, WNOHANG)) == 0 && clock_mono_us() < until)
		nanosleep(&pause, NULL);
	if (r == 0) {                   /* stopped or stuck: its children die with it */
		kill(s->pid, SIGKILL);
		while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	s->pid = 0;
}
