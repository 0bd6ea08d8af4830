//! `srv:`, the SRV records of a name.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

use crate::units::schema::written_as;

/// Where DNS servers listen unless they say otherwise.
const DNS_PORT: u16 = 53;

/// `srv:`, the SRV records of a name (RFC 2782). Targets with the lowest number for their priority are
/// used, the others are backups; weights are shares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SrvSource")]
pub struct Srv {
    /// The name of the records, such as `_http._tcp.orders.internal`. It is always taken as a full name:
    /// no domain is added. They are asked for again when the shortest TTL of the answer is over, after
    /// at least 1 s and at most `resolve_every`.
    pub name: ServiceName,
    /// The DNS servers that are asked, such as `[10.0.0.2, "127.0.0.1:8600"]`; absent: the system's, of
    /// `/etc/resolv.conf`.
    #[serde(default, deserialize_with = "servers")]
    #[schemars(length(min = 1))]
    pub resolver: Option<Vec<Server>>,
    /// How the targets are reached, each with its own name as `Host` header and as the name of its
    /// certificate; not together with `as`. Default: `https` if the name begins with `_https.`, else
    /// `http`.
    pub scheme: Option<Scheme>,
}

/// The name of SRV records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceName(String);

written_as!(ServiceName, "ServiceName", {
    "description": "A name in the DNS, such as _http._tcp.orders.internal.",
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]",
});

/// A DNS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server(pub SocketAddr);

written_as!(Server, "DnsServer", {
    "description": "The address of a DNS server, with its port unless that is 53.",
    "type": "string",
});

/// With TLS, or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Without.
    Http,
    /// With TLS.
    Https,
}

impl TryFrom<String> for ServiceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
        match is_host(&name) {
            true => Ok(ServiceName(name)),
            false => Err(format!(
                "`{text}` is no name in the DNS: expected one such as _http._tcp.orders.internal"
            )),
        }
    }
}

impl ServiceName {
    /// In lower case, without a dot at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether it is a name as in URLs: labels of letters, digits, `-` and `_`.
pub(in crate::upstream::discovery) fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        match address.or_else(|_| text.parse::<SocketAddr>()) {
            Ok(address) if address.port() != 0 => Ok(Server(address)),
            Ok(_) | Err(_) => Err(format!(
                "`{text}` is no address of a DNS server: expected one such as 10.0.0.2 or 127.0.0.1:8600"
            )),
        }
    }
}

fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Server>>, D::Error> {
    let servers = Vec::deserialize(from)?;
    match servers.is_empty() {
        true => Err(de::Error::custom("needs a server; leave it out for the system's")),
        false => Ok(Some(servers)),
    }
}

impl Srv {
    /// Whether the targets are reached over TLS, unless `as` says so.
    pub fn is_tls(&self) -> bool {
        match self.scheme {
            Some(Scheme::Https) => true,
            Some(Scheme::Http) => false,
            None => self.name.0.starts_with("_https."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Srv, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_has_port_53_unless_it_says_so() {
        let srv = parse(
            "{name: _http._tcp.A.test., resolver: [10.0.0.2, '127.0.0.1:8600', '::1', '[::1]:5']}",
        )
        .expect("valid");
        let servers = srv.resolver.expect("servers");
        let servers: Vec<_> = servers.iter().map(|server| server.0.to_string()).collect();
        assert_eq!(servers, ["10.0.0.2:53", "127.0.0.1:8600", "[::1]:53", "[::1]:5"]);
        assert_eq!(srv.name.as_str(), "_http._tcp.a.test");
    }

    #[test]
    fn the_service_says_whether_there_is_tls_unless_the_scheme_does() {
        for (text, is_tls) in [
            ("{name: _http._tcp.a.test}", false),
            ("{name: _https._tcp.a.test}", true),
            ("{name: _https._tcp.a.test, scheme: http}", false),
            ("{name: _grpc._tcp.a.test, scheme: https}", true),
        ] {
            assert_eq!(parse(text).expect("valid").is_tls(), is_tls, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for (wrong, says) in [
            ("{name: ''}", "no name"),
            ("{name: a..b}", "no name"),
            ("{name: 'a b'}", "no name"),
            ("{name: 'http://a.test'}", "no name"),
            ("{name: a.test, resolver: []}", "needs a server"),
            ("{name: a.test, resolver: [dns.test]}", "no address"),
            ("{name: a.test, resolver: ['10.0.0.1:0']}", "no address"),
            ("{name: a.test, scheme: ftp}", "ftp"),
            ("{resolver: [10.0.0.1]}", "name"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
