//! Requests that wait for a slot: in order, bounded in number and in time, and none is forgotten.

use std::time::Duration;

use crate::support::{
    Answer, Call, Client, Gateway, H2Client, Load, Plan, Upstream, assert_about, eventually,
    request, timed,
};

/// One slot, and a queue that does not stand however slow the machine is.
const PATIENT: &str =
    "bulkhead: {max_in_flight: 1, queue: {max: 50, max_wait: 60s, target: 30s, interval: 1m}}";

/// The same with these in place of its `max` and `max_wait`.
fn queue(max: usize, max_wait: &str) -> String {
    PATIENT.replace("max: 50, max_wait: 60s", &format!("max: {max}, max_wait: {max_wait}"))
}

fn waiting(gateway: &Gateway) -> u64 {
    let status = gateway.status();
    status["routes"]["all"]["bulkhead"]["waiting"].as_u64().expect("a queue")
}

#[track_caller]
fn wait_until(gateway: &Gateway, count: u64) {
    eventually(&format!("{count} to wait"), || (waiting(gateway) == count).then_some(()));
}

#[track_caller]
fn assert_empty(gateway: &Gateway) {
    eventually("no request to wait or to hold the slot", || {
        let free = gateway.metric("portcullis_bulkhead_in_flight", &[]) == 0.0
            && gateway.metric("portcullis_bulkhead_waiting", &[]) == 0.0
            && gateway.metric("portcullis_requests_in_flight", &[]) == 0.0;
        free.then_some(())
    });
}

fn given_up(gateway: &Gateway, reason: &str) -> f64 {
    let labels = [("route", "all"), ("reason", reason)];
    gateway.metric("portcullis_bulkhead_given_up_total", &labels)
}

fn sends(gateway: &Gateway, call: impl Into<Call>) -> Client {
    let mut client = gateway.connect();
    client.send(call.into().bytes());
    client
}

/// The first request has the slot until the upstream is released.
fn held(policies: &str) -> (Upstream, Gateway, Client) {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Gateway::route(&upstream, policies);
    let first = sends(&gateway, "GET /first");
    upstream.wait_for(1);
    (upstream, gateway, first)
}

#[test]
fn requests_wait_for_a_slot_and_are_served_in_the_order_of_arrival() {
    let (upstream, gateway, first) = held(PATIENT);
    let mut clients = vec![first];
    for n in 1..=4 {
        clients.push(sends(&gateway, format!("GET /{n}").as_str()));
        wait_until(&gateway, n);
    }
    gateway.expect_metric("portcullis_bulkhead_waiting", &[("route", "all")], 4.0);
    assert_eq!(upstream.count(), 1);
    upstream.release();
    assert!(clients.iter_mut().all(|client| client.receive().status == 200));
    let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/first", "/1", "/2", "/3", "/4"]);
    gateway.expect_metric("portcullis_bulkhead_wait_seconds_count", &[], 4.0);
    assert_empty(&gateway);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let (upstream, gateway, mut first) = held(&queue(2, "60s"));
    let mut clients = [(); 2].map(|()| sends(&gateway, "GET /"));
    wait_until(&gateway, 2);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (429, "bulkhead_full"));
    assert_eq!(refused.header("retry-after"), None);
    upstream.release();
    assert_eq!(first.receive().status, 200);
    assert!(clients.iter_mut().all(|client| client.receive().status == 200));
    assert_eq!(upstream.count(), 3);
}

#[test]
fn no_request_waits_longer_than_the_queue_allows() {
    let wait = Duration::from_millis(300);
    let (upstream, gateway, _first) = held(&queue(50, "300ms"));
    let (refused, took) = timed(|| gateway.get("/"));
    assert_eq!((refused.status, refused.code().as_str()), (429, "bulkhead_wait_exceeded"));
    assert_eq!(refused.header("retry-after"), None);
    assert_about(took, wait);
    assert_eq!((given_up(&gateway, "max_wait"), upstream.count(), waiting(&gateway)), (1.0, 1, 0));
    let lines = gateway.wait_for_access_lines(1);
    let line = &lines[0];
    assert_eq!(line["portcullis.cause"], "bulkhead_wait_exceeded");
    let queued = line["portcullis.queue_us"].as_u64().expect("the time in the queue");
    assert!(Duration::from_micros(queued) + Duration::from_millis(1) >= wait, "{line}");
}

#[test]
fn no_request_waits_beyond_its_deadline() {
    let (upstream, gateway, _first) = held(&format!("errors: connect\n{PATIENT}"));
    let call = Call::new("POST /").json("{}").header("Connect-Timeout-Ms", "300");
    let (refused, took) = timed(|| gateway.call(call));
    assert_eq!((refused.status, refused.code().as_str()), (504, "deadline_exceeded"));
    assert_about(took, Duration::from_millis(300));
    assert_eq!((given_up(&gateway, "deadline"), upstream.count(), waiting(&gateway)), (1.0, 1, 0));
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let (upstream, gateway, mut first) = held(&queue(1, "60s"));
    let small = Call::new("POST /").body("a small body");
    for (n, call) in [Call::new("GET /"), small].into_iter().enumerate() {
        let client = sends(&gateway, call);
        wait_until(&gateway, 1);
        client.vanish();
        wait_until(&gateway, 0);
        eventually("it to be counted", || {
            (given_up(&gateway, "client") == n as f64 + 1.0).then_some(())
        });
    }
    let h2 = H2Client::connect(gateway.address);
    let unfinished = [true, false];
    for (n, ends) in unfinished.into_iter().enumerate() {
        let mut stream = h2.open(request("POST", "/").body(()).unwrap(), ends);
        wait_until(&gateway, 1);
        stream.reset(h2::Reason::CANCEL);
        wait_until(&gateway, 0);
        eventually("it to be counted", || {
            (given_up(&gateway, "client") == n as f64 + 3.0).then_some(())
        });
    }
    upstream.release();
    assert_eq!(first.receive().status, 200);
    assert_empty(&gateway);
    assert_eq!(upstream.count(), 1, "none of them was sent");
}

/// Its body is not read while it waits, so no read says that it has left.
#[test]
fn a_client_that_leaves_in_the_middle_of_a_large_body_frees_its_place() {
    let (upstream, gateway, mut first) = held(&queue(1, "60s"));
    let large = || Call::new("POST /").header("Content-Length", "1000000").body([b'x'; 100_000]);
    let chunked = || {
        let call = Call::new("POST /").header("Transfer-Encoding", "chunked");
        call.body(format!("8000\r\n{}\r\n", "x".repeat(0x8000)))
    };
    let calls = [(large(), true), (large(), false), (chunked(), true), (chunked(), false)];
    for (n, (call, resets)) in calls.into_iter().enumerate() {
        let client = sends(&gateway, call);
        wait_until(&gateway, 1);
        match resets {
            true => client.vanish(),
            false => drop(client),
        }
        wait_until(&gateway, 0);
        eventually("it to be counted", || {
            (given_up(&gateway, "client") == n as f64 + 1.0).then_some(())
        });
    }
    // One that stays is served all the same.
    let mut stays = sends(&gateway, Call::new("POST /").body("x".repeat(100_000)));
    wait_until(&gateway, 1);
    crate::support::pass(Duration::from_millis(500));
    upstream.release();
    assert_eq!((first.receive().status, stays.receive().status), (200, 200));
    assert_empty(&gateway);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_body_arrives_whole_after_the_wait() {
    let (upstream, gateway, mut first) = held(PATIENT);
    let large = "0123456789".repeat(30_000);
    let chunked = Call::new("POST /chunked").header("Transfer-Encoding", "chunked");
    let calls = [
        Call::new("POST /small").body("a small body"),
        Call::new("POST /large").body(&large),
        chunked.body("5\r\nhello\r\n0\r\n\r\n"),
        // The rest of it comes when the request has its slot.
        Call::new("POST /halves").header("Content-Length", "8").body("half"),
    ];
    let mut clients = Vec::new();
    for (n, call) in (1..).zip(calls) {
        clients.push(sends(&gateway, call));
        wait_until(&gateway, n);
    }
    upstream.release();
    upstream.wait_for(4);
    clients[3].send("half");
    assert_eq!(first.receive().status, 200);
    assert!(clients.iter_mut().all(|client| client.receive().status == 200));
    let body = |target: &str| {
        let requests = upstream.requests();
        let request = requests.into_iter().find(|request| request.target == target);
        String::from_utf8(request.expect(target).body).expect("text")
    };
    assert_eq!(body("/small"), "a small body");
    assert!(body("/large") == large);
    assert_eq!(body("/chunked"), "hello");
    assert_eq!(body("/halves"), "halfhalf");
}

#[test]
fn a_body_that_the_gateway_changes_is_changed_after_the_wait() {
    let defaults = "json: {defaults: {name: World}}";
    let (upstream, gateway, mut first) = held(&format!("{defaults}\n{PATIENT}"));
    let mut client = sends(&gateway, Call::new("POST /").json("{\"x\":1}"));
    wait_until(&gateway, 1);
    upstream.release();
    assert_eq!((first.receive().status, client.receive().status), (200, 200));
    let sent: serde_json::Value = serde_json::from_slice(&upstream.requests()[1].body).unwrap();
    assert_eq!(sent, serde_json::json!({"name": "World", "x": 1}));
}

#[test]
fn a_drain_serves_those_that_wait() {
    let (upstream, mut gateway, mut first) = held(PATIENT);
    let mut client = sends(&gateway, "GET /");
    wait_until(&gateway, 1);
    gateway.signal("TERM");
    gateway.wait_for_log("draining");
    upstream.release();
    assert_eq!((first.receive().status, client.receive().status), (200, 200));
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn a_drain_does_not_wait_longer_for_those_that_wait() {
    let upstream = Upstream::script([Answer::hang()]);
    let drain = "server: {drain_timeout: 300ms}";
    let mut gateway = Plan::route(PATIENT).section(drain).upstream(&upstream).start();
    let _clients = [(); 3].map(|()| sends(&gateway, "GET /"));
    wait_until(&gateway, 2);
    gateway.signal("TERM");
    gateway.exit();
}

#[test]
fn a_reload_with_more_slots_admits_those_that_wait() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Gateway::route(&upstream, PATIENT);
    let mut clients: Vec<_> = (0..4).map(|_| sends(&gateway, "GET /")).collect();
    wait_until(&gateway, 3);
    assert!(gateway.reload_route(&PATIENT.replace("max_in_flight: 1", "max_in_flight: 3")));
    upstream.wait_for(3);
    wait_until(&gateway, 1);
    // Those that wait stay without a queue, too.
    assert!(gateway.reload_route("bulkhead: {max_in_flight: 3}"));
    assert_eq!(gateway.get("/").code(), "bulkhead_full");
    assert_eq!(upstream.count(), 3);
    upstream.release();
    assert!(clients.iter_mut().all(|client| client.receive().status == 200));
    assert!(gateway.reload_route(PATIENT));
    assert_empty(&gateway);
}

#[test]
fn a_queue_that_stands_gives_up_those_that_have_waited_longest() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(20)));
    let queue = "bulkhead: {max_in_flight: 1, queue: {max: 50, max_wait: 60s}}";
    let gateway = Gateway::route(&upstream, queue);
    let load = Load::start(gateway.address, 10, "impatient");
    eventually("requests to be given up", || (given_up(&gateway, "overload") >= 5.0).then_some(()));
    let answers = load.finish();
    let of = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(of(200) + of(429), answers.len(), "{answers:?}");
    assert!(of(200) > of(429), "at most one with each that is served");
    assert_eq!(of(200), upstream.count());
    assert_eq!((given_up(&gateway, "max_wait"), given_up(&gateway, "client")), (0.0, 0.0));
    assert_empty(&gateway);
}

#[test]
fn two_thousand_waits_that_were_given_up_leave_nothing_behind() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(2)));
    let gateway = Gateway::route(&upstream, &queue(200, "60s"));
    let mut left = 0.0;
    while left < 2000.0 {
        // The slot goes from one to the next while they leave.
        let clients: Vec<_> = (0..100).map(|_| sends(&gateway, "GET /")).collect();
        clients.into_iter().for_each(Client::vanish);
        eventually("all to have left", || (waiting(&gateway) == 0).then_some(()));
        left = given_up(&gateway, "client");
    }
    assert_empty(&gateway);
    assert_eq!(gateway.get("/").status, 200);
}

/// The circuit is the upstream's, so that `/other` can trip it; the bulkhead is the route's.
fn circuit(open_for: &str) -> (Upstream, Gateway, [Client; 2]) {
    let yaml = format!("
upstreams: {{service: {{endpoints: ['${{UPSTREAM}}'], circuit_breaker: {{consecutive: {{failures: 1}}, open_for: {open_for}, half_open_calls: 1}}}}}}
routes:
  all: {{match: {{path: /}}, upstream: service, {PATIENT}}}
  other: {{match: {{path: /other}}, upstream: service}}
");
    let upstream = Upstream::script([Answer::ok().held(), 500.into()]);
    let gateway = Plan::new(&yaml).upstream(&upstream).start();
    let first = sends(&gateway, "GET /");
    upstream.wait_for(1);
    if open_for == "1s" {
        assert_eq!(gateway.get("/other").status, 500);
        eventually("a half-open circuit", || {
            let state = &gateway.status()["routes"]["all"]["circuit"]["state"];
            (state == "half_open").then_some(())
        });
    }
    let second = sends(&gateway, "GET /");
    wait_until(&gateway, 1);
    (upstream, gateway, [first, second])
}

#[test]
fn a_request_that_waits_is_no_probe() {
    let (upstream, gateway, mut clients) = circuit("1s");
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["probes_in_flight"], 0);
    assert_eq!(gateway.get("/other").status, 200, "the probe's place is free");
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "closed");
    upstream.release();
    assert!(clients.iter_mut().all(|client| client.receive().status == 200));
}

#[test]
fn a_circuit_that_opens_meanwhile_refuses_those_that_have_waited() {
    let (upstream, gateway, [mut first, mut second]) = circuit("1h");
    assert_eq!(gateway.get("/other").status, 500);
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "open");
    // One that comes now does not wait.
    assert_eq!(gateway.get("/").code(), "circuit_open");
    upstream.release();
    assert_eq!(first.receive().status, 200);
    assert_eq!(second.receive().code(), "circuit_open");
    assert_eq!(upstream.count(), 2);
    assert_empty(&gateway);
}

#[test]
fn in_a_dry_run_no_request_waits() {
    let dry = PATIENT.replace("max_in_flight: 1,", "max_in_flight: 1, enforce: false,");
    let (upstream, gateway, mut first) = held(&dry);
    assert_eq!(gateway.get("/").status, 200);
    gateway.expect_metric("portcullis_bulkhead_wait_seconds_count", &[], 0.0);
    assert_eq!(gateway.status()["routes"]["all"]["bulkhead"]["waiting"], serde_json::Value::Null);
    upstream.release();
    assert_eq!(first.receive().status, 200);
    eventually("both to be over, in the simulation too", || {
        (gateway.metric("portcullis_bulkhead_in_flight", &[]) == 0.0).then_some(())
    });
    // It would have been served after the first.
    gateway.expect_metric("portcullis_would_refuse_total", &[], 0.0);
}

/// Five at once at one slot with two places: one is served, one waits for 250 ms and is served, one waits
/// in vain, and two are refused.
#[test]
fn a_dry_run_counts_what_its_twin_refuses_of_the_same_traffic() {
    let rules = queue(2, "400ms");
    let dry = rules.replace("max_in_flight: 1,", "max_in_flight: 1, enforce: false,");
    let slow = || Upstream::always(Answer::ok().after(Duration::from_millis(250)));
    let upstreams = [slow(), slow()];
    let [twin, dry] = [Gateway::route(&upstreams[0], &rules), Gateway::route(&upstreams[1], &dry)];
    let mut clients: Vec<_> = [(); 5]
        .iter()
        .flat_map(|()| {
            crate::support::pass(Duration::from_millis(10));
            [sends(&twin, "GET /"), sends(&dry, "GET /")]
        })
        .collect();
    let answers: Vec<_> = clients.iter_mut().map(Client::receive).collect();
    let of_dry = answers.iter().skip(1).step_by(2);
    assert!(of_dry.clone().all(|answer| answer.status == 200), "{answers:?}");
    let counted = |gateway: &Gateway, metric: &str, code: &str| {
        gateway.metric(&format!("portcullis_{metric}_total"), &[("code", code)])
    };
    for (code, count) in [("bulkhead_full", 2.0), ("bulkhead_wait_exceeded", 1.0)] {
        let refused = answers.iter().step_by(2).filter(|answer| answer.status == 429);
        let of_twin = refused.filter(|answer| answer.code() == code).count();
        assert_eq!(of_twin as f64, count, "{code}: {answers:?}");
        eventually(&format!("{code} to be counted"), || {
            (counted(&dry, "would_refuse", code) == count).then_some(())
        });
    }
    dry.expect_metric("portcullis_would_refuse_total", &[], 3.0);
    let seen = upstreams.map(|upstream| upstream.count());
    assert_eq!(seen, [2, 5]);
}

fn pay(key: &str) -> Call {
    Call::new("POST /pay").header("Idempotency-Key", key).json("{\"amount\":10}")
}

#[test]
fn a_key_is_free_after_a_wait_in_vain() {
    let policies = format!("idempotency: {{}}\n{}", queue(50, "200ms"));
    let (upstream, gateway, mut first) = held(&policies);
    let refused = gateway.call(pay("k"));
    assert_eq!((refused.status, refused.code().as_str()), (429, "bulkhead_wait_exceeded"));
    upstream.release();
    assert_eq!(first.receive().status, 200);
    let served = gateway.call(pay("k"));
    assert_eq!((served.status, served.header("idempotency-replayed")), (200, None));
}

#[test]
fn a_request_with_a_key_waits_on_without_its_client() {
    let (upstream, gateway, mut first) = held(&format!("idempotency: {{}}\n{PATIENT}"));
    let client = sends(&gateway, pay("k"));
    wait_until(&gateway, 1);
    client.vanish();
    upstream.release();
    assert_eq!(first.receive().status, 200);
    upstream.wait_complete(2);
    assert_empty(&gateway);
    let replayed = gateway.call(pay("k"));
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_request_that_waited_in_vain_falls_back() {
    let fallback = "fallback: {on: [bulkhead_full], json: {code: '{code}'}}";
    let (upstream, gateway, _first) = held(&format!("{fallback}\n{}", queue(50, "200ms")));
    let instead = gateway.get("/");
    assert_eq!((instead.status, instead.code().as_str()), (503, "bulkhead_wait_exceeded"));
    assert_eq!(upstream.count(), 1);
    let labels = [("route", "all"), ("reason", "bulkhead_full")];
    gateway.expect_metric("portcullis_fallbacks_total", &labels, 1.0);
}
