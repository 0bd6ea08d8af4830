//! A request's spans: its attempts as they end, itself when it has ended.
//!
//! Only of requests that are recorded; for all others every function here returns at once.
//! What a span says of them is decided in `observe::trace::span`.

use crate::observe::trace::span::{Attempt, Request, Route};
use crate::policy::outcome::Outcome;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::Delivery;
use crate::routing::host;
use crate::summary::Summary;
use crate::summary::ending::Cut;
use crate::time::Moment;

/// Longest path and host in a span: it waits in a queue that is bounded in requests.
const MAX_TEXT: usize = 1024;

/// Note that the attempt under way, if there is one, is over. Once for each.
pub fn end_attempt(ctx: &mut Context, now: Moment) {
    if !ctx.trace.recorded {
        return;
    }
    let (Some(span), Some(endpoint)) = (ctx.attempt.span.take(), ctx.attempt.endpoint()) else {
        return;
    };
    let Some(target) = ctx.upstream() else { return };
    let ended = match ctx.attempt.concluded {
        // A response is judged by its head; its body may still be on its way.
        Some((Outcome::Response(_), _)) | None => now,
        Some((_, ended)) => ended,
    };
    let attempt = Attempt {
        span,
        after: ctx.attempt.started.since(ctx.started),
        duration: ended.since(ctx.attempt.started),
        upstream: target.upstream.name.clone(),
        authority: endpoint.key.authority.clone(),
        peer: endpoint.key.address.clone(),
        status: ctx.attempt.upstream_status,
        error: error(ctx),
    };
    ctx.spans.push(attempt);
}

/// Why the attempt has no answer, or not all of it. A status speaks for itself.
fn error(ctx: &Context) -> Option<&'static str> {
    match ctx.attempt.concluded {
        Some((
            outcome @ (Outcome::ConnectFailure
            | Outcome::TlsFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset
            | Outcome::Timeout
            | Outcome::Protocol
            | Outcome::Grpc(_)),
            _,
        )) => Some(outcome.as_str()),
        Some((Outcome::Response(_), _)) | None if ctx.end.is_client_gone() => Some("client_gone"),
        None if let Delivery::Cut { why, .. } = ctx.end.delivery() => Some(why.as_str()),
        Some((Outcome::Response(_), _)) => None,
        None if ctx.attempt.upstream_status.is_some() => None,
        // No policy was told of it: it was the client's fault or the gateway's, or a pooled connection
        // that the upstream had closed already and that has been replaced.
        None => Some(ctx.end.rejection().map_or("reset", |rejection| rejection.code())),
    }
}

/// Takes the spans of a request's attempts, the last of which is over now. `None` if they are not
/// exported.
pub fn of_attempts(ctx: &mut Context, now: Moment) -> Option<Vec<Attempt>> {
    if !ctx.trace.recorded {
        return None;
    }
    end_attempt(ctx, now);
    Some(std::mem::take(&mut ctx.spans))
}

/// Hands the finished request over to its generation's exporter, with the spans of its `attempts`. Never
/// waits.
pub fn finish(ctx: &Context, summary: &Summary<'_>, attempts: Vec<Attempt>) {
    let Some(head) = summary.opening.head else { return };
    let host = head.host.and_then(|host| host::normalize(host).ok());
    ctx.snapshot.exports.tracer.submit(Box::new(Request {
        trace: ctx.trace,
        started: summary.opening.received_at,
        duration: summary.duration,
        // Of a head that cannot be read, as if it asked for nothing.
        method: head.method.cloned().unwrap_or_default(),
        path: bounded(head.path.unwrap_or("/")).to_owned(),
        host: host.map(|host| bounded(&host).to_owned()),
        client: summary.opening.client,
        certificate: summary.opening.certificate.map(|name| bounded(name).to_owned()),
        route: ctx
            .route
            .as_ref()
            .map(|route| Route { name: route.name.clone(), pattern: route.pattern.clone() }),
        status: summary.status,
        rejection: summary.ending.refusal().map(|refusal| refusal.code),
        truncated: summary.ending.is_truncated(),
        cut: summary.ending.cut().map(Cut::as_str),
        attempts,
    }));
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let path = "/".to_owned() + &"é".repeat(MAX_TEXT);
        assert_eq!(bounded(&path).len(), MAX_TEXT - 1);
        assert_eq!(bounded("/short"), "/short");
    }
}
