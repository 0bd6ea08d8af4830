//! Why each request failed, as its line of the access log says it: one fault injected for each
//! cause, and the whole line as an operator reads it.
//!
//! `tests/golden/causes` has a file for each scenario, named by its cause (with a word after a dot
//! where a cause comes in more than one way). Set `PORTCULLIS_GOLDEN=write` to write them again, and
//! read what has changed: each line alone must be enough to name the cause, what failed, whose fault
//! it was, how often it was tried and why no more.

mod client;
mod policy;
mod upstream;
pub mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::support::{Call, Gateway, eventually};

/// The file's name, and what provokes the line; `None` if a server that it needs is not there.
type Scenario = (&'static str, fn() -> Option<Value>);

/// Causes that cannot be provoked from outside, and why.
const NOT_FROM_OUTSIDE: [(&str, &str); 5] = [
    ("internal", "a fault of the gateway itself, and none is known"),
    (
        "panic",
        "a fault of the gateway itself; `proxy::report` has a test that panics as a phase would",
    ),
    (
        "no_endpoint",
        "only for the moment before a name was ever looked up: a failed look-up is `dns`",
    ),
    ("none_available", "only by health checks: the last available endpoint is never ejected"),
    ("upstream_status", "a final status below 400 is no failure by itself"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/causes")
}

fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    let all = [upstream::CONNECTIONS, upstream::RESPONSES, upstream::TIMES];
    all.into_iter()
        .chain([client::REQUESTS, client::ENDS, policy::REFUSALS, policy::STORES])
        .flatten()
}

/// The cause that a file is about.
fn cause_of(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// A call whose line is known by its id.
fn call(line: &str) -> Call {
    Call::new(line).header("X-Request-Id", "req-1")
}

/// The only line about `cause`, once it is there.
#[track_caller]
fn line(gateway: &Gateway, cause: &str) -> Value {
    let about = |gateway: &Gateway| -> Vec<Value> {
        let lines = gateway.access_lines();
        lines.into_iter().filter(|line| line["portcullis.cause"] == cause).collect()
    };
    eventually(&format!("a line about {cause} in {}", gateway.access()), || about(gateway).pop());
    let mut lines = about(gateway);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

/// Without what differs from run to run: times, ports, ids.
fn steady(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let steady = members.into_iter().filter_map(|(name, value)| {
                let value = steady_member(&name, value)?;
                Some((name, value))
            });
            Value::Object(steady.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(steady).collect()),
        // What a resolver says differs between machines.
        Value::String(text) if text.starts_with("the token has expired at ") => {
            "the token has expired at TIME (`exp`)".into()
        }
        // On a busy machine the store may not even refuse in time.
        Value::String(text) if text.starts_with("record.store is away: ") => {
            "record.store is away: WORDS OF THE STORE".into()
        }
        Value::String(text) if text == "record.store did not answer in time" => {
            "record.store is away: WORDS OF THE STORE".into()
        }
        Value::String(text) if text.starts_with("via: 1.1 portcullis-") => {
            "via: 1.1 portcullis-OF THIS PROCESS".into()
        }
        Value::String(text) if text.starts_with("no-such-host.invalid: ") => {
            "no-such-host.invalid: WORDS OF THE RESOLVER".into()
        }
        Value::String(text) => Value::String(without_ports(&text)),
        other => other,
    }
}

fn steady_member(name: &str, value: Value) -> Option<Value> {
    // A busy machine makes any client look slow for a moment.
    let is_short = |value: &Value| value.as_u64().is_some_and(|micros| micros < 100_000);
    match name {
        "time" => Some("TIME".into()),
        "portcullis.store" => Some(without_directories(value)),
        "trace_id" => Some("TRACE".into()),
        "portcullis.first_request" | "portcullis.record_id" => Some("UUID".into()),
        // As it is configured.
        "portcullis.limit_us" => Some(value),
        "portcullis.client_us" | "portcullis.queue_us" if is_short(&value) => None,
        "portcullis.retry_budget_tokens" => Some("TOKENS".into()),
        "http.request.body.size" if value.as_u64() > Some(1 << 20) => Some("MANY".into()),
        _ if name.ends_with("_us") => Some("MICROSECONDS".into()),
        _ => Some(steady(value)),
    }
}

/// Where tests keep their files differs.
fn without_directories(store: Value) -> Value {
    match store.as_str() {
        Some(text) if text.starts_with("postgres ") => "postgres HOST:PORT".into(),
        _ => steady(store),
    }
}

/// Ports of this machine become `PORT`.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut steady = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        steady += "127.0.0.1:PORT";
        steady += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    steady
}

/// Holds that `line` says everything that an operator asks.
#[track_caller]
fn assert_is_enough(name: &str, line: &Value) {
    let text = |member: &str| line[format!("portcullis.{member}")].as_str();
    let attempts = line["portcullis.attempts"].as_u64().expect("a number of attempts");
    let fault = text("fault").unwrap_or_else(|| panic!("{name}: whose fault? {line:#}"));
    assert!(["client", "gateway", "upstream"].contains(&fault), "{name}: {line:#}");
    let status = line["portcullis.upstream_status"].as_u64().map(|_| "its status");
    let words = text("error").or(text("detail")).or(text("limit")).or(status);
    // That a client has left says it all.
    let says_it_all = cause_of(name) == "client_gone";
    assert!(words.is_some() || says_it_all, "{name}: in which words? {line:#}");
    if attempts > 0 && fault == "upstream" {
        assert!(text("upstream").is_some() && text("endpoint").is_some(), "{name}: who? {line:#}");
        // What was cut off in the middle of an attempt has no decision behind it.
        let is_cut = cause_of(name) == "overdue";
        assert!(text("no_retry").is_some() || is_cut, "{name}: why no more? {line:#}");
    }
}

/// Provokes each, and compares its line with what was approved.
fn check(scenarios: &[Scenario]) {
    let write = std::env::var_os("PORTCULLIS_GOLDEN").is_some_and(|value| value == "write");
    let mut wrong = Vec::new();
    for (name, provoke) in scenarios {
        let Some(line) = provoke() else { continue };
        assert_eq!(line["portcullis.cause"], cause_of(name), "{name}: {line:#}");
        assert_is_enough(name, &line);
        let mut line = steady(line);
        if name.ends_with(".receiving") {
            line["http.response.body.size"] = "SOME".into();
        }
        let said = format!("{line:#}\n");
        let golden = folder().join(format!("{name}.json"));
        if write {
            std::fs::write(&golden, &said).expect("written");
        }
        let approved = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != approved {
            wrong.push(format!("{name}: said\n{said}\napproved is\n{approved}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_connection_that_fails_says_what_failed_and_where() {
    check(upstream::CONNECTIONS);
}

#[test]
fn a_response_that_fails_says_how() {
    check(upstream::RESPONSES);
}

#[test]
fn a_time_limit_says_which_key_it_is() {
    check(upstream::TIMES);
}

#[test]
fn a_request_that_cannot_be_taken_says_what_is_wrong_with_it() {
    check(client::REQUESTS);
}

#[test]
fn an_exchange_that_breaks_off_says_who_ended_it() {
    check(client::ENDS);
}

#[test]
fn a_refusal_says_which_policy_made_it() {
    check(policy::REFUSALS);
}

#[test]
fn a_store_that_is_away_is_named_as_the_reason() {
    check(policy::STORES);
}

#[test]
fn every_cause_has_a_scenario_or_cannot_be_provoked() {
    let provoked: BTreeSet<_> = scenarios().map(|(name, _)| cause_of(name)).collect();
    let exempt: BTreeSet<_> = NOT_FROM_OUTSIDE.iter().map(|(cause, _)| *cause).collect();
    let covered: BTreeSet<_> = provoked.union(&exempt).copied().collect();
    assert_eq!(covered, words::all(), "causes, and those with a scenario or a reason");
    assert!(provoked.is_disjoint(&exempt), "what is provoked needs no excuse");
    assert!(provoked.len() >= 30);
}

#[test]
fn every_golden_line_has_its_scenario() {
    let entries = std::fs::read_dir(folder()).expect("golden files");
    let files: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    let names: BTreeSet<_> = scenarios().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, names);
}
