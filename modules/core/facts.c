/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * facts.c - what of a conversation must not be lost when it is shortened.
 *
 * The conversation comes as words: lines, some of which begin with who speaks. It is cut into units, a line each, or
 * a sentence of a long one. A unit is weighed by what a reader would underline: a decision, a promise, a date by
 * which, what to remember (words of some languages, below), one's own affairs, numbers, names, and words that occur
 * hardly anywhere else in it, for which no language has to be known. The heaviest are kept word for word, among
 * equals the newest, until the room is full; what a summary says already, or another unit, is not said again.
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

#define RANK_BEST 4

enum { STRONG = 1, OWN = 2, DATE = 4, FIRST = 8 };      /* FIRST: who speaks says what he does */
static const struct { unsigned mark; const char *words; } marks[] = {
/* "_": a blank; "." at the end: there the word ends */
{ STRONG,
	"remember remind don_t_forget do_not_forget never_forget decid agreed we_agree let_s_go_with go_with. went_with settled chose. "
	"chosen picked opted ruled_out from_now_on promis i_ll. i_will. we_ll. we_will. swore owe owes owed deadline due. until "
	"no_later_than expire appointment birthday anniversar allerg intoleran must. never. always. prefer password passcode booked "
	"reserv cancel important diagnos " },
{ STRONG,
	"merk_ erinner nicht_vergessen vergiss entschied entschlossen beschlossen beschloss vereinbart einigen versproch verspreche "
	"frist. spatest bis_zum ab_jetzt ab_sofort termin geburtstag allergi vertragt muss_ nie. niemals immer. lieber. bevorzug "
	"passwort gebucht reservier schulde ich_werde wir_werden wichtig souvien rappel n_oublie decid convenu d_accord promis promet "
	"echeance date_limite avant_le anniversaire rendez_vous jamais toujours prefer mot_de_passe je_vais " },
{ STRONG,
	"recuerd recordar acuerd no_olvid decidi acord promet plazo vence cumpleanos cita_ alergi nunca. siempre prefier contrasena "
	"ricord non_dimentic deciso decidi concordat promess promett scadenza entro. compleanno appuntament mai. sempre. preferi "
	"lembr nao_esque decidi combin prazo aniversari compromisso senha. devo_ onthoud herinner vergeet besloten beslis "
	"afgesproken beloof uiterlijk verjaardag afspraak nooit altijd liever wachtwoord geboekt " },
{ STRONG,
	"pamieta przypomn zapomn zdecydow postanow ustali obieca termin. urodzin alergi nigdy zawsze haslo hatirla unutma karar "
	"anlast soz_ver dogum_gun randevu alerj asla. her_zaman sifre запомн помни напомн не_забуд решил договорил обеща срок дедлайн "
	"день_рожд аллерг никогда всегда предпочит пароль должен должн 记住 记得 記住 記得 提醒 别忘 別忘 决定 決定 同意 我会 我會 答应 答應 承诺 承諾 保证 保證 "
	"截止 期限 生日 过敏 過敏 必须 必須 从不 总是 密码 密碼 预订 覚え 忘れ 決め 約束 締切 締め切 誕生日 アレルギー 必ず パスワード 予約 "
	"تذكر ذكرني لا_تنس قرر اتفق وعد موعد حساسي دايما ابدا كلمه_المرور 기억 잊지 결정 약속 마감 생일 알레르기 비밀번호 예약 " },
{ OWN,
	"my. mine. our. i_am. i_m. i_have. i_live i_work i_was_born mein meine meinen meinem meiner unser ich_bin ich_habe ich_wohne "
	"mon. ma. mes. notre. je_suis j_ai j_habite mi. mis. nuestr soy. tengo mio. mia. miei nostr sono. abito meu. minha nosso nossa "
	"tenho moro. mijn onze. ik_ben ik_heb moj. moja moje mam. jestem мой моя мое мои наш меня 我的 我们 我叫 我住 我对 我對 私の 僕の 妹 弟 "
	"母 父 ابني امي ابي بيتي benim bizim kiz_kardesim 나의 내_ 우리 " },
{ DATE,
	"monday tuesday wednesday thursday friday saturday sunday january february april. june. july. august september october november "
	"december tomorrow tonight next_week next_month o_clock montag dienstag mittwoch donnerstag freitag samstag sonntag januar "
	"februar marz. mai. juni. juli. oktober dezember ubermorgen nachste_woche nachsten lundi mardi mercredi jeudi vendredi samedi "
	"dimanche janvier fevrier avril juin. juillet aout. septembre octobre novembre decembre demain lunes martes miercoles jueves "
	"viernes sabado domingo enero febrero abril mayo. junio julio agosto septiembre octubre noviembre diciembre lunedi martedi " },
{ DATE,
	"mercoledi giovedi venerdi domenica gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre domani segunda_feira "
	"terca_feira quarta_feira quinta_feira sexta_feira janeiro fevereiro maio. junho julho setembro outubro dezembro amanha maandag "
	"dinsdag woensdag donderdag vrijdag zaterdag zondag januari februari maart. mei. augustus overmorgen poniedzial wtorek srode "
	"czwartek piatek sobot niedziel pazartesi carsamba persembe cumartesi понедельник вторник среду среды четверг пятниц суббот "
	"воскресен январ феврал марта апрел мая. июня июля августа сентябр октябр ноябр декабр завтра 星期 礼拜 禮拜 下周 明天 曜日 明日 来週 "
	"الاثنين الثلاثاء الاربعاء الخميس الجمعه السبت غدا 월요일 화요일 수요일 목요일 금요일 토요일 일요일 내일 " },
{ FIRST,
	"i. ich. je. j_ yo. te_ io. eu. ik. я. 我 私 僕 ben. 제가 سوف " },
};

/* ---- words -------------------------------------------------------------------------- */

struct word {
	uint32_t hash;
	unsigned letters;
	bool number, name;              /* a name: with a capital, or letters and digits mixed */
	bool code;                      /* the latter, or all capitals */
};
struct walk { struct str rest; uint32_t wide; };

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
		if (l == LETTER_GAP || l == LETTER_WIDE)
			continue;
		if (w->letters++ == 0) {
			w->number = is_digit(c);
			w->name = is_capital(c);
		}
		capitals += is_capital(c);
		digits += is_digit(c);
		w->hash = mix(w->hash, small);
		before = c;
	}
	w->code = (digits && digits < w->letters && capitals) || (capitals > 1 && capitals == w->letters);
	w->name = (w->name && w->letters > 1) || w->code;
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
	bool user, keep;
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
add_unit(struct facts *f, struct str text, bool user, struct str asked)
{
	struct walk k = { text, 0 };
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
	*u = (struct unit){ .text = text, .user = user, .asked = text.n <= ANSWER_MAX ? asked : STR_NONE, .form = 1, .whole = 2 };
	while (next_word(&k, &w)) {
		u->form = mix(u->form, w.number ? '#' : w.hash);
		u->whole = mix(u->whole, w.hash);
		u->bits |= 1ull << w.hash % 64;
		(void)count(&f->words, w.hash, 1);
	}
	(void)count(&f->words, u->form, 1);
	(void)count(&f->words, u->whole, 1);
}

static void
cut_units(struct facts *f, struct str source)
{
	struct str line, asked = STR_NONE;
	bool user = true, told = true;          /* what no one is named for is an earlier summary */

	while (source.n) {
		(void)str_cut(&source, '\n', &line);
		if (str_starts(line, S(FACTS_USER)) || str_starts(line, S(FACTS_ASSISTANT))) {
			user = line.p[0] == FACTS_USER[0];
			told = true;
			line = str_sub(line, user ? strlen(FACTS_USER) : strlen(FACTS_ASSISTANT), line.n);
		} else if (str_starts(line, S(FACTS_TOOL))) {
			told = false;           /* what a tool says, the answer says again */
		}
		line = str_trim(line);
		while (told && line.n) {
			size_t n = line.n <= UNIT_MAX ? line.n : sentence(line);
			struct str text = str_trim(str_sub(line, 0, n));

			add_unit(f, text, user, user ? asked : STR_NONE);
			asked = !user && str_ends(text, S("?")) && text.n <= ASKED_MAX ? text : STR_NONE;
			line = str_sub(line, n, line.n);
		}
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
	for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
		struct str rest = str_z(marks[i].words), w;

		while (str_cut(&rest, ' ', &w)) {
			uint16_t at = (uint16_t)++f->n_heads;   /* 0 ends a chain */
			uint16_t *head = &f->head[chain(w.p[0], w.p[1] == '_' ? ' ' : w.p[1])];

			assert(at < STEMS_MAX);
			f->heads[at] = w;
			f->mark[at] = (unsigned char)marks[i].mark;
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
				if (stands_at(str_make(small, n), i, f->heads[k]))
					found |= f->mark[k];
	return found;
}

static int
weigh(struct facts *f, struct unit *u)
{
	struct walk k = { u->text, 0 };
	unsigned found = find_marks(f, u->text), forms = count(&f->words, u->form, 0);
	int numbers = str_chr(u->text, '@') != SIZE_MAX || (found & DATE), names = 0, rare = 0, v;
	bool common = true;             /* all its words */
	struct word w;

	for (size_t i = 0; next_word(&k, &w); i++) {
		bool is = (w.letters >= 4 || w.number) && count(&f->words, w.hash, 0) <= RARE;

		numbers += w.number;
		names += w.name && (i || w.code);
		rare += is && !w.number;
		common &= !is;
	}
	v = (found & STRONG ? 6 : 0) + (found & OWN ? 3 : 0) + (numbers ? 3 : 0) + (names ? 2 : 0) + (rare < 3 ? rare : 3) +
	    (u->user || (numbers && (found & FIRST)) ? 3 : 0) - (str_ends(u->text, S("?")) ? 4 : 0);
	if (v < 6)
		return 0;
	if (!(found & STRONG) && (common || (forms >= ALIKE && count(&f->words, u->whole, 0) * 2 <= forms)))
		return 1;
	return v >= 12 ? RANK_BEST : v >= 9 ? RANK_BEST - 1 : RANK_BEST - 2;
}

/* ---- what is said already --------------------------------------------------------------------- */

/* Are the unit's numbers and names, and most of its other words, among these? */
static bool
is_said(struct table *words, struct str text)
{
	struct walk k = { text, 0 };
	size_t all = 0, there = 0, keys = 0;
	struct word w;

	for (size_t i = 0; next_word(&k, &w); i++) {
		bool is = count(words, w.hash, 0) > 0;

		if (w.number || (w.name && (i || w.code))) {
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
	struct walk k = { than->text, 0 };
	size_t n = 0, all = 0, there = 0;
	struct word w;

	if (bits_of(u->bits & ~than->bits) * 5 > bits_of(u->bits))
		return false;
	while (n < WORDS_MAX && next_word(&k, &w))
		hashes[n++] = w.hash;
	for (k = (struct walk){ u->text, 0 }; next_word(&k, &w); all++) {
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
keep(struct facts *f, struct table *said, int rank, bool user, size_t max, size_t *used)
{
	for (size_t i = f->n; i-- > 0;) {
		struct unit *u = &f->units[i];
		size_t size = u->text.n + (u->asked.n ? u->asked.n + 12 : 0) + strlen(FACTS_ASSISTANT) + 1;
		bool again = false, known = u->rank == rank && said && is_said(said, u->text);

		if (u->rank != rank || u->user != user || (!known && *used + size > max))
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
	for (int rank = f->kept ? RANK_BEST : 0; rank > 0; rank--) {
		keep(f, said, rank, true, max, &used);
		/* what the assistant knows it can say again; what it promised it cannot */
		keep(f, said, rank, false, rank >= RANK_BEST - 1 ? max : used + (max - used) / 3, &used);
	}
}

FALLIBLE
facts_write(struct str source, struct str summary, size_t max, struct buf *out, size_t *n)
{
	struct facts *f = calloc(1, sizeof(*f));
	struct table said;
	struct walk k = { summary, 0 };
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
		buf_puts(out, u->user ? FACTS_USER : FACTS_ASSISTANT);
		if (u->asked.n)
			buf_fmt(out, "(asked: %.*s) ", STR_ARG(u->asked));
		buf_fmt(out, "%.*s\n", STR_ARG(u->text));
	}
	arena_free(&f->ar);
	free(f);
	return e != OK ? e : out->err;
}
