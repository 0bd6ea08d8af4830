//! The mistakes found while loading, and the parts removed because of them.
//!
//! A removed part is reported as missing later on. Such a report only repeats the first mistake, so
//! it is dropped here.

use std::collections::HashSet;
use std::path::PathBuf;

use super::MAX_FINDINGS;
use super::fault::{Fault, Position};
use super::layering::Layering;
use super::node::Origin;
use super::path::{KeyPath, Step};
use super::renamed::Renamed;
use crate::config::code::Code;

#[derive(Clone)]
pub(super) struct Finding {
    pub(super) path: KeyPath,
    pub(super) spot: Spot,
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) remedy: Option<String>,
    /// The place that the end of the message refers to.
    pub(super) first: Option<Origin>,
}

impl Finding {
    /// With the remedy of its kind.
    pub(super) fn new(path: &KeyPath, spot: Spot, code: Code, message: String) -> Self {
        let remedy = code.remedy().map(str::to_owned);
        Finding { path: path.clone(), spot, code, message, remedy, first: None }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Spot {
    Value(Origin),
    /// A mistake in a file that has not been parsed into values.
    File(usize, Position),
}

#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    pruned: HashSet<KeyPath>,
    absent: Vec<(KeyPath, String)>,
    /// There were more findings than [`MAX_FINDINGS`].
    pub(super) overflow: bool,
    /// A file could not be read, so anything may be missing.
    pub(super) incomplete: bool,
    /// The files of `${file:…}`, whether they could be read or not.
    pub(super) referenced: Vec<PathBuf>,
    /// Where values come from that a named thing does not have itself.
    pub(super) layering: Option<&'static Layering>,
    /// Keys that were written under an earlier name, by their present path.
    pub(super) renamed: Vec<(KeyPath, &'static Renamed)>,
}

impl Findings {
    pub(super) fn list(&self) -> &[Finding] {
        &self.list
    }

    pub(super) fn record(
        &mut self,
        path: &KeyPath,
        spot: Origin,
        code: Code,
        message: impl Into<String>,
    ) {
        self.push(Finding::new(path, Spot::Value(spot), code, message.into()));
    }

    /// Records a mistake with a remedy of its own, if there is one.
    pub(super) fn record_with(
        &mut self,
        path: &KeyPath,
        spot: Origin,
        (code, message): (Code, String),
        remedy: Option<String>,
    ) {
        let finding = Finding::new(path, Spot::Value(spot), code, message);
        let remedy = remedy.or_else(|| finding.remedy.clone());
        self.push(Finding { remedy, ..finding });
    }

    /// Records a mistake whose message ends with another place.
    pub(super) fn record_beside(
        &mut self,
        path: &KeyPath,
        spot: Origin,
        (code, message): (Code, String),
        remedy: Option<String>,
        other: Origin,
    ) {
        let finding = Finding::new(path, Spot::Value(spot), code, message);
        let remedy = remedy.or_else(|| finding.remedy.clone());
        self.push(Finding { remedy, first: Some(other), ..finding });
    }

    /// Records that `key`, the last step of `path`, was already defined.
    pub(super) fn record_repeated(&mut self, path: &KeyPath, key: &str, at: Origin, first: Origin) {
        let message = format!("`{key}` is already defined at ");
        self.record_beside(path, at, (Code::RepeatedKey, message), None, first);
    }

    /// Records that the file with this index in the sources cannot be used.
    pub(super) fn record_file(&mut self, file: usize, fault: Fault) {
        self.incomplete = true;
        let spot = Spot::File(file, fault.position);
        let finding = Finding::new(&KeyPath::root(), spot, fault.code, fault.message);
        let remedy = fault.remedy.map(str::to_owned).or_else(|| finding.remedy.clone());
        self.push(Finding { remedy, ..finding });
    }

    fn push(&mut self, finding: Finding) {
        if self.list.len() == MAX_FINDINGS {
            self.overflow = true;
            return;
        }
        self.list.push(finding);
    }

    /// Notes that the value at `path` was removed, or that a removed one was meant to be there.
    pub(super) fn prune(&mut self, path: KeyPath) {
        self.pruned.insert(path);
    }

    /// Notes that the value at `path` counts as not written, because these references were empty.
    pub(super) fn leave_out(&mut self, path: KeyPath, origins: &[String]) {
        self.absent.push((path, origins.join("")));
    }

    /// The references that were empty at `path`.
    pub(super) fn left_out(&self, path: &KeyPath) -> Option<&str> {
        self.absent.iter().find(|(absent, _)| absent == path).map(|(_, origins)| origins.as_str())
    }

    /// The names directly below the top-level `section` that were removed.
    pub(super) fn names_pruned_from(&self, section: &str) -> impl Iterator<Item = &str> {
        self.pruned.iter().filter_map(move |path| match path.steps() {
            [Step::Key(first), Step::Key(name)] if first == section => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether `path`, or a value that contains it, was removed, or its default was.
    pub(super) fn is_pruned(&self, path: &KeyPath) -> bool {
        if self.pruned.is_empty() {
            return false;
        }
        if self.default_of(path).is_some_and(|default| self.is_pruned(&default)) {
            return true;
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

    /// Whether a complaint about `path` may only follow from what was removed: it, or something
    /// directly in it, or in its default. Every mistake at the top level removes something from the
    /// root, so complaints about the root are kept.
    pub(super) fn explains(&self, path: &KeyPath) -> bool {
        let lost = |path: &KeyPath| {
            !path.is_root() && self.pruned.iter().any(|p| p.parent().as_ref() == Some(path))
        };
        self.is_pruned(path) || lost(path) || self.default_of(path).is_some_and(|path| lost(&path))
    }

    /// The same for what concerns several keys: it may miss any default that was removed.
    pub(super) fn explains_together(&self, path: &KeyPath) -> bool {
        let is_default =
            |pruned: &KeyPath| self.layering.is_some_and(|layering| layering.is_default(pruned));
        self.explains(path)
            || (self.default_of(path).is_some() && self.pruned.iter().any(is_default))
    }

    fn default_of(&self, path: &KeyPath) -> Option<KeyPath> {
        self.layering?.default_of(path)
    }
}
