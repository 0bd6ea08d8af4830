//! `defaults:`, what a route does not say, and which of its keys that may be.
//!
//! [`super::load`] lays it beneath the routes: a route reads as if it said itself what its defaults
//! say. So the rest of the gateway knows only routes.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::load::{Key, KeyPath, Layering, Meets, Off, Problem, Sources};
use super::{Config, Route};
use crate::config::code::Code;

/// The key of the section.
pub(super) const SECTION: &str = "defaults";

/// Only the upstream's routes have defaults of what concerns an upstream.
const UPSTREAM: Option<&str> = Some("upstream");

const fn key(name: &'static str, meets: Meets, only_with: Option<&'static str>, off: Off) -> Key {
    Key { name, meets, only_with, off }
}

/// How routes have defaults. Sections that are one decision replace a default: half of what another
/// route requires, or of another limit, would be neither.
pub(super) static LAYERING: Layering = Layering {
    defaults: SECTION,
    things: "routes",
    keys: &[
        key("networks", Meets::Replaces, None, Off::WordAlone),
        key("auth", Meets::Replaces, None, Off::WordAlone),
        key("rate_limit", Meets::Replaces, None, Off::Word),
        key("idempotency", Meets::Merges, UPSTREAM, Off::Word),
        key("circuit_breaker", Meets::Merges, UPSTREAM, Off::Word),
        key("bulkhead", Meets::Replaces, UPSTREAM, Off::Word),
        key("timeout", Meets::Merges, None, Off::Value),
        key("retry", Meets::Merges, UPSTREAM, Off::Word),
        key("retry_info_header", Meets::Replaces, UPSTREAM, Off::Value),
        key("fallback", Meets::Replaces, UPSTREAM, Off::Word),
        key("headers", Meets::Merges, None, Off::Value),
        key("max_body", Meets::Merges, None, Off::Value),
        key("errors", Meets::Replaces, None, Off::Value),
        key("error_codes", Meets::Merges, UPSTREAM, Off::Value),
        key("status_map", Meets::Merges, UPSTREAM, Off::Value),
        key("cors", Meets::Merges, None, Off::Word),
        key("websocket", Meets::Merges, UPSTREAM, Off::Word),
        key("record", Meets::Merges, None, Off::Value),
    ],
    own: &[
        "match",
        "upstream",
        "split",
        "serve",
        "respond",
        "redirect",
        "rewrite",
        "json",
        "transcode",
    ],
};

/// What a route does not say, as a route that says nothing else.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Defaults(pub Route);

/// The defaults alone, of a file that has more.
#[derive(Deserialize)]
pub(super) struct Alone {
    #[serde(rename = "defaults")]
    _read: Option<Defaults>,
}

impl JsonSchema for Defaults {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteDefaults".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Route::json_schema(generator);
        let properties = schema.get_mut("properties").and_then(|keys| keys.as_object_mut());
        if let Some(properties) = properties {
            properties.retain(|key, _| !LAYERING.own.contains(&key.as_str()));
        }
        schema.insert("description".to_owned(), "What a route does not say.".into());
        schema
    }
}

/// The problems that `check` finds in the routes, whose names it gets, and in the defaults, which have
/// none. A problem that routes have from the defaults alone is told once, as that of the defaults.
pub(super) fn problems(
    config: &Config,
    sources: &Sources,
    check: impl Fn(Option<&str>, &Route) -> Vec<Problem>,
) -> Vec<Problem> {
    let alone = check(None, &config.defaults.0);
    let mut told: Vec<bool> = alone.iter().map(|problem| is_complete(problem.code)).collect();
    let mut problems = Vec::new();
    for (name, route) in &config.routes {
        for problem in check(Some(name), route) {
            let is_same = |of_defaults: &Problem| {
                (of_defaults.code, &of_defaults.message) == (problem.code, &problem.message)
                    && of_defaults.path.steps().get(1..) == problem.path.steps().get(2..)
            };
            match alone.iter().position(is_same).filter(|_| sources.is_default(&problem.path)) {
                Some(index) => told[index] = true,
                None => problems.push(problem),
            }
        }
    }
    problems.extend(alone.into_iter().zip(told).filter(|(_, told)| *told).map(|(p, _)| p));
    problems
}

/// The path of a route, or that of the defaults.
pub(super) fn path_of(name: Option<&str>) -> KeyPath {
    match name {
        Some(name) => KeyPath::root().key(LAYERING.things).key(name),
        None => KeyPath::root().key(SECTION),
    }
}

/// The keys that may be `off`.
pub(super) fn switched_off() -> impl Iterator<Item = &'static str> {
    LAYERING.keys.iter().filter(|key| key.off != Off::Value).map(|key| key.name)
}

/// Whether it is a problem of the defaults even if no route has it: what is missing is no key of a
/// route.
fn is_complete(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownName
            | Code::TwoLimitStores
            | Code::RecordWithoutStore
            | Code::KeysWithoutStore
            | Code::HeaderOfResponse
            | Code::UnknownMethod
    )
}
