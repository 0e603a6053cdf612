/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* openai.h - the OpenAI adapter for adapter.h: one instance, "host". */
#ifndef BLUFIO_OPENAI_H
#define BLUFIO_OPENAI_H

#define fetch_start o_fetch_start
#define fetch_cancel o_fetch_cancel
#define fetch_header o_fetch_header
#define fetch_pause o_fetch_pause
#define config_wild_str o_config_wild_str
#define config_wild_secret o_config_wild_secret
#define media_path o_media_path
#define rand_bytes o_rand_bytes
#define openai_feature o_openai_feature
#define oa_is_plain o_oa_is_plain
#define oa_question o_oa_question
#define oa_event o_oa_event
#define oa_chunk o_oa_chunk
#define oa_error o_oa_error
#define oa_over o_oa_over
#define oa_limits o_oa_limits
#define oa_answer_free o_oa_answer_free
#include "provider/openai/oa_answer.c"
#include "provider/openai/oa_question.c"
#include "provider/openai.c"

#include "adapter.h"

static const struct feature *adapter = &openai_feature;
static const char *adapter_name = "host", *adapter_model = "host/some/model";
static const char *openai_url = "https://a.example/v1", *openai_server = "";

struct str
config_wild_str(const struct config *c, const char *key, struct str segment)
{
	(void)c;
	(void)segment;
	return str_z(strcmp(key, "providers.*.base_url") == 0 ? openai_url : openai_server);
}

const struct secret *
config_wild_secret(const struct config *c, const char *key, struct str segment)
{
	static char value[] = "sk-test";
	static const struct secret key_of_tests = { value, sizeof(value) - 1 };

	(void)c;
	(void)key;
	(void)segment;
	return &key_of_tests;
}

/* Chance counts, so that it is the same in every run. */
static unsigned char openai_chance;

enum err
rand_bytes(void *p, size_t n)
{
	memset(p, 0, n);
	((unsigned char *)p)[0] = openai_chance & 31;
	((unsigned char *)p)[1] = openai_chance++ >> 5;
	return OK;
}

#endif
