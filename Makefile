# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makefile - builds blufio and runs its tests. GNU make 4, no configure.
#
# A feature is an adapter file: its name is the file's name. No object depends
# on the chosen set; only the generated table build/features.c does, so another
# set compiles what is new and links again. New files join by the wildcards.
#
#   make FEATURES="telegram gateway"    these, and the defaults of the kinds
#                                       provider, storage, auth, tool not named
#   make FEATURES="-onnx"               the standard set without onnx
#
# Variables: FEATURES, PORTABLE=1 (POSIX bodies alone), CC, CFLAGS, WERROR=1,
# B (build folder), SAN (sanitizer flags), V=1 (show commands), DESTDIR, PREFIX.

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

B ?= build
PREFIX ?= /usr/local
Q := $(if $(V),,@)
on = $(filter-out 0,$($(1)))

ifneq ($(call on,STATIC),)
$(error STATIC=1 is not available yet: a fully static blufio needs static archives of \
libcurl with a TLS library, libsqlite3 and libz, best made with musl. Build without STATIC)
endif

# ---- which features ------------------------------------------------------------

KINDS := channel api provider storage embedding skill observability auth tool
ADAPTERS := $(sort $(wildcard $(KINDS:%=modules/%/*.c)))
KNOWN := $(sort $(basename $(notdir $(ADAPTERS))))
of_kind = $(basename $(notdir $(wildcard modules/$(1)/*.c)))

ifneq ($(words $(KNOWN)),$(words $(ADAPTERS)))
$(error two adapter files have the same name among: $(ADAPTERS))
endif

STANDARD := $(filter $(KNOWN),telegram gateway anthropic openai echo sqlite onnx \
	prometheus keypair wasm $(call of_kind,tool))

MINUS := $(patsubst -%,%,$(filter -%,$(FEATURES)))
NAMED := $(filter-out -%,$(FEATURES))
UNKNOWN := $(filter-out $(KNOWN),$(NAMED) $(MINUS))
ifneq ($(UNKNOWN),)
$(error unknown feature: $(UNKNOWN) (known: $(KNOWN)))
endif

# Nothing said, or only what to leave out: the standard set.
ifeq ($(origin FEATURES)$(strip $(NAMED)),undefined)
NAMED := $(STANDARD)
else ifeq ($(strip $(NAMED)),)
NAMED := $(if $(MINUS),$(STANDARD))
endif
NAMED := $(filter-out $(MINUS),$(NAMED))

default = $(if $(filter $(call of_kind,$(1)),$(NAMED)),,$(filter $(KNOWN),$(2)))
SET := $(sort $(filter-out $(MINUS),$(NAMED) \
	$(call default,provider,anthropic echo) $(call default,storage,sqlite) \
	$(call default,auth,keypair) $(call default,tool,$(call of_kind,tool)) \
	$(if $(filter gateway,$(NAMED)),$(filter prometheus,$(KNOWN)) $(call of_kind,api))))
# What answers HTTP is nothing without the listener.
ifeq ($(filter gateway,$(SET)),)
SET := $(filter-out prometheus $(call of_kind,api) $(call of_kind,auth),$(SET))
endif

# A batch is of that API's requests.
ifeq ($(filter compat,$(SET)),)
SET := $(filter-out batch,$(SET))
endif

# ---- which sources -------------------------------------------------------------
# ev_epoll.c and ev_poll.c, X_linux.c and X_posix.c stand for the same functions:
# one of each pair is linked.

PORTABLE ?= $(if $(filter Linux,$(shell uname -s)),,1)
SHARED := $(wildcard modules/base/*.c modules/crypto/*.c modules/core/*.c)
ifneq ($(call on,PORTABLE),)
SHARED := $(filter-out %_linux.c %/ev_epoll.c,$(SHARED))
else
SHARED := $(filter-out %/ev_poll.c $(patsubst %_linux.c,%_posix.c,$(filter %_linux.c,$(SHARED))), \
	$(SHARED))
endif
SHARED := $(sort $(SHARED))
# An adapter's engines, if it has any, stand in a folder of its name: modules/KIND/NAME/.
ENGINES := $(sort $(foreach f,$(KNOWN),$(wildcard $(KINDS:%=modules/%/$(f)/*.c))))
CHOSEN := $(foreach f,$(SET),$(wildcard $(KINDS:%=modules/%/$(f).c) $(KINDS:%=modules/%/$(f)/*.c)))

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIB_OBJS := $(call obj,$(SHARED) $(ADAPTERS) $(ENGINES)) $(B)/features.o
BLUFIO_OBJS := $(call obj,blufio.c $(SHARED) $(CHOSEN)) $(B)/features.o

# ---- flags -----------------------------------------------------------------------

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wcast-qual -Wwrite-strings -Wpointer-arith -Wvla -Wformat=2 -Wundef \
	-Wswitch-enum -Wnull-dereference $(if $(call on,WERROR),-Werror)
HARDEN := -fPIE -fno-strict-overflow -fstack-protector-strong \
	$(if $(SAN)$(filter -O0,$(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
# Tables to unwind by are for exceptions, which C has not; debuggers have their own (.debug_frame).
SMALL := -ffunction-sections -fdata-sections $(if $(SAN),,-fno-asynchronous-unwind-tables)
# Sizes of files, inode numbers and times have 64 bits on 32-bit machines too.
WIDE := -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64
ALL_CFLAGS = -std=c11 -D_POSIX_C_SOURCE=200809L $(WIDE) $(WARN) $(HARDEN) $(SMALL) \
	-Imodules $(CFLAGS) $(SAN)
# What works on bytes is fast; what is built on it waits for disks and networks, and is small (a level other than -O2 stays).
FAST := $(patsubst %,modules/base/%.c,buf deflate http json str utf8 ws) modules/crypto/sha2.c
SMALLEST := $(shell $(CC) -Oz -E -x c /dev/null >/dev/null 2>&1 && echo -Oz || echo -Os)
OBJ_CFLAGS = $(if $(filter $(FAST),$<),$(ALL_CFLAGS),$(ALL_CFLAGS:-O2=$(SMALLEST)))
# A table of pointers in a program that may be loaded anywhere costs 24 bytes a pointer; packed, where the C library
# reads that (glibc 2.36), next to nothing.
hash := \#
PACKED := $(shell printf '%s\n' '$(hash)include <features.h>' \
	'$(hash)if defined(__x86_64__) && defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 36)' \
	packed '$(hash)endif' | $(CC) -E -P - 2>/dev/null | grep -qx packed && echo -Wl,-z,pack-relative-relocs)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed $(PACKED) $(SAN) $(LDFLAGS)
LIBS := -lcurl -lsqlite3 -lz -lm -lpthread

# ---- building -----------------------------------------------------------------------

## all: the program, build/blufio (the default)
.PHONY: all
all: $(B)/blufio
	@strip -o $(B)/.stripped $(B)/blufio
	@echo "$(B)/blufio: $$(wc -c <$(B)/blufio) bytes, $$(wc -c <$(B)/.stripped) stripped;" \
	    "$(words $(SET)) features: $(SET)"
	@rm -f $(B)/.stripped
	@echo "next:  $(B)/blufio shell    talk to it here"
	@echo "       $(B)/blufio serve    run it for good"

.PHONY: FORCE
FORCE:

# $(call when_changed,TEXT-COMMAND): $@ is touched only when its text changes.
when_changed = @mkdir -p $(@D); new=$@.$$$$; { $(1); } >$$new; \
	if cmp -s $$new $@; then rm $$new; else mv $$new $@; fi

$(B)/features.c: FORCE
	$(call when_changed,echo '#include "blufio.h"'; echo; \
	    for f in $(SET); do echo "extern const struct feature $${f}_feature;"; done; echo; \
	    echo 'const struct feature *const features[] = {'; \
	    for f in $(SET); do echo "	&$${f}_feature$(comma)"; done; echo '	NULL'; echo '};')
comma := ,

$(B)/flags: FORCE
	$(call when_changed,echo '$(CC) $(filter-out -Werror,$(ALL_CFLAGS)) | $(FAST) $(SMALLEST) | $(ALL_LDFLAGS)')

$(B)/blufio.list: FORCE
	$(call when_changed,printf '%s\n' $(BLUFIO_OBJS))

$(B)/lib.list: FORCE
	$(call when_changed,printf '%s\n' $(LIB_OBJS))

# The compiler and the three headers, looked for once a build folder.
$(B)/deps.ok:
	@CC='$(CC)' sh scripts/deps.sh check build
	@mkdir -p $(@D) && touch $@

$(B)/obj/%.o: %.c $(B)/flags | $(B)/deps.ok
	@mkdir -p $(@D)
	@echo "  cc    $<"
	$(Q)$(CC) $(OBJ_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/tests/%.o: tests/%.c $(B)/flags | $(B)/deps.ok
	@mkdir -p $(@D)
	@echo "  cc    $<"
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -c -o $@ $<

$(B)/features.o: $(B)/features.c $(B)/flags | $(B)/deps.ok
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/blufio: $(BLUFIO_OBJS) $(B)/blufio.list
	@echo "  link  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(BLUFIO_OBJS) $(LIBS)

# Everything but main(), all adapters included: what test programs link with.
# Members may share a name, so the archive is made anew by appending.
$(B)/libblufio.a: $(LIB_OBJS) $(B)/lib.list
	@rm -f $@
	$(Q)ar qcs $@ $(LIB_OBJS)

# ---- test programs ---------------------------------------------------------------------

CONFORMANCE ?= $(abspath ../shared/conformance)
export CONFORMANCE
TEST_OBJS := $(call obj,tests/test.c tests/fault.c)
UNIT := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/unit/test_*.c)))
FUZZ := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
E2E := $(sort $(wildcard tests/e2e/test_*.py))
# Linked before the library, these take the place of its clock, poller, network and worker.
SIM_OBJS := $(call obj,$(addprefix tests/replay/,clock.c net.c work.c telegram.c claude.c day.c))
.SECONDARY: $(SIM_OBJS) $(call obj,$(patsubst $(B)/%,%.c,$(UNIT) $(FUZZ))) $(TEST_OBJS)

$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(TEST_OBJS) $(B)/libblufio.a tests/fault.flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) @tests/fault.flags -o $@ $< $(TEST_OBJS) $(B)/libblufio.a $(LIBS)

$(B)/tests/fuzz/fuzz_turn: $(SIM_OBJS)
$(B)/tests/fuzz/%: $(B)/obj/tests/fuzz/%.o $(B)/libblufio.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(B)/libblufio.a $(LIBS)

REPLAY := $(addprefix $(B)/tests/replay/,replay timed)
$(REPLAY): $(B)/tests/replay/%: $(B)/obj/tests/replay/%.o $(SIM_OBJS) $(TEST_OBJS) $(B)/libblufio.a tests/fault.flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) @tests/fault.flags -o $@ $(filter %.o,$^) $(B)/libblufio.a $(LIBS)

$(B)/tests/leak/planted: $(B)/obj/tests/leak/planted.o
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $<

$(B)/killpoint.so: tests/kill/killpoint.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -O2 -g -fPIC -shared -Wall -Wextra -o $@ $< -ldl

# The names of this machine's system calls, as the compiler knows them.
$(B)/step: tests/kill/step.c
	@mkdir -p $(@D)/step.d
	$(Q)echo '#include <sys/syscall.h>' | $(CC) -E -dM - | \
	    sed -n 's/^#define __NR_\([a-z0-9_]*\) .*/{ "\1", __NR_\1 },/p' >$(@D)/step.d/syscalls.h
	$(Q)$(CC) -std=c11 -O2 -g -Wall -Wextra -I$(@D)/step.d -o $@ $<

# The daemon over a VFS that writes down what it asks of the disk.
CRASH := $(B)/tests/crash/blufio-crash
$(CRASH): $(B)/obj/tests/crash/vfs.o $(BLUFIO_OBJS) $(B)/blufio.list
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -Wl,--wrap=sqlite3_open_v2 -o $@ $< $(BLUFIO_OBJS) $(LIBS)

# The daemon with routes for tests alone: the table of features of this build, and one more.
ECHO := $(B)/tests/e2e/blufio-echo
$(B)/obj/tests/e2e/features.o: $(B)/features.c $(B)/flags
	@mkdir -p $(@D)
	$(Q)awk '/^const/ { print "extern const struct feature echo_route_feature;" } \
	    /NULL/ { print "\t&echo_route_feature," } 1' $< >$(@:.o=.c)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $(@:.o=.c)
$(ECHO): $(call obj,tests/e2e/echo_route.c) $(B)/obj/tests/e2e/features.o $(BLUFIO_OBJS) $(B)/blufio.list
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter-out $(B)/features.o,$(filter %.o,$^)) $(LIBS)

$(B)/drip.so $(B)/haste.so: $(B)/%.so: tests/e2e/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -O2 -g -fPIC -shared -Wall -Wextra -o $@ $<

$(B)/failpoint.so: tests/torture/failpoint.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -O2 -g -fPIC -shared -Wall -Wextra -o $@ $< -ldl

# ---- tests ---------------------------------------------------------------------------------
# Each prints what it counted, and fails when that is nothing.

SUITE = B='$(B)' sh scripts/suite.sh
ASAN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
export BLUFIO ?= $(abspath $(B)/blufio)

## check: unit and e2e tests
.PHONY: check
check: unit e2e

## unit: unit and conformance tests (ONLY=name: one of them)
.PHONY: unit unit-programs
unit-programs: $(UNIT)
unit: $(UNIT)
	@MALLOC_PERTURB_=165 $(SUITE) unit $(if $(ONLY),$(filter %test_$(ONLY),$(UNIT)),$(UNIT))

## e2e: the program against fake servers, under a limit of 32 MB (ONLY="names": these files)
.PHONY: e2e
e2e: export E2E_MEMORY ?= 32
e2e: $(B)/blufio $(B)/drip.so $(B)/haste.so $(if $(filter gateway,$(SET)),$(ECHO))
	@$(SUITE) e2e $(if $(ONLY),$(filter $(ONLY:%=tests/e2e/test_%.py),$(E2E)),$(E2E))

## clients: programs of others against the gateway: curl, WebSocket of Python and node, Autobahn's cases, Prometheus
.PHONY: clients
clients: $(B)/blufio $(ECHO)
	@B='$(B)' sh scripts/deps.sh install clients
	@PATH="$(abspath $(B))/clients/python/bin:$$PATH" $(SUITE) clients $(sort $(wildcard tests/clients/test_*.py))

## replay: days under a clock and peers of our own, byte for byte (ONLY=name)
.PHONY: replay
replay: $(REPLAY)
	@for p in $(REPLAY); do $$p $(ONLY) || exit 1; done

## kill: kill -9 at the system calls of a scripted day, restart, compare
.PHONY: kill
kill: $(B)/blufio $(B)/killpoint.so $(B)/step
	@KILLPOINT=$(abspath $(B)/killpoint.so) STEP=$(abspath $(B)/step) $(SUITE) kill tests/kill/campaign.py tests/kill/step.py

## crash: images of a power failure at every write and sync, checked and started (CRASH_MAX=images)
.PHONY: crash
crash: $(B)/blufio $(CRASH)
	@CRASH=$(abspath $(CRASH)) LIMIT=$${LIMIT:-3600} $(SUITE) crash tests/crash/images.py

## portable: the POSIX bodies alone: unit tests, e2e tests of processes and a day (ONLY=names: others)
.PHONY: portable
portable:
	@$(MAKE) --no-print-directory B=$(B)/portable PORTABLE=1 ONLY= unit
	@$(MAKE) --no-print-directory B=$(B)/portable PORTABLE=1 BLUFIO=$(abspath $(B)/portable/blufio) \
	    ONLY='$(or $(ONLY),answers commit day shell)' e2e

## cross: built and tried for musl, 32 bit, aarch64 and big endian, as far as that can be installed
.PHONY: cross
cross:
	@B='$(B)' MAKE='$(MAKE)' sh scripts/cross.sh

## asan: unit and e2e tests under AddressSanitizer and UBSan
.PHONY: asan
asan:
	@E2E_MEMORY=0 E2E_SLOW=$${E2E_SLOW:-4} $(MAKE) -k --no-print-directory B=$(B)/asan SAN='$(ASAN)' CFLAGS='-O1 -g' \
	    BLUFIO=$(abspath $(B)/asan/blufio) ONLY='$(ONLY)' check

## valgrind: unit tests and an e2e day, every kind of leak, descriptors too
.PHONY: valgrind
valgrind: $(UNIT) $(B)/blufio $(B)/tests/leak/planted
	@B='$(B)' sh scripts/valgrind.sh $(UNIT)

## torture: the n-th allocation or call fails, in unit tests and a whole turn (TORTURE_MAX=points)
.PHONY: torture
torture: $(UNIT) $(B)/blufio $(B)/failpoint.so
	@FAILPOINT_SO=$(abspath $(B)/failpoint.so) sh scripts/torture.sh $(UNIT)

## coverage: lines run and branches taken, per file (UNCOVERED=file.c: those never taken)
.PHONY: coverage
coverage:
	@MAKE='$(MAKE)' B='$(B)' sh scripts/coverage.sh

## fuzz: every parser with libFuzzer (T=60 seconds each; ONLY=name)
.PHONY: fuzz fuzz-run
T ?= 60
fuzz:
	@$(MAKE) --no-print-directory B=$(B)/fuzz CC=clang CFLAGS='-O1 -g' FUZZING=1 \
	    SAN='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' \
	    T=$(T) ONLY='$(ONLY)' fuzz-run
fuzz-run: $(if $(ONLY),$(filter %fuzz_$(ONLY),$(FUZZ)),$(FUZZ))
	@B='$(B)' T='$(T)' sh scripts/fuzz.sh $^

## lint: the rules a machine can check
.PHONY: lint
lint: $(B)/blufio $(B)/libblufio.a
	@CC='$(CC)' B='$(B)' sh scripts/lint.sh

## audit: licences, versions, banned functions and vulnerabilities against docs/DEPENDENCIES.md
.PHONY: audit
audit: $(B)/blufio
	@sh scripts/deps.sh install audit
	@CC='$(CC)' sh scripts/audit.sh $(B)/blufio

## budget: lines of code a ring
.PHONY: budget
budget:
	@sh scripts/budget.sh

.PHONY: print-sources
print-sources:
	@echo blufio.c $(SHARED) $(CHOSEN)

## matrix: no feature, each alone, a misspelt one: they must link (or be refused)
.PHONY: matrix
matrix:
	@MAKE='$(MAKE)' B='$(B)/matrix' KNOWN='$(KNOWN)' sh scripts/features.sh matrix

## features: the adapters there are, one line each
.PHONY: features
features:
	@SET='$(SET)' sh scripts/features.sh list $(ADAPTERS)

## bench: the figures of docs/BENCH.md
.PHONY: bench
bench: $(B)/blufio
	@test -f tests/bench/bench.py || { echo 'bench: tests/bench/bench.py is not there'; exit 1; }
	@python3 tests/bench/bench.py

## install: into DESTDIR and PREFIX (/usr/local)
.PHONY: install
install: $(B)/blufio
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/doc/blufio'
	install -s -m 755 $(B)/blufio '$(DESTDIR)$(PREFIX)/bin/blufio'
	install -m 644 LICENSE-MIT LICENSE-APACHE $(wildcard README.md) docs/*.md \
	    '$(DESTDIR)$(PREFIX)/share/doc/blufio'

## clean: removes the build folder
.PHONY: clean
clean:
	rm -rf '$(B)'

## help: this list
.PHONY: help
help:
	@sed -n 's/^## \([a-z0-9]*\): /\1	/p' Makefile | while IFS='	' read -r t text; do \
	    printf '  make %-10s %s\n' "$$t" "$$text"; done
	@echo '  variables: FEATURES PORTABLE CC CFLAGS WERROR B SAN V DESTDIR PREFIX'
	@echo '  features:  $(KNOWN)'

# Header dependencies of whatever has been built.
-include $(patsubst %.o,%.d,$(LIB_OBJS) $(B)/obj/blufio.o $(TEST_OBJS) $(call obj,tests/e2e/echo_route.c))
-include $(patsubst $(B)/%,$(B)/obj/%.d,$(UNIT) $(FUZZ) $(REPLAY)) $(SIM_OBJS:.o=.d)
