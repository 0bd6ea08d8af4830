//! Resolves URLs to addresses, in the background.
//!
//! Names are looked up through the operating system, periodically. A name that cannot be resolved
//! keeps its addresses, for `empty_after` if that is set. Nothing here runs in the path of a
//! request.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::config::{IpFamily, Url};
use super::discovery::directory::name;
use super::discovery::known::Said;
use super::endpoint::Pair;
use super::{Address, Upstream};
use crate::time::Clock;

/// The longest wait for one lookup. The system's resolver may try for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a name that could not be resolved is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Resolves the names of `upstream` until it is dropped. Returns after the first round of lookups,
/// or after `wait`, whichever is first; the rest happens in the background.
pub async fn keep_resolved(upstream: &Arc<Upstream>, wait: Duration) {
    if upstream.names().is_empty() && upstream.config.discover.is_none() {
        return;
    }
    // Relaxed: no other memory depends on the flag.
    if upstream.resolving.swap(true, Ordering::Relaxed) {
        return;
    }
    let (first, done) = tokio::sync::oneshot::channel();
    tokio::spawn(refresh(Arc::downgrade(upstream), upstream.asked.clone(), first));
    // The background task continues either way: a slow resolver only delays the start.
    let _ = tokio::time::timeout(wait, done).await;
}

async fn refresh(
    upstream: Weak<Upstream>,
    asked: Arc<Notify>,
    first: tokio::sync::oneshot::Sender<()>,
) {
    let mut first = Some(first);
    loop {
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let names = upstream.names();
        if !names.is_empty() {
            let found = resolve_all(names).await;
            upstream.resolved(found, Clock::now());
        }
        if let Some(first) = first.take() {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
        let every = *upstream.config.resolve_every;
        let failing = upstream.directory().unresolved_since().is_some();
        drop(upstream);
        let pause = if failing { every.min(RETRY_EVERY) } else { every };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A source may have named another one.
            () = asked.notified() => {}
        }
    }
}

/// Looks up all names once, at the same time.
async fn resolve_all(urls: HashSet<Url>) -> Vec<(Url, Said<Vec<SocketAddr>>)> {
    let mut lookups = tokio::task::JoinSet::new();
    for url in urls {
        let Some((host, port)) = name(&url) else { continue };
        let host = host.to_owned();
        lookups.spawn(async move {
            let found = lookup(&host, port).await;
            (url, found)
        });
    }
    lookups.join_all().await
}

async fn lookup(host: &str, port: u16) -> Said<Vec<SocketAddr>> {
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let Ok(found) = found else {
        return Said::Failed(format!("no answer within {}s", LOOKUP_TIMEOUT.as_secs()));
    };
    match found {
        Ok(found) => Said::of(found.collect(), "the name has no address"),
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
/// changes nothing; pairs that are known stay together, so that an address that comes or goes changes
/// nothing for the others.
pub(super) fn endpoints(
    mut addresses: Vec<SocketAddr>,
    family: IpFamily,
    known: &[Pair],
) -> Vec<Address> {
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
    let mut pairs = Vec::new();
    for Pair { v6: one, v4: other } in known {
        if let (Ok(one), Ok(other)) = (v6.binary_search(one), v4.binary_search(other)) {
            pairs.push(Pair { v6: v6.remove(one), v4: v4.remove(other) });
        }
    }
    let paired = v6.len().min(v4.len());
    pairs.extend(v6.drain(..paired).zip(v4.drain(..paired)).map(|(v6, v4)| Pair { v6, v4 }));
    pairs.sort_unstable_by_key(|pair| pair.v6);
    let pairs = pairs.into_iter().map(Address::Pair);
    let rest_v6 = v6.into_iter().map(|address| Address::Tcp(address.into()));
    let rest_v4 = v4.into_iter().map(|address| Address::Tcp(address.into()));
    pairs.chain(rest_v6).chain(rest_v4).collect()
}

/// The pairs among these.
pub(super) fn pairs<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> Vec<Pair> {
    let pair = |address: &Address| match address {
        Address::Pair(pair) => Some(*pair),
        Address::Tcp(_) | Address::Unix(_) => None,
    };
    addresses.into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Moment;
    use crate::upstream::Config;

    /// How many endpoints there are after each answer: with an address, without one, or none at all.
    fn known(config: &str, answers: &[(u64, Option<bool>)]) -> Vec<usize> {
        let config = format!("{{endpoints: ['http://a.test:1'], {config}}}");
        let config: Config = serde_yaml::from_str(&config).expect("valid");
        let url = config.endpoints[0].url.clone();
        let upstream = Upstream::new("u", config, Moment::ZERO);
        let mut counts = Vec::new();
        for (seconds, answer) in answers {
            let found = match answer {
                Some(true) => Said::These(parsed(&["127.0.0.1:1"])),
                Some(false) => Said::Nothing("no such name".to_owned()),
                None => Said::Failed("no answer".to_owned()),
            };
            let now = Moment::ZERO + Duration::from_secs(*seconds);
            upstream.resolved(vec![(url.clone(), found)], now);
            let failing = upstream.lookups.error();
            assert_eq!(failing.is_none(), *answer == Some(true), "{failing:?}");
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
            let found = endpoints(parsed(&both), family, &[]);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(IpFamily::Both), ["[::1]:1,127.0.0.1:1", "[::2]:1,127.0.0.2:1", "[::3]:1"]);
        assert_eq!(of(IpFamily::PreferIpv4), ["127.0.0.1:1", "127.0.0.2:1"]);
        assert_eq!(of(IpFamily::PreferIpv6), ["[::1]:1", "[::2]:1", "[::3]:1"]);
        let only = endpoints(parsed(&["127.0.0.1:1"]), IpFamily::PreferIpv6, &[]);
        assert_eq!(only.len(), 1);
    }

    #[test]
    fn a_pair_that_is_known_stays_together_while_others_come_and_go() {
        let mut known = Vec::new();
        let mut answer = |addresses: &[&str]| {
            let found = endpoints(parsed(addresses), IpFamily::Both, &pairs(&known));
            known = found.clone();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(answer(&["[::5]:1", "127.0.0.5:1"]), ["[::5]:1,127.0.0.5:1"]);
        // Both would be sorted before those that are known.
        let more = ["[::5]:1", "127.0.0.5:1", "[::1]:1", "127.0.0.1:1"];
        assert_eq!(answer(&more), ["[::1]:1,127.0.0.1:1", "[::5]:1,127.0.0.5:1"]);
        let other = ["[::5]:1", "127.0.0.5:1", "[::1]:1", "127.0.0.9:1"];
        assert_eq!(answer(&other), ["[::1]:1,127.0.0.9:1", "[::5]:1,127.0.0.5:1"]);
        let less = ["[::5]:1", "127.0.0.5:1", "127.0.0.9:1"];
        assert_eq!(answer(&less), ["[::5]:1,127.0.0.5:1", "127.0.0.9:1"]);
        // Known pairs of another port, or of another family's choice, are none.
        let others = pairs(&[Address::Pair(Pair {
            v6: "[::5]:2".parse().expect("an address"),
            v4: "127.0.0.5:1".parse().expect("an address"),
        })]);
        let found = endpoints(parsed(&more), IpFamily::PreferIpv4, &others);
        assert_eq!(found.len(), 2);
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
