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
use super::discovery::known::{Edge, Known, Said};
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

/// What is known about each name.
type Names = HashMap<Url, Known<Vec<Address>>>;

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
            errors.extend(take_in(name, &upstream, &url, found, now));
        }
        errors.sort_unstable();
        let failing_since = names.values().filter_map(Known::lacking_since).min();
        upstream.lookups.note(&errors, failing_since);
        let before = upstream.set();
        upstream.replace(resolved(&upstream, &names), now);
        upstream.tell();
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
async fn resolve_all(upstream: &Upstream) -> Vec<(Url, Said<Vec<Address>>)> {
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

/// Takes in the answer to a lookup, and returns its error in words if there is none. Logs one line when
/// a name stops resolving, one when its addresses are given up, and one when it is back.
fn take_in(
    known: &mut Known<Vec<Address>>,
    upstream: &Upstream,
    url: &Url,
    found: Said<Vec<Address>>,
    now: Moment,
) -> Option<String> {
    let (host, _) = name(url).unwrap_or_default();
    let name = &upstream.name;
    let error = match &found {
        Said::These(_) => None,
        Said::Nothing(error) | Said::Failed(error) => Some(format!("{host}: {error}")),
    };
    let empty_after = *upstream.config.empty_after;
    match known.take_in(found, empty_after, now) {
        Some(Edge::Back(after)) => {
            log::info!("upstreams.{name}: {host} is resolved again, after {}s", after.as_secs());
        }
        Some(Edge::Lost(error)) => log::warn!(
            "upstreams.{name}: cannot resolve {host}: {error}; keeping the addresses known so far"
        ),
        Some(Edge::Emptied) => log::warn!(
            "upstreams.{name}: {host} has had no address for {empty_after:?}; giving up those \
             known so far"
        ),
        None => {}
    }
    error
}

async fn lookup(host: &str, port: u16, family: IpFamily) -> Said<Vec<Address>> {
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let Ok(found) = found else {
        return Said::Failed(format!("no answer within {}s", LOOKUP_TIMEOUT.as_secs()));
    };
    match found.map(|found| endpoints(found.collect(), family)) {
        Ok(addresses) if addresses.is_empty() => {
            Said::Nothing("the name has no address".to_owned())
        }
        Ok(addresses) => Said::These(addresses),
        Err(error) => {
            let words = error.to_string();
            if is_absent(&words) { Said::Nothing(words) } else { Said::Failed(words) }
        }
    }
}

/// Whether the resolver says that there is no such name, or no address of it. Its code is lost on the
/// way; these are the words for `EAI_NONAME` and `EAI_NODATA` of glibc and musl. Other words are taken
/// for a resolver that fails.
fn is_absent(words: &str) -> bool {
    [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
    ]
    .iter()
    .any(|absent| words.ends_with(absent))
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
    members(&upstream.config, |entry| match names.get(&entry.url) {
        Some(name) if name.is_decided() => name.last().cloned().unwrap_or_default(),
        Some(_) | None => known.addresses(&entry.url),
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

    /// How many endpoints there are after each answer: with an address, without one, or none at all.
    fn known(config: &str, answers: &[(u64, Option<bool>)]) -> Vec<usize> {
        let config = format!("{{endpoints: ['http://a.test:1'], {config}}}");
        let config: Config = serde_yaml::from_str(&config).expect("valid");
        let url = config.endpoints[0].url.clone();
        let upstream = Upstream::new("u", config, Moment::ZERO);
        let mut names = Names::new();
        let mut counts = Vec::new();
        for (seconds, answer) in answers {
            let found = match answer {
                Some(true) => Said::These(endpoints(parsed(&["127.0.0.1:1"]), IpFamily::Both)),
                Some(false) => Said::Nothing("no such name".to_owned()),
                None => Said::Failed("no answer".to_owned()),
            };
            let now = Moment::ZERO + Duration::from_secs(*seconds);
            let name = names.entry(url.clone()).or_default();
            let error = take_in(name, &upstream, &url, found, now);
            assert_eq!(error.is_none(), *answer == Some(true));
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
    fn a_name_keeps_its_addresses_while_the_resolver_fails() {
        let answers = [(0, Some(true)), (10, None), (100_000, None), (100_010, Some(true))];
        assert_eq!(known("", &answers), [1, 1, 1, 1]);
    }

    #[test]
    fn a_name_that_does_not_exist_any_more_loses_its_addresses() {
        let gone = |seconds| (seconds, Some(false));
        let answers = [(0, Some(true)), gone(10), gone(39), gone(40), gone(41), (50, Some(true))];
        assert_eq!(known("", &answers), [1, 1, 1, 0, 0, 1]);
        assert_eq!(known("empty_after: 31s", &answers), [1, 1, 1, 1, 0, 1]);
        assert_eq!(known("empty_after: 0s", &answers), [1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn the_words_for_a_name_that_does_not_exist_are_known() {
        for absent in ["Name or service not known", "No address associated with hostname"] {
            assert!(is_absent(&format!("failed to lookup address information: {absent}")));
        }
        for failing in ["Temporary failure in name resolution", "Try again"] {
            assert!(!is_absent(&format!("failed to lookup address information: {failing}")));
        }
    }
}
