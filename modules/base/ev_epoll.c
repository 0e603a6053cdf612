/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ev_epoll.c - the loop's wait on Linux: epoll, level-triggered.
 *
 * The kernel keeps the set, so a wait costs what is ready, not what is
 * watched. The set follows open files, not numbers: a number whose file was
 * closed without ev_fd_del has silently left it, and one that was closed and
 * given out again may be there or not. Both are repaired here by the answer
 * of the kernel (ENOENT, EEXIST) rather than reported, because the caller's
 * wish - watch this number from now on - is clear in either case.
 *
 * epoll waits in milliseconds. The wait is rounded up: rounded down, the last
 * part of a millisecond before a timer would be spent spinning.
 */
#include "base/ev.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <unistd.h>

struct ev_poller {
	int fd;
	struct epoll_event events[EV_BATCH];
};

const char *
ev_backend(void)
{
	return "epoll";
}

enum err
ev_poller_new(struct ev_poller **out)
{
	struct ev_poller *p = calloc(1, sizeof(*p));
	enum err e;

	if (p == NULL)
		return ERR_NOMEM;
	p->fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->fd < 0) {
		e = err_errno(errno);
		free(p);
		return e;
	}
	*out = p;
	return OK;
}

void
ev_poller_free(struct ev_poller *p)
{
	if (p == NULL)
		return;
	close(p->fd);
	free(p);
}

enum err
ev_poller_set(struct ev_poller *p, int fd, unsigned old_events, unsigned events)
{
	struct epoll_event ev;
	int op = events == 0 ? EPOLL_CTL_DEL : old_events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	memset(&ev, 0, sizeof(ev));
	ev.data.fd = fd;
	if (events & EV_READ)
		ev.events |= EPOLLIN;
	if (events & EV_WRITE)
		ev.events |= EPOLLOUT;
	if (epoll_ctl(p->fd, op, fd, &ev) == 0)
		return OK;
	if (op == EPOLL_CTL_MOD && errno == ENOENT)
		op = EPOLL_CTL_ADD;
	else if (op == EPOLL_CTL_ADD && errno == EEXIST)
		op = EPOLL_CTL_MOD;
	else
		return err_errno(errno);
	return epoll_ctl(p->fd, op, fd, &ev) == 0 ? OK : err_errno(errno);
}

enum err
ev_poller_wait(struct ev_poller *p, int64_t wait_us, struct ev_ready *out, size_t max, size_t *n)
{
	int64_t ms = wait_us < 0 ? -1 : wait_us / US_PER_MS + (wait_us % US_PER_MS != 0);
	size_t room = max < EV_BATCH ? max : EV_BATCH, i;
	int got;

	got = epoll_wait(p->fd, p->events, (int)room, ms > INT_MAX ? INT_MAX : (int)ms);
	if (got < 0 && errno != EINTR)
		return err_errno(errno);
	*n = got < 0 ? 0 : (size_t)got;
	for (i = 0; i < *n; i++) {
		out[i].fd = p->events[i].data.fd;
		out[i].events = 0;
		if (p->events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
			out[i].events |= EV_READ;
		if (p->events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			out[i].events |= EV_WRITE;
	}
	return OK;
}
