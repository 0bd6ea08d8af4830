//! What became of an attempt, and sets of such outcomes.
//!
//! [`Outcome`] is the one class an attempt falls into; breaker and retry both read it through
//! [`Conditions`], the compiled form of `failure_on:` and `on:`. Classifying an attempt is left
//! to `proxy`; what follows from it is left to the policies.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// The class of one attempt. A client that went away and our own refusals have none: nobody
/// learns anything about the upstream from them, so their permits are dropped unrecorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream answered with this status.
    Response(u16),
    /// No connection, or one that was lost before the first byte was written to it.
    ConnectFailure,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// HTTP/2: the upstream says it has not looked at the request (`REFUSED_STREAM`, or a stream
    /// beyond the last one of a `GOAWAY`).
    RefusedStream,
    /// The connection broke off before the response headers were complete.
    Reset,
    /// No response within the attempt timeout.
    Timeout,
    /// The upstream answered something that is not HTTP.
    Protocol,
}

impl Outcome {
    /// Whether no upstream can have acted on the request, so that sending it again is not
    /// sending it twice.
    pub const fn provably_unsent(self) -> bool {
        match self {
            Outcome::ConnectFailure | Outcome::ConnectTimeout | Outcome::RefusedStream => true,
            Outcome::Response(_) | Outcome::Reset | Outcome::Timeout | Outcome::Protocol => false,
        }
    }

    /// The metric label: a status by its class, so that labels stay few.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Response(100..=199) => "1xx",
            Outcome::Response(200..=299) => "2xx",
            Outcome::Response(300..=399) => "3xx",
            Outcome::Response(400..=499) => "4xx",
            Outcome::Response(500..=599) => "5xx",
            Outcome::Response(_) => "other",
            Outcome::ConnectFailure => "connect_failure",
            Outcome::ConnectTimeout => "connect_timeout",
            Outcome::RefusedStream => "refused_stream",
            Outcome::Reset => "reset",
            Outcome::Timeout => "timeout",
            Outcome::Protocol => "protocol",
        }
    }
}

/// A set of outcomes, as a list names it: statuses from 400 to 599 (`503`), their classes
/// (`4xx`, `5xx`), `connect_failure`, `refused_stream`, `reset` (broken off, or not HTTP) and
/// `timeout`. A connect timeout is both a `connect_failure` and a `timeout`.
///
/// One bit per status: a look-up costs the same however long the list was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    statuses: [u64; 4],
    transport: u8,
}

const FIRST_STATUS: u16 = 400;
const LAST_STATUS: u16 = 599;

const CONNECT_FAILURE: u8 = 1;
const REFUSED_STREAM: u8 = 1 << 1;
const RESET: u8 = 1 << 2;
const TIMEOUT: u8 = 1 << 3;
const NAMES: [(&str, u8); 4] = [
    ("connect_failure", CONNECT_FAILURE),
    ("refused_stream", REFUSED_STREAM),
    ("reset", RESET),
    ("timeout", TIMEOUT),
];

impl Conditions {
    const EMPTY: Conditions = Conditions { statuses: [0; 4], transport: 0 };

    /// What a breaker counts as a failure unless it is told otherwise.
    pub const FAILURES: Conditions = Conditions::EMPTY
        .and_transport(CONNECT_FAILURE | RESET | TIMEOUT)
        .and_statuses(500, 500)
        .and_statuses(502, 504);

    /// What is retried unless a route says otherwise: refusals of a gateway or a connection.
    /// Not `timeout`, because a second try doubles the load on whatever is too slow already.
    pub const RETRYABLE: Conditions = Conditions::EMPTY
        .and_transport(CONNECT_FAILURE | REFUSED_STREAM | RESET)
        .and_statuses(502, 504);

    /// Whether `outcome` is in the set.
    pub const fn matches(&self, outcome: Outcome) -> bool {
        let bits = match outcome {
            Outcome::Response(status) => return self.has_status(status),
            Outcome::ConnectFailure => CONNECT_FAILURE,
            Outcome::ConnectTimeout => CONNECT_FAILURE | TIMEOUT,
            Outcome::RefusedStream => REFUSED_STREAM,
            Outcome::Reset | Outcome::Protocol => RESET,
            Outcome::Timeout => TIMEOUT,
        };
        self.transport & bits != 0
    }

    const fn has_status(&self, status: u16) -> bool {
        if status < FIRST_STATUS || status > LAST_STATUS {
            return false;
        }
        let bit = (status - FIRST_STATUS) as usize;
        self.statuses[bit / 64] & (1 << (bit % 64)) != 0
    }

    const fn and_transport(mut self, bits: u8) -> Self {
        self.transport |= bits;
        self
    }

    /// Adds `first..=last`, which the callers keep within 400..=599.
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
            return Ok(self.and_transport(*bits));
        }
        match condition {
            "4xx" => Ok(self.and_statuses(400, 499)),
            "5xx" => Ok(self.and_statuses(500, 599)),
            other => match other.parse::<u64>() {
                Ok(status) => self.and_status(status),
                Err(_) => Err(format!(
                    "unknown condition `{other}`, expected a status from 400 to 599, 4xx, 5xx, \
                     connect_failure, refused_stream, reset or timeout"
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
    /// As the list that says the same: names, then statuses, whole classes as `5xx`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, _) in NAMES.iter().filter(|(_, bits)| self.transport & bits != 0) {
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
            conditions = conditions.and_transport(more.transport);
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
        f.write_str("a status such as 503, or one of 4xx, 5xx, connect_failure, refused_stream, reset, timeout")
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Condition, E> {
        Conditions::EMPTY.and_status(status).map(Condition).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, condition: &str) -> Result<Condition, E> {
        Conditions::EMPTY.and_condition(condition).map(Condition).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Conditions, String> {
        serde_yaml::from_str(list).map_err(|e| e.to_string())
    }

    #[test]
    fn a_list_matches_exactly_what_it_names() {
        let conditions = parse("[429, '503', timeout]").expect("valid");
        for status in 0..=999 {
            let named = status == 429 || status == 503;
            assert_eq!(conditions.matches(Outcome::Response(status)), named, "{status}");
        }
        assert!(conditions.matches(Outcome::Timeout));
        assert!(!conditions.matches(Outcome::Reset));
        assert!(!conditions.matches(Outcome::RefusedStream));
    }

    #[test]
    fn a_class_is_all_its_statuses() {
        let conditions = parse("[5xx]").expect("valid");
        assert!((500..=599).all(|status| conditions.matches(Outcome::Response(status))));
        assert!(!(0..500).any(|status| conditions.matches(Outcome::Response(status))));
    }

    #[test]
    fn a_connect_timeout_is_a_connect_failure_and_a_timeout() {
        for list in ["[connect_failure]", "[timeout]"] {
            assert!(parse(list).expect("valid").matches(Outcome::ConnectTimeout), "{list}");
        }
        assert!(!parse("[reset]").expect("valid").matches(Outcome::ConnectTimeout));
    }

    #[test]
    fn an_unknown_condition_is_told_what_there_is() {
        let error = parse("[503, timeuot]").expect_err("misspelt");
        assert!(error.contains("`timeuot`") && error.contains("timeout"), "{error}");
    }

    #[test]
    fn a_success_cannot_be_named_a_failure() {
        for list in ["[200]", "[304]", "[600]", "['200']", "[99999]", "[2xx]", "[]"] {
            assert!(parse(list).is_err(), "{list}");
        }
    }

    #[test]
    fn a_set_prints_as_the_list_that_makes_it() {
        let set = parse("[timeout, 5xx, 429, reset]").expect("valid");
        assert_eq!(set.to_string(), "reset, timeout, 429, 5xx");
        assert_eq!(parse(&format!("{set:?}")), Ok(set));
    }
}
