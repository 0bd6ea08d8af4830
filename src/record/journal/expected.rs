//! Requests whose rows are about to come. A commit that has company waits for them, a little: what it
//! costs is the same for one row as for all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::record::config::Batch;

impl Batch {
    /// The longest time from a commit that several waited for to the next one, while more are expected.
    pub fn longest_interval(&self) -> Duration {
        *self.commit_interval * 3
    }
}

/// Nobody waits, for any number.
const NOBODY: usize = usize::MAX;

/// How many there are, and who waits for them.
#[derive(Debug)]
pub(super) struct Expecting {
    // Released by who sends a row and acquired by who waits: a row that is not expected any more has
    // been sent.
    count: AtomicUsize,
    /// The count that somebody waits for, or [`NOBODY`]. A change that is missed costs the rest of a
    /// wait that has an end.
    awaited: AtomicUsize,
    /// Those that were waited for in vain. They take longer, and are not waited for again.
    stragglers: AtomicUsize,
    keeper: OnceLock<Thread>,
}

impl Default for Expecting {
    fn default() -> Self {
        Expecting {
            count: AtomicUsize::new(0),
            awaited: AtomicUsize::new(NOBODY),
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

    /// Waits until nobody is expected but such as were waited for in vain before, or until `latest`.
    /// For one thread.
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
        self.awaited.store(NOBODY, Ordering::Relaxed);
        self.stragglers.store(left, Ordering::Relaxed);
    }
}

/// A request that will have a row. To be dropped when that has been sent, or will not be.
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
    fn whoever_waits_goes_on_with_the_last_one_or_in_time() {
        let expecting = Arc::<Expecting>::default();
        assert!(wait(&expecting, LONG) < LONG);
        let (first, last) = (expecting.one(), expecting.one());
        drop(first);
        assert!(wait(&expecting, SHORT) >= SHORT);
        // That one is not waited for again, but another one is.
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
