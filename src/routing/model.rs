//! Checks the router against a model: a list of all routes, each tried in turn, the best one taken.
//!
//! The model reads patterns as text and shares no code with the tree.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::precedence::{self, Row};
use super::{Asked, Match, NoRoute, Router, Scheme};

/// A route as text; empty lists are absent keys.
#[derive(Clone, Debug)]
struct Route {
    listeners: Vec<&'static str>,
    scheme: Option<&'static str>,
    host: Option<&'static str>,
    path: String,
    methods: Vec<&'static str>,
    /// By header: what its value must be, as YAML.
    headers: Vec<(&'static str, &'static str)>,
}

const HEADERS: [&str; 2] = ["x-a", "x-b"];
const TESTS: [&str; 6] =
    ["'1'", "'2'", "{prefix: '1'}", "{prefix: '12'}", "{present: true}", "{present: false}"];
/// Every value of a header that tells two tests apart.
const VALUES: [Option<&str>; 5] = [None, Some("1"), Some("12"), Some("123"), Some("2")];

/// A value for each header.
type Given = [Option<&'static str>; 2];

fn passes(test: &str, value: Option<&str>) -> bool {
    match (test, value) {
        ("{present: true}", value) => value.is_some(),
        ("{present: false}", value) => value.is_none(),
        (_, None) => false,
        ("{prefix: '1'}", Some(value)) => value.starts_with('1'),
        ("{prefix: '12'}", Some(value)) => value.starts_with("12"),
        (exact, Some(value)) => exact.trim_matches('\'') == value,
    }
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
        if !self.listeners.is_empty() {
            yaml.push_str(&format!("listener: {}\n", list(&self.listeners)));
        }
        yaml.extend(self.scheme.map(|scheme| format!("scheme: {scheme}\n")));
        yaml.extend(self.host.map(|host| format!("host: '{host}'\n")));
        if !self.methods.is_empty() {
            yaml.push_str(&format!("methods: {}\n", list(&self.methods)));
        }
        for (place, (name, test)) in self.headers.iter().enumerate() {
            let title = if place == 0 { "headers:\n" } else { "" };
            yaml.push_str(&format!("{title}  {name}: {test}\n"));
        }
        serde_yaml::from_str(&yaml).expect("generated matches are valid")
    }

    fn meets(&self, given: &Given) -> bool {
        let value = |name: &str| given[usize::from(name == "x-b")];
        self.headers.iter().all(|(name, test)| passes(test, value(name)))
    }

    /// The rank of the route's conditions, the better one smaller.
    fn conditions_rank(&self) -> (usize, usize, usize, usize) {
        let count = |is: fn(&str) -> bool| self.headers.iter().filter(|(_, t)| is(t)).count();
        let (exact, prefixes) =
            (count(|test| test.starts_with('\'')), count(|test| test.starts_with("{prefix")));
        let longer = count(|test| test == "{prefix: '12'}");
        let below = |count: usize| usize::MAX - count;
        (below(self.headers.len()), below(exact), below(prefixes), below(longer))
    }

    /// The route at each of its listeners: the router refuses it at each one on its own.
    fn by_listener(&self) -> Vec<Route> {
        let at = |listener: &&'static str| Route { listeners: vec![*listener], ..self.clone() };
        match self.listeners.is_empty() {
            true => vec![self.clone()],
            false => self.listeners.iter().map(at).collect(),
        }
    }

    /// The rank of the route's listeners for `listener`, the better one smaller, if one matches at all.
    fn listener_rank(&self, listener: Option<&str>) -> Option<u8> {
        match (self.listeners.is_empty(), listener) {
            (true, _) => Some(1),
            (false, Some(name)) => self.listeners.contains(&name).then_some(0),
            (false, None) => None,
        }
    }

    /// The rank of the route's scheme for `scheme`, the better one smaller, if it matches at all.
    fn scheme_rank(&self, scheme: Option<Scheme>) -> Option<u8> {
        match (self.scheme, scheme) {
            (None, _) => Some(1),
            (Some(wanted), Some(scheme)) if wanted == scheme.as_str() => Some(0),
            (Some(_), _) => None,
        }
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
        let requests = VALUES.iter().flat_map(|a| VALUES.iter().map(|b| [*a, *b]));
        let meet = requests.into_iter().any(|given| self.meets(&given) && other.meets(&given));
        let same_listener = match (self.listeners.is_empty(), other.listeners.is_empty()) {
            (false, false) => self.listeners.iter().any(|one| other.listeners.contains(one)),
            (ours, theirs) => ours && theirs,
        };
        same_listener
            && self.scheme == other.scheme
            && self.host == other.host
            && shape(self) == shape(other)
            && methods
            && self.conditions_rank() == other.conditions_rank()
            && meet
    }
}

/// How a request came in: by which listener, and by which scheme.
type Entrance = (Option<&'static str>, Option<Scheme>);
/// What is asked: entrance, host, method, path and headers.
type Request = (Entrance, &'static str, &'static str, String, Given);

/// The model's result: a route, or the methods that would have had one.
fn expected(routes: &[Route], request: &Request) -> Result<usize, Vec<String>> {
    let ((listener, scheme), host, method, path, given) = request;
    let fits = |route: &Route| {
        let ranks = (
            route.listener_rank(*listener)?,
            route.scheme_rank(*scheme)?,
            route.host_rank(host)?,
            route.path_rank(path)?,
            route.conditions_rank(),
        );
        route.meets(given).then_some(ranks)
    };
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

fn actual(router: &Router, request: &Request) -> Result<usize, Vec<String>> {
    let ((listener, scheme), host, method, path, given) = request;
    let method = Method::from_bytes(method.as_bytes()).expect("generated methods are valid");
    let lines = HEADERS.into_iter().zip(given);
    let line = |(name, value): (&'static str, &Option<&'static str>)| {
        Some((HeaderName::from_static(name), HeaderValue::from_static((*value)?)))
    };
    let headers: HeaderMap = lines.filter_map(line).collect();
    let (listener, scheme) = (*listener, *scheme);
    let asked = Asked { headers: Some(&headers), scheme, listener, ..Asked::of(&method) };
    match router.find(host, path, &asked) {
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
    let test = || select(TESTS.to_vec());
    let headers = prop_oneof![
        2 => Just(Vec::new()),
        1 => test().prop_map(|a| vec![(HEADERS[0], a)]),
        1 => test().prop_map(|b| vec![(HEADERS[1], b)]),
        1 => (test(), test()).prop_map(|(a, b)| vec![(HEADERS[0], a), (HEADERS[1], b)]),
    ];
    let scheme = prop_oneof![2 => Just(None), 1 => select(vec![Some("http"), Some("https")])];
    let listeners = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(vec!["in", "out"], 1..=2)];
    let parts = (listeners, scheme, select(HOSTS.to_vec()), middle, end, methods, headers);
    parts.prop_map(|(listeners, scheme, host, mut segments, end, methods, headers)| {
        // A name may occur only once in a pattern.
        for name in [":x", ":y"] {
            let mut seen = false;
            segments.retain(|segment| *segment != name || !std::mem::replace(&mut seen, true));
        }
        segments.push(end);
        Route {
            listeners,
            scheme,
            host,
            path: format!("/{}", segments.join("/")),
            methods,
            headers,
        }
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

fn request() -> impl Strategy<Value = Request> {
    let host = select(vec!["", "a.b.com", "b.com", "c.b.com", "x.a.b.com", "com", "d.com"]);
    let path = proptest::collection::vec(select(vec!["a", "b", "c"]), 0..5);
    let value = || select(VALUES.to_vec());
    let scheme = select(vec![None, Some(Scheme::Http), Some(Scheme::Https)]);
    let entrance = (select(vec![None, Some("in"), Some("out")]), scheme);
    let parts = (entrance, host, select(METHODS.to_vec()), path, any::<bool>(), value(), value());
    parts.prop_map(|(entrance, host, method, path, slash, a, b)| {
        let slash = if slash && !path.is_empty() { "/" } else { "" };
        (entrance, host, method, format!("/{}{slash}", path.join("/")), [a, b])
    })
}

proptest! {
    #[test]
    fn the_router_chooses_as_the_model_does(
        routes in routes().prop_map(without_conflicts),
        requests in proptest::collection::vec(request(), 32),
    ) {
        let router = compile(&routes).expect("the model found no conflict");
        for request in requests {
            let found = (actual(&router, &request), expected(&routes, &request));
            prop_assert_eq!(found.0, found.1, "{:?}", request);
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
        for request in requests {
            let ((listener, scheme), host, method, path, given) = &request;
            let fits = |row: &&Row<'_>| {
                let route = &routes[row.route];
                row.listener.is_none_or(|name| Some(name) == *listener)
                    && route.scheme_rank(*scheme).is_some()
                    && route.host_rank(host).is_some()
                    && route.path_rank(path).is_some()
                    && route.method_rank(method).is_some()
                    && route.meets(given)
            };
            let first = rows.iter().find(fits).map(|row| row.route);
            prop_assert_eq!(actual(&router, &request).ok(), first, "{:?}", request);
        }
    }

    #[test]
    fn the_router_refuses_what_the_model_cannot_tell_apart(routes in routes()) {
        let entries: Vec<Route> = routes.iter().flat_map(Route::by_listener).collect();
        let refused = entries.len() - without_conflicts(entries).len();
        prop_assert_eq!(compile(&routes).err().unwrap_or_default(), refused);
    }
}
