#!/usr/bin/env bash
# Runs each fuzz target until it has run HOURS (1) in all, and goes on where it stopped: how long each has
# run, in seconds of a processor, stands in README.md beside this, which is the ledger. One target at a time,
# for SLICE (300) seconds by the clock, always the one that has run least; niced. Names of targets as
# arguments: these alone.
#
# Ends with 0 once all have run their time without a finding that is left. A finding is an input in artifacts/TARGET;
# its target waits until it is mended. What holds by the next run moves into corpus/TARGET, where
# the tests replay it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

hours=${HOURS:-1} slice=${SLICE:-300}
ledger=README.md
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
export PATH=$PWD/../.tools/bin:$PATH CARGO_TARGET_DIR=$target_dir
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
wanted=$(awk -v hours="$hours" 'BEGIN { printf "%d", hours * 3600 }')

# field TARGET COLUMN: from the target's row in the ledger, digits only.
field() {
    awk -F '|' -v name="$1" -v column="$2" \
        '$2 ~ "`" name "`" { gsub(/[^0-9]/, "", $column); print $column + 0; exit }' "$ledger"
}

# account TARGET SECONDS INPUTS: adds them to the target's row. Two of these scripts may run at once, for different
# targets: one writes at a time, and the other reads what was there before or all of what is new.
account() {
    {
        flock 9
        awk -F '|' -v OFS='|' -v name="$1" -v seconds="$2" -v inputs="$3" '
            $2 ~ "`" name "`" {
                gsub(/[^0-9]/, "", $4); gsub(/[^0-9]/, "", $5)
                $4 = sprintf(" %d ", $4 + seconds); $5 = sprintf(" %.0f ", $5 + inputs)
            }
            { print }' "$ledger" >"$ledger.new"
        mv "$ledger.new" "$ledger"
    } 9>>"$target_dir/ledger.lock"
}

# The names of the targets, or those asked for.
targets() {
    if [ $# -gt 0 ]; then printf '%s\n' "$@"; else ls fuzz_targets | sed 's/\.rs$//'; fi
}

# Whether the target has a finding that is not mended. What is mended becomes a part of the corpus.
has_finding() {
    local input
    for input in "artifacts/$1"/*; do
        [ -e "$input" ] || continue
        if timeout 60 "$binaries/$1" "$input" >"$scratch/log" 2>&1; then
            # It took long while something else kept the machine busy.
            case $input in */slow-unit-*) rm "$input"; continue ;; esac
            echo "fuzz: $1: $input holds now; moved into the corpus"
            mv "$input" "corpus/$1/"
        else
            echo "fuzz: $1: still fails on $input" >&2
            return 0
        fi
    done
    return 1
}

# Seconds that a processor has worked for this script's children that have ended: on a busy machine, that is
# less than the clock says.
worked() {
    local fields
    read -r -a fields <"/proc/$$/stat"
    echo $(((fields[15] + fields[16]) / $(getconf CLK_TCK)))
}

# run TARGET SECONDS: one slice; fails on a finding.
run() {
    local name=$1 seconds=$2 before inputs status=0 dictionary=()
    before=$(worked)
    mkdir -p "$found/$name" "artifacts/$name"
    [ -e "dict/$name" ] && dictionary=("-dict=dict/$name")
    # What is new goes into the first folder; the second is the committed corpus, and only read.
    nice -n 19 "$binaries/$name" "${dictionary[@]}" -max_total_time="$seconds" -max_len=4096 \
        -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="artifacts/$name/" \
        "$found/$name" "corpus/$name" >"$scratch/log" 2>&1 &
    job=$! job_target=$name job_before=$before
    wait "$job" || status=$?
    job=
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log" | tail -n 1)
    account "$name" "$(($(worked) - before))" "${inputs:-0}"
    rm -rf "${scratch:?}"/portcullis-*
    if [ "$status" != 0 ]; then
        tail -n 40 "$scratch/log" >&2
        echo "fuzz: $name: a finding, in fuzz/artifacts/$name" >&2
    fi
    return "$status"
}

# Interrupted, a slice still counts.
job=
stop() {
    trap - INT TERM
    if [ -n "$job" ]; then
        kill "$job" 2>/dev/null || true
        wait "$job" || true
        account "$job_target" "$(($(worked) - job_before))" 0
    fi
    exit 130
}

binaries=$target_dir/$host/release
found=$target_dir/corpus
# The targets that need files write them here: in memory, where there is some.
shm=/dev/shm
[ -w "$shm" ] || shm=${TMPDIR:-/tmp}
scratch=$(mktemp -d "$shm/fuzz-XXXXXX")
export TMPDIR=$scratch
trap 'rm -rf "$scratch"' EXIT
trap stop INT TERM

# Without a sanitizer of memory, which would halve the speed: `unsafe` is forbidden in what is tested.
# Overflows and debug assertions are checked.
TMPDIR=/tmp nice -n 19 cargo +nightly fuzz build --fuzz-dir . --sanitizer none

findings=0
open=$(targets "$@")
while [ -n "$open" ]; do
    least=
    for name in $open; do
        spent=$(field "$name" 4)
        [ -n "$spent" ] || { echo "fuzz: $name has no row in $ledger" >&2; exit 2; }
        if [ "$spent" -lt "$wanted" ] && { [ -z "$least" ] || [ "$spent" -lt "$least" ]; }; then
            least=$spent chosen=$name
        fi
    done
    [ -n "$least" ] || break
    left=$((wanted - least))
    if ! has_finding "$chosen" && run "$chosen" "$((left < slice ? left : slice))"; then
        echo "fuzz: $chosen: $(field "$chosen" 4) of $wanted seconds, $(field "$chosen" 5) inputs"
    else
        findings=$((findings + 1))
        open=$(printf '%s\n' "$open" | grep -vx "$chosen" || true)
    fi
done
if [ "$findings" -gt 0 ]; then
    echo "fuzz: $findings targets have findings" >&2
    exit 1
fi
echo "fuzz: every target has run $wanted seconds, without a finding that is not mended"
