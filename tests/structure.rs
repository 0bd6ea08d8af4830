//! The house stays as it was drawn: who may import whom, and how long a file may get.
//!
//! The drawing is the table in `src/lib.rs`: documentation and rule are one text.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use imports::{Source, Sources};

/// Lines of code in a file, its tests not counted.
const LONGEST: usize = 350;

/// Read once for all tests.
fn sources() -> &'static Sources {
    static ALL: LazyLock<Sources> =
        LazyLock::new(|| Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));
    assert!(ALL.iter().count() > 200, "the sources are not where they were");
    &ALL
}

/// Modules, and what of this crate each of them may import; `None` is everything.
type Map = BTreeMap<String, Option<Vec<String>>>;

fn map(documentation: &str) -> Map {
    let words = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = documentation.lines().filter_map(|line| line.strip_prefix("//! | ["));
    rows.flat_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [module, _, allowed, ""] = cells[..] else { panic!("three cells and no more: {row}") };
        let allowed = match allowed {
            "everything" => None,
            "nothing" => Some(Vec::new()),
            named => Some(words(named)),
        };
        words(module).into_iter().map(move |module| (module, allowed.clone()))
    })
    .collect()
}

/// Imports that the map does not have.
fn strangers(sources: &Sources, map: &Map) -> Vec<String> {
    let mut wrong = Vec::new();
    for (module, source) in sources.iter().filter(|(module, _)| !module.is_empty()) {
        let Some(allowed) = map.get(&module[0]) else {
            wrong.push(format!("{}: not in the table of src/lib.rs", source.path.display()));
            continue;
        };
        let Some(allowed) = allowed else { continue };
        for (imported, names) in sources.imports(module) {
            if imported[0] != module[0] && !allowed.contains(&imported[0]) {
                wrong.push(format!("{}: may not import {names:?}", source.path.display()));
            }
        }
    }
    wrong
}

#[test]
fn every_file_imports_what_the_table_in_lib_rs_allows_its_module() {
    let sources = sources();
    let map = map(&sources.iter().next().expect("lib.rs").1.text);
    assert!(map.len() > 10, "{map:?}");
    for module in map.keys() {
        assert!(sources.iter().any(|(name, _)| name[..] == [module.clone()]), "no module {module}");
    }
    let wrong = strangers(sources, &map);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_two_files_import_each_other() {
    let circles = sources().circles();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn only_the_request_path_knows_how_the_engine_proxies() {
    for (module, source) in sources().iter() {
        if module.first().is_some_and(|first| first == "proxy") {
            continue;
        }
        let code = source.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        // The assembly makes the service out of the gateway, and knows no more of it.
        let uses = code.filter(|line| line.contains("pingora_proxy::")).collect::<Vec<_>>();
        let assembles = module.first().is_some_and(|first| first == "runtime")
            && uses.iter().all(|l| l.contains("http_proxy"));
        assert!(uses.is_empty() || assembles, "{}: {uses:?}", source.path.display());
    }
}

#[test]
fn no_policy_reads_a_clock() {
    for (module, source) in sources().iter() {
        let is_pure = module.first().is_some_and(|first| first == "policy" || first == "routing");
        // Tests stand at the end of a file.
        let code = source.text.lines().take(source.lines);
        for line in code.filter(|_| is_pure) {
            for clock in ["Clock::now", "Instant::now", "SystemTime::now"] {
                assert!(!line.contains(clock), "{}: {line}", source.path.display());
            }
        }
    }
}

#[test]
fn one_file_implements_the_gateway() {
    let found: Vec<_> = sources()
        .iter()
        .filter(|(_, source)| source.text.contains("impl Gateway {"))
        .map(|(module, _)| module.join("::"))
        .collect();
    assert_eq!(found, ["proxy::gateway"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    for (_, source) in sources().iter() {
        assert!(source.text.starts_with("//!"), "{}", source.path.display());
    }
}

#[test]
fn no_file_is_too_long_to_be_one_thing() {
    for (_, Source { path, lines, .. }) in sources().iter() {
        assert!(*lines <= LONGEST, "{}: {lines} lines", path.display());
    }
}

/// The names below `[dependencies]`.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let (_, section) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
    let (section, _) = section.split_once("\n[").unwrap_or((section, ""));
    let names = section.lines().filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name).filter(|name| !name.starts_with('#')).collect()
}

/// So that the first `make demo` of a clean clone compiles the gateway and little else.
#[test]
fn the_demo_depends_on_nothing_that_the_gateway_does_not() {
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
    };
    let (gateway, demo) = (read("Cargo.toml"), read("demo/Cargo.toml"));
    let (gateway, demo) = (dependencies(&gateway), dependencies(&demo));
    assert!(demo.contains("tokio") && !gateway.contains("proptest"), "{demo:?} {gateway:?}");
    let more: Vec<_> = demo.difference(&gateway).collect();
    assert!(more.is_empty(), "{more:?}");
}

/// The guard itself, given files that it must not let pass.
mod given_a_violation {
    use super::*;

    fn files(files: &[(&str, &str)]) -> Sources {
        Sources::of(files.iter().map(|(path, text)| (path.into(), (*text).to_owned())))
    }

    fn wrong(text: &str) -> Vec<String> {
        let table = "//! | [`low`] | pure | nothing |\n//! | [`high`] | the rest | `low` |\n";
        let sources = files(&[
            ("low/mod.rs", "pub mod inner;"),
            ("low/inner.rs", text),
            ("high.rs", "pub struct High; pub fn high() {}"),
        ]);
        strangers(&sources, &map(table))
    }

    #[test]
    fn an_import_upward_is_seen_wherever_it_stands() {
        for text in [
            "use crate::high::High;",
            "use crate::{high::{self, High as Low}};",
            "use super::super::high;",
            "#[cfg(test)] mod tests { } use crate::high::High;",
            "fn f() { use crate::high::high; }",
            "fn f() { crate::high::high(); }",
            "fn f() { println!(\"{:?}\", crate::high::high()); }",
            "fn f(of: &crate::high::High) {}",
        ] {
            assert_eq!(wrong(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn what_only_tests_import_and_what_only_looks_like_an_import_is_not_one() {
        for text in [
            "#[cfg(test)] mod tests { use crate::high::High; }",
            "#[cfg(all(test, unix))] use crate::high::High;",
            "// use crate::high::High;\nconst TEXT: &str = \"crate::high::High\";",
            "use std::high::High;",
        ] {
            assert!(wrong(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_module_that_the_table_does_not_name_is_told() {
        let wrong = strangers(&files(&[("new.rs", "")]), &map("//! | [`low`] | | nothing |"));
        assert_eq!(wrong, ["new.rs: not in the table of src/lib.rs"]);
    }

    #[test]
    fn a_circle_is_seen_over_others_and_through_names_that_are_passed_on() {
        let circle = files(&[
            ("a/mod.rs", "mod one; mod two; mod three; pub use two::Two;"),
            ("a/one.rs", "use super::Two;"),
            ("a/two.rs", "use super::three; pub struct Two;"),
            ("a/three.rs", "fn f() { super::one::f(); }"),
            ("a/four.rs", "use super::one;"),
        ]);
        assert_eq!(circle.circles().len(), 3, "{:?}", circle.circles());
    }

    #[test]
    fn a_module_and_the_files_that_lie_in_it_may_import_each_other() {
        let home = files(&[
            ("a.rs", "mod part; use part::Part; pub struct Whole;"),
            ("a/part.rs", "use super::Whole; pub struct Part;"),
        ]);
        assert!(home.circles().is_empty());
    }

    #[test]
    fn the_lines_of_tests_do_not_count_but_those_after_them_do() {
        let text = "//! Text.\nfn f() {}\n#[cfg(test)]\nmod tests {\n}\nfn g() {}\n";
        let sources = files(&[("a.rs", text)]);
        assert_eq!(sources.iter().next().expect("a file").1.lines, 3);
    }
}
