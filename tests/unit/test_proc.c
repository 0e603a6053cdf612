/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_proc.c - children: what they are given, what they leave behind, and that
 * nothing of them survives its job, its daemon or its spawner.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"
#include "test.h"

#define WAIT_US (8 * US_PER_S)

/* A daemon's worth of things; every test makes and ends its own. */
static struct spawner spawner;
static struct ev *ev;
static struct procs *procs;

struct seen {
	int calls;
	enum err err;
	int exit_code, signal;
	bool truncated;
	size_t n;
	char out[4096], errs[512], why[256];
	struct buf all;         // the whole output, when max is set
};

static bool
tortured(void)
{
	return getenv("FAULT_AT") != NULL || getenv("FAULT_VERBOSE") != NULL;
}

static bool
begin(void)
{
	struct fail f = FAIL_INIT;
	enum err e;

	spawner = (struct spawner){ -1, 0 };
	ev = NULL;
	procs = NULL;
	e = spawner_start(&spawner, &f);
	if (e == OK)
		e = ev_new(&ev);
	if (e == OK)
		e = procs_new(ev, &spawner, &procs);
	CHECK_OK(e);
	if (e == OK)
		return true;
	ev_free(ev);
	spawner_stop(&spawner);
	return false;
}

static void
end(void)
{
	procs_free(procs);
	ev_free(ev);
	spawner_stop(&spawner);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);       /* no zombie, no orphan */
}

static void
copy(char *to, size_t size, struct str s)
{
	size_t n = s.n < size - 1 ? s.n : size - 1;

	if (n > 0)
		memcpy(to, s.p, n);
	to[n] = '\0';
}

static void
on_result(void *arg, struct proc *p, const struct proc_result *r)
{
	struct seen *s = arg;

	(void)p;
	s->calls++;
	s->err = r->err;
	s->exit_code = r->exit_code;
	s->signal = r->signal;
	s->truncated = r->truncated;
	s->n = r->out.n;
	copy(s->out, sizeof(s->out), r->out);
	copy(s->errs, sizeof(s->errs), r->errs);
	copy(s->why, sizeof(s->why), str_z(r->why));
	if (s->all.max > 0)
		buf_str(&s->all, r->out);
}

/* Turns the loop until s has been called. */
static void
await(struct seen *s)
{
	int64_t until = clock_mono_us() + WAIT_US;

	while (s->calls == 0 && clock_mono_us() < until)
		if (ev_once(ev, 100 * US_PER_MS) != OK) {
			CHECK(FAULTED());
			return;
		}
	CHECK(s->calls == 1);
}

static void
run(const struct proc_req *req, struct seen *s)
{
	struct buf all = s->all;

	*s = (struct seen){ .err = ERR_COUNT, .all = all };
	CHECK_OK(proc_start(procs, req, on_result, s, NULL));
	if (procs_alive(procs))
		await(s);
	if (s->err != OK && s->calls > 0 && s->why[0] == '\0')
		CHECK(FAULTED());
}

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define SH(script) ARGV("sh", "-c", script)

/* Dead, or a zombie that init has not yet fetched; waits for it a little. */
static bool
gone(long pid)
{
	char path[64], line[256];
	int64_t until = clock_mono_us() + US_PER_S;
	const char *p;
	size_t got;
	ssize_t n;
	int fd;

	do {
		if (pid <= 1 || kill((pid_t)pid, 0) != 0)
			return true;
		snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		for (got = 0; fd >= 0 && got < sizeof(line) - 1; got += (size_t)n)
			if ((n = read(fd, line + got, sizeof(line) - 1 - got)) <= 0)
				break;
		if (fd >= 0)
			close(fd);
		line[got] = '\0';
		p = strrchr(line, ')');
		if (p != NULL && p[1] != '\0' && p[2] == 'Z')
			return true;
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	} while (clock_mono_us() < until);
	return false;
}

/* Every number in text is a process that is gone; there are count of them. */
static void
all_gone(const char *text, int count)
{
	char *rest;
	long pid;
	int n = 0;

	while ((pid = strtol(text, &rest, 10)) != 0 && rest != text) {
		n++;
		CHECK(gone(pid));
		text = rest;
	}
	CHECK(n == count);
}

/* ---- what a child is given ------------------------------------------------------------ */

TEST(input_comes_back)
{
	struct seen s = { .all = BUF_INIT(1 << 20) };
	struct buf in = BUF_INIT(1 << 20);
	struct proc_req req = { .argv = ARGV("cat"), .output_max = 1 << 20 };
	int i, fd;

	if (!begin())
		return;
	for (i = 0; i < 15000; i++)
		buf_fmt(&in, "line %d\n", i);
	req.input = buf_view(&in);
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 0 && !s.truncated);
	CHECK(str_eq(buf_view(&s.all), buf_view(&in)));
	buf_free(&s.all);
	buf_free(&in);
	s.all.max = 0;
	/* a child that does not listen */
	req.argv = ARGV("true");
	req.input = S("nobody reads this");
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 0);
	/* no input is the end of file */
	req = (struct proc_req){ .argv = ARGV("cat"), .output_max = 100 };
	run(&req, &s);
	CHECK(s.err == OK && s.n == 0);
	fd = open("tests/fault.flags", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		req.input_fd = fd;
		req.argv = ARGV("head", "-c", "4");
		run(&req, &s);
		CHECK(s.err == OK && strcmp(s.out, "-Wl,") == 0);
		CHECK(fcntl(fd, F_GETFD) >= 0);
		close(fd);
	}
	end();
}

TEST(surroundings_are_clean)
{
	struct seen s = { 0 };
	struct proc_req req = { .argv = ARGV("env"), .output_max = 4096 };
	int leak = open("/dev/null", O_RDWR);   /* not close-on-exec, on purpose */

	setenv("BLUFIO_TEST_SECRET", "sesame", 1);
	if (!begin()) {
		close(leak);
		return;
	}
	run(&req, &s);
	CHECK(strcmp(s.out, "PATH=" PROC_PATH "\nLANG=C.UTF-8\nHOME=/nonexistent\n") == 0);
	req.env = ARGV("A=1");
	run(&req, &s);
	CHECK(strcmp(s.out, "A=1\n") == 0);
	req.argv = SH("umask; ulimit -c; ulimit -t; ulimit -f; pwd; trap");
	req.limits.cpu_s = 7;
	req.cwd = "/usr";
	run(&req, &s);
	CHECK(strcmp(s.out, "0077\n0\n7\n131072\n/usr\n") == 0);
	if (getenv("LD_PRELOAD") == NULL) {     /* valgrind adds a descriptor and has its own idea of limits */
		req.argv = ARGV("ls", "/proc/self/fd"); /* 3 is the directory it reads */
		run(&req, &s);
		CHECK(strcmp(s.out, "0\n1\n2\n3\n") == 0);
		req.argv = SH("ulimit -n; ulimit -v");
		run(&req, &s);
		CHECK(strcmp(s.out, "64\n524288\n") == 0);
	}
	if (strcmp(spawner_system(), "linux") == 0) {
		req.argv = ARGV("grep", "-E", "^(NoNewPrivs|SigBlk|SigIgn):", "/proc/self/status");
		run(&req, &s);
		/* 32 and 33 are the C library's own: it lets nobody change them */
		CHECK(strcmp(s.out, "SigBlk:\t0000000000000000\n"
		    "SigIgn:\t0000000000000000\nNoNewPrivs:\t1\n") == 0 ||
		    strcmp(s.out, "SigBlk:\t0000000000000000\n"
		    "SigIgn:\t0000000180000000\nNoNewPrivs:\t1\n") == 0);
	}
	/* its own session: the terminal's keys do not reach it */
	req.argv = SH("read a b c d e f g < /proc/$$/stat && test $f = $$");
	run(&req, &s);
	CHECK(s.exit_code == 0);
	end();
	close(leak);
	unsetenv("BLUFIO_TEST_SECRET");
}

TEST(ends_are_told_apart)
{
	struct seen s = { 0 };
	struct proc_req req = { .argv = SH("echo out; echo err >&2; exit 7"), .output_max = 100 };

	if (!begin())
		return;
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 7 && s.signal == 0 && s.why[0] == '\0');
	CHECK(strcmp(s.out, "out\n") == 0 && strcmp(s.errs, "err\n") == 0);
	req.argv = SH("kill -9 $$");
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == -1 && s.signal == SIGKILL);
	req.argv = ARGV("no-such-program-here");
	run(&req, &s);
	CHECK(s.err == ERR_NOTFOUND && strstr(s.why, PROC_PATH) != NULL);
	req.argv = ARGV("/no/such/program");
	run(&req, &s);
	CHECK(s.err == ERR_NOTFOUND);
	req.argv = ARGV("bin/sh");
	run(&req, &s);
	CHECK(s.err == ERR_NOTFOUND);
	req.argv = ARGV("/etc/passwd");
	run(&req, &s);
	CHECK(s.err == ERR_DENIED);
	req.argv = ARGV("/bin/true");
	req.cwd = "/no/such/place";
	run(&req, &s);
	CHECK(s.err == ERR_NOTFOUND && strstr(s.why, "working directory") != NULL);
	end();
}

TEST(output_is_bounded)
{
	struct seen s = { 0 };
	struct proc_req req = { .argv = ARGV("echo", "123456789012345"), .output_max = 10 };

	if (!begin())
		return;
	run(&req, &s);
	CHECK(s.err == OK && s.truncated && s.exit_code == 0);
	CHECK(strcmp(s.out, "1234567890") == 0);
	req.output_max = 0;
	run(&req, &s);
	CHECK(s.err == OK && s.truncated && s.n == 0);
	req.argv = ARGV("head", "-c", "500000", "/dev/zero");
	req.output_max = 500000;
	run(&req, &s);
	CHECK(s.err == OK && !s.truncated && s.n == 500000);
	req.output_max = 499999;
	run(&req, &s);
	CHECK(s.err == OK && s.truncated && s.n == 499999);
	end();
}

TEST(requests_are_bounded)
{
	const char *many[PROC_ARGS_MAX + 2];
	struct proc_req req = { .argv = many };
	struct buf big = BUF_INIT(PROC_INPUT_MAX + 1);
	struct seen s = { 0 };
	size_t i;

	if (!begin())
		return;
	for (i = 0; i <= PROC_ARGS_MAX; i++)
		many[i] = "true";
	many[i] = NULL;
	CHECK_ERR(proc_start(procs, &req, on_result, &s, NULL), ERR_LIMIT);
	many[0] = NULL;
	CHECK_ERR(proc_start(procs, &req, on_result, &s, NULL), ERR_NOTFOUND);
	many[0] = "true";
	many[PROC_ARGS_MAX] = NULL;
	for (i = 0; i <= PROC_INPUT_MAX; i++)
		if (i % 1024 == 0 && buf_room(&big, i + 1024 <= PROC_INPUT_MAX ? 1024 : 1) == NULL)
			break;
		else
			buf_putc(&big, 'x');
	req.input = buf_view(&big);
	CHECK_ERR(proc_start(procs, &req, on_result, &s, NULL), ERR_LIMIT);
	req.input = STR_NONE;
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 0);         /* the most that is allowed */
	buf_reset(&big);
	for (i = 0; i < PROC_ARG_BYTES_MAX; i++)
		buf_putc(&big, 'y');
	many[1] = buf_z(&big);
	CHECK_ERR(proc_start(procs, &req, on_result, &s, NULL), ERR_LIMIT);
	buf_free(&big);
	end();
}

/* ---- their ends ------------------------------------------------------------------------- */

TEST(deadline_ends_the_group)
{
	struct seen s = { 0 };
	struct proc_req req = { .argv = SH("echo $$; sleep 100 & echo $!; sleep 100"),
	    .output_max = 100, .deadline_us = 300 * US_PER_MS };
	int64_t began;

	if (!begin())
		return;
	began = clock_mono_us();
	run(&req, &s);
	CHECK(s.err == ERR_TIMEOUT && s.signal == SIGTERM);
	CHECK(clock_mono_us() - began < 2 * US_PER_S);
	all_gone(s.out, 2);
	if (!tortured()) {              /* deaf to TERM */
		req.argv = SH("trap '' TERM; echo $$; sleep 100 & echo $!; sleep 100; sleep 100");
		run(&req, &s);
		CHECK(s.err == ERR_TIMEOUT && s.signal == SIGKILL);
		all_gone(s.out, 2);
	}
	end();
}

/* The leader ends of itself; what it left in its group does not survive it. */
TEST(background_ends_with_the_job)
{
	struct seen s = { 0 };
	struct proc_req req = { .argv = SH("sleep 100 & echo $!; exit 3"), .output_max = 100 };

	if (!begin())
		return;
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 3);
	all_gone(s.out, 1);
	end();
}

TEST(setsid_does_not_escape)
{
	struct seen s = { 0 };
	struct proc_req req = { .output_max = 100, .deadline_us = 4 * US_PER_S };
	long pid;

	if (!begin())
		return;
	req.argv = SH("setsid sleep 100 & echo $!; sleep 0.1; exit 3");
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 3);
	if (spawner_lacks()[0] != '\0') {       /* then what it says has to be true */
		pid = strtol(s.out, NULL, 10);
		CHECK(strstr(spawner_lacks(), "setsid") != NULL);
		CHECK(pid > 1 && !gone(pid) && kill((pid_t)pid, SIGKILL) == 0);
		end();
		return;
	}
	all_gone(s.out, 1);
	/* away twice over: an orphan with a session of its own and a child in another */
	req.argv = SH("(setsid sh -c 'echo $$; setsid sleep 100 & echo $!; sleep 100' &); "
	    "sleep 0.3");
	run(&req, &s);
	CHECK(s.err == OK && s.exit_code == 0);
	all_gone(s.out, 2);
	end();
}

/* The hunt for one job's runaways leaves the other jobs alone. */
TEST(orphans_spare_live_jobs)
{
	struct seen a = { 0 }, b = { 0 };
	struct proc_req slow = { .argv = SH("sleep 0.6; echo done"), .output_max = 100 };
	struct proc_req quick = { .argv = SH("setsid sleep 100 & exit 0"), .output_max = 100 };

	if (!begin())
		return;
	CHECK_OK(proc_start(procs, &slow, on_result, &a, NULL));
	CHECK_OK(proc_start(procs, &quick, on_result, &b, NULL));
	if (strcmp(spawner_system(), "linux") == 0 && !FAULTED())
		await(&b);
	if (!FAULTED()) {
		await(&a);
		CHECK(strcmp(a.out, "done\n") == 0 && a.exit_code == 0);
	}
	end();
}

TEST(kill_and_forget)
{
	struct seen s = { 0 };
	struct proc *p = NULL;
	struct proc_req req = { .argv = ARGV("sleep", "100"), .output_max = 100 };

	if (!begin())
		return;
	CHECK_OK(proc_start(procs, &req, on_result, &s, &p));
	if (p != NULL) {
		proc_kill(p);
		proc_kill(p);
		CHECK(s.calls == 0);
		await(&s);
		CHECK(s.err == ERR_CANCELLED && (s.signal == SIGTERM || s.signal == SIGKILL));
	}
	s.calls = 0;
	CHECK_OK(proc_start(procs, &req, on_result, &s, NULL));
	end();                          /* procs_free kills it and tells nobody */
	CHECK(s.calls == 0);
}

static void
free_all(void *arg, struct proc *p, const struct proc_result *r)
{
	int *calls = arg;

	(void)p;
	(void)r;
	++*calls;
	procs_free(procs);
	procs = NULL;
}

static void
start_next(void *arg, struct proc *p, const struct proc_result *r)
{
	int *calls = arg;
	struct proc_req req = { .argv = ARGV("true"), .output_max = 10 };

	proc_kill(p);                   /* over already */
	CHECK(r->err == OK || FAULTED());
	++*calls;
	CHECK_OK(proc_start(procs, &req, free_all, calls, NULL));
	CHECK_OK(proc_start(procs, &req, free_all, calls, NULL));
}

TEST(callbacks_may_do_anything)
{
	struct proc_req req = { .argv = ARGV("true"), .output_max = 10 };
	int calls = 0, i;

	if (!begin())
		return;
	CHECK_OK(proc_start(procs, &req, start_next, &calls, NULL));
	for (i = 0; i < 80 && procs != NULL; i++)
		if (ev_once(ev, 100 * US_PER_MS) != OK || FAULTED())
			break;
	CHECK(calls == 2);
	end();
}

TEST(as_many_as_allowed)
{
	static struct seen s[PROC_CHILDREN_MAX];
	struct proc_req req = { .argv = ARGV("cat"), .output_max = 100, .input = S("x") };
	struct seen one = { 0 };
	size_t i, n = tortured() ? 4 : PROC_CHILDREN_MAX;

	if (!begin())
		return;
	memset(s, 0, sizeof(s));
	for (i = 0; i < n; i++)
		CHECK_OK(proc_start(procs, &req, on_result, &s[i], NULL));
	if (n == PROC_CHILDREN_MAX)
		CHECK_ERR(proc_start(procs, &req, on_result, &one, NULL), ERR_LIMIT);
	for (i = 0; i < n && !FAULTED(); i++) {
		await(&s[i]);
		CHECK(s[i].err == OK && strcmp(s[i].out, "x") == 0);
	}
	end();
}

/* ---- the deaths of others ------------------------------------------------------------------ */

TEST(spawner_dies)
{
	struct seen s = { 0 };
	struct proc_req req = { .argv = SH("echo $$; exec sleep 5"), .output_max = 100 };
	int i;

	if (!begin())
		return;
	CHECK_OK(proc_start(procs, &req, on_result, &s, NULL));
	for (i = 0; i < 3 && !FAULTED(); i++)
		CHECK_OK(ev_once(ev, 100 * US_PER_MS));
	if (!FAULTED()) {
		CHECK(procs_alive(procs));
		kill(spawner.pid, SIGKILL);
		await(&s);
		CHECK(s.err == ERR_CLOSED && !procs_alive(procs));
		CHECK_ERR(proc_start(procs, &req, on_result, &s, NULL), ERR_CLOSED);
		if (strcmp(spawner_system(), "linux") == 0)
			all_gone(s.out, 1);
	}
	end();
}

/* What a daemon does, until it is killed. */
_Noreturn static void
daemon_life(const char *dir)
{
	struct proc_req req = { .cwd = dir, .argv = SH("echo $$ > a; setsid sleep 5 & echo $! >> a; "
	    "trap '' TERM HUP; sleep 100 & echo $! >> a; mv a pids; wait; sleep 100") };
	struct seen s = { 0 };

	if (begin() && proc_start(procs, &req, on_result, &s, NULL) == OK)
		IGNORE(ev_run(ev));     /* ends by SIGKILL */
	_exit(1);
}

TEST(daemon_is_killed)
{
	char dir[] = "/tmp/blufio-proc-XXXXXX", path[64];
	struct buf pids = BUF_INIT(1000);
	struct stat st;
	int64_t until = clock_mono_us() + WAIT_US, began;
	pid_t pid;

	if (tortured()) {
		SKIP("its daemon is another process");
		return;
	}
	if (mkdtemp(dir) == NULL) {
		test_bad_at_(__FILE__, __LINE__, "mkdtemp");
		return;
	}
	snprintf(path, sizeof(path), "%s/pids", dir);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		daemon_life(dir);
	if (pid < 0) {                  /* kill(-1) would be everybody */
		test_bad_at_(__FILE__, __LINE__, "fork");
		rmdir(dir);
		return;
	}
	while (stat(path, &st) != 0 && clock_mono_us() < until)
		nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
	CHECK_OK(file_read(path, 1000, &pids, NULL));
	kill(pid, SIGKILL);
	began = clock_mono_us();
	waitpid(pid, NULL, 0);
	if (spawner_lacks()[0] == '\0')
		all_gone(buf_z(&pids), 3);
	else
		CHECK(gone(strtol(buf_z(&pids), NULL, 10)));
	CHECK(clock_mono_us() - began < US_PER_S);
	buf_free(&pids);
	unlink(path);
	rmdir(dir);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	log_set_level(LOG_ERROR);
	RUN(input_comes_back);
	RUN(surroundings_are_clean);
	RUN(ends_are_told_apart);
	RUN(output_is_bounded);
	RUN(requests_are_bounded);
	RUN(deadline_ends_the_group);
	RUN(background_ends_with_the_job);
	RUN(setsid_does_not_escape);
	RUN(orphans_spare_live_jobs);
	RUN(kill_and_forget);
	RUN(callbacks_may_do_anything);
	RUN(as_many_as_allowed);
	RUN(spawner_dies);
	RUN(daemon_is_killed);
	return TEST_END();
}
