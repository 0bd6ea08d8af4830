//! `ejection:` as the operator configures it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use crate::policy::outcome::Conditions;
use crate::units::{self, Percent, Timespan};

/// `ejection:` of an upstream: an endpoint that fails is not used for a time. `off`: never.
#[derive(Debug, Clone, PartialEq)]
pub enum Ejection {
    /// No endpoint is ejected.
    Off,
    /// Endpoints are ejected by these rules.
    On(Config),
}

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "EjectionRules")]
pub struct Config {
    /// Failures in a row that eject; up to 1000, default 5. 0: never.
    #[serde(deserialize_with = "units::bounded::<_, 0, 1000>")]
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_failures: u32,
    /// Ejects by the share of failures, compared with the other endpoints. Absent: never.
    pub window: Option<Window>,
    /// How long the first ejection lasts, up to a fifth longer at random; longer than 0, default
    /// 10 s. The time doubles with each one in a row, and halves again for each time this long
    /// without another one.
    #[serde(deserialize_with = "units::positive")]
    pub eject_for: Timespan,
    /// The longest time; longer than 0, default 5 min.
    #[serde(deserialize_with = "units::positive")]
    pub max_eject_for: Timespan,
    /// The share of the endpoints that may be ejected at the same time, but always one, and never
    /// the last that is available; default 34 %.
    pub max_ejected: Percent,
    /// Outcomes that are failures, in the words and with the default of
    /// `circuit_breaker.failure_on`.
    pub failure_on: Conditions,
}

/// `window:` of an ejection. An endpoint is ejected if its share of failures in the window reaches
/// `failure_rate` and is at least twice the share of the other endpoints together.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "EjectionWindow")]
pub struct Window {
    /// Its length; the shares are compared at the end of each. 1 s to 1 h, default 10 s.
    #[serde(deserialize_with = "window_time")]
    pub time: Timespan,
    /// The share of failures that ejects; above 0 %, default 50 %.
    #[serde(deserialize_with = "above_zero")]
    pub failure_rate: Percent,
    /// The attempts that an endpoint must have had in the window; 1 to 1,000,000, default 50.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_calls: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            consecutive_failures: 5,
            window: None,
            eject_for: Timespan::from_secs(10),
            max_eject_for: Timespan::from_secs(300),
            max_ejected: Percent::new(34),
            failure_on: Conditions::FAILURES,
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Window { time: Timespan::from_secs(10), failure_rate: Percent::new(50), minimum_calls: 50 }
    }
}

impl Ejection {
    /// The rules, if endpoints are ejected.
    pub fn rules(&self) -> Option<&Config> {
        match self {
            Ejection::Off => None,
            Ejection::On(config) => Some(config),
        }
    }
}

impl Config {
    /// How many of `count` endpoints may be ejected at the same time.
    pub(in super::super) fn most_ejected(&self, count: usize) -> usize {
        // A little is added, so that 34 % of 50 are 17 and not 16 by a rounding error.
        let share = (self.max_ejected.fraction() * count as f64 + 1e-9).floor() as usize;
        share.max(1)
    }
}

impl<'de> Deserialize<'de> for Ejection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EjectionVisitor)
    }
}

struct EjectionVisitor;

impl<'de> de::Visitor<'de> for EjectionVisitor {
    type Value = Ejection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`off`, or rules such as {consecutive_failures: 5}")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Ejection, E> {
        // What `off` is in older YAML.
        if on { Err(E::invalid_value(de::Unexpected::Bool(on), &self)) } else { Ok(Ejection::Off) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Ejection, E> {
        match text {
            "off" => Ok(Ejection::Off),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Ejection, A::Error> {
        let config = Config::deserialize(MapAccessDeserializer::new(map))?;
        if *config.max_eject_for < *config.eject_for {
            return Err(de::Error::custom("max_eject_for: must be at least `eject_for`"));
        }
        Ok(Ejection::On(config))
    }
}

impl schemars::JsonSchema for Ejection {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ejection".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let rules = generator.subschema_for::<Config>();
        schemars::json_schema!({ "anyOf": [{ "enum": ["off", false] }, rules] })
    }
}

fn window_time<'de, D: Deserializer<'de>>(from: D) -> Result<Timespan, D::Error> {
    let time = Timespan::deserialize(from)?;
    match (1..=3600).contains(&time.as_secs()) && *time <= std::time::Duration::from_secs(3600) {
        true => Ok(time),
        false => Err(de::Error::custom("must be from 1s to 1h")),
    }
}

fn above_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Percent, D::Error> {
    let rate = Percent::deserialize(from)?;
    match rate.fraction() > 0.0 {
        true => Ok(rate),
        false => Err(de::Error::custom("must be above 0%, which every window has reached")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Ejection, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn off_is_off_in_each_spelling() {
        assert_eq!(parse("off"), Ok(Ejection::Off));
        assert_eq!(parse("false"), Ok(Ejection::Off));
        assert_eq!(parse("{}"), Ok(Ejection::On(Config::default())));
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "on",
            "true",
            "{consecutive_failures: 1001}",
            "{eject_for: 0s}",
            "{eject_for: 10s, max_eject_for: 9s}",
            "{max_ejected: 120%}",
            "{failure_on: []}",
            "{window: {time: 500ms}}",
            "{window: {time: 2h}}",
            "{window: {failure_rate: 0%}}",
            "{window: {minimum_calls: 0}}",
            "{failures: 5}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn at_least_one_may_be_ejected_and_no_more_than_the_share() {
        let most = |share: &str, count| {
            let Ok(Ejection::On(config)) = parse(&format!("{{max_ejected: {share}}}")) else {
                panic!("{share}")
            };
            config.most_ejected(count)
        };
        let by_default: Vec<_> = [1, 2, 3, 5, 6, 10, 50, 100].map(|n| most("34%", n)).into();
        assert_eq!(by_default, [1, 1, 1, 1, 2, 3, 17, 34]);
        assert_eq!((most("0%", 10), most("100%", 10), most("50%", 3)), (1, 10, 1));
    }
}
