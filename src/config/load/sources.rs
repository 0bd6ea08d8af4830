//! The files a configuration was read from: problems become diagnostics here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::MAX_FINDINGS;
use super::assemble::SourceFile;
use super::findings::{Finding, Findings, Spot};
use super::node::{Node, Origin, Value};
use super::parse::{Position, locate};
use super::path::{KeyPath, Step};
use super::problem::{Diagnostic, Problem};

/// What was read: knows where in which file each part of the configuration stands, and which parts
/// were taken out because they were wrong.
pub struct Sources {
    files: Vec<SourceFile>,
    tree: Node,
    findings: Findings,
}

impl Sources {
    pub(super) fn new(files: Vec<SourceFile>, tree: Node, findings: Findings) -> Self {
        Sources { files, tree, findings }
    }

    /// The main file, then those included, also those that could not be read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Whether what is at `path`, or something around it, was written but taken out as wrong.
    /// A name that was is not unknown.
    pub fn is_pruned(&self, path: impl Into<KeyPath>) -> bool {
        self.findings.is_pruned(&self.as_written(&path.into()))
    }

    /// The names in the top-level `section` that were written but taken out as wrong: they can
    /// still be meant.
    pub fn names_pruned_from<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.findings.names_pruned_from(section)
    }

    /// All that loading found wrong, and `problems` as far as they do not follow from it: by file
    /// and place, each once. A problem whose path is not in any file is shown at what is nearest
    /// above it. Values that came in through `${…}` are not shown.
    pub fn diagnose(&self, problems: Vec<Problem>) -> Vec<Diagnostic> {
        let found = problems.into_iter().map(|problem| self.find(problem));
        let mut findings: Vec<Finding> = found
            .filter(|finding| !self.findings.explains(&finding.path))
            .chain(self.findings.list().iter().cloned())
            // To find the others in the tree would be work for nothing.
            .take(MAX_FINDINGS + 1)
            .collect();
        let overflow = self.findings.overflow || findings.len() > MAX_FINDINGS;
        findings.truncate(MAX_FINDINGS);
        let places = self.places(&findings);
        let mut diagnostics: Vec<_> =
            findings.iter().map(|f| self.diagnostic(f, &places)).collect();
        diagnostics.sort_by(|a, b| self.rank(a).cmp(&self.rank(b)).then_with(|| a.cmp(b)));
        diagnostics.dedup();
        if let (true, Some(last)) = (overflow, diagnostics.last()) {
            let message = format!("more than {MAX_FINDINGS} problems; the others are not shown");
            diagnostics.push(Diagnostic { path: String::new(), message, ..last.clone() });
        }
        diagnostics
    }

    /// Whether `T` may be judged: everything that was written was also read.
    pub(super) fn is_complete(&self) -> bool {
        !self.findings.incomplete
    }

    fn find(&self, problem: Problem) -> Finding {
        let path = self.as_written(&problem.path);
        let message = match self.tree.at(&path) {
            Some(node) => node.redact(problem.message),
            None => problem.message,
        };
        Finding { spot: Spot::Value(self.tree.spot(&path)), path, message, first: None }
    }

    /// `path` with the indices that the file has. A typed list does not know that elements before
    /// this one were taken out.
    fn as_written(&self, path: &KeyPath) -> KeyPath {
        let mut node = Some(&self.tree);
        let mut written = KeyPath::root();
        for step in path.steps() {
            let step = match (node.map(|node| &node.value), step) {
                (Some(Value::Sequence(elements)), Step::Index(index)) => {
                    Step::Index(elements.get(*index).map_or(*index, |element| element.index))
                }
                (_, step) => step.clone(),
            };
            node = node.and_then(|node| node.child(&step));
            written.push(step);
        }
        written
    }

    /// Where all is that the findings speak of. Each file is read once for it, however many there are.
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

    fn diagnostic(&self, finding: &Finding, places: &BTreeMap<Origin, Position>) -> Diagnostic {
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
        Diagnostic {
            file: self.name(file).to_owned(),
            line: position.line,
            column: position.column,
            path: finding.path.to_string(),
            message: on_one_line(&message),
        }
    }

    fn name(&self, file: usize) -> &Path {
        self.files.get(file).map_or(Path::new(""), |file| &file.path)
    }

    /// The main file comes first, whatever its name.
    fn rank(&self, diagnostic: &Diagnostic) -> bool {
        self.name(0) != diagnostic.file
    }
}

/// Without the text and the values: some are secrets.
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
