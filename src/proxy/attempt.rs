//! What became of an attempt, and whether there is another.
//!
//! Pingora reports an attempt's end from three phases, and [`super::ended`] says how it ended. Here
//! that is told to all that count attempts, and one function, [`retry()`], decides for all three.

use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora_core::{Error, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::ended::{self, Ended};
use super::{divert, idempotency};
use crate::observe::events::{CircuitChange, Failure, Words};
use crate::policy::breaker::{Breaker, Count, Permit};
use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::policy::retry::{self, Decision, Pushback, pushback};
use crate::runtime::circuits::Scope;
use crate::runtime::snapshot::Route;
use crate::time::{Clock, Moment};

/// The error that asks Pingora for another attempt.
pub const RETRY: ErrorType = ErrorType::Custom("portcullis: retry");
/// The error that carries a rejection, kept in the context, to `fail_to_proxy`.
pub const REJECTED: ErrorType = ErrorType::Custom("portcullis: rejected");

/// The answer cannot be made into what the caller asked for.
pub const UNREADABLE: ErrorType = ErrorType::Custom("portcullis: unreadable answer");

/// Tell metrics and the breakers that count attempts what became of this one. Once.
pub fn conclude(ctx: &mut Context, outcome: Outcome, now: Moment) {
    if ctx.attempt.concluded.is_some() {
        return;
    }
    ctx.attempt.concluded = Some((outcome, now));
    ctx.end.last_outcome = Some(outcome);
    idempotency::attempted(ctx, outcome);
    let Some(route) = ctx.route.clone() else { return };
    if let Some(upstream) = ctx.upstream() {
        upstream.metrics.attempted(outcome.as_str());
    }
    record(ctx, &route, Count::Attempts, outcome, now);
}

/// The upstream's answer is complete. Told before its last byte goes to the client: whoever
/// has seen that must find the breakers knowing of it.
pub fn answered(ctx: &mut Context, now: Moment) {
    let Some(outcome) = ctx.attempt.answered else { return };
    conclude(ctx, outcome, now);
    if let Some(outcome) = ctx.end.last_outcome {
        conclude_request(ctx, outcome, now);
    }
}

/// Tell the breakers that count requests what became of this one. Once: its permits are gone
/// then.
pub fn conclude_request(ctx: &mut Context, outcome: Outcome, now: Moment) {
    let Some(route) = ctx.route.clone() else { return };
    record(ctx, &route, Count::Requests, outcome, now);
}

fn record(ctx: &mut Context, route: &Route, count: Count, outcome: Outcome, now: Moment) {
    let permits: [&mut Option<Permit>; 2] =
        [&mut ctx.admission.route_permit, &mut ctx.admission.upstream_permit];
    let breakers = divert::breakers(ctx.diverted.as_ref(), route);
    let scopes = [Scope::Route, Scope::Upstream];
    for ((permit, breaker), scope) in permits.into_iter().zip(breakers).zip(scopes) {
        let Some(breaker) = breaker else { continue };
        if breaker.config().count == count
            && let Some(permit) = permit.take()
        {
            let permit = match count {
                // Taken before the wait for a retry.
                Count::Attempts => permit.begun(ctx.attempt.started),
                Count::Requests => permit,
            };
            permit.record(breaker.config().judge(outcome), now);
            let diverted = ctx.diverted.as_ref().map(|diverted| &diverted.target);
            for change in breaker.changes() {
                let name = match (scope, diverted.or(route.upstream())) {
                    (Scope::Upstream, Some(target)) => target.upstream.name.clone(),
                    (Scope::Route, _) | (Scope::Upstream, None) => route.name.clone(),
                };
                ctx.snapshot.events.circuit(CircuitChange { scope: scope.as_str(), name, change });
            }
        }
    }
}

/// Remember how an attempt without an answer ended, and whether there is another one. What `error`
/// says goes to the log if there is none.
pub fn failed(session: &mut Session, ctx: &mut Context, ended: Ended, error: &mut Error) -> bool {
    let now = Clock::now();
    if let Some(outcome) = ended.outcome() {
        conclude(ctx, outcome, now);
    }
    let of_upstream = ended.outcome().filter(|_| ended != Ended::Upstream(Cause::DeadlineExceeded));
    if let Some(outcome) = of_upstream
        && retry(session, ctx, outcome, None, now)
    {
        return true;
    }
    if let Some(outcome) = ended.outcome() {
        conclude_request(ctx, outcome, now);
    }
    if let Some(cause) = ended.cause() {
        give_up(ctx, cause, ended::words(error));
    }
    if let Some(outcome) = of_upstream
        && divert::after(session, ctx, outcome, now)
    {
        return true;
    }
    ctx.end.client_gone |= ended == Ended::ClientGone;
    ctx.end.rejection = ended.rejection();
    false
}

/// The request's upstream has failed it: remember why, and tell the log.
pub fn give_up(ctx: &mut Context, cause: Cause, words: Words) {
    ctx.end.cause = Some(cause);
    let (Some(route), Some(target)) = (&ctx.route, ctx.upstream()) else { return };
    ctx.snapshot.events.failed(Box::new(Failure {
        upstream: target.upstream.name.clone(),
        cause,
        endpoint: ctx.attempt.endpoint.as_ref().map(|endpoint| endpoint.label.clone()),
        words,
        route: route.name.clone(),
        request_id: ctx.request_id.clone(),
        attempts: ctx.attempts,
        no_retry: ctx.end.retry_stopped,
    }));
}

/// There is no endpoint to send the request to: tell the log why.
pub fn without_endpoint(ctx: &mut Context) {
    let error = ctx.upstream().and_then(|target| target.upstream.lookups().error());
    match error {
        Some(error) => give_up(ctx, Cause::Dns, Words::Shared(error)),
        None => give_up(ctx, Cause::NoEndpoint, Words::None),
    }
}

/// The upstream's last word is this answer: if it is an error, that is why the request failed.
pub fn answered_last(ctx: &mut Context, outcome: Outcome) {
    let Some(cause) = Cause::of_answer(outcome) else { return };
    if cause.is_server_error() {
        give_up(ctx, cause, Words::None);
    }
}

/// The one decision on another attempt, given what the upstream's answer, if it came, asks for.
/// On yes, the budget has paid, the breakers' permits are in hand, and `ctx.backoff` says how long
/// to wait.
pub fn retry(
    session: &mut Session,
    ctx: &mut Context,
    outcome: Outcome,
    server_asks: Option<Pushback>,
    now: Moment,
) -> bool {
    let Some(route) = ctx.route.clone() else { return false };
    let Some(policy) = &route.retry else { return false };
    if ctx.diverted.is_some() {
        return false;
    }
    let attempt = retry::Attempt {
        outcome,
        method: &session.req_header().method,
        keyed: idempotency::is_held(ctx),
        retries_done: ctx.attempts.saturating_sub(1),
        body_replayable: !session.as_ref().retry_buffer_truncated(),
        response_started: is_answered(session),
        client_gone: ctx.end.client_gone,
        nested: ctx.peer_trusted && is_nested(session, ctx),
        server_asks,
        time_left: ctx.deadline.map(|deadline| deadline.since(now)),
        random: policy.jitter.draw(),
    };
    let reason = match retry::decide(&policy.config, &attempt, ctx.stake.as_mut(), now) {
        Decision::Retry { after } => match permits(ctx, &route, now) {
            true => {
                grant(ctx, &route, after);
                return true;
            }
            false => "circuit_open",
        },
        Decision::Stop(reason) => reason.as_str(),
    };
    route.metrics.retry_stopped(reason);
    ctx.end.retry_stopped = Some(reason);
    false
}

fn is_nested(session: &Session, ctx: &Context) -> bool {
    let attempt_count = &ctx.snapshot.config.identifiers.attempt_count.0;
    pushback::is_retry(&session.req_header().headers, attempt_count)
}

/// A pooled connection that the upstream had closed already is replaced once, without
/// asking the retry policy: for requests that may be sent twice, or were `refused` unseen, and
/// only if a budget, where there is one, pays for it.
pub fn reconnect(session: &Session, ctx: &mut Context, refused: bool, now: Moment) -> bool {
    let may_resend = refused || session.req_header().method.is_idempotent();
    if !may_resend || ctx.reconnected || ctx.diverted.is_some() || is_answered(session) {
        return false;
    }
    if session.as_ref().retry_buffer_truncated() {
        return false;
    }
    if ctx.stake.as_mut().is_some_and(|stake| !stake.withdraw(now)) {
        return false;
    }
    ctx.reconnected = true;
    ctx.backoff = Some(Duration::ZERO);
    true
}

fn grant(ctx: &mut Context, route: &Route, after: Duration) {
    ctx.backoff = Some(after);
    ctx.end.retry_stopped = None;
    route.metrics.retried();
}

/// A permit from every breaker that counts attempts; all or none.
fn permits(ctx: &mut Context, route: &Route, now: Moment) -> bool {
    let acquire = |breaker: &Option<std::sync::Arc<Breaker>>| match breaker {
        Some(b) if b.config().count == Count::Attempts => b.acquire(now).map(Some).map_err(drop),
        Some(_) | None => Ok(None),
    };
    let (Ok(of_route), Ok(of_upstream)) =
        (acquire(&route.policies.route_breaker), acquire(&route.policies.upstream_breaker))
    else {
        return false;
    };
    if of_route.is_some() {
        ctx.admission.route_permit = of_route;
    }
    if of_upstream.is_some() {
        ctx.admission.upstream_permit = of_upstream;
    }
    true
}

/// Whether a final head has gone to the client: nothing can be taken back then.
pub fn is_answered(session: &Session) -> bool {
    session
        .as_ref()
        .response_written()
        .is_some_and(|head| !head.status.is_informational() || head.status == 101)
}

/// The status the client got; 499 if it left before it got one.
pub fn status_of(session: &Session, ctx: &Context) -> u16 {
    match session.as_ref().response_written() {
        Some(head) if !head.status.is_informational() || head.status == 101 => head.status.as_u16(),
        Some(_) | None if ctx.end.client_gone => 499,
        Some(_) | None => 0,
    }
}

/// Whether anything will come after `response`'s head.
pub fn has_body(session: &Session, response: &ResponseHeader) -> bool {
    let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    let head_only = session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    !empty && !head_only
}
