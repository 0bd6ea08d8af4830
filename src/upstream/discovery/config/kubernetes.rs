//! What the operator configures under `discover.kubernetes`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::over_http;
use crate::units::Timespan;
use crate::units::schema::written_as;
use crate::upstream::config::Url;

/// `kubernetes:`, the EndpointSlices of a service, listed and watched at the API server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "KubernetesSource")]
pub struct Kubernetes {
    /// The name of the service.
    pub service: Label,
    /// Its namespace; default: the gateway's own, from the file `namespace` of its service account.
    pub namespace: Option<Label>,
    /// The name of the service's port, or the number that its pods listen on. Default: the only TCP
    /// port; a service with several needs the choice.
    pub port: Option<Port>,
    /// The API server. Default: `https://` and what `KUBERNETES_SERVICE_HOST` and
    /// `KUBERNETES_SERVICE_PORT` say.
    #[serde(default, deserialize_with = "api")]
    pub api: Option<Url>,
    /// A file with the token that the API server asks for. It is read for each request, because it
    /// changes. Default: `token` of the service account; none for an API server at `http://`.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the authorities that sign the API server's certificate. Default: `ca.crt` of
    /// the service account.
    pub ca: Option<PathBuf>,
    /// How long one request for changes lasts before the next takes over, in whole seconds; 1 s to
    /// 1 h, default 5 min. Below the time after which something in between drops silent connections.
    #[serde(default = "default_watch_timeout", deserialize_with = "watch_timeout")]
    pub watch_timeout: Timespan,
}

impl Kubernetes {
    /// Whether `other` means the same endpoints.
    pub fn has_same_endpoints(&self, other: &Kubernetes) -> bool {
        (&self.api, &self.namespace, &self.service, &self.port)
            == (&other.api, &other.namespace, &other.service, &other.port)
    }

    /// In words, for log lines and `/status`.
    pub fn words(&self) -> String {
        let Kubernetes { service, namespace, port, .. } = self;
        let namespace = namespace.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
        let port = port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
        format!("kubernetes {namespace}{service}{port}")
    }
}

/// The name of an object: small letters, digits and hyphens (RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_right = (1..=63).contains(&text.len())
            && text.bytes().all(is_inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        match is_right {
            true => Ok(Label(text.to_owned())),
            false => Err("expected a name of small letters, digits and inner hyphens, of at most \
                          63 characters"
                .to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

written_as!(Label, "KubernetesName", {
    "description": "A name in Kubernetes: small letters, digits and inner hyphens.",
    "type": "string",
    "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "maxLength": 63,
});

/// Which port of the endpoints gets the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// The one that the service gives this name.
    Named(Label),
    /// The one with this number.
    Numbered(u16),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Named(name) => name.fmt(f),
            Port::Numbered(number) => number.fmt(f),
        }
    }
}

impl FromStr for Port {
    type Err = String;

    /// A name has a letter, so what has none is a number.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return text.parse().map(Port::Named);
        }
        match text.parse() {
            Ok(number) if number > 0 => Ok(Port::Numbered(number)),
            Ok(_) | Err(_) => {
                Err("expected the name of a port, or a number from 1 to 65535".to_owned())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl de::Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a port, or a number from 1 to 65535")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

written_as!(Port, "KubernetesPort", {
    "description": "The name of the service's port, or the number that its pods listen on.",
    "anyOf": [
        { "type": "string", "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)$", "maxLength": 63 },
        { "type": "integer", "minimum": 1, "maximum": 65535 },
    ],
});

fn api<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    Option::<Url>::deserialize(deserializer)?.map(over_http).transpose()
}

fn default_watch_timeout() -> Timespan {
    Timespan::from_secs(5 * 60)
}

fn watch_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let span = Timespan::deserialize(deserializer)?;
    match (Timespan::from_secs(1)..=Timespan::from_secs(60 * 60)).contains(&span) {
        true => Ok(span),
        false => Err(de::Error::custom("must be from 1s to 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Kubernetes, String> {
        serde_yaml::from_str(&format!("{{service: orders{rest}}}")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_port_is_a_name_or_a_number() {
        for (text, port) in [
            (", port: http", Some("http".parse().map(Port::Named).expect("a name"))),
            (", port: 8080", Some(Port::Numbered(8080))),
            (", port: '8080'", Some(Port::Numbered(8080))),
            (", port: 8080-tcp", Some("8080-tcp".parse().map(Port::Named).expect("a name"))),
            ("", None),
        ] {
            assert_eq!(parse(text).expect(text).port, port, "{text}");
        }
        for wrong in ["0", "65536", "-1", "''", "Http", "a_b", "[http]", "8.5", "a/b"] {
            assert!(parse(&format!(", port: {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_would_change_the_path_of_a_request_is_refused() {
        let long = "a".repeat(64);
        for wrong in ["../kube-system", "a/b", "a?b", "Shop", "-a", "a-", "''", "a.b", "ä", &long]
        {
            assert!(parse(&format!(", namespace: {wrong}")).is_err(), "{wrong}");
        }
        assert!(parse(", namespace: kube-system-2").is_ok());
    }

    #[test]
    fn the_api_server_is_reached_over_http() {
        assert!(parse(", api: 'https://10.0.0.1/k8s/c-1'").is_ok());
        for wrong in ["unix:/run/api.sock", "10.0.0.1:443"] {
            assert!(parse(&format!(", api: '{wrong}'")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn how_it_is_asked_does_not_make_it_another_source() {
        let one = parse(", namespace: shop").expect("valid");
        for same in ["token_file: a", "ca: b", "watch_timeout: 1s"] {
            let other = parse(&format!(", namespace: shop, {same}")).expect(same);
            assert!(one.has_same_endpoints(&other), "{same}");
        }
        for other in [
            ", namespace: store",
            "",
            ", namespace: shop, port: 1",
            ", namespace: shop, api: 'http://a'",
            "-2, namespace: shop",
        ] {
            assert!(!one.has_same_endpoints(&parse(other).expect(other)), "{other}");
        }
    }

    #[test]
    fn it_is_named_by_what_it_says() {
        assert_eq!(parse("").expect("valid").words(), "kubernetes orders");
        let whole = parse(", namespace: shop, port: http").expect("valid");
        assert_eq!(whole.words(), "kubernetes shop/orders:http");
    }

    #[test]
    fn a_request_for_changes_lasts_from_a_second_to_an_hour() {
        for wrong in ["0", "999ms", "61m"] {
            assert!(parse(&format!(", watch_timeout: {wrong}")).is_err(), "{wrong}");
        }
        assert_eq!(parse("").expect("valid").watch_timeout, Timespan::from_secs(300));
    }
}
