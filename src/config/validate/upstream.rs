//! Whether the settings of an upstream fit together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::at;
use crate::config::Config;
use crate::config::code::Code;
use crate::config::load::{KeyPath, Problem};
use crate::upstream::config::{Config as Upstream, Place, Protocol, Url};
use crate::upstream::discovery::config::Own;
use crate::upstream::health::config::Check;

/// An endpoint at which this gateway listens would be a request to itself, which asks it again.
pub(super) fn addresses(
    name: &str,
    upstream: &Upstream,
    config: &Config,
    problems: &mut Vec<Problem>,
) {
    let own = own(config);
    // What comes over it needs no token.
    let socket = config.admin.socket.clone().map(Place::Unix);
    for (place, entry) in upstream.endpoints.iter().enumerate() {
        let whose = own.iter().find(|own| is_at(&entry.url, own));
        let whose = whose.map(|own| own.whose.as_str());
        let is_socket = socket.as_ref() == Some(&entry.url.place);
        if let Some(whose) = whose.or(is_socket.then_some("admin.socket")) {
            let message = format!("the endpoint is this gateway itself: {whose} has the address");
            let path = at(&["upstreams", name, "endpoints"]).index(place);
            problems.push(Problem::new(Code::OwnAddress, path, message));
        }
    }
}

/// Where this gateway listens for requests.
pub(in crate::config) fn own(config: &Config) -> Vec<Own> {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|(name, of)| (format!("listeners.{name}"), of.address));
    let admin = config.admin.address.map(|address| ("admin".to_owned(), address));
    listeners.chain(admin).map(|(whose, address)| Own { whose, address }).collect()
}

/// Whether `own` can be connected to at `url`, as far as that is known before names are looked up.
fn is_at(url: &Url, own: &Own) -> bool {
    let Place::Host { host, port } = &url.place else { return false };
    if "localhost".eq_ignore_ascii_case(host) && own.address.ip().to_canonical().is_loopback() {
        // Either end of it.
        return *port == own.address.port();
    }
    let loopback = "localhost".eq_ignore_ascii_case(host).then_some(Ipv4Addr::LOCALHOST.into());
    let ip: Option<IpAddr> = host.parse().ok().or(loopback);
    ip.is_some_and(|ip| own.is_at(SocketAddr::new(ip, *port)))
}

/// TLS negotiates HTTP/2; without TLS it must be known beforehand.
pub(super) fn protocol(name: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let remedy = match upstream.protocol {
        Protocol::Http1 | Protocol::Auto => return,
        Protocol::H2c => "write `h2`, or http:// in every endpoint",
        Protocol::H2 => "write `h2c`, or https:// in every endpoint",
    };
    let mut schemes = upstream.schemes().enumerate();
    let found = schemes.find_map(|(index, is_tls)| Some((index, upstream.unfit_for(is_tls)?)));
    if let Some((index, message)) = found {
        let path = at(&["upstreams", name, "protocol"]);
        let problem = Problem::new(Code::ProtocolScheme, path, message).remedied(remedy);
        problems.push(match index < upstream.endpoints.len() {
            true => problem.beside(at(&["upstreams", name, "endpoints"]).index(index)),
            false => problem.beside(at(&["upstreams", name, "discover"])),
        });
    }
}

/// The health service of gRPC needs HTTP/2, as all of gRPC.
pub(super) fn health(name: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let is_grpc = upstream.health.as_ref().is_some_and(|health| match health.check {
        Check::Grpc(_) => true,
        Check::Http(_) | Check::Tcp => false,
    });
    if is_grpc {
        let path = at(&["upstreams", name, "health", "grpc"]);
        problems.extend(grpc(name, upstream, path));
    }
}

/// That what is at `path` needs HTTP/2, if the upstream does not have it.
pub(super) fn grpc(name: &str, upstream: &Upstream, path: KeyPath) -> Option<Problem> {
    let is_clear = upstream.schemes().any(|is_tls| !is_tls);
    let is = match upstream.protocol {
        Protocol::H2c | Protocol::H2 => return None,
        Protocol::Http1 => "http1",
        // Without TLS there is no agreement on HTTP/2.
        Protocol::Auto if is_clear => "auto, which is HTTP/1.1 without TLS",
        Protocol::Auto => return None,
    };
    let message = format!("gRPC needs HTTP/2, and `protocol` of the upstream `{name}` is {is}");
    let protocol = if is_clear { "`h2c`" } else { "`h2` or `auto`" };
    let problem = Problem::new(Code::GrpcOverHttp1, path, message);
    Some(problem.remedied(format!("set `upstreams.{name}.protocol` to {protocol}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_gateway_itself_where_that_listens() {
        let is_own = |listener: &str, url: &str| {
            let address = listener.parse().expect("an address");
            is_at(&url.parse().expect("a URL"), &Own { whose: String::new(), address })
        };
        for (listener, url) in [
            ("10.0.0.1:80", "http://10.0.0.1"),
            ("127.0.0.1:80", "https://localhost:80"),
            ("[::1]:80", "http://localhost"),
            ("0.0.0.0:80", "http://127.9.9.9"),
            ("0.0.0.0:80", "http://LOCALHOST:80/base"),
            ("[::]:80", "http://127.0.0.1"),
            ("[::]:80", "http://[::1]"),
            ("127.0.0.1:80", "http://0.0.0.0"),
        ] {
            assert!(is_own(listener, url), "{listener} {url}");
        }
        for (listener, url) in [
            ("10.0.0.1:80", "http://10.0.0.2"),
            ("10.0.0.1:80", "http://10.0.0.1:81"),
            ("10.0.0.1:80", "http://localhost"),
            ("0.0.0.0:80", "http://10.0.0.2"),
            ("127.0.0.1:80", "http://127.0.0.2"),
            ("0.0.0.0:80", "http://gateway.internal"),
            ("0.0.0.0:80", "unix:/run/app.sock"),
            // An IPv4 wildcard does not take the port of IPv6.
            ("0.0.0.0:80", "http://[::1]"),
        ] {
            assert!(!is_own(listener, url), "{listener} {url}");
        }
    }
}
