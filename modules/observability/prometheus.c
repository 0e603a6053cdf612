/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * prometheus.c - GET /metrics: the registry of core/metrics.c as a page.
 *
 * Two formats of one content: Prometheus text 0.0.4 for whoever asks, OpenMetrics
 * 1.0 for whoever names it. They differ in the order of a family's head, in its
 * name there (OpenMetrics leaves the suffix away), in units, which only OpenMetrics
 * knows, and in "# EOF". Samples are the same bytes. The page is made in one
 * buffer, so that it is whole or not there: a reader of 0.0.4 cannot tell a cut one.
 *
 * A number is written from whole parts, digit by digit, never through a double: a
 * sum of dollars is exact to the ninth decimal.
 */
#include "blufio.h"

#define PAGE_MAX (256u << 10)           /* 32 models make about 20 KB */

static const char openmetrics[] = "application/openmetrics-text";

/* ---- samples --------------------------------------------------------------------- */

/* value / 10^decimals, at least one decimal: "1.0", "0.00025". */
static void
put_number(struct buf *b, int64_t value, unsigned decimals)
{
	char digits[24];
	size_t n, whole;

	if (value == METRIC_UNKNOWN) {
		buf_puts(b, "NaN");
		return;
	}
	n = (size_t)snprintf(digits, sizeof(digits), "%0*lld", (int)decimals + 1, (long long)value);
	whole = n - decimals;
	buf_put(b, digits, whole);
	if (decimals == 0)
		return;
	while (n > whole + 1 && digits[n - 1] == '0')
		n--;
	buf_putc(b, '.');
	buf_put(b, digits + whole, n - whole);
}

static void
put_label(struct buf *b, char before, const char *name, struct str value)
{
	buf_fmt(b, "%c%s=\"", before, name);
	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] == '\n') {
			buf_puts(b, "\\n");
			continue;
		}
		if (value.p[i] == '"' || value.p[i] == '\\')
			buf_putc(b, '\\');
		buf_putc(b, value.p[i]);
	}
	buf_putc(b, '"');
}

static void
put_series(struct buf *b, const struct agent *a, enum metric m, const char *suffix)
{
	const struct metric_family *f = metrics_family(m);

	for (size_t s = 0; s < metrics_series(a, m); s++) {
		char before = '{';

		buf_fmt(b, "%s%s", f->name, suffix);
		for (size_t l = 0; l < ARRAY_LEN(f->labels) && f->labels[l] != LABEL_NONE; l++, before = ',')
			put_label(b, before, metrics_label_name(f->labels[l]), metrics_label(a, m, f->labels[l], s));
		buf_puts(b, before == ',' ? "} " : " ");
		put_number(b, metrics_value(a, m, s), f->decimals);
		buf_putc(b, '\n');
	}
}

/* Buckets hold all that is not above their bound, so each holds those before it. */
static void
put_histogram(struct buf *b, const struct agent *a, enum metric m)
{
	const struct metric_family *f = metrics_family(m);
	int64_t count = 0;

	for (size_t i = 0; i <= METRIC_BOUNDS; i++) {
		count += metrics_bucket(a, m, i);
		buf_fmt(b, "%s_bucket{le=\"", f->name);
		if (i < METRIC_BOUNDS)
			put_number(b, f->bounds[i], 6);
		else
			buf_puts(b, "+Inf");
		buf_fmt(b, "\"} %lld\n", (long long)count);
	}
	buf_fmt(b, "%s_sum ", f->name);
	put_number(b, metrics_sum(a, m), f->decimals);
	buf_fmt(b, "\n%s_count %lld\n", f->name, (long long)count);
}

/* ---- the page ------------------------------------------------------------------------ */

static void
put_family(struct buf *b, const struct agent *a, enum metric m, bool open)
{
	static const char *const suffixes[] = { "_total", "", "", "_info" };
	static const char *const types[] = { "counter", "gauge", "histogram", "info" };
	const struct metric_family *f = metrics_family(m);
	const char *suffix = suffixes[f->type], *in_head = open ? "" : suffix;

	if (!open)
		buf_fmt(b, "# HELP %s%s %s\n", f->name, in_head, f->help);
	buf_fmt(b, "# TYPE %s%s %s\n", f->name, in_head, f->type == METRIC_INFO && !open ? "gauge" : types[f->type]);
	if (open && f->unit)
		buf_fmt(b, "# UNIT %s %s\n", f->name, f->unit);
	if (open)
		buf_fmt(b, "# HELP %s %s\n", f->name, f->help);
	if (f->type == METRIC_HISTOGRAM)
		put_histogram(b, a, m);
	else
		put_series(b, a, m, suffix);
}

static void
put_page(struct buf *b, const struct agent *a, bool open)
{
	for (enum metric m = 0; m < METRIC_COUNT; m++)
		put_family(b, a, m, open);
	if (open)
		buf_puts(b, "# EOF\n");
}

/* Is OpenMetrics named, in a version that this is? That it is covered by a star is not enough. */
static bool
names_openmetrics(const struct http_request *r)
{
	struct http_field f;
	struct str element;
	size_t at = 0;

	while (http_field_next(r, &at, &f)) {
		if (!str_ieq(f.name, S("accept")))
			continue;
		while (f.value.n) {
			(void)str_cut(&f.value, ',', &element);
			if (str_find(element, str_z(openmetrics)) != SIZE_MAX && (str_find(element, S("version=")) == SIZE_MAX ||
			    str_find(element, S("version=1.0.0")) != SIZE_MAX || str_find(element, S("version=\"1.0.0\"")) != SIZE_MAX))
				return true;
		}
	}
	return false;
}

static bool
wants_openmetrics(const struct http_request *r)
{
	int q = http_accepts(r, "Accept", openmetrics);

	return q > 0 && q >= http_accepts(r, "Accept", "text/plain") && names_openmetrics(r);
}

static void
get_metrics(struct request *r)
{
	struct agent *a = request_agent(r);
	bool open = wants_openmetrics(request_head(r));
	struct buf b = BUF_INIT(PAGE_MAX);

	if (!config_bool(a->config, "prometheus.enabled")) {
		request_error(r, 404, "not_found", NULL, "`blufio config set prometheus.enabled true`, then `blufio reload`",
		    "metrics are switched off");
		return;
	}
	metrics_gather(a);
	put_page(&b, a, open);
	if (b.err == OK)
		request_answer_text(r, 200, open ? "application/openmetrics-text; version=1.0.0; charset=utf-8" :
		    "text/plain; version=0.0.4; charset=utf-8", buf_view(&b));
	else
		request_error(r, 500, "internal_error", NULL, NULL, "the page could not be made: %s", err_str(b.err));
	buf_free(&b);
}

static const struct config_key keys[] = {
	{ .name = "prometheus.enabled", .type = CONFIG_BOOL, .dflt = "true", .help = "Answer GET /metrics." },
	{ .name = "prometheus.listen", .type = CONFIG_STRING, .fixed = true, .example = "\"127.0.0.1:9100\"",
	  .help = "An address with its port for GET /metrics (and /health) alone; the gateway's others then have it no more." },
	{ .name = "prometheus.require_auth", .type = CONFIG_BOOL, .dflt = "false",
	  .help = "Ask for a credential with the scope read before answering GET /metrics." },
	{ .name = NULL },
};

static const struct route routes[] = {
	{ "GET", "/metrics", SCOPE_OPEN | SCOPE_READ, get_metrics, "Figures for Prometheus: text 0.0.4 or OpenMetrics 1.0." },
	{ .method = NULL },
};

const struct feature prometheus_feature = {
	.name = "prometheus",
	.kind = FEATURE_OBSERVABILITY,
	.summary = "GET /metrics for Prometheus",
	.keys = keys,
	.routes = routes,
};
