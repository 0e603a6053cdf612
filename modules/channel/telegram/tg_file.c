/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tg_file.c - attachments: getFile, then the file itself, streamed to media.c; from a
 * local Bot API server it is a path. Neither address is ever logged: they hold the token.
 */
#include "channel/telegram/tg.h"

#define DOWNLOAD_IDLE_US (60 * US_PER_S)

/* An attachment on its way: first getFile, then the file. */
struct download {
	struct call call;
	struct download *next;
	int64_t id;
	struct fetch_op *op;    /* of the file */
	unsigned status;
	bool full;              /* media.c wants no more */
};

static void
download_free(struct download *d)
{
	struct download **at = &d->call.tg->downloads;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	fetch_cancel(d->op);
	tg_call_drop(&d->call);
	free(d);
}

/* Ends it; media.c hears why unless it has lost interest. */
static void
download_end(struct download *d, enum err e, struct str why, bool again, int64_t wait)
{
	struct agent *a = d->call.tg->a;
	int64_t id = d->id;
	bool full = d->full;

	d->op = NULL;
	download_free(d);
	if (!full)
		media_end(a, id, e, why, again, wait);
}

static void
file_head(void *arg, struct fetch_op *op, unsigned status)
{
	(void)op;
	((struct download *)arg)->status = status;
}

static void
file_data(void *arg, struct fetch_op *op, struct str bytes)
{
	struct download *d = arg;

	(void)op;
	if (d->status == 200 && !d->full)
		d->full = media_data(d->call.tg->a, d->id, bytes) != OK;
}

static void
file_done(void *arg, struct fetch_op *op, const struct fetch_result *r)
{
	struct download *d = arg;
	bool again = r->err != OK || d->status == 429 || d->status >= 500;
	char why[64];

	(void)op;
	snprintf(why, sizeof(why), "Telegram answered %u", d->status);
	if (r->err == OK && d->status == 200)
		download_end(d, OK, STR_NONE, false, -1);
	else if (r->err == OK && d->status == 404)      /* its path has expired: getFile gives another */
		download_end(d, ERR_NOTFOUND, S("Telegram no longer has it"), true, -1);
	else
		download_end(d, r->err != OK ? r->err : ERR_PROTO, r->err != OK ? str_z(r->why) : str_z(why),
		    again && r->err != ERR_LIMIT, -1);
}

/* A local server says where the file lies. It is trusted to: it has the bot's messages anyway. */
static void
file_local(struct download *d, const char *path)
{
	struct agent *a = d->call.tg->a;
	struct url u;
	int64_t id = d->id;
	bool near = url_parse(config_str(a->config, "telegram.api_base"), &u) == OK && url_is_loopback(&u);

	d->full = true;
	download_end(d, OK, STR_NONE, false, -1);
	if (near && !strstr(path, "/../"))
		media_take_file(a, id, path);
	else
		media_end(a, id, ERR_DENIED, S("only a Bot API server of this machine may name a file"), false, -1);
}

static void
file_answered(struct call *c, const struct answer *r)
{
	static const struct fetch_cb cb = { file_head, file_data, file_done };
	struct download *d = CONTAINER(c, struct download, call);
	struct str path = json_str(r->result, "file_path", STR_NONE);
	struct buf url = BUF_INIT(8192), name = BUF_INIT(4096);
	enum err e;

	if (!r->ok || path.n == 0) {
		bool big = has(r->why, "too big");

		download_end(d, r->ok ? ERR_PROTO : ERR_NOTFOUND, big ? S("Telegram hands out 20 MB at most") :
		    r->ok ? S("Telegram does not say where it is") : r->why, !r->ok && (r->code < 400 || r->code == 429 ||
		    r->code >= 500), r->retry_s > 0 ? tg_wait_us(r, 0) : -1);
		return;
	}
	buf_str(&name, path);
	if (path.p[0] == '/' && name.err == OK) {
		file_local(d, name.p);
		buf_free(&name);
		return;
	}
	buf_reset(&name);
	for (struct str rest = path, part; rest.n;) {
		bool more = str_cut(&rest, '/', &part);

		enc_url(&name, part);
		if (more)
			buf_putc(&name, '/');
	}
	tg_address(c->tg, &url, "/file/bot", buf_z(&name));
	e = name.err != OK ? name.err : url.err;
	if (e == OK) {
		struct fetch_req req = { .method = "GET", .url = url.p, .idle_us = DOWNLOAD_IDLE_US,
		    .total_us = ATTACHMENT_US, .body_max = ATTACHMENT_BYTES_MAX + 1 };

		e = fetch_start(c->tg->a->fetch, &req, &cb, d, &d->op);
	}
	secret_wipe(url.p, url.n);
	buf_free(&url);
	buf_free(&name);
	if (e != OK)
		download_end(d, e, str_z(err_str(e)), e == ERR_NOMEM || e == ERR_LIMIT, -1);
}

void
tg_fetch(void *self, const struct attachment *at)
{
	struct tg *tg = self;
	struct download *d = calloc(1, sizeof(*d));

	if (!d) {
		media_end(tg->a, at->id, ERR_NOMEM, S("out of memory"), true, -1);
		return;
	}
	*d = (struct download){ .call = { .tg = tg, .in = BUF_INIT(BODY_MAX), .out = BUF_INIT(4096) },
	    .next = tg->downloads, .id = at->id };
	tg->downloads = d;
	jw_kstr(tg_post(&d->call), "file_id", at->source);
	if (tg_api(&d->call, "getFile", false, CALL_US, file_answered) != OK)
		download_end(d, ERR_NOMEM, S("out of memory"), true, -1);
}

void
tg_fetch_cancel(void *self, int64_t id)
{
	struct tg *tg = self;
	struct download *d = tg->downloads;

	while (d && d->id != id)
		d = d->next;
	if (d)
		download_free(d);
}

void
tg_downloads_free(struct tg *tg)
{
	while (tg->downloads)
		download_free(tg->downloads);
}
