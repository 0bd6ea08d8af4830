//! Waiting for a deadline that moves, cheaply.
//!
//! A client connection's stream polls an [`Alarm`] in its reads and writes. Its listener watches
//! each request as well: over HTTP/2 because the request's stream has no timer of its own, over
//! HTTP/1 for the times when the request neither reads nor writes the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::proxy::downstream::guard::Guard;
use crate::time::{Clock, Moment};

/// Watches a deadline that moves, for one task. The timer is touched only when the deadline moves
/// to before the time it is armed for, and when it fires. If the deadline has moved later, the
/// timer fires and is armed again then, so steady traffic leaves the timer wheel alone.
#[derive(Default)]
pub struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer's waker belongs to another task, which had the alarm before.
    moved: bool,
}

impl Alarm {
    /// Ready once `deadline` has passed. Must be polled by one task: while the timer is armed early
    /// enough, its waker is not renewed.
    pub fn poll(&mut self, deadline: Option<Moment>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let until = Instant::from_std(Clock::instant(deadline));
        let moved = std::mem::take(&mut self.moved);
        let timer = match &mut self.timer {
            Some(timer) if timer.deadline() <= until && !timer.is_elapsed() => {
                if !moved || poll_timer(timer, cx).is_pending() {
                    return Poll::Pending;
                }
                timer
            }
            Some(timer) => timer,
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(until))),
        };
        loop {
            if Clock::now() >= deadline {
                // Not kept: a timer that was never polled wakes no task, however it is armed.
                self.timer = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
            std::task::ready!(poll_timer(timer, cx));
        }
    }
}

/// Polls a timer, whatever is left of the task's budget: without any, tokio would not register the
/// waker.
fn poll_timer(timer: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    Pin::new(&mut tokio::task::unconstrained(timer.as_mut())).poll(cx)
}

/// Runs `request`, but gives it up if it is still pending `grace` after its deadline. When the
/// deadline passes, the `guard` is marked and `request` is polled once more. If that does not end
/// it, the request path waits for something other than the client: Pingora does not read the client
/// while an upload waits for an upstream that does not read. `is_cut` says whether the request is to
/// be given up at once, and wakes the task for that.
pub async fn unless_overdue<T>(
    guard: &Guard,
    alarm: &mut Overdue,
    grace: Duration,
    mut is_cut: impl FnMut(&mut Context<'_>) -> bool,
    request: impl Future<Output = T>,
) -> Option<T> {
    let mut request = std::pin::pin!(request);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = request.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if is_cut(cx) {
            return Poll::Ready(None);
        }
        let overdue = guard.is_overdue();
        let due = if overdue { guard.deadline() } else { guard.due() };
        let Some(deadline) = due else { return Poll::Pending };
        let until = if overdue { deadline + grace } else { deadline };
        std::task::ready!(alarm.0.poll(Some(until), cx));
        if overdue {
            return Poll::Ready(None);
        }
        if guard.is_due(Clock::now()) {
            guard.expire();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// The alarm of one connection, kept from request to request.
#[derive(Default)]
pub struct Overdue(Alarm);

/// The alarms of a connection whose requests run in tasks of their own. A timer stays armed from
/// one request to the next: arming one per request would take the lock of the timer wheel, and
/// would wake the thread that drives the wheel if no other timer is due sooner.
#[derive(Default)]
pub struct Alarms(Mutex<Vec<Alarm>>);

impl Alarms {
    /// Alarms kept for later requests. An idle connection holds this many at most.
    const KEPT: usize = 16;

    /// Lends an alarm to one request. The caller gives it back when the request ends by itself.
    pub fn lend(&self) -> Overdue {
        Overdue(self.kept().pop().unwrap_or_default())
    }

    /// Takes back what [`Alarms::lend`] lent. It is dropped if enough are kept.
    pub fn give_back(&self, alarm: Overdue) {
        let mut alarm = alarm.0;
        let Some(timer) = &mut alarm.timer else { return };
        // Replaces the waker, which would keep the finished task in memory. The timer wakes no task
        // until another request polls it.
        let _ = poll_timer(timer, &mut Context::from_waker(Waker::noop()));
        alarm.moved = true;
        let mut kept = self.kept();
        if kept.len() < Alarms::KEPT {
            kept.push(alarm);
        }
    }

    /// Locked briefly before and after each request.
    fn kept(&self) -> MutexGuard<'_, Vec<Alarm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a request that never ends is cut off within `time`.
    async fn is_cut(alarm: &mut Overdue, time: Duration) -> bool {
        let guard = Guard::of_stream();
        guard.set_deadline(Some(Clock::now() + time));
        let never = std::future::pending::<()>();
        unless_overdue(&guard, alarm, Duration::ZERO, |_| false, never).await.is_none()
    }

    /// Runs a request that arms the timer and ends at once.
    async fn arm(alarm: &mut Overdue, time: Duration) {
        tokio::select! {
            biased;
            _ = is_cut(alarm, time) => panic!("that was soon"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn an_alarm_wakes_the_task_that_has_it_now() {
        let alarms = Arc::new(Alarms::default());
        let lender = alarms.clone();
        let first = tokio::spawn(async move {
            let mut alarm = lender.lend();
            arm(&mut alarm, SECOND / 5).await;
            lender.give_back(alarm);
        });
        first.await.expect("no panic");
        let mut alarm = alarms.lend();
        assert!(alarm.0.timer.is_some());
        let cut = is_cut(&mut alarm, SECOND / 2);
        assert_eq!(tokio::time::timeout(SECOND * 20, cut).await, Ok(true));
    }

    /// How long it takes until `alarm` rings, polled as `first` says at first.
    async fn rings_after(
        alarm: &mut Alarm,
        time: Duration,
        mut first: impl FnMut(&mut Alarm, &mut Context<'_>),
    ) -> Duration {
        let begun = Clock::now();
        let deadline = Some(begun + time);
        let mut polled = false;
        let rings = std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut polled, true) {
                first(alarm, cx);
            }
            alarm.poll(deadline, cx)
        });
        // A timer of its own would wake the task, too late.
        tokio::time::timeout(SECOND * 5, rings).await.expect("rings at last");
        Clock::now().since(begun)
    }

    #[tokio::test]
    async fn a_task_that_has_spent_its_budget_is_woken() {
        let rang = tokio::spawn(async {
            let mut alarm = Alarm::default();
            rings_after(&mut alarm, SECOND / 10, |alarm, cx| {
                while tokio::task::coop::has_budget_remaining() {
                    let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
                }
                let soon = Clock::now() + SECOND / 10;
                assert!(alarm.poll(Some(soon), cx).is_pending());
            })
            .await
        });
        assert!(rang.await.expect("no panic") < SECOND * 4);
    }

    #[tokio::test]
    async fn a_deadline_that_comes_after_one_that_was_over_is_noticed() {
        let mut alarm = Alarm::default();
        let rang = rings_after(&mut alarm, SECOND / 10, |alarm, cx| {
            assert!(alarm.poll(Some(Clock::now()), cx).is_ready());
        });
        assert!(rang.await < SECOND * 4);
    }

    #[tokio::test]
    async fn an_alarm_that_waits_keeps_no_task() {
        let (alarms, task) = (Alarms::default(), Arc::new(Counted));
        let waker = Waker::from(task.clone());
        let mut alarm = alarms.lend();
        let deadline = Some(Clock::now() + SECOND);
        assert!(alarm.0.poll(deadline, &mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 2);
        alarms.give_back(alarm);
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[tokio::test]
    async fn a_connection_keeps_few_alarms() {
        let alarms = Alarms::default();
        let mut lent: Vec<Overdue> = (0..Alarms::KEPT + 5).map(|_| alarms.lend()).collect();
        for alarm in &mut lent {
            arm(alarm, SECOND).await;
        }
        lent.into_iter().for_each(|alarm| alarms.give_back(alarm));
        assert_eq!(alarms.kept().len(), Alarms::KEPT);
    }

    struct Counted;

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
}
