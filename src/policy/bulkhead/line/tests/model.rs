//! The queue before an upstream with 20 slots of 10 ms, in virtual time, beside a plain one: first
//! come, first served, and bounded by the same number and the same deadlines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::*;

const SLOTS: usize = 20;
const CALL: Duration = Duration::from_millis(10);
/// What the upstream can do in a second.
const CAPACITY: f64 = 2000.0;

trait Waits {
    /// Whether there is room for a request.
    fn enter(&mut self, id: u64, deadline: Moment, now: Moment) -> bool;
    /// The request that gets a slot.
    fn turn(&mut self, now: Moment) -> Option<u64>;
    /// A request's time is over.
    fn leave(&mut self, id: u64);
    /// The requests that were refused after a wait, since this was last asked.
    fn given_up(&mut self) -> Vec<u64>;
}

struct Ours {
    line: Line<u64>,
    numbers: BTreeMap<u64, u64>,
    woken: Vec<u64>,
    given_up: Vec<u64>,
}

impl Ours {
    fn new(queue: &str) -> Self {
        let mut line = Line::default();
        line.set_terms(Some(serde_yaml::from_str(queue).expect("valid")));
        Ours { line, numbers: BTreeMap::new(), woken: Vec::new(), given_up: Vec::new() }
    }

    /// Those that are woken hear why. Returns the one that was admitted.
    fn tell(&mut self) -> Option<u64> {
        let mut admitted = None;
        for id in std::mem::take(&mut self.woken) {
            let number = self.numbers.remove(&id).expect("waits");
            match self.line.hear(number, id).expect("decided") {
                Verdict::Admitted(_) => admitted = Some(id),
                Verdict::GivenUp | Verdict::Expired => self.given_up.push(id),
            }
        }
        admitted
    }
}

impl Waits for Ours {
    fn enter(&mut self, id: u64, deadline: Moment, now: Moment) -> bool {
        let Ok((number, _)) = self.line.enter(Some(deadline), now, &mut self.woken) else {
            return false;
        };
        assert_eq!(self.line.hear(number, id), None);
        self.numbers.insert(id, number);
        self.tell();
        true
    }

    fn turn(&mut self, now: Moment) -> Option<u64> {
        self.line.turn(now, &mut self.woken);
        self.tell()
    }

    fn leave(&mut self, id: u64) {
        if let Some(number) = self.numbers.remove(&id) {
            self.line.leave(number);
            self.given_up.push(id);
        }
    }

    fn given_up(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.given_up)
    }
}

/// First come, first served.
struct Plain {
    max: usize,
    waiting: BTreeMap<u64, Moment>,
    given_up: Vec<u64>,
}

impl Waits for Plain {
    fn enter(&mut self, id: u64, deadline: Moment, _: Moment) -> bool {
        let room = self.waiting.len() < self.max;
        if room {
            self.waiting.insert(id, deadline);
        }
        room
    }

    fn turn(&mut self, now: Moment) -> Option<u64> {
        loop {
            let (id, deadline) = self.waiting.pop_first()?;
            if now < deadline {
                return Some(id);
            }
            self.given_up.push(id);
        }
    }

    fn leave(&mut self, id: u64) {
        if self.waiting.remove(&id).is_some() {
            self.given_up.push(id);
        }
    }

    fn given_up(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.given_up)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Answered(u64),
    Expires(u64),
    Arrives,
}

/// What has come of it, each by the second.
#[derive(Debug)]
struct Seen {
    /// Requests answered within their deadline.
    good: f64,
    /// Calls whose answer came too late.
    late: f64,
    /// Requests refused, at once or after a wait.
    refused: f64,
    /// The longest wait of a request that got a slot.
    longest: Duration,
}

struct Run<W> {
    queue: W,
    time: Duration,
    deadline: Duration,
    events: BinaryHeap<Reverse<(Moment, Event)>>,
    free: usize,
    arrived: Vec<Moment>,
    seen: Seen,
}

impl<W: Waits> Run<W> {
    fn new(queue: W, time: Duration, deadline: Duration) -> Self {
        let seen = Seen { good: 0.0, late: 0.0, refused: 0.0, longest: Duration::ZERO };
        let (events, arrived) = (BinaryHeap::new(), Vec::new());
        Run { queue, time, deadline, events, free: SLOTS, arrived, seen }
    }

    /// To the end. A client that is answered or refused asks again after `again`, if it is given.
    fn play(mut self, again: Option<Duration>) -> Seen {
        while let Some(Reverse((now, event))) = self.events.pop() {
            if now.since(Moment::ZERO) >= self.time {
                break;
            }
            let mut returns = 0;
            match event {
                Event::Arrives => returns += usize::from(!self.arrive(now)),
                Event::Expires(id) => self.queue.leave(id),
                Event::Answered(id) => {
                    let took = now.since(self.arrived[id as usize]);
                    let good = took <= self.deadline;
                    *(if good { &mut self.seen.good } else { &mut self.seen.late }) += 1.0;
                    returns += 1;
                    self.free += 1;
                    if let Some(next) = self.queue.turn(now) {
                        self.call(next, now);
                    }
                }
            }
            let given_up = self.queue.given_up().len();
            self.seen.refused += given_up as f64;
            for _ in 0..again.map_or(0, |_| returns + given_up) {
                let at = now + again.unwrap_or_default();
                self.events.push(Reverse((at, Event::Arrives)));
            }
        }
        let seconds = self.time.as_secs_f64();
        let Seen { good, late, refused, longest } = self.seen;
        Seen { good: good / seconds, late: late / seconds, refused: refused / seconds, longest }
    }

    /// Whether the request is called or waits.
    fn arrive(&mut self, now: Moment) -> bool {
        let id = self.arrived.len() as u64;
        self.arrived.push(now);
        if self.free > 0 {
            self.call(id, now);
            return true;
        }
        let deadline = now + self.deadline;
        let waits = self.queue.enter(id, deadline, now);
        if waits {
            self.events.push(Reverse((deadline, Event::Expires(id))));
        } else {
            self.seen.refused += 1.0;
        }
        waits
    }

    fn call(&mut self, id: u64, now: Moment) {
        self.free -= 1;
        let waited = now.since(self.arrived[id as usize]);
        self.seen.longest = self.seen.longest.max(waited);
        self.events.push(Reverse((now + CALL, Event::Answered(id))));
    }
}

/// Requests arrive by themselves, `load` times as many as the upstream can take, at random moments.
fn open(queue: impl Waits, load: f64, deadline: Duration) -> Seen {
    let time = Duration::from_secs(5);
    let mut run = Run::new(queue, time, deadline);
    let (mut at, mut random) = (Moment::ZERO, 0x9e37_79b9_7f4a_7c15_u64);
    while at.since(Moment::ZERO) < time {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
        at = at + Duration::from_secs_f64(-(1.0 - uniform).ln() / (CAPACITY * load));
        run.events.push(Reverse((at, Event::Arrives)));
    }
    run.play(None)
}

/// As many clients, which ask again as soon as they are answered or refused.
fn closed(queue: impl Waits, clients: usize) -> Seen {
    let mut run = Run::new(queue, Duration::from_secs(10), Duration::from_secs(1));
    run.events.extend((0..clients).map(|_| Reverse((Moment::ZERO, Event::Arrives))));
    run.play(Some(Duration::from_micros(200)))
}

fn plain() -> Plain {
    Plain { max: 400, waiting: BTreeMap::new(), given_up: Vec::new() }
}

fn ours() -> Ours {
    Ours::new("{max: 400}")
}

#[test]
fn under_three_times_the_load_the_upstream_works_for_requests_that_are_answered_in_time() {
    let deadline = Duration::from_millis(100);
    let (ours, plain) = (open(ours(), 3.0, deadline), open(plain(), 3.0, deadline));
    assert!(ours.good >= 0.95 * CAPACITY, "{ours:?}");
    // The plain queue serves each request when its time is nearly over.
    assert!(plain.good <= 0.1 * CAPACITY && plain.late >= 0.8 * CAPACITY, "{plain:?}");
}

#[test]
fn below_its_capacity_no_request_is_refused() {
    let seen = open(ours(), 0.8, Duration::from_secs(1));
    assert_eq!((seen.late, seen.refused), (0.0, 0.0), "{seen:?}");
}

#[test]
fn clients_that_return_at_once_are_not_refused_more_often_than_served() {
    let seen = closed(ours(), 320);
    assert!(seen.good >= 0.95 * CAPACITY, "{seen:?}");
    assert!(seen.refused <= seen.good, "{seen:?}");
    assert!(seen.refused > 0.0, "the queue stands: {seen:?}");
}

#[test]
fn a_burst_is_absorbed_to_the_last_request() {
    let mut run = Run::new(ours(), Duration::from_secs(1), Duration::from_secs(1));
    run.events.extend((0..180).map(|_| Reverse((Moment::ZERO, Event::Arrives))));
    let seen = run.play(None);
    assert_eq!((seen.good, seen.refused), (180.0, 0.0), "{seen:?}");
    // Eight rounds of the others' calls.
    assert_eq!(seen.longest, 8 * CALL);
}
