//! A dry run and its twin, which enforces, get the same traffic: request by request, one counts what
//! the other refuses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::policy::breaker::{Breaker, Count};
use crate::policy::bulkhead::{Bulkhead, Config};
use crate::policy::order::{self, Again};
use crate::policy::outcome::Outcome;
use crate::policy::rate_limit::{Heard, Limiter, Requester};
use crate::policy::{Admission, Policies};
use crate::time::Moment;

const LIMITS: [&str; 3] = [
    "fixed_window: {requests: 4, per: 1s}, key: client_address",
    "token_bucket: {rate: 20, burst: 6}, key: route",
    "sliding_window: {requests: 8, per: 500ms}, key: client_address, cost: 2",
];
const BREAKERS: [&str; 4] = [
    "consecutive: {failures: 2}, open_for: 300ms, half_open_calls: 2",
    "window: {calls: 4, minimum_calls: 2, failure_rate: 50%}, open_for: 200ms, count: requests",
    "consecutive: {failures: 2, reset_every: 400ms}, open_for: 100ms, count: requests",
    "window: {calls: 3, minimum_calls: 3, failure_rate: 60%}, open_for: 400ms, max_half_open: 1s",
];
const BULKHEADS: [&str; 2] = ["max_in_flight: 3", "adaptive: {min: 1, max: 6, initial: 2}"];

/// Which of the policies above a route has.
#[derive(Debug, Clone)]
struct Choice {
    limits: Vec<usize>,
    route_breaker: Option<usize>,
    upstream_breaker: Option<usize>,
    bulkhead: Option<usize>,
}

#[derive(Debug, Clone)]
enum Event {
    /// A request of a client. `refused` is what a step before the limits says to it: authentication,
    /// the size of its body, the flood guard.
    Arrives { client: u8, refused: Option<&'static str> },
    /// One of the requests in flight is answered; it may be tried again.
    Answered { nth: usize, outcome: Outcome, retry: bool },
    /// The client of one of them leaves.
    Left { nth: usize },
    /// The body of one of them is too large after all.
    TooLarge { nth: usize },
}

struct Gateway {
    policies: Policies,
    enforce: Enforce,
    /// By the order of their arrival; `None` once a request has ended.
    requests: Vec<Option<Request>>,
    /// The code with which each was refused, or would have been.
    told: Vec<Option<&'static str>>,
}

#[derive(Default)]
struct Request {
    admission: Admission,
    dry_run: DryRun,
}

impl Gateway {
    fn new(choice: &Choice, enforce: Enforce) -> Self {
        let of = |text: &str| format!("{{{text}, enforce: {}}}", !enforce.is_dry());
        let breaker = |nth: usize| {
            let config = serde_yaml::from_str(&of(BREAKERS[nth])).expect("valid");
            Arc::new(Breaker::new(config, Moment::ZERO))
        };
        let limiter = |nth: &usize| {
            let config = serde_yaml::from_str(&of(LIMITS[*nth])).expect("valid");
            Arc::new(Limiter::new(config))
        };
        let bulkhead = |nth: usize| -> Arc<Bulkhead> {
            let config: Config = serde_yaml::from_str(&of(BULKHEADS[nth])).expect("valid");
            Arc::new(Bulkhead::new(&config))
        };
        let policies = Policies {
            rate_limits: choice.limits.iter().map(limiter).collect(),
            route_breaker: choice.route_breaker.map(breaker),
            upstream_breaker: choice.upstream_breaker.map(breaker),
            bulkhead: choice.bulkhead.map(bulkhead),
            bulkhead_enforce: enforce,
            ..Policies::default()
        };
        Gateway { policies, enforce, requests: Vec::new(), told: Vec::new() }
    }

    fn arrives(&mut self, client: u8, refused: Option<&'static str>, now: Moment) {
        let mut request = Request::default();
        let admitted = self.admit(&mut request, client, refused, now);
        self.told.push(admitted.err().or(request.dry_run.would_refuse()));
        self.requests.push(admitted.is_ok().then_some(request));
    }

    fn admit(
        &self,
        request: &mut Request,
        client: u8,
        refused: Option<&'static str>,
        now: Moment,
    ) -> Result<(), &'static str> {
        match (refused, self.enforce) {
            (Some(code), Enforce::Yes) => return Err(code),
            (Some(code), Enforce::No) => _ = request.dry_run.refuse(code),
            (None, _) => {}
        }
        let headers = HeaderMap::new();
        let requester =
            Requester::new(None, IpAddr::V4(Ipv4Addr::new(192, 0, 2, client)), &headers);
        let Request { admission, dry_run } = request;
        let mut standing = None;
        order::count(&self.policies, &requester, &Heard::Nothing, &mut standing, dry_run, now)
            .map_err(|refused| refused.code())?;
        // Clients are not told of dry limits.
        let is_told = self.enforce == Enforce::Yes && !self.policies.rate_limits.is_empty();
        assert_eq!(standing.is_some(), is_told);
        order::CALL.into_iter().try_for_each(|step| {
            let taken = step.take(&self.policies, admission, dry_run, now);
            taken.map_err(|refused| refused.code())
        })
    }

    /// As `proxy::attempt` does.
    fn answered(&mut self, id: usize, outcome: Outcome, retry: bool, now: Moment) {
        let Some(mut request) = self.requests[id].take() else { return };
        let Request { admission, dry_run } = &mut request;
        let policies = &self.policies;
        record(policies, admission, Count::Attempts, outcome, |_| true, now);
        if retry {
            match order::again(policies, admission, dry_run, now) {
                Again::Granted => return self.requests[id] = Some(request),
                Again::GrantedDry => {
                    let is_dry = |breaker: &Breaker| breaker.enforce().is_dry();
                    record(policies, admission, Count::Requests, outcome, is_dry, now);
                    if let Some(slot) = admission.slot.take() {
                        slot.release(now);
                    }
                    admission.give_back_dry(policies.breakers(), policies.bulkhead_enforce);
                    return self.requests[id] = Some(request);
                }
                Again::Refused => {}
            }
        }
        record(policies, admission, Count::Requests, outcome, |_| true, now);
        if let Some(slot) = admission.slot.take() {
            slot.release(now);
        }
    }

    fn left(&mut self, id: usize) {
        self.requests[id] = None;
    }

    fn too_large(&mut self, id: usize) {
        let Some(request) = &mut self.requests[id] else { return };
        match self.enforce {
            Enforce::Yes => {
                self.told[id] = Some("body_too_large");
                self.requests[id] = None;
            }
            Enforce::No => {
                if request.dry_run.refuse("body_too_large") {
                    let policies = &self.policies;
                    let enforce = policies.bulkhead_enforce;
                    request.admission.give_back_dry(policies.breakers(), enforce);
                }
                self.told[id] = request.dry_run.would_refuse();
            }
        }
    }

    fn state(&self, now: Moment) -> impl PartialEq + std::fmt::Debug + use<> {
        let circuits = self.policies.breakers().map(|breaker| breaker.map(|b| b.state(now)));
        let bulkhead = self.policies.bulkhead.as_ref();
        (circuits, bulkhead.map(|bulkhead| (bulkhead.in_flight(), bulkhead.capacity())))
    }
}

fn record(
    policies: &Policies,
    admission: &mut Admission,
    count: Count,
    outcome: Outcome,
    concerns: impl Fn(&Breaker) -> bool,
    now: Moment,
) {
    let permits = [&mut admission.route_permit, &mut admission.upstream_permit];
    for (permit, breaker) in permits.into_iter().zip(policies.breakers()) {
        let Some(breaker) = breaker.filter(|b| b.config().count == count && concerns(b)) else {
            continue;
        };
        if let Some(permit) = permit.take() {
            permit.record(breaker.config().judge(outcome), now);
        }
    }
}

fn choices() -> impl Strategy<Value = Choice> {
    let limits = prop::collection::vec(0..LIMITS.len(), 0..3);
    let breaker = || prop::option::of(0..BREAKERS.len());
    (limits, breaker(), breaker(), prop::option::of(0..BULKHEADS.len())).prop_map(
        |(limits, route_breaker, upstream_breaker, bulkhead)| Choice {
            limits,
            route_breaker,
            upstream_breaker,
            bulkhead,
        },
    )
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let refused = prop_oneof![
        9 => Just(None),
        1 => Just(Some("credentials_missing")),
    ];
    let outcome = prop_oneof![
        3 => Just(Outcome::Response(200)),
        3 => Just(Outcome::Response(503)),
        1 => Just(Outcome::ConnectFailure),
        1 => Just(Outcome::Response(429)),
    ];
    let nth = 0..8_usize;
    let event = prop_oneof![
        6 => (0..3_u8, refused).prop_map(|(client, refused)| Event::Arrives { client, refused }),
        6 => (nth.clone(), outcome, any::<bool>())
            .prop_map(|(nth, outcome, retry)| Event::Answered { nth, outcome, retry }),
        1 => nth.clone().prop_map(|nth| Event::Left { nth }),
        1 => nth.prop_map(|nth| Event::TooLarge { nth }),
    ];
    prop::collection::vec((0..120_u64, event), 1..150)
}

#[test]
fn a_dry_run_counts_exactly_what_its_enforcing_twin_refuses() {
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let outcome = TestRunner::default().run(&(choices(), events()), |(choice, events)| {
        let mut twin = Gateway::new(&choice, Enforce::Yes);
        let mut dry = Gateway::new(&choice, Enforce::No);
        let mut now = Moment::ZERO;
        for (millis, event) in events {
            now = now + Duration::from_millis(millis);
            // Those of the dry run: the twin has fewer.
            let in_flight: Vec<usize> =
                (0..dry.requests.len()).filter(|id| dry.requests[*id].is_some()).collect();
            let pick = |nth: usize| in_flight.get(nth % in_flight.len().max(1)).copied();
            for gateway in [&mut twin, &mut dry] {
                match event {
                    Event::Arrives { client, refused } => gateway.arrives(client, refused, now),
                    Event::Answered { nth, outcome, retry } => {
                        if let Some(id) = pick(nth) {
                            gateway.answered(id, outcome, retry, now);
                        }
                    }
                    Event::Left { nth } => pick(nth).into_iter().for_each(|id| gateway.left(id)),
                    Event::TooLarge { nth } => {
                        pick(nth).into_iter().for_each(|id| gateway.too_large(id));
                    }
                }
            }
            prop_assert_eq!(&dry.told, &twin.told);
            prop_assert_eq!(dry.state(now), twin.state(now));
        }
        let mut seen = seen.borrow_mut();
        twin.told.into_iter().flatten().for_each(|code| *seen.entry(code).or_default() += 1);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    for code in
        ["credentials_missing", "rate_limited", "circuit_open", "bulkhead_full", "body_too_large"]
    {
        assert!(seen.get(code).is_some_and(|count| *count > 20), "{code} is too rare: {seen:?}");
    }
}

#[test]
fn an_enforced_limit_counts_what_a_dry_one_beside_it_lets_pass() {
    let limiter = |text: &str| {
        Arc::new(Limiter::new(serde_yaml::from_str(&format!("{{{text}}}")).expect("valid")))
    };
    for dry_first in [false, true] {
        let mut limits = vec![
            limiter("fixed_window: {requests: 3, per: 1m}"),
            limiter("fixed_window: {requests: 1, per: 1m}, enforce: false"),
        ];
        if dry_first {
            limits.reverse();
        }
        let policies = Policies { rate_limits: limits, ..Policies::default() };
        let headers = HeaderMap::new();
        let requester = Requester::new(None, IpAddr::V4(Ipv4Addr::LOCALHOST), &headers);
        let told = [(); 5].map(|()| {
            let (mut dry_run, mut standing) = (DryRun::default(), None);
            let (heard, now) = (Heard::Nothing, Moment::ZERO);
            let counted =
                order::count(&policies, &requester, &heard, &mut standing, &mut dry_run, now);
            let standing = standing.expect("there is an enforced limit");
            assert_eq!(standing.limit, usize::from(dry_first));
            (counted.err().map(|refused| refused.code()), dry_run.would_refuse())
        });
        let (passes, over, refused) =
            ((None, None), (None, Some("rate_limited")), (Some("rate_limited"), None));
        assert_eq!(told, [passes, over, over, refused, refused], "{dry_first}");
    }
}
