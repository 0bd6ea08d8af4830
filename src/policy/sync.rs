//! The locks and atomics that policies are built on, and the lanes that keep threads apart.
//!
//! Policies take them from here and not from `std`, so that `tests/loom` can compile the same files
//! with loom's types, which try every interleaving. `Arc` is not among them, because no decision
//! depends on its count.

mod threads;

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

pub(crate) use threads::{lane, lanes};
