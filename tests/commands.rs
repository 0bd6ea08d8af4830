//! The commands that explain a configuration: `routes`, `config`, `completions`, `man`.

use std::path::Path;

use serde_json::Value;

use crate::support::{Finished, Gateway};

fn run(text: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), text).expect("a file");
    Gateway::finish(arguments, directory.path(), environment)
}

#[track_caller]
fn output(text: &str, arguments: &[&str]) -> String {
    let finished = run(text, arguments, &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

const ROUTES: &str = "\
listeners: {public: {address: '127.0.0.1:8080'}}
flood_guard: {requests: 50}
auth:
  partners: {api_key: {keys: {acme: acme-key-0123456789}}}
retry_budgets: {shared: {token_bucket: {capacity: 20, refill_per_second: 10}}}
upstreams:
  users:
    endpoints: ['http://127.0.0.1:3000']
    circuit_breaker: {consecutive: {failures: 5}, open_for: 20s}
routes:
  a-rest: {upstream: users}
  b-tree: {match: {path: /users/*}, upstream: users}
  c-one:
    match: {path: '/users/:id', methods: [GET, PUT]}
    upstream: users
    auth: {require: partners, role: admin, anonymous: [/users/ping]}
    rate_limit: {fixed_window: {requests: 100, per: 1m}}
    idempotency: {methods: [PUT], required: true}
    circuit_breaker: {window: {calls: 20, failure_rate: 25%}}
    bulkhead: {max_in_flight: 64}
    retry: {budget: shared}
    json: {defaults: {name: World}}
    max_body: 1MiB
    timeout: {request: 5s}
  d-literal: {match: {path: /users/me}, upstream: users}
  e-below: {match: {host: '*.example.com'}, upstream: users}
  f-exact: {match: {host: [api.example.com], path: [/b, /a]}, serve: live}
record: {store: {sqlite: {path: r.db}}}
";

/// The cells of each line, without the first line.
fn cells(table: &str) -> Vec<Vec<String>> {
    let cut = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    table.lines().skip(1).map(cut).collect()
}

#[test]
fn routes_are_listed_in_the_order_of_matching() {
    let table = output(ROUTES, &["routes", "-c", "c.yaml"]);
    let order: Vec<_> = cells(&table).into_iter().map(|line| line[3].clone()).collect();
    assert_eq!(
        order,
        ["f-exact", "f-exact", "e-below", "d-literal", "c-one", "b-tree", "a-rest"],
        "{table}"
    );
    assert!(table.lines().nth(1).is_some_and(|line| line.contains("/a")), "{table}");
    assert!(table.contains("(live)") && table.starts_with("HOST "), "{table}");
}

#[test]
fn a_row_says_what_its_route_asks_and_leaves_out_what_it_does_not() {
    let table = output(ROUTES, &["routes", "-c", "c.yaml"]);
    let line = |route: &str| {
        let mut lines = cells(&table).into_iter();
        lines.find(|line| line[3] == route).and_then(|line| line.last().cloned()).expect(route)
    };
    assert_eq!(
        line("c-one"),
        "flood_guard: 50/1s by address; body_size: at most 1MiB; credentials: partners, role admin, not for /users/ping; \
         rate_limits: 100/1m by consumer; idempotency_key: required, PUT, kept for 1day; \
         route_circuit: 25% failures of 20 calls, open for 30s; \
         upstream_circuit: 5 failures in a row, open for 20s; bulkhead: 64; deadline: within 5s; \
         retry_budget: shared (20 tokens, 10/s); body: defaults for name"
    );
    assert_eq!(
        line("b-tree"),
        "flood_guard: 50/1s by address; upstream_circuit: 5 failures in a row, open for 20s"
    );
}

/// Each policy in each of its forms.
const FORMS: &str = "\
listeners: {public: {address: '127.0.0.1:8080'}}
rate_limit_stores: {replicas: {redis: {}}}
retry_budgets:
  of-requests: {ratio: {share: 10%}}
  of-active: {concurrency: {min: 4}}
upstreams:
  users:
    endpoints: ['http://a.example:3000', 'http://b.example:3000']
    circuit_breaker: {window: {time: 60s, slow_calls: {longer_than: 2s, rate: 80%}}}
routes:
  a:
    match: {path: /a}
    upstream: users
    rate_limit:
      - {sliding_window: {requests: 10, per: 1s}, key: [client_address, {header: X-Tenant}], cost: 2}
      - {token_bucket: {rate: 50, burst: 100}, key: consumer, shared: {store: replicas}}
    bulkhead: {adaptive: {max: 200}, queue: {max: 50, max_wait: 2s}}
    retry: {budget: of-requests}
    max_body: 0
  b: {match: {path: /b}, upstream: users, retry: {budget: of-active}, timeout: {request: 0}}
";

#[test]
fn every_form_of_a_policy_says_its_values() {
    let lines = output(FORMS, &["routes", "-c", "c.yaml", "--format", "json"]);
    let rows: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let values = |row: usize, step: &str| {
        let steps = rows[row]["steps"].as_array().expect("steps");
        let step = steps.iter().find(|found| found["step"] == step)?;
        Some(step["values"].as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>())
    };
    assert_eq!(
        values(0, "rate_limits").expect("limits"),
        [
            "10/1s sliding by client_address+header=x-tenant cost 2",
            "50/1s burst 100 by consumer in replicas",
        ]
    );
    assert_eq!(
        values(0, "upstream_circuit").expect("a circuit"),
        ["50% failures or 80% slower than 2s of 60s", "open for 30s"]
    );
    assert_eq!(
        values(0, "bulkhead").expect("a bulkhead"),
        ["10 to 200 by latency", "queue of 50, up to 2s"]
    );
    assert_eq!(values(0, "endpoint").expect("endpoints"), ["a.example:3000", "b.example:3000"]);
    let budget = |row| values(row, "retry_budget").expect("a budget").concat();
    assert_eq!(budget(0), "of-requests (10% of requests, at least 3/s)");
    assert_eq!(budget(1), "of-active (20% of requests in flight, at least 4)");
    // No limit, no question.
    assert_eq!((values(0, "body_size"), values(1, "deadline")), (None, None));
    assert!(values(1, "body_size").is_some() && values(0, "deadline").is_some());
}

#[test]
fn routes_as_json_have_every_step_in_its_order_with_the_key_that_decides() {
    let lines = output(ROUTES, &["routes", "-c", "c.yaml", "--format", "json"]);
    let rows: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let row = rows.iter().find(|row| row["route"] == "c-one").expect("the row");
    assert_eq!(row["methods"], serde_json::json!(["GET", "PUT"]));
    assert_eq!((&row["host"], &row["upstream"]), (&Value::Null, &"users".into()));
    let steps: Vec<_> = row["steps"].as_array().expect("steps").iter().collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(
        names,
        [
            "flood_guard",
            "form",
            "body_size",
            "credentials",
            "rate_limits",
            "idempotency_key",
            "route_circuit",
            "upstream_circuit",
            "bulkhead",
            "endpoint",
            "deadline",
            "retry_budget",
            "body",
        ]
    );
    let bulkhead = steps.iter().find(|step| step["step"] == "bulkhead").expect("the step");
    assert_eq!(bulkhead["key"], "routes.c-one.bulkhead");
    assert_eq!(bulkhead["values"], serde_json::json!(["64"]));
    // A route that asks nothing of the kind has no such step.
    let plain = rows.iter().find(|row| row["route"] == "f-exact").expect("the row");
    assert!(!plain.to_string().contains("bulkhead") && !plain.to_string().contains("endpoint"));
    assert_eq!(plain["serve"], "live");
}

#[test]
fn a_wrong_file_has_its_errors_and_no_routes() {
    let finished = run("routes: {a: {upstream: nowhere}}", &["routes", "-c", "c.yaml"], &[]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stdout.is_empty() && finished.stderr.contains("c.yaml:1:"), "{finished:?}");
}

/// What files of `conf` require.
const NEEDED: [(&str, &str); 2] =
    [("API_KEY", "key-0123456789abcdef"), ("REGISTRY_TOKEN", "token-0123456789abcdef")];

#[test]
fn the_routes_of_every_file_of_conf_can_be_listed() {
    for entry in
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")).expect("conf")
    {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|ext| ext != "yaml") {
            continue;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = path.to_str().expect("a path");
        let finished = Gateway::finish(&["routes", "-c", path], directory.path(), &NEEDED);
        assert_eq!(finished.code, Some(0), "{path}: {}", finished.stderr);
        assert!(finished.stdout.lines().count() > 1, "{path}");
    }
}

const CONFIG: &str = "\
listeners: {public: {address: '127.0.0.1:${PORT:-8080}', http2: {max_streams: '${STREAMS:-7}'}}}
x-times: &times {connect: 2s}
auth:
  partners:
    api_key:
      keys:
        acme: ${ACME}
        beta: {key: written-in-the-file-42, role: admin}
upstreams:
  users: {endpoints: ['http://127.0.0.1:3000']}
record: {store: {sqlite: {path: '${FOLDER:-data}/r.db'}}, fsync: '${FSYNC:-False}'}
routes:
  users:
    upstream: users
    timeout: {<<: *times, request: '${LIMIT:-9s}'}
    headers: {request: {set: {X-Token: 'Bearer ${TOKEN}'}}}
    fallback: {json: {code: '${ANSWER}', text: plain}}
";

const SECRETS: [(&str, &str); 4] = [
    ("ACME", "acme-s3cr3t-0123456789"),
    ("TOKEN", "t0k3n-s3cr3t"),
    ("ANSWER", "answer-s3cr3t"),
    ("LIMIT", "7s"),
];

#[track_caller]
fn config(format: &str) -> String {
    let finished = run(CONFIG, &["config", "-c", "c.yaml", "--format", format], &SECRETS);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

#[test]
fn what_is_in_force_says_where_each_value_comes_from() {
    let text = config("yaml");
    for line in [
        "    address: 127.0.0.1:8080  # c.yaml:1, from ${PORT}",
        "    max_header_bytes: 64KiB  # default",
        "      connect: 2s  # c.yaml:2",
        "      request: 7s  # c.yaml:15, from ${LIMIT}",
        "      idle: 1m  # default",
        "      path: data/r.db  # c.yaml:11, from ${FOLDER}",
        "      - http://127.0.0.1:3000  # c.yaml:10",
        "  retention: 30days  # default",
        "        text: plain  # c.yaml:17",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // What is absent by default has no value.
    assert!(!text.contains("flood_guard") && !text.contains("null"), "{text}");
}

#[test]
fn what_is_in_force_hides_secrets() {
    for format in ["yaml", "json"] {
        let text = config(format);
        assert!(!text.contains("s3cr3t") && !text.contains("written-in-the-file"), "{text}");
        for name in ["${ACME}", "${TOKEN}", "${ANSWER}"] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
    let text = config("yaml");
    assert!(text.contains("        acme: '***'  # c.yaml:7, from ${ACME}"), "{text}");
    assert!(text.contains("          key: '***'  # c.yaml:8\n"), "{text}");
    assert!(text.contains("          role: admin  # c.yaml:8\n"), "{text}");
}

#[test]
fn what_is_in_force_as_json_is_the_same_tree() {
    let tree: Value = serde_json::from_str(&config("json")).expect("JSON");
    let request = &tree["routes"]["users"]["timeout"]["request"];
    let expected = serde_json::json!({
        "value": "7s", "origin": "c.yaml:15", "references": ["${LIMIT}"],
    });
    assert_eq!(request, &expected);
    assert_eq!(tree["server"]["drain_timeout"]["origin"], "default");
    // As the types read them, not as the text of the variables.
    let streams = &tree["listeners"]["public"]["http2"]["max_streams"]["value"];
    assert_eq!(streams, &7);
    assert_eq!(tree["record"]["fsync"]["value"], false);
    assert_eq!(tree["auth"]["partners"]["api_key"]["keys"]["acme"]["hidden"], true);
}

#[test]
fn what_is_in_force_spans_the_included_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("a file");
    };
    write("main.yaml", "include: more.yaml\nlisteners: {public: {address: '127.0.0.1:80'}}\n");
    write("more.yaml", "\nroutes:\n  live: {serve: live, max_body: 1MiB}\n");
    let finished = Gateway::finish(&["config", "-c", "main.yaml"], directory.path(), &[]);
    assert!(finished.stdout.contains("max_body: 1MiB  # more.yaml:3\n"), "{finished:?}");
}

/// A string of a file may look like a reference once it is read, or like a comment.
#[test]
fn what_is_in_force_reads_as_the_same_again() {
    let text = "listeners: {public: {address: '127.0.0.1:80'}}\n\
                upstreams: {u: {endpoints: ['http://127.0.0.1:81']}}\n\
                routes: {a: {upstream: u, json: {defaults: \
                {a: '$${X} # no', b: \"x\\ny: z\", '*c': '1', d: ' e ', f: 'null'}}}}\n";
    let first = output(text, &["config", "-c", "c.yaml"]);
    let second = output(&first, &["config", "-c", "c.yaml"]);
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.rsplit_once("  # ").map_or(line, |(v, _)| v).to_owned())
            .collect()
    };
    assert_eq!(values(&first), values(&second));
    assert!(first.contains("$${X} # no") && first.contains("\\n"), "{first}");
}

#[test]
fn completions_know_the_commands_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output("", &["completions", shell]);
        for command in ["check", "routes", "invocations", "completions"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(run("", &["completions", "tcsh"], &[]).code, Some(2));
}

#[test]
fn manual_pages_exist_for_the_gateway_and_each_command() {
    let page = output("", &["man"]);
    assert!(page.contains(".TH portcullis 1") && page.contains("portcullis\\-check(1)"), "{page}");
    let page = output("", &["man", "check"]);
    assert!(page.contains(".TH portcullis-check 1") && page.contains("Examples:"), "{page}");
    let finished = run("", &["man", "nothing"], &[]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""));
}

#[test]
fn a_reader_that_stops_early_is_not_an_error() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut errors).expect("text");
    assert!(child.wait().expect("an end").success() && errors.is_empty(), "{errors}");
}
