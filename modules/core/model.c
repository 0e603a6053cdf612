/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * model.c - which model answers a conversation, and which others there are.
 *
 * What can be chosen has a price: it stands in a provider's table or in a
 * [pricing."id"] table of the configuration, or [providers.NAME] prices all that
 * it has. A provider's own list, when it can be had, takes those away that it does
 * not have and gives the others names for people. Lists are asked for only when
 * /model wants to show them, waited for at most MODELS_US, and kept in memory for
 * an hour; without one the priced ones are shown and the answer says so. /model NAME never waits: it is decided by what is known
 * now, so that the next message is answered by the model that was chosen.
 *
 * An answer to /model that waits for the list is not a row: a restart in these
 * seconds loses it, and the word may simply be sent again.
 */
#include "core.h"

#include <limits.h>

#define LISTED_MAX 512                  /* models that can be chosen: a marketplace has hundreds */
#define LISTED_BYTES (16u << 10)        /* of them in words: what a person may still read */

struct waiting {                        /* a conversation that asked */
	int64_t session;
	struct target to;
	struct buf names;               /* where its views point */
	struct waiting *next;
};
struct models {
	struct agent *a;
	struct asked {                  /* of each provider */
		struct models *m;
		void *op;               /* it is being asked */
		struct buf list;        /* JSON [["id","name"],…] */
		int64_t listed_at;      /* monotonic; 0: never */
	} of[PROVIDERS_MAX];
	struct ev_timer timer;
	struct waiting *waiting;
	size_t n_waiting;
};
struct list {                           /* the providers' lists, parsed, NULL where there is none; what can be chosen */
	struct agent *a;
	struct arena ar;
	const struct json *of[PROVIDERS_MAX];
	struct str *ids;
	size_t n;
};

/* "-20251001" at the end of a name. */
static bool
is_dated(struct str id)
{
	int64_t day;

	return id.n > 9 && id.p[id.n - 9] == '-' && str_i64(str_sub(id, id.n - 8, 8), 20200000, 29991231, &day) == OK;
}

/* What it costs; f (may be NULL) says how to price it. */
static bool
price_of(struct agent *a, struct str id, struct model_info *out, struct fail *f)
{
	char model[128];
	bool good = snprintf(model, sizeof(model), "%.*s", STR_ARG(id)) < (int)sizeof(model) &&
	    cost_model(a, model, out, f) == OK;

	out->id = NULL;                 /* it named what goes out of scope */
	return good;
}

/* Its name for people; empty when its provider does not have it. It may list only the dated form. */
static struct str
name_of(const struct list *l, struct str id)
{
	const struct json *list = l->of[provider_of(l->a, id) - l->a->providers];

	for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
		struct str listed = json_str(m, "0", STR_NONE);

		if (str_eq(listed, id) || (is_dated(listed) && str_eq(str_sub(listed, 0, listed.n - 9), id)))
			return json_str(m, "1", STR_NONE).n ? json_str(m, "1", STR_NONE) : id;
	}
	return list ? STR_NONE : id;
}

/* The i-th model that is named with a price. */
bool
model_priced(struct agent *a, size_t i, struct str *id)
{
	for (size_t k = 0; k < a->n_providers; k++) {
		const struct model_info *m = a->providers[k].feature->provider->models;

		for (; m && m->id; m++)
			if (i-- == 0) {
				*id = str_z(m->id);
				return true;
			}
		if (a->providers[k].feature->provider->instances && i-- == 0) {
			*id = str_z(a->providers[k].model);
			return true;
		}
	}
	return config_segment(a->config, "pricing.*.input", i, id);
}

static void
list_add(struct list *l, struct str id)
{
	struct model_info m;

	if (l->n == LISTED_MAX || name_of(l, id).n == 0 || !price_of(l->a, id, &m, NULL))
		return;
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->ids[i], id))
			return;
	l->ids[l->n++] = id;
}

static bool
is_fresh(const struct asked *k)
{
	return k->listed_at && clock_mono_us() - k->listed_at < MODELS_FRESH_US;
}

static struct list
list_open(struct agent *a)
{
	struct models *m = a->models;
	struct list l = { .a = a };
	struct str id;
	size_t room = LISTED_MAX * sizeof(*l.ids) + 64;

	for (size_t i = 0; m && i < a->n_providers; i++)
		room += JSON_TREE_MAX(m->of[i].list.n);
	arena_init(&l.ar, room);
	l.ids = arena_array(&l.ar, LISTED_MAX, sizeof(*l.ids));
	for (size_t i = 0; m && i < a->n_providers; i++)
		if (is_fresh(&m->of[i]) && json_parse(&l.ar, buf_view(&m->of[i].list), &l.of[i], NULL) != OK)
			l.of[i] = NULL;
	for (size_t i = 0; l.ids && model_priced(a, i, &id); i++)
		list_add(&l, id);
	for (size_t i = 0; l.ids && i < a->n_providers; i++)
		for (const struct json *k = l.of[i] ? l.of[i]->first : NULL; k; k = k->next)
			list_add(&l, json_str(k, "0", STR_NONE));
	return l;
}

/* Has every provider that can be asked for its list told it? */
static bool
is_whole(const struct list *l)
{
	for (size_t i = 0; i < l->a->n_providers; i++)
		if (l->of[i] == NULL && l->a->providers[i].feature->provider->list)
			return false;
	return true;
}

/* ---- finding one by what a person calls it --------------------------------------------- */

/* "Opus 5.5" -> "opus-5-5" */
static struct str
normal(struct str s, char out[128])
{
	size_t n = s.n < 127 ? s.n : 127;

	for (size_t i = 0; i < n; i++) {
		char c = s.p[i];

		out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : strchr(" ._/:", c) ? '-' : c;
	}
	return str_make(out, n);
}

/* Does the name hold these words? *at_end: they end it. */
static bool
holds(struct str id, struct str words, bool *at_end)
{
	for (size_t at = 0, next; (next = str_find(str_sub(id, at, id.n), words)) != SIZE_MAX; at += next + 1) {
		size_t from = at + next, to = from + words.n;

		if ((from == 0 || id.p[from - 1] == '-') && (to == id.n || id.p[to] == '-')) {
			*at_end = to == id.n;
			return true;
		}
	}
	return false;
}

/* "NAME/x" of one of several instances of a provider. */
static bool
is_named(struct agent *a, struct str id)
{
	const struct provider *p = provider_of(a, id);

	return p->feature->provider->instances && provider_model(p, id).n < id.n;
}

/* The one that is meant, empty when there are several or none: the one whose name ends so, else the newest of
 * the only family that has such a name. All that could be meant are told to each(). */
static struct str
find(struct agent *a, const struct list *l, struct str called, void (*each)(void *arg, struct str id), void *arg)
{
	char text[128], own[128];
	struct str end = STR_NONE, first = STR_NONE, words = normal(called, text);
	size_t ends = 0, families = 0;
	struct model_info m;
	bool at_end;

	for (size_t i = 0; i < l->n; i++) {
		struct str id = l->ids[i], name = normal(id, own);

		if (str_eq(id, called) || str_eq(name, words))
			return id;
		if (!holds(name, words, &at_end))
			continue;
		if (at_end && ends++ == 0)
			end = id;
		if (first.n == 0 || !str_eq(llm_family(first), llm_family(id)))
			families++;
		if (first.n == 0)
			first = id;
		if (each)
			each(arg, id);
	}
	if (is_named(a, called) && name_of(l, called).n && price_of(a, called, &m, NULL))
		return called;          /* its provider was not asked for its list, and prices all it has */
	return ends == 1 ? end : families == 1 ? first : STR_NONE;
}

void
model_nearest(struct agent *a, struct str like, struct buf *out)
{
	struct str said[3];
	size_t n = 0;
	char text[128];
	struct list l = list_open(a);

	for (like = normal(like, text); n < ARRAY_LEN(said); n++) {
		struct str best = STR_NONE;
		unsigned least = UINT_MAX;

		for (size_t i = 0; i < l.n; i++) {
			unsigned d = str_distance(l.ids[i], like);
			bool again = is_dated(l.ids[i]);

			for (size_t k = 0; k < n; k++)
				again = again || str_eq(said[k], l.ids[i]);
			if (!again && d < least) {
				least = d;
				best = l.ids[i];
			}
		}
		if (best.n == 0)
			break;
		buf_puts(out, n ? ", " : "");
		buf_str(out, best);
		said[n] = best;
	}
	arena_free(&l.ar);
}

/* ---- /model: what there is ---------------------------------------------------------------- */

struct menu { struct jw w; struct buf buttons; size_t n; const struct list *l; };

static void
menu_add(void *arg, struct str id)
{
	struct menu *m = arg;
	char word[160];

	if (is_dated(id) || m->n == BUTTONS_MAX)
		return;
	snprintf(word, sizeof(word), "/model %.*s", STR_ARG(id));
	m->n++;
	jw_arr(&m->w);
	jw_str(&m->w, name_of(m->l, id));
	jw_z(&m->w, word);
	jw_end_arr(&m->w);
}

static void
menu_begin(struct menu *m, const struct list *l)
{
	*m = (struct menu){ .buttons = BUF_INIT(16u << 10), .l = l };
	jw_init(&m->w, &m->buttons);
	jw_arr(&m->w);
}

static void
menu_say(struct menu *m, struct agent *a, int64_t session, const struct target *to, struct str text)
{
	jw_end_arr(&m->w);
	agent_wrote(a, jw_done(&m->w));
	agent_wrote(a, outbox_put_buttons(a, session, to, text, m->n ? buf_view(&m->buttons) : STR_NONE));
	buf_free(&m->buttons);
}

static void
take_model(void *arg, const struct session_row *r)
{
	snprintf(arg, 128, "%.*s", STR_ARG(r->model));
}

static void
put_price(struct buf *b, const struct model_info *m)
{
	buf_fmt(b, "$%g in, $%g out", (double)m->in / 1000, (double)m->out / 1000);
	if (m->band_above)
		buf_fmt(b, " (beyond %lld tokens %lld times as much)", (long long)m->band_above, (long long)m->band_factor);
}

static void
tell(struct agent *a, int64_t session, const struct target *to)
{
	struct list l = list_open(a);
	struct buf b = BUF_INIT(32u << 10);
	struct model_info info;
	struct menu menu;
	struct str id;
	char model[128] = "";
	bool own;

	agent_wrote(a, store_session_get(a->db, session, take_model, model));
	own = model[0] != '\0';
	if (!own)
		snprintf(model, sizeof(model), "%s", llm_model(a));
	menu_begin(&menu, &l);
	id = name_of(&l, str_z(model));
	buf_fmt(&b, "This conversation is answered by %s", model);
	if (id.n && !str_eqz(id, model))
		buf_fmt(&b, " (%.*s)", STR_ARG(id));
	buf_puts(&b, own ? ".\n\nFor a million tokens:\n" : ", the default.\n\nFor a million tokens:\n");
	for (size_t i = 0; i < l.n; i++) {
		if (is_dated(l.ids[i]) || b.n > LISTED_BYTES || !price_of(a, l.ids[i], &info, NULL))
			continue;
		buf_fmt(&b, "- %.*s: ", STR_ARG(l.ids[i]));
		put_price(&b, &info);
		buf_putc(&b, '\n');
		menu_add(&menu, l.ids[i]);
	}
	buf_puts(&b, "\n/model and a name chooses another for this conversation; \"opus\" or \"opus 5.5\" will do. /model default"
	    " goes back.");
	if (!is_whole(&l))
		buf_puts(&b, " (The provider's own list could not be had: these are the models that have a price here.)");
	agent_wrote(a, b.err);
	menu_say(&menu, a, session, to, buf_view(&b));
	buf_free(&b);
	arena_free(&l.ar);
}

static void
waiting_free(struct models *m)
{
	while (m->waiting) {
		struct waiting *w = m->waiting;

		m->waiting = w->next;
		buf_free(&w->names);
		free(w);
	}
	m->n_waiting = 0;
}

static void
tell_all(struct models *m)
{
	ev_timer_cancel(m->a->ev, &m->timer);
	for (struct waiting *w = m->waiting; w; w = w->next)
		tell(m->a, w->session, &w->to);
	waiting_free(m);
}

static bool
is_asking(const struct models *m)
{
	for (size_t i = 0; i < PROVIDERS_MAX; i++)
		if (m->of[i].op)
			return true;
	return false;
}

static void
on_list(void *arg, struct str models)
{
	struct asked *k = arg;

	k->op = NULL;
	if (models.n) {
		buf_reset(&k->list);
		buf_str(&k->list, models);
		k->listed_at = k->list.err == OK ? clock_mono_us() : 0;
	}
	if (!is_asking(k->m))
		tell_all(k->m);
}

static void
list_drop(struct models *m)
{
	for (size_t i = 0; i < m->a->n_providers; i++)
		if (m->of[i].op) {
			m->a->providers[i].feature->provider->cancel(m->of[i].op);
			m->of[i].op = NULL;
		}
	ev_timer_cancel(m->a->ev, &m->timer);
}

static void
on_time(void *arg)
{
	struct models *m = arg;

	log_info("model", "no list of models within %d s", (int)(MODELS_US / US_PER_S));
	list_drop(m);
	tell_all(m);
}

/* Asks each provider whose list is not known. */
static void
ask_all(struct models *m)
{
	for (size_t i = 0; i < m->a->n_providers; i++) {
		const struct provider *p = &m->a->providers[i];
		struct asked *k = &m->of[i];

		if (p->feature->provider->list && k->op == NULL && !is_fresh(k) &&
		    p->feature->provider->list(p->self, on_list, k, &k->op) != OK)
			k->op = NULL;
	}
}

/* Waits for the lists; false when that cannot be. */
static bool
wait_for_list(struct agent *a, int64_t session, const struct target *to)
{
	const struct str from[] = { to->channel, to->chat, to->thread, to->reply_to };
	struct models *m = a->models;
	struct waiting *w;
	struct str *views;
	size_t at = 0;

	if (m == NULL || m->n_waiting == MODELS_ASKS_MAX)
		return false;
	ask_all(m);
	if (!is_asking(m))
		return false;
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return false;
	w->session = session;
	buf_init(&w->names, 4096);
	for (size_t i = 0; i < ARRAY_LEN(from); i++)
		buf_str(&w->names, from[i]);
	if (w->names.err != OK) {
		buf_free(&w->names);
		free(w);
		return false;
	}
	for (size_t i = 0; i < ARRAY_LEN(from); at += from[i++].n) {
		views = (struct str *[]){ &w->to.channel, &w->to.chat, &w->to.thread, &w->to.reply_to }[i];
		*views = str_sub(buf_view(&w->names), at, from[i].n);
	}
	if (m->waiting == NULL)
		ev_timer_in(a->ev, &m->timer, MODELS_US);
	w->next = m->waiting;
	m->waiting = w;
	m->n_waiting++;
	return true;
}

/* ---- /model NAME: another one ---------------------------------------------------------------- */

/* Thinking is bound to the model that thought it: from here on the history goes without what there was. */
static void
set_model(struct agent *a, int64_t id, struct str model)
{
	struct session *s = session_get(a, id);

	agent_wrote(a, store_session_set_model(a->db, id, model));
	agent_wrote(a, store_session_drop_thinking(a->db, id, 0));
	if (s) {
		snprintf(s->model, sizeof(s->model), "%.*s", STR_ARG(model));
		s->thinking_seq = s->next_seq;
		if (s->turn)
			s->turn->counted = 0;   /* another model counts otherwise */
	}
	log_info("model", "conversation %lld: %.*s", (long long)id, STR_ARG(model.n ? model : S("the default")));
}

static void
choose(struct agent *a, int64_t session, const struct target *to, const struct list *l, struct str arg)
{
	struct buf b = BUF_INIT(4096);
	struct fail f = FAIL_INIT;
	struct model_info info;
	struct menu menu;
	struct str id;

	menu_begin(&menu, l);
	if (str_eqz(arg, "default")) {
		set_model(a, session, STR_NONE);
		buf_fmt(&b, "From now on this conversation is answered by the default model, %s.", llm_model(a));
	} else if ((id = find(a, l, arg, menu_add, &menu)).n) {
		menu.n = 0;             /* no need to choose */
		set_model(a, session, id);
		buf_fmt(&b, "From now on this conversation is answered by %.*s. For a million tokens: ", STR_ARG(id));
		if (price_of(a, id, &info, NULL))
			put_price(&b, &info);
		buf_putc(&b, '.');
	} else if (menu.n) {
		buf_fmt(&b, "\"%.*s\" could be several models. Which one?", STR_ARG(arg));
	} else if ((is_named(a, arg) || l->of[provider_of(a, arg) - a->providers]) && name_of(l, arg).n && !price_of(a, arg, &info, &f)) {
		buf_puts(&b, f.text);
	} else {
		buf_fmt(&b, "I know no model \"%.*s\" that has a price. Nearest: ", STR_ARG(arg));
		model_nearest(a, arg, &b);
		buf_puts(&b, ". /model shows all.");
	}
	agent_wrote(a, b.err);
	menu_say(&menu, a, session, to, buf_view(&b));
	buf_free(&b);
}

void
model_word(struct agent *a, int64_t session, const struct target *to, struct str arg)
{
	struct list l = list_open(a);

	if (arg.n)
		choose(a, session, to, &l, arg);
	else if (is_whole(&l) || !wait_for_list(a, session, to))
		tell(a, session, to);
	arena_free(&l.ar);
}

/* ---- start, end --------------------------------------------------------------------------------- */

FALLIBLE
models_new(struct agent *a)
{
	struct models *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return ERR_NOMEM;
	m->a = a;
	for (size_t i = 0; i < PROVIDERS_MAX; i++) {
		m->of[i].m = m;
		buf_init(&m->of[i].list, 1u << 20);
	}
	ev_timer_init(&m->timer, on_time, m);
	a->models = m;
	return OK;
}

void
models_clear(struct agent *a)
{
	if (a->models == NULL)
		return;
	list_drop(a->models);
	waiting_free(a->models);
}

void
models_free(struct agent *a)
{
	models_clear(a);
	for (size_t i = 0; a->models && i < PROVIDERS_MAX; i++)
		buf_free(&a->models->of[i].list);
	free(a->models);
	a->models = NULL;
}
