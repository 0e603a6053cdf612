/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * config.h - what the configuration's files share with one another: keys
 * (config_key.c), values (config_value.c), loading (config.c), editing
 * (config_edit.c). Everybody else uses blufio.h's section.
 */
#ifndef BLUFIO_CONFIG_H
#define BLUFIO_CONFIG_H

#include "blufio.h"

#define CONFIG_BYTES_MAX (1u << 20)     /* of the file: a person wrote it */
#define CONFIG_TREE_MAX (32u << 20)     /* its parsed tree */
#define CONFIG_SEGMENTS_MAX 3           /* of a key's name */
#define CONFIG_LIST " next: `blufio config keys` lists all"

/* A value in force. A wildcard key has one more for every segment that the file names. */
struct config_value {
	const struct config_key *key;
	struct str segment;             /* what stands for the '*' */
	struct str text;                /* as a person types it; "***" of a secret; none of lists */
	int64_t i;                      /* INT, SECONDS, USD, BOOL */
	int64_t *ids;
	size_t n_ids;
	const char **argv;              /* ARGV, NULL-terminated */
	size_t n_argv;
	struct secret secret;
	const char *origin;             /* NULL = has no value at all */
	bool given;                     /* by the file or the environment */
	struct config_value *next;
};

struct config {
	struct arena arena;             /* all of its texts */
	struct config_value *values, **tail;    /* the keys in their order, then the wildcards */
	const char *path;               /* NULL = no file */
	struct str searched;
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
	bool item;                      /* what is set is one item of a list in a file */
	char where[1024];               /* place of what is looked at now, for messages */
	struct str got;                 /* its offending text */
};

/* ---- keys (config_key.c) ---- */

/* All keys of this build, the core's first; NULL at the end. */
const struct config_key *config_key_at(size_t i);
bool config_is_wild(const struct config_key *k);
/* "pricing.*.input" -> "pricing.*" and "input". */
struct str config_split(struct str name, struct str *leaf);
/* The key that these parts name, or NULL; *section: they begin the name of one. */
const struct config_key *config_find(const struct str *segs, size_t n, bool *section);
/* The key a person typed, pricing."claude-x.1".input included; ERR_CONFIG with the nearest one. */
FALLIBLE config_key_find(struct str name, const struct config_key **key, struct str *segment,
    struct fail *f);
/* The parts of k's name, segment in place of '*'; returns how many. */
size_t config_segments(const struct config_key *k, struct str segment,
    struct str segs[CONFIG_SEGMENTS_MAX]);
/* Parts joined as TOML has it, each bare or quoted; a whole name. */
void config_join(const struct str *segs, size_t n, struct buf *out);
void config_name(const struct config_key *k, struct str segment, struct buf *out);
/* A printable start of s. Returns out. */
const char *config_shown(struct str s, char out[64]);
/* Appends '; did you mean "…"?' when a key is near, else ';'. Its leaf is enough unless full. */
void config_hint(struct str section, struct str leaf, bool full, struct buf *out);
/* Fails: segs[depth] of the file (a table?) is in no key's name. */
FALLIBLE config_unknown(struct config_loader *l, const struct str *segs, size_t depth, bool table);

/* ---- values (config_value.c) ---- */

const char *config_type_name(const struct config_key *k);
void config_want(const struct config_key *k, struct buf *out);  /* what it takes, in words */
const char *config_example(const struct config_key *k);         /* never NULL */
/* The default as a person types it, as it stands in the file; k has one. */
struct str config_default(const struct config_key *k);
void config_default_put(const struct config_key *k, struct buf *out);
/* v as a person types it, secrets as "***"; as it stands in the file. */
void config_value_plain(const struct config_value *v, struct buf *out);
void config_value_put(const struct config_value *v, bool reveal, struct buf *out);
/* Fails with the place and a sentence; l->where was set by config_at or by hand. */
FALLIBLE config_refuse(struct config_loader *l, const char *fmt, ...) PRINTF(2, 3);
void config_at(struct config_loader *l, unsigned line, unsigned column);
/* The one door for values: checks text by v->key's type and stores it; ids are added to those
 * there are. An empty secret, path or URL leaves v unset. */
FALLIBLE config_value_set(struct config_loader *l, struct config_value *v, struct str text,
    const char *origin);
/* The same for a value in the parsed file. */
FALLIBLE config_value_node(struct config_loader *l, struct config_value *v, const struct toml *n);
/* Checks a text typed by a person against the key's type and appends it as TOML. */
FALLIBLE config_value_text(const struct config_key *k, struct str segment, struct str text,
    struct buf *out, struct fail *f);

/* ---- files (config.c) and edits (config_edit.c) ---- */

/* NULL when unset or empty. */
const char *config_env_get(const char *const *env, const char *name);

struct config_files {                   /* texts in the arena */
	const char *path;               /* the file in use; else where one would be made, or "" */
	bool found;                     /* in use: it exists, or was given by name */
	struct str searched;            /* all places, one a line */
};
FALLIBLE config_locate(struct arena *ar, const char *given, const char *const *env,
    struct config_files *out);
/* The bytes of a configuration file, or in words why they cannot be had. */
FALLIBLE config_read(const char *path, struct buf *text, struct fail *f);
const struct config_value *config_values(const struct config *c);

/* text with key set to value (TOML) and everything else as it was. *old is the former value's
 * TOML inside text, empty when it was not there. */
FALLIBLE config_edit(struct str text, const char *name, const struct config_key *k,
    struct str segment, struct str value, struct buf *out, struct str *old, struct fail *f);

#endif
