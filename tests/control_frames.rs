//! Floods of HTTP/2 control frames, and honest clients that send many of them.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Answer, Gateway, H2Client, Plan, Upstream, eventually, request, wait};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame");
    [&[0, 0, length, kind, 0][..], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` of http://a on a stream, without the end of the request.
fn open(stream: u32) -> Vec<u8> {
    let mut head = frame(1, stream, b"\x83\x86\x84\x41\x01a");
    head[4] = 4;
    head
}

/// Whether the gateway closes the connection of a client that sends `frames` 5,000 times.
fn is_cut(gateway: &Gateway, begin: &[u8], frames: &[u8]) -> bool {
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(&[PREFACE, begin].concat()).expect("a preface");
    // Reads what is answered: a client that does not would stop the gateway by itself.
    let mut reader = stream.try_clone().expect("a clone");
    let heard = std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(1..) => {}
                Ok(0) => return true,
                Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    });
    for _ in 0..5_000 {
        if stream.write_all(frames).is_err() {
            break;
        }
    }
    heard.join().expect("a reader")
}

#[test]
fn a_flood_of_any_control_frame_ends_its_connection_and_no_other() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let honest = H2Client::connect(gateway.address);
    assert_eq!(honest.get("/").status, 200);
    let floods: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("PING", vec![], frame(6, 0, &[1; 8])),
        ("SETTINGS", vec![], frame(4, 0, &[])),
        ("PRIORITY", vec![], frame(2, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", vec![], frame(8, 0, &[0, 0, 0, 1])),
        ("empty DATA", open(1), frame(0, 1, &[])),
    ];
    for (n, (name, begin, flood)) in floods.iter().enumerate() {
        assert!(is_cut(&gateway, begin, flood), "{name}: the connection stays open");
        eventually(name, || {
            let violations = [("cause", "http2_violation")];
            let told = gateway.metric("portcullis_incomplete_requests_total", &violations);
            (told as usize > n).then_some(())
        });
    }
    assert_eq!(honest.get("/").status, 200);
    gateway.wait_for_log("floods it with control frames of HTTP/2");
    // Not for each: refusals of a kind that come in numbers are told of a few times.
    eventually("a line that says why", || {
        gateway.access().contains("more control frames").then_some(())
    });
}

#[test]
fn a_large_download_may_be_acknowledged_in_small_pieces() {
    const BYTES: usize = 200 << 20;
    let upstream = Upstream::always(Answer::stream(BYTES as u64));
    let gateway = Plan::route("timeout: {request: 0}").upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    let mut head = frame(1, 1, b"\x82\x86\x84\x41\x01a");
    head[4] = 5;
    stream.write_all(&[PREFACE, &head].concat()).expect("a request");
    let mut received = 0;
    while received < BYTES {
        let mut head = [0; 9];
        reader.read_exact(&mut head).unwrap_or_else(|e| panic!("cut after {received}: {e}"));
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        reader.read_exact(&mut payload).expect("its payload");
        if head[3] != 0 || payload.is_empty() {
            continue;
        }
        received += payload.len();
        // For the stream and for the connection, one KiB at a time.
        let mut updates = Vec::new();
        for piece in payload.chunks(1024) {
            let increment = u32::try_from(piece.len()).expect("small").to_be_bytes();
            updates.extend(frame(8, 0, &increment));
            updates.extend(frame(8, 1, &increment));
        }
        stream.write_all(&updates).expect("an open connection");
    }
}

/// As clients of gRPC in Go do it.
#[test]
fn each_small_message_of_a_stream_may_be_acknowledged_by_itself() {
    const MESSAGE: usize = 30;
    const BYTES: usize = 4_000 * MESSAGE;
    let upstream = Upstream::always(Answer::stream(BYTES as u64));
    let gateway = Plan::route("timeout: {request: 0}").upstream(&upstream).start();
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
    stream.set_nodelay(true).expect("an option");
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    // A window of one message for the stream, and a large one for the connection.
    let window = frame(4, 0, &[0, 4, 0, 0, 0, MESSAGE as u8]);
    let large = frame(8, 0, &(1_u32 << 30).to_be_bytes());
    let mut head = frame(1, 1, b"\x82\x86\x84\x41\x01a");
    head[4] = 5;
    stream.write_all(&[PREFACE, &window, &large, &head].concat()).expect("a request");
    let mut received = 0;
    while received < BYTES {
        let mut head = [0; 9];
        reader.read_exact(&mut head).unwrap_or_else(|e| panic!("cut after {received}: {e}"));
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        reader.read_exact(&mut payload).expect("its payload");
        if head[3] != 0 || payload.is_empty() {
            continue;
        }
        received += payload.len();
        let increment = u32::try_from(payload.len()).expect("small").to_be_bytes();
        let acknowledged = [frame(8, 1, &increment), frame(6, 0, &[0; 8])].concat();
        stream.write_all(&acknowledged).expect("an open connection");
    }
}

#[test]
fn a_stream_that_is_kept_alive_by_pings_is_not_cut() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Plan::route("timeout: {request: 0}").upstream(&upstream).start();
    wait("pings", async {
        let stream = tokio::net::TcpStream::connect(gateway.address).await.expect("accepts");
        let (mut send, mut connection) = h2::client::handshake(stream).await.expect("a handshake");
        let mut pings = connection.ping_pong().expect("the first");
        let driver = tokio::spawn(connection);
        let head = request("GET", "/").body(()).expect("a request");
        let (_response, _upload): (_, h2::SendStream<bytes::Bytes>) =
            send.send_request(head, true).expect("a stream");
        // As many as a client sends in two and a half hours that pings every ten seconds.
        for n in 0..900 {
            pings.ping(h2::Ping::opaque()).await.unwrap_or_else(|e| panic!("ping {n}: {e}"));
        }
        assert!(!driver.is_finished(), "the connection has ended");
    });
    upstream.release();
}
