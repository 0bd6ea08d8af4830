//! An entry of an upstream's `endpoints`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::units;
use crate::units::schema::written_as;
use crate::upstream::endpoint::{Address, Pair};

/// The longest path of a Unix socket, one byte less than `sun_path` of Linux holds.
const LONGEST_PATH: usize = 107;

/// An entry of `endpoints`: a URL, or a mapping with the URL and more.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// Where it is.
    pub url: Url,
    /// Its share of the requests is its weight divided by the sum of all. A name's addresses have
    /// this weight each.
    pub weight: u32,
    /// It gets requests only while no other endpoint is available.
    pub backup: bool,
}

/// As a mapping.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Where it is: `http://host:port`, `https://…`, or `unix:/path` for a Unix socket.
    url: Url,
    /// Its share of the requests is its weight divided by the sum of all; 1 to 1000, default 1. A
    /// name's addresses have this weight each.
    #[serde(default = "one", deserialize_with = "units::bounded::<_, 1, 1000>")]
    #[schemars(range(min = 1, max = 1000))]
    weight: u32,
    /// `true`: it gets requests only while no other endpoint is available; default `false`.
    #[serde(default)]
    backup: bool,
}

fn one() -> u32 {
    1
}

/// What is written, for the schema.
#[derive(schemars::JsonSchema)]
#[schemars(untagged, rename = "Endpoint")]
#[expect(dead_code, reason = "only its form counts")]
enum Schema {
    Url(Url),
    Written(Written),
}

impl schemars::JsonSchema for Listed {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Schema::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Schema::json_schema(generator)
    }
}

impl From<Url> for Listed {
    fn from(url: Url) -> Self {
        Listed { url, weight: 1, backup: false }
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL such as http://service:3000, or {url: http://service:3000, weight: 2}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Listed, E> {
        text.parse::<Url>().map(Listed::from).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listed, A::Error> {
        let Written { url, weight, backup } =
            Written::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Listed { url, weight, backup })
    }
}

/// Where an endpoint is: scheme, place, and a path that is put before the path of every request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Where to connect to.
    pub place: Place,
    /// `host[:port]`, as in the `Host` header.
    pub authority: String,
    /// `""` or `/base`, without a trailing slash.
    pub base_path: String,
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A name or an address, and a port.
    Host {
        /// An IPv6 address is without its brackets.
        host: String,
        /// If the URL has none, 80, or 443 with TLS; never 0.
        port: u16,
    },
    /// An address of each family, of one server. Written by no operator: sources find it.
    Pair(Pair),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Place {
    /// Whether it is a Unix socket.
    pub fn is_socket(&self) -> bool {
        match self {
            Place::Unix(_) => true,
            Place::Host { .. } | Place::Pair(_) => false,
        }
    }
}

impl From<Address> for Place {
    fn from(address: Address) -> Self {
        match address {
            Address::Tcp(at) => Place::Host { host: at.ip().to_string(), port: at.port() },
            Address::Pair(pair) => Place::Pair(pair),
            Address::Unix(path) => Place::Unix(path),
        }
    }
}

impl Url {
    /// The URL of an endpoint at `address`: with scheme, host, and base path of `form`, or with
    /// `http://` and the address itself as host.
    pub fn at(address: SocketAddr, form: Option<&Url>) -> Self {
        Url {
            tls: form.is_some_and(|form| form.tls),
            place: Place::Host { host: address.ip().to_string(), port: address.port() },
            authority: form.map_or_else(|| address.to_string(), |form| form.authority.clone()),
            base_path: form.map(|form| form.base_path.clone()).unwrap_or_default(),
        }
    }

    /// The host that is named in the `Host` header, and in the certificate; without brackets.
    pub fn host(&self) -> &str {
        let authority = self.authority.as_str();
        match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => authority.split_once(':').map_or(authority, |(host, _)| host),
        }
    }

    /// Whether it is one address, and no name, which may have several.
    pub fn is_one_address(&self) -> bool {
        match &self.place {
            Place::Host { host, .. } => host.parse::<std::net::IpAddr>().is_ok(),
            Place::Pair(_) | Place::Unix(_) => true,
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return of_socket(path);
        }
        let uri: http::Uri =
            text.parse().map_err(|_| "expected a URL such as http://service:3000".to_owned())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => {
                return Err(
                    "expected a URL that begins with http:// or https://, or unix:/path".to_owned()
                );
            }
        };
        if uri.query().is_some() {
            return Err("the URL of an endpoint has no query".to_owned());
        }
        let authority = uri.authority().ok_or("the URL of an endpoint names a host")?;
        if authority.as_str().contains('@') {
            return Err("the URL of an endpoint carries no user or password".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == 0 {
            return Err("the URL of an endpoint names a host, and a port above 0".to_owned());
        }
        Ok(Url {
            tls,
            place: Place::Host { host: host.to_owned(), port },
            authority: authority.as_str().to_owned(),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

fn of_socket(path: &str) -> Result<Url, String> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.len() > LONGEST_PATH {
        return Err(format!(
            "expected unix: and an absolute path of at most {LONGEST_PATH} bytes, such as \
             unix:/run/app.sock"
        ));
    }
    Ok(Url {
        tls: false,
        place: Place::Unix(path.into()),
        authority: "localhost".to_owned(),
        base_path: String::new(),
    })
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host { .. } | Place::Pair(_) => {
                let scheme = if self.tls { "https" } else { "http" };
                write!(f, "{scheme}://{}{}", self.authority, self.base_path)
            }
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl serde::Serialize for Url {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

written_as!(Url, "EndpointUrl", {
    "description": "http://host:port or https://host:port, with a base path if there is one; or unix:/path.",
    "type": "string",
    "pattern": "^([hH][tT][tT][pP][sS]?://|unix:/)",
});

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Place {
        Place::Host { host: host.to_owned(), port }
    }

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        let url: Url = "http://service.internal:3000/base/".parse().expect("a URL");
        assert_eq!((&url.place, url.tls), (&at("service.internal", 3000), false));
        assert_eq!(
            (url.authority.as_str(), url.base_path.as_str()),
            ("service.internal:3000", "/base")
        );
    }

    #[test]
    fn an_ipv6_address_loses_its_brackets() {
        let url: Url = "https://[::1]".parse().expect("a URL");
        assert_eq!((&url.place, url.tls), (&at("::1", 443), true));
    }

    #[test]
    fn a_unix_socket_is_a_path() {
        for text in ["unix:/run/app.sock", "unix:///run/app.sock"] {
            let url: Url = text.parse().expect("a URL");
            assert_eq!(url.place, Place::Unix("/run/app.sock".into()));
            assert_eq!(
                (url.authority.as_str(), url.to_string().as_str()),
                ("localhost", "unix:/run/app.sock")
            );
        }
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        for wrong in ["unix:", "unix:app.sock", "unix://host/app.sock", &long] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for wrong in
            ["service:3000", "ftp://x", "http://", "http://u:p@h", "http://h?q", "http://h:0"]
        {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_entry_is_a_url_or_says_more() {
        let parse = |text: &str| serde_yaml::from_str::<Listed>(text).map_err(|e| e.to_string());
        let plain = parse("http://a:1").expect("valid");
        assert_eq!((plain.weight, plain.backup), (1, false));
        let heavy = parse("{url: 'http://a:1', weight: 3, backup: true}").expect("valid");
        assert_eq!((&heavy.url, heavy.weight, heavy.backup), (&plain.url, 3, true));
        for (wrong, says) in [
            ("{url: 'http://a:1', weight: 0}", "1"),
            ("{url: 'http://a:1', weight: 1001}", "1000"),
            ("{weight: 3}", "url"),
            ("{url: 'http://a:1', share: 3}", "share"),
            ("[a]", "http://service:3000"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
