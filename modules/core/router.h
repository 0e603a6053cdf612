/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * router.h - which model answers: what tier a message wants, and whether the conversation changes its model for it.
 *
 * Two pure functions. router_classify looks at the message alone: free, local, the same answer for the same
 * bytes. router_choose looks at money: it never picks a tier below the one that is wanted (unless the day's budget is
 * nearly spent, or there is none), and among those that are good enough it takes the cheapest, what the caches
 * hold and what a switch loses included. A turn is:
 *
 *	router_classify(&message, &v);          v.tier is what the message wants, and message.previous of the next turn
 *	case.need = v.tier; …                   prices, what each cache holds, what is left of the day
 *	router_choose(&case, &c);               the model of c.tier answers
 *	router_why(&v, &c, &text);              for /why and the log
 */
#ifndef BLUFIO_ROUTER_H
#define BLUFIO_ROUTER_H

#include "blufio.h"

#define ROUTER_LOOK (4u << 10)          /* bytes of a message that are looked at: its beginning and its end */
#define ROUTER_TURNS 4                  /* turns, this one included, over which a switch down has to pay */
#define ROUTER_TURNS_MAX 64
#define ROUTER_LOW_PERCENT 20           /* of the day's cap left: one tier down */
#define ROUTER_LAST_PERCENT 5           /* the small model answers everything */

enum tier { TIER_NONE, TIER_SIMPLE, TIER_STANDARD, TIER_COMPLEX, TIER_COUNT };
const char *router_tier_name(enum tier t);      /* "simple"; "none" */

/* ---- what a message wants ---------------------------------------------------------- */

/* What was found in it: router_verdict.signs has bit 1 << SIGN_X. Those up to SIGN_OWN are found by words. */
enum sign {
	SIGN_CHAT,              /* a greeting, thanks, small talk */
	SIGN_FACT,              /* asks for one fact, word or sum; a reminder */
	SIGN_BRIEF,             /* wants no more than a word: "yes or no", "no need to …" */
	SIGN_WHO,               /* and that fact is a person */
	SIGN_WORK,              /* write, explain, summarise … */
	SIGN_HOW,               /* how, what should I */
	SIGN_WHY,
	SIGN_PROVE,             /* prove, derive */
	SIGN_DEEP,              /* analyse, compare, weigh; in which order and why */
	SIGN_BUILD,             /* design, implement, migrate */
	SIGN_FAULT,             /* a crash, a bug, a deadlock */
	SIGN_SCIENCE,           /* terms of mathematics and science */
	SIGN_CASE,              /* terms of law, medicine, tax, money */
	SIGN_PLAN,
	SIGN_OWN,               /* my, I */
	SIGN_WORDS,             /* so many of them */
	SIGN_LONG = SIGN_WORDS,
	SIGN_NUMBERS,           /* several: conditions to be kept */
	SIGN_FORMULAS,          /* its marks: ^ √ ∫ ≡ */
	SIGN_CODE,
	SIGN_FILE,              /* a picture or document */
	SIGN_FOLLOW,            /* short, and continues the turn before */
	SIGN_COUNT
};
struct router_words {
	enum sign sign;
	const char *words;              /* with a blank between them: router_words.c */
};
extern const struct router_words router_words[];        /* router_words.c; words NULL ends it */

struct router_message {
	struct str text;                /* any bytes; meant to be UTF-8 */
	unsigned images, documents;     /* attached; speech is text by now */
	bool code;                      /* an attached file is source code; code in the text is seen without it */
	enum tier previous;             /* of the turn before in this conversation, as it was wanted; TIER_NONE: there is none */
};
struct router_verdict {
	enum tier tier;
	int score;                      /* from 2 on standard, from 4 on complex */
	unsigned signs;
};
void router_classify(const struct router_message *m, struct router_verdict *out);
/* A character small and without its accent; and what such a one is. Of a script without blanks each begins a word. */
enum letter { LETTER_GAP, LETTER_ANY, LETTER_WIDE, LETTER_ARABIC, LETTER_NOTHING };
uint32_t router_fold(uint32_t c);
enum letter router_letter(uint32_t folded);
/* Their names, for people: "a proof, science". */
void router_signs(unsigned signs, struct buf *out);

/* ---- what answers it ---------------------------------------------------------------- */

struct router_case {
	enum tier need;                 /* what the message wants; /opus and its like are the caller's to obey */
	enum tier now;                  /* that answered last; TIER_NONE: the conversation begins */
	/* [TIER_NONE] is NULL. NULL too where there is none that takes this request: window, pictures, PDFs. */
	const struct model_info *models[TIER_COUNT];
	/* all in tokens; absurd figures are taken for the nearest that makes sense */
	int64_t prefix;                 /* of the request, what was sent before: tools, system, history */
	/* what each one's cache still holds of it; 0: nothing, or it has run out. now is warm when its is not 0 */
	int64_t cached[TIER_COUNT];
	int64_t fresh;                  /* what is new in it */
	int64_t output;                 /* the answer, as expected */
	int64_t turns;                  /* that are looked at, this one included: ROUTER_TURNS */
	bool hour;                      /* entries are written for an hour */
	int64_t cap, left;              /* nano-dollars of the day; cap 0: none to mind */
};
enum router_move {
	ROUTER_OPEN,                    /* no warm cache: what is wanted and cheapest */
	ROUTER_KEPT,                    /* the warm one is good enough, and a change would not pay */
	ROUTER_NEEDED,                  /* the warm one is not good enough */
	ROUTER_CHEAPER                  /* a change pays, lost cache and half of the way back included */
};
struct router_choice {
	enum tier tier;                 /* below what is wanted when it has no model, or lowered; TIER_NONE: no model at all */
	enum router_move move;
	bool lowered;                   /* the budget of the day made it so: tell the user */
	int64_t stay, go;               /* nano-dollars expected over these turns: on `now`, on the best other; -1: there is none */
};
void router_choose(const struct router_case *c, struct router_choice *out);
/* "wants simple (-3: a fact), gets standard: kept while its cache is warm ($0.0123 expected to stay, $0.0420 to change)" */
void router_why(const struct router_verdict *v, const struct router_choice *c, struct buf *out);

#endif
