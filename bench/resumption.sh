#!/usr/bin/env bash
# Clients of TLS 1.3 and 1.2 that come back, before and after a reload: how many take up their sessions
# again, and what a visit costs the gateway. See bench/README.md.
#
#   CLIENTS=10000 KEY=ec TICKETS=on PROFILE=release bench/resumption.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CLIENTS=${CLIENTS:-10000}              # of each version
KEY=${KEY:-ec}                         # of the certificate: ec (P-256) or rsa (2048 bits)
TICKETS=${TICKETS:-on}                 # as in conf/portcullis.yaml
PROFILE=${PROFILE:-release}

. bench/common.sh

build --example bench_upstream --example returning_clients
clients=$built/examples/returning_clients
case $KEY in
    ec) key=(ec -pkeyopt ec_paramgen_curve:P-256) ;;
    rsa) key=(rsa:2048) ;;
    *) fail "KEY=$KEY: ec or rsa" ;;
esac
# certificate NAME [options of openssl req]: $work/NAME.pem and NAME.key.
certificate() {
    local name=$1
    shift
    openssl req -x509 -nodes -newkey "${key[@]}" -keyout "$work/$name.key" -out "$work/$name.pem" "$@" \
        2>"$work/openssl.log" || fail "$(cat "$work/openssl.log")"
}
certificate ca -subj /CN=authority
certificate edge -CA "$work/ca.pem" -CAkey "$work/ca.key" -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE
start upstream "$built/examples/bench_upstream"
listening upstream
free_port; tls=$port
free_port; plain=$port
free_port; admin=$port
certificate="{certificate: $work/edge.pem, key: $work/edge.key}"
cat >"$work/gateway.yaml" <<YAML
server: {threads: 1}
listeners:
  tls: {address: "127.0.0.1:$tls", tls: {certificates: [$certificate], tickets: $TICKETS}}
  plain: {address: "127.0.0.1:$plain"}
admin: {address: "127.0.0.1:$admin"}
record: {store: {sqlite: {path: $work/portcullis.db}}}
upstreams: {bench: {endpoints: ["$url"]}}
routes: {all: {match: {path: "/*"}, upstream: bench}}
YAML
start gateway "$built/portcullis" run -c "$work/gateway.yaml"
answers gateway "http://127.0.0.1:$admin/readyz"

printf '%s, %s cores, %s clients of each version, %s key, one proxy thread, %s\n\n' \
    "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$CLIENTS" "$KEY" "$PROFILE"
"$clients" "127.0.0.1:$tls" "127.0.0.1:$plain" "127.0.0.1:$admin" "$pid" "$work" "$CLIENTS"
