#!/usr/bin/env bash
# Instructions that the gateway executes for a request, case by case, under valgrind: as a table, and
# whether they are within 3 % of bench/instructions.txt. See bench/README.md.
#
#   bench/instructions.sh                          # counts and compares
#   bench/instructions.sh --write                  # makes what it counts the figures to compare with
#   CONFIGURATION=FILE bench/instructions.sh       # another configuration for `full`; compares nothing
#
# Needs scripts/setup.sh --instructions and scripts/gungraun.sh, as make instructions runs them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROFILE=${PROFILE:-instructions}
CONFIGURATION=${CONFIGURATION-}        # its variables: PORT, BENCH_UPSTREAM, and those of full-chain.yaml
figures=bench/instructions.txt

fail() { printf 'instructions: %s\n' "$*" >&2; exit 1; }

mode=compare
case ${1-} in
    '') if [ -n "$CONFIGURATION" ]; then mode=show; fi ;;
    --write) mode=write ;;
    *) fail "usage: bench/instructions.sh [--write]" ;;
esac
if [ -n "$CONFIGURATION" ]; then
    [ "$mode" = show ] || fail "figures to compare with are those of bench/full-chain.yaml"
    CONFIGURATION=$(realpath "$CONFIGURATION")
fi

# What compiled code depends on besides the code. Valgrind shows programs a processor with AVX2 at most.
host=$(rustc -vV | sed -n 's/^host: //p')
machine="rustc $(rustc -vV | sed -n 's/^release: //p'), $host"
machine+=", $(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'another libc')"
if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then machine+=", AVX2"; fi

# In containers it may not be possible to have addresses that are the same each time.
setarch -R true 2>/dev/null || export GUNGRAUN_ALLOW_ASLR=yes
export PATH=$PWD/.tools/bin:$PATH GUNGRAUN_HOME=${CARGO_TARGET_DIR:-target}/gungraun
GUNGRAUN_HOME=$(realpath -m "$GUNGRAUN_HOME")
if [ -n "$CONFIGURATION" ]; then export GUNGRAUN_ENVS="CONFIGURATION=$CONFIGURATION"; fi

# What it would compare with is the last run, which is of no interest.
rm -rf "$GUNGRAUN_HOME"
mkdir -p "$GUNGRAUN_HOME"
counted=$GUNGRAUN_HOME/counted
cargo bench --locked --profile "$PROFILE" --bench instructions -- --color=never --nosummary \
    >"$counted" || { cat "$counted" >&2; fail "not counted, see above"; }

awk -v mode="$mode" -v machine="$machine" -v figures="$figures" \
    -v requests="$(sed -n 's/^const REQUESTS: usize = \([0-9]*\);/\1/p' bench/instructions/main.rs)" '
    function abs(x) { return x < 0 ? -x : x }

    # Without what client and upstream take.
    function figure(name,    direct) {
        direct = name ~ /^grpc_/ ? "grpc_direct" : "direct"
        if (name ~ /direct$/ || name ~ /^route_/) return count[name] / requests
        return (count[name] - count[direct]) / requests
    }
    function bare(name) { return name ~ /^grpc_/ ? "grpc_bare" : "bare" }
    function whole(name) { return name !~ /direct$/ && name !~ /^route_/ && name != bare(name) }

    function report(name, what, now, before) {
        printf "instructions: %s: %s %s, %s in %s: %.1f %% %s, and at most %d %% are allowed\n", name, \
            now, what, before, figures, abs(now / before - 1) * 100, \
            (now > before ? "more" : "less"), allowed > "/dev/stderr"
        wrong = 1
    }

    FILENAME == figures {
        if (/^machine: /) measured_on = substr($0, 10)
        else if (!/^#/ && NF == 2) { known[$1] = $2; expected[++expecting] = $1 }
        next
    }
    # "instructions::GROUP::FUNCTION ID:SETUP(...)", then "  Instructions: COUNT|...".
    /^instructions::/ {
        name = $2
        sub(/:.*/, "", name)
        if ($1 ~ /::route$/) name = "route_" name
    }
    $1 == "Instructions:" {
        split($2, counts, "|")
        count[name] = counts[1]
        order[++cases] = name
    }

    END {
        if (!cases || !requests) { print "instructions: nothing was counted" > "/dev/stderr"; exit 1 }
        same = mode == "compare" && measured_on == machine
        allowed = same ? 3 : 6
        print "| case | instructions | × bare |" (same ? " figure of " figures " | change |" : "")
        print "|---|---|---|" (same ? "---|---|" : "")
        for (i = 1; i <= cases; i++) {
            name = order[i]
            now[name] = figure(name)
            ratio = whole(name) ? sprintf("%.3f", figure(name) / figure(bare(name))) : "-"
            row = sprintf("| %s | %.0f | %s |", name, now[name], ratio)
            if (same && name in known)
                row = row sprintf(" %d | %+.2f %% |", known[name], (now[name] / known[name] - 1) * 100)
            print row
        }
        if (mode == "show") exit
        if (mode == "write") {
            print "# Instructions for a request, by bench/instructions.sh --write: see bench/README.md." >figures
            print "machine: " machine >figures
            for (i = 1; i <= cases; i++) printf "%s %.0f\n", order[i], now[order[i]] >figures
            exit
        }
        print ""
        if (!same)
            printf "instructions: %s is of another machine:\n  there: %s\n  here:  %s\n" \
                "Only the ratios to bare are compared, and %d %% are allowed.\n", \
                figures, measured_on, machine, allowed
        for (i = 1; i <= expecting; i++) {
            name = expected[i]
            if (!(name in count)) {
                printf "instructions: %s: in %s, but not counted\n", name, figures > "/dev/stderr"
                wrong = 1
            } else if (same) {
                if (abs(now[name] / known[name] - 1) * 100 > allowed)
                    report(name, "instructions for a request", sprintf("%.0f", now[name]), known[name])
            } else if (whole(name)) {
                before = known[name] / known[bare(name)]
                ratio = figure(name) / figure(bare(name))
                if (abs(ratio / before - 1) * 100 > allowed)
                    report(name, "× bare", sprintf("%.3f", ratio), sprintf("%.3f", before))
            }
        }
        for (i = 1; i <= cases; i++)
            if (!(order[i] in known)) {
                printf "instructions: %s: not in %s\n", order[i], figures > "/dev/stderr"
                wrong = 1
            }
        if (wrong) {
            print "instructions: if that is meant, write new figures: bench/instructions.sh --write" > "/dev/stderr"
            exit 1
        }
        print "instructions: every case is within " allowed " %"
    }' "$([ -e "$figures" ] && echo "$figures" || echo /dev/null)" "$counted"
