//! Waiting for a slot of the route's bulkhead: watching the client, and within the request's time.
//!
//! Whose turn it is, and who is given up, is decided in [`crate::policy::bulkhead`].

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use pingora_core::Error;
use pingora_proxy::Session;

use crate::policy;
use crate::policy::bulkhead::{InVain, Slot, Ticket};
use crate::policy::{Admission, Taken, order};
use crate::proxy::attempt::ended;
use crate::proxy::downstream::detachment::Detachment;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::fields::content_length;
use crate::proxy::exchange::signal::REJECTED;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::body;
use crate::runtime::snapshot::Route;
use crate::time::{Clock, Moment};

/// The largest body in bytes that is read while its request waits. As long as the body of a request
/// over HTTP/1 is not read, no read tells that the client has left.
const READ: usize = 16 * 1024;
/// How often the socket is asked then.
const LOOK: Duration = Duration::from_millis(200);
/// `TCP_ESTABLISHED` of Linux: in any other state of a connection that was accepted, its client has closed
/// its side, or reset it.
const ESTABLISHED: u8 = 1;

/// Waits for a slot, for a request that found none, and asks the circuits again. Sets `now` to the
/// end of the wait.
///
/// # Errors
/// No place in the queue is free, the wait was in vain, the client has left, or a circuit is open.
pub async fn for_slot(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    now: &mut Moment,
) -> Result<(), Rejection> {
    let policies = route.policies(ctx.drawn);
    let Some(bulkhead) = &policies.bulkhead else { return Ok(()) };
    let status = policies.bulkhead_status.code();
    let Ok(ticket) = bulkhead.wait(ctx.deadline, *now) else {
        return Err(policy::Rejection::BulkheadFull { what: Taken::Slots, status }.into());
    };
    // A half-open circuit must not wait for a call that may never be made. What waits counts for its caller.
    ctx.admission = Admission { share: ctx.admission.share.take(), ..Admission::default() };
    let begun = *now;
    let waited = wait(session, ctx, ticket).await;
    *now = Clock::now();
    route.metrics.waited(now.since(begun));
    let in_vain = match waited {
        Ok(slot) => {
            ctx.admission.slot = Some(slot);
            let (admission, dry_run) = (&mut ctx.admission, &mut ctx.dry_run);
            return Ok(order::after_wait(policies, admission, dry_run, *now)?);
        }
        Err(in_vain) => in_vain,
    };
    ctx.times.queue = now.since(ctx.started);
    route.metrics.waited_in_vain(in_vain.reason());
    Err(match in_vain {
        Why::Overload => {
            policy::Rejection::BulkheadWaitExceeded { why: InVain::Overload, status }.into()
        }
        Why::MaxWait => {
            policy::Rejection::BulkheadWaitExceeded { why: InVain::Expired, status }.into()
        }
        Why::Deadline => Rejection::DeadlineExceeded,
        Why::Client(rejection) => rejection,
    })
}

/// Why a request has waited in vain.
enum Why {
    /// It had waited longest while the queue stood.
    Overload,
    /// The queue's `max_wait` was over.
    MaxWait,
    /// The request's own time was over.
    Deadline,
    /// The client has left, which the context knows, or has sent its body too slowly or malformed.
    Client(Rejection),
}

impl Why {
    /// The label in the metrics.
    fn reason(&self) -> &'static str {
        match self {
            Why::Overload => "overload",
            Why::MaxWait => "max_wait",
            Why::Deadline => "deadline",
            Why::Client(_) => "client",
        }
    }
}

async fn wait(session: &mut Session, ctx: &mut Context, mut ticket: Ticket) -> Result<Slot, Why> {
    let until = ticket.until();
    let expired = match ctx.deadline {
        Some(deadline) if deadline <= until => Why::Deadline,
        Some(_) | None => Why::MaxWait,
    };
    let decided = async move {
        let verdict = tokio::select! {
            biased;
            verdict = poll_fn(|cx| ticket.poll(cx.waker())) => verdict,
            () = tokio::time::sleep_until(Clock::instant(until).into()) => Err(InVain::Expired),
        };
        verdict.map_err(|in_vain| match in_vain {
            InVain::Overload => Why::Overload,
            InVain::Expired => expired,
        })
    };
    let mut decided = pin!(decided);
    if is_small_and_unread(session, ctx) {
        let mut slot = None;
        let body = {
            let mut read = pin!(body::read_whole(session, ctx, READ));
            loop {
                tokio::select! {
                    biased;
                    // With a slot, the rest of the body is read all the same.
                    verdict = &mut decided, if slot.is_none() => slot = Some(verdict?),
                    body = &mut read => break body.map_err(Why::Client)?,
                }
            }
        };
        keep(ctx, body);
        if let Some(slot) = slot {
            return Ok(slot);
        }
    }
    tokio::select! {
        biased;
        verdict = &mut decided => verdict,
        why = left(session, ctx) => Err(why),
    }
}

/// Whether the body can be read now, and kept until it goes upstream.
fn is_small_and_unread(session: &mut Session, ctx: &Context) -> bool {
    // A stream of HTTP/2 says that its client has left, whether its body is read or not.
    if is_stream(ctx) || ctx.body.prepared.is_some() {
        return false;
    }
    let headers = &session.req_header().headers;
    let is_small = content_length(headers).is_some_and(|length| length <= READ as u64);
    is_small && !headers.contains_key(EXPECT) && !session.as_downstream_mut().is_body_done()
}

fn is_stream(ctx: &Context) -> bool {
    ctx.connection.as_ref().is_some_and(|connection| connection.orders.is_some())
}

fn keep(ctx: &mut Context, body: Bytes) {
    // Reading had a limit of its own.
    ctx.guard(ctx.deadline);
    ctx.body.request_bytes = body.len() as u64;
    ctx.body.prepared = Some(body);
}

/// Ends only once the client has left, with its body unread. Never, where the system does not tell.
async fn disconnected(session: &mut Session, ctx: &Context) {
    loop {
        tokio::time::sleep(LOOK).await;
        let digest = session.as_downstream().digest();
        let socket = digest.and_then(|digest| digest.socket_digest.as_ref());
        match socket.and_then(|socket| socket.tcp_info()).map(|info| info.tcpi_state) {
            Some(ESTABLISHED) => {}
            Some(_) => break,
            None => return pending().await,
        }
    }
    let detachment = ctx.connection.as_ref().map(|connection| &connection.guard.detachment);
    if detachment.is_some_and(Detachment::ignores_leaving) {
        pending().await
    }
}

/// Ends only once the client has left, or the request's time is over.
async fn left(session: &mut Session, ctx: &mut Context) -> Why {
    if !is_stream(ctx) && !session.as_downstream_mut().is_body_done() {
        // The next byte is one of the body, which is not to be read yet. The socket knows all the same.
        disconnected(session, ctx).await;
        ctx.end.client_left();
        return Why::Client(Rejection::RequestTimeout);
    }
    let read = session.as_downstream_mut().read_body_or_idle(true).await;
    let error = read.err().unwrap_or_else(|| Error::new_down(REJECTED)).into_down();
    let now = Clock::now();
    if ctx.deadline.is_some_and(|deadline| deadline <= now) {
        return Why::Deadline;
    }
    Why::Client(match ended::classify(&error, session, ctx, now).rejection() {
        Some(rejection) => rejection,
        None => {
            ctx.end.client_left();
            // The client has left, so this rejection is never sent.
            Rejection::RequestTimeout
        }
    })
}
