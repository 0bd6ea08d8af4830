//! The gateway's process, by what the kernel tells of it on the same machine.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::units::reason;

/// A process of this machine, by its folder in `/proc`.
pub(super) struct Process {
    pub(super) folder: PathBuf,
}

impl Process {
    /// The gateway says its number; in another container or on another machine that is another process here, or
    /// none.
    pub(super) fn find(number: u64) -> Result<Self, String> {
        let folder = PathBuf::from(format!("/proc/{number}"));
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        match name.starts_with(env!("CARGO_PKG_NAME")) {
            true => Ok(Process { folder }),
            false => Err(format!(
                "process {number} is no gateway here: it runs in another container, or on another \
                 machine; run the command there"
            )),
        }
    }

    /// Memory and threads, limits, and how many files are open.
    pub(super) fn facts(&self) -> Result<Vec<u8>, String> {
        let mut text = String::new();
        let open = match std::fs::read_dir(self.folder.join("fd")) {
            Ok(open) => open.count().to_string(),
            Err(error) => reason(&error),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "open files: {open}");
        for name in ["status", "limits", "cgroup"] {
            let path = self.folder.join(name);
            let _ = match std::fs::read_to_string(&path) {
                Ok(content) => writeln!(text, "\n{}\n{content}", path.display()),
                Err(error) => writeln!(text, "\n{}: {}", path.display(), reason(&error)),
            };
        }
        Ok(text.into_bytes())
    }

    /// The end of its own log, if that goes to a file.
    pub(super) fn log(&self, most: u64) -> Result<Vec<u8>, String> {
        let link = self.folder.join("fd/2");
        let unknown =
            |error| format!("where standard error goes is not to be seen: {}", reason(&error));
        let file = std::fs::read_link(&link).map_err(unknown)?;
        match link.metadata().is_ok_and(|data| data.is_file()) {
            // By the link: the file may be one of another container.
            true => tail(&link, most),
            false => Err(format!("{} ({})", elsewhere("standard error"), file.display())),
        }
    }
}

/// Why there is no file to read.
pub(super) fn elsewhere(stream: &str) -> String {
    format!(
        "it goes to {stream}, and is with what started the gateway: `journalctl -u portcullis`, \
         `docker logs`, `kubectl logs`"
    )
}

/// A path as the gateway sees it, which may be relative to its own directory.
pub(super) fn seen_by(process: Result<&Process, &String>, file: &Path) -> PathBuf {
    match process {
        Ok(process) if file.is_relative() => process.folder.join("cwd").join(file),
        Ok(_) | Err(_) => file.to_owned(),
    }
}

/// The last lines of a file, of at most this many bytes.
pub(super) fn tail(file: &Path, most: u64) -> Result<Vec<u8>, String> {
    let read = || {
        let mut opened = File::open(file)?;
        let size = opened.metadata()?.len();
        opened.seek(SeekFrom::Start(size.saturating_sub(most)))?;
        let mut end = Vec::new();
        opened.take(most).read_to_end(&mut end)?;
        if size > most {
            let whole = memchr::memchr(b'\n', &end).map_or(0, |at| at + 1);
            end.drain(..whole);
        }
        Ok(end)
    };
    read().map_err(|error: std::io::Error| {
        format!("{} cannot be read: {}", file.display(), reason(&error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_file_is_whole_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("log");
        std::fs::write(&file, "first\nsecond\nthird\n").expect("written");
        let end = |most| String::from_utf8(tail(&file, most).expect("a file")).expect("text");
        assert_eq!(end(100), "first\nsecond\nthird\n");
        assert_eq!(end(15), "second\nthird\n");
        assert_eq!(end(8), "third\n");
        assert!(tail(&directory.path().join("none"), 8).is_err());
    }

    #[test]
    fn a_process_that_is_no_gateway_is_not_taken_for_one() {
        assert!(Process::find(u64::MAX).is_err());
    }
}
