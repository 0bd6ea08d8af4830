//! Counts by a word of the gateway's own: a code, a reason, an outcome.

use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A chain of words in the order in which they were first counted. There are few, and the usual
/// one tends to be first; a word that is there is counted without a lock or an allocation.
#[derive(Default)]
pub(super) struct Reasons(OnceLock<Box<Link>>);

struct Link {
    word: &'static str,
    count: AtomicU64,
    next: Reasons,
}

impl Reasons {
    pub(super) fn count(&self, word: &'static str) {
        let mut chain = self;
        loop {
            // Of two words at once, one gets the place, and the other goes on behind it.
            let link = chain.0.get_or_init(|| Box::new(Link::new(word)));
            if link.word == word {
                // Relaxed: a count that nothing else depends on.
                link.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            chain = &link.next;
        }
    }

    /// Every word with its count.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let links = iter::successors(self.0.get(), |link| link.next.0.get());
        links.map(|link| (link.word, link.count.load(Ordering::Relaxed)))
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
        let mut counts: Vec<_> = reasons.counts().collect();
        counts.sort_unstable();
        assert_eq!(counts, WORDS.map(|word| (word, 1000)));
    }
}
