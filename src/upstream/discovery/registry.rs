//! Endpoints that have registered themselves, each until its lease is over.
//!
//! An instance registers under an id of its own choice, and does so again before its lease is over. One
//! that crashes is forgotten when it is. The register is in memory: after a restart of the gateway it
//! is empty until the instances have renewed their leases.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::known::Said;
use crate::time::Moment;
use crate::upstream::config::{Listed, Url};

/// Limit on an id.
pub const LONGEST_ID: usize = 128;
/// Limits on metadata: what is shown to people, not a store.
const MOST_METADATA: usize = 16;
const LONGEST_KEY: usize = 64;
const LONGEST_VALUE: usize = 256;

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share of the requests is its weight divided by the sum of all; 1 to 1000.
    pub weight: u32,
    /// It gets requests only while no other endpoint is available.
    pub backup: bool,
    /// For people to read.
    pub metadata: BTreeMap<String, String>,
}

/// What may be registered.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Where instances may be.
    pub allow: &'a [IpNet],
    /// How many there may be.
    pub most: u32,
}

/// Why an instance is not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// This is wrong with what it says.
    Invalid(String),
    /// Its address is outside the networks that are allowed.
    Outside,
    /// There are too many.
    Full,
}

/// What a registration was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The id is new.
    Added,
    /// The instance says something else of itself.
    Changed,
    /// Only the lease has changed.
    Renewed,
}

/// What a change of the register is to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing, or what the register's revision tells.
    None,
    /// That there is still nothing.
    Nothing,
    /// An instance has left by its own word.
    Left,
}

/// An instance with its lease.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it says of itself.
    pub instance: Instance,
    /// When it is forgotten.
    pub until: Moment,
}

/// The instances by id.
#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    revision: u64,
}

impl Registry {
    /// Registers an instance, or renews its lease.
    ///
    /// # Errors
    /// Why it is refused; what was registered under the id stays.
    pub fn put(
        &mut self,
        id: &str,
        mut instance: Instance,
        lease: Duration,
        bounds: Bounds<'_>,
        now: Moment,
    ) -> Result<Put, Refused> {
        instance.address.set_ip(instance.address.ip().to_canonical());
        check(id, &instance)?;
        if !is_allowed(instance.address.ip(), bounds.allow) {
            return Err(Refused::Outside);
        }
        let until = now + lease;
        if let Some(entry) = self.entries.get_mut(id) {
            let put = if entry.instance == instance { Put::Renewed } else { Put::Changed };
            *entry = Entry { instance, until };
            self.revision += u64::from(put == Put::Changed);
            return Ok(put);
        }
        if self.entries.len() >= bounds.most as usize {
            return Err(Refused::Full);
        }
        self.entries.insert(id.to_owned(), Entry { instance, until });
        self.revision += 1;
        Ok(Put::Added)
    }

    /// Forgets an instance. Whether there was one with this id.
    pub fn remove(&mut self, id: &str) -> bool {
        let was_there = self.entries.remove(id).is_some();
        self.revision += u64::from(was_there);
        was_there
    }

    /// Forgets the instances whose lease is over, and returns them.
    pub fn expire(&mut self, now: Moment) -> Vec<(String, Entry)> {
        let is_over = |entry: &Entry| entry.until <= now;
        if !self.entries.values().any(is_over) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.entries);
        let (over, left) = all.into_iter().partition(|(_, entry)| is_over(entry));
        self.entries = left;
        self.revision += 1;
        let over: BTreeMap<_, _> = over;
        over.into_iter().collect()
    }

    /// Forgets the instances that are not where they may be. Whether there were any.
    pub fn keep_allowed(&mut self, allow: &[IpNet]) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| is_allowed(entry.instance.address.ip(), allow));
        let has_changed = self.entries.len() < before;
        self.revision += u64::from(has_changed);
        has_changed
    }

    /// A number that is another one after each change of the endpoints.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The instances by id.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// The instance with this id.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The same as endpoints that are reached as `form` says.
    pub fn said(&self, form: Option<&Url>) -> Said<Vec<Listed>> {
        let listed = self.entries.values().map(|Entry { instance, .. }| Listed {
            url: Url::at(instance.address, form),
            weight: instance.weight,
            backup: instance.backup,
        });
        Said::of(listed.collect(), "no instance is registered")
    }
}

fn is_allowed(address: IpAddr, allow: &[IpNet]) -> bool {
    allow.iter().any(|network| network.contains(&address))
}

fn check(id: &str, instance: &Instance) -> Result<(), Refused> {
    let invalid = |why: String| Err(Refused::Invalid(why));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(is_plain) {
        return invalid(format!(
            "an id has 1 to {LONGEST_ID} letters, digits, or any of `.`, `_`, `-`, `:`"
        ));
    }
    if !(1..=1000).contains(&instance.weight) {
        return invalid(format!(
            "weight: must be from 1 to 1000, not {}; to get no requests, deregister",
            instance.weight
        ));
    }
    let ip = instance.address.ip();
    if instance.address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        return invalid(format!("address: {} cannot be connected to", instance.address));
    }
    let metadata = &instance.metadata;
    let is_long = |(key, value): (&String, &String)| {
        key.is_empty() || key.len() > LONGEST_KEY || value.len() > LONGEST_VALUE
    };
    if metadata.len() > MOST_METADATA || metadata.iter().any(is_long) {
        return invalid(format!(
            "metadata: at most {MOST_METADATA} entries, with keys of 1 to {LONGEST_KEY} bytes and \
             values of at most {LONGEST_VALUE}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn instance(address: &str) -> Instance {
        let address = address.parse().expect("an address");
        Instance { address, weight: 1, backup: false, metadata: BTreeMap::new() }
    }

    fn put(
        registry: &mut Registry,
        id: &str,
        instance: Instance,
        now: u64,
    ) -> Result<Put, Refused> {
        let allow = ["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("one")];
        registry.put(id, instance, LEASE, Bounds { allow: &allow, most: 2 }, at(now))
    }

    #[test]
    fn a_lease_is_renewed_or_over() {
        let mut registry = Registry::default();
        assert_eq!(put(&mut registry, "a", instance("10.0.0.1:80"), 0), Ok(Put::Added));
        assert_eq!(put(&mut registry, "b", instance("10.0.0.2:80"), 0), Ok(Put::Added));
        assert_eq!(put(&mut registry, "a", instance("10.0.0.1:80"), 20), Ok(Put::Renewed));
        let expire = |registry: &mut Registry, seconds| {
            registry.expire(at(seconds)).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(expire(&mut registry, 29), [""; 0]);
        assert_eq!(expire(&mut registry, 30), ["b"]);
        assert_eq!(put(&mut registry, "a", instance("10.0.0.3:80"), 40), Ok(Put::Changed));
        assert_eq!(expire(&mut registry, 69), [""; 0]);
        assert_eq!(expire(&mut registry, 70), ["a"]);
    }

    #[test]
    fn what_is_registered_is_bounded_in_place_and_number() {
        let mut registry = Registry::default();
        for outside in ["127.0.0.1:80", "11.0.0.1:80", "[::2]:80", "169.254.169.254:80"] {
            assert_eq!(put(&mut registry, "a", instance(outside), 0), Err(Refused::Outside));
        }
        assert_eq!(put(&mut registry, "a", instance("[::ffff:10.0.0.1]:80"), 0), Ok(Put::Added));
        assert_eq!(put(&mut registry, "b", instance("[::1]:80"), 0), Ok(Put::Added));
        assert_eq!(put(&mut registry, "c", instance("10.0.0.1:80"), 0), Err(Refused::Full));
        assert_eq!(put(&mut registry, "b", instance("[::1]:80"), 1), Ok(Put::Renewed));
        assert!(registry.remove("a") && !registry.remove("a"));
        assert_eq!(put(&mut registry, "c", instance("10.0.0.1:80"), 0), Ok(Put::Added));
        assert!(registry.keep_allowed(&["10.0.0.0/8".parse().expect("a network")]));
        assert_eq!(registry.entries().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_what_was_there_stays() {
        let mut registry = Registry::default();
        let good = instance("10.0.0.1:80");
        assert_eq!(put(&mut registry, "a", good.clone(), 0), Ok(Put::Added));
        let metadata = |key: &str, value: usize| {
            let metadata = [(key.to_owned(), "v".repeat(value))].into();
            Instance { metadata, ..good.clone() }
        };
        for (id, wrong) in [
            ("", good.clone()),
            ("a b", good.clone()),
            ("../a", good.clone()),
            (&*"a".repeat(LONGEST_ID + 1), good.clone()),
            ("a", Instance { weight: 0, ..good.clone() }),
            ("a", Instance { weight: 1001, ..good.clone() }),
            ("a", instance("10.0.0.1:0")),
            ("a", instance("0.0.0.0:80")),
            ("a", instance("[::ffff:0.0.0.0]:80")),
            ("a", instance("[::ffff:224.0.0.1]:80")),
            ("a", metadata("", 1)),
            ("a", metadata("version", LONGEST_VALUE + 1)),
        ] {
            let refused = put(&mut registry, id, wrong.clone(), 1);
            assert!(matches!(refused, Err(Refused::Invalid(_))), "{id}: {wrong:?}: {refused:?}");
        }
        assert_eq!(registry.get("a").map(|entry| entry.instance.clone()), Some(good));
    }
}
