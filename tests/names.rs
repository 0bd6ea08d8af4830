//! Names of endpoints, resolved as the system does, by a real DNS server.
//!
//! The gateway has an `/etc/resolv.conf` of its own, by a mount that no other process sees. Where a
//! machine allows no such mount, or nothing on port 53, these tests say so loudly and are left out.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use crate::support::{
    Answer, Blackhole, Call, Dns, Gateway, Load, Plan, Upstream, assert_within, at_once,
    eventually, timed,
};

const NAMED: &str = "
upstreams:
  service: {endpoints: ['http://orders.internal:${SERVICE}'], resolve_every: 200ms, empty_after: 1s}
routes:
  all: {match: {path: /*}, upstream: service}
";

/// Two servers with the same port, as a name has only one.
fn two() -> [Upstream; 2] {
    let free = |address: &str| {
        let listener = TcpListener::bind(address).ok()?;
        listener.local_addr().ok()
    };
    eventually("a port that is free at two addresses", || {
        let first = free("127.0.0.1:0")?;
        let second = free(&format!("127.0.0.2:{}", first.port()))?;
        Some([first, second].map(Upstream::listen))
    })
}

fn plan(dns: &Dns, upstream: &Upstream) -> Option<Plan> {
    let resolv_conf = dns.resolv_conf();
    if !Plan::can_resolve_by(&resolv_conf) {
        eprintln!("SKIPPED: a test that needs an /etc/resolv.conf of its own: unshare(1) may not");
        return None;
    }
    let port = upstream.address().port().to_string();
    Some(Plan::new(NAMED).env("SERVICE", &port).resolving_by(&resolv_conf))
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("SKIPPED: a test that needs the address ::1");
    }
    has
}

fn wait_for_endpoints(gateway: &Gateway, expected: &[impl ToString]) {
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    eventually(&format!("{expected:?}"), || {
        let status = gateway.status();
        let endpoints = status["upstreams"]["service"]["endpoints"].as_array()?;
        let found: Vec<_> = endpoints.iter().filter_map(|e| e["address"].as_str()).collect();
        (found == expected).then_some(())
    });
}

/// langgenius/dify#40808: a name that had moved was asked at its old address until a restart.
#[test]
fn a_name_that_moves_under_load_fails_no_request() {
    let Some(dns) = Dns::for_resolver("127.0.0.1 orders.internal\n") else { return };
    let [old, new] = two();
    let Some(plan) = plan(&dns, &old) else { return };
    let gateway = plan.start();
    let load = Load::start(gateway.address, 4, "names");
    let more = |why: &str| {
        let before = load.answers();
        eventually(why, || (load.answers() > before + 30).then_some(()));
    };
    more("some answers");
    dns.hosts("127.0.0.1 orders.internal\n127.0.0.2 orders.internal\n");
    wait_for_endpoints(&gateway, &[old.address(), new.address()]);
    more("answers of both");
    dns.hosts("127.0.0.2 orders.internal\n");
    wait_for_endpoints(&gateway, &[new.address()]);
    more("requests that had begun before have ended");
    let (of_old, of_new) = (old.count(), new.count());
    more("answers of the new one");
    assert_eq!(old.count(), of_old, "nothing new for the address that left");
    assert!(new.count() > of_new);
    let answers = load.finish();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

#[test]
fn a_server_that_is_away_changes_nothing_and_one_that_knows_no_such_name_does() {
    let Some(mut dns) = Dns::for_resolver("127.0.0.1 orders.internal\n") else { return };
    let upstream = Upstream::start();
    let Some(plan) = plan(&dns, &upstream) else { return };
    let gateway = plan.start();
    dns.stop();
    gateway.wait_for_log("cannot resolve orders.internal");
    eventually("it has failed for longer than `empty_after`", || {
        let labels = [("upstream", "service")];
        let unresolved = gateway.metric("portcullis_upstream_unresolved_seconds", &labels);
        (unresolved >= 2.0).then_some(())
    });
    assert_eq!(gateway.get("/").status, 200);
    dns.restart();
    gateway.wait_for_log("orders.internal is resolved again");
    dns.hosts("127.0.0.1 others.internal\n");
    gateway.wait_for_log("orders.internal has had no address for 1s");
    wait_for_endpoints(&gateway, &[] as &[SocketAddr]);
    assert_eq!(gateway.get("/").code(), "dns");
    dns.hosts("127.0.0.1 orders.internal\n");
    wait_for_endpoints(&gateway, &[upstream.address()]);
    assert_eq!(gateway.get("/").status, 200);
}

/// RFC 8305, section 5: the second family is tried 250 ms after the first, which is not heard of.
#[test]
fn a_family_that_leads_nowhere_costs_250_milliseconds_once_and_is_no_failure() {
    let hosts = "::1 orders.internal\n127.0.0.1 orders.internal\n";
    let Some(dns) = Dns::for_resolver(hosts).filter(|_| has_ipv6()) else { return };
    let nowhere = Blackhole::at((Ipv6Addr::LOCALHOST, 0).into());
    let port = nowhere.address().port();
    let upstream = Upstream::listen(SocketAddr::from(([127, 0, 0, 1], port)));
    let Some(plan) = plan(&dns, &upstream) else { return };
    let gateway = plan.start();
    wait_for_endpoints(&gateway, &[format!("[::1]:{port},127.0.0.1:{port}")]);
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(took >= Duration::from_millis(240), "{took:?}: has ::1 answered?");
    assert_within(took, Duration::from_millis(400));
    // The family that answered is the first from then on, for each new connection.
    upstream.answer_always(Answer::ok().after(Duration::from_millis(20)));
    at_once(0..4, |_| {
        let (response, took) = timed(|| gateway.get("/"));
        assert_eq!(response.status, 200);
        assert_within(took, Duration::from_millis(200));
    });
    let attempts = |outcome| {
        let labels = [("upstream", "service"), ("outcome", outcome)];
        gateway.metric("portcullis_upstream_attempts_total", &labels)
    };
    assert_eq!(attempts("2xx"), 5.0);
    gateway.expect_metric("portcullis_upstream_attempts_total", &[], 5.0);
    let endpoint = &gateway.status()["upstreams"]["service"]["endpoints"][0];
    assert_eq!(endpoint["state"], "available", "{endpoint}");
}

/// A name whose answer grows: what is known of a pair stays with it.
#[test]
fn an_order_about_a_pair_survives_another_address_of_its_name() {
    let hosts = "::1 orders.internal\n127.0.0.2 orders.internal\n";
    let Some(dns) = Dns::for_resolver(hosts).filter(|_| has_ipv6()) else { return };
    let [first, second] = two();
    let Some(plan) = plan(&dns, &first) else { return };
    let gateway = plan.start();
    let port = first.address().port();
    let pair = format!("[::1]:{port},127.0.0.2:{port}");
    wait_for_endpoints(&gateway, &[&pair]);
    let path = format!("POST /upstreams/service/endpoints/drain?address={pair}");
    assert_eq!(gateway.admin(Call::new(&path)).status, 200);
    assert_eq!(gateway.get("/").code(), "no_endpoint");
    // By its number, the new one comes before the one of the pair.
    dns.hosts(&format!("{hosts}127.0.0.1 orders.internal\n"));
    wait_for_endpoints(&gateway, &[pair.clone(), first.address().to_string()]);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((first.count(), second.count()), (10, 0));
    // One of its addresses leaves: the other one is still drained.
    dns.hosts("127.0.0.2 orders.internal\n127.0.0.1 orders.internal\n");
    wait_for_endpoints(&gateway, &[first.address(), second.address()]);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((first.count(), second.count()), (20, 0));
    gateway.wait_for_log(&format!("ordered: drain, as it was of {pair}"));
}
