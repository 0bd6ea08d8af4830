//! The process's own log: its form, and its level while it runs.

use crate::support::{Call, Plan, Upstream, eventually, parsed};

const JSON: &str = "log: {format: json}";

#[test]
fn each_line_is_an_object_where_that_is_wanted() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").section(JSON).upstream(&upstream).start();
    let log = eventually("a line after the file was read", || {
        gateway.log().contains("\"ready\"").then(|| gateway.log())
    });
    let first = log.lines().position(|line| line.starts_with('{')).expect("an object");
    let objects: String = log.lines().skip(first).map(|line| format!("{line}\n")).collect();
    let ready = parsed(&objects).into_iter().find(|line| line["message"] == "ready");
    let ready = ready.expect("the line that says ready");
    assert_eq!(
        (&ready["level"], &ready["target"]),
        (&"INFO".into(), &"portcullis::runtime::server".into())
    );
    assert!(ready["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{ready}");
}

#[test]
fn the_level_changes_while_it_runs_and_a_reload_takes_that_back() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    let reloads = || gateway.log().matches("reloaded, generation").count();
    let response = gateway.admin(Call::new("POST /log?level=warn"));
    assert_eq!((response.status, response.text().as_str()), (200, "{\"level\":\"warn\"}"));
    gateway.wait_for_log("the level is warn now, as ordered; it was info");
    // The line about this reload comes after the level is what the file says.
    assert!(gateway.reload_route("max_body: 1MiB"));
    eventually("the line about the reload", || (reloads() == 1).then_some(()));
    gateway.admin(Call::new("POST /log?level=error"));
    assert!(!gateway.reload("nonsense"), "an invalid file");
    gateway.wait_for_log("not reloaded");
    assert!(!gateway.log().contains("DEBUG"));
    gateway.admin(Call::new("POST /log?level=info,portcullis=debug"));
    gateway.wait_for_log("info,portcullis=debug");
}

#[test]
fn a_level_that_does_not_exist_is_refused_with_those_that_do() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    for path in ["/log?level=loud", "/log", "/log?level="] {
        let response = gateway.admin(Call::new(&format!("POST {path}")));
        assert_eq!((response.status, response.code().as_str()), (400, "invalid_level"), "{path}");
        assert!(response.text().contains("error, warn, info, debug, trace or off"), "{path}");
    }
    assert_eq!(gateway.admin("GET /log?level=debug").status, 405, "GET changes nothing");
}

#[test]
fn the_variable_counts_instead_of_the_file() {
    let upstream = Upstream::start();
    let plan = Plan::route("").section("log: {level: off}").env("RUST_LOG", "info");
    let gateway = plan.upstream(&upstream).start();
    gateway.wait_for_log("ready");
}
