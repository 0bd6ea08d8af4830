//! What of a request's time was spent waiting for its client, which is told apart from the rest.

use std::time::Duration;

use crate::config::timeouts::Timeouts;
use crate::proxy::exchange::context::Context;
use crate::time::Moment;

/// The time for which the request has waited for its client so far.
pub fn of_client(ctx: &Context, now: Moment) -> Duration {
    ctx.connection.as_ref().map_or(Duration::ZERO, |c| c.guard.client_time.so_far(now))
}

/// `span`, which ends at `now`, less the part of it that was spent waiting for the client. That part is
/// noted: each span begins where the one before it has ended.
pub fn apart(ctx: &mut Context, span: Duration, now: Moment) -> Duration {
    let so_far = of_client(ctx, now);
    let waited = so_far.saturating_sub(ctx.times.client);
    ctx.times.client = so_far;
    span.saturating_sub(waited)
}

/// The request's body, of a length that `is_known` or not, is to come as fast as its route asks. Streams of RPC may be
/// as slow as they like.
pub fn uploading(ctx: &Context, timeouts: &Timeouts, is_known: bool) {
    if let Some(connection) = ctx.connection.as_ref().filter(|_| ctx.protocol.reads_json()) {
        let (rate, first, next) = timeouts.upload_pace(is_known);
        connection.guard.pace.ask(rate, first, next, Duration::ZERO);
    }
}

/// An attempt begins.
pub fn attempt(ctx: &Context) {
    if let Some(connection) = &ctx.connection {
        connection.guard.client_time.attempt();
    }
}

/// The head of the attempt's response is there: from now on its reader is waited for. Callers of RPC that stream may
/// stop reading for as long as they like.
pub fn answer(ctx: &Context, now: Moment) {
    if let Some(connection) = &ctx.connection {
        connection.guard.client_time.answer(now);
        // The upload's pace: from now on the gateway waits for the client only to read.
        connection.guard.pace.rest();
        let route = ctx.route.as_ref().filter(|_| ctx.protocol.reads_json());
        // Over HTTP/2 only whole pieces are seen to pass, which may be large.
        if let Some(route) = route.filter(|_| connection.orders.is_none()) {
            let (rate, window) = route.config.timeout.download_pace();
            connection.guard.pace.ask(rate, window, window, of_client(ctx, now));
        }
    }
}

/// The gateway answers by itself. How fast the request's body was sent no longer counts, and the time to read the
/// response has a limit of its own.
pub fn own_answer(ctx: &Context) {
    if let Some(connection) = &ctx.connection {
        connection.guard.pace.rest();
    }
}
