//! Endpoints that a source names: what it says last holds, and what is wrong with it changes nothing.

use std::path::PathBuf;

use crate::support::{Gateway, Plan, Upstream, eventually};

const FROM_FILE: &str = "
upstreams:
  service: {discover: {file: {path: endpoints.yaml}}, empty_after: 2s, balance: round_robin}
routes:
  all: {match: {path: /*}, upstream: service}
";

fn listed(upstreams: &[&Upstream]) -> String {
    upstreams.iter().map(|upstream| format!("- {}\n", upstream.url())).collect()
}

fn file(gateway: &Gateway) -> PathBuf {
    gateway.directory().join("endpoints.yaml")
}

/// Puts another file in its place, as deployments do.
fn replace(gateway: &Gateway, text: &str) {
    let new = gateway.directory().join("endpoints.new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, file(gateway)).expect("renamed");
}

fn addresses(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status();
    let endpoints = status["upstreams"]["service"]["endpoints"].as_array().expect("a list").clone();
    endpoints.iter().map(|e| e["address"].as_str().expect("an address").to_owned()).collect()
}

fn wait_for_addresses(gateway: &Gateway, expected: &[&Upstream]) {
    let expected: Vec<_> = expected.iter().map(|up| up.address().to_string()).collect();
    eventually("these endpoints", || (addresses(gateway) == expected).then_some(()));
}

#[test]
fn a_file_names_the_endpoints_from_the_start_and_is_followed() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let gateway = Plan::new(FROM_FILE).beside("endpoints.yaml", &listed(&[&one, &two])).start();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count(), three.count()], [2, 2, 0]);
    replace(&gateway, &listed(&[&two, &three]));
    wait_for_addresses(&gateway, &[&two, &three]);
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count(), three.count()], [2, 4, 2]);
    let (came, left) = (three.address(), one.address());
    gateway.wait_for_log(&format!(
        "upstreams.service: {came} came; {left} left; endpoints now: 2, as its source says"
    ));
    let source = &gateway.status()["upstreams"]["service"]["discovery"];
    assert_eq!(source["endpoints"], 2, "{source}");
    assert!(source["source"].as_str().is_some_and(|name| name.ends_with("endpoints.yaml")));
    assert!(source["confirmed_seconds_ago"].is_f64() && source["error"].is_null(), "{source}");
}

#[test]
fn a_file_with_a_byte_order_mark_lists_what_it_does_without() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let marked = |upstreams: &[&Upstream]| format!("\u{feff}{}", listed(upstreams));
    let gateway = Plan::new(FROM_FILE).beside("endpoints.yaml", &marked(&[&one, &two])).start();
    wait_for_addresses(&gateway, &[&one, &two]);
    replace(&gateway, &marked(&[&two, &three]));
    wait_for_addresses(&gateway, &[&two, &three]);
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing_however_long() {
    let one = Upstream::start();
    let gateway = Plan::new(FROM_FILE).beside("endpoints.yaml", &listed(&[&one])).start();
    let failing = |says: &str| {
        eventually("the failure is shown", || {
            let source = &gateway.status()["upstreams"]["service"]["discovery"];
            source["error"].as_str().filter(|error| error.contains(says)).map(str::to_owned)
        });
        assert_eq!(gateway.get("/").status, 200, "{says}");
    };
    std::fs::remove_file(file(&gateway)).expect("removed");
    failing("No such file");
    for (text, says) in [
        ("- {url: 'http://127.0.0.1:1', weight: 0}", "endpoint 1"),
        ("- ftp://127.0.0.1:1", "endpoint 1"),
        ("<html>", "a list of endpoints"),
        ("- [", "while parsing"),
    ] {
        replace(&gateway, text);
        failing(says);
    }
    // Longer than `empty_after`, which is for sources that say that there is nothing.
    eventually("it has failed for a while", || {
        let labels = [("upstream", "service")];
        (gateway.metric("portcullis_upstream_unresolved_seconds", &labels) >= 3.0).then_some(())
    });
    assert_eq!(gateway.get("/").status, 200);
    replace(&gateway, &listed(&[&one]));
    gateway.wait_for_log("answers again, after");
    assert_eq!(gateway.log().matches("keeping the endpoints known so far").count(), 1);
}

#[test]
fn an_empty_file_is_believed_after_a_time() {
    let one = Upstream::start();
    let gateway = Plan::new(FROM_FILE).beside("endpoints.yaml", &listed(&[&one])).start();
    replace(&gateway, "endpoints: []");
    gateway.wait_for_log("it lists no endpoint; keeping the endpoints known so far");
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("has had no endpoint for 2s");
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    let lines = gateway.wait_for_access_lines(1);
    assert!(lines[0].to_string().contains("it lists no endpoint"), "{}", lines[0]);
    replace(&gateway, &listed(&[&one]));
    wait_for_addresses(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_file_may_name_what_has_to_be_resolved_and_weigh_it() {
    let (named, backup) = (Upstream::on_localhost(), Upstream::start());
    let text = serde_json::json!({"endpoints": [
        {"url": format!("http://localhost:{}", named.address().port()), "weight": 3},
        {"url": backup.url(), "backup": true},
    ]});
    let yaml = FROM_FILE.replace("empty_after: 2s", "ip_family: prefer_ipv4");
    let gateway = Plan::new(&yaml).beside("endpoints.yaml", &text.to_string()).start();
    eventually("the name is resolved", || (addresses(&gateway).len() == 2).then_some(()));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!([named.count(), backup.count()], [1, 0]);
    let status = gateway.status();
    let endpoints = &status["upstreams"]["service"]["endpoints"];
    assert_eq!((&endpoints[0]["weight"], &endpoints[1]["backup"]), (&3.into(), &true.into()));
}

#[test]
fn a_reload_keeps_what_the_source_said_while_it_is_the_same() {
    let one = Upstream::start();
    let gateway = Plan::new(FROM_FILE).beside("endpoints.yaml", &listed(&[&one])).start();
    assert_eq!(gateway.get("/").status, 200);
    std::fs::remove_file(file(&gateway)).expect("removed");
    gateway.wait_for_log("keeping the endpoints known so far");
    assert!(gateway.reload(&FROM_FILE.replace("round_robin", "random")));
    assert_eq!(gateway.get("/").status, 200, "the file is away, not the endpoints");
    assert!(gateway.reload(&FROM_FILE.replace("endpoints.yaml", "others.yaml")));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"), "another file");
}

#[test]
fn an_answer_that_is_too_large_or_of_the_wrong_scheme_is_a_mistake_of_the_source() {
    let one = Upstream::start();
    let yaml = FROM_FILE.replace("empty_after: 2s", "max_endpoints: 2, protocol: h2c");
    let gateway = Plan::new(&yaml).beside("endpoints.yaml", &listed(&[&one])).start();
    replace(&gateway, "- http://127.0.0.1:1\n- http://127.0.0.1:2\n- http://127.0.0.1:3\n");
    gateway.wait_for_log("3 endpoints, of which `max_endpoints` allows 2");
    replace(&gateway, "- https://127.0.0.1:1\n");
    eventually("the scheme is told", || {
        let source = &gateway.status()["upstreams"]["service"]["discovery"];
        source["error"]
            .as_str()
            .filter(|error| error.contains("`h2c` is HTTP/2 without TLS"))
            .map(drop)
    });
    assert_eq!(addresses(&gateway), [one.address().to_string()]);
}

#[test]
fn a_name_that_is_not_known_yet_takes_nothing_away() {
    let one = Upstream::start();
    let gateway = Plan::new(FROM_FILE).beside("endpoints.yaml", &listed(&[&one])).start();
    replace(&gateway, "- http://no-such-host.invalid:80\n");
    gateway.wait_for_log("cannot resolve no-such-host.invalid");
    assert_eq!(gateway.get("/").status, 200, "what was named before serves until then");
    eventually("that there is no such host is believed", || {
        (gateway.get("/").status == 503).then_some(())
    });
    replace(&gateway, &listed(&[&one]));
    wait_for_addresses(&gateway, &[&one]);
}
