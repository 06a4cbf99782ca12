#!/bin/sh
# Runs one fuzz target, or each in turn, and keeps what it finds in FOLDER/found.
# usage: fuzz.sh FOLDER TARGET SECONDS
set -eu
folder=$1 target=$2 seconds=$3

status=0
for program in "$folder"/tests/fuzz/fuzz_${target:-*}; do
    if [ ! -f "$program" ] || [ ! -x "$program" ]; then continue; fi
    name=${program##*/fuzz_}
    mkdir -p "$folder/found/$name" "$folder/crashes"
    echo "== $name for $seconds s"
    "$program" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$folder/crashes/$name-" \
        "$folder/found/$name" "tests/fuzz/corpus/$name" </dev/null || status=1
    ran=yes
done
[ -n "${ran:-}" ] || { echo "no fuzz target is called '$target'" >&2; exit 1; }
exit $status
