/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fetch.h - HTTP client on the loop, through libcurl's multi interface
 * (HTTP/1.1 and 2 over TLS). The only file that sees curl.h is fetch.c.
 *
 * Every callback comes from the loop, never from inside fetch_start, and never
 * after fetch_cancel or the on_done call. URLs and headers may hold secrets:
 * no error text of this file contains a URL, a header or a body; it names the
 * host only.
 *
 * TLS is required: an http:// URL is accepted only for a loopback literal or
 * "localhost" (ERR_DENIED otherwise). No redirects are followed. Proxy
 * variables of the environment are honoured for https only.
 */
#ifndef BLUFIO_FETCH_H
#define BLUFIO_FETCH_H

#include "base.h"
#include "body.h"
#include "ev.h"

#define FETCH_OPS_MAX 1024            /* running at once; beyond: ERR_LIMIT */
#define FETCH_HEADER_MAX 64           /* response headers kept per request */

struct fetch;
struct fetch_op;

struct fetch_result {
	enum err err;                 /* OK: a complete response arrived (any status) */
	unsigned status;              /* 0 when no status line came */
	bool sent;                    /* some bytes of the request may have reached the peer:
	                                 false means certainly not delivered */
	const char *why;              /* for people, no secrets: "cannot resolve api.telegram.org" */
};
struct fetch_cb {
	/* All may be NULL but on_done. Headers are readable (fetch_header) from on_head on. */
	void (*on_head)(void *arg, struct fetch_op *op, unsigned status);
	/* A piece of the body. */
	void (*on_data)(void *arg, struct fetch_op *op, struct str bytes);
	/* Exactly once, unless cancelled. op is freed after it returns. */
	void (*on_done)(void *arg, struct fetch_op *op, const struct fetch_result *r);
};
struct fetch_req {
	const char *method;           /* "GET", "POST" … */
	const char *url;              /* NUL-terminated, copied */
	const char *const *headers;   /* "Name: value" strings, NULL-terminated list, copied; may be NULL */
	struct str body;              /* copied unless body_take is set */
	struct buf *body_take;        /* takes the buffer's memory (left empty) instead of copying body */
	struct body *body_from;       /* takes it (left empty): text and files, read while they are sent */
	int64_t connect_us, idle_us, total_us; /* 0 = FETCH_CONNECT_US … below; idle = no byte either way */
	size_t body_max;              /* response bytes accepted in all; 0 = FETCH_BODY_MAX; beyond: ERR_LIMIT */
	/* Open a new connection for this one. Set it when the request must not reach the
	 * peer twice: a kept connection that dies before the first byte of the answer makes
	 * libcurl repeat the request by itself on a new one, though the peer may have acted
	 * on the first. On a connection that was opened for the request it never does. */
	bool no_reuse;
	/* Never let libcurl repeat this request by itself: it fails with sent = true instead. */
	bool once;
};
#define FETCH_CONNECT_US (10 * US_PER_S)
#define FETCH_IDLE_US (60 * US_PER_S)
#define FETCH_TOTAL_US (1200 * US_PER_S)
#define FETCH_BODY_MAX (16u << 20)

FALLIBLE fetch_new(struct ev *ev, const char *user_agent, struct fetch **out);
void fetch_free(struct fetch *f);     /* cancels what runs; not from a callback of its own */
FALLIBLE fetch_start(struct fetch *f, const struct fetch_req *req, const struct fetch_cb *cb,
    void *arg, struct fetch_op **out);
void fetch_cancel(struct fetch_op *op);              /* frees op; NULL ok */
void fetch_pause(struct fetch_op *op, bool paused);  /* back-pressure: stops reading from the socket */
struct str fetch_header(const struct fetch_op *op, const char *name);  /* last value, case ignored; STR_NONE */
size_t fetch_running(const struct fetch *f);
const char *fetch_version(void);      /* libcurl's version string */

#endif
