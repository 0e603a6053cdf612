/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * floor.c - what a figure of bench.py is held against: the same thing, done by a
 * program that does nothing else.
 *
 *   floor link                 the three libraries loaded, nothing called
 *   floor init DB [URL]        curl multi made, a WAL database opened, URL asked for, READY=1 sent
 *   floor sync FILE N GAP_MS   N times pwrite 4 KB + fdatasync in place; nanoseconds, a line each
 *   floor relay PORT PORT      the messages of fake.c answered by bare blocking sockets
 *   floor echo SOCKET          the answers that load.c wants, without thought or storage
 */
#define _GNU_SOURCE
#include "bench.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <zlib.h>

/* ---- memory and start ---------------------------------------------------------- */

static void
ready(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	int fd;

	if (path == NULL)
		return;
	memcpy(sun.sun_path + 1, path + 1, strlen(path) - 1);   /* bench.py's are abstract */
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&sun,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		die("READY");
	close(fd);
}

static int
init(const char *path, const char *url)
{
	static z_stream z;
	CURLM *multi;
	CURL *easy;
	sqlite3 *db;
	int running = 1;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) || !(multi = curl_multi_init()) ||
	    !(easy = curl_easy_init()))
		return 1;
	if (url && (curl_easy_setopt(easy, CURLOPT_URL, url) || curl_multi_add_handle(multi, easy)))
		return 1;
	while (url && running && !curl_multi_perform(multi, &running))
		curl_multi_poll(multi, NULL, 0, 100, NULL);
	if (sqlite3_open(path, &db) || sqlite3_exec(db, "PRAGMA journal_mode = WAL;"
	    "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT);"
	    "INSERT INTO t(v) VALUES('x')", NULL, NULL, NULL))
		return 1;
	if (deflateInit(&z, 6) != Z_OK || deflateEnd(&z) != Z_OK)
		return 1;
	ready();
	pause();
	return 0;
}

/* ---- the disk -------------------------------------------------------------------- */

static int
sync_loop(const char *path, int n, int gap_ms)
{
	static char page[4096];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || pwrite(fd, page, sizeof(page), 0) < 0 || fsync(fd) != 0)
		die(path);
	for (int i = 0; i < n; i++) {
		long long t;

		page[i % 4096]++;
		usleep((useconds_t)gap_ms * 1000);
		t = now_ns();
		if (pwrite(fd, page, sizeof(page), 0) < 0 || fdatasync(fd) != 0)
			die(path);
		printf("%lld\n", now_ns() - t);
	}
	return 0;
}

/* ---- update in, provider request out -------------------------------------------- */

static char text[65536];

static void
ask(int fd, const char *path)
{
	char s[256];
	int n = snprintf(s, sizeof(s), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
	    "{\"timeout\":50}", path);

	if (send(fd, s, (size_t)n, MSG_NOSIGNAL) != n)
		exit(0);                /* the fake has what it wanted */
}

static void
answer(int fd)
{
	size_t n = 0, want = 1;

	while (n < want) {
		ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, 0);
		char *body, *length;

		if (got <= 0)
			exit(0);
		n += (size_t)got;
		text[n] = '\0';
		body = strstr(text, "\r\n\r\n");
		length = strcasestr(text, "content-length:");
		want = body && length ? (size_t)(body + 4 - text) + strtoul(length + 15, NULL, 10) : n + 1;
	}
}

static void
relay(int telegram_port, int provider_port)
{
	int telegram = dial_tcp(telegram_port), provider = dial_tcp(provider_port);

	for (;;) {
		ask(telegram, "/bot1:x/getUpdates");
		answer(telegram);
		ask(provider, "/v1/messages");
		answer(provider);
		ask(telegram, "/bot1:x/sendMessage");
		answer(telegram);
	}
}

/* ---- the load's other end --------------------------------------------------------- */

#define CONNS 256
static char in[CONNS][8192];
static size_t in_n[CONNS];

/* One line in, what the daemon would say out. */
static void
respond(int fd, const char *line)
{
	static long long item;
	char out[512];
	int n = 0;

	if (strstr(line, "\"chat\"") && strstr(line, "\"cmd\":\"chat\""))
		n = snprintf(out, sizeof(out), "{\"ok\":true,\"offline\":true}\n");
	else if (strstr(line, "\"cmd\":\"message\""))
		n = snprintf(out, sizeof(out), "{\"ok\":true,\"text\":\"stored\"}\n{\"type\":\"%s\",\"item\":%lld,"
		    "\"turn\":1,\"repeated\":false,\"text\":\"x\"}\n", strstr(line, "\"/new\"") ? "notice" : "reply",
		    ++item);
	if (n > 0 && send(fd, out, (size_t)n, MSG_NOSIGNAL) != n)
		exit(0);
}

static void
echo_read(int fd)
{
	char *b = in[fd], *eol, *p = b;
	ssize_t n = recv(fd, b + in_n[fd], sizeof(in[0]) - 1 - in_n[fd], 0);

	if (n <= 0) {
		close(fd);
		in_n[fd] = 0;
		return;
	}
	in_n[fd] += (size_t)n;
	b[in_n[fd]] = '\0';
	for (; (eol = strchr(p, '\n')); p = eol + 1) {
		*eol = '\0';
		respond(fd, p);
	}
	in_n[fd] -= (size_t)(p - b);
	memmove(b, p, in_n[fd]);
}

static int
echo(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct epoll_event ev = { .events = EPOLLIN }, got[64];
	int ep = epoll_create1(0), fd = socket(AF_UNIX, SOCK_STREAM, 0), n;

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	ev.data.fd = fd;
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, 64) ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
		die(path);
	while ((n = epoll_wait(ep, got, 64, -1)) > 0)
		for (int i = 0; i < n; i++) {
			if (got[i].data.fd != fd) {
				echo_read(got[i].data.fd);
				continue;
			}
			ev.data.fd = accept(fd, NULL, NULL);
			if (ev.data.fd >= CONNS || epoll_ctl(ep, EPOLL_CTL_ADD, ev.data.fd, &ev))
				die("accept");
		}
	return 1;
}

int
main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (strcmp(mode, "versions") == 0)
		return printf("%s, SQLite %s\n", curl_version(), sqlite3_libversion()) < 0;
	if (strcmp(mode, "link") == 0)
		return pause();
	if (strcmp(mode, "init") == 0 && argc >= 3)
		return init(argv[2], argv[3]);
	if (strcmp(mode, "sync") == 0 && argc == 5)
		return sync_loop(argv[2], atoi(argv[3]), atoi(argv[4]));
	if (strcmp(mode, "relay") == 0 && argc == 4)
		relay(atoi(argv[2]), atoi(argv[3]));
	if (strcmp(mode, "echo") == 0 && argc == 3)
		return echo(argv[2]);
	fprintf(stderr, "see the head of floor.c\n");
	return 2;
}
