//! Which failures have a line: the first of its kind, and a last one that counts the others once there
//! are no more.

use std::collections::HashMap;
use std::sync::Arc;

use crate::condition::{Condition, Over, QUIET};
use crate::time::Moment;

/// The upstream, and the cause.
pub(super) type Key = (Arc<str>, &'static str);

/// A kind of failure that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) key: Key,
    pub(super) over: Over,
}

#[derive(Debug, Default)]
pub(super) struct Spells(HashMap<Key, Condition>);

impl Spells {
    /// Whether this failure begins a spell, so that it gets a line.
    pub(super) fn admit(&mut self, key: Key, now: Moment) -> bool {
        self.0.entry(key).or_default().met(now)
    }

    /// Whether no spell is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }

    /// The spells that are over, and told of more than their first failure. Forgets them.
    pub(super) fn over(&mut self, now: Moment) -> Vec<Ended> {
        self.end(|condition| condition.over_after(QUIET, now))
    }

    /// All of them, however recent their last failure.
    pub(super) fn all(&mut self) -> Vec<Ended> {
        self.end(Condition::stop)
    }

    fn end(&mut self, end: impl Fn(&mut Condition) -> Option<Over>) -> Vec<Ended> {
        let over = self.0.iter_mut().filter_map(|(key, condition)| {
            end(condition).map(|over| Ended { key: key.clone(), over })
        });
        let mut ended: Vec<_> = over.filter(|ended| ended.over.times > 1).collect();
        ended.sort_by(|a, b| a.key.cmp(&b.key));
        self.0.retain(|_, condition| condition.is_met());
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(cause: &'static str) -> Key {
        ("service".into(), cause)
    }

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_thousand_failures_of_a_kind_are_one_line_and_one_that_counts_them() {
        let mut spells = Spells::default();
        // 100 failures a second, for ten seconds.
        let lines = (0..1000).filter(|n| spells.admit(key("reset"), at(n * 10))).count();
        assert_eq!(lines, 1);
        assert_eq!(spells.over(at(19_989)), []);
        let over = Over { lasted: Duration::from_millis(9_990), times: 1000 };
        assert_eq!(spells.over(at(19_990)), [Ended { key: key("reset"), over }]);
        assert!(spells.is_quiet(), "nothing is remembered of what is over");
        assert!(spells.admit(key("reset"), at(20_000)), "it begins anew");
    }

    #[test]
    fn a_single_failure_has_no_second_line() {
        let mut spells = Spells::default();
        spells.admit(key("reset"), at(0));
        assert_eq!(spells.over(at(60_000)), []);
        assert!(spells.is_quiet());
    }

    #[test]
    fn kinds_are_told_apart_and_the_rest_is_counted_at_the_end() {
        let mut spells = Spells::default();
        for _ in 0..3 {
            spells.admit(key("reset"), at(0));
        }
        assert!(spells.admit(key("connect_refused"), at(0)));
        let all: Vec<_> =
            spells.all().iter().map(|ended| (ended.key.1, ended.over.times)).collect();
        assert_eq!(all, [("reset", 3)]);
        assert!(spells.is_quiet());
    }
}
