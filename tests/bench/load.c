/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * load.c - many terminals at once on the control socket: how many turns a second.
 *
 *   load SOCKET TAG CONNECTIONS TURNS PER_CHAT SECONDS
 *
 * Each connection is the terminal of one conversation (TAG-number). It sends a
 * message, waits for its reply, and acknowledges it in the same write that
 * brings the next message. After PER_CHAT turns it says /new, which is not
 * counted, so that figures are those of conversations of that length. It stops
 * at TURNS in all or after SECONDS. Printed: turns, seconds, milliseconds from
 * message to reply (p50 p90 p99), answers that were not "ok".
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define IN_MAX 65536
#define STALL_MS 10000

struct conn {
	int fd, number;
	long long item;                 /* to acknowledge, 0 none */
	long long sent_ns;
	int turns;                      /* since /new */
	size_t n;
	char in[IN_MAX];
};

static struct conn conns[CONNECTIONS_MAX];
static const char *tag;
static long long ids, started, done, wanted, refused;
static int per_chat;
static float *ms;

static long long
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static void
put(struct conn *c, const char *s, size_t n)
{
	if (send(c->fd, s, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("send");
}

/* The acknowledgement of the last answer, if any, and the next message, if any is wanted. */
static void
next(struct conn *c)
{
	char out[512];
	int n = 0;

	if (c->item)
		n += snprintf(out, sizeof(out), "{\"cmd\":\"ack\",\"item\":%lld}\n", c->item);
	c->item = 0;
	if (started < wanted) {
		if (c->turns == per_chat) {
			c->turns = -1;  /* the answer to /new is not a turn */
			n += snprintf(out + n, sizeof(out) - (size_t)n,
			    "{\"cmd\":\"message\",\"id\":\"%s-%lld\",\"text\":\"/new\"}\n", tag, ++ids);
		} else {
			started++;
			n += snprintf(out + n, sizeof(out) - (size_t)n, "{\"cmd\":\"message\",\"id\":\"%s-%lld\","
			    "\"text\":\"message %lld of a load test, please say it again\"}\n", tag, ids + 1, ids + 1);
			ids++;
		}
		c->sent_ns = now_ns();
	}
	if (n > 0)
		put(c, out, (size_t)n);
}

static void
on_line(struct conn *c, const char *line)
{
	const char *item;

	if (strncmp(line, "{\"type\":\"reply\"", 15) == 0 || strncmp(line, "{\"type\":\"notice\"", 16) == 0) {
		item = strstr(line, "\"item\":");
		c->item = item ? atoll(item + 7) : 0;
		if (c->turns >= 0 && line[9] == 'r')
			ms[done++] = (float)(now_ns() - c->sent_ns) / 1e6f;
		c->turns++;
		next(c);
	} else if (strncmp(line, "{\"ok\":false", 11) == 0) {
		if (refused++ == 0)
			fprintf(stderr, "refused: %s\n", line);
	} else if (strstr(line, "\"offline\":")) {
		next(c);                /* the conversation is open */
	}
}

static void
on_data(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->n, sizeof(c->in) - 1 - c->n, 0);
	char *p = c->in, *eol;

	if (n <= 0)
		die("recv");
	c->n += (size_t)n;
	c->in[c->n] = '\0';
	for (; (eol = strchr(p, '\n')); p = eol + 1) {
		*eol = '\0';
		on_line(c, p);
	}
	c->n -= (size_t)(p - c->in);
	memmove(c->in, p, c->n);
	if (c->n == sizeof(c->in) - 1) {
		fprintf(stderr, "a line is too long\n");
		exit(1);
	}
}

static int
by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void
open_conn(struct conn *c, int number, const char *path, int ep)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = c } };
	char hello[128];

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	c->number = number;
	c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(c->fd, (struct sockaddr *)&sun, sizeof(sun)) != 0 ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) != 0)
		die(path);
	put(c, hello, (size_t)snprintf(hello, sizeof(hello), "{\"cmd\":\"chat\",\"chat\":\"%s-%d\"}\n",
	    tag, number));
}

int
main(int argc, char **argv)
{
	struct epoll_event got[64];
	int ep = epoll_create1(0), n_conns = argc == 7 ? atoi(argv[3]) : 0, n;
	long long begin, end, limit;

	if (n_conns < 1 || n_conns > CONNECTIONS_MAX) {
		fprintf(stderr, "load SOCKET TAG CONNECTIONS TURNS PER_CHAT SECONDS\n");
		return 2;
	}
	tag = argv[2];
	wanted = atoll(argv[4]);
	per_chat = atoi(argv[5]);
	limit = atoll(argv[6]) * 1000000000LL;
	ms = calloc((size_t)wanted + 1, sizeof(*ms));
	begin = now_ns();
	for (int i = 0; i < n_conns; i++)
		open_conn(&conns[i], i, argv[1], ep);
	while (done < started || done < wanted) {
		n = epoll_wait(ep, got, 64, STALL_MS);
		if (n <= 0) {
			fprintf(stderr, "no answer for %d ms after %lld turns\n", STALL_MS, done);
			return 1;
		}
		for (int i = 0; i < n; i++)
			on_data(got[i].data.ptr);
		if (now_ns() - begin > limit)
			wanted = started;
	}
	end = now_ns();
	qsort(ms, (size_t)done, sizeof(*ms), by_value);
	printf("%lld %.3f %.3f %.3f %.3f %lld\n", done, (double)(end - begin) / 1e9,
	    (double)ms[done / 2], (double)ms[done * 9 / 10], (double)ms[done * 99 / 100], refused);
	usleep(50000);                  /* the last acknowledgements are read before the end */
	return 0;
}
