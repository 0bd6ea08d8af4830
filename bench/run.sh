#!/usr/bin/env bash
# Direct, a bare Pingora, Portcullis with the full chain, the same with asynchronous records:
# side by side, in interleaved rounds, in one run on one machine. See bench/README.md.
#
#   ROUNDS=3 SECONDS_EACH=10 CONNECTIONS=64 THREADS=1 PROFILE=release bench/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-10}
CONNECTIONS=${CONNECTIONS:-64}
THREADS=${THREADS:-1}                  # of each proxy
PROFILE=${PROFILE:-release}
MILLION=${MILLION:-1000000}            # requests before memory is read
MANY=${MANY:-10000}                    # routes, against ten

. bench/common.sh

# gateway NAME CONFIGURATION RECORD: starts Portcullis; leaves $pid and $port.
gateway() {
    local name=$1 configuration=$2 record=$3 admin
    free_port; admin=$port
    free_port
    mkdir -p "$work/$name"
    start "$name" env PORT="$port" ADMIN_ADDRESS="127.0.0.1:$admin" PORTCULLIS_DATA="$work/$name" \
        JWKS_URL="$issuer/.well-known/jwks.json" BENCH_UPSTREAM="$upstream" \
        BENCH_RECORD="$record" BENCH_THREADS="$THREADS" \
        "$built/portcullis" run -c "$configuration"
    answers "$name" "http://127.0.0.1:$admin/readyz"
}

# The processor time a process has used so far, in microseconds: utime and stime of proc(5),
# the 12th and 13th fields after the command, which ends with the last parenthesis.
ticks=$(getconf CLK_TCK)
cpu() {
    [ "$1" = - ] && echo 0 && return
    sed 's/.*) //' "/proc/$1/stat" | awk -v ticks="$ticks" '{ print ($12 + $13) * 1000000 / ticks }'
}

resident() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# load NAME PID URL SECONDS: one run of wrk; appends "name rps p50us p99us requests cpu_us" to
# the results. An answer that is not 2xx ends everything: refusals are cheaper than work.
load() {
    local name=$1 pid=$2 url=$3 seconds=$4 before after
    before=$(cpu "$pid")
    wrk -t 1 -c "$CONNECTIONS" -d "${seconds}s" --latency -H "Authorization: Bearer $token" "$url" \
        >"$work/wrk"
    after=$(cpu "$pid")
    if grep -Eq 'Non-2xx|Socket errors' "$work/wrk"; then
        fail "$name: $(cat "$work/wrk")"
    fi
    awk -v name="$name" -v cpu="$(awk "BEGIN { print $after - $before }")" '
        function micros(text) {
            if (text ~ /us$/) return text + 0
            if (text ~ /ms$/) return text * 1000
            return text * 1000000
        }
        $1 == "50%" { p50 = micros($2) }
        $1 == "99%" { p99 = micros($2) }
        /requests in/ { requests = $1 }
        /^Requests\/sec/ { rps = $2 }
        END { print name, rps, p50, p99, requests, cpu }' "$work/wrk" >>"$work/results"
}

requests_of() { awk -v name="$1" '$1 == name { sum += $5 } END { print sum + 0 }' "$work/results"; }

# rounds NAME:PID:URL…: warms all up, then loads them in turn, ROUNDS times.
rounds() {
    local entry name pid url round
    : >"$work/results"
    for entry in "$@"; do
        IFS='|' read -r name pid url <<<"$entry"
        load warm-up "$pid" "$url" 2
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        for entry in "$@"; do
            IFS='|' read -r name pid url <<<"$entry"
            printf 'round %d of %d: %s\n' "$round" "$ROUNDS" "$name" >&2
            load "$name" "$pid" "$url" "$SECONDS_EACH"
        done
    done
}

# report BASE NAME…: medians over the rounds; the ratio is that of CPU per request to BASE's,
# round by round, so that a slow moment of the machine falls on both.
report() {
    awk -v base="$1" -v names="${*:2}" '
        function median(list, count,    i, j, swap) {
            for (i = 2; i <= count; i++)
                for (j = i; j > 1 && list[j] < list[j - 1]; j--) {
                    swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap
                }
            return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
        }
        {
            n = ++count[$1]
            rps[$1, n] = $2; p50[$1, n] = $3; p99[$1, n] = $4; cost[$1, n] = $5 ? $6 / $5 : 0
        }
        END {
            print "| | requests/s | p50 µs | p99 µs | CPU µs/request | × " base " |"
            print "|---|---|---|---|---|---|"
            many = split(names, name, " ")
            for (k = 1; k <= many; k++) {
                who = name[k]; n = count[who]
                for (i = 1; i <= n; i++) {
                    a[i] = rps[who, i]; b[i] = p50[who, i]; c[i] = p99[who, i]; d[i] = cost[who, i]
                    e[i] = cost[base, i] ? cost[who, i] / cost[base, i] : 0
                }
                cpu = median(d, n)
                printf "| %s | %.0f | %.0f | %.0f | %s | %s |\n", who, median(a, n), median(b, n), \
                    median(c, n), cpu ? sprintf("%.1f", cpu) : "-", cpu ? sprintf("%.2f", median(e, n)) : "-"
            }
        }' "$work/results"
}

# routes COUNT: the full chain with COUNT routes instead of one, on standard output.
routes() {
    sed '/^routes:$/,$d' bench/full-chain.yaml
    echo "routes:"
    awk '/^routes:$/ { inside = 1; next } inside' bench/full-chain.yaml >"$work/route"
    awk -v count="$1" '
        { line[NR] = $0 }
        END {
            for (i = 0; i < count; i++)
                for (l = 1; l <= NR; l++) {
                    text = line[l]
                    if (text == "  bench:") text = "  bench-" i ":"
                    sub("/bench/:item", "/service-" i "/items/:item", text)
                    print text
                }
        }' "$work/route"
}

build --example bare_proxy --example bench_upstream --example demo_upstream

start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url
start issuer "$built/examples/demo_upstream"
listening issuer; issuer=$url
token=$(curl -sf "$issuer/token")

free_port; bare_port=$port
start bare "$built/examples/bare_proxy" "127.0.0.1:$port" "${upstream#http://}" "$THREADS"; bare=$pid
answers bare "http://127.0.0.1:$port/bench/1"
gateway full bench/full-chain.yaml off; full=$pid full_port=$port
gateway records bench/full-chain.yaml async; records=$pid records_port=$port
path=bench/1
for port in "$full_port" "$records_port"; do
    answers full "http://127.0.0.1:$port/$path" -H "Authorization: Bearer $token"
done

printf '%s, %s cores, %s connections, %s proxy threads, %s rounds of %ss, %s\n\n' \
    "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$CONNECTIONS" "$THREADS" "$ROUNDS" \
    "$SECONDS_EACH" "$PROFILE"
rounds "direct|-|$upstream/$path" "bare|$bare|http://127.0.0.1:$bare_port/$path" \
    "full|$full|http://127.0.0.1:$full_port/$path" \
    "records|$records|http://127.0.0.1:$records_port/$path"
report bare direct bare full records

while [ "$(requests_of full)" -lt "$MILLION" ]; do
    load full "$full" "http://127.0.0.1:$full_port/$path" "$SECONDS_EACH"
done
printf '\nresident memory: bare %s MiB, records %s MiB, full %s MiB after %s requests\n\n' \
    "$(resident "$bare")" "$(resident "$records")" "$(resident "$full")" "$(requests_of full)"

routes 10 >"$work/few.yaml"
routes "$MANY" >"$work/many.yaml"
gateway few "$work/few.yaml" off; few=$pid few_port=$port
gateway many "$work/many.yaml" off; many=$pid many_port=$port
rounds "10-routes|$few|http://127.0.0.1:$few_port/service-7/items/1" \
    "$MANY-routes|$many|http://127.0.0.1:$many_port/service-$((MANY / 2))/items/1"
report 10-routes 10-routes "$MANY-routes"
printf '\nresident memory: 10 routes %s MiB, %s routes %s MiB\n' \
    "$(resident "$few")" "$MANY" "$(resident "$many")"
