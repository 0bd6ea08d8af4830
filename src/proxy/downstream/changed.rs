//! Waiting for a change that concerns every connection, cheaply.

use std::task::Poll;

use tokio::sync::watch;

/// Waits for `watched` to change. Polled with every event on a connection: so it checks for a change
/// by reading, and registers its waker only once. Must be polled by one task.
pub async fn changed<T>(mut watched: watch::Receiver<T>) {
    let seen = watched.clone();
    // Unconstrained: this future is polled only once to register, and tokio's budget must not defer
    // that.
    let mut changed = std::pin::pin!(tokio::task::unconstrained(watched.changed()));
    let mut waits = false;
    std::future::poll_fn(|cx| {
        if waits && seen.has_changed().is_ok_and(|changed| !changed) {
            return Poll::Pending;
        }
        waits = true;
        changed.as_mut().poll(cx).map(drop)
    })
    .await;
}
