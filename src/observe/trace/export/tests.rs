//! The queue and its thread, with a collector that is a closure.

use std::sync::mpsc::channel;

use super::super::span::tests::request;
use super::*;

const LONG: Duration = Duration::from_secs(10);

fn counts() -> Counts {
    Counts::of(&Metrics::new().expect("metrics"))
}

fn same(counts: &Counts) -> Counts {
    let Counts { exported, failed, dropped } = counts;
    Counts { exported: exported.clone(), failed: failed.clone(), dropped: dropped.clone() }
}

fn start(
    queue: usize,
    counts: &Counts,
    send: impl FnMut(Vec<SpanData>) -> Result<(), String> + Send + 'static,
) -> Exporter {
    Exporter::spawn(queue, Duration::ZERO, same(counts), "collector".to_owned(), send)
        .expect("a thread")
}

#[test]
fn what_waits_is_sent_before_the_end() {
    let (sent, received) = channel();
    let counts = counts();
    let exporter =
        start(10, &counts, move |spans| sent.send(spans.len()).map_err(|error| error.to_string()));
    for _ in 0..3 {
        exporter.submit(Box::new(request()));
    }
    assert!(exporter.close(LONG));
    assert_eq!(received.try_iter().sum::<usize>(), 3);
    assert_eq!((counts.exported.get(), counts.dropped.get()), (3, 0));
}

#[test]
fn a_batch_is_bounded() {
    let (sent, received) = channel();
    let exporter = start(2 * BATCH, &counts(), move |spans| {
        sent.send(spans.len()).map_err(|error| error.to_string())
    });
    for _ in 0..2 * BATCH {
        exporter.submit(Box::new(request()));
    }
    assert!(exporter.close(LONG));
    assert!(received.try_iter().all(|batch| batch <= BATCH));
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let (began, begun) = channel();
    let (release, released) = channel::<()>();
    let counts = counts();
    let exporter = start(2, &counts, move |_| {
        // Once it is closed, nobody listens or answers any more.
        let _ = began.send(());
        let _ = released.recv();
        Ok(())
    });
    exporter.submit(Box::new(request()));
    begun.recv().expect("a first batch");
    for _ in 0..5 {
        exporter.submit(Box::new(request()));
    }
    assert_eq!(counts.dropped.get(), 3);
    drop(release);
    assert!(exporter.close(LONG));
    assert_eq!(counts.exported.get(), 3);
}

#[test]
fn closing_does_not_wait_longer_than_it_may() {
    let (release, released) = channel::<()>();
    let exporter = start(10, &counts(), move |_| {
        let _ = released.recv();
        Ok(())
    });
    exporter.submit(Box::new(request()));
    assert!(!exporter.close(Duration::from_millis(1)));
    drop(release);
}

#[test]
fn at_the_end_a_dead_collector_is_tried_once() {
    let counts = counts();
    let (begin, begun) = channel();
    let (release, released) = channel::<()>();
    let exporter = start(4 * BATCH, &counts, move |spans| {
        // Once all are submitted, nobody listens or holds it up any more.
        let _ = begin.send(spans.len() as u64);
        let _ = released.recv();
        Err("refused".to_owned())
    });
    exporter.submit(Box::new(request()));
    let under_way = begun.recv().expect("a first batch");
    for _ in 0..3 * BATCH {
        exporter.submit(Box::new(request()));
    }
    exporter.closing.store(true, Ordering::Release);
    drop(release);
    assert!(exporter.close(LONG));
    assert_eq!(counts.failed.get(), under_way + BATCH as u64);
    assert_eq!(counts.failed.get() + counts.dropped.get(), 1 + 3 * BATCH as u64);
}

#[test]
fn a_failed_batch_is_counted_and_the_next_one_tried() {
    let (sent, received) = channel();
    let counts = counts();
    let mut answers = [Err("refused".to_owned()), Ok(())].into_iter();
    let exporter = start(10, &counts, move |_| {
        let answer = answers.next().unwrap_or(Ok(()));
        let _ = sent.send(());
        answer
    });
    for _ in 0..2 {
        exporter.submit(Box::new(request()));
        received.recv_timeout(LONG).expect("a batch");
    }
    assert!(exporter.close(LONG));
    assert_eq!((counts.failed.get(), counts.exported.get()), (1, 1));
}
