#!/bin/sh
# Installs the Debian packages that a task needs and that are missing; silent when none is.
# usage: setup.sh TASK...   tasks: build test oracle cross fuzz cover lint fmt
set -eu

cc=${CC:-cc}
missing=

# need PACKAGE PROBE...: the package is missing when the probe fails.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() {
    need "$1" command -v "$2"
}
compiles() {
    echo "#include <$1>" | "$cc" -fsyntax-only -x c -
}
links() {
    echo 'int main(void) { return 0; }' | "$cc" "$@" -x c - -o /dev/null
}

task_build() {
    case $cc in
    cc | gcc) has gcc "$cc" ;;
    clang) has clang clang ;;
    *) command -v "$cc" >/dev/null || { echo "setup: there is no compiler '$cc'" >&2; exit 1; } ;;
    esac
    has binutils objcopy
    has meson meson
    has ninja-build ninja
    has pkg-config pkg-config
    need libc6-dev compiles stdio.h
    need libjansson-dev pkg-config --exists jansson
    need libpcre2-dev pkg-config --exists libpcre2-8
    need libutf8proc-dev pkg-config --exists libutf8proc
    need liburing-dev pkg-config --exists liburing
    need libxxhash-dev pkg-config --exists libxxhash
}
task_test() {
    has g++ g++
    has universal-ctags ctags
    case $cc in
    *clang*) need libclang-rt-14-dev links -fsanitize=address ;;
    esac
}
task_oracle() {
    has nodejs node
    has npm npm
}
task_cross() {
    has gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
    need libc6-dev-arm64-cross test -e /usr/aarch64-linux-gnu/include/stdio.h
    has qemu-user qemu-aarch64
}
task_fuzz() {
    has clang clang
    need libclang-rt-14-dev links -fsanitize=address
}
task_cover() {
    has gcovr gcovr
}
task_lint() {
    has clang-tidy clang-tidy
    has cppcheck cppcheck
    has shellcheck shellcheck
}
task_fmt() {
    has clang-format-14 clang-format-14
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ] && [ -z "${CI:-}" ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}
refuse() {
    echo "setup: $1; please install:$missing" >&2
    exit 1
}

for task in "$@"; do
    "task_$task"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || refuse 'apt-get is not here'
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || refuse 'this needs root, and sudo is not here'
as_root true || refuse 'this needs root, and sudo refused'
echo "setup: installing$missing" >&2
as_root apt-get update -q >&2 || echo 'setup: apt-get update failed, trying with what is known' >&2
# shellcheck disable=SC2086 # a list of words
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing \
    </dev/null >&2 || refuse 'apt-get install failed'
