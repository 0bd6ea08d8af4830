//! Paths with fields in them: `/v1/{name}`, `/v1/{name=shelves/*}:verb`.
//!
//! The grammar is that of `google.api.http`: whole segments, `*` for any one segment, `**` for all
//! that remain. A field may stand for either.

use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use prost_reflect::MessageDescriptor;
use serde_json::Value;

use super::Fault;
use super::field::{self, FieldPath};

/// Everything that RFC 3986 does not leave unreserved (section 2.3).
pub(super) const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const UNFIT: Fault = Fault::Malformed("a field that the path holds does not fit into it");

/// A path, compiled.
pub(super) struct PathTemplate {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    /// What follows a colon at the end.
    verb: Option<String>,
}

/// In the order of preference: more specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

struct Variable {
    field: FieldPath,
    /// The segments that the field stands for.
    segments: Range<usize>,
}

impl PathTemplate {
    /// Parses `text`, whose fields are those of `message`.
    ///
    /// # Errors
    /// Why `text` is not a valid path.
    pub(super) fn parse(text: &str, message: &MessageDescriptor) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or("a path begins with a slash")?;
        let after_field = rest.rfind('}').map_or(0, |at| at + 1);
        let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (rest, verb) = match rest[after_field.max(last_slash)..].find(':') {
            Some(at) => {
                let at = at + after_field.max(last_slash);
                (&rest[..at], Some(rest[at + 1..].to_owned()))
            }
            None => (rest, None),
        };
        let mut template = PathTemplate { segments: Vec::new(), variables: Vec::new(), verb };
        let mut rest = rest;
        while !(rest.is_empty() && template.segments.is_empty()) {
            let after = match rest.strip_prefix('{') {
                Some(inner) => {
                    let (inner, after) = inner.split_once('}').ok_or("a brace is not closed")?;
                    template.variable(inner, message)?;
                    after
                }
                None => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    template.segments.push(segment(&rest[..end])?);
                    &rest[end..]
                }
            };
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix('/').ok_or("a field in braces is a whole segment")?;
        }
        let wild = template.segments.iter().position(|segment| *segment == Segment::Rest);
        if wild.is_some_and(|at| at + 1 != template.segments.len()) {
            return Err("`**` is the last segment".to_owned());
        }
        Ok(template)
    }

    fn variable(&mut self, inner: &str, message: &MessageDescriptor) -> Result<(), String> {
        let (name, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        let field = FieldPath::resolve(message, name)?;
        if !field.is_scalar() {
            return Err(format!("`{name}` is not one value, which a path could hold"));
        }
        let start = self.segments.len();
        for part in pattern.split('/') {
            self.segments.push(segment(part)?);
        }
        self.variables.push(Variable { field, segments: start..self.segments.len() });
        Ok(())
    }

    /// Whether a message alone determines the path: every wildcard belongs to a field.
    pub(super) fn is_complete(&self) -> bool {
        let of_field = |at| self.variables.iter().any(|v| v.segments.contains(&at));
        let is_literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
        self.segments.iter().enumerate().all(|(at, segment)| is_literal(segment) || of_field(at))
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &FieldPath> {
        self.variables.iter().map(|variable| &variable.field)
    }

    /// The order in which paths are tried.
    pub(super) fn rank(&self) -> impl Ord + '_ {
        (&self.segments, self.verb.is_none())
    }

    /// The path for a message, given as JSON.
    ///
    /// # Errors
    /// A field's value does not fit its place in the path.
    pub(super) fn expand(&self, message: &Value) -> Result<String, Fault> {
        let mut path = String::with_capacity(64);
        let mut at = 0;
        while at < self.segments.len() {
            let variable = self.variables.iter().find(|v| v.segments.start == at);
            match (variable, &self.segments[at]) {
                (Some(variable), _) => {
                    let text = field::to_text(variable.field.value(message));
                    self.expand_variable(variable, &text.unwrap_or_default(), &mut path)?;
                    at = variable.segments.end;
                }
                (None, Segment::Literal(text)) => {
                    push_segment(text, &mut path)?;
                    at += 1;
                }
                // Refused when the route is compiled, by `is_complete`.
                (None, Segment::One | Segment::Rest) => return Err(UNFIT),
            }
        }
        if self.segments.is_empty() {
            path.push('/');
        }
        if let Some(verb) = &self.verb {
            path.push(':');
            path.push_str(verb);
        }
        Ok(path)
    }

    fn expand_variable(
        &self,
        variable: &Variable,
        text: &str,
        path: &mut String,
    ) -> Result<(), Fault> {
        let pattern = &self.segments[variable.segments.clone()];
        if let [Segment::One] = pattern {
            return push_segment(text, path);
        }
        let parts: Vec<&str> = text.split('/').collect();
        let fits = fits(pattern, &parts, |literal, part| literal == part);
        if !fits {
            return Err(UNFIT);
        }
        parts.into_iter().try_for_each(|part| push_segment(part, path))
    }

    /// The fields' values in `path`, which is still percent-encoded. `None` if it does not match.
    pub(super) fn capture(&self, path: &str) -> Option<Vec<(&FieldPath, String)>> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            path = path.strip_suffix(verb.as_str())?.strip_suffix(':')?;
        }
        let parts: Vec<&str> = match path {
            "" => Vec::new(),
            path => path.split('/').collect(),
        };
        let equal = |literal: &str, part: &str| percent_decode_str(part).eq(literal.bytes());
        if !fits(&self.segments, &parts, equal) {
            return None;
        }
        let mut captured = Vec::with_capacity(self.variables.len());
        for Variable { field, segments } in &self.variables {
            captured.push((field, self.text_of(segments.clone(), &parts)?));
        }
        Some(captured)
    }

    fn text_of(&self, segments: Range<usize>, parts: &[&str]) -> Option<String> {
        let pattern = &self.segments[segments.clone()];
        if let [Segment::One] = pattern {
            return decoded(parts[segments.start]);
        }
        let end = match pattern.last() {
            Some(Segment::Rest) => parts.len(),
            Some(_) | None => segments.end,
        };
        // A slash within a segment must not become a separator.
        let decoded = |part: &&str| decoded(part).map(|text| text.replace('/', "%2F"));
        let texts: Option<Vec<String>> = parts[segments.start..end].iter().map(decoded).collect();
        Some(texts?.join("/"))
    }
}

fn segment(text: &str) -> Result<Segment, String> {
    match text {
        "" => Err("a segment is empty".to_owned()),
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Rest),
        "." | ".." => Err(format!("`{text}` is no segment")),
        text if text.contains(['{', '}', '*', '=', '?', '#']) => {
            Err(format!("`{text}` is no segment: a field or a wildcard is all of one"))
        }
        text => Ok(Segment::Literal(text.to_owned())),
    }
}

fn fits(pattern: &[Segment], parts: &[&str], equal: impl Fn(&str, &str) -> bool) -> bool {
    let counted = match pattern.last() {
        Some(Segment::Rest) => parts.len() >= pattern.len() - 1,
        Some(_) | None => parts.len() == pattern.len(),
    };
    counted
        && pattern.iter().zip(parts).all(|(segment, part)| match segment {
            Segment::Literal(literal) => equal(literal, part),
            Segment::One => !part.is_empty(),
            Segment::Rest => true,
        })
}

/// Appends a segment. Refuses dots alone: they would change the path however they are encoded.
fn push_segment(text: &str, path: &mut String) -> Result<(), Fault> {
    if matches!(text, "" | "." | "..") {
        return Err(UNFIT);
    }
    path.push('/');
    path.extend(utf8_percent_encode(text, ENCODED));
    Ok(())
}

fn decoded(part: &str) -> Option<String> {
    percent_decode_str(part).decode_utf8().ok().map(Into::into)
}
