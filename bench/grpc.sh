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
MESSAGE_BYTES=20                       # of the upstream's answer, with gRPC's prefix

. bench/common.sh
. bench/rounds.sh

# load NAME PID URL SECONDS: as in rounds.sh, by h2load, which is given a number of calls. A call is one
# that brought the upstream's message: a refusal of gRPC is a 200, too, but has none.
load() {
    local name=$1 pid=$2 url=$3 calls=$(($4 * CALLS_PER_SECOND)) before after
    before=$(cpu "$pid")
    rm -f "$work/calls"
    h2load -n "$calls" -c "$CONNECTIONS" -m "$STREAMS" -d "$work/request" --log-file="$work/calls" \
        -H "content-type: application/grpc" -H "te: trailers" -H "authorization: Bearer $token" \
        "$url" >"$work/h2load"
    after=$(cpu "$pid")
    grep -q "^status codes: $calls 2xx, 0 3xx, 0 4xx, 0 5xx" "$work/h2load" \
        && grep -Eq "^traffic: .* \($((calls * MESSAGE_BYTES))\) data" "$work/h2load" \
        || fail "$name: $(cat "$work/h2load")"
    cut -f 3 "$work/calls" | sort -n | awk -v name="$name" -v calls="$calls" \
        -v rate="$(sed -n 's/^finished in .*, \(.*\) req\/s.*/\1/p' "$work/h2load")" \
        -v cpu="$(awk "BEGIN { print $after - $before }")" '
        NR == int(calls / 2) { p50 = $1 }
        NR == int(calls * 0.99) { p99 = $1 }
        END { print name, rate, p50, p99, calls, cpu }' >>"$work/results"
}

# says_ok NAME URL: one call, which must end with the status 0.
says_ok() {
    answers "$1" "$2" --http2-prior-knowledge --data-binary "@$work/request" -D "$work/head" \
        -H "content-type: application/grpc" -H "te: trailers" -H "authorization: Bearer $token"
    grep -qi '^grpc-status: 0' "$work/head" || fail "$1: $(cat "$work/head")"
}

build --example bare_proxy --example bench_upstream --example demo_upstream

# A message whose field 1 is "World".
printf '\0\0\0\0\x07\x0a\x05World' >"$work/request"
start upstream "$built/examples/bench_upstream" grpc
listening upstream; upstream=$url
start issuer "$built/examples/demo_upstream"
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
