//! Warns if a proxy seems to stand before the gateway, and none is trusted.
//!
//! All its clients then count as one: rate limits, the flood guard and the record see the proxy's
//! address. A client on the public network may send anything, so its header is no sign of a proxy.

use std::net::IpAddr;
use std::sync::Once;

use http::HeaderMap;

use crate::proxy::downstream::address::X_FORWARDED_FOR;

/// Warns at most once, the first time that `peer`, in a private network, sends `X-Forwarded-For`.
/// To be called only where no proxy is trusted.
pub fn notice(warned: &Once, peer: IpAddr, headers: &HeaderMap) {
    if warned.is_completed() || !is_private(peer) || !headers.contains_key(X_FORWARDED_FOR) {
        return;
    }
    warned.call_once(|| {
        log::warn!(
            "{peer}, in a private network, sends X-Forwarded-For, and no proxy is trusted: limits \
             and the record see {peer} as the client of all its requests; if it is a proxy, add it \
             to client_address.trusted_proxies"
        );
    });
}

/// Networks in which proxies and load balancers stand: private, shared (RFC 6598), unique local and
/// link-local addresses, and the machine itself.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_those_that_are_not_routed() {
        let is_private = |text: &str| is_private(text.parse().expect("an address"));
        for private in ["10.0.0.1", "172.31.9.9", "192.168.1.1", "100.64.0.1", "127.0.0.1"] {
            assert!(is_private(private), "{private}");
        }
        for private in ["169.254.1.1", "::1", "fd00::1", "fe80::1"] {
            assert!(is_private(private), "{private}");
        }
        for public in ["192.0.2.1", "172.32.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1"] {
            assert!(!is_private(public), "{public}");
        }
    }
}
