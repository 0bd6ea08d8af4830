//! What a request holds of dry policies, once they would have refused it. What that means is said in
//! [`crate::policy::dry_run`].

use crate::policy::outcome::Outcome;
use crate::proxy::attempt::{breakers, conclude};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::time::Moment;

/// A dry policy would have refused the request, with `code`.
pub fn would_refuse(ctx: &mut Context, code: &'static str) {
    if ctx.dry_run.refuse(code) {
        give_back(ctx);
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
    give_back(ctx);
}

fn give_back(ctx: &mut Context) {
    let Some(route) = &ctx.route else { return };
    let breakers = breakers::breakers(ctx.diverted.as_ref(), route, ctx.drawn);
    ctx.admission.give_back_dry(breakers, route.policies.bulkhead_enforce);
}
