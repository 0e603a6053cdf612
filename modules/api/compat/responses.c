/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * responses.c - later
 */
#include "api/compat/compat.h"
const struct shape responses_shape = { NULL, NULL, NULL, NULL, NULL };
