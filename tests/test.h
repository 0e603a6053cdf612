/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test.h - what a unit test needs, and no more.
 *
 *   TEST(name) { CHECK(x == 1); CHECK_STR(view, "text"); CHECK_OK(call()); }
 *   int main(int argc, char **argv) { TEST_BEGIN(argc, argv); RUN(name); return TEST_END(); }
 *
 * A test that needs data that is not there says SKIP("why") and returns. The
 * last line is "file: N passed, N failed, N skipped". Each test frees what it
 * took: the same binaries run under valgrind, ASan and with the n-th
 * allocation or system call failing (FAULT_AT, tests/fault.c). Under such a
 * fault CHECK and CHECK_OK may fail legitimately: FAULTED() tells.
 * argv[1], if given, runs only the tests whose name contains it. TEST_SKIP holds
 * names, with a blank on either side, of tests that cannot work where they run
 * (an emulator): they are said and counted as skipped.
 */
#ifndef BLUFIO_TEST_H
#define BLUFIO_TEST_H

#include "base/base.h"

extern const char *test_file_, *test_only_;
extern int test_passed_, test_failed_, test_skipped_, test_bad_, test_skip_;

/* tests/fault.c: has an injected failure been hit so far? */
bool fault_hit(void);
#define FAULTED() fault_hit()

#define TEST(name) static void test_##name(void)
#define TEST_BEGIN(argc, argv) (test_file_ = __FILE__, test_only_ = (argc) > 1 ? (argv)[1] : NULL)
#define RUN(name) do { \
	if (test_only_ && !strstr(#name, test_only_)) break; \
	test_bad_ = 0; \
	test_skip_ = test_left_out_(" " #name " "); \
	if (!test_skip_) test_##name(); \
	if (test_bad_) { test_failed_++; printf("not ok %s\n", #name); } \
	else if (test_skip_) test_skipped_++; \
	else test_passed_++; \
} while (0)
#define SKIP(why) do { printf("skip %s: %s\n", __func__, why); test_skip_ = 1; } while (0)
#define CHECK(x) do { if (!(x)) test_bad_at_(__FILE__, __LINE__, #x); } while (0)
#define CHECK_OK(x) do { enum err e_ = (x); if (e_ != OK) test_bad_at_(__FILE__, __LINE__, err_str(e_)); } while (0)
#define CHECK_ERR(x, want) do { enum err e_ = (x); if (e_ != (want)) test_bad_at_(__FILE__, __LINE__, err_str(e_)); } while (0)
#define CHECK_STR(view, z) do { struct str v_ = (view); \
	if (!str_eqz(v_, z)) { test_bad_at_(__FILE__, __LINE__, #view); printf("  got:  %.*s\n  want: %s\n", STR_ARG(v_), z); } } while (0)
/* Where shared conformance data lies ("json/test_parsing"), or NULL when absent:
 * $CONFORMANCE, else ../shared/conformance beside the project. Static storage. */
const char *test_data(const char *sub);
void test_bad_at_(const char *file, int line, const char *what);
bool test_left_out_(const char *name);
int test_end_(void);
#define TEST_END() test_end_()

#endif
