//! `hash:` under `balance`, as the operator configures it.

use std::fmt;

use http::HeaderName;
use serde::de::{self, Deserialize, Deserializer};

use crate::fields;
use crate::policy::rate_limit::Requester;
use crate::policy::split::{self, config as names, hash};

/// The factor without a configured one.
const MAX_LOAD: f64 = 1.25;

/// Requests with the same key go to the same endpoint, for as long as it is there and has room.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HashBalance")]
pub struct Hash {
    /// What requests that belong together have in common. Requests without it are balanced as by
    /// `least_request`.
    pub key: Key,
    /// An endpoint with more than this many times its share of the requests in flight is passed over:
    /// its keys go to others meanwhile, always to the same ones. 1.05 to 10, or 0 for no bound; default
    /// 1.25.
    #[serde(default = "default_max_load", deserialize_with = "max_load")]
    #[schemars(with = "f64", range(min = 0, max = 10))]
    pub max_load: MaxLoad,
}

/// A factor from 1.05 to 10, in hundredths; 0: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxLoad(u16);

/// What requests that belong together have in common.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HashKey")]
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
    #[serde(deserialize_with = "names::cookie_name")]
    #[schemars(with = "String")]
    Cookie(Box<str>),
    /// The value of this parameter of the route's path, such as `id` of `/users/:id`.
    PathParameter(Box<str>),
}

impl Key {
    /// A hash of the request's key, the same on every replica; `None` if the request has none. `parameter`
    /// is that of its path parameter.
    pub fn of(&self, requester: &Requester<'_>, parameter: Option<u64>) -> Option<u64> {
        match self {
            Key::Consumer => split::Key::Consumer.hash(requester),
            Key::ClientAddress => split::Key::ClientAddress.hash(requester),
            Key::Header(name) => split::config::of_header(requester, name),
            Key::Cookie(name) => split::config::of_cookie(requester, name),
            Key::PathParameter(_) => parameter,
        }
    }

    /// The name of its path parameter.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Key::PathParameter(name) => Some(name),
            Key::Consumer | Key::ClientAddress | Key::Header(_) | Key::Cookie(_) => None,
        }
    }
}

/// The hash of a parameter's value.
pub fn of_parameter(value: &str) -> u64 {
    hash::of(value.as_bytes())
}

impl MaxLoad {
    /// How many requests an endpoint may have in flight that has `share` of what is in flight, one more
    /// included; `None`: any number.
    pub(super) fn bound(self, in_flight: u32, share: f32) -> Option<u32> {
        let most = f64::from(self.0) / 100.0 * (f64::from(in_flight) + 1.0) * f64::from(share);
        (self.0 != 0).then_some((most.ceil() as u32).max(1))
    }

    /// Whether there is a bound.
    pub(in crate::upstream) fn is_bounded(self) -> bool {
        self.0 != 0
    }
}

/// `consumer`, or `cookie=session`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Consumer => f.write_str("consumer"),
            Key::ClientAddress => f.write_str("client_address"),
            Key::Header(name) => write!(f, "header={name}"),
            Key::Cookie(name) => write!(f, "cookie={name}"),
            Key::PathParameter(name) => write!(f, "path_parameter={name}"),
        }
    }
}

fn default_max_load() -> MaxLoad {
    MaxLoad((MAX_LOAD * 100.0) as u16)
}

fn max_load<'de, D: Deserializer<'de>>(from: D) -> Result<MaxLoad, D::Error> {
    let factor = f64::deserialize(from)?;
    match factor == 0.0 || (1.05..=10.0).contains(&factor) {
        true => Ok(MaxLoad((factor * 100.0).round() as u16)),
        false => Err(de::Error::custom("must be from 1.05 to 10, or 0 for no bound")),
    }
}
