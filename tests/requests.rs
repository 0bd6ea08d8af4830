//! Requests that are too large or too slow, and those that only look odd.

use std::time::Duration;

use crate::support::{
    Answer, Call, Ending, Gateway, Plan, Upstream, assert_about, assert_within, eventually, timed,
};

fn plain(upstream: &Upstream) -> Gateway {
    Gateway::route(upstream, "")
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
    // A client that waits for a 100 and gets none sends its body all the same (RFC 9110, section 10.1.1).
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
    eventually("each of them counted", || {
        let labels = [("cause", "header_timeout")];
        (gateway.metric("portcullis_incomplete_requests_total", &labels) == 3.0).then_some(())
    });
}

/// Load balancers look whether a port is open; browsers connect before they have anything to ask.
#[test]
fn a_connection_that_ends_before_its_first_byte_is_nothing_to_tell_of() {
    let gateway = Plan::route("").start();
    for _ in 0..3 {
        drop(gateway.connect());
    }
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHos");
    drop(client);
    // The line that is there came after those that are not.
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_eq!(line["portcullis.cause"], "head_cut_off", "{line:#}");
    gateway.expect_metric("portcullis_incomplete_requests_total", &[], 1.0);
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
    assert_within(took, Duration::from_millis(700));
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
    eventually("no connection", || {
        (gateway.metric("portcullis_connections", &[]) == 0.0).then_some(())
    });
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
