# For the scripts of bench/ that compare gateways in rounds, which source it after common.sh: they set
# ROUNDS, SECONDS_EACH, CONNECTIONS and THREADS, PROTOCOL where the upstream does not speak HTTP/1.1, STREAMS
# and CALLS_PER_SECOND where it speaks gRPC, and leave $upstream, $issuer and, where requests have one, $token.

# servers: a certificate for gateways that speak TLS, an issuer of tokens, and the upstreams; leaves $issuer, $calls, which
# speaks gRPC, and $plain.
servers() {
    openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=localhost \
        -keyout "$work/key.pem" -out "$work/certificate.pem" 2>"$work/openssl.log" \
        || fail "$(cat "$work/openssl.log")"
    export BENCH_CERTIFICATE=$work/certificate.pem BENCH_KEY=$work/key.pem
    start issuer "$built/demo_upstream"
    listening issuer; issuer=$url
    start calls "$built/examples/bench_upstream" grpc
    listening calls; calls=$url
    start upstream "$built/examples/bench_upstream"
    listening upstream; plain=$url
    a_call
}

# gateway NAME CONFIGURATION RECORD [DATABASE]: starts Portcullis, or $binary in its place; leaves $pid,
# $port and $admin.
gateway() {
    local name=$1 configuration=$2 record=$3 database=${4-}
    free_port; admin=$port
    free_port
    mkdir -p "$work/$name"
    start "$name" env PORT="$port" ADMIN_ADDRESS="127.0.0.1:$admin" PORTCULLIS_DATA="$work/$name" \
        JWKS_URL="$issuer/.well-known/jwks.json" BENCH_UPSTREAM="$upstream" \
        BENCH_RECORD="$record" BENCH_DATABASE="$database" BENCH_THREADS="$THREADS" \
        BENCH_PROTOCOL="${PROTOCOL:-http1}" \
        "${binary:-$built/portcullis}" run -c "$configuration"
    answers "$name" "http://127.0.0.1:$admin/readyz"
}

# full_before CONFIGURATION: where BEFORE names another build of Portcullis, the full chain by it, for
# comparison: leaves $before, the names to report, and $before_at, an entry of the rounds. By BEFORE_CONFIGURATION,
# where that build does not know all keys.
full_before() {
    before=() before_at=()
    if [ -z "${BEFORE-}" ]; then return; fi
    binary=$BEFORE gateway before "${BEFORE_CONFIGURATION:-$1}" off
    before=(before) before_at=("before|$pid|http://127.0.0.1:$port/$path")
}

# The processor time a process has used so far, in microseconds: utime and stime of proc(5),
# the 12th and 13th fields after the command, which ends with the last parenthesis.
ticks=$(getconf CLK_TCK)
cpu() {
    [ "$1" = - ] && echo 0 && return
    sed 's/.*) //' "/proc/$1/stat" | awk -v ticks="$ticks" '{ print ($12 + $13) * 1000000 / ticks }'
}

resident() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# load NAME PID URL SECONDS: one run of the protocol's load generator; appends "name rps p50us p99us
# requests cpu_us" to the results. An answer that is not 2xx ends everything: refusals are cheaper than work.
load() {
    if [ "${PROTOCOL-}" = h2c ]; then load_calls "$@"; else load_requests "$@"; fi
}

load_requests() {
    local name=$1 pid=$2 url=$3 seconds=$4 before after
    before=$(cpu "$pid")
    wrk -t 1 -c "$CONNECTIONS" -d "${seconds}s" --latency \
        ${token:+-H "Authorization: Bearer $token"} "$url" >"$work/wrk"
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

# A unary call of gRPC: leaves its body, a message whose field 1 is "World".
a_call() { printf '\0\0\0\0\x07\x0a\x05World' >"$work/request"; }

# h2load is given a number of calls. A call is one that brought the upstream's message: a refusal of gRPC
# is a 200, too, but has none.
message_bytes=20                       # of the upstream's answer, with gRPC's prefix
load_calls() {
    local name=$1 pid=$2 url=$3 calls=$(($4 * CALLS_PER_SECOND)) before after
    before=$(cpu "$pid")
    rm -f "$work/calls"
    h2load -n "$calls" -c "$CONNECTIONS" -m "$STREAMS" -d "$work/request" --log-file="$work/calls" \
        -H "content-type: application/grpc" -H "te: trailers" \
        ${token:+-H "authorization: Bearer $token"} "$url" >"$work/h2load"
    after=$(cpu "$pid")
    grep -q "^status codes: $calls 2xx, 0 3xx, 0 4xx, 0 5xx" "$work/h2load" \
        && grep -Eq "^traffic: .* \($((calls * message_bytes))\) data" "$work/h2load" \
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
        -H "content-type: application/grpc" -H "te: trailers" \
        ${token:+-H "authorization: Bearer $token"}
    grep -qi '^grpc-status: 0' "$work/head" || fail "$1: $(cat "$work/head")"
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

# costs BASE NAME: "BASE's NAME's ratio", as report has them: CPU µs per request, and the median of the
# ratios round by round.
costs() {
    report "$1" "$1" "$2" | awk -F ' *[|] *' -v base="$1" -v name="$2" '
        $2 == base { of_base = $6 }
        $2 == name { cost = $6; ratio = $7 }
        END { print of_base, cost, ratio }'
}
