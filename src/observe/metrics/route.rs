//! The metrics of a route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Metric, MetricType};

use super::Family;
use super::durations::Durations;
use super::family::CLASSES;
use super::live::{Counted, Entry, Shape};
use super::reasons::Reasons;
use super::shown::counter;

/// One route's metrics, created with its first request.
#[derive(Clone)]
pub struct RouteMetrics(pub(super) Arc<Entry<Counts>>);

#[derive(Default)]
pub(super) struct Counts {
    /// By [`Family`], then by class of status.
    answered: [[AtomicU64; 5]; 4],
    duration: Durations,
    retries: AtomicU64,
    stopped: Reasons,
    fallbacks: Reasons,
    fallback_calls: Reasons,
    rejections: Reasons,
    would_refuse: Reasons,
    waits: Durations,
    given_up: Reasons,
}

impl RouteMetrics {
    /// Counts a finished request. `status` 0 means that nothing was sent, and counts as 4xx like a
    /// 499.
    pub fn answered(&self, family: Family, status: u16, took: Duration) {
        let class = if status == 0 { 4 } else { usize::from(status / 100).clamp(1, 5) };
        let counts = self.0.counts();
        // Relaxed, here and below: no other data depends on the counts.
        counts.answered[family as usize][class - 1].fetch_add(1, Ordering::Relaxed);
        counts.duration.observe(took);
    }

    /// Counts a refusal by its `code`.
    pub fn rejected(&self, code: &'static str) {
        self.0.counts().rejections.count(code);
    }

    /// Counts a request that a policy would have refused, had it been enforced, by that refusal's
    /// `code`.
    pub fn would_refuse(&self, code: &'static str) {
        self.0.counts().would_refuse.count(code);
    }

    /// Notes how long a request has waited for a slot of the bulkhead, with success or without.
    pub fn waited(&self, wait: Duration) {
        self.0.counts().waits.observe(wait);
    }

    /// Counts a request that has waited for a slot and got none, by the reason.
    pub fn waited_in_vain(&self, reason: &'static str) {
        self.0.counts().given_up.count(reason);
    }

    /// Counts an attempt after the first.
    pub fn retried(&self) {
        self.0.counts().retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that got no further attempt, by the reason.
    pub fn retry_stopped(&self, reason: &'static str) {
        self.0.counts().stopped.count(reason);
    }

    /// Counts a request sent to the route's fallback upstream.
    pub fn diverted(&self, reason: &'static str) {
        self.0.counts().fallback_calls.count(reason);
    }

    /// Counts a response by the route's fallback.
    pub fn fell_back(&self, reason: &'static str) {
        self.0.counts().fallbacks.count(reason);
    }

    /// Finished requests so far.
    pub fn requests(&self) -> u64 {
        let answered = self.0.counted().map(Counts::answered).unwrap_or_default();
        answered.iter().flatten().sum()
    }

    /// Of those, the ones with a 5xx status.
    pub fn errors(&self) -> u64 {
        let answered = self.0.counted().map(Counts::answered).unwrap_or_default();
        answered.iter().map(|classes| classes[4]).sum()
    }

    /// Over all requests since the start; zero if there were none.
    pub fn mean_duration(&self) -> Duration {
        self.0.counted().map(|counts| counts.duration.mean()).unwrap_or_default()
    }
}

impl Counts {
    fn answered(&self) -> [[u64; 5]; 4] {
        self.answered
            .each_ref()
            .map(|classes| classes.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl Counted for Counts {
    const SHAPES: &'static [Shape] = &[
        Shape {
            name: "requests_total",
            help: "Answered requests",
            kind: MetricType::COUNTER,
            labels: &["class", "protocol", "route"],
        },
        Shape {
            name: "request_duration_seconds",
            help: "From a request's head to the last byte of its answer",
            kind: MetricType::HISTOGRAM,
            labels: &["route"],
        },
        Shape {
            name: "retries_total",
            help: "Attempts after the first",
            kind: MetricType::COUNTER,
            labels: &["route"],
        },
        Shape {
            name: "rejections_total",
            help: "Requests the gateway answered by itself",
            kind: MetricType::COUNTER,
            labels: &["code", "route"],
        },
        Shape {
            name: "retries_stopped_total",
            help: "Failed attempts that were not tried again",
            kind: MetricType::COUNTER,
            labels: &["reason", "route"],
        },
        Shape {
            name: "fallbacks_total",
            help: "Requests that the answer of a route's fallback was given to",
            kind: MetricType::COUNTER,
            labels: &["reason", "route"],
        },
        Shape {
            name: "fallback_calls_total",
            help: "Requests sent to the upstream that a route falls back on",
            kind: MetricType::COUNTER,
            labels: &["reason", "route"],
        },
        Shape {
            name: "would_refuse_total",
            help: "Requests that a policy which is not enforced would have refused",
            kind: MetricType::COUNTER,
            labels: &["code", "route"],
        },
        Shape {
            name: "bulkhead_wait_seconds",
            help: "How long requests have waited for a slot",
            kind: MetricType::HISTOGRAM,
            labels: &["route"],
        },
        Shape {
            name: "bulkhead_given_up_total",
            help: "Requests that have waited for a slot and got none",
            kind: MetricType::COUNTER,
            labels: &["reason", "route"],
        },
    ];

    fn show(&self, route: &str, families: &mut [Vec<Metric>]) {
        let [
            requests,
            durations,
            retries,
            rejections,
            stopped,
            fallbacks,
            fallback_calls,
            would_refuse,
            waits,
            given_up,
        ] = families
        else {
            return;
        };
        // All classes of a protocol that was spoken are shown, so that a class that occurs later
        // rises from zero, as `rate` needs.
        let spoken = Family::ALL.into_iter().zip(self.answered());
        for (family, classes) in spoken.filter(|(_, classes)| *classes != [0; 5]) {
            for (class, count) in CLASSES.into_iter().zip(classes) {
                let labels = [("class", class), ("protocol", family.as_str()), ("route", route)];
                requests.push(counter(&labels, count));
            }
        }
        durations.push(self.duration.show(&[("route", route)]));
        // Few routes have a queue.
        if !self.waits.is_empty() {
            waits.push(self.waits.show(&[("route", route)]));
        }
        retries.push(counter(&[("route", route)], self.retries.load(Ordering::Relaxed)));
        for (family, label, reasons) in [
            (rejections, "code", &self.rejections),
            (stopped, "reason", &self.stopped),
            (fallbacks, "reason", &self.fallbacks),
            (fallback_calls, "reason", &self.fallback_calls),
            (would_refuse, "code", &self.would_refuse),
            (given_up, "reason", &self.given_up),
        ] {
            let counts = reasons.counts();
            family.extend(counts.map(|(word, n)| counter(&[(label, word), ("route", route)], n)));
        }
    }
}
