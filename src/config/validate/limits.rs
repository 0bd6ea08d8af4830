//! What the limits of a route need: stores, tokens, idempotency keys.

use super::RouteCheck;
use crate::config::code::Code;
use crate::config::load::{KeyPath, Problem};
use crate::policy::auth;
use crate::policy::rate_limit::Replays;

impl RouteCheck<'_> {
    /// All limits of a route must use one store, because they are checked in one round trip.
    pub(super) fn limits(&mut self) {
        let limits = self.route.rate_limit.0.iter().enumerate();
        let shared = limits.filter_map(|(index, limit)| Some((index, limit.shared.as_ref()?)));
        let mut first: Option<(KeyPath, &str)> = None;
        for (index, shared) in shared {
            let path = self.limit(index).key("shared").key("store");
            let (store, known) = (shared.store.as_str(), &self.config.rate_limit_stores);
            self.reference_at(path.clone(), "rate_limit_stores", store, known);
            match &first {
                None => first = Some((path, store)),
                Some((place, one)) if *one != store => {
                    let message = format!(
                        "the limits of a route share one store, and this one names `{store}`, not `{one}`"
                    );
                    let problem = Problem::new(Code::TwoLimitStores, path, message);
                    self.problems.push(problem.beside(place));
                    return;
                }
                Some(_) => {}
            }
        }
    }

    /// `replays` refers to responses stored for an idempotency key.
    pub(super) fn replays(&mut self) {
        let mut limits = self.route.rate_limit.0.iter();
        let free = limits.position(|limit| limit.replays == Replays::Free);
        if let Some(index) = free.filter(|_| self.route.idempotency.is_none()) {
            let message = "`replays` has no meaning without `idempotency`";
            let path = self.limit(index).key("replays");
            self.problems.push(Problem::new(Code::ReplaysWithoutKeys, path, message));
        }
    }

    /// A limit by claim needs an authority that verifies tokens.
    pub(super) fn claims(&mut self) {
        let mut limits = self.route.rate_limit.0.iter();
        let keyed = limits.position(|limit| limit.key.claims().next().is_some());
        let Some(index) = keyed else { return };
        let mut required = self.route.auth.iter().flat_map(|auth| auth.require.iter());
        // A missing or invalid authority is reported elsewhere.
        let verified = required
            .any(|name| self.config.auth.get(name).is_none_or(|authority| authority.has_claims()));
        if !verified {
            let message = "a limit counts by a claim, but the route requires no tokens";
            let path = self.limit(index).key("key");
            let problem = Problem::new(Code::ClaimWithoutToken, path, message);
            self.problems.push(problem.with(self.key(&["auth"])));
        }
    }

    /// Keys of clients that a service accepts without naming them would be one client's.
    pub(super) fn nameless(&mut self) {
        if self.route.idempotency.is_none() {
            return;
        }
        let mut required = self.route.auth.iter().flat_map(|auth| auth.require.iter());
        let nameless = required.find(|name| match self.config.auth.get(*name) {
            Some(auth::Config::Forward(forward)) => forward.consumer_header.is_none(),
            _ => false,
        });
        if let Some(name) = nameless {
            let message = format!(
                "keys belong to consumers, and clients that `auth.{name}` accepts have no names of their own"
            );
            let problem = Problem::new(Code::NamelessConsumer, self.key(&["idempotency"]), message);
            let path = KeyPath::root().key("auth").key(name).key("forward");
            self.problems.push(problem.with(path));
        }
    }

    fn limit(&self, index: usize) -> KeyPath {
        self.sources.element(&self.key(&["rate_limit"]), index)
    }
}
