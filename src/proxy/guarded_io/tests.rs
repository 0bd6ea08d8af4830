//! The clock over a connection, on pipes in memory.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

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
    // An expired deadline that is lifted lets the connection go on.
    io.guard.begin();
    client.write_all(b"x").await.expect("room for a byte");
    assert_eq!(io.read_u8().await.expect("the byte"), b'x');
}

#[tokio::test]
async fn a_client_that_does_not_read_fails_the_write() {
    let (_client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
    io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(20)));
    let error = io.write_all(&[0; 4096]).await.expect_err("nobody reads");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
