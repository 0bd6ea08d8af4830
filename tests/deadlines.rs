//! The caller's time and the route's are one deadline, and every attempt is told what is left.

use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, H2Client, H2Response, H2Upstream, Plan, Reply, Upstream, assert_about,
    frame, request, timed,
};

fn h2c(upstream: &H2Upstream, policies: &str) -> Gateway {
    Plan::route(policies).h2_upstream(upstream).start()
}

fn grpc(gateway: &Gateway, timeout: Option<&str>) -> H2Response {
    let mut call = request("POST", "/s.S/M").header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        call = call.header("grpc-timeout", timeout);
    }
    H2Client::connect(gateway.address).call(call.body(&frame(b"x")[..]).unwrap())
}

/// `grpc-timeout` as the upstream was told it.
fn told(upstream: &H2Upstream, attempt: usize) -> Duration {
    let header = upstream.requests()[attempt].headers["grpc-timeout"].to_str().unwrap().to_owned();
    let (digits, unit) = header.split_at(header.len() - 1);
    let amount = digits.parse().expect("digits");
    match unit {
        "u" => Duration::from_micros(amount),
        "m" => Duration::from_millis(amount),
        "S" => Duration::from_secs(amount),
        other => panic!("{other}"),
    }
}

#[test]
fn a_caller_of_grpc_gets_its_own_deadline() {
    let upstream = H2Upstream::always(Reply::hang());
    let gateway = h2c(&upstream, "timeout: {request: 5s}");
    let (response, took) = timed(|| grpc(&gateway, Some("300m")));
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("4")));
    assert_about(took, Duration::from_millis(300));
    upstream.wait_cancelled(1);
    assert!(told(&upstream, 0) <= Duration::from_millis(300));
}

#[test]
fn a_caller_of_connect_gets_its_own_deadline() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "timeout: {request: 0}");
    let call = || Call::new("POST /").header("Connect-Timeout-Ms", "300");
    let unary = call().header("Connect-Protocol-Version", "1").json("{}");
    let (response, took) = timed(|| gateway.call(unary));
    assert_eq!((response.status, response.code().as_str()), (504, "deadline_exceeded"));
    assert_about(took, Duration::from_millis(300));
    upstream.wait_cancelled(1);
    let told: u64 =
        upstream.only().header("connect-timeout-ms").expect("a timeout").parse().unwrap();
    assert!((200..=300).contains(&told), "{told}");

    let stream = call().header("Content-Type", "application/connect+json").body(frame(b"{}"));
    let (response, took) = timed(|| gateway.call(stream));
    assert!(response.text().contains("deadline_exceeded"), "{}", response.text());
    assert_about(took, Duration::from_millis(300));
}

#[test]
fn the_routes_limit_holds_against_a_caller_with_more_time() {
    let upstream = H2Upstream::always(Reply::hang());
    let gateway = h2c(&upstream, "timeout: {request: 300ms}");
    let (response, took) = timed(|| grpc(&gateway, Some("1H")));
    assert_eq!(response.header("grpc-status"), Some("4"));
    assert_about(took, Duration::from_millis(300));
    assert!(told(&upstream, 0) <= Duration::from_millis(300));
}

#[test]
fn an_upstream_is_told_of_the_routes_limits_where_the_caller_gives_none() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "timeout: {attempt: 2s, request: 5s}");
    grpc(&gateway, None);
    let told = told(&upstream, 0);
    assert!(told <= Duration::from_secs(2) && told > Duration::from_secs(1), "{told:?}");
}

#[test]
fn every_attempt_is_told_what_is_left() {
    let upstream = H2Upstream::script([Reply::trailers_only(14), Reply::grpc(b"ok", 0)]);
    let retry = "retry: {max_retries: 1, methods: any, on: [grpc_unavailable], backoff: {base: 200ms, max: 200ms, jitter: 0%}}";
    let gateway = h2c(&upstream, retry);
    assert_eq!(grpc(&gateway, Some("2S")).status_field("grpc-status"), Some("0"));
    let (first, second) = (told(&upstream, 0), told(&upstream, 1));
    assert!(first <= Duration::from_secs(2), "{first:?}");
    assert!(second + Duration::from_millis(190) <= first, "{first:?}, then {second:?}");
}

#[test]
fn no_time_at_all_is_exceeded_before_anything_is_sent() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = h2c(&upstream, "");
    assert_eq!(grpc(&gateway, Some("0m")).header("grpc-status"), Some("4"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn plain_http_is_told_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "timeout: {request: 5s}");
    gateway.call(Call::new("POST /").header("Grpc-Timeout", "nonsense").json("{}"));
    assert_eq!(upstream.only().header("grpc-timeout"), Some("nonsense"));
    assert_eq!(upstream.only().header("connect-timeout-ms"), None);
}
