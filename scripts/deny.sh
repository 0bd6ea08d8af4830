#!/bin/sh
# Licences, bans and sources by deny.toml, then the advisories. cargo-deny itself is installed
# where this repository ignores it, in a fixed version. Only the advisory database may be out of
# reach: then that check is left out, loudly.
set -eu
cd "$(dirname "$0")/.."

version=0.20.2
deny=.tools/bin/cargo-deny

if ! [ "$("$deny" --version 2>/dev/null)" = "cargo-deny $version" ]; then
    echo "deny: installing cargo-deny $version into .tools; this takes some minutes"
    # A debug build: compiled in a fraction of the time, and fast enough for one tree.
    cargo install cargo-deny --version "$version" --locked --debug --quiet --root .tools
fi

"$deny" --locked check --hide-inclusion-graph licenses bans sources
"$deny" --locked --config deny.toml --manifest-path tests/loom/Cargo.toml check \
    --hide-inclusion-graph licenses bans sources

if "$deny" --locked fetch db; then
    "$deny" --locked check advisories
else
    echo "deny: ADVISORIES NOT CHECKED: the advisory database cannot be reached from here" >&2
fi
