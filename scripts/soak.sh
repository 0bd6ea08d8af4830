#!/usr/bin/env bash
# The record's proofs at full length: fifty kills in each mode and on each store, and each trouble of
# the database for thirty seconds, after thirty without it to compare with. Takes a quarter of an hour;
# prints the figures. `make soak`. RECORD_OUTAGE_FAULT=stopped (or another) chooses one trouble.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RECORD_KILLS=${RECORD_KILLS:-50} RECORD_OUTAGE_SECONDS=${RECORD_OUTAGE_SECONDS:-30}
# One after the other: the figures are latencies.
cargo test --locked --test integration -- record_crash record_outage --test-threads 1 --nocapture
