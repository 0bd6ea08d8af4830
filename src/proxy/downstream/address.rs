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

use crate::policy::networks::{Networks, Refusal};

/// The client, then each proxy but the last one.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What proxies say of the certificates of clients, as Envoy has made it common.
pub const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
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
    /// Whose address it is.
    pub whose: Whose,
}

/// Whose address the address of a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The peer's own.
    Own,
    /// That of the load balancer that relays the connection, and does not know the peer's. It says
    /// nothing about the peer, which gains nothing from being allowed or trusted.
    Balancers,
}

impl Whose {
    /// Whether `networks` let in the client that is known by `address`.
    ///
    /// # Errors
    /// They do not.
    pub fn check(self, networks: &Networks, address: IpAddr) -> Result<(), Refusal> {
        match self {
            Whose::Own => networks.check(address),
            Whose::Balancers => networks.check_unknown(address),
        }
    }
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
        let text = text.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Peer { address, text, whose: Whose::Own }
    }

    /// A peer of which only its load balancer is known.
    pub fn behind(balancer: &Peer) -> Self {
        Peer { whose: Whose::Balancers, ..balancer.clone() }
    }

    /// Those of the `trusted` networks that may be those of this peer.
    pub fn trusted_by<'a>(&self, trusted: &'a [IpNet]) -> &'a [IpNet] {
        match self.whose {
            Whose::Own => trusted,
            Whose::Balancers => &[],
        }
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
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
        .take(MAX_HOPS);
    while is_trusted(trusted, client) {
        match hops.next().map(parse_hop) {
            Some(Some(hop)) => client = hop.to_canonical(),
            // What a client wrote further left is not looked at, and makes no hop unreadable. The list ends here or is unreadable: the last trusted hop is the best known address.
            Some(None) | None => break,
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5678`, `2001:db8::1`, `[2001:db8::1]:5678`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let forwarded: Vec<_> = forwarded.iter().map(|value| value.as_bytes()).collect();
        client_in(peer, &forwarded)
    }

    fn client_in(peer: &str, forwarded: &[&[u8]]) -> String {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let value = HeaderValue::from_bytes(value).expect("a value");
            headers.append(X_FORWARDED_FOR, value);
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
    fn bytes_that_are_no_text_hide_no_hop_to_their_right() {
        assert_eq!(client_in("10.0.0.1", &[b"\xff, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client_in("10.0.0.1", &[b"\xff", b"203.0.113.9 , 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client_in("10.0.0.1", &[b"192.0.2.1, \xff,203.0.113.9"]), "203.0.113.9");
        assert_eq!(client_in("10.0.0.1", &[b"203.0.113.9, \xff, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn the_networks_of_a_balancer_are_not_those_of_a_peer_that_it_does_not_know() {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let balancer = Peer::new("10.0.0.1".parse().expect("an address"));
        assert_eq!(balancer.trusted_by(&trusted), trusted);
        let peer = Peer::behind(&balancer);
        assert_eq!((peer.trusted_by(&trusted), peer.address), (&[][..], balancer.address));
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
