//! Messages that name a key first, and the value that they are about.
//!
//! A type that refuses a mapping because of one of its values says so: `max: must not be below min`.
//! The operator should see that value, not the whole mapping.

use super::node::Node;
use super::path::KeyPath;

/// The path of the value that `message` is about, and the rest of the message. Both are as given
/// unless the message begins with a key that is written below `path`.
pub(super) fn aim(tree: &Node, path: KeyPath, message: String) -> (KeyPath, String) {
    let found = message.split_once(": ").and_then(|(keys, rest)| {
        let mut node = tree.at(&path)?;
        let mut aimed = path.clone();
        for key in keys.split('.') {
            let entry = node.entry_in_any_case(key)?;
            aimed = aimed.key(&entry.key);
            node = &entry.node;
        }
        // One from a default is told as such.
        (!tree.is_beneath(aimed.steps())).then(|| (aimed, rest.to_owned()))
    });
    found.unwrap_or((path, message))
}
