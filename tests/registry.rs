//! Instances that register themselves at the admin listener, each until its lease is over.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Call, Gateway, Plan, Response, Upstream, eventually};

const YAML: &str = "
upstreams:
  service:
    discover: {registry: {allow: [127.0.0.1, 10.0.0.0/8], token: registry-token-0001}}
    balance: round_robin
    empty_after: 1s
    max_endpoints: 3
  fixed: {endpoints: ['http://127.0.0.1:9']}
routes:
  all: {match: {path: /*}, upstream: service}
";
const TOKEN: &str = "registry-token-0001";

fn send(gateway: &Gateway, method: &str, id: &str, body: &Value) -> Response {
    let call = Call::new(&format!("{method} /upstreams/service/endpoints/{id}"));
    gateway.admin(call.header("authorization", &format!("Bearer {TOKEN}")).body(body.to_string()))
}

fn register(gateway: &Gateway, id: &str, upstream: &Upstream, more: &Value) -> Response {
    let mut body = json!({ "address": upstream.address().to_string() });
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(more);
    send(gateway, "PUT", id, &body)
}

fn instances(gateway: &Gateway) -> Vec<Value> {
    let call = Call::new("GET /upstreams/service/endpoints");
    let listed = gateway.admin(call.header("authorization", &format!("Bearer {TOKEN}")));
    listed.json()["instances"].as_array().expect("a list").clone()
}

#[test]
fn an_instance_gets_requests_once_it_is_registered_and_none_once_it_is_not() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let gateway = Plan::new(YAML).start();
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    let more = json!({"weight": 3, "metadata": {"version": "1.4"}});
    assert_eq!(register(&gateway, "one", &one, &more).status, 201);
    assert_eq!(register(&gateway, "two", &two, &json!({})).status, 201);
    for _ in 0..8 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count()], [6, 2], "by weight");
    let listed = instances(&gateway);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["metadata"]["version"]),
        (&json!("one"), &json!("1.4"))
    );
    assert!(
        listed[0]["lease_ends_in_seconds"].as_f64().is_some_and(|ends| ends > 5.0),
        "{listed:?}"
    );
    assert_eq!(send(&gateway, "DELETE", "one", &json!({})).status, 204);
    assert_eq!(send(&gateway, "DELETE", "one", &json!({})).status, 404);
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count()], [6, 4]);
    gateway.wait_for_log("the instance one deregistered");
    // It says so itself: there is nothing to wait for, though it is the last one.
    assert_eq!(send(&gateway, "DELETE", "two", &json!({})).status, 204);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
}

#[test]
fn an_instance_that_does_not_renew_its_lease_is_forgotten_and_one_that_does_is_not() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let gateway = Plan::new(YAML).start();
    assert_eq!(register(&gateway, "lost", &one, &json!({"lease": "1s"})).status, 201);
    assert_eq!(register(&gateway, "kept", &two, &json!({"lease": "20s"})).status, 201);
    let over = |id: &str, upstream: &Upstream| {
        format!("the instance {id} at {} has not renewed its lease", upstream.address())
    };
    gateway.wait_for_log(&over("lost", &one));
    let listed = instances(&gateway);
    assert_eq!(listed.iter().map(|one| &one["id"]).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(register(&gateway, "kept", &two, &json!({"lease": "1s"})).status, 200, "renewed");
    // The last one: that there is nothing is believed after `empty_after`, and not before.
    gateway.wait_for_log(&over("kept", &two));
    gateway.wait_for_log("registry has had no endpoint for 1s");
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    assert_eq!(register(&gateway, "kept", &two, &json!({})).status, 201);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn the_registrys_token_registers_for_its_upstream_and_nothing_else() {
    let one = Upstream::start();
    let yaml = YAML
        .replace("  fixed: {", "  other: {discover: {registry: {allow: [127.0.0.1]}}}\n  fixed: {");
    let gateway = Plan::new(&yaml).start();
    let body = json!({ "address": one.address().to_string() }).to_string();
    let put = |path: &str, token: Option<&str>| {
        let mut call = Call::new(&format!("PUT {path}")).body(body.clone());
        if let Some(token) = token {
            call = call.header("authorization", &format!("Bearer {token}"));
        }
        gateway.admin(call)
    };
    let service = "/upstreams/service/endpoints/a";
    let refused = put(service, None);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(put(service, Some("registry-token-0002")).status, 401);
    assert_eq!(put(service, Some(TOKEN)).status, 201);
    // Without a token anywhere, it is as with other orders on this listener.
    assert_eq!(put("/upstreams/other/endpoints/a", None).status, 201);
    for (upstream, code) in [("fixed", "no_registry"), ("none", "unknown_upstream")] {
        let refused = put(&format!("/upstreams/{upstream}/endpoints/a"), None);
        assert_eq!((refused.status, refused.code().as_str()), (404, code));
    }
    let admin = "admin: {address: \"${ADMIN_ADDRESS}\", token: admin-token-0000001}\n";
    assert!(gateway.reload(&format!("{admin}{yaml}")));
    assert_eq!(put("/upstreams/other/endpoints/b", None).status, 401);
    assert_eq!(put("/upstreams/other/endpoints/b", Some(TOKEN)).status, 401);
    assert_eq!(put("/upstreams/other/endpoints/b", Some("admin-token-0000001")).status, 201);
    assert_eq!(put(service, Some("admin-token-0000001")).status, 200);
    assert_eq!(put(service, Some(TOKEN)).status, 200);
    for (method, path) in [("GET", "/status"), ("POST", "/circuits/upstream/service/open")] {
        let call = Call::new(&format!("{method} {path}"))
            .header("authorization", &format!("Bearer {TOKEN}"));
        assert_eq!(gateway.admin(call).status, 401, "{path}");
    }
}

#[test]
fn what_is_registered_is_bounded_and_what_is_wrong_is_named() {
    let gateway = Plan::new(YAML).start();
    let put = |id: &str, body: Value| {
        let response = send(&gateway, "PUT", id, &body);
        let text = |key: &str| response.json()[key].as_str().unwrap_or_default().to_owned();
        (response.status, text("code"), text("detail"))
    };
    for (body, status, code, says) in [
        (json!({"address": "192.0.2.1:80"}), 403, "address_not_allowed", "192.0.2.1"),
        (json!({"address": "169.254.169.254:80"}), 403, "address_not_allowed", "allow"),
        (json!({"address": "service.internal:80"}), 400, "invalid_registration", "10.0.0.7:8080"),
        (json!({"address": "10.0.0.1:80", "weight": 0}), 400, "invalid_registration", "deregister"),
        (json!({"address": "10.0.0.1:80", "lease": "2h"}), 400, "invalid_registration", "1h"),
        (json!({"address": "10.0.0.1:80", "ttl": 3}), 400, "invalid_registration", "ttl"),
        (json!({"address": "10.0.0.1:0"}), 400, "invalid_registration", "10.0.0.1:0"),
    ] {
        let (got, name, detail) = put("a", body.clone());
        assert_eq!((got, name.as_str()), (status, code), "{body}");
        assert!(detail.contains(says), "{body}: {detail}");
    }
    assert!(instances(&gateway).is_empty());
    for id in ["a", "b", "c"] {
        assert_eq!(put(id, json!({"address": "10.0.0.1:80"})).0, 201);
    }
    let (status, code, detail) = put("d", json!({"address": "10.0.0.1:80"}));
    assert_eq!((status, code.as_str()), (409, "registry_full"), "{detail}");
    assert_eq!(put("c", json!({"address": "10.0.0.2:80"})).0, 200);
}

#[test]
fn a_reload_goes_on_with_the_register_and_drops_what_may_not_be_there_any_more() {
    let one = Upstream::start();
    let gateway = Plan::new(YAML).start();
    assert_eq!(register(&gateway, "one", &one, &json!({})).status, 201);
    assert!(gateway.reload(&YAML.replace("round_robin", "random")));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(instances(&gateway).len(), 1);
    assert!(gateway.reload(&YAML.replace("127.0.0.1, 10.0.0.0/8", "10.0.0.0/8")));
    eventually("it is dropped", || instances(&gateway).is_empty().then_some(()));
    let refused = register(&gateway, "one", &one, &json!({}));
    assert_eq!((refused.status, refused.code().as_str()), (403, "address_not_allowed"));
}

#[test]
fn what_comes_during_a_reload_is_not_lost() {
    let (one, two) = (Upstream::start(), Upstream::start());
    // A server that never answers, so that the reload takes as long as it waits for sources.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    silent.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let resolver = silent.local_addr().expect("an address");
    let gateway = Plan::new(YAML).start();
    assert_eq!(register(&gateway, "one", &one, &json!({})).status, 201);
    let slow = format!(
        "upstreams:\n  slow: {{discover: {{srv: {{name: _a._tcp.slow.test, resolver: ['{resolver}']}}}}}}"
    );
    let yaml = YAML.replace("upstreams:", &slow).replace("round_robin", "random");
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| gateway.reload(&yaml));
        // It has the register by now, and asks the other source.
        silent.recv_from(&mut [0; 512]).expect("a question");
        assert_eq!(register(&gateway, "two", &two, &json!({})).status, 201);
        assert_eq!(send(&gateway, "DELETE", "one", &json!({})).status, 204);
        assert!(reload.join().expect("no panic"));
    });
    eventually("the second one alone", || {
        let endpoints = &gateway.status()["upstreams"]["service"]["endpoints"];
        let is_two = endpoints[0]["address"] == two.address().to_string().as_str();
        (endpoints.as_array().is_some_and(|all| all.len() == 1) && is_two).then_some(())
    });
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_instance_that_is_the_gateways_own_admin_listener_gives_clients_nothing() {
    let gateway = Plan::new(YAML).start();
    let body = json!({ "address": gateway.admin.to_string() });
    assert_eq!(send(&gateway, "PUT", "own", &body).status, 201);
    // What is this gateway itself is no endpoint, whatever its source.
    let refused = gateway.get("/status");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    assert_eq!(gateway.call(Call::new("POST /circuits/upstream/service/open")).status, 503);
}
