/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ws.h - the server side of WebSocket (RFC 6455) with permessage-deflate
 * (RFC 7692, no context taken over in either direction): bytes in, events and
 * bytes out; no I/O. The handshake's HTTP is the caller's, all but its two
 * WebSocket fields; so are closing, deadlines and the answers to pings.
 */
#ifndef BLUFIO_WS_H
#define BLUFIO_WS_H

#include "base.h"

#define WS_MESSAGE_MAX (1u << 20)    /* the usual limit of one message; ws_init takes another */
#define WS_FRAMES_MAX (1u << 18)     /* fragments of one message; beyond: close 1009 */
#define WS_CONTROL_MAX 125u          /* payload of a control frame (RFC 6455 §5.5) */
#define WS_REASON_MAX (WS_CONTROL_MAX - 2)
#define WS_DEFLATE_MIN 512u          /* shorter messages go out as they are: not worth the set-up */
#define WS_INFLATERS_MAX 16u         /* compressed messages in work at once, about 44 KB each */

/* The codes of RFC 6455 §7.4.1 and its registry that are used here. */
enum {
	WS_CODE_NORMAL = 1000, WS_CODE_AWAY = 1001, WS_CODE_PROTOCOL = 1002,
	WS_CODE_NONE = 1005,         /* never on the wire: a close frame without a code */
	WS_CODE_DATA = 1007, WS_CODE_POLICY = 1008, WS_CODE_SIZE = 1009,
	WS_CODE_INTERNAL = 1011, WS_CODE_LATER = 1013
};

/* The kinds of frames, by their opcodes, and two answers of ws_next. */
enum ws_event {
	WS_MORE = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10,
	WS_BAD = 16
};

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key, which must be base64 of 16 bytes (ERR_PARSE). */
FALLIBLE ws_accept(struct str key, struct buf *out);

/* Takes the first offer of permessage-deflate in Sec-WebSocket-Extensions (several fields are
 * joined by commas) that can be honoured and appends the answer to it. Returns the bits of the
 * window to compress with (9 to 15), or 0 when there is none: then nothing is appended. */
unsigned ws_deflate_offer(struct str extensions, struct buf *answer);

/* Shared by the connections of a server, and outlives them; starts as zeroes. */
struct ws_pool {
	unsigned inflaters;          /* in work */
};

struct inflater;
struct ws {
	struct ws_pool *pool;
	struct inflater *inflater;   /* of the compressed message in work, else NULL */
	struct buf message;          /* what has come of the message in work */
	size_t max, wire;            /* limit of a message; bytes its frames have had so far */
	size_t checked;              /* of a text: whole characters at its front */
	uint64_t left;               /* bytes of this frame still to come */
	unsigned frames, bits, code;
	enum ws_event type, ended;   /* of the message in work; WS_CLOSE or WS_BAD: no more */
	bool in_frame;               /* the head is complete, its payload is being read */
	unsigned char head[14], control[WS_CONTROL_MAX];
	unsigned char head_n, control_n, mask_at;
};
/* bits is what ws_deflate_offer gave; with 0 pool may be NULL. */
void ws_init(struct ws *w, size_t max, unsigned bits, struct ws_pool *pool);
void ws_free(struct ws *w);

/*
 * Takes from the front of *in up to the next event; WS_MORE: all of it, and no
 * event. A message is given whole. The payload lives until the next call.
 * WS_CLOSE: w->code is the client's (WS_CODE_NONE: none came), the payload its reason.
 * WS_BAD: w->code is what the server must close with. Both stick, and what follows is dropped.
 */
enum ws_event ws_next(struct ws *w, struct str *in, struct str *payload);

/* Appends one frame: WS_TEXT (valid UTF-8), WS_BINARY, WS_PING or WS_PONG; the whole or nothing.
 * A message is compressed where that was negotiated, makes it shorter and memory is there. */
FALLIBLE ws_put(const struct ws *w, struct buf *out, enum ws_event type, struct str payload);
/* A close frame; too long a reason is cut. WS_CODE_NONE: without code and reason. */
FALLIBLE ws_put_close(struct buf *out, unsigned code, struct str reason);

#endif
