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

const REFUSAL: Refusal<'static> =
    Refusal { code: "rate_limited", fault: Fault::Client, detail: "too many requests" };

fn summary<'a>(ending: Ending<'a>, route: Option<&'a Arc<str>>) -> Summary<'a> {
    Summary {
        opening: Opening {
            id: None,
            received_at: SystemTime::UNIX_EPOCH,
            request_id: "req-1",
            trace_id: 0,
            head: None,
            route,
            consumer: None,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            protocol: "http",
            generation: 1,
            decided_after: Duration::ZERO,
            limit_keys: &[],
        },
        ending,
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
        bytes_in: 0,
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
    };
    let failed = Summary { failure: Some(&failure), ..summary(Ending::Refused(REFUSAL), None) };
    assert_eq!(keep::class(&failed), Class::Failure);
}

#[test]
fn each_route_and_cause_has_a_rate_of_its_own_and_an_exact_count() {
    let (orders, users): (Arc<str>, Arc<str>) = ("orders".into(), "users".into());
    let left_out = LeftOut::default();
    let rate = PerSecond(3);
    let at = |millis| Moment::ZERO + Duration::from_millis(millis);
    let admitted = |route, code, millis| {
        let refusal = Refusal { code, ..REFUSAL };
        left_out.admits(&summary(Ending::Refused(refusal), route), rate, at(millis))
    };
    let first: Vec<_> = (0..5).map(|_| admitted(Some(&orders), "rate_limited", 0)).collect();
    assert_eq!(first, [true, true, true, false, false]);
    assert!(admitted(Some(&orders), "bulkhead_full", 0), "another cause");
    assert!(admitted(Some(&users), "rate_limited", 0), "another route");
    assert!(admitted(None, "no_route", 0), "no route");
    assert!(!admitted(Some(&orders), "rate_limited", 300));
    assert!(admitted(Some(&orders), "rate_limited", 400));
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
    let head = crate::summary::Head { method: &method, path, query: None, host: None };
    let opening = Opening { head: Some(head), ..late.opening };
    assert!(keep::is_slow(&keep, &Summary { opening, ..late }));
}

#[test]
fn a_rate_of_nothing_leaves_everything_out() {
    let left_out = LeftOut::default();
    let refused = summary(Ending::Refused(REFUSAL), None);
    assert!(!left_out.admits(&refused, PerSecond(0), Moment::ZERO));
    assert_eq!(left_out.take().len(), 1);
}
