//! The command line, and what it says about a file that is wrong.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::{Authority, Finished, Gateway, Plan, Port, eventually};

/// Every kind of mistake, in one file.
const MISTAKES: &str = "\
server: {threads: many, drain_timeout: 25}
listeners:
  public: {address: nowhere}
auth:
  partners: {api_key: {header: X-Api-Key, keys: {acme: \"${ACME_KEY_THAT_IS_NOT_SET}\"}}}
upstreams:
  users: {endpoints: [\"ftp://users\"]}
  orders: {endpoints: [\"http://orders\"], circuit_braker: {}}
routes:
  users:
    match: {path: users, methods: [GET]}
    upstream: usres
    reties: {}
  orders:
    match: {path: /orders}
    upstream: orders
    auth: {require: partner}
    retry: {max_retries: 99, methods: sometimes}
    max_body: 10
";

fn check(text: &str, arguments: &[&str]) -> Finished {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), text).expect("a file");
    Gateway::finish(arguments, directory.path(), &[])
}

/// Keys that cannot be kept, or not for long enough.
const UNKEPT: &str = "\
listeners: {public: {address: '127.0.0.1:8080'}}
upstreams: {users: {endpoints: ['http://127.0.0.1:3000']}}
routes:
  pay: {match: {path: /pay}, upstream: users, timeout: {request: 0}, idempotency: {max_body: 1MiB}}
  refund: {match: {path: /refund}, upstream: users, idempotency: {ttl: 10s, methods: [GET]}}
  book: {match: {path: /book}, upstream: users, timeout: {request: 0}, idempotency: {}}
  order: {match: {path: /order}, upstream: users, idempotency: {ttl: 10s}}
  health: {match: {path: /healthz}, serve: health, idempotency: {}}
";

#[test]
fn commits_that_come_too_late_for_those_who_wait_are_a_mistake() {
    let text = "record: {commit_timeout: 1s, batch: {commit_interval: 400ms}}\n\
                listeners: {public: {address: '127.0.0.1:8080'}}\n";
    let finished = check(text, &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1));
    let mistake = "record.batch.commit_interval: must be shorter than 333ms, a third";
    assert!(finished.stderr.contains(mistake), "{}", finished.stderr);
}

#[test]
fn keys_that_could_not_be_kept_are_mistakes() {
    let finished = check(UNKEPT, &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1));
    let lines: Vec<&str> = finished.stderr.lines().collect();
    for (path, about) in [
        ("routes.pay.idempotency.max_body: ", "at most 64"),
        ("routes.refund.idempotency.methods[0]: ", "POST"),
        ("routes.book.idempotency: ", "without `record.store`"),
        ("routes.book.timeout.request: ", "needs a limit"),
        ("routes.order.idempotency.ttl: ", "1m 1s 500ms"),
        ("routes.health.idempotency: ", "a route with `serve` has no upstream"),
    ] {
        let said = lines.iter().any(|line| line.contains(path) && line.contains(about));
        assert!(said, "{path}{about}\n{}", finished.stderr);
    }
}

const GOOD: &str = "
listeners: {public: {address: '127.0.0.1:8080'}}
upstreams: {users: {endpoints: ['http://127.0.0.1:3000']}}
routes: {users: {match: {path: /users}, upstream: users}}
";

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let finished = check(MISTAKES, &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1));
    let lines: Vec<&str> = finished.stderr.lines().collect();
    for (place, about) in [
        ("c.yaml:1:19: server.threads: ", "number"),
        ("c.yaml:1:40: server.drain_timeout: ", "unit"),
        ("c.yaml:3:21: listeners.public.address: ", ""),
        ("c.yaml:5:56: auth.partners.api_key.keys.acme: ", "ACME_KEY_THAT_IS_NOT_SET"),
        ("c.yaml:7:23: upstreams.users.endpoints[0]: ", "http://"),
        ("c.yaml:8:42: upstreams.orders: ", "did you mean `circuit_breaker`?"),
        ("c.yaml:11:19: routes.users.match.path: ", ""),
        ("c.yaml:12:15: routes.users.upstream: ", "did you mean `users`?"),
        ("c.yaml:13:5: routes.users: ", "did you mean `retry`?"),
        ("c.yaml:17:21: routes.orders.auth.require: ", "did you mean `partners`?"),
        ("c.yaml:18:26: routes.orders.retry.max_retries: ", "10"),
        ("c.yaml:18:39: routes.orders.retry.methods: ", "safe"),
        ("c.yaml:19:15: routes.orders.max_body: ", "unit"),
    ] {
        let found = lines.iter().find(|line| line.starts_with(place));
        let line = found.unwrap_or_else(|| panic!("nothing at {place}\n{}", finished.stderr));
        assert!(line.contains(about), "{line}");
    }
    assert_eq!(lines.len(), 14, "as many lines as mistakes, and their sum\n{}", finished.stderr);
    assert_eq!(lines[13], "13 errors");
}

#[test]
fn a_hundred_mistakes_in_a_large_file_are_told_as_fast_as_none() {
    const ROUTES: usize = 10_000;
    let timed = |text: &str| {
        let started = Instant::now();
        let finished = check(text, &["check", "-c", "c.yaml"]);
        (finished, started.elapsed())
    };
    let file = |wrong: &dyn Fn(usize) -> &'static str| {
        let mut text =
            GOOD.replace("routes: {users: {match: {path: /users}, upstream: users}}", "routes:");
        for n in 0..ROUTES {
            let wrong = if n % 103 == 102 { wrong(n / 103) } else { "" };
            text +=
                &format!("  r-{n}:\n    match: {{path: /r-{n}/*}}\n    upstream: users\n{wrong}");
        }
        text
    };
    let (finished, good) = timed(&file(&|_| ""));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let kinds = [
        "    timeout: {request: soon}\n",
        "    timeuot: {request: 1s}\n",
        "    rate_limit: [{limit: 5}]\n",
        "    max_body: ${NOT_SET_FOR_THIS}\n",
        "    upstream: users\n",
        "    auth: {require: partners}\n",
    ];
    let (finished, wrong) = timed(&file(&|n| kinds[n % kinds.len()]));
    assert_eq!(finished.stderr.lines().last(), Some("97 errors"), "{}", finished.stderr);
    let place = "c.yaml:314:24: routes.r-102.timeout.request: ";
    assert!(finished.stderr.starts_with(place), "{}", finished.stderr);
    // It was the time of fifty.
    assert!(wrong < good * 8, "{wrong:?}, {good:?} without a mistake");
}

#[test]
fn a_mistake_elsewhere_invents_none_in_a_large_mapping() {
    let keys: String =
        (0..65).map(|n| format!("        consumer-{n}: key-number-{n:02}-0123456789\n")).collect();
    let route = "routes: {users: {match: {path: /users}, upstream: users}}";
    let wrong =
        "routes: {users: {match: {path: /users}, upstream: users, timeout: {request: soon}}}";
    let authority = "auth:\n  many:\n    api_key:\n      header: X-Api-Key\n      keys:\n";
    let text = GOOD.replace(route, wrong);
    assert_ne!(text, GOOD);
    let (before, after) = text.split_once("routes:").expect("routes");
    let text = format!("{before}{authority}{keys}routes:{after}");
    let finished = check(&text, &["check", "-c", "c.yaml"]);
    assert_eq!(finished.stderr.lines().last(), Some("1 error"), "{}", finished.stderr);
    assert!(finished.stderr.contains("routes.users.timeout.request: "), "{}", finished.stderr);
}

#[test]
fn a_file_with_mistakes_starts_nothing() {
    let port = Port::reserve();
    let text = format!("{}\nroutes: {{}}\n", GOOD.replace("8080", &port.number.to_string()));
    let finished = check(&text, &["run", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("c.yaml:6:1"), "{}", finished.stderr);
    assert!(std::net::TcpListener::bind(port.address()).is_ok());
}

#[test]
fn a_good_file_is_good_in_every_way_of_asking() {
    for arguments in
        [&["check", "-c", "c.yaml"][..], &["-t", "-c", "c.yaml"], &["check", "--config", "c.yaml"]]
    {
        let finished = check(GOOD, arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), GOOD).expect("a file");
    let named = |file: &str| {
        Gateway::finish(&["check"], directory.path(), &[("PORTCULLIS_CONFIG", file)]).code
    };
    assert_eq!((named("c.yaml"), named("other.yaml")), (Some(0), Some(1)));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let finished = check(GOOD, &["check", "-c", "missing.yaml"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("missing.yaml"), "{}", finished.stderr);
}

#[test]
fn a_file_that_is_no_yaml_is_reported_with_its_place() {
    let finished = check("routes:\n  a: [1,\n", &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.starts_with("c.yaml:"), "{}", finished.stderr);
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [&["fly"][..], &["check", "--fast"], &["run", "-c"]] {
        assert_eq!(check(GOOD, arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let finished = check(GOOD, &["--version"]);
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.stdout.trim(), format!("portcullis {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_secret_is_shown_in_an_error() {
    let text = GOOD.replace("users:", "users: ") + "
auth: {a: {api_key: {header: 'X Key', keys: {acme: '${SECRET}'}}}, b: {jwt: {audience: any, secret: '${SECRET}', algorithms: ['${SECRET}']}}}
record: {store: {postgres: {url: '${SECRET}'}}}
server: {threads: '${SECRET}'}
";
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), text).expect("a file");
    let secret = [("SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret")];
    let finished = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &secret);
    assert_eq!(finished.code, Some(1));
    assert!(!finished.stderr.contains("s3cret"), "{}", finished.stderr);
}

#[test]
fn an_address_in_use_fails_the_start_and_says_which() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    for section in
        ["listeners: {public: {address: '127.0.0.1:TAKEN'}}", "admin: {address: '127.0.0.1:TAKEN'}"]
    {
        let section = section.replace("TAKEN", &port.to_string());
        let (code, log) = Plan::route("").section(&section).fails();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&port.to_string()), "{log}");
    }
}

#[test]
fn included_files_count_and_are_named_in_errors() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("a file");
    };
    std::fs::create_dir(directory.path().join("routes")).expect("a directory");
    write("c.yaml", &format!("include: ['routes/*.yaml']\n{GOOD}"));
    write("routes/a.yaml", "routes: {a: {match: {path: /a}, upstream: nowhere}}\n");
    write("routes/b.yaml", "routes: {users: {match: {path: /b}, upstream: users}}\n");
    let finished = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]);
    assert_eq!(finished.code, Some(1));
    for part in ["routes/a.yaml:1:", "routes/b.yaml:1:10", "c.yaml:5"] {
        assert!(finished.stderr.contains(part), "{part}\n{}", finished.stderr);
    }
}

/// The files a user is given.
fn shipped() -> Vec<PathBuf> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let entries = std::fs::read_dir(conf).expect("conf/");
    let files = entries.map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect()
}

#[test]
fn every_shipped_configuration_is_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, files) = (Authority::new(), shipped());
    assert!(files.len() >= 3, "{files:?}");
    authority.put(&authority.sign("orders"), directory.path());
    for file in files {
        let path = file.to_string_lossy().into_owned();
        let key = [
            ("API_KEY", "a-key-for-the-check-0123456789"),
            ("REGISTRY_TOKEN", "a-token-for-the-check-0123456789"),
            // What it names lies elsewhere where it is used.
            ("SIDECAR_CERTIFICATES", directory.path().to_str().expect("a path")),
        ];
        let finished = Gateway::finish(&["check", "-c", &path], directory.path(), &key);
        assert_eq!(finished.code, Some(0), "{path}: {}", finished.stderr);
        assert_eq!(finished.stderr, "", "{path} has warnings");
    }
}

#[test]
fn the_reference_configuration_runs() {
    let gateway =
        Plan::file(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/portcullis.yaml")).start();
    eventually("health", || (gateway.get("/healthz").status == 200).then_some(()));
}

#[test]
fn a_byte_order_mark_and_merge_keys_are_read_as_compose_files_are() {
    let text = "\u{feff}x-route: &base {serve: live}
listeners: {public: {address: 127.0.0.1:0}}
routes:
  a: {<<: *base, match: {path: /a}}
";
    let finished = check(text, &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    let finished = check(&text.replace("serve: live", "servee: live"), &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains(":1:"), "the place where it was written: {}", finished.stderr);
}

/// `GOOD` with an upstream that no route uses.
fn with_a_warning() -> String {
    GOOD.replace("users: {endpoints", "spare: {endpoints: ['http://h:1']}, users: {endpoints")
}

#[test]
fn warnings_are_told_and_fail_only_who_denies_them() {
    let finished = check(&with_a_warning(), &["check", "-c", "c.yaml"]);
    assert_eq!((finished.code, finished.stdout.trim()), (Some(0), "c.yaml: ok"));
    let line = "c.yaml:3:13: warning: upstreams.spare: no route uses `spare`; ";
    assert!(finished.stderr.starts_with(line), "{}", finished.stderr);
    assert!(finished.stderr.ends_with("\n1 warning\n"), "{}", finished.stderr);
    let denied = ["check", "-c", "c.yaml", "--deny-warnings"];
    let finished = check(&with_a_warning(), &denied);
    assert_eq!(finished.code, Some(1));
    assert!(!finished.stdout.contains("ok"), "{}", finished.stdout);
    assert_eq!(check(GOOD, &denied).code, Some(0));
}

#[test]
fn a_circuit_that_forgets_a_failure_before_an_attempt_can_fail_is_told() {
    for (timeout, least) in [
        ("", "15s"),
        ("attempt: 20s", "20s"),
        ("attempt: 20s, first_byte: 5s", "20s"),
        ("first_byte: 5s", "5s"),
        ("first_byte: 0", "60s"),
        ("request: 10s", "10s"),
        ("request: 0", "60s"),
        ("request: 5m, idle: 20s", "20s"),
    ] {
        let seconds: u32 = least.trim_end_matches('s').parse().expect("a number");
        for (time, is_told) in [(seconds - 1, true), (seconds, false)] {
            let breaker = format!("circuit_breaker: {{window: {{time: {time}s}}}}");
            let route = format!("timeout: {{{timeout}}}, {breaker}");
            let stderr = checked_with(&route, "", "");
            let words = format!("failures are forgotten after {time}s, but an attempt may take ");
            assert_eq!(stderr.contains(&words), is_told, "{route}: {stderr}");
            assert_eq!(stderr.is_empty(), !is_told, "{route}: {stderr}");
        }
    }
    // Nothing ends such an attempt, so that no time would be enough.
    let endless = "timeout: {request: 0, idle: 0}, circuit_breaker: {window: {time: 1s}}";
    assert_eq!(checked_with(endless, "", ""), "");
}

#[test]
fn an_upstream_s_circuit_is_compared_with_the_attempts_of_all_who_use_it() {
    let breaker = "circuit_breaker: {consecutive: {failures: 5, reset_every: 40s}}";
    for (other, told) in [
        ("upstream: users", ""),
        ("upstream: users, timeout: {attempt: 45s}", "routes.other.timeout.attempt"),
        ("upstream: spare, timeout: {attempt: 45s}", ""),
        (
            "upstream: spare, timeout: {attempt: 45s}, fallback: {upstream: users}",
            "routes.other.timeout.attempt",
        ),
    ] {
        let other = format!("other: {{match: {{path: /other}}, {other}}}");
        let stderr = checked_with("fallback: {upstream: spare}", breaker, &other);
        assert_eq!(stderr.is_empty(), told.is_empty(), "{other}: {stderr}");
        assert!(stderr.contains(told), "{other}: {stderr}");
    }
}

/// What is said of a route with `policies` to the upstream `users`, which has `settings`, and of
/// another route.
fn checked_with(policies: &str, settings: &str, other: &str) -> String {
    let text = format!(
        "listeners: {{public: {{address: '127.0.0.1:8080'}}}}\n\
         upstreams:\n  users: {{endpoints: ['http://127.0.0.1:3000'], {settings}}}\n\
         \x20 spare: {{endpoints: ['http://127.0.0.1:3001']}}\n\
         routes:\n  users: {{match: {{path: /users}}, upstream: users, {policies}}}\n\
         \x20 ready: {{match: {{path: /ready}}, upstream: spare}}\n  {other}\n"
    );
    check(&text, &["check", "-c", "c.yaml"]).stderr
}

#[test]
fn errors_and_warnings_are_told_together_in_the_order_of_the_file() {
    let conflict = "routes: {a: {match: {path: /users}, upstream: users}, users:";
    let text = with_a_warning().replace("routes: {users:", conflict);
    let finished = check(&text, &["check", "-c", "c.yaml"]);
    assert_eq!(finished.code, Some(1));
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert!(lines[0].contains("warning: upstreams.spare: "), "{}", finished.stderr);
    assert!(lines[1].contains(": routes.users.match.path: "), "{}", finished.stderr);
    assert_eq!(lines[2..], ["1 error, 1 warning"]);
}

#[test]
fn what_the_start_finds_doubtful_is_in_its_log() {
    let budget = "retry_budgets: {few: {token_bucket: {capacity: 2, refill_per_second: 1}}}";
    let gateway = Plan::route("").section(budget).start();
    gateway.wait_for_log("warning: retry_budgets.few: no route uses `few`");
}

#[test]
fn json_is_one_array_for_editors_and_scripts() {
    let json = ["check", "-c", "c.yaml", "--format", "json"];
    let parsed = |text: &str| {
        let finished = check(text, &json);
        assert_eq!(finished.stderr, "", "all of it is on standard output");
        let value: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
        (finished.code, value)
    };
    assert_eq!(parsed(GOOD), (Some(0), serde_json::json!([])));
    let (code, found) = parsed(&GOOD.replace("upstream: users", "upstream: usres"));
    assert_eq!(code, Some(1));
    let unused = serde_json::json!({
        "severity": "error", "code": "unknown_name", "file": "c.yaml", "line": 4, "column": 51,
        "end_column": 56, "path": "routes.users.upstream",
        "message": "nothing in `upstreams` is named `usres`", "remedy": "did you mean `users`?",
    });
    assert_eq!(found, serde_json::json!([unused]));
}

#[test]
fn what_is_piped_in_is_checked_as_a_file_is() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let piped = |text: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["check", "-c", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(text.as_bytes()).expect("read");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(piped(GOOD), (Some(0), String::new()));
    let (code, said) = piped(&GOOD.replace("upstream: users", "upstream: usres"));
    assert_eq!(code, Some(1));
    assert!(said.starts_with("<stdin>:4:51: routes.users.upstream: "), "{said}");
    // A reload could not read it again.
    assert_eq!(check(GOOD, &["run", "-c", "-"]).code, Some(2));
}

#[test]
fn the_line_is_shown_without_colours_off_a_terminal_and_without_secrets() {
    let text = format!(
        "{GOOD}auth: {{a: {{api_key: {{header: 'X Key', keys: {{acme: 'literal-hunter2-0123456'}}}}}}}}\n"
    );
    let finished = check(&text, &["check", "-c", "c.yaml", "--format", "full"]);
    assert!(
        finished.stderr.contains("\n5 | auth: {a: {api_key: {header: 'X Key'"),
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.contains("^^^"), "{}", finished.stderr);
    assert!(!finished.stderr.contains('\u{1b}'), "{}", finished.stderr);
    assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
}

#[test]
fn what_a_reload_finds_doubtful_is_in_the_log_and_the_reload_goes_on() {
    let gateway = Plan::route("").start();
    let budget = "retry_budgets: {few: {token_bucket: {capacity: 2, refill_per_second: 1}}}";
    assert!(gateway.reload_plan(&Plan::route("").section(budget)), "{}", gateway.log());
    gateway.wait_for_log("warning: retry_budgets.few: no route uses `few`");
}

/// What a command prints in a terminal of its own, or `None` where there is no `script` of util-linux.
fn in_terminal(directory: &Path, variables: &[(&str, &str)]) -> Option<String> {
    let binary = env!("CARGO_BIN_EXE_portcullis");
    let command = format!("'{binary}' check -c c.yaml");
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) if std::env::var_os("CI").is_some() => panic!("`script` is needed: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: `script` of util-linux does not start: {error}");
            None
        }
    }
}

#[test]
fn mistakes_are_coloured_on_a_terminal_unless_colours_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), "listeners: {}\n").expect("a file");
    let colour = '\u{1b}';
    let Some(shown) = in_terminal(directory.path(), &[]) else { return };
    assert!(shown.contains("at least one listener is needed"), "{shown}");
    assert!(shown.contains(&format!("{colour}[")), "no colours: {shown}");
    for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = in_terminal(directory.path(), &[variables]).expect("as before");
        assert!(shown.contains("at least one listener is needed"), "{shown}");
        assert!(shown.contains("1 | listeners: {}"), "the line is shown all the same: {shown}");
        assert!(!shown.contains(colour), "{variables:?}: {shown}");
    }
    // An empty variable refuses nothing.
    let shown = in_terminal(directory.path(), &[("NO_COLOR", "")]).expect("as before");
    assert!(shown.contains(colour), "{shown}");
}

#[test]
fn mistakes_in_a_pipe_have_no_colours() {
    for format in ["full", "line", "json"] {
        let finished = check("listeners: {}\n", &["check", "-c", "c.yaml", "--format", format]);
        let said = finished.stderr + &finished.stdout;
        assert!(said.contains("at least one listener is needed"), "{said}");
        assert!(!said.contains('\u{1b}'), "{format}: {said}");
    }
}
