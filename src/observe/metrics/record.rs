//! The metrics of the record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Registry};

use super::register::{LATENCY_BUCKETS, counters, gauge, opts, register};
use crate::record::{Meters, Stats};

/// Rows per transaction: from a single commit to a whole journal.
const ROWS_BUCKETS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// All but the meters are copied from [`Stats`] for each scrape or export.
pub struct RecordMetrics {
    /// The meters that the recorder itself writes to.
    pub meters: Meters,
    rows: IntCounterVec,
    queue_depth: IntGauge,
    journal_depth: IntGauge,
    journal_age: Gauge,
}

impl RecordMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let seconds = |name, help| histogram(r, name, help, &LATENCY_BUCKETS);
        Ok(RecordMetrics {
            meters: Meters {
                batch_rows: histogram(
                    r,
                    "record_batch_rows",
                    "Rows in one transaction with the store",
                    &ROWS_BUCKETS,
                )?,
                store_commit: seconds(
                    "record_commit_seconds",
                    "What a transaction with the store took",
                )?,
                journal_commit: seconds(
                    "record_journal_commit_seconds",
                    "What a transaction with the journal took",
                )?,
            },
            rows: counters(
                r,
                "record_rows_total",
                "Rows of the record by what became of them",
                &["result"],
            )?,
            queue_depth: gauge(r, "record_queue_depth", "Rows waiting in memory")?,
            journal_depth: gauge(r, "record_journal_depth", "Rows waiting in the journal")?,
            journal_age: register(
                r,
                Gauge::with_opts(opts(
                    "record_journal_age_seconds",
                    "How long the oldest row of the journal has been there",
                ))?,
            )?,
        })
    }

    /// Copies what the recorder has counted.
    pub fn publish(&self, stats: &Stats) {
        self.rows.reset();
        for (result, rows) in [
            ("written", stats.written),
            ("committed", stats.committed),
            ("completed", stats.completed),
            ("incomplete", stats.completions_dropped),
            ("dropped", stats.dropped),
            ("dead", stats.dead),
            ("unavailable", stats.unavailable),
            ("journaled", stats.journaled),
            ("shipped", stats.shipped),
            ("damaged", stats.damaged),
        ] {
            self.rows.with_label_values(&[result]).inc_by(rows);
        }
        let gauge = |depth: u64| i64::try_from(depth).unwrap_or(i64::MAX);
        self.queue_depth.set(gauge(stats.queue_depth));
        self.journal_depth.set(gauge(stats.journal_depth));
        let age = match stats.journal_oldest_us {
            0 => Duration::ZERO,
            since => SystemTime::now()
                .duration_since(UNIX_EPOCH + Duration::from_micros(since))
                .unwrap_or_default(),
        };
        self.journal_age.set(age.as_secs_f64());
    }
}

fn histogram(
    r: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts::new(name, help).namespace("portcullis").buckets(buckets.to_vec());
    register(r, Histogram::with_opts(opts)?)
}
