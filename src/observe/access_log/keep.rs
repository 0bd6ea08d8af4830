//! Which requests have a line.

use crate::config::access_log::Keep;
use crate::policy::failure::Fault;
use crate::summary::Summary;
use crate::summary::ending::Ending;
use crate::units::Percent;

/// What a request was, as far as the log is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The client has what the upstream said, and the upstream did not fail.
    Success,
    /// The gateway refused the request, or would have, if all policies were enforced; or its client
    /// left. There may be floods of these.
    Refusal,
    /// The upstream failed, or the gateway.
    Failure,
}

pub(super) fn class(summary: &Summary<'_>) -> Class {
    let success = if summary.would_refuse.is_some() { Class::Refusal } else { Class::Success };
    match summary.ending {
        Ending::Answered | Ending::Unforwarded | Ending::Replayed { .. } => success,
        Ending::Failed { cause: Some(cause) } => match cause.fault() {
            // The upstream declines the request, which is its business.
            Fault::Client => success,
            Fault::Gateway | Fault::Upstream => Class::Failure,
        },
        Ending::Failed { cause: None } | Ending::BrokeOff(_) | Ending::Cut { .. } => Class::Failure,
        // An open circuit refuses because the upstream has failed others, not this request.
        Ending::Refused(_) if summary.failure.is_some() => Class::Failure,
        Ending::Refused(_) | Ending::ClientGone { .. } | Ending::NoRequest(_) => Class::Refusal,
    }
}

pub(super) fn is_slow(keep: &Keep, summary: &Summary<'_>) -> bool {
    let limit = *keep.slower_than;
    // Clients that are slow to begin a request may be many.
    let began = summary.opening.head.is_some();
    began && !limit.is_zero() && summary.duration >= limit
}

/// Whether one of the requests that are drawn by lot, `share` of all.
pub(super) fn is_drawn(share: Percent) -> bool {
    let share = share.fraction();
    share > 0.0 && fastrand::f64() < share
}
