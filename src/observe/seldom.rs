//! Lines of the log about what may happen thousands of times in a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Moment;

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line through in a second, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the next line may come.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// Whether a line may be written `now`: then, how many were left out since the last one.
    pub fn admit(&self, now: Moment) -> Option<u64> {
        // Relaxed: whose line it is may be decided by chance, nothing is published with it.
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
