//! What a request takes of its caller's share: in the route's bulkhead, and in its retry budget. A caller is
//! a consumer, or else an address.

use pingora_proxy::Session;

use crate::policy::order;
use crate::policy::rate_limit::{KeySource, Requester};
use crate::policy::retry::{Budget, Stake};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::runtime::snapshot::Route;
use crate::time::Moment;

/// Takes the caller's share of the bulkhead, if the route bounds what one caller may hold.
///
/// # Errors
/// The caller has as many requests under way as it may.
pub fn take(session: &Session, ctx: &mut Context, route: &Route) -> Result<(), Rejection> {
    let bulkhead = route.config.bulkhead.as_ref();
    let Some(terms) = bulkhead.and_then(|bulkhead| bulkhead.per_consumer.as_ref()) else {
        return Ok(());
    };
    let headers = &session.req_header().headers;
    let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
    let caller = KeySource::Consumer.subject(&requester);
    let policies = route.policies(ctx.drawn);
    let taken = order::share(policies, &caller, &mut ctx.admission, &mut ctx.dry_run);
    if taken.is_err() {
        let most = terms.max_in_flight;
        let said = format!("the caller has all under way that it may have at once: {most}");
        ctx.verdict.said = Some(said.into());
    }
    Ok(taken?)
}

/// Registers the request in its retry budget, and in its caller's part of that.
pub fn enter(session: &Session, ctx: &Context, budget: &Budget, now: Moment) -> Stake {
    if !budget.is_per_consumer() {
        return budget.enter(now);
    }
    let headers = &session.req_header().headers;
    let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
    budget.enter_as(&KeySource::Consumer.subject(&requester), now)
}
