//! What can be graphed: what runs, what is zero before its first event, and every request once.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;

use crate::support::{
    Answer, Authority, Call, Client, Gateway, Plan, Port, Upstream, eventually, parsed,
    refused_address, unix_now,
};

fn scrape(gateway: &Gateway) -> String {
    gateway.admin("GET /metrics").text()
}

/// The lines of these metrics, without the prefix.
fn samples(gateway: &Gateway, name: &str) -> Vec<String> {
    let text = scrape(gateway);
    let lines = text.lines().filter_map(|line| line.strip_prefix("portcullis_"));
    lines.filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[test]
fn the_build_and_the_files_in_force_are_shown() {
    let upstream = Upstream::start();
    let before = unix_now();
    let gateway = Plan::route("").upstream(&upstream).start();
    let twin = Plan::route("").upstream(&upstream).start();
    let info = samples(&gateway, "build_info").concat();
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(info.contains(&version) && info.ends_with(" 1"), "{info}");
    let successful = || gateway.metric("portcullis_config_last_reload_successful", &[]);
    let taken_at =
        || gateway.metric("portcullis_config_last_reload_success_timestamp_seconds", &[]);
    let hash = |gateway: &Gateway| gateway.metric("portcullis_config_hash", &[]);
    let started_with = hash(&gateway);
    assert_eq!(successful(), 1.0);
    assert!(taken_at() >= before as f64 && taken_at() <= unix_now() as f64, "{}", taken_at());
    // Their ports and folders differ.
    assert_eq!(started_with, hash(&twin));
    assert!(started_with > 0.0);

    assert!(!gateway.reload("nonsense: 1"));
    assert_eq!((successful(), hash(&gateway)), (0.0, started_with), "what serves is as it was");
    assert!(gateway.reload_route("max_body: 1MiB"));
    assert_eq!(successful(), 1.0);
    assert_ne!(hash(&gateway), started_with);
    let failed = gateway.metric("portcullis_reloads_total", &[("result", "failed")]);
    assert_eq!(failed, 1.0);
}

#[test]
fn a_certificates_end_is_shown_and_follows_the_file_with_a_reload() {
    let authority = Authority::new();
    let leaf = |days: u64| authority.sign_until("one.test", days * 24 * 60 * 60);
    let (first, renewed) = (leaf(30), leaf(60));
    let port = Port::reserve();
    let section = format!(
        "listeners:\n  public: {{address: \"127.0.0.1:${{PORT}}\"}}\n  secure: {{address: '{}', \
         tls: {{certificates: [{{certificate: one.pem, key: one.key}}]}}}}",
        port.address()
    );
    let plan = Plan::route("").section(&section);
    let gateway = plan.beside("one.pem", &first.pem()).beside("one.key", &first.key_pem()).start();
    let ends = || {
        let all = samples(&gateway, "tls_certificate_not_after_seconds");
        let [line] = &all[..] else { panic!("one certificate: {all:?}") };
        assert!(line.contains("{certificate=\"one.pem\",listener=\"secure\"}"), "{line}");
        line.rsplit(' ').next().and_then(|end| end.parse::<f64>().ok()).expect("a number")
    };
    let in_days = |days: f64| {
        let left = ends() - unix_now() as f64;
        (left / 86_400.0 - days).abs() < 1.0
    };
    assert!(in_days(30.0), "{}", ends());
    std::fs::write(gateway.directory().join("one.pem"), renewed.pem()).expect("written");
    std::fs::write(gateway.directory().join("one.key"), renewed.key_pem()).expect("written");
    assert!(in_days(30.0), "what is shown is what clients are shown");
    let config = std::fs::read_to_string(gateway.directory().join("portcullis.yaml"));
    assert!(gateway.reload(&config.expect("the file")));
    assert!(in_days(60.0), "{}", ends());
}

#[test]
fn what_has_not_happened_yet_is_there_to_rise_from_zero() {
    let upstream = Upstream::start();
    let policies = "retry: {max_retries: 1}
        rate_limit: {fixed_window: {requests: 9, per: 1m}}
        bulkhead: {max_in_flight: 5, enforce: false}
        fallback: {json: {ok: false}}";
    let gateway = Plan::route(policies).upstream(&upstream).start();
    let shown = |line: &str| scrape(&gateway).contains(&format!("\nportcullis_{line}\n"));
    for line in [
        "upstream_attempts_total{outcome=\"connect_failure\",upstream=\"service\"} 0",
        "upstream_attempts_total{outcome=\"5xx\",upstream=\"service\"} 0",
        "upstream_connects_total{upstream=\"service\"} 0",
        "upstream_duration_seconds_count{upstream=\"service\"} 0",
        "connections_refused_total{reason=\"descriptors\"} 0",
        "tls_handshakes_total{kind=\"resumed\",version=\"1.3\"} 0",
        "metric_exports_total{result=\"failed\"} 0",
        "trace_spans_total{result=\"dropped\"} 0",
        "reloads_total{result=\"failed\"} 0",
    ] {
        assert!(shown(line), "{line} in\n{}", scrape(&gateway));
    }
    assert!(!scrape(&gateway).contains("rejections_total{"), "no request yet");
    gateway.get("/");
    eventually("the request", || {
        shown("requests_total{class=\"2xx\",protocol=\"http\",route=\"all\"} 1").then_some(())
    });
    for line in [
        "rejections_total{code=\"rate_limited\",route=\"all\"} 0",
        "rejections_total{code=\"connect_refused\",route=\"all\"} 0",
        "would_refuse_total{code=\"bulkhead_full\",route=\"all\"} 0",
        "retries_stopped_total{reason=\"budget\",route=\"all\"} 0",
        "fallbacks_total{reason=\"attempts_spent\",route=\"all\"} 0",
        "route_requests_in_flight{route=\"all\"} 0",
    ] {
        assert!(shown(line), "{line} in\n{}", scrape(&gateway));
    }
    // Nothing that this route cannot do.
    for absent in
        ["bulkhead_full\",route=\"all\"} 0\nportcullis_rejections", "circuit_open\",route"]
    {
        let rejections = samples(&gateway, "rejections_total").join("\nportcullis_");
        assert!(!rejections.contains(absent), "{absent} in {rejections}");
    }
    assert_eq!(samples(&gateway, "fallback_calls_total"), [""; 0]);
    assert_eq!(samples(&gateway, "responses_total"), [""; 0], "only where it is wanted");
}

#[test]
fn responses_are_counted_by_their_exact_status_where_that_is_wanted() {
    let upstream = Upstream::script([200, 204, 404, 503].map(Answer::from));
    let gateway = Plan::route("").section("metrics: {status: exact}").upstream(&upstream).start();
    (0..5).for_each(|_| _ = gateway.get("/"));
    let of = |status| {
        gateway.metric("portcullis_responses_total", &[("route", "all"), ("status", status)])
    };
    eventually("five responses", || {
        (gateway.metric("portcullis_responses_total", &[]) == 5.0).then_some(())
    });
    assert_eq!(["200", "204", "404", "503"].map(of), [2.0, 1.0, 1.0, 1.0]);
    let exact = Plan::route("").section("metrics: {status: class}");
    assert!(!gateway.reload_plan(&exact), "needs a restart");
}

#[test]
fn bytes_and_requests_in_flight_are_counted_by_route() {
    let upstream = Upstream::script([Answer::ok().body("12345"), Answer::ok().held()]);
    let yaml = "routes:\n  busy: {match: {path: /busy}, upstream: service}\n  \
                idle: {match: {path: /idle}, upstream: service}\n";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    assert_eq!(gateway.post("/busy", "{\"n\": 1}").status, 200);
    let of = |name: &str, route| gateway.metric(&format!("portcullis_{name}"), &[("route", route)]);
    eventually("the bytes", || (of("response_bytes_total", "busy") == 5.0).then_some(()));
    assert_eq!(of("request_bytes_total", "busy"), 8.0);
    assert_eq!(of("route_requests_in_flight", "busy"), 0.0);
    let mut client = gateway.connect();
    client.send(Call::new("GET /busy").bytes());
    upstream.wait_for(2);
    assert_eq!(of("route_requests_in_flight", "busy"), 1.0);
    assert_eq!(gateway.get("/nowhere").status, 404);
    assert!(!scrape(&gateway).contains("\"idle\""), "{}", scrape(&gateway));
    assert_eq!(of("route_requests_in_flight", "(none)"), 0.0);
    upstream.release();
    client.receive();
    eventually("none in flight", || (of("route_requests_in_flight", "busy") == 0.0).then_some(()));
}

/// All numbers of the last export, by name and labels.
fn last_export(collector: &Upstream) -> BTreeMap<(String, String), f64> {
    let received = collector.requests();
    let last = received.iter().rfind(|request| request.complete).expect("an export");
    let request = ExportMetricsServiceRequest::decode(&last.body[..]).expect("metrics");
    let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    let mut numbers = BTreeMap::new();
    for metric in scopes.flat_map(|scope| scope.metrics) {
        let points = match metric.data {
            Some(Data::Sum(sum)) => sum.data_points,
            Some(Data::Gauge(gauge)) => gauge.data_points,
            Some(Data::Histogram(_)) => continue,
            other => panic!("{}: {other:?}", metric.name),
        };
        for point in points {
            let Some(Value::AsDouble(value)) = point.value else { panic!("{}", metric.name) };
            numbers.insert((metric.name.clone(), format!("{:?}", point.attributes)), value);
        }
    }
    numbers
}

const MIX: &str = "
access_log: {keep: {success: 100%, refusals: 2/s}}
metrics: {status: exact}
server: {drain_timeout: 300ms}
upstreams:
  service: {endpoints: ['${UPSTREAM}']}
  hangs: {endpoints: ['${HANGS}']}
  gone: {endpoints: ['${GONE}']}
  flaky: {endpoints: ['${FLAKY}']}
routes:
  good: {match: {path: /good}, upstream: service}
  limited: {match: {path: /limited}, upstream: service, rate_limit: {fixed_window: {requests: 1, per: 1h}}}
  gone: {match: {path: /gone}, upstream: gone}
  flaky: {match: {path: /flaky}, upstream: flaky, retry: {max_retries: 2, on: [5xx, reset], methods: any, backoff: {base: 1ms}}}
  broken: {match: {path: /broken}, upstream: flaky}
  hangs: {match: {path: /hangs}, upstream: hangs}
  page: {match: {path: /page}, serve: live}
  cors: {match: {path: /cors}, upstream: service, cors: {origins: ['https://a.test'], methods: [PUT]}}
";

#[test]
fn every_ending_is_counted_once_in_the_metrics_and_in_the_access_log() {
    let (upstream, hangs) = (Upstream::start(), Upstream::always(Answer::hang()));
    let collector = Upstream::always(Answer::ok().body(""));
    let flaky = Upstream::script([
        Answer::from(503),
        Answer::ok(),
        Answer::from(503),
        Answer::reset(),
        Answer::from(503),
        Answer::truncated("half", 100),
    ]);
    let (authority, port) = (Authority::new(), Port::reserve());
    let leaf = authority.sign("one.test");
    let listeners = format!(
        "listeners:\n  public: {{address: \"127.0.0.1:${{PORT}}\"}}\n  secure: {{address: '{}', \
         tls: {{certificates: [{{certificate: one.pem, key: one.key}}]}}}}\n",
        port.address()
    );
    let mut gateway = Plan::new(&(listeners + MIX))
        .upstream(&upstream)
        .env("HANGS", &hangs.url())
        .env("GONE", &format!("http://{}", refused_address()))
        .env("FLAKY", &flaky.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "600000")
        .beside("one.pem", &leaf.pem())
        .beside("one.key", &leaf.key_pem())
        .start();
    let mut sent = 0;
    let mut call = |call: Call, expected: u16| {
        sent += 1;
        let label = String::from_utf8_lossy(&call.bytes()).into_owned();
        assert_eq!(gateway.call(call).status, expected, "{label}");
    };
    let get = |path: &str| Call::new(&format!("GET {path}"));
    (0..7).for_each(|_| call(get("/good"), 200));
    call(get("/page"), 200);
    (0..9).for_each(|_| call(get("/nowhere"), 404));
    call(get("/limited"), 200);
    (0..8).for_each(|_| call(get("/limited"), 429));
    call(get("/gone"), 502);
    call(get("/flaky"), 200);
    call(get("/flaky"), 503);
    call(Call::new("TRACE /good"), 405);
    call(get("/good%00"), 400);
    let preflight = Call::new("OPTIONS /cors").header("Origin", "https://a.test");
    call(preflight.header("Access-Control-Request-Method", "PUT"), 204);
    call(Call::new("OPTIONS *"), 204);
    // The upstream's body breaks off.
    let mut client = gateway.connect();
    client.send(get("/broken").bytes());
    sent += 1;
    let _ = client.try_receive("GET");
    // The client leaves.
    for n in 1..=3 {
        let mut client = gateway.connect();
        client.send(get("/hangs").bytes());
        sent += 1;
        hangs.wait_for(n);
        client.vanish();
    }
    hangs.wait_cancelled(3);
    // No handshake.
    for _ in 0..4 {
        let mut client = Client::connect(port.address());
        client.send("this is no hello\r\n\r\n");
        // An alert comes first.
        assert!(client.try_read(&mut [0; 64]).is_err(), "it is closed");
    }
    // Cut off by the drain.
    let mut cut = gateway.connect();
    cut.send(get("/hangs").bytes());
    sent += 1;
    hangs.wait_for(4);
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));

    let numbers = last_export(&collector);
    let sum = |name: &str, label: &str| -> f64 {
        let named = numbers.iter().filter(|((own, labels), _)| {
            *own == format!("portcullis_{name}") && labels.contains(label)
        });
        named.map(|(_, value)| value).sum()
    };
    let sent = f64::from(sent);
    let handshakes = sum("tls_handshakes_failed_total", "");
    assert_eq!(handshakes, 4.0);
    assert_eq!(sum("requests_total", ""), sent, "{numbers:#?}");
    assert_eq!(sum("responses_total", ""), sent);
    assert_eq!(sum("route_requests_in_flight", ""), 0.0);
    assert_eq!(sum("requests_in_flight", ""), 0.0);

    let access = gateway.access();
    let lines = parsed(&access);
    let is_event = |line: &&serde_json::Value| !line["event.name"].is_null();
    let kept = lines.iter().filter(|line| !is_event(line)).count() as f64;
    let counted = lines.iter().filter(is_event).map(|line| {
        assert_eq!(line["event.name"], "portcullis.lines_left_out", "{line}");
        line["portcullis.lines"].as_u64().expect("a number") as f64
    });
    let left_out: f64 = counted.sum();
    assert_eq!(kept + left_out, sent + handshakes, "{access}");
    assert!(left_out > 0.0, "there were more refusals than the log keeps");
    assert_eq!(sum("access_log_lines_total", "left_out"), left_out);
    assert_eq!(sum("access_log_lines_total", "dropped"), 0.0);
    let cause = |cause: &str| {
        lines.iter().filter(|line| !is_event(line) && line["portcullis.cause"] == cause).count()
    };
    assert_eq!((cause("shutdown"), cause("connect_refused")), (1, 1), "{access}");
    let gone = lines.iter().filter(|line| line["portcullis.cause"] == "client_gone");
    let gone: f64 = gone.map(|line| line["portcullis.lines"].as_u64().unwrap_or(1) as f64).sum();
    assert_eq!(gone, 3.0, "{access}");
}
