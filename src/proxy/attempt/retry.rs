//! Whether there is another attempt, and what it costs.

use std::time::Duration;

use pingora_core::Error;
use pingora_proxy::Session;

use crate::policy::failure::Cause;
use crate::policy::order::{self, Again};
use crate::policy::outcome::Outcome;
use crate::policy::retry;
use crate::policy::retry::{Decision, Pushback, Reason, pushback};
use crate::proxy::attempt;
use crate::proxy::attempt::conclude::failure;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::sent::is_answered;
use crate::proxy::response;
use crate::runtime::snapshot::Route;
use crate::time::Moment;

/// The one decision on another attempt. It takes into account what the upstream's response, if
/// there was one, asks for. If it returns true, the budget has been charged, the breakers' permits
/// are held, and `ctx.backoff` says how long to wait.
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
    let last = retry::Attempt {
        outcome,
        method: &session.req_header().method,
        keyed: response::keeping::is_held(ctx),
        retries_done: ctx.attempts.saturating_sub(1 + ctx.moves),
        body_replayable: !session.as_ref().retry_buffer_truncated(),
        response_started: is_answered(session),
        client_gone: ctx.end.is_client_gone(),
        nested: ctx.peer_trusted && is_nested(session, ctx),
        server_asks,
        time_left: ctx.deadline.map(|deadline| deadline.since(now)),
        random: policy.jitter.draw(),
    };
    let reason = match retry::decide(&policy.config, &last, ctx.stake.as_mut(), now) {
        Decision::Retry { after } => {
            let policies = route.policies(ctx.drawn);
            match order::again(policies, &mut ctx.admission, &mut ctx.dry_run, now) {
                Again::Granted => return grant(ctx, &route, after),
                Again::GrantedDry => {
                    attempt::dry_run::would_stop(ctx, outcome, now);
                    return grant(ctx, &route, after);
                }
                Again::Refused => "circuit_open",
            }
        }
        Decision::Stop(reason) => reason.as_str(),
    };
    route.metrics.retry_stopped(reason);
    ctx.verdict.retry_stopped = Some(reason);
    false
}

fn is_nested(session: &Session, ctx: &Context) -> bool {
    let attempt_count = &ctx.snapshot.config.identifiers.attempt_count.0;
    pushback::is_retry(&session.req_header().headers, attempt_count)
}

/// Goes to another endpoint in place of one that could not be connected to: nothing was sent. It is no
/// retry: the policy is not asked, and `max_retries` does not count it. But it is paid from the budget,
/// where there is one, and takes permits as a retry does. Each endpoint is tried once.
pub fn elsewhere(session: &Session, ctx: &mut Context, outcome: Outcome, now: Moment) -> bool {
    let is_unconnected = match outcome {
        Outcome::ConnectFailure | Outcome::TlsFailure | Outcome::ConnectTimeout => true,
        Outcome::Response(_)
        | Outcome::RefusedStream
        | Outcome::Reset
        | Outcome::Timeout
        | Outcome::Protocol
        | Outcome::Grpc(_) => false,
    };
    let Some(route) = ctx.route.clone() else { return false };
    let (Some(target), Some(last)) = (route.upstream(ctx.drawn), ctx.attempt.endpoint()) else {
        return false;
    };
    if !is_unconnected
        || ctx.diverted.is_some()
        || !target.upstream.has_other(&ctx.tried, last)
        || is_answered(session)
        || ctx.end.is_client_gone()
        || session.as_ref().retry_buffer_truncated()
        || ctx.deadline.is_some_and(|deadline| now >= deadline)
    {
        return false;
    }
    if ctx.stake.as_mut().is_some_and(|stake| !stake.withdraw(now)) {
        return false;
    }
    match order::again(route.policies(ctx.drawn), &mut ctx.admission, &mut ctx.dry_run, now) {
        Again::Granted => {}
        Again::GrantedDry => attempt::dry_run::would_stop(ctx, outcome, now),
        Again::Refused => return false,
    }
    target.metrics.moved_on();
    ctx.moves += 1;
    ctx.backoff = Some(Duration::ZERO);
    true
}

/// Replaces a pooled connection that the upstream had already closed, once and without asking the
/// retry policy. This is only for requests that may be sent twice or were `refused` unprocessed,
/// and only if the budget, where there is one, allows it. If not, that is noted, and stands unless
/// the retry policy has something to say.
pub fn reconnect(
    session: &Session,
    ctx: &mut Context,
    refused: bool,
    error: &mut Error,
    now: Moment,
) -> bool {
    let may_resend = refused || session.req_header().method.is_idempotent();
    let obstacle = if is_answered(session) {
        Some(Reason::ResponseStarted)
    } else if !may_resend {
        Some(Reason::Method)
    } else if ctx.reconnected {
        Some(Reason::Exhausted)
    } else if session.as_ref().retry_buffer_truncated() {
        Some(Reason::BodyTooLarge)
    } else {
        None
    };
    if ctx.diverted.is_some() {
        return false;
    }
    let stop = obstacle.or_else(|| {
        let is_spent = ctx.stake.as_mut().is_some_and(|stake| !stake.withdraw(now));
        is_spent.then_some(Reason::Budget)
    });
    if let Some(reason) = stop {
        // A route without a retry policy has no retries to exhaust.
        let has_policy = ctx.route.as_ref().is_some_and(|route| route.retry.is_some());
        if has_policy || reason != Reason::Exhausted {
            ctx.verdict.retry_stopped = Some(reason.as_str());
        }
        return false;
    }
    ctx.reconnected = true;
    let cause = if refused { Cause::RefusedStream } else { Cause::StaleConnection };
    ctx.attempt.failure = failure(ctx, cause, attempt::ended::words(error));
    ctx.backoff = Some(Duration::ZERO);
    true
}

/// Returns true: there is another attempt.
fn grant(ctx: &mut Context, route: &Route, after: Duration) -> bool {
    ctx.backoff = Some(after);
    ctx.verdict.retry_stopped = None;
    route.metrics.retried();
    true
}
