//! A route's `idempotency`, as the operator configures it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::units::{self, Size, Timespan};

/// The most bytes of a request's body that are read, to compare it and to send it again on a retry.
const LARGEST_BODY: Size = Size::kib(64);
/// The margin between the end of a request's time and the end of its lease.
const MARGIN: Duration = Duration::from_millis(500);
/// The most bytes of a response that are kept.
const LARGEST_ANSWER: Size = Size::mib(8);

/// `idempotency:` of a route.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether a request without a key is refused with 400, or handled as on any other route, the
    /// default.
    pub required: bool,
    /// The methods for which the header has a meaning; default POST and PATCH.
    pub methods: Vec<Method>,
    /// How long a response is kept, and the longest time that a key stays undecided; longer than
    /// the lease, default 24 h.
    #[serde(deserialize_with = "units::positive")]
    pub ttl: Timespan,
    /// The least time that a key counts as in use if its request is not heard of again; default 30
    /// s. Never shorter than a request on this route may take.
    pub lease: Timespan,
    /// The largest body in bytes of a request with a key, 413 beyond it; more than 0, at most and
    /// by default 64 KiB.
    #[serde(deserialize_with = "up_to_largest_body")]
    pub max_body: Size,
    /// The largest body in bytes of a response that is kept; more than 0, at most 8 MiB, default
    /// 256 KiB.
    #[serde(deserialize_with = "up_to_largest_answer")]
    pub max_response: Size,
    /// What happens while the store is down; default `reject`.
    pub on_failure: OnFailure,
    /// What happens to a key whose request was sent, after its lease has ended without a response;
    /// default `reject`.
    pub on_undecided: OnUndecided,
    /// How clients without credentials are told apart; default `address`.
    pub anonymous: Anonymous,
    /// Upstream statuses that mean "not done, try again": they free the key, and the response is
    /// not kept. 400 to 599; default 429.
    #[serde(deserialize_with = "statuses")]
    #[schemars(inner(range(min = 400, max = 599)))]
    pub release_on: Vec<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            required: false,
            methods: vec![Method::Post, Method::Patch],
            ttl: Timespan::from_secs(24 * 60 * 60),
            lease: Timespan::from_secs(30),
            max_body: LARGEST_BODY,
            max_response: Size::kib(256),
            on_failure: OnFailure::default(),
            on_undecided: OnUndecided::default(),
            anonymous: Anonymous::default(),
            release_on: vec![429],
        }
    }
}

impl Config {
    /// Whether the header has a meaning for this method.
    pub fn covers(&self, method: &http::Method) -> bool {
        self.methods.iter().any(|covered| covered.is(method))
    }

    /// How long a request holds its key. It may take `request`, and keeping its response may take
    /// the store `commit`: so no request that is still under way has lost its lease.
    pub fn lease_of(&self, request: Duration, commit: Duration) -> Duration {
        (request + commit + MARGIN).max(*self.lease)
    }

    /// Whether an upstream that responds with `status` has not acted.
    pub fn releases(&self, status: u16) -> bool {
        self.release_on.contains(&status)
    }
}

/// A method that has side effects.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Post,
    Patch,
    Put,
    Delete,
}

impl Method {
    /// The method's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }

    fn is(self, method: &http::Method) -> bool {
        *method
            == match self {
                Method::Post => http::Method::POST,
                Method::Patch => http::Method::PATCH,
                Method::Put => http::Method::PUT,
                Method::Delete => http::Method::DELETE,
            }
    }
}

/// What happens to a request with a key while the store is down.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// 503.
    #[default]
    Reject,
    /// It is handled like one without a key: it may be executed twice.
    Pass,
}

/// What happens to a key if it is unknown whether its request was executed.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnUndecided {
    /// 409 until the key expires.
    #[default]
    Reject,
    /// The next request is executed: for upstreams that recognise the key themselves.
    Retry,
}

/// How clients without credentials are told apart.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// By their address. A client that moves counts as another client.
    #[default]
    Address,
    /// Not at all: a client that knows a key and its request gets the response.
    Shared,
}

fn up_to_largest_body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
    up_to(LARGEST_BODY, deserializer)
}

fn up_to_largest_answer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
    up_to(LARGEST_ANSWER, deserializer)
}

fn up_to<'de, D: Deserializer<'de>>(most: Size, deserializer: D) -> Result<Size, D::Error> {
    let size = Size::deserialize(deserializer)?;
    if size.0 == 0 || size > most {
        return Err(D::Error::custom(format_args!("must be more than 0 and at most {most}")));
    }
    Ok(size)
}

fn statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    let statuses = Vec::<u16>::deserialize(deserializer)?;
    match statuses.iter().find(|status| !(400..=599).contains(*status)) {
        Some(wrong) => Err(D::Error::custom(format_args!(
            "status {wrong} is not a failure, expected one from 400 to 599"
        ))),
        None => Ok(statuses),
    }
}
