//! From a complete head to where the request goes: a route, a preflight, or the gateway itself.

use std::sync::Arc;

use http::{Method, Version};
use pingora_proxy::Session;

use crate::config::route::Dialect;
use crate::identity::Peer;
use crate::proxy::dialect::Protocol;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::head::Entrance;
use crate::proxy::{request, response};
use crate::runtime::snapshot::Route;
use crate::transcode::config::Upstream;

/// Where a request goes, by its head.
pub enum Destination {
    /// To this route.
    Route(Arc<Route>),
    /// A preflight, which the gateway handles for every route with CORS.
    Preflight,
    /// No route: `OPTIONS *` asks about the server itself (RFC 9110, section 9.3.7).
    Server,
}

/// Finds where a request goes, once its head is known to be well formed.
///
/// # Errors
/// The rejection of a malformed head, or of a request without a route.
pub fn find(session: &Session, ctx: &mut Context) -> Result<Destination, Rejection> {
    let request = session.req_header();
    ctx.protocol = Protocol::of(request);
    if let Some(connection) = &ctx.connection {
        if let Some(fault) = connection.guard.fault() {
            return Err(fault.rejection());
        }
        request::head::check_size(request, &connection.inbound.limits)?;
        if request.version != Version::HTTP_2 {
            request::nominations::check(&request.headers)?;
        }
    }
    if request.method == Method::TRACE {
        return Err(Rejection::MethodNotAllowed(http::HeaderValue::from_static("")));
    }
    if request.method == Method::OPTIONS && request.uri.path() == "*" {
        request::head::host_of(request)?;
        return Ok(Destination::Server);
    }
    let headers = Some(&request.headers);
    // Few configurations ask for the scheme.
    let scheme =
        ctx.snapshot.router.names_schemes().then(|| request::head::scheme(ctx, &request.headers));
    let entrance = Entrance {
        scheme,
        listener: ctx.connection.as_ref().map(|connection| &*connection.inbound.listener),
        certificate: shown(ctx),
    };
    if let Some(method) = response::cors::preflight(&request.method, &request.headers) {
        // First as if the request that follows had no headers of its own, then whatever they will be.
        let routed = [headers, None].into_iter().filter_map(|headers| {
            request::head::route(&ctx.snapshot, request, &method, headers, entrance).ok()
        });
        let mut routes = routed.map(|routed| &ctx.snapshot.routes[routed.route]);
        if let Some(route) = routes.find(|route| route.config.cors.is_some()).cloned() {
            ctx.begin_on(route);
            return Ok(Destination::Preflight);
        }
    }
    let routed = request::head::route(&ctx.snapshot, request, &request.method, headers, entrance)?;
    let route = ctx.snapshot.routes[routed.route].clone();
    ctx.path = routed.forwarded;
    ctx.recorded_path = routed.canonical;
    ctx.parameter = routed.parameter;
    ctx.drawn = routed.named;
    let transcoder = route.transcoder.as_ref();
    let is_rpc = route.config.errors == Dialect::Connect
        || transcoder.is_some_and(|t| t.upstream() == Upstream::Http);
    if ctx.protocol == Protocol::Http && is_rpc {
        ctx.protocol = Protocol::Connect;
    }
    ctx.begin_on(route.clone());
    Ok(Destination::Route(route))
}

/// Whom the certificate of the connection names.
fn shown(ctx: &Context) -> Option<&Peer> {
    ctx.connection.as_ref().and_then(|connection| connection.certificate())
}
