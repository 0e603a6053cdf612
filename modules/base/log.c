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
 * Otherwise: {"ts":"…","level":"info","component":"telegram","session":3,"turn":7,"trace":"…","msg":"…"}
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
#define LOG_TAIL_MAX 96u        /* of them for what follows the message: ids, newline */
#define LOG_COMPONENT_MAX 256u  /* where the component ends at the latest */
#define LOG_PROBLEM_MAX 512u    /* the newest problem, for one line of `status` */
#define ELLIPSIS "\xE2\x80\xA6"

enum form { FORM_JSON, FORM_FILE, FORM_TERMINAL, FORM_PROBLEM };

static struct {
	int fd;                         /* our own, or STDERR_FILENO */
	enum log_level level;
	enum form form;
	bool chosen;                    /* form is known */
	int64_t session, turn;
	char trace[sizeof(((struct trace *)0)->id)];
	int64_t problem_at;
	char problem[LOG_PROBLEM_MAX];
	char path[PATH_MAX];            /* "" = standard error */
} state = { .fd = STDERR_FILENO, .level = LOG_INFO };

/* A line being built. The limits of its parts add up to less than its size. */
struct line {
	char p[LOG_LINE_MAX];
	size_t n;
};

static const struct {
	const char *name, *text, *colour;
} levels[] = {
	[LOG_ERROR] = { "error", "ERROR ", "\033[31m" }, [LOG_WARN] = { "warn", "WARN  ", "\033[33m" },
	[LOG_INFO] = { "info", "INFO  ", "\033[32m" }, [LOG_DEBUG] = { "debug", "DEBUG ", "\033[36m" },
	[LOG_TRACE] = { "trace", "TRACE ", "\033[2m" }
};

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
	for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
		if (str_ieq(s, str_z(levels[i].name))) {
			*out = (enum log_level)i;
			return OK;
		}
	}
	return ERR_PARSE;
}

const char *
log_level_name(enum log_level l)
{
	return (size_t)l < ARRAY_LEN(levels) ? levels[l].name : "unknown";
}

void
log_ids(int64_t session, int64_t turn, const char *trace)
{
	state.session = session;
	state.turn = turn;
	snprintf(state.trace, sizeof(state.trace), "%s", trace ? trace : "");
}

/* ---- building a line --------------------------------------------------------------- */

static void
put(struct line *l, struct str s)
{
	if (s.n == 0 || s.n > sizeof(l->p) - l->n)
		return;
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

/* How cp is written; returns the length. */
static size_t
escape(char text[16], uint32_t cp, bool json)
{
	size_t n = 0;

	if (cp == UTF8_BAD)
		cp = 0xFFFD;
	if (cp == '\n' || cp == '\t')
		return (size_t)snprintf(text, 16, "\\%c", cp == '\n' ? 'n' : 't');
	if (acts(cp))
		return (size_t)snprintf(text, 16, "\\u%04x", (unsigned)cp);
	if (json && (cp == '"' || cp == '\\'))
		text[n++] = '\\';
	return n + utf8_encode(cp, text + n);
}

/* Appends s made safe; what would make the line longer than max becomes an ellipsis. */
static void
put_safe(struct line *l, struct str s, size_t max, bool json)
{
	char text[16];
	size_t n, len;

	while (s.n) {
		n = escape(text, utf8_decode(s, &len), json);
		if (l->n + n + sizeof(ELLIPSIS) - 1 > max) {
			put(l, S(ELLIPSIS));
			return;
		}
		put(l, str_make(text, n));
		s = str_sub(s, len, s.n);
	}
}

/* Formats what holds no text of strangers. */
static void PRINTF(2, 3)
put_fmt(struct line *l, const char *fmt, ...)
{
	char text[LOG_TAIL_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	put(l, str_z(text));
}

static void
put_ids(struct line *l, bool json)
{
	if (state.session)
		put_fmt(l, "%s%" PRId64, json ? ",\"session\":" : " session=", state.session);
	if (state.turn)
		put_fmt(l, "%s%" PRId64, json ? ",\"turn\":" : " turn=", state.turn);
	if (state.trace[0])
		put_fmt(l, json ? ",\"trace\":\"%s\"" : " trace=%s", state.trace);
}

static void
render(struct line *l, enum form form, enum log_level level, const char *component,
    struct str text, const char stamp[32])
{
	bool json = form == FORM_JSON;
	size_t max = form == FORM_PROBLEM ? LOG_PROBLEM_MAX : LOG_LINE_MAX;

	l->n = 0;
	if (json)
		put_fmt(l, "{\"ts\":\"%s\",\"level\":\"%s\",\"component\":\"", stamp,
		    levels[level].name);
	else if (form == FORM_TERMINAL)   /* there the day is known */
		put_fmt(l, "%.12s %s%s\033[0m", stamp + 11, levels[level].colour, levels[level].text);
	else if (form == FORM_FILE)
		put_fmt(l, "%s %s", stamp, levels[level].text);
	else
		put_fmt(l, "%s", levels[level].text);
	put_safe(l, str_z(component), LOG_COMPONENT_MAX, json);
	if (json) {
		put(l, S("\""));
		put_ids(l, true);
	}
	put(l, json ? S(",\"msg\":\"") : S(": "));
	put_safe(l, text, max - LOG_TAIL_MAX, json);
	if (!json)
		put_ids(l, false);
	if (form != FORM_PROBLEM)
		put(l, json ? S("\"}\n") : S("\n"));
}

/* ---- where lines go ------------------------------------------------------------------- */

static int
open_file(const char *path)
{
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
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

/* ---- events ------------------------------------------------------------------------------ */

void
log_emit(enum log_level level, const char *component, const char *fmt, ...)
{
	char bytes[LOG_LINE_MAX], stamp[32];
	struct line l = { .n = 0 };
	int saved = errno;
	int64_t now;
	struct str text;
	va_list ap;

	/* Problems are remembered for `status` even when the log is told to be quieter. */
	if (level > state.level && level > LOG_WARN)
		return;
	now = clock_us();
	clock_iso(now, stamp);
	va_start(ap, fmt);
	text = str_make(bytes, secret_fmt(bytes, sizeof(bytes), fmt, ap));
	va_end(ap);
	if (level <= LOG_WARN) {
		render(&l, FORM_PROBLEM, level, component, text, stamp);
		memcpy(state.problem, l.p, l.n);
		state.problem[l.n] = '\0';
		state.problem_at = now;
	}
	if (level <= state.level) {
		if (!state.chosen)
			choose(LOG_AUTO);
		render(&l, state.form, level, component, text, stamp);
		IGNORE(fd_write_all(state.fd, l.p, l.n)); /* there is no other place to tell it */
	}
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
	char bytes[LOG_LINE_MAX];
	struct line l = { .n = 0 };
	struct str text, part;
	va_list ap;
	bool more;

	va_start(ap, fmt);
	text = str_make(bytes, secret_fmt(bytes, sizeof(bytes), fmt, ap));
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
		IGNORE(fd_write_all(STDERR_FILENO, l.p, l.n)); /* nor here */
		l.n = 0;
	} while (more);
	exit(exit_code);
}
