//! What a list of conditions matches.

use super::*;

fn parse(list: &str) -> Result<Conditions, String> {
    serde_yaml::from_str(list).map_err(|e| e.to_string())
}

#[test]
fn a_list_matches_exactly_what_it_names() {
    let conditions = parse("[429, '503', timeout]").expect("valid");
    for status in 0..=999 {
        let named = status == 429 || status == 503;
        assert_eq!(conditions.matches(Outcome::Response(status)), named, "{status}");
    }
    assert!(conditions.matches(Outcome::Timeout));
    assert!(!conditions.matches(Outcome::Reset));
    assert!(!conditions.matches(Outcome::RefusedStream));
}

#[test]
fn a_class_is_all_its_statuses() {
    let conditions = parse("[5xx]").expect("valid");
    assert!((500..=599).all(|status| conditions.matches(Outcome::Response(status))));
    assert!(!(0..500).any(|status| conditions.matches(Outcome::Response(status))));
}

#[test]
fn a_connect_timeout_is_a_connect_failure_and_a_timeout() {
    for list in ["[connect_failure]", "[timeout]"] {
        assert!(parse(list).expect("valid").matches(Outcome::ConnectTimeout), "{list}");
    }
    assert!(!parse("[reset]").expect("valid").matches(Outcome::ConnectTimeout));
}

#[test]
fn a_tls_failure_is_a_connect_failure_and_has_its_own_name() {
    for list in ["[connect_failure]", "[tls_failure]"] {
        assert!(parse(list).expect("valid").matches(Outcome::TlsFailure), "{list}");
    }
    assert!(Conditions::FAILURES.matches(Outcome::TlsFailure));
    assert!(Conditions::RETRYABLE.matches(Outcome::TlsFailure));
    let tls = parse("[tls_failure]").expect("valid");
    assert!(!tls.matches(Outcome::ConnectFailure) && !tls.names_grpc());
}

#[test]
fn each_grpc_condition_matches_its_status_alone() {
    let names = [
        ("grpc_cancelled", 1),
        ("grpc_deadline_exceeded", 4),
        ("grpc_resource_exhausted", 8),
        ("grpc_internal", 13),
        ("grpc_unavailable", 14),
    ];
    for (name, code) in names {
        let conditions = parse(&format!("[{name}]")).expect("valid");
        let matched: Vec<_> =
            (0..=16).filter(|code| conditions.matches(Outcome::Grpc(*code))).collect();
        assert_eq!(matched, [code], "{name}");
        assert_eq!(Outcome::Grpc(code).as_str(), name);
    }
}

#[test]
fn an_unknown_condition_is_told_what_there_is() {
    let error = parse("[503, timeuot]").expect_err("misspelt");
    assert!(error.contains("`timeuot`") && error.contains("timeout"), "{error}");
}

#[test]
fn a_success_cannot_be_named_a_failure() {
    for list in ["[200]", "[304]", "[600]", "['200']", "[99999]", "[2xx]", "[]"] {
        assert!(parse(list).is_err(), "{list}");
    }
}

#[test]
fn a_set_prints_as_the_list_that_makes_it() {
    let set = parse("[timeout, 5xx, 429, reset]").expect("valid");
    assert_eq!(set.to_string(), "reset, timeout, 429, 5xx");
    assert_eq!(parse(&format!("{set:?}")), Ok(set));
}
