//! What is told of a request when it has ended: to circuits and bulkheads, to the record, the trace and the
//! metrics. [`ended`] is where all of them are told, once.
//!
//! | file | what it is for |
//! |---|---|
//! | [`recording`] | the row: what it says, and at which of two moments it is written |
//! | [`spans`] | the trace: a span for each attempt, and one for the request |

pub mod recording;
pub mod spans;

use pingora_proxy::Session;

use crate::proxy::exchange::context::Context;
use crate::proxy::{attempt, exchange, response};
use crate::runtime::shared::Shared;
use crate::time::Clock;

/// The request is over, and `well` if nothing broke off. Never waits.
pub fn ended(shared: &Shared, session: &Session, ctx: &mut Context, well: bool) {
    response::keeping::ended(ctx, well);
    let now = Clock::now();
    let mut status = exchange::sent::status_of(session, ctx);
    if !ctx.end.client_gone
        && ctx.end.rejection.is_none()
        && let Some(outcome) = ctx.attempt.answered
    {
        attempt::conclude::conclude(ctx, outcome, now);
    }
    if !ctx.end.client_gone
        && let Some(outcome) = ctx.end.last_outcome
    {
        attempt::conclude::conclude_request(ctx, outcome, now);
        // What another upstream took says nothing about this one.
        if ctx.diverted.is_none()
            && let Some(slot) = ctx.admission.slot.take()
        {
            slot.release(now);
        }
    }
    if ctx.connection.as_ref().is_some_and(|connection| connection.guard.detachment.is_deserted()) {
        (ctx.end.client_gone, status) = (true, 499);
    }
    if !ctx.end.preflight {
        recording::finish(shared.recorder.as_ref(), session, ctx, status, now);
    }
    spans::finish(&shared.tracer, session, ctx, status, now);
    let metrics = match &ctx.route {
        Some(route) => &route.metrics,
        None => &shared.unrouted,
    };
    metrics.answered(ctx.protocol.family(), status, now.since(ctx.started));
    if let Some(rejection) = &ctx.end.rejection {
        metrics.rejected(rejection.code());
    }
}
