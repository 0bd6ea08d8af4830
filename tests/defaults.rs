//! `conf/portcullis.yaml` shows every key with its default: each is compared with the one in the code.
//!
//! A key is at its default if the configuration means the same without it. One that is shown with
//! another value says what its default is, in words that the table below repeats.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis::config::{Config, Environment};
use serde_yaml::{Mapping, Value};
use tempfile::TempDir;

/// What is said below these keys is an example as a whole.
const EXAMPLES: [&str; 9] =
    ["match", "rate_limit", "json", "headers", "capture", "method", "body", "defaults", "response"];

/// Keys that are shown with another value than their default: that default, unless it is none or
/// depends on something else, and what the file says of it beside the key.
const STATED: &[(&str, Option<&str>, &str)] = &[
    ("client_address.trusted_proxies", Some("[]"), "default: []"),
    ("identifiers.correlation_id", None, "default: absent"),
    ("rate_limit_stores.shared.redis.url", None, "empty: every replica counts by itself"),
    ("otlp.timeout", None, "default: the variable's, else 10s"),
    ("otlp.compression", None, "default: the variable's, else none"),
    ("traces.service_name", None, "default: the variable's, else portcullis"),
    ("metrics.interval", None, "default: the variable's, else 60s"),
    (
        "upstreams.custom-lang-service.circuit_breaker.consecutive.reset_every",
        None,
        "default never",
    ),
    (
        "upstreams.custom-lang-service.circuit_breaker.window.minimum_calls",
        Some("100"),
        "default 100",
    ),
    ("upstreams.custom-lang-service.idle_timeout", None, "Default: 4s for http1"),
    ("upstreams.custom-lang-service.circuit_breaker.half_open_calls", Some("1"), "default 1"),
    ("upstreams.custom-lang-service.circuit_breaker.close_on", None, "Default: rate"),
    ("upstreams.custom-lang-service.circuit_breaker.max_half_open", None, "default: no limit"),
    ("routes.invoke-custom.timeout.attempt", Some("0s"), "default: none"),
    ("routes.invoke-custom.timeout.first_byte", None, "Default: 15s, or none where"),
    ("routes.invoke-custom.timeout.request", Some("60s"), "default 60s"),
    ("routes.invoke-custom.timeout.min_upload_rate", None, "Default: 256B for bodies"),
    ("routes.invoke-custom.retry.methods", Some("safe"), "safe (default)"),
    (
        "routes.invoke-custom.retry.on",
        Some("[connect_failure, refused_stream, reset, 502, 503, 504]"),
        "Default: [connect_failure, refused_stream, reset, 502, 503, 504]",
    ),
    ("routes.invoke-custom.retry.budget", None, "Default: the upstream's"),
    ("routes.invoke-custom.retry.backoff.base", Some("25ms"), "base: default 25ms"),
    ("routes.invoke-custom.retry.backoff.max", None, "max: default 10 times base"),
    ("routes.invoke-custom.errors", Some("problem"), "default: problem"),
    ("routes.invoke-custom.cors.methods", Some("[GET, HEAD, POST]"), "default: [GET, HEAD, POST]"),
    ("routes.invoke-custom.cors.request_headers", Some("[]"), "default: []"),
    ("routes.invoke-custom.cors.expose", Some("[]"), "default: []"),
    ("routes.invoke-custom.record.mode", Some("off"), "off (default)"),
];

struct File {
    folder: TempDir,
    text: String,
    tree: Value,
    shown: Config,
}

fn variables() -> Environment {
    Environment::fixed([
        ("JWKS_URL", "http://127.0.0.1:8090/jwks.json"),
        ("REDIS_URL", "redis://127.0.0.1"),
    ])
}

/// Always from the same place: files that are named in it are looked for beside it.
fn load(folder: &TempDir, tree: &Value) -> Option<Config> {
    let file = folder.path().join("portcullis.yaml");
    std::fs::write(&file, serde_yaml::to_string(tree).expect("text")).expect("a file");
    Config::load(&file, &variables()).ok().map(|(config, _)| config)
}

impl File {
    fn read() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let beside = folder.path().join("gateway.binpb");
        std::fs::copy(conf.join("gateway.binpb"), beside).expect("a copy");
        let text = std::fs::read_to_string(conf.join("portcullis.yaml")).expect("the file");
        let tree: Value = serde_yaml::from_str(&text).expect("valid YAML");
        let shown = load(&folder, &tree).expect("a valid configuration");
        File { folder, text, tree, shown }
    }

    /// Whether these words are on the line of such a key, or in the comments around it.
    fn says(&self, key: &str, words: &str) -> bool {
        let lines: Vec<_> = self.text.lines().collect();
        let key = format!("{key}:");
        let comment = |line: &&&str| line.trim_start().starts_with('#');
        lines.iter().enumerate().filter(|(_, line)| line.contains(&key)).any(|(at, line)| {
            let above = lines[..at].iter().rev().take_while(comment);
            let below = lines[at + 1..].iter().take_while(comment);
            above.chain([line]).chain(below).any(|line| line.contains(words))
        })
    }

    /// What the configuration is with this key as `value`, or without it.
    fn with(&self, path: &[String], value: Option<&Value>) -> Option<Config> {
        let mut tree = self.tree.clone();
        let (last, parents) = path.split_last().expect("a key");
        let mut place = &mut tree;
        for key in parents {
            place = &mut place[key.as_str()];
        }
        let mapping = place.as_mapping_mut().expect("a mapping");
        match value {
            Some(value) => drop(mapping.insert(last.as_str().into(), value.clone())),
            None => drop(mapping.remove(last.as_str())),
        }
        load(&self.folder, &tree)
    }
}

/// Every key of the file that has a value of its own, by its path.
fn keys(mapping: &Mapping, path: &[String], found: &mut Vec<Vec<String>>) {
    for (key, value) in mapping {
        let key = key.as_str().expect("a key");
        let below = [path, &[key.to_owned()]].concat();
        match value {
            _ if EXAMPLES.contains(&key) => {}
            Value::Mapping(children) if !children.is_empty() => keys(children, &below, found),
            _ => found.push(below),
        }
    }
}

#[test]
fn every_default_that_is_shown_is_the_one_in_the_code() {
    let file = File::read();
    let mut paths = Vec::new();
    keys(file.tree.as_mapping().expect("a mapping"), &[], &mut paths);
    assert!(paths.len() > 120, "{}", paths.len());
    let mut stated: BTreeMap<_, _> = STATED.iter().map(|row| (row.0, row)).collect();
    let mut wrong = Vec::new();
    for path in &paths {
        let Some(without) = file.with(path, None) else { continue };
        let dotted = path.join(".");
        let row = stated.remove(dotted.as_str());
        match (without == file.shown, row) {
            (true, None) => {}
            (true, Some(_)) => wrong.push(format!("{dotted} is shown with its default")),
            (false, None) => wrong.push(format!("{dotted} has another default")),
            (false, Some((_, default, words))) => {
                if !file.says(path.last().expect("a key"), words) {
                    wrong.push(format!("{dotted}: no line says {words:?}"));
                }
                let Some(default) = default else { continue };
                let default = serde_yaml::from_str(default).expect("a value");
                if file.with(path, Some(&default)).as_ref() != Some(&without) {
                    wrong.push(format!("{dotted}: the default is not {default:?}"));
                }
            }
        }
    }
    wrong.extend(stated.into_keys().map(|path| format!("{path} is not there, or is required")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
