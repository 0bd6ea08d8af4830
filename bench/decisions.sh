#!/usr/bin/env bash
# What each decision costs, as a table: criterion's estimates in nanoseconds, on one thread and on
# two at once. A decision that two threads make at once must not cost each of them much more than
# one; on a machine with fewer than two cores to spare it does. See bench/README.md.
#
#   SECONDS_EACH=2 bench/decisions.sh [criterion options, such as a filter: breaker]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SECONDS_EACH=${SECONDS_EACH:-2}
PROFILE=${PROFILE:-bench}              # or dev, to try the script

cargo bench --locked --profile "$PROFILE" --bench decisions -- --noplot --warm-up-time 0.5 \
    --measurement-time "$SECONDS_EACH" "$@" | tee /dev/stderr | awk '
    function nanos(value, unit) {
        if (unit == "ps") return value / 1000
        if (unit == "ns") return value
        if (unit == "ms") return value * 1000000
        return value * 1000
    }
    # A long name has a line of its own; the middle one of three estimates counts.
    NF == 1 && $1 ~ /^[a-z_0-9\/]+$/ { name = $1 }
    {
        for (i = 1; i <= NF; i++)
            if ($i == "time:") {
                if (i > 1) name = $1
                value = nanos($(i + 3), $(i + 4))
                threads = 1
                if (split(name, part, "/threads/") == 2) { name = part[1]; threads = part[2] }
                if (!((name) in seen)) { order[++count] = name; seen[name] }
                cost[name, threads] = value
            }
    }
    END {
        print "| decision | ns | ns, two threads at once |"
        print "|---|---|---|"
        for (i = 1; i <= count; i++) {
            name = order[i]
            two = (name, 2) in cost ? sprintf("%.0f", cost[name, 2]) : "-"
            printf "| %s | %.0f | %s |\n", name, cost[name, 1], two
        }
    }'
