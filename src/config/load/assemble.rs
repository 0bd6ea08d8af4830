//! Joins the main file and the files it includes into one tree.
//!
//! `include` names further files by pattern, relative to the main file. Their top-level contents
//! join those of the main file: mappings of named things are merged, and nothing may be defined
//! twice. Included files cannot include others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::fault::{Fault, Position};
use super::file::{decode, read_bounded, read_stdin};
use super::findings::Findings;
use super::node::{Entry, Node, Origin, Value};
use super::parse::parse;
use super::path::KeyPath;
use super::resolve::Resolver;
use crate::config::code::Code;

pub(super) const INCLUDE: &str = "include";
/// A mapping at the top that one file alone may have: it concerns all others, and would be hard to
/// find in parts.
const UNDIVIDED: &str = "defaults";
const MAX_FILES: usize = 1000;

/// A file that was read, kept to find places in it.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    /// Empty if it could not be read.
    pub(super) text: String,
}

pub(super) struct Assembly<'a> {
    environment: &'a Environment,
    pub(super) files: Vec<SourceFile>,
    pub(super) findings: Findings,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Assembly { environment, files: Vec::new(), findings: Findings::default() }
    }

    /// Everything in the file at `path` and its includes; mistakes go to the findings. `-` is the
    /// standard input, with includes relative to the working directory.
    pub(super) fn assemble(&mut self, path: &Path) -> Node {
        let Some(mut tree) = self.read(path) else {
            return Node::new(Origin { file: 0, ordinal: 0 }, Value::Null);
        };
        let Some(include) = take(&mut tree, INCLUDE) else { return tree };
        for file in self.included(path, &include) {
            let Some(mut part) = self.read(&file) else { continue };
            if let Some(nested) = take(&mut part, INCLUDE) {
                let message = "only the main file can include others";
                let path = KeyPath::root().key(INCLUDE);
                self.findings.record(&path, nested.key_origin, Code::IncludeNested, message);
            }
            self.merge(&mut tree, part);
        }
        tree
    }

    /// The main file's `include`, if it has one that can be read.
    pub(super) fn include_of(&mut self, main: &Path) -> Option<Entry> {
        take(&mut self.read(main)?, INCLUDE)
    }

    fn read(&mut self, path: &Path) -> Option<Node> {
        let file = self.files.len();
        // Only the main file: one that is included may have any name.
        let is_stdin = file == 0 && path == Path::new("-");
        let name = if is_stdin { Path::new("<stdin>") } else { path };
        self.files.push(SourceFile { path: name.to_owned(), text: String::new() });
        let node = if is_stdin { read_stdin() } else { read_bounded(path) };
        let node = node
            .map_err(|(code, error)| Fault::new(Position::START, code, format!("the file {error}")))
            .and_then(|bytes| decode(&bytes))
            .and_then(|text| {
                let node = parse(&text, file);
                self.files[file].text = text;
                node
            });
        let mut node = match node {
            Ok(node) => node,
            Err(fault) => {
                self.findings.record_file(file, fault);
                return None;
            }
        };
        match node.value {
            Value::Null | Value::Mapping(_) => {}
            Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Sequence(_) => {
                let message = "expected a mapping at the top of the file".to_owned();
                let position = Position::START;
                let fault = Fault::new(position, Code::NotAMapping, message);
                self.findings.record_file(file, fault);
                return None;
            }
        }
        Resolver::new(self.environment, directory_of(path), &mut self.findings).resolve(&mut node);
        Some(node)
    }

    /// The files that `include` names: sorted, each once, without the main file.
    pub(super) fn included(&mut self, main: &Path, include: &Entry) -> Vec<PathBuf> {
        let root = KeyPath::root().key(INCLUDE);
        let patterns = match &include.node.value {
            Value::Null => Vec::new(),
            Value::Text(_) => vec![(root, &include.node)],
            Value::Sequence(elements) => {
                elements.iter().map(|e| (root.clone().index(e.index), &e.node)).collect()
            }
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Mapping(_) => {
                let message = "expected a pattern, or a list of them";
                let at = include.node.origin;
                self.findings.record(&root, at, Code::IncludePattern, message);
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for (path, node) in patterns {
            match matches(directory_of(main), node) {
                Ok(files) => found.extend(files),
                Err(Unusable { code, message, remedy }) => {
                    self.findings.incomplete = true;
                    let (kind, remedy) = ((code, node.redact(message)), remedy.map(str::to_owned));
                    self.findings.record_with(&path, node.origin, kind, remedy);
                }
            }
        }
        found.sort();
        let mut known = vec![identity(main)];
        found.retain(|file| {
            let identity = identity(file);
            let new = !known.contains(&identity);
            known.push(identity);
            new
        });
        if found.len() > MAX_FILES {
            self.findings.incomplete = true;
            let message = format!("matches {} files; at most {MAX_FILES}", found.len());
            let path = KeyPath::root().key(INCLUDE);
            let is_one = matches!(include.node.value, Value::Text(_));
            let at = if is_one { include.node.origin } else { include.key_origin };
            self.findings.record(&path, at, Code::IncludeTooMany, message);
            found.truncate(MAX_FILES);
        }
        found
    }

    fn merge(&mut self, tree: &mut Node, part: Node) {
        let Value::Mapping(additions) = part.value else { return };
        let Value::Mapping(entries) = &mut tree.value else {
            *tree = Node::new(part.origin, Value::Mapping(additions));
            return;
        };
        for added in additions {
            let Some(present) = entries.iter_mut().find(|entry| entry.key == added.key) else {
                entries.push(added);
                continue;
            };
            let path = KeyPath::root().key(&added.key);
            match (&mut present.node.value, added.node.value) {
                (_, Value::Null) => {}
                (nothing @ Value::Null, value) => *nothing = value,
                (Value::Mapping(names), Value::Mapping(more)) if added.key != UNDIVIDED => {
                    add_names(names, more, &path, &mut self.findings);
                }
                (_, _) => {
                    let (at, first) = (added.key_origin, present.key_origin);
                    self.findings.record_repeated(&path, &added.key, at, first);
                }
            }
        }
    }
}

fn add_names(names: &mut Vec<Entry>, more: Vec<Entry>, path: &KeyPath, findings: &mut Findings) {
    let known: HashMap<String, Origin> =
        names.iter().map(|entry| (entry.key.clone(), entry.key_origin)).collect();
    for added in more {
        match known.get(&added.key) {
            None => names.push(added),
            Some(first) => {
                let path = path.clone().key(&added.key);
                findings.record_repeated(&path, &added.key, added.key_origin, *first);
            }
        }
    }
}

/// Why a pattern names no files.
struct Unusable {
    code: Code,
    message: String,
    /// What to do, if there is more to say than for every mistake of this kind.
    remedy: Option<&'static str>,
}

impl Unusable {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Unusable { code, message: message.into(), remedy: None }
    }
}

/// The files that match the pattern in `node`.
fn matches(directory: &Path, node: &Node) -> Result<Vec<PathBuf>, Unusable> {
    let Value::Text(pattern) = &node.value else {
        return Err(Unusable::new(Code::IncludePattern, "expected a pattern"));
    };
    let pattern = &pattern.value;
    let base = glob::Pattern::escape(&directory.to_string_lossy());
    let full = Path::new(&base).join(pattern);
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        // A pattern does not match hidden files, such as an editor's swap file.
        require_literal_leading_dot: true,
    };
    let paths = glob::glob_with(&full.to_string_lossy(), options)
        .map_err(|error| not_a_pattern(error.msg))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let folder = error.path().display();
            let message = format!("`{folder}` cannot be searched for files");
            Unusable::new(Code::IncludeMissing, message)
        })?;
        if !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() && !pattern.contains(['*', '?', '[']) {
        return Err(Unusable::new(Code::IncludeMissing, format!("there is no file `{pattern}`")));
    }
    Ok(files)
}

/// What the crate says of a pattern, in words that tell what to change.
fn not_a_pattern(said: &str) -> Unusable {
    let (message, remedy) = if said.contains("range") {
        let message = "`[` begins a set of characters, which nothing closes";
        (message.to_owned(), Some("write `[[]` for a bracket in a name, or close the set with `]`"))
    } else if said.contains("wildcard") {
        let message = "`**` stands for any folders and must be alone between two slashes";
        (message.to_owned(), Some("write it as in `routes/**/*.yaml`, or use `*` for one name"))
    } else {
        (format!("not a pattern: {said}"), None)
    };
    Unusable { remedy, ..Unusable::new(Code::IncludePattern, message) }
}

fn take(tree: &mut Node, key: &str) -> Option<Entry> {
    let Value::Mapping(entries) = &mut tree.value else { return None };
    let at = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(at))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
