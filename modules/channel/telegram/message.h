/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * message.h - what a Telegram message says: text, a file, or words for why not.
 *
 * Pure: a Message object of the Bot API in, its content out; no network, no
 * state. Everything in a message is its sender's (or somebody else's: forwarded,
 * quoted), so what is put around it stays on one line and in parentheses.
 */
#ifndef BLUFIO_TELEGRAM_MESSAGE_H
#define BLUFIO_TELEGRAM_MESSAGE_H

#include "blufio.h"

#define TG_QUOTE_MAX 300              /* UTF-16 units of what is answered or quoted */
#define TG_NAME_MAX 64                /* of a person or a chat */
#define TG_PHOTO_PIXELS 2000          /* of the sizes of a photo the largest within this is taken: more costs
                                       * more, and many pictures in one request may not be larger */

struct tg_content {
	struct buf before;            /* lines that stand before the text: forwarded from, in reply to; each ends
	                               * with a newline */
	struct buf text;              /* text, caption, or what stands for a sticker, a place, a contact … */
	struct attachment file;       /* its source is a file_id; views into the message */
	bool has_file;
	const char *cannot;           /* a sentence about what cannot be read of it; NULL: nothing */
};
void tg_content_init(struct tg_content *c);
void tg_content_free(struct tg_content *c);
/* m is a Message; hears: voice messages can be turned into text. own: the bot's user name, whose
 * messages are not quoted when they are answered. Fails only for want of memory or beyond MESSAGE_MAX. */
FALLIBLE tg_content_read(const struct json *m, bool hears, const char *own, struct tg_content *c);

#endif
