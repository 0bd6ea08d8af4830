//! Upstreams: named groups of endpoints, which of them are available, and which one is next.
//!
//! The request path only reads the [`Set`]; whoever learns of a change replaces it: [`resolve`] the
//! members. This module decides which endpoint gets a request, not what happens to the request.

pub mod balance;
pub mod config;
pub mod endpoint;
pub mod lookups;
pub mod resolve;
pub mod set;
pub mod standing;

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
pub use balance::Ask;
use balance::Limits;
pub use config::Config;
pub use endpoint::{Address, Ended, Endpoint, Ticket};
use lookups::Lookups;
pub use set::{Member, Set};
pub use standing::Absence;

use crate::policy::breaker::Breaker;
use crate::policy::outcome::{Conditions, Outcome};
use crate::time::Moment;

/// A named group of endpoints, with the state that outlives a reload.
#[derive(Debug)]
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: Arc<str>,
    config: Config,
    set: ArcSwap<Set>,
    /// Held while a set is replaced, so that two changes at once are both in the last one.
    changing: Mutex<Changing>,
    turn: AtomicUsize,
    /// Set while a task resolves the names.
    resolving: AtomicBool,
    breaker: Option<Arc<Breaker>>,
    lookups: Lookups,
}

#[derive(Debug, Default)]
struct Changing {
    /// The upstream that a reload has put in this one's place. Requests that began before the reload
    /// still learn here of endpoints that both have.
    successor: Weak<Upstream>,
}

/// Why there is no endpoint for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// None is known.
    Empty,
    /// Each has as many connections as `max_connections` allows.
    Full,
}

impl Upstream {
    /// An upstream whose names are not resolved yet; endpoints given by address are available at
    /// once.
    pub fn new(name: &str, config: Config, now: Moment) -> Self {
        let breaker = config.circuit_breaker.clone().map(|c| Arc::new(Breaker::new(c, now)));
        let upstream = Upstream {
            name: name.into(),
            set: ArcSwap::from_pointee(Set::new(Vec::new(), config.balance, limits(&config))),
            changing: Mutex::default(),
            config,
            turn: AtomicUsize::new(0),
            resolving: AtomicBool::new(false),
            breaker,
            lookups: Lookups::default(),
        };
        upstream.replace(resolve::literal(&upstream.config), now);
        upstream
    }

    /// `old` under a new configuration: `old` itself if nothing changed, else a new upstream that
    /// keeps the state of its endpoints, and the breaker if its configuration is unchanged.
    pub fn reconfigured(old: &Arc<Upstream>, config: &Config, now: Moment) -> Arc<Upstream> {
        if old.config == *config {
            return old.clone();
        }
        let mut new = Upstream::new(&old.name, config.clone(), now);
        if old.config.circuit_breaker == config.circuit_breaker {
            new.breaker.clone_from(&old.breaker);
        }
        // Names that remain keep their known addresses until they are looked up again.
        let known = old.set();
        let members = resolve::members(config, |entry| known.addresses(&entry.url));
        let new = Arc::new(new);
        // Before the endpoints are taken over: from here on, the new one hears of every change.
        old.changing().successor = Arc::downgrade(&new);
        new.adopt(&known, members, now);
        new
    }

    /// As configured; a reload that changes it makes another upstream.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The breaker shared by every route to this upstream.
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.breaker.as_ref()
    }

    /// The state of its DNS lookups.
    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// The endpoints as they are at the moment.
    pub fn set(&self) -> Arc<Set> {
        self.set.load_full()
    }

    /// An endpoint for an attempt.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pick(&self, ask: &Ask<'_>) -> Result<Ticket, Unavailable> {
        let set = self.set.load();
        match set.pick(ask, &self.turn) {
            Some(endpoint) => Ok(Ticket::take(endpoint)),
            None if set.is_empty() => Err(Unavailable::Empty),
            None => Err(Unavailable::Full),
        }
    }

    /// Whether there is an endpoint that a request has not been sent to, neither now nor before.
    pub fn has_other(&self, tried: &[Arc<Endpoint>], now: &Arc<Endpoint>) -> bool {
        self.set.load().has_other(tried, now)
    }

    /// Whether no endpoint is known.
    pub fn is_empty(&self) -> bool {
        self.set.load().is_empty()
    }

    /// Whether an attempt with this outcome counts as a failure of its endpoint.
    pub fn fails(&self, outcome: Outcome) -> bool {
        Conditions::FAILURES.matches(outcome)
    }

    /// Notes whether `reason` keeps requests from the endpoint. If that changes whether it is
    /// available, a new set is put in place. The share of one that becomes available grows, as
    /// `slow_start` says. Returns whether anything has changed.
    pub fn stand(&self, endpoint: &Endpoint, reason: Absence, holds: bool, now: Moment) -> bool {
        let changing = self.changing();
        let was_available = endpoint.standing.is_available();
        if !endpoint.standing.set(reason, holds) {
            return false;
        }
        let is_available = endpoint.standing.is_available();
        if is_available && !was_available && !self.config.slow_start.is_zero() {
            endpoint.warm_up(now);
        }
        self.rebuild(changing);
        true
    }

    /// Makes the set anew, of the same members, here and in the upstream of the next reload.
    fn rebuild(&self, changing: MutexGuard<'_, Changing>) {
        self.set.store(Arc::new(self.of(self.set.load().members().to_vec())));
        let successor = changing.successor.upgrade();
        drop(changing);
        if let Some(successor) = successor {
            successor.rebuild(successor.changing());
        }
    }

    fn of(&self, members: Vec<Member>) -> Set {
        Set::new(members, self.config.balance, limits(&self.config))
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new set of members in place. Endpoints that remain keep their state.
    fn replace(&self, found: Vec<Member>, now: Moment) {
        self.adopt(&self.set.load(), found, now);
    }

    /// The same, with the state of endpoints in `known`.
    fn adopt(&self, known: &Set, mut found: Vec<Member>, now: Moment) {
        let _changing = self.changing();
        let is_first = known.is_empty();
        for member in &mut found {
            match known.endpoint(&member.endpoint.key) {
                Some(same) => member.endpoint = same.clone(),
                None if is_first || self.config.slow_start.is_zero() => {}
                None => member.endpoint.warm_up(now),
            }
        }
        self.set.store(Arc::new(self.of(found)));
    }
}

fn limits(config: &Config) -> Limits {
    Limits { in_flight: config.max_in_flight(), slow_start: *config.slow_start }
}

#[cfg(test)]
mod tests;
