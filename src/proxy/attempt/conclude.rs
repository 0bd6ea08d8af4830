//! What became of an attempt, and of the request.
//!
//! Pingora reports an attempt's end from three phases, and [`super::ended`] says how it ended. Here
//! metrics and circuit breakers are told. [`super::retry::retry`] decides for all three phases
//! whether there is another attempt.

use std::sync::Arc;

use crate::observe::events::CircuitChange;
use crate::policy::breaker::{Breaker, Count, Permit};
use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::proxy::attempt::ended::EARLY;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::times;
use crate::proxy::rejection::Rejection;
use crate::proxy::{attempt, response};
use crate::runtime::snapshot::Route;
use crate::runtime::status::circuits::Scope;
use crate::summary::attempt::Failure;
use crate::summary::words::Words;
use crate::time::Moment;
use crate::upstream::Unavailable;
use crate::upstream::ejection::Counted;
use crate::upstream::lookups::Lookups;

/// Tells metrics, and the breakers that count attempts, how this attempt ended. Later calls for the
/// same attempt do nothing.
pub fn conclude(ctx: &mut Context, outcome: Outcome, now: Moment) {
    if ctx.attempt.concluded.is_some() {
        return;
    }
    ctx.attempt.concluded = Some((outcome, now));
    timed(ctx, now);
    ctx.verdict.last_outcome = Some(outcome);
    response::keeping::attempted(ctx, outcome);
    let Some(route) = ctx.route.clone() else { return };
    let counted = endpoint_concluded(ctx, outcome, now);
    let told = Told { count: Count::Attempts, outcome, counted };
    record(ctx, &route, told, |_| true, now);
}

/// Tells the endpoint. Returns how the attempt counts for its upstream's breaker.
fn endpoint_concluded(ctx: &mut Context, outcome: Outcome, now: Moment) -> Counted {
    let Some(target) = ctx.upstream().cloned() else { return Counted::Yes };
    target.metrics.attempted(outcome.as_str());
    let latency = ctx.attempt.upstream_duration;
    let is_hurried = is_hurried(ctx, outcome, now);
    let Some(ticket) = &mut ctx.attempt.ticket else { return Counted::Yes };
    if is_hurried {
        ticket.end_without_result();
        return Counted::Yes;
    }
    let counted = target.upstream.ended(ticket, outcome, latency, now);
    for change in target.upstream.news().take() {
        ctx.snapshot.events.endpoints(target.upstream.name.clone(), change);
    }
    counted
}

/// Whether the caller's own deadline has ended the attempt sooner than this endpoint's responses usually
/// begin. One that has hung for longer than that has failed, also where the caller stopped waiting.
fn is_hurried(ctx: &Context, outcome: Outcome, now: Moment) -> bool {
    let (Outcome::Timeout, Some(deadline)) = (outcome, ctx.deadline) else { return false };
    let of_route = ctx.route.as_ref().and_then(|route| route.timeout());
    if now + EARLY < deadline || of_route.is_some_and(|limit| deadline >= ctx.started + limit) {
        return false;
    }
    let typical = ctx.attempt.endpoint().and_then(|endpoint| endpoint.load.typical());
    typical.is_some_and(|typical| now.since(ctx.attempt.started) < typical)
}

/// The attempt has ended without a response's head: that is where its time went.
fn timed(ctx: &mut Context, now: Moment) {
    match (ctx.attempt.connected, ctx.attempt.head_at) {
        (_, Some(_)) => {}
        (Some(connected), None) => {
            let waited = times::apart(ctx, now.since(connected), now);
            ctx.times.first_byte += waited;
        }
        (None, None) => ctx.times.connect += now.since(ctx.attempt.started),
    }
}

/// The upstream's response is complete. Called before its last byte goes to the client, so that the
/// breakers are up to date once the client has the whole response.
pub fn answered(ctx: &mut Context, now: Moment) {
    let Some(outcome) = ctx.attempt.answered else { return };
    conclude(ctx, outcome, now);
    if let Some(outcome) = ctx.verdict.last_outcome {
        conclude_request(ctx, outcome, now);
    }
}

/// Tells the breakers that count requests how this request ended. Later calls do nothing: the
/// permits are used up.
pub fn conclude_request(ctx: &mut Context, outcome: Outcome, now: Moment) {
    let Some(route) = ctx.route.clone() else { return };
    record(ctx, &route, Told::of_request(outcome), |_| true, now);
}

/// Tells the dry breakers among them that the request would have ended now.
pub fn conclude_dry_request(ctx: &mut Context, outcome: Outcome, now: Moment) {
    let Some(route) = ctx.route.clone() else { return };
    let is_dry = |breaker: &Breaker| breaker.enforce().is_dry();
    record(ctx, &route, Told::of_request(outcome), is_dry, now);
}

/// What breakers are told.
struct Told {
    /// Which of them.
    count: Count,
    outcome: Outcome,
    /// How it counts for the breaker of the upstream.
    counted: Counted,
}

impl Told {
    /// An ejection takes attempts out of a breaker's count, and no requests.
    fn of_request(outcome: Outcome) -> Self {
        Told { count: Count::Requests, outcome, counted: Counted::Yes }
    }
}

fn record(
    ctx: &mut Context,
    route: &Route,
    Told { count, outcome, counted }: Told,
    concerns: impl Fn(&Breaker) -> bool,
    now: Moment,
) {
    let permits: [&mut Option<Permit>; 2] =
        [&mut ctx.admission.route_permit, &mut ctx.admission.upstream_permit];
    let breakers = attempt::breakers::breakers(ctx.diverted.as_ref(), route, ctx.drawn);
    let scopes = [Scope::Route, Scope::Upstream];
    for ((permit, breaker), scope) in permits.into_iter().zip(breakers).zip(scopes) {
        let Some(breaker) = breaker else { continue };
        if breaker.config().count == count
            && concerns(breaker)
            && let Some(permit) = permit.take()
        {
            if scope == Scope::Upstream && counted == Counted::No {
                // Dropped: the attempt went to an endpoint that is ejected, and does not count.
                continue;
            }
            let permit = match count {
                // The permit was taken before the wait for a retry.
                Count::Attempts => permit.begun(ctx.attempt.started),
                Count::Requests => permit,
            };
            let receipt = permit.settle(breaker.config().judge(outcome), now);
            let diverted = ctx.diverted.as_ref().map(|diverted| &diverted.target);
            if scope == Scope::Upstream
                && let (Some(target), Some(endpoint)) =
                    (diverted.or(route.upstream(ctx.drawn)), ctx.attempt.endpoint())
            {
                target.upstream.remember(endpoint, counted, receipt);
            }
            for change in breaker.changes() {
                let name = match (scope, diverted.or(route.upstream(ctx.drawn))) {
                    (Scope::Upstream, Some(target)) => target.upstream.name.clone(),
                    (Scope::Route, _) | (Scope::Upstream, None) => route.name.clone(),
                };
                let (scope, enforce) = (scope.as_str(), breaker.enforce());
                ctx.snapshot.events.circuit(CircuitChange { scope, name, enforce, change });
            }
        }
    }
}

/// How the upstream has failed the attempt under way.
pub fn failure(ctx: &Context, cause: Cause, words: Words) -> Option<Arc<Failure>> {
    let upstream = ctx.upstream()?.upstream.name.clone();
    let endpoint = ctx.attempt.endpoint().map(|endpoint| endpoint.label.clone());
    let connection = ctx.attempt.connection;
    Some(Arc::new(Failure { cause, words, upstream, endpoint, connection }))
}

/// The upstream has failed the request.
pub fn give_up(ctx: &mut Context, cause: Cause, words: Words) {
    ctx.verdict.failure = failure(ctx, cause, words);
}

/// There is no endpoint to send the request to. Returns the refusal.
pub fn without_endpoint(ctx: &mut Context, why: Unavailable) -> Rejection {
    let lookups = ctx.upstream().map(|target| target.upstream.lookups());
    let error = lookups.and_then(Lookups::error);
    let is_known = ctx.upstream().is_some_and(|target| !target.upstream.set().is_empty());
    let (cause, words) = match (why, error) {
        (Unavailable::Full, _) => (Cause::EndpointsFull, Words::None),
        (Unavailable::Refused, _) => (Cause::NoneAvailable, Words::None),
        (Unavailable::Empty, _) if is_known => {
            (Cause::NoEndpoint, Words::Text("all endpoints are drained".into()))
        }
        (Unavailable::Empty, Some(error)) => (Cause::Dns, Words::Shared(error)),
        (Unavailable::Empty, None) => {
            let error = lookups.and_then(Lookups::source_error);
            (Cause::NoEndpoint, error.map_or(Words::None, Words::Shared))
        }
    };
    give_up(ctx, cause, words);
    Rejection::Upstream(cause)
}

/// This is the upstream's final response to the request. If it is a server error, that is why the
/// request failed; in RPC, with what the upstream says of it.
pub fn answered_last(
    ctx: &mut Context,
    outcome: Outcome,
    message: impl FnOnce() -> Option<String>,
) {
    let Some(cause) = Cause::of_answer(outcome) else { return };
    if cause.is_server_error() {
        let words = message().map_or(Words::None, |message| Words::Text(message.into()));
        give_up(ctx, cause, words);
    }
}
