/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * facts.c - what of a conversation must not be lost when it is shortened.
 *
 * The conversation comes as words: lines, some of which begin with who speaks. It is cut into units, a line each, or
 * a sentence of a long one. A unit is weighed by what a reader would underline: a decision, a promise, a date by
 * which, what to remember (facts_words.c), one's own affairs, numbers, names, and words that occur hardly anywhere else
 * in it, for which no language has to be known. What people say of themselves weighs more than what they paste or
 * ask for, and that more than what the assistant told them. The heaviest are kept word for word, among equals the
 * newest, until the room is full; what a summary says already, or another unit, is not said again.
 *
 * Local and deterministic: nothing is asked, nothing is kept.
 */
#include "core.h"

#include <assert.h>

#define UNIT_MAX 240u                   /* bytes: a longer line is cut into sentences */
#define UNIT_MIN 24u                    /* a shorter sentence is not understood without the next */
#define ANSWER_MAX 32u                  /* nor a shorter answer without its question */
#define ASKED_MAX 120u
#define WORDS_MAX 64u                   /* of a unit that are compared with another's */
#define STEMS_MAX 768u
#define TABLE_MAX (1u << 18)            /* different words that are counted; beyond, all are taken for common */
#define RARE 3                          /* said by the person, by the answer, and in one more place */
#define ALIKE 4                         /* so many units that differ in digits only are a form that was filled in */

#define PASTE_MIN 600u                  /* bytes: a longer message is hardly all in the person's own words */
#define RANK_BEST 5
#define RANK_COMMON 2                   /* at most, for what is nothing special here */

static const char *const names[] = { FACTS_USER, FACTS_PASTED, FACTS_ASSISTANT, FACTS_TOOL };
enum who { PERSON, PASTED, ASSISTANT, TOOL };

/* ---- words -------------------------------------------------------------------------- */

struct word {
	uint32_t hash;
	unsigned letters;
	bool number, name;              /* a name: with a capital inside a sentence, or letters and digits mixed, or all capitals */
};
struct walk { struct str rest; uint32_t wide; bool inside; };

static bool
is_digit(uint32_t c)
{
	return (c >= '0' && c <= '9') || (c >= 0x660 && c <= 0x669) || (c >= 0x6F0 && c <= 0x6F9) || (c >= 0x966 && c <= 0x96F);
}

static bool
is_capital(uint32_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7) || (c >= 0x391 && c <= 0x3A9) ||
	    (c >= 0x400 && c <= 0x42F) || (c >= 0x100 && c <= 0x17F && (c & 1) == (c >= 0x139 && c <= 0x148) + (c >= 0x179 ? 1u : 0u));
}

static uint32_t
mix(uint32_t hash, uint32_t c)
{
	return (hash ^ c) * 16777619u ^ hash >> 15;
}

/* "4,317": the digits alone. */
static bool
inside_number(struct str rest, size_t len, uint32_t c, uint32_t before)
{
	return is_digit(before) && (c == ',' || c == '.' || c == '\'' || c == 0x2019) && len < rest.n &&
	    is_digit((unsigned char)rest.p[len]);
}

/* Behind these a capital is no sign of a name. */
static bool
begins_anew(uint32_t c)
{
	return c == '.' || c == '!' || c == '?' || c == ':' || c == ';' || c == '"' || c == '(' || c == '*' || (c >= 0x2013 && c <= 0x203A);
}

/* The next word; of a script without blanks each two neighbours are one. */
static bool
next_word(struct walk *k, struct word *w)
{
	uint32_t before = 0;
	unsigned capitals = 0, digits = 0;
	size_t len;

	*w = (struct word){ .hash = 2166136261u };
	for (; k->rest.n; k->rest = str_sub(k->rest, len, k->rest.n)) {
		uint32_t c = utf8_decode(k->rest, &len), small = router_fold(c), first = k->wide;
		enum letter l = c == UTF8_BAD ? LETTER_GAP : router_letter(small);

		if (l == LETTER_NOTHING || (w->letters && inside_number(k->rest, len, c, before)))
			continue;
		if (w->letters && (l == LETTER_GAP || l == LETTER_WIDE))
			break;
		k->wide = l == LETTER_WIDE ? c : 0;
		if (l == LETTER_WIDE && first) {
			w->hash = mix(mix(w->hash, first), c);
			w->letters = 4;
			k->rest = str_sub(k->rest, len, k->rest.n);
			return true;
		}
		if (l == LETTER_GAP || l == LETTER_WIDE) {
			k->inside &= !begins_anew(c);
			continue;
		}
		if (w->letters++ == 0) {
			w->number = is_digit(c);
			w->name = is_capital(c) && k->inside;
		}
		capitals += is_capital(c);
		digits += is_digit(c);
		w->hash = mix(w->hash, small);
		before = c;
	}
	w->name = (w->name && w->letters > 1) || (digits && digits < w->letters && capitals) || (capitals > 1 && capitals == w->letters);
	k->inside = true;
	return w->letters > 0;
}

/* ---- how often each occurs ------------------------------------------------------------- */

struct table { uint32_t *keys; uint16_t *n; size_t mask, used; };

static bool
table_new(struct table *t, struct arena *ar, size_t bytes)
{
	size_t size = 256;

	while (size < bytes && size < TABLE_MAX)        /* a word and its blank are more than two bytes */
		size *= 2;
	*t = (struct table){ arena_array(ar, size, sizeof(*t->keys)), arena_array(ar, size, sizeof(*t->n)), size - 1, 0 };
	return ar->err == OK;
}

static unsigned
count(struct table *t, uint32_t hash, unsigned more)
{
	size_t i;

	hash += hash == 0;              /* 0 is a free place */
	for (i = hash & t->mask; t->keys[i] && t->keys[i] != hash; i = (i + 1) & t->mask)
		;
	if (t->keys[i] == 0) {
		if (more == 0)
			return 0;
		if (t->used > t->mask - t->mask / 4)
			return UINT16_MAX;
		t->used++;
		t->keys[i] = hash;
	}
	if (t->n[i] < UINT16_MAX - more)
		t->n[i] = (uint16_t)(t->n[i] + more);
	return t->n[i];
}

/* ---- units ------------------------------------------------------------------------------- */

struct unit {
	struct str text, asked;         /* the question that it answers */
	uint32_t form, whole;           /* with every digit alike; as it is */
	uint64_t bits;                  /* of its words */
	int rank;                       /* 0: nothing to keep; RANK_BEST */
	enum who who;
	bool keep;
};
struct facts {
	struct arena ar;
	struct table words;
	struct unit *units, **kept;
	size_t n, cap, n_kept;
	struct str heads[STEMS_MAX];    /* stems, in chains by their first two bytes */
	unsigned char mark[STEMS_MAX];
	uint16_t head[256], next[STEMS_MAX];
	size_t n_heads;
};

static bool
ends_sentence(struct str s, size_t i, size_t *len)
{
	static const char *const wide[] = { "\xE3\x80\x82", "\xEF\xBC\x81", "\xEF\xBC\x9F", "\xD8\x9F", "\xE0\xA5\xA4" };
	size_t word = i;

	*len = 1;
	for (size_t k = 0; k < ARRAY_LEN(wide); k++)
		if (str_starts(str_sub(s, i, s.n), str_z(wide[k]))) {
			*len = strlen(wide[k]);
			return true;
		}
	if ((s.p[i] != '.' && s.p[i] != '!' && s.p[i] != '?') || (i + 1 < s.n && s.p[i + 1] != ' '))
		return false;
	while (word > 0 && s.p[word - 1] != ' ')
		word--;
	return s.p[i] != '.' || i - word > 3;   /* "Dr.", "14.", "z.B." */
}

/* The bytes of the first sentence of a long line. */
static size_t
sentence(struct str s)
{
	size_t blank = 0, len;

	for (size_t i = 0; i < s.n && i < UNIT_MAX; i++) {
		if (i >= UNIT_MIN && ends_sentence(s, i, &len))
			return i + len;
		if (s.p[i] == ' ')
			blank = i + 1;
	}
	return s.n <= UNIT_MAX ? s.n : blank ? blank : utf8_prefix(s, UNIT_MAX).n;
}

static void
add_unit(struct facts *f, struct str text, enum who who, struct str asked)
{
	struct walk k = { .rest = text };
	struct unit *u;
	struct word w;

	if (f->n == f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 256;
		struct unit *grown = arena_array(&f->ar, cap, sizeof(*grown));

		if (grown == NULL)
			return;
		if (f->n)
			memcpy(grown, f->units, f->n * sizeof(*grown));
		f->units = grown;
		f->cap = cap;
	}
	u = &f->units[f->n++];
	*u = (struct unit){ .text = text, .who = who, .asked = text.n <= ANSWER_MAX ? asked : STR_NONE, .form = 1, .whole = 2 };
	while (next_word(&k, &w)) {
		u->form = mix(u->form, w.number ? '#' : w.hash);
		u->whole = mix(u->whole, w.hash);
		u->bits |= 1ull << w.hash % 64;
		(void)count(&f->words, w.hash, 1);
	}
	(void)count(&f->words, u->form, 1);
	(void)count(&f->words, u->whole, 1);
}

/* Who is named at the beginning of a line; false: nobody is. */
static bool
names_one(struct str *line, enum who *who)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_starts(*line, str_z(names[i]))) {
			*line = str_sub(*line, strlen(names[i]), line->n);
			*who = (enum who)i;
			return true;
		}
	return false;
}

/* The first bytes of source that are one's: up to a line that names another. */
static size_t
one_turn(struct str source)
{
	size_t n = 0;
	enum who who;
	struct str line;

	for (struct str rest = source; rest.n; n = source.n - rest.n) {
		(void)str_cut(&rest, '\n', &line);
		if (n && names_one(&line, &who))
			break;
	}
	return n;
}

struct str
facts_summary(struct str source)
{
	struct str line = source;
	enum who who;

	return names_one(&line, &who) ? STR_NONE : str_sub(source, 0, one_turn(source));
}

static void
cut_units(struct facts *f, struct str source)
{
	struct str asked = STR_NONE;

	while (source.n) {
		size_t n = one_turn(source), first = f->n;
		struct str turn = str_sub(source, 0, n), line;
		enum who who = PERSON;
		bool named = names_one(&turn, &who);

		while (who != TOOL && turn.n) {         /* what a tool says, the answer says again */
			(void)str_cut(&turn, '\n', &line);
			for (line = str_trim(line); line.n; line = str_trim(str_sub(line, n, line.n))) {
				n = line.n <= UNIT_MAX ? line.n : sentence(line);
				add_unit(f, str_trim(str_sub(line, 0, n)), who, who == PERSON ? asked : STR_NONE);
			}
		}
		n = one_turn(source);
		for (size_t i = first; named && who == PERSON && n > PASTE_MIN && i < f->n; i++)
			f->units[i].who = PASTED;
		asked = STR_NONE;
		if (who == ASSISTANT && f->n > first && str_ends(f->units[f->n - 1].text, S("?")) &&
		    f->units[f->n - 1].text.n <= ASKED_MAX)
			asked = f->units[f->n - 1].text;
		source = str_sub(source, n, source.n);
	}
}

/* ---- what weighs -------------------------------------------------------------------------- */

static unsigned
chain(char first, char second)
{
	return ((unsigned char)first * 31u + (unsigned char)second) & 255u;
}

static void
index_stems(struct facts *f)
{
	for (const struct facts_words *m = facts_words; m->words; m++) {
		struct str rest = str_z(m->words), w;

		while (str_cut(&rest, ' ', &w)) {
			uint16_t at = (uint16_t)++f->n_heads;   /* 0 ends a chain */
			uint16_t *head = &f->head[chain(w.p[0], w.p[1] == '_' || w.p[1] == '.' ? ' ' : w.p[1])];

			assert(at < STEMS_MAX);
			f->heads[at] = w;
			f->mark[at] = (unsigned char)m->mark;
			f->next[at] = *head;
			*head = at;
		}
	}
}

static bool
stands_at(struct str text, size_t at, struct str stem)
{
	for (size_t i = 0; i < stem.n; i++)
		if (at + i >= text.n || text.p[at + i] != (stem.p[i] == '_' || stem.p[i] == '.' ? ' ' : stem.p[i]))
			return false;
	return true;
}

static unsigned
find_marks(const struct facts *f, struct str text)
{
	char small[UNIT_MAX * 2 + 8] = " ";
	size_t n = 1, len;
	unsigned found = 0;

	for (; text.n && n < sizeof(small) - 6; text = str_sub(text, len, text.n)) {
		uint32_t c = utf8_decode(text, &len), folded = router_fold(c);
		enum letter l = c == UTF8_BAD ? LETTER_GAP : router_letter(folded);

		if (l == LETTER_GAP && small[n - 1] != ' ')
			small[n++] = ' ';
		else if (l != LETTER_GAP && l != LETTER_NOTHING)
			n += utf8_encode(folded, small + n);
	}
	small[n++] = ' ';
	for (size_t i = 1; i + 1 < n; i++)      /* where a word begins, and everywhere in a script without blanks */
		if (small[i - 1] == ' ' || (unsigned char)small[i] >= 0xD8)
			for (uint16_t k = f->head[chain(small[i], small[i + 1])]; k; k = f->next[k])
				if ((f->mark[k] != FACTS_ASK || i == 1) && stands_at(str_make(small, n), i, f->heads[k]))
					found |= f->mark[k];
	return found;
}

/* By what was found in it. */
static int
rank(const struct unit *u, unsigned found, bool numbers, bool named, int rare)
{
	bool strong = found & FACTS_STRONG, own = found & (FACTS_OWN | FACTS_FIRST), first = found & FACTS_FIRST;

	switch (u->who) {
	case PERSON:
		if ((found & FACTS_ASK) || str_ends(u->text, S("?")))
			return strong ? 4 : numbers ? 3 : 0;
		return strong || numbers ? RANK_BEST : own || named || u->asked.n ? 4 : rare >= 2 ? 3 : 0;
	case PASTED:
		return strong && own ? 4 : strong || own ? 3 : numbers || named ? RANK_COMMON : rare >= 2;
	case ASSISTANT:
		return (strong && (numbers || first)) || (numbers && first) ? 4 : strong ? 3 : numbers || named ? RANK_COMMON : 0;
	case TOOL:
		break;
	}
	return 0;
}

static int
weigh(struct facts *f, struct unit *u)
{
	struct walk k = { .rest = u->text };
	unsigned found = find_marks(f, u->text), forms = count(&f->words, u->form, 0);
	bool numbers = str_chr(u->text, '@') != SIZE_MAX || (found & FACTS_DATE), named = false, common = true;
	int rare = 0, v;
	struct word w;

	while (next_word(&k, &w)) {
		bool is = (w.letters >= 4 || w.number) && count(&f->words, w.hash, 0) <= RARE;

		numbers |= w.number;
		named |= w.name;
		rare += is && !w.number;
		common &= !is;
	}
	v = rank(u, found, numbers, named, rare);
	if (v > RANK_COMMON && !(found & FACTS_STRONG) &&
	    (common || (forms >= ALIKE && count(&f->words, u->whole, 0) * 2 <= forms)))
		v = RANK_COMMON;
	return v;
}

/* ---- what is said already --------------------------------------------------------------------- */

/* Are the unit's numbers and names, and most of its other words, among these? */
static bool
is_said(struct table *words, struct str text)
{
	struct walk k = { .rest = text };
	size_t all = 0, there = 0, keys = 0;
	struct word w;

	while (next_word(&k, &w)) {
		bool is = count(words, w.hash, 0) > 0;

		if (w.number || w.name) {
			keys++;
			if (!is)
				return false;
		} else if (w.letters >= 4) {
			all++;
			there += is;
		}
	}
	return there * 10 >= all * (keys ? 7u : 9u);
}

static unsigned
bits_of(uint64_t v)
{
	unsigned n = 0;

	for (; v; v &= v - 1)
		n++;
	return n;
}

static bool
says_the_same(const struct unit *u, const struct unit *than)
{
	uint32_t hashes[WORDS_MAX];
	struct walk k = { .rest = than->text };
	size_t n = 0, all = 0, there = 0;
	struct word w;

	if (bits_of(u->bits & ~than->bits) * 5 > bits_of(u->bits))
		return false;
	while (n < WORDS_MAX && next_word(&k, &w))
		hashes[n++] = w.hash;
	for (k = (struct walk){ .rest = u->text }; next_word(&k, &w); all++) {
		bool is = false;

		for (size_t i = 0; i < n && !is; i++)
			is = hashes[i] == w.hash;
		if (!is && w.number)
			return false;
		there += is;
	}
	return there * 5 >= all * 4;
}

/* ---- choosing ------------------------------------------------------------------------------------ */

/* The newest first. */
static void
keep(struct facts *f, struct table *said, int wanted, enum who who, size_t max, size_t *used)
{
	for (size_t i = f->n; i-- > 0;) {
		struct unit *u = &f->units[i];
		size_t size = u->text.n + (u->asked.n ? u->asked.n + 12 : 0) + strlen(FACTS_ASSISTANT) + 1;
		bool again = false, known = u->rank == wanted && said && is_said(said, u->text);

		if (u->rank != wanted || u->who != who || (!known && *used + size > max))
			continue;
		for (size_t k = 0; k < f->n_kept && !again; k++)
			again = says_the_same(u, f->kept[k]);
		if (again)
			continue;
		f->kept[f->n_kept++] = u;       /* what the summary says, too: who said it again need not be told either */
		u->keep = !known;
		*used += known ? 0 : size;
	}
}

static void
choose(struct facts *f, struct table *said, size_t max)
{
	size_t used = 0;

	f->kept = arena_array(&f->ar, f->n, sizeof(struct unit *));
	for (int i = f->kept ? RANK_BEST : 0; i > 0; i--) {
		/* what the assistant knows it can say again; what it promised it cannot */
		keep(f, said, i, PERSON, max, &used);
		keep(f, said, i, PASTED, i > 1 ? max : used + (max - used) / 3, &used);
		keep(f, said, i, ASSISTANT, i > 3 ? max : used + (max - used) / 3, &used);
	}
}

FALLIBLE
facts_write(struct str source, struct str summary, size_t max, struct buf *out, size_t *n)
{
	struct facts *f = calloc(1, sizeof(*f));
	struct table said;
	struct walk k = { .rest = summary };
	struct word w;
	enum err e;

	if (f == NULL)
		return ERR_NOMEM;
	arena_init(&f->ar, (source.n + 4096) * (sizeof(struct unit) + 16));
	index_stems(f);
	if (table_new(&f->words, &f->ar, source.n) && table_new(&said, &f->ar, summary.n)) {
		cut_units(f, source);
		while (next_word(&k, &w))
			(void)count(&said, w.hash, 1);
		for (size_t i = 0; i < f->n; i++)
			f->units[i].rank = weigh(f, &f->units[i]);
		choose(f, summary.n ? &said : NULL, max);
	}
	e = f->ar.err;
	*n = 0;
	for (size_t i = 0; i < f->n && e == OK; i++) {
		const struct unit *u = &f->units[i];

		if (!u->keep)
			continue;
		++*n;
		buf_puts(out, names[u->who]);
		if (u->asked.n)
			buf_fmt(out, "(asked: %.*s) ", STR_ARG(u->asked));
		buf_fmt(out, "%.*s\n", STR_ARG(u->text));
	}
	arena_free(&f->ar);
	free(f);
	return e != OK ? e : out->err;
}
