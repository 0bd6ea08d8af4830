#!/usr/bin/env bash
# What each mode of the record costs, side by side, in interleaved rounds, with a PostgreSQL of its
# own; then how fast a journal is shipped when the database is back. See bench/README.md.
#
#   ROUNDS=3 SECONDS_EACH=10 CONNECTIONS=64 THREADS=1 ROWS=100000 PROFILE=release bench/records.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-10}
CONNECTIONS=${CONNECTIONS:-64}
THREADS=${THREADS:-1}                  # of each gateway
ROWS=${ROWS:-100000}                   # to be shipped
PROFILE=${PROFILE:-release}

. bench/common.sh
. bench/rounds.sh

# PostgreSQL refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    as() { setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; }
else
    as() { "$@"; }
fi
PATH=$PATH:$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
cluster=$(mktemp -d)
[ "$(id -u)" != 0 ] || chown postgres: "$cluster"
trap 'as pg_ctl -D "$cluster" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$cluster"; stop' EXIT

database() { as pg_ctl -D "$cluster/data" -l "$cluster/log" -w "$@" >/dev/null || fail "$(cat "$cluster/log")"; }
query() { psql -XqAt -d "$url" -c "$1"; }

(cd "$cluster" && as initdb -A trust -U postgres --no-locale -E UTF8 -D "$cluster/data" >/dev/null)
trap 'as pg_ctl -D "$cluster/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$cluster"; stop' EXIT
free_port
database -o "-h 127.0.0.1 -p $port -k $cluster -c max_connections=100" start
server=postgres://postgres@127.0.0.1:$port
for mode in async durable sync; do psql -Xqd "$server/postgres" -c "CREATE DATABASE bench_$mode"; done

build --example bench_upstream --example demo_upstream
start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url
start issuer "$built/examples/demo_upstream"
listening issuer; issuer=$url
token=$(curl -sf "$issuer/token")

path=bench/1
gateway off bench/full-chain.yaml off
runs=("off|$pid|http://127.0.0.1:$port/$path")
for mode in async durable sync; do
    gateway "$mode" bench/full-chain.yaml "$mode" "$server/bench_$mode"
    runs+=("$mode|$pid|http://127.0.0.1:$port/$path")
done
for mode in async durable; do
    gateway "$mode-sqlite" bench/full-chain.yaml "$mode"
    runs+=("$mode-sqlite|$pid|http://127.0.0.1:$port/$path")
done
for run in "${runs[@]}"; do
    IFS='|' read -r name _ url <<<"$run"
    answers "$name" "$url" -H "Authorization: Bearer $token"
done

printf '%s, %s cores, %s connections, %s proxy threads, %s rounds of %ss, %s\n\n' \
    "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$CONNECTIONS" "$THREADS" "$ROUNDS" \
    "$SECONDS_EACH" "$PROFILE"
rounds "${runs[@]}"
report off off async durable sync async-sqlite durable-sqlite

# A journal of its own, filled while the database is down.
psql -Xqd "$server/postgres" -c "CREATE DATABASE bench_drain"
gateway drain bench/full-chain.yaml durable "$server/bench_drain"
drain=$pid target=http://127.0.0.1:$port/$path
answers drain "$target" -H "Authorization: Bearer $token"
database -m fast stop
: >"$work/results"
while [ "$(requests_of drain)" -lt "$ROWS" ]; do load drain "$drain" "$target" "$SECONDS_EACH"; done
waiting=$(requests_of drain)
database start
url=$server/bench_drain
# From the first row, so that the pause before a new connection does not count.
until [ "$(query "SELECT count(*) FROM (SELECT 1 FROM invocations LIMIT 2) AS two")" = 2 ]; do sleep 0.02; done
begun=$(date +%s%N)
until [ "$(query "SELECT count(*) FROM invocations")" -ge "$waiting" ]; do sleep 0.1; done
awk -v rows="$waiting" -v nanos="$(($(date +%s%N) - begun))" 'BEGIN {
    printf "\n%d rows shipped in %.2f s: 100,000 in %.2f s\n", rows, nanos / 1e9, nanos / 1e9 / rows * 100000 }'
