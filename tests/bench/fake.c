/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fake.c - Telegram and the model provider on two loopback ports, for timing only.
 *
 *   fake N GAP_MS
 *
 * Prints its ports. Then N times: it waits for a held getUpdates and for the last
 * message's reply, lets GAP_MS pass, answers the poll with one update, and takes
 * the time until the first bytes of the provider request that follows: both ends
 * of the way through the daemon are seen from outside, two wake-ups included.
 * Nanoseconds, a line each, then "end"; after that it goes on holding polls. A
 * model that is asked "hang" does not answer.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdbool.h>
#include <sys/epoll.h>

#define CONNS 64
#define IN_MAX (1u << 20)
#define FIRST_USER 1001                 /* messages come from so many people in turn, */
#define USERS 20                        /* so that no conversation grows long */

struct conn { int fd; size_t n; char *in; };

static struct conn conns[CONNS];
static struct conn *poller;             /* holds a poll */
static long long poll_end, gap_ns, quiet_since, sent_at;
static long long wanted, update, message = 1000;
static bool awaited;                    /* an update is out, its request is not in */
static bool answered = true;            /* the last message has its reply */

static void
reply(struct conn *c, const char *type, const char *body)
{
	static char out[16384];
	int n = snprintf(out, sizeof(out), "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu"
	    "\r\n\r\n%s", type, strlen(body), body);

	if (send(c->fd, out, (size_t)n, MSG_NOSIGNAL) != n)
		perror("send");
}

static void
json(struct conn *c, const char *result)
{
	static char body[8192];

	snprintf(body, sizeof(body), "{\"ok\":true,\"result\":%s}", result);
	reply(c, "application/json", body);
}

static const char stream[] =
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"
    "\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5-5\",\"content\":[],\"stop_reason\":null,"
    "\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n"
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
    "{\"type\":\"text\",\"text\":\"\"}}\n\n"
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
    "{\"type\":\"text_delta\",\"text\":\"Hello there.\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},"
    "\"usage\":{\"output_tokens\":5}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/* One whole request; head is NUL-terminated at its end. */
static void
handle(struct conn *c, const char *head, const char *body)
{
	const char *timeout = strstr(body, "\"timeout\":");
	char result[128];

	if (strncmp(head, "POST /v1/messages", 17) == 0 && strstr(body, "\"hang\"")) {
		return;                 /* it is never answered */
	} else if (strncmp(head, "POST /v1/messages", 17) == 0) {
		reply(c, "text/event-stream", stream);
	} else if (strstr(head, "/getUpdates ")) {
		poller = c;
		poll_end = now_ns() + (timeout ? atoll(timeout + 10) : 0) * 1000000000LL;
	} else if (strstr(head, "/getMe ")) {
		json(c, "{\"id\":1,\"is_bot\":true,\"first_name\":\"b\",\"username\":\"b_bot\"}");
	} else if (strstr(head, "/sendMessage ") || strstr(head, "/sendRichMessage ")) {
		snprintf(result, sizeof(result), "{\"message_id\":%lld,\"date\":1750000000,\"chat\":{\"id\":1001,"
		    "\"type\":\"private\"}}", ++message);
		json(c, result);
		answered = true;
		quiet_since = now_ns();
	} else {
		json(c, "true");
	}
}

static void
on_data(struct conn *c)
{
	ssize_t got = recv(c->fd, c->in + c->n, IN_MAX - 1 - c->n, 0);
	char *end;

	/* the first bytes: before anything else is done with them */
	if (awaited && got >= 17 && memcmp(c->in + c->n, "POST /v1/messages", 17) == 0) {
		printf("%lld\n", now_ns() - sent_at);
		awaited = false;
	}
	if (got <= 0) {
		close(c->fd);
		c->fd = -1;
		if (poller == c)
			poller = NULL;
		return;
	}
	c->n += (size_t)got;
	c->in[c->n] = '\0';
	while ((end = strstr(c->in, "\r\n\r\n"))) {
		char *length = strcasestr(c->in, "content-length:");
		size_t size = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
		size_t whole = (size_t)(end + 4 - c->in) + size;

		if (c->n < whole)
			break;
		*end = '\0';
		handle(c, c->in, end + 4);
		c->n -= whole;
		memmove(c->in, c->in + whole, c->n + 1);
	}
}

static void
send_update(void)
{
	struct conn *c = poller;
	char result[512];
	long long who;

	poller = NULL;
	if (update == wanted) {
		json(c, "[]");
		return;
	}
	update++;
	who = FIRST_USER + update % USERS;
	snprintf(result, sizeof(result), "[{\"update_id\":%lld,\"message\":{\"message_id\":%lld,\"date\":%lld,"
	    "\"from\":{\"id\":%lld,\"is_bot\":false,\"first_name\":\"A\"},\"chat\":{\"id\":%lld,\"type\":"
	    "\"private\",\"first_name\":\"A\"},\"text\":\"message %lld\"}}]", 5000 + update, update,
	    (long long)time(NULL), who, who, update);
	answered = false;
	awaited = true;
	sent_at = now_ns();
	json(c, result);
}

static void
accept_one(int fd, int ep)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int i = 0, one = 1;

	while (i < CONNS - 1 && conns[i].in && conns[i].fd >= 0)
		i++;
	if (conns[i].in == NULL)
		conns[i].in = malloc(IN_MAX);
	conns[i].fd = accept(fd, NULL, NULL);
	conns[i].n = 0;
	setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ev.data.ptr = &conns[i];
	if (conns[i].in == NULL || epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].fd, &ev) != 0)
		exit(1);
}

static int
wait_ms(void)
{
	return poller && update < wanted && !awaited ? 1 : 200;
}

static void
listen_on(int *port, int ep)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = listen_tcp(port);

	ev.data.u64 = (unsigned)fd;             /* a small number: no conn lives there */
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
		die("epoll_ctl");
}

int
main(int argc, char **argv)
{
	struct epoll_event got[16];
	int ep = epoll_create1(0), n, telegram, provider;
	bool told = false;

	if (argc != 3) {
		fprintf(stderr, "fake N GAP_MS\n");
		return 2;
	}
	wanted = atoll(argv[1]);
	gap_ns = atoll(argv[2]) * 1000000;
	setvbuf(stdout, NULL, _IOLBF, 0);
	listen_on(&telegram, ep);
	listen_on(&provider, ep);
	printf("%d %d\n", telegram, provider);
	while ((n = epoll_wait(ep, got, 16, wait_ms())) >= 0) {
		long long now;

		for (int i = 0; i < n; i++)
			if (got[i].data.u64 > 1024)
				on_data(got[i].data.ptr);
			else
				accept_one((int)got[i].data.u64, ep);
		now = now_ns();
		if (poller && answered && ((update < wanted && now - quiet_since > gap_ns) || now > poll_end))
			send_update();
		if (update == wanted && answered && !told) {
			told = true;
			printf("end\n");
		}
	}
	return 1;
}
