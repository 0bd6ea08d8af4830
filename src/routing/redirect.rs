//! The `redirect:` of a route: the URL that the client is sent to.
//!
//! ```yaml
//! redirect: {scheme: https}                                # the same URL, over TLS
//! redirect: {to: https://www.example.com}                  # the same path and query, there
//! redirect: {to: "https://docs.example.com/v2/{*}"}        # with what the pattern matched
//! redirect: {strip_prefix: /old, add_prefix: /new}         # elsewhere on the same host
//! ```
//!
//! A host that is not written out is the request's own, which the router has checked; where neither scheme, host
//! nor port is written, the URL is a path alone, and names no host. So no client can have another one sent
//! elsewhere.

use std::num::{NonZeroU16, NonZeroU32};

use super::criteria::Scheme;
use super::host;
use super::rewrite::{Prefix, Rewrite};
use super::template::Template;
use crate::units::schema::written_as;

/// The remedy for a host that is not valid.
const WRITE_HOST: &str = "write one such as `www.example.com` or `[2001:db8::1]`";

/// Where clients are sent, and how.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `None`: the request's.
    scheme: Option<Scheme>,
    /// In normal form; `None`: the request's.
    host: Option<Box<str>>,
    /// `None`: that of the scheme; or the request's, if scheme and host are.
    port: Option<NonZeroU16>,
    /// How the path is changed; the router does it. `None`: it stays as it is.
    pub path: Option<Rewrite>,
    query: Query,
}

/// What becomes of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Query {
    /// It is sent along as it came.
    #[default]
    Keep,
    /// It is left out.
    Drop,
}

/// The URL that was requested.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'a> {
    /// As the client, or a trusted proxy, has it.
    pub scheme: Scheme,
    /// In normal form, without port; empty if the request names none.
    pub host: &'a str,
    /// `None` if the request names none.
    pub port: Option<u16>,
    /// After [`Redirect::path`].
    pub path: &'a str,
    /// As it came.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// The URL that the client is sent to. `None` if it needs a host, and the request has none.
    pub fn location(&self, requested: &Requested<'_>) -> Option<String> {
        let mut url = String::with_capacity(requested.path.len() + 64);
        if self.is_elsewhere() {
            self.write_origin(requested, &mut url)?;
            url.push_str(requested.path);
        } else {
            // Two slashes in front would make a host of what follows (RFC 3986, section 4.2).
            url.push('/');
            url.push_str(requested.path.trim_start_matches('/'));
        }
        if let (Query::Keep, Some(query)) = (self.query, requested.query) {
            url.push('?');
            url.push_str(query);
        }
        Some(url)
    }

    /// Whether a request over `scheme`, on its own port, would be sent to itself. A host that is written is a
    /// request's own if `is_matched` holds.
    pub fn repeats(&self, scheme: Scheme, is_matched: impl Fn(&str) -> bool) -> bool {
        self.scheme.is_none_or(|to| to == scheme)
            && self.port.is_none_or(|to| to.get() == scheme.port())
            && self.host.as_deref().is_none_or(is_matched)
            && self.path.is_none()
            && self.query == Query::Keep
    }

    /// The scheme to which clients are sent; `None`: the request's.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The host to which clients are sent; `None`: the request's.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Whether the URL names a scheme and a host.
    fn is_elsewhere(&self) -> bool {
        self.scheme.is_some() || self.host.is_some() || self.port.is_some()
    }

    fn write_origin(&self, requested: &Requested<'_>, url: &mut String) -> Option<()> {
        let scheme = self.scheme.unwrap_or(requested.scheme);
        let host = self.host.as_deref().unwrap_or(requested.host);
        if host.is_empty() {
            return None;
        }
        let stays = scheme == requested.scheme && self.host.is_none();
        let port = self.port.map(NonZeroU16::get).or(requested.port.filter(|_| stays));
        url.push_str(scheme.as_str());
        url.push_str("://");
        url.push_str(host);
        if let Some(port) = port.filter(|port| *port != scheme.port()) {
            url.push(':');
            url.push_str(&port.to_string());
        }
        Some(())
    }
}

/// The keys as in the file; not every combination is valid.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A whole URL: `https://www.example.com`, where path and query stay, or `https://example.com/new/{id}`, with
    /// the route's parameters. Excludes `scheme`, `host` and `port`, and with a path also those of the path.
    to: Option<Target>,
    /// Default: the request's.
    scheme: Option<Scheme>,
    /// Default: the request's.
    host: Option<Host>,
    /// Default: that of the scheme; where scheme and host stay, the request's.
    port: Option<NonZeroU16>,
    /// Replaces the path; may contain the route's parameters, as {name} or {*}.
    path: Option<Template>,
    /// Removed from the front of the path; one that does not begin with it stays unchanged.
    strip_prefix: Option<Prefix>,
    /// Removes this many segments from the front, or all if there are fewer.
    strip_segments: Option<NonZeroU32>,
    /// Put in front of what is left.
    add_prefix: Option<Prefix>,
    /// What becomes of the query; default `keep`.
    #[serde(default)]
    query: Query,
    /// 301, 302, 303, 307 or 308. Default: 308, for good, where no more than the scheme and the port change, and the
    /// query stays; else 307, for now. Both keep method and body.
    status: Option<Status>,
}

impl TryFrom<Written> for Redirect {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { to, mut scheme, mut host, mut port, mut path, .. } = written;
        let Written { strip_prefix, strip_segments, add_prefix, query, status, .. } = written;
        let edits = strip_prefix.is_some() || strip_segments.is_some() || add_prefix.is_some();
        if let Some(target) = to {
            if scheme.is_some() || host.is_some() || port.is_some() {
                return Err("`to` says scheme, host and port: drop the other keys".to_owned());
            }
            if target.path.is_some() && (path.is_some() || edits) {
                return Err("`to` says the path: drop the other keys, or its path".to_owned());
            }
            (scheme, host, port) = (Some(target.scheme), Some(target.host), target.port);
            path = path.or(target.path);
        }
        let path = match path.is_some() || edits {
            true => Some(Rewrite::of(path, strip_prefix, strip_segments, add_prefix)?),
            false => None,
        };
        let is_whole = path.is_none() && query == Query::Keep;
        let is_secured = scheme.is_some() && host.is_none() && is_whole;
        let status = status.map_or(if is_secured { 308 } else { 307 }, |status| status.0);
        let host = host.map(|host| host.0);
        let redirect = Redirect { status, scheme, host, port, path, query };
        if !redirect.is_elsewhere() && redirect.path.is_none() {
            return Err(
                "write `to`, `scheme`, `host`, `port` or a path to send clients to".to_owned()
            );
        }
        Ok(redirect)
    }
}

/// `https://www.example.com:8443/new/{id}`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "String")]
struct Target {
    scheme: Scheme,
    host: Host,
    port: Option<NonZeroU16>,
    path: Option<Template>,
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let schemes = [Scheme::Http, Scheme::Https].into_iter();
        let mut after = schemes.filter_map(|scheme| {
            let rest = text.strip_prefix(scheme.as_str())?;
            Some((scheme, rest.strip_prefix("://")?))
        });
        let Some((scheme, rest)) = after.next() else {
            return Err(format!(
                "`{text}`: a URL begins with `http://` or `https://`; to stay on the host, write `path`"
            ));
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let normal = host::normalize(authority.as_bytes());
        let host = normal.map_err(|error| format!("`{text}`: {error}; {WRITE_HOST}"))?;
        // What follows the last colon outside of brackets is a number, because the host was accepted.
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let path = (!path.is_empty()).then(|| path.parse()).transpose()?;
        Ok(Target { scheme, host: Host(host.into()), port, path })
    }
}

/// A host in normal form, without port.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "String")]
struct Host(Box<str>);

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let host = host::normalize(text.as_bytes())
            .map_err(|error| format!("`{text}`: {error}; {WRITE_HOST}"))?;
        let has_port = match text.rsplit_once(']') {
            Some((_, after)) => !after.is_empty(),
            None => text.contains(':'),
        };
        match has_port {
            true => Err(format!("`{text}`: write the port as `port`")),
            false => Ok(Host(host.into())),
        }
    }
}

/// One of the five statuses that send a client elsewhere.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(try_from = "u16")]
struct Status(u16);

impl TryFrom<u16> for Status {
    type Error = String;

    fn try_from(status: u16) -> Result<Self, String> {
        match status {
            301 | 302 | 303 | 307 | 308 => Ok(Status(status)),
            other => Err(format!("{other} does not redirect: use 301, 302, 303, 307 or 308")),
        }
    }
}

written_as!(Target, "RedirectTarget", {
    "description": "A URL with http:// or https://, a host, and no query; its path may contain {parameter}, and {*} at its end.",
    "type": "string",
    "pattern": "^https?://[^/?#@]+(/[^?#]*)?$",
});

written_as!(Host, "RedirectHost", {
    "description": "A host, without port.",
    "type": "string",
});

written_as!(Status, "RedirectStatus", {
    "description": "The status of a redirect.",
    "type": "integer",
    "enum": [301, 302, 303, 307, 308],
});

#[cfg(test)]
mod tests;
