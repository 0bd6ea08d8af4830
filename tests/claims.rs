//! Limits that count by what a token says.

use serde_json::{Value, json};

use crate::support::{Call, Gateway, Issuer, Plan, Upstream, eventually};

const AUTH: &str = "auth: {accounts: {jwt: {issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}}, partners: {api_key: {keys: {acme: acme-key-0123456789, umbra: umbra-key-0123456789}}}}";

fn limited_by(key: &str) -> String {
    format!(
        "auth: {{require: [accounts, partners]}}\nrate_limit: {{fixed_window: {{requests: 2, per: 1m}}, key: {key}}}"
    )
}

fn start(upstream: &Upstream, issuer: &Issuer, key: &str) -> Gateway {
    let plan = Plan::route(&limited_by(key)).section(AUTH).env("JWKS_URL", &issuer.url());
    let gateway = plan.upstream(upstream).start();
    eventually("the first fetch of the keys", || (issuer.fetches() > 0).then_some(()));
    gateway
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway.call(Call::new("GET /").bearer(token)).status
}

#[test]
fn who_has_one_claim_in_common_counts_together() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = start(&upstream, &issuer, "{claim: org.id}");
    let of = |user: &str, org: &str| issuer.token_with(user, json!({"org": {"id": org}}));
    let (ada, ben, cat) = (of("ada", "blue"), of("ben", "blue"), of("cat", "red"));
    let statuses = [&ada, &ben, &ada, &ben, &cat, &cat, &cat].map(|token| status(&gateway, token));
    assert_eq!(statuses, [200, 200, 429, 429, 200, 200, 429]);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn who_lacks_the_claim_counts_for_itself() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = start(&upstream, &issuer, "{claim: tenant}");
    let of = |user: &str, tenant: Value| issuer.token_with(user, json!({ "tenant": tenant }));
    // A consumer that is named like a tenant is not that tenant.
    let tenant = of("ada", json!("ben"));
    let (without, listed) = (issuer.token("ben"), of("ben", json!(["ben"])));
    let statuses = [&tenant, &tenant, &tenant, &without, &listed, &without];
    assert_eq!(statuses.map(|token| status(&gateway, token)), [200, 200, 429, 200, 200, 429]);
    let by_key = |key: &str| gateway.call(Call::new("GET /").header("X-Api-Key", key)).status;
    let acme = [(); 3].map(|()| by_key("acme-key-0123456789"));
    assert_eq!((acme, by_key("umbra-key-0123456789")), ([200, 200, 429], 200));
}

#[test]
fn a_claim_goes_together_with_other_sources() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = start(&upstream, &issuer, "[{claim: tenant}, consumer]");
    let of = |user: &str, tenant: &str| issuer.token_with(user, json!({ "tenant": tenant }));
    let (one, other, third) = (of("ada", "blue"), of("ben", "blue"), of("ada", "red"));
    let statuses = [&one, &one, &one, &other, &third].map(|token| status(&gateway, token));
    assert_eq!(statuses, [200, 200, 429, 200, 200]);
}

#[test]
fn a_reload_that_asks_for_a_claim_keeps_the_keys_and_forgets_who_was_known_without_it() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = start(&upstream, &issuer, "consumer");
    let of = |user: &str| issuer.token_with(user, json!({"tenant": "blue"}));
    let (ada, ben) = (of("ada"), of("ben"));
    assert_eq!([&ada, &ben].map(|token| status(&gateway, token)), [200, 200]);
    let by_claim = Plan::route(&limited_by("{claim: tenant}")).section(AUTH);
    assert!(gateway.reload_plan(&by_claim));
    let statuses = [&ada, &ben, &ada].map(|token| status(&gateway, token));
    assert_eq!((statuses, issuer.fetches()), ([200, 200, 429], 1));
}

#[test]
fn a_claim_without_tokens_is_refused() {
    let partners = limited_by("{claim: tenant}").replace("[accounts, partners]", "partners");
    let none = "rate_limit: {fixed_window: {requests: 2, per: 1m}, key: {claim: tenant}}";
    for route in [partners.as_str(), none] {
        let plan = Plan::route(route).section(AUTH).env("JWKS_URL", "http://127.0.0.1:9");
        let (code, log) = plan.fails();
        assert_eq!(code, Some(1));
        assert!(log.contains("routes.all.rate_limit.key: a limit counts by a claim"), "{log}");
    }
}

#[test]
fn scopes_are_understood_under_every_usual_name_and_a_chosen_name_wins() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let route = "auth: {require: accounts, scopes: [read, write]}";
    let start = |auth: &str| {
        let plan = Plan::route(route).section(auth).env("JWKS_URL", &issuer.url());
        plan.upstream(&upstream).start()
    };
    let gateway = start(AUTH);
    for name in ["scope", "scp", "scopes"] {
        for held in [json!("write read"), json!(["read", "write"])] {
            let token = issuer.token_with("ada", json!({ name: held }));
            assert_eq!(status(&gateway, &token), 200, "{name}: {held}");
        }
        let token = issuer.token_with("ada", json!({ name: ["read"] }));
        assert_eq!(status(&gateway, &token), 403, "{name}");
    }
    let chosen = AUTH.replace("issuer: auth", "scopes_claim: permissions, issuer: auth");
    let gateway = start(&chosen);
    let elsewhere = issuer.token_with("ada", json!({"scope": "read write"}));
    let here = issuer.token_with("ada", json!({"permissions": "read write"}));
    assert_eq!([&elsewhere, &here].map(|token| status(&gateway, token)), [403, 200]);
    assert_eq!(upstream.count(), 7);
}
