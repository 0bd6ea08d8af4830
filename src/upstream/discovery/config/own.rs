//! The addresses of this gateway itself, as far as the configuration says them.

use std::net::SocketAddr;

/// Where this gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The key that says so.
    pub whose: String,
    /// The address.
    pub address: SocketAddr,
}

impl Own {
    /// Whether it can be connected to at `address`. Which addresses other than those of loopback the
    /// machine has is not known here.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let (own, ip) = (self.address.ip().to_canonical(), address.ip().to_canonical());
        let is_same = own == ip
            || (own.is_unspecified() && ip.is_loopback() && (own.is_ipv6() || ip.is_ipv4()))
            || (ip.is_unspecified() && (own.is_loopback() || own.is_unspecified()));
        is_same && self.address.port() == address.port()
    }
}
