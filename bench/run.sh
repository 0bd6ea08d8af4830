#!/usr/bin/env bash
# Direct, a bare Pingora, Portcullis with the full chain, the same with asynchronous records:
# side by side, in interleaved rounds, in one run on one machine. See bench/README.md.
#
#   ROUNDS=3 SECONDS_EACH=10 CONNECTIONS=64 THREADS=1 PROFILE=release BEFORE=FILE bench/run.sh
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
. bench/rounds.sh

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

build --workspace --bin demo_upstream --example bare_proxy --example bench_upstream

start upstream "$built/examples/bench_upstream"
listening upstream; upstream=$url
start issuer "$built/demo_upstream"
listening issuer; issuer=$url
token=$(curl -sf "$issuer/token")

free_port; bare_port=$port
start bare "$built/examples/bare_proxy" "127.0.0.1:$port" "${upstream#http://}" "$THREADS"; bare=$pid
answers bare "http://127.0.0.1:$port/bench/1"
gateway full bench/full-chain.yaml off; full=$pid full_port=$port
gateway records bench/full-chain.yaml async; records=$pid records_port=$port
path=bench/1
full_before bench/full-chain.yaml
for port in "$full_port" "$records_port"; do
    answers full "http://127.0.0.1:$port/$path" -H "Authorization: Bearer $token"
done

printf '%s, %s cores, %s connections, %s proxy threads, %s rounds of %ss, %s\n\n' \
    "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$CONNECTIONS" "$THREADS" "$ROUNDS" \
    "$SECONDS_EACH" "$PROFILE"
rounds "direct|-|$upstream/$path" "bare|$bare|http://127.0.0.1:$bare_port/$path" \
    "full|$full|http://127.0.0.1:$full_port/$path" "${before_at[@]}" \
    "records|$records|http://127.0.0.1:$records_port/$path"
report bare direct bare full "${before[@]}" records

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
