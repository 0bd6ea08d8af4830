//! What files hold, without reading those again whose metadata is as it was.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::file::read_bounded;

/// A file that was changed less long ago than this may be changed again without a difference in
/// its times, because the system's clock for them advances in steps, of a second on some file
/// systems.
const UNSETTLED: Duration = Duration::from_secs(3);

/// What is known of files' contents.
#[derive(Default)]
pub struct Contents(BTreeMap<PathBuf, Known>);

struct Known {
    stamp: Stamp,
    content: u64,
}

/// Metadata that changes when the content does, unless the change is unsettled.
#[derive(PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Contents {
    /// A hash of what `file` holds now. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, in words to follow its name.
    pub fn of(&mut self, file: &Path) -> Result<u64, String> {
        let stamp = std::fs::metadata(file).ok().map(Stamp::from);
        if let (Some(stamp), Some(known)) = (&stamp, self.0.get(file))
            && known.stamp == *stamp
        {
            return Ok(known.content);
        }
        let bytes = read_bounded(file).map_err(|(_, error)| error)?;
        let content = digest(&bytes);
        match stamp.filter(Stamp::is_settled) {
            Some(stamp) => drop(self.0.insert(file.to_owned(), Known { stamp, content })),
            None => drop(self.0.remove(file)),
        }
        Ok(content)
    }

    /// Forgets the files that `keeps` does not name.
    pub fn retain(&mut self, keeps: impl Fn(&Path) -> bool) {
        self.0.retain(|file, _| keeps(file));
    }
}

/// The hash of what a file holds.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Whether a change after now is certain to show. A time in the future never is.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled = now.saturating_sub(UNSETTLED).as_secs();
        u64::try_from(self.changed.0.max(self.modified.0)).is_ok_and(|changed| changed < settled)
    }
}
