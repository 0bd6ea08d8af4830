//! Upstreams: named groups of endpoints, which of them are available, and which one is next.
//!
//! The request path only reads the [`Set`]; whoever learns of a change replaces it: [`resolve`] the
//! members. This module decides which endpoint gets a request, not what happens to the request.

pub mod balance;
pub mod config;
pub mod discovery;
pub mod endpoint;
pub mod lookups;
pub mod resolve;
pub mod set;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
pub use balance::Ask;
pub use balance::load::Ended;
use balance::{Limits, Policy};
pub use config::Config;
pub use endpoint::{Address, Endpoint, Ticket};
use lookups::Lookups;
pub use set::{Member, Set};

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
    changing: Mutex<()>,
    turn: AtomicUsize,
    /// Attempts in flight at all endpoints, where the policy has a bound by share.
    in_flight: Option<Arc<AtomicU32>>,
    /// Set while a task resolves the names.
    resolving: AtomicBool,
    breaker: Option<Arc<Breaker>>,
    lookups: Lookups,
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
            set: ArcSwap::from_pointee(Set::new(Vec::new(), &config.balance, limits(&config))),
            changing: Mutex::new(()),
            in_flight: is_bounded(&config).then(Arc::default),
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
        if let (Some(old), Some(wanted)) = (&old.breaker, &config.circuit_breaker)
            && let Some(kept) = Breaker::continued(old, wanted)
        {
            new.breaker = Some(kept);
        }
        if let (Some(counted), Some(_)) = (&old.in_flight, &new.in_flight) {
            new.in_flight = Some(counted.clone());
        }
        // Names that remain keep their known addresses until they are looked up again.
        let known = old.set();
        let members = resolve::members(config, |entry| known.addresses(&entry.url));
        new.adopt(&known, members, now);
        Arc::new(new)
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
        // Relaxed: a bound that is a moment old is as good.
        let in_flight = self.in_flight.as_ref().map(|count| count.load(Ordering::Relaxed));
        let ask = &Ask { in_flight: in_flight.unwrap_or_default(), ..*ask };
        match set.pick(ask, &self.turn) {
            Some(endpoint) => Ok(Ticket::take(endpoint, self.in_flight.clone())),
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

    /// Puts a new set of members in place. Endpoints that remain keep their state.
    fn replace(&self, found: Vec<Member>, now: Moment) {
        self.adopt(&self.set.load(), found, now);
    }

    /// The same, with the state of endpoints in `known`.
    fn adopt(&self, known: &Set, mut found: Vec<Member>, now: Moment) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = known.is_empty();
        for member in &mut found {
            match known.endpoint(&member.endpoint.key) {
                Some(same) => member.endpoint = same.clone(),
                None if is_first || self.config.slow_start.is_zero() => {}
                None => member.endpoint.warm_up(now),
            }
        }
        let set = Set::new(found, &self.config.balance, limits(&self.config));
        self.set.store(Arc::new(set));
    }
}

fn is_bounded(config: &Config) -> bool {
    matches!(&config.balance, Policy::Hash(hash) if hash.max_load.is_bounded())
}

fn limits(config: &Config) -> Limits {
    Limits { in_flight: config.max_in_flight(), slow_start: *config.slow_start }
}

#[cfg(test)]
mod tests;
