//! When a client's connection gives way to a new one, so that a balancer in front of several replicas can
//! spread its clients anew.
//!
//! It ends between two requests: the last response says so, by `Connection: close` in HTTP/1, by GOAWAY in
//! HTTP/2, and nothing that is under way is cut. An idle connection is left alone, because a client may be about
//! to send: its next request is its last one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pingora_core::server::ShutdownWatch;

use crate::config::server::Listener;
use crate::time::{Clock, Moment};

/// Connections of one moment must not all end in one moment: this share of the age is drawn.
const JITTER: f64 = 0.1;

/// What is left to one connection.
#[derive(Debug)]
pub struct Turnover {
    // Relaxed: a count, which orders nothing.
    /// Requests; `u32::MAX`: as many as come.
    left: AtomicU32,
    /// `None`: no limit.
    until: Option<Moment>,
    /// Whether all connections of its listener are to end.
    drains: ShutdownWatch,
}

impl Turnover {
    /// A new connection of `listener`, whose connections are to end once `drains` is true.
    pub fn of(listener: &Listener, drains: ShutdownWatch) -> Self {
        let (requests, age) = (listener.max_requests_per_connection, *listener.max_connection_age);
        Turnover::new(requests, age, drains, fastrand::f64(), Clock::now())
    }

    /// A connection that begins at `now`. Zero means no limit; `drawn` is from 0 to 1.
    fn new(requests: u32, age: Duration, drains: ShutdownWatch, drawn: f64, now: Moment) -> Self {
        let left = if requests == 0 { u32::MAX } else { requests };
        let age = age.mul_f64(1.0 - JITTER * drawn);
        Turnover { left: AtomicU32::new(left), until: (!age.is_zero()).then(|| now + age), drains }
    }

    /// Whether it ends with the request under way, because all connections of its listener are to end.
    pub fn is_ordered(&self) -> bool {
        *self.drains.borrow()
    }

    /// Counts the request that begins at `now`: whether it is to be the last.
    pub fn is_last(&self, now: Moment) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left != u32::MAX {
            self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        }
        left <= 1 || self.until.is_some_and(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn turnover(requests: u32, age: Duration, drawn: f64, now: Moment) -> Turnover {
        let (_, drains) = tokio::sync::watch::channel(false);
        Turnover::new(requests, age, drains, drawn, now)
    }

    #[test]
    fn the_last_request_is_the_one_that_uses_up_the_count() {
        let now = Clock::now();
        let one = turnover(3, Duration::ZERO, 0.5, now);
        let last: Vec<bool> = (0..5).map(|_| one.is_last(now + HOUR)).collect();
        // Streams that a client opened before it knew are served, too.
        assert_eq!(last, [false, false, true, true, true]);
        assert!(turnover(1, Duration::ZERO, 0.0, now).is_last(now));
    }

    #[test]
    fn zero_is_no_limit() {
        let now = Clock::now();
        let one = turnover(0, Duration::ZERO, 1.0, now);
        assert!((0..1000).all(|_| !one.is_last(now + HOUR * 24 * 365)));
    }

    #[test]
    fn an_age_is_shortened_by_up_to_a_tenth() {
        let now = Clock::now();
        for (drawn, ends) in [(0.0, HOUR), (0.5, HOUR.mul_f64(0.95)), (1.0, HOUR.mul_f64(0.9))] {
            let one = turnover(0, HOUR, drawn, now);
            assert!(!one.is_last(now + ends.saturating_sub(Duration::from_millis(1))), "{drawn}");
            assert!(one.is_last(now + ends + Duration::from_millis(1)), "{drawn}");
        }
    }
}
