/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bench.h - what the programs of the bench share: the clock, sockets, and reading by lines.
 */
#ifndef BLUFIO_BENCH_H
#define BLUFIO_BENCH_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static inline long long
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void
die(const char *what)
{
	perror(what);
	exit(1);
}

static inline void
put(int fd, const char *s, size_t n)
{
	if (send(fd, s, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("send");
}

static inline int
dial_tcp(int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port),
	    .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		die("connect");
	return fd;
}

static inline int
dial_unix(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		die(path);
	return fd;
}

/* A listener on any port, which is given. */
static inline int
listen_tcp(int *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *)&at, n) != 0 || listen(fd, 64) != 0 || getsockname(fd, (struct sockaddr *)&at, &n) != 0)
		die("listen");
	*port = ntohs(at.sin_port);
	return fd;
}

/* "PORT KEY" is the gateway, anything else the path of a control socket. *key is NULL for that. */
static inline int
dial(char *where, const char **key)
{
	char *end;
	int port = (int)strtol(where, &end, 10);

	*key = *end == ' ' ? end + 1 : NULL;
	return *key ? dial_tcp(port) : dial_unix(where);
}

/* POST /v1/messages; more is "" or further lines of the head. */
static inline void
post(int fd, const char *key, const char *more, const char *body)
{
	char out[2048];

	put(fd, out, (size_t)snprintf(out, sizeof(out), "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	    "Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s", key,
	    strlen(body), more, body));
}

struct lines {
	size_t n;
	size_t body;                    /* set by who reads: so many bytes come next, as one line that has no end */
	char in[65536];
};

/* What has come, line by line, without their ends. */
static inline void
lines_read(struct lines *l, int fd, void (*take)(void *arg, const char *line), void *arg)
{
	ssize_t got = recv(fd, l->in + l->n, sizeof(l->in) - 1 - l->n, 0);
	char *p = l->in, *end;

	if (got <= 0)
		die("recv");
	l->n += (size_t)got;
	for (;;) {
		size_t left = (size_t)(l->in + l->n - p), body = l->body;
		char next;

		end = body ? (body <= left ? p + body : NULL) : memchr(p, '\n', left);
		if (!end)
			break;
		next = *end;
		*end = '\0';
		l->body = 0;
		take(arg, p);
		*end = next;
		p = end + !body;
	}
	l->n -= (size_t)(p - l->in);
	memmove(l->in, p, l->n);
	if (l->n == sizeof(l->in) - 1) {
		fprintf(stderr, "a line is too long\n");
		exit(1);
	}
}

#endif
