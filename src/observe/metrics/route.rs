//! The metrics of a route.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::proto::{Metric, MetricType};

use super::Family;
use super::durations::Durations;
use super::family::CLASSES;
use super::live::{Counted, Entry, Shape};
use super::reasons::Reasons;
use super::shown::{counter, gauge};
use super::statuses::Statuses;
use super::words::{Facet, Facets};
use crate::observe::access_log::Refusals;

/// One route's metrics, created with its first request; and what the route does, once it is in force.
#[derive(Clone)]
pub struct RouteMetrics(pub(super) Arc<Entry<Counts>>, pub(super) Facets);

/// A finished request, as far as its route counts it.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// What its client speaks.
    pub family: Family,
    /// What the client got; 0 if nothing was sent.
    pub status: u16,
    /// Whether the gateway cut it off.
    pub cut: bool,
    /// From its head to its end.
    pub took: Duration,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    /// Those that have ended are in `answered`; the difference is in flight.
    begun: AtomicU64,
    /// By [`Family`], then by class of status.
    answered: [[AtomicU64; 5]; 4],
    /// Only where exact statuses are wanted.
    statuses: OnceLock<Box<Statuses>>,
    duration: Durations,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    retries: AtomicU64,
    stopped: Reasons,
    fallbacks: Reasons,
    fallback_calls: Reasons,
    rejections: Reasons,
    would_refuse: Reasons,
    refusals: Refusals,
    waits: Durations,
    given_up: Reasons,
}

impl RouteMetrics {
    /// The route is in force: from now on its counts are those that it wants.
    pub fn in_force(&self) {
        self.0.set_facets(self.1);
    }

    /// Counts a request that has begun; [`RouteMetrics::answered`] counts its end.
    pub fn begun(&self) {
        // Relaxed, here and below: no other data depends on the counts.
        self.0.counts().begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a finished request. If nothing was sent, it counts as 4xx like a 499, or as 5xx if the
    /// gateway cut it off.
    pub fn answered(&self, request: Finished) {
        let Finished { family, status, cut, took, bytes_in, bytes_out } = request;
        let class = match (status, cut) {
            (0, true) => 5,
            (0, false) => 4,
            (status, _) => usize::from(status / 100).clamp(1, 5),
        };
        let counts = self.0.counts();
        counts.answered[family as usize][class - 1].fetch_add(1, Ordering::Relaxed);
        counts.duration.observe(took);
        if bytes_in > 0 {
            counts.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        }
        if bytes_out > 0 {
            counts.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        }
        if self.0.facets().has(Facet::ExactStatus) {
            counts.statuses.get_or_init(Box::default).count(status);
        }
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

    /// What the access log leaves out of the route's refusals.
    pub fn refusals(&self) -> &Refusals {
        &self.0.counts().refusals
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
            name: "responses_total",
            help: "Answered requests by exact status",
            kind: MetricType::COUNTER,
            labels: &["route", "status"],
        },
        Shape {
            name: "route_requests_in_flight",
            help: "Requests being answered",
            kind: MetricType::GAUGE,
            labels: &["route"],
        },
        Shape {
            name: "request_bytes_total",
            help: "Bytes of the bodies of requests",
            kind: MetricType::COUNTER,
            labels: &["route"],
        },
        Shape {
            name: "response_bytes_total",
            help: "Bytes of the bodies of responses",
            kind: MetricType::COUNTER,
            labels: &["route"],
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
    const FROM_THE_START: bool = false;

    fn show(&self, route: &str, facets: Facets, families: &mut [Vec<Metric>]) {
        let [
            requests,
            responses,
            in_flight,
            bytes_in,
            bytes_out,
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
        // rises from zero, as `rate` needs. Plain HTTP counts as spoken: a request may be under way.
        let answered = self.answered();
        let spoken = Family::ALL.into_iter().zip(answered);
        for (family, classes) in
            spoken.filter(|(family, classes)| *family == Family::Http || *classes != [0; 5])
        {
            for (class, count) in CLASSES.into_iter().zip(classes) {
                let labels = [("class", class), ("protocol", family.as_str()), ("route", route)];
                requests.push(counter(&labels, count));
            }
        }
        let statuses = self.statuses.get().into_iter().flat_map(|statuses| statuses.counts());
        responses.extend(
            statuses.map(|(status, n)| counter(&[("route", route), ("status", &status)], n)),
        );
        let labels = [("route", route)];
        let count = |count: &AtomicU64| counter(&labels, count.load(Ordering::Relaxed));
        // Read after the ends, so that it is never less.
        let begun = self.begun.load(Ordering::Relaxed);
        let ended: u64 = answered.iter().flatten().sum();
        in_flight.push(gauge(&labels, begun.saturating_sub(ended) as f64));
        bytes_in.push(count(&self.bytes_in));
        bytes_out.push(count(&self.bytes_out));
        durations.push(self.duration.show(&labels));
        // Few routes have a queue.
        if !self.waits.is_empty() {
            waits.push(self.waits.show(&labels));
        }
        retries.push(count(&self.retries));
        let show = |family: &mut Vec<Metric>, label, word, n| {
            family.push(counter(&[(label, word), ("route", route)], n));
        };
        for (word, n) in self.given_up.with(std::iter::empty()) {
            show(given_up, "reason", word, n);
        }
        for (word, n) in self.rejections.with(facets.codes()) {
            show(rejections, "code", word, n);
        }
        for (word, n) in self.stopped.with(facets.retry_reasons()) {
            show(stopped, "reason", word, n);
        }
        for (word, n) in self.fallbacks.with(facets.fallbacks(Facet::FallbackBody)) {
            show(fallbacks, "reason", word, n);
        }
        for (word, n) in self.fallback_calls.with(facets.fallbacks(Facet::FallbackUpstream)) {
            show(fallback_calls, "reason", word, n);
        }
        for (word, n) in self.would_refuse.with(facets.dry_codes()) {
            show(would_refuse, "code", word, n);
        }
    }
}
