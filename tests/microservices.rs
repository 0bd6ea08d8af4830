//! The profile of the services around one application, run as its users run it: by environment
//! variables alone.

use std::path::Path;

use crate::support::{
    Answer, Call, Client, Gateway, H2Client, H2Upstream, Issuer, Plan, Reply, Response, Store,
    Upstream, eventually, request,
};

/// The three services the profile is in front of, and the keys of the third.
struct Services {
    greeter: Upstream,
    gateway: H2Upstream,
    auth: Upstream,
    issuer: Issuer,
}

impl Services {
    fn new(greeter: Upstream, gateway: H2Upstream) -> Self {
        Services { greeter, gateway, auth: Upstream::start(), issuer: Issuer::start() }
    }

    fn willing() -> Self {
        Services::new(Upstream::start(), H2Upstream::always(Reply::status(200)))
    }

    fn start(&self) -> Gateway {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/microservices.yaml");
        Plan::file(file)
            .env("GREETER_URL", &self.greeter.url())
            .env("GATEWAY_URL", &self.gateway.url())
            .env("AUTH_URL", &self.auth.url())
            .env("JWKS_URL", &self.issuer.url())
            .env("CORS_ORIGIN", "http://shop.test")
            .start()
    }

    fn call(&self, line: &str) -> Call {
        Call::new(line).bearer(&self.issuer.token("ada")).json("{}")
    }
}

fn counts(services: &Services) -> [usize; 3] {
    [services.greeter.count(), services.gateway.count(), services.auth.count()]
}

#[test]
fn a_prefix_leads_to_its_service_which_does_not_see_it() {
    let services = Services::willing();
    let gateway = services.start();
    let status = |line: &str| gateway.call(services.call(line)).status;
    assert_eq!(status("POST /greeter/greet.v1.GreetService/Greet"), 200);
    assert_eq!(status("POST /gateway/gateway.v1.GatewayService/InvokeCustom"), 200);
    assert_eq!(status("POST /auth/login?next=1"), 200);
    let greeted = services.greeter.only();
    assert_eq!(greeted.target, "/greet.v1.GreetService/Greet");
    assert_eq!(services.gateway.only().path, "/gateway.v1.GatewayService/InvokeCustom");
    assert_eq!(services.auth.only().target, "/login?next=1");
    // The services verify the token themselves, and are told whom it names.
    assert!(greeted.header("authorization").is_some_and(|value| value.starts_with("Bearer ")));
    assert_eq!(greeted.header("x-consumer"), Some("ada"));
}

#[test]
fn no_prefix_leads_to_the_caller_or_is_half_a_segment() {
    let services = Services::willing();
    let gateway = services.start();
    for path in ["/caller/call", "/greeters", "/greeter.v1.GreetService/Greet", "/"] {
        assert_eq!(gateway.call(services.call(&format!("POST {path}"))).status, 404, "{path}");
    }
    assert_eq!(counts(&services), [0, 0, 0]);
}

#[test]
fn who_has_no_token_reaches_the_auth_service_alone() {
    let services = Services::willing();
    let gateway = services.start();
    assert_eq!(gateway.post("/greeter/greet", "{}").status, 401);
    assert_eq!(gateway.post("/gateway/invoke", "{}").status, 401);
    assert_eq!(gateway.post("/auth/login", "{}").status, 200);
    assert_eq!(gateway.get("/auth/.well-known/jwks.json").status, 200);
    assert_eq!(counts(&services), [0, 0, 2]);
}

#[test]
fn gateway_is_called_by_grpc_too() {
    let reply = Reply::grpc(b"hello", 0);
    let services = Services::new(Upstream::start(), H2Upstream::always(reply));
    let gateway = services.start();
    let call = request("POST", "/gateway/gateway.v1.GatewayService/InvokeCustom")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", services.issuer.token("ada")))
        .body(&b"\0\0\0\0\0"[..])
        .expect("a call");
    let response = H2Client::connect(gateway.address).call(call);
    assert_eq!((response.status, response.status_field("grpc-status")), (200, Some("0")));
}

#[test]
fn a_browser_may_ask_first_without_a_token() {
    let services = Services::willing();
    let gateway = services.start();
    for prefix in ["greeter", "gateway", "auth"] {
        let preflight = Call::new(&format!("OPTIONS /{prefix}/x"))
            .header("Origin", "http://shop.test")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization");
        let answer = gateway.call(preflight);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("http://shop.test"),
            "{prefix}: {}",
            answer.status
        );
    }
    assert_eq!(counts(&services), [0, 0, 0]);
}

/// The client has the head of an answer whose end is not in sight.
fn begun(client: &mut Client, call: &Call) -> Response {
    client.send(call.bytes());
    client.receive_head()
}

#[test]
fn greeter_s_row_is_written_before_its_answer_and_gateway_s_after_it() {
    let greeter = Upstream::always(Answer::hold_body());
    let services = Services::new(greeter, H2Upstream::always(Reply::stall()));
    let gateway = services.start();

    let mut after = gateway.connect();
    assert_eq!(begun(&mut after, &services.call("POST /gateway/invoke")).status, 200);
    let mut before = gateway.connect();
    let head = begun(&mut before, &services.call("POST /greeter/greet"));
    assert_eq!(head.status, 200);
    let rows = Store::Sqlite.rows(&gateway);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert_eq!(rows[0].text("route"), Some("greeter"));
    assert!(!rows[0].is_true("completed"));

    services.greeter.release();
    before.receive_rest(head);
    after.vanish();
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert!(rows.iter().any(|row| row.text("route") == Some("gateway")), "{rows:#?}");
}

#[test]
fn health_is_public() {
    let services = Services::willing();
    let gateway = services.start();
    eventually("a healthy store", || (gateway.get("/healthz").status == 200).then_some(()));
}
