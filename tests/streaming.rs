//! Bodies of any size pass in constant memory, and end where their sender ended them.

use crate::support::{Answer, Call, Ending, Gateway, Upstream, eventually};

const HUNDRED_MEGABYTES: u64 = 100_000_000;
/// What a gateway may grow by while it passes on any amount.
const GROWTH: u64 = 24 << 20;

#[test]
fn a_hundred_megabytes_come_down_in_constant_memory() {
    let upstream = Upstream::script([Answer::ok(), Answer::stream(HUNDRED_MEGABYTES)]);
    let gateway = Gateway::route(&upstream, "");
    gateway.get("/warm");
    let before = gateway.memory("VmHWM");
    let response = gateway.get("/");
    assert_eq!((response.body_length, response.ending), (HUNDRED_MEGABYTES, Ending::Complete));
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < GROWTH, "grew by {grown} bytes");
}

#[test]
fn a_hundred_megabytes_go_up_in_constant_memory() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "max_body: 0");
    gateway.get("/warm");
    let before = gateway.memory("VmHWM");
    let mut client = gateway.connect();
    let length = HUNDRED_MEGABYTES.to_string();
    client.send(Call::new("POST /").header("Content-Length", &length).bytes());
    let block = vec![b'x'; 1_000_000];
    for _ in 0..100 {
        client.send(&block);
    }
    assert_eq!(client.receive().status, 200);
    let uploaded = upstream.requests()[1].clone();
    assert_eq!((uploaded.body_length, uploaded.complete), (HUNDRED_MEGABYTES, true));
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < GROWTH, "grew by {grown} bytes");
}

#[test]
fn a_client_that_does_not_read_makes_the_upstream_wait() {
    let upstream = Upstream::script([Answer::ok(), Answer::stream(HUNDRED_MEGABYTES)]);
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}");
    gateway.get("/warm");
    // The slot is given back just after the last byte of the answer.
    eventually("the slot to be free", || {
        (gateway.metric("portcullis_bulkhead_in_flight", &[]) == 0.0).then_some(())
    });
    let before = gateway.memory("VmHWM");
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    assert_eq!(client.receive_head().status, 200);
    crate::support::pass(std::time::Duration::from_millis(500));
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < GROWTH, "grew by {grown} bytes");
    client.vanish();
    upstream.wait_cancelled(1);
    eventually("the slot to be free", || (gateway.get("/").status == 200).then_some(()));
}

#[test]
fn a_client_that_leaves_during_its_upload_cancels_the_upstream() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}");
    let mut client = gateway.connect();
    client.send(Call::new("POST /").header("Content-Length", "1000000").bytes());
    client.send(vec![b'x'; 1000]);
    upstream.wait_for(1);
    client.vanish();
    upstream.wait_cancelled(1);
    eventually("the slot to be free", || (gateway.get("/").status == 200).then_some(()));
    assert!(!upstream.requests()[0].complete, "half an upload is never completed");
}

#[test]
fn a_truncated_answer_is_never_delivered_as_a_whole_one() {
    let upstream = Upstream::script([
        Answer::truncated("half", 1000),
        Answer::verbatim("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ]);
    let gateway = Gateway::route(&upstream, "");
    for framing in ["by length", "in chunks"] {
        let response = gateway.get("/");
        assert_eq!(
            (response.text().as_str(), response.ending),
            ("half", Ending::Truncated),
            "{framing}"
        );
    }
}

#[test]
fn chunks_arrive_as_one_body() {
    let upstream = Upstream::always(Answer::chunked("abcdefghij", 3));
    let response = Gateway::route(&upstream, "").get("/");
    assert_eq!((response.text().as_str(), response.ending), ("abcdefghij", Ending::Complete));
}

#[test]
fn an_answer_begins_before_it_is_complete() {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    assert_eq!(client.receive_head().status, 200);
    assert_eq!(client.read_exact(), *b"1\r\no\r\n", "the first byte, while the second is held");
    upstream.release();
    assert_eq!(client.read_exact(), *b"1\r\nk\r\n");
}

#[test]
fn an_answer_of_known_length_begins_before_it_is_complete_too() {
    let upstream = Upstream::always(Answer::hold_body_of_known_length());
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    assert_eq!(client.receive_head().status, 200);
    assert_eq!(client.read_exact(), *b"o");
    upstream.release();
    assert_eq!(client.read_exact(), *b"k");
}

#[test]
fn an_upload_begins_before_it_is_complete() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(Call::new("POST /").header("Content-Length", "4").bytes());
    client.send("ab");
    eventually("the first half at the upstream", || {
        upstream.requests().first().filter(|r| r.body == b"ab").map(|_| ())
    });
    client.send("cd");
    assert_eq!(client.receive().status, 200);
    assert_eq!(upstream.only().body, b"abcd");
}

#[test]
fn an_answer_that_comes_before_the_request_has_ended_is_passed_on() {
    let upstream = Upstream::always(Answer::early(413));
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(Call::new("POST /").header("Content-Length", "1000000").bytes());
    client.send(vec![b'x'; 1000]);
    assert_eq!(client.receive().status, 413);
}
