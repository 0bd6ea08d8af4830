//! Reads and writes of an HTTP/2 stream, bounded by its guard.
//!
//! Does for `super::http2_session` what `super::http1` does in its poll functions. The task that
//! serves the stream wakes it when the deadline passes (`super::alarm`).

use std::future::Future;
use std::task::Poll;

use pingora_core::{Error, ErrorType, Result};

use crate::proxy::downstream::guard::Guard;

/// Runs `work`, unless the guard's deadline passes first. If the request goes on without its
/// client, a disconnect is not reported. `of_body`: it is the request's body that is read, and not
/// only the client's leaving that is waited for.
///
/// # Errors
/// Those of `work`, and a read error once the deadline has passed.
pub async fn read_in_time<T>(
    guard: &Guard,
    of_body: bool,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let mut left = false;
    std::future::poll_fn(|cx| {
        if !left && let Poll::Ready(done) = work.as_mut().poll(cx) {
            left = done.is_err() && guard.detachment.ignores_leaving();
            if !left {
                guard.client_time.read(false);
                return Poll::Ready(done);
            }
        }
        if of_body {
            guard.client_time.read(true);
        }
        unless_late(guard, ErrorType::ReadError)
    })
    .await
}

/// The same for a write.
///
/// # Errors
/// Those of `work`, and a write error once the deadline has passed.
pub async fn written_in_time<T>(guard: &Guard, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        guard.client_time.write(polled.is_pending());
        match polled {
            Poll::Pending => unless_late(guard, ErrorType::WriteError),
            done => done,
        }
    })
    .await
}

fn unless_late<T>(guard: &Guard, error: ErrorType) -> Poll<Result<T>> {
    match guard.is_overdue() {
        true => Poll::Ready(Err(Error::new_down(error))),
        false => Poll::Pending,
    }
}

/// The result of a write; `instead` if it failed and the request goes on without its client.
///
/// # Errors
/// The error of the write, if the request needs its client.
pub fn unless_alone<T>(guard: &Guard, written: Result<T>, instead: T) -> Result<T> {
    match written {
        Err(_) if guard.detachment.ignores_leaving() => Ok(instead),
        other => other,
    }
}

/// Waits until writes may go out.
pub async fn let_go(guard: &Guard) {
    std::future::poll_fn(|cx| guard.detachment.poll_let_go(cx)).await;
}
