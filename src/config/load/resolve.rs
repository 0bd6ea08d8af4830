//! One file's tree, made ready: keys are unique, strings have their `${…}` replaced.

use std::collections::HashMap;
use std::path::Path;

use super::environment::Environment;
use super::findings::Findings;
use super::interpolate::interpolate;
use super::node::{Entry, Node, Origin, Text, Value};
use super::path::{KeyPath, Step};

pub(super) struct Resolver<'a> {
    environment: &'a Environment,
    /// The file's own, where the paths of `${file:…}` begin.
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

    /// `false` if `node` must go: it is wrong, and that is recorded, or it counts as not written.
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
        match interpolate(&text.value, self.environment, self.directory) {
            Ok(interpolated) if interpolated.absent => {
                self.findings.leave_out(self.path.clone(), &interpolated.origins);
                false
            }
            Ok(interpolated) => {
                *text = Text { value: interpolated.value, origins: interpolated.origins };
                true
            }
            Err(errors) => {
                for error in errors {
                    self.findings.record(&self.path, origin, error);
                }
                self.findings.prune(self.path.clone());
                false
            }
        }
    }

    /// The first of its name stays.
    fn drop_repeated(&mut self, entries: &mut Vec<Entry>) {
        let mut seen: HashMap<String, Origin> = HashMap::with_capacity(entries.len());
        entries.retain(|Entry { key, key_origin, .. }| {
            let path = self.path.clone().key(key);
            if key == "<<" {
                let message =
                    "merge keys (<<) are not supported; an alias can stand for a whole value";
                self.findings.record(&path, *key_origin, message);
                self.findings.prune(path);
                return false;
            }
            if let Some(first) = seen.get(key) {
                self.findings.record_repeated(&path, key, *key_origin, *first);
                return false;
            }
            seen.insert(key.clone(), *key_origin);
            true
        });
    }
}
