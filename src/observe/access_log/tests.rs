//! What is kept and what is left out, decided from summaries.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use super::*;
use crate::config::access_log::PerSecond;
use crate::policy::failure::{Cause, Fault};
use crate::summary::Opening;
use crate::summary::attempt::{Failure, Times};
use crate::summary::ending::{Cut, Ending, NoRequest, Refusal, Response};
use crate::summary::words::Words;
use crate::time::Moment;

pub(super) const REFUSAL: Refusal<'static> =
    Refusal { code: "rate_limited", fault: Fault::Client, detail: "too many requests" };

pub(super) fn summary<'a>(ending: Ending<'a>, route: Option<&'a Arc<str>>) -> Summary<'a> {
    Summary {
        opening: Opening {
            id: None,
            received_at: SystemTime::UNIX_EPOCH,
            request_id: "req-1",
            trace_id: 0,
            listener: None,
            head: None,
            route,
            consumer: None,
            certificate: None,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            protocol: "http",
            generation: 1,
            decided_after: Duration::ZERO,
            limit_keys: &[],
        },
        ending,
        fault: ending.fault(),
        status: 200,
        upstream: None,
        endpoint: None,
        upstream_status: None,
        attempts: 0,
        no_retry: None,
        limit: None,
        said: None,
        would_refuse: None,
        failure: None,
        past: &[],
        times: Times::default(),
        error: None,
        duration: Duration::ZERO,
        upstream_duration: None,
        bytes_in: None,
        bytes_out: 0,
    }
}

#[test]
fn failures_are_told_from_refusals_and_from_what_an_upstream_declines() {
    let response = Response::Upstream;
    for (ending, class) in [
        (Ending::Answered, Class::Success),
        (Ending::Failed { cause: Some(Cause::Answered(404)) }, Class::Success),
        (Ending::Failed { cause: Some(Cause::Grpc(5)) }, Class::Success),
        (Ending::Replayed { failed: true }, Class::Success),
        (Ending::Failed { cause: Some(Cause::Answered(503)) }, Class::Failure),
        (Ending::Failed { cause: Some(Cause::Grpc(14)) }, Class::Failure),
        (Ending::Failed { cause: None }, Class::Failure),
        (Ending::BrokeOff(REFUSAL), Class::Failure),
        (Ending::Cut { why: Cut::Shutdown, response, midway: false }, Class::Failure),
        (Ending::Refused(REFUSAL), Class::Refusal),
        (Ending::ClientGone { response, midway: true }, Class::Refusal),
        (Ending::NoRequest(NoRequest::Handshake), Class::Refusal),
    ] {
        assert_eq!(keep::class(&summary(ending, None)), class, "{ending:?}");
    }
    let failure = Failure {
        cause: Cause::Reset,
        words: Words::None,
        upstream: "orders".into(),
        endpoint: None,
        connection: None,
    };
    let failed = Summary { failure: Some(&failure), ..summary(Ending::Refused(REFUSAL), None) };
    assert_eq!(keep::class(&failed), Class::Failure);
}

#[test]
fn each_route_and_cause_has_a_rate_of_its_own_and_an_exact_count() {
    let (orders, users): (Arc<str>, Arc<str>) = ("orders".into(), "users".into());
    let (of_orders, of_users, of_none) =
        (Refusals::default(), Refusals::default(), Refusals::default());
    let left_out = LeftOut::default();
    let rate = PerSecond(3);
    let at = |millis| Moment::ZERO + Duration::from_millis(millis);
    let admitted = |refusals, route, code, millis| {
        let refusal = Refusal { code, ..REFUSAL };
        left_out.admits(refusals, &summary(Ending::Refused(refusal), route), rate, at(millis))
    };
    let first: Vec<_> =
        (0..5).map(|_| admitted(&of_orders, Some(&orders), "rate_limited", 0)).collect();
    assert_eq!(first, [true, true, true, false, false]);
    assert!(admitted(&of_orders, Some(&orders), "bulkhead_full", 0), "another cause");
    assert!(admitted(&of_users, Some(&users), "rate_limited", 0), "another route");
    assert!(admitted(&of_none, None, "no_route", 0), "no route");
    assert!(!admitted(&of_orders, Some(&orders), "rate_limited", 300));
    assert!(admitted(&of_orders, Some(&orders), "rate_limited", 400));
    let counts = left_out.take();
    let [count] = &counts[..] else { panic!("{counts:?}") };
    assert_eq!((&*count.route, count.cause, count.lines), ("orders", "rate_limited", 3));
    assert!(left_out.take().is_empty(), "told once");
}

/// They would be slow by the listener's limit, all of them, and push failures out of the log.
#[test]
fn a_client_that_is_slow_to_begin_is_not_kept_for_being_slow() {
    let keep = crate::config::access_log::Keep::default();
    let late = summary(Ending::NoRequest(NoRequest::HeadLate), None);
    let late = Summary { duration: Duration::from_secs(20), ..late };
    assert!(!keep::is_slow(&keep, &late));
    let (method, path) = (http::Method::GET, "/");
    let head =
        crate::summary::Head { method: Some(&method), path: Some(path), query: None, host: None };
    let opening = Opening { head: Some(head), ..late.opening };
    assert!(keep::is_slow(&keep, &Summary { opening, ..late }));
}

#[test]
fn a_rate_of_nothing_leaves_everything_out() {
    let (left_out, refusals) = (LeftOut::default(), Refusals::default());
    let refused = summary(Ending::Refused(REFUSAL), None);
    assert!(!left_out.admits(&refusals, &refused, PerSecond(0), Moment::ZERO));
    assert_eq!(left_out.take().len(), 1);
}

#[test]
fn what_a_route_has_left_out_is_told_after_a_reload_has_removed_it() {
    let (left_out, refusals) = (LeftOut::default(), Refusals::default());
    let refused = summary(Ending::Refused(REFUSAL), None);
    assert!(!left_out.admits(&refusals, &refused, PerSecond(0), Moment::ZERO));
    drop(refusals);
    let mut counts = left_out.take();
    assert_eq!(counts.iter().map(|count| count.lines).sum::<u64>(), 1);
    let other = Refusals::default();
    assert!(!left_out.admits(&other, &refused, PerSecond(0), Moment::ZERO));
    // As for an output that could not be written in between.
    left_out::add(&mut counts, left_out.take());
    let [count] = &counts[..] else { panic!("one route and cause: {counts:?}") };
    assert_eq!(count.lines, 2);
}
