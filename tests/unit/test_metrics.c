/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_metrics.c - what is counted and when, and the page that says so. A whole
 * agent answers messages (with the provider echo, over a channel of its own);
 * commits fail on purpose. The page goes through a small strict parser for each
 * format, which is itself shown bad pages, and where there is one through the
 * parsers that its readers use (promtool, prometheus_client).
 */
#define request_agent t_request_agent
#define request_head t_request_head
#define request_answer_text t_request_answer_text
#define request_error t_request_error
#define prometheus_feature t_prometheus_feature
#include "observability/prometheus.c"

#include "core/core.h"
#include "scratch.h"
#include "test.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERIES_MAX 1024

/* ---- the strict reader ------------------------------------------------------------- */

static struct str seen[SERIES_MAX];     /* names of families; series with their labels */
static size_t n_seen;
struct reader {
	bool open;
	struct str name, type;          /* of the family being read */
	double le;                      /* of the histogram being read */
	int64_t bucket, count;
	bool unit, help, inf, has_sum, has_count;
	size_t samples;
};

static bool
is_name(struct str s, bool label)
{
	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || s.p[i] == '_' || (i && s.p[i] >= '0' && s.p[i] <= '9')))
			return false;
	return s.n > 0 && !(label && str_starts(s, S("__")));
}

/* Takes {a="b",…} from the front; the value of le, if there is one, in *le. */
static const char *
read_labels(struct str *s, struct str *le)
{
	*le = STR_NONE;
	if (s->n == 0 || s->p[0] != '{')
		return NULL;
	do {
		struct str name;
		size_t i;

		*s = str_sub(*s, 1, s->n);
		if (!str_cut(s, '=', &name) || !is_name(name, true))
			return "a label's name";
		if (s->n == 0 || s->p[0] != '"')
			return "a label's value has no quotes";
		for (i = 1; i < s->n && s->p[i] != '"'; i++)
			if (s->p[i] == '\\' && (++i == s->n || strchr("n\"\\", s->p[i]) == NULL))
				return "an escape";
		if (str_eqz(name, "le"))
			*le = str_sub(*s, 1, i - 1);
		*s = str_sub(*s, i + 1, s->n);
	} while (s->n && s->p[0] == ',');
	if (s->n == 0 || s->p[0] != '}')
		return "labels have no end";
	*s = str_sub(*s, 1, s->n);
	return NULL;
}

static bool
is_number(struct str s, double *v)
{
	char z[64], *end;

	if (str_eqz(s, "NaN") || str_eqz(s, "+Inf") || s.n == 0 || s.n >= sizeof(z)) {
		*v = 1e300;
		return s.n > 0 && s.n < sizeof(z);
	}
	for (size_t i = 0; i < s.n; i++)
		if (strchr("0123456789.", s.p[i]) == NULL)
			return false;
	snprintf(z, sizeof(z), "%.*s", STR_ARG(s));
	*v = strtod(z, &end);
	return *end == '\0';
}

static const char *
family_over(struct reader *r)
{
	if (r->name.n == 0)
		return NULL;
	if (!r->help || r->type.n == 0 || r->samples == 0)
		return "a family without help, type or samples";
	if (str_eqz(r->type, "histogram") && !(r->inf && r->has_sum && r->has_count && r->bucket == r->count))
		return "a histogram that is not whole";
	return NULL;
}

static const char *
once(struct str id)
{
	for (size_t i = 0; i < n_seen; i++)
		if (str_eq(seen[i], id))
			return "a family or a series twice";
	if (n_seen == SERIES_MAX)
		return "too many series";
	seen[n_seen++] = id;
	return NULL;
}

/* "# TYPE name rest" and its like. */
static const char *
read_head(struct reader *r, struct str s)
{
	struct str what, name;
	const char *why;

	(void)str_cut(&s, ' ', &what);
	if (!str_cut(&s, ' ', &name) || !is_name(name, false) || s.n == 0)
		return "a comment that is no head";
	if (str_eqz(what, r->open ? "TYPE" : "HELP")) {
		why = family_over(r);
		if (why == NULL)        /* behind the name: "# TYPE a" and a sample "a" are no repeat */
			why = once(str_make(name.p, name.n + 1));
		if (why)
			return why;
		*r = (struct reader){ .open = r->open, .name = name, .le = -1 };
	}
	if (!str_eq(name, r->name) || r->samples)
		return "a head out of place";
	if (str_eqz(what, "TYPE") && r->type.n == 0 && !r->unit)
		r->type = s;
	else if (str_eqz(what, "HELP") && !r->help)
		r->help = true;
	else if (str_eqz(what, "UNIT") && r->open && !r->unit && !r->help && str_ends(name, s))
		r->unit = true;
	else
		return "a head that is unknown, twice or late";
	return NULL;
}

static const char *
read_bucket(struct reader *r, struct str le, struct str value)
{
	double bound;
	int64_t n;

	if (!is_number(le, &bound) || str_chr(le, '.') == SIZE_MAX)
		if (!str_eqz(le, "+Inf"))
			return "le is no canonical number";
	if (str_i64(value, 0, INT64_MAX, &n) != OK)
		return "a bucket that is no whole number";
	if (r->inf || bound <= r->le || n < r->bucket)
		return "buckets out of order";
	r->le = bound;
	r->bucket = n;
	r->inf = str_eqz(le, "+Inf");
	return NULL;
}

static const char *
read_sample(struct reader *r, struct str s)
{
	struct str whole = s, rest, suffix, le, id;
	size_t end = 0;
	double v;
	const char *why;

	while (end < s.n && s.p[end] != '{' && s.p[end] != ' ')
		end++;
	rest = str_sub(s, end, s.n);
	s = str_sub(s, 0, end);
	if (!is_name(s, false) || !str_starts(s, r->name))
		return "a sample out of its family";
	suffix = str_sub(s, r->name.n, s.n);
	why = read_labels(&rest, &le);
	if (why)
		return why;
	id = str_sub(whole, 0, whole.n - rest.n);
	if (rest.n < 2 || rest.p[0] != ' ')
		return "no single blank before the value";
	rest = str_sub(rest, 1, rest.n);
	if (!is_number(rest, &v))
		return "a value";
	why = once(id);
	if (why)
		return why;
	r->samples++;
	if (str_eqz(r->type, "histogram")) {
		if (str_eqz(suffix, "_bucket"))
			return le.n ? read_bucket(r, le, rest) : "a bucket without le";
		if (str_eqz(suffix, "_sum") && r->inf && !r->has_sum)
			r->has_sum = true;
		else if (str_eqz(suffix, "_count") && r->has_sum && !r->has_count)
			r->has_count = str_i64(rest, 0, INT64_MAX, &r->count) == OK;
		else
			return "a histogram's samples";
		return NULL;
	}
	if (le.n)
		return "le outside of a histogram";
	if (str_eqz(r->type, "counter")) {
		if (r->open ? !str_eqz(suffix, "_total") : suffix.n || !str_ends(r->name, S("_total")))
			return "a counter's name";
		return v >= 0 && v < 1e299 ? NULL : "a counter's value";
	}
	if (r->open && str_eqz(r->type, "info"))
		return str_eqz(suffix, "_info") && str_eqz(rest, "1") ? NULL : "an info's sample";
	if (!str_eqz(r->type, "gauge") || suffix.n || str_ends(r->name, S("_total")))
		return "a gauge's name, or an unknown type";
	return NULL;
}

/* NULL, or what is wrong; *line then is where. */
static const char *
read_page(struct str page, bool open, struct str *line)
{
	struct reader r = { .open = open };
	bool eof = false;
	const char *why;

	n_seen = 0;
	if (!utf8_valid(page) || !str_ends(page, S("\n")))
		return "no UTF-8, or the last line has no end";
	while (page.n) {
		(void)str_cut(&page, '\n', line);
		if (eof)
			return "something behind the end";
		eof = open && str_eqz(*line, "# EOF");
		if (eof)
			continue;
		if (str_starts(*line, S("# ")))
			why = read_head(&r, str_sub(*line, 2, line->n));
		else
			why = r.name.n ? read_sample(&r, *line) : "a sample before its head";
		if (why)
			return why;
	}
	if (open && !eof)
		return "no end";
	return family_over(&r);
}

#define HEAD "# TYPE h histogram\n# HELP h x\n"
#define END "# EOF\n"

/* The reader itself: what it lets pass and what it does not. */
TEST(reader)
{
	static const struct { bool open, good; const char *page; } t[] = {
		{ false, true, "# HELP a_total x\n# TYPE a_total counter\na_total 1\n" },
		{ true, true, "# TYPE a counter\n# HELP a x\na_total{b=\"\\\"\\\\\\n,}\",c=\"\"} 1.5\n" END },
		{ false, false, "# HELP a_total x\n# TYPE a_total counter\na_total 1" },
		{ true, false, "# TYPE a counter\n# HELP a x\na_total 1\n" },
		{ true, false, "# TYPE a counter\n# HELP a x\na 1\n" END },
		{ false, false, "# HELP a x\n# TYPE a counter\na 1\n" },
		{ false, false, "# HELP a_total x\n# TYPE a_total counter\na_total 1\na_total 2\n" },
		{ false, false, "# HELP a_total x\n# TYPE a_total counter\na_total -1\n" },
		{ false, false, "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"\\x\"} 1\n" },
		{ false, false, "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"\n\"} 1\n" },
		{ false, false, "# HELP a x\n# TYPE a gauge\n" },
		{ false, false, "# HELP a x\n# TYPE a gauge\na 1\n# HELP b x\n# TYPE b gauge\nb 1\n"
		    "# HELP a x\n# TYPE a gauge\na{c=\"d\"} 1\n" },
		{ true, false, "# TYPE a gauge\n# UNIT a seconds\n# HELP a x\na 1\n" END },
		{ true, true, HEAD "h_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.0\nh_count 2\n" END },
		{ true, false, HEAD "h_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.0\nh_count 3\n" END },
		{ true, false, HEAD "h_bucket{le=\"1.0\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.0\nh_count 2\n" END },
		{ true, false, HEAD "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.0\nh_count 2\n" END },
		{ true, false, HEAD "h_bucket{le=\"2.0\"} 1\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.0\nh_count 2\n" END },
		{ true, false, HEAD "h_bucket{le=\"1.0\"} 1\nh_sum 3.0\nh_count 1\n" END },
		{ true, false, "# TYPE a gauge\n# HELP a x\na 1\n# EOF\na 2\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct str line;

		if ((read_page(str_z(t[i].page), t[i].open, &line) == NULL) != t[i].good)
			test_bad_at_(__FILE__, __LINE__, t[i].page);
	}
}

/* ---- the world ------------------------------------------------------------------------ */

struct request { struct http_request head; };
static struct scratch sc;
static struct agent *a;
static struct buf page = BUF_INIT(1u << 20);
static char page_type[80];
static int page_status;
static int64_t refuse;                  /* items to be refused once each before they are taken */
static bool never;

struct agent *
request_agent(const struct request *r)
{
	(void)r;
	return a;
}

const struct http_request *
request_head(const struct request *r)
{
	return &r->head;
}

void
request_answer_text(struct request *r, int status, const char *content_type, struct str body)
{
	(void)r;
	page_status = status;
	snprintf(page_type, sizeof(page_type), "%s", content_type);
	buf_str(&page, body);
}

void
request_error(struct request *r, int status, const char *type, const char *param, const char *hint,
    const char *fmt, ...)
{
	(void)r;
	(void)type;
	(void)param;
	(void)hint;
	(void)fmt;
	page_status = status;
}

static void
peer_nothing(void *self)
{
	(void)self;
}

static void
peer_send(void *self, const struct outbox_item *item)
{
	(void)self;
	if (never)
		outbox_fail(a, item->id, S("nobody lives there"));
	else if (refuse-- > 0)
		outbox_retry(a, item->id, 0, DOUBT_NONE, STR_NONE, S("not now"));
	else
		outbox_done(a, item->id, S("1"));
}

static const struct channel_ops peer_ops = { .load = peer_nothing, .reset = peer_nothing, .free = peer_nothing,
    .stop_intake = peer_nothing, .send = peer_send };
static const struct feature peer = { .name = "peer", .kind = FEATURE_CHANNEL, .channel = &peer_ops };

static void
finish(void)
{
	agent_free(a);
	a = NULL;
	scratch_dir_end(&sc);
	buf_free(&page);
}

static bool
begin(const char *toml)
{
	static const char *const env[] = { NULL };
	struct config *config = NULL;
	struct fail f = FAIL_INIT;
	char text[768];

	memset(&sc, 0, sizeof(sc));
	refuse = 0;
	never = false;
	snprintf(text, sizeof(text), "[providers]\ndefault = \"echo\"\n"
	    "[pricing.\"odd\\\\\\\"\\nmodel\"]\ninput = 1\noutput = 1\n"
	    "[pricing.echo]\ninput = 2\noutput = 0.001\n%s", toml);
	if (scratch_dir(&sc, text) == OK && config_load(&config, sc.toml, env, &f) == OK &&
	    agent_new(&a, config, NULL, false, &f) == OK) {
		a->channels[a->n_channels++] = (struct channel){ &peer, NULL };
		return true;
	}
	if (!FAULTED())
		test_bad_at_(__FILE__, __LINE__, f.text);
	config_free(config);
	scratch_dir_end(&sc);
	return false;
}

static void
loops(int n)
{
	while (n-- > 0) {
		if (a->phase == AGENT_STORAGE_FAILED)
			ev_timer_in(a->ev, &a->retry_timer, 0);
		CHECK(ev_once(a->ev, 0) == OK || FAULTED());
	}
}

static bool
message(const char *dedup, const char *text)
{
	const struct inbound in = { .to = { S("peer"), S("1"), STR_NONE, STR_NONE }, .sender = S("1"),
	    .sender_name = S("Nobody"), .dedup = str_z(dedup), .text = str_z(text) };
	bool fresh = false;

	CHECK(inbound_put(a, &in, &fresh) == OK || FAULTED());
	return fresh;
}

/* GET /metrics with these fields; a page that is wrong fails the test. */
static void
scrape(const char *fields)
{
	static struct http h;           /* the head's views point into it */
	struct request r;
	struct buf b = BUF_INIT(4096);
	struct str in, body, line = STR_NONE;
	const char *why;

	buf_fmt(&b, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n%s\r\n", fields);
	in = buf_view(&b);
	http_init(&h, 0);
	buf_reset(&page);
	page_status = 0;
	page_type[0] = '\0';
	if (http_next(&h, &in, &body) == HTTP_HEAD) {
		r.head = h.req;
		routes[0].run(&r);
	} else {
		CHECK(FAULTED());
	}
	http_free(&h);
	buf_free(&b);
	if (page_status == 200 && page.err == OK) {
		why = read_page(buf_view(&page), str_starts(str_z(page_type), S("application/openmetrics-text")), &line);
		if (why) {
			test_bad_at_(__FILE__, __LINE__, why);
			printf("  %.*s\n", STR_ARG(line));
		}
	}
}

/* The page's value of a series, as it stands there. */
static struct str
value(const char *series)
{
	char line[256];
	struct str rest = STR_NONE, v = STR_NONE;
	size_t at;

	snprintf(line, sizeof(line), "\n%s ", series);
	at = str_find(buf_view(&page), str_z(line));
	if (at != SIZE_MAX) {
		rest = str_sub(buf_view(&page), at + strlen(line), page.n);
		(void)str_cut(&rest, '\n', &v);
	}
	return v;
}
#define VALUE(series, want) do { if (!FAULTED()) CHECK_STR(value(series), want); } while (0)

/* ---- tests ------------------------------------------------------------------------------ */

#define OPEN_ACCEPT "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5," \
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3," \
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1\r\n"

TEST(formats)
{
	static const struct { const char *fields; bool open; } t[] = {
		{ "", false },
		{ "Accept: */*\r\n", false },
		{ "Accept: text/html\r\n", false },
		{ "Accept: text/plain;version=0.0.4\r\n", false },
		{ OPEN_ACCEPT, true },
		{ "Accept: application/openmetrics-text\r\n", true },
		{ "Accept: text/plain\r\nAccept: application/openmetrics-text; version=\"1.0.0\"\r\n", true },
		{ "Accept: application/openmetrics-text;version=1.0.0;q=0.1, text/plain\r\n", false },
		{ "Accept: application/openmetrics-text;version=1.0.0;q=0, */*;q=0.1\r\n", false },
		{ "Accept: application/openmetrics-text;version=0.0.1, text/plain;q=0.5\r\n", false },
		{ "Accept: application/*\r\n", false },
	};

	if (!begin(""))
		return;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		scrape(t[i].fields);
		CHECK(page_status == 200 || FAULTED());
		if (page_status == 200 && strcmp(page_type, t[i].open ? "application/openmetrics-text; version=1.0.0; charset=utf-8" :
		    "text/plain; version=0.0.4; charset=utf-8") != 0)
			test_bad_at_(__FILE__, __LINE__, t[i].fields);
	}
	finish();
}

/* Every series is there before anything happened. */
TEST(zeroes)
{
	static const char *const zero[] = { "blufio_messages_total{channel=\"shell\"}",
	    "blufio_messages_total{channel=\"peer\"}",
	    "blufio_turns_total{outcome=\"answered\"}", "blufio_turns_total{outcome=\"set_aside\"}",
	    "blufio_tokens_total{model=\"echo\",kind=\"cache_write\"}", "blufio_tokens_total{model=\"other\",kind=\"input\"}",
	    "blufio_tokens_total{model=\"odd\\\\\\\"\\nmodel\",kind=\"input\"}",
	    "blufio_model_calls_total{class=\"cancelled\"}",
	    "blufio_errors_total{class=\"storage\"}", "blufio_errors_total{class=\"delivery\"}",
	    "blufio_queue{queue=\"inbound\"}", "blufio_queue{queue=\"outbox\"}", "blufio_queue{queue=\"admission\"}",
	    "blufio_response_latency_seconds_count", "blufio_first_token_seconds_bucket{le=\"+Inf\"}",
	    "blufio_tool_seconds_count", "blufio_active_sessions", "blufio_deliveries_total{result=\"retried\"}" };
	double rss = 0, fds = 0, max = 0;

	if (!begin(""))
		return;
	scrape(OPEN_ACCEPT);
	for (size_t i = 0; i < ARRAY_LEN(zero); i++)
		if (!str_eqz(value(zero[i]), "0") && !FAULTED())
			test_bad_at_(__FILE__, __LINE__, zero[i]);
	VALUE("blufio_cost_dollars_total{model=\"echo\"}", "0.0");
	VALUE("blufio_cache_read_ratio", "0.0");
	VALUE("blufio_build_info{version=\"" BLUFIO_VERSION "\"}", "1");
	VALUE("blufio_turns_total{outcome=\"none\"}", "");
	CHECK(FAULTED() || (is_number(value("process_resident_memory_bytes"), &rss) && rss > 100000 &&
	    is_number(value("process_open_fds"), &fds) && fds > 3 && is_number(value("process_max_fds"), &max) && max >= fds));
	finish();
}

/* The page says what the rows say, to the last digit. */
static void
ledger_agrees(void)
{
	int64_t tokens, nano;
	char want[64];

	if (db_get_i64(a->db, "SELECT sum(input) FROM cost_ledger", NULL, 0, 0, &tokens) != OK ||
	    db_get_i64(a->db, "SELECT sum(nano_usd) FROM cost_ledger", NULL, 0, 0, &nano) != OK || FAULTED()) {
		CHECK(FAULTED());
		return;
	}
	CHECK(tokens > 0 && nano > 0 && nano < 1000000000);
	snprintf(want, sizeof(want), "%lld", (long long)tokens);
	VALUE("blufio_tokens_total{model=\"echo\",kind=\"input\"}", want);
	snprintf(want, sizeof(want), "0.%09lld", (long long)nano);
	while (want[strlen(want) - 1] == '0')
		want[strlen(want) - 1] = '\0';
	VALUE("blufio_cost_dollars_total{model=\"echo\"}", want);
}

TEST(one_message)
{
	if (!begin(""))
		return;
	refuse = 1;
	CHECK(message("1", "Hello.") || FAULTED());
	loops(1);
	CHECK(!message("1", "Hello.") || FAULTED());
	loops(30);
	scrape("");
	VALUE("blufio_messages_total{channel=\"peer\"}", "1");
	VALUE("blufio_messages_total{channel=\"shell\"}", "0");
	VALUE("blufio_turns_total{outcome=\"answered\"}", "1");
	VALUE("blufio_turns_total{outcome=\"failed\"}", "0");
	VALUE("blufio_model_calls_total{class=\"ok\"}", "1");
	VALUE("blufio_first_token_seconds_count", "1");
	VALUE("blufio_model_call_seconds_count", "1");
	VALUE("blufio_response_latency_seconds_count", "1");
	VALUE("blufio_deliveries_total{result=\"sent\"}", "1");
	VALUE("blufio_deliveries_total{result=\"retried\"}", "1");
	VALUE("blufio_queue{queue=\"outbox\"}", "0");
	CHECK(FAULTED() || !str_eqz(value("blufio_commit_seconds_count"), "0"));
	ledger_agrees();
	never = true;
	CHECK(message("2", "Hello.") || FAULTED());
	loops(30);
	scrape(OPEN_ACCEPT);
	VALUE("blufio_turns_total{outcome=\"answered\"}", "2");
	VALUE("blufio_deliveries_total{result=\"failed\"}", "1");
	VALUE("blufio_errors_total{class=\"delivery\"}", "1");
	VALUE("blufio_response_latency_seconds_count", "1");
	finish();
}

static const struct db_ops *real;
static unsigned n_commits;

/* The commits of a message's way, each failing once (x): it is stored, the model is asked, it has answered, the reply
 * is delivered. What follows a failure is the loading and the same again; a lost answer is asked for anew. */
static const char plan[] = "x.." "x.." "x..." "x..";

static enum err
commit_by_plan(void *engine, bool light)
{
	char c = n_commits < sizeof(plan) - 1 ? plan[n_commits++] : '.';

	return c == 'x' ? ERR_IO : real->commit(engine, light);
}

/* A message whose commit fails comes again and counts once; so does all that follows from it. */
TEST(rolled_back)
{
	struct db_ops flaky;

	if (!begin(""))
		return;
	CHECK(message("1", "Hello.") || FAULTED());
	scrape("");
	VALUE("blufio_messages_total{channel=\"peer\"}", "0");  /* not before its commit */
	agent_wrote(a, ERR_IO);
	loops(1);
	scrape("");
	VALUE("blufio_messages_total{channel=\"peer\"}", "0");
	VALUE("blufio_errors_total{class=\"storage\"}", "1");
	loops(3);
	flaky = *(real = a->db->ops);
	flaky.commit = commit_by_plan;
	n_commits = 0;
	a->db->ops = &flaky;
	CHECK(message("1", "Hello.") || FAULTED());
	loops(3);                               /* undone, so it comes again */
	CHECK(message("1", "Hello.") || FAULTED());
	loops(100);                             /* and each loop turn of its way is undone once */
	CHECK(FAULTED() || n_commits == sizeof(plan) - 1);
	a->db->ops = real;
	scrape("");
	VALUE("blufio_messages_total{channel=\"peer\"}", "1");
	VALUE("blufio_turns_total{outcome=\"answered\"}", "1");
	VALUE("blufio_response_latency_seconds_count", "1");
	VALUE("blufio_deliveries_total{result=\"sent\"}", "1");
	VALUE("blufio_model_calls_total{class=\"ok\"}", "2");  /* that was done twice, whatever the rows say */
	ledger_agrees();
	CHECK(FAULTED() || metrics_value(a, METRIC_ERRORS, METRIC_ERR_STORAGE) == 1 + 4);
	finish();
}

/* Sums beyond a double's digits, each bound's own bucket, models without a series, the cache's share. */
TEST(figures)
{
	const struct usage u = { .input = 30, .output = 7, .cache_read = 60, .write_5m = 8, .write_1h = 2 };

	if (!begin(""))
		return;
	metrics_owe_usage(a, "echo", &u, 9007199254740993000);
	metrics_owe_usage(a, "not-configured", &u, 1);
	metrics_committed(a);
	metrics_time(a, METRIC_TOOL, -5);
	metrics_time(a, METRIC_TOOL, 1000);
	metrics_time(a, METRIC_TOOL, 1001);
	metrics_time(a, METRIC_TOOL, 300000001);
	metrics_owe(a, METRIC_TURNS, OUTCOME_SET_ASIDE);
	metrics_undone(a);
	metrics_models(a);                      /* again: what has a series keeps it */
	scrape(OPEN_ACCEPT);
	VALUE("blufio_cost_dollars_total{model=\"echo\"}", "9007199254.740993");
	VALUE("blufio_cost_dollars_total{model=\"other\"}", "0.000000001");
	VALUE("blufio_tokens_total{model=\"other\",kind=\"cache_read\"}", "60");
	VALUE("blufio_tokens_total{model=\"echo\",kind=\"cache_write\"}", "10");
	VALUE("blufio_tokens_total{model=\"echo\",kind=\"output\"}", "7");
	VALUE("blufio_cache_read_ratio", "0.6");
	VALUE("blufio_tool_seconds_bucket{le=\"0.001\"}", "2");
	VALUE("blufio_tool_seconds_bucket{le=\"0.005\"}", "3");
	VALUE("blufio_tool_seconds_bucket{le=\"300.0\"}", "3");
	VALUE("blufio_tool_seconds_bucket{le=\"+Inf\"}", "4");
	VALUE("blufio_tool_seconds_sum", "300.002002");
	VALUE("blufio_turns_total{outcome=\"set_aside\"}", "0");
	finish();
}

static void
on_tool(void *arg, struct invocation *inv, enum err err, struct str output)
{
	(void)inv;
	(void)output;
	*(enum err *)arg = err;
}

/* A tool that ran has taken time; one whose input is refused has only failed. */
TEST(tools)
{
	struct invocation *inv;
	enum err ends[2] = { ERR_BUSY, ERR_BUSY };

	if (!begin(""))
		return;
	CHECK(bus_invoke(a, S("text.count"), S("{\"text\":\"a\"}"), 1, 1, on_tool, &ends[0], &inv) == OK || FAULTED());
	CHECK(bus_invoke(a, S("text.count"), S("{}"), 1, 1, on_tool, &ends[1], &inv) == OK || FAULTED());
	loops(10);
	CHECK((ends[0] == OK && ends[1] == ERR_PARSE) || FAULTED());
	scrape("");
	VALUE("blufio_tool_seconds_count", "1");
	VALUE("blufio_errors_total{class=\"tool\"}", "1");
	finish();
}

/* A call that is given up has an end too, and no time. */
TEST(cancelled)
{
	const struct target to = { S("peer"), S("1"), STR_NONE, STR_NONE };

	if (!begin(""))
		return;
	CHECK(message("1", "Hello.") || FAULTED());
	for (int i = 0; i < 30 && !FAULTED(); i++) {    /* until the model is asked */
		struct session *s = NULL;
		size_t it = 0;

		if (sessions_next(a, &it, &s) && s->turn && s->turn->call)
			break;
		loops(1);
	}
	session_stop(a, &to);
	loops(30);
	scrape("");
	VALUE("blufio_model_calls_total{class=\"cancelled\"}", "1");
	VALUE("blufio_model_calls_total{class=\"ok\"}", "0");
	VALUE("blufio_model_call_seconds_count", "0");
	VALUE("blufio_turns_total{outcome=\"stopped\"}", "1");
	VALUE("blufio_turns_total{outcome=\"answered\"}", "0");
	finish();
}

TEST(switched_off)
{
	if (!begin("[prometheus]\nenabled = false\n"))
		return;
	scrape("");
	CHECK(page_status == 404 || FAULTED());
	finish();
}

/* ---- other readers ------------------------------------------------------------------------ */

/* Runs a program with the page as its input; its exit status, -1 when it could not be run. */
static int
fed_to(const char *program, const char *arg, const char *arg2)
{
	char path[128];
	FILE *file;
	pid_t pid;
	int fd, status = -1;

	snprintf(path, sizeof(path), "%s/page", sc.dir);
	file = fopen(path, "w");
	if (file == NULL)
		return -1;
	fwrite(buf_z(&page), 1, page.n, file);
	fclose(file);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		fd = open(path, O_RDONLY);
		if (fd < 0 || dup2(fd, 0) < 0 || dup2(open("/dev/null", O_WRONLY), 1) < 0)      /* complaints stay */
			_exit(127);
		execlp(program, program, arg, arg2, (char *)NULL);
		_exit(127);
	}
	if (pid > 0 && waitpid(pid, &status, 0) == pid)
		status = WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
	(void)remove(path);
	return status;
}

static void
busy_page(const char *accept)
{
	CHECK(message("1", "Hello.") || FAULTED());
	loops(30);
	scrape(accept);
}

TEST(promtool)
{
	if (!begin(""))
		return;
	busy_page("");
	if (fed_to("promtool", "help", NULL) != 0)
		SKIP("there is no promtool (package prometheus)");
	else
		CHECK(fed_to("promtool", "check", "metrics") == 0 || FAULTED());
	finish();
}

static void
client_reads(const char *accept, const char *program)
{
	if (!begin(""))
		return;
	busy_page(accept);
	if (fed_to("/usr/bin/python3", "-c", "import prometheus_client") != 0)
		SKIP("there is no prometheus_client (package python3-prometheus-client)");
	else
		CHECK(fed_to("/usr/bin/python3", "-c", program) == 0 || FAULTED());
	finish();
}

TEST(client_text)
{
	client_reads("", "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as p\n"
	    "v = {(s.name, tuple(s.labels.values())): s.value for f in p(sys.stdin.read()) for s in f.samples}\n"
	    "assert v['blufio_messages_total', ('peer',)] == 1\n"
	    "assert v['blufio_tokens_total', ('odd\\\\\"\\nmodel', 'input')] == 0\n");
}

TEST(client_openmetrics)
{
	client_reads(OPEN_ACCEPT, "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as p\n"
	    "fs = list(p(sys.stdin.read()))\n"
	    "v = {(s.name, tuple(s.labels.values())): s.value for f in fs for s in f.samples}\n"
	    "assert v['blufio_messages_total', ('peer',)] == 1\n"
	    "assert v['blufio_tokens_total', ('odd\\\\\"\\nmodel', 'input')] == 0\n"
	    "assert {f.name: f.unit for f in fs}['blufio_response_latency_seconds'] == 'seconds'\n");
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	IGNORE(log_open(LOG_ERROR, LOG_TEXT, "/dev/null", NULL));        /* a fault may have met it */
	RUN(reader);
	RUN(formats);
	RUN(zeroes);
	RUN(one_message);
	RUN(rolled_back);
	RUN(figures);
	RUN(tools);
	RUN(cancelled);
	RUN(switched_off);
	RUN(promtool);
	RUN(client_text);
	RUN(client_openmetrics);
	log_close();
	return TEST_END();
}
