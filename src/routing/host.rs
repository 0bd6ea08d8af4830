//! Hosts: the normal form of the host a request names, and the patterns of a route.
//!
//! The rules are narrower than RFC 3986: a registered name is letters, digits, `-`, `_` and `.`; no
//! percent-encoding, no user information, no IPv6 zone. The caller decides whether a request must
//! have a host, and whether two of them agree.

use crate::units::schema::written_as;
use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest host name, in octets (RFC 1035 section 2.3.4, without the trailing dot).
const MAX_NAME: usize = 253;
/// Longest label, in octets.
const MAX_LABEL: usize = 63;

/// Why a host is refused. The text may be sent to a client: it never quotes the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing is left beside the port.
    #[error("the host is empty")]
    Empty,
    /// Longer than a DNS name or one of its labels may be (RFC 1035, section 2.3.4).
    #[error("the host is longer than {MAX_NAME} octets, or a label than {MAX_LABEL}")]
    TooLong,
    /// It has characters that neither form allows, such as `%` or `@`.
    #[error("the host is neither a name nor an address")]
    Malformed,
    /// What follows the colon.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// The host of `raw`, a `Host` field or an `:authority`, in normal form: in lower case, without
/// port and trailing dot; an IPv6 address in brackets, in the form of RFC 5952.
///
/// Idempotent. Does not allocate if only the port and the dot have to be removed.
///
/// # Errors
/// [`BadHost`], with the first reason found.
pub fn normalize(raw: &[u8]) -> Result<Cow<'_, str>, BadHost> {
    let raw = std::str::from_utf8(raw).map_err(|_| BadHost::Malformed)?;
    if let Some(literal) = raw.strip_prefix('[') {
        let (address, port) = literal.split_once(']').ok_or(BadHost::Malformed)?;
        check_port(port)?;
        return normalize_address(raw, address);
    }
    let (name, port) = raw.split_at(memchr::memchr(b':', raw.as_bytes()).unwrap_or(raw.len()));
    check_port(port)?;
    normalize_name(name)
}

fn normalize_name(name: &str) -> Result<Cow<'_, str>, BadHost> {
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > MAX_NAME {
        return Err(BadHost::TooLong);
    }
    let mut upper = false;
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            b'.' if label > 0 => label = 0,
            _ => return Err(BadHost::Malformed),
        }
        if label > MAX_LABEL {
            return Err(BadHost::TooLong);
        }
    }
    if label == 0 {
        return Err(BadHost::Malformed);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// `raw` begins with `[`, then `address`, then `]`.
fn normalize_address<'a>(raw: &'a str, address: &str) -> Result<Cow<'a, str>, BadHost> {
    let parsed: Ipv6Addr = address.parse().map_err(|_| BadHost::Malformed)?;
    let normal = format!("[{parsed}]");
    let literal = &raw[..address.len() + 2];
    Ok(if normal == literal { Cow::Borrowed(literal) } else { Cow::Owned(normal) })
}

/// `port` is empty, or a colon and a number. An empty number is refused, though RFC 3986 allows it.
fn check_port(port: &str) -> Result<(), BadHost> {
    if port.is_empty() {
        return Ok(());
    }
    let digits = port.strip_prefix(':').ok_or(BadHost::Malformed)?;
    let number: u16 = match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => digits.parse().map_err(|_| BadHost::Port)?,
        false => return Err(BadHost::Port),
    };
    if number == 0 { Err(BadHost::Port) } else { Ok(()) }
}

/// The hosts of a route: `api.example.com`, or `*.example.com` for all names below it, at any
/// depth, but not `example.com` itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum HostPattern {
    /// One host, in normal form.
    Exact(Box<str>),
    /// What follows `*.`, in normal form.
    Below(Box<str>),
}

impl HostPattern {
    /// Whether it matches `host`, which is in normal form, and nothing else.
    pub fn is_exactly(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host == &**exact,
            HostPattern::Below(_) => false,
        }
    }

    /// Whether the pattern matches `host`, which is in normal form.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host == &**exact,
            HostPattern::Below(suffix) => {
                host.strip_suffix(&**suffix).is_some_and(|below| below.ends_with('.'))
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Err("leave `host` out to match every host".to_owned());
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(format!("`{text}`: `*` stands only at the front, as in *.example.com"));
        }
        let host = normalize(name.as_bytes()).map_err(|error| format!("`{text}`: {error}"))?;
        let address = name.starts_with('[');
        if (address && !name.ends_with(']')) || (!address && name.contains(':')) {
            return Err(format!("`{text}`: write the host without a port"));
        }
        match below {
            true if address => Err(format!("`{text}`: an address has no names below it")),
            true => Ok(HostPattern::Below(host.into())),
            false => Ok(HostPattern::Exact(host.into())),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

written_as!(HostPattern, "HostPattern", {
    "description": "api.example.com, or *.example.com for every name below it.",
    "type": "string",
    "pattern": ".",
});

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> Result<String, BadHost> {
        normalize(raw.as_bytes()).map(Cow::into_owned)
    }

    #[test]
    fn case_port_and_trailing_dot_do_not_tell_hosts_apart() {
        for (raw, host) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("my_service-1", "my_service-1"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(normal(raw).as_deref(), Ok(host), "{raw}");
        }
    }

    #[test]
    fn a_normal_host_is_lent_back() {
        for host in ["example.com", "example.com.:80", "[::1]:80"] {
            assert!(matches!(normalize(host.as_bytes()), Ok(Cow::Borrowed(_))), "{host}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        for (raw, why) in [
            ("", BadHost::Empty),
            (":80", BadHost::Empty),
            (".", BadHost::Malformed),
            ("a..b", BadHost::Malformed),
            (".a", BadHost::Malformed),
            ("a..", BadHost::Malformed),
            ("user@a", BadHost::Malformed),
            ("a b", BadHost::Malformed),
            ("a/b", BadHost::Malformed),
            ("a%2e", BadHost::Malformed),
            ("a,b", BadHost::Malformed),
            ("b\u{fc}cher.example", BadHost::Malformed),
            ("::1", BadHost::Port),
            ("[::1", BadHost::Malformed),
            ("[::1]80", BadHost::Malformed),
            ("[fe80::1%25eth0]", BadHost::Malformed),
            ("[127.0.0.1]", BadHost::Malformed),
            ("a:", BadHost::Port),
            ("a:0", BadHost::Port),
            ("a:65536", BadHost::Port),
            ("a:+80", BadHost::Port),
            ("a:80:80", BadHost::Port),
        ] {
            assert_eq!(normal(raw), Err(why), "{raw:?}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(normal(&"a".repeat(64)), Err(BadHost::TooLong));
        assert_eq!(normal(&"a.".repeat(127)).map(|host| host.len()), Ok(253));
        assert_eq!(normal(&"a.".repeat(128)), Err(BadHost::TooLong));
    }

    #[test]
    fn a_pattern_is_a_host_or_the_names_below_one() {
        let pattern = |text: &str| text.parse::<HostPattern>();
        assert_eq!(pattern("API.example.com"), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!(pattern("*.example.com"), Ok(HostPattern::Below("example.com".into())));
        assert_eq!(pattern("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        for wrong in ["*", "*.", "a.*.b", "*a.b", "example.com:80", "[::1]:80", "*.[::1]", ""] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }
}
