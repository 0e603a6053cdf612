/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * provider.c - the model providers in use, and which one answers for a model.
 *
 * A provider is a feature, or one of several instances of it that the configuration
 * names: [providers.NAME]. The model "NAME/x" is x of that instance; a name without
 * a known one in front belongs to the provider that knows it, or to the default one.
 *
 * Each has a circuit breaker. One that failed several calls in a row is not asked
 * for a while: then one call tries it, and its complete answer closes the breaker,
 * its failure opens it for twice as long. Meanwhile what was meant for it goes to
 * the first of providers.fallback that can be asked. A call that fails goes down the
 * same chain: what has failed it is left out until all have.
 */
#include "core.h"

#define CHAIN_MAX 32                    /* places in a chain: bits of a word */

struct provider *
provider_of(struct agent *a, struct str model)
{
	struct str rest = model, name;

	if (str_cut(&rest, '/', &name) && rest.n)
		for (size_t i = 0; i < a->n_providers; i++)
			if (str_eqz(name, a->providers[i].name))
				return &a->providers[i];
	for (size_t i = 0; i < a->n_providers; i++)
		for (const struct model_info *m = a->providers[i].feature->provider->models; m && m->id; m++)
			if (str_eqz(model, m->id))
				return &a->providers[i];
	return a->provider;
}

struct str
provider_model(const struct provider *p, struct str model)
{
	size_t n = strlen(p->name);

	return model.n > n + 1 && model.p[n] == '/' && str_starts(model, str_z(p->name)) ? str_sub(model, n + 1, model.n) : model;
}

void
provider_key(const struct provider *p, const char *key, char out[96])
{
	int n = (int)strcspn(key, "*");

	snprintf(out, 96, "%.*s%s%s", n, key, key[n] ? p->name : "", key[n] ? key + n + 1 : "");
}

static void
read_model(struct agent *a, struct provider *p)
{
	const struct provider_ops *ops = p->feature->provider;
	struct str model = ops->default_model_key ? config_wild_str(a->config, ops->default_model_key, str_z(p->name)) :
	    str_z(ops->models[0].id);

	snprintf(p->model, sizeof(p->model), "%s%s%.*s", ops->instances ? p->name : "", ops->instances ? "/" : "",
	    STR_ARG(model));
}

/* With a fresh configuration. What cannot stand in is said before it has to. */
void
providers_read(struct agent *a)
{
	const char *const *others = config_argv(a->config, "providers.fallback");
	struct model_info m;

	for (size_t i = 0; i < a->n_providers; i++)
		read_model(a, &a->providers[i]);
	for (; others && *others; others++) {
		struct fail f = FAIL_INIT;

		if (cost_model(a, *others, &m, &f) != OK)
			log_warn("provider", "providers.fallback is passed over: %s", f.text);
	}
}

FALLIBLE
providers_check(const struct config *c, struct fail *f)
{
	for (size_t i = 0; features[i]; i++)
		if (features[i]->provider && features[i]->provider->instances && !features[i]->provider->configured(c, f))
			return ERR_CONFIG;
	return OK;
}

void
providers_moved(struct agent *a, struct buf *told)
{
	struct str name;

	for (size_t i = 0; i < a->n_providers; i++) {
		const char *key = a->providers[i].feature->provider->instances;

		if (key && config_wild_str(a->config, key, str_z(a->providers[i].name)).n == 0)
			buf_fmt(told, "the provider %s ends at the next start\n", a->providers[i].name);
	}
	for (size_t i = 0; features[i]; i++)
		for (size_t k = 0; features[i]->provider && features[i]->provider->instances &&
		    config_segment(a->config, features[i]->provider->instances, k, &name); k++) {
			size_t n = 0;

			while (n < a->n_providers && !str_eqz(name, a->providers[n].name))
				n++;
			if (n == a->n_providers)
				buf_fmt(told, "the provider %.*s starts at the next start\n", STR_ARG(name));
		}
}

static enum err
start(struct agent *a, const struct feature *f, struct str name, struct fail *why)
{
	struct provider *p = &a->providers[a->n_providers];
	enum err e;

	if (a->n_providers == PROVIDERS_MAX)
		return fail_set(why, ERR_CONFIG, "more than %d providers; next: take one out of the configuration", PROVIDERS_MAX);
	if (name.n >= sizeof(p->name))
		return fail_set(why, ERR_CONFIG, "[providers.\"%.*s\"]: a name has at most %zu bytes", STR_ARG(name),
		    sizeof(p->name) - 1);
	*p = (struct provider){ .feature = f };
	snprintf(p->name, sizeof(p->name), "%.*s", STR_ARG(name));
	e = f->provider->start(a, p->name, &p->self, why);
	if (e == OK)
		a->n_providers++;
	return e;
}

/* The feature itself, or its instances; only what is configured, and what never leaves the machine only when it is wanted. */
static enum err
start_all(struct agent *a, const struct feature *f, struct str wanted, struct fail *why)
{
	struct fail f2 = FAIL_INIT;
	struct str name;
	enum err e = OK;

	if (f->provider->instances == NULL) {
		bool is = str_eqz(wanted, f->name);

		return !is && (f->provider->offline || !f->provider->configured(a->config, &f2)) ? OK :
		    start(a, f, str_z(f->name), why);
	}
	for (size_t i = 0; e == OK && config_segment(a->config, f->provider->instances, i, &name); i++)
		e = start(a, f, name, why);
	return e;
}

FALLIBLE
providers_new(struct agent *a, struct fail *f)
{
	struct str wanted = config_str(a->config, "providers.default");
	const struct feature *feature = feature_find(FEATURE_PROVIDER, wanted);
	enum err e = providers_check(a->config, f);

	if (e == OK && feature && feature->provider->instances == NULL && !feature->provider->configured(a->config, f))
		return ERR_CONFIG;
	for (size_t i = 0; features[i] && e == OK; i++)
		if (features[i]->kind == FEATURE_PROVIDER)
			e = start_all(a, features[i], wanted, f);
	if (e != OK)
		return e;
	for (size_t i = 0; i < a->n_providers; i++)
		if (str_eqz(wanted, a->providers[i].name))
			a->provider = &a->providers[i];
	if (a->provider == NULL)
		return fail_set(f, ERR_CONFIG, "providers.default = \"%.*s\": this build has no such provider, and there is no"
		    " [providers.%.*s] with a base_url; next: `blufio version` lists what it has", STR_ARG(wanted), STR_ARG(wanted));
	providers_read(a);
	return OK;
}

void
providers_free(struct agent *a)
{
	for (size_t i = 0; i < a->n_providers; i++)
		a->providers[i].feature->provider->free(a->providers[i].self);
	a->n_providers = 0;
	a->provider = NULL;
}

/* ---- the breaker --------------------------------------------------------------------------------- */

/* May it be asked? After the time of an open breaker one call may: it is taken for under way until it ends. */
bool
provider_ready(const struct provider *p)
{
	return p->open_for == 0 || (clock_mono_us() >= p->open_until && !p->probing);
}

bool
provider_asked(struct provider *p)
{
	bool probe = p->open_for > 0 && provider_ready(p);

	p->probing = p->probing || probe;
	return probe;
}

/* A call has ended: well, by the provider's fault, or by something that says nothing about it. Those that were under way
 * when a breaker opened say nothing new. */
void
provider_ended(struct provider *p, bool probe, bool good, bool its_fault)
{
	p->probing = p->probing && !probe;
	p->failures += its_fault && !good;
	if (good) {
		if (p->open_for)
			log_info("provider", "%s answers again", p->name);
		p->failures = 0;
		p->open_for = 0;
		p->told = false;
	} else if (its_fault && (p->open_for ? probe : p->failures >= BREAKER_FAILURES)) {
		p->open_for = p->open_for == 0 ? BREAKER_OPEN_US : p->open_for < BREAKER_OPEN_MAX_US / 2 ? p->open_for * 2 :
		    BREAKER_OPEN_MAX_US;
		p->open_until = clock_mono_us() + p->open_for;
		log_warn("provider", "%s failed %d calls in a row: it is not asked for %d s", p->name, p->failures,
		    (int)(p->open_for / US_PER_S));
	}
}

/* ---- the chain: what is wanted, then providers.fallback ------------------------------------------------ */

static const char *
place(struct agent *a, const char *wanted, size_t i)
{
	const char *const *others = config_argv(a->config, "providers.fallback");

	if (i == 0)
		return wanted;
	for (size_t k = 1; others && *others && k < CHAIN_MAX; k++, others++)
		if (k == i)
			return *others;
	return NULL;
}

const char *
provider_choose(struct agent *a, const char *wanted, unsigned avoid)
{
	struct model_info m;
	const char *model;

	for (size_t i = 0; (model = place(a, wanted, i)) != NULL; i++)
		if (!(avoid >> i & 1) && provider_ready(provider_of(a, str_z(model))) &&
		    (i == 0 || cost_model(a, model, &m, NULL) == OK))    /* of the one that is wanted, people are told */
			return model;
	return NULL;
}

unsigned
provider_failed(struct agent *a, const char *wanted, const char *model, bool alone)
{
	const struct provider *p = provider_of(a, str_z(model));
	unsigned mask = 0;
	const char *m;

	for (size_t i = 0; (m = place(a, wanted, i)) != NULL; i++)
		if (alone ? strcmp(m, model) == 0 : provider_of(a, str_z(m)) == p)
			mask |= 1u << i;
	return mask;
}

int64_t
provider_wait(struct agent *a, const char *wanted)
{
	int64_t least = INT64_MAX;
	const char *m;

	for (size_t i = 0; (m = place(a, wanted, i)) != NULL; i++) {
		const struct provider *p = provider_of(a, str_z(m));
		int64_t wait = p->open_for ? p->open_until - clock_mono_us() : 0;

		if (wait < least)
			least = wait;
	}
	return least > 0 ? least : 0;
}
