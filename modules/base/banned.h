/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* banned.h - libc names that hide bugs become compile errors. The allocating
 * ones are banned because fault injection must see every allocation. */
#ifndef BLUFIO_BANNED_H
#define BLUFIO_BANNED_H
#undef strcpy
#undef strcat
#undef strncpy
#undef strncat
#undef sprintf
#undef vsprintf
#undef strtok
#undef strdup
#undef strndup
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok atoi atol atof localtime gmtime asprintf vasprintf strdup strndup getline gets popen tmpnam
#endif
