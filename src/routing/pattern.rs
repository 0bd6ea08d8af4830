//! Path patterns as the operator configures them, and the values a path gives to their parameters.
//!
//! A pattern consists of whole segments: a literal; `:name` for one segment, captured under its
//! name; `*` for one segment that is not captured; and, only at the end, `*` (or `**`) for all
//! remaining segments, even none. So `/api/a/*` matches `/api/a`, `/api/a/` and `/api/a/x/y`, but
//! never `/api/apple`. The router decides which of several patterns wins.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::path;
use crate::units::schema::written_as;

/// A validated path pattern; clones share it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    text: Arc<str>,
    segments: Arc<[Segment]>,
}

/// One segment of a pattern, in the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Exactly this, in canonical form. Empty only at the end: the path ends in a slash.
    Fixed(Box<str>),
    /// One segment that is not empty, captured under a name.
    Param(Box<str>),
    /// One segment that is not empty.
    Any,
    /// All that remains; only at the end.
    Rest,
}

impl Segment {
    pub(super) fn is_param(&self) -> bool {
        matches!(self, Segment::Param(_))
    }
}

impl Pattern {
    /// The pattern of a route without a path.
    pub fn everything() -> Self {
        Pattern { text: "/*".into(), segments: [Segment::Rest].into() }
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether a canonical path is one of those that are meant, as the router would find it.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/').skip(1);
        for segment in &*self.segments {
            let is_met = match (segment, parts.next()) {
                (Segment::Rest, _) => return true,
                (_, None) => false,
                (Segment::Fixed(wanted), Some(part)) => **wanted == *part,
                (Segment::Param(_) | Segment::Any, Some(part)) => !part.is_empty(),
            };
            if !is_met {
                return false;
            }
        }
        parts.next().is_none()
    }

    /// Whether there is a path that both match.
    pub fn meets(&self, other: &Pattern) -> bool {
        let mut theirs = other.segments.iter();
        for ours in &*self.segments {
            let is_met = match (ours, theirs.next()) {
                (Segment::Rest, _) | (_, Some(Segment::Rest)) => return true,
                (_, None) => false,
                (Segment::Fixed(one), Some(Segment::Fixed(other))) => one == other,
                (Segment::Fixed(one), Some(Segment::Param(_) | Segment::Any))
                | (Segment::Param(_) | Segment::Any, Some(Segment::Fixed(one))) => !one.is_empty(),
                (Segment::Param(_) | Segment::Any, Some(Segment::Param(_) | Segment::Any)) => true,
            };
            if !is_met {
                return false;
            }
        }
        theirs.next().is_none_or(|left| *left == Segment::Rest)
    }

    /// The names of the parameters, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(&**name),
            Segment::Fixed(_) | Segment::Any | Segment::Rest => None,
        })
    }

    /// Whether the pattern ends in a `*` for all remaining segments.
    pub fn has_rest(&self) -> bool {
        self.segments.last() == Some(&Segment::Rest)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(body) = text.strip_prefix('/') else {
            return Err(format!("`{text}`: a path begins with `/`"));
        };
        let mut segments = Vec::new();
        let mut parts = body.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let segment = parse_segment(part, last).map_err(|why| format!("`{text}`: {why}"))?;
            if matches!(segment, Segment::Param(_)) && segments.contains(&segment) {
                return Err(format!("`{text}`: the parameter `{part}` occurs twice"));
            }
            segments.push(segment);
        }
        Ok(Pattern { text: text.into(), segments: segments.into() })
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_segment(part: &str, last: bool) -> Result<Segment, String> {
    match part {
        "*" | "**" if last => return Ok(Segment::Rest),
        "*" => return Ok(Segment::Any),
        "**" => return Err("`**` stands only at the end".to_owned()),
        "" if last => return Ok(Segment::Fixed("".into())),
        "" => return Err("a segment is empty".to_owned()),
        _ => {}
    }
    if let Some(name) = part.strip_prefix(':') {
        return match is_name(name) {
            true => Ok(Segment::Param(name.into())),
            false => Err(format!(
                "`{part}`: a parameter is named with letters, digits and `_`, not a digit first"
            )),
        };
    }
    if part.contains('*') {
        return Err(format!("`{part}`: `*` stands for whole segments"));
    }
    if part.contains(['{', '}']) {
        return Err(format!("`{part}`: a parameter is written `:name`"));
    }
    let literal = format!("/{part}");
    let canonical = path::canonicalize(literal.as_bytes()).map_err(|why| why.to_string())?;
    Ok(Segment::Fixed(canonical[1..].into()))
}

/// Whether `text` is a valid name for a parameter.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The values that a path gives to the parameters of its pattern.
///
/// Two references: the path is not taken apart before a value is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    pattern: &'a Pattern,
    path: &'a str,
}

impl<'a> Params<'a> {
    /// `path` is canonical and matches `pattern`.
    pub(super) fn new(pattern: &'a Pattern, path: &'a str) -> Self {
        Params { pattern, path }
    }

    /// The canonical path that was matched.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The value of the parameter `name`: one segment, in canonical encoding, never empty.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Every parameter with its value, in the pattern's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let values = self.path.split('/').skip(1);
        self.pattern.segments.iter().zip(values).filter_map(|(segment, value)| match segment {
            Segment::Param(name) => Some((&**name, value)),
            Segment::Fixed(_) | Segment::Any | Segment::Rest => None,
        })
    }

    /// What the `*` at the pattern's end matched, with the slash before it if there is one:
    /// `/api/a` and `/api/a/` differ.
    pub(super) fn tail(&self) -> Option<&'a str> {
        if !self.pattern.has_rest() {
            return None;
        }
        Some(skip_segments(self.path, self.pattern.segments.len() - 1))
    }
}

/// What follows the first `count` segments of `path`: nothing, or text that begins with a slash.
pub(super) fn skip_segments(path: &str, count: usize) -> &str {
    let slash = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(count);
    slash.map_or("", |(at, _)| &path[at..])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the patterns are literals")]
mod tests {
    use super::*;

    #[test]
    fn literal_segments_are_kept_in_canonical_form() {
        let pattern: Pattern = "/caf\u{e9}/%7euser/v1:run".parse().unwrap();
        let fixed = |text: &str| Segment::Fixed(text.into());
        assert_eq!(pattern.segments(), [fixed("caf%C3%A9"), fixed("~user"), fixed("v1:run")]);
    }

    #[test]
    fn a_star_is_the_rest_at_the_end_and_one_segment_elsewhere() {
        let segments = |text: &str| text.parse::<Pattern>().unwrap().segments().to_vec();
        assert_eq!(segments("/*/*"), [Segment::Any, Segment::Rest]);
        assert_eq!(segments("/**"), [Segment::Rest]);
        assert_eq!(segments("/*"), Pattern::everything().segments());
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused_with_a_remedy() {
        for (text, remedy) in [
            ("users", "begins with `/`"),
            ("", "begins with `/`"),
            ("/a//b", "a segment is empty"),
            ("/a/**/b", "only at the end"),
            ("/a*", "whole segments"),
            ("/users/{id}", "written `:name`"),
            ("/users/:", "is named with"),
            ("/users/:1d", "is named with"),
            ("/users/:user-id", "is named with"),
            ("/:id/:id", "occurs twice"),
            ("/a/../b", "dot segment"),
            ("/a?b", "percent-encoded"),
            ("/a%2Fb", "encoded slash"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn parameters_are_read_from_the_path() {
        let pattern: Pattern = "/users/:id/*/:part/*".parse().unwrap();
        let params = Params::new(&pattern, "/users/7%20b/x/photo/a/b");
        assert_eq!(params.iter().collect::<Vec<_>>(), [("id", "7%20b"), ("part", "photo")]);
        assert_eq!(params.value("part"), Some("photo"));
        assert_eq!(params.value("other"), None);
        assert_eq!(params.tail(), Some("/a/b"));
    }

    #[test]
    fn a_pattern_by_itself_matches_what_the_router_finds_by_it() {
        let patterns =
            ["/", "/*", "/a", "/a/", "/a/*", "/a/:x", "/a/:x/", "/*/b", "/:x/b/*", "/a/*/*"];
        let paths = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a//b", "/c/b", "/apple", "/a/b/c"];
        for text in patterns {
            let pattern: Pattern = text.parse().unwrap();
            let criteria = serde_yaml::from_str(&format!("{{path: '{text}'}}")).unwrap();
            let router = super::super::Router::try_new([(0, "only", &criteria)]).unwrap();
            let method = http::Method::GET;
            let asked = super::super::Asked::of(&method);
            for path in paths {
                let found = router.find("", path, &asked).is_ok();
                assert_eq!(pattern.matches(path), found, "{text} {path}");
            }
        }
    }

    #[test]
    fn two_patterns_meet_if_a_path_matches_both() {
        for (one, other, meet) in [
            ("/a/*", "/a", true),
            ("/a/*", "/*", true),
            ("/a/b/*", "/a/*", true),
            ("/a/:x", "/:y/b", true),
            ("/a/b", "/a/b", true),
            ("/a/:x", "/a", false),
            ("/a/:x", "/a/", false),
            ("/a/*/c", "/a/b", false),
            ("/a/*", "/b/*", false),
            ("/a/:x/b", "/a/:y/c", false),
        ] {
            let [one, other]: [Pattern; 2] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!((one.meets(&other), other.meets(&one)), (meet, meet), "{one} {other}");
        }
    }

    #[test]
    fn the_rest_may_be_nothing() {
        let pattern: Pattern = "/a/*".parse().unwrap();
        for (path, tail) in [("/a", ""), ("/a/", "/"), ("/a/x", "/x")] {
            assert_eq!(Params::new(&pattern, path).tail(), Some(tail), "{path}");
        }
    }
}

written_as!(Pattern, "PathPattern", {
    "description": "A path: literals, `:name` for one segment, `*` for one or, at the end, for the rest.",
    "type": "string",
    "pattern": "^/",
});
