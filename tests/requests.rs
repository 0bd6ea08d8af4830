//! Requests that are malformed, ambiguous, too large or too slow: refused, never forwarded,
//! and never read as more than one request.

use std::time::Duration;

use crate::support::{
    Answer, Call, Ending, Gateway, Plan, Upstream, assert_about, eventually, timed,
};

fn plain(upstream: &Upstream) -> Gateway {
    Gateway::route(upstream, "")
}

/// Framing that two parsers may read in two ways.
const AMBIGUOUS: &[(&str, &str)] = &[
    ("both framings", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (
        "both, the other way round",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ("a list of lengths", "Content-Length: 5, 6\r\n\r\nhello"),
    ("a length with a sign", "Content-Length: +5\r\n\r\nhello"),
    ("a negative length", "Content-Length: -5\r\n\r\nhello"),
    ("a hexadecimal length", "Content-Length: 0x5\r\n\r\nhello"),
    ("an overflowing length", "Content-Length: 99999999999999999999\r\n\r\nhello"),
    ("no length", "Content-Length: \r\n\r\nhello"),
    ("a space before the colon", "Content-Length : 5\r\n\r\nhello"),
    ("an unknown coding", "Transfer-Encoding: chonked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("a coding besides chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (
        "identity and chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a vertical tab in the coding", "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a folded line", "X-A: 1\r\n  2\r\nContent-Length: 0\r\n\r\n"),
    ("a NUL", "X-A: 1\x002\r\n\r\n"),
    ("a bare CR", "X-A: 1\r2\r\n\r\n"),
    ("a bare LF", "X-A: 1\nContent-Length: 5\r\n\r\nhello"),
    ("a name with a space", "X A: 1\r\n\r\n"),
    ("no name", ": 1\r\n\r\n"),
    ("no colon", "nonsense\r\n\r\n"),
];

#[test]
fn ambiguous_framing_is_refused_and_ends_the_connection() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for (what, rest) in AMBIGUOUS {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{rest}"));
        let response = client.try_receive("POST").unwrap_or_else(|e| panic!("{what}: {e}"));
        // 501 is what RFC 9112 asks for where the coding is not known.
        assert!(matches!(response.status, 400 | 501), "{what}: {}", response.status);
        assert!(client.is_closed(), "{what}: the connection stays open");
        assert_eq!(upstream.count(), 0, "{what}: {:?}", upstream.requests());
    }
}

#[test]
fn a_malformed_request_line_is_refused_and_ends_the_connection() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "G@T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET x HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        " GET / HTTP/1.1",
        "GET http://other.test/ HTTP/1.1",
        "hello",
    ] {
        let mut client = gateway.connect();
        client.send(format!("{line}\r\nHost: a.test\r\n\r\n"));
        match client.try_receive("GET") {
            Ok(response) => {
                assert!(matches!(response.status, 400 | 405 | 505), "{line}: {}", response.status)
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{line}"),
        }
        assert!(client.is_closed(), "{line}: the connection stays open");
        assert_eq!(upstream.count(), 0, "{line}: {:?}", upstream.requests());
    }
}

#[test]
fn a_missing_or_malformed_host_is_400() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for host in [
        "",
        "Host: \r\n",
        "Host: a/../b\r\n",
        "Host: a b\r\n",
        "Host: a@b\r\n",
        "Host: a,b\r\n",
        "Host: a:port\r\n",
        "Host: a:99999\r\n",
        "Host: [::1\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a?b\r\n",
        "Host: a%2fb\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.1\r\n{host}\r\n"));
        let response = client.receive();
        assert_eq!(response.status, 400, "{host:?}");
        assert!(client.is_closed(), "{host:?}: the connection stays open");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn an_absolute_target_is_forwarded_as_a_path() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    client.send("GET http://a.test/x?y=z HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    assert_eq!(upstream.only().target, "/x?y=z");
}

#[test]
fn trace_and_connect_go_nowhere() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for line in ["TRACE / HTTP/1.1", "CONNECT a.test:443 HTTP/1.1"] {
        let mut client = gateway.connect();
        client.send(format!("{line}\r\nHost: a.test\r\n\r\n"));
        let status = client.receive().status;
        assert!(matches!(status, 400 | 405 | 501), "{line}: {status}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn equal_lengths_said_twice_reach_the_upstream_once() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for lengths in ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2"] {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lengths}\r\n\r\nhi"));
        let status = client.receive().status;
        assert!(matches!(status, 200 | 400), "{status}");
    }
    for request in upstream.requests() {
        assert_eq!(request.header("content-length"), Some("2"));
    }
}

#[test]
fn a_malformed_chunk_completes_no_request() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for chunks in [
        "zz\r\nhi\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "2\r\nhixx\r\n0\r\n\r\n",
        "2\nhi\n0\n\n",
        "ffffffffffffffffff\r\nhi",
    ] {
        let mut client = gateway.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        if let Ok(response) = client.try_receive("POST") {
            assert_eq!(response.status, 400, "{chunks:?}");
        }
        assert!(client.is_closed(), "{chunks:?}: the connection stays open");
    }
    assert!(upstream.requests().iter().all(|r| !r.complete), "{:?}", upstream.requests());
}

#[test]
fn what_follows_a_refused_request_is_not_read_as_another() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked",
        "POST / HTTP/1.1\r\nContent-Length: 3",
        "POST /%2e%2e/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3",
    ] {
        let mut client = gateway.connect();
        client.send(format!("{head}\r\n\r\n{smuggled}{smuggled}"));
        assert!(matches!(client.receive().status, 400 | 501), "{head}");
        assert!(client.is_closed(), "{head}: something more was answered");
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
}

#[test]
fn the_body_of_a_refused_request_is_not_read_as_another() {
    let upstream = Upstream::start();
    let yaml = "
auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}
routes:
  open: {match: {path: /smuggled}, upstream: service}
  shut: {match: {path: /shut, methods: [POST]}, upstream: service, auth: {require: partners}, max_body: 1KiB}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for (head, status) in [("POST /shut", 401), ("PUT /shut", 405), ("POST /nowhere", 404)] {
        let mut client = gateway.connect();
        client.send(Call::new(head).body(smuggled).bytes());
        assert_eq!(client.receive().status, status, "{head}");
        // Kept or closed, the next thing on the connection is not the body.
        let _ = client.try_send(Call::new("GET /nowhere").bytes());
        if let Ok(next) = client.try_receive("GET") {
            assert_eq!(next.status, 404, "{head}");
        }
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
}

#[test]
fn requests_one_after_the_other_on_one_connection_are_all_answered() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    for n in 0..5 {
        assert_eq!(client.call(&Call::new(&format!("POST /{n}")).body("hello")).status, 200);
    }
    assert_eq!(upstream.count(), 5);
}

#[test]
fn a_body_announced_too_large_is_413_and_reaches_nobody() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "max_body: 1KiB");
    assert_eq!(gateway.post("/", &"x".repeat(1024)).status, 200);
    let mut client = gateway.connect();
    client.send(Call::new("POST /").header("Content-Length", "1025").bytes());
    let response = client.receive();
    assert_eq!((response.status, response.code().as_str()), (413, "body_too_large"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_body_that_grows_too_large_is_413_and_completes_no_request() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::route(&upstream, "max_body: 1KiB\ncircuit_breaker: {consecutive: {failures: 1}}");
    let mut client = gateway.connect();
    client.send(Call::new("POST /").header("Transfer-Encoding", "chunked").bytes());
    for _ in 0..3 {
        let _ = client.try_send(format!("200\r\n{}\r\n", "x".repeat(512)));
    }
    assert_eq!(client.receive().status, 413);
    assert!(client.is_closed());
    assert!(upstream.requests().iter().all(|r| !r.complete));
    assert_eq!(gateway.get("/").status, 200, "and no fault of the upstream");
}

#[test]
fn a_path_too_long_is_414() {
    let upstream = Upstream::start();
    let listener = "listeners: {public: {address: '127.0.0.1:${PORT}', max_path_bytes: 1KiB}}";
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    assert_eq!(gateway.get(&format!("/{}", "a".repeat(1000))).status, 200);
    let response = gateway.get(&format!("/{}", "a".repeat(1024)));
    assert_eq!((response.status, response.code().as_str()), (414, "path_too_long"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn headers_too_large_are_431() {
    let upstream = Upstream::start();
    let listener = "listeners: {public: {address: '127.0.0.1:${PORT}', max_header_bytes: 4KiB}}";
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    assert_eq!(gateway.call(Call::new("GET /").header("X-Big", &"a".repeat(3000))).status, 200);
    let response = gateway.call(Call::new("GET /").header("X-Big", &"a".repeat(5000)));
    assert_eq!((response.status, response.code().as_str()), (431, "headers_too_large"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_endless_head_is_cut_off() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Endless: ");
    let mut sent = 0_u64;
    while client.try_send(vec![b'a'; 64 * 1024]).is_ok() {
        sent += 64 * 1024;
        assert!(sent < 64 << 20, "{sent} bytes of a head were read");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn head_is_answered_without_a_body_and_with_its_length() {
    let upstream = Upstream::always(Answer::ok().body("0123456789"));
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    let response = client.call(&"HEAD /".into());
    assert_eq!((response.status, response.header("content-length")), (200, Some("10")));
    // A body would be read as the beginning of this answer.
    assert_eq!(client.call(&"GET /".into()).text(), "0123456789");
}

#[test]
fn a_refused_head_has_no_body_either() {
    let upstream = Upstream::start();
    let gateway = Plan::new("routes: {a: {match: {path: /a}, upstream: service}}")
        .upstream(&upstream)
        .start();
    let mut client = gateway.connect();
    assert_eq!(client.call(&"HEAD /b".into()).status, 404);
    assert_eq!(client.call(&"GET /a".into()).status, 200);
}

#[test]
fn the_shortest_health_check_there_is_gets_its_answer() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.receive();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    assert!(client.is_closed());
    assert_eq!(upstream.only().version, "HTTP/1.1");
}

#[test]
fn answers_without_a_body_end_where_they_should() {
    let upstream = Upstream::script([204, 304, 200]);
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    let statuses = [(); 3].map(|()| client.call(&"GET /".into()).status);
    assert_eq!(statuses, [204, 304, 200]);
}

#[test]
fn an_interim_answer_is_awaited_where_it_is_asked_for() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    let head = Call::new("POST /").header("Expect", "100-continue").header("Content-Length", "2");
    client.send(head.bytes());
    // Whoever waits for it and gets none sends all the same (RFC 9110, section 10.1.1).
    client.send("hi");
    assert_eq!(client.receive().status, 200);
    assert_eq!(upstream.only().body, b"hi");
}

#[test]
fn a_head_that_never_ends_is_cut_in_time() {
    let upstream = Upstream::start();
    let listener = "listeners: {public: {address: '127.0.0.1:${PORT}', header_timeout: 400ms}}";
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    for start in
        ["G", "GET / HTTP/1.1\r\nHost: a.test\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\nX: "]
    {
        let mut client = gateway.connect();
        let (_, took) = timed(|| {
            client.send(start);
            if let Ok(response) = client.try_receive("GET") {
                assert_eq!(response.status, 408);
                assert!(client.is_closed());
            }
        });
        assert_about(took, Duration::from_millis(400));
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_head_that_drips_does_not_stretch_its_time() {
    let upstream = Upstream::start();
    let listener = "listeners: {public: {address: '127.0.0.1:${PORT}', header_timeout: 400ms}}";
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    let mut client = gateway.connect();
    let (_, took) = timed(|| {
        for byte in "GET / HTTP/1.1\r\nHost: a.test\r\n".bytes().cycle() {
            if client.try_send([byte]).is_err() {
                break;
            }
            crate::support::pass(Duration::from_millis(20));
        }
    });
    assert!(took < Duration::from_millis(700), "took {took:?}");
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let upstream = Upstream::start();
    let listener = "listeners: {public: {address: '127.0.0.1:${PORT}', idle_timeout: 400ms}}";
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    let mut silent = gateway.connect();
    let (_, took) = timed(|| assert!(silent.is_closed()));
    assert_about(took, Duration::from_millis(400));
    let mut used = gateway.connect();
    assert_eq!(used.call(&"GET /".into()).status, 200);
    let (_, took) = timed(|| assert!(used.is_closed()));
    assert_about(took, Duration::from_millis(400));
}

#[test]
fn connections_beyond_the_limit_are_not_served() {
    let upstream = Upstream::start();
    let listener = "listeners: {public: {address: '127.0.0.1:${PORT}', max_connections: 2}}";
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    let mut first = gateway.connect();
    let mut second = gateway.connect();
    assert_eq!(first.call(&"GET /".into()).status, 200);
    assert_eq!(second.call(&"GET /".into()).status, 200);
    let mut third = gateway.connect();
    let _ = third.try_send(Call::new("GET /").bytes());
    crate::support::pass(Duration::from_millis(100));
    assert_eq!(upstream.count(), 2);
    drop((first, second));
    eventually("room for another", || {
        let mut client = gateway.connect();
        let sent = client.try_send(Call::new("GET /").bytes());
        let answered = sent.and_then(|()| client.try_receive("GET"));
        answered.is_ok_and(|r| r.status == 200 && r.ending == Ending::Complete).then_some(())
    });
}
