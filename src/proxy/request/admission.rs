//! From a request's head to its admission or refusal.
//!
//! First come the form and size of the head, its host, path and route; then the steps of [`order`],
//! in that order.

use std::time::Duration;

use http::Version;
use pingora_proxy::Session;

use crate::policy;
use crate::policy::Admission;
use crate::policy::idempotency::Answer;
use crate::policy::order::{self, OfCall, OfCaller};
use crate::policy::rate_limit::{self, Heard, Requester};
use crate::proxy::downstream::address::Whose;
use crate::proxy::exchange::asked::Asked;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::destination::Destination;
use crate::proxy::request::envelopes::Envelopes;
use crate::proxy::{attempt, downstream, exchange, request, response};
use crate::record::{Mode, new_id};
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::{Route, Target};
use crate::time::{Clock, Moment};
use crate::transcode::wire::Framing;

/// What an admitted request calls for.
pub enum Admitted {
    /// Forward it to the upstream, or serve it from the gateway itself.
    Call,
    /// A CORS preflight: it asks whether another request may be made.
    Preflight,
    /// `OPTIONS *`: it asks about the server as a whole, which is the gateway.
    Ping,
    /// Replay the stored response to an earlier request with the same key.
    Replay(Answer),
}

/// The head is complete: lifts its time limit, identifies the client, gives the request its ids.
pub fn receive(shared: &Shared, session: &mut Session, ctx: &mut Context) {
    if let Some(connection) = &ctx.connection {
        connection.guard.begin();
    }
    let is_last = ctx.connection.as_ref().is_some_and(|connection| connection.is_last(ctx.started));
    if is_last || shared.lifecycle.is_draining() {
        session.set_keepalive(None);
    }
    request::headers::join_cookies(session.req_header_mut());
    let snapshot = ctx.snapshot.clone();
    let config = &snapshot.config;
    if let Some(peer) =
        ctx.connection.as_ref().and_then(|connection| connection.inbound.peer.as_ref())
    {
        let trusted = peer.trusted_by(&config.client_address.trusted_proxies);
        let headers = &session.req_header().headers;
        ctx.peer_trusted = downstream::address::is_trusted(trusted, peer.address);
        ctx.client = downstream::address::client_of(trusted, peer.address, headers);
        if config.client_address.trusted_proxies.is_empty() && peer.whose == Whose::Own {
            request::untrusted::notice(&shared.untrusted_proxy, peer.address, headers);
        }
    }
    let legible = ctx.connection.as_ref().and_then(|connection| connection.guard.take_legible());
    ctx.asked = legible.map_or_else(|| Asked::of(session.req_header()), Asked::from);
    let headers = &session.req_header().headers;
    ctx.trace = snapshot.exports.tracer.begin(headers);
    let names = &config.identifiers;
    ctx.request_id = request::identifiers::kept(headers, &names.request_id.0)
        .unwrap_or_else(|| request::identifiers::made(new_id(ctx.received_at)));
    ctx.correlation_id = names.correlation_id.as_ref().map(|name| {
        request::identifiers::kept(headers, &name.0).unwrap_or_else(|| ctx.request_id.clone())
    });
}

/// Finds the route of a request, then takes it through the steps of [`order`].
///
/// # Errors
/// The first refusal. If a step of the upstream refuses, the permits, the slot and the share are given
/// back at once; after a later step they are held until the refusal has been written. What rate limits
/// counted stays counted.
pub async fn admit(
    shared: &Shared,
    session: &mut Session,
    ctx: &mut Context,
) -> Result<Admitted, Rejection> {
    let route = match request::destination::find(session, ctx)? {
        Destination::Route(route) => route,
        Destination::Preflight => return Ok(Admitted::Preflight),
        Destination::Server => return Ok(Admitted::Ping),
    };
    shared.via.check(ctx, &session.req_header().headers)?;
    // Nothing has waited yet, so the clock need not be read again until a step does.
    let mut now = ctx.started;
    for step in order::CALLER {
        match step {
            OfCaller::Networks => check_address(ctx, &route)?,
            OfCaller::FloodGuard => observe(ctx)?,
            OfCaller::Form => check_form(session, ctx, &route)?,
            OfCaller::BodySize => check_size(session, ctx, &route)?,
            OfCaller::Credentials => match request::authentication::of(session, ctx, &route, now)
                .await
            {
                Ok(identity) => {
                    ctx.identity = identity;
                    if route.guard.as_ref().is_some_and(|guard| guard.asks()) {
                        now = Clock::now();
                    }
                }
                // It goes on without an identity.
                Err(refused) if route.config.auth.as_ref().is_some_and(|a| a.enforce.is_dry()) => {
                    attempt::dry_run::would_refuse(ctx, refused.refusal.code());
                    now = Clock::now();
                }
                Err(refused) if refused.is_late => return Err(Rejection::DeadlineExceeded),
                Err(refused) => {
                    ctx.verdict.said = refused.refusal.reason();
                    ctx.identity = refused.who;
                    return Err(policy::Rejection::Credentials(refused.refusal).into());
                }
            },
            OfCaller::RateLimits => now = count(session, ctx, &route, now).await?,
            OfCaller::IdempotencyKey if route.idempotency.is_some() => {
                if let Some(kept) =
                    Box::pin(request::key::look_up(shared, session, ctx, &route)).await?
                {
                    response::quota::forgive(session, ctx, now);
                    return Ok(Admitted::Replay(kept));
                }
                now = Clock::now();
            }
            OfCaller::IdempotencyKey => {}
        }
    }
    for step in order::CALL {
        // A diverted request has already passed the checks for its fallback upstream.
        if step.is_of_upstream() && ctx.diverted.is_some() {
            continue;
        }
        let allowed = match step {
            OfCall::Split => {
                attempt::draw::draw(session, ctx, &route);
                Ok(())
            }
            OfCall::RouteCircuit | OfCall::UpstreamCircuit => {
                let (admission, dry_run) = (&mut ctx.admission, &mut ctx.dry_run);
                let taken = step.take(route.policies(ctx.drawn), admission, dry_run, now);
                taken.map_err(Rejection::Policy)
            }
            OfCall::Bulkhead if route.policies.bulkhead.is_none() => Ok(()),
            OfCall::Bulkhead => take_slot(session, ctx, &route, &mut now).await,
            OfCall::Endpoint => find_endpoint(ctx, &route),
            OfCall::Deadline => check_deadline(ctx, now),
            OfCall::RetryBudget => {
                let budget = route.budget(ctx.drawn);
                // A diverted request does not earn its route's upstream any retries.
                let budget = budget.filter(|_| ctx.diverted.is_none());
                ctx.stake = budget.map(|budget| request::share::enter(session, ctx, budget, now));
                Ok(())
            }
            OfCall::Body => prepare_body(session, ctx, &route).await,
        };
        if let Err(refused) = allowed {
            if !step.is_of_upstream() {
                return Err(refused);
            }
            ctx.admission = Admission::default();
            if !attempt::divert::instead_of(&refused, ctx, now) {
                return Err(refused);
            }
        }
    }
    Ok(Admitted::Call)
}

/// Whether the client's address may use the route.
fn check_address(ctx: &mut Context, route: &Route) -> Result<(), Rejection> {
    let Some(networks) = &route.networks else { return Ok(()) };
    let peer = ctx.connection.as_ref().and_then(|connection| connection.inbound.peer.as_ref());
    let whose = peer.map_or(Whose::Own, |peer| peer.whose);
    let Err(refusal) = whose.check(networks, ctx.client) else { return Ok(()) };
    let refused = policy::Rejection::Address(refusal);
    if networks.enforce().is_dry() {
        attempt::dry_run::would_refuse(ctx, refused.code());
        return Ok(());
    }
    ctx.verdict.said = Some(refusal.phrase().into());
    Err(refused.into())
}

/// The flood guard: limits the requests of one client address, whichever caller sends them.
fn observe(ctx: &mut Context) -> Result<(), Rejection> {
    let Some(guard) = &ctx.snapshot.flood_guard else { return Ok(()) };
    let Err(retry_after) = guard.observe(ctx.client, ctx.started) else { return Ok(()) };
    let refused = Rejection::Flood { retry_after };
    if !guard.config().enforce.is_dry() {
        return Err(refused);
    }
    attempt::dry_run::would_refuse(ctx, refused.code());
    Ok(())
}

/// Checks the form that the caller's protocol requires of the head. Sets the deadline from the
/// route's timeout and the caller's own.
fn check_form(session: &Session, ctx: &mut Context, route: &Route) -> Result<(), Rejection> {
    let head = session.req_header();
    ctx.protocol.check(head)?;
    let given = request::rpc_timeout::of_caller(ctx.protocol, &head.headers)?;
    if let Some(limit) = route.timeout().into_iter().chain(given).min() {
        ctx.deadline = Some(ctx.started + limit);
        ctx.guard(ctx.deadline);
    }
    Ok(())
}

/// Checks the length that the head announces. In a stream of messages, each message is checked as
/// it arrives.
fn check_size(session: &Session, ctx: &mut Context, route: &Route) -> Result<(), Rejection> {
    let headers = &session.req_header().headers;
    let length = exchange::fields::content_length(headers);
    let max_body = route.config.max_body.enforced().0;
    ctx.body.envelopes = Envelopes::of(ctx.protocol, headers, max_body);
    exchange::times::uploading(ctx, &route.config.timeout, length.is_some());
    let Some(length) = length.filter(|_| ctx.body.envelopes.is_none()) else { return Ok(()) };
    if max_body != 0 && length > max_body {
        ctx.verdict.said = Some(format!("the head announces {length} bytes").into());
        return Err(Rejection::BodyTooLarge);
    }
    attempt::dry_run::measured(ctx, length);
    Ok(())
}

/// Counts the request in the route's rate limits. Returns the time of counting, which is later than
/// `now` if a store counts.
async fn count(
    session: &Session,
    ctx: &mut Context,
    route: &Route,
    mut now: Moment,
) -> Result<Moment, Rejection> {
    let headers = &session.req_header().headers;
    let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
    let requester = route.counted(requester);
    let mut heard = Heard::Nothing;
    if let Some(limits) = &route.shared_limits {
        let left = ctx.deadline.map_or(Duration::MAX, |deadline| deadline.since(now));
        let limiters = &route.policies.rate_limits;
        // Boxed: few routes need this future's state.
        heard = Box::pin(limits.ask(limiters, &requester, &ctx.dry_run, now, left)).await;
        now = Clock::now();
    }
    ctx.decided = Some(now);
    if route.record.mode != Mode::Off {
        let limits = route.policies.rate_limits.iter();
        ctx.limit_keys = limits.map(|limit| limit.config().key.digest(&requester) as u64).collect();
    }
    let (standing, dry_run) = (&mut ctx.standing, &mut ctx.dry_run);
    let counted = order::count(&route.policies, &requester, &heard, standing, dry_run, now);
    if let Err(policy::Rejection::LimitStoreUnavailable) = counted {
        ctx.verdict.said = Some(rate_limit::closed_without(&route.policies.rate_limits).into());
    }
    counted?;
    Ok(now)
}

/// Takes a slot of the bulkhead, within the caller's share.
async fn take_slot(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    now: &mut Moment,
) -> Result<(), Rejection> {
    request::share::take(session, ctx, route)?;
    if route.rehearses_queue() {
        attempt::dry_run::rehearse(ctx, route, *now);
        return Ok(());
    }
    let (admission, dry_run) = (&mut ctx.admission, &mut ctx.dry_run);
    match OfCall::Bulkhead.take(route.policies(ctx.drawn), admission, dry_run, *now) {
        // Boxed: few requests wait.
        Err(_) if route.has_queue() => {
            Box::pin(request::waiting::for_slot(session, ctx, route, now)).await
        }
        taken => taken.map_err(Rejection::Policy),
    }
}

fn find_endpoint(ctx: &mut Context, route: &Route) -> Result<(), Rejection> {
    match route.upstream(ctx.drawn).and_then(|target| target.upstream.lack()) {
        Some(why) => Err(attempt::conclude::without_endpoint(ctx, why)),
        None => Ok(()),
    }
}

fn check_deadline(ctx: &Context, now: Moment) -> Result<(), Rejection> {
    match ctx.deadline.is_some_and(|deadline| deadline <= now) {
        true => Err(Rejection::DeadlineExceeded),
        false => Ok(()),
    }
}

/// Reads the body if the route changes it, and copies it for the record if the route records it.
async fn prepare_body(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
) -> Result<(), Rejection> {
    if let Some(transcoder) = &route.transcoder {
        Box::pin(request::transcode::begin(session, ctx, route, transcoder)).await?;
    } else {
        if let Some(json) = &route.config.json {
            Box::pin(request::body::prepare(session, ctx, json)).await?;
        }
        watch_bodies(session, ctx, route);
    }
    // HTTP/2 names have no case.
    if !matches!(route.target, Target::Serve(_)) && session.req_header().version != Version::HTTP_2
    {
        request::headers::forget_case(session.req_header_mut());
    }
    Ok(())
}

/// Starts to copy the request's body, if the route records it.
pub fn watch_bodies(session: &Session, ctx: &mut Context, route: &Route) {
    let Some(capture) = &route.capture else { return };
    let headers = &session.req_header().headers;
    let content_type = headers.get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
    let tap = capture.request(content_type, exchange::fields::content_length(headers));
    let encoding = request::compression::of_request(Framing::Bare, headers, ctx);
    ctx.body.request_tap = tap.and_then(|tap| tap.encoded(encoding));
}
