//! The schema that editors check a configuration by.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::support::Gateway;

/// What `portcullis schema` prints.
fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let finished = Gateway::finish(&["schema"], Path::new("."), &[]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        serde_json::from_str(&finished.stdout).expect("JSON")
    });
    &SCHEMA
}

fn validator() -> &'static Validator {
    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::draft202012::new(schema()).expect("a schema"));
    &VALIDATOR
}

/// A file as an editor gives it to a validator: aliases and merge keys resolved, keys as text.
fn read(yaml: &str) -> Value {
    fn json(value: serde_yaml::Value) -> Value {
        match value {
            serde_yaml::Value::Mapping(entries) => {
                let text = |key| match key {
                    serde_yaml::Value::String(text) => text,
                    other => serde_yaml::to_string(&other).expect("a key").trim().to_owned(),
                };
                entries.into_iter().map(|(key, value)| (text(key), json(value))).collect()
            }
            serde_yaml::Value::Sequence(values) => values.into_iter().map(json).collect(),
            other => serde_json::to_value(other).expect("a scalar"),
        }
    }
    let mut value: serde_yaml::Value = serde_yaml::from_str(yaml).expect(yaml);
    value.apply_merge().expect(yaml);
    json(value)
}

fn errors(yaml: &str) -> Vec<String> {
    let value = read(yaml);
    let errors = validator().iter_errors(&value);
    errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Whether the executable accepts the file.
fn loads(yaml: &str) -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), yaml).expect("a file");
    let finished = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]);
    finished.code == Some(0)
}

fn conf() -> impl Iterator<Item = (String, String)> {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf"));
    let paths = files.expect("conf").map(|entry| entry.expect("an entry").path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    yaml.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).expect("text")))
}

#[test]
fn every_file_of_conf_is_valid_under_the_schema() {
    let mut files = 0;
    for (path, text) in conf() {
        let found = errors(&text);
        assert!(found.is_empty(), "{path}: {found:#?}");
        files += 1;
    }
    assert!(files >= 6, "{files}");
}

/// Sections that are valid, between listeners and routes.
const RIGHT: &[&str] = &[
    "server: {threads: '${THREADS:-2}', drain_timeout: '${DRAIN:-5s}', huge_pages: '${HUGE:-false}'}",
    "server:",
    "server: {drain_timeout: 0, shutdown_delay: 1m 30s}",
    "server: {drain_timeout: 1h 2min 3 seconds, shutdown_delay: 1.5s}",
    "x-anchors: {any: [thing]}\nserver: {}",
    "x-base: &base {drain_timeout: 5s}\nserver: {<<: *base, threads: 1}",
    "admin: {hosts: [portcullis.internal, '*.svc.cluster.local']}",
    "client_address: {trusted_proxies: ['10.0.0.0/8, ::1', '${PROXIES:-127.0.0.1}']}",
    "rate_limit_headers: {on: always, ietf: '${IETF:-true}'}",
    "access_log: {to: off, keep: {success: 5%, refusals: '20/s'}, mask: [consumer]}",
    "access_log: {to: {file: access.log}, format: text}",
    "log: {level: 'info,portcullis::record=debug', format: json}",
    "traces: {sample: 0.5%}",
    "record: {store: {sqlite: {path: null, max_size: 1.5 GB}}, queue: 5, fsync: false}",
    "record: {store: {postgres: {url: ''}}, journal: {max_size: 0}}",
    "auth: {p: {api_key: {keys: {acme: 1234567890123456}}}}",
    "auth: {p: {api_key: {keys: {acme: {key: 's3cr3t-s3cr3t-s3cr3t', scopes: [a]}}}}}",
    "auth: {p: {jwt: {audience: any, algorithms: [HS256], secret: 0123456789abcdef, cache: {ttl: 0}}}}",
    "retry_budgets: {b: {ratio: {}}, c: {token_bucket: {capacity: 1, refill_per_second: 0.5}}}",
    "upstreams: {u: {endpoints: ['HTTP://127.0.0.1:3000/base'], tls: {verify: false}}}",
    "upstreams: {u: {discover: {kubernetes: {service: orders, port: 8080, namespace: '${NS:-shop}'}}}}",
    "upstreams: {u: {discover: {kubernetes: {service: orders, port: http, api: 'https://a', watch_timeout: 1m}}}}",
    "upstreams: {u: {discover: {consul: {service: orders, tags: v1, token: '${T:-0123456789abcdef}', wait: 5m}}}}",
    "upstreams: {u: {discover: {consul: {service: 'a b', tags: [v1, v2], address: 'https://a', passing_only: false}}}}",
    "upstreams: {u: {discover: {eureka: {service: orders, address: 'http://u:p@a/eureka', prefer: host, port: secure}}}}",
    "upstreams: {u: {discover: {eureka: {service: orders, address: ['http://a', 'https://b/eureka'], every: 30s}}}}",
    "upstreams: {u: {endpoints: ['http://a:1'], circuit_breaker: {window: {time: 60s}}}}",
    "upstreams: {u: {endpoints: ['http://a:1'], health: {http: {path: '/h?a=1', expect: [2xx, 301]}, interval: 5s}}}",
    "upstreams: {u: {endpoints: ['http://a:1'], protocol: h2c, health: {grpc: {}, jitter: 0%, healthy: 1}}}",
    "routes: {r: {serve: health, match: {host: ['*.a.example'], path: [/a, '/b/:id/*'], methods: GET}}}",
    "routes: {r: {serve: live, status_map: {404: 410}, error_codes: {base: connect, 501: internal}}}",
    "routes: {r: {serve: live, rate_limit: {fixed_window: {requests: 1, per: 1m}, key: [route, {header: X-A}]}}}",
    "routes: {r: {serve: live, headers: {response: {set: {X-A: '{request.id}'}, remove: [Server]}}}}",
    "routes: {r: {serve: live, cors: {origins: ['*'], methods: ['*']}}}",
    "routes: {r: {serve: live, fallback: {json: null, status: 503}}}",
    "routes: {r: {match: {scheme: http}, redirect: {scheme: https, port: '${PORT:-8443}'}}}",
    "routes: {r: {match: {path: '/a/:id/*'}, redirect: {to: 'https://[::1]:8443/b/{id}/{*}', query: drop, status: 303}}}",
    "routes: {r: {redirect: {strip_prefix: /a, add_prefix: /b, host: a.example}}}",
    "routes: {r: {respond: {}, timeout: {min_upload_rate: 0, upload_grace: 1s, min_download_rate: 1KiB}}}",
    "routes: {r: {respond: {status: 503, body: '<p>', content_type: text/html, headers: {Retry-After: '1'}}}}",
];

#[test]
fn what_the_loader_accepts_is_valid() {
    let mut amiss = Vec::new();
    for section in RIGHT {
        let yaml =
            format!("listeners: {{public: {{address: '127.0.0.1:${{PORT:-8080}}'}}}}\n{section}\n");
        let found = errors(&yaml);
        if !loads(&yaml) || !found.is_empty() {
            amiss.push(format!("{section}: loads: {}, schema: {found:?}", loads(&yaml)));
        }
    }
    assert!(amiss.is_empty(), "{amiss:#?}");
}

/// Mistakes of form, and the place that each is reported at.
const WRONG: &[(&str, &str)] = &[
    ("sever: {}", ""),
    ("server: {thread: 1}", "/server"),
    ("server: [1]", "/server"),
    ("server: {threads: many}", "/server/threads"),
    ("server: {threads: -1}", "/server/threads"),
    ("server: {drain_timeout: 25}", "/server/drain_timeout"),
    ("server: {drain_timeout: 25 parsecs}", "/server/drain_timeout"),
    ("server: {huge_pages: 'yes'}", "/server/huge_pages"),
    ("listeners: {public: {}}", "/listeners/public"),
    ("listeners: {public: {address: 80}}", "/listeners/public/address"),
    ("listeners: {public: {address: 'a:1', http2: {max_streams: 0}}}", "/listeners/public/http2"),
    (
        "listeners: {public: {address: 'a:1', max_header_bytes: 65536}}",
        "/listeners/public/max_header",
    ),
    ("listeners: {public: {address: 'a:1', tls: {certificates: []}}}", "/listeners/public/tls"),
    ("client_address: {trusted_proxies: 10.0.0.0/8}", "/client_address/trusted_proxies"),
    ("identifiers: {request_id: 'a b'}", "/identifiers/request_id"),
    ("flood_guard: {requests: 0}", "/flood_guard"),
    ("rate_limit_headers: {on: never}", "/rate_limit_headers/on"),
    ("rate_limit_stores: {s: {memcached: {}}}", "/rate_limit_stores/s"),
    ("record: {journal: {max_size: 1GiBB}}", "/record/journal/max_size"),
    ("record: {journal: {when_full: panic}}", "/record/journal/when_full"),
    ("record: {queue: 0}", "/record/queue"),
    ("record: {default: {mode: sometimes}}", "/record/default/mode"),
    ("record: {default: {capture: {name: body.name}}}", "/record/default/capture/name"),
    ("access_log: {to: syslog}", "/access_log/to"),
    ("access_log: {keep: {refusals: 10}}", "/access_log/keep/refusals"),
    ("log: {format: xml}", "/log/format"),
    ("log: {level: loud}", "/log/level"),
    ("otlp: {protocol: http/json}", "/otlp/protocol"),
    ("traces: {sample: 0.5}", "/traces/sample"),
    ("traces: {sample: 101%}", "/traces/sample"),
    ("auth: {a: {basic: {}}}", "/auth/a"),
    ("auth: {a: {api_key: {keys: {}}}}", "/auth/a"),
    ("auth: {a: {jwt: {audience: any, algorithms: [none], secret: 0123456789abcdef}}}", "/auth/a"),
    ("auth: {a: {jwt: {audience: any, secret: 0123456789abcdef}}}", "/auth/a"),
    ("retry_budgets: {b: {share: 20%}}", "/retry_budgets/b"),
    ("upstreams: {u: {endpoints: []}}", "/upstreams/u/endpoints"),
    ("upstreams: {u: {endpoints: [a:3000]}}", "/upstreams/u/endpoints/0"),
    ("upstreams: {u: {discover: {kubernetes: {service: Orders}}}}", "/upstreams/u/discover"),
    ("upstreams: {u: {discover: {kubernetes: {service: a, port: 0}}}}", "/upstreams/u/discover"),
    ("upstreams: {u: {discover: {consul: {service: a, tags: []}}}}", "/upstreams/u/discover"),
    ("upstreams: {u: {discover: {consul: {service: ''}}}}", "/upstreams/u/discover"),
    ("upstreams: {u: {discover: {eureka: {service: a}}}}", "/upstreams/u/discover"),
    (
        "upstreams: {u: {discover: {eureka: {service: a, address: 'http://a', port: 80}}}}",
        "/upstreams/u/discover",
    ),
    ("upstreams: {u: {endpoints: ['http://a'], protocol: http3}}", "/upstreams/u/protocol"),
    (
        "upstreams: {u: {endpoints: ['http://a'], circuit_breaker: {failure_on: [3xx]}}}",
        "/upstreams/u",
    ),
    (
        "upstreams: {u: {endpoints: ['http://a'], circuit_breaker: {consecutive: {}}}}",
        "/upstreams/u",
    ),
    (
        "upstreams: {u: {endpoints: ['http://a'], health: {http: {path: health}}}}",
        "/upstreams/u/health",
    ),
    (
        "upstreams: {u: {endpoints: ['http://a'], health: {http: {path: /, expect: [100]}}}}",
        "/upstreams/u/health",
    ),
    ("upstreams: {u: {endpoints: ['http://a'], health: {tcp: {port: 1}}}}", "/upstreams/u/health"),
    ("descriptors: {d: a.binpb}", "/descriptors/d"),
    ("routes: {r: {serve: everything}}", "/routes/r/serve"),
    ("routes: {r: {redirect: {to: /new}}}", "/routes/r/redirect"),
    ("routes: {r: {redirect: {path: /new, status: 304}}}", "/routes/r/redirect"),
    ("routes: {r: {match: {scheme: ftp}, serve: live}}", "/routes/r/match/scheme"),
    ("routes: {r: {respond: {status: 99}}}", "/routes/r/respond"),
    ("routes: {r: {respond: {content_type: html}}}", "/routes/r/respond"),
    ("routes: {r: {reties: {}}}", "/routes/r"),
    ("routes: {r: {match: {path: users}}}", "/routes/r/match/path"),
    ("routes: {r: {match: {path: []}}}", "/routes/r/match/path"),
    ("routes: {r: {match: {methods: [get]}}}", "/routes/r/match/methods"),
    ("routes: {r: {match: {slashes: lax}}}", "/routes/r/match/slashes"),
    ("routes: {r: {auth: {scopes: [a]}}}", "/routes/r/auth"),
    ("routes: {r: {auth: {require: []}}}", "/routes/r/auth"),
    ("routes: {r: {rate_limit: {fixed_window: {requests: 1}}}}", "/routes/r/rate_limit"),
    ("routes: {r: {rate_limit: [{leaky_bucket: {}}]}}", "/routes/r/rate_limit"),
    ("routes: {r: {idempotency: {methods: [GET]}}}", "/routes/r/idempotency"),
    ("routes: {r: {idempotency: {release_on: [200]}}}", "/routes/r/idempotency"),
    ("routes: {r: {bulkhead: {max_in_flight: 0}}}", "/routes/r/bulkhead"),
    ("routes: {r: {bulkhead: {max_in_flight: 1, status: 500}}}", "/routes/r/bulkhead"),
    ("routes: {r: {bulkhead: {max_in_flight: 1, queue: {max: 0}}}}", "/routes/r/bulkhead"),
    ("routes: {r: {timeout: {total: 1s}}}", "/routes/r/timeout"),
    ("routes: {r: {retry: {max_retries: 11}}}", "/routes/r/retry"),
    ("routes: {r: {retry: {on: []}}}", "/routes/r/retry"),
    ("routes: {r: {retry: {backoff: {factor: 0.5}}}}", "/routes/r/retry"),
    ("routes: {r: {fallback: {on: [rain], json: {}}}}", "/routes/r/fallback"),
    ("routes: {r: {rewrite: {strip_prefix: api}}}", "/routes/r/rewrite"),
    ("routes: {r: {headers: {request: {set: [X-A]}}}}", "/routes/r/headers/request/set"),
    ("routes: {r: {max_body: 10}}", "/routes/r/max_body"),
    ("routes: {r: {errors: html}}", "/routes/r/errors"),
    ("routes: {r: {error_codes: {200: ok}}}", "/routes/r/error_codes"),
    ("routes: {r: {status_map: {100: 200}}}", "/routes/r/status_map"),
    ("routes: {r: {cors: {origins: [shop.example]}}}", "/routes/r/cors"),
    ("routes: {r: {websocket: {idle_timeout: -1s}}}", "/routes/r/websocket"),
    ("routes: {r: {transcode: {descriptors: d, unknown_fields: keep}}}", "/routes/r/transcode"),
    ("include: {routes: a.yaml}", "/include"),
];

#[test]
fn every_mistake_of_form_is_invalid_at_its_place() {
    let mut amiss = Vec::new();
    for (yaml, place) in WRONG {
        let found = errors(yaml);
        if !found.iter().any(|error| error.starts_with(place)) {
            amiss.push(format!("{yaml}: {found:?}"));
        }
        assert!(!loads(yaml), "not a mistake: {yaml}");
    }
    assert!(amiss.is_empty(), "{amiss:#?}");
}

/// An included file is a part of a configuration: it has no listeners of its own.
#[test]
fn a_file_with_includes_and_one_that_is_included_are_valid() {
    for yaml in
        ["include: routes/*.yaml", "include: [a.yaml, b.yaml]", "routes: {r: {serve: live}}"]
    {
        assert!(errors(yaml).is_empty(), "{yaml}: {:?}", errors(yaml));
    }
}

/// The names of all keys that the schema knows.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    let Value::Object(members) = schema else {
        if let Value::Array(several) = schema {
            several.iter().for_each(|schema| keys(schema, found));
        }
        return;
    };
    for (name, member) in members {
        if name == "properties" {
            found.extend(member.as_object().expect("properties").keys().cloned());
        }
        if name != "default" {
            keys(member, found);
        }
    }
}

#[test]
fn the_reference_file_and_the_schema_have_the_same_keys() {
    let mut known = BTreeSet::new();
    keys(schema(), &mut known);
    assert!(known.len() > 150, "{known:?}");
    let (_, text) = conf().find(|(path, _)| path.ends_with("/portcullis.yaml")).expect("the file");
    let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut commented = 0;
    // Keys in comments; those outside are held by the validity of the file.
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("# ")) {
        let line = line.trim_start().trim_start_matches("- ");
        let Some((key, rest)) = line.split_once(':') else { continue };
        // Prose has a colon, too, but several words behind it.
        let value = rest.trim_start().split("  ").next().unwrap_or_default();
        let is_value = value.starts_with(['{', '[', '"']) || !value.contains([' ', '`']);
        if !key.is_empty() && key.chars().all(is_key) && is_value {
            assert!(known.contains(key), "the schema does not know `{key}`: {line}");
            commented += 1;
        }
    }
    assert!(commented > 15, "{commented}");
    let words: BTreeSet<&str> = text.split(|c: char| !is_key(c)).collect();
    let missing: Vec<_> = known.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "not in conf/portcullis.yaml: {missing:?}");
}

#[test]
fn every_key_says_what_it_is() {
    fn walk(schema: &Value, path: &str, silent: &mut Vec<String>) {
        let Value::Object(members) = schema else { return };
        for (name, member) in members {
            let path = format!("{path}/{name}");
            if name == "properties" {
                for (key, schema) in member.as_object().expect("properties") {
                    // A variant of an enum is described beside its only key.
                    let described = schema.get("description").or(members.get("description"));
                    if described.is_none() {
                        silent.push(format!("{path}/{key}"));
                    }
                    walk(schema, &path, silent);
                }
            } else if let Value::Array(several) = member {
                several.iter().for_each(|schema| walk(schema, &path, silent));
            } else {
                walk(member, &path, silent);
            }
        }
    }
    let mut silent = Vec::new();
    walk(schema(), "", &mut silent);
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn defaults_bounds_and_words_are_in_the_schema() {
    let route = &schema()["$defs"]["Route"]["properties"];
    assert_eq!(route["max_body"]["default"], "10MiB");
    assert_eq!(schema()["$defs"]["Timeouts"]["properties"]["request"]["default"], "1m");
    let streams = &schema()["$defs"]["Http2"]["properties"]["max_streams"];
    assert_eq!(streams["default"], 100);
    assert_eq!(streams["anyOf"][0]["maximum"], 10_000);
    let breaker = &schema()["$defs"]["CircuitBreaker"]["properties"];
    assert!(breaker["failure_on"]["default"].to_string().contains("grpc_unavailable"));
    let text = schema().to_string();
    assert!(text.contains("2020-12") && !text.contains("[`"), "{}", &text[..200]);
}
