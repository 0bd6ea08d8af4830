//! Names of endpoints, resolved as the system does, by a real DNS server.
//!
//! The gateway has an `/etc/resolv.conf` of its own, by a mount that no other process sees. Where a
//! machine allows no such mount, or nothing on port 53, these tests say so loudly and are left out.

use std::net::{SocketAddr, TcpListener};

use crate::support::{Dns, Gateway, Load, Plan, Upstream, eventually};

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

fn wait_for_endpoints(gateway: &Gateway, expected: &[SocketAddr]) {
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
    wait_for_endpoints(&gateway, &[]);
    assert_eq!(gateway.get("/").code(), "dns");
    dns.hosts("127.0.0.1 orders.internal\n");
    wait_for_endpoints(&gateway, &[upstream.address()]);
    assert_eq!(gateway.get("/").status, 200);
}
