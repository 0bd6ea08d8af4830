//! Endpoints from SRV records (RFC 2782), asked of real DNS servers, and of one that talks nonsense.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{
    Answer, Authority, Dns, Gateway, Load, OddDns, Plan, Question, Upstream, assert_within,
    eventually, timed,
};

const SERVICE: &str = "
upstreams:
  service:
    discover: {srv: {name: _http._tcp.orders.internal, resolver: ['${DNS}']}}
    empty_after: 2s
    balance: round_robin
routes:
  all: {match: {path: /*}, upstream: service}
";

fn plan(yaml: &str, dns: SocketAddr) -> Plan {
    Plan::new(yaml).env("DNS", &dns.to_string())
}

/// A record of the service.
fn record(priority: u16, weight: u16, upstream: &Upstream, target: &str) -> String {
    let port = upstream.address().port();
    format!("_http._tcp.orders.internal. 1 SRV {priority} {weight} {port} {target}.internal.")
}

const GONE: &str = "delete _http._tcp.orders.internal. SRV";

fn added(record: &str) -> String {
    format!("add {record}")
}

fn endpoints(gateway: &Gateway) -> Vec<serde_json::Value> {
    let status = gateway.status();
    status["upstreams"]["service"]["endpoints"].as_array().expect("a list").clone()
}

fn wait_for_endpoints(gateway: &Gateway, expected: &[&Upstream]) {
    let mut expected: Vec<_> = expected.iter().map(|up| up.address().to_string()).collect();
    expected.sort_unstable();
    eventually("these endpoints", || {
        let mut found: Vec<_> = endpoints(gateway)
            .iter()
            .map(|e| e["address"].as_str().expect("an address").to_owned())
            .collect();
        found.sort_unstable();
        (found == expected).then_some(())
    });
}

/// Waits until the source is shown with these words for what is wrong with it.
fn wait_for_error(gateway: &Gateway, says: &str) {
    eventually(says, || {
        let source = &gateway.status()["upstreams"]["service"]["discovery"];
        source["error"].as_str().filter(|error| error.contains(says)).map(drop)
    });
}

fn wait_unresolved(gateway: &Gateway, seconds: f64) {
    eventually("it has failed for a while", || {
        let labels = [("upstream", "service")];
        let unresolved = gateway.metric("portcullis_upstream_unresolved_seconds", &labels);
        (unresolved >= seconds).then_some(())
    });
}

#[test]
fn the_lowest_priority_is_used_by_weight_and_the_others_are_backups() {
    let (light, heavy, backup) = (Upstream::start(), Upstream::start(), Upstream::start());
    let records = [
        record(10, 1, &light, "a"),
        record(10, 3, &heavy, "b"),
        record(20, 5, &backup, "a"),
        "a.internal. 1 A 127.0.0.1\nb.internal. 1 A 127.0.0.1".to_owned(),
        // Without the addresses in the same answer, and by another name.
        "_http._tcp.alias.internal. 1 CNAME _http._tcp.orders.internal.".to_owned(),
    ];
    let Some(dns) = Dns::bind(&records.join("\n")) else { return };
    let gateway = plan(SERVICE, dns.address()).start();
    for _ in 0..8 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([light.count(), heavy.count(), backup.count()], [2, 6, 0]);
    let host = format!("b.internal:{}", heavy.address().port());
    assert_eq!(heavy.requests()[0].header("host"), Some(host.as_str()), "the target's name");
    let shown: Vec<_> =
        endpoints(&gateway).iter().map(|e| (e["weight"].clone(), e["backup"] == true)).collect();
    assert_eq!(shown, [(1.into(), false), (3.into(), false), (5.into(), true)]);
    let source = &gateway.status()["upstreams"]["service"]["discovery"];
    assert_eq!(source["source"], "SRV records of _http._tcp.orders.internal");

    let alias = SERVICE.replace("tcp.orders", "tcp.alias");
    let gateway = plan(&alias, dns.address()).start();
    assert_eq!(endpoints(&gateway).len(), 3, "{}", gateway.log());
}

#[test]
fn a_target_with_both_families_is_one_endpoint() {
    let upstream = Upstream::start();
    let port = upstream.address().port();
    let Some(dns) = Dns::dnsmasq(&[
        format!("--srv-host=_http._tcp.orders.internal,a.internal,{port},0,0"),
        "--host-record=a.internal,127.0.0.1,::1".to_owned(),
        "--local-ttl=1".to_owned(),
    ]) else {
        return;
    };
    let gateway = plan(SERVICE, dns.address()).start();
    assert_eq!(gateway.get("/").status, 200);
    let found = endpoints(&gateway);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["address"], format!("[::1]:{port},127.0.0.1:{port}"));
    let yaml = SERVICE.replace("empty_after", "ip_family: prefer_ipv4\n    empty_after");
    assert!(gateway.reload(&yaml));
    wait_for_endpoints(&gateway, &[&upstream]);
}

/// getsentry/self-hosted#4492, ingress-nginx#9546: addresses that have changed were used for hours.
#[test]
fn a_change_is_known_a_second_after_the_ttl_and_fails_no_request() {
    let (old, new) = (Upstream::start(), Upstream::start());
    let records = format!(
        "{}\na.internal. 60 A 127.0.0.1",
        record(0, 0, &old, "a").replace(". 1 SRV", ". 2 SRV")
    );
    let Some(dns) = Dns::bind(&records) else { return };
    let slow = SERVICE.replace("empty_after: 2s", "resolve_every: 1h");
    let gateway = plan(&slow, dns.address()).start();
    let load = Load::start(gateway.address, 4, "srv");
    eventually("some answers", || (load.answers() > 50).then_some(()));
    dns.update(&[GONE.to_owned(), added(&record(0, 0, &new, "a"))]);
    let (_, took) = timed(|| wait_for_endpoints(&gateway, &[&new]));
    assert_within(took, Duration::from_secs(3));
    let (before, answered) = (new.count(), load.answers());
    eventually("more answers", || (load.answers() > answered + 50).then_some(()));
    assert!(new.count() > before, "it is used");
    let answers = load.finish();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let sent_to_old = old.count();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(old.count(), sent_to_old, "nothing new for the one that left");
}

#[test]
fn a_dead_server_changes_nothing_however_long() {
    let upstream = Upstream::start();
    let records = format!("{}\na.internal. 1 A 127.0.0.1", record(0, 0, &upstream, "a"));
    let Some(mut dns) = Dns::bind(&records) else { return };
    let gateway = plan(SERVICE, dns.address()).start();
    assert_eq!(gateway.get("/").status, 200);
    dns.stop();
    gateway.wait_for_log("keeping the endpoints known so far");
    // Longer than the TTL of 1 s, and than `empty_after`, which is for servers that say there is nothing.
    wait_unresolved(&gateway, 3.0);
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.reload(&SERVICE.replace("round_robin", "random")));
    assert_eq!(gateway.get("/").status, 200, "a reload keeps them as well");
    assert!(gateway.log().contains("SRV records of _http._tcp.orders.internal: no answer from"));
    dns.restart();
    gateway.wait_for_log("answers again, after");
    assert!(gateway.reload(&SERVICE.replace("orders", "others")));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"), "another name");
}

#[test]
fn a_name_that_does_not_exist_any_more_is_believed_after_a_time() {
    let upstream = Upstream::start();
    let service = record(0, 0, &upstream, "a");
    let Some(dns) = Dns::bind(&format!("{service}\na.internal. 1 A 127.0.0.1")) else { return };
    let gateway = plan(SERVICE, dns.address()).start();
    dns.update(&[GONE.to_owned()]);
    gateway.wait_for_log("the name does not exist; keeping the endpoints known so far");
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("has had no endpoint for 2s");
    wait_for_endpoints(&gateway, &[]);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    dns.update(&[added(&service)]);
    wait_for_endpoints(&gateway, &[&upstream]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_target_without_a_name_says_that_there_is_no_such_service() {
    let upstream = Upstream::start();
    let service = record(0, 0, &upstream, "a");
    let Some(dns) = Dns::bind(&format!("{service}\na.internal. 1 A 127.0.0.1")) else { return };
    let gateway = plan(SERVICE, dns.address()).start();
    dns.update(&[GONE.to_owned(), added("_http._tcp.orders.internal. 1 SRV 0 0 0 .")]);
    gateway.wait_for_log("its target is `.`: there is no such service; keeping");
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("has had no endpoint for 2s");
    wait_for_endpoints(&gateway, &[]);
    assert_eq!(gateway.get("/").code(), "no_endpoint");
}

#[test]
fn ten_thousand_addresses_are_a_mistake_of_the_source() {
    let upstream = Upstream::start();
    let service = record(0, 0, &upstream, "a");
    // BIND takes at most 100 records of a name.
    let many = (0..10_000)
        .map(|n| format!("many{}.internal. 1 A 10.0.{}.{}\n", n / 100, n / 100, n % 100));
    let records = format!("{service}\na.internal. 1 A 127.0.0.1\n{}", many.collect::<String>());
    let Some(dns) = Dns::bind(&records) else { return };
    let gateway = plan(SERVICE, dns.address()).start();
    let many = (0..100).map(|n| added(&record(0, 0, &upstream, &format!("many{n}"))));
    dns.update(&[vec![GONE.to_owned()], many.collect()].concat());
    gateway.wait_for_log(
        "its targets have more addresses than the 5000 that `max_endpoints` allows; keeping",
    );
    wait_for_endpoints(&gateway, &[&upstream]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_answer_that_does_not_fit_into_a_datagram_is_asked_for_over_tcp() {
    let upstream = Upstream::start();
    let port = upstream.address().port();
    let records = (1..=90).map(|n| {
        let target = format!("an-instance-with-a-long-name-{n}");
        format!("{}\n{target}.internal. 1 A 127.0.0.{n}\n", record(0, 0, &upstream, &target))
    });
    let Some(dns) = Dns::bind(&records.collect::<String>()) else { return };
    let gateway = plan(SERVICE, dns.address()).start();
    eventually("all endpoints", || (endpoints(&gateway).len() == 90).then_some(()));
    let found = endpoints(&gateway);
    assert!(found.iter().any(|e| e["address"] == format!("127.0.0.90:{port}")), "{found:?}");
}

#[test]
fn a_server_that_fails_or_talks_nonsense_changes_nothing() {
    let upstream = Upstream::start();
    let port = upstream.address().port();
    let good = move |question: &Question| question.srv(port, &["a", "internal"]);
    let dns = OddDns::start(good);
    let yaml = SERVICE.replace("empty_after: 2s", "ip_family: prefer_ipv4");
    let gateway = plan(&yaml, dns.address()).start();
    wait_for_endpoints(&gateway, &[&upstream]);
    type Odd = Box<dyn Fn(&Question) -> Vec<u8> + Send>;
    let nonsense: [(&str, Odd); 8] = [
        ("an error: Server Failure", Box::new(|question| question.code(2))),
        ("an error: Query Refused", Box::new(|question| question.code(5))),
        ("no answer from", Box::new(|_| b"<html>".to_vec())),
        (
            "no answer from",
            Box::new(|question| {
                let mut other = question.code(0);
                other[1] ^= 1;
                other
            }),
        ),
        ("protocol error", Box::new(|question| [question.id().as_slice(), &[0xff; 90]].concat())),
        ("protocol error", Box::new(|question| question.answer(0, 9, b"\xc0"))),
        (
            "`a\\040b.internal` is no name of a host",
            Box::new(move |question| question.srv(port, &["a b", "internal"])),
        ),
        ("a.internal has the port 0", Box::new(|question| question.srv(0, &["a", "internal"]))),
    ];
    for (says, odd) in nonsense {
        dns.answer(odd);
        wait_for_error(&gateway, says);
        wait_for_endpoints(&gateway, &[&upstream]);
        assert_eq!(gateway.get("/").status, 200, "{says}");
        dns.answer(good);
        eventually("it answers again", || {
            let source = &gateway.status()["upstreams"]["service"]["discovery"];
            source["error"].is_null().then_some(())
        });
    }
    assert_eq!(gateway.log().matches("keeping the endpoints known so far").count(), 8);
}

#[test]
fn the_certificate_is_that_of_the_target() {
    let behind = Upstream::always(Answer::from(200));
    let authority = Authority::new();
    let leaf = authority.sign("a.internal");
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: [{certificate: leaf.pem, key: leaf.key}]}}}";
    let tls = Plan::route("")
        .section(listener)
        .upstream(&behind)
        .beside("leaf.pem", &leaf.pem())
        .beside("leaf.key", &leaf.key_pem())
        .start();
    let port = tls.address.port();
    let of = |service: &str, target: &str| {
        format!("{service}._tcp.orders.internal. 1 SRV 0 0 {port} {target}.internal.\n")
    };
    let records = [
        of("_https", "a"),
        of("_https", "b").replace("orders", "others"),
        "a.internal. 1 A 127.0.0.1\nb.internal. 1 A 127.0.0.1".to_owned(),
    ];
    let Some(dns) = Dns::bind(&records.concat()) else { return };
    let yaml = SERVICE.replace("_http.", "_https.").replace("empty_after: 2s", "tls: {ca: ca.pem}");
    let gateway = plan(&yaml, dns.address()).beside("ca.pem", &authority.pem()).start();
    assert_eq!(gateway.get("/").status, 200);
    let other = yaml.replace("orders", "others");
    let gateway = plan(&other, dns.address()).beside("ca.pem", &authority.pem()).start();
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (502, "tls_wrong_name"), "it is of `a`");
}
