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
as() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    as() { setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; }
fi
PATH=$PATH:$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)

database() { (cd "$cluster" && as pg_ctl -D data -l log -w "$@" >/dev/null) || fail "$(cat "$cluster/log")"; }
query() { psql -XqAt -d "$server/$1" -c "$2"; }
# until_rows DATABASE COUNT: waits until so many are there.
until_rows() {
    for _ in {1..1200}; do
        [ "$(query "$1" "SELECT count(*) FROM (SELECT 1 FROM invocations LIMIT $2) AS found")" = "$2" ] && return
        sleep 0.05
    done
    fail "$1 has not got its $2 rows"
}

cluster=$(mktemp -d)
trap 'database -m immediate stop 2>/dev/null || true; rm -rf "$cluster"; stop' EXIT
[ "$(id -u)" != 0 ] || chown postgres: "$cluster"
(cd "$cluster" && as initdb -A trust -U postgres --no-locale -E UTF8 -D data >/dev/null)
free_port
printf "listen_addresses = '127.0.0.1'\nport = %s\nunix_socket_directories = '%s'\n" \
    "$port" "$cluster" >>"$cluster/data/postgresql.conf"
printf 'min_wal_size = 2GB\nmax_wal_size = 8GB\n' >>"$cluster/data/postgresql.conf"
server=postgres://postgres@127.0.0.1:$port
database start
# A database that has been in use for a while writes its log over files that it has; a new one makes each
# of them when it is needed, and a commit waits for that.
for _ in {1..100}; do
    query postgres "SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()" >/dev/null
done
query postgres CHECKPOINT
for mode in async durable durable_unsynced sync drain; do query postgres "CREATE DATABASE bench_$mode"; done

build --workspace --bin demo_upstream --example bench_upstream
start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url
start issuer "$built/demo_upstream"
listening issuer; issuer=$url
token=$(curl -sf "$issuer/token")

path=bench/1
gateway off bench/full-chain.yaml off
runs=("off|$pid|http://127.0.0.1:$port/$path")
for mode in async durable sync; do
    gateway "$mode" bench/full-chain.yaml "$mode" "$server/bench_$mode"
    runs+=("$mode|$pid|http://127.0.0.1:$port/$path")
done
export BENCH_FSYNC=false
gateway durable-unsynced bench/full-chain.yaml durable "$server/bench_durable_unsynced"
runs+=("durable-unsynced|$pid|http://127.0.0.1:$port/$path")
unset BENCH_FSYNC
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
report off off async durable durable-unsynced sync async-sqlite durable-sqlite

# A journal of its own, filled while the database is down.
gateway drain bench/full-chain.yaml durable "$server/bench_drain"
drain=$pid target=http://127.0.0.1:$port/$path
answers drain "$target" -H "Authorization: Bearer $token"
database -m fast stop
: >"$work/results"
while [ "$(requests_of drain)" -lt "$ROWS" ]; do load drain "$drain" "$target" "$SECONDS_EACH"; done
waiting=$(requests_of drain)
database start
# From the first rows, so that the pause before a new connection does not count.
until_rows bench_drain 2
first=$(query bench_drain "SELECT count(*) FROM invocations") begun=$(date +%s%N)
until_rows bench_drain "$waiting"
awk -v rows="$((waiting - first))" -v nanos="$(($(date +%s%N) - begun))" 'BEGIN {
    printf "\n%d rows shipped in %.2f s: 100,000 in %.2f s\n", rows, nanos / 1e9, nanos / 1e9 / rows * 100000 }'
