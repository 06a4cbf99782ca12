# The front door: thin verbs over meson and ninja. `make help` lists them.
# Every folder under build/ is one configuration; CC=clang gives each a twin (build/debug-clang).
.DEFAULT_GOAL := debug
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

ifneq ($(filter command line environment,$(origin CC)),)
TWIN := $(patsubst %,-%,$(filter-out cc gcc,$(notdir $(CC))))
endif
T ?=
K ?=
F ?=
S ?= 60
PREFIX ?= /usr/local
PROMPT ?= Once upon a time there was

# Warnings stop a build where the machine is known: in continuous integration.
strict = -Dwerror=$(if $(CI),true,false)
# Kernels compile for minutes: what tests run has those of this machine's instruction sets.
native = -Dlevels=native
# Instrumentation misleads the warnings of gcc, so they stop nothing there.
instrumented = --buildtype=debug -Doptimization=1 -Db_lundef=false $(native)
options_release = --buildtype=release $(strict)
options_debug   = --buildtype=debugoptimized $(strict) $(native)
options_asan    = $(instrumented) -Db_sanitize=address,undefined
options_ubsan   = $(instrumented) -Db_sanitize=undefined
options_tsan    = $(instrumented) -Db_sanitize=thread
options_cover   = --buildtype=debug -Db_coverage=true $(native)
options_fuzz    = --buildtype=debugoptimized -Dfuzz=true -Db_sanitize=address,undefined \
                  -Db_lundef=false
options_cross   = --buildtype=debugoptimized $(strict) --cross-file build/sysroot-aarch64.ini \
                  --cross-file tools/cross/aarch64.ini

# What looks at the source tree and not at what is built of it.
source_suites = --no-suite lint --no-suite reject --no-suite install
folder = build/$(1)$(TWIN)
configure = tools/configure.sh $(call folder,$(1)) $(options_$(1))
run_tests = tools/run_tests.sh $(call folder,$(1)) $@ "$(T)"
sources = $$(find src apps include tests -name node_modules -prune -o -name '*.[ch]' -print)

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## let the shipped model tell a story: PROMPT="Once upon a time there was"
	@tools/setup.sh build
	@$(call configure,release) >&2
	@ninja --quiet -C $(call folder,release) apps/sluice >&2
	@printf '%s' "$(PROMPT)" >&2
	@$(call folder,release)/apps/sluice run --prompt "$(PROMPT)" -n 120 && echo

debug: ## build with assertions in build/debug (the default)
	@tools/setup.sh build
	@$(call configure,debug)
	@ninja -C $(call folder,debug)

release: ## build for speed in build/release
	@tools/setup.sh build
	@$(call configure,release)
	@ninja -C $(call folder,release)

check: ## what every commit needs, in a minute or two: all tests but the slow ones
	@tools/setup.sh build test
	@$(call configure,debug)
	@$(run_tests_check)
run_tests_check = $(call run_tests,debug) --no-suite e2e --no-suite oracle --no-suite install

test: test-debug test-memory ## every test, and the unit tests under ASan and UBSan: T=NAME or SUITE
test-debug:
	@tools/setup.sh build test
	@$(call configure,debug)
	@$(if $(T),$(setup_oracle),exec 3<&0; { $(setup_oracle); } <&3 & \
	    ninja -C $(call folder,debug); built=$$?; wait; exit $$built)
	@$(call run_tests,debug)
# npm comes with more than a hundred packages: they are installed while the compiler works.
setup_oracle = tools/setup.sh oracle || \
    echo 'without npm: tests against its packages are skipped' >&2
test-memory:
	@$(if $(T),true,$(call configure,asan))
	@$(if $(T),true,$(call run_tests,asan) --setup asan --suite unit)

kern: T = kern
kern: ## compare every kernel with its reference: K='matmul*'
	@$(call configure,debug)
	@$(call run_tests,debug) $(if $(K),--test-args="$(K)")

op: T = op
op: ## compare every op of every backend with the reference
	@$(call configure,debug)
	@$(call run_tests,debug)

sanitize: asan ubsan tsan ## every test under each sanitizer
asan: ## every test under the address and undefined behaviour sanitizers
	@tools/setup.sh build test
	@$(call configure,$@)
	@$(call run_tests,$@) --setup $@ $(source_suites)
ubsan: ## every test under the undefined behaviour sanitizer alone
	@tools/setup.sh build test
	@$(call configure,$@)
	@$(call run_tests,$@) --setup $@ $(source_suites)
tsan: ## every test under the thread sanitizer
	@tools/setup.sh build test
	@$(call configure,$@)
	@$(call run_tests,$@) --setup $@ $(source_suites)

fuzz: export CC = clang
fuzz: ## feed a parser with made-up files: F=PARSER (all when not given) S=SECONDS
	@tools/setup.sh build fuzz
	@tools/configure.sh build/fuzz $(options_fuzz)
	@ninja -C build/fuzz
	@tools/fuzz.sh build/fuzz "$(F)" $(S)

corpus: T = corpus
corpus: ## replay every file that a fuzzer has found worth keeping
	@tools/setup.sh build
	@$(call configure,asan)
	@$(call run_tests,asan) --setup asan

cover: ## measure how much of each layer the unit tests reach
	@tools/setup.sh build test cover
	@$(call configure,cover)
	@find $(call folder,cover) -name '*.gcda' -delete
	@$(call run_tests,cover) $(source_suites)
	@tools/cover.py $(call folder,cover)

lint: export CC = clang
lint: ## clang-tidy, cppcheck and shellcheck (slow)
	@tools/setup.sh build lint
	@tools/configure.sh build/lint $(options_debug) >&2
	@tools/lint.sh build/lint

fmt: ## format C as the project wants it
	@tools/setup.sh fmt
	@clang-format-14 -i $(sources)

fmt-check: ## fail when fmt would change a file
	@tools/setup.sh fmt
	@clang-format-14 --dry-run -Werror $(sources)

cross: ## build for aarch64 and run the tests under qemu
	@tools/setup.sh build cross
	@tools/cross/sysroot.sh build/sysroot-aarch64
	@tools/configure.sh build/cross $(options_cross)
	@tools/run_tests.sh build/cross $@ "$(T)" --setup cross --suite unit --suite kern --suite op --suite cross

install: ## install program, library, header, manual and the shipped model: PREFIX= DESTDIR=
	@tools/setup.sh build
	@$(call configure,release)
	@meson configure $(call folder,release) --prefix="$(abspath $(PREFIX))"
	@ninja -C $(call folder,release)
	@meson install -C $(call folder,release) --no-rebuild

dist: ## a source tarball of the last commit in build/release/meson-dist
	@tools/setup.sh build
	@$(call configure,release)
	@meson dist -C $(call folder,release) --no-tests --allow-dirty

clean: ## remove everything that was built
	rm -rf build

.PHONY: help demo debug release check test test-debug test-memory kern op sanitize asan ubsan tsan \
        fuzz corpus cover lint fmt fmt-check cross install dist clean
