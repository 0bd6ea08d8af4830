//! Which key of the files decides, and where it is written: the thing's own, or a default.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Node, Origin};
use super::parse::locate;
use super::path::{KeyPath, Step};
use super::sources::Sources;

/// A key that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its path, in `defaults` if that is where it is written.
    pub key: KeyPath,
    /// `file:line` of it, or of what is nearest to it of what is written.
    pub place: String,
}

impl Sources {
    /// Whether the value at `path` is a default that was written for several things.
    pub fn is_default(&self, path: impl Into<KeyPath>) -> bool {
        self.default_of(&self.as_written(&path.into())).is_some()
    }

    /// What decides about each of `paths`. Each file is read once, and what the paths of one thing
    /// have in common is looked up once if they follow one another.
    pub fn decided(&self, paths: &[KeyPath]) -> Vec<Decided> {
        let mut thing: Option<(&[Step], Option<&Node>, Origin)> = None;
        let found: Vec<(KeyPath, Origin)> = paths
            .iter()
            .map(|path| {
                let (above, below) = path.steps().split_at(path.steps().len().min(2));
                let (_, node, spot) = match thing.filter(|(known, _, _)| *known == above) {
                    Some(known) => known,
                    None => {
                        let path = above.iter().cloned().collect();
                        (above, self.tree().at(&path), self.tree().spot(&path))
                    }
                };
                thing = Some((above, node, spot));
                let Some(node) = node else { return (path.clone(), spot) };
                let default = self.layering().and_then(|layering| layering.default_of(path));
                let default = default.filter(|_| node.is_beneath(below));
                (default.unwrap_or_else(|| path.clone()), node.spot_below(spot, below))
            })
            .collect();
        let mut sought: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (_, Origin { file, ordinal }) in &found {
            sought.entry(*file).or_default().insert(*ordinal);
        }
        let lines: BTreeMap<usize, BTreeMap<usize, _>> = sought
            .into_iter()
            .map(|(file, ordinals)| (file, locate(self.text(file), ordinals)))
            .collect();
        let decided = found.into_iter().map(|(key, Origin { file, ordinal })| {
            let position = lines.get(&file).and_then(|lines| lines.get(&ordinal));
            let line = position.map_or(1, |position| position.line);
            Decided { key, place: format!("{}:{line}", self.name(file).display()) }
        });
        decided.collect()
    }
}
