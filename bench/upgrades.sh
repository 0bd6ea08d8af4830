#!/usr/bin/env bash
# Upgrades in a row under load that is not ours: oha over HTTP/1.1 and over TLS, h2load over HTTP/2 in plain
# text and over TLS. Prints what each counted; ends with 1 if a request failed. See bench/README.md.
#
#   UPGRADES=100 PAUSE=1 CONNECTIONS=16 PROFILE=release bench/upgrades.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UPGRADES=${UPGRADES:-100}
PAUSE=${PAUSE:-1}                      # seconds from one upgrade to the next
CONNECTIONS=${CONNECTIONS:-16}         # of each oha
RATE=${RATE:-200}                      # requests a second, of each oha
PROFILE=${PROFILE:-release}

oha=.tools/bin/oha
[ -x "$oha" ] || { echo "upgrades: scripts/oha.sh installs oha" >&2; exit 1; }
command -v h2load >/dev/null || { echo "upgrades: there is no h2load (Debian: nghttp2-client)" >&2; exit 1; }
. bench/common.sh

build --example bench_upstream

start upstream "$built/examples/bench_upstream" 200 5
listening upstream

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log" \
    || fail "openssl: $(cat "$work/openssl.log")"
free_port; plain=127.0.0.1:$port
free_port; secure=127.0.0.1:$port
free_port; admin=127.0.0.1:$port
cat >"$work/portcullis.yaml" <<YAML
server: {threads: 2, upgrade_socket: $work/upgrade.sock, drain_timeout: 20s}
listeners:
  plain: {address: "$plain"}
  secure: {address: "$secure", tls: {certificates: [{certificate: $work/cert.pem, key: $work/key.pem}]}}
admin: {address: "$admin"}
record: {store: {sqlite: {path: $work/portcullis.db}}}
upstreams: {service: {endpoints: ["$url"]}}
routes: {all: {match: {path: /*}, upstream: service, record: {mode: off}}}
YAML
"$built/portcullis" check -c "$work/portcullis.yaml" >"$work/check.log" 2>&1 || fail "$(cat "$work/check.log")"
start gateway "$built/portcullis" run -c "$work/portcullis.yaml"
gateway=$pid
answers gateway "http://$plain/"

# The process that serves: the one that the last line about a takeover names.
serving() { sed -n 's/.* process \([0-9]*\) has taken over.*/\1/p' "$work/gateway.log" | tail -n 1; }

flag=$work/going
touch "$flag"

# load NAME COMMAND…: runs in a row until the upgrades are over; each run's output is kept.
load() {
    local name=$1 round=0
    shift
    while [ -e "$flag" ] && [ "$round" -lt 1000 ]; do
        round=$((round + 1))
        "$@" >"$work/$name.$round" 2>"$work/$name.log" || true
    done
}

seconds=10
oha_run() { "$oha" --no-tui --output-format json --insecure -z "${seconds}s" -q "$RATE" -c "$CONNECTIONS" -w "$1"; }
# A run ends with the first upgrade: h2load opens no connection in place of one that was told to go, and counts
# what it has not started as failed. So what it has started is what counts.
h2load_run() { h2load -n 4000 -c 4 -m 2 "$1"; }
loads=()
load oha-http1 oha_run "http://$plain/" & loads+=($!)
load oha-tls oha_run "https://$secure/" & loads+=($!)
load h2load-h2c h2load_run "http://$plain/" & loads+=($!)
load h2load-tls h2load_run "https://$secure/" & loads+=($!)

began=$SECONDS done_upgrades=0
for ((upgrade = 1; upgrade <= UPGRADES; upgrade++)); do
    before=$(serving)
    kill -USR2 "${before:-$gateway}"
    for _ in {1..300}; do
        now=$(serving)
        if [ -n "$now" ] && [ "$now" != "$before" ]; then break; fi
        sleep 0.05
    done
    [ "$(serving)" != "$before" ] || fail "upgrade $upgrade was not done: $(tail -n 20 "$work/gateway.log")"
    started+=("$(serving)")
    done_upgrades=$upgrade
    if [ -t 2 ]; then printf '\rupgrade %d of %d' "$upgrade" "$UPGRADES" >&2; fi
    sleep "$PAUSE"
done
if [ -t 2 ]; then printf '\n' >&2; fi
rm "$flag"
wait "${loads[@]}" || true

printf '%d upgrades in %d s\n\n' "$done_upgrades" $((SECONDS - began))
printf '%-12s %10s %10s %8s\n' load answered 'not 200' failed
failed=0
row() {
    printf '%-12s %10d %10d %8d\n' "$1" "$2" "$3" "$4"
    [ "$2" -gt 0 ] || failed=1
    if [ "$3" != 0 ] || [ "$4" != 0 ]; then failed=1; fi
}
for name in oha-http1 oha-tls; do
    read -r good other errors < <(python3 - "$work" "$name" <<'PYTHON'
import glob, json, sys
good = other = errors = 0
for path in glob.glob(f"{sys.argv[1]}/{sys.argv[2]}.[0-9]*"):
    run = json.load(open(path))
    for status, count in run["statusCodeDistribution"].items():
        if status == "200": good += count
        else: other += count
    # What the end of the run has cut off is not the gateway's.
    errors += sum(count for why, count in run["errorDistribution"].items() if "deadline" not in why)
print(good, other, errors)
PYTHON
    )
    row "$name" "$good" "$other" "$errors"
done
for name in h2load-h2c h2load-tls; do
    read -r good other errors < <(cat "$work/$name".[0-9]* | awk '
        /^requests:/ { for (i = 1; i <= NF; i++) { if ($i ~ /^started/) failed += $(i - 1); if ($i ~ /^succeeded/) { good += $(i - 1); failed -= $(i - 1) } } }
        /^status codes:/ { for (i = 1; i <= NF; i++) if ($i ~ /^[345]xx/) other += $(i - 1) }
        END { print good + 0, other + 0, failed + 0 }')
    row "$name" "$good" "$other" "$errors"
done
if [ -n "${KEEP-}" ]; then cp -r "$work" "$KEEP"; fi
exit "$failed"
