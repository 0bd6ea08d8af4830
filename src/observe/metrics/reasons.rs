//! Counts by fixed words: codes, reasons, outcomes.

use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A linked list of words in the order in which they were first counted. There are few, and the
/// most frequent tends to be first. Counting a known word neither locks nor allocates.
#[derive(Default)]
pub(super) struct Reasons(OnceLock<Box<Link>>);

struct Link {
    word: &'static str,
    count: AtomicU64,
    next: Reasons,
}

impl Reasons {
    pub(super) fn count(&self, word: &'static str) {
        // Relaxed: no other data depends on the count.
        self.link(word).count.fetch_add(1, Ordering::Relaxed);
    }

    fn link(&self, word: &'static str) -> &Link {
        let mut chain = self;
        loop {
            // If two words arrive at once, one gets the place, and the other goes on to the next.
            let link = chain.0.get_or_init(|| Box::new(Link::new(word)));
            if link.word == word {
                return link;
            }
            chain = &link.next;
        }
    }

    /// The word is shown from now on.
    pub(super) fn expect(&self, word: &'static str) {
        self.link(word);
    }

    /// All words that were counted, with their counts; and zero for those of `others` that were not.
    pub(super) fn with(
        &self,
        others: impl Iterator<Item = &'static str>,
    ) -> impl Iterator<Item = (&'static str, u64)> {
        let uncounted = others.filter(|word| self.links().all(|link| link.word != *word));
        let counted = self.links().map(|link| (link.word, link.count.load(Ordering::Relaxed)));
        counted.chain(uncounted.map(|word| (word, 0)))
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        iter::successors(self.0.get().map(|link| &**link), |link| link.next.0.get().map(|l| &**l))
    }
}

impl Link {
    fn new(word: &'static str) -> Self {
        Link { word, count: AtomicU64::new(0), next: Reasons::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn words_that_threads_count_at_once_are_all_there_once() {
        const WORDS: [&str; 4] = ["a", "b", "c", "d"];
        let reasons = Reasons::default();
        thread::scope(|scope| {
            for first in 0..4 {
                let reasons = &reasons;
                scope.spawn(move || {
                    for turn in 0..1000 {
                        reasons.count(WORDS[(first + turn) % 4]);
                    }
                });
            }
        });
        let mut counts: Vec<_> = reasons.with(iter::empty()).collect();
        counts.sort_unstable();
        assert_eq!(counts, WORDS.map(|word| (word, 1000)));
    }

    #[test]
    fn words_that_may_come_are_there_as_zero() {
        let reasons = Reasons::default();
        reasons.count("b");
        let shown: Vec<_> = reasons.with(["a", "b"].into_iter()).collect();
        assert_eq!(shown, [("b", 1), ("a", 0)]);
    }
}
