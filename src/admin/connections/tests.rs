//! The time limits of admin connections, tested with a paused clock.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const REQUEST: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(75);

/// The client's end, the listener's end, and the sender whose drop ends the connection.
fn pair() -> (DuplexStream, Limited<DuplexStream>, oneshot::Sender<Infallible>) {
    let (client, server) = duplex(64);
    let (end, ended) = oneshot::channel();
    let limits = Limits { connections: 1, request: REQUEST, idle: IDLE };
    (client, Limited::new(server, limits, ended), end)
}

/// How the wait for another byte ends, and after what time.
async fn end_of(server: &mut Limited<DuplexStream>) -> (io::ErrorKind, Duration) {
    let began = Instant::now();
    let error = server.read_u8().await.expect_err("nothing was sent");
    (error.kind(), Duration::from_secs(began.elapsed().as_secs()))
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_has_the_time_of_a_request() {
    let (_client, mut server, _end) = pair();
    assert_eq!(end_of(&mut server).await, (io::ErrorKind::TimedOut, REQUEST));
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_request_give_it_no_more_time() {
    let (mut client, mut server, _end) = pair();
    for _ in 0..4 {
        client.write_u8(b'x').await.expect("room");
        server.read_u8().await.expect("a byte");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let left = REQUEST - Duration::from_secs(4);
    assert_eq!(end_of(&mut server).await, (io::ErrorKind::TimedOut, left));
}

#[tokio::test(start_paused = true)]
async fn between_requests_there_is_more_time_and_the_next_one_has_its_own() {
    let (mut client, mut server, _end) = pair();
    server.write_u8(b'x').await.expect("room");
    tokio::time::advance(IDLE - Duration::from_secs(1)).await;
    client.write_u8(b'x').await.expect("room");
    server.read_u8().await.expect("a byte");
    assert_eq!(end_of(&mut server).await, (io::ErrorKind::TimedOut, REQUEST));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let (_client, mut server, _end) = pair();
    server.write_u8(b'x').await.expect("room");
    assert_eq!(end_of(&mut server).await, (io::ErrorKind::TimedOut, IDLE));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_fetched_is_given_up() {
    let (_client, mut server, _end) = pair();
    let error = server.write_all(&[0; 65]).await.expect_err("there is room for 64");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_place_is_needed_ends_at_once() {
    let (_client, mut server, end) = pair();
    drop(end);
    assert_eq!(end_of(&mut server).await, (io::ErrorKind::ConnectionAborted, Duration::ZERO));
}
