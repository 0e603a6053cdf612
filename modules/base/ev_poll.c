/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ev_poll.c - the loop's wait where there is no epoll: poll(2).
 *
 * The set is a dense array, as poll wants it, and a table from descriptor to
 * its place in the array; removing moves the last entry into the hole. When
 * more descriptors are ready than one batch takes, the next look starts where
 * this one stopped, so a busy low number cannot starve the others.
 *
 * A number that was closed without ev_fd_del answers POLLNVAL. It is reported
 * as an error condition (readable and writable), so that its owner finds out.
 */
#include "base/ev.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

#define POLL_NOWHERE SIZE_MAX                 /* the descriptor is not in the set */
#define POLL_SIZE_MIN 32                      /* first size of either table */

struct ev_poller {
	struct pollfd *fds;
	size_t n, cap;
	size_t *place;                        /* by descriptor: index into fds */
	size_t place_count;
	size_t start;                         /* where the next look begins */
};

const char *
ev_backend(void)
{
	return "poll";
}

enum err
ev_poller_new(struct ev_poller **out)
{
	struct ev_poller *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return ERR_NOMEM;
	*out = p;
	return OK;
}

void
ev_poller_free(struct ev_poller *p)
{
	if (p == NULL)
		return;
	free(p->fds);
	free(p->place);
	free(p);
}

/* Room for one more entry and for descriptor fd in the table of places. */
static enum err
poller_grow(struct ev_poller *p, size_t fd)
{
	struct pollfd *fds;
	size_t *place, count;

	if (p->n == p->cap) {
		count = p->cap ? p->cap * 2 : POLL_SIZE_MIN;
		fds = realloc(p->fds, count * sizeof(*fds));
		if (fds == NULL)
			return ERR_NOMEM;
		p->fds = fds;
		p->cap = count;
	}
	if (fd >= p->place_count) {
		count = p->place_count ? p->place_count : POLL_SIZE_MIN;
		while (count <= fd)
			count *= 2;
		place = realloc(p->place, count * sizeof(*place));
		if (place == NULL)
			return ERR_NOMEM;
		p->place = place;
		while (p->place_count < count)
			p->place[p->place_count++] = POLL_NOWHERE;
	}
	return OK;
}

static void
poller_del(struct ev_poller *p, size_t fd)
{
	size_t at = fd < p->place_count ? p->place[fd] : POLL_NOWHERE;

	if (at == POLL_NOWHERE)
		return;
	p->fds[at] = p->fds[--p->n];
	p->place[p->fds[at].fd] = at;
	p->place[fd] = POLL_NOWHERE;
}

enum err
ev_poller_set(struct ev_poller *p, int fd, unsigned old_events, unsigned events)
{
	size_t at = (size_t)fd;
	enum err e;

	(void)old_events;
	if (events == 0) {
		poller_del(p, at);
		return OK;
	}
	e = poller_grow(p, at);
	if (e != OK)
		return e;
	if (p->place[at] == POLL_NOWHERE) {
		p->place[at] = p->n++;
		p->fds[p->place[at]].fd = fd;
	}
	p->fds[p->place[at]].events = (short)(((events & EV_READ) ? POLLIN : 0) |
	    ((events & EV_WRITE) ? POLLOUT : 0));
	p->fds[p->place[at]].revents = 0;
	return OK;
}

enum err
ev_poller_wait(struct ev_poller *p, int64_t wait_us, struct ev_ready *out, size_t max, size_t *n)
{
	int64_t ms = wait_us < 0 ? -1 : wait_us / US_PER_MS + (wait_us % US_PER_MS != 0);
	size_t i, at, found = 0;
	short got;
	int ready;

	ready = poll(p->fds, (nfds_t)p->n, ms > INT_MAX ? INT_MAX : (int)ms);
	if (ready < 0 && errno != EINTR)
		return err_errno(errno);
	if (p->start >= p->n)
		p->start = 0;
	at = p->start;
	for (i = 0; i < p->n && ready > 0 && found < max; i++) {
		at = p->start + i < p->n ? p->start + i : p->start + i - p->n;
		got = p->fds[at].revents;
		if (got == 0)
			continue;
		ready--;
		out[found].fd = p->fds[at].fd;
		out[found].events = 0;
		if (got & (POLLIN | POLLERR | POLLHUP | POLLNVAL))
			out[found].events |= EV_READ;
		if (got & (POLLOUT | POLLERR | POLLHUP | POLLNVAL))
			out[found].events |= EV_WRITE;
		found++;
	}
	if (found == max)
		p->start = at + 1;
	*n = found;
	return OK;
}
