//! Whether the settings of an upstream fit together.

use super::at;
use crate::config::code::Code;
use crate::config::load::Problem;
use crate::upstream::Config;
use crate::upstream::config::{Protocol, Url};
use crate::upstream::health::config::Check;

/// TLS negotiates HTTP/2; without TLS it must be known beforehand.
pub(super) fn protocol(name: &str, upstream: &Config, problems: &mut Vec<Problem>) {
    if let Some(message) = urls(upstream).find_map(|url| upstream.unfit(url)) {
        let path = at(&["upstreams", name, "protocol"]);
        problems.push(Problem::new(Code::ProtocolScheme, path, message));
    }
}

/// Those of the endpoints, and the one that tells how discovered endpoints are reached.
fn urls(upstream: &Config) -> impl Iterator<Item = &Url> {
    let form = upstream.discover.as_ref().and_then(|discover| discover.form.as_ref());
    upstream.endpoints.iter().map(|entry| &entry.url).chain(form)
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
        Protocol::Auto if urls(upstream).any(|url| !url.tls) => {
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
