/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* json_print.h - a parsed tree written again, for tests of the round trip. */
#ifndef BLUFIO_TESTS_JSON_PRINT_H
#define BLUFIO_TESTS_JSON_PRINT_H

#include "base/json.h"

static inline void
json_print(struct jw *w, const struct json *v)
{
	bool array = json_is(v, JSON_ARRAY);

	if (!v) {
		jw_null(w);
	} else if (json_is(v, JSON_STRING)) {
		jw_str(w, v->s);
	} else if (!array && !json_is(v, JSON_OBJECT)) {
		jw_raw(w, v->raw);
	} else {
		if (array)
			jw_arr(w);
		else
			jw_obj(w);
		for (const struct json *c = v->first; c; c = c->next) {
			if (!array)
				jw_key_str(w, c->key);
			json_print(w, c);
		}
		if (array)
			jw_end_arr(w);
		else
			jw_end_obj(w);
	}
}

#endif
