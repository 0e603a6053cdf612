/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * talk.c - a request put to the agent.
 */
#include "api/compat/compat.h"

void
talk_run(struct request *r)
{
	request_error(r, 404, "model_not_found", "model", NULL, "later");
}
