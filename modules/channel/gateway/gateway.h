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
#define GATEWAY_LINGER_US (2 * US_PER_S) /* after the last byte, for the client to hang up */
#define GATEWAY_IN_MAX (64u << 10)      /* read ahead while a request is in work */
#define GATEWAY_READ (16u << 10)        /* taken from a connection at a time */
#define GATEWAY_OUT_MAX (8u << 20)      /* what a slow reader may owe; beyond it is dropped */
#define GATEWAY_OUT_HIGH (256u << 10)   /* above: its turn's stream is paused */
#define GATEWAY_GZIP_MIN 1024u          /* bytes of an answer that is worth compressing … */
#define GATEWAY_GZIP_MAX (1u << 20)     /* … and of one that does not hold the loop up: some 10 ms */
#define GATEWAY_SEGMENTS_MAX 4          /* {…} of a path */
#define GATEWAY_PING_US (15 * US_PER_S) /* a comment in a stream that is silent */

#define TEXT_HASH_EMPTY 2166136261u     /* FNV-1a of no text */

struct gateway;
struct conn;
struct request;
/* How a route family tells a turn. */
struct attend {
	bool (*streams)(const struct request *r);
	void (*begin)(struct request *r, struct str running);   /* a stream, of a turn that has said so much */
	void (*partial)(struct request *r, const struct partial *p);
	void (*done)(struct request *r, struct str text);       /* the answer is there: the request ends */
	void (*stopping)(struct request *r);    /* /stop was heard; what it stops says so where it is awaited */
};
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
	bool revokes;                   /* credentials or sessions end with its commit */
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
	const struct attend *attend;    /* what becomes of the turn's text and reply */
	struct request *wait_next, **wait_prev; /* of gateway.waiting */
	struct invocation *invocation;  /* of a tool, running */
	struct llm_call *call;          /* of a model, for this request alone */
	void (*cut)(struct request *r, bool paused);    /* set: ends it, with an error; else memory is made anew */
	int64_t wait_s;                 /* Retry-After of an error; 0: none */
	/* Set: of an item of a batch, which no connection waits for; takes the answer. */
	void (*answer)(struct request *r, int status, struct str body);
	void *own;                      /* of its route family; drop takes it away with the request */
	void (*drop)(struct request *r);
	bool on_socket;                 /* its answer is frames of the connection's socket */
	struct request *next;           /* of the same socket */
	bool paused;                    /* its turn or call waits for this reader */
	int64_t turn;
};

struct socket {
	struct ws ws;
	struct request *subs;           /* messages in work */
	void (*run)(struct request *r, struct str type);
	void (*message)(struct conn *c, enum ws_event e, struct str payload); /* set: takes all messages, of both types */
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
	bool lingers;                   /* all was said; what the client still sends is dropped */
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
	struct request *waiting;        /* for a turn's text and reply */
	const struct auth_ops *auth;
	void *auth_self;
	const struct api_ops *api;
	void *api_self;
	bool stopping;
	int fd_end;                     /* a client's descriptor is below: what the system's limit leaves */
	struct ws_pool pool;
	struct buf spare;               /* a read buffer: connections that wait have none */
	uint64_t last_id;               /* of a request, for people and logs; begins anywhere */
};

/* A route family that works by itself. */
struct api_ops {
	FALLIBLE (*start)(struct gateway *g, void **self);
	void (*load)(void *self);       /* after start, and whenever memory is made anew: from the rows */
	void (*reset)(void *self);      /* before that: nothing is under way any more */
	void (*paused)(void *self);     /* all calls end */
	void (*free)(void *self);
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
void request_too_large(struct request *r); /* 413 */
void request_lost(struct request *r);    /* the commit failed: whatever is held is not true */
/* Sends what is in held, now or after the commit of what this loop turn wrote. */
void request_send_held(struct request *r);
/* Begins an event stream with these octets; then events (id empty, event NULL: without) and comments; then its end. */
void request_stream(struct request *r, struct str first);
void request_event(struct request *r, struct str id, const char *event, struct str json);
void request_comment(struct request *r, const char *text);
void request_end(struct request *r);
const struct trace *request_trace(struct request *r);   /* its client's, or one that is made */
void request_pause(struct request *r, bool paused);     /* whoever makes its text stops and goes on */
void request_wait(struct request *r, const struct attend *attend);      /* from now on it is told of the turn that answers to its ref */
/* The error object, for a stream that has begun; in the shape that the route's clients read. */
void request_error_json(struct request *r, struct buf *out, int status, const char *type, const char *param, const char *hint,
    const char *message);

/* attend.c */
#define ATTEND_KEY_MAX 255              /* bytes of Idempotency-Key */
/* The conversation or message of that id becomes the request's, if it is its credential's. */
bool attend_session(struct request *r, int64_t id);
bool attend_message(struct request *r, int64_t id);
/* A name for a message: by chance, or the one that the key always has. */
FALLIBLE attend_name(const struct request *r, struct str key, char *out, size_t size);
bool attend_key(struct request *r, struct str *key);    /* the header; empty: none; false: an error is answered */
uint32_t attend_hash(uint32_t h, struct str more);      /* from TEXT_HASH_EMPTY on */
/* A message of r->chat that is called r->ref: stored, then waited for. Target and time are filled in here. */
void attend_put(struct request *r, struct inbound *in);
void attend_join(struct request *r);                    /* waits for a message that is stored, or about to be */
void attend_turn(struct request *r, bool fresh);        /* waits for the answer, or gives it when it is there */
/* The text of the running turn that answers it, and the reply when there is one. */
FALLIBLE attend_look(struct request *r, bool fresh, struct str *running, struct buf *reply, bool *done);
void attend_done(struct request *r, struct str text);
void attend_reply(struct request *r, const struct outbox_item *item);

/* list.c: an object {name: […], has_more, next} */
struct list {
	struct request *r;
	struct page page;
	int64_t left, last;             /* items still to be put; the one put last */
	bool more, closed;
	struct buf b;
	struct jw w;
};
/* Which page is asked for; false: it was answered. Free l->b. */
bool list_begin(struct list *l, struct request *r, const char *name, bool newest_first);
/* Begins the object of an item; false when the page is full. */
bool list_item(struct list *l, int64_t id);
void list_close(struct list *l);        /* the items are all; further members may follow */
void list_answer(struct list *l, enum err e);
void list_put_id(struct jw *w, const char *key, int64_t id);  /* ids are texts */

/* socket.c */
/* Answers a request to become a WebSocket; run is what becomes of a message, stop or resume. */
void socket_open(struct request *r, void (*run)(struct request *r, struct str type));
void socket_pump(struct conn *c);
void socket_tick(struct conn *c);
void socket_say(struct request *r, const char *type, struct str seq, struct str json);
void socket_free(struct conn *c);

#endif
