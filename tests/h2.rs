//! HTTP/2 from clients, on the port that HTTP/1 has: the same promises, stream by stream.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use h2::Reason;
use http::Request;

use crate::support::{
    Answer, Call, Gateway, H2Client, H2Response, Plan, Upstream, assert_about, assert_within,
    eventually, frame, pass, request, timed,
};

/// A refusal of the gateway's, with the id that the record and the log have.
#[track_caller]
fn assert_problem(response: &H2Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code);
    let id = response.header("x-request-id").expect("an id");
    assert_eq!(problem["request_id"], id);
}

#[test]
fn one_port_speaks_both() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let response = h2.get("/over/two?x=1");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(gateway.get("/over/one").status, 200);
    let targets: Vec<_> = upstream.requests().iter().map(|r| r.target.clone()).collect();
    assert_eq!(targets, ["/over/two?x=1", "/over/one"]);
}

#[test]
fn an_upload_that_ends_with_an_empty_frame_ends_once() {
    const TURNS: usize = 8;
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    for turn in 0..TURNS {
        let head = request("POST", &format!("/{turn}")).body(()).expect("a head");
        let mut upload = h2.open(head, false);
        upload.send(b"some", false);
        upload.send(b"", true);
        assert_eq!(upload.finish().status, 200, "{turn}");
    }
    let requests = upstream.requests();
    let seen = requests.iter().map(|r| (r.target.clone(), r.text(), r.complete));
    let whole = |turn: usize| (format!("/{turn}"), "some".to_owned(), true);
    assert_eq!(seen.collect::<Vec<_>>(), (0..TURNS).map(whole).collect::<Vec<_>>());
    // Were anything left of one, the next on its connection would begin with it. A connection may come
    // back to the pool a moment after its response.
    let last = requests.iter().map(|request| request.connection).max();
    assert!(last.is_some_and(|last| last + 1 < TURNS), "no connection was used again");
}

#[test]
fn a_health_check_shorter_than_the_preface_is_answered_at_once() {
    let gateway = Gateway::route(&Upstream::start(), "");
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("eighteen bytes");
    let mut answer = String::new();
    let (_, took) = timed(|| stream.read_to_string(&mut answer).expect("an answer"));
    assert!(answer.starts_with("HTTP/1."), "{answer}");
    assert_within(took, Duration::from_secs(1));
}

#[test]
fn a_connection_that_stops_within_the_preface_is_closed_in_time() {
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", header_timeout: 300ms}}";
    let gateway = Plan::route("").section(listener).start();
    for beginning in ["", "PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(gateway.address).expect("a connection");
        stream.write_all(beginning.as_bytes()).expect("a few bytes");
        let (read, took) = timed(|| stream.read(&mut [0]));
        assert_eq!(read.expect("the end"), 0, "{beginning:?}");
        assert_about(took, Duration::from_millis(300));
    }
}

#[test]
fn an_h2_connection_without_streams_is_closed_after_its_idle_time() {
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", idle_timeout: 300ms}}";
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(500)));
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    let h2 = H2Client::connect(gateway.address);
    assert_eq!(h2.get("/longer/than/idle").status, 200);
    let ((), took) = timed(|| h2.wait_closed());
    assert_about(took, Duration::from_millis(300));
}

#[test]
fn streams_share_a_connection_and_do_not_wait_for_each_other() {
    let upstream = Upstream::script([Answer::ok().held(), Answer::ok()]);
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let slow = h2.open(request("GET", "/slow").body(()).unwrap(), true);
    upstream.wait_for(1);
    assert_eq!(h2.get("/fast").status, 200);
    upstream.release();
    assert_eq!(slow.finish().status, 200);
    gateway.expect_metric("portcullis_connections", &[], 1.0);
}

#[test]
fn identity_and_ids_are_asserted_for_streams_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let head = request("GET", "/")
        .header("x-consumer", "root")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-request-id", "mine");
    let response = H2Client::connect(gateway.address).call(head.body(&b""[..]).unwrap());
    assert_eq!(response.header("x-request-id"), Some("mine"));
    let seen = upstream.only();
    assert_eq!(seen.header("x-consumer"), None);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("gateway.test"));
    assert_eq!(seen.header("x-request-id"), Some("mine"));
}

#[test]
fn an_ambiguous_path_is_refused_and_the_connection_stays() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    for path in ["/a/%2e%2e/%2f", "/%00"] {
        let response = h2.get(path);
        assert_eq!((response.status, &response.json()["code"]), (400, &"bad_request".into()));
    }
    assert_eq!(h2.get("/a/b").status, 200);
    assert_eq!(upstream.count(), 1, "only the last was forwarded");
}

#[test]
fn an_authority_and_a_host_that_differ_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let head = request("GET", "/a").header("host", "other.test").header("x-request-id", "mine");
    let response = h2.call(head.body(&b""[..]).unwrap());
    assert_problem(&response, 400, "bad_request");
    assert_eq!(response.header("x-request-id"), Some("mine"));
    let line = &gateway.wait_for_access_lines(1)[0];
    let names = ["http.request.method", "url.path", "server.address"];
    assert_eq!(names.map(|name| line[name].as_str()), ["GET", "/a", "gateway.test"].map(Some));
    let call = request("POST", "/test.Service/Call")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("host", "other.test")
        .header("x-request-id", "mine");
    let response = h2.call(call.body(&frame(b"hello")[..]).unwrap());
    // INVALID_ARGUMENT.
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("3")));
    assert_eq!(response.header("content-type"), Some("application/grpc"));
    assert_eq!(response.header("x-request-id"), Some("mine"));
    assert_eq!(h2.get("/").status, 200, "the connection is in order");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_request_without_a_host_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    // The library sends no `:authority` with a target that is a path.
    let head = || Request::builder().uri("/");
    let response = h2.call(head().body(&b""[..]).unwrap());
    assert_problem(&response, 400, "bad_request");
    assert!(response.text().contains("names no host"), "{}", response.text());
    let call = head().method("POST").header("content-type", "application/grpc");
    let response = h2.call(call.header("te", "trailers").body(&frame(b"hello")[..]).unwrap());
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("3")));
    let named = head().header("host", "gateway.test").body(&b""[..]).unwrap();
    assert_eq!(h2.call(named).status, 200, "`Host` is enough");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_connect_and_lengths_that_differ_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let connect = Request::builder().method("CONNECT").uri("gateway.test:443");
    assert_problem(&h2.call(connect.body(&b""[..]).unwrap()), 405, "method_not_allowed");
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_eq!(line["http.request.method"], "CONNECT");
    // The library refuses these itself.
    let head = request("POST", "/").header("content-length", "2").header("content-length", "3");
    let response = h2.call(head.body(&b"ab"[..]).unwrap());
    assert_eq!((response.status, response.body.len()), (400, 0));
    assert_eq!(h2.get("/").status, 200, "the connection is in order");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn after_requests_for_two_hosts_a_connection_takes_no_more() {
    let gateway = Plan::route("").start();
    let h2 = H2Client::connect(gateway.address);
    for _ in 0..32 {
        let head = request("GET", "/").header("host", "other.test");
        assert_problem(&h2.call(head.body(&b""[..]).unwrap()), 400, "bad_request");
    }
    h2.is_told_to_go();
}

#[test]
fn head_and_empty_answers_end_with_their_head() {
    let upstream = Upstream::script([Answer::ok(), Answer::from(204)]);
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let response = h2.call(request("HEAD", "/").body(&b""[..]).unwrap());
    assert_eq!((response.status, response.body.len(), response.reset), (200, 0, None));
    assert_eq!(response.header("content-length"), Some("2"));
    let response = h2.get("/");
    assert_eq!((response.status, response.reset), (204, None));
    let refusal = h2.call(request("TRACE", "/").body(&b""[..]).unwrap());
    assert_eq!((refusal.status, refusal.reset), (405, None));
    assert_eq!(h2.get("/").status, 200, "the connection is in order");
}

#[test]
fn a_body_larger_than_the_route_allows_is_413_declared_or_not() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "max_body: 1KiB");
    let h2 = H2Client::connect(gateway.address);
    let body = vec![b'x'; 2000];
    let declared = request("POST", "/").header("content-length", "2000");
    assert_eq!(h2.call(declared.body(&body[..]).unwrap()).status, 413);
    assert_eq!(upstream.count(), 0);
    assert_eq!(h2.call(request("POST", "/").body(&body[..]).unwrap()).status, 413);
    assert!(upstream.requests().iter().all(|r| !r.complete));
    assert_eq!(h2.get("/").status, 200, "the connection is in order");
}

#[test]
fn a_refused_upload_may_end_but_not_go_on_for_ever() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}\nmax_body: 1KiB");
    let client = H2Client::connect(gateway.address);
    let refused = || {
        let head = request("POST", "/").header("content-length", "2000").body(()).unwrap();
        let mut stream = client.open(head, false);
        assert_eq!(stream.head().status(), 413);
        // What would follow the answer at once has been read, and nothing is held for it.
        assert_eq!(client.get("/").status, 200);
        stream
    };
    let mut ends = refused();
    ends.send(&[b'x'; 2000], true);
    assert_eq!(ends.finish().reset, None);
    let mut stays = refused();
    eventually("the stream is reset", || stays.try_send(b"x", false).err());
}

#[test]
fn a_stream_that_is_reset_frees_its_slot_and_cancels_upstream() {
    let upstream = Upstream::script([Answer::hang()]);
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}");
    let h2 = H2Client::connect(gateway.address);
    let mut hanging = h2.open(request("GET", "/").body(()).unwrap(), true);
    upstream.wait_for(1);
    assert_eq!(h2.get("/").status, 429);
    hanging.reset(Reason::CANCEL);
    upstream.wait_cancelled(1);
    eventually("the slot to be free", || (h2.get("/").status == 200).then_some(()));
}

#[test]
fn the_deadline_holds_for_a_stream_however_the_upstream_stalls() {
    let half = Duration::from_millis(500);
    let drip = Duration::from_millis(100);
    for answer in [Answer::hang(), Answer::drip_head(drip)] {
        let upstream = Upstream::always(answer);
        let gateway = Gateway::route(&upstream, "timeout: {request: 500ms}");
        let h2 = H2Client::connect(gateway.address);
        let (response, took) = timed(|| h2.get("/"));
        assert_eq!((response.status, &response.json()["code"]), (504, &"deadline_exceeded".into()));
        assert_about(took, half);
        upstream.wait_cancelled(1);
    }
    let upstream = Upstream::always(Answer::drip_body(drip));
    let gateway = Gateway::route(&upstream, "timeout: {attempt: 500ms}");
    let h2 = H2Client::connect(gateway.address);
    let (response, took) = timed(|| h2.get("/"));
    assert_eq!(response.status, 200);
    assert!(response.reset.is_some(), "half an answer is never passed off as whole");
    assert_about(took, half);
    upstream.wait_cancelled(1);
}

#[test]
fn an_upload_that_stalls_is_408_and_no_upstreams_fault() {
    let upstream = Upstream::start();
    let policies = "timeout: {request: 300ms}\ncircuit_breaker: {consecutive: {failures: 1}}";
    let gateway = Gateway::route(&upstream, policies);
    let h2 = H2Client::connect(gateway.address);
    let mut upload = h2.open(request("POST", "/").body(()).unwrap(), false);
    upload.send(b"half", false);
    let (response, took) = timed(|| upload.finish());
    assert_eq!(response.status, 408);
    assert_about(took, Duration::from_millis(300));
    assert_eq!(h2.get("/").status, 200, "the circuit is closed");
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_at_the_deadline() {
    let upstream = Upstream::always(Answer::stream(100_000_000));
    let policies = "timeout: {request: 400ms}\nbulkhead: {max_in_flight: 1}";
    let gateway = Gateway::route(&upstream, policies);
    let h2 = H2Client::connect(gateway.address);
    let mut unread = h2.open(request("GET", "/").body(()).unwrap(), true);
    assert_eq!(unread.head().status(), 200);
    upstream.wait_cancelled(1);
    let freed = || (gateway.metric("portcullis_bulkhead_in_flight", &[]) == 0.0).then_some(());
    eventually("the slot to be free", freed);
}

#[test]
fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let slow = h2.open(request("GET", "/").body(()).unwrap(), true);
    upstream.wait_for(1);
    gateway.signal("TERM");
    gateway.wait_for_log("draining");
    h2.is_told_to_go();
    upstream.release();
    let response = slow.finish();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn more_streams_than_the_listener_allows_wait_for_room() {
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", http2: {max_streams: 2}}}";
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    let h2 = H2Client::connect(gateway.address);
    // The client learns of the limit with the gateway's first frame.
    assert_eq!(h2.call(request("TRACE", "/").body(&b""[..]).unwrap()).status, 405);
    let open = |_| h2.open(request("GET", "/").body(()).unwrap(), true);
    let streams: Vec<_> = (0..2).map(open).collect();
    upstream.wait_for(2);
    let third = std::thread::scope(|scope| {
        let third = scope.spawn(|| open(2).finish());
        pass(Duration::from_millis(100));
        assert_eq!(upstream.count(), 2);
        upstream.release();
        third.join().expect("the third stream")
    });
    assert_eq!(third.status, 200);
    assert!(streams.into_iter().all(|stream| stream.finish().status == 200));
}

#[test]
fn heads_that_are_too_large_are_refused_and_the_connection_stays() {
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", max_header_bytes: 2KiB}}";
    let upstream = Upstream::start();
    let gateway = Plan::route("").section(listener).upstream(&upstream).start();
    let h2 = H2Client::connect(gateway.address);
    let large = |size: usize| {
        let head = request("GET", "/").header("x-large", "x".repeat(size));
        h2.call(head.body(&b""[..]).unwrap())
    };
    for size in [2100, 8000, 200_000] {
        assert_problem(&large(size), 431, "headers_too_large");
    }
    // As HTTP/1 counts them, these are within the limit.
    let many = (0..150).fold(request("GET", "/"), |head, n| head.header(format!("x-{n}"), "a"));
    assert_problem(&h2.call(many.body(&b""[..]).unwrap()), 431, "headers_too_large");
    // The library refuses what is larger than 256 KiB before the gateway sees it.
    let response = large(300_000);
    assert_eq!((response.status, response.body.len()), (431, 0));
    assert_eq!(h2.get("/").status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_upgrade_to_h2c_is_ignored() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let call = Call::new("GET /")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAAP__");
    assert_eq!(gateway.call(call).status, 200);
    let seen = upstream.only();
    assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (None, None));
}

#[test]
fn a_client_that_opens_and_resets_without_end_is_cut_off() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "");
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("a preface");
    for id in (1..20_000_u32).step_by(2) {
        // GET / of http://a, with the end of the request; then CANCEL.
        let head = [&b"\0\0\x06\x01\x05"[..], &id.to_be_bytes(), b"\x82\x86\x84\x41\x01a"].concat();
        let reset = [&b"\0\0\x04\x03\0"[..], &id.to_be_bytes(), b"\0\0\0\x08"].concat();
        if stream.write_all(&[head, reset].concat()).is_err() {
            break;
        }
    }
    let mut heard = Vec::new();
    // A reset is an end, too.
    let ended =
        stream.read_to_end(&mut heard).map_or_else(|e| e.kind(), |_| ErrorKind::UnexpectedEof);
    assert!(!matches!(ended, ErrorKind::WouldBlock | ErrorKind::TimedOut), "it stays open");
    eventually("nothing left of it", || {
        (gateway.metric("portcullis_requests_in_flight", &[]) == 0.0).then_some(())
    });
    upstream.answer_always(200);
    assert_eq!(gateway.get("/").status, 200);
}

/// A connection whose frames the test writes itself: the library's client refuses such targets.
struct Frames {
    stream: TcpStream,
    id: u32,
}

impl Frames {
    fn connect(gateway: &Gateway) -> Self {
        let mut stream = TcpStream::connect(gateway.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(preface).expect("a preface");
        Frames { stream, id: 1 }
    }

    /// Sends `GET target`; the type and the payload of the first frame of its stream: HEADERS (1)
    /// or RST_STREAM (3).
    fn get(&mut self, target: &str) -> (u8, Vec<u8>) {
        let id = self.send(target);
        self.receive(id)
    }

    /// Sends `GET target`; the number of its stream.
    fn send(&mut self, target: &str) -> u32 {
        // `:method`, `:scheme`, `:authority` and `:path`, the latter two as literals.
        let length = u8::try_from(target.len()).expect("a short target");
        assert!(length < 127, "an integer of one byte");
        let block = [b"\x82\x86\x01\x01a\x04", &[length][..], target.as_bytes()].concat();
        let length = u8::try_from(block.len()).expect("a short head");
        let head = [&[0, 0, length, 1, 5][..], &self.id.to_be_bytes(), &block].concat();
        self.stream.write_all(&head).expect("a request");
        let id = self.id;
        self.id += 2;
        id
    }

    fn receive(&mut self, id: u32) -> (u8, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).expect("a frame");
            let [a, b, c, kind, _, id_of @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).expect("its payload");
            if u32::from_be_bytes(id_of) == id && [1, 3].contains(&kind) {
                return (kind, payload);
            }
        }
    }

    /// Waits until the gateway ends the connection.
    fn ends(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

/// The library resets them before the gateway sees them. A reset alone makes Traefik try again without a pause.
#[test]
fn targets_that_no_uri_may_hold_are_refused_and_the_connection_goes_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let mut client = Frames::connect(&gateway);
    let mut accepted = 0;
    for target in ["/p<", "/p>q`r", "/p?a=<d>", "/p?a={\"x\":[1]}", "/a b", "p", ""] {
        let (kind, payload) = client.get(target);
        // `:status: 400` has an index of its own. The reset follows, and `get` passes over it.
        assert_eq!((kind, &payload[..]), (1, &[0x8c][..]), "{target}");
        let (kind, payload) = client.get("/fine");
        // `:status: 200` has an index of its own.
        assert_eq!((kind, payload[0]), (1, 0x88), "behind {target}");
        accepted += 1;
        assert_eq!(upstream.count(), accepted, "{target}");
    }
    // The same characters encoded, as clients send them.
    assert_eq!(client.get("/p%3C?a=%7B%22x%22:[1]%7D").0, 1);
    let seen = upstream.requests().pop().map(|request| request.target);
    assert_eq!(seen.as_deref(), Some("/p%3C?a=%7B%22x%22:[1]%7D"));
    // The library drops a fragment.
    assert_eq!(client.get("/a#b").0, 1);
    assert_eq!(upstream.requests().pop().map(|request| request.target).as_deref(), Some("/a"));
    let told = || gateway.access().matches("a malformed request").count();
    eventually("each is told of", || (told() == 7).then_some(()));
}

#[test]
fn after_malformed_heads_a_connection_takes_no_more_and_finishes_what_it_has() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Gateway::route(&upstream, "");
    let mut client = Frames::connect(&gateway);
    let first = client.send("/held");
    upstream.wait_for(1);
    for _ in 0..32 {
        assert_eq!(client.get("/<"), (1, vec![0x8c]));
    }
    // RST_STREAM with REFUSED_STREAM.
    assert_eq!(client.get("/"), (3, vec![0, 0, 0, 7]));
    upstream.release();
    let (kind, head) = client.receive(first);
    assert_eq!((kind, head[0]), (1, 0x88));
    assert_eq!(upstream.count(), 1);
}

/// A client that never acknowledges the PING that goes with GOAWAY.
#[test]
fn a_connection_that_was_told_to_go_is_not_served_for_ever() {
    let upstream = Upstream::start();
    let gateway = Plan::route("")
        .section(
            "listeners: {public: {address: '127.0.0.1:${PORT}', max_requests_per_connection: 1}}",
        )
        .upstream(&upstream)
        .start();
    let mut client = Frames::connect(&gateway);
    assert_eq!(client.get("/").0, 1);
    // It may not have heard yet.
    assert_eq!(client.get("/").0, 1);
    pass(Duration::from_millis(1100));
    assert_eq!(client.get("/"), (3, vec![0, 0, 0, 7]));
    assert_eq!(upstream.count(), 2);
    let (_, took) = timed(|| client.ends());
    assert_within(took, Duration::from_secs(5));
}

#[test]
fn the_size_of_a_head_is_bounded_and_not_the_number_of_its_fields() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    let with = |fields: usize, value: &str| {
        let head =
            (0..fields).fold(request("GET", "/"), |head, n| head.header(format!("x-{n}"), value));
        head.body(&b""[..]).expect("a request")
    };
    assert_eq!(h2.call(with(300, "a")).status, 200);
    assert_eq!(
        upstream.only().headers.iter().filter(|(name, _)| name.starts_with("x-")).count() / 100,
        3
    );
    let refused = h2.call(with(300, &"a".repeat(250)));
    assert_problem(&refused, 431, "headers_too_large");
    assert_eq!(upstream.count(), 1);
    assert_eq!(h2.get("/").status, 200);
}
