//! EndpointSlices of Kubernetes: what is read of them, and which endpoints of a service are used.
//!
//! A service has one slice for about a hundred endpoints and each family of addresses. While an endpoint
//! moves from one slice to another it may be in both, so slices are merged by address and port.

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use objects::{Change, ChangeKind, Conditions, List, Object};
use serde::de::DeserializeOwned;

use super::config::Port;
use super::known::Said;

/// The most slices of a service: with 1,000 endpoints in each, far more than `max_endpoints` may be.
const MOST_SLICES: usize = 10_000;

/// The slices of one service, and up to which version of the cluster they are known.
#[derive(Debug, Default)]
pub struct Slices {
    version: String,
    by_name: BTreeMap<String, Slice>,
}

/// Why an answer of the API server cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It no longer knows what has changed since the version.
    TooOld,
    /// It is of another kind than expected, or says what went wrong.
    Wrong(String),
}

#[derive(Debug, Default)]
struct Slice {
    /// Those of TCP.
    ports: Vec<ListedPort>,
    endpoints: Vec<(IpAddr, State)>,
    /// It lists names, which kube-proxy does not use either.
    lists_names: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListedPort {
    /// Empty if the service has one port and gives it no name.
    name: String,
    /// `None`: the slice does not restrict it.
    number: Option<NonZeroU16>,
}

/// Whether an endpoint is to be used. Of what several slices say of it, the greatest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Unready,
    /// It is about to end, and answers requests until then.
    Draining,
    Ready,
}

impl State {
    fn of(conditions: &Conditions) -> Self {
        let is_serving = conditions.serving.unwrap_or(true);
        match conditions.ready.unwrap_or(true) {
            true => State::Ready,
            false if is_serving && conditions.terminating.unwrap_or(false) => State::Draining,
            false => State::Unready,
        }
    }
}

impl Slices {
    /// Takes in a page of a list. Returns what to ask the next page with, if there is one.
    ///
    /// # Errors
    /// It is not a list of slices, or not of these types.
    pub fn take_page(&mut self, page: &[u8]) -> Result<Option<String>, Trouble> {
        let List { kind, metadata, items } = read(page, "the list")?;
        if kind != "EndpointSliceList" || metadata.resource_version.is_empty() {
            return Err(Trouble::Wrong("the answer is not a list of EndpointSlices".to_owned()));
        }
        for object in items.unwrap_or_default() {
            self.put(object)?;
        }
        self.version = metadata.resource_version;
        Ok(metadata.next.filter(|next| !next.is_empty()))
    }

    /// Takes in a line of a watch.
    ///
    /// # Errors
    /// The server says that something is wrong, or the line is not a change of a slice.
    pub fn take_change(&mut self, line: &[u8]) -> Result<(), Trouble> {
        let Change { kind, object } = read(line, "a change")?;
        if kind == ChangeKind::Error {
            return Err(trouble(object));
        }
        if object.kind != "EndpointSlice" || object.metadata.resource_version.is_empty() {
            return Err(Trouble::Wrong("a change is not one of an EndpointSlice".to_owned()));
        }
        let version = object.metadata.resource_version.clone();
        match kind {
            ChangeKind::Added | ChangeKind::Modified => self.put(object)?,
            ChangeKind::Deleted => drop(self.by_name.remove(&object.metadata.name)),
            ChangeKind::Bookmark | ChangeKind::Error => {}
        }
        self.version = version;
        Ok(())
    }

    /// Up to where the changes are known.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether there is a slice of names, whose endpoints are not used.
    pub fn has_names(&self) -> bool {
        self.by_name.values().any(|slice| slice.lists_names)
    }

    /// The endpoints that are used, in the order of their addresses: those that are ready, or, if none
    /// is, those that still answer while they are ending, as kube-proxy does.
    pub fn said(&self, port: Option<&Port>) -> Said<Vec<SocketAddr>> {
        let merged = match self.merged(port) {
            Ok(merged) => merged,
            Err(error) => return Said::Failed(error),
        };
        for wanted in [State::Ready, State::Draining] {
            let used = merged.iter().filter(|(_, state)| **state == wanted);
            let used: Vec<_> = used.map(|(address, _)| *address).collect();
            if !used.is_empty() {
                return Said::These(used);
            }
        }
        Said::Nothing(match (self.by_name.len(), merged.len()) {
            (0, _) => "there is no EndpointSlice of this service".to_owned(),
            (_, 0) => "its EndpointSlices have no endpoint".to_owned(),
            (_, all) => format!("of its {all} endpoints none is ready"),
        })
    }

    fn put(&mut self, object: Object) -> Result<(), Trouble> {
        let name = object.metadata.name.clone();
        if name.is_empty() {
            return Err(Trouble::Wrong("an EndpointSlice has no name".to_owned()));
        }
        let slice = Slice::of(object).map_err(|why| Trouble::Wrong(format!("{name}: {why}")))?;
        self.by_name.insert(name, slice);
        match self.by_name.len() > MOST_SLICES {
            true => Err(Trouble::Wrong(format!("more than {MOST_SLICES} EndpointSlices"))),
            false => Ok(()),
        }
    }

    /// The endpoints at their port. A slice without that port has none: not all pods need to have it.
    fn merged(&self, port: Option<&Port>) -> Result<BTreeMap<SocketAddr, State>, String> {
        let mut merged = BTreeMap::new();
        let mut without = BTreeSet::new();
        for (name, slice) in self.by_name.iter().filter(|(_, slice)| !slice.endpoints.is_empty()) {
            let Some(number) = slice.number(name, port)? else {
                without.extend(&slice.ports);
                continue;
            };
            for (ip, state) in &slice.endpoints {
                let known = merged.entry(SocketAddr::new(*ip, number.get())).or_insert(*state);
                *known = (*known).max(*state);
            }
        }
        if merged.is_empty() && self.by_name.values().any(|slice| !slice.endpoints.is_empty()) {
            let wanted = port.map(|port| format!(" `{port}`")).unwrap_or_default();
            return Err(format!("its EndpointSlices have no TCP port{wanted}{}", words(without)));
        }
        Ok(merged)
    }
}

impl Slice {
    fn of(object: Object) -> Result<Self, String> {
        let is_of: fn(&IpAddr) -> bool = match object.address_type.as_str() {
            "IPv4" => IpAddr::is_ipv4,
            "IPv6" => IpAddr::is_ipv6,
            _ => return Ok(Slice { lists_names: true, ..Slice::default() }),
        };
        let mut endpoints = Vec::new();
        for endpoint in object.endpoints.unwrap_or_default() {
            // Kubernetes gives no meaning to further ones.
            let address = endpoint.addresses.first().ok_or("an endpoint has no address")?;
            let ip = address.parse().ok().filter(is_of);
            let ip =
                ip.ok_or_else(|| format!("`{address}` is not an {} address", object.address_type))?;
            endpoints.push((ip, State::of(&endpoint.conditions.unwrap_or_default())));
        }
        let ports = object.ports.unwrap_or_default().into_iter();
        let of_tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|name| name == "TCP"));
        let ports = of_tcp
            .map(|port| ListedPort { name: port.name.unwrap_or_default(), number: port.port })
            .collect();
        Ok(Slice { ports, endpoints, lists_names: false })
    }

    /// The number of the port that is wanted.
    fn number(&self, slice: &str, wanted: Option<&Port>) -> Result<Option<NonZeroU16>, String> {
        let found = match (wanted, self.ports.as_slice()) {
            (Some(Port::Named(name)), ports) => {
                ports.iter().find(|port| port.name == name.as_str())
            }
            // A service without a head may do without ports.
            (Some(Port::Numbered(number)), [] | [ListedPort { number: None, .. }]) => {
                return Ok(NonZeroU16::new(*number));
            }
            (Some(Port::Numbered(number)), ports) => {
                ports.iter().find(|port| port.number.is_some_and(|it| it.get() == *number))
            }
            (None, []) => None,
            (None, [only]) => Some(only),
            (None, several) => {
                let several = words(several.iter().collect());
                return Err(format!("{slice} has several ports{several}: choose one by `port`"));
            }
        };
        Ok(found.and_then(|port| port.number))
    }
}

/// `: http (8080), 9090`, or nothing.
fn words(ports: BTreeSet<&ListedPort>) -> String {
    let word = |port: &ListedPort| match (port.name.as_str(), port.number) {
        (name, None) => name.to_owned(),
        ("", Some(number)) => number.to_string(),
        (name, Some(number)) => format!("{name} ({number})"),
    };
    let all: Vec<_> = ports.into_iter().map(word).collect();
    match all.is_empty() {
        true => String::new(),
        false => format!(": {}", all.join(", ")),
    }
}

fn trouble(status: Object) -> Trouble {
    match status.code {
        Some(410) => Trouble::TooOld,
        code => {
            let code = code.map(|code| format!("{code} ")).unwrap_or_default();
            let why = status.message.unwrap_or_else(|| "an error without a message".to_owned());
            Trouble::Wrong(format!("the API server says: {code}{why}"))
        }
    }
}

fn read<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T, Trouble> {
    serde_json::from_slice(text)
        .map_err(|error| Trouble::Wrong(format!("{what} cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
