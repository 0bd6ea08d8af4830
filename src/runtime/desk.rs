//! Where orders of operators are given, one at a time.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What tells orders in force apart: scope, name, endpoint, kind.
pub(super) type Key = (&'static str, String, Option<String>, &'static str);

/// Serializes orders and their ends, and remembers which are in force.
#[derive(Debug, Default)]
pub struct Desk {
    /// Those that have been told of.
    told: Mutex<BTreeSet<Key>>,
    /// Told that there is another one, or one less.
    pub(super) changed: Notify,
}

impl Desk {
    /// Held while an order is given, or ends.
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
