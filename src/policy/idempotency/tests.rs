//! Keys, fingerprints, the states of a key, and which responses are kept.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::*;

fn key(value: &[u8]) -> Result<Option<Key>, InvalidKey> {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, HeaderValue::from_bytes(value).expect("a header value"));
    Key::of(&headers)
}

#[track_caller]
fn some(value: &[u8]) -> Key {
    key(value).expect("valid").expect("a key")
}

#[test]
fn a_key_is_the_same_with_and_without_quotes() {
    assert_eq!(some(b"\"8e03978e-40d5\""), some(b"8e03978e-40d5"));
    assert_eq!(some(b"  padded\t").as_bytes(), b"padded");
    assert_eq!(some(br#""a \"b\" \\c""#).as_bytes(), br#"a "b" \c"#);
    assert_eq!(Key::of(&HeaderMap::new()), Ok(None));
}

#[test]
fn what_is_no_key_is_told_apart_from_no_key() {
    let longest = [b'k'; 255];
    assert_eq!(some(&longest).as_bytes(), longest);
    let too_long = [b'k'; 256];
    let wrong: [(&[u8], InvalidKey); 13] = [
        (b"", InvalidKey::Empty),
        (b"\"\"", InvalidKey::Empty),
        (b"\"open", InvalidKey::Quoting),
        (b"open\"", InvalidKey::Character),
        (b"a b", InvalidKey::Character),
        (b"a,b", InvalidKey::Character),
        (b"\"a\"b", InvalidKey::Quoting),
        (b"\"a\"; p=1", InvalidKey::Quoting),
        (b"\"\\n\"", InvalidKey::Quoting),
        (b"\"\\", InvalidKey::Quoting),
        (b"caf\xc3\xa9", InvalidKey::Character),
        (b"\"caf\xe9\"", InvalidKey::Quoting),
        (&too_long, InvalidKey::Long),
    ];
    for (value, why) in wrong {
        assert_eq!(key(value), Err(why), "{}", String::from_utf8_lossy(value));
    }
    let mut two = HeaderMap::new();
    two.append(HEADER, HeaderValue::from_static("a"));
    two.append(HEADER, HeaderValue::from_static("a"));
    assert_eq!(Key::of(&two), Err(InvalidKey::Repeated));
}

#[test]
fn a_key_belongs_to_its_consumer_and_route() {
    let consumer = |authority, name| Principal::Consumer { authority, name };
    let address = Principal::Address("192.0.2.1".parse().expect("an address"));
    let scopes = [
        Scope::new(consumer("a", "ada"), "pay", &some(b"k")),
        Scope::new(consumer("b", "ada"), "pay", &some(b"k")),
        Scope::new(consumer("a", "eve"), "pay", &some(b"k")),
        Scope::new(consumer("a", "ada"), "refund", &some(b"k")),
        Scope::new(consumer("a", "ada"), "pay", &some(b"l")),
        // No other split of the same text gives the same scope.
        Scope::new(consumer("a", "adap"), "ay", &some(b"k")),
        Scope::new(consumer("address", "192.0.2.1"), "pay", &some(b"k")),
        Scope::new(address, "pay", &some(b"k")),
        Scope::new(Principal::Anyone, "pay", &some(b"k")),
    ];
    for (index, scope) in scopes.iter().enumerate() {
        assert!(!scopes[index + 1..].contains(scope), "{index}");
    }
    let mapped = Principal::Address("::ffff:192.0.2.1".parse().expect("an address"));
    assert_eq!(Scope::new(mapped, "pay", &some(b"k")), scopes[7]);
}

#[test]
fn a_fingerprint_tells_all_that_matters_apart_and_nothing_else() {
    let first = Fingerprint::new("POST", "/pay", Some("a=1&b=2"), Some(b"text/plain"), b"ten");
    let same = Fingerprint::new("POST", "/pay", Some("b=2&a=1"), Some(b"text/plain"), b"ten");
    assert_eq!(first, same);
    for other in [
        Fingerprint::new("PATCH", "/pay", Some("a=1&b=2"), Some(b"text/plain"), b"ten"),
        Fingerprint::new("POST", "/pay/", Some("a=1&b=2"), Some(b"text/plain"), b"ten"),
        Fingerprint::new("POST", "/pay", Some("a=1"), Some(b"text/plain"), b"ten"),
        Fingerprint::new("POST", "/pay", None, Some(b"text/plain"), b"ten"),
        Fingerprint::new("POST", "/pay", Some("a=1&b=2"), Some(b"text/html"), b"ten"),
        Fingerprint::new("POST", "/pay", Some("a=1&b=2"), None, b"ten"),
        Fingerprint::new("POST", "/pay", Some("a=1&b=2"), Some(b"text/plain"), b"eleven"),
        Fingerprint::new("POST", "/pay", Some("a=1&b=2"), Some(b"text/plai"), b"nten"),
    ] {
        assert_ne!(first, other);
    }
}

const FIRST: Fingerprint = Fingerprint([1; 32]);
const OTHER: Fingerprint = Fingerprint([2; 32]);

fn answer(body: Option<&'static [u8]>) -> Answer {
    let body = body.map(Bytes::from_static);
    Answer { status: StatusCode::CREATED, headers: HeaderMap::new(), body, trailers: None }
}

fn leased(until: u64) -> Entry {
    let state = State::Leased { until: Stamp(until) };
    Entry { fingerprint: FIRST, state, expires_at: Stamp(1000) }
}

fn answered(body: Option<&'static [u8]>) -> Entry {
    Entry { state: State::Answered(answer(body)), ..leased(0) }
}

fn decided(entry: Entry, on_undecided: OnUndecided, now: u64) -> Decision {
    decide(entry, &FIRST, on_undecided, Stamp(now))
}

#[test]
fn a_request_in_flight_holds_its_key_until_its_lease_is_over() {
    for policy in [OnUndecided::Reject, OnUndecided::Retry] {
        let in_flight = decided(leased(100), policy, 99);
        assert_eq!(in_flight, Decision::Refuse(Refusal::InFlight));
    }
    let undecided = Decision::Refuse(Refusal::Undecided);
    assert_eq!(decided(leased(100), OnUndecided::Reject, 100), undecided);
    assert_eq!(decided(leased(100), OnUndecided::Reject, 999), undecided);
    assert_eq!(decided(leased(100), OnUndecided::Retry, 100), Decision::TakeOver);
}

#[test]
fn an_answer_is_given_again_until_its_time_is_over() {
    let replay = Decision::Replay(answer(Some(b"done")));
    assert_eq!(decided(answered(Some(b"done")), OnUndecided::Retry, 999), replay);
    assert_eq!(decided(answered(Some(b"done")), OnUndecided::Reject, 1000), Decision::TakeOver);
    assert_eq!(decided(leased(100), OnUndecided::Reject, 1000), Decision::TakeOver);
}

#[test]
fn an_answer_that_was_too_large_is_no_reason_to_execute_again() {
    let not_kept = Decision::Refuse(Refusal::NotKept);
    assert_eq!(decided(answered(None), OnUndecided::Retry, 500), not_kept);
}

#[test]
fn another_request_with_the_key_is_refused_whatever_became_of_the_first() {
    for entry in [leased(100), leased(0), answered(Some(b"done")), answered(None)] {
        let decision = decide(entry, &OTHER, OnUndecided::Retry, Stamp(50));
        assert_eq!(decision, Decision::Refuse(Refusal::Mismatch));
    }
}

#[test]
fn only_proof_that_nothing_was_done_takes_traces_away() {
    let config = Config::default();
    let after = |outcomes: &[Outcome]| {
        let mut traces = Traces::default();
        for outcome in outcomes {
            traces.sending();
            assert!(traces.exist(), "an attempt under way");
            traces.attempted(*outcome, &config);
        }
        traces.exist()
    };
    let unsent = [Outcome::ConnectFailure, Outcome::ConnectTimeout, Outcome::RefusedStream];
    assert!(!after(&[]) && !after(&unsent));
    assert!(!after(&[Outcome::Response(429)]), "listed in release_on");
    for outcome in [Outcome::Reset, Outcome::Timeout, Outcome::Response(503), Outcome::Protocol] {
        assert!(after(&[outcome]), "{outcome:?}");
        assert!(after(&[outcome, Outcome::ConnectFailure]), "{outcome:?}, then unsent");
    }
}

#[test]
fn a_failure_to_connect_leaves_no_traces() {
    let mut traces = Traces::default();
    traces.attempted(Outcome::Timeout, &Config::default());
    assert!(!traces.exist(), "nothing was being sent");
}

#[test]
fn headers_of_one_connection_or_moment_and_credentials_are_not_kept() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("x-order", "7"),
        ("x-order", "8"),
        ("location", "/orders/7"),
        ("connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("date", "now"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "session=secret"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let kept = Answer::begin(StatusCode::OK, &headers);
    let mut names: Vec<_> = kept.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "location", "x-order", "x-order"]);
}

#[test]
fn a_kept_answer_is_read_as_it_was() {
    let mut kept = answer(Some(b"a\r\n\0b"));
    kept.headers.append("x-a", HeaderValue::from_static("1: 2"));
    kept.headers.append("x-b", HeaderValue::from_bytes(b"caf\xe9").expect("a value"));
    kept.headers.append("x-b", HeaderValue::from_static(""));
    assert_eq!(Answer::read(kept.to_kept()), Some(kept.clone()));
    let trailers = [("grpc-status", "0"), ("set-cookie", "session=secret")]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    kept.end_with(&trailers.into_iter().collect());
    let again = Answer::read(kept.to_kept()).expect("what was written");
    assert_eq!(again, kept);
    assert_eq!(again.trailers.expect("trailers").len(), 1, "no credentials");
    let good = kept.to_kept();
    for wrong in [
        Kept { status: 99, ..good.clone() },
        Kept { head: b"no colon\r\n".to_vec(), ..good.clone() },
        Kept { trailers: Some(b"no colon\r\n".to_vec()), ..good },
    ] {
        assert_eq!(Answer::read(wrong), None);
    }
}

fn config(yaml: &str) -> Result<Config, String> {
    serde_yaml::from_str(yaml).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_the_safe_ones() {
    let config = config("{}").expect("valid");
    assert_eq!(config, Config::default());
    assert_eq!((config.on_failure, config.on_undecided), (OnFailure::Reject, OnUndecided::Reject));
    let covered = |method: &http::Method| config.covers(method);
    assert!(covered(&http::Method::POST) && covered(&http::Method::PATCH));
    assert!(!covered(&http::Method::GET) && !covered(&http::Method::PUT));
}

#[test]
fn sizes_and_statuses_are_bounded() {
    for wrong in
        ["max_body: 65KiB", "max_body: 0", "max_response: 9MiB", "ttl: 0", "release_on: [200]"]
    {
        assert!(config(wrong).is_err(), "{wrong}");
    }
    assert!(config("{max_body: 64KiB, max_response: 8MiB, release_on: []}").is_ok());
    assert!(config("methods: [GET]").is_err());
}
