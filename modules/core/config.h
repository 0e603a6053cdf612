/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config.h - what the configuration's files share with one another: keys
 * (config_key.c), values (config_value.c), the file (config_file.c), loading
 * (config.c), editing (config_edit.c). Everybody else uses blufio.h's section.
 */
#ifndef BLUFIO_CONFIG_H
#define BLUFIO_CONFIG_H

#include "blufio.h"

#define CONFIG_BYTES_MAX (1u << 20)     /* of the file: a person wrote it */

/* A value in force. A wildcard key has one for every segment that the file names. */
struct config_value {
	const struct config_key *key;
	struct str segment;             /* what stands for the '*' */
	struct str text;                /* STRING, PATH, ENUM, URL */
	int64_t i;                      /* INT, SECONDS, USD, BOOL */
	int64_t *ids;
	size_t n_ids;
	struct secret secret;
	const char *origin;             /* NULL = has no value at all */
	bool given;                     /* by the file or the environment */
	struct config_value *next;      /* of the wildcard values */
};

/* All keys of this build, the core's first; NULL at the end. */
const struct config_key *config_key_at(size_t i);
bool config_is_wild(const struct config_key *k);
/* "pricing.*.input" -> "pricing.*" and "input". */
struct str config_split(struct str name, struct str *leaf);
/* What an error shows as an example value; never NULL. */
const char *config_example(const struct config_key *k);
/* The default as it would stand in the file; k has one. */
void config_default_put(const struct config_key *k, struct buf *out);
/* A printable start of s. Returns out. */
const char *config_shown(struct str s, char out[64]);
/* Appends '; did you mean "…"?' when a key is near: its leaf in the same section, unless full. */
void config_hint(struct str section, struct str leaf, bool full, struct buf *out);
/* Values of c: the plain keys in that order, then the wildcards; NULL at the end. */
const struct config_value *config_value_at(const struct config *c, size_t i);
/* The key a person typed, pricing."claude-x.1".input included; ERR_CONFIG with the nearest one. */
FALLIBLE config_key_find(struct str name, const struct config_key **key, struct str *segment,
    struct fail *f);
/* Its name as it stands in messages; what values it takes, in words. */
void config_name(const struct config_key *k, struct str segment, struct buf *out);
void config_want(const struct config_key *k, struct buf *out);
/* The variable that sets k ("BLUFIO__AGENT__NAME"). */
void config_env_name(const struct config_key *k, char out[128]);
void config_usd_put(int64_t nano, struct buf *out);    /* "1.00": at least two decimals */
/* Appends v as it would stand in the file; a secret as "***" unless reveal. */
void config_value_put(const struct config_value *v, bool reveal, struct buf *out);
/* Checks a text typed by a person against the key's type and appends it as TOML. */
FALLIBLE config_value_text(const struct config_key *k, struct str segment, struct str text,
    struct buf *out, struct fail *f);
/* How a name is written as one part of a dotted key: bare or quoted. */
void config_segment_put(struct str s, struct buf *out);
/* A TOML basic string. */
void config_quote_put(struct str s, struct buf *out);

/* ---- reading (config.c and config_value.c) ---- */

struct config {
	struct arena arena;             /* all texts below */
	size_t n;                       /* keys */
	struct config_value *values;    /* one for each key, in the order of config_key_at */
	struct config_value *wild, **wild_tail;
	const char *path;
	struct buf searched;
};

struct config_loader {                  /* one reading of one configuration */
	struct config *c;
	struct fail *f;
	const char *const *env;
	const char *name;               /* of the text, in messages */
	struct str text;
	struct str dir;                 /* relative paths start here ("etc/"); may be empty */
	bool raw;                       /* leave paths as they were written */
	bool secret;                    /* the text holds one */
	char where[1024];               /* place of what is looked at now */
	struct str got;                 /* its offending text */
};

/* Fails with the place and a sentence; l->where was set by config_at or by hand. */
FALLIBLE config_refuse(struct config_loader *l, const char *fmt, ...) PRINTF(2, 3);
void config_at(struct config_loader *l, unsigned line, unsigned column);
/* Fails: a name of the file that is in no table, with the nearest that is. */
FALLIBLE config_unknown_section(struct config_loader *l, struct str name);
FALLIBLE config_unknown_key(struct config_loader *l, const struct str *segs, size_t depth,
    bool table);
/* "agent.max_sessions wants …, got …; example: …" about l->got. */
FALLIBLE config_mismatch(struct config_loader *l, const struct config_value *v);
/* The one door for values: checks text by v->key's type and stores it. An empty secret, path or
 * URL leaves v unset. */
FALLIBLE config_value_set(struct config_loader *l, struct config_value *v, struct str text,
    const char *origin);
FALLIBLE config_ids_begin(struct config_loader *l, struct config_value *v);
FALLIBLE config_id_add(struct config_loader *l, struct config_value *v, struct str text);
/* NULL when unset or empty. */
const char *config_env_get(const char *const *env, const char *name);

/* ---- files and edits ---- */

/* Reads l->c->path; *readable: other users may, too. Says why it cannot be. */
FALLIBLE config_file_read(struct config_loader *l, struct buf *text, bool *readable);

struct config_files {
	struct buf path;                /* the file in use; empty when there is none */
	struct buf create;              /* where one would be made; empty when no place is known */
	struct buf searched;            /* all places, one a line */
	bool named;                     /* path was given by name: it may not exist */
};
FALLIBLE config_locate(const char *given, const char *const *env, struct config_files *out);
void config_files_free(struct config_files *cf);

/* config_edit.c: text with key set to value (TOML) and everything else as it was. *old is the
 * former value's TOML inside text, empty when it was not there. */
FALLIBLE config_edit(struct str text, const char *name, const struct config_key *k,
    struct str segment, struct str value, struct buf *out, struct str *old, struct fail *f);

#endif
