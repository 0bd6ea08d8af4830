//! Checks in virtual time: which endpoint is checked when, and what becomes of the set.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;

use super::*;
use crate::time::Moment;

/// What endpoints answer, by port, and when each was checked.
#[derive(Default)]
struct World {
    answers: HashMap<u16, Answer>,
    checks: Vec<(Moment, u16)>,
    running: usize,
    most_running: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Passes,
    Fails,
    /// No answer within 2 s.
    Hangs,
    Panics,
    /// The gateway cannot find out.
    Unknown,
}

struct Run {
    world: Arc<Mutex<World>>,
    upstream: Arc<Upstream>,
    task: tokio::task::JoinHandle<()>,
    first: oneshot::Receiver<()>,
    begun: Instant,
}

fn config(ports: impl IntoIterator<Item = u16>, rest: &str) -> crate::upstream::Config {
    let urls: Vec<_> = ports.into_iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let health = "health: {tcp: {}, interval: 10s, fast_interval: 1s, jitter: 0%, timeout: 2s}";
    serde_yaml::from_str(&format!("{{endpoints: {urls:?}, {health}, {rest}}}")).expect("valid")
}

fn port(endpoint: &Endpoint) -> u16 {
    endpoint.label.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

impl Run {
    fn start(upstream: Arc<Upstream>, answers: &[(u16, Answer)], begun: Instant) -> Self {
        let answers = answers.iter().copied().collect();
        let world = Arc::new(Mutex::new(World { answers, ..World::default() }));
        let now = move || Moment::ZERO + begun.elapsed();
        let seen = world.clone();
        let check = move |endpoint: Arc<Endpoint>| {
            let (world, port) = (seen.clone(), port(&endpoint));
            async move {
                let answer = {
                    let mut world = world.lock().expect("the world");
                    world.checks.push((now(), port));
                    world.running += 1;
                    world.most_running = world.most_running.max(world.running);
                    world.answers.get(&port).copied().unwrap_or(Answer::Passes)
                };
                let failure = Failure { kind: "test", words: "told to fail".into() };
                let pause = Duration::from_millis(if answer == Answer::Hangs { 2000 } else { 1 });
                tokio::time::sleep(pause).await;
                world.lock().expect("the world").running -= 1;
                match answer {
                    Answer::Passes => Some(Ok(())),
                    Answer::Fails | Answer::Hangs => Some(Err(failure)),
                    Answer::Unknown => None,
                    Answer::Panics => panic!("a fault of the check"),
                }
            }
        };
        let (sender, first) = oneshot::channel();
        let task = tokio::spawn(keep_checked(Arc::downgrade(&upstream), check, now, sender));
        Run { world, upstream, task, first, begun }
    }

    fn of(ports: impl IntoIterator<Item = u16>, rest: &str, answers: &[(u16, Answer)]) -> Self {
        let upstream = Arc::new(Upstream::new("u", config(ports, rest), Moment::ZERO));
        Run::start(upstream, answers, Instant::now())
    }

    fn answer(&self, port: u16, answer: Answer) {
        self.world.lock().expect("the world").answers.insert(port, answer);
    }

    async fn until(&self, seconds: f64) {
        tokio::time::sleep_until(self.begun + Duration::from_secs_f64(seconds)).await;
    }

    /// When the endpoint was checked, in seconds.
    fn times(&self, port: u16) -> Vec<u64> {
        let world = self.world.lock().expect("the world");
        let of_port = world.checks.iter().filter(|(_, checked)| *checked == port);
        of_port.map(|(at, _)| at.since(Moment::ZERO).as_secs()).collect()
    }

    /// The ports of those that are available.
    fn available(&self) -> Vec<u16> {
        let set = self.upstream.set();
        let members = set.members().iter().filter(|member| member.endpoint.standing.is_available());
        members.map(|member| port(&member.endpoint)).collect()
    }

    fn end(self) -> (Arc<Upstream>, Instant) {
        self.task.abort();
        (self.upstream, self.begun)
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_endpoint_is_checked_at_every_interval() {
    let run = Run::of([1], "", &[]);
    run.until(35.0).await;
    assert_eq!(run.times(1), [0, 10, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_begins_to_fail_is_checked_faster_until_that_is_certain() {
    let mut run = Run::of([1, 2], "", &[]);
    run.until(5.0).await;
    assert_eq!(run.first.try_recv(), Ok(()));
    run.answer(1, Answer::Fails);
    run.until(11.9).await;
    assert_eq!(run.available(), [1, 2], "two failures are not enough");
    run.until(13.0).await;
    assert_eq!(run.available(), [2]);
    run.until(25.0).await;
    assert_eq!(run.times(1), [0, 10, 11, 12, 22], "and then at the interval again");
    run.answer(1, Answer::Passes);
    run.until(33.0).await;
    assert_eq!(run.available(), [2], "one pass is not enough");
    run.until(34.0).await;
    assert_eq!(run.available(), [1, 2]);
    run.until(45.0).await;
    assert_eq!(run.times(1)[5..], [32, 33, 43]);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_pass_all_are_used_and_then_only_those_that_have_passed() {
    let mut run = Run::of([1, 2, 3], "", &[(1, Answer::Hangs), (2, Answer::Hangs)]);
    assert_eq!(run.available(), [1, 2, 3]);
    run.until(0.5).await;
    assert_eq!(run.available(), [3]);
    assert!(run.first.try_recv().is_err(), "two have no result yet");
    run.until(2.5).await;
    assert_eq!(run.first.try_recv(), Ok(()));
    run.answer(1, Answer::Passes);
    run.until(4.5).await;
    assert_eq!(run.available(), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_pass_only_those_that_have_failed_are_not_used() {
    let run = Run::of([1, 2], "", &[(1, Answer::Fails), (2, Answer::Hangs)]);
    run.until(0.5).await;
    assert_eq!(run.available(), [2]);
    run.until(2.5).await;
    assert!(run.available().is_empty(), "each has failed: what is used then, the upstream says");
    run.answer(2, Answer::Passes);
    run.until(4.5).await;
    assert_eq!(run.available(), [2]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_appears_later_waits_for_its_first_pass() {
    let run = Run::of([1], "", &[]);
    run.until(5.0).await;
    let (old, begun) = run.end();
    let new = Upstream::reconfigured(&old, &config([1, 2], ""), Moment::ZERO);
    let run = Run::start(new, &[(2, Answer::Fails)], begun);
    assert_eq!(run.available(), [1]);
    run.until(6.0).await;
    assert_eq!(run.available(), [1]);
    run.answer(2, Answer::Passes);
    run.until(7.5).await;
    assert_eq!(run.available(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_times_of_checks_and_the_runs_outlive_a_reload() {
    let run = Run::of([1, 2], "", &[]);
    run.until(5.0).await;
    run.answer(1, Answer::Fails);
    run.until(11.5).await;
    assert_eq!(run.times(1), [0, 10, 11]);
    let (old, begun) = run.end();
    let new = Upstream::reconfigured(&old, &config([1, 2], "balance: random"), Moment::ZERO);
    let run = Run::start(new, &[(1, Answer::Fails)], begun);
    run.until(15.0).await;
    assert_eq!((run.times(1), run.times(2)), (vec![12], vec![]), "as if nothing had happened");
    assert_eq!(run.available(), [2], "the third failure in a row");
}

#[tokio::test(start_paused = true)]
async fn the_share_of_an_endpoint_grows_from_its_first_pass_and_after_each_recovery() {
    let run = Run::of([1], "slow_start: 30s", &[]);
    run.until(5.0).await;
    let (old, begun) = run.end();
    let since = |run: &Run, place: usize| {
        let set = run.upstream.set();
        let since = set.members()[place].endpoint.warming_since();
        since.map(|since| since.since(Moment::ZERO).as_secs())
    };
    let now = Moment::ZERO + begun.elapsed();
    let new = Upstream::reconfigured(&old, &config([1, 2], "slow_start: 30s"), now);
    let run = Run::start(new, &[(2, Answer::Fails)], begun);
    run.until(8.5).await;
    assert_eq!(since(&run, 1), Some(5), "when it appeared");
    run.answer(2, Answer::Passes);
    run.answer(1, Answer::Fails);
    run.until(21.0).await;
    assert_eq!(since(&run, 0), None, "one that was there at the start has its share");
    assert!(since(&run, 1).is_some_and(|since| since >= 8), "{:?}", since(&run, 1));
    run.answer(1, Answer::Passes);
    run.until(40.0).await;
    assert!(since(&run, 0).is_some_and(|since| since > 21), "it has recovered");
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_about_the_endpoint_is_no_result() {
    let run = Run::of([1, 2], "", &[]);
    run.until(5.0).await;
    run.answer(1, Answer::Unknown);
    run.answer(2, Answer::Panics);
    run.until(65.0).await;
    assert_eq!(run.available(), [1, 2]);
    assert_eq!(run.times(1), [0, 10, 20, 30, 40, 50, 60]);
    assert_eq!(run.times(2), run.times(1), "a panic does not end its checks");
}

#[tokio::test(start_paused = true)]
async fn thousands_of_endpoints_are_checked_with_a_bound_on_those_at_once() {
    let run = Run::of(1..=3000, "", &[]);
    for port in 1..=3000 {
        run.answer(port, Answer::Hangs);
    }
    run.until(120.0).await;
    let world = run.world.lock().expect("the world");
    assert_eq!(world.most_running, AT_ONCE);
    let mut checked: Vec<u16> = world.checks.iter().map(|(_, port)| *port).collect();
    checked.sort_unstable();
    let fewest = checked.chunk_by(|a, b| a == b).map(<[u16]>::len).min();
    checked.dedup();
    assert_eq!(checked.len(), 3000);
    assert!(fewest >= Some(3), "all take their turns: {fewest:?}");
}

#[tokio::test(start_paused = true)]
async fn first_checks_do_not_come_in_the_same_moment() {
    let run = Run::of(1..=200, "", &[]);
    run.until(1.0).await;
    let world = run.world.lock().expect("the world");
    let moments: std::collections::HashSet<_> = world.checks.iter().map(|(at, _)| *at).collect();
    assert_eq!(world.checks.len(), 200);
    assert!(moments.len() > 50, "{}", moments.len());
}

#[tokio::test(start_paused = true)]
async fn the_checks_end_with_the_upstream() {
    let run = Run::of([1], "", &[]);
    run.until(5.0).await;
    let Run { world, upstream, task, begun, .. } = run;
    drop(upstream);
    tokio::time::sleep_until(begun + Duration::from_secs(30)).await;
    assert!(task.is_finished());
    assert_eq!(world.lock().expect("the world").checks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_not_checked_any_more() {
    let config: crate::upstream::Config = config([1, 2], "");
    let upstream = Arc::new(Upstream::new("u", config, Moment::ZERO));
    let run = Run::start(upstream.clone(), &[(2, Answer::Hangs)], Instant::now());
    run.until(1.0).await;
    assert_eq!(run.world.lock().expect("the world").running, 1);
    let members = upstream.set().members().to_vec();
    upstream.replace(members[..1].to_vec(), Moment::ZERO);
    run.until(60.0).await;
    assert_eq!(run.times(2), [0]);
    assert_eq!(run.world.lock().expect("the world").running, 1, "its check was broken off");
    assert_eq!(run.times(1).len(), 6, "the others go on");
}
