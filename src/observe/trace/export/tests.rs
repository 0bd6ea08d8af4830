//! The queue and its task, with a closure in place of the collector.

use std::sync::mpsc::channel;

use tokio::runtime::{Builder, Runtime};

use super::super::span::tests::request;
use super::*;
use crate::observe::otlp::Ending;

const LONG: Duration = Duration::from_secs(10);
const ALL: Sent = Sent::Taken { rejected: 0 };

fn counts() -> Counts {
    Counts::of(&Metrics::new().expect("metrics"))
}

fn same(counts: &Counts) -> Counts {
    let Counts { exported, failed, dropped } = counts;
    Counts { exported: exported.clone(), failed: failed.clone(), dropped: dropped.clone() }
}

struct Started {
    queue: Queue,
    ending: Ending,
    _runtime: Runtime,
}

/// `send` may block, because it has a thread of its own.
fn start(
    queue: usize,
    counts: &Counts,
    mut send: impl FnMut(Vec<SpanData>) -> Sent + Send + 'static,
) -> Started {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (queue, worker) = Queue::new(queue, Duration::ZERO, same(counts));
    let (ending, closing) = Ending::new();
    runtime.spawn(worker.run(closing, move |spans| std::future::ready(send(spans))));
    Started { queue, ending, _runtime: runtime }
}

/// Closes from another runtime, as the process does: while `send` blocks, the first runtime's clock
/// stands still.
fn close(started: &Started, limit: Duration) -> bool {
    started.ending.begin();
    is_over(&started.ending, limit)
}

fn is_over(ending: &Ending, limit: Duration) -> bool {
    let own = Builder::new_current_thread().enable_time().build().expect("a runtime");
    own.block_on(async { tokio::time::timeout(limit, ending.over()).await.is_ok() })
}

#[test]
fn what_waits_is_sent_before_the_end() {
    let (sent, received) = channel();
    let counts = counts();
    let started = start(10, &counts, move |spans| {
        sent.send(spans.len()).expect("it is counted");
        ALL
    });
    for _ in 0..3 {
        started.queue.submit(Box::new(request()));
    }
    assert!(close(&started, LONG));
    assert_eq!(received.try_iter().sum::<usize>(), 3);
    assert_eq!((counts.exported.get(), counts.dropped.get()), (3, 0));
}

#[test]
fn what_comes_after_the_end_is_counted_as_dropped() {
    let counts = counts();
    let started = start(10, &counts, |_| ALL);
    assert!(close(&started, LONG));
    started.queue.submit(Box::new(request()));
    assert_eq!((counts.exported.get(), counts.dropped.get()), (0, 1));
}

#[test]
fn a_batch_is_bounded() {
    let (sent, received) = channel();
    let started = start(2 * BATCH, &counts(), move |spans| {
        sent.send(spans.len()).expect("it is counted");
        ALL
    });
    for _ in 0..2 * BATCH {
        started.queue.submit(Box::new(request()));
    }
    assert!(close(&started, LONG));
    assert!(received.try_iter().all(|batch| batch <= BATCH));
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let (began, begun) = channel();
    let (release, released) = channel::<()>();
    let counts = counts();
    let started = start(2, &counts, move |_| {
        // Fails once the test has closed the queue and stopped listening.
        let _ = began.send(());
        let _ = released.recv();
        ALL
    });
    started.queue.submit(Box::new(request()));
    begun.recv().expect("a first batch");
    for _ in 0..5 {
        started.queue.submit(Box::new(request()));
    }
    assert_eq!(counts.dropped.get(), 3);
    drop(release);
    assert!(close(&started, LONG));
    assert_eq!(counts.exported.get(), 3);
}

#[test]
fn closing_does_not_wait_longer_than_it_may() {
    let (release, released) = channel::<()>();
    let (began, begun) = channel();
    let started = start(10, &counts(), move |_| {
        let _ = began.send(());
        let _ = released.recv();
        ALL
    });
    started.queue.submit(Box::new(request()));
    begun.recv().expect("a first batch");
    assert!(!close(&started, Duration::from_millis(1)));
    drop(release);
}

#[test]
fn at_the_end_a_dead_collector_is_tried_once() {
    let counts = counts();
    let (begin, begun) = channel();
    let (release, released) = channel::<()>();
    let started = start(4 * BATCH, &counts, move |spans| {
        // Fails once the test has submitted everything and stopped listening.
        let _ = begin.send(spans.len() as u64);
        let _ = released.recv();
        Sent::Failed
    });
    started.queue.submit(Box::new(request()));
    let under_way = begun.recv().expect("a first batch");
    for _ in 0..3 * BATCH {
        started.queue.submit(Box::new(request()));
    }
    assert!(!close(&started, Duration::from_millis(1)), "the first batch is still under way");
    drop(release);
    assert!(close(&started, LONG));
    assert_eq!(counts.failed.get(), under_way + BATCH as u64);
    assert_eq!(counts.failed.get() + counts.dropped.get(), 1 + 3 * BATCH as u64);
}

#[test]
fn a_failed_batch_is_counted_and_the_next_one_tried() {
    let (sent, received) = channel();
    let counts = counts();
    let mut answers = [Sent::Failed, Sent::Taken { rejected: 1 }, ALL].into_iter();
    let started = start(10, &counts, move |_| {
        let _ = sent.send(());
        answers.next().unwrap_or(ALL)
    });
    for _ in 0..3 {
        started.queue.submit(Box::new(request()));
        received.recv_timeout(LONG).expect("a batch");
    }
    assert!(close(&started, LONG));
    assert_eq!((counts.failed.get(), counts.exported.get()), (2, 1));
}

#[test]
fn when_no_generation_sends_there_any_more_what_waits_is_sent_and_it_ends() {
    let (sent, received) = channel();
    let counts = counts();
    let Started { queue, ending, _runtime } = start(10, &counts, move |spans| {
        sent.send(spans.len()).expect("it is counted");
        ALL
    });
    for _ in 0..3 {
        queue.submit(Box::new(request()));
    }
    drop(queue);
    assert!(is_over(&ending, LONG));
    assert_eq!(received.try_iter().sum::<usize>(), 3);
    assert_eq!((counts.exported.get(), counts.dropped.get()), (3, 0));
}

#[test]
fn a_dead_collector_of_before_is_tried_until_it_fails_once() {
    let counts = counts();
    let Started { queue, ending, _runtime } = start(4 * BATCH, &counts, |_| Sent::Failed);
    for _ in 0..4 * BATCH {
        queue.submit(Box::new(request()));
    }
    drop(queue);
    assert!(is_over(&ending, LONG));
    let (failed, dropped) = (counts.failed.get(), counts.dropped.get());
    assert_eq!((failed + dropped, counts.exported.get()), (4 * BATCH as u64, 0));
}
