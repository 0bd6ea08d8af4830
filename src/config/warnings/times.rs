//! Time limits that work against each other.

use std::time::Duration;

use super::super::{Config, Problem, Route};
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::policy::breaker::{self, Extent};
use crate::units::Timespan;

/// Attempts and waits may exceed the request's limit by this part of it, because default waits are
/// only milliseconds.
const TOLERANCE: f64 = 0.05;

/// How long an attempt can take that gets no response: `timeout.attempt`, or the time within which
/// a response has to begin, which is only part of an attempt that succeeds.
fn longest_failure(route: &Route) -> Option<Duration> {
    let attempt = Some(*route.timeout.attempt).filter(|attempt| !attempt.is_zero());
    attempt.or_else(|| route.timeout.first_byte())
}

/// The attempts of a route that allows more of them than its request has time for.
pub(super) fn attempts(path: &KeyPath, route: &Route, warnings: &mut Vec<Problem>) {
    let request = *route.timeout.request;
    let Some(retry) = route.retry.as_ref().filter(|retry| retry.max_retries > 0) else { return };
    let Some(attempt) = longest_failure(route).filter(|_| !request.is_zero()) else { return };
    let waits: Duration = (1..=retry.max_retries).map(|n| retry.backoff.delay(n, 1.0)).sum();
    let attempts = retry.max_retries + 1;
    let longest = attempt.saturating_mul(attempts).saturating_add(waits);
    if longest > request.mul_f64(1.0 + TOLERANCE) {
        let timeout = path.clone().key("timeout");
        let path = path.clone().key("retry").key("max_retries");
        let longest = Timespan(Duration::from_millis(longest.as_millis() as u64));
        let message = format!(
            "{attempts} attempts of {} and their waits take up to {longest}, but the request ends \
             after {}",
            Timespan(attempt),
            route.timeout.request
        );
        let problem = Problem::new(Code::AttemptsBeyondRequest, path, message);
        warnings.push(problem.with(timeout.clone().key("attempt")).with(timeout.key("request")));
    }
}

/// Circuits that forget a failure before an attempt that began with it can end.
pub(super) fn breaker(path: &KeyPath, route: &Route, warnings: &mut Vec<Problem>) {
    if let Some(breaker) = &route.circuit_breaker {
        let found = warnings.len();
        let attempt = path.clone().key("timeout").key("attempt");
        forgetful(path.clone().key("circuit_breaker"), breaker, *route.timeout.attempt, warnings);
        for warning in warnings.split_off(found) {
            warnings.push(warning.with(attempt.clone()));
        }
    }
}

/// The same of upstreams, and the attempts of all their routes.
pub(super) fn upstream_breakers(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, upstream) in &config.upstreams {
        let Some(breaker) = &upstream.circuit_breaker else { continue };
        let routes = config.routes.values().filter(|route| route.upstreams().any(|of| of == name));
        let attempt = routes.map(|route| *route.timeout.attempt).max().unwrap_or_default();
        let path = KeyPath::root().key("upstreams").key(name).key("circuit_breaker");
        forgetful(path, breaker, attempt, warnings);
    }
}

fn forgetful(
    path: KeyPath,
    breaker: &breaker::Config,
    attempt: Duration,
    warnings: &mut Vec<Problem>,
) {
    let window = breaker.window.as_ref().and_then(|window| match window.extent {
        Extent::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
        Extent::Calls(_) => None,
    });
    let consecutive = breaker.consecutive.as_ref().and_then(|c| c.reset_every).map(|every| *every);
    for (section, key, kept) in
        [("window", "time", window), ("consecutive", "reset_every", consecutive)]
    {
        if let Some(kept) = kept.filter(|kept| *kept < attempt) {
            let (kept, attempt) = (Timespan(kept), Timespan(attempt));
            let message =
                format!("failures are forgotten after {kept}, but an attempt may take {attempt}");
            let path = path.clone().key(section).key(key);
            warnings.push(Problem::new(Code::BreakerForgets, path, message));
        }
    }
}
