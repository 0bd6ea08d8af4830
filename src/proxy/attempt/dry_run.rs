//! What a request holds of dry policies, once they would have refused it. What that means is said in
//! [`crate::policy::dry_run`].

use crate::policy;
use crate::policy::bulkhead::Over;
use crate::policy::outcome::Outcome;
use crate::proxy::attempt::{breakers, conclude};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::runtime::snapshot::Route;
use crate::time::Moment;

/// A dry policy would have refused the request, with `code`.
pub fn would_refuse(ctx: &mut Context, code: &'static str) {
    if ctx.dry_run.refuse(code) {
        give_back(ctx);
    }
}

/// The route's bulkhead is a dry run with a queue: the request enters the simulated queue, and goes on.
pub fn rehearse(ctx: &mut Context, route: &Route, now: Moment) {
    let Some(bulkhead) = &route.policies(ctx.drawn).bulkhead else { return };
    if ctx.dry_run.is_over() {
        return;
    }
    match bulkhead.rehearse(ctx.deadline, now) {
        Ok(rehearsal) => ctx.admission.rehearsal = Some(rehearsal),
        Err(_) => {
            let (what, status) = (policy::Taken::Slots, route.policies.bulkhead_status.code());
            would_refuse(ctx, policy::Rejection::BulkheadFull { what, status }.code());
        }
    }
}

/// The request has ended, or has for dry policies: notes what became of it in the simulated queue.
pub fn rehearsed(ctx: &mut Context, over: Over, now: Moment) {
    let Some(rehearsal) = ctx.admission.rehearsal.take() else { return };
    if let Some(vain) = rehearsal.end(over, now) {
        would_refuse(ctx, vain.code());
    }
}

/// How a request that ends leaves the simulated queue.
pub fn over(ctx: &Context) -> Over {
    let verdict = ctx.verdict.last_outcome.or(ctx.attempt.answered);
    match ctx.end.is_client_gone() {
        true => Over::Left,
        // What another upstream took says nothing about this one.
        false if verdict.is_some() && ctx.diverted.is_none() => Over::Served,
        false => Over::Unmeasured,
    }
}

/// The request's body, or a message in it, has `bytes` or more.
pub fn measured(ctx: &mut Context, bytes: u64) {
    let most = ctx.route.as_ref().and_then(|route| route.config.max_body.dry());
    if most.is_some_and(|most| bytes > most) {
        would_refuse(ctx, Rejection::BodyTooLarge.code());
    }
}

/// A dry circuit would have prevented the attempt that follows: for dry policies, the request ended
/// with `outcome`.
pub fn would_stop(ctx: &mut Context, outcome: Outcome, now: Moment) {
    conclude::conclude_dry_request(ctx, outcome, now);
    let is_dry = ctx.route.as_ref().is_some_and(|route| route.policies.bulkhead_enforce.is_dry());
    if is_dry && let Some(slot) = ctx.admission.slot.take() {
        slot.release(now);
    }
    rehearsed(ctx, Over::Served, now);
    give_back(ctx);
}

fn give_back(ctx: &mut Context) {
    let Some(route) = &ctx.route else { return };
    let breakers = breakers::breakers(ctx.diverted.as_ref(), route, ctx.drawn);
    ctx.admission.give_back_dry(breakers, route.policies.bulkhead_enforce);
}
