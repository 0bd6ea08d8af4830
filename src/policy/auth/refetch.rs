//! How often unauthenticated clients may cause a fetch of a key set.
//!
//! A key id that is not in the set, or a signature that no key of that id verifies, means either a
//! rotation, which must be followed at once, or noise, which must not flood the issuer. A few
//! fetches are allowed at once, and then one per interval. An id whose fetch did not help is not
//! fetched again within the interval, so that old tokens that outlive a rotation do not use up the
//! fetches that the next one needs.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Moment;

/// Fetches allowed at once after a quiet time.
const BURST: u32 = 4;
/// Key ids remembered; the oldest is forgotten first.
const REMEMBERED: usize = 64;

/// A limiter for one issuer.
#[derive(Debug)]
pub struct Refetch {
    interval: Duration,
    left: u32,
    /// When a fetch was last added back.
    filled: Moment,
    asked: VecDeque<(Box<str>, Moment)>,
}

impl Refetch {
    /// Allows a few fetches at once, then one per `interval`.
    pub fn new(interval: Duration) -> Self {
        Refetch { interval, left: BURST, filled: Moment::ZERO, asked: VecDeque::new() }
    }

    /// Whether to fetch for `kid` now; if so, the fetch is counted.
    pub fn admit(&mut self, kid: &str, now: Moment) -> bool {
        self.asked.retain(|(_, at)| now.since(*at) < self.interval);
        if self.asked.iter().any(|(asked, _)| **asked == *kid) {
            return false;
        }
        self.fill(now);
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        if self.asked.len() == REMEMBERED {
            self.asked.pop_front();
        }
        self.asked.push_back((kid.into(), now));
        true
    }

    /// A fetch brought other keys. Ids for which `are_there` is true no longer count as asked in
    /// vain.
    pub fn answered(&mut self, are_there: impl Fn(&str) -> bool) {
        self.asked.retain(|(kid, _)| !are_there(kid));
    }

    /// The fetch failed, so the same ids may be asked for again.
    pub fn forget(&mut self) {
        self.asked.clear();
    }

    fn fill(&mut self, now: Moment) {
        if self.left == BURST {
            self.filled = now;
            return;
        }
        while self.left < BURST && now.since(self.filled) >= self.interval {
            self.left += 1;
            self.filled = self.filled + self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_unknown_key_is_fetched_at_once() {
        assert!(Refetch::new(INTERVAL).admit("new", at(0)));
    }

    #[test]
    fn a_key_asked_for_in_vain_waits_for_the_interval() {
        let mut refetch = Refetch::new(INTERVAL);
        assert!(refetch.admit("gone", at(10)));
        assert!(!refetch.admit("gone", at(14)));
        assert!(refetch.admit("gone", at(15)));
    }

    #[test]
    fn a_second_rotation_is_followed_at_once_though_old_tokens_keep_coming() {
        let mut refetch = Refetch::new(INTERVAL);
        for _ in 0..1000 {
            refetch.admit("old", at(10));
        }
        assert!(refetch.admit("new", at(10)));
    }

    #[test]
    fn made_up_keys_fetch_once_per_interval() {
        let mut refetch = Refetch::new(INTERVAL);
        let mut fetches = 0;
        for second in 0..100 {
            for n in 0..10 {
                fetches += u32::from(refetch.admit(&format!("{second}-{n}"), at(second)));
            }
        }
        assert_eq!(fetches, BURST + 19);
    }

    #[test]
    fn a_key_that_was_replaced_under_its_name_may_be_replaced_again() {
        let mut refetch = Refetch::new(INTERVAL);
        assert!(refetch.admit("kept", at(10)) && refetch.admit("gone", at(10)));
        refetch.answered(|kid| kid == "kept");
        assert!(refetch.admit("kept", at(11)));
        assert!(!refetch.admit("gone", at(11)));
    }

    #[test]
    fn a_failed_fetch_does_not_count_as_an_answer() {
        let mut refetch = Refetch::new(INTERVAL);
        assert!(refetch.admit("new", at(10)));
        refetch.forget();
        assert!(refetch.admit("new", at(11)));
    }
}
