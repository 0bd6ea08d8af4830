//! Upstreams: named groups of endpoints, which of them are available, and which one is next.
//!
//! The request path only reads the [`Set`]; what learns of a change replaces it: [`resolve`] and
//! [`discovery`] the members. This module decides which endpoint gets a request, not what happens to the request.

mod attempts;
pub mod balance;
pub mod config;
pub mod discovery;
pub mod ejection;
pub mod endpoint;
pub mod health;
pub mod learn;
pub mod lookups;
pub mod news;
pub mod ordering;
pub mod orders;
pub mod resolve;
pub mod set;
pub mod standing;
mod succession;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
pub use balance::Ask;
pub use balance::load::Ended;
use balance::{Limits, Policy};
pub use config::Config;
use config::Use;
use discovery::directory::Directory;
use discovery::registry::Registry;
use ejection::Due;
pub use endpoint::{Address, Endpoint, Ticket};
use lookups::Lookups;
use news::{Change, News};
use set::Rules;
pub use set::{Member, Set};
pub use standing::Absence;
use tokio::sync::Notify;

use crate::policy::breaker::Breaker;
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
    /// The upstream that the latest reload has put in this one's place, shared by all of them. Requests
    /// that began before still learn of endpoints that both have.
    latest: Arc<Mutex<Weak<Upstream>>>,
    turn: AtomicUsize,
    /// Attempts in flight at all endpoints, where the policy has a bound by share.
    in_flight: Option<Arc<AtomicU32>>,
    /// Set while a task resolves the names.
    resolving: AtomicBool,
    /// What is known of its endpoints.
    directory: Mutex<Directory>,
    /// The instances that have registered themselves; a reload goes on with them.
    register: Arc<Mutex<Registry>>,
    /// The revision of the register that has been taken in.
    registered: AtomicU64,
    /// Told when there may be other names to resolve.
    asked: Arc<Notify>,
    /// Set once a health check of any endpoint has passed: from then on, those without a pass get no
    /// requests.
    has_passed: AtomicBool,
    /// Told of every change of the members.
    changes: Arc<Notify>,
    breaker: Option<Arc<Breaker>>,
    lookups: Lookups,
    /// When endpoints are ejected, if they are.
    ejection: Option<ejection::config::Config>,
    /// When a probe is due.
    due: Arc<Due>,
    /// The end of the window of time in which shares of failures are counted, in nanoseconds.
    window_ends: AtomicU64,
    news: Arc<News>,
}

/// Why there is no endpoint for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// None is known.
    Empty,
    /// Each has as many connections as `max_connections` allows.
    Full,
    /// None is available, and `when_none_available` is `refuse`.
    Refused,
}

impl Upstream {
    /// An upstream whose names are not resolved yet; endpoints given by address are available at
    /// once.
    pub fn new(name: &str, config: Config, now: Moment) -> Self {
        let breaker = config.circuit_breaker.clone().map(|c| Arc::new(Breaker::new(c, now)));
        let ejection = config.ejection_rules();
        let rules = rules(&config, ejection.as_ref());
        let upstream = Upstream {
            name: name.into(),
            set: ArcSwap::from_pointee(Set::new(Vec::new(), rules)),
            changing: Mutex::default(),
            latest: Arc::default(),
            ejection,
            due: Arc::default(),
            window_ends: AtomicU64::new(0),
            news: Arc::default(),
            in_flight: is_bounded(&config).then(Arc::default),
            config,
            turn: AtomicUsize::new(0),
            resolving: AtomicBool::new(false),
            directory: Mutex::default(),
            register: Arc::default(),
            registered: AtomicU64::new(u64::MAX),
            asked: Arc::default(),
            has_passed: AtomicBool::new(false),
            changes: Arc::default(),
            breaker,
            lookups: Lookups::default(),
        };
        // Endpoints that are given as addresses, or as sockets; names are not looked up yet.
        let members = upstream.directory().members(&upstream.config, &upstream.set());
        upstream.replace(members, now);
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
        } else {
            // A new breaker has not counted what the old one has.
            old.set().members().iter().for_each(|member| member.endpoint.ejection.forget());
        }
        if new.ejection.is_none() {
            old.set().members().iter().for_each(|member| {
                member.endpoint.ejection.clear(now);
                member.endpoint.standing.set(Absence::Ejected, false);
            });
        }
        (new.due, new.news, new.latest) = (old.due.clone(), old.news.clone(), old.latest.clone());
        if config.health.is_some() {
            // Relaxed: no other memory depends on the flag.
            new.has_passed = old.has_passed.load(Ordering::Relaxed).into();
        }
        if let (Some(counted), Some(_)) = (&old.in_flight, &new.in_flight) {
            new.in_flight = Some(counted.clone());
        }
        new.directory = old.directory().names_only().into();
        if let (Some(before), Some(wanted)) = (&old.config.discover, &config.discover)
            && wanted.has_same_endpoints(before)
        {
            new.directory = old.directory().kept().into();
            new.register = old.register.clone();
        }
        // Names that remain keep their known addresses until they are looked up again.
        let known = old.set();
        let members = new.directory().members(config, &known);
        let new = Arc::new(new);
        // Before the endpoints are taken over: from here on, the new one hears of every change.
        *new.latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&new);
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

    /// Whether its names are resolved, and its source answers.
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
        if self.due.is_over(ask.now)
            && let Some(probe) = self.probe(&set, ask)
        {
            return Ok(probe);
        }
        match set.pick(ask, &self.turn) {
            Some(endpoint) => Ok(Ticket::take(endpoint, self.in_flight.clone())),
            None => Err(self.lack().unwrap_or(Unavailable::Full)),
        }
    }

    /// Whether there is an endpoint that a request has not been sent to, neither now nor before.
    pub fn has_other(&self, tried: &[Arc<Endpoint>], now: &Arc<Endpoint>) -> bool {
        self.set.load().has_other(tried, now)
    }

    /// Why there is no endpoint to send a request to, whichever request it is.
    pub fn lack(&self) -> Option<Unavailable> {
        let set = self.set.load();
        match set.usage {
            _ if set.counts.known == 0 => Some(Unavailable::Empty),
            Use::None => Some(Unavailable::Refused),
            Use::Available | Use::All => None,
        }
    }

    /// Told of every change of the members: one task can wait for it, and misses none.
    fn changes(&self) -> Arc<Notify> {
        self.changes.clone()
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
        // A check that passes again knows better than attempts of some time ago.
        if reason == Absence::Unhealthy && !holds {
            self.clear(endpoint, now);
        }
        self.warm_up_if_back(endpoint, was_available, now);
        self.rebuild(changing, now);
        true
    }

    fn warm_up_if_back(&self, endpoint: &Endpoint, was_available: bool, now: Moment) {
        let is_back = endpoint.standing.is_available() && !was_available;
        if is_back && !self.config.slow_start.is_zero() {
            endpoint.warm_up(now);
        }
    }

    /// What has changed and was not told yet.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// Writes it to the log, where no request is there to do it.
    fn tell(&self) {
        self.news.take().iter().for_each(|change| change.log(&self.name));
    }

    /// Makes the set anew, of the same members, here and in the upstream of the latest reload.
    fn rebuild(&self, changing: MutexGuard<'_, ()>, now: Moment) {
        let latest = self.latest();
        let before = self.set.load();
        self.put(self.of(before.members().to_vec()), before.usage, latest.is_none());
        // An endpoint that waited for its probe may be one that can be probed now.
        self.due.note(now);
        drop(changing);
        if let Some(latest) = latest {
            latest.rebuild(latest.changing(), now);
        }
    }

    /// The upstream that a reload has put in this one's place.
    fn latest(&self) -> Option<Arc<Upstream>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        latest.filter(|latest| !std::ptr::eq(&**latest, self))
    }

    /// Puts a set in place, and tells if another part of it is used than `before`.
    fn put(&self, set: Set, before: Use, tells: bool) {
        let set::Counts { known, available, .. } = set.counts;
        if tells && set.usage != before && known > 0 {
            self.news.add(match set.usage {
                Use::All => Change::AllUsed { available, known },
                Use::None => Change::Refusing { known },
                Use::Available => Change::Enough { available, known },
            });
        }
        self.set.store(Arc::new(set));
    }

    fn of(&self, members: Vec<Member>) -> Set {
        Set::new(members, rules(&self.config, self.ejection.as_ref()))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_bounded(config: &Config) -> bool {
    matches!(&config.balance, Policy::Hash(hash) if hash.max_load.is_bounded())
}

fn rules<'a>(config: &'a Config, ejection: Option<&'a ejection::config::Config>) -> Rules<'a> {
    let limits = Limits { in_flight: config.max_in_flight(), slow_start: *config.slow_start };
    let (policy, none_available) = (&config.balance, config.when_none_available);
    Rules { policy, limits, none_available, ejection }
}

#[cfg(test)]
mod tests;
