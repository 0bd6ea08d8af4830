//! What `docs/` and the README show works: configurations, commands, links, and the names in them.
//!
//! A fence's words say what a block is. `yaml`: a whole configuration; `yaml fragment`: sections of one;
//! `yaml other`: a file of another program. `sh` and `console`: lines that begin with `portcullis` are run;
//! `sh no-run`: they need a running gateway, so only the command line is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};
use tempfile::TempDir;

use crate::causes::words;
use crate::reference;
use crate::support::keys::anchor;
use crate::support::{Authority, Finished, Gateway, Plan, Upstream, at_once, refused_address};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Page {
    path: PathBuf,
    text: String,
}

/// A fenced block.
struct Block<'a> {
    page: &'a Page,
    line: usize,
    /// The words behind the fence.
    words: Vec<&'a str>,
    text: String,
}

impl Page {
    fn read(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        Page { path, text }
    }

    /// As it is named in messages.
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    fn is_readme(&self) -> bool {
        self.path == root().join("README.md")
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let (mut blocks, mut open) = (Vec::new(), None::<(usize, Block<'_>)>);
        for (number, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(words)) => {
                    let words = words.split_whitespace().collect();
                    let block = Block { page: self, line: number + 1, words, text: String::new() };
                    open = Some((indent, block));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
                (Some((indent, block)), None) => {
                    block.text += line.get(*indent..).unwrap_or_default();
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.name());
        blocks
    }

    /// The lines outside of blocks, with their numbers.
    fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let numbered = self.text.lines().enumerate().map(|(number, line)| (number + 1, line));
        numbered
            .filter(|(_, line)| {
                let fence = line.trim_start().starts_with("```");
                inside ^= fence;
                !inside && !fence
            })
            .collect()
    }

    /// The words in code spans, with their lines.
    fn spans(&self) -> Vec<(usize, &str)> {
        let spans = |(number, line)| spans(line).into_iter().map(move |span| (number, span));
        self.prose().into_iter().flat_map(spans).collect()
    }
}

impl Block<'_> {
    fn is(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn place(&self) -> String {
        format!("{}:{}", self.page.name(), self.line)
    }
}

fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The pages of `docs/`.
fn docs() -> Vec<Page> {
    let (mut folders, mut pages) = (vec![root().join("docs")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "md" => pages.push(Page::read(path)),
                Some(_) | None => {}
            }
        }
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(pages.len() > 20, "{}", pages.len());
    pages
}

/// These, and the README.
fn with_readme() -> Vec<Page> {
    docs().into_iter().chain([Page::read(root().join("README.md"))]).collect()
}

/// A folder with what configurations and commands name.
fn prepared() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let descriptors = std::fs::read(root().join("conf/gateway.binpb")).expect("descriptors");
    std::fs::create_dir(at("conf")).expect("a folder");
    std::fs::copy(root().join("conf/portcullis.yaml"), at("conf/portcullis.yaml")).expect("a copy");
    let authority = Authority::new();
    for name in ["shop", "wild"] {
        let leaf = authority.sign(&format!("{name}.example.com"));
        std::fs::write(at(&format!("{name}.pem")), leaf.pem()).expect("a file");
        std::fs::write(at(&format!("{name}.key")), leaf.key_pem()).expect("a file");
    }
    for (name, content) in [
        ("conf/gateway.binpb", &*descriptors),
        ("gateway.binpb", &*descriptors),
        ("endpoints.yaml", b"[http://127.0.0.1:3000]"),
        ("portcullis.yaml", first_configuration().as_bytes()),
    ] {
        std::fs::write(at(name), content).expect("a file");
    }
    folder
}

/// The six lines of `docs/start.md`.
fn first_configuration() -> String {
    let page = Page::read(root().join("docs/start.md"));
    let blocks = page.blocks();
    let first = blocks.iter().find(|block| block.is("yaml")).expect("a configuration");
    first.text.clone()
}

const VARIABLES: [(&str, &str); 5] = [
    ("DATABASE_URL", "postgres://127.0.0.1:1/none"),
    ("REDIS_URL", "redis://127.0.0.1:1"),
    ("INTROSPECTION_SECRET", "s3cret-of-the-gateway"),
    ("ACME_KEY", "acme-key-0123456789"),
    ("REGISTRY_TOKEN", "token-0123456789abcdef"),
];

fn check(folder: &TempDir, name: &str, yaml: &str, more: &[&str]) -> Finished {
    std::fs::write(folder.path().join(name), yaml).expect("a file");
    let arguments = [&["check", "-c", name], more].concat();
    Gateway::finish(&arguments, folder.path(), &VARIABLES)
}

/// A value that may be one or a list.
fn several(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Sequence(values) => values.iter().flat_map(several).collect(),
        // Of several upstreams each has its name; or the path names one `among` these.
        Value::Mapping(entries) => {
            ["name", "among"].iter().filter_map(|key| entries.get(key)).flat_map(several).collect()
        }
        _ => Vec::new(),
    }
}

/// Sections of a configuration, with what they need of others.
fn completed(fragment: &str) -> String {
    let mut file: Mapping = serde_yaml::from_str(fragment).expect("YAML");
    let routes = file.get("routes").and_then(Value::as_mapping).cloned().unwrap_or_default();
    let mut needs = vec![("listeners", "public".to_owned(), "{address: '127.0.0.1:8082'}")];
    for route in routes.values() {
        let of = |section: &str, names: Vec<String>, value| {
            names.into_iter().map(|name| (section.to_owned(), name, value)).collect::<Vec<_>>()
        };
        let endpoint = "{endpoints: ['http://127.0.0.1:3000']}";
        let key = "{api_key: {keys: {acme: acme-key-0123456789}}}";
        let budget = several(&route["retry"]["budget"]);
        let budget = budget.into_iter().filter(|name| name != "unlimited").collect();
        let found = [
            of("upstreams", several(&route["upstream"]), endpoint),
            of("upstreams", several(&route["fallback"]["upstream"]), endpoint),
            of("auth", several(&route["auth"]["require"]), key),
            of("retry_budgets", budget, "{ratio: {}}"),
            of("descriptors", several(&route["transcode"]["descriptors"]), "{file: gateway.binpb}"),
        ];
        for (section, name, value) in found.into_iter().flatten() {
            let section = ["upstreams", "auth", "retry_budgets", "descriptors"]
                .into_iter()
                .find(|known| *known == section)
                .expect("a section");
            needs.push((section, name, value));
        }
        if !route["idempotency"].is_null() || !route["record"].is_null() {
            needs.push(("record", "store".to_owned(), "{sqlite: {path: rows.db}}"));
        }
    }
    for (section, name, value) in needs {
        let section = file.entry(section.into()).or_insert(Value::Mapping(Mapping::new()));
        let section = section.as_mapping_mut().expect("a mapping");
        section.entry(name.into()).or_insert(serde_yaml::from_str(value).expect("YAML"));
    }
    serde_yaml::to_string(&file).expect("YAML")
}

#[test]
fn every_configuration_that_is_shown_passes_its_check() {
    let (pages, folder) = (with_readme(), prepared());
    let blocks: Vec<Block<'_>> = pages.iter().flat_map(Page::blocks).collect();
    let mut cases = Vec::new();
    for block in blocks.iter().filter(|block| block.is("yaml") && !block.is("other")) {
        let is_whole = block.text.lines().any(|line| line.starts_with("listeners:"));
        // The README says nothing behind its fences.
        let is_manifest = block.text.starts_with("apiVersion:");
        if block.page.is_readme() && is_manifest {
            continue;
        }
        let is_marked = block.is("fragment") || block.page.is_readme();
        assert!(is_whole || is_marked, "{}: a fragment, or of another program?", block.place());
        let name = format!("c{}.yaml", cases.len());
        cases.push(match is_whole {
            true => (block.place(), name, block.text.clone(), &["--deny-warnings"][..]),
            false => (block.place(), name, completed(&block.text), &[][..]),
        });
    }
    assert!(cases.len() > 25, "{}", cases.len());
    for some in cases.chunks(4) {
        at_once(some, |(place, name, yaml, more)| {
            let finished = check(&folder, name, yaml, more);
            assert_eq!(finished.code, Some(0), "{place}: {}\n{yaml}", finished.stderr);
        });
    }
}

#[test]
fn files_of_other_programs_are_yaml() {
    for page in docs() {
        for block in page.blocks().iter().filter(|block| block.is("yaml") && block.is("other")) {
            let read: Result<Value, _> = serde_yaml::from_str(&block.text);
            assert!(read.is_ok(), "{}: {read:?}", block.place());
        }
    }
}

/// A command line's words, up to what a shell would do with its output.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '#' | '|' | '&' | '>' if !quoted && word.is_none() => return words,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.into_iter().chain(word).collect()
}

/// The commands of a block, after `portcullis`.
fn commands(block: &Block<'_>) -> Vec<Vec<String>> {
    if !["sh", "console"].iter().any(|language| block.is(language)) {
        return Vec::new();
    }
    // A line may go on in the next one.
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line));
    let commands = lines.filter_map(|line| line.strip_prefix("portcullis "));
    commands.map(words_of).collect()
}

/// Commands that ask a running gateway, or its record.
const OF_A_GATEWAY: [&str; 4] = ["order", "why", "health", "invocations"];

#[test]
fn every_command_that_is_shown_works() {
    let (pages, folder) = (with_readme(), prepared());
    let mut run = 0;
    for block in pages.iter().flat_map(Page::blocks) {
        for command in commands(&block) {
            let place = format!("{}: portcullis {}", block.place(), command.join(" "));
            let needs_gateway = OF_A_GATEWAY.contains(&command[0].as_str());
            let is_left_out = block.is("no-run") || (block.page.is_readme() && needs_gateway);
            let is_run = !is_left_out;
            assert!(
                !is_run || !needs_gateway,
                "{place}: is there a gateway? Else mark it `no-run`"
            );
            // A start is another test's; here the file is what could be wrong.
            let words = command.iter().map(|word| if word == "run" { "check" } else { word });
            let words: Vec<&str> = words.collect();
            let finished = Gateway::finish(&words, folder.path(), &VARIABLES);
            match is_run {
                true => assert_eq!(finished.code, Some(0), "{place}: {}", finished.stderr),
                false => assert_ne!(finished.code, Some(2), "{place}: {}", finished.stderr),
            }
            run += 1;
        }
    }
    assert!(run > 12, "{run}");
}

#[test]
fn the_first_page_leads_to_a_first_200() {
    let text = first_configuration();
    assert_eq!(text.lines().count(), 6, "six lines: {text}");
    let upstream = Upstream::start();
    let gateway = Plan::new(&text)
        .replacing("127.0.0.1:8082", "'127.0.0.1:${PORT}'")
        .replacing("http://127.0.0.1:3000", &upstream.url())
        .section("admin: {address: '${ADMIN_ADDRESS}'}")
        .start();
    let response = gateway.get("/");
    assert_eq!(response.status, 200);
    assert!(response.header("x-request-id").is_some(), "as the page shows");
    assert_eq!(gateway.get("/orders/7?a=1").status, 200);
}

/// The anchors of a page, as a forge makes them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let (mut anchors, mut times) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for (_, line) in page.prose() {
        let text = line.trim_start_matches('#');
        if text.len() == line.len() || !text.starts_with(' ') {
            continue;
        }
        let name = anchor(&unlinked(text.trim()).replace('`', "").replace(' ', "-"));
        let before = times.entry(name.clone()).or_default();
        anchors.insert(if *before == 0 { name } else { format!("{name}-{before}") });
        *before += 1;
    }
    anchors
}

/// Without the targets of links.
fn unlinked(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.replace('[', "")
}

/// The links of a line: what is linked, and the target.
fn links(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("](") {
        let text = line[..at].rfind('[').map_or("", |from| &line[from + 1..at]);
        let target = line[at + 2..].split_once(')').map_or("", |(target, _)| target);
        found.push((text, target));
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let more = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md"];
    let more = more.iter().map(|name| Page::read(root().join(name)));
    let pages: Vec<Page> = with_readme().into_iter().chain(more).collect();
    let mut targets = BTreeMap::<PathBuf, BTreeSet<String>>::new();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in &pages {
        for (number, line) in page.prose() {
            for (_, target) in links(line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                seen += 1;
                let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
                let folder = page.path.parent().expect("a folder");
                let file = if path.is_empty() { page.path.clone() } else { folder.join(path) };
                if !file.exists() {
                    wrong.push(format!("{}:{number}: {target}", page.name()));
                    continue;
                }
                if fragment.is_empty() {
                    continue;
                }
                let anchors =
                    targets.entry(file.clone()).or_insert_with(|| anchors(&Page::read(file)));
                if !anchors.contains(fragment) {
                    wrong.push(format!("{}:{number}: {target} has no such heading", page.name()));
                }
            }
        }
    }
    assert!(seen > 200, "{seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A table row's cells, each with its column's title.
fn rows(page: &Page) -> Vec<(usize, Vec<(String, &str)>)> {
    let (mut rows, mut titles, mut last) = (Vec::new(), Vec::<String>::new(), 0);
    for (number, line) in page.prose() {
        let Some(line) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'))
        else {
            continue;
        };
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        // A table begins where the line before is in none.
        if number != last + 1 {
            titles = cells.iter().map(|cell| (*cell).to_owned()).collect();
        } else if !line.contains("---") {
            rows.push((number, titles.iter().cloned().zip(cells).collect()));
        }
        last = number;
    }
    rows
}

/// The statuses of a cause's lines of the access log.
fn statuses(cause: &str) -> BTreeSet<u64> {
    let folder = std::fs::read_dir(root().join("tests/golden/causes")).expect("golden files");
    let paths = folder.map(|entry| entry.expect("an entry").path());
    let of_cause = paths.filter(|path| {
        let name = path.file_stem().expect("a name").to_string_lossy();
        name.split('.').next() == Some(cause)
    });
    let status = |path: PathBuf| {
        let text = std::fs::read_to_string(path).expect("text");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        line["http.response.status_code"].as_u64()
    };
    // The others are those of RPC calls, and of clients that have left.
    of_cause
        .filter_map(status)
        .filter(|status| (400..600).contains(status) && *status != 499)
        .collect()
}

#[test]
fn every_cause_is_one_of_the_gateway_and_has_the_status_that_is_shown() {
    let known = words::all();
    let mut seen = 0;
    for page in docs() {
        if page.path.ends_with("troubleshooting.md") {
            continue;
        }
        for (number, line) in page.prose() {
            for (text, target) in links(line) {
                let Some((_, cause)) = target.split_once("troubleshooting.md#") else { continue };
                let Some(named) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`'))
                else {
                    continue;
                };
                let place = format!("{}:{number}: {text}", page.name());
                assert_eq!(named, cause, "{place}");
                assert!(known.contains(cause), "{place}: no such cause");
                seen += 1;
            }
        }
        for (number, row) in rows(&page) {
            let Some((_, causes)) = row.iter().find(|(title, _)| title.starts_with("cause")) else {
                continue;
            };
            let status = row.iter().find(|(title, _)| title == "status").map(|(_, cell)| *cell);
            for (_, target) in links(causes) {
                let Some((_, cause)) = target.split_once("troubleshooting.md#") else { continue };
                let Some(status) =
                    status.filter(|cell| cell.contains(|c: char| c.is_ascii_digit()))
                else {
                    continue;
                };
                let found = statuses(cause);
                let shown = found.is_empty()
                    || found.iter().any(|found| status.contains(&found.to_string()));
                let name = page.name();
                assert!(shown, "{name}:{number}: {cause} has {found:?}, not {status:?}");
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

/// The names in the sources of the metrics.
fn metric_names() -> BTreeSet<String> {
    let (mut folders, mut names) = (vec![root().join("src/observe")], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            names.extend(text.split('"').filter(is_name).map(str::to_owned));
        }
    }
    names
}

#[test]
fn every_metric_that_is_named_exists() {
    let known = metric_names();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in docs() {
        let in_tables = rows(&page).into_iter().flat_map(|(number, row)| {
            let names = row.into_iter().find(|(title, _)| title == "metric");
            spans(names.map_or("", |(_, cell)| cell))
                .into_iter()
                .map(|name| (number, name))
                .collect::<Vec<_>>()
        });
        let in_prose = page.spans().into_iter().filter(|(_, span)| {
            span.starts_with("portcullis_")
                || span.ends_with("_total")
                || span.ends_with("_seconds")
        });
        for (number, span) in in_tables.chain(in_prose) {
            let name = span.split('{').next().unwrap_or_default();
            let name = name.strip_prefix("portcullis_").unwrap_or(name);
            let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_name && !name.starts_with("process_") {
                seen += 1;
                if !known.contains(name) {
                    wrong.push(format!("{}:{number}: {span}", page.name()));
                }
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_metric_is_in_the_page_of_metrics() {
    let page = Page::read(root().join("docs/metrics.md"));
    let policies = "bulkhead: {max_in_flight: 5}\ncircuit_breaker: {consecutive: {failures: 5}}";
    let store = format!("{{shared: {{redis: {{url: 'redis://{}'}}}}}}", refused_address());
    let sections = format!("rate_limit_stores: {store}");
    let upstream = Upstream::start();
    let gateway = Plan::route(policies).section(&sections).upstream(&upstream).start();
    gateway.get("/");
    let metrics = gateway.admin("GET /metrics").text();
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE portcullis_"));
    let names: Vec<&str> = names.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 10, "{names:?}");
    let missing = names.iter().filter(|name| !page.text.contains(&format!("`{name}`")));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// Words with dots that are no keys: members of the access log and of rows, values of templates, files, hosts.
const NO_KEYS: [&str; 12] = [
    "portcullis.",
    "http.",
    "url.",
    "rpc.",
    "client.",
    "network.",
    "request.",
    "response.",
    "error.",
    "org.",
    "server.address",
    "grpc.",
];
const FILES: [&str; 23] = [
    "yaml", "md", "rs", "sh", "db", "pem", "key", "keys", "log", "json", "binpb", "proto", "debug",
    "crt", "internal", "example", "com", "conf", "org", "toml", "txt", "jsonl", "gz",
];

#[test]
fn every_key_that_is_named_exists() {
    let sections = reference::sections();
    let mut paths = BTreeSet::new();
    for section in &sections {
        paths.insert(section.path.clone());
        paths.extend(section.keys.iter().map(|key| section.at(key)));
    }
    // Sections that are described at another place.
    let alike: Vec<(String, String)> = sections
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (section.at(key), &key.kind)))
        .filter_map(|(path, kind)| {
            let other = kind.split("[as `").nth(1)?.split('`').next()?;
            Some((path, other.to_owned()))
        })
        .collect();
    for (path, other) in alike {
        let below = format!("{other}.");
        let copies = paths.iter().filter_map(|one| one.strip_prefix(&below));
        let copies: Vec<String> = copies.map(|rest| format!("{path}.{rest}")).collect();
        paths.extend(copies);
    }
    let names: BTreeSet<&str> =
        paths.iter().flat_map(|path| path.split('.')).filter(|name| *name != "NAME").collect();
    let exists = |span: &str| {
        let top = span.split('.').next().unwrap_or_default();
        let ends = paths.iter().any(|path| path == span || path.ends_with(&format!(".{span}")));
        ends || (!paths.contains(top)
            && paths.iter().any(|path| path.contains(&format!(".{span}."))))
    };
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in docs() {
        let name = page.name();
        // The first is made of the schema; the others name the parts of the code, and keys of other programs.
        let is_of_others = [
            "reference.md",
            "architecture.md",
            "from-spring-cloud-gateway.md",
            "from-nginx-and-haproxy.md",
        ];
        if is_of_others.iter().any(|other| name.ends_with(other)) {
            continue;
        }
        for (number, span) in page.spans() {
            let is_path = span.contains('.')
                && span.split('.').all(|part| {
                    let letters = |c: char| c.is_ascii_lowercase() || c == '_';
                    part == "NAME" || (!part.is_empty() && part.chars().all(letters))
                });
            let is_other = NO_KEYS.iter().any(|other| span.starts_with(other))
                || FILES.iter().any(|end| span.ends_with(&format!(".{end}")));
            if is_path && !is_other {
                seen += 1;
                if !exists(span) {
                    wrong.push(format!("{name}:{number}: {span}"));
                }
            }
            // As in a file: `retries: 3`, `{max: 5}`.
            let key = span.trim_start_matches('{').split_once(": ").map_or("", |(key, _)| key);
            let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_key {
                seen += 1;
                if !names.contains(key) {
                    wrong.push(format!("{name}:{number}: {span}"));
                }
            }
        }
    }
    assert!(names.len() > 150, "{}", names.len());
    assert!(seen > 80, "{seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_path_of_the_admin_listener_is_in_its_page() {
    let source = std::fs::read_to_string(root().join("src/admin/mod.rs")).expect("the source");
    let page = Page::read(root().join("docs/admin.md"));
    let strings = source.split('"').skip(1).step_by(2);
    let paths: Vec<&str> = strings.filter(|text| text.starts_with('/') && text.len() > 1).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        let fixed = || path.split('/').filter(|part| !part.is_empty() && !part.starts_with('{'));
        // All of it that is no name, in one line and in this order.
        let is_there = page.text.lines().any(|line| {
            let mut rest = line;
            fixed().all(|part| match rest.find(&format!("/{part}")) {
                Some(at) => {
                    rest = &rest[at + 1 + part.len()..];
                    true
                }
                None => false,
            })
        });
        assert!(is_there, "{path} is not in {}", page.name());
    }
}

#[test]
fn every_concept_says_its_default_its_refusals_its_metrics_and_its_keys() {
    let concepts = docs().into_iter().filter(|page| {
        page.path.parent().is_some_and(|folder| folder.ends_with("concepts"))
            && !page.path.ends_with("README.md")
    });
    let index = Page::read(root().join("docs/concepts/README.md"));
    let mut seen = 0;
    for page in concepts {
        let anchors = anchors(&page);
        for heading in ["by-default", "what-it-refuses", "metrics", "keys"] {
            assert!(anchors.contains(heading), "{} has no {heading}", page.name());
        }
        let file = page.path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(index.text.contains(&format!("({file})")), "{file} is not in {}", index.name());
        seen += 1;
    }
    assert!(seen > 12, "{seen}");
}

#[test]
fn every_warning_of_the_check_is_in_the_page_of_the_configuration() {
    let source = std::fs::read_to_string(root().join("src/config/code.rs")).expect("the source");
    let page = Page::read(root().join("docs/configuration.md"));
    // As the table of codes has it: Name "name" Warning "what to do";
    let names = source.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" \"")?;
        let (name, rest) = rest.split_once('"')?;
        rest.trim_start().starts_with("Warning \"").then_some(name)
    });
    let known: BTreeSet<&str> = names.collect();
    assert!(known.len() > 15, "{known:?}");
    let rows = rows(&page);
    let cells = rows.iter().filter_map(|(_, row)| row.iter().find(|(title, _)| title == "warning"));
    let shown: BTreeSet<&str> = cells.flat_map(|(_, cell)| spans(cell)).collect();
    assert_eq!(shown, known);
}
