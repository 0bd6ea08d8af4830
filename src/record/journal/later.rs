//! Work that no request waits for: writing rows whose requests do not wait, and deleting entries
//! that are already in the store. The journal's thread does it when it has time.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use crate::record::invocation::Row;

/// Entries forgotten in one transaction at most: rows that arrive meanwhile wait for it.
const FORGOTTEN: usize = 64;
/// The same for a transaction that also writes rows: those rows wait for all of it.
const FORGOTTEN_BESIDE_ROWS: usize = 16;
/// Rows are written early once there are this many.
const MANY: usize = 256;
/// How many times longer rows wait than entries to be forgotten. Each transaction delays the
/// requests that arrive meanwhile, and one for many rows takes little longer than one for a few.
const LEISURE: u32 = 10;
/// Rows wait no longer than this, unless `max_delay` is longer.
const LEISURELY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Later {
    rows: Vec<Row>,
    /// How many of `rows` were put by ([`Later::put_by`]).
    put_by: usize,
    /// Entries that are in the store, but not yet deleted from the file; oldest first.
    done: VecDeque<i64>,
    /// When the waiting work arrived; `None` if there is none, or if a failure has postponed it to
    /// the next rows.
    since: Option<Instant>,
}

impl Later {
    pub(super) fn put_off(&mut self, row: Row) {
        self.since.get_or_insert_with(Instant::now);
        self.rows.push(row);
    }

    /// As [`Later::put_off`], for a row that stays counted as held in memory until it is written.
    pub(super) fn put_by(&mut self, row: Row) {
        self.put_by += 1;
        self.put_off(row);
    }

    pub(super) fn forget(&mut self, entries: Vec<i64>) {
        self.since.get_or_insert_with(Instant::now);
        self.done.extend(entries);
    }

    /// When the work is due: at once if `hurried` or if many rows wait, after `max_delay` if there
    /// are entries to forget or rows put by, and later if there are only other rows.
    pub(super) fn due(&self, max_delay: Duration, hurried: bool) -> Option<Instant> {
        let (rows, done) = (self.rows.len(), self.done.len());
        let delay = match (rows, done) {
            (0, 0) => return None,
            _ if hurried || rows >= MANY => Duration::ZERO,
            _ if done > 0 || self.put_by > 0 => max_delay,
            _ => max_delay.saturating_mul(LEISURE).min(LEISURELY).max(max_delay),
        };
        self.since.map(|since| since + delay)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Takes the rows, and the number of them that were put by.
    pub(super) fn take(&mut self) -> (Vec<Row>, usize) {
        (mem::take(&mut self.rows), mem::take(&mut self.put_by))
    }

    pub(super) fn is_forgetting(&self) -> bool {
        !self.done.is_empty()
    }

    /// The entries to forget in the next transaction. Fewer if it also writes rows.
    pub(super) fn to_forget(&self, beside_rows: bool) -> Vec<i64> {
        let most = if beside_rows { FORGOTTEN_BESIDE_ROWS } else { FORGOTTEN };
        self.done.iter().take(most).copied().collect()
    }

    /// All entries that still have to be forgotten.
    pub(super) fn unforgotten(&self) -> HashSet<i64> {
        self.done.iter().copied().collect()
    }

    /// The first `entries` of them have been forgotten.
    pub(super) fn forgotten(&mut self, entries: usize) {
        self.done.drain(..entries);
        if self.done.is_empty() && self.rows.is_empty() {
            self.since = None;
        } else {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Postpones the work to the next rows, after a failure.
    pub(super) fn wait(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::invocation::Stage;
    use crate::record::invocation::tests::invocation;

    const DELAY: Duration = Duration::from_secs(60);

    fn is_due(later: &Later) -> bool {
        later.due(DELAY, false).is_some_and(|due| due <= Instant::now())
    }

    #[test]
    fn much_is_due_at_once_and_little_when_its_time_has_come() {
        let mut later = Later::default();
        assert_eq!(later.due(DELAY, false), None);
        for n in 1..=MANY {
            assert!(!is_due(&later), "{n}");
            later.put_off(Row::new(invocation("row"), Stage::Completion));
        }
        assert!(is_due(&later));
        assert_eq!(later.take().0.len(), MANY);
        later.forgotten(0);
        assert_eq!(later.due(DELAY, false), None);
        later.put_by(Row::new(invocation("row"), Stage::Completion));
        assert!(!is_due(&later), "its time begins anew");
        assert_eq!((later.rows(), later.take().1), (1, 1));
    }

    #[test]
    fn entries_are_forgotten_bit_by_bit() {
        let mut later = Later::default();
        later.forget(Vec::new());
        assert_eq!(later.due(DELAY, true), None);
        later.forget((0..100).collect());
        assert!(later.due(DELAY, true).is_some_and(|due| due <= Instant::now()), "if hurried");
        assert_eq!(later.to_forget(true), (0..16).collect::<Vec<_>>());
        assert_eq!(later.to_forget(false), (0..64).collect::<Vec<_>>());
        later.forgotten(64);
        assert_eq!(later.unforgotten(), (64..100).collect());
        assert!(later.is_forgetting() && later.due(DELAY, false).is_some());
        later.wait();
        assert_eq!(later.due(DELAY, true), None, "after a failure");
        later.forgotten(0);
        assert!(later.due(DELAY, true).is_some(), "until something could be written");
        later.forgotten(36);
        assert_eq!((later.is_forgetting(), later.due(DELAY, false)), (false, None));
    }
}
