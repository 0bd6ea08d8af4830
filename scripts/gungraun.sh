#!/bin/sh
# What runs the benches of gungraun, in the version that Cargo.toml has the library in, where this
# repository ignores it.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^gungraun = .*"=\([0-9.]*\)".*/\1/p' Cargo.toml)

[ "$(.tools/bin/gungraun-runner --version 2>/dev/null)" = "gungraun-runner $version" ] && exit
echo "gungraun: installing gungraun-runner $version into .tools; this takes some minutes"
# A debug build: compiled in a fraction of the time, and all it does is to start valgrind.
cargo install gungraun-runner --version "$version" --locked --debug --quiet --root .tools
