/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * planted.c - leaks on purpose: scripts/valgrind.sh must catch each kind.
 *
 * A leak check that has never failed proves nothing. "none" is the control.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static void *volatile keep;             /* a pointer to the block: "still reachable" */

int
main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "none";

	keep = malloc(100);
	if (keep == NULL)
		return 1;
	if (strcmp(kind, "reachable") == 0)
		return 0;
	if (strcmp(kind, "lost") == 0) {
		keep = NULL;
		return 0;
	}
	free(keep);
	if (strcmp(kind, "descriptor") == 0)
		return open("/dev/null", O_RDONLY) < 0;
	return 0;
}
