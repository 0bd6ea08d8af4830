#!/usr/bin/env bash
# What certificates on both sides cost: requests over connections that stay, by mutual TLS against TLS, in
# interleaved rounds; and handshakes with a client's certificate, against NGINX. See bench/README.md.
#
#   ROUNDS=7 SECONDS_EACH=3 CONNECTIONS=64 PROFILE=release bench/mtls.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROUNDS=${ROUNDS:-7}
SECONDS_EACH=${SECONDS_EACH:-3}
CONNECTIONS=${CONNECTIONS:-64}
THREADS=1                              # of each proxy
PROFILE=${PROFILE:-release}
PATH=$PATH:/usr/sbin:/usr/local/sbin:$PWD/.tools/bin

. bench/common.sh
. bench/rounds.sh

scripts/oha.sh
build --example bench_upstream

# certificate NAME [options of openssl req]: $work/NAME.pem and NAME.key.
certificate() {
    local name=$1
    shift
    openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout "$work/$name.key" \
        -out "$work/$name.pem" "$@" 2>"$work/openssl.log" || fail "$(cat "$work/openssl.log")"
}
certificate ca -subj /CN=authority
for name in edge caller; do
    certificate "$name" -CA "$work/ca.pem" -CAkey "$work/ca.key" -subj "/CN=$name" \
        -addext "subjectAltName=DNS:localhost,IP:127.0.0.1,URI:spiffe://bench/$name" \
        -addext basicConstraints=critical,CA:FALSE
done
start upstream "$built/examples/bench_upstream"
listening upstream; plain=$url

# proxy NAME KIND UPSTREAM: a gateway that speaks TLS on both sides, or mutual TLS where KIND is mtls; its
# clients' names are consumers. Leaves $pid and $port.
proxy() {
    local name=$1 kind=$2 upstream=$3 listener='' auth='' route='' client=''
    free_port; admin=$port
    free_port
    if [ "$kind" = mtls ]; then
        listener=", client_ca: $work/ca.pem"
        auth='auth: {mesh: {client_certificate: {allow: ["spiffe://bench/*"]}}}'
        route=', auth: {require: mesh}'
        client=", client_certificate: {certificate: $work/edge.pem, key: $work/edge.key}"
    fi
    [[ $upstream == https:* ]] && client="tls: {ca: $work/ca.pem$client}" || client=''
    mkdir "$work/$name"
    cat >"$work/$name.yaml" <<YAML
server: {threads: $THREADS, upstream_pool: 1024}
listeners:
  public:
    address: 127.0.0.1:$port
    tls: {certificates: [{certificate: $work/edge.pem, key: $work/edge.key}]$listener}
admin: {address: "127.0.0.1:$admin"}
record: {store: {sqlite: {path: $work/$name/portcullis.db}}}
$auth
upstreams:
  bench:
    endpoints: ["$upstream"]
    $client
routes: {all: {match: {path: "/*"}, upstream: bench$route}}
YAML
    start "$name" "$built/portcullis" run -c "$work/$name.yaml"
    answers "$name" "http://127.0.0.1:$admin/readyz"
}

# For `rounds`: oha shows a certificate to those that ask for one.
load_requests() {
    local name=$1 pid=$2 url=$3 seconds=$4 before after
    before=$(cpu "$pid")
    oha --no-tui -z "${seconds}s" -w -c "$CONNECTIONS" --output-format json --insecure \
        --cert "$work/caller.pem" --key "$work/caller.key" "$url" >"$work/oha.json"
    after=$(cpu "$pid")
    awk -v cpu="$(awk "BEGIN { print $after - $before }")" -v name="$name" '
        # One pair a line, as oha writes them.
        { gsub(/[",]/, ""); key = $1 }
        key == "requestsPerSec:" { rate = $2 }
        section == "latencyPercentiles:" && key == "p50:" { p50 = $2 * 1e6 }
        section == "latencyPercentiles:" && key == "p99:" { p99 = $2 * 1e6 }
        section == "statusCodeDistribution:" && key ~ /^[0-9]+:$/ { if (key == "200:") ok = $2; else other += $2 }
        /\{/ { section = key }
        /\}/ { section = "" }
        END { if (other || !ok) exit 1; print name, rate, p50, p99, ok, cpu }' "$work/oha.json" \
        >>"$work/results" || fail "$name: $(cat "$work/oha.json")"
}

printf '%s, %s cores, %s connections, one proxy thread, keys of P-256, %s rounds of %ss, %s\n\n' "$(uname -sm)" \
    "$(getconf _NPROCESSORS_ONLN)" "$CONNECTIONS" "$ROUNDS" "$SECONDS_EACH" "$PROFILE"

entries=()
for kind in tls mtls; do
    # What speaks TLS to the service's side is another gateway, as beside another service.
    proxy "far-$kind" "$kind" "$plain"
    proxy "$kind" "$kind" "https://127.0.0.1:$port"
    entries+=("$kind|$pid|https://127.0.0.1:$port/bench/1")
done
rounds "${entries[@]}"
report tls tls mtls

# Handshakes, one after another, by openssl: it shows a certificate, and ends after the handshake, or after one
# request and its response.
free_port
cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes $THREADS; error_log stderr; pid $work/nginx.pid;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:all:10m;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate $work/edge.pem; ssl_certificate_key $work/edge.key;
        ssl_client_certificate $work/ca.pem; ssl_verify_client on;
        location / { return 200 "ok"; }
    }
}
CONF
start nginx nginx -c "$work/nginx.conf" -p "$work" -e stderr
nginx_at=$port nginx=$pid
answers nginx "https://localhost:$port/" -k --cert "$work/caller.pem" --key "$work/caller.key"
nginx=$(children "$nginx"); nginx=${nginx%% *}
proxy portcullis mtls "$plain"
sed -i 's#upstream: bench, auth#respond: {status: 200, body: ok}, auth#; s#^  bench:#  unused:#' "$work/portcullis.yaml"
kill -KILL "$pid"; wait "$pid" 2>/dev/null || true
start portcullis "$built/portcullis" run -c "$work/portcullis.yaml"
answers portcullis "http://127.0.0.1:$admin/readyz"
portcullis_at=$port portcullis=$pid

# shake NAME PID PORT VERSION KIND: one run; appends "name rate 0 0 connections cpu".
shake() {
    local name=$1 pid=$2 port=$3 version=$4 kind=$5 before after options=(-new)
    case $kind in
        resumed) options=(-reuse -www /) ;;
        request) options=(-new -www /) ;;
    esac
    before=$(cpu "$pid")
    openssl s_time -connect "127.0.0.1:$port" "-$version" -cert "$work/caller.pem" -key "$work/caller.key" \
        -CAfile "$work/ca.pem" -time "$SECONDS_EACH" "${options[@]}" >"$work/s_time" 2>&1 || fail "$name: $(cat "$work/s_time")"
    after=$(cpu "$pid")
    awk -v name="$name" -v cpu="$(awk "BEGIN { print $after - $before }")" '
        /connections in .* real seconds/ { count = $1; rate = $1 / $4 }
        END { if (!count) exit 1; print name, rate, 0, 0, count, cpu }' "$work/s_time" >>"$work/results" \
        || fail "$name: $(cat "$work/s_time")"
}

for version in tls1_3 tls1_2; do
    for kind in handshake request resumed; do
        : >"$work/results"
        for ((round = 1; round <= ROUNDS; round++)); do
            printf '%s, %s: round %d of %d\n' "$version" "$kind" "$round" "$ROUNDS" >&2
            shake nginx "$nginx" "$nginx_at" "$version" "$kind"
            shake portcullis "$portcullis" "$portcullis_at" "$version" "$kind"
        done
        printf '\n%s, %s:\n\n' "$version" "$kind"
        report nginx nginx portcullis | cut -d '|' -f 1,2,3,6,7,8 | sed 's#requests/s#connections/s#; s#/request#/connection#'
    done
done
