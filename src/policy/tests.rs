//! The order in which policies are applied, and that a refusal by one gives back what the earlier
//! ones granted.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use http::HeaderMap;
use proptest::prelude::*;

use super::order::OfCaller;
use super::rate_limit::{Heard, Requester};
use super::*;
use crate::policy::breaker::{Breaker, State, Verdict};
use crate::policy::bulkhead::Bulkhead;
use crate::policy::dry_run::DryRun;
use crate::policy::rate_limit::Limiter;
use crate::time::Moment;

const SECOND: Duration = Duration::from_secs(1);

/// A route with every policy: a bulkhead of `slots`, a limit of `requests` a minute, and circuits
/// that open after one failure, for a second.
fn route(requests: u32, slots: u32) -> Policies {
    let breaker = || {
        let config = serde_yaml::from_str("{consecutive: {failures: 1}, open_for: 1s}");
        Some(Arc::new(Breaker::new(config.expect("valid"), Moment::ZERO)))
    };
    let limit = format!("{{fixed_window: {{requests: {requests}, per: 1m}}}}");
    let limit = serde_yaml::from_str(&limit).expect("valid");
    let bulkhead = serde_yaml::from_str(&format!("{{max_in_flight: {slots}}}")).expect("valid");
    Policies {
        rate_limits: vec![Arc::new(Limiter::new(limit))],
        route_breaker: breaker(),
        upstream_breaker: breaker(),
        bulkhead: Some(Arc::new(Bulkhead::new(&bulkhead))),
        ..Policies::default()
    }
}

fn ask(policies: &Policies, now: Moment) -> Result<Admission, &'static str> {
    ask_as(policies, Ok(None), now)
}

/// Asks the policies as the request path does, without the waiting.
fn ask_as(
    policies: &Policies,
    identity: Result<Option<&auth::Identity>, auth::Refusal>,
    now: Moment,
) -> Result<Admission, &'static str> {
    let walk = || {
        let (address, headers) = (IpAddr::V4(Ipv4Addr::LOCALHOST), HeaderMap::new());
        let (mut known, mut admission) = (None, Admission::default());
        let mut dry_run = DryRun::default();
        for step in order::CALLER {
            match step {
                OfCaller::Credentials => {
                    known = identity.clone().map_err(Rejection::Credentials)?;
                }
                OfCaller::RateLimits => {
                    let requester = Requester::new(known, address, &headers);
                    let (heard, mut standing) = (Heard::Nothing, None);
                    order::count(policies, &requester, &heard, &mut standing, &mut dry_run, now)?;
                }
                _ => {}
            }
        }
        for step in order::CALL {
            step.take(policies, &mut admission, &mut dry_run, now)?;
        }
        Ok(admission)
    };
    walk().map_err(|rejection: Rejection| rejection.code())
}

fn breakers(policies: &Policies) -> [&Arc<Breaker>; 2] {
    [&policies.route_breaker, &policies.upstream_breaker].map(|b| b.as_ref().expect("there"))
}

fn trip(breaker: &Arc<Breaker>, now: Moment) {
    breaker.acquire(now).expect("closed").record(Verdict::Failure, now);
}

fn taken(policies: &Policies, now: Moment) -> [u32; 3] {
    let probes = breakers(policies).map(|breaker| match breaker.state(now) {
        State::HalfOpen { in_flight, .. } => in_flight,
        _ => 0,
    });
    [probes[0], probes[1], policies.bulkhead.as_ref().map_or(0, |bulkhead| bulkhead.in_flight())]
}

#[test]
fn what_is_admitted_holds_one_of_each_and_gives_all_back() {
    let policies = route(10, 1);
    breakers(&policies).into_iter().for_each(|breaker| trip(breaker, Moment::ZERO));
    let now = Moment::ZERO + SECOND;
    let admission = ask(&policies, now).expect("admitted as a probe");
    assert_eq!(taken(&policies, now), [1, 1, 1]);
    drop(admission);
    assert_eq!(taken(&policies, now), [0, 0, 0]);
}

#[test]
fn every_step_has_its_place_once_and_a_name_of_its_own() {
    let names = order::CALLER.map(OfCaller::name).into_iter();
    let names: Vec<_> = names.chain(order::CALL.map(order::OfCall::name)).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
}

#[test]
fn the_first_that_refuses_answers_though_all_would() {
    // The limit is used up, both circuits are open, and no slot is free. Then these obstacles are
    // removed one by one.
    let mut policies = route(1, 1);
    let now = Moment::ZERO;
    let _only = ask(&policies, now).expect("admitted");
    breakers(&policies).into_iter().for_each(|breaker| trip(breaker, now));
    let nobody = Err(auth::Refusal::Unauthenticated(auth::Denial::Missing));
    assert_eq!(ask_as(&policies, nobody, now).err(), Some("credentials_missing"));
    assert_eq!(ask(&policies, now).err(), Some("rate_limited"));
    policies.rate_limits.clear();
    assert_eq!(ask(&policies, now).err(), Some("circuit_open"));
    policies.route_breaker = None;
    assert_eq!(ask(&policies, now).err(), Some("circuit_open"), "the upstream's");
    policies.upstream_breaker = None;
    assert_eq!(ask(&policies, now).err(), Some("bulkhead_full"));
    policies.bulkhead = None;
    assert!(ask(&policies, now).is_ok());
}

#[test]
fn sixteen_threads_hold_no_more_than_there_is_and_leave_nothing() {
    let policies = route(1_000_000, 3);
    breakers(&policies).into_iter().for_each(|breaker| trip(breaker, Moment::ZERO));
    thread::scope(|scope| {
        for seed in 0..16 {
            let policies = &policies;
            scope.spawn(move || {
                let mut chance = fastrand::Rng::with_seed(seed);
                for step in 0..2000 {
                    let now = Moment::from_nanos(step * 1_000_000);
                    let Ok(admission) = ask(policies, now) else { continue };
                    let permits = [admission.route_permit, admission.upstream_permit];
                    for permit in permits.into_iter().flatten() {
                        match chance.u8(0..3) {
                            0 => permit.record(Verdict::Failure, now),
                            1 => permit.record(Verdict::Success, now),
                            _ => drop(permit),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(taken(&policies, Moment::ZERO + SECOND * 2), [0, 0, 0]);
}

proptest! {
    /// Compares with a model that lists the requests inside and checks each policy on its own.
    #[test]
    fn it_admits_what_all_of_its_policies_admit(
        requests in 1..40_u32, slots in 1..4_u32,
        steps in prop::collection::vec((0..8_u8, 0..6_usize), 1..150),
    ) {
        let policies = route(requests, slots);
        let mut inside: Vec<Admission> = vec![];
        let (mut now, mut asked) = (Moment::ZERO, 0);
        for (step, nth) in steps {
            match step {
                0 if !inside.is_empty() => drop(inside.swap_remove(nth % inside.len())),
                // Not while a probe is in flight: as time passes, its place would go to another.
                1 if taken(&policies, now)[..2] == [0, 0] => now = now + SECOND / 2,
                1 => {}
                2 | 3 => {
                    let breaker = breakers(&policies)[usize::from(step == 3)];
                    if matches!(breaker.state(now), State::Closed { .. }) { trip(breaker, now) }
                }
                _ => {
                    let free = |breaker: &Arc<Breaker>| match breaker.state(now) {
                        State::Closed { .. } => true,
                        State::HalfOpen { in_flight, .. } => in_flight == 0,
                        _ => false,
                    };
                    let circuits = breakers(&policies).into_iter().all(free);
                    let expected = if asked >= requests {
                        Err("rate_limited")
                    } else if !circuits {
                        Err("circuit_open")
                    } else if inside.len() >= slots as usize {
                        Err("bulkhead_full")
                    } else {
                        Ok(())
                    };
                    asked += u32::from(asked < requests);
                    let before = taken(&policies, now);
                    let admission = ask(&policies, now);
                    let answer = admission.as_ref().map(drop).map_err(|code| *code);
                    prop_assert_eq!(answer, expected);
                    if expected.is_err() {
                        prop_assert_eq!(taken(&policies, now), before, "nothing is kept");
                    }
                    inside.extend(admission);
                }
            }
            prop_assert_eq!(taken(&policies, now)[2] as usize, inside.len());
        }
    }
}
