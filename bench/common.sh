# For the scripts of bench/, which source it: programs in the background and what they print, ports,
# the build. Whatever is started is ended with the script.

work=$(mktemp -d)
started=()
stop() {
    # Not a request to end: a bare Pingora takes five minutes over one.
    for pid in "${started[@]}"; do kill -KILL "$pid" $(children "$pid") || continue; done
    wait
    rm -rf "$work"
} 2>/dev/null
trap stop EXIT
trap 'exit 130' INT TERM

fail() { printf 'bench: %s\n' "$*" >&2; exit 1; }

# The processes that a process has started, such as the workers of NGINX, which would outlive it.
children() { cat "/proc/$1/task/$1/children"; } 2>/dev/null

# Starts a program in the background and leaves its process id in $pid.
start() {
    local log=$work/$1.log
    shift
    : >"$log"
    "$@" </dev/null >"$log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# Leaves in $url the address an upstream prints once it listens.
listening() {
    local log=$work/$1.log
    for _ in {1..200}; do
        url=$(sed -n 's/^listening on //p' "$log")
        [ -n "$url" ] && return
        sleep 0.05
    done
    fail "$1 does not listen: $(cat "$log")"
}

# Leaves in $port one on which nothing listens.
free_port() {
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
    done
    fail "no free port"
}

# answers NAME URL [curl options]: waits for a 200.
answers() {
    local name=$1 url=$2
    shift 2
    for _ in {1..400}; do
        curl -sf -o "$work/answer" "$@" "$url" && return
        sleep 0.05
    done
    fail "$name does not answer at $url: $(tail -n 20 "$work/$name.log")"
}

# build [cargo options]: the gateway and what else is asked for, by $PROFILE; leaves $built. With BUILT=FOLDER it
# is all in that folder, as in target/release, and nothing is built.
build() {
    if [ -n "${BUILT-}" ]; then built=$BUILT; return; fi
    if [ "$PROFILE" = dev ]; then
        built=${CARGO_TARGET_DIR:-target}/debug
        cargo build --locked --bin portcullis "$@"
    else
        built=${CARGO_TARGET_DIR:-target}/release
        scripts/release.sh "$@"
    fi
}
