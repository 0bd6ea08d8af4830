//! Fallback: what a client is answered where the upstream's own answer cannot be had.
//!
//! A status and a JSON text with a few placeholders, the same for every caller. Which refusals
//! have which cause, and writing the answer, are left to the caller.

mod template;

use serde::de::{self, Deserialize, Deserializer};

pub use template::{Template, Values};

use crate::units;

/// `fallback:` of a route.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What it stands in for; at least one cause, default all of them.
    #[serde(default = "every_cause", deserialize_with = "some_causes")]
    pub on: Vec<Cause>,
    /// 200 to 599, but none that has no body; default 503.
    #[serde(default = "default_status", deserialize_with = "status")]
    pub status: u16,
    /// The body.
    pub json: Template,
}

/// Why there is no answer of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The route's circuit or its upstream's refuses calls.
    CircuitOpen,
    /// Every slot of the bulkhead is taken.
    BulkheadFull,
    /// The last attempt failed, with an answer that would be retried or with none, and there will
    /// be no other; or there is no endpoint to try.
    AttemptsSpent,
}

impl Config {
    /// Whether it stands in for an answer that is missing for this cause.
    pub fn covers(&self, cause: Cause) -> bool {
        self.on.contains(&cause)
    }
}

impl Cause {
    /// The metric label, and the name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::CircuitOpen => "circuit_open",
            Cause::BulkheadFull => "bulkhead_full",
            Cause::AttemptsSpent => "attempts_spent",
        }
    }
}

fn every_cause() -> Vec<Cause> {
    vec![Cause::CircuitOpen, Cause::BulkheadFull, Cause::AttemptsSpent]
}

fn some_causes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cause>, D::Error> {
    let causes = Vec::deserialize(from)?;
    if causes.is_empty() {
        return Err(de::Error::custom(
            "needs at least one of circuit_open, bulkhead_full and attempts_spent",
        ));
    }
    Ok(causes)
}

fn default_status() -> u16 {
    503
}

fn status<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = units::bounded::<_, 200, 599>(from)?;
    match u16::try_from(status) {
        Ok(status) if ![204, 205, 304].contains(&status) => Ok(status),
        Ok(_) | Err(_) => {
            Err(de::Error::custom(format_args!("an answer with {status} has no body")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn it_stands_in_for_everything_unless_told_otherwise() {
        let config = parse("{json: {}}").expect("valid");
        assert!(every_cause().into_iter().all(|cause| config.covers(cause)));
        assert_eq!(config.status, 503);
        let config = parse("{on: [bulkhead_full], json: {}}").expect("valid");
        assert!(config.covers(Cause::BulkheadFull) && !config.covers(Cause::CircuitOpen));
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{}",
            "{json: {}, on: []}",
            "{json: {}, on: [rate_limited]}",
            "{json: {}, status: 199}",
            "{json: {}, status: 600}",
            "{json: {}, status: 204}",
            "{json: {}, body: x}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
