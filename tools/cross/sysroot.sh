#!/bin/sh
# Fills a folder with the arm64 libraries that Sluice links, from the package sources of this
# machine. Needs no root and changes nothing outside the folder: apt works on a state of its own.
# Beside it goes FOLDER.ini, a machine file with the constant sysroot.
# usage: sysroot.sh FOLDER
set -eu

folder=$1
packages='libjansson4 libjansson-dev libpcre2-8-0 libpcre2-dev libutf8proc2 libutf8proc-dev liburing2 liburing-dev libxxhash0 libxxhash-dev'
stamp=$folder/packages.txt
[ "$(cat "$stamp" 2>/dev/null)" = "$packages" ] && exit 0

rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
state=$(cd "$folder/apt" && pwd)
touch "$state/status"

# run_apt COMMAND...: apt-get as an arm64 machine would run it, on the folder's state.
run_apt() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o Dir::State="$state" -o Dir::State::Lists="$state/lists" \
        -o Dir::State::status="$state/status" -o Dir::Cache="$state" \
        -o Dir::Cache::archives="$state/archives" -o APT::Sandbox::User=root "$@"
}
run_apt update >&2 || echo 'sysroot: apt-get update was not complete' >&2
# shellcheck disable=SC2086 # a list of words
(cd "$state/archives" && run_apt download $packages >&2)
for package in "$state"/archives/*.deb; do
    dpkg-deb -x "$package" "$folder"
done
rm -rf "$folder/apt"
printf "[constants]\nsysroot = '%s'\n" "$(cd "$folder" && pwd)" >"$folder.ini"
echo "$packages" >"$stamp"
