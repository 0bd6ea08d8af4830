//! What the answers of a service mean, and which requests are alike.

use super::super::Config;
use super::super::testing::{config, headers};
use super::*;

const TARGET: [&str; 4] = ["GET", "https", "shop.example", "/orders?page=1"];

fn forwarder(more: &str) -> Forwarder {
    let yaml = format!("forward: {{url: 'http://a/check'{more}}}");
    let Config::Forward(config) = config(&yaml) else { panic!("{yaml}") };
    Forwarder::new(&"portal".into(), &config)
}

fn judge(more: &str, status: u16, said: &[(&str, &str)]) -> Result<Arc<Identity>, Denial> {
    let status = StatusCode::from_u16(status).expect("a status");
    forwarder(more).judge(status, &headers(said)).verdict
}

#[test]
fn success_passes_with_what_was_chosen_and_nothing_else() {
    let said = [("x-user", "ada"), ("x-groups", "a"), ("x-groups", "b"), ("x-other", "c")];
    let more = ", response_headers: [X-User, X-Groups, X-Absent], consumer_header: X-User";
    let identity = judge(more, 204, &said).expect("passes");
    assert_eq!((identity.authority(), identity.consumer()), ("portal", "ada"));
    let passed: Vec<_> =
        identity.passed().iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(passed, [("x-user", &b"ada"[..]), ("x-groups", b"a"), ("x-groups", b"b")]);
    assert_eq!(judge("", 200, &said).expect("passes").consumer(), "portal");
}

#[test]
fn a_consumer_that_is_missing_or_no_name_is_the_services_failure() {
    for said in [&[][..], &[("x-user", "")], &[("x-user", "a\tb")]] {
        let denial = judge(", consumer_header: X-User", 200, said).expect_err("no consumer");
        assert!(matches!(denial, Denial::Unanswered { .. }), "{denial:?}");
    }
}

#[test]
fn refusals_are_what_the_service_says() {
    let verdict = |more, status, said: &[_]| match judge(more, status, said) {
        Err(Denial::Said(said)) => said.verdict.clone(),
        other => panic!("{status}: {other:?}"),
    };
    assert_eq!(verdict("", 401, &[]), Verdict::Unauthorized);
    assert_eq!(verdict("", 403, &[]), Verdict::Forbidden);
    let to = [("location", "https://login.example/")];
    for status in [301, 302, 303, 307, 308] {
        let Verdict::Redirect { status: told, location } = verdict("", status, &to) else {
            panic!("{status}")
        };
        assert_eq!((told.as_u16(), location.as_bytes()), (status, to[0].1.as_bytes()));
        assert_eq!(verdict(", redirects: false", status, &to), Verdict::Unauthorized);
    }
}

#[test]
fn every_other_status_is_the_services_failure() {
    for status in [100, 300, 302, 304, 400, 404, 407, 418, 429, 500, 502, 503, 599] {
        let denial = judge("", status, &[]).expect_err("not a verdict");
        assert!(matches!(denial, Denial::Unanswered { .. }), "{status}: {denial:?}");
    }
}

#[test]
fn requests_are_alike_by_the_fields_named_and_their_target() {
    let cached = forwarder(", cache: {by: [Authorization, Cookie], ttl: 1s}");
    let key = |target, pairs: &[_]| cached.key(target, b"", &headers(pairs));
    let cookie = [("cookie", "a")];
    let one = key(TARGET, &cookie).expect("a key");
    assert_eq!(key(TARGET, &[("cookie", "a"), ("x-other", "b")]), Some(one));
    for (target, pairs) in [
        (TARGET, &[("cookie", "b")][..]),
        (TARGET, &[("authorization", "a")]),
        (TARGET, &[("cookie", "a"), ("cookie", "a")]),
        (["POST", TARGET[1], TARGET[2], TARGET[3]], &cookie),
        ([TARGET[0], "http", TARGET[2], TARGET[3]], &cookie),
        ([TARGET[0], TARGET[1], "else", TARGET[3]], &cookie),
        ([TARGET[0], TARGET[1], TARGET[2], "/orders"], &cookie),
    ] {
        let other = key(target, pairs);
        assert!(other.is_some_and(|other| other != one), "{target:?} {pairs:?}");
    }
    let other = cached.key(TARGET, b"URI=spiffe://prod/a", &headers(&cookie));
    assert!(other.is_some_and(|other| other != one), "another certificate");
    assert_eq!(key(TARGET, &[("x-other", "b")]), None, "none of the fields");
    assert_eq!(forwarder("").key(TARGET, b"", &headers(&cookie)), None, "no cache");
    let any = forwarder(", cache: {by: [Cookie], per_target: false, ttl: 1s}");
    let key = |target| any.key(target, b"", &headers(&cookie)).expect("a key");
    assert_eq!(key(TARGET), key(["POST", "http", "else", "/"]));
}

#[test]
fn an_answer_may_forbid_to_be_remembered() {
    let kept = |said: &[_]| forwarder("").judge(StatusCode::OK, &headers(said)).may_be_kept;
    assert!(kept(&[]) && kept(&[("cache-control", "private, max-age=5")]));
    for said in ["no-store", "No-Cache", "private, no-store"] {
        assert!(!kept(&[("cache-control", said)]), "{said}");
    }
}
