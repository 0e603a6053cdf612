/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ws.c - the server side of WebSocket: frames, messages, compression.
 *
 * A frame is a head of 6 to 14 bytes and a masked payload. The head is
 * collected in the struct; its first two bytes are judged as soon as they are
 * there, the length when it is complete. So a frame that may not be is refused
 * before a byte of it is stored, and a client that sends no mask is not waited
 * for. The payload is unmasked into the message as it comes, or through the
 * inflater, and text is checked there and then: what is wrong is seen at the
 * byte that makes it so, however the stream is cut.
 *
 * Cost and memory follow what has come, never what a length promises: the
 * buffer doubles, a character is looked at again only while it is incomplete,
 * an inflater stops at one byte beyond the limit. Fragments are counted, since
 * empty ones fill no buffer. Between messages a connection has its struct and
 * nothing else: the buffer goes when the next event is asked for, zlib's state
 * (no context is taken over) with its message. Inflaters can be held by a
 * client that never ends its message, so a pool counts them; at the bound a
 * compressed message is answered with 1013. A deflater lives within one call of
 * ws_put, sized by the payload; without memory for it the message goes out as
 * it is.
 *
 * SHA-1 is here because the handshake wants it, and for nothing else.
 */
#include "base/ws.h"
#include "base/deflate.h"

#include <assert.h>

#define FIN 0x80u
#define RSV 0x70u
#define RSV_DEFLATED 0x40u
#define OPCODE 0x0Fu
#define CONTROL 0x08u
#define MASKED 0x80u
#define LEN 0x7Fu

#define HEAD_OUT_MAX 10u        /* of a frame of ours: no mask */
#define CHUNK 4096u             /* bytes unmasked, and inflated, at a time */
#define WIRE_SLACK 1024u        /* what a compressed message may be longer than twice the limit */

static size_t
min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* ---- handshake ----------------------------------------------------------------- */

static uint32_t
rotate(uint32_t x, unsigned n)
{
	return x << n | x >> (32 - n);
}

static void
sha1_block(uint32_t h[5], const unsigned char *p)
{
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f;

	for (size_t i = 0; i < 80; i++) {
		w[i] = i < 16 ? (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
		    (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3] :
		    rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
		if (i < 20)
			f = ((b & c) | (~b & d)) + 0x5A827999u;
		else if (i < 40)
			f = (b ^ c ^ d) + 0x6ED9EBA1u;
		else if (i < 60)
			f = ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCu;
		else
			f = (b ^ c ^ d) + 0xCA62C1D6u;
		f += rotate(a, 5) + e + w[i];
		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = f;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
}

enum err
ws_accept(struct str key, struct buf *out)
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	uint32_t h[5] = { 0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u };
	struct buf nonce = BUF_INIT(32);
	unsigned char text[128] = { 0 }, digest[20];
	size_t n = key.n + sizeof(guid) - 1;
	enum err e = key.n == 24 ? dec_base64(key, &nonce) : ERR_PARSE;

	if (e == OK && nonce.n != 16)
		e = ERR_PARSE;
	buf_free(&nonce);
	if (e != OK)
		return e;
	/* 60 bytes, always: with the padding, two blocks. */
	memcpy(text, key.p, key.n);
	memcpy(text + key.n, guid, sizeof(guid) - 1);
	text[n] = 0x80;
	text[126] = (unsigned char)(n * 8 >> 8);
	text[127] = (unsigned char)(n * 8);
	sha1_block(h, text);
	sha1_block(h, text + 64);
	for (size_t i = 0; i < sizeof(digest); i++)
		digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
	enc_base64(out, digest, sizeof(digest));
	return out->err;
}

static void
skip_blanks(struct str *s)
{
	while (s->n && (s->p[0] == ' ' || s->p[0] == '\t'))
		*s = str_sub(*s, 1, s->n);
}

/* The header field is read in steps that skip the blanks before what they look for. */
static bool
skip(struct str *s, char c)
{
	skip_blanks(s);
	if (s->n == 0 || s->p[0] != c)
		return false;
	*s = str_sub(*s, 1, s->n);
	return true;
}

static bool
is_token(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	    (c && strchr("!#$%&'*+-.^_`|~", c));
}

static struct str
take_token(struct str *s)
{
	struct str token;
	size_t n = 0;

	skip_blanks(s);
	while (n < s->n && is_token(s->p[n]))
		n++;
	token = str_sub(*s, 0, n);
	*s = str_sub(*s, n, s->n);
	return token;
}

/* What stands up to the closing quote; a quoted pair stays as it is, and is no value of ours. */
static struct str
take_quoted(struct str *s)
{
	struct str text;
	size_t n = 0;

	while (n < s->n && s->p[n] != '"')
		n += s->p[n] == '\\' ? 2 : 1;
	text = n < s->n ? str_sub(*s, 0, n) : STR_NONE;         /* never closed: no value */
	*s = str_sub(*s, n + 1, s->n);
	return text;
}

/* To the end of a list's element, which a comma inside quotes is not. True when nothing was left. */
static bool
skip_element(struct str *s)
{
	bool clean = true;

	while (s->n && !skip(s, ',')) {
		if (s->n == 0)
			break;          /* there were only blanks */
		clean = false;
		if (skip(s, '"'))
			take_quoted(s);
		else
			*s = str_sub(*s, 1, s->n);
	}
	return clean;
}

/* One parameter of an offer (RFC 7692 §7.1): false declines it. *window is 0 until one is named. */
static bool
take_param(struct str *s, unsigned *seen, unsigned *window)
{
	static const char *const names[] = { "server_no_context_takeover",
		"client_no_context_takeover", "server_max_window_bits", "client_max_window_bits" };
	struct str name = take_token(s), value = STR_NONE;
	bool has_value = skip(s, '=');
	int64_t bits = 0;
	size_t i = 0;

	if (has_value)
		value = skip(s, '"') ? take_quoted(s) : take_token(s);
	while (i < ARRAY_LEN(names) && !str_eqz(name, names[i]))
		i++;
	if (i == ARRAY_LEN(names) || (*seen & 1u << i))
		return false;
	*seen |= 1u << i;
	if (i < 2)
		return !has_value;
	if (!has_value)
		return i == 3;
	if (str_starts(value, S("0")) || str_i64(value, 8, DEFLATE_BITS_MAX, &bits) != OK)
		return false;
	if (i == 2)
		*window = (unsigned)bits;
	/* A window of 256 bytes would be ours to keep within, and zlib cannot. How large a
	 * window the client's side has does not matter: ours always has the largest. */
	return i == 3 || bits >= DEFLATE_BITS_MIN;
}

unsigned
ws_deflate_offer(struct str extensions, struct buf *answer)
{
	while (extensions.n) {
		struct str name = take_token(&extensions);
		unsigned seen = 0, window = 0;
		bool good = str_eqz(name, "permessage-deflate");

		while (good && skip(&extensions, ';'))
			good = take_param(&extensions, &seen, &window);
		if (!skip_element(&extensions) || !good)
			continue;
		buf_puts(answer, "permessage-deflate; server_no_context_takeover; "
		    "client_no_context_takeover");
		if (window)
			buf_fmt(answer, "; server_max_window_bits=%u", window);
		return window ? window : DEFLATE_BITS_MAX;
	}
	return 0;
}

/* ---- compression -------------------------------------------------------------------- */

static void
inflater_drop(struct ws *w)
{
	if (!w->inflater)
		return;
	inflater_free(w->inflater);
	w->inflater = NULL;
	w->pool->inflaters--;
}

/* As all that judge what the client sent, this returns the code to close with, or 0. */
static unsigned
inflater_take(struct ws *w)
{
	if (w->pool->inflaters >= WS_INFLATERS_MAX)
		return WS_CODE_LATER;
	if (inflater_new(&w->inflater) != OK)
		return WS_CODE_INTERNAL;
	w->pool->inflaters++;
	return 0;
}

/* ---- what comes ------------------------------------------------------------------------ */

void
ws_init(struct ws *w, size_t max, unsigned bits, struct ws_pool *pool)
{
	assert(max <= SIZE_MAX / 4 && (bits == 0 || pool));
	*w = (struct ws){ .pool = pool, .max = max, .bits = bits };
	buf_init(&w->message, max + 1); /* one byte beyond the limit tells that it was passed */
}

void
ws_free(struct ws *w)
{
	inflater_drop(w);
	buf_free(&w->message);
}

/* Cuts up to max bytes off the front of *in. */
static struct str
take(struct str *in, uint64_t max)
{
	struct str part = str_sub(*in, 0, max < in->n ? (size_t)max : in->n);

	*in = str_sub(*in, part.n, in->n);
	return part;
}

/* The mask goes on where it stopped; dst and src are the same or apart. */
static void
unmask(struct ws *w, char *dst, struct str src)
{
	const unsigned char *mask = w->head + w->head_n - 4;
	unsigned char key[8];
	uint64_t word, keys;
	size_t i;

	for (i = 0; i < sizeof(key); i++)
		key[i] = mask[(w->mask_at + i) & 3];
	memcpy(&keys, key, sizeof(keys));
	for (i = 0; src.n - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, src.p + i, sizeof(word));
		word ^= keys;
		memcpy(dst + i, &word, sizeof(word));
	}
	for (; i < src.n; i++)
		dst[i] = (char)((unsigned char)src.p[i] ^ key[i & 7]);
	w->mask_at = (unsigned char)((w->mask_at + src.n) & 3);
	w->left -= src.n;
}

/* Is what has come of a text the beginning of valid UTF-8? */
static bool
text_begins(struct ws *w)
{
	struct str rest = str_sub(buf_view(&w->message), w->checked, w->message.n);
	size_t n = utf8_run(rest), len;
	unsigned char lead;

	w->checked += n;
	rest = str_sub(rest, n, rest.n);
	if (rest.n == 0)
		return true;
	/* What is there must be the front of one character, cut off by the end alone. */
	lead = (unsigned char)rest.p[0];
	utf8_decode(rest, &len);
	return len == rest.n && lead >= 0xC2 && lead <= 0xF4;
}

static unsigned
inflate_part(struct ws *w, struct str in)
{
	size_t room, n;
	char *p;
	enum err e;

	do {
		n = room = min_size(CHUNK, w->max + 1 - w->message.n);
		p = buf_room(&w->message, room);
		if (!p)
			return WS_CODE_INTERNAL;
		e = inflater_step(w->inflater, &in, p, &n);
		w->message.n += n;
		if (w->type == WS_TEXT && !text_begins(w))
			return WS_CODE_DATA;
		if (w->message.n > w->max)
			return WS_CODE_SIZE;
		if (e != OK)
			return e == ERR_NOMEM ? WS_CODE_INTERNAL : WS_CODE_DATA;
	} while (in.n || n == room);
	return 0;
}

/* The end of a message: gives back its tail to the inflater, which must then stand between
 * two blocks, else the data was cut off. */
static unsigned
inflate_end(struct ws *w)
{
	unsigned code = inflater_ended(w->inflater) ? 0 : inflate_part(w, S(DEFLATE_TAIL));

	return code == 0 && !inflater_between(w->inflater) ? WS_CODE_DATA : code;
}

/* The first two bytes of a frame: may there be such a one now? */
static unsigned
judge_opening(const struct ws *w)
{
	unsigned opcode = w->head[0] & OPCODE, rsv = w->head[0] & RSV;
	bool good;

	if (opcode & CONTROL)
		good = opcode <= WS_PONG && rsv == 0 && (w->head[0] & FIN) &&
		    (w->head[1] & LEN) <= WS_CONTROL_MAX;
	else    /* a message begins if none is in work, and goes on if one is */
		good = opcode <= WS_BINARY && (opcode == 0) == (w->type != WS_MORE) &&
		    (rsv == 0 || (rsv == RSV_DEFLATED && opcode && w->bits));
	return good && (w->head[1] & MASKED) ? 0 : WS_CODE_PROTOCOL;
}

/* The head is complete: its length, and what that means for the message. */
static unsigned
begin_frame(struct ws *w)
{
	unsigned opcode = w->head[0] & OPCODE, len = w->head[1] & LEN;
	unsigned code = 0;
	uint64_t n = len, limit;

	if (len > 125) {
		n = 0;
		for (size_t i = 2; i < w->head_n - 4u; i++)
			n = n << 8 | w->head[i];
		if (n < (len == 126 ? 126u : 65536u) || n >> 63)
			return WS_CODE_PROTOCOL;
	}
	w->left = n;
	w->in_frame = true;
	w->mask_at = w->control_n = 0;
	if (opcode & CONTROL)
		return 0;
	if (opcode) {
		w->type = opcode;
		w->frames = 0;
		w->wire = w->checked = 0;
		if (w->head[0] & RSV_DEFLATED)
			code = inflater_take(w);
	}
	/* Compressed data hardly grows; what it becomes is measured as it does. */
	limit = w->inflater ? 2 * w->max + WIRE_SLACK : w->max;
	if (code == 0 && (n > limit - w->wire || ++w->frames > WS_FRAMES_MAX))
		code = WS_CODE_SIZE;
	w->wire += (size_t)n;
	return code;
}

/* Collects the head; *done when it is complete. */
static unsigned
take_head(struct ws *w, struct str *in, bool *done)
{
	size_t size = 2;
	unsigned code = 0;

	while (code == 0 && !*done && in->n) {
		if (w->head_n >= 2)
			size = 6u + ((w->head[1] & LEN) == 126 ? 2 : (w->head[1] & LEN) == 127 ? 8 : 0);
		struct str part = take(in, size - w->head_n);

		memcpy(w->head + w->head_n, part.p, part.n);
		w->head_n = (unsigned char)(w->head_n + part.n);
		if (w->head_n == 2)
			code = judge_opening(w);
		*done = w->head_n > 2 && w->head_n == size;
	}
	return code ? code : *done ? begin_frame(w) : 0;
}

static unsigned
take_payload(struct ws *w, struct str *in)
{
	char chunk[CHUNK], *room;
	struct str part;
	unsigned code = 0;

	if (w->head[0] & CONTROL) {
		part = take(in, w->left);
		unmask(w, (char *)w->control + w->control_n, part);
		w->control_n = (unsigned char)(w->control_n + part.n);
	} else if (w->inflater) {
		while (code == 0 && w->left && in->n) {
			part = take(in, min_size(CHUNK, w->left < CHUNK ? (size_t)w->left : CHUNK));
			unmask(w, chunk, part);
			code = inflate_part(w, str_make(chunk, part.n));
		}
	} else if (w->left && in->n) {
		part = take(in, w->left);
		room = buf_room(&w->message, part.n);
		if (!room)
			return WS_CODE_INTERNAL;
		unmask(w, room, part);
		w->message.n += part.n;
		if (w->type == WS_TEXT && !text_begins(w))
			code = WS_CODE_DATA;
	}
	return code;
}

/* May a client send this? 1004 to 1006 and 1015 never stand on the wire, 1012 to 1014 are a
 * server's, and below 3000 no other is given out. */
static bool
is_code(unsigned code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1011) ||
	    (code >= 3000 && code <= 4999);
}

static unsigned
end_close(struct ws *w, struct str *payload)
{
	struct str reason = str_sub(*payload, 2, payload->n);

	w->code = WS_CODE_NONE;
	if (payload->n == 1)
		return WS_CODE_PROTOCOL;
	if (payload->n) {
		w->code = (unsigned)w->control[0] << 8 | w->control[1];
		if (!is_code(w->code))
			return WS_CODE_PROTOCOL;
		if (!utf8_valid(reason))
			return WS_CODE_DATA;
	}
	*payload = reason;
	w->ended = WS_CLOSE;
	ws_free(w);             /* a message in work will never be finished */
	return 0;
}

/* The frame is complete: is that an event? */
static unsigned
end_frame(struct ws *w, enum ws_event *event, struct str *payload)
{
	unsigned opcode = w->head[0] & OPCODE, code = 0;

	w->in_frame = false;
	w->head_n = 0;
	if (opcode & CONTROL) {
		*event = opcode;
		*payload = str_make((char *)w->control, w->control_n);
		return opcode == WS_CLOSE ? end_close(w, payload) : 0;
	}
	if (!(w->head[0] & FIN))
		return 0;
	if (w->inflater)
		code = inflate_end(w);
	if (code == 0 && w->type == WS_TEXT && w->checked != w->message.n)
		code = WS_CODE_DATA;
	inflater_drop(w);
	*event = w->type;
	*payload = buf_view(&w->message);
	w->type = WS_MORE;
	return code;
}

enum ws_event
ws_next(struct ws *w, struct str *in, struct str *payload)
{
	enum ws_event event = WS_MORE;
	unsigned code = 0;

	*payload = STR_NONE;
	if (w->ended == WS_MORE && w->type == WS_MORE)
		buf_free(&w->message);  /* the one that was given last */
	while (w->ended == WS_MORE && event == WS_MORE && code == 0) {
		bool ready = w->in_frame;

		if (!ready)
			code = take_head(w, in, &ready);
		if (code == 0 && ready)
			code = take_payload(w, in);
		if (code == 0 && (!ready || w->left))
			break;          /* all was taken */
		if (code == 0)
			code = end_frame(w, &event, payload);
	}
	if (code) {
		w->code = code;
		w->ended = WS_BAD;
		*payload = STR_NONE;
		ws_free(w);
	}
	if (w->ended != WS_MORE)
		*in = STR_NONE;
	return w->ended != WS_MORE ? w->ended : event;
}

/* ---- what goes ------------------------------------------------------------------------- */

/* Writes a head for n bytes to p (HEAD_OUT_MAX); returns how long it is. */
static size_t
put_head(char *p, unsigned first, size_t n)
{
	size_t more = n <= 125 ? 0 : n <= 0xFFFF ? 2 : 8;

	p[0] = (char)first;
	p[1] = (char)(more == 0 ? n : more == 2 ? 126 : 127);
	for (size_t i = 0; i < more; i++)
		p[2 + i] = (char)((uint64_t)n >> 8 * (more - 1 - i));
	return 2 + more;
}

static enum err
put_frame(struct buf *out, unsigned bits, enum ws_event type, struct str payload)
{
	char *p = buf_room(out, HEAD_OUT_MAX + payload.n);
	size_t n, head;

	if (!p)
		return out->err;
	n = bits && payload.n >= WS_DEFLATE_MIN ? deflate_raw(payload, p + HEAD_OUT_MAX, bits) : 0;
	if (n) {
		head = put_head(p, FIN | RSV_DEFLATED | type, n);
		memmove(p + head, p + HEAD_OUT_MAX, n);
	} else {
		n = payload.n;
		head = put_head(p, FIN | type, n);
		if (n)
			memcpy(p + head, payload.p, n);
	}
	out->n += head + n;
	out->p[out->n] = '\0';
	return OK;
}

enum err
ws_put(const struct ws *w, struct buf *out, enum ws_event type, struct str payload)
{
	assert(type == WS_TEXT || type == WS_BINARY || type == WS_PING || type == WS_PONG);
	if ((type & CONTROL) && payload.n > WS_CONTROL_MAX)
		return ERR_LIMIT;
	return put_frame(out, type & CONTROL ? 0 : w->bits, type, payload);
}

enum err
ws_put_close(struct buf *out, unsigned code, struct str reason)
{
	char body[WS_CONTROL_MAX];

	assert(code == WS_CODE_NONE || code == WS_CODE_LATER || is_code(code));
	if (code == WS_CODE_NONE)
		return put_frame(out, 0, WS_CLOSE, STR_NONE);
	body[0] = (char)(code >> 8);
	body[1] = (char)code;
	reason = utf8_prefix(reason, WS_REASON_MAX);
	if (reason.n)
		memcpy(body + 2, reason.p, reason.n);
	return put_frame(out, 0, WS_CLOSE, str_make(body, 2 + reason.n));
}
