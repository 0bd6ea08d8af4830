#!/usr/bin/env bash
# An upstream that takes 20 requests at once, 10 ms each, and 320 clients that ask again as soon as they
# are answered: what reaches the upstream, with bulkheads that refuse and that let wait, and with
# HAProxy's queue, in interleaved rounds. Ends with 1 if a target was missed. See bench/README.md.
#
#   PROFILE=release ROUNDS=3 SECONDS_EACH=8 bench/overload.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROFILE=${PROFILE:-release}
ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-8}
SLOTS=20
CLIENTS=320
PAUSE=10                               # milliseconds after a refusal

. bench/common.sh

say() { printf 'overload: %s\n' "$*" >&2; }

build --example bench_upstream --example overload

start upstream "$built/examples/bench_upstream" 200 10
listening upstream
upstream=$url

free_port; admin=127.0.0.1:$port
free_port; gateway=http://127.0.0.1:$port
start gateway env PORT="$port" ADMIN_ADDRESS="$admin" UPSTREAM="$upstream" \
    "$built/portcullis" run -c bench/overload.yaml
answers gateway "http://$admin/readyz"

haproxy=
if command -v haproxy >/dev/null; then
    free_port; haproxy=http://127.0.0.1:$port
    cat >"$work/haproxy.cfg" <<CFG
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout queue 10s
    http-reuse always
listen front
    bind ${haproxy#http://}
    server upstream ${upstream#http://} maxconn $SLOTS
CFG
    start haproxy haproxy -db -f "$work/haproxy.cfg"
    answers haproxy "$haproxy/"
else
    say "there is no haproxy (Debian: haproxy): it is left out"
fi

# run NAME URL CLIENTS [PAUSE]: one round; its line goes to $work/NAME.runs.
run() {
    say "$1"
    "$built/examples/overload" "$2" "$3" "$SECONDS_EACH" "${4:-0}" >>"$work/$1.runs" \
        || fail "$1 has failed"
}

for ((round = 1; round <= ROUNDS; round++)); do
    run direct "$upstream/" $SLOTS
    run few "$gateway/fast" $SLOTS
    run queued "$gateway/queued" $CLIENTS
    [ -z "$haproxy" ] || run haproxy "$haproxy/" $CLIENTS
    run polite "$gateway/fast" $CLIENTS $PAUSE
    run queued-polite "$gateway/queued" $CLIENTS $PAUSE
    run rude "$gateway/fast" $CLIENTS
done

# median NAME COLUMN: over the rounds.
median() {
    [ -e "$work/$1.runs" ] || { echo 0; return; }
    cut -d ' ' -f "$2" "$work/$1.runs" | sort -n | sed -n "$(((ROUNDS + 1) / 2))p"
}

direct=$(median direct 1)
failed=0
# row NAME WORDS [LEAST]: LEAST is how much of `direct` it must be.
row() {
    [ -e "$work/$1.runs" ] || return 0
    local good verdict=
    good=$(median "$1" 1)
    if [ -n "${3:-}" ]; then
        verdict=PASS
        if awk "BEGIN { exit !($good < $3 * $direct) }"; then verdict=FAIL failed=1; fi
    fi
    printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$2" "$good" \
        "$(awk "BEGIN { printf \"%.2f\", $good / $direct }")" "${3:-}" "$(median "$1" 2)" \
        "$(median "$1" 3)" "$(median "$1" 4)" "$verdict"
}

printf '| | 200s/s | of direct | to reach | refused/s | p50 ms | p99 ms | |\n'
printf '|---|---|---|---|---|---|---|---|\n'
row direct "$SLOTS clients, direct"
row few "$SLOTS clients, through the gateway"
row queued "$CLIENTS clients, queue" 0.95
row haproxy "$CLIENTS clients, HAProxy's queue"
row queued-polite "$CLIENTS clients that wait $PAUSE ms after a refusal, queue" 0.95
row polite "$CLIENTS clients that wait $PAUSE ms after a refusal, refused at once" 0.9
row rude "$CLIENTS clients, refused at once"

if [ -n "$haproxy" ] && [ "$(median queued 1)" -lt "$(median haproxy 1)" ]; then
    say "the queue is behind HAProxy's: $(median queued 1) < $(median haproxy 1)"
    failed=1
fi
taken=$(curl -sf "http://$admin/metrics" |
    awk '/^portcullis_bulkhead_(in_flight|waiting)\{/ { sum += $2 } END { print sum + 0 }')
if [ "$taken" != 0 ]; then
    say "$taken slots or places are still taken"
    failed=1
fi
exit $failed
