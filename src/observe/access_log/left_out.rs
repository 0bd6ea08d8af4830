//! Refusals that have no line, because there were too many: a rate and a count for each route and
//! cause.
//!
//! A route carries its own counts ([`Refusals`]), which its first refusal makes. The log knows them
//! from then on, and tells what they have counted.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::config::access_log::PerSecond;
use crate::summary::Summary;
use crate::time::Moment;

/// A route's refusals. A route that refused nothing has nothing.
#[derive(Default)]
pub struct Refusals(OnceLock<Arc<OfRoute>>);

/// Locked only by requests that were refused, and to tell.
struct OfRoute {
    /// Empty for requests without a route.
    route: Arc<str>,
    spells: Mutex<Vec<OfCause>>,
}

/// One cause on one route.
struct OfCause {
    cause: &'static str,
    tokens: f64,
    filled: Moment,
    left_out: u64,
}

/// What has been left out, by all routes that have refused something.
#[derive(Default)]
pub(super) struct LeftOut(Mutex<Vec<Arc<OfRoute>>>);

/// How many lines were left out since this was last told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Empty for requests without a route.
    pub(super) route: Arc<str>,
    pub(super) cause: &'static str,
    pub(super) lines: u64,
}

impl LeftOut {
    /// Whether the request may have a line. If not, it is counted among its route's `refusals`.
    pub(super) fn admits(
        &self,
        refusals: &Refusals,
        summary: &Summary<'_>,
        rate: PerSecond,
        now: Moment,
    ) -> bool {
        let of_route = refusals.0.get_or_init(|| {
            let route = summary.opening.route.cloned().unwrap_or_else(|| "".into());
            let made = Arc::new(OfRoute { route, spells: Mutex::default() });
            self.lock().push(made.clone());
            made
        });
        let cause = summary.ending.cause().or(summary.would_refuse).unwrap_or("");
        of_route.admits(cause, rate, now)
    }

    /// Takes the counts of what was left out, and forgets routes that are gone.
    pub(super) fn take(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        self.lock().retain(|of_route| {
            // Looked at first: what a route counts before it goes is told.
            let is_held = Arc::strong_count(of_route) > 1;
            let mut spells = of_route.lock();
            for spell in spells.iter_mut().filter(|spell| spell.left_out > 0) {
                let (route, cause) = (of_route.route.clone(), spell.cause);
                let lines = std::mem::take(&mut spell.left_out);
                counts.push(Count { route, cause, lines });
            }
            is_held
        });
        counts.sort_by(|a, b| (&a.route, a.cause).cmp(&(&b.route, b.cause)));
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<OfRoute>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfRoute {
    fn admits(&self, cause: &'static str, rate: PerSecond, now: Moment) -> bool {
        let mut spells = self.lock();
        let at = spells.iter().position(|spell| spell.cause == cause);
        let at = at.unwrap_or_else(|| {
            let tokens = f64::from(rate.0);
            spells.push(OfCause { cause, tokens, filled: now, left_out: 0 });
            spells.len() - 1
        });
        let admitted = spells[at].take(rate, now);
        spells[at].left_out += u64::from(!admitted);
        admitted
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OfCause>> {
        self.spells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfCause {
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

/// Adds `more` to counts of the same routes and causes.
pub(super) fn add(counts: &mut Vec<Count>, more: Vec<Count>) {
    for count in more {
        let same = |old: &&mut Count| old.route == count.route && old.cause == count.cause;
        match counts.iter_mut().find(same) {
            Some(old) => old.lines = old.lines.saturating_add(count.lines),
            None => counts.push(count),
        }
    }
}
