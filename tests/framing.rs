//! Requests that two parsers may read in two ways: refused, never forwarded, and never read
//! as more than one request.

use std::time::Duration;

use crate::support::{Call, Gateway, Plan, Upstream, pass};

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

/// What is wrong with the answer to bytes that must be refused: nothing, if it is one of
/// `statuses` or no answer at all, and then the end of the connection.
fn misjudged(gateway: &Gateway, request: &str, statuses: &[u16]) -> Option<String> {
    let mut client = gateway.connect();
    client.send(request);
    match client.try_receive("GET") {
        Ok(response) if !statuses.contains(&response.status) => {
            return Some(format!("answered {}", response.status));
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Some("waited for more".to_owned());
        }
        Ok(_) | Err(_) => {}
    }
    (!client.is_closed()).then(|| "the connection was kept".to_owned())
}

#[test]
fn ambiguous_framing_is_refused_and_ends_the_connection() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut wrong = Vec::new();
    for (what, rest) in AMBIGUOUS {
        let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{rest}");
        // 501 is what RFC 9112 asks for where the coding is not known.
        wrong
            .extend(misjudged(&gateway, &request, &[400, 501]).map(|how| format!("{what}: {how}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
}

#[test]
fn a_malformed_request_line_is_refused_and_ends_the_connection() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut wrong = Vec::new();
    for line in [
        "GET /",
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
        let request = format!("{line}\r\nHost: a.test\r\n\r\n");
        wrong.extend(
            misjudged(&gateway, &request, &[400, 405, 505]).map(|how| format!("{line}: {how}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
}

#[test]
fn a_missing_or_malformed_host_is_400() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut wrong = Vec::new();
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
        let request = format!("GET / HTTP/1.1\r\n{host}\r\n");
        wrong.extend(misjudged(&gateway, &request, &[400]).map(|how| format!("{host:?}: {how}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
fn a_client_that_is_still_sending_learns_why_it_is_refused() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for head in [
        "POST /%2e%2e/x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked",
        "POST /%2e%2e/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000",
    ] {
        let mut client = gateway.connect();
        client.send(format!("{head}\r\n\r\n"));
        let refused = client.receive();
        assert_eq!((refused.status, refused.header("connection")), (400, Some("close")), "{head}");
        // Who writes into a connection that was closed has it reset, and fails with the next write.
        for _ in 0..3 {
            pass(Duration::from_millis(50));
            client.try_send("2\r\nok\r\n").unwrap_or_else(|e| panic!("{head}: {e}"));
        }
        assert!(client.is_closed(), "{head}: the connection stays open");
    }
    assert_eq!(upstream.count(), 0);
}
