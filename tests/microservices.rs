//! The profile of the services around one application, run as its users run it: by environment
//! variables alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{
    Answer, Call, Client, Gateway, H2Client, H2Upstream, Issuer, Plan, Reply, Response, Store,
    Upstream, eventually, refused_address, request, wait_for_spans,
};

/// The three services the profile is in front of, and the keys of the third.
struct Services {
    greeter: H2Upstream,
    gateway: H2Upstream,
    auth: Upstream,
    issuer: Issuer,
}

const GREET: &str = "/greeter.v1.GreeterService/Greet";
const INVOKE: &str = "/gateway.v1.GatewayService/InvokeCustom";

impl Services {
    fn new(greeter: H2Upstream, gateway: H2Upstream) -> Self {
        Services { greeter, gateway, auth: Upstream::start(), issuer: Issuer::start() }
    }

    fn willing() -> Self {
        let service = || H2Upstream::always(Reply::status(200));
        Services::new(service(), service())
    }

    fn start(&self) -> Gateway {
        self.plan(Plan::file(profile())).start()
    }

    fn plan(&self, plan: Plan) -> Plan {
        plan.env("GREETER_URL", &self.greeter.url())
            .env("GATEWAY_URL", &self.gateway.url())
            .env("AUTH_URL", &self.auth.url())
            .env("JWKS_URL", &self.issuer.url())
            .env("CORS_ORIGIN", "http://shop.test")
            .env("TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.0/8")
    }

    fn call(&self, line: &str) -> Call {
        Call::new(line).bearer(&self.issuer.token("ada")).json("{}")
    }
}

fn profile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/microservices.yaml")
}

fn counts(services: &Services) -> [usize; 3] {
    [services.greeter.count(), services.gateway.count(), services.auth.count()]
}

#[test]
fn the_paths_of_generated_clients_lead_to_their_services_as_they_are() {
    let services = Services::willing();
    let gateway = services.start();
    for path in [GREET, INVOKE, "/auth/login?next=1", "/auth/register", "/auth/verify"] {
        assert_eq!(gateway.call(services.call(&format!("POST {path}"))).status, 200, "{path}");
    }
    assert_eq!(gateway.get("/.well-known/jwks.json").status, 200);
    let greeted = services.greeter.only();
    assert_eq!(greeted.path, GREET);
    assert_eq!(services.gateway.only().path, INVOKE);
    let auth: Vec<_> = services.auth.requests().into_iter().map(|seen| seen.target).collect();
    let expected =
        ["/auth/login?next=1", "/auth/register", "/auth/verify", "/.well-known/jwks.json"];
    assert_eq!(auth, expected);
    // The services verify the token themselves, and are told whom it names.
    let header = |name: &str| greeted.headers.get(name).and_then(|value| value.to_str().ok());
    assert!(header("authorization").is_some_and(|value| value.starts_with("Bearer ")));
    assert_eq!(header("x-consumer"), Some("ada"));
}

#[test]
fn no_path_leads_to_the_caller_or_to_what_auth_keeps_for_itself() {
    let services = Services::willing();
    let gateway = services.start();
    let others = [
        "/caller.v1.CallerService/Call",
        "/greeter.v1.GreeterServices/Greet",
        "/greeter/greeter.v1.GreeterService/Greet",
        "/auth/users",
        "/auth",
        "/",
    ];
    for path in others {
        assert_eq!(gateway.call(services.call(&format!("POST {path}"))).status, 404, "{path}");
    }
    assert_eq!(counts(&services), [0, 0, 0]);
}

#[test]
fn who_has_no_token_reaches_the_auth_service_alone() {
    let services = Services::willing();
    let gateway = services.start();
    assert_eq!(gateway.post(GREET, "{}").status, 401);
    assert_eq!(gateway.post(INVOKE, "{}").status, 401);
    assert_eq!(gateway.post("/auth/login", "{}").status, 200);
    assert_eq!(counts(&services), [0, 0, 1]);
}

#[test]
fn greeter_and_gateway_are_called_by_grpc_too() {
    let service = || H2Upstream::always(Reply::grpc(b"hello", 0));
    let services = Services::new(service(), service());
    let gateway = services.start();
    for path in [GREET, INVOKE] {
        let call = request("POST", path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", services.issuer.token("ada")))
            .body(&b"\0\0\0\0\0"[..])
            .expect("a call");
        let response = H2Client::connect(gateway.address).call(call);
        let status = (response.status, response.status_field("grpc-status"));
        assert_eq!(status, (200, Some("0")), "{path}");
    }
}

#[test]
fn a_browser_may_ask_first_without_a_token() {
    let services = Services::willing();
    let gateway = services.start();
    for path in [GREET, INVOKE, "/auth/login"] {
        let preflight = Call::new(&format!("OPTIONS {path}"))
            .header("Origin", "http://shop.test")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization");
        let answer = gateway.call(preflight);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("http://shop.test"),
            "{path}: {}",
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
    let stalled = || H2Upstream::always(Reply::stall());
    let services = Services::new(stalled(), stalled());
    let gateway = services.start();

    let mut after = gateway.connect();
    assert_eq!(begun(&mut after, &services.call(&format!("POST {INVOKE}"))).status, 200);
    let mut before = gateway.connect();
    assert_eq!(begun(&mut before, &services.call(&format!("POST {GREET}"))).status, 200);
    let rows = Store::Sqlite.rows(&gateway);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert_eq!(rows[0].text("route"), Some("greeter"));
    assert!(!rows[0].is_true("completed"));

    before.vanish();
    after.vanish();
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert!(rows.iter().any(|row| row.text("route") == Some("gateway")), "{rows:#?}");
}

#[test]
fn rows_hold_what_the_services_keep_why_a_call_failed_and_who_made_it() {
    let answer = |status: u16, body: &str| {
        Reply::status(status).header("content-type", "application/json").body(body.as_bytes())
    };
    let greeter = H2Upstream::script([
        answer(200, r#"{"message":"Hello Ada","externalStatus":204}"#),
        answer(503, r#"{"code":"unavailable","message":"the caller is away"}"#),
    ]);
    let services = Services::new(greeter, H2Upstream::always(Reply::status(200)));
    let gateway = services.start();
    let call = services
        .call(&format!("POST {GREET}"))
        .header("X-Forwarded-For", "203.0.113.7, 10.1.2.3")
        .json(r#"{"name":"Ada"}"#);
    assert_eq!(gateway.call(call.clone()).status, 200);
    assert_eq!(gateway.call(call).status, 503);
    assert_eq!(gateway.post(GREET, "{}").status, 401);

    let rows = Store::Sqlite.wait_for_rows(&gateway, 3);
    let said = |row: usize| rows[row].text("result_message");
    assert_eq!((rows[0].text("name"), said(0)), (Some("Ada"), Some("Hello Ada")));
    assert_eq!(rows[0].text("captured"), Some(r#"{"external_status":"204"}"#));
    assert_eq!(said(1), Some("the caller is away"));
    assert!(said(2).is_some_and(|reason| reason.contains("needs credentials")), "{:?}", said(2));
    for row in &rows[..2] {
        assert_eq!(row.text("client_address"), Some("203.0.113.7"));
    }
}

#[test]
fn a_request_is_traced_under_the_name_of_the_profile_or_of_the_environment() {
    for name in ["gateway", "shop"] {
        let (services, collector) = (Services::willing(), Upstream::start());
        let plan = services.plan(Plan::file(profile()));
        let plan = plan.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
        let plan = match name {
            "gateway" => plan,
            other => plan.env("OTEL_SERVICE_NAME", other),
        };
        let gateway = plan.start();
        assert_eq!(gateway.call(services.call(&format!("POST {GREET}"))).status, 200);
        // The request, and its one attempt.
        let spans = wait_for_spans(&collector, name, 2);
        let route = "/greeter.v1.GreeterService/*";
        assert!(spans.iter().any(|span| span.name.contains(route)), "{spans:#?}");
        assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id));
        let greeted = services.greeter.only();
        assert!(greeted.headers.contains_key("traceparent"), "{:?}", greeted.headers);
    }
}

#[test]
fn health_is_public() {
    let services = Services::willing();
    let gateway = services.start();
    eventually("a healthy store", || (gateway.get("/healthz").status == 200).then_some(()));
    assert_eq!(gateway.get("/livez").status, 200);
}

#[test]
fn health_is_503_while_the_database_is_away_and_requests_are_served() {
    let services = Services::willing();
    let url = format!("postgres://portcullis@{}/rows", refused_address());
    let gateway = services.plan(Plan::file(profile())).env("DATABASE_URL", &url).start();
    eventually("503", || (gateway.get("/healthz").status == 503).then_some(()));
    assert_eq!(gateway.get("/livez").status, 200);
    for path in [GREET, INVOKE, "/auth/login"] {
        assert_eq!(gateway.call(services.call(&format!("POST {path}"))).status, 200, "{path}");
    }
    assert_eq!(gateway.get("/healthz").status, 503);
}

/// The profile with the route for the caller service that its head shows.
fn with_caller() -> String {
    let text = std::fs::read_to_string(profile()).expect("the profile");
    let shown = text.lines().skip_while(|line| *line != "#   caller:");
    let shown =
        shown.map_while(|line| line.strip_prefix("# ").filter(|rest| rest.starts_with(' ')));
    let route: String = shown.map(|line| format!("{line}\n")).collect();
    assert!(route.contains("upstream: caller-service"), "{route}");
    let upstream = "upstreams:\n  caller-service: {endpoints: [\"${CALLER_URL}\"]}\n";
    let text = text.replacen("\nupstreams:\n", &format!("\n{upstream}"), 1);
    text.replacen("\nroutes:\n", &format!("\nroutes:\n{route}"), 1)
}

#[test]
fn the_route_shown_for_the_caller_keeps_what_that_service_keeps() {
    for answer in
        [r#"{"statusCode":204,"bodyLength":"1042"}"#, r#"{"status_code":204,"body_length":1042}"#]
    {
        let caller = Upstream::always(Answer::json(200, answer));
        let services = Services::willing();
        let plan = services.plan(Plan::new(&with_caller())).env("CALLER_URL", &caller.url());
        let gateway = plan.start();
        let call = services.call("POST /caller.v1.CallerService/Call");
        assert_eq!(gateway.call(call.json(r#"{"url":"http://shop.test/a?b=1"}"#)).status, 200);
        let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
        assert_eq!(row.text("route"), Some("caller"));
        let captured = row.text("captured").expect("captured columns");
        let captured: serde_json::Value = serde_json::from_str(captured).expect("JSON");
        let url = "http://shop.test/a?b=1";
        let expected = serde_json::json!({"url": url, "status_code": "204", "body_length": "1042"});
        assert_eq!(captured, expected);
        assert_eq!(caller.count(), 1);
    }
}

/// No container runs in a test: what the gateway's own are told must be what their profiles read.
#[test]
fn the_compose_file_sets_only_what_the_profiles_read_and_names_services_that_are_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let mut compose: serde_yaml::Value =
        serde_yaml::from_str(&read("microservices/compose.yaml")).expect("a compose file");
    compose.apply_merge().expect("its merge keys");
    let services = compose["services"].as_mapping().expect("its services");
    for (name, profile) in
        [("portcullis", "microservices.yaml"), ("gateway", "gateway-service.yaml")]
    {
        let service = &services[name];
        assert_eq!(service["build"]["context"].as_str(), Some("../.."));
        let environment = service["environment"].as_mapping().expect("its environment");
        let text = |value: &serde_yaml::Value| value.as_str().expect("a string").to_owned();
        let told = environment.iter().map(|(key, value)| (text(key), text(value)));
        let told: BTreeMap<_, _> = told.collect();
        assert_eq!(told["PORTCULLIS_CONFIG"], format!("/etc/portcullis/{profile}"));
        let profile = read(profile);
        for (variable, value) in &told {
            let read = variable == "PORTCULLIS_CONFIG"
                || ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"]
                    .contains(&variable.as_str())
                || profile.contains(&format!("${{{variable}:-"));
            assert!(read, "{name}: {variable} is not read");
            let Some((_, authority)) = value.split_once("://") else { continue };
            let host = authority.rsplit('@').next().and_then(|rest| rest.split([':', '/']).next());
            assert!(host.is_some_and(|host| services.contains_key(host)), "{name}: {value}");
        }
    }
    let label = "traefik.http.services.portcullis.loadbalancer.server.port";
    let portcullis = &services["portcullis"];
    assert_eq!(portcullis["labels"][label], portcullis["environment"]["PORT"]);
}
