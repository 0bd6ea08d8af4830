//! Upstreams of which each request names one, by its path or by its host. There may be many, and a request
//! looks for one each time.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer};

/// The most upstreams that a route's requests may name.
const MAX_NAMED: usize = 1000;
/// The most suffixes that a host may have.
const MAX_SUFFIXES: usize = 16;

/// Upstreams of which each request names one.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(try_from = "Written", into = "Written")]
#[schemars(with = "Written", rename = "NamedUpstream")]
pub struct Named {
    /// Where the name is.
    pub by: By,
    /// The upstreams that may be named: without repetitions, and only by host none at all.
    pub among: Vec<String>,
}

/// Where a request names its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// In this parameter of the path's pattern.
    Parameter(String),
    /// In its host.
    Host(Host),
}

/// How the host of a request names an upstream.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// What may follow the name, such as `.internal`: the host is the name alone, or the name and one of
    /// these, which are tried in their order. At most 16; default: none.
    #[serde(deserialize_with = "suffixes")]
    #[schemars(length(max = 16), inner(pattern(r"^(\.[a-z0-9_-]+)+$")))]
    pub suffixes: Vec<String>,
}

/// As it is written.
#[derive(Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NamedUpstream")]
struct Written {
    /// The parameter of `match.path` whose value is the upstream's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// Instead of `parameter`: the request's host, in lower case and without port and trailing dot, is the
    /// upstream's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
    /// The upstreams that may be named, by their names in `upstreams`, or the name of an entry there that
    /// has `each`, for all that it makes; 404 for others. At most 1,000; at least one with `parameter`.
    #[serde(deserialize_with = "among")]
    #[schemars(with = "Among")]
    among: Vec<String>,
}

/// What is written under `among`, for the schema.
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its form counts")]
enum Among {
    Names(#[schemars(length(max = 1000))] Vec<String>),
    Template(String),
}

impl TryFrom<Written> for Named {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { parameter, host, among } = written;
        let by = match (parameter, host) {
            (Some(_), None) if among.is_empty() => {
                return Err(format!("among: must be 1 to {MAX_NAMED} names of upstreams"));
            }
            (Some(parameter), None) => By::Parameter(parameter),
            (None, Some(host)) => By::Host(host),
            (None, None) => {
                return Err(
                    "a `parameter` or `host` is needed, which names the upstream".to_owned()
                );
            }
            (Some(_), Some(_)) => {
                return Err(
                    "the upstream is named by a `parameter` or by the `host`, not both".to_owned()
                );
            }
        };
        Ok(Named { by, among })
    }
}

impl From<Named> for Written {
    fn from(Named { by, among }: Named) -> Self {
        let (parameter, host) = match by {
            By::Parameter(parameter) => (Some(parameter), None),
            By::Host(host) => (None, Some(host)),
        };
        Written { parameter, host, among }
    }
}

/// `users, orders by :service`, or `users, orders by host`.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = if self.among.is_empty() { "none".to_owned() } else { self.among.join(", ") };
        match &self.by {
            By::Parameter(parameter) => write!(f, "{names} by :{parameter}"),
            By::Host(_) => write!(f, "{names} by host"),
        }
    }
}

fn among<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    if names.len() > MAX_NAMED {
        return Err(de::Error::custom(format_args!("must be 1 to {MAX_NAMED} names of upstreams")));
    }
    each_once(names)
}

fn suffixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let suffixes = Vec::<String>::deserialize(deserializer)?;
    if suffixes.len() > MAX_SUFFIXES {
        return Err(de::Error::custom(format_args!("must be at most {MAX_SUFFIXES}")));
    }
    let is_part = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let is_suffix = |suffix: &str| {
        let labels = suffix.strip_prefix('.');
        labels.is_some_and(|labels| {
            labels.split('.').all(|label| !label.is_empty() && label.bytes().all(is_part))
        })
    };
    match suffixes.iter().find(|suffix| !is_suffix(suffix)) {
        Some(wrong) => Err(de::Error::custom(format_args!(
            "`{wrong}`: expected the end of a host, which begins with `.` and is in lower case, such as \
             .internal"
        ))),
        None => each_once(suffixes),
    }
}

fn each_once<E: de::Error>(names: Vec<String>) -> Result<Vec<String>, E> {
    let mut known = BTreeSet::new();
    match names.iter().find(|name| !known.insert(name.as_str())) {
        Some(twice) => Err(E::custom(format_args!("`{twice}` is listed twice"))),
        None => Ok(names),
    }
}

/// The upstreams that may be named, found by their names.
#[derive(Debug)]
pub struct Locator {
    named: Named,
    /// Places in the list, in the order of the names.
    sorted: Box<[usize]>,
}

impl Locator {
    /// Of a configured list.
    pub fn new(named: Named) -> Self {
        let mut sorted: Box<[usize]> = (0..named.among.len()).collect();
        sorted.sort_unstable_by_key(|place| &named.among[*place]);
        Locator { named, sorted }
    }

    /// As configured.
    pub fn config(&self) -> &Named {
        &self.named
    }

    /// The place in the list of the upstream that a request names: one for `host`, which is in normal form,
    /// whose path has these parameters.
    pub fn find<'a>(
        &self,
        host: &str,
        parameter: impl FnOnce(&str) -> Option<&'a str>,
    ) -> Option<usize> {
        match &self.named.by {
            By::Parameter(name) => self.place(parameter(name)?),
            By::Host(by) => self.place(host).or_else(|| {
                let mut names =
                    by.suffixes.iter().filter_map(|suffix| host.strip_suffix(&**suffix));
                names.find_map(|name| self.place(name))
            }),
        }
    }

    /// The place in the list of the upstream with this name.
    fn place(&self, name: &str) -> Option<usize> {
        let at = |place: &usize| self.named.among[*place].as_str().cmp(name);
        self.sorted.binary_search_by(at).ok().map(|found| self.sorted[found])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_names_is_found_at_its_place_and_no_other_is() {
        let among: Vec<_> = (0..1000).rev().map(|n| format!("service-{n}")).collect();
        let locator = Locator::new(Named { by: By::Parameter("service".to_owned()), among });
        let find = |name: &str| locator.find("service-7", |_| Some(name));
        for (place, name) in locator.config().among.iter().enumerate() {
            assert_eq!(find(name), Some(place));
        }
        for other in ["", "service", "service-1000", "service-9990", "SERVICE-1", "service-01"] {
            assert_eq!(find(other), None, "{other}");
        }
        assert_eq!(locator.find("service-7", |_| None), None);
    }

    #[test]
    fn a_host_is_a_name_alone_or_with_one_of_the_suffixes() {
        let suffixes = [".internal", ".svc.cluster.local"].map(str::to_owned).to_vec();
        let among = ["orders", "billing", "stock.shop"].map(str::to_owned).to_vec();
        let locator = Locator::new(Named { by: By::Host(Host { suffixes }), among });
        let find = |host: &str| locator.find(host, |_| Some("orders"));
        for (host, place) in [
            ("orders", 0),
            ("billing.internal", 1),
            ("stock.shop", 2),
            ("stock.shop.svc.cluster.local", 2),
        ] {
            assert_eq!(find(host), Some(place), "{host}");
        }
        for other in [
            "",
            "127.0.0.1",
            "[::1]",
            "stock",
            "orders.evil",
            "evil.orders",
            "ordersinternal",
            ".internal",
            "internal",
            "orders.internal.internal",
            "orders.internal.evil",
            "x.orders.internal",
        ] {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
