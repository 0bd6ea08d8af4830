//! Where the next attempt goes, and when.

use std::time::Duration;

use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_proxy::Session;

use crate::observe::trace::context::SpanId;
use crate::policy::rate_limit::Requester;
use crate::proxy::attempt::peer::Phase;
use crate::proxy::exchange::context::{Attempt, Context, earlier};
use crate::proxy::exchange::signal::REJECTED;
use crate::proxy::exchange::times;
use crate::proxy::{attempt, report};
use crate::runtime::pins;
use crate::runtime::pins::Opened;
use crate::summary::attempt::Past;
use crate::summary::words::Words;
use crate::time::{Clock, Moment};
use crate::upstream::Ask;
use crate::upstream::balance::Policy;

/// Waits if this is a retry, chooses an endpoint, and starts the attempt's clock.
///
/// # Errors
/// The request is over: the rejection, if the client gets one, is in the context.
pub async fn next_peer(session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    // A retry: the wait before it must not count in the previous attempt's span.
    if ctx.attempts > 0 {
        report::spans::end_attempt(ctx, Clock::now());
    }
    if let Some(wait) = ctx.backoff.take()
        && let Err(error) = Box::pin(timed_back_off(session, ctx, wait)).await
    {
        let ended = attempt::ended::classify(&error, session, ctx, Clock::now());
        if let Some(cause) = ended.cause() {
            attempt::conclude::give_up(ctx, cause, Words::None);
        }
        attempt::failed::over(ctx, ended);
        return Err(error);
    }
    let Some(route) = ctx.route.clone() else { return Err(Error::new_in(REJECTED)) };
    let diverted = ctx.diverted.as_ref().map(|diverted| diverted.target.clone());
    let Some(target) = diverted.as_ref().or(route.upstream(ctx.drawn)) else {
        return Err(Error::new_in(REJECTED));
    };
    // The call to a fallback is no retry: the endpoints tried so far belong to another upstream.
    if let (Some(last), None) = (ctx.attempt.endpoint(), &diverted) {
        let last = last.clone();
        ctx.tried.push(last);
    }
    let tried = if diverted.is_some() { &[] } else { &*ctx.tried };
    let now = Clock::now();
    let key = match &target.upstream.config().balance {
        Policy::Hash(hash) => {
            let headers = &session.req_header().headers;
            let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
            hash.key.of(&requester, ctx.parameter)
        }
        Policy::LeastRequest | Policy::RoundRobin | Policy::Random | Policy::PeakEwma => None,
    };
    let ask = Ask { tried, key, random: fastrand::u64(..), in_flight: 0, now };
    let ticket = match target.upstream.pick(&ask) {
        Ok(ticket) => ticket,
        Err(unavailable) => {
            let rejection = attempt::conclude::without_endpoint(ctx, unavailable);
            ctx.end.refuse(rejection);
            return Err(Error::new_in(REJECTED));
        }
    };
    let endpoint = ticket.endpoint().clone();
    let attempt = *route.config.timeout.attempt;
    match ctx.attempts {
        0 => ctx.times.queue = times::apart(ctx, now.since(ctx.started), now),
        _ => pass(ctx),
    }
    times::attempt(ctx);
    ctx.attempts += 1;
    ctx.verdict.last_outcome = None;
    ctx.sent = None;
    ctx.attempt = Attempt {
        started: now,
        deadline: (!attempt.is_zero()).then(|| now + attempt),
        ticket: Some(ticket),
        span: Some(SpanId::random()),
        ..Attempt::default()
    };
    (ctx.body.request_bytes, ctx.body.response_bytes) = (0, 0);
    if let Some(tap) = &mut ctx.body.request_tap {
        tap.restart();
    }
    if let Some(envelopes) = &mut ctx.body.envelopes {
        envelopes.restart();
    }
    let phase = if route.config.websocket.is_some() && session.is_upgrade_req() {
        Phase::Upgrading
    } else if session.as_downstream_mut().is_body_done() {
        Phase::Waiting
    } else {
        Phase::Uploading
    };
    let deadline = earlier(ctx.attempt.deadline, ctx.deadline);
    let left = deadline.map(|deadline| deadline.since(now));
    if phase != Phase::Uploading {
        let limit = route.config.timeout.first_byte();
        ctx.attempt.first_byte_by = limit.map(|limit| now + limit);
    }
    ctx.guard(ctx.next_deadline());
    let timeouts = &route.config.timeout;
    let Some(opened) = Opened::to(target) else {
        return attempt::peer::of(&endpoint, target, &target.socket_check, timeouts, left, phase);
    };
    let check = opened.noting(&target.socket_check);
    ctx.attempt.opened = Some(opened);
    attempt::peer::of(&endpoint, target, &check, timeouts, left, phase)
}

/// The request's body is on its way: from now on the response's head is waited for, unless it is
/// waited for already, or is there.
pub fn uploaded(ctx: &mut Context) {
    if ctx.attempt.first_byte_by.is_some() || ctx.attempt.head_at.is_some() {
        return;
    }
    let limit = ctx.route.as_ref().and_then(|route| route.config.timeout.first_byte());
    if let Some(limit) = limit {
        ctx.attempt.first_byte_by = Some(Clock::now() + limit);
        ctx.guard(ctx.next_deadline());
    }
}

/// The attempt under way has a connection, and nothing has been sent on it.
///
/// # Errors
/// The certificate on it is not one of those that are pinned; the connection is closed.
pub fn pinned(ctx: &mut Context, digest: Option<&Digest>) -> Result<()> {
    let opened = ctx.attempt.opened.take();
    // Without TLS there is no certificate.
    let target = ctx.upstream().filter(|_| ctx.attempt.endpoint().is_some_and(|one| one.key.tls));
    let pins = target.map(|target| &target.upstream.config().tls.pins);
    let Some(pins) = pins.filter(|pins| !pins.is_empty()) else { return Ok(()) };
    let checked = pins::check(pins, digest);
    if let Some(opened) = opened {
        opened.settle(checked.is_err());
    }
    checked
}

/// The attempt under way has a connection, and its request is sent now.
pub fn connected(ctx: &mut Context, now: Moment) {
    ctx.attempt.connected = Some(now);
    ctx.times.connect += now.since(ctx.attempt.started);
}

/// Notes the attempt that another follows.
fn pass(ctx: &mut Context) {
    let attempt = &mut ctx.attempt;
    let Some(endpoint) = attempt.endpoint().map(|endpoint| endpoint.label.clone()) else { return };
    let ended = attempt.concluded.map_or(attempt.started, |(_, ended)| ended);
    ctx.past.push(Past {
        endpoint,
        after: attempt.started.since(ctx.started),
        duration: ended.since(attempt.started),
        status: attempt.upstream_status,
        failure: attempt.failure.take(),
    });
}

async fn timed_back_off(session: &mut Session, ctx: &mut Context, wait: Duration) -> Result<()> {
    let begun = Clock::now();
    let waited = back_off(session, ctx, wait).await;
    ctx.times.backoff += Clock::now().since(begun);
    waited
}

/// Waits before a retry, but stops if the client disconnects or the deadline passes.
async fn back_off(session: &mut Session, ctx: &mut Context, wait: Duration) -> Result<()> {
    if wait.is_zero() {
        return Ok(());
    }
    // The previous attempt is over, so its deadline no longer applies.
    (ctx.attempt.deadline, ctx.attempt.first_byte_by) = (None, None);
    ctx.guard(ctx.deadline);
    if !session.as_downstream_mut().is_body_done() {
        tokio::time::sleep(wait).await;
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        // Ends only when the client leaves or the guard fires.
        ended = session.as_downstream_mut().read_body_or_idle(true) => {
            Err(ended.err().unwrap_or_else(|| Error::new_down(REJECTED)).into_down())
        }
    }
}
