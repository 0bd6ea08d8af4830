//! What the line of a failure says besides what every line says: the facts that name its cause.
//!
//! Gathered only for a line that is written.

mod policy;

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderValue;

use crate::coding;
use crate::config::rpc_code::RpcCode;
use crate::observe::metrics::Family;
use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::policy::retry::BudgetName;
use crate::proxy::exchange::call::Way;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::Delivery;
use crate::proxy::rejection::Rejection;
use crate::proxy::response;
use crate::summary::values::{Fact, Value};
use crate::time::Moment;

/// Facts in the order in which they are told.
#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    fn text(&mut self, name: &'static str, text: impl Into<Cow<'static, str>>) {
        self.0.push(Fact { name, value: Value::Text(text.into()) });
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.0.push(Fact { name, value: Value::Number(number) });
    }

    fn micros(&mut self, name: &'static str, time: Duration) {
        self.number(name, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What is known of a request that has failed by `now`.
pub fn of(ctx: &Context, now: Moment) -> Vec<Fact> {
    let mut facts = Facts::default();
    call(&mut facts, ctx);
    let rejection = ctx.end.why_midway();
    if let Some(rejection) = rejection {
        refusal(&mut facts, ctx, rejection, now);
    }
    if let Some(phase) = phase(ctx, rejection) {
        facts.text("portcullis.phase", phase);
    }
    budget(&mut facts, ctx);
    facts.0
}

/// Of a call of RPC: its method, and its status as its caller gets it. The status of HTTP may be
/// 200 all the same.
fn call(facts: &mut Facts, ctx: &Context) {
    let family = ctx.protocol.family();
    let way = ctx.body.call.as_ref().map(|call| &call.way);
    let method = match (way, family) {
        (Some(Way::ToHttp { method, .. } | Way::ToRpc { method, .. }), _) => Some(method.path()),
        (None, Family::Grpc | Family::GrpcWeb | Family::Connect) => ctx.asked.path(),
        (None, Family::Http) => None,
    };
    let Some(method) = method else { return };
    facts.text("rpc.method", method.trim_start_matches('/').to_owned());
    let codes = response::translation::codes(ctx);
    let code = match (ctx.end.why_midway(), ctx.attempt.answered) {
        (Some(rejection), _) => Some(rejection.to_rpc(codes).code),
        (None, Some(Outcome::Grpc(number))) => RpcCode::numbered(number),
        (None, _) => None,
    };
    let Some(code) = code else { return };
    match family {
        Family::Grpc | Family::GrpcWeb => facts.text("rpc.response.status_code", in_grpc(code)),
        Family::Connect => facts.text("rpc.response.status_code", code.as_str()),
        Family::Http => {}
    }
}

/// The code's name as gRPC spells it.
fn in_grpc(code: RpcCode) -> Cow<'static, str> {
    match code {
        RpcCode::Canceled => "CANCELLED".into(),
        other => other.as_str().to_ascii_uppercase().into(),
    }
}

fn refusal(facts: &mut Facts, ctx: &Context, rejection: &Rejection, now: Moment) {
    match rejection {
        Rejection::MethodNotAllowed(allowed) => {
            if let Some(allowed) = text_of(allowed) {
                facts.text("portcullis.allowed_methods", allowed);
            }
        }
        Rejection::UnsupportedMediaType(types) => facts.text("portcullis.accepted_types", *types),
        Rejection::Policy(rejection) => policy::of_policy(facts, ctx, rejection, now),
        Rejection::UnsupportedCompression => {
            if let Some(accepted) = text_of(&coding::READ) {
                facts.text("portcullis.accepted_encodings", accepted);
            }
        }
        Rejection::DeadlineExceeded if ctx.attempts == 0 => {
            if let Some(route) = &ctx.route {
                policy::waiting(facts, ctx, route);
            }
        }
        Rejection::Upstream(Cause::EndpointsFull) => {
            if let Some(target) = ctx.upstream() {
                let set = target.upstream.set();
                let in_use = set.members().iter().map(|member| member.endpoint.in_flight());
                facts.number("portcullis.endpoints", set.members().len() as u64);
                facts.number("portcullis.connections_in_use", in_use.map(u64::from).sum());
            }
        }
        Rejection::RecordUnavailable => {
            policy::store(facts, ctx);
            let answered = ctx.attempt.upstream_status.is_some();
            let value = Value::Truth(answered);
            facts.0.push(Fact { name: "portcullis.upstream_answered", value });
        }
        Rejection::BadRequest(_)
        | Rejection::PathTooLong
        | Rejection::HeadersTooLarge
        | Rejection::TooManyHeaders
        | Rejection::BodyTooLarge
        | Rejection::RequestTimeout
        | Rejection::InvalidBody(_)
        | Rejection::InvalidRpc(_)
        | Rejection::UnexpectedCompression
        | Rejection::NotForRpc
        | Rejection::NoRoute
        | Rejection::Loop
        | Rejection::Flood { .. }
        | Rejection::Upstream(_)
        | Rejection::MalformedResponse(_)
        | Rejection::DeadlineExceeded
        | Rejection::Internal => {}
    }
}

/// What the request was waiting for when it was ended; `None` if it was not ended while it waited.
/// In the words of the times, and `request_body` while that had not all gone to the upstream.
fn phase(ctx: &Context, rejection: Option<&Rejection>) -> Option<&'static str> {
    if !was_waiting(ctx, rejection) {
        return None;
    }
    Some(match (ctx.attempt.head_at, ctx.attempt.connected) {
        (Some(_), _) => "body",
        (None, _) if matches!(rejection, Some(Rejection::RequestTimeout)) => "request_body",
        _ if ctx.attempts == 0 => "queue",
        // The upstream does not read, or its client does not send.
        (None, Some(_)) if ctx.attempt.is_uploading => "request_body",
        (None, Some(_)) => "first_byte",
        (None, None) => "connect",
    })
}

fn was_waiting(ctx: &Context, rejection: Option<&Rejection>) -> bool {
    match (ctx.end.delivery(), rejection) {
        (Delivery::Cut { .. } | Delivery::ClientGone { .. }, _) => true,
        (
            Delivery::Whole | Delivery::BrokenOff(_),
            Some(
                Rejection::DeadlineExceeded
                | Rejection::RequestTimeout
                | Rejection::Upstream(
                    Cause::AttemptTimeout | Cause::IdleTimeout | Cause::DeadlineExceeded,
                ),
            ),
        ) => true,
        (Delivery::Whole | Delivery::BrokenOff(_), _) => false,
    }
}

/// Where retries are paid from.
fn budget(facts: &mut Facts, ctx: &Context) {
    let Some(retry) = ctx.route.as_ref().and_then(|route| route.retry.as_ref()) else { return };
    match &retry.config.budget {
        BudgetName::Named(name) => {
            facts.text("portcullis.retry_budget", format!("retry_budgets.{name}"));
        }
        BudgetName::OfUpstream => {
            if let Some(target) = ctx.upstream() {
                let upstream = &target.upstream.name;
                facts.text("portcullis.retry_budget", format!("upstreams.{upstream}"));
            }
        }
        BudgetName::Unlimited => {}
    }
}

fn text_of(value: &HeaderValue) -> Option<String> {
    value.to_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
}
