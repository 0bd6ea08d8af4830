//! Whether the settings of an upstream fit together.

use super::at;
use crate::config::code::Code;
use crate::config::load::Problem;
use crate::upstream::Config;
use crate::upstream::config::Protocol;
use crate::upstream::discovery::config::Discover;
use crate::upstream::health::config::Check;

/// TLS negotiates HTTP/2; without TLS it must be known beforehand.
pub(super) fn protocol(name: &str, upstream: &Config, problems: &mut Vec<Problem>) {
    if let Some(message) = schemes(upstream).find_map(|is_tls| upstream.unfit_for(is_tls)) {
        let path = at(&["upstreams", name, "protocol"]);
        problems.push(Problem::new(Code::ProtocolScheme, path, message));
    }
}

/// Whether there is TLS to each of the endpoints, and to those of the source as far as that is known.
fn schemes(upstream: &Config) -> impl Iterator<Item = bool> {
    let source = upstream.discover.as_ref().and_then(Discover::is_tls);
    upstream.endpoints.iter().map(|entry| entry.url.tls).chain(source)
}

/// The health service of gRPC needs HTTP/2, as all of gRPC.
pub(super) fn health(name: &str, upstream: &Config, problems: &mut Vec<Problem>) {
    let is_grpc = upstream.health.as_ref().is_some_and(|health| match health.check {
        Check::Grpc(_) => true,
        Check::Http(_) | Check::Tcp => false,
    });
    let without = match upstream.protocol {
        Protocol::H2c | Protocol::H2 => return,
        Protocol::Http1 => "the upstream's `protocol` is http1",
        // Without TLS there is no agreement on HTTP/2.
        Protocol::Auto if schemes(upstream).any(|is_tls| !is_tls) => {
            "`auto` is HTTP/1.1 for http:// endpoints, for which `h2c` is HTTP/2"
        }
        Protocol::Auto => return,
    };
    if is_grpc {
        let message = format!("gRPC needs HTTP/2: {without}");
        let path = at(&["upstreams", name, "health", "grpc"]);
        problems.push(Problem::new(Code::GrpcOverHttp1, path, message));
    }
}
