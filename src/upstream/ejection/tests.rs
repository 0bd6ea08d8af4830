use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

const REASON: Reason = Reason::Consecutive { failures: 5 };

/// Ejects at once. Returns for how long.
fn ejected(ejection: &Ejection, now: Moment) -> u64 {
    let (time, _) = ejection.eject(REASON, &Config::default(), now, 0.0).expect("available");
    time.as_secs()
}

fn epoch(pass: Option<Pass>) -> u64 {
    match pass {
        Some(Pass::Probe(epoch)) => epoch,
        other => panic!("no probe: {other:?}"),
    }
}

#[test]
fn the_time_doubles_with_each_probe_that_fails_up_to_the_longest() {
    let (ejection, config) = (Ejection::default(), Config::default());
    let mut now = at(0);
    let mut times = vec![ejected(&ejection, now)];
    for _ in 0..6 {
        now = now + Duration::from_secs(*times.last().expect("one"));
        let probe = epoch(ejection.probe(now));
        let time = ejection.probe_failed(probe, &config, now, 0.0).expect("probing");
        times.push(time.as_secs());
    }
    assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn the_time_comes_down_again_while_the_endpoint_behaves() {
    let ejection = Ejection::default();
    // When it is ejected, when it is readmitted, and the time in between that it is given.
    for (now, readmitted, time) in [
        (0, 9, 10),
        (10, 25, 20),
        (30, 75, 40),
        (79, 159, 80),
        (179, 189, 40),
        (10_000, 10_001, 10),
    ] {
        assert_eq!(ejected(&ejection, at(now)), time, "at {now}s");
        ejection.clear(at(readmitted));
    }
}

#[test]
fn the_time_is_at_most_a_fifth_longer_by_chance() {
    let eject = |random| {
        let (time, _) = Ejection::default()
            .eject(REASON, &Config::default(), at(0), random)
            .expect("available");
        time
    };
    assert_eq!((eject(0.0), eject(1.0)), (Duration::from_secs(10), Duration::from_secs(12)));
}

#[test]
fn results_of_attempts_that_began_before_an_ejection_count_for_nothing() {
    let (ejection, config) = (Ejection::default(), Config::default());
    let Pass::Counts(before) = ejection.pass() else { panic!("available") };
    assert!(ejection.failed(before).is_some());
    ejected(&ejection, at(0));
    assert_eq!(ejection.failed(before), None);
    assert_eq!(ejection.pass(), Pass::Aside);
    let probe = epoch(ejection.probe(at(10)));
    assert!(ejection.probe_succeeded(probe, at(10)).is_some());
    // Late even now: an earlier failure or success says nothing of the present.
    assert!(ejection.is_late(before));
    assert_eq!(ejection.failed(before), None);
    let Pass::Counts(now) = ejection.pass() else { panic!("available") };
    let mark = ejection.failed(now).expect("counts");
    ejection.succeeded(before, &config);
    assert_eq!((mark.run, ejection.failed(now).expect("counts").run), (1, 2));
}

#[test]
fn a_probe_without_a_result_is_offered_again() {
    let ejection = Ejection::default();
    ejected(&ejection, at(0));
    assert_eq!(ejection.probe(at(9)), None, "too early");
    let first = epoch(ejection.probe(at(10)));
    assert_eq!((ejection.probe(at(11)), ejection.due()), (None, None), "one at a time");
    assert_eq!(ejection.drop_probe(first), Some(at(10)));
    assert_eq!((ejection.due(), ejection.shown().state), (Some(at(10)), "ejected"));
    assert!(ejection.probe(at(11)).is_some());
}

#[test]
fn a_check_that_passes_ends_the_probe_as_well() {
    let ejection = Ejection::default();
    ejected(&ejection, at(0));
    let probe = epoch(ejection.probe(at(10)));
    assert!(ejection.clear(at(11)).is_some());
    assert_eq!(ejection.probe_failed(probe, &Config::default(), at(12), 0.0), None);
    assert_eq!(ejection.drop_probe(probe), None);
    assert_eq!(ejection.shown().state, "available");
}

#[test]
fn of_many_threads_one_gets_the_probe() {
    for round in 0..50 {
        let ejection = Arc::new(Ejection::default());
        ejected(&ejection, at(0));
        let probe = || {
            let ejection = ejection.clone();
            std::thread::spawn(move || ejection.probe(at(10)).is_some())
        };
        let threads: Vec<_> = (0..8).map(|_| probe()).collect();
        let won = threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won);
        assert_eq!(won.count(), 1, "round {round}");
    }
}

proptest! {
    /// Whatever happens, a probe is due or under way as long as the endpoint is ejected, and the
    /// time is between the shortest and the longest.
    #[test]
    fn an_ejected_endpoint_always_gets_another_probe(
        steps in prop::collection::vec((0_u8..6, 0_u64..400, 0.0_f64..1.0), 1..60),
    ) {
        let (ejection, config) = (Ejection::default(), Config::default());
        let (mut now, mut probe) = (at(0), None);
        for (step, later, random) in steps {
            now = now + Duration::from_secs(later);
            match (step, probe) {
                (0, _) => drop(ejection.eject(REASON, &config, now, random)),
                (1, None) => probe = ejection.probe(now).map(|pass| epoch(Some(pass))),
                (2, Some(epoch)) => { ejection.drop_probe(epoch); probe = None; }
                (3, Some(epoch)) => {
                    ejection.probe_failed(epoch, &config, now, random);
                    probe = None;
                }
                (4, Some(epoch)) => { ejection.probe_succeeded(epoch, now); probe = None; }
                (5, _) => { ejection.clear(now); probe = None; }
                _ => {}
            }
            let shown = ejection.shown();
            match shown.state {
                "ejected" => {
                    let until = shown.until.expect("a time");
                    prop_assert_eq!(ejection.due(), Some(until));
                    prop_assert!(until.since(now) <= Duration::from_secs(360));
                }
                "probing" => prop_assert!(probe.is_some()),
                _ => prop_assert_eq!(ejection.due(), None),
            }
        }
    }
}
