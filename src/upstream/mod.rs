//! Upstreams: named groups of endpoints, which addresses they have now, and whose turn it is.
//!
//! The request path only reads; [`resolve`] replaces the set of endpoints in the background.
//! Which endpoint gets a request is decided here, what becomes of it is not.

pub mod config;
pub mod resolve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;

pub use config::Config;

use crate::policy::breaker::Breaker;
use crate::time::Moment;

/// One address that serves an upstream.
#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub tls: bool,
    /// The name the certificate is verified against; empty without TLS.
    pub server_name: String,
    /// The `Host` of this endpoint.
    pub authority: HeaderValue,
    /// Goes before the path of every request.
    pub base_path: String,
    /// The address as records show it.
    pub label: Arc<str>,
    /// Attempts sent here since it was found.
    pub attempts: AtomicU64,
}

/// A named group of endpoints, with the state that outlives a reload.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    config: Config,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
    /// Somebody keeps the names resolved already.
    resolving: AtomicBool,
    breaker: Option<Arc<Breaker>>,
    /// Keeps pooled connections of differently configured upstreams apart.
    pub group_key: u64,
}

impl Upstream {
    /// An upstream whose names are still to be resolved; addresses are there at once.
    pub fn new(name: &str, config: Config, now: Moment) -> Self {
        let breaker = config.circuit_breaker.clone().map(|c| Arc::new(Breaker::new(c, now)));
        let group_key = resolve::fingerprint(name, &config);
        Upstream {
            name: name.into(),
            endpoints: ArcSwap::from_pointee(resolve::literal(&config)),
            config,
            turn: AtomicUsize::new(0),
            resolving: AtomicBool::new(false),
            breaker,
            group_key,
        }
    }

    /// `old` under a new configuration: itself if nothing changed; else what is unchanged of its
    /// endpoints and its breaker.
    pub fn reconfigured(old: &Arc<Upstream>, config: &Config, now: Moment) -> Arc<Upstream> {
        if old.config == *config {
            return old.clone();
        }
        let mut new = Upstream::new(&old.name, config.clone(), now);
        if old.config.circuit_breaker == config.circuit_breaker {
            new.breaker.clone_from(&old.breaker);
        }
        if old.config.tls == config.tls {
            // What is known of names that stay is kept until they are looked up again.
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

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The breaker shared by every route to this upstream.
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.breaker.as_ref()
    }

    /// The endpoints known now.
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// The next endpoint in turn, another one than `avoid` if there is one.
    /// `None` while no endpoint is known.
    pub fn pick(&self, avoid: Option<SocketAddr>) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let count = endpoints.len();
        if count == 0 {
            return None;
        }
        // Relaxed: turns need to be spread, not ordered.
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        if avoid == Some(endpoints[turn].address) {
            turn = (turn + 1) % count;
        }
        let endpoint = endpoints[turn].clone();
        endpoint.attempts.fetch_add(1, Ordering::Relaxed);
        Some(endpoint)
    }

    /// Take over a newly resolved set; endpoints that stay keep their counts.
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
    /// Whether it was found behind `url`.
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
        let config = Config {
            endpoints: endpoints.iter().map(|e| e.parse().expect("a URL")).collect(),
            protocol: config::Protocol::default(),
            resolve_every: crate::units::Timespan::from_secs(1),
            host_header: config::HostHeader::Endpoint,
            idle_timeout: crate::units::Timespan::from_secs(1),
            tls: config::Tls::default(),
            circuit_breaker: None,
        };
        Upstream::new("u", config, Moment::ZERO)
    }

    #[test]
    fn endpoints_take_turns() {
        let upstream = upstream(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let ports: Vec<_> =
            (0..4).map(|_| upstream.pick(None).expect("an endpoint").address.port()).collect();
        assert_eq!(ports, [1, 2, 1, 2]);
    }

    #[test]
    fn a_retry_gets_another_endpoint_if_there_is_one() {
        let two = upstream(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let first = two.pick(None).expect("an endpoint").address;
        for _ in 0..4 {
            assert_ne!(two.pick(Some(first)).expect("an endpoint").address, first);
        }
        let one = upstream(&["http://127.0.0.1:1"]);
        let only = one.pick(None).expect("an endpoint").address;
        assert_eq!(one.pick(Some(only)).expect("an endpoint").address, only);
    }

    #[test]
    fn a_name_has_no_endpoint_before_it_is_resolved() {
        assert!(upstream(&["http://name.invalid:1"]).pick(None).is_none());
    }
}
