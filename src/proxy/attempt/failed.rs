//! An attempt that ended without a response.

use pingora_core::Error;
use pingora_proxy::Session;

use crate::policy::failure::Cause;
use crate::proxy::attempt;
use crate::proxy::attempt::conclude::{conclude, conclude_request, give_up};
use crate::proxy::attempt::ended::Ended;
use crate::proxy::attempt::retry::retry;
use crate::proxy::exchange::context::Context;
use crate::time::Clock;

/// Records how an attempt without a response ended. Returns true if there is another attempt;
/// otherwise the description of `error` goes to the log.
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
        give_up(ctx, cause, attempt::ended::words(error));
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
