#!/usr/bin/env bash
# From the archive in dist/ to the first 200 of one's own service, on a system of Debian's smallest packages,
# without a compiler: within a minute. Then the same with the Debian package, if it is there.
# scripts/first-answer.sh [archive]. Needs mmdebstrap and Debian's packages, by the mirrors of this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'first-answer: %s\n' "$*" >&2; exit 1; }

archive=$(realpath "${1:-$(ls dist/portcullis-*-linux-gnu.tar.gz)}")
package=$(ls "$(dirname "$archive")"/*.deb 2>/dev/null || true)
# Root is taken inside a user namespace where there is none outside.
if [ "$(id -u)" != 0 ]; then
    exec unshare --map-root-user --map-auto --mount "$0" "$archive"
fi

folder=$(mktemp -d)
service=
cleanup() {
    [ -z "$service" ] || kill "$service" 2>/dev/null || true
    [ ! -e "$folder/root/pid" ] || kill "$(cat "$folder/root/pid")" 2>/dev/null || true
    rm -rf --one-file-system "$folder"
}
trap cleanup EXIT
chmod 755 "$folder"

# The system that dist/ was made on, or an older one, has no newer C library than this.
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
echo "first-answer: making a root of Debian's $release"
mmdebstrap --quiet --variant=minbase --mode=root "$release" "$folder/root" </dev/null \
    || fail "mmdebstrap could not make the root (above)"
[ -z "$(find "$folder/root/usr/bin" -name 'cc' -o -name 'gcc*' -o -name cargo)" ] || fail "the root has a compiler"

# One's own service.
mkdir "$folder/service"
echo "my own service" >"$folder/service/hello"
python3 -u -m http.server --bind 127.0.0.1 --directory "$folder/service" 0 >"$folder/service.log" 2>&1 &
service=$!
port_of_service() { sed -n 's/.* port \([0-9]*\) .*/\1/p' "$folder/service.log"; }
for _ in $(seq 100); do [ -z "$(port_of_service)" ] || break; sleep 0.1; done
upstream=$(port_of_service)
[ -n "$upstream" ] || fail "the service did not start: $(cat "$folder/service.log")"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# answers PROGRAM: what a newcomer types, with this program inside the root.
answers() {
    local start=$SECONDS
    cat >"$folder/root/portcullis.yaml" <<YAML
listeners: {public: {address: 127.0.0.1:$port}}
admin: {address: off, socket: /admin.sock}
upstreams:
  app: {endpoints: ["http://127.0.0.1:$upstream"]}
routes:
  app: {match: {path: /*}, upstream: app}
YAML
    # Of this machine's environment nothing is there.
    env -i /usr/sbin/chroot "$folder/root" "$1" check -c /portcullis.yaml
    # shellcheck disable=SC2016 # it is the inner shell's own number
    env -i /usr/sbin/chroot "$folder/root" /bin/sh -c 'echo $$ >/pid; exec "$0" run -c /portcullis.yaml' "$1" \
        >"$folder/log" 2>&1 &
    local gateway=$! answer=
    until answer=$(curl -sf --noproxy '*' --max-time 5 "http://127.0.0.1:$port/hello"); do
        kill -0 "$gateway" 2>/dev/null || fail "the gateway has ended: $(cat "$folder/log")"
        [ $((SECONDS - start)) -lt 60 ] || fail "no answer within a minute: $(cat "$folder/log")"
        sleep 0.1
    done
    [ "$answer" = "my own service" ] || fail "another answer: $answer"
    kill "$(cat "$folder/root/pid")"
    wait "$gateway" || fail "it did not end well: $(cat "$folder/log")"
    rm "$folder/root/pid"
}

start=$SECONDS
tar -xzf "$archive" -C "$folder/root/opt"
program=/opt/$(basename "$archive" .tar.gz)/portcullis
answers "$program"
took=$((SECONDS - start))
[ "$took" -lt 60 ] || fail "it took ${took}s"
echo "first-answer: from the archive to a 200 in ${took}s"

[ -n "$package" ] || exit 0
cp "$package" "$folder/root/portcullis.deb"
chroot "$folder/root" dpkg --install /portcullis.deb >"$folder/dpkg.log" 2>&1 \
    || fail "the package cannot be installed: $(cat "$folder/dpkg.log")"
chroot "$folder/root" getent passwd portcullis >/dev/null || fail "the package made no user"
chroot "$folder/root" portcullis check || fail "the file of the package is not valid"
for file in /lib/systemd/system/portcullis.service /usr/share/man/man1/portcullis.1 \
    /usr/share/doc/portcullis/THIRD-PARTY-LICENSES.txt; do
    chroot "$folder/root" dpkg --listfiles portcullis | grep -qxE "(/usr)?$file" || fail "the package has no $file"
done
answers /usr/bin/portcullis
chroot "$folder/root" dpkg --purge portcullis >"$folder/dpkg.log" 2>&1 \
    || fail "the package cannot be removed: $(cat "$folder/dpkg.log")"
[ ! -e "$folder/root/usr/bin/portcullis" ] || fail "the package leaves its program behind"
echo "first-answer: the Debian package installs, answers and is removed"
