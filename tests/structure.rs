//! The house stays as it was drawn: who may import whom, and how long a file may get.
//!
//! The drawing is the table in `src/lib.rs`: documentation and rule are one text. What
//! `docs/architecture.md` and the tables of modules repeat of the code is compared with it.

mod documents;
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use imports::Sources;

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

/// What the map allows and no file makes use of.
fn unused(sources: &Sources, map: &Map) -> Vec<String> {
    let mut unused = Vec::new();
    for (module, allowed) in map {
        let files = sources.iter().filter(|(name, _)| name.first() == Some(module));
        let imported: BTreeSet<_> = files
            .flat_map(|(name, _)| sources.imports(name).into_keys())
            .filter_map(|imported| imported.first())
            .collect();
        let allowed = allowed.iter().flatten();
        for name in allowed.filter(|name| !imported.contains(name)) {
            unused.push(format!("{module} may import {name}, and no file of it does"));
        }
    }
    unused
}

#[test]
fn the_table_in_lib_rs_allows_only_what_some_file_imports() {
    let sources = sources();
    let unused = unused(sources, &map(&sources.iter().next().expect("lib.rs").1.text));
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn every_table_of_modules_names_the_modules_of_its_file() {
    let sources = sources();
    let tables = sources.iter().filter(|(_, source)| documents::modules(&source.text).is_some());
    assert!(tables.count() > 5, "the tables are not where they were");
    let wrong = documents::incomplete(sources);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_steps_of_a_request_are_in_the_order_that_architecture_md_has() {
    assert_eq!(documents::steps(&architecture()), documents::steps_in_code());
}

#[test]
fn every_state_chart_of_architecture_md_is_the_one_in_the_code() {
    let page = architecture();
    assert!(documents::charts(&page).len() > 5, "the charts are not where they were");
    let wrong = documents::strange_charts(&page, sources());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn architecture() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    std::fs::read_to_string(page).expect("docs/architecture.md")
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

/// Lines of pure modules that read a clock.
fn clocks(sources: &Sources) -> Vec<String> {
    let clocks = ["Clock::now", "Instant::now", "SystemTime::now"];
    let mut found = Vec::new();
    for (module, source) in sources.iter() {
        let is_pure = module.first().is_some_and(|first| first == "policy" || first == "routing");
        for line in source.code().filter(|_| is_pure) {
            if clocks.into_iter().any(|clock| line.contains(clock)) {
                found.push(format!("{}: {line}", source.path.display()));
            }
        }
    }
    found
}

#[test]
fn no_policy_reads_a_clock() {
    let clocks = clocks(sources());
    assert!(clocks.is_empty(), "{clocks:#?}");
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
    for (_, source) in sources().iter() {
        let lines = source.code().count();
        assert!(lines <= LONGEST, "{}: {lines} lines", source.path.display());
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
            "fn f() { use crate::{high::High}; }",
            "fn f() { if true { use super::super::{high::{self, High as Low}}; } }",
            "macro_rules! m { () => { use $crate::{high::High}; } }",
            "fn f() { use crate::high as low; low::high(); }",
            "#[cfg(not(test))] use crate::high::High;",
            "#[cfg(all(unix, not(test)))] use crate::high::High;",
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
            "fn f() { use std::{high::High}; }",
            "fn f<'a>(of: &'a str) -> impl Sized + use<'a> { of }",
            "#[cfg(any(test, fuzzing))] use crate::high::High;",
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
    fn a_name_that_a_block_gives_ends_with_the_block() {
        let text = "fn f() { use crate::inner::x as y; } fn g() { y::z(); }";
        let sources = files(&[("a.rs", text), ("inner.rs", "")]);
        let (module, _) = sources.iter().next().expect("a file");
        let imports: Vec<_> = sources.imports(module).into_values().flatten().collect();
        assert_eq!(imports, ["inner::x"]);
    }

    #[test]
    fn what_the_table_allows_and_no_file_imports_is_told() {
        let table = "//! | [`high`] | | `low`, `other` |\n//! | [`low`] | | everything |";
        let sources = files(&[
            ("high.rs", "use crate::low::Low;"),
            ("low.rs", "pub struct Low; #[cfg(test)] use crate::other::Other;"),
            ("other.rs", "pub struct Other;"),
        ]);
        let told = ["high may import other, and no file of it does"];
        assert_eq!(unused(&sources, &map(table)), told);
        // Tests may import everything: what they alone import needs no permission.
        let sources = files(&[("low.rs", ""), ("high.rs", "#[cfg(test)] use crate::low::Low;")]);
        assert_eq!(unused(&sources, &map("//! | [`high`] | | `low` |")).len(), 1);
    }

    #[test]
    fn a_policy_that_reads_a_clock_is_seen_wherever_its_tests_stand() {
        let text = "//! Text.\n#[cfg(test)]\nmod tests {\nfn f() { Instant::now() }\n}\n\
                    fn g() {\nInstant::now()\n}\n";
        assert_eq!(clocks(&files(&[("policy/a.rs", text)])), ["policy/a.rs: Instant::now()"]);
        assert!(clocks(&files(&[("runtime/a.rs", text)])).is_empty());
    }

    #[test]
    fn a_table_of_modules_with_a_gap_or_a_name_too_many_is_told() {
        let table = "//! | file | what it is for |\n//! |---|---|\n\
                     //! | [`one`] | first |\n//! | `two` | second |\n//! Text.\n";
        let wrong = |modules: &str| {
            let text = format!("{table}{modules}");
            documents::incomplete(&files(&[("a/mod.rs", text.as_str())]))
        };
        let tests = "#[cfg(test)]\nmod tests;\n#[cfg(any(test, fuzzing))]\npub mod fuzzing;\n";
        assert!(wrong(&format!("mod one;\npub(crate) mod two;\n{tests}")).is_empty());
        let more = wrong("mod one;\npub mod two;\nmod three;\n");
        assert_eq!(more, ["a/mod.rs: its table has one, two; its modules are one, three, two"]);
        let fewer = wrong("pub mod one;\n");
        assert_eq!(fewer, ["a/mod.rs: its table has one, two; its modules are one"]);
        // Tables of other things are not held to it.
        let other = "//! | form | where |\n//! |---|---|\n//! | `one` | here |\nmod two;\n";
        assert!(documents::incomplete(&files(&[("a.rs", other)])).is_empty());
    }

    #[test]
    fn a_step_that_the_table_has_elsewhere_under_another_name_or_not_at_all_is_seen() {
        let page = architecture();
        let swapped = page
            .replace("| `form` |", "| `` |")
            .replace("| `body_size` |", "| `form` |")
            .replace("| `` |", "| `body_size` |");
        let renamed = page.replace("| `deadline` |", "| `time_left` |");
        let row = page.lines().find(|line| line.contains("| `split` |")).expect("a row");
        let missing = page.replace(&format!("{row}\n"), "");
        for page in [swapped, renamed, missing] {
            assert_ne!(documents::steps(&page), documents::steps_in_code());
        }
    }

    #[test]
    fn a_state_chart_that_differs_from_the_code_is_told() {
        let page = "# Page\n\n## State charts\n\n**Door** (`src/a.rs`, `Door`).\n\n\
                    ```text\nopen ──> closed\n  ^ key\n```\n\n## Glossary\n";
        let wrong = |text: &str| documents::strange_charts(page, &files(&[("a.rs", text)]));
        let same = "/// A door.\n///\n/// ```text\n/// open ──> closed  \n///   ^ key\n/// ```\n";
        assert!(wrong(&format!("{same}enum Door {{}}")).is_empty());
        let other = same.replace("closed", "locked");
        for text in [format!("{other}enum Door {{}}"), "enum Door {}".to_owned()] {
            let told = ["src/a.rs: no chart in it is that of docs/architecture.md"];
            assert_eq!(wrong(&text), told);
        }
        let elsewhere = documents::strange_charts(page, &files(&[("b.rs", "")]));
        assert_eq!(elsewhere, ["src/a.rs: there is no such file"]);
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
        assert_eq!(sources.iter().next().expect("a file").1.code().count(), 3);
    }
}
