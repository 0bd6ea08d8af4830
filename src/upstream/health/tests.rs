use super::*;

fn config(yaml: &str) -> Config {
    let yaml = format!("{{tcp: {{}}, {yaml}}}");
    serde_yaml::from_str(&yaml).expect("valid")
}

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

fn result(passed: bool) -> Result<(), Failure> {
    match passed {
        true => Ok(()),
        false => Err(Failure { kind: "status", words: "status 503".into() }),
    }
}

/// The verdicts after each of these checks: `+` passes, `-` fails.
fn verdicts(config: &Config, checks: &str) -> String {
    let health = Health::default();
    let mut seen = String::new();
    for (n, check) in checks.chars().enumerate() {
        health.note(result(check == '+'), config, at(n as u64));
        seen.push(match health.verdict() {
            Verdict::Unknown => '?',
            Verdict::Healthy => 'h',
            Verdict::Unhealthy => 'u',
        });
    }
    seen
}

#[test]
fn the_first_pass_suffices_and_later_only_runs_decide() {
    let config = config("healthy: 2, unhealthy: 3");
    for (checks, expected) in [
        ("+", "h"),
        ("--+", "??h"),
        ("---", "??u"),
        ("+--+--+", "hhhhhhh"),
        ("+---", "hhhu"),
        ("---+-+-++", "??uuuuuuh"),
        ("+---+-++---", "hhhuuuuhhhu"),
    ] {
        assert_eq!(verdicts(&config, checks), expected, "{checks}");
    }
}

#[test]
fn thresholds_of_1_follow_every_check() {
    assert_eq!(verdicts(&config("healthy: 1, unhealthy: 1"), "-+-+"), "uhuh");
}

#[test]
fn an_edge_says_how_it_came_about_and_there_is_only_one() {
    let config = config("");
    let health = Health::default();
    health.plan(&config, 0.0, at(1));
    let edge = health.note(result(true), &config, at(2)).expect("healthy");
    assert_eq!((edge.from, edge.to, edge.is_first), (Verdict::Unknown, Verdict::Healthy, true));
    assert_eq!(health.note(result(true), &config, at(3)), None);
    assert_eq!(health.note(result(false), &config, at(10)), None);
    assert_eq!(health.note(result(false), &config, at(11)), None);
    let edge = health.note(result(false), &config, at(12)).expect("unhealthy");
    assert_eq!(
        (edge.to, edge.in_a_row, edge.after),
        (Verdict::Unhealthy, 3, Duration::from_secs(10))
    );
    assert_eq!(health.note(result(false), &config, at(13)), None);
    let report = health.report();
    assert_eq!((report.verdict, report.since, report.checks), (Verdict::Unhealthy, at(12), 6));
}

/// The pauses after each of these checks, in seconds.
fn pauses(config: &Config, checks: &str) -> Vec<u64> {
    let health = Health::default();
    let after = |check| {
        health.note(result(check == '+'), config, at(0));
        health.plan_next(config, 0.5, at(0)).since(at(0)).as_secs()
    };
    checks.chars().map(after).collect()
}

#[test]
fn checks_are_faster_while_it_is_undecided() {
    let config = config("interval: 10s, fast_interval: 1s, healthy: 2, unhealthy: 3");
    assert_eq!(pauses(&config, "++"), [10, 10]);
    assert_eq!(pauses(&config, "---"), [1, 1, 10]);
    assert_eq!(pauses(&config, "+--+"), [10, 1, 1, 10]);
    assert_eq!(pauses(&config, "+---+-++"), [10, 1, 1, 10, 1, 10, 1, 10]);
}

#[test]
fn each_pause_is_longer_or_shorter_at_random() {
    let config = config("interval: 10s, jitter: 20%");
    let health = Health::default();
    health.note(result(true), &config, at(0));
    for (random, millis) in [(0.0, 8_000), (0.5, 10_000), (1.0, 12_000)] {
        let due = health.plan_next(&config, random, at(100));
        assert_eq!(due.since(at(100)).as_millis(), millis);
    }
}

#[test]
fn first_checks_are_spread_and_planned_only_once() {
    let config = config("interval: 10s");
    let health = Health::default();
    assert_eq!(health.plan(&config, 1.0, at(5)), at(5) + FIRST_WITHIN);
    assert_eq!(health.plan(&config, 0.0, at(9)), at(5) + FIRST_WITHIN);
    let short = serde_yaml::from_str("{tcp: {}, interval: 50ms}").expect("valid");
    assert_eq!(Health::default().plan(&short, 1.0, at(5)).since(at(5)).as_millis(), 50);
}

#[test]
fn other_checks_leave_the_verdict_until_they_have_decided() {
    let config = config("unhealthy: 3");
    let health = Health::default();
    for check in "+--".chars() {
        health.note(result(check == '+'), &config, at(0));
    }
    health.plan_next(&config, 0.5, at(0));
    health.begin_anew();
    assert_eq!(health.verdict(), Verdict::Healthy);
    assert_eq!(health.plan(&config, 0.0, at(1)), at(1), "at once");
    let edges = [1, 2, 3].map(|n| health.note(result(false), &config, at(n)).is_some());
    assert_eq!(edges, [false, false, true], "failures of the former checks do not count");
}
