use std::sync::Arc;

use http::Method;

use super::super::guard::Guard;
use super::super::identity::{Certified, Identity, KeptClaims};
use super::super::refusal::Forbidden;
use super::super::testing::config;
use super::super::verifier::Verifier;
use super::*;

/// A route that accepts these of `mesh`, `dns` (certificates), `partners`, `accounts`.
fn guard(require: &str, permit: &str) -> Result<Guard, String> {
    let requirement = format!("{{require: [{require}], permit: {permit}}}");
    let requirement = serde_yaml::from_str(&requirement).map_err(|error| error.to_string())?;
    let find = |name: &str| {
        let yaml = match name {
            "partners" | "accounts" => "api_key: {keys: {acme: k-acme}}",
            "dns" => "client_certificate: {common_name: true}",
            _ => "client_certificate: {}",
        };
        Some(Arc::new(Verifier::try_new(name, &config(yaml)).expect("a verifier")))
    };
    Guard::try_new(&requirement, find).map_err(|error| error.to_string())
}

fn identity(authority: &str, name: &str, certified: Option<Certified>) -> Identity {
    Identity {
        authority: authority.into(),
        header: name.parse().expect("a header"),
        consumer: name.parse().expect("a name"),
        certified,
        scopes: Box::default(),
        roles: Box::default(),
        expires_at: None,
        claims: KeptClaims::default(),
        passed: Box::default(),
    }
}

fn asked(guard: &Guard, identity: &Identity, call: &str) -> Result<(), Unpermitted> {
    let (method, path) = call.split_once(' ').expect("a method and a path");
    let method: Method = method.parse().expect("a method");
    guard.authorize(identity, &method, path).map_err(|lack| match lack {
        Forbidden::Call(lack) => lack,
        Forbidden::Scopes | Forbidden::Role => panic!("{lack:?}"),
    })
}

#[test]
fn one_entry_must_have_the_caller_the_method_and_the_path() {
    let permit = "[{callers: 'spiffe://prod/ns/shop/*', methods: GET, paths: '/orders/*'}, \
                  {callers: ['spiffe://prod/ops'], paths: ['/admin/*', '/orders/:id']}, \
                  {methods: OPTIONS, paths: '/admin/*'}]";
    let guard = guard("mesh", permit).expect("a guard");
    let web = identity("mesh", "spiffe://prod/ns/shop/web", Some(Certified::Spiffe));
    let ops = identity("mesh", "spiffe://prod/ops", Some(Certified::Spiffe));
    let other = identity("mesh", "spiffe://prod/ns/shopping/web", Some(Certified::Spiffe));
    for (caller, call, expected) in [
        (&web, "GET /orders", Ok(())),
        (&web, "GET /orders/7/lines", Ok(())),
        (&web, "HEAD /orders/7", Err(Unpermitted::Method)),
        (&web, "POST /orders/7", Err(Unpermitted::Method)),
        (&web, "GET /ordersx", Err(Unpermitted::Path)),
        (&web, "GET /admin/x", Err(Unpermitted::Method)),
        (&web, "OPTIONS /admin/x", Ok(())),
        (&ops, "DELETE /admin/x", Ok(())),
        (&ops, "PUT /orders/7", Ok(())),
        (&ops, "PUT /orders/7/", Err(Unpermitted::Path)),
        // An entry without callers is for every caller.
        (&other, "GET /orders", Err(Unpermitted::Path)),
        (&other, "GET /admin", Err(Unpermitted::Method)),
        (&other, "OPTIONS /admin", Ok(())),
    ] {
        assert_eq!(asked(&guard, caller, call), expected, "{} {call}", caller.consumer());
    }
}

#[test]
fn a_caller_that_no_entry_names_is_told_apart_from_a_wrong_path() {
    let guard = guard("mesh", "[{callers: 'spiffe://prod/a', paths: /a}]").expect("a guard");
    let stranger = identity("mesh", "spiffe://prod/b", Some(Certified::Spiffe));
    assert_eq!(asked(&guard, &stranger, "GET /a"), Err(Unpermitted::Caller));
    assert_eq!(asked(&guard, &stranger, "GET /b"), Err(Unpermitted::Caller));
}

#[test]
fn a_name_of_one_kind_is_never_taken_for_one_of_another() {
    let every = guard("mesh, accounts", "[{callers: ['spiffe://prod/*', '*.shop', acme]}]");
    let every = every.expect("a guard");
    for (name, certified) in [("spiffe://prod/a", Certified::Spiffe), ("web.shop", Certified::Dns)]
    {
        assert_eq!(asked(&every, &identity("mesh", name, Some(certified)), "GET /"), Ok(()));
        // A token may have any subject.
        let token = identity("accounts", name, None);
        assert_eq!(asked(&every, &token, "GET /"), Err(Unpermitted::Caller), "{name}");
    }
    let common = identity("mesh", "web.shop", Some(Certified::Common));
    assert_eq!(asked(&every, &common, "GET /"), Err(Unpermitted::Caller));
    assert_eq!(asked(&every, &identity("accounts", "acme", None), "GET /"), Ok(()));
    let dns = identity("mesh", "acme", Some(Certified::Dns));
    assert_eq!(asked(&every, &dns, "GET /"), Err(Unpermitted::Caller));
}

#[test]
fn a_caller_may_be_named_with_its_authority() {
    let callers = "[{callers: [{auth: mesh, name: web.shop}, {auth: partners, name: acme}]}]";
    let guard = guard("mesh, partners, accounts", callers).expect("a guard");
    for (caller, expected) in [
        (identity("mesh", "web.shop", Some(Certified::Dns)), Ok(())),
        (identity("partners", "acme", None), Ok(())),
        (identity("accounts", "acme", None), Err(Unpermitted::Caller)),
        (identity("partners", "web.shop", None), Err(Unpermitted::Caller)),
        (identity("mesh", "acme", Some(Certified::Dns)), Err(Unpermitted::Caller)),
    ] {
        assert_eq!(asked(&guard, &caller, "GET /"), expected, "{caller:?}");
    }
}

#[test]
fn where_it_is_not_clear_who_is_meant_the_route_is_refused() {
    for (require, caller, told) in [
        ("partners, accounts", "acme", "may be a caller of auth.partners or of auth.accounts"),
        ("mesh, partners", "web.shop", "may be a caller of auth.partners or of auth.mesh"),
        ("dns, partners", "acme", "may be a caller of auth.partners or of auth.dns"),
        ("partners", "'spiffe://prod/a'", "only certificates have such names"),
        ("partners", "'*.shop'", "only certificates have such names"),
        ("partners", "[{auth: accounts, name: acme}]", "does not accept `accounts`"),
        ("mesh", "[{auth: mesh, name: 'a*'}]", "can match nothing"),
        ("partners", "[{auth: partners, name: ' acme'}]", "a consumer's name"),
        ("mesh", "'SPIFFE://prod/a'", "can match nothing"),
        ("mesh", "'spiffe://prod/*x'", "`*` stands for a whole segment"),
        ("mesh", "[]", "leave it out"),
    ] {
        let error = guard(require, &format!("[{{callers: {caller}}}]")).err().unwrap_or_default();
        assert!(error.contains(told), "{require} {caller}: {error}");
    }
    for clear in ["mesh, partners", "mesh, dns", "partners", "mesh"] {
        assert!(guard(clear, "[{callers: acme}]").is_ok(), "{clear}");
    }
}

#[test]
fn a_list_that_permits_nothing_or_everything_is_refused() {
    for (permit, told) in [
        ("[]", "an empty list permits no call"),
        ("[{}]", "it permits everything"),
        ("[{callers: a, path: /a}]", "unknown field `path`"),
        ("[{methods: get}]", "such as GET"),
        ("[{paths: a}]", "begins with `/`"),
    ] {
        let error = guard("mesh", permit).err().unwrap_or_default();
        assert!(error.contains(told), "{permit}: {error}");
    }
}

#[test]
fn a_path_with_slashes_as_sent_must_be_permitted_however_it_is_read() {
    let guard = guard("mesh", "[{callers: 'spiffe://prod/a', paths: ['/files/:name', '/open/*']}]");
    let guard = guard.expect("a guard");
    let a = identity("mesh", "spiffe://prod/a", Some(Certified::Spiffe));
    for (path, expected) in [
        ("/files/x", Ok(())),
        ("/files/x%2Fy", Err(Unpermitted::Path)),
        ("/open/x%2Fy", Ok(())),
        ("/open//x", Ok(())),
        ("/files//x", Err(Unpermitted::Path)),
    ] {
        assert_eq!(asked(&guard, &a, &format!("GET {path}")), expected, "{path}");
    }
}

#[test]
fn a_common_name_and_a_dns_name_of_one_text_are_two_callers() {
    use super::super::{Now, Presented};
    use crate::identity::Peer;

    let guard = guard("dns", "[{callers: '*.shop'}]").expect("a guard");
    let now = Now { unix_seconds: 0, moment: crate::time::Moment::ZERO };
    let headers = http::HeaderMap::new();
    let call = |peer: &Peer| {
        let presented = Presented { headers: &headers, peer: Some(peer), told: None, recent: None };
        guard.check(&Method::GET, "/", presented, now).is_ok()
    };
    let none = || std::iter::empty();
    let common = Peer::try_new(none(), none(), Some("web.shop"), &[]).expect("a peer");
    let dns = Peer::try_new(none(), ["web.shop"].into_iter(), None, &[]).expect("a peer");
    assert_eq!((call(&common), call(&dns), call(&common)), (false, true, false));
}
