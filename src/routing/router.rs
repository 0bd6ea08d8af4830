//! The router: compiled from every route's `match`, it maps host, method and path to a route.
//!
//! The more specific route wins. A route that names a listener goes before all that do not; then one that
//! names the scheme. Then the host: exact, then `*.` with the longer suffix, then any.
//! Within a host, paths are compared segment by segment from the left: literal before `:name`
//! before `*`, and the end of the path before a `*` that would match nothing. Of routes with the same
//! host and path, the one with more [`Conditions`] goes first. A route whose method or conditions
//! do not match is passed over for a less specific one. If only methods do not match, the result
//! is a 405 with those that would. `OPTIONS` is a method like others: to find the route that a CORS
//! preflight asks about, look up `Access-Control-Request-Method`.

use std::collections::{BTreeSet, HashMap};
use std::slice;

use http::Method;

use super::conditions::{Asked, Conditions};
use super::conflict::Conflict;
use super::criteria::{Choice, Match, Methods, Scheme};
use super::hash::Table;
use super::host::HostPattern;
use super::pattern::{Params, Pattern};
use super::tree::{Entry, Leaf, Tree};

/// All routes. Immutable; a search takes no lock and does not allocate unless it ends in 405.
#[derive(Debug, Default)]
pub struct Router {
    /// Those of one listener, by its name; usually none.
    listeners: Table<Schemes>,
    any: Schemes,
}

/// The routes of one listener, or of any.
#[derive(Debug, Default)]
struct Schemes {
    http: Option<Box<Hosts>>,
    https: Option<Box<Hosts>>,
    any: Hosts,
}

/// The routes of one scheme, or of either.
#[derive(Debug, Default)]
struct Hosts {
    exact: Table<Tree>,
    below: Table<Tree>,
    any: Tree,
}

/// A route, and the values the path gave to its pattern.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The index that was passed to [`Router::try_new`].
    pub route: usize,
    /// They borrow the path that was looked up.
    pub params: Params<'a>,
}

/// Why a request has no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// A 404.
    #[error("no route matches the host and the path")]
    NotFound,
    /// A 405, with the value of its `Allow` field: every method that has a route for this host and
    /// path, sorted.
    #[error("the method is not allowed; allowed are {allow}")]
    MethodNotAllowed {
        /// As in `GET, HEAD, POST`.
        allow: String,
    },
}

impl Router {
    /// Compiles routes, each given with its index and its name.
    ///
    /// # Errors
    /// Every [`Conflict`]: two routes with the same host at the same listener, the same path pattern except
    /// for names of parameters, a method in common, and conditions of one rank that one request can meet.
    pub fn try_new<'a>(
        routes: impl IntoIterator<Item = (usize, &'a str, &'a Match)>,
    ) -> Result<Router, Vec<Conflict>> {
        let mut router = Router::default();
        let mut names = HashMap::new();
        let mut conflicts = Vec::new();
        for (route, name, criteria) in routes {
            names.insert(route, name);
            let everything = [Pattern::everything()];
            let conditions = Conditions::of(criteria);
            let places = each(&criteria.listener)
                .flat_map(|listener| each(&criteria.host).map(move |host| (listener, host)));
            for (listener, host) in places {
                for pattern in criteria.path.values().unwrap_or(&everything) {
                    let methods = criteria.methods.clone();
                    let (conditions, pattern) = (conditions.clone(), pattern.clone());
                    let are_conditional = !conditions.is_empty();
                    let schemes = router.schemes(listener.map(String::as_str));
                    let leaf = schemes.hosts(criteria.scheme).tree(host).leaf(&pattern);
                    let rival =
                        add(leaf, Entry { route, methods, conditions, pattern: pattern.clone() });
                    conflicts.extend(rival.map(|(first, methods)| Conflict {
                        first: (first, names[&first].to_owned()),
                        second: (route, name.to_owned()),
                        pattern,
                        listener: listener.cloned(),
                        host: host.cloned(),
                        methods,
                        are_conditional,
                    }));
                }
            }
        }
        if conflicts.is_empty() { Ok(router) } else { Err(conflicts) }
    }

    /// The route for `path` at `host`, and what else the request says.
    ///
    /// `host` comes from [`host::normalize`](super::host::normalize), or is empty if the request
    /// has none; `path` comes from [`path::canonicalize`](super::path::canonicalize).
    ///
    /// # Errors
    /// [`NoRoute`].
    pub fn find<'a>(
        &'a self,
        host: &str,
        path: &'a str,
        asked: &Asked<'_>,
    ) -> Result<Found<'a>, NoRoute> {
        let of_listener = self.of_listener(asked.listener);
        of_listener
            .and_then(|schemes| schemes.find(host, path, asked))
            .or_else(|| self.any.find(host, path, asked))
            .map(|entry| Found { route: entry.route, params: Params::new(&entry.pattern, path) })
            .ok_or_else(|| self.explain(host, path, asked))
    }

    /// Whether a route names a listener.
    pub fn names_listeners(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Whether a route names a scheme.
    pub fn names_schemes(&self) -> bool {
        let mut all = self.listeners.values().chain([&self.any]);
        all.any(|schemes| schemes.http.is_some() || schemes.https.is_some())
    }

    fn of_listener(&self, listener: Option<&str>) -> Option<&Schemes> {
        // Most configurations name none, and then there is nothing to look up.
        if self.listeners.is_empty() { None } else { self.listeners.get(listener?) }
    }

    fn schemes(&mut self, listener: Option<&str>) -> &mut Schemes {
        match listener {
            None => &mut self.any,
            Some(name) => self.listeners.entry(name.into()).or_default(),
        }
    }

    /// Why no route was found.
    #[cold]
    fn explain(&self, host: &str, path: &str, asked: &Asked<'_>) -> NoRoute {
        let mut allowed = BTreeSet::new();
        let of_listener = self.of_listener(asked.listener).into_iter();
        let hosts = of_listener
            .chain([&self.any])
            .flat_map(|schemes| schemes.of_scheme(asked.scheme).into_iter().chain([&schemes.any]));
        for tree in hosts.flat_map(|hosts| hosts.trees(host)) {
            tree.search(path, &mut |leaf| {
                let met = leaf.iter().filter(|entry| entry.conditions.hold(asked));
                let verbs = met.filter_map(|entry| entry.methods.values()).flatten();
                allowed.extend(verbs.map(|verb| verb.0.as_str()));
                None::<()>
            });
        }
        if allowed.is_empty() {
            return NoRoute::NotFound;
        }
        if allowed.contains("GET") {
            allowed.insert("HEAD");
        }
        let allow: Vec<&str> = allowed.into_iter().collect();
        NoRoute::MethodNotAllowed { allow: allow.join(", ") }
    }
}

impl Schemes {
    fn find<'a>(&'a self, host: &str, path: &str, asked: &Asked<'_>) -> Option<&'a Entry> {
        let of_scheme = self.of_scheme(asked.scheme);
        of_scheme
            .and_then(|hosts| hosts.find(host, path, asked))
            .or_else(|| self.any.find(host, path, asked))
    }

    fn of_scheme(&self, scheme: Option<Scheme>) -> Option<&Hosts> {
        match scheme? {
            Scheme::Http => self.http.as_deref(),
            Scheme::Https => self.https.as_deref(),
        }
    }

    fn hosts(&mut self, scheme: Option<Scheme>) -> &mut Hosts {
        match scheme {
            None => &mut self.any,
            Some(Scheme::Http) => self.http.get_or_insert_default(),
            Some(Scheme::Https) => self.https.get_or_insert_default(),
        }
    }
}

impl Hosts {
    fn find<'a>(&'a self, host: &str, path: &str, asked: &Asked<'_>) -> Option<&'a Entry> {
        self.trees(host).find_map(|tree| tree.search(path, &mut |leaf| pick(leaf, asked)))
    }

    /// The trees that hold routes for `host`, in order of preference.
    fn trees<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Tree> {
        // Most configurations have no wildcard host, and then there is nothing to look up.
        let labels = if self.below.is_empty() { "" } else { host };
        let below =
            labels.match_indices('.').filter_map(|(dot, _)| self.below.get(&host[dot + 1..]));
        self.exact.get(host).into_iter().chain(below).chain([&self.any])
    }

    fn tree(&mut self, host: Option<&HostPattern>) -> &mut Tree {
        match host {
            None => &mut self.any,
            Some(HostPattern::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(HostPattern::Below(suffix)) => self.below.entry(suffix.clone()).or_default(),
        }
    }
}

/// The values of a key; `None` stands for any.
fn each<T>(choice: &Choice<T>) -> impl Iterator<Item = Option<&T>> {
    let any = choice.values().is_none().then_some(None);
    let named: slice::Iter<'_, T> = choice.values().unwrap_or_default().iter();
    any.into_iter().chain(named.map(Some))
}

/// Adds `entry` at its place, unless another entry conflicts: then returns its route and the methods of
/// both.
fn add(leaf: &mut Leaf, entry: Entry) -> Option<(usize, Methods)> {
    let rank = entry.conditions.rank();
    let meet = |other: &&Entry| {
        other.conditions.rank() == rank && other.conditions.overlap(&entry.conditions)
    };
    let overlap = |other: &Entry| Some((other.route, other.methods.overlap(&entry.methods)?));
    let rival = leaf.iter().filter(meet).find_map(overlap);
    if rival.is_none() {
        let order = |entry: &Entry| (entry.conditions.rank(), !entry.methods.name(&Method::HEAD));
        let place = leaf.partition_point(|other| order(other) <= order(&entry));
        leaf.insert(place, entry);
    }
    rival
}

/// The first entry that takes the request. Of one rank, those that name `HEAD` stand before those that name
/// only `GET`.
fn pick<'a>(leaf: &'a Leaf, asked: &Asked<'_>) -> Option<&'a Entry> {
    leaf.iter().find(|entry| entry.methods.serve(asked.method) && entry.conditions.hold(asked))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the YAML is literal")]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn compile(matches: &[&str]) -> Result<Router, Vec<Conflict>> {
        let matches: Vec<Match> =
            matches.iter().map(|yaml| serde_yaml::from_str(yaml).unwrap()).collect();
        let names: Vec<String> = (0..matches.len()).map(|index| format!("r{index}")).collect();
        Router::try_new(
            matches.iter().enumerate().map(|(index, rule)| (index, &*names[index], rule)),
        )
    }

    /// The index of the route that serves `GET path` at `host`.
    fn get(matches: &[&str], host: &str, path: &str) -> Option<usize> {
        let headers = HeaderMap::new();
        let asked = Asked { headers: Some(&headers), ..Asked::of(&Method::GET) };
        compile(matches).unwrap().find(host, path, &asked).ok().map(|found| found.route)
    }

    fn find(matches: &[&str], method: &str, path: &str) -> Result<usize, String> {
        find_with(matches, method, path, &[])
    }

    fn find_with(
        matches: &[&str],
        method: &str,
        target: &str,
        lines: &[(&'static str, &'static str)],
    ) -> Result<usize, String> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = lines.iter().map(line).collect();
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let asked = Asked { headers: Some(&headers), query, ..Asked::of(&method) };
        let router = compile(matches).unwrap();
        match router.find("", path, &asked) {
            Ok(found) => Ok(found.route),
            Err(NoRoute::NotFound) => Err("404".to_owned()),
            Err(NoRoute::MethodNotAllowed { allow }) => Err(allow),
        }
    }

    #[test]
    fn whole_segments_match() {
        let rules = ["{path: /api/a/*}"];
        for path in ["/api/a", "/api/a/", "/api/a/x", "/api/a/x/y/"] {
            assert_eq!(get(&rules, "", path), Some(0), "{path}");
        }
        for path in ["/api/apple", "/api", "/api/", "/", "/x/api/a"] {
            assert_eq!(get(&rules, "", path), None, "{path}");
        }
    }

    #[test]
    fn a_trailing_slash_tells_paths_apart() {
        assert_eq!(get(&["{path: /a}"], "", "/a/"), None);
        assert_eq!(get(&["{path: /a/}"], "", "/a"), None);
        assert_eq!(get(&["{path: /a/}", "{path: /a/*}"], "", "/a/"), Some(0));
    }

    #[test]
    fn a_parameter_is_one_segment_that_is_not_empty() {
        let rules = ["{path: /users/:id}"];
        assert_eq!(get(&rules, "", "/users/7"), Some(0));
        assert_eq!(get(&rules, "", "/users/"), None);
        assert_eq!(get(&rules, "", "/users"), None);
        assert_eq!(get(&rules, "", "/users/7/posts"), None);
    }

    #[test]
    fn literal_goes_before_parameter_before_star() {
        let rules =
            ["{path: /*}", "{path: /a/*}", "{path: /a/*/c}", "{path: /a/:x/c}", "{path: /a/b/c}"];
        for (path, route) in
            [("/a/b/c", 4), ("/a/x/c", 3), ("/a/x/d", 1), ("/a", 1), ("/b", 0), ("/", 0)]
        {
            assert_eq!(get(&rules, "", path), Some(route), "{path}");
        }
        assert_eq!(get(&rules[..3], "", "/a/x/c"), Some(2));
        assert_eq!(get(&["{path: /a/*}", "{path: /a}"], "", "/a"), Some(1));
    }

    #[test]
    fn a_search_comes_back_from_a_dead_end() {
        let rules = ["{path: /a/b/x}", "{path: /a/:p/y}", "{path: /:q/b/z}"];
        assert_eq!(get(&rules, "", "/a/b/y"), Some(1));
        assert_eq!(get(&rules, "", "/a/b/z"), Some(2));
    }

    #[test]
    fn an_exact_host_goes_before_a_longer_suffix_before_a_shorter_before_any() {
        let rules = ["{}", "{host: '*.com'}", "{host: '*.example.com'}", "{host: api.example.com}"];
        for (host, route) in [
            ("api.example.com", 3),
            ("www.example.com", 2),
            ("a.b.example.com", 2),
            ("example.com", 1),
            ("com", 0),
            ("[::1]", 0),
            ("", 0),
        ] {
            assert_eq!(get(&rules, host, "/"), Some(route), "{host}");
        }
    }

    #[test]
    fn a_less_specific_host_answers_for_a_path_the_better_one_lacks() {
        let rules = ["{path: /a}", "{host: '*.com', path: /b}", "{host: x.com, path: /c}"];
        assert_eq!(get(&rules, "x.com", "/b"), Some(1));
        assert_eq!(get(&rules, "x.com", "/a"), Some(0));
    }

    #[test]
    fn a_less_specific_route_answers_for_a_method_the_better_one_lacks() {
        let rules = ["{path: /a/*}", "{path: /a/b, methods: [POST]}"];
        assert_eq!(find(&rules, "GET", "/a/b"), Ok(0));
        assert_eq!(find(&rules, "POST", "/a/b"), Ok(1));
    }

    #[test]
    fn a_wrong_method_is_told_every_right_one() {
        let rules = [
            "{path: /a/:x, methods: [PUT]}",
            "{path: /a/b, methods: [POST, GET]}",
            "{path: /*, methods: [PURGE]}",
            "{path: /c, methods: [TRACE]}",
        ];
        assert_eq!(find(&rules, "DELETE", "/a/b"), Err("GET, HEAD, POST, PURGE, PUT".to_owned()));
        assert_eq!(find(&rules[..1], "GET", "/b"), Err("404".to_owned()));
    }

    #[test]
    fn get_answers_head_unless_a_route_names_it() {
        let both = ["{path: /a, methods: [GET]}", "{path: /a, methods: [HEAD]}"];
        assert_eq!(find(&both[..1], "HEAD", "/a"), Ok(0));
        assert_eq!(find(&both, "HEAD", "/a"), Ok(1));
        assert_eq!(find(&["{path: /a, methods: [POST]}"], "HEAD", "/a"), Err("POST".to_owned()));
        let wider = ["{path: /a, methods: [GET]}", "{path: /*, methods: [HEAD]}"];
        assert_eq!(find(&wider, "HEAD", "/a"), Ok(0));
    }

    #[test]
    fn headers_query_and_cookies_choose_among_routes_with_one_path() {
        let rules = [
            "{path: /a}",
            "{path: /a, headers: {X-Version: {prefix: '2.'}}}",
            "{path: /a, headers: {X-Version: '2.1'}}",
            "{path: /a, query: {version: {prefix: '2'}}}",
            "{path: /a, cookies: {beta: {present: true}}}",
            "{path: /a, cookies: {beta: yes}, headers: {X-Version: {present: false}}}",
            "{path: /*, headers: {X-Version: '2.1'}}",
        ];
        for (target, lines, route) in [
            ("/a", &[][..], 0),
            ("/a", &[("x-version", "2.0")], 1),
            ("/a", &[("x-version", "2.1")], 2),
            ("/a", &[("x-version", "2.0"), ("x-version", "2.1")], 1),
            ("/a", &[("x-version", "1")], 0),
            ("/a?version=%32&version=1", &[], 3),
            ("/a?version=1&version=2", &[], 0),
            ("/a", &[("cookie", "beta=no")], 4),
            ("/a", &[("cookie", "beta=yes")], 5),
            ("/a", &[("cookie", "a=1"), ("cookie", "beta=yes")], 5),
            ("/a", &[("cookie", "beta=yes"), ("x-version", "1")], 4),
            ("/b", &[("x-version", "2.1")], 6),
        ] {
            assert_eq!(find_with(&rules, "GET", target, lines), Ok(route), "{target} {lines:?}");
        }
        assert_eq!(find_with(&rules, "GET", "/b", &[]), Err("404".to_owned()));
    }

    #[test]
    fn a_method_counts_after_the_conditions_and_is_told_where_they_are_met() {
        let rules = [
            "{path: /a, methods: GET, headers: {X-A: {present: true}}}",
            "{path: /a, methods: [HEAD, PUT]}",
            "{path: /a, methods: DELETE, query: {force: {present: true}}}",
        ];
        let given = [("x-a", "")];
        assert_eq!(find_with(&rules, "HEAD", "/a", &given), Ok(0), "more conditions go first");
        assert_eq!(find_with(&rules, "HEAD", "/a", &[]), Ok(1));
        assert_eq!(find_with(&rules, "GET", "/a", &[]), Err("HEAD, PUT".to_owned()));
        let all = "DELETE, GET, HEAD, PUT".to_owned();
        assert_eq!(find_with(&rules, "POST", "/a?force", &given), Err(all));
        assert_eq!(find_with(&rules[..1], "GET", "/a", &[]), Err("404".to_owned()));
    }

    #[test]
    fn a_preflight_finds_a_route_whatever_it_asks_of_headers_and_cookies() {
        let router = compile(&[
            "{path: /a, headers: {X-A: '1'}, cookies: {b: '2'}}",
            "{path: /a, query: {v: '1'}, headers: {X-A: '1'}, cookies: {b: '2'}}",
        ]);
        let router = router.unwrap();
        let find = |query| {
            let asked = Asked { query, ..Asked::of(&Method::GET) };
            router.find("", "/a", &asked).ok().map(|found| found.route)
        };
        assert_eq!((find(None), find(Some("v=1")), find(Some("v=2"))), (Some(0), Some(1), Some(0)));
    }

    #[test]
    fn routes_of_one_rank_that_can_meet_are_in_conflict() {
        let conflict = |a: &str, b: &str| {
            let rules = [format!("{{path: /a, {a}}}"), format!("{{path: /a, {b}}}")];
            compile(&[&rules[0], &rules[1]]).err().map(|conflicts| conflicts[0].to_string())
        };
        let both =
            "`/a` is matched by routes.r0 already, and one request can meet the conditions of both";
        for (a, b) in [
            ("headers: {X-A: '1'}", "headers: {X-B: '1'}"),
            ("headers: {X-A: '1'}", "headers: {x-a: '1'}"),
            ("headers: {a: '1'}", "cookies: {a: '1'}"),
            ("query: {a: {prefix: ab}}", "query: {b: {prefix: cd}}"),
            ("query: {a: {present: true}}", "cookies: {a: {present: false}}"),
        ] {
            assert_eq!(conflict(a, b).as_deref(), Some(both), "{a} {b}");
        }
        for (a, b) in [
            ("headers: {X-A: '1'}", "headers: {X-A: '2'}"),
            ("headers: {X-A: '1'}", "headers: {X-B: {prefix: '1'}}"),
            ("query: {a: {prefix: ab}}", "query: {a: {prefix: ac}}"),
            ("query: {a: {prefix: ab}}", "query: {a: {prefix: abc}}"),
            ("cookies: {a: {present: true}}", "cookies: {a: {present: false}}"),
            ("cookies: {a: x}, query: {b: x}", "cookies: {a: x}"),
        ] {
            assert_eq!(conflict(a, b), None, "{a} {b}");
        }
    }

    #[test]
    fn routes_that_cannot_be_told_apart_are_all_named() {
        let conflicts = compile(&[
            "{path: [/a/:x, /b], methods: [GET, POST]}",
            "{path: /a/:y, methods: [POST, PUT]}",
            "{path: /b}",
            "{host: x.com, path: /b}",
        ])
        .unwrap_err();
        let named = conflicts.iter().map(|conflict| (&*conflict.second.1, conflict.to_string()));
        assert_eq!(
            named.collect::<Vec<_>>(),
            [
                ("r1", "`/a/:y` is matched by routes.r0 already for POST".to_owned()),
                ("r2", "`/b` is matched by routes.r0 already for GET, POST".to_owned()),
            ]
        );
    }

    #[test]
    fn a_route_that_matches_the_same_twice_is_in_conflict_with_itself() {
        let conflicts = compile(&["{host: a.com, path: [/a/:x, /a/:y]}"]).unwrap_err();
        assert_eq!(conflicts.len(), 1);
        assert!(conflicts[0].to_string().starts_with("`/a/:y` stands here twice at a.com"));
    }

    #[test]
    fn a_path_that_is_not_canonical_is_survived() {
        let rules = ["{path: /a/*}", "{path: '/:x'}"];
        for path in ["", "a", "\u{e9}", "//", "/a\u{e9}"] {
            let _ = get(&rules, "", path);
        }
    }
}
