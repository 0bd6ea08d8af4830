//! The outcome of an attempt, and sets of outcomes.
//!
//! [`Outcome`] is the one class an attempt falls into. Breaker and retry both read it through
//! [`Conditions`], the compiled form of `failure_on:` and `on:`. `proxy` classifies an attempt; the
//! policies decide what follows from it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::units::schema::written_as;

/// The class of one attempt. Attempts that ended because the client went away, or because the
/// gateway refused, have none: they say nothing about the upstream, so their permits are dropped
/// unrecorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream responded with this status.
    Response(u16),
    /// No connection, or one that was lost before the first byte was written.
    ConnectFailure,
    /// The TLS handshake failed, for example because of an expired certificate: nothing was sent.
    TlsFailure,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// HTTP/2: the upstream says it has not processed the request (`REFUSED_STREAM`, or a stream
    /// beyond the last one of a `GOAWAY`).
    RefusedStream,
    /// The connection broke before the response headers were complete.
    Reset,
    /// No response within the attempt timeout.
    Timeout,
    /// The upstream's response is not HTTP.
    Protocol,
    /// The upstream responded with this gRPC status, whatever the HTTP status. Never 0, which is a
    /// `Response(200)`.
    Grpc(u8),
}

// The gRPC statuses that are named here.
pub(super) const CANCELLED: u8 = 1;
pub(super) const DEADLINE_EXCEEDED: u8 = 4;
pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
pub(super) const INTERNAL: u8 = 13;
pub(super) const UNAVAILABLE: u8 = 14;

impl Outcome {
    /// Whether no upstream can have acted on the request, so that sending it again does not send it
    /// twice.
    pub const fn provably_unsent(self) -> bool {
        match self {
            Outcome::ConnectFailure
            | Outcome::TlsFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream => true,
            Outcome::Response(_)
            | Outcome::Reset
            | Outcome::Timeout
            | Outcome::Protocol
            | Outcome::Grpc(_) => false,
        }
    }

    /// The metric label: a status by its class, to keep the number of labels small.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Response(100..=199) => "1xx",
            Outcome::Response(200..=299) => "2xx",
            Outcome::Response(300..=399) => "3xx",
            Outcome::Response(400..=499) => "4xx",
            Outcome::Response(500..=599) => "5xx",
            Outcome::Response(_) => "other",
            Outcome::ConnectFailure => "connect_failure",
            Outcome::TlsFailure => "tls_failure",
            Outcome::ConnectTimeout => "connect_timeout",
            Outcome::RefusedStream => "refused_stream",
            Outcome::Reset => "reset",
            Outcome::Timeout => "timeout",
            Outcome::Protocol => "protocol",
            Outcome::Grpc(CANCELLED) => "grpc_cancelled",
            Outcome::Grpc(DEADLINE_EXCEEDED) => "grpc_deadline_exceeded",
            Outcome::Grpc(RESOURCE_EXHAUSTED) => "grpc_resource_exhausted",
            Outcome::Grpc(INTERNAL) => "grpc_internal",
            Outcome::Grpc(UNAVAILABLE) => "grpc_unavailable",
            Outcome::Grpc(_) => "grpc_other",
        }
    }
}

/// A set of outcomes, as a list names it: statuses from 400 to 599 (`503`), their classes
/// (`4xx`, `5xx`), `connect_failure`, `tls_failure`, `refused_stream`, `reset` (broken off, or not
/// HTTP) and `timeout`; of gRPC, as Envoy names them, `grpc_cancelled`, `grpc_deadline_exceeded`,
/// `grpc_internal`, `grpc_resource_exhausted` and `grpc_unavailable`. A connect timeout is both a
/// `connect_failure` and a `timeout`; a TLS failure is a `connect_failure` as well.
///
/// One bit per status, so that a lookup takes the same time for any list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    statuses: [u64; 4],
    named: u16,
}

const FIRST_STATUS: u16 = 400;
const LAST_STATUS: u16 = 599;

const CONNECT_FAILURE: u16 = 1;
const REFUSED_STREAM: u16 = 1 << 1;
const RESET: u16 = 1 << 2;
const TIMEOUT: u16 = 1 << 3;
const TLS_FAILURE: u16 = 1 << 4;
// Those of gRPC are last: see `names_grpc`.
const GRPC_CANCELLED: u16 = 1 << 5;
const GRPC_DEADLINE_EXCEEDED: u16 = 1 << 6;
const GRPC_INTERNAL: u16 = 1 << 7;
const GRPC_RESOURCE_EXHAUSTED: u16 = 1 << 8;
const GRPC_UNAVAILABLE: u16 = 1 << 9;
const NAMES: [(&str, u16); 10] = [
    ("connect_failure", CONNECT_FAILURE),
    ("tls_failure", TLS_FAILURE),
    ("refused_stream", REFUSED_STREAM),
    ("reset", RESET),
    ("timeout", TIMEOUT),
    ("grpc_cancelled", GRPC_CANCELLED),
    ("grpc_deadline_exceeded", GRPC_DEADLINE_EXCEEDED),
    ("grpc_internal", GRPC_INTERNAL),
    ("grpc_resource_exhausted", GRPC_RESOURCE_EXHAUSTED),
    ("grpc_unavailable", GRPC_UNAVAILABLE),
];

impl Conditions {
    const EMPTY: Conditions = Conditions { statuses: [0; 4], named: 0 };

    /// What a breaker counts as a failure by default.
    pub const FAILURES: Conditions = Conditions::EMPTY
        .and_named(CONNECT_FAILURE | RESET | TIMEOUT)
        .and_named(GRPC_DEADLINE_EXCEEDED | GRPC_INTERNAL | GRPC_UNAVAILABLE)
        .and_statuses(500, 500)
        .and_statuses(502, 504);

    /// What is retried by default: connection failures, and 502, 503 and 504. Not `timeout`,
    /// because another attempt doubles the load on an upstream that is too slow already.
    pub const RETRYABLE: Conditions = Conditions::EMPTY
        .and_named(CONNECT_FAILURE | REFUSED_STREAM | RESET)
        .and_statuses(502, 504);

    /// Whether `outcome` is in the set.
    pub const fn matches(&self, outcome: Outcome) -> bool {
        let bits = match outcome {
            Outcome::Response(status) => return self.has_status(status),
            Outcome::ConnectFailure => CONNECT_FAILURE,
            Outcome::TlsFailure => CONNECT_FAILURE | TLS_FAILURE,
            Outcome::ConnectTimeout => CONNECT_FAILURE | TIMEOUT,
            Outcome::RefusedStream => REFUSED_STREAM,
            Outcome::Reset | Outcome::Protocol => RESET,
            Outcome::Timeout => TIMEOUT,
            Outcome::Grpc(CANCELLED) => GRPC_CANCELLED,
            Outcome::Grpc(DEADLINE_EXCEEDED) => GRPC_DEADLINE_EXCEEDED,
            Outcome::Grpc(INTERNAL) => GRPC_INTERNAL,
            Outcome::Grpc(RESOURCE_EXHAUSTED) => GRPC_RESOURCE_EXHAUSTED,
            Outcome::Grpc(UNAVAILABLE) => GRPC_UNAVAILABLE,
            Outcome::Grpc(_) => 0,
        };
        self.named & bits != 0
    }

    /// Whether the set contains a gRPC status.
    pub const fn names_grpc(&self) -> bool {
        self.named >= GRPC_CANCELLED
    }

    const fn has_status(&self, status: u16) -> bool {
        if status < FIRST_STATUS || status > LAST_STATUS {
            return false;
        }
        let bit = (status - FIRST_STATUS) as usize;
        self.statuses[bit / 64] & (1 << (bit % 64)) != 0
    }

    const fn and_named(mut self, bits: u16) -> Self {
        self.named |= bits;
        self
    }

    /// Adds `first..=last`; callers keep this within 400..=599.
    const fn and_statuses(mut self, first: u16, last: u16) -> Self {
        let mut status = first;
        while status <= last {
            let bit = (status - FIRST_STATUS) as usize;
            self.statuses[bit / 64] |= 1 << (bit % 64);
            status += 1;
        }
        self
    }

    fn and_condition(self, condition: &str) -> Result<Self, String> {
        if let Some((_, bits)) = NAMES.iter().find(|(name, _)| *name == condition) {
            return Ok(self.and_named(*bits));
        }
        match condition {
            "4xx" => Ok(self.and_statuses(400, 499)),
            "5xx" => Ok(self.and_statuses(500, 599)),
            other => match other.parse::<u64>() {
                Ok(status) => self.and_status(status),
                Err(_) => Err(format!(
                    "unknown condition `{other}`, expected a status from 400 to 599, 4xx, 5xx, \
                     connect_failure, tls_failure, refused_stream, reset, timeout, \
                     grpc_cancelled, grpc_deadline_exceeded, grpc_internal, grpc_resource_exhausted or \
                     grpc_unavailable"
                )),
            },
        }
    }

    fn and_status(self, status: u64) -> Result<Self, String> {
        let wrong = || format!("status {status} is not a failure, expected one from 400 to 599");
        let status = u16::try_from(status).map_err(|_| wrong())?;
        if !(FIRST_STATUS..=LAST_STATUS).contains(&status) {
            return Err(wrong());
        }
        Ok(self.and_statuses(status, status))
    }
}

impl fmt::Display for Conditions {
    /// Prints a list that parses to the same set: names, then statuses, whole classes as `5xx`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, _) in NAMES.iter().filter(|(_, bits)| self.named & bits != 0) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        for class in [4, 5] {
            let statuses = class * 100..=class * 100 + 99;
            if statuses.clone().all(|status| self.has_status(status)) {
                write!(f, "{separator}{class}xx")?;
                separator = ", ";
                continue;
            }
            for status in statuses.filter(|status| self.has_status(*status)) {
                write!(f, "{separator}{status}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Conditions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conditions such as [503, 5xx, timeout]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Conditions, A::Error> {
        let mut conditions = Conditions::EMPTY;
        while let Some(Condition(more)) = list.next_element()? {
            conditions = conditions.and_named(more.named);
            for (have, add) in conditions.statuses.iter_mut().zip(more.statuses) {
                *have |= add;
            }
        }
        if conditions == Conditions::EMPTY {
            return Err(de::Error::custom("must name at least one condition, such as 5xx"));
        }
        Ok(conditions)
    }
}

/// One entry of the list; parsed on its own, so that an error points at the entry.
struct Condition(Conditions);

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConditionVisitor)
    }
}

struct ConditionVisitor;

impl Visitor<'_> for ConditionVisitor {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 503, or a name such as 5xx, timeout or grpc_unavailable")
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Condition, E> {
        Conditions::EMPTY.and_status(status).map(Condition).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, condition: &str) -> Result<Condition, E> {
        Conditions::EMPTY.and_condition(condition).map(Condition).map_err(E::custom)
    }
}

written_as!(Conditions, "Conditions", {
    "description": "Outcomes: statuses from 400 to 599, their classes, or names of failures.",
    "type": "array",
    "minItems": 1,
    "items": {
        "anyOf": [
            { "type": "integer", "minimum": FIRST_STATUS, "maximum": LAST_STATUS },
            { "type": "string", "pattern": "^\\+?0*[45][0-9][0-9]$" },
            { "enum": ["4xx", "5xx"] },
            { "enum": NAMES.map(|(name, _)| name) },
        ],
    },
});

impl serde::Serialize for Conditions {
    /// A list that reads as the same set.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string();
        serializer.collect_seq(text.split(", "))
    }
}

#[cfg(test)]
mod tests;
