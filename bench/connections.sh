#!/usr/bin/env bash
# What connections cost: idle ones of four kinds, slow downloads, connects to the upstream; and the memory of
# GatewayService's profile under load. See bench/README.md. COUNT connections need twice as many open
# files, of the gateway and of the client.
#
#   COUNT=10000 DOWNLOADS=200 CALLS=100000 THREADS=2 PROFILE=release bench/connections.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

COUNT=${COUNT:-10000}
DOWNLOADS=${DOWNLOADS:-200}
CALLS=${CALLS:-100000}
THREADS=${THREADS:-2}
PROFILE=${PROFILE:-release}

. bench/common.sh

ulimit -Sn "$(ulimit -Hn)"
kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
sum() { curl -sf "http://127.0.0.1:$admin/metrics" | awk -v name="$1" 'index($1, name "{") == 1 { sum += $2 } END { print sum + 0 }'; }

# proxy UPSTREAM: a gateway with one plain route; leaves $pid, $port and $admin.
proxy() {
    free_port; admin=$port
    free_port
    cat >"$work/plain.yaml" <<EOF
server: {threads: $THREADS, max_connections: 0}
listeners:
  public: {address: "127.0.0.1:$port", max_connections: 0, header_timeout: 5m, idle_timeout: 5m}
admin: {address: "127.0.0.1:$admin"}
upstreams: {bench: {endpoints: ["$1"]}}
routes: {bench: {match: {path: /*}, upstream: bench, timeout: {connect: 10s, request: 10m, idle: 10m}}}
EOF
    start gateway "$built/portcullis" run -c "$work/plain.yaml"
    answers gateway "http://127.0.0.1:$port/bench/1"
}

# The end of that gateway.
end() { kill -KILL "$pid"; wait "$pid" || true; } 2>/dev/null

# crowd KIND COUNT SECONDS: prints what a gateway holds before, with and SECONDS after that crowd.
crowd() {
    local kind=$1 count=$2 before with
    sleep 2
    before=$(kib "$pid")
    coproc CROWD { exec "$built/examples/crowd" "127.0.0.1:$port" "$kind" "$count"; }
    local leave=${CROWD[1]} crowd=$CROWD_PID
    read -r -u "${CROWD[0]}" || fail "the crowd did not come: $kind"
    sleep "$3"
    with=$(kib "$pid")
    exec {leave}>&-
    wait "$crowd"
    sleep 10
    awk -v kind="$kind" -v count="$count" -v before="$before" -v with="$with" -v after="$(kib "$pid")" \
        'BEGIN { printf "| %s × %d | %.1f | %.1f | %.1f | %.1f |\n", kind, count, before / 1024, with / 1024,
            (with - before) / count, after / 1024 }'
    end
}

build --workspace --bin demo_upstream --example bench_upstream --example crowd

start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url
start large "$built/examples/bench_upstream" 200 0 $((50 << 20))
listening large; large=$url

printf '%s, %s cores, %s proxy threads, %s\n\n' "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$THREADS" "$PROFILE"
printf '| connections | before, MiB | with them, MiB | each, KiB | 10 s after, MiB |\n|---|---|---|---|---|\n'
for kind in silent kept preface half; do
    proxy "$upstream"
    crowd "$kind" "$COUNT" 2
done
proxy "$large"
crowd slow "$DOWNLOADS" 10

printf '\n| clients | requests | connects to the upstream | each |\n|---|---|---|---|\n'
for clients in 512 5000; do
    proxy "$upstream"
    "$built/examples/crowd" "127.0.0.1:$port" busy "$clients" 60 >"$work/busy"
    requests=$(sum portcullis_requests_total) connects=$(sum portcullis_upstream_connects_total)
    awk -v clients="$clients" -v requests="$requests" -v connects="$connects" \
        'BEGIN { printf "| %d | %d | %d | %.4f |\n", clients, requests, connects, connects / requests }'
    end
done

start service "$built/demo_upstream"
listening service; service=$url
token=$(curl -sf "$service/token")
free_port; admin=$port
free_port
mkdir "$work/data"
start profile env PORT="$port" ADMIN_ADDRESS="127.0.0.1:$admin" PORTCULLIS_DATA="$work/data" \
    CUSTOM_LANG_BASE_URL="$service" JWKS_URL="$service/.well-known/jwks.json" \
    "$built/portcullis" run -c conf/gateway-service.yaml
answers profile "http://127.0.0.1:$admin/readyz"
idle=$(kib "$pid") served=0
cat >"$work/call.lua" <<EOF
wrk.method = "POST"
wrk.body = '{"name":"Ada"}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Connect-Protocol-Version"] = "1"
wrk.headers["Authorization"] = "Bearer $token"
EOF
while [ "$served" -lt "$CALLS" ]; do
    wrk -t 1 -c 64 -d 5s -s "$work/call.lua" \
        "http://127.0.0.1:$port/gateway.v1.GatewayService/InvokeCustom" >"$work/wrk"
    if grep -Eq 'Non-2xx|Socket errors' "$work/wrk"; then fail "$(cat "$work/wrk")"; fi
    served=$(sum portcullis_requests_total)
done
awk -v idle="$idle" -v served="$served" -v now="$(kib "$pid")" 'BEGIN {
    printf "\nGatewayService with its embedded store: %.1f MiB, after %d calls %.1f MiB\n", idle / 1024, served, now / 1024 }'
