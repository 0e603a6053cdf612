/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * lineedit.h - a line editor for the terminal, driven by bytes.
 *
 * It never reads by itself and never waits: the owner watches the input
 * descriptor and feeds what it read. The terminal is raw only between
 * lineedit_prompt and the event that ends the line; in between lines Ctrl-C is
 * an ordinary SIGINT again.
 */
#ifndef BLUFIO_LINEEDIT_H
#define BLUFIO_LINEEDIT_H

#include "base/base.h"

#define LINEEDIT_LINE_MAX (1u << 20)    /* bytes of one line: a message's own limit */
#define LINEEDIT_HISTORY_MAX 500        /* lines kept */

enum lineedit_event {
	LINEEDIT_LINE,          /* Enter: line is valid UTF-8; pasted line breaks are '\n' inside it */
	LINEEDIT_EOF,           /* Ctrl-D on an empty line */
	LINEEDIT_INTERRUPT      /* Ctrl-C: line is what was discarded */
};
struct lineedit;
/* line is valid during the call. May call lineedit_prompt, hide, show; not feed, not free. */
typedef void lineedit_fn(void *arg, enum lineedit_event event, struct str line);

/* Descriptors are borrowed. A descriptor that is no terminal is fine (nothing is switched then). */
FALLIBLE lineedit_new(int in_fd, int out_fd, struct lineedit **out);
void lineedit_free(struct lineedit *le);        /* NULL ok; gives the terminal back as it was */
/* Begins a line: shows the prompt (plain text) and makes the terminal raw. An event ends the line;
 * call again for the next one. Outside of a callback follow it by a feed of STR_NONE: bytes that
 * came between two lines are kept, and used then. */
FALLIBLE lineedit_prompt(struct lineedit *le, const char *prompt);
/* Takes bytes read from the input and calls fn for every event in them. Bytes after the end of a
 * line wait for the next prompt. ERR_LIMIT or ERR_NOMEM: some bytes were dropped, the line is
 * intact. */
FALLIBLE lineedit_feed(struct lineedit *le, struct str bytes, lineedit_fn *fn, void *arg);
/* Takes the edited line off the screen, so that other text can be printed; and puts it back below
 * (also after a change of the window's size). Both do nothing when no line is being edited. */
void lineedit_hide(struct lineedit *le);
void lineedit_show(struct lineedit *le);
/* Every LINE goes into the history, except empty ones and repeats of the newest. The file is 0600;
 * loading one that does not exist is fine. */
FALLIBLE lineedit_history_load(struct lineedit *le, const char *path, struct fail *f);
FALLIBLE lineedit_history_save(const struct lineedit *le, const char *path, struct fail *f);

#endif
