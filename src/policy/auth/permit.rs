//! Which callers may make which calls: `permit` of a route's `auth`, as it is written and compiled.

use serde::de::{self, Deserialize, Deserializer};

use http::Method;

use super::caller::{Accepted, Caller, Meant, Unclear};
use super::identity::Identity;
use crate::routing::path::other_readings;
use crate::routing::{Choice, Methods, Pattern};

/// Calls that are permitted: those that have one value each of `callers`, `methods` and `paths`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Permit {
    /// By whom.
    pub callers: Choice<Caller>,
    /// Exactly these: `GET` does not include `HEAD`.
    pub methods: Methods,
    /// By the canonical path, as it was before a `rewrite`.
    pub paths: Choice<Pattern>,
}

/// Calls that are permitted: those that have one value each of `callers`, `methods` and `paths`, of which it
/// has at least one.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Permit")]
struct Written {
    /// Who may make them: one or a list of names in a certificate by a pattern (`spiffe://prod/ns/shop/*`,
    /// `*.shop.internal`), of whole names of consumers, or of `{auth: NAME, name: …}`. Default: every caller that
    /// `require` accepts.
    #[serde(default)]
    callers: Choice<Caller>,
    /// One method or a list of them. They are compared as they are, so `GET` does not include `HEAD`. Default: any.
    #[serde(default)]
    methods: Methods,
    /// One pattern or a list of them, as in `match.path`, for the path as it was before a `rewrite`.
    /// Default: every path of the route.
    #[serde(default)]
    paths: Choice<Pattern>,
}

impl TryFrom<Written> for Permit {
    type Error = &'static str;

    fn try_from(Written { callers, methods, paths }: Written) -> Result<Self, Self::Error> {
        let is_open = callers == Choice::Any && methods == Choice::Any && paths == Choice::Any;
        if is_open {
            return Err(
                "it permits everything: name `callers`, `methods` or `paths`, or leave `permit` out",
            );
        }
        Ok(Permit { callers, methods, paths })
    }
}

/// At least one permit: without any, no call would pass.
pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Permit>, D::Error> {
    let permits = Vec::deserialize(deserializer)?;
    if permits.is_empty() {
        let empty = "an empty list permits no call: leave `permit` out to let every caller pass";
        return Err(de::Error::custom(empty));
    }
    Ok(permits)
}

/// What an authenticated caller lacks for its call, in the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpermitted {
    /// No permit is for this caller.
    Caller,
    /// There are permits for this caller, for other paths.
    Path,
    /// There are permits for this caller and the path, for other methods.
    Method,
}

impl Unpermitted {
    /// In words, for the operator.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Unpermitted::Caller => "no entry of `auth.permit` is for this caller",
            Unpermitted::Path => "the entries of `auth.permit` for this caller are for other paths",
            Unpermitted::Method => {
                "the entries of `auth.permit` for this caller and path are for other methods"
            }
        }
    }
}

/// All permits of a route.
#[derive(Debug)]
pub(super) struct Permits(Box<[Entry]>);

#[derive(Debug)]
struct Entry {
    /// `None`: every caller.
    callers: Option<Box<[Meant]>>,
    methods: Methods,
    paths: Choice<Pattern>,
}

impl Permits {
    /// For a route that accepts these authorities; `None` if it permits every call.
    ///
    /// # Errors
    /// The first caller whom none of them can name, or more than one can.
    pub(super) fn try_new(
        permits: &[Permit],
        accepted: &[Accepted<'_>],
    ) -> Result<Option<Self>, Unclear> {
        let entry = |permit: &Permit| {
            let callers = permit.callers.values();
            let callers =
                callers.map(|all| all.iter().map(|caller| caller.resolve(accepted)).collect());
            Ok(Entry {
                callers: callers.transpose()?,
                methods: permit.methods.clone(),
                paths: permit.paths.clone(),
            })
        };
        let entries: Box<[_]> = permits.iter().map(entry).collect::<Result<_, _>>()?;
        Ok((!entries.is_empty()).then_some(Permits(entries)))
    }

    /// Whether the caller may make this call. Where the path has encoded slashes or empty segments, all
    /// that a server may take it for must be permitted, too.
    ///
    /// # Errors
    /// What is lacking.
    pub(super) fn check(
        &self,
        identity: &Identity,
        method: &Method,
        path: &str,
    ) -> Result<(), Unpermitted> {
        self.look_up(identity, method, path)?;
        if path.contains("%2F") || path.contains("//") {
            return other_readings(path)
                .try_for_each(|reading| self.look_up(identity, method, &reading));
        }
        Ok(())
    }

    fn look_up(&self, identity: &Identity, method: &Method, path: &str) -> Result<(), Unpermitted> {
        let mut lack = Unpermitted::Caller;
        for Entry { callers, methods, paths } in &self.0 {
            if callers.as_ref().is_some_and(|all| !all.iter().any(|one| one.is(identity))) {
                continue;
            }
            if paths.values().is_some_and(|all| !all.iter().any(|one| one.matches(path))) {
                lack = lack.max(Unpermitted::Path);
            } else if !methods.name(method) {
                lack = Unpermitted::Method;
            } else {
                return Ok(());
            }
        }
        Err(lack)
    }
}

#[cfg(test)]
mod tests;
