//! Resolves URLs to addresses, in the background.
//!
//! Names are looked up through the operating system, periodically. A name that cannot be resolved
//! keeps its addresses, for `empty_after` if that is set, and is tried again sooner than the others are,
//! after pauses that grow. Nothing here runs in the path of a
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
use super::discovery::pace::{Learned, Pace};
use super::endpoint::Pair;
use super::{Address, Upstream};
use crate::time::{Clock, Moment};

/// The longest wait for one lookup. The system's resolver may try for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// The most names that are looked up at once: each takes a thread of the system's resolver.
const MOST_AT_ONCE: usize = 16;

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
    let mut rounds = None;
    loop {
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let rounds = rounds.get_or_insert_with(|| Rounds::new(*upstream.config.resolve_every));
        let names = upstream.names();
        let names = match rounds.is_whole(Clock::now()) {
            true => names,
            false => upstream.directory().lacking(names),
        };
        if !names.is_empty() {
            let found = resolve_all(names).await;
            upstream.resolved(found, Clock::now());
        }
        if let Some(first) = first.take() {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
        let names = upstream.names();
        let lacks_some = !upstream.directory().lacking(names).is_empty();
        drop(upstream);
        let pause = rounds.pause(lacks_some, Clock::now());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A source may have named another one.
            () = asked.notified() => {}
        }
    }
}

/// When all names are looked up, and when only those that have no answer.
struct Rounds {
    every: Duration,
    /// When the next one is about all names.
    next: Moment,
    pace: Pace,
}

impl Rounds {
    fn new(every: Duration) -> Self {
        Rounds { every, next: Moment::ZERO, pace: Pace::new(every) }
    }

    /// Whether the round that begins is about all names.
    fn is_whole(&mut self, now: Moment) -> bool {
        let is_whole = now >= self.next;
        if is_whole {
            self.next = now + self.every;
        }
        is_whole
    }

    /// How long to wait before the next round; after one in which names had no answer for less long.
    fn pause(&mut self, lacks_some: bool, now: Moment) -> Duration {
        let left = self.next.since(now);
        match lacks_some {
            true => self.pace.after(Learned::Nothing).min(left),
            false => {
                self.pace.after(Learned::All(self.every));
                left
            }
        }
    }
}

/// Looks up all these names once, some at the same time.
async fn resolve_all(urls: HashSet<Url>) -> Vec<(Url, Said<Vec<SocketAddr>>)> {
    each(urls, |url| async move {
        let (host, port) = name(&url)?;
        let found = lookup(host, port).await;
        Some((url, found))
    })
    .await
}

/// What `ask` makes of each, [`MOST_AT_ONCE`] at a time.
async fn each<T, F>(all: HashSet<Url>, ask: impl Fn(Url) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let mut waiting = all.into_iter();
    let mut asking = tokio::task::JoinSet::new();
    let mut found = Vec::new();
    loop {
        while asking.len() < MOST_AT_ONCE
            && let Some(one) = waiting.next()
        {
            asking.spawn(ask(one));
        }
        match asking.join_next().await {
            Some(Ok(answer)) => found.extend(answer),
            // A panic, which the runtime logs.
            Some(Err(_)) => {}
            None => return found,
        }
    }
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
    use std::sync::atomic::AtomicUsize;

    use super::*;
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
        // Known pairs with another port, or found for another `ip_family`, do not count.
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
    fn a_name_without_an_answer_is_retried_alone_after_pauses_that_grow() {
        let mut rounds = Rounds::new(Duration::from_secs(10));
        let mut now = Moment::ZERO + Duration::from_secs(100);
        let mut story = Vec::new();
        for _ in 0..6 {
            let is_whole = rounds.is_whole(now);
            let pause = rounds.pause(true, now);
            story.push((is_whole, pause.as_secs()));
            now = now + pause;
        }
        let (all, lacking) = (true, false);
        let grown = [(all, 1), (lacking, 2), (lacking, 4), (lacking, 3), (all, 5), (lacking, 5)];
        assert_eq!(story, grown);
        assert!(rounds.is_whole(now));
        assert_eq!(rounds.pause(false, now).as_secs(), 10);
        now = now + Duration::from_secs(4);
        assert!(!rounds.is_whole(now), "a source has named another one");
        assert_eq!(rounds.pause(true, now).as_secs(), 1, "from the beginning");
    }

    #[test]
    fn only_names_without_an_answer_are_lacking() {
        let config = "{endpoints: ['http://a.test:1', 'http://b.test:1', 'http://c.test:1']}";
        let config: Config = serde_yaml::from_str(config).expect("valid");
        let urls: Vec<_> = config.endpoints.iter().map(|entry| entry.url.clone()).collect();
        let upstream = Upstream::new("u", config, Moment::ZERO);
        let answers = vec![
            (urls[0].clone(), Said::These(parsed(&["127.0.0.1:1"]))),
            (urls[1].clone(), Said::Failed("no answer".to_owned())),
        ];
        upstream.resolved(answers, Moment::ZERO);
        let names = upstream.names();
        let lacking = upstream.directory().lacking(names);
        assert_eq!(lacking, HashSet::from([urls[1].clone(), urls[2].clone()]));
    }

    #[tokio::test]
    async fn lookups_at_once_are_bounded() {
        let url = |port: u16| format!("http://a.test:{port}").parse().expect("a URL");
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let found = each((1..=100).map(url).collect(), |url: Url| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Some(url)
            }
        });
        assert_eq!(found.await.len(), 100);
        assert_eq!(most.load(Ordering::SeqCst), MOST_AT_ONCE);
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
