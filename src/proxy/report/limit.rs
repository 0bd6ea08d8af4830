//! Which time limit ended a request, where one did: several keys end a request for the same cause.

use crate::policy::failure::Cause;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::{Delivery, Response};
use crate::proxy::rejection::Rejection;
use crate::summary::attempt::Limit;
use crate::summary::ending::Cut;
use crate::time::Moment;

/// The limit that ended the request, which has ended by `now`; `None` if it was something else.
pub fn reached(ctx: &Context, now: Moment) -> Option<Limit> {
    let rejection = match (ctx.end.delivery(), ctx.end.response()) {
        (Delivery::Cut { why: Cut::Overdue, .. }, _) => return of_request(ctx),
        (Delivery::Cut { why: Cut::Shutdown, .. }, _) => {
            let server = &ctx.snapshot.config.server;
            return limit("server.drain_timeout", *server.drain_timeout);
        }
        (Delivery::Cut { why: Cut::Panic, .. } | Delivery::ClientGone { .. }, _) => return None,
        (Delivery::BrokenOff(rejection), _) | (Delivery::Whole, Response::Refusal(rejection)) => {
            rejection
        }
        (
            Delivery::Whole,
            Response::Upstream { .. } | Response::Replay { .. } | Response::Unforwarded,
        ) => return None,
    };
    let timeout = &ctx.route.as_ref()?.config.timeout;
    match rejection {
        Rejection::DeadlineExceeded => of_request(ctx),
        Rejection::RequestTimeout if ctx.deadline.is_some_and(|deadline| now >= deadline) => {
            of_request(ctx)
        }
        Rejection::RequestTimeout => limit("timeout.idle", *timeout.idle),
        Rejection::Upstream(cause) => of_upstream(ctx, *cause),
        Rejection::BadRequest(_)
        | Rejection::PathTooLong
        | Rejection::HeadersTooLarge
        | Rejection::TooManyHeaders
        | Rejection::BodyTooLarge
        | Rejection::InvalidBody(_)
        | Rejection::InvalidRpc(_)
        | Rejection::UnexpectedCompression
        | Rejection::UnsupportedCompression
        | Rejection::UnsupportedMediaType(_)
        | Rejection::NoRoute
        | Rejection::MethodNotAllowed(_)
        | Rejection::Flood { .. }
        | Rejection::Policy(_)
        | Rejection::MalformedResponse(_)
        | Rejection::RecordUnavailable
        | Rejection::Internal => None,
    }
}

fn of_upstream(ctx: &Context, cause: Cause) -> Option<Limit> {
    let timeout = &ctx.route.as_ref()?.config.timeout;
    match cause {
        Cause::ConnectTimeout => limit("timeout.connect", *timeout.connect),
        Cause::IdleTimeout => limit("timeout.idle", *timeout.idle),
        Cause::DeadlineExceeded => of_request(ctx),
        Cause::AttemptTimeout => {
            // It is forgotten once the head is there.
            let first_byte = ctx.attempt.first_byte_by;
            let is_first = first_byte.is_some_and(|by| ctx.attempt.next_deadline() == Some(by));
            match timeout.first_byte().filter(|_| is_first) {
                Some(first_byte) => limit("timeout.first_byte", first_byte),
                None => limit("timeout.attempt", *timeout.attempt),
            }
        }
        Cause::Dns
        | Cause::NoEndpoint
        | Cause::EndpointsFull
        | Cause::NoneAvailable
        | Cause::ConnectRefused
        | Cause::Unreachable
        | Cause::ConnectFailed
        | Cause::TlsExpired
        | Cause::TlsNotYetValid
        | Cause::TlsWrongName
        | Cause::TlsUnknownAuthority
        | Cause::TlsCertificate
        | Cause::TlsFailed
        | Cause::RefusedStream
        | Cause::StaleConnection
        | Cause::Reset
        | Cause::Closed
        | Cause::InvalidResponse
        | Cause::AnswerUnreadable
        | Cause::Answered(_)
        | Cause::Grpc(_) => None,
    }
}

/// The request's deadline comes from its route, or from a caller with less time.
fn of_request(ctx: &Context) -> Option<Limit> {
    let time = ctx.deadline?.since(ctx.started);
    let own = ctx.route.as_ref().and_then(|route| route.timeout());
    let key = if own == Some(time) { "timeout.request" } else { Limit::OF_CALLER };
    limit(key, time)
}

fn limit(key: &'static str, time: std::time::Duration) -> Option<Limit> {
    Some(Limit { key, time })
}
