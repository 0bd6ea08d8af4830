//! Routes that no request can reach, because more specific ones take every one of them.
//!
//! The router compares segments from the left: a literal before `:name` before `*`. So a route is
//! hidden where it has a `*` for one segment, by a route that is the same up to there and has
//! `:name`. Routes that are hidden only by several others together are not found.

use std::collections::HashMap;
use std::fmt::Write;

use http::Method;

use super::conditions::Conditions;
use super::criteria::{Choice, Match, Methods, Scheme};
use super::host::HostPattern;
use super::pattern::{Pattern, Segment};

/// A route that is never chosen.
#[derive(Debug, PartialEq, Eq)]
pub struct Hidden<'a> {
    /// Its name.
    pub route: &'a str,
    /// One that takes its requests.
    pub by: &'a str,
}

/// A pattern of a route at a host.
struct Entry<'a> {
    name: &'a str,
    pattern: &'a Pattern,
    methods: &'a Methods,
    conditions: Conditions,
}

/// Where a route is looked for: a listener, a scheme and a host.
type Place<'a> = (Option<&'a str>, Option<Scheme>, Option<&'a HostPattern>);

/// Entries of a place that have a parameter after this prefix.
type Index<'a> = HashMap<(Place<'a>, String), Vec<Entry<'a>>>;

/// The hidden routes among these, which have no conflicts.
pub fn hidden<'a>(routes: &[(&'a str, &'a Match)]) -> Vec<Hidden<'a>> {
    let mut index = Index::new();
    for (name, criteria) in routes {
        for place in places(criteria) {
            for pattern in criteria.path.values().unwrap_or_default() {
                let segments = pattern.segments();
                for at in (0..segments.len()).filter(|at| segments[*at].is_param()) {
                    let key = (place, prefix(&segments[..at]));
                    let (methods, conditions) = (&criteria.methods, Conditions::of(criteria));
                    index.entry(key).or_default().push(Entry {
                        name,
                        pattern,
                        methods,
                        conditions,
                    });
                }
            }
        }
    }
    let hidden = routes.iter().filter_map(|(route, criteria)| {
        let mut by = None;
        for place in places(criteria) {
            // Without a path, the route takes the rest of everything.
            for pattern in criteria.path.values()? {
                by = Some(hider(&index, place, pattern, criteria)?);
            }
        }
        by.map(|by| Hidden { route, by })
    });
    hidden.collect()
}

/// A route that takes all requests of `pattern`.
fn hider<'a>(
    index: &Index<'a>,
    place: Place<'a>,
    pattern: &Pattern,
    criteria: &Match,
) -> Option<&'a str> {
    let conditions = Conditions::of(criteria);
    let segments = pattern.segments();
    let takes = |at: usize, wanted: &[Segment]| {
        let entries = index.get(&(place, prefix(&segments[..at])))?;
        let mut fitting = entries.iter().filter(|e| {
            contains(&e.pattern.segments()[at..], wanted)
                && allows(e.methods, &criteria.methods)
                && conditions.imply(&e.conditions)
        });
        fitting.next().map(|entry| entry.name)
    };
    let stars = segments.iter().enumerate().filter(|(_, segment)| **segment == Segment::Any);
    stars.map(|(at, _)| at).find_map(|at| takes(at, &segments[at..]))
}

/// Whether `pattern` matches every path that `wanted` matches. `*` for the rest matches an empty
/// last segment, which `:name` does not.
fn contains(pattern: &[Segment], wanted: &[Segment]) -> bool {
    match (pattern.split_first(), wanted.split_first()) {
        (None, None) => true,
        (Some((Segment::Rest, _)), _) => true,
        (Some((Segment::Fixed(ours), pattern)), Some((Segment::Fixed(theirs), wanted))) => {
            ours == theirs && contains(pattern, wanted)
        }
        (Some((Segment::Param(_) | Segment::Any, pattern)), Some((segment, wanted))) => {
            let is_one = match segment {
                Segment::Fixed(text) => !text.is_empty(),
                Segment::Param(_) | Segment::Any => true,
                Segment::Rest => false,
            };
            is_one && contains(pattern, wanted)
        }
        (Some((Segment::Fixed(_), _)), Some(_)) | (Some(_), None) | (None, Some(_)) => false,
    }
}

fn allows(ours: &Methods, theirs: &Methods) -> bool {
    match (ours, theirs) {
        (Choice::Any, _) => true,
        (Choice::Of(_), Choice::Any) => false,
        (Choice::Of(ours), Choice::Of(theirs)) => theirs.iter().all(|verb| {
            // `GET` includes `HEAD`.
            let has = |method: &Method| ours.iter().any(|ours| ours.0 == *method);
            has(&verb.0) || (verb.0 == Method::HEAD && has(&Method::GET))
        }),
    }
}

fn places(criteria: &Match) -> Vec<Place<'_>> {
    fn each<T>(choice: &Choice<T>) -> Vec<Option<&T>> {
        choice.values().map_or_else(|| vec![None], |values| values.iter().map(Some).collect())
    }
    let hosts = each(&criteria.host);
    let listeners = each(&criteria.listener).into_iter().map(|name| name.map(String::as_str));
    let at = |listener| hosts.iter().map(move |host| (listener, criteria.scheme, *host));
    listeners.flat_map(at).collect()
}

/// The segments as text, in which all parameters are the same.
fn prefix(segments: &[Segment]) -> String {
    segments.iter().fold(String::new(), |mut text, segment| {
        // Writing to a string cannot fail.
        let _ = match segment {
            Segment::Fixed(literal) => write!(text, "/{literal}"),
            Segment::Param(_) => write!(text, "/:"),
            Segment::Any | Segment::Rest => write!(text, "/*"),
        };
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the YAML is literal")]
mod tests {
    use super::*;
    use crate::routing::Router;

    fn hidden_among(yaml: &[&str]) -> Vec<(usize, usize)> {
        let matches: Vec<Match> = yaml.iter().map(|y| serde_yaml::from_str(y).unwrap()).collect();
        let names: Vec<String> = (0..matches.len()).map(|index| index.to_string()).collect();
        let routes: Vec<_> = names.iter().map(String::as_str).zip(&matches).collect();
        let numbered = routes.iter().enumerate().map(|(i, (name, criteria))| (i, *name, *criteria));
        Router::try_new(numbered).expect("no conflict");
        let found = hidden(&routes).into_iter();
        found.map(|h| (h.route.parse().unwrap(), h.by.parse().unwrap())).collect()
    }

    #[test]
    fn a_route_behind_a_parameter_at_its_star_is_hidden() {
        for other in ["/a/:x/b", "/a/:x/:y", "/a/:x/*"] {
            let routes = ["{path: '/a/*/b'}".to_owned(), format!("{{path: '{other}'}}")];
            assert_eq!(hidden_among(&[&routes[0], &routes[1]]), [(0, 1)], "{other}");
        }
        let both = ["{path: [/a/*/b, /c/*/d]}", "{path: ['/a/:x/b', '/c/:x/*']}"];
        assert_eq!(hidden_among(&both), [(0, 1)]);
        let head = ["{path: '/a/*/b', methods: HEAD}", "{path: '/a/:x/b', methods: GET}"];
        assert_eq!(hidden_among(&head), [(0, 1)]);
    }

    #[test]
    fn a_route_that_keeps_a_request_is_not_hidden() {
        for routes in [
            ["{path: '/a/*/b'}", "{path: '/a/:x/c'}"],
            ["{path: '/a/*/b'}", "{path: '/a/:x/b', methods: GET}"],
            ["{path: '/a/*/b'}", "{path: '/a/:x/b', host: a.example}"],
            ["{path: '/a/*'}", "{path: '/a/:x'}"],
            ["{path: '/a/*'}", "{path: '/a/b'}"],
            ["{path: ['/a/*/b', /d]}", "{path: '/a/:x/b'}"],
            ["{}", "{path: '/:x'}"],
        ] {
            assert_eq!(hidden_among(&routes), [], "{routes:?}");
        }
        let version = |version: &str| format!("headers: {{X-Version: '{version}'}}");
        let hidden = format!("{{path: '/a/*/b', {}}}", version("2"));
        for other in ["headers: {X-Version: {present: true}}".to_owned(), version("2")] {
            let other = format!("{{path: '/a/:x/b', {other}}}");
            assert_eq!(hidden_among(&[&hidden, &other]), [(0, 1)], "{other}");
        }
        for other in [version("1"), "cookies: {beta: '1'}".to_owned()] {
            let other = format!("{{path: '/a/:x/b', {other}}}");
            assert_eq!(hidden_among(&[&hidden, &other]), [], "{other}");
        }
        let of = |listener: &str| format!("{{path: '/a/:x/b', listener: {listener}}}");
        let inbound = "{path: '/a/*/b', listener: [in, out]}";
        assert_eq!(hidden_among(&[inbound, &of("[out, in]")]), [(0, 1)]);
        assert_eq!(hidden_among(&[inbound, &of("in")]), []);
        let methods =
            ["{path: '/a/*/b', methods: POST}", "{path: '/a/:x/b', methods: [GET, POST]}"];
        assert_eq!(hidden_among(&methods), [(0, 1)]);
    }
}
