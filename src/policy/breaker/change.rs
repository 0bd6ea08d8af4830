//! The changes of a circuit that are reported: that it opened, and why; that it closed, and after
//! how long.
//!
//! A failed trial is not reported as a change: a circuit that is open for hours is reported once.

use std::fmt;
use std::time::Duration;

use super::window::Count;
use crate::time::Moment;

/// The most changes that wait to be fetched; older ones are dropped.
const KEPT: usize = 8;

/// A change that the circuit made by itself, not by an operator's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Calls are refused from now on.
    Opened {
        /// The counts that did it.
        why: Why,
        /// The time until the first trial.
        for_now: Duration,
    },
    /// A trial has succeeded.
    Closed {
        /// The time since it opened.
        after: Duration,
        /// The number of trials that failed meanwhile.
        failed_trials: u32,
    },
}

/// Since when a circuit is open, failed trials included, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// When it opened.
    pub at: Moment,
    /// The counts that did it.
    pub why: Why,
}

/// The counts that opened a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This many failures in a row.
    InARow(u32),
    /// A rate among the window's calls.
    Rate {
        /// All calls in the window.
        calls: u64,
        /// Those that failed.
        failed: u64,
        /// Those that were slow, failed or not.
        slow: u64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::InARow(1) => f.write_str("1 failure in a row"),
            Why::InARow(failures) => write!(f, "{failures} failures in a row"),
            Why::Rate { calls, failed, slow } => {
                write!(f, "of {calls} calls {failed} failed and {slow} were slow")
            }
        }
    }
}

impl From<Count> for Why {
    fn from(count: Count) -> Self {
        let [calls, failed, slow] =
            [count.calls, count.failed, count.slow].map(|n| u64::try_from(n).unwrap_or(0));
        Why::Rate { calls, failed, slow }
    }
}

/// The changes not yet reported, and the data for the next one.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: Vec<Change>,
    opened: Option<Opening>,
    failed_trials: u32,
}

impl Changes {
    pub(super) fn opened(&mut self, why: Why, for_now: Duration, now: Moment) {
        self.opened = Some(Opening { at: now, why });
        self.failed_trials = 0;
        self.add(Change::Opened { why, for_now });
    }

    pub(super) fn trial_failed(&mut self) {
        self.failed_trials = self.failed_trials.saturating_add(1);
    }

    pub(super) fn closed(&mut self, now: Moment) {
        // An operator opened the circuit; that is reported elsewhere.
        let Some(opened) = self.opened.take() else { return };
        let (after, failed_trials) = (now.since(opened.at), self.failed_trials);
        self.add(Change::Closed { after, failed_trials });
    }

    /// An operator has taken over, so the end of this opening is not reported.
    pub(super) fn forget(&mut self) {
        self.opened = None;
    }

    /// When and why it opened; `None` if it is closed, or forced open.
    pub(super) fn opening(&self) -> Option<Opening> {
        self.opened
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.waiting)
    }

    fn add(&mut self, change: Change) {
        if self.waiting.len() >= KEPT {
            self.waiting.remove(0);
        }
        self.waiting.push(change);
    }
}
