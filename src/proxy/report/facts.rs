//! What the line of a failure says besides what every line says: the facts that name its cause.
//!
//! Gathered only for a line that is written.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use uuid::Uuid;

use crate::config::rpc_code::RpcCode;
use crate::observe::metrics::Family;
use crate::policy;
use crate::policy::CircuitOf;
use crate::policy::auth::{Denial, Forbidden, Refusal, ScopesMatch};
use crate::policy::breaker::Breaker;
use crate::policy::bulkhead::InVain;
use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::policy::retry::BudgetName;
use crate::proxy::exchange::call::Way;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::Delivery;
use crate::proxy::rejection::Rejection;
use crate::proxy::response;
use crate::runtime::snapshot::Route;
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
    if ctx.verdict.retry_stopped.is_some() {
        budget(&mut facts, ctx);
    }
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
        Rejection::Policy(rejection) => of_policy(facts, ctx, rejection, now),
        Rejection::Upstream(Cause::EndpointsFull) => {
            if let Some(target) = ctx.upstream() {
                let set = target.upstream.set();
                let in_use = set.members().iter().map(|member| member.endpoint.in_flight());
                facts.number("portcullis.endpoints", set.members().len() as u64);
                facts.number("portcullis.connections_in_use", in_use.map(u64::from).sum());
            }
        }
        Rejection::RecordUnavailable => {
            store(facts, ctx);
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
        | Rejection::UnsupportedCompression
        | Rejection::NoRoute
        | Rejection::Flood { .. }
        | Rejection::Upstream(_)
        | Rejection::MalformedResponse(_)
        | Rejection::DeadlineExceeded
        | Rejection::Internal => {}
    }
}

fn of_policy(facts: &mut Facts, ctx: &Context, rejection: &policy::Rejection, now: Moment) {
    let Some(route) = &ctx.route else { return };
    match rejection {
        policy::Rejection::Credentials(refused) => credentials(facts, ctx, route, refused, now),
        policy::Rejection::RateLimited(_) => {
            let limits = &route.policies.rate_limits;
            if let Some(limit) = ctx.standing.and_then(|standing| limits.get(standing.limit)) {
                facts.text("portcullis.rate_limit_key", limit.config().key.to_string());
            }
        }
        policy::Rejection::LimitStoreUnavailable => limit_stores(facts, ctx, route),
        policy::Rejection::Idempotency(policy::idempotency::Refusal::Unavailable) => {
            store(facts, ctx);
        }
        policy::Rejection::Idempotency(
            policy::idempotency::Refusal::Missing
            | policy::idempotency::Refusal::Invalid
            | policy::idempotency::Refusal::InFlight
            | policy::idempotency::Refusal::Mismatch
            | policy::idempotency::Refusal::Undecided
            | policy::idempotency::Refusal::NotKept,
        ) => {
            if let Some(first) = ctx.verdict.first_request {
                first_request(facts, ctx, first);
            }
        }
        policy::Rejection::CircuitOpen { of, .. } => {
            let policies = route.policies(ctx.drawn);
            let breaker = match of {
                CircuitOf::Route => &policies.route_breaker,
                CircuitOf::Upstream => &policies.upstream_breaker,
            };
            if let Some(breaker) = breaker {
                circuit(facts, breaker, now);
            }
        }
        policy::Rejection::BulkheadFull { .. } => waiting(facts, ctx, route),
        policy::Rejection::BulkheadWaitExceeded { why, .. } => {
            waiting(facts, ctx, route);
            facts.text(
                "portcullis.gave_up",
                match why {
                    InVain::Overload => "overload",
                    InVain::Expired => "max_wait",
                },
            );
        }
    }
}

fn credentials(facts: &mut Facts, ctx: &Context, route: &Route, refused: &Refusal, now: Moment) {
    let Some(auth) = &route.config.auth else { return };
    let authority = ctx.identity.as_ref().map(|identity| identity.authority().to_owned());
    let named = authority.unwrap_or_else(|| auth.require.iter().collect::<Vec<_>>().join(", "));
    facts.text("portcullis.auth", named);
    match refused {
        Refusal::Forbidden(Forbidden::Scopes) => {
            let scopes: Vec<_> = auth.scopes.iter().map(|scope| scope.as_str()).collect();
            facts.text("portcullis.scopes_needed", scopes.join(" "));
            if auth.scopes_match == ScopesMatch::Any {
                facts.text("portcullis.scopes_match", "any");
            }
        }
        Refusal::Forbidden(Forbidden::Role) => {
            if let Some(role) = &auth.role {
                facts.text("portcullis.role_needed", role.clone());
            }
        }
        Refusal::Unauthenticated(Denial::KeysUnavailable { authority, .. }) => {
            keys(facts, ctx, authority, now);
        }
        Refusal::Unauthenticated(
            Denial::Missing
            | Denial::Malformed
            | Denial::Algorithm
            | Denial::Critical
            | Denial::UnknownKey { .. }
            | Denial::BadSignature
            | Denial::NotVerified { .. }
            | Denial::Claims
            | Denial::Expired { .. }
            | Denial::NotYetValid
            | Denial::Issuer
            | Denial::Audience
            | Denial::Consumer
            | Denial::UnknownApiKey,
        ) => {}
    }
}

/// The first request with an idempotency key: the id of its row in the record, and how long before
/// this one it came. The id has its time, by the clock of the gateway that got it.
fn first_request(facts: &mut Facts, ctx: &Context, first: Uuid) {
    facts.text("portcullis.first_request", first.to_string());
    let came = first.get_timestamp().map(|time| time.to_unix());
    if let Some((seconds, nanos)) = came {
        let came = UNIX_EPOCH + Duration::new(seconds, nanos);
        let before = ctx.received_at.duration_since(came).unwrap_or_default();
        facts.micros("portcullis.first_request_before_us", before);
    }
}

/// Where keys were to come from, and since when there are none.
fn keys(facts: &mut Facts, ctx: &Context, authority: &str, now: Moment) {
    let entry = ctx.snapshot.authorities.get(authority);
    if let Some((config, _)) = entry.and_then(|entry| entry.verifier.remote_keys()) {
        facts.text("portcullis.keys_url", config.url.to_string());
    }
    let Some(status) = ctx.snapshot.jwks(authority).map(|jwks| jwks.status()) else { return };
    if let Some(error) = status.last_error {
        facts.0.push(Fact { name: "portcullis.keys_error", value: Value::Error(error) });
    }
    if let Some(fetched) = status.last_success {
        facts.micros("portcullis.keys_age_us", now.since(fetched));
    }
}

/// The database of the record and of idempotency keys.
fn store(facts: &mut Facts, ctx: &Context) {
    if let Some(chosen) = ctx.snapshot.config.record.store.chosen() {
        facts.text("portcullis.store", chosen.to_string());
    }
}

fn limit_stores(facts: &mut Facts, ctx: &Context, route: &Route) {
    let shared = route.policies.rate_limits.iter().filter_map(|l| l.config().shared.as_ref());
    let stores = shared.filter_map(|shared| {
        let store = ctx.snapshot.config.rate_limit_stores.get(&shared.store)?;
        Some(format!("redis {}", store.redis.url.as_ref()?))
    });
    let mut stores: Vec<_> = stores.collect();
    stores.dedup();
    if !stores.is_empty() {
        facts.text("portcullis.store", stores.join(", "));
    }
}

fn circuit(facts: &mut Facts, breaker: &Breaker, now: Moment) {
    if let Some(opening) = breaker.opening() {
        facts.micros("portcullis.circuit_open_for_us", now.since(opening.at));
        facts.text("portcullis.circuit_reason", opening.why.to_string());
    }
}

/// Requests that wait for a slot.
fn waiting(facts: &mut Facts, ctx: &Context, route: &Route) {
    let bulkhead = route.policies(ctx.drawn).bulkhead.as_ref().filter(|_| route.has_queue());
    if let Some(bulkhead) = bulkhead {
        facts.number("portcullis.bulkhead_waiting", bulkhead.waiting() as u64);
    }
}

/// What the request was waiting for when it was ended; `None` if it was not ended while it waited.
/// In the words of the times, and `request_body` for the client's.
fn phase(ctx: &Context, rejection: Option<&Rejection>) -> Option<&'static str> {
    if !was_waiting(ctx, rejection) {
        return None;
    }
    Some(match (ctx.attempt.head_at, ctx.attempt.connected) {
        (Some(_), _) => "body",
        (None, _) if matches!(rejection, Some(Rejection::RequestTimeout)) => "request_body",
        _ if ctx.attempts == 0 => "queue",
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
