#!/usr/bin/env bash
# Builds the gateway, optimised: target/release/portcullis without symbols, and its symbols beside it in
# portcullis.debug, where gdb, perf and addr2line look for them. scripts/release.sh [options of cargo build]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Stripped by Cargo, as in Cargo.toml, there would be no symbols to keep.
CARGO_PROFILE_RELEASE_STRIP=none cargo build --locked --release --bin portcullis "$@"
cd "${CARGO_TARGET_DIR:-target}/release"

if ! objcopy --version >/dev/null 2>&1; then
    echo "release: there is no objcopy (Debian: binutils): the binary keeps its symbols" >&2
    exit
fi
# Cargo's own copy stays as it is: this one is a second link to it.
objcopy --only-keep-debug portcullis portcullis.debug
objcopy --strip-all --add-gnu-debuglink=portcullis.debug portcullis portcullis.stripped
mv portcullis.stripped portcullis

# Checked here, since CI builds no release: it would take as long as everything else.
# Of the symbols, readelf complains that they name no program to load them, which is as it should be.
sections=$(readelf --sections --wide portcullis) symbols=$(readelf --sections --wide portcullis.debug 2>/dev/null)
# Not any section of debugging: `.debug_gdb_scripts`, a name of scripts, stays with the program.
if [[ $sections == *.symtab* || $sections == *.debug_info* || $sections == *.debug_line* || $sections != *.gnu_debuglink* || $symbols != *.debug_line* ]]; then
    echo "release: the binary is not stripped, or its symbols are not beside it" >&2
    exit 1
fi
