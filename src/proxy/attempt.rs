//! What became of an attempt, and whether there is another.
//!
//! Pingora reports an attempt's end from three phases and in two dozen error types. Here
//! each becomes one [`Ended`], is told to whoever counts attempts, and one function,
//! [`retry()`], decides for all three.

use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::rejection::Rejection;
use super::{divert, idempotency};
use crate::policy::breaker::{Breaker, Count, Permit};
use crate::policy::outcome::Outcome;
use crate::policy::retry::{self, Decision, Pushback, pushback};
use crate::runtime::snapshot::Route;
use crate::time::{Clock, Moment};

/// The error that asks Pingora for another attempt.
pub const RETRY: ErrorType = ErrorType::Custom("portcullis: retry");
/// The error that carries a rejection, kept in the context, to `fail_to_proxy`.
pub const REJECTED: ErrorType = ErrorType::Custom("portcullis: rejected");

/// Pingora's timers count whole milliseconds, and end a wait by up to one early.
const EARLY: Duration = Duration::from_millis(1);

/// The answer cannot be made into what the caller asked for.
pub const UNREADABLE: ErrorType = ErrorType::Custom("portcullis: unreadable answer");

/// Why an attempt has no (further) answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It says something about the upstream.
    Outcome(Outcome),
    /// The upstream's answer is complete, and none.
    Unreadable,
    /// The client went away.
    ClientGone,
    /// The client did not send its body in time.
    ClientSlow,
    /// The client sent a body that is none.
    ClientMalformed,
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The gateway itself failed.
    Internal,
}

impl Ended {
    /// What is known about the upstream from it.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Ended::Outcome(outcome) => Some(outcome),
            Ended::Unreadable => Some(Outcome::Protocol),
            Ended::DeadlineExceeded => Some(Outcome::Timeout),
            Ended::ClientGone | Ended::ClientSlow | Ended::ClientMalformed | Ended::Internal => {
                None
            }
        }
    }

    /// What the client is told, if it is still there.
    pub fn rejection(self) -> Option<Rejection> {
        match self {
            Ended::Outcome(outcome) => Some(Rejection::Attempt(outcome)),
            Ended::Unreadable => Some(Rejection::AnswerUnreadable),
            Ended::ClientGone => None,
            Ended::ClientSlow => Some(Rejection::RequestTimeout),
            Ended::ClientMalformed => Some(Rejection::BadRequest("the body is malformed".into())),
            Ended::DeadlineExceeded => Some(Rejection::DeadlineExceeded),
            Ended::Internal => Some(Rejection::Internal),
        }
    }
}

/// A connection could not be made: nothing was sent.
pub fn classify_connect(error: &Error, ctx: &Context, now: Moment) -> Ended {
    let timed_out =
        matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout);
    let early = if timed_out { EARLY } else { Duration::ZERO };
    if is_expired(ctx, now + early) {
        Ended::DeadlineExceeded
    } else if timed_out {
        Ended::Outcome(Outcome::ConnectTimeout)
    } else {
        Ended::Outcome(Outcome::ConnectFailure)
    }
}

/// Something broke while the request or its answer was passing through.
pub fn classify(error: &Error, session: &mut Session, ctx: &Context, now: Moment) -> Ended {
    let body_done = session.as_downstream_mut().is_body_done();
    let expired = ctx.next_deadline().is_some_and(|deadline| now >= deadline);
    match error.esource() {
        ErrorSource::Downstream if ctx.is_malformed() => Ended::ClientMalformed,
        ErrorSource::Downstream => match error.etype() {
            // A client that does not fetch its answer holds the request up, not the upstream.
            ErrorType::WriteError if expired => Ended::ClientSlow,
            ErrorType::ReadError if expired => {
                // The guard fires where the client is being waited for: with its body still
                // to come, that is what held the request up.
                if body_done { timed_out(ctx, now) } else { Ended::ClientSlow }
            }
            ErrorType::ReadTimedout => Ended::ClientSlow,
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed
            | ErrorType::H2Error
            // Bytes after the body: whoever sent them does not wait for an answer.
            | ErrorType::ConnectError => Ended::ClientGone,
            _ => Ended::ClientMalformed,
        },
        ErrorSource::Upstream => match error.etype() {
            // Reads of the upstream restart with every chunk of the client's body, and time
            // out when it stalls.
            ErrorType::ReadTimedout if !body_done => Ended::ClientSlow,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => timed_out(ctx, now),
            ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => {
                Ended::Outcome(Outcome::Protocol)
            }
            etype if *etype == UNREADABLE => Ended::Unreadable,
            _ => Ended::Outcome(Outcome::Reset),
        },
        ErrorSource::Internal | ErrorSource::Unset => Ended::Internal,
    }
}

/// Every wait is cut to the deadline, and this one has lasted too long.
fn timed_out(ctx: &Context, now: Moment) -> Ended {
    if is_expired(ctx, now + EARLY) {
        Ended::DeadlineExceeded
    } else {
        Ended::Outcome(Outcome::Timeout)
    }
}

fn is_expired(ctx: &Context, now: Moment) -> bool {
    ctx.deadline.is_some_and(|deadline| now >= deadline)
}

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
    for (permit, breaker) in permits.into_iter().zip(breakers) {
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
        }
    }
}

/// Remember how an attempt without an answer ended, and whether there is another one.
pub fn failed(session: &mut Session, ctx: &mut Context, ended: Ended) -> bool {
    let now = Clock::now();
    if let Some(outcome) = ended.outcome() {
        conclude(ctx, outcome, now);
    }
    let of_upstream = ended.outcome().filter(|_| ended != Ended::DeadlineExceeded);
    if let Some(outcome) = of_upstream
        && retry(session, ctx, outcome, None, now)
    {
        return true;
    }
    if let Some(outcome) = ended.outcome() {
        conclude_request(ctx, outcome, now);
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

/// The upstream says that it has not looked at the request: it refused its stream, or closes the
/// connection and had not come to it. Pingora marks both where it learns of it by reading. A stream
/// that is gone when its body is to be written has lost its reason, and counts as reset, which
/// promises nothing.
pub fn is_refused(error: &Error) -> bool {
    error.retry() && matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
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
    route.metrics.retries.inc();
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
