//! What is looked at every second, because no request would tell of its end: retry budgets that are
//! used up, and open files near their limit. Once a day, certificates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;

use super::descriptors::Descriptors;
use super::shared::Shared;
use super::warnings;
use crate::condition::{Condition, Over, QUIET};
use crate::time::{Clock, Moment};

const EVERY: Duration = Duration::from_secs(1);
/// How often certificates that end soon are told of; the start and each reload have done so.
const CERTIFICATES: Duration = Duration::from_secs(24 * 60 * 60);
/// Files are near their limit from this share of what clients may use on, until this lower one.
const NEAR: (usize, usize) = (90, 80);

/// Logs what begins and what is over. Never returns.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut looks = tokio::time::interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut budgets, mut files) = (Budgets::default(), Condition::default());
    let mut told = Clock::now();
    loop {
        looks.tick().await;
        let now = Clock::now();
        let snapshot = shared.snapshot.load_full();
        let refused = snapshot.budgets.iter();
        budgets.look(refused.map(|(name, budget)| (name.as_str(), budget.refused())), now);
        tell_of_files(&mut files, shared.descriptors, now);
        if now.since(told) >= CERTIFICATES {
            told = now;
            let read = tokio::task::spawn_blocking(move || {
                warnings::in_force(&snapshot, SystemTime::now())
            });
            // The runtime logs a panic in it.
            for problem in read.await.unwrap_or_default() {
                log::warn!("{}: {}", problem.path, problem.message);
            }
        }
    }
}

fn tell_of_files(near: &mut Condition, descriptors: Descriptors, now: Moment) {
    let (open, limit) = (descriptors.open(), descriptors.for_clients());
    let share = open.saturating_mul(100) / limit.max(1);
    if share >= NEAR.0 {
        if near.met(now) {
            log::warn!(
                "open files: about {open}; from {limit} on no more clients and upstreams are connected \
                 to: raise the limit, or lower server.max_connections"
            );
        }
    } else if share < NEAR.1
        && let Some(Over { lasted, .. }) = near.over(now)
    {
        log::info!("open files: about {open} again, after {:.1} s", lasted.as_secs_f64());
    }
}

/// Which retry budgets are used up.
#[derive(Default)]
struct Budgets(BTreeMap<String, Seen>);

#[derive(Default)]
struct Seen {
    /// Retries that it had refused at the last look.
    refused: u64,
    used_up: Condition,
}

impl Budgets {
    /// Looks at all budgets, with what they have refused so far, and forgets those that are gone.
    fn look<'a>(&mut self, budgets: impl Iterator<Item = (&'a str, u64)>, now: Moment) {
        let mut before = std::mem::take(&mut self.0);
        for (name, refused) in budgets {
            let (name, mut seen) = match before.remove_entry(name) {
                Some(known) => known,
                None => (name.to_owned(), Seen::default()),
            };
            match seen.look(refused, now) {
                None => {}
                Some(Edge::UsedUp(refused)) => log::warn!(
                    "retry budget {name}: used up, {refused} retries refused: requests get what the \
                     last attempt got"
                ),
                Some(Edge::Enough(over)) => {
                    log::info!("retry budget {name}: enough again {over}");
                }
            }
            self.0.insert(name, seen);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Edge {
    /// So many retries have been refused since the last look.
    UsedUp(u64),
    /// None has been refused for a while.
    Enough(Over),
}

impl Seen {
    fn look(&mut self, refused: u64, now: Moment) -> Option<Edge> {
        // A budget that a reload made anew counts from zero.
        let more = refused.checked_sub(self.refused).unwrap_or(refused);
        self.refused = refused;
        if more > 0 {
            return self.used_up.met_times(more, now).then_some(Edge::UsedUp(more));
        }
        self.used_up.over_after(QUIET, now).map(Edge::Enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_budget_that_is_used_up_is_told_once_with_the_number_and_once_when_it_is_over() {
        let mut seen = Seen::default();
        let looks = [(0, 0), (1, 7), (2, 9), (3, 9), (11, 9), (12, 9), (13, 9)];
        let edges: Vec<_> =
            looks.iter().filter_map(|(second, refused)| seen.look(*refused, at(*second))).collect();
        let over = Over { lasted: Duration::from_secs(1), times: 9 };
        assert_eq!(edges, [Edge::UsedUp(7), Edge::Enough(over)]);
    }

    #[test]
    fn a_budget_that_begins_anew_with_a_reload_is_the_same_spell() {
        let mut seen = Seen::default();
        assert_eq!(seen.look(100, at(0)), Some(Edge::UsedUp(100)));
        assert_eq!(seen.look(3, at(1)), None);
        let over = Over { lasted: Duration::from_secs(1), times: 103 };
        assert_eq!(seen.look(3, at(11)), Some(Edge::Enough(over)));
    }

    #[test]
    fn budgets_that_are_gone_are_forgotten() {
        let mut budgets = Budgets::default();
        budgets.look([("few", 3), ("many", 0)].into_iter(), at(0));
        budgets.look([("many", 0)].into_iter(), at(1));
        assert_eq!(budgets.0.keys().collect::<Vec<_>>(), ["many"]);
    }
}
