//! Whether the files of a configuration have changed, by their content.
//!
//! The files are looked at again and again. Notifications of the system would come sooner, but not
//! from every file system, and not for what a link leads to: Kubernetes replaces a mounted
//! configuration by renaming a link two folders away. A file whose metadata is as it was is not
//! read again.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::assemble::{Assembly, INCLUDE};
use super::file::read_bounded;
use super::location::Location;
use super::node::Entry;

/// A file that was changed less long ago than this may be changed again without a difference in
/// its times, because the system's clock for them advances in steps, of a second on some file
/// systems.
const UNSETTLED: Duration = Duration::from_secs(3);

/// Finds the files that the values of a configuration name.
pub type Named = fn(&Location) -> BTreeSet<PathBuf>;

/// The files of one configuration: the main file, those it includes, `.env`, and those that are
/// named in them.
pub struct Watch {
    location: Location,
    find_named: Named,
    /// The files that are named, and those they were found in, with their contents then.
    named: BTreeSet<PathBuf>,
    named_by: BTreeMap<PathBuf, Result<u64, String>>,
    /// The main file's content when `include` was read from it.
    main: Option<u64>,
    include: Option<Entry>,
    /// What is known of each file's content.
    known: BTreeMap<PathBuf, Known>,
}

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

/// The files as they were at one moment: of each a digest of its content, or why it cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, Result<u64, String>>);

impl Seen {
    /// The first file that cannot be read, and why, in words to follow its name. Includes those that
    /// `before` has and this does not.
    pub fn missing(&self, before: &Seen) -> Option<(PathBuf, String)> {
        let gone = before.0.keys().filter(|file| !self.0.contains_key(*file));
        let gone = gone.map(|file| (file.clone(), "is gone".to_owned()));
        let unreadable = self.0.iter().filter_map(|(file, content)| {
            content.as_ref().err().map(|error| (file.clone(), error.clone()))
        });
        unreadable.chain(gone).next()
    }

    /// Whether this is `before` with files missing, and nothing else.
    pub fn only_lacks(&self, before: &Seen) -> bool {
        self.0.iter().all(|(file, content)| content.is_err() || before.0.get(file) == Some(content))
    }
}

impl Watch {
    /// Has seen nothing yet.
    pub fn new(location: Location, find_named: Named) -> Self {
        Watch {
            location,
            find_named,
            named: BTreeSet::new(),
            named_by: BTreeMap::new(),
            main: None,
            include: None,
            known: BTreeMap::new(),
        }
    }

    /// The files as they are now. Blocks.
    pub fn look(&mut self) -> Seen {
        let mut seen = BTreeMap::new();
        let main = self.location.file.clone();
        let content = self.content(&main);
        if let Ok(content) = content
            && self.main != Some(content)
            && let Ok(environment) = self.location.environment()
        {
            // Most files include none, and a large one takes long to parse.
            let names_it = read_bounded(&main).is_ok_and(|text| mentions_include(&text));
            let include = names_it.then(|| Assembly::new(&environment).include_of(&main));
            self.include = include.flatten();
            self.main = Some(content);
        }
        seen.insert(main.clone(), content);
        if let Some(include) = self.include.take() {
            let environment = super::Environment::process();
            for file in Assembly::new(&environment).included(&main, &include) {
                let content = self.content(&file);
                seen.insert(file, content);
            }
            self.include = Some(include);
        }
        if let Some(file) = self.location.dotenv_file().filter(|file| file.exists()) {
            let content = self.content(&file);
            seen.insert(file, content);
        }
        // They are looked for only when they may be others: that is as much work as to load all. While a
        // file is missing, they are not known.
        if seen != self.named_by && seen.values().all(Result::is_ok) {
            self.named = (self.find_named)(&self.location);
            self.named_by.clone_from(&seen);
        }
        for file in self.named.clone() {
            if let btree_map::Entry::Vacant(unseen) = seen.entry(file) {
                let content = self.content(unseen.key());
                unseen.insert(content);
            }
        }
        self.known.retain(|file, _| seen.contains_key(file));
        Seen(seen)
    }

    fn content(&mut self, file: &Path) -> Result<u64, String> {
        let stamp = std::fs::metadata(file).ok().map(Stamp::from);
        if let (Some(stamp), Some(known)) = (&stamp, self.known.get(file))
            && known.stamp == *stamp
        {
            return Ok(known.content);
        }
        let bytes = read_bounded(file).map_err(|(_, error)| error)?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let content = hasher.finish();
        match stamp.filter(Stamp::is_settled) {
            Some(stamp) => drop(self.known.insert(file.to_owned(), Known { stamp, content })),
            None => drop(self.known.remove(file)),
        }
        Ok(content)
    }
}

fn mentions_include(text: &[u8]) -> bool {
    text.windows(INCLUDE.len()).any(|window| window == INCLUDE.as_bytes())
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
