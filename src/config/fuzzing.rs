//! Fuzz target for the configuration file.

use std::path::PathBuf;
use std::process;

use super::{Config, Environment};

/// A value from the environment, which no message may show.
const SECRET: &str = "correct-horse-battery";

thread_local! {
    /// The file that the input is written to, because loading reads a file.
    static FILE: Written = Written(path_of_thread());
}

/// A file that goes with its thread.
struct Written(PathBuf);

impl Drop for Written {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// A configuration is accepted, or refused with a place and a line for each mistake. No message
/// shows a secret.
pub fn yaml(input: &[u8]) {
    // Inputs that name other files are skipped: some files never end.
    let names_files = |name: &[u8]| memchr::memmem::find(input, name).is_some();
    if names_files(b"include") || names_files(b"file:") {
        return;
    }
    let path = FILE.with(|file| file.0.clone());
    std::fs::write(&path, input).expect("written");
    let environment = Environment::fixed([("A", "1"), ("B", ""), ("KEY", SECRET)]);
    let Err(found) = Config::load(&path, &environment) else { return };
    assert!(!found.is_empty(), "refused, and no reason");
    // A missing value may be reported on the line after the end.
    let lines = 2 + input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let is_secret = memchr::memmem::find(input, SECRET.as_bytes()).is_none();
    for diagnostic in found {
        let shown = diagnostic.to_string();
        // The parser also counts the line ends that exist only in Unicode.
        let most = lines + input.len() / 2;
        assert!((1..=most).contains(&diagnostic.line) && diagnostic.column > 0, "{shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(!is_secret || !shown.contains(SECRET), "{shown}");
    }
}

fn path_of_thread() -> PathBuf {
    let name = format!("portcullis-{}-{:?}.yaml", process::id(), std::thread::current().id());
    std::env::temp_dir().join(name)
}
