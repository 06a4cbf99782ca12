#!/bin/sh
# Builds and runs tests of one build folder, then prints how many cases passed, failed and were
# skipped. GLOB, when it is not empty, chooses tests by name or by suite.
# usage: run_tests.sh FOLDER LOG GLOB [MESON TEST OPTION...]
set -u
folder=$1 log=$2 glob=$3
shift 3

if [ -n "$glob" ]; then
    all=$(meson test -C "$folder" --list 2>/dev/null | sed -n 's|^sluice:\(.*\) / \(.*\)$|\1/\2|p')
    n_options=$#
    IFS='
'
    for test in $all; do
        # shellcheck disable=SC2254 # a pattern on purpose
        case $test in
        */$glob | $glob/*) set -- "$@" "${test##*/}" ;;
        esac
    done
    unset IFS
    [ $# -gt $n_options ] || { echo "no test or suite is called '$glob'" >&2; exit 1; }
fi
rm -f "$folder/meson-logs/cases-$log"*.json
meson test -C "$folder" --print-errorlogs --logbase "cases-$log" "$@" </dev/null
status=$?
# meson puts the name of a --setup behind the name of the log.
set -- "$folder/meson-logs/cases-$log"*.json
if [ -f "$1" ]; then
    python3 tools/count_tests.py "$@" || status=1
elif [ $status = 0 ]; then
    echo "no test ran in $folder" >&2
    status=1
fi
exit $status
