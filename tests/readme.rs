//! What the README tells a reader to type exists.

use std::path::Path;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn targets() -> Vec<String> {
    let makefile = read("Makefile");
    let rules = makefile.lines().filter(|l| !l.starts_with(['\t', '#', '.', ' ']));
    let names = rules.filter_map(|l| l.split_once(':')).filter(|(_, rest)| !rest.starts_with('='));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// The target of every `make` that the README shows as code.
fn made() -> Vec<String> {
    let readme = read("README.md");
    let code = readme.split('`').skip(1).step_by(2).flat_map(str::lines);
    let commands = code.filter_map(|line| line.split("make ").nth(1));
    commands.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_readme_opens_with_the_two_commands() {
    let readme = read("README.md");
    let commands: Vec<&str> =
        readme.lines().filter(|line| line.starts_with("make ")).take(2).collect();
    assert!(commands[0].starts_with("make demo"), "{commands:?}");
    assert!(commands[1].starts_with("make test"), "{commands:?}");
}

#[test]
fn every_make_target_of_the_readme_exists() {
    let targets = targets();
    let named = made();
    assert!(named.contains(&"demo".to_owned()), "{named:?}");
    for target in named {
        assert!(targets.contains(&target), "make {target} is none of {targets:?}");
    }
}

#[test]
fn every_file_of_the_readme_exists() {
    let readme = read("README.md");
    let paths = readme.split([' ', '\n', '`', '(', ')', ':', ';', ',']).filter(|word| {
        ["conf/", "bench/", "interop/", "scripts/", ".ci/"]
            .iter()
            .any(|folder| word.starts_with(folder))
    });
    let mut found = 0;
    for path in paths {
        let path = path.trim_end_matches('.').split('#').next().unwrap_or_default();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{path}");
        found += 1;
    }
    assert!(found > 0, "the README names files");
}

/// It leads to the pages; what they say is not repeated here.
#[test]
fn the_readme_stays_short() {
    let lines = read("README.md").lines().count();
    assert!(lines < 150, "{lines} lines");
}
