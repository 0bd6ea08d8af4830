//! `upstream:` and `split:` of a route, as the operator configures them.

use std::fmt;
use std::net::IpAddr;

use http::HeaderName;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::hash;
use super::named::Named;
use crate::fields;
use crate::policy::rate_limit::{Requester, Subject};
use crate::units;

/// The most upstreams of a route.
pub const MAX_UPSTREAMS: usize = 16;
/// The largest weight.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// Where a route's requests go: an upstream by its name, or several with their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// All requests go to this upstream.
    One(String),
    /// Never empty, without repetitions, and with a weight above zero.
    Split(Vec<Weighted>),
    /// The path or the host of the request names one.
    Named(Named),
}

/// An upstream of several, with its share in the requests.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// The upstream's name in `upstreams`.
    pub name: String,
    /// Its share is this part of the sum of all weights; 0 to 1,000,000, default 1. With 0 it gets no
    /// requests.
    #[serde(default = "one", deserialize_with = "weight")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

/// How requests are shared among the upstreams of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Requests with the same key go to the same upstream, and so do their retries. Requests without
    /// it, and all if it is absent, are drawn at random.
    pub key: Option<Key>,
}

/// What requests of one user have in common.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The authenticated consumer.
    Consumer,
    /// The client address; of IPv6 its /64.
    ClientAddress,
    /// The first value of this request header.
    #[serde(deserialize_with = "fields::header_name")]
    #[schemars(with = "String")]
    Header(HeaderName),
    /// The first cookie of this name.
    #[serde(deserialize_with = "cookie_name")]
    #[schemars(with = "String")]
    Cookie(Box<str>),
}

impl Destination {
    /// The upstreams, whatever their weights.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (one, several, named) = match self {
            Destination::One(name) => (Some(name.as_str()), &[][..], &[][..]),
            Destination::Split(upstreams) => (None, &**upstreams, &[][..]),
            Destination::Named(named) => (None, &[][..], &*named.among),
        };
        let several = several.iter().map(|upstream| upstream.name.as_str());
        one.into_iter().chain(several).chain(named.iter().map(String::as_str))
    }

    /// The only upstream; `None` if there are several.
    pub fn only(&self) -> Option<&str> {
        match self {
            Destination::One(name) => Some(name),
            Destination::Split(_) | Destination::Named(_) => None,
        }
    }
}

/// `users`, `stable 95, canary 5`, `users, orders by :service`, or `users, orders by host`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upstreams = match self {
            Destination::One(name) => return f.write_str(name),
            Destination::Split(upstreams) => upstreams,
            Destination::Named(named) => return named.fmt(f),
        };
        for (place, Weighted { name, weight }) in upstreams.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {weight}")?;
        }
        Ok(())
    }
}

/// As it is written.
impl serde::Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Destination::One(name) => serializer.serialize_str(name),
            Destination::Split(upstreams) => upstreams.serialize(serializer),
            Destination::Named(named) => named.serialize(serializer),
        }
    }
}

impl Key {
    /// A hash of the request's key, the same on every replica; `None` if the request has none, or an
    /// empty one.
    pub fn hash(&self, requester: &Requester<'_>) -> Option<u64> {
        match self {
            Key::Consumer => present(requester.consumer.map(|consumer| consumer.name.as_bytes())),
            Key::ClientAddress => Some(of_address(requester.address)),
            Key::Header(name) => of_header(requester, name),
            Key::Cookie(name) => of_cookie(requester, name),
        }
    }
}

/// A hash of the first field of this name; `None` if there is none, or an empty one.
pub fn of_header(requester: &Requester<'_>, name: &HeaderName) -> Option<u64> {
    present(requester.headers.get(name).map(|value| value.as_bytes()))
}

/// A hash of the first cookie of this name; `None` if there is none, or an empty one.
pub fn of_cookie(requester: &Requester<'_>, name: &str) -> Option<u64> {
    present(fields::cookie(requester.headers, name))
}

fn present(key: Option<&[u8]>) -> Option<u64> {
    key.filter(|key| !key.is_empty()).map(hash::of)
}

/// `consumer`, or `cookie=session`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Consumer => f.write_str("consumer"),
            Key::ClientAddress => f.write_str("client_address"),
            Key::Header(name) => write!(f, "header={name}"),
            Key::Cookie(name) => write!(f, "cookie={name}"),
        }
    }
}

/// As rate limits count addresses.
fn of_address(address: IpAddr) -> u64 {
    let address = match Subject::address(address) {
        Subject::Address(network) => network,
        Subject::Consumer(_) | Subject::Claim(_) | Subject::Header(_) | Subject::Everyone => {
            address
        }
    };
    match address {
        IpAddr::V4(address) => hash::of(&address.octets()),
        IpAddr::V6(address) => hash::of(&address.octets()),
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DestinationVisitor)
    }
}

struct DestinationVisitor;

impl<'de> Visitor<'de> for DestinationVisitor {
    type Value = Destination;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of an upstream, a list such as [{name: stable, weight: 95}], \
             {parameter: service, among: [users, orders]}, or {host: {}, among: [users, orders]}",
        )
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Destination, E> {
        Ok(Destination::One(name.to_owned()))
    }

    // Names that YAML takes for something else: what is missing are quotes, not a list.
    fn visit_bool<E: de::Error>(self, name: bool) -> Result<Destination, E> {
        Err(E::invalid_type(Unexpected::Bool(name), &"a string"))
    }

    fn visit_u64<E: de::Error>(self, name: u64) -> Result<Destination, E> {
        Err(E::invalid_type(Unexpected::Unsigned(name), &"a string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Destination, A::Error> {
        let mut upstreams: Vec<Weighted> = Vec::new();
        while let Some(upstream) = list.next_element::<Weighted>()? {
            let name = &upstream.name;
            if upstreams.iter().any(|other| other.name == *name) {
                return Err(de::Error::custom(format_args!("`{name}` is listed twice")));
            }
            if upstreams.len() == MAX_UPSTREAMS {
                return Err(de::Error::custom(format_args!(
                    "a route has at most {MAX_UPSTREAMS} upstreams"
                )));
            }
            upstreams.push(upstream);
        }
        if upstreams.iter().all(|upstream| upstream.weight == 0) {
            return Err(de::Error::custom("the weight must be above 0 for at least one upstream"));
        }
        Ok(Destination::Split(upstreams))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Destination, A::Error> {
        Named::deserialize(MapAccessDeserializer::new(map)).map(Destination::Named)
    }
}

impl schemars::JsonSchema for Destination {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Destination".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<Weighted>();
        let named = generator.subschema_for::<Named>();
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": one, "minItems": 1, "maxItems": MAX_UPSTREAMS },
                named,
            ],
        })
    }
}

fn one() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::bounded::<_, 0, MAX_WEIGHT>(deserializer)
}

/// Reads the name of a cookie.
///
/// # Errors
/// It is no name of a cookie.
pub fn cookie_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match fields::is_cookie_name(&name) {
        true => Ok(name.into()),
        false => Err(de::Error::custom(format_args!("`{name}` is not the name of a cookie"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: de::DeserializeOwned>(text: &str) -> Result<T, String> {
        let from = serde_yaml::Deserializer::from_str(text);
        serde_yaml::with::singleton_map_recursive::deserialize(from).map_err(|e| e.to_string())
    }

    #[test]
    fn an_upstream_stands_alone_in_a_list_with_its_weight_or_is_named_by_the_path() {
        let shown = |text: &str| parse(text).map(|d: Destination| d.to_string());
        assert_eq!(shown("users").as_deref(), Ok("users"));
        let list = "[{name: stable, weight: 95}, {name: next, weight: 0}, {name: canary}]";
        assert_eq!(shown(list).as_deref(), Ok("stable 95, next 0, canary 1"));
        let named = "{parameter: service, among: [users, orders]}";
        assert_eq!(shown(named).as_deref(), Ok("users, orders by :service"));
        let by_host = "{host: {suffixes: [.internal]}, among: [users, orders]}";
        assert_eq!(shown(by_host).as_deref(), Ok("users, orders by host"));
        assert_eq!(shown("{host: {}, among: []}").as_deref(), Ok("none by host"));
        let names: Vec<_> =
            parse::<Destination>(list).expect("valid").names().map(str::to_owned).collect();
        assert_eq!(names, ["stable", "next", "canary"]);
    }

    #[test]
    fn lists_that_share_nothing_are_refused_with_a_remedy() {
        let many: Vec<_> = (0..17).map(|n| format!("{{name: u{n}}}")).collect();
        for (text, remedy) in [
            ("[]", "above 0"),
            ("[{name: a, weight: 0}, {name: b, weight: 0}]", "above 0"),
            ("[{name: a}, {name: a}]", "`a` is listed twice"),
            ("[{name: a, weight: 1000001}]", "from 0 to 1000000"),
            ("[{name: a, share: 1}]", "unknown field `share`"),
            ("[{weight: 1}]", "name"),
            ("7", "expected a string"),
            ("{name: a}", "unknown field `name`"),
            ("{parameter: service}", "among"),
            ("{parameter: service, among: []}", "1 to 1000"),
            ("{parameter: service, among: [a, b, a]}", "`a` is listed twice"),
            ("{among: [a]}", "`parameter` or `host`"),
            ("{parameter: service, host: {}, among: [a]}", "not both"),
            ("{host: {suffix: a}, among: [a]}", "unknown field `suffix`"),
            ("{host: {suffixes: [internal]}, among: [a]}", "begins with `.`"),
            ("{host: {suffixes: [.Internal]}, among: [a]}", "lower case"),
            ("{host: {suffixes: [.a, .a]}, among: [a]}", "`.a` is listed twice"),
            (&format!("[{}]", many.join(", ")), "at most 16"),
        ] {
            let error = parse::<Destination>(text).expect_err(text);
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_is_named_as_that_of_a_limit() {
        for (text, shown) in [
            ("consumer", "consumer"),
            ("client_address", "client_address"),
            ("{header: X-User}", "header=x-user"),
            ("{cookie: session}", "cookie=session"),
        ] {
            assert_eq!(parse(text).map(|key: Key| key.to_string()).as_deref(), Ok(shown));
        }
        for text in ["route", "{header: 'a b'}", "{cookie: 'a b'}", "{cookie: ''}", "[consumer]"] {
            assert!(parse::<Key>(text).is_err(), "{text}");
        }
    }
}
