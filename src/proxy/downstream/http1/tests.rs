//! The deadline of a connection, tested on in-memory pipes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::oneshot;

use super::*;
use crate::time::Clock;

fn guarded(idle: Duration, header: Duration) -> (tokio::io::DuplexStream, GuardedIo) {
    let (client, server) = duplex(64);
    let guard = Arc::new(Guard::new(idle, header, Clock::now()));
    (client, GuardedIo::new(Box::new(server), guard))
}

#[tokio::test]
async fn an_idle_connection_fails_after_its_idle_timeout() {
    let (_client, mut io) = guarded(Duration::from_millis(20), Duration::ZERO);
    let error = io.read_u8().await.expect_err("nothing was sent");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_first_byte_starts_the_time_for_the_head() {
    let (mut client, mut io) = guarded(Duration::ZERO, Duration::from_millis(20));
    client.write_all(b"G").await.expect("room for a byte");
    assert_eq!(io.read_u8().await.expect("the byte"), b'G');
    let error = io.read_u8().await.expect_err("the head never ends");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_moved_deadline_is_the_one_that_counts() {
    let (mut client, mut io) = guarded(Duration::from_millis(5), Duration::ZERO);
    io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(80)));
    let started = std::time::Instant::now();
    let error = io.read_u8().await.expect_err("nothing was sent");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(started.elapsed() >= Duration::from_millis(80));
    // After an expired deadline is lifted, the connection works again.
    io.guard.begin();
    client.write_all(b"x").await.expect("room for a byte");
    assert_eq!(io.read_u8().await.expect("the byte"), b'x');
}

#[tokio::test]
async fn a_client_that_does_not_read_fails_the_write() {
    let (_client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
    io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(20)));
    let error = io.write_all(&[0; 8192]).await.expect_err("the other end does not read");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn what_is_held_is_written_when_it_is_let_go() {
    let (mut client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
    for given_up in [false, true] {
        let (done, until) = oneshot::channel();
        io.guard.detachment.hold(until);
        let mut write = Box::pin(io.write_all(b"x"));
        assert!(futures_executor::block_on(std::future::poll_fn(|cx| {
            Poll::Ready(write.as_mut().poll(cx).is_pending())
        })));
        if given_up {
            drop(done)
        } else {
            done.send(()).expect("somebody waits")
        }
        write.await.expect("written");
        io.flush().await.expect("sent");
        assert_eq!(client.read_u8().await.expect("the byte"), b'x');
    }
}

#[tokio::test]
async fn a_request_that_goes_on_alone_does_not_notice_that_its_client_has_left() {
    let (client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
    io.guard.detachment.go_on_alone();
    assert!(!io.guard.detachment.is_deserted());
    drop(client);
    io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(20)));
    let error = io.read_u8().await.expect_err("the deadline");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(io.guard.detachment.is_deserted());
    io.write_all(b"unheard").await.expect("no error");
    io.flush().await.expect("no error");
    io.guard.rest(Clock::now());
    assert_eq!(io.read(&mut [0]).await.expect("the end"), 0);
}
