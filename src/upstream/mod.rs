//! Upstreams: named groups of endpoints, their current addresses, and which endpoint is next.
//!
//! The request path only reads; [`resolve`] replaces the set of endpoints in the background. This
//! module decides which endpoint gets a request, not what happens to the request.

pub mod config;
pub mod lookups;
pub mod resolve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;

pub use config::Config;
use lookups::Lookups;

use crate::policy::breaker::Breaker;
use crate::time::Moment;

/// One address that serves an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// Resolved, with its port.
    pub address: SocketAddr,
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// The name that the certificate is verified against; empty without TLS.
    pub server_name: String,
    /// The `Host` header for this endpoint.
    pub authority: HeaderValue,
    /// Put before the path of every request.
    pub base_path: String,
    /// The address, as records show it.
    pub label: Arc<str>,
    /// Attempts sent here since the endpoint was found.
    pub attempts: AtomicU64,
}

/// A named group of endpoints, with the state that outlives a reload.
#[derive(Debug)]
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: Arc<str>,
    config: Config,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
    /// Set while a task resolves the names.
    resolving: AtomicBool,
    breaker: Option<Arc<Breaker>>,
    lookups: Lookups,
}

impl Upstream {
    /// An upstream whose names are not resolved yet; endpoints given by address are available at
    /// once.
    pub fn new(name: &str, config: Config, now: Moment) -> Self {
        let breaker = config.circuit_breaker.clone().map(|c| Arc::new(Breaker::new(c, now)));
        Upstream {
            name: name.into(),
            endpoints: ArcSwap::from_pointee(resolve::literal(&config)),
            config,
            turn: AtomicUsize::new(0),
            resolving: AtomicBool::new(false),
            breaker,
            lookups: Lookups::default(),
        }
    }

    /// `old` under a new configuration: `old` itself if nothing changed, else a new upstream that
    /// keeps the endpoints and the breaker whose configuration is unchanged.
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
        if old.config.tls == config.tls {
            // Names that remain keep their known addresses until they are looked up again.
            let stays =
                |endpoint: &&Arc<Endpoint>| config.endpoints.iter().any(|url| endpoint.is_of(url));
            let mut known: Vec<_> = old.endpoints().iter().filter(stays).cloned().collect();
            let fresh = new.endpoints();
            known.retain(|old| !fresh.iter().any(|new| new.is_same(old)));
            known.extend(fresh.iter().cloned());
            new.replace(known);
        }
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

    /// The endpoints known at the moment.
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// The next endpoint in turn, among those that this request has `tried` the fewest times. It
    /// avoids the endpoint tried last if there is another. `None` while no endpoint is known.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let count = endpoints.len();
        if count == 0 {
            return None;
        }
        // Relaxed: turns only need to be spread, not ordered.
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        if !tried.is_empty() {
            let in_turn = (0..count).map(|step| (turn + step) % count);
            turn = in_turn
                .min_by_key(|place| {
                    let address = endpoints[*place].address;
                    let times = tried.iter().filter(|tried| **tried == address).count();
                    (times, tried.last() == Some(&address))
                })
                .unwrap_or(turn);
        }
        let endpoint = endpoints[turn].clone();
        endpoint.attempts.fetch_add(1, Ordering::Relaxed);
        Some(endpoint)
    }

    /// Puts a newly resolved set in place; endpoints that remain keep their counts.
    fn replace(&self, mut found: Vec<Arc<Endpoint>>) {
        let known = self.endpoints.load();
        for endpoint in &mut found {
            if let Some(same) = known.iter().find(|k| k.is_same(endpoint)) {
                *endpoint = same.clone();
            }
        }
        self.endpoints.store(Arc::new(found));
    }
}

impl Endpoint {
    /// Whether the endpoint belongs to `url`.
    fn is_of(&self, url: &config::Url) -> bool {
        self.tls == url.tls
            && self.authority.as_bytes() == url.authority.as_bytes()
            && self.base_path == url.base_path
    }

    fn is_same(&self, other: &Endpoint) -> bool {
        self.address == other.address
            && self.tls == other.tls
            && self.authority == other.authority
            && self.base_path == other.base_path
            && self.server_name == other.server_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(endpoints: &[&str]) -> Upstream {
        let config = serde_yaml::from_str(&format!("endpoints: {endpoints:?}")).expect("valid");
        Upstream::new("u", config, Moment::ZERO)
    }

    #[test]
    fn endpoints_take_turns() {
        let upstream = upstream(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let ports: Vec<_> =
            (0..4).map(|_| upstream.pick(&[]).expect("an endpoint").address.port()).collect();
        assert_eq!(ports, [1, 2, 1, 2]);
    }

    #[test]
    fn a_retry_gets_another_endpoint_if_there_is_one() {
        let two = upstream(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let first = two.pick(&[]).expect("an endpoint").address;
        for _ in 0..4 {
            assert_ne!(two.pick(&[first]).expect("an endpoint").address, first);
        }
        let one = upstream(&["http://127.0.0.1:1"]);
        let only = one.pick(&[]).expect("an endpoint").address;
        assert_eq!(one.pick(&[only]).expect("an endpoint").address, only);
    }

    #[test]
    fn endpoints_that_were_tried_are_avoided_while_others_are_left() {
        let names: Vec<_> = (1..=4).map(|port| format!("http://127.0.0.1:{port}")).collect();
        let four = upstream(&names.iter().map(String::as_str).collect::<Vec<_>>());
        // Other requests advance the turn meanwhile.
        for others in 0..8 {
            let mut tried = Vec::new();
            for _ in 0..8 {
                (0..others).for_each(|_| drop(four.pick(&[])));
                let picked = four.pick(&tried).expect("an endpoint").address;
                assert_ne!(tried.last(), Some(&picked));
                tried.push(picked);
            }
            for round in tried.chunks(4) {
                let mut round = round.to_vec();
                round.sort_unstable();
                round.dedup();
                assert_eq!(round.len(), 4, "{tried:?}");
            }
        }
    }

    #[test]
    fn a_name_has_no_endpoint_before_it_is_resolved() {
        assert!(upstream(&["http://name.invalid:1"]).pick(&[]).is_none());
    }
}
