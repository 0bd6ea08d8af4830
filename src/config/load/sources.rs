//! The files a configuration was read from; converts problems to diagnostics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use aws_lc_rs::digest::{self, SHA256};

use super::MAX_FINDINGS;
use super::aimed::aim;
use super::assemble::SourceFile;
use super::excerpt;
use super::fault::Position;
use super::findings::{Finding, Findings, Spot};
use super::layering::Layering;
use super::node::{Node, Origin, Value};
use super::parse::locate;
use super::path::{KeyPath, Step};
use super::problem::{Diagnostic, Problem};
use super::renamed::Renamed;
use crate::config::code::{Code, Severity};

/// The files that were read. Knows where each part of the configuration is written, and which parts
/// were removed because they were wrong.
pub struct Sources {
    files: Vec<SourceFile>,
    tree: Node,
    findings: Findings,
}

impl Sources {
    pub(super) fn new(files: Vec<SourceFile>, tree: Node, findings: Findings) -> Self {
        Sources { files, tree, findings }
    }

    /// The main file, then the included ones. Files that could not be read are listed too.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// A hash of the files' text, the same for the same text in any process. Where files lie, and the
    /// values of variables, do not count.
    pub fn digest(&self) -> u64 {
        let mut context = digest::Context::new(&SHA256);
        for file in &self.files {
            context.update(&(file.text.len() as u64).to_be_bytes());
            context.update(file.text.as_bytes());
        }
        let hash = context.finish();
        hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The files that `${file:…}` refers to. Files that could not be read are listed too.
    pub fn referenced(&self) -> impl Iterator<Item = &Path> {
        self.findings.referenced.iter().map(|file| file.as_path())
    }

    /// The keys that are written under a name which they had before, by their present path.
    pub fn renamed(&self) -> &[(KeyPath, &'static Renamed)] {
        &self.findings.renamed
    }

    /// Whether the value at `path`, or one that contains it, was written but removed as wrong. A
    /// name that was removed is not unknown.
    pub fn is_pruned(&self, path: impl Into<KeyPath>) -> bool {
        self.findings.is_pruned(&self.as_written(&path.into()))
    }

    /// The names in the top-level `section` that were written but removed as wrong. They can still
    /// be suggested.
    pub fn names_pruned_from<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.findings.names_pruned_from(section)
    }

    /// All mistakes found while loading, and those of `problems` that do not follow from them;
    /// sorted by file and place, without repetitions. A problem whose path is not in any file is
    /// shown at its nearest existing ancestor. Interpolated values are not shown.
    pub fn diagnose(&self, problems: Vec<Problem>) -> Vec<Diagnostic> {
        let follows =
            |problem: &Problem| self.findings.explains_together(&self.as_written(&problem.path));
        let found = problems.into_iter().filter(|problem| !follows(problem));
        let mut findings: Vec<Finding> = found
            .map(|problem| self.find(problem))
            .chain(self.findings.list().iter().cloned())
            // Those beyond the limit are not shown, so they need not be located.
            .take(MAX_FINDINGS + 1)
            .collect();
        let overflow = self.findings.overflow || findings.len() > MAX_FINDINGS;
        let is_error = |finding: &Finding| finding.code.severity() == Severity::Error;
        let too_many = match findings.iter().any(is_error) {
            true => Code::TooManyProblems,
            false => Code::TooManyWarnings,
        };
        findings.truncate(MAX_FINDINGS);
        let places = self.places(&findings);
        let mut lines = BTreeMap::new();
        let mut diagnostics: Vec<_> =
            findings.iter().map(|f| self.diagnostic(f, &places, &mut lines)).collect();
        diagnostics.sort_by(|a, b| self.rank(a).cmp(&self.rank(b)).then_with(|| a.cmp(b)));
        diagnostics.dedup();
        if let (true, Some(last)) = (overflow, diagnostics.last()) {
            let message = format!("more than {MAX_FINDINGS} problems: the others are not shown");
            let (line, column) = (last.line, last.column);
            let more = Diagnostic::of_file(too_many, &last.file, message);
            diagnostics.push(Diagnostic { line, column, end: column, ..more });
        }
        diagnostics
    }

    /// The configuration as it was read.
    pub(super) fn tree(&self) -> &Node {
        &self.tree
    }

    pub(super) fn layering(&self) -> Option<&'static Layering> {
        self.findings.layering
    }

    /// The text of a file.
    pub(super) fn text(&self, file: usize) -> &str {
        self.files.get(file).map_or("", |file| &file.text)
    }

    /// Whether the value can be validated: every file was read.
    pub(super) fn is_complete(&self) -> bool {
        !self.findings.incomplete
    }

    fn find(&self, problem: Problem) -> Finding {
        let path = self.as_written(&problem.path);
        let redact = |text| match self.tree.at(&path) {
            Some(node) => node.redact(text),
            None => text,
        };
        let (message, remedy) = (redact(problem.message), problem.remedy.map(redact));
        let (path, mut message) = aim(&self.tree, path, message);
        let with: Vec<_> = problem.with.iter().map(|with| self.as_written(with)).collect();
        let default = std::iter::once(&path).chain(&with).find_map(|path| self.default_of(path));
        let is_own =
            |path: &&KeyPath| self.tree.at(path).is_some() && !self.tree.is_beneath(path.steps());
        let (path, spot) = match &default {
            // In the thing that does not go with the default: others may well do so.
            Some(_) => match std::iter::once(&path).chain(&with).find(is_own) {
                Some(own) => (own.clone(), self.tree.spot(own)),
                None => (path.clone(), self.tree.own_spot(&path)),
            },
            None => (path.clone(), self.tree.spot(&path)),
        };
        let beside = problem.beside.map(|other| self.as_written(&other));
        let other = default.or(beside).filter(|other| *other != path);
        if let Some(other) = &other {
            message.push_str(&format!("; `{other}` is at "));
        }
        let first = other.map(|other| self.tree.spot(&other));
        let finding = Finding::new(&path, Spot::Value(spot), problem.code, message);
        Finding { remedy, first, ..finding }
    }

    /// The place of one of several values, of which a single one may be written without a list.
    pub fn element(&self, values: &KeyPath, index: usize) -> KeyPath {
        match self.tree.at(&self.as_written(values)).map(|node| &node.value) {
            Some(Value::Sequence(_)) => values.clone().index(index),
            _ => values.clone(),
        }
    }

    /// The place of the default that is in force at `path`; `None` if none is.
    pub(super) fn default_of(&self, path: &KeyPath) -> Option<KeyPath> {
        let default = self.layering()?.default_of(path)?;
        self.tree.is_beneath(path.steps()).then_some(default)
    }

    /// `path` with the indices and keys of the file. A typed list has lost the elements that were
    /// removed before this one, and the typed name of a header its capitals.
    pub(super) fn as_written(&self, path: &KeyPath) -> KeyPath {
        let mut node = Some(&self.tree);
        let mut written = KeyPath::root();
        for step in path.steps() {
            let step = match (node.map(|node| &node.value), step) {
                (Some(Value::Sequence(elements)), Step::Index(index)) => {
                    Step::Index(elements.get(*index).map_or(*index, |element| element.index))
                }
                (_, Step::Key(key)) => {
                    let entry = node.and_then(|node| node.entry_in_any_case(key));
                    Step::Key(entry.map_or(key, |entry| &entry.key).clone())
                }
                (_, step) => step.clone(),
            };
            node = node.and_then(|node| node.child(&step));
            written.push(step);
        }
        written
    }

    /// The positions that the findings refer to. Each file is read at most once for this.
    fn places(&self, findings: &[Finding]) -> BTreeMap<Origin, Position> {
        let mut sought: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for finding in findings {
            let value = match finding.spot {
                Spot::Value(origin) => Some(origin),
                Spot::File(..) => None,
            };
            for Origin { file, ordinal } in value.into_iter().chain(finding.first) {
                sought.entry(file).or_default().insert(ordinal);
            }
        }
        let located = sought.into_iter().flat_map(|(file, ordinals)| {
            let text = self.files.get(file).map_or("", |file| file.text.as_str());
            let found = locate(text, ordinals).into_iter();
            found.map(move |(ordinal, position)| (Origin { file, ordinal }, position))
        });
        located.collect()
    }

    /// `lines` holds those of the files that were needed so far.
    fn diagnostic<'a>(
        &'a self,
        finding: &Finding,
        places: &BTreeMap<Origin, Position>,
        lines: &mut BTreeMap<usize, Vec<&'a str>>,
    ) -> Diagnostic {
        let place = |origin| places.get(&origin).copied().unwrap_or(Position::START);
        let (file, position) = match finding.spot {
            Spot::File(file, position) => (file, position),
            Spot::Value(origin) => (origin.file, place(origin)),
        };
        let mut message = finding.message.clone();
        if let Some(first) = finding.first {
            let line = place(first).line;
            message.push_str(&format!("{}:{line}", self.name(first.file).display()));
        }
        let text = || self.files.get(file).map_or("", |file| file.text.as_str());
        let lines = lines.entry(file).or_insert_with(|| text().lines().collect());
        // What is missing at the top is on no line.
        let nowhere = match finding.spot {
            Spot::Value(origin) => origin == self.tree.origin,
            // The parser does not say where aliases expand too far.
            Spot::File(_, position) => {
                finding.code == Code::TooManyValues && position == Position::START
            }
        };
        let excerpt = if nowhere { None } else { excerpt::at(lines, position) };
        Diagnostic {
            file: self.name(file).to_owned(),
            line: position.line,
            column: position.column,
            end: excerpt.as_ref().map_or(position.column, |excerpt| excerpt.end),
            path: finding.path.to_string(),
            message: on_one_line(&message),
            remedy: finding.remedy.as_deref().map(on_one_line),
            code: finding.code,
            source: excerpt.map(|excerpt| excerpt.line),
        }
    }

    pub(super) fn name(&self, file: usize) -> &Path {
        self.files.get(file).map_or(Path::new(""), |file| &file.path)
    }

    /// Sorts the main file first, whatever its name.
    fn rank(&self, diagnostic: &Diagnostic) -> bool {
        self.name(0) != diagnostic.file
    }
}

/// Omits the text and the values, because some are secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files()).finish()
    }
}

fn on_one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}
