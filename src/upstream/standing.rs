//! Why an endpoint is not available: the reasons that hold at the moment, of those that there are.
//!
//! Each reason is set and withdrawn by one part of the gateway, through
//! [`super::Upstream::stand`], which puts a new set in place. An endpoint without a reason is
//! available.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why an endpoint gets no requests while others are available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Its attempts failed.
    Ejected,
    /// Its health checks fail, or none has passed yet.
    Unhealthy,
    /// Its registry takes it out. It is never used, not even if no other is left.
    Drained,
    /// An operator has ejected it. No attempt probes it.
    EjectedByOrder,
    /// An operator takes it out, and it is never used either. Apart from what its registry says, so
    /// that neither of them puts back what the other has taken out.
    DrainedByOrder,
}

/// The reasons that hold.
#[derive(Debug, Default)]
pub struct Standing(AtomicU8);

impl Standing {
    /// Whether no reason holds.
    pub fn is_available(&self) -> bool {
        // Relaxed, here and below: the set is what requests see, and a lock orders its changes.
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Whether this reason holds.
    pub fn has(&self, reason: Absence) -> bool {
        self.0.load(Ordering::Relaxed) & reason.bit() != 0
    }

    /// Whether it is taken out, and not to be used in any case.
    pub fn is_drained(&self) -> bool {
        self.has(Absence::Drained) || self.has(Absence::DrainedByOrder)
    }

    /// Whether it is ejected, for its failures or by an operator.
    pub fn is_ejected(&self) -> bool {
        self.has(Absence::Ejected) || self.has(Absence::EjectedByOrder)
    }

    /// Sets or withdraws a reason. Returns whether that is a change.
    pub(super) fn set(&self, reason: Absence, holds: bool) -> bool {
        let before = match holds {
            true => self.0.fetch_or(reason.bit(), Ordering::Relaxed),
            false => self.0.fetch_and(!reason.bit(), Ordering::Relaxed),
        };
        (before & reason.bit() != 0) != holds
    }
}

impl Absence {
    const fn bit(self) -> u8 {
        match self {
            Absence::Ejected => 1,
            Absence::Unhealthy => 1 << 1,
            Absence::Drained => 1 << 2,
            Absence::EjectedByOrder => 1 << 3,
            Absence::DrainedByOrder => 1 << 4,
        }
    }
}
