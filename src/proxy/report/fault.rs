//! Whose fault a failure was, where the cause alone does not say it.

use std::time::Duration;

use crate::policy::failure::{Cause, Fault};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::end::Delivery;
use crate::proxy::rejection::Rejection;
use crate::summary::attempt::Times;
use crate::summary::ending::{Cut, Ending};
use crate::time::Moment;

/// A caller that gives less time than this has left none for the call.
const NO_TIME: Duration = Duration::from_millis(1);

/// Whose fault it was that a request ended like this, by `now`; `None` for a success.
pub fn of(ctx: &Context, ending: &Ending<'_>, times: &Times, now: Moment) -> Option<Fault> {
    let fault = ending.fault()?;
    if let Ending::Cut { why: Cut::Overdue, .. } = ending {
        return Some(of_time(ctx, times, now));
    }
    let rejection = match ctx.end.delivery() {
        Delivery::BrokenOff(rejection) => Some(rejection),
        Delivery::Whole => ctx.end.rejection(),
        Delivery::ClientGone { .. } | Delivery::Cut { .. } => None,
    };
    let failure = ctx.verdict.failure.as_ref();
    Some(match rejection {
        Some(Rejection::DeadlineExceeded | Rejection::Upstream(Cause::DeadlineExceeded)) => {
            of_time(ctx, times, now)
        }
        Some(Rejection::Upstream(cause)) => {
            failure.filter(|failure| failure.cause == *cause).map_or(fault, |f| f.fault())
        }
        _ => fault,
    })
}

/// The request's own time was over. It is the fault of who has taken the most of it: the client by
/// sending or reading, the gateway before the first attempt, the upstream by everything else. A
/// caller that has left no time has itself to blame.
fn of_time(ctx: &Context, times: &Times, now: Moment) -> Fault {
    if ctx.deadline.is_some_and(|deadline| deadline.since(ctx.started) < NO_TIME) {
        return Fault::Client;
    }
    let Times { queue, connect, first_byte, body, backoff, client } = *times;
    // Without an attempt, all that was not the client's is the gateway's.
    let queue = match ctx.attempts {
        0 => now.since(ctx.started).saturating_sub(client),
        _ => queue,
    };
    let upstream = connect + first_byte + body + backoff;
    if client > queue && client > upstream {
        Fault::Client
    } else if queue > upstream {
        Fault::Gateway
    } else {
        Fault::Upstream
    }
}
