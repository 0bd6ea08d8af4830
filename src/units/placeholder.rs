//! Text with placeholders in braces: `answered in {response.duration_ms} ms`.
//!
//! The caller defines which placeholders there are. A literal brace is written twice.

use std::str::FromStr;

/// A part of the text. No two literals in a row, and no empty ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<P> {
    /// With doubled braces made single.
    Literal(Box<str>),
    /// What the name in braces stands for.
    Placeholder(P),
}

/// Parses `text` into literals and placeholders.
///
/// # Errors
/// A brace stands alone, or the placeholder's own error about one it does not know.
pub fn parse<P: FromStr<Err = String>>(text: &str) -> Result<Box<[Part<P>]>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if brace.starts_with("{{") || brace.starts_with("}}") {
            literal.push_str(&brace[..1]);
            rest = &brace[2..];
            continue;
        }
        let Some((name, after)) = brace.strip_prefix('{').and_then(|b| b.split_once('}')) else {
            return Err(format!("`{text}`: a brace stands alone, write it twice if it is meant"));
        };
        parts.extend(part_of(&mut literal));
        parts.push(Part::Placeholder(name.parse()?));
        rest = after;
    }
    literal.push_str(rest);
    parts.extend(part_of(&mut literal));
    Ok(parts.into())
}

fn part_of<P>(literal: &mut String) -> Option<Part<P>> {
    let text = std::mem::take(literal);
    (!text.is_empty()).then(|| Part::Literal(text.into()))
}
