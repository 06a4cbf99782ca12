#!/bin/sh
# Installs into an empty folder and uses what lies there as a stranger would: the program, and a C
# program built with pkg-config against the shared and the static library.
# usage: check_install.sh BUILD_FOLDER SOURCE_FOLDER COMPILER...
set -eu
build=$1 source=$2
shift 2
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
n=0

# tap NAME COMMAND...
tap() {
    name=$1
    shift
    n=$((n + 1))
    if "$@" >"$stage/log" 2>&1; then
        echo "ok $n - $name"
    else
        sed 's/^/# /' "$stage/log"
        echo "not ok $n - $name"
    fi
}

meson install -C "$build" --no-rebuild --destdir "$stage" >"$stage/log" 2>&1 ||
    { cat "$stage/log" >&2; exit 1; }
pc=$(find "$stage" -name sluice.pc)
prefix=$stage$(sed -n 's/^prefix=//p' "$pc")
export PKG_CONFIG_PATH="${pc%/*}"
flags="--define-variable=prefix=$prefix"
libdir=$(pkg-config "$flags" --variable=libdir sluice)
model=$prefix/share/sluice/models/storyteller
prompt='Once upon a time there was'

files_are_there() {
    for name in bin/sluice include/sluice/sluice.h include/sluice/version.h include/sluice/errors.def \
        include/sluice/metrics.def share/sluice/models/storyteller/config.json; do
        [ -s "$prefix/$name" ] || { echo "missing: $name"; return 1; }
    done
    [ ! -e "$model/reference.safetensors" ]
}
manual_is_there() {
    [ ! -e "$source/docs/sluice.1" ] || [ -s "$prefix/share/man/man1/sluice.1" ]
}
soname_is_versioned() {
    readelf -d "$libdir/libsluice.so" | grep -q 'SONAME.*\[libsluice\.so\.[0-9]*\]'
}
version_agrees() {
    [ "$(pkg-config --modversion sluice)" = "$("$prefix/bin/sluice" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')" ]
}
build_shared() {
    # shellcheck disable=SC2046 # words are wanted
    "$@" -std=c11 -Wall -Wextra -Werror "$source/tests/install/generate.c" -o "$stage/shared" \
        $(pkg-config "$flags" --cflags --libs sluice) "-Wl,-rpath,$libdir" &&
        readelf -d "$stage/shared" | grep -q 'NEEDED.*libsluice\.so'
}
build_static() {
    # shellcheck disable=SC2046 # words are wanted
    "$@" -std=c11 -static "$source/tests/install/generate.c" -o "$stage/static" \
        $(pkg-config "$flags" --static --cflags --libs sluice)
}
same_text() {
    "$stage/shared" "$model" "$prompt" >"$stage/shared.txt" &&
        "$stage/static" "$model" "$prompt" >"$stage/static.txt" &&
        cat "$stage/shared.txt" && [ "$(wc -c <"$stage/shared.txt")" -gt 20 ] &&
        cmp "$stage/shared.txt" "$stage/static.txt"
}
# The program finds the installed model by itself and tells the same story.
program_agrees() {
    (cd "$stage" && "$prefix/bin/sluice" run --prompt "$prompt" -n 16 --temperature 0 --ignore-eos >program.txt) &&
        cat "$stage/program.txt" &&
        [ "$(tr -d '\n' <"$stage/program.txt")" = "$(tr -d '\n' <"$stage/shared.txt")" ]
}

echo 1..8
tap 'all files are installed' files_are_there
tap 'the manual is installed' manual_is_there
tap 'the shared library has a versioned name' soname_is_versioned
tap 'a program links the shared library' build_shared "$@"
tap 'a program links the static library' build_static "$@"
tap 'both generate the same text' same_text
tap 'the installed program finds its model' program_agrees
tap 'program and pkg-config name the same version' version_agrees
