//! What one caller may hold of the slots, so that none takes them all.
//!
//! A request takes its caller's share before it takes a slot or waits for one, and holds it to its end. Only
//! callers with a share are in the table, so it is as large as there are requests under way, and never larger
//! than `max_keys`: further callers have one share together.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use super::config::PerConsumer;
use super::{Bulkhead, State};
use crate::policy::lanes::Hold;
use crate::policy::sync::{MutexGuard, PoisonError};

/// How many requests each caller has under way.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// `None`: requests are counted, and none is refused.
    terms: Option<PerConsumer>,
    /// By the hash of the caller. None is 0.
    held: HashMap<u64, u32>,
    /// Requests of callers that found no place in the table.
    rest: u32,
    refused: u64,
}

/// Whose share a request has.
#[derive(Debug, Clone, Copy)]
enum Of {
    Caller(u64),
    Rest,
}

/// The caller has as many requests under way as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller's share of the bulkhead is taken")]
pub struct CallerFull;

impl Shares {
    pub(super) fn set_terms(&mut self, terms: Option<PerConsumer>) {
        self.terms = terms;
    }

    fn take(&mut self, caller: u64) -> Result<Of, CallerFull> {
        let (most, max_keys) = self
            .terms
            .as_ref()
            .map_or((u32::MAX, 0), |terms| (terms.max_in_flight.get(), terms.max_keys as usize));
        let has_room = self.held.len() < max_keys;
        let (of, count) = match self.held.get_mut(&caller) {
            Some(count) => (Of::Caller(caller), count),
            None if has_room => (Of::Caller(caller), self.held.entry(caller).or_default()),
            None => (Of::Rest, &mut self.rest),
        };
        if *count >= most {
            self.refused += 1;
            return Err(CallerFull);
        }
        *count += 1;
        Ok(of)
    }

    fn give_back(&mut self, of: Of) {
        match of {
            Of::Rest => self.rest = self.rest.saturating_sub(1),
            Of::Caller(caller) => match self.held.get_mut(&caller) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) | None => _ = self.held.remove(&caller),
            },
        }
    }
}

impl State {
    pub(super) fn shares(&self) -> MutexGuard<'_, Shares> {
        // A panic cannot leave anything half-done under this lock.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bulkhead {
    /// Takes a part of the caller's share.
    ///
    /// # Errors
    /// [`CallerFull`] if it has as many requests under way as it may.
    pub fn share(&self, caller: &impl Hash) -> Result<Share, CallerFull> {
        // A hash of 64 bits with a random key: two callers that share one by chance are not to be expected.
        let of = self.0.shares().take(self.0.hasher.hash_one(caller))?;
        Ok(Share { bulkhead: self.0.hold(), of })
    }

    /// Callers with requests under way; those without a place in the table count as one.
    pub fn callers(&self) -> usize {
        let shares = self.0.shares();
        shares.held.len() + usize::from(shares.rest > 0)
    }

    /// Requests refused for their caller's share since the start.
    pub fn refused_shares(&self) -> u64 {
        self.0.shares().refused
    }
}

/// A request's part of its caller's share, given back when dropped.
#[must_use = "a share that is dropped at once limits nothing"]
#[derive(Debug)]
pub struct Share {
    bulkhead: Hold<State>,
    of: Of,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bulkhead.shares().give_back(self.of);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::time::Moment;

    fn bulkhead(most: u32, max_keys: u32) -> Arc<Bulkhead> {
        let yaml = format!(
            "{{max_in_flight: 100, per_consumer: {{max_in_flight: {most}, max_keys: {max_keys}}}}}"
        );
        Arc::new(Bulkhead::new(&serde_yaml::from_str(&yaml).expect("valid")))
    }

    #[test]
    fn a_caller_at_its_bound_leaves_room_to_others() {
        let bulkhead = bulkhead(2, 10);
        let first: Vec<_> = (0..2).map(|_| bulkhead.share(&"a").expect("room")).collect();
        assert_eq!(bulkhead.share(&"a").err(), Some(CallerFull));
        let other = bulkhead.share(&"b").expect("room");
        assert_eq!((bulkhead.callers(), bulkhead.refused_shares()), (2, 1));
        drop(first);
        assert!(bulkhead.share(&"a").is_ok());
        drop(other);
        assert_eq!(bulkhead.callers(), 0);
    }

    #[test]
    fn callers_beyond_the_table_have_one_share_together() {
        let bulkhead = bulkhead(2, 1);
        let known = bulkhead.share(&"a").expect("room");
        let (b, c) = (bulkhead.share(&"b").expect("room"), bulkhead.share(&"c").expect("room"));
        assert_eq!(bulkhead.share(&"d").err(), Some(CallerFull));
        assert_eq!(bulkhead.callers(), 2);
        // A place that is free goes to the next that comes; those of the rest stay there.
        drop(known);
        let d = bulkhead.share(&"d").expect("room");
        assert_eq!(bulkhead.share(&"e").err(), Some(CallerFull));
        drop((b, c, d));
        assert_eq!(bulkhead.callers(), 0);
    }

    #[test]
    fn a_hundred_thousand_callers_stay_within_the_bound() {
        let bulkhead = bulkhead(1, 1000);
        let shares: Vec<_> = (0..100_000).filter_map(|n| bulkhead.share(&n).ok()).collect();
        assert_eq!((shares.len(), bulkhead.callers()), (1001, 1001));
        assert!(bulkhead.0.shares().held.capacity() <= 2 * 1000);
        drop(shares);
        assert_eq!(bulkhead.callers(), 0);
    }

    #[test]
    fn a_reload_keeps_what_is_held_and_changes_what_may_be() {
        let bulkhead = bulkhead(2, 10);
        let two: Vec<_> = (0..2).map(|_| bulkhead.share(&"a").expect("room")).collect();
        let config = |text: &str| serde_yaml::from_str(text).expect("valid");
        let narrow = "{max_in_flight: 100, per_consumer: {max_in_flight: 1}}";
        bulkhead.reconfigure(&config(narrow), Moment::ZERO);
        assert!(bulkhead.share(&"a").is_err());
        bulkhead.reconfigure(&config("{max_in_flight: 100}"), Moment::ZERO);
        // A request that began before the reload may still ask.
        assert!(bulkhead.share(&"a").is_ok());
        drop(two);
        assert_eq!(bulkhead.callers(), 0);
    }

    #[test]
    fn threads_lose_no_share() {
        let bulkhead = bulkhead(3, 4);
        thread::scope(|scope| {
            for thread in 0..8_u32 {
                let bulkhead = &bulkhead;
                scope.spawn(move || {
                    for n in 0..5000 {
                        drop(bulkhead.share(&((thread + n) % 6)));
                    }
                });
            }
        });
        assert_eq!(bulkhead.callers(), 0);
    }
}
