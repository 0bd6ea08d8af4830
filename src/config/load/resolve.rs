//! Prepares the tree of one file: removes repeated keys, merges merge keys, replaces `${…}` in
//! strings, and drops the entries that only hold anchors.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::environment::Environment;
use super::findings::Findings;
use super::interpolate::{ReferenceError, interpolate};
use super::node::{Entry, Node, Origin, Text, Value};
use super::path::{KeyPath, Step};
use crate::config::code::Code;

/// `<<: *base` adds the entries of the other mapping that this one does not have.
const MERGE: &str = "<<";
/// Top-level keys with this prefix are ignored, as in Compose files: they are a place for anchors.
const EXTENSION: &str = "x-";

pub(super) struct Resolver<'a> {
    environment: &'a Environment,
    /// The file's directory, which the paths of `${file:…}` are relative to.
    directory: &'a Path,
    findings: &'a mut Findings,
    path: KeyPath,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        directory: &'a Path,
        findings: &'a mut Findings,
    ) -> Self {
        Resolver { environment, directory, findings, path: KeyPath::root() }
    }

    /// Returns `false` if `node` must be removed, because it is wrong (which is recorded) or counts
    /// as not written.
    pub(super) fn resolve(&mut self, node: &mut Node) -> bool {
        match &mut node.value {
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => true,
            Value::Text(text) => self.resolve_text(text, node.origin),
            Value::Sequence(elements) => {
                elements.retain_mut(|element| {
                    self.below(Step::Index(element.index), &mut element.node)
                });
                true
            }
            Value::Mapping(entries) => {
                self.drop_repeated(entries);
                self.merge(entries);
                if self.path.is_root() {
                    entries.retain(|entry| !entry.key.starts_with(EXTENSION));
                }
                entries
                    .retain_mut(|entry| self.below(Step::Key(entry.key.clone()), &mut entry.node));
                true
            }
        }
    }

    fn below(&mut self, step: Step, node: &mut Node) -> bool {
        self.path.push(step);
        let stays = self.resolve(node);
        self.path.pop();
        stays
    }

    fn resolve_text(&mut self, text: &mut Text, origin: Origin) -> bool {
        if !text.value.contains('$') {
            return true;
        }
        let files = &mut self.findings.referenced;
        match interpolate(&text.value, self.environment, self.directory, files) {
            Ok(interpolated) if interpolated.absent => {
                self.findings.leave_out(self.path.clone(), &interpolated.origins);
                false
            }
            Ok(interpolated) => {
                *text = Text { value: interpolated.value, origins: interpolated.origins };
                true
            }
            Err(errors) => {
                for ReferenceError { code, message, remedy } in errors {
                    self.findings.record_with(&self.path, origin, (code, message), remedy);
                }
                self.findings.prune(self.path.clone());
                false
            }
        }
    }

    /// Adds the entries of the merge key's mappings to `entries`. Existing entries win, then the
    /// earlier mapping; values are not merged deeper. Entries are moved, never copied: the
    /// expansion of aliases is bounded where they are expanded.
    fn merge(&mut self, entries: &mut Vec<Entry>) {
        let Some(at) = entries.iter().position(|entry| entry.key == MERGE) else { return };
        let Entry { node, key_origin, .. } = entries.remove(at);
        let path = self.path.clone().key(MERGE);
        let mut known: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        let mut add = |resolver: &mut Self, path: KeyPath, node: Node, spot: Origin| {
            let Some(mut more) = mapping(node) else {
                let message = "expected a mapping such as `<<: *base`, or a list of them";
                resolver.findings.record(&path, spot, Code::MergeKey, message);
                // Its entries must not be reported as missing too.
                resolver.findings.prune(resolver.path.clone().key(MERGE));
                return;
            };
            resolver.drop_repeated(&mut more);
            resolver.merge(&mut more);
            more.retain(|entry| known.insert(entry.key.clone()));
            entries.append(&mut more);
        };
        match node.value {
            Value::Sequence(elements) => {
                for element in elements {
                    let spot = element.node.origin;
                    add(self, path.clone().index(element.index), element.node, spot);
                }
            }
            Value::Mapping(_) | Value::Null => add(self, path, node, key_origin),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                let spot = node.origin;
                add(self, path, node, spot);
            }
        }
    }

    /// The first entry with a name is kept.
    fn drop_repeated(&mut self, entries: &mut Vec<Entry>) {
        let mut seen: HashMap<String, Origin> = HashMap::with_capacity(entries.len());
        entries.retain(|Entry { key, key_origin, .. }| {
            if let Some(first) = seen.get(key) {
                let path = self.path.clone().key(key);
                self.findings.record_repeated(&path, key, *key_origin, *first);
                return false;
            }
            seen.insert(key.clone(), *key_origin);
            true
        });
    }
}

fn mapping(node: Node) -> Option<Vec<Entry>> {
    match node.value {
        Value::Mapping(entries) => Some(entries),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Sequence(_) => None,
    }
}
