//! Checks for files that must be writable before the gateway starts.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is wrong with the file that `key` names, and what to do about it.
pub(super) fn unusable(key: &str, path: &Path, why: &str) -> String {
    let folder = folder_of(path);
    let path = path.display().to_string();
    // Some errors begin with the path.
    let why = why.strip_prefix(&format!("{path}: ")).unwrap_or(why);
    let folder = folder.display();
    let remedy = if why.contains("No space") || why.contains("is full") {
        format!("make room in {folder}")
    } else if why.contains("not a database") {
        format!("move it out of {folder}")
    } else {
        format!("give the gateway's user the right to write in {folder}")
    };
    format!("{key}: {path} cannot be used: {why}; {remedy}, or set another path")
}

/// Checks that the file that `key` names can be created or written, with others beside it, as
/// SQLite does. Creates its directory if missing. A full disk is no error if the file exists: what
/// is in it can still be read and deleted.
///
/// # Errors
/// As [`unusable`].
pub(super) fn check(key: &str, path: &Path) -> Result<(), String> {
    let exists = path.exists();
    match try_out(path) {
        Err(error) if exists && error.kind() == io::ErrorKind::StorageFull => Ok(()),
        outcome => outcome.map_err(|error| unusable(key, path, &error.to_string())),
    }
}

fn try_out(path: &Path) -> io::Result<()> {
    fs::create_dir_all(folder_of(path))?;
    if path.exists() {
        OpenOptions::new().read(true).write(true).open(path)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-probe-{}", std::process::id()));
    let probe = PathBuf::from(name);
    let written = fs::File::create(&probe).and_then(|mut file| file.write_all(b"portcullis"));
    // If it could not be created, there is nothing to remove.
    fs::remove_file(&probe).ok();
    written
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_made_and_nothing_is_left_in_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b/journal.db");
        assert_eq!(check("key", &path), Ok(()));
        let folder = path.parent().expect("a folder");
        assert_eq!(fs::read_dir(folder).expect("made").count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_named_with_its_folder() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        for path in
            [file.join("journal.db"), directory.path().to_owned(), "/proc/journal.db".into()]
        {
            let error = check("record.journal.path", &path).expect_err("unusable");
            assert!(error.starts_with("record.journal.path: "), "{error}");
            assert!(error.contains(&format!("write in {}", folder_of(&path).display())), "{error}");
        }
    }
}
