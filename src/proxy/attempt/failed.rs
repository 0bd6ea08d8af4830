//! An attempt that ended without a response, or in the middle of one.

use pingora_core::Error;
use pingora_proxy::Session;

use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::proxy::attempt::conclude::{conclude, conclude_request, give_up};
use crate::proxy::attempt::ended::{Ended, classify, classify_connect, is_refused, words};
use crate::proxy::attempt::retry::{elsewhere, reconnect, retry};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::sent::is_answered;
use crate::proxy::exchange::signal::{REJECTED, RETRY};
use crate::proxy::{attempt, response};
use crate::runtime::pins::UNPINNED;
use crate::summary::attempt::Connection;
use crate::time::Clock;

/// Records how an exchange broke off on a connection, which is `reused` if it has served another
/// request before. Returns true if there is another attempt; otherwise the request is over.
pub fn broke_off(
    session: &mut Session,
    ctx: &mut Context,
    error: &mut Error,
    reused: bool,
) -> bool {
    // Pingora leaves this undecided for reused connections, and panics if it stays so.
    error.retry.decide_reuse(reused);
    let connection = if reused { Connection::Reused } else { Connection::New };
    ctx.attempt.connection = Some(connection);
    if *error.etype() == RETRY {
        return true;
    }
    if *error.etype() == REJECTED {
        return false;
    }
    let stale = error.retry();
    let refused = is_refused(error);
    let ended = match refused {
        true => Ended::Upstream(Cause::RefusedStream),
        // Nothing was sent: it is as if there had been no connection.
        false if *error.etype() == UNPINNED => classify_connect(error, ctx, Clock::now()),
        false => classify(error, session, ctx, Clock::now()),
    };
    if session.was_upgraded() {
        // The end of a tunnel is not a failure, whichever side ends it.
        return false;
    }
    if is_answered(session) {
        midway(ctx, ended, error);
        return false;
    }
    let gone = reused && ended.outcome() == Some(Outcome::Reset);
    if stale && (refused || gone) && reconnect(session, ctx, refused, error, Clock::now()) {
        return true;
    }
    let ended = if stale && gone { Ended::Upstream(Cause::StaleConnection) } else { ended };
    let flaw = (ended == Ended::Upstream(Cause::InvalidResponse))
        .then(|| response::well_formed::flaw(error));
    let again = failed(session, ctx, ended, error);
    response::well_formed::explain(ctx, flaw);
    again
}

/// The exchange broke off after the response's head had gone to the client.
fn midway(ctx: &mut Context, ended: Ended, error: &mut Error) {
    match ended.rejection() {
        Some(rejection) => ctx.end.break_off(rejection),
        None => ctx.end.client_left_midway(),
    }
    if let Some(outcome) = ended.outcome() {
        conclude(ctx, outcome, Clock::now());
    }
    if let Some(cause) = ended.cause() {
        give_up(ctx, cause, words(error));
    }
}

/// Records how an attempt without a response ended. Returns true if there is another attempt;
/// otherwise the request has failed, as `error` describes.
pub fn failed(session: &mut Session, ctx: &mut Context, ended: Ended, error: &mut Error) -> bool {
    let now = Clock::now();
    // No connection came of the attempt: the sockets that it opened must not stay open.
    if let Some(opened) = ctx.attempt.opened.take() {
        opened.settle(true);
    }
    if let Some(outcome) = ended.outcome() {
        conclude(ctx, outcome, now);
    }
    let cause = ended.cause();
    let failure = cause.and_then(|cause| attempt::conclude::failure(ctx, cause, words(error)));
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
