/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* claude.h - the Anthropic adapter for adapter.h. */
#ifndef BLUFIO_CLAUDE_H
#define BLUFIO_CLAUDE_H

#define fetch_start c_fetch_start
#define fetch_cancel c_fetch_cancel
#define fetch_header c_fetch_header
#define fetch_pause c_fetch_pause
#define config_str c_config_str
#define config_secret c_config_secret
#define config_i64 c_config_i64
#define media_path c_media_path
#define anthropic_feature c_anthropic_feature
#include "provider/anthropic.c"

#include "adapter.h"

static const struct feature *adapter = &anthropic_feature;
static const char *adapter_name = "anthropic", *adapter_model = "claude-sonnet-5-5";

struct str
config_str(const struct config *c, const char *key)
{
	(void)c;
	return strcmp(key, "anthropic.base_url") == 0 ? S("https://a.example//") : S("claude-sonnet-5-5");
}

const struct secret *
config_secret(const struct config *c, const char *key)
{
	static char value[] = "sk-test";
	static const struct secret key_of_tests = { value, sizeof(value) - 1 };

	(void)c;
	(void)key;
	return &key_of_tests;
}

int64_t
config_i64(const struct config *c, const char *key)
{
	(void)c;
	(void)key;
	return 1000;
}

#endif
