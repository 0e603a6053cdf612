/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * base.h - the vocabulary every file shares: errors, views, buffers, arenas,
 * map, text encodings, clock, files, secrets, log.
 *
 * House rules that this header carries:
 *  - a function that can fail is FALLIBLE: it returns enum err, its results
 *    come through trailing out-parameters which are untouched on failure;
 *  - builders (buf, arena, json writer, db statement) are sticky: the first
 *    failure stays in .err, later calls do nothing, the caller checks once;
 *  - every growable thing gets its maximum when it is born;
 *  - a pointer parameter is borrowed unless the contract says "takes".
 */
#ifndef BLUFIO_BASE_H
#define BLUFIO_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "banned.h"

/* ---- errors ------------------------------------------------------------ */

enum err {
	OK = 0,
	ERR_NOMEM,       /* allocation failed */
	ERR_LIMIT,       /* a named limit was reached */
	ERR_IO,          /* the system refused: errno says why */
	ERR_FULL,        /* no space left on the device */
	ERR_PARSE,       /* bytes are not what the format says */
	ERR_PROTO,       /* a peer broke the protocol */
	ERR_AUTH,        /* a credential was refused */
	ERR_DENIED,      /* not permitted */
	ERR_NOTFOUND,
	ERR_BUSY,        /* held by somebody else */
	ERR_TIMEOUT,
	ERR_CLOSED,      /* the other side went away */
	ERR_CANCELLED,
	ERR_UNSUPPORTED,
	ERR_CONFIG,      /* the configuration is wrong or incomplete */
	ERR_CORRUPT,     /* stored data is damaged */
	ERR_EXISTS,
	ERR_COUNT
};

#define FALLIBLE __attribute__((warn_unused_result)) enum err
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
/* Ignoring a FALLIBLE result needs this and a comment that says why. */
#define IGNORE(e) do { enum err ignored_ = (e); (void)ignored_; } while (0)
#define UNREACHABLE() abort()
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER(p, type, field) \
	((type *)(void *)((char *)(p) - offsetof(type, field)))

/* A short lower-case English text for e, never NULL ("out of memory"). */
const char *err_str(enum err e);
/* The enum err that stands for an errno value (ENOMEM, ENOSPC, ENOENT …). */
enum err err_errno(int errnum);

/* Documented exit codes of the program (sysexits.h values, and 3). */
enum {
	EXIT_OK = 0, EXIT_NOT_RUNNING = 3, EXIT_USAGE = 64,
	EXIT_INTERNAL = 70, EXIT_IO = 74, EXIT_CONFIG = 78
};

/*
 * The reason of a failure in words for the person at the terminal: what,
 * where, what to type next. fail_set always scrubs registered secrets.
 * The first fail_set wins; later ones are ignored until fail_clear.
 */
struct fail {
	enum err err;
	char text[768];
};
#define FAIL_INIT { OK, "" }
/* Returns e, so that "return fail_set(f, ERR_X, …);" reads well. f may be NULL. */
FALLIBLE fail_set(struct fail *f, enum err e, const char *fmt, ...) PRINTF(3, 4);
void fail_clear(struct fail *f);

/* ---- views ------------------------------------------------------------- */

/* A borrowed run of bytes, not NUL-terminated. {NULL,0} is the empty view. */
struct str {
	const char *p;
	size_t n;
};
#define S(lit) ((struct str){ "" lit, sizeof(lit) - 1 })
#define STR_NONE ((struct str){ NULL, 0 })
#define STR_ARG(s) (int)(s).n, (s).n ? (s).p : ""      /* for "%.*s" */

static inline struct str str_make(const char *p, size_t n)
{ return (struct str){ p, n }; }
static inline struct str str_z(const char *z)          /* NULL gives STR_NONE */
{ return z ? str_make(z, strlen(z)) : STR_NONE; }
bool str_eq(struct str a, struct str b);
bool str_eqz(struct str a, const char *z);
bool str_ieq(struct str a, struct str b);              /* ASCII case ignored */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
int str_cmp(struct str a, struct str b);               /* bytewise order */
struct str str_trim(struct str s);                     /* ASCII blanks both ends */
struct str str_sub(struct str s, size_t from, size_t n); /* clamped */
/* Index of the first c / needle, or SIZE_MAX. */
size_t str_chr(struct str s, char c);
size_t str_find(struct str s, struct str needle);
/* Cuts at the first sep: *head is before it, *s becomes what follows; false
 * (and *head = all, *s = empty) when there is no sep. */
bool str_cut(struct str *s, char sep, struct str *head);
/* Whole view must be a decimal number within [min,max]; no blanks, no '+'. */
FALLIBLE str_i64(struct str s, int64_t min, int64_t max, int64_t *out);
/* Levenshtein distance of short ASCII words (each cut to 64 bytes): nearest-key hints. */
unsigned str_distance(struct str a, struct str b);

/* ---- checked arithmetic: true means overflow --------------------------- */

static inline bool add_size(size_t a, size_t b, size_t *out)
{ return __builtin_add_overflow(a, b, out); }
static inline bool mul_size(size_t a, size_t b, size_t *out)
{ return __builtin_mul_overflow(a, b, out); }
static inline bool add_i64(int64_t a, int64_t b, int64_t *out)
{ return __builtin_add_overflow(a, b, out); }
static inline bool mul_i64(int64_t a, int64_t b, int64_t *out)
{ return __builtin_mul_overflow(a, b, out); }

/* ---- buf: growable bytes with a maximum and a sticky error -------------- */

struct buf {
	char *p;           /* NULL until the first byte; always followed by a NUL once set */
	size_t n;          /* bytes used */
	size_t cap;        /* bytes allocated, the NUL included */
	size_t max;        /* n never exceeds this; ERR_LIMIT sticks instead */
	enum err err;
};
#define BUF_INIT(maximum) { NULL, 0, 0, (maximum), OK }
void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);                 /* back to empty, max kept, error cleared */
void buf_reset(struct buf *b);                /* n = 0, error cleared, memory kept */
void buf_put(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
void buf_puts(struct buf *b, const char *z);
void buf_putc(struct buf *b, char c);
void buf_fmt(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
void buf_vfmt(struct buf *b, const char *fmt, va_list ap) PRINTF(2, 0);
/* Room for n more bytes at b->p + b->n; the caller adds to b->n what it wrote. NULL on failure (sticky). */
char *buf_room(struct buf *b, size_t n);
void buf_drop(struct buf *b, size_t n);       /* removes the first n bytes */
void buf_cut(struct buf *b, size_t n);        /* shortens to n bytes */
struct str buf_view(const struct buf *b);
const char *buf_z(struct buf *b);             /* NUL-terminated text, "" when empty */

/* ---- arena: a region with a cap; everything is freed together ----------- */

struct arena_chunk;
struct arena {
	struct arena_chunk *head;
	size_t used;       /* bytes handed out since init or reset */
	size_t max;        /* cap on used; ERR_LIMIT sticks */
	enum err err;
};
#define ARENA_INIT(maximum) { NULL, 0, (maximum), OK }
void arena_init(struct arena *a, size_t max);
/* n zeroed bytes aligned for any type, or NULL with the error sticky. n = 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_array(struct arena *a, size_t count, size_t size); /* overflow-checked */
struct str arena_str(struct arena *a, struct str s);           /* copy, followed by a NUL; STR_NONE on failure */
char *arena_z(struct arena *a, struct str s);                  /* NUL-terminated copy; "" on failure, never NULL */
struct str arena_fmt(struct arena *a, const char *fmt, ...) PRINTF(2, 3);
void arena_reset(struct arena *a);            /* frees all, clears the error */
void arena_free(struct arena *a);

/* ---- map: bytes -> pointer, sorted by key, keys copied --------------------- */

struct map;
FALLIBLE map_new(struct map **out, size_t max_entries);
void map_free(struct map *m);                          /* values are the caller's */
FALLIBLE map_put(struct map *m, struct str key, void *value);  /* replaces */
void *map_get(const struct map *m, struct str key);    /* NULL when absent */
void *map_del(struct map *m, struct str key);          /* the value, or NULL */
size_t map_count(const struct map *m);
/* Iterates in the order of str_cmp: *it starts at 0; false at the end. The map may not change
 * meanwhile. */
bool map_next(const struct map *m, size_t *it, struct str *key, void **value);

/* ---- utf8 (RFC 3629) ------------------------------------------------------ */

#define UTF8_BAD 0xFFFFFFFFu
bool utf8_valid(struct str s);
size_t utf8_run(struct str s);                         /* length of the longest well-formed prefix */
/* Decodes one code point at s (n >= 1); *len = bytes used (>= 1). Ill-formed:
 * UTF8_BAD and *len = length of the maximal ill-formed part (Unicode 3.9, U+FFFD practice). */
uint32_t utf8_decode(struct str s, size_t *len);
/* Writes 1-4 bytes; returns how many. cp must be a scalar value. */
size_t utf8_encode(uint32_t cp, char out[4]);
/* Appends s with every maximal ill-formed part replaced by U+FFFD. */
void utf8_clean(struct buf *out, struct str s);
/* Length in UTF-16 code units of valid UTF-8. */
size_t utf8_units(struct str s);
/* The longest prefix of s (valid UTF-8) of at most max UTF-16 units, cut at a code point. */
struct str utf8_prefix_units(struct str s, size_t max);
/* The longest prefix of at most max bytes that does not split a code point. */
struct str utf8_prefix(struct str s, size_t max);

/* ---- encodings -------------------------------------------------------------- */

int hex_digit(int c);                                          /* its value, or -1 */
void enc_hex(struct buf *out, const void *p, size_t n);        /* lower case */
FALLIBLE dec_hex(struct str s, struct buf *out);
void enc_base64(struct buf *out, const void *p, size_t n);     /* RFC 4648 §4, padded */
FALLIBLE dec_base64(struct str s, struct buf *out);            /* strict: padding, no blanks */
void enc_base64url(struct buf *out, const void *p, size_t n);  /* §5, unpadded */
FALLIBLE dec_base64url(struct str s, struct buf *out);
void enc_url(struct buf *out, struct str s);                   /* percent-encodes all but unreserved (RFC 3986) */
FALLIBLE dec_url(struct str s, struct buf *out);               /* %XX; ERR_PARSE on a bad escape */
/* Splits an absolute http(s) URL (no user info). host has no brackets; port defaults by scheme;
 * path starts with '/' or is empty, with its query. ERR_PARSE otherwise. */
struct url {
	bool tls;
	struct str host;
	unsigned port;
	struct str path;
};
FALLIBLE url_parse(struct str s, struct url *out);
/* True for "localhost", 127.0.0.0/8 and ::1 written as literals. */
bool url_is_loopback(const struct url *u);

/* ---- clock and randomness: the only sources of time and chance --------------- */

int64_t clock_us(void);                        /* UTC, microseconds since 1970 */
int64_t clock_mono_us(void);                   /* monotonic, microseconds */
FALLIBLE rand_bytes(void *p, size_t n);        /* the kernel's generator */
uint32_t rand_u32(void);                       /* for jitter only; 0 when the kernel has none */
/* "2026-11-21T09:30:00.123Z" (24 characters and NUL). */
void clock_iso(int64_t us, char out[32]);
/* "2026-11-21T00:00:00.5Z", "2026-11-21T02:00:00+02:00" (RFC 3339), "Sat, 21 Nov 2026 00:00:00 GMT" (HTTP). */
FALLIBLE clock_parse(struct str s, int64_t *us);
/* "3 h 12 min" style, for people; at most two units. */
void clock_span(int64_t us, char out[32]);
int64_t clock_day_start(int64_t us);           /* 00:00 UTC of that day, in us */
int64_t clock_days(int64_t year, int64_t month, int64_t day);  /* since 1970; INT64_MIN: no date (but 31 April is 1 May) */
void clock_month(int64_t us, int64_t *from, int64_t *to);      /* of that month (UTC), and of the next one */

#define US_PER_MS 1000LL
#define US_PER_S 1000000LL
#define US_PER_DAY (86400 * US_PER_S)

/* ---- files ----------------------------------------------------------------------- */

/* Reads a whole regular file of at most max bytes into out (appended). Errors name the path. */
FALLIBLE file_read(const char *path, size_t max, struct buf *out, struct fail *f);
/* Replaces path atomically: temporary file beside it, fsync, rename, fsync of the directory.
 * Keeps mode and owner of an existing file; a new one gets mode. Follows a symbolic link to its target. */
FALLIBLE file_replace(const char *path, struct str bytes, unsigned mode, struct fail *f);
/* Makes path (0600) with these bytes; on the disk when it returns. Never over what is there, nor through a link. */
FALLIBLE file_create(const char *path, struct str bytes, struct fail *f);
FALLIBLE file_mkdirs(const char *path, unsigned mode, struct fail *f); /* like mkdir -p */
/* Takes an exclusive advisory lock (fcntl) on path, creating it 0600, and writes the pid into it.
 * ERR_BUSY and *holder = the other process's id (0 unknown) when taken. The lock lives as long as *fd. */
FALLIBLE file_lock(const char *path, int *fd, int *holder, struct fail *f);
FALLIBLE fd_cloexec(int fd);
FALLIBLE fd_nonblock(int fd);
/* Listens on a Unix socket of mode 0600 that no program gets by exec. One that nobody listens on any more is replaced;
 * ERR_BUSY: somebody does, ERR_EXISTS: it is something else, ERR_LIMIT: too long a path. f says it without the path. */
FALLIBLE fd_listen(const char *path, int backlog, int *fd, struct fail *f);
/* A pipe that no program gets by exec; -1 twice on failure. */
FALLIBLE fd_pipe(int fds[2]);
/* Writes all n bytes to a blocking fd, restarting after EINTR and short writes. */
FALLIBLE fd_write_all(int fd, const void *p, size_t n);

/* ---- secrets -----------------------------------------------------------------------
 * A secret is held in a struct secret and reaches a log, an error or a URL
 * shown to a person only as "***". Registering puts the exact value on the
 * scrub list that log_* and fail_set apply to every text they emit. */
struct secret {
	char *p;
	size_t n;
};
FALLIBLE secret_set(struct secret *s, struct str value);   /* copies, registers; n < 4 is not scrubbed */
void secret_free(struct secret *s);                        /* wipes, deregisters */
struct str secret_reveal(const struct secret *s);          /* only at the edge that sends it */
/* Replaces every registered value inside text[0..n) by "***" in place; returns the new length. */
size_t secret_scrub(char *text, size_t n);
/* Formats into out and scrubs it; too long a text is cut. Returns its length. */
size_t secret_fmt(char *out, size_t size, const char *fmt, va_list ap) PRINTF(3, 0);
void secret_wipe(void *p, size_t n);                       /* not optimised away */

/* ---- trace -----------------------------------------------------------------------------
 * The name of a piece of work in all programs that take part in it. */
struct trace {
	char id[33];                           /* 32 digits; "" none */
	unsigned flags;
};
#define TRACE_HEADER_SIZE 56
/* The value of a traceparent header. ERR_PARSE: it is none, *out is untouched. */
FALLIBLE trace_parse(struct str header, struct trace *out);
FALLIBLE trace_new(struct trace *out);
/* The header for something that is asked on its behalf, under a span id of its own. */
FALLIBLE trace_header(const struct trace *t, char out[TRACE_HEADER_SIZE]);

/* ---- log --------------------------------------------------------------------------------
 * One event a line. Text on a terminal, JSON lines otherwise (or as configured).
 * Never message bodies. What log_ids was given last stands in every line. */
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };
enum log_format { LOG_AUTO, LOG_TEXT, LOG_JSON };
FALLIBLE log_open(enum log_level level, enum log_format format, const char *file, struct fail *f); /* file NULL or "" = stderr */
FALLIBLE log_reopen(void);                    /* after rotation */
void log_close(void);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
FALLIBLE log_level_parse(struct str s, enum log_level *out);
const char *log_level_name(enum log_level l);
void log_ids(int64_t session, int64_t turn, const char *trace);  /* 0, NULL = none */
void log_emit(enum log_level level, const char *component, const char *fmt, ...) PRINTF(3, 4);
#define log_error(c, ...) log_emit(LOG_ERROR, c, __VA_ARGS__)
#define log_warn(c, ...)  log_emit(LOG_WARN, c, __VA_ARGS__)
#define log_info(c, ...)  log_emit(LOG_INFO, c, __VA_ARGS__)
#define log_debug(c, ...) log_emit(LOG_DEBUG, c, __VA_ARGS__)
/* The newest warning or error line (scrubbed), for `status`; "" when none. */
const char *log_last_problem(int64_t *at_us);
/* Prints and exits; allowed only before the daemon says ready and for broken invariants. */
_Noreturn void fatal(int exit_code, const char *fmt, ...) PRINTF(2, 3);

#endif
