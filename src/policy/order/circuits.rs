//! How the circuits are asked: before a call, and before each further attempt.

use std::sync::Arc;

use crate::policy::breaker::{Breaker, Count, Permit};
use crate::policy::dry_run::DryRun;
use crate::policy::{Admission, CircuitOf, Policies, Rejection};
use crate::time::Moment;

/// What a circuit says to a call.
#[derive(Debug)]
pub enum Leave {
    /// The call may be made. Without a permit if there is no circuit, or if the circuit is dry and
    /// the request is over for it.
    Given(Option<Permit>),
    /// The circuit is open, but dry: the call is made without a permit.
    Passed(Rejection),
    /// The circuit is open.
    Refused(Rejection),
}

/// Asks a circuit for leave to make a call.
pub fn leave(
    breaker: Option<&Arc<Breaker>>,
    of: CircuitOf,
    dry_run: &DryRun,
    now: Moment,
) -> Leave {
    let Some(breaker) = breaker else { return Leave::Given(None) };
    let is_dry = breaker.enforce().is_dry();
    if is_dry && dry_run.is_over() {
        return Leave::Given(None);
    }
    let open = match breaker.acquire(now) {
        Ok(permit) => return Leave::Given(Some(permit)),
        Err(open) => Rejection::CircuitOpen { of, retry_after: open.retry_after },
    };
    if is_dry { Leave::Passed(open) } else { Leave::Refused(open) }
}

pub(super) fn through(
    breaker: &Option<Arc<Breaker>>,
    of: CircuitOf,
    dry_run: &mut DryRun,
    now: Moment,
) -> Result<Option<Permit>, Rejection> {
    match leave(breaker.as_ref(), of, dry_run, now) {
        Leave::Given(permit) => Ok(permit),
        Leave::Passed(open) => {
            dry_run.refuse(open.code());
            Ok(None)
        }
        Leave::Refused(open) => Err(open),
    }
}

/// What the circuits say to another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It may be made, and `admission` holds its permits.
    Granted,
    /// The same, but a dry circuit would have prevented it: its twin ends the request now, with the
    /// outcome of the attempt before. Dry circuits that count requests are to be told of that
    /// outcome, and what `admission` holds of dry policies is to be given back.
    GrantedDry,
    /// An enforced circuit prevents it.
    Refused,
}

/// Takes a permit for another attempt from every circuit that counts attempts: from all of them, or
/// from none.
pub fn again(
    policies: &Policies,
    admission: &mut Admission,
    dry_run: &mut DryRun,
    now: Moment,
) -> Again {
    let of_attempts = |breaker: &&Arc<Breaker>| breaker.config().count == Count::Attempts;
    // Both are asked, whatever the first says.
    let [of_route, of_upstream] = policies.breakers().map(|b| b.filter(of_attempts));
    let asked = [
        leave(of_route, CircuitOf::Route, dry_run, now),
        leave(of_upstream, CircuitOf::Upstream, dry_run, now),
    ];
    let mut prevented = false;
    let mut permits = [None, None];
    for (permit, asked) in permits.iter_mut().zip(asked) {
        match asked {
            Leave::Given(given) => *permit = given,
            Leave::Passed(_) => prevented = true,
            Leave::Refused(_) => return Again::Refused,
        }
    }
    let [of_route, of_upstream] = permits;
    if of_route.is_some() {
        admission.route_permit = of_route;
    }
    if of_upstream.is_some() {
        admission.upstream_permit = of_upstream;
    }
    if !prevented {
        return Again::Granted;
    }
    dry_run.end();
    Again::GrantedDry
}
