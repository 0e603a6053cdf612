/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * sse.h - event-stream splitter (WHATWG HTML §9.2, client side): bytes in,
 * events out; no I/O. A line ends at CR, LF or CRLF (a CR ends it at once, one
 * LF that follows is swallowed); one BOM at the start is dropped; an event
 * without its blank line is not dispatched. An id that holds a NUL is ignored,
 * and so is a retry that is not digits alone. Bytes are handed on unvalidated.
 */
#ifndef BLUFIO_SSE_H
#define BLUFIO_SSE_H

#include "base.h"

#define SSE_EVENT_MAX (4u << 20)     /* bytes of one event's data; beyond: ERR_LIMIT */
#define SSE_NAME_MAX (4u << 10)      /* bytes of an event's type, or of its id; beyond: ERR_LIMIT */

typedef void sse_fn(void *arg, struct str type, struct str data, struct str id);

struct sse {
	struct buf line, data, type, id_pending;
	struct buf id;                /* of the last finished event: for Last-Event-ID */
	bool cr, started, have_data;
	unsigned bom;                 /* bytes of a BOM seen so far */
	int64_t retry_ms;             /* -1: none seen */
	enum err err;
};
void sse_init(struct sse *s);
void sse_free(struct sse *s);
void sse_reset(struct sse *s);        /* for the next stream: all state forgotten, memory kept */
/* Feeds n bytes; fn is called once for each complete event (type is "message" when none was
 * named). fn may not free or reset s. After an error all later calls return it. */
FALLIBLE sse_feed(struct sse *s, struct str bytes, sse_fn *fn, void *arg);

#endif
