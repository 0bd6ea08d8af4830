//! Whether the files of a configuration have changed, by their content.
//!
//! The files are looked at again and again. Notifications of the system would come sooner, but not
//! from every file system, and not for what a link leads to: Kubernetes replaces a mounted
//! configuration by renaming a link two folders away. A file whose metadata is as it was is not
//! read again.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::path::PathBuf;

use super::assemble::{Assembly, INCLUDE};
use super::contents::{Contents, digest};
use super::file::read_bounded;
use super::location::Location;
use super::node::Entry;

/// Finds the files that the values of a configuration name.
pub type Named = fn(&Location) -> NamedFiles;

/// The files that the values of a configuration name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// Those whose text is a value, or a part of one: `${file:…}`.
    pub values: BTreeSet<PathBuf>,
    /// All others.
    pub others: BTreeSet<PathBuf>,
}

/// What a file is to a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It holds keys of it.
    Own,
    /// Its text is a value, or a part of one.
    Value,
    /// It is named by a value.
    Other,
}

/// A digest of what a file holds, or why that cannot be used, in words to follow its name.
type Content = Result<u64, String>;

/// The files of one configuration: the main file, those it includes, `.env`, and those that are
/// named in them.
pub struct Watch {
    location: Location,
    find_named: Named,
    /// The files that are named, and those they were found in, with their contents then.
    named: NamedFiles,
    named_by: BTreeMap<PathBuf, (Kind, Content)>,
    /// The main file's content when `include` was read from it.
    main: Option<u64>,
    include: Option<Entry>,
    /// What is known of each file's content.
    known: Contents,
}

/// The files as they were at one moment: of each a digest of its content, or why it cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, (Kind, Content)>);

impl Seen {
    /// The first file that cannot be read, and why, in words to follow its name. Includes those that
    /// `before` has and this does not.
    pub fn missing(&self, before: &Seen) -> Option<(PathBuf, String)> {
        let gone = before.0.keys().filter(|file| !self.0.contains_key(*file));
        let gone = gone.map(|file| (file.clone(), "is gone".to_owned()));
        let unreadable = self.0.iter().filter(|(file, now)| before.0.get(*file) != Some(now));
        let unreadable = unreadable.filter_map(|(file, (_, content))| {
            content.as_ref().err().map(|error| (file.clone(), error.clone()))
        });
        unreadable.chain(gone).next()
    }

    /// Whether this is `before` with files missing, and nothing else.
    pub fn only_lacks(&self, before: &Seen) -> bool {
        let is_same = |file, now| before.0.get(file) == Some(now);
        self.0.iter().all(|(file, now)| now.1.is_err() || is_same(file, now))
    }

    /// What has become of the files whose text is a value, since `before`.
    pub fn values_since(&self, before: &Seen) -> Values {
        let differing = |kind: Kind| {
            let known = before.0.iter().filter(move |(_, (its, _))| *its == kind);
            known.filter_map(|(file, then)| Some((file, self.0.get(file)?, then)))
        };
        let values = differing(Kind::Value).filter(|(_, now, then)| now.1 != then.1);
        let changed: Vec<_> =
            values.map(|(file, (_, content), _)| (file.clone(), content.clone())).collect();
        let own = || {
            let others = before.0.iter().filter(|(_, (kind, _))| *kind == Kind::Own);
            let mut others = others.filter(|(file, then)| self.0.get(*file) != Some(then));
            let added = self.0.iter().filter(|(_, (kind, _))| *kind == Kind::Own);
            let mut added = added.filter(|(file, _)| !before.0.contains_key(*file));
            others.next().or_else(|| added.next()).map(|(file, _)| file.clone())
        };
        let own = if changed.is_empty() { None } else { own() };
        Values { changed, own }
    }
}

/// What has become of files whose text is a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// Those that hold something else, or cannot be used, and why.
    pub changed: Vec<(PathBuf, Result<u64, String>)>,
    /// A file of the configuration itself that has changed as well.
    pub own: Option<PathBuf>,
}

impl Watch {
    /// Has seen nothing yet.
    pub fn new(location: Location, find_named: Named) -> Self {
        Watch {
            location,
            find_named,
            named: NamedFiles::default(),
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
        seen.insert(main.clone(), (Kind::Own, content));
        if let Some(include) = self.include.take() {
            let environment = super::Environment::process();
            for file in Assembly::new(&environment).included(&main, &include) {
                let content = self.known.of(&file);
                seen.insert(file, (Kind::Own, content));
            }
            self.include = Some(include);
        }
        if let Some(file) = self.location.dotenv_file().filter(|file| file.exists()) {
            let content = self.known.of(&file);
            seen.insert(file, (Kind::Own, content));
        }
        // They are looked for only when they may be others: that is as much work as to load all. While a
        // file is missing, they are not known.
        if seen != self.named_by && seen.values().all(|(_, content)| content.is_ok()) {
            self.named = (self.find_named)(&self.location);
            self.named_by.clone_from(&seen);
        }
        let NamedFiles { values, others } = &self.named;
        let values = values.iter().map(|file| (Kind::Value, file));
        for (kind, file) in values.chain(others.iter().map(|file| (Kind::Other, file))) {
            if let btree_map::Entry::Vacant(unseen) = seen.entry(file.clone()) {
                let content = self.known.of(unseen.key());
                // What is written anew may be empty for a moment, and a secret never is.
                let is_blank = kind == Kind::Value && content.as_ref().is_ok_and(is_blank);
                let content = if is_blank { Err("is empty".to_owned()) } else { content };
                unseen.insert((kind, content));
            }
        }
        self.known.retain(|file| seen.contains_key(file));
        Seen(seen)
    }
}

/// Whether a file with this digest says nothing.
fn is_blank(content: &u64) -> bool {
    ["", "\n", "\r\n"].iter().any(|text| digest(text.as_bytes()) == *content)
}

fn mentions_include(text: &[u8]) -> bool {
    text.windows(INCLUDE.len()).any(|window| window == INCLUDE.as_bytes())
}
