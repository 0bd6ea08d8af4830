//! `routes.NAME.status_map`: statuses that are replaced on their way to the client.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::units::schema::written_as;

/// Maps a status of the upstream to the one the client gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusMap(BTreeMap<u16, StatusCode>);

impl StatusMap {
    /// The status the client gets instead of `status`; `None` if it is unchanged.
    pub fn get(&self, status: u16) -> Option<StatusCode> {
        self.0.get(&status).copied()
    }
}

impl<'de> Deserialize<'de> for StatusMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<u16, u16>::deserialize(deserializer)?;
        let checked = map.into_iter().map(|(from, to)| {
            let to = status(from).and(status(to)).ok_or_else(|| {
                let wrong = "expected statuses from 200 to 599, each of which allows a body";
                D::Error::custom(format_args!("{from}: {to}: {wrong}"))
            })?;
            Ok((from, to))
        });
        checked.collect::<Result<_, _>>().map(StatusMap)
    }
}

/// The framing of a body depends on some statuses. They cannot be replaced, nor replace others.
fn status(code: u16) -> Option<StatusCode> {
    let fits = (200..600).contains(&code) && !matches!(code, 204 | 205 | 304);
    StatusCode::from_u16(code).ok().filter(|_| fits)
}

written_as!(StatusMap, "StatusMap", {
    "description": "Statuses that are replaced, with what replaces each.",
    "type": "object",
    "patternProperties": {
        "^[2-5][0-9][0-9]$": { "type": "integer", "minimum": 200, "maximum": 599 },
    },
    "additionalProperties": false,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<StatusMap, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_status_becomes_another() {
        let map = parse("{404: 410, 500: 503}").expect("a map");
        assert_eq!(map.get(404), Some(StatusCode::GONE));
        assert_eq!(map.get(200), None);
    }

    #[test]
    fn statuses_that_frame_are_not_for_rewriting() {
        for yaml in ["{200: 204}", "{304: 200}", "{404: 99}", "{100: 200}", "{404: 600}"] {
            assert!(parse(yaml).is_err(), "{yaml}");
        }
    }
}
