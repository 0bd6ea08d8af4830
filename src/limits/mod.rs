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
pub use store::Store;
use terms::{Intent, Terms};

use crate::policy::rate_limit::{Heard, Limiter, Limits, Requester, refused_here};
use crate::time::Moment;

/// The shared limits of one route.
pub struct SharedLimits {
    store: Arc<Store>,
    /// In the order of the route's list.
    terms: Box<[Terms]>,
    look: Arc<[String]>,
    count: Arc<[String]>,
}

impl SharedLimits {
    /// The shared limits among `limits`, all counted in `store`; `None` if there are none.
    pub fn compile(route: &str, limits: &Limits, store: Arc<Store>) -> Option<Self> {
        let terms = terms::compile(store.prefix(), route, limits);
        if terms.is_empty() {
            return None;
        }
        let [look, count] =
            [Intent::Look, Intent::Count].map(|intent| terms::arguments(&terms, intent));
        Some(SharedLimits { store, terms, look, count })
    }

    /// Asks whether the limits admit a request. The request is counted if all of them do, including
    /// the local ones in `limiters` (those of the whole list), which are checked first. Waits for
    /// the store's time limit, and no longer than `at_most`.
    pub async fn ask(
        &self,
        limiters: &[Arc<Limiter>],
        requester: &Requester<'_>,
        now: Moment,
        at_most: Duration,
    ) -> Heard {
        let refused_here = refused_here(limiters, requester, now);
        let call = || {
            let arguments = if refused_here.is_none() { &self.count } else { &self.look };
            let keys = self.terms.iter().map(|terms| terms.key(requester)).collect();
            Call { keys, arguments: arguments.clone() }
        };
        let Some(numbers) = self.store.ask(call, at_most).await else {
            return Heard::Unavailable;
        };
        match terms::verdicts(&self.terms, &numbers) {
            Some(verdicts) => Heard::Verdicts { verdicts, refused_here },
            None => Heard::Unavailable,
        }
    }
}
