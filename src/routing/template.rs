//! Paths with placeholders: `/v2/users/{id}`, `/files/{*}`.
//!
//! `{name}` is the value of the route's parameter, `{*}` what the `*` at the end of its pattern
//! matched. Values come from a canonical path and are inserted as they are. So nothing is encoded
//! here, and nothing that was encoded can become a separator.

use std::borrow::Cow;
use std::str::FromStr;

use super::path;
use super::pattern::{Params, Pattern, is_name};
use crate::units::schema::written_as;

/// A path that is filled in from [`Params`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Never two in a row.
    Literal(Box<str>),
    Param(Box<str>),
    /// Only at the end. The slash before it belongs to the rest: it is left out if there is none.
    Rest,
}

impl Template {
    /// The first placeholder without a value in `pattern`, without its braces.
    pub fn missing_in(&self, pattern: &Pattern) -> Option<&str> {
        self.parts.iter().find_map(|part| match part {
            Part::Literal(_) => None,
            Part::Param(name) => {
                (!pattern.names().any(|known| known == &**name)).then_some(&**name)
            }
            Part::Rest => (!pattern.has_rest()).then_some("*"),
        })
    }

    /// The path for `params`, canonical. Allocates only if there is a placeholder.
    pub fn fill<'a>(&'a self, params: &Params<'_>) -> Cow<'a, str> {
        if let [Part::Literal(path)] = &*self.parts {
            return Cow::Borrowed(path);
        }
        let mut path = String::with_capacity(params.path().len() + 32);
        for part in &self.parts {
            path.push_str(match part {
                Part::Literal(text) => text,
                Part::Param(name) => params.value(name).unwrap_or_default(),
                Part::Rest => params.tail().unwrap_or_default(),
            });
        }
        if path.is_empty() {
            path.push('/');
        }
        Cow::Owned(path)
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}`: {why}"));
        let mut parts = Vec::new();
        // The template with every placeholder filled in must itself be a canonical path.
        let mut example = String::new();
        let mut remaining = text;
        while let Some((literal, after)) = remaining.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return wrong("a `{` is not closed");
            };
            example.push_str(literal);
            let last = after.is_empty();
            let own_segment = example.ends_with('/');
            let literal = match name {
                "*" if !(last && own_segment) => {
                    return wrong("`{*}` stands only at the end, after a `/`");
                }
                "*" => literal.strip_suffix('/').unwrap_or(literal),
                _ if is_name(name) => literal,
                _ => return wrong("a placeholder is `{name}` of a parameter, or `{*}`"),
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            parts.push(if name == "*" { Part::Rest } else { Part::Param(name.into()) });
            example.push('x');
            remaining = after;
        }
        example.push_str(remaining);
        if !remaining.is_empty() {
            parts.push(Part::Literal(remaining.into()));
        }
        check(text, &example)?;
        Ok(Template { parts: parts.into() })
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Refuses `text` unless `path`, which was made from it, is canonical.
pub(super) fn check(text: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("`{text}`: a path begins with `/`"));
    }
    match path::canonicalize(path.as_bytes()) {
        Ok(canonical) if canonical == path => Ok(()),
        Ok(_) => Err(format!(
            "`{text}`: percent-encode what is not a plain URL character, and only that, with \
             upper-case digits"
        )),
        Err(why) => Err(format!("`{text}`: {why}; write one that a request could have")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "templates and patterns are literals")]
mod tests {
    use super::*;

    fn fill(template: &str, pattern: &str, path: &str) -> String {
        let (template, pattern): (Template, Pattern) =
            (template.parse().unwrap(), pattern.parse().unwrap());
        assert_eq!(template.missing_in(&pattern), None);
        template.fill(&Params::new(&pattern, path)).into_owned()
    }

    #[test]
    fn placeholders_take_the_values_of_the_path() {
        for (template, pattern, path, filled) in [
            ("/v2/users/{id}", "/users/:id", "/users/7", "/v2/users/7"),
            ("/{b}/x-{a}.json", "/:a/:b", "/1/2%20", "/2%20/x-1.json"),
            ("/{a}{a}", "/:a", "/1", "/11"),
            ("/files/{*}", "/f/*", "/f/a/b", "/files/a/b"),
            ("/files/{*}", "/f/*", "/f/", "/files/"),
            ("/files/{*}", "/f/*", "/f", "/files"),
            ("/{*}", "/f/*", "/f", "/"),
            ("/{a}/{*}", "/:a/*", "/1/2/3", "/1/2/3"),
        ] {
            assert_eq!(fill(template, pattern, path), filled, "{template} {path}");
        }
    }

    #[test]
    fn a_template_without_placeholders_is_lent() {
        let (template, pattern): (Template, Pattern) =
            ("/invoke".parse().unwrap(), Pattern::everything());
        let path = template.fill(&Params::new(&pattern, "/a"));
        assert!(matches!(path, Cow::Borrowed("/invoke")));
    }

    #[test]
    fn a_placeholder_that_the_pattern_lacks_is_named() {
        let template: Template = "/{id}/{*}".parse().unwrap();
        let missing =
            |pattern: &str| template.missing_in(&pattern.parse().unwrap()).map(str::to_owned);
        assert_eq!(missing("/:user/*").as_deref(), Some("id"));
        assert_eq!(missing("/:id").as_deref(), Some("*"));
        assert_eq!(missing("/:id/*"), None);
    }

    #[test]
    fn a_template_that_could_not_make_a_canonical_path_is_refused() {
        for (text, why) in [
            ("", "begins with `/`"),
            ("{id}", "begins with `/`"),
            ("/a//b", "empty segment"),
            ("/../{id}", "dot segment"),
            ("/a?b=c", "must be percent-encoded"),
            ("/caf\u{e9}", "percent-encode what"),
            ("/%2{id}", "percent-encoding"),
            ("/{id", "not closed"),
            ("/id}", "percent-encode what"),
            ("/{}", "a placeholder is"),
            ("/{1}", "a placeholder is"),
            ("/{*}/x", "only at the end"),
            ("/x{*}", "only at the end"),
            ("{*}", "only at the end"),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

written_as!(Template, "PathTemplate", {
    "description": "A path that may contain {parameter}, and {*} at its end.",
    "type": "string",
    "pattern": "^[/{]",
});
