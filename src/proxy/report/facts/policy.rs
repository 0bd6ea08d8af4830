//! What the line says of a policy that has refused a request, and of the store that it asked.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use uuid::Uuid;

use super::Facts;
use crate::policy;
use crate::policy::CircuitOf;
use crate::policy::auth::{Denial, Forbidden, Refusal, ScopesMatch};
use crate::policy::breaker::Breaker;
use crate::policy::bulkhead::InVain;
use crate::proxy::exchange::context::Context;
use crate::runtime::snapshot::Route;
use crate::summary::values::{Fact, Value};
use crate::time::Moment;

/// What the line says of a refusal by a policy.
pub(super) fn of_policy(
    facts: &mut Facts,
    ctx: &Context,
    rejection: &policy::Rejection,
    now: Moment,
) {
    let Some(route) = &ctx.route else { return };
    match rejection {
        // The line has the client's address.
        policy::Rejection::Address(_) => {}
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
        policy::Rejection::CircuitOpen { of, retry_after } => {
            let policies = route.policies(ctx.drawn);
            let breaker = match of {
                CircuitOf::Route => &policies.route_breaker,
                CircuitOf::Upstream => &policies.upstream_breaker,
            };
            if let Some(breaker) = breaker {
                circuit(facts, breaker, now);
                facts.micros("portcullis.circuit_retry_in_us", *retry_after);
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
        // The line's `error` says what is lacking.
        Refusal::Forbidden(Forbidden::Call(_)) => {}
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
            | Denial::UnknownApiKey
            | Denial::NotAllowed { .. }
            | Denial::Unnamed { .. }
            | Denial::Inactive { .. }
            | Denial::Said(_)
            | Denial::Unanswered { .. },
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
pub(super) fn store(facts: &mut Facts, ctx: &Context) {
    if let Some(chosen) = ctx.snapshot.config.record.store.chosen() {
        facts.text("portcullis.store", chosen.to_string());
    }
}

fn limit_stores(facts: &mut Facts, ctx: &Context, route: &Route) {
    let shared = route.policies.rate_limits.iter().filter_map(|l| l.config().shared.as_ref());
    let down = shared.clone().filter_map(|s| ctx.snapshot.limit_stores.get(&s.store)?.error());
    let down: BTreeSet<_> = down.collect();
    let stores = shared.filter_map(|shared| {
        let store = ctx.snapshot.config.rate_limit_stores.get(&shared.store)?;
        Some(format!("redis {}", store.redis.url.as_ref()?))
    });
    let stores: BTreeSet<_> = stores.collect();
    if !stores.is_empty() {
        facts.text("portcullis.store", Vec::from_iter(stores).join(", "));
    }
    if !down.is_empty() {
        let value = Value::Error(Vec::from_iter(down).join(", "));
        facts.0.push(Fact { name: "portcullis.store_error", value });
    }
}

fn circuit(facts: &mut Facts, breaker: &Breaker, now: Moment) {
    if let Some(opening) = breaker.opening() {
        facts.micros("portcullis.circuit_opened_before_us", now.since(opening.at));
        facts.text("portcullis.circuit_reason", opening.why.to_string());
    }
}

/// Requests that wait for a slot.
pub(super) fn waiting(facts: &mut Facts, ctx: &Context, route: &Route) {
    let bulkhead = route.policies(ctx.drawn).bulkhead.as_ref().filter(|_| route.has_queue());
    if let Some(bulkhead) = bulkhead {
        facts.number("portcullis.bulkhead_waiting", bulkhead.waiting() as u64);
    }
}
