#!/usr/bin/env bash
# Makes what is released, in dist/: an archive and a Debian package for this machine's architecture, the symbols,
# a list of what is in it (SBOM), the licences of others, and checksums of all of them.
#
#   BINARY=FILE    packs this binary instead of building one; its symbols are beside it, in portcullis.debug
#   scripts/dist.sh archive     the archive alone, without what the tools of Cargo make
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=${1:-all}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$PWD/.tools
export PATH=$tools/bin:$PATH
# The same commit gives the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

fail() { printf 'dist: %s\n' "$*" >&2; exit 1; }

# tool NAME VERSION [options]: from Cargo, in a fixed version, where this repository ignores it.
tool() {
    local name=$1 wanted=$2
    shift 2
    [ "$(cat "$tools/$name.version" 2>/dev/null)" = "$wanted" ] && return
    echo "dist: installing $name $wanted into .tools; this takes some minutes"
    cargo install "$name" --version "$wanted" --locked --debug --quiet --force --root "$tools" "$@"
    echo "$wanted" >"$tools/$name.version"
}

if [ -z "${BINARY:-}" ]; then
    scripts/release.sh
    BINARY=$target/release/portcullis
fi
[ -x "$BINARY" ] || fail "$BINARY is no program"
BINARY=$(realpath "$BINARY")

name=portcullis-$version-$(rustc -vV | sed -n 's/^host: //p')
stage=$target/dist
rm -rf "$stage" dist
mkdir -p "$stage/$name" dist

archive() { # FILE, and what to pack of the stage
    local file=$1
    shift
    tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$@" \
        | gzip -n9 >"dist/$file"
}

scripts/install.sh "$BINARY" "$stage/$name" /
if [ "$what" = all ]; then
    # Without optimisation it would take half an hour.
    tool cargo-about 0.9.3 --features cli --config 'profile.dev.package.spdx.opt-level=3' \
        --config 'profile.dev.package.cargo-about.opt-level=2'
    tool cargo-cyclonedx 0.5.9
    tool cargo-deb 3.8.0

    accepted() { sed -n "/^$1 = \[/,/^\]/p" "$2" | grep '^    "' || true; }
    [ "$(accepted accepted about.toml)" = "$(accepted allow deny.toml)" ] \
        || fail "about.toml and deny.toml accept different licences"
    # Reading every file of every crate takes some minutes, and what it finds depends on these files alone.
    licences=$tools/licences-$(cat Cargo.lock about.toml about.hbs | sha256sum | cut -c 1-16).txt
    if ! [ -e "$licences" ]; then
        echo "dist: reading the licences of the crates; this takes some minutes"
        cargo fetch --locked --quiet
        cargo-about generate --locked --offline --fail -c about.toml about.hbs -o "$licences.part"
        mv "$licences.part" "$licences"
    fi
    cp "$licences" "$stage/$name/THIRD-PARTY-LICENSES.txt"

    # It writes beside each Cargo.toml of the workspace.
    sbom=portcullis-sbom
    trap 'rm -f "$sbom.json" "demo/$sbom.json"' EXIT
    cargo-cyclonedx cyclonedx -q --format json --spec-version 1.5 --no-build-deps --override-filename "$sbom"
    sed "s#$PWD##g" "$sbom.json" >"dist/$name.cdx.json"
    cp "dist/$name.cdx.json" "$stage/$name/sbom.cdx.json"
fi

archive "$name.tar.gz" "$name"
if [ "$what" = all ]; then
    symbols=$(dirname "$BINARY")/portcullis.debug
    [ -e "$symbols" ] || fail "$symbols, the symbols of the binary, is missing"
    mkdir "$stage/$name-symbols"
    cp "$symbols" "$stage/$name-symbols/"
    archive "$name-symbols.tar.gz" "$name-symbols"

    # The paths of its assets begin with target/release, which it looks for in CARGO_TARGET_DIR.
    ln -s "$name" "$stage/release"
    CARGO_TARGET_DIR=$stage cargo-deb deb --quiet --no-build --no-strip --output "$PWD/dist"
fi
(cd dist && sha256sum -- * >SHA256SUMS)

# What was packed is what was meant.
packed=$(tar -tzf "dist/$name.tar.gz")
for file in portcullis LICENSE README.md conf/portcullis.yaml man/portcullis.1 completions/portcullis.bash \
    systemd/portcullis.service; do
    grep -qx "$name/$file" <<<"$packed" || fail "$file is not in the archive"
done
(cd dist && sha256sum --check --quiet SHA256SUMS)
ls -lh dist
