#!/bin/sh
# Makes one object of a static library and takes what is hidden out of its symbol table, so that
# inner names cannot clash with a program's own.
# usage: merge_static.sh OUTPUT INPUT OBJCOPY AR COMPILER...
set -eu
output=$1 input=$2 objcopy=$3 ar=$4
shift 4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$@" -r -nostdlib -o "$folder/sluice.o" -Wl,--whole-archive "$input" -Wl,--no-whole-archive
"$objcopy" --localize-hidden "$folder/sluice.o"
rm -f "$output"
"$ar" rcsD "$output" "$folder/sluice.o"
