//! Waiting for a deadline that moves, cheaply.
//!
//! A connection's stream waits for it while it is read and written, and its listener for each request:
//! over HTTP/2 for the stream of the request as well, over HTTP/1 for the times when nobody reads
//! or writes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::proxy::downstream::guard::Guard;
use crate::time::{Clock, Moment};

/// Watches a deadline that moves, for one task. The timer is touched only when the deadline
/// comes earlier than it was armed for, and when it fires: a later deadline lets it fire and
/// moves it then, so steady traffic leaves the timer wheel alone.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `deadline` has passed. Must always be polled by the same task: while the timer
    /// is armed early enough, its waker is not renewed.
    pub fn poll(&mut self, deadline: Option<Moment>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let until = Instant::from_std(Clock::instant(deadline));
        let timer = match &mut self.0 {
            Some(timer) if timer.deadline() <= until && !timer.is_elapsed() => {
                return Poll::Pending;
            }
            Some(timer) => timer,
            None => self.0.insert(Box::pin(tokio::time::sleep_until(until))),
        };
        loop {
            if Clock::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
            std::task::ready!(timer.as_mut().poll(cx));
        }
    }
}

/// `request`, unless a deadline passes for `grace` and nothing comes of it. Once it has passed, the
/// `guard` says so and `request` is polled again. Where that changes nothing, the request path waits
/// for something else than the client: Pingora does not read the client while an upload waits for
/// an upstream that does not read.
pub async fn unless_overdue<T>(
    guard: &Guard,
    alarm: &mut Overdue,
    grace: Duration,
    request: impl Future<Output = T>,
) -> Option<T> {
    let mut request = std::pin::pin!(request);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = request.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        let Some(deadline) = guard.deadline() else { return Poll::Pending };
        let overdue = guard.is_overdue();
        let until = if overdue { deadline + grace } else { deadline };
        std::task::ready!(alarm.0.poll(Some(until), cx));
        if overdue {
            return Poll::Ready(None);
        }
        guard.expire();
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// The alarm of one connection, kept from request to request.
#[derive(Default)]
pub struct Overdue(Alarm);
