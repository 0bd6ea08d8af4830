//! Routes that belong to a listener: `match.listener`.

use crate::support::{Call, Client, Gateway, H2Client, Plan, Port, Response, Upstream, eventually};

/// Routes that say their name in the answer, at two listeners.
const ROUTES: &str = "
routes:
  inside: {match: {listener: inside, path: /a}, respond: {body: inside}}
  outside: {match: {listener: outside, path: /a, methods: [GET, PUT]}, respond: {body: outside}}
  both: {match: {listener: [inside, outside], path: /b}, respond: {body: both}}
  any: {match: {path: /a/*}, respond: {body: any}}
  host: {match: {host: one.test, path: /a}, respond: {body: host}}
  admin: {match: {listener: inside, path: /admin/*}, upstream: service}
";

fn plan(other: &Port) -> Plan {
    let listeners = format!(
        "listeners: {{inside: {{address: \"127.0.0.1:${{PORT}}\"}}, outside: {{address: '{}'}}}}",
        other.address()
    );
    Plan::new(ROUTES).section(&listeners)
}

fn outside(other: &Port, call: Call) -> Response {
    Client::connect(other.address()).call(&call)
}

#[test]
fn a_route_takes_requests_of_its_listeners_alone_and_goes_before_those_of_any() {
    let (other, upstream) = (Port::reserve(), Upstream::start());
    let gateway = plan(&other).upstream(&upstream).start();
    let ask = |line: &str, host: &str| {
        let call = Call::new(line).header("Host", host);
        let (inside, outside) = (gateway.call(call.clone()), outside(&other, call));
        [inside, outside].map(|answer| (answer.status, answer.text()))
    };
    let said = |answers: [(u16, String); 2]| answers.map(|(_, text)| text);
    assert_eq!(said(ask("GET /a", "gateway.test")), ["inside", "outside"]);
    assert_eq!(said(ask("GET /a", "one.test")), ["inside", "outside"], "before any host");
    assert_eq!(said(ask("GET /b", "gateway.test")), ["both", "both"]);
    assert_eq!(said(ask("GET /a/x", "gateway.test")), ["any", "any"]);
    // The method that its own listener's route lacks is one that a route of any may have.
    assert_eq!(said(ask("POST /a", "gateway.test")), ["inside", "any"]);
    let [inside, outside] = ask("GET /admin/users", "gateway.test");
    assert_eq!((inside.0, outside.0), (200, 404));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn streams_of_http2_are_those_of_their_listener() {
    let (other, upstream) = (Port::reserve(), Upstream::start());
    let _gateway = plan(&other).upstream(&upstream).start();
    let client = H2Client::connect(other.address());
    assert_eq!(client.get("/a").text(), "outside");
    assert_eq!(client.get("/admin/users").status, 404);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_wrong_method_is_told_those_of_its_own_listener() {
    let other = Port::reserve();
    let text = ROUTES.replace("  any: {match: {path: /a/*}, respond: {body: any}}\n", "");
    let listeners = plan(&other).yaml().lines().next().expect("the listeners").to_owned();
    let gateway = Plan::new(
        &text
            .replace("listener: inside, path: /a}", "listener: inside, path: /a, methods: [POST]}"),
    )
    .section(&listeners)
    .start();
    assert_eq!(gateway.call("DELETE /a").header("allow"), Some("POST"));
    let refused = outside(&other, Call::new("DELETE /a"));
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, PUT")));
}

#[test]
fn a_listener_that_a_route_names_cannot_be_removed_by_a_reload() {
    let other = Port::reserve();
    let plan = plan(&other);
    let text = plan.yaml();
    let gateway = plan.start();
    let removed = text.replacen("outside: {address:", "elsewhere: {address:", 1);
    assert_ne!(text, removed);
    assert!(!gateway.reload(&removed));
    gateway.wait_for_log("nothing in `listeners` is named `outside`");
    assert_eq!(outside(&other, Call::new("GET /a")).text(), "outside", "as before");
    // With the route it goes.
    let without: String = removed
        .lines()
        .filter(|line| !line.starts_with("  outside:") && !line.starts_with("  both:"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(gateway.reload(&without), "{}", gateway.log());
}

#[test]
fn a_connection_ends_when_its_listener_gets_another_name() {
    let other = Port::reserve();
    let plan = plan(&other);
    let renamed = plan.yaml().replace("outside", "external");
    let gateway = plan.start();
    let mut kept = Client::connect(other.address());
    assert_eq!(kept.call(&Call::new("GET /a")).text(), "outside");
    assert!(gateway.reload(&renamed), "{}", gateway.log());
    // Its requests would be those of a listener that no route names any more.
    eventually("the end of the connection", || kept.is_closed().then_some(()));
    assert_eq!(outside(&other, Call::new("GET /a")).text(), "external");
}

fn check(text: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), text).expect("written");
    Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]).stderr
}

#[test]
fn names_that_no_listener_has_and_routes_of_one_listener_that_are_alike_are_refused() {
    let base = "listeners: {inside: {address: '127.0.0.1:1'}, outside: {address: '127.0.0.1:2'}}\nroutes:\n";
    let routes = |a: &str, b: &str| {
        check(&format!(
            "{base}  a: {{match: {{path: /a, {a}}}, serve: live}}\n  b: {{match: {{path: /a, {b}}}, serve: live}}\n"
        ))
    };
    let unknown = routes("listener: insid", "listener: [outside, insode]");
    for part in [
        "routes.a.match.listener: nothing in `listeners` is named `insid`",
        "routes.b.match.listener[1]: nothing in `listeners` is named `insode`",
        "inside",
    ] {
        assert!(unknown.contains(part), "{part}: {unknown}");
    }
    let alike = routes("listener: [outside, inside]", "listener: inside");
    let told = "`/a` is matched by routes.a already on the listener inside";
    assert!(alike.contains(told), "{alike}");
    for (a, b) in [
        ("listener: inside", "listener: outside"),
        ("listener: inside", "scheme: http"),
        ("listener: inside, scheme: http", "listener: inside"),
        ("listener: inside", "methods: GET"),
    ] {
        assert!(!routes(a, b).contains("error"), "{a} {b}: {}", routes(a, b));
    }
    let twice = routes("listener: [inside, inside]", "listener: outside");
    assert!(twice.contains("`inside` is listed twice"), "{twice}");
}
