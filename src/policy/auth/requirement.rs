//! A route's `auth:` as the operator configures it, compiled into a `Guard`.

use std::fmt;
use std::str::FromStr;

use super::permit::{self, Permit};
use crate::units::schema::{self, written_as};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::policy::dry_run::Enforce;

/// What a route requires of its clients.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The entries of `auth:` whose credentials are accepted: one or a list, of which any one is
    /// enough.
    pub require: Authorities,
    /// Scopes that the credentials must carry, 403 without; default: none.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Whether all of `scopes` are needed; default `all`.
    #[serde(default)]
    pub scopes_match: ScopesMatch,
    /// The role that the credentials must carry, 403 without; absent: any or none.
    #[serde(default)]
    pub role: Option<String>,
    /// Which callers may make which calls: at least one entry, of which one must permit the call, 403 without.
    /// Paths of `anonymous` are not asked about. Default: every caller may make every call of the route.
    #[serde(default, deserialize_with = "permit::some")]
    #[schemars(length(min = 1))]
    pub permit: Vec<Permit>,
    /// Paths that need no credentials, by their first segments; default: none.
    #[serde(default)]
    pub anonymous: Vec<Prefix>,
    /// Whether the upstream gets the credentials too; default: no.
    #[serde(default)]
    pub forward_credentials: bool,
    /// `false`: requests that would be refused are counted in `would_refuse_total`, and pass
    /// without an identity, as on a path of `anonymous`. The upstream gets all credentials as the
    /// client sent them. Default `true`.
    #[serde(default)]
    pub enforce: Enforce,
}

/// How many of the route's scopes a client must have.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ScopesMatch {
    /// Every one of them.
    #[default]
    All,
    /// At least one of them.
    Any,
}

/// Names of authorities: one, or a list, in the order they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities(Vec<String>);

impl Authorities {
    /// In the order they are tried; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Authorities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Authorities;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name from `auth`, or a list of them")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Authorities, E> {
                Ok(Authorities(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Authorities, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                if names.is_empty() {
                    return Err(de::Error::custom(
                        "require: name at least one entry of `auth`; a route open to all has no \
                         `auth` at all",
                    ));
                }
                Ok(Authorities(names))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// A scope as in RFC 6749, section 3.3: visible ASCII without space, `"` and `\`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.is_empty() || !text.bytes().all(fits) {
            return Err("a scope is one word of visible ASCII without quotes or backslash; write \
                        several as a list"
                .to_owned());
        }
        Ok(Scope(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A path and everything below it, by whole segments: `/health` covers `/health` and `/health/db`,
/// but not `/healthX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `path` must be canonical, so that the path compared is the path forwarded.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(segments) = text.strip_prefix('/') else {
            return Err("a path begins with /, such as /health".to_owned());
        };
        let segments = segments.strip_suffix('/').unwrap_or(segments);
        if segments.is_empty() {
            return Err("/ would open the whole route: leave `auth` out of it instead".to_owned());
        }
        if segments.split('/').any(|s| matches!(s, "" | "." | "..")) {
            return Err("a path has no empty, `.` or `..` segments".to_owned());
        }
        if segments.contains(['?', '#', '*']) {
            return Err("expected a plain path prefix, such as /health: it covers everything \
                        below it without a wildcard"
                .to_owned());
        }
        Ok(Prefix(format!("/{segments}").into()))
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

written_as!(Scope, "Scope", {
    "description": "One word of visible ASCII without quotes or backslash.",
    "type": "string",
    "pattern": "^[!#-\\[\\]-~]+$",
});

written_as!(Prefix, "OpenPath", {
    "description": "A path; it covers everything below it, by whole segments.",
    "type": "string",
    "pattern": "^/.",
});

impl schemars::JsonSchema for Authorities {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Authorities".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::one_or_many::<String>(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(yaml: &str) -> Result<Requirement, serde_yaml::Error> {
        serde_yaml::from_str(yaml)
    }

    #[test]
    fn one_authority_or_a_list_of_them_is_required() {
        let names = |yaml| {
            let authorities = requirement(yaml).expect(yaml).require;
            authorities.iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names("{require: accounts}"), ["accounts"]);
        assert_eq!(names("{require: [accounts, partners]}"), ["accounts", "partners"]);
        assert!(requirement("{require: []}").is_err());
        assert!(requirement("{}").is_err());
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let health: Prefix = "/health".parse().expect("a prefix");
        for open in ["/health", "/health/", "/health/db"] {
            assert!(health.covers(open), "{open}");
        }
        for closed in ["/healthX", "/", "/api/health", "/Health", "/healt", ""] {
            assert!(!health.covers(closed), "{closed}");
        }
    }

    #[test]
    fn a_trailing_slash_does_not_change_a_prefix() {
        assert_eq!("/health/".parse::<Prefix>(), "/health".parse());
    }

    #[test]
    fn a_prefix_that_says_something_else_than_it_looks_is_refused() {
        for wrong in ["", "health", "/", "//", "/a//b", "/a/../b", "/a?x", "/a/*", "/."] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_scope_cannot_break_out_of_the_challenge() {
        for wrong in ["", "a b", "a\"", "a\\", "a\r\n", "é"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong:?}");
        }
    }
}
