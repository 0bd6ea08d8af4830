//! The `rewrite:` of a route: the path that goes upstream. Not the query, and not the host.
//!
//! ```yaml
//! rewrite: {path: "/v2/users/{id}"}                  # another path
//! rewrite: {strip_prefix: /api/a, add_prefix: /v2}   # /api/a/x becomes /v2/x
//! rewrite: {strip_segments: 2}                       # /api/v1/users becomes /users
//! ```

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::criteria::Match;
use super::pattern::{Params, Pattern, Segment, skip_segments};
use super::template::{self, Template};
use crate::units::schema::written_as;

/// How the path is changed before it is forwarded.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub enum Rewrite {
    /// Replaces the path.
    Replace(Template),
    /// Changes the front of the path.
    Edit {
        /// Removed first.
        strip: Strip,
        /// Put in front of what is left; `None`: nothing.
        add: Option<Prefix>,
    },
}

/// What is removed from the front of a path, in whole segments.
#[derive(Clone, Debug, PartialEq)]
pub enum Strip {
    /// The path stays as it is.
    Nothing,
    /// This prefix; a path that does not begin with it stays unchanged.
    Prefix(Prefix),
    /// This many segments, or all if there are fewer.
    Segments(NonZeroU32),
}

/// One or more whole segments in canonical form: begins with a slash and does not end in one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(Box<str>);

/// A rewrite that is impossible for what its route matches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// `known` are the placeholders that the pattern does have.
    #[error("`{{{placeholder}}}` has no value: the pattern `{pattern}` has no such parameter")]
    Placeholder {
        /// Its name, without braces.
        placeholder: String,
        /// The first pattern of the route without it.
        pattern: Pattern,
        /// The names that this pattern has, and `*` for its rest.
        known: Vec<String>,
    },
    /// `strip_prefix` has no effect.
    #[error("`{prefix}` is never stripped: no path of `{pattern}` begins with it")]
    Prefix {
        /// The prefix as configured.
        prefix: String,
        /// The first pattern of the route that excludes it.
        pattern: Pattern,
    },
}

impl Rewrite {
    /// By the keys of which it is made, where not every combination is valid.
    pub(super) fn of(
        path: Option<Template>,
        strip_prefix: Option<Prefix>,
        strip_segments: Option<NonZeroU32>,
        add_prefix: Option<Prefix>,
    ) -> Result<Rewrite, &'static str> {
        Written { path, strip_prefix, strip_segments, add_prefix }.try_into()
    }

    /// The path to forward for a path that was matched. Canonical. Does not allocate if it is a
    /// part of that path or of the configuration, as after a strip alone.
    pub fn apply<'a>(&'a self, params: &Params<'a>) -> Cow<'a, str> {
        let (strip, add) = match self {
            Rewrite::Replace(template) => return template.fill(params),
            Rewrite::Edit { strip, add } => (strip, add),
        };
        let path = strip.apply(params.path());
        match add {
            Some(prefix) if path.is_empty() => Cow::Borrowed(&prefix.0),
            Some(prefix) => Cow::Owned([&*prefix.0, path].concat()),
            None if path.is_empty() => Cow::Borrowed("/"),
            None => Cow::Borrowed(path),
        }
    }

    /// Checks the rewrite against every pattern of its route.
    ///
    /// # Errors
    /// [`Unfit`], for the first pattern that lacks what the rewrite needs.
    pub fn check(&self, criteria: &Match) -> Result<(), Unfit> {
        let everything = [Pattern::everything()];
        let patterns = criteria.path.values().unwrap_or(&everything);
        patterns.iter().try_for_each(|pattern| match self {
            Rewrite::Replace(template) => check_template(template, pattern),
            Rewrite::Edit { strip: Strip::Prefix(prefix), .. } => check_prefix(prefix, pattern),
            Rewrite::Edit { strip: Strip::Nothing | Strip::Segments(_), .. } => Ok(()),
        })
    }
}

impl Strip {
    /// What is left: nothing, or text that begins with a slash.
    fn apply<'a>(&self, path: &'a str) -> &'a str {
        match self {
            Strip::Nothing => path,
            Strip::Prefix(prefix) => match path.strip_prefix(&*prefix.0) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
                Some(_) | None => path,
            },
            Strip::Segments(count) => {
                skip_segments(path, usize::try_from(count.get()).unwrap_or(usize::MAX))
            }
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        template::check(text, text)?;
        if text.ends_with('/') {
            return Err(format!("`{text}`: a prefix does not end in `/`"));
        }
        Ok(Prefix(text.into()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The keys as in the file; not every combination is valid.
#[derive(Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// Replaces the path; may contain the route's parameters, as {name} or {*}. Excludes the other
    /// keys.
    path: Option<Template>,
    /// Removed from the front; a path that does not begin with it stays unchanged.
    strip_prefix: Option<Prefix>,
    /// Removes this many segments from the front, or all if there are fewer.
    strip_segments: Option<NonZeroU32>,
    /// Put in front of what is left.
    add_prefix: Option<Prefix>,
}

impl TryFrom<Written> for Rewrite {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { path, strip_prefix, strip_segments, add_prefix: add } = written;
        let strip = match (strip_prefix, strip_segments) {
            (Some(_), Some(_)) => return Err("give `strip_prefix` or `strip_segments`, not both"),
            (Some(prefix), None) => Strip::Prefix(prefix),
            (None, Some(count)) => Strip::Segments(count),
            (None, None) => Strip::Nothing,
        };
        match path {
            Some(_) if strip != Strip::Nothing || add.is_some() => {
                Err("`path` replaces the path: drop the other keys")
            }
            Some(template) => Ok(Rewrite::Replace(template)),
            None if strip == Strip::Nothing && add.is_none() => {
                Err("give `path`, `strip_prefix`, `strip_segments` or `add_prefix`")
            }
            None => Ok(Rewrite::Edit { strip, add }),
        }
    }
}

fn check_template(template: &Template, pattern: &Pattern) -> Result<(), Unfit> {
    let Some(missing) = template.missing_in(pattern) else { return Ok(()) };
    let rest = pattern.has_rest().then_some("*");
    Err(Unfit::Placeholder {
        placeholder: missing.to_owned(),
        pattern: pattern.clone(),
        known: pattern.names().chain(rest).map(str::to_owned).collect(),
    })
}

/// Whether some path of `pattern` begins with `prefix`.
fn check_prefix(prefix: &Prefix, pattern: &Pattern) -> Result<(), Unfit> {
    let mut segments = pattern.segments().iter();
    for name in prefix.0.split('/').skip(1) {
        let fits = match segments.next() {
            Some(Segment::Rest) => return Ok(()),
            Some(Segment::Param(_) | Segment::Any) => true,
            Some(Segment::Fixed(text)) => **text == *name,
            None => false,
        };
        if !fits {
            let prefix = prefix.0.to_string();
            return Err(Unfit::Prefix { prefix, pattern: pattern.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the YAML is literal")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::path;

    fn parse(yaml: &str) -> Result<Rewrite, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    fn apply(yaml: &str, path: &str) -> String {
        let everything = Pattern::everything();
        parse(yaml).unwrap().apply(&Params::new(&everything, path)).into_owned()
    }

    #[test]
    fn a_prefix_is_stripped_in_whole_segments() {
        for (path, left) in [
            ("/api/a", "/"),
            ("/api/a/", "/"),
            ("/api/a/x/", "/x/"),
            ("/api/apple", "/api/apple"),
            ("/b", "/b"),
        ] {
            assert_eq!(apply("{strip_prefix: /api/a}", path), left, "{path}");
        }
    }

    #[test]
    fn segments_are_stripped_by_number() {
        for (path, left) in [
            ("/api/v1/users/7", "/users/7"),
            ("/api/v1/users/", "/users/"),
            ("/api/v1/", "/"),
            ("/api/v1", "/"),
            ("/api", "/"),
            ("/", "/"),
        ] {
            assert_eq!(apply("{strip_segments: 2}", path), left, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_added_to_what_is_left() {
        for (yaml, path, made) in [
            ("{add_prefix: /v2}", "/users", "/v2/users"),
            ("{add_prefix: /v2}", "/", "/v2/"),
            ("{strip_prefix: /api, add_prefix: /v2}", "/api", "/v2"),
            ("{strip_prefix: /api, add_prefix: /v2}", "/api/", "/v2/"),
            ("{strip_segments: 1, add_prefix: /v2/x}", "/api/y", "/v2/x/y"),
        ] {
            assert_eq!(apply(yaml, path), made, "{yaml} {path}");
        }
    }

    #[test]
    fn a_path_is_replaced() {
        assert_eq!(apply("{path: /invoke}", "/a/b"), "/invoke");
        assert_eq!(apply("{path: '/x/{*}'}", "/a/b"), "/x/a/b");
    }

    #[test]
    fn a_stripped_path_is_lent() {
        let (rewrite, pattern) = (parse("{strip_segments: 1}").unwrap(), Pattern::everything());
        let path = rewrite.apply(&Params::new(&pattern, "/a/b"));
        assert!(matches!(path, Cow::Borrowed("/b")));
    }

    #[test]
    fn keys_that_exclude_each_other_are_refused() {
        for (yaml, why) in [
            ("{}", "give `path`"),
            ("{path: /a, add_prefix: /b}", "drop the other keys"),
            ("{strip_prefix: /a, strip_segments: 1}", "not both"),
            ("{strip_segments: 0}", "nonzero"),
            ("{strip_prefix: /a/}", "does not end in `/`"),
            ("{add_prefix: /}", "does not end in `/`"),
            ("{add_prefix: v2}", "begins with `/`"),
            ("{prefix: /a}", "unknown field `prefix`"),
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(error.contains(why), "{yaml}: {error}");
        }
    }

    #[test]
    fn a_rewrite_that_its_route_cannot_feed_is_refused() {
        let check = |rewrite: &str, criteria: &str| {
            parse(rewrite).unwrap().check(&serde_yaml::from_str(criteria).unwrap())
        };
        let fed = [
            ("{path: '/{id}'}", "{path: ['/u/:id', '/v/:id/x']}"),
            ("{path: '/{*}'}", "{}"),
            ("{strip_prefix: /api/a}", "{path: ['/api/a/*', '/:x/a', '/*', '/api/a']}"),
        ];
        for (rewrite, criteria) in fed {
            assert_eq!(check(rewrite, criteria), Ok(()), "{rewrite} {criteria}");
        }
        let error = check("{path: '/{id}'}", "{path: ['/u/:id', '/v/:user/*']}").unwrap_err();
        let Unfit::Placeholder { known, .. } = &error else { panic!("{error}") };
        assert_eq!(known, &["user", "*"]);
        assert_eq!(
            error.to_string(),
            "`{id}` has no value: the pattern `/v/:user/*` has no such parameter"
        );
        for criteria in ["{path: /api}", "{path: /b/a/*}", "{path: /api/}"] {
            let refused = check("{strip_prefix: /api/a}", criteria);
            assert!(matches!(refused, Err(Unfit::Prefix { .. })), "{criteria}");
        }
    }

    proptest! {
        #[test]
        fn a_rewritten_path_is_canonical(raw in r"(/([a-z]|\.[a-z]|\.{3}|%25|%C3%A9)[a-z.;:]{0,3}(%3B)?){2,5}/?") {
            let rewrites = [
                "{path: '/{a}{b}/.{a}/{a}.;{b}/{*}'}",
                "{path: '/{*}'}",
                "{strip_segments: 1}",
                "{strip_segments: 3, add_prefix: /x}",
                "{strip_prefix: /a, add_prefix: /x}",
            ];
            let pattern: Pattern = "/:a/:b/*".parse().unwrap();
            let path = path::canonicalize(raw.as_bytes()).unwrap();
            for yaml in rewrites {
                let rewrite = parse(yaml).unwrap();
                let made = rewrite.apply(&Params::new(&pattern, &path));
                let again = path::canonicalize(made.as_bytes());
                prop_assert_eq!(again.as_deref(), Ok(&*made), "{}", yaml);
            }
        }
    }
}

written_as!(Prefix, "PathPrefix", {
    "description": "Whole segments of a path: begins with a slash and does not end in one.",
    "type": "string",
    "pattern": "^/.*[^/]$",
});
