//! What is told of an upstream's endpoints: each edge once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ejection::Reason;
use crate::policy::sync::{AtomicBool, AtomicU64, Mutex, Ordering, PoisonError};

/// The most changes that wait to be told; older ones are dropped.
const KEPT: usize = 64;

/// A change of what is used of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An endpoint gets no requests for a time.
    Ejected {
        /// Its address.
        endpoint: Arc<str>,
        /// With the counts.
        reason: Reason,
        /// Until the first probe.
        for_now: Duration,
    },
    /// An endpoint gets requests again.
    Readmitted {
        /// Its address.
        endpoint: Arc<str>,
        /// The time since it was ejected.
        after: Duration,
        /// The number of probes that failed meanwhile.
        failed_probes: u32,
    },
    /// Too few endpoints are available: all are used.
    AllUsed {
        /// Those that are available.
        available: usize,
        /// Those that are used.
        known: usize,
    },
    /// None is available, and requests are refused.
    Refusing {
        /// Those that are known, and not drained.
        known: usize,
    },
    /// Enough are available again: the others are not used.
    Enough {
        /// Those that are available.
        available: usize,
        /// Those that are known, and not drained.
        known: usize,
    },
}

impl Change {
    /// Writes its line to the log.
    pub fn log(&self, upstream: &str) {
        let level = match self {
            Change::Readmitted { .. } | Change::Enough { .. } => log::Level::Info,
            Change::Ejected { .. } | Change::AllUsed { .. } | Change::Refusing { .. } => {
                log::Level::Warn
            }
        };
        log::log!(level, "upstreams.{upstream}: {self}");
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Ejected { endpoint, reason, for_now } => {
                write!(f, "{endpoint} is ejected for {:.1}s: ", for_now.as_secs_f64())?;
                match reason {
                    Reason::Consecutive { failures } => write!(f, "{failures} failures in a row"),
                    Reason::Share { ended, failed } => write!(
                        f,
                        "of {ended} attempts {failed} failed, at least twice the share of the others"
                    ),
                }
            }
            Change::Readmitted { endpoint, after, failed_probes } => write!(
                f,
                "{endpoint} is used again after {:.1}s; probes that failed meanwhile: {failed_probes}",
                after.as_secs_f64()
            ),
            Change::AllUsed { available, known } => {
                write!(f, "{available} of {known} endpoints are available; all of them are used")
            }
            Change::Refusing { known } => {
                write!(f, "none of {known} endpoints is available; requests are refused")
            }
            Change::Enough { available, known } => write!(
                f,
                "{available} of {known} endpoints are available again; only these are used"
            ),
        }
    }
}

/// The changes that have not been told yet.
#[derive(Debug, Default)]
pub struct News {
    any: AtomicBool,
    /// Locked for a change, and to tell it.
    waiting: Mutex<Vec<Change>>,
    /// Ejections so far, by reason.
    consecutive: AtomicU64,
    share: AtomicU64,
}

impl News {
    pub(super) fn add(&self, change: Change) {
        // Relaxed, here and below: counts for people to read.
        match &change {
            Change::Ejected { reason: Reason::Consecutive { .. }, .. } => {
                self.consecutive.fetch_add(1, Ordering::Relaxed);
            }
            Change::Ejected { reason: Reason::Share { .. }, .. } => {
                self.share.fetch_add(1, Ordering::Relaxed);
            }
            Change::Readmitted { .. }
            | Change::AllUsed { .. }
            | Change::Refusing { .. }
            | Change::Enough { .. } => {}
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= KEPT {
            waiting.remove(0);
        }
        waiting.push(change);
        self.any.store(true, Ordering::Relaxed);
    }

    /// How often an endpoint was ejected so far, by the name of the reason.
    pub fn ejections(&self) -> [(&'static str, u64); 2] {
        [
            (Reason::CONSECUTIVE, self.consecutive.load(Ordering::Relaxed)),
            (Reason::SHARE, self.share.load(Ordering::Relaxed)),
        ]
    }

    /// The changes since the last call of this, oldest first. One load if there are none.
    pub fn take(&self) -> Vec<Change> {
        // Relaxed: the thread that made a change sees it, and tells it.
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut waiting)
    }
}
