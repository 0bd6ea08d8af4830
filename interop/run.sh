#!/usr/bin/env bash
# Sets up the clients and builds the gateway as the tests do, then runs the suites, or those that
# are named: `interop/run.sh curl ws`. What is made goes to target/interop; the clients' packages
# and their generated code to interop/node.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export INTEROP_FOLDER=$target/interop
export INTEROP_GATEWAY=$target/debug/portcullis
export INTEROP_PYTHON=$INTEROP_FOLDER/venv/bin/python

fail() { printf 'interop: %s\n' "$*" >&2; exit 1; }

# Done again only when what it is made from has changed: up_to_date STAMP FILE…
up_to_date() {
    local stamp=$INTEROP_FOLDER/$1
    shift
    [ -e "$stamp" ] && [ -z "$(find "$@" -newer "$stamp" -print -quit)" ]
}

# pip_install [options]: into the suites' own environment.
pip_install() {
    "$INTEROP_PYTHON" -m pip install --quiet --disable-pip-version-check --retries 10 "$@" \
        || fail "pip could not install $* (above); it takes PyPI, or a mirror that pip is told of"
}

python_packages() {
    up_to_date python.stamp interop/python/requirements.txt && return
    echo "interop: installing the packages of interop/python"
    rm -rf "$INTEROP_FOLDER/venv"
    python3 -m venv "$INTEROP_FOLDER/venv"
    pip_install -r interop/python/requirements.txt
    touch "$INTEROP_FOLDER/python.stamp"
}

has_node() {
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version
} >/dev/null 2>&1

# Distributions have none, or one that is too old for the clients' packages; PyPI has one.
node_itself() {
    has_node && return
    PATH=$INTEROP_FOLDER/venv/bin:$PATH
    has_node && return
    echo "interop: installing node, of which there is none, or one older than 20"
    pip_install -r interop/python/requirements-node.txt
}

node_packages() {
    [ -d interop/node/node_modules ] && up_to_date node.stamp interop/node/package-lock.json && return
    echo "interop: installing the packages of interop/node"
    npm ci --prefix interop/node --no-progress --loglevel=error --fetch-retries=5 \
        || fail "npm could not install what interop/node/package-lock.json names (above); it takes $(npm config get registry)"
    touch "$INTEROP_FOLDER/node.stamp"
}

generate() {
    npm run --prefix interop/node --silent generate
    npm run --prefix interop/node --silent bundle
    mkdir -p "$INTEROP_FOLDER/python"
    "$INTEROP_PYTHON" -m grpc_tools.protoc -I interop/proto \
        --python_out="$INTEROP_FOLDER/python" --grpc_python_out="$INTEROP_FOLDER/python" \
        interop/proto/{interop/v1/echo,gateway/v1/gateway,greeter/v1/greeter}.proto
}

mkdir -p "$INTEROP_FOLDER"
python_packages
node_itself
node_packages
generate
cargo build --locked --bin portcullis
# What is called from here on is on this machine, whatever brought the packages.
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost
# Itself, not what starts it: signals are for it.
exec "$(node -p process.execPath)" interop/node/run.js "$@"
