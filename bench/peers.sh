#!/usr/bin/env bash
# NGINX, HAProxy, Envoy, Traefik, Caddy, a bare Pingora and Portcullis, one thread each, before the same upstream: in
# interleaved rounds, in one run on one machine. See "Against others" in bench/README.md, and bench/peers for what
# each is told.
#
#   ROUNDS=5 SECONDS_EACH=3 PROFILE=release ONLY='tls*' PEERS='nginx envoy' bench/peers.sh
#
# Prints tables, and leaves the raw rows in $ROWS (bench/peers/rows.csv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-5}
SECONDS_EACH=${SECONDS_EACH:-3}
CALLS_PER_SECOND=${CALLS_PER_SECOND:-15000}    # of gRPC
THREADS=1                                      # of each proxy, so that their CPU time compares
PROFILE=${PROFILE:-release}
ONLY=${ONLY:-*}                                # cases, by a pattern
PEERS=${PEERS:-nginx haproxy envoy traefik caddy}
ROWS=${ROWS:-bench/peers/rows.csv}
PATH=$PATH:/usr/sbin:/usr/local/sbin

. bench/common.sh
. bench/rounds.sh
. bench/peers/start.sh

export GOMAXPROCS=$THREADS
build --workspace --bin demo_upstream --example bare_proxy --example bench_upstream
peers_installed

servers

machine="$(uname -sm), $(getconf _NPROCESSORS_ONLN) cores, one proxy thread, $ROUNDS rounds of ${SECONDS_EACH}s, $PROFILE"
printf '%s\n\n' "$machine"
versions
printf 'case,peer,round,requests_per_second,p50_us,p99_us,requests,cpu_us\n' >"$ROWS"

# compare CASE TITLE KIND PATH: starts every peer for KIND, loads all in turn, reports, and ends them.
compare() {
    local case=$1 title=$2 kind=$3 path=$4 name entries=() names=() proxies=() scheme=http
    # shellcheck disable=SC2053 # It is a pattern.
    [[ $case == $ONLY ]] || return 0
    printf '%s\n' "$title" >&2
    [ "$kind" != tls ] || scheme=https
    for name in bare portcullis $PEERS; do
        free_port
        "start_$name" "$kind" || { printf '%s: left out, %s has no such thing\n\n' "$title" "$name"; continue; }
        proxies+=("$pid")
        if [ "$PROTOCOL" = h2c ]; then says_ok "$name" "http://127.0.0.1:$port/$path"
        else answers "$name" "$scheme://127.0.0.1:$port/$path" -k; fi
        # What works for it, where that is another process than the one that was started.
        entries+=("$name|$(worker "$pid")|$scheme://127.0.0.1:$port/$path")
        names+=("$name")
    done
    rounds "${entries[@]}"
    awk -v case="$case" '$1 != "warm-up" { print case "," $1 "," ++round[$1] "," $2 "," $3 "," $4 "," $5 "," $6 }' \
        "$work/results" >>"$ROWS"
    printf '%s:\n\n' "$title"
    report portcullis "${names[@]}"
    printf '\n| resident memory, MiB |%s\n|---|%s\n| after the load |%s\n\n' \
        "$(printf ' %s |' "${names[@]}")" "$(printf -- '---|%.0s' "${names[@]}")" \
        "$(for entry in "${entries[@]}"; do IFS='|' read -r _ pid _ <<<"$entry"; printf ' %s |' "$(resident "$pid")"; done)"
    # The shell would tell of each.
    { for pid in "${proxies[@]}"; do kill -KILL "$(worker "$pid")" "$pid"; wait "$pid"; done; } 2>/dev/null || true
}

token=
PROTOCOL=http1 upstream=$plain CONNECTIONS=64
compare plain "Plain route, HTTP/1.1, 64 connections" plain bench/1
CONNECTIONS=1
compare one "Plain route, HTTP/1.1, 1 connection" plain bench/1
CONNECTIONS=64
compare tls "Plain route, TLS in front, 64 connections" tls bench/1
compare chain "Limit, retry, and failing endpoints taken out, 64 connections" chain bench/1
PROTOCOL=h2c upstream=$calls CONNECTIONS=8 STREAMS=8
compare grpc "gRPC, unary, 8 connections of 8 streams" grpc bench/Say
