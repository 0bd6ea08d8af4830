//! Room set aside on the disk, so that a journal on a full disk can still be emptied.
//!
//! Forgetting an entry is a write too. Once the disk is full the reserve is given up, and rows are
//! accepted again only when there is room for a new reserve.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than the log holds between two checkpoints plus one large group.
const SIZE: usize = 8 << 20;
/// Between two attempts to make the reserve.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
    tried: Option<Instant>,
}

impl Reserve {
    pub(super) fn beside(journal: &Path) -> Self {
        let mut name = journal.as_os_str().to_owned();
        name.push("-reserve");
        Reserve { path: name.into(), held: false, tried: None }
    }

    /// Whether the reserve is there; makes it if need be.
    pub(super) fn hold(&mut self) -> bool {
        if self.held || self.tried.is_some_and(|at| at.elapsed() < PAUSE) {
            return self.held;
        }
        self.tried = Some(Instant::now());
        self.held = make(&self.path).is_ok();
        if !self.held {
            fs::remove_file(&self.path).ok();
        }
        self.held
    }

    pub(super) fn give_up(&mut self) {
        fs::remove_file(&self.path).ok();
        self.held = false;
        self.tried = Some(Instant::now());
    }
}

fn make(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|file| file.len() == SIZE as u64) {
        return Ok(());
    }
    let mut file = File::create(path)?;
    // Write the bytes: a file that is only extended takes no space.
    file.write_all(&vec![0; SIZE])
}
