//! Checks the router against a model: a list of all routes, each tried in turn, the best one taken.
//!
//! The model reads patterns as text and shares no code with the tree.

use std::collections::BTreeSet;

use http::Method;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::precedence::{self, Row};
use super::{Match, NoRoute, Router};

/// A route as text; empty lists are absent keys.
#[derive(Clone, Debug)]
struct Route {
    host: Option<&'static str>,
    path: String,
    methods: Vec<&'static str>,
}

const HOSTS: [Option<&str>; 7] =
    [None, None, Some("a.b.com"), Some("b.com"), Some("*.b.com"), Some("*.a.b.com"), Some("*.com")];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PURGE"];

impl Route {
    fn segments(&self) -> Vec<&str> {
        self.path[1..].split('/').collect()
    }

    fn criteria(&self) -> Match {
        let list = |items: &[&str]| format!("['{}']", items.join("', '"));
        let mut yaml = format!("path: '{}'\n", self.path);
        yaml.extend(self.host.map(|host| format!("host: '{host}'\n")));
        if !self.methods.is_empty() {
            yaml.push_str(&format!("methods: {}\n", list(&self.methods)));
        }
        serde_yaml::from_str(&yaml).expect("generated matches are valid")
    }

    /// The rank of the route's host for `host`, the better one smaller, if it matches at all.
    fn host_rank(&self, host: &str) -> Option<(u8, usize)> {
        let Some(wanted) = self.host else { return Some((2, 0)) };
        match wanted.strip_prefix('*') {
            Some(suffix) if host.ends_with(suffix) => Some((1, usize::MAX - suffix.len())),
            None if host == wanted => Some((0, 0)),
            Some(_) | None => None,
        }
    }

    /// The rank of each segment, the better one smaller, if `path` matches.
    fn path_rank(&self, path: &str) -> Option<Vec<u8>> {
        let (wanted, given) = (self.segments(), path[1..].split('/').collect::<Vec<_>>());
        let mut ranks = Vec::new();
        for (at, segment) in wanted.iter().enumerate() {
            let value = given.get(at);
            match *segment {
                "*" | "**" if at + 1 == wanted.len() => return Some([ranks, vec![3]].concat()),
                "*" if value.is_some_and(|value| !value.is_empty()) => ranks.push(2),
                name if name.starts_with(':') && value.is_some_and(|value| !value.is_empty()) => {
                    ranks.push(1);
                }
                text if value == Some(&text) => ranks.push(0),
                _ => return None,
            }
        }
        (wanted.len() == given.len()).then_some(ranks)
    }

    /// 0 if `method` is named or all are accepted, 1 if `GET` serves `HEAD`.
    fn method_rank(&self, method: &str) -> Option<u8> {
        match () {
            () if self.methods.is_empty() || self.methods.contains(&method) => Some(0),
            () if method == "HEAD" && self.methods.contains(&"GET") => Some(1),
            () => None,
        }
    }

    fn conflicts_with(&self, other: &Route) -> bool {
        let shape = |route: &Route| {
            let plain = |segment: &&str| match *segment {
                name if name.starts_with(':') => ":".to_owned(),
                "**" => "*".to_owned(),
                text => text.to_owned(),
            };
            route.segments().iter().map(plain).collect::<Vec<_>>()
        };
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        self.host == other.host && shape(self) == shape(other) && methods
    }
}

/// The model's result: a route, or the methods that would have had one.
fn expected(routes: &[Route], host: &str, method: &str, path: &str) -> Result<usize, Vec<String>> {
    let fits = |route: &Route| Some((route.host_rank(host)?, route.path_rank(path)?));
    let best = routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| Some((fits(route)?, route.method_rank(method)?, index)))
        .min();
    if let Some((_, _, index)) = best {
        return Ok(index);
    }
    let mut allow: BTreeSet<&str> = BTreeSet::new();
    for route in routes.iter().filter(|route| fits(route).is_some()) {
        allow.extend(&route.methods);
    }
    if allow.contains("GET") {
        allow.insert("HEAD");
    }
    Err(allow.into_iter().map(str::to_owned).collect())
}

fn actual(router: &Router, host: &str, method: &str, path: &str) -> Result<usize, Vec<String>> {
    let method = Method::from_bytes(method.as_bytes()).expect("generated methods are valid");
    match router.find(host, &method, path) {
        Ok(found) => Ok(found.route),
        Err(NoRoute::NotFound) => Err(Vec::new()),
        Err(NoRoute::MethodNotAllowed { allow }) => {
            Err(allow.split(", ").map(str::to_owned).collect())
        }
    }
}

fn compile(routes: &[Route]) -> Result<Router, usize> {
    let matches: Vec<Match> = routes.iter().map(Route::criteria).collect();
    let routes = matches.iter().enumerate().map(|(index, criteria)| (index, "route", criteria));
    Router::try_new(routes).map_err(|conflicts| conflicts.len())
}

fn route() -> impl Strategy<Value = Route> {
    let middle = proptest::collection::vec(select(vec!["a", "b", ":x", ":y", "*"]), 0..4);
    let end = select(vec!["", "*", "**", "a", "b", ":z"]);
    let methods = prop_oneof![Just(Vec::new()), subsequence(METHODS.to_vec(), 1..=2)];
    (select(HOSTS.to_vec()), middle, end, methods).prop_map(|(host, mut segments, end, methods)| {
        // A name may occur only once in a pattern.
        for name in [":x", ":y"] {
            let mut seen = false;
            segments.retain(|segment| *segment != name || !std::mem::replace(&mut seen, true));
        }
        segments.push(end);
        Route { host, path: format!("/{}", segments.join("/")), methods }
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    proptest::collection::vec(route(), 0..24)
}

/// Those of `routes` that do not conflict.
fn without_conflicts(routes: Vec<Route>) -> Vec<Route> {
    routes.into_iter().fold(Vec::new(), |mut kept, route| {
        if !kept.iter().any(|other| route.conflicts_with(other)) {
            kept.push(route);
        }
        kept
    })
}

fn request() -> impl Strategy<Value = (&'static str, &'static str, String)> {
    let host = select(vec!["", "a.b.com", "b.com", "c.b.com", "x.a.b.com", "com", "d.com"]);
    let path = proptest::collection::vec(select(vec!["a", "b", "c"]), 0..5);
    (host, select(METHODS.to_vec()), path, any::<bool>()).prop_map(|(host, method, path, slash)| {
        let slash = if slash && !path.is_empty() { "/" } else { "" };
        (host, method, format!("/{}{slash}", path.join("/")))
    })
}

proptest! {
    #[test]
    fn the_router_chooses_as_the_model_does(
        routes in routes().prop_map(without_conflicts),
        requests in proptest::collection::vec(request(), 32),
    ) {
        let router = compile(&routes).expect("the model found no conflict");
        for (host, method, path) in requests {
            prop_assert_eq!(
                actual(&router, host, method, &path),
                expected(&routes, host, method, &path),
                "{} {} {}", host, method, path
            );
        }
    }

    #[test]
    fn the_first_row_that_fits_is_the_route_that_the_router_finds(
        routes in routes().prop_map(without_conflicts),
        requests in proptest::collection::vec(request(), 32),
    ) {
        let router = compile(&routes).expect("the model found no conflict");
        let matches: Vec<Match> = routes.iter().map(Route::criteria).collect();
        let rows = precedence::rows(matches.iter().enumerate());
        for (host, method, path) in requests {
            let fits = |row: &&Row<'_>| {
                let route = &routes[row.route];
                route.host_rank(host).is_some()
                    && route.path_rank(&path).is_some()
                    && route.method_rank(method).is_some()
            };
            prop_assert_eq!(
                actual(&router, host, method, &path).ok(),
                rows.iter().find(fits).map(|row| row.route),
                "{} {} {}", host, method, path
            );
        }
    }

    #[test]
    fn the_router_refuses_what_the_model_cannot_tell_apart(routes in routes()) {
        let refused = routes.len() - without_conflicts(routes.clone()).len();
        prop_assert_eq!(compile(&routes).err().unwrap_or_default(), refused);
    }
}
