//! Requests of HTTP/1 as they arrive: several at once, malformed, too large, oddly framed. Whatever is
//! wrong, the gateway answers by itself, in its own words.

use std::time::Duration;

use crate::support::{Answer, Call, Gateway, Plan, Upstream, assert_within, pass, timed};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    let post = "POST /two HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
    let chunks = "POST /three HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\n\r\n";
    client.send(format!("{}{post}{chunks}{}", get("/one"), get("/four")));
    for _ in 0..4 {
        assert_eq!(client.receive().status, 200);
    }
    let targets: Vec<_> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/one", "/two", "/three", "/four"]);
}

#[test]
fn an_early_request_or_a_stray_line_end_does_not_cost_the_answer_before_it() {
    for early in ["\r\n".to_owned(), get("/two"), format!("\r\n{}", get("/two"))] {
        let upstream =
            Upstream::script([Answer::ok().after(Duration::from_millis(300)), Answer::ok()]);
        let gateway = Gateway::route(&upstream, "");
        let mut client = gateway.connect();
        client.send("POST /one HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        upstream.wait_complete(1);
        client.send(&early);
        assert_eq!(client.receive().status, 200, "{early:?}");
        if !early.contains("/two") {
            client.send(get("/two"));
        }
        assert_eq!(client.receive().status, 200, "{early:?}");
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn what_a_uri_may_not_hold_is_forwarded_encoded() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for (target, forwarded) in
        [("/p<", "/p%3C"), ("/p>q`r", "/p%3Eq%60r"), ("/p?a=\"b\"&c=<d>", "/p?a=%22b%22&c=%3Cd%3E")]
    {
        let mut client = gateway.connect();
        client.send(get(target));
        assert_eq!(client.receive().status, 200, "{target}");
        let seen = upstream.requests().pop().map(|request| request.target);
        assert_eq!(seen.as_deref(), Some(forwarded));
    }
}

#[test]
fn every_refusal_of_a_head_is_a_problem_that_says_why() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let many = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "a: b\r\n".repeat(300));
    let long = get(&format!("/{}", "a".repeat(64 * 1024)));
    let large = format!("GET / HTTP/1.1\r\nHost: a.test\r\nA: {}\r\n\r\n", "a".repeat(2 << 20));
    let with = |field: &str| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
    for (request, status, words) in [
        (many, 431, "256 header fields"),
        (large, 431, "larger than this listener allows"),
        (long, 414, ""),
        (get("/a#b"), 400, "fragment"),
        (get("/a b"), 400, "request line"),
        ("G@T / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(), 400, "method"),
        (with("X A: 1"), 400, "name of a header field"),
        (with("X-A: 1\x002"), 400, "control character"),
        (with("Host: b.test"), 400, "Host"),
        (with("Content-Length: x"), 400, "Content-Length"),
        (with("Transfer-Encoding: gzip, chunked"), 400, "transfer coding"),
        ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n".to_owned(), 405, ""),
    ] {
        let mut client = gateway.connect();
        client.try_send(&request).ok();
        let response = client.receive();
        let what = request.chars().take(60).collect::<String>();
        assert_eq!(response.status, status, "{what:?}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{what:?}");
        assert!(response.text().contains(words), "{what:?}: {}", response.text());
        assert!(response.header("server").is_none(), "{what:?}");
        assert!(response.header("x-request-id").is_some(), "{what:?}");
        assert!(client.is_closed(), "{what:?}: the connection is kept");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_refused_head_is_answered_in_the_callers_protocol() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    let call = Call::new("POST /a.B/C")
        .header("connect-protocol-version", "1")
        .header("content-type", "application/json");
    let head = String::from_utf8(call.bytes()).expect("text");
    client.send(head.replacen("/a.B/C", "/a.B/C#d", 1));
    let refused = client.receive();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("invalid_argument"), "{}", refused.text());
    let mut client = gateway.connect();
    let message = "a".repeat(64 * 1024);
    client.try_send(get(&format!("/a.B/C?connect=v1&encoding=json&message={message}"))).ok();
    let refused = client.receive();
    assert!(refused.text().contains("resource_exhausted"), "{}", refused.text());
}

#[test]
fn an_empty_or_malformed_chunk_size_is_400_and_ends_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "\r\n\r\n",
        ";x\r\n",
        " \r\n\r\n",
        "3\r\nabc\r\n\r\n\r\n",
        "3 \r\nabc\r\n",
        "3;a\nb\r\nabc\r\n",
    ] {
        for at_once in [true, false] {
            let mut client = gateway.connect();
            let before = upstream.count();
            if at_once {
                client.send(format!("{head}{chunks}{}", get("/smuggled")));
            } else {
                client.send(head);
                upstream.wait_for(before + 1);
                client.try_send(format!("{chunks}{}", get("/smuggled"))).ok();
            }
            let response = client.receive();
            assert_eq!(response.status, 400, "{chunks:?}, at once: {at_once}");
            assert!(client.is_closed(), "{chunks:?}: the connection is kept");
        }
    }
    assert!(upstream.requests().iter().all(|request| !request.complete && request.target == "/"));
}

#[test]
fn a_refused_client_that_goes_on_sending_sees_the_end_at_once_and_is_not_reset() {
    let yaml = "routes:\n  get: {match: {path: /*, methods: [GET]}, upstream: service}";
    let gateway = Plan::new(yaml).start();
    let upload = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nbeginning";
    let chunks =
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let large = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}", "x".repeat(70_000));
    let (data, chunk) = ("x".repeat(1000), format!("3e8\r\n{}\r\n", "x".repeat(1000)));
    for (sent, status, rest) in [(upload, 405, &data), (chunks, 405, &chunk), (&large, 431, &data)]
    {
        let mut client = gateway.connect();
        let (closed, took) = timed(|| {
            client.send(sent);
            assert_eq!(client.receive().status, status);
            client.is_closed()
        });
        assert!(closed, "{status}");
        assert_within(took, Duration::from_millis(400));
        // A reset would show at the second of these: the gateway still reads.
        for _ in 0..3 {
            let sending = client.try_send(rest);
            assert!(sending.is_ok(), "{status}: {sending:?}");
            pass(Duration::from_millis(50));
        }
    }
}
