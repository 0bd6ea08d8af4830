//! Ten thousand clients that leave, of either version, wherever their request is at the moment: afterwards
//! nothing is in flight, at no endpoint and in no bulkhead.

use crate::support::{Answer, Call, Client, Gateway, H2Client, Upstream, eventually, request};

/// Of each kind; together more than ten thousand.
const OF_EACH: usize = 1_700;
/// How many at once.
const BATCH: usize = 100;

/// Nothing but its client ends a request, however slow the machine is.
const ROUTE: &str = "timeout: {attempt: 10m, request: 10m}\nbulkhead: {max_in_flight: 200}";
/// The same with one slot, and a queue that does not stand.
const QUEUE: &str = "timeout: {attempt: 10m, request: 10m}
bulkhead: {max_in_flight: 1, queue: {max: 200, max_wait: 10m, target: 30s, interval: 1m}}";

/// What is in flight: at the endpoint, in the bulkhead, in its queue, and in the gateway.
fn in_flight(gateway: &Gateway) -> [u64; 4] {
    let status = gateway.status();
    let endpoint = &status["upstreams"]["service"]["endpoints"][0];
    let bulkhead = &status["routes"]["all"]["bulkhead"];
    let taken = bulkhead["slots"].as_u64().zip(bulkhead["free"].as_u64());
    let taken = taken.map(|(slots, free)| slots - free);
    let numbers = [
        endpoint["in_flight"].as_u64(),
        taken,
        Some(bulkhead["waiting"].as_u64().unwrap_or_default()),
        status["requests_in_flight"].as_u64(),
    ];
    numbers.map(|number| number.expect("a number"))
}

#[track_caller]
fn wait_until(gateway: &Gateway, expected: [u64; 4]) {
    eventually(&format!("{expected:?} in flight, not {:?}", in_flight(gateway)), || {
        (in_flight(gateway) == expected).then_some(())
    });
}

fn start(upstream: &Upstream, policies: &str) -> Gateway {
    Gateway::route(upstream, policies)
}

/// `begin` sends a batch; once all of it is in flight, all leave.
fn abort<T>(gateway: &Gateway, idle: [u64; 4], busy: [u64; 4], begin: impl Fn() -> Vec<T>) {
    for _ in 0..OF_EACH / BATCH {
        let clients = begin();
        wait_until(gateway, busy);
        drop(clients);
        wait_until(gateway, idle);
    }
}

/// Leaves without a word when it is dropped.
struct Rude(Option<Client>);

impl Drop for Rude {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Client::vanish);
    }
}

fn h1(gateway: &Gateway, call: &Call) -> Vec<Rude> {
    let begin = || {
        let mut client = gateway.connect();
        client.send(call.bytes());
        Rude(Some(client))
    };
    (0..BATCH).map(|_| begin()).collect()
}

/// On two connections.
fn h2(gateway: &Gateway, ends: bool) -> Vec<(H2Client, Vec<crate::support::Exchange>)> {
    let open = || {
        let client = H2Client::connect(gateway.address);
        let post = || request("POST", "/").body(()).expect("a request");
        let streams = (0..BATCH / 2).map(|_| client.open(post(), ends)).collect();
        (client, streams)
    };
    (0..2).map(|_| open()).collect()
}

const BUSY: [u64; 4] = [BATCH as u64, BATCH as u64, 0, BATCH as u64];
const IDLE: [u64; 4] = [0; 4];

#[test]
fn clients_of_http1_that_leave_while_they_wait_for_a_response() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = start(&upstream, ROUTE);
    abort(&gateway, IDLE, BUSY, || h1(&gateway, &Call::new("GET /")));
}

#[test]
fn clients_of_http1_that_leave_while_the_response_streams() {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = start(&upstream, ROUTE);
    abort(&gateway, IDLE, BUSY, || {
        let mut clients = h1(&gateway, &Call::new("GET /"));
        for client in clients.iter_mut().filter_map(|client| client.0.as_mut()) {
            assert_eq!(client.receive_head().status, 200);
        }
        clients
    });
}

/// The slot of a request that waits for its response, and those that wait for it.
fn queued<T>(begin: impl Fn(&Gateway) -> Vec<T>) {
    let upstream = Upstream::always(Answer::hang());
    let gateway = start(&upstream, QUEUE);
    let first = Rude(Some(gateway.connect()).map(|mut client| {
        client.send(Call::new("GET /").bytes());
        client
    }));
    let idle = [1, 1, 0, 1];
    wait_until(&gateway, idle);
    abort(&gateway, idle, [1, 1, BATCH as u64, BATCH as u64 + 1], || begin(&gateway));
    assert_eq!(upstream.count(), 1, "none of them was sent");
    drop(first);
    wait_until(&gateway, IDLE);
}

#[test]
fn clients_of_http1_that_leave_a_queue() {
    queued(|gateway| h1(gateway, &Call::new("GET /")));
}

#[test]
fn clients_of_http1_that_leave_a_queue_with_a_body_that_is_not_read() {
    let call = Call::new("POST /").header("Transfer-Encoding", "chunked").body("5\r\nhello\r\n");
    queued(|gateway| h1(gateway, &call));
}

#[test]
fn clients_of_http2_that_leave_while_they_wait_for_a_response() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = start(&upstream, ROUTE);
    abort(&gateway, IDLE, BUSY, || h2(&gateway, true));
}

#[test]
fn clients_of_http2_that_leave_while_the_response_streams() {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = start(&upstream, ROUTE);
    abort(&gateway, IDLE, BUSY, || {
        let mut clients = h2(&gateway, true);
        for stream in clients.iter_mut().flat_map(|(_, streams)| streams) {
            assert_eq!(stream.head().status(), 200);
        }
        clients
    });
}

#[test]
fn clients_of_http2_that_leave_a_queue() {
    queued(|gateway| h2(gateway, true));
    queued(|gateway| h2(gateway, false));
}
