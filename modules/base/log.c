/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * log.c - one event a line, for people on a terminal, for programs elsewhere.
 *
 * The log is global on purpose: anything may have something to say, and a log
 * that had to be handed down would not reach the places that fail. It is used
 * on the main thread only (worker jobs report through their results).
 *
 * Terminal:  09:30:00.123 INFO  telegram: polling session=3 turn=7
 * Text file: the same, with the date as well.
 * Otherwise: {"ts":"…","level":"info","component":"telegram","session":3,"turn":7,"msg":"…"}
 *
 * What is promised about a line:
 *  - it goes out in one write(2), so lines of several processes do not mix;
 *  - it is at most LOG_LINE_MAX bytes, cut at a code point and marked by an
 *    ellipsis, and a JSON line stays valid JSON when it is cut;
 *  - registered secrets are gone before anything else is done with the text;
 *  - what a stranger sent cannot start a line of its own, move the cursor or
 *    turn the writing direction: such characters are written as escapes, and
 *    ill-formed UTF-8 as U+FFFD.
 *
 * Logging never fails the caller and leaves errno alone. A write that fails
 * is forgotten: there is no other place to tell it.
 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <unistd.h>

#define LOG_LINE_MAX 4096u      /* bytes, the newline included */
#define LOG_TAIL_MAX 64u        /* of them for what follows the message: ids, newline */
#define LOG_COMPONENT_MAX 256u  /* where the component ends at the latest */
#define LOG_PROBLEM_MAX 512u    /* the newest problem, for one line of `status` */
#define LOG_TEXT_SMALL 1024u    /* most messages: no allocation needed */
#define LOG_TEXT_MAX (1u << 20) /* longer ones are not formatted at all */
#define ELLIPSIS "\xE2\x80\xA6"

enum form { FORM_JSON, FORM_FILE, FORM_TERMINAL, FORM_PROBLEM };

static struct {
	int fd;                         /* our own, or STDERR_FILENO */
	enum log_level level;
	enum form form;
	bool chosen;                    /* form is known */
	int64_t session, turn;
	int64_t problem_at;
	char problem[LOG_PROBLEM_MAX];
	char path[PATH_MAX];            /* "" = standard error */
} state = { .fd = STDERR_FILENO, .level = LOG_INFO };

/* A line being built; what would go beyond max is refused whole and sets cut. */
struct line {
	char p[LOG_LINE_MAX];
	size_t n, max;
	bool cut;
};

struct message {
	enum log_level level;
	const char *component;
	struct str text;
	int64_t at;
};

static const char *const level_names[] = {
	[LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info",
	[LOG_DEBUG] = "debug", [LOG_TRACE] = "trace"
};

/* clang wants to know that fmt was checked by the caller's own attribute. */
static struct str format(char small[LOG_TEXT_SMALL], struct buf *large, const char *fmt,
    va_list ap) PRINTF(3, 0);

/* ---- levels and ids ------------------------------------------------------------- */

void
log_set_level(enum log_level level)
{
	state.level = level;
}

enum log_level
log_get_level(void)
{
	return state.level;
}

enum err
log_level_parse(struct str s, enum log_level *out)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (str_ieq(s, str_z(level_names[i]))) {
			*out = (enum log_level)i;
			return OK;
		}
	}
	return ERR_PARSE;
}

const char *
log_level_name(enum log_level l)
{
	return (size_t)l < ARRAY_LEN(level_names) ? level_names[l] : "unknown";
}

void
log_ids(int64_t session, int64_t turn)
{
	state.session = session;
	state.turn = turn;
}

/* ---- building a line --------------------------------------------------------------- */

static void
put(struct line *l, struct str s)
{
	if (l->cut || s.n > l->max - l->n) {
		l->cut = true;
		return;
	}
	if (s.n)
		memcpy(l->p + l->n, s.p, s.n);
	l->n += s.n;
}

/* Characters that act on a terminal or on the reader's eye instead of being seen. */
static bool
acts(uint32_t cp)
{
	return cp < 0x20 || (cp >= 0x7F && cp < 0xA0) ||        /* controls */
	    cp == 0x061C || cp == 0x200E || cp == 0x200F ||     /* direction marks */
	    (cp >= 0x2028 && cp <= 0x202E) ||                   /* line ends, overrides */
	    (cp >= 0x2066 && cp <= 0x2069);                     /* isolates */
}

static void
put_code(struct line *l, uint32_t cp, bool json)
{
	char text[16];
	size_t n = 0;

	if (cp == UTF8_BAD)
		cp = 0xFFFD;
	if (cp == '\n' || cp == '\t') {
		put(l, cp == '\n' ? S("\\n") : S("\\t"));
		return;
	}
	if (acts(cp)) {
		n = (size_t)snprintf(text, sizeof(text), "\\u%04x", (unsigned)cp);
	} else {
		if (json && (cp == '"' || cp == '\\'))
			text[n++] = '\\';
		n += utf8_encode(cp, text + n);
	}
	put(l, str_make(text, n));
}

/* Appends s made safe; what would make the line longer than max becomes an ellipsis. */
static void
put_safe(struct line *l, struct str s, size_t max, bool json)
{
	size_t len, fits = l->n;        /* the last end from which an ellipsis still fits */

	l->max = max;
	while (s.n && !l->cut) {
		put_code(l, utf8_decode(s, &len), json);
		s = str_sub(s, len, s.n);
		if (l->n + sizeof(ELLIPSIS) - 1 <= max)
			fits = l->n;
	}
	if (l->cut) {
		l->cut = false;
		l->n = fits;
		put(l, S(ELLIPSIS));
	}
	l->max = LOG_LINE_MAX;
}

static void
put_id(struct line *l, struct str name, int64_t id)
{
	char number[24];

	if (id == 0)
		return;
	put(l, name);
	snprintf(number, sizeof(number), "%" PRId64, id);
	put(l, str_z(number));
}

static void
render_json(struct line *l, const struct message *m)
{
	char stamp[32];

	clock_iso(m->at, stamp);
	put(l, S("{\"ts\":\""));
	put(l, str_z(stamp));
	put(l, S("\",\"level\":\""));
	put(l, str_z(log_level_name(m->level)));
	put(l, S("\",\"component\":\""));
	put_safe(l, str_z(m->component), LOG_COMPONENT_MAX, true);
	put(l, S("\""));
	put_id(l, S(",\"session\":"), state.session);
	put_id(l, S(",\"turn\":"), state.turn);
	put(l, S(",\"msg\":\""));
	put_safe(l, m->text, LOG_LINE_MAX - LOG_TAIL_MAX, true);
	put(l, S("\"}\n"));
}

static void
render_text(struct line *l, const struct message *m, enum form form)
{
	static const struct {
		const char *name, *colour;
	} level[] = {
		[LOG_ERROR] = { "ERROR ", "\033[31m" }, [LOG_WARN] = { "WARN  ", "\033[33m" },
		[LOG_INFO] = { "INFO  ", "\033[32m" }, [LOG_DEBUG] = { "DEBUG ", "\033[36m" },
		[LOG_TRACE] = { "TRACE ", "\033[2m" }
	};
	bool terminal = form == FORM_TERMINAL;
	char stamp[32];

	clock_iso(m->at, stamp);
	if (form != FORM_PROBLEM) {
		/* On a terminal the day is known: only "09:30:00.123" of the whole. */
		put(l, terminal ? str_make(stamp + 11, 12) : str_z(stamp));
		put(l, S(" "));
	}
	if (terminal)
		put(l, str_z(level[m->level].colour));
	put(l, str_z(level[m->level].name));
	if (terminal)
		put(l, S("\033[0m"));
	put_safe(l, str_z(m->component), LOG_COMPONENT_MAX, false);
	put(l, S(": "));
	put_safe(l, m->text, (form == FORM_PROBLEM ? LOG_PROBLEM_MAX : LOG_LINE_MAX) -
	    LOG_TAIL_MAX, false);
	put_id(l, S(" session="), state.session);
	put_id(l, S(" turn="), state.turn);
	if (form != FORM_PROBLEM)
		put(l, S("\n"));
}

/* ---- where lines go ------------------------------------------------------------------- */

static int
open_file(const char *path)
{
	int fd;

	do
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
	while (fd < 0 && errno == EINTR);
	return fd;
}

static void
choose(enum log_format format)
{
	bool terminal = isatty(state.fd) == 1;

	if (format == LOG_JSON || (format == LOG_AUTO && !terminal))
		state.form = FORM_JSON;
	else
		state.form = terminal ? FORM_TERMINAL : FORM_FILE;
	state.chosen = true;
}

void
log_close(void)
{
	if (state.fd != STDERR_FILENO)
		close(state.fd);
	state.fd = STDERR_FILENO;
	state.path[0] = '\0';
	state.chosen = false;
}

enum err
log_open(enum log_level level, enum log_format format, const char *file, struct fail *f)
{
	size_t n = file ? strlen(file) : 0;
	int fd = STDERR_FILENO, saved = errno;

	if (n >= sizeof(state.path))
		return fail_set(f, ERR_LIMIT, "cannot open the log file: its name is too long");
	if (n) {
		fd = open_file(file);
		if (fd < 0)
			return fail_set(f, err_errno(errno), "cannot open the log file %s: %s",
			    file, strerror(errno));
	}
	log_close();
	state.fd = fd;
	state.level = level;
	if (n)
		memcpy(state.path, file, n + 1);
	choose(format);
	errno = saved;          /* isatty sets it for everything that is no terminal */
	return OK;
}

enum err
log_reopen(void)
{
	int fd;

	if (!state.path[0])
		return OK;
	fd = open_file(state.path);
	if (fd < 0)
		return err_errno(errno);        /* the old file goes on being written */
	close(state.fd);
	state.fd = fd;
	return OK;
}

/* One write, unless the system takes less than the whole; then the rest follows. */
static void
write_line(int fd, const char *p, size_t n)
{
	/* A log that cannot be written has no other place to tell it. */
	IGNORE(fd_write_all(fd, p, n));
}

/* ---- events ------------------------------------------------------------------------------ */

/* The text with secrets scrubbed; it lies in small or, when it is longer, in large. */
static struct str
format(char small[LOG_TEXT_SMALL], struct buf *large, const char *fmt, va_list ap)
{
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(small, LOG_TEXT_SMALL, fmt, again);
	va_end(again);
	if (n >= 0 && (size_t)n < LOG_TEXT_SMALL)
		return str_make(small, secret_scrub(small, (size_t)n));
	/* A cut text could end in half a secret, so it is formatted again, whole. */
	buf_vfmt(large, fmt, ap);
	if (large->err == OK)
		return str_make(large->p, secret_scrub(large->p, large->n));
	/* Without memory the bare format still says what happened, if not to whom. */
	return str_z(fmt);
}

void
log_emit(enum log_level level, const char *component, const char *fmt, ...)
{
	struct message m = { level, component, STR_NONE, 0 };
	struct line l = { .n = 0, .max = LOG_LINE_MAX, .cut = false };
	struct buf large = BUF_INIT(LOG_TEXT_MAX);
	char small[LOG_TEXT_SMALL];
	int saved = errno;
	va_list ap;

	/* Problems are remembered for `status` even when the log is told to be quieter. */
	if (level > state.level && level > LOG_WARN)
		return;
	m.at = clock_us();
	va_start(ap, fmt);
	m.text = format(small, &large, fmt, ap);
	va_end(ap);
	if (level <= LOG_WARN) {
		render_text(&l, &m, FORM_PROBLEM);
		memcpy(state.problem, l.p, l.n);
		state.problem[l.n] = '\0';
		state.problem_at = m.at;
		l.n = 0;
	}
	if (level <= state.level) {
		if (!state.chosen)
			choose(LOG_AUTO);
		if (state.form == FORM_JSON)
			render_json(&l, &m);
		else
			render_text(&l, &m, state.form);
		write_line(state.fd, l.p, l.n);
	}
	buf_free(&large);
	errno = saved;
}

const char *
log_last_problem(int64_t *at_us)
{
	if (at_us)
		*at_us = state.problem_at;
	return state.problem;
}

void
fatal(int exit_code, const char *fmt, ...)
{
	struct line l = { .n = 0, .max = LOG_LINE_MAX, .cut = false };
	struct buf large = BUF_INIT(LOG_TEXT_MAX);
	char small[LOG_TEXT_SMALL];
	struct str text, part;
	va_list ap;
	bool more;

	va_start(ap, fmt);
	text = format(small, &large, fmt, ap);
	va_end(ap);
	/* A log file keeps them as well; a log on standard error would say it twice. */
	if (state.fd != STDERR_FILENO)
		log_emit(LOG_ERROR, "fatal", "%.*s", STR_ARG(text));
	/* The person at the terminal gets plain words, on several lines if need be. */
	put(&l, S("blufio: "));
	do {
		more = str_cut(&text, '\n', &part);
		put_safe(&l, part, LOG_LINE_MAX - LOG_TAIL_MAX, false);
		put(&l, S("\n"));
		write_line(STDERR_FILENO, l.p, l.n);
		l.n = 0;
	} while (more);
	buf_free(&large);
	exit(exit_code);
}
