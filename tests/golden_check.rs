//! What `check` says of each mistake: the whole message, as an operator reads it.
//!
//! `tests/golden/check` has a file for each kind of diagnostic, named by its code (more than one if
//! a name follows after a dot), and beside it what is printed. Set `PORTCULLIS_GOLDEN=write` to
//! write the latter again, and read what has changed.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::config::code::{Code, Severity};
use tempfile::TempDir;

use crate::support::Authority;

const SECRET: &str = "s3cret-s3cret-s3cret-s3cret-s3cret";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check")
}

/// The names of the files, without `.yaml`.
fn names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).expect("golden files");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// The files that they refer to, by name.
fn surroundings() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| files.push((name.to_owned(), bytes.to_owned()));
    let authority = Authority::new();
    let day = 24 * 60 * 60;
    for (name, leaf) in [
        ("good", authority.sign("a.example")),
        ("expired", authority.sign_expired("a.example")),
        ("expiring", authority.sign_until("a.example", 10 * day + day / 2)),
    ] {
        write(&format!("{name}.pem"), leaf.pem().as_bytes());
        write(&format!("{name}.key"), leaf.key_pem().as_bytes());
    }
    let (good, stranger) = (authority.sign("a.example"), Authority::named("a stranger"));
    write("key.key", good.key_pem().as_bytes());
    write("issuer-first.pem", format!("{}{}", authority.pem(), good.pem()).as_bytes());
    write("stranger-next.pem", format!("{}{}", good.pem(), stranger.pem()).as_bytes());
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway.binpb");
    write("gateway.binpb", &std::fs::read(conf).expect("the descriptors"));
    write("empty.pem", b"");
    write("latin1.txt", b"caf\xe9");
    write("defaults.yaml", b"defaults: {max_body: 1KiB}\n");
    write("nested.yaml", b"include: other.yaml\n");
    files
}

/// A directory with these files.
fn directory_of(files: &[(String, Vec<u8>)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).expect("written");
    }
    let dangling = directory.path().join("dangling.yaml");
    std::os::unix::fs::symlink("gone.yaml", dangling).expect("a link");
    directory
}

/// Prepares what is too large to be kept in the repository.
fn enlarge(name: &str, directory: &Path) {
    if name == "file_too_large" {
        let file = std::fs::OpenOptions::new().append(true).open(directory.join("portcullis.yaml"));
        file.and_then(|file| file.set_len(9 * 1024 * 1024)).expect("enlarged");
    }
    if name == "include_too_many" {
        let many = directory.join("many");
        std::fs::create_dir(&many).expect("a directory");
        for n in 0..1001 {
            std::fs::write(many.join(format!("{n}.yaml")), "").expect("written");
        }
    }
}

/// The exit code and what is printed on standard error.
fn check(name: &str, surroundings: &[(String, Vec<u8>)]) -> (i32, String) {
    let directory = directory_of(surroundings);
    let directory = directory.path();
    std::fs::copy(folder().join(format!("{name}.yaml")), directory.join("portcullis.yaml"))
        .expect("copied");
    enlarge(name, directory);
    let files = if name == "few_files" { 512 } else { 4096 };
    // The limit is that of the process, whatever the machine has.
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_portcullis"))
        .args(["check", "-c", "portcullis.yaml", "--format", "full"])
        .current_dir(directory)
        .env_clear()
        .env("SECRET", SECRET)
        .env("NOT_TEXT", std::ffi::OsStr::from_bytes(b"caf\xe9"))
        .output()
        .expect("the executable starts");
    let said = String::from_utf8(output.stderr).expect("text");
    let said = without_days(&said);
    (output.status.code().expect("an exit code"), said)
}

/// The age of the expired certificate, which is another one every day, becomes `N`.
fn without_days(said: &str) -> String {
    let aged = said.split_once(" expired ").and_then(|(before, after)| {
        let (days, after) = after.split_once(" days ago")?;
        days.parse::<u32>().ok()?;
        Some(format!("{before} expired N days ago{after}"))
    });
    aged.unwrap_or_else(|| said.to_owned())
}

#[test]
fn each_mistake_is_told_as_it_was_read_and_approved() {
    let write = std::env::var_os("PORTCULLIS_GOLDEN").is_some_and(|value| value == "write");
    let (mut wrong, surroundings) = (Vec::new(), surroundings());
    for name in names() {
        let (exit, mut said) = check(&name, &surroundings);
        assert!(!said.contains("s3cret"), "{name} shows a secret:\n{said}");
        let code = name.split('.').next().unwrap_or(&name);
        if code.starts_with("too_many_problems") || code.starts_with("too_many_warnings") {
            // Only how it ends is of interest.
            let end = said.trim_end().rmatch_indices("\n\n").nth(1).map_or(0, |(at, _)| at + 2);
            said.drain(..end);
        } else if !said.ends_with("\n1 error\n") && !said.ends_with("\n1 warning\n") {
            wrong.push(format!("{name}: more or less than one mistake:\n{said}"));
            continue;
        }
        let known = Code::ALL.iter().find(|known| known.name() == code);
        let known = known.unwrap_or_else(|| panic!("{name}: there is no such code"));
        let severity = known.severity();
        if !said.contains(&format!("{severity}[{code}]: ")) {
            wrong.push(format!("{name}: another kind of mistake:\n{said}"));
            continue;
        }
        let expected = i32::from(severity == Severity::Error);
        assert_eq!(exit, expected, "{name}: the exit code");
        let golden = folder().join(format!("{name}.txt"));
        if write {
            std::fs::write(&golden, &said).expect("written");
        }
        let approved = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != approved {
            wrong.push(format!("{name}: said\n{said}\napproved is\n{approved}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kinds that `check` never reports.
fn is_beyond_check(code: Code) -> bool {
    // It compares with no running gateway: `listeners` and `reload` test that. Only a reload takes addresses and
    // reports it so: `listeners` tests that. `.env` is read by option: `watch` tests that. The last is a fault
    // of the gateway itself.
    matches!(code, Code::RestartNeeded | Code::AddressUnusable | Code::DotenvLine | Code::Internal)
}

#[test]
fn every_kind_of_diagnostic_has_a_golden_file() {
    let names = names();
    let has = |code: &Code| names.iter().any(|name| name.split('.').next() == Some(code.name()));
    let without: Vec<_> =
        Code::ALL.iter().filter(|code| !is_beyond_check(**code) && !has(code)).collect();
    assert!(without.is_empty(), "without a file in tests/golden/check: {without:?}");
}

#[test]
fn every_message_says_where_it_is_and_what_to_do() {
    for name in names() {
        let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).expect("golden");
        assert!(text.contains("--> "), "{name}: no place:\n{text}");
        assert!(text.contains(".yaml:"), "{name}: no line:\n{text}");
        // What is expected is what to write.
        let told =
            ["= help: ", "expected ", "must be ", "write ", "use ", "such as ", "begins with "];
        assert!(told.iter().any(|words| text.contains(words)), "{name}: no remedy:\n{text}");
    }
}
