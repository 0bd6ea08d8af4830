//! Counts of responses by their exact status, where that is wanted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Statuses below this have a count of their own. An upstream may send others, up to 999.
const KNOWN: usize = 600;

/// One route's responses by status. 5 KB, so only made where it is wanted.
pub(super) struct Statuses([AtomicU64; KNOWN + 1]);

impl Default for Statuses {
    fn default() -> Self {
        Statuses([const { AtomicU64::new(0) }; KNOWN + 1])
    }
}

impl Statuses {
    pub(super) fn count(&self, status: u16) {
        // Relaxed: no other data depends on the count.
        self.0[usize::from(status).min(KNOWN)].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that were counted, as the label shows them.
    pub(super) fn counts(&self) -> impl Iterator<Item = (String, u64)> {
        let all = self.0.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        all.filter(|(_, count)| *count > 0).map(|(status, count)| match status {
            KNOWN => ("other".to_owned(), count),
            status => (status.to_string(), count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_count_and_unknown_ones_share_one() {
        let statuses = Statuses::default();
        [200, 599, 200, 600, 999, 0].into_iter().for_each(|status| statuses.count(status));
        let counts: Vec<_> = statuses.counts().collect();
        let expected = [("0", 1), ("200", 2), ("599", 1), ("other", 2)];
        assert_eq!(counts, expected.map(|(status, count)| (status.to_owned(), count)));
    }
}
