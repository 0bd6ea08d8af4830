//! What each step of [`order`] would ask of a route's requests, in words.
//!
//! The matches are exhaustive: a step that is added does not compile until it says here what it
//! does. `routes` prints it for all routes; whatever explains a single request walks the same lists.

use ipnet::IpNet;

use super::load::KeyPath;
use super::max_body::MaxBody;
use super::{Config, Route};
use crate::policy::dry_run::Enforce;
use crate::policy::order::{self, OfCall, OfCaller};
use crate::policy::retry::BudgetName;
use crate::policy::split::Destination;
use crate::policy::{auth, breaker, bulkhead, idempotency, rate_limit, retry};
use crate::units::{Percent, Timespan};
use crate::upstream::config::Place;

/// What one step asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The step's name.
    pub step: &'static str,
    /// What it asks, in short: `100/1m by consumer`. At least one.
    pub values: Vec<String>,
    /// The path of the key that decides: `routes.users.rate_limit`. It may be absent from the file.
    /// `None` if no key does.
    pub key: Option<KeyPath>,
    /// Whether the operator chose it: it is not what every route asks by default.
    pub chosen: bool,
}

/// What the steps ask of a request to the route, in the order in which it is asked. A step that
/// asks nothing is left out.
pub fn of_route(config: &Config, name: &str, route: &Route) -> Vec<Asked> {
    let caller = order::CALLER.into_iter().filter_map(|step| of_caller(step, config, name, route));
    let call = order::CALL.into_iter().filter_map(|step| of_call(step, config, name, route));
    caller.chain(call).collect()
}

/// What a step asks of the caller; `None`: nothing.
pub fn of_caller(step: OfCaller, config: &Config, name: &str, route: &Route) -> Option<Asked> {
    let key = |key: &str| Some(KeyPath::root().key("routes").key(name).key(key));
    let (values, key, chosen) = match step {
        OfCaller::Networks => {
            let networks = route.networks.as_deref()?;
            let list = |label: &str, networks: &[IpNet]| {
                let names: Vec<_> = networks.iter().map(IpNet::to_string).collect();
                (!names.is_empty()).then(|| format!("{label} {}", names.join(", ")))
            };
            let values = [list("deny", &networks.deny), list("allow", &networks.allow)];
            let values = values.into_iter().flatten().collect();
            (enforced(values, networks.enforce), key("networks"), true)
        }
        OfCaller::FloodGuard => {
            let guard = config.flood_guard.as_ref()?;
            let values = vec![format!("{}/{} by address", guard.requests, guard.per)];
            let values = enforced(values, guard.enforce);
            (values, Some(KeyPath::root().key("flood_guard")), true)
        }
        OfCaller::Form => (vec!["a head that is valid in its protocol".to_owned()], None, false),
        OfCaller::BodySize if route.max_body.size.0 == 0 => return None,
        OfCaller::BodySize => {
            let MaxBody { size, enforce } = route.max_body;
            let values = enforced(vec![format!("at most {}", size.written())], enforce);
            (values, key("max_body"), route.max_body != MaxBody::default())
        }
        OfCaller::Credentials => {
            let auth = route.auth.as_ref()?;
            let list = |label: &str, words: Vec<&str>| {
                (!words.is_empty()).then(|| format!("{label}{}", words.join(", ")))
            };
            let values = [
                list("", auth.require.iter().collect()),
                list("scopes ", auth.scopes.iter().map(|scope| scope.as_str()).collect()),
                list("role ", auth.role.iter().map(String::as_str).collect()),
                permits(&auth.permit),
                list("not for ", auth.anonymous.iter().map(|path| path.as_str()).collect()),
            ];
            let values = values.into_iter().flatten().collect();
            (enforced(values, auth.enforce), key("auth"), true)
        }
        OfCaller::RateLimits if route.rate_limit.0.is_empty() => return None,
        OfCaller::RateLimits => {
            (route.rate_limit.0.iter().map(limit).collect(), key("rate_limit"), true)
        }
        OfCaller::IdempotencyKey => {
            (idempotency(route.idempotency.as_deref()?), key("idempotency"), true)
        }
    };
    Some(Asked { step: step.name(), values, key, chosen })
}

/// What a step asks before a call; `None`: nothing.
pub fn of_call(step: OfCall, config: &Config, name: &str, route: &Route) -> Option<Asked> {
    let key = |key: &str| Some(KeyPath::root().key("routes").key(name).key(key));
    let upstreams =
        || route.upstreams().filter_map(|name| Some((name, config.upstreams.get(name)?)));
    let is_split = matches!(route.upstream, Some(Destination::Split(_)));
    let (values, key, chosen) = match step {
        OfCall::Split => {
            route.upstream.as_ref().filter(|_| is_split)?;
            let by = route.split.as_ref().and_then(|split| split.key.as_ref());
            let by = by.map_or_else(|| "at random".to_owned(), |key| format!("by {key}"));
            (vec![by], key("upstream"), true)
        }
        OfCall::RouteCircuit => {
            let breaker = route.circuit_breaker.as_deref()?;
            (enforced(circuit(breaker), breaker.enforce), key("circuit_breaker"), true)
        }
        OfCall::UpstreamCircuit => {
            let circuits: Vec<_> = upstreams()
                .filter_map(|(name, of)| Some((name, of.circuit_breaker.as_ref()?)))
                .collect();
            let (first, of_first) = *circuits.first()?;
            // Many upstreams of one template say the same.
            let are_alike = !is_split
                && circuits.len() == upstreams().count()
                && circuits.iter().all(|(_, breaker)| *breaker == of_first);
            let told = if are_alike { &circuits[..1] } else { &circuits[..] };
            let values = told.iter().flat_map(|(name, breaker)| {
                let mut values = enforced(circuit(breaker), breaker.enforce);
                if let (false, Some(first)) = (are_alike, values.first_mut()) {
                    first.insert_str(0, &format!("{name}: "));
                }
                values
            });
            let key = named("upstreams", first).key("circuit_breaker");
            (values.collect(), Some(key), true)
        }
        OfCall::Bulkhead => {
            let bulkhead = route.bulkhead.as_ref()?;
            (enforced(slots(bulkhead), bulkhead.enforce), key("bulkhead"), true)
        }
        OfCall::Endpoint => {
            let entries = upstreams().flat_map(|(_, upstream)| &upstream.endpoints);
            let listed = entries.map(|entry| match &entry.url.place {
                Place::Host { .. } | Place::Pair(_) => entry.url.authority.clone(),
                Place::Unix(_) => entry.url.to_string(),
            });
            let sources = upstreams().filter_map(|(_, upstream)| upstream.discover.as_ref());
            let values = listed.chain(sources.map(|discover| discover.source.words()));
            let (first, _) = upstreams().next()?;
            (values.collect(), Some(named("upstreams", first).key("endpoints")), false)
        }
        OfCall::Deadline if route.timeout.request.is_zero() => return None,
        OfCall::Deadline => {
            let request = route.timeout.request;
            let chosen = request != super::route::Timeouts::default().request;
            (
                vec![format!("within {request}")],
                key("timeout").map(|key| key.key("request")),
                chosen,
            )
        }
        OfCall::RetryBudget => {
            let retry = route.retry.as_ref()?;
            match &retry.budget {
                BudgetName::Unlimited => return None,
                BudgetName::OfUpstream => {
                    let budget = self::budget(&retry::budget::Config::of_upstream());
                    let values = route.upstreams().map(|name| format!("of {name} ({budget})"));
                    (values.collect(), key("retry"), false)
                }
                BudgetName::Named(name) => {
                    let budget = config.retry_budgets.get(name)?;
                    let values = vec![format!("{name} ({})", self::budget(budget))];
                    (values, Some(named("retry_budgets", name)), true)
                }
            }
        }
        OfCall::Body => {
            let by = if route.transcode.is_some() { "transcode" } else { "json" };
            (body(route)?, key(by), true)
        }
    };
    Some(Asked { step: step.name(), values, key, chosen })
}

/// What is said of a policy that lets pass what it would refuse.
const DRY: &str = "(not enforced)";

fn enforced(mut values: Vec<String>, enforce: Enforce) -> Vec<String> {
    if enforce.is_dry() {
        values.push(DRY.to_owned());
    }
    values
}

fn named(section: &str, name: &str) -> KeyPath {
    KeyPath::root().key(section).key(name)
}

fn limit(limit: &rate_limit::Config) -> String {
    let rate_limit::Config { algorithm, key, cost, replays: _, max_keys: _, shared, enforce } =
        limit;
    let mut text = match algorithm {
        rate_limit::Algorithm::FixedWindow(window) => rate(window.requests, window.per),
        rate_limit::Algorithm::SlidingWindow(window) => {
            format!("{} sliding", rate(window.requests, window.per))
        }
        rate_limit::Algorithm::TokenBucket(bucket) => {
            format!("{} burst {}", rate(bucket.rate, bucket.per), bucket.burst)
        }
    };
    text.push_str(&format!(" by {key}"));
    if *cost > 1 {
        text.push_str(&format!(" cost {cost}"));
    }
    if let Some(shared) = shared {
        text.push_str(&format!(" in {}", shared.store));
    }
    if enforce.is_dry() {
        text.push(' ');
        text.push_str(DRY);
    }
    text
}

fn permits(permits: &[auth::Permit]) -> Option<String> {
    match permits.len() {
        0 => None,
        1 => Some("1 permit".to_owned()),
        many => Some(format!("{many} permits")),
    }
}

fn rate(requests: u32, per: Timespan) -> String {
    format!("{requests}/{per}")
}

fn idempotency(config: &idempotency::Config) -> Vec<String> {
    let methods = config.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>();
    let required = config.required.then(|| "required".to_owned());
    let kept = [methods.join(", "), format!("kept for {}", config.ttl)];
    required.into_iter().chain(kept).collect()
}

fn circuit(config: &breaker::Config) -> Vec<String> {
    let consecutive =
        config.consecutive.as_ref().map(|mode| format!("{} failures in a row", mode.failures));
    let window = config.window.as_ref().map(|window| {
        let extent = match window.extent {
            breaker::Extent::Calls(calls) => format!("{calls} calls"),
            breaker::Extent::Seconds(seconds) => format!("{seconds}s"),
        };
        let slow = window
            .slow_calls
            .map(|slow| format!(" or {} slower than {}", slow.rate, slow.longer_than));
        format!("{} failures{} of {extent}", window.failure_rate, slow.unwrap_or_default())
    });
    let open = format!("open for {}", config.open_for);
    consecutive.into_iter().chain(window).chain([open]).collect()
}

fn slots(config: &bulkhead::Config) -> Vec<String> {
    let slots = match &config.limit {
        bulkhead::Limit::Fixed(slots) => slots.to_string(),
        bulkhead::Limit::Adaptive(adaptive) => {
            format!("{} to {} by latency", adaptive.min(), adaptive.max)
        }
    };
    let queue = config.queue.as_ref();
    let queue = queue.map(|queue| format!("queue of {}, up to {}", queue.max, queue.max_wait));
    let share = config.per_consumer.as_ref();
    let share = share.map(|share| format!("{} by consumer", share.max_in_flight));
    [slots].into_iter().chain(share).chain(queue).collect()
}

fn budget(config: &retry::budget::Config) -> String {
    let share = |share: Percent, of: &str, least: u32| format!("{share} of {of}, at least {least}");
    let bound = match &config.bound {
        retry::budget::Bound::TokenBucket(bucket) => {
            format!("{} tokens, {}/s", bucket.capacity, bucket.refill_per_second)
        }
        retry::budget::Bound::Ratio(ratio) => {
            format!("{}/s", share(ratio.share, "requests", ratio.min_per_second))
        }
        retry::budget::Bound::Concurrency(active) => {
            share(active.share, "requests in flight", active.min)
        }
    };
    match config.callers {
        None => bound,
        Some(_) => format!("{bound} by consumer"),
    }
}

fn body(route: &Route) -> Option<Vec<String>> {
    let defaults = route.json.as_ref().map(|json| {
        let names: Vec<&str> = json.defaults.keys().map(String::as_str).collect();
        format!("defaults for {}", names.join(", "))
    });
    let transcode = route.transcode.as_ref().map(|transcode| {
        let what = transcode.method.as_ref().or(transcode.service.as_ref());
        format!("transcode {}", what.map_or("", String::as_str))
    });
    let values: Vec<String> = defaults.into_iter().chain(transcode).collect();
    (!values.is_empty()).then_some(values)
}
