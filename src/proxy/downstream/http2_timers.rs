//! Reads and writes of a stream, as far as its guard lets them.
//!
//! For `super::http2_session` what `super::http1` does inside its polls. The task that serves the stream wakes
//! it when the deadline passes (`super::alarm`).

use std::future::Future;
use std::task::Poll;

use pingora_core::{Error, ErrorType, Result};

use crate::proxy::downstream::guard::Guard;

/// `work`, unless the guard's deadline passes first. A client that leaves is not heard of where the
/// request goes on without it.
pub async fn read_in_time<T>(guard: &Guard, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let mut left = false;
    std::future::poll_fn(|cx| {
        if !left && let Poll::Ready(done) = work.as_mut().poll(cx) {
            left = done.is_err() && guard.detachment.ignores_leaving();
            if !left {
                return Poll::Ready(done);
            }
        }
        unless_late(guard, ErrorType::ReadError)
    })
    .await
}

/// The same for `work` that writes.
pub async fn written_in_time<T>(guard: &Guard, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => unless_late(guard, ErrorType::WriteError),
        done => done,
    })
    .await
}

fn unless_late<T>(guard: &Guard, error: ErrorType) -> Poll<Result<T>> {
    match guard.is_overdue() {
        true => Poll::Ready(Err(Error::new_down(error))),
        false => Poll::Pending,
    }
}

/// What `write` came to; `instead`, if it failed and nobody minds.
pub fn unless_alone<T>(guard: &Guard, written: Result<T>, instead: T) -> Result<T> {
    match written {
        Err(_) if guard.detachment.ignores_leaving() => Ok(instead),
        other => other,
    }
}

/// Until something may be written.
pub async fn let_go(guard: &Guard) {
    std::future::poll_fn(|cx| guard.detachment.poll_let_go(cx)).await;
}
