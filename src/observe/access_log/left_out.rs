//! Refusals that have no line, because there were too many: a rate and a count for each route and
//! cause.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::access_log::PerSecond;
use crate::summary::Summary;
use crate::time::Moment;

/// Routes are spread over this many locks.
const SHARDS: usize = 16;

/// What has been left out. Locked only by requests that were refused.
pub(super) struct LeftOut {
    shards: [Mutex<HashMap<Arc<str>, Vec<Spell>>>; SHARDS],
    hasher: RandomState,
    /// For requests without a route.
    none: Arc<str>,
}

/// One cause on one route.
struct Spell {
    cause: &'static str,
    tokens: f64,
    filled: Moment,
    left_out: u64,
}

/// How many lines were left out since this was last told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Empty for requests without a route.
    pub(super) route: Arc<str>,
    pub(super) cause: &'static str,
    pub(super) lines: u64,
}

impl Default for LeftOut {
    fn default() -> Self {
        LeftOut { shards: Default::default(), hasher: RandomState::new(), none: "".into() }
    }
}

impl LeftOut {
    /// Whether the request may have a line. If not, it is counted.
    pub(super) fn admits(&self, summary: &Summary<'_>, rate: PerSecond, now: Moment) -> bool {
        let route = summary.opening.route.unwrap_or(&self.none);
        let cause = summary.ending.cause().or(summary.would_refuse).unwrap_or("");
        let mut spells = self.shard(route);
        if !spells.contains_key(&**route) {
            spells.insert(Arc::clone(route), Vec::new());
        }
        let Some(spells) = spells.get_mut(&**route) else { return true };
        let at = spells.iter().position(|spell| spell.cause == cause);
        let at = at.unwrap_or_else(|| {
            let tokens = f64::from(rate.0);
            spells.push(Spell { cause, tokens, filled: now, left_out: 0 });
            spells.len() - 1
        });
        let admitted = spells[at].take(rate, now);
        spells[at].left_out += u64::from(!admitted);
        admitted
    }

    /// Takes the counts of what was left out.
    pub(super) fn take(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for shard in &self.shards {
            let mut routes = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (route, spells) in routes.iter_mut() {
                for spell in spells.iter_mut().filter(|spell| spell.left_out > 0) {
                    let lines = std::mem::take(&mut spell.left_out);
                    counts.push(Count { route: Arc::clone(route), cause: spell.cause, lines });
                }
            }
        }
        counts.sort_by(|a, b| (&a.route, a.cause).cmp(&(&b.route, b.cause)));
        counts
    }

    fn shard(&self, route: &str) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Spell>>> {
        let at = self.hasher.hash_one(route) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spell {
    /// A bucket that holds one second's lines.
    fn take(&mut self, rate: PerSecond, now: Moment) -> bool {
        let rate = f64::from(rate.0);
        let since: Duration = now.since(self.filled);
        self.tokens = (self.tokens + since.as_secs_f64() * rate).min(rate);
        self.filled = now;
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}
