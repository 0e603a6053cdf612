/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * relay.c - how long a word is on its way from the provider's socket to a client.
 *
 *   relay DELTAS GAP_US     prints a port; then reads where to ask from standard input
 *
 * It is both ends: a fake of the provider on that port, and a terminal (the path of
 * a control socket was given) or a program with an event stream ("PORT KEY" of the
 * gateway). The client asks once; the provider streams DELTAS words, each the time
 * at which it was written, GAP_US apart; the client takes the time at which it reads
 * each. Printed: nanoseconds, a line each, then "end".
 */
#define _GNU_SOURCE
#include "bench.h"

#include <poll.h>

/* One event of the stream, as a chunk. */
static void
event(int fd, const char *type, const char *data)
{
	char body[1024], chunk[1280];

	snprintf(body, sizeof(body), "event: %s\ndata: {\"type\":\"%s\"%s%s}\n\n", type, type, *data ? "," : "", data);
	snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(body), body);
	put(fd, chunk, strlen(chunk));
}

static long long sent, received;

/* The words that stand in a line that the client has read just now. */
static void
take(void *at, const char *line)
{
	const char *word = strstr(line, "\"type\":\"delta\"") || strncmp(line, "data: {\"text\"", 13) == 0 ?
	    strstr(line, "\"text\":\"") : NULL;

	for (word = word ? word + 8 : NULL; word && (word = strchr(word, 'T')); received++)
		printf("%lld\n", *(long long *)at - atoll(++word));
}

int
main(int argc, char **argv)
{
	static const char hello[] = "{\"cmd\":\"chat\",\"chat\":\"relay\"}\n{\"cmd\":\"message\",\"id\":\"1\",\"text\":\"go\"}\n",
	    ok[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
	static char request[1 << 16];
	static struct lines lines;
	long long deltas = argc > 2 ? atoll(argv[1]) : 0, gap = argc > 2 ? atoll(argv[2]) : 0, next = 0;
	char where[100], data[200];
	const char *key;
	size_t asked = 0;
	int port, l = listen_tcp(&port), client, model = -1, one = 1;

	printf("%d\n", port);
	fflush(stdout);
	if (!fgets(where, sizeof(where), stdin))
		die("nothing said");
	where[strcspn(where, "\n")] = '\0';
	client = dial(where, &key);
	if (key)
		post(client, key, "Accept: text/event-stream\r\n", "{\"content\":\"go\"}");
	else
		put(client, hello, strlen(hello));
	for (long long end = now_ns() + 60000000000LL; received < deltas && now_ns() < end;) {
		struct pollfd p[] = { { client, POLLIN, 0 }, { model < 0 ? l : model, POLLIN, 0 } };
		struct timespec wait = { 0, 0 };
		long long left = next - now_ns();

		if (next && sent < deltas && left > 0)
			wait.tv_nsec = (long)left;
		else if (!next || sent == deltas)
			wait.tv_sec = 1;
		if (ppoll(p, 2, &wait, NULL) < 0)
			die("poll");
		if (p[0].revents) {
			long long at = now_ns();

			lines_read(&lines, client, take, &at);
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
			put(model, ok, strlen(ok));
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
