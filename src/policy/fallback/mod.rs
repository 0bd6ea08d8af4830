//! Fallback: the response to a client when the upstream gives none.
//!
//! It is another upstream's response, or a status and a JSON text with a few placeholders, the same
//! for every client. The caller maps refusals to causes, calls the other upstream and writes the
//! response.

mod template;

use serde::de::{self, Deserialize, Deserializer};

pub use template::{Template, Values};

use crate::units;

/// `fallback:` of a route.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Config {
    /// The causes it applies to; at least one, default all of them.
    pub on: Vec<Cause>,
    /// The name of the upstream that is called once instead; absent: none.
    pub upstream: Option<String>,
    /// The response if there is no such upstream, or it fails too; absent: the refusal or the
    /// upstream's response.
    pub answer: Option<Answer>,
}

/// `status:` and `json:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// 200 to 599, except statuses without a body; default 503.
    pub status: u16,
    /// The response's body.
    pub json: Template,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The causes it applies to; at least one, default all of them.
    #[serde(default = "every_cause", deserialize_with = "some_causes")]
    #[schemars(length(min = 1))]
    on: Vec<Cause>,
    /// The name of the upstream that is called once instead; absent: none.
    #[serde(default)]
    upstream: Option<String>,
    /// 200 to 599, except statuses without a body; default 503.
    #[serde(default, deserialize_with = "status")]
    #[schemars(range(min = 200, max = 599))]
    status: Option<u16>,
    /// The response if there is no such upstream, or it fails too: any JSON, whose strings may
    /// contain {route}, {upstream}, {timestamp}, {unix_ms}, {request_id} and {code}.
    // A plain `Option` would read `null`, which is a valid response, as absent.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "serde_json::Value")]
    json: Option<Template>,
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { on, upstream, status, json } = written;
        match (&upstream, status, &json) {
            (None, _, None) => return Err("needs an `upstream`, an answer (`json`), or both"),
            (Some(_), Some(_), None) => {
                return Err(
                    "status: only an answer has a status: write its `json` too, or leave `status` out",
                );
            }
            (Some(_), None, None) | (_, _, Some(_)) => {}
        }
        let answer = json.map(|json| Answer { status: status.unwrap_or(503), json });
        Ok(Config { on, upstream, answer })
    }
}

/// Why there is no response from the upstream.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The route's circuit, or that of its upstream, refuses calls.
    CircuitOpen,
    /// Every slot of the bulkhead is taken, and waiting for one was not possible or in vain.
    BulkheadFull,
    /// The last attempt failed, with a retryable response or without one, and there will be no
    /// other; or there is no endpoint to try.
    AttemptsSpent,
}

impl Config {
    /// Whether the fallback applies to this cause.
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

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Template>, D::Error> {
    Template::deserialize(from).map(Some)
}

fn status<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let status = units::bounded::<_, 200, 599>(from)?;
    match u16::try_from(status) {
        Ok(status) if ![204, 205, 304].contains(&status) => Ok(Some(status)),
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
        assert_eq!(config.answer.expect("an answer").status, 503);
        let config = parse("{on: [bulkhead_full], json: {}}").expect("valid");
        assert!(config.covers(Cause::BulkheadFull) && !config.covers(Cause::CircuitOpen));
    }

    #[test]
    fn it_is_another_upstream_or_an_answer_or_both() {
        let parts = |text: &str| {
            parse(text).map(|config| (config.upstream, config.answer.map(|answer| answer.status)))
        };
        assert_eq!(parts("{upstream: b}"), Ok((Some("b".to_owned()), None)));
        assert_eq!(parts("{upstream: b, json: null}"), Ok((Some("b".to_owned()), Some(503))));
        assert_eq!(parts("{status: 500, json: {}}"), Ok((None, Some(500))));
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{}",
            "{on: [circuit_open]}",
            "{upstream: b, status: 503}",
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
