/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * message.c - a Telegram message of any kind as text and an attachment.
 *
 * A message has a text, or at most one thing with a caption. Every kind ends in
 * one of four ways: text; a file to be fetched; a line in parentheses that
 * stands for it; or a sentence that says it cannot be read. Kinds that are not
 * known end in the last. Service messages (somebody joined, pinned …) have none
 * of the fields looked at and come out empty.
 */
#include "channel/telegram/message.h"

void
tg_content_init(struct tg_content *c)
{
	*c = (struct tg_content){ .before = BUF_INIT(4096), .text = BUF_INIT(8u << 20) };
}

void
tg_content_free(struct tg_content *c)
{
	buf_free(&c->before);
	buf_free(&c->text);
}

/* Other people's words on one line, cut with a sign that they are. */
static void
put_line(struct buf *out, struct str s, size_t units)
{
	struct str part = utf8_prefix_units(str_trim(s), units);

	for (size_t i = 0; i < part.n; i++)
		buf_putc(out, (unsigned char)part.p[i] < ' ' ? ' ' : part.p[i]);
	if (part.n < str_trim(s).n)
		buf_puts(out, "…");
}

static void
put_at(struct buf *out, const struct json *v, const char *path, const char *before, size_t units)
{
	struct str s = json_str(v, path, STR_NONE);
	const struct json *n = json_at(v, path);

	if (json_is(n, JSON_NUMBER))
		s = n->s;
	if (s.n == 0)
		return;
	buf_puts(out, before);
	put_line(out, s, units);
}

/* ---- rich messages: blocks as lines -------------------------------------------------------- */

static bool
is_name(struct str key)
{
	static const char *const names[] = { "type", "url", "language", "id", "file_id", "file_unique_id", "mime_type",
	    "style", "align", "valign" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_eqz(key, names[i]))
			return true;
	return false;
}

/* The text in v, whatever it is made of: a string, a list of parts, an object with parts. */
static void
put_inline(struct buf *out, const struct json *v)
{
	if (is_name(v->key))
		return;
	if (v->type == JSON_STRING)
		buf_str(out, v->s);
	for (const struct json *c = v->first; c; c = c->next)
		put_inline(out, c);
}

static void
end_line(struct buf *out)
{
	if (out->n && out->p[out->n - 1] != '\n')
		buf_putc(out, '\n');
}

static void put_blocks(struct buf *out, const struct json *list, const char *mark);

static void
put_table(struct buf *out, const struct json *rows)
{
	for (const struct json *r = rows ? rows->first : NULL; r; r = r->next) {
		const struct json *cells = json_is(r, JSON_ARRAY) ? r : json_at(r, "cells");

		buf_puts(out, "|");
		for (const struct json *c = cells ? cells->first : NULL; c; c = c->next) {
			buf_putc(out, ' ');
			put_inline(out, c);
			buf_puts(out, " |");
		}
		buf_putc(out, '\n');
	}
}

/* One block. Of kinds that are not known all texts are taken. */
static void
put_block(struct buf *out, const struct json *b, const char *mark)
{
	struct str type = json_str(b, "type", STR_NONE);
	const struct json *items = json_at(b, "items"), *rows = json_at(b, "rows"), *inner = json_at(b, "blocks");

	buf_puts(out, mark);
	if (str_eqz(type, "preformatted"))
		buf_puts(out, "```\n");
	if (str_eqz(type, "divider"))
		buf_puts(out, "---");
	if (rows || str_eqz(type, "table")) {
		put_table(out, rows ? rows : json_at(b, "cells"));
	} else if (items) {
		for (const struct json *i = items->first; i; i = i->next) {
			const struct json *in = json_at(i, "blocks");

			if (in)
				put_blocks(out, in, "- ");
			else
				put_block(out, i, "- ");
		}
	} else if (inner) {
		for (const struct json *k = b->first; k; k = k->next)     /* a summary, a title */
			if (k != inner)
				put_inline(out, k);
		end_line(out);
		put_blocks(out, inner, "");
	} else {
		put_inline(out, b);
	}
	end_line(out);
	if (str_eqz(type, "preformatted"))
		buf_puts(out, "```\n");
}

/* mark stands before the first. */
static void
put_blocks(struct buf *out, const struct json *list, const char *mark)
{
	for (const struct json *b = list->first; b; b = b->next) {
		put_block(out, b, mark);
		mark = "";
	}
}

/* ---- what is not text ------------------------------------------------------------------------- */

static void
put_poll(struct buf *out, const struct json *v, const char *what, const char *list, const char *item)
{
	const struct json *items = json_at(v, list);

	buf_puts(out, what);
	put_at(out, v, "question", "", TG_QUOTE_MAX);
	put_at(out, v, "title", "", TG_QUOTE_MAX);
	for (const struct json *o = items ? items->first : NULL; o; o = o->next)
		put_at(out, o, item, o == items->first ? "; " : ", ", TG_QUOTE_MAX);
	buf_putc(out, ')');
}

static void
put_place(struct buf *out, const struct json *v, const char *what, const char *location)
{
	const struct json *at = *location ? json_at(v, location) : v;

	buf_puts(out, what);
	put_at(out, v, "title", "", TG_QUOTE_MAX);
	put_at(out, v, "address", ", ", TG_QUOTE_MAX);
	put_at(out, at, "latitude", *location ? ", " : "", TG_NAME_MAX);
	put_at(out, at, "longitude", ", ", TG_NAME_MAX);
	buf_putc(out, ')');
}

/* A line that stands for a thing; false when the message has no such thing. */
static bool
put_thing(struct buf *out, const struct json *m)
{
	const struct json *v;

	if ((v = json_at(m, "sticker"))) {
		buf_puts(out, "(sent a sticker:");
		put_at(out, v, "emoji", " ", TG_NAME_MAX);
		buf_putc(out, ')');
	} else if ((v = json_at(m, "venue"))) {
		put_place(out, v, "(sent a place: ", "location");
	} else if ((v = json_at(m, "location"))) {
		put_place(out, v, "(sent a location: ", "");
	} else if ((v = json_at(m, "contact"))) {
		buf_puts(out, "(sent a contact:");
		put_at(out, v, "first_name", " ", TG_NAME_MAX);
		put_at(out, v, "last_name", " ", TG_NAME_MAX);
		put_at(out, v, "phone_number", ", ", TG_NAME_MAX);
		buf_putc(out, ')');
	} else if ((v = json_at(m, "poll"))) {
		put_poll(out, v, "(sent a poll: ", "options", "text");
	} else if ((v = json_at(m, "checklist"))) {
		put_poll(out, v, "(sent a checklist: ", "tasks", "text");
	} else if ((v = json_at(m, "dice"))) {
		buf_puts(out, "(threw");
		put_at(out, v, "emoji", " ", TG_NAME_MAX);
		put_at(out, v, "value", ": ", TG_NAME_MAX);
		buf_putc(out, ')');
	} else {
		return false;
	}
	return true;
}

/* ---- files ---------------------------------------------------------------------------------------- */

static void
take_file(struct tg_content *c, const struct json *v, enum attachment_kind kind)
{
	c->file = (struct attachment){ .kind = kind, .source = json_str(v, "file_id", STR_NONE),
	    .name = json_str(v, "file_name", STR_NONE), .bytes = json_i64(v, "file_size", 0) };
	if (c->file.bytes > ATTACHMENT_BYTES_MAX)
		c->cannot = "That file is too large: Telegram hands out 20 MB at most.";
	else if (c->file.source.n)
		c->has_file = true;
}

static void
take_photo(struct tg_content *c, const struct json *sizes)
{
	const struct json *best = sizes->first;

	for (const struct json *s = sizes->first; s; s = s->next) {
		int64_t w = json_i64(s, "width", 0), h = json_i64(s, "height", 0);

		if (w <= TG_PHOTO_PIXELS && h <= TG_PHOTO_PIXELS && w * h >= json_i64(best, "width", 0) *
		    json_i64(best, "height", 0))
			best = s;
	}
	if (best)
		take_file(c, best, ATTACHMENT_IMAGE);
}

static bool
is_picture(struct str mime)
{
	return str_eqz(mime, "image/png") || str_eqz(mime, "image/jpeg") || str_eqz(mime, "image/gif") ||
	    str_eqz(mime, "image/webp");
}

static void
take_media(const struct json *m, bool hears, struct tg_content *c)
{
	static const char *const audio[] = { "voice", "audio", "video_note" };
	static const char *const blind[] = { "animation", "video", "live_photo", "story", "paid_media", "game",
	    "invoice", "giveaway", "gift" };
	const struct json *v;

	for (size_t i = 0; i < ARRAY_LEN(blind); i++)        /* an animation is a document as well: first */
		if (json_at(m, blind[i])) {
			c->cannot = i < 3 ? "I cannot watch videos." : "I cannot read that kind of message.";
			return;
		}
	for (size_t i = 0; i < ARRAY_LEN(audio); i++)
		if ((v = json_at(m, audio[i]))) {
			if (hears)
				take_file(c, v, ATTACHMENT_AUDIO);
			else
				c->cannot = "I cannot listen to voice messages yet: my owner can set"
				    " telegram.transcribe_command.";
			return;
		}
	if ((v = json_at(m, "photo")))
		take_photo(c, v);
	else if ((v = json_at(m, "document")))
		take_file(c, v, is_picture(json_str(v, "mime_type", STR_NONE)) ? ATTACHMENT_IMAGE : ATTACHMENT_DOCUMENT);
}

/* ---- where it comes from -------------------------------------------------------------------------------- */

static void
put_origin(struct buf *out, const struct json *o)
{
	size_t n = out->n;

	buf_puts(out, "(forwarded from");
	put_at(out, o, "sender_user.first_name", " ", TG_NAME_MAX);
	put_at(out, o, "sender_user.last_name", " ", TG_NAME_MAX);
	put_at(out, o, "sender_user_name", " ", TG_NAME_MAX);
	put_at(out, o, "sender_chat.title", " ", TG_NAME_MAX);
	put_at(out, o, "chat.title", " ", TG_NAME_MAX);
	if (out->n == n + strlen("(forwarded from"))
		buf_puts(out, " somebody");
	buf_puts(out, ":)\n");
}

/* What is answered: the quoted part, or the beginning of somebody else's message. */
static void
put_reply(struct buf *out, const struct json *m, const char *own)
{
	struct str s = json_str(m, "quote.text", STR_NONE);
	bool ours = str_eqz(json_str(m, "reply_to_message.from.username", STR_NONE), own);

	if (s.n == 0 && !ours)
		s = json_str(m, "reply_to_message.text", json_str(m, "reply_to_message.caption", STR_NONE));
	if (s.n == 0)
		return;
	buf_puts(out, "(in reply to: \"");
	put_line(out, s, TG_QUOTE_MAX);
	buf_puts(out, "\")\n");
}

FALLIBLE
tg_content_read(const struct json *m, bool hears, const char *own, struct tg_content *c)
{
	const struct json *rich = json_at(m, "rich_message.blocks"), *origin = json_at(m, "forward_origin");
	struct str text = json_str(m, "text", json_str(m, "caption", STR_NONE));

	take_media(m, hears, c);
	if (text.n)
		buf_str(&c->text, text);
	else if (rich)
		put_blocks(&c->text, rich, "");
	else if (!c->has_file && !c->cannot)
		(void)put_thing(&c->text, m);
	if (rich && str_trim(buf_view(&c->text)).n == 0 && !c->has_file && !c->cannot)
		c->cannot = "I can read only text in such a message.";
	if (origin)
		put_origin(&c->before, origin);
	if (text.n == 0 || text.p[0] != '/')    /* a command stays one */
		put_reply(&c->before, m, own);
	return c->text.err != OK ? c->text.err : c->before.err;
}
