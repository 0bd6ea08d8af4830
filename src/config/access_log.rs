//! The settings of `access_log`: which requests have a line in it, and where the lines go.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::units::schema::written_as;
use crate::units::{Percent, Timespan};

/// The access log: one line for each request that it keeps.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Where the lines go: `stdout` (the default), `stderr`, `{file: PATH}` or `off`. A file is opened
    /// again on SIGUSR1 and SIGHUP, so that it can be rotated.
    #[schemars(extend("default" = "stdout"))]
    pub to: Output,
    /// `json` (the default): one object in each line. `text`: for people, coloured on a terminal.
    pub format: Format,
    /// Which requests have a line. Those that an upstream or the gateway failed always have one.
    pub keep: Keep,
    /// What is left out of lines, or made unrecognizable; default: nothing.
    pub mask: Vec<Mask>,
}

/// Where the lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    Off,
    /// Standard output, which nothing else is written to.
    #[default]
    Stdout,
    /// Standard error, between the lines of the process's own log.
    Stderr,
    /// The end of this file, which is made if it is missing. Relative to the working directory.
    File(PathBuf),
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
#[schemars(rename = "AccessLogFormat")]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object in each line.
    #[default]
    Json,
    /// Words in a fixed order, then `name=value`.
    Text,
}

/// What a line does not say of a request.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// The client's address is cut to its network: 24 bits of IPv4, 48 of IPv6.
    ClientAddress,
    /// The consumer is left out.
    Consumer,
    /// What an upstream, the system or a library said of an error is left out.
    Error,
}

/// Which requests have a line.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The share of requests that did not fail; default 0 %.
    pub success: Percent,
    /// Requests that took at least this long have a line in any case; default 1 s, 0 for none.
    pub slower_than: Timespan,
    /// Of requests that the gateway refused, or whose client left, how many have a line: for each
    /// route and cause, as a rate, `10/s` by default. The others are counted, and a line tells how
    /// many there were.
    pub refusals: PerSecond,
}

/// A number of lines for each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSecond(pub u32);

impl Default for Keep {
    fn default() -> Self {
        Keep {
            success: Percent::new(0),
            slower_than: Timespan(std::time::Duration::from_secs(1)),
            refusals: PerSecond(10),
        }
    }
}

impl<'de> Deserialize<'de> for PerSecond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_suffix("/s").and_then(|number| number.trim().parse().ok());
        let invalid =
            || format!("invalid rate `{text}`: write a whole number for each second, such as 10/s");
        number.map(PerSecond).ok_or_else(|| de::Error::custom(invalid()))
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OutputVisitor)
    }
}

struct OutputVisitor;

impl<'de> Visitor<'de> for OutputVisitor {
    type Value = Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout, stderr, off, or {file: PATH}")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Output, E> {
        match word {
            "off" => Ok(Output::Off),
            "stdout" => Ok(Output::Stdout),
            "stderr" => Ok(Output::Stderr),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Output, E> {
        match on {
            false => Ok(Output::Off),
            true => Err(E::invalid_value(de::Unexpected::Bool(on), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Output, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            file: PathBuf,
        }
        let File { file } = File::deserialize(de::value::MapAccessDeserializer::new(map))?;
        if file.as_os_str().is_empty() {
            return Err(de::Error::custom("a file needs a path"));
        }
        Ok(Output::File(file))
    }
}

written_as!(Output, "AccessLogOutput", {
    "description": "stdout, stderr, off, or the file that lines are added to.",
    "anyOf": [
        { "type": "string", "enum": ["off", "stdout", "stderr"] },
        // As some readers of YAML understand `off`.
        { "type": "boolean", "const": false },
        {
            "type": "object",
            "properties": {
                "file": { "description": "The path of the file.", "type": "string", "minLength": 1 },
            },
            "required": ["file"],
            "additionalProperties": false,
        },
    ],
});

written_as!(PerSecond, "PerSecond", {
    "description": "A whole number for each second: 10/s.",
    "type": "string",
    "pattern": "^\\+?[0-9]+\\s*/s$",
});

impl serde::Serialize for PerSecond {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/s", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<AccessLog, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(parse("{}"), Ok(AccessLog::default()));
    }

    #[test]
    fn every_output_is_understood() {
        for (yaml, to) in [
            ("{to: off}", Output::Off),
            ("{to: stdout}", Output::Stdout),
            ("{to: stderr}", Output::Stderr),
            ("{to: {file: /var/log/access.log}}", Output::File("/var/log/access.log".into())),
        ] {
            assert_eq!(parse(yaml).map(|log| log.to), Ok(to), "{yaml}");
        }
    }

    #[test]
    fn what_is_invalid_is_refused_with_what_is_expected() {
        for (yaml, expected) in [
            ("{to: syslog}", "{file: PATH}"),
            ("{to: {file: ''}}", "a file needs a path"),
            ("{to: {path: x}}", "file"),
            ("{keep: {refusals: 10}}", "10/s"),
            ("{keep: {refusals: ten/s}}", "10/s"),
            ("{format: xml}", "json"),
            ("{mask: [path]}", "client_address"),
        ] {
            let error = parse(yaml).expect_err(yaml);
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
