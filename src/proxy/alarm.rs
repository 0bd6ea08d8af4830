//! Waiting for a deadline that moves, cheaply.
//!
//! A connection's stream waits for it while it is read and written, and its listener for each request:
//! over HTTP/2 for the stream of the request as well, over HTTP/1 for the times when nobody reads
//! or writes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::guard::Guard;
use crate::time::{Clock, Moment};

/// Watches a deadline that moves, for one task. The timer is touched only when the deadline
/// comes earlier than it was armed for, and when it fires: a later deadline lets it fire and
/// moves it then, so steady traffic leaves the timer wheel alone.
#[derive(Default)]
pub(super) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// It would wake a task that had it before.
    moved: bool,
}

impl Alarm {
    /// Ready once `deadline` has passed. Must always be polled by the same task: while the timer
    /// is armed early enough, its waker is not renewed.
    pub(super) fn poll(&mut self, deadline: Option<Moment>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let until = Instant::from_std(Clock::instant(deadline));
        let moved = std::mem::take(&mut self.moved);
        let timer = match &mut self.timer {
            Some(timer) if timer.deadline() <= until && !timer.is_elapsed() => {
                if !moved || timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                timer
            }
            Some(timer) => timer,
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(until))),
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

/// The alarms of a connection whose requests are tasks of their own. A timer stays armed from one to the
/// next: arming one for each request takes the lock of all timers, and wakes the thread that waits for
/// them where none of them is due sooner.
#[derive(Default)]
pub struct Alarms(Mutex<Vec<Alarm>>);

impl Alarms {
    /// How many wait for the next request. An idle connection holds these.
    const KEPT: usize = 16;

    pub fn lend(self: &Arc<Self>) -> Lent {
        // Locked for a moment, once before and once after a request.
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { alarm: Overdue(kept.unwrap_or_default()), to: self.clone() }
    }
}

/// An alarm for one request; goes back when that ends.
pub struct Lent {
    pub alarm: Overdue,
    to: Arc<Alarms>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let alarm = Alarm { timer: self.alarm.0.timer.take(), moved: true };
        let mut kept = self.to.0.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.timer.is_some() && kept.len() < Alarms::KEPT {
            kept.push(alarm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a request with this time, which never ends, is cut in it.
    async fn is_cut(alarm: &mut Overdue, time: Duration) -> bool {
        let guard = Guard::of_stream();
        guard.set_deadline(Some(Clock::now() + time));
        let never = std::future::pending::<()>();
        let cut = unless_overdue(&guard, alarm, Duration::ZERO, never);
        tokio::time::timeout(SECOND * 20, cut).await.is_ok_and(|done| done.is_none())
    }

    #[tokio::test]
    async fn an_alarm_that_has_served_another_task_wakes_the_one_that_has_it() {
        let alarms = Arc::new(Alarms::default());
        let mut first = alarms.lend();
        let guard = Guard::of_stream();
        guard.set_deadline(Some(Clock::now() + SECOND / 5));
        // Armed by another task, which ends long before.
        tokio::spawn(async move {
            let mut pending = std::pin::pin!(unless_overdue(
                &guard,
                &mut first.alarm,
                Duration::ZERO,
                std::future::pending::<()>()
            ));
            std::future::poll_fn(|cx| {
                assert!(pending.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        })
        .await
        .expect("no panic");
        assert_eq!(alarms.0.lock().expect("no panic").len(), 1);
        let mut second = alarms.lend();
        assert!(second.alarm.0.timer.is_some() && second.alarm.0.moved);
        assert!(is_cut(&mut second.alarm, SECOND / 2).await);
    }

    #[tokio::test]
    async fn a_connection_keeps_few_alarms() {
        let alarms = Arc::new(Alarms::default());
        let mut lent: Vec<Lent> = (0..Alarms::KEPT + 5).map(|_| alarms.lend()).collect();
        for lent in &mut lent {
            assert!(is_cut(&mut lent.alarm, Duration::from_millis(1)).await);
        }
        drop(lent);
        assert_eq!(alarms.0.lock().expect("no panic").len(), Alarms::KEPT);
    }
}
