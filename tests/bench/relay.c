/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * relay.c - how long a word is on its way from the provider's socket to a terminal.
 *
 *   relay DELTAS GAP_US     prints a port; then reads the path of a control socket from standard input
 *
 * It is both ends: a fake of the provider on that port, and a terminal on the
 * control socket. The terminal asks once; the provider streams DELTAS words, each
 * the time at which it was written, GAP_US apart; the terminal takes the time at
 * which it reads each. Printed: nanoseconds, a line each, then "end".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

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
put(int fd, const char *s)
{
	if (write(fd, s, strlen(s)) != (ssize_t)strlen(s))
		die("write");
}

/* One event of the stream, as a chunk. */
static void
event(int fd, const char *type, const char *data)
{
	char body[1024], chunk[1280];

	snprintf(body, sizeof(body), "event: %s\ndata: {\"type\":\"%s\"%s%s}\n\n", type, type, *data ? "," : "", data);
	snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(body), body);
	put(fd, chunk);
}

static int
listener(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) != 0 || listen(fd, 8) != 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &n) != 0)
		die("listen");
	printf("%d\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static int
terminal(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		die(path);
	put(fd, "{\"cmd\":\"chat\",\"chat\":\"relay\"}\n{\"cmd\":\"message\",\"id\":\"1\",\"text\":\"go\"}\n");
	return fd;
}

static long long sent, received;

/* Every word that stands in what the terminal has read. */
static void
take(char *in, size_t *n, long long at)
{
	char *line = in, *end, *word;

	while ((end = memchr(line, '\n', (size_t)(in + *n - line)))) {
		*end = '\0';
		for (word = strstr(line, "\"text\":\"T"); word && strstr(line, "\"delta\""); word = strchr(word, 'T')) {
			word = strchr(word, 'T') + 1;
			printf("%lld\n", at - atoll(word));
			received++;
		}
		line = end + 1;
	}
	*n -= (size_t)(line - in);
	memmove(in, line, *n);
}

int
main(int argc, char **argv)
{
	static char in[1 << 20], request[1 << 16];
	long long deltas = argc > 2 ? atoll(argv[1]) : 0, gap = argc > 2 ? atoll(argv[2]) : 0, next = 0;
	char path[200], data[200];
	size_t n = 0, asked = 0;
	int l = listener(), term, model = -1, one = 1;

	if (!fgets(path, sizeof(path), stdin))
		die("no path");
	path[strcspn(path, "\n")] = '\0';
	term = terminal(path);
	for (long long end = now_ns() + 60000000000LL; received < deltas && now_ns() < end;) {
		struct pollfd p[] = { { term, POLLIN, 0 }, { model < 0 ? l : model, POLLIN, 0 } };
		struct timespec wait = { 0, 0 };
		long long left = next - now_ns();

		if (next && sent < deltas && left > 0)
			wait.tv_nsec = (long)left;
		else if (!next || sent == deltas)
			wait.tv_sec = 1;
		if (ppoll(p, 2, &wait, NULL) < 0)
			die("poll");
		if (p[0].revents) {
			ssize_t got = read(term, in + n, sizeof(in) - n);

			if (got <= 0)
				die("terminal");
			n += (size_t)got;
			take(in, &n, now_ns());
		}
		if (p[1].revents && model < 0) {
			model = accept(l, NULL, NULL);
			setsockopt(model, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		} else if (p[1].revents && !next) {
			ssize_t got = read(model, request + asked, sizeof(request) - 1 - asked);

			if (got <= 0)
				die("model");
			asked += (size_t)got;
			request[asked] = '\0';
			if (!strstr(request, "\"stream\":true") || !strstr(request, "\"messages\":"))
				continue;
			put(model, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
			event(model, "message_start", "\"message\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}");
			event(model, "content_block_start", "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}");
			next = now_ns() + 50000000;
		}
		if (next && sent < deltas && now_ns() >= next) {
			snprintf(data, sizeof(data), "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"T%lld \"}", now_ns());
			event(model, "content_block_delta", data);
			sent++;
			next += gap * 1000;
		}
	}
	puts("end");
	return received == deltas ? 0 : 1;
}
