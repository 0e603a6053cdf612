/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * context.c - rows -> request.
 *
 * Prompt caches match a byte prefix, so the order is fixed: tools (sorted,
 * rendered once), then the system text this history began with, then the
 * history exactly as it was sent and received, append-only, then the newest
 * user message. Nothing that changes from call to call (a time, a counter)
 * stands in front of anything that does not.
 *
 * Whatever subset of rows survived, the result obeys the API: the first message
 * is the user's, every tool_use is answered in the next message and every
 * tool_result answers one, no tool call of the provider's own is left without its
 * result, no empty message. In an undamaged history none of
 * these repairs changes a byte.
 *
 * Files (media.c) stay references here; what the API would refuse about them is
 * refused first, in words. One that is gone is replaced by a note, and the
 * history goes on without its thinking, which was bound to what stood before.
 */
#include "core.h"

#define CONTEXT_ARENA (REQUEST_MAX + (8u << 20))
#define MESSAGE_TOKENS 16               /* around a message: role, ends, a block's kind */
#define FILES_FACTOR 4                  /* of other providers than Claude's: what a picture may have more than is thought */
#define PAUSES_PRIOR 3
#define PROMPT_TOKENS 1024              /* around all: what the provider says about tools itself */
#define INTERRUPTED "[{\"type\":\"tool_result\",\"tool_use_id\":"

struct entry {
	int64_t seq;
	const char *role;
	struct str content;
	bool uses, results;             /* holds tool_use / tool_result blocks */
	bool server;                    /* holds server_tool_use blocks */
	bool media;                     /* refers to files */
};
struct rows {
	struct arena *ar;
	struct entry *e;
	size_t n, cap;
	size_t run, run_end;            /* repair: entries of the answer that is looked at */
	struct agent *a;
	int64_t thinking_seq;           /* before it, thinking blocks are left out */
	int64_t images, large;          /* pictures, and those beyond IMAGE_PIXELS_MANY */
	int64_t documents;              /* PDFs */
	int64_t file_bytes, file_tokens, file_most;     /* most: no text has more tokens than bytes */
	size_t new_bytes;               /* of what the provider has not counted yet */
	int64_t new_file_tokens, new_file_most, new_documents;
	bool lost;                      /* a file that should be there is not */
	enum err err;
};

/* Our writer puts "type" first and escapes quotes inside strings, so these bytes occur only as a block's start. */
static bool
has_block(struct str content, const char *start)
{
	return str_find(content, str_z(start)) != SIZE_MAX;
}
#define USE_START "{\"type\":\"tool_use\""
#define SERVER_START "{\"type\":\"server_tool_use\""
#define RESULT_START "{\"type\":\"tool_result\""
#define MEDIA_SOURCE "\"source\":{\"type\":\"media\""

/* The blocks of a stored content. One that cannot be read for want of memory is not damaged: then
 * there is no request, instead of one that has been "repaired". */
static const struct json *
blocks_of(struct rows *r, struct arena *tmp, struct str content)
{
	const struct json *v = NULL;
	enum err e = json_parse(tmp, content, &v, NULL);

	if (e == ERR_NOMEM)
		r->err = e;
	return e == OK && v->type == JSON_ARRAY ? v->first : NULL;
}

/* Rebuilds a content array from the blocks that keep() wants; same bytes for each. */
static struct str
filter(struct rows *r, struct str content, bool (*keep)(struct rows *r, const struct json *block, struct str arg),
    struct str arg)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(content.n));
	struct buf out = BUF_INIT(content.n + 16);
	const struct json *blocks = blocks_of(r, &tmp, content);
	struct str s = STR_NONE;
	size_t kept = 0;

	if (blocks) {
		buf_putc(&out, '[');
		for (const struct json *b = blocks; b; b = b->next)
			if (keep(r, b, arg)) {
				if (kept++)
					buf_putc(&out, ',');
				buf_str(&out, b->raw);
			}
		buf_putc(&out, ']');
		if (out.err != OK)
			r->err = out.err;
		else if (kept)
			s = arena_str(r->ar, buf_view(&out));
	}
	buf_free(&out);
	arena_free(&tmp);
	return s;
}

static bool
not_thinking(struct rows *r, const struct json *b, struct str arg)
{
	struct str type = json_str(b, "type", STR_NONE);

	(void)r, (void)arg;
	return !str_eqz(type, "thinking") && !str_eqz(type, "redacted_thinking");
}

/* Is id among the tool_use / tool_result blocks of content? */
static bool
names_id(struct rows *r, struct str content, const char *type, const char *member, struct str id)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(content.n));
	bool found = false;

	for (const struct json *b = blocks_of(r, &tmp, content); b && !found; b = b->next)
		found = str_eqz(json_str(b, "type", STR_NONE), type) &&
		    str_eq(json_str(b, member, STR_NONE), id);
	arena_free(&tmp);
	return found;
}

/* The provider's own tool call is kept when its result stands in the same answer, of which a pause makes several rows. */
static bool
came_to_an_end(struct rows *r, const struct json *b, struct str arg)
{
	struct str id = json_str(b, "id", STR_NONE);
	bool found = !str_eqz(json_str(b, "type", STR_NONE), "server_tool_use");

	(void)arg;
	for (size_t i = r->run; i < r->run_end && !found; i++) {
		struct arena tmp = ARENA_INIT(JSON_TREE_MAX(r->e[i].content.n));

		for (const struct json *c = blocks_of(r, &tmp, r->e[i].content); c && !found; c = c->next)
			found = str_eq(json_str(c, "tool_use_id", STR_NONE), id);
		arena_free(&tmp);
	}
	return found;
}

/* A paused answer that nobody let go on (it was stopped, a limit was reached): what the provider had begun is left out.
 * The newest may go on yet, and one that waits for a tool of ours does. */
static struct str
without_begun(struct rows *r, size_t i)
{
	for (r->run = i; r->run > 0 && strcmp(r->e[r->run - 1].role, "assistant") == 0; r->run--)
		;
	for (r->run_end = i + 1; r->run_end < r->n && strcmp(r->e[r->run_end].role, "assistant") == 0; r->run_end++)
		;
	return r->run_end == r->n || r->e[r->run_end - 1].uses ? r->e[i].content :
	    filter(r, r->e[i].content, came_to_an_end, STR_NONE);
}

static bool
answers_a_use(struct rows *r, const struct json *b, struct str uses)
{
	return !str_eqz(json_str(b, "type", STR_NONE), "tool_result") ||
	    (uses.n && names_id(r, uses, "tool_use", "id", json_str(b, "tool_use_id", STR_NONE)));
}

static void
count_media(void *arg, const struct media_row *m)
{
	struct rows *r = arg;
	bool image = m->width > 0, text = str_eqz(m->type, "text/plain");
	/* a picture by its area; text by its length; of a PDF nobody can tell: a page of 50 KB is two thousand */
	int64_t tokens = image ? m->width * m->height / 750 + 1 : text ? llm_tokens_estimate((size_t)m->bytes) : m->bytes / 25 + 1500;

	if (m->gone)
		return;
	r->images += image;
	r->large += image && (m->width > IMAGE_PIXELS_MANY || m->height > IMAGE_PIXELS_MANY);
	r->documents += str_eqz(m->type, "application/pdf");
	r->file_bytes += m->bytes + m->bytes / 3 + 4;
	r->file_tokens += tokens;
	r->file_most += text ? m->bytes : tokens;
}

/* Counts the file behind a block; false when it is not there. */
static bool
media_there(struct rows *r, struct str hash)
{
	struct buf path = BUF_INIT(4096);
	bool found = false, gone;
	int64_t before = r->file_bytes;
	enum err e = store_media_get(r->a->db, hash, count_media, r, &found);

	gone = e == OK && r->file_bytes == before;
	if (e == OK && !gone)
		e = media_path(r->a, hash, &path);
	if (e == ERR_NOTFOUND) {        /* taken away behind our back, or a database that came alone */
		r->lost = true;
		e = store_media_gone(r->a->db, hash);
	}
	if (e != OK)
		r->err = e;
	buf_free(&path);
	return !gone;
}

static bool
takes(const struct model_info *m, const struct json *b)
{
	return str_eqz(json_str(b, "type", STR_NONE), "image") ? m->images_max > 0 :
	    (m->flags & MODEL_PDF) || !str_eqz(json_str(b, "source.media_type", STR_NONE), "application/pdf");
}

/* The same blocks, with a note for each file that is gone, or that another model was shown and this one cannot read:
 * what the newest message brings is refused instead. */
static struct str
look_up_media(struct rows *r, const struct model_info *m, struct str content, bool newest)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(content.n));
	struct buf out = BUF_INIT(REQUEST_MAX);
	const struct json *blocks;
	struct str s = STR_NONE;

	if (json_parse(&tmp, content, &blocks, NULL) != OK) {
		r->err = tmp.err != OK ? tmp.err : ERR_CORRUPT;
		arena_free(&tmp);
		return s;
	}
	for (const struct json *b = blocks->first; b; b = b->next) {
		bool readable = newest || takes(m, b);

		buf_putc(&out, out.n ? ',' : '[');
		if (!str_eqz(json_str(b, "source.type", STR_NONE), "media") ||
		    (readable && media_there(r, json_str(b, "source.hash", STR_NONE))))
			buf_str(&out, b->raw);
		else
			buf_fmt(&out, "{\"type\":\"text\",\"text\":\"(A %s was here; %s.)\"}", str_eqz(json_str(b, "type", STR_NONE),
			    "image") ? "picture" : "document", readable ? "it is no longer stored" : "this model cannot read it");
	}
	buf_putc(&out, ']');
	if (out.err != OK)
		r->err = out.err;
	else
		s = arena_str(r->ar, buf_view(&out));
	buf_free(&out);
	arena_free(&tmp);
	return s;
}

static bool
collect(void *arg, const struct message_row *m)
{
	struct rows *r = arg;
	struct entry *e;
	struct str content = m->content;

	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 64;
		struct entry *grown = arena_array(r->ar, cap, sizeof(*grown));

		if (grown == NULL)
			return false;
		if (r->n)
			memcpy(grown, r->e, r->n * sizeof(*grown));
		r->e = grown;
		r->cap = cap;
	}
	if (m->seq < r->thinking_seq && str_eqz(m->role, "assistant")) {
		content = filter(r, content, not_thinking, STR_NONE);
		if (content.n == 0)
			return r->err == OK;
	} else {
		content = arena_str(r->ar, content);
	}
	e = &r->e[r->n++];
	e->seq = m->seq;
	e->role = str_eqz(m->role, "assistant") ? "assistant" : str_eqz(m->role, "system") ? "system" : "user";
	e->content = content;
	e->uses = has_block(content, USE_START);
	e->server = has_block(content, SERVER_START);
	e->results = has_block(content, RESULT_START);
	e->media = e->role[0] == 'u' && has_block(content, MEDIA_SOURCE);
	return r->ar->err == OK;
}

/* A user message in front of (or merged into) e that answers what nobody answered. */
static struct str
missing_results(struct rows *r, struct str uses, struct str given)
{
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(uses.n));
	struct buf out = BUF_INIT(REQUEST_MAX);
	struct str s = STR_NONE, id;

	for (const struct json *b = blocks_of(r, &tmp, uses); b; b = b->next) {
		id = json_str(b, "id", STR_NONE);
		if (!str_eqz(json_str(b, "type", STR_NONE), "tool_use") ||
		    (given.n && names_id(r, given, "tool_result", "tool_use_id", id)))
			continue;
		buf_puts(&out, out.n ? "," RESULT_START ",\"tool_use_id\":" : INTERRUPTED);
		json_quote(&out, id);
		buf_puts(&out, ",\"content\":\"interrupted: no result was recorded\",\"is_error\":true}");
	}
	if (out.n) {
		/* results come first in their message, then what it already held */
		if (given.n > 2) {
			buf_putc(&out, ',');
			buf_str(&out, str_sub(given, 1, given.n));
		} else {
			buf_putc(&out, ']');
		}
		if (out.err != OK)
			r->err = out.err;
		else
			s = arena_str(r->ar, buf_view(&out));
	}
	buf_free(&out);
	arena_free(&tmp);
	return s;
}

static void
emit(struct llm_message *out, size_t *n, const char *role, struct str content)
{
	out[*n].role = role;
	out[*n].media = role[0] == 'u' && has_block(content, MEDIA_SOURCE);
	out[(*n)++].content = content;
}

/* The message before the i-th that somebody said; NULL: there is none. */
static const struct entry *
last_said(const struct rows *r, size_t i)
{
	while (i-- > 0)
		if (r->e[i].role[0] != 's')
			return &r->e[i];
	return NULL;
}

/* What stands beside a message may do so as a message of its own where the model takes that: behind the user's, and then
 * the model's turn. Elsewhere it is the last block of the user's message. */
static size_t
place_system(struct rows *r, const struct model_info *m, struct llm_message *out, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct llm_message *before = kept ? &out[kept - 1] : NULL;
		struct buf b = BUF_INIT(REQUEST_MAX);

		if (out[i].role[0] != 's' || ((m->flags & MODEL_SYSTEM_TURNS) && before && before->role[0] == 'u' &&
		    (i + 1 == n || out[i + 1].role[0] == 'a'))) {
			out[kept++] = out[i];
			continue;
		}
		if (before == NULL || before->role[0] != 'u')
			continue;       /* nothing is left of what it stood beside */
		buf_str(&b, str_sub(before->content, 0, before->content.n - 1));
		buf_puts(&b, ",{\"type\":\"text\",\"text\":");
		buf_str(&b, out[i].content);
		buf_puts(&b, "}]");
		if (b.err != OK)
			r->err = b.err;
		else
			before->content = arena_str(r->ar, buf_view(&b));
		buf_free(&b);
	}
	return kept;
}

/* Rows -> messages under the API's rules; out has room for 2 n entries. */
static size_t
repair(struct rows *r, struct llm_message *out)
{
	const struct entry *last = last_said(r, r->n);
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct entry *e = &r->e[i];
		const struct entry *before = n && i ? last_said(r, i) : NULL;
		bool user = e->role[0] == 'u';
		struct str open = before && before->uses && strcmp(out[n - 1].role, "assistant") == 0 ?
		    before->content : STR_NONE;
		struct str content = e->content, fixed;

		if (n == 0 && !user)
			continue;
		if (e->role[0] == 's') {
			if (out[n - 1].role[0] != 'a')
				emit(out, &n, e->role, e->content);
			continue;
		}
		if (e->server)
			content = without_begun(r, i);
		if (user && e->results)
			content = filter(r, content, answers_a_use, open);
		if (open.n) {
			fixed = missing_results(r, open, user ? content : STR_NONE);
			if (fixed.n && user)
				content = fixed;
			else if (fixed.n)
				emit(out, &n, "user", fixed);
		}
		if (content.n)
			emit(out, &n, e->role, content);
	}
	if (n && last && last->uses && strcmp(out[n - 1].role, "assistant") == 0) {
		struct str fixed = missing_results(r, last->content, STR_NONE);

		if (fixed.n)
			emit(out, &n, "user", fixed);
	}
	return n;
}

static enum err
refuse_media(const struct rows *r, const struct model_info *m, size_t bytes, struct fail *f)
{
	if (r->images > 0 && m->images_max == 0)
		return fail_set(f, ERR_LIMIT, "The model %s cannot look at pictures.", m->id);
	if (r->documents > 0 && !(m->flags & MODEL_PDF))
		return fail_set(f, ERR_LIMIT, "The model %s cannot read PDFs.", m->id);
	if (r->images > m->images_max)
		return fail_set(f, ERR_LIMIT, "This conversation would hold %lld pictures; %s takes %lld. Send /new to"
		    " start a fresh one.", (long long)r->images, m->id, (long long)m->images_max);
	if (r->images > IMAGES_MANY && r->large > 0)
		return fail_set(f, ERR_LIMIT, "With more than %d pictures in a conversation none may have more than %d"
		    " pixels on a side. Send /new to start a fresh one.", IMAGES_MANY, IMAGE_PIXELS_MANY);
	if (bytes > REQUEST_MAX)
		return fail_set(f, ERR_LIMIT, "This conversation would grow to %zu MB, with all its files; the model"
		    " provider takes %u. Send /new to start a fresh one.", bytes >> 20, REQUEST_MAX >> 20);
	return OK;
}

/* How many tokens it has. What the provider counted the last time is known; of the rest no text has more tokens than
 * bytes. */
static void
count_input(const struct session *s, const struct rows *r, const struct model_info *m, size_t bytes, struct context *out)
{
	int64_t known = 0, files = r->file_tokens, most = r->file_most;
	/* a program may bring other tools each time */
	int64_t own = (int64_t)(out->request.tools.n + out->request.schema.n) - (int64_t)bus_tools_json(s->a).n;

	if (own < 0)                            /* fewer than were counted: the count holds */
		own = 0;
	if (s->prompt_tokens && s->prompt_seq > s->history_seq && strcmp(s->prompt_model, m->id) == 0) {
		known = s->prompt_tokens;
		files = r->new_file_tokens;
		most = r->new_file_most;
		bytes = r->new_bytes;
	}
	out->documents = (known ? r->new_documents : r->documents) > 0;
	out->estimated_input = known + llm_tokens(s->a, m->id, bytes) + files;
	out->most_input = known + (int64_t)bytes + most + (known ? own : (int64_t)r->n * MESSAGE_TOKENS + PROMPT_TOKENS);
	if (strchr(m->id, '/'))                 /* every server has its own measure of a picture */
		out->most_input += (FILES_FACTOR - 1) * most;
	if ((m->flags & MODEL_WINDOW) && out->most_input > m->window)
		out->most_input = m->window;
}

/* Is a cache entry of an hour worth its price? It pays when the next message comes after five minutes and within the
 * hour: then the whole prompt is read instead of written anew. Before anything is known of a conversation, one pause in
 * PAUSES_PRIOR is taken to be such a one. */
static enum err
choose_ttl(const struct session *s, const struct rows *r, const struct model_info *m, struct context *out)
{
	int64_t n_short, n_long, all = out->estimated_input;
	/* what is written now: all of it where nothing is held any more */
	int64_t fresh = s->cached_until > clock_us() && s->prompt_seq > s->history_seq && strcmp(s->prompt_model, m->id) == 0 ?
	    llm_tokens(r->a, m->id, r->new_bytes) + r->new_file_tokens : all;
	enum err e = store_session_pauses(r->a->db, s->id, s->history_seq, 300 * US_PER_S, 3600 * US_PER_S, &n_short, &n_long);
	double likely = (1.0 / PAUSES_PRIOR + (double)n_long) / (1.0 + (double)(n_short + n_long));

	out->request.hour = e == OK && m->write_1h > m->write_5m && likely * (double)all * (double)(m->write_5m - m->read) >
	    (double)fresh * (double)(m->write_1h - m->write_5m);
	return e;
}

static int
by_name(const void *x, const void *y)
{
	const struct json *const *a = x, *const *b = y;

	return str_cmp(json_str(*a, "name", STR_NONE), json_str(*b, "name", STR_NONE));
}

/* The agent's tools and the program's, sorted by name: the same ones are the same bytes. */
static enum err
merge_tools(struct arena *tmp, const struct json *theirs, struct str ours, struct str *out, struct arena *ar)
{
	struct buf b = BUF_INIT(REQUEST_MAX);
	const struct json *own = NULL, **all;
	size_t n = 0;
	enum err e = ours.n ? json_parse(tmp, ours, &own, NULL) : OK;

	all = arena_array(tmp, theirs->count + (own ? own->count : 0), sizeof(*all));
	for (const struct json *t = theirs->first; t && all; t = t->next)
		all[n++] = t;
	for (const struct json *t = own ? own->first : NULL; t && all; t = t->next)
		all[n++] = t;
	if (all)
		qsort(all, n, sizeof(all[0]), by_name);
	for (size_t i = 0; i < n; i++) {
		buf_putc(&b, i ? ',' : '[');
		buf_str(&b, all[i]->raw);
	}
	buf_putc(&b, ']');
	*out = arena_str(ar, buf_view(&b));
	e = e != OK ? e : all ? b.err : ERR_NOMEM;
	buf_free(&b);
	return e;
}

/* What a program asked for beside its words. */
static enum err
take_options(const struct turn *t, struct context *out)
{
	struct llm_request *q = &out->request;
	struct arena tmp = ARENA_INIT(JSON_TREE_MAX(t->options.n) + JSON_TREE_MAX(q->tools.n) * 2);
	const struct json *o, *v;
	enum err e = json_parse(&tmp, buf_view(&t->options), &o, NULL);

	if (e == OK) {
		q->max_tokens = json_i64(o, "max_tokens", q->max_tokens);
		q->no_tools = json_bool(o, "no_tools", false);
		q->one_call = json_bool(o, "one_call", false);
		q->effort = arena_str(&out->arena, json_str(o, "effort", STR_NONE));
		v = json_at(o, "stop");
		q->stop = arena_str(&out->arena, v ? v->raw : STR_NONE);
		v = json_at(o, "schema");
		q->schema = arena_str(&out->arena, v ? v->raw : STR_NONE);
		v = json_at(o, "tools");
		if (v)
			e = merge_tools(&tmp, v, q->tools, &q->tools, &out->arena);
	}
	arena_free(&tmp);
	return e;
}

static enum err
render(struct session *s, struct rows *r, const struct model_info *m, struct context *out, struct fail *f)
{
	struct agent *a = s->a;
	struct buf system = BUF_INIT(1u << 20);
	struct llm_message *messages;
	size_t bytes;
	enum err e = store_session_prompt(a->db, s->id, &system);

	if (e == ERR_NOTFOUND)
		e = OK;
	if (e == OK)
		e = store_messages(a->db, s->id, s->history_seq, collect, r);
	if (e == OK && r->n > HISTORY_MESSAGES_MAX) {
		r->e += r->n - HISTORY_MESSAGES_MAX;
		r->n = HISTORY_MESSAGES_MAX;
	}
	for (size_t i = 0; i < r->n && e == OK && r->err == OK; i++) {
		int64_t files = r->file_tokens, most = r->file_most, documents = r->documents;

		if (r->e[i].media)
			r->e[i].content = look_up_media(r, m, r->e[i].content, &r->e[i] == last_said(r, r->n));
		if (r->e[i].seq >= s->prompt_seq) {
			r->new_bytes += r->e[i].content.n + MESSAGE_TOKENS;
			r->new_file_tokens += r->file_tokens - files;
			r->new_file_most += r->file_most - most;
			r->new_documents += r->documents - documents;
		}
	}
	messages = arena_array(&out->arena, 2 * r->n + 1, sizeof(*messages));
	if (e == OK && r->err == OK && messages)
		out->request.n_messages = place_system(r, m, messages, repair(r, messages));
	out->request.model = arena_z(&out->arena, str_z(m->id));
	out->request.max_tokens = llm_max_tokens(a, provider_of(a, str_z(m->id)));
	out->request.system = arena_str(&out->arena, buf_view(&system));
	out->request.messages = messages;
	out->request.tools = bus_tools_json(a);
	if (e == OK && s->turn && s->turn->options.n)
		e = take_options(s->turn, out);
	buf_free(&system);
	if (e == OK)
		e = r->err != OK ? r->err : out->arena.err;
	if (e == OK && out->request.n_messages == 0)
		e = ERR_NOTFOUND;
	if (e != OK)
		return e;
	bytes = out->request.system.n + out->request.tools.n + out->request.schema.n;
	for (size_t i = 0; i < out->request.n_messages; i++)
		bytes += messages[i].content.n;
	out->bytes = (int64_t)bytes;
	out->own_bytes = (int64_t)(out->request.system.n + bus_tools_json(a).n);
	for (size_t i = 0; i < r->n; i++)
		out->own_bytes += r->e[i].role[0] == 's' ? (int64_t)r->e[i].content.n : 0;
	out->file_tokens = r->file_tokens;
	count_input(s, r, m, bytes, out);
	e = choose_ttl(s, r, m, out);
	if (e != OK)
		return e;
	return refuse_media(r, m, bytes + (size_t)r->file_bytes, f);
}

FALLIBLE
context_render(struct agent *a, int64_t session, const struct model_info *model, bool drop_thinking, struct context *out,
    struct fail *f)
{
	struct session *s = session_get(a, session);
	enum err e = ERR_NOTFOUND;

	/* a second time when a file turned out to be lost: what was said after it goes without thinking */
	for (int pass = 0; s && pass < 2; pass++) {
		struct rows r = { .ar = &out->arena, .a = a, .thinking_seq = drop_thinking ? INT64_MAX : s->thinking_seq };

		arena_init(&out->arena, CONTEXT_ARENA);
		out->request = (struct llm_request){ .model = NULL };
		e = render(s, &r, model, out, f);
		if (e == OK && !r.lost)
			return OK;
		arena_free(&out->arena);
		if (!r.lost)
			break;
		s->thinking_seq = s->next_seq;
		agent_wrote(a, store_session_drop_thinking(a->db, s->id, s->next_seq));
	}
	return e;
}

size_t
context_bytes(struct agent *a, const char *budget)
{
	return (size_t)config_i64(a->config, budget) * 7 / 2;   /* llm_tokens_estimate */
}

void
context_check(struct agent *a, size_t prompt)
{
	size_t n = prompt + bus_tools_json(a).n;
	int64_t tokens = llm_tokens_estimate(n);

	if (n > context_bytes(a, "context.static_budget"))
		log_warn("context", "what begins every request (agent.system_prompt or its file, tools, standing instructions) has about"
		    " %lld tokens, more than context.static_budget = %lld: all of it is sent, and paid for, each time; next: shorten it,"
		    " or `blufio config set context.static_budget %lld`", (long long)tokens,
		    (long long)config_i64(a->config, "context.static_budget"), (long long)(tokens / 1000 + 1) * 1000);
}

void
context_free(struct context *c)
{
	arena_free(&c->arena);
}
