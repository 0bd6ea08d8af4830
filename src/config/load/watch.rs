//! Whether the files of a configuration have changed, by their content.
//!
//! The files are looked at again and again. Notifications of the system would come sooner, but not
//! from every file system, and not for what a link leads to: Kubernetes replaces a mounted
//! configuration by renaming a link two folders away. A file whose metadata is as it was is not
//! read again.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::path::PathBuf;

use super::assemble::{Assembly, INCLUDE};
use super::contents::Contents;
use super::file::read_bounded;
use super::location::Location;
use super::node::Entry;

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
    known: Contents,
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
            known: Contents::default(),
        }
    }

    /// The files as they are now. Blocks.
    pub fn look(&mut self) -> Seen {
        let mut seen = BTreeMap::new();
        let main = self.location.file.clone();
        let content = self.known.of(&main);
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
                let content = self.known.of(&file);
                seen.insert(file, content);
            }
            self.include = Some(include);
        }
        if let Some(file) = self.location.dotenv_file().filter(|file| file.exists()) {
            let content = self.known.of(&file);
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
                let content = self.known.of(unseen.key());
                unseen.insert(content);
            }
        }
        self.known.retain(|file| seen.contains_key(file));
        Seen(seen)
    }
}

fn mentions_include(text: &[u8]) -> bool {
    text.windows(INCLUDE.len()).any(|window| window == INCLUDE.as_bytes())
}
