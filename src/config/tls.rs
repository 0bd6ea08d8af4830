//! The settings of `listeners.NAME.tls`. `runtime::tls` compiles them.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::schema::written_as;

/// TLS for clients. They choose HTTP/2 or HTTP/1.1 in the handshake. Files that change are read
/// again: see `server.watch_certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// At least one. The name that the client asks for picks the first that has it; if none has,
    /// the first with a wildcard for it; otherwise see `unknown_name`.
    #[schemars(length(min = 1))]
    pub certificates: Vec<Certificate>,
    /// PEM file of authorities. A client without a certificate of theirs is refused, and one with
    /// it is served only until it expires. Absent: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// What a client gets that asks for a name which no certificate has: `default`, the first
    /// certificate (the default), or `refuse`, the alert `unrecognized_name`. A client that asks for
    /// no name gets the certificate of the address it has connected to, or the first one.
    #[serde(default)]
    pub unknown_name: UnknownName,
    /// The oldest version that is spoken: `1.2`, the default, or `1.3`.
    #[serde(default)]
    pub min_version: Version,
    /// The protocols that clients may choose from, the preferred one first: `h2`, `http/1.1`; default
    /// both, in this order. A client that names none speaks HTTP/1.1.
    #[serde(default = "alpn", deserialize_with = "some_protocols")]
    #[schemars(length(min = 1))]
    pub alpn: Vec<Alpn>,
    /// Handshakes that may be under way at once; the next ones wait in line for the rest of their
    /// `header_timeout`, and are closed if it ends first. Default 512; 0 means no limit.
    #[serde(default = "max_handshakes")]
    pub max_handshakes: u32,
    /// Whether returning clients resume their sessions; default `on`.
    #[serde(default)]
    pub tickets: Tickets,
}

/// What a client gets that asks for a name which no certificate has.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum UnknownName {
    /// The first certificate, which most clients do not accept for that name.
    #[default]
    Default,
    /// The alert `unrecognized_name`, and no connection.
    Refuse,
}

/// A version of TLS that is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A protocol that clients may choose in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
}

impl Alpn {
    /// As it is written in a handshake.
    pub const fn wire(self) -> &'static [u8] {
        match self {
            Alpn::H2 => b"h2",
            Alpn::Http1 => b"http/1.1",
        }
    }
}

/// How returning clients resume their sessions, which saves both sides the expensive part of a
/// handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tickets {
    /// Sessions cannot be resumed.
    Off,
    /// With tickets that only this process can open.
    #[default]
    On,
    /// With tickets that every replica with a key of this file can open. One key per line: the
    /// first one seals, all of them open.
    Keys(PathBuf),
}

/// A certificate and its key, in two PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate, followed by the intermediate certificates, each of which has signed the one
    /// before it.
    pub certificate: PathBuf,
    /// The private key of `certificate`.
    pub key: PathBuf,
}

fn alpn() -> Vec<Alpn> {
    vec![Alpn::H2, Alpn::Http1]
}

fn max_handshakes() -> u32 {
    512
}

fn some_protocols<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Alpn>, D::Error> {
    let protocols = Vec::<Alpn>::deserialize(deserializer)?;
    if protocols.is_empty() {
        return Err(de::Error::custom("must be at least one of h2, http/1.1"));
    }
    if let Some(twice) = protocols
        .iter()
        .enumerate()
        .find_map(|(at, one)| protocols.iter().take(at).any(|before| before == one).then_some(one))
    {
        let twice = String::from_utf8_lossy(twice.wire());
        return Err(de::Error::custom(format!("has `{twice}` twice: write it once")));
    }
    Ok(protocols)
}

impl Version {
    const fn as_str(self) -> &'static str {
        match self {
            Version::Tls12 => "1.2",
            Version::Tls13 => "1.3",
        }
    }

    fn of(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(Version::Tls12),
            "1.3" => Ok(Version::Tls13),
            "1.0" | "1" | "1.1" => {
                Err(format!("TLS {text} is not spoken: it is no longer secure; write 1.2 or 1.3"))
            }
            other => Err(format!("there is no version `{other}`: write 1.2 or 1.3")),
        }
    }
}

impl<'de> Deserialize<'de> for Version {
    /// In YAML, a version without quotes is a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("1.2 or 1.3")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                Version::of(text.trim()).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Version, E> {
                Version::of(&number.to_string()).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Version, E> {
                Version::of(&number.to_string()).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

written_as!(Version, "TlsVersion", {
    "description": "A version of TLS.",
    "enum": ["1.2", "1.3", 1.2, 1.3],
});

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Tls, String> {
        let yaml = format!("certificates: [{{certificate: a.pem, key: a.key}}]\n{yaml}");
        serde_yaml::from_str(&yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_version_is_read_with_quotes_and_without() {
        let version = |yaml: &str| read(yaml).map(|tls| tls.min_version);
        assert_eq!(version(""), Ok(Version::Tls12));
        for (yaml, wanted) in [
            ("min_version: 1.2", Version::Tls12),
            ("min_version: '1.3'", Version::Tls13),
            ("min_version: 1.3", Version::Tls13),
        ] {
            assert_eq!(version(yaml), Ok(wanted), "{yaml}");
        }
        for (yaml, said) in [
            ("min_version: 1.1", "TLS 1.1 is not spoken"),
            ("min_version: '1.0'", "no longer secure"),
            ("min_version: 1.4", "no version `1.4`: write 1.2 or 1.3"),
            ("min_version: TLSv1.2", "no version `TLSv1.2`"),
        ] {
            let error = version(yaml).expect_err(yaml);
            assert!(error.contains(said), "{yaml}: {error}");
        }
    }

    #[test]
    fn protocols_are_some_and_none_is_there_twice() {
        let protocols = |yaml: &str| read(yaml).map(|tls| tls.alpn);
        assert_eq!(protocols(""), Ok(vec![Alpn::H2, Alpn::Http1]));
        assert_eq!(protocols("alpn: [http/1.1]"), Ok(vec![Alpn::Http1]));
        assert!(protocols("alpn: []").is_err_and(|error| error.contains("at least one")));
        assert!(protocols("alpn: [h2, h2]").is_err_and(|error| error.contains("`h2` twice")));
        assert!(protocols("alpn: [h3]").is_err());
    }
}
