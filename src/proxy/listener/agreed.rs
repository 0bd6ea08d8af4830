//! What follows from a TLS handshake, or from its failure.

use std::time::{Duration, SystemTime};

use crate::config::server::Listener as Config;
use crate::summary::attempt::{Bound, Limit};
use crate::time::{Clock, Moment};

/// How long a handshake may take: `time`, by the listener's shorter limit; `None` if that is zero.
pub(super) fn limit_of_handshake(config: &Config, time: Duration) -> Option<Limit> {
    let key = if time == *config.header_timeout { "header_timeout" } else { "idle_timeout" };
    (!time.is_zero()).then_some(Limit { key, bound: Bound::Time(time) })
}

/// The value of the metric's label.
pub(super) fn version_label(version: &'static str) -> &'static str {
    match version {
        "TLSv1_2" => "1.2",
        "TLSv1_3" => "1.3",
        other => other,
    }
}

/// The moment at which the given second of Unix time ends; now, if it has passed.
pub(super) fn end_of(second: u64) -> Moment {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Clock::now() + Duration::from_secs(second.saturating_add(1)).saturating_sub(since_1970)
}
