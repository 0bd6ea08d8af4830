//! Limits the lines about one kind of failure: a burst, then one per second, and a count of the
//! rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Moment;

/// Lines in a burst.
const BURST: u32 = 5;
/// Time after which one more line is allowed.
const EVERY: Duration = Duration::from_secs(1);
/// How often omitted lines are counted in a line of their own, while there are any.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The upstream, and the cause.
pub(super) type Key = (Arc<str>, &'static str);

/// A kind of failure, and how many of its lines were omitted.
pub(super) struct LeftOut {
    pub(super) key: Key,
    pub(super) count: u64,
}

#[derive(Debug, Default)]
pub(super) struct Spells(HashMap<Key, Spell>);

#[derive(Debug)]
struct Spell {
    /// When the full burst is available again.
    full_at: Moment,
    left_out: u64,
    /// When the first line was omitted.
    since: Moment,
}

impl Spells {
    /// Whether this failure gets its own line.
    pub(super) fn admit(&mut self, key: Key, now: Moment) -> bool {
        let fresh = Spell { full_at: now, left_out: 0, since: now };
        let spell = self.0.entry(key).or_insert(fresh);
        let full_at = spell.full_at.max(now) + EVERY;
        if full_at.since(now) > EVERY * BURST {
            if spell.left_out == 0 {
                spell.since = now;
            }
            spell.left_out += 1;
            return false;
        }
        spell.full_at = full_at;
        true
    }

    /// Whether nothing can become due.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }

    /// The counts that have waited long enough. Forgets the kinds without recent failures.
    pub(super) fn due(&mut self, now: Moment) -> Vec<LeftOut> {
        let due = self.take(|spell| now.since(spell.since) >= COUNT_EVERY);
        self.0.retain(|_, spell| spell.left_out > 0 || spell.full_at > now);
        due
    }

    /// All counts of omitted lines, however recent.
    pub(super) fn all_due(&mut self) -> Vec<LeftOut> {
        self.take(|_| true)
    }

    fn take(&mut self, due: impl Fn(&Spell) -> bool) -> Vec<LeftOut> {
        let due = self.0.iter_mut().filter(|(_, spell)| spell.left_out > 0 && due(spell));
        due.map(|(key, spell)| LeftOut {
            key: key.clone(),
            count: std::mem::take(&mut spell.left_out),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cause: &'static str) -> Key {
        ("service".into(), cause)
    }

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn after_a_burst_of_five_there_is_one_line_a_second() {
        let mut spells = Spells::default();
        // 100 failures a second, for ten seconds.
        let lines = (0..1000).filter(|n| spells.admit(key("reset"), at(n * 10))).count();
        assert_eq!(lines, 5 + 9);
    }

    #[test]
    fn what_is_left_out_is_counted_once_ten_seconds_later() {
        let mut spells = Spells::default();
        for _ in 0..12 {
            spells.admit(key("reset"), at(0));
        }
        assert!(spells.due(at(9_999)).is_empty());
        let due: Vec<_> = spells.due(at(10_000)).iter().map(|left| left.count).collect();
        assert_eq!(due, [7]);
        assert!(spells.due(at(30_000)).is_empty());
        assert!(spells.is_quiet(), "nothing is remembered of what is over");
    }

    #[test]
    fn kinds_do_not_use_up_each_others_lines() {
        let mut spells = Spells::default();
        for _ in 0..12 {
            spells.admit(key("reset"), at(0));
        }
        assert!(spells.admit(key("connect_refused"), at(0)));
    }
}
