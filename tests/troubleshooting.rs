//! `docs/troubleshooting.md` has a section for each cause, with the line that an operator sees.
//!
//! Set `PORTCULLIS_GOLDEN=write` to put the lines of `tests/golden/causes` into it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::causes::words;
use crate::support::Gateway;

/// Members that every line has, and that say nothing about its cause.
const COMMON: [&str; 6] = [
    "portcullis.listener",
    "portcullis.request_id",
    "portcullis.generation",
    "portcullis.outcome",
    "portcullis.retry_budget_tokens",
    "portcullis.route",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> (PathBuf, String) {
    let path = root().join("docs/troubleshooting.md");
    let text = std::fs::read_to_string(&path).expect("the page");
    (path, text)
}

/// The text of each section, by its cause, in the order of the page.
fn sections(page: &str) -> Vec<(String, String)> {
    let parts = page.split("\n### `").skip(1);
    let section = |part: &str| {
        let (cause, text) = part.split_once("`\n").expect("a heading");
        let text = text.split("\n## ").next().unwrap_or(text);
        (cause.to_owned(), text.to_owned())
    };
    parts.map(section).collect()
}

/// What is particular about the golden line of `cause`, if it can be provoked.
fn golden(cause: &str) -> Option<Map<String, Value>> {
    let folder = root().join("tests/golden/causes");
    let named = |name: String| std::fs::read_to_string(folder.join(name)).ok();
    let entries = std::fs::read_dir(&folder).expect("golden files");
    let names: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!("{cause}.")))
        .collect();
    let text = named(format!("{cause}.json")).or_else(|| named(names.first()?.clone()))?;
    let line: Map<String, Value> = serde_json::from_str(&text).expect("a golden line");
    let tells = |name: &str, value: &Value| {
        name == "http.response.status_code"
            || ((name.starts_with("portcullis.") || name.starts_with("rpc."))
                && !COMMON.contains(&name)
                && value != "MICROSECONDS"
                && name != "portcullis.earlier_attempts")
    };
    Some(line.into_iter().filter(|(name, value)| tells(name, value)).collect())
}

/// Members in lines of at most 100 characters.
fn shown(line: Map<String, Value>) -> String {
    let members: Vec<_> = line.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", members.join(",\n "))
}

#[test]
fn every_cause_has_its_section_and_no_other_word_has_one() {
    let sections = sections(&page().1);
    let named: BTreeSet<_> = sections.iter().map(|(cause, _)| cause.as_str()).collect();
    assert_eq!(named, words::all());
    assert_eq!(named.len(), sections.len(), "each once");
}

#[test]
fn a_section_says_whose_fault_it_was_what_to_look_at_and_which_key_decides() {
    let conf = std::fs::read_to_string(root().join("conf/portcullis.yaml")).expect("conf");
    for (cause, text) in sections(&page().1) {
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(&format!("- {name}: ")));
            found.unwrap_or_else(|| panic!("{cause} has no `{name}`")).to_owned()
        };
        let fault = line("Fault");
        assert!(["client", "gateway", "upstream"].iter().any(|f| fault.contains(f)), "{cause}");
        if let Some(golden) = golden(&cause) {
            let of_line = golden["portcullis.fault"].as_str().expect("a fault");
            assert!(fault.starts_with(of_line), "{cause}: {fault}, but {of_line}");
        }
        assert!(line("Look at").len() > 20, "{cause}");
        let key = line("Key");
        let keys: Vec<_> = key.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty() || key.starts_with("none"), "{cause}: {key}");
        for key in keys {
            let last = key.rsplit('.').find(|part| part.chars().any(char::is_lowercase));
            let last = last.expect("a key");
            assert!(conf.contains(&format!("{last}:")), "{cause}: {key} is not in conf/");
        }
    }
}

#[test]
fn a_section_shows_the_line_that_an_operator_sees() {
    let write = std::env::var_os("PORTCULLIS_GOLDEN").is_some_and(|value| value == "write");
    let (path, mut text) = page();
    let mut wrong = BTreeMap::new();
    for (cause, section) in sections(&text.clone()) {
        let block = section.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```"));
        let block = block.map(|(block, _)| block.to_owned());
        let expected = golden(&cause).map(shown);
        if block == expected {
            continue;
        }
        if let (Some(block), Some(expected), true) = (&block, &expected, write) {
            let section_now = section.replacen(block.as_str(), expected, 1);
            text = text.replacen(&section, &section_now, 1);
            continue;
        }
        wrong.insert(cause, (block, expected));
    }
    if write {
        std::fs::write(path, &text).expect("written");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The keys that a section names, as they are in a file whose route and upstream are named so.
fn keys(section: &str) -> Vec<String> {
    let line = section.lines().find_map(|line| line.strip_prefix("- Key: ")).expect("a key");
    let keys = line.split('`').skip(1).step_by(2).filter(|_| !line.starts_with("none"));
    let named = |key: &str| {
        key.replace("routes.NAME", "routes.all").replace("upstreams.NAME", "upstreams.service")
    };
    keys.map(named).collect()
}

/// What `portcullis why` says that decided, from the golden line of this file.
fn decided(directory: &Path, golden: &Path) -> Option<String> {
    let text = std::fs::read_to_string(golden).expect("a golden line");
    let mut line: Value = serde_json::from_str(&text).expect("JSON");
    line["portcullis.request_id"] = "req-1".into();
    std::fs::write(directory.join("access.log"), format!("{line}\n")).expect("written");
    let arguments = ["why", "req-1", "-c", "none.yaml", "--log", "access.log"];
    let finished = Gateway::finish(&arguments, directory, &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let told = finished.stdout.lines().find_map(|line| line.trim().strip_prefix("decided by"));
    told.map(|key| key.trim().to_owned())
}

#[test]
fn why_names_the_key_that_the_page_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let sections: BTreeMap<_, _> = sections(&page().1).into_iter().collect();
    let folder = std::fs::read_dir(root().join("tests/golden/causes")).expect("golden files");
    let mut wrong = Vec::new();
    for path in folder.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let keys = keys(&sections[name.split('.').next().expect("a cause")]);
        let decided = decided(directory.path(), &path);
        let fits = match &decided {
            // The caller's own time is in no file.
            None => keys.is_empty() || name.ends_with(".of_the_caller"),
            // Which of several it was is not known.
            Some(route) if route == "routes.all" => keys.len() != 1,
            Some(decided) => keys.iter().any(|key| key.starts_with(decided.as_str())),
        };
        if !fits {
            wrong.push(format!("{name}: {decided:?}, but the page has {keys:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
