//! Which limit ended a request, where one did: several keys end a request for the same cause.

use crate::policy;
use crate::policy::bulkhead::{self, InVain};
use crate::policy::failure::Cause;
use crate::policy::rate_limit::Algorithm;
use crate::proxy::downstream::head::MAX_FIELDS;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::{Delivery, Response};
use crate::proxy::rejection::Rejection;
use crate::proxy::request;
use crate::summary::attempt::{Bound, Limit};
use crate::summary::ending::Cut;
use crate::time::Moment;

/// The limit that ended the request, which has ended by `now`; `None` if it was something else.
pub fn reached(ctx: &Context, now: Moment) -> Option<Limit> {
    let rejection = match (ctx.end.delivery(), ctx.end.response()) {
        (Delivery::Cut { why: Cut::Overdue, .. }, _) => return of_request(ctx),
        (Delivery::Cut { why: Cut::Shutdown, .. }, _) => {
            return limit("server.drain_timeout", ctx.in_flight.cut_after()?);
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
    match rejection {
        Rejection::DeadlineExceeded => of_request(ctx),
        Rejection::RequestTimeout if ctx.deadline.is_some_and(|deadline| now >= deadline) => {
            of_request(ctx)
        }
        Rejection::RequestTimeout if ctx.is_slow() => {
            let timeout = &ctx.route.as_ref()?.config.timeout;
            match ctx.end.delivery() {
                Delivery::BrokenOff(_) => {
                    bytes("timeout.min_download_rate", timeout.download_pace().0)
                }
                Delivery::Whole | Delivery::ClientGone { .. } | Delivery::Cut { .. } => {
                    bytes("timeout.min_upload_rate", timeout.upload_pace(true).0)
                }
            }
        }
        Rejection::RequestTimeout => {
            limit("timeout.idle", *ctx.route.as_ref()?.config.timeout.idle)
        }
        Rejection::PathTooLong => {
            bytes("max_path_bytes", ctx.connection.as_ref()?.inbound.limits.max_path_bytes as u64)
        }
        Rejection::HeadersTooLarge => bytes(
            "max_header_bytes",
            ctx.connection.as_ref()?.inbound.limits.max_header_bytes as u64,
        ),
        Rejection::TooManyHeaders => {
            Some(Limit { key: Limit::BUILT_IN, bound: Bound::Count(MAX_FIELDS as u64) })
        }
        Rejection::BodyTooLarge => of_body(ctx),
        Rejection::Flood { .. } => {
            let guard = ctx.snapshot.flood_guard.as_ref()?.config();
            let bound = Bound::Rate(guard.requests.into(), *guard.per);
            Some(Limit { key: "flood_guard", bound })
        }
        Rejection::Policy(rejection) => of_policy(ctx, rejection),
        Rejection::Upstream(cause) => of_upstream(ctx, *cause),
        Rejection::BadRequest(_)
        | Rejection::InvalidBody(_)
        | Rejection::InvalidRpc(_)
        | Rejection::UnexpectedCompression
        | Rejection::UnsupportedCompression
        | Rejection::UnsupportedMediaType(_)
        | Rejection::NotForRpc
        | Rejection::NoRoute
        | Rejection::Loop
        | Rejection::MethodNotAllowed(_)
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
        Cause::EndpointsFull => {
            let most = ctx.upstream()?.upstream.config().max_connections?;
            Some(Limit { key: "max_connections", bound: Bound::Count(most.into()) })
        }
        Cause::Dns
        | Cause::NoEndpoint
        | Cause::NoneAvailable
        | Cause::ConnectRefused
        | Cause::Unreachable
        | Cause::ConnectFailed
        | Cause::TlsExpired
        | Cause::TlsNotYetValid
        | Cause::TlsWrongName
        | Cause::TlsUnknownAuthority
        | Cause::TlsUnpinned
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
    Some(Limit { key, bound: Bound::Time(time) })
}

fn of_policy(ctx: &Context, rejection: &policy::Rejection) -> Option<Limit> {
    match rejection {
        policy::Rejection::RateLimited(_) => {
            let limits = &ctx.route.as_ref()?.policies.rate_limits;
            let config = limits.get(ctx.standing?.limit)?.config();
            let (requests, per) = match &config.algorithm {
                Algorithm::FixedWindow(window) => (window.requests, *window.per),
                Algorithm::SlidingWindow(window) => (window.requests, *window.per),
                Algorithm::TokenBucket(bucket) => (bucket.rate, *bucket.per),
            };
            Some(Limit { key: "rate_limit", bound: Bound::Rate(requests.into(), per) })
        }
        policy::Rejection::BulkheadFull { what: policy::Taken::Share, .. } => {
            let bulkhead = ctx.route.as_ref()?.config.bulkhead.as_ref()?;
            let bound = Bound::Count(bulkhead.per_consumer.as_ref()?.max_in_flight.get().into());
            Some(Limit { key: "bulkhead.per_consumer.max_in_flight", bound })
        }
        policy::Rejection::BulkheadFull { what: policy::Taken::Slots, .. } => {
            match ctx.route.as_ref()?.config.bulkhead.as_ref()?.limit {
                bulkhead::Limit::Fixed(most) => {
                    let bound = Bound::Count(most.get().into());
                    Some(Limit { key: "bulkhead.max_in_flight", bound })
                }
                // It changes all the time; the line has its value at that moment.
                bulkhead::Limit::Adaptive(_) => None,
            }
        }
        policy::Rejection::Idempotency(policy::idempotency::Refusal::NotKept) => {
            let keys = ctx.route.as_ref()?.idempotency.as_ref()?;
            bytes("idempotency.max_response", keys.config.max_response.0)
        }
        policy::Rejection::BulkheadWaitExceeded { why: InVain::Expired, .. } => {
            let queue = ctx.route.as_ref()?.config.bulkhead.as_ref()?.queue.as_ref()?;
            limit("bulkhead.queue.max_wait", *queue.max_wait)
        }
        policy::Rejection::Address(_)
        | policy::Rejection::Credentials(_)
        | policy::Rejection::LimitStoreUnavailable
        | policy::Rejection::Idempotency(_)
        | policy::Rejection::CircuitOpen { .. }
        | policy::Rejection::BulkheadWaitExceeded { why: InVain::Overload, .. } => None,
    }
}

/// The limit on the body, or on a message of it: `max_body`, or what a step can hold.
fn of_body(ctx: &Context) -> Option<Limit> {
    let route = ctx.route.as_ref()?;
    let max_body = route.config.max_body.enforced().0;
    let of_message = || {
        let transcoder = route.transcoder.as_ref()?;
        Some(request::transcode::max_message(route, transcoder) as u64)
    };
    let most = ctx.body.too_large.map(|most| most as u64).or_else(of_message).unwrap_or(max_body);
    if most == max_body {
        return bytes("max_body", most);
    }
    let of_keys = route.idempotency.as_ref().map(|keys| keys.config.max_body.0);
    let key = match &route.transcoder {
        _ if of_keys == Some(most) => "idempotency.max_body",
        Some(_) => "transcode.max_message",
        None => Limit::BUILT_IN,
    };
    bytes(key, most)
}

/// Zero: the operator has set no limit, and one that is built in was reached.
fn bytes(key: &'static str, bytes: u64) -> Option<Limit> {
    (bytes > 0).then_some(Limit { key, bound: Bound::Bytes(bytes) })
}
