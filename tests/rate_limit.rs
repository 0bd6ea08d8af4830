//! How many requests a consumer gets through, and what the others are told.

use std::time::Duration;

use crate::support::{Call, Gateway, Plan, Upstream, at_once, pass};

const KEYS: &str = "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789, umbra: umbra-key-0123456789}}}}";

fn limited(upstream: &Upstream, limit: &str) -> Gateway {
    Gateway::route(upstream, &format!("rate_limit: {limit}"))
}

#[test]
fn exactly_as_many_requests_as_allowed_reach_the_upstream() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 20, per: 1m}}");
    let admitted: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    (0..10).filter(|_| client.call(&"GET /".into()).status == 200).count()
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).sum()
    });
    assert_eq!((admitted, upstream.count()), (20, 20));
}

#[test]
fn a_refusal_says_when_the_window_ends_in_whole_seconds() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 30s}}");
    assert_eq!(gateway.get("/").status, 200);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!((29..=30).contains(&refused.retry_after()), "{}", refused.retry_after());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn who_waits_as_told_is_admitted() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 1s}}");
    assert_eq!(gateway.get("/").status, 200);
    let refused = gateway.get("/");
    pass(Duration::from_secs(refused.retry_after()));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn every_consumer_has_its_own_count() {
    let upstream = Upstream::start();
    let route = "auth: {require: partners}\nrate_limit: {fixed_window: {requests: 2, per: 1m}, key: consumer}";
    let gateway = Plan::route(route).section(KEYS).upstream(&upstream).start();
    let call = |key: &str| gateway.call(Call::new("GET /").header("X-Api-Key", key)).status;
    let acme: Vec<_> = (0..3).map(|_| call("acme-key-0123456789")).collect();
    let umbra: Vec<_> = (0..3).map(|_| call("umbra-key-0123456789")).collect();
    assert_eq!((acme, umbra), (vec![200, 200, 429], vec![200, 200, 429]));
}

#[test]
fn a_refused_credential_costs_no_consumer_anything() {
    let upstream = Upstream::start();
    let route = "auth: {require: partners}\nrate_limit: {fixed_window: {requests: 1, per: 1m}, key: consumer}";
    let gateway = Plan::route(route).section(KEYS).upstream(&upstream).start();
    let call = |key: &str| gateway.call(Call::new("GET /").header("X-Api-Key", key)).status;
    assert_eq!([call("wrong"), call("wrong"), call("acme-key-0123456789")], [401, 401, 200]);
}

#[test]
fn every_client_address_has_its_own_count() {
    let upstream = Upstream::start();
    let route = "rate_limit: {fixed_window: {requests: 1, per: 1m}, key: client_address}";
    let trusted = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let gateway = Plan::route(route).section(trusted).upstream(&upstream).start();
    let call =
        |address: &str| gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status;
    assert_eq!([call("192.0.2.1"), call("192.0.2.1"), call("192.0.2.2")], [200, 429, 200]);
}

#[test]
fn a_made_up_address_escapes_no_limit() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 1m}, key: client_address}");
    let call =
        |address: &str| gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status;
    assert_eq!([call("192.0.2.1"), call("192.0.2.2")], [200, 429]);
}

#[test]
fn a_request_may_take_several_units_of_every_kind_of_limit() {
    for limit in [
        "{fixed_window: {requests: 10, per: 1m}, cost: 4}",
        "{sliding_window: {requests: 10, per: 1h}, cost: 4}",
        "{token_bucket: {rate: 1, per: 1h, burst: 10}, cost: 4}",
    ] {
        let upstream = Upstream::start();
        let gateway = limited(&upstream, limit);
        let statuses = [(); 3].map(|()| gateway.get("/").status);
        assert_eq!((statuses, upstream.count()), ([200, 200, 429], 2), "{limit}");
        let refused = gateway.get("/");
        assert_eq!(refused.header("X-RateLimit-Limit"), Some("2"), "{limit}");
    }
}

#[test]
fn a_cost_that_no_request_could_pay_is_refused() {
    let (code, log) =
        Plan::route("rate_limit: {fixed_window: {requests: 3, per: 1m}, cost: 4}").fails();
    assert_eq!(code, Some(1));
    assert!(log.contains("routes.all.rate_limit") && log.contains("cost"), "{log}");
}

#[test]
fn every_route_counts_for_itself() {
    let upstream = Upstream::start();
    let yaml = "
routes:
  a: {match: {path: /a}, upstream: service, rate_limit: {fixed_window: {requests: 1, per: 1m}}}
  b: {match: {path: /b}, upstream: service, rate_limit: {fixed_window: {requests: 1, per: 1m}}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let statuses = ["/a", "/a", "/b", "/b"].map(|path| gateway.get(path).status);
    assert_eq!(statuses, [200, 429, 200, 429]);
}

mod several {
    use super::*;

    const TWO: &str = "[{fixed_window: {requests: 2, per: 1m}}, {fixed_window: {requests: 3, per: 1h}, key: route}]";

    fn from(gateway: &Gateway, address: &str) -> u16 {
        gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status
    }

    fn trusting(upstream: &Upstream, limits: &str) -> Gateway {
        Plan::route(&format!("rate_limit: {limits}"))
            .section("client_address: {trusted_proxies: [127.0.0.0/8]}")
            .upstream(upstream)
            .start()
    }

    #[test]
    fn a_request_must_be_within_all_limits() {
        let upstream = Upstream::start();
        let gateway = trusting(&upstream, TWO);
        let statuses = ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"];
        let statuses = statuses.map(|address| from(&gateway, address));
        assert_eq!(statuses, [200, 200, 429, 200, 429]);
        assert_eq!(upstream.count(), 3);
    }

    #[test]
    fn refusals_are_counted_for_the_limit_that_refused() {
        let upstream = Upstream::start();
        let gateway = trusting(&upstream, TWO);
        (0..4).for_each(|_| _ = from(&gateway, "192.0.2.1"));
        let refused = |limit| {
            let labels = [("route", "all"), ("limit", limit)];
            gateway.metric("portcullis_rate_limit_refused_total", &labels)
        };
        assert_eq!([refused("all-1"), refused("all-2")], [2.0, 0.0]);
    }

    #[test]
    fn a_reload_keeps_the_count_of_every_limit_that_stays() {
        let upstream = Upstream::start();
        let limit = |requests| format!("{{fixed_window: {{requests: {requests}, per: 1m}}}}");
        let gateway = limited(&upstream, &format!("[{}, {}]", limit(2), limit(9)));
        gateway.get("/");
        let after = format!("rate_limit: [{}, {}]", limit(8), limit(2));
        assert!(gateway.reload_route(&after));
        assert_eq!([gateway.get("/").status, gateway.get("/").status], [200, 429]);
    }

    #[test]
    fn a_mistake_in_a_list_is_found_at_its_place() {
        let route = "rate_limit:\n  - {fixed_window: {requests: 1, per: 1m}}\n  - {fixed_window: {requests: 0, per: 1m}}";
        let (code, log) = Plan::route(&route.replace('\n', "\n  ")).fails();
        assert_eq!(code, Some(1));
        assert!(log.contains("routes.all.rate_limit[1].fixed_window.requests"), "{log}");
    }
}

mod headers {
    use super::*;
    use crate::support::Response;

    fn telling(upstream: &Upstream, headers: &str, limits: &str) -> Gateway {
        Plan::route(&format!("rate_limit: {limits}\n"))
            .section(&format!("rate_limit_headers: {headers}"))
            .upstream(upstream)
            .start()
    }

    fn number(response: &Response, name: &str) -> u64 {
        response.header(name).and_then(|value| value.parse().ok()).expect(name)
    }

    fn told(response: &Response) -> [bool; 3] {
        ["X-RateLimit-Limit", "RateLimit-Policy", "RateLimit"]
            .map(|name| response.header(name).is_some())
    }

    #[test]
    fn only_refusals_say_where_a_client_stands_unless_told_otherwise() {
        let upstream = Upstream::start();
        let gateway = limited(&upstream, "{fixed_window: {requests: 1, per: 1m}}");
        assert_eq!(told(&gateway.get("/")), [false, false, false]);
        assert_eq!(told(&gateway.get("/")), [true, false, false]);
    }

    #[test]
    fn every_answer_of_a_limited_route_counts_down() {
        let upstream = Upstream::script([200, 503]);
        let gateway = telling(&upstream, "{on: always}", "{fixed_window: {requests: 2, per: 1m}}");
        let answers = [gateway.get("/"), gateway.get("/"), gateway.get("/")];
        assert_eq!(answers.each_ref().map(|a| a.status), [200, 503, 429]);
        let remaining = answers.each_ref().map(|a| number(a, "X-RateLimit-Remaining"));
        assert_eq!(remaining, [1, 0, 0]);
        assert!(answers.iter().all(|a| number(a, "X-RateLimit-Limit") == 2));
        // A window's end is rounded up to the millisecond, and then to the second.
        assert!(answers.iter().all(|a| (55..=61).contains(&number(a, "X-RateLimit-Reset"))));
    }

    #[test]
    fn the_refusal_of_a_later_policy_says_it_too() {
        let upstream = Upstream::always(503);
        let policies = "rate_limit: {fixed_window: {requests: 9, per: 1m}}\ncircuit_breaker: {consecutive: {failures: 1}}";
        let headers = "rate_limit_headers: {on: always}";
        let gateway = Plan::route(policies).section(headers).upstream(&upstream).start();
        gateway.get("/");
        let refused = gateway.get("/");
        assert_eq!(refused.code(), "circuit_open");
        assert_eq!(number(&refused, "X-RateLimit-Remaining"), 7);
    }

    #[test]
    fn the_ietf_fields_name_every_limit_and_where_the_strictest_stands() {
        let upstream = Upstream::start();
        let limits = "[{fixed_window: {requests: 5, per: 1h}}, {token_bucket: {rate: 1, per: 1m, burst: 2}}]";
        let gateway = telling(&upstream, "{on: always, x_ratelimit: false, ietf: true}", limits);
        let first = gateway.get("/");
        assert_eq!(told(&first), [false, true, true]);
        let policy = "\"all-1\";q=5;w=3600, \"all-2\";q=2;w=120";
        assert_eq!(first.header("RateLimit-Policy"), Some(policy));
        assert_eq!(first.header("RateLimit"), Some("\"all-2\";r=1;t=60"));
        gateway.get("/");
        let refused = gateway.get("/");
        let told = format!("\"all-2\";r=0;t={}", refused.retry_after());
        assert_eq!((refused.status, refused.header("RateLimit")), (429, Some(told.as_str())));
    }

    #[test]
    fn an_upstreams_own_count_is_not_taken_for_ours() {
        let upstream =
            Upstream::always(crate::support::Answer::ok().header("X-RateLimit-Remaining", "999"));
        let gateway = telling(&upstream, "{on: always}", "{fixed_window: {requests: 2, per: 1m}}");
        assert_eq!(number(&gateway.get("/"), "X-RateLimit-Remaining"), 1);
    }

    #[test]
    fn who_waits_for_the_reset_when_none_remain_is_never_refused() {
        let upstream = Upstream::start();
        let limits = [
            "{fixed_window: {requests: 2, per: 700ms}}",
            "{sliding_window: {requests: 2, per: 400ms}}",
            "{token_bucket: {rate: 4, burst: 2}}",
        ];
        at_once(limits, |limit| {
            let gateway = telling(&upstream, "{on: always}", limit);
            for _ in 0..5 {
                let answer = gateway.get("/");
                assert_eq!(answer.status, 200, "{limit}");
                if number(&answer, "X-RateLimit-Remaining") == 0 {
                    pass(Duration::from_secs(number(&answer, "X-RateLimit-Reset")));
                }
            }
        });
    }
}
