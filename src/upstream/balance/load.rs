//! What an endpoint's recent attempts say about it: its latency, and its share of failures.
//!
//! Each is a number and the time of its last change in one atomic. Threads that write at the same
//! moment may lose one of their samples, which changes an average little.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Moment;

/// The latency of an endpoint without a sample, as linkerd has it.
const UNKNOWN: f32 = 30.0;
/// How fast old samples of latency lose their weight: after this time, to 1/e.
const DECAY: f32 = 10_000.0;
/// The latency that a failure counts as, at least. Else an endpoint that fails fast attracts.
const FAILURE: f32 = 1_000.0;

/// How much one result moves the share of failures, or the typical time of a response.
const STEP: f32 = 1.0 / 8.0;
/// A smaller share is not held against the endpoint: single failures happen to all.
const TOLERATED: f32 = 0.25;
/// Failures are forgotten after this time without a result.
const FORGOTTEN: f32 = 10_000.0;
/// What an endpoint that always fails counts as, in requests in flight.
const PENALTY: f32 = 10.0;

/// How an attempt has ended, as far as its endpoint is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whether it counts as a failure of the endpoint.
    pub failed: bool,
    /// From its start to the response's head, if there was one.
    pub latency: Option<Duration>,
}

/// Milliseconds and shares, as of their last change.
#[derive(Debug, Default)]
pub struct Load {
    latency: Stamped,
    failures: Stamped,
    /// How long it takes to respond, in milliseconds as the bits of an `f32`; 0 before the first response.
    /// Unlike `latency`, it knows no failures and no peaks.
    typical: AtomicU32,
}

impl Load {
    /// Takes in the result of an attempt.
    pub(in crate::upstream) fn note(&self, ended: Ended, now: Moment) {
        let (share, _) = self.failures.read(now).unwrap_or_default();
        let target = if ended.failed { 1.0 } else { 0.0 };
        // Most endpoints fail nothing: then there is nothing to write.
        if ended.failed || share > 0.0 {
            self.failures.write(share + (target - share) * STEP, now);
        }
        let sample = match (ended.latency.map(millis), ended.failed) {
            (Some(latency), false) => latency,
            (latency, true) => latency.unwrap_or_default().max(FAILURE),
            (None, false) => return,
        };
        if !ended.failed {
            let typical = f32::from_bits(self.typical.load(Ordering::Relaxed));
            let next = if typical == 0.0 { sample } else { typical + (sample - typical) * STEP };
            self.typical.store(next.to_bits(), Ordering::Relaxed);
        }
        // The peak EWMA of finagle: a higher sample is believed at once, a lower one slowly.
        let average = match self.latency.read(now) {
            Some((average, age)) if sample < average => {
                let kept = (-age / DECAY).exp();
                average * kept + sample * (1.0 - kept)
            }
            Some(_) | None => sample,
        };
        self.latency.write(average, now);
    }

    /// It goes on with what `before` has taken in.
    pub(in crate::upstream) fn succeed(&self, before: &Load) {
        for (mine, other) in [(&self.latency, &before.latency), (&self.failures, &before.failures)]
        {
            mine.0.store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.typical.store(before.typical.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How long it takes to respond, of late; `None` before the first response.
    pub fn typical(&self) -> Option<Duration> {
        let typical = f32::from_bits(self.typical.load(Ordering::Relaxed));
        (typical > 0.0).then(|| Duration::from_secs_f32(typical / 1000.0))
    }

    /// The average latency, in which failures count as slow; `None` without a sample.
    pub fn latency(&self, now: Moment) -> Option<Duration> {
        self.latency.read(now).map(|(millis, _)| Duration::from_secs_f32(millis / 1000.0))
    }

    /// The share of failures among the latest results, from 0 to 1. It fades while there are none.
    pub fn failing(&self, now: Moment) -> f32 {
        self.failures.read(now).map_or(0.0, |(share, age)| share * (1.0 - age / FORGOTTEN).max(0.0))
    }

    /// What one more request costs at an endpoint with `in_flight` requests: they, and a penalty for
    /// failures.
    pub(super) fn requests(&self, in_flight: u32, now: Moment) -> f32 {
        let requests = in_flight as f32 + 1.0;
        match self.failing(now) {
            share if share < TOLERATED => requests,
            share => (requests + share) * (1.0 + PENALTY * share),
        }
    }

    /// The same in milliseconds: its latency, which fades while there are no results, times the
    /// requests that are there.
    pub(super) fn millis(&self, in_flight: u32, now: Moment) -> f32 {
        let latency =
            self.latency.read(now).map_or(UNKNOWN, |(average, age)| average * (-age / DECAY).exp());
        latency * self.requests(in_flight, now)
    }
}

fn millis(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1000.0
}

/// A number and when it was written, to the millisecond. Zero: never.
#[derive(Debug, Default)]
struct Stamped(AtomicU64);

impl Stamped {
    /// The number and its age in milliseconds. Ages begin anew after 49 days.
    fn read(&self, now: Moment) -> Option<(f32, f32)> {
        // Relaxed, as below: no other memory depends on it.
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return None;
        }
        let age = stamp(now).wrapping_sub(word as u32);
        // Another thread may have written a little later than `now`.
        let age = if age > u32::MAX - 1000 { 0 } else { age };
        Some((f32::from_bits((word >> 32) as u32), age as f32))
    }

    fn write(&self, number: f32, now: Moment) {
        let word = u64::from(number.to_bits()) << 32 | u64::from(stamp(now));
        self.0.store(word.max(1), Ordering::Relaxed);
    }
}

/// The lowest 32 bits of the milliseconds.
fn stamp(now: Moment) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    fn answered(millis: u64) -> Ended {
        Ended { failed: false, latency: Some(Duration::from_millis(millis)) }
    }

    const FAILED: Ended = Ended { failed: true, latency: None };

    #[test]
    fn a_higher_latency_is_believed_at_once_and_a_lower_one_slowly() {
        let load = Load::default();
        load.note(answered(20), at(0));
        load.note(answered(200), at(100));
        assert_eq!(load.latency(at(100)).map(|latency| latency.as_millis()), Some(200));
        load.note(answered(20), at(200));
        let latency = load.latency(at(200)).expect("measured").as_millis();
        assert!((190..200).contains(&latency), "{latency}");
        load.note(answered(20), at(60_000));
        let latency = load.latency(at(60_000)).expect("measured").as_millis();
        assert!((20..25).contains(&latency), "{latency}");
    }

    #[test]
    fn an_endpoint_that_fails_fast_is_dear_and_one_failure_is_not() {
        let load = Load::default();
        assert_eq!(load.requests(0, at(0)), 1.0);
        load.note(FAILED, at(0));
        assert_eq!(load.requests(0, at(0)), 1.0);
        (0..20).for_each(|_| load.note(FAILED, at(1)));
        assert!(load.requests(0, at(1)) > 15.0);
        assert!(load.millis(0, at(1)) > 10_000.0);
    }

    #[test]
    fn failures_are_forgotten_after_ten_seconds_without_a_result() {
        let load = Load::default();
        (0..20).for_each(|_| load.note(FAILED, at(0)));
        assert!(load.failing(at(5_000)) > 0.4);
        assert_eq!(load.failing(at(10_000)), 0.0);
        assert_eq!(load.requests(3, at(10_000)), 4.0);
    }

    #[test]
    fn successes_take_the_penalty_away() {
        let load = Load::default();
        (0..20).for_each(|_| load.note(FAILED, at(0)));
        (0..20).for_each(|_| load.note(answered(1), at(1)));
        assert_eq!(load.requests(0, at(1)), 1.0);
    }

    #[test]
    fn a_clock_that_another_thread_read_later_makes_no_age_of_weeks() {
        let load = Load::default();
        load.note(answered(20), at(5000));
        assert!(load.millis(0, at(4999)) > 19.0);
    }
}
