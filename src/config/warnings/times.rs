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

/// How long an attempt of a route may take that fails because its upstream is silent.
struct Slowest {
    lasts: Duration,
    /// What ends it, below `timeout`.
    ended_by: &'static str,
}

impl Slowest {
    /// `None` if nothing ends such an attempt. One that streams has only the limit on silence.
    fn of(route: &Route) -> Option<Slowest> {
        let timeout = &route.timeout;
        let limits = [
            ("attempt", Some(*timeout.attempt)),
            ("first_byte", timeout.first_byte()),
            ("idle", Some(*timeout.idle)),
        ];
        let limit = |(ended_by, limit): (&'static str, Option<Duration>)| {
            let lasts = limit.filter(|limit| !limit.is_zero())?;
            Some(Slowest { lasts, ended_by })
        };
        let own = limits.into_iter().find_map(limit);
        let whole = limit(("request", Some(*timeout.request)));
        own.into_iter().chain(whole).min_by_key(|slowest| slowest.lasts)
    }
}

/// Circuits that forget a failure before an attempt that began with it can end.
pub(super) fn breaker(path: &KeyPath, route: &Route, warnings: &mut Vec<Problem>) {
    let Some(breaker) = &route.circuit_breaker else { return };
    let Some(slowest) = Slowest::of(route) else { return };
    let key = slowest.ended_by;
    for problem in forgetful(path.clone().key("circuit_breaker"), breaker, &slowest, None) {
        warnings.push(problem.with(path.clone().key("timeout").key(key)));
    }
}

/// The same of upstreams, and the attempts of all their routes.
pub(super) fn upstream_breakers(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, upstream) in &config.upstreams {
        let Some(breaker) = &upstream.circuit_breaker else { continue };
        let uses = |route: &Route| {
            let fallback = route.fallback.as_ref().and_then(|of| of.upstream.as_deref());
            route.upstreams().chain(fallback).any(|of| of == name)
        };
        let routes = config.routes.iter().filter(|(_, route)| uses(route));
        let slowest = routes
            .filter_map(|(route, of)| Some((route.as_str(), Slowest::of(of)?)))
            .max_by_key(|(_, slowest)| slowest.lasts);
        let Some((route, slowest)) = slowest else { continue };
        let path = KeyPath::root().key("upstreams").key(name).key("circuit_breaker");
        warnings.extend(forgetful(path, breaker, &slowest, Some(route)));
    }
}

fn forgetful(
    path: KeyPath,
    breaker: &breaker::Config,
    slowest: &Slowest,
    route: Option<&str>,
) -> Vec<Problem> {
    let window = breaker.window.as_ref().and_then(|window| match window.extent {
        Extent::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
        Extent::Calls(_) => None,
    });
    let consecutive = breaker.consecutive.as_ref().and_then(|c| c.reset_every).map(|every| *every);
    let kept = [("window", "time", window), ("consecutive", "reset_every", consecutive)];
    let too_short = kept.into_iter().filter_map(|(section, key, kept)| {
        let kept = kept.filter(|kept| *kept < slowest.lasts)?;
        Some((section, key, kept))
    });
    let lasts = Timespan(slowest.lasts);
    let ended_by = match route {
        None => format!("`timeout.{}`", slowest.ended_by),
        Some(route) => format!("`routes.{route}.timeout.{}`", slowest.ended_by),
    };
    let problem = |(section, key, kept)| {
        let message = format!(
            "failures are forgotten after {}, but an attempt may take {lasts} to fail ({ended_by})",
            Timespan(kept)
        );
        let remedy = format!("make `{section}.{key}` at least {lasts}, or shorten {ended_by}");
        let path = path.clone().key(section).key(key);
        Problem::new(Code::BreakerForgets, path, message).remedied(remedy)
    };
    too_short.map(problem).collect()
}
