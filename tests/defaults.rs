//! `conf/portcullis.yaml` shows every key with its default: each is compared with the one in the code.
//!
//! A key is at its default if the configuration means the same without it. One that is shown with
//! another value says what its default is, in words that the table below repeats. Parts that are
//! commented out, and show defaults too, are compared as if they were not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use portcullis::config::{Config, Environment};
use serde_yaml::{Mapping, Value};
use tempfile::TempDir;

/// Keys that are shown with an example, or all below them is one: by their whole paths. An element of a list
/// is named by its place.
const EXAMPLES: &[&str] = &[
    "routes.invoke-custom.match.path",
    "routes.invoke-custom.match.methods",
    "routes.invoke-custom.rate_limit.1.token_bucket.burst",
    "routes.invoke-custom.rate_limit.1.key",
    "routes.invoke-custom.rate_limit.1.max_keys",
    "routes.invoke-custom.rate_limit.2.token_bucket.burst",
    "routes.invoke-custom.fallback.json",
    "routes.invoke-custom.headers.request.set",
    "routes.invoke-custom.headers.request.remove",
    "routes.invoke-custom.headers.response.remove",
    "routes.invoke-custom.json.defaults",
    "routes.invoke-custom.record.capture",
    "routes.greet.match",
    "routes.greet.transcode.method",
    "routes.greet.transcode.http.body",
    "routes.greet.transcode.defaults",
    "routes.greet.transcode.response",
    "routes.health.match",
];

/// Keys that have no default: without them, the file is not valid.
const REQUIRED: &[&str] = &[
    "listeners.public.address",
    "flood_guard.requests",
    // Idempotency keys need a store.
    "record.store.sqlite.path",
    "auth.accounts.jwt.issuer",
    "auth.accounts.jwt.audience",
    "auth.accounts.jwt.algorithms",
    "auth.accounts.jwt.jwks.url",
    "auth.partners.api_key.keys.acme",
    "retry_budgets.custom-lang.token_bucket.capacity",
    "retry_budgets.custom-lang.token_bucket.refill_per_second",
    "upstreams.custom-lang-service.endpoints",
    "upstreams.custom-lang-service.health.tcp",
    "upstreams.custom-lang-service.circuit_breaker.consecutive.failures",
    "upstreams.custom-lang-service.circuit_breaker.window.calls",
    "upstreams.custom-lang-service.circuit_breaker.window.slow_calls.longer_than",
    "descriptors.gateway.file",
    "routes.invoke-custom.upstream",
    "routes.invoke-custom.auth.require",
    "routes.invoke-custom.rate_limit.0.fixed_window.requests",
    "routes.invoke-custom.rate_limit.0.fixed_window.per",
    "routes.invoke-custom.rate_limit.1.token_bucket.rate",
    "routes.invoke-custom.rate_limit.2.token_bucket.rate",
    "routes.invoke-custom.rate_limit.2.shared.store",
    "routes.invoke-custom.bulkhead.max_in_flight",
    "routes.invoke-custom.bulkhead.queue.max",
    "routes.invoke-custom.rewrite.path",
    "routes.invoke-custom.cors.origins",
    "routes.greet.upstream",
    "routes.greet.transcode.descriptors",
    "routes.greet.transcode.http.path",
    "routes.health.serve",
];

/// A part of the file that is commented out, and shows defaults.
struct Commented {
    /// What its first line begins with, behind `# `.
    begins: &'static str,
    /// The mapping that it belongs to.
    at: &'static str,
    /// The key there that it takes the place of.
    instead_of: Option<&'static str>,
    /// Where in it the examples are.
    under: &'static str,
    /// Its keys that are required, or shown with an example; or all below them is.
    examples: &'static [&'static str],
}

impl Commented {
    const fn new(
        begins: &'static str,
        at: &'static str,
        under: &'static str,
        examples: &'static [&'static str],
    ) -> Self {
        Commented { begins, at, instead_of: None, under, examples }
    }

    const fn instead_of(self, key: &'static str) -> Self {
        Commented { instead_of: Some(key), ..self }
    }
}

const UPSTREAM: &str = "upstreams.custom-lang-service";
const CHECK: &str = "upstreams.custom-lang-service.health";
const BULKHEAD: &str = "routes.invoke-custom.bulkhead";

const COMMENTED: &[Commented] = &[
    Commented::new("tls:", "listeners.public", "tls", &["certificates", "client_ca", "client_crl"]),
    Commented::new("mesh:", "auth", "mesh.client_certificate", &["allow"]),
    Commented::new(
        "opaque:",
        "auth",
        "opaque.introspection",
        &["url", "client_id", "client_secret", "issuer"],
    ),
    Commented::new(
        "portal:",
        "auth",
        "portal.forward",
        &["url", "request_headers", "response_headers", "consumer_header", "cache.by", "cache.ttl"],
    ),
    Commented::new("of-requests:", "retry_budgets", "of-requests", &[]),
    Commented::new("of-active:", "retry_budgets", "of-active", &[]),
    Commented::new("of-each-caller:", "retry_budgets", "of-each-caller", &["token_bucket", "per"]),
    Commented::new(
        "discover: {kubernetes: {service: orders, namespace: shop, api:",
        UPSTREAM,
        "discover.kubernetes",
        &["service", "namespace", "api", "token_file", "ca"],
    ),
    Commented::new(
        "discover: {consul:",
        UPSTREAM,
        "discover.consul",
        &[
            "service",
            "tags",
            "filter",
            "datacenter",
            "namespace",
            "partition",
            "token",
            "ca",
            "allow",
        ],
    ),
    Commented::new(
        "discover: {eureka:",
        UPSTREAM,
        "discover.eureka",
        &["service", "address", "allow", "ca"],
    ),
    Commented::new("ejection:", UPSTREAM, "ejection", &[]),
    Commented::new(
        "tls: {server_name:",
        UPSTREAM,
        "tls",
        &["server_name", "ca", "client_certificate", "pins"],
    ),
    Commented::new("http: {path:", CHECK, "http", &["path", "headers"]).instead_of("tcp"),
    Commented::new("adaptive:", BULKHEAD, "adaptive", &["min", "max"]).instead_of("max_in_flight"),
    Commented::new("per_consumer:", BULKHEAD, "per_consumer", &["max_in_flight"]),
    Commented::new(
        "networks: {allow: [10.0.0.0/8], enforce:",
        "routes.invoke-custom",
        "networks",
        &["allow"],
    ),
    Commented::new("old-users:", "routes", "old-users", &["match.path", "redirect.to"]),
];

/// Keys that are shown with another value than their default: that default, unless it is none or
/// depends on something else, and what the file says of it beside the key.
const STATED: &[(&str, Option<&str>, &str)] = &[
    ("client_address.trusted_proxies", Some("[]"), "default: []"),
    ("identifiers.correlation_id", None, "default: absent"),
    ("rate_limit_stores.shared.redis.url", None, "empty: every replica counts by itself"),
    ("otlp.timeout", None, "default: the variable's, else 10s"),
    ("otlp.compression", None, "default: the variable's, else none"),
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
}

fn variables() -> Environment {
    Environment::fixed([
        ("JWKS_URL", "http://127.0.0.1:8090/jwks.json"),
        ("REDIS_URL", "redis://127.0.0.1"),
        ("INTROSPECTION_SECRET", "introspection-0123456789"),
        ("CONSUL_TOKEN", "consul-0123456789"),
        ("EUREKA_PASSWORD", "eureka-0123456789"),
    ])
}

impl File {
    fn read() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let beside = folder.path().join("gateway.binpb");
        std::fs::copy(conf.join("gateway.binpb"), beside).expect("a copy");
        let text = std::fs::read_to_string(conf.join("portcullis.yaml")).expect("the file");
        let tree: Value = serde_yaml::from_str(&text).expect("valid YAML");
        File { folder, text, tree }
    }

    /// Always from the same place: files that are named in it are looked for beside it. `None` if the
    /// configuration is not valid.
    fn load(&self, tree: &Value) -> Option<Config> {
        let file = self.folder.path().join("portcullis.yaml");
        std::fs::write(&file, serde_yaml::to_string(tree).expect("text")).expect("a file");
        Config::load(&file, &variables()).ok().map(|(config, _)| config)
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

    /// The part that begins so, as if it were not commented out: the first such line, and those after it that
    /// are further in.
    fn commented(&self, begins: &str) -> Mapping {
        let begins = format!("# {begins}");
        let before = |line: &&str| !line.trim_start().starts_with(&begins);
        let mut lines = self.text.lines().skip_while(before);
        let first = lines.next().unwrap_or_else(|| panic!("no line begins with {begins:?}"));
        let prefix = &first[..first.len() - first.trim_start().len() + "# ".len()];
        let further = lines.map_while(|line| line.strip_prefix(prefix));
        let further = further.take_while(|line| line.starts_with(' '));
        let lines: Vec<_> = first.strip_prefix(prefix).into_iter().chain(further).collect();
        serde_yaml::from_str(&lines.join("\n")).unwrap_or_else(|e| panic!("{begins:?}: {e}"))
    }
}

/// `a.b.0` in pieces.
fn pieces(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_owned).collect()
}

/// The mapping at this path.
fn place<'t>(tree: &'t mut Value, path: &[String]) -> &'t mut Mapping {
    let mut place = tree;
    for key in path {
        place = match place {
            Value::Sequence(list) => &mut list[key.parse::<usize>().expect("a place")],
            other => &mut other[key.as_str()],
        };
    }
    place.as_mapping_mut().expect("a mapping")
}

/// The tree with this key as `value`, or without it.
fn changed(tree: &Value, path: &[String], value: Option<&Value>) -> Value {
    let mut tree = tree.clone();
    let (last, parents) = path.split_last().expect("a key");
    let mapping = place(&mut tree, parents);
    match value {
        Some(value) => drop(mapping.insert(last.as_str().into(), value.clone())),
        None => drop(mapping.remove(last.as_str())),
    }
    tree
}

/// Every key of the file that has a value of its own, by its path.
fn keys(mapping: &Mapping, path: &[String], found: &mut Vec<Vec<String>>) {
    for (key, value) in mapping {
        let key = key.as_str().expect("a key");
        let below = [path, &[key.to_owned()]].concat();
        match value {
            Value::Mapping(children) if !children.is_empty() => keys(children, &below, found),
            Value::Sequence(list) if !list.is_empty() && list.iter().all(has_keys) => {
                for (at, element) in list.iter().enumerate() {
                    let below = [&below[..], &[at.to_string()]].concat();
                    keys(element.as_mapping().expect("a mapping"), &below, found);
                }
            }
            _ => found.push(below),
        }
    }
}

fn has_keys(value: &Value) -> bool {
    value.as_mapping().is_some_and(|mapping| !mapping.is_empty())
}

/// The row of `rows` that is this path, or one above it.
fn covered<'r>(rows: &'r [String], path: &str) -> Option<&'r str> {
    let covers = |row: &&String| {
        path.strip_prefix(row.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    rows.iter().find(covers).map(String::as_str)
}

#[test]
fn every_default_that_is_shown_is_the_one_in_the_code() {
    let file = File::read();
    let shown = file.load(&file.tree).expect("a valid configuration");
    let mut paths = Vec::new();
    keys(file.tree.as_mapping().expect("a mapping"), &[], &mut paths);
    assert!(paths.len() > 200, "{}", paths.len());
    let mut stated: BTreeMap<_, _> = STATED.iter().map(|row| (row.0, row)).collect();
    let mut required: BTreeSet<_> = REQUIRED.iter().copied().collect();
    let examples: Vec<_> = EXAMPLES.iter().map(|row| (*row).to_owned()).collect();
    let mut unused: BTreeSet<_> = EXAMPLES.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in &paths {
        let dotted = path.join(".");
        let without = file.load(&changed(&file.tree, path, None));
        let Some(without) = without else {
            if !required.remove(dotted.as_str()) {
                wrong.push(format!("{dotted} is required"));
            }
            continue;
        };
        if let Some(row) = covered(&examples, &dotted) {
            unused.remove(row);
            if without == shown {
                wrong.push(format!("{dotted} is no example, but shown with its default"));
            }
            continue;
        }
        let row = stated.remove(dotted.as_str());
        match (without == shown, row) {
            (true, None) => {}
            (true, Some(_)) => wrong.push(format!("{dotted} is shown with its default")),
            (false, None) => wrong.push(format!("{dotted} has another default")),
            (false, Some((_, default, words))) => {
                if !file.says(path.last().expect("a key"), words) {
                    wrong.push(format!("{dotted}: no line says {words:?}"));
                }
                let Some(default) = default else { continue };
                let default = serde_yaml::from_str(default).expect("a value");
                let with = file.load(&changed(&file.tree, path, Some(&default)));
                if with.as_ref() != Some(&without) {
                    wrong.push(format!("{dotted}: the default is not {default:?}"));
                }
            }
        }
    }
    wrong.extend(stated.into_keys().map(|path| format!("{path} is not there, or is required")));
    wrong.extend(required.into_iter().map(|path| format!("{path} is not there, or not required")));
    wrong.extend(unused.into_iter().map(|path| format!("{path} is not there")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_default_that_a_commented_out_part_shows_is_the_one_in_the_code() {
    let file = File::read();
    let mut wrong = Vec::new();
    for part in COMMENTED {
        let (at, content) = (pieces(part.at), file.commented(part.begins));
        let mut tree = file.tree.clone();
        let mapping = place(&mut tree, &at);
        if let Some(key) = part.instead_of {
            mapping.remove(key).expect("what it takes the place of");
        }
        mapping.extend(content.clone());
        let Some(shown) = file.load(&tree) else {
            wrong.push(format!("{}: {} is not valid", part.at, part.begins));
            continue;
        };
        let under = format!("{}.{}", part.at, part.under);
        let examples: Vec<_> = part.examples.iter().map(|key| format!("{under}.{key}")).collect();
        let mut unused: BTreeSet<_> = examples.iter().map(String::as_str).collect();
        let mut paths = Vec::new();
        keys(&content, &at, &mut paths);
        for path in &paths {
            let dotted = path.join(".");
            let is_default = file.load(&changed(&tree, path, None)).as_ref() == Some(&shown);
            let example = covered(&examples, &dotted);
            if let Some(row) = example {
                unused.remove(row);
            }
            match (is_default, example) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(_)) => wrong.push(format!("{dotted} is shown with its default")),
                (false, None) => wrong.push(format!("{dotted} has another default, or none")),
            }
        }
        wrong.extend(unused.into_iter().map(|path| format!("{path} is not there")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
