//! Clients that send or read so slowly that they only hold a connection, and honest ones that are not fast.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::{Answer, Call, Gateway, H2Client, Plan, Upstream, eventually, pass, request};

const SHORT: &str = "timeout: {request: 0, upload_grace: 500ms, min_upload_rate: 10KiB}";

fn head(length: usize) -> Vec<u8> {
    Call::new("POST /").header("Content-Length", &length.to_string()).bytes()
}

/// Sends a body at this rate, whatever the machine does meanwhile, until it is complete or refused.
fn send(stream: &mut TcpStream, body: &[u8], per_second: usize) {
    let (begun, mut sent) = (Instant::now(), 0);
    while sent < body.len() {
        let due = begun.elapsed().as_millis() as usize * per_second / 1000;
        let due = due.min(body.len());
        if stream.write_all(&body[sent..due.max(sent)]).is_err() {
            return;
        }
        sent = due.max(sent);
        pass(Duration::from_millis(20));
    }
}

fn response(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    let mut heard = [0; 4096];
    let read = stream.read(&mut heard).expect("a response");
    String::from_utf8_lossy(&heard[..read]).into_owned()
}

fn line_of(gateway: &Gateway, limit: &str) {
    let line = gateway.wait_for_access_lines(1).pop().expect("a line");
    let told = (&line["portcullis.cause"], &line["portcullis.limit"]);
    assert_eq!(told, (&"request_timeout".into(), &limit.into()), "{line}");
}

#[test]
fn an_upload_that_only_trickles_is_refused_as_slow() {
    let upstream = Upstream::start();
    let gateway = Plan::route(SHORT).upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.write_all(&head(1_000_000)).expect("a head");
    let mut sender = stream.try_clone().expect("a clone");
    let sending = std::thread::spawn(move || send(&mut sender, &[b'x'; 20_000], 1000));
    let heard = response(&mut stream);
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    assert!(heard.to_ascii_lowercase().contains("connection: close"), "{heard}");
    drop(stream);
    sending.join().expect("a sender");
    line_of(&gateway, "timeout.min_upload_rate");
}

#[test]
fn an_upload_above_the_rate_is_served_however_long_it_takes() {
    let upstream = Upstream::start();
    let route = "timeout: {request: 0, upload_grace: 2s, min_upload_rate: 4KiB}";
    let gateway = Plan::route(route).upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    let body = vec![b'x'; 130_000];
    stream.write_all(&head(body.len())).expect("a head");
    // For three windows, and fast enough for a machine that is busy.
    send(&mut stream, &body, 20_000);
    let heard = response(&mut stream);
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert_eq!(upstream.only().body.len(), body.len());
}

#[test]
fn a_slow_upload_over_http2_is_refused_and_its_connection_goes_on() {
    let upstream = Upstream::start();
    let gateway = Plan::route(SHORT).upstream(&upstream).start();
    let h2 = H2Client::connect(gateway.address);
    let head = request("POST", "/").header("content-length", "1000000").body(()).expect("a head");
    let mut upload = h2.open(head, false);
    upload.send(b"begun", false);
    assert_eq!(upload.head().status(), 408);
    line_of(&gateway, "timeout.min_upload_rate");
    assert_eq!(h2.get("/").status, 200);
}

#[test]
fn a_body_without_a_length_is_live_and_may_pause() {
    let upstream = Upstream::start();
    let route = "timeout: {request: 0, upload_grace: 200ms}";
    let gateway = Plan::route(route).upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("a head");
    for _ in 0..10 {
        stream.write_all(b"1\r\nx\r\n").expect("an open connection");
        pass(Duration::from_millis(100));
    }
    stream.write_all(b"0\r\n\r\n").expect("an open connection");
    let heard = response(&mut stream);
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}

#[test]
fn an_upload_is_not_slow_while_the_gateway_waits_for_its_upstream() {
    // The whole body is there, and the upstream takes longer than any window.
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(1200)));
    let gateway = Plan::route(SHORT).upstream(&upstream).start();
    let response = gateway.call(Call::new("POST /").body("short"));
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
}

/// Sends a small body over HTTP/2, and reads nothing of a response of this length for several windows of an upload.
fn read_late(gateway: &Gateway, length: usize) {
    let h2 = H2Client::connect(gateway.address);
    let head = request("POST", "/").header("content-length", "5").body(()).expect("a head");
    let mut exchange = h2.open(head, false);
    exchange.send(b"small", true);
    assert_eq!(exchange.head().status(), 200);
    pass(Duration::from_millis(900));
    let response = exchange.finish();
    assert_eq!((response.reset, response.body.len()), (None, length));
}

#[test]
fn a_response_over_http2_that_is_read_slowly_is_not_taken_for_a_slow_upload() {
    const BYTES: usize = 1 << 20;
    let upstream = Upstream::always(Answer::stream(BYTES as u64));
    let route = "timeout: {request: 0, upload_grace: 200ms}";
    read_late(&Plan::route(route).upstream(&upstream).start(), BYTES);
}

#[test]
fn neither_is_one_that_the_gateway_gives_by_itself() {
    // One more than fits into the window of a stream.
    const BYTES: usize = 64 * 1024;
    let routes = "routes:
  all: {respond: {body: '${file:large.txt}'}, timeout: {upload_grace: 200ms}}\n";
    let plan = Plan::new(routes).beside("large.txt", &"x".repeat(BYTES));
    read_late(&plan.start(), BYTES);
}

const READING: &str = "timeout: {request: 0, idle: 1s, min_download_rate: 200KiB}";

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::always(Answer::stream(1 << 30));
    let gateway = Plan::route(READING).upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.write_all(&Call::new("GET /").bytes()).expect("a request");
    line_of(&gateway, "timeout.min_download_rate");
    eventually("nothing left of it", || {
        (gateway.metric("portcullis_requests_in_flight", &[]) == 0.0).then_some(())
    });
    drop(stream);
}

#[test]
fn a_client_that_reads_steadily_is_not_cut_however_long_it_takes() {
    const BYTES: usize = 24 << 20;
    let upstream = Upstream::always(Answer::stream(BYTES as u64));
    let gateway = Plan::route(READING).upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(&Call::new("GET /").bytes()).expect("a request");
    let (begun, mut read, mut buffer) = (Instant::now(), 0, vec![0; 64 * 1024]);
    while read < BYTES {
        // 6 MiB a second: several windows.
        if begun.elapsed().as_millis() as usize * 6 * 1024 > read {
            match stream.read(&mut buffer).expect("more of it") {
                0 => panic!("cut after {read} bytes"),
                more => read += more,
            }
        } else {
            pass(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_client_that_reads_above_the_rate_is_not_cut_however_much_the_system_takes() {
    let upstream = Upstream::always(Answer::stream(1 << 30));
    let route = "timeout: {request: 0, idle: 2s, min_download_rate: 64KiB}";
    let gateway = Plan::route(route).upstream(&upstream).start();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // Else the client's system would take megabytes too.
    socket.set_recv_buffer_size(32 * 1024).expect("an option");
    socket.connect(&gateway.address.into()).expect("a connection");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(&Call::new("GET /").bytes()).expect("a request");
    let (begun, mut read, mut buffer) = (Instant::now(), 0, vec![0; 16 * 1024]);
    // Four windows, in which less is read than a system may take at once.
    while begun.elapsed() < Duration::from_secs(9) {
        if begun.elapsed().as_millis() as usize * 256 > read {
            read += stream.read(&mut buffer).expect("more of it");
        } else {
            pass(Duration::from_millis(5));
        }
    }
    // What the system has taken would be read even if the gateway had closed the connection.
    assert_eq!(gateway.metric("portcullis_requests_in_flight", &[]), 1.0, "after {read} bytes");
}
