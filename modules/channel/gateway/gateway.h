/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * gateway.h - what the files of the gateway and the route families share.
 *
 * A connection reads one request at a time; the next one waits in its buffer. A
 * request ends with one answer, at once or later; one that waits for a turn says
 * so with watch, and is told of the turn's text and reply.
 */
#ifndef BLUFIO_GATEWAY_H
#define BLUFIO_GATEWAY_H

#include "base/ws.h"
#include "crypto/sha2.h"
#include "core/core.h"

/* Of gateway.max_connections one in so many may be without a credential, or of one address elsewhere. Addresses of this
 * machine have no such share: a server in front shows all the world under one of them. */
#define GATEWAY_STRANGERS_PART 2u
#define GATEWAY_PEER_PART 4u
#define GATEWAY_HEAD_US (10 * US_PER_S) /* for a whole head, from its first byte */
#define GATEWAY_BODY_US (30 * US_PER_S) /* for a body */
#define GATEWAY_IDLE_US (75 * US_PER_S) /* between two requests */
#define GATEWAY_WRITE_US (30 * US_PER_S) /* without one byte taken by the client: it is dropped */
#define GATEWAY_IN_MAX (64u << 10)      /* read ahead while a request is in work */
#define GATEWAY_OUT_MAX (8u << 20)      /* what a slow reader may owe; beyond it is dropped */
#define GATEWAY_OUT_HIGH (256u << 10)   /* above: its turn's stream is paused */
#define GATEWAY_GZIP_MIN 1024u          /* bytes of an answer that is worth compressing … */
#define GATEWAY_GZIP_MAX (1u << 20)     /* … and of one that does not hold the loop up: some 10 ms */
#define GATEWAY_SEGMENTS_MAX 4          /* {…} of a path */
#define GATEWAY_PING_US (15 * US_PER_S) /* a comment in a stream that is silent */

#define TEXT_HASH_EMPTY 2166136261u     /* FNV-1a of no text */

struct gateway;
struct conn;
struct request {
	struct conn *c;
	struct agent *a;
	char id[17];                    /* X-Request-Id */
	struct trace trace;             /* the client's, or a new one */
	const struct route *route;
	struct principal who;
	struct buf path;                /* decoded */
	struct str segments[GATEWAY_SEGMENTS_MAX];
	size_t n_segments;
	struct buf body;
	struct sha256 sha;              /* of the body, when a signature covers it */
	struct buf held;                /* the answer, until what it tells is committed */
	struct effect release;
	bool running;                   /* its body is complete */
	bool answered;                  /* no more is written but what held has */
	bool stored;                    /* what it wrote is committed */
	bool stream;                    /* an event stream has begun */
	int64_t revokes;                /* a credential that ends with its commit; 0 none */
	bool closes;                    /* the connection ends with it */
	int status;                     /* of its answer, once that has a head */
	/* a request that waits for a turn */
	char chat[128], ref[80];        /* the turn's target; ref empty: waits for none */
	int64_t inbound, session;       /* rows */
	int64_t created_at;             /* of the message, us */
	size_t said;                    /* bytes of the turn's text that the client has */
	uint32_t hash;                  /* of them */
	bool anew;                      /* the text began anew */
	struct ev_timer timer;          /* the answer's deadline, or the stream's next comment */
	int64_t spoke_at;               /* when the stream last said something */
	void (*partial)(struct request *r, const struct partial *p);
	void (*reply)(struct request *r, const struct outbox_item *item);
	struct invocation *invocation;  /* of a tool, running */
	bool on_socket;                 /* its answer is frames of the connection's socket */
	struct request *next;           /* of the same socket */
	bool paused;                    /* the turn waits for this reader */
	int64_t turn;
};

struct socket {
	struct ws ws;
	struct request *subs;           /* messages in work */
	void (*run)(struct request *r, struct str type);
	unsigned quiet;                 /* ticks without a byte */
};

struct listener {
	struct gateway *g;
	int fd;
	bool is_unix;
	bool is_public;                 /* others can reach it: for as long as it listens */
	bool metrics_only;              /* answers /metrics and /health, nothing else */
	char host[64];
	char address[128];              /* "127.0.0.1:3000"; a socket's path */
	struct ev_timer again;
};

struct conn {
	struct gateway *g;
	const struct listener *at;
	int fd;
	char peer[64];
	bool local;                     /* of this machine: perhaps a server in front, with the whole world behind it */
	struct http http;
	struct buf in, out;
	struct request *req;            /* in work; NULL: the next one is awaited */
	struct ev_timer timer;          /* head, body or idle time */
	struct ev_timer stall;          /* the client takes nothing */
	struct ev_defer reap, go;
	bool dead, eof, ends;           /* ends: close when out is empty */
	struct socket *socket;          /* after the handshake of WebSocket */
	bool in_head;                   /* the time for a head runs */
	enum metric_limit timed;        /* what timer stands for */
	bool known;                     /* a valid credential was shown on it */
	struct conn *next, **prev;
};

struct gateway {
	struct agent *a;
	struct listener listeners[3];   /* an address, a socket, one for metrics */
	size_t n_listeners;
	bool metrics_apart;             /* there is such a one */
	struct conn *conns, **tail;     /* oldest first */
	size_t n_conns, n_known, conns_max;
	const struct auth_ops *auth;
	void *auth_self;
	bool stopping;
	int fd_end;                     /* a client's descriptor is below: what the system's limit leaves */
	struct ws_pool pool;
};

/* listener.c */
bool listener_metrics(const struct config *c);  /* is an address for metrics alone configured? */
FALLIBLE listener_open(struct gateway *g, struct fail *f);
void listener_begin(struct gateway *g);
void listener_stop(struct gateway *g);
void listener_close(struct gateway *g);

/* conn.c */
void conn_new(const struct listener *l, int fd, const char *peer, bool local);
void conn_free(struct conn *c);
void conn_drop(struct conn *c);          /* at the end of this loop turn */
void conn_limit(struct conn *c, enum metric_limit l);   /* the same, for a limit that it reached */
void conn_known(struct conn *c);
void conn_flush(struct conn *c);
void conn_next(struct conn *c);          /* its request is answered: go on */

/* request.c */
struct request *request_new(struct conn *c);
void request_free(struct request *r);
bool request_admit(struct request *r);   /* after the head: route, Host, Origin, credential; false: it is answered */
void request_run(struct request *r);     /* after the body */
void request_lost(struct request *r);    /* the commit failed: whatever is held is not true */
/* An answer of any kind; fields are whole lines, may be empty. */
void request_answer_raw(struct request *r, int status, const char *type, struct str fields, struct str body);
/* Sends what is in held, now or after the commit of what this loop turn wrote. */
void request_send_held(struct request *r);
/* Begins an event stream; then events and comments; then its end. */
void request_stream(struct request *r);
void request_event(struct request *r, struct str id, const char *event, struct str json);
void request_comment(struct request *r, const char *text);
void request_end(struct request *r);
/* The body as an object with no member but those named ("content session_id?": ? may be absent), each a string
 * unless marked ("n:i" integer, "x:a" array, "x:b" boolean, "x:o" object). NULL: the error is answered. */
const struct json *request_object(struct request *r, struct arena *ar, const char *members);
/* The error object, for a stream that has begun. */
void request_error_json(struct request *r, struct buf *out, const char *type, const char *param, const char *hint,
    const char *message);

/* list.c: an object {name: […], has_more, next} */
struct list {
	struct request *r;
	struct page page;
	int64_t left, last;             /* items still to be put; the one put last */
	bool more;
	struct buf b;
	struct jw w;
};
/* Which page is asked for; false: it was answered. Free l->b. */
bool list_begin(struct list *l, struct request *r, const char *name, bool newest_first);
/* Begins the object of an item; false when the page is full. */
bool list_item(struct list *l, int64_t id);
void list_answer(struct list *l, enum err e);

/* socket.c */
/* Answers a request to become a WebSocket; run is what becomes of a message, stop or resume. */
void socket_open(struct request *r, void (*run)(struct request *r, struct str type));
void socket_pump(struct conn *c);
void socket_tick(struct conn *c);
void socket_say(struct request *r, const char *type, struct str seq, struct str json);
void socket_free(struct conn *c);

#endif
