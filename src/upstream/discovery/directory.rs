//! What is known of an upstream's endpoints: the addresses of each name, and what its source has said.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::known::{Edge, Known, Said};
use crate::time::Moment;
use crate::upstream::config::{Config, Listed, Place, Url};
use crate::upstream::endpoint::Key;
use crate::upstream::set::Set;
use crate::upstream::{Address, Endpoint, Member};

/// Of one upstream. Changed by the tasks that ask, and never by a request.
#[derive(Debug, Default)]
pub struct Directory {
    names: HashMap<Url, Known<Vec<Address>>>,
    found: Known<Vec<Listed>>,
    /// What has an address that is not used, and was told of.
    refused: HashSet<Url>,
}

impl Directory {
    /// What a reload keeps: the addresses of names, until they are looked up again.
    pub(in crate::upstream) fn names_only(&self) -> Self {
        Directory { names: self.names.clone(), ..Directory::default() }
    }

    /// The same, and the endpoints of a source that stays.
    pub(in crate::upstream) fn kept(&self) -> Self {
        Directory { found: self.found.clone(), ..self.names_only() }
    }

    /// The names that are to be looked up, with their port.
    pub(in crate::upstream) fn names(&self, config: &Config) -> HashSet<Url> {
        self.listed(config)
            .map(|entry| &entry.url)
            .filter(|url| name(url).is_some())
            .cloned()
            .collect()
    }

    /// Those of these names that were not looked up yet, or had no answer the last time.
    pub(in crate::upstream) fn lacking(&self, mut names: HashSet<Url>) -> HashSet<Url> {
        let lacks = |name: &Known<_>| !name.is_asked() || name.lacking_since().is_some();
        names.retain(|url| self.names.get(url).is_none_or(lacks));
        names
    }

    /// Takes in the answer to the lookup of a name.
    pub(in crate::upstream) fn look_up(
        &mut self,
        url: &Url,
        said: Said<Vec<Address>>,
        empty_after: Duration,
        now: Moment,
    ) -> Option<Edge> {
        self.names.entry(url.clone()).or_default().take_in(said, empty_after, now)
    }

    /// Forgets names that are not among those wanted.
    pub(in crate::upstream) fn keep(&mut self, wanted: &HashSet<Url>) {
        self.names.retain(|url, _| wanted.contains(url));
    }

    /// Notes whether an address at `url` is not used. Whether that is to be told.
    pub(in crate::upstream) fn refuse(&mut self, url: &Url, is_refused: bool) -> bool {
        match is_refused {
            true => self.refused.insert(url.clone()),
            false => {
                self.refused.remove(url);
                false
            }
        }
    }

    /// Forgets what was told of entries that are not among those named.
    pub(in crate::upstream) fn forget_refused(&mut self, named: &[Listed]) {
        self.refused.retain(|url| named.iter().any(|entry| entry.url == *url));
    }

    /// Takes in what the source said. Returns whether it has named something else.
    pub(in crate::upstream) fn discover(
        &mut self,
        said: Said<Vec<Listed>>,
        empty_after: Duration,
        now: Moment,
    ) -> (Option<Edge>, bool) {
        let may_differ = match &said {
            Said::These(these) => self.found.last() != Some(these),
            Said::Nothing(_) | Said::Failed(_) => false,
        };
        let edge = self.found.take_in(said, empty_after, now);
        let has_changed = may_differ || edge == Some(Edge::Emptied);
        (edge, has_changed)
    }

    /// Whether what the source named before is still used: until each name has been looked up once,
    /// with whatever result, and after that while nothing that it names has an address. One name that
    /// cannot be resolved does not keep what the source has removed.
    pub(in crate::upstream) fn is_waiting(&self, known: &Set) -> bool {
        let lacks = |entry: &Listed| {
            name(&entry.url).is_some() && self.addresses(&entry.url, known).is_empty()
        };
        let is =
            |entry: &Listed, of: fn(&Known<_>) -> bool| self.names.get(&entry.url).is_some_and(of);
        let named = || self.found.last().into_iter().flatten();
        let mut lacking = named().filter(|entry| lacks(entry));
        lacking.clone().any(|entry| !is(entry, Known::is_asked))
            || (named().all(lacks) && lacking.any(|entry| !is(entry, Known::is_decided)))
    }

    /// The source has certainly nothing any more.
    pub(in crate::upstream) fn forget_found(&mut self, now: Moment) {
        self.found.forget(now);
    }

    /// What the source has said.
    pub(in crate::upstream) fn found(&self) -> &Known<Vec<Listed>> {
        &self.found
    }

    /// Since when a name cannot be resolved.
    pub(in crate::upstream) fn unresolved_since(&self) -> Option<Moment> {
        self.names.values().filter_map(Known::lacking_since).min()
    }

    /// All endpoints: those of the configuration in its order, then those of the source. A name that
    /// has not been looked up yet keeps the addresses that it has in `known`, possibly from before a
    /// reload. What is named twice is one endpoint.
    pub(in crate::upstream) fn members(&self, config: &Config, known: &Set) -> Vec<Member> {
        let mut all: Vec<Member> = Vec::new();
        let mut keys = HashSet::new();
        let endpoints = known.by_key();
        let written = config.endpoints.len();
        for (place, entry) in self.listed(config).enumerate() {
            let addresses = match &entry.url.place {
                Place::Unix(path) => vec![Address::Unix(path.clone())],
                Place::Pair(pair) => vec![Address::Pair(*pair)],
                Place::Host { host, port } => match host.parse::<IpAddr>() {
                    Ok(ip) => vec![SocketAddr::new(ip, *port).into()],
                    Err(_) => self.addresses(&entry.url, known),
                },
            };
            // A reload may have narrowed where they may be.
            let discover = config.discover.as_ref().filter(|_| place >= written);
            let is_refused = |at: &Address| discover.is_some_and(|of| of.refuses(at).is_some());
            for address in addresses.into_iter().filter(|address| !is_refused(address)) {
                let key = key(config, &entry.url, address);
                if keys.insert(key.clone()) {
                    let (weight, backup) = (entry.weight, entry.backup);
                    let same = endpoints.get(&key).map(|same| Arc::clone(same));
                    let endpoint = same.unwrap_or_else(|| Arc::new(Endpoint::new(key)));
                    all.push(Member { endpoint, weight, backup });
                }
            }
        }
        all
    }

    /// The addresses of a name, with which they are pairs.
    pub(in crate::upstream) fn addresses(&self, url: &Url, known: &Set) -> Vec<Address> {
        match self.names.get(url) {
            Some(name) if name.is_asked() => name.last().cloned().unwrap_or_default(),
            Some(_) | None => known.addresses(url),
        }
    }

    fn listed<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = &'a Listed> {
        config.endpoints.iter().chain(self.found.last().into_iter().flatten())
    }
}

fn key(config: &Config, url: &Url, address: Address) -> Key {
    let server_name = config.tls.server_name.as_deref().unwrap_or(url.host());
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
pub(in crate::upstream) fn name(url: &Url) -> Option<(&str, u16)> {
    match &url.place {
        Place::Host { host, port } if host.parse::<IpAddr>().is_err() => Some((host, *port)),
        Place::Host { .. } | Place::Pair(_) | Place::Unix(_) => None,
    }
}
