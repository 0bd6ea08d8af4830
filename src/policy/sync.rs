//! The locks and atomics that policies are built on.
//!
//! Policies take them from here and not from `std`, so that `tests/loom` can compile the same
//! files over loom's, which try every interleaving. `Arc` is not among them: what it counts is
//! nobody's decision.

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
