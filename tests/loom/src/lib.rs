//! The files of `src/policy` that decide with atomics and locks, as they are, but with loom's in
//! place of `std`'s: `policy::sync` is all that differs.
//!
//! What loom does not see happens as if in one step: the swaps of `arc-swap` and the counts of
//! `Arc`. Under loom a thread may read *older* values across such a swap than in the product, so
//! what is shown here holds there.
#![allow(dead_code, unused_imports, reason = "of the included files, not all is used here")]

pub use product::{policy, time, units, upstream};

#[path = "../../../src"]
mod product {
    pub mod time;
    pub mod units;

    pub mod upstream {
        //! An endpoint's ejection, with the steps that an upstream makes around it.

        pub mod ejection;

        use ejection::config::Config;
        use ejection::{Due, Ejection, Mark, Pass, Reason};

        use crate::policy::breaker::{Breaker, Receipt, Verdict};
        use crate::time::Moment;

        /// The only one of its upstream that is ejected.
        #[derive(Default)]
        pub struct Endpoint {
            ejection: Ejection,
            due: Due,
        }

        impl Endpoint {
            /// Ejects it, and takes its failures back.
            pub fn eject(&self, breaker: Option<&Breaker>, now: Moment) {
                let reason = Reason::Consecutive { failures: 5 };
                let ejected = self.ejection.eject(reason, &Config::default(), now, 0.0);
                let Some((time, receipts)) = ejected else { return };
                self.due.note(now + time);
                breaker.into_iter().for_each(|breaker| breaker.retract(&receipts));
            }

            /// As `Upstream::probe`: the epoch of the probe.
            pub fn probe(&self, now: Moment) -> Option<u64> {
                if !self.due.is_over(now) {
                    return None;
                }
                self.due.begin();
                let until = self.ejection.due()?;
                if now < until {
                    self.due.note(until);
                    return None;
                }
                match self.ejection.probe(now)? {
                    Pass::Probe(epoch) => Some(epoch),
                    Pass::Counts(_) | Pass::Aside => None,
                }
            }

            /// As the end of a ticket.
            pub fn drop_probe(&self, epoch: u64) {
                if let Some(at) = self.ejection.drop_probe(epoch) {
                    self.due.note(at);
                }
            }

            /// A failure that began before; `None` if it is late.
            pub fn failed(&self) -> Option<Mark> {
                self.ejection.failed(0)
            }

            /// Counts it in the breaker, as the request path does.
            pub fn count(&self, mark: Mark, breaker: &Breaker, now: Moment) {
                let permit = breaker.acquire(now).expect("closed");
                let receipt: Option<Receipt> = permit.settle(Verdict::Failure, now);
                let receipt = receipt.expect("a failure");
                if !self.ejection.remember(mark, receipt, &Config::default()) {
                    breaker.retract(&[receipt]);
                }
            }
        }
    }

    pub mod policy {
        pub mod breaker;
        pub mod bulkhead;
        pub mod dry_run;
        pub mod outcome;
        pub mod terms;

        pub mod retry {
            pub mod budget;
        }

        pub mod rate_limit {
            //! The table that all limits are counted in; what they count is a function of one state
            //! and the time, and knows no threads.

            mod table;

            use table::{States, Step, Table};

            use crate::time::Moment;

            /// Counts by key, the least that can be kept in the table.
            pub struct Counts(Table);

            /// Up to a limit.
            struct UpTo(u64);

            impl States for UpTo {
                /// Whether it was counted, and how many that makes.
                type Answer = (bool, u64);

                fn step(&self, state: u64, _: Moment) -> Step<(bool, u64)> {
                    let room = state < self.0;
                    Step { next: room.then_some(state + 1), answer: (room, state + 1) }
                }

                fn worth(&self, state: u64, _: Moment) -> u64 {
                    state
                }

                fn join(&self, one: u64, other: u64, _: Moment) -> u64 {
                    one.max(other)
                }

                fn begin(&self, floor: u64, _: Moment) -> u64 {
                    floor
                }
            }

            impl Counts {
                pub fn new(max_keys: u32) -> Self {
                    Counts(Table::new(max_keys))
                }

                /// Counts one, and how many that makes. Keys are hashes, not 0.
                pub fn count(&self, key: u64) -> u64 {
                    self.0.count(key, &UpTo(u64::MAX), Moment::ZERO).1
                }

                /// Counts one where there are fewer than `limit`; whether it did.
                pub fn admit(&self, key: u64, limit: u64) -> bool {
                    self.0.count(key, &UpTo(limit), Moment::ZERO).0
                }

                /// Takes one back.
                pub fn refund(&self, key: u64) {
                    self.0.amend(key, |n| n.checked_sub(1));
                }
            }
        }

        mod lanes;

        pub(crate) mod sync {
            pub(crate) use std::sync::{PoisonError, TryLockError};

            pub(crate) use loom::sync::atomic::{
                AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
            };
            pub(crate) use loom::sync::{Mutex, MutexGuard};

            loom::lazy_static! {
                // Of `std`: no part of the model.
                static ref THREADS: std::sync::atomic::AtomicUsize = Default::default();
            }

            loom::thread_local! {
                static MINE: usize = THREADS.fetch_add(1, Ordering::Relaxed);
            }

            /// Two lanes, which threads enter in turns.
            pub(crate) fn lanes() -> usize {
                2
            }

            pub(crate) fn lane() -> usize {
                MINE.with(|mine| mine % lanes())
            }
        }
    }
}

/// `bodies` at once, one thread each, in every order; this thread waits for their end.
pub fn concurrently<F: FnOnce() + 'static>(bodies: impl IntoIterator<Item = F>) {
    let threads: Vec<_> = bodies.into_iter().map(loom::thread::spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}
