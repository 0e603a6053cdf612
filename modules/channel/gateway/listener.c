/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * listener.c - where the gateway is reached: an address, a Unix socket, and an
 * address of their own for the metrics.
 *
 * An address that others can reach has to be asked for twice. A socket in the file
 * system has mode 0600; one that a killed process left is replaced, one that is in
 * use or something else is not. Credentials are asked for everywhere alike.
 *
 * Every connection is a descriptor: the system's limit is raised, and its last
 * FDS_KEPT are never given to a client: storage and what we ask of others live on.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "channel/gateway/gateway.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_PAUSE_US (100 * US_PER_MS)  /* when descriptors have run out */
#define ACCEPTS_MAX 64                  /* in one turn of the loop */
#define BACKLOG 1024                    /* who is not accepted yet; whoever comes then tries again after a second */
#define FDS_KEPT 32                     /* for storage and what we ask of others */
#define TCP_LISTENING 0x0A              /* in /proc/net/tcp */

/* ---- accepting --------------------------------------------------------------------------- */

static bool
is_loopback(const struct sockaddr *sa)
{
	const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;

	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24 == 127;
	return sa->sa_family == AF_UNIX || (sa->sa_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(six) ||
	    (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127)));
}

/* Whom wrong tries and connections are counted against. Of IPv6 that is a network of 64 bits: who has one address there
 * has them all. */
static void
peer_name(struct sockaddr_storage *from, socklen_t n, char *out, size_t size)
{
	struct in6_addr *six = &((struct sockaddr_in6 *)(void *)from)->sin6_addr;

	if (from->ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(six) && !IN6_IS_ADDR_LOOPBACK(six))
		memset(six->s6_addr + 8, 0, 8);
	if (from->ss_family == AF_UNIX || getnameinfo((struct sockaddr *)(void *)from, n, out, (socklen_t)size, NULL, 0,
	    NI_NUMERICHOST) != 0)
		snprintf(out, size, from->ss_family == AF_UNIX ? "unix" : "?");
}

static void on_accept(void *arg, int fd, unsigned events);

static void
listen_again(void *arg)
{
	struct listener *l = arg;

	if (ev_fd_set(l->g->a->ev, l->fd, EV_READ, on_accept, l) != OK)
		ev_timer_in(l->g->a->ev, &l->again, ACCEPT_PAUSE_US);
}

/* False: nobody is there. */
static bool
accept_one(struct listener *l)
{
	struct sockaddr_storage from = { .ss_family = AF_UNIX };
	socklen_t n = sizeof(from);
	int client = accept(l->fd, (struct sockaddr *)(void *)&from, &n), one = 1;
	char peer[64];

	if (client < 0) {
		if (errno == EMFILE || errno == ENFILE) {
			ev_fd_del(l->g->a->ev, l->fd);
			ev_timer_in(l->g->a->ev, &l->again, ACCEPT_PAUSE_US);
		}
		return false;
	}
	peer_name(&from, n, peer, sizeof(peer));
	if (from.ss_family != AF_UNIX)
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	conn_new(l, client, peer, is_loopback((struct sockaddr *)(void *)&from));
	return true;
}

/* Several at once: a turn of the loop may wait for the disk at its end. */
static void
on_accept(void *arg, int fd, unsigned events)
{
	(void)fd;
	(void)events;
	for (int n = 0; n < ACCEPTS_MAX && accept_one(arg); n++)
		continue;
}

/* ---- addresses ------------------------------------------------------------------------------ */

/* The number of a listening socket, as /proc has it; 0: not to be had. */
static unsigned long long
socket_on(unsigned port)
{
	static const char *const tables[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	unsigned long long inode = 0, number;
	unsigned local, state;
	char line[512];

	for (size_t i = 0; i < ARRAY_LEN(tables) && !inode; i++) {
		FILE *s = fopen(tables[i], "r");

		while (s && !inode && fgets(line, sizeof(line), s))
			if (sscanf(line, " %*d: %*[0-9A-F]:%x %*s %x %*s %*s %*s %*u %*u %llu", &local, &state, &number) == 3 &&
			    local == port && state == TCP_LISTENING)
				inode = number;
		if (s)
			fclose(s);
	}
	return inode;
}

/* Who listens on a port, where the system tells: " by process 12". */
static void
put_holder(struct buf *out, unsigned port)
{
	unsigned long long inode = socket_on(port);
	char path[300], want[64], have[64];
	DIR *all = inode ? opendir("/proc") : NULL, *one;

	snprintf(want, sizeof(want), "socket:[%llu]", inode);
	for (struct dirent *p; all && out->n == 0 && (p = readdir(all));) {
		snprintf(path, sizeof(path), "/proc/%s/fd", p->d_name);
		one = p->d_name[0] >= '1' && p->d_name[0] <= '9' ? opendir(path) : NULL;
		for (struct dirent *f; one && out->n == 0 && (f = readdir(one));) {
			ssize_t n = readlinkat(dirfd(one), f->d_name, have, sizeof(have));

			if (n > 0 && str_eqz(str_make(have, (size_t)n), want))
				buf_fmt(out, " by process %s", p->d_name);
		}
		if (one)
			closedir(one);
	}
	if (all)
		closedir(all);
}

/* What a listener of TCP is called in the configuration, and what would do. */
struct wish { const char *key, *good, *other; };

static enum err
cannot_listen(const struct listener *l, const struct wish *w, unsigned port, int why, struct fail *f)
{
	struct buf holder = BUF_INIT(128);
	enum err e;

	if (why == EADDRINUSE)
		put_holder(&holder, port);
	e = fail_set(f, why == EADDRINUSE || why == EACCES || why == EADDRNOTAVAIL ? ERR_CONFIG : ERR_IO,
	    "the gateway cannot listen on %s port %u (%s%s); next: %s`blufio config set %s`%s", l->host, port, strerror(why),
	    buf_z(&holder), why != EADDRINUSE ? "" : holder.n ? "end it, or " : "find who has it with `ss -ltnp`, or ",
	    why == EADDRINUSE || why == EACCES ? w->other : w->good, why == EACCES ? ": ports below 1024 are the system's" : "");
	buf_free(&holder);
	return e;
}

static enum err
open_tcp(struct listener *l, const struct wish *w, struct str host, unsigned port, struct fail *f)
{
	const struct config *c = l->g->a->config;
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE },
	    *found = NULL;
	struct sockaddr_storage bound;
	socklen_t n = sizeof(bound);
	char text[16];
	int one = 1, why;

	snprintf(l->host, sizeof(l->host), "%.*s", STR_ARG(host));
	snprintf(text, sizeof(text), "%u", port);
	if (host.n == 0 || host.n >= sizeof(l->host) ||
	    getaddrinfo(str_eqz(host, "localhost") ? "127.0.0.1" : l->host, text, &hints, &found) != 0)
		return fail_set(f, ERR_CONFIG, "%s is \"%.*s\" (%s): wanted is a numeric address such as 127.0.0.1 or ::1;"
		    " next: `blufio config set %s`", w->key, STR_ARG(config_str(c, w->key)), config_origin(c, w->key), w->good);
	l->is_public = !is_loopback(found->ai_addr);
	if (l->is_public && !config_bool(c, "gateway.allow_public")) {
		freeaddrinfo(found);
		return fail_set(f, ERR_CONFIG, "%s is %.*s (%s), which others can reach, and what they send would not be"
		    " encrypted. Put a server that speaks TLS in front and keep 127.0.0.1, or, if that is what you want:"
		    " `blufio config set gateway.allow_public true`", w->key, STR_ARG(config_str(c, w->key)), config_origin(c, w->key));
	}
	l->fd = socket(found->ai_family, SOCK_STREAM, 0);
	if (l->fd < 0 || fd_cloexec(l->fd) != OK || fd_nonblock(l->fd) != OK ||
	    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(l->fd, found->ai_addr, found->ai_addrlen) != 0 || listen(l->fd, BACKLOG) != 0 ||
	    getsockname(l->fd, (struct sockaddr *)(void *)&bound, &n) != 0) {
		why = errno;
		freeaddrinfo(found);
		return cannot_listen(l, w, port, why, f);
	}
	freeaddrinfo(found);
	port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port :
	    ((struct sockaddr_in *)(void *)&bound)->sin_port);
	snprintf(l->address, sizeof(l->address), strchr(l->host, ':') ? "[%s]:%u" : "%s:%u", l->host, port);
	return OK;
}

/* "127.0.0.1:9100", "[::1]:9100" */
static enum err
open_metrics(struct listener *l, struct fail *f)
{
	static const struct wish w = { "prometheus.listen", "prometheus.listen 127.0.0.1:9100", "prometheus.listen 127.0.0.1:9101" };
	struct str host = config_str(l->g->a->config, w.key), port;
	size_t colon = host.n;
	int64_t number = 0;

	while (colon > 0 && host.p[colon - 1] != ':')
		colon--;
	port = str_sub(host, colon, host.n);
	host = str_sub(host, 0, colon ? colon - 1 : 0);
	if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
		host = str_sub(host, 1, host.n - 2);
	else if (str_chr(host, ':') != SIZE_MAX)        /* an address of IPv6 needs its brackets */
		host.n = 0;
	if (str_i64(port, 0, UINT16_MAX, &number) != OK)
		host.n = 0;
	l->metrics_only = true;
	return open_tcp(l, &w, host, (unsigned)number, f);
}

static enum err
open_unix(struct listener *l, const char *path, struct fail *f)
{
	struct fail why = FAIL_INIT;
	enum err e = fd_listen(path, BACKLOG, &l->fd, &why);

	if (e == ERR_LIMIT)
		return fail_set(f, ERR_CONFIG, "gateway.socket (%s) is %s: %s; next: `blufio config set gateway.socket"
		    " /a/shorter/path`", config_origin(l->g->a->config, "gateway.socket"), why.text, path);
	if (e != OK)
		return fail_set(f, ERR_CONFIG, "the gateway cannot listen on the socket %s (%s); next: `ls -l` it and its directory, or"
		    " `blufio config set gateway.socket /another/path`", path, why.text);
	l->is_unix = true;
	snprintf(l->address, sizeof(l->address), "%s", path);
	return OK;
}

/* ---- all of them ------------------------------------------------------------------------------ */

static void
raise_limit(struct gateway *g)
{
	const rlim_t want = g->conns_max + FDS_KEPT * 2;        /* and what we have open ourselves */
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < want) {
		l.rlim_cur = l.rlim_max < want ? l.rlim_max : want;
		if (setrlimit(RLIMIT_NOFILE, &l) != 0)
			log_warn("gateway", "the limit of open files cannot be raised: %s", strerror(errno));
	}
	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur > INT_MAX)
		l.rlim_cur = INT_MAX;
	g->fd_end = l.rlim_cur > FDS_KEPT ? (int)(l.rlim_cur - FDS_KEPT) : 0;
	if (l.rlim_cur < want)
		log_warn("gateway", "fewer than %d connections: the limit of open files is %llu", g->fd_end,
		    (unsigned long long)l.rlim_cur);
}

static struct listener *
add(struct gateway *g)
{
	struct listener *l = &g->listeners[g->n_listeners++];

	l->g = g;
	l->fd = -1;
	ev_timer_init(&l->again, listen_again, l);
	return l;
}

bool
listener_metrics(const struct config *c)
{
	return feature_find(FEATURE_OBSERVABILITY, S("prometheus")) && config_str(c, "prometheus.listen").n;
}

enum err
listener_open(struct gateway *g, struct fail *f)
{
	static const struct wish w = { "gateway.host", "gateway.host 127.0.0.1", "gateway.port 3001" };
	const struct config *c = g->a->config;
	struct str host = config_str(c, w.key), path = config_str(c, "gateway.socket");
	bool on = config_bool(c, "gateway.enabled");
	enum err e = OK;

	raise_limit(g);
	if (on && (host.n || !path.n))
		e = open_tcp(add(g), &w, host, (unsigned)config_i64(c, "gateway.port"), f);
	if (e == OK && on && path.n)
		e = open_unix(add(g), path.p, f);
	g->metrics_apart = listener_metrics(c);
	if (e == OK && g->metrics_apart)
		e = open_metrics(add(g), f);
	for (size_t i = 0; i < g->n_listeners && e == OK; i++)
		log_info("gateway", g->listeners[i].metrics_only ? "metrics on %s" : "listening on %s", g->listeners[i].address);
	return e;
}

void
listener_begin(struct gateway *g)
{
	for (size_t i = 0; i < g->n_listeners; i++)
		listen_again(&g->listeners[i]);
}

void
listener_stop(struct gateway *g)
{
	for (size_t i = 0; i < g->n_listeners; i++) {
		ev_timer_cancel(g->a->ev, &g->listeners[i].again);
		if (g->listeners[i].fd >= 0)
			ev_fd_del(g->a->ev, g->listeners[i].fd);
	}
}

void
listener_close(struct gateway *g)
{
	listener_stop(g);
	for (size_t i = 0; i < g->n_listeners; i++) {
		struct listener *l = &g->listeners[i];

		if (l->fd >= 0)
			close(l->fd);
		if (l->is_unix)
			unlink(l->address);
	}
}
