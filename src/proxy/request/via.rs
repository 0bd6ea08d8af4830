//! `Via` (RFC 9110, section 7.6.3): the process puts its name there, and knows by it a request that it
//! has sent itself.
//!
//! The name is random, so that it tells nothing of the host, and so that replicas are told apart: a
//! request may pass through several of them, but not twice through one.

use http::header::VIA;
use http::{HeaderMap, HeaderValue, Version};

use crate::condition::{QUIET, Spell};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;

/// How much of a client's `Via` is logged.
const SHOWN: usize = 256;

/// The name of this process, as other proxies and servers see it.
#[derive(Debug)]
pub struct Via {
    name: String,
    http1_0: HeaderValue,
    http1_1: HeaderValue,
    http2: HeaderValue,
    came_back: Spell,
}

impl Default for Via {
    /// With a name of its own.
    fn default() -> Self {
        let name = format!("portcullis-{:016x}", fastrand::u64(..));
        let value = |version: &str| {
            HeaderValue::try_from(format!("{version} {name}"))
                .unwrap_or_else(|_| HeaderValue::from_static("1.1 portcullis"))
        };
        Via {
            http1_0: value("1.0"),
            http1_1: value("1.1"),
            http2: value("2"),
            came_back: Spell::default(),
            name,
        }
    }
}

impl Via {
    /// Refuses a request that this process has sent itself. Without `Via` that costs one look-up.
    ///
    /// # Errors
    /// [`Rejection::Loop`].
    pub fn check(&self, ctx: &Context, headers: &HeaderMap) -> Result<(), Rejection> {
        let Some(line) = self.own_line(headers) else { return Ok(()) };
        if !ctx.snapshot.config.server.via {
            return Ok(());
        }
        if let Some(begun) = self.came_back.met() {
            let route = ctx.route.as_ref().map_or("(none)", |route| &route.name);
            let peer =
                ctx.connection.as_ref().and_then(|connection| connection.inbound.peer.as_ref());
            let from = peer.map_or_else(|| "-".to_owned(), |peer| peer.address.to_string());
            let shown: String = String::from_utf8_lossy(line).chars().take(SHOWN).collect();
            log::warn!(
                "routes.{route}: a request has come back to this gateway, by way of {from}: an upstream \
                 leads here again; via={shown:?} cause=loop request_id={}",
                ctx.request_id()
            );
            begun.until(|over| {
                let quiet = QUIET.as_secs();
                log::info!("no request has come back to this gateway for {quiet} s, {over}");
            });
        }
        Err(Rejection::Loop)
    }

    /// Whether this process has sent the request itself.
    pub fn is_own(&self, headers: &HeaderMap) -> bool {
        self.own_line(headers).is_some()
    }

    fn own_line<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let mut lines = headers.get_all(VIA).iter().map(HeaderValue::as_bytes);
        lines.find(|line| names(line, self.name.as_bytes()))
    }

    /// Adds this process after those that the request has passed through, with the version of HTTP in
    /// which it came.
    pub fn add(&self, ctx: &Context, headers: &mut HeaderMap) {
        if !ctx.snapshot.config.server.via {
            return;
        }
        let value = match ctx.asked.version {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 => &self.http1_0,
            _ => &self.http1_1,
        };
        headers.append(VIA, value.clone());
    }
}

/// Whether an entry of the list was received by `name`: `1.1 name`, `HTTP/1.1 name (comment)`.
fn names(line: &[u8], name: &[u8]) -> bool {
    let words = |entry: &[u8]| {
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1) == Some(name)
    };
    line.split(|byte| *byte == b',').any(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_where_a_proxy_is_named_and_nowhere_else() {
        for line in ["1.1 one", "1.0 a, HTTP/2 one", "1.1 a (one)\t,2  one (x)"] {
            assert!(names(line.as_bytes(), b"one"), "{line}");
        }
        for line in ["", "one", "1.1 one-more", "1.1 a (one)", "one a", "1.1 a one", "1.1 One"] {
            assert!(!names(line.as_bytes(), b"one"), "{line}");
        }
    }

    #[test]
    fn every_process_has_a_name_of_its_own() {
        let (one, other) = (Via::default(), Via::default());
        assert_ne!(one.name, other.name);
        assert_eq!(one.http1_1.to_str().ok(), Some(format!("1.1 {}", one.name).as_str()));
        assert!(names(other.http2.as_bytes(), other.name.as_bytes()));
        assert!(names(&[b"1.1 \xff, ", other.http2.as_bytes()].concat(), other.name.as_bytes()));
    }
}
