//! What SRV records say (RFC 2782), and what is known of their targets.
//!
//! The records and the addresses of each target are answers of their own, and each is kept by the one
//! rule: a target whose addresses cannot be asked for keeps those known so far.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RData, Record};

use super::config::is_host;
use super::instance::{named, weights};
use super::known::{Edge, Known, Said};
use crate::time::Moment;
use crate::upstream::config::{IpFamily, Listed, Place, Url};
use crate::upstream::endpoint::Pair;
use crate::upstream::resolve::endpoints;

/// Names that lead to another, in one answer: more are a circle, or a mistake.
const MOST_ALIASES: usize = 8;

/// What a message says about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// These, for so long.
    These(Vec<T>, Duration),
    /// The name is an alias of this one, for so long, and the message says no more.
    Alias(Name, Duration),
    /// The name has none of these.
    Nothing,
}

/// Looks in the answers for what `pick` takes of `name`, or of the names that it is an alias of.
pub fn find<T>(answer: &Message, name: &Name, pick: impl Fn(&RData) -> Option<T>) -> Found<T> {
    let mut name = name;
    let mut ttl = Duration::MAX;
    let mut is_alias = false;
    for _ in 0..MOST_ALIASES {
        let of_name = answer.answers.iter().filter(|record| &record.name == name);
        let these: Vec<_> =
            of_name.clone().filter_map(|record| Some((pick(&record.data)?, record))).collect();
        if !these.is_empty() {
            let ttl = these.iter().map(|(_, record)| lifetime(record)).fold(ttl, Duration::min);
            return Found::These(these.into_iter().map(|(it, _)| it).collect(), ttl);
        }
        let alias = of_name.clone().find_map(|record| match &record.data {
            RData::CNAME(alias) => Some((&alias.0, record)),
            _ => None,
        });
        let Some((other, record)) = alias else { break };
        (name, ttl, is_alias) = (other, ttl.min(lifetime(record)), true);
    }
    match is_alias {
        true => Found::Alias(name.clone(), ttl),
        false => Found::Nothing,
    }
}

fn lifetime(record: &Record) -> Duration {
    Duration::from_secs(record.ttl.into())
}

/// The address, if the record is one.
pub fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// The addresses of `target` that the message brings along, and for how long they hold.
pub fn brought_along(answer: &Message, target: &Name) -> (Vec<IpAddr>, Duration) {
    let records = answer.additionals.iter().filter(|record| &record.name == target);
    let found = records.filter_map(|record| Some((address(&record.data)?, lifetime(record))));
    found.fold((Vec::new(), Duration::MAX), |(mut all, ttl), (address, lifetime)| {
        all.push(address);
        (all, ttl.min(lifetime))
    })
}

/// Where a record says the service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    priority: u16,
    host: String,
    port: u16,
    weight: u16,
}

impl Target {
    /// What the record says; `None` if that is no SRV record.
    pub fn read(data: &RData) -> Option<Target> {
        let RData::SRV(record) = data else { return None };
        let host = record.target.to_ascii().to_ascii_lowercase();
        Some(Target {
            priority: record.priority,
            host: host.trim_end_matches('.').to_owned(),
            port: record.port,
            weight: record.weight,
        })
    }

    /// The name that has the addresses, in lower case and without a dot at the end.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Why nothing can be reached there, if it cannot.
    fn mistake(&self) -> Option<String> {
        if !is_host(&self.host) {
            // Written by others: its length is bounded by the protocol, and `to_ascii` escapes it.
            return Some(format!("`{}` is no name of a host", self.host));
        }
        (self.port == 0).then(|| format!("{} has the port 0", self.host))
    }
}

/// The targets among the records, unless one is a mistake. A target without a name says that there is no
/// such service.
pub fn targets(records: Vec<Target>) -> Said<Vec<Target>> {
    let named: Vec<_> = records.into_iter().filter(|target| !target.host.is_empty()).collect();
    match named.iter().find_map(Target::mistake) {
        Some(mistake) => Said::Failed(mistake),
        None => Said::of(named, "its target is `.`: there is no such service"),
    }
}

/// What was said about the addresses of a target.
#[derive(Debug)]
pub struct Looked {
    /// The addresses, of all families that had an answer.
    pub said: Said<Vec<IpAddr>>,
    /// The family that had none: IPv6, or not.
    pub failed: Option<bool>,
}

impl Looked {
    /// Whether there are addresses, and every family that is used had an answer.
    pub fn is_whole(&self) -> bool {
        matches!(self.said, Said::These(_)) && self.failed.is_none()
    }
}

/// How targets become endpoints.
#[derive(Debug)]
pub struct Form {
    /// Over TLS, unless `form` says otherwise.
    pub is_tls: bool,
    /// `Host` header, certificate's name and base path; `None`: the target's name and port.
    pub form: Option<Url>,
    /// Of targets with addresses of both families.
    pub family: IpFamily,
}

/// The addresses of the targets, as far as they are known.
#[derive(Debug, Default)]
pub struct Service {
    addresses: HashMap<String, Known<Vec<IpAddr>>>,
    /// As they were when it was last asked.
    pairs: Vec<Pair>,
}

impl Service {
    /// Of an upstream that knows these pairs, from before a reload.
    pub fn new(pairs: Vec<Pair>) -> Self {
        Service { addresses: HashMap::new(), pairs }
    }

    /// Takes in what was said about the addresses of each target. Returns the endpoints, and of which
    /// target there is news.
    pub fn take_in(
        &mut self,
        targets: Vec<Target>,
        found: BTreeMap<String, Looked>,
        form: &Form,
        empty_after: Duration,
        now: Moment,
    ) -> (Said<Vec<Listed>>, Vec<(String, Edge)>) {
        self.addresses.retain(|host, _| found.contains_key(host));
        let mut edges = Vec::new();
        let (mut nothing, mut failure) = (None, None);
        let mut has_addresses = false;
        for (host, Looked { mut said, failed }) in found {
            let known = self.addresses.entry(host.clone()).or_default();
            match &mut said {
                Said::These(addresses) => {
                    has_addresses = true;
                    // The resolver fails for one family only: its addresses stay.
                    let kept = known.last().into_iter().flatten();
                    addresses.extend(kept.filter(|address| failed == Some(address.is_ipv6())));
                }
                Said::Nothing(words) => nothing = Some(format!("{host}: {words}")),
                Said::Failed(words) => failure = Some(format!("{host}: {words}")),
            }
            edges.extend(known.take_in(said, empty_after, now).map(|edge| (host, edge)));
        }
        // Of all targets at once it is the service that has nothing, for which there is the same rule.
        if let (false, None, Some(words)) = (has_addresses, &failure, nothing) {
            return (Said::Nothing(words), edges);
        }
        let listed = self.listed(targets, form);
        self.pairs = listed.iter().filter_map(pair).collect();
        match failure {
            Some(words) if listed.is_empty() => (Said::Failed(words), edges),
            Some(_) | None => (Said::of(listed, "its targets have no address"), edges),
        }
    }

    /// Targets with the lowest number for their priority are used, the others are backups.
    fn listed(&self, mut targets: Vec<Target>, form: &Form) -> Vec<Listed> {
        targets.sort_unstable();
        targets.dedup();
        let Some(first) = targets.first().map(|target| target.priority) else { return Vec::new() };
        let (used, backups): (Vec<_>, Vec<_>) =
            targets.iter().partition(|target| target.priority == first);
        let mut all = self.weighed(&used, form, false);
        all.extend(self.weighed(&backups, form, true));
        all
    }

    /// A target's addresses share its weight. What is not whole then, or beyond what endpoints may have,
    /// is scaled.
    fn weighed(&self, targets: &[&Target], form: &Form, backup: bool) -> Vec<Listed> {
        let mut shares = Vec::new();
        for target in targets {
            let urls = self.urls(target, form);
            // RFC 2782: the weight 0 has a chance of one in the sum of the others and one.
            let share = f64::from(target.weight.max(1)) / urls.len().max(1) as f64;
            shares.extend(urls.into_iter().map(|url| (url, share)));
        }
        let (urls, shares): (Vec<_>, Vec<_>) = shares.into_iter().unzip();
        let weighed = urls.into_iter().zip(weights(&shares));
        weighed.map(|(url, weight)| Listed { url, weight, backup }).collect()
    }

    fn urls(&self, target: &Target, form: &Form) -> Vec<Url> {
        let known = self.addresses.get(&target.host).and_then(Known::last);
        let addresses = known.into_iter().flatten();
        let addresses = addresses.map(|ip| SocketAddr::new(*ip, target.port)).collect();
        let places = endpoints(addresses, form.family, &self.pairs).into_iter();
        let Target { host, port, .. } = target;
        let url = named(host.clone(), *port, form.is_tls, form.form.as_ref());
        places.map(|address| Url { place: address.into(), ..url.clone() }).collect()
    }
}

fn pair(entry: &Listed) -> Option<Pair> {
    match &entry.url.place {
        Place::Pair(pair) => Some(*pair),
        Place::Host { .. } | Place::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests;
