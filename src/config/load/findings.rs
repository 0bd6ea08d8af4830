//! What loading has found wrong so far, and what it took out for that.
//!
//! Something taken out is missed later on: those complaints are the operator's first mistake once
//! more, and are dropped here.

use std::collections::HashSet;

use super::MAX_FINDINGS;
use super::node::Origin;
use super::parse::Position;
use super::path::{KeyPath, Step};

#[derive(Clone)]
pub(super) struct Finding {
    pub(super) path: KeyPath,
    pub(super) spot: Spot,
    pub(super) message: String,
    /// The place that the end of the message speaks of.
    pub(super) first: Option<Origin>,
}

#[derive(Clone, Copy)]
pub(super) enum Spot {
    Value(Origin),
    /// For what is wrong with a file before it has values.
    File(usize, Position),
}

#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    pruned: HashSet<KeyPath>,
    absent: Vec<(KeyPath, String)>,
    /// There was one more than [`MAX_FINDINGS`].
    pub(super) overflow: bool,
    /// A file could not be taken in: anything may be missing.
    pub(super) incomplete: bool,
}

impl Findings {
    pub(super) fn list(&self) -> &[Finding] {
        &self.list
    }

    pub(super) fn record(&mut self, path: &KeyPath, spot: Origin, message: impl Into<String>) {
        let (spot, message) = (Spot::Value(spot), message.into());
        self.push(Finding { path: path.clone(), spot, message, first: None });
    }

    /// `key`, the last of `path`, was defined before.
    pub(super) fn record_repeated(&mut self, path: &KeyPath, key: &str, at: Origin, first: Origin) {
        let message = format!("`{key}` is already defined at ");
        let spot = Spot::Value(at);
        self.push(Finding { path: path.clone(), spot, message, first: Some(first) });
    }

    /// The file at this index of the sources cannot be taken in.
    pub(super) fn record_file(&mut self, file: usize, position: Position, message: String) {
        self.incomplete = true;
        let spot = Spot::File(file, position);
        self.push(Finding { path: KeyPath::root(), spot, message, first: None });
    }

    fn push(&mut self, finding: Finding) {
        if self.list.len() == MAX_FINDINGS {
            self.overflow = true;
            return;
        }
        self.list.push(finding);
    }

    /// What is at `path` was taken out, or was meant by something that was.
    pub(super) fn prune(&mut self, path: KeyPath) {
        self.pruned.insert(path);
    }

    /// What is at `path` came out as empty as if it were not written, from these references.
    pub(super) fn leave_out(&mut self, path: KeyPath, origins: &[String]) {
        self.absent.push((path, origins.join("")));
    }

    /// The references through which `path` came out empty.
    pub(super) fn left_out(&self, path: &KeyPath) -> Option<&str> {
        self.absent.iter().find(|(absent, _)| absent == path).map(|(_, origins)| origins.as_str())
    }

    /// The names right below the top-level `section` that were taken out.
    pub(super) fn names_pruned_from(&self, section: &str) -> impl Iterator<Item = &str> {
        self.pruned.iter().filter_map(move |path| match path.steps() {
            [Step::Key(first), Step::Key(name)] if first == section => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether `path`, or something it lies in, was taken out.
    pub(super) fn is_pruned(&self, path: &KeyPath) -> bool {
        if self.pruned.is_empty() {
            return false;
        }
        let mut above = Some(path.clone());
        while let Some(path) = above {
            if self.pruned.contains(&path) {
                return true;
            }
            above = path.parent();
        }
        false
    }

    /// Whether a complaint about `path` may only be about what was taken out: of it, or with it.
    /// The root has lost something to every mistake at the top level, and may still be complained about.
    pub(super) fn explains(&self, path: &KeyPath) -> bool {
        let lost = |pruned: &KeyPath| pruned.parent().as_ref() == Some(path);
        self.is_pruned(path) || (!path.is_root() && self.pruned.iter().any(lost))
    }
}
