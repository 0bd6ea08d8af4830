#!/usr/bin/env bash
# Unary calls of gRPC: direct, a bare Pingora, Portcullis with the full chain; HTTP/2 on both sides of
# each. In interleaved rounds, in one run on one machine. See bench/README.md.
#
#   ROUNDS=3 SECONDS_EACH=4 CONNECTIONS=8 STREAMS=8 THREADS=1 PROFILE=release BEFORE=FILE bench/grpc.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-4}        # of CALLS_PER_SECOND calls each
CALLS_PER_SECOND=${CALLS_PER_SECOND:-20000}
CONNECTIONS=${CONNECTIONS:-8}
STREAMS=${STREAMS:-8}                  # at once on each connection
THREADS=${THREADS:-1}                  # of each proxy
PROFILE=${PROFILE:-release}
PROTOCOL=h2c

. bench/common.sh
. bench/rounds.sh

build --workspace --bin demo_upstream --example bare_proxy --example bench_upstream

a_call
start upstream "$built/examples/bench_upstream" grpc
listening upstream; upstream=$url
start issuer "$built/demo_upstream"
listening issuer; issuer=$url
token=$(curl -sf "$issuer/token")

free_port; bare_port=$port
start bare "$built/examples/bare_proxy" "127.0.0.1:$port" "${upstream#http://}" "$THREADS" h2c; bare=$pid
gateway full bench/full-chain.yaml off; full=$pid full_port=$port
path=bench/Say
full_before bench/full-chain.yaml
says_ok direct "$upstream/$path"
says_ok bare "http://127.0.0.1:$bare_port/$path"
says_ok full "http://127.0.0.1:$full_port/$path"

printf '%s, %s cores, %s connections of %s streams, %s proxy threads, %s rounds of %s calls, %s\n\n' \
    "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$CONNECTIONS" "$STREAMS" "$THREADS" "$ROUNDS" \
    $((SECONDS_EACH * CALLS_PER_SECOND)) "$PROFILE"
rounds "direct|-|$upstream/$path" "bare|$bare|http://127.0.0.1:$bare_port/$path" \
    "full|$full|http://127.0.0.1:$full_port/$path" "${before_at[@]}"
report bare direct bare full "${before[@]}"
