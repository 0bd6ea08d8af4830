//! A caller as `permit` names one: by a name in a certificate, or by the name that an authority gives it.
//!
//! The same text may be a name in a certificate, a token's subject and the owner of a key, and a client that
//! chooses one of them must not get what was meant for another. So what is written as a name of certificates
//! is one of certificates alone, and any other name is that of one authority, or it is refused.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::identity::{Consumer, Identity};
use crate::identity::pattern::{self, Pattern};

const SPIFFE: &str = "spiffe://";

/// A caller as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// `spiffe://prod/ns/shop/*`, `*.shop.internal`: all that have such a name in a certificate.
    Certified(Pattern),
    /// `acme`: a consumer, by its whole name.
    Named(Consumer),
    /// `{auth: partners, name: acme}`: a consumer of this authority. Of one that accepts certificates the
    /// name is a pattern.
    Of {
        /// The entry of `auth`.
        authority: String,
        /// As the authority names it.
        name: String,
    },
}

/// An authority that the route accepts, and how it names its callers.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// The entry of `auth`.
    pub authority: &'a str,
    /// By what.
    pub names: Names,
}

/// How an authority names its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// By a name in a certificate.
    Certified {
        /// Whether common names count.
        common_name: bool,
    },
    /// By a text of its own.
    Own,
}

/// Why the route cannot have this caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// It is one of an authority that the route does not accept.
    #[error("`auth.require` does not accept `{0}`")]
    NotAccepted(String),
    /// It is a name in a certificate, and the route accepts none.
    #[error("only certificates have such names, and `auth.require` accepts none")]
    NoCertificates,
    /// More than one authority may have named it.
    #[error("`{name}` may be a caller of {}", .among.join(" or of "))]
    Ambiguous {
        /// As it is written.
        name: String,
        /// The entries of `auth`.
        among: Vec<String>,
    },
    /// It cannot be a name there.
    #[error("{0}")]
    Invalid(String),
}

/// A caller of a route, compiled.
#[derive(Debug)]
pub(super) struct Meant {
    /// Any of these has named it.
    authorities: Box<[Box<str>]>,
    whom: Whom,
}

#[derive(Debug)]
enum Whom {
    Certified(Pattern),
    Named(Consumer),
}

impl Caller {
    /// Who that is on a route that accepts these authorities.
    ///
    /// # Errors
    /// It is no caller of theirs, or which one is not clear.
    pub(super) fn resolve(&self, accepted: &[Accepted<'_>]) -> Result<Meant, Unclear> {
        let certifying = accepted.iter().filter(|one| one.names != Names::Own);
        match self {
            Caller::Certified(pattern) => {
                let authorities: Box<[_]> = certifying.map(|one| one.authority.into()).collect();
                if authorities.is_empty() {
                    return Err(Unclear::NoCertificates);
                }
                Ok(Meant { authorities, whom: Whom::Certified(pattern.clone()) })
            }
            Caller::Of { authority, name } => {
                let of = accepted.iter().find(|one| one.authority == authority);
                let of = of.ok_or_else(|| Unclear::NotAccepted(authority.clone()))?;
                let whom = match of.names {
                    Names::Certified { .. } => name.parse().map(Whom::Certified),
                    Names::Own => name.parse().map(Whom::Named),
                };
                let whom = whom.map_err(Unclear::Invalid)?;
                Ok(Meant { authorities: [authority.as_str().into()].into(), whom })
            }
            Caller::Named(name) => {
                let own = accepted.iter().filter(|one| one.names == Names::Own);
                let mut among: Vec<&str> = own.map(|one| one.authority).collect();
                let by_key = !among.is_empty();
                let dotted = name.as_str().contains('.') && pattern::is_dns(name.as_str());
                let may = |names| dotted || names == Names::Certified { common_name: true };
                among.extend(
                    certifying.filter(|of| !by_key || may(of.names)).map(|of| of.authority),
                );
                if by_key && among.len() > 1 {
                    let among = among.iter().map(|name| format!("auth.{name}")).collect();
                    return Err(Unclear::Ambiguous { name: name.to_string(), among });
                }
                let whom = match by_key {
                    true => Whom::Named(name.clone()),
                    false => Whom::Certified(name.as_str().parse().map_err(Unclear::Invalid)?),
                };
                Ok(Meant { authorities: among.into_iter().map(Box::from).collect(), whom })
            }
        }
    }

    /// Whether it is clear who that is on a route that accepts these authorities.
    ///
    /// # Errors
    /// It is no caller of theirs, or which one is not clear.
    pub fn check(&self, accepted: &[Accepted<'_>]) -> Result<(), Unclear> {
        self.resolve(accepted).map(|_| ())
    }

    /// The whole name by which this authority would know it; `None` if it is one of a certificate, or of another
    /// authority.
    pub fn consumer_of(&self, authority: &str) -> Option<&str> {
        match self {
            Caller::Certified(_) => None,
            Caller::Named(name) => Some(name.as_str()),
            Caller::Of { authority: of, name } => (of == authority).then_some(name),
        }
    }

    /// The pattern by which this authority, which accepts certificates, would know it; `None` if it is another
    /// authority's. `by_name`: plain names are names in certificates there.
    pub fn pattern_of(&self, authority: &str, by_name: bool) -> Option<Pattern> {
        match self {
            Caller::Certified(pattern) => Some(pattern.clone()),
            Caller::Named(name) => by_name.then(|| name.as_str().parse().ok()).flatten(),
            Caller::Of { authority: of, name } => {
                (of == authority).then(|| name.parse().ok()).flatten()
            }
        }
    }
}

impl Meant {
    pub(super) fn is(&self, identity: &Identity) -> bool {
        let is_meant = match (&self.whom, identity.certified()) {
            (Whom::Certified(pattern), Some(name)) => pattern.matches(name),
            (Whom::Named(name), None) => name.as_str() == identity.consumer(),
            (Whom::Certified(_), None) | (Whom::Named(_), Some(_)) => false,
        };
        is_meant && self.authorities.iter().any(|name| **name == *identity.authority())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Certified(pattern) => pattern.fmt(f),
            Caller::Named(name) => name.fmt(f),
            Caller::Of { authority, name } => write!(f, "{name} of auth.{authority}"),
        }
    }
}

/// A consumer of one authority.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CallerOf")]
struct Written {
    /// The entry of `auth` that names it so; one of `auth.require`.
    auth: String,
    /// Its whole name; of an entry with `client_certificate`, a pattern as in `allow`.
    name: String,
}

impl<'de> Deserialize<'de> for Caller {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrMap;

        impl<'de> Visitor<'de> for NameOrMap {
            type Value = Caller;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a caller's name, or a map of auth and name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Caller, E> {
                let scheme = text.get(..SPIFFE.len());
                let is_spiffe = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE));
                if is_spiffe || text.contains('*') {
                    return text.parse().map(Caller::Certified).map_err(E::custom);
                }
                text.parse().map(Caller::Named).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Caller, A::Error> {
                let Written { auth, name } = Written::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Caller::Of { authority: auth, name })
            }
        }

        deserializer.deserialize_any(NameOrMap)
    }
}

impl schemars::JsonSchema for Caller {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Caller".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let of = generator.subschema_for::<Written>();
        schemars::json_schema!({
            "description": "A name in a certificate as a pattern, such as `spiffe://prod/ns/shop/*` or `*.shop.internal`; the whole name of a consumer; or `{auth: NAME, name: …}`.",
            "anyOf": [{ "type": "string", "minLength": 1 }, of],
        })
    }
}
