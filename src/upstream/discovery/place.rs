//! Where the endpoints may be that a source names.
//!
//! Those who may register an instance say where requests go. So an endpoint is never this gateway itself, and
//! of a registry that takes any address, not what only the gateway's own machine can reach.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::config::{Discover, Source};
use crate::upstream::Address;
use crate::upstream::config::{Place, Url};

impl Discover {
    /// Why an endpoint of the source is not used that is at `address`; `None`: it is.
    pub fn refusal(&self, address: SocketAddr) -> Option<String> {
        if let Some(own) = self.own.iter().find(|own| own.is_at(address)) {
            return Some(format!(
                "{address} is this gateway itself: {} has the address",
                own.whose
            ));
        }
        let ip = address.ip().to_canonical();
        match &self.source {
            Source::Consul(consul) => outside(ip, &consul.allow),
            Source::Eureka(eureka) => outside(ip, &eureka.allow),
            // The registry has refused it already; who writes the others also writes what is routed.
            Source::Registry(_) | Source::File(_) | Source::Kubernetes(_) | Source::Srv(_) => None,
        }
    }

    /// The same of the addresses of an endpoint.
    pub(in crate::upstream) fn refuses(&self, address: &Address) -> Option<String> {
        match address {
            Address::Tcp(address) => self.refusal(*address),
            Address::Pair(pair) => {
                self.refusal(pair.v6.into()).or_else(|| self.refusal(pair.v4.into()))
            }
            Address::Unix(_) => None,
        }
    }

    /// The same of an endpoint that is given by its address; `None` also for a name.
    pub(in crate::upstream) fn refuses_url(&self, url: &Url) -> Option<String> {
        match &url.place {
            Place::Host { host, port } => self.refusal(SocketAddr::new(host.parse().ok()?, *port)),
            Place::Pair(pair) => self.refuses(&Address::Pair(*pair)),
            Place::Unix(_) => None,
        }
    }
}

fn outside(ip: IpAddr, allow: &[IpNet]) -> Option<String> {
    if ip.is_unspecified() || ip.is_multicast() {
        return Some(format!("{ip} cannot be connected to"));
    }
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match allow {
        [] => (ip.is_loopback() || is_link_local)
            .then(|| format!("{ip} is a loopback or link-local address, which `allow` must name")),
        some => (!some.iter().any(|network| network.contains(&ip)))
            .then(|| format!("{ip} is outside the networks of `allow`")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Own;
    use super::*;

    fn refusal(source: &str, address: &str) -> Option<String> {
        let mut discover: Discover = serde_yaml::from_str(source).expect("valid");
        let own = |whose: &str, address: &str| Own {
            whose: whose.to_owned(),
            address: address.parse().expect("an address"),
        };
        discover.own = vec![own("admin", "127.0.0.1:9901"), own("listeners.main", "0.0.0.0:80")];
        discover.refusal(address.parse().expect("an address"))
    }

    const CONSUL: &str = "{consul: {service: a}}";
    const EUREKA: &str = "{eureka: {service: a, address: 'http://a'}}";

    #[test]
    fn what_only_this_machine_can_reach_is_refused_unless_it_is_allowed() {
        for source in [CONSUL, EUREKA] {
            for inside in [
                "127.0.0.1:81",
                "[::1]:81",
                "[::ffff:127.0.0.1]:81",
                "169.254.169.254:80",
                "[fe80::1]:80",
                "0.0.0.0:81",
                "[::]:81",
                "224.0.0.1:81",
                "[ff02::1]:81",
            ] {
                assert!(refusal(source, inside).is_some(), "{source} {inside}");
            }
            for outside in ["10.0.0.1:80", "192.0.2.1:9901", "[2001:db8::1]:80", "[fd00::1]:80"] {
                assert_eq!(refusal(source, outside), None, "{source} {outside}");
            }
        }
        let allowing = "{consul: {service: a, allow: [127.0.0.0/8, '10.0.0.0/8,::1']}}";
        for inside in ["127.0.0.1:81", "10.9.9.9:80", "[::1]:81"] {
            assert_eq!(refusal(allowing, inside), None, "{inside}");
        }
        for outside in ["192.0.2.1:80", "169.254.169.254:80", "[fe80::1]:80"] {
            assert!(refusal(allowing, outside).is_some(), "{outside}");
        }
    }

    #[test]
    fn this_gateway_itself_is_refused_of_every_source_and_wherever_it_is_allowed() {
        let sources = [
            "{consul: {service: a, allow: [127.0.0.0/8]}}",
            "{eureka: {service: a, address: 'http://a', allow: [127.0.0.0/8]}}",
            "{registry: {allow: [127.0.0.0/8]}}",
            "{file: {path: a}}",
            "{srv: {name: _http._tcp.a.internal}}",
            "{kubernetes: {service: a, namespace: b}}",
        ];
        for source in sources {
            let admin = refusal(source, "127.0.0.1:9901").expect(source);
            assert!(admin.contains("this gateway itself: admin"), "{admin}");
            // What listens everywhere does so at each address of loopback.
            assert!(refusal(source, "127.9.9.9:80").is_some(), "{source}");
            assert!(refusal(source, "0.0.0.0:9901").is_some(), "{source}");
            assert_eq!(refusal(source, "127.0.0.1:9902"), None, "{source}");
        }
    }
}
