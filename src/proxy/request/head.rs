//! From a request's head to its route: what is malformed, ambiguous or too large ends here.
//!
//! Everything after this works on one canonical path and one host.

use http::header::HOST;
use http::{HeaderValue, Method, Version};
use pingora_http::RequestHeader;

use crate::proxy::downstream::limits::Limits;
use crate::proxy::rejection::Rejection;
use crate::routing::path::Ambiguous;
use crate::routing::{NoRoute, Slashes, host, path};
use crate::runtime::snapshot::Snapshot;

/// Which route a request takes.
pub struct Routed {
    /// Index into the snapshot's routes.
    pub route: usize,
    /// The canonical path after the route's rewrite, where it is not the one that came.
    pub forwarded: Option<String>,
    /// The canonical path, where it is not the one that came.
    pub canonical: Option<String>,
}

/// Check sizes against the listener's limits.
pub fn check_size(request: &RequestHeader, limits: &Limits) -> Result<(), Rejection> {
    if limits.max_path_bytes != 0 && request.raw_path().len() > limits.max_path_bytes {
        return Err(Rejection::PathTooLong);
    }
    // As on the wire: name, colon, space, value, line end.
    let bytes: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if limits.max_header_bytes != 0 && bytes > limits.max_header_bytes {
        return Err(Rejection::HeadersTooLarge);
    }
    Ok(())
}

/// Find the route of `request` as if its method were `method`.
pub fn route(
    snapshot: &Snapshot,
    request: &RequestHeader,
    method: &Method,
) -> Result<Routed, Rejection> {
    let host = host_of(request)?;
    let raw = request.uri.path();
    let (canonical, ambiguous) = match path::canonicalize(raw.as_bytes()) {
        Ok(canonical) => (canonical, None),
        // The route, once it is found, may take these.
        Err(slashes @ (Ambiguous::EncodedSlash | Ambiguous::EmptySegment)) => {
            (path::as_sent(raw.as_bytes()).map_err(refused)?.into(), Some(slashes))
        }
        Err(ambiguous) => return Err(refused(ambiguous)),
    };
    let found = snapshot.router.find(&host, method, &canonical);
    let found = found.map_err(|none| match (ambiguous, none) {
        (Some(ambiguous), _) => refused(ambiguous),
        (None, NoRoute::NotFound) => Rejection::NoRoute,
        (None, NoRoute::MethodNotAllowed { allow }) => Rejection::MethodNotAllowed(
            HeaderValue::from_str(&allow).unwrap_or_else(|_| HeaderValue::from_static("")),
        ),
    })?;
    let route = found.route;
    if let Some(ambiguous) = ambiguous
        && !tells_slashes_apart(snapshot, &host, method, route, &canonical)
    {
        return Err(refused(ambiguous));
    }
    let rewrite = snapshot.routes[route].config.rewrite.as_ref();
    let rewritten = rewrite.map(|rewrite| rewrite.apply(&found.params).into_owned());
    if let (Some(_), Some(rewritten)) = (ambiguous, &rewritten) {
        // What was apart before may stand together now.
        path::as_sent(rewritten.as_bytes()).map_err(refused)?;
    }
    let canonical = (canonical != raw).then(|| canonical.into_owned());
    Ok(Routed { route, forwarded: rewritten.or_else(|| canonical.clone()), canonical })
}

fn refused(ambiguous: Ambiguous) -> Rejection {
    Rejection::BadRequest(ambiguous.to_string().into())
}

/// Whether `path`, which holds encoded slashes or empty segments, may take `route`. That route must
/// say that its upstream tells slashes apart; and so must every route that `path` would take if it
/// were read in another way, with the same credentials to show. So nobody gets past one route by a
/// path that the upstream behind another may read as the first one's.
fn tells_slashes_apart(
    snapshot: &Snapshot,
    host: &str,
    method: &Method,
    route: usize,
    path: &str,
) -> bool {
    let config = |route: usize| &snapshot.routes[route].config;
    config(route).matches.slashes == Slashes::AsSent
        && path::other_readings(path).all(|reading| {
            match snapshot.router.find(host, method, &reading) {
                Ok(other) if other.route == route => true,
                Ok(other) => {
                    let other = config(other.route);
                    other.matches.slashes == Slashes::AsSent && other.auth == config(route).auth
                }
                Err(_) => true,
            }
        })
}

/// The host a request is for, in lower case and without its port. HTTP/1.0 need not name
/// one; `""` then matches only routes that do not ask.
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
