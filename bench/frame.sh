#!/usr/bin/env bash
# What the frame around the policies costs: a route that asks for nothing, beside a bare Pingora with the
# same settings; over HTTP/1.1, TLS and gRPC; and the full chain with a token. In interleaved rounds, in one
# run on one machine. See bench/README.md.
#
#   ROUNDS=6 SECONDS_EACH=2 THREADS=1 PROFILE=release BEFORE=FILE ONLY='plain*' bench/frame.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-6}
SECONDS_EACH=${SECONDS_EACH:-2}
CALLS_PER_SECOND=${CALLS_PER_SECOND:-20000}    # of gRPC
THREADS=${THREADS:-1}                          # of each proxy
PROFILE=${PROFILE:-release}
ONLY=${ONLY:-*}                                # rows, by a pattern

. bench/common.sh
. bench/rounds.sh

# bare NAME [arguments]: a bare Pingora; leaves an entry of the rounds in $at.
declare -A at
bare() {
    local name=$1
    shift
    free_port
    start "$name" "$built/examples/bare_proxy" "127.0.0.1:$port" "${upstream#http://}" "$THREADS" "$@"
    at[$name]="$pid|http://127.0.0.1:$port"
}

# ours NAME CONFIGURATION [BINARY]: the same for Portcullis.
ours() {
    free_port
    TLS_PORT=$port
    binary=${3-} gateway "$1" "$2" off
    at[$1]="$pid|http://127.0.0.1:$port"
    at[$1-tls]="$pid|https://127.0.0.1:$TLS_PORT"
}

# row TEXT BASE NAME TO_REACH PATH: one line of the table.
row() {
    local text=$1 base=$2 name=$3 reach=$4 path=$5 entries cost before=
    # shellcheck disable=SC2053 # It is a pattern.
    [[ $text == $ONLY ]] || return 0
    entries=("$base|${at[$base]}$path" "$name|${at[$name]}$path")
    [ -z "${BEFORE-}" ] || entries+=("before|${at[before-$name]}$path")
    for entry in "${entries[@]}"; do
        if [ "$PROTOCOL" = h2c ]; then says_ok "$base" "${entry##*|}"
        else answers "$base" "${entry##*|}" -k ${token:+-H "Authorization: Bearer $token"}; fi
    done
    printf '%s\n' "$text" >&2
    rounds "${entries[@]}"
    read -ra cost < <(costs "$base" "$name")
    if [ -n "${BEFORE-}" ]; then
        read -ra before < <(costs "$base" before)
        before=" ${before[1]} | ${before[2]} |"
    fi
    printf '| %s | %s |%s %s | %s | %s |\n' "$text" "${cost[0]}" "$before" "${cost[1]}" "${cost[2]}" "$reach"
}

build --workspace --bin demo_upstream --example bare_proxy --example bench_upstream

servers
upstream=$plain
export TLS_PORT

for build in '' ${BEFORE:+"$BEFORE"}; do
    before=${build:+before-}
    PROTOCOL=http1
    ours "${before}plain" bench/plain.yaml "$build"
    ours "${before}full" bench/full-chain.yaml "$build"
    upstream=$calls PROTOCOL=h2c
    ours "${before}grpc" bench/plain.yaml "$build"
    upstream=$plain
done
bare bare
bare bare-tls "$BENCH_CERTIFICATE" "$BENCH_KEY"
at[bare-tls]=${at[bare-tls]/http:/https:}
upstream=$calls
bare bare-h2c h2c

printf '%s, %s cores, %s proxy threads, %s rounds of %ss, %s\n\n' "$(uname -sm)" \
    "$(getconf _NPROCESSORS_ONLN)" "$THREADS" "$ROUNDS" "$SECONDS_EACH" "$PROFILE"
printf '| CPU µs/request | bare |%s Portcullis | × bare | to reach |\n|---|---|---|---|---|%s\n' \
    "${BEFORE:+ before | × bare |}" "${BEFORE:+---|---|}"
PROTOCOL=http1 token=
for CONNECTIONS in 64 512; do
    row "plain route, $CONNECTIONS connections" bare plain 1.15 /bench/1
done
for CONNECTIONS in 64 512; do
    row "plain route over TLS, $CONNECTIONS connections" bare-tls plain-tls 1.15 /bench/1
done
CONNECTIONS=64 token=$(curl -sf "$issuer/token")
row "full chain with a token, 64 connections" bare full 1.20 /bench/1
PROTOCOL=h2c token=
CONNECTIONS=8 STREAMS=8
row "gRPC, plain route, 8 connections of 8 streams" bare-h2c grpc 1.20 /bench/Say
CONNECTIONS=64 STREAMS=1
row "gRPC, plain route, 64 connections of 1 stream" bare-h2c grpc 1.20 /bench/Say
