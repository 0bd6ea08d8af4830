//! From a request's head to its route. Malformed, ambiguous and too large heads are refused here.
//!
//! Everything after this works on one canonical path and one host.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora_http::RequestHeader;

use crate::identity::Peer;
use crate::proxy::downstream::address::X_FORWARDED_PROTO;
use crate::proxy::downstream::limits::Limits;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::routing::path::Ambiguous;
use crate::routing::{Asked, NoRoute, Scheme, Slashes, host, path};
use crate::runtime::snapshot::Snapshot;
use crate::upstream::balance::key;

/// How a request came in, as far as a route asks for it.
#[derive(Clone, Copy)]
pub struct Entrance<'a> {
    /// `None` if no route asks for it.
    pub scheme: Option<Scheme>,
    /// The name of the listener.
    pub listener: Option<&'a str>,
    /// Whom the certificate of the connection names.
    pub certificate: Option<&'a Peer>,
}

/// Which route a request takes.
pub struct Routed {
    /// Index into the snapshot's routes.
    pub route: usize,
    /// The canonical path after the route's rewrite, if it differs from the client's.
    pub forwarded: Option<String>,
    /// The canonical path, if it differs from the client's.
    pub canonical: Option<String>,
    /// The hash of the path parameter by which an endpoint is chosen, if one is.
    pub parameter: Option<u64>,
    /// The place of the upstream that the path or the host names, if the route asks for one.
    pub named: Option<usize>,
}

/// Checks the head's sizes against the listener's limits.
///
/// # Errors
/// The rejection of a path or header section that is too long.
pub fn check_size(request: &RequestHeader, limits: &Limits) -> Result<(), Rejection> {
    if limits.max_path_bytes != 0 && request.raw_path().len() > limits.max_path_bytes {
        return Err(Rejection::PathTooLong);
    }
    // Sizes as on the wire: name, colon, space, value, line end.
    let bytes: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    // A short field takes memory too, and HTTP/2 has no limit on their number. It counts 32 bytes for
    // each beside name and value (RFC 9113, section 6.5.2).
    let listed = bytes + request.headers.len() * 28;
    let is_list_too_large =
        request.version == Version::HTTP_2 && listed / 2 > limits.max_header_bytes;
    if limits.max_header_bytes != 0 && (bytes > limits.max_header_bytes || is_list_too_large) {
        return Err(Rejection::HeadersTooLarge);
    }
    Ok(())
}

/// Finds the route of `request`, or of the one that it is a preflight for, by what is known of that.
///
/// # Errors
/// The rejection of an invalid host or path, or of a request without a route.
pub fn route(
    snapshot: &Snapshot,
    request: &RequestHeader,
    method: &Method,
    headers: Option<&HeaderMap>,
    entrance: Entrance<'_>,
) -> Result<Routed, Rejection> {
    let Entrance { scheme, listener, certificate } = entrance;
    let query = request.uri.query();
    let asked = Asked { method, headers, query, scheme, listener, certificate };
    let host = host_of(request)?;
    let raw = request.uri.path();
    let (canonical, ambiguous) = match path::canonicalize(raw.as_bytes()) {
        Ok(canonical) => (canonical, None),
        // Allowed if the route, once it is found, accepts such paths.
        Err(slashes @ (Ambiguous::EncodedSlash | Ambiguous::EmptySegment)) => {
            (path::as_sent(raw.as_bytes()).map_err(refused)?.into(), Some(slashes))
        }
        Err(ambiguous) => return Err(refused(ambiguous)),
    };
    let found = snapshot.router.find(&host, &canonical, &asked);
    let found = found.map_err(|none| match (ambiguous, none) {
        (Some(ambiguous), _) => refused(ambiguous),
        (None, NoRoute::NotFound) => Rejection::NoRoute,
        (None, NoRoute::MethodNotAllowed { allow }) => Rejection::MethodNotAllowed(
            HeaderValue::from_str(&allow).unwrap_or_else(|_| HeaderValue::from_static("")),
        ),
    })?;
    let route = found.route;
    if let Some(ambiguous) = ambiguous
        && !tells_slashes_apart(snapshot, &host, &asked, route, &canonical)
    {
        return Err(refused(ambiguous));
    }
    let rewrite = snapshot.routes[route].config.rewrite();
    let rewritten = rewrite.map(|rewrite| rewrite.apply(&found.params).into_owned());
    if let (Some(_), Some(rewritten)) = (ambiguous, &rewritten) {
        // The rewrite may have joined parts that were separate before.
        path::as_sent(rewritten.as_bytes()).map_err(refused)?;
    }
    let named = match snapshot.routes[route].named() {
        None => None,
        Some(named) => {
            let place = named.find(&host, |parameter| found.params.value(parameter));
            Some(place.ok_or(Rejection::NoRoute)?)
        }
    };
    let hashed = snapshot.routes[route].hash_parameter(named);
    let parameter = hashed.and_then(|name| found.params.value(name)).map(key::of_parameter);
    let canonical = (canonical != raw).then(|| canonical.into_owned());
    let forwarded = rewritten.or_else(|| canonical.clone());
    Ok(Routed { route, forwarded, canonical, parameter, named })
}

fn refused(ambiguous: Ambiguous) -> Rejection {
    Rejection::BadRequest(ambiguous.to_string().into())
}

/// Whether `path`, which holds encoded slashes or empty segments, may take `route`. The route must
/// declare that its upstream tells slashes apart. So must every route that `path` would take if it
/// were read in another way, and those must be open to the same clients: the same addresses,
/// credentials and pages of other origins. Otherwise a client could
/// evade a route's protection with a path that the upstream behind another route reads as the
/// protected one.
fn tells_slashes_apart(
    snapshot: &Snapshot,
    host: &str,
    asked: &Asked<'_>,
    route: usize,
    path: &str,
) -> bool {
    let config = |route: usize| &snapshot.routes[route].config;
    config(route).matches.slashes == Slashes::AsSent
        && path::other_readings(path).all(|reading| {
            match snapshot.router.find(host, &reading, asked) {
                Ok(other) if other.route == route => true,
                Ok(other) => {
                    let (other, own) = (config(other.route), config(route));
                    other.matches.slashes == Slashes::AsSent && other.is_open_as(own)
                }
                Err(_) => true,
            }
        })
}

/// How the client reached the gateway, or the trusted proxy in front of it.
pub fn scheme(ctx: &Context, headers: &HeaderMap) -> Scheme {
    let last = || headers.get_all(X_FORWARDED_PROTO).iter().next_back();
    let said = ctx.peer_trusted.then(last).flatten();
    // What stands before the last value may be the client's, where a proxy appends its own.
    let secure = match said.and_then(|said| said.to_str().ok()?.rsplit(',').next()) {
        Some(said) => ["https", "wss"].iter().any(|name| said.trim().eq_ignore_ascii_case(name)),
        None => ctx.connection.as_ref().is_some_and(|connection| connection.inbound.secure),
    };
    if secure { Scheme::Https } else { Scheme::Http }
}

/// The host of a request, in lower case and without its port. HTTP/1.0 requests need not name one;
/// `""` then matches only routes that require no host.
///
/// # Errors
/// The rejection of a missing or invalid host.
pub fn host_of(request: &RequestHeader) -> Result<std::borrow::Cow<'_, str>, Rejection> {
    let raw = match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => match request.headers.get(HOST) {
            Some(value) => value.as_bytes(),
            None if request.version == Version::HTTP_10 => return Ok("".into()),
            None => return Err(Rejection::BadRequest("the request names no host".into())),
        },
    };
    host::normalize(raw).map_err(|bad| Rejection::BadRequest(bad.to_string().into()))
}

/// The port that the request names; `None` if it names none.
pub fn port_of(request: &RequestHeader) -> Option<u16> {
    let named: http::uri::Authority = match request.uri.authority() {
        Some(authority) => authority.clone(),
        None => request.headers.get(HOST)?.to_str().ok()?.parse().ok()?,
    };
    named.port_u16()
}
