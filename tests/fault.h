/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fault.h - the n-th call fails. A test binary linked with @tests/fault.flags
 * has its allocations and system calls counted; the environment says which of
 * them fails:
 *
 *   FAULT_AT=n        the n-th counted call fails, once
 *   FAULT_STICKY=1    that one and all after it
 *   FAULT_KIND=k      count and fail only: alloc, sys, all (the default)
 *   FAULT_ERRNO=e     EINTR, EIO, ENOSPC or EMFILE for system calls (EIO)
 *   FAULT_SHORT=1     read and write transfer one byte a call
 *   FAULT_VERBOSE=1   at exit: "fault: N calls" on stderr
 */
#ifndef BLUFIO_FAULT_H
#define BLUFIO_FAULT_H

#include <stdbool.h>

/* Has a failure been injected so far, in this process or one it forked? */
bool fault_hit(void);

#endif
