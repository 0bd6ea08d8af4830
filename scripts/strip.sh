#!/usr/bin/env bash
# Splits a program into what runs and its symbols: OUT without symbols, and OUT.debug beside it, where gdb, perf
# and addr2line look for them. scripts/strip.sh PROGRAM OUT
set -euo pipefail

program=$(realpath "$1") out=$2
# The link to the symbols is by name, relative to the program's folder.
cd "$(dirname "$out")"
out=$(basename "$out")

objcopy --only-keep-debug "$program" "$out.debug"
objcopy --strip-all --add-gnu-debuglink="$out.debug" "$program" "$out.stripped"
mv "$out.stripped" "$out"

# Of the symbols, readelf complains that they name no program to load them, which is as it should be.
sections=$(readelf --sections --wide "$out") symbols=$(readelf --sections --wide "$out.debug" 2>/dev/null)
# Not any section of debugging: `.debug_gdb_scripts`, a name of scripts, stays with the program.
if [[ $sections == *.symtab* || $sections == *.debug_info* || $sections == *.debug_line* || $sections != *.gnu_debuglink* || $symbols != *.debug_line* ]]; then
    echo "strip: $out is not stripped, or its symbols are not beside it" >&2
    exit 1
fi
