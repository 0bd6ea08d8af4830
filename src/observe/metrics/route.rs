//! What is counted for each route.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Family;

/// One route's metrics, resolved when the configuration was compiled.
#[derive(Clone)]
pub struct RouteMetrics {
    /// By [`Family`], then by class of status.
    pub(super) answered: [[IntCounter; 5]; 4],
    pub duration: Histogram,
    pub retries: IntCounter,
    pub(super) stopped: IntCounterVec,
    pub(super) fallbacks: IntCounterVec,
    pub(super) fallback_calls: IntCounterVec,
    pub(super) rejections: IntCounterVec,
    pub(super) route: Arc<str>,
}

impl RouteMetrics {
    /// A request has been answered with `status`; 0, for nothing, counts as the 4xx of a 499.
    pub fn answered(&self, family: Family, status: u16, took: Duration) {
        let class = if status == 0 { 4 } else { usize::from(status / 100).clamp(1, 5) };
        self.answered[family as usize][class - 1].inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub fn rejected(&self, code: &str) {
        self.rejections.with_label_values(&[&*self.route, code]).inc();
    }

    pub fn retry_stopped(&self, reason: &str) {
        self.stopped.with_label_values(&[&*self.route, reason]).inc();
    }

    /// A request goes to the upstream that the route falls back on.
    pub fn diverted(&self, reason: &str) {
        self.fallback_calls.with_label_values(&[&*self.route, reason]).inc();
    }

    /// The route's fallback has answered.
    pub fn fell_back(&self, reason: &str) {
        self.fallbacks.with_label_values(&[&*self.route, reason]).inc();
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.answered.iter().flatten().map(IntCounter::get).sum()
    }

    /// Of those, answered with a 5xx.
    pub fn errors(&self) -> u64 {
        self.answered.iter().map(|classes| classes[4].get()).sum()
    }

    pub fn mean_duration(&self) -> Duration {
        let count = self.duration.get_sample_count();
        if count == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.duration.get_sample_sum() / count as f64)
    }
}
