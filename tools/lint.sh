#!/bin/sh
# Static analysis that takes minutes: clang-tidy, cppcheck and shellcheck.
# usage: lint.sh BUILD_FOLDER (made with clang; for its compile_commands.json)
set -u
folder=$1
status=0

echo '== shellcheck'
find tools tests .ci -name node_modules -prune -o -type f -print0 |
    xargs -0 grep -lE "^#!/(bin/sh|usr/bin/env bash)" | xargs shellcheck || status=1

echo '== cppcheck'
cppcheck --quiet --std=c11 --enable=warning,portability --error-exitcode=1 --inline-suppr \
    --suppress=missingIncludeSystem --suppress=invalidPointerCast \
    --suppress=preprocessorErrorDirective --suppress=invalidFunctionArg \
    -j "$(nproc)" -Iinclude -Isrc src apps || status=1

echo '== clang-tidy'
find src apps -name '*.c' -print0 |
    xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet -p "$folder" --warnings-as-errors='*' || status=1
exit $status
