#!/usr/bin/env bash
# This version and an earlier one, on one PostgreSQL and one Redis, under load: rolled forward and back (see
# tests/two_versions.rs). scripts/two-versions.sh [COMMIT] builds the earlier one from COMMIT of this repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Before the first release: the first build that leaves rows of a journal alone that it does not know. It lacks four of
# the columns that there are now.
wanted=${1:-4cbc3d2}
commit=$(git rev-parse --quiet --verify "$wanted^{commit}") || {
    echo "two-versions: this clone has no commit $wanted: fetch it (git fetch --unshallow), or name another one" >&2
    exit 1
}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tree=$target/before/$commit
binary=$tree/portcullis

if [ ! -x "$binary" ]; then
    echo "two-versions: building $(git log -1 --format='%h, %cs' "$commit")"
    mkdir -p "$tree/source"
    git archive "$commit" | tar -x -C "$tree/source"
    # What both depend on is built once.
    cargo build --locked --bin portcullis --manifest-path "$tree/source/Cargo.toml" --target-dir "$target"
    mv "$target/debug/portcullis" "$binary"
    rm -rf "$tree/source"
fi
PORTCULLIS_BEFORE=$binary exec cargo test --locked --test integration -- two_versions --nocapture
