/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test.c - counters of test.h and the way to the conformance data. */
#include "test.h"

#include <sys/stat.h>

const char *test_file_ = "", *test_only_;
int test_passed_, test_failed_, test_skipped_, test_bad_, test_skip_;

void
test_bad_at_(const char *file, int line, const char *what)
{
	test_bad_++;
	if (!fault_hit())      /* an injected failure explains itself */
		printf("%s:%d: %s\n", file, line, what);
}

const char *
test_data(const char *sub)
{
	static char path[1024];
	const char *root = getenv("CONFORMANCE");
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", root ? root : "../shared/conformance", sub);
	return stat(path, &st) == 0 ? path : NULL;
}

bool
test_left_out_(const char *name)
{
	const char *names = getenv("TEST_SKIP");
	bool out = names != NULL && strstr(names, name) != NULL;

	if (out)
		printf("skip%s: TEST_SKIP names it\n", name);
	return out;
}

int
test_end_(void)
{
	const char *slash = strrchr(test_file_, '/');

	printf("%s: %d passed, %d failed, %d skipped\n", slash ? slash + 1 : test_file_,
	    test_passed_, test_failed_, test_skipped_);
	return test_failed_ ? 1 : 0;
}
