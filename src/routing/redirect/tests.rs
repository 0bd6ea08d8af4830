//! Where a redirect sends whom, and which redirects are refused.

use super::*;
use crate::routing::Params;
use crate::routing::pattern::Pattern;

fn parse(yaml: &str) -> Result<Redirect, String> {
    serde_yaml::from_str(yaml).map_err(|error| error.to_string())
}

/// Where `redirect` sends a request for `path` at `http://a.example:8080`, whose route matches `pattern`.
fn sent(redirect: &str, pattern: &str, path: &str) -> String {
    let redirect = parse(redirect).expect("valid");
    let pattern: Pattern = pattern.parse().expect("a pattern");
    let (path, query) = path.split_once('?').map_or((path, None), |(path, q)| (path, Some(q)));
    let rewritten =
        redirect.path.as_ref().map(|path_of| path_of.apply(&Params::new(&pattern, path)));
    let requested = Requested {
        scheme: Scheme::Http,
        host: "a.example",
        port: Some(8080),
        path: rewritten.as_deref().unwrap_or(path),
        query,
    };
    redirect.location(&requested).expect("there is a host")
}

#[test]
fn what_is_not_written_stays_as_it_was_requested() {
    for (redirect, sent_to) in [
        ("{scheme: https}", "https://a.example/x/y?q=1"),
        ("{scheme: https, port: 8443}", "https://a.example:8443/x/y?q=1"),
        ("{scheme: https, port: 443}", "https://a.example/x/y?q=1"),
        ("{scheme: http}", "http://a.example:8080/x/y?q=1"),
        ("{port: 81}", "http://a.example:81/x/y?q=1"),
        ("{host: B.example}", "http://b.example/x/y?q=1"),
        ("{host: '[::1]', port: 81}", "http://[::1]:81/x/y?q=1"),
        ("{host: b.example, query: drop}", "http://b.example/x/y"),
        ("{to: 'https://b.example'}", "https://b.example/x/y?q=1"),
        ("{to: 'https://b.example:8443'}", "https://b.example:8443/x/y?q=1"),
        ("{to: 'https://b.example/'}", "https://b.example/?q=1"),
        ("{to: 'https://b.example', strip_prefix: /x}", "https://b.example/y?q=1"),
        ("{path: /new}", "/new?q=1"),
        ("{strip_prefix: /x, add_prefix: /v2}", "/v2/y?q=1"),
    ] {
        assert_eq!(sent(redirect, "/*", "/x/y?q=1"), sent_to, "{redirect}");
    }
}

#[test]
fn a_path_takes_the_values_of_the_pattern() {
    assert_eq!(sent("{path: '/n/{id}'}", "/u/:id", "/u/7"), "/n/7");
    let to = "{to: 'https://docs.example/{id}/{*}'}";
    assert_eq!(sent(to, "/u/:id/*", "/u/7/a/b?c"), "https://docs.example/7/a/b?c");
}

#[test]
fn a_path_alone_never_names_a_host() {
    // Of a route with `slashes: as_sent`.
    assert_eq!(sent("{strip_prefix: /a}", "/a/*", "/a//evil.example/x"), "/evil.example/x");
    assert_eq!(sent("{strip_segments: 1}", "/*", "/a///evil.example"), "/evil.example");
    let to = "{scheme: https, strip_prefix: /a}";
    assert_eq!(sent(to, "/a/*", "/a//evil.example"), "https://a.example//evil.example");
}

#[test]
fn a_request_without_a_host_is_sent_only_where_one_is_written() {
    let without = Requested { scheme: Scheme::Http, host: "", port: None, path: "/x", query: None };
    let sent = |yaml: &str| parse(yaml).expect("valid").location(&without);
    assert_eq!(sent("{scheme: https}"), None);
    assert_eq!(sent("{to: 'https://b.example'}").as_deref(), Some("https://b.example/x"));
    assert_eq!(sent("{path: /y}").as_deref(), Some("/x"), "the router changes it");
}

#[test]
fn a_move_to_tls_is_for_good_and_all_else_for_now() {
    for (redirect, status) in [
        ("{scheme: https}", 308),
        ("{scheme: https, port: 8443}", 308),
        ("{scheme: https, status: 301}", 301),
        ("{scheme: https, host: b.example}", 307),
        ("{scheme: https, path: /x}", 307),
        // A client that remembered this would lose every query.
        ("{scheme: https, query: drop}", 307),
        ("{scheme: https, query: keep}", 308),
        ("{to: 'https://b.example'}", 307),
        ("{path: /x}", 307),
        ("{path: /x, status: 303}", 303),
    ] {
        assert_eq!(parse(redirect).map(|redirect| redirect.status), Ok(status), "{redirect}");
    }
}

#[test]
fn a_request_that_is_where_it_would_be_sent_is_sent_to_itself() {
    let (http, https) = (Scheme::Http, Scheme::Https);
    for (yaml, over_http, over_https) in [
        ("{scheme: https}", false, true),
        ("{scheme: http}", true, false),
        ("{scheme: https, port: 443}", false, true),
        ("{scheme: https, port: 80}", false, false),
        ("{scheme: https, port: 8443}", false, false),
        ("{port: 443}", false, true),
        ("{port: 80}", true, false),
        ("{host: a.example}", true, true),
        ("{host: a.example, port: 443}", false, true),
        ("{host: b.example}", false, false),
        ("{to: 'https://A.example:443'}", false, true),
        ("{to: 'https://a.example/x'}", false, false),
        ("{scheme: https, query: drop}", false, false),
        ("{path: /x}", false, false),
    ] {
        let redirect = parse(yaml).expect("valid");
        let repeats = |scheme| redirect.repeats(scheme, |host| host == "a.example");
        assert_eq!((repeats(http), repeats(https)), (over_http, over_https), "{yaml}");
    }
}

#[test]
fn what_leads_nowhere_is_refused_with_a_remedy() {
    for (yaml, remedy) in [
        ("{}", "write `to`"),
        ("{status: 301}", "write `to`"),
        ("{query: drop}", "write `to`"),
        ("{to: /new}", "write `path`"),
        ("{to: //evil.example}", "begins with `http://`"),
        ("{to: 'ftp://a.example'}", "begins with `http://`"),
        ("{to: 'https://'}", "the host is empty"),
        ("{to: 'https://{host}/'}", "neither a name nor an address"),
        ("{to: 'https://user@a.example'}", "neither a name nor an address"),
        ("{to: 'https://a.example?x'}", "neither a name nor an address"),
        ("{to: 'https://a.example/x?y'}", "percent-encoded"),
        ("{to: \"https://a.example/\\r\\nX: 1\"}", "control character"),
        ("{to: 'https://a.example', host: b.example}", "drop the other keys"),
        ("{to: 'https://a.example/x', path: /y}", "drop the other keys"),
        ("{path: /x, strip_prefix: /y}", "drop the other keys"),
        ("{path: x}", "begins with `/`"),
        ("{host: 'a.example:81'}", "as `port`"),
        ("{host: '[::1]:81'}", "as `port`"),
        ("{host: \"a\\r\\nX: 1\"}", "the port is not a number"),
        ("{port: 0}", "nonzero"),
        ("{scheme: ftp}", "unknown variant"),
        ("{scheme: https, status: 200}", "does not redirect"),
        ("{scheme: https, status: 304}", "does not redirect"),
        ("{url: x}", "unknown field"),
    ] {
        let error = parse(yaml).expect_err(remedy);
        assert!(error.contains(remedy), "{yaml}: {error}");
    }
}
