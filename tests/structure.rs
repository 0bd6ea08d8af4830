//! The house stays as it was drawn: who may know whom, and how long a file may get.

use std::path::{Path, PathBuf};

/// Modules, and what of this crate each of them may import besides itself. A module that
/// is not listed may import everything.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("time", &[]),
    ("units", &[]),
    ("coding", &[]),
    ("policy", &["time", "units"]),
    ("routing", &["time", "units"]),
    ("record", &["coding", "time", "units"]),
    ("idempotency", &["policy", "record"]),
    ("transcode", &["coding", "time", "units"]),
    ("upstream", &["config", "policy", "routing", "time", "units"]),
    ("observe", &["config", "policy", "record", "routing", "time", "units", "upstream"]),
    ("config", &["policy", "record", "routing", "time", "transcode", "units", "upstream"]),
    ("limits", &["observe", "policy", "time", "units"]),
    (
        "runtime",
        &[
            "config",
            "idempotency",
            "limits",
            "observe",
            "policy",
            "proxy",
            "admin",
            "record",
            "routing",
            "time",
            "transcode",
            "units",
            "upstream",
        ],
    ),
    (
        "proxy",
        &[
            "coding",
            "config",
            "idempotency",
            "observe",
            "policy",
            "record",
            "routing",
            "runtime",
            "time",
            "transcode",
            "units",
            "upstream",
        ],
    ),
];

/// Lines of code in a file, its tests not counted.
const LONGEST: usize = 350;

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 10, "{files:?}");
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a source file")
}

/// `src/policy/breaker/mod.rs` is of `policy`.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let first = below.expect("a source of ours").iter().next().expect("a name");
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "model.rs")
}

/// The modules of this crate that a text names after `crate::`, in code.
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split("};").next().unwrap_or_default();
                found.extend(group.split(',').map(|part| name(part.trim())));
            }
            None => found.push(name(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_downward_only() {
    let mut wrong = Vec::new();
    for path in sources().iter().filter(|path| !is_test(path)) {
        let module = module_of(path);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for import in imports(without_tests(&read(path))) {
            if import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} may not know {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_request_path_knows_how_the_engine_proxies() {
    for path in sources() {
        let module = module_of(&path);
        if module == "proxy" {
            continue;
        }
        let text = read(&path);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        // The assembly makes the service out of the gateway, and knows no more of it.
        let uses = code.filter(|line| line.contains("pingora_proxy::")).collect::<Vec<_>>();
        let assembles = module == "runtime" && uses.iter().all(|l| l.contains("http_proxy"));
        assert!(uses.is_empty() || assembles, "{}: {uses:?}", path.display());
    }
}

#[test]
fn no_policy_reads_a_clock() {
    for path in sources() {
        let text = read(&path);
        let text = without_tests(&text);
        if matches!(module_of(&path).as_str(), "policy" | "routing") && !is_test(&path) {
            for clock in ["Clock::now", "Instant::now", "SystemTime::now"] {
                assert!(!text.contains(clock), "{}: {clock}", path.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in sources() {
        assert!(read(&path).starts_with("//!"), "{}", path.display());
    }
}

#[test]
fn no_file_is_too_long_to_be_one_thing() {
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        let text = read(&path);
        let lines = without_tests(&text).lines().count();
        assert!(lines <= LONGEST, "{}: {lines} lines", path.display());
    }
}
