//! A request's row: what it says, and at which of the two moments it is written.
//!
//! `durable` and `sync` commit before the first byte of the answer and complete the row at the end;
//! `async` writes it once, at the end.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use pingora_proxy::Session;

use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::report::summary;
use crate::proxy::report::summary::Sent;
use crate::record::{
    Bounded, Captured, Commit, Completion, Invocation, Mode, Patience, Recorder, new_id,
};
use crate::summary::ending::Ending;
use crate::summary::{Head, Opening, Summary};
use crate::time::{Clock, Moment};

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
    ctx.row.id.get_or_insert_with(|| new_id(ctx.received_at));
    let sent = Sent { status, body_bytes: session.as_ref().body_bytes_sent() as u64 };
    let so_far = summary::summary(ctx, summary::ending(ctx, status), sent, now);
    let row = Bounded::from(row(ctx, &so_far));
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
        Err(error) => {
            ctx.row.commit = Commit::Failed;
            ctx.verdict.said = Some(error.to_string().into());
            Err(Rejection::RecordUnavailable)
        }
    }
}

/// How long the store may take.
fn patience(ctx: &Context, now: Moment) -> Patience {
    let stalled = *ctx.snapshot.config.record.commit_timeout;
    let most = ctx.deadline.map_or(LONGEST_WAIT, |deadline| deadline.since(now));
    // The gateway's own answers often follow a deadline that has passed.
    let most = if ctx.end.rejection().is_some() { most.max(stalled) } else { most };
    Patience { stalled: stalled.min(most), most }
}

/// What the row takes from its request at the end.
pub struct Finished {
    /// The row as it was committed, if it was.
    first: Option<Bounded>,
    commit: Commit,
}

/// Takes what the row of a request that has ended begins with.
pub fn finished(ctx: &mut Context) -> Finished {
    Finished { first: ctx.row.answered.take(), commit: ctx.row.commit }
}

/// Hands the finished request's row over, if its route records. Never waits.
pub fn finish(
    recorder: Option<&Recorder>,
    ctx: &Context,
    summary: &Summary<'_>,
    finished: Finished,
) {
    let (Some(route), Some(recorder)) = (&ctx.route, recorder) else { return };
    if !summary.ending.is_invocation() {
        return;
    }
    let mode = route.record.mode;
    match mode {
        Mode::Off => {}
        Mode::Async => recorder.enqueue(row(ctx, summary)),
        // Also corrects, or makes, the row of a request whose commit failed.
        Mode::Durable | Mode::Sync => {
            let first = finished.first.unwrap_or_else(|| begun(ctx, &summary.opening).into());
            recorder.complete(first, completion(ctx, summary), mode, finished.commit);
        }
    }
}

/// The row: its opening, completed by the summary.
fn row(ctx: &Context, summary: &Summary<'_>) -> Invocation {
    let mut row = begun(ctx, &summary.opening);
    row.ends(completion(ctx, summary));
    row
}

/// What does not change any more once the row is first written.
fn begun(ctx: &Context, opening: &Opening<'_>) -> Invocation {
    let Opening {
        id,
        received_at,
        request_id,
        trace_id,
        // No column has them.
        listener: _,
        certificate: _,
        head,
        route,
        consumer,
        client,
        protocol,
        generation,
        // Needed only to replay recorded requests; no column yet.
        decided_after: _,
        limit_keys,
    } = *opening;
    let (method, path, query, host) = match head {
        Some(Head { method, path, query, host }) => {
            (method.cloned().unwrap_or_default(), path.unwrap_or_default().to_owned(), query, host)
        }
        None => Default::default(),
    };
    let route = route.cloned().unwrap_or_else(|| "".into());
    let mut row = Invocation::new(received_at, request_id.into(), route, method, path);
    row.id = id.unwrap_or(row.id);
    row.trace_id = trace_id;
    let kept = ctx.route.as_ref().and_then(|route| route.recorded_query.as_ref());
    row.query = kept.zip(query).map(|(kept, query)| kept.redacted(query));
    row.host = host.map(|host| String::from_utf8_lossy(host).into_owned());
    row.generation = Some(generation);
    row.limit_keys = in_text(limit_keys);
    row.consumer = consumer.map(Into::into);
    row.client_address = Some(client);
    row.protocol = Cow::Borrowed(protocol);
    row
}

/// Digests as the record keeps them.
fn in_text(keys: &[u64]) -> Option<String> {
    let mut text = String::with_capacity(keys.len() * 17);
    for key in keys {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing into memory does not fail.
        let _ = write!(text, "{key:016x}");
    }
    (!text.is_empty()).then_some(text)
}

/// What the row learns at the end.
fn completion(ctx: &Context, summary: &Summary<'_>) -> Completion {
    Completion {
        upstream: summary.upstream.cloned(),
        endpoint: summary.endpoint.cloned(),
        status: summary.status,
        upstream_status: summary.upstream_status,
        success: summary.ending.is_success(),
        attempts: summary.attempts,
        rejection: summary.ending.recorded_rejection().map(Cow::Borrowed),
        cause: summary.ending.cause().map(Cow::Borrowed),
        would_refuse: summary.would_refuse.map(Cow::Borrowed),
        duration: summary.duration,
        upstream_duration: summary.upstream_duration,
        bytes_in: summary.bytes_in.unwrap_or(0),
        bytes_out: summary.bytes_out,
        captured: captured(ctx, summary),
    }
}

/// What was captured, and of a failed request what it failed with.
fn captured(ctx: &Context, summary: &Summary<'_>) -> Captured {
    let capture = ctx.route.as_ref().and_then(|route| route.capture.as_ref());
    match capture.filter(|capture| capture.wants_errors() && !summary.ending.is_success()) {
        Some(capture) => capture.with_error(&ctx.row.captured, &error_message(summary)),
        None => ctx.row.captured.captured().clone(),
    }
}

/// What the client of a failed request was told, or would have been.
fn error_message<'a>(summary: &Summary<'a>) -> Cow<'a, str> {
    match summary.ending {
        Ending::ClientGone { .. } => return "the client went away".into(),
        Ending::Refused(refusal) | Ending::BrokeOff(refusal) => return refusal.detail.into(),
        Ending::Cut { why, .. } => return why.phrase().into(),
        Ending::Answered
        | Ending::Failed { .. }
        | Ending::Replayed { .. }
        | Ending::Unforwarded
        | Ending::NoRequest(_) => {}
    }
    if let Some(said) = summary.error {
        return said.into();
    }
    match summary.upstream_status.unwrap_or(summary.status) {
        status @ 400.. => format!("the upstream answered {status}").into(),
        // An error of RPC that says nothing.
        _ => "the upstream failed".into(),
    }
}

/// Notes what an upstream says of its error, where the record wants to know.
pub fn note_error(ctx: &mut Context, message: impl FnOnce() -> Option<String>) {
    let capture = ctx.route.as_ref().and_then(|route| route.capture.as_ref());
    if capture.is_some_and(|capture| capture.wants_errors()) {
        ctx.row.error = message();
    }
}
