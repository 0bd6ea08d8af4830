//! Counts the second writes that are in memory, on their way to the store or the disk.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many there are, and whether more are accepted. It orders no other memory, so every access is
/// relaxed.
#[derive(Debug)]
pub(super) struct SecondWrites {
    most: usize,
    count: AtomicUsize,
    /// Set while the shipper keeps up with the journal.
    welcome: AtomicBool,
    /// Set once the recorder closes.
    closing: AtomicBool,
}

impl SecondWrites {
    pub(super) fn at_most(most: usize) -> Self {
        SecondWrites {
            most,
            count: AtomicUsize::new(0),
            welcome: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// Whether one more may go to the shipper; if so, it is counted.
    pub(super) fn admit(&self) -> bool {
        if !self.welcome.load(Ordering::Relaxed) {
            return false;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < self.most {
            return true;
        }
        self.leave(1);
        false
    }

    /// This many are in the store, or on disk.
    pub(super) fn leave(&self, rows: usize) {
        self.count.fetch_sub(rows, Ordering::Relaxed);
    }

    pub(super) fn welcome(&self, welcome: bool) {
        self.welcome.store(welcome && !self.closing.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// From now on second writes go to the disk at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.welcome(false);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
