#!/bin/sh
# The load generator of bench/load.sh, in a fixed version, where this repository ignores it.
set -eu
cd "$(dirname "$0")/.."

version=1.16.0

[ "$(.tools/bin/oha --version 2>/dev/null)" = "oha $version" ] && exit
echo "oha: installing oha $version into .tools; this takes some minutes"
cargo install oha --version "$version" --locked --quiet --root .tools
