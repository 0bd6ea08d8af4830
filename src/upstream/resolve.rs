//! Resolves URLs to addresses, in the background.
//!
//! Names are looked up through the operating system, periodically. A name that cannot be resolved
//! keeps its addresses, for `empty_after` if that is set. Nothing here runs in the path of a
//! request.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;

use super::config::{Config, IpFamily, Listed, Place, Url};
use super::endpoint::{Key, Pair};
use super::{Address, Endpoint, Member, Upstream};
use crate::time::{Clock, Moment};

/// The longest wait for one lookup. The system's resolver may try for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a name that could not be resolved is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Resolves the names of `upstream` until it is dropped. Returns after the first round of lookups,
/// or after `wait`, whichever is first; the rest happens in the background.
pub async fn keep_resolved(upstream: &Arc<Upstream>, wait: Duration) {
    // Relaxed: no other memory depends on the flag.
    let begun = upstream.resolving.swap(true, Ordering::Relaxed);
    if begun || upstream.config.endpoints.iter().all(|entry| name(&entry.url).is_none()) {
        return;
    }
    let (first, done) = tokio::sync::oneshot::channel();
    tokio::spawn(refresh(Arc::downgrade(upstream), first));
    // The background task continues either way: a slow resolver only delays the start.
    let _ = tokio::time::timeout(wait, done).await;
}

/// What is known about one name.
#[derive(Default)]
struct Name {
    /// The addresses found last; `None` before the first success.
    addresses: Option<Vec<Address>>,
    failing_since: Option<Moment>,
}

type Names = HashMap<Url, Name>;

async fn refresh(upstream: Weak<Upstream>, first: tokio::sync::oneshot::Sender<()>) {
    let mut names = Names::new();
    let mut first = Some(first);
    loop {
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let found = resolve_all(&upstream).await;
        let now = Clock::now();
        let mut errors = Vec::new();
        for (url, found) in found {
            let name = names.entry(url.clone()).or_default();
            errors.extend(name.take_in(&upstream, &url, found, now));
        }
        errors.sort_unstable();
        let failing_since = names.values().filter_map(|name| name.failing_since).min();
        upstream.lookups.note(&errors, failing_since);
        let before = upstream.set();
        upstream.replace(resolved(&upstream, &names), now);
        if let Some(change) = before.change(&upstream.set()) {
            log::info!("upstreams.{}: {change}", upstream.name);
        }
        if let Some(first) = first.take() {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
        let every = *upstream.config.resolve_every;
        drop(upstream);
        let failing = failing_since.is_some();
        tokio::time::sleep(if failing { every.min(RETRY_EVERY) } else { every }).await;
    }
}

/// Looks up all names once, at the same time.
async fn resolve_all(upstream: &Upstream) -> Vec<(Url, Result<Vec<Address>, String>)> {
    let mut lookups = tokio::task::JoinSet::new();
    let family = upstream.config.ip_family;
    let urls: HashSet<&Url> = upstream.config.endpoints.iter().map(|entry| &entry.url).collect();
    for url in urls {
        let Some((host, port)) = name(url) else { continue };
        let (host, url) = (host.to_owned(), url.clone());
        lookups.spawn(async move {
            let found = lookup(&host, port, family).await;
            (url, found)
        });
    }
    lookups.join_all().await
}

impl Name {
    /// Records the result of a lookup, and returns its error in words if it failed. Logs one line
    /// when a name stops resolving, one when its addresses are given up, and one when it is back.
    fn take_in(
        &mut self,
        upstream: &Upstream,
        url: &Url,
        found: Result<Vec<Address>, String>,
        now: Moment,
    ) -> Option<String> {
        let (host, _) = name(url).unwrap_or_default();
        let name = &upstream.name;
        let error = match found {
            Ok(addresses) => {
                if let Some(since) = self.failing_since.take() {
                    let after = now.since(since).as_secs();
                    log::info!("upstreams.{name}: {host} is resolved again, after {after}s");
                }
                self.addresses = Some(addresses);
                return None;
            }
            Err(error) => error,
        };
        let since = *self.failing_since.get_or_insert_with(|| {
            log::warn!(
                "upstreams.{name}: cannot resolve {host}: {error}; keeping the addresses known so far"
            );
            now
        });
        let empty_after = *upstream.config.empty_after;
        let is_empty = self.addresses.as_ref().is_some_and(Vec::is_empty);
        if !empty_after.is_zero() && now.since(since) >= empty_after && !is_empty {
            log::warn!(
                "upstreams.{name}: {host} has not been resolved for {empty_after:?}; giving its \
                 addresses up"
            );
            self.addresses = Some(Vec::new());
        }
        Some(format!("{host}: {error}"))
    }
}

async fn lookup(host: &str, port: u16, family: IpFamily) -> Result<Vec<Address>, String> {
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port)))
        .await
        .map_err(|_| format!("no answer within {}s", LOOKUP_TIMEOUT.as_secs()))?
        .map_err(|error| error.to_string())?;
    let addresses = endpoints(found.collect(), family);
    match addresses.is_empty() {
        true => Err("the name has no address".to_owned()),
        false => Ok(addresses),
    }
}

/// What a name's addresses are as endpoints. Sorted, so that a resolver that rotates its answers
/// changes nothing.
fn endpoints(mut addresses: Vec<SocketAddr>, family: IpFamily) -> Vec<Address> {
    addresses.sort_unstable();
    addresses.dedup();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            SocketAddr::V4(address) => v4.push(address),
            SocketAddr::V6(address) => v6.push(address),
        }
    }
    match family {
        IpFamily::PreferIpv4 if !v4.is_empty() => v6.clear(),
        IpFamily::PreferIpv6 if !v6.is_empty() => v4.clear(),
        IpFamily::PreferIpv4 | IpFamily::PreferIpv6 | IpFamily::Both => {}
    }
    let pairs = v6.iter().zip(&v4).map(|(v6, v4)| Address::Pair(Pair { v6: *v6, v4: *v4 }));
    let paired = v6.len().min(v4.len());
    let rest_v6 = v6[paired..].iter().map(|address| Address::Tcp((*address).into()));
    let rest_v4 = v4[paired..].iter().map(|address| Address::Tcp((*address).into()));
    pairs.chain(rest_v6).chain(rest_v4).collect()
}

/// The endpoints that are given as addresses, or as sockets.
pub(super) fn literal(config: &Config) -> Vec<Member> {
    members(config, |_| Vec::new())
}

/// All endpoints, in the order of the file, with the addresses that `found` has for a name. What is
/// named twice is one endpoint.
pub(super) fn members(config: &Config, found: impl Fn(&Listed) -> Vec<Address>) -> Vec<Member> {
    let mut all: Vec<Member> = Vec::new();
    let mut keys = HashSet::new();
    for entry in &config.endpoints {
        let addresses = match &entry.url.place {
            Place::Unix(path) => vec![Address::Unix(path.clone())],
            Place::Host { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => vec![SocketAddr::new(ip, *port).into()],
                Err(_) => found(entry),
            },
        };
        for address in addresses {
            let key = key(config, &entry.url, address);
            if keys.insert(key.clone()) {
                let (weight, backup) = (entry.weight, entry.backup);
                all.push(Member { endpoint: Arc::new(Endpoint::new(key)), weight, backup });
            }
        }
    }
    all
}

/// The same, from what the task has found. A name that it has not resolved yet keeps the addresses
/// that it has, possibly from before a reload.
fn resolved(upstream: &Upstream, names: &Names) -> Vec<Member> {
    let known = upstream.set();
    members(&upstream.config, |entry| {
        match names.get(&entry.url).and_then(|name| name.addresses.as_ref()) {
            Some(found) => found.clone(),
            None => known.addresses(&entry.url),
        }
    })
}

fn key(config: &Config, url: &Url, address: Address) -> Key {
    let host = match &url.place {
        Place::Host { host, .. } => host.as_str(),
        Place::Unix(_) => "",
    };
    let server_name = config.tls.server_name.as_deref().unwrap_or(host);
    Key {
        address,
        tls: url.tls,
        server_name: if url.tls { server_name.to_owned() } else { String::new() },
        authority: HeaderValue::from_str(&url.authority)
            .unwrap_or_else(|_| HeaderValue::from_static("invalid")),
        base_path: url.base_path.clone(),
    }
}

/// The name that has to be looked up, and the port.
fn name(url: &Url) -> Option<(&str, u16)> {
    match &url.place {
        Place::Host { host, port } if host.parse::<IpAddr>().is_err() => Some((host, *port)),
        Place::Host { .. } | Place::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(config: &str, answers: &[(u64, bool)]) -> Vec<usize> {
        let config = format!("{{endpoints: ['http://a.test:1'], {config}}}");
        let config: Config = serde_yaml::from_str(&config).expect("valid");
        let url = config.endpoints[0].url.clone();
        let upstream = Upstream::new("u", config, Moment::ZERO);
        let mut names = Names::new();
        let mut counts = Vec::new();
        for (seconds, good) in answers {
            let found = match good {
                true => Ok(endpoints(parsed(&["127.0.0.1:1"]), IpFamily::Both)),
                false => Err("no such name".to_owned()),
            };
            let now = Moment::ZERO + Duration::from_secs(*seconds);
            let error = names.entry(url.clone()).or_default().take_in(&upstream, &url, found, now);
            assert_eq!(error.is_none(), *good);
            upstream.replace(resolved(&upstream, &names), now);
            counts.push(upstream.set().members().len());
        }
        counts
    }

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn addresses_of_two_families_are_pairs() {
        let both = ["127.0.0.1:1", "[::1]:1", "127.0.0.2:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"];
        let of = |family| {
            let found = endpoints(parsed(&both), family);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(IpFamily::Both), ["[::1]:1,127.0.0.1:1", "[::2]:1,127.0.0.2:1", "[::3]:1"]);
        assert_eq!(of(IpFamily::PreferIpv4), ["127.0.0.1:1", "127.0.0.2:1"]);
        assert_eq!(of(IpFamily::PreferIpv6), ["[::1]:1", "[::2]:1", "[::3]:1"]);
        let only = endpoints(parsed(&["127.0.0.1:1"]), IpFamily::PreferIpv6);
        assert_eq!(only.len(), 1);
    }

    #[test]
    fn a_name_that_is_not_resolved_any_more_keeps_its_addresses() {
        let answers = [(0, true), (10, false), (100_000, false), (100_010, true)];
        assert_eq!(known("", &answers), [1, 1, 1, 1]);
    }

    #[test]
    fn a_name_loses_its_addresses_after_so_long_if_that_is_configured() {
        let answers = [(0, true), (10, false), (69, false), (70, false), (71, false), (80, true)];
        assert_eq!(known("empty_after: 60s", &answers), [1, 1, 1, 0, 0, 1]);
        let short = [(0, true), (10, false), (20, true), (75, false), (80, false)];
        assert_eq!(known("empty_after: 60s", &short), [1, 1, 1, 1, 1], "counted anew each time");
    }
}
