//! What is read from a file, and that rank, overlap and implication agree with the requests themselves.

use http::HeaderValue;
use http::header::COOKIE;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn parse(yaml: &str) -> Result<Conditions, String> {
    serde_yaml::from_str::<Match>(yaml).map(|m| Conditions::of(&m)).map_err(|e| e.to_string())
}

#[test]
fn a_condition_says_what_it_asks() {
    let yaml = "{headers: {X-Version: v2, Accept: {prefix: application/vnd.}}, \
                query: {'a b': {exact: ''}, old: {present: false}}, cookies: {beta: {present: true}}}";
    let shown: Vec<_> = parse(yaml).expect("valid").iter().map(Condition::to_string).collect();
    assert_eq!(
        shown,
        [
            "header x-version = v2",
            "header accept begins with application/vnd.",
            "query a b = ",
            "no query old",
            "cookie beta",
        ]
    );
}

#[test]
fn what_no_request_can_meet_is_refused_with_a_remedy() {
    let many: Vec<_> = (0..17).map(|n| format!("p{n}: x")).collect();
    for (yaml, remedy) in [
        ("headers: {Host: a}", "match.host"),
        ("headers: {cookie: a}", "match.cookies"),
        ("headers: {'a b': a}", "not a header name"),
        ("headers: {X-A: a, x-a: b}", "there twice"),
        ("headers: {X-A: ' a'}", "no blanks around it"),
        ("headers: {X-A: {exact: a, prefix: a}}", "one of `exact`"),
        ("headers: {X-A: {}}", "one of `exact`"),
        ("headers: {X-A: {prefix: ''}}", "write `{present: true}`"),
        ("headers: {X-A: {regex: a}}", "unknown field `regex`"),
        ("headers: {X-A: 2}", "expected a string"),
        ("headers: {X-A: 2.1}", "expected a string"),
        ("headers: {X-A: -2}", "expected a string"),
        ("headers: {X-A: [a, b]}", "the exact value, or one of"),
        ("headers: [X-A]", "names with what"),
        ("query: {'': a}", "the name of a parameter"),
        ("cookies: {'a=b': a}", "not the name of a cookie"),
        ("cookies: {a: 'b;c'}", "no semicolons"),
        ("cookies: {a: '\"b\"'}", "quotes around it"),
        (&format!("query: {{{}}}", many.join(", ")), "at most 16"),
        (&format!("query: {{a: {}}}", "x".repeat(1025)), "at most 1024 bytes"),
    ] {
        let error = parse(&format!("{{{yaml}}}")).expect_err(yaml);
        assert!(error.contains(remedy), "{yaml}: {error}");
    }
}

#[test]
fn a_value_is_looked_for_where_the_condition_says() {
    let headers = HeaderMap::from_iter([
        (HeaderName::from_static("x-a"), HeaderValue::from_static("one")),
        (HeaderName::from_static("x-a"), HeaderValue::from_static("two")),
        (COOKIE, HeaderValue::from_static("c=\"one\"; c=two")),
    ]);
    let asked = Asked {
        headers: Some(&headers),
        query: Some("q=on%65&q=two&e"),
        ..Asked::of(&Method::GET)
    };
    let holds = |yaml: &str| parse(&format!("{{{yaml}}}")).expect("valid").hold(&asked);
    for name in ["headers: {X-A:", "query: {q:", "cookies: {c:"] {
        for test in ["one", "{prefix: on}", "{prefix: one}", "{present: true}"] {
            assert!(holds(&format!("{name} {test}}}")), "{name} {test}");
        }
        for test in ["two", "on", "One", "''", "{prefix: one1}", "{present: false}"] {
            assert!(!holds(&format!("{name} {test}}}")), "{name} {test}");
        }
    }
    assert!(holds("query: {e: ''}") && holds("query: {e: {present: true}}"));
    for name in ["headers: {X-B:", "query: {c:", "cookies: {q:"] {
        assert!(holds(&format!("{name} {{present: false}}}}")), "{name}");
        for test in ["''", "{prefix: a}", "{present: true}"] {
            assert!(!holds(&format!("{name} {test}}}")), "{name} {test}");
        }
    }
    assert!(!holds("query: {q: one}, cookies: {c: two}"), "all conditions must be met");
}

/// Conditions on three values, each of which may be anything.
fn conditions() -> impl Strategy<Value = Conditions> {
    let test = prop_oneof![
        select(vec!["", "1", "12", "2"]).prop_map(|text| Test::Exact(text.into())),
        select(vec!["1", "12", "2"]).prop_map(|text| Test::Prefix(text.into())),
        Just(Test::Present),
        Just(Test::Absent),
    ];
    let tests = proptest::collection::vec(proptest::option::of(test), 3);
    tests.prop_map(|tests| {
        let conditions = PLACES.into_iter().zip(tests).filter_map(|(name, test)| {
            Some(Condition { place: Place::Query(name.into()), test: test? })
        });
        Conditions(conditions.collect())
    })
}

const PLACES: [&str; 3] = ["a", "b", "c"];
/// Every value that tells two tests apart.
const VALUES: [Option<&str>; 7] =
    [None, Some(""), Some("1"), Some("12"), Some("123"), Some("2"), Some("23")];

/// Every request that matters.
fn requests() -> impl Iterator<Item = String> {
    let each = || VALUES.into_iter();
    let all = each().flat_map(move |a| each().flat_map(move |b| each().map(move |c| [a, b, c])));
    all.map(|values| {
        let pairs = PLACES.into_iter().zip(values);
        let pairs = pairs.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        pairs.collect::<Vec<_>>().join("&")
    })
}

fn meets(conditions: &Conditions, query: &str) -> bool {
    conditions.hold(&Asked { query: Some(query), ..Asked::of(&Method::GET) })
}

proptest! {
    #[test]
    fn conditions_overlap_if_a_request_meets_both(a in conditions(), b in conditions()) {
        let both = requests().any(|query| meets(&a, &query) && meets(&b, &query));
        prop_assert_eq!(a.overlap(&b), both);
        prop_assert_eq!(b.overlap(&a), both);
    }

    #[test]
    fn what_implies_another_is_met_by_a_part_of_its_requests_and_goes_first(
        a in conditions(), b in conditions(),
    ) {
        let part = requests().all(|query| !meets(&a, &query) || meets(&b, &query));
        prop_assert_eq!(a.imply(&b), part);
        if part && a != b {
            prop_assert!(a.rank() < b.rank());
        }
    }
}

#[test]
fn a_certificate_is_met_by_any_of_its_names_and_by_that_of_the_connection_alone() {
    let peer = |uris: &[&str], dns: &[&str], common: Option<&str>| {
        Peer::try_new(uris.iter().copied(), dns.iter().copied(), common, &[]).expect("a peer")
    };
    let web = peer(&["spiffe://prod/ns/shop/web"], &[], None);
    let many = peer(&[], &["a.shop", "b.internal"], Some("c.shop"));
    let common = peer(&[], &[], Some("a.shop"));
    let headers = HeaderMap::new();
    let holds = |names: &str, certificate: Option<&Peer>, headers: Option<&HeaderMap>| {
        let conditions = parse(&format!("{{client_certificate: {names}}}")).expect("valid");
        let method = &Method::GET;
        conditions.hold(&Asked { headers, certificate, ..Asked::of(method) })
    };
    for (names, certificate, held) in [
        ("spiffe://prod/ns/shop/*", Some(&web), true),
        ("[a.shop, spiffe://prod/*]", Some(&web), true),
        ("spiffe://prod/ns/*/db", Some(&web), false),
        ("'*.internal'", Some(&many), true),
        ("a.shop", Some(&many), true),
        ("c.shop", Some(&many), false),
        ("a.shop", Some(&common), false),
        ("a.shop", None, false),
    ] {
        assert_eq!(holds(names, certificate, Some(&headers)), held, "{names}");
        assert!(holds(names, None, None), "a preflight has none: {names}");
    }
    let shown = parse("{client_certificate: [a.shop, '*.internal'], query: {v: '1'}}");
    let shown: Vec<_> = shown.expect("valid").iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["query v = 1", "certificate of a.shop or *.internal"]);
}

#[test]
fn of_two_certificates_the_narrower_goes_first_and_names_apart_never_meet() {
    let of = |names: &str| parse(&format!("{{client_certificate: {names}}}")).expect("valid");
    for (narrow, wide) in [
        ("spiffe://prod/ns/shop/web", "spiffe://prod/ns/shop/*"),
        ("spiffe://prod/ns/shop/*", "spiffe://prod/*"),
        ("spiffe://prod/*/web", "spiffe://prod/*/*"),
        ("a.shop", "'*.shop'"),
        ("a.shop", "[a.shop, 'spiffe://prod/*']"),
    ] {
        let (narrow, wide) = (of(narrow), of(wide));
        assert!(narrow.rank() < wide.rank(), "{narrow:?} {wide:?}");
        assert!(narrow.imply(&wide) && narrow.overlap(&wide) && !wide.imply(&narrow));
    }
    assert!(!of("[a.shop, b.shop]").overlap(&of("[c.shop, 'spiffe://prod/*']")));
    assert!(of("[a.shop, b.shop]").overlap(&of("[b.shop, c.shop]")));
}
