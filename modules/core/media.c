/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * media.c - what comes with a message: pictures, documents, voice.
 *
 * An attachment is a row before its bytes are here. After the commit of that
 * row the channel is asked to bring them, as often as it takes; they go to a
 * file as they come and are never in memory as a whole. The worker thread
 * makes the file durable, looks what it really is and gives it its name, the
 * SHA-256 of its bytes; then the row becomes ready. Voice goes through the
 * owner's transcription command in a child and becomes text.
 *
 *   wanted: WAITING -> FETCHING -> STORING [-> TRANSCRIBING] -> ready
 *              ^____________|  again            any of them  -> failed, with words
 *
 * A start reads the wanted rows and begins anew; a file without a row is swept.
 * What has to outlive its item (a job of the worker, a child that is ending) is
 * the item itself: it is marked dead and freed when that comes back.
 *
 * Beyond storage.media_quota the oldest files go, those first that no running
 * history holds. Their rows stay as notes; no message is ever edited.
 */
#include "core.h"

#include "base/image.h"
#include "crypto/sha2.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_CHARS 64
#define COPY_BYTES (64u << 10)
#define TRANSCRIBE_CPU_S 600            /* of a child with threads */
#define TRANSCRIBE_MEMORY (4ull << 30)  /* speech models are large */
#define TYPE_PDF "application/pdf"
#define TYPE_TEXT "text/plain"
#define TYPE_AUDIO "audio"

enum phase { WAITING, FETCHING, STORING, TRANSCRIBING };

struct item {
	struct agent *a;
	struct item *next;
	int64_t id, inbound, attempts;
	int64_t due;                    /* monotonic: the row's next_at */
	enum attachment_kind kind;
	enum phase phase;
	bool dead;                      /* its message is over; what runs may not touch rows any more */
	char *names;                    /* channel, source and name, each with its NUL */
	const char *channel, *source, *name;
	int64_t bytes;
	struct ev_timer timer;          /* WAITING: due; FETCHING: the try has taken too long */
	struct effect start;
	/* the file */
	int fd;
	struct sha256 sha;
	int64_t got;
	char hash[HASH_CHARS + 1];      /* "" until all bytes are here */
	char *part, *path;              /* where it is written, where it will be */
	struct work_job job;
	struct fail why;                /* of the job */
	const char *type;
	struct image image;
	struct proc *proc;
};

/* A file to be removed once the commit that gave it up is on disk. */
struct doomed {
	struct effect gone;
	struct agent *a;
	struct doomed *next;
	char path[];
};

struct media {
	struct item *items;             /* by id, the dead among them */
	struct doomed *doomed;
	size_t running;
	uint64_t parts;                 /* names of unfinished files: none is used twice, a dead item may still write its own */
	char *dir;
};

/* ---- items ---------------------------------------------------------------------------- */

static struct item *
item_get(struct agent *a, int64_t id)
{
	struct item *it = a->media->items;

	while (it && (it->id != id || it->dead))
		it = it->next;
	return it;
}

static void
file_close(struct item *it)
{
	if (it->fd >= 0)
		close(it->fd);
	it->fd = -1;
}

/* What has arrived of a file that will not be one. */
static void
part_drop(struct item *it)
{
	file_close(it);
	if (it->part)
		unlink(it->part);
	free(it->part);
	it->part = NULL;
}

static void
item_free(struct item *it)
{
	struct item **p = &it->a->media->items;

	while (*p != it)
		p = &(*p)->next;
	*p = it->next;
	ev_timer_cancel(it->a->ev, &it->timer);
	effect_cancel(&it->start);
	part_drop(it);
	free(it->names);
	free(it->path);
	free(it);
}

static const struct channel_ops *
ops_of(const struct item *it, void **self)
{
	const struct channel *c = agent_channel(it->a, str_z(it->channel));

	*self = c ? c->self : NULL;
	return c ? c->feature->channel : NULL;
}

static void kick(struct agent *a);

/* Whatever it was doing has ended or been given up. */
static void
rest(struct item *it)
{
	if (it->phase != WAITING)
		it->a->media->running--;
	it->phase = WAITING;
	ev_timer_cancel(it->a->ev, &it->timer);
	part_drop(it);
}

/* It was dropped while the thread or a child had it; now it is back and leaves its place to the next. */
static void
bury(struct item *it)
{
	struct agent *a = it->a;

	rest(it);
	item_free(it);
	kick(a);
}

/* Nothing is wanted of it any more. Freed now, or when the thread or the child that has it comes back. */
static void
item_drop(struct item *it)
{
	void *self;
	const struct channel_ops *ops = ops_of(it, &self);

	if (it->dead)
		return;
	it->dead = true;
	effect_cancel(&it->start);
	if (it->phase == FETCHING && ops && ops->fetch_cancel)
		ops->fetch_cancel(self, it->id);
	if (it->proc)
		proc_kill(it->proc);
	if (it->phase == STORING && it->job.queued)
		return;
	if (it->phase == TRANSCRIBING && it->proc)
		return;
	rest(it);
	item_free(it);
}

/* Its message may have no turn yet. */
static void
log_turn_of(const struct item *it)
{
	int64_t turn = 0;

	agent_wrote(it->a, store_inbound_turn(it->a->db, it->inbound, &turn));
	turn_log(it->a, turn);
}

/* The end: ready with a hash (and a transcript), or failed with words. */
static void
settle(struct item *it, enum attachment_state state, struct str text)
{
	struct agent *a = it->a;
	int64_t inbound = it->inbound;

	if (state == ATTACHMENT_FAILED) {
		log_turn_of(it);
		log_warn("media", "an attachment cannot be used: %.*s", STR_ARG(text));
		log_ids(0, 0, NULL);
	}
	agent_wrote(a, store_attachment_set(a->db, it->id, state, str_z(it->hash), text));
	rest(it);
	item_free(it);
	turn_gathered(a, inbound);
	kick(a);
}

static void
failed(struct item *it, const char *why)
{
	settle(it, ATTACHMENT_FAILED, str_z(why));
}

/* Another try later, or the end when there were enough. */
static void
again(struct item *it, struct str why, int64_t wait_us)
{
	char text[256];

	snprintf(text, sizeof(text), "%.*s", STR_ARG(utf8_prefix(why, sizeof(text) - 1)));
	if (++it->attempts >= ATTACHMENT_TRIES) {
		failed(it, text);
		return;
	}
	if (wait_us < 0)
		wait_us = llm_backoff_us((unsigned)it->attempts, -1);
	log_turn_of(it);
	log_warn("media", "an attachment did not arrive (try %lld): %s", (long long)it->attempts, text);
	log_ids(0, 0, NULL);
	it->due = ev_now(it->a->ev) + wait_us;
	agent_wrote(it->a, store_attachment_retry(it->a->db, it->id, it->attempts, clock_us() + wait_us));
	rest(it);
	ev_timer_at(it->a->ev, &it->timer, it->due);
	kick(it->a);
}

/* ---- files ------------------------------------------------------------------------------- */

FALLIBLE
media_path(struct agent *a, struct str hash, struct buf *path)
{
	struct stat st;

	buf_fmt(path, "%s/%.*s", a->media->dir, STR_ARG(hash));
	if (path->err != OK)
		return path->err;
	return hash.n == HASH_CHARS && stat(path->p, &st) == 0 && S_ISREG(st.st_mode) ? OK : ERR_NOTFOUND;
}

static char *
name_in_dir(struct agent *a, const char *prefix, const char *name)
{
	size_t n = strlen(a->media->dir) + strlen(prefix) + strlen(name) + 2;
	char *path = malloc(n);

	if (path)
		snprintf(path, n, "%s/%s%s", a->media->dir, prefix, name);
	return path;
}

static enum err
part_open(struct item *it)
{
	struct fail f = FAIL_INIT;
	char number[24];
	enum err e = file_mkdirs(it->a->media->dir, 0700, &f);

	if (e != OK)
		return e;
	snprintf(number, sizeof(number), "%llu", (unsigned long long)++it->a->media->parts);
	part_drop(it);
	it->part = name_in_dir(it->a, "part-", number);
	if (!it->part)
		return ERR_NOMEM;
	it->fd = open(it->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (it->fd < 0)
		return err_errno(errno);
	sha256_init(&it->sha);
	it->got = 0;
	return OK;
}

FALLIBLE
media_data(struct agent *a, int64_t id, struct str bytes)
{
	struct item *it = item_get(a, id);
	enum err e;

	if (!it || it->phase != FETCHING || it->fd < 0)
		return ERR_CANCELLED;
	if (bytes.n > (size_t)(ATTACHMENT_BYTES_MAX - it->got)) {
		failed(it, "it is larger than 20 MB");
		return ERR_LIMIT;
	}
	e = fd_write_all(it->fd, bytes.p, bytes.n);
	if (e != OK) {
		again(it, str_z(e == ERR_FULL ? "the disk is full" : err_str(e)), -1);
		return e;
	}
	sha256_update(&it->sha, bytes.p, bytes.n);
	it->got += (int64_t)bytes.n;
	return OK;
}

/* ---- on the worker's thread: durable, looked at, named ------------------------------------------ */

/* Text is valid UTF-8 without NUL, from the first byte to the last. */
static bool
is_text(int fd, char *block)
{
	off_t at = 0;
	size_t keep = 0;
	ssize_t n;

	while ((n = pread(fd, block + keep, COPY_BYTES - keep, at)) > 0) {
		struct str all = str_make(block, keep + (size_t)n);
		size_t run = utf8_run(all);

		if (all.n - run > 3 || str_chr(all, '\0') != SIZE_MAX)
			return false;
		at += n;
		keep = all.n - run;
		memmove(block, block + run, keep);
	}
	return n == 0 && keep == 0 && at > 0;
}

static enum err
look(struct item *it)
{
	char *head = malloc(IMAGE_HEAD_MAX);
	size_t n = 0;
	ssize_t got = 1;
	enum err e = head ? OK : ERR_NOMEM;

	while (head && got > 0 && n < IMAGE_HEAD_MAX) {
		got = pread(it->fd, head + n, IMAGE_HEAD_MAX - n, (off_t)n);
		n += got > 0 ? (size_t)got : 0;
	}
	if (got < 0)
		e = fail_set(&it->why, err_errno(errno), "its file cannot be read");
	if (e == OK)
		e = image_probe(str_make(head, n), &it->image);
	if (e == ERR_PARSE || e == ERR_LIMIT)
		e = fail_set(&it->why, ERR_PARSE, "the picture is damaged");
	else if (e == OK && it->image.type != IMAGE_NONE)
		it->type = image_mime(it->image.type);
	else if (e == OK && str_starts(str_make(head, n), S("%PDF-")))
		it->type = TYPE_PDF;
	else if (e == OK && it->kind == ATTACHMENT_AUDIO)
		it->type = TYPE_AUDIO;
	else if (e == OK && is_text(it->fd, head))
		it->type = TYPE_TEXT;
	else if (e == OK)
		e = fail_set(&it->why, ERR_PARSE, "it is neither a picture (PNG, JPEG, GIF, WebP) nor a PDF nor plain text");
	if (e == OK && (it->image.width > IMAGE_PIXELS_MAX || it->image.height > IMAGE_PIXELS_MAX))
		e = fail_set(&it->why, ERR_PARSE, "the picture has %u x %u pixels; %d on a side are the most",
		    (unsigned)it->image.width, (unsigned)it->image.height, IMAGE_PIXELS_MAX);
	free(head);
	return e;
}

static void
store_run(struct work_job *j)
{
	struct item *it = CONTAINER(j, struct item, job);
	enum err e = look(it);
	int dir;

	if (e == OK && (fsync(it->fd) != 0 || rename(it->part, it->path) != 0))
		e = err_errno(errno);
	if (e == OK) {                  /* the new name, too, outlives a power failure */
		dir = open(it->a->media->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0 || fsync(dir) != 0)
			e = err_errno(errno);
		if (dir >= 0)
			close(dir);
	}
	if (e != OK)
		IGNORE(fail_set(&it->why, e, "%s", e == ERR_FULL ? "the disk is full" : err_str(e)));
}

/* ---- room ------------------------------------------------------------------------------------ */

static void
is_kept(void *arg, const struct media_row *m)
{
	*(bool *)arg = !m->gone;
}

static void
doom_run(struct effect *e)
{
	struct doomed *d = CONTAINER(e, struct doomed, gone), **p = &d->a->media->doomed;
	const char *hash = strrchr(d->path, '/') + 1;
	bool kept = false, found;

	/* It may have come again in the same loop turn, or be about to: then the worker has named it already. */
	for (const struct item *it = d->a->media->items; it; it = it->next)
		kept = kept || (it->phase == STORING && strcmp(it->hash, hash) == 0);
	if (!kept && store_media_get(d->a->db, str_z(hash), is_kept, &kept, &found) == OK && !kept)
		unlink(d->path);
	while (*p != d)
		p = &(*p)->next;
	*p = d->next;
	free(d);
}

static enum err
doom(struct agent *a, struct str hash)
{
	size_t n = strlen(a->media->dir) + hash.n + 2;
	struct doomed *d = calloc(1, sizeof(*d) + n);

	if (!d)
		return ERR_NOMEM;
	snprintf(d->path, n, "%s/%.*s", a->media->dir, STR_ARG(hash));
	d->gone.run = doom_run;
	d->a = a;
	d->next = a->media->doomed;
	a->media->doomed = d;
	agent_after(a, &d->gone);
	return OK;
}

/* What a running history says after the file was bound to it: it goes on without its thinking. */
static enum err
unbind(struct agent *a, struct str hash)
{
	struct id_list ids = { NULL, 0, OK };
	enum err e = store_media_sessions(a->db, hash, id_list_add, &ids);

	if (e == OK)
		e = ids.err;
	for (size_t i = 0; i < ids.n && e == OK; i++) {
		struct session *s = session_get(a, ids.p[i]);

		if (s)
			s->thinking_seq = s->next_seq;
		e = store_session_drop_thinking(a->db, ids.p[i], s ? s->next_seq : 0);
	}
	free(ids.p);
	return e;
}

/* A file is given up: its row stays and says so, the bytes go once that is committed. */
static enum err
give_up(struct agent *a, struct str hash)
{
	enum err e = unbind(a, hash);

	if (e == OK)
		e = store_media_gone(a->db, hash);
	return e == OK ? doom(a, hash) : e;
}

/* The oldest go until all fits, that of keep included; none goes when it cannot fit at all (ERR_LIMIT). */
static enum err
make_room(struct agent *a, const char *keep)
{
	int64_t quota = config_i64(a->config, "storage.media_quota") * 1000000, sum, can_go = 0, freed = 0;
	struct buf hash = BUF_INIT(HASH_CHARS);
	enum err e = store_media_bytes(a->db, str_z(keep), &sum, &can_go);

	if (e == OK && sum - can_go > quota)
		e = ERR_LIMIT;
	while (e == OK && sum > quota) {
		e = store_media_oldest(a->db, str_z(keep), &hash, &freed);
		if (e == OK && hash.n == 0)
			e = ERR_CORRUPT;        /* there was enough a moment ago */
		if (e == OK)
			e = give_up(a, buf_view(&hash));
		sum -= freed;
		if (e == OK)
			log_info("media", "a file of %lld bytes goes: storage.media_quota is reached", (long long)freed);
	}
	buf_free(&hash);
	return e;
}

/* ---- voice ------------------------------------------------------------------------------------- */

static void
on_transcript(void *arg, struct proc *p, const struct proc_result *r)
{
	struct item *it = arg;
	struct buf text = BUF_INIT(TRANSCRIPT_MAX * 3), why = BUF_INIT(512);

	(void)p;
	it->proc = NULL;
	if (it->dead) {
		bury(it);
		return;
	}
	if (r->err != OK || r->exit_code != 0) {
		buf_fmt(&why, "the transcription command failed (%s%.*s)", r->err != OK ? r->why : "exit status not 0: ",
		    STR_ARG(r->err != OK ? STR_NONE : utf8_prefix(str_trim(r->errs), 200)));
		buf_reset(&text);
		utf8_clean(&text, buf_view(&why));
		failed(it, buf_z(&text));
	} else {
		utf8_clean(&text, str_trim(r->out));
		if (text.err != OK)
			agent_wrote(it->a, text.err);
		else if (text.n == 0)
			failed(it, "nothing could be understood in it");
		else
			settle(it, ATTACHMENT_READY, buf_view(&text));
	}
	buf_free(&text);
	buf_free(&why);
}

/* {file} in an argument stands for the recording; without one it is the child's standard input. */
static void
transcribe(struct item *it)
{
	struct agent *a = it->a;
	void *self;
	const struct channel_ops *ops = ops_of(it, &self);
	const char *const *argv = ops && ops->transcribe_key ? config_argv(a->config, ops->transcribe_key) : NULL;
	const char *args[PROC_ARGS_MAX + 1] = { NULL };
	struct arena ar = ARENA_INIT(PROC_ARG_BYTES_MAX * 2);
	struct proc_req req = { .argv = args, .output_max = TRANSCRIPT_MAX, .deadline_us = TRANSCRIBE_US,
	    .limits = { .cpu_s = TRANSCRIBE_CPU_S, .memory = TRANSCRIBE_MEMORY } };
	struct buf path = BUF_INIT(4096);
	bool named = false;
	enum err e = media_path(a, str_z(it->hash), &path);

	it->fd = e == OK ? open(path.p, O_RDONLY | O_CLOEXEC) : -1;
	for (size_t i = 0; argv && argv[i]; i++) {
		struct str arg = str_z(argv[i]);
		size_t at = str_find(arg, S("{file}"));

		named = named || at != SIZE_MAX;
		args[i] = at == SIZE_MAX ? argv[i] : arena_z(&ar, arena_fmt(&ar, "%.*s%s%.*s",
		    STR_ARG(str_sub(arg, 0, at)), path.p, STR_ARG(str_sub(arg, at + 6, arg.n))));
	}
	req.input_fd = named ? 0 : it->fd;
	if (e == OK && it->fd < 0)
		e = err_errno(errno);
	if (e == OK)
		e = ar.err;
	if (e == OK && argv && a->procs)
		e = proc_start(a->procs, &req, on_transcript, it, &it->proc);
	arena_free(&ar);
	buf_free(&path);
	file_close(it);
	if (!argv)
		failed(it, "I have no command that turns speech into text");
	else if (!a->procs)
		failed(it, "no child process can be started here");
	else if (e != OK)
		again(it, str_z(err_str(e)), -1);
}

/* ---- the steps of one ---------------------------------------------------------------------------- */

static void
stored(struct work_job *j)
{
	struct item *it = CONTAINER(j, struct item, job);
	struct agent *a = it->a;
	struct media_row row = { .type = str_z(it->type), .bytes = it->got, .width = (int64_t)it->image.width,
	    .height = (int64_t)it->image.height };
	enum err e = it->why.err;

	if (it->dead) {
		bury(it);
		return;
	}
	if (e == ERR_PARSE) {
		it->hash[0] = '\0';
		failed(it, it->why.text);
		return;
	}
	if (e == OK) {
		e = store_media_put(a->db, str_z(it->hash), &row);
		if (e == OK)
			e = make_room(a, it->hash);
		if (e == ERR_LIMIT) {
			agent_wrote(a, give_up(a, str_z(it->hash)));
			it->hash[0] = '\0';
			failed(it, "there is no room for it: storage.media_quota is too small");
			return;
		}
		agent_wrote(a, e);
	} else {
		it->hash[0] = '\0';
		again(it, str_z(it->why.text), -1);
		return;
	}
	file_close(it);
	if (it->kind == ATTACHMENT_AUDIO) {
		agent_wrote(a, store_attachment_set(a->db, it->id, ATTACHMENT_WANTED, str_z(it->hash), STR_NONE));
		it->phase = TRANSCRIBING;
		agent_after(a, &it->start);
	} else {
		settle(it, ATTACHMENT_READY, STR_NONE);
	}
}

void
media_end(struct agent *a, int64_t id, enum err e, struct str why, bool again_later, int64_t wait_us)
{
	struct item *it = item_get(a, id);
	unsigned char digest[32];
	struct buf hex = BUF_INIT(HASH_CHARS);
	char text[256];

	if (!it || it->phase != FETCHING)
		return;
	if (e != OK && again_later) {
		again(it, why, wait_us);
		return;
	}
	if (e != OK || it->got == 0) {
		snprintf(text, sizeof(text), "%.*s", STR_ARG(e == OK ? S("it is empty") : utf8_prefix(why, sizeof(text) - 1)));
		failed(it, text);
		return;
	}
	ev_timer_cancel(a->ev, &it->timer);
	sha256_final(&it->sha, digest);
	enc_hex(&hex, digest, sizeof(digest));
	snprintf(it->hash, sizeof(it->hash), "%s", buf_z(&hex));
	free(it->path);
	it->path = hex.err == OK ? name_in_dir(a, "", it->hash) : NULL;
	buf_free(&hex);
	it->phase = STORING;
	it->why = (struct fail)FAIL_INIT;
	it->image = (struct image){ IMAGE_NONE, 0, 0 };
	e = it->path ? work_put(a->work, &it->job) : ERR_NOMEM;
	if (e != OK) {
		it->hash[0] = '\0';
		again(it, str_z(err_str(e)), -1);
	}
}

void
media_take_file(struct agent *a, int64_t id, const char *path)
{
	char *block = malloc(COPY_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n = -1;
	enum err e = block ? fd < 0 ? err_errno(errno) : OK : ERR_NOMEM;

	if (e == OK && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)))
		e = ERR_DENIED;
	while (e == OK && (n = read(fd, block, COPY_BYTES)) > 0)
		e = media_data(a, id, str_make(block, (size_t)n));
	if (e == OK && n < 0)
		e = err_errno(errno);
	if (fd >= 0)
		close(fd);
	free(block);
	media_end(a, id, e, S("its file cannot be read"), e == ERR_NOMEM, -1);
}

static void
on_slow(struct item *it)
{
	void *self;
	const struct channel_ops *ops = ops_of(it, &self);

	if (ops && ops->fetch_cancel)
		ops->fetch_cancel(self, it->id);
	again(it, S("it took too long to arrive"), -1);
}

static void
on_timer(void *arg)
{
	struct item *it = arg;

	if (it->phase == FETCHING)
		on_slow(it);
	else
		kick(it->a);
}

/* After the commit that says it is wanted. */
static void
start(struct effect *eff)
{
	struct item *it = CONTAINER(eff, struct item, start);
	struct attachment at = { it->id, it->kind, str_z(it->source), str_z(it->name), it->bytes, STR_NONE };
	void *self;
	const struct channel_ops *ops = ops_of(it, &self);
	struct buf path = BUF_INIT(4096);
	bool here = it->hash[0] && media_path(it->a, str_z(it->hash), &path) == OK;
	enum err e;

	buf_free(&path);
	if (here) {                     /* a start found it between its arrival and its transcript */
		it->phase = TRANSCRIBING;
		transcribe(it);
		return;
	}
	if (!ops || !ops->fetch) {
		failed(it, "the channel that has it does not run");
		return;
	}
	e = part_open(it);
	if (e != OK) {
		again(it, str_z(e == ERR_FULL ? "the disk is full" : err_str(e)), -1);
		return;
	}
	ev_timer_in(it->a->ev, &it->timer, ATTACHMENT_US);
	ops->fetch(self, &at);
}

/* Starts what waits, oldest first, as far as there is room. */
static void
kick(struct agent *a)
{
	struct media *m = a->media;

	for (struct item *it = m->items; it && m->running < ATTACHMENTS_RUNNING_MAX; it = it->next) {
		if (it->dead || it->phase != WAITING)
			continue;
		if (it->due > ev_now(a->ev)) {
			ev_timer_at(a->ev, &it->timer, it->due);
			continue;
		}
		ev_timer_cancel(a->ev, &it->timer);
		it->phase = FETCHING;
		m->running++;
		agent_after(a, &it->start);
	}
}

/* ---- rows and items --------------------------------------------------------------------------------- */

static void
item_add(void *arg, const struct attachment_row *r)
{
	struct agent *a = arg;
	struct item **p = &a->media->items, *it;
	size_t n = r->channel.n + r->at.source.n + r->at.name.n + 3;
	int64_t wait;
	int k;

	if (r->state != ATTACHMENT_WANTED || item_get(a, r->at.id))
		return;
	it = calloc(1, sizeof(*it));
	if (!it || !(it->names = malloc(n))) {
		free(it);
		agent_wrote(a, ERR_NOMEM);
		return;
	}
	it->channel = it->names;
	k = snprintf(it->names, n, "%.*s", STR_ARG(r->channel));
	it->source = it->names + k + 1;
	k += 1 + snprintf(it->names + k + 1, n - (size_t)k - 1, "%.*s", STR_ARG(r->at.source));
	it->name = it->names + k + 1;
	snprintf(it->names + k + 1, n - (size_t)k - 1, "%.*s", STR_ARG(r->at.name));
	it->a = a;
	it->id = r->at.id;
	it->inbound = r->inbound;
	it->attempts = r->attempts;
	wait = r->next_at - clock_us();
	it->due = wait > 0 && wait < 3600 * US_PER_S ? ev_now(a->ev) + wait : 0;        /* more: the clock was set back */
	it->kind = r->at.kind;
	it->bytes = r->at.bytes;
	it->fd = -1;
	it->start.run = start;
	it->job.run = store_run;
	it->job.done = stored;
	snprintf(it->hash, sizeof(it->hash), "%.*s", STR_ARG(r->hash));
	ev_timer_init(&it->timer, on_timer, it);
	while (*p && (*p)->id < it->id)
		p = &(*p)->next;
	it->next = *p;
	*p = it;
}

void
media_want(struct agent *a, int64_t inbound)
{
	agent_wrote(a, store_attachments(a->db, inbound, item_add, a));
	kick(a);
}

bool
media_pending(struct agent *a, int64_t inbound)
{
	for (struct item *it = a->media->items; it; it = it->next)
		if (it->inbound == inbound && !it->dead)
			return true;
	return false;
}

void
media_drop(struct agent *a, int64_t inbound)
{
	struct item *next;
	bool some = false;

	for (struct item *it = a->media->items; it; it = next) {
		next = it->next;
		if (it->inbound != inbound || it->dead)
			continue;
		some = true;
		item_drop(it);
	}
	if (some)
		agent_wrote(a, store_attachments_drop(a->db, inbound, S("its message was over before it arrived")));
	if (some)
		kick(a);
}

/* ---- blocks of a message --------------------------------------------------------------------------------- */

struct blocks {
	struct agent *a;
	int64_t session, seq;
	struct buf *out, *notes;
	enum err err;
	const struct attachment_row *row;
};

/* A file name as a title: one line, not too long. */
static void
put_name(struct buf *out, struct str name)
{
	char text[128];
	struct str s = utf8_prefix(name, sizeof(text));

	for (size_t i = 0; i < s.n; i++)
		text[i] = (unsigned char)s.p[i] < ' ' ? ' ' : s.p[i];
	json_quote(out, str_make(text, s.n));
}

static void
put_file(void *arg, const struct media_row *m)
{
	struct blocks *b = arg;
	const struct attachment_row *r = b->row;
	bool image = m->width > 0;

	buf_fmt(b->out, "{\"type\":\"%s\",\"source\":{\"type\":\"media\",\"media_type\":\"%.*s\",\"hash\":\"%.*s\"}",
	    image ? "image" : "document", STR_ARG(m->type), STR_ARG(r->hash));
	if (!image && r->at.name.n) {
		buf_puts(b->out, ",\"title\":");
		put_name(b->out, r->at.name);
	}
	buf_puts(b->out, "},");
}

static void
put_attachment(void *arg, const struct attachment_row *r)
{
	struct blocks *b = arg;
	bool found = false;

	b->row = r;
	if (b->err != OK)
		return;
	if (r->state == ATTACHMENT_READY && r->at.kind == ATTACHMENT_AUDIO) {
		struct buf text = BUF_INIT(TRANSCRIPT_MAX * 4);

		buf_fmt(&text, "(a voice message, turned into text:)\n%.*s", STR_ARG(r->text));
		buf_puts(b->out, "{\"type\":\"text\",\"text\":");
		json_quote(b->out, buf_view(&text));
		buf_puts(b->out, "},");
		b->err = text.err;
		buf_free(&text);
		return;
	}
	if (r->state == ATTACHMENT_READY) {
		b->err = store_media_get(b->a->db, r->hash, put_file, b, &found);
		if (b->err == OK && found)
			b->err = store_media_use(b->a->db, r->hash, b->session, b->seq);
		return;
	}
	buf_puts(b->notes, b->notes->n ? "\n" : "");
	buf_puts(b->notes, r->at.kind == ATTACHMENT_IMAGE ? "(A picture" : r->at.kind == ATTACHMENT_AUDIO ?
	    "(A voice message" : "(The file");
	if (r->at.name.n) {
		buf_putc(b->notes, ' ');
		put_name(b->notes, r->at.name);
	}
	buf_fmt(b->notes, " could not be read: %.*s.)", STR_ARG(r->text));
}

FALLIBLE
media_blocks(struct agent *a, int64_t inbound, int64_t session, int64_t seq, struct buf *out, struct buf *notes)
{
	struct blocks b = { .a = a, .session = session, .seq = seq, .out = out, .notes = notes };
	enum err e = store_attachments(a->db, inbound, put_attachment, &b);

	if (e == OK)
		e = b.err;
	if (e == OK)
		e = out->err != OK ? out->err : notes->err;
	return e;
}

void
media_dump(struct agent *a, struct jw *w)
{
	for (const struct item *it = a->media->items; it; it = it->next)
		if (!it->dead)
			jw_i64(w, it->id);
}

/* ---- making, loading, freeing ------------------------------------------------------------------------------- */

/* Files that no row knows: half of one, or one whose row was never committed or has been given up. */
static enum err
sweep(struct agent *a)
{
	DIR *d = opendir(a->media->dir);
	struct dirent *ent;
	enum err e = OK;

	while (d && e == OK && (ent = readdir(d))) {
		struct str name = str_z(ent->d_name);
		bool kept = false, found;

		if (name.n == HASH_CHARS)
			e = store_media_get(a->db, name, is_kept, &kept, &found);
		else if (!str_starts(name, S("part-")))
			continue;
		if (e == OK && !kept && unlinkat(dirfd(d), ent->d_name, 0) != 0)
			log_warn("media", "a file that is not needed cannot be removed: %s", strerror(errno));
	}
	if (d)
		closedir(d);
	return e;
}

FALLIBLE
media_load(struct agent *a)
{
	enum err e = sweep(a);

	if (e == OK)
		e = store_attachments(a->db, 0, item_add, a);
	if (e == OK)
		kick(a);
	return e;
}

FALLIBLE
media_new(struct agent *a)
{
	size_t n = strlen(a->database_path) + sizeof(".media");
	struct media *m = calloc(1, sizeof(*m));

	if (!m || !(m->dir = malloc(n))) {
		free(m);
		return ERR_NOMEM;
	}
	snprintf(m->dir, n, "%s.media", a->database_path);
	a->media = m;
	return OK;
}

void
media_clear(struct agent *a)
{
	struct item *next;
	struct doomed *d;

	for (struct item *it = a->media ? a->media->items : NULL; it; it = next) {
		next = it->next;
		item_drop(it);
	}
	while (a->media && (d = a->media->doomed)) {
		effect_cancel(&d->gone);
		a->media->doomed = d->next;
		free(d);
	}
}

/* After the worker and the spawner have ended: nobody brings the dead back. */
void
media_free(struct agent *a)
{
	if (!a->media)
		return;
	media_clear(a);
	while (a->media->items)
		item_free(a->media->items);
	free(a->media->dir);
	free(a->media);
	a->media = NULL;
}
