//! The settings of `log`, the process's own log.

use log::LevelFilter;
use serde::de::{self, Deserialize, Deserializer};

use crate::units::schema::written_as;

/// The process's own log, on standard error: its life cycle, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` (the default) or `json`: one object in each line.
    pub format: Format,
    /// Which lines are written; `info` by default. The variable `RUST_LOG`, where it is set, counts
    /// instead.
    pub level: Level,
}

/// The form of the lines.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[schemars(rename = "LogFormat")]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

/// A level, or levels by module, as env_logger has them: `warn`, or
/// `info,portcullis::record=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

impl Level {
    /// Checks a level as it was written.
    ///
    /// # Errors
    /// What is expected.
    pub fn new(text: &str) -> Result<Self, String> {
        // env_logger takes a word that is no level for the name of a module.
        let is_level =
            |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
        let is_known = text.split(',').all(is_level);
        match env_filter::Builder::new().try_parse(text) {
            Ok(_) if is_known => Ok(Level(text.to_owned())),
            Ok(_) | Err(_) => Err(format!(
                "invalid level `{text}`: write error, warn, info, debug, trace or off, or levels by \
                 module, such as info,portcullis::record=debug"
            )),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Level {
    fn default() -> Self {
        Level("info".to_owned())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // YAML has a false that is spelled `off`.
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Off(bool),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Off(false) => Ok(Level("off".to_owned())),
            Written::Off(true) => Level::new("true").map_err(de::Error::custom),
            Written::Text(text) => Level::new(&text).map_err(de::Error::custom),
        }
    }
}

written_as!(Level, "LogLevel", {
    "description": "error, warn, info, debug, trace or off; or levels by module, such as \
                    info,portcullis::record=debug.",
    "type": ["string", "boolean"],
    "pattern": "=|[eE][rR][rR][oO][rR]|[wW][aA][rR][nN]|[iI][nN][fF][oO]|[dD][eE][bB][uU][gG]|[tT][rR][aA][cC][eE]|[oO][fF][fF]",
});

impl serde::Serialize for Level {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Log, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(parse("{}"), Ok(Log::default()));
    }

    #[test]
    fn levels_are_those_of_env_logger() {
        for level in ["debug", "off", "info,portcullis::record=debug", "warn,h2=trace"] {
            let log = parse(&format!("{{level: '{level}'}}")).expect(level);
            assert_eq!(log.level.as_str(), level);
        }
        for level in ["loud", "info,portcullis=loud", ""] {
            let error = parse(&format!("{{level: '{level}'}}")).expect_err(level);
            assert!(error.contains("portcullis::record=debug"), "{level}: {error}");
        }
    }
}
