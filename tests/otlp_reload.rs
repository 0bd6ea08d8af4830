//! A reload changes where traces and metrics go, at once, and nothing is lost or begins anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{
    Answer, Authority, Call, Gateway, Plan, Upstream, counted, eventually, pass, pushed,
    traced_paths,
};

const ROUTES: &str = "routes: {all: {match: {path: /*}, upstream: service}}";

/// Takes what is posted and keeps it.
fn collector() -> Upstream {
    Upstream::always(Answer::ok().header("Content-Type", "application/x-protobuf").body(""))
}

/// A gateway that can be told of collectors `A` and `B`.
fn plan(sections: &str, upstream: &Upstream, a: &Upstream, b: &Upstream) -> Plan {
    Plan::new(&format!("{sections}\n{ROUTES}"))
        .upstream(upstream)
        .env("A", &a.url())
        .env("B", &b.url())
}

#[track_caller]
fn reload(gateway: &Gateway, sections: &str) {
    let taken = gateway.reload(&format!("{sections}\n{ROUTES}"));
    assert!(taken, "the reload is taken:\n{}", gateway.log());
}

/// Traces to one of the collectors, named.
fn traces(to: &str) -> String {
    format!("traces: {{otlp: {{endpoint: '${{{to}}}'}}, service_name: shop}}")
}

/// Metrics to one of the collectors, named, five times a second.
fn metrics(to: &str) -> String {
    format!("metrics: {{otlp: {{endpoint: '${{{to}}}'}}, interval: 200ms}}")
}

fn paths(collector: &Upstream) -> Vec<String> {
    traced_paths(collector, "shop")
}

#[track_caller]
fn wait_for_path(collector: &Upstream, path: &str) {
    eventually(&format!("the span of {path}"), || {
        paths(collector).iter().any(|traced| traced == path).then_some(())
    });
}

fn spans_that(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("portcullis_trace_spans_total", &[("result", result)])
}

#[test]
fn traces_move_under_load_and_each_span_is_at_exactly_one_collector() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let gateway = plan(&traces("A"), &upstream, &a, &b).start();
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let client = |number: usize| {
            let (gateway, done) = (&gateway, &done);
            move || {
                let (mut client, mut sent) = (gateway.connect(), Vec::new());
                // Relaxed: nothing else is published by the flag.
                while !done.load(Ordering::Relaxed) {
                    let path = format!("/{number}-{}", sent.len());
                    let response = client.call(&format!("GET {path}").as_str().into());
                    assert_eq!(response.status, 200);
                    sent.push(path);
                    pass(Duration::from_millis(2));
                }
                sent
            }
        };
        let clients: Vec<_> = (0..3).map(|number| scope.spawn(client(number))).collect();
        for to in ["B", "A", "B"] {
            let reached = if to == "B" { &b } else { &a };
            let before = paths(reached).len();
            let taken = gateway.reload(&format!("{}\n{ROUTES}", traces(to)));
            done.store(!taken, Ordering::Relaxed);
            assert!(taken, "{}", gateway.log());
            eventually("spans at the other one", || {
                (paths(reached).len() > before + 50).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect::<Vec<_>>()
    });
    let all = eventually("all spans", || {
        let all = [paths(&a), paths(&b)].concat();
        (all.len() >= sent.len()).then_some(all)
    });
    assert_eq!(all.len(), sent.len(), "none is at both");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), sent.iter().cloned().collect());
    // Of each request there is the span of its attempt too.
    let expected = 2.0 * sent.len() as f64;
    eventually("all to be counted", || {
        (spans_that(&gateway, "exported") == expected).then_some(())
    });
    assert_eq!((spans_that(&gateway, "dropped"), spans_that(&gateway, "failed")), (0.0, 0.0));
    assert!(gateway.log().contains(&format!("reload: traces to {}", b.url())), "{}", gateway.log());
}

#[test]
fn a_request_that_began_before_goes_where_traces_went_then() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let (a, b) = (collector(), collector());
    let gateway = plan(&traces("A"), &upstream, &a, &b).start();
    let mut client = gateway.connect();
    client.send(Call::new("GET /before").bytes());
    upstream.wait_for(1);
    reload(&gateway, &traces("B"));
    assert_eq!(gateway.get("/after").status, 200);
    wait_for_path(&b, "/after");
    upstream.release();
    assert_eq!(client.receive().status, 200);
    wait_for_path(&a, "/before");
    assert_eq!((paths(&a).len(), paths(&b).len()), (1, 1));
}

#[test]
fn traces_are_switched_on_and_off_by_a_reload_and_sampled_as_it_says() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let gateway = plan("", &upstream, &a, &b).start();
    let flags = |path: &str| {
        assert_eq!(gateway.get(path).status, 200);
        let requests = upstream.requests();
        let sent = requests.last().expect("a request").header("traceparent").map(str::to_owned);
        sent.expect("a traceparent").rsplit('-').next().expect("flags").to_owned()
    };
    assert_eq!(flags("/off"), "00");
    reload(&gateway, &traces("A"));
    assert_eq!(flags("/on"), "01");
    wait_for_path(&a, "/on");
    reload(&gateway, "");
    assert_eq!(flags("/off-again"), "00");
    reload(&gateway, &traces("A"));
    assert_eq!(flags("/on-again"), "01");
    wait_for_path(&a, "/on-again");
    reload(&gateway, &traces("A").replace("service_name", "sample: 0%, service_name"));
    assert_eq!(flags("/not-sampled"), "00");
    // Only the share has changed: the exporter is the same, as the log shows by saying nothing.
    let said = gateway.log().matches("reload: traces to").count();
    assert_eq!((paths(&a), said), (vec!["/on".to_owned(), "/on-again".to_owned()], 2));
    assert!(gateway.log().contains("reload: traces no longer to"));
}

#[test]
fn other_headers_count_at_once_and_what_is_unchanged_keeps_its_connection() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let with = |token: &str, more: &str| {
        let otlp = format!("{{endpoint: '${{A}}', headers: {{authorization: '{token}'}}}}");
        format!("traces: {{otlp: {otlp}, service_name: shop}}{more}")
    };
    let gateway = plan(&with("one", ""), &upstream, &a, &b).start();
    let export = |path: &str| {
        assert_eq!(gateway.get(path).status, 200);
        wait_for_path(&a, path);
        let requests = a.requests();
        let last = requests.last().expect("an export");
        (last.header("authorization").map(str::to_owned), last.connection)
    };
    let first = export("/1");
    assert_eq!(first.0.as_deref(), Some("one"));
    // Another section changes.
    reload(&gateway, &with("one", "\nrate_limit_headers: {ietf: true}"));
    assert_eq!(export("/2"), first);
    reload(&gateway, &with("two", ""));
    assert_eq!(export("/3").0.as_deref(), Some("two"));
    assert!(!gateway.log().contains("two"), "a header is not told to the log");
}

#[test]
fn authorities_are_read_again_by_a_reload_and_what_is_unusable_refuses_it() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let leaf = theirs.sign("localhost");
    let (upstream, behind, unused) = (Upstream::start(), collector(), collector());
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: \
                    [{certificate: one.pem, key: one.key}]}}}";
    let front = Plan::route("").section(listener).upstream(&behind);
    let front = front.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start();
    let section = |ca: &str| {
        let endpoint = format!("https://localhost:{}", front.address.port());
        format!("traces: {{otlp: {{endpoint: '{endpoint}', ca: {ca}}}, service_name: shop}}")
    };
    let gateway = plan(&section("ca.pem"), &upstream, &unused, &unused)
        .beside("ca.pem", &ours.pem())
        .beside("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .start();
    assert_eq!(gateway.get("/untrusted").status, 200);
    eventually("spans that fail", || (spans_that(&gateway, "failed") >= 2.0).then_some(()));
    std::fs::write(gateway.directory().join("ca.pem"), theirs.pem()).expect("written");
    reload(&gateway, &section("ca.pem"));
    assert_eq!(gateway.get("/trusted").status, 200);
    wait_for_path(&behind, "/trusted");
    for unusable in ["gone.pem", "broken.pem"] {
        let before = gateway.log().len();
        assert!(!gateway.reload(&format!("{}\n{ROUTES}", section(unusable))));
        let said = eventually("the reason of a refused reload", || {
            let said = gateway.log()[before..].to_owned();
            said.contains("not reloaded").then_some(said)
        });
        let place = "traces.otlp.ca: ";
        assert!(said.contains(place) && said.contains(unusable), "{said}");
        assert_eq!(gateway.get(&format!("/after-{unusable}")).status, 200);
        wait_for_path(&behind, &format!("/after-{unusable}"));
    }
}

#[test]
fn authorities_of_a_collector_are_watched() {
    let ours = Authority::new();
    let upstream = Upstream::start();
    let section = "server: {watch: true, threads: 1, drain_timeout: 5s}\n\
                   otlp: {endpoint: 'https://127.0.0.1:9', ca: ca.pem}";
    let plan = Plan::new(&format!("{section}\n{ROUTES}")).upstream(&upstream);
    let gateway = plan.beside("ca.pem", &ours.pem()).start();
    std::fs::write(gateway.directory().join("ca.pem"), Authority::new().pem()).expect("written");
    eventually("a reload", || (gateway.generation() == 2).then_some(()));
    gateway.wait_for_log("reload: metrics to https://127.0.0.1:9");
}

#[test]
fn metrics_go_to_another_collector_and_go_on_counting() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let gateway = plan(&metrics("A"), &upstream, &a, &b).start();
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let requests = |collector: &Upstream| {
        let (instance, metrics) = pushed(collector).pop()?;
        Some((instance, counted(&metrics, "portcullis_requests_total")?))
    };
    let wait_for = |collector: &Upstream, count: f64| {
        eventually(&format!("{count} requests"), || {
            requests(collector).filter(|(_, (value, _))| *value == count)
        })
    };
    let (instance, (_, since)) = wait_for(&a, 3.0);
    reload(&gateway, &metrics("B"));
    let (same, (_, same_since)) = wait_for(&b, 3.0);
    assert_eq!((&same, same_since), (&instance, since), "the same process goes on counting");
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let (_, (_, same_since)) = wait_for(&b, 5.0);
    assert_eq!(same_since, since);
    let (told, since_then) = (pushed(&a).len(), pushed(&b).len());
    eventually("three more exports", || (pushed(&b).len() >= since_then + 3).then_some(()));
    assert_eq!(pushed(&a).len(), told, "the earlier collector gets nothing more");
    // Off and on again, under another name.
    reload(&gateway, "");
    assert_eq!(gateway.get("/").status, 200);
    reload(&gateway, &metrics("A").replace("metrics:", "traces: {service_name: shop}\nmetrics:"));
    let (same, (_, same_since)) = wait_for(&a, 6.0);
    assert_eq!((same, same_since), (instance, since));
}

#[test]
fn the_collector_of_before_gets_the_last_values_and_the_new_interval_counts_at_once() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let every = |interval: &str, to: &str| metrics(to).replace("200ms", interval);
    let gateway = plan(&every("1h", "A"), &upstream, &a, &b).start();
    assert_eq!(gateway.get("/").status, 200);
    eventually("the request to be counted", || {
        (gateway.metric("portcullis_requests_total", &[]) == 1.0).then_some(())
    });
    reload(&gateway, &every("50ms", "B"));
    eventually("several exports", || (pushed(&b).len() > 3).then_some(()));
    let last = eventually("the last export", || pushed(&a).pop());
    assert_eq!(counted(&last.1, "portcullis_requests_total").map(|(value, _)| value), Some(1.0));
    assert_eq!(pushed(&a).len(), 1);
    // Only the interval changes, from one that would be over in an hour.
    reload(&gateway, &every("1h", "B"));
    let before = eventually("quiet", || {
        let before = pushed(&b).len();
        pass(Duration::from_millis(300));
        (pushed(&b).len() == before).then_some(before)
    });
    reload(&gateway, &every("50ms", "B"));
    eventually("more exports", || (pushed(&b).len() > before + 3).then_some(()));
}

#[test]
fn exact_statuses_are_counted_from_the_reload_on_that_wants_them() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let exact = || gateway.metric("portcullis_responses_total", &[("status", "200")]);
    let missing = || gateway.metric("portcullis_responses_total", &[("status", "404")]);
    let all = |count: f64| {
        eventually(&format!("{count} requests"), || {
            (gateway.metric("portcullis_requests_total", &[]) == count).then_some(())
        });
    };
    assert_eq!(gateway.get("/").status, 200);
    let narrow = "routes: {all: {match: {path: /in/*}, upstream: service}}";
    // Refused after routes were compiled, so nothing changes.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("an address that is taken");
    let taken = other.local_addr().expect("its address");
    let listeners = format!(
        "listeners: {{public: {{address: '127.0.0.1:${{PORT}}'}}, more: {{address: '{taken}'}}}}"
    );
    assert!(!gateway.reload(&format!("metrics: {{status: exact}}\n{listeners}\n{narrow}")));
    assert_eq!(gateway.get("/").status, 200);
    all(2.0);
    assert_eq!(exact(), 0.0);
    assert!(gateway.reload(&format!("metrics: {{status: exact}}\n{narrow}")));
    assert_eq!((gateway.get("/in/1").status, gateway.get("/").status), (200, 404));
    all(4.0);
    assert_eq!((exact(), missing()), (1.0, 1.0));
    assert!(gateway.reload(narrow));
    assert_eq!((gateway.get("/in/2").status, gateway.get("/").status), (200, 404));
    all(6.0);
    assert_eq!((exact(), missing()), (1.0, 1.0), "what was counted stays");
}

#[test]
fn a_hundred_reloads_leave_neither_threads_nor_connections_behind() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let both = |to: &str| format!("{}\n{}", traces(to), metrics(to));
    let mut gateway = plan(&both("A"), &upstream, &a, &b).start();
    let mut sent = 0;
    let mut rounds = |gateway: &Gateway, count: usize| {
        for round in 0..count {
            let to = if round % 2 == 0 { "B" } else { "A" };
            reload(gateway, &both(to));
            assert_eq!(gateway.get(&format!("/{sent}")).status, 200);
            sent += 1;
        }
    };
    // What it takes once is there: the threads that block, connections.
    rounds(&gateway, 10);
    let (threads, files) = (gateway.threads(), gateway.descriptors());
    rounds(&gateway, 100);
    let all = || paths(&a).len() + paths(&b).len();
    eventually("all spans", || (all() == 110).then_some(()));
    // Those of the test's own calls come and go.
    eventually("no more threads and files than before", || {
        let now = (gateway.threads(), gateway.descriptors());
        println!("threads and files: {:?}, after 100 reloads {now:?}", (threads, files));
        (now.0 <= threads + 2 && now.1 <= files + 4).then_some(())
    });
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    assert_eq!(all(), 110);
}

#[test]
fn what_waits_for_either_collector_is_sent_before_the_end() {
    let (upstream, a, b) = (Upstream::start(), collector(), collector());
    let mut gateway = plan(&traces("A"), &upstream, &a, &b).start();
    assert_eq!(gateway.get("/before").status, 200);
    reload(&gateway, &traces("B"));
    assert_eq!(gateway.get("/after").status, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    assert_eq!((paths(&a), paths(&b)), (vec!["/before".to_owned()], vec!["/after".to_owned()]));
}

#[test]
fn spans_for_a_collector_of_before_that_is_gone_are_counted_as_lost() {
    let (upstream, gone, b) = (Upstream::start(), Upstream::always(503), collector());
    let one = traces("A").replace("'${A}'", "'${A}', timeout: 300ms");
    let gateway = plan(&one, &upstream, &gone, &b).start();
    assert_eq!(gateway.get("/lost").status, 200);
    reload(&gateway, &traces("B"));
    assert_eq!(gateway.get("/kept").status, 200);
    wait_for_path(&b, "/kept");
    let lost = || spans_that(&gateway, "failed") + spans_that(&gateway, "dropped");
    eventually("the spans that are lost", || (lost() == 2.0).then_some(()));
}
