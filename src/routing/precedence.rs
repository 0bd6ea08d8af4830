//! What all routes match as one list: of the rows that match a request, the first one takes it.
//!
//! The router finds that row without walking a list. A test holds the two to each other.

use std::cmp::Ordering;

use http::Method;

use super::conditions::Conditions;
use super::criteria::{Match, Methods, Scheme};
use super::host::HostPattern;
use super::pattern::{Pattern, Segment};

/// One host and one path pattern of a route.
#[derive(Debug)]
pub struct Row<'a> {
    /// The index that was passed to [`rows`].
    pub route: usize,
    /// `None`: any.
    pub listener: Option<&'a str>,
    /// `None`: either.
    pub scheme: Option<Scheme>,
    /// `None`: any, or none.
    pub host: Option<&'a HostPattern>,
    /// `None`: any.
    pub path: Option<&'a Pattern>,
    /// `Any`: all methods.
    pub methods: &'a Methods,
    /// What else a request must have.
    pub conditions: Conditions,
}

/// The rows of all routes, in the order of precedence.
pub fn rows<'a>(routes: impl IntoIterator<Item = (usize, &'a Match)>) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (route, criteria) in routes {
        for listener in each(criteria.listener.values()) {
            let listener = listener.map(String::as_str);
            for host in each(criteria.host.values()) {
                for path in each(criteria.path.values()) {
                    let conditions = Conditions::of(criteria);
                    let (scheme, methods) = (criteria.scheme, &criteria.methods);
                    rows.push(Row { route, listener, scheme, host, path, methods, conditions });
                }
            }
        }
    }
    rows.sort_by(precedence);
    rows
}

/// Every value, or `None` once if the key is absent.
fn each<T>(values: Option<&[T]>) -> impl Iterator<Item = Option<&T>> {
    let absent = values.is_none().then_some(None);
    absent.into_iter().chain(values.unwrap_or_default().iter().map(Some))
}

fn precedence(a: &Row<'_>, b: &Row<'_>) -> Ordering {
    let everything = Pattern::everything();
    let segments = |row: &Row<'_>| row.path.unwrap_or(&everything).segments().to_vec();
    listeners(a.listener, b.listener)
        .then_with(|| schemes(a.scheme, b.scheme))
        .then_with(|| hosts(a.host, b.host))
        .then_with(|| paths(&segments(a), &segments(b)))
        .then_with(|| a.conditions.rank().cmp(&b.conditions.rank()))
        // A route that names HEAD goes before one that only has GET.
        .then_with(|| names_head(b.methods).cmp(&names_head(a.methods)))
}

/// A listener goes before any.
fn listeners(a: Option<&str>, b: Option<&str>) -> Ordering {
    a.is_none().cmp(&b.is_none()).then_with(|| a.cmp(&b))
}

/// A scheme goes before either.
fn schemes(a: Option<Scheme>, b: Option<Scheme>) -> Ordering {
    let rank = |scheme| match scheme {
        Some(Scheme::Http) => 0,
        Some(Scheme::Https) => 1,
        None => 2,
    };
    rank(a).cmp(&rank(b))
}

/// Exact hosts, then the longer suffixes, then any host.
fn hosts(a: Option<&HostPattern>, b: Option<&HostPattern>) -> Ordering {
    let rank = |host: Option<&HostPattern>| match host {
        Some(HostPattern::Exact(_)) => (0, 0),
        Some(HostPattern::Below(suffix)) => (1, usize::MAX - suffix.len()),
        None => (2, 0),
    };
    let name = |host: Option<&HostPattern>| host.map(HostPattern::to_string);
    rank(a).cmp(&rank(b)).then_with(|| name(a).cmp(&name(b)))
}

/// Segment by segment from the left; the end of a pattern goes before a `*` for nothing more.
fn paths(a: &[Segment], b: &[Segment]) -> Ordering {
    let rank = |segment: &Segment| match segment {
        Segment::Fixed(_) => 0,
        Segment::Param(_) => 1,
        Segment::Any => 2,
        Segment::Rest => 3,
    };
    for (a, b) in a.iter().zip(b) {
        let order = rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
            (Segment::Fixed(a), Segment::Fixed(b)) => a.cmp(b),
            // The names of parameters decide nothing.
            (Segment::Fixed(_) | Segment::Param(_) | Segment::Any | Segment::Rest, _) => {
                Ordering::Equal
            }
        });
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn names_head(methods: &Methods) -> bool {
    methods.name(&Method::HEAD)
}
