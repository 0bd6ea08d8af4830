//! How fast a client must send its request, or read its response.
//!
//! What counts is the time for which the gateway waits for the client ([`super::client_time`]): a client that is
//! not asked for more, or has read all that there is, is not slow. That time is cut into windows, and in each of them
//! so many bytes must pass. The first window may be longer, because connections begin slowly.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What is asked of the client of the request under way.
#[derive(Debug, Default)]
pub struct Pace {
    // Relaxed throughout, as in the guard: a single task reads and writes it.
    /// Bytes a second; zero: as it likes.
    rate: AtomicU32,
    /// Length of the window under way, in milliseconds.
    window: AtomicU32,
    /// Length of those after it.
    next: AtomicU32,
    /// Bytes that have passed in the window under way.
    passed: AtomicU64,
    /// Nanoseconds that the client had been waited for when the window began.
    begun: AtomicU64,
}

/// What is known of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The window is not over.
    Open,
    /// It was fast enough, and the next window has begun.
    Fast,
    /// It was too slow.
    Slow,
}

impl Pace {
    /// Asks for `rate` bytes a second in windows of `next`, after one of `first`. The client has been `waited`
    /// for by now. Zero means: as it likes.
    pub fn ask(&self, rate: u64, first: Duration, next: Duration, waited: Duration) {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let rate = if next.is_zero() { 0 } else { u32::try_from(rate).unwrap_or(u32::MAX) };
        self.rate.store(rate, Ordering::Relaxed);
        self.window.store(millis(first.max(next)), Ordering::Relaxed);
        self.next.store(millis(next), Ordering::Relaxed);
        self.begin(nanos(waited));
    }

    /// Asks for nothing.
    pub fn rest(&self) {
        self.rate.store(0, Ordering::Relaxed);
    }

    /// So many bytes have passed.
    pub fn pass(&self, bytes: usize) {
        if self.rate.load(Ordering::Relaxed) != 0 {
            let passed = self.passed.load(Ordering::Relaxed);
            self.passed.store(passed.saturating_add(bytes as u64), Ordering::Relaxed);
        }
    }

    /// How long the client is waited for, in all, when the window is over; `None` if nothing is asked.
    pub fn over_after(&self) -> Option<Duration> {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let window = Duration::from_millis(self.window.load(Ordering::Relaxed).into());
        Some(Duration::from_nanos(self.begun.load(Ordering::Relaxed)) + window)
    }

    /// Judges a client that has been `waited` for by now.
    pub fn judge(&self, waited: Duration) -> Verdict {
        if self.over_after().is_none_or(|over| waited < over) {
            return Verdict::Open;
        }
        let wanted = u64::from(self.rate.load(Ordering::Relaxed))
            * u64::from(self.window.load(Ordering::Relaxed))
            / 1000;
        if self.passed.load(Ordering::Relaxed) < wanted {
            return Verdict::Slow;
        }
        self.window.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
        self.begin(nanos(waited));
        Verdict::Fast
    }

    fn begin(&self, waited: u64) {
        self.begun.store(waited, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// 256 bytes a second in windows of 5 s, after one of 10 s.
    fn asked() -> Pace {
        let pace = Pace::default();
        pace.ask(256, seconds(10), seconds(5), seconds(2));
        pace
    }

    #[test]
    fn nothing_is_asked_unless_there_is_a_rate() {
        let pace = Pace::default();
        assert_eq!((pace.over_after(), pace.judge(seconds(1000))), (None, Verdict::Open));
        pace.ask(256, seconds(10), seconds(0), seconds(0));
        assert_eq!((pace.over_after(), pace.judge(seconds(1000))), (None, Verdict::Open));
        let pace = asked();
        pace.rest();
        assert_eq!((pace.over_after(), pace.judge(seconds(1000))), (None, Verdict::Open));
    }

    #[test]
    fn a_client_is_judged_at_the_end_of_each_window() {
        let pace = asked();
        assert_eq!(pace.over_after(), Some(seconds(12)));
        assert_eq!(pace.judge(seconds(11)), Verdict::Open);
        pace.pass(2560);
        assert_eq!(pace.judge(seconds(12)), Verdict::Fast);
        assert_eq!(pace.over_after(), Some(seconds(17)));
        pace.pass(1279);
        assert_eq!(pace.judge(seconds(17)), Verdict::Slow);
    }

    #[test]
    fn one_byte_a_second_more_is_fast_enough_and_what_was_sent_before_does_not_count() {
        let pace = asked();
        pace.pass(1_000_000);
        assert_eq!(pace.judge(seconds(12)), Verdict::Fast);
        for window in 1..100 {
            pace.pass(1285);
            assert_eq!(pace.judge(seconds(12 + window * 5)), Verdict::Fast, "{window}");
        }
        assert_eq!(pace.judge(seconds(12 + 100 * 5)), Verdict::Slow);
    }
}
