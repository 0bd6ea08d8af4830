//! Slices as the API server writes them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A slice with one TCP port, and endpoints of which each is an address and its conditions.
fn slice(name: &str, endpoints: &[(&str, Value)]) -> Value {
    let family = if endpoints.iter().any(|(ip, _)| ip.contains(':')) { "IPv6" } else { "IPv4" };
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, conditions)| json!({"addresses": [ip], "conditions": conditions}))
        .collect();
    json!({
        "kind": "EndpointSlice",
        "metadata": {"name": name, "resourceVersion": "7"},
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    })
}

fn page(slices: &[Value]) -> Vec<u8> {
    let metadata = json!({"resourceVersion": "9"});
    json!({"kind": "EndpointSliceList", "metadata": metadata, "items": slices}).to_string().into()
}

fn listed(slices: &[Value]) -> Slices {
    let mut all = Slices::default();
    assert_eq!(all.take_page(&page(slices)), Ok(None));
    all
}

fn change(kind: &str, object: &Value) -> Vec<u8> {
    json!({"type": kind, "object": object}).to_string().into()
}

fn used(slices: &Slices, port: Option<&str>) -> Result<Vec<String>, String> {
    match slices.said(port.map(|port| port.parse().expect("a port")).as_ref()) {
        Said::These(all) => Ok(all.iter().map(SocketAddr::to_string).collect()),
        Said::Nothing(why) => Err(format!("nothing: {why}")),
        Said::Failed(why) => Err(why),
    }
}

fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

fn unready() -> Value {
    json!({"ready": false, "serving": false, "terminating": false})
}

fn draining() -> Value {
    json!({"ready": false, "serving": true, "terminating": true})
}

fn ended() -> Value {
    json!({"ready": false, "serving": false, "terminating": true})
}

#[test]
fn those_that_are_ready_are_used_else_those_that_still_answer() {
    let [a, b, c, d] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    for (endpoints, expected) in [
        (vec![(a, ready()), (b, unready()), (c, draining()), (d, ended())], Ok(vec![a])),
        (vec![(a, json!({})), (b, Value::Null), (c, draining())], Ok(vec![a, b])),
        (vec![(b, unready()), (c, draining()), (d, ended())], Ok(vec![c])),
        (vec![(c, json!({"ready": false, "terminating": true}))], Ok(vec![c])),
        // `publishNotReadyAddresses`
        (vec![(c, json!({"ready": true, "terminating": true}))], Ok(vec![c])),
        (vec![(b, unready()), (d, ended())], Err("nothing: of its 2 endpoints none is ready")),
        (vec![], Err("nothing: its EndpointSlices have no endpoint")),
    ] {
        let expected = expected
            .map(|ips| ips.iter().map(|ip| format!("{ip}:80")).collect::<Vec<_>>())
            .map_err(str::to_owned);
        assert_eq!(used(&listed(&[slice("s", &endpoints)]), None), expected, "{endpoints:?}");
    }
    let nothing = "nothing: there is no EndpointSlice of this service".to_owned();
    assert_eq!(used(&listed(&[]), None), Err(nothing));
}

#[test]
fn an_endpoint_that_is_in_two_slices_is_one_and_counts_as_the_better_of_the_two() {
    let moving = [
        slice("old", &[("10.0.0.1", ready()), ("10.0.0.2", draining())]),
        slice("new", &[("10.0.0.1", unready()), ("10.0.0.2", ready())]),
    ];
    let expected = Ok(vec!["10.0.0.1:80".to_owned(), "10.0.0.2:80".to_owned()]);
    assert_eq!(used(&listed(&moving), None), expected);
}

#[test]
fn families_are_used_as_they_are_and_names_are_not() {
    let mut named = slice("n", &[("orders.example", ready())]);
    named["addressType"] = json!("FQDN");
    let all =
        [slice("six", &[("fd00::1", ready())]), slice("four", &[("10.0.0.1", ready())]), named];
    let slices = listed(&all);
    assert!(slices.has_names());
    let expected = Ok(vec!["10.0.0.1:80".to_owned(), "[fd00::1]:80".to_owned()]);
    assert_eq!(used(&slices, None), expected);
    assert!(!listed(&all[..2]).has_names());
}

#[test]
fn changes_lead_to_what_a_list_would_say() {
    let mut slices = listed(&[slice("a", &[("10.0.0.1", ready())])]);
    assert_eq!(slices.version(), "9");
    let at = |mut object: Value, version: &str| {
        object["metadata"]["resourceVersion"] = json!(version);
        object
    };
    let mut tell = |kind, object: Value| {
        slices.take_change(&change(kind, &object)).expect(kind);
        (slices.version().to_owned(), used(&slices, None).unwrap_or_default())
    };
    let [one, two, three] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(str::to_owned);
    let added = at(slice("b", &[("10.0.0.2", ready())]), "10");
    assert_eq!(tell("ADDED", added), ("10".to_owned(), vec![one.clone(), two.clone()]));
    let changed = at(slice("a", &[("10.0.0.3", ready())]), "11");
    assert_eq!(tell("MODIFIED", changed), ("11".to_owned(), vec![two.clone(), three.clone()]));
    let bookmark = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "",
        "metadata": {"resourceVersion": "20", "creationTimestamp": null}, "endpoints": null, "ports": null,
    });
    assert_eq!(tell("BOOKMARK", bookmark), ("20".to_owned(), vec![two, three.clone()]));
    let gone = at(slice("b", &[]), "21");
    assert_eq!(tell("DELETED", gone), ("21".to_owned(), vec![three]));
}

#[test]
fn a_port_is_chosen_by_its_name_or_number() {
    let with_ports = |name: &str, ip: &str, ports: Value| {
        let mut slice = slice(name, &[(ip, ready())]);
        slice["ports"] = ports;
        slice
    };
    let two = json!([
        {"name": "http", "port": 8080},
        {"name": "metrics", "protocol": "TCP", "port": 9090},
        {"name": "dns", "protocol": "UDP", "port": 53},
    ]);
    let other = json!([{"name": "http", "port": 8081}]);
    let slices =
        listed(&[with_ports("a", "10.0.0.1", two), with_ports("b", "10.0.0.2", other.clone())]);
    let ok = |all: &[&str]| Ok(all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
    assert_eq!(used(&slices, Some("http")), ok(&["10.0.0.1:8080", "10.0.0.2:8081"]));
    assert_eq!(used(&slices, Some("9090")), ok(&["10.0.0.1:9090"]), "the other has none such");
    for (port, says) in [
        (None, "a has several ports: http (8080), metrics (9090): choose one by `port`"),
        (
            Some("web"),
            "its EndpointSlices have no TCP port `web`: http (8080), http (8081), metrics (9090)",
        ),
        (
            Some("53"),
            "its EndpointSlices have no TCP port `53`: http (8080), http (8081), metrics (9090)",
        ),
    ] {
        assert_eq!(used(&slices, port), Err(says.to_owned()));
    }
    // A service with one port need not name it, and one without a head need not have any.
    for (ports, port, expected) in [
        (json!([{"name": "", "port": 80}]), None, Some("10.0.0.1:80")),
        (json!([{"port": 80}]), Some("80"), Some("10.0.0.1:80")),
        (Value::Null, Some("7000"), Some("10.0.0.1:7000")),
        (json!([]), Some("7000"), Some("10.0.0.1:7000")),
        (json!([{"name": "any"}]), Some("7000"), Some("10.0.0.1:7000")),
        (json!([]), None, None),
        (json!([{"name": "dns", "protocol": "UDP", "port": 53}]), None, None),
    ] {
        let found = used(&listed(&[with_ports("a", "10.0.0.1", ports.clone())]), port);
        assert_eq!(
            found.ok().as_deref(),
            expected.map(|one| vec![one.to_owned()]).as_deref(),
            "{ports}"
        );
    }
    // A slice without endpoints has no ports either.
    let mut empty = slice("e", &[]);
    (empty["endpoints"], empty["ports"]) = (Value::Null, Value::Null);
    assert_eq!(
        used(&listed(&[empty, with_ports("b", "10.0.0.2", other)]), None),
        ok(&["10.0.0.2:8081"])
    );
}

#[test]
fn a_list_comes_in_pages() {
    let mut slices = Slices::default();
    let first = json!({
        "kind": "EndpointSliceList", "metadata": {"resourceVersion": "9", "continue": "abc"},
        "items": [slice("a", &[("10.0.0.1", ready())])],
    });
    let next = slices.take_page(first.to_string().as_bytes());
    assert_eq!(next, Ok(Some("abc".to_owned())));
    assert_eq!(slices.take_page(&page(&[slice("b", &[("10.0.0.2", ready())])])), Ok(None));
    assert_eq!(used(&slices, None).map(|all| all.len()), Ok(2));
}

#[test]
fn what_is_no_list_of_slices_is_not_taken_for_an_empty_one() {
    let wrong = |text: &str| match Slices::default().take_page(text.as_bytes()) {
        Err(Trouble::Wrong(why)) => why,
        other => panic!("{text}: {other:?}"),
    };
    for text in ["", "{}", "[]", "<html>", "{\"items\": []}", "{\"kind\": \"EndpointSliceList\"}"] {
        assert!(wrong(text).contains("cannot be read"), "{text}");
    }
    for kind in ["PodList", "Status"] {
        let text = json!({"kind": kind, "metadata": {"resourceVersion": "1"}, "items": []});
        assert!(wrong(&text.to_string()).contains("not a list of EndpointSlices"), "{kind}");
    }
    let unversioned = json!({"kind": "EndpointSliceList", "metadata": {}, "items": []});
    assert!(wrong(&unversioned.to_string()).contains("not a list"));
    let bad = |key: &str, value: Value| {
        let mut slice = slice("a", &[("10.0.0.1", ready())]);
        slice[key] = value;
        wrong(std::str::from_utf8(&page(&[slice])).expect("text"))
    };
    let of = |address: &str| json!([{"addresses": [address]}]);
    assert_eq!(bad("endpoints", of("banana")), "a: `banana` is not an IPv4 address");
    assert_eq!(bad("endpoints", of("fd00::1")), "a: `fd00::1` is not an IPv4 address");
    assert_eq!(bad("endpoints", json!([{"addresses": []}])), "a: an endpoint has no address");
    for (key, value) in [
        ("ports", json!([{"port": 0}])),
        ("ports", json!([{"port": 65536}])),
        ("endpoints", json!("none")),
        ("endpoints", json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": "yes"}}])),
    ] {
        assert!(bad(key, value.clone()).contains("cannot be read"), "{value}");
    }
    assert!(bad("metadata", json!({"resourceVersion": "1"})).contains("no name"));
}

#[test]
fn what_is_no_change_of_a_slice_is_told() {
    let mut slices = listed(&[slice("a", &[("10.0.0.1", ready())])]);
    let mut tell = |line: &[u8]| slices.take_change(line).expect_err("no change");
    let status = |code: u16| {
        change(
            "ERROR",
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version: 7 (900)", "reason": "Expired", "code": code,
            }),
        )
    };
    assert_eq!(tell(&status(410)), Trouble::TooOld);
    let says = "the API server says: 500 too old resource version: 7 (900)".to_owned();
    assert_eq!(tell(&status(500)), Trouble::Wrong(says));
    let pod = json!({"kind": "Pod", "metadata": {"name": "a", "resourceVersion": "8"}});
    for line in [
        b"nonsense".to_vec(),
        Vec::new(),
        b"{}".to_vec(),
        change("RENAMED", &slice("a", &[])),
        change("MODIFIED", &pod),
        change("MODIFIED", &json!({"kind": "EndpointSlice", "metadata": {"name": "a"}})),
        change("ADDED", &json!({"kind": "EndpointSlice", "metadata": {"resourceVersion": "8"}})),
    ] {
        let found = tell(&line);
        assert!(matches!(found, Trouble::Wrong(_)), "{}", String::from_utf8_lossy(&line));
    }
    // Neither has anything else changed by it.
    assert_eq!((slices.version(), used(&slices, None)), ("9", Ok(vec!["10.0.0.1:80".to_owned()])));
}

#[test]
fn three_thousand_endpoints_in_slices_of_a_thousand_are_one_list() {
    let thousand = |third: usize| {
        let ip = |n: usize| format!("10.{third}.{}.{}", n / 250, n % 250 + 1);
        let all: Vec<_> = (0..1000).map(ip).collect();
        let all: Vec<_> = all.iter().map(|ip| (ip.as_str(), ready())).collect();
        slice(&format!("s{third}"), &all)
    };
    let slices = listed(&[thousand(1), thousand(2), thousand(3)]);
    assert_eq!(used(&slices, None).map(|all| all.len()), Ok(3000));
}

/// Slices of a few names with a few addresses; without any, the slice is removed.
fn history() -> impl Strategy<Value = Vec<(u8, Vec<(u8, u8)>)>> {
    let endpoints = proptest::collection::vec((0..6u8, 0..4u8), 0..4);
    proptest::collection::vec((0..4u8, endpoints), 0..20)
}

proptest! {
    #[test]
    fn whatever_happened_the_changes_lead_to_what_a_list_says(history in history()) {
        let mut watched = listed(&[]);
        let mut cluster = BTreeMap::new();
        for (version, (name, endpoints)) in history.into_iter().enumerate() {
            let address = |(ip, state): &(u8, u8)| {
                let conditions = [ready(), unready(), draining(), json!({})];
                (format!("10.0.0.{ip}"), conditions[usize::from(*state)].clone())
            };
            let endpoints: Vec<_> = endpoints.iter().map(address).collect();
            let endpoints: Vec<_> = endpoints.iter().map(|(ip, c)| (ip.as_str(), c.clone())).collect();
            let mut object = slice(&format!("s{name}"), &endpoints);
            object["metadata"]["resourceVersion"] = json!((100 + version).to_string());
            let kind = match (endpoints.is_empty(), cluster.contains_key(&name)) {
                (true, true) => "DELETED",
                (true, false) => continue,
                (false, true) => "MODIFIED",
                (false, false) => "ADDED",
            };
            watched.take_change(&change(kind, &object)).expect("a change");
            match kind {
                "DELETED" => drop(cluster.remove(&name)),
                _ => drop(cluster.insert(name, object)),
            }
            let all: Vec<_> = cluster.values().cloned().collect();
            prop_assert_eq!(watched.said(None), listed(&all).said(None));
        }
    }

    #[test]
    fn a_damaged_line_is_refused_or_read_and_never_more(at in 0..400usize, byte: u8) {
        let mut line = change("MODIFIED", &slice("a", &[("10.0.0.1", ready())]));
        let at = at % line.len();
        line[at] = byte;
        let mut slices = listed(&[slice("a", &[("10.0.0.2", ready())])]);
        // A damaged name is another slice.
        if slices.take_change(&line).is_err() {
            prop_assert_eq!(used(&slices, None), Ok(vec!["10.0.0.2:80".to_owned()]));
        }
    }
}
