//! From a request's head to its admission, or to the refusal that ends it.
//!
//! The order is fixed here and in [`policy::admit`]: size and form, host and path, route,
//! preflight, flood guard, body size, credentials, the store of shared limits, then the policies, with
//! the idempotency key in their midst.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, Version};
use pingora_proxy::Session;

use crate::config::route::Dialect;
use crate::policy;
use crate::policy::idempotency::Answer;
use crate::policy::rate_limit::Heard;
use crate::policy::{Caller, auth};
use crate::proxy::dialect::Protocol;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::envelopes::Envelopes;
use crate::proxy::{attempt, downstream, exchange, request, response};
use crate::record::new_id;
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::{Route, Target};
use crate::time::{Clock, Moment};
use crate::transcode::config::Upstream;
use crate::transcode::wire::Framing;

/// What follows for a request that nothing speaks against.
pub enum Admitted {
    /// It goes on, to an upstream or to what the gateway serves by itself.
    Call,
    /// It asks whether another may be made.
    Preflight,
    /// It asks after the server as a whole (`OPTIONS *`), which is the gateway.
    Ping,
    /// It has been answered before.
    Replay(Answer),
}

/// Where a request goes.
enum Destination {
    Route(Arc<Route>),
    /// A preflight, which any route with CORS answers.
    Preflight,
    /// No route: `OPTIONS *` asks after the server itself (RFC 9110, section 9.3.7).
    Server,
}

/// The head is complete: lift its time limit, know the client, name the request.
pub fn receive(shared: &Shared, session: &mut Session, ctx: &mut Context) {
    if let Some(connection) = &ctx.connection {
        connection.guard.begin();
    }
    if shared.lifecycle.is_draining() {
        session.set_keepalive(None);
    }
    request::headers::join_cookies(session.req_header_mut());
    let snapshot = ctx.snapshot.clone();
    let config = &snapshot.config;
    if let Some(peer) = ctx.connection.as_ref().and_then(|connection| connection.peer.as_ref()) {
        let peer = peer.address;
        let trusted = &config.client_address.trusted_proxies;
        let headers = &session.req_header().headers;
        ctx.peer_trusted = downstream::address::is_trusted(trusted, peer);
        ctx.client = downstream::address::client_of(trusted, peer, headers);
    }
    let headers = &session.req_header().headers;
    ctx.trace = shared.tracer.begin(headers);
    let names = &config.identifiers;
    ctx.request_id = request::identifiers::kept(headers, &names.request_id.0)
        .unwrap_or_else(|| request::identifiers::made(new_id(ctx.received_at)));
    ctx.correlation_id = names.correlation_id.as_ref().map(|name| {
        request::identifiers::kept(headers, &name.0).unwrap_or_else(|| ctx.request_id.clone())
    });
}

/// From a request's head to its admission, in the order of `design`: size, host and path,
/// route, preflight, flood guard, credentials and policies.
pub async fn admit(
    shared: &Shared,
    session: &mut Session,
    ctx: &mut Context,
) -> Result<Admitted, Rejection> {
    let route = match find_route(session, ctx)? {
        Destination::Route(route) => route,
        Destination::Preflight => return Ok(Admitted::Preflight),
        Destination::Server => return Ok(Admitted::Ping),
    };
    if let Some(guard) = &ctx.snapshot.flood_guard {
        guard
            .observe(ctx.client, ctx.started)
            .map_err(|retry_after| Rejection::Flood { retry_after })?;
    }
    let request = session.req_header();
    ctx.protocol.check(request)?;
    let given = request::rpc_timeout::of_caller(ctx.protocol, &request.headers)?;
    let limit = route.timeout().into_iter().chain(given).min();
    if let Some(limit) = limit {
        ctx.deadline = Some(ctx.started + limit);
        ctx.guard(ctx.deadline);
    }
    let length = exchange::fields::content_length(&request.headers);
    let max_body = route.config.max_body.0;
    ctx.body.envelopes = Envelopes::of(ctx.protocol, &request.headers, max_body);
    let whole = ctx.body.envelopes.is_none();
    if whole && max_body != 0 && length.is_some_and(|length| length > max_body) {
        return Err(Rejection::BodyTooLarge);
    }
    // Nothing has been waited for yet: one reading of the clock for all of this.
    let mut now = ctx.started;
    let identity = authenticate(session, ctx, &route, now).await;
    let mut caller = Caller {
        identity: match &identity {
            Ok(identity) => Ok(identity.as_deref()),
            Err(refusal) => Err(refusal.clone()),
        },
        address: ctx.client,
        headers: &session.req_header().headers,
        shared: Heard::Nothing,
    };
    if let Some(limits) = &route.shared_limits
        && let Ok(requester) = caller.requester()
    {
        let left = ctx.deadline.map_or(Duration::MAX, |deadline| deadline.since(now));
        let limiters = &route.policies.rate_limits;
        // Boxed, as below: few routes have a use for its room.
        caller.shared = Box::pin(limits.ask(limiters, &requester, now, left)).await;
        now = Clock::now();
    }
    let admitted = policy::admit_caller(&route.policies, caller, &mut ctx.standing, now);
    ctx.identity = identity.ok().flatten();
    admitted.map_err(Rejection::Policy)?;
    if route.idempotency.is_some() {
        if let Some(answer) = Box::pin(request::key::look_up(shared, session, ctx, &route)).await? {
            response::quota::forgive(session, ctx, now);
            return Ok(Admitted::Replay(answer));
        }
        now = Clock::now();
    }
    let admission = policy::admit_call(&route.policies, now);
    let admission = admission.map_err(Rejection::Policy).and_then(|admission| {
        let target = route.upstream();
        match target.is_some_and(|target| target.upstream.endpoints().is_empty()) {
            true => Err(Rejection::NoEndpoint),
            false => Ok(admission),
        }
    });
    if let Err(Rejection::NoEndpoint) = admission {
        attempt::conclude::without_endpoint(ctx);
    }
    match admission {
        Ok(admission) => ctx.admission = admission,
        Err(refused) if attempt::divert::instead_of(&refused, ctx, now) => {}
        Err(refused) => return Err(refused),
    }
    if limit.is_some() && ctx.deadline.is_some_and(|deadline| deadline <= now) {
        return Err(Rejection::DeadlineExceeded);
    }
    let budget = route.retry.as_ref().and_then(|retry| retry.budget.as_ref());
    // A request that goes elsewhere is none of those that earn retries.
    let budget = budget.filter(|_| ctx.diverted.is_none());
    ctx.stake = budget.map(|budget| budget.enter(now));
    if let Some(transcoder) = &route.transcoder {
        Box::pin(request::transcode::begin(session, ctx, &route, transcoder)).await?;
    } else {
        if let Some(json) = &route.config.json {
            Box::pin(request::body::prepare(session, ctx, json)).await?;
        }
        watch_bodies(session, ctx, &route);
    }
    // HTTP/2 has none.
    if let Target::Upstream(_) = &route.target
        && session.req_header().version != Version::HTTP_2
    {
        request::headers::forget_case(session.req_header_mut());
    }
    Ok(Admitted::Call)
}

/// Where a request goes, once its head is known to be in form.
fn find_route(session: &Session, ctx: &mut Context) -> Result<Destination, Rejection> {
    let request = session.req_header();
    ctx.protocol = Protocol::of(request);
    if let Some(connection) = &ctx.connection {
        if let Some(fault) = connection.guard.fault() {
            return Err(fault.rejection());
        }
        request::head::check_size(request, &connection.limits)?;
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
    let asked = response::cors::preflight(&request.method, &request.headers);
    if let Some(method) = &asked
        && let Ok(routed) = request::head::route(&ctx.snapshot, request, method)
        && ctx.snapshot.routes[routed.route].config.cors.is_some()
    {
        ctx.route = Some(ctx.snapshot.routes[routed.route].clone());
        return Ok(Destination::Preflight);
    }
    let routed = request::head::route(&ctx.snapshot, request, &request.method)?;
    let route = ctx.snapshot.routes[routed.route].clone();
    ctx.path = routed.forwarded;
    ctx.recorded_path = routed.canonical;
    let transcoder = route.transcoder.as_ref();
    let is_rpc = route.config.errors == Dialect::Connect
        || transcoder.is_some_and(|t| t.upstream() == Upstream::Http);
    if ctx.protocol == Protocol::Http && is_rpc {
        ctx.protocol = Protocol::Connect;
    }
    ctx.route = Some(route.clone());
    Ok(Destination::Route(route))
}

/// Who asks. A token that no key at hand verifies is worth one look for new keys, as often as the
/// authority allows: a client that sends garbage waits for that look alone.
async fn authenticate(
    session: &Session,
    ctx: &Context,
    route: &Route,
    now: Moment,
) -> Result<Option<Arc<auth::Identity>>, auth::Refusal> {
    let Some(guard) = &route.guard else { return Ok(None) };
    let request = session.req_header();
    let path = ctx.recorded_path.as_deref().unwrap_or_else(|| request.uri.path());
    let unix_seconds = ctx.received_at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let check = |moment| guard.check(path, &request.headers, auth::Now { unix_seconds, moment });
    let refusal = match check(now) {
        Ok(identity) => return Ok(identity),
        Err(refusal) => refusal,
    };
    let Some((authority, wanted)) = refusal.wanted_keys() else { return Err(refusal) };
    let Some(jwks) = ctx.snapshot.jwks(authority) else { return Err(refusal) };
    let left = ctx.deadline.map_or(Duration::MAX, |deadline| deadline.since(Clock::now()));
    match Box::pin(tokio::time::timeout(left, jwks.refresh_for(wanted))).await {
        Ok(true) => check(Clock::now()),
        Ok(false) | Err(_) => Err(refusal),
    }
}

/// Look at what passes, where the route wants to remember it.
pub fn watch_bodies(session: &Session, ctx: &mut Context, route: &Route) {
    let Some(capture) = &route.capture else { return };
    let headers = &session.req_header().headers;
    let content_type = headers.get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
    let tap = capture.request(content_type, exchange::fields::content_length(headers));
    let encoding = request::compression::of_request(Framing::Bare, headers, ctx);
    ctx.body.request_tap = tap.and_then(|tap| tap.encoded(encoding));
}
