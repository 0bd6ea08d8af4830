//! What the gateway shows of the source of its upstream `service`.

use serde_json::Value;

use super::gateway::Gateway;
use super::upstream::Upstream;
use super::wait::eventually;

/// Waits until these are the endpoints, and no others.
#[track_caller]
pub fn wait_for_endpoints(gateway: &Gateway, expected: &[&Upstream]) {
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all
    };
    let expected = sorted(expected.iter().map(|up| up.address().to_string()).collect());
    eventually("these endpoints", || {
        let status = gateway.status();
        let all = status["upstreams"]["service"]["endpoints"].as_array().expect("a list").clone();
        let all = all.iter().map(|one| one["address"].as_str().expect("an address").to_owned());
        (sorted(all.collect()) == expected).then_some(())
    });
}

/// What is known of the source.
#[track_caller]
pub fn source(gateway: &Gateway) -> Value {
    gateway.status()["upstreams"]["service"]["discovery"].clone()
}

/// Waits until the source's failure is shown in these words, and sees that requests are served all the same.
#[track_caller]
pub fn wait_for_error(gateway: &Gateway, says: &str) {
    eventually(&format!("the failure is shown: {says}\n{}", gateway.log()), || {
        source(gateway)["error"].as_str().filter(|error| error.contains(says)).map(drop)
    });
    assert_eq!(gateway.get("/").status, 200, "{says}");
}

#[track_caller]
pub fn wait_for_recovery(gateway: &Gateway) {
    eventually("the source answers again", || source(gateway)["error"].is_null().then_some(()));
}

/// Waits until the source has been away for longer than its `empty_after`, 2 s, which is for sources that
/// say that there is nothing; requests are served all the same.
#[track_caller]
pub fn outlast(gateway: &Gateway) {
    eventually("it has been away for a while", || {
        let labels = [("upstream", "service")];
        (gateway.metric("portcullis_upstream_unresolved_seconds", &labels) >= 4.0).then_some(())
    });
    assert_eq!(gateway.get("/").status, 200, "the source is away, not the endpoints");
    assert!(!gateway.log().contains("giving up"), "{}", gateway.log());
}
