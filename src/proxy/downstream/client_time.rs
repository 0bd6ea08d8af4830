//! How long a request waits for its client.
//!
//! A client can hold a request up in two ways: it is slow to send the body, or slow to read the
//! response. The stream to the client notes both, since only the stream knows that it waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Clock, Moment};

/// The time for which the request under way has waited for its client: until the head of a response
/// is there, for more of the request's body; from then on, for room to write to the client. A
/// client that goes on sending after that holds nothing up.
///
/// The clock is read only when a wait begins and when it ends: a request that arrives whole, and
/// whose response the client's socket takes at once, reads no clock.
#[derive(Debug, Default)]
pub struct ClientTime {
    // Relaxed throughout, as in the guard: a single task reads and writes it.
    /// Nanoseconds of the waits that are over.
    spent: AtomicU64,
    /// When the wait under way began, in nanoseconds of the clock; zero if there is none.
    since: AtomicU64,
    /// A response's head is there.
    answering: AtomicBool,
}

impl ClientTime {
    /// A request begins.
    pub fn restart(&self) {
        self.spent.store(0, Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
        self.attempt();
    }

    /// Another attempt begins, whose response may need the rest of the request's body.
    pub fn attempt(&self) {
        self.answering.store(false, Ordering::Relaxed);
    }

    /// A response's head is there at `now`: how slowly the request's body comes no longer counts.
    pub fn answer(&self, now: Moment) {
        self.end(|| now);
        self.answering.store(true, Ordering::Relaxed);
    }

    /// The next piece of the request's body is `awaited`, or has come.
    pub fn read(&self, awaited: bool) {
        if !self.answering.load(Ordering::Relaxed) {
            self.note(awaited);
        }
    }

    /// Room to write to the client is `awaited`, or there is some.
    pub fn write(&self, awaited: bool) {
        self.note(awaited);
    }

    fn note(&self, awaited: bool) {
        if !awaited {
            self.end(Clock::now);
        } else if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(Clock::now().as_nanos().max(1), Ordering::Relaxed);
        }
    }

    fn end(&self, now: impl FnOnce() -> Moment) {
        let since = self.since.load(Ordering::Relaxed);
        if since != 0 {
            let spent = self.spent(since, now());
            self.spent.store(spent, Ordering::Relaxed);
            self.since.store(0, Ordering::Relaxed);
        }
    }

    fn spent(&self, since: u64, now: Moment) -> u64 {
        self.spent.load(Ordering::Relaxed) + now.as_nanos().saturating_sub(since)
    }

    /// When the wait under way will have made it `so_far` in all; `None` if nothing is waited for.
    pub fn reaches(&self, so_far: Duration) -> Option<Moment> {
        let since = self.since.load(Ordering::Relaxed);
        let spent = Duration::from_nanos(self.spent.load(Ordering::Relaxed));
        (since != 0).then(|| Moment::from_nanos(since) + so_far.saturating_sub(spent))
    }

    /// The time so far, with that of the wait under way.
    pub fn so_far(&self, now: Moment) -> Duration {
        Duration::from_nanos(match self.since.load(Ordering::Relaxed) {
            0 => self.spent.load(Ordering::Relaxed),
            since => self.spent(since, now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn a_wait_counts_from_its_first_poll_to_its_end() {
        let time = ClientTime::default();
        time.read(false);
        assert_eq!(time.so_far(Clock::now() + LONG), Duration::ZERO);
        time.read(true);
        time.read(true);
        assert!(time.so_far(Clock::now() + LONG) >= LONG);
        time.answer(Clock::now() + LONG);
        let spent = time.so_far(Clock::now());
        assert!((LONG..LONG * 2).contains(&spent), "{spent:?}");
        assert_eq!(time.so_far(Clock::now() + LONG * 9), spent, "the wait is over");
    }

    #[test]
    fn once_a_response_has_begun_only_its_reader_is_waited_for() {
        let time = ClientTime::default();
        time.answer(Clock::now());
        time.read(true);
        assert_eq!(time.so_far(Clock::now() + LONG), Duration::ZERO);
        time.write(true);
        time.read(false);
        assert!(time.so_far(Clock::now() + LONG) >= LONG, "a read does not end a write's wait");
        time.attempt();
        time.write(false);
        time.read(true);
        assert!(time.so_far(Clock::now() + LONG) >= LONG, "another attempt needs the body again");
        time.restart();
        assert_eq!(time.so_far(Clock::now() + LONG), Duration::ZERO);
    }
}
