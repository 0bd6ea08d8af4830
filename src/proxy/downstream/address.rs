//! The client's address: the right-most one that is not a trusted proxy's.
//!
//! Each hop appends to `X-Forwarded-For`, so only its tail, as far as trusted peers wrote it, can
//! be believed. An untrusted peer's `X-Forwarded-For` is replaced.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use pingora_core::protocols::GetSocketDigest;

/// The client, then each proxy but the last one.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`: what the client spoke to the first trusted proxy.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client named to it.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Limit on the hops that are read, from the right; those further left are ignored.
const MAX_HOPS: usize = 32;

/// The peer at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Of the socket, or as a load balancer announced it; an IPv4 address even if it was mapped
    /// into IPv6.
    pub address: IpAddr,
    /// The address as written to `X-Forwarded-For`, formatted once per connection.
    pub text: HeaderValue,
}

impl Peer {
    /// The peer of a client's connection; `None` if its socket has no IP address.
    pub fn of(stream: &(impl GetSocketDigest + ?Sized)) -> Option<Self> {
        let digest = stream.get_socket_digest()?;
        Some(Peer::new(digest.peer_addr()?.as_inet()?.ip()))
    }

    /// The peer with this address.
    pub fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        // An address as text is always a valid header value.
        let text = HeaderValue::try_from(address.to_string());
        Peer { address, text: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Whether `address` belongs to a trusted peer.
pub fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// The client's address, as far as it follows from `peer` and the `X-Forwarded-For` it sent.
pub fn client_of(trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(trusted, client) {
        return client;
    }
    let mut hops = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or("?").rsplit(','))
        .take(MAX_HOPS);
    while is_trusted(trusted, client) {
        match hops.next().map(|hop| parse_hop(hop.trim())) {
            Some(Some(hop)) => client = hop.to_canonical(),
            // The list ends here or is unreadable: the last trusted hop is the best known address.
            Some(None) | None => break,
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5678`, `2001:db8::1`, `[2001:db8::1]:5678`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().expect("a value"));
        }
        client_of(&trusted, peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
    }

    #[test]
    fn several_header_lines_are_one_list() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.1.1.1"]), "198.51.100.7");
    }

    #[test]
    fn an_illegible_hop_ends_the_walk() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, rubbish, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        assert_eq!(client("::ffff:10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9:1234"]), "203.0.113.9");
    }

    #[test]
    fn without_a_forwarded_client_the_trusted_peer_is_it() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }
}
