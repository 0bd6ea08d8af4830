//! An attempt that ended without a response.

use pingora_core::Error;
use pingora_proxy::Session;

use crate::policy::failure::Cause;
use crate::proxy::attempt;
use crate::proxy::attempt::conclude::{conclude, conclude_request};
use crate::proxy::attempt::ended::Ended;
use crate::proxy::attempt::retry::{elsewhere, retry};
use crate::proxy::exchange::context::Context;
use crate::time::Clock;

/// Records how an attempt without a response ended. Returns true if there is another attempt;
/// otherwise the request has failed, as `error` describes.
pub fn failed(session: &mut Session, ctx: &mut Context, ended: Ended, error: &mut Error) -> bool {
    let now = Clock::now();
    // What it has opened and is not connected by must not stay open for it.
    if let Some(opened) = ctx.attempt.opened.take() {
        opened.settle(true);
    }
    if let Some(outcome) = ended.outcome() {
        conclude(ctx, outcome, now);
    }
    let failure = ended
        .cause()
        .and_then(|cause| attempt::conclude::failure(ctx, cause, attempt::ended::words(error)));
    let of_upstream = ended.outcome().filter(|_| ended != Ended::Upstream(Cause::DeadlineExceeded));
    if let Some(outcome) = of_upstream
        && (elsewhere(session, ctx, outcome, now) || retry(session, ctx, outcome, None, now))
    {
        ctx.attempt.failure = failure;
        return true;
    }
    if let Some(outcome) = ended.outcome() {
        conclude_request(ctx, outcome, now);
    }
    if failure.is_some() {
        ctx.verdict.failure = failure;
    }
    if let Some(outcome) = of_upstream
        && attempt::divert::after(session, ctx, outcome, now)
    {
        return true;
    }
    over(ctx, ended);
    false
}

/// There is no other attempt: the client is told how the last one ended, unless it has left.
pub fn over(ctx: &mut Context, ended: Ended) {
    match ended.rejection() {
        Some(rejection) => ctx.end.refuse(rejection),
        None => ctx.end.client_left(),
    }
}
