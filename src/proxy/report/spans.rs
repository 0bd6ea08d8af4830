//! A request's spans: its attempts as they end, itself when it has ended.
//!
//! Only of requests that are recorded; for all others every function here returns at once.
//! What a span says of them is decided in `observe::trace::span`.

use pingora_proxy::Session;

use crate::observe::trace::Tracer;
use crate::observe::trace::span::{Attempt, Request, Route};
use crate::policy::outcome::Outcome;
use crate::proxy::exchange::context::Context;
use crate::routing::host;
use crate::time::Moment;

/// Longest path and host in a span: it waits in a queue that is bounded in requests.
const MAX_TEXT: usize = 1024;

/// Note that the attempt under way, if there is one, is over. Once for each.
pub fn end_attempt(ctx: &mut Context, now: Moment) {
    if !ctx.trace.recorded {
        return;
    }
    let (Some(span), Some(endpoint)) = (ctx.attempt.span.take(), &ctx.attempt.endpoint) else {
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
        authority: endpoint.authority.clone(),
        peer: endpoint.address,
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
        Some((Outcome::Response(_), _)) | None if ctx.end.client_gone => Some("client_gone"),
        Some((Outcome::Response(_), _)) => None,
        None if ctx.attempt.upstream_status.is_some() => None,
        // No policy was told of it: it was the client's fault or the gateway's, or a pooled connection
        // that the upstream had closed already and that has been replaced.
        None => Some(ctx.end.rejection.as_ref().map_or("reset", |rejection| rejection.code())),
    }
}

/// Hand the finished request over to the exporter. Never waits.
pub fn finish(tracer: &Tracer, session: &Session, ctx: &mut Context, status: u16, now: Moment) {
    if !ctx.trace.recorded {
        return;
    }
    end_attempt(ctx, now);
    let head = session.req_header();
    let path = ctx.recorded_path.as_deref().unwrap_or_else(|| head.uri.path());
    let named = match head.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => head.headers.get(http::header::HOST).map(|value| value.as_bytes()),
    };
    let host = named.and_then(|host| host::normalize(host).ok());
    tracer.submit(Box::new(Request {
        trace: ctx.trace,
        started: ctx.received_at,
        duration: now.since(ctx.started),
        method: head.method.clone(),
        path: bounded(path).to_owned(),
        host: host.map(|host| bounded(&host).to_owned()),
        client: ctx.client,
        route: ctx
            .route
            .as_ref()
            .map(|route| Route { name: route.name.clone(), pattern: route.pattern.clone() }),
        status,
        rejection: ctx.end.rejection.as_ref().map(|rejection| rejection.code()),
        truncated: ctx.end.truncated,
        attempts: std::mem::take(&mut ctx.spans),
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
