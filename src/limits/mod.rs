//! Limits that replicas share, counted in Redis.
//!
//! [`Store`] is one server and the connection to it. [`SharedLimits`] are the limits of a route
//! that are counted there, in one round trip, and in all of them or none. [`policy::rate_limit`]
//! decides what they mean for a request, and what happens while the store is down.
//!
//! A failing server costs a request its `timeout` at most, and few requests even that: after the
//! first failure no request uses the server until it has proved itself again.
//!
//! [`policy::rate_limit`]: crate::policy::rate_limit

mod call;
mod link;
mod store;
mod terms;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use call::Call;
pub use store::{Store, Unusable};
use terms::{Intent, Terms};

use crate::policy::dry_run::DryRun;
use crate::policy::rate_limit::{Heard, Limiter, Limits, Part, Requester, refused_here};
use crate::time::Moment;

/// The shared limits of one route.
pub struct SharedLimits {
    store: Arc<Store>,
    /// In the order of the route's list.
    terms: Box<[Terms]>,
    look: Arc<[String]>,
    count: Arc<[String]>,
    count_enforced: Arc<[String]>,
}

impl SharedLimits {
    /// The shared limits among `limits`, all counted in `store`; `None` if there are none.
    pub fn compile(route: &str, limits: &Limits, store: Arc<Store>) -> Option<Self> {
        let terms = terms::compile(store.prefix(), route, limits);
        if terms.is_empty() {
            return None;
        }
        let [look, count, count_enforced] = [Intent::Look, Intent::Count, Intent::CountEnforced]
            .map(|intent| terms::arguments(&terms, intent));
        Some(SharedLimits { store, terms, look, count, count_enforced })
    }

    /// Asks whether the limits admit a request. The request is counted if all of them do, including
    /// the local ones in `limiters` (those of the whole list), which are checked first. Dry limits
    /// count it only if they admit it as well, and its `dry_run` is not over. Waits for the store's
    /// time limit, and no longer than `at_most`.
    pub async fn ask(
        &self,
        limiters: &[Arc<Limiter>],
        requester: &Requester<'_>,
        dry_run: &DryRun,
        now: Moment,
        at_most: Duration,
    ) -> Heard {
        if dry_run.is_over() && self.terms.iter().all(Terms::is_dry) {
            return Heard::Nothing;
        }
        let (enforced, dry) = Part::of(limiters);
        let refused = |part| refused_here(limiters, requester, part, now);
        let (refused_here, would_refuse_here) = (refused(enforced), dry.and_then(refused));
        let call = || {
            let arguments = match (refused_here, would_refuse_here) {
                (Some(_), _) => &self.look,
                (None, Some(_)) => &self.count_enforced,
                (None, None) if dry_run.is_over() => &self.count_enforced,
                (None, None) => &self.count,
            };
            let keys = self.terms.iter().map(|terms| terms.key(requester)).collect();
            Call { keys, arguments: arguments.clone() }
        };
        let Some(numbers) = self.store.ask(call, at_most).await else {
            return Heard::Unavailable;
        };
        match terms::verdicts(&self.terms, &numbers) {
            Some(verdicts) => Heard::Verdicts { verdicts, refused_here, would_refuse_here },
            None => Heard::Unavailable,
        }
    }
}
