//! Fuzz target for the configuration file.

use std::path::PathBuf;
use std::process;

use super::{Config, Environment};

/// Came in through the environment: no message may show it.
const SECRET: &str = "correct-horse-battery";

thread_local! {
    /// Where the file is written, for a file is what is loaded.
    static FILE: Written = Written(path_of_thread());
}

/// A file that goes with its thread.
struct Written(PathBuf);

impl Drop for Written {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// A configuration: taken, or refused with a place and a line for each mistake. No secret is shown.
pub fn yaml(input: &[u8]) {
    // Other files are not this input's; some have no end.
    let names_files = |name: &[u8]| memchr::memmem::find(input, name).is_some();
    if names_files(b"include") || names_files(b"file:") {
        return;
    }
    let path = FILE.with(|file| file.0.clone());
    std::fs::write(&path, input).expect("written");
    let environment = Environment::fixed([("A", "1"), ("B", ""), ("KEY", SECRET)]);
    let Err(found) = Config::load(&path, &environment) else { return };
    assert!(!found.is_empty(), "refused, and no reason");
    // What is missing at the end may be missed in the line behind it.
    let lines = 2 + input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let is_secret = memchr::memmem::find(input, SECRET.as_bytes()).is_none();
    for diagnostic in found {
        let shown = diagnostic.to_string();
        // The parser also counts the line ends that only Unicode has.
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
