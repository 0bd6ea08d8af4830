//! Many endpoints that come, go and recover, under load. `make soak` runs these at full length.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Answer, Call, Gateway, Load, Oha, Plan, Response, Upstream, assert_within_since, at_once,
    eventually, from_environment, pass, refused_address, watched,
};

/// Address number `n` of the loopback network.
fn address(n: usize, port: u16) -> SocketAddr {
    let octet = |n: usize| u8::try_from(n).expect("below 256");
    SocketAddr::from(([127, 1, octet(n / 250), octet(1 + n % 250)], port))
}

/// A server at every address of the loopback network.
fn everywhere() -> Upstream {
    Upstream::listen(SocketAddr::from(([0, 0, 0, 0], 0)))
}

const REGISTRY: &str = "
upstreams: {service: {discover: {registry: {allow: [127.0.0.0/8], lease: 1h}}}}
routes: {all: {match: {path: /*}, upstream: service}}
";

fn put(gateway: &Gateway, id: usize, address: SocketAddr) -> Response {
    let call = Call::new(&format!("PUT /upstreams/service/endpoints/e{id}"));
    gateway.admin(call.body(json!({ "address": address.to_string() }).to_string()))
}

fn delete(gateway: &Gateway, id: usize) -> Response {
    gateway.admin(Call::new(&format!("DELETE /upstreams/service/endpoints/e{id}")))
}

/// Of the server at every address, ten change each second.
#[test]
fn endpoints_that_come_and_go_fail_no_request_and_leave_nothing_behind() {
    let (count, seconds) =
        (from_environment("FLEET_ENDPOINTS", 200), from_environment("FLEET_SECONDS", 4));
    let count = usize::try_from(count).expect("a few");
    let upstream = everywhere();
    let port = upstream.address().port();
    let gateway = Plan::new(REGISTRY).start();
    let numbers: Vec<usize> = (0..count).collect();
    at_once(numbers.chunks(count.div_ceil(4)), |some| {
        for n in some {
            assert_eq!(put(&gateway, *n, address(*n, port)).status, 201);
        }
    });
    let load = Load::start(gateway.address, 4, "churn");
    eventually("some answers", || (load.answers() > 500).then_some(()));
    let memory = || gateway.memory("VmRSS");
    let (before, started) = (memory(), Instant::now());
    let mut changes = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        // One goes, or comes back at another address.
        let (n, turn) = (changes % count, changes / count);
        match (changes + turn) % 2 {
            0 => assert_eq!(delete(&gateway, n).status, 204),
            _ => assert!([200, 201].contains(&put(&gateway, n, address(n + count, port)).status)),
        }
        changes += 1;
        pass(Duration::from_millis(100));
    }
    let after = memory();
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    println!(
        "{count} endpoints, {changes} changes in {seconds} s: {} requests, {} failed; resident memory \
         {} KiB before, {} KiB after",
        answered.len(),
        failed.len(),
        before >> 10,
        after >> 10
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(answered.len() > 500, "{}", answered.len());
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after");
    let status = gateway.status();
    let endpoints = status["upstreams"]["service"]["endpoints"].as_array().expect("a list");
    let in_flight: u64 = endpoints.iter().filter_map(|one| one["in_flight"].as_u64()).sum();
    assert_eq!(in_flight, 0);
}

#[test]
fn an_endpoint_that_moves_under_load_fails_no_request() {
    let (old, new) = (Upstream::start(), Upstream::start());
    let gateway = Plan::new(REGISTRY).start();
    assert_eq!(put(&gateway, 1, old.address()).status, 201);
    let load = Load::start(gateway.address, 4, "moving");
    eventually("some answers", || (load.answers() > 200).then_some(()));
    assert_eq!(put(&gateway, 1, new.address()).status, 200);
    let seen = old.count();
    eventually("the new one is used", || (new.count() > 200).then_some(()));
    // What was under way at the time of the change, of four clients.
    assert!(old.count() <= seen + 4, "{seen} before, {} after", old.count());
    drop(old);
    let so_far = load.answers();
    eventually("more answers", || (load.answers() > so_far + 200).then_some(()));
    let answered = load.finish();
    assert!(answered.iter().all(|answer| answer.status == 200), "{answered:?}");
}

/// The same by oha, which is not ours. Of three endpoints one is killed, comes back, and one moves.
#[test]
fn under_load_of_oha_only_what_is_in_flight_can_fail_and_nothing_with_a_retry() {
    const REQUESTS: u32 = 6000;
    const CONNECTIONS: u32 = 8;
    let slow = || Answer::ok().after(Duration::from_millis(3));
    for (policies, allowed) in
        [("", CONNECTIONS), ("retry: {max_retries: 1, budget: unlimited}", 0)]
    {
        let killed = Upstream::listen(refused_address());
        let [moved, other] = [Upstream::start(), Upstream::start()];
        let address = killed.address();
        [&killed, &moved, &other].iter().for_each(|upstream| upstream.answer_always(slow()));
        let rules = "ejection: {eject_for: 200ms, max_eject_for: 400ms}, balance: round_robin}}";
        let yaml = REGISTRY.replace("lease: 1h}}}}", &format!("lease: 1h}}}}, {rules}"));
        let yaml = yaml.replace("upstream: service}", &format!("upstream: service, {policies}}}"));
        let gateway = Plan::new(&yaml).start();
        for (id, upstream) in [&killed, &moved, &other].into_iter().enumerate() {
            assert_eq!(put(&gateway, id, upstream.address()).status, 201);
        }
        let Some(oha) = Oha::start(gateway.address, REQUESTS, 1500, CONNECTIONS) else { return };
        eventually("traffic", || (killed.count() > 100).then_some(()));
        drop(killed);
        let so_far = other.count();
        eventually("traffic without it", || (other.count() > so_far + 100).then_some(()));
        let again = Upstream::listen(address);
        again.answer_always(slow());
        eventually("its share again", || (again.count() > 50).then_some(()));
        let new = Upstream::start();
        new.answer_always(slow());
        assert_eq!(put(&gateway, 1, new.address()).status, 200);
        eventually("the new address is used", || (new.count() > 50).then_some(()));
        let counted = oha.finish();
        assert_eq!(counted.good + counted.failed, u64::from(REQUESTS), "{:#}", counted.report);
        println!("{policies:?}: {} good, {} failed", counted.good, counted.failed);
        assert!(counted.failed <= u64::from(allowed), "{:#}", counted.report);
    }
}

/// Two gateways that do not know of each other, and an endpoint that both begin to use again.
#[test]
fn there_is_no_herd_on_an_endpoint_that_recovers() {
    const ENDPOINTS: usize = 50;
    let (others, one) = (everywhere(), Upstream::always(503));
    let port = others.address().port();
    let list: String = (1..ENDPOINTS).map(|n| format!("- http://{}\n", address(n, port))).collect();
    let list = format!("- http://{}\n{list}", one.address());
    let yaml = "
upstreams:
  service:
    discover: {file: {path: endpoints.yaml}}
    ejection: {eject_for: 300ms, max_eject_for: 300ms}
routes: {all: {match: {path: /*}, upstream: service}}
";
    let gateways = [(); 2].map(|()| Plan::new(yaml).beside("endpoints.yaml", &list).start());
    let every = Duration::from_millis(6);
    let loads = gateways.each_ref().map(|gateway| Load::paced(gateway.address, 4, "herd", every));
    let ejected = format!("{} is ejected for ", one.address());
    gateways.iter().for_each(|gateway| gateway.wait_for_log(&ejected));
    one.answer_always(Answer::ok());
    let back = format!("{} is used again", one.address());
    gateways.iter().for_each(|gateway| gateway.wait_for_log(&back));
    // What failed is used little at first. It has its share again once that is forgotten.
    let answers = || loads.iter().map(Load::answers).sum::<usize>();
    let (back, started) = (one.count(), watched());
    while one.count() < back + 40 {
        assert_within_since(started, started.elapsed(), Duration::from_secs(20));
        let (seen, begun) = (one.count(), answers());
        eventually("a thousand answers", || (answers() >= begun + 1000).then_some(()));
        let (of_one, of_all) = (one.count() - seen, answers() - begun);
        let fair = of_all as f64 / ENDPOINTS as f64;
        assert!(of_one as f64 <= 3.0 * fair, "{of_one} of {of_all}: a fair share is {fair}");
    }
}
