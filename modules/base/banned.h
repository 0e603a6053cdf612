/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* banned.h - libc names that hide bugs become compile errors. The allocating
 * ones are banned because fault injection must see every allocation. */
#ifndef BLUFIO_BANNED_H
#define BLUFIO_BANNED_H
/* some C libraries have macros of these names */
#undef strcpy
#undef strcat
#undef strncpy
#undef strncat
#undef sprintf
#undef vsprintf
#undef strtok
#undef atoi
#undef atol
#undef atof
#undef localtime
#undef gmtime
#undef asprintf
#undef vasprintf
#undef strdup
#undef strndup
#undef getline
#undef gets
#undef popen
#undef tmpnam
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok atoi atol atof localtime gmtime asprintf vasprintf strdup strndup getline gets popen tmpnam
#endif
