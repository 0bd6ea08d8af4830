#!/usr/bin/env bash
# The record's proofs at full length: fifty kills in each mode and on each store, and each trouble of
# the database for thirty seconds, after thirty without it to compare with. Then a thousand endpoints of
# which ten change each second, for a minute, a thousand reloads that change listeners, and a thousand renewals of a certificate, under load.
# Takes twenty minutes; prints the figures. `make soak`.
# UPGRADES=100 makes a hundred upgrades in a row, under load over HTTP/1, HTTP/2, TLS, WebSockets and with uploads of
# UPGRADE_UPLOAD=20 seconds, UPGRADE_PAUSE=1000 milliseconds apart.
# RECORD_OUTAGE_FAULT=stopped (or another) chooses one trouble,
# RECORD_OUTAGE_ROUNDS=5 repeats each and compares the medians, RECORD_OUTAGE_RATE=1500 sets the requests
# a second, RECORD_OUTAGE_CLIENTS=64 the connections. The database's files are in memory, where there is
# room for them: else its disk is the journal's, which in production it is not. With TMPDIR=/dev/shm the
# journal is there, too, and what the disk does by itself is not measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RECORD_KILLS=${RECORD_KILLS:-50} RECORD_OUTAGE_SECONDS=${RECORD_OUTAGE_SECONDS:-30}
room=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
if [ "${room:-0}" -gt 2000000 ]; then export TEST_POSTGRES_DIRECTORY=${TEST_POSTGRES_DIRECTORY:-/dev/shm}; fi
# A processor that sleeps wakes late, and with the database away there is less to keep it awake: the kernel
# is asked to let none sleep, for as long as this runs.
if [ -w /dev/cpu_dma_latency ] && exec 3>/dev/cpu_dma_latency; then
    printf '\0\0\0\0' >&3 || true
fi
# One after the other: the figures are latencies.
export UPGRADES=${UPGRADES:-100} UPGRADE_UPLOAD=${UPGRADE_UPLOAD:-20} UPGRADE_PAUSE=${UPGRADE_PAUSE:-1000}
export FLEET_ENDPOINTS=${FLEET_ENDPOINTS:-1000} FLEET_SECONDS=${FLEET_SECONDS:-60} LISTENERS_RELOADS=${LISTENERS_RELOADS:-1000}
export ROTATIONS=${ROTATIONS:-1000}
cargo test --locked --test integration -- record_crash record_outage fleet listeners_load tls_rotation::rotations_under_load upgrade::nothing_fails --test-threads 1 --nocapture
