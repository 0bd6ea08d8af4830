//! Names of certificates, patterns for them, and the field that tells of them.

use super::pattern::Pattern;
use super::*;

fn peer(uris: &[&str], dns: &[&str], common_name: Option<&str>) -> Result<Peer, Unnamed> {
    Peer::try_new(uris.iter().copied(), dns.iter().copied(), common_name, &[0xab; 32])
}

fn names(peer: &Peer, with_common_name: bool) -> Vec<&str> {
    peer.names(with_common_name).map(Name::as_str).collect()
}

fn pattern(text: &str) -> Pattern {
    text.parse().expect(text)
}

#[test]
fn the_examples_of_the_spiffe_documents_are_ids() {
    // SPIFFE-ID, sections 2 to 2.2.
    for id in [
        "spiffe://staging.example.com/payments/mysql",
        "spiffe://staging.example.com/payments/web-fe",
        "spiffe://k8s-west.example.com/ns/staging/sa/default",
        "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
        "spiffe://example.com",
    ] {
        assert_eq!(spiffe_id(id).as_deref(), Ok(id));
    }
}

#[test]
fn what_the_documents_forbid_is_no_id() {
    for (id, why) in [
        ("https://example.com/a", NotSpiffe::Scheme),
        ("spiffe:/example.com", NotSpiffe::Scheme),
        ("spiffe://", NotSpiffe::TrustDomain),
        ("spiffe:///a", NotSpiffe::TrustDomain),
        ("spiffe://example.com:80/a", NotSpiffe::TrustDomain),
        ("spiffe://user@example.com/a", NotSpiffe::TrustDomain),
        ("spiffe://exämple.com/a", NotSpiffe::TrustDomain),
        ("spiffe://example.com/", NotSpiffe::Path),
        ("spiffe://example.com/a/", NotSpiffe::Path),
        ("spiffe://example.com/a//b", NotSpiffe::Path),
        ("spiffe://example.com/a/./b", NotSpiffe::Path),
        ("spiffe://example.com/a/../b", NotSpiffe::Path),
        ("spiffe://example.com/a%2Fb", NotSpiffe::Path),
        ("spiffe://example.com/a?b", NotSpiffe::Path),
        ("spiffe://example.com/a#b", NotSpiffe::Path),
        ("spiffe://example.com?b", NotSpiffe::TrustDomain),
    ] {
        assert_eq!(spiffe_id(id), Err(why), "{id}");
    }
    let long = format!("spiffe://example.com/{}", "a".repeat(2048));
    assert_eq!(spiffe_id(&long), Err(NotSpiffe::Length));
    // The trust domain has no case; the path has.
    assert_eq!(spiffe_id("SPIFFE://Example.COM/A").as_deref(), Ok("spiffe://example.com/A"));
}

#[test]
fn the_first_kind_of_name_that_there_is_names_the_peer() {
    let whole = peer(&["spiffe://prod/a"], &["a.internal"], Some("a")).expect("a peer");
    assert_eq!(names(&whole, true), ["spiffe://prod/a"]);
    let dns = peer(&[], &["A.Internal", "b.internal"], Some("a")).expect("a peer");
    assert_eq!(names(&dns, true), ["a.internal", "b.internal"]);
    let common = peer(&[], &[], Some("a")).expect("a peer");
    assert_eq!(names(&common, true), ["a"]);
    assert!(names(&common, false).is_empty());
    // A URI that is no SPIFFE id names no one.
    let other = peer(&["https://a.internal/"], &["a.internal"], None).expect("a peer");
    assert_eq!(names(&other, false), ["a.internal"]);
}

#[test]
fn a_certificate_for_spiffe_has_one_uri() {
    let (one, other) = ("spiffe://prod/a", "https://a.internal/");
    for uris in [[one, "spiffe://prod/b"], [one, one], [one, other], [other, one]] {
        assert_eq!(peer(&uris, &["a.internal"], None), Err(Unnamed::TwoUris), "{uris:?}");
    }
    let wrong = Err(Unnamed::Spiffe(NotSpiffe::Path));
    assert_eq!(peer(&["spiffe://prod/a/"], &["a.internal"], None), wrong);
}

#[test]
fn patterns_go_by_segments() {
    for (written, ids, others) in [
        (
            "spiffe://prod/ns/shop/*",
            &["spiffe://prod/ns/shop/sa", "spiffe://prod/ns/shop/sa/web"][..],
            &["spiffe://prod/ns/shop", "spiffe://prod/ns/shopping/sa", "spiffe://test/ns/shop/sa"]
                [..],
        ),
        (
            "spiffe://prod/ns/*/sa/web",
            &["spiffe://prod/ns/shop/sa/web"],
            &[
                "spiffe://prod/ns/shop/sa/web/a",
                "spiffe://prod/ns/a/b/sa/web",
                "spiffe://prod/ns/sa/web",
            ],
        ),
        (
            "spiffe://prod/a",
            &["spiffe://prod/a"],
            &["spiffe://prod/A", "spiffe://prod", "spiffe://prod/a/b"],
        ),
        ("spiffe://Prod/*", &["spiffe://prod/a"], &["spiffe://prod", "spiffe://production/a"]),
        ("spiffe://prod", &["spiffe://prod"], &["spiffe://prod/a"]),
    ] {
        let pattern = pattern(written);
        for id in ids {
            assert!(pattern.matches(Name::Spiffe(id)), "{written}: {id}");
        }
        for id in others {
            assert!(!pattern.matches(Name::Spiffe(id)), "{written}: {id}");
        }
    }
}

#[test]
fn names_of_one_kind_are_not_matched_as_another() {
    let (whole, below) = (pattern("a.Internal"), pattern("*.internal"));
    assert!(whole.matches(Name::Dns("a.internal")) && below.matches(Name::Dns("a.internal")));
    assert!(!below.matches(Name::Dns("a.b.internal")) && !below.matches(Name::Dns("internal")));
    assert!(!below.matches(Name::Dns(".internal")) && !below.matches(Name::Common("a.internal")));
    assert!(
        whole.matches(Name::Common("a.Internal")) && !whole.matches(Name::Common("a.internal"))
    );
    assert!(!whole.matches(Name::Spiffe("a.internal")));
    assert!(!pattern("spiffe://prod/*").matches(Name::Dns("spiffe://prod/a")));
}

#[test]
fn a_pattern_that_can_match_nothing_is_refused() {
    for (written, why) in [
        ("", "it is empty"),
        (" a", "a space at an end"),
        ("https://a/*", "only SPIFFE ids"),
        ("spiffe://", "the trust domain is empty"),
        ("spiffe://*/a", "a trust domain is written out"),
        ("spiffe://prod/a*", "a whole segment"),
        ("spiffe://prod/a//b", "a segment of the path is empty"),
        ("spiffe://prod/", "a segment of the path is empty"),
        ("spiffe://prod/a b", "other characters than letters"),
        ("*", "the first label"),
        ("*internal", "the first label"),
        ("*.", "the first label"),
        ("a.*.internal", "the first label"),
    ] {
        let error = written.parse::<Pattern>().expect_err(written);
        assert!(error.contains("can match nothing") && error.contains(why), "{error}");
    }
}

#[test]
fn a_peer_is_told_of_in_a_field_and_read_from_it() {
    let hash = "ab".repeat(32);
    for (peer, field) in [
        (peer(&["spiffe://prod/a"], &[], None), format!("Hash={hash};URI=spiffe://prod/a")),
        (peer(&[], &["a", "b"], None), format!("Hash={hash};DNS=a;DNS=b")),
        (peer(&[], &[], Some("Web 1")), format!(r#"Hash={hash};Subject="CN=Web 1""#)),
    ] {
        let peer = peer.expect("a peer");
        assert_eq!(peer.to_field(), field);
        let read = Peer::from_field(&field).expect("a peer");
        assert_eq!(names(&read, true), names(&peer, true));
        assert_eq!(read.hash(), hash);
    }
}

#[test]
fn only_what_the_nearest_proxy_has_added_is_read() {
    // Envoy's documentation of the field.
    let two = "By=http://frontend.lyft.com;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;\
               Subject=\"/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client\";URI=http://testclient.lyft.com,\
               By=spiffe://lyft/backend;URI=spiffe://lyft/frontend";
    let read = Peer::from_field(two).expect("a peer");
    assert_eq!(names(&read, true), ["spiffe://lyft/frontend"]);
    let first = two.split(",By=spiffe").next().expect("an element");
    let read = Peer::from_field(first).expect("a peer");
    assert!(names(&read, true).is_empty(), "a subject with slashes can be read in several ways");
    let quoted = r#"URI=spiffe://prod/a,Subject="CN=a,URI=spiffe://prod/b;x";DNS=c"#;
    assert_eq!(names(&Peer::from_field(quoted).expect("a peer"), true), ["c"]);
}

#[test]
fn a_field_that_says_nothing_or_nonsense_names_no_one() {
    for field in [
        "",
        ",",
        "a",
        "Hash=ab",
        "By=spiffe://prod/a",
        "URI=",
        "Subject=\"CN=a",
        "Subject=\"CN=a\"b",
        // A client's own, to which a proxy has appended.
        "URI=spiffe://prod/root;X=a\",By=spiffe://prod/edge;Hash=ab;URI=spiffe://prod/evil",
        "URI=spiffe://prod/root;x\"y=z,By=spiffe://prod/edge;URI=spiffe://prod/evil",
        "URI=spiffe://prod/root;Subject=\"CN=a,By=spiffe://prod/edge;URI=spiffe://prod/evil",
        "URI=spiffe://prod/a;URI=spiffe://prod/b",
        "URI=spiffe://prod/a,",
        "URI=spiffe://prod/a/../b",
    ] {
        assert_eq!(Peer::from_field(field), None, "{field}");
    }
}

#[test]
fn a_common_name_that_can_be_read_in_several_ways_is_not_believed() {
    for subject in [
        "CN=evil,O=x/CN=admin",
        "/O=x/CN=admin",
        "CN=evil,CN=admin",
        r"O=x\\,CN=admin",
        "CN=evil+CN=admin",
        "CN=",
        "CN=a;b",
    ] {
        let read = Peer::from_field(&format!("Subject=\"{subject}\"")).expect("an element");
        assert!(names(&read, true).is_empty(), "{subject}");
    }
    let odd = peer(&[], &["a"], Some("web,CN=admin")).expect("a peer");
    assert!(!odd.to_field().contains("admin"), "{}", odd.to_field());
}

#[test]
fn a_dns_name_that_is_none_names_no_one() {
    for name in ["spiffe://prod/root", "a b", "", "a..b", "a/b", "ä.internal"] {
        assert!(names(&peer(&[], &[name], None).expect("a peer"), false).is_empty(), "{name}");
    }
    assert_eq!(
        names(&peer(&[], &["*.a.internal", "b"], None).expect("a peer"), false),
        ["*.a.internal", "b"]
    );
}

#[test]
fn what_two_patterns_have_in_common_is_known_without_a_name() {
    let texts = [
        "spiffe://p",
        "spiffe://p/*",
        "spiffe://p/a",
        "spiffe://p/a/*",
        "spiffe://p/*/b",
        "spiffe://p/*/*",
        "spiffe://p/a/b",
        "spiffe://p/*/b/*",
        "spiffe://q/*",
        "a.shop",
        "A.shop",
        "*.shop",
        "b.a.shop",
        "*.a.shop",
    ];
    let ids = [
        "spiffe://p",
        "spiffe://p/a",
        "spiffe://p/b",
        "spiffe://p/a/b",
        "spiffe://p/b/b",
        "spiffe://p/a/c",
        "spiffe://p/c/c",
        "spiffe://p/a/b/c",
        "spiffe://p/c/b/c",
        "spiffe://p/c/c/c",
        "spiffe://p/a/c/c",
        "spiffe://q/a",
    ];
    let dns = ["a.shop", "b.shop", "b.a.shop", "c.a.shop", "shop"];
    let names: Vec<_> =
        ids.into_iter().map(Name::Spiffe).chain(dns.into_iter().map(Name::Dns)).collect();
    let patterns = texts.map(|text| text.parse::<pattern::Pattern>().expect("a pattern"));
    for a in &patterns {
        for b in &patterns {
            let both = names.iter().any(|name| a.matches(*name) && b.matches(*name));
            assert_eq!(a.meets(b), both, "{a} and {b}");
            let all = names.iter().all(|name| !a.matches(*name) || b.matches(*name));
            assert_eq!(a.implies(b), all, "{a} within {b}");
            // What the order of routes relies on.
            let is_more = (a.is_exact(), a.specificity()) >= (b.is_exact(), b.specificity());
            assert!(!a.implies(b) || is_more, "{a} within {b}");
        }
    }
}
