//! Limits log lines about events that can happen thousands of times per second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Moment;

const INTERVAL: Duration = Duration::from_secs(1);

/// Allows one line per second, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the next line is allowed.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// Whether a line may be written `now`; if so, how many were omitted since the last one.
    pub fn admit(&self, now: Moment) -> Option<u64> {
        // Relaxed: it does not matter which caller gets the line, and no other data is published
        // with it.
        let next = self.next.load(Ordering::Relaxed);
        let after = (now + INTERVAL).as_nanos();
        let taken = now.as_nanos() >= next
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if taken {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_line_and_the_next_one_counts_the_others() {
        let seldom = Seldom::default();
        let at = |millis| Moment::ZERO + Duration::from_millis(millis);
        assert_eq!(seldom.admit(at(0)), Some(0));
        assert_eq!(seldom.admit(at(1)), None);
        assert_eq!(seldom.admit(at(999)), None);
        assert_eq!(seldom.admit(at(1000)), Some(2));
        assert_eq!(seldom.admit(at(5000)), Some(0));
    }
}
