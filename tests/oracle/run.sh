#!/bin/sh
# run.sh SCRIPT [ARGUMENT...]: runs a comparison with node, after installing what it compares with.
# Exit 77 (skipped) where there is no node or the packages cannot be had.
here=$(dirname "$0")
skip() {
    echo "SKIPPED: $1"
    exit 77
}
command -v node >/dev/null || skip "node is not installed"
if [ ! "$here/node_modules/.package-lock.json" -nt "$here/package-lock.json" ]; then
    command -v npm >/dev/null || skip "npm is not installed"
    (cd "$here" && npm ci --silent --fetch-retries=0 --fetch-timeout=30000) ||
        skip "'npm ci' in tests/oracle failed; without a network the packages cannot be had"
fi
script=$1
shift
exec node "$here/$script" "$@"
