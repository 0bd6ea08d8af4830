//! `defaults`: what routes do not say, in the running gateway and in what the commands tell.

use serde_json::{Value, json};

use crate::support::{Answer, Call, Finished, Gateway, Plan, Upstream};

const FILE: &str = "\
defaults:
  timeout: {connect: 2s, request: 30s}
  auth: {require: partners}
  rate_limit: {fixed_window: {requests: 2, per: 1h}, key: route}
  headers: {response: {set: {X-Gate: portcullis}, remove: [Server]}}
  max_body: 1KiB
routes:
  silent: {match: {path: /silent}, upstream: service}
  part:
    match: {path: /part}
    upstream: service
    timeout: {request: 5s}
    rate_limit: {fixed_window: {requests: 1, per: 1h}, key: route}
    headers: {response: {set: {X-Part: yes}}}
  open: {match: {path: /open}, upstream: service, auth: off, rate_limit: off, max_body: 0}
auth:
  partners: {api_key: {keys: {acme: acme-key-0123456789}}}
";

fn call(path: &str) -> Call {
    Call::new(&format!("GET {path}")).header("X-Api-Key", "acme-key-0123456789")
}

#[test]
fn a_route_has_what_it_does_not_say_from_the_defaults() {
    let upstream = Upstream::always(Answer::ok().header("Server", "theirs"));
    let gateway = Plan::new(FILE).upstream(&upstream).start();
    assert_eq!(gateway.get("/silent").status, 401);
    let statuses = [(); 3].map(|()| gateway.call(call("/silent")).status);
    assert_eq!(statuses, [200, 200, 429], "each route counts by itself");
    let response = gateway.call(call("/part"));
    assert_eq!((response.status, response.header("server")), (200, None));
    assert_eq!(response.header("x-gate"), Some("portcullis"));
    assert_eq!(response.header("x-part"), Some("yes"));
    assert_eq!(gateway.call(call("/part")).status, 429, "its own limit replaces the default");
    assert_eq!(gateway.get("/part").status, 401);
}

#[test]
fn off_switches_a_default_off() {
    let upstream = Upstream::start();
    let gateway = Plan::new(FILE).upstream(&upstream).start();
    let statuses = [(); 4].map(|()| gateway.get("/open").status);
    assert_eq!(statuses, [200; 4]);
    assert_eq!(gateway.post("/open", &"x".repeat(2048)).status, 200);
}

#[test]
fn a_route_that_the_gateway_serves_has_the_defaults_about_callers_alone() {
    let upstream = Upstream::start();
    let defaults = "\
defaults:
  retry: {max_retries: 2}
  idempotency: {required: true}
  fallback: {json: {code: unavailable}}
  auth: {require: partners}
auth: {partners: {api_key: {keys: {acme: acme-key-0123456789}}}}
routes:
  live: {match: {path: /live}, serve: live}
  open: {match: {path: /open}, serve: live, auth: off}
";
    let gateway = Plan::new(defaults).upstream(&upstream).start();
    assert_eq!((gateway.get("/live").status, gateway.get("/open").status), (401, 200));
    assert_eq!(gateway.call(call("/live")).status, 200);
}

#[test]
fn a_reload_takes_new_defaults_into_every_route() {
    let upstream = Upstream::start();
    let routes = "routes: {a: {match: {path: /a}, upstream: service}, b: {match: {path: /b}, upstream: service, headers: {response: {set: {X-B: b}}}}}";
    let gateway = Plan::new(routes).upstream(&upstream).start();
    assert_eq!(gateway.get("/a").header("x-gate"), None);
    let defaults = "defaults: {headers: {response: {set: {X-Gate: new}}}}\n";
    assert!(gateway.reload(&format!("{defaults}{routes}")));
    for path in ["/a", "/b"] {
        assert_eq!(gateway.get(path).header("x-gate"), Some("new"), "{path}");
    }
    assert!(!gateway.reload(&format!("{}{routes}", defaults.replace("set:", "sets:"))));
    gateway.wait_for_log("defaults.headers.response: unknown key `sets`");
    assert!(gateway.reload(routes));
    assert_eq!(gateway.get("/b").header("x-gate"), None);
}

fn run(text: &str, arguments: &[&str]) -> Finished {
    let directory = tempfile::tempdir().expect("a directory");
    let base = "listeners: {public: {address: '127.0.0.1:8080'}}\n\
                upstreams: {service: {endpoints: ['http://127.0.0.1:3000']}}\n";
    std::fs::write(directory.path().join("c.yaml"), format!("{text}{base}")).expect("a file");
    Gateway::finish(arguments, directory.path(), &[])
}

#[track_caller]
fn output(text: &str, arguments: &[&str]) -> String {
    let finished = run(text, arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

#[test]
fn the_configuration_in_force_names_the_default_of_each_value() {
    let text = output(FILE, &["config", "-c", "c.yaml"]);
    let part =
        text.split_once("\n  part:\n").expect("the route").1.split_once("\n  open:").unwrap();
    for line in [
        "      connect: 2s  # defaults.timeout.connect, c.yaml:2",
        "      request: 5s  # c.yaml:12",
        "      idle: 1m  # default",
        "          X-Gate: '***'  # defaults.headers.response.set.X-Gate, c.yaml:5",
        "          - Server  # defaults.headers.response.remove[0], c.yaml:5",
        "      require: partners  # defaults.auth.require, c.yaml:3",
    ] {
        assert!(part.0.lines().any(|found| found == line), "{line}\n{}", part.0);
    }
    assert!(part.1.contains("    auth: null  # c.yaml:15"), "{}", part.1);
    assert!(!text.contains("\ndefaults:"), "each route says them: {text}");
    // Read again, it is the same without defaults: nothing comes back that was switched off.
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), text.replace("'***'", "again-0123456789"))
        .unwrap();
    let again = Gateway::finish(&["config", "-c", "c.yaml"], directory.path(), &[]).stdout;
    assert!(again.contains("auth: null") && again.contains("X-Gate: "), "{again}");
    assert!(!again.contains("defaults."), "{again}");
}

#[test]
fn the_configuration_as_json_names_defaults_too() {
    let text = output(FILE, &["config", "-c", "c.yaml", "--format", "json"]);
    let tree: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        tree["routes"]["part"]["timeout"]["connect"],
        json!({ "value": "2s", "origin": "c.yaml:2", "default": "defaults.timeout.connect" })
    );
    assert_eq!(tree["routes"]["part"]["timeout"]["request"]["default"], Value::Null);
}

#[test]
fn routes_show_what_defaults_ask_and_where_they_are_written() {
    let table = output(FILE, &["routes", "-c", "c.yaml"]);
    let line = |name: &str| table.lines().find(|line| line.contains(name)).expect(name).to_owned();
    assert!(line("/silent").contains("credentials: partners; rate_limits: 2/1h"), "{table}");
    assert!(!line("/open").contains("credentials"), "{table}");
    let lines = output(FILE, &["routes", "-c", "c.yaml", "--format", "json"]);
    let row = |name: &str| -> Value {
        let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        rows.into_iter().find(|row| row["route"] == name).expect(name)
    };
    let asked = |name: &str, step: &str| {
        let row = row(name);
        let steps = row["steps"].as_array().expect("steps");
        let step = steps.iter().find(|found| found["step"] == step).expect(step).clone();
        (step["key"].as_str().unwrap().to_owned(), step["place"].as_str().unwrap().to_owned())
    };
    let at = |key: &str, place: &str| (key.to_owned(), place.to_owned());
    assert_eq!(asked("silent", "credentials"), at("defaults.auth", "c.yaml:3"));
    assert_eq!(asked("silent", "deadline"), at("defaults.timeout.request", "c.yaml:2"));
    assert_eq!(asked("part", "deadline"), at("routes.part.timeout.request", "c.yaml:12"));
    assert_eq!(asked("part", "rate_limits"), at("routes.part.rate_limit", "c.yaml:13"));
}

#[test]
fn why_names_the_line_of_the_default_that_decided() {
    let upstream = Upstream::start();
    let text = "defaults:\n  max_body: 10B\nroutes: {a: {match: {path: /a}, upstream: service}}\n";
    let gateway = Plan::new(text).upstream(&upstream).start();
    let call = Call::new("POST /a").header("X-Request-Id", "large-1").body("12345678901");
    assert_eq!(gateway.call(call).status, 413);
    gateway.wait_for_access_lines(1);
    std::fs::write(gateway.directory().join("a.log"), gateway.access()).expect("written");
    let arguments = ["why", "large-1", "-c", "portcullis.yaml", "--log", "a.log"];
    let variables = [("PORT", "1"), ("ADMIN_ADDRESS", "127.0.0.1:2"), ("PORTCULLIS_DATA", "d")];
    let told = Gateway::finish(&arguments, gateway.directory(), &variables).stdout;
    assert!(told.contains("portcullis.yaml:2: defaults.max_body"), "{told}");
}

/// All that `check` says, one line each.
fn check(text: &str) -> Vec<String> {
    let finished = run(text, &["check", "-c", "c.yaml"]);
    let lines = finished.stderr.lines().filter(|line| !matches!(*line, "1 error" | "1 warning"));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_is_wrong_with_the_defaults_alone_is_told_once() {
    let many: String = (0..300)
        .map(|n| format!("  r{n}: {{match: {{path: /{n}}}, upstream: service}}\n"))
        .collect();
    for (defaults, told) in [
        (
            "auth: {require: partner}",
            "c.yaml:1:28: defaults.auth.require: nothing in `auth` is named `partner`",
        ),
        (
            "timeout: {attempt: 9s, request: 5s}",
            "c.yaml:1:31: defaults.timeout.attempt: an attempt may take 9s",
        ),
        ("idempotency: {ttl: 1s}", "c.yaml:1:31: defaults.idempotency.ttl: a key must outlast"),
        (
            "retry: {max_retries: 9}, timeout: {attempt: 9s}",
            "c.yaml:1:33: warning: defaults.retry.max_retries: 10 attempts",
        ),
    ] {
        let text = format!(
            "defaults: {{{defaults}}}\nroutes:\n{many}record: {{store: {{sqlite: {{path: r.db}}}}}}\n"
        );
        let said = check(&text);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].starts_with(told), "{said:#?}");
    }
}

#[test]
fn what_a_default_lacks_is_no_mistake_where_each_route_says_it() {
    let text = "\
defaults: {rate_limit: {fixed_window: {requests: 1, per: 1s}, key: {claim: org}}}
routes: {a: {match: {path: /a}, upstream: service, auth: {require: tokens}}}
auth: {tokens: {jwt: {issuer: i, audience: any, algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}}
";
    assert_eq!(check(text), Vec::<String>::new());
    let said = check(&text.replace("auth: {require: tokens}", "auth: off"));
    let told =
        "defaults.rate_limit.key: a limit counts by a claim, but the route requires no tokens";
    assert!(said.iter().any(|line| line.contains(told)), "{said:#?}");
}

#[test]
fn dry_runs_of_the_defaults_are_noted_once() {
    let text = "\
defaults: {max_body: {size: 1KiB, enforce: false}}
routes:
  a: {match: {path: /a}, upstream: service}
  b: {match: {path: /b}, upstream: service}
  c: {match: {path: /c}, upstream: service, max_body: {size: 2KiB, enforce: false}}
";
    let notes = ["defaults.max_body", "routes.c.max_body"];
    assert_eq!(check(text), notes.map(|path| format!("note: {path} is not enforced")));
}
