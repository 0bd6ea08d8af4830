//! Calls whose end is part of the answer's body: one that failed is a failure to the record, to circuits
//! and to metrics, though its status is 200; the client gets it as it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Call, Gateway, H2Client, H2Upstream, Plan, Reply, Response, Store, eventually, frame, request,
};

const RECORD: &str = "record: {mode: sync, capture: {result_message: error.message}}";
const TRAILERS: u8 = 0x80;
const END_STREAM: u8 = 2;

/// As a frame of trailers.
fn end(trailers: &str) -> Vec<u8> {
    let mut frame = frame(trailers.as_bytes());
    frame[0] = TRAILERS;
    frame
}

/// Calls of each kind, and how a failed one ends after a message.
fn failed_calls() -> [(&'static str, Vec<u8>); 3] {
    let failed = |flag: u8, end: &str| {
        let mut end = frame(end.as_bytes());
        end[0] = flag;
        [frame(b"hi"), end].concat()
    };
    let web = failed(TRAILERS, "grpc-status: 14\r\ngrpc-message: not%20now\r\n");
    let text = STANDARD.encode(&web).into_bytes();
    let stream = r#"{"error":{"code":"unavailable","message":"not now"}}"#;
    [
        ("application/grpc-web+proto", web),
        ("application/grpc-web-text", text),
        ("application/connect+json", failed(END_STREAM, stream)),
    ]
}

fn call(gateway: &Gateway, content_type: &str) -> Response {
    let body = match content_type {
        "application/grpc-web-text" => STANDARD.encode(frame(b"ask")).into_bytes(),
        _ => frame(b"ask"),
    };
    gateway.call(Call::new("POST /Service/Method").header("Content-Type", content_type).body(body))
}

/// With patience for a busy machine.
fn store() -> String {
    Store::Sqlite.section().replace("record: {", "record: {commit_timeout: 5s, ")
}

/// Of HTTP/2, as services of Connect have it.
fn upstream(content_type: &str, body: &[u8]) -> H2Upstream {
    H2Upstream::always(Reply::status(200).header("content-type", content_type).body(body))
}

#[test]
fn a_call_that_fails_in_its_body_is_recorded_with_its_words() {
    for (content_type, body) in failed_calls() {
        let upstream = upstream(content_type, &body);
        let plan = Plan::route(RECORD).section(&store());
        let gateway = plan.h2_upstream(&upstream).start();
        let answer = call(&gateway, content_type);
        assert_eq!((answer.status, answer.body), (200, body), "{content_type}");
        let row = eventually("the row of a call that is over", || {
            Store::Sqlite.rows(&gateway).into_iter().find(|row| row.is_true("completed"))
        });
        assert!(!row.is_true("success"), "{content_type}");
        assert_eq!(row.text("result_message"), Some("not now"), "{content_type}");
        assert_eq!(row.text("cause"), Some("grpc_status"), "{content_type}");
    }
}

#[test]
fn a_call_that_ends_well_in_its_body_is_a_success() {
    let body = [frame(b"hi"), end("grpc-status: 0\r\n")].concat();
    let upstream = upstream("application/grpc-web+proto", &body);
    let policies = format!("{RECORD}\ncircuit_breaker: {{consecutive: {{failures: 1}}}}");
    let plan = Plan::route(&policies).section(&store());
    let gateway = plan.h2_upstream(&upstream).start();
    for _ in 0..2 {
        assert_eq!(call(&gateway, "application/grpc-web+proto").status, 200);
    }
    assert_eq!(upstream.count(), 2);
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert!(rows.iter().all(|row| row.is_true("success")), "{rows:#?}");
}

#[test]
fn calls_that_fail_in_their_bodies_open_a_circuit_and_are_counted() {
    for (content_type, body) in failed_calls() {
        let upstream = upstream(content_type, &body);
        let policies = "circuit_breaker: {consecutive: {failures: 2}}";
        let gateway = Plan::route(policies).h2_upstream(&upstream).start();
        for _ in 0..2 {
            assert_eq!(call(&gateway, content_type).body, body, "{content_type}");
        }
        assert_ne!(call(&gateway, content_type).body, body, "{content_type}");
        assert_eq!(upstream.count(), 2, "{content_type}");
        let labels = [("upstream", "service"), ("outcome", "grpc_unavailable")];
        eventually("counted attempts", || {
            let counted = gateway.metric("portcullis_upstream_attempts_total", &labels);
            (counted == 2.0).then_some(())
        });
    }
}

#[test]
fn what_is_the_caller_s_own_fault_opens_no_circuit() {
    let upstream = upstream("application/grpc-web+proto", &end("grpc-status: 5\r\n"));
    let policies = "circuit_breaker: {consecutive: {failures: 1}}";
    let gateway = Plan::route(policies).h2_upstream(&upstream).start();
    for _ in 0..3 {
        call(&gateway, "application/grpc-web+proto");
    }
    assert_eq!(upstream.count(), 3);
}

/// A call of gRPC-Web over HTTP/2, as a proxy before the gateway makes it.
fn call_by_h2(gateway: &Gateway) -> Vec<u8> {
    let call = request("POST", "/Service/Method").header("content-type", "application/grpc-web");
    let answer =
        H2Client::connect(gateway.address).call(call.body(&b"\0\0\0\0\0"[..]).expect("a call"));
    assert_eq!((answer.status, answer.reset), (200, None));
    answer.body.to_vec()
}

#[test]
fn a_failure_without_a_message_before_it_is_tried_again() {
    let good = [frame(b"hi"), end("grpc-status: 0\r\n")].concat();
    let later = [frame(b"hi"), end("grpc-status: 14\r\n")].concat();
    for (first, tries) in [
        (end("grpc-status: 14\r\n"), 2),
        (end("grpc-status: 5\r\n"), 1),
        (end("grpc-status: 14\r\ngrpc-retry-pushback-ms: -1\r\n"), 1),
        (later, 1),
    ] {
        let reply = |body: &[u8]| {
            Reply::status(200).header("content-type", "application/grpc-web").body(body)
        };
        let upstream = H2Upstream::script([reply(&first), reply(&good)]);
        let policies = "retry: {max_retries: 1, methods: any, on: [grpc_unavailable]}";
        let gateway = Plan::route(policies).h2_upstream(&upstream).start();
        let expected = if tries == 2 { &good } else { &first };
        assert_eq!(&call_by_h2(&gateway), expected);
        assert_eq!(upstream.count(), tries, "{first:?}");
    }
}
