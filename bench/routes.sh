#!/usr/bin/env bash
# What unused routes cost, beside ten of them; then once all are used. See bench/README.md.
#
#   ROUTES=10000 RELOADS=100 WINDOWS=9 POLICIES="none written defaults" PROFILE=release BEFORE=FILE bench/routes.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUTES=${ROUTES:-10000}
RELOADS=${RELOADS:-100}
WINDOWS=${WINDOWS:-9}
POLICIES=${POLICIES:-none}   # of each route: none; written, in each of them; defaults, in one place
PROFILE=${PROFILE:-release}
THREADS=1

. bench/common.sh
. bench/rounds.sh
issuer=none

# policies INDENT: what a route of a public API has, each line after INDENT.
policies() {
    sed "s/^/$1/" <<'EOF'
timeout: {attempt: 1s, request: 5s}
retry: {max_retries: 2, methods: idempotent, on: [502, 503, 504, timeout, connect_failure, reset]}
max_body: 1MiB
circuit_breaker: {consecutive: {failures: 5}}
headers:
  request: {set: {X-Gateway: edge}, remove: [Cookie]}
  response: {set: {X-Edge: portcullis}, remove: [Server, X-Powered-By]}
cors: {origins: ["https://shop.example"], methods: [GET, POST], request_headers: [Content-Type], max_age: 1h}
EOF
}

# routes COUNT POLICIES: a file with COUNT routes to one upstream, on standard output.
routes() {
    local each=""
    cat <<EOF
server: {threads: 1}
listeners: {public: {address: "127.0.0.1:\${PORT}"}}
admin: {address: "\${ADMIN_ADDRESS}"}
upstreams: {bench: {endpoints: ["$upstream"]}}
EOF
    case $2 in
    none) ;;
    written) each=$(policies '    ') ;;
    defaults) echo defaults:; policies '  ' ;;
    *) fail "POLICIES is none, written or defaults, not $2" ;;
    esac
    echo routes:
    awk -v count="$1" -v each="${each:+$each\n}" 'BEGIN {
        for (i = 0; i < count; i++)
            printf "  service-%d:\n    match:\n      path: /service-%d/*\n    upstream: bench\n%s", i, i, each
    }'
}

now() { date +%s%N; }
# since NANOSECONDS: what has passed since then, in seconds.
since() { awk "BEGIN { printf \"%.2f\", ($(now) - $1) / 1e9 }"; }
# reckon EXPRESSION: with a fraction, which the shell does not have.
reckon() { awk "BEGIN { printf \"%.2f\", $1 }"; }

# The least the process has within four seconds: it gives back what has been free for one. Nothing is
# asked of it meanwhile: an answer of `/status` about ten thousand routes leaves mebibytes to be given back.
settled() {
    local least=999999 seen
    for _ in {1..8}; do
        sleep 0.5
        seen=$(resident "$pid")
        least=$(awk "BEGIN { print $seen < $least ? $seen : $least }")
    done
    echo "$least"
}

# asked PATH: how long the admin listener takes over it, in seconds, the best of five; the body is left
# in a file.
asked() {
    for _ in {1..5}; do
        curl -sf -o "$work/body" -w '%{time_total}\n' "http://127.0.0.1:$admin/$1"
    done | sort -n | head -n 1
}

# reload: has it done, and leaves in $took how long it took.
reload() {
    local before from
    before=$(grep -c ': reloaded' "$work/$name.log" || true)
    from=$(now)
    kill -HUP "$pid"
    until [ "$(grep -c ': reloaded' "$work/$name.log" || true)" -gt "$before" ]; do sleep 0.01; done
    took=$(since "$from")
}

# slowest: the slowest of the requests that one connection makes in two seconds, in milliseconds.
cat >"$work/slowest.lua" <<'EOF'
function done(_, latency) io.write(string.format("slowest %.1f\n", latency.max / 1000)) end
EOF
slowest() {
    wrk -t 1 -c 1 -d 2 -s "$work/slowest.lua" "http://127.0.0.1:$port/service-7/x" |
        sed -n 's/^slowest //p'
}

# stalls: leaves in the files with and without the slowest of each of WINDOWS such times with three
# reloads in them, and of as many without, in turn: the machine has other work, which falls on both.
stalls() {
    local slow
    for ((window = 1; window <= WINDOWS; window++)); do
        slowest >>"$work/$name.without"
        slowest >>"$work/$name.with" & slow=$!
        sleep 0.3
        for _ in 1 2 3; do reload; sleep 0.2; done
        wait "$slow"
    done
}
median() { sort -n "$1" | awk '{ seen[NR] = $1 } END { print seen[int((NR + 1) / 2)] }'; }

# Has every route answered once or more.
cat >"$work/every.lua" <<EOF
local n = 0
function request()
    n = n + 1
    return wrk.format("GET", "/service-" .. (n % $ROUTES) .. "/x")
end
EOF

declare -A row
put() { row["$1"]+=" $2 |"; }

# measure NAME BINARY COUNT POLICIES: fills one column.
measure() {
    local name=$1 count=$3 file=$work/$1.yaml from idle first
    routes "$count" "$4" >"$file"
    binary=$2
    printf '%s\n' "$name" >&2
    from=$(now)
    PORT=1 ADMIN_ADDRESS=127.0.0.1:2 "$binary" check -c "$file" >/dev/null
    put check "$(since "$from")"
    from=$(now)
    gateway "$name" "$file" off
    put start "$(since "$from")"
    put start_cpu "$(awk -v hertz="$(getconf CLK_TCK)" '{ printf "%.2f", ($14 + $15) / hertz }' "/proc/$pid/stat")"
    put peak "$(awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$pid/status")"
    idle=$(settled)
    put memory "$idle"
    [ "$count" = 10 ] && few=$idle
    put each "$(reckon "($idle - $few) * 1024 / $count")"
    put scrape "$(asked metrics)"
    put lines "$(wc -l <"$work/body")"
    put status "$(asked status)"

    answers "$name" "http://127.0.0.1:$port/service-7/x"
    reload
    first=$(settled)
    put first "$first"
    for ((i = 2; i <= RELOADS; i++)); do reload; done
    put reload "$took"
    idle=$(settled)
    put last "$idle"
    put growth "$(reckon "$idle / $first")"
    stalls
    put with "$(median "$work/$name.with")"
    put without "$(median "$work/$name.without")"

    [ "$count" = 10 ] || wrk -t 1 -c 16 -d 5 -s "$work/every.lua" "http://127.0.0.1:$port" >"$work/wrk"
    put used_memory "$(settled)"
    put used_scrape "$(asked metrics)"
    put used_lines "$(wc -l <"$work/body")"
    put used_status "$(asked status)"
    kill -KILL "$pid"
}

build --example bench_upstream
start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url

head='| |' rule='|---|'
column() {
    head+=" $1 |" rule+='---|'
    measure "${@:2}"
}
column "10 routes" few "$built/portcullis" 10 none
for policies in $POLICIES; do
    title="$ROUTES routes"
    [ "$POLICIES" = none ] || title+=", policies: $policies"
    if [ -n "${BEFORE-}" ]; then
        column "$title, before" "before-$policies" "$BEFORE" "$ROUTES" "$policies"
    fi
    column "$title" "many-$policies" "$built/portcullis" "$ROUTES" "$policies"
done

printf '%s, %s cores, %s\n\n%s to reach |\n%s---|\n' "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" \
    "$PROFILE" "$head" "$rule"
line() { printf '| %s |%s %s |\n' "$2" "${row[$1]}" "$3"; }
line check '`check`, s' 1
line start 'start until ready, s' 1
line start_cpu 'CPU of that, s' ''
line peak 'most resident until then, MiB' ''
line memory 'resident, MiB' ''
line each 'more than ten routes, KiB a route' 6
line scrape 'scrape, s' 0.5
line lines 'lines of it' ''
line status '`/status`, s' 0.5
line reload 'reload, s' 1
line first 'resident after one, MiB' ''
line last "after $RELOADS, MiB" ''
line growth 'growth' 1.05
line with 'slowest request in two seconds with reloads, ms' '20 more'
line without 'and without, ms' ''
line used_memory 'all used: resident, MiB' ''
line used_scrape 'all used: scrape, s' 0.5
line used_lines 'all used: lines of it' ''
line used_status 'all used: `/status`, s' 0.5
