//! Keys under a name that they had before: they are read under the present one, and it is remembered where.

use super::node::{Node, Value};
use super::path::KeyPath;

/// A key that has another name than before.
#[derive(Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The keys of the mappings that hold it, from the root; `*` is any name.
    pub within: &'static [&'static str],
    /// As it was called.
    pub old: &'static str,
    /// As it is called.
    pub new: &'static str,
    /// The first version that does not read the old name any more.
    pub until: &'static str,
}

/// Gives keys of `tree` their present names; returns those, by their present path. Where both names are
/// written, the old one stays, and is unknown.
pub(super) fn rename(
    tree: &mut Node,
    table: &'static [Renamed],
) -> Vec<(KeyPath, &'static Renamed)> {
    let mut found = Vec::new();
    for renamed in table {
        walk(tree, renamed.within, KeyPath::root(), renamed, &mut found);
    }
    found
}

fn walk(
    node: &mut Node,
    within: &[&str],
    path: KeyPath,
    renamed: &'static Renamed,
    found: &mut Vec<(KeyPath, &'static Renamed)>,
) {
    let Value::Mapping(entries) = &mut node.value else { return };
    let Some((first, rest)) = within.split_first() else {
        if entries.iter().any(|entry| entry.key == renamed.new) {
            return;
        }
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == renamed.old) {
            renamed.new.clone_into(&mut entry.key);
            found.push((path.key(renamed.new), renamed));
        }
        return;
    };
    for entry in entries.iter_mut().filter(|entry| *first == "*" || entry.key == *first) {
        let path = path.clone().key(entry.key.as_str());
        walk(&mut entry.node, rest, path, renamed, found);
    }
}
