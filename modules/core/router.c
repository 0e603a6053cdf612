/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * router.c - what tier of model a message wants.
 *
 * One pass over the message, or over the beginning and the end of a long one (ROUTER_LOOK), gives a folded copy (small
 * letters, no accents, single blanks) and some counts: words, numbers, questions, marks of mathematics, lines that look
 * like code. In the copy the words of router_words.c are looked for where words begin. Each sign has a weight, and the sum
 * is the score. Few words without a sign are simple; complex takes a hard sign, however long the message is. Where
 * something long was pasted, words count only where the question must be: in the first and the last paragraph. No memory
 * is taken, nothing is kept; bytes that are no UTF-8 are gaps.
 */
#include "core/router.h"

#define TAIL 1024u                      /* of ROUTER_LOOK, for the end of a longer message */
#define FOLDED_MAX (ROUTER_LOOK / 4 * 5 + 4)    /* "a字" becomes "a 字": nothing grows by more */
#define STARTS_MAX (ROUTER_LOOK / 2 + 2)        /* beginnings have two bytes at least, with the blank */
#define NOWHERE UINT16_MAX
#define PASTE_MIN 300u                  /* folded bytes: in more than that the question is looked for */
#define ASK_HEAD 300u                   /* where it is, when no paragraph ends before 400 */
#define ASK_TAIL 200u
#define LEAD 24u                        /* a fact that is asked for so early is all that is asked for */
#define FOLLOW_WORDS 8u                 /* more say themselves what they want */
#define STANDARD_FROM 2
#define COMPLEX_FROM 4

static const char *const tier_names[TIER_COUNT] = { "none", "simple", "standard", "complex" };
static const char *const sign_names[SIGN_COUNT] = {
	[SIGN_CHAT] = "small talk", [SIGN_FACT] = "a fact", [SIGN_BRIEF] = "a word will do", [SIGN_WHO] = "a person",
	[SIGN_WORK] = "a task", [SIGN_HOW] = "how", [SIGN_WHY] = "why", [SIGN_PROVE] = "a proof", [SIGN_DEEP] = "analysis",
	[SIGN_BUILD] = "design", [SIGN_FAULT] = "a fault", [SIGN_SCIENCE] = "science", [SIGN_CASE] = "law, health or money",
	[SIGN_PLAN] = "a plan", [SIGN_OWN] = "one's own", [SIGN_LONG] = "length", [SIGN_NUMBERS] = "numbers",
	[SIGN_FORMULAS] = "formulas", [SIGN_CODE] = "code", [SIGN_FILE] = "a file", [SIGN_FOLLOW] = "goes on",
};

const char *
router_tier_name(enum tier t)
{
	return tier_names[t];
}

void
router_signs(unsigned signs, struct buf *out)
{
	const char *sep = "";

	for (unsigned i = 0; i < SIGN_COUNT; i++)
		if (signs & 1u << i) {
			buf_fmt(out, "%s%s", sep, sign_names[i]);
			sep = ", ";
		}
}

/* ---- one pass ------------------------------------------------------------------------- */

struct scan {
	size_t n;
	size_t words, wide, numbers, questions, formulas, code;
	size_t first_end, last_begin;   /* the first and the last paragraph */
	size_t ask_end, ask_begin;      /* the question stands before the one, and from the other on */
	unsigned ticks;
	bool fence;
	size_t starts;
	uint16_t head[256];             /* chains by the first two bytes */
	uint16_t at[STARTS_MAX], next[STARTS_MAX];
	char text[FOLDED_MAX];          /* "word word 字字 ": a blank at the end */
};
/* U+00C0 to U+017F. */
static const char latin[] = "aaaaaaaceeeeiiiidnooooo ouuuuytsaaaaaaaceeeeiiiidnooooo ouuuuyty"
    "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiiiijjkkklllllll"
    "lllnnnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs";

uint32_t
router_fold(uint32_t c)
{
	static const uint32_t other[][2] = {
		{ 0x401, 0x435 }, { 0x451, 0x435 },                     /* Cyrillic io */
		{ 0x622, 0x627 }, { 0x623, 0x627 }, { 0x625, 0x627 },   /* alif and its hamzas */
		{ 0x624, 0x648 }, { 0x626, 0x64A }, { 0x649, 0x64A }, { 0x629, 0x647 },
	};

	if (c >= 0xFF01 && c <= 0xFF5E)         /* full width */
		c -= 0xFF01 - '!';
	if (c < 0x80)
		return c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c;
	if (c >= 0xC0 && c <= 0x17F)
		return (unsigned char)latin[c - 0xC0];
	for (size_t i = 0; i < ARRAY_LEN(other); i++)
		if (c == other[i][0])
			return other[i][1];
	return c >= 0x400 && c <= 0x40F ? c + 0x50 : c >= 0x410 && c <= 0x42F ? c + 0x20 : c;
}

enum letter
router_letter(uint32_t c)
{
	if (c < 0x80)
		return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? LETTER_ANY : LETTER_GAP;
	if ((c >= 0x300 && c <= 0x36F) || c == 0x640 || (c >= 0x64B && c <= 0x65F))
		return LETTER_NOTHING;                 /* accents of their own, vowel signs */
	if (c < 0xC0 || c == 0x60C || c == 0x61B || c == 0x61F || (c >= 0x2000 && c <= 0x2BFF) || (c >= 0x3000 && c <= 0x3004) ||
	    (c >= 0x3008 && c <= 0x3020) || c >= 0xFE00)
		return LETTER_GAP;
	if (c >= 0x600 && c <= 0x6FF)
		return LETTER_ARABIC;
	return (c >= 0x3005 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) ? LETTER_WIDE : LETTER_ANY;
}

/* What is seen in the marks between words, and in which follows which. */
static void
count_marks(struct scan *s, uint32_t c, uint32_t before)
{
	s->questions += c == '?' || c == 0xFF1F || c == 0x61F;
	s->formulas += c == '^' || c == 0xB2 || c == 0xB3 || (c >= 0x2200 && c <= 0x22FF) || (c == '=' && before == ' ');
	s->code += (c == '\n' && (before == ';' || before == '{' || before == '}')) ||
	    ((c == '\t' || c == ' ') && before == '\n') || (before == '-' && c == '>') ||
	    (before == '=' && (c == '>' || c == '=')) || (before == ':' && c == ':') || (before == '(' && c == ')') ||
	    (before == '&' && c == '&');
	s->ticks = c == '`' ? s->ticks + 1 : 0;
	s->fence = s->fence || s->ticks == 3;
}

static void
scan_part(struct scan *s, struct str t)
{
	uint32_t before = '\n', c;
	size_t len, in_word = 0;
	bool digits = false, line = false;

	for (; t.n; t = str_sub(t, len, t.n)) {
		enum letter l;

		c = utf8_decode(t, &len);
		count_marks(s, c, before);
		before = c == '\r' ? before : c;
		c = router_fold(c);
		l = router_letter(c);
		if (l == LETTER_NOTHING)
			continue;
		if (in_word && (l == LETTER_GAP || l == LETTER_WIDE))
			s->text[s->n++] = ' ';
		if (l == LETTER_GAP) {
			in_word = 0;
			digits = false;
			if (c == '\n' && s->starts) {
				s->first_end = s->first_end ? s->first_end : s->n;
				line = true;
			}
			continue;
		}
		if (line)
			s->last_begin = s->n;
		line = false;
		/* what Arabic writes in front of a word (and, the, in) is one to three letters of it */
		if (l == LETTER_WIDE || in_word == 0 || (l == LETTER_ARABIC && in_word < 4))
			s->at[s->starts++] = (uint16_t)s->n;
		s->wide += l == LETTER_WIDE;
		s->words += l != LETTER_WIDE && in_word == 0;
		s->numbers += !digits && c >= '0' && c <= '9';
		digits = c >= '0' && c <= '9';
		s->n += utf8_encode(c, s->text + s->n);
		in_word = l == LETTER_WIDE ? 0 : in_word + 1;
	}
	if (in_word)
		s->text[s->n++] = ' ';
}

static unsigned
chain(char first, char second)
{
	return ((unsigned char)first * 31u + (unsigned char)second) & 255u;
}

static void
scan_text(struct scan *s, struct str t)
{
	bool first;

	memset(s, 0, offsetof(struct scan, head));
	memset(s->head, 0xFF, sizeof(s->head));         /* NOWHERE */
	if (t.n <= ROUTER_LOOK)
		scan_part(s, t);
	else {
		scan_part(s, str_sub(t, 0, ROUTER_LOOK - TAIL));
		scan_part(s, str_sub(t, t.n - TAIL, TAIL));
	}
	for (size_t i = s->starts; i-- > 0;) {
		uint16_t *h = &s->head[chain(s->text[s->at[i]], s->text[s->at[i] + 1])];

		s->next[i] = *h;
		*h = (uint16_t)i;
	}
	s->ask_end = s->ask_begin = s->n;
	if (s->n <= PASTE_MIN)
		return;
	first = s->first_end >= 12 && s->first_end <= ASK_HEAD + 100;
	s->ask_end = first ? s->first_end : ASK_HEAD;
	if (s->last_begin >= s->ask_end && s->n - s->last_begin <= ASK_TAIL)
		s->ask_begin = s->last_begin;
	else if (!first)
		s->ask_begin = s->n - ASK_TAIL;
}

/* ---- words ------------------------------------------------------------------------------- */

struct hits {
	int n[SIGN_WORDS];              /* different words */
	size_t first[SIGN_WORDS];       /* where the first stands */
};

static bool
is_at(const struct scan *s, size_t at, struct str w)
{
	for (size_t i = 0; i < w.n; i++) {
		char is = at + i < s->n ? s->text[at + i] : ' ';

		if (w.p[i] == '.')
			return is == ' ';
		if (is != (w.p[i] == '_' ? ' ' : w.p[i]))
			return false;
	}
	return true;
}

static void
find_word(const struct scan *s, enum sign sign, struct str w, struct hits *h)
{
	for (uint16_t i = s->head[chain(w.p[0], w.p[1] == '_' ? ' ' : w.p[1])]; i != NOWHERE; i = s->next[i]) {
		size_t at = s->at[i];

		/* a fault is told in what was pasted */
		if ((sign != SIGN_FAULT && at >= s->ask_end && at < s->ask_begin) || !is_at(s, at, w))
			continue;
		if (h->n[sign] == 0 || at < h->first[sign])
			h->first[sign] = at;
		h->n[sign]++;
		break;
	}
}

static void
find_words(const struct scan *s, struct hits *h)
{
	for (const struct router_words *r = router_words; r->words; r++) {
		struct str rest = str_z(r->words), w;

		while (rest.n) {
			if (!str_cut(&rest, ' ', &w))
				rest = STR_NONE;        /* the last */
			find_word(s, r->sign, w, h);
		}
	}
}

/* ---- the score ------------------------------------------------------------------------------ */

/* Of a sign: for being there, for each further word, at most. */
static int
points(const struct hits *h, enum sign sign, int one, int more, int most)
{
	int v = one + (h->n[sign] - 1) * more;

	return h->n[sign] == 0 ? 0 : v < most ? v : most;
}

/* What makes a message complex. */
static int
hard_points(const struct scan *s, const struct hits *h, size_t words, bool code, bool formulas)
{
	bool why = h->n[SIGN_WHY], task = h->n[SIGN_WORK] && h->first[SIGN_WORK] < LEAD;
	int v = points(h, SIGN_PROVE, 5, 0, 5) + points(h, SIGN_BUILD, 2, 2, 5) + points(h, SIGN_FAULT, 3, 1, 4) +
	    points(h, SIGN_PLAN, 2, 0, 2);
	int subject = points(h, SIGN_DEEP, 2, 1, 4) + points(h, SIGN_SCIENCE, 1, 2, 5) + points(h, SIGN_CASE, 1, 1, 4);

	v += h->n[SIGN_PLAN] && (s->numbers >= 2 || words >= 15);
	v += formulas ? 2 : 0;
	v += code && (why || h->n[SIGN_FAULT]);
	if (task)
		subject /= 2;                   /* it is what is to be written about */
	else
		subject += (h->n[SIGN_CASE] && h->n[SIGN_OWN]) + (why && (h->n[SIGN_SCIENCE] || formulas));
	return v + (subject > 1 ? subject : 0);
}

static int
score(const struct router_message *m, const struct scan *s, const struct hits *h, size_t words, unsigned *signs)
{
	bool code = m->code || s->fence || s->code >= 2;
	bool formulas = s->formulas && !code && s->numbers < s->words;  /* a sum to be done is none */
	bool task = h->n[SIGN_WORK] || h->n[SIGN_HOW] || h->n[SIGN_WHY];
	/* a long text in one piece is not a question for a word ("translate: …") */
	bool fact = h->n[SIGN_FACT] && h->first[SIGN_FACT] < LEAD && (words < 24 || s->first_end);
	int hard = hard_points(s, h, words, code, formulas);
	int v = hard + (code ? 3 : 0) + (task ? 2 : 0) + (hard && m->previous == TIER_COMPLEX);

	if (!(fact && s->n > PASTE_MIN))        /* or it is looked up in what was pasted */
		v += (words >= 9) + (words >= 16) + (s->numbers >= 3 && !code && !formulas && words >= 9) + (s->questions >= 2);
	if (hard == 0 && v >= COMPLEX_FROM)
		v = COMPLEX_FROM - 1;
	if (v < STANDARD_FROM && words >= 9)
		v = STANDARD_FROM;              /* whoever says so much wants more than a word */
	v -= fact ? 4 : 0;
	v -= h->n[SIGN_WHO] == 0 ? 0 : words <= 14 ? 7 : 1;
	v -= h->n[SIGN_BRIEF] == 0 ? 0 : words <= 20 ? 8 : 3;
	v -= h->n[SIGN_CHAT] && hard == 0 && !code && !task && !h->n[SIGN_FACT] && words <= 14 ? 4 : 0;

	*signs = (words >= 24 ? 1u << SIGN_LONG : 0) | (s->numbers >= 3 ? 1u << SIGN_NUMBERS : 0) |
	    (formulas ? 1u << SIGN_FORMULAS : 0) | (code ? 1u << SIGN_CODE : 0);
	for (unsigned i = 0; i < SIGN_WORDS; i++)
		*signs |= h->n[i] ? 1u << i : 0;
	return v;
}

void
router_classify(const struct router_message *m, struct router_verdict *out)
{
	struct scan s;
	struct hits h = { { 0 }, { 0 } };
	size_t words;
	int v;

	scan_text(&s, m->text);
	find_words(&s, &h);
	words = s.words + s.wide / 2;           /* two signs of Chinese or Japanese are about a word */
	v = out->score = score(m, &s, &h, words, &out->signs);
	out->tier = v >= COMPLEX_FROM ? TIER_COMPLEX : v >= STANDARD_FROM ? TIER_STANDARD : TIER_SIMPLE;
	if (m->images || m->documents) {
		out->signs |= 1u << SIGN_FILE;
		out->tier = out->tier == TIER_SIMPLE ? TIER_STANDARD : out->tier;
	}
	/* "yes", "go on", "?" */
	if (m->previous > out->tier && words <= FOLLOW_WORDS && (words || s.questions) && v >= 0 && !h.n[SIGN_FACT]) {
		out->signs |= 1u << SIGN_FOLLOW;
		out->tier = m->previous;
	}
}
