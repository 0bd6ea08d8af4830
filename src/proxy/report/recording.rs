//! A request's row: what it says, and at which of the two moments it is written.
//!
//! `durable` and `sync` commit before the first byte of the answer and complete the row at the end;
//! `async` writes it once, at the end.

use std::borrow::Cow;
use std::time::Duration;

use pingora_proxy::Session;

use crate::policy::failure;
use crate::policy::fallback::Cause;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::record::{
    Bounded, Capture, Captured, Commit, Ending, Invocation, Mode, Patience, Recorder,
};
use crate::time::{Clock, Moment};

/// What the record calls a response that is given again. It stands in the column of refusals, though it is
/// not one.
const REPLAYED: &str = "idempotent_replay";

/// How long a busy store is waited for by a request without a deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The request is on its way to an upstream; its row will be committed when that has answered.
pub fn expect(recorder: Option<&Recorder>, ctx: &mut Context) {
    let mode = ctx.route.as_ref().map(|route| route.record.mode);
    ctx.row.expected = recorder.zip(mode).and_then(|(recorder, mode)| recorder.expect(mode));
}

/// Whether [`commit`] has anything to do for this request. For most it has not, and they need not have room
/// for it.
pub fn commits(recorder: Option<&Recorder>, ctx: &Context) -> bool {
    recorder.is_some()
        && ctx.route.as_ref().is_some_and(|route| match route.record.mode {
            Mode::Durable | Mode::Sync => true,
            Mode::Off | Mode::Async => false,
        })
}

/// Commit the row of a `durable` or `sync` route; for any other, nothing. `status` is about to be sent.
///
/// # Errors
/// The row could not be committed, and the route wants the answer withheld then.
pub async fn commit(
    recorder: Option<&Recorder>,
    session: &Session,
    ctx: &mut Context,
    status: u16,
) -> Result<(), Rejection> {
    let expected = ctx.row.expected.take();
    let Some(route) = ctx.route.clone() else { return Ok(()) };
    let Some(recorder) = recorder else { return Ok(()) };
    let mode = route.record.mode;
    match mode {
        Mode::Off | Mode::Async => return Ok(()),
        Mode::Durable | Mode::Sync => {}
    }
    match ctx.row.commit {
        Commit::NotTried => {}
        // What failed is answered with a refusal that says so: it is not tried for that again.
        Commit::Made(_) | Commit::Failed => return Ok(()),
    }
    let now = Clock::now();
    let patience = patience(ctx, now);
    let row = Bounded::from(row(session, ctx, status, now));
    ctx.row.answered = Some(row.clone());
    // No deadline runs meanwhile: the store's time is not the upstream's.
    ctx.guard(None);
    let terms = (mode, route.record.on_failure);
    let outcome = recorder.commit(row, expected, patience, terms).await;
    let waited = Clock::now().since(now);
    ctx.attempt.deadline = ctx.attempt.deadline.map(|deadline| deadline + waited);
    ctx.guard(ctx.next_deadline());
    match outcome {
        Ok(committed) => {
            ctx.row.commit = Commit::Made(committed);
            Ok(())
        }
        Err(_) => {
            ctx.row.commit = Commit::Failed;
            Err(Rejection::RecordUnavailable)
        }
    }
}

/// How long the store may take.
fn patience(ctx: &Context, now: Moment) -> Patience {
    let stalled = *ctx.snapshot.config.record.commit_timeout;
    let most = ctx.deadline.map_or(LONGEST_WAIT, |deadline| deadline.since(now));
    // The gateway's own answers often follow a deadline that has passed.
    let most = if ctx.end.rejection.is_some() { most.max(stalled) } else { most };
    Patience { stalled: stalled.min(most), most }
}

/// Hand the finished request's row over, if its route records. Never waits.
pub fn finish(
    recorder: Option<&Recorder>,
    session: &Session,
    ctx: &mut Context,
    status: u16,
    now: Moment,
) {
    let (Some(route), Some(recorder)) = (&ctx.route, recorder) else { return };
    let (mode, commit) = (route.record.mode, ctx.row.commit);
    match mode {
        Mode::Off => {}
        Mode::Async => recorder.enqueue(row(session, ctx, status, now)),
        // Also corrects, or makes, the row of a request whose commit failed.
        Mode::Durable | Mode::Sync => {
            let answered = ctx.row.answered.take();
            let first = answered.unwrap_or_else(|| begun(session, ctx).into());
            recorder.complete(first, ending(session, ctx, status, now), mode, commit);
        }
    }
}

/// The row as it is known now.
fn row(session: &Session, ctx: &mut Context, status: u16, now: Moment) -> Invocation {
    let mut row = begun(session, ctx);
    row.ends(ending(session, ctx, status, now));
    row
}

/// What has become of the request by now.
fn ending(session: &Session, ctx: &Context, status: u16, now: Moment) -> Ending {
    let replayed = ctx.end.replayed.then_some(REPLAYED);
    let code = ctx.end.rejection.as_ref().map(Rejection::code).or(replayed);
    Ending {
        upstream: ctx.upstream().map(|target| target.upstream.name.clone()),
        endpoint: ctx.attempt.endpoint.as_ref().map(|endpoint| endpoint.label.clone()),
        status,
        upstream_status: ctx.attempt.upstream_status,
        success: succeeded(ctx, status),
        attempts: ctx.attempts,
        rejection: code.map(Cow::Borrowed),
        cause: cause(ctx, status).map(Cow::Borrowed),
        duration: now.since(ctx.started),
        upstream_duration: ctx.attempt.upstream_duration,
        bytes_in: ctx.body.request_bytes,
        bytes_out: session.as_ref().body_bytes_sent() as u64,
        captured: captured(ctx, status),
    }
}

/// What was captured, and of a failed request what it failed with.
fn captured(ctx: &Context, status: u16) -> Captured {
    let capture = ctx.route.as_ref().and_then(|route| route.capture.as_ref());
    match capture.filter(|capture| capture.wants_errors() && !succeeded(ctx, status)) {
        Some(capture) => capture.with_error(&ctx.row.captured, &error_message(ctx, status)),
        None => ctx.row.captured.captured().clone(),
    }
}

/// What the client of a failed request was told, or would have been.
fn error_message(ctx: &Context, status: u16) -> Cow<'_, str> {
    if ctx.end.client_gone {
        return "the client went away".into();
    }
    let refused = ctx.end.broke_off.as_ref().or(ctx.end.rejection.as_ref());
    if let Some(rejection) = refused {
        return rejection.detail().into();
    }
    if let Some(said) = &ctx.row.error {
        return said.into();
    }
    if ctx.end.truncated {
        return "the upstream broke off".into();
    }
    match ctx.attempt.upstream_status.unwrap_or(status) {
        status @ 400.. => format!("the upstream answered {status}").into(),
        // An error of RPC that says nothing.
        _ => "the upstream failed".into(),
    }
}

/// Note what an upstream says of its error, where the record wants to know.
pub fn note_error(ctx: &mut Context, message: impl FnOnce() -> Option<String>) {
    let capture = ctx.route.as_ref().and_then(|route| route.capture.as_ref());
    if capture.is_some_and(Capture::wants_errors) {
        ctx.row.error = message();
    }
}

/// What does not change any more once the row is first written.
fn begun(session: &Session, ctx: &mut Context) -> Invocation {
    let request = session.req_header();
    let path = ctx.recorded_path.clone().unwrap_or_else(|| request.uri.path().to_owned());
    let route = ctx.route.as_ref();
    let name = route.map_or_else(|| "".into(), |route| route.name.clone());
    let id = ctx.request_id().into();
    let mut row = Invocation::new(ctx.received_at, id, name, request.method.clone(), path);
    // One id for both writes.
    row.id = *ctx.row.id.get_or_insert(row.id);
    row.trace_id = ctx.trace_id().as_u128();
    let query = route.and_then(|route| route.recorded_query.as_ref()).zip(request.uri.query());
    row.query = query.map(|(kept, query)| kept.redacted(query));
    row.consumer = ctx.identity.as_ref().map(|identity| identity.consumer().into());
    row.client_address = Some(ctx.client);
    row.protocol = Cow::Borrowed(ctx.protocol.family().as_str());
    row
}

/// Why the request failed: the upstream's failure if that is what the client was told of, else the code
/// of whatever the gateway refused it for.
fn cause(ctx: &Context, status: u16) -> Option<&'static str> {
    if succeeded(ctx, status) {
        return None;
    }
    if ctx.end.client_gone {
        return Some("client_gone");
    }
    let of_upstream = ctx.end.cause.map(failure::Cause::as_str);
    match ctx.end.rejection.as_ref().or(ctx.end.broke_off.as_ref()) {
        Some(rejection) if rejection.fallback_cause() == Some(Cause::AttemptsSpent) => {
            Some(of_upstream.unwrap_or_else(|| rejection.code()))
        }
        Some(rejection) => Some(rejection.code()),
        None => of_upstream.or_else(|| {
            let answered = ctx.attempt.answered.filter(|_| !ctx.end.replayed);
            answered.and_then(failure::Cause::of_answer).map(failure::Cause::as_str)
        }),
    }
}

/// The client got what it asked for: a response that is not an error, and all of it.
fn succeeded(ctx: &Context, status: u16) -> bool {
    (100..400).contains(&status)
        && ctx.end.rejection.is_none()
        && !ctx.end.rpc_failed
        && !ctx.end.client_gone
        && !ctx.end.truncated
}
