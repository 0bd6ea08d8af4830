//! The metrics of an upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Metric, MetricType};

use super::durations::Durations;
use super::live::{Counted, Entry, Shape};
use super::reasons::Reasons;
use super::shown::counter;
use super::words::{CHECK_RESULTS, Facets, OUTCOMES};

/// One upstream's metrics, counted from its first attempt on, and shown from the start.
#[derive(Clone)]
pub struct UpstreamMetrics(pub(super) Arc<Entry<Counts>>);

#[derive(Default)]
pub(super) struct Counts {
    attempts: Reasons,
    checks: Reasons,
    connects: AtomicU64,
    moves: AtomicU64,
    duration: Durations,
}

impl UpstreamMetrics {
    /// Counts an attempt by its outcome: a class of status or a cause.
    pub fn attempted(&self, outcome: &'static str) {
        self.0.counts().attempts.count(outcome);
    }

    /// Shows the results of health checks from now on, as zero.
    pub fn expect_checks(&self) {
        CHECK_RESULTS.into_iter().for_each(|result| self.0.counts().checks.expect(result));
    }

    /// Counts a health check by its result: `passed`, or why it failed.
    pub fn checked(&self, result: &'static str) {
        self.0.counts().checks.count(result);
    }

    /// Counts the start of a connection, whether or not it succeeds. Attempts without one reuse a
    /// connection.
    pub fn connecting(&self) {
        self.0.counts().connects.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt that took the place of one whose endpoint could not be connected to.
    pub fn moved_on(&self) {
        self.0.counts().moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a response's head that arrived `took` after its attempt's start.
    pub fn answered(&self, took: Duration) {
        self.0.counts().duration.observe(took);
    }
}

impl Counted for Counts {
    const SHAPES: &'static [Shape] = &[
        Shape {
            name: "upstream_attempts_total",
            help: "Attempts by what became of them",
            kind: MetricType::COUNTER,
            labels: &["outcome", "upstream"],
        },
        Shape {
            name: "upstream_health_checks_total",
            help: "Health checks by their result",
            kind: MetricType::COUNTER,
            labels: &["result", "upstream"],
        },
        Shape {
            name: "upstream_connects_total",
            help: "Connections begun; further attempts used one again",
            kind: MetricType::COUNTER,
            labels: &["upstream"],
        },
        Shape {
            name: "upstream_moves_total",
            help: "Attempts in place of one whose endpoint could not be connected to",
            kind: MetricType::COUNTER,
            labels: &["upstream"],
        },
        Shape {
            name: "upstream_duration_seconds",
            help: "From an attempt's start to the head of its answer",
            kind: MetricType::HISTOGRAM,
            labels: &["upstream"],
        },
    ];
    const FROM_THE_START: bool = true;

    fn show(&self, upstream: &str, _: Facets, families: &mut [Vec<Metric>]) {
        let [attempts, checks, connects, moves, durations] = families else { return };
        let labels = |outcome| [("outcome", outcome), ("upstream", upstream)];
        let all = self.attempts.with(OUTCOMES.into_iter());
        attempts.extend(all.map(|(word, n)| counter(&labels(word), n)));
        let labels = |result| [("result", result), ("upstream", upstream)];
        checks.extend(
            self.checks.with(std::iter::empty()).map(|(word, n)| counter(&labels(word), n)),
        );
        let begun = self.connects.load(Ordering::Relaxed);
        connects.push(counter(&[("upstream", upstream)], begun));
        let moved = self.moves.load(Ordering::Relaxed);
        moves.push(counter(&[("upstream", upstream)], moved));
        durations.push(self.duration.show(&[("upstream", upstream)]));
    }
}
