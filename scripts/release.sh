#!/usr/bin/env bash
# Builds the gateway, optimised: target/release/portcullis without symbols, and its symbols beside it in
# portcullis.debug, where gdb, perf and addr2line look for them. scripts/release.sh [options of cargo build]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Stripped by Cargo, as in Cargo.toml, there would be no symbols to keep.
CARGO_PROFILE_RELEASE_STRIP=none cargo build --locked --release --bin portcullis "$@"
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")

if ! objcopy --version >/dev/null 2>&1; then
    echo "release: there is no objcopy (Debian: binutils): the binary keeps its symbols" >&2
    exit
fi
# Cargo's own copy stays as it is: this one is a second link to it.
scripts/strip.sh "$release/portcullis" "$release/portcullis"

# 28 MiB in November 2026. What makes it grow by a third at once is a mistake: symbols, or a dependency built twice.
size=$(stat -c %s "$release/portcullis")
if [ "$size" -gt $((36 << 20)) ]; then
    echo "release: the stripped binary has $size bytes, more than 36 MiB" >&2
    exit 1
fi
