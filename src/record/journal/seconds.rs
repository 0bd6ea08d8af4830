//! Second writes that are in memory, on their way to the store or the disk.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many there are, and whether there may be more. It orders nothing, so every access is relaxed.
#[derive(Debug)]
pub(super) struct Seconds {
    most: usize,
    count: AtomicUsize,
    /// The shipper keeps up with the journal.
    welcome: AtomicBool,
    /// There is no next time.
    closing: AtomicBool,
}

impl Seconds {
    pub(super) fn at_most(most: usize) -> Self {
        Seconds {
            most,
            count: AtomicUsize::new(0),
            welcome: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// Whether one more may go to the shipper; it counts from now on.
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

    /// So many are in the store, or on disk.
    pub(super) fn leave(&self, rows: usize) {
        self.count.fetch_sub(rows, Ordering::Relaxed);
    }

    pub(super) fn welcome(&self, welcome: bool) {
        self.welcome.store(welcome && !self.closing.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What comes from now on goes to the disk at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.welcome(false);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
