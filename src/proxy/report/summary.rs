//! Makes the two values that everything is told from: a request's opening, and its summary.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use http::Uri;

use crate::policy::failure::Cause;
use crate::proxy::exchange;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::{Delivery, Response};
use crate::proxy::rejection::{Rejection, row};
use crate::proxy::report::{fault, limit};
use crate::runtime::snapshot::{Served, Target};
use crate::summary::attempt::{Limit, Times};
use crate::summary::ending::{self, Cut, Ending, NoRequest, Refusal};
use crate::summary::{Head, Opening, Summary};
use crate::time::Moment;

/// What has gone to the client.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// As in [`Summary`].
    pub status: u16,
    /// Bytes of the response's body.
    pub body_bytes: u64,
}

/// What came instead of a request.
#[derive(Debug, Clone, Copy)]
pub struct Lost<'a> {
    /// The listener that it came through.
    pub listener: &'a str,
    /// In one word.
    pub why: NoRequest,
    /// The status that the client was answered all the same; 0 if none was.
    pub status: u16,
    /// The error's own words.
    pub said: Option<&'a str>,
    /// The time limit that was reached.
    pub limit: Option<Limit>,
    /// Since the client connected, or had its last response.
    pub took: Duration,
}

/// What is known of a request once its route and its client are.
pub fn opening(ctx: &Context) -> Opening<'_> {
    let asked = &ctx.asked;
    Opening {
        id: ctx.row.id,
        received_at: ctx.received_at,
        request_id: ctx.request_id(),
        trace_id: ctx.trace_id().as_u128(),
        listener: ctx.connection.as_ref().map(|connection| &*connection.inbound.listener),
        head: Some(Head {
            method: asked.method.as_ref(),
            path: ctx.recorded_path.as_deref().or_else(|| asked.path()),
            query: asked.uri.as_ref().and_then(Uri::query),
            host: asked.host(),
        }),
        route: ctx.route.as_ref().map(|route| &route.name),
        consumer: ctx.identity.as_ref().map(|identity| identity.consumer()),
        certificate: ctx.connection.as_ref().and_then(|connection| connection.shown()),
        client: ctx.client,
        protocol: ctx.protocol.family().as_str(),
        generation: ctx.snapshot.generation,
        decided_after: ctx.decided.map_or(Duration::ZERO, |decided| decided.since(ctx.started)),
        limit_keys: &ctx.limit_keys,
    }
}

/// What has become of a request by `now`, of which `sent` has gone to the client.
pub fn summary<'a>(ctx: &'a Context, ending: Ending<'a>, sent: Sent, now: Moment) -> Summary<'a> {
    let times = times(ctx, now);
    Summary {
        opening: opening(ctx),
        ending,
        fault: fault::of(ctx, &ending, &times, now),
        status: sent.status,
        upstream: ctx.upstream().map(|target| &target.upstream.name),
        endpoint: ctx.attempt.endpoint().map(|endpoint| &endpoint.label),
        upstream_status: ctx.attempt.upstream_status,
        attempts: ctx.attempts,
        would_refuse: ctx.dry_run.would_refuse(),
        no_retry: no_retry(ctx),
        limit: limit::reached(ctx, now),
        said: ctx.end.rejection().and(ctx.verdict.said.as_deref()),
        failure: ctx.verdict.failure.as_deref(),
        past: &ctx.past,
        times,
        error: ctx.row.error.as_deref(),
        duration: now.since(ctx.started),
        upstream_duration: ctx.attempt.upstream_duration,
        bytes_in: bytes_in(ctx),
        bytes_out: sent.body_bytes,
    }
}

/// What has come of the request's body: as it was read before the first attempt, or as it passed in
/// the last one.
fn bytes_in(ctx: &Context) -> Option<u64> {
    ctx.body.received.or((ctx.attempts > 0).then_some(ctx.body.request_bytes))
}

/// Why there was no other attempt after one that failed: as the policy decided, or without it.
pub fn no_retry(ctx: &Context) -> Option<&'static str> {
    let route = ctx.route.as_ref()?;
    let failure = ctx.verdict.failure.as_ref().filter(|_| ctx.attempts > 0);
    ctx.verdict.retry_stopped.or_else(|| {
        Some(match (failure?.cause, ctx.end.delivery()) {
            (_, Delivery::BrokenOff(_)) => "response_started",
            (Cause::DeadlineExceeded, _) => "deadline",
            _ if ctx.diverted.is_some() => "fallback",
            _ if route.retry.is_none() => "not_configured",
            _ => return None,
        })
    })
}

/// What took the time until `now`.
fn times(ctx: &Context, now: Moment) -> Times {
    let client = exchange::times::of_client(ctx, now);
    let since_head = ctx.attempt.head_at.map_or(Duration::ZERO, |head| now.since(head));
    let body = since_head.saturating_sub(client.saturating_sub(ctx.times.client));
    let mut times = Times { body, client, ..ctx.times };
    // The request was ended in the middle of an attempt.
    let attempt = &ctx.attempt;
    if attempt.concluded.is_none() && attempt.head_at.is_none() && attempt.endpoint().is_some() {
        let waited = now.since(attempt.connected.unwrap_or(attempt.started));
        let waited = waited.saturating_sub(client.saturating_sub(ctx.times.client));
        match attempt.connected {
            Some(_) => times.first_byte += waited,
            None => times.connect += waited,
        }
    }
    times
}

/// How a request ended whose client got `status`.
pub fn ending(ctx: &Context, status: u16) -> Ending<'_> {
    match (ctx.end.response(), ctx.end.delivery()) {
        (response, Delivery::ClientGone { midway }) => {
            Ending::ClientGone { response: interrupted(response), midway: *midway }
        }
        // The end of a tunnel is not a failure, whichever side ends it.
        (Response::Upstream { .. }, Delivery::Cut { why: Cut::Overdue | Cut::Shutdown, .. })
            if status == 101 =>
        {
            Ending::Answered
        }
        (response, Delivery::Cut { why, midway }) => {
            Ending::Cut { why: *why, response: interrupted(response), midway: *midway }
        }
        (Response::Refusal(rejection), Delivery::Whole | Delivery::BrokenOff(_)) => {
            Ending::Refused(refusal(rejection))
        }
        (Response::Upstream { .. }, Delivery::BrokenOff(rejection)) => {
            Ending::BrokeOff(refusal(rejection))
        }
        (Response::Replay { failed }, Delivery::Whole | Delivery::BrokenOff(_)) => {
            Ending::Replayed { failed: *failed || !(100..400).contains(&status) }
        }
        (Response::Unforwarded, Delivery::Whole | Delivery::BrokenOff(_)) => Ending::Unforwarded,
        (Response::Upstream { rpc_failed: false }, Delivery::Whole)
            if (100..400).contains(&status) || is_written(ctx) =>
        {
            Ending::Answered
        }
        (Response::Upstream { .. }, Delivery::Whole) => {
            let answered = ctx.attempt.answered.and_then(Cause::of_answer);
            let failed = ctx.verdict.failure.as_ref().map(|failure| failure.cause);
            Ending::Failed { cause: failed.or(answered) }
        }
    }
}

/// What is told of `client`, from which no whole request came.
pub fn no_request<'a>(client: Option<IpAddr>, generation: u64, lost: &'a Lost<'_>) -> Summary<'a> {
    let Lost { listener, why, status, said, limit, took } = *lost;
    Summary {
        opening: Opening {
            id: None,
            received_at: SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH),
            request_id: "-",
            trace_id: 0,
            listener: Some(listener),
            head: None,
            route: None,
            consumer: None,
            certificate: None,
            client: client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            protocol: "http",
            generation,
            decided_after: Duration::ZERO,
            limit_keys: &[],
        },
        ending: Ending::NoRequest(why),
        fault: Ending::NoRequest(why).fault(),
        status,
        upstream: None,
        endpoint: None,
        upstream_status: None,
        attempts: 0,
        would_refuse: None,
        no_retry: None,
        limit,
        said,
        failure: None,
        past: &[],
        times: Times::default(),
        error: None,
        duration: took,
        upstream_duration: None,
        bytes_in: None,
        bytes_out: 0,
    }
}

/// Whether the operator wrote the response: then it is no error, whatever its status.
fn is_written(ctx: &Context) -> bool {
    let target = ctx.route.as_ref().map(|route| &route.target);
    matches!(target, Some(Target::Serve(Served::Respond(_) | Served::Redirect(_))))
}

/// What the client was being sent.
fn interrupted(response: &Response) -> ending::Response<'_> {
    match response {
        Response::Upstream { .. } => ending::Response::Upstream,
        Response::Replay { .. } => ending::Response::Replay,
        Response::Unforwarded => ending::Response::Unforwarded,
        Response::Refusal(rejection) => ending::Response::Refusal(refusal(rejection)),
    }
}

fn refusal(rejection: &Rejection) -> Refusal<'_> {
    let row = row::of(rejection);
    Refusal { code: row.code, fault: row.fault, detail: row.detail }
}
