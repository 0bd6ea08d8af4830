//! Whose turn it is, request by request.

use std::time::Duration;

use super::*;

mod model;

fn at(millis: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(millis)
}

/// Requests are named by letters, which also wake them.
#[derive(Default)]
struct Queued {
    line: Line<char>,
    numbers: Vec<(char, u64)>,
    woken: Vec<char>,
}

impl Queued {
    fn new(queue: &str) -> Self {
        let mut queued = Queued::default();
        queued.line.set_terms(Some(serde_yaml::from_str(queue).expect("valid")));
        queued
    }

    fn enter(&mut self, name: char, deadline: Option<Moment>, now: Moment) -> Result<Moment, Full> {
        let (number, until) = self.line.enter(deadline, now, &mut self.woken)?;
        self.numbers.push((name, number));
        assert_eq!(self.line.hear(number, name), None);
        Ok(until)
    }

    fn number(&self, name: char) -> u64 {
        self.numbers.iter().rev().find(|(of, _)| *of == name).expect("has entered").1
    }

    fn hear(&mut self, name: char) -> Option<Verdict> {
        let number = self.number(name);
        self.line.hear(number, name)
    }

    /// Who is admitted when a slot is free at `now`.
    fn turn(&mut self, now: Moment) -> Option<char> {
        let woken = self.woken.len();
        let taken = self.line.turn(now, &mut self.woken);
        let admitted = taken.then(|| *self.woken.last().expect("is woken"));
        if let Some(name) = admitted {
            assert!(self.woken.len() > woken);
            assert_eq!(self.hear(name), Some(Verdict::Admitted(now)));
        }
        admitted
    }
}

#[test]
fn requests_are_served_in_the_order_of_arrival() {
    let mut queued = Queued::new("{max: 3}");
    for name in ['a', 'b', 'c'] {
        queued.enter(name, None, at(0)).expect("room");
    }
    assert_eq!([1, 2, 3, 4].map(|ms| queued.turn(at(ms))), [Some('a'), Some('b'), Some('c'), None]);
}

#[test]
fn a_full_queue_refuses_those_that_arrive() {
    let mut queued = Queued::new("{max: 2}");
    queued.enter('a', None, at(0)).expect("room");
    queued.enter('b', None, at(0)).expect("room");
    assert!(queued.enter('c', None, at(1)).is_err());
    assert_eq!(queued.turn(at(2)), Some('a'));
    assert!(queued.enter('c', None, at(3)).is_ok());
}

#[test]
fn without_a_queue_no_request_waits_but_those_that_do_are_served() {
    let mut queued = Queued::new("{max: 2}");
    queued.enter('a', None, at(0)).expect("room");
    queued.line.set_terms(None);
    assert!(queued.enter('b', None, at(1)).is_err());
    assert_eq!(queued.turn(at(2)), Some('a'));
}

#[test]
fn a_request_waits_until_its_deadline_or_the_longest_wait() {
    let mut queued = Queued::new("{max: 9, max_wait: 30ms}");
    assert_eq!(queued.enter('a', None, at(10)), Ok(at(40)));
    assert_eq!(queued.enter('b', Some(at(20)), at(10)), Ok(at(20)));
    assert_eq!(queued.enter('c', Some(at(60)), at(10)), Ok(at(40)));
}

#[test]
fn a_request_whose_time_is_over_gets_no_slot() {
    let mut queued = Queued::new("{max: 9}");
    queued.enter('a', Some(at(10)), at(0)).expect("room");
    queued.enter('b', Some(at(11)), at(0)).expect("room");
    assert_eq!(queued.turn(at(10)), Some('b'));
    assert_eq!(queued.hear('a'), Some(Verdict::Expired));
    queued.enter('c', Some(at(30)), at(20)).expect("room");
    assert_eq!(queued.turn(at(30)), None);
    assert_eq!(queued.hear('c'), Some(Verdict::Expired));
}

#[test]
fn a_request_that_leaves_is_passed_over() {
    let mut queued = Queued::new("{max: 2}");
    queued.enter('a', None, at(0)).expect("room");
    queued.enter('b', None, at(0)).expect("room");
    assert_eq!(queued.line.leave(queued.number('a')), None);
    assert!(queued.enter('c', None, at(0)).is_ok(), "its place is free");
    assert_eq!([queued.turn(at(1)), queued.turn(at(1))], [Some('b'), Some('c')]);
}

#[test]
fn a_request_that_leaves_with_a_slot_says_so() {
    let mut queued = Queued::new("{max: 2}");
    queued.enter('a', None, at(0)).expect("room");
    assert!(queued.line.turn(at(1), &mut queued.woken));
    assert_eq!(queued.line.leave(queued.number('a')), Some(Verdict::Admitted(at(1))));
    assert!(queued.line.decided.is_empty());
}

/// A queue of `a` to `d` that stands since 0, and has stood for its interval at 100 ms.
fn standing() -> Queued {
    let mut queued = Queued::new("{max: 4}");
    for name in ['z', 'a', 'b', 'c'] {
        queued.enter(name, None, at(0)).expect("room");
    }
    assert_eq!(queued.turn(at(10)), Some('z'));
    queued.enter('d', None, at(10)).expect("room");
    assert!(!queued.line.codel.stands());
    queued
}

#[test]
fn once_the_queue_stands_the_newest_goes_first_and_the_oldest_is_given_up() {
    let mut queued = standing();
    assert_eq!(queued.turn(at(110)), Some('d'));
    assert_eq!(queued.hear('a'), Some(Verdict::GivenUp));
    assert!(queued.line.codel.stands());
    // The next is given up after another interval.
    assert_eq!(queued.turn(at(111)), Some('c'));
    assert_eq!(queued.hear('b'), None);
}

#[test]
fn in_a_full_queue_that_stands_the_oldest_makes_room() {
    let mut queued = standing();
    queued.turn(at(110));
    for name in ['e', 'f'] {
        queued.enter(name, None, at(111)).expect("room");
    }
    assert_eq!(queued.line.len(), 4);
    queued.enter('g', None, at(112)).expect("the place of the oldest");
    assert_eq!(queued.hear('b'), Some(Verdict::GivenUp));
    assert_eq!(queued.line.len(), 4);
}

#[test]
fn a_single_request_is_never_given_up() {
    let mut queued = Queued::new("{max: 4, max_wait: 1h}");
    for millis in [0, 200, 400, 600] {
        queued.enter('a', None, at(millis)).expect("room");
        assert_eq!(queued.turn(at(millis + 190)), Some('a'));
    }
}

#[test]
fn an_empty_queue_stands_no_more() {
    let mut queued = standing();
    queued.turn(at(110));
    for name in ['b', 'c'] {
        queued.line.leave(queued.number(name));
    }
    assert!(queued.line.is_empty() && !queued.line.codel.stands());
}

#[test]
fn a_queue_whose_last_requests_are_given_up_and_served_stands_no_more() {
    let mut queued = Queued::new("{max: 4}");
    for name in ['a', 'b', 'c'] {
        queued.enter(name, None, at(0)).expect("room");
    }
    assert_eq!(queued.turn(at(10)), Some('a'));
    // The first of the two is given up, and the other served.
    assert_eq!(queued.turn(at(110)), Some('c'));
    assert_eq!(queued.hear('b'), Some(Verdict::GivenUp));
    // A second later, a burst begins anew.
    for name in ['d', 'e', 'f'] {
        queued.enter(name, None, at(1110)).expect("room");
    }
    assert_eq!(queued.turn(at(1120)), Some('d'));
    assert_eq!(queued.line.len(), 2);
}

#[test]
fn a_slot_that_tells_an_old_time_does_not_turn_it_back() {
    let mut queued = Queued::new("{max: 4}");
    queued.enter('a', Some(at(50)), at(0)).expect("room");
    queued.enter('b', None, at(60)).expect("room");
    assert!(queued.line.turn(at(10), &mut queued.woken));
    assert_eq!(queued.hear('a'), Some(Verdict::Expired));
    assert_eq!(queued.hear('b'), Some(Verdict::Admitted(at(60))));
}
