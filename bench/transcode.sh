#!/usr/bin/env bash
# A Connect call with a message of 100 bytes: passed through, and transcoded to plain JSON and back; the
# full chain around both. In interleaved rounds, in one run on one machine. See bench/README.md.
#
#   ROUNDS=4 SECONDS_EACH=3 CONNECTIONS=64 THREADS=1 PROFILE=release bench/transcode.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-4}
SECONDS_EACH=${SECONDS_EACH:-3}
CONNECTIONS=${CONNECTIONS:-64}
THREADS=${THREADS:-1}                  # of each gateway
PROFILE=${PROFILE:-release}

. bench/common.sh
. bench/rounds.sh

# route NAME [LINE…]: the full chain for the method, its route with these lines more; leaves $name.yaml.
method=gateway.v1.GatewayService/InvokeCustom
route() {
    local name=$1
    shift
    printf '%s\n' "descriptors: {gateway: {file: $PWD/conf/gateway.binpb}}" >"$work/$name.yaml"
    awk -v more="$(printf '    %s\n' "errors: connect" "$@")" '
        { sub("path: /bench/:item", "path: /'"$method"'"); print }
        /^    upstream: bench$/ { print more }' bench/full-chain.yaml >>"$work/$name.yaml"
}

build --workspace --bin demo_upstream --example bench_upstream
start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url
start issuer "$built/demo_upstream"
listening issuer; issuer=$url
token=$(curl -sf "$issuer/token")

body="{\"name\":\"$(printf 'x%.0s' {1..89})\"}"
cat >"$work/call.lua" <<EOF
wrk.method = "POST"
wrk.body = '$body'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Connect-Protocol-Version"] = "1"
EOF
wrk() { command wrk -s "$work/call.lua" "$@"; }

route passed
route transcoded "transcode: {descriptors: gateway, method: $method, http: {path: /invoke, body: '*'}}"
runs=()
for name in passed transcoded; do
    gateway "$name" "$work/$name.yaml" off
    answers "$name" "http://127.0.0.1:$port/$method" -H "Authorization: Bearer $token" \
        -H "Content-Type: application/json" -H "Connect-Protocol-Version: 1" --data "$body"
    runs+=("$name|$pid|http://127.0.0.1:$port/$method")
done

printf '%s, %s cores, %s connections, %s proxy threads, %s rounds of %ss, %s\n\n' \
    "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$CONNECTIONS" "$THREADS" "$ROUNDS" \
    "$SECONDS_EACH" "$PROFILE"
rounds "${runs[@]}"
report passed passed transcoded
