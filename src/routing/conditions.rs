//! What else a route asks of a request: of its headers, its query and its cookies, and of the client's
//! certificate.
//!
//! A request must meet every condition of a route. Of the routes with the same host and path, those with
//! more conditions go first; of as many, those with more exact values, then with more prefixes, then with
//! the longer prefixes (`Rank`). So a route whose requests are a part of another's always goes
//! before it. Two routes of one rank must not meet in a request: see `Conditions::overlap`.
//!
//! Of several values under one name the first counts. Names of headers have no case, all else does.

mod written;

use std::cmp::Reverse;
use std::fmt;

use http::{HeaderMap, HeaderName, Method};

pub use self::written::{Cookie, Header, Parameter, Tests};
use super::criteria::{Match, Scheme};
use crate::fields::{self, Encoded};
use crate::identity::{Peer, pattern as peer};

/// What a request says of itself, apart from its host and path.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As sent, or as a preflight asks about it.
    pub method: &'a Method,
    /// `None` for a preflight (Fetch, section 4.8), which carries neither headers nor cookies of the request
    /// it is for: conditions on them count as met.
    pub headers: Option<&'a HeaderMap>,
    /// As sent.
    pub query: Option<&'a str>,
    /// `None` if it is not known: then only routes without a scheme match.
    pub scheme: Option<Scheme>,
    /// The name of the listener it has come in by. `None` if it is not known: then only routes without one
    /// match.
    pub listener: Option<&'a str>,
    /// Whom the certificate of the connection names; `None` if there is none, or it has expired. It plays no part in a
    /// preflight, which carries none.
    pub certificate: Option<&'a Peer>,
}

impl<'a> Asked<'a> {
    /// A request of which nothing but the method is known.
    pub fn of(method: &'a Method) -> Self {
        Asked {
            method,
            headers: None,
            query: None,
            scheme: None,
            listener: None,
            certificate: None,
        }
    }
}

/// All conditions of a route; usually none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions(Box<[Condition]>);

/// One value of a request, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which value.
    pub place: Place,
    /// What it must be.
    pub test: Test,
}

/// Where a value lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The first field of this name.
    Header(HeaderName),
    /// The first parameter of this name, decoded: `%` begins an octet, `+` is a blank.
    Query(Box<str>),
    /// The first cookie of this name, without quotes around it; see [`fields::cookie`].
    Cookie(Box<str>),
    /// The client's certificate; its names are the values.
    Certificate,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// This, as a whole.
    Exact(Box<str>),
    /// Something that begins with this, which is not empty.
    Prefix(Box<str>),
    /// Anything, even empty.
    Present,
    /// There is none.
    Absent,
    /// Of a certificate: one of its names matches one of these.
    Named(Box<[peer::Pattern]>),
}

/// How specific conditions are; the more specific are less, so that they come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank([Reverse<usize>; 4]);

impl Conditions {
    /// Those of a route.
    pub fn of(criteria: &Match) -> Self {
        let Match {
            listener: _,
            headers,
            query,
            cookies,
            client_certificate,
            scheme: _,
            host: _,
            path: _,
            methods: _,
            slashes: _,
        } = criteria;
        let condition = |place, test: &Test| Condition { place, test: test.clone() };
        let headers = headers.iter().map(|(name, t)| condition(Place::Header(name.0.clone()), t));
        let query = query.iter().map(|(name, t)| condition(Place::Query(name.0.clone()), t));
        let cookies = cookies.iter().map(|(name, t)| condition(Place::Cookie(name.0.clone()), t));
        let named = client_certificate
            .values()
            .map(|names| Condition { place: Place::Certificate, test: Test::Named(names.into()) });
        Conditions(headers.chain(query).chain(cookies).chain(named).collect())
    }

    /// One by one: headers, query, cookies, the certificate.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request meets all.
    pub(super) fn hold(&self, asked: &Asked<'_>) -> bool {
        self.0.iter().all(|condition| condition.holds(asked))
    }

    pub(super) fn rank(&self) -> Rank {
        let count = |is: fn(&Test) -> bool| self.0.iter().filter(|one| is(&one.test)).count();
        let prefixes = self.0.iter().map(|condition| match &condition.test {
            Test::Prefix(text) => text.len(),
            Test::Named(names) if !condition.test.is_exact() => {
                names.iter().map(peer::Pattern::specificity).min().unwrap_or_default()
            }
            Test::Exact(_) | Test::Present | Test::Absent | Test::Named(_) => 0,
        });
        let exact = count(Test::is_exact);
        let begun = count(|test| matches!(test, Test::Prefix(_)));
        Rank([self.0.len(), exact, begun, prefixes.sum()].map(Reverse))
    }

    /// Whether a request can meet these and `other`: no value is asked to be two things at once.
    pub(super) fn overlap(&self, other: &Conditions) -> bool {
        let meet = |ours: &Condition| {
            let same = other.0.iter().find(|theirs| theirs.place == ours.place);
            same.is_none_or(|theirs| ours.test.meets(&theirs.test))
        };
        self.0.iter().all(meet)
    }

    /// Whether every request that meets these meets `other`.
    pub(super) fn imply(&self, other: &Conditions) -> bool {
        other.0.iter().all(|theirs| {
            let same = self.0.iter().find(|ours| ours.place == theirs.place);
            same.is_some_and(|ours| ours.test.implies(&theirs.test))
        })
    }
}

impl Condition {
    fn holds(&self, asked: &Asked<'_>) -> bool {
        let test = &self.test;
        match (&self.place, asked.headers) {
            (Place::Header(_) | Place::Cookie(_) | Place::Certificate, None) => true,
            (Place::Certificate, Some(_)) => {
                asked.certificate.is_some_and(|certificate| test.names(certificate))
            }
            (Place::Header(name), Some(headers)) => {
                test.octets(headers.get(name).map(|value| value.as_bytes()))
            }
            (Place::Cookie(name), Some(headers)) => test.octets(fields::cookie(headers, name)),
            (Place::Query(name), _) => {
                test.encoded(asked.query.and_then(|query| fields::parameter(query, name)))
            }
        }
    }
}

impl Test {
    fn octets(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Test::Exact(text), Some(value)) => value == text.as_bytes(),
            (Test::Prefix(text), Some(value)) => value.starts_with(text.as_bytes()),
            (Test::Present, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::Exact(_) | Test::Prefix(_), None) | (Test::Named(_), _) => false,
        }
    }

    /// Whether one of the names of `certificate` is meant. A common name does not count: authorities differ in who
    /// may choose it.
    fn names(&self, certificate: &Peer) -> bool {
        match self {
            Test::Named(patterns) => {
                certificate.names(false).any(|name| patterns.iter().any(|p| p.matches(name)))
            }
            Test::Exact(_) | Test::Prefix(_) | Test::Present | Test::Absent => false,
        }
    }

    /// Whether it says the whole value, or all of the names.
    fn is_exact(&self) -> bool {
        match self {
            Test::Exact(_) => true,
            Test::Named(names) => names.iter().all(peer::Pattern::is_exact),
            Test::Prefix(_) | Test::Present | Test::Absent => false,
        }
    }

    fn encoded(&self, value: Option<Encoded<'_>>) -> bool {
        match (self, value) {
            (Test::Exact(text), Some(value)) => value.is(text.as_bytes()),
            (Test::Prefix(text), Some(value)) => value.begins_with(text.as_bytes()),
            (Test::Present, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::Exact(_) | Test::Prefix(_), None) | (Test::Named(_), _) => false,
        }
    }

    /// Whether a value can pass both.
    fn meets(&self, other: &Test) -> bool {
        match (self, other) {
            // Of several names that a certificate may have, one is looked at.
            (Test::Named(ours), Test::Named(theirs)) => {
                ours.iter().any(|a| theirs.iter().any(|b| a.meets(b)))
            }
            (Test::Named(_), _) | (_, Test::Named(_)) => false,
            (Test::Absent, other) => *other == Test::Absent,
            (_, Test::Absent) => false,
            (Test::Present, _) | (_, Test::Present) => true,
            (Test::Prefix(a), Test::Prefix(b)) => a.starts_with(&**b) || b.starts_with(&**a),
            _ => self.implies(other) || other.implies(self),
        }
    }

    /// Whether every value that passes this passes `other`.
    fn implies(&self, other: &Test) -> bool {
        match (self, other) {
            (Test::Named(ours), Test::Named(theirs)) => {
                ours.iter().all(|a| theirs.iter().any(|b| a.implies(b)))
            }
            (Test::Named(_), _) | (_, Test::Named(_)) => false,
            (Test::Exact(ours), Test::Exact(theirs)) => ours == theirs,
            (Test::Exact(ours) | Test::Prefix(ours), Test::Prefix(theirs)) => {
                ours.starts_with(&**theirs)
            }
            (Test::Exact(_) | Test::Prefix(_) | Test::Present, Test::Present) => true,
            (Test::Absent, Test::Absent) => true,
            (Test::Prefix(_) | Test::Present, Test::Exact(_))
            | (Test::Present, Test::Prefix(_)) => false,
            (Test::Absent, _) | (_, Test::Absent) => false,
        }
    }
}

/// `header x-version = 2`, `no cookie beta`, `query v begins with 2.`, `certificate of a.shop or *.b.shop`
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Condition { place, test } = self;
        let (kind, name) = (place.kind(), place.name());
        match test {
            Test::Exact(text) => write!(f, "{kind} {name} = {text}"),
            Test::Prefix(text) => write!(f, "{kind} {name} begins with {text}"),
            Test::Present => write!(f, "{kind} {name}"),
            Test::Absent => write!(f, "no {kind} {name}"),
            Test::Named(names) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                write!(f, "certificate of {}", names.join(" or "))
            }
        }
    }
}

impl Place {
    /// `header`, `query`, `cookie` or `client_certificate`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Place::Header(_) => "header",
            Place::Query(_) => "query",
            Place::Cookie(_) => "cookie",
            Place::Certificate => "client_certificate",
        }
    }

    /// The name of the value; empty for a certificate, of which there is one.
    pub fn name(&self) -> &str {
        match self {
            Place::Header(name) => name.as_str(),
            Place::Query(name) | Place::Cookie(name) => name,
            Place::Certificate => "",
        }
    }
}

#[cfg(test)]
mod tests;
