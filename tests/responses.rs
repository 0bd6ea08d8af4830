//! Heads of upstreams' responses that two clients may read in two ways: made one, or refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::support::{Answer, Call, Gateway, H2Client, H2Upstream, Plan, Reply, Upstream};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// What a client is answered where the upstream says these bytes.
fn answered(gateway: &Gateway, upstream: &Upstream, bytes: &str) -> crate::support::Response {
    upstream.answer_always(Answer::verbatim(bytes));
    gateway.get("/")
}

#[test]
fn equal_lengths_said_twice_reach_the_client_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    for lengths in
        ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2", "Content-Length: 02"]
    {
        let bytes = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhi");
        let response = answered(&gateway, &upstream, &bytes);
        assert_eq!((response.status, response.text().as_str()), (200, "hi"), "{lengths}");
        assert_eq!(response.header("content-length"), Some("2"), "{lengths}");
        let response = h2.get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "hi"), "{lengths}");
        assert_eq!(response.headers.get_all("content-length").iter().count(), 1, "{lengths}");
        assert_eq!(response.header("content-length"), Some("2"), "{lengths}");
    }
}

#[test]
fn a_response_of_unclear_length_is_502_and_says_so() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let h2 = H2Client::connect(gateway.address);
    for (head, why) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3", "how long it is"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3", "how long it is"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2", "how long it is"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip", "a transfer coding other than chunked"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
            "a transfer coding other than chunked",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip",
            "a transfer coding other than chunked",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "a transfer coding other than chunked",
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", "of HTTP/1.0 has a transfer coding"),
    ] {
        let response =
            answered(&gateway, &upstream, &format!("{head}\r\n\r\n2\r\nhi\r\n0\r\n\r\n"));
        assert_eq!(
            (response.status, response.code().as_str()),
            (502, "invalid_response"),
            "{head}"
        );
        let detail = response.json()["detail"].as_str().expect("words").to_owned();
        assert!(detail.contains(why), "{head}: {detail}");
        assert_eq!(h2.get("/").status, 502, "{head}");
    }
    gateway.wait_for_log("cause=invalid_response");
}

#[test]
fn of_two_framings_the_client_sees_the_one_that_counts() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let response = answered(&gateway, &upstream, bytes);
    assert_eq!((response.status, response.text().as_str()), (200, "hi"));
    assert_eq!(response.header("content-length"), None);
}

#[test]
fn a_response_without_a_body_does_not_say_how_one_is_framed() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 5"] {
        let response =
            answered(&gateway, &upstream, &format!("HTTP/1.1 204 No\r\n{framing}\r\n\r\n"));
        assert_eq!(response.status, 204, "{framing}");
        assert_eq!(response.header("transfer-encoding"), None, "{framing}");
        assert_eq!(response.header("content-length"), None, "{framing}");
    }
}

#[test]
fn protocols_are_not_changed_unasked() {
    let upstream = Upstream::start();
    let yaml = "
routes:
  plain: {match: {path: /plain}, upstream: service}
  tunnel: {match: {path: /tunnel}, upstream: service, websocket: {}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let asking = |path: &str, protocol: &str| {
        Call::new(&format!("GET {path}"))
            .header("Connection", "Upgrade")
            .header("Upgrade", protocol)
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13")
    };
    let switched = |to: &str| {
        let bytes = format!("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n{to}\r\nhello");
        upstream.answer_always(Answer::verbatim(&bytes));
    };
    switched("Upgrade: websocket\r\n");
    for call in [
        Call::new("GET /plain"),
        Call::new("GET /tunnel"),
        asking("/plain", "websocket"),
        asking("/tunnel", "h2c"),
    ] {
        let response = gateway.call(call);
        assert_eq!((response.status, response.code().as_str()), (502, "invalid_response"));
        assert_eq!(
            response.json()["detail"],
            "the upstream changed protocols, which it was not asked to"
        );
    }
    assert_eq!(H2Client::connect(gateway.address).get("/tunnel").status, 502);
    for other in ["", "Upgrade: smtp\r\n"] {
        switched(other);
        assert_eq!(gateway.call(asking("/tunnel", "websocket")).status, 502, "{other}");
    }
    switched("Upgrade: WebSocket\r\n");
    let mut client = gateway.connect();
    client.send(asking("/tunnel", "websocket").bytes());
    assert_eq!(client.receive_head().status, 101);
}

#[test]
fn more_than_256_fields_are_502_and_said_to_be_too_many() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let response =
        |count| format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nhi", fields(count));
    assert_eq!(answered(&gateway, &upstream, &response(255)).status, 200);
    let refused = answered(&gateway, &upstream, &response(300));
    assert_eq!((refused.status, refused.code().as_str()), (502, "invalid_response"));
    assert_eq!(refused.json()["detail"], "the upstream's response has more than 256 header fields");
    gateway.wait_for_log(
        "the upstream's response has more than 256 header fields; cause=invalid_response",
    );
}

#[test]
fn the_upstreams_date_is_kept() {
    let upstream = Upstream::always(Answer::ok().header("Date", DATE));
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send(Call::new("GET /").bytes());
        let response = client.receive();
        assert_eq!((response.status, response.header("date")), (200, Some(DATE)));
    }
    // An error of the gateway's own has a date of its own, on the same connection too.
    client.send(Call::new("TRACE /").bytes());
    let refused = client.receive();
    assert_ne!(refused.header("date").expect("a date"), DATE);
    let hints = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nDate: {DATE}\r\nContent-Length: 2\r\n\r\nhi"
    );
    upstream.answer_always(Answer::verbatim(&hints));
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    let mut head = client.receive_head();
    if head.status == 103 {
        head = client.receive_head();
    }
    assert_eq!((head.status, head.header("date")), (200, Some(DATE)));
}

#[test]
fn a_response_without_a_date_gets_one() {
    let upstream = Upstream::script([
        Answer::ok().header("Date", DATE),
        Answer::ok(),
        Answer::ok().header("Date", "soon"),
    ]);
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    assert_eq!(client.receive().header("date"), Some(DATE));
    for _ in 0..2 {
        client.send(Call::new("GET /").bytes());
        let response = client.receive();
        let date = response.header("date").expect("a date");
        let date = httpdate::parse_http_date(date).expect("a date");
        assert!(date.elapsed().unwrap_or_default() < Duration::from_secs(60), "{response:?}");
    }
}

#[test]
fn the_upstreams_date_is_kept_between_http_2() {
    let upstream = H2Upstream::always(Reply::status(200).header("date", DATE));
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    assert_eq!(gateway.get("/").header("date"), Some(DATE));
    let h2 = H2Client::connect(gateway.address);
    let response = h2.get("/");
    assert_eq!(response.headers.get_all("date").iter().count(), 1);
    assert_eq!(response.header("date"), Some(DATE));
}

/// An upstream whose first response has a malformed body and another response behind it, either at
/// once or when it is told. To every other request it says `own`.
struct Smuggler {
    address: SocketAddr,
    /// Sends what is behind, and returns when it is sent.
    goes_on: Sender<Sender<()>>,
}

impl Smuggler {
    fn start(body: &str, behind: &'static str, at_once: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut first = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        if at_once {
            first += behind;
        }
        let (goes_on, told) = channel();
        std::thread::spawn(move || {
            let mut unsent = Some((first, told));
            for stream in listener.incoming().map_while(Result::ok) {
                let first = unsent.take();
                std::thread::spawn(move || serve(stream, first, behind));
            }
        });
        Smuggler { address, goes_on }
    }
}

fn serve(stream: TcpStream, first: Option<(String, Receiver<Sender<()>>)>, behind: &str) {
    let next = || {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if (&stream).read(&mut byte).unwrap_or(0) == 0 {
                return false;
            }
            head.push(byte[0]);
        }
        true
    };
    let mut own = &stream;
    if let Some((first, told)) = first {
        if !next() {
            return;
        }
        own.write_all(first.as_bytes()).ok();
        if let Ok(done) = told.recv() {
            own.write_all(behind.as_bytes()).ok();
            done.send(()).ok();
        }
    }
    while next() {
        own.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").ok();
    }
}

/// A limitation, which docs/limitations.md states: Pingora takes these for the end of a body. What is behind it
/// goes with its connection, and is part of no response.
#[test]
fn what_is_behind_a_malformed_chunk_of_a_response_is_part_of_no_other() {
    let foreign = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign";
    for body in [
        "3\r\nabc\r\n\r\n\r\n",
        "3\r\nabc\r\n;x\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        // As it should be: the same holds for it.
        "3\r\nabc\r\n0\r\n\r\n",
    ] {
        for at_once in [true, false] {
            let smuggler = Smuggler::start(body, foreign, at_once);
            let url = format!("http://{}", smuggler.address);
            let gateway = Plan::route("").env("UPSTREAM", &url).start();
            let mut client = gateway.connect();
            let response = client.call(&"GET /".into());
            let text = (response.status, response.text());
            assert_eq!(text, (200, "abc".to_owned()), "{body:?}, at once: {at_once}");
            if !at_once {
                let (done, sent) = channel();
                smuggler.goes_on.send(done).expect("an upstream");
                sent.recv_timeout(Duration::from_secs(10)).expect("sent");
            }
            for _ in 0..3 {
                let text = client.call(&"GET /".into()).text();
                assert_eq!(text, "own", "{body:?}, at once: {at_once}");
            }
        }
    }
}
