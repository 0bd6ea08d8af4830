//! The configuration as written: a tree of values, each with its origin.
//!
//! Nothing in this file implements `Debug`, because after interpolation a tree holds secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::path::{KeyPath, Step};

/// Which file, and which value in it, counted from 0 in reading order with keys included.
/// [`super::parse::locate`] converts it to line and column.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) file: usize,
    pub(super) ordinal: usize,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// A mapping that gives this one the entries which it lacks: see [`super::layer`]. Shared by
    /// all mappings that lack them.
    pub(super) beneath: Option<Arc<Node>>,
}

#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Text),
    Sequence(Vec<Element>),
    Mapping(Vec<Entry>),
}

/// A string and the `${…}` it was made from, without their defaults. Plain text has none.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) origins: Vec<String>,
}

/// An element keeps its original index when elements before it are removed.
#[derive(Clone)]
pub(super) struct Element {
    pub(super) index: usize,
    pub(super) node: Node,
}

/// The entries of a mapping are in the order of the file.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_origin: Origin,
    pub(super) node: Node,
    /// Was read without a mistake, so the next round need not read it again.
    pub(super) fits: Fits,
}

/// Whether an entry has been read without a mistake. One that several mappings share never has,
/// because each of them reads it.
pub(super) struct Fits(Option<AtomicBool>);

impl Fits {
    pub(super) fn not_yet() -> Self {
        Fits(Some(AtomicBool::new(false)))
    }

    pub(super) fn never() -> Self {
        Fits(None)
    }

    // Relaxed: one thread reads a tree; it is atomic only because threads hand trees over.
    pub(super) fn get(&self) -> bool {
        self.0.as_ref().is_some_and(|fits| fits.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, fits: bool) {
        if let Some(kept) = &self.0 {
            kept.store(fits, Ordering::Relaxed);
        }
    }
}

impl Clone for Fits {
    fn clone(&self) -> Self {
        Fits(self.0.as_ref().map(|_| AtomicBool::new(self.get())))
    }
}

impl Node {
    /// A value with nothing beneath it.
    pub(super) fn new(origin: Origin, value: Value) -> Self {
        Node { origin, value, beneath: None }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        let own = self.own_entries().iter().find(|own| own.key == key);
        own.or_else(|| self.beneath.as_ref()?.entry(key))
    }

    /// The same for names that a type has written in lower case, such as those of headers.
    pub(super) fn entry_in_any_case(&self, key: &str) -> Option<&Entry> {
        let alike = || self.entries().find(|entry| entry.key.eq_ignore_ascii_case(key));
        self.entry(key).or_else(alike)
    }

    /// The entries of a mapping: its own, then those of what is beneath it that it lacks.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (own, beneath) = (self.own_entries(), self.beneath.as_deref());
        let beneath = beneath.map_or(&[][..], Node::own_entries).iter();
        own.iter().chain(beneath.filter(|entry| own.iter().all(|own| own.key != entry.key)))
    }

    /// The entries that a mapping has itself; none if it is no mapping.
    pub(super) fn own_entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Sequence(_) => &[],
        }
    }

    /// Whether the value at `path` comes from beneath one of the mappings on the way.
    pub(super) fn is_beneath(&self, path: &[Step]) -> bool {
        let mut node = self;
        for step in path {
            if let Step::Key(key) = step
                && !node.own_entries().iter().any(|entry| entry.key == *key)
            {
                return node.entry(key).is_some();
            }
            let Some(child) = node.child(step) else { return false };
            node = child;
        }
        false
    }

    pub(super) fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.value, step) {
            (_, Step::Key(key)) => Some(&self.entry(key)?.node),
            (Value::Sequence(elements), Step::Index(index)) => {
                Some(&elements.iter().find(|element| element.index == *index)?.node)
            }
            (_, Step::Index(_)) => None,
        }
    }

    pub(super) fn at(&self, path: &KeyPath) -> Option<&Node> {
        path.steps().iter().try_fold(self, |node, step| node.child(step))
    }

    /// The position to report for `path`, or for its nearest existing ancestor. That is the scalar
    /// or element itself, but the key of a mapping, a list or an empty value.
    pub(super) fn spot(&self, path: &KeyPath) -> Origin {
        self.spot_among(self.origin, path.steps(), Node::entry)
    }

    /// The same of what is `below` this node, which is at `spot` itself.
    pub(super) fn spot_below(&self, spot: Origin, below: &[Step]) -> Origin {
        self.spot_among(spot, below, Node::entry)
    }

    /// The same, without what comes from beneath.
    pub(super) fn own_spot(&self, path: &KeyPath) -> Origin {
        self.spot_among(self.origin, path.steps(), |node, key| {
            node.own_entries().iter().find(|own| own.key == key)
        })
    }

    fn spot_among<'a>(
        &'a self,
        spot: Origin,
        path: &[Step],
        entry: impl Fn(&'a Node, &str) -> Option<&'a Entry>,
    ) -> Origin {
        let (mut node, mut spot) = (self, spot);
        for step in path {
            match (&node.value, step) {
                (Value::Mapping(_), Step::Key(key)) => {
                    let Some(entry) = entry(node, key) else { break };
                    node = &entry.node;
                    spot = match node.value {
                        Value::Null | Value::Sequence(_) | Value::Mapping(_) => entry.key_origin,
                        Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                            node.origin
                        }
                    };
                }
                (Value::Sequence(elements), Step::Index(index)) => {
                    let Some(element) = elements.iter().find(|e| e.index == *index) else { break };
                    node = &element.node;
                    spot = node.origin;
                }
                _ => break,
            }
        }
        spot
    }

    /// Removes the value at `path`. Returns `false` if there is none, or if it is the root.
    pub(super) fn remove(&mut self, path: &KeyPath) -> bool {
        let Some((last, above)) = path.steps().split_last() else { return false };
        let mut node = self;
        for step in above {
            let Some(child) = node.child_mut(step) else { return false };
            node = child;
        }
        match (&mut node.value, last) {
            (Value::Mapping(entries), Step::Key(key)) => {
                let before = entries.len();
                entries.retain(|entry| entry.key != *key);
                entries.len() < before
            }
            (Value::Sequence(elements), Step::Index(index)) => {
                let before = elements.len();
                elements.retain(|element| element.index != *index);
                elements.len() < before
            }
            _ => false,
        }
    }

    /// Marks every value to be read again.
    pub(super) fn read_anew(&self) {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
            }
            Value::Sequence(elements) => {
                elements.iter().for_each(|element| element.node.read_anew());
            }
            Value::Mapping(entries) => entries.iter().for_each(|entry| {
                entry.fits.set(false);
                entry.node.read_anew();
            }),
        }
    }

    /// The value of an entry that a mapping has itself.
    pub(super) fn own_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.child_mut(&Step::Key(key.to_owned()))
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Node> {
        match (&mut self.value, step) {
            (Value::Mapping(entries), Step::Key(key)) => {
                entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.node)
            }
            (Value::Sequence(elements), Step::Index(index)) => elements
                .iter_mut()
                .find(|element| element.index == *index)
                .map(|element| &mut element.node),
            _ => None,
        }
    }

    /// `message` without any value that was interpolated at or below this node, because the author
    /// of the message may have quoted one.
    pub(super) fn redact(&self, mut message: String) -> String {
        self.each_interpolated(&mut |text| {
            message = hide(&message, &text.value, &text.origins.concat());
        });
        message
    }

    fn each_interpolated(&self, see: &mut impl FnMut(&Text)) {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
            Value::Text(text) => {
                if !text.origins.is_empty() {
                    see(text);
                }
            }
            Value::Sequence(elements) => {
                elements.iter().for_each(|element| element.node.each_interpolated(see));
            }
            Value::Mapping(_) => {
                self.entries().for_each(|entry| entry.node.each_interpolated(see));
            }
        }
    }
}

/// A short value is hidden only where it stands alone, so that not every `1` in a message is
/// replaced.
fn hide(message: &str, value: &str, instead: &str) -> String {
    const SHORT: usize = 4;
    if value.is_empty() {
        return message.to_owned();
    }
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(value) {
        let (before, after) = (&rest[..at], &rest[at + value.len()..]);
        let joined = before.ends_with(char::is_alphanumeric)
            || (before.is_empty() && shown.ends_with(char::is_alphanumeric))
            || after.starts_with(char::is_alphanumeric);
        shown.push_str(before);
        shown.push_str(if value.len() < SHORT && joined { value } else { instead });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_value_leaves_its_name() {
        assert_eq!(hide("no key `hunter2`", "hunter2", "${KEY}"), "no key `${KEY}`");
        assert_eq!(hide("xhunter2xhunter2", "hunter2", "${KEY}"), "x${KEY}x${KEY}");
    }

    #[test]
    fn a_short_value_is_hidden_only_where_it_stands_alone() {
        assert_eq!(hide("at most 10, not 1", "1", "${N}"), "at most 10, not ${N}");
        assert_eq!(hide("nothing", "", "${N}"), "nothing");
    }
}
