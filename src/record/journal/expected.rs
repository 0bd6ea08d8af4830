//! Requests whose rows are about to come. A commit that several requests wait for waits a little
//! for them, because one commit costs the same for one row as for many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::record::config::Batch;

impl Batch {
    /// The longest time from the start of a commit that several requests waited for to the next
    /// one, while more rows are expected.
    pub fn longest_interval(&self) -> Duration {
        *self.commit_interval * 3
    }
}

/// The value of `awaited` while no thread waits.
const NO_THREAD: usize = usize::MAX;

/// How many rows are expected, and the count a thread waits for.
#[derive(Debug)]
pub(super) struct Expecting {
    // Released by the task that sends a row, acquired by the thread that waits: a row that is no
    // longer expected has been sent.
    count: AtomicUsize,
    /// The count that the thread waits for, or [`NO_THREAD`]. A missed change costs the rest of one
    /// wait, which is bounded.
    awaited: AtomicUsize,
    /// Rows that a wait has already timed out on. They take longer, and are not waited for again.
    stragglers: AtomicUsize,
    keeper: OnceLock<Thread>,
}

impl Default for Expecting {
    fn default() -> Self {
        Expecting {
            count: AtomicUsize::new(0),
            awaited: AtomicUsize::new(NO_THREAD),
            stragglers: AtomicUsize::new(0),
            keeper: OnceLock::new(),
        }
    }
}

impl Expecting {
    pub(super) fn one(self: &Arc<Self>) -> Expected {
        self.count.fetch_add(1, Ordering::Relaxed);
        Expected(Arc::clone(self))
    }

    /// Waits until every expected row has come, except the stragglers, or until `latest`. To be
    /// called by one thread only.
    pub(super) fn wait(&self, latest: Instant) {
        self.keeper.get_or_init(thread::current);
        let count = || self.count.load(Ordering::Acquire);
        let stragglers = self.stragglers.load(Ordering::Relaxed).min(count());
        self.awaited.store(stragglers, Ordering::Relaxed);
        let mut left = count();
        while left > stragglers {
            let time = latest.saturating_duration_since(Instant::now());
            if time.is_zero() {
                break;
            }
            thread::park_timeout(time);
            left = count();
        }
        self.awaited.store(NO_THREAD, Ordering::Relaxed);
        self.stragglers.store(left, Ordering::Relaxed);
    }
}

/// A request that will have a row. Drop it once the row has been sent, or will not be.
#[derive(Debug)]
#[must_use = "dropping it says that the row has come"]
pub struct Expected(Arc<Expecting>);

impl Drop for Expected {
    fn drop(&mut self) {
        let left = self.0.count.fetch_sub(1, Ordering::Release) - 1;
        if left == self.0.awaited.load(Ordering::Relaxed)
            && let Some(keeper) = self.0.keeper.get()
        {
            keeper.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(30);

    fn wait(expecting: &Expecting, most: Duration) -> Duration {
        let begun = Instant::now();
        expecting.wait(begun + most);
        begun.elapsed()
    }

    #[test]
    fn a_commit_that_waits_goes_on_with_the_last_row_or_in_time() {
        let expecting = Arc::<Expecting>::default();
        assert!(wait(&expecting, LONG) < LONG);
        let (first, last) = (expecting.one(), expecting.one());
        drop(first);
        assert!(wait(&expecting, SHORT) >= SHORT);
        // The straggler is not waited for again, but another request is.
        assert!(wait(&expecting, LONG) < LONG);
        let another = expecting.one();
        let goes = thread::spawn(move || drop(another));
        assert!(wait(&expecting, LONG) < LONG);
        goes.join().expect("no panic");
        drop(last);
        assert!(wait(&expecting, LONG) < LONG);
        let _new = expecting.one();
        assert!(wait(&expecting, SHORT) >= SHORT, "the straggler has gone");
    }
}
