//! What became of the rows, in numbers.
//!
//! After an orderly shutdown every row handed to `enqueue` is counted as one of `written`,
//! `dropped`, and `dead`. `dead` also counts rows of the other modes.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A reading of the recorder's counters; all but the depths only grow.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.value(),)+ }
            }
        }
    };
}

counters! {
    /// Rows handed over to be written after the response.
    enqueued,
    /// Of those, rows committed in the store.
    written,
    /// Of those, rows that were given up because the queue was full or the process ended first.
    dropped,
    /// Rows the store will never accept: set aside in `invocations_dead` with the reason. Does not
    /// count second writes, which are set aside too.
    dead,
    /// Rows committed in the store before their response.
    committed,
    /// Commits that were not made in time, or not tried because the store is down.
    unavailable,
    /// Second writes that arrived.
    completed,
    /// Second writes that were given up or refused; their rows keep what the first write held.
    completions_dropped,
    /// Rows committed in the journal before their response.
    journaled,
    /// Rows that went from the journal to the store.
    shipped,
    /// Transactions that wrote rows to the store.
    batches,
    /// Rows that retention deleted.
    expired,
    /// Rows and second writes in memory now.
    queue_depth,
    /// Rows of the journal that damage has made unreadable.
    damaged,
    /// Rows and second writes in the journal now.
    journal_depth,
    /// Since when the oldest of them has been there, in microseconds since 1970; 0 if there is
    /// none.
    journal_oldest_us,
}

/// A number that several threads change. It orders no other memory, so every access is relaxed.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, and returns the new value.
    pub(crate) fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed) + n
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
