//! What a route that is not used costs, and what reloads leave behind.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::support::{Gateway, Plan, Upstream, eventually, pass};

const MANY: usize = 2000;

/// Routes with nothing on them, whose names and paths begin with `prefix`.
fn routes(prefix: &str, count: usize) -> String {
    let mut yaml = "routes:\n".to_owned();
    for n in 0..count {
        let route = format!("{{match: {{path: /{prefix}-{n}/*}}, upstream: service}}");
        writeln!(yaml, "  {prefix}-{n}: {route}").expect("a string takes everything");
    }
    yaml
}

/// With an allocator that gives back at once what is free. How much of it is there otherwise is another
/// matter, and differs.
fn frugal(plan: Plan) -> Plan {
    plan.env("MIMALLOC_PURGE_DELAY", "0")
}

/// Its own memory, without the pages of the executable; the allocator gives back what is free when it
/// has something else to do.
fn memory(gateway: &Gateway) -> u64 {
    gateway.status();
    gateway.memory("RssAnon")
}

/// The least it has within two seconds.
fn settled(gateway: &Gateway) -> u64 {
    let started = Instant::now();
    let mut least = memory(gateway);
    while started.elapsed() < Duration::from_secs(2) {
        least = least.min(memory(gateway));
        pass(Duration::from_millis(50));
    }
    least
}

fn scrape(gateway: &Gateway) -> String {
    gateway.admin("GET /metrics").text()
}

#[test]
fn an_unused_route_takes_little_memory() {
    let start = |count| frugal(Plan::new(&routes("r", count))).start();
    let (few, many) = (start(10), start(MANY));
    let few = settled(&few);
    // A third more than is promised, for what the allocator keeps; it was 29 KiB.
    let most = few + MANY as u64 * 8 * 1024;
    eventually(&format!("{MANY} routes in {most} bytes"), || (memory(&many) <= most).then_some(()));
}

#[test]
fn a_scrape_shows_routes_from_their_first_request_on() {
    let upstream = Upstream::start();
    let many = Plan::new(&routes("r", MANY)).upstream(&upstream).start();
    assert_eq!(scrape(&many).matches("r-").count(), 0, "{}", scrape(&many));
    assert_eq!(many.status()["routes"]["r-8"]["requests"], 0);

    assert_eq!(many.get("/r-7/x").status, 200);
    eventually("the request in the metrics", || {
        (many.metric("portcullis_requests_total", &[("route", "r-7")]) == 1.0).then_some(())
    });
    let text = scrape(&many);
    for line in [
        "portcullis_requests_total{class=\"2xx\",protocol=\"http\",route=\"r-7\"} 1",
        // What has not been answered yet is there to rise from zero.
        "portcullis_requests_total{class=\"5xx\",protocol=\"http\",route=\"r-7\"} 0",
        "portcullis_request_duration_seconds_count{route=\"r-7\"} 1",
        "portcullis_retries_total{route=\"r-7\"} 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
    assert!(!text.contains("r-8") && !text.contains("protocol=\"grpc\""), "{text}");
    assert_eq!(many.status()["routes"]["r-7"]["requests"], 1);
}

#[test]
fn a_route_goes_on_counting_through_reloads_and_is_forgotten_when_it_goes() {
    let upstream = Upstream::start();
    let gateway = Plan::new(&routes("kept", 1)).upstream(&upstream).start();
    let counted = |route: &str, n: f64| {
        eventually(&format!("{n} requests of {route}"), || {
            (gateway.metric("portcullis_requests_total", &[("route", route)]) == n).then_some(())
        });
    };
    gateway.get("/kept-0/");
    counted("kept-0", 1.0);
    assert!(gateway.reload(
        &(routes("kept", 1) + "  gone-0: {match: {path: /gone-0/*}, upstream: service}\n")
    ));
    gateway.get("/kept-0/");
    gateway.get("/gone-0/");
    counted("kept-0", 2.0);
    counted("gone-0", 1.0);
    // A file that is refused takes nothing away and adds nothing.
    assert!(!gateway.reload(&(routes("refused", 1) + "nonsense: 1\n")));
    counted("gone-0", 1.0);

    assert!(gateway.reload(&routes("kept", 1)));
    eventually("an end of the route that is gone", || {
        (!scrape(&gateway).contains("gone-0")).then_some(())
    });
    counted("kept-0", 2.0);
}

#[test]
fn reloads_that_change_one_route_leave_memory_as_it_is() {
    let upstream = Upstream::start();
    let yaml = |turn: usize| {
        routes("r", MANY)
            + &format!(
                "  other: {{match: {{path: /other/*}}, upstream: service, max_body: {turn}KiB}}\n"
            )
    };
    let gateway = frugal(Plan::new(&yaml(1))).upstream(&upstream).start();
    let reload = |turn: usize| assert!(gateway.reload(&yaml(turn)), "{}", gateway.log());
    (2..=3).for_each(reload);
    let before = settled(&gateway);
    (4..=40).for_each(reload);
    // A gateway that makes all routes and the router again gains more than a fifth.
    let most = before + before / 7;
    eventually(&format!("at most {most} bytes"), || (memory(&gateway) <= most).then_some(()));
    assert_eq!(gateway.get("/other/").status, 200);
    assert_eq!(gateway.get("/r-7/").status, 200);
}

#[test]
fn generations_do_not_stay_after_reloads() {
    let upstream = Upstream::start();
    let gateway = Plan::new(&routes("first", MANY)).upstream(&upstream).start();
    // Every route anew each time, some of them used.
    let mut reload = |turn: usize| {
        assert!(gateway.reload(&routes(&format!("turn-{turn}"), MANY)), "{}", gateway.log());
        for n in 0..20 {
            assert_eq!(gateway.get(&format!("/turn-{turn}-{n}/")).status, 200);
        }
    };
    (1..=3).for_each(&mut reload);
    let after_three = settled(&gateway);
    (4..=20).for_each(&mut reload);
    // What was free in between is not all given back (bench/README.md has the growth of a hundred), but
    // generations that stayed would be three times as much.
    let most = after_three * 2;
    eventually(&format!("at most {most} bytes"), || (memory(&gateway) <= most).then_some(()));
}
