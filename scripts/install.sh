#!/usr/bin/env bash
# Lays out what is installed.
#
#   scripts/install.sh BINARY FOLDER /         flat, as in the archive
#   scripts/install.sh BINARY DESTDIR PREFIX   as a system has it: `make install`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=$(realpath "$1") destination=$2 prefix=${3%/}

if [ -z "$prefix" ]; then
    bin=$destination man=$destination/man doc=$destination examples=$destination
    bash=$destination/completions/portcullis.bash zsh=$destination/completions/_portcullis
    fish=$destination/completions/portcullis.fish
    unit=$destination/systemd users=$unit program=/usr/bin/portcullis
else
    root=$destination$prefix
    bin=$root/bin man=$root/share/man/man1 doc=$root/share/doc/portcullis examples=$doc
    bash=$root/share/bash-completion/completions/portcullis zsh=$root/share/zsh/site-functions/_portcullis
    fish=$root/share/fish/vendor_completions.d/portcullis.fish
    unit=$root/lib/systemd/system users=$root/lib/sysusers.d program=$prefix/bin/portcullis
fi

file() { install -D -m 644 "$1" "$2"; }

# made FILE COMMAND…: what a command prints.
made() {
    install -d "$(dirname "$1")"
    # Its help would show what variables are set here.
    env -i "${@:2}" >"$1"
    chmod 644 "$1"
}

install -D -m 755 "$binary" "$bin/portcullis"
made "$man/portcullis.1" "$binary" man
# Those that the help lists.
for command in $("$binary" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    if [ "$command" != help ]; then made "$man/portcullis-$command.1" "$binary" man "$command"; fi
done
made "$bash" "$binary" completions bash
made "$zsh" "$binary" completions zsh
made "$fish" "$binary" completions fish

for text in LICENSE README.md CHANGELOG.md SECURITY.md; do file "$text" "$doc/$text"; done
for folder in conf deploy docs; do
    find "$folder" -type f | while read -r path; do file "$path" "$examples/$path"; done
done
sed "s#/usr/bin/portcullis#$program#" deploy/systemd/portcullis.service | made "$unit/portcullis.service" cat
file deploy/systemd/sysusers.conf "$users/$([ -z "$prefix" ] && echo sysusers.conf || echo portcullis.conf)"
