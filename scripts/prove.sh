#!/usr/bin/env bash
# Kills, cuts and fail-overs under load, by the tests that hold them, and at the end a ledger: what clients were
# answered, beside the rows there are of it. Takes about three minutes once built; ends with 1 if anything is not exact.
# `make prove`. RECORD_KILLS, RECORD_OUTAGE_SECONDS, RECORD_OUTAGE_RATE and ENDPOINT_DEATHS make it longer or shorter;
# `make soak` has the full length. The output of the tests and the ledger stay in target/prove.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RECORD_KILLS=${RECORD_KILLS:-12} ENDPOINT_DEATHS=${ENDPOINT_DEATHS:-12}
export RECORD_OUTAGE_SECONDS=${RECORD_OUTAGE_SECONDS:-4} RECORD_OUTAGE_RATE=${RECORD_OUTAGE_RATE:-100}
# Rows are proved here, which are right or wrong; times are compared by `make test` and `make soak`.
export RECORD_OUTAGE_TIMES=${RECORD_OUTAGE_TIMES:-off}
# A proof that was skipped for want of PostgreSQL would be none.
export CI=true
proofs=(record_crash:: record_outage:: record_failover:: record_drain::replicas two_versions::)

folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/prove")
log=$folder/log
export PORTCULLIS_LEDGER=$folder/ledger.tsv
mkdir -p "$folder"
: >"$PORTCULLIS_LEDGER"

# Reads lines of the ledger, writes the table; ends with 1 if one is not exact.
table() {
    LC_ALL=C sort | awk -F '\t' -v colours="$1" '
        function cell(text, width, right) {
            return sprintf(right ? "%" width "s" : "%-" width "s", text)
        }
        function row(line, verdict, paint,    columns, i, text) {
            split(line, columns, "\t")
            for (i = 1; i <= 7; i++) text = text cell(columns[i], widths[i], i > 2) "  "
            print text (colours ? paint verdict "\033[0m" : verdict)
        }
        function widen(line,    columns, i) {
            split(line, columns, "\t")
            for (i = 1; i <= 7; i++) if (length(columns[i]) > widths[i]) widths[i] = length(columns[i])
        }
        BEGIN {
            head = "proof\twhat was done\tacknowledged\trows\tlost\tdoubled\tfailed"
            widen(head)
        }
        {
            lines[NR] = $0
            widen($0)
            for (i = 3; i <= 7; i++) sums[i] += $i
            exact[NR] = $3 > 0 && $4 >= $3 && $5 == 0 && $6 == 0 && $7 == 0
            wrong += !exact[NR]
        }
        END {
            sum = "all\t" NR " proofs"
            for (i = 3; i <= 7; i++) sum = sum "\t" sums[i] + 0
            widen(sum)
            row(head, "verdict", "\033[1m")
            for (n = 1; n <= NR; n++) {
                if (exact[n]) row(lines[n], "exact", "\033[32m")
                else row(lines[n], "NOT EXACT", "\033[1;31m")
            }
            if (wrong || !NR) row(sum, "NOT EXACT", "\033[1;31m")
            else row(sum, "exact", "\033[32m")
            exit wrong || !NR
        }'
}

cargo test --locked --test integration --no-run
echo "prove: kills, cuts and fail-overs under load; what the tests say goes to $log"
started=$SECONDS
code=0
cargo test --locked --test integration -- "${proofs[@]}" --test-threads 3 >"$log" 2>&1 || code=$?
took=$((SECONDS - started))

colours=
if [ -t 1 ]; then colours=yes; fi
echo
table "$colours" <"$PORTCULLIS_LEDGER" || code=1
echo
echo "Every acknowledged request must have one row. Rows beyond that are of requests whose client was cut off before it"
echo "heard the answer, and of a proof's own calls. It took $took s."
passed=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log")
if [ "$(wc -l <"$PORTCULLIS_LEDGER")" -lt "${passed:-1}" ]; then
    echo "prove: a test wrote no line of the ledger; see $log" >&2
    code=1
fi
if [ "$code" != 0 ]; then
    sed -n 's/^test \(.*\) \.\.\. FAILED$/prove: failed: \1/p' "$log" >&2
    echo "prove: not exact, or not made; see $log" >&2
    exit 1
fi
