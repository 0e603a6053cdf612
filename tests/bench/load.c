/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * load.c - many clients at once: how many turns a second.
 *
 *   load WHERE TAG CONNECTIONS TURNS PER_CHAT SECONDS
 *
 * WHERE is the path of a control socket, or "PORT KEY" of the gateway. Each
 * connection is one conversation. A terminal sends a message, waits for its reply,
 * and acknowledges it in the same write that brings the next message; a program
 * posts a message and waits for its answer. After PER_CHAT turns a new conversation
 * begins (a terminal says /new, which is not counted), so that figures are those of
 * conversations of that length. It stops at TURNS in all or after SECONDS. Printed:
 * turns, seconds, milliseconds from message to reply (p50 p90 p99), answers that
 * were no reply.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdbool.h>
#include <sys/epoll.h>

#define CONNECTIONS_MAX 1024
#define STALL_MS 10000

struct conn {
	int fd;
	long long item;                 /* to acknowledge, 0 none */
	long long sent_ns;
	int turns;                      /* of this conversation */
	char session[24];               /* of the gateway; empty: a new one */
	size_t length;                  /* of the answer's body */
	bool good;                      /* the answer's status is 200 */
	struct lines lines;
};

static struct conn conns[CONNECTIONS_MAX];
static const char *tag, *key;
static long long ids, started, done, wanted, refused;
static int per_chat;
static float *ms;

/* The acknowledgement of the last answer, if any, and the next message, if any is wanted. */
static void
next_line(struct conn *c)
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
		put(c->fd, out, (size_t)n);
}

static void
next_post(struct conn *c)
{
	char body[256];
	int n;

	if (started == wanted)
		return;
	started++;
	if (c->turns == per_chat)
		c->turns = c->session[0] = 0;
	n = snprintf(body, sizeof(body), "{\"content\":\"message %lld of a load test, please say it again\"", ++ids);
	if (c->session[0])
		n += snprintf(body + n, sizeof(body) - (size_t)n, ",\"session_id\":\"%s\"", c->session);
	snprintf(body + n, sizeof(body) - (size_t)n, "}");
	c->sent_ns = now_ns();
	post(c->fd, key, "", body);
}

static void
refuse(const char *line)
{
	if (refused++ == 0)
		fprintf(stderr, "refused: %s\n", line);
}

static void
answered(struct conn *c)
{
	ms[done++] = (float)(now_ns() - c->sent_ns) / 1e6f;
}

static void
on_line(void *arg, const char *line)
{
	struct conn *c = arg;
	const char *item;

	if (strncmp(line, "{\"type\":\"reply\"", 15) == 0 || strncmp(line, "{\"type\":\"notice\"", 16) == 0) {
		item = strstr(line, "\"item\":");
		c->item = item ? atoll(item + 7) : 0;
		if (c->turns >= 0 && line[9] == 'r')
			answered(c);
		c->turns++;
		next_line(c);
	} else if (strncmp(line, "{\"ok\":false", 11) == 0) {
		refuse(line);
	} else if (strstr(line, "\"offline\":")) {
		next_line(c);           /* the conversation is open */
	}
}

/* A line of an answer's head, or its body. */
static void
on_answer(void *arg, const char *line)
{
	struct conn *c = arg;
	const char *session;

	if (strncmp(line, "HTTP/1.1 ", 9) == 0) {
		c->good = strncmp(line + 9, "200", 3) == 0;
	} else if (strncmp(line, "Content-Length: ", 16) == 0) {
		c->length = strtoul(line + 16, NULL, 10);
	} else if (strcmp(line, "\r") == 0) {
		c->lines.body = c->length;
	} else if (line[0] == '{') {
		session = strstr(line, "\"session_id\":\"");
		if (c->good && session)
			snprintf(c->session, sizeof(c->session), "%.*s", (int)strcspn(session + 14, "\""), session + 14);
		else
			refuse(line);
		answered(c);
		c->turns++;
		next_post(c);
	}
}

static int
by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void
open_conn(struct conn *c, int number, char *where, int ep)
{
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = c } };
	char hello[128];

	c->fd = dial(where, &key);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) != 0)
		die(where);
	if (!key)
		put(c->fd, hello, (size_t)snprintf(hello, sizeof(hello), "{\"cmd\":\"chat\",\"chat\":\"%s-%d\"}\n", tag, number));
}

int
main(int argc, char **argv)
{
	struct epoll_event got[64];
	int ep = epoll_create1(0), n_conns = argc == 7 ? atoi(argv[3]) : 0, n;
	long long begin, end, limit;

	if (n_conns < 1 || n_conns > CONNECTIONS_MAX) {
		fprintf(stderr, "load WHERE TAG CONNECTIONS TURNS PER_CHAT SECONDS\n");
		return 2;
	}
	tag = argv[2];
	wanted = atoll(argv[4]);
	per_chat = atoi(argv[5]);
	limit = atoll(argv[6]) * 1000000000LL;
	ms = calloc((size_t)wanted + 1, sizeof(*ms));
	for (int i = 0; i < n_conns; i++)
		open_conn(&conns[i], i, argv[1], ep);
	begin = now_ns();
	for (int i = 0; key && i < n_conns; i++)
		next_post(&conns[i]);
	while (done < started || done < wanted) {
		n = epoll_wait(ep, got, 64, STALL_MS);
		if (n <= 0) {
			fprintf(stderr, "no answer for %d ms after %lld turns\n", STALL_MS, done);
			return 1;
		}
		for (int i = 0; i < n; i++) {
			struct conn *c = got[i].data.ptr;

			lines_read(&c->lines, c->fd, key ? on_answer : on_line, c);
		}
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
