#!/usr/bin/env bash
# What the policies do under load: oha against conf/mini-gateway.yaml, on the loopback interface.
# Each run starts a gateway and an upstream of its own. Prints a table of what was expected and
# observed; ends with 1 if an expectation failed. See bench/README.md.
#
#   PROFILE=release BASELINE=20000 STRESS_SECONDS=5 OVERHEAD=3000 ROUNDS=3 bench/load.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROFILE=${PROFILE:-release}
BASELINE=${BASELINE:-20000}            # requests of the baseline
STRESS_SECONDS=${STRESS_SECONDS:-5}
OVERHEAD=${OVERHEAD:-3000}             # requests of each round of the overhead
ROUNDS=${ROUNDS:-3}
# Milliseconds that the gateway may add to the median of one client at a time.
MOST_ADDED=${MOST_ADDED:-$([ "$PROFILE" = dev ] && echo 10 || echo 1)}
UNLIMITED=1000000
KEY=load

oha=.tools/bin/oha
[ -x "$oha" ] || { echo "load: scripts/oha.sh installs the load generator" >&2; exit 1; }
. bench/common.sh

say() { printf 'load: %s\n' "$*" >&2; }

# service NAME STATUS MILLISECONDS: starts an upstream; leaves $url.
service() {
    start "$1" "$built/examples/bench_upstream" "$2" "$3"
    listening "$1"
}

# gateway NAME [VARIABLE=VALUE…]: starts one before $url; leaves $target and $admin.
gateway() {
    local name=$1 public
    shift
    free_port; admin=127.0.0.1:$port
    free_port; public=$port
    mkdir -p "$work/$name"
    start "$name" env "$@" API_KEY=$KEY PORT="$public" ADMIN_ADDRESS="$admin" \
        UPSTREAM_SERVICE_A="$url" PORTCULLIS_DATA="$work/$name" \
        "$built/portcullis" run -c conf/mini-gateway.yaml
    answers "$name" "http://$admin/readyz"
    target=http://127.0.0.1:$public/api/a/bench
}

# load NAME [oha options] URL: one run; its requests are lines of $work/NAME.csv.
load() {
    local name=$1
    shift
    say "$name"
    "$oha" --no-tui --output-format csv -t 20s -H "X-Api-Key: $KEY" "$@" >"$work/$name.csv" \
        2>"$work/$name.log" || fail "$name: $(cat "$work/$name.log")"
}

# statuses NAME: "200:100 429:200", in order.
statuses() {
    awk -F, 'NR > 1 { count[$7]++ } END { for (status in count) print status ":" count[status] }' \
        "$work/$1.csv" | sort | paste -sd ' '
}

# percentile NAME P: of the durations, in milliseconds.
percentile() {
    awk -F, 'NR > 1 { print $5 * 1000 }' "$work/$1.csv" | sort -n |
        awk -v p="$2" '{ value[NR] = $1 } END { at = int((NR - 1) * p / 100) + 1; printf "%.2f", value[at] }'
}

rate() {
    awk -F, 'NR > 1 { end = $1 + $5; if (end > last) last = end } END { printf "%.0f", (NR - 1) / last }' \
        "$work/$1.csv"
}

# shown FROM TO KEY: the value of KEY in /status, which is one line of JSON, between two other keys.
shown() {
    curl -sf "http://$admin/status" | sed "s/.*\"$1\":{\(.*\)\"$2\":{.*/\1/" |
        sed -n "s/.*\"$3\":\"\{0,1\}\([a-z_0-9.]*\).*/\1/p"
}

failed=0
# row RUN WHAT EXPECTED OBSERVED HOLDS
row() {
    local verdict=PASS
    if [ "$5" != yes ]; then verdict=FAIL failed=1; fi
    printf '| %s | %s | %s | %s | %s |\n' "$1" "$2" "$3" "$4" "$verdict" >>"$work/table"
}

# same RUN WHAT EXPECTED OBSERVED
same() { row "$@" "$([ "$3" = "$4" ] && echo yes || echo no)"; }

holds() { awk "BEGIN { print ($1) ? \"yes\" : \"no\" }"; }

build --example bench_upstream
printf '| run | what | expected | observed | |\n|---|---|---|---|---|\n' >"$work/table"

service fast 200 0; fast=$url

gateway baseline RATE_LIMIT_API_A=$UNLIMITED
load baseline -n "$BASELINE" -c 50 "$target"
same baseline "50 clients, 50 slots" "200:$BASELINE" "$(statuses baseline)"
row baseline "requests/s; p50, p99 ms" any \
    "$(rate baseline); $(percentile baseline 50), $(percentile baseline 99)" yes

gateway rate-limit
load rate-limit -n 300 -c 10 "$target"
same rate-limit "300 requests, 100 a minute" "200:100 429:200" "$(statuses rate-limit)"
retry_after=$(curl -s -o /dev/null -w '%header{retry-after}' -H "X-Api-Key: $KEY" "$target")
row rate-limit "Retry-After, s" "1 to 60" "$retry_after" \
    "$(holds "\"$retry_after\" >= 1 && \"$retry_after\" <= 60")"

service slow 200 1000
gateway bulkhead RATE_LIMIT_API_A=$UNLIMITED MAX_CONCURRENT_REQUESTS_API_A=10
load bulkhead -n 50 -c 50 "$target"
same bulkhead "50 at once, 10 slots" "200:10 429:40" "$(statuses bulkhead)"
same bulkhead "calls of the upstream" 10 "$(shown service-a service-b attempts)"
same bulkhead "slots free afterwards" 10 "$(shown api-a api-b free)"

service failing 500 0
gateway circuit RATE_LIMIT_API_A=$UNLIMITED
load circuit -n 100 -c 1 "$target"
same circuit "100 requests, 5 failures open it" "500:5 503:95" "$(statuses circuit)"
same circuit "calls of the upstream, 2 retries each" 15 "$(shown service-a service-b attempts)"
same circuit "state" open "$(shown api-a api-b state)"

service busy 200 5
gateway stress RATE_LIMIT_API_A=$UNLIMITED
load stress -z "${STRESS_SECONDS}s" -w -c 200 "$target"
others=$(awk -F, 'NR > 1 && $7 != 200 && $7 != 429' "$work/stress.csv" | wc -l)
same stress "200 clients, 50 slots: neither 200 nor 429" 0 "$others"
row stress "answers" "both kinds" "$(statuses stress)" \
    "$(case "$(statuses stress)" in 200:*' '429:*) echo yes ;; *) echo no ;; esac)"
row stress "requests/s; p50, p99 ms" any \
    "$(rate stress); $(percentile stress 50), $(percentile stress 99)" yes
same stress "slots free afterwards" 50 "$(shown api-a api-b free)"

url=$fast
gateway overhead RATE_LIMIT_API_A=$UNLIMITED
for ((round = 1; round <= ROUNDS; round++)); do
    load "direct-$round" -n "$OVERHEAD" -c 1 "$fast/bench"
    load "through-$round" -n "$OVERHEAD" -c 1 "$target"
done
# added P: the middle of what the rounds added to percentile P.
added() {
    for ((round = 1; round <= ROUNDS; round++)); do
        awk "BEGIN { print $(percentile "through-$round" "$1") - $(percentile "direct-$round" "$1") }"
    done | sort -n | sed -n "$(((ROUNDS + 1) / 2))p"
}
median=$(added 50)
row overhead "added to p50, one client, ms" "at most $MOST_ADDED" "$median" \
    "$(holds "$median <= $MOST_ADDED")"
row overhead "added to p99, one client, ms" any "$(added 99)" yes

printf '%s, %s cores, %s\n\n' "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$PROFILE"
cat "$work/table"
exit $failed
