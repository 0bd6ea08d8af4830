//! `docs/reference.md` has every key of the configuration, with its default and what a reload does to it.
//!
//! It is made of the schema, and of what the real gateway does when a key changes. Set
//! `PORTCULLIS_GOLDEN=write` to write it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::support::keys::{self, Section};
use crate::support::{Authority, Gateway, Plan, Port, eventually};

/// What the reloads begin with.
const BASE: &str = "
server: {threads: 2, drain_timeout: 5s}
listeners: {public: {address: '127.0.0.1:${PORT}'}}
admin: {address: '${ADMIN_ADDRESS}'}
record: {store: {sqlite: {path: '${PORTCULLIS_DATA}/portcullis.db'}}}
auth: {partners: {api_key: {keys: {acme: acme-key-0123456789}}}}
upstreams: {service: {endpoints: ['http://127.0.0.1:9']}}
routes: {all: {match: {path: /*}, upstream: service}}
";

/// Keys, each with another value than in [`BASE`]. A row holds for the key and all below it that have no
/// row of their own. In these places `NAME` is `public`, `partners`, `service` or `all`.
const CHANGES: &[(&str, &str)] = &[
    ("include", "[more-*.yaml]"),
    ("server.threads", "1"),
    ("server.drain_timeout", "7s"),
    ("server.shutdown_delay", "1s"),
    ("server.max_connections", "50"),
    ("server.upstream_pool", "50"),
    ("server.watch", "true"),
    ("server.watch_secrets", "7s"),
    ("server.watch_certificates", "7s"),
    ("server.huge_pages", "true"),
    ("server.via", "false"),
    ("server.upgrade_socket", "/tmp/portcullis-upgrade-of-the-reference.sock"),
    ("server.upgrade_timeout", "7s"),
    ("server.retry_jitter_seed", "42"),
    (
        "listeners",
        "{public: {address: '127.0.0.1:${PORT}'}, other: {address: '127.0.0.1:${OTHER_PORT}'}}",
    ),
    ("listeners.NAME.address", "127.0.0.1:${OTHER_PORT}"),
    ("listeners.NAME.header_timeout", "7s"),
    ("listeners.NAME.idle_timeout", "7s"),
    ("listeners.NAME.max_connections", "70"),
    ("listeners.NAME.max_connections_per_address", "7"),
    ("listeners.NAME.max_connection_age", "7m"),
    ("listeners.NAME.max_requests_per_connection", "7000"),
    ("listeners.NAME.networks", "{deny: [192.0.2.0/24]}"),
    ("listeners.NAME.proxy_protocol", "{from: [192.0.2.0/24]}"),
    ("listeners.NAME.max_header_bytes", "7KiB"),
    ("listeners.NAME.max_path_bytes", "7KiB"),
    ("listeners.NAME.http2", "{max_streams: 7}"),
    ("listeners.NAME.tls", "{certificates: [{certificate: edge.pem, key: edge.key}]}"),
    ("admin.address", "127.0.0.1:1"),
    ("admin.socket", "/tmp/portcullis-of-the-reference.sock"),
    ("admin.token", "0123456789abcdef"),
    ("admin.hosts", "[portcullis.internal]"),
    ("client_address", "{trusted_proxies: [10.0.0.0/8]}"),
    ("identifiers", "{request_id: X-Id}"),
    ("flood_guard", "{requests: 1000}"),
    ("rate_limit_headers", "{ietf: true}"),
    ("rate_limit_stores", "{shared: {redis: {url: ''}}}"),
    ("record.store.postgres", "{url: 'postgres://127.0.0.1:1/none'}"),
    ("record.store.sqlite.path", "other.db"),
    ("record.store.sqlite.max_size", "1GiB"),
    ("record.store.sqlite.when_full", "refuse"),
    ("record.retention", "7d"),
    ("record.queue", "70"),
    ("record.fsync", "false"),
    ("record.commit_timeout", "7s"),
    ("record.drain_timeout", "7s"),
    ("record.batch.max_rows", "7"),
    ("record.batch.max_delay", "7ms"),
    ("record.batch.commit_interval", "2ms"),
    ("record.journal.path", "other-journal.db"),
    ("record.journal.max_size", "2GiB"),
    ("record.journal.when_full", "drop"),
    ("record.default", "{mode: async}"),
    ("log", "{level: warn}"),
    ("access_log", "{keep: {success: 100%}}"),
    ("otlp", "{endpoint: 'http://127.0.0.1:1'}"),
    ("traces.otlp", "{endpoint: 'http://127.0.0.1:1'}"),
    ("traces.service_name", "other"),
    ("traces.default_service_name", "other"),
    ("traces.sample", "7%"),
    ("metrics.otlp", "{endpoint: 'http://127.0.0.1:1'}"),
    ("metrics.interval", "7s"),
    ("metrics.status", "exact"),
    ("auth", "{partners: {api_key: {keys: {acme: other-key-0123456789}}}}"),
    ("retry_budgets", "{few: {token_bucket: {capacity: 1, refill_per_second: 1}}}"),
    ("upstreams", "{service: {endpoints: ['http://127.0.0.1:7'], balance: random}}"),
    ("descriptors", "{gateway: {file: gateway.binpb}}"),
    ("defaults", "{timeout: {request: 7s}}"),
    (
        "routes",
        "{all: {match: {path: /*}, upstream: service, max_body: 7MiB}, more: {serve: live, match: {path: /live}}}",
    ),
];

/// Sections of the process, not of a generation: each of their keys has a row of its own.
const OF_THE_PROCESS: [&str; 6] = ["server", "listeners", "admin", "record", "traces", "metrics"];

/// What a reload does beyond taking a section.
const KEPT: &[(&str, &str)] = &[
    (
        "server",
        "The times of the drain are those in force when it begins. `max_connections` ends no connection that is open.",
    ),
    (
        "listeners.NAME",
        "New connections have the new settings, those that are open keep theirs. They drain if the listener is gone or moves, or if `tls` is switched on or off, the authorities of `client_ca` are others, or `networks` or `proxy_protocol` is. Counts go on.",
    ),
    (
        "listeners.NAME.tls",
        "The files that are named here are read again; `server.watch_certificates` does so without a reload. TLS tickets stay valid if certificates and `client_ca` are the same.",
    ),
    ("admin", "A new `token` counts at once."),
    ("otlp", "Exports that stay the same keep their queue and connection; `ca` is read again."),
    (
        "traces",
        "A request ends with the collector that it began with; what waits for one that is left is sent.",
    ),
    (
        "metrics",
        "Counts go on. A collector that is left gets the last values, a new one the first ones at once.",
    ),
    ("flood_guard", "Counts go on if `requests` and `per` are the same."),
    ("rate_limit_stores.NAME", "An unchanged store keeps its connection; `ca` is read again."),
    ("record.default", "Rows under way are not affected."),
    ("log", "Also ends what `POST /log` has set."),
    ("access_log", "The file is opened anew."),
    (
        "auth.NAME",
        "An unchanged authority keeps its keys and what it has verified; a changed one begins anew.",
    ),
    ("retry_budgets.NAME", "An unchanged budget goes on; a changed one begins anew."),
    (
        "upstreams.NAME",
        "An endpoint keeps its state if its URL and the upstream's `tls` stay. Pooled connections stay if what they are made and verified by does.",
    ),
    (
        "upstreams.NAME.circuit_breaker",
        "A circuit goes on if its own configuration is unchanged; else it begins anew, closed.",
    ),
    ("upstreams.NAME.discover", "What the source has named stays, if it is the same source."),
    ("upstreams.NAME.ejection", "With `off`, ejections end."),
    (
        "upstreams.NAME.health",
        "What checks have found stays. Checks of another kind begin at once; until they have decided, the verdict stands.",
    ),
    ("descriptors.NAME", "The file is read again."),
    (
        "routes.NAME",
        "A request ends with the route that it began with. Metrics go on if the name stays.",
    ),
    (
        "routes.NAME.bulkhead",
        "Slots that are taken stay taken, and requests that wait go on waiting; the number changes.",
    ),
    ("routes.NAME.idempotency", "Keys are in the store, and stay."),
    (
        "routes.NAME.rate_limit",
        "A limit that says the same goes on counting, wherever it stands in the list; a changed one begins anew.",
    ),
    (
        "routes.NAME.split",
        "Weights that were ordered, and counts, stay while the upstream is in the list.",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All sections, in the order of `conf/portcullis.yaml`.
pub fn sections() -> Vec<Section> {
    let finished = Gateway::finish(&["schema"], Path::new("."), &[]);
    let schema: Value = serde_json::from_str(&finished.stdout).expect("a schema");
    let conf = std::fs::read_to_string(root().join("conf/portcullis.yaml")).expect("conf");
    let keys = conf.lines().filter(|line| line.starts_with(char::is_lowercase));
    let top: Vec<String> =
        keys.filter_map(|line| line.split_once(':')).map(|(key, _)| key.to_owned()).collect();
    keys::sections(&schema, &top)
}

/// [`BASE`] with another value at `path`.
fn changed(path: &str, value: &str) -> String {
    let mut tree: serde_yaml::Value = serde_yaml::from_str(BASE).expect("YAML");
    let mut place = &mut tree;
    let mut above = "";
    for part in path.split('.') {
        let name = match (part, above) {
            ("NAME", "listeners") => "public",
            ("NAME", other) => panic!("no name for {other}.NAME"),
            (part, _) => part,
        };
        above = part;
        if !place.is_mapping() {
            *place = serde_yaml::Value::Mapping(Default::default());
        }
        let mapping = place.as_mapping_mut().expect("a mapping");
        place = mapping.entry(name.into()).or_insert(serde_yaml::Value::Null);
    }
    *place = serde_yaml::from_str(value).expect("a value");
    serde_yaml::to_string(&tree).expect("YAML")
}

/// Whether a running gateway takes each of [`CHANGES`].
fn taken() -> BTreeMap<&'static str, bool> {
    let edge = Authority::new().sign("edge.test");
    let descriptors = std::fs::read(root().join("conf/gateway.binpb")).expect("descriptors");
    let other = Port::reserve();
    let plan = Plan::new(BASE)
        .env("OTHER_PORT", &other.number.to_string())
        .beside("edge.pem", &edge.pem())
        .beside("edge.key", &edge.key_pem())
        .beside("gateway.binpb", &descriptors)
        .beside("more-1.yaml", "routes: {more: {serve: live, match: {path: /live}}}\n");
    let gateway = plan.start();
    let mut found = BTreeMap::new();
    for (path, value) in CHANGES {
        let before = gateway.log().len();
        let is_taken = gateway.reload(&changed(path, value));
        if !is_taken {
            let needs = "cannot change in a running process";
            let said = eventually("the reason of a refused reload", || {
                let said = gateway.log()[before..].to_owned();
                said.contains("not reloaded").then_some(said)
            });
            assert!(said.contains(needs), "{path}: {value} is refused for another reason: {said}");
        }
        assert!(found.insert(*path, is_taken).is_none(), "{path} is there twice");
    }
    found
}

/// The row for a key, its own or the nearest one above, and whether the change was taken.
fn row<'a>(taken: &BTreeMap<&str, bool>, path: &'a str) -> Option<(&'a str, bool)> {
    let mut path = path;
    loop {
        if let Some(is_taken) = taken.get(path) {
            return Some((path, *is_taken));
        }
        path = path.rsplit_once('.')?.0;
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

const HEAD: &str = "\
# Reference of the configuration

<!-- Written by tests/reference.rs from the schema: PORTCULLIS_GOLDEN=write cargo test --test integration reference:: -->

Every key, with its values, its default, and what a reload (`SIGHUP`) does to it: *taken*, from the next request on; or *restart*, a
reload that changes it is refused as a whole. [`conf/portcullis.yaml`](../conf/portcullis.yaml) shows all of it as one file, and
[Concepts](concepts/README.md) says what it is for. `portcullis schema` prints the same for editors, `portcullis config` what is
in force.

`NAME` stands for a name of yours. A default in words depends on something; without one, the section's own keys have theirs.

## Kinds of values

| kind | is |
|---|---|
| time | a number with its unit: `250ms`, `5s`, `1m 30s`, `24h`; `0` where the text says so |
| size | a number of bytes with its unit: `512B`, `64KiB`, `10MB` |
| share | a number with its sign: `50%` |
| secret | text; better `${VARIABLE}` or `${file:path}` than the secret itself |
| by name | a mapping whose keys are names of yours |

In place of any single value may stand `${VAR}`, `${VAR:-default}`, `${VAR:?why it must be set}` or `${file:path}`. Top-level keys
that begin with `x-` are ignored but for the anchors in them. An unknown key is an error.

";

fn page(sections: &[Section], taken: &BTreeMap<&str, bool>) -> String {
    let mut page = HEAD.to_owned();
    for section in sections {
        if section.path.is_empty() {
            page += "## The file\n\n";
        } else {
            let is_nested = section.path.trim_end_matches(".NAME").contains('.');
            let level = if is_nested { "###" } else { "##" };
            let (path, about) = (&section.path, section.about.trim());
            writeln!(page, "{level} `{path}`\n\n{about}\n").expect("text");
        }
        if let Some((_, kept)) = KEPT.iter().find(|(path, _)| *path == section.path) {
            writeln!(page, "**A reload.** {kept}\n").expect("text");
        }
        page += "| key | values | default | reload | |\n|---|---|---|---|---|\n";
        for key in &section.keys {
            let path = section.at(key);
            let reload = match row(taken, &path) {
                Some((_, true)) => "taken",
                Some((_, false)) => "restart",
                // Its keys differ.
                None => "",
            };
            let key = [&format!("`{}`", key.name), &key.kind, &key.default, reload, &key.about];
            writeln!(page, "| {} |", key.map(cell).join(" | ")).expect("text");
        }
        page += "\n";
    }
    page.trim_end().to_owned() + "\n"
}

#[test]
fn the_reference_says_what_the_schema_says_and_what_a_reload_does() {
    let (sections, taken) = (sections(), taken());
    for section in &sections {
        for key in &section.keys {
            let path = section.at(key);
            if key.kind.contains("[section]") {
                continue;
            }
            let row = row(&taken, &path).map(|(row, _)| row);
            assert!(row.is_some(), "{path} has no row in CHANGES");
            // What holds for some of its keys need not hold for others.
            let of_process = OF_THE_PROCESS.iter().any(|top| row == Some(top));
            assert!(!of_process, "{path} needs a row of its own in CHANGES");
        }
    }
    for (path, _) in KEPT {
        assert!(sections.iter().any(|section| section.path == *path), "there is no {path}");
    }
    let (path, page) = (root().join("docs/reference.md"), page(&sections, &taken));
    if std::env::var_os("PORTCULLIS_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &page).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("the reference");
    let differs = written.lines().zip(page.lines()).find(|(old, new)| old != new);
    assert!(
        written == page,
        "docs/reference.md is not up to date; the first line that differs: {differs:?}"
    );
}
