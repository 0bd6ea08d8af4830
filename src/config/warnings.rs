//! What is valid but probably not meant, as far as the configuration alone tells it. Certificates
//! and the limit on open files are looked at by `runtime::warnings`.

mod grants;
mod networks;
mod permit;
mod splits;
mod times;
mod unused;

use super::load::{KeyPath, suggest};
use super::{Config, Problem, Route, Sources, defaults};
use crate::config::code::Code;
use crate::policy::auth;
use crate::policy::auth::KeySource;

/// Every method of the IANA registry that a client may send, and PURGE of caches.
const METHODS: [&str; 40] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];
/// Fewer characters than this can be guessed: 16 random bytes are 22 in base64.
const LEAST_KEY: usize = 16;
/// RFC 7518 section 3.2: a key of at least the size of the hash, which is that of SHA-256 at least.
const LEAST_SECRET: usize = 32;

/// All warnings about a valid configuration.
pub fn warnings(config: &Config, sources: &Sources) -> Vec<Problem> {
    let mut warnings = unused::warnings(config);
    exposure(config, &mut warnings);
    renamed(sources, &mut warnings);
    keys(config, &mut warnings);
    warnings.extend(defaults::problems(config, sources, |name, route| {
        let (path, mut warnings) = (defaults::path_of(name), Vec::new());
        if let Some(lists) = &route.networks {
            networks::overlaps(&path.clone().key("networks"), lists, &mut warnings);
        }
        methods(&path, route, sources, &mut warnings);
        permit::never(&path, route, config, sources, &mut warnings);
        splits::parameters(&path, route, config, &mut warnings);
        grants::scopes(&path, route, config, &mut warnings);
        times::attempts(&path, route, &mut warnings);
        times::breaker(&path, route, &mut warnings);
        warnings
    }));
    times::upstream_breakers(config, &mut warnings);
    ejections(config, &mut warnings);
    pins(config, &mut warnings);
    unreachable(config, &mut warnings);
    warnings
}

fn exposure(config: &Config, warnings: &mut Vec<Problem>) {
    let proxies = &config.client_address.trusted_proxies;
    if let Some(index) = proxies.iter().position(|network| network.prefix_len() == 0) {
        let message = "every peer is trusted, so any client can claim any address";
        let path = KeyPath::root().key("client_address").key("trusted_proxies").index(index);
        warnings.push(Problem::new(Code::EverybodyTrusted, path, message));
    }
    for (name, listener) in &config.listeners {
        let listener_path = KeyPath::root().key("listeners").key(name);
        if let Some(lists) = &listener.networks {
            networks::overlaps(&listener_path.clone().key("networks"), lists, warnings);
        }
        let Some(proxy_protocol) = &listener.proxy_protocol else { continue };
        let from = &proxy_protocol.from;
        if let Some(index) = from.iter().position(|network| network.prefix_len() == 0) {
            let message = "any client can announce any address, and those without a PROXY header \
                           are closed";
            let path = listener_path.key("proxy_protocol").key("from").index(index);
            warnings.push(Problem::new(Code::EverybodyTrusted, path, message));
        }
    }
    let address = config.admin.address.filter(|_| config.admin.token.is_empty());
    if address.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
        let message = "other hosts can reach the admin listener, which asks for no credentials";
        warnings.push(Problem::new(Code::AdminExposed, "admin.address", message));
    }
}

fn renamed(sources: &Sources, warnings: &mut Vec<Problem>) {
    for (path, key) in sources.renamed() {
        let (old, new, until) = (key.old, key.new, key.until);
        let message = format!("`{old}` is called `{new}` now; version {until} will not read it");
        warnings.push(Problem::new(Code::RenamedKey, path.clone(), message));
    }
}

/// The only endpoint is never ejected. A name may have several addresses.
fn ejections(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, upstream) in &config.upstreams {
        let rules = upstream.ejection.as_ref().and_then(|ejection| ejection.rules());
        if let ([only], Some(_)) = (&upstream.endpoints[..], rules)
            && only.url.is_one_address()
            && upstream.discover.is_none()
        {
            let path = KeyPath::root().key("upstreams").key(name).key("ejection");
            let message = "the upstream's only address is never ejected";
            warnings.push(Problem::new(Code::EjectionOfOne, path, message));
        }
    }
}

/// Without TLS there is no certificate.
fn pins(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, upstream) in &config.upstreams {
        if !upstream.tls.pins.is_empty()
            && let Some(place) = upstream.schemes().position(|is_tls| !is_tls)
        {
            let path = KeyPath::root().key("upstreams").key(name);
            let plain = match upstream.endpoints.len() {
                listed if place < listed => path.clone().key("endpoints").index(place),
                _ => path.clone().key("discover"),
            };
            let message =
                "an endpoint without TLS shows no certificate, and gets requests all the same";
            let problem = Problem::new(Code::PinsWithoutTls, path.key("tls").key("pins"), message);
            warnings.push(problem.beside(plain));
        }
    }
}

fn keys(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, authority) in &config.auth {
        let path = KeyPath::root().key("auth").key(name);
        match authority {
            auth::Config::ApiKey(written) => {
                for (consumer, key) in &written.keys {
                    if key.key.expose().len() < LEAST_KEY {
                        let path = path.clone().key("api_key").key("keys");
                        let path = path.key(consumer.to_string());
                        let message = format!(
                            "the key has fewer than {LEAST_KEY} characters: it can be guessed"
                        );
                        warnings.push(Problem::new(Code::ShortKey, path, message));
                    }
                }
            }
            auth::Config::Jwt(jwt) => match &jwt.keys {
                KeySource::Secret(secret) if secret.expose().len() < LEAST_SECRET => {
                    let path = path.key("jwt").key("secret");
                    let message = format!(
                        "the secret has fewer than {LEAST_SECRET} bytes: RFC 7518 wants as many as the \
                         hash has"
                    );
                    warnings.push(Problem::new(Code::ShortKey, path, message));
                }
                KeySource::Secret(_) | KeySource::Jwks(_) | KeySource::PublicKey(_) => {}
            },
            auth::Config::ClientCertificate(_)
            | auth::Config::Introspection(_)
            | auth::Config::Forward(_) => {}
        }
    }
}

fn methods(path: &KeyPath, route: &Route, sources: &Sources, warnings: &mut Vec<Problem>) {
    let verbs = route.matches.methods.values().unwrap_or_default();
    let matched = verbs.iter().enumerate().map(|(index, verb)| {
        let methods = path.clone().key("match").key("methods");
        (if verbs.len() == 1 { methods } else { methods.index(index) }, verb.0.as_str())
    });
    let cors = route.cors.as_ref().map_or(&[][..], |cors| &cors.methods);
    let allowed = cors.iter().filter(|method| *method != "*").enumerate().map(|(index, method)| {
        (path.clone().key("cors").key("methods").index(index), method.as_str())
    });
    let permits = route.auth.iter().flat_map(|auth| &auth.permit).enumerate();
    let permitted = permits.flat_map(|(nth, permit)| {
        let permits = path.clone().key("auth").key("permit").index(nth).key("methods");
        permit
            .methods
            .values()
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(move |(index, verb)| (sources.element(&permits, index), verb.0.as_str()))
    });
    for (path, method) in matched.chain(allowed).chain(permitted) {
        if !METHODS.contains(&method) {
            let message = format!("`{method}` is no registered method: does any client send it?");
            let problem = Problem::new(Code::UnknownMethod, path, message);
            warnings.push(problem.suggesting(suggest(method, METHODS.iter().copied())));
        }
    }
}

fn unreachable(config: &Config, warnings: &mut Vec<Problem>) {
    let routes: Vec<_> =
        config.routes.iter().map(|(name, route)| (name.as_str(), &route.matches)).collect();
    for hidden in crate::routing::shadow::hidden(&routes) {
        let path = |name: &str| KeyPath::root().key("routes").key(name).key("match");
        let message =
            format!("the route is never chosen: routes.{} takes all its requests", hidden.by);
        let problem = Problem::new(Code::UnreachableRoute, path(hidden.route), message);
        warnings.push(problem.beside(path(hidden.by)));
    }
}
