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

# Done again only when what it is made from has changed: up_to_date STAMP FILE…
up_to_date() {
    local stamp=$INTEROP_FOLDER/$1
    shift
    [ -e "$stamp" ] && [ -z "$(find "$@" -newer "$stamp" -print -quit)" ]
}

node_packages() {
    [ -d interop/node/node_modules ] && up_to_date node.stamp interop/node/package-lock.json && return
    echo "interop: installing the packages of interop/node"
    npm ci --prefix interop/node --no-progress --loglevel=error
    touch "$INTEROP_FOLDER/node.stamp"
}

python_packages() {
    up_to_date python.stamp interop/python/requirements.txt && return
    echo "interop: installing the packages of interop/python"
    rm -rf "$INTEROP_FOLDER/venv"
    python3 -m venv "$INTEROP_FOLDER/venv"
    "$INTEROP_PYTHON" -m pip install --quiet --disable-pip-version-check \
        -r interop/python/requirements.txt
    touch "$INTEROP_FOLDER/python.stamp"
}

generate() {
    npm run --prefix interop/node --silent generate
    npm run --prefix interop/node --silent bundle
    mkdir -p "$INTEROP_FOLDER/python"
    "$INTEROP_PYTHON" -m grpc_tools.protoc -I interop/proto \
        --python_out="$INTEROP_FOLDER/python" --grpc_python_out="$INTEROP_FOLDER/python" \
        interop/proto/interop/v1/echo.proto interop/proto/gateway/v1/gateway.proto
}

mkdir -p "$INTEROP_FOLDER"
node_packages
python_packages
generate
cargo build --locked --bin portcullis
exec node interop/node/run.js "$@"
