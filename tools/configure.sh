#!/bin/sh
# Configures a build folder unless it is configured already.
# usage: configure.sh FOLDER [MESON SETUP OPTION...]
set -eu
folder=$1
shift
[ -f "$folder/build.ninja" ] || meson setup "$folder" "$@"
