/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * proc.c - the loop's side of children: request, pipes, deadline, result.
 *
 * A child is four things that end independently: the job in the spawner, two
 * output pipes and perhaps an input pipe. It is over when the spawner has
 * reported its end and both outputs are at their end; because somebody may have
 * smuggled the write end of a pipe out of the job, the wait for the latter is
 * bounded. Every way to end meets in over(), and the callback runs from a
 * deferred call, so it may start, kill or free whatever it likes.
 *
 *      RUNNING --deadline, proc_kill--> ASKED --2 s--> KILLED --5 s--.
 *         |                               |              |           |
 *         '------------ the spawner reports the end -----'           |
 *                                |                                   |
 *                              ENDED --outputs closed, or 1 s--> OVER (deferred callback)
 *
 * The arrow past ENDED is for a process that even KILL does not end (it hangs
 * in the kernel): the daemon goes on without it.
 *
 * Ids are never used twice on a spawner, so a late report of a forgotten job
 * finds nobody.
 */
#include "proc.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CPU_S 60
#define MEMORY ((uint64_t)512 << 20)
#define FILE_SIZE ((uint64_t)64 << 20)
#define FILES 64
#define DEADLINE_US (60 * US_PER_S)
#define TERM_US (2 * US_PER_S)          /* between TERM and KILL */
#define LOST_US (5 * US_PER_S)          /* between KILL and giving up */
#define DRAIN_US US_PER_S               /* for output that is still held open */
#define READ_CHUNK 8192
#define READS_A_TURN 16                 /* a chatty child does not hold up the loop */

enum phase { RUNNING, ASKED, KILLED, ENDED, OVER };

struct proc {
	struct procs *ps;
	size_t slot;                    // in ps->running; PROC_CHILDREN_MAX: not there
	uint64_t id;
	enum phase phase;
	proc_fn *fn;
	void *arg;
	int in_fd, out_fd, err_fd;      // our ends, -1 when closed
	struct buf in, out, errs;
	size_t in_done;
	struct ev_timer timer;          // what it means depends on the phase
	struct ev_defer defer;
	enum err err;                   // why it did not simply run and end
	bool truncated;
	int status;
	char why[256];
};

struct procs {
	struct ev *ev;
	int fd;                         // main's, not ours to close
	bool alive;
	uint64_t next_id;
	struct proc *running[PROC_CHILDREN_MAX];
};

/* ---- talking to the spawner --------------------------------------------------------- */

/* One datagram with descriptors. The socket gives up when the spawner reads nothing for long. */
static FALLIBLE
send_request(const struct procs *ps, const struct proc_request *q, struct str strings,
    const int *fds, size_t n_fds)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(3 * sizeof(int))]; } ctl;
	struct iovec v[2] = {
		{ (void *)(uintptr_t)q, sizeof(*q) }, { (void *)(uintptr_t)strings.p, strings.n }
	};
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	struct cmsghdr *c;
	ssize_t sent;

	if (n_fds > 0) {
		memset(&ctl, 0, sizeof(ctl));
		m.msg_control = ctl.bytes;
		m.msg_controllen = (socklen_t)CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = (socklen_t)CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		sent = sendmsg(ps->fd, &m, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? err_errno(errno) : OK;
}

static void
send_signal(const struct proc *p, int signo)
{
	const struct proc_request q = { .kind = PROC_SIGNAL, .signo = (uint32_t)signo, .id = p->id };

	/* If it cannot be sent the next stage tries again, and a spawner that is gone
	 * has taken its children with it. */
	IGNORE(send_request(p->ps, &q, STR_NONE, NULL, 0));
}

/* ---- the end of a child ---------------------------------------------------------------- */

static void
close_fd(struct proc *p, int *fd)
{
	if (*fd < 0)
		return;
	ev_fd_del(p->ps->ev, *fd);
	close(*fd);
	*fd = -1;
}

/* Takes it off everything that could call us about it. */
static void
detach(struct proc *p)
{
	close_fd(p, &p->in_fd);
	close_fd(p, &p->out_fd);
	close_fd(p, &p->err_fd);
	ev_timer_cancel(p->ps->ev, &p->timer);
	ev_defer_cancel(&p->defer);
	if (p->slot < PROC_CHILDREN_MAX)
		p->ps->running[p->slot] = NULL;
}

static void
proc_free(struct proc *p)
{
	buf_free(&p->in);
	buf_free(&p->out);
	buf_free(&p->errs);
	free(p);
}

static void
deliver(void *arg)
{
	struct proc *p = arg;
	struct proc_result r = { .err = p->err, .exit_code = -1, .truncated = p->truncated,
	    .why = p->why };

	if (WIFEXITED(p->status))
		r.exit_code = WEXITSTATUS(p->status);
	else if (WIFSIGNALED(p->status))
		r.signal = WTERMSIG(p->status);
	r.out = buf_view(&p->out);
	r.errs = buf_view(&p->errs);
	detach(p);
	p->fn(p->arg, p, &r);           /* may free p->ps */
	proc_free(p);
}

static void
over(struct proc *p)
{
	if (p->phase == OVER)
		return;
	p->phase = OVER;
	ev_timer_cancel(p->ps->ev, &p->timer);
	ev_defer(p->ps->ev, &p->defer);
}

/* The first reason stays. */
static void PRINTF(3, 4)
blame(struct proc *p, enum err e, const char *fmt, ...)
{
	va_list ap;

	if (p->err != OK)
		return;
	p->err = e;
	va_start(ap, fmt);
	vsnprintf(p->why, sizeof(p->why), fmt, ap);
	va_end(ap);
}

static void
ask_to_end(struct proc *p)
{
	p->phase = ASKED;
	send_signal(p, SIGTERM);
	ev_timer_in(p->ps->ev, &p->timer, TERM_US);
}

static void
on_timer(void *arg)
{
	struct proc *p = arg;

	if (p->phase == RUNNING) {
		blame(p, ERR_TIMEOUT, "it took too long and was stopped");
		ask_to_end(p);
	} else if (p->phase == ASKED) {
		p->phase = KILLED;
		send_signal(p, SIGKILL);
		ev_timer_in(p->ps->ev, &p->timer, LOST_US);
	} else {
		over(p);
	}
}

/* ---- pipes ------------------------------------------------------------------------------- */

static void
on_input(void *arg, int fd, unsigned events)
{
	struct proc *p = arg;
	ssize_t n = write(fd, p->in.p + p->in_done, p->in.n - p->in_done);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		p->in_done += (size_t)n;
	/* A child that closed its stdin has heard enough. */
	if (n < 0 || p->in_done == p->in.n) {
		close_fd(p, &p->in_fd);
		buf_free(&p->in);
	}
}

static void
keep(struct proc *p, struct buf *b, const char *bytes, size_t n)
{
	size_t room = b->max - b->n;

	if (n > room) {
		n = room;
		p->truncated = true;
	}
	buf_put(b, bytes, n);
	if (b->err != OK) {
		p->truncated = true;
		blame(p, b->err, "there was no memory for its output");
	}
}

static void
on_output(void *arg, int fd, unsigned events)
{
	struct proc *p = arg;
	bool out = fd == p->out_fd;
	char chunk[READ_CHUNK];
	ssize_t n = 0;
	int i;

	(void)events;
	for (i = 0; i < READS_A_TURN; i++) {
		n = read(fd, chunk, sizeof(chunk));
		if (n <= 0)
			break;
		keep(p, out ? &p->out : &p->errs, chunk, (size_t)n);
	}
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	if (n < 0)
		blame(p, err_errno(errno), "its output could not be read: %s", strerror(errno));
	close_fd(p, out ? &p->out_fd : &p->err_fd);
	if (p->phase == ENDED && p->out_fd < 0 && p->err_fd < 0)
		over(p);
}

/* ---- reports -------------------------------------------------------------------------------- */

static void
on_failed(struct proc *p, const struct proc_report *r)
{
	const char *words = strerror(r->value);

	if (r->stage == PROC_AT_CWD)
		blame(p, err_errno(r->value), "its working directory: %s", words);
	else if (r->stage != PROC_AT_EXEC)
		blame(p, err_errno(r->value), "no process could be started: %s", words);
	else if (r->value == ENOENT || r->value == ENOTDIR)
		blame(p, ERR_NOTFOUND, "no such program (a plain name is looked up in "
		    PROC_PATH "; a path must begin with /)");
	else if (r->value == EACCES || r->value == EPERM)
		blame(p, ERR_DENIED, "the program may not be run: %s", words);
	else
		blame(p, ERR_UNSUPPORTED, "the program cannot be run: %s", words);
}

static void
on_ended(struct proc *p, int status)
{
	p->status = status;
	p->phase = ENDED;
	if (p->out_fd < 0 && p->err_fd < 0)
		over(p);
	else
		ev_timer_in(p->ps->ev, &p->timer, DRAIN_US);
}

/* The spawner is gone and with it all children. */
static void
lose_spawner(struct procs *ps)
{
	ps->alive = false;
	ev_fd_del(ps->ev, ps->fd);
	log_error("proc", "the spawner process is gone: no child can be started until a restart");
	for (size_t i = 0; i < PROC_CHILDREN_MAX; i++) {
		if (ps->running[i] == NULL)
			continue;
		blame(ps->running[i], ERR_CLOSED, "the spawner process is gone; restart blufio");
		over(ps->running[i]);
	}
}

static void
on_report(void *arg, int fd, unsigned events)
{
	struct procs *ps = arg;
	struct proc_report r;
	struct proc *p;
	ssize_t n;

	(void)events;
	while ((n = recv(fd, &r, sizeof(r), MSG_DONTWAIT)) == (ssize_t)sizeof(r)) {
		p = NULL;
		for (size_t i = 0; i < PROC_CHILDREN_MAX && p == NULL; i++)
			if (ps->running[i] != NULL && ps->running[i]->id == r.id)
				p = ps->running[i];
		if (p != NULL && p->phase != OVER && r.kind == PROC_FAILED)
			on_failed(p, &r);
		else if (p != NULL && p->phase != OVER)
			on_ended(p, (int)r.value);
	}
	if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		lose_spawner(ps);
}

/* ---- starting -------------------------------------------------------------------------------- */

/* A pipe whose end number ours belongs to the loop. */
static FALLIBLE
make_pipe(int fds[2], int ours)
{
	enum err e = fd_pipe(fds);

	return e == OK ? fd_nonblock(fds[ours]) : e;
}

static FALLIBLE
put_strings(struct buf *b, const char *const *v, size_t max, uint32_t *count)
{
	size_t n = 0;

	for (; v[n] != NULL; n++) {
		if (n == max)
			return ERR_LIMIT;
		buf_put(b, v[n], strlen(v[n]) + 1);
	}
	*count = (uint32_t)n;
	return b->err;
}

static uint64_t
or_default(uint64_t v, uint64_t dflt)
{
	return v != 0 ? v : dflt;
}

static FALLIBLE
write_request(const struct proc_req *req, struct proc_request *q, struct buf *strings)
{
	static const char *const clean[] = {
		"PATH=" PROC_PATH, "LANG=C.UTF-8", "HOME=/nonexistent", NULL
	};
	const char *cwd = req->cwd != NULL ? req->cwd : "/";
	enum err e = put_strings(strings, req->argv, PROC_ARGS_MAX, &q->argc);

	if (e == OK)
		e = put_strings(strings, req->env != NULL ? req->env : clean, PROC_ENV_MAX, &q->envc);
	if (e != OK)
		return e;
	if (q->argc == 0)
		return ERR_NOTFOUND;
	buf_put(strings, cwd, strlen(cwd) + 1);
	q->limits = (struct proc_limits){
		.cpu_s = or_default(req->limits.cpu_s, CPU_S),
		.memory = or_default(req->limits.memory, MEMORY),
		.file_size = or_default(req->limits.file_size, FILE_SIZE),
		.files = or_default(req->limits.files, FILES),
		.processes = req->limits.processes,
	};
	return strings->err;
}

static struct proc *
proc_new(struct procs *ps, const struct proc_req *req, proc_fn *fn, void *arg)
{
	struct proc *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->ps = ps;
	p->slot = PROC_CHILDREN_MAX;
	p->id = ps->next_id++;
	p->fn = fn;
	p->arg = arg;
	p->in_fd = p->out_fd = p->err_fd = -1;
	buf_init(&p->in, PROC_INPUT_MAX);
	buf_init(&p->out, req->output_max);
	buf_init(&p->errs, req->output_max);
	ev_timer_init(&p->timer, on_timer, p);
	ev_defer_init(&p->defer, deliver, p);
	return p;
}

/* Pipes to the child, watched. theirs[] gets what the child is to have: stdin (or -1),
 * stdout, stderr; the caller closes those that are not the request's own. */
static FALLIBLE
connect_child(struct proc *p, const struct proc_req *req, int theirs[3])
{
	int out[2] = { -1, -1 }, errs[2] = { -1, -1 }, in[2] = { -1, -1 };
	enum err e = make_pipe(out, 0);

	if (e == OK)
		e = make_pipe(errs, 0);
	if (e == OK && req->input_fd <= 2 && req->input.n > 0) {
		e = make_pipe(in, 1);
		buf_str(&p->in, req->input);
		if (e == OK)
			e = p->in.err;
	}
	p->out_fd = out[0];
	p->err_fd = errs[0];
	p->in_fd = in[1];
	theirs[0] = in[0];
	theirs[1] = out[1];
	theirs[2] = errs[1];
	if (e == OK)
		e = ev_fd_set(p->ps->ev, p->out_fd, EV_READ, on_output, p);
	if (e == OK)
		e = ev_fd_set(p->ps->ev, p->err_fd, EV_READ, on_output, p);
	if (e == OK && p->in_fd >= 0)
		e = ev_fd_set(p->ps->ev, p->in_fd, EV_WRITE, on_input, p);
	return e;
}

enum err
proc_start(struct procs *ps, const struct proc_req *req, proc_fn *fn, void *arg, struct proc **out)
{
	struct proc_request q = { .kind = PROC_START };
	struct buf strings = BUF_INIT(PROC_ARG_BYTES_MAX);
	int theirs[3] = { -1, -1, -1 }, fds[3];
	struct proc *p = NULL;
	size_t n = 0, i, slot = 0;
	enum err e;

	while (slot < PROC_CHILDREN_MAX && ps->running[slot] != NULL)
		slot++;
	if (!ps->alive)
		return ERR_CLOSED;
	if (slot == PROC_CHILDREN_MAX || req->input.n > PROC_INPUT_MAX)
		return ERR_LIMIT;
	e = write_request(req, &q, &strings);
	if (e == OK) {
		p = proc_new(ps, req, fn, arg);
		e = p != NULL ? connect_child(p, req, theirs) : ERR_NOMEM;
	}
	if (e == OK) {
		q.id = p->id;
		if (req->input_fd > 2)
			fds[n++] = req->input_fd;
		else if (theirs[0] >= 0)
			fds[n++] = theirs[0];
		fds[n++] = theirs[1];
		fds[n++] = theirs[2];
		e = send_request(ps, &q, buf_view(&strings), fds, n);
	}
	for (i = 0; i < ARRAY_LEN(theirs); i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	buf_free(&strings);
	if (e != OK) {
		if (p != NULL) {
			detach(p);
			proc_free(p);
		}
		return e;
	}
	p->slot = slot;
	ps->running[slot] = p;
	ev_timer_in(ps->ev, &p->timer, req->deadline_us > 0 ? req->deadline_us : DEADLINE_US);
	if (out != NULL)
		*out = p;
	return OK;
}

void
proc_kill(struct proc *p)
{
	blame(p, ERR_CANCELLED, "it was stopped");
	if (p->phase == RUNNING)
		ask_to_end(p);
}

/* ---- the collection ------------------------------------------------------------------------------ */

enum err
procs_new(struct ev *ev, const struct spawner *s, struct procs **out)
{
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct procs *ps = calloc(1, sizeof(*ps));
	enum err e;

	if (ps == NULL)
		return ERR_NOMEM;
	sigaction(SIGPIPE, &ignore, NULL);
	ps->ev = ev;
	ps->fd = s->fd;
	ps->alive = true;
	ps->next_id = (uint64_t)clock_mono_us();
	e = ev_fd_set(ev, ps->fd, EV_READ, on_report, ps);
	if (e != OK) {
		free(ps);
		return e;
	}
	if (spawner_lacks()[0] != '\0')
		log_info("proc", "children: %s; absent: %s", spawner_system(), spawner_lacks());
	*out = ps;
	return OK;
}

void
procs_free(struct procs *ps)
{
	struct proc *p;

	if (ps == NULL)
		return;
	for (size_t i = 0; i < PROC_CHILDREN_MAX; i++) {
		p = ps->running[i];
		if (p == NULL)
			continue;
		if (ps->alive && p->phase < ENDED)
			send_signal(p, SIGKILL);
		detach(p);
		proc_free(p);
	}
	if (ps->alive)
		ev_fd_del(ps->ev, ps->fd);
	free(ps);
}

bool
procs_alive(const struct procs *ps)
{
	return ps->alive;
}
