//! The files of `src/policy` that decide with atomics and locks, as they are, but with loom's in
//! place of `std`'s: `policy::sync` is all that differs.
//!
//! What loom does not see happens as if in one step: the swaps of `arc-swap` and the counts of
//! `Arc`. Under loom a thread may read *older* values across such a swap than in the product, so
//! what is shown here holds there.
#![allow(dead_code, unused_imports, reason = "of the included files, not all is used here")]

pub use product::{policy, time, units};

#[path = "../../../src"]
mod product {
    pub mod time;
    pub mod units;

    pub mod policy {
        pub mod breaker;
        pub mod bulkhead;
        pub mod outcome;

        pub mod retry {
            pub mod budget;
        }

        pub mod rate_limit {
            //! The table that all limits are counted in; what they count is a function of one state
            //! and the time, and knows no threads.

            mod table;

            /// Counts by key, the least that can be kept in the table.
            pub struct Counts(table::Table);

            impl Counts {
                pub fn new(max_keys: u32) -> Self {
                    Counts(table::Table::new(max_keys))
                }

                /// Counts one, and how many that makes. Keys are hashes, not 0.
                pub fn count(&self, key: u64) -> u64 {
                    let step = |n| table::Step { next: Some(n + 1), answer: n + 1 };
                    self.0.update(key, |n| n, step)
                }

                /// Counts one where there are fewer than `limit`; whether it did.
                pub fn admit(&self, key: u64, limit: u64) -> bool {
                    let step = |n: u64| table::Step {
                        next: (n < limit).then_some(n + 1),
                        answer: n < limit,
                    };
                    self.0.update(key, |n| n, step)
                }
            }
        }

        pub(crate) mod sync {
            pub(crate) use std::sync::{PoisonError, TryLockError};

            pub(crate) use loom::sync::atomic::{
                AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
            };
            pub(crate) use loom::sync::{Mutex, MutexGuard};
        }
    }
}

/// `bodies` at once, one thread each, in every order; this thread waits for their end.
pub fn concurrently<F: FnOnce() + 'static>(bodies: impl IntoIterator<Item = F>) {
    let threads: Vec<_> = bodies.into_iter().map(loom::thread::spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}
